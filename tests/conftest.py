"""Fixtures: rows cut into as many blocks as a test wants, a folder of its own, a real cluster of two processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster

from lrgls_dask.rows import layout

pytest.register_assert_rewrite("support")  # their assertions say what they found, as those of tests do


# What an idle cluster does for whoever looks at it: a tenth of a core, with two of them for a whole run of the tests.
UNWATCHED = {
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.worker.profile.enabled": False,
}


def pytest_configure() -> None:
    """One thread for the algebra of each process that is started from here: there are as many of those as cores."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    dask.config.set(UNWATCHED)
    for name, value in UNWATCHED.items():
        os.environ.setdefault(f"DASK_{name.replace('.', '__').replace('-', '_').upper()}", str(value))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what `slow_cases.txt` names: cases whose every parameter stands in a quicker one, and some long tests."""
    listed = set((Path(__file__).parent / "slow_cases.txt").read_text(encoding="utf-8").splitlines())
    for item in items:
        if item.nodeid in listed:
            item.add_marker(pytest.mark.slow)
    if not any("::" in given for given in config.args):
        files = {item.nodeid.split("::")[0] for item in items}
        gone = {each for each in listed if each.split("::")[0] in files} - {item.nodeid for item in items}
        if gone:
            raise pytest.UsageError(f"slow_cases.txt names what is no case of its file: {', '.join(sorted(gone))}")


@pytest.fixture(scope="module")
def small_blocks() -> Iterator[None]:
    """Cut the kilobytes of a test as gigabytes would be: some twenty blocks, every few of them a group of the tree."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "SMALL_BLOCK_BYTES", 1)
        patch.setattr(layout, "BLOCKS_WANTED", 20)
        patch.setattr(layout, "PARTIAL_SHARE", 0)
        yield


@pytest.fixture
def every_chunk_a_block(small_blocks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Join no chunks at all."""
    monkeypatch.setattr(layout, "BLOCKS_WANTED", 10**9)


@pytest.fixture
def every_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Join no chunks, for one test of a module whose others join them."""
    monkeypatch.setattr(layout, "SMALL_BLOCK_BYTES", 1)
    monkeypatch.setattr(layout, "BLOCKS_WANTED", 10**9)
    monkeypatch.setattr(layout, "PARTIAL_SHARE", 0)


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the test runs in, its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """Two worker processes of one thread each, on loopback."""
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        memory_limit="1GB",
    ) as running:
        yield running


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    """An active client of the cluster, for one test."""
    with Client(cluster) as connected:
        connected.wait_for_workers(2)
        yield connected
