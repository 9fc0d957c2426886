"""Streamed fits of many equations: few passes, no array of equations by equations, the optimum of compressed rows."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from lrgls_dask import LowRankGLS, System
from lrgls_dask.plan.keeping_x import without_x
from lrgls_dask.plan.price import price
from lrgls_dask.rows.block import Block
from lrgls_dask.rows.memory import cluster_of
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.run_pass import run_pass
from lrgls_dask.rows.stream_kernels import (
    StreamParams,
    design_kernel,
    direction_kernel,
    products_kernel,
    residual_kernel,
)
from lrgls_dask.rows.tiles import Tiles
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.solve import streamed as streamed_module
from lrgls_dask.solve.in_memory import InMemory
from lrgls_dask.solve.same_columns import SameColumns, streamed
from support.fits import by_gram
from support.systems import Data, dask_rows, restrictions_of

pytestmark = pytest.mark.usefixtures("small_blocks")


def wide(kind: str, *, n: int = 400, K: int = 24, weighted: bool = False, seed: int = 5) -> Data:
    """Rows of K equations: ten regressors each of their own, as many as six to nine, or chosen from 30 of all."""
    rng = np.random.default_rng(seed)
    sizes = {"own": np.full(K, 10), "mixed": 6 + np.arange(K) % 4}.get(kind)
    if sizes is not None:
        ends = np.cumsum(sizes)
        columns = tuple(np.arange(b - s, b) for b, s in zip(ends, sizes, strict=True))
    elif kind == "chosen":
        columns = tuple(np.sort(rng.choice(30, 5, replace=False)) for _ in range(K))
    else:
        columns = (np.arange(6),) * K
    X = rng.normal(size=(n, 1 + max(int(c.max()) for c in columns)))
    X[:, [c[0] for c in columns] if kind != "chosen" else 0] = 1.0
    weights = rng.uniform(0.3, 3.0, size=n) if weighted else None
    E = rng.normal(size=(n, 2)) @ rng.normal(size=(2, K)) + rng.normal(size=(n, K)) * rng.uniform(0.5, 1.0, size=K)
    if weights is not None:
        E /= np.sqrt(weights)[:, None]
    Y = np.column_stack([X[:, c] @ rng.normal(size=len(c)) for c in columns]) + E
    return Data("shared" if kind == "shared" else "mixed", Y, X, columns, weights)


def fitted(system: System, **options: Any) -> Any:
    return LowRankGLS(2, **options).fit(system).result_


@pytest.mark.parametrize("followed", [0, np.inf], ids=["read again", "followed"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["own", "mixed", "chosen", "shared"])
def test_streamed_is_compressed(kind: str, weighted: bool, followed: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_module, "FOLLOWED", followed)
    data = wide(kind, weighted=weighted)
    whole = fitted(data.system(), engine="compress")
    found = fitted(data.system(dask_rows(37)), engine="stream", rel_tol=1e-13)
    assert abs(found.nll - whole.nll) < 1e-9
    se = whole.std_errors.values
    assert np.abs((found.params.values - whole.params.values) / se).max() < 1e-5
    np.testing.assert_allclose(found.sigma().values, whole.sigma().values, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.std_errors.values, se, rtol=1e-6)


@pytest.mark.parametrize("kind", ["own", "mixed", "chosen", "shared"])
def test_float32_rows_are_fitted_as_the_numbers_that_they_are(kind: str) -> None:
    data = wide(kind)
    X, Y = data.X.astype(np.float32), data.Y.astype(np.float32)
    single = Data(data.kind, Y, X, data.columns)
    double = Data(data.kind, Y.astype(float), X.astype(float), data.columns)
    found, whole = (fitted(each.system(dask_rows(50)), engine="stream", rel_tol=1e-11) for each in (single, double))
    np.testing.assert_allclose(found.params.values, whole.params.values, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["own", "chosen"])
def test_rows_with_holes(kind: str) -> None:
    data = wide(kind, n=500, K=8)
    data.Y[np.random.default_rng(0).random(data.Y.shape) < 0.1] = np.nan
    whole = fitted(data.system(), missing="em", rel_tol=1e-10)
    found = fitted(data.system(dask_rows(60)), missing="em", engine="stream", rel_tol=1e-10)
    assert found.n_passes > 1  # nothing was held
    assert abs(found.nll - whole.nll) < 1e-7
    assert np.abs((found.params.values - whole.params.values) / whole.std_errors.values).max() < 1e-3


# ---------------------------------------------------------------------------------- all designs at once


@pytest.mark.parametrize("level", [0.0, 1e7], ids=["plain", "far from zero"])
@pytest.mark.parametrize("lam_B", [0.0, 3.0])
@pytest.mark.parametrize("kind", ["own", "mixed", "chosen", "shared"])
def test_coordinates_of_all_designs_are_those_of_each(kind: str, lam_B: float, level: float) -> None:
    data = wide(kind)
    data.X[:, -1] += level
    made = streamed(data.system(dask_rows(50)).rows, lam_B=lam_B, meter=Meter())
    rng, whitened, at = np.random.default_rng(0), made.whitened, made.coordinates
    c = rng.normal(size=made.design.n_coefficients)
    raw = [batch.coefficients(part) for batch, part in zip(whitened.batches, at.split(c), strict=True)]
    slopes = [rng.normal(size=part.shape) for part in raw]
    moved = [batch.adjoint(part) for batch, part in zip(whitened.batches, slopes, strict=True)]
    for members, *of in zip(made.design.buckets, at.split(c), raw, slopes, moved, strict=True):
        for i, mine, b, slope, image in zip(members, *of, strict=True):
            group = whitened.groups[i]
            expected = group.coefficients(mine)
            np.testing.assert_allclose(b, expected, rtol=1e-12, atol=1e-13 * np.abs(expected).max())
            expected = group.adjoint(slope)
            np.testing.assert_allclose(image, expected, rtol=1e-12, atol=1e-13 * np.abs(expected).max())


@pytest.mark.parametrize("what", ["a constant", "a copy", "nothing"])
def test_roots_of_all_designs(what: str) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(7, 40, 4)) * [1e-5, 1.0, 1e4, 3.0], rng.normal(size=(7, 40, 2))
    if what == "a constant":
        x[:, :, 1] = 0.0  # about its mean
        x[3, :, 2] = 0.0
    if what == "a copy":
        x[5, :, 3] = x[5, :, 1]
    xx, xy = x.transpose(0, 2, 1) @ x, x.transpose(0, 2, 1) @ y
    roots, ys = streamed_module._roots(xx, xy)
    np.testing.assert_allclose(roots.transpose(0, 2, 1) @ roots, xx, rtol=1e-10, atol=1e-12)
    for mine, of_y, of_xx, of_xy in zip(roots, ys, xx, xy, strict=True):
        size = np.sqrt(np.where(of_xx.diagonal() > 0, of_xx.diagonal(), 1.0))
        np.testing.assert_allclose((mine.T @ of_y) / size[:, None], of_xy / size[:, None], rtol=1e-9, atol=1e-9)
        assert not np.tril(mine, -1).any()


# ---------------------------------------------------------------------------------- the same columns


def problems(data: Data, **options: Any) -> tuple[SameColumns, InMemory]:
    """Of streamed rows and of compressed ones."""
    made = streamed(data.system(dask_rows(50)).rows, meter=Meter(), **options)
    assert isinstance(made, SameColumns)
    options.pop("dense", None)
    return made, InMemory(by_gram(data.system()).rows, meter=Meter(), **options)


def coordinates(problem: SameColumns | InMemory, b: np.ndarray) -> np.ndarray:
    """(P,) whitened coordinates of coefficients."""
    return problem.coordinates.flat(problem.whitened.coordinates(b))


def covariance(data: Data, b: np.ndarray) -> np.ndarray:
    """(K, K) of the residuals at coefficients b (P,), written out."""
    R = data.Y - data.X @ b.reshape(-1, data.X.shape[1]).T
    w = np.ones(len(R)) if data.weights is None else data.weights
    return R.T @ (w[:, None] * R) / len(R)


@pytest.mark.parametrize("level", [0.0, 1e4], ids=["as stored", "close"])
@pytest.mark.parametrize("weighted", [False, True])
def test_residuals_of_the_same_columns(weighted: bool, level: float) -> None:
    """At any coefficients, from one pass; `close`: Y is all level but for its errors, and no digit of these is lost."""
    data = wide("shared", weighted=weighted)
    data.Y[:] += level * data.X @ np.ones((6, 24))
    rng, made = np.random.default_rng(0), problems(data, lam_B=0.0)[0]
    best = np.linalg.lstsq(data.X, data.Y, rcond=None)[0].T.ravel()
    unit, B = made.whitened.y_scale, rng.normal(size=(24, 3))
    S = covariance(data, best + 0.1)
    found = made.residual_covariance(coordinates(made, best + 0.1)) * np.outer(unit, unit)
    np.testing.assert_allclose(found, S, rtol=1e-8 if level else 1e-11, atol=1e-8 if level else 1e-11)
    assert made.meter.passes == 2
    c = coordinates(made, best - 0.2 * rng.random(144))
    S = covariance(data, made.whitened.coefficients(made.coordinates.by_group(c)))
    products = made.products(c, B, None)
    expected = S @ (B * unit[:, None] ** -1.0)
    np.testing.assert_allclose(products.along * unit[:, None], expected, rtol=1e-6, atol=1e-8 if level else 1e-11)
    np.testing.assert_allclose(products.diagonal * unit**2, S.diagonal(), rtol=1e-8 if level else 1e-11)
    assert made.meter.passes == 3


@pytest.mark.parametrize("near", [1e-5, 2e-4], ids=["unclear", "clear"])
@pytest.mark.parametrize("lam_B", [0.0, 1e-12])
@pytest.mark.parametrize("dense", [False, True])
def test_residuals_of_columns_that_are_nearly_dependent(dense: bool, lam_B: float, near: float) -> None:
    """Y is all but loose, and its products with X say little of what lies outside X: rows are read at least squares,
    or at the coefficients that are asked of."""
    data = wide("shared")
    data.X[:, 2] = data.X[:, 1] + near * data.X[:, 2]
    data.Y[:] += 1.0 / near * (data.X[:, [2]] - data.X[:, [1]]) * np.linspace(1.0, 3.0, 24)
    best = np.linalg.lstsq(data.X, data.Y, rcond=None)[0].T.ravel()
    S, made = covariance(data, best), problems(data, lam_B=lam_B)[0]
    unit, c = made.whitened.y_scale, coordinates(made, best)
    if dense:
        found = made.residual_covariance(c) * np.outer(unit, unit)
    else:
        products = made.products(c, np.diag(unit), None)
        found = products.along * unit[:, None]
        np.testing.assert_allclose(products.diagonal * unit**2, S.diagonal(), rtol=1e-9)
    np.testing.assert_allclose(found, S, rtol=1e-9, atol=1e-9 * S.diagonal().max())
    assert made.meter.passes == 2
    assert made._is_clear == (near > 1e-4)


@pytest.mark.parametrize("lam_B", [0.0, 3.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_steps_of_the_same_columns_are_those_of_compressed_rows(weighted: bool, lam_B: float) -> None:
    data, rng = wide("shared", weighted=weighted), np.random.default_rng(0)
    sigma = LowRank(rng.normal(size=(24, 2)), rng.uniform(0.5, 1.0, size=24))
    made, whole = problems(data, lam_B=lam_B)
    at, p = ([coordinates(each, rng_values) for each in (made, whole)] for rng_values in rng.normal(size=(2, 144)))
    S = whole.residual_covariance(at[1])
    one, other = made.gls_step(at[0], sigma, S), whole.gls_step(at[1], sigma, S)
    np.testing.assert_allclose(one.gradient @ p[0], other.gradient @ p[1], rtol=1e-10)
    np.testing.assert_allclose(made.products(at[0], np.ones((24, 1)), sigma).gradient, one.gradient, rtol=1e-12)
    images = one.product(p[0], at[0]) @ p[0], other.product(p[1], at[1]) @ p[1]
    np.testing.assert_allclose(images[0], images[1], rtol=1e-11)
    assert made.meter.passes == 2
    expected = whole.residual_covariance(at[1] + p[1])
    np.testing.assert_allclose(one.finish(at[0] + p[0], (1.0,)), expected, rtol=1e-9, atol=1e-10 * np.abs(S).max())
    made.residual_covariance(at[0])
    assert made.meter.passes == 3  # another R'R reads nothing


@pytest.mark.parametrize("lam_B", [0.0, 3.0])
def test_the_same_columns_take_two_passes_whatever_the_sweeps(lam_B: float) -> None:
    data = wide("shared")
    R, r = restrictions_of(data)
    for options in ({}, {"restrictions": (R, r)}):
        found = fitted(
            data.system(dask_rows(37)), engine="stream", lam_B=lam_B, rel_tol=1e-10, max_sweeps=2000, **options
        )
        whole = fitted(data.system(), engine="compress", lam_B=lam_B, **options)
        assert found.n_passes == 2
        assert abs(found.nll - whole.nll) < 1e-6


# ---------------------------------------------------------------------------------- many equations


def test_rounds_of_many_equations_are_few() -> None:
    """Factors of many equations are all but seen; their scale would move to one over as many rounds as equations."""
    rng, K, N = np.random.default_rng(2), 300, 900
    X = np.column_stack([np.ones(N), rng.normal(size=(N, 2))])
    E = rng.normal(size=(N, 4)) @ rng.normal(size=(4, K)) + rng.normal(size=(N, K)) * rng.uniform(0.5, 1.5, size=K)
    Y = X @ rng.normal(size=(3, K)) + E
    options = {"engine": "stream", "algorithm": "em"}
    found = LowRankGLS(4, **options).fit(System.from_arrays(dask_rows(100)(Y), X)).result_
    best = LowRankGLS(4, engine="compress").fit(System.from_arrays(Y, X)).result_
    gaps = found.trace["nll"].to_numpy() - best.nll
    passes = found.trace["passes"].to_numpy()
    assert passes[gaps < 1e-6].min() <= 9
    assert found.n_passes == passes[-1] <= 12
    assert gaps[-1] < 1e-6
    # the last half-step finds coefficients that no iteration moves, and reads nothing to see it
    assert found.trace["step"].iloc[-1] == "beta"
    assert passes[-1] == passes[-2]


def peak_of(work: Any) -> int:
    """Bytes that arrays take at most while something is done."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def many(columns: list[np.ndarray], n: int) -> System:
    rng, K = np.random.default_rng(3), len(columns)
    incidence = np.zeros((1 + max(int(c.max()) for c in columns), K), dtype=bool)
    for j, c in enumerate(columns):
        incidence[c, j] = True
    Y = rng.normal(size=(n, 2)) @ rng.normal(size=(2, K)) + rng.normal(size=(n, K))
    return System.from_arrays(Y, rng.normal(size=(n, len(incidence))), incidence=incidence)


