"""Newton's method with conjugate gradients for nll + l1 sum|A| over loadings A and log d >= log floor.

Each step keeps to one orthant: loadings keep their signs or stop at zero, where they stay as long as the slope of the
likelihood there is below l1; variances stop at their floor. On the free coordinates the Newton system is solved by
conjugate gradients with exact Hessian products, preconditioned by the information of the data, one small block an
equation: that of complete data, factors observed, is 1 / d times too large where d is small. Where that fails, an EM
step takes its place, which cannot rise. Steps are in (A, u), u = log d but linear in d where d is small (`newton`).
Source: Byrd, Chin, Nocedal & Oztoprak (2016), orthant-based steps; Nocedal & Wright (2006), algorithm 7.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lrgls_dask.sigma.algebra import REFINE_ABOVE
from lrgls_dask.sigma.blocks import Blocks
from lrgls_dask.sigma.curvature import Curved, soft
from lrgls_dask.sigma.grouped_factors import GroupedFactors
from lrgls_dask.sigma.interface import Array, SigmaStep
from lrgls_dask.sigma.ml import MAX_CANDIDATES, merged
from lrgls_dask.sigma.newton import SMALL_SHARE, chart, unchart

__all__ = ["EM_STEPS", "TIGHT", "Ended", "Goal", "distinct_optima", "finished", "minimise_composite"]

# Violations of the optimality conditions, per row in standard units: of a start worth following, and of a result.
LOOSE, TIGHT = 1e-4, 1e-9
# EM steps take a start most of the way, at the price of one Hessian product each.
EM_STEPS = 10

# No variance changes by more than a factor e^2 in one step.
MAX_STEP = 2.0
ARMIJO, HALVINGS = 1e-4, 12
MAX_CG = 60
# Added to the moments of the factors in the preconditioner: what the data do not tell about a factor that explains
# next to nothing.
RIDGE = 0.1
# The linear system is solved to this share of its right-hand side at first, tighter in step with the gradient.
# In the end every digit counts: a slope that is large only because a variance is tiny weighs little in that share.
LOOSEST, TIGHTEST = 0.2, 1e-10
# Nearer to the floor than this is on the floor; and so is what goes down less than a percent above it, lest a step
# that the floor cuts short in one coordinate be of no use in the others (Bertsekas 1982).
ON_FLOOR, NEAR_FLOOR = 1e-6, 0.01


@dataclass(frozen=True, eq=False)
class Goal:
    """What is minimised: nll(.; S) + l1 sum|A|, log d >= log floor.  S (K, K), floor (K,).

    held : (K, s) true for loadings that stay at zero, or None.
    """

    blocks: Blocks
    S: Array
    floor: Array
    l1: float = 0.0
    held: NDArray[np.bool_] | None = None

    def at(self, A: Array, x: Array) -> State:
        return State(self, Curved.at(self.blocks, self.S, A, x), A, x)

    def start(self, sigma: GroupedFactors) -> State:
        """The state at `sigma`, its variances brought up to the floor."""
        A = sigma.A if self.held is None else np.where(self.held, 0.0, sigma.A)
        return self.at(A, np.log(np.maximum(sigma.d, self.floor)))

    @cached_property
    def lower(self) -> Array:
        return np.log(self.floor)

    @cached_property
    def corner(self) -> Array:
        """(K,) log of the variances below which steps are linear in d, as in `newton`."""
        return np.log(SMALL_SHARE * np.maximum(np.diagonal(self.S), self.floor))


@dataclass(frozen=True, eq=False)
class State:
    """One point: A (K, s), x = log d (K,), and what is known of the objective there."""

    goal: Goal
    curved: Curved
    A: Array
    x: Array

    @cached_property
    def value(self) -> float:
        """The objective, per row."""
        return self.curved.value + self.goal.l1 * float(np.abs(self.A).sum())

    @cached_property
    def _signs(self) -> Array:
        """(K, s) the orthant: the sign of each loading, at zero that into which it would move, 0 where it stays."""
        slope = self.curved.gradient[0]
        signs = np.where(self.A != 0.0, np.sign(self.A), -np.sign(soft(slope, self.goal.l1)))
        return signs if self.goal.held is None else np.where(self.goal.held, 0.0, signs)

    @cached_property
    def _free(self) -> Array:
        """(K, s + 1) 1 for coordinates that may move, 0 for the others; the last column is x."""
        moving = np.ones_like(self.A) if self.goal.l1 == 0.0 else np.abs(self._signs)
        if self.goal.held is not None:
            moving = np.where(self.goal.held, 0.0, moving)
        above = (self.x > self.goal.lower) | (self.curved.gradient[1] < 0.0)
        return np.column_stack([moving, above])

    @cached_property
    def slope(self) -> Array:
        """(K, s + 1) the subgradient of least size, zero at a Karush-Kuhn-Tucker point."""
        along_A, along_x = self.curved.gradient
        return self._free * np.column_stack([along_A + self.goal.l1 * self._signs, along_x])

    @property
    def violation(self) -> float:
        """The largest entry of `slope`."""
        return float(np.abs(self.slope).max())

    @property
    def rounding(self) -> float:
        """What the terms of the objective, summed in floating point, can be off by."""
        lost = np.minimum(np.diagonal(self.goal.S) / self.curved.sigma.d, REFINE_ABOVE)  # digits that Woodbury costs
        return 8.0 * float(np.finfo(float).eps * (np.abs(self.x).sum() + lost.sum() + self.x.size + abs(self.value)))

    # ------------------------------------------------------------------------------------ the step

    @cached_property
    def _pace(self) -> Array:
        """(K, s + 1) the derivative of (A, x) by the coordinates of a step, (A, u)."""
        return np.column_stack([np.ones_like(self.A), np.exp(np.maximum(self.goal.corner - self.x, 0.0))])

    @cached_property
    def gradient(self) -> Array:
        """(K, s + 1) the slope along the coordinates of a step."""
        return self._pace * self.slope

    @cached_property
    def _information(self) -> Array:
        """(K, s + 1, s + 1) inverse blocks of `own_information`, made definite, on the free coordinates of a step."""
        free, here = self._free, np.arange(self._free.shape[1])
        blocks = self.curved.own_information() * self._pace[:, :, None] * self._pace[:, None, :]
        stiffness = np.repeat(self.curved.sigma.precision_diagonal[:, None], self.A.shape[1], axis=1)
        blocks[:, here, here] += RIDGE * np.column_stack([stiffness, np.ones(len(self.x))])
        blocks *= free[:, :, None] * free[:, None, :]
        blocks[:, here, here] += 1.0 - free
        return np.asarray(np.linalg.inv(blocks))

    def _preconditioned(self, r: Array) -> Array:
        """Each equation's block of the information inverted, applied to r (K, s + 1)."""
        return self._free * np.einsum("ijk,ik->ij", self._information, r)

    def curvature_along(self, p: Array) -> Array:
        """The Hessian in (A, u), on the free coordinates, times p (K, s + 1)."""
        at = self._pace * p
        along_A, along_x = self.curved.hessian_product(at[:, :-1], at[:, -1])
        # Where u is linear in d the second derivative of x by u is minus the square of the first.
        along_x = along_x - np.where(self._pace[:, -1] > 1.0, self.slope[:, -1] * at[:, -1], 0.0)
        return self._free * self._pace * np.column_stack([along_A, along_x])

    def newton(self, tol: float) -> Array:
        """(K, s + 1) the Newton step in (A, u) to a relative residual `tol`, cut short at negative curvature."""
        step, residual = np.zeros_like(self.slope), -self.gradient
        z = self._preconditioned(residual)
        energy = first = float(np.vdot(residual, z))
        direction = z
        for _ in range(MAX_CG):
            image = self.curvature_along(direction)
            curvature = float(np.vdot(direction, image))
            if curvature <= 1e-14 * float(np.vdot(direction, direction)):
                return step if step.any() else direction
            length = energy / curvature
            step = step + length * direction
            residual = residual - length * image
            z = self._preconditioned(residual)
            previous, energy = energy, float(np.vdot(residual, z))
            if energy <= tol**2 * first:
                break
            direction = z + (energy / previous) * direction
        return step

    def moved(self, step: Array, length: float) -> State:
        """The point `length` along the step, loadings kept in their orthant and variances above their floor."""
        A = self.A + length * step[:, :-1]
        if self.goal.l1 > 0.0:
            A = np.where(A * self._signs > 0.0, A, 0.0)
        u = chart(self.x - self.goal.corner) + length * step[:, -1]
        lowest = chart(self.goal.lower - self.goal.corner)
        x = self.goal.corner + unchart(np.maximum(u, lowest))
        return self.goal.at(A, np.where(x - self.goal.lower < ON_FLOOR, self.goal.lower, x))

    def better(self, tol: float) -> State | None:
        """A point further down the Newton step, or None where none was found."""
        step = self.newton(tol)
        if float(np.vdot(step, self.gradient)) >= 0.0:
            return None
        length = min(1.0, MAX_STEP / max(float(np.abs(step[:, -1]).max()), 1e-300))
        for _ in range(HALVINGS):
            there = self.moved(step, length)
            change = np.column_stack([there.A - self.A, there.x - self.x])
            gain = self.value - there.value
            if gain > self.rounding and gain >= -ARMIJO * float(np.vdot(change, self.slope)):
                return there
            if gain >= -self.rounding and there.violation < 0.5 * self.violation:
                return there
            length *= 0.5
        return None

    def grounded(self) -> State:
        """Variances next to their floor and on their way down put on it, unless that raises the objective."""
        above = self.x - self.goal.lower
        near = (above > 0.0) & (above < NEAR_FLOOR) & (self.curved.gradient[1] > 0.0)
        if not near.any():
            return self
        there = self.goal.at(self.A, np.where(near, self.goal.lower, self.x))
        return there if there.value <= self.value else self

    def after_em(self) -> State | None:
        """The point after one EM step, or None where that gains no more than rounding."""
        there = self.em()
        return there if self.value - there.value > self.rounding else None

    def em(self) -> State:
        """The point that one EM step leads to."""
        return self.goal.at(*self.curved.em_image(self.goal.floor, self.goal.l1, self.goal.held))


