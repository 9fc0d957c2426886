"""Rows with holes beside lavaan's full-information maximum likelihood: every structure that lavaan has, every engine.

Late starters, a bifactor Sigma, and measured air with days that miss ozone or radiation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lrgls_dask import GroupedLowRank
from support.fits import fit
from support.reference import REFERENCE, apart, load, system_of, table

STRUCTURES: dict[str, dict[str, Any]] = {
    "diagonal": {"rank": 0},
    "factor_k1": {"rank": 1},
    "factor_k2": {"rank": 2},
    "full": {"rank": "auto", "covariance": "full"},
    "bifactor": {"rank": "auto", "covariance": GroupedLowRank(1, {f"y{j + 1}": "abc"[j // 3] for j in range(9)})},
}
CASES = {
    path.name: sorted(load(path.name)[0]["fits"]) for path in sorted(REFERENCE.glob("case09*"))
}  # what lavaan was asked for, of each data set
ROADS = [("compress", "als"), ("stream", "als"), ("compress", "em"), ("stream", "em")]
EVERY = [
    (case, structure, engine, algorithm)
    for case, structures in CASES.items()
    for structure in structures
    for engine, algorithm in ROADS
    if (structure, algorithm) != ("full", "em")  # EM is of factors
]


@pytest.mark.parametrize(("case", "structure", "engine", "algorithm"), EVERY)
def test_estimates_and_errors_are_those_of_lavaan(case: str, structure: str, engine: str, algorithm: str) -> None:
    reference, data = load(case)
    expected = reference["fits"][structure]
    system = system_of(reference["equations"], data)
    got = fit(system, **STRUCTURES[structure], missing="em", engine=engine, algorithm=algorithm)
    assert (got.engine, got.algorithm) == (engine, algorithm)
    assert abs(got.loglik - expected["loglik_y_given_x"]) < 1e-6
    coefficients, sigma = apart(got, expected)
    assert coefficients < 1e-4 and sigma < 1e-5
    observed = table(expected["se"]["observed"], got)
    np.testing.assert_allclose(got.std_errors.values, table(expected["gls_se_at_mle"], got), rtol=1e-5)
    np.testing.assert_allclose(got.with_cov("observed").std_errors.values, observed, rtol=1e-4)
    sandwich = table(expected["se"]["robust_huber_white"], got)
    np.testing.assert_allclose(got.with_cov("huber-white").std_errors.values, sandwich, rtol=1e-4)


def test_what_equations_do_not_show_may_miss_its_regressors_too() -> None:
    """As they come from a long table: lavaan would leave out these rows whole."""
    reference, data = load("case09a_late_starters_K7")
    for outcome, names in reference["equations"].items():
        own = [name for name in names if name not in ("const", "z")]
        data.loc[data[outcome].isna(), own] = np.nan
    expected = reference["fits"]["factor_k2"]
    got = fit(system_of(reference["equations"], data), 2, missing="em")
    assert abs(got.loglik - expected["loglik_y_given_x"]) < 1e-6
    observed = table(expected["se"]["observed"], got)
    np.testing.assert_allclose(got.with_cov("observed").std_errors.values, observed, rtol=1e-4)


def test_likelihood_ratios_are_the_differences_of_lavaans() -> None:
    reference, data = load("case09c_airquality_K4")
    system = system_of(reference["equations"], data)
    one, full = (fit(system, missing="em", **STRUCTURES[name]) for name in ("factor_k1", "full"))
    said = {name: reference["fits"][name] for name in ("factor_k1", "full")}
    assert full.loglik - one.loglik == pytest.approx(
        said["full"]["loglik_y_given_x"] - said["factor_k1"]["loglik_y_given_x"], abs=1e-6
    )
    more = said["full"]["n_free_parameters"] - said["factor_k1"]["n_free_parameters"]
    assert full.lr_test(one).df == more
