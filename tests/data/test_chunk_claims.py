"""Chunks that claim more than their arrays have place for: named before anything of that size is allocated."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
import zarr.codecs.numcodecs as outside
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

from lrgls_dask import LowRankGLS, System
from lrgls_dask.data.claims import member, whole
from lrgls_dask.errors import DamagedStore, UnreadableRows

pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning", "ignore:.*specification.*")

N = 2**23  # bytes that come out, of which the arrays have place for eight thousand
BLOCK = 2**17


def zstd_frame(n_bytes: int, *, says: bool) -> bytes:
    """Zeros in blocks of one byte that is repeated, in a frame that says how many, or does not."""
    blocks = ((BLOCK << 3) | 2).to_bytes(3, "little") + b"\0"
    head = b"\xc0\x38" + struct.pack("<Q", n_bytes) if says else b"\x00\x38"
    return b"\x28\xb5\x2f\xfd" + head + blocks * (n_bytes // BLOCK) + b"\x01\0\0"


def blosc_claim(n_bytes: int) -> bytes:
    made = bytearray(numcodecs.Blosc().encode(bytes(1000)))
    made[4:8] = struct.pack("<I", n_bytes)
    return bytes(made)


PACKED: dict[str, tuple[Any, Any, bytes]] = {  # codecs of version 3, of version 2, and what they come to
    "gzip": (GzipCodec(), numcodecs.GZip(), gzip.compress(bytes(N))),
    "zstd": (ZstdCodec(), numcodecs.Zstd(), zstd_frame(N, says=True)),
    "zstd, frames": (ZstdCodec(), numcodecs.Zstd(), numcodecs.Zstd().encode(bytes(N // 8)) * 8),
    "blosc": (BloscCodec(), numcodecs.Blosc(), blosc_claim(N)),
    "lz4": (outside.LZ4, numcodecs.LZ4(), struct.pack("<I", N) + bytes(100)),
    "zlib": (outside.Zlib, numcodecs.Zlib(), zlib.compress(bytes(N))),
    "bz2": (outside.BZ2, numcodecs.BZ2(), bz2.compress(bytes(N))),
    "lzma": (outside.LZMA, numcodecs.LZMA(), lzma.compress(bytes(N))),
}


def an_array(place: Path, zarr_format: Any, compressor: Any, data: Any, *, chunk: int = 1000, **more: Any) -> Any:
    group = zarr.open_group(place, mode="w", zarr_format=zarr_format)
    given = compressor() if isinstance(compressor, type) else compressor
    kind = str if data.dtype.kind == "O" else data.dtype
    array = group.create_array("a", shape=data.shape, chunks=(chunk,), dtype=kind, compressors=given, **more)
    array[...] = data
    return group


def with_chunk(group: Any, data: bytes) -> np.ndarray:
    """The array, read whole from a chunk that was put there."""
    array = group["a"]
    (Path(group.store.root) / "a" / array.metadata.encode_chunk_key((0,))).write_bytes(data)
    found = member(group, "a")
    assert isinstance(found, zarr.Array)
    return whole(found)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("name", PACKED)
def test_no_chunk_comes_to_more_than_its_shape_asks(name: str, zarr_format: int, tmp_path: Path) -> None:
    codec = PACKED[name][3 - zarr_format]
    group = an_array(tmp_path, zarr_format, codec, np.arange(1.0, 1001))
    with pytest.raises(DamagedStore, match=r"comes to more than the 89,536 bytes|claims 8,\d*,\d* bytes, where"):
        with_chunk(group, PACKED[name][2])


def test_a_frame_that_does_not_say_its_length_is_counted(tmp_path: Path) -> None:
    group = an_array(tmp_path, 3, ZstdCodec(), np.ones(1000))
    largest = (((2**21 - 1) << 3) | 2).to_bytes(3, "little") + b"\0"  # that a header of a block has place for
    with pytest.raises(DamagedStore, match="claims 137,438,887,937 bytes"):
        with_chunk(group, b"\x28\xb5\x2f\xfd\x00\x38" + largest * 2**16 + b"\x0b\0\0\0")
    honest = zstd_frame(BLOCK, says=False)
    assert with_chunk(an_array(tmp_path, 3, ZstdCodec(), np.ones(BLOCK // 8), chunk=BLOCK // 8), honest).sum() == 0


@pytest.mark.parametrize(("zarr_format", "compressor"), [(3, None), (2, None), (3, ZstdCodec())])
def test_texts_are_counted_before_they_are_made(zarr_format: int, compressor: Any, tmp_path: Path) -> None:
    group = an_array(tmp_path, zarr_format, compressor, np.array(["one", "two"], dtype=object), chunk=2)
    claim = struct.pack("<I", 10**6) + bytes(8)
    with pytest.raises(DamagedStore, match="says that it holds 1,000,000 texts, where its shape has place for 2"):
        with_chunk(group, claim if compressor is None else numcodecs.Zstd().encode(claim))


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("name", PACKED)
def test_honest_chunks_are_read_as_ever(name: str, zarr_format: int, tmp_path: Path) -> None:
    codec = PACKED[name][3 - zarr_format]
    for data in (
        np.arange(1.0, 301),
        np.arange(7, dtype="i1"),
        np.array(["a", "b" * 10**5, "ü" * 10**6], dtype=object),
    ):
        kept = an_array(tmp_path, zarr_format, codec, data, chunk=len(data))["a"]
        assert np.array_equal(whole(kept), data)
        assert np.array_equal(pickle.loads(pickle.dumps(member(zarr.open_group(tmp_path), "a")))[...], data)


def test_long_labels_are_read_and_gigabytes_of_them_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No metadata say how long texts are: what all fit on is let through, and no more than a part of free memory."""
    labels = np.array([f"{i}{'x' * 10**4}" for i in range(300)], dtype=object)
    group = an_array(tmp_path, 3, ZstdCodec(), labels, chunk=300)
    assert np.array_equal(whole(member(group, "a")), labels)  # type: ignore[arg-type]
    monkeypatch.setattr("lrgls_dask.data.chunkclaims.TEXTS_BYTES", 10**6)
    monkeypatch.setattr("lrgls_dask.data.chunkclaims.TEXT_BYTES", 10**3)
    with pytest.raises(DamagedStore, match=r"claims 3,\d*,\d* bytes, where its shape asks for at most 1,000,000"):
        whole(member(group, "a"))  # type: ignore[arg-type]


