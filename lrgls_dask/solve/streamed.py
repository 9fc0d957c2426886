"""The loop's questions answered by passes of chunk-wise sums over all rows (see interface.py)."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular

from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.compression.roots import root_of
from lrgls_dask.design.design import Design
from lrgls_dask.design.penalties import Ridge
from lrgls_dask.design.restrictions import Restrictions, free_coefficients
from lrgls_dask.rows.kernels import regressor_gram_kernel, regressor_rows_kernel
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.moments import DesignMoments, DirectionMoments, ProductMoments, ResidualMoments
from lrgls_dask.rows.purposes import COEFFICIENTS, ERRORS, OLS, PRODUCTS, RESIDUALS
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.run_pass import Kernel, run_pass, with_effects
from lrgls_dask.rows.stream_kernels import (
    StreamParams,
    design_kernel,
    direction_kernel,
    products_kernel,
    residual_kernel,
)
from lrgls_dask.rows.tiles import Tiles
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.solve.coordinates import Coordinates, constraint_on
from lrgls_dask.solve.divisors import overlaps
from lrgls_dask.solve.interface import GlsStep, Products, nll_offset
from lrgls_dask.solve.level import check_digits, level_row
from lrgls_dask.solve.whiten import GRAM_RESOLUTION, GroupRows, whiten

__all__ = [
    "Streamed",
    "first_partial_bytes",
    "group_rows",
    "stream_partial_bytes",
    "stream_passes",
    "x_partial_bytes",
    "x_stays_rows",
]

# Passes that are expected: two to start, gradients, and about four products with these; of the same columns the moments
# of all equations, and products of what these leave; of many equations one to start and rounds, which are few.
STREAM_PASSES = {OLS: 1, RESIDUALS: 1, COEFFICIENTS: 8}
SAME_COLUMNS_PASSES = {OLS: 1, RESIDUALS: 1}
PRODUCTS_PASSES = {OLS: 1, PRODUCTS: 7}

PARTIALS_IN_FLIGHT = 24  # partial sums a pass may hold at once on one worker
# Following R'R along a step's products takes 3 K^2 multiplications a row and product, reading the rows once more for it
# at its end q + K numbers and K^2 / 2 multiplications. Up to this K^2 / (q + K) following takes less: a number takes as
# long to read as a few tens of multiplications, from memory or from a disk, and there are about three products.
FOLLOWED = 50
# A centre this near the mean, relative to the spread of a column, moves no digit of a sum of squares.
NEAR_MEAN = 1e-9


class Streamed:
    """Every answer is one pass of chunk-wise sums over the rows; the client holds P + K^2 numbers, or P + K k.

    Making it costs the first pass, which gives each equation's own moments.
    dense : whether K x K sums are affordable; without them only `products` speaks of S.
    keeps_x : whether X'X (q, q), which standard errors need, is found by one pass more; see `Plan`.
    """

    restarts_are_free = False
    resolution = GRAM_RESOLUTION
    compressed: Compressed | None = None

    def __init__(
        self,
        rows: Rows,
        *,
        lam_B: Ridge,
        meter: Meter,
        dense: bool = True,
        keeps_x: bool = True,
        restrictions: Restrictions | None = None,
    ) -> None:
        self.dense = dense
        rows = with_effects(rows, meter)
        self.design, self.rows, self.meter, self.keeps_x = rows.design, rows, meter, keeps_x
        self._tiles = Tiles.of(rows.design.batches)
        size = first_partial_bytes(rows.design)
        moments: DesignMoments = run_pass(rows, design_kernel, self._tiles, partial_bytes=size, meter=meter, label=OLS)
        self.n_obs, self.head = moments.head.n_rows, moments.head
        squares = _squares(moments, rows.design)
        self._spread_x = np.sqrt(squares / moments.head.weight)
        if rows.design.absorbed is not None:
            design = rows.design.beside_effects(squares, moments.head.weight)
            self.design, self.rows = design, replace(rows, design=design)
        self.cells = np.full(rows.design.n_equations, float(self.n_obs))
        self.group_rows = group_rows(moments, self.design)
        self.whitened = whiten(self.design, self.group_rows, n_obs=self.n_obs, lam_B=lam_B, resolution=self.resolution)
        for part in self.group_rows:
            total = np.sum(part.y**2, axis=0) + part.beyond
            mine = part.group.equations
            check_digits(self.design, mine, total, self.whitened.y_scale[mine], self.n_obs)
        self.nll_offset = nll_offset(self.whitened, self.head)
        self.coordinates = Coordinates.of(self.whitened, rows.design)
        self.constraint = constraint_on(self.whitened, self.coordinates, restrictions)
        self.free, self.restrictions = free_coefficients(self.design, restrictions), restrictions
        self._mean_rows = [stack[:, :1] for stack in self.whitened.stacks]
        q = rows.design.n_regressors
        self._mean_y = (np.sqrt(self.head.weight) * self.head.mean[q:] / self.whitened.y_scale)[None, :]
        self._follows = dense and follows(rows.design)

    def residual_covariance(self, c: np.ndarray) -> np.ndarray:
        moments: ResidualMoments = self._pass(residual_kernel, RESIDUALS, self._raw(c), dense=True)
        mean = self._mean_residual(c)
        return (moments.cross + mean.T @ mean) / self.n_obs

    def products(self, c: np.ndarray, B: np.ndarray, sigma: Sigma | None) -> Products:
        moments: ProductMoments = self._pass(
            products_kernel, PRODUCTS, self._raw(c), sigma=sigma, products=B, squares=True
        )
        mean = self._mean_residual(c)
        gradient = np.zeros(0)
        if sigma is not None:
            gradient = self._adjoint(moments.gradient, mean, sigma) - self.coordinates.ridge * c
        along = (moments.along.T + mean.T @ (mean @ B)) / self.n_obs
        return Products(along, (moments.squares + mean[0] ** 2) / self.n_obs, gradient)

    def gls_step(self, c: np.ndarray, sigma: Sigma, S: Any = None, gradient: np.ndarray | None = None) -> GlsStep:
        at = self.coordinates
        if gradient is None:
            moments: ResidualMoments = self._pass(residual_kernel, COEFFICIENTS, self._raw(c), sigma=sigma)
            gradient = self._adjoint(moments.gradient, self._mean_residual(c), sigma) - at.ridge * c
        follows = S is not None and self._follows
        changes: list[tuple[np.ndarray, np.ndarray]] = []

        def product(p: np.ndarray, current: np.ndarray) -> np.ndarray:
            at_current = self._raw(current)
            along: DirectionMoments = self._pass(
                direction_kernel, COEFFICIENTS, at_current, sigma=sigma, direction=self._raw(p), dense=follows
            )
            mean_along = at.forward(self._mean_rows, p)
            if follows:
                vr = along.vr + mean_along.T @ self._mean_residual(current)
                changes.append((vr + vr.T, along.vv + mean_along.T @ mean_along))
            return self._adjoint(along.image, mean_along, sigma) + at.ridge * p

        def finish(solution: np.ndarray, steps: tuple[float, ...]) -> Any:
            if S is None or not steps:
                return S
            if not follows:
                return self.residual_covariance(solution)
            # R'R along the path is known exactly from what the products have summed: no further pass
            covariance = S.copy()
            for step, (linear, quadratic) in zip(steps, changes, strict=False):
                covariance += (step * step * quadratic - step * linear) / self.n_obs
            return covariance

        return GlsStep(gradient, product, finish)

    @cached_property
    def overlaps(self) -> np.ndarray:
        """One pass where designs differ. Raises ValueError where X'X does not fit."""
        x = self._x_rows("divisors of residual products")
        if x is None:
            raise ValueError(
                f"debiased='Theil' needs X'X, {self.design.n_regressors} x {self.design.n_regressors}, which does not "
                "fit. Use debiased=True or 'max', or raise memory_limit."
            )
        return overlaps(self.design, x, self.restrictions)

    def x_rows(self) -> np.ndarray | None:
        return self._x_rows(ERRORS)

    def _x_rows(self, purpose: str) -> np.ndarray | None:
        design = self.design
        if len(design.groups) == 1:
            rows = np.zeros((len(self.group_rows[0].x), design.n_regressors))
            rows[:, design.groups[0].columns] = self.group_rows[0].x
            return rows
        if not self.keeps_x:
            return None
        stays = x_stays_rows(design, self.rows.n_obs)
        kernel = regressor_rows_kernel if stays else regressor_gram_kernel
        read, meter, size = self.rows.of_regressors, self.meter, x_partial_bytes(design, self.rows.n_obs)
        moments = run_pass(read, kernel, None, partial_bytes=size, meter=meter, label=purpose)
        mean = np.sqrt(moments.head.weight) * moments.head.mean
        pieces = list(moments.pieces) if stays else [root_of(moments.cross)]
        del moments  # of which nothing is held twice
        return _below(mean, pieces)

    def _mean_residual(self, c: np.ndarray) -> np.ndarray:
        return self._mean_y - self.coordinates.forward(self._mean_rows, c)

    def _adjoint(self, gradient: np.ndarray, mean: np.ndarray, sigma: Sigma) -> np.ndarray:
        """(P,) by c, of a gradient by the columns as stored, flat (P,), and of the mean (1, K)."""
        parts = zip(self.whitened.batches, self._tiles.batches.split(gradient), strict=True)
        centred = np.concatenate([batch.adjoint(part).ravel() for batch, part in parts])
        return centred + self.coordinates.adjoint(self._mean_rows, sigma.solve_rows(mean))

    def _raw(self, c: np.ndarray) -> np.ndarray:
        """Flat (P,) coefficients of the stored columns, for Y in standard units."""
        parts = zip(self.whitened.batches, self.coordinates.split(c), strict=True)
        return np.concatenate([batch.coefficients(part).ravel() for batch, part in parts])

    @cached_property
    def _centre(self) -> tuple[np.ndarray, np.ndarray | None]:
        """What rows are taken less: their mean, in two steps where one number does not hold it."""
        head, mean = self.head, self.head.mean
        spread = np.concatenate([self._spread_x, self.whitened.y_scale])
        left = np.abs((head.anchor - mean) + head.offset)
        return (mean, None) if np.all(left <= NEAR_MEAN * spread) else (head.anchor, head.offset)

    def _pass(
        self, kernel: Kernel, label: str, coefficients: np.ndarray | None, *, as_stored: bool = False, **wanted: Any
    ) -> Any:
        """coefficients, wanted : see `StreamParams`.  as_stored : of rows as they are."""
        anchor, offset = (None, None) if as_stored else self._centre
        scale = None if as_stored else self.whitened.y_scale
        params = StreamParams(self._tiles, anchor, offset, scale, coefficients, **wanted)
        size = stream_partial_bytes(self.design, bool(wanted.get("dense")))
        return run_pass(self.rows, kernel, params, partial_bytes=size, meter=self.meter, label=label)


