"""Expectation-maximisation over (b, F, d) as a step of the loop, and that of complete rows.

One look at (b, Sigma) gives the exact objective there and what the next point is made of. With all responses observed
it yields S B and diag S for B = Sigma^-1 F and the gradient by b, one pass where rows are streamed: for K so large that
S (K x K) cannot be held. The next point is every equation's coefficients given the expected factors,
b_j + d_j (X_j'X_j)^-1 X_j'(R Sigma^-1)_j, and the factor update of Rubin and Thayer (1982). Anderson acceleration of
that map saves most of the rounds; at the end the coefficients are refined by conjugate gradients.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from lrgls_dask.sigma.em import em_products, em_update, flattened, nll_from_products, rounding_of_products, unflattened
from lrgls_dask.sigma.interface import LOOSE, FactorStructure
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.structures import widened
from lrgls_dask.solve.anderson import Anderson
from lrgls_dask.solve.checkpoint import CheckpointLoop, run_from_kept
from lrgls_dask.solve.constraint import Preconditioner
from lrgls_dask.solve.gls import gls
from lrgls_dask.solve.interface import Posed, Problem, Products
from lrgls_dask.solve.iterate import MOST_PLAIN_ROUNDS, MOST_ROUNDS, Goal, Half, Space, State, Trace
from lrgls_dask.solve.record import NO_COVARIANCE, Options, Point, Solution, penalised

__all__ = [
    "LOOK_ROUNDING",
    "Rounds",
    "as_vector",
    "fit_em",
    "starting_sigma",
    "units_of",
    "units_of_sigma",
]

# The least share of its own variance with which an equation starts, where the factors leave that much to all together.
LEAST_OWN = 0.1
OVERSAMPLING = 8  # further columns of the random basis that finds the leading factors
# EM converges slowly: the rounds to come gain up to a hundred times what one does, and it has plateaus of one round.
ROUNDS_TO_COME = 100.0
LOOK_ROUNDING = 4e-15  # of the objective, which sums as many terms as there are slabs: less is no gain


# ---------------------------------------------------------------------------------------------- coordinates


def as_vector(c: np.ndarray, sigma: LowRank) -> np.ndarray:
    """(c, F, log d) as one vector, (P + K k + K,)."""
    return np.concatenate([c, flattened(sigma)])


def units_of(problem: Posed, sigma: LowRank) -> np.ndarray:
    """What makes a change of each coordinate count by about its share of the log-likelihood per row."""
    coefficients = 1.0 / np.sqrt(problem.n_obs * problem.coordinates.expand(sigma.d))
    return np.concatenate([coefficients, units_of_sigma(problem.n_obs, problem.cells, sigma)])


def units_of_sigma(n_obs: float, cells: np.ndarray, sigma: LowRank) -> np.ndarray:
    """(K k + K,) the same of (F, log d)."""
    share = np.sqrt(cells / n_obs)
    return np.concatenate([np.repeat(share / np.sqrt(sigma.d), sigma.rank), share * np.sqrt(0.5)])


# ---------------------------------------------------------------------------------------------- the step


@dataclass(frozen=True, eq=False)
class Rounds(ABC):
    """A sweep, here called a round, is one look at the rows and what follows from it; the objective never rises.

    Inside the loop all factors stand side by side, the zeros of the structure among their loadings.
    near : a Sigma that sets the units in which points are extrapolated.
    """

    problem: Any
    structure: FactorStructure
    options: Options
    near: LowRank

    first: ClassVar[int] = 0

    @abstractmethod
    def read(self, c: np.ndarray, sigma: LowRank) -> tuple[float, Any]:
        """nll per row at a point, and what leads on from there; one pass where rows are streamed."""

    def rounding(self, sigma: LowRank, seen: Any) -> float:
        """By how much rounding moves the nll that was read, beside its last digits."""
        return 0.0

    @abstractmethod
    def image(self, c: np.ndarray, sigma: LowRank, seen: Any) -> tuple[np.ndarray, LowRank]:
        """The next point, whose objective is not above that of this one."""

    @abstractmethod
    def refined(self, c: np.ndarray, sigma: LowRank, seen: Any) -> tuple[np.ndarray, int]:
        """The coefficients of a Sigma by conjugate gradients from c, and how many iterations that took."""

    # ------------------------------------------------------------------------------------------ what the loop asks

    @cached_property
    def space(self) -> Space[Point] | None:
        """Of (c, F, log d). With accelerate=False it is the plain iteration, whose objective falls every round."""
        if not self.options.accelerate:
            return None
        units = units_of(self.problem, self.near)

        def at(vector: np.ndarray, image: Point) -> Point:
            z, n = vector / units, len(image.c)
            return Point(z[:n], NO_COVARIANCE, unflattened(z[n:], image.sigma.rank, self._floor))

        return Space(lambda point: as_vector(point.c, widened(point.sigma)) * units, at, Anderson())

    def goal(self) -> Goal:
        most = MOST_ROUNDS if self.options.accelerate else MOST_PLAIN_ROUNDS
        return Goal(most if self.options.max_sweeps is None else self.options.max_sweeps, self.options.rel_tol)

    def trace(self) -> Trace:
        return Trace(self.structure.rank, self.problem.nll_offset, self.problem.meter)

    def start(self, point: Point) -> Half[Point]:
        half = self._looked("start", point.c, widened(point.sigma))
        return replace(half, point=replace(point, sigma=self.structure.value(widened(point.sigma))))

    def look(self, state: State[Point]) -> Half[Point]:
        half = self._looked("em", state.point.c, widened(state.point.sigma))
        gain = max(abs(state.obj - half.obj), state.gain)
        rounding = half.rounding + LOOK_ROUNDING * max(1.0, abs(half.obj))
        left = 0.0 if gain <= rounding else ROUNDS_TO_COME * gain
        return replace(half, left=left, accept_t=1.0 if half.obj < state.obj else 0.0)

    def move(self, looked: Half[Point], state: State[Point]) -> Half[Point]:
        c, sigma = self.image(looked.point.c, widened(looked.point.sigma), looked.seen)
        return Half(Point(c, NO_COVARIANCE, sigma))

    def finish(self, looked: Half[Point], state: State[Point]) -> Half[Point]:
        sigma, seen = widened(looked.point.sigma), looked.seen
        if seen is None:  # an earlier client saw it: looked at again, which counts as that look
            totals = self.problem.meter.totals
            _, seen = self.read(looked.point.c, sigma)
            self.problem.meter.go_on_from(totals)
        c, iterations = self.refined(looked.point.c, sigma, seen)
        half = self._looked("beta", c, sigma) if iterations else replace(looked, name="beta", accept_t=1.0, left=np.inf)
        return replace(half, point=Point(c, NO_COVARIANCE, self.structure.value(sigma)), cg=iterations)

    def _looked(self, name: str, c: np.ndarray, sigma: LowRank) -> Half[Point]:
        nll, seen = self.read(c, sigma)
        obj = penalised(self.problem, self.structure, c, sigma, nll)
        return Half(
            Point(c, NO_COVARIANCE, sigma), name, nll, obj, value=obj, rounding=self.rounding(sigma, seen), seen=seen
        )

    @cached_property
    def _floor(self) -> np.ndarray:
        return np.full(self.problem.design.n_equations, self.options.d_floor)


# ---------------------------------------------------------------------------------------------- complete rows


def starting_sigma(problem: Problem, rank: int, c: np.ndarray, floor: np.ndarray) -> LowRank:
    """Leading principal factors of S, from one pass: S ~ (S W)(W'S W)^-1 (S W)' for a random W (Nystrom)."""
    n_equations = len(floor)
    columns = min(n_equations, rank + OVERSAMPLING)
    basis, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((n_equations, columns)))
    seen = problem.products(c, basis, None)
    root = np.linalg.cholesky(_bounded_below(basis.T @ seen.along))
    left, size, _ = np.linalg.svd(np.linalg.solve(root, seen.along.T).T, full_matrices=False)
    F = left[:, :rank] * size[:rank]
    own = seen.diagonal - np.sum(F**2, axis=1)
    # principal components take up own variance too: leave each equation a tenth, or less where little is left to all
    least = np.clip(own.sum() / seen.diagonal.sum(), np.finfo(float).eps, LEAST_OWN)
    shrink = np.sqrt(np.minimum(1.0, (1.0 - least) * seen.diagonal / np.maximum(np.sum(F**2, axis=1), 1e-300)))
    return LowRank(F * shrink[:, None], np.maximum(np.maximum(own, least * seen.diagonal), floor))


def _bounded_below(matrix: np.ndarray) -> np.ndarray:
    symmetric: np.ndarray = 0.5 * (matrix + matrix.T)
    return symmetric + 1e-12 * np.trace(symmetric) * np.eye(len(matrix))


def fit_em(
    problem: Problem,
    structure: FactorStructure,
    options: Options,
    c: np.ndarray,
    *,
    sigma: LowRank | None = None,
    kept: CheckpointLoop | None = None,
) -> Solution[Point]:
    """The solution from coefficients c (P,), and a Sigma if there is one to start from.

    Each round is one pass; the coefficients are then refined by CG.
    """
    floor = np.full(problem.design.n_equations, options.d_floor)
    sigma = _first_sigma(problem, structure, c, floor) if sigma is None else sigma
    step = CompleteRounds(problem, structure, options, sigma)
    return run_from_kept(step, Point(c, NO_COVARIANCE, sigma), step.goal(), kept)


def _first_sigma(problem: Problem, structure: FactorStructure, c: np.ndarray, floor: np.ndarray) -> LowRank:
    if structure.loadings(len(floor)).everywhere:
        return starting_sigma(problem, structure.rank, c, floor)
    # principal factors know no zeros; where all of a group's loadings are zero they would stay so
    return widened(structure.candidates(problem.residual_covariance(c), floor, tol=LOOSE)[0].sigma)


class CompleteRounds(Rounds):
    """EM with all responses observed."""

    problem: Problem

    def read(self, c: np.ndarray, sigma: LowRank) -> tuple[float, Products]:
        seen = self.problem.products(c, em_products(sigma), sigma)
        return nll_from_products(sigma, seen.along, seen.diagonal), seen

    def rounding(self, sigma: LowRank, seen: Products) -> float:
        return rounding_of_products(sigma, seen.diagonal)

    def image(self, c: np.ndarray, sigma: LowRank, seen: Products) -> tuple[np.ndarray, LowRank]:
        ridge = self.problem.coordinates.ridge
        own = self.problem.coordinates.expand(sigma.d)
        _, step = Preconditioner((1.0 - ridge) / own + ridge, self.problem.constraint)(seen.gradient)
        loadings = self.structure.loadings(self.problem.design.n_equations)
        free = None if loadings.everywhere else loadings.free
        lam_F = self.structure.lam_F
        expand = loadings.together if self.options.accelerate and lam_F == 0.0 else ()
        found = em_update(sigma, seen.along, seen.diagonal, self._floor, lam_F=lam_F, free=free, expand=expand)
        return c + step, found

    def refined(self, c: np.ndarray, sigma: LowRank, seen: Products) -> tuple[np.ndarray, int]:
        found = gls(self.problem, self.options, c, sigma, gradient=seen.gradient)
        return found.c, found.iterations
