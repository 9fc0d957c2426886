"""What a killed client needs to go on: partial sums of a long pass, and the state of a streamed loop.

A checkpoint is a zarr group that belongs to one set of unread rows and is deleted when the fit is complete. Whatever
was being written when a client died, the next one finds what was there before: the group appears complete, an entry
counts once it says so, a loop's states take turns in two places, and the group is moved away before it is deleted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import dask.array as da
import numpy as np
import zarr
from dask.base import tokenize

from lrgls_dask.data.alone import alone_at
from lrgls_dask.data.lease import LEASE
from lrgls_dask.data.places import Location, check_apart
from lrgls_dask.data.seal import CHECKED, check_seal, read_whole, write_sealed, writing_of
from lrgls_dask.data.storage import new_store, open_group, open_to_grow, remove_store
from lrgls_dask.data.zarrio import check_version, read_array, read_head, write_array, write_head
from lrgls_dask.errors import DamagedStore, FitWarning, warn_user, without_secrets
from lrgls_dask.rows.moments import GramMoments, RootMoments
from lrgls_dask.rows.patience import is_of_a_store
from lrgls_dask.rows.rows import Part, Rows
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.sigma.registry import sigma_of
from lrgls_dask.solve.iterate import Goal, Half, Step, Trace, go_on, run
from lrgls_dask.solve.record import Point, Solution, Termination, TraceRow

__all__ = ["Checkpoint", "CheckpointLoop", "SavedPoint", "run_from_kept"]

CHECKPOINT_FORMAT = 1
BROKEN = object()  # in place of an entry whose metadata cannot be read
Saved = TypeVar("Saved")
MOMENTS = {"gram": GramMoments, "root": RootMoments}


@dataclass(frozen=True, eq=False)
class SavedPoint:
    """A point of a loop after a completed sweep.

    marks : what the sweeps so far say of those to come (`State.marks`), or of an end its objective.
    ended : why the loop ended there, None where it would go on.  trace, totals : the rows and the passes so far.
    """

    sweep: int
    point: Point
    marks: Mapping[str, Any] = field(default_factory=dict)
    ended: Termination | None = None
    trace: tuple[TraceRow, ...] = ()
    totals: tuple[int, int] = (0, 0)

    @property
    def sigma(self) -> Sigma:
        return self.point.sigma


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Progress of one fit on disk. Saving costs no pass; an entry is complete or not there.

    check : raises OSError where another fit has taken it over.  of : which equations, "" for all: what is kept of some
    is told apart.
    """

    path: Any
    group: zarr.Group
    check: Callable[[], None] = lambda: None
    of: str = ""

    @classmethod
    @contextmanager
    def alone(
        cls, path: Any, rows: Rows, apart_from: Iterable[Location] = (), begun: Rows | None = None
    ) -> Iterator[Checkpoint]:
        """The checkpoint at `path`, as `at` has it, for this fit alone. Raises OSError where another fit has it.

        begun : the rows to which it belongs, where these are only some equations of them.
        """
        check_apart(path, apart_from)
        with alone_at(path, lambda owner, lock: _in_use(path, owner, lock)) as check:
            of = "" if begun is None else f"{rows_token(rows)}-"
            yield replace(cls.at(path, begun or rows, apart_from), check=check, of=of)

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
            with new_store(str(path)) as store:
                made = zarr.open_group(store, mode="w", zarr_format=3)
                write_sealed(made, lrgls_checkpoint_format=CHECKPOINT_FORMAT, rows=token)
            return cls(path, open_to_grow(str(path)))
        check_version(group, "lrgls_checkpoint_format", CHECKPOINT_FORMAT, path, "checkpoint")
        check_seal(group, path, "checkpoint")
        if group.metadata.zarr_format != 3 or "rows" not in group.attrs:
            raise DamagedStore(path, "checkpoint", "its metadata are not those of one")
        if group.attrs["rows"] != token:
            raise ValueError(
                f"the checkpoint {without_secrets(path)} belongs to other data. Delete it, or give this fit "
                "a path of its own."
            )
        return cls(path, open_to_grow(str(path)))

    def clear(self) -> None:
        """Delete it: the fit is complete."""
        self.check()
        remove_store(self.path)

    def sums(self, label: str) -> CheckpointSums:
        """The partial sums of the pass of that name."""
        return CheckpointSums(self, self.of + label)

    def loop(self, *settings: Any) -> CheckpointLoop:
        """The points of the loop that these settings make."""
        return CheckpointLoop(self, f"{self.of}loop-{tokenize(*settings)}")

    # ------------------------------------------------------------------------------------------ passes

    def load_sum(self, label: str, index: int) -> Any:
        """Partial sum number `index` of a pass, or None."""
        entry = self._entry(f"{label}-{index}")
        return None if entry is None or entry is BROKEN else self._read(entry, _read_sum)

    def save_sum(self, label: str, index: int, moments: GramMoments | RootMoments) -> None:
        self.check()
        entry = self.group.create_group(f"{label}-{index}", overwrite=True)
        gram = isinstance(moments, GramMoments)
        matrix = moments.cross if isinstance(moments, GramMoments) else moments.root
        write_head(entry, moments.head)
        write_array(entry, "matrix", matrix, ("row", "column"))
        own = {"n_x": moments.n_x} if isinstance(moments, RootMoments) and moments.n_x is not None else {}
        write_sealed(entry, kind="gram" if gram else "root", n_rows=moments.head.n_rows, **own, complete=True)

    # ------------------------------------------------------------------------------------------ the loop

    def load_point(self, name: str) -> SavedPoint | None:
        """The last point saved under `name` that is whole, or None where none was.

        What a power cut leaves of the later of two is named in a warning and deleted. Raises DamagedStore where
        neither is whole.
        """
        broken: DamagedStore | None = None
        unread = [_place(name, i) for i in (0, 1) if self._entry(_place(name, i)) is BROKEN]
        for entry in self._states(name):
            try:
                found = self._read(entry, _read_point)
            except DamagedStore as error:
                broken = broken or error
                continue
            if broken is not None or unread:
                damaged = broken.path if broken is not None else f"{self.path!s}/{unread[0]}"
                warn_user(
                    f"the state of the fit at {without_secrets(damaged)} is damaged: the fit goes on from the state "
                    f"before it, after sweep {found.sweep}.",
                    FitWarning,
                )
            if broken is not None:
                del self.group[broken.path.rpartition("/")[2]]  # the next state takes its place, not that of the whole
            return found
        if broken is not None:
            raise broken
        if len(unread) == 2:
            raise DamagedStore(f"{self.path!s}/{unread[0]}", "checkpoint", "its metadata cannot be read")
        return None

    def save_point(self, name: str, saved: SavedPoint) -> None:
        """Keep it beside the one before, whose predecessor it replaces; all its numbers in one array."""
        self.check()
        serial = next(map(_serial, self._states(name)), 0)
        marks = saved.marks
        points = {"point": saved.point} | {key: value for key, value in marks.items() if isinstance(value, Point)}
        arrays = {key: value for key, value in marks.items() if isinstance(value, np.ndarray)}
        rows, steps = _as_trace(saved.trace)
        parts = {"trace": rows} | {f"marks/{key}": values for key, values in arrays.items()}
        for key, point in points.items():
            parts |= {f"{key}/c": point.c, f"{key}/S": point.S}
            parts |= {f"{key}/{own}": values for own, (values, _) in point.sigma.stored().items()}
        numbers, layout = _packed(parts)
        attributes: dict[str, Any] = {
            "serial": serial + 1,
            "sweep": saved.sweep,
            "ended": None if saved.ended is None else saved.ended.value,
            "marks": {key: _plain(value) for key, value in marks.items() if key not in arrays | points},
            "arrays": list(arrays),
            "points": {key: point.sigma.kind for key, point in points.items()},
            "layout": layout,
            "steps": steps,
            "totals": list(saved.totals),
        }
        entry = self.group.create_array(
            _place(name, serial + 1),
            shape=numbers.shape,
            chunks=numbers.shape,
            dtype=numbers.dtype,
            compressors=CHECKED,
            attributes=attributes,
            overwrite=True,
        )
        entry[...] = numbers
        write_sealed(entry, complete=True)

    def _states(self, name: str) -> list[Any]:
        """The two states that are kept of a loop, the later first, as far as they are there."""
        found = [self._entry(_place(name, i)) for i in (0, 1)]
        there = [entry for entry in found if entry is not None and entry is not BROKEN]
        return sorted(there, key=_serial, reverse=True)

    def _read(self, entry: Any, read: Callable[[Any], Saved]) -> Saved:
        """What is in an entry. Raises DamagedStore where that is not what was written."""
        path = f"{self.path!s}/{entry.basename}"
        check_seal(entry, path, "checkpoint")
        return read_whole(path, "checkpoint", lambda: read(entry))

    def _entry(self, key: str) -> Any:
        """A complete group or array; None for one whose writing or deleting was cut short, BROKEN without metadata."""
        try:
            entry = self.group.get(key)
            complete = entry is not None and entry.attrs.get("complete")  # attributes may be no mapping
        except Exception as error:
            if is_of_a_store(error):
                raise
            return BROKEN  # metadata cut short in the middle, in whatever way that shows
        return entry if complete else None


