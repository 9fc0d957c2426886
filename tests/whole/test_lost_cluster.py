"""A cluster that cannot finish is given up within a minute, by name and with the way on; one that is slow is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster

from lrgls_dask import LowRankGLS, System
from lrgls_dask.errors import ClusterLost
from lrgls_dask.rows import cluster as attended
from support.systems import simulate

DATA = simulate("shared", n=240, K=4, k=1)


def slow_rows(seconds: float) -> System:
    """Rows of which every chunk of 60 takes so long."""

    def wait(block: np.ndarray) -> np.ndarray:
        time.sleep(seconds)
        return block

    lazy = da.from_array(DATA.Y, chunks=(60, -1)).map_blocks(wait, dtype=float, meta=DATA.Y[:0])
    return System.from_arrays(lazy, da.from_array(DATA.X, chunks=(60, -1)))


def stopping(pid: int, how: signal.Signals, seconds: float) -> subprocess.Popen[bytes]:
    """A process that sends another one a signal after so long."""
    return subprocess.Popen([sys.executable, "-c", f"import os, time; time.sleep({seconds}); os.kill({pid}, {how:d})"])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few seconds where users wait for more."""
    monkeypatch.setattr(attended, "SILENT", 3.0)
    monkeypatch.setattr(attended, "LOST", 12.0)
    monkeypatch.setattr(attended, "LOOK_EVERY", 0.5)
    monkeypatch.setattr(attended, "NANNY_WITHIN", 2.0)


@pytest.fixture
def version_of_one(client: Client) -> Iterator[str]:
    """The address of a worker that has another version of the package, for one test."""
    address = sorted(client.scheduler_info()["workers"])[1]

    def set_version(version: str) -> str:
        import lrgls_dask

        before, lrgls_dask.__version__ = lrgls_dask.__version__, version
        return before

    before = client.run(set_version, "0.0.9", workers=[address])[address]
    yield address
    client.run(set_version, before, workers=[address])


@pytest.mark.parametrize("how", ["compress", "stream", "bootstrap"])
def test_another_version_is_named_before_anything_is_sent(version_of_one: str, how: str) -> None:
    rows, began = slow_rows(0.0), []
    if how == "bootstrap":
        fitted = LowRankGLS(1).fit(simulate("shared", n=240, K=4, k=1).system()).result_
        with pytest.raises(ClusterLost, match=rf"{version_of_one} has lrgls_dask 0\.0\.9 and the client has"):
            fitted.bootstrap(4)
        return
    with pytest.raises(ClusterLost, match=rf"{version_of_one} has lrgls_dask 0\.0\.9 and the client has"):
        LowRankGLS(1, engine=how, progress=lambda *seen: began.append(seen)).fit(rows)


def test_the_same_version_is_no_news(client: Client) -> None:
    found = LowRankGLS(1).fit(slow_rows(0.0)).result_
    assert found.loglik == pytest.approx(LowRankGLS(1).fit(DATA.system()).result_.loglik, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("stopped_first", [True, False], ids=["before the pass", "in the pass"])
def test_a_stopped_worker_is_named(impatient: None, every_chunk: None, stopped_first: bool) -> None:
    """Both workers have chunks to work on, so that neither can be done without."""
    options: dict[str, Any] = {"processes": True, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=2, threads_per_worker=1, **options) as running, Client(running) as client:
        client.wait_for_workers(2)
        address, pid = next(iter(client.run(os.getpid).items()))
        assert LowRankGLS(1).fit(slow_rows(0.0)).result_.n_obs == 240  # packages are imported
        stop = stopping(pid, signal.SIGSTOP, 0.0 if stopped_first else 2.0)
        try:
            if stopped_first:
                stop.wait()
            with pytest.raises(ClusterLost, match=f"{address} has sent no heartbeat .* checkpoint="):
                LowRankGLS(1).fit(slow_rows(4.0))
        finally:
            os.kill(pid, signal.SIGCONT)
            stop.wait()


@pytest.mark.slow
def test_a_slow_worker_is_waited_for(impatient: None, client: Client) -> None:
    """Each task takes longer than a stopped worker is given."""
    assert LowRankGLS(1).fit(slow_rows(10.0)).result_.n_obs == 240


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_scheduler_that_goes_away_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: signal.Signals
) -> None:
    file = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    scheduler = subprocess.Popen(
        [
            *dask,
            "scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--no-dashboard",
            "--dashboard-address",
            "127.0.0.1:0",
            "--scheduler-file",
            str(file),
        ]
    )
    worker = subprocess.Popen(
        [
            *dask,
            "worker",
            "--host",
            "127.0.0.1",
            "--no-dashboard",
            "--dashboard-address",
            "127.0.0.1:0",
            "--no-nanny",
            "--scheduler-file",
            str(file),
        ]
    )
    killer = None
    try:
        with Client(scheduler_file=str(file), timeout=120) as client:
            client.wait_for_workers(1)
            assert LowRankGLS(1).fit(slow_rows(0.0)).result_.n_obs == 240
            monkeypatch.setattr(attended, "LOST", 12.0)
            killer = stopping(scheduler.pid, end, 2.0)
            with pytest.raises(ClusterLost, match=r"the scheduler tcp://127.0.0.1:\d+ .* checkpoint="):
                LowRankGLS(1).fit(slow_rows(5.0))
            with pytest.raises(ClusterLost, match="the scheduler"):
                LowRankGLS(1).fit(slow_rows(0.0))
            scheduler.kill()
    finally:
        for process in (scheduler, worker, killer):
            if process is not None:
                process.kill()
                process.wait()
