"""Maximum likelihood with missing responses: which steps, from which starts, and which rank."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lrgls_dask.missing.als import IncompleteSweeps, Together
from lrgls_dask.missing.any_structure import fit_any_structure
from lrgls_dask.missing.crossvalidate import ShownFolds, shown_held_out_nll
from lrgls_dask.missing.em import IncompleteRounds
from lrgls_dask.missing.polish import nearly_bare
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.missing.starts import LARGEST_PAIRS, random_starts, starting_points
from lrgls_dask.sigma.interface import FactorStructure, Sigma, Structure
from lrgls_dask.sigma.structures import LowRankStructure, widened
from lrgls_dask.solve.checkpoint import Checkpoint, CheckpointLoop, run_from_kept
from lrgls_dask.solve.crossvalidate import Candidate
from lrgls_dask.solve.iterate import Goal, Half, State, iterate, run
from lrgls_dask.solve.record import NO_COVARIANCE, Options, Point, Solution, best_of_starts
from lrgls_dask.solve.selection import Table, best_by_folds, best_of, criteria

__all__ = ["Estimate", "choose_incomplete", "estimate_of", "fit_incomplete"]

CELLS_OF_MORE_STARTS = 200_000  # of pseudo-rows: up to so many a dozen more searches are a matter of seconds
ROUGHLY = 1e-8  # rel_tol at which ranks are compared: too many factors have no last digits worth their sweeps


def fit_incomplete(
    problem: Incomplete,
    structure: Structure,
    options: Options,
    kept: CheckpointLoop | None = None,
    *,
    several: bool = True,
) -> Solution[Point]:
    """The best solution of one structure; several starts where a look at a point is cheap.

    Where the rows themselves are held, low rank goes by the products of responses that are expected where they are
    missing: looks are then few, however many factors the data do not ask for. Else algorithm="als" alternates where the
    patterns are compressed; where every look at the rows is a pass it takes both half-steps from the same pass, which
    are the accelerated EM rounds.
    kept : where a streamed loop keeps its last point, and goes on from one that is there.
    """
    if options.one_step or not structure.by_equation or _by_products(problem, structure, options):
        return fit_any_structure(problem, structure, options, kept, several=several)
    structure = structure.by_rows()
    if not problem.restarts_are_free:
        return _streamed(problem, structure, options, kept)
    starts = starting_points(problem, structure, options)
    if problem.holds_rows:  # a look is at all of them: one start is followed, as where they are streamed
        starts = starts[:1]
    if options.algorithm != "als":
        return best_of_starts([_by_rounds(problem, structure, options, start) for start in starts], len(starts))
    sweeps = IncompleteSweeps(problem, structure, options)
    solutions = [run(sweeps, start, sweeps.goal()) for start in starts]
    best = best_of_starts(solutions, len(solutions))
    if problem.n_pseudo_cells > CELLS_OF_MORE_STARTS or not nearly_bare(widened(best.point.sigma)).any():
        return _together(problem, structure, options, best)
    more = [Point(starts[0].c, NO_COVARIANCE, sigma) for sigma in random_starts(problem, structure)]
    solutions += [run(sweeps, start, sweeps.goal()) for start in more]
    ends = [_together(problem, structure, options, found) for found in solutions]
    rounds = _together(problem, structure, options, _by_rounds(problem, structure, options, starts[0]))
    ends[0] = min(ends[0], rounds, key=lambda found: found.obj)  # two roads from one start
    return best_of_starts(ends, len(ends))


def _by_products(problem: Incomplete, structure: Structure, options: Options) -> bool:
    few = problem.design.n_equations <= LARGEST_PAIRS
    plain = isinstance(structure, LowRankStructure) and structure.sigma_step == "ml" and options.algorithm == "als"
    return problem.holds_rows and few and plain


def _by_rounds(
    problem: Incomplete,
    structure: FactorStructure,
    options: Options,
    start: Point,
    kept: CheckpointLoop | None = None,
) -> Solution[Point]:
    step = IncompleteRounds(problem, structure, options, widened(start.sigma))
    return run_from_kept(step, start, step.goal(), kept)


def _together(
    problem: Incomplete, structure: FactorStructure, options: Options, found: Solution[Point]
) -> Solution[Point]:
    """The solution once coefficients and Sigma have been moved together, in what counts as its last sweep."""
    step, sweep = Together(problem, structure, options), found.trace[-1].sweep
    opened = Half(found.point, nll=found.nll, obj=found.obj)
    state = State(sweep, found.point, opened=opened)
    looked = step.look(state)
    if looked.obj == found.obj:
        return found
    trace = step.trace()
    trace.rows.extend(found.trace)
    better = iterate(step, replace(state, looked=looked), Goal(sweep, options.rel_tol), trace)
    return replace(found, point=better.point, nll=better.nll, obj=better.obj, trace=better.trace)


def _streamed(
    problem: Incomplete, structure: FactorStructure, options: Options, kept: CheckpointLoop | None
) -> Solution[Point]:
    """The rounds from the point that is kept, else from the start."""
    return _by_rounds(problem, structure, options, starting_points(problem, structure, options)[0], kept)


def choose_incomplete(
    problem: Incomplete,
    structures: tuple[Structure, ...],
    options: Options,
    checkpoint: Checkpoint | None = None,
    folds: ShownFolds | None = None,
) -> tuple[Solution[Point], Table]:
    """The solution of least BIC among the structures, and one row for each where there are several; each is fitted.

    checkpoint : where streamed loops keep their last points, and go on from those that are there.
    folds : of the rows, where not BIC chooses but the likelihood of rows left out.
    """
    search = len(structures) > 1 and problem.holds_rows
    rough = replace(options, rel_tol=max(options.rel_tol, ROUGHLY)) if search else options
    solutions = []
    for each in structures:
        kept = None if checkpoint is None else checkpoint.loop("missing", each, options, problem.constraint)
        solutions.append(fit_incomplete(problem, each, rough, kept, several=not search))
    if len(structures) == 1:
        return solutions[0], ()
    rows = [criteria(problem, each, found.nll) for each, found in zip(structures, solutions, strict=True)]
    left_out = None if folds is None else _left_out(problem, structures, solutions, options, folds)

    def chosen() -> tuple[int, Table]:
        return best_of(rows, "bic") if left_out is None else best_by_folds(rows, *left_out)

    best, table = chosen()
    if search:
        solutions[best] = fit_incomplete(problem, structures[best], options)
        rows[best] = criteria(problem, structures[best], solutions[best].nll)
        _, table = chosen()
    return solutions[best], table


def _left_out(
    problem: Incomplete,
    structures: tuple[Structure, ...],
    solutions: list[Solution[Point]],
    options: Options,
    folds: ShownFolds,
) -> tuple[np.ndarray, np.ndarray]:
    """What `shown_held_out_nll` finds from the optima on all rows."""
    scale = problem.whitened.y_scale
    candidates = tuple(
        Candidate(each.in_units(1.0 / scale), problem.coefficients(found.point.c), found.point.sigma.rescaled(scale))
        for each, found in zip(structures, solutions, strict=True)
    )
    return shown_held_out_nll(folds, candidates, options)


@dataclass(frozen=True, eq=False)
class Estimate:
    """A solution in the user's units. coefficients : (P,) by equation.  covariance : loadings normalised.  on_floor :
    positions of equations whose variance is on its floor."""

    coefficients: np.ndarray
    covariance: Sigma
    loglik: float
    objective: float
    on_floor: np.ndarray


def estimate_of(problem: Incomplete, found: Solution[Point], options: Options) -> Estimate:
    """The solution in the user's units."""
    sigma = found.point.sigma
    return Estimate(
        coefficients=problem.coefficients(found.point.c),
        covariance=sigma.rescaled(problem.whitened.y_scale).normalised(),
        loglik=-problem.n_obs * (found.nll + problem.nll_offset),
        objective=found.obj + problem.nll_offset,
        on_floor=np.flatnonzero(sigma.on_floor(options.d_floor)),
    )
