"""Expected and observed information: lavaan's standard errors, differences of the density, laws, refusals."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.linalg import block_diag, null_space

from lrgls_dask import LowRankGLS, inference
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.inference import information
from lrgls_dask.inference.information import observed_cov
from lrgls_dask.inference.sigma_errors import SigmaErrors
from lrgls_dask.inference.standardised import Estimate
from lrgls_dask.sigma import tangents
from lrgls_dask.sigma.full import FullSigma
from support.fits import TIGHT, fit
from support.likelihood import (
    estimate_of,
    expected_cov,
    factor_theta,
    full_estimate,
    full_theta,
    hessian,
    identified_inverse,
    loglik_rows,
    std_errors,
)
from support.reference import JOINT_CASES, RANKS, joint, load, system_of, table
from support.systems import Data, simulate

OWN = simulate("own", n=60, K=5, k=1)
MIXED = simulate("mixed", n=80, K=5, k=1, weighted=True)
TWO = simulate("own", n=150, K=5, k=2)


# ---------------------------------------------------------------------------------- other programs


@pytest.mark.parametrize("structure", RANKS)
@pytest.mark.parametrize("case", JOINT_CASES)
def test_factor_models_as_in_lavaan(case: str, structure: str) -> None:
    expected, found = joint(case, structure)
    estimate = estimate_of(found)
    for kind, function in (("expected", expected_cov), ("observed", observed_cov)):
        np.testing.assert_allclose(std_errors(function(estimate)), table(expected["se"][kind], found), rtol=1e-7)
        errors, variances = SigmaErrors.of(estimate, kind), np.array(expected["se_error_variances"][kind])
        np.testing.assert_allclose(errors.own_variances, variances, rtol=1e-6)  # zero where held, in both


@pytest.mark.parametrize("case", JOINT_CASES)
def test_unrestricted_sigma_as_in_lavaan(case: str) -> None:
    reference, data = load(case)
    expected, system = reference["fits"]["full"], system_of(reference["equations"], data)
    pairs = [(e, r) for e, terms in zip(system.equations, system.design.terms, strict=True) for r in terms]
    order = [(e, r) for e, by_term in expected["coefficients"].items() for r in by_term]
    assert pairs == order
    b = np.array([expected["coefficients"][e][r] for e, r in pairs])
    estimate = Estimate(system.compress().rows, b, FullSigma(np.array(expected["sigma"])))
    for kind, function in (("expected", expected_cov), ("observed", observed_cov)):
        reported = [expected["se"][kind][e][r] for e, r in pairs]
        np.testing.assert_allclose(std_errors(function(estimate)), reported, rtol=1e-7)
        variances = np.diag(SigmaErrors.of(estimate, kind).entries)
        np.testing.assert_allclose(variances, expected["se_error_variances"][kind], rtol=1e-6)


# ---------------------------------------------------------------------------------- by differences


@pytest.mark.parametrize(("data", "k"), [(OWN, 1), (MIXED, 1), (TWO, 2), (OWN, 0)], ids=["own", "mixed", "two", "none"])
def test_observed_information_is_the_curvature_of_the_density(data: Data, k: int) -> None:
    found = fit(data.system(), k)
    theta, sigma = factor_theta(found)
    inverse = identified_inverse(-hessian(loglik_rows(data, sigma), theta), k * (k - 1) // 2)
    P = found.n_coefficients
    cov = observed_cov(estimate_of(found))
    se = std_errors(inverse[:P, :P])
    np.testing.assert_array_less(np.abs(cov - inverse[:P, :P]) / np.outer(se, se), 1e-6)
    errors = SigmaErrors.of(estimate_of(found), "observed")
    K = found.n_equations
    np.testing.assert_allclose(errors.own_variances, std_errors(inverse)[-K:], rtol=1e-6)
    moves = np.stack([(sigma(theta + h) - sigma(theta - h)) / 2e-4 for h in 1e-4 * np.eye(len(theta))])
    np.testing.assert_allclose(errors.entries**2, np.einsum("aij,ab,bij->ij", moves, inverse, moves), rtol=1e-5)

    def share(theta: np.ndarray) -> np.ndarray:
        return 1 - theta[-K:] / np.diag(sigma(theta))

    slopes = np.stack([(share(theta + h) - share(theta - h)) / 2e-4 for h in 1e-4 * np.eye(len(theta))])
    expected = np.einsum("ai,ab,bi->i", slopes, inverse, slopes)
    np.testing.assert_allclose(errors.communality**2, expected, rtol=1e-5, atol=1e-12)


def test_observed_information_of_an_unrestricted_sigma_under_restrictions() -> None:
    data = simulate("own", n=50, K=3, k=1)
    matrix = np.random.default_rng(5).normal(size=(2, len(data.dense().ols)))
    estimate = full_estimate(data)
    theta, sigma = full_theta(estimate.coefficients, estimate.sigma.dense())
    J, P = -hessian(loglik_rows(data, sigma), theta), len(estimate.coefficients)
    Z = block_diag(null_space(matrix), np.eye(len(theta) - P))
    for given, inverse in (
        (None, np.linalg.inv(J)),
        (Restrictions(matrix, matrix @ estimate.coefficients, ("", "")), Z @ np.linalg.inv(Z.T @ J @ Z) @ Z.T),
    ):
        restricted = replace(estimate, restrictions=given)
        se = std_errors(np.linalg.inv(J))[:P]
        off = np.abs(observed_cov(restricted) - inverse[:P, :P]) / np.outer(se, se)
        assert off.max() < 1e-6
        errors = SigmaErrors.of(restricted, "observed").entries
        np.testing.assert_allclose(errors[np.tril_indices(3)], std_errors(inverse)[P:], rtol=1e-6)


def test_ridge_gives_the_sandwich_of_the_penalised_estimate() -> None:
    found = fit(OWN.system(), 1, lam_B=20.0)
    theta, sigma = factor_theta(found)
    J, P = -hessian(loglik_rows(OWN, sigma), theta), found.n_coefficients
    A = J.copy()
    A[:P, :P] += np.diag(20.0 * OWN.dense().unit ** 2)
    sandwich = (np.linalg.inv(A) @ J @ np.linalg.inv(A))[:P, :P]
    se = std_errors(sandwich)
    assert (np.abs(observed_cov(estimate_of(found)) - sandwich) / np.outer(se, se)).max() < 1e-6
    assert np.abs(se / std_errors(np.linalg.inv(A))[:P] - 1).max() > 0.05  # and not the naive inverse


# ---------------------------------------------------------------------------------- laws


@pytest.mark.parametrize("penalty", [0.0, 3.0])
@pytest.mark.parametrize("data", [OWN, MIXED, simulate("shared")], ids=["own", "mixed", "shared"])
def test_expected_information_gives_the_classical_covariance(data: Data, penalty: float) -> None:
    found = fit(data.system(), 1, lam_B=penalty)
    cov, classical = expected_cov(estimate_of(found)), found.cov().values
    se = std_errors(classical)
    np.testing.assert_allclose(cov / np.outer(se, se), classical / np.outer(se, se), atol=1e-10)
    dense = data.dense(lam_B=penalty).cov(found.covariance.dense())
    np.testing.assert_allclose(std_errors(cov), std_errors(dense), rtol=1e-9)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_standard_errors_follow_the_units(unit: float) -> None:
    plain, scaled = fit(TWO.system()), fit(replace(TWO, Y=unit * TWO.Y).system())
    one, other = observed_cov(estimate_of(plain)), observed_cov(estimate_of(scaled))
    np.testing.assert_allclose(std_errors(other), unit * std_errors(one), rtol=1e-6)
    errors = SigmaErrors.of(estimate_of(plain)).entries
    np.testing.assert_allclose(SigmaErrors.of(estimate_of(scaled)).entries, unit**2 * errors, rtol=1e-6)


def test_rotated_loadings_say_the_same() -> None:
    found = fit(TWO.system())
    estimate = estimate_of(found)
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
    rotated = replace(estimate, sigma=replace(found.covariance, F=found.covariance.F @ turn))
    np.testing.assert_allclose(std_errors(observed_cov(rotated)), std_errors(observed_cov(estimate)), rtol=1e-9)
    for kind in ("expected", "observed"):
        one, other = SigmaErrors.of(estimate, kind), SigmaErrors.of(rotated, kind)
        np.testing.assert_allclose(other.entries, one.entries, rtol=1e-8)
        np.testing.assert_allclose(other.own_variances, one.own_variances, rtol=1e-8)


def test_enough_factors_are_an_unrestricted_sigma() -> None:
    """Three equations and one factor: as many parameters as entries of Sigma."""
    data = simulate("own", n=120, K=3, k=1)
    found = fit(data.system(), 1)
    free = replace(estimate_of(found), sigma=FullSigma(found.covariance.dense()), on_floor=None)
    np.testing.assert_allclose(std_errors(observed_cov(free)), std_errors(observed_cov(estimate_of(found))), rtol=1e-6)
    for kind in ("expected", "observed"):
        errors = SigmaErrors.of(free, kind)
        np.testing.assert_allclose(errors.entries, SigmaErrors.of(estimate_of(found), kind).entries, rtol=1e-6)


def test_more_directions_than_a_batch_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    estimate = estimate_of(fit(TWO.system()))
    whole = SigmaErrors.of(estimate)
    monkeypatch.setattr(tangents, "BATCH_NUMBERS", 60)  # two directions of 5 x 5 numbers
    cut = SigmaErrors.of(estimate)
    np.testing.assert_allclose(cut.entries, whole.entries, rtol=1e-13)
    np.testing.assert_allclose(cut.communality, whole.communality, rtol=1e-13)


# ---------------------------------------------------------------------------------- refusals


def test_penalised_loadings_are_refused() -> None:
    estimate = estimate_of(fit(OWN.system(), 1, lam_F=0.02))
    with pytest.raises(ValueError, match=re.escape("but lam_F is 0.02. Fit with lam_F = 0")):
        observed_cov(estimate)


def test_parameters_far_from_a_maximum_are_refused() -> None:
    estimate = estimate_of(fit(OWN.system(), 1))
    moved = replace(estimate, sigma=replace(estimate.sigma, d=1.2 * estimate.sigma.d))
    with pytest.raises(ValueError, match=r"would raise the log-likelihood by [\d.]+\. Fit with") as caught:
        observed_cov(moved)
    said = float(re.findall(r"by ([\d.]+)\. Fit", str(caught.value))[0])
    S = OWN.dense().S(estimate.coefficients)
    assert abs(said / (60 * (moved.sigma.nll(S) - estimate.sigma.nll(S))) - 1) < 0.3
    assert SigmaErrors.of(moved, "expected").entries.shape == (5, 5)  # defined anywhere


def test_factors_that_the_data_do_not_identify_are_named_as_a_cause() -> None:
    """A factor of one equation alone cannot be told from that equation's own variance."""
    estimate = estimate_of(fit(OWN.system(), 1))
    sigma = estimate.sigma
    lone = np.zeros((5, 1))
    lone[2] = 0.5 * np.sqrt(sigma.d[2])
    split = replace(sigma, F=np.hstack([sigma.F, lone]), d=sigma.d - lone[:, 0] ** 2)
    with pytest.raises(np.linalg.LinAlgError, match="the factors are more than the data identify"):
        _ = SigmaErrors.of(replace(estimate, sigma=split)).entries


def test_too_many_parameters_are_refused_before_memory_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    estimate = estimate_of(fit(OWN.system(), 1))
    limits: list[tuple[Any, int, str]] = [
        (information, 23, "of 14 coefficients and 10 parameters of Sigma would take .* limited to 23 in all"),
        (inference.standardised, 13, "all 14 coefficients would take .* limited to 13 coefficients"),
    ]
    for module, limit, message in limits:
        monkeypatch.setattr(module, "MAX_PARAMETERS", limit)
        with pytest.raises(ValueError, match=message):
            observed_cov(estimate) if module is information else expected_cov(estimate)


def test_a_fit_to_default_precision_is_near_enough_to_its_maximum() -> None:
    close, tight = LowRankGLS(2).fit(TWO.system()).result_, LowRankGLS(2, **TIGHT).fit(TWO.system()).result_
    np.testing.assert_allclose(
        std_errors(observed_cov(estimate_of(close))), std_errors(observed_cov(estimate_of(tight))), rtol=1e-4
    )
