"""Measures of fit and tests of hypotheses by the likelihood: labels in and out, no read."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
import xarray as xr

from lrgls_dask.checks import one_of, takes
from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.inference import (
    HypothesisTest,
    SumsOfSquares,
    breusch_pagan,
    likelihood_ratio,
    lr_diagonal,
    mcelroy_r2,
    mcelroy_r2_of_residuals,
    rank_test,
    system_r2,
)
from lrgls_dask.results.comparable import check_likelihood, check_nested
from lrgls_dask.results.evidence import DROP
from lrgls_dask.results.sigma_reported import SigmaReported

__all__ = ["Measures"]

COMPARE = "Fit {} with missing='em' too and compare them with lr_test"


class Measures(SigmaReported):
    """What a fit with one Sigma says of its quality, and the likelihood tests one may ask of it."""

    # ------------------------------------------------------------------------------------------ measures

    @cached_property
    def r2(self) -> xr.DataArray:
        """(equation,) 1 - residual / total sum of squares, about the mean where the equation has a constant, else zero.

        NaN where a response does not vary. With weights both sums are weighted. A constant that restrictions do not
        leave free is none.
        """
        return xr.DataArray(self._sums.r2, {"equation": self._index}, ("equation",), name="r2")

    @cached_property
    def adj_r2(self) -> xr.DataArray:
        """(equation,) R2 with both sums of squares over their degrees of freedom, by free coefficients."""
        values = self._sums.adj_r2(self.n_obs, self._free)
        return xr.DataArray(values, {"equation": self._index}, ("equation",), name="adj_r2")

    def mcelroy_r2(self, sigma: Literal["reported", "residual"] = "reported") -> float:
        """McElroy's R2 of the system, 1 - tr(Sigma^-1 R'R) / tr(Sigma^-1 T), T of Y about its means.

        sigma : "reported", the fit's own, as linearmodels does; "residual", R'R / N of the final residuals, as
        systemfit does. The two agree for an unrestricted Sigma iterated to its maximum. For equations with intercepts.
        Responses that do not vary are left out; one that varies and is fitted exactly makes it 1. "residual" is NaN
        where the residuals of several equations together are singular.
        Raises ValueError for a streamed fit.
        """
        one_of("sigma", sigma, ("reported", "residual"))
        rows = self._rows_for("mcelroy_r2")
        if sigma == "residual":
            return mcelroy_r2_of_residuals(rows, self.coefficients)
        return mcelroy_r2(rows, self.coefficients, self.covariance)

    def system_r2(self, sigma: Literal["reported", "residual"] = "reported") -> xr.DataArray:
        """(measure,) the R2s of the system, "mcelroy", "berndt", "judge" and "dhrymes", as linearmodels computes them.

        With T the cross-product of Y about its means: McElroy's, see `mcelroy_r2`; Berndt's, 1 - |Sigma| / |T / N|;
        Judge's, 1 - tr R'R / tr T; Dhrymes', the R2s of the equations weighted by their shares of tr T. The last two
        depend on the units of the responses.
        sigma : of the first two, "reported", the fit's own, or "residual", R'R / N of the final residuals. With
        debiased=True the fit's own is compared with T corrected for the same degrees of freedom.
        NaN where a response that does not vary leaves one undefined. Raises ValueError for a streamed fit.
        """
        one_of("sigma", sigma, ("reported", "residual"))
        rows = self._rows_for("system_r2")
        weighting = self.covariance if sigma == "reported" else None
        corrected = self.debiased and sigma == "reported"
        degrees = np.sqrt(self.n_obs / (self.n_obs - self._free)) if corrected else np.ones(self.n_equations)
        found = system_r2(rows, self.coefficients, weighting, self.r2.values, degrees)
        return xr.DataArray(list(found.values()), {"measure": list(found)}, ("measure",), name="system_r2")

    @cached_property
    def _sums(self) -> SumsOfSquares:
        return self.evidence.sums(self.estimated, self.restrictions)

    def _rows_for(self, what: str, holes: str = DROP) -> Compressed:
        return self.evidence.rows_for(self.estimated, what, holes=holes)

    # ------------------------------------------------------------------------------------------ tests

    @takes(
        "the fit of another model to the same data",
        "Use LowRankGLS(...).fit(system).result_ of both: large.lr_test(small).",
        check=lambda other: isinstance(other, Measures),
    )
    def lr_test(self, other: Measures) -> HypothesisTest:
        """Likelihood ratio test of the smaller of two nested models fitted to the same data, in either order.

        chi2 with the difference in parameters as degrees of freedom; not valid where the smaller model lies on the
        boundary of the larger one (fewer factors, a variance of zero): then it rejects too rarely or too often.
        Raises ValueError for other data, equal numbers of parameters, a larger model that fits worse, and for fits that
        are not at a maximum of the likelihood: penalised, one-step, debiased, by principal components, not converged.
        """
        small, large = sorted((self, other), key=lambda fit: fit.n_parameters)
        check_nested(small, large)
        df = large.n_parameters - small.n_parameters
        null = f"the model of {small.n_parameters} parameters is as good as that of {large.n_parameters}"
        return likelihood_ratio(small.loglik, large.loglik, df, name="Likelihood ratio test", null=null)

    def breusch_pagan(self) -> HypothesisTest:
        """Lagrange multiplier test of a diagonal Sigma, N sum r_ij^2 over the correlations of OLS residuals; no read.

        The correlations are about zero; with an intercept in every equation that is about the mean. It does not depend
        on this fit's Sigma; under restrictions OLS keeps to them. Raises ValueError for a streamed fit, one equation,
        or one fitted exactly.
        """
        return breusch_pagan(self._rows_for("breusch_pagan"), self.restrictions)

    def lr_diagonal(self) -> HypothesisTest:
        """Likelihood ratio test of a diagonal Sigma against the fitted one; no read.

        With factors the null lies on the boundary, where chi2 with the difference in parameters as degrees of freedom
        is an approximation. Raises ValueError for a streamed or diagonal fit, and for one that is not at a maximum.
        """
        check_likelihood(self, "lr_diagonal")
        rows = self._rows_for("lr_diagonal", COMPARE.format("covariance='diagonal'"))
        return lr_diagonal(rows, self.loglik, self.covariance, self.restrictions)

    def rank_test(self, *, bartlett: bool = False) -> HypothesisTest:
        """Likelihood ratio test of k factors against an unrestricted Sigma; fits that one too, without a read.

        bartlett : correct for small N, as factanal does. df = ((K - k)^2 - K - k) / 2.
        Raises ValueError for a streamed fit and one that is not at a maximum of the likelihood, where k factors
        restrict nothing, and where an unrestricted Sigma has no maximum likelihood estimate.
        """
        check_likelihood(self, "rank_test")
        rows = self._rows_for("rank_test", COMPARE.format("a larger rank"))
        free = self.df_model / self.n_equations
        return rank_test(rows, self.loglik, self.covariance, self.restrictions, free=free, bartlett=bartlett)
