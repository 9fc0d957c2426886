"""The page deploy/SLURM.md on a real SLURM of one node: workers in jobs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client

from lrgls_dask import LowRankGLS, System
from support.fits import assert_same_bits
from support.slurm import slurm, why_not
from support.systems import simulate

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(why_not()), reason=why_not())]


@pytest.fixture
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with slurm(tmp_path_factory.mktemp("slurm")) as found:
        yield found


def test_workers_in_jobs_give_the_same_bits(env, tmp_path: Path, monkeypatch, every_chunk: None) -> None:
    jobqueue = pytest.importorskip("dask_jobqueue")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    simulate("shared", n=240, K=4, k=1).system().to_zarr(tmp_path / "rows.zarr", row_chunk=60)
    system = System.from_zarr(tmp_path / "rows.zarr")
    expected = LowRankGLS(1).fit(system).result_
    cluster = jobqueue.SLURMCluster(
        cores=1,
        processes=1,
        memory="1GB",
        walltime="00:05:00",
        queue="all",
        interface="lo",
        python=sys.executable,
        local_directory=str(tmp_path),
        log_directory=str(tmp_path),
        job_directives_skip=["--mem"],
        scheduler_options={"dashboard_address": "127.0.0.1:0"},
        worker_extra_args=["--no-dashboard"],
    )
    with cluster, Client(cluster) as client:
        cluster.scale(jobs=2)
        client.wait_for_workers(2, timeout=120)
        assert_same_bits(LowRankGLS(1).fit(system).result_, expected)
