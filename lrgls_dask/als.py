"""Alternating least squares: a factor step for Sigma at fixed coefficients, a GLS step for them at fixed Sigma.

    obj = nll(Sigma; S) + lam_F / 2 ||F||^2 + lam_B / (2 N) ||b||^2        (standard units, per row)

Neither half-step can raise the objective. The coefficients are always those of the Sigma that is reported.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from lrgls_dask.cg import conjugate_gradients
from lrgls_dask.covariance import LOOSE, LowRank, SigmaStep, ml_candidates, ml_step, pca_step
from lrgls_dask.problem import Problem

__all__ = [
    "Keep",
    "Options",
    "Point",
    "Solution",
    "Termination",
    "TraceRow",
    "alternate",
    "fit_rank",
    "go_on",
    "refit",
    "starting_residuals",
]


SAME_OBJECTIVE = 1e-7  # solutions that differ by less than this, relative to max(1, |obj|), are one
STAGNANT = 0.5  # a sweep that begins with more than this share of the energy of the one before is at rounding
SWEEP_FALL = 1e-3  # how far the energy of a GLS step falls before Sigma is looked at again
# What the energy of a sweep can still be worth: later sweeps gain a fraction of this one, this many times it at most.
MOST_TO_GAIN = 10.0
# A refit leaves all coefficients together within a thousandth of a standard error of their optimum, so that what it is
# short of moves no bootstrap quantile or held-out likelihood; its GLS steps go far below that at once.
REFIT_ENERGY, REFIT_FALL, REFIT_SWEEPS = 1e-6, 1e-6, 100
# The gradient of a refit's Sigma step, in units of its sampling deviation 1 / sqrt(N).
REFIT_GRADIENT = 1e-4


class Termination(enum.Enum):
    """Why the loop ended."""

    CONVERGED = "converged"
    MAX_SWEEPS = "max_sweeps"
    STALLED = "stalled"


@dataclass(frozen=True)
class Options:
    """How to alternate; see LowRankGLS for the meaning of each."""

    sigma_step: Literal["ml", "pca"] = "ml"
    lam_F: float = 0.0
    lam_B: float = 0.0
    d_floor: float = 1e-8
    rel_tol: float = 1e-10
    max_sweeps: int = 50
    cg_tol: float | None = None
    cg_maxit: int = 500
    sigma_tol: float = 1e-12


@dataclass(frozen=True)
class TraceRow:
    """One half-step: "start", "sigma", "beta", "em", or "covariance" for the pass that standard errors take.

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
    sigma: LowRank


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


@dataclass
class _Loop:
    """One run of the loop: the problem, the options and the trace it leaves."""

    problem: Problem
    rank: int
    options: Options
    trace: list[TraceRow] = field(default_factory=list)

    def objective(self, point: Point) -> tuple[float, float]:
        """nll and obj per row."""
        nll = point.sigma.nll(point.S)
        ridge = float(self.problem.coordinates.ridge @ point.c**2) / (2 * self.problem.n_obs)
        return nll, nll + 0.5 * self.options.lam_F * float(np.sum(point.sigma.F**2)) + ridge

    def record(
        self, sweep: int, step: Literal["start", "sigma", "beta"], point: Point, accept_t: float = 1.0, cg: int = 0
    ) -> float:
        nll, obj = self.objective(point)
        meter = self.problem.meter
        offset = self.problem.nll_offset
        row = TraceRow(
            self.rank,
            sweep,
            step,
            nll + offset,
            obj + offset,
            accept_t,
            cg,
            meter.passes,
            meter.bytes_read,
            meter.seconds,
        )
        self.trace.append(row)
        return obj

    def floor(self) -> np.ndarray:
        return np.full(self.problem.design.n_equations, self.options.d_floor)

    def sigma_step(self, point: Point) -> SigmaStep:
        o = self.options
        if o.sigma_step == "pca":
            return pca_step(point.S, self.rank, self.floor(), lam_F=o.lam_F, start=point.sigma)
        return ml_step(point.S, self.rank, self.floor(), lam_F=o.lam_F, start=point.sigma, tol=o.sigma_tol)

    def beta_step(self, point: Point, *, last: bool, fall: float = SWEEP_FALL) -> tuple[Point, BetaStep]:
        """Coefficients at point.sigma by warm-started CG.

        The inner iteration is stopped by its energy r'M^-1 r, about 2 N times what is left to gain in nll per row.
        Before the last sweep a fall to `fall` of its start is enough: Sigma has still to move by more than that.
        """
        system = self.problem.gls_step(point.c, point.sigma)
        precision = self.problem.coordinates.expand(point.sigma.precision_diagonal)
        diagonal = precision * (1.0 - self.problem.coordinates.ridge) + self.problem.coordinates.ridge
        final = self.problem.inner_energy(self.options.rel_tol)
        if self.options.cg_tol is not None:
            final = self.options.cg_tol**2 * float(point.c**2 @ diagonal)
        energy = float(system.score**2 @ (1.0 / diagonal))
        tol = final if last else max(final, fall * energy)
        found = conjugate_gradients(
            system.product, point.c, system.score, diagonal, tol=tol, max_iterations=self.options.cg_maxit
        )
        moved = Point(found.x, system.finish(found.x, found.steps), point.sigma)
        return moved, BetaStep(len(found.steps), energy, tol == final)


def go_on(problem: Problem, options: Options, done: int, point: Point, *, keep: Keep | None) -> Solution:
    """The solution from a point that `keep` was called with."""
    rank, floor = point.sigma.rank, np.full(problem.design.n_equations, options.d_floor)
    update = pca_step if options.sigma_step == "pca" else ml_step
    first = update(point.S, rank, floor, lam_F=options.lam_F, start=point.sigma)
    return alternate(problem, rank, options, point, first, done=done, keep=keep)


