"""Symmetric K x K matrices that a Newton step solves with: as numbers, or as a diagonal and a few products.

The second needs no K x K array: Woodbury (1950) turns a solve with diag(a) + Z Z' into one with h x h numbers. Where a
is not well above zero the matrix may be positive definite all the same; such rows, which are few, are kept apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, lapack, lu_factor, lu_solve

from lrgls_dask.sigma.interface import Array

__all__ = ["RIDGE", "Applied", "Curvature", "Dense", "Products"]

# Added to a semidefinite approximation, relative to its diagonal: it is singular where rank is not identified.
RIDGE = 1e-8
# Of conjugate gradients in a Newton step: how many, to what share of the energy of the first, and the least curvature,
# relative to that of the approximation, that is one.
MOST_PRODUCTS, ENOUGH, SMALL_CURVATURE = 40, 1e-4, 1e-3
SAFE = 0.1  # share of a row's diagonal below which what the products leave of it divides nothing


class Curvature(Protocol):
    """A symmetric matrix (K, K), positive definite where `solve` is asked."""

    def changed(self, slope: Array, added: Array) -> Curvature:
        """diag(1 / slope) H diag(1 / slope) + diag(added)."""

    def image(self, step: Array) -> Array:
        """H step, (K,)."""

    def solve(self, free: NDArray[np.intp], rhs: Array) -> Array:
        """H_ff^-1 rhs over the coordinates `free`; LinAlgError where it is found not to be positive definite."""


@dataclass(frozen=True, eq=False)
class Dense:
    """All numbers."""

    H: Array

    def diagonal(self) -> Array:
        return np.asarray(self.H.diagonal())

    def changed(self, slope: Array, added: Array) -> Dense:
        H = self.H / slope[:, None] / slope
        H[np.diag_indices_from(H)] += added
        return Dense(H)

    def image(self, step: Array) -> Array:
        return np.asarray(self.H @ step)

    def solve(self, free: NDArray[np.intp], rhs: Array) -> Array:
        _, found, info = lapack.dposv(self.H[np.ix_(free, free)], rhs, lower=1)
        if info != 0:
            raise LinAlgError("not positive definite")
        return np.asarray(found)


@dataclass(frozen=True, eq=False)
class Products:
    """diag(own) + columns columns', own (K,), columns (K, h): O(K h^2) a solve."""

    own: Array
    columns: Array

    def diagonal(self) -> Array:
        return np.asarray(self.own + np.einsum("ih,ih->i", self.columns, self.columns))

    def changed(self, slope: Array, added: Array) -> Products:
        return Products(self.own / slope**2 + added, self.columns / slope[:, None])

    def image(self, step: Array) -> Array:
        return np.asarray(self.own * step + self.columns @ (self.columns.T @ step))

    def solve(self, free: NDArray[np.intp], rhs: Array) -> Array:
        return self.solver(free)(rhs)

    def solver(self, free: NDArray[np.intp]) -> Callable[[Array], Array]:
        """`solve` for many right-hand sides, factored once."""
        own, Z = self.own[free], self.columns[free]
        whole = own + np.einsum("ih,ih->i", Z, Z)
        apart = np.flatnonzero(own < SAFE * whole)
        base = own.copy()
        base[apart] = whole[apart]
        units = np.zeros((free.size, apart.size))
        units[apart, np.arange(apart.size)] = 1.0
        U = np.concatenate([Z, units], axis=1)
        inner = U.T @ (U / base[:, None])
        inner[np.diag_indices_from(inner)] += np.concatenate([np.ones(Z.shape[1]), 1.0 / (own[apart] - base[apart])])
        factors = lu_factor(inner, check_finite=False)

        def once(b: Array) -> Array:
            x = b / base
            return np.asarray(x - (U @ lu_solve(factors, U.T @ x, check_finite=False)) / base)

        def solve(b: Array) -> Array:
            found = once(b)
            found += once(b - own * found - Z @ (Z.T @ found))  # the digits that differences lost
            return found

        return solve


@dataclass(frozen=True, eq=False)
class Applied:
    """A matrix known by what it does to a vector, `apply`, as diag(1 / slope) apply diag(1 / slope) + diag(added).

    near : one like it that is positive definite. A solve is some conjugate gradients, preconditioned by it; where the
    matrix is not positive definite they end with what they have, which leads downhill all the same.
    Source: Steihaug (1983).
    """

    apply: Callable[[Array], Array]
    near: Products
    slope: Array
    added: Array

    def changed(self, slope: Array, added: Array) -> Applied:
        ridge = np.maximum(added, RIDGE * (1.0 + self.near.diagonal() / slope**2))
        return Applied(self.apply, self.near.changed(slope, ridge), self.slope * slope, self.added / slope**2 + added)

    def image(self, step: Array) -> Array:
        return np.asarray(self.apply(step / self.slope) / self.slope + self.added * step)

    def solve(self, free: NDArray[np.intp], rhs: Array) -> Array:
        precondition, whole = self.near.solver(free), np.zeros_like(self.slope)
        found, r = np.zeros_like(rhs), rhs.copy()
        z = precondition(r)
        p, energy = z, float(r @ z)
        first = energy
        for _ in range(MOST_PRODUCTS):
            whole[free] = p
            image = self.image(whole)[free]
            curvature = float(p @ image)
            if curvature <= SMALL_CURVATURE * energy:
                return found if found.any() else z
            found += (energy / curvature) * p
            r -= (energy / curvature) * image
            z = precondition(r)
            before, energy = energy, float(r @ z)
            if energy <= ENOUGH * first:
                break
            p = z + (energy / before) * p
        return found
