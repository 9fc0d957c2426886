"""Which number of factors: the least BIC over candidate ranks, each fitted, none reading the data again."""

from __future__ import annotations

import numpy as np
from dask.base import tokenize

from lrgls_dask.als import Keep, Options, Point, Solution, fit_rank, go_on, starting_residuals
from lrgls_dask.checkpoint import Checkpoint, SavedPoint
from lrgls_dask.covariance import LowRank, ml_candidates
from lrgls_dask.em import fit_em
from lrgls_dask.problem import Problem

__all__ = ["choose_rank"]

Table = tuple[dict[str, float], ...]


def choose_rank(
    problem: Problem, ranks: tuple[int, ...], options: Options, checkpoint: Checkpoint | None = None
) -> tuple[Solution, Table]:
    """The solution of the candidate rank with the least BIC, and one row per candidate (none for a single one).

    On a compressed system every candidate is fitted to the end. Streamed, where that would cost passes, candidates are
    compared at the OLS residual covariance, from which the coefficients hardly move it, and only the winner is fitted.
    checkpoint : where a streamed loop keeps its last point, and goes on from one that is there.
    """
    if problem.restarts_are_free:
        return _fit_all(problem, ranks, options)
    keep, saved = _kept(checkpoint, ranks, options)
    if not problem.dense:
        return _without_covariance(problem, ranks, options, keep, saved), ()
    if saved is not None:
        point = Point(saved.c, saved.S, saved.sigma)
        return go_on(problem, options, saved.sweep, point, keep=keep), _compared(problem, ranks, options, saved.S)
    c, S = starting_residuals(problem)
    table = _compared(problem, ranks, options, S)
    best = int(min(table, key=lambda row: row["bic"])["rank"]) if table else ranks[0]
    return fit_rank(problem, best, options, c, S, keep=keep), table


def _fit_all(problem: Problem, ranks: tuple[int, ...], options: Options) -> tuple[Solution, Table]:
    c, S = starting_residuals(problem)
    solutions = [fit_rank(problem, k, options, c, S) for k in ranks]
    if len(ranks) == 1:
        return solutions[0], ()
    table = tuple(_row(problem, k, s.nll) for k, s in zip(ranks, solutions, strict=True))
    return solutions[int(np.argmin([row["bic"] for row in table]))], table


def _compared(problem: Problem, ranks: tuple[int, ...], options: Options, S: np.ndarray) -> Table:
    if len(ranks) == 1:
        return ()
    return tuple(_row(problem, k, _profile_nll(problem, k, options, S)) for k in ranks)


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
