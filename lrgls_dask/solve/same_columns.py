"""Streamed rows whose equations all use the same columns: passes tell only of what lies outside these.

Residuals are what X explains of Y less X c, which the moments of the first pass tell at any c, beside what lies outside
the span of X, the same E at every c. So gradients and steps of the coefficients take no pass, and nor does R'R, once
E'E is known; without it a product R'R B takes one, of which E'E B is all that is read.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from lrgls_dask.rows.moments import ProductMoments, ResidualMoments
from lrgls_dask.rows.purposes import PRODUCTS, RESIDUALS
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.stream_kernels import products_kernel, residual_kernel
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.solve.interface import GlsStep, Products
from lrgls_dask.solve.streamed import Streamed
from lrgls_dask.solve.whiten import GRAM_RESOLUTION

__all__ = ["SameColumns", "streamed"]

# Squares of Y and of its coefficients on columns of unit length, which are large where these are nearly dependent, in
# squares of its residuals, up to which E'E is taken as Y'Y less what X and the means explain: that loses as many digits
# as this has, and saves a product with X for every row and a copy of it.
LOOSE_FIT = 1e4
# The least singular value of columns of unit length at which moments tell coefficients to their last digit but eight.
CLEAR = 1e-4


def streamed(rows: Rows, **options: Any) -> Streamed:
    """What answers for rows that are streamed; options as of `Streamed`."""
    return (SameColumns if len(rows.design.groups) == 1 else Streamed)(rows, **options)


class SameColumns(Streamed):
    """The client holds (q + 1) K numbers more than `Streamed`, which answers where columns are nearly dependent: then
    moments lose what passes at the coefficients still tell."""

    def residual_covariance(self, c: np.ndarray) -> np.ndarray:
        """One pass the first time, none later."""
        if not self._is_clear:
            return super().residual_covariance(c)
        residual = self._residual(c)
        return (self._outside + residual.T @ residual) / self.n_obs

    def products(self, c: np.ndarray, B: np.ndarray, sigma: Sigma | None) -> Products:
        """One pass."""
        if not self._is_clear:
            return super().products(c, B, sigma)
        at, residual, inside = self.coordinates, self._residual(c), self._inside
        if self._is_loose:  # of rows as they are stored, in the user's units
            scale = self.whitened.y_scale[:, None]
            moments: ProductMoments = self._pass(products_kernel, PRODUCTS, None, as_stored=True, products=B / scale)
            read, squares = moments.along.T / scale, self._squares_outside
        else:
            moments = self._pass(products_kernel, PRODUCTS, self._closest, products=B, squares=True)
            read, squares = moments.along.T, moments.squares - np.sum(inside**2, axis=0)
        along = read - inside.T @ (inside @ B) + residual.T @ (residual @ B)
        diagonal = (squares + np.sum(residual**2, axis=0)) / self.n_obs
        gradient = np.zeros(0) if sigma is None else at.gradient(self._stacks, residual, c, sigma)
        return Products(along / self.n_obs, diagonal, gradient)

    def gls_step(self, c: np.ndarray, sigma: Sigma, S: Any = None, gradient: np.ndarray | None = None) -> GlsStep:
        """No pass, once R'R is known."""
        if not self._is_clear:
            return super().gls_step(c, sigma, S, gradient)
        at, stacks = self.coordinates, self._stacks
        if gradient is None:
            gradient = at.gradient(stacks, self._residual(c), c, sigma)

        def finish(solution: np.ndarray, steps: tuple[float, ...]) -> Any:
            return S if S is None or not steps else self.residual_covariance(solution)

        return GlsStep(gradient, lambda p, _: at.image(stacks, p, sigma), finish)

    # ------------------------------------------------------------------------------------------ inside

    @property
    def _stacks(self) -> tuple[np.ndarray, ...]:
        return self.whitened.stacks

    @cached_property
    def _explained(self) -> np.ndarray:
        """(r, K) Y in the span of X and of a constant, in the basis of the rows of X, the mean first."""
        return self.group_rows[0].y / self.whitened.y_scale

    @cached_property
    def _squares_outside(self) -> np.ndarray:
        """(K,) diagonal of E'E."""
        return self.group_rows[0].beyond / self.whitened.y_scale**2

    def _residual(self, c: np.ndarray) -> np.ndarray:
        """(r, K) the same of the residuals at c."""
        return self._explained - self.coordinates.forward(self._stacks, c)

    @cached_property
    def _is_loose(self) -> bool:
        """Whether rows may be read as they are, because neither X nor the means explain nearly all of Y."""
        total = self._squares_outside + np.sum(self._explained**2, axis=0) + np.sum(self._on_units**2, axis=0)
        return bool(np.all(total <= LOOSE_FIT * self._squares_outside))

    @cached_property
    def _units(self) -> np.ndarray:
        """(p,) lengths of the columns of X about their means, one where they do not vary."""
        lengths = np.linalg.norm(self.group_rows[0].x[1:], axis=0)
        return np.where(lengths > 0, lengths, 1.0)

    @cached_property
    def _least_squares(self) -> tuple[np.ndarray, np.ndarray]:
        """(p, K) coefficients on columns of unit length, which leave no more than digits tell, whatever the ridge; and
        the singular values of these columns, descending."""
        unit = self.group_rows[0].x[1:] / self._units
        found, _, _, singular = np.linalg.lstsq(unit, self._explained[1:], rcond=GRAM_RESOLUTION)
        return found, singular

    @property
    def _on_units(self) -> np.ndarray:
        return self._least_squares[0]

    @cached_property
    def _is_clear(self) -> bool:
        """Whether no column that varies is nearly a combination of others."""
        n_varying = np.count_nonzero(self.group_rows[0].x[1:].any(axis=0))
        return bool(np.all(self._least_squares[1][:n_varying] > CLEAR))

    @property
    def _closest(self) -> np.ndarray:
        """(P,) the same on the stored columns: where rows are read that may not be read as they are."""
        return (self._on_units / self._units[:, None]).ravel()

    @cached_property
    def _inside(self) -> np.ndarray:
        """(r, K) what lies in the span of X and a constant of the rows as they are read, the mean of centred ones."""
        if self._is_loose:
            return self._explained
        return self._explained[1:] - (self.group_rows[0].x[1:] / self._units) @ self._on_units

    @cached_property
    def _outside(self) -> np.ndarray:
        """(K, K) E'E: one pass."""
        read_at = None if self._is_loose else self._closest
        moments: ResidualMoments = self._pass(residual_kernel, RESIDUALS, read_at, as_stored=self._is_loose, dense=True)
        cross = moments.cross
        if self._is_loose:
            cross /= self.whitened.y_scale[:, None]
            cross /= self.whitened.y_scale
        return cross - self._inside.T @ self._inside
