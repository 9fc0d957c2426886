"""Many fits, one after another: memory, files, threads and what a scheduler keeps stay as they were."""

from __future__ import annotations

import gc
from pathlib import Path

import psutil
import pytest
from distributed import Client, LocalCluster

from lrgls_dask import Fit, LowRankGLS, System
from support.systems import simulate

WARM = 3  # fits after which all is imported, and what is kept has been filled
ROOM = 2**20  # bytes by which 100 fits may grow, of what allocators do not give back


def left_of(path: Path, times: int) -> tuple[int, int, int]:
    """Files, threads and bytes of memory that fits of a store by both engines, saved and opened, leave behind."""
    process, first = psutil.Process(), (0, 0, 0)
    for number in range(WARM + times):
        for engine in ("stream", "compress"):
            fit = LowRankGLS(1, engine=engine, max_sweeps=5, rel_tol=1e-3).fit(System.from_zarr(path)).result_
        if number % 10 == 0:
            fit.to_zarr(path.parent / "fit.zarr", overwrite=True)
            Fit.from_zarr(path.parent / "fit.zarr")
        if number == WARM:
            gc.collect()
            first = (process.num_fds(), process.num_threads(), process.memory_info().rss)
    gc.collect()
    last = (process.num_fds(), process.num_threads(), process.memory_info().rss)
    return last[0] - first[0], last[1] - first[1], last[2] - first[2]


def most_left(times: int) -> tuple[int, int, int]:
    return 2, 2, 32 * ROOM + times * ROOM // 100


@pytest.mark.filterwarnings("ignore:.*not converged")
@pytest.mark.parametrize("times", [6, pytest.param(500, marks=pytest.mark.slow)])
def test_in_one_process(times: int, tmp_path: Path) -> None:
    simulate("shared", n=240, K=4, k=1).system().to_zarr(tmp_path / "rows.zarr", row_chunk=60)
    left = left_of(tmp_path / "rows.zarr", times)
    assert all(each <= most for each, most in zip(left, most_left(times), strict=True)), left


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*not converged")
def test_on_one_cluster(tmp_path: Path) -> None:
    simulate("shared", n=240, K=4, k=1).system().to_zarr(tmp_path / "rows.zarr", row_chunk=60)
    where = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "silence_logs": 50, "memory_limit": "700MB"}
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, **where) as cluster,
        Client(cluster) as client,
    ):
        left = left_of(tmp_path / "rows.zarr", 500)
        kept = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
    assert kept == 0
    assert all(each <= most for each, most in zip(left, most_left(500), strict=True)), left
