"""The result of a fit: frozen, labelled, made of parts, saved and opened without pickles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
import zarr

from lrgls_dask.checks import takes
from lrgls_dask.compression.compressed import Compressed, mean_nll
from lrgls_dask.compression.either import complete_rows
from lrgls_dask.compression.narrowed import widened_compressed
from lrgls_dask.data.places import Location
from lrgls_dask.data.seal import read_whole
from lrgls_dask.design.skipped import Skipped, unusable_equations
from lrgls_dask.inference.classical import CoefficientCovariance
from lrgls_dask.inference.least_squares import LeastSquaresCovariance
from lrgls_dask.missing.covariance import observed_nll
from lrgls_dask.prediction.effects import effects_dataset, with_effects_of_fit
from lrgls_dask.prediction.fitted import check_same_design
from lrgls_dask.prediction.methods import PredictingBySigma
from lrgls_dask.prediction.skipped import as_estimated
from lrgls_dask.results.across import TestingAcrossOneSigma
from lrgls_dask.results.bootstrap import Bootstrap, Method, bootstrap
from lrgls_dask.results.by_passes import by_passes
from lrgls_dask.results.cov.kind import CovSource, cut
from lrgls_dask.results.cov_source import ClassicalCov
from lrgls_dask.results.dataset import as_dataset
from lrgls_dask.results.evidence import Evidence, read_evidence
from lrgls_dask.results.html import summary_html
from lrgls_dask.results.parts import CLASSICAL, BehindErrors, Estimated, OneSigma, Run, Settings
from lrgls_dask.results.reported import fitted_rows_of
from lrgls_dask.results.skipped import read_skipped, write_skipped
from lrgls_dask.results.store import read_parts, write_parts
from lrgls_dask.results.tables import Tables
from lrgls_dask.results.text import MOST_ROWS, summary
from lrgls_dask.system import MAKE_ONE, CompressedSystem, System, is_system

__all__ = ["Fit"]


@dataclass(frozen=True, eq=False)
class Fit(Tables, TestingAcrossOneSigma, PredictingBySigma):
    """A fitted system of K equations, P coefficients, k factors.

    estimated : the coefficients, from how many rows, their likelihood.  one_sigma : the error covariance that weighted
    them.  settings : the options it was made with.  run : how the iterations went.  evidence : what statistics may draw
    on without a read: compressed rows, sums of a streamed fit, or counts of rows with holes.
    behind_errors : the covariance behind std_errors and all that follows.
    skipped : the equations that unusable="skip" left out, of which every result has NaN; None where there are none.
    system : what was fitted, for statistics that need its rows or, where these miss responses, those of every pattern.
    read_from : of a compressed system, where its rows came from, which nothing is written over.  Neither is saved.

    Every array comes as an xarray object with the user's labels. Loadings are fixed by a stated normalisation:
    F' D^-1 F diagonal and descending, the largest entry of each column positive. Those of a group are fixed so among
    themselves; sparse ones are not rotated, only put in descending order of the diagonal, with that sign.
    """

    estimated: Estimated
    one_sigma: OneSigma
    settings: Settings
    run: Run
    evidence: Evidence
    behind_errors: BehindErrors = CLASSICAL
    system: System | CompressedSystem | None = None
    skipped: Skipped | None = None
    read_from: frozenset[Location] = frozenset()

    # ------------------------------------------------------------------------------------------ of the parts

    @property
    def objective(self) -> float:
        """What was minimised, per row: nll and penalties."""
        return self.estimated.objective

    @property
    def engine(self) -> str:
        """How the rows were read: "compress" or "stream"."""
        return self.run.engine

    @property
    def n_starts(self) -> int:
        """Starting points that were tried."""
        return self.run.n_starts

    @property
    def n_agreed(self) -> int:
        """How many of them led to this optimum."""
        return self.run.n_agreed

    @property
    def trace(self) -> pd.DataFrame:
        """One row per half-step: nll, objective, step length accept_t, CG iterations, totals of passes, bytes and
        seconds so far, and in read_for what the passes since the row before were for, "" where there were none."""
        return self.run.trace

    @cached_property
    def selection(self) -> pd.DataFrame | None:
        """One row per candidate rank, or l1, when it was chosen by a criterion, which attrs["criterion"] names.

        loglik, aic and bic of the fit to all rows; of streamed fits, and of those that maximise no likelihood (in one
        step, debiased, by principal components), of factor analysis of the OLS residuals. Where rows that miss
        responses are streamed or held, all candidates are fitted side by side, and one that cannot become the best any
        more is left a little short of its optimum. By cross-validation also
        cv_nll, the mean negative log-likelihood per row left out, its standard error over folds, and each fold's.
        tied : within rounding of the least criterion; the smallest such rank was chosen.  local_minimum : both
        neighbours are worse; more than one such rank says that the curve is not monotone on either side of the choice.
        on_floor : own variances on their floor, where improper="avoid" chose among those without.
        By eigenvalues of the OLS residuals, in standard units, each rank's last eigenvalue and, "parallel", the
        threshold that it is above where the factor counts; by ratios eigenvalue_ratio and, beside it, growth_ratio.
        """
        candidates = self.run.candidates
        if not candidates:
            return None
        table = pd.DataFrame(list(candidates)).set_index("l1" if "l1" in candidates[0] else "rank")
        ways = {"cv_nll": "cv_nll", "threshold": "parallel", "eigenvalue_ratio": "eigenvalue_ratio"}
        table.attrs["criterion"] = next((way for name, way in ways.items() if name in table), "bic")
        return table

    # ------------------------------------------------------------------------------------------ inference

    @cached_property
    def _classical(self) -> ClassicalCov:
        at, how = self.estimated, self.settings
        if not self.evidence.knows_products:
            if self.system is None:
                raise ValueError(
                    "standard errors need X'X, which this streamed fit had no memory for, or its rows, which a fit "
                    "opened from a file does not hold. Use with_cov('classical', system=...) with the fitted data."
                )
            return by_passes(self, self._fitted_rows("classical", None), self.evidence.fingerprint)
        x_rows, scale = self.evidence.x_rows(at), self.one_sigma.y_scale
        made = LeastSquaresCovariance if how.algorithm == "ols" else CoefficientCovariance
        limit = how.options.get("memory_limit")
        return made(at.design, x_rows, self.covariance, at.n_obs, scale, how.lam_B, how.restrictions, limit)

    @property
    def _source(self) -> CovSource:
        return self.evidence.source(self)

    def _cov_block(self, equation: int) -> np.ndarray:
        """(p_j, p_j) covariance of the coefficients of the equation at this position, that std_errors come from."""
        values = self.behind_errors.values
        if values is None:
            return self._classical.block_of_all(equation)  # or why there is none
        return cut(self._source, equation, values)

    def _fitted_rows(self, kind: str, system: System | None) -> System:
        return fitted_rows_of(self, kind, system)

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
        "blocks" resamples n_blocks (50) runs of consecutive rows, for dependence over time; labels, if there are any,
        must ascend. These two read the data once and keep (q + K)^2 numbers a group; with "cluster", n_blocks joins
        groups at random into so many. Groups and blocks without a row that was fitted are none.
        seed : replicate i depends on it and on i alone, whatever the workers; drawn, and kept in the result, if None.
        system : the fitted rows, for a fit that does not hold them; others are refused. Follows the active Dask client,
        else threads.
        With missing responses every row keeps its holes: errors are drawn for what it shows, a group is resampled with
        them. "parametric" reads the rows once too where they were not compressed by few patterns. They are taken
        together by patterns, or held where these are many, and a refit looks at all of them some tens of times.

        Effects that were absorbed are found anew in every replicate, a group that is drawn in parts from these.

        Every refit starts from this fit and follows its local optimum. Replicates that are singular are left out and
        counted; more than a tenth of them is a FitWarning.
        Raises ValueError for arguments that do not fit together and for rows of too many patterns of missing responses
        to be held, MemoryError for more groups than memory holds.
        """
        return bootstrap(self, n, method, seed, system, groups, n_blocks)

    def to_dataset(self) -> xr.Dataset:
        """Everything that is one number for each equation, or for each of its regressors, on the dims of the responses.

        params, std_errors, tvalues, pvalues : (equation, regressor), NaN where an equation does not have it; r2,
        adj_r2, idio_var : (equation,); loadings : (equation, factor), in the units of the attributes they are named
        after. The dim of equations has the user's name; where equations lie on several dims, latitude and longitude
        say, these stand in its place. What cannot be had is left out and said in attrs["missing"]. No read.
        """
        return as_dataset(self)

    def effects(self) -> xr.Dataset:
        """`effect_<label>` (label, equation) for each label that was absorbed: what its groups add to the responses.

        Those of the first label hold the intercept; where there are several, a constant may move between them. NaN for
        groups without rows, and for skipped equations. Raises ValueError where nothing was absorbed.
        """
        return effects_dataset(self.design, self.coefficients, self.equation_dim, self.skipped)

    def summary(self, *, alpha: float = 0.05, max_rows: int = MOST_ROWS, all: bool = False) -> str:
        """The fit in one page of text: how it ended, what needs attention, some coefficients and equations.

        max_rows : coefficients at most: where there are more, those of equations evenly spaced in their order; the page
        says so, and of how many. Standard errors of the others are not computed where that costs, see `tidy`.
        all : every coefficient and equation.
        """
        return summary(self, alpha=alpha, max_rows=None if all else max_rows)

    def _repr_html_(self) -> str:
        """The fit as a notebook shows it."""
        return summary_html(self)

    def __repr__(self) -> str:
        return (
            f"<Fit: {self.n_equations} equations, {self.n_coefficients} coefficients, rank {self.rank}, "
            f"{self.n_obs:,} rows, loglik {self.loglik:.6g}, {self.termination.value}>"
        )

    # ------------------------------------------------------------------------------------------ rows

    def compressed(self) -> CompressedSystem:
        """The few rows that stand for those that were fitted, to append others and fit all, without the old data.

        LowRankGLS(**fit.options).fit(fit.compressed().append(new)).result_ is the fit of all rows; so it is of a fit
        that was saved. Costs no read, and no memory besides the fit's.
        Equations that unusable="skip" left out because no row shows them are there, and may be shown by other rows.
        Raises ValueError for a fit that keeps none: a streamed one, one of too many patterns of missing responses, one
        that left out equations of which there are rows.
        """
        at, skipped = self.estimated, self.skipped
        if skipped is not None and not skipped.can_be_shown:
            raise ValueError(
                f"appending rows to a fit needs those of all equations, and this one left out "
                f"{unusable_equations(skipped.whole.equations, skipped.status)}. Keep system.compress() "
                "besides, with to_zarr, and append to that."
            )
        rows = self.evidence.kept(at)
        rows = rows if skipped is None else widened_compressed(rows, skipped)
        return CompressedSystem(rows, at.obs_dim, at.equation_dim, self._read_from, at.formulas)

    @takes("a System, whose likelihood it is", f"{MAKE_ONE}.", check=is_system)
    def score(self, system: System | CompressedSystem) -> float:
        """Mean log-likelihood per row of these parameters on the rows of a system with the same designs, and weights of
        its own: Sigma is that of weight one.

        One pass over a System, no read of a compressed one. Of a fit with missing="em" that of what each row shows,
        over the rows that show something: two passes where the patterns of missing responses are many.
        Where effects were absorbed a System that absorbs the same labels, whose effects are those of the fit; groups
        that it did not have are named by a ValueError.
        """
        system = as_estimated(system, self.skipped)
        if self.design.absorbed is not None:
            if isinstance(system, CompressedSystem):
                raise TypeError(
                    "a compressed system holds none of the groups of its rows. Pass the System it was made of."
                )
            system = replace(system, rows=with_effects_of_fit(self.design, system.rows))
        if self.missing == "em" and not isinstance(system.rows, Compressed):
            return -observed_nll(system.rows, self.design, self.coefficients, self.covariance)
        rows = complete_rows(system, self.missing)
        check_same_design(rows.design.given, self.design.given)
        return -mean_nll(rows, self.coefficients, self.covariance)

    # ------------------------------------------------------------------------------------------ files

    def to_zarr(self, path: Any, *, overwrite: bool = False, storage_options: Mapping[str, Any] | None = None) -> None:
        """Write everything but the rows to a zarr group, complete or not at all; 8 (q + K)^2 bytes and a little more.

        Raises FileExistsError where something is at `path`, unless overwrite is True; ValueError where `path` is, holds
        or lies in a store of the fitted rows.
        """
        options: dict[str, Any] = {"overwrite": overwrite, "storage_options": storage_options}
        write_parts(path, "fit", self._write, apart_from=self._read_from, **options)

    @property
    def _read_from(self) -> frozenset[Location]:
        return self.read_from if self.system is None else self.system.read_from

    def _write(self, group: zarr.Group) -> None:
        self.estimated.write(group)
        self.one_sigma.write(group, self.design)
        for part in (self.settings, self.run, self.evidence, self.behind_errors):
            part.write(group)
        write_skipped(group, self.skipped)
        group.attrs["n_patterns"] = self.n_patterns

    @classmethod
    def from_zarr(cls, path: Any, *, storage_options: Mapping[str, Any] | None = None) -> Fit:
        """A fit as `to_zarr` wrote it, to the last bit. Raises FileNotFoundError or ValueError for what is none."""
        group = read_parts(path, "fit", "fit", storage_options)
        return read_whole(path, "fit", lambda: cls._read(group))

    @classmethod
    def _read(cls, group: zarr.Group) -> Fit:
        estimated = Estimated.read(group)
        return cls(
            estimated,
            OneSigma.read(group, estimated.design),
            Settings.read(group),
            Run.read(group),
            read_evidence(group, estimated.design),
            BehindErrors.read(group),
            skipped=read_skipped(group),
        )
