"""Plans: priced without a read, honest about memory, refused when nothing fits."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from lrgls_dask import LowRankGLS, System
from lrgls_dask.compression.parts import compress_parts
from lrgls_dask.plan import make
from lrgls_dask.rows import partition
from lrgls_dask.rows.memory import Cluster
from lrgls_dask.rows.meter import Meter
from support.incomplete import with_holes
from support.peaks import measured
from support.systems import simulate


def wide(K: int = 400, q: int = 600, n: int = 40_000) -> System:
    """(q + K)^2 numbers take 8 MB, each equation has three columns; nothing can be read."""

    def never(block: np.ndarray) -> np.ndarray:
        raise AssertionError("a plan must not read")

    def unread(width: int) -> da.Array:
        return da.zeros((n, width), chunks=(1000, width)).map_blocks(never, dtype=float, meta=np.empty((0, 0)))

    incidence = np.zeros((q, K), dtype=bool)
    incidence[0] = True
    for j in range(K):
        incidence[[1 + j % (q - 1), 1 + (7 * j + 3) % (q - 1)], j] = True
    return System.from_arrays(unread(K), unread(q), incidence=incidence)


def test_numbers_are_positive_and_add_up() -> None:
    system = wide()
    for engine in ("compress", "stream"):
        plan = LowRankGLS(2, engine=engine, memory_limit="100GB").plan(system)
        assert (plan.engine, plan.n_obs, plan.n_equations, plan.n_regressors) == (engine, 40_000, 400, 600)
        assert plan.n_coefficients == system.n_coefficients
        assert plan.bytes_per_pass == 40_000 * 1000 * 8
        assert plan.memory_limit == 100 * 10**9
        assert plan.n_blocks * plan.largest_block >= plan.bytes_per_pass
        assert min(plan.passes, plan.worker_peak, plan.client_peak, plan.n_threads) > 0
        assert plan.passes == 1 if engine == "compress" else plan.passes > 1


def test_the_printed_plan_says_what_it_costs() -> None:
    text = str(LowRankGLS(2, memory_limit="100GB").plan(wide()))
    for words in ("engine 'compress', because the (1,000 x 1,000) cross-product takes", "40,000 rows; 400 equations",
                  "once", "threads of this process", "limit 93.13 GiB"):  # fmt: skip
        assert words in text


def test_less_memory_means_streaming_and_still_less_a_refusal() -> None:
    system = wide(K=60, q=3000, n=4_000)
    needs = {}
    for engine in ("compress", "stream"):
        plan = LowRankGLS(1, engine=engine, memory_limit="100GB").plan(system)
        needs[engine] = plan.peak - plan.x_bytes[0] - int(1.15 * plan.pinned_bytes)  # what a fit cannot do without
    assert needs["stream"] < needs["compress"]
    between = (needs["stream"] + needs["compress"]) // 2
    assert LowRankGLS(1, memory_limit="100GB").plan(system).engine == "compress"
    assert LowRankGLS(1, memory_limit=between).plan(system).engine == "stream"
    with pytest.raises(MemoryError, match=r"engine 'compress' needs .* use engine='stream'"):
        LowRankGLS(1, engine="compress", memory_limit=between).plan(system)
    with pytest.raises(MemoryError, match=r"needs [\d.]+ \w+ in this process; the limit is 9\.54 MiB\. Either"):
        LowRankGLS(1, memory_limit="10MB").plan(system)


def test_a_refused_fit_reads_nothing_and_its_remedy_works() -> None:
    system = wide(K=60, q=200, n=10_000)
    with pytest.raises(MemoryError, match=r"raise memory_limit to ([\d.]+ \w+)") as error:
        LowRankGLS(1, memory_limit="10MB").fit(system)
    found = re.search(r"raise memory_limit to ([\d.]+ \w+)", str(error.value))
    assert LowRankGLS(1, memory_limit=found.group(1)).plan(system).engine in ("compress", "stream")


@pytest.mark.parametrize("limit", [0, -5, "0B"])
def test_limits_that_are_none(limit: int | str) -> None:
    with pytest.raises(ValueError, match="memory_limit must be positive; got"):
        LowRankGLS(1, memory_limit=limit).plan(wide(K=4, q=3, n=100))


def test_memory_grows_with_threads_and_not_with_rows() -> None:
    def peak(n: int, threads: int) -> int:
        with dask.config.set(num_workers=threads):
            plan = LowRankGLS(1, engine="compress", memory_limit="100GB").plan(wide(K=60, q=200, n=n))
        return plan.worker_peak

    assert peak(1_000_000, 4) > peak(1_000_000, 1) + 10**7
    assert abs(peak(1_000_000, 2) - peak(2_000_000, 2)) < 10**6


def test_on_a_cluster_every_worker_is_priced(client) -> None:
    plan = LowRankGLS(1, engine="compress").plan(wide(K=60, q=200))
    assert (plan.n_workers, plan.n_threads, plan.in_process) == (2, 1, False)
    assert plan.memory_limit == int(0.6 * 10**9)
    assert "2 workers of 1 threads each" in str(plan)
    with pytest.raises(MemoryError, match=r"in (each worker|this process); the limit is 95\.37 MiB"):
        LowRankGLS(1, memory_limit="100MB").plan(wide(K=60, q=200))


MEASURE = """
import numpy
from lrgls_dask import LowRankGLS, System, TimeVarying
system = System.from_zarr(sys.argv[1])
options = {"rank": 2, "engine": sys.argv[2]}
if sys.argv[2] == "pinned":
    options |= {"engine": "stream", "memory_limit": "700MB"}
