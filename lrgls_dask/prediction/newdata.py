"""Data to predict from, brought into the columns of a fit: a System, or regressors without responses.

Columns go by label: a Dataset's variables as `System.from_xarray` names them, a frame's columns as `fit.regressors`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from lrgls_dask.checks import closest, shown
from lrgls_dask.data.daskframes import CountedFrame, counted
from lrgls_dask.data.framefit import FittedFormulas
from lrgls_dask.data.griddims import off_dims
from lrgls_dask.data.indices import as_index
from lrgls_dask.data.labelled import LabelledRows
from lrgls_dask.data.labels import RowLabels, check_unique, dim_of_rows, pair_rows, plain_labels, row_labels
from lrgls_dask.data.sources import axis_labels, block_parts, chunk_lazily, column_parts, ones, raw_array
from lrgls_dask.data.storedlabels import StoredLabels
from lrgls_dask.data.tables import as_table, column_names, is_table
from lrgls_dask.data.unwritten import check_written
from lrgls_dask.design.design import Design
from lrgls_dask.prediction.fitted import NAMES_SHOWN, check_same_design
from lrgls_dask.rows.rows import Part, Rows

__all__ = ["NewRows", "rows_to_predict"]


@dataclass(frozen=True, eq=False)
class NewRows:
    """Unread rows, in columns that their own design knows: the fit's, with its columns where the data have them.

    dim : what the rows are called.
    """

    rows: Rows
    obs_labels: pd.Index | StoredLabels | None
    dim: Hashable

    @property
    def design(self) -> Design:
        """Where each equation's columns lie in the rows as they are stored."""
        return self.rows.design.given


def rows_to_predict(
    data: Any,
    design: Design,
    dims: tuple[Hashable, Hashable],
    y: Any = None,
    formulas: FittedFormulas | None = None,
    *,
    with_y: bool = False,
) -> NewRows:
    """The rows of `data` for a fit with this design and these names of the dims of Y.

    data : a System with the same designs; an xr.Dataset; a pandas or Dask frame or a DataArray (N, q) with the
        regressors as labels, in any order; or an (N, q) array in the order of `fit.regressors`.
    y : responses of data that is no System: (N, K) in the order of the fit, or a frame or DataArray labelled by
        equation, which may leave some out; the name of a variable where data is a Dataset. Its rows go by label where
        both have any, see `data.labels`.
    formulas : of a fit made by some, which take a frame with the columns that they read.  with_y : whether to have the
        responses too that they make of it, where it has them.
    Nothing is read, but the index of a Dask frame, once, and a frame in memory that formulas take.

    Raises ValueError naming every regressor that is missing or extra. A Dataset may hold variables that the fit does
    not use, and a frame the responses; they are not looked at.
    """
    design = design.given
    data = data if formulas is None else as_table(data)
    if formulas is not None and is_table(data) and _has_columns(data, formulas, design):
        return _by_formulas(data, formulas, design, dims, y, with_y)
    data, y = counted(data, y)
    if isinstance(data, LabelledRows):
        if y is not None:
            raise ValueError("y was given although the data are a System, which has its own Y. Leave y out.")
        check_same_design(data.design.given, design)
        return NewRows(data.rows, data.obs_labels, data.obs_dim)
    if isinstance(data, xr.Dataset):
        parts, columns, names = _Variables(data, design, dims).matched()
        index = data.indexes.get(dims[0])
        labels = None if index is None else RowLabels("the data", index, f"data.indexes[{dims[0]!r}]", "", dims[0])
        if isinstance(y, str):
            y = _variable(data, y)
    else:
        parts, columns, names = _table(data, design)
        labels = row_labels("data", data)
        labels = None if labels is None else replace(labels, name="the data")
    n_obs = int(parts[0].array.shape[0])
    if n_obs == 0:
        raise ValueError("the data have no rows. Check the selection that made them.")
    dim = dim_of_rows([labels], dims[0], (dims[1],))
    responses = () if y is None else tuple(_responses(y, design, (dim, dims[1]), n_obs, labels))
    index = None if labels is None else labels.values
    check_written((part.name, part.array) for part in (*parts, *responses))
    return NewRows(Rows(tuple(parts), responses, None, _moved(design, columns, names), n_obs), index, dim)


# ------------------------------------------------------------------------------------------------------------ formulas


