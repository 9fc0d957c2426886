"""The tables that every fit gives away: tidy frames, views of one equation, what table-making packages ask for."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Literal

import pandas as pd

from lrgls_dask.checks import closest, one_of, shown
from lrgls_dask.data.places import Location
from lrgls_dask.results import for_maketables
from lrgls_dask.results.chosen import is_label
from lrgls_dask.results.like_statsmodels import EquationView
from lrgls_dask.results.pictures import Pictures
from lrgls_dask.results.report.page import report_page
from lrgls_dask.results.report.written import check_page, write_page
from lrgls_dask.results.reported import Reported
from lrgls_dask.results.tidy import glance, glance_by_equation, tidy

__all__ = ["Tables"]


class Tables(Reported):
    """A fit as frames."""

    def tidy(self, equation: Any = None, term: Any = None, level: float = 0.95) -> pd.DataFrame:
        """A row a coefficient: equation, term, estimate, std_error, statistic, p_value, conf_low, conf_high.

        equation, term : which rows: a label, several of them, or a text with * for any letters and ? for any one, such
            as "ret_*"; all where None. Where equations lie on several dims each of these is a column of its own in the
            place of `equation`, and equations go by their tuples or by a mapping, {"lat": 40.5, "lon": [10.0, 12.5]}.
        level : coverage of the intervals.
        Standard errors are those of `std_errors`, p-values and intervals refer to `reference`. Of the other
        coefficients none are computed where that costs: from 2,000 coefficients on, where the inverse of their
        information would take long, or passes over a streamed X, those few that are asked for are solved for. NaN for
        equations that were skipped; a coefficient that restrictions hold has error 0 and no p-value.
        Raises ValueError for labels that there are not, with the nearest, and where the fit has no standard errors.
        """
        return tidy(self, equation, term, level)

    def glance(self, by: Literal["equation"] | None = None) -> pd.DataFrame:
        """The fit in one row, or with by="equation" a row for each equation; no read.

        One row: n_obs, n_cells, n_equations, n_coefficients, n_parameters, df_resid, rank, loglik, aic, bic,
        mcelroy_r2, converged, termination, n_sweeps, n_passes, algorithm, engine, missing, cov_kind, n_on_floor,
        n_skipped; of a time-varying fit n_segments and bandwidth too.
        By equation: its label, or labels, n_obs that show it, n_coefficients, df_resid, r2, adj_r2, error_var and
        idio_var in units of its response squared, means over rows where Sigma varies, and status.
        NaN stands for what there is not, or not without reading the rows.
        """
        if by is None:
            return glance(self)
        one_of("by", by, ("equation",))
        return glance_by_equation(self)

    def __getitem__(self, equation: Hashable) -> EquationView:
        """One equation that looks like a result of statsmodels: fit["Telcm"], or fit[40.5, 10.0] where equations lie on
        several dims; nothing is computed yet. Raises KeyError for one that there is not."""
        if not is_label(equation, dict.fromkeys(self.equations)):
            raise KeyError(
                f"no equation {equation!r}; there are {shown(self.equations)}{closest(equation, self.equations)}"
            )
        return EquationView(self, equation)

    @property
    def plot(self) -> Pictures:
        """Pictures of the fit: plot.coefficients(...), .map("trend"), .loadings(), .errors(), .residuals(system) and
        .scores(system), .sigma_over_time() of a time-varying one, .selection(), .trace()."""
        return Pictures(self)

    def report(self, path: Any, *, level: float = 0.95, overwrite: bool = False) -> None:
        """Write one HTML page that says all of the fit and needs nothing from elsewhere: opens in any browser, offline.

        What was fitted, in words; cost; convergence; coefficients and equations as tables to search and to sort, those
        equations that need attention first; tests; pictures where matplotlib is installed; how to cite; versions.
        level : coverage of the intervals.
        No read: what a fit cannot say without its rows the page gives the reason for, such as standard errors that
        streamed rows would be read for, unless they are known already. The same fit makes the same bytes.
        It carries 50,000 coefficients and equations at most, evenly spaced ones where there are more, and says so.
        Raises FileExistsError where something is at `path`, unless overwrite is True and it is such a page; ValueError
        where `path` is, holds or lies in a store of the fitted rows, or is none of this machine.
        """
        check_page(path, overwrite=overwrite, apart_from=self._read_from)
        write_page(report_page(self, level), path, overwrite=overwrite)

    @property
    def _read_from(self) -> frozenset[Location]:
        """Where the fitted rows lie, as far as the fit knows."""
        return frozenset() if self.system is None else self.system.read_from

    __iter__ = None  # equations go by their labels: fit.equations

    # ------------------------------------------------------------------------------------------ of maketables

    @property
    def __maketables_coef_table__(self) -> pd.DataFrame:
        return for_maketables.coef_table(self.tidy(), for_maketables.coefficient_names(self))

    def __maketables_stat__(self, key: str) -> Any:
        return for_maketables.stat(self, key)

    @property
    def __maketables_depvar__(self) -> str:
        return for_maketables.depvar(self)

    @property
    def __maketables_vcov_info__(self) -> dict[str, Any]:
        return for_maketables.vcov_info(self)

    @property
    def __maketables_stat_labels__(self) -> dict[str, str]:
        return for_maketables.LABELS

    @property
    def __maketables_default_stat_keys__(self) -> list[str]:
        return ["N", "n_equations", "rank", "ll", "bic"]

    @property
    def __maketables_fixef_string__(self) -> str | None:
        return for_maketables.fixef_string(self)
