"""The result of a fit: frozen, labelled, saved and opened without pickles."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from lrgls_dask.compression.compressed import Compressed, mean_nll
from lrgls_dask.design.design import Design
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.inference import CoefficientCovariance, SumsOfSquares
from lrgls_dask.missing.covariance import observed_nll
from lrgls_dask.prediction.fitted import check_same_design
from lrgls_dask.prediction.methods import Predicting
from lrgls_dask.results.assessed import Assessed, refuse_missing
from lrgls_dask.results.bootstrap import Bootstrap, Method, bootstrap
from lrgls_dask.results.cov_kinds import CovRequest, CovValues, coefficient_covariance
from lrgls_dask.results.estimates import as_fitted
from lrgls_dask.results.html import summary_html
from lrgls_dask.results.store import read_fit, write_fit
from lrgls_dask.results.text import summary
from lrgls_dask.results.with_cov import WithCovariances
from lrgls_dask.rows.memory import MAX_COEFFICIENTS
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.solve.record import Termination, TraceRow
from lrgls_dask.system import CompressedSystem, System

__all__ = ["Fit"]


@dataclass(frozen=True, eq=False)
class Fit(WithCovariances, Assessed, Predicting):
    """A fitted system of K equations, P coefficients, k factors.

    covariance : the error covariance that weighted the coefficients, in the user's units.
    y_scale : (K,) the units in which lam_B penalises.
    compressed : the rows that stand for the data, of a fit that read them once; statistics of it cost no read.
    x_rows : (r, q) with x_rows'x_rows = X'X, of a streamed fit that had memory for it.
    sums : residual and total sums of squares of each equation, of a streamed fit.
    system : what was fitted, for statistics that need its rows; not saved.
    n_passes, bytes_read : passes over the data the whole fit took, and decoded bytes they read.
    cov_kind, cov_note, cov_values : the covariance behind std_errors and all that follows, and (P, P) its values where
    `with_cov` chose it, and of a fit to missing responses.
    missing : "raise", "em" or "drop".  n_dropped : rows that "drop" left out: a response missing, or weight zero.
    cells : (K,) rows that show each equation, of a fit to missing responses.  n_patterns : how many patterns those
    have, a lower bound where they were streamed.
    Every array comes as an xarray object with the user's labels. Loadings are fixed by a stated normalisation:
    F' D^-1 F diagonal and descending, the largest entry of each column positive. Those of a group are fixed so among
    themselves; sparse ones are not rotated, only put in descending order of the diagonal, with that sign.
    """

    design: Design
    coefficients: np.ndarray
    covariance: Sigma
    n_obs: int
    loglik: float
    objective: float
    termination: Termination
    history: tuple[TraceRow, ...]
    engine: str
    n_passes: int
    bytes_read: int
    n_starts: int
    n_agreed: int
    lam_B: float
    lam_F: float
    on_floor: tuple[Hashable, ...]
    y_scale: np.ndarray
    x_rows: np.ndarray | None
    compressed: Compressed | None
    sigma_step: str = "ml"
    d_floor: float = 1e-8
    l1: float = 0.0
    candidates: tuple[dict[str, float], ...] = ()
    algorithm: str = "als"
    debiased: bool = False
    restrictions: Restrictions | None = None
    obs_dim: str = "obs"
    equation_dim: str = "equation"
    system: System | None = None
    sums: SumsOfSquares | None = None
    cov_kind: str = "classical"
    cov_note: str = ""
    cov_values: np.ndarray | None = None
    missing: str = "raise"
    n_dropped: int = 0
    n_patterns: int = 0
    cells: np.ndarray | None = None

    def __post_init__(self) -> None:
        of_sigma = [array for array, _ in self.covariance.stored().values()]
        given = [array for array in (self.cov_values, self.cells) if array is not None]
        for array in (self.coefficients, self.y_scale, *of_sigma, *given):
            array.flags.writeable = False

    # ------------------------------------------------------------------------------------------ sizes

    @property
    def rank(self) -> int:
        """k, the number of all factors; 0 for a diagonal Sigma and for an unrestricted one, which have none."""
        return self.covariance.rank

    @property
    def covariance_kind(self) -> str:
        """The kind of Sigma: "lowrank", "diagonal" (also of a fit with rank 0), "full", "sparse", "grouped", ..."""
        return self.covariance.kind

    @property
    def n_parameters(self) -> int:
        """P - m, and of Sigma K k + K - k (k - 1) / 2, K (K + 1) / 2 if unrestricted; zeros do not count."""
        return self.n_coefficients - self.n_restrictions + self.covariance.n_parameters

    @property
    def n_sweeps(self) -> int:
        return self.history[-1].sweep

    # ------------------------------------------------------------------------------------------ estimates

    @cached_property
    def loadings(self) -> xr.DataArray:
        """(equation, factor) F, in units of Y, with Sigma = F F' + diag(d).  Raises ValueError for covariance='full'.

        With GroupedLowRank general factors come first, then those of each group, named by it and zero outside it.
        """
        sigma = self.covariance
        coords = {"equation": self._index, "factor": sigma.factor_labels}
        return xr.DataArray(sigma.loadings(), coords, ("equation", "factor"), name="loadings")

    @cached_property
    def idio_var(self) -> xr.DataArray:
        """(equation,) d, in units of Y squared.  Raises ValueError for covariance='full'."""
        own = self.covariance.own_variances()
        if not len(own):
            raise ValueError(
                f"covariance={self.covariance_kind!r} has no idiosyncratic variances. Use sigma() for the error "
                "covariance."
            )
        return xr.DataArray(own, {"equation": self._index}, ("equation",), name="idio_var")

    def own_cov(self) -> xr.DataArray:
        """(equation, equation_other) Sigma - F F', what factors leave to the equations; raises as `loadings` does."""
        coords = {"equation": self._index, "equation_other": self._index.rename("equation_other")}
        return xr.DataArray(self.covariance.own_part(), coords, ("equation", "equation_other"), name="own_cov")

    def sigma(self) -> xr.DataArray:
        """(equation, equation_other) error covariance; a dense K x K array."""
        coords = {"equation": self._index, "equation_other": self._index.rename("equation_other")}
        return xr.DataArray(self.covariance.dense(), coords, ("equation", "equation_other"), name="sigma")

    @property
    def sigma_diagonal(self) -> np.ndarray:
        """(K,) error variances, without forming Sigma."""
        return self.covariance.variances

    # ------------------------------------------------------------------------------------------ steps

    @cached_property
    def trace(self) -> pd.DataFrame:
        """One row per half-step: nll, objective, step length accept_t, CG iterations, and totals of passes, bytes and
        seconds so far."""
        return pd.DataFrame([asdict(row) for row in self.history])

    @cached_property
    def selection(self) -> pd.DataFrame | None:
        """One row per candidate rank, or l1, when it was chosen by a criterion, which attrs["criterion"] names.

        loglik, aic and bic of the fit to all rows; by cross-validation also cv_nll, the mean negative log-likelihood
        per row left out, its standard error over folds, and each fold's.  tied : within rounding of the least
        criterion; the smallest such rank was chosen.  local_minimum : both neighbours are worse; more than one such
        rank says that the curve is not monotone on either side of the choice.
        """
        if not self.candidates:
            return None
        table = pd.DataFrame(list(self.candidates)).set_index("l1" if "l1" in self.candidates[0] else "rank")
        table.attrs["criterion"] = "cv_nll" if "cv_nll" in table else "bic"
        return table

    # ------------------------------------------------------------------------------------------ inference

    @cached_property
    def _covariance(self) -> CoefficientCovariance:
        refuse_missing(
            self,
            "the covariance behind these standard errors",
            f"The {8e-9 * self.n_coefficients**2:.2f} GB it takes did not fit: fit again with a larger memory_limit, "
            f"or fewer equations; at most {MAX_COEFFICIENTS} coefficients have one",
        )
        x_rows = self.x_rows if self.compressed is None else self.compressed.rows_of_x()
        if x_rows is None:
            raise ValueError(
                "standard errors need X'X, which this streamed fit had no memory for "
                f"({8e-9 * self.design.n_regressors**2:.2f} GB). Fit again with a larger memory_limit."
            )
        return CoefficientCovariance(
            self.design, x_rows, self.covariance, self.n_obs, self.y_scale, self.lam_B, self.restrictions
        )

    def _cov_block(self, equation: int) -> np.ndarray:
        """(p_j, p_j) covariance of the coefficients of the equation at this position, that std_errors come from."""
        if self.cov_values is None:
            if self.cells is not None:
                return self._covariance.block(equation)  # which says why there is none
            return coefficient_covariance(self, CovRequest("classical", equation)).values
        mine = self.design.spans[equation]
        return self.cov_values[mine, mine]

    def _requested(self, request: CovRequest) -> CovValues:
        return coefficient_covariance(self, request)

    @cached_property
    def std_errors(self) -> xr.DataArray:
        """(P,) standard errors: classical ones, at a known Sigma, unless `with_cov` chose others."""
        variances = self._covariance.variances if self.cov_values is None else self.cov_values.diagonal()
        return self._per_coefficient(np.sqrt(variances), "std_errors")

    def _coefficient_cov(self, along: np.ndarray | None = None) -> np.ndarray:
        """(P, P) V that std_errors come from, or along V along' (m, m) for combinations `along` (m, P)."""
        if self.cov_values is not None:
            return self.cov_values if along is None else along @ self.cov_values @ along.T
        return self._covariance.full if along is None else self._covariance.of_combinations(along)

    def bootstrap(
        self,
        n: int = 999,
        method: Method = "parametric",
        *,
        seed: int | None = None,
        system: System | CompressedSystem | None = None,
        groups: Any = None,
        n_blocks: int | None = None,
    ) -> Bootstrap:
        """n refits of Sigma and coefficients on replicated data: standard errors, bias, studentised intervals.

        method : "parametric" draws errors N(0, Sigma) at the fitted model, on the rows that stand for X: no read, the
        same time and memory for any N. "cluster" resamples whole groups of rows, the system's own or `groups` (N,);
        "blocks" resamples n_blocks (50) runs of consecutive rows, for dependence over time. These two read the data
        once and keep (q + K)^2 numbers a group; with "cluster", n_blocks joins groups at random into so many.
        seed : replicate i depends on it and on i alone, whatever the workers; drawn, and kept in the result, if None.
        system : the rows, for a fit that does not hold them. Follows the active Dask client, else threads.

        Every refit starts from this fit and follows its local optimum. Replicates that are singular are left out and
        counted; more than a tenth of them is a FitWarning.
        Raises ValueError for arguments that do not fit together, MemoryError for more groups than memory holds.
        """
        refuse_missing(self, "bootstrap", "Use cov('observed') or, on complete rows, missing='drop'")
        return bootstrap(self, n, method, seed, system, groups, n_blocks)

    def summary(self, *, alpha: float = 0.05, max_rows: int = 200) -> str:
        """The fit in one page of text."""
        return summary(self, alpha=alpha, max_rows=max_rows)

    def _repr_html_(self) -> str:
        """The fit as a notebook shows it."""
        return summary_html(self)

    def __repr__(self) -> str:
        return (
            f"<Fit: {self.n_equations} equations, {self.n_coefficients} coefficients, rank {self.rank}, "
            f"{self.n_obs:,} rows, loglik {self.loglik:.6g}, {self.termination.value}>"
        )

    # ------------------------------------------------------------------------------------------ rows

    def score(self, system: System | CompressedSystem) -> float:
        """Mean log-likelihood per row of these parameters on the rows of a system with the same designs.

        One pass over a System, no read of a compressed one. Of a fit with missing="em" that of what each row shows,
        over the rows that show something: two passes where the patterns of missing responses are many.
        """
        if self.missing == "em" and isinstance(system, System):
            return -observed_nll(self, system.rows)
        if isinstance(system, System):
            system = as_fitted(self, system)
        rows = system.compress().rows
        check_same_design(rows.design, self.design)
        return -mean_nll(rows, self.coefficients, self.covariance)

    # ------------------------------------------------------------------------------------------ files

    def to_zarr(self, path: Any, *, overwrite: bool = False, storage_options: Mapping[str, Any] | None = None) -> None:
        """Write everything but the rows to a zarr group, complete or not at all; 8 (q + K)^2 bytes and a little more.

        Raises FileExistsError where something is at `path`, unless overwrite is True.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "system"}
        options = None if storage_options is None else dict(storage_options)
        write_fit(values, path, overwrite=overwrite, storage_options=options)

    @classmethod
    def from_zarr(cls, path: Any, *, storage_options: Mapping[str, Any] | None = None) -> Fit:
        """A fit as `to_zarr` wrote it, to the last bit."""
        return cls(**read_fit(path, None if storage_options is None else dict(storage_options)))
