"""The covariance that standard errors come from, where all of it is at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

__all__ = ["CovBehind", "FormedCov"]


class CovBehind(Protocol):
    """The covariance that standard errors come from, formed or not."""

    @property
    def full(self) -> np.ndarray:
        """(P, P)."""
        ...

    @property
    def variances(self) -> np.ndarray:
        """(P,)."""
        ...

    def of_combinations(self, matrix: np.ndarray) -> np.ndarray:
        """(m, m) R V R' of combinations R (m, P)."""
        ...


@dataclass(frozen=True, eq=False)
class FormedCov:
    """A covariance of all coefficients whose (P, P) values are at hand."""

    full: np.ndarray

    @property
    def variances(self) -> np.ndarray:
        return np.maximum(self.full.diagonal(), 0.0)  # rounding, of a coefficient that is nearly held

    def of_combinations(self, matrix: np.ndarray) -> np.ndarray:
        return np.asarray(matrix @ self.full @ matrix.T)
