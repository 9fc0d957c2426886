"""What a fit says about rows, lazily: predictions, intervals, conditional predictions, residuals, factor scores."""

from __future__ import annotations

import numbers
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Literal, overload

import dask.array as da
import numpy as np
import xarray as xr

from lrgls_dask.checks import closest, one_of, shown, takes
from lrgls_dask.data.framefit import FittedFormulas
from lrgls_dask.data.griddims import on_dims, with_attributes
from lrgls_dask.data.indices import as_index
from lrgls_dask.data.labels import coords_of_rows, plain_labels
from lrgls_dask.design.design import Design
from lrgls_dask.design.skipped import Skipped
from lrgls_dask.inference.reference import Reference
from lrgls_dask.prediction.conditional import Given, GivenKind, given_rows, given_std_rows
from lrgls_dask.prediction.effects import effect_tables, group_spread
from lrgls_dask.prediction.factor_scores import FactorScoreMethod, Scoring, ShownScoring, factor_score_rows
from lrgls_dask.prediction.fitted import (
    Coefficients,
    Spread,
    check_same_design,
    fitted_rows,
    group_std_error_rows,
    residual_rows,
    std_error_rows,
)
from lrgls_dask.prediction.impute import imputed, write_imputed
from lrgls_dask.prediction.lazyrows import LazyRows
from lrgls_dask.prediction.newdata import NewRows, rows_to_predict
from lrgls_dask.prediction.skipped import as_estimated, new_rows_as_estimated, of_all_equations
from lrgls_dask.rows.rows import Rows
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.system import MAKE_ONE, CompressedSystem, System

__all__ = ["HOW_TO_PREDICT", "ROWS_TO_PREDICT", "Predicting", "PredictingBySigma"]

ROWS_TO_PREDICT = "the rows to predict: a System, or regressors alone"
HOW_TO_PREDICT = (
    "For the fitted rows pass the fitted system, fit.predict(system); for others a System, a Dataset, a frame with the "
    "columns fit.regressors, or those of its formulas, or an (N, q) array in their order."
)
WITH_RESPONSES = "a System, or regressors and the responses y"


