"""Covariances of the coefficients as every fit gives them: of a kind that is asked for, or as a fit that keeps one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from dataclasses import replace
from typing import Any, Self

import numpy as np
import xarray as xr

from lrgls_dask.inference.hac import HacKernel
from lrgls_dask.results.cov_kinds import Correction, CovKind, CovRequest, CovValues
from lrgls_dask.results.estimates import Estimates
from lrgls_dask.system import System

__all__ = ["WithCovariances"]


class WithCovariances(Estimates):
    """`cov` and `with_cov` of a frozen dataclass with these fields."""

    cov_kind: str
    cov_note: str
    cov_values: np.ndarray | None

    @abstractmethod
    def _requested(self, request: CovRequest) -> CovValues:
        """The covariance that is asked for."""

    def cov(
        self,
        kind: CovKind | None = None,
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
            "hac": against autocorrelation of rows in time order; one pass at a given bandwidth, up to three without.
            "observed": inverse of the observed information of coefficients and Sigma together; no read.
            "huber-white": sandwich of coefficients and Sigma together, whose bread is that information; one pass.
            "kackar-harville": classical, with what estimating Sigma adds in small samples; no read.
            These three need the compressed rows and a Sigma without penalty (lam_F and l1 zero), the last lam_B = 0.
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
        if kind is None and self.cov_values is not None:
            return self._labelled_cov(self.cov_kind, self.cov_values, self.cov_note, position, cut=True)
        kind = "classical" if kind is None else kind
        request = CovRequest(kind, position, debiased, system, groups, correction, kernel, bandwidth)
        found = self._requested(request)
        return self._labelled_cov(kind, found.values, found.note, position)

    def with_cov(
        self,
        kind: CovKind,
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
        request = CovRequest(kind, None, debiased, system, groups, correction, kernel, bandwidth)
        found = self._requested(request)
        return replace(self, cov_kind=kind, cov_note=found.note, cov_values=found.values)  # type: ignore[type-var]
