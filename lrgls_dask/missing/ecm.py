"""Maximum likelihood with responses missing for any structure of Sigma, as a step of the loop.

    obj = nll(b, Sigma) + penalty of Sigma + lam_B / (2 N) ||b||^2        (standard units, per row)

The responses that are missing are the augmented data: with S*(b, Sigma) the residual products expected given what the
rows show (expected.py), the structure's own update at S*, exactly as at the S of complete rows, does not raise obj, and
neither does the GLS step X_o' Sigma_oo^-1 (y - X b)_o = 0 at fixed Sigma (ECM, Meng and Rubin 1993). A sweep is a point
S -> Sigma(S) -> b -> S*(b, Sigma), and what is extrapolated is (b, S), which every structure has.

How far there is to go is measured, not told from the last move: at a point of which both half-steps would move the
parameters little, (N / 2) tr (Sigma^-1 (S* - S))^2 / 2 and half the energy of the GLS step are what they promise to
gain; where a share rho of the information is missing what is left is 1 / (1 - rho) times as much (Dempster, Laird and
Rubin 1977, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from lrgls_dask.missing.expected import Expected
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.sigma.interface import LOG_2PI, Sigma, Structure
from lrgls_dask.solve.anderson import Anderson
from lrgls_dask.solve.cg import conjugate_gradients
from lrgls_dask.solve.constraint import Preconditioner
from lrgls_dask.solve.em import LOOK_ROUNDING
from lrgls_dask.solve.gls import final_energy
from lrgls_dask.solve.iterate import MOST_PLAIN_ROUNDS, MOST_ROUNDS, Goal, Half, Space, State, Trace
from lrgls_dask.solve.record import Options, Point, penalised

__all__ = ["ExpectedSweeps"]

# What is left, in what both half-steps promise: 1 / (1 - rho), for a share rho of the information that is missing.
MOST_MISSING = 100.0
# Of what is left in the end, how much conjugate gradients may leave.
SHARE = 0.1
# How far the energy of a GLS step falls: to rounding where products are free, else before Sigma is looked at again.
FREE_FALL, STREAMED_FALL = 1e-10, 1e-2
# How often an extrapolated S that is no covariance is brought half way back, before its image is taken as it is.
HALVINGS = 30


@dataclass(frozen=True, eq=False)
class ExpectedSweeps:
    """A sweep is one look at the rows, and the products of a GLS step.

    held : whether the coefficients stay where they are, and Sigma is that of their residuals.
    free_fall : how far the energy of a GLS step falls where products are free.
    """

    problem: Incomplete
    structure: Structure
    options: Options
    held: bool = False

    first: ClassVar[int] = 0
    free_fall: ClassVar[float] = FREE_FALL

    @cached_property
    def space(self) -> Space[Point] | None:
        """Of (c, S). With accelerate=False it is the plain iteration, whose objective falls every sweep."""
        if not self.options.accelerate or self.structure.fixed:
            return None
        K = self.problem.design.n_equations
        at, n = np.tril_indices(K), self.problem.design.n_coefficients
        units = np.concatenate([np.full(n, 1.0 / np.sqrt(self.problem.n_obs)), np.where(at[0] == at[1], 0.5, 1.0)])

        def vector(point: Point) -> np.ndarray:
            return np.concatenate([point.c, point.S[at]]) * units

        def point_of(moved: np.ndarray, image: Point) -> Point:
            here = vector(image)
            for _ in range(HALVINGS):
                if np.array_equal(moved, here):
                    return image
                z, S = moved / units, np.zeros((K, K))
                S[at] = z[n:]
                S += np.tril(S, -1).T
                if _is_covariance(S):
                    return Point(z[:n], S, image.sigma)
                moved = 0.5 * (moved + here)
            return image

        return Space(vector, point_of, Anderson())

    def goal(self) -> Goal:
        """That little is left of the objective, and in log-likelihood, of which a difference of one half is one
        standard error, no more than rel_tol."""
        most = MOST_ROUNDS if self.options.accelerate else MOST_PLAIN_ROUNDS
        most = most if self.options.max_sweeps is None else self.options.max_sweeps
        return Goal(0 if self.structure.fixed else most, self.options.rel_tol, self.options.rel_tol)

    def trace(self) -> Trace:
        return Trace(self.structure.rank, self.problem.nll_offset, self.problem.meter)

    # ------------------------------------------------------------------------------------------ the half-steps

    def start(self, point: Point) -> Half[Point]:
        return self._looked("start", point.c, point.S, point.sigma)

    def look(self, state: State[Point]) -> Half[Point]:
        """The likelihood at Sigma of the S of a point, and how far from there both half-steps would lead."""
        point = state.point
        sigma = point.sigma if state.image is None else self._update(point)
        half = self._looked("em", point.c, point.S, sigma)
        gain = max(abs(state.obj - half.obj), state.gain)
        moving = 0.0 if gain <= half.rounding and half.moving <= np.sqrt(self.options.rel_tol) else half.moving
        left = moving / (2.0 * self.problem.n_obs)
        return replace(half, moving=moving, left=left, accept_t=1.0 if half.obj < state.obj else 0.0)

    def move(self, looked: Half[Point], state: State[Point]) -> Half[Point]:
        """The coefficients of the Sigma of a look, and the products that are then expected."""
        point, seen = looked.point, looked.seen
        if self.held:
            return Half(Point(point.c, seen.S, point.sigma))
        fall = self.free_fall if self.problem.restarts_are_free else STREAMED_FALL
        c, S, _, iterations = self._gls(point.c, point.sigma, seen, fall)
        return Half(Point(c, S, point.sigma), cg=iterations)

    def finish(self, looked: Half[Point], state: State[Point]) -> Half[Point]:
        point, seen = looked.point, looked.seen
        if seen is None:  # an earlier client saw it: looked at again, which counts as that look
            totals = self.problem.meter.totals
            (seen,) = self.problem.expected(point.c, point.sigma)
            self.problem.meter.go_on_from(totals)
        if self.options.algorithm == "ols":
            return replace(looked, name="", left=np.inf, point=replace(point, S=seen.S))
        c, S, nll, iterations = self._gls(point.c, point.sigma, seen, 0.0)
        obj = penalised(self.problem, self.structure, c, point.sigma, nll)
        return Half(Point(c, S, point.sigma), "beta", nll, obj, cg=iterations)

    # ------------------------------------------------------------------------------------------ inside

    def _update(self, point: Point) -> Sigma:
        floor = np.full(self.problem.design.n_equations, self.options.d_floor)
        sigma: Sigma = self.structure.update(point.S, floor, point.sigma).sigma
        return sigma

    def _looked(self, name: str, c: np.ndarray, S: np.ndarray, sigma: Sigma) -> Half[Point]:
        (seen,) = self.problem.expected(c, sigma)
        obj = penalised(self.problem, self.structure, c, sigma, seen.nll)
        apart = sigma.solve(seen.S - S)
        moving = 0.5 * self.problem.n_obs * float(np.sum(apart * apart.T))
        if not self.held:
            residual, z = self._preconditioner(sigma)(seen.gradient - self.problem.coordinates.ridge * c)
            energy = float(residual @ z)
            moving += energy if energy > self._final(c, sigma) else 0.0
        rounding = LOOK_ROUNDING * max(1.0, abs(obj))
        at = Point(c, S, sigma)
        return Half(at, name, seen.nll, obj, value=obj, rounding=rounding, moving=MOST_MISSING * moving, seen=seen)

    def _diagonal(self, sigma: Sigma) -> np.ndarray:
        """(P,) about the diagonal of what the coefficients are found by."""
        problem, ridge = self.problem, self.problem.coordinates.ridge
        share = problem.cells / problem.n_obs  # of rows that show the others too, roughly
        mean = share * sigma.precision_diagonal + (1.0 - share) / sigma.variances
        return problem.coordinates.expand(mean) * (1.0 - ridge) + ridge

    def _final(self, c: np.ndarray, sigma: Sigma) -> float:
        """r'M^-1 r at which the last conjugate gradients stop: a share of what the sweeps are to settle to."""
        least = final_energy(self.problem, self.options, c, self._diagonal(sigma))
        if self.problem.restarts_are_free or self.options.cg_tol is not None:
            return least
        return min(least, SHARE * self.options.rel_tol / MOST_MISSING)

    def _preconditioner(self, sigma: Sigma) -> Preconditioner:
        return Preconditioner(self._diagonal(sigma), self.problem.constraint)

    def _gls(
        self, c: np.ndarray, sigma: Sigma, seen: Expected, fall: float
    ) -> tuple[np.ndarray, np.ndarray, float, int]:
        """Coefficients of a Sigma by conjugate gradients from c, looked at as `seen`, S*, nll there, and iterations.

        Streamed, each product's pass also tells how S* goes along its direction.
        """
        problem, diagonal = self.problem, self._diagonal(sigma)
        free, residual = problem.restarts_are_free, seen.gradient - problem.coordinates.ridge * c
        projected, z = Preconditioner(diagonal, problem.constraint)(residual)
        ways: list[tuple[np.ndarray, np.ndarray]] = []

        def product(p: np.ndarray, x: np.ndarray) -> np.ndarray:
            if free:
                return problem.general_image(p, sigma)
            image, *way = problem.along(p, x, sigma)
            ways.append((way[0], way[1]))
            return image

        found = conjugate_gradients(
            product,
            c,
            residual,
            diagonal,
            tol=max(self._final(c, sigma), fall * float(projected @ z)),
            max_iterations=self.options.cg_maxit,
            constraint=problem.constraint,
        )
        if free and found.steps:
            (seen,) = problem.expected(found.x, sigma)
        if free or not found.steps:
            return found.x, seen.S, seen.nll, len(found.steps)
        S = seen.S
        for step, (first, second) in zip(found.steps, ways, strict=False):
            S = S + (step * first + step**2 * second) / problem.n_obs
        return found.x, S, self._nll(sigma, S, seen), len(found.steps)

    def _nll(self, sigma: Sigma, S: np.ndarray, seen: Expected) -> float:
        """At coefficients whose S* this is, where log|Sigma_oo| is as it was seen.

        tr (Sigma^-1 S*) counts a missing response as one.
        """
        problem = self.problem
        missing = problem.n_obs * problem.design.n_equations - problem.n_cells
        quadratic = sigma.trace_solve(S) * problem.n_obs - missing
        return 0.5 * (LOG_2PI * problem.n_cells + seen.log_det + quadratic) / problem.n_obs


def _is_covariance(S: np.ndarray) -> bool:
    """Whether S (K, K) is positive definite, and not by rounding alone."""
    own = S.diagonal()
    if not (own > 0.0).all():
        return False
    unit = np.sqrt(own)
    return bool(np.linalg.eigvalsh(S / unit[:, None] / unit)[0] > 1e-13)
