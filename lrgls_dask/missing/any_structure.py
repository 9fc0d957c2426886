"""Fits with responses missing for structures of Sigma whose update takes S (K, K) alone, and fits of one step.

algorithm="als" is maximum likelihood. "ols" are the least squares of every equation over its own rows, within
restrictions; its Sigma maximises the likelihood of those residuals as each row shows them, which for complete rows is
the structure fitted to R'R / N (Schmidt 1977 compares what else is made of rows that only some equations have). "fgls"
takes one GLS step from there, each row weighted by its own Sigma_oo^-1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lrgls_dask.design.design import Design
from lrgls_dask.missing.ecm import ExpectedSweeps
from lrgls_dask.missing.kernels import PairMoments
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.missing.starts import STARTS, check_enough_pairs, pairwise_covariance, softened
from lrgls_dask.sigma.full import SingularCovariance
from lrgls_dask.sigma.interface import LOOSE, TIGHT, Sigma, SigmaStep, Structure
from lrgls_dask.sigma.structures import LowRankStructure, widened
from lrgls_dask.solve.checkpoint import CheckpointLoop, run_from_kept
from lrgls_dask.solve.iterate import Half, State, begun, resumed, side_by_side
from lrgls_dask.solve.record import Options, Point, Solution, Termination, best_of_starts
from lrgls_dask.solve.select_l1 import in_units_of_data
from lrgls_dask.solve.selection import criteria
from lrgls_dask.solve.starting_values import least_squares, starting_values

__all__ = ["chosen_structure", "fit_any_structure", "fit_side_by_side"]

# Candidates that cannot win any more go on, while the best does, until this is left of their log-likelihood, or this
# share of what their BIC lies above the least: digits that tell nobody anything cost many sweeps of too many factors.
TOLD, TOLD_OF_DISTANCE = 0.05, 0.01
REACHABLE = 1e300  # what any objective is below
VANISHING = 1e-8  # the least eigenvalue of correlations that a loop which does not end makes its way below
BEYOND = 100.0  # of an objective for each equation: that of correlations which are singular to the last digit is less


def fit_any_structure(
    problem: Incomplete,
    structure: Structure,
    options: Options,
    kept: CheckpointLoop | None = None,
    *,
    informed: bool = False,
) -> Solution[Point]:
    """The best solution of one structure; several starts where they are free.

    kept : where a streamed loop keeps its last point, and goes on from one that is there.
    informed : as of `ExpectedSweeps`.
    Raises ValueError for pairs of equations that no row shows together where the structure does not tell their
    covariance otherwise, and where the likelihood has no maximum.
    """
    step = ExpectedSweeps(problem, structure, options, held=options.one_step, informed=informed)
    kept = None if problem.restarts_are_free else kept  # several starts have no place of their own there
    try:
        ends = [run_from_kept(step, start, step.goal(), kept) for start in _starts(problem, structure, options)]
    except SingularCovariance as error:
        raise _no_maximum(problem, options) from error
    best = best_of_starts(ends, len(ends))
    if structure.fixed:
        return replace(best, termination=Termination.CONVERGED)
    if not structure.bounded and _has_no_end(problem, best):
        raise _no_maximum(problem, options)
    return best


def fit_side_by_side(
    problem: Incomplete,
    structures: Sequence[Structure],
    options: Options,
    kept: Sequence[CheckpointLoop | None],
    *,
    informed: bool = False,
    to_end: bool = False,
) -> list[Solution[Point]]:
    """One solution of each structure from one start, all looks of a sweep made in one pass.

    A structure of which the BIC cannot become the least any more is left near its optimum, where its BIC is told to a
    fiftieth of its distance from the least (TOLD_OF_DISTANCE) or a tenth (TOLD), and takes no sweep after the last of
    the best.
    kept : where each loop keeps its last point, and goes on from one that is there.
    informed : as of `ExpectedSweeps`, of the structure that is the best so far.
    to_end : whether something else than BIC chooses, and every structure is followed to its optimum.
    """
    steps = [ExpectedSweeps(problem, each, options, rival=True, informed=informed) for each in structures]
    least = np.full(len(steps), np.inf)

    def bic(number: int, nll: float) -> float:
        return criteria(problem, structures[number], nll)["bic"]

    def looks(asked: list[tuple[int, State[Point]]], going: set[int]) -> list[Half[Point]]:
        points = [steps[number].asked(state) for number, state in asked]
        last = (i for i, (number, state) in enumerate(asked) if steps[number].is_last(state))
        found = problem.expected_at([(at.c, at.sigma) for at in points], next(last, None))
        halves = [steps[n].looked(at, seen, s) for (n, s), at, seen in zip(asked, points, found, strict=True)]
        for (number, _), half in zip(asked, halves, strict=True):
            least[number] = min(least[number], bic(number, half.nll))
        best = int(np.argmin(least))
        if to_end:
            return halves
        halves = [replace(half, ahead=number == best) for (number, _), half in zip(asked, halves, strict=True)]
        ends = any(n == best and steps[n].goal().ended(half, 0) for (n, _), half in zip(asked, halves, strict=True))
        told = TOLD if best in going and not ends else np.inf
        above = [bic(n, half.nll - half.left) - least.min() for (n, _), half in zip(asked, halves, strict=True)]
        lost = [
            by > 0 and half.left * problem.n_obs <= max(told, TOLD_OF_DISTANCE * by)
            for half, by in zip(halves, above, strict=True)
        ]
        return [replace(half, least=np.inf) if beaten else half for half, beaten in zip(halves, lost, strict=True)]

    saved = [None if each is None else each.saved() for each in kept]
    # also of those that go on: the pass before a loop is made again before what is counted goes on
    starts = [_starts(problem, structure, options, several=False)[0] for structure in structures]
    before = [each for each in saved if each is not None]
    behind = [each.totals for each in before if each.ended is None]
    if len(before) < len(saved):  # some kept nothing yet: from their first look on all is made again
        totals = problem.meter.totals
    else:
        totals = min(behind) if behind else max(each.totals for each in before)
    loops = []
    for number, (step, start, found, to) in enumerate(zip(steps, starts, saved, kept, strict=True)):
        goal = replace(step.goal(), wanted=REACHABLE)
        if found is None:
            loops.append(begun(step, start, goal, kept=to))
        else:
            least[number] = bic(number, float(found.marks.get("best", found.marks["image"])[0]))
            loops.append(resumed(step, replace(found, totals=totals), goal, to))
    return side_by_side(loops, looks)


def chosen_structure(
    problem: Incomplete, family: Structure, options: Options
) -> tuple[Structure, tuple[dict[str, Any], ...]]:
    """The structure of the family with the least BIC, and what was tried, at the residual products that are expected
    at the fit with as many unpenalised factors, or at least squares in a fit of one step."""
    held = 0 if problem.constraint is None else len(problem.constraint.values)
    at = replace(options, algorithm="ols") if options.one_step else options
    plain = fit_any_structure(problem, LowRankStructure(family.rank), at)
    chosen, rows = family.chosen(
        plain.point.S,
        np.full(problem.design.n_equations, options.d_floor),
        n_obs=problem.n_obs,
        n_coefficients=problem.design.n_coefficients - held,
    )
    return chosen, tuple(in_units_of_data(row, problem) for row in rows)


def _starts(problem: Incomplete, structure: Structure, options: Options, *, several: bool = True) -> list[Point]:
    """Coefficients and what their residuals say of Sigma, pair by pair; one where each would take passes."""
    one = not several or options.one_step or structure.fixed or not problem.restarts_are_free
    floor = np.full(problem.design.n_equations, options.d_floor)
    points: list[Point] = []
    firsts = [least_squares(problem)] if options.one_step else starting_values(problem)
    for number, c in enumerate(firsts[:1] if one else firsts):
        plain = number == 0 and np.array_equal(c, problem.start())
        pairs = problem.pairs_at_start if plain else problem.pairs(c)
        _check_pairs(problem.design, structure, pairs)
        if structure.by_equation and structure.rank:
            check_enough_pairs(structure, pairs.pairs)
        S = pairwise_covariance(pairs, floor)
        found: list[SigmaStep[Any]] = structure.candidates(S, floor, tol=TIGHT if one else LOOSE)
        kept = found[:STARTS] if plain and not one else found[:1]
        points += [Point(c, S, _off_floor(structure, each.sigma)) for each in kept]
    return points


def _off_floor(structure: Structure, sigma: Sigma) -> Sigma:
    """The Sigma that is looked at first: where S leaves an equation nothing of its own it leads to worse optima."""
    if structure.fixed or not structure.by_equation:
        return sigma
    softer: Sigma = structure.by_rows().value(softened(widened(sigma)))
    return softer


def _check_pairs(design: Design, structure: Structure, pairs: PairMoments) -> None:
    """Raise ValueError for pairs never seen together whose covariance nothing else tells."""
    asked = structure.pairs_asked_for(design.n_equations)
    unseen = np.argwhere(np.triu(asked & (pairs.pairs == 0), 1))
    if not len(unseen):
        return
    names = [f"{design.equations[i]!r} and {design.equations[j]!r}" for i, j in unseen[:3]]
    more = f", and {len(unseen) - 3} pairs more" if len(unseen) > 3 else ""
    raise ValueError(
        f"equations {', '.join(names)}{more} are never observed in the same row, and this structure of Sigma gives "
        "each such pair a covariance of its own, of which the data then say nothing. Use covariance='lowrank', which "
        "tells it through the factors, or 'diagonal', or leave equations out."
    )


def _has_no_end(problem: Incomplete, found: Solution[Point]) -> bool:
    """Whether a combination of the errors is nearly zero in a loop that did not end, or whose looks lost all digits:
    there is no maximum, and how far rounding lets the loop go tells nothing."""
    told = abs(found.obj) < BEYOND * problem.design.n_equations
    if told and found.termination is Termination.CONVERGED:
        return False
    sigma = found.point.sigma
    unit = np.sqrt(sigma.variances)
    return bool(np.linalg.eigvalsh(sigma.dense() / unit[:, None] / unit)[0] < VANISHING)


def _no_maximum(problem: Incomplete, options: Options) -> ValueError:
    design = problem.design
    so = "it is singular" if options.one_step else "the likelihood has no bound"
    fewest = int(np.argmin(problem.cells))
    return ValueError(
        "no fit with this Sigma exists: the residuals of some combination of the equations vanish in the rows that "
        f"show them, so {so}. There are {problem.n_obs:,} rows and {design.n_equations:,} equations; the one seen "
        f"least is {design.equations[fewest]!r}, in {int(problem.cells[fewest]):,} rows. Use covariance='lowrank', "
        "fewer equations or more rows."
    )
