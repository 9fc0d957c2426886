"""Rows that stay in memory between the passes of a fit: bits, reads, what is kept, when it is let go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import zarr

from lrgls_dask import LowRankGLS, System
from lrgls_dask.errors import ChangedStore, UnreadableRows
from lrgls_dask.plan import pins
from lrgls_dask.rows import block_plan, meter
from lrgls_dask.rows.pinned import PinnedRows, last_pinned, pinned_row_bytes
from support.counted import counted, counted_array, counted_rows
from support.incomplete import with_holes
from support.systems import Data, dask_rows, simulate, zarr_rows

pytestmark = [
    pytest.mark.usefixtures("every_chunk_a_block"),
    pytest.mark.filterwarnings("ignore:LowRankGLS. (not converged|idiosyncratic)"),
]

DATA = simulate("mixed", n=60)
HOLES = with_holes(DATA)
ROOMY = "1TB"
HALF = 30
SHORT: dict[str, Any] = {"engine": "stream", "max_sweeps": 2, "rel_tol": 1e-2}


@pytest.fixture
def room_for_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits leave room for half of the rows: rows of tests are smaller than what the system rounds to."""

    def half(rows: Any, bounds: np.ndarray, n_bytes: float) -> int:
        return last_pinned(rows, bounds, min(n_bytes, pinned_row_bytes(rows) * HALF))

    monkeypatch.setattr(pins, "last_pinned", half)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[PinnedRows]:
    """All that fits have kept rows in, with the most bytes that they held when a pass began."""
    found: list[PinnedRows] = []

    class Seen(PinnedRows):
        def __init__(self, stop: int) -> None:
            super().__init__(stop)
            self.asked: set[int] = set()
            found.append(self)

        def keep(self, array: Any, start: int, values: np.ndarray) -> np.ndarray:
            self.asked.add(id(array))
            return super().keep(array, start, values)

    monkeypatch.setattr(meter, "PinnedRows", Seen)
    return found


def numbers(fit: Any) -> list[np.ndarray]:
    return [fit.params.values, fit.std_errors.values, np.array([fit.nll]), fit.idio_var.values]


def same_bits(fit: Any, other: Any) -> bool:
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(numbers(fit), numbers(other), strict=True))


# ---------------------------------------------------------------------------------------------- reads


@pytest.mark.parametrize(("rows", "missing"), [(DATA, "raise"), (HOLES, "em")], ids=["complete", "holes"])
@pytest.mark.usefixtures("room_for_half")
def test_rows_that_fit_are_read_once_and_the_others_in_every_pass(rows: Data, missing: str) -> None:
    store = counted(rows)
    model = LowRankGLS(2, **SHORT, missing=missing, memory_limit=ROOMY).fit(System.from_zarr(store))
    fit, plan = model.result_, model.plan_
    assert plan.pinned_rows == HALF and fit.n_passes > 2
    over_x = missing == "raise"  # the last pass is then over X alone
    assert store.of("X") == {1: 3, fit.n_passes: 3}
    assert store.of("Y") == {1: 3, fit.n_passes - over_x: 3}
    x, y = 8 * rows.X.shape[1], 8 * rows.Y.shape[1]
    assert fit.bytes_read == (x + y) * (HALF + HALF * fit.n_passes) - over_x * HALF * y
    again = LowRankGLS(2, **SHORT, missing=missing).fit(System.from_zarr(store)).result_
    assert same_bits(fit, again) and fit.n_passes == again.n_passes


def test_nothing_is_read_again_where_all_rows_fit() -> None:
    store = counted(DATA)
    model = LowRankGLS(2, **SHORT, memory_limit=ROOMY).fit(System.from_zarr(store))
    assert store.of("X") == store.of("Y") == {1: 6}
    assert model.result_.bytes_read == 60 * 14 * 8 == model.plan_.pinned_bytes


@pytest.mark.usefixtures("room_for_half")
@pytest.mark.parametrize("lazy", [pytest.param(False, marks=pytest.mark.slow), True], ids=["zarr", "dask"])
def test_chunks_that_blocks_share_are_read_once_where_they_are_kept(lazy: bool, monkeypatch: Any) -> None:
    """X in chunks of 15 rows and Y in chunks of 10: only rows below 30 end a chunk of both."""
    monkeypatch.setattr("lrgls_dask.rows.layout.LARGEST_BLOCK_BYTES", 1)
    X, x_gets = counted_array(DATA.X[:, :2], 15)
    Y, y_gets = counted_array(DATA.Y, 10)
    system = System.from_arrays(*(map(da.from_zarr, (Y, X)) if lazy else (Y, X)))
    model = LowRankGLS(1, **SHORT, memory_limit=ROOMY).fit(system)
    passes = model.result_.n_passes
    assert model.plan_.pinned_rows == HALF and passes > 1
    assert Counter(x_gets.values()) == {1: 2, passes: 2}
    assert Counter(y_gets.values()) == {1: 3, passes: 3}


