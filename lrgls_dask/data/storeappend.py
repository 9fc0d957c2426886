"""Rows appended to a store of format 1: what is there stays as it is until one last write makes all new rows count.

Whoever opens the store learns the lengths of its arrays from the one document that lists them all. New rows go behind
the last one, where nobody looks yet: into the free rows of the last chunk, which is written anew as a whole with its
old rows, and into chunks of their own. Then come the lengths of the single arrays, and the document last. A client that
is killed before leaves the store as it was, with chunks behind its end that the next append writes over.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr

from lrgls_dask.checks import shown
from lrgls_dask.data.blockwriter import Target, fill_rows, row_arrays, stops_of_blocks
from lrgls_dask.data.framefit import check_same_states
from lrgls_dask.data.labelled import LabelledRows
from lrgls_dask.data.places import local_path
from lrgls_dask.data.seal import CHECKED
from lrgls_dask.data.storage import held_alone, open_to_grow
from lrgls_dask.data.store import dims_of, read_system
from lrgls_dask.data.storedlabels import decode_labels, encode_like
from lrgls_dask.data.storeplan import plan_store
from lrgls_dask.data.storewriter import ASCENDING, consolidate
from lrgls_dask.design.design import difference
from lrgls_dask.errors import without_secrets
from lrgls_dask.rows.progress import Progress

__all__ = ["append_system", "clear_unfinished"]

UNFINISHED = re.compile(r"\.[0-9a-f]{32}\.partial$")  # a file that zarr had not done with when its process ended
ANEW = "System.from_zarr(path).to_zarr(another) writes one that can be appended to"


def append_system(
    system: LabelledRows,
    path: Any,
    *,
    storage_options: dict[str, Any] | None = None,
    memory_limit: int | str | None = None,
    progress: bool | Callable[[str, int, int], object] = False,
) -> None:
    """Append the rows of a system to a store; the work behind `System.append_to_zarr`."""
    with held_alone(path):
        folder = local_path(path)
        if folder is not None:
            clear_unfinished(folder)
        group = open_to_grow(path, storage_options)
        there = read_system(path, storage_options=storage_options)
        _check_same(there, system, path)
        stored = _arrays_of_rows(group, there, path)
        if folder is not None:
            _clear_unfinished_chunks(folder, stored, there.n_obs)
        plan = plan_store(system, path, row_chunk=_row_chunk(stored["Y"]), memory_limit=memory_limit)
        plan.check(path, compressed=tuple(stored["Y"].compressors) not in ((), CHECKED))
        small, ascending = _labels_to_append(stored, there, system, path)
        names = list(group.keys())
        if group.metadata.consolidated_metadata is None:
            consolidate(group, path, names)  # at the length it has: what is appended is not to be seen before
        rows = row_arrays(system.rows, there.dims)
        with _grown(stored, there.n_obs, system.n_obs) as grown:
            for name, values in small.items():
                _append_labels(grown[name], values, there.n_obs)
            targets: list[Target] = [(grown[each.name], each.parts) for each in rows]
            stops = stops_of_blocks(there.n_obs, system.n_obs, _row_chunk(stored["Y"]))
            with Progress(progress).watch("append", plan.bytes_read) as topic:
                fill_rows(targets, stops, there.n_obs, _Refusal(system), topic)
            for name, array in stored.items():
                array.resize((there.n_obs + system.n_obs, *array.shape[1:]))
                if name == str(there.dims[0]):
                    array.attrs[ASCENDING] = ascending
        consolidate(group, path, names)  # a failure here may come after all was written: nothing is deleted then


@contextlib.contextmanager
def _grown(stored: dict[str, zarr.Array], n_old: int, n_new: int) -> Iterator[dict[str, zarr.Array]]:
    """The arrays with so many rows more, of which the store does not know; what was written is deleted on failure."""
    grown = {name: _longer(array, n_old + n_new) for name, array in stored.items()}
    try:
        yield grown
    except BaseException:
        for array in grown.values():
            array.resize((n_old, *array.shape[1:]))
        raise


def _longer(array: zarr.Array, n_rows: int) -> zarr.Array:
    metadata = array.metadata.update_shape((n_rows, *array.shape[1:]))
    # chunks that hold nothing but the fill value are written too, as all of a store are
    config: Any = {"order": array.order, "write_empty_chunks": True}
    return zarr.Array(zarr.AsyncArray(metadata=metadata, store_path=array.store_path, config=config))


def _clear_unfinished_chunks(folder: Path, stored: dict[str, zarr.Array], n_old: int) -> None:
    """Of the arrays that grow, where an append writes."""
    for name, array in stored.items():
        chunks, first = folder / name / "c", n_old // _row_chunk(array)
        written = [each for each in chunks.glob("*") if each.name.isdigit() and int(each.name) >= first]
        for place in (folder / name, chunks, *written):
            clear_unfinished(place)


def clear_unfinished(folder: Path) -> None:
    """Delete the files in a folder of this machine that were being written when a process was killed: nobody reads
    them."""
    for file in folder.glob("*.partial"):
        if UNFINISHED.search(file.name):
            file.unlink(missing_ok=True)


def _row_chunk(array: zarr.Array) -> int:
    """Rows that are written together."""
    return int((array.shards or array.chunks)[0])


def _arrays_of_rows(group: zarr.Group, there: LabelledRows, path: Any) -> dict[str, zarr.Array]:
    """All that grow. Raises ValueError for a store with others, or in another form than `to_zarr` gives it."""
    obs = str(there.dims[0])
    named = {name: dims_of(array, *map(str, range(array.ndim))) for name, array in group.arrays()}
    known = {"Y", "X", "weights", "groups", obs}
    others = [name for name, dims in named.items() if obs in map(str, dims) and name not in known]
    if others:
        raise ValueError(
            f"{without_secrets(path)} has arrays {shown(others)} along {obs!r}, of which the rows have none. {ANEW}."
        )
    found: dict[str, zarr.Array] = {name: array for name, array in group.arrays() if name in known}
    if there.obs_labels is None:
        found.pop(obs, None)
    if "weights" in found and there.rows.weighted == "equations":
        del found["weights"]
    blocks = [array for name, array in found.items() if name in ("X", "Y", "weights")]
    if (
        "X" not in found
        or len({_row_chunk(array) for array in blocks}) > 1
        or any(array.ndim == 2 and (array.shards or array.chunks)[1] < array.shape[1] for array in blocks)
    ):
        raise ValueError(
            f"{without_secrets(path)} must have one X and one Y with the same chunks of whole rows. {ANEW}."
        )
    return found


def _check_same(there: LabelledRows, system: LabelledRows, path: Any) -> None:
    """Raise ValueError where the rows are not of the kind that the store holds."""
    mine, theirs = system.design.given, there.design.given
    if not theirs.same_as(mine):
        raise ValueError(
            f"{without_secrets(path)} and the rows to append differ in equations, regressors or designs: the rows' "
            f"system {difference(theirs, mine)}. Give them the same ones, in the same order."
        )
    check_same_states(there.formulas, system.formulas)
    for name in theirs.equation_coords.keys() & mine.equation_coords.keys():
        had, found = theirs.equation_coords[name], mine.equation_coords[name]
        if had != found:
            j = next(j for j, (a, b) in enumerate(zip(had, found, strict=True)) if a != b)
            raise ValueError(
                f"{without_secrets(path)} has {name!r} {had[j]!r} for equation {mine.equations[j]!r}, where the rows "
                f"have {found[j]!r}. Give them the same, or drop {name!r} from them."
            )
    if there.rows.weighted != system.rows.weighted:
        of, given = (each.rows.weighted or "nothing" for each in (there, system))
        remedy = "Leave the weights out" if of == "nothing" else f"Give the rows weights of {of}"
        raise ValueError(
            f"{without_secrets(path)} has weights of {of}, but the rows to append have weights of {given}. {remedy}."
        )
    if there.rows.weighted == "equations":
        _check_same_constants(there, system, path)


def _check_same_constants(there: LabelledRows, system: LabelledRows, path: Any) -> None:
    had, found = (each.rows.cells.constant[each.rows.cells.weighting] for each in (there, system))  # type: ignore
    if (had != found).any():
        j = int((had != found).argmax())
        raise ValueError(
            f"{without_secrets(path)} has the weight {had[j]} for equation {system.equations[j]!r} in all rows, but "
            f"the rows to append have {found[j]}. Give them the same."
        )


# ---------------------------------------------------------------------------------------------- labels


def _labels_to_append(
    stored: dict[str, zarr.Array], there: LabelledRows, system: LabelledRows, path: Any
) -> tuple[dict[str, np.ndarray], bool]:
    """Labels and groups of the new rows as the store holds them, and whether the labels of all rows ascend."""
    obs = str(there.dims[0])
    groups = system.own_groups
    for what, had, found in (
        (f"row labels along {obs!r}", there.obs_labels is not None, system.obs_labels is not None),
        ("groups", there.groups is not None, groups is not None),
    ):
        if had and not found:
            raise ValueError(
                f"{without_secrets(path)} has {what}, but the rows to append have none. Give every row one."
            )
        if found and not had:
            remedy = "Leave them out" if what == "groups" else "Leave them out: pass values, with .to_numpy()"
            raise ValueError(f"{without_secrets(path)} has no {what}, but the rows to append have some. {remedy}.")
    values: dict[str, np.ndarray] = {}
    ascending = False
    if system.obs is not None:
        values[obs] = encode_like(system.obs, stored[obs], f"row labels along {obs!r}")
        ascending = _check_new(stored[obs], there, system.obs, path)
    if groups is not None:
        index = pd.Index(groups, tupleize_cols=False).infer_objects()
        values["groups"] = encode_like(index, stored["groups"], "groups")
    return values, ascending


def _check_new(stored: zarr.Array, there: LabelledRows, labels: pd.Index, path: Any) -> bool:
    """Whether all labels ascend. Raises ValueError where one is there twice.

    Reads the last one of a store that ascends and is gone on with; all of another.
    """
    if stored.attrs.get(ASCENDING) and labels.is_monotonic_increasing and labels.is_unique:
        last = decode_labels(np.asarray(stored[-1:]), dict(stored.attrs))
        with contextlib.suppress(TypeError):
            if bool((labels[:1] > last)[0]):
                return True
    known = there.obs
    assert known is not None
    both = known.append(labels)
    if both.is_unique:
        return bool(both.is_monotonic_increasing)
    again = both.duplicated()
    row = int(again.argmax())
    label: Hashable = both[[row]].tolist()[0]
    number = isinstance(label, int | float) and not isinstance(label, bool)
    raise ValueError(
        f"row labels along {there.dims[0]!r} must be unique; {label!r} of row {row - len(known)} to append is there "
        f"already, {int(again.sum())} such rows in all. Drop the rows that {without_secrets(path)} has"
        f"{f', or number the new ones on from {len(known)}' if number else ''}."
    )


def _append_labels(array: zarr.Array, values: np.ndarray, first: int) -> None:
    start = 0
    for stop in stops_of_blocks(first, len(values), _row_chunk(array)):
        array[first + start : first + stop] = values[start:stop]
        start = stop


@dataclass(frozen=True, eq=False)
class _Refusal:
    """Refuses values that the dtype of the store does not hold, by the names of their columns."""

    system: LabelledRows

    def __call__(self, array: zarr.Array, values: np.ndarray, first_row: int) -> None:
        with np.errstate(invalid="ignore", over="ignore"):
            kept = values.astype(array.dtype).astype(values.dtype)
        differs = (kept != values) & ~(np.isnan(kept) & np.isnan(values))
        if not differs.any():
            return
        row, column = np.unravel_index(int(differs.argmax()), differs.shape)
        name = array.name.rsplit("/", 1)[-1]
        where = f"weights column {column}" if name == "weights" else self.system.column_name(name, int(column))
        raise ValueError(
            f"{where}: {values[row, column]} in row {first_row + row} to append is no {array.dtype}, as which the "
            f"store keeps {name}. Round the values first, with .astype({str(array.dtype)!r}), or write one system of "
            "all rows with to_zarr."
        )
