"""`System.from_xarray`: variables of a Dataset, told apart by their dims.

(obs,) is one column for all equations; (obs, equation) a column of its own for each; one more dim makes several.
"""

from __future__ import annotations

import numbers
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from lrgls_dask.checks import closest, shown
from lrgls_dask.data.arrays import default_equations
from lrgls_dask.data.assemble import Use, build_design, build_rows
from lrgls_dask.data.labelled import LabelledRows
from lrgls_dask.data.labels import RowLabels, pair_rows, plain_labels, row_labels
from lrgls_dask.data.sources import block_parts, chunk_lazily, column_parts, group_source, raw_array
from lrgls_dask.data.storedlabels import labels_to_json
from lrgls_dask.data.weights import Weights, read_weights
from lrgls_dask.rows.rows import Part

__all__ = ["rows_from_xarray"]


@dataclass(frozen=True, eq=False)
class _Variable:
    """A variable with its dims in the order obs, equation, other.

    title : for messages.  own : a column set for each equation.  labels : along the other dim, or None without one.
    """

    title: str
    name: Hashable
    data: xr.DataArray
    own: bool
    labels: tuple[Hashable, ...] | None


@dataclass(frozen=True, eq=False)
class _Block:
    """Parts of one variable.  places : (m,) columns for all users, or (K', m) for each of them.  terms : (m,)."""

    parts: list[Part]
    places: np.ndarray
    terms: tuple[Hashable, ...]


def rows_from_xarray(
    ds: xr.Dataset | None,
    y: Any,
    x: Any,
    *,
    obs: Hashable = "obs",
    equation: Hashable = "equation",
    weights: Any = None,
    groups: Any = None,
) -> LabelledRows:
    """The rows behind `System.from_xarray`."""
    source = _Source(ds, obs, equation)
    y_title, response = source.response(y)
    equations = source.equation_labels(y_title, response)
    wanted = _wanted(x, equations)
    variables = {_key(item): source.regressor(item, equations) for items in _once(wanted) for item in items}
    users: dict[Hashable, list[int]] = {key: [] for key in variables}
    for j, items in enumerate(wanted):
        for item in dict.fromkeys(map(_key, items)):
            users[item].append(j)
    terms = _term_names(variables)
    blocks = {key: _block(v, users[key], len(equations), terms[key]) for key, v in variables.items()}
    design = build_design(
        equations,
        [sum(part.n_columns for part in block.parts) for block in blocks.values()],
        _uses(wanted, blocks, users),
    )
    weighted = source.weights(weights, equations)
    g = None if groups is None else source.vector("groups", groups)
    design = replace(design, equation_coords=source.equation_coords(y_title, response))
    return LabelledRows(
        rows=build_rows(
            [part for block in blocks.values() for part in block.parts],
            column_parts(y_title, raw_array(y_title, response)),
            weighted,
            design,
        ),
        obs_labels=source.obs_labels,
        obs_dim=obs,
        equation_dim=equation,
        groups=None if g is None else group_source(*g),
    )


