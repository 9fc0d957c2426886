"""A store that fails its n-th operation, n = 1, 2, 3, ... until all passes untouched: the same bits, or an error."""

from __future__ import annotations

import gc
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from zarr.storage import MemoryStore

from lrgls_dask import CompressedSystem, Fit, LowRankGLS, System
from lrgls_dask.data import storage
from lrgls_dask.data.patientstore import PatientStore
from lrgls_dask.errors import UnreadableRows
from lrgls_dask.rows import patience
from support.faulty import KINDS, SHORT, TRANSIENT, FaultyStore

RNG = np.random.default_rng(0)
X = np.column_stack([np.ones(60), RNG.normal(size=(60, 2))])
Y = X @ RNG.normal(size=(3, 3)) + RNG.normal(size=(60, 3))
ALL = (*KINDS, SHORT)

# zarr leaves coroutines unawaited where one of several requests fails
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No waiting between tries, and nothing left over for the tests that follow."""
    monkeypatch.setattr(patience, "WAITS", (0.0, 0.0))
    yield
    gc.collect()


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
    return bytes(np.asarray(fit(rows()).impute(system).to_dataarray()).tobytes())


READS: dict[str, tuple[Callable[[Any], object], Callable[[Any], bytes]]] = {
    "fit": (lambda store: rows().to_zarr(store, row_chunk=20), whole_fit),
    "impute": (lambda store: rows().to_zarr(store, row_chunk=20), imputed),
    "open a fit": (
        lambda store: fit(rows()).to_zarr(store),
        opened_fit,
    ),
}
WRITES: dict[str, tuple[Callable[[Any], object], Callable[[Any], Any]]] = {
    "to_zarr": (lambda store: rows().to_zarr(store, row_chunk=20), whole_fit),
    "fit.to_zarr": (
        lambda store: fit(rows()).to_zarr(store),
        opened_fit,
    ),
    "compressed": (
        lambda store: rows().compress().to_zarr(store),
        lambda store: fit(CompressedSystem.from_zarr(store)).params.values.tobytes(),
    ),
}


@cache
def begun() -> dict[str, Any]:
    """A store of the first rows, to be appended to."""
    return stored(lambda store: rows(0, 43).to_zarr(store, row_chunk=20))._store_dict


def append(store: Any) -> None:
    rows(43).append_to_zarr(store)


def checkpointed(path: str | None) -> bytes:
    """Of a loop of three sweeps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LowRankGLS(1, engine="stream", algorithm="em", max_sweeps=3, checkpoint=path)
        found = model.fit(rows()).result_
    return bytes(found.params.values.tobytes()) + repr(found.loglik).encode()


@cache
def ready(name: str) -> tuple[MemoryStore, bytes]:
    """A store that is read, and what is read of it; of one that is written what was."""
    write, read = (READS | WRITES)[name]
    store = stored(write)
    return store, read(store)


def once(name: str, kind: str, n: int) -> str:
    """How it ends where operation n fails: untouched, survived with the same bits, or refused with an error."""
    if name in CHANGES:
        return CHANGES[name](kind, n)
    return read_once(name, kind, n) if name in READS else written_once(name, kind, n)


def read_once(name: str, kind: str, n: int) -> str:
    store, right = ready(name)
    faulty = FaultyStore(store, kind, n)
    try:
        found = READS[name][1](faulty)
    except Exception as error:
        assert faulty.hit and str(error), (name, kind, n, error)
        return "named"
    assert found == right, (name, kind, n)
    return "survived" if faulty.hit else "untouched"


def written_once(name: str, kind: str, n: int) -> str:
    """What failed does not open as whole, and the place can be written to again."""
    (write, read), (_, right) = WRITES[name], ready(name)
    inner = MemoryStore()
    faulty = FaultyStore(inner, kind, n)
    try:
        write(faulty)
    except Exception as error:
        assert faulty.hit and str(error), (name, kind, n, error)
        with pytest.raises((ValueError, FileNotFoundError)):
            read(inner)
        write(inner)
        assert read(inner) == right, (name, kind, n)
        return "named"
    assert read(inner) == right, (name, kind, n)
    return "survived" if faulty.hit else "untouched"


