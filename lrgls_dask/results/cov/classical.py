"""The classical covariance, at a known Sigma."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lrgls_dask.results.cov.kind import CovKind, CovSource, CovValues
from lrgls_dask.system import System

__all__ = ["Classical"]


@dataclass(frozen=True)
class Classical(CovKind):
    """(X' Sigma^-1 X)^-1; no read.

    debiased : with Sigma_ij N / sqrt((N - p_i) (N - p_j)), False for without; None for as the fit itself was.
    """

    debiased: bool | None = None
    name: ClassVar[str] = "classical"

    def compute(self, source: CovSource, equation: int | None, system: System | None) -> CovValues:
        debiased = source.debiased if self.debiased is None else self.debiased
        values = source.classical(self, equation, system, debiased=debiased)
        return CovValues(values, "debiased" if debiased else "")