def first_partial_bytes(design: Design) -> int:
    """Bytes of one partial sum of the first pass: each design's products with itself and with its responses."""
    return 8 * sum(len(g.columns) * (len(g.columns) + len(g.equations)) for g in design.groups)


def stream_partial_bytes(design: Design, dense: bool) -> int:
    """Bytes of one of any other: P coefficients and a K x K array, two where steps are followed, or without these a
    dozen columns of K."""
    n_equations, matrices = design.n_equations, 2 if follows(design) else 1
    return 8 * (design.n_coefficients + (matrices * n_equations**2 if dense else 16 * n_equations))


def follows(design: Design) -> bool:
    """Whether R'R is followed along a step's products, two K x K arrays each, rather than summed anew at its end."""
    n_equations = design.n_equations
    return len(design.groups) > 1 and FOLLOWED * (design.n_regressors + n_equations) >= n_equations**2


def x_stays_rows(design: Design, n_obs: int) -> bool:
    """Whether rows of X stand for X'X: as many as columns, or fewer."""
    return n_obs <= design.n_regressors


def x_partial_bytes(design: Design, n_obs: int) -> int:
    """Bytes of one partial sum of X'X; rows that stand for it are handed on as they are, as if read."""
    return 0 if x_stays_rows(design, n_obs) else 8 * design.n_regressors**2


