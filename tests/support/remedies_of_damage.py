"""What is said of things that were saved and are not what was written, and the ways out, followed to the letter."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np
import zarr
from zarr.core.buffer import cpu
from zarr.storage import MemoryStore

from lrgls_dask import CompressedSystem, System
from support.faulty import FaultyStore
from support.remedies import Case

RNG = np.random.default_rng(3)
Y, X = RNG.normal(size=(12, 2)), RNG.normal(size=(12, 2))


def rows() -> System:
    return System.from_arrays(Y, X, equations=["a", "b"])


DENIED = 8  # of what is asked to open a store: the first of the labels


def stored() -> MemoryStore:
    store = MemoryStore()
    rows().to_zarr(store)
    return store


def packed_by(name: str) -> MemoryStore:
    """A store, some of whose arrays are packed by a codec of that name."""
    store = stored()
    for key, value in store._store_dict.items():
        if key.endswith("zarr.json"):
            text = value.to_bytes().replace(b'"name": "zstd"', f'"name": "{name}"'.encode())
            store._store_dict[key] = cpu.Buffer.from_bytes(text)
    return store


def damaged(path: str, then: Callable[[], object] = lambda: None) -> None:
    """A compressed system of which a number is edited, and what is done before it is opened."""
    rows().compress().to_zarr(path, overwrite=True)
    shutil.copytree(path, f"{path}-copy", dirs_exist_ok=True)
    zarr.open_group(path, mode="r+").attrs["n_obs"] = 7
    then()
    CompressedSystem.from_zarr(path)


def damage(place: str) -> list[Case]:
    """The cases, whose stores lie at `place`."""
    return [
        Case(
            "is damaged: its attributes are not what was written",
            lambda: damaged(place),
            (
                lambda: damaged(place, lambda: shutil.copytree(f"{place}-copy", place, dirs_exist_ok=True)),
                lambda: damaged(place, lambda: rows().compress().to_zarr(place, overwrite=True)),
            ),
        ),
        Case(
            r"array '.*' could not be read or written .PermissionError: .*injected",
            lambda: System.from_zarr(FaultyStore(stored(), "denied", DENIED)),
            (lambda: System.from_zarr(stored()),),
        ),
    ]


CODECS = [
    Case(
        r"Unknown codec: 'of-a-package'; install the package of this codec, on workers too",
        lambda: System.from_zarr(packed_by("of-a-package")),
        (lambda: System.from_zarr(packed_by("zstd")), lambda: System.from_zarr(stored())),
    ),
]
