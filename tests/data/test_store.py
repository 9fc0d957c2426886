"""Format 1 on disk: what goes in comes out, in bounded blocks, each source chunk once, complete or not at all."""

from __future__ import annotations

import os
from typing import Any

import dask.array as da
import fsspec
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from zarr.storage import LocalStore, MemoryStore

from lrgls_dask.data.storeplan import default_row_chunk
from lrgls_dask.system import System
from support.meaning import designs, stack
from support.strategies import ragged

N, K = 40, 3


def example(**options: Any) -> System:
    rng = np.random.default_rng(5)
    xs = [rng.normal(size=(N, p)) for p in (2, 1, 3)]
    return System.from_arrays(rng.normal(size=(N, K)), xs, equations=["a", "b/c", "d"], **options)


@settings(deadline=None, max_examples=50)
@given(y_chunks=ragged(N, 8), x_chunks=ragged(N, 8), row_chunk=st.integers(1, N + 5), split=st.booleans())
def test_round_trip_whatever_the_chunks(y_chunks, x_chunks, row_chunk, split):
    rng = np.random.default_rng(6)
    y, x, w = rng.normal(size=(N, K)), rng.normal(size=(N, 4)).astype("f4"), rng.uniform(size=N)
    plain = System.from_arrays(y, x, weights=w)
    lazy = System.from_arrays(
        da.from_array(y, chunks=(y_chunks, K)),
        da.from_array(x, chunks=(x_chunks, 2 if split else 4)),
        weights=da.from_array(w, chunks=(y_chunks,)),
    )
    store = MemoryStore()
    lazy.to_zarr(store, row_chunk=row_chunk)
    back = System.from_zarr(store)
    assert back.design.same_as(plain.design)
    assert designs(back) == designs(plain)
    assert_array_equal(stack((back.rows.weights,))[:, 0], w)
    assert back.rows.x[0].array.dtype == np.float32
    assert back.rows.x[0].row_chunks == back.rows.y[0].row_chunks
    assert max(back.rows.x[0].row_chunks) == min(row_chunk, N)


@pytest.mark.parametrize("place", ["path", "str", "file", "memory", "store", "local store"])
def test_every_kind_of_path(place, tmp_path):
    local = tmp_path / "s.zarr"
    target = {
        "path": local,
        "str": str(local),
        "file": f"file://{local}",
        "memory": f"memory://{tmp_path.name}/s.zarr",
        "store": MemoryStore(),
        "local store": LocalStore(local),
    }[place]
    example().to_zarr(target)
    assert designs(System.from_zarr(target)) == designs(example())
    changed = System.from_arrays(np.ones((5, 2)), np.ones((5, 1)))
    with pytest.raises(FileExistsError, match="exists"):
        changed.to_zarr(target)
    assert System.from_zarr(target).n_obs == N
    changed.to_zarr(target, overwrite=True)
    assert System.from_zarr(target).n_obs == 5
    assert os.listdir(tmp_path) in ([], ["s.zarr"])


def test_storage_options_reach_the_file_system(tmp_path):
    options = {"auto_mkdir": True}
    example().to_zarr(f"local://{tmp_path}/deep/s.zarr", storage_options=options)
    assert System.from_zarr(f"local://{tmp_path}/deep/s.zarr", storage_options=options).n_obs == N


