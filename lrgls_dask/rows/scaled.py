"""Rows of cells that have weights, scaled as they are read: every kernel and every sum knows plain rows only.

Cov(e_i) = W_i^-1/2 Sigma W_i^-1/2, so y_ij sqrt(w_ij) on x_i sqrt(w_ij) has errors with covariance Sigma. The columns
of X become each equation's own on the way, see `design.own_columns`; a few megabytes of them exist at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrgls_dask.design.design import Design, OwnColumns
from lrgls_dask.errors import BadValues
from lrgls_dask.rows.block import Block, missing_in, side_by_side, weights_of_shown
from lrgls_dask.rows.moments import Scaling

__all__ = ["ScaledCells", "scaled_bytes"]

PIECE_BYTES = 8 * 2**20  # of scaled rows: as many numbers as a block of stored ones holds, or fewer
PIECE_ROWS = 256  # but never so few that a sum is all overhead


def piece_rows(design: Design) -> int:
    """Rows that are scaled at a time."""
    return max(PIECE_ROWS, PIECE_BYTES // (8 * (design.n_regressors + design.n_equations)))


def scaled_bytes(design: Design) -> int:
    """What scaling takes of a task, beyond the stored block: rows, the stored ones in float64, and roots of weights."""
    return 8 * piece_rows(design) * (2 * design.n_regressors + design.given.n_regressors + 6 * design.n_equations)


@dataclass(frozen=True, eq=False)
class ScaledCells:
    """A kernel over rows scaled by the roots of the weights of their cells, some rows of a block at a time.

    A cell of weight zero becomes a missing response, and a row of nothing else a row of weight zero. The weight of a
    missing response is not asked for: NaN is as good there as a number.
    own : how the scaled columns come from the stored ones.  constant : (C,) weights of all rows, None where stored.
    height : rows at a time.
    """

    kernel: Callable[[Block, Any], Any]
    own: OwnColumns
    constant: np.ndarray | None
    height: int

    @classmethod
    def of(cls, kernel: Callable[[Block, Any], Any], design: Design, constant: np.ndarray | None) -> ScaledCells:
        """design : of the scaled rows."""
        assert design.own is not None
        return cls(kernel, design.own, constant, piece_rows(design))

    def __call__(self, block: Block, params: Any) -> Any:
        total = None
        for first in range(0, block.n_rows, self.height):
            piece = block.take(slice(first, first + self.height))
            part = self._sum(Block(block.start + first, piece.x, piece.y, None, piece.cells), params)
            if total is None:
                total = part
            elif part is not None:
                total += part
        return total

    def _sum(self, piece: Block, params: Any) -> Any:
        weights = self._weights(piece)
        try:
            return self.kernel(self._scaled(piece, weights), params)
        except BadValues as error:
            raise self._as_stored(error, piece, weights) from None

    def _weights(self, piece: Block) -> np.ndarray:
        """(n, C) weights as they are; BadValues for one that is none."""
        if self.constant is not None:
            return np.broadcast_to(self.constant, (piece.n_rows, len(self.constant)))
        weights = np.asarray(side_by_side(piece.cells), dtype=np.float64)
        if np.isnan(weights).any() and piece.y:
            weights = weights_of_shown(weights, missing_in(piece.y), self.own.weighting)
        bad = ~np.isfinite(weights) | (weights < 0)
        if bad.any():
            column = int(np.argmax(bad.any(axis=0)))
            row = int(np.argmax(bad[:, column]))
            value = float(weights[row, column])
            what = "NaN" if np.isnan(value) else "infinite" if np.isinf(value) else "negative"
            mine = self.own.weighting == column
            if piece.y and what == "NaN":
                mine &= ~missing_in(piece.y)[row]
            raise _bad(piece, "cell weights", int(np.argmax(mine)), what, bad[:, column])
        return weights

    def _scaled(self, piece: Block, weights: np.ndarray) -> Block:
        own, roots = self.own, np.sqrt(weights)
        zero = weights == 0
        holes = zero.any()
        stored = np.asarray(side_by_side(piece.x), dtype=np.float64)
        x = stored[:, own.column]
        if holes:  # whatever the regressors of a cell hold that nobody looks at
            np.copyto(x, 0.0, where=zero[:, own.weight])
        x *= roots[:, own.weight]
        if not piece.y:
            return Block(piece.start, (x,), (), None if not holes else (~zero).any(axis=1).astype(np.float64))
        y = side_by_side(piece.y) * roots[:, own.weighting]
        if holes:
            np.copyto(y, np.nan, where=zero[:, own.weighting])
        seen = ~np.isnan(y)
        logs = np.log(np.where(zero, 1.0, weights))[:, own.weighting]
        log_weights = np.sum(logs, axis=1, where=seen) / np.maximum(seen.sum(axis=1), 1)
        used = (~zero).any(axis=1).astype(np.float64) if holes else None
        return Block(piece.start, (x,), (y,), used, (), Scaling(roots, own.weight, log_weights))

    def _as_stored(self, error: BadValues, piece: Block, weights: np.ndarray) -> BadValues:
        """The same of the columns as they are stored; of a weight of zero where that is why there is no response."""
        if error.array == "Y" and error.what == "NaN":
            zero = weights[:, self.own.weighting[error.column]] == 0
            if zero[error.row - piece.start]:
                return _bad(piece, "cell weights", error.column, "zero", zero)
        if error.array == "X":
            column = int(self.own.column[error.column])
            return BadValues("X", column, error.what, error.row, error.count, error.start, error.stop)
        return error


def _bad(piece: Block, array: str, column: int, what: str, bad: np.ndarray) -> BadValues:
    stop = piece.start + piece.n_rows
    row = piece.start + int(np.argmax(bad))
    return BadValues(array, column, what, row, int(bad.sum()), piece.start, stop)
