"""Long files by row group: what rows and equations they have, in what order, and pieces with all cells of their rows.

The columns of these two labels are scanned once. Where the cells of a row lie side by side, and rows ascend, a piece
begins with the first row that begins in its row group, and takes of the next one the cells of its last row: a row group
is read by its own piece, and its beginning by the one before where a row goes on into it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import dask
import numpy as np
import pandas as pd

from lrgls_dask.data.framelook import Pieces, promise
from lrgls_dask.data.longframes import check_labels, equations_of, obs_of
from lrgls_dask.data.parquetrows import FileRows, JoinedRows
from lrgls_dask.data.tables import as_labels

__all__ = ["PIECE_BYTES", "CellRows", "CellRun", "Keys", "cell_runs", "scan_keys"]

PIECE_BYTES = 12 * 2**20  # of the cells of a piece as they are read, and of the rows made of them
AT_ONCE = 16  # row groups whose labels are joined


@dataclass(frozen=True, eq=False)
class Keys:
    """The rows and equations of long files.

    obs : (N,) labels, ascending.  counts : (N,) cells of each.  equations : (K,).
    stored : (K,) what the files call these.  ascending : whether cells lie in the order of their rows.
    """

    obs: pd.Index
    counts: np.ndarray
    equations: tuple[Hashable, ...]
    stored: tuple[Hashable, ...]
    ascending: bool


@dataclass(frozen=True, eq=False)
class _Found:
    """The labels of some cells, each once: rows ascending, with counts, and equations as they appear."""

    obs: pd.Series
    counts: np.ndarray
    equations: pd.Series
    ascending: bool


def scan_keys(pieces: Pieces, obs: str, equation: str) -> Keys:
    """What two columns say; each row group is read once. Raises ValueError for labels that are missing, TypeError for
    labels of rows that have no order."""
    sent = dask.delayed((obs, equation), pure=True, traverse=False)
    found = [promise(_of_group, sent, piece) for piece in pieces.rows]
    while len(found) > 1:
        found = [dask.delayed(_joined)(obs, found[i : i + AT_ONCE]) for i in range(0, len(found), AT_ONCE)]
    (whole,) = dask.compute(found[0])
    equations = equations_of(whole.equations, equation)
    return Keys(obs_of(whole.obs, obs)[0], whole.counts, equations, equations, whole.ascending)


def _of_group(names: tuple[str, str], piece: FileRows) -> _Found:
    obs, equation = names
    found = []
    for each in piece.cut(8 * len(names)):
        raw = each.read_columns(list(names))
        for name in names:
            check_labels(raw[name], name, each.place)
        cells, whose = as_labels(raw[obs]), as_labels(raw[equation])
        found.append(_distinct(obs, cells, np.ones(len(raw), dtype=np.int64), whose, True))
    return found[0] if len(found) == 1 else _joined(obs, found)


def _joined(obs: str, found: Sequence[_Found]) -> _Found:
    labels = pd.concat([each.obs for each in found], ignore_index=True)
    counts = np.concatenate([each.counts for each in found])
    equations = pd.concat([each.equations for each in found], ignore_index=True)
    return _distinct(obs, labels, counts, equations, all(each.ascending for each in found))


def _distinct(obs: str, labels: pd.Series, counts: np.ndarray, equations: pd.Series, ascending: bool) -> _Found:
    index, row = obs_of(labels, obs)
    first = np.empty(len(index), dtype=np.int64)
    first[row[::-1]] = np.arange(len(row))[::-1]
    total = np.zeros(len(index), dtype=np.int64)
    np.add.at(total, row, counts)
    in_order = ascending and bool((np.diff(row) >= 0).all())
    own = labels.iloc[first].reset_index(drop=True)
    return _Found(own, total, equations.drop_duplicates(ignore_index=True), in_order)


# ---------------------------------------------------------------------------------------------- pieces


class CellRows(JoinedRows):
    """Rows of files that hold all cells of some rows.

    counts : (n,) cells of each.  first : number of the first of them.
    """

    def __init__(self, parts: Sequence[FileRows], counts: np.ndarray, first: int) -> None:
        super().__init__(parts)
        self.counts, self.first = counts, first

    @property
    def row(self) -> np.ndarray:
        """Which of them each cell is of."""
        return np.repeat(np.arange(len(self.counts)), self.counts)


class CellRun(JoinedRows):
    """Pieces that one task reads one after the other, of a row group that is large.

    obs : labels of their rows, where these are wanted.
    """

    def __init__(self, pieces: Sequence[CellRows], obs: pd.Index | None = None) -> None:
        super().__init__(())
        self.pieces, self.obs = tuple(pieces), obs

    def labelled(self, obs: pd.Index) -> CellRun:
        """With the labels of its rows, of those of all."""
        last = self.pieces[-1]
        return CellRun(self.pieces, obs[self.pieces[0].first : last.first + len(last.counts)])

    @property
    def token(self) -> tuple[object, ...]:
        """As of `FileRows`."""
        return tuple(piece.token for piece in self.pieces)

    def one_by_one(self) -> Iterator[CellRows]:
        """The pieces; what was left open is closed after the last."""
        yield from self.pieces
        for piece in self.pieces:
            piece.spent()


def cell_runs(groups: Sequence[FileRows], counts: np.ndarray, cell_bytes: int, row_bytes: int) -> list[CellRun]:
    """Cells in ascending order, cut between rows where row groups begin.

    Small row groups are joined, and large ones cut, by what cells take as they are read and rows as they are made.
    """
    edges = np.concatenate([[0], np.cumsum([len(group) for group in groups])])
    starts = np.concatenate([[0], np.cumsum(counts)])
    weight = starts * cell_bytes + np.arange(len(starts)) * row_bytes
    begins = np.searchsorted(starts, edges)  # the first row that begins in each row group, or after it
    kept = counts.astype(np.min_scalar_type(int(counts.max())))
    runs, g = [], 0
    while g < len(groups):
        last = g + 1
        while last < len(groups) and weight[begins[last + 1]] - weight[begins[g]] <= PIECE_BYTES:
            last += 1
        n_bytes = int(weight[begins[last]] - weight[begins[g]])
        n_pieces = max(1, -(-n_bytes // PIECE_BYTES))
        targets = weight[begins[g]] + np.arange(1, n_pieces) * (n_bytes / n_pieces)
        cuts = np.unique([begins[g], *np.searchsorted(weight, targets), begins[last]])
        pieces = [
            CellRows(_parts(groups, edges, starts[a], starts[b], last, len(cuts) - 1), kept[a:b], int(a))
            for a, b in pairwise(cuts.tolist())
        ]
        if pieces:
            runs.append(CellRun(pieces))
        g = last
    return runs


def _parts(
    groups: Sequence[FileRows], edges: np.ndarray, start: int, stop: int, last: int, n_pieces: int
) -> list[FileRows]:
    """Cells start..stop.  last : the row group after those of the run.  n_pieces : into which it is cut."""
    made = []
    for g in range(int(np.searchsorted(edges, start, side="right")) - 1, len(groups)):
        if edges[g] >= stop:
            break
        length = len(groups[g])
        a, b = max(0, int(start - edges[g])), min(length, int(stop - edges[g]))
        step = length if n_pieces == 1 or b - a == length else -(-length // n_pieces)
        made.append(groups[g].part(a, b, 0 if g >= last and b < length else step))
    return made
