"""Frames with a row for each observation: each piece of rows becomes columns of regressors and of responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd

from lrgls_dask.data.framelook import Pieces
from lrgls_dask.data.labels import check_ascending
from lrgls_dask.data.lags import Lags
from lrgls_dask.data.modelmatrix import Encoding, Shift
from lrgls_dask.data.tables import as_kind

__all__ = ["WideColumns", "WideRows", "missing_value", "wide_rows"]


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

    def __call__(self, raw: pd.DataFrame, shift: Shift) -> np.ndarray:
        """All rows of the piece; a response is NaN where it, or a regressor of its equation, is missing."""
        block = self.encoding.block(raw, shift, responses=bool(self.of))
        formulas, q = self.encoding.formulas, len(self.encoding.names)
        values = np.empty((len(raw), sum(self.widths)))
        values[:, :q] = block.x
        for j, label in enumerate(self.of):
            values[:, q + j] = block.y[formulas.responses[label].text]
        for i, name in enumerate(self.others):
            values[:, q + len(self.of) + i] = as_kind(name, raw[name], "number")
        if self.missing != "keep":
            self._mark(values, np.isnan(block.x), raw.index)
        return values

    def _mark(self, values: np.ndarray, lost: np.ndarray, index: pd.Index) -> None:
        """Set to NaN what is not observed, or refuse it."""
        formulas, encoding, q = self.encoding.formulas, self.encoding, len(self.encoding.names)
        if self.missing == "raise":
            names = [*encoding.names, *(formulas.responses[label].text for label in self.of)]
            wrong = np.isnan(values[:, : len(names)])
            if wrong.any():
                row, column = (int(i) for i in np.argwhere(wrong)[0])
                raise missing_value(names[column], f"row {row}, labelled {index[row]}", int(wrong.sum()))
        if not lost.any():
            return
        lost_by_formula = [lost[:, places].any(axis=1) for places in encoding.places]
        for j, label in enumerate(self.of):
            values[lost_by_formula[formulas.right[label]], q + j] = np.nan

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
    """X (N, q), Y (N, K) and further columns (N, m); of a Dask frame unread.

    kept : (rows of the frame,) which of them are there.
    """

    x: Any
    y: Any
    others: Any
    kept: np.ndarray


def wide_rows(pieces: Pieces, lengths: Sequence[int], columns: WideColumns, obs: pd.Index | None) -> WideRows:
    """The rows of a frame; with missing="drop" one more look tells which rows of a Dask frame show a response.

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
    _refuse_lags(columns)
    sent, width = dask.delayed(columns, pure=True, traverse=False), q + K + columns.widths[2]
    if columns.missing == "drop":
        shown = dask.compute(*(dask.delayed(_kept)(sent, piece) for piece in pieces.rows))
    else:
        shown = tuple(np.ones(length, dtype=bool) for length in lengths)
    blocks = [
        da.from_delayed(dask.delayed(_observed)(sent, piece), (int(mask.sum()), width), np.float64)
        for piece, mask in zip(pieces.rows, shown, strict=True)
        if mask.any()
    ]
    kept = np.concatenate(shown)
    if not blocks:
        return WideRows(np.empty((0, q)), np.empty((0, K)), np.empty((0, width - q - K)), kept)
    whole = da.concatenate(blocks)
    return WideRows(whole[:, :q], whole[:, q : q + K], whole[:, q + K :], kept)


def _kept(columns: WideColumns, raw: pd.DataFrame) -> np.ndarray:
    return columns.kept(columns(raw, _no_shift))


def _observed(columns: WideColumns, raw: pd.DataFrame) -> np.ndarray:
    values = columns(raw, _no_shift)
    return values[columns.kept(values)]


def _no_shift(steps: int) -> np.ndarray:
    raise AssertionError("lags of a Dask frame are refused")


def _refuse_lags(columns: WideColumns) -> None:
    lagged = [each.text for each in columns.encoding.formulas.factors if each.lags]
    if lagged:
        raise ValueError(
            f"{lagged[0]!r} reads rows of other partitions of the Dask frame. Make it a column of the frame, with "
            "frame.assign(x_1=frame['x'].shift(1)), and name that; or use frame.compute()."
        )


def _shift(columns: WideColumns, obs: pd.Index | None, n_rows: int) -> Lags:
    if any(each.lags for each in columns.encoding.formulas.factors):
        check_ascending(obs, "obs" if obs is None or obs.name is None else obs.name, "lag(...)")
    return Lags.of_rows(obs, n_rows)
