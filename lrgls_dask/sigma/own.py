"""The part of Sigma that is the equations' own, beside what factors share: an operator, so that it can be any shape."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrgls_dask.sigma.interface import Array

__all__ = ["FLOOR_ROUNDING", "Diagonal", "Own"]

# A variance this little above its floor, relatively, is on it: rounding, as in a change of units, may put it there.
FLOOR_ROUNDING = 1e-6


class Own(ABC):
    """A positive definite Psi (K, K) that costs little to invert, in Sigma = (factors) + Psi; Psi = L L'."""

    @property
    @abstractmethod
    def variances(self) -> Array:
        """diag(Psi), (K,)."""

    @property
    @abstractmethod
    def inverse_diagonal(self) -> Array:
        """diag(Psi^-1), (K,), in memory of its own."""

    @property
    @abstractmethod
    def noise(self) -> Array:
        """(K,) variance of each equation's own part given the own parts of all others: 1 / diag(Psi^-1)."""

    @property
    @abstractmethod
    def logdet(self) -> float:
        """log|Psi|."""

    @abstractmethod
    def rows_matmul(self, E: Array) -> Array:
        """E Psi, (n, K), in memory of its own."""

    @abstractmethod
    def solve_rows(self, E: Array) -> Array:
        """E Psi^-1, (n, K), in memory of its own."""

    @abstractmethod
    def solve(self, B: Array) -> Array:
        """Psi^-1 B, (K, m), in memory of its own."""

    @abstractmethod
    def whitened(self, B: Array) -> Array:
        """L^-1 B, (K, m)."""

    @abstractmethod
    def whitened_back(self, B: Array) -> Array:
        """L^-T B, (K, m): of what `whitened` made the same as `solve`."""

    @abstractmethod
    def add_to(self, matrix: Array) -> None:
        """Add Psi to a matrix (K, K) in its place."""

    @abstractmethod
    def rescaled(self, scale: Array) -> Own:
        """diag(scale) Psi diag(scale)."""

    @abstractmethod
    def on_floor(self, floor: Array | float) -> NDArray[np.bool_]:
        """(K,) equations whose own part sits on its floor, (K,) or one for all."""

    @abstractmethod
    def entries(self, held: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows i and columns j <= i of the entries that are free parameters; held (K,) where on the floor."""


@dataclass(frozen=True, eq=False)
class Diagonal(Own):
    """diag(d), d (K,) > 0: a variance of each equation's own."""

    d: Array

    @property
    def variances(self) -> Array:
        return self.d

    @property
    def inverse_diagonal(self) -> Array:
        return np.asarray(1.0 / self.d)

    @property
    def noise(self) -> Array:
        return self.d

    @property
    def logdet(self) -> float:
        return float(np.log(self.d).sum())

    def rows_matmul(self, E: Array) -> Array:
        return np.asarray(E * self.d)

    def solve_rows(self, E: Array) -> Array:
        return np.asarray(E / self.d)

    def solve(self, B: Array) -> Array:
        return np.asarray(B / self.d[:, None])

    def whitened(self, B: Array) -> Array:
        return np.asarray(B / np.sqrt(self.d)[:, None])

    def whitened_back(self, B: Array) -> Array:
        return self.whitened(B)

    def add_to(self, matrix: Array) -> None:
        matrix[np.diag_indices_from(matrix)] += self.d

    def rescaled(self, scale: Array) -> Diagonal:
        return Diagonal(self.d * scale**2)

    def on_floor(self, floor: Array | float) -> NDArray[np.bool_]:
        return np.asarray(self.d <= floor * (1.0 + FLOOR_ROUNDING))

    def entries(self, held: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        free = np.flatnonzero(~held)
        return free, free
