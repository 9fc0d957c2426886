"""Equations that share all regressors: least squares whatever Sigma is, so that no pass asks again (Zellner 1962)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lrgls_dask.model
from lrgls_dask import LowRankGLS, System
from lrgls_dask.rows.rows import Rows
from lrgls_dask.solve.same_columns import streamed
from lrgls_dask.solve.streamed import Streamed
from support.systems import dask_rows, simulate

DATA = simulate("shared", n=300, K=8)
LEAST = np.linalg.lstsq(DATA.X, DATA.Y, rcond=None)[0].T.ravel()


def test_streamed_passes_are_those_of_sigma_alone() -> None:
    """One for each equation's own moments, one for S."""
    fit = LowRankGLS(2, engine="stream").fit(DATA.system(dask_rows(70))).result_
    np.testing.assert_allclose(fit.coefficients, LEAST, rtol=1e-9)
    assert fit.n_passes == 2
    whole = LowRankGLS(2, engine="compress").fit(DATA.system()).result_
    np.testing.assert_allclose(fit.loglik, whole.loglik, rtol=1e-9)
    np.testing.assert_allclose(fit.std_errors, whole.std_errors, rtol=1e-5)


def test_where_s_is_not_held_no_pass_follows_sigma(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_matrix(rows: Rows, **options: Any) -> Streamed:
        return streamed(rows, **(options | {"dense": False}))

    monkeypatch.setattr(lrgls_dask.model, "streamed", without_matrix)
    fit = LowRankGLS(2, engine="stream", rel_tol=1e-9).fit(DATA.system(dask_rows(70))).result_
    np.testing.assert_allclose(fit.coefficients, LEAST, rtol=1e-7)
    assert fit.trace["step"].iloc[-1] == "beta"
    assert fit.trace["passes"].iloc[-1] == fit.trace["passes"].iloc[-2]


@pytest.mark.parametrize("why", ["ridge", "restrictions", "own"])
def test_what_depends_on_sigma_is_still_asked_for(why: str) -> None:
    """Of rows where regressors differ; where they do not, what the first pass left answers."""
    data = simulate("own", n=300, K=8) if why == "own" else DATA
    given: dict[str, Any] = {"ridge": {"lam_B": 30.0}, "restrictions": {"restrictions": "y0:x1 = y1:x1"}}.get(why, {})
    fit = LowRankGLS(2, engine="stream", rel_tol=1e-10, **given).fit(data.system(dask_rows(70))).result_
    assert fit.n_passes == 2 if why != "own" else fit.n_passes > 2
    least = np.concatenate(
        [np.linalg.lstsq(data.X[:, c], y, rcond=None)[0] for c, y in zip(data.columns, data.Y.T, strict=True)]
    )
    assert np.abs(fit.coefficients - least).max() > 1e-4
    whole = LowRankGLS(2, engine="compress", **given).fit(data.system()).result_
    np.testing.assert_allclose(fit.coefficients, whole.coefficients, rtol=1e-3, atol=1e-4)


def test_nearly_dependent_regressors_lose_no_digit_of_the_likelihood() -> None:
    """Moments do not tell their coefficients, so passes do."""
    X = DATA.X.copy()
    X[:, 2] = X[:, 1] + 1e-5 * X[:, 2]
    Y = DATA.Y + 1e5 * (X[:, [2]] - X[:, [1]]) * np.linspace(1.0, 3.0, 8)
    fit, whole = (
        LowRankGLS(2, engine=engine).fit(System.from_arrays(Y, X)).result_ for engine in ("stream", "compress")
    )
    np.testing.assert_allclose(fit.loglik, whole.loglik, rtol=1e-10)
    assert (np.abs(fit.params - whole.params) / whole.std_errors).max() < 1e-3
    assert fit.n_passes > 2


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_fewer_rows_than_equations_with_own_regressors(engine: str) -> None:
    """Each at the optimum of its Sigma: the GLS of explicit matrices."""
    rng = np.random.default_rng(0)
    Xs = [np.column_stack([np.ones(30), rng.normal(size=(30, 2))]) for _ in range(40)]
    Y = rng.normal(size=(30, 1)) @ rng.normal(size=(1, 40)) + rng.normal(size=(30, 40))
    fit = LowRankGLS(1, engine=engine, rel_tol=1e-10).fit(System.from_arrays(Y, Xs)).result_
    inverse = np.linalg.inv(fit.sigma().values)
    A = np.block([[inverse[i, j] * Xs[i].T @ Xs[j] for j in range(40)] for i in range(40)])
    b = np.concatenate([Xs[i].T @ (Y @ inverse)[:, i] for i in range(40)])
    np.testing.assert_allclose(fit.coefficients, np.linalg.solve(A, b), atol=1e-5)
    np.testing.assert_allclose(fit.std_errors, np.sqrt(np.linalg.inv(A).diagonal()), rtol=1e-8)
