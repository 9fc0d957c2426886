"""What every Sigma update shares: its result, the penalised objective, the check of a starting point."""

from __future__ import annotations

import numpy as np

from lrgls_dask.sigma.interface import LOG_2PI, Array, SigmaStep
from lrgls_dask.sigma.lowrank import LowRank

__all__ = ["checked_inputs", "kept_if_better", "nll_gradient", "padded", "penalised"]


# Two objectives closer than this, relative to max(1, |objective|), are equal: then the better gradient wins.
ROUNDING = 1e-14


def penalised(sigma: LowRank, S: Array, lam_F: float) -> float:
    """nll + lam_F/2 ||F||^2, per row, S (K, K).  O(K^2 k)."""
    return sigma.nll(S) + 0.5 * lam_F * float(np.vdot(sigma.F, sigma.F))


def nll_gradient(sigma: LowRank, S: Array) -> tuple[float, Array, Array]:
    """nll, d nll/dF (K, k) and d nll/d log d (K,) at a dense S (K, K).  O(K^2 k), two K x K arrays.

    d nll/dF = Sigma^-1 (Sigma - S) Sigma^-1 F;   d nll/dd = 1/2 diag(Sigma^-1 (Sigma - S) Sigma^-1).
    """
    PS = sigma.solve(S)  # Sigma^-1 S
    B = sigma.precision_loadings
    value = 0.5 * (sigma.n_equations * LOG_2PI + sigma.logdet + float(np.trace(PS)))
    quadratic = np.diagonal(sigma.solve_rows(PS))
    return value, B - PS @ B, 0.5 * sigma.d * (sigma.precision_diagonal - quadratic)


def kept_if_better(step: SigmaStep[LowRank], start: LowRank | None, S: Array, lam_F: float) -> SigmaStep[LowRank]:
    """`step`, or the start with accept_t = 0 where the step's objective is above the start's."""
    if start is None:
        return step
    before = penalised(start, S, lam_F)
    if penalised(step.sigma, S, lam_F) <= before + ROUNDING * max(1.0, abs(before)):
        return step
    return SigmaStep(start, accept_t=0.0, n_starts=step.n_starts, n_agreed=step.n_agreed)


def padded(start: LowRank, rank: int) -> LowRank:
    """`start` with columns of zeros up to `rank`: the same Sigma.  Raises ValueError if it has more factors already."""
    if start.rank > rank:
        raise ValueError(
            f"the start has {start.rank} factors but rank {rank} was asked for; start from at most {rank}."
        )
    if start.rank == rank:
        return start
    return LowRank(np.pad(start.F, ((0, 0), (0, rank - start.rank))), start.d)


def checked_inputs(S: Array, rank: int, floor: Array) -> None:
    """Refuse what no Sigma update can use: ValueError names the requirement and what was found."""
    K = S.shape[0]
    if S.shape != (K, K) or floor.shape != (K,) or not 0 <= rank < max(K, 1):
        raise ValueError(
            f"need S (K, K), floor (K,), 0 <= rank < K; got S {S.shape}, floor {floor.shape}, rank {rank}."
        )
    if not np.all(floor > 0.0):
        raise ValueError(f"floor must be positive; entry {int(np.argmin(floor))} is {floor.min()}.")
    if not np.isfinite(S).all():
        row = int(np.argmin(np.isfinite(S).all(axis=1)))
        raise ValueError(f"S must be finite; row {row} is not: a residual overflowed or was NaN.")