@pytest.mark.usefixtures("room_for_half")
def test_what_dask_computes_is_kept_too() -> None:
    system, reads = counted_rows(DATA, 10)
    fit = LowRankGLS(2, **SHORT, memory_limit=ROOMY).fit(system).result_
    assert Counter(reads.values()) == {1: 6, fit.n_passes: 6} and fit.n_passes > 1


@pytest.mark.slow
def test_rows_of_more_patterns_than_are_compressed_are_kept_from_the_second_pass_on(monkeypatch: Any) -> None:
    monkeypatch.setattr("lrgls_dask.plan.make.are_few", lambda rows: False)
    monkeypatch.setattr("lrgls_dask.plan.make.most_patterns", lambda design: 2)
    store = counted(HOLES)
    model = LowRankGLS(2, missing="em", memory_limit=ROOMY)
    assert model.plan(System.from_zarr(store)).pinned_rows == 0
    model.fit(System.from_zarr(store))
    assert model.plan_.engine == "stream" and model.plan_.pinned_rows == 60
    assert store.of("Y") == {2: 6} and model.result_.n_passes > 2


# ---------------------------------------------------------------------------------------------- bits


@pytest.mark.usefixtures("room_for_half")
@pytest.mark.parametrize(
    "how", ["groups", *(pytest.param(each, marks=pytest.mark.slow) for each in ("weights", "skipped", "threads"))]
)
def test_no_bit_depends_on_what_is_kept(how: str) -> None:
    data = simulate("mixed", n=60, weighted=how == "weights")
    if how == "skipped":
        data = replace(data, Y=np.column_stack([data.Y, np.full(60, np.nan)]), columns=(*data.columns, np.arange(2)))
    if how == "groups":
        data = replace(data, X=data.X + np.arange(60)[:, None] ** 0.5)  # without a constant
    system = data.system(zarr_rows(10))
    if how == "groups":
        system = system.absorb(np.arange(60) % 7)
    options: dict[str, Any] = {"unusable": "skip"} if how == "skipped" else {}
    with dask.config.set(scheduler="threads" if how == "threads" else "synchronous", num_workers=4):
        kept = LowRankGLS(2, **SHORT, memory_limit=ROOMY, **options).fit(system)
        plain = LowRankGLS(2, **SHORT, **options).fit(system)
    assert kept.plan_.pinned_rows == HALF and plain.plan_.pinned_rows == 0
    assert same_bits(kept.result_, plain.result_)


# ---------------------------------------------------------------------------------------------- what is kept, and when


def test_what_is_in_memory_is_neither_copied_nor_kept(made: list[PinnedRows]) -> None:
    """An array in memory, and one in memory that Dask has cut; of X, which is read, every block is kept."""
    X = zarr_rows(10)(DATA.X)
    for wrap in (np.asarray, dask_rows(10)):
        system = replace(DATA, X=X).system(lambda a, wrap=wrap: a if a is X else wrap(a))
        model = LowRankGLS(2, **SHORT, memory_limit=ROOMY).fit(system)
        assert model.plan_.pinned_rows == 60
        assert made.pop().asked == {id(part.array) for part in system.rows.x}
    assert LowRankGLS(2, **SHORT, memory_limit=ROOMY).plan(DATA.system()).pinned_rows == 0


@pytest.mark.parametrize("fails", [False, True], ids=["ended", "failed"])
def test_all_is_let_go_when_a_fit_ends(made: list[PinnedRows], monkeypatch: Any, fails: bool) -> None:
    read, reads = block_plan._read_part, Counter[str]()

    def counting(*given: Any) -> Any:
        reads["all"] += 1
        if fails and reads["all"] > 8:
            raise OSError("no such disk")
        return read(*given)

    monkeypatch.setattr(block_plan, "_read_part", counting)
    model = LowRankGLS(2, **SHORT, memory_limit=ROOMY)
    system = DATA.system(zarr_rows(10))
    if fails:
        with pytest.raises(UnreadableRows, match="no such disk"):
            model.fit(system)
    else:
        model.fit(system)
    (pinned,) = made
    assert pinned.asked and not pinned._blocks
    values = np.ones(3)
    assert pinned.keep(system, 0, values).base is values and not pinned._blocks


def test_only_fits_of_several_passes_by_threads_with_a_limit_keep_any() -> None:
    system = DATA.system(zarr_rows(10))
    for options in ({"engine": "compress", "memory_limit": ROOMY}, SHORT):
        plan = LowRankGLS(2, **options).plan(system)
        assert plan.pinned_rows == plan.pinned_bytes == 0 and "stay in memory" not in str(plan)
    elsewhere = LowRankGLS(2, **SHORT, memory_limit=ROOMY).plan(system, workers=2, worker_memory="8GB")
    assert elsewhere.pinned_rows == 0


