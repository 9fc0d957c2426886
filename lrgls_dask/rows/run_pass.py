"""The one way to touch rows: `run_pass(rows, kernel, params)` maps a kernel over all blocks and adds the results.

Threads without a client, the active `distributed.Client` with one. A task takes a group of consecutive blocks, reads
the next block while it works on the current one, and passes on a single partial sum; partial sums meet in a tree of
fixed shape. Every stored chunk is read once a pass: what one block alone needs of a Dask graph is computed inside the
block's own task, what several blocks share becomes a task of its own.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol

import dask
import dask.array as da
import distributed
import numpy as np
from dask._task_spec import Alias
from dask.base import get_scheduler
from dask.core import get_dependencies
from dask.typing import Key

from lrgls_dask.errors import BadValues
from lrgls_dask.rows.absorbed import GroupKernel, LessEffects
from lrgls_dask.rows.block import Block
from lrgls_dask.rows.block_plan import (
    BlockPlan,
    Chunks,
    Reader,
    Stored,
    StoredBlocks,
    chunk_name,
    edges_of,
    is_split,
    pinned_plans,
    plan_blocks,
    read_ahead,
    read_stored,
    stored_blocks,
)
from lrgls_dask.rows.cells import UsedCells, WeightsOfShown
from lrgls_dask.rows.cluster import Box, client_of, computed, scattered
from lrgls_dask.rows.effects import absorbed_of
from lrgls_dask.rows.kernels import CompleteRows
from lrgls_dask.rows.layout import FAN_IN, Layout, cut_rows
from lrgls_dask.rows.memory import SLACK, pass_bytes, this_cluster
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.pinned import PinnedRows, stays_here
from lrgls_dask.rows.progress import report
from lrgls_dask.rows.purposes import MEANS, READING
from lrgls_dask.rows.ready import check_stores, check_workers
from lrgls_dask.rows.resources import one_blas_thread, spare_arrays
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.scaled import ScaledCells

__all__ = ["SavedSums", "run_pass", "with_effects"]

# Groups between two savings, some 60 GB of rows: a whole subtree, so that no digit depends on saving.
SAVED_GROUPS = FAN_IN**3

Kernel = Callable[[Block, Any], Any]


def run_pass(
    rows: Rows,
    kernel: Kernel,
    params: Any,
    *,
    partial_bytes: int,
    meter: Meter,
    label: str = READING,
    saved: SavedSums | None = None,
    holes: bool = False,
    less_effects: bool = True,
) -> Any:
    """The sum of kernel(block, params) over all blocks of rows: one pass, every row read once.

    partial_bytes : size of one result of the kernel; groups are made large enough that moving it is cheap.
    label : what the pass is for, see `purposes`.
    saved : keeps the sums of long stretches of rows, so that a pass that was cut short goes on where it was.
    holes : whether rows may miss responses; the kernel then sees zero in the cells of X that none of the others uses.
    less_effects : whether rows whose groups have effects that are absorbed come without these; where it is not known
    what they are yet, that takes a pass before.
    Raises BadValues or UnreadableRows from the first block that showed them.
    """
    if rows.absorb is not None and less_effects:
        rows = with_effects(rows, meter)
        assert rows.design.absorbed is not None
        kernel = LessEffects(kernel, rows.design.absorbed.center, rows.design.absorbed.effects)
    kernel = UsedCells(kernel, rows.design.users, holes)
    if rows.complete_only:
        kernel = CompleteRows(kernel, rows.design.is_used)
    if rows.cells is not None:
        kernel = ScaledCells.of(kernel, rows.design, rows.cells.constant)
    elif rows.weights is not None:
        kernel = WeightsOfShown(kernel)
    layout = cut_rows(rows, partial_bytes)
    n_bytes, get = rows.n_obs * rows.row_bytes, _scheduler()
    pinned = meter.pinned if stays_here(get) else None
    held = 0
    if pinned is not None:
        pinned.begin(layout.blocks)
        held = pinned.held_bytes((part.array for part in rows.parts), layout.blocks)
    # set once here: every task sets it too, for a cluster, but the first to come and the last to go would wait for it
    began, number = time.perf_counter(), meter.totals[0] + 1
    watching = meter.progress.watch(label, n_bytes, number=number)
    with watching as topic, _named(rows), _unchanged(rows), one_blas_thread:
        if layout.n_groups == 1 and all(isinstance(part.array, np.ndarray) for part in rows.parts):
            total = _sum_group(Box((kernel, params, None)), Box(_Group(plan_blocks(rows, layout), (), topic)), [])
        else:
            name = meter.name_of_pass
            whole = _Pass(rows, layout, (kernel, params), topic, partial_bytes, label, name, pinned)
            try:
                total = _run_graph(whole, saved)
            finally:
                spare_arrays.clear()
    meter.passes += 1
    meter.purposes.append(label)
    meter.bytes_read += n_bytes - held
    meter.say_pass(label, n_bytes - held, time.perf_counter() - began)
    if total is None and rows.complete_only:
        raise ValueError(
            "Y: no row of positive weight shows every equation. Use missing='em' with covariance='lowrank' and "
            "algorithm='als', or leave out the equations that miss most."
        )
    if total is None:
        raise ValueError("weights: no row has a positive weight. Give at least one row a weight above zero.")
    return total


def with_effects(rows: Rows, meter: Meter) -> Rows:
    """The rows, knowing the effects of groups that they come without; one pass where that was not known."""
    groups, design = rows.absorb, rows.design
    if groups is None or design.absorbed is not None:
        return rows
    kernel, size = GroupKernel(groups.n_groups), rows.group_bytes
    sums = run_pass(rows, kernel, None, partial_bytes=size, meter=meter, label=MEANS, less_effects=False)
    return replace(rows, design=replace(design, absorbed=absorbed_of(sums, groups, design.n_equations)))


@contextmanager
def _named(rows: Rows) -> Iterator[None]:
    """Say which equation or regressor a block could not use; blocks know columns only."""
    try:
        yield
    except BadValues as error:
        raise error.named(rows.design.given.regressors, rows.design.equations, rows.label_of) from None


@contextmanager
def _unchanged(rows: Rows) -> Iterator[None]:
    """Refuse what was read of stores that were written anew meanwhile, whatever came of it."""
    if rows.marks is None:
        yield
        return
    rows.marks.begin()
    try:
        yield
    except Exception:
        rows.marks.look()
        raise
    rows.marks.look()


@dataclass(frozen=True, eq=False)
class _Group:
    """Consecutive blocks of one task, the keys of what it is handed, and where it reports progress."""

    blocks: tuple[BlockPlan, ...] | StoredBlocks
    shared: tuple[Key, ...]
    topic: str | None


# ---------------------------------------------------------------------------------------------- the graph


class SavedSums(Protocol):
    """Partial sums that outlive the client."""

    def load(self, index: int) -> Any:
        """Sum number `index`, or None."""
        ...

    def save(self, index: int, total: Any) -> None: ...


@dataclass(frozen=True, eq=False)
class _Pass:
    """What one pass over the rows is.

    work : the kernel and its parameters, which travel to each worker once.  partial : bytes of a sum.
    label, number : what it is for, and which of which fit, for whoever looks at the tasks of a cluster.
    pinned : what stays in memory of the rows, where tasks run in this process.
    """

    rows: Rows
    layout: Layout
    work: tuple[Kernel, Any]
    topic: str | None
    partial: int
    label: str
    number: str
    pinned: PinnedRows | None = None

    def key(self, what: str, token: str) -> str:
        """A name that a dashboard shortens to what the task is and what the pass is for."""
        return f"lrgls-{what}-{self.label.replace(' ', '-')}-{self.number}.{token}"

    def planned(self) -> int:
        """Bytes that a worker was planned to hold."""
        cluster = this_cluster(None)
        return cluster.base + int(SLACK * pass_bytes(self.rows, cluster, self.layout, self.partial))

    def rows_of(self, group: int) -> str:
        blocks, groups = self.layout.blocks, self.layout.groups
        return f"rows {blocks[groups[group]]:,} to {blocks[groups[group + 1]] - 1:,}"


def _run_graph(whole: _Pass, saved: SavedSums | None) -> Any:
    layout = whole.layout
    if saved is None:
        return _sum_groups(whole, slice(0, layout.n_groups))
    sums = []
    for index, first in enumerate(range(0, layout.n_groups, SAVED_GROUPS)):
        total = saved.load(index)
        if total is None:
            total = _sum_groups(whole, slice(first, first + SAVED_GROUPS))
            if total is not None:
                saved.save(index, total)
        sums.append(total)
    while len(sums) > 1:  # the upper levels of the same tree
        sums = [_add(sums[i : i + FAN_IN]) for i in range(0, len(sums), FAN_IN)]
    return sums[0]


def _scheduler() -> Any:
    return get_scheduler() or dask.threaded.get


def _sum_groups(whole: _Pass, chosen: slice) -> Any:
    get = _scheduler()
    token = uuid.uuid4().hex
    groups = range(whole.layout.n_groups)[chosen]
    client = client_of(get)
    passport = None
    if client is not None:
        check_workers(client)
        passport = check_stores(client, whole.rows.parts)
    of_groups, graph = _groups(whole, groups, client, token)
    work_key = whole.key("params", token)
    graph[work_key] = Box((*whole.work, passport))
    level: list[Key] = []
    of_key: dict[Key, int] = {}
    for g, group in zip(groups, of_groups, strict=True):
        key = (whole.key("rows", token), g)
        graph[key] = (_sum_group, work_key, Box(group), list(group.shared))
        level.append(key)
        of_key[key] = g
    # a name for each level: a scheduler spreads tasks evenly only if it sees that their group depends on nothing
    depth = 0
    while len(level) > 1:
        depth += 1
        nodes = [level[i : i + FAN_IN] for i in range(0, len(level), FAN_IN)]
        level = [(whole.key("add", f"{depth}.{token}"), i) for i in range(len(nodes))]
        graph.update({key: (_add, node) for key, node in zip(level, nodes, strict=True)})

    planned = None if client is None else whole.planned()  # while there are workers to ask

    def restated(key: Key) -> tuple[str, int | None]:
        """For whoever hears that workers died of a task."""
        return whole.rows_of(of_key[key]) if key in of_key else "what tasks of rows share", planned

    return computed(get, graph, level[0], restated)


def _groups(
    whole: _Pass, groups: range, client: distributed.Client | None, token: str
) -> tuple[list[_Group], dict[Key, Any]]:
    """The blocks of each group, and the graph of what they are handed."""
    rows, layout, topic = whole.rows, whole.layout, whole.topic
    spans = list(pairwise(layout.groups[groups[0] : groups[-1] + 2].tolist()))
    stored = stored_blocks(rows, layout, whole.pinned)
    if stored is not None:
        return [_Group(stored.some(a, b), (), topic) for a, b in spans], {}
    first, last = spans[0][0], spans[-1][1]
    plans, graph = plan_blocks(rows, layout)[first:last], _source_graph(rows, layout)
    if whole.pinned is not None:
        arrays, in_memory = tuple(part.array for part in rows.parts), _InMemory(graph)
        plans = pinned_plans(plans, arrays, whole.pinned, in_memory)
    plans, graph = _inline(plans, graph)
    if client is not None:
        plans = _scatter(client, plans, graph, token)
    found = []
    for a, b in spans:
        blocks = plans[a - first : b - first]
        shared = tuple(dict.fromkeys(key for block in blocks for key in sorted(block.shared, key=str)))
        found.append(_Group(blocks, shared, topic))
    return found, graph


def _source_graph(rows: Rows, layout: Layout) -> dict[Key, Any]:
    """The user's Dask graphs, and one task per stored chunk of arrays whose chunks no block boundary respects."""
    graph: dict[Key, Any] = {}
    for part in rows.parts:
        if isinstance(part.array, da.Array):
            graph.update(part.array.__dask_graph__())
        elif is_split(part, layout.blocks):
            edges = edges_of(part)
            for chunk, (start, stop) in enumerate(pairwise(edges.tolist())):
                graph[(chunk_name(part), chunk)] = (read_stored, Box(Stored(part.array, start, stop)))
    return graph


