"""Alternating least squares where Sigma is a closed form of the coefficients: a smooth map c -> GLS at Sigma(c)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from lrgls_dask.sigma.interface import Sigma, SigmaStep
from lrgls_dask.solve.als import Alternating, settled_energy
from lrgls_dask.solve.anderson import Anderson
from lrgls_dask.solve.gls import BetaStep, inner_energy
from lrgls_dask.solve.iterate import ROUNDING, Goal, Half, Space, State
from lrgls_dask.solve.record import Point

__all__ = ["SLOW_SHARE", "Accelerated"]

# A sweep has to be the map itself, to the digits that extrapolation multiplies.
MAP_FALL = 1e-8
# Where convergence is linear at a rate near 1 the distance left is hundreds of times the last move.
SLOW_SHARE = 1e-4
# The squared distance in standard errors of a sweep that moved nothing: identical regressors, say, at the first one.
ENERGY_ROUNDING = 1e-18
# Sweeps kept for extrapolation.
SWEEPS_KEPT = 6


@dataclass(frozen=True, eq=False)
class Accelerated(Alternating):
    """Extrapolated sweeps. An extrapolation that raises the objective (with debiased=True: the distance still to go) is
    taken back. Extrapolated coefficients are affine combinations of earlier ones and so keep to the restrictions.
    Streamed, an extrapolation costs one more pass.

    variances : (K,) of a Sigma near the solution's.
    """

    variances: np.ndarray = field(kw_only=True)

    @cached_property
    def space(self) -> Space[Point]:
        """Coefficients in standard errors, but for what their regressors share."""
        units = 1.0 / np.sqrt(self.problem.coordinates.expand(self.variances))

        def at(vector: np.ndarray, image: Point) -> Point:
            if np.array_equal(vector, image.c * units):
                return image  # whose residuals are known; streamed, others take a pass
            c = vector / units
            return Point(c, self.problem.residual_covariance(c), image.sigma)

        return Space(lambda point: point.c * units, at, Anderson(depth=SWEEPS_KEPT, forgets=False))

    def goal(self, *, wanted: float = np.inf) -> Goal:
        """That a sweep moves the coefficients by next to nothing."""
        settled = settled_energy(self.problem, self.options.rel_tol)
        free = self.problem.restarts_are_free
        goal = SLOW_SHARE * settled if free else inner_energy(self.problem, self.options.rel_tol)
        return Goal(self.most, self.options.rel_tol, goal, nearly=settled, wanted=wanted)

    def looked(self, point: Point, found: SigmaStep[Sigma], state: State[Point] | None = None) -> Half[Point]:
        at = Point(point.c, point.S, found.sigma)
        nll, obj = self._objective(at)
        value, rounding = (None, 0.0) if self.options.debiased else (obj, ROUNDING * max(1.0, abs(obj)))
        return Half(at, "sigma", nll, obj, value=value, rounding=rounding, accept_t=found.accept_t)

    def move(self, looked: Half[Point], state: State[Point]) -> Half[Point]:
        """Coefficients at the Sigma of a look. Where they do not move neither will Sigma.

        Where nothing bounds the likelihood it goes on falling while the coefficients hardly move.
        """
        return self._judged(self._gls(looked.point, fall=MAP_FALL), looked, state)

    def finish(self, looked: Half[Point], state: State[Point]) -> Half[Point]:
        return self._judged(self._gls(looked.point, fall=0.0), looked, state)

    def _judged(self, found: BetaStep, looked: Half[Point], state: State[Point]) -> Half[Point]:
        at = Point(found.c, found.S, looked.point.sigma)
        nll, obj = self._objective(at)
        energy = found.energy
        left = 0.0 if energy <= ENERGY_ROUNDING else abs(state.obj - looked.obj)
        value = energy if self.options.debiased else None
        return Half(at, "beta", nll, obj, left, energy, value=value, energy=energy, cg=found.iterations)
