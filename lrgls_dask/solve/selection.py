"""Which number of factors: the least BIC, or the best likelihood of rows left out, none reading the data again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lrgls_dask.rows.resources import SMALL_MATRIX
from lrgls_dask.rows.tasks import run_tasks
from lrgls_dask.sigma.full import SingularCovariance
from lrgls_dask.sigma.interface import LOOSE, FactorStructure, Sigma, SigmaStep, Structure
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.structures import widened
from lrgls_dask.solve.checkpoint import Checkpoint, CheckpointLoop
from lrgls_dask.solve.crossvalidate import Candidate, Folds, held_out_nll
from lrgls_dask.solve.eigenvalues import by_eigenvalues
from lrgls_dask.solve.em import fit_em
from lrgls_dask.solve.existence import no_maximum, vanishing_combination
from lrgls_dask.solve.interface import Posed, Problem
from lrgls_dask.solve.record import NO_COVARIANCE, Options, Point, Solution, best_of_starts, debiased, slack
from lrgls_dask.solve.starting_values import starting_values
from lrgls_dask.solve.starts import Starts, als_from, fit_structure, starting_points

__all__ = ["Table", "best_by_folds", "best_of", "choose", "criteria", "floored"]

Table = tuple[dict[str, float], ...]

TIED = 1e-10  # criteria that differ by less, relative to max(1, |criterion|), differ by rounding


def choose(
    problem: Problem,
    structures: tuple[Structure, ...],
    options: Options,
    checkpoint: Checkpoint | None = None,
    folds: Folds | None = None,
) -> tuple[Solution[Point], Table]:
    """The solution of the best candidate and one row per candidate (none for a single one).

    The best has the least BIC or, given the folds of the rows, the least negative log-likelihood of rows left out; of
    those that tie the first. On a compressed system every candidate is fitted to the end, from the starts of its own
    and from the optimum one rank below. Streamed, where that would cost passes, candidates are compared at the OLS
    residual covariance, from which the coefficients hardly move it, and only the winner is fitted. So they are where
    the fit that is asked for maximises no likelihood and has no BIC: in one step, corrected for degrees of freedom, by
    principal components. That of its candidates is of maximum likelihood factor analysis.
    options.rank_by : "parallel" and "eigenvalue-ratio" choose by the eigenvalues of the OLS residual covariance alone.
    options.improper : "avoid" leaves out candidates one of whose own variances is on its floor, as long as others are
    left. Where only the best is fitted and ends there, the next best is fitted too.
    structures : by ascending rank.
    checkpoint : where a streamed loop keeps its last point, and goes on from one that is there.
    Raises ValueError where the likelihood of an unrestricted Sigma has no maximum.
    """
    _check_bounded(problem, structures, options)
    try:
        return _choose(problem, structures, options, checkpoint, folds)
    except SingularCovariance as error:
        raise no_maximum(problem, options) from error


def _choose(
    problem: Problem,
    structures: tuple[Structure, ...],
    options: Options,
    checkpoint: Checkpoint | None,
    folds: Folds | None,
) -> tuple[Solution[Point], Table]:
    if problem.restarts_are_free:
        return _fit_all(problem, structures, options, folds)
    kept = None if checkpoint is None else checkpoint.loop(structures, options, problem.constraint)
    if options.algorithm == "em" and problem.dense:
        return _by_em(problem, structures, options, kept)
    if not problem.dense:
        return _without_covariance(problem, structures, options, kept), ()
    starts = starting_points(problem, options)
    order, table = _compared(problem, structures, options, starts[0][1])
    fits = (fit_structure(problem, structures[i], options, starts, kept=kept if i == order[0] else None) for i in order)
    return _first_proper(problem, options, fits), table


def _check_bounded(problem: Problem, structures: tuple[Structure, ...], options: Options) -> None:
    """Refuse at once what would run to a singular Sigma, where the rows to see it by are at hand.

    Restrictions may keep residuals apart that would vanish without them: then only the loop can tell.
    """
    if all(structure.bounded for structure in structures):
        return
    if problem.whitened.exact.any():
        raise no_maximum(problem, options, np.flatnonzero(problem.whitened.exact))
    if problem.compressed is None or options.one_step or problem.constraint is not None:
        return
    involved = vanishing_combination(problem.compressed)
    if len(involved):
        raise no_maximum(problem, options, involved)


# ---------------------------------------------------------------------------------------------- every candidate


@dataclass(frozen=True, eq=False)
class _Search:
    """What the fits of all candidates share."""

    problem: Problem
    options: Options
    starts: Starts


def _fit_all(
    problem: Problem, structures: tuple[Structure, ...], options: Options, folds: Folds | None
) -> tuple[Solution[Point], Table]:
    search = _Search(problem, options, starting_points(problem, options))
    if len(structures) == 1:
        return _fit_one(search, structures[0]), ()
    by_fits = options.rank_by == "bic" and not (
        options.algorithm == "fgls" or options.debiased or structures[-1].line_search
    )
    if folds is None and not by_fits:
        order, table = _compared(problem, structures, options, search.starts[0][1])
        return _first_proper(problem, options, (_fit_one(search, structures[i]) for i in order)), table
    width = problem.design.n_regressors + problem.design.n_equations
    solutions = _in_parallel(width, _fit_one, search, structures)
    if options.algorithm == "als":
        for i in range(1, len(structures)):
            if not structures[i].line_search:
                solutions[i] = _from_below(search, structures[i], solutions[i - 1], solutions[i])
    rows = [
        criteria(problem, each, s.nll) | floored(problem, options, s.point.sigma)
        for each, s in zip(structures, solutions, strict=True)
    ]
    if folds is None:
        best, table = best_of(rows, "bic")
        return solutions[best], table
    scale, at = problem.whitened.y_scale, problem.coordinates
    candidates = tuple(
        Candidate(
            each.in_units(1.0 / scale),
            problem.whitened.coefficients(at.by_group(s.point.c)),
            s.point.sigma.rescaled(scale),
        )
        for each, s in zip(structures, solutions, strict=True)
    )
    nll, summary = held_out_nll(
        folds, candidates, options, lambda f, state, items: _in_parallel(width, f, state, items)
    )
    best, table = best_by_folds(rows, np.array(nll), summary)
    return solutions[best], table


def best_by_folds(rows: list[dict[str, float]], nll: np.ndarray, summary: np.ndarray) -> tuple[int, Table]:
    """`best_of` by the likelihood of rows left out.

    nll : (candidates, folds).  summary : (candidates, 2) its mean and error.
    """
    for row, of_folds, (mean, error) in zip(rows, nll, summary, strict=True):
        row.update(cv_nll=float(mean), cv_std_error=float(error))
        row.update({f"fold_{f + 1}": float(value) for f, value in enumerate(of_folds)})
    return best_of(rows, "cv_nll", _paired_errors(nll, np.where(_eligible(rows), summary[:, 0], np.inf)))


def _paired_errors(nll: np.ndarray, means: np.ndarray) -> np.ndarray:
    """(R,) standard error of how much worse each rank is than the best one, from its differences fold by fold.

    means : (R,) infinite for those that are not to be chosen.
    """
    differences = nll - nll[int(np.argmin(means))]
    errors: np.ndarray = differences.std(axis=1, ddof=1) / np.sqrt(nll.shape[1])
    return errors


def _in_parallel(width: int, function: Callable[[Any, Any], Any], state: Any, items: Sequence[Any]) -> list[Any]:
    """Small systems side by side in threads; wide ones in turn, each with all BLAS threads and all the memory."""
    if width <= SMALL_MATRIX:
        return run_tasks(function, state, items, here=True)
    return [function(state, item) for item in items]


def _fit_one(search: _Search, structure: Structure) -> Solution[Point]:
    if search.options.algorithm == "em":
        return _em_from_every_start(search, structure.by_rows())
    return fit_structure(search.problem, structure, search.options, search.starts)


def _em_from_every_start(search: _Search, structure: FactorStructure) -> Solution[Point]:
    """The best of EM from its own start and, accelerated, from what the other starts for Sigma lead to."""
    problem, options = search.problem, search.options
    solutions: list[Solution[Point]] = []
    for number, (c, S) in enumerate(search.starts):
        starts: list[LowRank | None] = [None]
        if options.accelerate and structure.rank:
            found: list[SigmaStep[Any]] = structure.candidates(S, np.full(len(S), options.d_floor), tol=LOOSE)
            starts = [None, *(widened(step.sigma) for step in found)] if number == 0 else [widened(found[0].sigma)]
        solutions += [fit_em(problem, structure, options, c, sigma=sigma) for sigma in starts]
    return best_of_starts(solutions, len(solutions))


def _from_below(
    search: _Search, structure: Structure, below: Solution[Point], found: Solution[Point]
) -> Solution[Point]:
    """What the optimum one rank below leads to, if that is better than what the candidate's own starts led to."""
    problem, options, point = search.problem, search.options, below.point
    floor = np.full(len(point.S), options.d_floor)
    first = structure.update(debiased(problem, options, point.S), floor, point.sigma)
    wanted = found.obj - slack(found.obj)
    other = als_from(problem, structure, options, point, first, wanted=np.inf if options.debiased else wanted)
    n_starts = found.n_starts + 1
    if other.obj < wanted:
        return replace(other, n_starts=n_starts, n_agreed=1)
    return replace(found, n_starts=n_starts)