@dataclass(frozen=True, eq=False)
class Ended:
    """Where the method stopped. violation : what is left of the optimality conditions.  iterations : Newton steps."""

    sigma: GroupedFactors
    value: float
    violation: float
    iterations: int


def minimise_composite(
    goal: Goal, start: GroupedFactors, *, tol: float, max_iterations: int = 100, em_steps: int = 0
) -> Ended:
    """A point with no coordinate's violation above `tol`, or as near as rounding allows, never worse than the start.

    em_steps : EM steps taken first.  A local optimum.  A Newton step costs up to MAX_CG Hessian
    products, O(K^2 s) each.
    """
    here, first = goal.start(start), 0.0
    for _ in range(em_steps):
        here = here.em()
    here, done = here.grounded(), 0
    while done < max_iterations and here.violation > tol:
        first = max(first, here.violation)
        there = here.better(min(LOOSEST, (here.violation / first) ** 0.5)) or here.better(TIGHTEST) or here.after_em()
        if there is None:
            break
        here, done = there.grounded(), done + 1
    return Ended(here.curved.sigma, here.value, here.violation, done)


def distinct_optima(
    goal: Goal, starts: Iterable[GroupedFactors], *, tol: float = TIGHT
) -> list[SigmaStep[GroupedFactors]]:
    """Local optima below the starts, best first, at most MAX_CANDIDATES, each with how many starts ended there.

    Every start goes EM_STEPS and then to LOOSE, the best that differ go on to `tol` and are compared again.
    """
    loose = [minimise_composite(goal, start, tol=LOOSE, em_steps=EM_STEPS) for start in starts]
    best = merged([(end.value, 1, end.sigma) for end in loose])[:MAX_CANDIDATES]
    return finished(goal, [(sigma, agreed) for _, agreed, sigma in best], len(loose), tol=tol)


def finished(
    goal: Goal, near: Iterable[tuple[GroupedFactors, int]], n_starts: int, *, tol: float = TIGHT
) -> list[SigmaStep[GroupedFactors]]:
    """The local optima next to those of `near`, best first, each with how many starts ended there."""
    ends = [(minimise_composite(goal, sigma, tol=max(tol, TIGHT)), agreed) for sigma, agreed in near]
    distinct = merged([(end.value, agreed, end.sigma) for end, agreed in ends])
    return [SigmaStep(sigma, 1.0, n_starts, agreed) for _, agreed, sigma in distinct]
