"""Derivatives of the log-likelihood by complex steps and differences of the normal density, no formula but its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lrgls_dask import Fit
from lrgls_dask.inference.standardised import Estimate, Standardised
from lrgls_dask.sigma.full import FullSigma
from lrgls_dask.solve.constraint import estimator_covariance
from support.systems import Data

Rows = Callable[[np.ndarray], np.ndarray]


def estimate_of(fit: Fit) -> Estimate:
    """What inference is told of a fit of compressed rows."""
    on_floor = np.array([name in fit.on_floor for name in fit.equations])
    penalties = {"lam_B": fit.lam_B, "lam_F": fit.lam_F, "l1": fit.l1}
    return Estimate(
        fit.evidence.rows_for(fit.estimated, "inference"),
        fit.coefficients,
        fit.covariance,
        **penalties,
        on_floor=on_floor,
    )


def expected_cov(estimate: Estimate) -> np.ndarray:
    """(P, P) inverse expected information of the coefficients; with a ridge the sandwich of the penalised estimate."""
    rows = Standardised.of(estimate)
    information = rows.information(estimate.sigma.rescaled(1.0 / rows.unit).precision())
    return rows.cov(estimator_covariance(information, rows.ridge, rows.free))


def free_loadings(sigma: Any) -> np.ndarray:
    """(K, m) true where a loading may differ from zero."""
    return sigma.F != 0 if sigma.kind == "grouped" else np.ones(sigma.F.shape, dtype=bool)


def factor_theta(fit: Fit) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """(b, free F, d) of a fit as one vector, and Sigma as a function of it."""
    K, P, free = fit.n_equations, fit.n_coefficients, free_loadings(fit.covariance)

    def sigma(theta: np.ndarray) -> np.ndarray:
        F = np.zeros(free.shape, dtype=theta.dtype)
        F[free] = theta[P:-K]
        return F @ F.T + np.diag(theta[-K:])

    return np.concatenate([fit.coefficients, fit.covariance.F[free], fit.covariance.d]), sigma


def full_theta(b: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """(b, lower triangle of Sigma) as one vector, and Sigma as a function of it."""
    lower = np.tril_indices(len(matrix))

    def sigma(theta: np.ndarray) -> np.ndarray:
        out = np.zeros(matrix.shape, dtype=theta.dtype)
        out[lower] = theta[len(b) :]
        return out + np.tril(out, -1).T

    return np.concatenate([b, matrix[lower]]), sigma


def loglik_rows(data: Data, sigma: Callable[[np.ndarray], np.ndarray]) -> Rows:
    """theta -> (N,) log-likelihood of each row: row i has covariance Sigma / w_i."""
    dense = data.dense()

    def rows(theta: np.ndarray) -> np.ndarray:
        scaled, matrix = np.sqrt(dense.w)[:, None] * dense.residuals(theta[: len(dense.ols)]), sigma(theta)
        squares = np.sum(scaled.T * np.linalg.solve(matrix, scaled.T), axis=0)
        constant = dense.K * (np.log(2 * np.pi) - np.log(dense.w))
        return np.asarray(-0.5 * (constant + np.log(np.linalg.det(matrix)) + squares))

    return rows


def gradient_rows(rows: Rows, theta: np.ndarray) -> np.ndarray:
    """(N, len(theta)) scores of the rows, to the last digit: the imaginary part of an imaginary step."""
    size = 1e-30
    return np.stack([rows(theta + 1j * size * e).imag / size for e in np.eye(len(theta))], axis=1)


def hessian(rows: Rows, theta: np.ndarray) -> np.ndarray:
    """Second derivatives of the log-likelihood: central differences of fourth order of the scores' sum."""

    def score(at: np.ndarray) -> np.ndarray:
        return np.asarray(gradient_rows(rows, at).sum(axis=0))

    columns = []
    for h in np.diag(1e-3 * np.maximum(np.abs(theta), 0.1)):
        near, far = score(theta + h) - score(theta - h), score(theta + 2 * h) - score(theta - 2 * h)
        columns.append((8 * near - far) / (12 * h.sum()))
    both = np.stack(columns)
    return 0.5 * (both + both.T)


def identified_inverse(information: np.ndarray, n_flat: int) -> np.ndarray:
    """Its Moore-Penrose inverse, with `n_flat` directions along which the likelihood does not change; unit-free."""
    scale = np.sqrt(np.diag(information))
    values, vectors = np.linalg.eigh(information / np.outer(scale, scale))
    order = np.argsort(np.abs(values))
    assert np.abs(values[order[:n_flat]]).max(initial=0.0) < 1e-5 < values[order[n_flat]]
    kept = order[n_flat:]
    inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
    return np.asarray(inverse / np.outer(scale, scale))


def std_errors(cov: np.ndarray) -> np.ndarray:
    """Square roots of the diagonal."""
    return np.sqrt(np.diag(cov))


def full_estimate(data: Data, b: np.ndarray | None = None) -> Estimate:
    """The unrestricted Sigma that is best for given coefficients."""
    dense = data.dense()
    b = dense.ols if b is None else b
    return Estimate(data.system().compress().rows, b, FullSigma(dense.S(b)))