def _in_use(path: Any, owner: str, lock: str) -> str:
    return (
        f"the checkpoint {without_secrets(path)} is in use by another fit ({owner}). Wait until that has ended, or "
        f"give this fit a path of its own; one that died lets go within {LEASE:.0f} s; where it is known to be gone, "
        f"delete {without_secrets(lock)}."
    )


def _serial(entry: Any) -> int:
    """The number of a state; of one that says none, which is damaged, as of one that is looked at first."""
    said = entry.attrs.get("serial")
    return said if isinstance(said, int) else sys.maxsize


def _place(name: str, serial: int) -> str:
    """Where state number `serial` of a loop stands: never where the one before it does."""
    return f"{name}-{'even' if serial % 2 == 0 else 'odd'}"


# ---------------------------------------------------------------------------------------------- what is in an entry


def _read_sum(entry: Any) -> GramMoments | RootMoments:
    known: dict[str, Any] = dict(entry.attrs)
    own = {"n_x": known["n_x"]} if "n_x" in known else {}
    return MOMENTS[known["kind"]](read_head(entry, known["n_rows"]), read_array(entry, "matrix"), **own)


def _read_point(entry: Any) -> SavedPoint:
    known: dict[str, Any] = dict(entry.attrs)
    arrays = _unpacked(np.asarray(entry[...]), known["layout"])
    points = {key: _point_of(key, kind, arrays) for key, kind in known["points"].items()}
    marks = known["marks"] | {key: arrays[f"marks/{key}"] for key in known["arrays"]} | points
    ended = None if known["ended"] is None else Termination(known["ended"])
    _check_marks(marks, of_image=3 if ended is None else 2)
    trace = _read_trace(arrays["trace"], known["steps"])
    passes, n_bytes = map(int, known["totals"])
    return SavedPoint(int(known["sweep"]), marks.pop("point"), marks, ended, trace, (passes, n_bytes))


