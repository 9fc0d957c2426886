"""Classical standard errors of many Sigmas at one X: what does not depend on Sigma is formed once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack

from lrgls_dask.rows.memory import MAX_COEFFICIENTS
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.solve.constraint import estimator_covariance, free_directions, inverse_within
from lrgls_dask.solve.in_memory import InMemory

__all__ = ["StandardErrors"]


@dataclass(frozen=True, eq=False)
class _Blocks:
    """B equations of p coefficients each. places, positions : (B, p) among the whitened and among the P coefficients.
    halves : (B, p, p) from whitened coordinates to coefficients in the user's units.  equations : (B,)."""

    places: np.ndarray
    positions: np.ndarray
    halves: np.ndarray
    equations: np.ndarray


@dataclass(frozen=True, eq=False)
class StandardErrors:
    """sqrt diag of (X' Sigma^-1 X)^-1, or of the ridge sandwich, in the user's units, for any Sigma in standard units;
    within the restrictions of the problem.

    gram : (P, P) products of all whitened columns, None where all equations share theirs, so that the covariance is
    Sigma kron (X'X)^-1, or are fitted by least squares: the block of an equation is then Sigma_jj (X_j'X_j)^-1.
    equation_of, ridge : (P,).  null : (P, P - m) orthonormal basis of the changes that restricted coefficients may
    make.  pooled : (P,) how much squared residuals count, of restricted least squares; None for GLS.
    Source: Zellner (1962); the algebra of CoefficientCovariance in whitened coordinates.
    """

    blocks: tuple[_Blocks, ...]
    gram: np.ndarray | None
    equation_of: np.ndarray
    ridge: np.ndarray
    null: np.ndarray | None
    n_coefficients: int
    pooled: np.ndarray | None = None

    @classmethod
    def of(cls, problem: InMemory, *, least_squares: bool = False) -> StandardErrors:
        """Costs q P^2 flops and P^2 numbers, nothing of the sort where all equations share their columns.

        Raises ValueError above MAX_COEFFICIENTS coefficients, unless they do.
        """
        design, whitened, at = problem.design, problem.whitened, problem.coordinates
        n_coefficients = design.n_coefficients
        shared = (least_squares or len(design.groups) == 1) and not at.ridge.any() and problem.constraint is None
        if not shared and n_coefficients > MAX_COEFFICIENTS:
            raise ValueError(
                f"the standard errors of every replicate need a ({n_coefficients} x {n_coefficients}) matrix, which is "
                f"limited to {MAX_COEFFICIENTS}. Fit fewer equations, or give all the same regressors."
            )
        by_size: dict[int, list[tuple[np.ndarray, np.ndarray, np.ndarray, int]]] = {}
        equation_of = np.empty(n_coefficients, dtype=np.intp)
        columns = None if shared else np.empty((len(whitened.groups[0].q), n_coefficients))
        for g, places in zip(whitened.groups, at.by_group(np.arange(n_coefficients)), strict=True):
            half = g.coefficients(np.eye(len(places)))
            for m, j in enumerate(g.group.equations):
                equation_of[places[:, m]] = j
                if columns is not None:
                    columns[:, places[:, m]] = g.q
                entry = (places[:, m], g.group.coefficients[:, m], half * whitened.y_scale[j], int(j))
                by_size.setdefault(len(places), []).append(entry)
        blocks = tuple(_Blocks(*(np.stack(part) for part in zip(*same, strict=True))) for same in by_size.values())
        gram = None if columns is None else columns.T @ columns
        null = None if problem.constraint is None else free_directions(problem.constraint.rows)
        scale = whitened.y_scale
        pooled = ((scale / scale.max()) ** 2)[equation_of] if least_squares and null is not None else None
        return cls(blocks, gram, equation_of, at.ridge, null, n_coefficients, pooled)

    def coefficients(self, c: np.ndarray) -> np.ndarray:
        """(P,) coefficients in the user's units from all c (P,), in a few batched products."""
        b = np.empty(self.n_coefficients)
        for block in self.blocks:
            b[block.positions] = (block.halves @ c[block.places][:, :, None])[:, :, 0]
        return b

    def at(self, sigma: Sigma) -> np.ndarray:
        """(P,) standard errors, equation by equation. O(P^3) flops, three P x P arrays; O(P) for shared columns."""
        covariance = None if self.gram is None else self._whitened_covariance(sigma, self.gram)
        out = np.empty(self.n_coefficients)
        for block in self.blocks:
            if covariance is None:
                variances = sigma.variances[block.equations, None] * np.einsum(
                    "bij,bij->bi", block.halves, block.halves
                )
            else:
                rows, columns = block.places[:, :, None], block.places[:, None, :]
                inner = covariance[np.maximum(rows, columns), np.minimum(rows, columns)]
                variances = np.einsum("bij,bij->bi", block.halves @ inner, block.halves)
            out[block.positions] = variances
        return np.sqrt(np.maximum(out, 0.0))  # rounding, where a restriction fixes a coefficient

    def _whitened_covariance(self, sigma: Sigma, gram: np.ndarray) -> np.ndarray:
        """The lower triangle of the covariance of the whitened coefficients."""
        if self.pooled is not None and self.null is not None:
            inverse = inverse_within(np.diag(self.pooled), self.null)
            errors = gram * sigma.dense()[self.equation_of[:, None], self.equation_of]
            return np.asarray(inverse @ (self.pooled[:, None] * errors * self.pooled) @ inverse)
        precision = sigma.precision()
        information = gram * precision[self.equation_of[:, None], self.equation_of]
        if self.null is not None:
            return estimator_covariance(information, self.ridge, self.null)
        penalised = information + np.diag(self.ridge) if self.ridge.any() else information
        factor, info = lapack.dpotrf(penalised, lower=1)
        if info != 0:
            raise np.linalg.LinAlgError("the information of the coefficients is singular: columns are collinear.")
        inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
        if not self.ridge.any():
            return np.asarray(inverse)
        full = np.tril(inverse) + np.tril(inverse, -1).T
        return np.asarray(full @ information @ full)