def test_other_processes_keep_none(made: list[PinnedRows]) -> None:
    """Tasks that another scheduler sends elsewhere would take what is kept along."""
    system = DATA.system(zarr_rows(10))
    plain = LowRankGLS(2, **SHORT).fit(system).result_

    def elsewhere(*given: Any, **options: Any) -> Any:
        return dask.get(*given, **options)

    with dask.config.set(scheduler=elsewhere):
        fit = LowRankGLS(2, **SHORT, memory_limit=ROOMY).fit(system).result_
    assert not made[-1].asked and same_bits(fit, plain)


def test_what_is_kept_is_read_only_and_served_to_passes_that_are_cut_otherwise() -> None:
    pinned, array, values = PinnedRows(6), object(), np.arange(12.0).reshape(6, 2)
    pinned.begin(np.array([0, 2, 4, 6, 8]))
    for start in (4, 0):
        assert not pinned.keep(array, start, values[start : start + 2]).flags.writeable
    assert values.flags.writeable
    assert pinned.takes(2, 4) and not any(pinned.takes(*rows) for rows in [(0, 4), (1, 2), (6, 8)])
    assert pinned.find(array, 0, 4) is None and pinned.find(array, 5, 7) is None and pinned.find([], 0, 2) is None
    pinned.keep(array, 2, values[2:4])
    assert np.array_equal(np.concatenate(pinned.find(array, 1, 5) or ()), values[1:5])
    assert pinned.held_bytes([array, "other"], np.array([0, 3, 6, 8])) == values.nbytes
    pinned.release()
    assert pinned.find(array, 0, 2) is None and not pinned.takes(0, 2)


def test_the_last_row_that_is_kept_splits_no_stored_chunk() -> None:
    rows = System.from_arrays(zarr_rows(10)(DATA.Y), zarr_rows(15)(DATA.X)).rows
    bounds, row = np.arange(0, 61, 5), pinned_row_bytes(rows)
    ends = [last_pinned(rows, bounds, n * row) for n in (-1, 29, 30, 59, 60, np.inf)]
    assert ends == [0, 0, 30, 30, 60, 60]


# ---------------------------------------------------------------------------------------------- stores, plans


@pytest.mark.parametrize("opened", [System.from_zarr, pytest.param(None, marks=pytest.mark.slow)], ids=["zarr", "dask"])
def test_a_store_that_is_overwritten_is_noticed_though_nothing_is_read_again(
    tmp_path: Path, monkeypatch: Any, opened: Callable[[Path], System] | None
) -> None:
    path, times = tmp_path / "s.zarr", Counter[str]()
    DATA.system().to_zarr(path, row_chunk=10)
    read = block_plan._read

    def overwriting(*given: Any) -> Any:
        times["read"] += 1
        if times["read"] == 7:  # of the second pass, which reads no chunk
            replace(DATA, Y=2 * DATA.Y).system().to_zarr(path, row_chunk=10, overwrite=True)
        return read(*given)

    if opened is None:
        arrays = zarr.open_group(str(path), mode="r")
        system = DATA.system(lambda a: da.from_zarr(arrays["Y" if a is DATA.Y else "X"]))
    else:
        system = opened(path)
    monkeypatch.setattr(block_plan, "_read", overwriting)
    with pytest.raises(ChangedStore, match="written anew"):
        LowRankGLS(2, **SHORT, memory_limit=ROOMY).fit(system)
    assert times["read"] >= 7


def test_the_plan_says_what_stays_and_takes_no_more_than_its_limit() -> None:
    """Rows of 160 MB, of which nothing is read: peak, text and seconds by limit, and room for X'X beside."""
    shape, own = (1_000_000, 10), np.kron(np.eye(10, dtype=bool), np.ones((1, 1), dtype=bool))
    system = System.from_arrays(*(da.zeros(shape, chunks=(10_000, 10)) for _ in "YX"), incidence=own)
    model = LowRankGLS(2, **SHORT)
    plain = model.plan(system)
    seconds = []
    for share in (0.0, 0.25, 0.5, 1.1):
        limit = plain.peak + 4_000_000 + int(1.15 * share * 160_000_000)
        plan = model.set_params(memory_limit=limit).plan(system)
        assert plan.pinned_bytes == 160 * plan.pinned_rows and plan.pinned_rows % 10_000 == 0
        assert plan.pinned_rows == pytest.approx(1_000_000 * min(share, 1.0), abs=60_000)
        assert plan.peak <= limit and plan.fits
        assert plan.keeps_x == plain.keeps_x
        seconds.append(plan.reading(1e6).seconds)
        assert plan.nominal_seconds == plain.nominal_seconds
    assert seconds == sorted(seconds, reverse=True) and seconds[-1] < 0.2 * seconds[0]
    assert "all rows, 152.59 MiB, stay in memory, so that each pass after the first reads nothing" in str(plan)
    half = str(model.set_params(memory_limit=plain.peak + 96_000_000).plan(system))
    assert "the first" in half and "rows" in half and "each pass after the first reads" in half
