"""What every fit reports of its coefficients: labelled estimates, standard errors, intervals, tests, covariances."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from dataclasses import replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
import xarray as xr

from lrgls_dask.checks import check_alpha
from lrgls_dask.design.hypotheses import check_open, read_hypotheses
from lrgls_dask.design.restrictions import free_coefficients, without_variance
from lrgls_dask.inference import HypothesisTest, wald
from lrgls_dask.inference.hac import HacKernel
from lrgls_dask.inference.reference import Reference
from lrgls_dask.options.table import OPTIONS, Use
from lrgls_dask.prediction.fitted import check_same_design
from lrgls_dask.results.comparable import check_maximised
from lrgls_dask.results.cov.formed import CovBehind, FormedCov
from lrgls_dask.results.cov.kind import CovKind, CovSource, CovValues
from lrgls_dask.results.cov.registry import cov_kind
from lrgls_dask.results.cov.sandwich import Correction
from lrgls_dask.results.made_of_parts import MadeOfParts
from lrgls_dask.results.parts import BehindErrors
from lrgls_dask.system import System, complete_only

__all__ = ["Reported", "as_fitted", "fitted_rows_of"]


class Reported(MadeOfParts):
    """What follows from the coefficients and the covariance behind their errors."""

    @property
    @abstractmethod
    def n_parameters(self) -> float:
        """Free parameters, of the coefficients and of Sigma."""

    @property
    @abstractmethod
    def rank(self) -> int:
        """k, the number of factors."""

    @property
    @abstractmethod
    def _shown(self) -> np.ndarray:
        """(K,) rows that show each equation: N of complete rows."""

    @property
    @abstractmethod
    def _source(self) -> CovSource:
        """What kinds of covariances ask."""

    @property
    @abstractmethod
    def _classical(self) -> CovBehind:
        """The classical covariance."""

    # ------------------------------------------------------------------------------------------ coefficients

    @cached_property
    def params(self) -> xr.DataArray:
        """(P,) coefficients, dim `coefficient` with coordinates `equation` and `regressor`."""
        return self._per_coefficient(self.coefficients, "params")

    @cached_property
    def std_errors(self) -> xr.DataArray:
        """(P,) standard errors: classical ones, at a known Sigma, unless `with_cov` chose others.

        Zero for a coefficient that restrictions hold: its t and p are NaN, its interval is the point.
        """
        return self._per_coefficient(np.sqrt(self._behind.variances), "std_errors")

    @cached_property
    def tvalues(self) -> xr.DataArray:
        """(P,) coefficient / standard error; NaN, as its p, for a coefficient that restrictions hold."""
        errors = self.std_errors
        if self.restrictions is not None:
            errors = errors.where(~self.restrictions.held)
        return (self.params / errors).rename("tvalues")

    @cached_property
    def pvalues(self) -> xr.DataArray:
        """(P,) two-sided, of the distribution that `use` asks for: Student's t with N - p_j degrees of freedom, p_j
        counting free coefficients, unless told otherwise; with G - 1 where errors are clustered. See `reference`."""
        freedom = np.repeat(self.reference.freedom, self.design.sizes)
        return self._per_coefficient(self.reference.two_sided(self.tvalues.values, freedom), "pvalues")

    def conf_int(self, alpha: float = 0.05) -> xr.DataArray:
        """(coefficient, bound) intervals of coverage 1 - alpha; bound is "low" and "high"."""
        check_alpha(alpha)
        half = np.repeat(self.reference.half_width(alpha), self.design.sizes) * self.std_errors.values
        low_high = np.stack([self.coefficients - half, self.coefficients + half], axis=1)
        coords: dict[str, Any] = {n: ("coefficient", v) for n, v in self._coefficient_labels.items()}
        return xr.DataArray(low_high, coords | {"bound": ["low", "high"]}, ("coefficient", "bound"), name="conf_int")

    def coef_table(self, alpha: float = 0.05) -> pd.DataFrame:
        """Coefficients, standard errors, t, p and interval, indexed by equation and regressor."""
        interval = self.conf_int(alpha).values
        index = pd.MultiIndex.from_arrays(list(self._coefficient_labels.values()), names=["equation", "regressor"])
        columns = {
            "coef": self.coefficients,
            "std_err": self.std_errors.values,
            "t": self.tvalues.values,
            "p": self.pvalues.values,
            "low": interval[:, 0],
            "high": interval[:, 1],
        }
        return pd.DataFrame(columns, index=index)

    # ------------------------------------------------------------------------------------------ likelihood, degrees

    @property
    def nll(self) -> float:
        """Negative log-likelihood per row, without penalties."""
        return -self.loglik / self.n_obs

    @property
    def aic(self) -> float:
        """-2 loglik + 2 n_parameters. Raises ValueError for estimates that do not maximise a likelihood, as `bic`."""
        check_maximised(self.settings, self.rank, "aic")
        return -2.0 * self.loglik + 2.0 * self.n_parameters

    @property
    def bic(self) -> float:
        """-2 loglik + log(N) n_parameters."""
        check_maximised(self.settings, self.rank, "bic")
        return -2.0 * self.loglik + float(np.log(self.n_obs)) * self.n_parameters

    @property
    def n_restrictions(self) -> int:
        """m, linear restrictions that the coefficients keep to."""
        return 0 if self.restrictions is None else self.restrictions.n_restrictions

    @property
    def df_model(self) -> int:
        """The coefficients of all equations that are free: P less the restrictions."""
        return self.n_coefficients - self.n_restrictions

    @property
    def n_cells(self) -> int:
        """Observed responses: N K, or less where some are missing."""
        return int(self._shown.sum())

    @property
    def df_resid(self) -> int:
        """Observed responses less the free coefficients, the residual degrees of freedom of the system."""
        return self.n_cells - self.df_model

    @cached_property
    def reference(self) -> Reference:
        """To which distribution p-values, intervals and joint tests refer, and its degrees of freedom."""
        by_equation = np.asarray(self._shown - self._free)
        return Reference(self.settings.use, by_equation, self.df_resid, self.behind_errors.n_groups)

    def wald_test(self, hypotheses: Any, *, use_f: bool | None = None) -> HypothesisTest:
        """Wald test of linear hypotheses, at the covariance that std_errors come from; no read.

        hypotheses : a text such as "Telcm:smb = 0" or "food:price + food:income = 1", "*:smb = 0" for every equation
        (the language is that of `lrgls_dask.design.hypothesis_syntax`), several of them in a list, a mapping from texts
        or (equation, regressor) to values, a matrix R (m, P) for R b = 0, or a tuple (R, r).
        use_f : True for the statistic over m as F, False for chi2(m), None for what `use` asks for: F where it is "t"
            or "system-t", else chi2. F has N K - P degrees of freedom in the denominator, as systemfit's
            linearHypothesis with test "F"; with use="t" N - p_j where all is about one equation; G - 1 where errors are
            clustered.
        Raises ValueError with the place in the text, for redundant or contradictory hypotheses, and for those that the
        restrictions of the fit decide.
        """
        restrictions = read_hypotheses(self.design, hypotheses)
        check_open(self.restrictions, restrictions)
        covariance = self._coefficient_cov(restrictions.matrix)
        about = np.unique(self.design.equation_of[np.any(restrictions.matrix != 0, axis=0)])
        return wald(restrictions, self.coefficients, covariance, self.reference.of_test(about, use_f))

    # ------------------------------------------------------------------------------------------ covariances

    def cov(
        self,
        kind: str | CovKind | None = None,
        *,
        equation: Hashable | None = None,
        debiased: bool | None = None,
        system: System | None = None,
        groups: Any = None,
        group_debias: bool | None = None,
        times: Any = None,
        correction: Correction | None = None,
        kernel: HacKernel | None = None,
        bandwidth: float | None = None,
    ) -> xr.DataArray:
        """(coefficient, coefficient_other) covariance of the coefficients, of all or of one equation's.

        kind : None for the one this fit uses, "classical" unless `with_cov` chose another.
            "classical": (X' Sigma^-1 X)^-1 at a known Sigma; of algorithm="ols" (X'X)^-1 X'(Sigma kron I) X (X'X)^-1;
            no read.
            "robust": against unequal variances of rows, from scores x_ij (Sigma^-1 r_i)_j; one pass.
            "cluster": against correlation within `groups`; one pass.
            "driscoll-kraay": against correlation within a time and autocorrelation along `times`; one pass.
            "hac": against autocorrelation of rows in time order, by ascending labels where they have any; one pass at
            a given bandwidth, up to three without.
            "observed": inverse of the observed information of coefficients and Sigma together; no read.
            "huber-white": sandwich of coefficients and Sigma together, whose bread is that information; one pass.
            "kackar-harville": classical, with what estimating Sigma adds in small samples; no read.
            These three need the compressed rows and a Sigma without penalty (lam_F and l1 zero), the last lam_B = 0.
            Or an object of `lrgls_dask.results.cov`, which holds its options.
            With missing responses scores are of what each row shows, x_ij (Sigma_oo^-1 r_o)_j, N_j rows of an equation
            stand in the place of N, and rows are read again: "classical" comes with the fit; "observed", which does not
            take values to be missing completely at random, is one read where their patterns are few, else three; a
            sandwich one more than these, "huber-white" one more than "observed"; "kackar-harville" needs few patterns.
        system : the fitted rows, for a fit that was opened from disk, in chunks of any length; "hac" takes their order
        as it is there. Other rows, and data changed since the fit, are told by their sums in the same pass, except of
        streamed and incomplete fits in files of versions before these sums were kept.
        groups : (N,) labels, by default those of the system; for groups of several kinds at once a list of such, an
        (N, m) array or a frame (Cameron, Gelbach and Miller 2011).  times : (N,), or the name of a level of the rows'
        labels, by default the level that holds dates or has the name of a time.
        correction : "HC1" multiplies by N / sqrt((N - p_i) (N - p_j)); for "cluster" it and "CR1" by
        G / (G - 1) (N - 1) / N too, as Stata and statsmodels. "HC2" and "HC3", for "robust" estimates of least squares,
        divide residuals by sqrt(1 - h) and 1 - h. "none" and "HC0" change nothing.
        debiased : True for the factor N / sqrt((N - p_i) (N - p_j)), of Sigma_ij for "classical"; None for as the fit
        was made.  group_debias : the factor G / (G - 1) (N - 1) / N by itself. The two are those of linearmodels.
        kernel, bandwidth : weights of lags, see `inference.hac.lag_weights`; by default "bartlett" and the bandwidth of
        Newey and West (1994).

        Of a time-varying fit each row counts with the Sigma_t of its segment; opened from disk it takes one pass more
        and `system`, and "observed" and the two after it are not defined.

        With lam_B > 0 the sandwich of the ridge estimator. Memory 8 P^2 bytes a few times, limited to 20,000
        coefficients; for one equation p_j^2, of any number of coefficients.
        Raises ValueError for options the kind does not take, rows that are not those of the fit, and labels that do
        not fit; MemoryError, before any read, for sums that do not fit; KeyError for an unknown equation.
        """
        position = None if equation is None else self._position(equation)
        behind = self.behind_errors
        if kind is None and behind.values is not None:
            chosen = slice(None) if position is None else self.design.spans[position]
            return self._labelled_cov(behind.kind, behind.values[chosen, chosen], behind.note, position)
        of_groups = _given(groups=groups, group_debias=group_debias, times=times)
        given = of_groups | _given(debiased=debiased, correction=correction, kernel=kernel, bandwidth=bandwidth)
        wanted = cov_kind("classical" if kind is None else kind, given)
        found = self._computed(wanted, position, system)
        return self._labelled_cov(wanted.name, found.values, found.note, position)

    def with_cov(
        self,
        kind: str | CovKind | None = None,
        *,
        use: Use | None = None,
        debiased: bool | None = None,
        system: System | None = None,
        groups: Any = None,
        group_debias: bool | None = None,
        times: Any = None,
        correction: Correction | None = None,
        kernel: HacKernel | None = None,
        bandwidth: float | None = None,
    ) -> Self:
        """The same fit whose std_errors, tests, intervals, tables and files use another covariance; options as `cov`.

        kind : None for the one it uses, no read.  use : "t", "normal" or "system-t", what p-values, intervals and joint
        tests refer to, see `LowRankGLS`; None for that of the fit.
        The same passes and memory as `cov` of all coefficients.
        """
        settings = self.settings
        if use is not None:
            OPTIONS["use"].check(use)
            settings = replace(settings, use=use)
        given = _given(
            debiased=debiased,
            groups=groups,
            group_debias=group_debias,
            times=times,
            correction=correction,
            kernel=kernel,
            bandwidth=bandwidth,
        )
        behind = self.behind_errors
        if kind is not None or given:
            wanted = cov_kind("classical" if kind is None else kind, given)
            found = self._computed(wanted, None, system)
            behind = BehindErrors(wanted.name, found.note, found.values, found.n_groups)
        return replace(self, settings=settings, behind_errors=behind)  # type: ignore[type-var]

    def _computed(self, kind: CovKind, position: int | None, system: System | None) -> CovValues:
        """What the kind makes of this fit; coefficients that restrictions hold have no variance, of whatever kind."""
        found = kind.compute(self._source, position, system)
        chosen = slice(None) if position is None else self.design.spans[position]
        return replace(found, values=without_variance(found.values, self.restrictions, chosen))

    @cached_property
    def _behind(self) -> CovBehind:
        """The covariance that std_errors come from."""
        values = self.behind_errors.values
        return self._classical if values is None else FormedCov(values)

    def _coefficient_cov(self, along: np.ndarray | None = None) -> np.ndarray:
        """(P, P) V that std_errors come from, or along V along' (m, m) for combinations `along` (m, P)."""
        return self._behind.full if along is None else self._behind.of_combinations(along)

    def _labelled_cov(self, kind: str, values: np.ndarray, note: str, position: int | None) -> xr.DataArray:
        """Covariance of all coefficients or one equation's."""
        chosen = slice(None) if position is None else self.design.spans[position]
        names = {name: labels[chosen] for name, labels in self._coefficient_labels.items()}
        coords: dict[str, Any] = {name: ("coefficient", labels) for name, labels in names.items()}
        coords |= {f"{name}_other": ("coefficient_other", labels) for name, labels in names.items()}
        attributes = {"kind": kind, "note": note}
        return xr.DataArray(values, coords, ("coefficient", "coefficient_other"), name="cov", attrs=attributes)

    # ------------------------------------------------------------------------------------------ labels

    @property
    def _index(self) -> pd.Index:
        return pd.Index(self.design.equations, name="equation", tupleize_cols=False)

    @cached_property
    def _coefficient_labels(self) -> dict[str, np.ndarray]:
        return {
            "equation": np.repeat(self._index.to_numpy(), self.design.sizes),
            "regressor": pd.Index([t for terms in self.design.terms for t in terms], tupleize_cols=False).to_numpy(),
        }

    def _per_coefficient(self, values: np.ndarray, name: str) -> xr.DataArray:
        coords = {label: ("coefficient", names) for label, names in self._coefficient_labels.items()}
        return xr.DataArray(values, coords, ("coefficient",), name=name)

    @cached_property
    def _free(self) -> np.ndarray:
        """(K,) coefficients of each equation that are free, see `free_coefficients`."""
        return free_coefficients(self.design, self.restrictions)

    def _position(self, equation: Hashable) -> int:
        try:
            return self.design.equations.index(equation)
        except ValueError:
            raise KeyError(f"no equation {equation!r}; the first are {list(self.design.equations[:5])}") from None


def _given(**options: Any) -> dict[str, Any]:
    """The options that are not left to their defaults."""
    return {name: value for name, value in options.items() if value is not None}


def as_fitted(missing: str, system: System) -> System:
    """The system the way a fit saw its rows: with missing="drop" only the complete ones."""
    return complete_only(system) if missing == "drop" else system


def fitted_rows_of(fit: Reported, kind: str, system: System | None) -> System:
    """The rows of the fit, as it saw them. Raises ValueError or TypeError where there are none."""
    found = system if system is not None else fit.system
    if found is None:
        raise ValueError(
            f"kind={kind!r} needs the rows, which this fit does not hold. Pass the fitted data: "
            f"cov({kind!r}, system=...)."
        )
    if not isinstance(found, System):
        raise TypeError(
            f"kind={kind!r} needs the rows themselves, a System; got a {type(found).__name__}. "
            "Pass the System that was compressed."
        )
    check_same_design(found.design, fit.design)
    # rows of which none shows only some equations; others may show nothing
    complete = fit.missing == "em" and bool((fit._shown == fit.n_obs).all())
    return complete_only(found) if complete else as_fitted(fit.missing, found)
