"""Standard errors of loadings and own variances: lavaan's, and by differences of the normalisation itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lrgls_dask import Fit, GroupedLowRank, SparseLowRank
from lrgls_dask.inference.sigma_errors import SigmaErrors
from lrgls_dask.sigma.lowrank import LowRank
from support.fits import fit
from support.incomplete import with_holes
from support.likelihood import estimate_of, factor_theta, hessian, identified_inverse, loglik_rows
from support.reference import joint, load, system_of
from support.systems import Data, simulate

TWO = simulate("own", n=400, K=7, k=2, seed=3)


@pytest.mark.parametrize("kind", ["expected", "observed"])
@pytest.mark.parametrize("case", ["case05a_sim_k1_K6_N300", "case05c_sim_k2_K7_N250_scales"])
def test_one_factor_as_in_lavaan(case: str, kind: Any) -> None:
    expected, found = joint(case, "factor_k1")
    errors = SigmaErrors.of(estimate_of(found), kind)
    np.testing.assert_allclose(errors.loadings, expected["se_loadings"][kind], rtol=1e-6)
    np.testing.assert_allclose(errors.own_variances, expected["se_error_variances"][kind], rtol=1e-6)
    if kind == "expected":
        np.testing.assert_array_equal(found.loadings_std_errors.values, errors.loadings)
        np.testing.assert_array_equal(found.idio_var_std_errors.values, errors.own_variances)
        assert found.loadings_std_errors.dims == found.loadings.dims


def test_factors_of_groups_as_in_lavaan() -> None:
    reference, data = load("case08a_sim_bifactor_K9")
    expected = reference["fits"]["bifactor"]
    groups = {f"y{j}": "abc"[(j - 1) // 3] for j in range(1, 10)}
    system = system_of(reference["equations"], data)
    found = fit(system, "auto", covariance=GroupedLowRank(1, dict(zip(system.equations, groups.values(), strict=True))))
    reported = np.array(expected["se_loadings"]["expected"])
    np.testing.assert_allclose(found.loadings_std_errors.values, reported, rtol=1e-5)
    np.testing.assert_allclose(found.idio_var_std_errors.values, expected["se_error_variances"]["expected"], rtol=1e-5)


def test_two_factors_by_differences_of_their_normalisation() -> None:
    """The delta method on (b, F, d) of a dense likelihood, F turned by `LowRank.normalised` at every step."""
    found: Fit = fit(TWO.system(), 2)
    theta, sigma = factor_theta(found)
    inverse = identified_inverse(-hessian(loglik_rows(TWO, sigma), theta), 1)
    K, k, P = found.n_equations, 2, found.n_coefficients

    def turned(at: np.ndarray) -> np.ndarray:
        F, d = at[P : P + K * k].reshape(K, k), at[P + K * k :]
        return LowRank(F, d).normalised().F.ravel()

    steps = 1e-5 * np.eye(len(theta))
    slopes = np.stack([(turned(theta + h) - turned(theta - h)) / 2e-5 for h in steps], axis=1)
    expected = np.sqrt(np.diag(slopes @ inverse @ slopes.T)).reshape(K, k)
    errors = SigmaErrors.of(estimate_of(found), "observed")
    np.testing.assert_allclose(errors.loadings, expected, rtol=1e-4)


def test_units_and_the_order_of_equations_carry_over() -> None:
    found = fit(TWO.system(), 2)
    units = 10.0 ** np.arange(-3, 4)
    scaled = fit(Data(TWO.kind, TWO.Y * units, TWO.X, TWO.columns).system(), 2)
    np.testing.assert_allclose(
        scaled.loadings_std_errors.values, found.loadings_std_errors.values * units[:, None], rtol=1e-6
    )
    np.testing.assert_allclose(
        scaled.idio_var_std_errors.values, found.idio_var_std_errors.values * units**2, rtol=1e-6
    )


def test_entries_of_sigma() -> None:
    found = fit(TWO.system(), 2)
    errors = found.sigma_std_errors("observed")
    np.testing.assert_array_equal(errors["sigma"].values, SigmaErrors.of(estimate_of(found), "observed").entries)
    assert set(errors) == {"sigma", "communality"}
    assert set(fit(TWO.system(), "auto", covariance="full").sigma_std_errors()) == {"sigma"}
    with pytest.raises(ValueError, match="information must be 'expected' or 'observed'; got 'fisher'"):
        found.sigma_std_errors("fisher")  # type: ignore[arg-type]


def test_what_has_no_errors_of_loadings_says_why() -> None:
    for options, message in (
        ({"engine": "stream"}, "loadings_std_errors needs the compressed rows, which a streamed fit does not keep"),
        ({"lam_F": 0.1}, "but lam_F is 0.1. Fit with lam_F = 0"),
        ({"covariance": SparseLowRank(1, 0.0), "rank": "auto"}, "covariance='sparse' has no standard errors of its"),
        ({"covariance": "full", "rank": "auto"}, "covariance='full' has no"),
    ):
        found = fit(TWO.system(), **({"rank": 1} | options))
        with pytest.raises(ValueError, match=message):
            _ = found.loadings_std_errors
    holes = fit(with_holes(TWO, 0.05).system(), 1, missing="em")
    assert holes.loadings_std_errors.notnull().all()
    with pytest.raises(ValueError, match=r"sigma_std_errors\(information='expected'\) is that of rows whose holes"):
        holes.sigma_std_errors("expected")
    with pytest.raises(ValueError, match="covariance='full' has no idiosyncratic variances"):
        _ = fit(TWO.system(), "auto", covariance="full").idio_var_std_errors
