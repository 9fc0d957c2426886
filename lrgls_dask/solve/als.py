"""Alternating least squares, as a step of the loop: Sigma at fixed coefficients, then GLS for them at fixed Sigma.

    obj = nll(Sigma; S) + penalty of Sigma + lam_B / (2 N) ||b||^2        (standard units, per row)

Neither half-step can raise the objective (with debiased=True there is none, only a fixed point). The coefficients are
always those of the Sigma that is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from lrgls_dask.sigma.interface import TIGHT, Sigma, SigmaStep, Structure
from lrgls_dask.solve.gls import BetaStep, gls, inner_energy
from lrgls_dask.solve.interface import Problem
from lrgls_dask.solve.iterate import MOST_SWEEPS, MOST_TIED_SWEEPS, Goal, Half, Space, State, Trace
from lrgls_dask.solve.record import Options, Point, debiased, penalised, to_come
from lrgls_dask.solve.starting_values import ties_equations

__all__ = ["Alternating", "settled_energy"]

SWEEP_FALL = 1e-3  # how far the energy of a GLS step falls before Sigma is looked at again
# What the energy of a sweep can still be worth: later sweeps gain a fraction of this one, this many times it at most.
MOST_TO_GAIN = 10.0
# How much more than the conjugate gradients of its last GLS step a streamed fit may be short of: a tenth of a standard
# error, all coefficients together, at the default rel_tol.
STREAMED_SHORT = 100.0
DIGITS = 1e-9  # a smaller rel_tol asks for digits of the coefficients that the objective does not show


def settled_energy(problem: Problem, rel_tol: float) -> float:
    """The squared distance in standard errors that coefficients may still have to move once the objective is flat."""
    if problem.restarts_are_free:
        return float(1e-10 * min(1.0, rel_tol / 1e-10) ** 1.5)
    return np.inf if rel_tol >= DIGITS else STREAMED_SHORT * inner_energy(problem, rel_tol)


@dataclass(frozen=True, eq=False)
class Alternating:
    """A sweep is one Sigma step, on the client, and one GLS step, passes where rows are streamed.

    sigma_tol : the gradient to which Sigma is searched.
    """

    problem: Problem
    structure: Structure
    options: Options
    sigma_tol: float = TIGHT

    first: ClassVar[int] = 1

    @property
    def space(self) -> Space[Point] | None:
        """Not extrapolated: Sigma, which may have several optima, is no smooth function of the coefficients."""
        return None

    def goal(self, *, wanted: float = np.inf) -> Goal:
        """What the options ask for. Sweeps converge fast: a move that is no shorter than the one before is rounding."""
        rel_tol = self.options.rel_tol
        return Goal(self.most, rel_tol, settled_energy(self.problem, rel_tol), np.inf, patience=1, wanted=wanted)

    @cached_property
    def most(self) -> int:
        """What is asked for, else as many as steps that gain a digit need, or those that restrictions slow down."""
        if self.options.max_sweeps is not None:
            return self.options.max_sweeps
        slow = self.problem.restarts_are_free and ties_equations(self.problem)
        return MOST_TIED_SWEEPS if slow else MOST_SWEEPS

    def trace(self) -> Trace:
        return Trace(self.structure.rank, self.problem.nll_offset, self.problem.meter)

    # ------------------------------------------------------------------------------------------ the half-steps

    def start(self, point: Point) -> Half[Point]:
        return Half(point, "start", *self._objective(point))

    def look(self, state: State[Point]) -> Half[Point]:
        """Sigma at the coefficients of the point, searched from its Sigma."""
        point = state.point
        floor = np.full(self.problem.design.n_equations, self.options.d_floor)
        S = debiased(self.problem, self.options, point.S)
        return self.looked(point, self.structure.update(S, floor, point.sigma, tol=self.sigma_tol), state)

    def looked(self, point: Point, found: SigmaStep[Sigma], state: State[Point] | None = None) -> Half[Point]:
        """The same with a Sigma that was found already.

        What it gained is what a sweep would gain at least; that it gained little says so of the sweep where the
        coefficients move little. Both are known only once there is a sweep before.
        """
        at = Point(point.c, point.S, found.sigma)
        nll, obj = self._objective(at)
        if state is None or state.image is None:
            return Half(at, "sigma", nll, obj, accept_t=found.accept_t)
        stalled = found.accept_t == 0.0 and self.structure.line_search
        moving = state.energy if self.problem.restarts_are_free else to_come(state.energy, state.before)
        left = state.image.obj - obj
        return Half(at, "sigma", nll, obj, left, moving, stalled=stalled, accept_t=found.accept_t)

    def move(self, looked: Half[Point], state: State[Point]) -> Half[Point]:
        """Coefficients at the Sigma of a look, near enough for Sigma to be looked at again.

        Streamed, to the final tolerance where this move, so much shorter than the one before it, says that the next
        Sigma will gain little and not move them any more: a sweep less for a product or two more of this one's
        conjugate gradients.
        """
        goal = self.goal()

        def stays(energy: float) -> bool:
            """Whether the next Sigma would hardly move the coefficients that this move ends with."""
            return not self.problem.restarts_are_free and to_come(energy, state.energy) <= self._settled

        def is_last(energy: float) -> bool:
            # what a Sigma gains falls as the square of how far the coefficients have moved it
            return stays(energy) and goal.flat(replace(looked, left=looked.left * energy / state.energy))

        found = self._gls(looked.point, fall=SWEEP_FALL, is_last=is_last)
        return self._moved(looked.point, found, whole=found.final and stays(found.energy))

    def finish(self, looked: Half[Point], state: State[Point]) -> Half[Point]:
        return self._moved(looked.point, self._gls(looked.point, fall=0.0))

    # ------------------------------------------------------------------------------------------ inside

    @cached_property
    def _settled(self) -> float:
        """What a streamed fit may be short of in the end, as a squared distance in standard errors."""
        return STREAMED_SHORT * inner_energy(self.problem, self.options.rel_tol)

    def _gls(self, at: Point, *, fall: float, is_last: Callable[[float], bool] | None = None) -> BetaStep:
        return gls(self.problem, self.options, at.c, at.sigma, at.S, fall=fall, is_last=is_last)

    def _moved(self, at: Point, found: BetaStep, *, whole: bool = False) -> Half[Point]:
        point = Point(found.c, found.S, at.sigma)
        nll, obj = self._objective(point)
        least = obj - MOST_TO_GAIN * found.energy / self.problem.n_obs
        return Half(point, "beta", nll, obj, least=least, energy=found.energy, whole=whole, cg=found.iterations)

    def _objective(self, point: Point) -> tuple[float, float]:
        nll = point.sigma.nll(point.S)
        return nll, penalised(self.problem, self.structure, point.c, point.sigma, nll)
