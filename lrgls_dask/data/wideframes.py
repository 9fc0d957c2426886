"""Frames with a row for each observation: each piece of rows becomes columns of regressors and of responses."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
from dask.tokenize import tokenize

from lrgls_dask.data.framelook import Pieces, promise
from lrgls_dask.data.labels import check_ascending
from lrgls_dask.data.lags import Lags, no_shift
from lrgls_dask.data.modelmatrix import Columns, Encoding, Shift, n_rows_of, put_columns
from lrgls_dask.data.neighbours import Near, Reach, ends_of, nearby
from lrgls_dask.data.parquetrows import FileRows
from lrgls_dask.data.sources import row_chunks
from lrgls_dask.data.tables import read_columns
from lrgls_dask.rows.rows import Part

# Of each column a page as it is stored, the same decoded, and the dictionary, of 1 MB each as pyarrow and Spark write.
PAGE_BYTES = 3 * 2**20

__all__ = ["PAGE_BYTES", "WideColumns", "WideRows", "missing_value", "wide_rows"]


@dataclass(frozen=True, eq=False)
class WideColumns:
    """What is made of a piece of rows: X (n, q), Y (n, K) and further columns (n, m), side by side.

    of : for each equation which label of the formulas it has; none where responses are not asked for.
    others : columns of numbers that go along, such as weights.  missing : "drop", "raise", or "keep" as they are.
    """

    encoding: Encoding
    of: tuple[int, ...]
    others: tuple[str, ...]
    missing: str

    @property
    def widths(self) -> tuple[int, int, int]:
        return len(self.encoding.names), len(self.of), len(self.others)

    @property
    def read(self) -> tuple[str, ...]:
        """The columns that it needs."""
        formulas = self.encoding.formulas
        return tuple(dict.fromkeys([*(formulas.columns if self.of else formulas.regressor_columns), *self.others]))

    def raw(self, piece: Any, names: Sequence[str]) -> Columns:
        """These columns of a piece: of files without a frame where formulaic is not asked."""
        made = [each for each in self.encoding.formulas.responses if not each.plain]
        if not isinstance(piece, FileRows) or not names or made or self.encoding.plain is None:
            return read_columns(piece, names)
        return piece.read_arrays(names)

    def __call__(
        self, raw: Columns, shift: Shift, place: Callable[[int], str] | None = None, own: slice | None = None
    ) -> np.ndarray:
        """All rows of the piece; a response is NaN where it, or a regressor of its equation, is missing.

        place : where a row lies, for messages; by default it goes by its label.  own : which of the rows are of the
        piece, where others lie around it.
        """
        encoding, formulas, q = self.encoding, self.encoding.formulas, len(self.encoding.names)
        y = encoding.responses(raw, shift, formulas.responses) if self.of else {}
        values = np.empty((n_rows_of(raw), sum(self.widths)), order="F")  # as the columns come; sums cut it in slabs
        encoding.fill(values[:, :q], raw, shift)
        rest = [y[formulas.responses[label].text] for label in self.of]
        put_columns(values[:, q:], [*rest, *(encoding.number(raw, name) for name in self.others)])
        if own is not None:
            values, raw = values[own], raw[own]  # type: ignore[index]  # lags read frames
        if self.missing != "keep":
            index = raw.index if isinstance(raw, pd.DataFrame) else range(len(values))
            self._mark(values, np.isnan(values[:, :q]), place or (lambda row: f"row {row}, labelled {index[row]}"))
        return values

    def _mark(self, values: np.ndarray, lost: np.ndarray, place: Callable[[int], str]) -> None:
        """Set to NaN what is not observed, or refuse it."""
        formulas, encoding, q = self.encoding.formulas, self.encoding, len(self.encoding.names)
        if self.missing == "raise":
            names = [*encoding.names, *(formulas.responses[label].text for label in self.of)]
            wrong = np.isnan(values[:, : len(names)])
            if wrong.any():
                row, column = (int(i) for i in np.argwhere(wrong)[0])
                raise missing_value(names[column], place(row), int(wrong.sum()))
        if not lost.any():
            return
        lost_by_formula = [lost[:, places].any(axis=1) for places in encoding.places]
        for j, label in enumerate(self.of):
            values[lost_by_formula[formulas.right[label]], q + j] = np.nan

    def of_piece(self, piece: Any, near: Near | None = None) -> np.ndarray:
        """All rows of a piece.  near : what lies around it, where lags read that."""
        place = piece.place if isinstance(piece, FileRows) else None
        raw = self.raw(piece, self.read)
        n_rows = n_rows_of(raw)
        if near is None:
            return self(raw, no_shift, place)
        if not n_rows:
            return np.empty((0, sum(self.widths)))
        assert isinstance(raw, pd.DataFrame)
        return self(near.joined(raw), near.shift(n_rows), place, near.own(n_rows))

    def shown(self, piece: Any, near: Near | None = None) -> np.ndarray:
        """(n,) which rows of a piece show a response; responses are read in turn until it is known of all rows."""
        encoding, formulas = self.encoding, self.encoding.formulas
        if near is not None:
            return self.kept(self.of_piece(piece, near))
        lost = encoding.lost(self.raw(piece, formulas.regressor_columns), no_shift)
        found, hopeless, done = np.zeros(lost.shape[1], dtype=bool), lost.all(axis=0), 0
        while done < len(self.of) and not (found | hopeless).all():
            labels = self.of[done : 2 * done + 1]
            wanted = [formulas.responses[label] for label in labels]
            names = dict.fromkeys(name for each in wanted for name in each.columns)
            y = encoding.responses(self.raw(piece, list(names)), no_shift, wanted)
            for label, each in zip(labels, wanted, strict=True):
                found |= ~(np.isnan(y[each.text]) | lost[formulas.right[label]])
            done += len(labels)
        return found

    def kept(self, values: np.ndarray) -> np.ndarray:
        """(n,) which rows show a response; all where the missing are not dropped."""
        q, K, _ = self.widths
        lost = np.isnan(values[:, q : q + K]).all(axis=1)
        return ~lost if self.missing == "drop" else np.ones(len(values), dtype=bool)


def missing_value(what: str, where: str, count: int) -> ValueError:
    """The error for a value that is missing where missing="raise"."""
    return ValueError(
        f"{what!r} has no value in {where}, {count} such values in all. Drop or fill these rows, or use "
        "missing='drop', by which such a response counts as not observed."
    )


@dataclass(frozen=True, eq=False)
class WideRows:
    """X (N, q), Y (N, K) and further columns (N, m); of a Dask frame or of files unread.

    kept : (rows of the frame,) which of them are there.  runs, run_bytes : as `rows.rows.Part` has them.
    n_read : columns that were read to know that, and for lags; none of a frame in memory.
    """

    x: Any
    y: Any
    others: Any
    kept: np.ndarray
    runs: tuple[int, ...] | None = None
    run_bytes: int = 0
    n_read: int = 0

    def part(self, name: str, array: Any) -> Part:
        """One of the arrays with its chunks."""
        return Part(name, array, row_chunks(array), self.runs, self.run_bytes)


def wide_rows(pieces: Pieces, lengths: Sequence[int], columns: WideColumns, obs: pd.Index | None) -> WideRows:
    """The rows of a frame; with missing="drop" one more look tells which rows of a Dask frame or of files show a
    response. That of files reads regressors, and of responses as many as it takes.

    lengths : rows of each piece.  obs : their labels, along which lags go.
    """
    q, K, _ = columns.widths
    if pieces.in_memory:
        raw = pieces.rows[0]
        values = columns(raw, _shift(columns, obs, len(raw)))
        kept = columns.kept(values)
        values = values if kept.all() else values[kept]
        x, y, others = map(np.ascontiguousarray, np.split(values, [q, q + K], axis=1))
        return WideRows(x, y, others, kept)
    width = q + K + columns.widths[2]
    sent = dask.delayed(columns, pure=True, traverse=False)
    reach = Reach.of(columns.encoding.formulas.factors)
    near = None if reach is None else _nearby(columns, reach, pieces, lengths, obs, 8 * width)
    if columns.missing != "drop":
        shown = tuple(np.ones(length, dtype=bool) for length in lengths)
    elif near is None:
        shown = dask.compute(*(promise(_shown, sent, piece) for piece in pieces.rows))
    else:
        both = zip(near, pieces.rows, strict=True)
        shown = dask.compute(*(promise(_shown_near, _with(sent, each, 8 * width), piece) for each, piece in both))
    blocks, runs = [], []
    for i, (piece, mask) in enumerate(zip(pieces.rows, shown, strict=True)):
        blocks += _blocks(sent, piece, mask, width, None if near is None else near[i])
        runs.append(int(mask.sum()))
    kept = np.concatenate(shown)
    n_read = 0 if reach is None else len(reach.columns)
    n_read += len(columns.encoding.formulas.regressor_columns) + 1 if columns.missing == "drop" else 0
    if not blocks:
        return WideRows(np.empty((0, q)), np.empty((0, K)), np.empty((0, width - q - K)), kept)
    whole = da.concatenate(blocks)
    arrays = whole[:, :q], whole[:, q : q + K], whole[:, q + K :]
    if len(blocks) == len(runs) - runs.count(0):
        return WideRows(*arrays, kept, n_read=n_read)
    held = len(columns.read) * (PAGE_BYTES + pieces.rows[0].file.buffer_bytes)
    return WideRows(*arrays, kept, tuple(length for length in runs if length), held, n_read)


def _blocks(sent: Any, piece: Any, mask: np.ndarray, width: int, near: Sequence[Near] | None) -> list[da.Array]:
    """The rows of a piece that the mask keeps, (n, width) each; row groups that are large in several stretches."""
    stretches = _stretches(piece, 8 * width)
    cuts = np.cumsum([0, *map(len, stretches)]) if len(stretches) > 1 else np.array([0, len(mask)])
    made = []
    for i, (each, (a, b)) in enumerate(zip(stretches, pairwise(cuts.tolist()), strict=True)):
        own = mask[a:b]
        if not own.any():
            continue
        if near is None:
            rows = promise(_all if own.all() else _observed, sent, each)
        else:
            rows = promise(_all_near if own.all() else _observed_near, _with(sent, near[i : i + 1], 0), each)
        made.append(da.from_delayed(rows, (int(own.sum()), width), np.float64))
    return made


def _stretches(piece: Any, row_bytes: int) -> Sequence[Any]:
    """The pieces of a row group of files that are read by themselves, of rows of so many bytes; else all of it."""
    return piece.cut(row_bytes) if isinstance(piece, FileRows) else (piece,)


def _shown(columns: WideColumns, piece: Any) -> np.ndarray:
    """(n,) which rows of a piece show a response."""
    if not isinstance(piece, FileRows):
        return columns.shown(piece)
    read = len(columns.encoding.formulas.regressor_columns) + len(columns.encoding.names)
    found = [columns.shown(each) for each in piece.cut(8 * read)]
    piece.spent()
    return np.concatenate(found)


def _all(columns: WideColumns, piece: Any) -> np.ndarray:
    return columns.of_piece(piece)


def _observed(columns: WideColumns, piece: Any) -> np.ndarray:
    values = columns.of_piece(piece)
    return values[columns.kept(values)]


# ---------------------------------------------------------------------------------------------- lags


@dataclass(frozen=True, eq=False)
class NearColumns:
    """What is made of a piece with what lies around each of its stretches.  row_bytes : by which it is cut in these."""

    columns: WideColumns
    near: tuple[Near, ...]
    row_bytes: int


def _with(sent: Any, near: Sequence[Near], row_bytes: int) -> Any:
    """A promise of NearColumns, from one of the columns that all pieces are given."""
    # not as Dask tells values apart, to which slices of text of Arrow are all the same
    name = f"near-{tokenize(pickle.dumps(tuple(near)))}"
    return dask.delayed(NearColumns, pure=True)(sent, dask.delayed(tuple(near), name=name, traverse=False), row_bytes)


def _nearby(
    columns: WideColumns, reach: Reach, pieces: Pieces, lengths: Sequence[int], obs: pd.Index | None, row_bytes: int
) -> list[tuple[Near, ...]]:
    """What lies around each stretch of each piece; the ends of all are read now, of the columns that lags read."""
    _check_order(obs)
    sent = dask.delayed((reach, row_bytes), pure=True, traverse=False)
    ends = dask.compute(*(promise(_ends, sent, piece) for piece in pieces.rows))
    cuts = [
        [len(each) for each in piece.cut(row_bytes)] if isinstance(piece, FileRows) else [length]
        for piece, length in zip(pieces.rows, lengths, strict=True)
    ]
    flat = nearby(reach, [each for of_piece in ends for each in of_piece], [n for each in cuts for n in each], obs)
    return [tuple(next(flat) for _ in each) for each in cuts]


def _ends(asked: tuple[Reach, int], piece: Any) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    reach, row_bytes = asked
    return ends_of(reach, _stretches(piece, row_bytes))


def _shown_near(sent: NearColumns, piece: Any) -> np.ndarray:
    both = zip(_stretches(piece, sent.row_bytes), sent.near, strict=True)
    return np.concatenate([sent.columns.shown(*each) for each in both])


def _all_near(sent: NearColumns, piece: Any) -> np.ndarray:
    return sent.columns.of_piece(piece, sent.near[0])


def _observed_near(sent: NearColumns, piece: Any) -> np.ndarray:
    values = _all_near(sent, piece)
    return values[sent.columns.kept(values)]


def _check_order(obs: pd.Index | None) -> None:
    check_ascending(obs, "obs" if obs is None or obs.name is None else obs.name, "lag(...)")


def _shift(columns: WideColumns, obs: pd.Index | None, n_rows: int) -> Lags:
    if any(each.lags for each in columns.encoding.formulas.factors):
        _check_order(obs)
    return Lags.of_rows(obs, n_rows)
