"""The seconds of a plan: rates of the machine, a cluster that is not there, and the faster engine on every machine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest

from lrgls_dask import LowRankGLS, System
from lrgls_dask.cli.main import main
from lrgls_dask.plan import plan as plans
from lrgls_dask.plan import rates as machine
from lrgls_dask.plan.rates import NOMINAL, Rates, machine_rates
from lrgls_dask.plan.work import compress_work, stream_work
from support.systems import simulate


def unread(n_obs: int, n_equations: int, n_regressors: int, *, own: bool = False) -> System:
    """Rows that nothing can read."""

    def never(block: np.ndarray) -> np.ndarray:
        raise AssertionError("a plan must not read")

    def lazy(width: int) -> da.Array:
        chunks = (max(1, 2**21 // width), width)
        return da.zeros((n_obs, width), chunks=chunks).map_blocks(never, dtype=float, meta=np.empty((0, 0)))

    incidence = np.kron(np.eye(n_equations, dtype=bool), np.ones((n_regressors, 1), dtype=bool)) if own else None
    width = n_equations * n_regressors if own else n_regressors
    return System.from_arrays(lazy(n_equations), lazy(width), incidence=incidence)


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> Rates:
    monkeypatch.setattr(plans, "machine_rates", lambda: NOMINAL)
    return NOMINAL


def test_more_workers_are_faster_until_there_are_more_than_tasks(rates: Rates) -> None:
    system, model = unread(20_000_000, 100, 10), LowRankGLS(2)
    one, ten, many = (model.plan(system, workers=n, gb_per_s=10.0).seconds for n in (1, 10, 10**6))
    assert one == pytest.approx(10 * ten, rel=0.01)
    assert ten > many > 0
    assert model.plan(system, workers=5, threads=2, gb_per_s=10.0).seconds == pytest.approx(ten, rel=1e-6)


def test_slow_storage_is_what_one_waits_for(rates: Rates) -> None:
    plan = LowRankGLS(2).plan(unread(20_000_000, 100, 10), workers=10, gb_per_s=0.01)
    assert plan.seconds == pytest.approx(plan.bytes_per_pass / 1e8, rel=0.01)
    stream = LowRankGLS(2, engine="stream").plan(unread(20_000_000, 100, 10), workers=10, gb_per_s=0.01)
    assert stream.seconds == pytest.approx(stream.passes * plan.seconds, rel=0.01)


def test_rows_in_memory_are_not_read(rates: Rates) -> None:
    data = simulate("shared", n=500)
    plan = LowRankGLS(1).plan(data.system())
    assert (plan.stored, plan.reading(1.0).seconds) == (False, plan.seconds)


def test_the_text_names_the_time_of_both_engines(rates: Rates) -> None:
    text = str(LowRankGLS(2, memory_limit="100GB").plan(unread(1_000_000, 50, 5)))
    assert "  time    about " in text
    assert "  instead engine 'stream': about 2 passes, about " in text
    no_other = str(LowRankGLS(2, engine="stream", memory_limit="100GB", algorithm="em").plan(unread(1_000, 50, 5)))
    assert "about 30 times" in no_other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers must be at least 1, found 0"),
        ({"workers": 2, "threads": 0}, "threads must be at least 1, found 0"),
        ({"gb_per_s": 0.0}, "gb_per_s must be above zero"),
        ({"gb_per_s": float("nan")}, "gb_per_s must be above zero"),
    ],
)
def test_a_cluster_that_cannot_be_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LowRankGLS(1).plan(unread(1_000, 5, 2), **options)


def test_a_worker_of_a_cluster_that_is_not_there_has_a_limit() -> None:
    with pytest.raises(MemoryError, match="each worker"):
        LowRankGLS(1).plan(unread(100_000, 500, 5), workers=3, worker_memory="100MB")


@pytest.mark.parametrize(
    ("shape", "own", "engine"),
    [
        ((1_000_000, 50, 5), False, "compress"),
        ((500_000, 2_000, 10), False, "compress"),
        ((50_000, 10_000, 20), False, "stream"),  # a cross-product of 10^8 numbers is many times the arithmetic
        ((50_000, 1_000, 10), True, "compress"),  # X'X behind standard errors is most of either
        ((500_000, 100, 3), True, "compress"),
        ((292, 6_000, 5), False, "stream"),  # products of few rows with factors, and no search in 292 x 292
        ((500, 40, 3), False, "compress"),  # both take no time, and one pass answers more
    ],
)
def test_auto_takes_the_faster_on_every_machine(
    shape: tuple[int, int, int], own: bool, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, model = unread(*shape, own=own), LowRankGLS(3, memory_limit="100GB")
    plans_made, seconds = [], set()
    for faster, threads in ((1.0, 1), (1e-3, 64), (1e3, 2)):
        mine = replace(NOMINAL, flops=faster * NOMINAL.flops, numbers=NOMINAL.numbers / faster)
        monkeypatch.setattr(plans, "machine_rates", lambda mine=mine: mine)
        with dask.config.set(num_workers=threads):
            plans_made.append(model.plan(system))
        seconds.add(plans_made[-1].seconds)
    assert {plan.engine for plan in plans_made} == {engine}
    assert len({plan.nominal_seconds for plan in plans_made}) == 1
    assert len(seconds) == 3
    best = min(each.nominal_seconds for each in plans_made[0].instead)
    assert plans_made[0].nominal_seconds <= best / 0.8 or plans_made[0].nominal_seconds < 0.3


def test_rows_that_no_cache_holds_are_read_anew_by_each_pass() -> None:
    small, large = (LowRankGLS(3, memory_limit="100GB").plan(unread(n, 2_000, 10)) for n in (100_000, 500_000))
    assert (small.bytes_per_pass < plans.NOMINAL_CACHE < large.bytes_per_pass) is True
    # eight passes from the cache take less than the cross-product of all rows, eight from a disk take more
    assert (small.engine, large.engine) == ("stream", "compress")
    assert large.instead[0].nominal_seconds > large.instead[0].passes * large.bytes_per_pass / NOMINAL.read


def test_an_equation_takes_time_before_any_row_is_read() -> None:
    few, many = (unread(10, K, 1).design for K in (1_000, 2_000))
    for work in (compress_work, lambda design, n, tasks: stream_work(design, n, tasks, passes=8, dense=False)):
        more = work(many, 10, 1).client_numbers - work(few, 10, 1).client_numbers
        assert more >= 1_000 * 1_000


def test_work_grows_as_the_arithmetic_does() -> None:
    design = unread(10, 200, 5).design
    assert compress_work(design, 2_000, 8).flops == 2_000 * 205**2
    assert compress_work(design, 100, 8).flops == 2 * 100 * 205 * 5  # fewer rows than columns stay rows
    few, many = (stream_work(design, 1_000, 8, passes=n, dense=True) for n in (3, 5))
    assert many.flops - few.flops == pytest.approx(2 * 1_000 * (2 * 1_000 + 200**2))
    own = unread(10, 200, 5, own=True).design  # whose residuals also say what moves the coefficients
    before, after = (stream_work(own, 1_000, 8, passes=n, dense=True) for n in (3, 5))
    assert after.flops - before.flops == pytest.approx(2 * 1_000 * (4 * 1_000 + 1.5 * 200**2))
    assert few.times(2.0).numbers == 2 * few.numbers


def test_rates_are_measured_once_for_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured: list[Rates] = []

    def measure() -> Rates:
        measured.append(NOMINAL)
        return NOMINAL

    monkeypatch.setattr(machine, "_measured", measure)
    kept = tmp_path / "lrgls_dask" / "rates.json"
    for n_measured, before in (
        (1, None),
        (1, None),
        (2, "not JSON"),
        (3, '{"another machine": {}}'),
        (3, None),
        (4, "[1]"),
    ):
        if before is not None:
            kept.write_text(before)
        machine_rates.cache_clear()
        assert machine_rates() == NOMINAL
        assert len(measured) == n_measured
    assert set(json.loads(kept.read_text())) == {machine._machine()}
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")  # where nothing can be kept
    machine_rates.cache_clear()
    assert machine_rates() == NOMINAL
    machine_rates.cache_clear()


def test_this_machine_does_something_in_a_second() -> None:
    found = machine._measured()
    assert min(found.numbers, found.flops, found.memory, found.read) > 1e5
    assert found.flops > found.numbers


def test_the_command_plans_for_a_cluster(tmp_path: Path, rates: Rates, capsys: pytest.CaptureFixture[str]) -> None:
    simulate("shared", n=200).system().to_zarr(tmp_path / "a.zarr")
    words = ["--workers", "5", "--threads", "2", "--worker-memory", "3GB", "--gb-per-s", "0.000001"]
    assert main(["plan", str(tmp_path / "a.zarr"), "--rank", "1", *words]) == 0
    said = capsys.readouterr().out
    assert "on 5 workers of 2 threads each" in said
    n_bytes = LowRankGLS(1).plan(System.from_zarr(tmp_path / "a.zarr")).bytes_per_pass
    assert f"time    about {n_bytes / 5e3:.2g} s" in said


def test_a_streamed_fit_of_own_columns_is_priced_with_its_pass_for_standard_errors() -> None:
    design = unread(10, 200, 5, own=True).design
    without, with_x = (stream_work(design, 20_000, 8, passes=9, dense=True, x_tasks=n) for n in (0, 4))
    assert without.after is None
    assert with_x.after is not None
    assert (with_x.after.flops, with_x.after.tasks) == (20_000 * 1_000.0**2, 4)
    assert with_x.seconds(NOMINAL, 2, 0.0) > without.seconds(NOMINAL, 2, 0.0) + 20_000 * 1e6 / NOMINAL.flops / 2
    few = stream_work(design, 500, 8, passes=9, dense=True, x_tasks=1)  # rows that stay rows are not multiplied
    assert few.after is not None
    assert few.after.flops == 0


def test_an_own_design_is_priced_so_only_where_x_fits(rates: Rates) -> None:
    system = unread(40_000, 300, 5, own=True)
    # a worker's memory, not this process's, which tests before have filled
    model = LowRankGLS(2, engine="stream")
    wide, narrow = (model.plan(system, workers=1, worker_memory=limit) for limit in ("60GB", "900MB"))
    assert wide.work is not None and narrow.work is not None
    assert (wide.work.after is None, narrow.work.after is None) == (False, True)


def test_fewer_rows_than_equations_are_priced_as_rows() -> None:
    design = unread(10, 4_000, 5).design
    few, dense = compress_work(design, 300, 1, by_rows=True), compress_work(design, 300, 1)
    assert few.client_bytes < dense.client_bytes / 5
    assert few.flops < 300 * 4_005 * 300 / 10  # X alone is reduced


@pytest.mark.parametrize(
    ("shape", "own", "limit", "seconds"),
    [
        ((2_000, 2_100, 5), False, "4GB", 5.0),  # rounds of EM alone
        ((1_000, 2_100, 3), True, "40GB", 45.0),  # and the information of 6,300 coefficients
    ],
)
def test_rounds_and_standard_errors_of_rows_that_miss_responses_are_counted(
    shape: tuple[int, int, int], own: bool, limit: str, seconds: float
) -> None:
    """Within a factor of three of what was measured on two threads."""
    model = LowRankGLS(2, missing="em", engine="stream", memory_limit=limit)
    plan = model.plan(unread(*shape, own=own))
    assert plan.holds_cov is own
    assert seconds / 3 < plan.nominal_seconds < 3 * seconds


def test_fits_without_parts_of_the_rows_are_counted_once_however_they_share_passes() -> None:
    system = unread(50_000, 400, 3)
    roomy, tight = (
        LowRankGLS("cv", missing="em", engine="stream", memory_limit=limit).plan(system) for limit in ("100GB", "6GB")
    )
    assert tight.purposes["rows left out"] > roomy.purposes["rows left out"]
    assert tight.work.numbers == roomy.work.numbers
