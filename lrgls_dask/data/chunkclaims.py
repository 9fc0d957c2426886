"""Chunks that say how much they hold, believed only as far as the array they belong to.

A chunk of a few bytes can claim any size: texts begin with their number, a compressed chunk with the length of what
comes out of it, or it goes on and on. `bounded` has an array look at that before it decodes anything, in each chunk, on
whichever process reads it. Formats of version 2 and 3 and the inner chunks of shards are looked at; codecs that other
packages bring beside those of numcodecs are not.
"""

from __future__ import annotations

import asyncio
import bz2
import lzma
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import psutil
import zarr
from zarr.abc.codec import ArrayBytesCodec, BytesBytesCodec, Codec
from zarr.codecs import GzipCodec, ShardingCodec, VLenBytesCodec, VLenUTF8Codec
from zarr.core.array_spec import ArraySpec
from zarr.core.codec_pipeline import BatchedCodecPipeline

__all__ = ["bounded"]

TIMES = 3  # what its values take: an index of a shard, checksums, a compressor that found nothing to compress
SPARE = 2**16
TEXT_BYTES, TEXTS_BYTES = 2**16, 2**28  # of a text, on average over a chunk; of a chunk, which harms no machine
ZSTD, ZSTD_BLOCK = b"\x28\xb5\x2f\xfd", 2**17


def bounded(array: zarr.Array) -> zarr.Array:
    """The array, whose chunks are decoded only where they hold what their shape asks. Costs nothing until they are.

    Reading then raises ValueError for a chunk that claims more. An array whose codecs another package runs is left.
    """
    pipeline: Any = array.async_array.codec_pipeline
    if type(pipeline) is BatchedCodecPipeline:
        guarded = BatchedCodecPipeline.from_codecs(tuple(map(_guarded, pipeline)), batch_size=pipeline.batch_size)
        object.__setattr__(array.async_array, "codec_pipeline", guarded)
    return array


def _guarded(codec: Codec) -> Codec:
    if isinstance(codec, _Outside | _BoundedShards):
        return codec
    if hasattr(codec, "filters") and hasattr(codec, "compressor"):
        return _BoundedV2(codec)
    if type(codec) is ShardingCodec:
        return _BoundedShards(
            chunk_shape=codec.chunk_shape,
            codecs=tuple(map(_guarded, codec.codecs)),
            index_codecs=tuple(map(_guarded, codec.index_codecs)),
            index_location=codec.index_location,
        )
    if isinstance(codec, VLenUTF8Codec | VLenBytesCodec):
        return _BoundedTexts(codec)
    if isinstance(codec, BytesBytesCodec) and _said(codec)[0] in (*_STREAMS, *_SAID):
        return _Bounded(codec)
    return codec


def _said(codec: Any) -> tuple[str, Mapping[str, Any]]:
    """The name of a codec, by numcodecs or not, and its settings."""
    said = codec.to_dict()
    return said["name"].removeprefix("numcodecs."), said.get("configuration", {})


class _Outside:
    """A codec around another, which says and does what that one does but for decoding."""

    inner: Any

    def to_dict(self) -> Any:
        return self.inner.to_dict()

    compute_encoded_size: Any = GzipCodec.compute_encoded_size  # which no compressor can tell

    async def _encode_single(self, chunk_data: Any, chunk_spec: ArraySpec) -> Any:
        return await self.inner._encode_single(chunk_data, chunk_spec)


@dataclass(frozen=True)
class _Bounded(_Outside, BytesBytesCodec):
    """A compressor."""

    inner: Any
    is_fixed_size = False

    @cached_property
    def said(self) -> tuple[str, Mapping[str, Any]]:
        return _said(self.inner)

    async def _decode_single(self, chunk_data: Any, chunk_spec: ArraySpec) -> Any:
        (name, settings), data, most = self.said, chunk_data.as_numpy_array(), _most_bytes(chunk_spec)
        if name in _STREAMS:  # in a thread, as zarr does: all arrays share one loop
            made = await asyncio.to_thread(_inflated, name, settings, data, most)
            if made is not None:
                return chunk_spec.prototype.buffer.from_bytes(made)
        else:
            _inflated(name, settings, data, most)  # looks at some bytes
        return await self.inner._decode_single(chunk_data, chunk_spec)


@dataclass(frozen=True)
class _BoundedTexts(_Outside, ArrayBytesCodec):
    """Texts, or bytes, of any length."""

    inner: Any
    is_fixed_size = False

    async def _decode_single(self, chunk_data: Any, chunk_spec: ArraySpec) -> Any:
        _check_count("vlen-utf8", chunk_data.as_numpy_array(), math.prod(chunk_spec.shape))
        return await self.inner._decode_single(chunk_data, chunk_spec)


