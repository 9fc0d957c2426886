"""A store that fails its n-th operation, n = 1, 2, 3, ... until all passes untouched: the same bits, or an error."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from zarr.storage import MemoryStore

from lrgls_dask import CompressedSystem, Fit, LowRankGLS, System
from lrgls_dask.errors import UnreadableRows
from lrgls_dask.rows import patience
from support.faulty import KINDS, SHORT, TRANSIENT, FaultyStore

RNG = np.random.default_rng(0)
X = np.column_stack([np.ones(60), RNG.normal(size=(60, 2))])
Y = X @ RNG.normal(size=(3, 3)) + RNG.normal(size=(60, 3))
ALL = (*KINDS, SHORT)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between tries."""
    monkeypatch.setattr(patience, "WAITS", (0.0, 0.0))


def rows(first: int = 0, stop: int = 60) -> System:
    return System.from_arrays(Y[first:stop], X[first:stop])


def fit(system: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LowRankGLS(0).fit(system).result_


def stored(write: Callable[[Any], object]) -> MemoryStore:
    store = MemoryStore()
    write(store)
    return store


def whole_fit(store: Any) -> bytes:
    return bytes(fit(System.from_zarr(store)).params.values.tobytes())


def opened_fit(store: Any) -> bytes:
    return bytes(Fit.from_zarr(store).params.values.tobytes())


def imputed(store: Any) -> bytes:
    system = System.from_zarr(store)
    return bytes(np.asarray(fit(rows()).impute(system)).tobytes())


READS: dict[str, tuple[Callable[[Any], object], Callable[[Any], bytes]]] = {
    "fit": (lambda store: rows().to_zarr(store, row_chunk=20), whole_fit),
    "impute": (lambda store: rows().to_zarr(store, row_chunk=20), imputed),
    "open a fit": (
        lambda store: fit(rows()).to_zarr(store),
        lambda store: Fit.from_zarr(store).params.values.tobytes(),
    ),
}
WRITES: dict[str, tuple[Callable[[Any], object], Callable[[Any], Any]]] = {
    "to_zarr": (lambda store: rows().to_zarr(store, row_chunk=20), whole_fit),
    "fit.to_zarr": (
        lambda store: fit(rows()).to_zarr(store),
        lambda store: Fit.from_zarr(store).params.values.tobytes(),
    ),
    "compressed": (
        lambda store: rows().compress().to_zarr(store),
        lambda store: fit(CompressedSystem.from_zarr(store)).params.values.tobytes(),
    ),
}


def reads_with_faults(name: str, kind: str, step: int = 1, only: str = "") -> Counter[str]:
    """How it ended, over every step-th operation."""
    write, read = READS[name]
    store = stored(write)
    right, ends = read(store), Counter[str]()
    for n in range(1, 10_000, step):
        faulty = FaultyStore(store, kind, n, only=only)
        try:
            found = read(faulty)
        except Exception as error:
            assert faulty.hit, (kind, n, error)
            assert str(error), (kind, n)
            ends["named"] += 1
            continue
        if not faulty.hit:
            return ends
        assert found == right, (kind, n)
        ends["survived"] += 1
    raise AssertionError("never passed untouched")


def writes_with_faults(name: str, kind: str, step: int = 1) -> Counter[str]:
    """The same of writing: what failed does not open as whole, and the place can be written to again."""
    write, read = WRITES[name]
    right, ends = read(stored(write)), Counter[str]()
    for n in range(1, 10_000, step):
        inner = MemoryStore()
        faulty = FaultyStore(inner, kind, n)
        try:
            write(faulty)
        except Exception as error:
            assert faulty.hit, (kind, n, error)
            with pytest.raises((ValueError, FileNotFoundError)):
                read(inner)
            write(inner)
            assert read(inner) == right, (kind, n)
            ends["named"] += 1
            continue
        assert read(inner) == right, (kind, n)
        if not faulty.hit:
            return ends
        ends["survived"] += 1
    raise AssertionError("never passed untouched")


@pytest.mark.parametrize(("name", "kind", "step"), [("fit", "timeout", 5), ("open a fit", SHORT, 41)])
def test_a_read_that_fails(name: str, kind: str, step: int) -> None:
    assert reads_with_faults(name, kind, step)


@pytest.mark.parametrize(("name", "kind", "step"), [("to_zarr", "full", 19), ("fit.to_zarr", "denied", 97)])
def test_a_write_that_fails(name: str, kind: str, step: int) -> None:
    assert writes_with_faults(name, kind, step)["named"] > 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("name", READS)
def test_any_read_that_fails(name: str, kind: str) -> None:
    ends = reads_with_faults(name, kind)
    print(f"{name}, {kind}: {dict(ends)}")
    assert sum(ends.values()) > 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("name", WRITES)
def test_any_write_that_fails(name: str, kind: str) -> None:
    ends = writes_with_faults(name, kind)
    print(f"{name}, {kind}: {dict(ends)}")
    assert sum(ends.values()) > 5


class LastingFaults(FaultyStore):
    """Fails whenever a chunk of X is read."""

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        if key.startswith("X/c/"):
            self.hit[key] += 1
            raise KINDS[self.kind]()
        return await self._store.get(key, prototype, byte_range)


@pytest.mark.parametrize("kind", ["503", "denied"])
def test_what_lasts_is_named_after_a_bound_of_tries(kind: str) -> None:
    faulty = LastingFaults(stored(READS["fit"][0]), kind)
    with pytest.raises(UnreadableRows, match=r"X: rows 0 to 59 cannot be read .*injected"):
        fit(System.from_zarr(faulty))
    assert max(faulty.hit.values()) == (3 if kind in TRANSIENT else 1)