LABELS = {
    "dates": pd.date_range("2001-01-01", periods=N, freq="D"),
    "zoned": pd.date_range("2001-01-01", periods=N, freq="h", tz="Europe/Berlin"),
    "seconds": pd.date_range("2001-01-01", periods=N, freq="s", unit="s"),
    "integers": pd.Index(range(5, N + 5)),
    "floats": pd.Index(np.linspace(0, 1, N)),
    "strings": pd.Index([f"näme {i}" for i in range(N)]),
    "mixed": pd.Index([1, "1", *range(2, N)], dtype=object),
    "panel": pd.MultiIndex.from_product([["US", "DE"], pd.date_range("2001", periods=N // 2)]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_row_labels_survive(kind, tmp_path):
    rng = np.random.default_rng(7)
    frame = pd.DataFrame(rng.normal(size=(N, 2)), index=LABELS[kind], columns=["u", "v"])
    System.from_arrays(frame, np.ones((N, 1))).to_zarr(tmp_path / "s.zarr")
    back = System.from_zarr(tmp_path / "s.zarr")
    assert "labels on disk" in repr(back) and "obs" not in vars(back)
    assert back.obs.tolist() == LABELS[kind].tolist()


@pytest.mark.parametrize("labels", [("a", "b"), (1, 2), ((1, "x"), (2, "y")), (1, "1"), (1.5, True)])
def test_equation_labels_survive_with_their_types(labels):
    store = MemoryStore()
    System.from_arrays(np.ones((5, 2)), np.ones((5, 1)), equations=labels).to_zarr(store)
    back = System.from_zarr(store).equations
    assert back == labels and [type(label) for label in back] == [type(label) for label in labels]


@pytest.mark.parametrize("groups", [np.arange(N) // 4, np.array(["u", "v"] * (N // 2)), da.arange(N, chunks=7)])
def test_groups_survive(groups):
    store = MemoryStore()
    example(groups=groups).to_zarr(store, row_chunk=16)
    assert_array_equal(np.asarray(System.from_zarr(store).groups.array[:]), np.asarray(groups))


def test_plain_xarray_opens_it(tmp_path):
    system = System.from_arrays(
        xr.DataArray(
            np.ones((N, 2)),
            dims=("time", "firm"),
            coords={"time": pd.date_range("2001", periods=N), "firm": ["u", "v"]},
        ),
        np.ones((N, 1)),
        regressors=["const"],
    )
    system.to_zarr(tmp_path / "s.zarr", row_chunk=16)
    with xr.open_zarr(tmp_path / "s.zarr") as opened:  # warnings are errors here
        assert opened["Y"].dims == ("time", "firm") and opened["X"].dims == ("time", "regressor")
        assert opened["Y"].chunks == ((16, 16, 8), (2,)) and opened["X"].chunks == ((16, 16, 8), (1,))
        assert opened["time"].values[1] == np.datetime64("2001-01-02")
        assert opened.attrs == {"lrgls_format": 1}


def test_shared_designs_come_back_as_one_group_and_unequal_terms_are_kept():
    x = np.random.default_rng(8).normal(size=(N, 2))
    system = System.from_arrays(np.ones((N, 3)), [x, x, x], regressors=[["p", "q"], ["p", "q"], ["p", "r"]])
    store = MemoryStore()
    system.to_zarr(store)
    back = System.from_zarr(store)
    assert back.design.terms == system.design.terms and len(back.design.groups) == 1


def test_a_lost_chunk_reads_as_nan_not_as_zero(tmp_path):
    example().to_zarr(tmp_path / "s.zarr", row_chunk=10)
    (tmp_path / "s.zarr" / "X" / "c" / "1" / "0").unlink()
    x = stack(System.from_zarr(tmp_path / "s.zarr").rows.x)
    assert np.isnan(x[10:20]).all() and not np.isnan(x[:10]).any()


def test_the_store_never_aliases_the_users_memory():
    y, x = np.ones((5, 1)), np.ones((5, 1))
    store = MemoryStore()
    System.from_arrays(y, x).to_zarr(store)
    x[:] = 7
    assert stack(System.from_zarr(store).rows.x).max() == 1


class Counting:
    """An array that notes which rows are asked for."""

    def __init__(self, values: np.ndarray, fail_at: int | None = None) -> None:
        self.values, self.fail_at, self.asked = values, fail_at, []
        self.shape, self.dtype, self.ndim, self.chunks = values.shape, values.dtype, values.ndim, (6, values.shape[1])

    def __getitem__(self, rows: slice) -> np.ndarray:
        self.asked.append((rows.start, rows.stop))
        if self.fail_at is not None and rows.start >= self.fail_at:
            raise OSError("disk gone")
        return self.values[rows]


@pytest.mark.parametrize("row_chunk", [1, 4, 6, 7, 12, 40])
def test_writing_reads_every_stored_chunk_once(row_chunk):
    x = Counting(np.random.default_rng(9).normal(size=(N, 2)))
    store = MemoryStore()
    System.from_arrays(np.ones((N, 1)), x).to_zarr(store, row_chunk=row_chunk)
    starts, stops = zip(*x.asked, strict=True)
    assert (0, *stops[:-1]) == starts and stops[-1] == N
    assert all(stop % 6 == 0 for stop in stops[:-1])
    assert_array_equal(stack(System.from_zarr(store).rows.x), x.values)


def test_slices_of_one_dask_array_are_computed_once_per_chunk():
    made = []

    def make(block_info: Any = None) -> np.ndarray:
        made.append(block_info[None]["chunk-location"])
        return np.random.default_rng(0).normal(size=block_info[None]["chunk-shape"])

    big = da.map_blocks(make, chunks=((10,) * 4, (2,), (3,)), dtype=float, meta=np.empty((0, 0, 0)))
    system = System.from_arrays(big[:, 0, :2], [big[:, 1, :], big[:, 0, 2:]])
    system.to_zarr(MemoryStore(), row_chunk=20)
    assert sorted(made) == [(i, 0, 0) for i in range(4)]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("place", ["local", "memory", "store"])
def test_a_failure_half_way_leaves_nothing_behind(place, overwrite, tmp_path):
    target = {"local": tmp_path / "s.zarr", "memory": f"memory://{tmp_path.name}/s.zarr", "store": MemoryStore()}[place]
    if overwrite:
        example().to_zarr(target)
    broken = System.from_arrays(np.ones((N, 1)), Counting(np.ones((N, 2)), fail_at=12))
    with pytest.raises(OSError, match="disk gone"):
        broken.to_zarr(target, row_chunk=6, overwrite=overwrite)
    if overwrite and place != "store":  # a store object has no place beside it to write to
        assert designs(System.from_zarr(target)) == designs(example())
    else:
        with pytest.raises(FileNotFoundError):
            System.from_zarr(target)
    assert os.listdir(tmp_path) == (["s.zarr"] if overwrite and place == "local" else [])
    left = fsspec.filesystem("memory").find(f"/{tmp_path.name}")
    assert all("/s.zarr/" in name for name in left) and bool(left) == (overwrite and place == "memory")


def test_a_system_may_overwrite_the_store_it_reads(tmp_path):
    example().to_zarr(tmp_path / "s.zarr", row_chunk=7)
    System.from_zarr(tmp_path / "s.zarr").to_zarr(tmp_path / "s.zarr", row_chunk=9, overwrite=True)
    back = System.from_zarr(tmp_path / "s.zarr")
    assert designs(back) == designs(example()) and back.rows.x[0].row_chunks == (9, 9, 9, 9, 4)


def test_default_chunks_are_16_megabytes_in_step_with_the_source():
    def chunk(x_rows: int, q: int, k: int) -> int:
        x = da.zeros((10**8, q), chunks=(x_rows, -1))
        return default_row_chunk(System.from_arrays(da.zeros((10**8, k), chunks=(10**4, -1)), x).rows)

    assert chunk(10_000, 250, 50) == 10_000  # 24 MB as they are: kept
    assert chunk(1_000, 250, 50) == 6_000
    assert chunk(10**7, 250, 50) == 2**24 // 2400
    assert chunk(1_000, 10, 1000) == 2**24 // 8080  # Y is the wider
    assert chunk(1_000, 1000, 900) == 1_000
    assert default_row_chunk(example().rows) == N


def test_compressors_are_off_unless_asked_for(tmp_path):
    example().to_zarr(tmp_path / "plain.zarr")
    example().to_zarr(tmp_path / "packed.zarr", compressors=zarr.codecs.ZstdCodec(level=1))
    packed = zarr.open_group(tmp_path / "packed.zarr", mode="r")
    assert zarr.open_group(tmp_path / "plain.zarr", mode="r")["X"].compressors == (zarr.codecs.Crc32cCodec(),)
    assert len(packed["X"].compressors) == 2
    assert designs(System.from_zarr(packed)) == designs(example())


# ---- stores that others wrote


@pytest.mark.parametrize("version", [2, 3])
def test_a_store_that_xarray_wrote(version, tmp_path):
    rng = np.random.default_rng(10)
    ds = xr.Dataset(
        {"Y": (("day", "firm"), rng.normal(size=(N, 2))), "X": (("day", "regressor"), rng.normal(size=(N, 3)))},
        coords={"day": pd.date_range("2001", periods=N), "firm": [7, 8]},
    )
    ds.to_zarr(tmp_path / "s.zarr", zarr_format=version, consolidated=False)
    system = System.from_zarr(tmp_path / "s.zarr")
    assert system.equations == (7, 8) and system.regressors == ("x0", "x1", "x2")
    assert system.dims == ("day", "firm") and system.obs.tolist() == ds.indexes["day"].tolist()
    assert_array_equal(stack(system.rows.x), ds["X"].values)


def test_sharded_arrays_are_read_by_the_shard():
    group = zarr.open_group(MemoryStore(), mode="w")
    group.create_array("Y", data=np.ones((N, 2)), chunks=(4, 2), shards=(16, 2))
    group.create_array("X", data=np.ones((N, 1)), chunks=(8, 1))
    system = System.from_zarr(group)
    assert system.rows.y[0].row_chunks == (16, 16, 8) and system.rows.x[0].row_chunks == (8,) * 5
    assert system.obs is None


def separate(keys: list[str], labels: list[str] | None = None) -> zarr.Group:
    group = zarr.open_group(MemoryStore(), mode="w")
    group.create_array("Y", data=np.ones((N, len(keys))), dimension_names=("obs", "equation"))
    if labels is not None:
        array = group.create_array("equation", shape=(len(labels),), dtype=str)
        array[:] = np.array(labels, dtype=object)
    for j, key in enumerate(keys):
        group.create_array(f"X/{key}", data=np.full((N, j + 1), float(j + 1)))
    return group


def test_one_array_for_each_equation():
    group = separate(["a", "b"], ["b", "a"])
    group["X/a"].attrs["regressors"] = ["const"]
    system = System.from_zarr(group)
    assert system.equations == ("b", "a")
    assert system.design.terms == (("x0", "x1"), ("const",))
    assert [part.name for part in system.rows.x] == ["X/b", "X/a"]
    assert designs(system)["b"]["x1"] == [2.0] * N
    assert System.from_zarr(separate(["0", "1"])).equations == ("0", "1")


def test_parts_are_the_stored_arrays_themselves():
    store = MemoryStore()
    example().to_zarr(store)
    parts = System.from_zarr(store).rows.parts
    assert [part.name for part in parts] == ["X", "Y"]
    assert all(isinstance(part.array, zarr.Array) for part in parts)
