"""The page deploy/GATEWAY.md with the real server and its local backend."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import lrgls_dask
from lrgls_dask import LowRankGLS, System
from support.fits import assert_same_bits
from support.systems import simulate

CONFIG = Path(__file__).parents[2] / "deploy" / "gateway.py"
SERVER = shutil.which("dask-gateway-server", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(SERVER is None, reason="dask-gateway-server is not installed")]


def listens(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A server of the page's, whose password is "of the test"."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = str(bound.getsockname()[1])
    env = os.environ | {
        "LRGLS_GATEWAY_PASSWORD": "of the test",
        "LRGLS_GATEWAY_PORT": port,
        "LRGLS_GATEWAY_FOLDER": str(tmp_path / "clusters"),
        "PATH": f"{Path(str(SERVER)).parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(lrgls_dask.__file__).parents[1]),
    }
    server = subprocess.Popen([str(SERVER), "--config", str(CONFIG)], env=env, cwd=tmp_path)
    try:
        until = time.monotonic() + 60
        while not listens(int(port)) and time.monotonic() < until:
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(60)


def test_a_cluster_of_a_gateway_gives_the_same_bits(url: str, tmp_path: Path, every_chunk: None) -> None:
    gateway = pytest.importorskip("dask_gateway")
    simulate("shared", n=240, K=4, k=1).system().to_zarr(tmp_path / "rows.zarr", row_chunk=60)
    system = System.from_zarr(tmp_path / "rows.zarr")
    expected = LowRankGLS(1).fit(system).result_
    with gateway.Gateway(url, auth=gateway.BasicAuth(password="of the test")) as door:
        cluster = door.new_cluster()
        with cluster, cluster.get_client() as client:
            cluster.scale(2)
            client.wait_for_workers(2, timeout=120)
            limits = {worker["memory_limit"] for worker in client.scheduler_info()["workers"].values()}
            assert limits == {2 * 2**30}
            assert_same_bits(LowRankGLS(1).fit(system).result_, expected)
        assert door.list_clusters() == []


def test_nobody_comes_in_without_the_password(url: str) -> None:
    for headers in ({}, {"Authorization": "Basic bWU6YW5vdGhlcg=="}):
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            urllib.request.urlopen(urllib.request.Request(f"{url}/api/v1/clusters/", headers=headers), timeout=30)
        refused.value.close()
