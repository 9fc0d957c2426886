"""ALS from every start of one structure, from one Sigma that is known, or on from a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lrgls_dask.sigma.interface import LOOSE, TIGHT, Sigma, SigmaStep, Structure
from lrgls_dask.solve.accelerated import Accelerated
from lrgls_dask.solve.als import Alternating
from lrgls_dask.solve.checkpoint import CheckpointLoop, run_from_kept
from lrgls_dask.solve.interface import Problem
from lrgls_dask.solve.iterate import run
from lrgls_dask.solve.ols import LeastSquares
from lrgls_dask.solve.record import Options, Point, Solution, Termination, best_of_starts, debiased, slack
from lrgls_dask.solve.starting_values import starting_residuals, starting_values, ties_equations

__all__ = ["Starts", "als_from", "fit_structure", "starting_points"]

# Sweeps without extrapolation that lead from a start to the neighbourhood of one optimum.
PLAIN_SWEEPS = 50

Starts = Sequence[tuple[np.ndarray, np.ndarray]]  # coefficients c (P,) and their residual covariances S (K, K)


def starting_points(problem: Problem, options: Options) -> Starts:
    """Several where that is free, one where each would take a pass or there is only one step."""
    if options.one_step:
        return [starting_residuals(problem, pooled=True)]
    found = starting_values(problem)
    return [(c, problem.residual_covariance(c)) for c in (found if problem.restarts_are_free else found[:1])]


def fit_structure(
    problem: Problem,
    structure: Structure,
    options: Options,
    starts: Starts,
    *,
    kept: CheckpointLoop | None = None,
) -> Solution[Point]:
    """The best solution for one structure from any of several coefficients c with residual covariances S.

    Several deterministic starts for Sigma at the first of them; every distinct optimum among them is followed to the
    end of its loop on a compressed system, where that is free, and only the best one where a sweep costs passes or
    there is one step. At other coefficients, whose loops go where each of them leads, the best Sigma is followed.
    """
    floor = np.full(problem.design.n_equations, options.d_floor)
    if not problem.restarts_are_free or options.one_step or structure.fixed:
        c, S = starts[0]
        first = structure.candidates(debiased(problem, options, S), floor)[0]
        return als_from(problem, structure, options, Point(c, S, structure.start(S, floor)), first, kept=kept)
    solutions: list[Solution[Point]] = []
    n_starts = 0
    for number, (c, S) in enumerate(starts[:1] if structure.line_search else starts):  # which ends where it stalls
        start = Point(c, S, structure.start(S, floor))
        # the loop itself polishes what it follows, at better coefficients, if it is given more than one sweep
        tol = TIGHT if options.max_sweeps == 1 else LOOSE
        firsts = structure.candidates(debiased(problem, options, S), floor, tol=tol)
        n_starts += firsts[0].n_starts
        for first in firsts if number == 0 else firsts[:1]:
            wanted = np.inf
            if solutions and number == 0 and not options.debiased:  # then no sweep raises the objective
                least = min(s.obj for s in solutions)
                wanted = least + slack(least)
            solutions.append(_followed(problem, structure, options, start, first, wanted))
    return best_of_starts(solutions, n_starts)


def _followed(
    problem: Problem,
    structure: Structure,
    options: Options,
    start: Point,
    first: SigmaStep[Sigma],
    wanted: float,
) -> Solution[Point]:
    """The loop from a start. Where restrictions tie equations, the better of two: extrapolation, which far from any
    optimum leaves the one that plain sweeps lead to, for a better or a worse one, also begins where those have led."""
    found = als_from(problem, structure, options, start, first, wanted=wanted)
    if not structure.closed_form or not ties_equations(problem):
        return found
    plain = Alternating(problem, structure, options)
    goal = replace(plain.goal(wanted=wanted), most=min(plain.most, PLAIN_SWEEPS))
    near = run(plain, start, goal, looked=plain.looked(start, first)).point
    floor = np.full(problem.design.n_equations, options.d_floor)
    there = structure.candidates(debiased(problem, options, near.S), floor)[0]
    eased = replace(als_from(problem, structure, options, near, there, wanted=wanted), n_agreed=found.n_agreed)
    return eased if eased.obj < found.obj - slack(found.obj) else found


def als_from(
    problem: Problem,
    structure: Structure,
    options: Options,
    start: Point,
    first: SigmaStep[Sigma],
    *,
    kept: CheckpointLoop | None = None,
    wanted: float = np.inf,
) -> Solution[Point]:
    """The loop from `start`, its first Sigma already found; of one step, its first sweep alone.

    wanted : the objective another start reached; the loop ends, as MAX_SWEEPS, once it shows it will not get there.
    """
    if options.one_step or structure.fixed:
        step = (LeastSquares if options.algorithm == "ols" else Alternating)(problem, structure, options)
        found = run(step, start, replace(step.goal(), most=1), looked=step.looked(start, first))
        found = replace(found, termination=Termination.CONVERGED)
    else:
        step = _step(problem, structure, options, first.sigma)
        found = run_from_kept(step, start, step.goal(wanted=wanted), kept, looked=step.looked(start, first))
    return replace(found, n_starts=first.n_starts, n_agreed=first.n_agreed)


def _step(problem: Problem, structure: Structure, options: Options, near: Sigma) -> Alternating:
    if structure.closed_form:
        return Accelerated(problem, structure, options, variances=near.variances)
    return Alternating(problem, structure, options)
