"""What was saved is what is read: checksums of chunks, and a seal that a group carries of all that was written into it.

Every chunk ends with its crc32c, by the codec of that name, which whoever opens the store verifies as it reads. What no
checksum of a chunk can tell, a seal does: an attribute of the group with a digest of its attributes and one of each
array and group in it, made of their metadata and of the checksums of their chunks. So an edited number, a chunk that is
missing or stands where another belongs, and an array that is gone are named when the group is opened. Costs the last
four bytes of each chunk of the arrays that are small. Groups of earlier versions have no seal, and open all the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
import zarr
from zarr.abc.codec import Codec
from zarr.abc.store import SuffixByteRequest
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.buffer import cpu, default_buffer_prototype
from zarr.core.sync import sync

from lrgls_dask.data.patientstore import failure_at
from lrgls_dask.errors import DamagedStore, StoreFailure, reason_of
from lrgls_dask.rows.patience import is_of_a_store

__all__ = [
    "CHECKED",
    "PACKED",
    "SEAL",
    "WRITTEN",
    "check_seal",
    "check_seal_beside",
    "mark_written",
    "read_whole",
    "seal_beside",
    "seal_of",
    "why_missing",
    "with_checksum",
    "write_sealed",
    "writing_of",
]

SEAL = "lrgls_seal"
WRITTEN = "lrgls_written"  # of an array of rows: which writing it is of, that tells it from one in its place
BESIDE = "written"  # a key beside the chunks of such an array, which no copy by another program takes along
SEALED = "sealed"  # such a key beside responses, with the seal of the labels of their store
CHECKED = (Crc32cCodec(),)
PACKED = (ZstdCodec(), Crc32cCodec())
MOST_CHUNKS = 10**6  # of what is sealed, which is small and mostly of one
CHECKSUM_BYTES = 4
AT_ONCE = 16  # requests that a store is asked to answer together

Found = TypeVar("Found")
Seal = dict[str, Any]


def seal_of(
    node: zarr.Group | zarr.Array,
    *,
    attributes: Mapping[str, Any] | None = None,
    named: Iterable[str] | None = None,
    members: Iterable[str] | None = None,
    metadata_only: Iterable[str] = (),
) -> Seal:
    """The seal of a group, or of a single array, as it stands in the store.

    attributes : those that it will have, if they are not those that it has.  named : which of these are sealed, all of
    them if None.  members : the same of the arrays and groups in it.  metadata_only : arrays of whose chunks nothing is
    read. Raises StoreFailure where one cannot be read: a seal is of what is there.
    """
    known = dict(node.attrs if attributes is None else attributes)
    names = sorted(set(known) - {SEAL} if named is None else named)
    bare, wanted = sorted(metadata_only), _members(node) if members is None else dict.fromkeys(members)
    parts, failed = sync(_digests(node, wanted, frozenset(bare)))
    for name, error in failed.items():
        raise StoreFailure(node.store_path, f"array {name!r}", reason_of(error)) from error
    return {"attributes": names, "own": _own_digest(node, known, names), "metadata_only": bare, "parts": parts}


def with_checksum(compressors: Any) -> tuple[Any, ...]:
    """Compressors as zarr takes them, and the checksum behind the last of them."""
    if compressors is None:
        return CHECKED
    if isinstance(compressors, str):
        return PACKED if compressors == "auto" else (compressors,)  # which zarr refuses
    given = (compressors,) if isinstance(compressors, Codec | Mapping) else tuple(compressors)
    return given if given and _is_checksum(given[-1]) else (*given, *CHECKED)


def _is_checksum(codec: Any) -> bool:
    return isinstance(codec, Crc32cCodec) or (isinstance(codec, Mapping) and codec.get("name") == "crc32c")


def mark_written(array: zarr.Array) -> None:
    """Say beside an array that all of its chunks are written, those of fill values too."""
    sync(array.store_path.store.set(_beside(array), cpu.Buffer.from_bytes(b"every chunk")))


def writing_of(array: zarr.Array) -> str | None:
    """Which writing an array is of, where it is one of `System.to_zarr` and no copy that another program made of it."""
    said = array.attrs.get(WRITTEN)
    if said is None:
        return None
    return str(said) if sync(array.store_path.store.exists(_beside(array))) else None


def why_missing(array: zarr.Array) -> str:
    """What to say where a chunk is missing of an array of which all were written."""
    return (
        "all of its chunks were written, so some got lost, or another program wrote into it, which leaves out chunks "
        f"of nothing but the fill value: write them there with config={{'write_empty_chunks': True}}, or delete the "
        f"key {_beside(array)!r}, which says that all are there"
    )


def _beside(array: zarr.Array, key: str = BESIDE) -> str:
    return f"{array.store_path.path}/{key}".lstrip("/")


def write_sealed(group: zarr.Group | zarr.Array, **attributes: Any) -> None:
    """Give a group or an array its last attributes and the seal of all that it holds, in one write."""
    known = dict(group.attrs) | attributes
    group.attrs.put(known | {SEAL: seal_of(group, attributes=known)})


def seal_beside(array: zarr.Array, seal: Seal) -> None:
    """Keep the seal of a store of rows beside an array of it, so that copies by other programs are free to differ."""
    sync(array.store_path.store.set(_beside(array, SEALED), cpu.Buffer.from_bytes(json.dumps(seal).encode())))


def check_seal_beside(node: zarr.Group, array: zarr.Array, path: Any) -> None:
    """Raise DamagedStore, naming the part, where a store of rows is not as it was sealed."""
    key = _beside(array, SEALED)
    found = sync(array.store_path.store.get(key, default_buffer_prototype()))
    if found is None:
        return
    try:
        stored = json.loads(found.to_bytes())
    except ValueError:
        stored = {}
    wrong = _first_difference(node, [stored])
    if wrong:
        raise DamagedStore(
            path,
            "store",
            f"{wrong} not what was written. If another program changed that on purpose, delete the key {key!r}, which "
            "says what it was",
        )


def check_seal(node: zarr.Group | zarr.Array, path: Any, what: str) -> None:
    """Raise DamagedStore, naming the part, where a group or array is not what its seal says; without one all is right.

    path, what : how to call it.
    """
    stored: Any = node.attrs.get(SEAL)
    if stored is None:
        return
    found = _first_difference(node, stored if isinstance(stored, list) else [stored])
    if found:
        raise DamagedStore(path, what, f"{found} not what was written")


def _first_difference(node: zarr.Group | zarr.Array, seals: list[Any]) -> str:
    """What is not as the last of these seals says; empty where all is as one of them says."""
    known = dict(node.attrs)
    found = ""
    for each in reversed(seals):
        try:
            found = _difference(node, known, each)
        except (KeyError, TypeError, AttributeError):
            found = "its seal is"
        if not found:
            break
    return found


def read_whole(path: Any, what: str, read: Callable[[], Found]) -> Found:
    """What `read` gives, whose failure on what is stored is the store's damage.

    Raises DamagedStore, StoreFailure where a store does not answer, and other OSErrors as they come.
    """
    try:
        return read()
    except (OSError, MemoryError):
        raise
    except DamagedStore as error:
        raise DamagedStore(path, what, error.reason) from error
    except Exception as error:
        if is_of_a_store(error):  # by a client whose errors are no OSErrors
            raise StoreFailure(path, what, f"{type(error).__name__}: {error}") from None
        raise DamagedStore(path, what, f"it cannot be read ({reason_of(error)})") from error


def _difference(node: zarr.Group | zarr.Array, known: Mapping[str, Any], seal: Mapping[str, Any]) -> str:
    """What of a group is not as sealed, and in what way; empty where all is as it was."""
    if _own_digest(node, known, seal["attributes"]) != seal["own"]:
        return "its attributes are"
    wanted = {name: None for name in seal["parts"]} if isinstance(node, zarr.Group) else {"": node}
    found, _ = sync(_digests(node, wanted, frozenset(seal["metadata_only"])))
    parts = seal["parts"].items()
    named = ((f"{name!r} is" if name else "its chunk is", found.get(name) == said) for name, said in parts)
    return next((name for name, same in named if not same), "")


def _members(node: zarr.Group | zarr.Array) -> dict[str, Any]:
    """All arrays and groups in a group, by their paths in it; an array is its own, without a name."""
    return {"": node} if isinstance(node, zarr.Array) else dict(node.members(max_depth=None))


def _own_digest(node: zarr.Group | zarr.Array, known: Mapping[str, Any], names: Iterable[str]) -> str:
    """Of the attributes of a group; of those of an array with all else that its metadata say."""
    kept = [[name, known[name]] if name in known else [name] for name in names]
    return _hashed([kept, None if isinstance(node, zarr.Group) else _metadata(node)])


def _metadata(node: zarr.Group | zarr.Array, *, attributes: bool = False) -> dict[str, Any]:
    said = node.metadata.to_dict()
    left_out = {"consolidated_metadata"} if attributes else {"consolidated_metadata", "attributes"}
    return {name: value for name, value in said.items() if name not in left_out}


def _hashed(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=_said)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _said(value: Any) -> Any:
    """Of what JSON has no value for."""
    return (
        value.to_dict() if hasattr(value, "to_dict") else value.item() if isinstance(value, np.generic) else str(value)
    )


async def _digests(
    node: Any, members: Mapping[str, Any], metadata_only: frozenset[str]
) -> tuple[dict[str, str], dict[str, Exception]]:
    """Of each member by name, and why there is none of those whose metadata or chunks cannot be read.

    members : by name; those that are None are looked up.
    """
    gate = asyncio.Semaphore(AT_ONCE)
    group = zarr.AsyncGroup(node.metadata, node.store_path) if isinstance(node, zarr.Group) else None
    digests: dict[str, str] = {}
    failed: dict[str, Exception] = {}

    async def digest(name: str, member: Any) -> None:
        try:
            member = await group.getitem(name) if group is not None and member is None else member
            said = _metadata(member, attributes=bool(name))
            digests[name] = await _digest(said, member, gate, bare=name in metadata_only)
        except Exception as error:
            if is_of_a_store(error):
                raise failure_at(node.store_path.store, f"{node.store_path.path}/{name}/", error) or error from None
            failed[name] = error  # metadata that are damaged, in whatever way that shows

    await asyncio.gather(*(digest(name, member) for name, member in members.items()))
    # by name, whatever came first: equal stores have equal seals, byte by byte
    return dict(sorted(digests.items())), dict(sorted(failed.items()))


async def _digest(said: Any, node: Any, gate: asyncio.Semaphore, *, bare: bool) -> str:
    """Of what is said of an array or group, and of the checksums at the ends of its chunks."""
    if bare or not hasattr(node, "shape"):
        return _hashed(said)
    grid = tuple(-(-length // chunk) for length, chunk in zip(node.shape, node.shards or node.chunks, strict=True))
    if math.prod(grid) > MOST_CHUNKS:
        return "more chunks than anything that is sealed"
    ends = await asyncio.gather(*(_end(node, index, gate) for index in np.ndindex(*grid)))
    return _hashed([said, ends if math.prod(grid) else []])


async def _end(array: Any, index: tuple[int, ...], gate: asyncio.Semaphore) -> str | None:
    """The checksum of a chunk, None where there is none: zarr leaves one out that holds nothing but fill values.

    Raises ValueError for a chunk that has no place for one.
    """
    place = array.store_path / array.metadata.encode_chunk_key(index)
    async with gate:
        found = await place.store.get(place.path, default_buffer_prototype(), SuffixByteRequest(CHECKSUM_BYTES))
    if found is not None and len(found) < CHECKSUM_BYTES:
        raise ValueError(f"its chunk {index} gave {len(found)} bytes, fewer than its checksum has")
    return None if found is None else found.to_bytes().hex()