COUNTS = {"best": (2,), "energies": range(10**6), "movings": range(10**6)}  # of marks that are lists, beside the image


def _check_marks(marks: Mapping[str, Any], of_image: int) -> None:
    """Raise ValueError or TypeError for marks that are no numbers, or another count of them, than a loop keeps.

    of_image : numbers of the image, two once the loop has ended.
    """
    counts = COUNTS | {"image": (of_image,)}
    for key, value in marks.items():
        if isinstance(value, Point | np.ndarray):
            continue
        listed = isinstance(value, list)
        if listed != (key in counts) or (listed and len(value) not in counts[key]):
            raise ValueError(f"its {key} is {value!r:.40}")
        for each in value if listed else [value]:
            float(each)


def _packed(parts: Mapping[str, np.ndarray]) -> tuple[np.ndarray, dict[str, dict[str, Any]]]:
    """All numbers in one array, and where each part stands; texts and integers stand there themselves.

    The order in which a matrix lies in memory is kept too: the last bit of a product depends on it.
    """
    layout: dict[str, dict[str, Any]] = {}
    numbers = []
    for name, values in parts.items():
        if values.dtype != np.float64:
            layout[name] = {"values": values.tolist(), "dtype": values.dtype.str, "shape": list(values.shape)}
            continue
        by_column = values.flags.f_contiguous and not values.flags.c_contiguous
        layout[name] = {"shape": list(values.shape), "order": "F" if by_column else "C"}
        numbers.append(values.ravel(order="F" if by_column else "C"))
    return np.concatenate(numbers), layout


