"""Which number of factors: the least BIC over candidate ranks, each fitted, none reading the data again."""

from __future__ import annotations

import numpy as np

from lrgls_dask.als import Options, Solution, fit_rank, starting_residuals
from lrgls_dask.covariance import LowRank, ml_candidates
from lrgls_dask.em import fit_em
from lrgls_dask.problem import Problem

__all__ = ["choose_rank"]


def choose_rank(
    problem: Problem, ranks: tuple[int, ...], options: Options
) -> tuple[Solution, tuple[dict[str, float], ...]]:
    """The solution of the candidate rank with the least BIC, and one row per candidate (none for a single one).

    On a compressed system every candidate is fitted to the end. Streamed, where that would cost passes, candidates are
    compared at the OLS residual covariance, from which the coefficients hardly move it, and only the winner is fitted.
    """
    if not problem.dense:
        return _without_covariance(problem, ranks, options), ()
    c, S = starting_residuals(problem)
    if len(ranks) == 1:
        return fit_rank(problem, ranks[0], options, c, S), ()
    if not problem.restarts_are_free:
        table = tuple(_row(problem, k, _profile_nll(problem, k, options, S)) for k in ranks)
        best = int(min(table, key=lambda row: row["bic"])["rank"])
        return fit_rank(problem, best, options, c, S), table
    solutions = [fit_rank(problem, k, options, c, S) for k in ranks]
    table = tuple(_row(problem, k, s.nll) for k, s in zip(ranks, solutions, strict=True))
    best = int(np.argmin([row["bic"] for row in table]))
    return solutions[best], table


def _without_covariance(problem: Problem, ranks: tuple[int, ...], options: Options) -> Solution:
    if len(ranks) > 1:
        raise ValueError(
            f"rank='bic' needs the ({problem.design.n_equations} x {problem.design.n_equations}) residual covariance, "
            "which does not fit. Give rank as an integer, or raise memory_limit."
        )
    return fit_em(problem, ranks[0], options, problem.coordinates.flat(problem.whitened.start))


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
