"""The loop's questions answered by passes of chunk-wise sums over all rows (see problem.py)."""

from __future__ import annotations

from collections.abc import Callable
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
from lrgls_dask.rows.kernels import (
    StreamParams,
    design_kernel,
    direction_kernel,
    products_kernel,
    regressor_gram_kernel,
    residual_kernel,
)
from lrgls_dask.rows.moments import DesignMoments, DirectionMoments, ProductMoments, ResidualMoments
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.run_pass import Meter, run_pass, with_effects
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.solve.coordinates import Coordinates, constraint_on
from lrgls_dask.solve.divisors import overlaps
from lrgls_dask.solve.interface import GlsStep, Products, nll_offset
from lrgls_dask.solve.level import check_digits, level_row
from lrgls_dask.solve.whiten import GRAM_RESOLUTION, GroupRows, whiten

__all__ = ["Streamed", "group_rows", "stream_partial_bytes"]

WELL_CONDITIONED = 1e4  # least squares from cross-products, of standardised columns, is then good to eight digits
PARTIALS_IN_FLIGHT = 24  # partial sums a pass may hold at once on one worker


class Streamed:
    """Every answer is one pass of chunk-wise sums over the rows; the client holds P + K^2 numbers, or P + K k.

    Making it costs the first pass, which gives each equation's own moments.
    dense : whether K x K sums are affordable; without them only `products` speaks of S.
    spare_bytes : what a worker has left for X'X (q, q), which standard errors need.
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
        spare_bytes: float = np.inf,
        restrictions: Restrictions | None = None,
    ) -> None:
        self.dense = dense
        rows = with_effects(rows, meter)
        self.design, self.rows, self.meter, self.spare_bytes = rows.design, rows, meter, spare_bytes
        groups = rows.design.groups
        size = 8 * sum(len(g.columns) * (len(g.columns) + len(g.equations)) for g in groups)
        moments: DesignMoments = run_pass(rows, design_kernel, groups, partial_bytes=size, meter=meter, label="OLS")
        self.n_obs, self.head = moments.head.n_rows, moments.head
        if rows.design.absorbed is not None:
            design = rows.design.beside_effects(_squares(moments, rows.design), moments.head.weight)
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
        self._seen: tuple[np.ndarray, np.ndarray] | None = None  # the last coefficients and their residual covariance
        self._mean_rows = [stack[:, :1] for stack in self.whitened.stacks]
        q = rows.design.n_regressors
        self._mean_y = (np.sqrt(self.head.weight) * self.head.mean[q:] / self.whitened.y_scale)[None, :]

    def residual_covariance(self, c: np.ndarray) -> np.ndarray:
        moments: ResidualMoments = self._pass(residual_kernel, c, None, None, "residuals")
        mean = self._mean_residual(c)
        found = (moments.cross + mean.T @ mean) / self.n_obs
        self._seen = c.copy(), found
        return found

    def products(self, c: np.ndarray, B: np.ndarray, sigma: Sigma | None) -> Products:
        moments: ProductMoments = self._pass(products_kernel, c, None, sigma, "products", B)
        mean = self._mean_residual(c)
        gradient = np.zeros(0)
        if sigma is not None:
            gradient = self._adjoint(moments.gradient, mean, sigma) - self.coordinates.ridge * c
        along = (moments.along + mean.T @ (mean @ B)) / self.n_obs
        return Products(along, (moments.squares + mean[0] ** 2) / self.n_obs, gradient)

    def gls_step(self, c: np.ndarray, sigma: Sigma) -> GlsStep:
        at = self.coordinates
        if self._is_settled(c):
            none = np.zeros((0, 0)) if self._seen is None else self._seen[1]
            return GlsStep(np.zeros_like(c), lambda p, _: p, lambda *_: none.copy())
        if self.dense:
            moments: ResidualMoments = self._pass(residual_kernel, c, None, sigma, "score")
            mean = self._mean_residual(c)
            start = (moments.cross + mean.T @ mean) / self.n_obs
            gradient = self._adjoint(moments.gradient, mean, sigma) - at.ridge * c
        else:
            start = np.zeros((0, 0))
            gradient = self.products(c, np.zeros((self.design.n_equations, 0)), sigma).gradient
        changes: list[tuple[np.ndarray, np.ndarray]] = []

        def product(p: np.ndarray, current: np.ndarray) -> np.ndarray:
            along: DirectionMoments = self._pass(direction_kernel, current, p, sigma, "conjugate gradients")
            mean_along = at.forward(self._mean_rows, p)
            if self.dense:
                vr = along.vr + mean_along.T @ self._mean_residual(current)
                changes.append((vr + vr.T, along.vv + mean_along.T @ mean_along))
            return self._adjoint(along.image, mean_along, sigma) + at.ridge * p

        def finish(_: np.ndarray, steps: tuple[float, ...]) -> np.ndarray:
            # R'R along the path is known exactly from what the products have summed: no further pass
            covariance = start.copy()
            for step, (linear, quadratic) in zip(steps, changes, strict=False):
                covariance += (step * step * quadratic - step * linear) / self.n_obs
            return covariance

        return GlsStep(gradient, product, finish)

    def _is_settled(self, c: np.ndarray) -> bool:
        """Whether c is the GLS solution at any Sigma, and what a step tells of it is known: least squares of equations
        that share all columns (Zellner 1962), of columns that leave cross-products their digits."""
        whitened = self.whitened
        if len(whitened.groups) > 1 or self.constraint is not None or self.coordinates.ridge.any():
            return False
        known = not self.dense or (self._seen is not None and np.array_equal(self._seen[0], c))
        off = np.abs(c - self.coordinates.flat(whitened.start)).max()  # in standard errors, or less
        return known and off < 1e-8 and float(np.linalg.cond(whitened.groups[0].root)) < WELL_CONDITIONED

    @cached_property
    def overlaps(self) -> np.ndarray:
        """One pass where designs differ. Raises ValueError where X'X does not fit."""
        x = self.x_rows()
        if x is None:
            raise ValueError(
                f"debiased='Theil' needs X'X, {self.design.n_regressors} x {self.design.n_regressors}, which does not "
                "fit. Use debiased=True or 'max', or raise memory_limit."
            )
        return overlaps(self.design, x, self.restrictions)

    def x_rows(self) -> np.ndarray | None:
        design = self.design
        if len(design.groups) == 1:
            rows = np.zeros((len(self.group_rows[0].x), design.n_regressors))
            rows[:, design.groups[0].columns] = self.group_rows[0].x
            return rows
        size = 8 * design.n_regressors**2
        if PARTIALS_IN_FLIGHT * size > self.spare_bytes:
            return None
        # responses are read again only where their holes say which rows are used
        read = self.rows if self.rows.complete_only else replace(self.rows, y=())
        moments = run_pass(read, regressor_gram_kernel, None, partial_bytes=size, meter=self.meter, label="X'X")
        return np.vstack([np.sqrt(moments.head.weight) * moments.head.mean, root_of(moments.cross)])

    def _mean_residual(self, c: np.ndarray) -> np.ndarray:
        return self._mean_y - self.coordinates.forward(self._mean_rows, c)

    def _adjoint(self, by_group: tuple[np.ndarray, ...], mean: np.ndarray, sigma: Sigma) -> np.ndarray:
        groups = self.whitened.groups
        centred = tuple(g.adjoint(s) for g, s in zip(groups, by_group, strict=True))
        return self.coordinates.flat(centred) + self.coordinates.adjoint(self._mean_rows, sigma.solve_rows(mean))

    def _pass(
        self,
        kernel: Callable[..., Any],
        c: np.ndarray,
        direction: np.ndarray | None,
        sigma: Sigma | None,
        label: str,
        products: np.ndarray | None = None,
    ) -> Any:
        params = StreamParams(
            self.design.groups,
            self.head.anchor,
            self.head.offset,
            self.whitened.y_scale,
            self._raw(c),
            None if direction is None else self._raw(direction),
            sigma,
            products,
            self.dense,
        )
        size = stream_partial_bytes(self.design, self.dense)
        return run_pass(self.rows, kernel, params, partial_bytes=size, meter=self.meter, label=label)

    def _raw(self, c: np.ndarray) -> tuple[np.ndarray, ...]:
        """Per group (p, m): coefficients of the stored columns, for Y in standard units."""
        by_group = self.coordinates.by_group(c)
        return tuple(g.coefficients(part) for g, part in zip(self.whitened.groups, by_group, strict=True))


