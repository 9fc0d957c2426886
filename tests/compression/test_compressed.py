"""q + K + 1 rows that stand for N: exact, additive, whatever the route; kernels add like a monoid."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrgls_dask import CompressedSystem, System
from lrgls_dask.compression.compressed import Compressed, compress_rows
from lrgls_dask.compression.parts import compress_by
from lrgls_dask.compression.roots import root_of
from lrgls_dask.plan.keeping_x import FACTORED
from lrgls_dask.rows.block import Block
from lrgls_dask.rows.kernels import gram_kernel, root_kernel
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.stream_kernels import (
    StreamParams,
    design_kernel,
    direction_kernel,
    products_kernel,
    residual_kernel,
)
from lrgls_dask.rows.tiles import Tiles
from support.fits import assert_params_close, by_gram, fit
from support.systems import Data, dask_rows, simulate

pytestmark = pytest.mark.usefixtures("small_blocks")

ROUTES = ["gram", "qr"]
DATA = simulate("mixed", n=150, weighted=True)


def moments(made: Compressed) -> np.ndarray:
    """[X Y]'[X Y] with weights, from what is kept."""
    top = np.sqrt(made.head.weight) * made.head.mean
    return made.root.T @ made.root + np.outer(top, top)


def exact(data: Data) -> np.ndarray:
    Z = np.column_stack([data.X, data.Y])
    return Z.T @ (Z if data.weights is None else data.weights[:, None] * Z)


def assert_same_moments(found: np.ndarray, expected: np.ndarray, rtol: float = 1e-13) -> None:
    size = np.sqrt(np.outer(expected.diagonal(), expected.diagonal()))
    assert np.abs(found - expected).max() < rtol * size.max()
    assert (np.abs(found - expected) <= 10 * rtol * np.where(size > 0, size, 1.0)).all()


