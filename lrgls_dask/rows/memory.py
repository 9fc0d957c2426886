"""What processes may use and what a pass takes of them: priced before any read, refused where it does not fit."""

from __future__ import annotations

from dataclasses import dataclass

import dask
import distributed
import numpy as np
import psutil
from dask.utils import format_bytes, parse_bytes

from lrgls_dask.rows.kernels import slab_rows
from lrgls_dask.rows.layout import FAN_IN, Layout, cut_rows
from lrgls_dask.rows.ready import WORKER_BASE, WorkerLimit, limits_of
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.scaled import scaled_bytes

__all__ = [
    "MAX_COEFFICIENTS",
    "Cluster",
    "Room",
    "cluster_of",
    "has_room_here",
    "pass_bytes",
    "require_here",
    "require_memory",
    "room_for_passes",
    "this_cluster",
    "this_process",
]


MAX_COEFFICIENTS = 20_000  # three P x P arrays of that size take 9.6 GB


BLOCKS_IN_FLIGHT = (
    6  # one in hand, one being read, both in their encoded form, and what the allocator keeps of older ones
)
SLACK = 1.15  # allocator fragmentation and what the model leaves out
PAIR_BYTES = 64  # of a pair of groups whose effects are absorbed: key and weight, merged, and twice in a sparse table


@dataclass(frozen=True)
class Cluster:
    """Where tasks run. limit : bytes a worker may use, client_limit : and this process.  base : bytes a worker uses
    before the fit begins.  tightest : the worker whose limit it is, where it is that of a worker."""

    n_workers: int
    n_threads: int
    limit: int
    base: int
    in_process: bool
    client_limit: int
    tightest: WorkerLimit | None = None

    def remedy(self, need: int) -> str:
        """How more memory is had for what needs so many bytes in each worker; "" where a limit was given."""
        if self.tightest is None:
            return ""
        return f"give every worker a memory limit of {format_bytes(int(1.05 * need / self.tightest.share))}"


@dataclass(frozen=True)
class Room:
    """Bytes that may be taken more: worker by sums of a pass, here by this process.  in_process : both are the same."""

    worker: float
    here: float
    in_process: bool

    def beside(self, n_bytes: float) -> float:
        """What sums of a pass may take while this process holds n_bytes."""
        return self.here - n_bytes if self.in_process else self.worker


def require_memory(rows: Rows, partial: int, client_bytes: int, what: str, remedy: str) -> None:
    """Raise MemoryError, before any read, where a pass with partial sums of `partial` bytes cannot fit.

    client_bytes : what is done with the sum afterwards.  what, remedy : for the message.
    """
    cluster = this_cluster(None)
    work = pass_bytes(rows, cluster, cut_rows(rows, partial), partial)
    afterwards = client_bytes + partial
    if cluster.in_process:
        limits = [("this process", cluster.base + int(SLACK * max(work, afterwards)), cluster.limit)]
    else:
        available = psutil.virtual_memory().available
        limits = [
            ("each worker", cluster.base + int(SLACK * work), cluster.limit),
            ("the client", int(SLACK * afterwards), available),
        ]
    for where, need, limit in limits:
        if need > limit:
            tightest = cluster.tightest if where == "each worker" else None
            whose = "" if tightest is None else f", of {tightest}"
            raise MemoryError(
                f"{what}: needs {format_bytes(need)} in {where}; the limit is {format_bytes(limit)}{whose}. "
                f"{remedy}, or use fewer threads or more memory."
            )


def require_here(n_bytes: int, what: str, remedy: str) -> None:
    """Raise MemoryError where this process has no room for so many bytes more."""
    need, available = int(SLACK * n_bytes), psutil.virtual_memory().available
    if need > available:
        raise MemoryError(
            f"{what}: needs {format_bytes(need)} in this process; {format_bytes(available)} are free. {remedy}, or use "
            "more memory."
        )


def has_room_here(n_bytes: int, memory_limit: int | str | None) -> bool:
    """Whether this process has room for so many bytes more, and may take them."""
    return n_bytes <= _room_here(memory_limit)