# ---------------------------------------------------------------------------------------------- streamed


def _compared(
    problem: Problem, structures: tuple[Structure, ...], options: Options, S: np.ndarray
) -> tuple[list[int], Table]:
    """Places of the structures, the best at these residuals first, and one row for each where there are several.

    By eigenvalues those of fewer factors follow in turn.
    """
    if len(structures) == 1:
        return [0], ()
    if options.rank_by != "bic":
        ranks, freedom = [each.rank for each in structures], problem.n_obs - float(np.mean(problem.free))
        best, of_ranks = by_eigenvalues(S, freedom, ranks, options.rank_by)
        return list(range(best, -1, -1)), tuple(of_ranks)
    floor = np.full(len(S), options.d_floor)
    firsts = [each.by_likelihood().candidates(S, floor)[0].sigma for each in structures]
    rows = [
        criteria(problem, each, sigma.nll(S)) | floored(problem, options, sigma)
        for each, sigma in zip(structures, firsts, strict=True)
    ]
    best, table = best_of(rows, "bic")
    others = sorted(
        (i for i in range(len(rows)) if i != best), key=lambda i: (rows[i].get("on_floor", 0), rows[i]["bic"])
    )
    return [best, *others], table


def _first_proper(problem: Problem, options: Options, fits: Iterable[Solution[Point]]) -> Solution[Point]:
    """The first of the solutions, made as they are asked for, or where such are avoided the first none of whose own
    variances is on its floor; the first of all where there is none."""
    first = None
    for found in fits:
        if options.improper == "warn" or not floored(problem, options, found.point.sigma)["on_floor"]:
            return found
        first = first or found
    assert first is not None
    return first


