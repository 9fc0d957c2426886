"""Fitted values and residuals of rows that have not been read, chunk by chunk."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np

from lrgls_dask.design import Design
from lrgls_dask.layout import cut_rows
from lrgls_dask.rows import Part, Rows

__all__ = ["predict_lazily"]


def predict_lazily(rows: Rows, design: Design, coefficients: np.ndarray, *, residuals: bool = False) -> da.Array:
    """(N, K) Dask array of X_j b_j, or of Y - X_j b_j: one task a block of rows, nothing read yet.

    Raises ValueError when the rows belong to other equations or regressors than the coefficients.
    """
    check_same_design(rows.design, design)
    bounds = cut_rows(rows, 0).blocks
    chunks = tuple(int(n) for n in np.diff(bounds))
    x = [_chunked(part, chunks) for part in rows.x]
    y = [_chunked(part, chunks) for part in rows.y] if residuals else []
    by_group = tuple(coefficients[g.coefficients] for g in design.groups)
    return da.map_blocks(
        _fitted_block,
        *x,
        *y,
        n_x=len(x),
        design=design,
        by_group=by_group,
        dtype=np.float64,
        chunks=(chunks, (design.n_equations,)),
        meta=np.empty((0, 0)),
    )


def check_same_design(found: Design, expected: Design) -> None:
    """Raise ValueError naming what is missing or extra."""
    if found.same_as(expected):
        return
    for what, have, want in (
        ("equations", found.equations, expected.equations),
        ("regressors", found.regressors, expected.regressors),
    ):
        missing = [name for name in want if name not in set(have)]
        extra = [name for name in have if name not in set(want)]
        if missing or extra:
            raise ValueError(
                f"the data do not match the fit: {what} missing {missing[:5]}, extra {extra[:5]}. "
                "Build the system with the same variables as the fitted one."
            )
    raise ValueError(
        "the data do not match the fit: the same names in another order or in other equations. "
        "Build the system with the same variables, in the same order, as the fitted one."
    )


def _chunked(part: Part, chunks: tuple[int, ...]) -> da.Array:
    array = part.array
    if not isinstance(array, da.Array):
        array = da.from_array(array, chunks=(chunks, *array.shape[1:]))
    if array.ndim == 1:
        array = array[:, None]
    return array.rechunk({0: chunks})


def _fitted_block(*arrays: np.ndarray, n_x: int, design: Design, by_group: tuple[np.ndarray, ...]) -> Any:
    x = np.concatenate([np.asarray(a, dtype=np.float64) for a in arrays[:n_x]], axis=1)
    fitted = np.empty((len(x), design.n_equations))
    for group, b in zip(design.groups, by_group, strict=True):
        fitted[:, group.equations] = x[:, group.columns] @ b
    if len(arrays) == n_x:
        return fitted
    return np.concatenate([np.asarray(a, dtype=np.float64) for a in arrays[n_x:]], axis=1) - fitted
