"""The errors of some equations given those of others, for many patterns of which are shown.

With e ~ N(0, Sigma) and shown entries o, E[e_m | e_o] = Sigma_mo Sigma_oo^-1 e_o and the variance is
Sigma_mm - Sigma_mo Sigma_oo^-1 Sigma_om. For Sigma = F F' + diag(d) that is R'R = C = I + F_o' D_o^-1 F_o (k, k): the
mean is F_m C^-1 F_o' D_o^-1 e_o and the variance d_m + F_m C^-1 F_m'. Source: Anderson (2003), 2.5; Woodbury (1950).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

__all__ = ["Conditional", "DenseConditional", "FactorConditional"]


class Conditional(Protocol):
    """Errors given those that are shown, in u patterns of which equations are."""

    def means(self, which: np.ndarray, errors: np.ndarray) -> np.ndarray:
        """(n, K) E[e | e_o], right for what is not shown; which (n,) patterns of the rows, errors (n, K) with zeros for
        what is not shown."""
        ...

    def variances(self) -> np.ndarray:
        """(u, K) variance given e_o of each equation that is not shown."""
        ...

    def weights(self) -> np.ndarray:
        """(u, K, K) B with E[e | e_o] = B e_o, right in the rows of what is not shown; other columns are zero."""
        ...


@dataclass(frozen=True, eq=False)
class FactorConditional:
    """Sigma = F F' + diag(d): O(K k^2) for each pattern, O(K k) for each row, no K x K array.

    F : (K, k).  d : (K,).  shown : (u, K) which equations each pattern shows.
    """

    F: np.ndarray
    d: np.ndarray
    shown: np.ndarray

    @cached_property
    def _roots(self) -> np.ndarray:
        """(u, k, k) R^-1, from a QR factorisation of [I; D_o^-1/2 F_o]: C itself would square its condition number."""
        u, (K, k) = len(self.shown), self.F.shape
        stacked = np.empty((u, k + K, k))
        stacked[:, :k] = np.eye(k)
        np.multiply((self.F / np.sqrt(self.d)[:, None])[None], self.shown[:, :, None], out=stacked[:, k:])
        return np.asarray(np.linalg.inv(np.linalg.qr(stacked, mode="r")))

    def means(self, which: np.ndarray, errors: np.ndarray) -> np.ndarray:
        scaled = self.F / self.d[:, None]
        factors = _by_row(self._roots, which, errors @ scaled)
        # One step of the corrected seminormal equations (Bjorck 1987) gives back the digits of a QR solution.
        left = np.where(self.shown[which], errors - factors @ self.F.T, 0.0)
        factors += _by_row(self._roots, which, left @ scaled - factors)
        return np.asarray(factors @ self.F.T)

    def variances(self) -> np.ndarray:
        half = self.F @ self._roots
        return np.asarray(self.d + np.einsum("umk,umk->um", half, half))

    def weights(self) -> np.ndarray:
        half = self.F @ self._roots
        return np.asarray(half @ np.swapaxes(half / self.d[:, None] * self.shown[:, :, None], 1, 2))


@dataclass(frozen=True, eq=False)
class DenseConditional:
    """Any Sigma (K, K): O(K^3) for each pattern, O(K^2) for each row.  shown : (u, K)."""

    sigma: np.ndarray
    shown: np.ndarray

    @cached_property
    def _roots(self) -> np.ndarray:
        """(u, K, K) L^-T of Sigma_oo = L L', bordered by the variances of the others and then cleared of them."""
        both = self.shown[:, :, None] & self.shown[:, None, :]
        bordered = np.where(both | np.eye(len(self.sigma), dtype=bool), self.sigma, 0.0)
        inverse = np.linalg.inv(np.linalg.cholesky(bordered))
        return np.asarray(np.swapaxes(np.where(both, inverse, 0.0), 1, 2))

    def means(self, which: np.ndarray, errors: np.ndarray) -> np.ndarray:
        return np.asarray(_by_row(self._roots, which, errors) @ self.sigma)

    def variances(self) -> np.ndarray:
        half = self.sigma @ self._roots
        explained = np.einsum("umk,umk->um", half, half)
        return np.asarray(np.maximum(np.diagonal(self.sigma) - explained, 0.0))

    def weights(self) -> np.ndarray:
        return np.asarray(self.sigma @ self._roots @ np.swapaxes(self._roots, 1, 2))


def _by_row(roots: np.ndarray, which: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """row_i R R' with R the root of the pattern of row i."""
    if len(roots) == 1:
        return np.asarray((rows @ roots[0]) @ roots[0].T)
    mine = roots[which]
    half = rows[:, None, :] @ mine
    return np.asarray((half @ np.swapaxes(mine, 1, 2))[:, 0])
