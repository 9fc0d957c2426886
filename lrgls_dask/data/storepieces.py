"""A system written piece by piece beside the place where it will be, so that one who is killed goes on where it was."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array as da
import fsspec
import numpy as np
import pandas as pd
import zarr

from lrgls_dask.data.labelled import LabelledRows
from lrgls_dask.data.places import local_path
from lrgls_dask.data.sources import row_chunks
from lrgls_dask.data.storage import is_store_at, put_in_place, refuse, remove_store
from lrgls_dask.data.store import read_system
from lrgls_dask.data.storeappend import append_system, clear_unfinished
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
    """Write format 1 to a path or URL; what a killed client had written of the same is gone on with.

    made_of : tells what is written from all else.  The store appears at `path` when it is complete: a local one by
    being moved there, in an object store by being copied, and what is not copied to its end does not open.
    Raises FileExistsError where something is at a URL, unless it is a zarr store and overwrite is True.
    """
    plan.check(path, compressed=compressors is not None)
    beside, done = _beside(path), rows_written(path, made_of)
    if local_path(path) is None:
        _check_url(path, made_of, overwrite)
    if not done and _exists(beside):
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
    if local_path(path) is None:
        _copy(beside, path, made_of)
    else:
        _mark(beside, None)
        for folder in (Path(beside), *filter(Path.is_dir, Path(beside).iterdir())):
            clear_unfinished(folder)  # of a last piece that was whole but for its metadata
        put_in_place(Path(beside), Path(os.path.abspath(path)), overwrite)


def rows_written(path: str, made_of: str) -> int:
    """How many rows a killed client has written of this; 0 where it has none, or where it wrote another."""
    beside = _beside(path)
    try:
        if _made_there(beside) != made_of:
            return 0
        _mark(beside, made_of)
        return read_system(beside).n_obs
    except (ValueError, OSError):
        return 0


def _beside(path: str) -> str:
    if local_path(path) is None:
        return f"{path.rstrip('/')}.importing"
    target = Path(os.path.abspath(path))
    return str(target.with_name(f".{target.name}.importing"))


def _exists(path: str) -> bool:
    filesystem, root = fsspec.core.url_to_fs(path)
    filesystem.invalidate_cache()
    return bool(filesystem.exists(root))


def _made_there(path: str) -> str | None:
    """What a store that was written in pieces is made of; None of another, and where there is none."""
    found = zarr.open_group(path, mode="r").attrs.get(_MADE_OF) if _exists(path) else None
    return None if found is None else str(found)


def _mark(path: str, made_of: str | None, *, whole: bool = True) -> None:
    """Say in a store what it is made of, and whether it may be opened."""
    group = zarr.open_group(path, mode="r+")
    said = {_MADE_OF: made_of, "lrgls_incomplete": None if whole else True}
    kept = {name: value for name, value in group.attrs.items() if name not in said}
    wanted = kept | {name: value for name, value in said.items() if value is not None}
    if wanted != dict(group.attrs):
        names = list(group.keys())
        group.attrs.put(wanted)
        consolidate(group, path, names)


def _check_url(url: str, made_of: str, overwrite: bool) -> None:
    """Raise FileExistsError where a URL holds what may not be replaced; a copy of ours that was not ended may be."""
    if _exists(url) and not (is_store_at(url) and _made_there(url) == made_of):
        refuse(url, is_store_at(url), overwrite)


def _copy(beside: str, url: str, made_of: str) -> None:
    """Put a store in an object store to where it is to be, as a copy that opens when all of it is there."""
    _mark(beside, made_of, whole=False)
    filesystem, source = fsspec.core.url_to_fs(beside)
    target = fsspec.core.url_to_fs(url)[1]
    if _exists(url):
        remove_store(url)
    filesystem.invalidate_cache()
    filesystem.cp_file(f"{source}/zarr.json", f"{target}/zarr.json")  # first what says whose it is, and not whole
    files = filesystem.find(source)
    filesystem.copy(files, [f"{target}{each.removeprefix(source)}" for each in files])
    _mark(url, None)
    remove_store(beside)


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
        groups = np.asarray(system.own_groups)
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
