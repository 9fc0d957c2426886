"""Long frames by formulas: which of their cells are observed, and what columns of rows these make.

A frame in memory is one piece, with all cells; of sorted files each piece has all cells of its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lrgls_dask.checks import shown
from lrgls_dask.data.framefit import FittedFormulas
from lrgls_dask.data.longframes import Cells, same_in_row
from lrgls_dask.data.modelmatrix import Shift
from lrgls_dask.data.tables import as_kind
from lrgls_dask.data.wideframes import missing_value

__all__ = ["LongColumns", "Observed", "nothing_observed", "spread_weights", "weights_of"]

Place = Callable[[int], str]


@dataclass(frozen=True, eq=False)
class Observed:
    """The cells that show a response and all regressors of their equation.

    kept : (M,) which of the cells that were given.  cells : these alone, without the rows that show none.
    x : (M, q) columns of the model matrices.  y : (M,).
    """

    kept: np.ndarray
    cells: Cells
    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True, eq=False)
class LongColumns:
    """Formulas of a long frame.  missing : "drop", or "raise" where any response or regressor is missing.
    more : whether rows are to append to others, and need not show every equation."""

    fitted: FittedFormulas
    missing: str
    more: bool = False

    @property
    def uses(self) -> list[np.ndarray]:
        """For each equation which columns of the model matrices it uses."""
        return [self.fitted.encoding.places[i] for i in self._right]

    @property
    def _right(self) -> list[int]:
        return [self.fitted.encoding.formulas.right[i] for i in self.fitted.of]

    def observed(self, raw: pd.DataFrame, cells: Cells, shift: Shift, place: Place | None = None) -> Observed:
        """What rows of a frame show, each of which is one of the cells.  place : where a row lies, for messages."""
        block = self.fitted.encoding.block(raw, shift)
        y = self.fitted.response(block.y, cells.column)
        if self.missing == "raise":
            self._refuse_missing(cells, block.x, y, place)
        kept, some = cells.only(~(self._lost(cells, block.x) | np.isnan(y)))
        whole = len(kept) == len(y)
        return Observed(kept, some, block.x if whole else block.x[kept], y if whole else y[kept])

    def check_observed(self, counts: np.ndarray, equations: Sequence[Hashable]) -> None:
        """Raise ValueError for equations (K,) of which counts (K,) no cell is observed, where all have to be."""
        bare = np.flatnonzero(counts == 0)
        if len(bare) and not self.more:
            raise nothing_observed([equations[j] for j in bare.tolist()])

    def _lost(self, cells: Cells, x: np.ndarray) -> np.ndarray:
        """(L,) whether a cell lacks a regressor of its equation."""
        missing = np.isnan(x)
        lost = np.zeros(len(x), dtype=bool)
        if missing.any():
            formula = np.array(self._right)[cells.column]
            for i, places in enumerate(self.fitted.encoding.places):
                lost |= (formula == i) & missing[:, places].any(axis=1)
        return lost

    def _refuse_missing(self, cells: Cells, x: np.ndarray, y: np.ndarray, place: Place | None) -> None:
        """Raise ValueError naming column and cell of the first value that an equation needs and lacks."""
        if not (np.isnan(x).any() or np.isnan(y).any()):
            return
        first, count, encoding = None, 0, self.fitted.encoding
        for j, label in enumerate(self.fitted.of):
            mine = np.flatnonzero(cells.column == j)
            places = encoding.places[encoding.formulas.right[label]]
            wrong = np.isnan(np.column_stack([x[mine][:, places], y[mine]]))
            count += int(wrong.sum())
            if first is None and wrong.any():
                at, column = (int(i) for i in np.argwhere(wrong)[0])
                names = [*(encoding.names[c] for c in places), encoding.formulas.responses[label].text]
                where = f"row {mine[at]}" if place is None else place(int(mine[at]))
                first = names[column], f"{where}, {cells.equations[j]!r} at {cells.obs[cells.row[mine[at]]]}"
        if first is not None:
            raise missing_value(*first, count)


def weights_of(column: pd.Series, name: str, cells: Cells) -> tuple[np.ndarray, bool]:
    """(M,) weights of cells, and whether all cells of each row have the same."""
    values = np.asarray(as_kind(name, column, "number"), dtype=np.float64)
    return values, same_in_row(cells, values) is not None


def spread_weights(values: np.ndarray, cells: Cells, of_rows: bool) -> np.ndarray:
    """(N, 1) weights of rows, or (N, K) of cells; a cell that is not there has weight 1."""
    if not of_rows:
        return cells.spread(values, 1.0)
    column = np.ones((len(cells.obs), 1))
    column[cells.row, 0] = values
    return column


def nothing_observed(equations: Sequence[Hashable]) -> ValueError:
    """The error where no row shows a response of these equations."""
    return ValueError(
        f"no row shows a response of {shown(list(equations))} and all regressors of its equation: every one misses "
        "something. Look for a column that is empty, and drop or fill it."
    )
