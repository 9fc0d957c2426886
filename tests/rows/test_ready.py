"""Before a pass: other versions, stores that a worker does not see, too little memory, no workers: said at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster

from lrgls_dask import LowRankGLS, System
from lrgls_dask.errors import ClusterLost
from lrgls_dask.rows import ready
from support.systems import simulate

DATA = simulate("shared", n=240, K=4, k=1)


@pytest.fixture
def store(in_tmp_path: Path, every_chunk: None) -> str:
    """A store by a path that depends on where one stands."""
    DATA.system().to_zarr("rows.zarr", row_chunk=60)
    return "rows.zarr"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, every worker answers in time."""
    monkeypatch.setattr(ready, "ANSWER_WITHIN", 60.0)


@pytest.fixture
def elsewhere(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The workers stand in another folder."""
    before = client.run(os.getcwd)
    client.run(os.chdir, str(tmp_path_factory.mktemp("elsewhere")))
    yield
    for address, folder in before.items():
        client.run(os.chdir, folder, workers=[address])


@pytest.mark.parametrize(("name", "theirs"), [("Python", r"3\.\d+\.\d+"), ("numpy", r"\d+\.\d+")])
def test_versions_that_matter_are_named(client, store, name, theirs, monkeypatch) -> None:
    here = ready._here()
    monkeypatch.setattr(ready, "_here", lambda: here | {name: "99.1.0"})
    says = rf"the worker tcp://\S+ has {name} {theirs}\S* and the client has 99.1.0.* Install {name} 99.1.0 on every"
    with pytest.raises(ClusterLost, match=says):
        LowRankGLS(1).fit(System.from_zarr(store))


def test_workers_are_asked_once(client, store, monkeypatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(ready, "_asked_each", lambda *what, ask=ready._asked_each: asked.append(what) or ask(*what))
    for _ in range(2):
        LowRankGLS(1, engine="stream").fit(System.from_zarr(os.path.abspath(store)))
    assert len(asked) == 2  # who they are, and whether they see the store


def test_a_store_that_a_worker_does_not_see_is_named(client, elsewhere, store) -> None:
    """Its chunks would be read as missing, and every response with them."""
    for missing in ("raise", "em"):
        with pytest.raises(
            ClusterLost, match=r"does not find X at the relative path \S*rows.zarr/X.*: nothing is there"
        ):
            LowRankGLS(1, missing=missing).fit(System.from_zarr(store))
    assert LowRankGLS(1).fit(System.from_zarr(os.path.abspath(store))).result_.n_obs == 240


def test_another_store_in_its_place_is_named(client, elsewhere, store) -> None:
    (folder, *_) = client.run(os.getcwd).values()
    simulate("shared", n=120, K=4, k=1).system().to_zarr(f"{folder}/rows.zarr", row_chunk=60)
    with pytest.raises(ClusterLost, match=r"at the relative path \S*rows.zarr/X.*: another array is there"):
        LowRankGLS(1).fit(System.from_zarr(store))


def test_a_plan_is_held_against_the_workers_own_threshold(client, store) -> None:
    def set_target(share: float) -> None:
        dask.config.set({"distributed.worker.memory.target": share})

    address = sorted(client.scheduler_info()["workers"])[0]
    client.run(set_target, 0.27, workers=[address])
    try:
        says = (
            rf"limit is 257.49 MiB, of the worker {address}, which begins to spill at 27% of its memory limit of 0.93"
        )
        with pytest.raises(MemoryError, match=rf"{says} GiB.* give every worker a memory limit of"):
            LowRankGLS(1).fit(System.from_zarr(store))
    finally:
        client.run(set_target, 0.6, workers=[address])


def test_a_worker_too_small_for_anything_is_named(client, store, monkeypatch) -> None:
    monkeypatch.setattr(ready, "WORKER_BASE", 900 * 2**20)
    with pytest.raises(ClusterLost, match=r"limit of 0.93 GiB and stops working at 80% .* limit of 2.20 GiB or more"):
        LowRankGLS(1, memory_limit="8GB").fit(System.from_zarr(store))


def test_no_workers_are_named(store) -> None:
    with (
        LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as none,
        Client(none),
        dask.config.set({"distributed.scheduler.no-workers-timeout": "1s"}),
        pytest.raises(ClusterLost, match=r"has had no workers for 1 seconds\. Start some"),
    ):
        LowRankGLS(1).fit(System.from_zarr(store))