def _has_columns(data: Any, formulas: FittedFormulas, design: Design) -> bool:
    """Whether formulas can read a frame, rather than that it holds the regressors themselves.

    Raises ValueError where it is neither.
    """
    lacking = formulas.lacking(data)
    if lacking and not set(design.regressors) <= set(data.columns):
        known = column_names(data)
        raise ValueError(
            f"the data lack columns {shown(lacking, NAMES_SHOWN)} that the formulas of the fit read; they have "
            f"{shown(known, NAMES_SHOWN)}{closest(lacking[0], known)} Add or rename columns."
        )
    return not lacking


def _by_formulas(
    data: Any, formulas: FittedFormulas, design: Design, dims: tuple[Hashable, Hashable], y: Any, with_y: bool
) -> NewRows:
    made = formulas.rows(data, design.equations, responses=with_y and y is None and formulas.shows_responses(data))
    n_obs = int(made.x.array.shape[0])
    if n_obs == 0:
        raise ValueError("the data have no rows. Check the selection that made them.")
    dim = dim_of_rows([made.labels], dims[0], (dims[1],))
    (given,) = counted(y)
    y_parts = made.y if given is None else tuple(_responses(given, design, (dim, dims[1]), n_obs, made.labels))
    index = None if made.labels is None else made.labels.values
    return NewRows(Rows((made.x,), y_parts, None, made.design, n_obs), index, dim)


def _moved(design: Design, columns: np.ndarray, names: tuple[Hashable, ...]) -> Design:
    """The design whose column c lies at columns[c] of data with these names."""
    moved = {id(own): columns[own] for own in design.columns}
    return replace(design, regressors=names, columns=tuple(moved[id(own)] for own in design.columns))


# ---------------------------------------------------------------------------------------------------- frames, arrays


def _table(data: Any, design: Design) -> tuple[list[Part], np.ndarray, tuple[Hashable, ...]]:
    """Parts of a frame or array, where each regressor lies in them, and the names of all their columns."""
    index = data.columns if isinstance(data, CountedFrame) else axis_labels(data, 1)
    names = design.regressors if index is None else plain_labels(index, "the columns of the data")
    made = _makes_constant(names, design)
    if index is not None:
        check_unique(names, "columns of the data")
        names_of = f"data.sel({data.dims[1]}=list(fit.regressors))" if isinstance(data, xr.DataArray) else ""
        _compare((*names, *made), design, names_of or "data[list(fit.regressors)]")
        wanted = set(design.regressors)
        kept = [i for i, name in enumerate(names) if name in wanted]
        if len(kept) < len(names):
            if isinstance(data, xr.DataArray):
                data = data.isel({data.dims[1]: kept})
            else:
                data = data.select(kept) if isinstance(data, CountedFrame) else data.iloc[:, kept]
            names = tuple(names[i] for i in kept)
    parts = column_parts("data", raw_array("data", data))
    parts += [Part("data", ones(int(parts[0].array.shape[0])), None) for _ in made]
    names = (*names, *made)
    found = sum(part.n_columns for part in parts)
    if found != design.n_regressors:
        raise ValueError(_wrong_count(found, design))
    place = {name: i for i, name in enumerate(names)}
    return parts, np.array([place[name] for name in design.regressors], dtype=np.intp), names


def _makes_constant(names: Sequence[Hashable], design: Design) -> tuple[Hashable, ...]:
    """The constant that the fitted system made itself, where columns of these names lack it."""
    made = design.constant
    return (made,) if made is not None and made in design.regressors and made not in names else ()


def _compare(names: Sequence[Hashable], design: Design, selection: str) -> None:
    """selection : how the columns are had of data that have them all."""
    have, want = set(names), set(design.regressors)
    missing = [name for name in design.regressors if name not in have]
    extra = [name for name in names if name not in want and name not in set(design.equations)]
    if missing or extra:
        sides = [f"lack {shown(missing, NAMES_SHOWN)}"] if missing else []
        sides += [f"have {shown(extra, NAMES_SHOWN)} besides"] if extra else []
        raise ValueError(
            f"the columns of the data must be the regressors of the fit; they {' and '.join(sides)}. "
            + (
                "Add what is missing, or rename the columns that hold it."
                if missing
                else f"Select them with {selection}."
            )
        )


def _wrong_count(found: int, design: Design) -> str:
    wanted = design.n_regressors
    if found > wanted:
        return (
            f"the data have {found} columns but the fit {wanted} regressors: {found - wanted} "
            f"extra after {design.regressors[-1]!r}. Give the columns of fit.regressors, in that order."
        )
    return (
        f"the data have {found} columns but the fit {wanted} regressors: "
        f"{shown(design.regressors[found:], NAMES_SHOWN)} missing. Give the columns of fit.regressors, in that order."
    )


