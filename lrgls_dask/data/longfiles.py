"""Long Parquet files that do not go into memory: rows of X and Y, each piece made in the task that reads it.

Three scans before: of columns of categories and those with a state, as of wide files; of the labels of rows and
equations; and one of all columns that are named, which tells the rows that show a response and the columns that say the
same of all equations. A pass then reads each row group once.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import dask
import dask.array as da
import numpy as np
import pandas as pd
from dask.utils import format_bytes

from lrgls_dask.data.framelook import promise
from lrgls_dask.data.lags import no_shift
from lrgls_dask.data.longcolumns import LongColumns, Observed, spread_weights, weights_of
from lrgls_dask.data.longframes import Cells, Placing, group_of_rows, places_of, shared_columns
from lrgls_dask.data.longkeys import CellRows, CellRun, Keys, cell_runs
from lrgls_dask.data.parquetrows import FileRows
from lrgls_dask.data.tables import as_labels
from lrgls_dask.data.wideframes import PAGE_BYTES
from lrgls_dask.rows.memory import this_process
from lrgls_dask.rows.rows import Part

__all__ = ["CELL_BYTES", "LongFiles", "long_files", "require_pieces"]

CELL_BYTES = 48  # of one column of one cell: as it is read, in the model matrix, and laid out by equation


@dataclass(frozen=True, eq=False)
class LongFiles:
    """Rows that show a response.

    x, y : unread.  weights : None, or unread: (N, 1) of rows, (N, K) of cells.  obs : (N,) labels.
    labels : of each column that was asked for, one a row.  placing : where columns of cells lie in x.
    made_bytes : of columns that were read to know all this; none of a frame in memory.
    """

    x: Part
    y: Part
    weights: da.Array | np.ndarray | None
    obs: pd.Index
    labels: Mapping[str, np.ndarray]
    placing: Placing
    made_bytes: int = 0


def long_files(
    groups: Sequence[FileRows],
    keys: Keys,
    columns: LongColumns,
    weight: str | None,
    labels: Mapping[str, str],
    memory_limit: int | str | None,
) -> LongFiles:
    """The rows of files whose cells are in order; reads each row group once.

    labels : columns that are the same for all cells of a row -> what they are, for messages.
    """
    work = _Work(columns, keys.equations, keys.stored, weight, labels, None, False)
    width = len(work.read)
    runs = cell_runs(groups, keys.counts, 8 * width, 8 * (len(columns.fitted.encoding.names) + len(keys.equations)))
    require_pieces(max(len(piece) for run in runs for piece in run.pieces), width, memory_limit)
    found = _look(work, runs, keys.obs)
    columns.check_observed(found.observed, keys.equations)
    placing = Placing.of(columns.uses, columns.fitted.encoding.names, found.shared)
    work = _Work(columns, keys.equations, keys.stored, weight, {}, placing, found.of_rows)
    runs = cell_runs(groups, keys.counts, 8 * width, 8 * sum(work.widths))
    array, lengths = _array(work, runs, found.kept)
    q, n_equations, _ = work.widths
    run_lengths = None if len(array.chunks[0]) == len(lengths) else tuple(lengths)
    held = CELL_BYTES * width * max(len(piece) for run in runs for piece in run.pieces)
    held += 0 if run_lengths is None else width * (PAGE_BYTES + groups[0].file.buffer_bytes)
    x, y = (
        Part(name, values, array.chunks[0], run_lengths, held)
        for name, values in (("X", array[:, :q]), ("Y", array[:, q : q + n_equations]))
    )
    weights = None if weight is None else array[:, q + n_equations :]
    return LongFiles(x, y, weights, keys.obs[found.kept], found.labels, placing)


def require_pieces(n_cells: int, width: int, memory_limit: int | str | None) -> None:
    """Raise MemoryError where threads that each read so many cells do not fit

    width : columns that are read.
    """
    here = this_process(memory_limit)
    need = here.base + here.n_threads * CELL_BYTES * width * n_cells
    if need > here.limit:
        raise MemoryError(
            f"long files are read in pieces, here {n_cells:,} cells of {width} columns by each of {here.n_threads} "
            f"threads, which needs {format_bytes(need)}; the limit is {format_bytes(here.limit)}. Raise memory_limit, "
            "or use fewer threads, by dask.config.set(num_workers=1)."
        )


@dataclass(frozen=True, eq=False)
class _Work:
    """What is made of a piece.

    equations, stored : labels, and what the files call these.  weight : a column.  labels : columns, what they are.
    placing : where columns of cells come to lie, None where that is to be found out.  of_rows : whether weights are.
    """

    columns: LongColumns
    equations: tuple[Hashable, ...]
    stored: tuple[Hashable, ...]
    weight: str | None
    labels: Mapping[str, str]
    placing: Placing | None
    of_rows: bool

    @property
    def read(self) -> list[str]:
        """The columns that it needs."""
        weights = [] if self.weight is None else [self.weight]
        named = [str(self.columns.fitted.equation), *self.columns.fitted.encoding.formulas.columns]
        return list(dict.fromkeys([*named, *weights, *self.labels]))

    @property
    def widths(self) -> tuple[int, int, int]:
        """Columns of X, Y and weights."""
        assert self.placing is not None
        n_weights = 0 if self.weight is None else 1 if self.of_rows else len(self.equations)
        return self.placing.width, len(self.equations), n_weights

    def observed(self, piece: CellRows, obs: pd.Index) -> tuple[pd.DataFrame, Cells, Observed]:
        """The columns of a piece, its cells, and those of them that are observed."""
        equation = str(self.columns.fitted.equation)
        raw = piece.read_columns(self.read)
        cells = Cells(obs, self.equations, piece.row, places_of(as_labels(raw[equation]), equation, self.stored))
        if self.placing is None:
            cells.check_distinct(equation, piece.place)
        return raw, cells, self.columns.observed(raw, cells, no_shift, piece.place)


# ---------------------------------------------------------------------------------------------- the look


@dataclass(frozen=True, eq=False)
class _Seen:
    """What a look found: which rows (n,) show a response, how many rows each equation, which columns are shared,
    whether weights are of rows, and the labels of rows."""

    kept: np.ndarray
    observed: np.ndarray
    shared: np.ndarray
    of_rows: bool
    labels: Mapping[str, np.ndarray]


def _look(work: _Work, runs: Sequence[CellRun], obs: pd.Index) -> _Seen:
    sent = dask.delayed(work, pure=True, traverse=False)
    return _together(list(dask.compute(*(promise(_looked, sent, run.labelled(obs)) for run in runs))))


def _looked(work: _Work, run: CellRun) -> _Seen:
    assert run.obs is not None
    found = []
    for piece in run.one_by_one():
        first = piece.first - run.pieces[0].first
        raw, cells, seen = work.observed(piece, run.obs[first : first + len(piece.counts)])
        kept = np.zeros(len(piece.counts), dtype=bool)
        kept[cells.row[seen.kept]] = True
        count = np.bincount(seen.cells.column, minlength=len(work.equations))
        shared = shared_columns(seen.cells, seen.x, work.columns.uses)
        of_rows = work.weight is None or weights_of(raw[work.weight].iloc[seen.kept], work.weight, seen.cells)[1]
        labels = {
            name: group_of_rows(seen.cells, raw[name].iloc[seen.kept], name, what) for name, what in work.labels.items()
        }
        found.append(_Seen(kept, count, shared, of_rows, labels))
    return _together(found)


def _together(found: Sequence[_Seen]) -> _Seen:
    return _Seen(
        np.concatenate([each.kept for each in found]),
        np.sum([each.observed for each in found], axis=0),
        np.all([each.shared for each in found], axis=0),
        all(each.of_rows for each in found),
        {name: np.concatenate([each.labels[name] for each in found]) for name in found[0].labels},
    )


# ---------------------------------------------------------------------------------------------- the rows


def _array(work: _Work, runs: Sequence[CellRun], kept: np.ndarray) -> tuple[da.Array, list[int]]:
    """(N, columns) of X, Y and weights, a chunk for each piece, and the rows of each run."""
    sent = dask.delayed(work, pure=True, traverse=False)
    blocks, lengths = [], []
    for run in runs:
        rows = [int(kept[piece.first : piece.first + len(piece.counts)].sum()) for piece in run.pieces]
        blocks += [
            da.from_delayed(promise(_values, sent, piece), (n_rows, sum(work.widths)), np.float64)
            for piece, n_rows in zip(run.pieces, rows, strict=True)
            if n_rows
        ]
        lengths += [sum(rows)] if sum(rows) else []
    return da.concatenate(blocks), lengths


def _values(work: _Work, piece: CellRows) -> np.ndarray:
    assert work.placing is not None
    raw, _, seen = work.observed(piece, pd.RangeIndex(len(piece.counts)))
    q, n_equations, _ = work.widths
    values = np.empty((len(seen.cells.obs), sum(work.widths)))
    values[:, :q] = work.placing(seen.cells, seen.x)
    values[:, q : q + n_equations] = seen.cells.spread(seen.y, np.nan)
    if work.weight is not None:
        given, _ = weights_of(raw[work.weight].iloc[seen.kept], work.weight, seen.cells)
        values[:, q + n_equations :] = spread_weights(given, seen.cells, work.of_rows)
    return values
