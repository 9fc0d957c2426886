"""Alternating least squares: a step for Sigma at fixed coefficients, a GLS step for them at fixed Sigma.

    obj = nll(Sigma; S) + penalty of Sigma + lam_B / (2 N) ||b||^2        (standard units, per row)

Neither half-step can raise the objective (with debiased=True there is none, only a fixed point). The coefficients are
always those of the Sigma that is reported.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lrgls_dask.sigma.em import Anderson
from lrgls_dask.sigma.interface import LOOSE, TIGHT, Sigma, SigmaStep, Structure
from lrgls_dask.solve.interface import Problem, inner_energy
from lrgls_dask.solve.record import BetaStep, Keep, Options, Point, Solution, Termination, debiased
from lrgls_dask.solve.sweep import Sweeps, starting_residuals

__all__ = ["alternate", "best_start", "fit_structure", "go_on", "refit", "slack"]


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
# An accelerated sweep has to be the map itself, to the digits that extrapolation multiplies.
MAP_FALL = 1e-8
# Where convergence is linear at a rate near 1 the distance left is hundreds of times the last move.
SLOW_SHARE = 1e-4
# An objective that rises by less than this, relative to max(1, |objective|), has not risen.
ROUNDING = 1e-14
# The squared distance in standard errors of a sweep that moved nothing: identical regressors, say, at the first one.
ENERGY_ROUNDING = 1e-18
# Sweeps kept for extrapolation, and how many without a gain say that only rounding is left.
SWEEPS_KEPT, PATIENCE = 6, 8


def go_on(
    problem: Problem, structure: Structure, options: Options, done: int, point: Point, *, keep: Keep | None
) -> Solution:
    """The solution from a point that `keep` was called with."""
    first = Sweeps(problem, structure, options).sigma_step(point)
    return alternate(problem, structure, options, point, first, done=done, keep=keep)


def alternate(
    problem: Problem,
    structure: Structure,
    options: Options,
    start: Point,
    first: SigmaStep[Sigma],
    *,
    done: int = 0,
    keep: Keep | None = None,
    best: float = np.inf,
) -> Solution:
    """The loop from `start`, its first Sigma already found. Cost: a sweep is one GLS step and one Sigma step.

    done : sweeps that led to `start`.  keep : called with every point a killed client could go on from.
    best : the objective another start reached; the loop ends, as MAX_SWEEPS, once it shows that it will not get there.
    """
    loop = Sweeps(problem, structure, options)
    obj = loop.record(done, "start", start)
    point, step = Point(start.c, start.S, first.sigma), first
    if options.algorithm == "fgls" or structure.fixed:
        return _one_step(loop, point, first)
    if structure.closed_form:
        return _accelerated(loop, point, first, _goals(problem, options), done=done, keep=keep)
    termination, beta, before = Termination.MAX_SWEEPS, BetaStep(0, np.inf, False), np.inf
    for sweep in range(done + 1, max(options.max_sweeps, done + 1) + 1):
        last = sweep >= options.max_sweeps
        if sweep > done + 1:
            step = loop.sigma_step(point)
            changed = Point(point.c, point.S, step.sigma)
            stalled = step.accept_t == 0.0 and structure.line_search
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
        point, beta = loop.beta_step(point, fall=0.0 if last else SWEEP_FALL)
        obj = loop.record(sweep, "beta", point, cg=beta.iterations)
        if keep is not None:
            keep(sweep, point)
        if termination is not Termination.MAX_SWEEPS or obj - MOST_TO_GAIN * beta.energy / problem.n_obs > best:
            break
    return loop.solution(point, termination, first)


def _one_step(loop: Sweeps, point: Point, first: SigmaStep[Sigma]) -> Solution:
    """Feasible generalised least squares: the coefficients at the Sigma of the starting residuals."""
    loop.record(1, "sigma", point, first.accept_t)
    point, beta = loop.beta_step(point, fall=0.0)
    loop.record(1, "beta", point, cg=beta.iterations)
    return loop.solution(point, Termination.CONVERGED, first)


def _accelerated(
    loop: Sweeps,
    point: Point,
    first: SigmaStep[Sigma],
    goals: tuple[float, float],
    *,
    done: int = 0,
    keep: Keep | None = None,
) -> Solution:
    """The same sweeps as a map c -> GLS at Sigma(c), extrapolated by Anderson.

    An extrapolation that raises the objective (with debiased=True: the distance still to go) is taken back to the plain
    sweep before it. Extrapolated coefficients are affine combinations of earlier ones and so keep to the restrictions.
    Ends where a sweep would move the coefficients by next to nothing. Streamed, an extrapolation costs one more pass.
    goals : the squared distance in standard errors that one sweep may still move, at rounding and otherwise.
    """
    problem, options = loop.problem, loop.options
    nearly, goal = goals
    units = 1.0 / np.sqrt(problem.coordinates.expand(point.sigma.variances))
    state, plain, kept, step = Anderson(depth=SWEEPS_KEPT), True, point, first
    least, unimproved, last_obj = np.inf, 0, np.inf
    for sweep in range(done + 1, max(options.max_sweeps, done + 1) + 1):
        obj = loop.record(sweep, "sigma", point, step.accept_t)
        moved, beta = loop.beta_step(point, fall=0.0 if sweep >= options.max_sweeps else MAP_FALL)
        loop.record(sweep, "beta", moved, cg=beta.iterations)
        unimproved = 0 if beta.energy < STAGNANT * least else unimproved + 1
        least = min(least, beta.energy)
        # where nothing bounds the likelihood it goes on falling while the coefficients hardly move
        flat, last_obj = abs(last_obj - obj) <= options.rel_tol * max(1.0, abs(obj)), obj
        settled = beta.energy <= goal or (unimproved >= PATIENCE and beta.energy <= nearly)
        if settled and (flat or beta.energy <= ENERGY_ROUNDING):
            return loop.solution(moved, Termination.CONVERGED, first)
        value, slack = (beta.energy, 0.0) if options.debiased else (obj, ROUNDING * max(1.0, abs(obj)))
        if not plain and value > state.value + slack:
            point, plain = kept, True
        else:
            kept = moved
            if keep is not None:
                keep(sweep, kept)
            if sweep >= options.max_sweeps:
                break
            ahead, state = state.accepted(point.c * units, kept.c * units, value)
            plain = len(state.points) == 1
            point = kept if plain else _at(problem, ahead / units, kept.sigma)
        step = loop.sigma_step(point)
        point = Point(point.c, point.S, step.sigma)
    return loop.solution(kept, Termination.MAX_SWEEPS, first)


def _at(problem: Problem, c: np.ndarray, sigma: Sigma) -> Point:
    return Point(c, problem.residual_covariance(c), sigma)


def _goals(problem: Problem, options: Options) -> tuple[float, float]:
    """How near a fit comes to its fixed point."""
    settled = problem.settled_energy(options.rel_tol)
    if problem.restarts_are_free:
        return settled, SLOW_SHARE * settled
    return settled, inner_energy(problem, options.rel_tol)


def fit_structure(
    problem: Problem, structure: Structure, options: Options, c: np.ndarray, S: np.ndarray, *, keep: Keep | None = None
) -> Solution:
    """The best solution for one structure from coefficients c with residual covariance S.

    Several deterministic starts for Sigma; every distinct optimum among them is followed to the end of its loop on a
    compressed system, where that is free, and only the best one where a sweep costs passes or there is one step.
    """
    floor = np.full(problem.design.n_equations, options.d_floor)
    scaled = debiased(problem, options, S)
    start = Point(c, S, structure.start(S, floor))
    if not problem.restarts_are_free or options.algorithm == "fgls":
        first = structure.candidates(scaled, floor)[0]
        return alternate(problem, structure, options, start, first, keep=keep)
    solutions: list[Solution] = []
    # the loop itself polishes what it follows, at better coefficients than these, if it is given more than one sweep
    for first in structure.candidates(scaled, floor, tol=LOOSE if options.max_sweeps > 1 else TIGHT):
        best = np.inf
        if solutions and not options.debiased:  # then no sweep raises the objective
            least = min(s.obj for s in solutions)
            best = least + slack(least)
        solutions.append(alternate(problem, structure, options, start, first, keep=keep, best=best))
    return _best(solutions)


def refit(problem: Problem, structure: Structure, options: Options, start: Point) -> Point:
    """The optimum of a problem near one that is known: a replicate of the bootstrap, a fold of cross-validation.

    start : its c, within the restrictions, and S in the coordinates of `problem`.  The local optimum that `start` leads
    to, to a precision far below the statistical error, in two to four sweeps where N is much larger than P / K; one
    step from the starting residuals with algorithm="fgls".
    """
    loop = Sweeps(problem, structure, replace(options, max_sweeps=REFIT_SWEEPS))
    tol = max(TIGHT, REFIT_GRADIENT / np.sqrt(problem.n_obs))
    if options.algorithm == "fgls":
        start = Point(*starting_residuals(problem, pooled=True), start.sigma)
    first = loop.sigma_step(start, tol=tol)
    point = Point(start.c, start.S, first.sigma)
    if options.algorithm == "fgls" or structure.fixed:
        return _one_step(loop, point, first).point
    if structure.closed_form:
        return _accelerated(loop, point, first, (REFIT_ENERGY, SLOW_SHARE * REFIT_ENERGY)).point
    point, beta = loop.beta_step(point, fall=REFIT_FALL)
    shorter = 0.5  # until two sweeps show how much shorter each is than the one before it
    for _ in range(1, REFIT_SWEEPS):
        # all later steps together, were each to be shorter than the one before it as this one was
        if shorter < 1.0 and beta.energy * (shorter / (1.0 - shorter)) ** 2 <= REFIT_ENERGY:
            break
        before = beta.energy
        point, beta = loop.beta_step(Point(point.c, point.S, loop.sigma_step(point, tol=tol).sigma), fall=REFIT_FALL)
        shorter = np.sqrt(beta.energy / before)
    return point


def slack(obj: float) -> float:
    """By how much an objective may differ from this one and count as the same."""
    return SAME_OBJECTIVE * max(1.0, abs(obj))


def best_start(solutions: list[Solution]) -> Solution:
    """The best of what as many starting points led to."""
    best = min(solutions, key=lambda found: found.obj)
    agreed = sum(found.obj - best.obj <= slack(best.obj) for found in solutions)
    return replace(best, n_starts=len(solutions), n_agreed=agreed)


def _best(solutions: list[Solution]) -> Solution:
    best = min(solutions, key=lambda s: s.obj)
    agreed = sum(s.n_agreed for s in solutions if s.obj - best.obj <= slack(best.obj))
    return Solution(
        best.point, best.nll, best.obj, best.termination, best.trace, best.n_starts, min(agreed, best.n_starts)
    )
