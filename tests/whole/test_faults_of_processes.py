"""Workers that end in any way: once, and no bit changes; again and again, and the rows are named with the plan."""

from __future__ import annotations

import _thread
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import psutil
import pytest
from distributed import Client, LocalCluster

from lrgls_dask import Fit, LowRankGLS, System
from lrgls_dask.errors import ClusterLost
from lrgls_dask.simulate import simulate_to_zarr
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


def started(folder: Path, *more: str, port: int = 0) -> tuple[list[subprocess.Popen[bytes]], str]:
    """A scheduler and two workers, each a process of its own, and the file that says where they are."""
    file = str(folder / "scheduler.json")
    closed = ["--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0", "--scheduler-file", file]
    dask = [sys.executable, "-m", "dask"]
    running = [subprocess.Popen([*dask, "scheduler", "--port", str(port), *closed])]
    worker = [*dask, "worker", "--nthreads", "1", "--memory-limit", "700MB", "--local-directory", str(folder), *more]
    return running + [subprocess.Popen([*worker, *closed]) for _ in range(2)], file


def ended(running: list[subprocess.Popen[bytes]]) -> None:
    for process in running:
        for each in [*psutil.Process(process.pid).children(recursive=True), process]:
            each.kill()
        process.wait()


@pytest.mark.parametrize("nanny", ["--nanny", "--no-nanny"])
def test_cut_off_for_good_is_named(nanny: str, tmp_path: Path, every_chunk: None) -> None:
    """A machine that is gone from the network: neither its worker nor its nanny says anything again."""
    running, file = started(tmp_path, nanny)
    try:
        with Client(scheduler_file=file, timeout=120) as client:
            client.wait_for_workers(2)
            LowRankGLS(1).fit(rows(lambda: None, None))  # packages are imported
            parents = [psutil.Process(running[1].pid), *psutil.Process(running[1].pid).children(recursive=True)]
            gone = [each.pid for each in parents]
            system = rows(lambda: time.sleep(8.0), None)
            client.loop.call_later(2.0, lambda: [os.kill(pid, signal.SIGSTOP) for pid in gone])
            try:
                found = LowRankGLS(1).fit(system).result_  # where the other one had all the work
                assert_same_bits(found, LowRankGLS(1).fit(rows(lambda: None, None)).result_)
            except ClusterLost as error:
                assert re.search(r"has sent no heartbeat for [1-5]\d seconds: .* checkpoint=", str(error))
    finally:
        ended(running)


@pytest.mark.filterwarnings("ignore:.*not converged")
def test_a_slow_worker_changes_no_bit(tmp_path: Path, every_chunk: None) -> None:
    """One of two is given a twenty-fifth of the time: stopped and woken again and again."""
    running, file = started(tmp_path, "--no-nanny")
    stop = None
    try:
        with Client(scheduler_file=file, timeout=120) as client:
            client.wait_for_workers(2)
            LowRankGLS(1).fit(rows(lambda: None, None))
            code = (
                "import os, signal, sys, time\n"
                "while True:\n"
                "    os.kill(int(sys.argv[1]), signal.SIGSTOP); time.sleep(0.5)\n"
                "    os.kill(int(sys.argv[1]), signal.SIGCONT); time.sleep(0.02)\n"
            )
            stop = subprocess.Popen([sys.executable, "-c", code, str(running[1].pid)])
            found = LowRankGLS(1, engine="stream", algorithm="em", max_sweeps=3).fit(rows(lambda: None, None)).result_
    finally:
        if stop is not None:
            stop.kill()
            stop.wait()
        ended(running)
    assert_same_bits(
        found, LowRankGLS(1, engine="stream", algorithm="em", max_sweeps=3).fit(rows(lambda: None, None)).result_
    )


