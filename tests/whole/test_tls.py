"""A cluster with certificates of `deploy/make_certificates.py`: the same bits, and nobody without one is let in."""

from __future__ import annotations

import os
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest
from distributed import Client
from distributed.security import Security

from lrgls_dask import LowRankGLS, System
from support.fits import assert_same_bits
from support.systems import simulate

SCRIPT = Path(__file__).parents[2] / "deploy" / "make_certificates.py"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls") / "certificates"
    made = subprocess.run([sys.executable, SCRIPT, "--out", folder], capture_output=True, text=True, check=True)
    assert made.stdout == f"export DASK_CONFIG={folder}/dask.yaml\n"
    return folder


def mine(folder: Path, role: str = "client") -> Security:
    files = {f"tls_{role}_cert": f"{folder}/{role}.pem", f"tls_{role}_key": f"{folder}/{role}-key.pem"}
    return Security(tls_ca_file=f"{folder}/ca.pem", require_encryption=True, **files)


@pytest.fixture
def address(certificates: Path, tmp_path: Path) -> Iterator[str]:
    """A scheduler and a worker, as the page starts them."""
    file, env = tmp_path / "scheduler.json", os.environ | {"DASK_CONFIG": f"{certificates}/dask.yaml"}
    words = [
        "--host",
        "127.0.0.1",
        "--no-dashboard",
        "--dashboard-address",
        "127.0.0.1:0",
        "--scheduler-file",
        str(file),
    ]
    start = [sys.executable, "-m", "dask"]
    scheduler = subprocess.Popen([*start, "scheduler", "--protocol", "tls", "--port", "0", *words], env=env)
    worker = subprocess.Popen([*start, "worker", *words, "--protocol", "tls", "--nthreads", "1"], env=env)
    try:
        with Client(scheduler_file=str(file), timeout=120, security=mine(certificates)) as first:
            first.wait_for_workers(1, timeout=120)
            yield first.scheduler.address
    finally:
        for process in (worker, scheduler):
            process.terminate()
            process.wait(30)


def test_keys_are_their_owners_alone(certificates: Path) -> None:
    assert {path.name for path in certificates.glob("*-key.pem")} == {
        f"{r}-key.pem" for r in ("scheduler", "worker", "client")
    }
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in [certificates, *certificates.iterdir()]} == {0}


def test_a_folder_that_is_there_is_left_alone(certificates: Path) -> None:
    again = subprocess.run([sys.executable, SCRIPT, "--out", certificates], capture_output=True, text=True)
    assert again.returncode == 1
    assert "exists. Choose another folder" in again.stderr


@pytest.mark.slow
def test_the_same_bits_behind_tls_and_nobody_without_a_certificate(
    address: str, certificates: Path, tmp_path: Path, every_chunk: None
) -> None:
    simulate("shared", n=240, K=4, k=1).system().to_zarr(tmp_path / "rows.zarr", row_chunk=60)
    system = System.from_zarr(tmp_path / "rows.zarr")
    assert address.startswith("tls://")
    with Client(address, security=mine(certificates)):
        inside = LowRankGLS(1).fit(system).result_
    with dask.config.set(scheduler="threads"):
        assert_same_bits(LowRankGLS(1).fit(system).result_, inside)
    stranger = tmp_path / "stranger"
    subprocess.run([sys.executable, SCRIPT, "--out", stranger], capture_output=True, check=True)
    trusting = mine(stranger)
    trusting.tls_ca_file = f"{certificates}/ca.pem"
    for refused in (
        lambda: Client(address.replace("tls", "tcp"), timeout=5),
        lambda: Client(address, timeout=5),
        lambda: Client(address, timeout=5, security=mine(stranger)),
        lambda: Client(address, timeout=5, security=trusting),  # who knows the scheduler, and is not known by it
    ):
        with pytest.raises((OSError, TypeError, TimeoutError, ssl.SSLError)):
            refused()
