"""Measures of fit and tests where rows show only some equations, against explicit sums over what is observed."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lrgls_dask import Fit, LowRankGLS, System
from support.fits import fit
from support.incomplete import road_of_holes, with_holes
from support.systems import Data, dask_rows, simulate

ENGINES = pytest.mark.parametrize("engine", ["compress", "stream"])
MEASURES = ["r2", "adj_r2", "mcelroy_r2", "judge", "dhrymes", "breusch_pagan", "lr_diagonal"]
N = 150


@cache
def few(engine: str) -> tuple[Data, Fit]:
    """Rows of a few patterns with weights, and their fit."""
    data = with_holes(simulate("mixed", n=N, weighted=True, unit=20.0), n_patterns=6)
    options: dict[str, Any] = {"missing": "em", "engine": engine, "rel_tol": 1e-10}
    return data, fit(data.system(dask_rows(60)), **options)


@cache
def both_roads(engine: str) -> tuple[Fit, Fit]:
    """One fit of complete rows as such, and one that went the road of rows with holes."""
    data = simulate("mixed", n=N)
    options: dict[str, Any] = {"missing": "em", "engine": engine, "rel_tol": 1e-13}
    with road_of_holes():
        holes = fit(data.system(), **options)
    return fit(data.system()), holes


def said(made: Fit, what: str) -> np.ndarray:
    if what in ("judge", "dhrymes"):
        return np.asarray(made.system_r2().sel(measure=what))
    found = getattr(made, what)
    found = found() if callable(found) else found
    return np.asarray(found.statistic if hasattr(found, "statistic") else found)


def residuals(made: Fit, data: Data) -> np.ndarray:
    b = np.split(made.params.values, made.design.offsets[1:-1])
    return data.Y - np.column_stack([X @ own for X, own in zip(data.Xs, b, strict=True)])


def least_squares(data: Data, j: int) -> np.ndarray:
    """(N,) residuals of an equation fitted by itself to the rows that show it, times the root of the weight."""
    root = np.ones(N) if data.weights is None else np.sqrt(data.weights)
    x, y = data.Xs[j] * root[:, None], data.Y[:, j] * root
    shown = ~np.isnan(y)
    return np.asarray(y - x @ np.linalg.lstsq(x[shown], y[shown], rcond=None)[0])


@ENGINES
@pytest.mark.parametrize("what", MEASURES)
def test_without_holes_it_is_the_complete_value(what: str, engine: str) -> None:
    complete, holes = both_roads(engine)
    assert holes.cells is not None and holes.n_obs == N
    if what == "lr_diagonal" and engine == "stream":
        with pytest.raises(ValueError, match=r"which are streamed\. Fit covariance='diagonal' with missing='em' too"):
            said(holes, what)
        return
    np.testing.assert_allclose(said(holes, what), said(complete, what), rtol=1e-6)


@pytest.mark.parametrize("road", ["patterns", "stream"])
def test_with_weights_of_cells_it_is_the_complete_value(road: str) -> None:
    """One equation has no constant."""
    data = simulate("mixed", n=N, K=4, k=1, seed=3)
    data = replace(data, columns=(data.columns[0][1:], *data.columns[1:]))
    system = data.system(weights=np.random.default_rng(0).uniform(0.5, 2.0, size=(N, 4)))
    engine = "stream" if road == "stream" else "compress"
    complete = LowRankGLS(1).fit(system).result_
    with road_of_holes():
        holes = LowRankGLS(1, missing="em", engine=engine, rel_tol=1e-11).fit(system).result_
    assert (holes.evidence.rows is not None) == (road == "patterns")
    for what in MEASURES[:-1] if road == "stream" else MEASURES:
        np.testing.assert_allclose(said(holes, what), said(complete, what), rtol=1e-5, err_msg=what)


@pytest.mark.parametrize("road", ["patterns", "held", "stream"])
def test_mcelroys_r2_with_weights_of_cells_is_the_dense_sum(road: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if road == "held":
        monkeypatch.setattr("lrgls_dask.compression.patterns.MOST_PATTERNS", 1)
    engine = "stream" if road == "stream" else "compress"
    data = with_holes(simulate("mixed", n=N, K=4, k=1, seed=3), n_patterns=5)
    weights = np.random.default_rng(0).uniform(0.5, 2.0, size=(N, 4))
    weights[3, 2] = 0.0  # a response that is missing too
    made = LowRankGLS(1, missing="em", engine=engine, rel_tol=1e-10).fit(data.system(weights=weights)).result_
    assert (made.evidence.rows is not None) == (road == "patterns")
    r, sigma = residuals(made, data), made.sigma().values
    top, normal, right, total = 0.0, np.zeros((4, 4)), np.zeros(4), 0.0
    for y, e, w in zip(data.Y, r, np.sqrt(weights), strict=True):
        o = ~np.isnan(y) & (w > 0)
        Q = np.zeros((4, 4))
        Q[np.ix_(o, o)] = np.linalg.inv(sigma[np.ix_(o, o)]) * np.outer(w[o], w[o])
        y, e = np.where(o, y, 0.0), np.where(o, e, 0.0)
        top, total, normal, right = top + e @ Q @ e, total + y @ Q @ y, normal + Q, right + Q @ y
    expected = 1.0 - top / (total - right @ np.linalg.solve(normal, right))
    assert made.mcelroy_r2() == pytest.approx(expected, rel=1e-8)
    for j in range(4):
        o = ~np.isnan(data.Y[:, j]) & (weights[:, j] > 0)
        w, y = weights[o, j], data.Y[o, j]
        r2 = 1.0 - w @ r[o, j] ** 2 / (w @ (y - w @ y / w.sum()) ** 2)
        assert float(made.r2[j]) == pytest.approx(r2, rel=1e-8)


@ENGINES
def test_r2_is_of_the_rows_that_show_the_equation(engine: str) -> None:
    data, made = few(engine)
    weights, r = data.weights, residuals(made, data)
    for j in range(6):
        shown = ~np.isnan(r[:, j])
        w, y = weights[shown], data.Y[shown, j]
        total = w @ (y - w @ y / w.sum()) ** 2
        expected = 1 - w @ r[shown, j] ** 2 / total
        assert made.r2.values[j] == pytest.approx(expected, rel=1e-8)
        n, p = shown.sum(), made.design.sizes[j]
        assert made.adj_r2.values[j] == pytest.approx(1 - (1 - expected) * (n - 1) / (n - p), rel=1e-8)


@ENGINES
def test_mcelroys_r2_weighs_what_rows_show_about_constants(engine: str) -> None:
    data, made = few(engine)
    sigma, r = made.sigma().values, residuals(made, data)
    above, H, b, squares = 0.0, np.zeros((6, 6)), np.zeros(6), 0.0
    for y, e, w in zip(data.Y, r, data.weights, strict=True):
        o = np.flatnonzero(~np.isnan(y))
        inverse = w * np.linalg.inv(sigma[np.ix_(o, o)])
        above += e[o] @ inverse @ e[o]
        H[np.ix_(o, o)] += inverse
        b[o] += inverse @ y[o]
        squares += y[o] @ inverse @ y[o]
    expected = 1 - above / (squares - b @ np.linalg.solve(H, b))
    assert made.mcelroy_r2() == pytest.approx(expected, rel=1e-8)
    assert np.isnan(made.system_r2().sel(measure="berndt"))
    with pytest.raises(ValueError, match=r"do not have\. Use sigma='reported'"):
        made.mcelroy_r2("residual")


@ENGINES
def test_breusch_pagan_counts_each_pair_by_its_common_rows(engine: str) -> None:
    data, made = few(engine)
    e = np.column_stack([least_squares(data, j) for j in range(6)])
    expected = 0.0
    for j in range(6):
        for i in range(j):
            both = ~np.isnan(e[:, i]) & ~np.isnan(e[:, j])
            one, other = e[both, i], e[both, j]
            expected += both.sum() * (one @ other) ** 2 / ((one @ one) * (other @ other))
    found = made.breusch_pagan()
    assert found.statistic == pytest.approx(expected, rel=1e-8)
    assert found.df == 15


def test_pairs_that_no_row_shows_do_not_count() -> None:
    rng = np.random.default_rng(0)
    Y = rng.normal(size=(200, 4)) + rng.normal(size=(200, 1))
    Y[:100, 0] = Y[100:, 1] = np.nan
    X = np.column_stack([np.ones(200), rng.normal(size=200)])
    made = fit(System.from_arrays(Y, X), 0, missing="em")
    assert made.breusch_pagan().df == 5


def test_lr_diagonal_compares_with_every_equation_by_itself() -> None:
    data, made = few("compress")
    apart = fit(data.system(), 0, missing="em")
    assert made.lr_diagonal().statistic == pytest.approx(made.lr_test(apart).statistic, rel=1e-8)
    assert made.lr_diagonal().df == made.n_parameters - apart.n_parameters


def test_few_patterns_are_saved_with_all_that_is_said_of_them(tmp_path: Path) -> None:
    _, made = few("compress")
    made.to_zarr(tmp_path / "fit.zarr")
    opened = Fit.from_zarr(tmp_path / "fit.zarr")
    for what in (*MEASURES, "rank_test", "loadings_std_errors", "idio_var_std_errors"):
        np.testing.assert_array_equal(said(opened, what), said(made, what), err_msg=what)
    for kind in ("classical", "observed", "kackar-harville"):
        np.testing.assert_array_equal(opened.cov(kind), made.cov(kind), err_msg=kind)
    np.testing.assert_array_equal(opened.bootstrap(2, seed=1).params, made.bootstrap(2, seed=1).params)
    with pytest.raises(ValueError, match="kind='robust' needs the rows"):
        opened.cov("robust")
    again = replace(made, evidence=replace(made.evidence, rows=None))
    for what in ("mcelroy_r2", "breusch_pagan", "lr_diagonal"):
        np.testing.assert_allclose(said(again, what), said(made, what), rtol=1e-9, err_msg=what)


def test_what_reads_rows_says_so_where_there_are_none(tmp_path: Path) -> None:
    _, made = few("stream")
    made.to_zarr(tmp_path / "fit.zarr")
    opened = Fit.from_zarr(tmp_path / "fit.zarr")
    np.testing.assert_array_equal(opened.r2, made.r2)
    for what in ("mcelroy_r2", "breusch_pagan"):
        with pytest.raises(ValueError, match=f"{what} of a fit with missing responses reads the rows"):
            said(opened, what)
    with pytest.raises(ValueError, match="R2 of equations with missing responses needs sums of squares"):
        _ = replace(made, evidence=replace(made.evidence, squares=None)).r2


def test_rows_of_many_patterns_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    data, made = few("compress")
    assert made.evidence.rows is not None
    monkeypatch.setattr("lrgls_dask.missing.problem.KEPT_BYTES", 1_000)
    assert fit(data.system(), missing="em").evidence.rows is None


@pytest.mark.parametrize("bartlett", [False, True])
def test_rank_test_is_against_an_unrestricted_sigma_of_the_same_cells(bartlett: bool) -> None:
    data, made = few("compress")
    full = fit(data.system(dask_rows(60)), missing="em", rank="auto", covariance="full", rel_tol=1e-12)
    found = made.rank_test(bartlett=bartlett)
    K, k = made.n_equations, made.rank
    assert found.df == ((K - k) ** 2 - K - k) // 2
    free = made.design.n_coefficients / K
    factor = 1.0 - (free + (2 * K + 4 * k + 5) / 6) / made.n_obs if bartlett else 1.0
    assert found.statistic == pytest.approx(2 * factor * (full.loglik - made.loglik), rel=1e-5)


def test_rank_test_of_complete_rows_is_that_of_both_roads() -> None:
    complete, holes = both_roads("compress")
    assert holes.rank_test().statistic == pytest.approx(complete.rank_test().statistic, rel=1e-6)
    assert holes.rank_test(bartlett=True).statistic == pytest.approx(
        complete.rank_test(bartlett=True).statistic, rel=1e-6
    )
