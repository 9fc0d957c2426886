"""The page deploy/SLURM.md on a real SLURM of one node: workers in jobs, and fits in jobs whose time ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client

from lrgls_dask import Fit, LowRankGLS, System
from lrgls_dask.simulate import simulate_to_zarr
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


def test_a_fit_goes_on_in_the_next_job_to_the_same_bits(env, tmp_path: Path) -> None:
    """The first job's minute ends in the middle of the fit: it had begun it late."""
    simulate_to_zarr(tmp_path / "rows.zarr", n_obs=1_500_000, n_equations=20, n_regressors=4, rank=2)
    options = [
        "--rank",
        "2",
        "--engine",
        "stream",
        "--algorithm",
        "em",
        "--rel-tol",
        "1e-13",
        "--max-sweeps",
        "60",
        "--no-accelerate",
    ]
    words = " ".join(["rows.zarr", *options, "--out fit.zarr --checkpoint kept --log fit.jsonl"])
    (tmp_path / "fit.sh").write_text(
        f"#!/bin/bash\ntest -e fit.zarr && exit 0\ntest -e fit.jsonl || sleep 45\n"
        f"exec {sys.executable} -m lrgls_dask.cli fit {words}\n"
    )
    job = ["--array=1-9%1", "--time=1", "--chdir", str(tmp_path), "--output", str(tmp_path / "%a.out"), "fit.sh"]
    done = subprocess.run(
        ["sbatch", "--wait", *job], env=env, capture_output=True, text=True, cwd=tmp_path, timeout=580
    )
    said = "\n".join(path.read_text() for path in sorted(tmp_path.glob("*.out")))
    assert (tmp_path / "fit.zarr").exists(), f"{done.stderr}{said}"
    assert "DUE TO TIME LIMIT" in said
    lines = [json.loads(line) for line in (tmp_path / "fit.jsonl").read_text().splitlines()]
    assert len({line["fit"] for line in lines if "fit" in line}) > 1
    system = System.from_zarr(tmp_path / "rows.zarr")
    with pytest.warns(UserWarning):
        whole = (
            LowRankGLS(2, engine="stream", algorithm="em", rel_tol=1e-13, max_sweeps=60, accelerate=False)
            .fit(system)
            .result_
        )
    assert_same_bits(Fit.from_zarr(tmp_path / "fit.zarr"), whole)
