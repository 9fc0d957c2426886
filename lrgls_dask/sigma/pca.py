"""The principal-component update: leading eigenvectors of S, then a line search so that the objective never rises."""

from __future__ import annotations

import numpy as np

from lrgls_dask.sigma.interface import Array, SigmaStep
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.profile import leading
from lrgls_dask.sigma.steps import checked_inputs, padded, penalised

__all__ = ["STEP_LENGTHS", "pca_step"]

STEP_LENGTHS = tuple(0.5**j for j in range(11))  # 1, 1/2, ..., 1/1024


def pca_step(
    S: Array, rank: int, floor: Array, *, lam_F: float = 0.0, start: LowRank | None = None
) -> SigmaStep[LowRank]:
    """The first point on the way from `start` to the principal components of S that lowers the penalised nll.

    S : (K, K).  floor : (K,), > 0, d never below it.  Without a start the principal components themselves, t = 1.
    accept_t : the step length, one of STEP_LENGTHS; 0.0 says none lowered the objective and `sigma` is the start.
    One set of leading eigenpairs and up to 11 objectives, O(K^2 rank) each.  Not the maximum of the likelihood.
    Raises ValueError for inputs that do not fit together.
    """
    checked_inputs(S, rank, floor)
    goal = principal_components(S, rank, floor)
    if start is None:
        return SigmaStep(goal, accept_t=1.0)
    start = padded(start, rank)
    before, F = penalised(start, S, lam_F), aligned(start.F, goal.F)
    for t in STEP_LENGTHS:
        trial = LowRank(F + t * (goal.F - F), np.maximum(start.d + t * (goal.d - start.d), floor))
        if penalised(trial, S, lam_F) < before:
            return SigmaStep(trial, accept_t=t)
    return SigmaStep(start, accept_t=0.0)


def principal_components(S: Array, rank: int, floor: Array) -> LowRank:
    """F = V diag(sqrt(lambda)) of the `rank` leading eigenpairs of S (K, K), d = max(diag(S - F F'), floor)."""
    values, vectors = leading(S, rank)
    F = vectors * np.sqrt(np.maximum(values, 0.0))
    return LowRank(F, np.maximum(np.diagonal(S) - np.einsum("ik,ik->i", F, F), floor))


def aligned(F: Array, goal: Array) -> Array:
    """F (K, k) rotated to be nearest to `goal`: orthogonal Procrustes, Schonemann (1966).  F F' is unchanged."""
    U, _, Vt = np.linalg.svd(F.T @ goal)
    return np.asarray(F @ (U @ Vt))
