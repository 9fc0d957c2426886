"""Saved things that get damaged: a bit turned in any file, any file gone, cut short or put where another belongs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr


def files_of(store: Path) -> list[Path]:
    """All files of a store, in the order of their names."""
    return sorted(path for path in store.rglob("*") if path.is_file())


@contextmanager
def holding(path: Path, content: bytes | None) -> Iterator[None]:
    """While this lasts a file holds something else, or is not there."""
    was = path.read_bytes()
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    yield
    path.write_bytes(was)


def flipped(content: bytes, bit: int) -> bytes:
    """The same with one bit the other way."""
    turned = bytearray(content)
    turned[bit // 8] ^= 1 << bit % 8
    return bytes(turned)


def damages(content: bytes, bits: int, rng: np.random.Generator) -> Iterator[tuple[str, bytes | None]]:
    """A file without so many bits, all of them if that is many, cut short in two ways, empty, and gone."""
    total = 8 * len(content)
    chosen = range(total) if bits >= total else rng.choice(total, size=bits, replace=False).tolist()
    yield from ((f"bit {bit}", flipped(content, bit)) for bit in chosen)
    yield "gone", None
    yield "empty", b""
    yield "cut", content[:-1]
    yield "half", content[: len(content) // 2]


def everything(write: Callable[[Any], object]) -> dict[str, Any]:
    """All numbers, labels and attributes of what is written into a store in memory."""
    store = zarr.storage.MemoryStore()
    write(store)
    group = zarr.open_group(store, mode="r")
    found: dict[str, Any] = {"": said(group)}
    for name, member in group.members(max_depth=None):
        values = np.asarray(member[...]) if isinstance(member, zarr.Array) else None
        found[name] = (
            said(member),
            None if values is None else (values.dtype.str, values.shape, repr(values.tolist())),
        )
    return found


def said(node: Any) -> str:
    """Attributes, but for what is not the same each time."""
    return repr(sorted((name, value) for name, value in node.attrs.items() if name not in ("lrgls_seal",)))
