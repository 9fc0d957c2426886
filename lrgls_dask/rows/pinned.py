"""Rows that stay in memory between the passes of a fit: blocks before a fixed row are read once, the others each time.

A block is kept as a kernel takes it, where it was read; nothing is copied, and nothing of arrays that are in memory
already. They belong to the fit, whose `Meter` holds them, and are gone when it ends.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import dask
import dask.threaded
import numpy as np

from lrgls_dask.rows.rows import Rows

__all__ = ["Pin", "PinnedRows", "alone", "last_pinned", "pinned_row_bytes", "stays_here"]


class PinnedRows:
    """Blocks of stored arrays, by the array and their rows, of which each is kept once it was read.

    stop : only blocks that end at this row or before are kept, so that the memory they take is known before any read.
    The blocks are those of the first pass; another that is cut otherwise takes what it needs of them.
    """

    def __init__(self, stop: int) -> None:
        self.stop = stop
        self._bounds: np.ndarray | None = None
        self._blocks: dict[int, tuple[Any, dict[int, np.ndarray]]] = {}  # an array that is held keeps its id
        self._lock = threading.Lock()

    def begin(self, bounds: np.ndarray) -> None:
        """bounds : (B + 1,) rows between which a pass cuts."""
        with self._lock:
            if self._bounds is None and self.stop:
                self._bounds = bounds[bounds <= self.stop]

    def takes(self, start: int, stop: int) -> bool:
        """Whether rows start..stop are a block that is to be kept."""
        bounds = self._bounds
        if bounds is None or stop > self.stop:
            return False
        at = int(np.searchsorted(bounds, start))
        return at + 1 < len(bounds) and bounds[at] == start and bounds[at + 1] == stop

    def find(self, array: Any, start: int, stop: int) -> tuple[np.ndarray, ...] | None:
        """The rows start..stop of an array as views of what is kept, or None where some of them are not."""
        bounds, (_, blocks) = self._bounds, self._blocks.get(id(array), (None, {}))
        if bounds is None or not blocks or stop > bounds[-1]:
            return None
        found: list[np.ndarray] = []
        at = int(np.searchsorted(bounds, start, side="right")) - 1
        while bounds[at] < stop:
            first, values = int(bounds[at]), blocks.get(int(bounds[at]))
            if values is None:
                return None
            found.append(values[max(0, start - first) : stop - first])
            at += 1
        return tuple(found)

    def keep(self, array: Any, start: int, values: np.ndarray) -> np.ndarray:
        """The values of a block from row `start`, read-only: those that were kept first."""
        kept = values.view()
        kept.flags.writeable = False
        with self._lock:
            if self._bounds is None:
                return kept
            return self._blocks.setdefault(id(array), (array, {}))[1].setdefault(start, kept)

    def held_bytes(self, arrays: Iterable[Any], bounds: np.ndarray) -> int:
        """What a pass over these arrays that cuts at `bounds` (B + 1,) need not read."""
        if not self._blocks:
            return 0
        here = bounds[bounds <= self.stop].tolist()
        pieces = [piece for array in arrays for a, b in pairwise(here) for piece in self.find(array, a, b) or ()]
        return sum(piece.nbytes for piece in pieces)

    def release(self) -> None:
        """Let go of all blocks, and keep none from now on."""
        with self._lock:
            self.stop, self._bounds = 0, None
            self._blocks.clear()


@dataclass(frozen=True, eq=False)
class Pin:
    """Where a block of an array is kept once it was read; start : its first row."""

    rows: PinnedRows
    array: Any
    start: int

    def keep(self, values: np.ndarray) -> np.ndarray:
        """The values, read-only."""
        return self.rows.keep(self.array, self.start, values)


def alone(values: np.ndarray) -> np.ndarray:
    """The same without the rest of a larger array that was read with them, which would be kept too."""
    base = values.base
    return values.copy() if isinstance(base, np.ndarray) and base.nbytes > values.nbytes else values


def stays_here(get: Any) -> bool:
    """Whether a scheduler works in this process, so that its tasks see what others have kept."""
    return get in (dask.threaded.get, dask.get)


def pinned_row_bytes(rows: Rows) -> int:
    """Bytes of a row that may be kept: those of arrays that are not in memory already."""
    return sum(part.row_bytes for part in rows.parts if not isinstance(part.array, np.ndarray))


def last_pinned(rows: Rows, bounds: np.ndarray, n_bytes: float) -> int:
    """The row before which blocks take at most so many bytes, and split no stored chunk; 0 where none does.

    bounds : (B + 1,) rows between which passes cut.
    """
    ends = bounds[bounds * pinned_row_bytes(rows) <= n_bytes]
    for part in rows.parts:
        if part.row_chunks is not None and not isinstance(part.array, np.ndarray):
            ends = np.intersect1d(ends, np.cumsum([0, *part.row_chunks]))
    return int(ends[-1]) if len(ends) else 0
