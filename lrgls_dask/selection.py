"""Which number of factors: the least BIC over candidate structures, each fitted, none reading the data again."""

from __future__ import annotations

import numpy as np
from dask.base import tokenize

from lrgls_dask.als import Keep, Options, Point, Solution, fit_structure, go_on, starting_residuals
from lrgls_dask.checkpoint import Checkpoint, SavedPoint
from lrgls_dask.covariance import LowRank, LowRankStructure, SingularCovariance, Structure
from lrgls_dask.em import fit_em
from lrgls_dask.existence import no_maximum, vanishing_combination
from lrgls_dask.problem import Problem
from lrgls_dask.sweep import debiased

__all__ = ["choose"]

Table = tuple[dict[str, float], ...]


def choose(
    problem: Problem, structures: tuple[Structure, ...], options: Options, checkpoint: Checkpoint | None = None
) -> tuple[Solution, Table]:
    """The solution of the candidate with the least BIC, and one row per candidate (none for a single one).

    On a compressed system every candidate is fitted to the end. Streamed, where that would cost passes, candidates are
    compared at the OLS residual covariance, from which the coefficients hardly move it, and only the winner is fitted.
    checkpoint : where a streamed loop keeps its last point, and goes on from one that is there.
    Raises ValueError where the likelihood of an unrestricted Sigma has no maximum.
    """
    _check_bounded(problem, structures, options)
    try:
        return _choose(problem, structures, options, checkpoint)
    except SingularCovariance as error:
        raise no_maximum(problem, options) from error


def _choose(
    problem: Problem, structures: tuple[Structure, ...], options: Options, checkpoint: Checkpoint | None
) -> tuple[Solution, Table]:
    if problem.restarts_are_free:
        return _fit_all(problem, structures, options)
    keep, saved = _kept(checkpoint, problem, structures, options)
    if not problem.dense:
        return _without_covariance(problem, structures, options, keep, saved), ()
    if saved is not None and options.algorithm == "als":
        point = Point(saved.c, saved.S, saved.sigma)
        table = _compared(problem, structures, options, saved.S)
        return go_on(problem, _best(structures, table), options, saved.sweep, point, keep=keep), table
    c, S = _start(problem, options)
    table = _compared(problem, structures, options, S)
    return fit_structure(problem, _best(structures, table), options, c, S, keep=keep), table


def _best(structures: tuple[Structure, ...], table: Table) -> Structure:
    return structures[int(np.argmin([row["bic"] for row in table]))] if table else structures[0]


def _start(problem: Problem, options: Options) -> tuple[np.ndarray, np.ndarray]:
    return starting_residuals(problem, pooled=options.algorithm == "fgls")


def _check_bounded(problem: Problem, structures: tuple[Structure, ...], options: Options) -> None:
    """Refuse at once what would run to a singular Sigma, where the rows to see it by are at hand.

    Restrictions may keep residuals apart that would vanish without them: then only the loop can tell.
    """
    if all(structure.bounded for structure in structures):
        return
    if problem.whitened.exact.any():
        raise no_maximum(problem, options, np.flatnonzero(problem.whitened.exact))
    if problem.compressed is None or options.algorithm == "fgls" or problem.constraint is not None:
        return
    involved = vanishing_combination(problem.compressed)
    if len(involved):
        raise no_maximum(problem, options, involved)


def _fit_all(problem: Problem, structures: tuple[Structure, ...], options: Options) -> tuple[Solution, Table]:
    c, S = _start(problem, options)
    solutions = [fit_structure(problem, structure, options, c, S) for structure in structures]
    if len(structures) == 1:
        return solutions[0], ()
    table = tuple(_row(problem, each, s.nll) for each, s in zip(structures, solutions, strict=True))
    return solutions[int(np.argmin([row["bic"] for row in table]))], table


def _compared(problem: Problem, structures: tuple[Structure, ...], options: Options, S: np.ndarray) -> Table:
    if len(structures) == 1:
        return ()
    floor = np.full(len(S), options.d_floor)
    firsts = [each.candidates(debiased(problem, options, S), floor)[0].sigma for each in structures]
    return tuple(_row(problem, each, sigma.nll(S)) for each, sigma in zip(structures, firsts, strict=True))


def _kept(
    checkpoint: Checkpoint | None, problem: Problem, structures: tuple[Structure, ...], options: Options
) -> tuple[Keep | None, SavedPoint | None]:
    """Where the loop leaves its points, and the one an earlier client left there with the same options."""
    if checkpoint is None:
        return None, None
    bound = problem.constraint
    bounds = () if bound is None else (bound.rows, bound.values)
    name = f"loop-{tokenize(structures, options, *bounds)}"

    def keep(sweep: int, point: Point) -> None:
        checkpoint.save_point(name, SavedPoint(sweep, point.c, point.S, point.sigma))

    return keep, checkpoint.load_point(name)


def _without_covariance(
    problem: Problem, structures: tuple[Structure, ...], options: Options, keep: Keep | None, saved: SavedPoint | None
) -> Solution:
    structure, size = structures[0], problem.design.n_equations
    wanted = "rank='bic'" if len(structures) > 1 else "algorithm='fgls'" if options.algorithm == "fgls" else ""
    wanted = wanted or ("debiased=True" if options.debiased else "")
    if wanted or not isinstance(structure, LowRankStructure):
        remedy = "Give rank as an integer" if len(structures) > 1 else "Use algorithm='als' and debiased=False"
        raise ValueError(
            f"{wanted or 'this covariance'} needs the ({size} x {size}) residual covariance, "
            f"which does not fit. {remedy}, or raise memory_limit."
        )
    if saved is not None and isinstance(saved.sigma, LowRank):
        return fit_em(problem, structure, options, saved.c, sigma=saved.sigma, keep=keep)
    c = problem.coordinates.flat(problem.whitened.start)
    if problem.constraint is not None:
        c = problem.constraint.nearest(c, np.ones_like(c))
    return fit_em(problem, structure, options, c, keep=keep)


def _row(problem: Problem, structure: Structure, nll: float) -> dict[str, float]:
    n_parameters = problem.design.n_coefficients + structure.n_parameters(problem.design.n_equations)
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
