"""Rows of data that have not been read: the stored arrays behind X, Y and the row weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lrgls_dask.design.design import Design

__all__ = ["Part", "Rows"]


@dataclass(frozen=True, eq=False)
class Part:
    """One stored array that holds one or more columns of X or Y.

    name : what the user calls it, for messages: "Y", "x['smb']", "Xs[3]".
    array : anything with shape (N,) or (N, c), a real dtype and row slices; NumPy, zarr and Dask arrays do. Where it
        has a method read_into(out, first_row), passes read it into memory they use again.
    row_chunks : lengths of its stored row chunks, in order, summing to N; None where any cut is free (NumPy).
    """

    name: str
    array: Any
    row_chunks: tuple[int, ...] | None

    @property
    def n_columns(self) -> int:
        return 1 if self.array.ndim == 1 else int(self.array.shape[1])

    @property
    def row_bytes(self) -> int:
        """Bytes of one row as stored in memory after decoding."""
        return self.n_columns * int(np.dtype(self.array.dtype).itemsize)


@dataclass(frozen=True, eq=False)
class Rows:
    """N rows of [X Y] and optional weights, in parts; column order is the order of the parts.

    The weight w_i of row i says Var(e_i) = Sigma / w_i; rows of weight zero are left out.
    complete_only : leave out rows with a NaN in Y too.
    """

    x: tuple[Part, ...]
    y: tuple[Part, ...]
    weights: Part | None
    design: Design
    n_obs: int
    complete_only: bool = False

    @property
    def parts(self) -> tuple[Part, ...]:
        """Every part, X first, then Y, then the weights."""
        return (*self.x, *self.y, *(() if self.weights is None else (self.weights,)))

    @property
    def row_bytes(self) -> int:
        return sum(part.row_bytes for part in self.parts)
