"""The correction of Kackar and Harville as its textbook double sum, every matrix explicit."""

from __future__ import annotations

from itertools import product

import numpy as np

from lrgls_dask.inference.information import joint_information
from lrgls_dask.inference.kackar_harville import kackar_harville_cov
from lrgls_dask.inference.standardised import Estimate
from lrgls_dask.sigma.full import FullSigma
from support.likelihood import free_loadings
from support.systems import Data


def kackar_harville_correction(estimate: Estimate) -> np.ndarray:
    """(P, P) what the covariance adds to the classical one."""
    joint = joint_information(estimate, "expected")
    return kackar_harville_cov(estimate) - joint.rows.cov(joint.bread)


def directions(estimate: Estimate) -> list[np.ndarray]:
    """dSigma along every parameter that is not held, one (K, K) array each."""
    sigma = estimate.sigma
    unit = np.eye(len(sigma.dense()))
    if isinstance(sigma, FullSigma):
        return [np.outer(a, b) + np.outer(b, a) * (i != j) for (i, a), (j, b) in product(enumerate(unit), repeat=2)
                if i >= j]  # fmt: skip
    free = free_loadings(sigma)
    loadings = [np.outer(e, f) + np.outer(f, e) for e, may in zip(unit, free, strict=True) for f in sigma.F.T[may]]
    held = np.zeros(len(unit), dtype=bool) if estimate.on_floor is None else estimate.on_floor
    return loadings + [np.outer(e, e) for e, fixed in zip(unit, held, strict=True) if not fixed]


def textbook(data: Data, estimate: Estimate, Z: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Phi and Lambda by the double sum over parameters, all (N K, N K) matrices explicit; equation by equation."""
    dense, moves = data.dense(), directions(estimate)
    X, W_rows = dense.X_all, np.diag(1 / dense.w)
    Q = np.linalg.inv(estimate.sigma.dense())
    inverse = np.kron(Q, np.linalg.inv(W_rows))
    left = X.T @ inverse
    Z = np.eye(X.shape[1]) if Z is None else Z
    phi = Z @ np.linalg.inv(Z.T @ left @ X @ Z) @ Z.T
    information = np.array([[dense.N / 2 * np.trace(Q @ a @ Q @ b) for b in moves] for a in moves])
    scale = np.sqrt(np.diag(information))
    W = np.linalg.pinv(information / np.outer(scale, scale), rcond=1e-10) / np.outer(scale, scale)
    moved = [left @ np.kron(move, W_rows) for move in moves]
    P = [-each @ left.T for each in moved]
    weighted = [each @ inverse for each in moved]
    inner = np.zeros_like(phi)
    for a, b in product(range(len(moves)), repeat=2):
        inner += W[a, b] * (weighted[a] @ moved[b].T - P[a] @ phi @ P[b])
    return phi, phi @ inner @ phi
