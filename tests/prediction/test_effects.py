"""Intervals and likelihoods of rows of groups whose effects were absorbed are those of a fit with dummies."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest

from lrgls_dask import Fit, System
from support.absorbed import fitted, grouped

DATA = grouped()
ENGINES = ("compress", "stream")
LABELS = (("firm",), ("firm", "year"), ("year", "firm", "kind"))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["mean", "observation"])
@pytest.mark.parametrize(
    "options", [{"rank": 1}, {"algorithm": "fgls", "debiased": True}, {"algorithm": "ols"}], ids=str
)
def test_intervals_of_one_label(engine: Any, weighted: bool, kind: Any, options: dict[str, Any]) -> None:
    given = {"weights": DATA.weights} if weighted else {}
    system, dummies = DATA.system("firm", **given), DATA.with_dummies("firm", **given)
    found = fitted(system, engine=engine, **options).predict(system, interval=0.9, kind=kind)
    wanted = fitted(dummies, **options).predict(dummies, interval=0.9, kind=kind)
    for name in ("predicted", "std_error", "lower", "upper"):
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-7, atol=1e-8, err_msg=name)


def test_intervals_where_equations_differ_in_their_regressors() -> None:
    incidence = np.array([[1, 1, 0, 1, 0, 1], [1, 0, 1, 1, 1, 1], [0, 1, 1, 1, 0, 1]], dtype=bool)
    dummies = DATA.dummies("firm")
    every = np.vstack([incidence, np.ones((dummies.shape[1], 6), dtype=bool)])
    one = System.from_arrays(DATA.Y, DATA.X, incidence=incidence, absorb=DATA.firm)
    many = System.from_arrays(DATA.Y, np.hstack([DATA.X, dummies]), incidence=every)
    found, wanted = (fitted(each).predict(each, interval=0.95) for each in (one, many))
    np.testing.assert_allclose(found["std_error"], wanted["std_error"], rtol=1e-6)


def new_rows(names: tuple[str, ...]) -> tuple[System, System, np.ndarray]:
    """Other rows of groups that are known, some of them, and in another order; and the same with dummies."""
    rng = np.random.default_rng(5)
    rows = rng.permutation(np.flatnonzero(DATA.firm < "f006"))[:40]
    X, Y = DATA.X[rows] + rng.normal(size=(40, 3)), DATA.Y[rows] + rng.normal(size=(40, 6))
    labels = {name: values[rows] for name, values in DATA.labels(*names).items()}
    dummies = System.from_arrays(Y, np.hstack([X, DATA.dummies(*names)[rows]]))
    return System.from_arrays(Y, X, absorb=labels), dummies, rows


@pytest.mark.parametrize("names", LABELS)
def test_the_likelihood_of_other_rows_of_known_groups(names: tuple[str, ...]) -> None:
    fit, of_dummies = fitted(DATA.system(*names)), fitted(DATA.with_dummies(*names))
    system, dummies, _ = new_rows(names)
    wanted = of_dummies.score(dummies)
    np.testing.assert_allclose(fit.score(system), wanted, rtol=1e-9)
    np.testing.assert_allclose(fit.score(DATA.system(*names)), fit.loglik / 240, rtol=1e-12)
    residuals = np.asarray(fit.residuals(system))
    sigma = np.asarray(fit.sigma())
    apart = np.linalg.slogdet(2 * np.pi * sigma)[1] + np.einsum(
        "ij,jk,ik->i", residuals, np.linalg.inv(sigma), residuals
    )
    np.testing.assert_allclose(fit.score(system), -0.5 * apart.mean(), rtol=1e-10)


def test_few_rows_and_one_group_have_a_likelihood_and_intervals(tmp_path: Any) -> None:
    fitted(DATA.system("firm")).to_zarr(tmp_path / "fit.zarr")
    fit, of_dummies = Fit.from_zarr(tmp_path / "fit.zarr"), fitted(DATA.with_dummies("firm"))
    system, dummies, rows = new_rows(("firm",))
    found, wanted = fit.predict(system, interval=0.5), of_dummies.predict(dummies, interval=0.5)
    np.testing.assert_allclose(found["std_error"], wanted["std_error"], rtol=1e-7)
    one = System.from_arrays(DATA.Y[rows[:1]], DATA.X[rows[:1]], absorb={"firm": DATA.firm[rows[:1]]})
    alone = System.from_arrays(DATA.Y[rows[:1]], np.hstack([DATA.X, DATA.dummies("firm")])[rows[:1]])
    np.testing.assert_allclose(fit.score(one), of_dummies.score(alone), rtol=1e-9)


def test_groups_that_were_not_fitted_are_named() -> None:
    fit = fitted(DATA.system("firm", "year"))
    firm = np.where(DATA.firm == "f002", "another", DATA.firm)
    system = System.from_arrays(DATA.Y, DATA.X, absorb={"firm": firm, "year": DATA.year})
    with pytest.raises(ValueError, match="no effects of 'another' of 'firm'"):
        fit.score(system)
    one = fitted(DATA.system("firm"))
    found = one.predict(System.from_arrays(DATA.Y, DATA.X, absorb={"firm": firm}), interval=0.9)
    for name in ("predicted", "std_error"):
        np.testing.assert_array_equal(np.isnan(found[name].values).all(axis=1), firm == "another")


def test_a_group_without_a_fitted_row_has_no_effect() -> None:
    Y = DATA.Y.copy()
    Y[DATA.firm == "f003", 0] = np.nan
    fit = fitted(System.from_arrays(Y, DATA.X, absorb={"firm": DATA.firm}), missing="drop")
    with pytest.raises(ValueError, match="no effects of 'f003' of 'firm'"):
        fit.score(DATA.system("firm"))
    found = fit.predict(DATA.system("firm"), interval=0.9)
    assert np.isnan(found["std_error"].values[DATA.firm == "f003"]).all()


def test_rows_in_chunks() -> None:
    fit = fitted(DATA.system("firm"))
    cut = System.from_arrays(
        *(da.from_array(values, chunks=(70, -1)) for values in (DATA.Y, DATA.X)), absorb=DATA.labels("firm")
    )
    np.testing.assert_allclose(fit.score(cut), fit.score(DATA.system("firm")), rtol=1e-12)
    found, wanted = (fit.predict(each, interval=0.9)["upper"].values for each in (cut, DATA.system("firm")))
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
