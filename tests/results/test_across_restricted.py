"""One hypothesis in each equation of a fit under restrictions: dense formulas, and nothing P x P formed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.linalg import null_space

from lrgls_dask import Fit, LowRankGLS, System
from lrgls_dask.inference import classical
from lrgls_dask.inference.classical import CoefficientCovariance
from lrgls_dask.results import across

K, N = 40, 120
NAMES = [f"y{j}" for j in range(K)]
RESTRICTIONS = {
    "adding-up": [" + ".join(f"{e}:{x} " for e in NAMES) + " = 0" for x in ("x1", "x2", "x3")],
    "homogeneity": [f"{e}:x1 + {e}:x2 + {e}:x3 = 0" for e in NAMES],
    "equality": [f"y0:x3 = {e}:x3" for e in NAMES[1:]],
}


def regressors(alike: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((N, 3)) + alike * rng.standard_normal((N, 1)) * [1.0, 1.0, 0.0]
    return np.column_stack([np.ones(N), x])


def fitted(x: np.ndarray, restrictions: Any, **options: Any) -> Fit:
    rng = np.random.default_rng(4)
    y = rng.standard_normal((N, 2)) @ rng.standard_normal((2, K)) + rng.standard_normal((N, K))
    system = System.from_arrays(y, x, equations=NAMES, regressors=[f"x{i}" for i in range(x.shape[1])])
    options = {"rank": 2, **options} if options.get("covariance") != "full" else options
    return LowRankGLS(algorithm="fgls", restrictions=restrictions, **options).fit(system).result_


def none_is_formed(*_: Any) -> None:
    raise AssertionError("a P x P array was formed")


@pytest.mark.parametrize("covariance", ["lowrank", "full"])
@pytest.mark.parametrize("restrictions", list(RESTRICTIONS))
def test_restricted_errors_are_those_of_dense_formulas(
    restrictions: str, covariance: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CoefficientCovariance, "_inverse", none_is_formed)
    monkeypatch.setattr(classical, "AT_HAND", 0)
    monkeypatch.setattr(across, "check_open", none_is_formed)  # what is plainly open is not looked at one by one
    x = regressors()
    fit = fitted(x, RESTRICTIONS[restrictions], covariance=covariance)
    found = fit.across("*:x1 = 0", "sup-t")
    joint = fit.wald_test([f"{e}:x1 = 0" for e in NAMES[:20]])
    assert fit.restrictions is not None
    free = null_space(fit.restrictions.matrix)
    information = np.kron(np.linalg.inv(fit.sigma().values), x.T @ x)
    expected = free @ np.linalg.inv(free.T @ information @ free) @ free.T
    np.testing.assert_allclose(found.table["std_error"], np.sqrt(expected.diagonal())[1::4], rtol=1e-8)
    b, V = fit.params.values[1::4][:20], expected[1::4, 1::4][:20, :20]
    assert joint.statistic == pytest.approx(b @ np.linalg.solve(V, b), rel=1e-8)


@pytest.mark.parametrize("covariance", ["lowrank", "full"])
def test_what_restrictions_leave_little_of_keeps_its_digits(covariance: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two nearly equal columns with equal slopes: the errors of a fit on their sum."""
    monkeypatch.setattr(classical, "AT_HAND", 0)
    x = regressors(alike=1e5)
    fit = fitted(x, [f"{e}:x1 = {e}:x2" for e in NAMES], covariance=covariance)
    of_sum = fitted(np.column_stack([x[:, 0], x[:, 1] + x[:, 2], x[:, 3]]), None, covariance=covariance)
    errors = fit.across("*:x1 = 0", "sup-t").table["std_error"]
    np.testing.assert_allclose(errors, of_sum.across("*:x1 = 0").table["std_error"], rtol=1e-6)
    robust = fit.with_cov("robust").across("*:x1 = 0", bands=None).table["std_error"]
    of_sum = of_sum.with_cov("robust")
    np.testing.assert_allclose(robust, of_sum.across("*:x1 = 0", bands=None).table["std_error"], rtol=1e-6)


@pytest.mark.parametrize(
    ("hypotheses", "said"),
    [
        (["*:x1 = 0", "*:x2 = 0", "*:x3 = 0"], "'y0:x3 = 0' holds by construction"),
        ("1e9 * y7:x1 + 1e9 * y7:x2 + 1e9 * y7:x3 = 0", "holds by construction"),
        ("y7:x1 + y7:x2 + y7:x3 = 1", "cannot hold"),
        (["*:x3 = 0", "y5:x1 + y5:x2 = 1"], "'y5:x1 . y5:x2 = 1' cannot hold"),
    ],
)
def test_hypotheses_that_restrictions_decide_are_named(hypotheses: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fitted(regressors(), RESTRICTIONS["homogeneity"]).across(hypotheses)


def test_weights_of_other_units_are_looked_at_one_by_one() -> None:
    fit = fitted(regressors(), RESTRICTIONS["homogeneity"])
    plain, tiny = fit.across("*:x1 + *:x2 = 0").table, fit.across("1e-9 * *:x1 + 1e-9 * *:x2 = 0").table
    np.testing.assert_allclose(tiny["statistic"], plain["statistic"], rtol=1e-8)
