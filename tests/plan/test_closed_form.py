"""The formula for memory on the page on performance, against what the plan says."""

from __future__ import annotations

import pytest
import zarr

from lrgls_dask import LowRankGLS, System

BASE = 260 * 2**20


def by_formula(width: int, threads: int, block: int) -> float:
    """Bytes of a worker, as the page says; arrays in memory need no decoder."""
    total = 8 * width**2
    slab = max(256, 2**18 // width, min(width, 2**21 // width))
    return BASE + 1.15 * (threads * (6 * block + 3 * 8 * width * slab + 3 * total) + 16 * total)


@pytest.mark.filterwarnings("ignore::lrgls_dask.UnwrittenChunks")
@pytest.mark.parametrize(
    ("n_obs", "n_equations", "n_regressors", "threads"),
    [(10**6, 50, 20, 2), (10**6, 1000, 20, 2), (10**8, 200, 100, 4), (10**7, 2000, 500, 8), (10**9, 30, 5, 1)],
)
def test_the_plan_of_a_worker_is_the_formula(n_obs: int, n_equations: int, n_regressors: int, threads: int) -> None:
    chunk = 16_000_000 // (8 * (n_equations + n_regressors))
    Y, X = (
        zarr.create_array({}, shape=(n_obs, width), chunks=(chunk, width), dtype="float64")
        for width in (n_equations, n_regressors)
    )
    where = {"workers": 4, "threads": threads, "worker_memory": "64GB", "gb_per_s": 1.0, "usual_machine": True}
    plan = LowRankGLS(rank=1, engine="compress").plan(System.from_arrays(Y, X), **where)
    expected = by_formula(n_equations + n_regressors, threads, plan.largest_block)
    assert plan.worker_peak == pytest.approx(expected, rel=1e-6)
