"""Rows with holes at any Sigma: likelihood, gradients, expected products, information, row by row from the matrix."""

from __future__ import annotations

import numpy as np
import pytest

from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.rows.meter import Meter
from lrgls_dask.sigma.full import FullSigma
from support.incomplete import dense_information, dense_loglik, with_holes
from support.systems import simulate

BOTH = pytest.mark.parametrize("most", [None, 0], ids=["patterns", "streamed"])
K = 6


def some_sigma(seed: int = 7) -> FullSigma:
    root = np.random.default_rng(seed).normal(size=(K, 2 * K))
    return FullSigma(root @ root.T / (2 * K))


@BOTH
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("kind", ["own", "shared", "mixed"])
def test_likelihood_and_information_as_row_by_row(kind: str, weighted: bool, most: int | None) -> None:
    data = with_holes(simulate(kind, n=90, weighted=weighted, unit=30.0), n_patterns=9)
    if weighted:
        data.weights[5:9] = 0.0
    data.X[:, data.columns[0][-1]] += 1e4  # a level that sums must not lose digits to
    problem = Incomplete(data.system().rows, lam_B=0.0, meter=Meter(), most_patterns=most)
    assert problem.restarts_are_free == (most is None)
    c = problem.start() + np.random.default_rng(3).normal(size=problem.design.n_coefficients)
    sigma = some_sigma()
    b, in_units = problem.coefficients(c), sigma.rescaled(problem.whitened.y_scale).dense()
    (found,) = problem.expected(c, sigma)
    loglik = -problem.n_obs * (found.nll + problem.nll_offset)
    np.testing.assert_allclose(loglik, dense_loglik(data, b, in_units), rtol=1e-11)
    cov = np.linalg.inv(dense_information(data, in_units))
    sd = np.sqrt(cov.diagonal())
    mine = problem.covariance(np.linalg.inv(problem.information(sigma)))
    assert np.abs((mine - cov) / np.outer(sd, sd)).max() < 1e-6
    p = np.random.default_rng(4).normal(size=len(c))
    product = problem.information(sigma) @ p
    np.testing.assert_allclose(problem.general_image(p, sigma), product, rtol=1e-7, atol=1e-7 * np.abs(product).max())


@BOTH
def test_gradients_by_finite_differences(most: int | None) -> None:
    data = with_holes(simulate("mixed", n=80, weighted=True))
    problem = Incomplete(data.system().rows, lam_B=0.0, meter=Meter(), most_patterns=most)
    rng, h = np.random.default_rng(4), 1e-5
    c, sigma = problem.start() + rng.normal(size=problem.design.n_coefficients), some_sigma()
    (here,) = problem.expected(c, sigma)
    Q = sigma.precision()
    by_sigma = 0.5 * Q @ (sigma.matrix - here.S) @ Q
    for _ in range(3):
        dc, move = rng.normal(size=c.shape), rng.normal(size=(K, K))
        move += move.T
        up, down = (problem.expected(c + s * h * dc, FullSigma(sigma.matrix + s * h * move))[0].nll for s in (1, -1))
        slope = -here.gradient @ dc / problem.n_obs + float(np.sum(by_sigma * move))
        np.testing.assert_allclose((up - down) / (2 * h), slope, rtol=1e-6)
