"""Refits: the optimum of a problem near one that is known, by the same steps with a looser goal."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lrgls_dask.sigma.interface import TIGHT, Sigma, SigmaStep, Structure
from lrgls_dask.solve.accelerated import SLOW_SHARE, Accelerated
from lrgls_dask.solve.als import Alternating
from lrgls_dask.solve.interface import Problem
from lrgls_dask.solve.iterate import Goal, Half, State, run
from lrgls_dask.solve.record import Options, Point, to_come
from lrgls_dask.solve.starting_values import starting_residuals

__all__ = ["refit"]

# A refit leaves all coefficients together within a thousandth of a standard error of their optimum, so that what it is
# short of moves no bootstrap quantile or held-out likelihood; its GLS steps go far below that at once.
REFIT_ENERGY, REFIT_FALL, REFIT_SWEEPS = 1e-6, 1e-6, 100
# The gradient of a refit's Sigma step, in units of its sampling deviation 1 / sqrt(N).
REFIT_GRADIENT = 1e-4


@dataclass(frozen=True, eq=False)
class _Refit(Alternating):
    """Sweeps judged by how far the coefficients have still to move, which costs no look at the objective."""

    def goal(self, *, wanted: float = np.inf) -> Goal:
        return Goal(REFIT_SWEEPS, 0.0, REFIT_ENERGY)

    def looked(self, point: Point, found: SigmaStep[Sigma], state: State[Point] | None = None) -> Half[Point]:
        return Half(Point(point.c, point.S, found.sigma))

    def start(self, point: Point) -> Half[Point]:
        return Half(point)

    def move(self, looked: Half[Point], state: State[Point]) -> Half[Point]:
        found = self._gls(looked.point, fall=REFIT_FALL)
        point, energy = Point(found.c, found.S, looked.point.sigma), found.energy
        return Half(point, left=0.0, moving=to_come(energy, state.energy), energy=energy)

    def finish(self, looked: Half[Point], state: State[Point]) -> Half[Point]:
        found = self._gls(looked.point, fall=0.0)
        return Half(Point(found.c, found.S, looked.point.sigma))


@dataclass(frozen=True, eq=False)
class _AcceleratedRefit(Accelerated):
    """Extrapolated sweeps, which are judged by the objective, to the same distance."""

    def goal(self, *, wanted: float = np.inf) -> Goal:
        return Goal(REFIT_SWEEPS, self.options.rel_tol, SLOW_SHARE * REFIT_ENERGY, nearly=REFIT_ENERGY)


def refit(problem: Problem, structure: Structure, options: Options, start: Point) -> Point:
    """The optimum of a problem near one that is known: a replicate of the bootstrap, a fold of cross-validation.

    start : its c, within the restrictions, and S in the coordinates of `problem`.  The local optimum that `start` leads
    to, to a precision far below the statistical error, in two to four sweeps where N is much larger than P / K; one
    step from the starting residuals with algorithm="fgls", none with "ols".
    """
    step: Alternating = _Refit(problem, structure, options, max(TIGHT, REFIT_GRADIENT / np.sqrt(problem.n_obs)))
    if options.one_step:
        start = Point(*starting_residuals(problem, pooled=True), start.sigma)
    if options.algorithm == "ols":
        return step.look(State(step.first, start)).point
    if options.algorithm == "fgls" or structure.fixed:
        return run(step, start, replace(step.goal(), most=1)).point
    looked = None
    if structure.closed_form:
        looked = step.look(State(step.first, start))
        variances = looked.point.sigma.variances
        step = _AcceleratedRefit(problem, structure, options, step.sigma_tol, variances=variances)
        looked = step.looked(start, SigmaStep(looked.point.sigma, 1.0))
    return run(step, start, step.goal(), looked=looked).point
