"""Writing format 1: block by block, each stored chunk of the source read once, a few blocks in memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import zarr
from zarr.abc.store import Store
from zarr.errors import ZarrUserWarning

from lrgls_dask.checks import shown
from lrgls_dask.data.blockwriter import RowArray, Target, common_dtype, fill_rows, row_arrays, stops_of_blocks
from lrgls_dask.data.framefit import write_formulas
from lrgls_dask.data.labelled import LabelledRows
from lrgls_dask.data.labels import STORED_NAMES
from lrgls_dask.data.places import Location, local_path, location_of
from lrgls_dask.data.seal import PACKED, WRITTEN, mark_written, seal_beside, seal_of, with_checksum
from lrgls_dask.data.storage import new_store, open_group
from lrgls_dask.data.store import FORMAT, label_index, read_system, write_grid
from lrgls_dask.data.storedlabels import StoredLabels, encode_labels
from lrgls_dask.data.storeplan import plan_store
from lrgls_dask.errors import without_secrets
from lrgls_dask.rows.progress import Progress
from lrgls_dask.rows.rows import Part

__all__ = ["ASCENDING", "consolidate", "rewrites", "write_system"]

_LABEL_CHUNK = 1 << 20
_LEAST_LABEL_CHUNK = 1 << 14  # of labels of rows, which a store that was begun with few rows may get many more of
ASCENDING = "lrgls_ascending"  # of the labels of rows: appending to those that ascend need not read them


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
    memory_limit: int | str | None = None,
    progress: bool | Callable[[str, int, int], object] = False,
) -> None:
    """Write format 1; the work behind `System.to_zarr`.

    beside : further arrays (N, K), written under their names along the dims of Y.
    apart_from : where the rows are read from, see `new_store`.
    """
    plan = plan_store(system, path, row_chunk=row_chunk, memory_limit=memory_limit)
    plan.check(path, compressed=compressors is not None)
    _check_names(system)
    labels = _small_labels(system)  # before anything is created: labels that cannot be stored fail here
    options: dict[str, Any] = {"overwrite": overwrite, "storage_options": storage_options}
    with new_store(path, apart_from=apart_from, **options) as store:
        group = zarr.open_group(store, mode="w", zarr_format=3, attributes={"lrgls_incomplete": True})
        for name, (values, dim, attributes) in labels.items():
            least = _LEAST_LABEL_CHUNK if dim == str(system.dims[0]) else 1
            _write_small(group, name, values, dim, attributes, least)
        with Progress(progress).watch("write", plan.bytes_read) as topic:
            names = _write_rows(group, system, plan.row_chunk, compressors, beside, topic)
        write_grid(group, system.design)
        del group.attrs["lrgls_incomplete"]
        group.attrs["lrgls_format"] = FORMAT
        write_formulas(group, system.formulas)
        # for xarray, which tells coordinates from variables by this list
        if system.design.equation_coords:
            group.attrs["coordinates"] = " ".join(str(name) for name in system.design.equation_coords)
        _seal_labels(group, system, labels)
        consolidate(group, path, [*labels, *names])


def _seal_labels(group: zarr.Group, system: LabelledRows, labels: Iterable[str]) -> None:
    """Seal what says which equations and regressors there are: what appending leaves as it is, and xarray."""
    of_rows = {str(system.dims[0]), "groups"}
    named = [name for name in group.attrs if name != "coordinates"]
    sealed = seal_of(group, named=named, members=[name for name in labels if name not in of_rows])
    y = group["Y"]
    assert isinstance(y, zarr.Array)
    seal_beside(y, sealed)


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
        ascends = {ASCENDING: True} if name == obs_dim and index.is_monotonic_increasing else {}
        written[name] = values, dim, attributes | ascends
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


def _write_small(
    group: zarr.Group, name: str, values: np.ndarray, dim: str, attributes: dict[str, Any], least: int
) -> None:
    dtype = str if values.dtype.kind in "OU" else values.dtype
    chunk = max(least, min(len(values), _LABEL_CHUNK))
    options: dict[str, Any] = {"dimension_names": (dim,), "attributes": attributes, "compressors": PACKED}
    array = _create(group, name, values.shape, (chunk,), dtype, **options)
    for start in range(0, len(values), max(1, chunk)):
        array[start : start + chunk] = values[start : start + chunk]


def _write_rows(
    group: zarr.Group, system: LabelledRows, chunk: int, compressors: Any, beside: tuple[Part, ...], topic: str | None
) -> list[str]:
    """The names of the arrays."""
    obs_dim, equation_dim = system.dims
    rows = system.rows
    kinds = [RowArray(part.name, (part,), (obs_dim, equation_dim)) for part in beside]
    if isinstance(system.groups, Part):
        kinds.append(RowArray("groups", (system.groups,), (obs_dim,)))
    targets: list[Target] = []
    writing = uuid4().hex
    for kind in (*row_arrays(rows, system.dims), *kinds):
        width = () if len(kind.dims) == 1 else (kind.n_columns,)
        dtype = common_dtype(kind.parts) if np.dtype(kind.parts[0].array.dtype).kind in "iufb" else str
        names = tuple(str(dim) for dim in kind.dims)
        shape, chunks = (rows.n_obs, *width), (chunk, *width)
        options: dict[str, Any] = {"dimension_names": names, "compressors": with_checksum(compressors)}
        options["attributes"] = {WRITTEN: writing}
        target = _create(group, kind.name, shape, chunks, dtype, **options)
        mark_written(target)
        if kind.name == "groups":  # which may be kept in coded form
            target.attrs.update(dict(getattr(kind.parts[0].array, "attrs", {})))
        targets.append((target, kind.parts))
    fill_rows(targets, stops_of_blocks(0, rows.n_obs, chunk), topic=topic)
    return [target.basename for target, _ in targets]


def consolidate(group: zarr.Group, path: Any, names: Sequence[str]) -> None:
    """One metadata document for all arrays of a group: plain `xr.open_zarr` then opens the store without a warning.

    path : of the store, for messages.  names : of arrays that are there, besides those that a list of them names.
    Zarr leaves out what it could not find just then, so it is asked once more. Raises OSError where one is still not
    there.
    """
    at, lost = group.store_path, [*names]
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ZarrUserWarning)
            zarr.consolidate_metadata(at.store, path=at.path or None)
            listed = zarr.open_group(at, mode="r", use_consolidated=False).keys()
            there = set(zarr.open_group(at, mode="r").keys())
            lost = [name for name in dict.fromkeys([*names, *listed]) if name not in there]
        if not lost:
            return
    raise OSError(
        f"{without_secrets(path)}: {shown(lost)} was written and is not there. Check the store, and write it again."
    )
