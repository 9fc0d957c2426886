"""What estimating Sigma adds: the textbook double sum, Zellner's special cases, a simulation, refusals."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import null_space

from lrgls_dask import LowRankGLS, System
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.inference import kackar_harville
from lrgls_dask.inference.kackar_harville import kackar_harville_cov
from lrgls_dask.inference.standardised import Estimate
from lrgls_dask.sigma.full import FullSigma
from support.fits import fit
from support.kackar_harville import kackar_harville_correction, textbook
from support.likelihood import estimate_of, full_estimate, std_errors
from support.systems import Data, simulate

OWN = simulate("own", n=25, K=4, k=1)
MIXED = simulate("mixed", n=80, K=5, k=1, weighted=True)
TWO = simulate("own", n=150, K=5, k=2)


@pytest.mark.parametrize(("data", "k"), [(OWN, 1), (MIXED, 1), (TWO, 2)], ids=["own", "mixed", "two"])
def test_the_textbook_double_sum(data: Data, k: int) -> None:
    estimate = estimate_of(fit(data.system(), k))
    phi, expected = textbook(data, estimate)
    se = std_errors(phi)
    correction = kackar_harville_correction(estimate)
    np.testing.assert_array_less(np.abs(correction - expected) / np.outer(se, se), 1e-9)
    np.testing.assert_array_less(np.abs(kackar_harville_cov(estimate) - phi - expected) / np.outer(se, se), 1e-9)
    assert np.linalg.eigvalsh(correction / np.outer(se, se)).min() > -1e-10  # a variance
    assert (correction.diagonal() / phi.diagonal()).max() > 0.01


def test_the_textbook_double_sum_of_an_unrestricted_sigma_under_restrictions() -> None:
    estimate = full_estimate(OWN)
    matrix = np.random.default_rng(0).normal(size=(2, len(estimate.coefficients)))
    given = Restrictions(matrix, matrix @ estimate.coefficients, ("", ""))
    for restrictions, Z in ((None, None), (given, null_space(matrix))):
        expected = textbook(OWN, estimate, Z)[1]
        se = std_errors(textbook(OWN, estimate)[0])
        found = kackar_harville_correction(replace(estimate, restrictions=restrictions))
        np.testing.assert_array_less(np.abs(found - expected) / np.outer(se, se), 1e-10)


def test_a_variance_on_its_floor_is_held() -> None:
    estimate = estimate_of(fit(TWO.system()))
    floor = np.arange(5) == 3
    phi, expected = textbook(TWO, replace(estimate, on_floor=floor))
    free, held = kackar_harville_correction(estimate), kackar_harville_correction(replace(estimate, on_floor=floor))
    se = std_errors(phi)
    np.testing.assert_array_less(np.abs(held - expected) / np.outer(se, se), 1e-9)
    assert np.abs(free / np.outer(se, se) - expected / np.outer(se, se)).max() > 1e-5


# ---------------------------------------------------------------------------------- special cases


@pytest.mark.parametrize("k", [0, 1])
def test_common_regressors_have_nothing_to_correct(k: int) -> None:
    """Least squares whatever Sigma is, so that estimating it adds no variance."""
    estimate = estimate_of(fit(simulate("shared").system(), k))
    for one in (estimate, full_estimate(simulate("shared"))):
        cov = kackar_harville_cov(one)
        assert np.abs(kackar_harville_correction(one) / np.outer(std_errors(cov), std_errors(cov))).max() < 1e-11


@pytest.mark.parametrize("K", [2, 4])
def test_orthogonal_regressors_lose_one_row_for_each_other_equation(K: int) -> None:
    """One regressor an equation, orthogonal to the others', Sigma unrestricted: Lambda = Phi (K - 1) / N, Zellner
    (1963) to first order."""
    rng = np.random.default_rng(K)
    X = np.linalg.qr(rng.normal(size=(50, K)))[0] * rng.uniform(1, 9, size=K)
    Y = X + rng.normal(size=(50, K)) @ rng.normal(size=(K, K))
    estimate = full_estimate(Data("own", Y, X, tuple(np.arange(K)[:, None])))
    correction = kackar_harville_correction(estimate)
    phi = kackar_harville_cov(estimate) - correction
    np.testing.assert_allclose(correction.diagonal(), phi.diagonal() * (K - 1) / 50, rtol=1e-10)


def test_the_correction_falls_with_the_number_of_rows() -> None:
    estimate = estimate_of(fit(OWN.system(), 1))
    thrice = replace(estimate, compressed=OWN.take(np.tile(np.arange(25), 3)).system().compress().rows)
    relative = [
        kackar_harville_correction(e).diagonal() / (kackar_harville_cov(e) - kackar_harville_correction(e)).diagonal()
        for e in (estimate, thrice)
    ]
    np.testing.assert_allclose(relative[1], relative[0] / 3, rtol=1e-9)


def test_units_and_the_order_of_equations() -> None:
    one = kackar_harville_correction(estimate_of(fit(OWN.system(), 1)))
    units = np.array([1e-6, 1.0, 1e6, 30.0])
    scaled = kackar_harville_correction(estimate_of(fit(replace(OWN, Y=OWN.Y * units).system(), 1)))
    spread = np.repeat(units, [len(c) for c in OWN.columns])
    np.testing.assert_allclose(std_errors(scaled), std_errors(one) * spread, rtol=1e-5)
    order = [2, 0, 3, 1]
    turned = Data("own", OWN.Y[:, order], OWN.X, tuple(OWN.columns[j] for j in order))
    again = kackar_harville_correction(estimate_of(fit(turned.system(), 1)))
    places = np.concatenate([OWN.columns[j] for j in order])
    np.testing.assert_allclose(again.diagonal(), one.diagonal()[places], rtol=1e-5)


def test_simulated_estimates_spread_as_corrected() -> None:
    """Two-step feasible GLS: the classical formula misses 3 % of the variance, the corrected one 1 / N^2 of it."""
    rng, N, K = np.random.default_rng(8), 120, 4
    X = rng.normal(size=(N, 3 * K))
    columns = tuple(np.arange(3 * j, 3 * j + 3) for j in range(K))
    sigma = 0.8 + 0.2 * np.eye(K)
    XX, owner = X.T @ X, np.repeat(np.arange(K), 3)
    hat = [X[:, c] @ np.linalg.pinv(X[:, c]) for c in columns]

    def two_step(E: np.ndarray) -> np.ndarray:
        R = np.column_stack([e - h @ e for h, e in zip(hat, E.T, strict=True)])
        Q = np.linalg.inv(R.T @ R)
        return np.linalg.solve(XX * Q[np.ix_(owner, owner)], np.sum(X * (E @ Q)[:, owner], axis=0))

    root = np.linalg.cholesky(sigma)
    spread = np.var([two_step(rng.normal(size=(N, K)) @ root.T) for _ in range(8000)], axis=0)
    data = Data("own", rng.normal(size=(N, K)), X, columns)
    truth = Estimate(data.system().compress().rows, np.zeros(3 * K), FullSigma(sigma))
    corrected = kackar_harville_cov(truth).diagonal()
    classical = corrected - kackar_harville_correction(truth).diagonal()
    assert np.mean(classical / spread) < 0.98
    assert abs(np.mean(corrected / spread) - 1) < 0.012


@pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic")
def test_fitted_models_come_closer_to_their_spread() -> None:
    """The same with everything estimated: N = 40, K = 4, p = 3, one factor."""
    rng, b, classical, corrected = np.random.default_rng(1), [], [], []
    xs = [np.column_stack([np.ones(40), rng.normal(size=(40, 2))]) for _ in range(4)]
    loadings = np.array([2.0, 1.5, 1.0, 1.5])
    for _ in range(150):
        Y = rng.normal(size=(40, 1)) * loadings + rng.normal(size=(40, 4))
        found = LowRankGLS(1).fit(System.from_arrays(Y, xs)).result_
        b.append(found.coefficients)
        classical.append(found.std_errors.values)
        corrected.append(std_errors(kackar_harville_cov(estimate_of(found))))
    spread = np.std(b, axis=0)
    off = [np.mean(np.mean(se, axis=0) / spread) - 1 for se in (classical, corrected)]
    assert off[0] < off[1] and abs(off[1]) < 0.8 * abs(off[0])


# ---------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(("penalty", "message"), [({"lam_B": 3.0}, "lam_B is 3"), ({"lam_F": 0.02}, "lam_F is 0.02")])
def test_penalised_fits_are_refused(penalty: dict[str, float], message: str) -> None:
    estimate = estimate_of(fit(OWN.system(), 1, **penalty))
    with pytest.raises(ValueError, match=re.escape(message)):
        kackar_harville_cov(estimate)


def test_absurd_sizes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    estimate = estimate_of(fit(OWN.system(), 1))
    monkeypatch.setattr(kackar_harville, "MAX_FLOPS", 1e3)
    with pytest.raises(ValueError, match=r"of 11 coefficients in 4 equations takes 1\.3e\+04 operations"):
        kackar_harville_cov(estimate)


def test_blocks_of_unequal_width() -> None:
    """The sum runs over equations by their number of coefficients: 1, 3, 3 and 5 of them."""
    rng = np.random.default_rng(4)
    X = rng.normal(size=(30, 12))
    columns = (np.arange(3), np.array([3]), np.arange(4, 7), np.arange(7, 12))
    data = Data("own", rng.normal(size=(30, 4)) @ rng.normal(size=(4, 4)), X, columns)
    phi, expected = textbook(data, full_estimate(data))
    se = std_errors(phi)
    np.testing.assert_array_less(
        np.abs(kackar_harville_correction(full_estimate(data)) - expected) / np.outer(se, se), 1e-10
    )
