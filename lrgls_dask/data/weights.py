"""Weights as users give them: of rows, of cells, of equations; told apart by labels, and by shape where there are none.

(N,) or (N, 1)  of a row, w_i: Cov(e_i) = Sigma / w_i
(N, K)          of a cell, w_ij: Cov(e_i) = W_i^-1/2 Sigma W_i^-1/2
(K,) or (1, K)  of an equation, the same in every row: Sigma is then that of weight one
{equation: ...} of each equation a number, or (N,)

Columns and keys that are labelled go by label, in any order. A vector of N = K numbers without labels says nothing of
which it is, and is refused.
"""

from __future__ import annotations

import numbers
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from lrgls_dask.checks import closest, shown
from lrgls_dask.data.daskframes import CountedFrame, counted
from lrgls_dask.data.labels import plain_labels
from lrgls_dask.data.numbers import check_real
from lrgls_dask.data.sources import axis_labels, column_parts, raw_array, row_chunks
from lrgls_dask.rows.rows import CellWeights, Part

__all__ = ["Weights", "read_weights"]

SHAPES = "(N,) or (N, 1) of rows, (N, K) of cells, (K,) or (1, K) of equations"


@dataclass(frozen=True, eq=False)
class Weights:
    """rows : the weights of rows, cells : those of cells or equations; at most one of them.
    named : what has labels of rows, with its name, to be paired with the others."""

    rows: Part | None = None
    cells: CellWeights | None = None
    named: tuple[tuple[str, Any], ...] = ()


def read_weights(
    given: Any, equations: tuple[Hashable, ...], n_obs: int, dim: Hashable, *, numbered: bool, name: str = "weights"
) -> Weights:
    """What the user means by `given`, unread.

    dim : of equations, in an xarray object.  numbered : whether Y names no equations, so that they go by position.
    """
    if given is None:
        return Weights()
    if isinstance(given, Mapping):
        return _by_equation(given, equations, n_obs, name)
    if _along_equations(given, equations, n_obs, dim):
        labels = axis_labels(given, 0) if isinstance(given, xr.DataArray) else getattr(given, "index", None)
        order = _order(labels, equations, numbered, name)
        return _constant(np.asarray(raw_array(name, given))[order], name)
    columns = axis_labels(given, 1)
    if columns is not None and len(columns) == len(equations) > 1:
        given = _select(given, _order(columns, equations, numbered, name))
    array = raw_array(name, given)
    check_real(name, array.dtype)
    shape, N, K = tuple(int(n) for n in array.shape), n_obs, len(equations)
    if not isinstance(given, pd.Series | xr.DataArray | CountedFrame) and shape == (N,) and N == K:
        raise ValueError(
            f"{name} has {N} entries for as many rows as equations, so it does not say which are weighted. Give it the "
            f"shape ({N}, 1) for weights of rows, or (1, {K}) for weights of equations."
        )
    if shape in ((N,), (N, 1)):
        column = array if len(shape) == 1 else (array if hasattr(array, "ravel") else da.from_array(array))[:, 0]
        return Weights(Part(name, column, row_chunks(column)), None, ((name, given),))
    if shape == (N, K):
        return Weights(None, CellWeights(tuple(column_parts(name, array)), None, np.arange(K)), ((name, given),))
    if shape in ((K,), (1, K)):
        return _constant(np.asarray(array).reshape(K), name)
    if len(shape) == 1:
        raise ValueError(
            f"{name} has {shape[0]} rows but Y has {N}, and {K} equations: every array needs one row for each "
            "observation. Align them first."
        )
    raise ValueError(
        f"{name} has shape {shape} but there are N = {N} rows and K = {K} equations: it must be {SHAPES}. Reshape it."
    )


def _select(given: Any, order: np.ndarray) -> Any:
    """The columns of a frame or DataArray in this order."""
    if np.array_equal(order, np.arange(len(order))):
        return given
    if isinstance(given, CountedFrame):
        return given.select(order.tolist())
    return given.iloc[:, order] if isinstance(given, pd.DataFrame) else given[:, order]