def test_shards_and_chains_too_wherever_they_are_read(tmp_path: Path) -> None:
    chain = [GzipCodec(), ZstdCodec(), Crc32cCodec()]
    data = np.arange(1.0, 1001)
    group = an_array(tmp_path, 3, chain, data, chunk=250, shards=(1000,))
    there = pickle.loads(pickle.dumps(member(group, "a")))
    assert np.array_equal(there[...], data)
    assert there[251] == 252
    packed = numcodecs.Zstd().encode(gzip.compress(bytes(N)))
    sealed = packed + numcodecs.CRC32C(location="end").encode(packed)[-4:].tobytes()
    index = struct.pack("<QQ", 0, len(sealed)) + struct.pack("<QQ", 2**64 - 1, 2**64 - 1) * 3
    index += numcodecs.CRC32C(location="end").encode(index)[-4:].tobytes()
    with pytest.raises(DamagedStore, match="comes to more than the"):
        with_chunk(group, sealed + index)
    with pytest.raises(ValueError, match="comes to more than the"):
        there[...]


def test_rows_of_a_store_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    System.from_arrays(rng.normal(size=(20, 3)), rng.normal(size=(20, 2))).to_zarr(tmp_path / "s.zarr")
    path = tmp_path / "s.zarr" / "Y" / "zarr.json"
    said = json.loads(path.read_text(encoding="utf-8"))
    said["codecs"] = [said["codecs"][0], {"name": "gzip", "configuration": {"level": 5}}]
    path.write_text(json.dumps(said), encoding="utf-8")
    (tmp_path / "s.zarr" / "Y" / "sealed").unlink()
    root = tmp_path / "s.zarr" / "zarr.json"
    root.write_text(json.dumps(json.loads(root.read_text(encoding="utf-8")) | {"consolidated_metadata": None}), "utf-8")
    (tmp_path / "s.zarr" / "Y" / "c" / "0" / "0").write_bytes(gzip.compress(bytes(N)))
    with pytest.raises(UnreadableRows, match=r"Y: rows 0 to 19 cannot be read .*comes to more than the"):
        LowRankGLS(0).fit(System.from_zarr(tmp_path / "s.zarr"))


SCRIPT = """
import resource, struct, sys
import numpy as np, psutil, zarr
from zarr.storage import MemoryStore
from zarr.core.buffer import cpu
from zarr.core.sync import sync
from lrgls_dask.data.claims import member, whole
from lrgls_dask.errors import DamagedStore, UnreadableRows
limit = psutil.Process().memory_info().vms + 2**30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
block = ((2**17 << 3) | 2).to_bytes(3, "little") + bytes(1)
numbers = b"\\x28\\xb5\\x2f\\xfd\\xc0\\x38" + struct.pack("<Q", 2**33) + block * 2**16 + b"\\x01\\0\\0"
for kind, compressors, data in ((str, None, struct.pack("<I", 10**9) + bytes(64)), ("f8", "auto", numbers)):
    group = zarr.open_group(MemoryStore(), mode="w")
    group.create_array("a", shape=(3,), chunks=(3,), dtype=kind, compressors=compressors)
    sync(group.store.set("a/c/0", cpu.Buffer.from_bytes(data)))
    try:
        whole(member(group, "a"))
    except DamagedStore as error:
        print(error.reason)
print("MB", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory, and its peak in kilobytes, as on Linux")
def test_gigabytes_that_are_claimed_take_megabytes() -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=100, check=True)
    texts, numbers, peak = ran.stdout.splitlines()
    assert "1,000,000,000 texts" in texts
    assert "claims 8,589,934,592 bytes" in numbers
    assert int(peak.removeprefix("MB ")) < 100