class Predicting(ABC):
    """The methods of every fit that look at rows, from its coefficients and their covariance."""

    @property
    @abstractmethod
    def design(self) -> Design: ...

    @property
    @abstractmethod
    def coefficients(self) -> np.ndarray: ...

    @property
    @abstractmethod
    def obs_dim(self) -> str: ...

    @property
    @abstractmethod
    def equation_dim(self) -> str: ...

    @property
    @abstractmethod
    def skipped(self) -> Skipped | None:
        """Equations that were left out of the fit."""

    @property
    @abstractmethod
    def formulas(self) -> FittedFormulas | None: ...

    @abstractmethod
    def _error_variances(self) -> np.ndarray:
        """(K,) variances of the errors of any row."""

    @abstractmethod
    def _coefficient_cov(self) -> np.ndarray:
        """(P, P) covariance of all coefficients."""

    @abstractmethod
    def _cov_block(self, equation: int) -> np.ndarray:
        """(p_j, p_j) covariance of the coefficients of the equation at this position."""

    @property
    @abstractmethod
    def _errors_as_fitted(self) -> bool:
        """Whether standard errors are classical ones, at the Sigma of the fit."""

    @property
    @abstractmethod
    def reference(self) -> Reference:
        """The distribution of intervals."""

    @overload
    def predict(
        self, data: Any, *, interval: None = None, kind: Literal["mean", "observation"] = "mean"
    ) -> xr.DataArray: ...

    @overload
    def predict(self, data: Any, *, interval: float, kind: Literal["mean", "observation"] = "mean") -> xr.Dataset: ...

    @takes(ROWS_TO_PREDICT, HOW_TO_PREDICT)
    def predict(
        self, data: Any, *, interval: float | None = None, kind: Literal["mean", "observation"] = "mean"
    ) -> xr.DataArray | xr.Dataset:
        """(obs, equation) fitted values X_j b_j of new rows; lazy, nothing is read yet. NaN for skipped equations.

        data : a System with the same designs, or regressors alone: a Dataset with variables named as in `from_xarray`
            (others in it are not looked at), a pandas or Dask frame with columns `fit.regressors` in any order, or an
            (N, q) array in that order. Of a fit made by `System.from_frame` a frame of any kind with the columns that
            its formulas read, long where the fitted one was; cells that a long frame lacks are NaN.
            Where effects were absorbed a System that absorbs the same labels, NaN in groups that were not fitted.
        interval : coverage, such as 0.95; then a Dataset with `predicted`, `std_error`, `lower`, `upper`, by the
            distribution of the fit's intervals, see `reference`.  Computed together they read the rows once.
        kind : what the interval is for. "mean", X_j b_j with variance x_ij' V_jj x_ij from the estimated coefficients;
            "observation", a new response, whose error adds Sigma_jj, over the weight of its row or cell if the System
            has weights.

        Raises ValueError naming all regressors that are missing or extra, and, of an interval, where the fit holds
        nothing to have standard errors from.
        """
        one_of("kind", kind, ("mean", "observation"))
        _check_coverage(interval)
        new = self._new_rows(data)
        if interval is not None:
            self._check_interval()
        rows = LazyRows.of(new.rows, self._effects_of(new.rows))
        design, K = new.design, self.design.n_equations
        mean = rows.map(fitted_rows, Coefficients.of(design, self.coefficients), K, onto=True)
        if interval is None:
            return self._labelled_rows(mean, new, "predicted")
        noise = self._error_variances() if kind == "observation" else np.zeros(K)
        spread = Spread.of(design, [self._cov_block(j) for j in range(K)], noise)
        weighted = kind == "observation"
        if self.design.absorbed is None:
            std_error = rows.map(std_error_rows, spread, K, weighted=weighted)
        else:
            of_groups = group_spread(self.design, new.rows, spread, self._error_variances())
            std_error = rows.map(group_std_error_rows, of_groups, K, weighted=weighted, grouped=True)
        return self._with_interval(mean, std_error, new, interval, kind)

    @takes("a System, not compressed", f"{MAKE_ONE}.", check=lambda data: isinstance(data, System))
    def residuals(self, system: System) -> xr.DataArray:
        """(obs, equation) Y - X_j b_j; lazy."""
        system = as_estimated(system, self.skipped)
        check_same_design(system.design.given, self.design.given)
        coefficients = Coefficients.of(self.design.given, self.coefficients)
        rows = LazyRows.of(system.rows, self._effects_of(system.rows))
        values = rows.map(residual_rows, coefficients, self.design.n_equations, response=True)
        return self._labelled_rows(values, _whole(system), "residuals")

    def _new_rows(self, data: Any, y: Any = None, *, responses: str = "") -> NewRows:
        if isinstance(data, CompressedSystem):
            raise TypeError("a compressed system holds none of the rows to predict. Pass the System it was made of.")
        skipped, dims = self.skipped, (self.obs_dim, self.equation_dim)
        if isinstance(data, System) and data.design.given.same_as(self.design.given):
            skipped = None  # it never had them
        whole = self.design if skipped is None else skipped.whole
        new = rows_to_predict(data, whole, dims, y, self.formulas, with_y=bool(responses))
        if responses and not new.rows.y:
            raise ValueError(f"{responses} needs responses, but the data are regressors only. Pass y, or a System.")
        return new_rows_as_estimated(new, skipped)

    def _effects_of(self, rows: Rows) -> np.ndarray | None:
        """(G + 1, K) absorbed effects of the groups of rows and of none; None of a fit that absorbed none."""
        return effect_tables(self.design, self.coefficients, rows)

    def _check_interval(self) -> None:
        """Refuse intervals of fitted values whose absorbed effects have no standard errors."""
        absorbed = self.design.absorbed
        if absorbed is None:
            return
        if len(absorbed.names) > 1:
            raise ValueError(
                f"interval needs standard errors of sums of effects of {shown(absorbed.names)}, which are known of one "
                "label alone. Predict without interval, or absorb the label of most groups and give the others as "
                "columns of 0 and 1, C(...) in formulas."
            )
        if not self._errors_as_fitted:
            raise ValueError(
                "interval needs standard errors of the effects that were absorbed, which with_cov(...) does not have. "
                "Use the fit as it was before with_cov, or predict without interval."
            )

    def _with_interval(
        self, mean: da.Array, std_error: da.Array, new: NewRows, interval: float, kind: str
    ) -> xr.Dataset:
        half = std_error * self.reference.half_width(1 - interval)
        values = {"predicted": mean, "std_error": std_error, "lower": mean - half, "upper": mean + half}
        made = {name: self._labelled_rows(value, new, name) for name, value in values.items()}
        return xr.Dataset(made, attrs={"interval": float(interval), "kind": kind})

    def _labelled_rows(self, values: Any, new: NewRows, name: str) -> xr.DataArray:
        whole = self.design if self.skipped is None else self.skipped.whole
        equations = as_index(whole.equations, name=self.equation_dim)
        values = of_all_equations(values, self.skipped)
        found = xr.DataArray(values, {self.equation_dim: equations}, (new.dim, self.equation_dim), name=name)
        found = found.assign_coords(coords_of_rows(new.obs_labels, new.dim, (self.equation_dim,)))
        return with_attributes(on_dims(found, self.equation_dim, whole), whole)


