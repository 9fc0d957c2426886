"""Which number of factors: the least BIC, or the best likelihood of rows left out, none reading the data again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from dask.base import tokenize

from lrgls_dask.als import (
    SAME_OBJECTIVE,
    Keep,
    Options,
    Point,
    Solution,
    alternate,
    fit_rank,
    go_on,
    starting_residuals,
)
from lrgls_dask.checkpoint import Checkpoint, SavedPoint
from lrgls_dask.compress import Parts
from lrgls_dask.covariance import LowRank, ml_candidates, ml_step
from lrgls_dask.crossvalidate import Candidate, held_out_nll
from lrgls_dask.em import fit_em
from lrgls_dask.problem import Problem
from lrgls_dask.resources import SMALL_MATRIX
from lrgls_dask.tasks import run_tasks

__all__ = ["choose_rank"]

Table = tuple[dict[str, float], ...]

TIED = 1e-10  # criteria that differ by less, relative to max(1, |criterion|), differ by rounding


def choose_rank(
    problem: Problem,
    ranks: tuple[int, ...],
    options: Options,
    checkpoint: Checkpoint | None = None,
    folds: Parts | None = None,
) -> tuple[Solution, Table]:
    """The solution of the best candidate rank and one row per candidate (none for a single one).

    The best has the least BIC or, given the folds of the rows, the least negative log-likelihood of rows left out; of
    ranks that tie the smallest. On a compressed system every candidate is fitted to the end, from the starts of its own
    and from the optimum one rank below. Streamed, where that would cost passes, candidates are compared at the OLS
    residual covariance, from which the coefficients hardly move it, and only the winner is fitted.
    checkpoint : where a streamed loop keeps its last point, and goes on from one that is there.
    """
    if problem.restarts_are_free:
        return _fit_all(problem, ranks, options, folds)
    keep, saved = _kept(checkpoint, ranks, options)
    if not problem.dense:
        return _without_covariance(problem, ranks, options, keep, saved), ()
    if saved is not None:
        point = Point(saved.c, saved.S, saved.sigma)
        _, table = _compared(problem, ranks, options, saved.S)
        return go_on(problem, options, saved.sweep, point, keep=keep), table
    c, S = starting_residuals(problem)
    best, table = _compared(problem, ranks, options, S)
    return fit_rank(problem, ranks[best], options, c, S, keep=keep), table


# ---------------------------------------------------------------------------------------------- every candidate


@dataclass(frozen=True, eq=False)
class _Search:
    """What the fits of all ranks share: every equation fitted by itself, c (P,) and S (K, K)."""

    problem: Problem
    options: Options
    c: np.ndarray
    S: np.ndarray


def _fit_all(problem: Problem, ranks: tuple[int, ...], options: Options, folds: Parts | None) -> tuple[Solution, Table]:
    search = _Search(problem, options, *starting_residuals(problem))
    if len(ranks) == 1:
        return _fit_one(search, ranks[0]), ()
    width = problem.design.n_regressors + problem.design.n_equations
    solutions = _in_parallel(width, _fit_one, search, ranks)
    if options.sigma_step == "ml":
        for i in range(1, len(ranks)):
            solutions[i] = _from_below(search, solutions[i - 1], solutions[i])
    rows = [_row(problem, k, s.nll) for k, s in zip(ranks, solutions, strict=True)]
    if folds is None:
        best, table = _judged(rows, "bic")
        return solutions[best], table
    scale, at = problem.whitened.y_scale, problem.coordinates
    candidates = tuple(
        Candidate(problem.whitened.coefficients(at.by_group(s.point.c)), s.point.sigma.rescaled(scale))
        for s in solutions
    )
    nll, summary = held_out_nll(
        folds, candidates, options, lambda f, state, items: _in_parallel(width, f, state, items)
    )
    for row, of_folds, (mean, error) in zip(rows, nll, summary, strict=True):
        row.update(cv_nll=float(mean), cv_std_error=float(error))
        row.update({f"fold_{f + 1}": float(value) for f, value in enumerate(of_folds)})
    best, table = _judged(rows, "cv_nll")
    return solutions[best], table


def _in_parallel(width: int, function: Callable[[Any, Any], Any], state: Any, items: Sequence[Any]) -> list[Any]:
    """Small systems side by side in threads; wide ones in turn, each with all BLAS threads and all the memory."""
    if width <= SMALL_MATRIX:
        return run_tasks(function, state, items, here=True)
    return [function(state, item) for item in items]


def _fit_one(search: _Search, rank: int) -> Solution:
    return fit_rank(search.problem, rank, search.options, search.c, search.S)


def _from_below(search: _Search, below: Solution, found: Solution) -> Solution:
    """What the optimum one rank below leads to, if that is better than what the rank's own starts led to."""
    options, point, rank = search.options, below.point, found.point.sigma.rank
    floor = np.full(len(point.S), options.d_floor)
    first = ml_step(point.S, rank, floor, lam_F=options.lam_F, start=point.sigma)
    wanted = found.obj - SAME_OBJECTIVE * max(1.0, abs(found.obj))
    other = alternate(search.problem, rank, options, point, first, best=wanted)
    n_starts = found.n_starts + 1
    if other.obj < wanted:
        return replace(other, n_starts=n_starts, n_agreed=1)
    return replace(found, n_starts=n_starts)


