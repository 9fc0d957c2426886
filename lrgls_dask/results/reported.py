"""What every fit reports of its coefficients: labelled estimates, standard errors, intervals, tests, covariances."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import scipy  # scipy.stats loads when first asked: it takes as long as all of this package
import xarray as xr

from lrgls_dask.checks import check_alpha
from lrgls_dask.design.design import Design, Designed
from lrgls_dask.design.hypotheses import check_open, read_hypotheses
from lrgls_dask.design.restrictions import Restrictions, free_coefficients, without_variance
from lrgls_dask.inference import HypothesisTest, wald
from lrgls_dask.inference.hac import HacKernel
from lrgls_dask.options.stored import from_stored
from lrgls_dask.prediction.fitted import check_same_design
from lrgls_dask.results.comparable import check_maximised
from lrgls_dask.results.cov.formed import CovBehind, FormedCov
from lrgls_dask.results.cov.kind import CovKind, CovSource, CovValues
from lrgls_dask.results.cov.registry import cov_kind
from lrgls_dask.results.cov.sandwich import Correction
from lrgls_dask.results.parts import BehindErrors, Estimated, Run, Settings
from lrgls_dask.solve.record import Termination
from lrgls_dask.system import System, complete_only

__all__ = ["Reported", "as_fitted", "fitted_rows_of"]


class Reported(Designed):
    """The parts that every fit has, and what follows from the coefficients and the covariance behind their errors."""

    estimated: Estimated
    settings: Settings
    run: Run
    behind_errors: BehindErrors
    system: System | None

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

    # ------------------------------------------------------------------------------------------ of the parts

    @property
    def design(self) -> Design:
        """Which equation has which regressors, and their labels."""
        return self.estimated.design

    @property
    def coefficients(self) -> np.ndarray:
        """(P,) as plain numbers, equation by equation; `params` has labels."""
        return self.estimated.coefficients

    @property
    def n_obs(self) -> int:
        """N, rows of positive weight that show a response."""
        return self.estimated.n_obs

    @property
    def loglik(self) -> float:
        """Log-likelihood of all rows, without penalties."""
        return self.estimated.loglik

    @property
    def options(self) -> dict[str, Any]:
        """The options it was fitted with, by the names of `LowRankGLS`; a text stands for one that cannot be stored.

        Nothing of a fit saved by a version that did not keep them.
        """
        return from_stored(self.settings.options) if self.settings.options else {}

    @property
    def obs_dim(self) -> str:
        """What the user calls the dim of rows."""
        return self.estimated.obs_dim

    @property
    def equation_dim(self) -> str:
        """What the user calls the dim of equations."""
        return self.estimated.equation_dim

    @property
    def termination(self) -> Termination:
        """Why the iterations ended."""
        return self.run.termination

    @property
    def n_passes(self) -> int:
        """Passes over the data that the whole fit took."""
        return self.run.n_passes

    @property
    def bytes_read(self) -> int:
        """Decoded bytes that those passes read."""
        return self.run.bytes_read

    @property
    def n_sweeps(self) -> int:
        """Sweeps of the loop."""
        return self.run.n_sweeps

    @property
    def n_dropped(self) -> int:
        """Rows that missing="drop" left out: a response missing, or weight zero."""
        return self.run.n_dropped

    @property
    def missing(self) -> str:
        """What was done with missing responses: "raise", "em" or "drop"."""
        return self.settings.missing

    @property
    def algorithm(self) -> str:
        """How it was estimated: "als", "em" or "fgls"."""
        return self.settings.algorithm

    @property
    def debiased(self) -> bool | Literal["Theil", "max"]:
        """Whether, and how, Sigma was found from mean products corrected for degrees of freedom."""
        return self.settings.debiased

    @property
    def lam_B(self) -> float:
        """The ridge on the coefficients."""
        return self.settings.lam_B

    @property
    def restrictions(self) -> Restrictions | None:
        """Linear restrictions that the coefficients keep to."""
        return self.settings.restrictions

    @property
    def cov_kind(self) -> str:
        """The kind of covariance behind std_errors and all that follows."""
        return self.behind_errors.kind

    @property
    def cov_note(self) -> str:
        """How it was made, beyond the kind."""
        return self.behind_errors.note

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
        """(P,) two-sided, Student's t with N - p_j degrees of freedom, p_j counting free coefficients."""
        return self._per_coefficient(2 * scipy.stats.t.sf(np.abs(self.tvalues.values), self._freedom), "pvalues")

    def conf_int(self, alpha: float = 0.05) -> xr.DataArray:
        """(coefficient, bound) intervals of coverage 1 - alpha; bound is "low" and "high"."""
        check_alpha(alpha)
        half = scipy.stats.t.isf(alpha / 2, self._freedom) * self.std_errors.values
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

    def wald_test(self, hypotheses: Any, *, use_f: bool = False) -> HypothesisTest:
        """Wald test of linear hypotheses, at the covariance that std_errors come from; no read.

        hypotheses : a text such as "Telcm:smb = 0" or "food:price + food:income = 1", "*:smb = 0" for every equation
        (the language is that of `lrgls_dask.design.hypothesis_syntax`), several of them in a list, a mapping from texts
        or (equation, regressor) to values, a matrix R (m, P) for R b = 0, or a tuple (R, r).
        use_f : the statistic over m as F(m, N K - P), systemfit's linearHypothesis with test "F", instead of chi2(m).
        Raises ValueError with the place in the text, for redundant or contradictory hypotheses, and for those that the
        restrictions of the fit decide.
        """
        restrictions = read_hypotheses(self.design, hypotheses)
        check_open(self.restrictions, restrictions)
        covariance = self._coefficient_cov(restrictions.matrix)
        return wald(restrictions, self.coefficients, covariance, self.df_resid if use_f else None)

    # ------------------------------------------------------------------------------------------ covariances

    def cov(
        self,
        kind: str | CovKind | None = None,
        *,
        equation: Hashable | None = None,
        debiased: bool = False,
        system: System | None = None,
        groups: Any = None,
        correction: Correction = "HC0",
        kernel: HacKernel = "bartlett",
        bandwidth: float | None = None,
    ) -> xr.DataArray:
        """(coefficient, coefficient_other) covariance of the coefficients, of all or of one equation's.

        kind : None for the one this fit uses, "classical" unless `with_cov` chose another.
            "classical": (X' Sigma^-1 X)^-1 at a known Sigma; no read. debiased=True scales Sigma_ij by
            N / sqrt((N - p_i) (N - p_j)).
            "robust": against unequal variances of rows, from scores x_ij (Sigma^-1 r_i)_j; one pass.
            "cluster": against correlation within `groups`; one pass.
            "hac": against autocorrelation of rows in time order, by ascending labels where they have any; one pass at
            a given bandwidth, up to three without.
            "observed": inverse of the observed information of coefficients and Sigma together; no read.
            "huber-white": sandwich of coefficients and Sigma together, whose bread is that information; one pass.
            "kackar-harville": classical, with what estimating Sigma adds in small samples; no read.
            These three need the compressed rows and a Sigma without penalty (lam_F and l1 zero), the last lam_B = 0.
            Or an object of `lrgls_dask.results.cov`, which holds its options.
            With missing responses "classical", (sum_i X_i' Sigma_oo^-1 X_i)^-1 over what each row shows, which comes
            with the fit, and "observed", which does not take values to be missing completely at random: one read where
            their patterns are few, else three passes, the last of 2 K (k + 1) times the work. No others.
        system : the fitted rows, for a fit that was opened from disk.  groups : (N,) labels, by default those of the
        system.  correction : "HC1" multiplies by N / sqrt((N - p_i) (N - p_j)), and for "cluster" by
        G / (G - 1) (N - 1) / N too.  kernel, bandwidth : weights of lags, see `inference.hac.lag_weights`; by default
        the bandwidth of Newey and West (1994).

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
        wanted = cov_kind(
            "classical" if kind is None else kind, _given(debiased, groups, correction, kernel, bandwidth)
        )
        found = self._computed(wanted, position, system)
        return self._labelled_cov(wanted.name, found.values, found.note, position)

    def with_cov(
        self,
        kind: str | CovKind,
        *,
        debiased: bool = False,
        system: System | None = None,
        groups: Any = None,
        correction: Correction = "HC0",
        kernel: HacKernel = "bartlett",
        bandwidth: float | None = None,
    ) -> Self:
        """The same fit whose std_errors, tests, intervals, tables and files use another covariance; options as `cov`.

        The same passes and memory as `cov` of all coefficients.
        """
        wanted = cov_kind(kind, _given(debiased, groups, correction, kernel, bandwidth))
        found = self._computed(wanted, None, system)
        return replace(self, behind_errors=BehindErrors(wanted.name, found.note, found.values))  # type: ignore[type-var]

    def _computed(self, kind: CovKind, position: int | None, system: System | None) -> CovValues:
        """What the kind makes of this fit; coefficients that restrictions hold have no variance, of whatever kind."""
        found = kind.compute(self._source, position, system)
        chosen = slice(None) if position is None else self.design.spans[position]
        return CovValues(without_variance(found.values, self.restrictions, chosen), found.note)

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

    @property
    def _freedom(self) -> np.ndarray:
        return np.repeat(np.maximum(self._shown - self._free, 1), self.design.sizes)

    @cached_property
    def _free(self) -> np.ndarray:
        """(K,) coefficients of each equation that are free, see `free_coefficients`."""
        return free_coefficients(self.design, self.restrictions)

    def _position(self, equation: Hashable) -> int:
        try:
            return self.design.equations.index(equation)
        except ValueError:
            raise KeyError(f"no equation {equation!r}; the first are {list(self.design.equations[:5])}") from None


def _given(debiased: bool, groups: Any, correction: str, kernel: str, bandwidth: float | None) -> dict[str, Any]:
    """The options that are not left at their defaults."""
    given = {
        "debiased": (debiased, debiased is not False),
        "groups": (groups, groups is not None),
        "correction": (correction, correction != "HC0"),
        "kernel": (kernel, kernel != "bartlett"),
        "bandwidth": (bandwidth, bandwidth is not None),
    }
    return {name: value for name, (value, is_given) in given.items() if is_given}


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
    return as_fitted(fit.missing, found)
