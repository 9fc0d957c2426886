"""Stores, saved fits, compressed systems and checkpoints whose bytes and metadata were changed, sealed and unsealed."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import zarr
from zarr.core.buffer import cpu

from fuzz.judge import Finding, require
from lrgls_dask import CompressedSystem, Fit, LowRankGLS, System
from lrgls_dask.data.seal import SEAL

STRANGE: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1,
    2**31,
    2**62,
    10**15,
    10**30,
    0.5,
    1e308,
    "",
    "NaN",
    "../Y",
    "/etc/passwd",
    "Y",
    "a" * 1000,
    [],
    {},
    [0],
    [-1],
    [10**15],
    [10**15, 3],
    [2**60, 2**60],
    [1, 1],
    [None],
    [[]],
    {"name": "pickle"},
    "object",
    "|O",
    "float16",
    "int8",
    "string",
    "complex128",
    "bytes",
    "gzip",
    "zstd",
    "crc32c",
    "transpose",
    "sharding_indexed",
    "numcodecs.pickle",
    "\ud800",
    "é",
)


def system() -> System:
    rng = np.random.default_rng(0)
    X = np.column_stack([np.ones(24), rng.normal(size=(24, 2))])
    Y = X @ rng.normal(size=(3, 4)) + rng.normal(size=(24, 1)) + rng.normal(size=(24, 4))
    return System.from_arrays(Y, X, equations=["a", "b", "c", "d"], regressors=["one", "x", "z"])


def opened_system(store: Any) -> Any:
    return fitted(System.from_zarr(store))


def fitted(of: Any) -> list[float]:
    return list(LowRankGLS(1, algorithm="ols").fit(of).result_.params.values)


def said_of(fit: Fit) -> Any:
    return [*fit.params.values, *fit.std_errors.values, fit.loglik, len(fit.summary()), *fit.sigma().values.ravel()]


SAVED: dict[str, tuple[Callable[[Any], object], Callable[[Any], Any]]] = {
    "system": (lambda store: system().to_zarr(store), opened_system),
    "compressed": (
        lambda store: system().compress().to_zarr(store),
        lambda store: fitted(CompressedSystem.from_zarr(store)),
    ),
    "fit": (
        lambda store: LowRankGLS(1).fit(system()).result_.to_zarr(store),
        lambda store: said_of(Fit.from_zarr(store)),
    ),
}


@cache
def written(kind: str) -> tuple[dict[str, bytes], Any]:
    """The bytes under every key, and what is read of them."""
    store = zarr.storage.MemoryStore()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        SAVED[kind][0](store)
        right = SAVED[kind][1](store)
    return {key: buffer.to_bytes() for key, buffer in store._store_dict.items()}, right


def run(rng: np.random.Generator) -> None:
    """One or two changes, then what is opened is what was, or refused."""
    kind = list(SAVED)[rng.integers(len(SAVED))]
    bytes_of, right = written(kind)
    held = dict(bytes_of)
    sealed = rng.random() < 0.4
    if not sealed:
        for key in [key for key in held if key.endswith("zarr.json")]:
            held[key] = without_seal(held[key])
        held.pop("Y/sealed", None)
    told = [change(rng, held) for _ in range(1 if rng.random() < 0.8 else 2)]
    store = zarr.storage.MemoryStore({key: cpu.Buffer.from_bytes(content) for key, content in held.items()})
    try:
        found = SAVED[kind][1](store)
    except Finding:
        raise
    except Exception as error:
        error.add_note(f"{kind} {'' if sealed else 'un'}sealed: {told}")
        raise
    if sealed and kind != "system":
        require(np.array_equal(found, right), f"{kind}: {told} reads as {found}")


def without_seal(content: bytes) -> bytes:
    said = json.loads(content)
    said.get("attributes", {}).pop(SEAL, None)
    said.pop("consolidated_metadata", None)
    return json.dumps(said).encode()


def change(rng: np.random.Generator, held: dict[str, bytes]) -> str:
    """Change one of the keys, in a way that is told."""
    keys = sorted(held)
    key, how = keys[rng.integers(len(keys))], rng.random()
    if how < 0.6:
        metas = [each for each in keys if each.endswith("zarr.json")]
        key = metas[rng.integers(len(metas))]
        return f"{key}: {edited(rng, held, key)}"
    if how < 0.7:
        del held[key]
        return f"{key} is gone"
    if how < 0.8:
        other = keys[rng.integers(len(keys))]
        held[key] = held[other]
        return f"{other} in place of {key}"
    content = bytearray(held[key])
    if how < 0.9 and content:
        at = int(rng.integers(len(content)))
        content[at] ^= 1 << int(rng.integers(8))
        held[key] = bytes(content)
        return f"{key}: a bit of byte {at}"
    held[key] = bytes(content[: int(rng.integers(len(content) + 1))])
    return f"{key}: cut to {len(held[key])} bytes"


def edited(rng: np.random.Generator, held: dict[str, bytes], key: str) -> str:
    """Another value somewhere in metadata."""
    try:
        said = json.loads(held[key])
    except ValueError:
        return "as it is"
    places = list(leaves(said))
    path = places[rng.integers(len(places))]
    parent = said
    for step in path[:-1]:
        parent = parent[step]
    was = parent[path[-1]]
    value = copy.deepcopy(STRANGE[rng.integers(len(STRANGE))])
    if isinstance(was, int | float) and rng.random() < 0.4:
        value = was + int(rng.integers(-2, 3))
    if rng.random() < 0.1:
        del parent[path[-1]]
        value = "gone"
    else:
        parent[path[-1]] = value
    held[key] = json.dumps(said).encode()
    return f"{path}: {was!r:.60} -> {value!r:.60}"


def leaves(said: Any, path: tuple[Any, ...] = ()) -> Any:
    """Where every value and every part of metadata stands."""
    items = said.items() if isinstance(said, dict) else enumerate(said) if isinstance(said, list) else ()
    for name, value in items:
        yield (*path, name)
        yield from leaves(value, (*path, name))