@pytest.mark.filterwarnings("ignore:LowRankGLS. not converged")
def test_a_fit_allocates_nothing_as_large_as_equations_by_equations() -> None:
    K = 1200
    system = many([np.arange(3)] * K, 1000)
    model = LowRankGLS(2, engine="stream", algorithm="em", max_sweeps=3)
    assert peak_of(lambda: model.fit(system)) < 8 * K**2


def test_sums_of_the_first_pass_are_priced_where_equations_have_many_regressors() -> None:
    """Their products with themselves, beside which all that later passes sum is small."""
    rows = many([np.arange(300 * j, 300 * (j + 1)) for j in range(6)], 2000).rows
    cluster = cluster_of(1, 1, "8GB")
    priced = without_x(price(rows, cluster, "stream", True, 1)).worker_peak - cluster.base
    peak = peak_of(lambda: run_pass(rows, design_kernel, Tiles.of(rows.design.batches), partial_bytes=1, meter=Meter()))
    assert 3 * 8 * 6 * 300**2 < peak < priced < 10 * peak


def test_kernels_copy_no_block_and_make_nothing_of_equations_by_equations() -> None:
    K = 1200
    rows = many([np.arange(2 * j, 2 * j + 2) for j in range(K)], 700).rows
    rng, of = np.random.default_rng(0), Tiles.of(rows.design.batches)
    block = Block(0, (rows.x[0].array,), (rows.y[0].array,), None)
    sigma, b = LowRank(rng.normal(size=(K, 2)), np.ones(K)), rng.normal(size=2 * K)
    centre = np.zeros(3 * K), None, np.ones(K)
    params = StreamParams(of, *centre, coefficients=b, direction=b, sigma=sigma, products=sigma.F, squares=True)
    design_kernel(block, of)  # which leaves memory that its thread uses again
    for work in (
        lambda: design_kernel(block, of),
        lambda: products_kernel(block, params),
        lambda: residual_kernel(block, params),
        lambda: direction_kernel(block, params),
    ):
        assert peak_of(work) < 4 * K**2 < block.y[0].nbytes
