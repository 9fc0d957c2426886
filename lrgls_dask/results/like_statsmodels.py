"""One equation of a fit that looks like a result of statsmodels, for packages that take these: marginaleffects asks by
what module a class is of, which is why this one is named so."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from lrgls_dask.checks import check_alpha, shown
from lrgls_dask.data.framefit import FittedFormulas
from lrgls_dask.data.indices import as_index
from lrgls_dask.data.lags import no_shift
from lrgls_dask.data.modelmatrix import Encoding
from lrgls_dask.data.tables import as_table, column_names, is_table, read_columns
from lrgls_dask.page import facts, shown_page, table
from lrgls_dask.prediction.lazyrows import LazyRows
from lrgls_dask.results.for_maketables import coef_table, fixef_string, vcov_info
from lrgls_dask.results.reported import Reported
from lrgls_dask.results.tidy import NUMBERS, glance_by_equation, tidy
from lrgls_dask.rows.memory import require_here
from lrgls_dask.system import System

__all__ = ["EquationView"]

CONSTANTS = ("const", "Intercept", "constant")  # what a column of ones is called


@dataclass(frozen=True, eq=False)
class EquationView:
    """One equation of a fit, by the names of statsmodels' results: params, bse, pvalues, cov_params(), predict, model.

    Made by fit["Telcm"], or fit[40.5, 10.0] where equations lie on several dims. Every number is the fit's own: its
    covariance behind the errors, its distribution behind p-values and intervals. Nothing is computed of other equations
    where that costs, nothing is read.
    fit : of all equations.  name : of this one.  frame : rows for packages that ask a model for its data, see
    `with_frame`.
    """

    fit: Reported
    name: Hashable
    frame: Any = None

    # ------------------------------------------------------------------------------------------ estimates

    def tidy(self, level: float = 0.95) -> pd.DataFrame:
        """A row a coefficient, as of `Fit.tidy`."""
        return tidy(self.fit, [self.name], None, level)

    def glance(self) -> pd.DataFrame:
        """The equation in one row, as of `Fit.glance` by equation, and which covariance its errors are of."""
        row = glance_by_equation(self.fit, np.array([self._place]))
        return row.assign(cov_kind=self.fit.cov_kind)

    @property
    def params(self) -> pd.Series:
        """(p,) coefficients by regressor."""
        return self._column("estimate", "params")

    @property
    def bse(self) -> pd.Series:
        """(p,) standard errors."""
        return self._column("std_error", "bse")

    @property
    def tvalues(self) -> pd.Series:
        """(p,) coefficient over standard error."""
        return self._column("statistic", "tvalues")

    @property
    def pvalues(self) -> pd.Series:
        """(p,) two-sided."""
        return self._column("p_value", "pvalues")

    def conf_int(self, alpha: float = 0.05) -> pd.DataFrame:
        """(p, 2) bounds of intervals of coverage 1 - alpha."""
        check_alpha(alpha)
        found = self.tidy(1.0 - alpha)
        return pd.DataFrame(found[["conf_low", "conf_high"]].to_numpy(), self._terms, [0, 1])

    def cov_params(self) -> pd.DataFrame:
        """(p, p) covariance of the coefficients."""
        return pd.DataFrame(self.fit.cov(equation=self.name).values, self._terms, self._terms)

    @property
    def cov_type(self) -> str:
        """The kind of covariance."""
        return self.fit.cov_kind

    @property
    def use_t(self) -> bool:
        """Whether p-values and intervals are of Student's t, else normal."""
        return self.fit.use != "normal"

    @property
    def nobs(self) -> float:
        """Rows that show the equation."""
        return float(self._glanced["n_obs"])

    @property
    def df_resid(self) -> float:
        """Its degrees of freedom: rows less free coefficients."""
        return float(self._glanced["df_resid"])

    @property
    def rsquared(self) -> float:
        """R2, NaN where the fit has none."""
        return float(self._glanced["r2"])

    @property
    def rsquared_adj(self) -> float:
        """R2 adjusted for degrees of freedom."""
        return float(self._glanced["adj_r2"])

    @property
    def scale(self) -> float:
        """The variance of its errors."""
        return float(self._glanced["error_var"])

    # ------------------------------------------------------------------------------------------ rows

    @cached_property
    def model(self) -> EquationModel:
        """What it was fitted as: formula, names, and rows if there are any."""
        return EquationModel(self)

    def predict(self, exog: Any) -> Any:
        """Fitted values of new rows.

        exog : a frame with the columns that the formula of the equation reads, or without formulas its regressors, in
        any order, of which one called const, Intercept or constant may be left out: a Series by its index. A Series,
        one row by name. An array (n, p) or (p,) in the order of `params`, its constant among them: (n,). A System: as
        `Fit.predict` has it, this equation's, lazy.
        Raises ValueError for columns that are not there and arrays of another width, and where effects were absorbed
        and this is no System; TypeError for what is none of these.
        """
        if isinstance(exog, System):
            fit: Any = self.fit
            found = fit.predict(exog)
            dims = fit._whole.equation_dims
            if not dims:
                return found.isel({fit.equation_dim: self._place})
            return found.sel(dict(zip(dims, self.name, strict=True)))  # type: ignore[call-overload]
        exog = as_table(pd.DataFrame([exog]) if isinstance(exog, pd.Series) else exog)
        if not is_table(exog):
            return self.model.predict(self.params, exog)
        values = self.model.data.design_info(exog)[1] @ self.params.to_numpy()
        return pd.Series(values, getattr(exog, "index", None))

    def with_frame(self, frame: Any) -> EquationView:
        """The same with rows for packages that average over a model's data, such as marginaleffects.

        Without it `model.data.frame` reads the rows of the fitted system, where the fit holds it and its formulas are
        no more than columns.
        """
        return replace(self, frame=frame)

    # ------------------------------------------------------------------------------------------ of tables

    @property
    def __maketables_coef_table__(self) -> pd.DataFrame:
        return coef_table(self.tidy(), [str(term) for term in self._terms])

    def __maketables_stat__(self, key: str) -> Any:
        known = {"N": "n_obs", "r2": "r2", "adj_r2": "adj_r2", "df_resid": "df_resid", "se_type": "cov_kind"}
        if key == "rmse":
            return self.scale**0.5
        return self._glanced[known[key]] if key in known else None

    @property
    def __maketables_depvar__(self) -> str:
        return self.model.endog_names

    @property
    def __maketables_vcov_info__(self) -> dict[str, Any]:
        return vcov_info(self.fit)

    @property
    def __maketables_default_stat_keys__(self) -> list[str]:
        return ["N", "r2", "adj_r2"]

    @property
    def __maketables_fixef_string__(self) -> str | None:
        return fixef_string(self.fit)

    def __repr__(self) -> str:
        return f"<equation {self.name!r} of {self.fit!r}>"

    def _repr_html_(self) -> str:
        """The equation as a notebook shows it."""
        row = self._glanced
        share = "-" if np.isnan(row["r2"]) else f"{row['r2']:.4f}"
        said = [("Observations", f"{row['n_obs']:,}"), ("R2", share), ("Status", str(row["status"]))]
        said += [("Error sd", f"{self.scale**0.5:.5g}"), ("Std errors", self.cov_type)]
        found = self.tidy()
        cells = [[f"{value:.5g}" for value in values] for values in found[list(NUMBERS)].to_numpy()]
        rows = [((str(term),), each) for term, each in zip(found["term"], cells, strict=True)]
        title = f"Equation {self.name} of {self.fit.n_equations:,}"
        return shown_page(title, facts(said), table("Coefficients", ["term"], NUMBERS, rows))

    # ------------------------------------------------------------------------------------------ parts

    @cached_property
    def _table(self) -> pd.DataFrame:
        return self.tidy()

    @cached_property
    def _glanced(self) -> pd.Series:
        return self.glance().iloc[0]

    def _column(self, name: str, called: str) -> pd.Series:
        return pd.Series(self._table[name].to_numpy(), self._terms, name=called)

    @property
    def _terms(self) -> pd.Index:
        return as_index(self.fit._whole.terms[self._place])

    @cached_property
    def _place(self) -> int:
        return self.fit._whole.equations.index(self.name)


