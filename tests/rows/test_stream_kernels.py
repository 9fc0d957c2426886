"""Kernels of many equations at once against sums written out equation by equation, whatever columns these use."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from lrgls_dask.design.design import Design
from lrgls_dask.rows import stream_kernels, tiles
from lrgls_dask.rows.block import Block
from lrgls_dask.rows.stream_kernels import (
    StreamParams,
    design_kernel,
    direction_kernel,
    products_kernel,
    residual_kernel,
)
from lrgls_dask.rows.tiles import Tiles, add_adjoint, subtract_fitted
from lrgls_dask.sigma.lowrank import LowRank

N = 57
RNG = np.random.default_rng(7)
COLUMNS: dict[str, list[Any]] = {
    "equal": [range(3 * j, 3 * j + 3) for j in range(11)],
    "mixed": [range(a, b) for a, b in pairwise(np.cumsum([0, *(1 + np.arange(11) % 4)]).tolist())],
    "shared": [range(4)] * 9,
    "subsets": [np.sort(RNG.choice(9, 3, replace=False)) for _ in range(13)],
    "scattered subsets": [RNG.choice(40, 2, replace=False) for _ in range(10)],
    "an intercept of all": [[0, 1 + 2 * j, 2 + 2 * j] for j in range(9)],
    "pairs": [[0, 1 + j // 2, 7 - j // 2] for j in range(8)],
    "backwards": [[2 * j + 1, 2 * j] for j in range(6)][::-1],
}


def design_of(columns: list[Any]) -> Design:
    """With one column more than equations use."""
    of = tuple(np.array(list(each)) for each in columns)
    q = 2 + max(int(each.max()) for each in of)
    terms = tuple(tuple(each.tolist()) for each in of)
    return Design(tuple(range(len(of))), tuple(range(q)), of, terms)


def block_of(design: Design, how: str) -> tuple[Block, np.ndarray, np.ndarray, np.ndarray]:
    """A block, and its X, Y and weights as float64."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(N, design.n_regressors)) + 5.0
    X[:, 0] = 1.0
    Y = rng.normal(size=(N, design.n_equations)) - 3.0
    weights = None
    if how == "weights":
        weights = np.where(np.arange(N) % 5 == 2, 0.0, rng.uniform(0.5, 2.0, size=N))
    if how == "float32":
        X, Y = X.astype(np.float32), Y.astype(np.float32)
    x, y = (X,), (Y,)
    if how == "columns of their own":
        x, y = (X[:, 0], X[:, 1:3], X[:, 3:]), (Y[:, :2], Y[:, 2], Y[:, 3:])
    if how == "fortran":
        x, y = (np.asfortranarray(X),), (np.asfortranarray(Y),)
    w = np.ones(N) if weights is None else weights
    return Block(100, x, y, weights), X.astype(float), Y.astype(float), w


@pytest.fixture(params=["whole", "small tiles"])
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """All in one tile, or many tiles and slabs."""
    if request.param != "whole":
        for name, value in (("TILE_COLUMNS", 7), ("TILE_EQUATIONS", 4), ("DENSE_EQUATIONS", 5)):
            monkeypatch.setattr(tiles, name, value)
        monkeypatch.setattr(stream_kernels, "SLAB_BYTES", 1)
        monkeypatch.setattr(stream_kernels, "LEAST_ROWS", 10)
    return str(request.param)


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    expected = np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max(initial=1.0))


def flat_of(design: Design, by_equation: list[np.ndarray]) -> np.ndarray:
    """Vectors of every equation in the flat order of coefficients."""
    return np.concatenate(by_equation)[design.batches.places]


HOW = ["plain", "weights", "float32", "columns of their own", "fortran"]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", COLUMNS)
def test_moments_of_every_equation(kind: str, how: str, cut: str) -> None:
    design = design_of(COLUMNS[kind])
    block, X, Y, w = block_of(design, how)
    found = design_kernel(block, Tiles.of(design.batches))
    assert found is not None
    mean = w @ np.column_stack([X, Y]) / w.sum()
    assert_same(found.head.mean, mean)
    assert (found.head.n_rows, found.head.weight) == (np.count_nonzero(w), pytest.approx(w.sum(), rel=1e-13))
    X, Y = X - mean[: X.shape[1]], Y - mean[X.shape[1] :]
    assert_same(found.yy, w @ Y**2)
    xy = flat_of(design, [X[:, c].T @ (w * y) for c, y in zip(design.columns, Y.T, strict=True)])
    assert_same(found.xy, xy)
    for members, batch in zip(design.buckets, found.xx, strict=True):
        for i, xx in zip(members, batch, strict=True):
            mine = X[:, design.groups[i].columns]
            assert_same(xx, mine.T @ (w[:, None] * mine))


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", COLUMNS)
def test_residuals_products_and_gradients(kind: str, how: str, cut: str) -> None:
    design = design_of(COLUMNS[kind])
    block, X, Y, w = block_of(design, how)
    rng, K = np.random.default_rng(11), design.n_equations
    b, p = ([rng.normal(size=len(c)) for c in design.columns] for _ in range(2))
    sigma = LowRank(rng.normal(size=(K, 2)), rng.uniform(0.5, 1.0, size=K))
    B, scale, anchor, offset = rng.normal(size=(K, 3)), rng.uniform(0.5, 2.0, size=K), 5.0, 0.125
    centre = np.full(design.n_regressors + K, anchor), np.full(design.n_regressors + K, offset)
    X, Y = X - anchor - offset, (Y - anchor - offset) / scale
    R, V = np.empty((N, K)), np.empty((N, K))
    for j, c in enumerate(design.columns):
        R[:, j] = (Y[:, j] - X[:, c] @ b[j]) * np.sqrt(w)
        V[:, j] = X[:, c] @ p[j] * np.sqrt(w)
    inverse = np.linalg.inv(sigma.dense())

    def gradient(values: np.ndarray) -> np.ndarray:
        values = (values @ inverse) * np.sqrt(w)[:, None]
        return flat_of(design, [X[:, c].T @ v for c, v in zip(design.columns, values.T, strict=True)])

    of = Tiles.of(design.batches)
    params = StreamParams(of, *centre, scale, flat_of(design, b), flat_of(design, p), sigma, B, True, True)
    residual = residual_kernel(block, params)
    assert residual is not None
    assert_same(residual.cross, R.T @ R)
    assert_same(residual.gradient, gradient(R))
    products = products_kernel(block, params)
    assert products is not None
    assert_same(products.along.T, R.T @ R @ B)
    assert_same(products.squares, np.sum(R**2, axis=0))
    assert_same(products.gradient, gradient(R))
    along = direction_kernel(block, params)
    assert along is not None
    assert_same(along.image, gradient(V))
    assert_same(along.vr, V.T @ R)
    assert_same(along.vv, V.T @ V)


