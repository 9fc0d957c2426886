"""Restrictions count in the degrees of freedom of each equation: as if the columns they take out were not there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
import zarr

from lrgls_dask import Fit, LowRankGLS, System, TimeVarying
from support.systems import dask_rows, simulate

N, K = 90, 5
DATA = simulate("own", n=N, K=K, k=1)  # 2, 3, 4, 2, 3 coefficients
SEGMENTS = np.arange(N) // 45
# what is restricted, and the same model without it: Y and designs
CASES = ["slope", "value", "constant", "equal"]

pytestmark = [
    pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic variance"),
    pytest.mark.filterwarnings("ignore:clustered covariance"),
]


def written(case: str) -> list[str]:
    return {
        "slope": ["y1:x1 = 0", "y2:x3 = 0"],
        "value": ["y1:x1 = 0.5"],
        "constant": ["y2:x0 = 0"],
        "equal": ["y2:x1 = y2:x2"],
    }[case]


def without(case: str) -> tuple[np.ndarray, list[np.ndarray], list[list[int]]]:
    """Y, designs, and which restricted coefficient each column is."""
    Y, Xs, kept = DATA.Y.copy(), list(DATA.Xs), [list(range(X.shape[1])) for X in DATA.Xs]
    if case == "slope":
        Xs[1], Xs[2], kept[1], kept[2] = Xs[1][:, [0, 2]], Xs[2][:, :3], [0, 2], [0, 1, 2]
    if case == "value":
        Y[:, 1] -= 0.5 * Xs[1][:, 1]
        Xs[1], kept[1] = Xs[1][:, [0, 2]], [0, 2]
    if case == "constant":
        Xs[2], kept[2] = Xs[2][:, 1:], [1, 2, 3]
    if case == "equal":
        Xs[2], kept[2] = np.column_stack([Xs[2][:, 0], Xs[2][:, 1] + Xs[2][:, 2], Xs[2][:, 3]]), [0, 1, 3]
    return Y, Xs, kept


def punctured(Y: np.ndarray) -> np.ndarray:
    out = Y.copy()
    out[np.random.default_rng(4).random(Y.shape) < 0.05] = np.nan
    return out


ROADS: dict[str, dict[str, Any]] = {
    "compress": {"rank": 1},
    "stream": {"rank": 1, "engine": "stream", "rel_tol": 1e-14, "max_sweeps": 300},
    "debiased": {"rank": 1, "debiased": True},
    "fgls": {"covariance": "full", "algorithm": "fgls", "debiased": True},
    "full": {"covariance": "full"},
    "diagonal": {"covariance": "diagonal"},
    "segments": {"covariance": TimeVarying(1, SEGMENTS, 0.0)},
    "drop": {"rank": 1, "missing": "drop"},
    "em": {"rank": 1, "missing": "em"},
}


def pair(case: str, road: str) -> tuple[Any, Any, np.ndarray]:
    """The restricted fit, the one without, and where its coefficients stand among the restricted ones."""
    Y, Xs, kept = without(case)
    mine = punctured if road in ("drop", "em") else np.asarray
    options = {"rel_tol": 1e-13, "max_sweeps": 300} | ROADS[road]
    wrap = dask_rows(31) if road == "stream" else np.asarray
    made = LowRankGLS(**options, restrictions=written(case)).fit(
        System.from_arrays(wrap(mine(DATA.Y)), [wrap(X) for X in DATA.Xs])
    )
    alone = LowRankGLS(**options).fit(System.from_arrays(wrap(mine(Y)), [wrap(X) for X in Xs]))
    places = np.concatenate(
        [start + np.array(each) for start, each in zip(np.cumsum([0, 2, 3, 4, 2]), kept, strict=True)]
    )
    return made.result_, alone.result_, places


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("case", CASES)
def test_as_if_the_columns_were_dropped(case: str, road: str) -> None:
    made, alone, places = pair(case, road)
    close: dict[str, Any] = {"rtol": 2e-4 if road in ("em", "stream") else 1e-6, "atol": 1e-7}
    assert made.df_resid == alone.df_resid and made.n_parameters == alone.n_parameters
    np.testing.assert_array_equal(made.estimated.free, alone.design.sizes)
    np.testing.assert_allclose(made.coefficients[places], alone.coefficients, **close)
    kinds: list[dict[str, Any]] = [{"kind": "classical"}]
    if road not in ("em", "drop"):
        kinds += [{"kind": "classical", "debiased": True}]
    if road != "em":
        kinds += [
            {"kind": "robust", "correction": "HC1"},
            {"kind": "cluster", "groups": np.arange(N) // 3, "correction": "HC1"},
            {"kind": "hac", "bandwidth": 2, "correction": "HC1"},
        ]
    for options in kinds:
        found, wanted = made.with_cov(**options), alone.with_cov(**options)
        np.testing.assert_allclose(found.std_errors.values[places], wanted.std_errors, **close, err_msg=str(options))
        np.testing.assert_allclose(found.pvalues.values[places], wanted.pvalues, **(close | {"atol": 1e-5}))
        np.testing.assert_allclose(found.conf_int().values[places], wanted.conf_int(), **(close | {"atol": 1e-4}))
        if options["kind"] == "robust":
            of_one = made.cov("robust", correction="HC1", equation="y2").values
            np.testing.assert_allclose(of_one, found.cov(equation="y2").values, rtol=1e-7, atol=1e-12)
    if road not in ("segments", "em"):
        if case != "value":  # whose total is that of another response
            np.testing.assert_allclose(made.r2, alone.r2, **close)
            np.testing.assert_allclose(made.adj_r2, alone.adj_r2, **close)
        else:
            residual = (1 - alone.r2.values) * ((without(case)[0] - without(case)[0].mean(0)) ** 2).sum(0)
            total = ((DATA.Y - DATA.Y.mean(0)) ** 2).sum(0)
            if road != "drop":
                wanted = 1 - residual / total * (N - 1) / (N - alone.design.sizes)
                np.testing.assert_allclose(made.adj_r2, wanted, **close)
    if road == "compress":
        for ask in (lambda f: f.lr_diagonal(), lambda f: f.rank_test(), lambda f: f.rank_test(bartlett=True)):
            assert ask(made).df == ask(alone).df
            assert ask(made).statistic == pytest.approx(ask(alone).statistic, rel=1e-5, abs=1e-5)


def test_separate_regressions_by_statsmodels() -> None:
    made = LowRankGLS(covariance="diagonal", restrictions="y2:x2 = 0").fit(DATA.system()).result_
    X, y = np.delete(DATA.Xs[2], 2, axis=1), DATA.Y[:, 2]
    own, mine = [0, 1, 3], made.design.spans[2]
    ols, hc1 = sm.OLS(y, X).fit(), sm.OLS(y, X).fit(cov_type="HC1", use_t=True)
    debiased, robust = made.with_cov("classical", debiased=True), made.with_cov("robust", correction="HC1")
    for found, wanted in ((debiased, ols), (robust, hc1)):
        np.testing.assert_allclose(found.std_errors.values[mine][own], wanted.bse, rtol=1e-8)
        np.testing.assert_allclose(found.pvalues.values[mine][own], wanted.pvalues, rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(found.conf_int().values[mine][own], wanted.conf_int(), rtol=1e-7)
    assert made.adj_r2.values[2] == pytest.approx(ols.rsquared_adj, rel=1e-9)


def free_of(restrictions: Any, Y: np.ndarray = DATA.Y, Xs: Any = None, **options: Any) -> np.ndarray:
    system = System.from_arrays(Y, DATA.Xs if Xs is None else Xs)
    made: Fit = LowRankGLS(1, restrictions=restrictions, **options).fit(system).result_
    return made.estimated.free


def test_a_restriction_across_equations_is_shared() -> None:
    twins = simulate("shared", n=N, K=4, k=1)
    Y = twins.Y.copy()
    Y[:, 1] = Y[::-1, 0]  # equations alike: their own residuals have one standard deviation at the same X
    X = np.vstack([twins.X[:45], twins.X[:45][::-1]])
    free = free_of("y0:x1 = y1:x1", Y, [X, X, twins.X, twins.X])
    np.testing.assert_allclose(free, [3.5, 3.5, 4, 4], atol=1e-9)


def test_shares_add_up_and_know_no_units() -> None:
    across = ["y0:x1 = y1:x1", "y1:x1 = y2:x1", "y3:x1 = 0", "y2:x2 = 2*y4:x2"]
    free = free_of(across)
    assert free.sum() == pytest.approx(DATA.X.shape[1] - 4) and free[3] == 1
    assert (free <= [2, 3, 4, 2, 3]).all() and (free >= [1, 2, 2, 1, 2]).all()
    # by the textbook: the diagonal of the projection along W R' (R W R')^-1 R, W_j = s_j^2 (X_j'X_j)^-1
    R = LowRankGLS(1, restrictions=across).fit(DATA.system()).result_.restrictions.matrix
    W = np.zeros((R.shape[1], R.shape[1]))
    edges = np.cumsum([0, 2, 3, 4, 2, 3])
    for j, X in enumerate(DATA.Xs):
        own = slice(edges[j], edges[j + 1])
        residual = DATA.Y[:, j] - X @ np.linalg.lstsq(X, DATA.Y[:, j], rcond=None)[0]
        W[own, own] = residual @ residual * np.linalg.inv(X.T @ X)
    taken = np.diag(W @ R.T @ np.linalg.inv(R @ W @ R.T) @ R)
    np.testing.assert_allclose(free, [2, 3, 4, 2, 3] - np.add.reduceat(taken, edges[:-1]), rtol=1e-9)
    # written otherwise
    mixed = np.random.default_rng(1).normal(size=(4, 4))
    np.testing.assert_allclose(free_of((mixed @ R, np.zeros(4))), free, rtol=1e-8)
    # in other units, of regressors and responses
    units, scale = np.array([1.0, 1e-6, 30.0, 1e5, 2.0]), [1e4, 1.0, 1e-3, 7.0, 1.0]
    R_units = R.copy()
    for j in range(K):
        R_units[:, edges[j] : edges[j + 1]] *= scale[j] / units[j]
    there = free_of((R_units, np.zeros(4)), DATA.Y * units, [X * s for X, s in zip(DATA.Xs, scale, strict=True)])
    np.testing.assert_allclose(there, free, rtol=1e-7)
    np.testing.assert_allclose(free_of(across, engine="stream"), free, rtol=1e-7)


def test_files_keep_them_and_older_ones_get_them(tmp_path: Any) -> None:
    made = LowRankGLS(1, restrictions=["y0:x1 = y1:x1", "y3:x1 = 0"]).fit(DATA.system()).result_
    made.to_zarr(tmp_path / "fit")
    np.testing.assert_array_equal(Fit.from_zarr(tmp_path / "fit").estimated.free, made.estimated.free)
    group = zarr.open_group(tmp_path / "fit")
    del group["free"]
    older = Fit.from_zarr(tmp_path / "fit").estimated.free
    np.testing.assert_allclose(older, [1.5, 2.5, 4, 1, 3], atol=1e-12)
