"""A system written piece by piece beside the place where it will be, so that one who is killed goes on where it was."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import zarr

from lrgls_dask.data.labelled import LabelledRows
from lrgls_dask.data.sources import row_chunks
from lrgls_dask.data.storage import put_in_place, remove_store
from lrgls_dask.data.store import read_system
from lrgls_dask.data.storeappend import append_system
from lrgls_dask.data.storeplan import StorePlan
from lrgls_dask.data.storewriter import consolidate, write_system
from lrgls_dask.rows.progress import Progress, report
from lrgls_dask.rows.rows import Part

__all__ = ["rows_between", "rows_written", "write_in_pieces"]

PIECE_BYTES = 2**28  # written between two states that a killed client goes on from
_MADE_OF = "lrgls_made_of"


def write_in_pieces(
    system: LabelledRows,
    path: str,
    made_of: str,
    plan: StorePlan,
    *,
    overwrite: bool = False,
    compressors: Any = None,
    progress: bool | Callable[[str, int, int], object] = False,
) -> None:
    """Write format 1 to a local path; what a killed client had written of the same is gone on with.

    made_of : tells what is written from all else.  The store appears at `path` when it is complete.
    """
    plan.check(path, compressed=compressors is not None)
    beside, done = _beside(path), rows_written(path, made_of)
    if not done and os.path.lexists(beside):
        remove_store(beside)
    step = plan.row_chunk * max(1, PIECE_BYTES // plan.chunk_bytes)
    row_bytes = system.rows.row_bytes
    with Progress(progress).watch("import", (system.n_obs - done) * row_bytes) as topic:
        for start in range(done, system.n_obs, step):
            piece = rows_between(system, start, min(start + step, system.n_obs))
            if start == 0:
                write_system(piece, beside, row_chunk=plan.row_chunk, compressors=compressors, progress=_Rest(topic))
                _mark(beside, made_of)
            else:
                append_system(piece, beside, progress=_Rest(topic))
    _mark(beside, None)
    put_in_place(beside, Path(os.path.abspath(path)), overwrite)


def rows_written(path: str, made_of: str) -> int:
    """How many rows a killed client has written of this; 0 where it has none, or where it wrote another."""
    beside = _beside(path)
    if not beside.exists():
        return 0
    try:
        if zarr.open_group(beside, mode="r").attrs.get(_MADE_OF) != made_of:
            return 0
        return read_system(beside).n_obs
    except (ValueError, OSError):
        return 0


def _beside(path: str) -> Path:
    target = Path(os.path.abspath(path))
    return target.with_name(f".{target.name}.importing")


def _mark(path: Path, made_of: str | None) -> None:
    group = zarr.open_group(path, mode="r+")
    if made_of is None:
        group.attrs.pop(_MADE_OF, None)
    else:
        group.attrs[_MADE_OF] = made_of
    consolidate(group.store)


class _Rest:
    """Progress of a piece, told as that of the whole."""

    def __init__(self, topic: str | None) -> None:
        self.topic, self.done = topic, 0

    def __call__(self, label: str, done: int, total: int) -> None:
        report(self.topic, done - self.done)
        self.done = done


def rows_between(system: LabelledRows, start: int, stop: int) -> LabelledRows:
    """The rows start .. stop - 1, as unread as all of them are."""
    if (start, stop) == (0, system.n_obs):
        return system

    def cut(part: Part) -> Part:
        array = part.array
        if not isinstance(array, np.ndarray | da.Array):
            array = da.from_array(array, chunks=(part.row_chunks or "auto", *array.shape[1:]))
        return Part(part.name, array[start:stop], row_chunks(array[start:stop]))

    rows, groups = system.rows, system.groups
    weights = None if rows.weights is None else cut(rows.weights)
    cells = None if rows.cells is None else replace(rows.cells, parts=tuple(map(cut, rows.cells.parts)))
    labels: pd.Index | None = None if system.obs is None else system.obs[start:stop]
    if isinstance(groups, Part):
        groups = np.asarray(system.groups_of_rows())
    some = replace(
        rows,
        x=tuple(map(cut, rows.x)),
        y=tuple(map(cut, rows.y)),
        weights=weights,
        cells=cells,
        n_obs=stop - start,
        label_of=None,
    )
    return replace(system, rows=some, obs_labels=labels, groups=None if groups is None else groups[start:stop])
