"""Where the row is that lies some steps before another one, of the same equation.

Steps are taken along the labels of rows. Whole numbers and periods count by the smallest step between any two that
follow each other: after 1950, 1951 and 1953 a lag of one finds nothing at 1953. So do dates no two of which share a
month, by months. Other dates and labels follow each other as the frame has them, over all equations: of trading days
the day before Monday is Friday. What is not there is missing; it is never taken from an earlier row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

__all__ = ["Lags", "no_shift"]


@dataclass(frozen=True, eq=False)
class Lags:
    """Rows that each hold one cell (obs, equation), no two the same one.

    obs : (N,) the distinct labels, ascending, or None where rows follow each other.  row, equation : (n,) positions.
    """

    obs: pd.Index | None
    row: np.ndarray
    equation: np.ndarray

    @classmethod
    def of_rows(cls, obs: pd.Index | None, n_rows: int) -> Lags:
        """Of a frame with a row for each label, ascending."""
        return cls(obs, np.arange(n_rows), np.zeros(n_rows, dtype=np.int64))

    def __call__(self, steps: int) -> np.ndarray:
        """(n,) where the row that many steps earlier is, -1 where there is none."""
        if not len(self.row):
            return np.empty(0, dtype=np.int64)
        count = len(self.obs) if self.obs is not None else int(self.row.max()) + 1
        before = self._before(count, steps)[self.row]
        cells = self.equation * count + self.row
        order = np.argsort(cells, kind="stable")
        return np.where(before >= 0, _find(cells[order], self.equation * count + before, order), -1)

    def _before(self, count: int, steps: int) -> np.ndarray:
        """(N,) which label lies that many steps before each."""
        keys, step = _keys(self.obs, count)
        return _find(keys, keys - steps * step, np.arange(count))


def no_shift(steps: int) -> np.ndarray:
    """The lags of rows that are read in pieces, without those around them: there are none."""
    raise AssertionError("no formula has lags here")


def _find(ordered: np.ndarray, wanted: np.ndarray, places: np.ndarray) -> np.ndarray:
    """places of what is wanted among ascending numbers, -1 of what is not there."""
    at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return np.where(ordered[at] == wanted, places[at], -1)


def _keys(obs: pd.Index | None, count: int) -> tuple[np.ndarray, int]:
    """(N,) ascending whole numbers for the labels, and how many of them make a step."""
    keys = None
    if isinstance(obs, pd.PeriodIndex):
        keys = obs.asi8
    elif isinstance(obs, pd.DatetimeIndex):
        months = (obs.year * 12 + obs.month).to_numpy().astype(np.int64)
        keys = months if len(np.unique(months)) == count else None
    elif obs is not None and obs.dtype.kind in "iuf" and bool((obs == np.floor(obs)).all()):
        keys = obs.to_numpy().astype(np.int64)
    if keys is None or count < 2:
        return np.arange(count), 1
    return keys, int(np.diff(keys).min())
