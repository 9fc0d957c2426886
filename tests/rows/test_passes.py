"""Reads are counted, progress adds up, BLAS has one thread, unreadable chunks are named, object stores work."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

from lrgls_dask import Fit, LowRankGLS, System
from lrgls_dask.errors import UnreadableRows
from lrgls_dask.rows import block_plan
from lrgls_dask.rows.block import Block
from lrgls_dask.rows.layout import cut_rows
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.run_pass import run_pass
from support.buckets import s3_bucket
from support.counted import counted, counted_array
from support.fits import fit
from support.systems import dask_rows, simulate

pytestmark = pytest.mark.usefixtures("every_chunk_a_block")

ENGINES = ["compress", "stream"]
DATA = simulate("mixed", n=230)


# ---------------------------------------------------------------------------------- counted reads


def test_fit_and_choice_of_rank_read_each_chunk_once() -> None:
    store = counted(DATA)
    found = LowRankGLS("bic").fit(System.from_zarr(store)).result_
    assert len(found.selection) == 3
    assert store.of("X") == store.of("Y") == {1: 23}
    assert (found.n_passes, found.bytes_read) == (1, 230 * 14 * 8)
    assert found.std_errors.notnull().all()
    assert store.of("X") == {1: 23}  # inference reads nothing again


def test_xarray_reads_each_chunk_once() -> None:
    store = counted(simulate("shared", n=230))
    ds = xr.open_zarr(store, consolidated=False)
    system = System.from_xarray(ds, "Y", ["X"], obs="obs", equation="equation")
    LowRankGLS("bic").fit(system)
    assert store.of("X") == store.of("Y") == {1: 23}


@pytest.mark.filterwarnings("ignore:LowRankGLS. (not converged|idiosyncratic)")
def test_slices_of_one_dask_array_are_read_once() -> None:
    store = counted(DATA)
    X = da.from_zarr(zarr.open_array(store, path="X", mode="r"))
    Y = da.from_zarr(zarr.open_array(store, path="Y", mode="r"))
    LowRankGLS("bic").fit(System.from_arrays(Y, [X[:, [0, 2 + j]] for j in range(6)]))
    assert store.of("X") == store.of("Y") == {1: 23}


@pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic")
@pytest.mark.parametrize("lazy", [False, True], ids=["zarr", "dask"])
@pytest.mark.parametrize("largest", [64 * 2**20, 1], ids=["joined", "unjoined"])
def test_unequal_chunks_are_read_once(lazy: bool, largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no cut suits both arrays, and blocks grow too large to join, a chunk still is not read twice."""
    monkeypatch.setattr("lrgls_dask.rows.layout.LARGEST_BLOCK_BYTES", largest)
    X, x_gets = counted_array(DATA.X[:, :2], 30)
    Y, y_gets = counted_array(DATA.Y, 70)
    system = System.from_arrays(*(map(da.from_zarr, (Y, X)) if lazy else (Y, X)))
    found = LowRankGLS(1).fit(system).result_
    assert Counter(x_gets.values()) == {1: 8}
    assert Counter(y_gets.values()) == {1: 4}
    np.testing.assert_allclose(
        found.params.values, fit(System.from_arrays(DATA.Y, DATA.X[:, :2]), rank=1).params.values, rtol=1e-9
    )


def test_stream_reads_each_chunk_as_often_as_it_says() -> None:
    store = counted(DATA)
    found = LowRankGLS(2, engine="stream").fit(System.from_zarr(store)).result_
    trace = found.trace.set_index("step")
    assert found.n_passes == trace["passes"].iloc[-1]
    assert found.bytes_read == trace["bytes_read"].iloc[-1]
    assert store.of("X") == {found.n_passes: 23}
    assert trace["passes"].is_monotonic_increasing
    # X'X for the standard errors is one last pass, over X alone
    loop = trace.drop("covariance").iloc[-1]
    assert loop["passes"] == found.n_passes - 1
    assert store.of("Y") == {int(loop["passes"]): 23}
    assert loop["bytes_read"] == loop["passes"] * 230 * 14 * 8
    assert found.bytes_read == loop["bytes_read"] + 230 * 8 * 8


@pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic")
def test_a_plan_reads_nothing_and_prediction_reads_once() -> None:
    store = counted(DATA)
    system = System.from_zarr(store)
    model = LowRankGLS(1)
    model.plan(system)
    assert not store.of("X") and not store.of("Y")
    model.fit(system)
    lazy = model.predict(system)
    assert store.of("X") == {1: 23}
    lazy.compute(scheduler="synchronous")
    assert store.of("X") == {2: 23}
    assert store.of("Y") == {1: 23}


def first_row(block: Block, params: None) -> list[int]:
    """A kernel whose sum tells which blocks were added, and in which order."""
    return [block.start]


@pytest.mark.parametrize("n", [1, 2, 8, 9, 16, 17, 64, 65, 73, 129, 200, 513])
def test_every_block_is_added_once_in_the_order_of_the_rows(n: int) -> None:
    rows = System.from_arrays(da.zeros((n + 1, 2), chunks=((1,) * n + (1,), 2)), np.ones((n + 1, 1))).rows
    assert run_pass(rows, first_row, None, partial_bytes=8, meter=Meter()) == list(range(n + 1))


# ---------------------------------------------------------------------------------- progress, BLAS


@pytest.mark.parametrize("engine", ENGINES)
def test_progress_adds_up_to_the_bytes_of_every_pass(engine: str) -> None:
    calls: list[tuple[str, int, int]] = []
    found = LowRankGLS(2, engine=engine, progress=lambda *args: calls.append(args)).fit(DATA.system(dask_rows(10)))
    ends = [total for _, done, total in calls if done == total]
    assert len(ends) == found.result_.n_passes
    assert sum(ends) == found.result_.bytes_read
    assert all(0 < done <= total for _, done, total in calls)
    assert {label for label, _, _ in calls} >= ({"compress (QR)"} if engine == "compress" else {"OLS", "coefficients"})


@pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic")
def test_progress_reaches_the_client_from_a_cluster(client: Any) -> None:
    calls: list[tuple[str, int, int]] = []
    LowRankGLS(1, progress=lambda *args: calls.append(args)).fit(DATA.system(dask_rows(23)))
    assert calls[-1][1] == calls[-1][2] == 230 * 14 * 8


BLAS = """
import json, threading
import dask, numpy as np, threadpoolctl
from lrgls_dask import LowRankGLS, System
from lrgls_dask.rows import layout
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.run_pass import run_pass
from support.systems import dask_rows, simulate

layout.SMALL_BLOCK_BYTES, layout.BLOCKS_WANTED, layout.PARTIAL_SHARE = 1, 10**9, 0
system = simulate("mixed", n=230).system(dask_rows(10))
bad = System.from_arrays(dask_rows(10)(np.full((230, 3), np.nan)), np.ones((230, 1)))

def blas(block=None, params=None):
    return [i["num_threads"] for i in threadpoolctl.threadpool_info() if i["user_api"] == "blas"]

seen = {"before": blas()}
for turn in "abc":
    with dask.config.set(scheduler="synchronous" if turn == "b" else "threads", num_workers=3):
        seen[f"inside {turn}"] = run_pass(system.rows, blas, None, partial_bytes=8, meter=Meter())
        seen[f"after a pass {turn}"] = blas()
        LowRankGLS(2, engine="stream").fit(system)
        seen[f"after a fit {turn}"] = blas()
        try:
            LowRankGLS(1).fit(bad)
        except ValueError:
            threading.Event().wait(0.3)  # for tasks that were still running
            seen[f"after an error {turn}"] = blas()
print(json.dumps({key: sorted(set(value)) for key, value in seen.items()}))
"""


