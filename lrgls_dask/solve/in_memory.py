"""What the loop asks, answered from q + K + 1 rows in memory."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.design.penalties import Ridge
from lrgls_dask.design.restrictions import Restrictions, free_coefficients
from lrgls_dask.rows.meter import Meter
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.sigma.of_rows import Moments, OfRows
from lrgls_dask.solve.coordinates import Coordinates, constraint_on
from lrgls_dask.solve.divisors import overlaps
from lrgls_dask.solve.interface import GlsStep, Products, nll_offset
from lrgls_dask.solve.whiten import group_rows, resolution_of, whiten

__all__ = ["FEWER_ROWS", "InMemory"]

FEWER_ROWS = 2  # so many times fewer rows than equations are worth products with them instead of with S


class InMemory:
    """A compressed system: every answer is a product of small matrices, no pass.

    by_rows : whether residual covariances may come as the few rows they are made of, where these are fewer than
    equations: then there is no K x K array.
    Memory 8 (q + 1)(P + 2 K) + 8 K^2 bytes beside the root itself; of r such rows 8 K r in the place of 8 K^2.
    """

    restarts_are_free = True
    dense = True

    def __init__(
        self,
        system: Compressed,
        *,
        lam_B: Ridge,
        meter: Meter,
        restrictions: Restrictions | None = None,
        by_rows: bool = False,
    ) -> None:
        self.compressed: Compressed | None = system
        design = self.design = system.design
        self.n_obs, self.head, self.meter = system.n_obs, system.head, meter
        self.cells = np.full(design.n_equations, float(system.n_obs))
        q = design.n_regressors
        self.group_rows = group_rows(system)
        self.resolution = resolution_of(system)
        self.whitened = whiten(design, self.group_rows, n_obs=self.n_obs, lam_B=lam_B, resolution=self.resolution)
        self.nll_offset = nll_offset(self.whitened, system.head)
        self.coordinates = Coordinates.of(self.whitened, design)
        self.constraint = constraint_on(self.whitened, self.coordinates, restrictions)
        self.free, self.restrictions = free_coefficients(self.design, restrictions), restrictions
        self._stacks = self.whitened.stacks
        self._y = system.stacked(q)[:, q:] / self.whitened.y_scale
        self._below = system.root[q:, q:] / self.whitened.y_scale  # rows that meet no X
        self.by_rows = by_rows and FEWER_ROWS * (len(self._y) + len(self._below)) < design.n_equations

    @property
    def width(self) -> int:
        """Of the matrices that a fit factors."""
        n_rows = len(self._y) + len(self._below)
        return n_rows if self.by_rows else self.design.n_regressors + self.design.n_equations

    def with_responses(self, y: np.ndarray, beyond: np.ndarray) -> InMemory:
        """The same X with other responses, in the same standard units; only views and the two arrays given.

        y : (q + 1, K) in the basis of the rows of X.  beyond : (K, K) cross-product of what lies outside it.
        """
        other = copy.copy(self)
        other.compressed, other.by_rows, other._y = None, False, y
        other._beyond = beyond
        start = self.coordinates.by_group(self.coordinates.adjoint(self._stacks, y))
        other.whitened = replace(self.whitened, start=start)
        return other

    def fitted(self, c: np.ndarray) -> np.ndarray:
        """(q + 1, K) [X_1 c_1 ... X_K c_K] in the basis of the rows of X, standard units."""
        return self.coordinates.forward(self._stacks, c)

    @cached_property
    def _beyond(self) -> np.ndarray:
        """(K, K) cross-product of what lies outside the rows of X."""
        return self._below.T @ self._below

    def residual_covariance(self, c: np.ndarray) -> Moments:
        residual = self._y - self.coordinates.forward(self._stacks, c)
        if self.by_rows:
            return OfRows(np.concatenate([residual, self._below]) / np.sqrt(self.n_obs))
        return (self._beyond + residual.T @ residual) / self.n_obs

    def products(self, c: np.ndarray, B: np.ndarray, sigma: Sigma | None) -> Products:
        at, stacks = self.coordinates, self._stacks
        residual = self._y - at.forward(stacks, c)
        if self.by_rows:
            beyond, squares = self._below.T @ (self._below @ B), np.sum(self._below**2, axis=0)
        else:
            beyond, squares = self._beyond @ B, self._beyond.diagonal()
        along = (beyond + residual.T @ (residual @ B)) / self.n_obs
        diagonal = (squares + np.sum(residual**2, axis=0)) / self.n_obs
        gradient = np.zeros(0) if sigma is None else at.gradient(stacks, residual, c, sigma)
        return Products(along, diagonal, gradient)

    def gls_step(self, c: np.ndarray, sigma: Sigma, S: Any = None, gradient: np.ndarray | None = None) -> GlsStep:
        at, stacks = self.coordinates, self._stacks
        if gradient is None:
            residual = self._y - at.forward(stacks, c)
            gradient = at.gradient(stacks, residual, c, sigma)
        return GlsStep(
            gradient, lambda p, _: at.image(stacks, p, sigma), lambda solution, _: self.residual_covariance(solution)
        )

    @cached_property
    def overlaps(self) -> np.ndarray:
        x = np.zeros((len(self.group_rows[0].x), self.design.n_regressors))  # all in the basis of the compressed rows
        for part in self.group_rows:
            x[:, part.group.columns] = part.x
        return overlaps(self.design, x, self.restrictions)

    def x_rows(self) -> np.ndarray | None:
        return None  # the compressed system has them
