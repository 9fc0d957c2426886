"""The page deploy/SSH.md against a real sshd on loopback, with keys and a port of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, SSHCluster

import lrgls_dask
from lrgls_dask import LowRankGLS, System
from support.fits import assert_same_bits
from support.systems import simulate

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(SSHD is None, reason="no sshd is installed")]
CONF = """Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/mine.pub
PidFile {folder}/sshd.pid
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
SetEnv PYTHONPATH={package} OPENBLAS_NUM_THREADS=1
"""


def listens(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def options(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """How this machine is reached over SSH."""
    for name in ("host", "mine"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it leaves its privileges
    package = Path(lrgls_dask.__file__).parents[1]
    (tmp_path / "sshd_config").write_text(CONF.format(port=port, folder=tmp_path, package=package))
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{port} {(tmp_path / 'host.pub').read_text()}")
    server = subprocess.Popen([str(SSHD), "-D", "-e", "-f", str(tmp_path / "sshd_config")])
    try:
        until = time.monotonic() + 30
        while not listens(port) and time.monotonic() < until:
            time.sleep(0.1)
        yield {
            "port": port,
            "username": getpass.getuser(),
            "known_hosts": str(tmp_path / "known_hosts"),
            "client_keys": [str(tmp_path / "mine")],
        }
    finally:
        server.terminate()
        server.wait(30)


def test_workers_over_ssh_give_the_same_bits(options, tmp_path: Path, every_chunk: None) -> None:
    pytest.importorskip("asyncssh")
    simulate("shared", n=240, K=4, k=1).system().to_zarr(tmp_path / "rows.zarr", row_chunk=60)
    system = System.from_zarr(tmp_path / "rows.zarr")
    expected = LowRankGLS(1).fit(system).result_
    closed = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    cluster = SSHCluster(
        ["127.0.0.1"] * 3,
        connect_options=options,
        scheduler_options={"host": "127.0.0.1", "port": 0, **closed},
        worker_options={"nthreads": 1, "memory_limit": "1GiB", "local_directory": str(tmp_path), **closed},
        remote_python=sys.executable,
    )
    with cluster, Client(cluster) as client:
        client.wait_for_workers(2, timeout=120)
        parents = set(client.run(os.getppid).values())
        assert os.getpid() not in parents
        assert_same_bits(LowRankGLS(1).fit(system).result_, expected)


def test_a_host_that_nobody_knows_is_not_spoken_to(options, tmp_path: Path) -> None:
    """As the page says of `known_hosts`."""
    asyncssh = pytest.importorskip("asyncssh")
    (tmp_path / "known_hosts").write_text("")
    with pytest.raises((asyncssh.HostKeyNotVerifiable, RuntimeError), match=r"not trusted|failed to start"):
        SSHCluster(["127.0.0.1"] * 2, connect_options=options, scheduler_options={"port": 0})
