"""The sandwich of all parameters together: lavaan's, differences of the density, chunks, reads, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from distributed import Client

from lrgls_dask import Fit, LowRankGLS, System
from lrgls_dask.errors import BadValues
from lrgls_dask.inference.huber_white import huber_white_cov
from lrgls_dask.inference.information import joint_information
from lrgls_dask.inference.standardised import Estimate
from lrgls_dask.rows.meter import Meter
from lrgls_dask.sigma.full import FullSigma
from support.counted import counted
from support.fits import fit
from support.likelihood import (
    estimate_of,
    factor_theta,
    full_estimate,
    gradient_rows,
    hessian,
    identified_inverse,
    loglik_rows,
    std_errors,
)
from support.reference import JOINT_CASES, RANKS, joint, load, system_of, table
from support.systems import Data, dask_rows, simulate

pytestmark = pytest.mark.usefixtures("small_blocks")

OWN = simulate("own", n=60, K=5, k=1)
WEIGHTED = simulate("mixed", n=80, K=5, k=1, weighted=True)
TWO = simulate("own", n=150, K=5, k=2)


def huber_white(found: Fit) -> np.ndarray:
    assert isinstance(found.system, System)
    return huber_white_cov(estimate_of(found), found.system.rows, Meter())


@pytest.mark.parametrize("structure", RANKS)
@pytest.mark.parametrize("case", JOINT_CASES)
def test_factor_models_as_in_lavaan(case: str, structure: str) -> None:
    expected, found = joint(case, structure)
    reported = table(expected["se"]["robust_huber_white"], found)
    np.testing.assert_allclose(std_errors(huber_white(found)), reported, rtol=1e-7)


@pytest.mark.parametrize("case", JOINT_CASES)
def test_unrestricted_sigma_as_in_lavaan(case: str) -> None:
    reference, data = load(case)
    expected, system = reference["fits"]["full"], system_of(reference["equations"], data)
    pairs = [(e, r) for e, terms in zip(system.equations, system.design.terms, strict=True) for r in terms]
    b = np.array([expected["coefficients"][e][r] for e, r in pairs])
    estimate = Estimate(system.compress().rows, b, FullSigma(np.array(expected["sigma"])))
    reported = [expected["se"]["robust_huber_white"][e][r] for e, r in pairs]
    np.testing.assert_allclose(std_errors(huber_white_cov(estimate, system.rows, Meter())), reported, rtol=1e-7)


@pytest.mark.parametrize(
    ("data", "k", "lam_B"),
    [(OWN, 1, 0.0), (OWN, 1, 20.0), (WEIGHTED, 1, 0.0), (TWO, 2, 0.0)],
    ids=["own", "ridge", "weighted", "two"],
)
def test_sandwich_of_differences_of_the_density(data: Data, k: int, lam_B: float) -> None:
    found = fit(data.system(), k, lam_B=lam_B)
    theta, sigma = factor_theta(found)
    rows, P = loglik_rows(data, sigma), found.n_coefficients
    A, scores = -hessian(rows, theta), gradient_rows(rows, theta)
    A[:P, :P] += np.diag(lam_B * data.dense().unit ** 2)
    inverse = identified_inverse(A, k * (k - 1) // 2)
    expected = (inverse @ scores.T @ scores @ inverse)[:P, :P]
    se = std_errors(expected)
    np.testing.assert_array_less(np.abs(huber_white(found) - expected) / np.outer(se, se), 1e-6)


@pytest.mark.parametrize("wrap", [np.asarray, dask_rows((1, 29, 7, 40, 73))], ids=["numpy", "ragged"])
def test_chunks_are_not_visible(wrap: object) -> None:
    whole = std_errors(huber_white(fit(TWO.system())))
    np.testing.assert_allclose(std_errors(huber_white(fit(TWO.system(wrap)))), whole, rtol=1e-9)


def test_one_pass_reads_each_chunk_once() -> None:
    store = counted(TWO)
    found = LowRankGLS(2).fit(System.from_zarr(store)).result_
    store.gets.clear()
    meter = Meter()
    huber_white_cov(estimate_of(found), found.system.rows, meter)
    assert store.of("X") == store.of("Y") == {1: 15}
    assert meter.passes == 1


@pytest.fixture
def by_threads() -> tuple[Fit, np.ndarray]:
    found = fit(TWO.system(dask_rows(30)))
    return found, huber_white(found)


def test_a_cluster_gives_the_same_bits(by_threads: tuple[Fit, np.ndarray], client: Client) -> None:
    found, expected = by_threads
    np.testing.assert_array_equal(huber_white(found), expected)


def test_large_means_and_units_cost_no_digits() -> None:
    moved = replace(TWO, X=TWO.X + 1e7 * (TWO.X.std(axis=0) > 0), Y=1e-6 * (TWO.Y + 1e7))
    one, other = fit(TWO.system()), fit(moved.system())
    slopes = TWO.system().design.offsets[:-1]
    kept = np.setdiff1d(np.arange(one.n_coefficients), slopes)  # the intercepts differ
    expected = 1e-6 * std_errors(huber_white(one))[kept]
    np.testing.assert_allclose(std_errors(huber_white(other))[kept], expected, rtol=1e-6)


def test_rows_of_weight_zero_count_for_nothing() -> None:
    weights = np.where(np.arange(TWO.Y.shape[0]) % 3 == 0, 0.0, 1.0)
    part = fit(TWO.take(weights > 0).system())
    whole = fit(replace(TWO, weights=weights).system())
    np.testing.assert_allclose(std_errors(huber_white(whole)), std_errors(huber_white(part)), rtol=1e-7)


def test_normal_errors_need_no_robustness() -> None:
    data = simulate("own", n=40_000, K=4, k=1)
    found = fit(data.system(), 1)
    np.testing.assert_allclose(std_errors(huber_white(found)), found.std_errors.values, rtol=0.05)


def test_spread_of_the_estimate_under_heteroskedastic_errors() -> None:
    """z-scores of the sandwich have variance one where those of the classical errors have not."""
    rng, n, z, classical = np.random.default_rng(3), 300, [], []
    x = np.column_stack([np.ones(n), rng.normal(size=n)])
    for _ in range(80):
        size = np.abs(x[:, 1:]) + 0.1
        errors = size * (rng.normal(size=(n, 1)) + 0.7 * rng.normal(size=(n, 3)))
        xs = [np.column_stack([x, rng.normal(size=n)]) for _ in range(3)]
        found = LowRankGLS(1).fit(System.from_arrays(errors, xs)).result_
        slopes = found.coefficients[1::3]
        z.append(slopes / std_errors(huber_white(found))[1::3])
        classical.append(slopes / found.std_errors.values[1::3])
    assert 0.7 < np.var(z) < 1.4
    assert np.var(classical) > 1.9


def test_unusable_rows_are_named() -> None:
    found = fit(TWO.system())
    spoilt = TWO.Y.copy()
    spoilt[77, 3] = np.nan
    rows = replace(TWO, Y=spoilt).system().rows
    with pytest.raises(BadValues, match="equation 'y3': NaN value at row 77"):
        huber_white_cov(estimate_of(found), rows, Meter())


def test_an_unrestricted_sigma_has_its_own_parameters() -> None:
    estimate = full_estimate(OWN)
    tangents = joint_information(estimate, "expected").tangents
    assert tangents.unrestricted and tangents.n_parameters == 15
