"""The inverse of the observed information of coefficients and Sigma together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lrgls_dask.results.cov.kind import CovKind, CovSource, CovValues, cut
from lrgls_dask.system import System

__all__ = ["Observed"]


@dataclass(frozen=True)
class Observed(CovKind):
    """The coefficients' block of it; no read, but for a fit to missing responses."""

    name: ClassVar[str] = "observed"
    needs_information: ClassVar[bool] = True

    def compute(self, source: CovSource, equation: int | None, system: System | None) -> CovValues:
        return CovValues(cut(source, equation, source.observed(self, system)))
