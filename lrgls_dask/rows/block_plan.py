"""How blocks of rows are read: what a task opens or is handed, and the block it makes of that.

A block of a stored array is sliced where its task runs; chunks of Dask arrays, and stored chunks that several blocks
share, are values in the graph.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask.typing import Key

from lrgls_dask.errors import UnreadableRows, reason_of
from lrgls_dask.rows.block import Block
from lrgls_dask.rows.cluster import Box
from lrgls_dask.rows.layout import Layout
from lrgls_dask.rows.patience import patiently
from lrgls_dask.rows.pinned import Pin, PinnedRows, alone
from lrgls_dask.rows.resources import spare_arrays
from lrgls_dask.rows.rows import Part, Rows

__all__ = [
    "BlockPlan",
    "Chunks",
    "Reader",
    "Stored",
    "StoredBlocks",
    "chunk_name",
    "edges_of",
    "is_split",
    "pinned_plans",
    "plan_blocks",
    "read_ahead",
    "read_stored",
    "stored_blocks",
]


@dataclass(frozen=True, eq=False)
class Stored:
    """Rows start..stop of an array that is sliced where the task runs. pin : where they are kept, if they are."""

    array: Any
    start: int
    stop: int
    pin: Pin | None = None


@dataclass(frozen=True, eq=False)
class Chunks:
    """Rows of values in the graph: (key, first, last) for each chunk they lie in. pin : as of `Stored`."""

    pieces: tuple[tuple[Key, int, int], ...]
    pin: Pin | None = None


@dataclass(frozen=True, eq=False)
class Held:
    """Rows that an earlier pass has kept, in pieces."""

    pieces: tuple[np.ndarray, ...]


Reader = Stored | Chunks | Held


@dataclass(frozen=True, eq=False)
class BlockPlan:
    """How to read one block.

    readers, names : one a part, X then Y then weights, then groups that are absorbed.  by_cell : whether weights are of
    cells.  absorbs : whether there are such groups.
    graph : the Dask tasks this block alone needs.  shared : keys whose values it is handed.
    """

    start: int
    stop: int
    n_x: int
    n_y: int
    by_cell: bool
    absorbs: bool
    readers: tuple[Reader, ...]
    names: tuple[str, ...]
    graph: dict[Key, Any]
    shared: frozenset[Key]

    @property
    def keys(self) -> list[Key]:
        return [key for reader in self.readers if isinstance(reader, Chunks) for key, _, _ in reader.pieces]


@dataclass(frozen=True, eq=False)
class StoredBlocks:
    """Consecutive blocks of arrays that are sliced where the task runs, and planned there: a million of them are no
    objects of the client. bounds : their first rows, and the end of the last.  pinned : what is kept of them."""

    arrays: tuple[Any, ...]
    names: tuple[str, ...]
    sizes: tuple[int, int, bool, bool]
    bounds: np.ndarray
    pinned: PinnedRows | None

    def plans(self) -> tuple[BlockPlan, ...]:
        plans = tuple(
            BlockPlan(a, b, *self.sizes, tuple(Stored(each, a, b) for each in self.arrays), self.names, {}, frozenset())
            for a, b in pairwise(self.bounds.tolist())
        )
        return plans if self.pinned is None else pinned_plans(plans, self.arrays, self.pinned, frozenset())

    def some(self, first: int, stop: int) -> StoredBlocks:
        return replace(self, bounds=self.bounds[first : stop + 1])


def stored_blocks(rows: Rows, layout: Layout, pinned: PinnedRows | None) -> StoredBlocks | None:
    """All blocks, or None where some part is in memory, a value of a graph, or cut within its chunks."""
    for part in rows.parts:
        if isinstance(part.array, da.Array | np.ndarray) or is_split(part, layout.blocks):
            return None
    arrays, names = tuple(part.array for part in rows.parts), tuple(part.name for part in rows.parts)
    return StoredBlocks(arrays, names, _sizes(rows), layout.blocks, pinned)


def _sizes(rows: Rows) -> tuple[int, int, bool, bool]:
    return len(rows.x), len(rows.y), rows.cells is not None, rows.absorb is not None


def plan_blocks(rows: Rows, layout: Layout) -> tuple[BlockPlan, ...]:
    bounds = layout.blocks
    names = tuple(part.name for part in rows.parts)
    readers = zip(*(_readers(part, bounds) for part in rows.parts), strict=True)
    sizes = _sizes(rows)
    return tuple(
        BlockPlan(int(a), int(b), *sizes, of_parts, names, {}, frozenset())
        for a, b, of_parts in zip(bounds[:-1], bounds[1:], readers, strict=True)
    )


def pinned_plans(
    plans: tuple[BlockPlan, ...], arrays: tuple[Any, ...], pinned: PinnedRows, in_memory: Container[Key]
) -> tuple[BlockPlan, ...]:
    """The same that take what an earlier pass has kept, and keep what is to be.

    arrays : of the parts.  in_memory : keys whose values are no work, which somebody else keeps.
    """
    found = []
    for plan in plans:
        if plan.start >= pinned.stop:
            found.append(plan)
            continue
        takes = pinned.takes(plan.start, plan.stop)
        readers: list[Reader] = []
        for reader, array in zip(plan.readers, arrays, strict=True):
            held = pinned.find(array, plan.start, plan.stop)
            theirs = isinstance(array, np.ndarray) or (
                isinstance(reader, Chunks) and any(key in in_memory for key, _, _ in reader.pieces)
            )
            if held is not None:
                readers.append(Held(held))
            elif takes and not theirs and not isinstance(reader, Held):
                readers.append(replace(reader, pin=Pin(pinned, array, plan.start)))
            else:
                readers.append(reader)
        found.append(replace(plan, readers=tuple(readers)))
    return tuple(found)


def _readers(part: Part, bounds: np.ndarray) -> list[Stored] | list[Chunks]:
    spans = list(pairwise(bounds.tolist()))
    if isinstance(part.array, da.Array):
        return _pieces(part.array.name, (0,) * (part.array.ndim - 1), edges_of(part), bounds)
    if is_split(part, bounds):
        return _pieces(chunk_name(part), (), edges_of(part), bounds)
    if isinstance(part.array, np.ndarray):  # a view each, so that a task is sent its own rows only
        return [Stored(part.array[a:b], 0, b - a) for a, b in spans]
    return [Stored(part.array, a, b) for a, b in spans]


def _pieces(name: str, rest: tuple[int, ...], edges: np.ndarray, bounds: np.ndarray) -> list[Chunks]:
    """Of each block the chunks that it lies in; edges : (C + 1,) of the chunks, of which none is empty."""
    first = (np.searchsorted(edges, bounds[:-1], side="right") - 1).tolist()
    stop = np.searchsorted(edges, bounds[1:], side="left").tolist()
    ends, found = edges.tolist(), []
    for i, (start, end) in enumerate(pairwise(bounds.tolist())):
        found.append(
            Chunks(
                tuple(
                    ((name, c, *rest), max(start, ends[c]) - ends[c], min(end, ends[c + 1]) - ends[c])
                    for c in range(first[i], stop[i])
                )
            )
        )
    return found


def is_split(part: Part, bounds: np.ndarray) -> bool:
    return part.row_chunks is not None and not np.isin(bounds, edges_of(part)).all()


def edges_of(part: Part) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.array(part.row_chunks))])


def chunk_name(part: Part) -> str:
    return f"lrgls-chunk-{id(part)}"


# ---------------------------------------------------------------------------------------------- inside a task


def read_ahead(plans: tuple[BlockPlan, ...], values: dict[Key, Any]) -> Iterator[tuple[Block, list[np.ndarray]]]:
    """Each block in turn, the next one being read meanwhile where reading takes any time."""
    if len(plans) == 1 or all(_is_here(reader) for plan in plans for reader in plan.readers):
        for plan in plans:
            yield _read(plan, values)
        return
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(_read, plans[0], values)
        for plan in plans[1:]:
            block = ahead.result()
            ahead = pool.submit(_read, plan, values)
            yield block
            del block
        yield ahead.result()


def _is_here(reader: Reader) -> bool:
    """Whether reading takes no time."""
    return isinstance(reader, Held) or (isinstance(reader, Stored) and isinstance(reader.array, np.ndarray))


def _read(plan: BlockPlan, values: dict[Key, Any]) -> tuple[Block, list[np.ndarray]]:
    """The block and the arrays it is made of."""
    computed = {key: values[key] for key in plan.shared}
    if plan.graph:
        wanted = [key for key in dict.fromkeys(plan.keys) if key in plan.graph]
        try:
            results = patiently(partial(dask.get, {**plan.graph, **computed}, wanted))
        except Exception as error:
            raise _unreadable(plan, " and ".join(dict.fromkeys(plan.names)), error) from error
        computed.update(zip(wanted, results, strict=True))
    arrays = []
    for reader, name in zip(plan.readers, plan.names, strict=True):
        try:
            arrays.append(patiently(partial(_read_part, reader, computed)))
        except Exception as error:
            raise _unreadable(plan, name, error) from error
    y_stop = plan.n_x + plan.n_y
    x, y, rest = tuple(arrays[: plan.n_x]), tuple(arrays[plan.n_x : y_stop]), tuple(arrays[y_stop:])
    if plan.by_cell:
        return Block(plan.start, x, y, None, rest), arrays
    codes, rest = (rest[-1], rest[:-1]) if plan.absorbs else (None, rest)
    return Block(plan.start, x, y, rest[0] if rest else None, codes=codes), arrays


def read_stored(stored: Box) -> np.ndarray:
    return patiently(lambda: np.asarray(stored.value.array[stored.value.start : stored.value.stop]))


def _read_part(reader: Reader, values: dict[Key, Any]) -> np.ndarray:
    if isinstance(reader, Held):
        return _joined(reader.pieces)
    if isinstance(reader, Chunks):
        array = _joined([np.asarray(values[key])[first:last] for key, first, last in reader.pieces])
        return array if reader.pin is None else reader.pin.keep(array)
    if not hasattr(reader.array, "read_into"):
        array = np.asarray(reader.array[reader.start : reader.stop])
        return array if reader.pin is None else reader.pin.keep(alone(array))
    shape, dtype = (reader.stop - reader.start, *reader.array.shape[1:]), reader.array.dtype
    array = spare_arrays.take(shape, dtype) if reader.pin is None else np.empty(shape, dtype)
    reader.array.read_into(array, reader.start)
    return array if reader.pin is None else reader.pin.keep(array)


def _joined(pieces: Sequence[np.ndarray]) -> np.ndarray:
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _unreadable(plan: BlockPlan, name: str, error: Exception) -> UnreadableRows:
    return UnreadableRows(name, plan.start, plan.stop, reason_of(error))
