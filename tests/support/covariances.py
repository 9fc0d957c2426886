"""Correlations of simulated errors, floors of their variances, and slopes of the likelihood along factors."""

from __future__ import annotations

import numpy as np


def correlation(E: np.ndarray) -> np.ndarray:
    """(K, K) second moments about zero, in units of their roots."""
    S = E.T @ E / len(E)
    sd = np.sqrt(np.diag(S))
    return S / np.outer(sd, sd)


def moments(K: int, n: int = 300, *, factors: int = 2, seed: int = 0) -> np.ndarray:
    """S (K, K) with unit diagonal of n rows with some factors in them."""
    rng = np.random.default_rng([seed, K, n])
    return correlation(
        rng.standard_normal((n, factors)) @ rng.uniform(-1, 1, (factors, K)) + rng.standard_normal((n, K))
    )


def floor_of(S: np.ndarray, share: float = 1e-8) -> np.ndarray:
    """(K,) the same share of each unit variance."""
    return np.full(len(S), share)


def factor_slopes(F: np.ndarray, d: np.ndarray, S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """d nll/dF and d nll/d log d at Sigma = F F' + diag(d), from dense inverses."""
    inverse = np.linalg.inv(F @ F.T + np.diag(d))
    G = 0.5 * (inverse - inverse @ S @ inverse)
    return 2.0 * G @ F, d * np.diag(G)
