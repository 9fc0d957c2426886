"""Whether a process is one that may work on rows: the same version of this package, and the stores in their place.

Workers are asked before work is sent, see `ready`. One that comes too late to be asked looks for itself, once, as it
is given its first work: zarr reads chunks that are not there as their fill value, and a wrong row says nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import distributed
import zarr
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, MemoryStore

from lrgls_dask.errors import ClusterLost
from lrgls_dask.rows.behind import stored_arrays

__all__ = ["NOWHERE", "Passport", "Recipe", "first_not_found", "not_seen", "own_version", "place_of", "recipes_of"]

MARKS = ("zarr.json", ".zarray")
NOWHERE = ("", 0)


@dataclass(frozen=True)
class Recipe:
    """Where an array is found.

    name : of the rows that it holds, for messages.  place : in words.  mark : what tells it from others, and its number
    of rows: see `_mark`.
    """

    name: str
    place: str
    store: Store
    path: str
    mark: tuple[str, int]

    @property
    def key(self) -> tuple[str, tuple[str, int]]:
        return self.place, self.mark


_found: set[tuple[str, tuple[str, int]]] = set()  # what this process has found already


@dataclass(frozen=True, eq=False)
class Passport:
    """What a process needs to work on rows."""

    version: str
    recipes: tuple[Recipe, ...] = ()

    def check(self) -> None:
        """Raise ClusterLost where this process has another version of the package, or does not find a store."""
        here = own_version()
        if here != self.version:
            raise ClusterLost(
                f"the worker {_this_worker()} has lrgls_dask {here} and the client has {self.version}. Give it the "
                "client's version and restart it, or remove it."
            )
        new = [recipe for recipe in self.recipes if recipe.key not in _found]
        wrong = first_not_found(new) if new else None
        if wrong is not None:
            raise ClusterLost(not_seen(_this_worker(), *wrong))
        _found.update(recipe.key for recipe in new)


def own_version() -> str:
    """The version of this package in this process."""
    own: Any = sys.modules["lrgls_dask"]
    return str(own.__version__)


def _this_worker() -> str:
    try:
        return str(distributed.get_worker().address)
    except ValueError:
        return "of this process"


def place_of(part: Any) -> str:
    """A name of what a part reads that nothing else has while it lives: of stored arrays where they are and what they
    were as they were opened, of arrays of Dask their own, which says what they are made of."""
    name = getattr(part.array, "name", None)
    if isinstance(name, str) and hasattr(part.array, "__dask_graph__"):
        return f"{part.name}: {name} {part.array.shape}"
    behind = [f"{_where(each)} {each.metadata.to_dict()}" for each in stored_arrays([part.array])]
    return f"{part.name}: {'; '.join(behind) or id(part.array)}"


def _where(array: zarr.Array) -> str:
    """Two stores may say the same of themselves, as buckets of the same name at two addresses."""
    store = array.store_path.store
    which = "" if type(store) is LocalStore else getattr(getattr(store, "fs", None), "_fs_token", id(store))
    return f"{array.store_path} {which}"


def recipes_of(part: Any) -> list[Recipe]:
    """How each stored array behind a part is found; none of what is in memory, which is sent along."""
    found = []
    for array in stored_arrays([part.array]):
        store, path = array.store_path.store, array.store_path.path
        mark = NOWHERE if isinstance(store, MemoryStore) else _mark(store, path)
        if mark != NOWHERE:
            relative = isinstance(store, LocalStore) and not store.root.is_absolute()
            place = f"{'relative ' if relative else ''}path {array.store_path}"
            found.append(Recipe(part.name, place, store, path, mark))
    return found


def first_not_found(recipes: Iterable[Recipe]) -> tuple[str, str, str] | None:
    """Of arrays the first that is not here as it was elsewhere: its name, its place and what is here instead.

    One that has got more rows since is the same.
    """
    for recipe in recipes:
        try:
            what, n_rows = _mark(recipe.store, recipe.path)
        except Exception as error:
            return recipe.name, recipe.place, f"{type(error).__name__}: {error}"
        if (what, n_rows) == NOWHERE:
            return recipe.name, recipe.place, "nothing is there"
        if what != recipe.mark[0] or n_rows < recipe.mark[1]:
            return recipe.name, recipe.place, "another array is there"
    return None


def _mark(store: Store, path: str) -> tuple[str, int]:
    """A digest of how an array is stored, and its number of rows; NOWHERE where there is none.

    Its attributes are notes that anyone may add to.
    """
    for name in MARKS:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found = sync(_content(store, f"{path}/{name}" if path else name))
            if found is not None:
                said = json.loads(found)
                said.pop("attributes", None)
                n_rows, *said["shape"] = said["shape"] or [0]
                return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest(), int(n_rows)
    return NOWHERE


async def _content(store: Store, key: str) -> bytes | None:
    found = await store.get(key, default_buffer_prototype())
    return None if found is None else found.to_bytes()


def not_seen(address: str, name: str, place: str, why: str) -> str:
    """Of a path that depends on where a process was started, and of any other."""
    remedy = "Open it by its absolute path," if place.startswith("relative") else "Put it where every worker sees it"
    return (
        f"the worker {address} does not find {name} at the {place}, where the client reads it: {why}. {remedy} on a "
        "file system that all of them share, or in an object store."
    )