def stream_partial_bytes(design: Design, dense: bool) -> int:
    """Bytes of one partial sum: P coefficients and two K x K arrays, or a dozen columns of K where that is too much."""
    n_equations = design.n_equations
    return 8 * (design.n_coefficients + (2 * n_equations**2 if dense else 16 * n_equations))


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
    for group, products in zip(moments.groups, moments.xx, strict=True):
        found[group.columns] = products.diagonal()
    return found


def group_rows(moments: DesignMoments, design: Design) -> tuple[GroupRows, ...]:
    """Rows that stand for each design's own columns and responses, from their centred moments."""
    n_y = len(moments.yy)
    mean = np.sqrt(moments.head.weight) * moments.head.mean
    rows = []
    for i, group in enumerate(moments.groups):
        p = len(group.columns)
        root = np.zeros((p, p))
        found = root_of(np.tril(moments.xx[i]))
        root[: len(found)] = found
        y = _solved(root, moments.xy[i])
        mean_x, mean_y = mean[:-n_y][group.columns], mean[-n_y:][group.equations]
        beyond = np.maximum(moments.yy[group.equations] - np.sum(y**2, axis=0), 0.0)
        x = np.vstack([mean_x, root])
        level = level_row(design, group, x, moments.head.levels)
        rows.append(GroupRows(group, x, np.vstack([mean_y, y]), beyond, level))
    return tuple(rows)