@dataclass(frozen=True, eq=False)
class EquationModel:
    """What an equation was fitted as, by the names of statsmodels' models."""

    view: EquationView

    @property
    def endog_names(self) -> str:
        """The response: its text in the formula, else the label of the equation."""
        own = self._own_encoding
        return str(self.view.name) if own is None else own.formulas.responses[0].text

    @property
    def exog_names(self) -> list[str]:
        """The regressors."""
        return [str(term) for term in self.view._terms]

    @property
    def formula(self) -> str:
        """As formulaic reads it: the one that was given, or one of the regressors, whose constant is its intercept."""
        own = self._own_encoding
        if own is not None:
            return f"{self.endog_names} ~ {own.formulas.sided[0].text.split('~')[-1].strip()}"
        constant = any(name in CONSTANTS for name in self.exog_names)
        rest = [_quoted(name) for name in self.exog_names if name not in CONSTANTS]
        return f"{_quoted(self.endog_names)} ~ {' + '.join(['1' if constant else '0', *rest])}"

    @property
    def data(self) -> EquationRows:
        """Rows for those who average over them."""
        return EquationRows(self)

    def predict(self, params: Any, exog: Any) -> np.ndarray:
        """(n,) of regressors (n, p) at any parameters (p,), see `EquationView.predict`."""
        self._check_without_effects()
        try:
            values = np.asarray(exog, dtype=np.float64)
        except (TypeError, ValueError):
            raise TypeError(
                f"predict takes a frame, an array of numbers or a System; got {type(exog).__name__}. Make a frame of "
                "it: pandas.DataFrame."
            ) from None
        wide = len(self.exog_names)
        if values.ndim not in (1, 2) or values.shape[-1] != wide:
            raise ValueError(
                f"equation {self.view.name!r} has {wide} regressors, {shown(self.exog_names)}; got an array of shape "
                f"{values.shape}. Give a column for each, in this order, or a frame, whose columns go by name."
            )
        return np.asarray(values @ np.asarray(params, dtype=np.float64))

    def design(self, frame: Any) -> np.ndarray:
        """(n, p) the regressors of a frame's rows. Raises ValueError for columns that it lacks, and where effects were
        absorbed, which a frame does not say."""
        self._check_without_effects()
        frame, own = as_table(frame), self._own_encoding
        if own is not None:
            block = own.block(read_columns(frame, own.formulas.regressor_columns), no_shift, responses=False)
            return block.x[:, [own.names.index(name) for name in self.exog_names]]
        known = column_names(frame)
        wanted = [name for name in self.exog_names if name in known or name not in CONSTANTS]
        found = read_columns(frame, wanted)
        columns = [found[name] if name in wanted else np.ones(len(found)) for name in self.exog_names]
        return np.column_stack([np.asarray(column, dtype=np.float64) for column in columns])

    def _check_without_effects(self) -> None:
        """Raise ValueError where effects were absorbed."""
        if self.view.fit.design.absorbed is not None:
            raise ValueError(
                f"fitted values of equation {self.view.name!r} have effects that were absorbed, and frames and arrays "
                "do not say whose. Use fit.predict(system) with a System that absorbs the same labels."
            )

    @property
    def _fitted(self) -> FittedFormulas | None:
        return self.view.fit.formulas

    @property
    def _own_encoding(self) -> Encoding | None:
        """What the formula of this equation makes of rows, with all that the fitted ones decided; None without one."""
        if self._fitted is None:
            return None
        encoding, label = self._fitted.encoding, self._label
        every = encoding.formulas
        sided, response = (every.sided[every.of[label]],), (every.response[label],)
        one = replace(every, labels=(every.labels[label],), sided=sided, of=(0,), response=response)
        return replace(encoding, formulas=one, named=(encoding.named[every.right[label]],))

    @property
    def _label(self) -> int:
        """Which label of the formulas the equation has."""
        assert self._fitted is not None
        return self._fitted.of[self.view._place]


