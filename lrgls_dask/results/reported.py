"""What every fit reports of its coefficients: labelled estimates, standard errors, intervals, tests, covariances."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
import xarray as xr

from lrgls_dask.checks import check_alpha
from lrgls_dask.compression.either import complete_only
from lrgls_dask.data.indices import as_index, as_levels
from lrgls_dask.design.design import Design
from lrgls_dask.design.hypotheses import check_open
from lrgls_dask.design.restrictions import free_coefficients, without_variance
from lrgls_dask.design.skipped import OK, hypotheses_about
from lrgls_dask.inference import HypothesisTest, wald
from lrgls_dask.inference.hac import HacKernel
from lrgls_dask.inference.reference import Reference
from lrgls_dask.inference.structured import FormedCov, StructuredCov
from lrgls_dask.options.table import OPTIONS, Use
from lrgls_dask.prediction.effects import check_same_labels
from lrgls_dask.prediction.fitted import check_same_design
from lrgls_dask.prediction.skipped import as_estimated
from lrgls_dask.results.comparable import check_maximised
from lrgls_dask.results.cov.formed import CovBehind
from lrgls_dask.results.cov.kind import CovKind, CovSource, CovValues, check_formed, cut, formed
from lrgls_dask.results.cov.registry import cov_kind
from lrgls_dask.results.cov.sandwich import Correction
from lrgls_dask.results.made_of_parts import MadeOfParts
from lrgls_dask.results.parts import BehindErrors
from lrgls_dask.system import System

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
        """(P,) coefficients, dim `coefficient` with coordinates `equation` and `regressor`.

        NaN for those of equations that were skipped, as in all that follows, see `status`.
        """
        return self._per_coefficient(self.coefficients, "params")

    @cached_property
    def std_errors(self) -> xr.DataArray:
        """(P,) standard errors: classical ones, at a known Sigma, unless `with_cov` chose others.

        Of any number of coefficients. A streamed fit that had no room for X'X reads X again, as its plan says.
        Zero for a coefficient that restrictions hold: its t and p are NaN, its interval is the point.
        """
        return self._per_coefficient(self._errors, "std_errors")

    @cached_property
    def tvalues(self) -> xr.DataArray:
        """(P,) coefficient / standard error; NaN, as its p, for a coefficient that restrictions hold."""
        return self._per_coefficient(self._ratios, "tvalues")

    @cached_property
    def pvalues(self) -> xr.DataArray:
        """(P,) two-sided, of the distribution that `use` asks for: Student's t with N - p_j degrees of freedom, p_j
        counting free coefficients, unless told otherwise; with G - 1 where errors are clustered. See `reference`."""
        freedom = np.repeat(self.reference.freedom, self.design.sizes)
        return self._per_coefficient(self.reference.two_sided(self._ratios, freedom), "pvalues")

    def conf_int(self, alpha: float = 0.05) -> xr.DataArray:
        """(coefficient, bound) intervals of coverage 1 - alpha; bound is "low" and "high"."""
        check_alpha(alpha)
        half = np.repeat(self.reference.half_width(alpha), self.design.sizes) * self._errors
        low_high = np.stack([self.coefficients - half, self.coefficients + half], axis=1)
        return self._labelled(low_high, ("coefficient", "bound"), "conf_int", {"bound": ["low", "high"]})

    def coef_table(self, alpha: float = 0.05) -> pd.DataFrame:
        """Coefficients, standard errors, t, p and interval, indexed by equation and regressor."""
        interval = self.conf_int(alpha).values
        index = as_levels({name: labels.tolist() for name, labels in self._coefficient_labels.items()})
        columns = {
            "coef": self.params.values,
            "std_err": self.std_errors.values,
            "t": self.tvalues.values,
            "p": self.pvalues.values,
            "low": interval[:, 0],
            "high": interval[:, 1],
        }
        return pd.DataFrame(columns, index=index)

    @cached_property
    def _errors(self) -> np.ndarray:
        """(P,) standard errors of what was estimated."""
        return np.sqrt(self._behind.variances)

    @cached_property
    def _ratios(self) -> np.ndarray:
        """(P,) coefficients over their standard errors, NaN for those that restrictions hold."""
        held = False if self.restrictions is None else self.restrictions.held
        with np.errstate(divide="ignore", invalid="ignore"):  # a variance may have been made zero, which is said
            return np.asarray(self.coefficients / np.where(held, np.nan, self._errors))

    @cached_property
    def status(self) -> xr.DataArray:
        """(equation,) what became of each equation: "ok"; "on floor", where its own variance ended on its floor, a
        Heywood case; "constant", where its response is one that its regressors reproduce.

        Of equations that unusable="skip" left out why: "no rows", "too few rows (3 of 5)" of those that would determine
        its coefficients (or one more, where they leave no residual), "constant", or "collinear (columns 'x' and 'z')".
        """
        said = self._conditions()
        if self.skipped is not None:
            found = dict(zip(self.skipped.equations.tolist(), said, strict=True))
            said = [found.get(j, why) for j, why in enumerate(self.skipped.status)]
        return xr.DataArray(np.array(said, dtype=str), {"equation": self._index}, ("equation",), name="status")

    def _conditions(self) -> list[str]:
        """What there is to say of every equation that was estimated."""
        return [OK] * self.design.n_equations

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
        """The coefficients of all equations that are free: P less the restrictions, with the effects that were
        absorbed, which every equation has."""
        return self.n_coefficients - self.n_restrictions + self.design.n_equations * self.design.n_absorbed

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
        Of a fit that skipped equations "*" is all others, and a matrix has a column for each of `params`.
        Raises ValueError with the place in the text, for redundant or contradictory hypotheses, for those that the
        restrictions of the fit decide, and for those about an equation that was skipped.
        """
        restrictions = hypotheses_about(self.design, self.skipped, hypotheses)
        check_open(self.restrictions, restrictions)
        covariance = self._behind.of_combinations(restrictions.rows)
        about = np.unique(self.design.equation_of[restrictions.about])
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
        if self.skipped is not None and self.skipped.why(equation):
            none = np.full(2 * (int(self._whole.sizes[self._whole.equations.index(equation)]),), np.nan)
            return self._labelled_cov(self.cov_kind, none, "skipped", equation)
        position = None if equation is None else self._position(equation)
        behind = self.behind_errors
        if kind is None and behind.values is not None:
            return self._labelled_cov(behind.kind, cut(self._source, position, behind.values), behind.note, equation)
        if position is None:
            check_formed(self.design)
        of_groups = _given(groups=groups, group_debias=group_debias, times=times)
        given = of_groups | _given(debiased=debiased, correction=correction, kernel=kernel, bandwidth=bandwidth)
        wanted = cov_kind("classical" if kind is None else kind, given)
        found = self._computed(wanted, position, system)
        return self._labelled_cov(wanted.name, formed(found.values), found.note, equation)

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
        The same passes as `cov`. Memory as of `cov` of all coefficients; of sums over fewer rows, groups or times than
        P / 4 a row of P numbers for each, for any P. Of more rows or groups, and above 20,000 coefficients, "robust"
        and "cluster" keep covariances within equations alone, of which tests across equations are not to be had.
        """
        settings = self.settings
        if use is not None:
            OPTIONS["use"].check(use)
            settings = replace(settings, use=use)
        of_groups = _given(groups=groups, group_debias=group_debias, times=times)
        given = of_groups | _given(debiased=debiased, correction=correction, kernel=kernel, bandwidth=bandwidth)
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
        if isinstance(found.values, StructuredCov):
            return replace(found, values=found.values.without_variance(self.restrictions))
        return replace(found, values=without_variance(found.values, self.restrictions, chosen))

    @cached_property
    def _behind(self) -> CovBehind:
        """The covariance that std_errors come from."""
        values = self.behind_errors.values
        if values is None or isinstance(values, StructuredCov):
            return self._classical if values is None else values
        return FormedCov(self.design, values)

    def _coefficient_cov(self) -> np.ndarray:
        """(P, P) V that std_errors come from."""
        found = self._behind
        return formed(found) if isinstance(found, StructuredCov) else found.full

    def _labelled_cov(self, kind: str, values: np.ndarray, note: str, equation: Hashable | None) -> xr.DataArray:
        """Covariance of all coefficients or one equation's."""
        dims, attributes = ("coefficient", "coefficient_other"), {"kind": kind, "note": note}
        if equation is None:
            return self._labelled(values, dims, "cov", attrs=attributes)
        mine = self._whole.spans[self._whole.equations.index(equation)]
        names = {name: labels[mine] for name, labels in self._coefficient_labels.items()}
        coords: dict[str, Any] = {name: ("coefficient", labels) for name, labels in names.items()}
        coords |= {f"{name}_other": ("coefficient_other", labels) for name, labels in names.items()}
        return xr.DataArray(values, coords, dims, name="cov", attrs=attributes)

    # ------------------------------------------------------------------------------------------ labels

    @property
    def _index(self) -> pd.Index:
        return as_index(self._whole.equations, name="equation")

    @cached_property
    def _coefficient_labels(self) -> dict[str, np.ndarray]:
        whole = self._whole
        return {
            "equation": np.repeat(self._index.to_numpy(), whole.sizes),
            "regressor": as_index([t for terms in whole.terms for t in terms]).to_numpy(),
        }

    def _labelled(
        self,
        values: np.ndarray,
        dims: tuple[str, ...],
        name: str,
        coords: Mapping[str, Any] | None = None,
        attrs: Mapping[str, Any] | None = None,
    ) -> xr.DataArray:
        """What was estimated, with the user's labels along all equations or coefficients, NaN where one was skipped.

        coords : labels along other dims.
        """
        labels: dict[str, Any] = {}
        for axis, dim in enumerate(dims):
            of, suffix = dim.removesuffix("_other"), "_other" * dim.endswith("_other")
            if of == "equation":
                labels[dim] = self._index.rename(dim)
            elif of == "coefficient":
                labels |= {f"{each}{suffix}": (dim, found) for each, found in self._coefficient_labels.items()}
            if of in ("equation", "coefficient") and self.skipped is not None:
                values = self.skipped.placed(values, of, axis)
        return xr.DataArray(values, labels | dict(coords or {}), dims, name=name, attrs=attrs)

    def _per_coefficient(self, values: np.ndarray, name: str) -> xr.DataArray:
        return self._labelled(values, ("coefficient",), name)

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


def as_fitted(fit: Reported, system: System) -> System:
    """The system the way a fit saw its rows: with missing="drop" only the complete ones, and with missing="em" too
    where no row shows only some equations; others may show nothing."""
    complete = fit.missing == "em" and bool((fit._shown == fit.n_obs).all())
    return complete_only(system) if complete or fit.missing == "drop" else system


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
    found = as_estimated(found, fit.skipped)
    check_same_design(found.design, fit.design)
    return as_fitted(fit, with_effects_of_rows(found, fit.design))


def with_effects_of_rows(system: System, design: Design) -> System:
    """The rows less the effects that the fit absorbed. Raises ValueError where they have other groups."""
    check_same_labels(design, system.rows)
    groups = system.rows.absorb
    if design.absorbed is None or groups is None:
        return system
    if groups.labels != design.absorbed.labels:
        raise ValueError(
            "these are not the rows that were fitted: they have other groups whose effects are absorbed. Pass the "
            "System that was fitted."
        )
    return replace(system, rows=replace(system.rows, design=replace(system.design, absorbed=design.absorbed)))
