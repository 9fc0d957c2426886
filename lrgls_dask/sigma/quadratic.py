"""Symmetric K x K matrices that a Newton step solves with: as numbers, or as a diagonal and a few products.

The second needs no K x K array: Woodbury (1950) turns a solve with diag(a) + Z Z' into one with h x h numbers. Where a
is not well above zero the matrix may be positive definite all the same; such rows, which are few, are kept apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, lapack

from lrgls_dask.sigma.interface import Array

__all__ = ["Curvature", "Dense", "Products"]

SAFE = 0.1  # share of a row's diagonal below which what the products leave of it divides nothing


class Curvature(Protocol):
    """A symmetric matrix (K, K), positive definite where `solve` is asked."""

    def diagonal(self) -> Array: ...

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

        def once(b: Array) -> Array:
            x = b / base
            return np.asarray(x - (U @ np.linalg.solve(inner, U.T @ x)) / base)

        found = once(rhs)
        found += once(rhs - own * found - Z @ (Z.T @ found))  # the digits that differences lost
        return found
