"""Sandwich covariances from one pass over the rows: what the robust kinds have in common, and the robust one."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from lrgls_dask.checks import one_of
from lrgls_dask.inference.bread_of_rows import BreadOfRows
from lrgls_dask.inference.sandwich import robust
from lrgls_dask.inference.structured import StructuredCov
from lrgls_dask.results.cov.kind import CovKind, CovSource, CovValues
from lrgls_dask.rows.meter import Meter
from lrgls_dask.system import System

__all__ = ["BY_DEGREES", "Correction", "Robust", "Sandwich"]

Correction = Literal["none", "HC0", "HC1", "HC2", "HC3", "CR1"]
BY_DEGREES = ("HC1", "CR1")


@dataclass(frozen=True, eq=False)
class Sandwich(CovKind):
    """From scores x_ij (Sigma^-1 r_i)_j; one pass.

    correction : "HC1" multiplies by N / sqrt((N - p_i) (N - p_j)), p_j the free coefficients of an equation; "none" or
    "HC0" by nothing.  None for what `debiased` says.
    debiased : True for "HC1" as linearmodels' debiased, False for "none", None for as the fit itself was.
    """

    correction: Correction | None = None
    debiased: bool | None = None
    corrections: ClassVar[tuple[str, ...]] = ("none", "HC0", "HC1")

    def __post_init__(self) -> None:
        if self.correction is None:
            return
        one_of("correction", self.correction, self.corrections)
        if self.debiased is not None and self.debiased != (self.correction in BY_DEGREES):
            raise ValueError(
                f"correction={self.correction!r} and debiased={self.debiased} say two things of the factor for degrees "
                "of freedom. Leave one of them out."
            )

    @abstractmethod
    def sandwich(self, system: System, bread: BreadOfRows, equation: int | None, correction: Correction) -> CovValues:
        """The covariance without the factor for degrees of freedom, and what there is to note of it."""

    def compute(self, source: CovSource, equation: int | None, system: System | None) -> CovValues:
        rows = source.rows(self, system)
        correction = self._resolved(source)
        found = self.sandwich(rows, source.bread(rows), equation, correction)
        if correction not in BY_DEGREES:
            return found
        factors = np.sqrt(source.shown / (source.shown - source.free + found.uncounted))
        each = np.repeat(factors, source.design.sizes)
        if isinstance(found.values, StructuredCov):
            return replace(found, values=found.values.scaled(each))
        if equation is not None:
            return replace(found, values=np.asarray(found.values * factors[equation] ** 2))
        return replace(found, values=found.values * np.multiply.outer(each, each))

    def _resolved(self, source: CovSource) -> Correction:
        if self.correction is not None:
            return "HC0" if self.correction == "none" else self.correction
        return "HC1" if (source.debiased if self.debiased is None else self.debiased) else "HC0"


@dataclass(frozen=True, eq=False)
class Robust(Sandwich):
    """Against unequal variances of rows.

    correction : as of the others; "HC2" and "HC3" divide residuals by sqrt(1 - h) and 1 - h, h the leverage of the row
    in its equation, which least squares has: K = 1, a diagonal Sigma, algorithm="ols", or regressors that all
    equations share.  Source: White (1980); MacKinnon and White (1985).
    """

    name: ClassVar[str] = "robust"
    corrections: ClassVar[tuple[str, ...]] = ("none", "HC0", "HC1", "HC2", "HC3")

    def sandwich(self, system: System, bread: BreadOfRows, equation: int | None, correction: Correction) -> CovValues:
        power = {"HC2": 0.5, "HC3": 1.0}.get(correction)
        if power is not None and bread.design.absorbed is not None:
            raise ValueError(
                f"correction={correction!r} divides by leverages, of which absorbed effects are a part that is not "
                "kept. Use correction='HC1', or give the groups as columns of 0 and 1 in place of absorb."
            )
        leverage = None if power is None else bread.leverage(power)
        return CovValues(robust(system.rows, bread, equation, Meter(), leverage), correction)
