"""Writing format 1: block by block, each stored chunk of the source read once, a few blocks in memory."""

from __future__ import annotations

import warnings
from bisect import bisect_left
from collections.abc import Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import zarr
from zarr.abc.store import Store
from zarr.errors import ZarrUserWarning

from lrgls_dask.data.framefit import write_formulas
from lrgls_dask.data.labelled import LabelledRows
from lrgls_dask.data.labels import STORED_NAMES
from lrgls_dask.data.places import Location, local_path, location_of
from lrgls_dask.data.sources import BLOCK_BYTES
from lrgls_dask.data.storage import new_store, open_group
from lrgls_dask.data.store import FORMAT, label_index, read_system, write_grid
from lrgls_dask.data.storedlabels import StoredLabels, encode_labels
from lrgls_dask.rows.rows import CellWeights, Part, Rows

__all__ = ["default_row_chunk", "rewrites", "write_system"]

_LABEL_CHUNK = 1 << 20


def write_system(
    system: LabelledRows,
    path: Any,
    *,
    overwrite: bool = False,
    row_chunk: int | None = None,
    storage_options: dict[str, Any] | None = None,
    compressors: Any = None,
    beside: tuple[Part, ...] = (),
    apart_from: Iterable[Location] = (),
) -> None:
    """Write format 1; the work behind `System.to_zarr`.

    beside : further arrays (N, K), written under their names along the dims of Y.
    apart_from : where the rows are read from, see `new_store`.
    """
    if row_chunk is not None and (isinstance(row_chunk, bool) or not isinstance(row_chunk, int) or row_chunk < 1):
        raise ValueError(
            f"row_chunk must be a positive whole number of rows; found {row_chunk!r}. Leave it out for 16 MB."
        )
    _check_names(system)
    labels = _small_labels(system)  # before anything is created: labels that cannot be stored fail here
    rows = min(row_chunk or default_row_chunk(system.rows), system.n_obs)
    options: dict[str, Any] = {"overwrite": overwrite, "storage_options": storage_options}
    with new_store(path, apart_from=apart_from, **options) as store:
        group = zarr.open_group(store, mode="w", zarr_format=3, attributes={"lrgls_incomplete": True})
        for name, (values, dim, attributes) in labels.items():
            _write_small(group, name, values, dim, attributes)
        _write_rows(group, system, rows, compressors, beside)
        write_grid(group, system.design)
        del group.attrs["lrgls_incomplete"]
        group.attrs["lrgls_format"] = FORMAT
        write_formulas(group, system.formulas)
        # for xarray, which tells coordinates from variables by this list
        if system.design.equation_coords:
            group.attrs["coordinates"] = " ".join(str(name) for name in system.design.equation_coords)
        _consolidate(store)


def rewrites(system: LabelledRows, path: Any, storage_options: dict[str, Any] | None = None) -> bool:
    """Whether the store at `path` holds nothing but this system, as it was opened from it.

    Then a complete copy that takes its place loses nothing. A store object, which is cleared first, has no such place.
    """
    target = None if isinstance(path, Store) and local_path(path) is None else location_of(path, storage_options)
    if target is None or target not in system.read_from or not all(target.holds(each) for each in system.read_from):
        return False
    if any(not hasattr(part.array, "store_path") for part in system.rows.parts):
        return False
    try:
        there = read_system(path, storage_options=storage_options)
        opened = open_group(path, storage_options).store_path
        group = zarr.open_group(opened, mode="r", use_consolidated=False)  # with what was added by others
    except (ValueError, TypeError, OSError):
        return False
    labels = {str(dim) for dim in system.dims} | {str(name) for name in system.design.equation_coords}
    stored = all(isinstance(each, StoredLabels | None) for each in (system.obs_labels, there.obs_labels))
    return (
        stored
        and (system.obs_labels is None) == (there.obs_labels is None)
        and system.design.same_as(there.design)
        and set(group.keys()) <= STORED_NAMES | labels
    )


