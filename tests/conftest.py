"""Fixtures: rows cut into as many blocks as a test wants, a folder of its own, a real cluster of two processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

from lrgls_dask.rows import layout

pytest.register_assert_rewrite("support")  # their assertions say what they found, as those of tests do


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