def _inline(plans: tuple[BlockPlan, ...], graph: dict[Key, Any]) -> tuple[tuple[BlockPlan, ...], dict[Key, Any]]:
    """Give each block the tasks it alone needs; the rest, closed under dependencies, stays a graph around them."""
    if not graph:
        return plans, graph
    user: dict[Key, int] = {}
    needs: dict[Key, set[Key]] = {}
    outer: set[Key] = set()
    for index, plan in enumerate(plans):
        seen: set[Key] = set()
        stack = plan.keys
        while stack:
            key = stack.pop()
            if key in seen:
                continue
            seen.add(key)
            if key not in needs:
                needs[key] = set(get_dependencies(graph, key))
            if user.setdefault(key, index) != index or not _is_task(graph[key], needs[key]):
                outer.add(key)
            stack.extend(needs[key])
    stack = list(outer)
    while stack:
        for key in needs[stack.pop()] - outer:
            outer.add(key)
            stack.append(key)
    own: list[list[Key]] = [[] for _ in plans]
    for key, index in user.items():
        if key not in outer:
            own[index].append(key)
    inlined = []
    for plan, keys in zip(plans, own, strict=True):
        wanted = set(plan.keys).union(*(needs[key] for key in keys))
        tasks = {key: graph[key] for key in keys}
        inlined.append(replace(plan, graph=tasks, shared=frozenset(wanted & outer)))
    return tuple(inlined), {key: graph[key] for key in outer}


