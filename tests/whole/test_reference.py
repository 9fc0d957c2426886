"""The same numbers as lavaan, factanal and NIST; `reference/README.md` says where those come from."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pytest

from lrgls_dask import FitWarning, LowRankGLS, System
from support.fits import by_gram
from support.reference import EXACT, JOINT_CASES, RANKS, joint, load, system_of, table


@pytest.mark.parametrize("structure", RANKS)
@pytest.mark.parametrize("case", JOINT_CASES)
def test_joint_maximum_likelihood_as_in_lavaan(case: str, structure: str) -> None:
    expected, fit = joint(case, structure)
    slack = 100 if expected.get("heywood") else 1
    se = table(expected["se"]["expected"], fit)
    off = (fit.params.values - table(expected["coefficients"], fit)) / se
    assert np.abs(off).max() < 1e-5 * slack
    sigma = np.array(expected["sigma"])
    sd = np.sqrt(np.diag(sigma))
    assert np.abs((fit.sigma().values - sigma) / np.outer(sd, sd)).max() < 1e-5 * slack
    assert abs(fit.loglik - expected["loglik_y_given_x"]) < 1e-6 * slack
    assert fit.n_parameters == expected["n_free_parameters"] + len(fit.on_floor)
    heywood = (expected.get("heywood") or {}).get("fixed_at_zero", [])
    assert fit.on_floor == tuple([heywood] if isinstance(heywood, str) else heywood)
    if not heywood:
        np.testing.assert_allclose(fit.std_errors.values, se, rtol=1e-6)
        np.testing.assert_allclose(fit.cov().values, np.array(expected["vcov_coef"]["expected"]), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_factor_analysis_as_in_factanal(k: int) -> None:
    reference, data = load("case04a_bfi25")
    assert_same_factors(data.to_numpy(float), reference["fits"][f"k{k}"], k)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_factor_analysis_of_a_published_correlation_matrix(k: int) -> None:
    reference, correlation = load("case04c_harman74")
    n = reference["N"]
    assert_same_factors(rows_with_covariance(correlation.to_numpy(float), n), reference["fits"][f"k{k}"], k)


def assert_same_factors(rows: np.ndarray, expected: dict[str, Any], k: int) -> None:
    """An intercept in every equation makes the model factor analysis."""
    system = System.from_arrays(rows, np.ones((len(rows), 1)))
    fit = LowRankGLS(k, **EXACT).fit(system).result_
    sigma = np.array(expected["sigma"])
    sd = np.sqrt(np.diag(sigma))
    assert np.abs((fit.sigma().values - sigma) / np.outer(sd, sd)).max() < 1e-6
    assert abs(fit.loglik - expected["loglik"]) < 1e-6
    np.testing.assert_allclose(fit.params.values, rows.mean(axis=0), atol=1e-12)


def rows_with_covariance(S: np.ndarray, n: int) -> np.ndarray:
    """n rows with mean zero and exactly this covariance (divisor n)."""
    noise = np.random.default_rng(1).normal(size=(n, len(S)))
    noise -= noise.mean(axis=0)
    white = np.linalg.qr(noise)[0] * np.sqrt(n)
    return white @ np.linalg.cholesky(S).T


@pytest.mark.parametrize(
    ("case", "digits"), [("Longley", 10), ("Filip", 7), ("Wampler1", 7), ("Wampler4", 7), ("Norris", 10)]
)
def test_certified_digits_of_nist(case: str, digits: int) -> None:
    reference, data = load(f"case07_{case}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "LowRankGLS: a constant response or a perfect fit", FitWarning)
        fit = LowRankGLS().fit(system_of(reference["equations"], data)).result_
    certified = np.array(reference["certified"]["coefficients"], dtype=float)
    assert np.abs(fit.params.values / certified - 1).max() < 10.0**-digits
    if case == "Wampler1":  # an exact polynomial: its certified standard errors are zero
        assert fit.on_floor == ("y",)
        return
    n, p = len(data), len(certified)
    corrected = fit.std_errors.values * np.sqrt(n / (n - p))
    errors = np.array(reference["certified"]["std_errors"], dtype=float)
    assert np.abs(corrected / errors - 1).max() < 10.0**-digits
    assert abs(fit.loglik / float(reference["mpmath_100_digits"]["loglik_ml"]) - 1) < 1e-9


def test_filip_is_out_of_reach_of_the_cross_product_and_says_so() -> None:
    """What the automatic route saves: by cross-products alone the columns count as collinear."""
    reference, data = load("case07_Filip")
    with pytest.raises(np.linalg.LinAlgError, match=re.escape("are collinear (rank ")):
        LowRankGLS().fit(by_gram(system_of(reference["equations"], data)))
