"""What it takes to write a store, priced before any read: chunks, bytes, memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
from dask.utils import format_bytes

from lrgls_dask.data.blockwriter import row_arrays
from lrgls_dask.data.labelled import LabelledRows
from lrgls_dask.data.sources import BLOCK_BYTES
from lrgls_dask.data.storage import room_for
from lrgls_dask.errors import without_secrets
from lrgls_dask.rows.behind import makes_frames
from lrgls_dask.rows.memory import SLACK, this_process
from lrgls_dask.rows.rows import Part, Rows

__all__ = ["StorePlan", "default_row_chunk", "plan_store"]

STORED_CHUNKS_IN_FLIGHT = 4  # encoded, decoded, what is left of the one before, and both joined
COMPUTED_CHUNKS_IN_FLIGHT = 10  # those, and what a task makes of what it reads: text, a frame, its numbers
COMPUTED_BASE = 2**26  # what allocators keep of what tasks are done with
FRAMES_BASE = 2**28  # the same where tasks make frames of pandas, text among them
BLOCKS_IN_FLIGHT = 5  # one that is written, as it is joined and as it is encoded, and the next one that is read ahead
OBJECT_BYTES = 100  # of a label that is text


@dataclass(frozen=True)
class StorePlan:
    """The priced plan of a store; ``print(plan)`` shows it.

    row_chunk : rows of a chunk of X and of Y, which take chunk_bytes together.  n_chunks : of rows.
    bytes_read, stored_bytes : of all rows, before compression.  work_bytes : held at most besides what the process
    holds.  peak : both.  memory_limit : of this process.  room : free bytes where the store goes, None where nobody
    knows.
    """

    n_obs: int
    n_equations: int
    n_regressors: int
    row_chunk: int
    chunk_bytes: int
    bytes_read: int
    stored_bytes: int
    work_bytes: int
    peak: int
    memory_limit: int
    room: int | None = None

    @property
    def n_chunks(self) -> int:
        return -(-self.n_obs // self.row_chunk)

    def check(self, path: Any, *, compressed: bool) -> None:
        """Raise MemoryError where it does not fit in memory, OSError where it does not on the disk."""
        if self.peak > self.memory_limit:
            raise MemoryError(
                f"writing {without_secrets(path)} needs {format_bytes(self.peak)} in this process; the limit is "
                f"{format_bytes(self.memory_limit)}. Give the rows smaller chunks, with .rechunk(...) or .chunk(...), "
                "a smaller row_chunk, or more memory."
            )
        if self.room is not None and self.stored_bytes > self.room and not compressed:
            raise OSError(
                f"{without_secrets(path)} needs {format_bytes(self.stored_bytes)} of disk and "
                f"{format_bytes(self.room)} are free. "
                "Choose another place, or pass compressors=."
            )

    def __str__(self) -> str:
        room = "" if self.room is None else f"; {format_bytes(self.room)} free"
        return "\n".join(
            [
                f"Plan: a store of {self.n_obs:,} rows; {self.n_equations:,} equations, {self.n_regressors:,} distinct "
                "regressors",
                f"  chunks  {self.n_chunks:,} of {self.row_chunk:,} rows, {format_bytes(self.chunk_bytes)} of X and Y",
                f"  disk    {format_bytes(self.stored_bytes)} before compression{room}",
                "  reads   every stored chunk once",
                f"  memory  peak {format_bytes(self.peak)}; limit {format_bytes(self.memory_limit)}",
            ]
        )


def plan_store(
    system: LabelledRows, path: Any = None, *, row_chunk: int | None = None, memory_limit: int | str | None = None
) -> StorePlan:
    """The plan of writing a system, to `path` if that is known."""
    if row_chunk is not None and (isinstance(row_chunk, bool) or not isinstance(row_chunk, int) or row_chunk < 1):
        raise ValueError(
            f"row_chunk must be a positive whole number of rows; found {row_chunk!r}. Leave it out for 16 MB."
        )
    rows = system.rows
    chunk = min(row_chunk or default_row_chunk(rows), rows.n_obs)
    width = sum(array.row_bytes for array in row_arrays(rows, system.dims))
    read = sum(_in_flight(part) * _stored_rows(part, chunk) * part.row_bytes for part in rows.parts)
    held = read + BLOCKS_IN_FLIGHT * chunk * width + 2 * _label_bytes(system)
    computed = [part.array for part in rows.parts if isinstance(part.array, da.Array)]
    if computed:
        whole = COMPUTED_CHUNKS_IN_FLIGHT * rows.n_obs * rows.row_bytes  # no more is kept than there was
        held += COMPUTED_BASE + (min(FRAMES_BASE - COMPUTED_BASE, whole) if makes_frames(computed) else 0)
    here, work = this_process(memory_limit), int(SLACK * held)
    return StorePlan(
        n_obs=rows.n_obs,
        n_equations=rows.design.n_equations,
        n_regressors=rows.design.given.n_regressors,
        row_chunk=chunk,
        chunk_bytes=chunk * width,
        bytes_read=rows.n_obs * rows.row_bytes,
        stored_bytes=rows.n_obs * width,
        work_bytes=work,
        peak=here.base + work,
        memory_limit=here.limit,
        room=None if path is None else room_for(path),
    )


def default_row_chunk(rows: Rows) -> int:
    """Rows per chunk: about 16 MB of X and Y together, in step with the widest stored array where that can be."""
    target = max(1, BLOCK_BYTES // sum(array.row_bytes for array in row_arrays(rows, ("", ""))))
    chunked = [part for part in rows.parts if part.row_chunks is not None]
    stored = max(chunked, key=lambda part: part.row_bytes).row_chunks[0] if chunked else None  # type: ignore[index]
    if stored is None or stored > 2 * target:
        return min(target, rows.n_obs)
    return min(max(stored, target // stored * stored), rows.n_obs)


def _in_flight(part: Part) -> int:
    return COMPUTED_CHUNKS_IN_FLIGHT if isinstance(part.array, da.Array) else STORED_CHUNKS_IN_FLIGHT


def _stored_rows(part: Part, chunk: int) -> int:
    """Rows that are read together; none of what is in memory."""
    if part.row_chunks is None:
        return 0 if isinstance(part.array, np.ndarray) else chunk
    return max(part.row_chunks)


def _label_bytes(system: LabelledRows) -> int:
    labels: Sequence[Any] = [each for each in (system.obs_labels, system.groups) if each is not None]
    found = 0
    for each in labels:
        dtype = each.dtype if isinstance(each, pd.Index | np.ndarray) else each.array.dtype
        numeric = isinstance(dtype, np.dtype) and dtype.kind in "biufmM"
        found += system.n_obs * (dtype.itemsize if numeric else OBJECT_BYTES)
    return found
