"""Moments of each equation over the rows that show it, summed for many at once, against each summed by itself."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from lrgls_dask.compression.patterns import FirstParams, first_kernel
from lrgls_dask.design.design import Design
from lrgls_dask.rows import tiles
from lrgls_dask.rows.block import Block
from lrgls_dask.rows.cells import only_used

N = 61
COLUMNS: dict[str, list[Any]] = {
    "equal": [range(3 * j, 3 * j + 3) for j in range(9)],
    "mixed": [range(a, b) for a, b in pairwise(np.cumsum([0, *(1 + np.arange(9) % 3)]).tolist())],
    "shared": [range(4)] * 7,
    "two designs": [[0, 1, 2]] * 4 + [[0, 3, 1]] * 4,
    "an intercept of all": [[0, 1 + 2 * j, 2 + 2 * j] for j in range(7)],
    "subsets": [[j % 5, 5 + (j * 2) % 4] for j in range(11)],
}


def made(kind: str, weighted: bool) -> tuple[Design, Block]:
    columns = tuple(np.array(list(each)) for each in COLUMNS[kind])
    q, K = 1 + max(int(each.max()) for each in columns), len(columns)
    design = Design(tuple(range(K)), tuple(range(q)), columns, tuple(tuple(each.tolist()) for each in columns))
    rng = np.random.default_rng(1)
    X, Y = rng.normal(size=(N, q)) + 4.0, rng.normal(size=(N, K)) - 2.0
    X[:, 0] = 1.0
    Y[rng.random(Y.shape) < 0.3] = np.nan
    weights = np.where(np.arange(N) % 7 == 3, 0.0, rng.uniform(0.5, 2.0, size=N)) if weighted else None
    return design, Block(0, (X,), (Y,), weights)


@pytest.mark.parametrize("small", [False, True], ids=["whole", "small tiles"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", COLUMNS)
def test_every_equation_over_its_own_rows(
    kind: str, weighted: bool, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if small:
        for name, value in (("TILE_COLUMNS", 7), ("TILE_EQUATIONS", 3), ("DENSE_EQUATIONS", 4)):
            monkeypatch.setattr(tiles, name, value)
        monkeypatch.setattr("lrgls_dask.compression.available.PRODUCTS_AT_ONCE", 2)
        monkeypatch.setattr("lrgls_dask.rows.kernels.SLAB_BYTES", 1)
        monkeypatch.setattr("lrgls_dask.rows.kernels.SLAB_ROWS", 13)
    design, block = made(kind, weighted)
    params = FirstParams.of(design, 0, by_qr=False)
    parts = [first_kernel(block.take(slice(a, b)), params) for a, b in ((0, 20), (20, 23), (23, N))]
    for found in (first_kernel(block, params), parts[0] + parts[1] + parts[2]):
        seen = {}
        for group, moments in zip(design.groups, found.groups, strict=True):
            seen.update({int(j): moments.take(slice(i, i + 1)) for i, j in enumerate(group.equations)})
        for j, columns in enumerate(design.columns):
            y = block.y[0][:, j]
            w = np.ones(N) if block.weights is None else block.weights
            used = ~np.isnan(y) & (w > 0)
            w, both = w[used], np.column_stack([block.x[0][used][:, columns], y[used]])
            mean = w @ both / w.sum()
            assert_same(seen[j].rows, [len(w)])
            assert_same(seen[j].weight, [w.sum()])
            assert_same(seen[j].log_weight, [np.log(w).sum()])
            assert_same(seen[j].mean, [mean])
            assert_same(seen[j].cross, [(both - mean).T @ (w[:, None] * (both - mean))])
            constant = np.flatnonzero(columns == 0)
            assert not seen[j].cross[0][constant].any()  # it does not vary, to the last bit


def assert_same(found: np.ndarray, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("kind", COLUMNS)
def test_cells_that_no_equation_uses_are_cleared_together(kind: str) -> None:
    design, block = made(kind, False)
    X, Y = block.x[0], block.y[0]
    expected = X.copy()
    for each in design.users:
        rows = np.isnan(Y[:, each.equations]).all(axis=1)
        expected[np.ix_(rows, each.columns)] = 0.0
    before = X.copy()
    found = only_used(block, design.users)
    np.testing.assert_array_equal(found.x[0], expected)
    np.testing.assert_array_equal(X, before)
    in_parts = only_used(Block(0, (X[:, 0], X[:, 1:]), (Y[:, :2], Y[:, 2], Y[:, 3:]), None), design.users)
    np.testing.assert_array_equal(np.column_stack(in_parts.x), expected)
    X[:] = np.where(expected == 0.0, np.inf, X)
    assert np.isinf(only_used(block, design.users).x[0]).sum() == (expected == 0.0).sum()  # which are to be named


def test_without_responses_all_are_taken_to_be_there() -> None:
    design, block = made("equal", False)
    alone = Block(0, block.x, (), None)
    assert only_used(alone, design.users) is alone
