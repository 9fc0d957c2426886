"""Which rows stay in memory between the passes of a fit: as many as a memory limit that was given leaves room for."""

from __future__ import annotations

from dataclasses import replace

import psutil

from lrgls_dask.plan.plan import Plan
from lrgls_dask.rows.layout import cut_rows
from lrgls_dask.rows.memory import SLACK
from lrgls_dask.rows.pinned import last_pinned, pinned_row_bytes
from lrgls_dask.rows.purposes import LEFT_OUT
from lrgls_dask.rows.rows import Rows

__all__ = ["with_pinned"]

SHARED = 0.5  # of what is left, where problems that share passes take the other half for what they sum


def with_pinned(plan: Plan, rows: Rows) -> Plan:
    """The plan of a fit that keeps the first rows in memory, where it reads rows several times and has room for some.

    Only by the threads of this process, and within a limit that was given: without one a fit takes what its passes
    need and no more, however much is free, as others may want it.
    """
    n_bytes = pinned_row_bytes(rows)
    if plan.pinned_rows:
        return plan
    if plan.engine != "stream" or plan.passes < 2 or not (plan.in_process and plan.limit_given and n_bytes):
        return plan
    free = psutil.virtual_memory().available + psutil.Process().memory_info().rss
    left = min(plan.memory_limit, free) - plan.peak
    if LEFT_OUT in plan.purposes:
        left = SHARED * left
    stop = last_pinned(rows, cut_rows(rows, 0).blocks, left / SLACK)
    pinned = stop * n_bytes
    more = int(SLACK * pinned)
    return replace(
        plan,
        pinned_rows=stop,
        pinned_bytes=pinned,
        worker_peak=plan.worker_peak + more,
        client_peak=plan.client_peak + more,
    )
