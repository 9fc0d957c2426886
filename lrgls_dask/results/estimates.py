"""Coefficients with their labels, and what follows from them and their standard errors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.stats
import xarray as xr

from lrgls_dask.checks import check_alpha
from lrgls_dask.design.design import Design, Designed
from lrgls_dask.design.hypotheses import read_hypotheses
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.inference import HypothesisTest, wald
from lrgls_dask.system import System, complete_only

if TYPE_CHECKING:
    from lrgls_dask.results.fit import Fit
    from lrgls_dask.results.time_varying import TimeVaryingFit

__all__ = ["Estimates", "as_fitted"]


class Estimates(Designed):
    """What every fit says of its coefficients; the fields are those of the fit."""

    design: Design
    coefficients: np.ndarray
    n_obs: int
    loglik: float
    restrictions: Restrictions | None = None
    cells: np.ndarray | None = None  # (K,) rows that show each equation, where some do not

    @property
    @abstractmethod
    def n_parameters(self) -> float:
        """Free parameters, of the coefficients and of Sigma."""

    @abstractmethod
    def _coefficient_cov(self, along: np.ndarray | None = None) -> np.ndarray:
        """(P, P) V that std_errors come from, or along V along' (m, m) for combinations `along` (m, P)."""

    @cached_property
    @abstractmethod
    def std_errors(self) -> xr.DataArray:
        """(P,) standard errors."""

    @cached_property
    def params(self) -> xr.DataArray:
        """(P,) coefficients, dim `coefficient` with coordinates `equation` and `regressor`."""
        return self._per_coefficient(self.coefficients, "params")

    @cached_property
    def tvalues(self) -> xr.DataArray:
        return (self.params / self.std_errors).rename("tvalues")

    @cached_property
    def pvalues(self) -> xr.DataArray:
        """(P,) two-sided, Student's t with N - p_j degrees of freedom."""
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

    # ------------------------------------------------------------------------------------------ likelihood

    @property
    def nll(self) -> float:
        """Negative log-likelihood per row, without penalties."""
        return -self.loglik / self.n_obs

    @property
    def aic(self) -> float:
        return -2.0 * self.loglik + 2.0 * self.n_parameters

    @property
    def bic(self) -> float:
        return -2.0 * self.loglik + float(np.log(self.n_obs)) * self.n_parameters

    def _labelled_cov(
        self, kind: str, values: np.ndarray, note: str, position: int | None, *, cut: bool = False
    ) -> xr.DataArray:
        """Covariance of all coefficients or one equation's; cut : `values` are of all, whatever is wanted."""
        chosen = slice(0, self.n_coefficients)
        if position is not None:
            chosen = self.design.spans[position]
            values = values[chosen, chosen] if cut else values
        names = {name: labels[chosen] for name, labels in self._coefficient_labels.items()}
        coords: dict[str, Any] = {name: ("coefficient", labels) for name, labels in names.items()}
        coords |= {f"{name}_other": ("coefficient_other", labels) for name, labels in names.items()}
        attributes = {"kind": kind, "note": note}
        return xr.DataArray(values, coords, ("coefficient", "coefficient_other"), name="cov", attrs=attributes)

    # ------------------------------------------------------------------------------------------ hypotheses

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
        return self.n_obs * self.n_equations if self.cells is None else int(self.cells.sum())

    @property
    def df_resid(self) -> int:
        """Observed responses less the free coefficients, the residual degrees of freedom of the system."""
        return self.n_cells - self.df_model

    def wald_test(self, hypotheses: Any, *, use_f: bool = False) -> HypothesisTest:
        """Wald test of linear hypotheses, at the covariance that std_errors come from; no read.

        hypotheses : a text such as "Telcm:smb = 0" or "food:price + food:income = 1", "*:smb = 0" for every equation
        (the language is that of `lrgls_dask.hypothesis_syntax`), several of them in a list, a mapping from texts or
        (equation, regressor) to values, a matrix R (m, P) for R b = 0, or a tuple (R, r).
        use_f : the statistic over m as F(m, N K - P), systemfit's linearHypothesis with test "F", instead of chi2(m).
        Raises ValueError with the place in the text, and for redundant or contradictory hypotheses.
        """
        restrictions = read_hypotheses(self.design, hypotheses)
        covariance = self._coefficient_cov(restrictions.matrix)
        return wald(restrictions, self.coefficients, covariance, self.df_resid if use_f else None)

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
        n_rows = self.n_obs if self.cells is None else self.cells
        return np.repeat(np.maximum(n_rows - self.design.sizes, 1), self.design.sizes)

    def _position(self, equation: Hashable) -> int:
        try:
            return self.design.equations.index(equation)
        except ValueError:
            raise KeyError(f"no equation {equation!r}; the first are {list(self.design.equations[:5])}") from None


def as_fitted(fit: Fit | TimeVaryingFit, system: System) -> System:
    """The system the way the fit saw its rows: with missing="drop" only the complete ones."""
    return complete_only(system) if fit.missing == "drop" else system
