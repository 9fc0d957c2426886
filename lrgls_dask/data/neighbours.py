"""Rows that are read in pieces, with the few rows before and after each that lags of its own rows reach.

The ends of pieces are read once, of the columns that lags read alone, and kept; a pass then reads every piece once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lrgls_dask.data.lags import Lags
from lrgls_dask.data.parquetrows import FileRows

__all__ = ["Near", "Reach", "ends_of", "nearby"]


@dataclass(frozen=True)
class Reach:
    """What lags read.  columns : of the frame.  before, after : rows.  steps : by how many they go back, each once."""

    columns: tuple[str, ...]
    before: int
    after: int
    steps: tuple[int, ...]

    @classmethod
    def of(cls, factors: Sequence[Any]) -> Reach | None:
        """Of factors as `expressions` reads them; None where none has a lag."""
        lagged = [each for each in factors if each.lags]
        if not lagged:
            return None
        return cls(
            tuple(dict.fromkeys(name for each in lagged for name in each.columns)),
            max(each.reach[0] for each in lagged),
            max(each.reach[1] for each in lagged),
            tuple(dict.fromkeys(n for each in lagged for n in each.steps)),
        )


@dataclass(frozen=True, eq=False)
class Near:
    """What lies around a piece of n rows.

    before, after : rows of the columns that lags read.  back : by how many steps -> how many rows before each of all
    of these the row lies that it finds, 0 where there is none; one number where it is the same for all.
    """

    before: pd.DataFrame
    after: pd.DataFrame
    back: Mapping[int, np.ndarray | int]

    def joined(self, raw: pd.DataFrame) -> pd.DataFrame:
        """The rows with those around them; what lags do not read of these is whatever the first row has."""
        if raw.empty:
            return raw
        around = [_like(each, raw) for each in (self.before, self.after)]
        return pd.concat([each for each in (around[0], raw, around[1]) if len(each)])

    def own(self, n_rows: int) -> slice:
        """Where the n rows of the piece are among all."""
        return slice(len(self.before), len(self.before) + n_rows)

    def shift(self, n_rows: int) -> Any:
        """The lags of the rows of a piece with those around them."""
        total = len(self.before) + n_rows + len(self.after)
        places = np.arange(total)

        def shifted(steps: int) -> np.ndarray:
            back = self.back[steps]
            found = places - back
            return np.where((back != 0) & (found >= 0) & (found < total), found, -1)

        return shifted


def _like(rows: pd.DataFrame, raw: pd.DataFrame) -> pd.DataFrame:
    """Rows of some columns with all columns of others."""
    first = raw.iloc[np.zeros(len(rows), dtype=np.intp)]
    made = {name: rows[name] if name in rows else first[name].to_numpy() for name in raw.columns}
    whole = pd.DataFrame({name: pd.Series(each).array for name, each in made.items()}, first.index)
    return whole.astype({name: raw[name].dtype for name in raw.columns if name not in rows})


def ends_of(reach: Reach, pieces: Sequence[Any]) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """The first and the last rows of each piece that lags of the others reach.

    pieces : frames, or stretches of the rows of one row group, which are read one after the other.
    """
    made = []
    for piece in pieces:
        rows = piece.read_columns(reach.columns) if isinstance(piece, FileRows) else piece[list(reach.columns)]
        rows = rows.reset_index(drop=True)
        made.append((rows[: reach.after], rows[max(0, len(rows) - reach.before) :]))
    return made


def nearby(
    reach: Reach, ends: Sequence[tuple[pd.DataFrame, pd.DataFrame]], lengths: Sequence[int], obs: pd.Index | None
) -> Iterator[Near]:
    """What lies around each piece of rows.  ends : of each.  lengths : rows of each.  obs : labels of all rows."""
    total, start = sum(lengths), 0
    lags = Lags.of_rows(obs, total)
    back = {}
    for steps in reach.steps:
        found = lags(steps)
        back[steps] = np.where(found >= 0, np.arange(total) - found, 0)
    for i, n_rows in enumerate(lengths):
        first, last = max(0, start - reach.before), min(total, start + n_rows + reach.after)
        yield Near(
            _gathered([each for _, each in reversed(ends[:i])], start - first, last_rows=True),
            _gathered([each for each, _ in ends[i + 1 :]], last - start - n_rows, last_rows=False),
            {steps: _compact(each[first:last]) for steps, each in back.items()},
        )
        start += n_rows


def _gathered(ends: Sequence[pd.DataFrame], count: int, *, last_rows: bool) -> pd.DataFrame:
    """So many rows of ends, the nearest first, in their order."""
    taken: list[pd.DataFrame] = []
    for each in ends:
        need = count - sum(map(len, taken))
        if need <= 0:
            break
        if len(each):
            taken.append(each[max(0, len(each) - need) :] if last_rows else each[:need])
    taken = taken[::-1] if last_rows else taken
    return pd.concat(taken, ignore_index=True) if taken else pd.DataFrame()


def _compact(back: np.ndarray) -> np.ndarray | int:
    if not len(back) or (back == back[0]).all():
        return int(back[0]) if len(back) else 0
    return back.astype(np.min_scalar_type(int(np.abs(back).max()) * (-1 if back.min() < 0 else 1)))
