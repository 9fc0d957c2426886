"""Factor scores against their textbook formulas with explicit inverses, and written to zarr."""

from __future__ import annotations

import dataclasses
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from lrgls_dask import Fit, LowRankGLS, System
from lrgls_dask.sigma.lowrank import LowRank
from support.fits import fit, remade
from support.systems import dask_rows, simulate, zarr_rows

pytestmark = pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic variance on d_floor")

NEW = simulate("mixed", n=70, seed=9, weighted=True)


@pytest.fixture(scope="module")
def found() -> Fit:
    return fit(simulate("mixed", n=150).system())


@pytest.mark.parametrize("method", ["regression", "bartlett"])
@pytest.mark.parametrize("wrap", [np.asarray, dask_rows((1, 40, 29)), zarr_rows(13)], ids=["numpy", "ragged", "zarr"])
@pytest.mark.usefixtures("every_chunk_a_block")
def test_scores_are_the_textbook_ones(found: Fit, wrap: Any, method: Any, tmp_path: Any) -> None:
    scores = found.factor_scores(NEW.system(wrap), method=method)
    F, D = found.loadings.values, np.diag(found.idio_var.values)
    if method == "regression":
        A = F.T @ np.linalg.inv(F @ F.T + D)
    else:
        A = np.linalg.inv(F.T @ np.linalg.inv(D) @ F) @ F.T @ np.linalg.inv(D)
    expected = (A @ (NEW.dense().residuals(found.params.values) * np.sqrt(NEW.weights)[:, None]).T).T
    assert isinstance(scores.data, da.Array) and scores.dims == ("obs", "factor")
    assert scores["factor"].values.tolist() == [1, 2]
    np.testing.assert_allclose(scores.values, expected, rtol=1e-9, atol=1e-11)
    scores.to_dataset(name="scores").to_zarr(tmp_path / "s.zarr", zarr_format=2)
    np.testing.assert_array_equal(xr.open_zarr(tmp_path / "s.zarr")["scores"], scores.values)


def test_what_each_method_promises() -> None:
    """Bartlett's are unbiased given the factors, Thomson's have the least error and are shrunken for it."""
    rng = np.random.default_rng(1)
    n, F, sd = 20_000, rng.normal(size=(6, 2)), rng.uniform(0.5, 1.0, size=6)
    factors = rng.normal(size=(n, 2))
    Y = 3.0 + factors @ F.T + sd * rng.normal(size=(n, 6))
    system = System.from_arrays(Y, np.ones((n, 1)))
    made = fit(system)
    turn = np.linalg.lstsq(F, made.loadings.values, rcond=None)[0]  # the stated normalisation rotates
    factors = factors @ turn
    for method, slope in (("bartlett", np.eye(2)), ("regression", None)):
        scores = made.factor_scores(system, method=method).values
        on_factors = np.linalg.lstsq(factors, scores, rcond=None)[0]
        back = np.linalg.lstsq(scores, factors, rcond=None)[0]
        np.testing.assert_allclose(on_factors if slope is not None else back, np.eye(2), atol=0.05)
    assert np.linalg.norm(on_factors) < np.linalg.norm(np.eye(2)) - 0.02  # shrunken


def test_a_row_with_nan_has_no_scores(found: Fit) -> None:
    Y = NEW.Y.copy()
    Y[4, 1] = np.nan
    scores = found.factor_scores(dataclasses.replace(NEW, Y=Y).system())
    assert scores.isnull().any("factor").values.nonzero()[0].tolist() == [4]


def test_scores_of_regressors_and_responses_apart(found: Fit) -> None:
    plain = dataclasses.replace(NEW, weights=None)
    np.testing.assert_allclose(found.factor_scores(NEW.X, NEW.Y), found.factor_scores(plain.system()), rtol=1e-12)


def test_what_scores_refuse(found: Fit) -> None:
    none = LowRankGLS(0).fit(NEW.system()).result_
    with pytest.raises(ValueError, match="the fit has no factors"):
        none.factor_scores(NEW.system())
    with pytest.raises(ValueError, match="method must be 'regression' or 'bartlett'; got 'pca'"):
        found.factor_scores(NEW.system(), method="pca")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="factor scores needs responses"):
        found.factor_scores(NEW.X)
    F = found.covariance.F.copy()
    F[:, 1] = 0.0
    empty = remade(found, covariance=LowRank(F, found.covariance.d.copy()))
    with pytest.raises(ValueError, match="2 factors that differ, but factor 2 has no loadings"):
        empty.factor_scores(NEW.system(), method="bartlett")
    assert (empty.factor_scores(NEW.system()).values[:, 1] == 0).all()
