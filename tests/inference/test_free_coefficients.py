"""Restrictions count in the degrees of freedom of each equation: as if the columns they take out were not there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm

from lrgls_dask import Fit, LowRankGLS, System, TimeVarying
from lrgls_dask.design.hypotheses import read_hypotheses
from lrgls_dask.design.restrictions import free_coefficients
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
    np.testing.assert_array_equal(free_coefficients(made.design, made.restrictions), alone.design.sizes)
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


def free_of(restrictions: Any) -> list[int]:
    design = DATA.system().design
    return free_coefficients(design, read_hypotheses(design, restrictions)).tolist()


def test_what_is_across_equations_takes_from_the_system_alone() -> None:
    assert free_of("y0:x1 = y1:x1") == [2, 3, 4, 2, 3]
    assert free_of(["y0:x1 = y1:x1", "y1:x1 = y2:x1", "y3:x1 = 0", "y2:x2 = 2*y4:x2"]) == [2, 3, 4, 1, 3]
    made = LowRankGLS(1, restrictions="y0:x1 = y1:x1").fit(DATA.system()).result_
    assert made.df_model == 13 and made.df_resid == N * K - 13
    # several across that together hold one coefficient of each
    assert free_of(["y0:x1 = y1:x1", "y0:x1 + y1:x1 = 0"]) == [1, 2, 4, 2, 3]
    assert free_of(["y0:x1 = y1:x1", "y1:x1 = y1:x2", "y1:x1 + y1:x2 = 1"]) == [1, 1, 4, 2, 3]


def test_counts_know_neither_wording_nor_units() -> None:
    rng = np.random.default_rng(1)
    design = DATA.system().design
    for texts in (["y2:x1 = y2:x2", "y0:x0 = 0", "y1:x1 = y4:x1"], ["y0:x1 = y1:x1", "y0:x1 + y1:x1 = 0", "y2:x3 = 1"]):
        stated, wanted = read_hypotheses(design, texts), free_of(texts)
        for _ in range(5):
            mix = rng.normal(size=(3, 3))
            units = 10.0 ** rng.integers(-8, 9, size=stated.matrix.shape[1])
            assert free_of((mix @ stated.matrix, mix @ stated.values)) == wanted
            assert free_of((stated.matrix * units, stated.values)) == wanted


def test_very_many_equations_are_counted_one_by_one() -> None:
    K = 400
    rng = np.random.default_rng(0)
    system = System.from_arrays(rng.normal(size=(30, K)), np.column_stack([np.ones(30), rng.normal(size=(30, 2))]))
    free = free_coefficients(system.design, read_hypotheses(system.design, ["*:x2 = 0", "y3:x0 = y4:x0"]))
    assert (free == 2).all()


def test_files_need_no_more_than_their_restrictions(tmp_path: Any) -> None:
    made = LowRankGLS(1, restrictions=["y0:x1 = y1:x1", "y3:x1 = 0"]).fit(DATA.system()).result_
    made.to_zarr(tmp_path / "fit")
    back = Fit.from_zarr(tmp_path / "fit")
    np.testing.assert_array_equal(back.pvalues, made.pvalues)
    np.testing.assert_array_equal(back.adj_r2, made.adj_r2)
    np.testing.assert_array_equal(back.cov("classical", debiased=True), made.cov("classical", debiased=True))
