"""Work that reads no rows, side by side: replicates of a bootstrap, candidate ranks, folds."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any

import dask
from dask.base import get_scheduler
from dask.typing import Key

from lrgls_dask.rows.cluster import Box, client_of, computed, scattered
from lrgls_dask.rows.ready import check_workers
from lrgls_dask.rows.resources import one_blas_thread
from lrgls_dask.rows.seen import Passport, own_version

__all__ = ["run_tasks"]

BATCHES = 64  # enough to keep every worker busy to the end, few enough to schedule


def run_tasks(
    function: Callable[[Any, Any], Any], state: Any, items: Sequence[Any], *, here: bool = False
) -> list[Any]:
    """[function(state, item) for item in items], in parallel; for work that reads no rows.

    On the workers of the active client, which are sent `state` once each, unless `here` keeps it in this process;
    else in threads. One BLAS thread a task; results come in the order of the items wherever they were made.
    """
    get = dask.threaded.get if here else get_scheduler() or dask.threaded.get
    token = uuid.uuid4().hex
    state_key = f"lrgls-state-{token}"
    client = client_of(get)
    graph: dict[Key, Any] = {state_key: Box(state)}
    if client is not None:
        check_workers(client)
        graph[state_key] = scattered(client, Box(state))
    passport = None if client is None else Box(Passport(own_version()))
    size = -(-len(items) // BATCHES)
    keys: list[Key] = []
    for first in range(0, len(items), size or 1):
        key = (f"lrgls-task-{token}", len(keys))
        graph[key] = (_run_batch, function, state_key, Box(list(items[first : first + size])), passport)
        keys.append(key)
    with one_blas_thread:
        return [result for batch in computed(get, graph, keys) for result in batch]


def _run_batch(function: Callable[[Any, Any], Any], state: Box, items: Box, passport: Box | None) -> list[Any]:
    if passport is not None:
        passport.value.check()
    with one_blas_thread:
        return [function(state.value, item) for item in items.value]
