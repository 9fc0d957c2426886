"""Known Sigma: against explicit Kronecker products, by every engine; exact standard errors, labels, files, refusals."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.base
import xarray as xr

from lrgls_dask import CompressedSystem, Fit, Known, LowRankGLS, SparseLowRank, System, Termination
from support.fits import assert_same_bits, fit
from support.systems import Data, dask_rows, simulate

K = 6
RNG = np.random.default_rng(5)
UNITS = 10.0 ** np.array([3, -3, 0, 1, -2, 0])
F, D = RNG.normal(size=(K, 2)) * UNITS[:, None], RNG.uniform(0.3, 1.0, K) * UNITS**2
SIGMA = F @ F.T + np.diag(D)
NAMES = [f"y{j}" for j in range(K)]
FORMS = {"matrix": Known(SIGMA), "factors": Known(loadings=F, idio_var=D)}
EACH = pytest.mark.parametrize("known", FORMS.values(), ids=FORMS)


def data(kind: str = "mixed", **options: Any) -> Data:
    made = simulate(kind, n=80, K=K, **options)
    return replace(made, Y=made.Y * UNITS)


def made(of: Data, known: Known, **options: Any) -> Fit:
    return fit(of.system(dask_rows(25)), "auto", covariance=known, **options)


def off_by(found: np.ndarray, expected: np.ndarray) -> float:
    se = np.sqrt(np.diag(expected))
    return float(np.abs((found - expected) / np.outer(se, se)).max())


# ---------------------------------------------------------------------------------- the textbook


@pytest.mark.parametrize("engine", ["compress", "stream"])
@pytest.mark.parametrize(
    ("kind", "weighted", "lam_B"), [("own", False, 0.0), ("mixed", True, 0.0), ("shared", True, 7.0)]
)
@EACH
def test_gls_by_explicit_kronecker_products(known: Known, kind: str, weighted: bool, lam_B: float, engine: str) -> None:
    of = data(kind, weighted=weighted)
    dense = of.dense(lam_B=lam_B)
    found, b = made(of, known, engine=engine, lam_B=lam_B), dense.gls(SIGMA)
    se = np.sqrt(np.diag(dense.cov(SIGMA)))
    assert np.abs((found.params.values - b) / se).max() < 1e-9
    np.testing.assert_allclose(found.std_errors.values, se, rtol=1e-9)
    assert off_by(found.cov().values, dense.cov(SIGMA)) < 1e-9
    np.testing.assert_allclose(found.sigma().values, SIGMA, rtol=1e-13)
    assert found.nll == pytest.approx(dense.nll(b, SIGMA), rel=1e-11)
    assert found.n_parameters == found.n_coefficients and not found.on_floor
    assert (found.termination, found.n_sweeps) == (Termination.CONVERGED, 1)


@EACH
def test_restrictions_are_those_of_restricted_gls(known: Known) -> None:
    of = data()
    dense = of.dense()
    R = np.random.default_rng(1).normal(size=(2, len(dense.ols)))
    r = R @ dense.ols + 0.05
    found, A = made(of, known, restrictions=(R, r)), np.linalg.inv(dense.normal_matrix(SIGMA))
    gain = A @ R.T @ np.linalg.inv(R @ A @ R.T)
    b, cov = dense.gls(SIGMA), A - gain @ R @ A
    assert np.abs((found.params.values - b - gain @ (r - R @ b)) / np.sqrt(np.diag(A))).max() < 1e-8
    assert off_by(found.cov().values, cov) < 1e-8
    assert found.n_parameters == found.n_coefficients - 2


@EACH
def test_what_estimating_sigma_adds_is_nothing(known: Known) -> None:
    """At a known Sigma observed information is the expected one, and there is no correction for its error."""
    of = data(weighted=True)
    found, dense = made(of, known), of.dense()
    for kind in ("observed", "kackar-harville"):
        assert off_by(found.cov(kind).values, dense.cov(SIGMA)) < 1e-8
    inverse, V = dense.cov(SIGMA), dense.residuals(found.params.values) @ np.linalg.inv(SIGMA)
    S = np.hstack([dense.w[:, None] * X * V[:, [j]] for j, X in enumerate(of.Xs)])
    assert off_by(found.cov("huber-white").values, inverse @ S.T @ S @ inverse) < 1e-7
    assert off_by(found.cov("robust").values, inverse @ S.T @ S @ inverse) < 1e-7


def test_both_forms_are_one() -> None:
    a, b = (made(data(), each) for each in FORMS.values())
    np.testing.assert_allclose(a.params, b.params, rtol=1e-9, atol=1e-10)
    assert a.loglik == pytest.approx(b.loglik, rel=1e-12)
    np.testing.assert_allclose(b.loadings, F, rtol=1e-13)
    np.testing.assert_allclose(b.idio_var, D, rtol=1e-13)
    with pytest.raises(ValueError, match="covariance='known' has no loadings"):
        _ = a.loadings
    with pytest.raises(ValueError, match="covariance='known-factors' has no standard errors of its loadings"):
        _ = b.loadings_std_errors
    assert not b.idio_var_std_errors.any() and not a.sigma_std_errors()["sigma"].any()


def test_a_fit_at_the_sigma_of_another_is_that_fit() -> None:
    first = fit(data().system(), 1)
    for again in (Known(first.sigma()), Known(loadings=first.loadings, idio_var=first.idio_var)):
        found = made(data(), again)
        np.testing.assert_allclose(found.params, first.params, rtol=1e-6, atol=1e-8)
        assert found.loglik == pytest.approx(first.loglik, rel=1e-10)
        np.testing.assert_allclose(found.std_errors, first.std_errors, rtol=1e-8)
    test = first.lr_test(found)
    assert (test.df, round(test.statistic, 6)) == (first.n_parameters - found.n_parameters, 0.0)


@EACH
def test_rows_given_others_and_scores(known: Known) -> None:
    of, new = data(), data(seed=9)
    found = made(of, known)
    hidden = replace(new, Y=np.where(np.arange(K) == 2, np.nan, new.Y)).system()
    o, fitted = np.arange(K) != 2, new.Y - new.dense().residuals(found.params.values)
    expected = fitted[:, 2] + (new.Y - fitted)[:, o] @ np.linalg.solve(SIGMA[np.ix_(o, o)], SIGMA[o, 2])
    np.testing.assert_allclose(found.predict_given(hidden).values[:, 2], expected, rtol=1e-8)
    if found.rank:
        scores = (new.Y - fitted) @ np.linalg.solve(SIGMA, F)
        np.testing.assert_allclose(found.factor_scores(new.system()).values, scores, rtol=1e-8)


# ---------------------------------------------------------------------------------- everything that meets units


@EACH
def test_every_replicate_weighs_by_the_given_sigma(known: Known) -> None:
    of = data()
    found = made(of, known)
    draws = found.bootstrap(n=400, seed=1)
    error = np.log(draws.std_errors / found.std_errors) * np.sqrt(2 * 400)  # in standard errors of the draws
    assert np.abs(error).max() < 4
    np.testing.assert_allclose(draws.replicate_std_errors, np.tile(found.std_errors, (400, 1)), rtol=1e-8)
    np.testing.assert_allclose(draws.draws.variances, np.tile(np.diag(SIGMA), (400, 1)), rtol=1e-10)
    groups = np.arange(80) % 8
    resampled = found.bootstrap(n=3, method="cluster", groups=groups, seed=2)
    np.testing.assert_allclose(resampled.draws.variances, np.tile(np.diag(SIGMA), (3, 1)), rtol=1e-10)
    counts = np.random.default_rng(np.random.SeedSequence(2).spawn(3)[0]).integers(8, size=8)
    rows = np.concatenate([np.flatnonzero(groups == g) for g in counts])
    np.testing.assert_allclose(resampled.params[0], of.take(rows).dense().gls(SIGMA), rtol=1e-7, atol=1e-8)


def test_compressed_appended_and_streamed_are_one(tmp_path: Any) -> None:
    of = data(weighted=True)
    halves = [of.take(slice(0, 30)).system().compress(), of.take(slice(30, 80)).system()]
    appended = halves[0].append(halves[1])
    assert isinstance(appended, CompressedSystem)
    whole, known = made(of, FORMS["matrix"]), FORMS["matrix"]
    for found in (fit(appended, "auto", covariance=known), made(of, known, engine="stream")):
        np.testing.assert_allclose(found.params, whole.params, rtol=1e-8, atol=1e-9)
        assert found.loglik == pytest.approx(whole.loglik, rel=1e-12)
    kept = made(of, known, checkpoint=tmp_path / "kept.zarr")
    np.testing.assert_array_equal(kept.params, whole.params)
    assert not (tmp_path / "kept.zarr").exists()


@EACH
def test_saved_and_opened(known: Known, tmp_path: Any) -> None:
    found = made(data(), known)
    found.to_zarr(tmp_path / "fit.zarr")
    again = Fit.from_zarr(tmp_path / "fit.zarr")
    np.testing.assert_array_equal(again.sigma(), found.sigma())
    assert again.summary() == found.summary() and "known" in again.summary().splitlines()[0]
    assert again.n_parameters == found.n_coefficients
    np.testing.assert_array_equal(again.bootstrap(n=4, seed=0).params, found.bootstrap(n=4, seed=0).params)


# ---------------------------------------------------------------------------------- labels


def test_labels_decide_whatever_the_order() -> None:
    order, system = [3, 0, 5, 1, 4, 2], data().system()
    names = [NAMES[j] for j in order]
    turned = SIGMA[np.ix_(order, order)]
    frame = pd.DataFrame(turned, names, names)
    array = xr.DataArray(turned, {"a": names, "b": names}, ("a", "b"))
    plain = fit(system, "auto", covariance=Known(SIGMA))
    for labelled in (frame, array, frame.T):
        np.testing.assert_array_equal(fit(system, "auto", covariance=Known(labelled)).sigma(), plain.sigma())
    loadings, own = pd.DataFrame(F[order], names, ["a", "b"]), pd.Series(D[order], names)
    factors = fit(system, "auto", covariance=Known(loadings=loadings, idio_var=own))
    assert_same_bits(factors, fit(system, "auto", covariance=FORMS["factors"]))
    np.testing.assert_array_equal(
        fit(system, "auto", covariance=Known(loadings=xr.DataArray(F), idio_var=D)).sigma(), factors.sigma()
    )


WRONG = SIGMA.copy()
WRONG[1, 4] *= 2
SINGULAR = SIGMA.copy()
SINGULAR[3], SINGULAR[:, 3] = SINGULAR[1], SINGULAR[:, 1]
SINGULAR[3, 3] = SINGULAR[1, 1]
SINGULAR[[1, 3], [3, 1]] = SINGULAR[1, 1]
HOLE = SIGMA.copy()
HOLE[2, 5] = np.nan
OTHER = pd.DataFrame(SIGMA, [*NAMES[:5], "z"], [*NAMES[:5], "z"])
TWICE = pd.DataFrame(SIGMA, [*NAMES[:5], "y0"], [*NAMES[:5], "y0"])


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (Known(WRONG), "must be symmetric, but ('y1', 'y4') is"),
        (Known(SINGULAR), "must be positive definite, but the error of equation 'y3' has no variance given"),
        (Known(SIGMA - 0.9 * np.diag(np.diag(SIGMA))), "must be positive definite, but the error of equation"),
        (Known(-SIGMA), "sigma of equation 'y0' has no positive variance"),
        (Known(HOLE), "sigma of equation 'y2' is not finite"),
        (Known(SIGMA[:5, :5]), "sigma has 5 entries along axis 0, but there are 6 equations"),
        (Known(SIGMA[:5]), "sigma must be square, (K, K); got shape (5, 6)"),
        (Known(OTHER), "sigma: 'z' is not an equation"),
        (Known(TWICE), "sigma: equation 'y0' is there more than once"),
        (Known(loadings=F, idio_var=-D), "idio_var of equation 'y0' is not positive and finite"),
        (Known(loadings=F * np.nan, idio_var=D), "loadings of equation 'y0' is not finite"),
        (Known(loadings=F, idio_var=D[:4]), "idio_var has 4 entries along axis 0"),
        (Known(loadings=np.ones((K, 7)), idio_var=D), "k <= K; got shape (6, 7). Give sigma"),
    ],
)
def test_what_is_no_covariance_of_the_equations_is_refused(known: Known, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        LowRankGLS(covariance=known).fit(data().system())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, TypeError, "either sigma, or loadings and idio_var"),
        ({"loadings": F}, TypeError, "either sigma, or loadings and idio_var"),
        ({"sigma": SIGMA, "idio_var": D}, TypeError, "either sigma, or loadings and idio_var"),
        ({"sigma": D}, ValueError, "sigma must be (K, K); got shape (6,)"),
        ({"sigma": [["a"]]}, TypeError, "sigma must hold numbers; got list"),
        ({"loadings": D, "idio_var": D}, ValueError, "loadings must be (K, k); got shape (6,)"),
        ({"loadings": F, "idio_var": F}, ValueError, "idio_var must be (K,); got shape (6, 2)"),
    ],
)
def test_what_is_no_option_is_refused_at_once(arguments: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        Known(**arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": "em"}, "covariance=Known(...) does not go with algorithm='em'. A known Sigma makes"),
        ({"algorithm": "fgls"}, "covariance=Known(...) does not go with algorithm='fgls'"),
        ({"debiased": True}, "covariance=Known(...) does not go with debiased=True"),
        ({"sigma_step": "pca"}, "sigma_step must keep its default"),
        ({"rank": 2}, "rank must keep its default"),
        ({"lam_F": 1.0}, "lam_F must keep its default"),
    ],
)
def test_options_without_meaning_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        LowRankGLS(covariance=Known(SIGMA), **options)


def test_tests_that_need_a_fitted_sigma_say_so() -> None:
    found = made(data(), FORMS["factors"])
    with pytest.raises(ValueError, match="and this one was given, not fitted"):
        found.lr_diagonal()
    assert "Sigma is as given" in str(found.rank_test())
    assert found.rank_test().df == K * (K + 1) // 2


def test_it_is_an_option_like_others() -> None:
    model = LowRankGLS(covariance=Known(SIGMA))
    assert "Known(sigma)" in repr(model)
    cloned = sklearn.base.clone(model)
    np.testing.assert_array_equal(cloned.covariance.sigma, SIGMA)
    assert not SparseLowRank(1, 0.1).takes
    assert model.plan(data().system()).engine == "compress"
    dropped = data()
    Y = dropped.Y.copy()
    Y[3, 1] = np.nan
    found = LowRankGLS(covariance=Known(SIGMA), missing="drop").fit(System.from_arrays(Y, dropped.X)).result_
    assert found.n_dropped == 1