@dataclass(frozen=True, eq=False)
class _InMemory:
    """The keys of a graph whose values are no work."""

    graph: Any

    def __contains__(self, key: Any) -> bool:
        return not _is_task(self.graph[key], set(get_dependencies(self.graph, key)))


def _is_task(value: Any, needs: set[Key]) -> bool:
    """True for work, and for another name of some; false for data and futures, which must stay where the scheduler sees
    them.  needs : the keys that it depends on."""
    if isinstance(value, tuple):
        return bool(value) and (callable(value[0]) or any(value == key for key in needs))
    if isinstance(value, Alias):
        return True
    return hasattr(value, "func") and hasattr(value, "dependencies")


def _scatter(
    client: distributed.Client, plans: tuple[BlockPlan, ...], graph: dict[Key, Any], token: str
) -> tuple[BlockPlan, ...]:
    """Send arrays that live on the client to the workers, each block's rows to where it is worked on."""
    views: dict[Key, np.ndarray] = {}
    moved = []
    for index, plan in enumerate(plans):
        readers: list[Reader] = []
        for position, reader in enumerate(plan.readers):
            if isinstance(reader, Stored) and isinstance(reader.array, np.ndarray):
                key = (f"lrgls-sent-{token}", index, position)
                views[key] = reader.array
                readers.append(Chunks(((key, 0, reader.stop),)))
            else:
                readers.append(reader)
        new = {key for key in (k for r in readers if isinstance(r, Chunks) for k, _, _ in r.pieces) if key in views}
        moved.append(replace(plan, readers=tuple(readers), shared=plan.shared | new))
    if views:
        futures = scattered(client, list(views.values()))
        graph.update(zip(views, futures, strict=True))
    return tuple(moved)


# ---------------------------------------------------------------------------------------------- inside a task


def _sum_group(work: Box, group: Box, shared: Sequence[Any]) -> Any:
    plan: _Group = group.value
    kernel, params, passport = work.value
    if passport is not None:
        passport.check()
    values = dict(zip(plan.shared, shared, strict=True))
    total = None
    # a kernel finds bad values by what they do to its sums, and says where they are
    blocks = plan.blocks.plans() if isinstance(plan.blocks, StoredBlocks) else plan.blocks
    with one_blas_thread, np.errstate(all="ignore"):
        for block, arrays in read_ahead(blocks, values):
            part = kernel(block, params)
            spare_arrays.give_back(arrays)
            if total is None:
                total = part
            elif part is not None:
                total += part  # the running total is this task's own
            report(plan.topic, sum(array.nbytes for array in arrays))
    return total


def _add(parts: Sequence[Any]) -> Any:
    """Left to right, so that equal chunks give equal digits."""
    total = None
    with np.errstate(all="ignore"):
        for part in parts:
            if part is not None:
                total = part if total is None else total + part
    return total