class PredictingBySigma(Predicting):
    """What a fit with one Sigma says of rows besides: the responses that are not known, the factors behind them."""

    @property
    @abstractmethod
    def covariance(self) -> Sigma: ...

    @property
    @abstractmethod
    def missing(self) -> str:
        """What was done with missing responses."""

    def _error_variances(self) -> np.ndarray:
        return self.covariance.variances

    @overload
    def predict_given(
        self,
        data: Any,
        y: Any = None,
        *,
        observed: Iterable[Hashable] | None = None,
        interval: None = None,
        kind: GivenKind = "observation",
    ) -> xr.DataArray: ...

    @overload
    def predict_given(
        self,
        data: Any,
        y: Any = None,
        *,
        observed: Iterable[Hashable] | None = None,
        interval: float,
        kind: GivenKind = "observation",
    ) -> xr.Dataset: ...

    @takes(WITH_RESPONSES, HOW_TO_PREDICT)
    def predict_given(
        self,
        data: Any,
        y: Any = None,
        *,
        observed: Iterable[Hashable] | None = None,
        interval: float | None = None,
        kind: GivenKind = "observation",
    ) -> xr.DataArray | xr.Dataset:
        """(obs, equation) responses that are known, and the others predicted given them through Sigma; lazy.

        data : a System, whose Y may hold NaN where it is not known; or regressors as in `predict`, with y. Pass a long
            frame as it is: a System of it has no regressors in lines without a response, and predicts NaN there.
        y : (N, K) responses in the order of the fit, or a frame or DataArray by equation, which may leave some out; by
            default those that the formulas make of a frame.
        observed : equations whose values may be used, all by default. NaN is never used, and a value of another
            equation neither: it is predicted, which tells how good predictions are.
        interval : coverage; then a Dataset as of `predict`. Known entries have std_error 0.
        kind : "observation", the error left of the unknown response and the estimated coefficients, all P of them;
            "mean", the latter only; "error", the former only, which takes the coefficients as known. The first two
            cost O(P^2 + K^3) a row and hold `cov()`; the coefficients matter where N is not large.

        With e = y - fitted, m unknown and o known: fitted_m + Sigma_mo Sigma_oo^-1 e_o. No read but of these rows.
        Raises ValueError without responses, for unknown equations, and as `predict` does.
        """
        one_of("kind", kind, ("observation", "mean", "error"))
        _check_coverage(interval)
        new = self._new_rows(data, y, responses="conditional prediction")
        if interval is not None and kind != "error" and self.design.absorbed is not None:
            raise ValueError(
                f"kind={kind!r} needs standard errors of the effects that were absorbed, in all equations together, "
                "which are not kept. Use kind='error', or predict without interval."
            )
        V = None if interval is None or kind == "error" else self._coefficient_cov()
        coefficients = Coefficients.of(new.design, self.coefficients)
        given = Given(coefficients, self.covariance, self._usable(observed), kind, V)
        rows = LazyRows.of(new.rows, self._effects_of(new.rows))
        mean = rows.map(given_rows, given, self.design.n_equations, response=True, weighted=True, onto=True)
        if interval is None:
            return self._labelled_rows(mean, new, "predicted")
        std_error = rows.map(given_std_rows, given, self.design.n_equations, response=True, weighted=True)
        return self._with_interval(mean, std_error, new, interval, kind)

    @overload
    def impute(self, system: System) -> xr.Dataset: ...

    @overload
    def impute(
        self,
        system: System,
        path: Any,
        *,
        overwrite: bool = False,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None: ...

    def impute(
        self,
        system: System,
        path: Any = None,
        *,
        overwrite: bool = False,
        storage_options: Mapping[str, Any] | None = None,
    ) -> xr.Dataset | None:
        """`Y` (obs, equation) with its missing responses filled in, and `Y_variance`, lazy; or written to `path`.

        path : where to write the whole system so filled, without equations that the fit skipped, in format 1, which
        `System.from_zarr` opens. One read, block by block; the store appears when it is complete.

        Y holds what is observed as it is, and else what `predict_given` says; `Y_variance` (obs, equation) is 0 there
        and else the variance left given what the row shows, coefficients and Sigma taken as known. A row that shows
        nothing gets its fitted values and the variances of Sigma. O(K k^2) a pattern of a block and O(K k) a row.

        Filled values lie nearer to each other than responses do: fit the original system, not this one.
        Raises ValueError for another design, or a path over the system's own store; FileExistsError where something is
        at `path`, unless overwrite is True.
        """
        system = as_estimated(system, self.skipped)
        if self.design.absorbed is not None:
            raise ValueError(
                "impute fills in rows that miss responses, and absorbed effects are of complete ones. Use "
                "predict_given(system), which has the effects."
            )
        found = imputed(Coefficients.of(self.design.given, self.coefficients), self.covariance, system)
        if path is not None:
            options = None if storage_options is None else dict(storage_options)
            write_imputed(found, path, overwrite=overwrite, storage_options=options)
            return None
        filled = {"Y": found.mean, "Y_variance": found.variance}
        return xr.Dataset({name: self._labelled_rows(each, _whole(system), name) for name, each in filled.items()})

    @takes(WITH_RESPONSES, HOW_TO_PREDICT)
    def factor_scores(self, data: Any, y: Any = None, *, method: FactorScoreMethod = "regression") -> xr.DataArray:
        """(obs, factor) the common factors behind the errors of each row; lazy, and `to_zarr` writes it in chunks.

        data, y : as of `predict_given`. Of a fit with missing="em" and a diagonal own part the scores of a row with NaN
            are those given what it shows (nothing: 0, the mean of the factors; by "bartlett" NaN where that does not
            tell the factors apart); of other fits they are NaN.
        method : "regression", F' Sigma^-1 r, the mean of the factors given the residuals r (Thomson 1939); "bartlett",
            (F' D^-1 F)^-1 F' D^-1 r, unbiased given the factors (Bartlett 1937).
        The factors have variance 1 in every row: r is y - fitted times the root of the weight. Rows that lie along a
        dim that is called "factor" lie along "obs" here.

        Raises ValueError for a fit without factors, and as `predict_given` does.
        """
        new = self._new_rows(data, y, responses="factor scores")
        weights = self.covariance.factor_score_weights(method)
        scoring = Scoring(Coefficients.of(new.design, self.coefficients), weights, self._shown_scoring(method))
        values = LazyRows.of(new.rows, self._effects_of(new.rows)).map(
            factor_score_rows, scoring, self.covariance.rank, response=True, weighted=True
        )
        dim = "obs" if new.dim == "factor" else new.dim
        scores = xr.DataArray(values, {"factor": self.covariance.factor_labels}, (dim, "factor"), name="factor_scores")
        return scores.assign_coords(coords_of_rows(new.obs_labels, dim, (self.equation_dim,)))

    def _shown_scoring(self, method: FactorScoreMethod) -> ShownScoring | None:
        """How rows with missing responses are scored, by a fit that takes them."""
        sigma = self.covariance
        if self.missing != "em" or sigma.rank == 0:
            return None
        if not np.array_equal(sigma.own_part(), np.diag(sigma.own_variances())):
            return None
        return ShownScoring(sigma.loadings(), sigma.own_variances(), method == "bartlett")

    def _usable(self, observed: Iterable[Hashable] | None) -> np.ndarray:
        """(K,) whether the values of an equation may be used."""
        if observed is None:
            return np.ones(self.design.n_equations, dtype=bool)
        names = set(plain_labels(observed, "observed"))
        known = self.design.equations if self.skipped is None else self.skipped.whole.equations
        unknown = [name for name in names if name not in set(known)]
        if unknown:
            hint = closest(unknown[0], known)
            raise ValueError(f"observed names {shown(unknown)}, which the fit does not have{hint}")
        return np.array([name in names for name in self.design.equations])


def _whole(system: System) -> NewRows:
    """All rows of a system, as they are."""
    return NewRows(system.rows, system.obs_labels, system.obs_dim)


def _check_coverage(interval: Any) -> None:
    if interval is None:
        return
    if isinstance(interval, bool) or not isinstance(interval, numbers.Real) or not 0 < float(interval) < 1:
        raise ValueError(f"interval is a coverage between 0 and 1, both excluded, such as 0.95; got {interval!r}.")
