"""What a fit is told, the points it goes through, and what it leaves behind."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np
from dask.base import normalize_token

from lrgls_dask.design.penalties import Ridge
from lrgls_dask.sigma.interface import Sigma, Structure
from lrgls_dask.solve.divisors import corrected
from lrgls_dask.solve.interface import Posed, Problem

__all__ = [
    "NO_COVARIANCE",
    "Options",
    "Point",
    "Saved",
    "Solution",
    "Termination",
    "TraceRow",
    "best_of_starts",
    "debiased",
    "penalised",
    "slack",
    "to_come",
]

SAME_OBJECTIVE = 1e-7  # solutions that differ by less than this, relative to max(1, |obj|), are one
TIED = 1e-12  # and of these that differ by rounding alone the first is taken

# A move's length relative to the one before it, until two are known.
UNKNOWN_SHARE = 0.5

P = TypeVar("P")
P_co = TypeVar("P_co", covariant=True)


class Termination(enum.Enum):
    """Why the loop ended."""

    CONVERGED = "converged"
    MAX_SWEEPS = "max_sweeps"
    STALLED = "stalled"


LATER = ("improper", "rank_by")  # options that came after the first checkpoints


@dataclass(frozen=True)
class Options:
    """How to fit; see LowRankGLS for the meaning of each. max_sweeps : None for each algorithm's own (iterate.py).

    rank_by : by what the number of factors is chosen, where folds of the rows do not say.
    """

    algorithm: Literal["als", "fgls", "em", "ols"] = "als"
    debiased: bool | Literal["Theil", "max"] = False
    lam_B: Ridge = 0.0
    d_floor: float = 1e-8
    rel_tol: float = 1e-10
    max_sweeps: int | None = None
    cg_tol: float | None = None
    cg_maxit: int = 500
    accelerate: bool = True
    improper: Literal["warn", "avoid"] = "warn"
    rank_by: Literal["bic", "parallel", "eigenvalue-ratio"] = "bic"

    def __dask_tokenize__(self) -> object:
        """As Dask has it of any dataclass, but for options of later versions where they keep their defaults: what an
        earlier version has begun is gone on with."""
        made: Any = vars(type(self))["__dataclass_params__"]
        params = [(name, getattr(made, name)) for name in made.__slots__]
        own = [each for each in fields(self) if each.name not in LATER or getattr(self, each.name) != each.default]
        kept = [(each.name, normalize_token(getattr(self, each.name))) for each in own]
        return normalize_token(type(self)), params, kept

    @property
    def one_step(self) -> bool:
        """Whether Sigma is that of the residuals of least squares, all of which count alike."""
        return self.algorithm in ("fgls", "ols")


@dataclass(frozen=True)
class TraceRow:
    """One half-step: "start", "sigma", "beta", "em", "joint" for a search over both together, or "covariance" for the
    pass that standard errors take.

    passes, bytes_read, seconds : totals since the fit began, this half-step included.
    read_for : what the passes since the row before were for, "" where there were none.
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
    read_for: str = ""


NO_COVARIANCE = np.zeros((0, 0))  # the S of points that hold none


@dataclass(frozen=True, eq=False)
class Point:
    """Coefficients c (P,), their residual covariance S, (K, K) or (0, 0) where none is held or the rows it is made of,
    and a Sigma, all in standard units."""

    c: np.ndarray
    S: Any
    sigma: Sigma


@dataclass(frozen=True, eq=False)
class Solution(Generic[P]):
    """Where the loop ended. n_starts, n_agreed : starting points tried, and how many led here.

    informed : whether the last look has summed what standard errors take.
    """

    point: P
    nll: float
    obj: float
    termination: Termination
    trace: tuple[TraceRow, ...]
    n_starts: int = 1
    n_agreed: int = 1
    informed: bool = False


class Saved(Protocol[P_co]):
    """What a checkpoint holds of a loop: the point after a sweep, `State.marks`, the trace and the totals of the meter
    so far, and the solution if it ended there."""

    @property
    def sweep(self) -> int: ...

    @property
    def point(self) -> P_co: ...

    @property
    def marks(self) -> Mapping[str, Any]: ...

    @property
    def trace(self) -> tuple[TraceRow, ...]: ...

    @property
    def totals(self) -> tuple[int, int]: ...

    @property
    def ended(self) -> Termination | None: ...


def slack(obj: float) -> float:
    """By how much an objective may differ from this one and count as the same."""
    return SAME_OBJECTIVE * max(1.0, abs(obj))


def best_of_starts(solutions: list[Solution[P]], n_starts: int) -> Solution[P]:
    """The best of what several starting points led to, and how many of them led there too.

    A start that stands for others, which led to the same Sigma before any sweep, counts as all of them.
    n_starts : how many there were, no two of them the same.
    """
    least = min(found.obj for found in solutions)
    agreed = sum(found.n_agreed for found in solutions if found.obj - least <= slack(least))
    # rounding of the objective would choose between these, and they differ in the digits that its optimum is flat in
    best = next(found for found in solutions if found.obj - least <= TIED * max(1.0, abs(least)))
    return replace(best, n_starts=n_starts, n_agreed=min(agreed, n_starts))


def penalised(problem: Posed, structure: Structure, c: np.ndarray, sigma: Sigma, nll: float) -> float:
    """obj per row, given nll per row."""
    ridge = float(problem.coordinates.ridge @ c**2) / (2 * problem.n_obs)
    return nll + structure.penalty(sigma) + ridge


def debiased(problem: Problem, options: Options, S: Any) -> Any:
    """What Sigma is found from: S, or S corrected for the coefficients that were estimated."""
    return corrected(problem, options.debiased, S)


def to_come(energy: float, before: float) -> float:
    """The squared length of all later moves together, were each shorter than the one before it as the last one was.

    energy, before : squared lengths of the last move and of the one before, infinity where there was none. With s the
    ratio of lengths, their sum is s / (1 - s) of the last; infinity where they do not get shorter.
    """
    share = np.sqrt(energy / before) if np.isfinite(before) and before > 0 else UNKNOWN_SHARE
    return float(energy * (share / (1.0 - share)) ** 2) if share < 1.0 else np.inf
