"""Roots of cross-products: what a block of fewer rows than columns is made, and sums of such."""

from __future__ import annotations

import numpy as np
import pytest

from lrgls_dask import LowRankGLS, System
from lrgls_dask.rows.block import Block
from lrgls_dask.rows.kernels import root_kernel
from lrgls_dask.rows.moments import reduced

ENGINES = ("compress", "stream")
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("n_x", [0, 1, 5, 12, 40])
@pytest.mark.parametrize("n", [1, 9, 39, 40, 41, 90])
def test_as_few_rows_say_the_same(n: int, n_x: int) -> None:
    rows = RNG.normal(size=(n, 40))
    root = reduced(rows, n_x)
    assert root.shape == (min(n, 40), 40)
    np.testing.assert_allclose(root.T @ root, rows.T @ rows, atol=1e-12 * n)
    assert not root[n_x:, :n_x].any()


@pytest.mark.parametrize("collinear", [False, True])
@pytest.mark.parametrize("cuts", [[50], [20, 50], [3, 4, 30, 50]])
def test_blocks_add_up_to_the_centred_products_of_all_rows(cuts: list[int], collinear: bool) -> None:
    X, Y = RNG.normal(size=(50, 6)), 3.0 + RNG.normal(size=(50, 70))
    X[:, 0] = 1.0
    if collinear:
        X[:, 5] = X[:, 4]
    parts = [root_kernel(Block(a, (X[a:b],), (Y[a:b],), None)) for a, b in zip([0, *cuts], cuts, strict=False)]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    both = np.hstack([X, Y])
    np.testing.assert_allclose(total.head.mean, both.mean(axis=0), rtol=1e-13)
    centred = both - both.mean(axis=0)
    np.testing.assert_allclose(total.root.T @ total.root, centred.T @ centred, atol=1e-11)
    assert not total.root[6:, :6].any()


def test_streamed_rows_fewer_than_regressors_stay_rows_for_standard_errors() -> None:
    """40 rows, 60 regressors of 20 equations: the same standard errors as from the compressed rows, whose sum would
    have rank 40."""
    X = RNG.normal(size=(40, 20, 3))
    Y = RNG.normal(size=(40, 2)) @ RNG.normal(size=(2, 20)) + RNG.normal(size=(40, 20))
    found = [LowRankGLS(1, engine=e, rel_tol=1e-12).fit(System.from_arrays(Y, X)).result_ for e in ENGINES]
    np.testing.assert_allclose(found[1].std_errors, found[0].std_errors, rtol=1e-6)
    kept = found[1].evidence.x_rows(found[1].estimated)
    assert kept.shape == (41, 60)
    assert np.linalg.matrix_rank(kept) == 40
    np.testing.assert_allclose(kept.T @ kept, X.reshape(40, 60).T @ X.reshape(40, 60), atol=1e-10)
