"""The penalty of sparse loadings, chosen by the data: a path over l1 at given residuals, judged by BIC."""

from __future__ import annotations

import numpy as np

from lrgls_dask.sigma.sparse import SparseStructure, sparse_path
from lrgls_dask.sigma.structures import LowRankStructure
from lrgls_dask.solve.als import fit_structure
from lrgls_dask.solve.interface import Problem
from lrgls_dask.solve.record import Options, debiased
from lrgls_dask.solve.selection import Table
from lrgls_dask.solve.sweep import starting_residuals

__all__ = ["choose_l1"]


def choose_l1(problem: Problem, rank: int, options: Options) -> tuple[SparseStructure, Table]:
    """The structure whose zeros have the least BIC, and one row per l1.

    The path is at the residual covariance of the fit without a penalty on a compressed system, where that is free; of
    the starting residuals where a fit costs passes or is one step. O(K^2 k) a Newton step, no read but that of the
    starting residuals.
    """
    design, n_obs = problem.design, problem.n_obs
    c, S = starting_residuals(problem, pooled=options.algorithm == "fgls")
    if problem.restarts_are_free and options.algorithm != "fgls":
        S = fit_structure(problem, LowRankStructure(rank), options, c, S).point.S
    held = 0 if problem.constraint is None else len(problem.constraint.values)
    path = sparse_path(
        debiased(problem, options, S),
        rank,
        np.full(design.n_equations, options.d_floor),
        n_obs=n_obs,
        n_coefficients=design.n_coefficients - held,
    )
    chosen = min(range(len(path)), key=lambda i: path[i].bic)  # of those with the same zeros the least shrunken
    rows = tuple(
        {
            "rank": rank,
            "l1": point.l1,
            "n_loadings": point.n_loadings,
            "loglik": -n_obs * (point.nll + problem.nll_offset),
            "bic": point.bic + 2 * n_obs * problem.nll_offset,
            "chosen": i == chosen,
        }
        for i, point in enumerate(path)
    )
    return SparseStructure(rank, path[chosen].l1), rows
