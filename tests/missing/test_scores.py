"""Factor scores from what a row shows, and what else a fit with holes says of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lrgls_dask import Fit
from support.fits import fit
from support.incomplete import with_holes
from support.systems import Data, dask_rows, simulate


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "weighted"])
def made(request: Any) -> tuple[Data, Fit]:
    data = with_holes(simulate("mixed", n=240, weighted=request.param), n_patterns=7)
    return data, fit(data.system(), missing="em")


def residuals(found: Fit, data: Data) -> np.ndarray:
    b = np.split(found.params.values, found.design.offsets[1:-1])
    root = np.ones(len(data.Y)) if data.weights is None else np.sqrt(data.weights)
    return (data.Y - np.column_stack([X @ own for X, own in zip(data.Xs, b, strict=True)])) * root[:, None]


@pytest.mark.parametrize("method", ["regression", "bartlett"])
def test_scores_are_of_what_a_row_shows(made: tuple[Data, Fit], method: Any) -> None:
    data, found = made
    scores = found.factor_scores(data.system(dask_rows(70)), method=method).values
    F, d, sigma = found.loadings.values, found.idio_var.values, found.sigma().values
    for got, r in zip(scores, residuals(found, data), strict=True):
        o = np.flatnonzero(~np.isnan(r))
        if method == "regression":
            expected = F[o].T @ np.linalg.inv(sigma[np.ix_(o, o)]) @ r[o]
        elif len(o) < 2:
            expected = np.full(2, np.nan)  # two factors, and one response
        else:
            half = F[o] / d[o, None]
            expected = np.linalg.solve(F[o].T @ half, half.T @ r[o])
        np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-10)
    assert np.isnan(scores[1]).all() == (method == "bartlett")  # the row that shows nothing


def test_a_complete_row_scores_as_in_a_complete_fit(made: tuple[Data, Fit]) -> None:
    data, found = made
    full = np.flatnonzero(~np.isnan(data.Y).any(axis=1))
    scores = found.factor_scores(data.system()).values[full]
    weights = np.linalg.inv(found.sigma().values) @ found.loadings.values
    np.testing.assert_allclose(scores, residuals(found, data)[full] @ weights, rtol=1e-8, atol=1e-10)


def test_fits_of_complete_rows_leave_rows_with_holes_without_scores(made: tuple[Data, Fit]) -> None:
    data, _ = made
    found = fit(simulate("mixed", n=240).system())
    scores = found.factor_scores(data.system()).values
    np.testing.assert_array_equal(np.isnan(scores).any(axis=1), np.isnan(data.Y).any(axis=1))
