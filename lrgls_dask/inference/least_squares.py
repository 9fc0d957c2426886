"""Covariance of the coefficients of all equations together, each fitted by least squares: no read of the data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from lrgls_dask.inference.classical import CoefficientCovariance
from lrgls_dask.inference.dual import dual_pays
from lrgls_dask.inference.structured import (
    CovOfCombinations,
    FormedCombinations,
    FormedCov,
    StructuredCov,
    blocks_of,
)
from lrgls_dask.solve.constraint import inverse_within
from lrgls_dask.solve.orthonormal import orthonormal_by_group

__all__ = ["LeastSquaresCovariance"]


@dataclass(frozen=True, eq=False)
class LeastSquaresCovariance(CoefficientCovariance):
    """(X'X)^-1 X'(Sigma kron I) X (X'X)^-1 of ordinary least squares of every equation, in the user's units.

    Between equations i and j that is Sigma_ij (X_i'X_i)^-1 X_i'X_j (X_j'X_j)^-1: nothing of size P x P is inverted, and
    without restrictions standard errors, blocks of equations and joint tests form none: a test of m combinations of u
    equations takes m u q numbers. All of it is limited to 20,000 coefficients and costs q P^2.
    Under restrictions R b = r that all squared residuals together keep to, G X'(Sigma kron I) X G, G the inverse of X'X
    on the directions they leave free: three P x P arrays.
    Source: Zellner (1962), eq. 2.7, for the covariance of least squares; Amemiya (1985), section 1.4, for G.
    """

    @cached_property
    def variances(self) -> np.ndarray:
        if self.restrictions is not None:
            return np.maximum(self.full.diagonal(), 0.0)
        out = np.empty(self.design.n_coefficients)
        for mine, half, variance in zip(self.design.spans, self._roots, self.sigma.variances, strict=True):
            out[mine] = variance * np.sum(half**2, axis=1)
        return out

    def variances_of(self, places: np.ndarray) -> np.ndarray:
        return self.variances[places]

    def block(self, equation: int) -> np.ndarray:
        if self.restrictions is not None:
            return super().block(equation)
        half = self._roots[equation]
        return np.asarray(self.sigma.variances[equation] * half @ half.T)

    def of_combinations(self, matrix: Any) -> CovOfCombinations:
        if self.restrictions is not None:
            return FormedCov(self.design, self.full).of_combinations(matrix)
        if self._structured is not None:
            return self._structured.of_combinations(matrix)
        R = sp.csr_array(matrix)
        used = np.unique(self.design.equation_of[R.indices])
        along = np.empty((len(used), len(self.x_rows), R.shape[0]))
        for place, j in enumerate(used):
            half, columns = self._roots[j], self.design.columns[j]
            along[place] = self.x_rows[:, columns] @ (half @ (half.T @ R[:, self.design.spans[j]].toarray().T))
        unit = np.zeros((self.design.n_equations, len(used)))
        unit[used, np.arange(len(used))] = 1.0
        image = np.einsum("ij,jra->ira", self.sigma.matmul(unit)[used], along)
        return FormedCombinations(np.einsum("ira,irb->ab", along, image))

    @property
    def _is_large(self) -> bool:
        return False  # what needs no P x P array is made below, and the rest has no other way

    @cached_property
    def _structured(self) -> StructuredCov | None:
        if self.restrictions is not None or not dual_pays(self.design, len(self.x_rows), self.sigma, 0):
            return None
        wide = self.sigma.widened()
        factors = np.empty((self.design.n_coefficients, len(self.x_rows) * wide.rank))
        blocks = []
        for j, (mine, half) in enumerate(zip(self.design.spans, self._roots, strict=True)):
            image = half @ (half.T @ self.x_rows[:, self.design.columns[j]].T)
            factors[mine] = np.kron(image, wide.F[j])
            blocks.append(wide.d[j] * half @ half.T)
        return StructuredCov(self.design, blocks_of(self.design, blocks), factors, np.eye(factors.shape[1]))

    @cached_property
    def _roots(self) -> list[np.ndarray]:
        """Per equation (p_j, p_j) H with H H' = (X_j'X_j)^-1."""
        roots: list[np.ndarray] = [np.empty(0)] * self.design.n_equations
        none = np.zeros(self.design.n_regressors)
        for i, _, half, _ in orthonormal_by_group(self.x_rows, self.design.batches, self.n_obs, none):
            for j in self.design.groups[i].equations:
                roots[j] = half
        return roots

    def _orthonormal_covariance(self, gram: np.ndarray, penalty: np.ndarray, free: np.ndarray | None) -> np.ndarray:
        owner = self.design.equation_of
        gram *= self.sigma.rescaled(1.0 / self.y_scale).dense()[np.ix_(owner, owner)]
        if free is None:
            return gram
        weight = ((self.y_scale / self.y_scale.max()) ** 2)[owner]  # squared residuals count in the units of the data
        inverse = inverse_within(np.diag(weight), free)
        return np.asarray(inverse @ (weight[:, None] * gram * weight) @ inverse)