@pytest.mark.parametrize("wrap", [np.asarray, dask_rows(7)], ids=["numpy", "dask"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("route", ROUTES)
def test_rows_keep_the_cross_products(route: Any, weighted: bool, wrap: Any) -> None:
    data = DATA if weighted else replace(DATA, weights=None)
    made = compress_rows(data.system(wrap).rows, route=route, meter=Meter())
    assert_same_moments(moments(made), exact(data))
    assert made.route == route
    assert made.n_obs == 150
    assert made.root.shape[0] <= made.root.shape[1] == 14
    assert not made.root[8:, :8].any()  # X alone spans the first rows
    np.testing.assert_allclose(made.head.log_weight, np.log(data.weights).sum() if weighted else 0.0, rtol=1e-13)


@pytest.mark.parametrize("route", ROUTES)
def test_large_means_do_not_cancel(route: Any) -> None:
    data = replace(DATA, weights=None, X=DATA.X + 1e8, Y=DATA.Y - 3e9)
    made = compress_rows(data.system(dask_rows(10)).rows, route=route, meter=Meter())
    Z = np.column_stack([data.X, data.Y])
    centred = Z - Z.mean(axis=0)
    assert_same_moments(made.root.T @ made.root, centred.T @ centred, 1e-12)


@pytest.mark.parametrize("route", ROUTES)
def test_parts_merged_are_all_at_once(route: Any) -> None:
    cuts = [slice(0, 1), slice(1, 40), slice(40, 42), slice(42, 150)]
    parts = [compress_rows(DATA.take(c).system().rows, route=route, meter=Meter()) for c in cuts[1::2]]
    whole = DATA.take(np.r_[1:40, 42:150])
    merged = parts[0].merge(parts[1])
    assert_same_moments(moments(merged), exact(whole))
    assert merged.n_obs == 147
    assert merged.route == route
    back = parts[1].merge(parts[0])
    assert_same_moments(moments(back), moments(merged))


def test_appended_rows_are_fitted_as_if_they_had_been_there() -> None:
    first, second = DATA.take(slice(0, 90)), DATA.take(slice(90, 150))
    appended = first.system().compress().append(second.system())
    assert isinstance(appended, CompressedSystem)
    assert appended.n_obs == 150
    assert_params_close(fit(appended), fit(DATA.system()), 1e-8)
    assert abs(fit(appended).loglik - fit(DATA.system()).loglik) < 1e-9


def test_only_the_same_designs_are_appended() -> None:
    whole = DATA.system().compress()
    for other in (simulate("own", n=150).system(), DATA.system(equations=list("abcdef"))):
        with pytest.raises(ValueError, match="append: the two systems differ in equations, regressors or designs"):
            whole.append(other)


@pytest.mark.parametrize("labels", [np.arange(150) % 4, np.array(list("bca") * 50), np.repeat([2.5, -1.0], [149, 1])])
def test_labels_sum_to_the_whole(labels: np.ndarray) -> None:
    by = compress_by(DATA.system(dask_rows(7)).rows, labels, meter=Meter())
    assert list(by) == sorted(set(labels.tolist()))
    for label, part in by.items():
        assert part.n_obs == (labels == label).sum()
        assert_same_moments(moments(part), exact(DATA.take(labels == label)), 1e-12)
    assert_same_moments(sum(moments(part) for part in by.values()), exact(DATA), 1e-12)


# ---------------------------------------------------------------------------------- roots


@pytest.mark.parametrize("rank", [0, 1, 3, 5, 7])
@pytest.mark.parametrize("unit", [1e-150, 1.0, 1e150])
def test_roots_of_semidefinite_matrices(rank: int, unit: float) -> None:
    A = np.random.default_rng(rank).normal(size=(rank, 7))
    if rank < 7:
        A[:, [2, 5]] = 0.0  # columns that never vary
    scale = np.resize([unit, 1.0], 7)
    root = root_of(np.tril(A.T @ A * np.outer(scale, scale)))
    np.testing.assert_allclose((root / scale).T @ (root / scale), A.T @ A, atol=1e-13 * max(rank, 1))
    assert len(root) <= 7
    assert not np.tril(root, -1).any()  # X first: the rows below the q-th hold no X, whatever q is


def test_roots_of_nearly_singular_matrices_are_finite() -> None:
    A = np.random.default_rng(0).normal(size=(30, 6))
    A[:, 4] = A[:, 0] + 1e-9 * A[:, 1]
    root = root_of(np.tril(A.T @ A))
    assert np.isfinite(root).all()
    np.testing.assert_allclose(root.T @ root, A.T @ A, rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------------------------- the automatic route


def tell_apart(gap: float, monkeypatch: pytest.MonkeyPatch) -> tuple[str, int]:
    """Route and passes for data too long to spend a QR on without need, two columns of which nearly agree."""
    monkeypatch.setattr("lrgls_dask.compression.compressed.SMALL_FLOPS", 0)
    rng = np.random.default_rng(1)
    X = np.column_stack([np.ones(150), rng.normal(size=(150, 2))])
    X[:, 2] = X[:, 1] + gap * X[:, 2]
    meter = Meter()
    made = compress_rows(System.from_arrays(rng.normal(size=(150, 2)), X).rows, meter=meter)
    return made.route, meter.passes


def test_digits_are_not_lost_to_near_collinearity(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tell_apart(1.0, monkeypatch) == ("gram", 1)
    assert tell_apart(1e-5, monkeypatch) == ("qr", 2)


def test_digits_are_not_lost_to_a_close_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrgls_dask.compression.compressed.SMALL_FLOPS", 0)
    X = DATA.X[:, :3]
    Y = X @ np.ones((3, 2)) + 1e-5 * DATA.Y[:, :2]
    system = System.from_arrays(Y, X)
    assert compress_rows(system.rows, meter=Meter()).route == "qr"
    found = fit(system, rank=0)
    np.testing.assert_allclose(
        found.idio_var.values, Data("shared", Y, X, (np.arange(3),) * 2).dense().s ** 2, rtol=1e-8
    )


# ---------------------------------------------------------------------------------- kernels

SIGMA = fit(DATA.system()).covariance
TILES = Tiles.of(DATA.system().design.batches)
PARAMS = StreamParams(
    tiles=TILES,
    anchor=np.ones(14),
    offset=np.full(14, 0.25),
    scale=np.linspace(0.5, 2.0, 6),
    coefficients=np.full(len(TILES.batches.places), 0.3),
    direction=TILES.batches.places / 7.0,
    sigma=SIGMA,
    products=np.linspace(-1.0, 1.0, 12).reshape(6, 2),
    dense=True,
    squares=True,
)
KERNELS = {
    "gram": (gram_kernel, None),
    "root": (root_kernel, None),
    "design": (design_kernel, TILES),
    "residual": (residual_kernel, PARAMS),
    "products": (products_kernel, PARAMS),
    "direction": (direction_kernel, PARAMS),
}


def numbers(result: Any) -> np.ndarray:
    """All that a kernel returns, roots as cross-products and means as means: what must not depend on the cut."""
    parts: list[np.ndarray] = []
    for name, value in vars(result).items():
        if name == "head":
            parts += [np.array([value.n_rows, value.weight, value.log_weight]), value.mean]
        elif name == "root":
            parts.append((value.T @ value).ravel())
        elif name == "cross" and not np.allclose(value, value.T):
            parts.append(np.tril(value).ravel())
        elif name != "batches":
            parts += [np.ravel(v) for v in (value if isinstance(value, tuple) else (value,))]
    return np.concatenate(parts)


def block(rows: slice, *, weighted: bool = True) -> Block:
    weights = DATA.weights[rows] if weighted else None
    return Block(rows.start, (DATA.X[rows],), (DATA.Y[rows],), weights)


@settings(deadline=None, max_examples=60)
@given(name=st.sampled_from(sorted(KERNELS)), cuts=st.sets(st.integers(1, 149), max_size=6), weighted=st.booleans())
def test_kernels_add_to_the_same_sum_over_any_partition(name: str, cuts: set[int], weighted: bool) -> None:
    kernel, params = KERNELS[name]
    whole = numbers(kernel(block(slice(0, 150), weighted=weighted), params))
    edges = [0, *sorted(cuts), 150]
    parts = [kernel(block(slice(a, b), weighted=weighted), params) for a, b in pairwise(edges)]
    left = parts[0]
    for part in parts[1:]:
        left = left + part
    right = parts[-1]
    for part in reversed(parts[:-1]):
        right = part + right
    scale = np.abs(whole).max()
    np.testing.assert_allclose(numbers(left), whole, rtol=1e-10, atol=1e-13 * scale)
    np.testing.assert_allclose(numbers(right), whole, rtol=1e-10, atol=1e-13 * scale)


@pytest.mark.parametrize("name", KERNELS)
def test_slabs_do_not_show(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, params = KERNELS[name]
    whole = numbers(kernel(block(slice(0, 150)), params))
    monkeypatch.setattr("lrgls_dask.rows.kernels.SLAB_BYTES", 1)
    monkeypatch.setattr("lrgls_dask.rows.kernels.SLAB_ROWS", 11)
    monkeypatch.setattr("lrgls_dask.rows.stream_kernels.SLAB_BYTES", 1)
    monkeypatch.setattr("lrgls_dask.rows.stream_kernels.LEAST_ROWS", 11)
    np.testing.assert_allclose(numbers(kernel(block(slice(0, 150)), params)), whole, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", ["float32", "int16", "bool", ">f8", "fortran", "strided", "columns", "read-only"])
def test_any_real_dtype_and_layout(name: str, dtype: str) -> None:
    kernel, params = KERNELS[name]
    X, Y = np.round(DATA.X), np.round(DATA.Y)
    if dtype == "bool":
        X = (X > 0).astype(float)
    expected = numbers(kernel(Block(0, (X,), (Y,), DATA.weights), params))
    x, y = (X,), (Y,)
    if dtype == "fortran":
        x, y = (np.asfortranarray(X),), (np.asfortranarray(Y),)
    elif dtype == "strided":
        x, y = (np.repeat(X, 2, axis=0)[::2],), (np.repeat(Y, 3, axis=1)[:, ::3],)
    elif dtype == "columns":
        x, y = (X[:, 0], X[:, 1:3], X[:, 3:]), tuple(Y.T)
    elif dtype == "read-only":
        x, y = (X.copy(),), (Y.copy(),)
        x[0].flags.writeable = y[0].flags.writeable = False
    else:
        x = (X.astype(dtype),)
        y = y if dtype == "bool" else (Y.astype(dtype),)
    np.testing.assert_allclose(numbers(kernel(Block(0, x, y, DATA.weights), params)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", KERNELS)
def test_rows_of_weight_zero_contribute_nothing(name: str) -> None:
    kernel, params = KERNELS[name]
    weights = DATA.weights.copy()
    weights[50:] = 0.0
    X = DATA.X.copy()
    X[60] = np.inf
    found = kernel(Block(0, (X,), (DATA.Y,), weights), params)
    np.testing.assert_allclose(numbers(found), numbers(kernel(block(slice(0, 50)), params)), rtol=1e-9, atol=1e-9)
    assert kernel(Block(0, (X,), (DATA.Y,), np.zeros(150)), params) is None


def test_routes_agree_on_what_was_compressed() -> None:
    assert_same_moments(moments(by_gram(DATA.system()).rows), moments(DATA.system().compress().rows))


@pytest.mark.parametrize(("dependent", "arrays"), [(False, 3.2), (True, FACTORED)])
def test_roots_of_large_matrices_hold_few_more(dependent: bool, arrays: float) -> None:
    """The copies that a plan prices, of nearly dependent columns too."""
    A = np.random.default_rng(0).normal(size=(320, 300))
    A[:, -1] = A[:, 0] if dependent else A[:, -1]
    tracemalloc.start()
    cross = A.T @ A
    before, _ = tracemalloc.get_traced_memory()
    root_of(cross)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 1.9 * cross.nbytes < most - before + cross.nbytes < arrays * cross.nbytes
