"""Robust, kernel and clustered covariances as linearmodels computes them: stored digits, and live on simulated data.

Everything is compared at linearmodels' own coefficients and weighting Sigma, which a fit is made to hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from lrgls_dask import Fit, LowRankGLS, System
from support.fits import at
from support.reference import by_linearmodels, load, system_of, table
from support.sandwiches import off_by
from support.systems import simulate, zarr_rows

linearmodels = pytest.importorskip("linearmodels")

CASES = [
    "case01a_grunfeld_greene5",
    "case02_kmenta",
    "case02b_kmenta_system2",
    "case03c_fringe_same_regressors",
]


def holding(system: System, coefficients: np.ndarray, sigma: np.ndarray) -> Fit:
    """A fit with these numbers."""
    return at(LowRankGLS(0).fit(system).result_, coefficients, sigma)


def stored(case: str) -> System:
    reference, data = load(case)
    rows = data[data.notna().all(axis=1)].reset_index(drop=True)
    return system_of(reference["equations"], rows, reference.get("outcomes"))


@pytest.mark.parametrize("estimator", ["gls_onestep", "gls_iterated"])
@pytest.mark.parametrize("case", CASES)
def test_stored_digits(case: str, estimator: str) -> None:
    fits = by_linearmodels(case)
    system = stored(case)
    for debiased, correction in (("plain", "HC0"), ("debiased", "HC1")):
        numbers = fits.get(f"{estimator}_robust_{debiased}")
        if numbers is None or "error" in numbers:  # no iterated estimate exists for case 02
            assert (case, estimator) == ("case02_kmenta", "gls_iterated")
            continue
        blank = holding(system, np.zeros(system.n_coefficients), np.eye(system.n_equations))
        made = holding(system, table(numbers["coefficients"], blank), np.array(numbers["sigma"]))
        found = made.with_cov("robust", correction=correction)  # type: ignore[arg-type]
        np.testing.assert_allclose(found.std_errors, table(numbers["std_errors"], made), rtol=1e-7)
        assert off_by(found.cov(), np.array(numbers["cov"])) < 1e-7


def live(**options: Any) -> tuple[Any, Fit]:
    """linearmodels' one-step system estimate of autocorrelated rows, and a fit that holds its numbers."""
    data = simulate("own", n=150, K=3, k=1)
    for t in range(1, 150):
        data.Y[t] += 0.6 * data.Y[t - 1]
    frames = {
        f"y{j}": {
            "dependent": pd.DataFrame({f"y{j}": data.Y[:, j]}),
            "exog": pd.DataFrame(X, columns=[f"y{j}_x{c}" for c in range(X.shape[1])]),
        }
        for j, X in enumerate(data.Xs)
    }
    theirs = linearmodels.SUR(frames).fit(method="gls", **options)
    return theirs, holding(data.system(zarr_rows(13)), theirs.params.to_numpy(), np.asarray(theirs.sigma))


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("kernel", ["bartlett", "parzen", "qs"])
@pytest.mark.parametrize("bandwidth", [None, 5.5])
def test_kernel_covariance(kernel: Any, bandwidth: float | None, debiased: bool, every_chunk_a_block: None) -> None:
    theirs, made = live(cov_type="kernel", kernel=kernel, bandwidth=bandwidth, debiased=debiased)
    found = made.cov("hac", kernel=kernel, bandwidth=bandwidth, correction="HC1" if debiased else "HC0")
    assert f"bandwidth {theirs.cov_config['bandwidth']:g}" in found.attrs["note"]
    assert off_by(found, theirs.cov.to_numpy()) < 1e-9
    one = made.cov("hac", equation="y1", kernel=kernel, bandwidth=bandwidth, correction="HC1" if debiased else "HC0")
    own = slice(made.design.offsets[1], made.design.offsets[2])
    assert off_by(one, theirs.cov.to_numpy()[own, own]) < 1e-9


@pytest.mark.parametrize("corrected", [False, True])
def test_clustered_covariance(corrected: bool, every_chunk_a_block: None) -> None:
    groups = np.random.default_rng(1).integers(0, 30, 150)
    theirs, made = live(cov_type="clustered", clusters=groups, debiased=corrected, group_debias=corrected)
    found = made.cov("cluster", groups=groups, correction="HC1" if corrected else "HC0")
    assert off_by(found, theirs.cov.to_numpy()) < 1e-9


@pytest.mark.parametrize("case", ["case01a_grunfeld_greene5", "case02b_kmenta_system2"])
def test_classical_with_degrees_of_freedom(case: str) -> None:
    """Iterated, so that their weighting Sigma is that of the residuals, scaled by N / sqrt((N - p_i) (N - p_j))."""
    numbers = by_linearmodels(case)["gls_iterated_unadjusted_debiased"]
    system = stored(case)
    degrees = np.sqrt(1 - system.design.sizes / system.n_obs)
    plain = np.array(numbers["sigma"]) * np.outer(degrees, degrees)
    made = holding(system, np.zeros(system.n_coefficients), plain)
    assert off_by(made.cov("classical", debiased=True), np.array(numbers["cov"])) < 1e-7
    np.testing.assert_allclose(
        made.with_cov("classical", debiased=True).std_errors, table(numbers["std_errors"], made), rtol=1e-7
    )
