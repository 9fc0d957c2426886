"""The sandwich of coefficients and Sigma together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lrgls_dask.results.cov.kind import CovKind, CovSource, CovValues, cut
from lrgls_dask.system import System

__all__ = ["HuberWhite"]


@dataclass(frozen=True)
class HuberWhite(CovKind):
    """Its bread is the observed information of all parameters; one pass.  Source: Huber (1967), White (1982)."""

    name: ClassVar[str] = "huber-white"
    needs_information: ClassVar[bool] = True

    def compute(self, source: CovSource, equation: int | None, system: System | None) -> CovValues:
        return CovValues(cut(source, equation, source.huber_white(self, system)))