# ------------------------------------------------------------------------------------------------------------ Dataset


@dataclass(frozen=True, eq=False)
class _Offer:
    """A column that a variable has for one equation, or for any: `entry` of the columns laid out by equation, label."""

    variable: Hashable
    entry: int


class _Variables:
    """The variables of a Dataset that vary along obs, looked up by what equations call their columns."""

    def __init__(self, ds: xr.Dataset, design: Design, dims: tuple[Hashable, Hashable]) -> None:
        self.design, (self.obs, self.equation) = design, dims
        self.dims: tuple[Hashable, ...] = tuple(design.equation_dims) or (self.equation,)
        if self.obs not in ds.dims:
            raise ValueError(
                f"the data have dims {shown(list(ds.dims))} but must have {self.obs!r}, as the fitted ones. "
                f"Use .rename(...={self.obs!r})."
            )
        lacks = design.constant is not None and design.constant not in ds.variables
        self.ds = ds.assign({design.constant: (self.obs, ones(ds.sizes[self.obs]))}) if lacks else ds
        self.shared: dict[Hashable, _Offer] = {}
        self.own: dict[tuple[Hashable, Hashable], _Offer] = {}
        found = [name for name in self.ds.variables if name != self.obs and self.obs in self.ds[name].dims]
        for name in sorted(found, key=lambda name: self.ds[name].ndim):  # a name comes before labels that read the same
            self._offer(name)

    def _offer(self, name: Hashable) -> None:
        variable = self.ds[name]
        other = self._other(name)
        if len(other) > 1:
            return
        terms: list[tuple[Hashable, ...]] = [(name,)]
        if other:
            index = variable.indexes.get(other[0])
            labels = range(variable.sizes[other[0]]) if index is None else plain_labels(index, f"labels of {name!r}")
            terms = [(label, f"{name}[{label}]") for label in labels]
        if not set(self.dims) & set(variable.dims):
            for entry, names in enumerate(terms):
                for term in names:
                    self.shared.setdefault(term, _Offer(name, entry))
            return
        offers: dict[int, _Offer] = {}
        for equation, i in self._equations(variable).items():
            for entry, names in enumerate(terms, i * len(terms)):
                offer = offers.setdefault(entry, _Offer(name, entry))
                for term in names:
                    self.own.setdefault((term, equation), offer)

    def _other(self, name: Hashable) -> list[Hashable]:
        return [dim for dim in self.ds[name].dims if dim not in (self.obs, *self.dims)]

    def _equations(self, variable: xr.DataArray) -> dict[Hashable, int]:
        """Of the equations that the variable has columns for, which of them."""
        along = [dim for dim in self.dims if dim in variable.dims]
        grid = self.design.equation_dims
        labels = []
        for dim in along:
            index, known = variable.indexes.get(dim), grid.get(dim, self.design.equations)
            same = variable.sizes[dim] == len(known)
            labels.append(known if index is None and same else () if index is None else _labels_along(index, dim))
        if not grid:
            return {equation: i for i, equation in enumerate(labels[0])}
        places = {label: i for i, label in enumerate(product(*labels))}
        position = [self.dims.index(dim) for dim in along]
        mine = {each: tuple(each[i] for i in position) for each in self.design.equations if isinstance(each, tuple)}
        return {equation: places[label] for equation, label in mine.items() if label in places}

    def matched(self) -> tuple[list[Part], np.ndarray, tuple[Hashable, ...]]:
        """Parts of the variables that are used, where each regressor lies in them, and a name for each column."""
        offers = self._chosen()
        parts: list[Part] = []
        places: dict[Hashable, np.ndarray] = {}
        names: list[Hashable] = []
        for name in dict.fromkeys(offer.variable for offer in offers):
            made, entries = self._parts(name)
            places[name] = len(names) + entries
            parts += made
            names += [(name, i) for i in range(len(entries))]
        columns = np.array([places[offer.variable][offer.entry] for offer in offers], dtype=np.intp)
        return parts, columns, tuple(names)

    def _chosen(self) -> list[_Offer]:
        """An offer for each regressor; raises ValueError naming all that have none."""
        users: list[list[tuple[Hashable, Hashable]]] = [[] for _ in self.design.regressors]
        for equation, columns, terms in zip(self.design.equations, self.design.columns, self.design.terms, strict=True):
            for column, term in zip(columns.tolist(), terms, strict=True):
                users[column].append((term, equation))
        columns_of: dict[Hashable, set[int]] = {}
        for column, uses in enumerate(users):
            for term, _ in uses:
                columns_of.setdefault(term, set()).add(column)
        offers, missing = [], []
        for label, uses in zip(self.design.regressors, users, strict=True):
            offer = self.shared.get(label)
            if offer is None:
                theirs = {id(each): each for each in map(self.own.get, uses)}
                offer = next(iter(theirs.values())) if len(theirs) == 1 else None
            if offer is None:
                alone = [term for term, _ in uses if len(columns_of[term]) == 1]
                offer = next((self.shared[term] for term in alone if term in self.shared), None)
            offers.append(offer)
            if offer is None:
                missing.append(label)
        if missing:
            raise ValueError(self._missing(missing))
        return [offer for offer in offers if offer is not None]

    def _missing(self, missing: list[Hashable]) -> str:
        known = [name for name in self.ds.data_vars if self.obs in self.ds[name].dims]
        has = "; ".join(f"{name!r} {self.ds[name].dims}" for name in known[:NAMES_SHOWN])
        return (
            f"the data lack regressors {shown(missing, NAMES_SHOWN)} of the fit; they have {has or 'no variables'}. "
            f"Name variables as the fitted ones, with dims ({self.obs!r},) where equations share a column, and "
            f"({self.obs!r}, {self.equation!r}) where each has its own."
        )

    def _parts(self, name: Hashable) -> tuple[list[Part], np.ndarray]:
        """Parts of one variable, and the column among them of each entry."""
        title = f"data[{name!r}]"
        first = [dim for dim in (self.obs, *self.dims) if dim in self.ds[name].dims]
        array = raw_array(title, chunk_lazily(self.ds[name].transpose(*first, ...), self.obs))
        if len(first) > 2 and array.ndim == len(first):
            array = array[..., None]
        if array.ndim >= 3:
            parts, places = block_parts(title, array)
            return parts, places.ravel()
        parts = column_parts(title, array)
        return parts, np.arange(sum(part.n_columns for part in parts))


