"""The covariance that is robust to autocorrelation of rows in time order."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lrgls_dask.checks import one_of
from lrgls_dask.data.labels import check_ascending
from lrgls_dask.inference.bread_of_rows import BreadOfRows
from lrgls_dask.inference.hac import HacKernel
from lrgls_dask.inference.sandwich import hac
from lrgls_dask.results.cov.kind import CovValues
from lrgls_dask.results.cov.sandwich import Correction, Sandwich
from lrgls_dask.rows.meter import Meter
from lrgls_dask.system import System

__all__ = ["Hac", "check_kernel"]


@dataclass(frozen=True, eq=False)
class Hac(Sandwich):
    """Against autocorrelation; one pass at a given bandwidth, up to three without.

    Rows follow each other in time: where they have labels these must ascend; labels on disk are read.
    kernel, bandwidth : weights of lags, see `inference.hac.lag_weights`; None for Newey and West (1994).
    """

    kernel: HacKernel = "bartlett"
    bandwidth: float | None = None
    name: ClassVar[str] = "hac"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kernel(self.kernel, self.bandwidth)

    def sandwich(self, system: System, bread: BreadOfRows, equation: int | None, correction: Correction) -> CovValues:
        check_ascending(system.obs, system.obs_dim, "kind='hac'")
        values, used = hac(system.rows, bread, equation, self.kernel, self.bandwidth, Meter())
        return CovValues(values, f"{correction}, {self.kernel} kernel, bandwidth {used:g}")


def check_kernel(kernel: Any, value: Any) -> None:
    """Raise ValueError or TypeError for another kernel, and a bandwidth that is none."""
    one_of("kernel", kernel, ("bartlett", "parzen", "qs"))
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"bandwidth must be a number of rows or None; got {value!r}.")
    if not 0 <= float(value) < np.inf:
        raise ValueError(f"bandwidth must be zero or more and finite; got {value!r}.")
