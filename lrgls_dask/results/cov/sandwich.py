"""Sandwich covariances from one pass over the rows: what the robust kinds have in common, and the robust one."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from lrgls_dask.checks import one_of
from lrgls_dask.inference.bread import Bread
from lrgls_dask.inference.sandwich import robust
from lrgls_dask.results.cov.kind import CovKind, CovSource, CovValues
from lrgls_dask.rows.run_pass import Meter
from lrgls_dask.system import System

__all__ = ["Correction", "Robust", "Sandwich"]

Correction = Literal["HC0", "HC1"]


@dataclass(frozen=True, eq=False)
class Sandwich(CovKind):
    """From scores x_ij (Sigma^-1 r_i)_j; one pass.

    correction : "HC1" multiplies by N / sqrt((N - p_i) (N - p_j)), p_j the free coefficients of an equation.
    """

    correction: Correction = "HC0"

    def __post_init__(self) -> None:
        one_of("correction", self.correction, ("HC0", "HC1"))

    @abstractmethod
    def sandwich(self, system: System, bread: Bread, equation: int | None) -> CovValues:
        """The covariance without the correction, and what there is to note of it."""

    def compute(self, source: CovSource, equation: int | None, system: System | None) -> CovValues:
        rows = source.rows(self, system)
        found = self.sandwich(rows, source.bread(rows), equation)
        return replace(found, values=self._corrected(source, equation, found.values))

    def _corrected(self, source: CovSource, equation: int | None, values: np.ndarray) -> np.ndarray:
        if self.correction == "HC0":
            return values
        factors = np.sqrt(source.n_obs / (source.n_obs - source.free))
        if equation is not None:
            return np.asarray(values * factors[equation] ** 2)
        each = np.repeat(factors, source.design.sizes)
        return values * np.multiply.outer(each, each)


@dataclass(frozen=True, eq=False)
class Robust(Sandwich):
    """Against unequal variances of rows.  Source: White (1980)."""

    name: ClassVar[str] = "robust"

    def sandwich(self, system: System, bread: Bread, equation: int | None) -> CovValues:
        return CovValues(robust(system.rows, bread, equation, Meter()), self.correction)