class _Source:
    """Looks variables up, orders their dims, and remembers row counts and labels to compare."""

    def __init__(self, ds: xr.Dataset | None, obs: Hashable, equation: Hashable) -> None:
        if ds is not None and not isinstance(ds, xr.Dataset):
            raise TypeError(
                f"ds is a {type(ds).__name__} but must be an xarray.Dataset, or None where y and x are DataArrays. Use "
                f"{'.to_dataset(name=...)' if hasattr(ds, 'to_dataset') else 'System.from_arrays(Y, X) for frames'}."
            )
        if obs == equation:
            raise ValueError(f"obs and equation are both {obs!r} but must name the two dims of y. Name two dims.")
        self.ds, self.obs, self.equation = xr.Dataset() if ds is None else ds, obs, equation
        self.reference: tuple[str, int] | None = None
        self.labelled: RowLabels | None = None

    @property
    def obs_labels(self) -> pd.Index | None:
        return None if self.labelled is None else self.labelled.read()

    def find(self, role: str, item: Any) -> tuple[str, xr.DataArray]:
        """The variable and its title; its rows are compared with those found before."""
        if isinstance(item, xr.DataArray):
            if item.name is None:
                raise ValueError(f"{role} has a DataArray without a name. Use .rename('...') to give it one.")
            data = item
        else:
            if not isinstance(item, Hashable):
                raise TypeError(
                    f"{role} holds a {type(item).__name__} but must name variables. Pass names or DataArrays."
                )
            if item not in self.ds.variables:
                known = list(self.ds.variables)
                found = f"has {shown(known, 10)}" if known else "is empty"
                raise ValueError(f"{role} names {item!r} but ds {found}{closest(item, known)}")
            data = self.ds[item]
        title = f"{role}[{data.name!r}]"
        if self.obs not in data.dims:
            raise ValueError(self._no_obs(title, role, data))
        self._remember(title, data)
        return title, data

    def _no_obs(self, title: str, role: str, data: xr.DataArray) -> str:
        kind = "is a scalar" if data.ndim == 0 else f"has dims {data.dims}"
        if role == "y":
            return f"{title} {kind} but must have {self.obs!r} and {self.equation!r}. Pass obs=... and equation=...."
        return f"{title} {kind} but must vary along {self.obs!r}. Use .expand_dims or xr.broadcast to give it that dim."

    def _remember(self, title: str, data: xr.DataArray) -> None:
        self.labelled = pair_rows((self.labelled, row_labels(title, data, self.obs)), self.obs)
        if self.reference is None:
            self.reference = title, data.sizes[self.obs]
        elif data.sizes[self.obs] != self.reference[1]:
            raise ValueError(
                f"{title} has {data.sizes[self.obs]} rows along {self.obs!r} but {self.reference[0]} has "
                f"{self.reference[1]}. Label the rows and use xr.align(...)."
            )

    def response(self, y: Any) -> tuple[str, xr.DataArray]:
        title, data = self.find("y", y)
        extra = [dim for dim in data.dims if dim not in (self.obs, self.equation)]
        if extra:
            raise ValueError(
                f"{title} has dims {data.dims} but must have {self.obs!r} and {self.equation!r} only. "
                f"Select along {shown(extra)}, or pass obs=... and equation=...."
            )
        return title, self.ordered(data)

    def ordered(self, data: xr.DataArray) -> xr.DataArray:
        first = [dim for dim in (self.obs, self.equation) if dim in data.dims]
        return chunk_lazily(data.transpose(*first, ...), self.obs)

    def equation_labels(self, title: str, response: xr.DataArray) -> tuple[Hashable, ...]:
        if self.equation not in response.dims:
            return plain_labels([response.name], f"the name of {title}")
        index = response.indexes.get(self.equation)
        if index is None:
            return default_equations(response.sizes[self.equation])
        return plain_labels(index, f"labels of {title} along {self.equation!r}")

    def equation_coords(self, title: str, response: xr.DataArray) -> dict[Hashable, tuple[Hashable, ...]]:
        """The other coordinates along the equations, such as the sector of every firm; small, so read now.

        Those of values that no store can hold name no groups either, and are left out.
        """
        found = {}
        for name, coord in response.coords.items():
            if coord.dims != (self.equation,) or name == self.equation:
                continue
            with suppress(TypeError):
                labels = plain_labels(np.asarray(coord), f"labels of {title} in {name!r}")
                labels_to_json((name, *labels), f"{name!r}")
                found[name] = labels
        return found

    def regressor(self, item: Any, equations: tuple[Hashable, ...]) -> _Variable:
        title, data = self.find("x", item)
        extra = [dim for dim in data.dims if dim not in (self.obs, self.equation)]
        if len(extra) > 1:
            raise ValueError(
                f"{title} has dims {data.dims}; besides {self.obs!r} and {self.equation!r} there may be one more. "
                f"Use .stack(regressor={extra})."
            )
        own = self.equation in data.dims
        if own:
            data = _in_order(title, data, self.equation, equations)
        labels = None
        if extra:
            index = data.indexes.get(extra[0])
            labels = tuple(range(data.sizes[extra[0]])) if index is None else plain_labels(index, f"labels of {title}")
        return _Variable(title, data.name, self.ordered(data), own, labels)

    def weights(self, given: Any, equations: tuple[Hashable, ...]) -> Weights:
        """Weights of rows, cells or equations, by the dims of a variable; or a mapping equation -> variable."""
        assert self.reference is not None
        n_obs, numbered = self.reference[1], equations == default_equations(len(equations))
        if given is None:
            return Weights()
        if isinstance(given, Mapping):
            found = {
                key: item if isinstance(item, numbers.Real) else self.vector("weights", item)[1]
                for key, item in given.items()
            }
            return read_weights(found, equations, n_obs, self.equation, numbered=numbered)
        data = given if isinstance(given, xr.DataArray) else self.ds.get(given)
        if data is not None and data.dims == (self.equation,):
            return read_weights(
                data, equations, n_obs, self.equation, numbered=numbered, name=f"weights[{data.name!r}]"
            )
        title, data = self.find("weights", given)
        if set(data.dims) - {self.obs, self.equation}:
            raise ValueError(
                f"{title} has dims {data.dims} but must have {self.obs!r}, {self.equation!r} or both. Select along the "
                "others."
            )
        data = self.ordered(data)
        if data.ndim == 2:
            data = _in_order(title, data, self.equation, equations)
        return read_weights(data, equations, n_obs, self.equation, numbered=True, name=title)

    def vector(self, role: str, item: Any) -> tuple[str, xr.DataArray]:
        title, data = self.find(role, item)
        if data.dims != (self.obs,):
            raise ValueError(f"{title} has dims {data.dims} but must have {self.obs!r} only. Select one column.")
        return title, data


