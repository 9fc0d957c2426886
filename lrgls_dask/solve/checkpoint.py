"""What a killed client needs to go on: partial sums of a long pass, and the last point of a streamed loop.

A checkpoint is a zarr group that belongs to one set of unread rows and is deleted when the fit is complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dask.array as da
import numpy as np
import zarr
from dask.base import tokenize

from lrgls_dask.data.places import Location, check_apart
from lrgls_dask.data.storage import open_group, remove_store
from lrgls_dask.data.zarrio import check_version, read_array, read_head, write_array, write_head
from lrgls_dask.rows.moments import GramMoments, RootMoments
from lrgls_dask.rows.rows import Part, Rows
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.sigma.registry import sigma_of
from lrgls_dask.solve.record import Point, Solution, Termination

__all__ = ["Checkpoint", "CheckpointLoop", "SavedPoint"]

CHECKPOINT_FORMAT = 1
MOMENTS = {"gram": GramMoments, "root": RootMoments}


@dataclass(frozen=True, eq=False)
class SavedPoint:
    """A point of a loop after a completed sweep.

    marks : what the sweeps so far say of those to come (`State.marks`).
    ended : why the loop ended there, None where it would go on.
    """

    sweep: int
    point: Point
    marks: Mapping[str, Any] = field(default_factory=dict)
    ended: Termination | None = None

    @property
    def sigma(self) -> Sigma:
        return self.point.sigma


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Progress of one fit on disk. Saving costs no pass; an entry is complete or not there."""

    path: Any
    group: zarr.Group

    @classmethod
    def at(cls, path: Any, rows: Rows, apart_from: Iterable[Location] = ()) -> Checkpoint:
        """The checkpoint at `path`, made if there is none.

        apart_from : where the rows lie, which a checkpoint must not be, hold or lie in: it is deleted in the end.
        Raises ValueError where it does, and when one is there that belongs to other data.
        """
        check_apart(path, apart_from)
        token = rows_token(rows)
        try:
            group = open_group(path)
        except FileNotFoundError:
            attributes: dict[str, Any] = {"lrgls_checkpoint_format": CHECKPOINT_FORMAT, "rows": token}
            return cls(path, zarr.open_group(str(path), mode="w", zarr_format=3, attributes=attributes))
        check_version(group, "lrgls_checkpoint_format", CHECKPOINT_FORMAT, path, "checkpoint")
        if group.attrs["rows"] != token:
            raise ValueError(
                f"the checkpoint {path!s} belongs to other data. Delete it, or give this fit a path of its own."
            )
        return cls(path, zarr.open_group(str(path), mode="r+"))

    def clear(self) -> None:
        """Delete it: the fit is complete."""
        remove_store(self.path)

    def sums(self, label: str) -> CheckpointSums:
        """The partial sums of the pass of that name."""
        return CheckpointSums(self, label)

    def loop(self, *settings: Any) -> CheckpointLoop:
        """The points of the loop that these settings make."""
        return CheckpointLoop(self, f"loop-{tokenize(*settings)}")

    # ------------------------------------------------------------------------------------------ passes

    def load_sum(self, label: str, index: int) -> Any:
        """Partial sum number `index` of a pass, or None."""
        entry = self._entry(f"{label}-{index}")
        if entry is None:
            return None
        known: dict[str, Any] = dict(entry.attrs)
        return MOMENTS[known["kind"]](read_head(entry, known["n_rows"]), read_array(entry, "matrix"))

    def save_sum(self, label: str, index: int, moments: GramMoments | RootMoments) -> None:
        entry = self.group.create_group(f"{label}-{index}", overwrite=True)
        gram = isinstance(moments, GramMoments)
        matrix = moments.cross if isinstance(moments, GramMoments) else moments.root
        write_head(entry, moments.head)
        write_array(entry, "matrix", matrix, ("row", "column"))
        entry.attrs.update(kind="gram" if gram else "root", n_rows=moments.head.n_rows)
        entry.attrs["complete"] = True

    # ------------------------------------------------------------------------------------------ the loop

    def load_point(self, name: str) -> SavedPoint | None:
        """The last point saved under `name`, or None."""
        last = self.group.attrs.get(name)
        entry = self._entry(str(last)) if last else None
        if entry is None:
            return None
        known: dict[str, Any] = dict(entry.attrs)
        sigma = sigma_of(known["covariance"], lambda array: read_array(entry, array))
        point = Point(read_array(entry, "c"), read_array(entry, "S"), sigma)
        ended = known.get("ended")
        marks = known.get("marks", {})
        return SavedPoint(known["sweep"], point, marks, None if ended is None else Termination(ended))

    def save_point(self, name: str, point: SavedPoint) -> None:
        key = f"{name}-{point.sweep}"
        entry = self.group.create_group(key, overwrite=True)
        write_array(entry, "c", point.point.c, ("coefficient",))
        write_array(entry, "S", point.point.S, ("equation", "equation_other"))
        for array, (values, dims) in point.sigma.stored().items():
            write_array(entry, array, values, dims)
        ended = None if point.ended is None else point.ended.value
        entry.attrs.update(sweep=point.sweep, covariance=point.sigma.kind, ended=ended, marks=dict(point.marks))
        entry.attrs["complete"] = True
        previous = self.group.attrs.get(name)
        self.group.attrs[name] = key
        if previous and previous != key:
            del self.group[str(previous)]

    def _entry(self, key: str) -> zarr.Group | None:
        entry = self.group.get(key)
        return entry if isinstance(entry, zarr.Group) and entry.attrs.get("complete") else None


@dataclass(frozen=True, eq=False)
class CheckpointSums:
    """The partial sums of one pass, as `run_pass` wants them."""

    checkpoint: Checkpoint
    label: str

    def load(self, index: int) -> Any:
        return self.checkpoint.load_sum(self.label, index)

    def save(self, index: int, total: GramMoments | RootMoments) -> None:
        self.checkpoint.save_sum(self.label, index, total)


@dataclass(frozen=True, eq=False)
class CheckpointLoop:
    """The last point of one loop."""

    checkpoint: Checkpoint
    name: str

    def saved(self) -> SavedPoint | None:
        """The one an earlier client left, or None."""
        return self.checkpoint.load_point(self.name)

    def keep(self, sweep: int, point: Point, marks: Mapping[str, Any]) -> None:
        """Save a point to go on from."""
        self.checkpoint.save_point(self.name, SavedPoint(sweep, point, marks))

    def finish(self, found: Solution[Point]) -> None:
        """Save the point at which the loop ended."""
        last = SavedPoint(found.trace[-1].sweep, found.point, ended=found.termination)
        self.checkpoint.save_point(self.name, last)


def rows_token(rows: Rows) -> str:
    """A name for the data that reads nothing stored: memory goes by content, the rest by place, shape and dtype."""
    parts = [_part_token(part) for part in rows.parts]
    only: tuple[Any, ...] = ("complete rows",) if rows.complete_only else ()
    if rows.cells is not None:
        only += ("cells", rows.cells.constant, rows.cells.weighting)
    return str(tokenize(parts, rows.design.equations, rows.design.terms, *only))


def _part_token(part: Part) -> Any:
    array = part.array
    if isinstance(array, da.Array):
        return array.name
    if isinstance(array, np.ndarray):
        return tokenize(array)
    return (str(getattr(array, "store_path", part.name)), array.shape, str(array.dtype), part.row_chunks)
