"""What the loop is told, the points it goes through, and what it leaves behind."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.solve.interface import Problem

__all__ = ["BetaStep", "Keep", "Options", "Point", "Solution", "Termination", "TraceRow", "debiased"]


class Termination(enum.Enum):
    """Why the loop ended."""

    CONVERGED = "converged"
    MAX_SWEEPS = "max_sweeps"
    STALLED = "stalled"


@dataclass(frozen=True)
class Options:
    """How to alternate; see LowRankGLS for the meaning of each."""

    algorithm: Literal["als", "fgls", "em"] = "als"
    debiased: bool = False
    lam_B: float = 0.0
    d_floor: float = 1e-8
    rel_tol: float = 1e-10
    max_sweeps: int = 50
    cg_tol: float | None = None
    cg_maxit: int = 500
    accelerate: bool = True


@dataclass(frozen=True)
class TraceRow:
    """One half-step: "start", "sigma", "beta", "em", "joint" for a search over both together, or "covariance" for the
    pass that standard errors take.

    passes, bytes_read, seconds : totals since the fit began, this half-step included.
    """

    rank: int
    sweep: int
    step: str
    nll: float
    obj: float
    accept_t: float
    cg_iterations: int
    passes: int
    bytes_read: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Point:
    """Coefficients c (P,), their residual covariance S (K, K) and a Sigma, all in standard units."""

    c: np.ndarray
    S: np.ndarray
    sigma: Sigma


Keep = Callable[[int, Point], None]


@dataclass(frozen=True, eq=False)
class Solution:
    """Where the loop ended. n_starts, n_agreed : starting points tried, and how many led here."""

    point: Point
    nll: float
    obj: float
    termination: Termination
    trace: tuple[TraceRow, ...]
    n_starts: int
    n_agreed: int


@dataclass(frozen=True)
class BetaStep:
    """A GLS step: iterations, the energy r'M^-1 r it began with, and whether it went to the final tolerance.

    The energy is the squared distance, in standard errors, of the old coefficients from those of the new Sigma.
    """

    iterations: int
    energy: float
    final: bool


def debiased(problem: Problem, options: Options, S: np.ndarray) -> np.ndarray:
    """What Sigma is found from: S_ij, or S_ij N / sqrt((N - p_i)(N - p_j))."""
    if not options.debiased:
        return S
    root = np.sqrt(problem.n_obs / (problem.n_obs - problem.design.sizes))
    return S * root[:, None] * root