@cache
def right_ends() -> tuple[bytes, bytes, bytes]:
    """Of the rows before and after they are appended, and of the loop."""
    before = MemoryStore(dict(begun()))
    after = MemoryStore(dict(begun()))
    append(after)
    return whole_fit(before), whole_fit(after), checkpointed(None)


def appended_once(kind: str, n: int) -> str:
    """What failed left the rows that were there or all; those are appended again."""
    before, after, _ = right_ends()
    inner = MemoryStore(dict(begun()))
    faulty = FaultyStore(inner, kind, n)
    try:
        append(faulty)
    except Exception as error:
        assert faulty.hit and str(error), (kind, n, error)
        left = whole_fit(inner)
        assert left in (before, after), (kind, n)
        if left == before:
            append(inner)
        assert whole_fit(inner) == after, (kind, n)
        return "named"
    assert whole_fit(inner) == after, (kind, n)
    return "survived" if faulty.hit else "untouched"


def checkpointed_once(kind: str, n: int) -> str:
    """What failed leaves a checkpoint that the next fit goes on from, to the same bits; or none."""
    right = right_ends()[2]
    counts = FaultyStore(MemoryStore(), kind, n)  # the numbers go on over all stores that are opened

    def faulty(store: Any) -> Any:
        found = FaultyStore(store, kind, n)
        found._fails = counts._fails  # type: ignore[method-assign]
        return PatientStore(found)

    path = f"memory://kept-{kind.replace(' ', '')}-{n}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "patient", faulty)
        try:
            found = checkpointed(path)
        except Exception as error:
            assert counts.hit and str(error), (kind, n, error)
            patch.undo()
            assert checkpointed(path) == right, (kind, n)
            return "named"
    assert found == right, (kind, n)
    return "survived" if counts.hit else "untouched"


CHANGES: dict[str, Callable[[str, int], str]] = {"append": appended_once, "checkpoint": checkpointed_once}


def in_turn(name: str, kind: str, step: int = 1) -> Counter[str]:
    """The ends where each step-th operation fails, until one passes untouched."""
    ends: Counter[str] = Counter()
    for n in range(1, 10_000, step):
        end = once(name, kind, n)
        if end == "untouched":
            return ends
        ends[end] += 1
    raise AssertionError("never passed untouched")


@pytest.mark.parametrize(
    ("name", "kind", "step"),
    [
        ("fit", "timeout", 9),
        ("fit", "denied", 9),
        ("open a fit", SHORT, 41),
        ("to_zarr", "full", 19),
        ("to_zarr", "503", 29),
        ("fit.to_zarr", "denied", 97),
        ("append", "full", 13),
        ("append", "reset", 17),
        ("append", "not found", 19),
        ("checkpoint", "denied", 43),
    ],
)
def test_a_store_that_fails(name: str, kind: str, step: int) -> None:
    ends = in_turn(name, kind, step)
    assert (ends["survived"] > 1 and not ends["named"]) if kind in TRANSIENT else ends["named"] > 1


@pytest.mark.parametrize("kind", ["not found", SHORT])
def test_no_seal_is_of_what_could_not_be_read(kind: str) -> None:
    """A checksum that is not there or cut short while a store is sealed."""
    assert "named" in {once("to_zarr", kind, n) for n in range(39, 49, 3)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("name", [*READS, *WRITES, *CHANGES])
def test_every_operation_that_fails(name: str, kind: str) -> None:
    ends = in_turn(name, kind)
    print(f"{name}, {kind}: {dict(ends)}")
    assert sum(ends.values()) > 5
    assert not (ends["named"] and kind in TRANSIENT), "what passes by itself was not tried again"


@pytest.mark.slow
def test_three_hundred_faults_by_chance() -> None:
    """Seed 15. Every kind is met, while reading and while writing."""
    rng = np.random.default_rng(15)
    table: Counter[tuple[str, str, str]] = Counter()
    for _ in range(300):
        name, kind = str(rng.choice([*READS, *WRITES, *CHANGES])), str(rng.choice(ALL))
        n = int(rng.integers(1, 17 if name in ("fit", "impute") else 45))
        table["read" if name in READS else "written", kind, once(name, kind, n)] += 1
    for (how, kind, end), count in sorted(table.items()):
        print(f"{how:8} {kind:10} {end:9} {count:4}")
    met = {(how, kind) for how, kind, end in table if end != "untouched"}
    assert met == {(how, kind) for how in ("read", "written") for kind in ALL}


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
