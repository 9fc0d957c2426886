"""`System.from_arrays`: NumPy, Dask and zarr arrays, data frames and DataArrays, with or without labels."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import xarray as xr

from lrgls_dask.data.assemble import Use, build_design, build_rows
from lrgls_dask.data.daskframes import CountedFrame, counted
from lrgls_dask.data.labelled import LabelledRows
from lrgls_dask.data.labels import RowLabels, dim_of_rows, pair_rows, plain_labels, row_labels
from lrgls_dask.data.sources import axis_labels, block_parts, column_parts, group_source, raw_array
from lrgls_dask.data.weights import read_weights
from lrgls_dask.design.design import Design
from lrgls_dask.rows.rows import Part

__all__ = ["default_equations", "default_regressors", "incidence_columns", "rows_from_arrays"]


def rows_from_arrays(
    Y: Any,
    Xs: Any,
    *,
    incidence: Any = None,
    equations: Iterable[Hashable] | None = None,
    regressors: Iterable[Any] | None = None,
    weights: Any = None,
    groups: Any = None,
) -> LabelledRows:
    """The rows behind `System.from_arrays`."""
    Y, Xs, weights, groups = counted(Y, Xs, weights, groups)
    y_array = raw_array("Y", Y)
    y_parts = column_parts("Y", y_array)
    n_equations = sum(part.n_columns for part in y_parts)
    labels = _equation_labels(Y, equations, n_equations)
    if isinstance(Xs, list | tuple):
        if incidence is not None:
            raise ValueError("incidence goes with one (N, q) array of distinct columns, but Xs is a list. Drop one.")
        x_parts, design = _separate(list(Xs), labels, regressors)
        named = [(f"Xs[{j}]", X) for j, X in enumerate(Xs)]
    else:
        x_parts, design = _together(Xs, labels, incidence, regressors)
        named = [("Xs", Xs)]
    n_obs = int(y_array.shape[0])
    numbered = equations is None and labels == default_equations(n_equations)
    weighted = read_weights(weights, labels, n_obs, _dims(Y, ())[1], numbered=numbered)
    named = [("Y", Y), *named, *weighted.named, ("groups", groups)]
    labels_of_rows = [row_labels(name, data) for name, data in named]
    dims = _dims(Y, labels_of_rows)
    return LabelledRows(
        rows=build_rows(x_parts, y_parts, weighted, design),
        obs_labels=_obs_labels(named, labels_of_rows, dims[0], n_obs),
        obs_dim=dims[0],
        equation_dim=dims[1],
        groups=None if groups is None else group_source("groups", groups),
    )


def default_equations(count: int) -> tuple[Hashable, ...]:
    """ "y0", "y1", ..."""
    return tuple(f"y{j}" for j in range(count))


def default_regressors(count: int) -> tuple[Hashable, ...]:
    """ "x0", "x1", ..."""
    return tuple(f"x{i}" for i in range(count))


def _dims(Y: Any, labels_of_rows: Sequence[RowLabels | None]) -> tuple[Hashable, Hashable]:
    if isinstance(Y, xr.DataArray):
        return Y.dims[0], Y.dims[1] if Y.ndim > 1 else "equation"
    return dim_of_rows(labels_of_rows, "obs"), "equation"


def _equation_labels(Y: Any, given: Iterable[Hashable] | None, count: int) -> tuple[Hashable, ...]:
    if given is not None:
        labels = plain_labels(given, "equations")
        if len(labels) != count:
            raise ValueError(f"equations has {len(labels)} labels but Y has {count} columns. Give one for each.")
        return labels
    index = axis_labels(Y, 1)
    if index is not None:
        return plain_labels(index, "the columns of Y")
    if isinstance(Y, pd.Series | xr.DataArray | CountedFrame) and Y.ndim == 1 and Y.name is not None:
        return plain_labels([Y.name], "the name of Y")
    return default_equations(count)


def _obs_labels(
    named: Sequence[tuple[str, Any]], labelled: Sequence[RowLabels | None], dim: Hashable, n_obs: int
) -> pd.Index | None:
    """Row labels of the first array that has any; all others that have some must have the same."""
    for name, data in named:
        if isinstance(data, xr.DataArray) and dim in data.dims[1:]:
            raise ValueError(
                f"{name} has dims {data.dims} but rows, {dim!r}, must come first. Use .transpose({dim!r}, ...)."
            )
    common = pair_rows(labelled, dim)
    if common is None:
        return None
    labels = common.read()
    if len(labels) != n_obs:
        raise ValueError(f"{common.name} has {len(labels)} row labels but Y has {n_obs} rows. Align them first.")
    return labels


def _names(given: Iterable[Any] | None, X: Any, count: int, name: str) -> tuple[Hashable, ...]:
    """Labels of `count` columns: the ones given, else those of a frame, else defaults."""
    if given is not None:
        labels = plain_labels(given, "regressors")
        if len(labels) != count:
            raise ValueError(f"regressors has {len(labels)} names but {name} has {count} columns. Give one for each.")
        return labels
    index = (
        axis_labels(X, X.ndim - 1) if isinstance(X, pd.DataFrame | xr.DataArray | CountedFrame) and X.ndim > 1 else None
    )
    if index is not None:
        return plain_labels(index, f"the columns of {name}")
    if isinstance(X, pd.Series | CountedFrame) and X.ndim == 1 and X.name is not None:
        return plain_labels([X.name], f"the name of {name}")
    return default_regressors(count)


def _together(
    X: Any, equations: tuple[Hashable, ...], incidence: Any, regressors: Iterable[Any] | None
) -> tuple[list[Part], Design]:
    """One array: shared by all equations, or distinct columns with an incidence, or (N, K, p) with a block to each."""
    array = raw_array("Xs", X)
    if array.ndim == 3:
        if incidence is not None:
            raise ValueError("incidence goes with one (N, q) array of distinct columns, but Xs is 3-D. Drop one.")
        _check_count("Xs", int(array.shape[1]), len(equations))
        _check_equations(axis_labels(X, 1), equations)
        parts, places = block_parts("Xs", array)
        names = _names(regressors, X, int(array.shape[2]), "Xs")
        each = [[Use(0, row, names)] for row in places]
        return parts, build_design(equations, [places.size], each)
    parts = column_parts("Xs", array)
    count = sum(part.n_columns for part in parts)
    names = _names(regressors, X, count, "Xs")
    if incidence is None:
        everyone = [Use(0, np.arange(count), names)]
        return parts, build_design(equations, [count], [everyone] * len(equations), names)
    used = incidence_columns(incidence, count, len(equations))
    uses = [[Use(0, columns, tuple(names[c] for c in columns.tolist()))] for columns in used]
    return parts, build_design(equations, [count], uses, names)


def incidence_columns(incidence: Any, n_regressors: int, n_equations: int) -> list[np.ndarray]:
    """For each equation the columns it uses, in increasing order."""
    if isinstance(incidence, pd.DataFrame | xr.DataArray):
        raise TypeError(
            f"incidence is a {type(incidence).__name__}, whose labels could disagree with those of Xs and Y; it must "
            "be a plain array in their order. Use .to_numpy()."
        )
    table = incidence if sp.issparse(incidence) else np.asarray(incidence)
    if table.shape != (n_regressors, n_equations):
        raise ValueError(
            f"incidence has shape {table.shape} but Xs has {n_regressors} columns and Y {n_equations} equations, so it "
            f"must be {(n_regressors, n_equations)}. Transpose or mend it."
        )
    values = table.data if sp.issparse(table) else table
    if table.dtype != bool and not (table.dtype.kind in "iuf" and np.isin(values, (0, 1)).all()):
        raise ValueError(
            f"incidence has dtype {table.dtype} and entries other than 0 and 1 but must say yes or no. "
            "Use incidence != 0."
        )
    columns = sp.csc_array(table, dtype=bool)
    columns.sum_duplicates()
    columns.eliminate_zeros()
    columns.sort_indices()
    return [part.astype(np.intp) for part in np.split(columns.indices, columns.indptr[1:-1])]


def _separate(
    arrays: list[Any], equations: tuple[Hashable, ...], regressors: Iterable[Any] | None
) -> tuple[list[Part], Design]:
    """One array for each equation; the same data given twice are stored once."""
    _check_count("Xs", len(arrays), len(equations))
    names = _listed_names(regressors, len(arrays))
    blocks: dict[Hashable, int] = {}
    widths: list[int] = []
    parts: list[Part] = []
    uses: list[list[Use]] = []
    for j, X in enumerate(arrays):
        array = raw_array(f"Xs[{j}]", X)
        key = _identity(X, array)
        if key not in blocks:
            new = column_parts(f"Xs[{j}]", array)
            blocks[key] = len(widths)
            widths.append(sum(part.n_columns for part in new))
            parts.extend(new)
        width = widths[blocks[key]]
        uses.append([Use(blocks[key], np.arange(width), _names(names[j], X, width, f"Xs[{j}]"))])
    return parts, build_design(equations, widths, uses)


def _check_count(name: str, designs: int, n_equations: int) -> None:
    if designs != n_equations:
        raise ValueError(f"{name} holds {designs} designs for {n_equations} equations. Give one design for each.")


def _check_equations(index: pd.Index | None, equations: tuple[Hashable, ...]) -> None:
    """Raise ValueError where blocks of columns, one for each equation, are labelled otherwise than the equations."""
    if index is None or equations == default_equations(len(equations)):
        return
    labels = plain_labels(index, "labels of Xs along its second dim")
    if labels != equations:
        j = next(j for j, (label, equation) in enumerate(zip(labels, equations, strict=True)) if label != equation)
        raise ValueError(
            f"Xs has {labels[j]!r} where the equation is {equations[j]!r}, at position {j} of its second dim, which "
            "must be labelled as the equations in their order. Use .sel(...) or .reindex(...)."
        )


def _listed_names(regressors: Iterable[Any] | None, count: int) -> Sequence[Iterable[Any] | None]:
    """For each equation its names: a list of lists as it is, one list repeated."""
    if regressors is None:
        return [None] * count
    listed = list(regressors)
    if not all(isinstance(item, list | tuple | pd.Index | np.ndarray) for item in listed):
        return [listed] * count
    if len(listed) != count:
        raise ValueError(f"regressors has {len(listed)} lists of names for {count} equations. Give one for each.")
    return listed


def _identity(given: Any, array: Any) -> Hashable:
    """Equal for two arrays that are surely the same data: one object, one graph key, or one piece of memory."""
    if isinstance(array, np.ndarray) and array is given:
        return "numpy", array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str
    name = getattr(array, "name", None) if hasattr(array, "__dask_graph__") else None
    return ("object", id(given)) if name is None else ("dask", name, array.shape)