def _by_em(
    problem: Problem,
    structures: tuple[Structure, ...],
    options: Options,
    kept: CheckpointLoop | None,
) -> tuple[Solution[Point], Table]:
    """EM for one rank, compared with the others as `_choose` does."""
    c = starting_values(problem)[0]
    S = problem.residual_covariance(c) if len(structures) > 1 else NO_COVARIANCE
    order, table = _compared(problem, structures, options, S)
    fits = (fit_em(problem, structures[i].by_rows(), options, c, kept=kept if i == order[0] else None) for i in order)
    return _first_proper(problem, options, fits), table


def _without_covariance(
    problem: Problem,
    structures: tuple[Structure, ...],
    options: Options,
    kept: CheckpointLoop | None,
) -> Solution[Point]:
    structure, size = structures[0], problem.design.n_equations
    wanted = (
        f"rank={options.rank_by!r}"
        if len(structures) > 1
        else f"algorithm={options.algorithm!r}"
        if options.one_step
        else ""
    )
    wanted = wanted or (f"debiased={options.debiased!r}" if options.debiased else "")
    if wanted or structure.needs_matrix:
        remedy = "Give rank as an integer" if len(structures) > 1 else "Use algorithm='als' and debiased=False"
        remedy = "Use covariance='lowrank'" if structure.needs_matrix else remedy
        raise ValueError(
            f"{wanted or 'this covariance'} needs the ({size} x {size}) residual covariance, "
            f"which does not fit. {remedy}, or raise memory_limit."
        )
    return fit_em(problem, structure.by_rows(), options, starting_values(problem)[0], kept=kept)


# ---------------------------------------------------------------------------------------------- the table


def criteria(problem: Posed, structure: Structure, nll: float) -> dict[str, float]:
    """Likelihood and information criteria of a structure fitted to this nll per row, in standard units."""
    design = problem.design
    n_parameters = design.n_coefficients + design.n_equations * design.n_absorbed
    n_parameters += structure.n_parameters(design.n_equations)
    if problem.constraint is not None:
        n_parameters -= len(problem.constraint.values)
    loglik = -problem.n_obs * (nll + problem.nll_offset)
    return {
        "rank": structure.rank,
        "loglik": loglik,
        "n_parameters": n_parameters,
        "aic": -2 * loglik + 2 * n_parameters,
        "bic": -2 * loglik + float(np.log(problem.n_obs)) * n_parameters,
    }


def floored(problem: Posed, options: Options, sigma: Sigma) -> dict[str, float]:
    """How many own variances are on their floor, exact fits apart, where such candidates are avoided; else nothing."""
    if options.improper == "warn":
        return {}
    return {"on_floor": int(np.count_nonzero(sigma.on_floor(options.d_floor) & ~problem.whitened.exact))}


def _eligible(rows: list[dict[str, float]]) -> np.ndarray:
    """(R,) which candidates are to be chosen from: those without a variance on its floor, or all if there are none."""
    proper = np.array([row.get("on_floor", 0) == 0 for row in rows])
    return proper if proper.any() else np.ones(len(rows), dtype=bool)


def best_of(rows: list[dict[str, float]], criterion: str, errors: np.ndarray | float = 0.0) -> tuple[int, Table]:
    """The place of the smallest rank that ties with the least criterion, and rows that say of each rank whether it does
    and whether both its neighbours are worse: more than one such rank makes the choice doubtful.

    errors : (R,) by how much a rank may be worse than the best and still tie, rounding apart: one standard error where
    the criterion is an estimate (Breiman, Friedman, Olshen and Stone 1984, section 3.4.3).
    """
    values = np.array([row[criterion] for row in rows])
    slack = TIED * max(1.0, float(np.abs(values).max()))
    eligible = _eligible(rows)
    tied = eligible & (values <= values[eligible].min() + np.maximum(slack, errors))
    padded = np.concatenate([[np.inf], values, [np.inf]])
    lowest = (values < padded[:-2] - slack) & (values <= padded[2:] + slack)
    table = tuple(
        {**row, "tied": bool(t), "local_minimum": bool(m)} for row, t, m in zip(rows, tied, lowest, strict=True)
    )
    return int(np.argmax(tied)), table
