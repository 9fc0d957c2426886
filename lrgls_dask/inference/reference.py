"""To which distribution statistics are referred: normal or Student's t for one coefficient, chi2 or F for several."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy  # scipy.stats loads when first asked: it takes as long as all of this package

from lrgls_dask.options.table import Use

__all__ = ["Reference"]


@dataclass(frozen=True, eq=False)
class Reference:
    """The one rule for p-values, intervals and joint tests.

    use : what was asked for.
        "normal": normal, and chi2 for joint tests, as linearmodels.
        "t": Student's t with N - p_j degrees of freedom; joint tests F with as many where they are about one equation,
        so that F(1, .) is t^2, and with N K - P across equations, as systemfit.
        "system-t": t and F with N K - P.
        None: t as "t", joint tests chi2.
        Where errors are clustered, any t and F have G - 1 degrees of freedom, as in Stata and statsmodels: G groups are
        as many independent pieces, however many rows and equations they have.
    by_equation : (K,) rows that show an equation less its free coefficients.  system : observed responses less all free
    coefficients.  n_groups : G, the least of several kinds of groups; None where there are none.
    Source: Cameron and Miller (2015), section VI.D, for G - 1.
    """

    use: Use | None
    by_equation: np.ndarray
    system: int
    n_groups: int | None = None

    @cached_property
    def freedom(self) -> np.ndarray:
        """(K,) degrees of freedom of the coefficients of each equation, at least 1; infinite if normal."""
        if self.use == "normal":
            return np.full(len(self.by_equation), np.inf)
        if self.n_groups is not None:
            return np.full(len(self.by_equation), float(self.n_groups - 1))
        if self.use == "system-t":
            return np.full(len(self.by_equation), float(max(self.system, 1)))
        return np.maximum(self.by_equation, 1).astype(np.float64)

    def of_test(self, equations: np.ndarray, use_f: bool | None) -> int | None:
        """Degrees of freedom of the denominator of a joint test about these equations, None where it is chi2.

        use_f : whether it is F, where that was said apart from `use`.
        """
        if not (self.use in ("t", "system-t") if use_f is None else use_f):
            return None
        if self.n_groups is not None:
            return self.n_groups - 1
        if self.use == "t" and len(equations) == 1:
            return int(self.freedom[equations[0]])
        return max(self.system, 1)

    @property
    def letter(self) -> str:
        """What tables call a coefficient over its standard error."""
        return "z" if self.use == "normal" else "t"

    def __str__(self) -> str:
        """The distribution and its degrees of freedom, as tables say it."""
        if self.use == "normal":
            return "normal; joint tests chi2"
        least, most = int(self.freedom.min()), int(self.freedom.max())
        count = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        of_rows = "N K - P" if self.use == "system-t" else "N - p_j"
        whence = of_rows if self.n_groups is None else "G - 1"
        joint = "chi2" if self.of_test(np.zeros(0, dtype=np.intp), None) is None else "F"
        return f"t, {count} df ({whence}); joint tests {joint}"

    def two_sided(self, statistics: Any, freedom: np.ndarray) -> np.ndarray:
        """P-values of |statistics| at degrees of freedom of `freedom`."""
        size = np.abs(statistics)
        if self.use == "normal":
            return np.asarray(2 * scipy.stats.norm.sf(size))
        return np.asarray(2 * scipy.stats.t.sf(size, freedom))

    def half_width(self, alpha: float) -> np.ndarray:
        """(K,) standard errors on either side of an estimate of each equation, of an interval of coverage 1 - alpha."""
        if self.use == "normal":
            return np.full(len(self.by_equation), float(scipy.stats.norm.isf(alpha / 2)))
        return np.asarray(scipy.stats.t.isf(alpha / 2, self.freedom))