def test_a_scheduler_that_is_started_again_is_named(tmp_path: Path, every_chunk: None) -> None:
    """On the same port, before anybody notices."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    running, file = started(tmp_path, "--nanny", port=port)
    again: list[subprocess.Popen[bytes]] = []

    def restart() -> None:
        running[0].kill()
        running[0].wait()
        again.append(subprocess.Popen(running[0].args))

    try:
        with Client(scheduler_file=file, timeout=120) as client:
            client.wait_for_workers(2)
            LowRankGLS(1).fit(rows(lambda: None, None))
            threading.Timer(3.0, restart).start()
            with pytest.raises(ClusterLost, match=r"the scheduler tcp://127.0.0.1:\d+ .* checkpoint="):
                LowRankGLS(1).fit(rows(lambda: time.sleep(8.0), None))
    finally:
        ended([each for each in [*running, *again] if each.poll() is None])


def test_a_scheduler_that_is_killed_is_named(tmp_path: Path, every_chunk: None) -> None:
    """And never started again: in the middle of a pass, and at the next fit."""
    running, file = started(tmp_path, "--nanny")
    named: list[pytest.ExceptionInfo[ClusterLost]] = []

    def kill() -> None:
        running[0].kill()
        running[0].wait()

    try:
        # a client that closes without its scheduler may say so
        with contextlib.suppress(OSError, TimeoutError), Client(scheduler_file=file, timeout=120) as client:
            client.wait_for_workers(2)
            LowRankGLS(1).fit(rows(lambda: None, None))
            threading.Timer(3.0, kill).start()
            for seconds in (8.0, 0.0):
                with pytest.raises(ClusterLost, match=r"the scheduler tcp://127.0.0.1:\d+ .* checkpoint=") as lost:
                    LowRankGLS(1).fit(rows(partial(time.sleep, seconds), None))
                named.append(lost)
        assert len(named) == 2
    finally:
        ended([each for each in running if each.poll() is None])


@pytest.mark.parametrize("seed", range(6))
def test_a_killed_client_leaves_nothing_in_the_way(seed: int, tmp_path: Path) -> None:
    """At moments drawn at random: the next client, on the same cluster, ends with the bits of one that was let be."""
    simulate_to_zarr(tmp_path / "rows.zarr", n_obs=60_000, n_equations=20, n_regressors=4, rank=2)
    running, file = started(tmp_path, "--nanny")
    options = ["--rank", "2", "--engine", "stream", "--algorithm", "em", "--max-sweeps", "12", "--rel-tol", "1e-13"]
    words = [sys.executable, "-m", "lrgls_dask.cli", "fit", str(tmp_path / "rows.zarr"), *options]
    kept = ["--checkpoint", str(tmp_path / "kept")]
    try:
        with Client(scheduler_file=file, timeout=120) as client:
            client.wait_for_workers(2)
            address = client.scheduler.address
        began = time.perf_counter()
        whole = subprocess.run([*words, "--out", str(tmp_path / "whole"), "--scheduler", address], capture_output=True)
        took = time.perf_counter() - began
        assert whole.returncode in (0, 3), whole.stderr
        command = [*words, *kept, "--out", str(tmp_path / "fit"), "--scheduler", address]
        rng, kills = np.random.default_rng(seed), 0
        for _ in range(6):
            client_of_fit = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                client_of_fit.wait(took * rng.uniform(0.15, 0.5))
            if client_of_fit.poll() is None:
                client_of_fit.kill()
                client_of_fit.wait()
                kills += 1
            elif kills:
                break
            else:  # the first fit found its workers cold, or the machine busy
                took /= 2
                for left in ("kept", "fit"):
                    shutil.rmtree(tmp_path / left, ignore_errors=True)
        if (tmp_path / "fit").exists():
            Fit.from_zarr(tmp_path / "fit")  # whole, or not there
        last = subprocess.run([*command, "--overwrite"], capture_output=True, text=True, timeout=300)
        assert last.returncode in (0, 3), last.stderr
        assert kills > 0
        assert_same_bits(Fit.from_zarr(tmp_path / "fit"), Fit.from_zarr(tmp_path / "whole"))
    finally:
        ended(running)


@pytest.mark.parametrize("limit", ["120MB", "250MB"])
def test_a_limit_too_small_for_anything_is_named(limit: str) -> None:
    """Also where workers are ended as they start."""
    with two_workers(memory_limit=limit) as cluster, Client(cluster):
        says = r"give every worker a memory limit of \d+\S* MiB|has had no worker for"
        with pytest.raises((ClusterLost, MemoryError), match=re.compile(says, re.IGNORECASE)):
            LowRankGLS(1).fit(DATA.system())
