"""Systems whose cells have weights, and what a dense textbook says of them: one covariance matrix for each row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrgls_dask import Fit


@dataclass(frozen=True)
class Weighted:
    """Y (N, K), X (N, q) shared by all equations, W (N, K)."""

    Y: np.ndarray
    X: np.ndarray
    W: np.ndarray

    @property
    def n_equations(self) -> int:
        return self.Y.shape[1]

    def scaled(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """Y and one design for each equation, times the roots of the weights: a plain system."""
        root = np.sqrt(self.W)
        return self.Y * root, [self.X * root[:, [j]] for j in range(self.n_equations)]

    def with_holes(self, share: float = 0.1, seed: int = 1) -> Weighted:
        """The same with responses missing at random."""
        gone = np.random.default_rng(seed).random(self.Y.shape) < share
        return Weighted(np.where(gone, np.nan, self.Y), self.X, self.W)

    def take(self, rows: np.ndarray) -> Weighted:
        return Weighted(self.Y[rows], self.X[rows], self.W[rows])


def weighted_cells(n: int = 160, K: int = 4, seed: int = 0, level: float = 1.0) -> Weighted:
    """Rows with one strong factor and an intercept of size `level`; weights between 0.2 and 4."""
    rng = np.random.default_rng([seed, n, K])
    X = np.column_stack([np.ones(n), rng.normal(size=n) + 2.0, rng.normal(size=n)])
    W = rng.uniform(0.2, 4.0, size=(n, K))
    b = rng.normal(size=(3, K))
    b[0] += level
    E = rng.normal(size=(n, 1)) @ rng.normal(size=(1, K)) + rng.normal(size=(n, K)) * rng.uniform(0.5, 1.0, size=K)
    return Weighted(X @ b + E / np.sqrt(W), X, W)


def dense_loglik(fit: Fit, data: Weighted) -> float:
    """The log-likelihood of a fit's parameters, row by row: errors have covariance W_i^-1/2 Sigma W_i^-1/2."""
    sigma = np.asarray(fit.sigma())
    errors = data.Y - data.X @ np.asarray(fit.params).reshape(data.n_equations, -1).T
    total = 0.0
    for e, w in zip(errors, data.W, strict=True):
        o = ~np.isnan(e) & (w > 0)
        if not o.any():
            continue
        V = sigma[np.ix_(o, o)] / np.sqrt(np.outer(w[o], w[o]))
        total -= 0.5 * (o.sum() * np.log(2 * np.pi) + np.linalg.slogdet(V)[1] + e[o] @ np.linalg.solve(V, e[o]))
    return total


def dense_gls(sigma: np.ndarray, data: Weighted) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (P,) and their covariance by generalised least squares at Sigma, row by row."""
    K, q = data.n_equations, data.X.shape[1]
    normal, right = np.zeros((K * q, K * q)), np.zeros(K * q)
    for y, x, w in zip(data.Y, data.X, data.W, strict=True):
        precision = np.linalg.inv(sigma / np.sqrt(np.outer(w, w)))
        normal += np.kron(precision, np.outer(x, x))
        right += np.kron(precision @ y, x)
    cov = np.linalg.inv(normal)
    return cov @ right, cov
