"""The server of the page deploy/GATEWAY.md, the real one, and its door."""

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

CONFIG = Path(__file__).parents[2] / "deploy" / "gateway.py"
SERVER = shutil.which("dask-gateway-server", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(SERVER is None, reason="dask-gateway-server is not installed")]


def answers(port: str) -> bool:
    """Its door opens before anybody is behind it."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5):
            return True
    except OSError as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        return False


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
        while not answers(port) and time.monotonic() < until:
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(60)


def test_nobody_comes_in_without_the_password(url: str) -> None:
    for headers in ({}, {"Authorization": "Basic bWU6YW5vdGhlcg=="}):
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            urllib.request.urlopen(urllib.request.Request(f"{url}/api/v1/clusters/", headers=headers), timeout=30)
        refused.value.close()
