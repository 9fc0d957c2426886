"""Maximum likelihood with responses missing for any structure of Sigma, as a step of the loop.

    obj = nll(b, Sigma) + penalty of Sigma + lam_B / (2 N) ||b||^2        (standard units, per row)

The responses that are missing are the augmented data: with S*(b, Sigma) the residual products expected given what the
rows show (expected.py), the structure's own update at S*, exactly as at the S of complete rows, does not raise obj, and
neither do the least squares of the responses that are expected (complete.py), which take no look at the rows (ECM, Meng
and Rubin 1993). A sweep is one look, at (b, Sigma(S)); from there lead the new b and S*, and what is extrapolated is
(b, S), which every structure has.

Where an equation has little variance of its own, a direction of b or S counts ten thousand times as much as another. So
what is extrapolated is told in the metric of the information that complete rows have, (Sigma^-1)_jl Z_j'Z_l for b and
N / 2 tr (Sigma^-1 dS)^2 for S; in any other the directions that count less drown those that decide.

How far there is to go is measured, not told from the last move: half the squared lengths of both steps in that metric
are what they promise to gain, and where no more than a share rho of the information is missing what is left is at most
1 / (1 - rho) times as much (Dempster, Laird and Rubin 1977, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from lrgls_dask.missing.complete import CompleteInformation
from lrgls_dask.missing.expected import Expected
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.sigma.interface import LOOSE, Sigma, Structure
from lrgls_dask.solve.anderson import Anderson
from lrgls_dask.solve.cg import conjugate_gradients
from lrgls_dask.solve.em import LOOK_ROUNDING
from lrgls_dask.solve.gls import final_energy
from lrgls_dask.solve.iterate import MOST_PLAIN_ROUNDS, MOST_ROUNDS, Goal, Half, Space, State, Trace
from lrgls_dask.solve.record import Options, Point, penalised

__all__ = ["ExpectedSweeps"]

# What is left, in what both half-steps promise: twice 1 / (1 - rho), where 1 - rho is the least share of rows that
# shows a pair of equations, but no more than this.
MOST_MISSING = 100.0
# Of what is left in the end, how much conjugate gradients may leave.
SHARE = 0.1
# How far the energy of a GLS step falls where the columns are too many for a step without a look.
FALL = 1e-2
# Sweeps in which a Sigma is looked for from several starts, of which a pass takes the best; and by how much, of nll per
# row, it has to be better.
EARLY, SAME = 8, 1e-6
# How far above its goal what is left of a look is expected to be at most where that may be the last.
NEARLY = 3.0
# How often an extrapolated S that is no covariance is brought half way back, before its image is taken as it is.
HALVINGS = 30


@dataclass(frozen=True, eq=False)
class Seen:
    """What a look leads on to. found : it.  sigma : of its S*.  information : at the Sigma that was looked at.

    gradient, step : (P,) of the coefficients, and where that leads.
    """

    found: Expected
    sigma: Sigma
    information: CompleteInformation
    gradient: np.ndarray
    step: np.ndarray


@dataclass(frozen=True, eq=False)
class ExpectedSweeps:
    """A sweep is one look at the rows, and the products of a GLS step.

    held : whether the coefficients stay where they are, and Sigma is that of their residuals.
    rival : whether it is one of several candidates: where it ends short of its goal it is left as it is.
    informed : whether what standard errors take, the information of the coefficients at the Sigma of the last look, is
    summed in the same pass where a look is expected to be the last. It is not where rows are in memory.
    """

    problem: Incomplete
    structure: Structure
    options: Options
    held: bool = False
    rival: bool = False
    informed: bool = False

    first: ClassVar[int] = 0

    @cached_property
    def space(self) -> Space[Point] | None:
        """Of (c, S). With accelerate=False it is the plain iteration, whose objective falls every sweep."""
        if not self.options.accelerate or self.structure.fixed:
            return None
        K = self.problem.design.n_equations
        at, n = np.tril_indices(K), self.problem.design.n_coefficients
        twice = np.where(at[0] == at[1], np.sqrt(0.5), 1.0)

        def vector(point: Point) -> np.ndarray:
            return np.concatenate([point.c, point.S[at]])

        def matrix(packed: np.ndarray) -> np.ndarray:
            S = np.zeros((K, K))
            S[at] = packed
            return S + np.tril(S, -1).T

        def metric(changes: np.ndarray, image: Point) -> np.ndarray:
            root = np.linalg.inv(np.linalg.cholesky(image.sigma.dense()))
            of_S = [(root @ matrix(change[n:]) @ root.T)[at] * twice for change in changes]
            of_c = CompleteInformation(self.problem, image.sigma).root(changes[:, :n])
            return np.concatenate([of_c, np.sqrt(self.problem.n_obs) * np.stack(of_S)], axis=1)

        def point_of(moved: np.ndarray, image: Point) -> Point:
            here = vector(image)
            for _ in range(HALVINGS):
                if np.array_equal(moved, here):
                    return image
                S = matrix(moved[n:])
                if _is_covariance(S):
                    return Point(moved[:n], S, image.sigma)
                moved = 0.5 * (moved + here)
            return image

        return Space(vector, point_of, Anderson(), metric)

    def goal(self) -> Goal:
        """That little is left of the objective, and in log-likelihood, of which a difference of one half is one
        standard error, no more than rel_tol."""
        most = MOST_ROUNDS if self.options.accelerate else MOST_PLAIN_ROUNDS
        most = most if self.options.max_sweeps is None else self.options.max_sweeps
        return Goal(0 if self.structure.fixed else most, self.options.rel_tol, self.options.rel_tol)

    @property
    def solves(self) -> bool:
        """Whether the last coefficients are solved for, and not one step from the last look however near that is."""
        return self.problem.restarts_are_free or self.structure.fixed or self.options.one_step

    @property
    def near(self) -> float:
        """What they may have left to gain where one step is enough."""
        return self.options.rel_tol

    def trace(self) -> Trace:
        return Trace(self.structure.rank, self.problem.nll_offset, self.problem.meter)

    # ------------------------------------------------------------------------------------------ the half-steps

    def start(self, point: Point) -> Half[Point]:
        return self._half("start", point, self._read(point))

    def look(self, state: State[Point]) -> Half[Point]:
        """The likelihood at Sigma of the S of a point, and how far from there both half-steps would lead."""
        at = self.asked(state)
        (found,) = self.problem.expected_at([(at.c, at.sigma)], 0 if self.is_last(state) else None)
        return self.looked(at, found, state)

    def is_last(self, state: State[Point]) -> bool:
        """Whether standard errors are wanted at the Sigma of the next look, which is expected to be the last.

        A look that turns out not to be has summed in vain; one that was not expected to be takes one pass more.
        """
        goal = self.goal()
        expected = state.sweep >= goal.most or state.moving <= NEARLY * goal.settled
        return self.informed and state.ahead and not self.problem.restarts_are_free and expected

    def asked(self, state: State[Point]) -> Point:
        """Where the look of a sweep is: what comes before it reads nothing."""
        point = state.point
        if state.image is None:
            return point
        sigma = self._update(point.S, point.sigma)
        early = state.sweep <= EARLY and not self.problem.restarts_are_free
        if early and self.structure.by_equation and self.structure.rank:
            sigma = self._best(point.S, sigma)
        return replace(point, sigma=sigma)

    def looked(self, at: Point, found: Expected, state: State[Point]) -> Half[Point]:
        """The look of a sweep, from what was found there: one of several whose looks are one pass."""
        half = self._half("em", at, found)
        gain = max(abs(state.obj - half.obj), state.gain)
        moving = 0.0 if gain <= half.rounding and half.moving <= np.sqrt(self.options.rel_tol) else half.moving
        left = moving / (2.0 * self.problem.n_obs)
        return replace(half, moving=moving, left=left, accept_t=1.0 if half.obj < state.obj else 0.0)

    def move(self, looked: Half[Point], state: State[Point]) -> Half[Point]:
        """The coefficients that follow from a look, and the products that were expected there."""
        point, seen = looked.point, looked.seen
        if self.held:
            return Half(Point(point.c, seen.found.S, seen.sigma))
        if seen.information.whole:
            return Half(Point(point.c + seen.step, seen.found.S, seen.sigma))
        energy = float(seen.gradient @ seen.step)
        c, _, iterations = self._gls(point.c, seen, FALL * energy)
        return Half(Point(c, seen.found.S, seen.sigma), cg=iterations)

    def finish(self, looked: Half[Point], state: State[Point]) -> Half[Point]:
        """The point of the last look, with the coefficients of its Sigma to the digits asked for."""
        point, seen = looked.point, looked.seen
        informed = self.problem.knows_information(point.sigma)
        if informed and looked is state.best:  # an earlier client may have summed it: for all to go on alike
            self.problem.forget_information()
            informed = False
        looked = replace(looked, informed=informed)
        if seen is None:  # an earlier client saw it: looked at again, which counts as that look
            totals = self.problem.meter.totals
            seen = self._seen(point, self._read(point))
            self.problem.meter.go_on_from(totals)
        at = replace(point, S=seen.found.S)
        if self.options.algorithm == "ols":
            return replace(looked, name="", left=np.inf, point=at)
        if self.rival:
            return replace(looked, name="", left=np.inf, point=at)
        energy = float(seen.gradient @ seen.step)
        if seen.information.whole and not self.solves and self._missing * energy <= self.near:
            # a look that met the goal: one more step, which gains at least so much, and no look at where it led
            c, gain, iterations = point.c + seen.step, 0.5 * energy, 0
        else:
            c, gain, iterations = self._gls(point.c, seen, 0.0)
        obj = penalised(self.problem, self.structure, point.c, point.sigma, seen.found.nll) - gain / self.problem.n_obs
        nll = obj - penalised(self.problem, self.structure, c, point.sigma, 0.0)
        return Half(replace(at, c=c), "beta", nll, obj, informed=informed, cg=iterations)

    # ------------------------------------------------------------------------------------------ inside

    def _read(self, at: Point) -> Expected:
        (found,) = self.problem.expected(at.c, at.sigma)
        return found

    def _update(self, S: np.ndarray, start: Sigma) -> Sigma:
        if self.structure.fixed:
            return start
        floor = np.full(self.problem.design.n_equations, self.options.d_floor)
        sigma: Sigma = self.structure.update(S, floor, start).sigma
        return sigma

    def _best(self, S: np.ndarray, sigma: Sigma) -> Sigma:
        """The Sigma of the structure that suits S best, from several starts: streamed there is one start for all."""

        def objective(other: Sigma) -> float:
            return 0.5 * (other.logdet + other.trace_solve(S)) + self.structure.penalty(other)

        floor = np.full(self.problem.design.n_equations, self.options.d_floor)
        (first, *_) = self.structure.candidates(S, floor, tol=LOOSE)
        other = self._update(S, first.sigma)
        return other if objective(other) < objective(sigma) - SAME else sigma

    def _seen(self, at: Point, found: Expected) -> Seen:
        information = CompleteInformation(self.problem, at.sigma)
        gradient = found.gradient - self.problem.coordinates.ridge * at.c
        projected, step = (gradient, np.zeros(len(gradient))) if self.held else information.step(gradient)
        return Seen(found, self._update(found.S, at.sigma), information, projected, step)

    def _half(self, name: str, at: Point, found: Expected) -> Half[Point]:
        obj = penalised(self.problem, self.structure, at.c, at.sigma, found.nll)
        seen = self._seen(at, found)
        apart = seen.information.precision @ (seen.sigma.dense() - at.sigma.dense())
        moving = 0.5 * self.problem.n_obs * float(np.sum(apart * apart.T)) + float(seen.gradient @ seen.step)
        rounding = LOOK_ROUNDING * max(1.0, abs(obj))
        return Half(at, name, found.nll, obj, value=obj, rounding=rounding, moving=self._missing * moving, seen=seen)

    @cached_property
    def _missing(self) -> float:
        """What is left in all, in what both half-steps promise."""
        K = self.problem.design.n_equations
        shares = self.problem.pairs_at_start.pairs[np.tril_indices(K)] / self.problem.n_obs
        return float(min(MOST_MISSING, 2.0 / max(float(shares.min()), 1.0 / MOST_MISSING)))

    def _final(self, c: np.ndarray, information: CompleteInformation) -> float:
        """r'M^-1 r at which the last conjugate gradients stop: a share of what the sweeps are to settle to."""
        least = final_energy(self.problem, self.options, c, information.diagonal)
        if self.problem.restarts_are_free or self.options.cg_tol is not None:
            return least
        return min(least, SHARE * self.options.rel_tol / MOST_MISSING)

    def _gls(self, c: np.ndarray, seen: Seen, least: float) -> tuple[np.ndarray, float, int]:
        """Coefficients of a Sigma by conjugate gradients from c, what N obj falls by, and iterations.

        least : of the energy, beside what all stop at.
        """
        problem, information = self.problem, seen.information
        found = conjugate_gradients(
            lambda p, _: problem.general_image(p, information.sigma),
            c,
            seen.found.gradient - problem.coordinates.ridge * c,
            information.diagonal,
            tol=max(self._final(c, information), least),
            max_iterations=self.options.cg_maxit,
            constraint=problem.constraint,
            precondition=information.step,
        )
        return found.x, found.gain, len(found.steps)


def _is_covariance(S: np.ndarray) -> bool:
    """Whether S (K, K) is positive definite, and not by rounding alone."""
    own = S.diagonal()
    if not (own > 0.0).all():
        return False
    unit = np.sqrt(own)
    return bool(np.linalg.eigvalsh(S / unit[:, None] / unit)[0] > 1e-13)
