"""What writing a store takes: chunks of X and Y together, a plan that holds, progress, a limit."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import zarr
from zarr.storage import MemoryStore

from lrgls_dask import System
from lrgls_dask.simulate import simulate_system, simulate_to_zarr

N = 6_000


def wide(n_equations: int, n_regressors: int, n_obs: int = N, rows: int = 1_000) -> System:
    y = da.zeros((n_obs, n_equations), chunks=(rows, -1))
    return System.from_arrays(y, da.ones((n_obs, n_regressors), chunks=(rows, -1)))


@pytest.mark.parametrize(("n_equations", "n_regressors"), [(10_000, 3), (3, 10_000), (2_000, 2_000), (40, 5)])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_chunk_is_of_all_columns_together(n_equations, n_regressors, weighted):
    system = wide(n_equations, n_regressors, 10**7, 10**6)
    columns = n_equations + n_regressors
    if weighted:
        weights = da.ones((10**7, n_equations), chunks=(10**6, -1))
        system = System.from_arrays(system.rows.y[0].array, system.rows.x[0].array, weights=weights)
        columns += n_equations
    plan = system.plan_to_zarr()
    assert plan.row_chunk == 2**24 // (8 * columns) and plan.chunk_bytes == 8 * columns * plan.row_chunk
    assert plan.stored_bytes == 8 * columns * 10**7
    assert plan.n_chunks == -(-(10**7) // plan.row_chunk)


@pytest.mark.parametrize("shape", [{"n_equations": 10_000, "n_regressors": 0, "n_shared": 3},
                                   {"n_equations": 50, "n_regressors": 5}])  # fmt: skip
def test_simulated_stores_too(shape, tmp_path):
    lazy = simulate_system(n_obs=10**6, rank=1, **shape).system.rows
    largest = max(sum(part.row_bytes for part in lazy.parts) * part.row_chunks[0] for part in lazy.parts)
    assert 4e6 < largest <= 16e6
    simulate_to_zarr(tmp_path / "s.zarr", n_obs=300, rank=1, **shape)
    group = zarr.open_group(tmp_path / "s.zarr", mode="r")
    assert sum(group[name].chunks[0] * group[name].chunks[1] * 8 for name in "XY") <= 16e6


def in_memory() -> System:
    rng = np.random.default_rng(1)
    return System.from_arrays(rng.normal(size=(N, 60)), rng.normal(size=(N, 40)))


def labelled(index: pd.DatetimeIndex = pd.date_range("2000", periods=N, freq="min")) -> System:  # noqa: B008
    y = pd.DataFrame(np.random.default_rng(1).normal(size=(len(index), 60)), index=index)
    x = pd.DataFrame(np.ones((len(index), 1)), index=index)
    return System.from_arrays(y, x, groups=np.arange(len(index)) % 7)


def stored() -> System:
    store = MemoryStore()
    in_memory().to_zarr(store, row_chunk=700)
    return System.from_zarr(store)


def uneven() -> System:
    rng = np.random.default_rng(1)
    y = da.from_array(rng.normal(size=(N, 60)), chunks=((5_000, 1_000), -1))
    return System.from_arrays(y, da.from_array(rng.normal(size=(N, 40)), chunks=(130, -1)))


SOURCES = {"in memory": in_memory, "labelled": labelled, "stored": stored, "uneven": uneven}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("row_chunk", "append"), [(None, False), (300, False), (300, True), (2_000, True)])
def test_no_more_is_held_than_was_planned(source, row_chunk, append, tmp_path):
    system = SOURCES[source]()
    if append:
        last = 2_100 if source == "labelled" else 0  # rows that are labelled are appended to others before them
        earlier = labelled(pd.date_range("1990", periods=last, freq="min")) if last else in_memory()
        earlier.to_zarr(tmp_path / "s.zarr", row_chunk=row_chunk)
    plan = system.plan_to_zarr(row_chunk=row_chunk)
    tracemalloc.start()
    if append:
        system.append_to_zarr(tmp_path / "s.zarr")
    else:
        system.to_zarr(tmp_path / "s.zarr", row_chunk=row_chunk)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < plan.work_bytes + 4e6  # what zarr and Dask need for themselves
    assert plan.peak > plan.work_bytes


def test_the_plan_reads_nothing_and_says_what_will_be(tmp_path):
    def never(block: np.ndarray) -> np.ndarray:
        raise AssertionError("was read")

    y = da.ones((N, 60), chunks=(1_000, -1)).map_blocks(never, dtype=float, meta=np.empty((0, 0)))
    text = str(System.from_arrays(y, np.ones((N, 1))).plan_to_zarr(tmp_path / "s.zarr", memory_limit="8GB"))
    for words in ("6,000 rows; 60 equations, 1 distinct", "1 of 6,000 rows, 2.79 MiB of X and Y", "free", "7.45 GiB"):
        assert words in text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("append", [False, True])
def test_a_limit_is_kept_before_anything_is_read_or_written(append, tmp_path):
    reads: list[Any] = []

    def look(block: np.ndarray) -> np.ndarray:
        reads.append(len(block))
        return block

    y = da.ones((N, 60), chunks=(N, -1)).map_blocks(look, dtype=float, meta=np.empty((0, 0)))
    system = System.from_arrays(y, np.ones((N, 1)))
    if append:
        System.from_arrays(np.ones((5, 60)), np.ones((5, 1))).to_zarr(tmp_path / "s.zarr")
    write = system.append_to_zarr if append else system.to_zarr
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(MemoryError, match=r"needs .* in this process; the limit is 0.93 MiB.*smaller chunks"):
        write(tmp_path / "s.zarr", memory_limit=975_000)
    assert not reads and sorted(tmp_path.rglob("*")) == before
    write(tmp_path / "s.zarr", memory_limit="16GB")
    assert reads


def test_a_disk_with_too_little_room_is_seen_before(tmp_path):
    system = wide(1_000, 10, 10**9, 10**5)
    with pytest.raises(OSError, match=r"needs .* of disk and .* are free. Choose another place, or pass compressors="):
        system.to_zarr(tmp_path / "s.zarr")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("source", SOURCES)
def test_progress_tells_all_bytes(source):
    said: list[tuple[str, int, int]] = []
    system, store = SOURCES[source](), MemoryStore()
    system.to_zarr(store, row_chunk=1_000, progress=lambda *each: said.append(each))
    total = N * system.rows.row_bytes
    assert [each[0] for each in said] == ["write"] * 6 and {each[2] for each in said} == {total}
    done = [each[1] for each in said]
    assert done == sorted(done) and done[-1] == total


def test_a_bar_is_shown(capsys, tmp_path):
    in_memory().to_zarr(tmp_path / "s.zarr", progress=True)
    assert "write: 100%" in capsys.readouterr().err
    in_memory().append_to_zarr(tmp_path / "s.zarr", progress=True)
    assert "append: 100%" in capsys.readouterr().err


COMPUTED = {
    "arrays": "system = System.from_arrays(random((n, 60), 0), random((n, 5), 1))",
    "arrays that are worked on": "y = random((n, 60), 0)\nsystem = System.from_arrays(y * y + 1, random((n, 5), 1))",
    "Parquet": "system = System.from_parquet('t.parquet', formula)",
    "a Dask frame": "system = System.from_frame(dd.read_parquet('t.parquet', split_row_groups=True), formula)",
    "text": "frame.to_csv('t.csv')\nsystem = System.from_frame(dd.read_csv('t.csv', blocksize='4MB'), formula)",
    "numbers of a Dask frame": "d = dd.read_parquet('t.parquet', split_row_groups=True)\n"
    "system = System.from_arrays(d[names[5:]], d[names[:5]])",
}
MEASURED = """
import numpy as np, pandas as pd, dask.array as da, dask.dataframe as dd
from lrgls_dask import System
n, rows = {n}, {rows}
names = [f"{{'y' if i > 4 else 'x'}}{{i}}" for i in range(65)]
frame = pd.DataFrame(np.random.default_rng(0).normal(size=(n, 65)), columns=names)
frame.to_parquet("t.parquet", row_group_size=rows)
formula = "{{y*}} ~ x0 + x1 + x2 + x3 + x4"
random = lambda shape, seed: da.random.default_rng(seed).normal(size=shape, chunks=(rows, -1))
{made}
del frame
plan = system.plan_to_zarr()
system.to_zarr("s.zarr")
(peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(plan.peak, 1024 * int(peak))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="where peaks of a process are known")
@pytest.mark.parametrize("source", COMPUTED)
@pytest.mark.parametrize("rows", [500, 8_000])
def test_rows_that_are_computed_take_what_is_planned_and_half_of_it(source, rows, in_tmp_path):
    script = MEASURED.format(n=8 * rows, rows=rows, made=COMPUTED[source])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    planned, peak = map(int, done.stdout.split())
    assert peak <= planned <= 2 * peak