def starting_residuals(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Every equation fitted by itself: c (P,) and S (K, K)."""
    c = problem.coordinates.flat(problem.whitened.start)
    return c, problem.residual_covariance(c)


def alternate(
    problem: Problem,
    rank: int,
    options: Options,
    start: Point,
    first: SigmaStep,
    *,
    done: int = 0,
    keep: Keep | None = None,
    best: float = np.inf,
) -> Solution:
    """The loop from `start`, its first Sigma already found. Cost: a sweep is one GLS step and one Sigma step.

    done : sweeps that led to `start`.  keep : called with every point a killed client could go on from.
    best : the objective another start reached; the loop ends, as MAX_SWEEPS, once it shows that it will not get there.
    """
    loop = _Loop(problem, rank, options)
    obj = loop.record(done, "start", start)
    point, step = Point(start.c, start.S, first.sigma), first
    termination, beta, before = Termination.MAX_SWEEPS, BetaStep(0, np.inf, False), np.inf
    for sweep in range(done + 1, max(options.max_sweeps, done + 1) + 1):
        last = sweep >= options.max_sweeps
        if sweep > done + 1:
            step = loop.sigma_step(point)
            changed = Point(point.c, point.S, step.sigma)
            stalled = step.accept_t == 0.0 and options.sigma_step == "pca"
            flat = obj - loop.objective(changed)[1] <= options.rel_tol * max(1.0, abs(obj))
            # where the objective shows no more digits the coefficients may still move: until they no longer do
            still = beta.energy <= problem.settled_energy(options.rel_tol) or beta.energy > STAGNANT * before
            if stalled or (flat and still):
                termination = Termination.STALLED if stalled else Termination.CONVERGED
                if beta.final and not problem.restarts_are_free:
                    break  # a pass would buy nothing: the coefficients are those of the Sigma we keep
                last = True
            point = changed
        obj = loop.record(sweep, "sigma", point, step.accept_t)
        before = beta.energy
        point, beta = loop.beta_step(point, last=last)
        obj = loop.record(sweep, "beta", point, cg=beta.iterations)
        if keep is not None:
            keep(sweep, point)
        if termination is not Termination.MAX_SWEEPS or obj - MOST_TO_GAIN * beta.energy / problem.n_obs > best:
            break
    nll, obj = loop.objective(point)
    return Solution(point, nll, obj, termination, tuple(loop.trace), first.n_starts, first.n_agreed)


def fit_rank(
    problem: Problem, rank: int, options: Options, c: np.ndarray, S: np.ndarray, *, keep: Keep | None = None
) -> Solution:
    """The best solution for one rank from coefficients c with residual covariance S.

    Several deterministic starts for Sigma; every distinct optimum among them is followed to the end of its loop on a
    compressed system, where that is free, and only the best one where a sweep costs passes.
    """
    floor = np.full(problem.design.n_equations, options.d_floor)
    diagonal = LowRank(np.zeros((len(S), 0)), np.maximum(S.diagonal(), floor))
    start = Point(c, S, diagonal)
    if options.sigma_step == "pca":
        first = pca_step(S, rank, floor, lam_F=options.lam_F, start=diagonal)
        return alternate(problem, rank, options, start, first, keep=keep)
    # where sweeps are free the loop itself polishes what it follows, at better coefficients than these
    tol = LOOSE if problem.restarts_are_free else options.sigma_tol
    candidates = ml_candidates(S, rank, floor, lam_F=options.lam_F, tol=tol)
    if not problem.restarts_are_free:
        candidates = candidates[:1]
    solutions: list[Solution] = []
    for first in candidates:
        least = min((s.obj for s in solutions), default=np.inf)
        best = least + SAME_OBJECTIVE * max(1.0, abs(least)) if solutions else np.inf
        solutions.append(alternate(problem, rank, options, start, first, keep=keep, best=best))
    return _best(solutions)


def refit(problem: Problem, rank: int, options: Options, start: Point) -> Point:
    """The optimum of a problem near one that is known: a replicate of the bootstrap, a fold of cross-validation.

    start : its c and S in the coordinates of `problem`.  The local optimum that `start` leads to, to a precision far
    below the statistical error, in two to four sweeps where N is much larger than P / K; nothing is recorded.
    """
    tolerance = max(options.sigma_tol, REFIT_GRADIENT / np.sqrt(problem.n_obs))
    loop, point, before = _Loop(problem, rank, replace(options, sigma_tol=tolerance)), start, np.inf
    for _ in range(REFIT_SWEEPS):
        point = Point(point.c, point.S, loop.sigma_step(point).sigma)
        point, beta = loop.beta_step(point, last=False, fall=REFIT_FALL)
        # all later steps together, were each to be shorter than the one before it as this one was
        shorter = np.sqrt(beta.energy / before) if before < np.inf else 0.5
        if shorter < 1.0 and beta.energy * (shorter / (1.0 - shorter)) ** 2 <= REFIT_ENERGY:
            break
        before = beta.energy
    return point


def _best(solutions: list[Solution]) -> Solution:
    best = min(solutions, key=lambda s: s.obj)
    same = [s for s in solutions if s.obj - best.obj <= SAME_OBJECTIVE * max(1.0, abs(best.obj))]
    agreed = sum(s.n_agreed for s in same)
    return Solution(
        best.point, best.nll, best.obj, best.termination, best.trace, best.n_starts, min(agreed, best.n_starts)
    )
