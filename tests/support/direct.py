"""Maximum likelihood of rows with holes, by a general search over all coefficients and a Cholesky factor of Sigma."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

__all__ = ["direct_full"]


def direct_full(
    Y: np.ndarray,
    Xs: list[np.ndarray],
    b: np.ndarray,
    sigma: np.ndarray,
    weights: np.ndarray | None = None,
    free: np.ndarray | None = None,
) -> tuple[float, np.ndarray, np.ndarray]:
    """The largest log-likelihood with an unrestricted Sigma near (b, sigma), b and Sigma there.

    Pattern by pattern of dense matrices, by BFGS.  free : (P, f) directions in which b may move, all if None.
    """
    K, sizes = Y.shape[1], [X.shape[1] for X in Xs]
    free = np.eye(sum(sizes)) if free is None else free
    entries, n = np.tril_indices(K), free.shape[1]
    w = np.ones(len(Y)) if weights is None else weights
    patterns: dict[tuple[bool, ...], list[int]] = {}
    for i, shown in enumerate(~np.isnan(Y)):
        if shown.any():
            patterns.setdefault(tuple(shown), []).append(i)

    def value(z: np.ndarray) -> tuple[float, np.ndarray]:
        L = np.zeros((K, K))
        L[entries] = z[n:]
        S, parts = L @ L.T, np.split(b + free @ z[:n], np.cumsum(sizes)[:-1])
        R = np.nan_to_num(Y) - np.column_stack([X @ part for X, part in zip(Xs, parts, strict=True)])
        total, by_sigma, scaled = 0.0, np.zeros((K, K)), np.zeros_like(R)
        for shown, rows in patterns.items():
            o = np.flatnonzero(shown)
            inverse, mine = np.linalg.inv(S[np.ix_(o, o)]), np.ix_(rows, o)
            g = R[mine] @ inverse * w[rows, None]
            scaled[mine] = g
            total += 0.5 * (len(rows) * (len(o) * np.log(2 * np.pi) + np.linalg.slogdet(S[np.ix_(o, o)])[1]))
            total += 0.5 * float(np.sum(g * R[mine])) - 0.5 * len(o) * float(np.log(w[rows]).sum())
            by_sigma[np.ix_(o, o)] += 0.5 * (len(rows) * inverse - g.T @ (g / w[rows, None]))
        by_b = -np.concatenate([X.T @ scaled[:, j] for j, X in enumerate(Xs)])
        return total, np.concatenate([free.T @ by_b, (2 * by_sigma @ L)[entries]])

    z = np.concatenate([np.zeros(n), np.linalg.cholesky(sigma)[entries]])
    for _ in range(3):
        z = minimize(value, z, jac=True, method="BFGS", options={"gtol": 1e-7, "maxiter": 5000}).x
    L = np.zeros((K, K))
    L[entries] = z[n:]
    return -value(z)[0], b + free @ z[:n], L @ L.T