def _in_order(title: str, data: xr.DataArray, dim: Hashable, equations: tuple[Hashable, ...]) -> xr.DataArray:
    """The variable with its equations in the order of y."""
    index = data.indexes.get(dim)
    if index is None:
        if data.sizes[dim] != len(equations):
            raise ValueError(
                f"{title} has {data.sizes[dim]} entries along {dim!r} but y has {len(equations)} equations. "
                "Give one for each."
            )
        return data
    labels = plain_labels(index, f"labels of {title} along {dim!r}")
    if labels == equations:
        return data
    place = {label: i for i, label in enumerate(labels)}
    lacking = [label for label in equations if label not in place]
    surplus = list(place.keys() - set(equations))
    if lacking or surplus or len(labels) != len(equations):
        found = f"has {shown(surplus or labels)}, more than y. Use .sel({dim}=y[{dim!r}])."
        if lacking:
            found = f"lacks {shown(lacking)}. Add them, or leave these equations out of y."
        raise ValueError(f"{title} must have the labels of y along {dim!r} but {found}")
    return data.isel({dim: [place[label] for label in equations]})


def _wanted(x: Any, equations: tuple[Hashable, ...]) -> list[list[Any]]:
    """For each equation its variables; a plain list is one list object for all."""
    if isinstance(x, Mapping):
        given = dict(zip(plain_labels(x, "the keys of x"), x.values(), strict=True))
        known = set(equations)
        unknown = [key for key in given if key not in known]
        if unknown:
            hint = closest(unknown[0], equations)
            raise ValueError(f"x names equation {shown(unknown)}, which y does not have{hint}")
        missing = [label for label in equations if label not in given]
        if missing:
            raise ValueError(f"x must list regressors for every equation; it lacks {shown(missing)}. Add them to x.")
        lists = {label: _as_list(items) for label, items in given.items()}
        return [lists[label] for label in equations]
    items = _as_list(x)
    if not items:
        raise ValueError("x names no variable but every equation needs a regressor. Name at least a constant column.")
    return [items] * len(equations)


def _as_list(x: Any) -> list[Any]:
    if isinstance(x, str | xr.DataArray):
        return [x]
    if isinstance(x, Sequence):
        return list(x)
    raise TypeError(f"x is a {type(x).__name__} but must be a list of variables, or a mapping equation -> list.")


def _once(wanted: list[list[Any]]) -> list[list[Any]]:
    return list({id(items): items for items in wanted}.values())


def _key(item: Any) -> Hashable:
    return ("object", id(item)) if isinstance(item, xr.DataArray) or not isinstance(item, Hashable) else item


def _term_names(variables: dict[Hashable, _Variable]) -> dict[Hashable, tuple[Hashable, ...]]:
    """What equations call the columns of each variable: its name, or the labels of its other dim.

    A label stands alone where it is text and no other variable's; else it becomes "variable[label]".
    """
    count = Counter(label for v in variables.values() for label in ((v.name,) if v.labels is None else v.labels))
    names: dict[Hashable, tuple[Hashable, ...]] = {}
    for key, v in variables.items():
        if v.labels is None:
            names[key] = (v.name,)
        elif all(isinstance(label, str) and count[label] == 1 for label in v.labels):
            names[key] = v.labels
        else:
            names[key] = tuple(f"{v.name}[{label}]" for label in v.labels)
    return names


def _block(variable: _Variable, users: list[int], n_equations: int, terms: tuple[Hashable, ...]) -> _Block:
    """The columns of a variable; of one with a column for each equation, those of the equations that use it."""
    data = variable.data
    if variable.own and len(users) < n_equations:
        data = data[:, users]
    array = raw_array(variable.title, data)
    if variable.own and array.ndim == 3:
        parts, places = block_parts(variable.title, array)
    else:
        parts = column_parts(variable.title, array)
        places = np.arange(sum(part.n_columns for part in parts))
        places = places[:, None] if variable.own else places
    return _Block(parts, places, terms)


def _uses(wanted: list[list[Any]], blocks: dict[Hashable, _Block], users: dict[Hashable, list[int]]) -> list[list[Use]]:
    """For each equation what it takes of each block; equations alike in every way share one list object."""
    number = {key: i for i, key in enumerate(blocks)}
    row = {key: {j: i for i, j in enumerate(users[key])} for key, block in blocks.items() if block.places.ndim == 2}
    shared: dict[tuple[Hashable, ...], list[Use]] = {}
    uses = []
    for j, items in enumerate(wanted):
        keys = tuple(_key(item) for item in items)
        if keys in shared:
            uses.append(shared[keys])
            continue
        own = []
        for key in keys:
            block = blocks[key]
            places = block.places[row[key][j]] if key in row else block.places
            own.append(Use(number[key], places, block.terms))
        uses.append(own)
        if not any(key in row for key in keys):
            shared[keys] = own
    return uses