def _labels_along(index: pd.Index, dim: Hashable) -> tuple[Hashable, ...]:
    return plain_labels(index, f"labels along {dim!r}")


def _variable(ds: xr.Dataset, name: str) -> xr.DataArray:
    if name not in ds.variables:
        raise ValueError(f"y names {name!r} but the data have {shown(list(ds.data_vars), 10)}{closest(name, ds)}")
    return ds[name]


# ---------------------------------------------------------------------------------------------------------- responses


def _responses(
    y: Any, design: Design, dims: tuple[Hashable, Hashable], n_obs: int, labels: RowLabels | None
) -> list[Part]:
    """Parts of Y with K columns; equations that y leaves out are NaN."""
    if isinstance(y, xr.DataArray):
        y = off_dims(y, dims[1], design)
        if set(y.dims) != set(dims):
            raise ValueError(f"y has dims {y.dims} but must have {dims}. Use .rename or .expand_dims.")
        y = chunk_lazily(y.transpose(*dims), dims[0])
    pair_rows((labels, row_labels("y", y)), dims[0])
    index = axis_labels(y, 1)
    if index is not None and isinstance(y, CountedFrame):
        y = xr.DataArray(y.numbers("y"), {dims[1]: index.rename(dims[1])}, dims)
    if index is not None:
        names = plain_labels(index, "the columns of y")
        check_unique(names, "equations of y")
        unknown = [name for name in names if name not in set(design.equations)]
        if unknown:
            hint = closest(unknown[0], design.equations)
            raise ValueError(f"y has equations {shown(unknown, NAMES_SHOWN)}, which the fit does not have{hint}")
        if names != design.equations:
            wanted = as_index(design.equations)
            y = y.reindex({dims[1]: wanted}) if isinstance(y, xr.DataArray) else y.reindex(columns=wanted)
    parts = column_parts("y", raw_array("y", y))
    found = sum(part.n_columns for part in parts), int(parts[0].array.shape[0])
    if found != (design.n_equations, n_obs):
        raise ValueError(
            f"y has {found[0]} columns and {found[1]} rows but must have one column for each of {design.n_equations} "
            f"equations and the {n_obs} rows of the data. Label its columns by equation to leave some out."
        )
    return parts
