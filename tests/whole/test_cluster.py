"""The same bits from threads, one worker and two; a killed worker changes nothing; errors arrive as raised."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster

from lrgls_dask import Fit, FitWarning, LowRankGLS, System
from lrgls_dask.errors import BadValues
from support.fits import assert_same_bits, fit
from support.systems import dask_rows, simulate

pytestmark = pytest.mark.usefixtures("every_chunk_a_block")

ENGINES = ["compress", "stream"]
QUICK: dict[str, Any] = {"rel_tol": 1e-3}  # a few passes are enough to see a digit move
DATA = simulate("mixed", n=600, weighted=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cluster") / "rows.zarr"
    DATA.system().to_zarr(path, row_chunk=6)
    return path


@pytest.fixture(scope="module")
def expected(store: Path, small_blocks: None) -> dict[str, Fit]:
    """By one thread, one block after the other."""
    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="synchronous"):
        patch.setattr("lrgls_dask.rows.layout.BLOCKS_WANTED", 10**9)
        return {engine: fit(System.from_zarr(store), engine=engine, **QUICK) for engine in ENGINES}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("workers", [1, 2, pytest.param(5, marks=pytest.mark.slow)])
def test_threads_give_the_same_bits(store: Path, expected: dict[str, Fit], engine: str, workers: int) -> None:
    with dask.config.set(scheduler="threads", num_workers=workers):
        assert_same_bits(fit(System.from_zarr(store), engine=engine, **QUICK), expected[engine])


@pytest.mark.parametrize("engine", ENGINES)
def test_equal_chunks_give_the_same_bits_from_zarr_and_dask(expected: dict[str, Fit], engine: str) -> None:
    assert_same_bits(fit(DATA.system(dask_rows(6)), engine=engine, **QUICK), expected[engine])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_cluster_of_two_processes_gives_the_same_bits(client, store, expected, engine) -> None:
    assert len(client.scheduler_info(n_workers=-1)["workers"]) == 2
    assert_same_bits(fit(System.from_zarr(store), engine=engine, **QUICK), expected[engine])
    assert_same_bits(fit(DATA.system(dask_rows(6)), engine=engine, **QUICK), expected[engine])


@pytest.mark.slow
def test_a_cluster_of_one_process_gives_the_same_bits(store: Path, expected: dict[str, Fit]) -> None:
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, host="127.0.0.1", dashboard_address="127.0.0.1:0") as one,
        Client(one),
    ):
        for engine in ENGINES:
            assert_same_bits(fit(System.from_zarr(store), engine=engine, **QUICK), expected[engine])


@pytest.mark.parametrize("engine", ENGINES)
def test_numpy_rows_are_sent_to_the_workers(client: Client, engine: str, monkeypatch) -> None:
    monkeypatch.setattr("lrgls_dask.rows.layout.BLOCKS_WANTED", 20)
    inside = fit(DATA.system(), engine=engine, **QUICK)
    with dask.config.set(scheduler="threads"):
        assert_same_bits(fit(DATA.system(), engine=engine, **QUICK), inside)


@pytest.mark.parametrize("engine", ENGINES)
def test_persisted_rows_are_used_where_they_are(client: Client, engine: str, expected: dict[str, Fit]) -> None:
    system = DATA.system(lambda a: da.from_array(a, chunks=(6, *a.shape[1:])).persist())
    assert_same_bits(fit(system, engine=engine, **QUICK), expected[engine])


# ---------------------------------------------------------------------------------- what travels, what dies


def sent(dask_worker: Any) -> int:
    return sum(entry["total"] for entry in dask_worker.transfer_outgoing_log)


def test_bytes_between_workers_are_a_small_part_of_the_bytes_read(client: Client, tmp_path: Path) -> None:
    data = simulate("mixed", n=20_000)
    data.system().to_zarr(tmp_path / "rows.zarr", row_chunk=100)
    system = System.from_zarr(tmp_path / "rows.zarr")
    before = sum(client.run(sent).values())
    found = LowRankGLS(2).fit(system).result_
    moved = sum(client.run(sent).values()) - before
    assert found.bytes_read == 20_000 * 14 * 8
    assert moved < 0.1 * found.bytes_read


def die_once(block: np.ndarray, marker: str, block_info: Any = None) -> np.ndarray:
    """The block itself; whoever works on block 50 first is killed."""
    if block_info[0]["chunk-location"][0] == 50:
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return block
        os.kill(os.getpid(), signal.SIGKILL)
    return block


@pytest.mark.parametrize("engine", ENGINES)
def test_a_worker_killed_in_the_middle_changes_nothing(tmp_path: Path, store: Path, expected, engine: str) -> None:
    group = zarr.open_group(store, mode="r")
    marker = str(tmp_path / "killed")
    Y = da.from_zarr(group["Y"]).map_blocks(die_once, marker, dtype=float)
    incidence = System.from_zarr(store).design.incidence()
    system = System.from_arrays(
        Y, da.from_zarr(group["X"]), incidence=incidence, weights=da.from_zarr(group["weights"])
    )
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50
        ) as doomed,
        Client(doomed) as connected,
    ):
        before = set(connected.run(os.getpid).values())
        found = fit(system, engine=engine, **QUICK)
        connected.wait_for_workers(2)
        assert len(before & set(connected.run(os.getpid).values())) == 1
    assert os.path.exists(marker)
    assert_same_bits(found, expected[engine])


def test_errors_arrive_as_they_were_raised_and_the_cluster_lives_on(client, store, expected) -> None:
    Y = DATA.Y.copy()
    Y[457:460, 2] = np.nan
    labels = ["NoDur", "Durbl", "Manuf", "Enrgy", "HiTec", "Telcm"]
    bad = System.from_arrays(da.from_array(Y, chunks=(10, 6)), da.from_array(DATA.X, chunks=(10, 8)), equations=labels)
    with pytest.raises(
        BadValues, match=r"Y, equation 'Manuf': NaN value at row 457 \(3 in the chunk of rows 450 to 459"
    ):
        LowRankGLS(1).fit(bad)
    collinear = np.column_stack([DATA.X, DATA.X[:, 1] + DATA.X[:, 2]])
    with pytest.raises(np.linalg.LinAlgError, match="columns 'x1', 'x2' and 'x8' are collinear"):
        LowRankGLS(1).fit(System.from_arrays(DATA.Y, collinear))
    weightless = System.from_arrays(dask_rows(10)(DATA.Y), dask_rows(10)(DATA.X), weights=da.zeros(600, chunks=10))
    with pytest.raises(ValueError, match="weights: no row has a positive weight"):
        LowRankGLS(1).fit(weightless)
    assert_same_bits(fit(System.from_zarr(store), engine="compress", **QUICK), expected["compress"])


def test_warnings_are_given_by_the_client(client: Client) -> None:
    Y = DATA.Y.copy()
    Y[:, 4] = 3.0
    with pytest.warns(FitWarning, match="a constant response or a perfect fit in equation 'y4'"):
        LowRankGLS(1).fit(System.from_arrays(dask_rows(100)(Y), DATA.X[:, :2]))