if sys.argv[2] == "segments":
    segments = numpy.arange(system.n_obs) * 60 // system.n_obs
    options = {"covariance": TimeVarying(2, segments, bandwidth=3.0)}
model = LowRankGLS(max_sweeps=3, rel_tol=1e-2, **options).fit(system)
found = {"planned": model.plan_.worker_peak, "bytes": model.result_.bytes_read}
"""


@pytest.mark.filterwarnings("ignore:LowRankGLS. not converged")
@pytest.mark.parametrize("engine", ["compress", "stream", pytest.param("pinned", marks=pytest.mark.slow)])
def test_measured_memory_stays_below_the_plan(tmp_path: Path, engine: str) -> None:
    """240 and 480 MB in a process of its own; twice the rows take no more memory, with some kept neither."""
    peaks = []
    for n in (200_000, 400_000):
        rng = da.random.default_rng(1)
        X, Y = rng.normal(size=(n, 100), chunks=(10_000, 100)), rng.normal(size=(n, 50), chunks=(10_000, 50))
        System.from_arrays(Y, X).to_zarr(tmp_path / f"{n}.zarr")
        found = measured(MEASURE, tmp_path / f"{n}.zarr", engine)
        assert found["bytes"] >= n * 150 * 8
        assert found["peak"] < found["planned"]
        peaks.append(found["peak"])
    assert peaks[1] < peaks[0] * 1.1


ON_CLUSTER = """
import json, sys
import xarray as xr
from distributed import Client, LocalCluster
from lrgls_dask import LowRankGLS, System
def most():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024
if __name__ == "__main__":
    closed = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "memory_limit": "2GB"}
    with LocalCluster(n_workers=2, threads_per_worker=1, **closed) as cluster, Client(cluster) as client:
        client.wait_for_workers(2)
        if sys.argv[2] == "own":
            system = System.from_zarr(sys.argv[1])
        else:
            system = System.from_xarray(xr.open_zarr(sys.argv[1], consolidated=False), y="Y", x=["X"])
        plan = LowRankGLS(2).fit(system).plan_
        found = {"client": most(), "worker": max(client.run(most).values())}
    print(json.dumps({**found, "client planned": plan.client_peak, "worker planned": plan.worker_peak}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read where Linux says them")
@pytest.mark.parametrize("route", ["own", "xarray"])
def test_every_process_of_a_cluster_stays_below_the_plan(tmp_path: Path, route: str) -> None:
    """Chunks of 2 MB, by our own store and by xr.open_zarr; client and workers, from their first import on."""
    rng = da.random.default_rng(1)
    X, Y = rng.normal(size=(200_000, 10), chunks=(5_000, 10)), rng.normal(size=(200_000, 50), chunks=(5_000, 50))
    if route == "own":
        System.from_arrays(Y, X).to_zarr(tmp_path / "rows.zarr")
    else:
        rows = xr.Dataset({"Y": (("obs", "equation"), Y), "X": (("obs", "regressor"), X)})
        rows.to_zarr(tmp_path / "rows.zarr", consolidated=False)
    (tmp_path / "program.py").write_text(ON_CLUSTER)
    command = [sys.executable, "-W", "ignore", str(tmp_path / "program.py"), str(tmp_path / "rows.zarr"), route]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["client"] < found["client planned"]
    assert found["worker"] < found["worker planned"]


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_memory_of_weighted_cells_stays_below_the_plan_and_near_it(tmp_path: Path, engine: str) -> None:
    """12 shared columns of 60 equations are 720 columns once cells have weights; a few MB of them exist at a time."""
    n, q, K = 30_000, 12, 60
    rng = da.random.default_rng(1)
    X, Y = rng.normal(size=(n, q), chunks=(10_000, q)), rng.normal(size=(n, K), chunks=(10_000, K))
    W = rng.uniform(0.5, 2.0, size=(n, K), chunks=(10_000, K))
    System.from_arrays(Y, X, weights=W).to_zarr(tmp_path / "rows.zarr", row_chunk=2_000)
    found = measured(MEASURE, tmp_path / "rows.zarr", engine)
    assert found["bytes"] >= n * (q + 2 * K) * 8
    assert found["peak"] < found["planned"] < 2 * found["peak"]


@pytest.mark.parametrize("own", [False, True])
def test_memory_of_segments_stays_below_the_plan_and_near_it(tmp_path: Path, own: bool) -> None:
    """60 segments, one pass; what they take apart is a large part of the plan."""
    K, q, n = 60, 240, 60_000
    rng = da.random.default_rng(1)
    X, Y = rng.normal(size=(n, q), chunks=(2_500, q)), rng.normal(size=(n, K), chunks=(2_500, K))
    incidence = np.repeat(np.eye(K, dtype=bool), q // K, axis=0) if own else None
    System.from_arrays(Y, X, incidence=incidence).to_zarr(tmp_path / "rows.zarr")
    found = measured(MEASURE, tmp_path / "rows.zarr", "segments")
    assert found["bytes"] == n * (q + K) * 8
    assert found["peak"] < found["planned"] < 2 * found["peak"]


def test_a_sum_of_rows_holds_the_segments_it_touches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not all of them: a task of a pass over rows in order knows one or two."""
    held: list[int] = []
    add = partition.LabelledMoments.__iadd__

    def counted(self: partition.LabelledMoments, other: partition.LabelledMoments) -> partition.LabelledMoments:
        held.append(len(other.parts))
        return add(self, other)

    monkeypatch.setattr(partition.LabelledMoments, "__iadd__", counted)
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(40_000, 90)), rng.normal(size=(40_000, 30))
    system = System.from_arrays(da.from_array(Y, (500, 30)), da.from_array(X, (500, 90)))
    runs = partition.RowRuns(np.arange(0, 40_001, 2_000))
    parts = compress_parts(system.rows, runs, meter=Meter())
    assert len(parts.moments) == 20
    assert len(held) >= 10 and max(held) <= 2


MEASURE_MISSING = MEASURE.replace('"rank": 2,', '"rank": 1, "missing": "em", "memory_limit": "20GB",').replace(
    "model.plan_.worker_peak", "model.plan_.peak_of(model.result_.n_patterns)"
)


@pytest.mark.parametrize(
    ("n", "K", "q", "patterns", "engine"),
    [
        (100_000, 40, 80, 40, "compress"),
        (100_000, 40, 80, None, "stream"),
        (16_000, 90, 12, None, "stream"),
        (40_000, 60, 20, None, "auto"),
    ],
    ids=["few patterns", "scattered", "many coefficients", "held"],
)
def test_measured_memory_with_missing_responses_is_near_the_plan(
    tmp_path: Path, n: int, K: int, q: int, patterns: int | None, engine: str
) -> None:
    rng = np.random.default_rng(0)
    X, factor, rows = rng.normal(size=(n, q)), rng.normal(size=(n, 1)), patterns or n
    Y = rng.normal(size=(n, K)) + factor * rng.normal(size=K)
    Y[(rng.random((rows, K)) < 0.2)[np.arange(n) % rows]] = np.nan
    own = None if q < K else np.arange(q)[:, None] // 2 == np.arange(K)
    System.from_arrays(Y, X, incidence=own).to_zarr(tmp_path / "rows.zarr", row_chunk=2_000)
    found = measured(MEASURE_MISSING, tmp_path / "rows.zarr", engine)
    assert found["peak"] < found["planned"] < 2.0 * found["peak"]


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_rows_that_turn_out_complete_take_what_complete_rows_take(engine: str) -> None:
    rng = np.random.default_rng(0)
    Y, X = rng.normal(size=(500, 150)) + rng.normal(size=(500, 1)), rng.normal(size=(500, 8))
    system = System.from_arrays(da.from_array(Y, (100, 150)), da.from_array(X, (100, 8)))
    plans = {}
    for missing in ("em", "raise"):
        model = LowRankGLS(1, missing=missing, engine=engine, memory_limit="20GB")
        before = model.plan(system)
        model.fit(system)
        plans[missing] = model.plan_.peak - model.plan_.pinned_bytes, before
    found, before = plans["em"]
    assert max(before.complete_peaks) < before.peak
    assert "where none is missing" in str(before) and "where none" not in str(model.plan_)
    assert plans["raise"][0] < 1.1 * found < 1.5 * plans["raise"][0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "K", "engine"), [(20_000, 500, "stream"), (20_000, 500, "auto"), (50_000, 100, "stream")]
)
def test_measured_memory_of_complete_rows_that_may_miss_responses(tmp_path: Path, n: int, K: int, engine: str) -> None:
    rng = da.random.default_rng(0)
    X, Y = rng.normal(size=(n, 10), chunks=(2_000, 10)), rng.normal(size=(n, K), chunks=(2_000, K))
    System.from_arrays(Y, X).to_zarr(tmp_path / "rows.zarr")
    found = measured(
        MEASURE_MISSING.replace("peak_of(model.result_.n_patterns)", "peak"), tmp_path / "rows.zarr", engine
    )
    assert found["peak"] < found["planned"] < 2.0 * found["peak"]


def test_a_covariance_that_does_not_fit_is_not_planned() -> None:
    """400 equations of 12 shared columns have (4,800 x 4,800) numbers to invert."""
    system = System.from_arrays(da.zeros((50_000, 400), chunks=(1000, 400)), da.zeros((50_000, 12), chunks=(1000, 12)))
    model = LowRankGLS(2, missing="em", engine="stream", memory_limit="100GB")
    roomy = model.plan(system)
    assert roomy.holds_cov
    assert roomy.peak > 8 * 4_800**2 * 10
    tight = model.set_params(memory_limit=roomy.peak // 2).plan(system)
    assert not tight.holds_cov and tight.peak <= roomy.peak // 2


def test_fewer_patterns_take_less() -> None:
    plan = LowRankGLS(2, missing="em", memory_limit="100GB").plan(wide(K=60, q=200, n=100_000))
    assert plan.peak_of(plan.most_patterns) == plan.peak_of(10_000) == plan.peak
    assert plan.peak_of(10) == plan.peak - (plan.most_patterns - 10) * plan.bytes_per_pattern
    assert plan.bytes_per_pattern > 16 * 8 * 260**2
    assert f"less for each pattern fewer than {plan.most_patterns}" in str(plan)


def test_the_client_is_not_held_to_the_limit_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers may be small and this process large: each has its own limit."""
    rows = simulate("own").system().rows
    limits = {"limit": 50 * 2**20, "base": 0, "in_process": False}
    roomy = Cluster(n_workers=2, n_threads=1, client_limit=2**40, **limits)
    monkeypatch.setattr(make, "this_cluster", lambda memory_limit: roomy)
    found = make.make_plan(rows, engine="auto", memory_limit=None)
    assert found.worker_peak < found.memory_limit < found.client_peak
    monkeypatch.setattr(make, "this_cluster", lambda memory_limit: dataclasses.replace(roomy, client_limit=2**20))
    with pytest.raises(MemoryError, match=r"in this process; the limit is 1\.00 MiB\. Either"):
        make.make_plan(rows, engine="auto", memory_limit=None)


# ---------------------------------------------------------------------------------------------- what was run


def test_the_plan_of_a_fit_is_what_was_run_on_a_compressed_system_too() -> None:
    """A second fit, on the compressed rows, reads nothing, and does not keep the plan of the first."""
    system = simulate("own").system()
    model = LowRankGLS(1, engine="stream", rel_tol=1e-4).fit(system)
    assert (model.plan_.engine, model.plan_.passes) == ("stream", 10)
    model.set_params(engine="auto").fit(system.compress())
    ran = model.plan_
    assert (ran.engine, ran.passes, ran.bytes_per_pass, ran.n_obs, ran.fits) == ("compress", 0, 0, 240, True)
    assert "because the rows are compressed already" in str(ran) and "reads   nothing" in str(ran)
    assert str(model.plan(system.compress())).splitlines()[:4] == str(ran).splitlines()[:4]
    model.fit(system)
    assert (model.plan_.engine, model.plan_.passes) == ("compress", 1)


@pytest.mark.parametrize(
    ("share", "patterns", "engine", "found", "passes"),
    [
        (0.0, None, "auto", "no missing response, and compresses", 1),
        (0.0, None, "stream", "no missing response, and streams", 11),
        (0.2, 5, "auto", "6 patterns of missing responses, and compresses", 1),
        (0.2, 5, "stream", "6 patterns of missing responses, and streams", 10),
        (0.4, None, "auto", "patterns of missing responses, and holds the rows in memory", 1),
        (0.4, None, "stream", "patterns of missing responses, and streams", 13),
    ],
)
def test_the_plan_of_a_fit_says_what_the_first_pass_found(
    share: float, patterns: int | None, engine: Any, found: str, passes: int
) -> None:
    data = simulate("own", n=400, K=10, k=1)
    holes = with_holes(data, share, n_patterns=patterns) if share else data
    model = LowRankGLS(1, missing="em", engine=engine, rel_tol=1e-4).fit(holes.system())
    assert found in model.plan_.reason and model.plan_.reason in str(model.plan_)
    assert (model.plan_.engine, model.plan_.passes) == (model.result_.engine, passes)
    assert f"{'once' if passes == 1 else f'about {passes} times'}, in" in str(model.plan_)


def test_the_plan_of_complete_rows_of_identical_regressors_says_their_passes() -> None:
    model = LowRankGLS(1, missing="em", engine="stream").fit(simulate("shared", n=200, K=6, k=1).system())
    assert "no missing response" in model.plan_.reason
    assert model.plan_.passes == model.result_.n_passes == 3


def test_a_plan_says_what_fits_after_the_best_may_take() -> None:
    data = simulate("own", n=400, K=8)
    avoiding = {"engine": "stream", "improper": "avoid", "rank": "bic"}
    plan = LowRankGLS(**avoiding).plan(data.system())  # type: ignore[arg-type]
    assert (plan.next_best, plan.next_passes) == (3, plan.purposes["coefficients"])
    said = "about 8 times more for each number of factors that improper='avoid' passes over, 3 at most"
    assert said in str(plan)
    by_em = LowRankGLS(**avoiding, algorithm="em").plan(data.system())  # type: ignore[arg-type]
    assert by_em.next_passes == by_em.purposes["products"]
    others: list[dict[str, Any]] = [{"improper": "warn"}, {"engine": "compress"}, {"rank": "bic", "ranks": [2]}]
    for other in others:
        assert "passes over" not in str(LowRankGLS(**(avoiding | other)).plan(data.system()))
    # of the same regressors coefficients take no pass
    assert "passes over" not in str(LowRankGLS(**avoiding).plan(simulate("shared").system()))  # type: ignore[arg-type]


def test_a_refused_plan_leaves_no_checkpoint_and_the_last_fit_as_it_was(tmp_path: Path) -> None:
    system = simulate("own").system()
    model = LowRankGLS(1).fit(system)
    before = model.result_, model.plan_
    refused = [
        ({"memory_limit": "10MB"}, MemoryError, "the limit is"),
        ({"rank": "cv", "engine": "stream"}, ValueError, "rank='cv' keeps"),
        ({"rank": 5}, ValueError, "more than 6 equations identify"),
    ]
    for options, error, said in refused:
        model.set_params(**(LowRankGLS().get_params() | options | {"checkpoint": tmp_path / "progress"}))
        with pytest.raises(error, match=said):
            model.fit(system)
        assert not (tmp_path / "progress").exists()
        assert (model.result_, model.plan_) == before


def test_plans_of_compressed_systems_refuse_what_their_fits_do() -> None:
    data = simulate("own")
    data.Y[::3, 1] = np.nan
    compressed = data.system().compress()
    for options, said in (
        ({"engine": "stream", "missing": "em"}, "holds no rows to stream"),
        ({"missing": "raise"}, "stands for rows that miss responses"),
        ({"rank": "cv", "missing": "drop"}, "leaves rows out"),
    ):
        for use in (LowRankGLS(**options).plan, LowRankGLS(**options).fit):
            with pytest.raises(ValueError, match=said):
                use(compressed)