@pytest.mark.parametrize("how", HOW)
def test_rows_taken_as_they_are_stored(how: str, cut: str) -> None:
    design = design_of(COLUMNS["shared"])
    block, _, Y, w = block_of(design, how)
    before, B = [each.copy() for each in block.y], np.random.default_rng(0).normal(size=(design.n_equations, 2))
    found = products_kernel(block, StreamParams(Tiles.of(design.batches), None, None, None, products=B))
    assert found is not None
    assert_same(found.along.T, Y.T @ (w[:, None] * (Y @ B)))
    for mine, was in zip(block.y, before, strict=True):
        np.testing.assert_array_equal(mine, was)


@pytest.mark.parametrize("kind", COLUMNS)
def test_rows_in_memory(kind: str, cut: str) -> None:
    design = design_of(COLUMNS[kind])
    _, X, Y, _ = block_of(design, "plain")
    b = [np.random.default_rng(j).normal(size=len(c)) for j, c in enumerate(design.columns)]
    of = Tiles.of(design.batches)
    expected = np.column_stack([X[:, c] @ each for c, each in zip(design.columns, b, strict=True)])
    residual = np.zeros_like(Y)
    subtract_fitted(residual, lambda columns: X[:, columns], flat_of(design, b), of)
    assert_same(-residual, expected)
    each = [X[:, c].T @ y for c, y in zip(design.columns, Y.T, strict=True)]
    gradient = np.zeros(design.n_coefficients)
    add_adjoint(gradient, lambda columns: X[:, columns], Y, of)
    assert_same(gradient, flat_of(design, each))


@pytest.mark.parametrize("kind", COLUMNS)
def test_moments_are_merged_as_arrays(kind: str) -> None:
    design = design_of(COLUMNS[kind])
    block, *_ = block_of(design, "weights")
    of = Tiles.of(design.batches)
    whole = design_kernel(block, of)
    parts = [design_kernel(block.take(slice(a, b)), of) for a, b in ((0, 9), (9, 10), (10, 40), (40, N))]
    total = parts[0] + parts[1]
    kept = total.xy.copy()
    again = total + parts[2] + parts[3]
    np.testing.assert_array_equal(total.xy, kept)  # a sum leaves its terms alone
    total += parts[2]
    total += parts[3]
    for found in (again, total):
        assert_same(found.head.mean, whole.head.mean)
        assert_same(found.xy, whole.xy)
        assert_same(found.yy, whole.yy)
        for mine, theirs in zip(found.xx, whole.xx, strict=True):
            assert_same(mine, theirs)
    assert len(whole.xx) == len(design.buckets) <= 4


def test_equations_are_taken_together() -> None:
    """A hundred equations of one shape are few products, not a hundred, and so are two hundred of five shapes."""
    own = design_of([range(10 * j, 10 * j + 10) for j in range(100)])
    assert len(Tiles.of(own.batches).each) == 2
    assert all(isinstance(tile.columns, slice) for tile in Tiles.of(own.batches).each)
    edges = np.cumsum([0, *(4 + np.arange(200) % 5)]).tolist()
    assert len(Tiles.of(design_of([range(a, b) for a, b in pairwise(edges)]).batches).each) <= 10
    chosen = design_of([np.sort(RNG.choice(60, 10, replace=False)) for _ in range(300)])
    assert len(Tiles.of(chosen.batches).each) == 2


def test_a_value_that_no_sum_can_use_is_found_in_any_tile(cut: str) -> None:
    design = design_of(COLUMNS["mixed"])
    _, X, Y, _ = block_of(design, "plain")
    X[40, 20] = np.nan
    with pytest.raises(Exception, match="X") as found:
        design_kernel(Block(100, (X,), (Y,), None), Tiles.of(design.batches))
    assert (found.value.array, found.value.column, found.value.row) == ("X", 20, 140)