def _room_here(memory_limit: int | str | None) -> float:
    here, available = this_process(memory_limit), psutil.virtual_memory().available
    return min(here.limit - here.base, available) / SLACK


def room_for_passes(rows: Rows, memory_limit: int | str | None) -> Room:
    """What is left beside the blocks that a pass over the rows has in hand."""
    cluster, layout = this_cluster(memory_limit), cut_rows(rows, 0)
    blocks = pass_bytes(rows, cluster, layout, 0)
    here = _room_here(memory_limit)
    if cluster.in_process:
        return Room(here - blocks, here - blocks, True)
    return Room((cluster.limit - cluster.base) / SLACK - blocks, here, False)


def this_cluster(memory_limit: int | str | None) -> Cluster:
    """The active client's workers, else this process's threads.

    memory_limit : of each process; a worker that spills or pauses below it keeps its own.
    """
    here = this_process(memory_limit)
    try:
        client = distributed.get_client()
    except ValueError:
        return here
    limits = limits_of(client)
    bounded = [each for each in limits if each.n_bytes]
    tightest = min(bounded, key=lambda each: each.share * (each.n_bytes or 0), default=None)
    threads = max(each.n_threads for each in limits)
    own = None if tightest is None else int(tightest.share * (tightest.n_bytes or 0))
    if own is None or (memory_limit is not None and here.limit <= own):
        limit = psutil.virtual_memory().available if memory_limit is None else here.limit
        return Cluster(len(limits), threads, limit, WORKER_BASE, False, here.client_limit)
    return Cluster(len(limits), threads, own, WORKER_BASE, False, here.client_limit, tightest)


def cluster_of(n_workers: int, n_threads: int, worker_memory: int | str) -> Cluster:
    """One that need not be there. Raises ValueError for no worker or thread."""
    for name, n in (("workers", n_workers), ("threads", n_threads)):
        if n < 1:
            raise ValueError(f"{name} must be at least 1, found {n}.")
    limit = _before_spilling(parse_bytes(worker_memory))
    return Cluster(n_workers, n_threads, limit, WORKER_BASE, False, this_process(None).client_limit)


def _before_spilling(memory: int) -> int:
    """Distributed spills at 0.6 of a worker's memory_limit, which costs time and hides the true need."""
    return int(float(dask.config.get("distributed.worker.memory.target") or 0.6) * memory)


def this_process(memory_limit: int | str | None) -> Cluster:
    """This process's threads; the limit as given, else what it holds and what is free."""
    held = psutil.Process().memory_info().rss
    limit = held + psutil.virtual_memory().available if memory_limit is None else parse_bytes(memory_limit)
    threads = dask.config.get("num_workers", None) or dask.system.CPU_COUNT
    return Cluster(1, int(threads), limit, held, True, limit)


def pass_bytes(rows: Rows, cluster: Cluster, layout: Layout, partial: int, *, copies: int = 0, besides: int = 0) -> int:
    """What a worker holds in a pass with partial sums of `partial` bytes: its tasks, and sums that wait for others.

    copies : of each block.  besides : bytes that each task takes more.
    """
    threads, sums = min(cluster.n_threads, layout.n_groups), min(2 * FAN_IN, layout.n_groups)
    return threads * (task_bytes(rows, layout, partial, copies=copies) + besides) + sums * partial


def task_bytes(rows: Rows, layout: Layout, partial: int, *, copies: int = 0) -> int:
    """One task: blocks in flight and copies of one, what decodes them, rows scaled by weights of cells or less effects
    that are absorbed, three slabs, three partial sums."""
    stored = sum(part.row_bytes for part in rows.parts if not isinstance(part.array, np.ndarray))
    block = layout.largest_block() * stored
    width = rows.design.n_regressors + rows.design.n_equations
    slab = 8 * width * slab_rows(width)
    scaled = 0 if rows.cells is None else scaled_bytes(rows.design)
    decoding = max(part.run_bytes for part in rows.parts)
    if rows.absorb is not None:
        scaled += 3 * 8 * width * layout.largest_block() + PAIR_BYTES * rows.absorb.n_pairs(rows.n_obs)
    return (BLOCKS_IN_FLIGHT + copies) * block + decoding + scaled + 3 * slab + 3 * partial