def default_row_chunk(rows: Rows) -> int:
    """Rows per chunk: about 16 MB of the wider of X and Y, in step with the stored chunks of X where that can be."""
    widest = max(_row_bytes(rows.x), _row_bytes(rows.y))
    target = max(1, BLOCK_BYTES // widest)
    stored = next((part.row_chunks[0] for part in rows.x if part.row_chunks is not None), None)
    if stored is None or stored > 2 * target:
        return min(target, rows.n_obs)
    return min(max(stored, target // stored * stored), rows.n_obs)


def _row_bytes(parts: Sequence[Part]) -> int:
    return _dtype(parts).itemsize * sum(part.n_columns for part in parts)


def _dtype(parts: Sequence[Part]) -> np.dtype:
    """The smallest dtype that holds all parts, in the byte order of the machine."""
    return np.result_type(*(np.dtype(part.array.dtype) for part in parts)).newbyteorder("=")


def _check_names(system: LabelledRows) -> None:
    for dim in system.dims:
        if dim in STORED_NAMES:
            raise ValueError(f"the dim {dim!r} has a name that the format keeps for itself. Rename it.")
    for name in system.design.equation_coords:
        if str(name) in STORED_NAMES or name in system.dims:
            raise ValueError(f"the coordinate {name!r} has a name that the format keeps for itself. Rename or drop it.")


def _small_labels(system: LabelledRows) -> dict[str, tuple[np.ndarray, str, dict[str, Any]]]:
    """Everything but the rows: name -> (values, dim, attributes)."""
    obs_dim, equation_dim = (str(dim) for dim in system.dims)
    design = system.design.given
    terms = tuple(term for own in design.terms for term in own)
    written: dict[str, tuple[np.ndarray, str, dict[str, Any]]] = {
        "incidence_columns": (np.concatenate(design.columns).astype(np.int64), "coefficient", {}),
        "incidence_start": (design.offsets.astype(np.int64), "incidence_bound", {}),
    }
    indices: list[tuple[str, str, str, pd.Index]] = [
        (equation_dim, equation_dim, "equation labels", label_index(design.equations)),
        ("regressor", "regressor", "regressor labels", label_index(design.regressors)),
        ("term", "coefficient", "regressor names", label_index(terms)),
    ]
    indices += [
        (str(name), equation_dim, f"labels in {name!r}", label_index(labels))
        for name, labels in design.equation_coords.items()
    ]
    if system.obs_labels is not None and system.obs is not None:
        indices.append((obs_dim, obs_dim, f"row labels along {obs_dim!r}", system.obs))
    cells = system.rows.cells
    if cells is not None and cells.constant is not None:
        written["weights"] = cells.constant[cells.weighting], equation_dim, {}
    if isinstance(system.groups, np.ndarray):
        indices.append(("groups", obs_dim, "groups", pd.Index(system.groups, tupleize_cols=False)))
    for name, dim, what, index in indices:
        values, attributes = encode_labels(index, what)
        written[name] = values, dim, attributes
    return written


def _create(
    group: zarr.Group, name: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: Any, **options: Any
) -> Any:
    kind = np.dtype(dtype).kind if dtype is not str else "U"
    return group.create_array(
        name,
        shape=shape,
        chunks=tuple(max(1, length) for length in chunks),
        dtype=dtype,
        # a chunk that gets lost must not read as zeros: as NaN it is refused by the first pass
        fill_value=np.nan if kind == "f" else ("" if dtype is str else 0),
        config={"write_empty_chunks": True},
        **options,
    )


def _write_small(group: zarr.Group, name: str, values: np.ndarray, dim: str, attributes: dict[str, Any]) -> None:
    dtype = str if values.dtype.kind in "OU" else values.dtype
    chunk = min(len(values), _LABEL_CHUNK)
    array = _create(group, name, values.shape, (chunk,), dtype, dimension_names=(dim,), attributes=attributes)
    for start in range(0, len(values), max(1, chunk)):
        array[start : start + chunk] = values[start : start + chunk]


def _write_rows(
    group: zarr.Group, system: LabelledRows, chunk: int, compressors: Any, beside: tuple[Part, ...]
) -> None:
    obs_dim, equation_dim = system.dims
    rows = system.rows
    kinds: list[tuple[str, tuple[Part, ...], tuple[Hashable, ...]]] = [
        ("Y", rows.y, (obs_dim, equation_dim)),
        ("X", rows.x, (obs_dim, "regressor")),
        *((part.name, (part,), (obs_dim, equation_dim)) for part in beside),
    ]
    if rows.weights is not None:
        kinds.append(("weights", (rows.weights,), (obs_dim,)))
    if rows.cells is not None and rows.cells.parts:
        kinds.append(("weights", _by_equation(rows.cells), (obs_dim, equation_dim)))
    if isinstance(system.groups, Part):
        kinds.append(("groups", (system.groups,), (obs_dim,)))
    targets: list[zarr.Array] = []
    parts: list[Part] = []
    spans: list[slice] = []
    for name, of_kind, dims in kinds:
        width = () if len(dims) == 1 else (sum(part.n_columns for part in of_kind),)
        dtype = _dtype(of_kind) if np.dtype(of_kind[0].array.dtype).kind in "iufb" else str
        names = tuple(str(dim) for dim in dims)
        shape, chunks = (rows.n_obs, *width), (chunk, *width)
        target = _create(group, name, shape, chunks, dtype, dimension_names=names, compressors=compressors)
        if name == "groups":  # which may be kept in coded form
            target.attrs.update(dict(getattr(of_kind[0].array, "attrs", {})))
        targets.append(target)
        spans.append(slice(len(parts), len(parts) + len(of_kind)))
        parts.extend(of_kind)
    for start, pieces in _ahead(_blocks(parts, rows.n_obs, chunk)):
        for target, span in zip(targets, spans, strict=True):
            target[start : start + chunk] = _joined(pieces[span], target)


def _by_equation(cells: CellWeights) -> tuple[Part, ...]:
    """Parts with a column of weights for each equation, also where some share one."""
    if len(cells.parts) == 1 or len(set(cells.weighting.tolist())) == len(cells.weighting):
        return cells.parts
    return tuple(cells.parts[i] for i in cells.weighting.tolist())


def _joined(pieces: Sequence[np.ndarray], target: Any) -> np.ndarray:
    """A new array of the pieces side by side: a store may keep what it is given, so it never gets the user's memory."""
    if target.ndim == 1:
        return np.array(pieces[0], dtype=object if target.dtype.kind in "OT" else target.dtype)
    columns = [piece.reshape(len(piece), -1) for piece in pieces]
    joined = np.empty((len(columns[0]), sum(piece.shape[1] for piece in columns)), dtype=target.dtype)
    return np.concatenate(columns, axis=1, out=joined)


def _blocks(parts: Sequence[Part], n_obs: int, chunk: int) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Blocks of `chunk` rows of every part, each stored chunk read once and kept until its last row is used."""
    together: dict[Any, list[int]] = {}
    for i, part in enumerate(parts):
        lazy = isinstance(part.array, da.Array)
        together.setdefault(part.row_chunks if lazy else ("alone", i), []).append(i)
    streams = [(members, _stream([parts[i] for i in members], chunk)) for members in together.values()]
    for start in range(0, n_obs, chunk):
        pieces: list[Any] = [None] * len(parts)
        for members, stream in streams:
            for i, piece in zip(members, next(stream), strict=True):
                pieces[i] = piece
        yield start, pieces


def _stream(parts: Sequence[Part], chunk: int) -> Iterator[list[np.ndarray]]:
    """The rows of parts with equal row chunks, `chunk` at a time; Dask parts in one graph, which shares their work."""
    n_obs = int(parts[0].array.shape[0])
    stored = parts[0].row_chunks
    cuts = [*range(chunk, n_obs, chunk), n_obs] if stored is None else np.cumsum(stored).tolist()
    held: list[list[np.ndarray]] = [[] for _ in parts]
    n_held = read = 0
    for start in range(0, n_obs, chunk):
        wanted = min(chunk, n_obs - start)
        if n_held < wanted:
            stop = cuts[bisect_left(cuts, read + wanted - n_held)]
            for pieces, new in zip(held, _read(parts, read, stop), strict=True):
                pieces.append(new)
            n_held, read = n_held + stop - read, stop
        joined = [pieces[0] if len(pieces) == 1 else np.concatenate(pieces) for pieces in held]
        yield [rows[:wanted] for rows in joined]
        n_held -= wanted
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


def _consolidate(store: Store) -> None:
    """One metadata document for all arrays: plain `xr.open_zarr` then opens the store without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(store)
