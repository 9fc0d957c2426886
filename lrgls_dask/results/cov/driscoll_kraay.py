"""The covariance that is robust to correlation among units and along time, where rows are (time, unit)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from lrgls_dask.inference.bread_of_rows import BreadOfRows
from lrgls_dask.inference.hac import HacKernel
from lrgls_dask.inference.sandwich import driscoll_kraay
from lrgls_dask.results.cov.cluster import clusters_of
from lrgls_dask.results.cov.hac import check_kernel
from lrgls_dask.results.cov.kind import CovValues
from lrgls_dask.results.cov.sandwich import Correction, Sandwich
from lrgls_dask.rows.meter import Meter
from lrgls_dask.system import System

__all__ = ["DriscollKraay"]

NAMES_OF_TIME = ("time", "date", "datetime", "year", "quarter", "month", "week", "day", "hour", "period", "t")


@dataclass(frozen=True, eq=False)
class DriscollKraay(Sandwich):
    """Against correlation of all kinds among the rows of a time and, fading, with those of the times before.

    times : (N,) the time of each row, in any order of rows, units coming and going; or the name of a level of the
    rows' labels; None for the level that holds dates, or has the name of a time.
    kernel, bandwidth : weights of lags along the distinct times in ascending order, see `inference.hac.lag_weights`;
    None for Newey and West (1994) of the sums over units. linearmodels' default is floor(4 (T / 100)^(2/9)).
    Where a period has no rows at all the times around it are neighbours, as in linearmodels; a row of weight zero
    keeps its place.  Any t has T - 1 degrees of freedom.  Source: Driscoll and Kraay (1998).
    """

    kernel: HacKernel = "bartlett"
    bandwidth: float | None = None
    times: Any = field(default=None, metadata={"command_line": str})
    name: ClassVar[str] = "driscoll-kraay"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kernel(self.kernel, self.bandwidth)

    def sandwich(self, system: System, bread: BreadOfRows, equation: int | None, correction: Correction) -> CovValues:
        times = clusters_of(_times_of(system, self.times), "times", sort=True)
        values, used, n_times = driscoll_kraay(
            system.rows, bread, equation, times, self.kernel, self.bandwidth, Meter()
        )
        note = f"{correction}, {self.kernel} kernel, bandwidth {used:g}, {n_times:,} times"
        return CovValues(values, note, n_times)


def _times_of(system: System, given: Any) -> np.ndarray:
    """(N,) the time of each row.  Raises ValueError where it is not given and not known from the labels of the rows."""
    if given is not None and not isinstance(given, str):
        return system.values_of_rows("times", given)
    labels = system.obs
    levels = [] if labels is None else [labels.get_level_values(i) for i in range(labels.nlevels)]
    names = [level.name for level in levels]
    if given is not None:
        if given not in names:
            raise ValueError(
                f"times={given!r} is no level of the rows' labels, which are {names}. Pass one time a row, or name one."
            )
        return np.asarray(levels[names.index(given)])
    dated = [level for level in levels if isinstance(level, pd.DatetimeIndex | pd.PeriodIndex)]
    found = dated or [level for level in levels if str(level.name).lower() in NAMES_OF_TIME]
    if len(levels) < 2 or len(found) != 1:
        raise ValueError(
            "kind='driscoll-kraay' needs the time of each row: pass times=, one time a row, or the name of a level of "
            f"the rows' labels (time, unit), which are {names or 'none'}."
        )
    return np.asarray(found[0])
