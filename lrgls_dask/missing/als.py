"""ALS with responses missing, as steps of the loop: for pseudo-rows, where a look at a point is no pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from lrgls_dask.missing.em import refined
from lrgls_dask.missing.polish import minimised, polished, slope_of_sigma
from lrgls_dask.missing.problem import Incomplete, Latent
from lrgls_dask.sigma.em import flattened, unflattened
from lrgls_dask.sigma.interface import FactorStructure
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.structures import widened
from lrgls_dask.solve.em import LOOK_ROUNDING, units_of_sigma
from lrgls_dask.solve.iterate import MOST_SWEEPS, Goal, Half, Space, State, Trace
from lrgls_dask.solve.record import NO_COVARIANCE, Options, Point, penalised

__all__ = ["IncompleteSweeps", "Together"]

FOR_DIGITS = 1e-3  # of rel_tol: a few more sweeps, which are free here, for the digits of Sigma


@dataclass(frozen=True, eq=False)
class IncompleteSweeps:
    """A sweep is a factor step at fixed coefficients and a GLS step at fixed Sigma."""

    problem: Incomplete
    structure: FactorStructure
    options: Options

    first: ClassVar[int] = 1

    @property
    def space(self) -> Space[Point] | None:
        """Not extrapolated: two sweeps are as good as the optimum."""
        return None

    def goal(self) -> Goal:
        """That the last sweep gained little: the next gains less, and Sigma has half the digits of the objective."""
        most = MOST_SWEEPS if self.options.max_sweeps is None else self.options.max_sweeps
        return Goal(most, FOR_DIGITS * self.options.rel_tol)

    def trace(self) -> Trace:
        return Trace(self.structure.rank, self.problem.nll_offset, self.problem.meter)

    def start(self, point: Point) -> Half[Point]:
        sigma = widened(point.sigma)
        return self._half("start", point.c, sigma, self.problem.latent(point.c, sigma))

    def look(self, state: State[Point]) -> Half[Point]:
        """The best Sigma at fixed coefficients, by L-BFGS-B over (F, log d) with the exact gradient; never worse."""
        before = _before(state)
        problem, c, sigma = self.problem, before.point.c, widened(before.point.sigma)
        rank, lam_F = sigma.rank, self.structure.lam_F
        floor = np.full(problem.design.n_equations, self.options.d_floor)
        free = self.structure.loadings(len(floor)).free
        units = units_of_sigma(problem.n_obs, problem.cells, sigma)
        fixed = problem.fixed(c)

        def value(z: np.ndarray) -> tuple[float, np.ndarray]:
            at = unflattened(z / units, rank, floor)
            found = fixed(at)
            obj = penalised(problem, self.structure, c, at, found.nll)
            return obj, slope_of_sigma(found, at, free, lam_F) / units

        ftol = max(1e-3 * self.options.rel_tol, 1e-16)
        of_d = units[-len(floor) :]
        end = minimised(value, flattened(sigma) * units, of_d, floor, maxiter=500, maxfun=1000, maxcor=20, ftol=ftol)
        better = unflattened(end / units, rank, floor)
        half = self._half("sigma", c, better, problem.latent(c, better))
        return half if half.obj < before.obj else replace(before, name="sigma", left=np.inf, cg=0)

    def move(self, looked: Half[Point], state: State[Point]) -> Half[Point]:
        """The coefficients of a Sigma, to the last digit: here that is free."""
        sigma = widened(looked.point.sigma)
        c, iterations = refined(self.problem, self.options, looked.point.c, sigma, looked.seen)
        half = replace(self._half("beta", c, sigma, self.problem.latent(c, sigma)), cg=iterations)
        gain = _before(state).obj - half.obj
        return replace(half, left=0.0 if gain <= LOOK_ROUNDING * max(1.0, abs(half.obj)) else gain)

    def finish(self, looked: Half[Point], state: State[Point]) -> Half[Point]:
        return self.move(looked, state)

    def _half(self, name: str, c: np.ndarray, sigma: LowRank, seen: Latent) -> Half[Point]:
        obj = penalised(self.problem, self.structure, c, sigma, seen.nll)
        return Half(Point(c, NO_COVARIANCE, self.structure.value(sigma)), name, seen.nll, obj, seen=seen)


class Together(IncompleteSweeps):
    """A last sweep that moves coefficients and Sigma together first, where alternating steps may have stopped short."""

    def look(self, state: State[Point]) -> Half[Point]:
        sigma = widened(state.point.sigma)
        c, sigma, seen = polished(self.problem, self.structure, self.options, state.point.c, sigma)
        return self._half("joint", c, sigma, seen)


def _before(state: State[Point]) -> Half[Point]:
    """The last point whose coefficients were those of its Sigma, or the start."""
    half = state.opened if state.image is None else state.image
    assert half is not None
    return half
