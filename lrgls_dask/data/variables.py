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
from lrgls_dask.data.griddims import Grid, on_one_dim, plain_attributes
from lrgls_dask.data.labelled import LabelledRows
from lrgls_dask.data.labels import RowLabels, check_unique, pair_rows, plain_labels, row_labels
from lrgls_dask.data.sources import block_parts, chunk_lazily, column_parts, group_source, ones, raw_array
from lrgls_dask.data.storedlabels import labels_to_json
from lrgls_dask.data.weights import Weights, read_weights
from lrgls_dask.rows.narrowed import only_columns
from lrgls_dask.rows.rows import Part

__all__ = ["rows_from_xarray"]

CONSTANT = "const"  # as statsmodels calls it


@dataclass(frozen=True, eq=False)
class _Variable:
    """A variable with its dims in the order obs, equation, other.

    title : for messages.  along : dims of equations, where it has any: a column set for each of their labels.
    labels : along the other dim, or None without one.
    """

    title: str
    name: Hashable
    data: xr.DataArray
    along: tuple[Hashable, ...]
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
    equation: Hashable | Sequence[Hashable] = "equation",
    weights: Any = None,
    groups: Any = None,
    constant: bool = False,
) -> LabelledRows:
    """The rows behind `System.from_xarray`.  constant : whether every equation has one before its regressors."""
    source = _Source(ds, obs, equation)
    y_title, response = source.response(y)
    y_parts, equations = source.read_response(y_title, response)
    wanted = _wanted(x, equations, [source.constant()] if constant else [])
    variables = {_key(item): source.regressor(item, equations) for items in _once(wanted) for item in items}
    users: dict[Hashable, list[int]] = {key: [] for key in variables}
    for j, items in enumerate(wanted):
        for item in dict.fromkeys(map(_key, items)):
            users[item].append(j)
    terms = _term_names(variables)
    _check_constant(terms, constant)
    blocks = {key: source.block(v, users[key], len(equations), terms[key]) for key, v in variables.items()}
    design = build_design(
        equations,
        [sum(part.n_columns for part in block.parts) for block in blocks.values()],
        _uses(wanted, blocks, users),
    )
    weighted = source.weights(weights, equations)
    g = None if groups is None else source.vector("groups", groups)
    coords = source.equation_coords(y_title, response)
    grid = source.grid.labels if source.grid else {}
    design = replace(design, equation_coords=coords, equation_dims=grid, attributes=source.attributes(response))
    design = replace(design, constant=CONSTANT if constant else None)
    return LabelledRows(
        rows=build_rows(
            [part for block in blocks.values() for part in block.parts],
            y_parts,
            weighted,
            design,
        ),
        obs_labels=source.obs_labels,
        obs_dim=obs,
        equation_dim=source.equation,
        groups=None if g is None else group_source(*g),
    )


