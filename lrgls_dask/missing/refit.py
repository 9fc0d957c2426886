"""Refits of rows that show only some equations: the optimum of a problem near one that is known, to fewer digits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrgls_dask.compression.patterns import LARGEST_PAIRS
from lrgls_dask.missing.complete import CompleteInformation
from lrgls_dask.missing.ecm import ExpectedSweeps
from lrgls_dask.missing.em import IncompleteRounds
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.sigma.interface import Sigma, Structure
from lrgls_dask.sigma.structures import widened
from lrgls_dask.solve.iterate import Goal, run
from lrgls_dask.solve.record import NO_COVARIANCE, Options, Point
from lrgls_dask.solve.starting_values import least_squares

__all__ = ["goes_by_rounds", "refit_shown"]

# A refit leaves all parameters together within a hundredth of a standard error of their optimum, were only a hundredth
# of the information there, and within a thousandth as a rule.
REFIT_ENERGY, REFIT_GAIN, REFIT_SWEEPS = 1e-4, 1e-5, 200
# Where conjugate gradients stop: a ten-thousandth of a standard error from where they lead.
REFIT_SOLVED = 1e-8


@dataclass(frozen=True, eq=False)
class _Refit(ExpectedSweeps):
    """The same sweeps with a looser goal, whose looks may be passes."""

    def goal(self) -> Goal:
        return Goal(0 if self.structure.fixed else REFIT_SWEEPS, REFIT_GAIN, REFIT_ENERGY)

    @property
    def solves(self) -> bool:
        return self.structure.fixed or self.options.one_step

    @property
    def near(self) -> float:
        return REFIT_ENERGY

    def _final(self, c: np.ndarray, information: CompleteInformation) -> float:
        return max(super()._final(c, information), REFIT_SOLVED)


def goes_by_rounds(structure: Structure, options: Options, n_equations: int) -> bool:
    """Whether a refit is by EM rounds, as the fit is of more equations than have products of all pairs."""
    by_products = options.one_step or structure.fixed or not structure.by_equation
    return n_equations > LARGEST_PAIRS and not by_products


def refit_shown(
    problem: Incomplete, structure: Structure, options: Options, coefficients: np.ndarray, sigma: Sigma
) -> Point:
    """The local optimum that coefficients, within the restrictions, and Sigma lead to; one step from least squares with
    algorithm="fgls", none with "ols".

    structure, coefficients, sigma : in the user's units; the point is in those of the problem.
    """
    scale = problem.whitened.y_scale
    if goes_by_rounds(structure, options, problem.design.n_equations):
        at = widened(sigma.rescaled(1.0 / scale))
        rounds = IncompleteRounds(problem, structure.in_units(scale).by_rows(), options, at)
        c = problem.whitened_coefficients(coefficients)
        return run(rounds, Point(c, NO_COVARIANCE, at), rounds.goal()).point
    step = _Refit(problem, structure.in_units(scale), options, held=options.one_step)
    sigma = sigma.rescaled(1.0 / scale)
    c = least_squares(problem) if options.one_step else problem.whitened_coefficients(coefficients)
    start = Point(c, sigma.dense(), sigma)
    return run(step, start, step.goal()).point
