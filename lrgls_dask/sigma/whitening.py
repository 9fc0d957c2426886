"""Errors of rows turned into numbers without correlation and of variance one, of what each row shows.

With Sigma = F F' + D and U = D^-1/2 F, the errors r of a row have D^-1/2 r with covariance I + U U', so that

    z = (I + U U')^-1/2 D^-1/2 r = u + U M U'u,     u = D^-1/2 r,     M = -q^2 / (1 + q),  q = (I + U'U)^-1/2,

has covariance I: near u, less most of what the factors put into it. Of a row that shows only some equations U has their
rows alone. Any other Sigma has the symmetric root of its correlations, of each pattern of what is shown.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from lrgls_dask.sigma.interface import Array, Sigma

__all__ = ["Whitening", "whitening_of"]

NUMBERS = 2**21  # of k x k matrices of rows that are held together


class Whitening(ABC):
    """Sigma_oo^-1/2 r_o of rows that show the equations o."""

    @abstractmethod
    def rows(self, residual: Array, observed: Array) -> Array:
        """(n, K) whitened residuals (n, K), which are zero where observed (n, K), one or zero, says they are missing;
        these stay zero."""


def whitening_of(sigma: Sigma) -> Whitening:
    """By factors and own variances where a Sigma is made of such, O(K k) a row, or O(K k^2) of one with holes; else by
    (K, K) matrices, O(m^3) for each pattern of m equations."""
    if not sigma.is_wide:
        dense = sigma.dense()
        size = np.sqrt(np.diagonal(dense))
        return _ByRoot(dense / np.outer(size, size), size)
    wide = sigma.widened()
    size = np.sqrt(wide.own_variances())
    return _ByFactors(wide.loadings() / size[:, None], size)


@dataclass(frozen=True, eq=False)
class _ByFactors(Whitening):
    """U : (K, k).  size : (K,) roots of the own variances."""

    U: Array
    size: Array

    def rows(self, residual: Array, observed: Array) -> Array:
        u, k = residual / self.size, self.U.shape[1]
        if k == 0:
            return u
        along = u @ self.U
        if observed.all():
            return np.asarray(u + along @ (_middle((self.U.T @ self.U)[None])[0] @ self.U.T))
        products = (self.U[:, :, None] * self.U[:, None, :]).reshape(-1, k * k)
        height = max(1, NUMBERS // k**2)
        for first in range(0, len(u), height):
            some = slice(first, first + height)
            middle = _middle((observed[some] @ products).reshape(-1, k, k))
            along[some] = (middle @ along[some, :, None])[:, :, 0]
        return np.asarray((u + along @ self.U.T) * observed)


def _middle(G: Array) -> Array:
    """(m, k, k) -q^2 / (1 + q) with q = (I + G)^-1/2, G (m, k, k) symmetric and not negative."""
    values, vectors = np.linalg.eigh(G)
    q = 1.0 / np.sqrt(1.0 + np.maximum(values, 0.0))
    return np.asarray((vectors * (-(q**2) / (1.0 + q))[:, None, :]) @ vectors.transpose(0, 2, 1))


@dataclass(frozen=True, eq=False)
class _ByRoot(Whitening):
    """correlation : (K, K).  size : (K,) standard deviations."""

    correlation: Array
    size: Array

    def rows(self, residual: Array, observed: Array) -> Array:
        u = residual / self.size
        shown = observed.astype(bool)
        patterns, which = np.unique(np.packbits(shown, axis=1), axis=0, return_inverse=True)
        out = np.zeros_like(u)
        for number in range(len(patterns)):
            rows = np.flatnonzero(which.ravel() == number)
            some = np.flatnonzero(shown[rows[0]])
            values, vectors = np.linalg.eigh(self.correlation[np.ix_(some, some)])
            out[np.ix_(rows, some)] = u[np.ix_(rows, some)] @ (vectors / np.sqrt(values)) @ vectors.T
        return out
