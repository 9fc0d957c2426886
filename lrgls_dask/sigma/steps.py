"""What every Sigma update shares: its result, the penalised objective, the check of a starting point."""

from __future__ import annotations

import numpy as np

from lrgls_dask.sigma.interface import LOG_2PI, Array, SigmaStep
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.of_rows import Moments, OfRows

__all__ = ["checked_inputs", "kept_if_better", "nll_gradient", "padded", "penalised"]


# Two objectives closer than this, relative to max(1, |objective|), are equal: then the better gradient wins.
ROUNDING = 1e-14


def penalised(sigma: LowRank, S: Moments, lam_F: float) -> float:
    """nll + lam_F/2 ||F||^2, per row, S (K, K).  O(K^2 k)."""
    return sigma.nll(S) + 0.5 * lam_F * float(np.vdot(sigma.F, sigma.F))


def nll_gradient(sigma: LowRank, S: Moments) -> tuple[float, Array, Array]:
    """nll, d nll/dF (K, k) and d nll/d log d (K,) at S (K, K).  O(K^2 k), two K x K arrays; O(K m k) of m rows.

    d nll/dF = Sigma^-1 (Sigma - S) Sigma^-1 F;   d nll/dd = 1/2 diag(Sigma^-1 (Sigma - S) Sigma^-1).
    """
    B = sigma.precision_loadings
    if isinstance(S, OfRows):
        solved = sigma.solve_rows(S.rows)
        trace, along = S.trace(solved), solved.T @ (S.rows @ B)
        quadratic = np.einsum("ij,ij->j", solved, solved)
    else:
        PS = sigma.solve(S)  # Sigma^-1 S
        trace, along = float(np.trace(PS)), PS @ B
        quadratic = np.diagonal(sigma.solve_rows(PS))
    value = 0.5 * (sigma.n_equations * LOG_2PI + sigma.logdet + trace)
    return value, B - along, 0.5 * sigma.d * (sigma.precision_diagonal - quadratic)


def kept_if_better(step: SigmaStep[LowRank], start: LowRank | None, S: Moments, lam_F: float) -> SigmaStep[LowRank]:
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


def checked_inputs(S: Moments, rank: int, floor: Array) -> None:
    """Refuse what no Sigma update can use: ValueError names the requirement and what was found."""
    K = S.shape[0]
    if S.shape != (K, K) or floor.shape != (K,) or not 0 <= rank < max(K, 1):
        raise ValueError(
            f"need S (K, K), floor (K,), 0 <= rank < K; got S {S.shape}, floor {floor.shape}, rank {rank}."
        )
    if not np.all(floor > 0.0):
        raise ValueError(f"floor must be positive; entry {int(np.argmin(floor))} is {floor.min()}.")
    finite = np.isfinite(S.diagonal()) if isinstance(S, OfRows) else np.isfinite(S).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise ValueError(f"S must be finite; row {row} is not: a residual overflowed or was NaN.")