@dataclass(frozen=True, eq=False)
class EquationRows:
    """The rows of an equation for packages that ask a model for its data."""

    model: EquationModel

    @cached_property
    def frame(self) -> Any:
        """The frame that `EquationView.with_frame` was given; else the response and regressors of the rows of the
        fitted system that show the equation, one read, 8 N (p + 1) bytes.

        Raises ValueError where the fit does not hold these rows, or its formula reads columns that they do not have.
        """
        view = self.model.view
        if view.frame is not None:
            return view.frame
        system, own = view.fit.system, self.model._own_encoding
        if not isinstance(system, System) or (own is not None and own.plain is None):
            why = (
                "its formula makes regressors of a frame, which is not kept" if own is not None else "it holds no rows"
            )
            raise ValueError(
                f"equation {view.name!r} is asked for the data it was fitted to, and {why}. Give them: "
                f"fit[{view.name!r}].with_frame(frame)."
            )
        rows, design = system.rows, system.rows.design.given
        j = design.equations.index(view.name)
        names = [self.model.endog_names, *self.model.exog_names]
        size = 8 * rows.n_obs * len(names)
        require_here(2 * size, f"the rows of equation {view.name!r}", "Give some of them: with_frame(frame).")
        values = LazyRows.of(rows).map(_columns_of, (design.columns[j], j), len(names), response=True).compute()
        there = ~np.isnan(values).any(axis=1)
        found = pd.DataFrame(values[there], columns=names)
        return found[[name for name in names if name not in CONSTANTS]]

    def design_info(self, newdata: Any) -> tuple[None, np.ndarray]:
        """The regressors of new rows, where statsmodels has what patsy knows of a formula."""
        return None, self.model.design(newdata)


def _columns_of(x: np.ndarray, y: np.ndarray | None, weights: Any, params: tuple[np.ndarray, int]) -> np.ndarray:
    """(n, 1 + p) the response of an equation and its regressors."""
    assert y is not None
    columns, j = params
    return np.column_stack([y[:, j], x[:, columns]])


def _quoted(name: str) -> str:
    """A name as formulas have it."""
    return name if name.isidentifier() else f"`{name}`"
