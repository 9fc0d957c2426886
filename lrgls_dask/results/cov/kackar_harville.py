"""The classical covariance with what estimating Sigma adds to it in small samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lrgls_dask.results.cov.kind import CovKind, CovSource, CovValues, cut
from lrgls_dask.system import System

__all__ = ["KackarHarville"]


@dataclass(frozen=True)
class KackarHarville(CovKind):
    """To first order; no read.  Source: Kackar and Harville (1984)."""

    name: ClassVar[str] = "kackar-harville"
    needs_information: ClassVar[bool] = True

    def compute(self, source: CovSource, equation: int | None, system: System | None) -> CovValues:
        return CovValues(cut(source, equation, source.kackar_harville(self, system)))