class _Source:
    """Looks variables up, orders their dims, and remembers row counts and labels to compare."""

    def __init__(self, ds: xr.Dataset | None, obs: Hashable, equation: Hashable | Sequence[Hashable]) -> None:
        if ds is not None and not isinstance(ds, xr.Dataset):
            raise TypeError(
                f"ds is a {type(ds).__name__} but must be an xarray.Dataset, or None where y and x are DataArrays. Use "
                f"{'.to_dataset(name=...)' if hasattr(ds, 'to_dataset') else 'System.from_arrays(Y, X) for frames'}."
            )
        self.dims = tuple(equation) if isinstance(equation, tuple | list) and len(equation) > 1 else (_one(equation),)
        if obs in self.dims or len(set(self.dims)) < len(self.dims):
            if self.dims == (obs,):
                raise ValueError(f"obs and equation are both {obs!r} but must name the two dims of y. Name two dims.")
            raise ValueError(f"obs={obs!r} and equation={self.dims} must name different dims of y. Name each once.")
        self.ds, self.obs = xr.Dataset() if ds is None else ds, obs
        self.equation = self.dims[0] if len(self.dims) == 1 else ("equation" if obs != "equation" else "equations")
        self.grid: Grid | None = None
        self.of_response: xr.Variable | None = None
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

    def constant(self) -> xr.DataArray:
        """A variable of ones that takes no memory."""
        assert self.reference is not None
        return xr.DataArray(ones(self.reference[1]), dims=(self.obs,), name=CONSTANT)

    def response(self, y: Any) -> tuple[str, xr.DataArray]:
        title, data = self.find("y", y)
        self.of_response = data.variable
        extra = [dim for dim in data.dims if dim not in (self.obs, *self.dims)]
        wanted = " and ".join(map(repr, (self.obs, *self.dims)))
        if extra:
            raise ValueError(
                f"{title} has dims {data.dims} but must have {wanted} only. "
                f"Select along {shown(extra)}, or pass obs=... and equation=...."
            )
        if len(self.dims) > 1 and data.ndim <= len(self.dims):
            raise ValueError(f"{title} has dims {data.dims} but must have {wanted}. Name the dims it has.")
        return title, self.ordered(data)

    def ordered(self, data: xr.DataArray) -> xr.DataArray:
        first = [dim for dim in (self.obs, *self.dims) if dim in data.dims]
        return chunk_lazily(data.transpose(*first, ...), self.obs)

    def read_response(self, title: str, response: xr.DataArray) -> tuple[list[Part], tuple[Hashable, ...]]:
        """The parts of Y and what their columns are called."""
        array = raw_array(title, response)
        if len(self.dims) == 1:
            return column_parts(title, array), self._equation_labels(title, response)
        labels = {}
        for dim in self.dims:
            index = response.indexes.get(dim)
            found = range(response.sizes[dim]) if index is None else index
            labels[dim] = plain_labels(found, f"labels of {title} along {dim!r}")
            check_unique(labels[dim], f"labels of {title} along {dim!r}")
        self.grid = Grid(labels)
        return block_parts(title, array[..., None])[0], self.grid.equations

    def _equation_labels(self, title: str, response: xr.DataArray) -> tuple[Hashable, ...]:
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
            lone = len(self.dims) == 1 and name == self.equation
            if lone or not coord.dims or not set(coord.dims) <= set(self.dims):
                continue
            with suppress(TypeError):
                along = tuple(dim for dim in self.dims if dim in coord.dims)
                values = np.asarray(coord.transpose(*along))
                values = values if self.grid is None else self.grid.each(values, along)
                labels = plain_labels(values, f"labels of {title} in {name!r}")
                labels_to_json((name, *labels), f"{name!r}")
                found[name] = labels
        return found

    def attributes(self, response: xr.DataArray) -> dict[Hashable, dict[str, Any]]:
        """Of the responses, by None, and of their dims."""
        found = {None: response.attrs, **{dim: response[dim].attrs for dim in response.dims}}
        plain = {name: plain_attributes(attributes) for name, attributes in found.items()}
        return {name: attributes for name, attributes in plain.items() if attributes}

    def regressor(self, item: Any, equations: tuple[Hashable, ...]) -> _Variable:
        title, data = self.find("x", item)
        if data.variable is self.of_response:
            raise ValueError(
                f"the response {data.name!r} is a regressor too, in x. Drop it there, or lag it: "
                f"ds[{data.name!r}].shift({self.obs}=1)."
            )
        extra = [dim for dim in data.dims if dim not in (self.obs, *self.dims)]
        if len(extra) > 1:
            known = " and ".join(map(repr, (self.obs, *self.dims)))
            raise ValueError(
                f"{title} has dims {data.dims}; besides {known} there may be one more. Use .stack(regressor={extra})."
            )
        along = tuple(dim for dim in self.dims if dim in data.dims)
        for dim in along:
            data = _in_order(title, data, dim, equations if self.grid is None else self.grid.labels[dim])
        labels = None
        if extra:
            index = data.indexes.get(extra[0])
            labels = tuple(range(data.sizes[extra[0]])) if index is None else plain_labels(index, f"labels of {title}")
        return _Variable(title, data.name, self.ordered(data), along, labels)

    def block(self, variable: _Variable, users: list[int], n_equations: int, terms: tuple[Hashable, ...]) -> _Block:
        """The columns of a variable; of one with a column for each equation, those of the equations that use it."""
        data, along = variable.data, variable.along
        if along and self.grid is None and len(users) < n_equations:
            data = data[:, users]
        array = raw_array(variable.title, data)
        if not along:
            parts = column_parts(variable.title, array)
            return _Block(parts, np.arange(sum(part.n_columns for part in parts)), terms)
        if self.grid is None and array.ndim == 2:
            parts = column_parts(variable.title, array)
            return _Block(parts, np.arange(sum(part.n_columns for part in parts))[:, None], terms)
        parts, places = block_parts(variable.title, array if variable.labels is not None else array[..., None])
        if self.grid is None:
            return _Block(parts, places, terms)
        places = self.grid.each(places, along)[users]
        used, places = np.unique(places, return_inverse=True)
        narrow = len(used) < sum(part.n_columns for part in parts)
        return _Block(
            list(only_columns(tuple(parts), used)) if narrow else parts, places.reshape(len(users), -1), terms
        )

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
        if data is not None and self.obs not in data.dims and set(data.dims) == set(self.dims):
            name = f"weights[{data.name!r}]"
            return read_weights(
                self._flat(name, data, equations), equations, n_obs, self.equation, numbered=numbered, name=name
            )
        title, data = self.find("weights", given)
        if set(data.dims) - {self.obs, *self.dims}:
            known = ", ".join(map(repr, (self.obs, *self.dims)))
            every = "both" if len(self.dims) == 1 else "all"
            raise ValueError(f"{title} has dims {data.dims} but must have {known} or {every}. Select along the others.")
        data = self._flat(title, self.ordered(data), equations)
        return read_weights(data, equations, n_obs, self.equation, numbered=True, name=title)

    def _flat(self, title: str, data: xr.DataArray, equations: tuple[Hashable, ...]) -> xr.DataArray:
        """With its equations, if it varies along them, on one dim in the order of y."""
        along = [dim for dim in self.dims if dim in data.dims]
        if self.grid is None or not along:
            return data if data.ndim < 2 else _in_order(title, data, self.equation, equations)
        if len(along) < len(self.dims):
            raise ValueError(
                f"{title} has dims {data.dims} but must have all of {self.dims} or none. Use xr.broadcast."
            )
        for dim in along:
            data = _in_order(title, data, dim, self.grid.labels[dim])
        return on_one_dim(data, along, self.equation)

    def vector(self, role: str, item: Any) -> tuple[str, xr.DataArray]:
        title, data = self.find(role, item)
        if data.dims != (self.obs,):
            raise ValueError(f"{title} has dims {data.dims} but must have {self.obs!r} only. Select one column.")
        return title, data


def _one(equation: Any) -> Hashable:
    """The only dim of equations."""
    name: Hashable = equation[0] if isinstance(equation, list | tuple) and len(equation) == 1 else equation
    return name


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


def _check_constant(terms: Mapping[Hashable, tuple[Hashable, ...]], constant: bool) -> None:
    if constant and sum(CONSTANT in names for names in terms.values()) > 1:
        raise ValueError(
            f"x has a regressor {CONSTANT!r}, and constant=True makes one of that name. Leave one of the two out."
        )


def _wanted(x: Any, equations: tuple[Hashable, ...], first: list[Any]) -> list[list[Any]]:
    """For each equation its variables; a plain list is one list object for all.  first : what all have before them."""
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
        lists = {label: [*first, *_as_list(items)] for label, items in given.items()}
        return [lists[label] for label in equations]
    items = [*first, *_as_list(x)]
    if not items:
        raise ValueError("x names no variable but every equation needs a regressor. Name one, or use constant=True.")
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