def _below(mean: np.ndarray, pieces: list[np.ndarray]) -> np.ndarray:
    """(r, q) the mean (q,) and the pieces below it; the list is emptied, each piece making room for what follows."""
    last = 1 + sum(map(len, pieces))
    found = np.empty((last, len(mean)))
    found[0] = mean
    while pieces:
        piece = pieces.pop()
        found[last - len(piece) : last] = piece
        last -= len(piece)
    return found


def stream_passes(design: Design, dense: bool) -> dict[str, int]:
    """Passes over the rows that a fit is expected to take, by what they are for."""
    if not dense:
        return PRODUCTS_PASSES
    return SAME_COLUMNS_PASSES if len(design.groups) == 1 else STREAM_PASSES


def _roots(xx: np.ndarray, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Roots R (G, p, p) of cross-products, R'R = xx, and y (G, p, m) with R'y = xy: of all designs at once that vary in
    the same columns, one by one where these are nearly dependent."""
    roots, ys = np.zeros(xx.shape), np.zeros(xy.shape)
    squares = np.diagonal(xx, axis1=1, axis2=2)
    patterns, of = np.unique(squares > 0, axis=0, return_inverse=True)
    for number, varies in enumerate(patterns):
        members, live = np.flatnonzero(of.reshape(-1) == number), np.flatnonzero(varies)
        scale = np.sqrt(squares[np.ix_(members, live)])
        unit = xx[np.ix_(members, live, live)] / (scale[:, :, None] * scale[:, None, :])
        try:
            factor = np.linalg.cholesky(unit)
            clear = np.all(np.diagonal(factor, axis1=1, axis2=2) > GRAM_RESOLUTION, axis=1)
        except np.linalg.LinAlgError:
            clear = np.zeros(len(members), dtype=bool)
        if clear.all():
            roots[np.ix_(members, live, live)] = factor.transpose(0, 2, 1) * scale[:, None, :]
            # the last unknown first makes the factor upper triangular, whose LU it is: forward substitution
            right = (xy[np.ix_(members, live)] / scale[:, :, None])[:, ::-1]
            ys[np.ix_(members, live)] = np.linalg.solve(factor[:, ::-1, ::-1], right)[:, ::-1]
            continue
        for g in members:
            found = root_of(np.tril(xx[g]))
            roots[g, : len(found)] = found
            ys[g] = _solved(roots[g], xy[g])
    return roots, ys


def _solved(root: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(p, m) y with root'y = right, of a triangular root (p, p), some rows of which are zero where its columns are
    dependent, or do not vary."""
    y = np.zeros(right.shape)
    live = np.flatnonzero(root.any(axis=1))
    if len(live) == 0:
        return y
    pivots = np.argmax(root[live] != 0, axis=1)
    scale = np.linalg.norm(root, axis=0)
    if np.all(np.abs(root[live, pivots]) > GRAM_RESOLUTION * scale[pivots]):
        y[live] = solve_triangular(root[np.ix_(live, pivots)], right[pivots], trans="T")
        return y
    # a column that depends on those before it starts with rounding, not with zero: no pivot
    unit = np.where(scale > 0, scale, 1.0)
    y[live] = np.linalg.lstsq((root[live] / unit).T, right / unit[:, None], rcond=None)[0]
    return y


def _squares(moments: DesignMoments, design: Design) -> np.ndarray:
    """(q,) of every column that an equation uses, about its mean."""
    found = np.full(design.n_regressors, np.inf)
    for batch, products in zip(moments.batches.each, moments.xx, strict=True):
        found[batch.columns] = np.diagonal(products, axis1=1, axis2=2)
    return found


def group_rows(moments: DesignMoments, design: Design) -> tuple[GroupRows, ...]:
    """Rows that stand for each design's own columns and responses, from their centred moments."""
    n_y = len(moments.yy)
    mean = np.sqrt(moments.head.weight) * moments.head.mean
    rows: list[GroupRows | None] = [None] * len(design.groups)
    for members, of_xx, of_xy in zip(design.buckets, moments.xx, moments.batches.split(moments.xy), strict=True):
        for i, root, y in zip(members, *_roots(of_xx, of_xy), strict=True):
            group = design.groups[i]
            mean_x, mean_y = mean[:-n_y][group.columns], mean[-n_y:][group.equations]
            beyond = np.maximum(moments.yy[group.equations] - np.sum(y**2, axis=0), 0.0)
            x = np.vstack([mean_x, root])
            level = level_row(design, group, x, moments.head.levels)
            rows[i] = GroupRows(group, x, np.vstack([mean_y, y]), beyond, level)
    return tuple(row for row in rows if row is not None)
