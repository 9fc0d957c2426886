"""Rows on their way into zarr arrays: block by block, each stored chunk of the source read once, a few in memory."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np
import zarr

from lrgls_dask.rows.block import as_columns
from lrgls_dask.rows.progress import report
from lrgls_dask.rows.rows import CellWeights, Part, Rows

__all__ = ["RowArray", "Target", "common_dtype", "fill_rows", "row_arrays", "stops_of_blocks"]

Target = tuple[zarr.Array, tuple[Part, ...]]
"""A stored array, and the parts whose columns it gets side by side."""

Refuse = Callable[[zarr.Array, np.ndarray, int], None]


def common_dtype(parts: Sequence[Part]) -> np.dtype:
    """The smallest dtype that holds all parts, in the byte order of the machine."""
    return np.result_type(*(np.dtype(part.array.dtype) for part in parts)).newbyteorder("=")


def stops_of_blocks(first: int, n_rows: int, chunk: int) -> list[int]:
    """Where blocks of `n_rows` rows end whose first goes to row `first` of an array in chunks of `chunk` rows.

    No two of them share a chunk.
    """
    return [*range(chunk - first % chunk, n_rows, chunk), n_rows]


def fill_rows(
    targets: Sequence[Target],
    stops: Sequence[int],
    first: int = 0,
    refuse: Refuse | None = None,
    topic: str | None = None,
) -> None:
    """Write the rows of all parts, in blocks that end at `stops`, from row `first` of the arrays on.

    refuse : is shown the values of each block before they become those of a stored dtype that may not hold them, with
    the number of its first row, and raises where it does not.  topic : under which rows that are written are reported.
    Holds a few blocks, and a stored chunk of each part.
    """
    parts = [part for _, of_target in targets for part in of_target]
    for start, pieces in _ahead(_blocks(parts, stops)):
        taken = 0
        for array, of_target in targets:
            block = pieces[taken : taken + len(of_target)]
            taken += len(of_target)
            if refuse is not None and not np.can_cast(common_dtype(of_target), array.dtype, "safe"):
                refuse(array, np.concatenate([as_columns(piece) for piece in block], axis=1), start)
            array[first + start : first + start + len(block[0])] = _joined(block, array)
        report(topic, sum(piece.nbytes for piece in pieces))


@dataclass(frozen=True, eq=False)
class RowArray:
    """An array of the format with a row for each observation, and the parts whose columns it holds side by side."""

    name: str
    parts: tuple[Part, ...]
    dims: tuple[Hashable, ...]

    @property
    def n_columns(self) -> int:
        return sum(part.n_columns for part in self.parts)

    @property
    def row_bytes(self) -> int:
        """Of a row as it is stored, before compression."""
        return self.n_columns * common_dtype(self.parts).itemsize


def row_arrays(rows: Rows, dims: tuple[Hashable, Hashable]) -> list[RowArray]:
    """Y, X, and weights that differ from row to row."""
    obs_dim, equation_dim = dims
    found = [RowArray("Y", rows.y, (obs_dim, equation_dim)), RowArray("X", rows.x, (obs_dim, "regressor"))]
    if rows.weights is not None:
        found.append(RowArray("weights", (rows.weights,), (obs_dim,)))
    if rows.cells is not None and rows.cells.parts:
        found.append(RowArray("weights", _by_equation(rows.cells), (obs_dim, equation_dim)))
    return found


def _by_equation(cells: CellWeights) -> tuple[Part, ...]:
    """Parts with a column of weights for each equation, also where some share one."""
    if len(cells.parts) == 1 or len(set(cells.weighting.tolist())) == len(cells.weighting):
        return cells.parts
    return tuple(cells.parts[i] for i in cells.weighting.tolist())


def _joined(pieces: Sequence[np.ndarray], target: Any) -> np.ndarray:
    """A new array of the pieces side by side: a store may keep what it is given, so it never gets the user's memory."""
    if target.ndim == 1:
        return np.array(pieces[0], dtype=object if target.dtype.kind in "OT" else target.dtype)
    columns = [as_columns(piece) for piece in pieces]
    joined = np.empty((len(columns[0]), sum(piece.shape[1] for piece in columns)), dtype=target.dtype)
    return np.concatenate(columns, axis=1, out=joined, casting="unsafe")


def _blocks(parts: Sequence[Part], stops: Sequence[int]) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Blocks of every part that end at `stops`, each stored chunk read once and kept until its last row is used."""
    together: dict[Any, list[int]] = {}
    for i, part in enumerate(parts):
        lazy = isinstance(part.array, da.Array)
        together.setdefault(part.row_chunks if lazy else ("alone", i), []).append(i)
    streams = [(members, _stream([parts[i] for i in members], stops)) for members in together.values()]
    for start in [0, *stops[:-1]]:
        pieces: list[Any] = [None] * len(parts)
        for members, stream in streams:
            for i, piece in zip(members, next(stream), strict=True):
                pieces[i] = piece
        yield start, pieces


def _stream(parts: Sequence[Part], stops: Sequence[int]) -> Iterator[list[np.ndarray]]:
    """The rows of parts with equal row chunks up to each stop; Dask parts in one graph, which shares their work."""
    stored = parts[0].row_chunks
    cuts = stops if stored is None else np.cumsum(stored).tolist()
    held: list[list[np.ndarray]] = [[] for _ in parts]
    n_held = read = start = 0
    for end in stops:
        wanted = end - start
        if n_held < wanted:
            stop = cuts[bisect_left(cuts, end)]
            for pieces, new in zip(held, _read(parts, read, stop), strict=True):
                pieces.append(new)
            n_held, read = n_held + stop - read, stop
        joined = [pieces[0] if len(pieces) == 1 else np.concatenate(pieces) for pieces in held]
        yield [rows[:wanted] for rows in joined]
        n_held, start = n_held - wanted, end
        held = [[rows[wanted:]] if n_held else [] for rows in joined]


def _ahead(blocks: Iterator[Any]) -> Iterator[Any]:
    """The same blocks, the next one read while the caller writes the last."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = pool.submit(next, blocks, None)
            yield block


def _read(parts: Sequence[Part], start: int, stop: int) -> list[np.ndarray]:
    slices = [part.array[start:stop] for part in parts]
    if isinstance(parts[0].array, da.Array):
        return [np.asarray(block) for block in dask.compute(*slices)]
    return [np.asarray(block) for block in slices]
