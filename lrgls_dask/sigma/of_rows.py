"""Second moments S = R'R of fewer rows R than equations: what likelihoods ask of S, without a K x K array."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from lrgls_dask.sigma.leading import leading_pairs

__all__ = ["Moments", "OfRows"]


@dataclass(frozen=True, eq=False)
class OfRows:
    """S = rows' rows, rows (m, K) with m < K: singular. It answers in the words of an array what is asked of S."""

    rows: NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.shape[1], self.rows.shape[1]

    def __len__(self) -> int:
        return int(self.rows.shape[1])

    @cached_property
    def _squares(self) -> NDArray[np.float64]:
        return np.asarray(np.einsum("ij,ij->j", self.rows, self.rows))

    def diagonal(self) -> NDArray[np.float64]:
        """diag S, (K,)."""
        return self._squares

    def scaled(self, scale: NDArray[np.float64]) -> OfRows:
        """diag(scale) S diag(scale), scale (K,)."""
        return OfRows(self.rows * scale)

    @cached_property
    def _gram(self) -> NDArray[np.float64]:
        return self.rows @ self.rows.T

    @cached_property
    def pairs(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """All m eigenvalues of R R', descending, and its vectors (m, m): with them, R' vectors / sqrt(values) of S."""
        values, left = eigh(self._gram, check_finite=False)
        return np.maximum(values[::-1], 0.0), left[:, ::-1]

    def leading(self, k: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The k largest eigenvalues, descending, and their vectors (K, k): those of R R', m x m.  O(K m^2)."""
        m = len(self.rows)
        there = min(k, m)
        values, left = leading_pairs(self._gram, there)
        values = np.maximum(values, 0.0)
        vectors = self.rows.T @ left
        size = np.linalg.norm(vectors, axis=0)
        beyond = k - there  # eigenvalues that are zero, of which nobody asks the vectors
        return np.pad(values, (0, beyond)), np.pad(vectors / np.where(size > 0.0, size, 1.0), ((0, 0), (0, beyond)))

    def trace(self, solved: NDArray[np.float64]) -> float:
        """tr(Sigma^-1 S), of solved = rows Sigma^-1."""
        return float(np.vdot(solved, self.rows))


Moments = NDArray[np.float64] | OfRows  # S (K, K), either way