class _BoundedShards(ShardingCodec):
    """Shards whose inner chunks are looked at, on workers too."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        object.__setattr__(self, "codecs", tuple(map(_guarded, self.codecs)))
        object.__setattr__(self, "index_codecs", tuple(map(_guarded, self.index_codecs)))


@dataclass(frozen=True)
class _BoundedV2(_Outside, ArrayBytesCodec):
    """What reads version 2 of the format, whose filters and compressor are codecs of numcodecs."""

    inner: Any
    is_fixed_size = False

    async def _decode_single(self, chunk_data: Any, chunk_spec: ArraySpec) -> Any:
        most, count, codec = _most_bytes(chunk_spec), math.prod(chunk_spec.shape), self.inner
        filters = tuple(_Numcodec(each, most, count) for each in codec.filters or ()) or None
        compressor = codec.compressor and _Numcodec(codec.compressor, most, count)
        return await replace(codec, filters=filters, compressor=compressor)._decode_single(chunk_data, chunk_spec)


@dataclass(frozen=True)
class _Numcodec:
    """A codec of numcodecs that decodes chunks of `count` values in at most so many bytes."""

    inner: Any
    most: int
    count: int

    def decode(self, data: Any) -> Any:
        said = self.inner.get_config()
        _check_count(said["id"], data, self.count)
        made = _inflated(said["id"], said, data, self.most)
        return self.inner.decode(data) if made is None else made


def _most_bytes(spec: ArraySpec) -> int:
    """How much a chunk may come to once it is inflated."""
    count, dtype = math.prod(spec.shape), spec.dtype.to_native_dtype()
    if dtype.kind in "OT":  # texts, of which no metadata say how long they are
        return min(max(TEXT_BYTES * count, TEXTS_BYTES), psutil.virtual_memory().available // 4)
    return TIMES * count * dtype.itemsize + SPARE


def _check_count(name: str, data: Any, count: int) -> None:
    """Raise ValueError where a chunk of texts says that others are there than its shape has place for."""
    if name in ("vlen-utf8", "vlen-bytes", "vlen-array"):
        said = int.from_bytes(memoryview(data).cast("B")[:4], "little")
        if said != count:
            raise ValueError(f"a chunk says that it holds {said:,} texts, where its shape has place for {count:,}")


def _inflated(name: str, settings: Mapping[str, Any], data: Any, most: int) -> bytes | None:
    """What comes out of a chunk where that has to be seen to be known, None where its own codec may decode it.

    Raises ValueError where it is, or says it is, more than `most` bytes.
    """
    view = memoryview(data).cast("B")
    if name in _SAID:
        said, unsaid = _SAID[name](view)
        if said > most or (unsaid > most and unsaid > psutil.virtual_memory().available // 4):
            said += unsaid
            raise ValueError(f"a chunk claims {said:,} bytes, where its shape asks for at most {most:,}")
        return None
    if name not in _STREAMS:
        return None
    made, found = bytearray(), False
    while len(view) and len(made) <= most:
        stream = _STREAMS[name](settings)
        made += stream.decompress(view, most + 1 - len(made))
        found = stream.eof
        if not found:
            break
        rest = stream.unused_data
        view = memoryview(rest.lstrip(b"\0") if name == "gzip" else rest if name == "bz2" else b"")
    if len(made) > most:
        raise ValueError(f"a chunk comes to more than the {most:,} bytes that its shape asks for at most")
    return bytes(made) if found else None  # one that is cut short is named by its own codec


def _lzma(settings: Mapping[str, Any]) -> Any:
    return lzma.LZMADecompressor(format=settings.get("format", lzma.FORMAT_XZ), filters=settings.get("filters"))


_STREAMS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "gzip": lambda settings: zlib.decompressobj(31),
    "zlib": lambda settings: zlib.decompressobj(15),
    "bz2": lambda settings: bz2.BZ2Decompressor(),
    "lzma": _lzma,
}


def _number(view: memoryview, start: int, length: int) -> int:
    return int.from_bytes(view[start : start + length], "little")


def _zstd(view: memoryview) -> tuple[int, int]:
    """Bytes that frames of zstd say they hold, and those that can be at most in frames that do not say.

    A frame (RFC 8878): its magic number, a byte of flags, a byte of the window unless it is one segment, the number of
    a dictionary, its size; then blocks, each behind three bytes with its kind and length, the last one marked.
    """
    total, unsaid, at = 0, 0, 0
    while at + 8 < len(view):
        if _number(view, at, 4) >> 4 == 0x184D2A5:  # a frame that is skipped
            at += 8 + _number(view, at + 4, 4)
            continue
        if view[at : at + 4] != ZSTD:
            break
        flags = view[at + 4]
        alone, at = flags >> 5 & 1, at + 5
        window = ZSTD_BLOCK if alone else min(ZSTD_BLOCK, (2 ** (10 + (view[at] >> 3)) // 8) * (8 + (view[at] & 7)))
        at += (not alone) + (0, 1, 2, 4)[flags & 3]
        n_size = (alone, 2, 4, 8)[flags >> 6]
        said, at = _number(view, at, n_size) + (256 if n_size == 2 else 0), at + n_size
        held, last = 0, False
        while not last and at + 3 <= len(view):
            header = _number(view, at, 3)
            last, kind, length = bool(header & 1), header >> 1 & 3, header >> 3
            held += window if kind == 2 else length
            at += 3 + (1 if kind == 1 else length)
        total, unsaid = total + said, unsaid + (0 if n_size else held)
        at += 4 * (flags >> 2 & 1)
    return total, unsaid


_SAID: dict[str, Callable[[memoryview], tuple[int, int]]] = {
    "zstd": _zstd,
    "blosc": lambda view: (_number(view, 4, 4), 0),
    "lz4": lambda view: (_number(view, 0, 4), 0),
}
