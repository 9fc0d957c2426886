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


def fit_often(path: Path, times: int) -> None:
    """From a store and from memory, by both engines, saved and opened; nothing may be left of any."""
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
    assert process.num_fds() <= first[0] + 2
    assert process.num_threads() <= first[1] + 2
    assert process.memory_info().rss <= first[2] + 32 * ROOM + times * ROOM // 100


@pytest.mark.filterwarnings("ignore:.*not converged")
@pytest.mark.parametrize("times", [6, pytest.param(500, marks=pytest.mark.slow)])
def test_in_one_process(times: int, tmp_path: Path) -> None:
    simulate("shared", n=240, K=4, k=1).system().to_zarr(tmp_path / "rows.zarr", row_chunk=60)
    fit_often(tmp_path / "rows.zarr", times)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*not converged")
def test_on_one_cluster(tmp_path: Path) -> None:
    simulate("shared", n=240, K=4, k=1).system().to_zarr(tmp_path / "rows.zarr", row_chunk=60)
    where = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "silence_logs": 50, "memory_limit": "700MB"}
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, **where) as cluster,
        Client(cluster) as client,
    ):
        fit_often(tmp_path / "rows.zarr", 500)
        kept = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
    assert kept == 0
