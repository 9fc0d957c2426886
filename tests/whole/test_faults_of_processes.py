"""Workers that end in any way: once, and no bit changes; again and again, and the rows are named with the plan."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster

from lrgls_dask import LowRankGLS, System
from lrgls_dask.errors import ClusterLost
from support.fits import assert_same_bits
from support.systems import simulate

pytestmark = pytest.mark.slow

DATA = simulate("shared", n=240, K=4, k=1)


def out_of_memory() -> None:
    """Takes memory until the nanny, which looks every now and then, ends the process."""
    held = []
    while True:
        held.append(np.ones(2**22))
        time.sleep(0.01)


FAULTS: dict[str, Callable[[], Any]] = {
    "exit": lambda: os._exit(1),
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "out of memory": out_of_memory,
}


def rows(fault: Callable[[], Any], marker: Path | None) -> System:
    """Rows of which whoever reads the third chunk is struck: the first time alone where there is a marker."""

    def struck(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        if block_info[0]["chunk-location"][0] == 2:
            try:
                if marker is not None:
                    os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return block
            fault()
        return block

    Y = da.from_array(DATA.Y, chunks=(60, -1)).map_blocks(struck, dtype=float, meta=DATA.Y[:0])
    return System.from_arrays(Y, da.from_array(DATA.X, chunks=(60, -1)))


def two_workers(**how: Any) -> LocalCluster:
    where = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "silence_logs": 50, "memory_limit": "700MB"}
    return LocalCluster(**({"n_workers": 2, "threads_per_worker": 1} | where | how))


@pytest.mark.parametrize("fault", FAULTS)
def test_once(fault: str, tmp_path: Path, every_chunk: None) -> None:
    marker = tmp_path / "struck"
    with two_workers() as cluster, Client(cluster):
        found = LowRankGLS(1).fit(rows(FAULTS[fault], marker)).result_
    assert marker.exists()
    assert_same_bits(found, LowRankGLS(1).fit(rows(FAULTS[fault], marker)).result_)


@pytest.mark.parametrize("fault", FAULTS)
def test_again_and_again(fault: str, every_chunk: None) -> None:
    says = r"4 workers died one after another of rows 120 to 179, .* planned to hold 2\d\d.* limit is 667.57 MiB"
    with two_workers() as cluster, Client(cluster), pytest.raises(ClusterLost, match=says):
        LowRankGLS(1).fit(rows(FAULTS[fault], None))


def test_stopped_for_ten_seconds(tmp_path: Path, every_chunk: None) -> None:
    marker = tmp_path / "struck"

    def stopped() -> None:
        if os.fork() == 0:  # a child that wakes its parent
            time.sleep(10.0)
            os.kill(os.getppid(), signal.SIGCONT)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGSTOP)

    with two_workers() as cluster, Client(cluster):
        found = LowRankGLS(1).fit(rows(stopped, marker)).result_
    assert marker.exists()
    assert_same_bits(found, LowRankGLS(1).fit(rows(stopped, marker)).result_)


def test_all_workers_gone_is_named(every_chunk: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrgls_dask.rows.cluster.WITHOUT_WORKERS", 6.0)
    with two_workers() as cluster, Client(cluster) as client:
        client.wait_for_workers(2)
        system = rows(lambda: time.sleep(8.0), None)
        client.loop.call_later(3.0, lambda: cluster.scale(0))
        with pytest.raises(ClusterLost, match=r"has had no worker for \d+ seconds, and work waits .* checkpoint="):
            LowRankGLS(1).fit(system)


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_another_cluster_goes_on_to_the_same_bits(engine: str, tmp_path: Path, every_chunk: None) -> None:
    """A client that ends in the middle on two workers; another with one of three threads goes on."""
    options: dict[str, Any] = {"engine": engine, "algorithm": "em", "rel_tol": 1e-8}
    DATA.system().to_zarr(tmp_path / "rows.zarr", row_chunk=60)
    system = System.from_zarr(tmp_path / "rows.zarr")
    whole = LowRankGLS(1, **options).fit(system).result_
    seen: set[str] = set()

    def interrupt(label: str, done: int, total: int) -> None:
        seen.add(label)
        if engine == "stream" and label not in ("OLS", "compress") and done and "interrupted" not in seen:
            seen.add("interrupted")  # once: a second one would hit the cluster as it is closed
            _thread.interrupt_main()

    with two_workers() as cluster, Client(cluster):
        ends = pytest.raises(KeyboardInterrupt) if engine == "stream" else contextlib.nullcontext()
        with ends:
            LowRankGLS(1, checkpoint=str(tmp_path / "kept"), progress=interrupt, **options).fit(system)
    assert ("interrupted" in seen) == (engine == "stream")
    with two_workers(n_workers=1, threads_per_worker=3, memory_limit="1GB") as other, Client(other):
        found = LowRankGLS(1, checkpoint=str(tmp_path / "kept"), **options).fit(system).result_
    assert_same_bits(found, whole)
