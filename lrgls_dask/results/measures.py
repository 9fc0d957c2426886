"""Measures of fit and tests of hypotheses by the likelihood: labels in and out, no read."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

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
from lrgls_dask.inference.hypothesis_tests import lr_of_diagonal, rank_test_of
from lrgls_dask.missing.covariance import fitted_problem
from lrgls_dask.missing.fit import fit_incomplete
from lrgls_dask.missing.measures import shown_breusch_pagan, shown_mcelroy_r2, shown_system_r2
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.results.comparable import check_likelihood, check_nested
from lrgls_dask.results.evidence import DROP
from lrgls_dask.results.sigma_reported import SigmaReported
from lrgls_dask.sigma.full import Full
from lrgls_dask.sigma.structures import diagonal
from lrgls_dask.solve.record import Options

__all__ = ["Measures"]

COMPARE = "Fit {} with missing='em' too and compare them with lr_test"


class Measures(SigmaReported):
    """What a fit with one Sigma says of its quality, and the likelihood tests one may ask of it."""

    # ------------------------------------------------------------------------------------------ measures

    @cached_property
    def r2(self) -> xr.DataArray:
        """(equation,) 1 - residual / total sum of squares, about the mean where the equation has a constant, else zero.

        NaN where a response does not vary. With weights both sums are weighted. A constant that restrictions do not
        leave free is none. Effects that were absorbed explain as dummies would; without them see `r2_within`.
        """
        return self._labelled(self._sums.r2, ("equation",), "r2")

    @cached_property
    def r2_within(self) -> xr.DataArray:
        """(equation,) of the responses less the effects that were absorbed, what regressors explain beyond these.

        Raises ValueError where none were.
        """
        if self.design.absorbed is None:
            raise ValueError("r2_within is beside absorbed effects, and no groups were absorbed. Use r2.")
        within = self.evidence.sums(self.estimated, self.restrictions)
        return self._labelled(within.r2, ("equation",), "r2_within")

    @cached_property
    def adj_r2(self) -> xr.DataArray:
        """(equation,) R2 with both sums of squares over their degrees of freedom, by free coefficients."""
        return self._labelled(self._sums.adj_r2(self._shown, self._free), ("equation",), "adj_r2")

    def mcelroy_r2(self, sigma: Literal["reported", "residual"] = "reported") -> float:
        """McElroy's R2 of the system, 1 - tr(Sigma^-1 R'R) / tr(Sigma^-1 T), T of Y about its means.

        sigma : "reported", the fit's own, as linearmodels does; "residual", R'R / N of the final residuals, as
        systemfit does. The two agree for an unrestricted Sigma iterated to its maximum. For equations with intercepts.
        Responses that do not vary are left out; one that varies and is fitted exactly makes it 1. "residual" is NaN
        where the residuals of several equations together are singular.
        With missing responses 1 - sum_i r_o' Sigma_oo^-1 r_o / sum_i (y_o - m_o)' Sigma_oo^-1 (y_o - m_o) over what
        each row shows, m the constants, one an equation, that make the second sum least; rows that were not compressed
        by few patterns are read, once, streamed ones twice; "residual", which needs complete rows, is refused.
        Raises ValueError for a streamed fit of complete rows.
        """
        one_of("sigma", sigma, ("reported", "residual"))
        if not self.evidence.complete:
            self._check_reported(sigma, "mcelroy_r2")
            return shown_mcelroy_r2(self._about_constants("mcelroy_r2"), self.coefficients, self.covariance)
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
        With missing responses sums are over what is observed, "residual" is refused, and Berndt's, which has no
        counterpart, is NaN; reads as `mcelroy_r2`.
        """
        one_of("sigma", sigma, ("reported", "residual"))
        if not self.evidence.complete:
            self._check_reported(sigma, "system_r2")
            at = self._about_constants("system_r2"), self.coefficients, self.covariance
            of_rows = shown_system_r2(*at, self._sums.residual, self._sums.r2)
            return xr.DataArray(list(of_rows.values()), {"measure": list(of_rows)}, ("measure",), name="system_r2")
        rows = self._rows_for("system_r2")
        weighting = self.covariance if sigma == "reported" else None
        corrected = self.debiased and sigma == "reported"
        degrees = np.sqrt(self.n_obs / (self.n_obs - self._free)) if corrected else np.ones(self.design.n_equations)
        found = system_r2(rows, self.coefficients, weighting, self._sums.r2, degrees)
        return xr.DataArray(list(found.values()), {"measure": list(found)}, ("measure",), name="system_r2")

    @cached_property
    def _sums(self) -> SumsOfSquares:
        return self.evidence.sums(self.estimated, self.restrictions).with_effects(self.design.absorbed)

    def _check_reported(self, sigma: str, what: str) -> None:
        if sigma == "residual":
            raise ValueError(
                f"{what}(sigma='residual') weights by R'R / N, which rows with missing responses do not have. Use "
                "sigma='reported', the Sigma of the fit."
            )

    def _read_again(self, what: str) -> Incomplete:
        """The rows of a fit with missing responses, patterns compressed: one pass, or none where the fit keeps them."""
        source: Any = self._source
        return fitted_problem(source.fitted, source.all_rows(what))

    def _about_constants(self, what: str) -> Incomplete:
        """The same, of rows of which it is known what a constant is."""
        problem = self._read_again(what)
        if not problem.knows_constants:
            raise ValueError(
                f"{what} is about constants, of which systems that earlier versions compressed do not say what weights "
                "of cells make of them. Compress again."
            )
        return problem

    def _refitted(self, what: str, structure: Any, remedy: str) -> float:
        """The log-likelihood of another structure fitted to the same rows, from few patterns."""
        source: Any = self._source
        if source.streamed:
            raise ValueError(f"{what} fits another model to the same rows, which are streamed. {remedy}.")
        how = self.settings
        options = Options(how.algorithm, d_floor=how.d_floor)  # type: ignore[arg-type]
        problem = self._read_again(what)
        solution = fit_incomplete(problem, structure, options)
        return -problem.n_obs * (solution.nll + problem.nll_offset)

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

        The correlations are about zero; with an intercept in every equation that is about the mean. With missing
        responses sum N_ij r_ij^2 over the pairs of equations seen together, each r_ij over the N_ij rows that show both
        (Shiba and Tsurumi 1988), df those pairs; reads as `mcelroy_r2`. It does not depend
        on this fit's Sigma; under restrictions OLS keeps to them. Raises ValueError for a streamed fit, one equation,
        or one fitted exactly.
        """
        if not self.evidence.complete:
            return shown_breusch_pagan(self._read_again("breusch_pagan"))
        return breusch_pagan(self._rows_for("breusch_pagan"), self.restrictions)

    def lr_diagonal(self) -> HypothesisTest:
        """Likelihood ratio test of a diagonal Sigma against the fitted one; no read.

        With factors the null lies on the boundary, where chi2 with the difference in parameters as degrees of freedom
        is an approximation. Raises ValueError for a streamed or diagonal fit, and for one that is not at a maximum.
        With missing responses the diagonal model is fitted to what each row shows; reads as `mcelroy_r2`.
        """
        check_likelihood(self, "lr_diagonal")
        if not self.evidence.complete:
            found = self._refitted("lr_diagonal", diagonal(), COMPARE.format("covariance='diagonal'"))
            return lr_of_diagonal(found, self.loglik, self.covariance)
        rows = self._rows_for("lr_diagonal", COMPARE.format("covariance='diagonal'"))
        return lr_diagonal(rows, self.loglik, self.covariance, self.restrictions)

    def rank_test(self, *, bartlett: bool = False) -> HypothesisTest:
        """Likelihood ratio test of k factors against an unrestricted Sigma; fits that one too, without a read.

        bartlett : correct for small N, as factanal does. df = ((K - k)^2 - K - k) / 2.
        Raises ValueError for a streamed fit and one that is not at a maximum of the likelihood, where k factors
        restrict nothing, and where an unrestricted Sigma has no maximum likelihood estimate. With missing responses the
        unrestricted Sigma is fitted to what each row shows; reads as `mcelroy_r2`.
        """
        check_likelihood(self, "rank_test")
        free = self.df_model / self.design.n_equations
        if not self.evidence.complete:
            full = self._refitted("rank_test", Full(), COMPARE.format("a larger rank"))
            return rank_test_of(full, self.loglik, self.covariance, free, self.n_obs if bartlett else None)
        rows = self._rows_for("rank_test", COMPARE.format("a larger rank"))
        return rank_test(rows, self.loglik, self.covariance, self.restrictions, free=free, bartlett=bartlett)
