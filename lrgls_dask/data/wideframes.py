"""Frames with a row for each observation: each piece of rows becomes columns of regressors and of responses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd

from lrgls_dask.data.framelook import Pieces, promise
from lrgls_dask.data.labels import check_ascending
from lrgls_dask.data.lags import Lags
from lrgls_dask.data.modelmatrix import Columns, Encoding, Shift, n_rows_of, put_columns
from lrgls_dask.data.parquetrows import FileRows
from lrgls_dask.data.sources import row_chunks
from lrgls_dask.data.tables import read_columns
from lrgls_dask.rows.rows import Part

# Of each column a page as it is stored, the same decoded, and the dictionary, of 1 MB each as pyarrow and Spark write.
PAGE_BYTES = 3 * 2**20

__all__ = ["PAGE_BYTES", "WideColumns", "WideRows", "missing_value", "no_shift", "wide_rows"]


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

    def __call__(self, raw: Columns, shift: Shift, place: Callable[[int], str] | None = None) -> np.ndarray:
        """All rows of the piece; a response is NaN where it, or a regressor of its equation, is missing.

        place : where a row lies, for messages; by default it goes by its label.
        """
        encoding, formulas, q = self.encoding, self.encoding.formulas, len(self.encoding.names)
        y = encoding.responses(raw, shift, formulas.responses) if self.of else {}
        values = np.empty((n_rows_of(raw), sum(self.widths)))
        encoding.fill(values[:, :q], raw, shift)
        rest = [y[formulas.responses[label].text] for label in self.of]
        put_columns(values[:, q:], [*rest, *(encoding.number(raw, name) for name in self.others)])
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

    def shown(self, piece: Any) -> np.ndarray:
        """(n,) which rows of a piece show a response; responses are read in turn until it is known of all rows."""
        encoding, formulas = self.encoding, self.encoding.formulas
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
    """

    x: Any
    y: Any
    others: Any
    kept: np.ndarray
    runs: tuple[int, ...] | None = None
    run_bytes: int = 0

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
    _refuse_lags(columns, pieces)
    width = q + K + columns.widths[2]
    sent = dask.delayed(columns, pure=True, traverse=False)
    if columns.missing == "drop":
        shown = dask.compute(*(promise(_shown, sent, piece) for piece in pieces.rows))
    else:
        shown = tuple(np.ones(length, dtype=bool) for length in lengths)
    blocks, runs = [], []
    for piece, mask in zip(pieces.rows, shown, strict=True):
        blocks += _blocks(sent, piece, mask, width)
        runs.append(int(mask.sum()))
    kept = np.concatenate(shown)
    if not blocks:
        return WideRows(np.empty((0, q)), np.empty((0, K)), np.empty((0, width - q - K)), kept)
    whole = da.concatenate(blocks)
    arrays = whole[:, :q], whole[:, q : q + K], whole[:, q + K :]
    if len(blocks) == len(runs) - runs.count(0):
        return WideRows(*arrays, kept)
    held = len(columns.read) * (PAGE_BYTES + pieces.rows[0].file.buffer_bytes)
    return WideRows(*arrays, kept, tuple(length for length in runs if length), held)


def _blocks(sent: Any, piece: Any, mask: np.ndarray, width: int) -> list[da.Array]:
    """The rows of a piece that the mask keeps, (n, width) each; row groups that are large in several stretches."""
    stretches = piece.cut(8 * width) if isinstance(piece, FileRows) else (piece,)
    cuts = np.cumsum([0, *map(len, stretches)]) if len(stretches) > 1 else np.array([0, len(mask)])
    masks = [mask[a:b] for a, b in pairwise(cuts.tolist())]
    made = [
        da.from_delayed(promise(_all if own.all() else _observed, sent, each), (int(own.sum()), width), np.float64)
        for each, own in zip(stretches, masks, strict=True)
        if own.any()
    ]
    return made


def _shown(columns: WideColumns, piece: Any) -> np.ndarray:
    """(n,) which rows of a piece show a response."""
    if not isinstance(piece, FileRows):
        return columns.shown(piece)
    read = len(columns.encoding.formulas.regressor_columns) + len(columns.encoding.names)
    found = [columns.shown(each) for each in piece.cut(8 * read)]
    piece.spent()
    return np.concatenate(found)


def _all(columns: WideColumns, piece: Any) -> np.ndarray:
    place = piece.place if isinstance(piece, FileRows) else None
    return columns(columns.raw(piece, columns.read), no_shift, place)


def _observed(columns: WideColumns, piece: Any) -> np.ndarray:
    values = _all(columns, piece)
    return values[columns.kept(values)]


def no_shift(steps: int) -> np.ndarray:
    """The lags of rows that are read in pieces: there are none."""
    raise AssertionError("lags of what is read in pieces are refused")


def _refuse_lags(columns: WideColumns, pieces: Pieces) -> None:
    lagged = [each.text for each in columns.encoding.formulas.factors if each.lags]
    if lagged and isinstance(pieces.rows[0], FileRows):
        raise ValueError(
            f"{lagged[0]!r} reads rows of other row groups of the files. Write it as a column of them; or, where they "
            "fit into memory, use System.from_frame(pandas.read_parquet(path), ...)."
        )
    if lagged:
        raise ValueError(
            f"{lagged[0]!r} reads rows of other partitions of the Dask frame. Make it a column of the frame, with "
            "frame.assign(x_1=frame['x'].shift(1)), and name that; or use frame.compute()."
        )


def _shift(columns: WideColumns, obs: pd.Index | None, n_rows: int) -> Lags:
    if any(each.lags for each in columns.encoding.formulas.factors):
        check_ascending(obs, "obs" if obs is None or obs.name is None else obs.name, "lag(...)")
    return Lags.of_rows(obs, n_rows)
