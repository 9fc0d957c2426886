"""Classical seemingly unrelated regressions as in systemfit and linearmodels; see `reference/README.md`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lrgls_dask import Fit, LowRankGLS, Termination
from support.reference import load, system_of, table

GRUNFELD = ["case01a_grunfeld_greene5", "case01c_grunfeld_correct5"]
KMENTA, KMENTA2 = "case02_kmenta", "case02b_kmenta_system2"
MUNNELL, FRINGE = "case03a_munnell", "case03c_fringe_same_regressors"
SCALING = {"noDfCor": False, "geomean": True}
BY_PAIRS = {"Theil": "Theil", "max": "max"}
ONE_STEP = [*GRUNFELD, KMENTA, KMENTA2, MUNNELL, FRINGE]
ITERATED = [*GRUNFELD, KMENTA2, FRINGE]
JOINT = ["case05a_sim_k1_K6_N300", "case05c_sim_k2_K7_N250_scales", "case05e_real_holzinger_K8_N301"]


def fitted(case: str, **options: Any) -> tuple[dict[str, Any], Fit]:
    reference, data = load(case)
    restrictions = options.get("restrictions")
    if restrictions is not None:
        stated = reference["restrictions"][restrictions]
        options["restrictions"] = (np.array(stated["R"], dtype=float), np.array(stated["q"], dtype=float))
    system = system_of(reference["equations"], data, reference.get("outcomes"))
    return reference, LowRankGLS(covariance="full", **options).fit(system).result_


def assert_same(fit: Fit, expected: dict[str, Any]) -> None:
    """Coefficients, their covariance and the Sigma that weighted."""
    se = table(expected["std_errors"], fit)
    off = (fit.params.values - table(expected["coefficients"], fit)) / se
    assert np.abs(off).max() < 1e-6
    np.testing.assert_allclose(fit.std_errors.values, se, rtol=1e-6)
    weighting = np.array(expected["resid_cov_used_for_weighting"])
    sd = np.sqrt(np.diag(weighting))
    assert np.abs((fit.sigma().values - weighting) / np.outer(sd, sd)).max() < 1e-6


@pytest.mark.parametrize("scaling", SCALING)
@pytest.mark.parametrize("case", ONE_STEP)
def test_one_step_feasible_gls(case: str, scaling: str) -> None:
    reference, fit = fitted(case, algorithm="fgls", debiased=SCALING[scaling])
    assert_same(fit, reference["fits"][f"sur_onestep_{scaling}"])
    assert (fit.termination, fit.n_passes) == (Termination.CONVERGED, 1)


@pytest.mark.parametrize("engine", ["compress", "stream"])
@pytest.mark.parametrize("scaling", BY_PAIRS)
@pytest.mark.parametrize("case", [*GRUNFELD, KMENTA, KMENTA2])
def test_divisors_of_their_own_for_every_pair_of_equations(case: str, scaling: str, engine: str) -> None:
    reference, fit = fitted(case, algorithm="fgls", debiased=BY_PAIRS[scaling], engine=engine, cg_tol=1e-12)
    assert_same(fit, reference["fits"][f"sur_onestep_{scaling}"])
    assert fit.debiased == scaling and f"debiased ({scaling})" in fit.summary()


@pytest.mark.parametrize("scaling", SCALING)
@pytest.mark.parametrize("case", ITERATED)
def test_iterated(case: str, scaling: str) -> None:
    """systemfit took up to 8477 iterations."""
    reference, fit = fitted(case, debiased=SCALING[scaling])
    expected = reference["fits"][f"sur_iterated_{scaling}"]
    assert_same(fit, expected)
    assert fit.termination is Termination.CONVERGED
    assert fit.n_sweeps < 20
    if scaling == "noDfCor":  # only then is what they call log-likelihood that of the Sigma they report
        assert abs(fit.loglik - expected["loglik"]) < 1e-8
        assert fit.n_parameters == fit.n_coefficients + fit.n_equations * (fit.n_equations + 1) // 2


@pytest.mark.parametrize("restrictions", ["restr1", "restr2"])
@pytest.mark.parametrize("scaling", SCALING)
@pytest.mark.parametrize(("case", "algorithm"), [(KMENTA, "onestep"), (KMENTA2, "onestep"), (KMENTA2, "iterated")])
def test_restrictions_across_equations(case: str, algorithm: str, scaling: str, restrictions: str) -> None:
    step = {"onestep": "fgls", "iterated": "als"}[algorithm]
    reference, fit = fitted(case, algorithm=step, debiased=SCALING[scaling], restrictions=restrictions)
    expected = reference["restricted_fits"][f"sur_{algorithm}_{scaling}_{restrictions}"]
    assert_same(fit, expected)
    assert fit.n_parameters == expected["loglik_df"]
    if (algorithm, scaling) == ("iterated", "noDfCor"):
        assert abs(fit.loglik - expected["loglik"]) < 1e-8
    vcov = np.array(expected["vcov"])
    sd = np.sqrt(np.diag(vcov))
    assert np.abs((fit.cov().values - vcov) / np.outer(sd, sd)).max() < 1e-6


@pytest.mark.parametrize("case", JOINT)
def test_the_full_model_of_lavaan(case: str) -> None:
    reference, data = load(case)
    expected = reference["fits"]["full"]
    fit = LowRankGLS(covariance="full").fit(system_of(reference["equations"], data)).result_
    assert abs(fit.loglik - expected["loglik_y_given_x"]) < 1e-8
    se = table(expected["se"]["expected"], fit)
    assert np.abs((fit.params.values - table(expected["coefficients"], fit)) / se).max() < 1e-6
    np.testing.assert_allclose(fit.std_errors.values, se, rtol=1e-6)
    assert fit.n_parameters == expected["n_free_parameters"]


@pytest.mark.parametrize(
    ("case", "text"),
    [
        (MUNNELL, r"17 rows, 63 distinct regressors and 9 equations.*'lnGSPGF', .* and 4 more is an exact"),
        (KMENTA, r"20 rows, 7 distinct regressors and 2 equations.*'demand', 'supply' is an exact"),
    ],
)
def test_no_maximum_is_refused_at_once_by_name_of_the_reason(case: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"no maximum likelihood fit with covariance='full' exists: with {text}"):
        fitted(case)
