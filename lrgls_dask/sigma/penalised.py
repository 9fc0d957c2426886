"""nll + lam_F/2 ||F||^2 over loadings F and variances d together: Newton's method with the exact Hessian, d >= floor.

The penalty leaves no closed form for the loadings at given d. With P = Sigma^-1, E = P S P, G = P - E and W = E - P/2,
and dots for columns,

    d/dF = G F + lam_F F,                         d/dx_i = 1/2 d_i G_ii,   x = log d,
    d2/dF_ia dF_jb = P_ij (F'WF)_ab + W_ij (F'PF)_ab + (PF)_ja (WF)_ib + (PF)_ib (WF)_ja
                     + [a = b] (G_ij + lam_F [i = j]),
    d2/dF_ia dx_j  = d_j (W_ij (PF)_ja + P_ij (WF)_ja),
    d2/dx_i dx_j   = d_i d_j P_ij W_ij + 1/2 [i = j] d_i G_ii.

Nothing changes along rotations of the loadings, so that these get a curvature of their own, which changes no step.
Coordinates, floors and damping are those of the profile's Newton method (`newton`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, lapack

from lrgls_dask.sigma.interface import LOG_2PI, Array
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.newton import (
    ACTIVE_SET_PASSES,
    FIRST_DAMPING,
    LAST_DAMPING,
    MAX_STEP,
    ON_FLOOR,
    SMALL_SHARE,
    chart,
    unchart,
)

__all__ = ["Penalised", "State", "minimise_penalised"]


@dataclass(frozen=True, eq=False)
class Penalised:
    """The problem: S (K, K), the penalty, the least variances (K,)."""

    S: Array
    lam_F: float
    floor: Array

    @cached_property
    def lower(self) -> Array:
        """(K,) log floor."""
        return np.log(self.floor)

    @cached_property
    def corner(self) -> Array:
        """(K,) log of the variances below which steps are linear in d."""
        return np.log(SMALL_SHARE * np.maximum(np.diagonal(self.S), self.floor))


@dataclass(frozen=True, eq=False)
class State:
    """One point: F (K, k), x = log d (K,). Steps are in (F, u), flat, (K (k + 1),)."""

    of: Penalised
    F: Array
    x: Array

    @cached_property
    def sigma(self) -> LowRank:
        return LowRank(self.F, np.exp(self.x))

    @cached_property
    def _PS(self) -> Array:
        return self.sigma.solve(self.of.S)

    @cached_property
    def _E(self) -> Array:
        return self.sigma.solve_rows(self._PS)

    @cached_property
    def value(self) -> float:
        """The objective, per row."""
        nll = 0.5 * (self.x.size * LOG_2PI + self.sigma.logdet + float(np.trace(self._PS)))
        return nll + 0.5 * self.of.lam_F * float(np.vdot(self.F, self.F))

    @cached_property
    def _along_x(self) -> Array:
        return np.asarray(0.5 * self.sigma.d * (self.sigma.precision_diagonal - np.diagonal(self._E)))

    @cached_property
    def slope(self) -> Array:
        """(K,) du/dx."""
        return np.exp(np.minimum(self.x - self.of.corner, 0.0))

    @cached_property
    def gradient(self) -> Array:
        """(n,) by (F, u)."""
        PF = self.sigma.precision_loadings
        along_F = PF - self._PS @ PF + self.of.lam_F * self.F
        return np.concatenate([along_F.ravel(), self._along_x / self.slope])

    @cached_property
    def free(self) -> NDArray[np.intp]:
        """Coordinates that are not on the floor, or drawn upwards from it."""
        moves = np.ones(self.gradient.size, dtype=bool)
        moves[self.F.size :] = (self.x > self.of.lower) | (self.gradient[self.F.size :] < 0.0)
        return np.flatnonzero(moves)

    @cached_property
    def size(self) -> float:
        """The largest derivative along a free coordinate."""
        return float(np.abs(self.gradient[self.free]).max())

    @property
    def rounding(self) -> float:
        """What the terms of the objective, summed in floating point, can be off by."""
        return 4.0 * float(np.finfo(float).eps * (np.abs(self.x).sum() + self.x.size + abs(self.value)))

    @cached_property
    def hessian(self) -> Array:
        """(n, n) by (F, u), with a curvature along rotations; O(K^2 k^2)."""
        (K, k), d = self.F.shape, self.sigma.d
        P = self.sigma.precision()
        E = 0.5 * (self._E + self._E.T)
        G, W = P - E, E - 0.5 * P
        PF, WF = self.sigma.precision_loadings, W @ self.F
        out = np.empty((K * (k + 1), K * (k + 1)))
        by_F = np.multiply.outer(P, self.F.T @ WF) + np.multiply.outer(W, self.F.T @ PF)
        crossed = np.multiply.outer(PF, WF)  # of j, a, i, b
        by_F = by_F.transpose(0, 2, 1, 3) + crossed.transpose(2, 1, 0, 3) + crossed.transpose(0, 3, 2, 1)
        for a in range(k):
            by_F[:, a, :, a] += G
        by_F = by_F.reshape(K * k, K * k)
        by_F[np.diag_indices(K * k)] += self.of.lam_F
        out[: K * k, : K * k] = by_F + self._rotations(by_F.diagonal().mean())
        paced = d / self.slope
        both = (W[:, None, :] * PF.T + P[:, None, :] * WF.T) * paced
        out[: K * k, K * k :] = both.reshape(K * k, K)
        out[K * k :, : K * k] = out[: K * k, K * k :].T
        by_u = P * W * paced[:, None] * paced
        # where u is linear in d the second derivative of x by u is -1 / slope^2, which cancels that of d by x
        by_u[np.diag_indices(K)] += np.where(self.slope < 1.0, 0.0, self._along_x)
        out[K * k :, K * k :] = by_u
        return out

    def _rotations(self, curvature: float) -> Array:
        """(K k, K k) `curvature` along the rotations of the loadings."""
        K, k = self.F.shape
        turns = []
        for a, b in combinations(range(k), 2):
            turn = np.zeros((K, k))
            turn[:, a], turn[:, b] = self.F[:, b], -self.F[:, a]
            length = np.linalg.norm(turn)
            if length > 0.0:
                turns.append(turn.ravel() / length)
        if not turns:
            return np.zeros((K * k, K * k))
        stacked = np.stack(turns)
        return np.asarray(curvature * stacked.T @ stacked)

    def after(self, damping: float) -> State:
        """The point after a damped Newton step, at most a factor e^2 in a variance, not below the floor."""
        size, of = self.F.size, self.of
        step = self._step(damping)
        lowest = chart(of.lower - of.corner)
        x = of.corner + unchart(np.maximum(chart(self.x - of.corner) + step[size:], lowest))
        x = np.where(x - of.lower < ON_FLOOR, of.lower, x)
        return State(of, self.F + step[:size].reshape(self.F.shape), x)

    def _step(self, damping: float) -> Array:
        """Raises LinAlgError where the damped Hessian is not positive definite."""
        H = self.hessian.copy()
        H[np.diag_indices_from(H)] += damping * (1.0 + np.abs(H.diagonal()))
        step, free, size = np.zeros(len(H)), self.free, self.F.size
        lowest = chart(self.of.lower - self.of.corner) - chart(self.x - self.of.corner)
        for _ in range(ACTIVE_SET_PASSES):
            held = -(self.gradient + H @ step)[free]
            _, newton, info = lapack.dposv(H[np.ix_(free, free)], held, lower=1)
            if info != 0:
                raise LinAlgError("not positive definite")
            of_u = free >= size
            newton *= min(1.0, MAX_STEP / max(float(np.abs(newton[of_u]).max(initial=0.0)), MAX_STEP))
            below = np.zeros(len(free), dtype=bool)
            below[of_u] = newton[of_u] < lowest[free[of_u] - size]
            if not below.any():
                step[free] = newton
                break
            step[free[below]] = lowest[free[below] - size]
            free = free[~below]
        return step


def minimise_penalised(problem: Penalised, begin: LowRank, *, tol: float, max_iterations: int = 100) -> LowRank:
    """The local optimum reached from `begin`: projected gradient at most `tol`, or as near as rounding allows.

    The value never rises beyond rounding. An iteration takes O(n^3) flops and some five n x n arrays, n = K (k + 1).
    """
    here = State(problem, begin.F, np.log(np.maximum(begin.d, problem.floor)))
    damping = 0.0
    for _ in range(max_iterations):
        if here.size <= tol:
            break
        try:
            there = here.after(damping)
            gain = here.value - there.value
        except LinAlgError:
            there, gain = here, -np.inf
        if gain > here.rounding or (gain >= -here.rounding and there.size < 0.5 * here.size):
            here, damping = there, 0.0 if damping <= FIRST_DAMPING else 0.1 * damping
        elif abs(gain) <= here.rounding or damping >= LAST_DAMPING:
            break
        else:
            damping = max(10.0 * damping, FIRST_DAMPING)
    return here.sigma
