"""Numbers that stand for missing values: taken out, and looked for where nobody said that there are any."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import dask.array as da
import numpy as np

from lrgls_dask.data.labelled import LabelledRows
from lrgls_dask.data.sources import BLOCK_BYTES, row_chunks
from lrgls_dask.rows.block import as_columns
from lrgls_dask.rows.rows import Part

__all__ = ["Suspicion", "suspicious_constants", "without_zeros_before_first"]

CUSTOMARY = frozenset(sign * value for value in (99, 999, 9999, 99999, 1e20, 1e30, 1e36) for sign in (1, -1))


@dataclass(frozen=True)
class Suspicion:
    """A value that is repeated and far from the others of its column.

    array, column : where.  value, count : which, in how many rows.  low, high : between which the others are.
    """

    array: str
    column: int
    value: float
    count: int
    low: float
    high: float


def suspicious_constants(system: LabelledRows) -> list[Suspicion]:
    """The least or greatest values of columns of X and Y that may stand for a missing one; one pass, block by block.

    One is suspicious that is there more than once and further from its neighbour than all others lie apart, or that
    custom takes for missing, such as -999.
    """
    found = []
    for name, parts in (("X", system.rows.x), ("Y", system.rows.y)):
        first = 0
        for part in parts:
            for sign in (1, -1):
                found += [replace(each, array=name, column=first + each.column) for each in _at_end(part, sign)]
            first += part.n_columns
    return sorted(found, key=lambda each: (each.array, each.column))


def _at_end(part: Part, sign: int) -> list[Suspicion]:
    """Suspicious least values of sign times each column."""
    least, after = (np.full(part.n_columns, np.inf) for _ in range(2))  # and the next one above it
    count, most = np.zeros(part.n_columns, dtype=np.int64), np.full(part.n_columns, -np.inf)
    for block in _blocks(part):
        values = np.where(np.isnan(block), np.inf, sign * block)
        low = values.min(axis=0)
        above = np.where(values > low, values, np.inf).min(axis=0)
        ends = np.array([least, low, after, above])
        least = np.minimum(least, low)
        count = count * (ends[0] == least) + (values == least).sum(axis=0)
        after = np.where(ends > least, ends, np.inf).min(axis=0)
        most = np.maximum(most, np.where(np.isinf(values), -np.inf, values).max(axis=0))
    found = []
    for column in np.flatnonzero((count > 1) & np.isfinite(after)).tolist():
        value, near, end = sign * least[column], sign * after[column], sign * most[column]
        apart, others = abs(near - value), abs(end - near)
        if others > 0 and (apart > others or value in CUSTOMARY):
            low_end, high_end = sorted((float(near), float(end)))
            found.append(Suspicion("", column, float(value), int(count[column]), low_end, high_end))
    return found


def _blocks(part: Part) -> Iterator[np.ndarray]:
    """The rows (n, c) as floats, a stored chunk or some megabytes at a time."""
    n_obs, start = int(part.array.shape[0]), 0
    some = max(1, BLOCK_BYTES // max(1, part.row_bytes))
    for length in part.row_chunks or [some] * (-(-n_obs // some)):
        block = np.asarray(part.array[start : start + length], dtype=np.float64)
        yield as_columns(block)
        start += length


def without_zeros_before_first(system: LabelledRows) -> LabelledRows:
    """Responses that are zero in every row before their first other value are not observed there; one pass over Y.

    That is how files are padded whose series begin later than others.
    """
    parts = []
    for part in system.rows.y:
        starts, row = np.full(part.n_columns, int(part.array.shape[0])), 0
        for block in _blocks(part):
            said = (block != 0) & ~np.isnan(block)
            here = np.where(said.any(axis=0), row + said.argmax(axis=0), starts)
            starts, row = np.minimum(starts, here), row + len(block)
        parts.append(_blank(part, starts))
    return replace(system, rows=replace(system.rows, y=tuple(parts)))


def _blank(part: Part, starts: np.ndarray) -> Part:
    """The part with NaN in place of zeros before a row, a number for each column."""
    array: Any = part.array
    dtype = np.result_type(array.dtype, np.float32)
    if not isinstance(array, da.Array):
        array = da.from_array(array, chunks=(part.row_chunks or "auto", *array.shape[1:]))
    rows = da.arange(array.shape[0], chunks=array.chunks[0])
    if array.ndim == 2:
        array, rows, starts = array.rechunk({1: -1}), rows[:, None], starts[None, :]
    made = da.where((array == 0) & (rows < starts), np.nan, array.astype(dtype)).astype(dtype)
    return Part(part.name, made, row_chunks(made))