def _along_equations(given: Any, equations: tuple[Hashable, ...], n_obs: int, dim: Hashable) -> bool:
    """Whether labels say that this is one number for each equation."""
    if isinstance(given, xr.DataArray):
        return given.dims == (dim,)
    if not isinstance(given, pd.Series) or set(given.index) != set(equations) or len(given) != len(equations):
        return False
    if len(given) == n_obs and list(given.index) == list(range(n_obs)):
        raise ValueError(
            f"weights is a Series of {n_obs} entries for as many rows as equations, whose labels fit both. Give "
            f".to_numpy() the shape ({n_obs}, 1) for weights of rows, or (1, {n_obs}) for weights of equations."
        )
    return True


def _order(labels: Any, equations: tuple[Hashable, ...], numbered: bool, name: str) -> np.ndarray:
    """(K,) where each equation stands among labels; as they come where one of the two has none."""
    if labels is None or (numbered and set(labels) != set(equations)):
        return np.arange(len(equations))
    return _places(plain_labels(labels, f"labels of {name}"), equations, name)


def _places(labels: tuple[Hashable, ...], equations: tuple[Hashable, ...], name: str) -> np.ndarray:
    place = {label: i for i, label in enumerate(labels)}
    lacking = [equation for equation in equations if equation not in place]
    surplus = [label for label in labels if label not in set(equations)]
    if lacking or surplus or len(place) < len(labels):
        sides = [f"lacks {shown(lacking)}"] if lacking else []
        sides += [f"has {shown(surplus)} besides{closest(surplus[0], equations)}"] if surplus else []
        found = " and ".join(sides) or "has one of them twice"
        raise ValueError(
            f"{name} must have one entry for each equation but {found.rstrip('.')}. Name equations as Y does."
        )
    return np.array([place[equation] for equation in equations], dtype=np.intp)


def _by_equation(given: Mapping[Any, Any], equations: tuple[Hashable, ...], n_obs: int, name: str) -> Weights:
    """A number or a vector of rows for each equation; what is given twice is read once."""
    order = _places(plain_labels(given, f"the keys of {name}"), equations, name)
    found = counted(*given.values())
    values = [found[i] for i in order.tolist()]
    if all(isinstance(value, numbers.Real) for value in values):
        return _constant(np.array(values, dtype=np.float64), name)
    parts: list[Part] = []
    known: dict[int, int] = {}
    named = []
    for equation, value in zip(equations, values, strict=True):
        if id(value) in known:
            continue
        title = f"{name}[{equation!r}]"
        array = np.broadcast_to(float(value), (n_obs,)) if isinstance(value, numbers.Real) else raw_array(title, value)
        if array.ndim == 2 and array.shape[1] == 1:
            array = (array if hasattr(array, "ravel") else da.from_array(array))[:, 0]
        if array.shape != (n_obs,):
            raise ValueError(
                f"{title} has shape {tuple(array.shape)} but must be a number, or one for each of {n_obs} rows. "
                "Reshape or align it."
            )
        known[id(value)] = len(parts)
        parts += column_parts(title, array)
        named.append((title, value))
    return _rows_or_cells(parts, np.array([known[id(value)] for value in values], dtype=np.intp), tuple(named))


def _rows_or_cells(parts: list[Part], weighting: np.ndarray, named: tuple[tuple[str, Any], ...]) -> Weights:
    """One column for all equations weights rows."""
    if len(parts) == 1:
        return Weights(parts[0], None, named)
    return Weights(None, CellWeights(tuple(parts), None, weighting), named)


def _constant(values: np.ndarray, name: str) -> Weights:
    """Weights of equations; equations of equal weight go on sharing columns."""
    check_real(name, values.dtype)
    constant, weighting = np.unique(values.astype(np.float64), return_inverse=True)
    return Weights(None, CellWeights((), constant, weighting.reshape(-1)))