def _unpacked(numbers: np.ndarray, layout: Mapping[str, Mapping[str, Any]]) -> dict[str, np.ndarray]:
    parts, first = {}, 0
    for name, place in layout.items():
        if "values" in place:
            parts[name] = np.array(place["values"], dtype=place["dtype"]).reshape(place["shape"])
            continue
        size = int(np.prod(place["shape"], dtype=np.int64))
        parts[name] = numbers[first : first + size].copy().reshape(place["shape"], order=place["order"])
        first += size
    return parts


def _point_of(key: str, kind: str, arrays: Mapping[str, np.ndarray]) -> Point:
    return Point(arrays[f"{key}/c"], arrays[f"{key}/S"], sigma_of(kind, lambda own: arrays[f"{key}/{own}"]))


WORDS = ("step", "read_for")  # columns of a trace that are no numbers


def _as_trace(trace: tuple[TraceRow, ...]) -> tuple[np.ndarray, list[str]]:
    """(half-steps, columns) the rows as numbers, and the words that numbers stand for."""
    words = list(dict.fromkeys(word for row in trace for word in (row.step, row.read_for)))
    rows = [[words.index(value) if name in WORDS else value for name, value in vars(row).items()] for row in trace]
    return np.array(rows, dtype=np.float64).reshape(len(trace), len(fields(TraceRow))), words


def _read_trace(rows: np.ndarray, words: list[str]) -> tuple[TraceRow, ...]:
    found = []
    for row in rows.tolist():
        known = dict(zip((each.name for each in fields(TraceRow)), row, strict=False))  # earlier versions had fewer
        whole = {name: int(known[name]) for name in ("rank", "sweep", "cg_iterations", "passes", "bytes_read")}
        found.append(TraceRow(**(known | whole | {name: words[int(known[name])] for name in WORDS if name in known})))
    return tuple(found)


def _plain(value: Any) -> Any:
    """Of numbers and lists of them what JSON holds: an infinite one is none there."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return repr(value) if isinstance(value, float) and not np.isfinite(value) else value


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

    def keep(self, sweep: int, point: Point, marks: Mapping[str, Any], trace: Trace) -> None:
        """Save a point to go on from."""
        self._save(SavedPoint(sweep, point, marks), trace)

    def finish(self, found: Solution[Point], trace: Trace) -> None:
        """Save the point at which the loop ended."""
        marks = {"image": [found.nll, found.obj], "informed": float(found.informed)}
        self._save(SavedPoint(found.trace[-1].sweep, found.point, marks, found.termination), trace)

    def _save(self, saved: SavedPoint, trace: Trace) -> None:
        whole = replace(saved, trace=tuple(trace.rows), totals=trace.meter.totals)
        self.checkpoint.save_point(self.name, whole)


def run_from_kept(
    step: Step[Point],
    point: Point,
    goal: Goal,
    kept: CheckpointLoop | None,
    *,
    looked: Half[Point] | None = None,
) -> Solution[Point]:
    """The solution a step leads to: from the state that an earlier client left, else from a point.

    What comes before the loop, a pass or two, is made again.
    """
    saved = None if kept is None else kept.saved()
    return run(step, point, goal, looked=looked, kept=kept) if saved is None else go_on(step, saved, goal, kept)


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
    stored = getattr(array, "array", array)
    written = writing_of(stored) if isinstance(stored, zarr.Array) else None
    of_writing = () if written is None else (written,)
    return (str(getattr(array, "store_path", part.name)), array.shape, str(array.dtype), part.row_chunks, *of_writing)
