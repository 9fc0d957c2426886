"""The covariance that standard errors come from."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from lrgls_dask.inference.structured import CovOfCombinations

__all__ = ["CovBehind"]


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

    def variances_of(self, places: np.ndarray) -> np.ndarray:
        """(m,) of some coefficients, the others' not computed where that costs."""
        ...

    def block(self, equation: int) -> np.ndarray:
        """(p_j, p_j)."""
        ...

    def of_combinations(self, matrix: Any) -> CovOfCombinations:
        """R V R' of combinations R (m, P), sparse or not."""
        ...