def test_blas_has_one_thread_inside_tasks_and_its_own_outside() -> None:
    """In a process of its own: limits that leak would reach every later test."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    ran = subprocess.run([sys.executable, "-c", BLAS], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    seen = json.loads(ran.stdout)
    assert len(seen) == 13
    assert {key: threads for key, threads in seen.items() if threads != [1 if "inside" in key else 2]} == {}


# ---------------------------------------------------------------------------------- unreadable chunks


@pytest.fixture
def torn(tmp_path: Path) -> Path:
    """A compressed store in which one chunk of Y holds other bytes."""
    path = tmp_path / "torn.zarr"
    DATA.system().to_zarr(path, row_chunk=10, compressors=zarr.codecs.ZstdCodec())
    chunk = path / "Y" / "c" / "7" / "0"
    assert chunk.stat().st_size > 100
    chunk.write_bytes(b"no zstd frame at all" * 10)
    return path


TORN = re.compile(r"Y: rows 70 to 79 cannot be read \(.+\)\. Restore or rewrite this chunk of the store\.")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_chunk_that_cannot_be_decoded_is_named(torn: Path, engine: str) -> None:
    with pytest.raises(UnreadableRows, match=TORN) as error:
        LowRankGLS(1, engine=engine).fit(System.from_zarr(torn))
    assert (error.value.name, error.value.start, error.value.stop) == ("Y", 70, 80)


def test_a_chunk_cut_short_is_named(tmp_path: Path) -> None:
    DATA.system().to_zarr(tmp_path / "cut.zarr", row_chunk=10)
    os.truncate(tmp_path / "cut.zarr" / "X" / "c" / "2" / "0", 100)
    with pytest.raises(UnreadableRows, match="X: rows 20 to 29 cannot be read"):
        LowRankGLS(1).fit(System.from_zarr(tmp_path / "cut.zarr"))


def test_a_cluster_names_the_chunk_too(torn: Path, client: Any) -> None:
    with pytest.raises(UnreadableRows, match=TORN):
        LowRankGLS(1).fit(System.from_zarr(torn))


# ---------------------------------------------------------------------------------- object stores


@pytest.fixture(scope="module")
def bucket() -> Iterator[dict[str, Any]]:
    """Storage options for a bucket on an S3-speaking server on loopback."""
    with s3_bucket("lrgls") as options:
        yield options


@pytest.mark.parametrize("engine", ENGINES)
def test_object_stores_hold_systems_and_fits(bucket: dict[str, Any], engine: str) -> None:
    rows, saved = f"s3://lrgls/{engine}.zarr", f"s3://lrgls/{engine}-fit.zarr"
    DATA.system(dask_rows(50)).to_zarr(rows, storage_options=bucket, row_chunk=50)
    system = System.from_zarr(rows, storage_options=bucket)
    found = LowRankGLS(2, engine=engine).fit(system).result_
    local = LowRankGLS(2, engine=engine).fit(DATA.system(dask_rows(50))).result_
    np.testing.assert_array_equal(found.params.values, local.params.values)
    found.to_zarr(saved, storage_options=bucket)
    back = Fit.from_zarr(saved, storage_options=bucket)
    np.testing.assert_array_equal(back.params.values, found.params.values)
    with pytest.raises(FileExistsError, match=re.escape(f"{saved} exists")):
        found.to_zarr(saved, storage_options=bucket)
    with pytest.raises(FileNotFoundError, match="no zarr store at s3://lrgls/none"):
        System.from_zarr("s3://lrgls/none.zarr", storage_options=bucket)


def test_edges_of_chunks_are_found_once_for_all_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for every block they would be work that grows as the square of the chunks."""
    asked: list[str] = []

    found = block_plan.edges_of
    monkeypatch.setattr(block_plan, "edges_of", lambda part: asked.append(part.name) or found(part))
    rows = System.from_arrays(*(da.zeros((3_000, width), chunks=(10, width)) + 1.0 for width in (4, 2))).rows
    plans = block_plan.plan_blocks(rows, cut_rows(rows, 1_000))
    assert len(plans) > 50
    assert len(asked) == len(rows.parts)


def test_pieces_of_blocks_are_the_rows_of_their_chunks() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        edges = np.unique(np.append(rng.integers(0, 60, 6), [0, 60]))
        bounds = np.unique(np.append(rng.integers(0, 60, 6), [0, 60]))
        values = [np.arange(a, b) for a, b in pairwise(edges.tolist())]
        for chunks, a, b in zip(block_plan._pieces("y", (0,), edges, bounds), bounds[:-1], bounds[1:], strict=True):
            got = np.concatenate([values[key[1]][first:last] for key, first, last in chunks.pieces])
            assert np.array_equal(got, np.arange(a, b))
