"""Projected, damped Newton for the profile likelihood, d >= floor.

Source: Joreskog (1967), section 4 (exact Hessian where positive definite, the approximation elsewhere); Bertsekas
(1982) for the bounds; Levenberg (1944) for the damping.

The coordinate of equation i is u = log(d / c) for d above c = SMALL_SHARE s_ii and u = d / c - 1 below: once
continuously differentiable.  Logarithms make large variances well scaled, but a Heywood case would take one step per
factor e on its way to the floor, along valleys (d_i + d_j constant) that only d itself sees straight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError

from lrgls_dask.sigma.interface import Array
from lrgls_dask.sigma.profile import Point, Profile
from lrgls_dask.sigma.quadratic import RIDGE, Curvature

__all__ = ["SMALL_SHARE", "Local", "chart", "minimise", "unchart"]

SMALL_SHARE = 0.05
# A step may change a variance by a factor e^2 at most: the quadratic model is not to be believed further out.
MAX_STEP = 2.0
FIRST_DAMPING, LAST_DAMPING = 1e-3, 1e8
# Nearer to the floor than this is on the floor: a coordinate that rounding left above it would halt every step.
ON_FLOOR = 1e-6
# A step that leaves more than this share of the gradient is better made with the exact Hessian.
SLOW = 0.25
# Above this size of the gradient, where there is no exact Hessian, factors are found again and again and each variance
# is what they leave of it, as long as that lowers the gradient: far from an optimum no quadratic model tells more.
FAR, FALLS = 0.1, 0.9
# Two points whose variances differ by no larger share, all of them, lead to the same optimum.
NEAR = 0.1
# How often one step may find more coordinates that run into the floor and solve again for the others.
ACTIVE_SET_PASSES = 4


@dataclass(frozen=True, eq=False)
class Local:
    """A point x >= lower in the coordinates u >= lowest: slope r = du/dx, gradient df/du, all (K,)."""

    point: Point
    lower: Array
    corner: Array
    u: Array
    lowest: Array
    slope: Array
    gradient: Array

    @classmethod
    def at(cls, profile: Profile, x: Array) -> Local:
        return cls.of(profile, profile.at(x))

    @classmethod
    def of(cls, profile: Profile, point: Point) -> Local:
        corner, x = np.log(SMALL_SHARE * profile.ceiling), point.x
        slope = np.exp(np.minimum(x - corner, 0.0))
        u, lowest = chart(x - corner), chart(profile.lower - corner)
        return cls(point, profile.lower, corner, u, lowest, slope, point.gradient / slope)

    @property
    def free(self) -> NDArray[np.intp]:
        """Coordinates off the floor, or on it and drawn upwards."""
        return np.flatnonzero((self.u > self.lowest) | (self.gradient < 0.0))

    @property
    def size(self) -> float:
        """Largest derivative along a free coordinate: 0 at a Karush-Kuhn-Tucker point."""
        return float(np.max(np.abs(self.gradient[self.free]), initial=0.0))

    @property
    def rounding(self) -> float:
        """What the terms of f, summed in floating point, can be off by."""
        x = self.point.x
        return 4.0 * float(np.finfo(float).eps * (np.abs(x).sum() + x.size + abs(self.point.value)))

    def after(self, damping: float, exact: bool = True) -> Array:
        """x after a damped Newton step, not below the floor.  exact : with the exact Hessian, where there is one."""
        u = np.maximum(self.u + self._step(damping, exact), self.lowest)
        x = self.corner + unchart(u)
        return np.where(x - self.lower < ON_FLOOR, self.lower, x)

    def explained(self) -> Array:
        """x of d = diag(S - F F'), what the best factors at x leave of each variance, not below the floor."""
        change = np.log(np.maximum(1.0 - 2.0 * self.point.gradient, np.exp(-MAX_STEP)))
        return np.maximum(self.point.x + change, self.lower)

    def is_near(self, other: Point) -> bool:
        """Whether no variance differs by more than NEAR of that of another point, or of SMALL_SHARE of its total."""
        return bool(np.abs(self.u - chart(other.x - self.corner)).max() <= NEAR)

    def _step(self, damping: float, exact: bool) -> Array:
        if exact and self.point.hessian is not None:
            bend = np.where(
                self.slope < 1.0, self.gradient / self.slope, 0.0
            )  # d2x/du2 = -1/r^2 where u is linear in d
            try:
                return self._solved(self.point.hessian, damping - bend)
            except LinAlgError:
                pass  # not convex here: the semidefinite approximation below always has a descent direction
        H = self.point.scoring
        return self._solved(H, np.maximum(damping, RIDGE * (1.0 + H.diagonal() / self.slope**2)))

    def _solved(self, H: Curvature, added: Array) -> Array:
        """The minimiser of the quadratic model over the free coordinates, those it sends below the floor held there."""
        H = H.changed(self.slope, added)
        step, free = np.zeros_like(self.u), self.free
        for _ in range(ACTIVE_SET_PASSES):
            if not free.size:
                break
            newton = np.clip(H.solve(free, -(self.gradient + H.image(step))[free]), -MAX_STEP, MAX_STEP)
            below = self.u[free] + newton < self.lowest[free]
            if not below.any():
                step[free] = newton
                break
            step[free[below]] = (self.lowest - self.u)[free[below]]
            free = free[~below]
        return step


def chart(z: Array) -> Array:
    """u as a function of z = log(d / c)."""
    return np.where(z < 0.0, np.expm1(np.minimum(z, 0.0)), z)


def unchart(u: Array) -> Array:
    """z = log(d / c) as a function of u > -1."""
    with np.errstate(divide="ignore"):  # d may be of no size beside c: log 0
        return np.where(u < 0.0, np.log1p(np.minimum(u, 0.0)), u)


def minimise(
    profile: Profile,
    x: Array,
    tol: float,
    max_iterations: int,
    *,
    begin: Point | None = None,
    known: Sequence[Point] = (),
) -> Point:
    """The point reached from x = log d (K,): projected gradient at most `tol`, or as near as rounding allows.

    begin : the point at x, where the same profile has been there.  known : optima already; once near one, it is that.
    One evaluation of the profile and one solve with its Hessian an iteration; quadratic convergence at the end where
    that is exact.  The value never rises beyond rounding.
    """
    here = Local.at(profile, np.maximum(x, profile.lower)) if begin is None else Local.of(profile, begin)
    damping = 0.0
    exact = profile.exact  # else the approximation, a fraction of the price, as long as it is good
    far = not exact
    for _ in range(max_iterations):
        if here.size <= tol:
            break
        near = next((point for point in known if here.is_near(point)), None)
        if near is not None:
            return near
        far = far and here.size > FAR
        there = Local.at(profile, here.explained() if far else here.after(damping, exact))
        gain = here.point.value - there.point.value
        if far:
            far = gain > here.rounding and there.size < FALLS * here.size
            here = there if gain > here.rounding else here
            continue
        exact = exact or there.size > SLOW * here.size
        if gain > here.rounding or (gain >= -here.rounding and there.size < 0.5 * here.size):
            here, damping = there, 0.0 if damping <= FIRST_DAMPING else 0.1 * damping
        elif abs(gain) <= here.rounding or damping >= LAST_DAMPING:
            break
        else:
            damping = max(10.0 * damping, FIRST_DAMPING)
    return here.point
