"""Plain chunks are read as zarr reads them, and everything else is left to zarr."""

from __future__ import annotations

from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from lrgls_dask import LowRankGLS, System
from lrgls_dask.data.daskreads import zarr_behind
from lrgls_dask.data.plainchunks import PlainChunks, plain_if_possible
from support.damage import flipped


def stored(path: Path, values: np.ndarray, chunk: int, **options: object) -> zarr.Array:
    chunks = (chunk, *values.shape[1:])
    array = zarr.create_array(path, shape=values.shape, chunks=chunks, dtype=values.dtype, **options)  # type: ignore[arg-type]
    array[...] = values
    return array


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 60),
    chunk=st.integers(1, 70),
    columns=st.integers(0, 4),
    dtype=st.sampled_from(["f8", "f4", "i2", "u1"]),
    data=st.data(),
)
def test_any_rows_are_those_zarr_reads(
    tmp_path_factory: pytest.TempPathFactory, n: int, chunk: int, columns: int, dtype: str, data: st.DataObject
) -> None:
    shape = (n,) if columns == 0 else (n, columns)
    values = np.random.default_rng(n).integers(0, 100, shape).astype(dtype)
    array = stored(tmp_path_factory.mktemp("plain") / "a", values, chunk, compressors=None)
    plain = plain_if_possible(array)
    assert isinstance(plain, PlainChunks)
    start = data.draw(st.integers(0, n - 1))
    out = np.empty((data.draw(st.integers(1, n - start)), *shape[1:]), dtype)
    plain.read_into(out, start)
    assert np.array_equal(out, values[start : start + len(out)])


@pytest.mark.parametrize(
    ("dtype", "chunks", "options"),
    [
        ("f8", (5, 3), {}),  # compressed by default
        (">f8", (5, 3), {"compressors": None}),
        ("f8", (5, 2), {"compressors": None}),  # columns chunked
        ("f8", (5, 3), {"compressors": None, "shards": (10, 3)}),
        ("f8", (5, 3), {"compressors": None, "zarr_format": 2}),
        ("?", (5, 3), {"compressors": None}),
    ],
)
def test_other_arrays_are_left_to_zarr(tmp_path: Path, dtype: str, chunks: tuple[int, int], options: dict) -> None:
    array = zarr.create_array(tmp_path / "a", shape=(20, 3), chunks=chunks, dtype=dtype, **options)
    assert plain_if_possible(array) is array


@pytest.mark.parametrize("local", [True, False])
def test_a_local_disk_is_one_however_it_was_opened(tmp_path: Path, local: bool) -> None:
    values = np.arange(40.0).reshape(20, 2)
    stored(tmp_path / "a", values, 5, compressors=None)
    if local:
        source = da.from_zarr(str(tmp_path / "a"))
    else:
        memory = zarr.storage.FsspecStore.from_url("memory://plain", read_only=False)
        array = zarr.create_array(memory, shape=(20, 2), chunks=(5, 2), dtype="f8", compressors=None, overwrite=True)
        array[...] = values
        source = da.from_zarr(array)
    found = plain_if_possible(zarr_behind(source))
    assert isinstance(found, PlainChunks) == local
    assert np.array_equal(found[:], values)
    if local:
        out = np.empty((7, 2))
        found.read_into(out, 3)
        assert np.array_equal(out, values[3:10])


def test_a_missing_chunk_is_the_fill_value_and_a_cut_one_is_an_error(tmp_path: Path) -> None:
    values = np.arange(40.0).reshape(20, 2)
    plain = plain_if_possible(stored(tmp_path / "a", values, 5, compressors=None, fill_value=7.0))
    (tmp_path / "a" / "c" / "1" / "0").unlink()
    out = np.empty((20, 2))
    plain.read_into(out, 0)
    assert (out[5:10] == 7.0).all()
    assert np.array_equal(out[10:], values[10:])
    (tmp_path / "a" / "c" / "2" / "0").write_bytes(b"short")
    with pytest.raises(Exception, match=r"buffer|size|reshape|cannot"):
        plain.read_into(out, 0)


def test_fit_is_the_same_from_plain_and_compressed_chunks(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    X = rng.standard_normal((700, 3))
    system = System.from_arrays(X @ rng.standard_normal((3, 6)) + rng.standard_normal((700, 6)), X)
    system.to_zarr(tmp_path / "plain.zarr", row_chunk=90)
    system.to_zarr(tmp_path / "packed.zarr", row_chunk=90, compressors=zarr.codecs.ZstdCodec())
    fits = [LowRankGLS(rank=1).fit(System.from_zarr(tmp_path / f"{name}.zarr")).result_ for name in ("plain", "packed")]
    assert np.array_equal(fits[0].params, fits[1].params)


@pytest.mark.parametrize("bit", [3, 8 * 5 * 2 * 8 + 7], ids=["in the rows", "in the checksum"])
def test_a_turned_bit_is_refused(tmp_path: Path, bit: int) -> None:
    values = np.arange(40.0).reshape(20, 2)
    array = stored(tmp_path / "a", values, 5, compressors=zarr.codecs.Crc32cCodec())
    plain, out = plain_if_possible(array), np.empty((20, 2))
    assert isinstance(plain, PlainChunks)
    plain.read_into(out, 0)
    assert np.array_equal(out, values)
    plain.read_into(out[:7], 3)
    assert np.array_equal(out[:7], values[3:10])
    chunk = tmp_path / "a" / "c" / "1" / "0"
    chunk.write_bytes(flipped(chunk.read_bytes(), bit))
    with pytest.raises(ValueError, match="checksum"):
        plain.read_into(out, 0)
