"""Before a pass: other versions, stores that a worker does not see, too little memory, no workers: said at once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from distributed import Client, LocalCluster, Scheduler, Worker

from lrgls_dask import LowRankGLS, System
from lrgls_dask.errors import ClusterLost
from lrgls_dask.rows import ready, seen
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
    for name in ("ANSWER_WITHIN", "OPENED_WITHIN", "GIVEN_UP"):
        monkeypatch.setattr(ready, name, 600.0)


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


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses of workers, as often as each is asked something."""
    addresses: list[str] = []

    def counted(name):
        question = getattr(ready, name)

        async def ask(client, address, *what):
            addresses.append(address)
            return await question(client, address, *what)

        return ask

    for name in ("_ask_facts", "_ask_stores"):
        monkeypatch.setattr(ready, name, counted(name))
    return addresses


def test_workers_are_asked_once(client, store, asked) -> None:
    for _ in range(2):
        LowRankGLS(1, engine="stream").fit(System.from_zarr(os.path.abspath(store)))
    assert len(asked) == 2 * 2  # of two workers who they are, and whether they see the store


def test_a_worker_without_a_nanny_that_is_started_again_is_asked_again() -> None:
    """On the same port: nothing that the scheduler says of it is another, but the folder that it made."""

    async def facts_of_both() -> list[int]:
        found = []
        async with Scheduler(port=0, host="127.0.0.1", dashboard_address=None) as scheduler:
            at = {"host": "127.0.0.1", "dashboard": False, "nthreads": 1}
            async with Worker(scheduler.address, port=0, **at) as worker:
                port = worker.port
                async with Client(scheduler.address, asynchronous=True) as client:
                    for again in (False, True):
                        if again:
                            await worker.close()
                            worker = await Worker(scheduler.address, port=port, **at)
                        found.append(await asyncio.to_thread(asked_by, client))
                    await worker.close()
        return found

    def asked_by(client: Client) -> int:
        questions.clear()
        ready.check_workers(client)
        ready.check_workers(client)
        return len(questions)

    questions: list[str] = []
    with pytest.MonkeyPatch.context() as patch:

        async def ask(client, address):
            questions.append(address)
            return {"Python": ready._here()["Python"]}

        patch.setattr(ready, "_ask_facts", ask)
        assert asyncio.run(facts_of_both()) == [1, 1]


def test_one_that_does_not_answer_is_asked_once_and_holds_nothing_up(client, store, monkeypatch) -> None:
    """Neither a later pass nor a fit beside this one."""
    asked, held = [], []

    async def never(client, address, *what):
        asked.append(address)
        await asyncio.Event().wait()

    waits = ready.concurrent.futures.wait

    def wait(questions, timeout):
        held.append((timeout, ready._known[client].lock.acquire(blocking=False)))
        if held[-1][1]:
            ready._known[client].lock.release()
        return waits(questions, timeout)

    monkeypatch.setattr(ready, "ANSWER_WITHIN", 0.2)
    monkeypatch.setattr(ready, "_ask_facts", never)
    monkeypatch.setattr(ready.concurrent.futures, "wait", wait)
    LowRankGLS(1, engine="stream").fit(System.from_zarr(os.path.abspath(store)))
    assert len(asked) == 2
    assert all(free for _, free in held)
    assert [timeout > 0.0 for timeout, _ in held].count(True) == 1


@pytest.mark.parametrize("what", ["a store", "a version"])
def test_one_that_is_late_with_its_answer_looks_for_itself(client, elsewhere, store, monkeypatch, what) -> None:
    async def never(client, address, *what):
        await asyncio.Event().wait()

    for name in ("_ask_facts", "_ask_stores"):
        monkeypatch.setattr(ready, name, never)
    for name in ("ANSWER_WITHIN", "OPENED_WITHIN"):
        monkeypatch.setattr(ready, name, 0.0)
    says = r"the worker tcp://\S+ does not find X at the relative path \S*rows.zarr/X.*: nothing is there"
    if what == "a version":
        monkeypatch.setattr(ready, "own_version", lambda: "99.1.0")
        says = r"the worker tcp://\S+ has lrgls_dask \S+ and the client has 99.1.0. Give it the client's"
    with pytest.raises(ClusterLost, match=says):
        LowRankGLS(1).fit(System.from_zarr(store))


def test_a_place_is_told_from_every_other(tmp_path: Path) -> None:
    """Wrappers without a name, stores of the same name, an array that was written anew, arrays of Dask."""
    arrays = []
    for folder, shape in (("one", (4, 2)), ("other", (4, 2)), ("one", (5, 2))):
        zarr.save_array(tmp_path / folder, np.ones(shape), overwrite=True)
        stored = zarr.open_array(tmp_path / folder, mode="r")
        arrays += [stored, SimpleNamespace(array=stored, shape=shape), da.from_zarr(stored)]
    arrays += [zarr.create_array(zarr.storage.MemoryStore(), shape=(4, 2), dtype="f8") for _ in range(2)]
    arrays += [xr.open_zarr(store_of(tmp_path / "by xarray"), chunks=None, consolidated=False)["Y"].variable._data]
    places = [seen.place_of(SimpleNamespace(name="Y", array=each)) for each in arrays]
    same = {(0, 1), (3, 4), (6, 7)}  # one array, and what wraps it
    found = {(i, j) for j in range(len(places)) for i in range(j) if places[i] == places[j]}
    assert found <= same
    assert len(set(places)) == len(arrays) - len(found)


def store_of(path: Path) -> str:
    xr.Dataset({"Y": (("obs", "equation"), np.ones((4, 2)))}).to_zarr(path, consolidated=False)
    return str(path)


def test_notes_and_new_rows_make_no_other_array(client, store, monkeypatch) -> None:
    """Of a process that looks when these have come since."""
    monkeypatch.setattr(seen, "_found", set())
    system = System.from_zarr(os.path.abspath(store))
    passport = ready.check_stores(client, system.rows.parts)
    opened = zarr.open_group(store, mode="r+")
    opened["Y"].attrs["note"] = "seen"
    opened["X"].resize((300, opened["X"].shape[1]))
    passport.check()
    seen._found.clear()
    opened["X"].resize((180, opened["X"].shape[1]))
    with pytest.raises(ClusterLost, match="another array is there"):
        passport.check()


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
        for given in (None, "8GB"):  # what a user allows does not raise what a worker has
            with pytest.raises(MemoryError, match=rf"{says} GiB.* give every worker a memory limit of"):
                LowRankGLS(1, memory_limit=given).fit(System.from_zarr(store))
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
