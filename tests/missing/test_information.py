"""The information of coefficients by pairs of equations and of shared columns, against products of all columns."""

from __future__ import annotations

import numpy as np
import pytest

from lrgls_dask import System
from lrgls_dask.missing import information as incomplete
from lrgls_dask.missing.information import PIECE_ROWS
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.rows.meter import Meter
from lrgls_dask.sigma.full import FullSigma
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.sigma.lowrank import LowRank
from support.incomplete import dense_information, with_holes
from support.systems import simulate

BOTH = pytest.mark.parametrize("most", [None, 0], ids=["patterns", "streamed"])
K = 6


def sigmas() -> dict[str, Sigma]:
    rng = np.random.default_rng(2)
    root = rng.normal(size=(K, 2 * K))
    return {
        "lowrank": LowRank(rng.normal(size=(K, 2)), rng.uniform(0.5, 2.0, K)),
        "diagonal": LowRank(np.zeros((K, 0)), rng.uniform(0.5, 2.0, K)),
        "full": FullSigma(root @ root.T / (2 * K)),
    }


def of_problem(data: object, most: int | None) -> Incomplete:
    return Incomplete(data.system().rows, lam_B=0.0, meter=Meter(), most_patterns=most)  # type: ignore[attr-defined]


@BOTH
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("name", sigmas())
def test_both_ways_agree(name: str, weighted: bool, most: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    data = with_holes(simulate("shared", n=3 * PIECE_ROWS[1] + 7, weighted=weighted, unit=30.0), n_patterns=9)
    data.X[:, data.columns[0][-1]] += 1e4
    problem, sigma = of_problem(data, most), sigmas()[name]
    shared = problem.information(sigma)
    monkeypatch.setattr(incomplete, "shared_columns", lambda _: None)
    other = problem.information(sigma)
    size = np.sqrt(other.diagonal())
    assert np.abs((shared - other) / np.outer(size, size)).max() < 1e-11
    assert np.array_equal(shared, shared.T)


@BOTH
@pytest.mark.parametrize("name", sigmas())
def test_columns_that_nearly_depend_keep_their_digits(name: str, most: int | None) -> None:
    data = with_holes(simulate("shared", n=120), n_patterns=9)
    first, second = data.columns[0][-2:]
    data.X[:, second] = data.X[:, first] + 1e-5 * data.X[:, second]
    problem, sigma = of_problem(data, most), sigmas()[name]
    cov = np.linalg.inv(dense_information(data, sigma.rescaled(problem.whitened.y_scale).dense()))
    sd = np.sqrt(cov.diagonal())
    mine = problem.covariance(np.linalg.inv(problem.information(sigma)))
    assert np.abs((mine - cov) / np.outer(sd, sd)).max() < 1e-4  # the dense inverse has lost ten digits itself


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_rows_that_miss_little_half_or_nearly_all(share: float) -> None:
    """One by one what a row misses, one by one what it shows, and all pairs at once."""
    rng = np.random.default_rng(3)
    n, K, q = 400, 15, 3
    X, Y = rng.normal(size=(n, q)), rng.normal(size=(n, K))
    Y[rng.random(Y.shape) < share] = np.nan
    problem = Incomplete(System.from_arrays(Y, X).rows, lam_B=0.0, meter=Meter(), most_patterns=0)
    for sigma in (LowRank(rng.normal(size=(K, 3)), rng.uniform(0.5, 2.0, K)), FullSigma(np.eye(K) + 0.5)):
        maps, expected = [problem.maps[j] for j in range(K)], np.zeros((K, q, K, q))
        for x, y in zip(X - problem.origin[:q], Y, strict=True):
            o = np.flatnonzero(~np.isnan(y))
            z = np.array([x @ maps[j] + problem.ends[j] for j in o]).reshape(len(o), q)
            between = np.linalg.inv(sigma.dense()[np.ix_(o, o)])
            expected[np.ix_(o, range(q), o, range(q))] += np.einsum("jl,ja,lb->jalb", between, z, z)
        found, order = problem.information(sigma), problem.order
        np.testing.assert_allclose(found, expected.reshape(K * q, K * q)[np.ix_(order, order)], atol=1e-10)


@pytest.mark.parametrize(("floor", "scale"), [(1e-8, 1.0), (1.0, 1e6)], ids=["all factor", "small regressors"])
def test_what_is_taken_out_of_sums_leaves_digits(floor: float, scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """An equation that factors are nearly all of, and one that is shown only where regressors are small."""
    rng = np.random.default_rng(4)
    n, K = 600, 12
    x = np.where(np.arange(n) < n // 2, 1.0, scale) * rng.normal(size=n)
    Y = rng.normal(size=(n, K))
    Y[rng.random(Y.shape) < 0.02] = np.nan
    if scale > 1.0:
        Y[n // 2 :, 0] = np.nan
    rows = System.from_arrays(Y, np.column_stack([np.ones(n), x])).rows
    problem = Incomplete(rows, lam_B=0.0, meter=Meter(), most_patterns=0)
    sigma = LowRank(rng.normal(size=(K, 1)), np.r_[floor, np.ones(K - 1)])
    found = problem.information(sigma)
    monkeypatch.setattr(incomplete, "shared_columns", lambda _: None)
    by_row = problem.information(sigma)
    errors = [np.sqrt(np.linalg.inv(each).diagonal()) for each in (found, by_row)]
    np.testing.assert_allclose(*errors, rtol=1e-6)


def test_shared_columns_take_the_short_way_and_own_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    found = incomplete.shared_columns

    def watched(params: object) -> object:
        basis = found(params)  # type: ignore[arg-type]
        asked.append(basis is not None)
        return basis

    monkeypatch.setattr(incomplete, "shared_columns", watched)
    for kind in ("shared", "own"):
        of_problem(with_holes(simulate(kind, n=90), n_patterns=9), 0).information(sigmas()["lowrank"])
    assert asked == [True, False]
