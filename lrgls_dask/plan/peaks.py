"""Peak memory of every process, and whether it stays below the limits."""

from __future__ import annotations

import psutil

from lrgls_dask.rows.memory import SLACK, Cluster

__all__ = ["fits", "peaks"]

SENDING = 48 * 2**20  # tasks that a client sends, and what it hears of them: 30 MiB seen with two workers


def peaks(cluster: Cluster, work: int, client: int) -> tuple[int, int]:
    """Peak bytes of a worker and of this process; with threads, where the two follow one another, those of both."""
    if cluster.in_process:
        both = cluster.base + int(SLACK * max(work, client))
        return both, both
    return cluster.base + int(SLACK * work), psutil.Process().memory_info().rss + SENDING + int(SLACK * client)


def fits(cluster: Cluster, work: int, client: int) -> bool:
    worker_peak, client_peak = peaks(cluster, work, client)
    return worker_peak <= cluster.limit and client_peak <= cluster.client_limit
