"""X'X for standard errors of a streamed fit: priced in its plan, kept where it has room, and in no more memory."""

from __future__ import annotations

from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest

from lrgls_dask import LowRankGLS, System
from lrgls_dask.missing.first_look import plan_of_complete_rows
from lrgls_dask.plan.price import compress_client
from lrgls_dask.rows.block import Block
from lrgls_dask.rows.kernels import regressor_rows_kernel
from lrgls_dask.rows.meter import Meter
from lrgls_dask.simulate import simulate_to_zarr
from lrgls_dask.solve.streamed import Streamed
from support.peaks import measured
from support.systems import simulate

MEASURE = """
from lrgls_dask import LowRankGLS, System
model = LowRankGLS(2, engine="stream", max_sweeps=2, rel_tol=1e-2).fit(System.from_zarr(sys.argv[1]))
found = {"planned": model.plan_.peak, "kept": model.result_.evidence.x.nbytes}
"""


def own(n: int, K: int, p: int) -> System:
    """Rows of zeros of K equations with p columns of their own each."""
    incidence = np.repeat(np.eye(K, dtype=bool), p, axis=0)
    Y, X = (da.zeros((n, width), chunks=(max(1, n // 20), width)) for width in (K, K * p))
    return System.from_arrays(Y, X, incidence=incidence)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "K", "p", "chunk"), [(4_000, 600, 10, 200), (3_000, 100, 60, 100), (30_000, 100, 20, 500)]
)
def test_measured_memory_with_x_stays_below_the_plan_and_near_it(
    tmp_path: Path, n: int, K: int, p: int, chunk: int
) -> None:
    """Of fewer rows than columns these are kept, 144 and 192 MB; of more their X'X, of which sums take 32 MB each."""
    size = {"n_obs": n, "n_equations": K, "n_regressors": p}
    simulate_to_zarr(tmp_path / "rows.zarr", **size, rank=2, row_chunk=chunk)
    found = measured(MEASURE, tmp_path / "rows.zarr")
    assert found["kept"] >= 8 * K * p * min(n, K * p)
    assert found["peak"] < found["planned"] < 2 * found["peak"]


def test_rows_that_stay_are_part_of_the_peak_where_they_have_room() -> None:
    system = own(4_000, 500, 10)
    rows, model = 8 * 4_000 * 5_000, LowRankGLS(2, engine="stream")
    with dask.config.set(num_workers=2):
        roomy = model.plan(system)
        assert roomy.keeps_x and roomy.in_process
        least = roomy.peak - roomy.x_bytes[0]
        assert roomy.peak > rows + 8 * 500**2
        assert roomy.x_bytes[0] == roomy.x_bytes[1] > 0.5 * rows
        tight = model.set_params(memory_limit=(least + roomy.peak) // 2).plan(system)
    assert not tight.keeps_x and tight.x_bytes == (0, 0)
    assert tight.peak <= tight.memory_limit
    assert "one read more" in roomy.errors and "X'X does not fit" in tight.errors


def test_a_client_is_planned_to_hold_the_rows_as_they_come_and_together() -> None:
    plan = LowRankGLS(2, engine="stream").plan(own(4_000, 500, 10), workers=2, worker_memory="8GB")
    assert plan.keeps_x and plan.client_peak > 3 * 8 * 4_000 * 5_000
    small = LowRankGLS(2, engine="stream").plan(own(4_000, 500, 10), workers=2, worker_memory="800MB")
    assert not small.keeps_x and small.fits


def test_rows_with_holes_find_no_x() -> None:
    """Before the first pass nobody knows; complete rows keep X, as their plan says."""
    plan = LowRankGLS(1, missing="em", engine="stream").plan(own(4_000, 80, 60))
    assert plan.keeps_x and plan_of_complete_rows(plan, own(4, 80, 60).design).keeps_x
    data = simulate("own", n=200, K=8, k=1)
    complete = LowRankGLS(1, missing="em", engine="stream", rel_tol=1e-3).fit(data.system())
    data.Y[::3, 1] = np.nan
    holes = LowRankGLS(1, missing="em", engine="stream", rel_tol=1e-3).fit(data.system())
    assert (complete.plan_.keeps_x, holes.plan_.keeps_x, holes.plan_.x_bytes) == (True, False, (0, 0))
    assert complete.result_.evidence.knows_products


@pytest.mark.parametrize(("n", "weighted"), [(7, False), (7, True), (39, False), (40, True)])
def test_rows_that_stay_have_the_products_of_x(n: int, weighted: bool) -> None:
    """In blocks of three rows; what the means of these differ by are rows too."""
    rng = np.random.default_rng(0)
    X, Y = 5.0 + rng.normal(size=(n, 40)), rng.normal(size=(n, 20))
    weights = np.where(np.arange(n) % 5 == 1, 0.0, rng.uniform(1, 2, n)) if weighted else np.ones(n)
    given = {"weights": weights} if weighted else {}
    arrays = (da.from_array(each, chunks=(3, -1)) for each in (Y, X))
    incidence = np.repeat(np.eye(20, dtype=bool), 2, axis=0)
    system = System.from_arrays(*arrays, incidence=incidence, **given)
    found = Streamed(system.rows, lam_B=1.0, meter=Meter()).x_rows()
    assert found is not None and len(found) <= n + -(-n // 3)
    W = weights.sum()
    np.testing.assert_allclose(found[0], np.sqrt(W) * np.average(X, axis=0, weights=weights), rtol=1e-12)
    np.testing.assert_allclose(found.T @ found, X.T @ (weights[:, None] * X), rtol=1e-11, atol=1e-11)


def test_a_block_without_weight_adds_no_rows() -> None:
    block = Block(0, (np.ones((3, 4)),), (np.ones((3, 2)),), np.zeros(3))
    assert regressor_rows_kernel(block) is None


def test_fewer_rows_than_regressors_are_compressed_in_as_much_less() -> None:
    """A fit of 3,000 rows of 10,000 regressors was measured at 1.8 GB, planned 5.0 with rows as many as regressors."""
    design = own(10, 500, 10).design
    assert compress_client(design, 1_000) < 0.3 * compress_client(design, 4_000)
    assert compress_client(design, 5_000) <= compress_client(design, 10**6) == compress_client(design)