# ---------------------------------------------------------------------------------------------- streamed


def _compared(problem: Problem, ranks: tuple[int, ...], options: Options, S: np.ndarray) -> tuple[int, Table]:
    if len(ranks) == 1:
        return 0, ()
    return _judged([_row(problem, k, _profile_nll(problem, k, options, S)) for k in ranks], "bic")


def _kept(
    checkpoint: Checkpoint | None, ranks: tuple[int, ...], options: Options
) -> tuple[Keep | None, SavedPoint | None]:
    """Where the loop leaves its points, and the one an earlier client left there with the same options."""
    if checkpoint is None:
        return None, None
    name = f"loop-{tokenize(ranks, options)}"

    def keep(sweep: int, point: Point) -> None:
        checkpoint.save_point(name, SavedPoint(sweep, point.c, point.S, point.sigma))

    return keep, checkpoint.load_point(name)


def _without_covariance(
    problem: Problem, ranks: tuple[int, ...], options: Options, keep: Keep | None, saved: SavedPoint | None
) -> Solution:
    if len(ranks) > 1:
        raise ValueError(
            f"rank='bic' needs the ({problem.design.n_equations} x {problem.design.n_equations}) residual covariance, "
            "which does not fit. Give rank as an integer, or raise memory_limit."
        )
    if saved is not None:
        return fit_em(problem, ranks[0], options, saved.c, sigma=saved.sigma, keep=keep)
    return fit_em(problem, ranks[0], options, problem.coordinates.flat(problem.whitened.start), keep=keep)


def _profile_nll(problem: Problem, rank: int, options: Options, S: np.ndarray) -> float:
    floor = np.full(len(S), options.d_floor)
    return ml_candidates(S, rank, floor, lam_F=options.lam_F)[0].sigma.nll(S)


# ---------------------------------------------------------------------------------------------- the table


def _row(problem: Problem, rank: int, nll: float) -> dict[str, float]:
    n_equations = problem.design.n_equations
    sigma = LowRank(np.zeros((n_equations, rank)), np.ones(n_equations)).n_parameters
    n_parameters = problem.design.n_coefficients + sigma
    loglik = -problem.n_obs * (nll + problem.nll_offset)
    return {
        "rank": rank,
        "loglik": loglik,
        "n_parameters": n_parameters,
        "aic": -2 * loglik + 2 * n_parameters,
        "bic": -2 * loglik + float(np.log(problem.n_obs)) * n_parameters,
    }


def _judged(rows: list[dict[str, float]], criterion: str) -> tuple[int, Table]:
    """The place of the smallest rank within rounding of the least criterion, and rows that say of each rank whether it
    ties with the least and whether both its neighbours are worse: more than one such rank makes the choice doubtful."""
    values = np.array([row[criterion] for row in rows])
    slack = TIED * max(1.0, float(np.abs(values).max()))
    tied = values <= values.min() + slack
    padded = np.concatenate([[np.inf], values, [np.inf]])
    lowest = (values < padded[:-2] - slack) & (values <= padded[2:] + slack)
    table = tuple(
        {**row, "tied": bool(t), "local_minimum": bool(m)} for row, t, m in zip(rows, tied, lowest, strict=True)
    )
    return int(np.argmax(tied)), table
