"""Maximum likelihood with missing responses: which steps, from which starts, and which rank."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lrgls_dask.compression.patterns import LARGEST_PAIRS
from lrgls_dask.missing.als import IncompleteSweeps, Together
from lrgls_dask.missing.any_structure import fit_any_structure, fit_side_by_side
from lrgls_dask.missing.crossvalidate import ShownFolds, shown_held_out_nll
from lrgls_dask.missing.em import IncompleteRounds
from lrgls_dask.missing.polish import nearly_bare
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.missing.starts import random_starts, starting_points
from lrgls_dask.sigma.interface import FactorStructure, Sigma, Structure
from lrgls_dask.sigma.structures import widened
from lrgls_dask.solve.checkpoint import Checkpoint, CheckpointLoop, run_from_kept
from lrgls_dask.solve.crossvalidate import Candidate
from lrgls_dask.solve.iterate import Goal, Half, State, iterate, run
from lrgls_dask.solve.record import NO_COVARIANCE, Options, Point, Solution, best_of_starts
from lrgls_dask.solve.selection import Table, best_by_folds, best_of, criteria, floored

__all__ = ["Estimate", "choose_incomplete", "estimate_of", "fit_incomplete"]

CELLS_OF_MORE_STARTS = 200_000  # of pseudo-rows: up to so many a dozen more searches are a matter of seconds


def fit_incomplete(
    problem: Incomplete,
    structure: Structure,
    options: Options,
    kept: CheckpointLoop | None = None,
    *,
    informed: bool = False,
) -> Solution[Point]:
    """The best solution of one structure; several starts where a look at a point is cheap.

    Where the rows are held or streamed, by the products of responses that are expected where they are missing: looks at
    the rows are then few. Else algorithm="als" alternates where the patterns are compressed, and accelerated EM rounds
    are taken for algorithm="em", and for more equations than a pass can sum products of.
    kept : where a streamed loop keeps its last point, and goes on from one that is there.
    informed : as of `ExpectedSweeps`.
    """
    if _by_products(problem, structure, options):
        return fit_any_structure(problem, structure, options, kept, informed=informed)
    structure = structure.by_rows()
    starts = starting_points(problem, structure, options)
    if problem.holds_rows:  # a look is at all of them: one start is followed, as where they are streamed
        starts = starts[:1]
    if options.algorithm != "als" or not problem.restarts_are_free:
        kept = None if problem.restarts_are_free else kept
        return best_of_starts([_by_rounds(problem, structure, options, start, kept) for start in starts], len(starts))
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
    """Whether a fit goes by residual products that are expected, which every structure can."""
    if options.one_step or not structure.by_equation:
        return True
    looks_at_rows = problem.holds_rows or not problem.restarts_are_free
    return options.algorithm == "als" and looks_at_rows and problem.design.n_equations <= LARGEST_PAIRS


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


def choose_incomplete(
    problem: Incomplete,
    structures: tuple[Structure, ...],
    options: Options,
    checkpoint: Checkpoint | None = None,
    folds: ShownFolds | None = None,
    *,
    informed: bool = False,
) -> tuple[Solution[Point], Table]:
    """The solution of least BIC among the structures, and one row for each where there are several.

    Where looks go through the rows all structures are looked at side by side; only the best then has several starts,
    where these are free.
    checkpoint : where streamed loops keep their last points, and go on from those that are there.
    folds : of the rows, where not BIC chooses but the likelihood of rows left out.
    informed : as of `ExpectedSweeps`.
    """

    def kept_of(structure: Structure) -> CheckpointLoop | None:
        if checkpoint is None or problem.restarts_are_free:
            return None
        return checkpoint.loop("missing", structure, options, problem.constraint)

    if len(structures) > 1 and options.rank_by != "bic":
        raise ValueError(
            f"rank={options.rank_by!r} is of eigenvalues of residual covariances of complete rows, and these miss "
            "responses. Use rank='bic', or missing='drop'."
        )
    if len(structures) == 1:
        return fit_incomplete(problem, structures[0], options, kept_of(structures[0]), informed=informed), ()
    # by folds all are fitted to their ends, also those that would not have the least BIC
    together = folds is None or folds.streamed is not None
    together = together and all(_by_products(problem, each, options) for each in structures)
    if together:
        kept = [kept_of(each) for each in structures]
        to_end = folds is not None
        informed = informed and not to_end
        solutions = fit_side_by_side(problem, structures, options, kept, informed=informed, to_end=to_end)
    else:
        solutions = [fit_incomplete(problem, each, options, kept_of(each)) for each in structures]

    def row_of(i: int) -> dict[str, float]:
        found = solutions[i]
        return criteria(problem, structures[i], found.nll) | floored(problem, options, found.point.sigma)

    rows = [row_of(i) for i in range(len(structures))]
    left_out = None if folds is None else _left_out(problem, structures, solutions, options, folds)

    def chosen() -> tuple[int, Table]:
        return best_of(rows, "bic") if left_out is None else best_by_folds(rows, *left_out)

    best, table = chosen()
    again: set[int] = set()
    while together and problem.restarts_are_free and best not in again:
        solutions[best] = fit_incomplete(problem, structures[best], options)
        rows[best] = row_of(best)
        again.add(best)
        now, table = chosen()
        if options.improper == "avoid":  # it may have ended on the floor from another start
            best = now
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
    return shown_held_out_nll(folds, candidates, options, meter=problem.meter)


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
