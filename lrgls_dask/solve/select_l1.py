"""A structure chosen by the data, such as the penalty of sparse loadings: at given residuals, judged by BIC."""

from __future__ import annotations

import numpy as np

from lrgls_dask.sigma.interface import Structure
from lrgls_dask.sigma.structures import LowRankStructure
from lrgls_dask.solve.interface import Posed, Problem
from lrgls_dask.solve.record import Options, debiased
from lrgls_dask.solve.selection import Table
from lrgls_dask.solve.starts import fit_structure, starting_points

__all__ = ["choose_l1", "in_units_of_data"]


def choose_l1(problem: Problem, family: Structure, options: Options) -> tuple[Structure, Table]:
    """The structure of the family with the least BIC, and one row for each that was tried.

    They are tried at the residual covariance of the fit with as many unpenalised factors on a compressed system, where
    that is free; of the starting residuals where a fit costs passes or is one step. No read but that of the starting
    residuals.
    """
    design, n_obs = problem.design, problem.n_obs
    starts = starting_points(problem, options)
    S = starts[0][1]
    if problem.restarts_are_free and not options.one_step:
        S = fit_structure(problem, LowRankStructure(family.rank), options, starts).point.S
    held = 0 if problem.constraint is None else len(problem.constraint.values)
    chosen, rows = family.chosen(
        debiased(problem, options, S),
        np.full(design.n_equations, options.d_floor),
        n_obs=n_obs,
        n_coefficients=design.n_coefficients - held,
    )
    return chosen, tuple(in_units_of_data(row, problem) for row in rows)


def in_units_of_data(row: dict[str, float], problem: Posed) -> dict[str, float]:
    """nll per row and BIC turned into log-likelihood and BIC of the data."""
    loglik = -problem.n_obs * (row["nll"] + problem.nll_offset)
    bic = row["bic"] + 2 * problem.n_obs * problem.nll_offset
    return {name: value for name, value in row.items() if name not in ("nll", "bic", "chosen")} | {
        "loglik": loglik,
        "bic": bic,
        "chosen": row["chosen"],
    }
