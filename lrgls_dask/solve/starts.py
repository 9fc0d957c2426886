"""ALS from every start of one structure, from one Sigma that is known, or on from a checkpoint."""

from __future__ import annotations

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

__all__ = ["als_from", "fit_structure"]


def fit_structure(
    problem: Problem,
    structure: Structure,
    options: Options,
    c: np.ndarray,
    S: np.ndarray,
    *,
    kept: CheckpointLoop | None = None,
) -> Solution[Point]:
    """The best solution for one structure from coefficients c with residual covariance S.

    Several deterministic starts for Sigma; every distinct optimum among them is followed to the end of its loop on a
    compressed system, where that is free, and only the best one where a sweep costs passes or there is one step.
    """
    floor = np.full(problem.design.n_equations, options.d_floor)
    scaled = debiased(problem, options, S)
    start = Point(c, S, structure.start(S, floor))
    if not problem.restarts_are_free or options.one_step:
        first = structure.candidates(scaled, floor)[0]
        return als_from(problem, structure, options, start, first, kept=kept)
    solutions: list[Solution[Point]] = []
    # the loop itself polishes what it follows, at better coefficients than these, if it is given more than one sweep
    for first in structure.candidates(scaled, floor, tol=TIGHT if options.max_sweeps == 1 else LOOSE):
        wanted = np.inf
        if solutions and not options.debiased:  # then no sweep raises the objective
            least = min(s.obj for s in solutions)
            wanted = least + slack(least)
        solutions.append(als_from(problem, structure, options, start, first, wanted=wanted))
    return best_of_starts(solutions)


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
