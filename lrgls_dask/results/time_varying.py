"""The result of a fit whose factors vary in time: frozen, labelled by segment, made of the parts that every fit has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import xarray as xr
import zarr

from lrgls_dask.checks import takes
from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.data.seal import read_whole
from lrgls_dask.data.zarrio import write_array
from lrgls_dask.design.skipped import Skipped
from lrgls_dask.errors import NoAnswer
from lrgls_dask.inference.structured import FormedCov
from lrgls_dask.prediction.fitted import check_same_design
from lrgls_dask.prediction.methods import Predicting
from lrgls_dask.prediction.skipped import as_estimated
from lrgls_dask.results.across import TestingAcross
from lrgls_dask.results.cov.classical import Classical
from lrgls_dask.results.cov.kind import CovSource, formed
from lrgls_dask.results.dataset import as_dataset
from lrgls_dask.results.html import segments_html
from lrgls_dask.results.older import read_run
from lrgls_dask.results.parts import (
    CLASSICAL,
    BehindErrors,
    Estimated,
    Run,
    Settings,
    read_fingerprint,
    write_fingerprint,
)
from lrgls_dask.results.reported import as_fitted, fitted_rows_of
from lrgls_dask.results.segment_source import SegmentSource
from lrgls_dask.results.skipped import read_skipped, write_skipped
from lrgls_dask.results.store import read_parts, write_parts
from lrgls_dask.results.tables import Tables
from lrgls_dask.results.text import MOST_ROWS, segments_summary
from lrgls_dask.rows.fingerprint import Fingerprint
from lrgls_dask.rows.partition import RowRuns
from lrgls_dask.system import MAKE_ONE, CompressedSystem, System, is_system
from lrgls_dask.varying.labels import parts_of, rows_in_segments
from lrgls_dask.varying.score import segment_score
from lrgls_dask.varying.sigmas import SegmentSigmas

__all__ = ["TimeVaryingFit"]

# A fit is saved with the covariance of its coefficients up to this many, 0.2 GB.
SAVED_UP_TO = 5_000
# What a fit with one Sigma has and this one has not: why not, and what to do.
ONE_SIGMA = (
    "a fit with covariance=TimeVarying(...) has one Sigma for each segment, and rows do not say which is theirs. Use "
    "sigma(segment), or predict(...) with kind='mean'."
)
NOT_FOR_SEGMENTS = (
    "a fit with covariance=TimeVarying(...) has no {name}: it is defined for one Sigma of all rows. Fit a segment by "
    "itself with covariance='lowrank', or use bandwidth=float('inf') to see how far one Sigma goes, and compare bic."
)
NO_ROWS = (
    "a fit with covariance=TimeVarying(...) keeps no rows of its segments when it is saved, so none can be appended. "
    "Fit all rows again."
)
HAS_NOT = dict.fromkeys(("covariance", "predict_given", "impute", "factor_scores"), ONE_SIGMA) | dict.fromkeys(
    (
        "r2",
        "adj_r2",
        "mcelroy_r2",
        "system_r2",
        "lr_test",
        "breusch_pagan",
        "lr_diagonal",
        "rank_test",
        "bootstrap",
        "on_floor",
        "loadings_std_errors",
        "idio_var_std_errors",
        "sigma_std_errors",
    ),
    NOT_FOR_SEGMENTS,
)
HAS_NOT["compressed"] = NO_ROWS


@dataclass(frozen=True, eq=False)
class TimeVaryingFit(Tables, TestingAcross, Predicting):
    """K equations whose P coefficients hold throughout, each of T segments of rows with a Sigma_t of k factors.

    estimated, settings, run, behind_errors : as of a `Fit`; the log-likelihood is that of every row under the Sigma of
    its segment.  sigmas : the error covariances by segment, and how far neighbours counted.
    compressed_segments, system : the compressed rows of each segment, none in a fit opened from disk and none where
    rows have holes, and the rows themselves; not saved.  skipped : the equations that unusable="skip" left out.
    fingerprint : by which they are told from others, segment by segment where they are complete; None in files of
    earlier versions.

    Every array comes as an xarray object with the user's labels. Loadings of the first segment have F' D^-1 F diagonal,
    descending, with the largest entry of each column positive; each later one is rotated to be nearest to the one
    before it.
    """

    estimated: Estimated
    sigmas: SegmentSigmas
    settings: Settings
    run: Run
    behind_errors: BehindErrors = CLASSICAL
    compressed_segments: tuple[Compressed, ...] = ()
    system: System | None = None
    skipped: Skipped | None = None
    fingerprint: Fingerprint | None = None

    def __getattr__(self, name: str) -> NoReturn:
        if name in HAS_NOT:
            raise NoAnswer(HAS_NOT[name].format(name=name))
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # ------------------------------------------------------------------------------------------ estimates

    @property
    def segments(self) -> pd.Index:
        """(T,) labels of the segments."""
        return self.sigmas.labels

    @property
    def n_segments(self) -> int:
        """T."""
        return len(self.sigmas)

    @property
    def edges(self) -> np.ndarray:
        """(T + 1,) the first row of each segment, the last is the number of rows, those of weight zero included."""
        return self.sigmas.edges

    @property
    def rows(self) -> np.ndarray:
        """(T,) rows of positive weight in each segment that show some equation."""
        return self.sigmas.rows

    @property
    def rank(self) -> int:
        """k."""
        return self.sigmas.rank

    @property
    def bandwidth(self) -> float:
        """How many segments away a neighbour still counts."""
        return self.sigmas.bandwidth

    @property
    def n_parameters(self) -> float:
        """P less the restrictions, and those of the Sigmas."""
        return self.n_coefficients - self.n_restrictions + self.sigmas.n_parameters

    @property
    def _shown(self) -> np.ndarray:
        return np.asarray(self.sigmas.cells.sum(axis=0))

    @cached_property
    def loadings(self) -> xr.DataArray:
        """(segment, equation, factor) F_t, in units of Y."""
        coords = {"segment": self.segments, "factor": np.arange(1, self.rank + 1)}
        return self._labelled(self.sigmas.loadings, ("segment", "equation", "factor"), "loadings", coords)

    @cached_property
    def idio_var(self) -> xr.DataArray:
        """(segment, equation) d_t, in units of Y squared."""
        return self._labelled(self.sigmas.idio_var, ("segment", "equation"), "idio_var", {"segment": self.segments})

    def to_dataset(self) -> xr.Dataset:
        """The coefficients with their errors, loadings and own variances on the user's dims, as `Fit.to_dataset`; the
        last two along `segment` too."""
        return as_dataset(self)

    def sigma(self, segment: Any) -> xr.DataArray:
        """(equation, equation_other) error covariance of the rows of one segment, by its label; a dense K x K array."""
        dense = self.sigmas.at(segment).dense()
        return self._labelled(dense, ("equation", "equation_other"), "sigma", attrs={"segment": segment})

    @cached_property
    def trace(self) -> pd.DataFrame:
        """One row per sweep: the local likelihood sum_t (n_t / N) nll(Sigma_t; S_t(h)), in standard units."""
        local = [row.nll for row in self.run.history if row.step == "sigma"]
        return pd.DataFrame({"local_nll": local}, index=pd.RangeIndex(1, len(local) + 1, name="sweep"))

    @cached_property
    def selection(self) -> pd.DataFrame | None:
        """One row per bandwidth, where it was chosen: `held_out_nll` per row of segments left out of their Sigma_t."""
        if not self.run.candidates:
            return None
        table = pd.DataFrame(list(self.run.candidates)).set_index("bandwidth")
        table.attrs["criterion"] = "held_out_nll"
        return table

    # ------------------------------------------------------------------------------------------ inference

    @property
    def _source(self) -> CovSource:
        return SegmentSource(self)

    @cached_property
    def _classical(self) -> FormedCov:
        if not self.compressed_segments:
            raise ValueError(
                f"this fit was saved without the covariance of its {self.n_coefficients:,} coefficients, more than "
                f"{SAVED_UP_TO:,}. Use with_cov(..., system=...), or fit again."
            )
        return FormedCov(self.design, formed(self._computed(Classical(), None, None).values))

    def _cov_block(self, equation: int) -> np.ndarray:
        return self._behind.block(equation)

    def _fitted_rows(self, kind: str, system: System | None) -> System:
        return fitted_rows_of(self, kind, system)

    def _error_variances(self) -> np.ndarray:
        raise ValueError(ONE_SIGMA)

    # ------------------------------------------------------------------------------------------ rows

    @takes("a System, whose likelihood it is", f"{MAKE_ONE}.", check=is_system)
    def score(self, system: System | CompressedSystem, segments: Any = None) -> float:
        """Mean log-likelihood per row of these parameters on the rows of a system with the same designs; one pass.

        segments : of these rows, as of `TimeVarying`: labels, or what they are called in the system; not needed for
        the very system that was fitted. All must have been fitted; rows may come in any order. T (q + K)^2 numbers.
        Raises ValueError for a segment that was not fitted, naming it, for other designs and for a compressed system.
        """
        system = rows_in_segments(system)
        mine = as_estimated(system, self.skipped)
        check_same_design(mine.design.given, self.design.given)
        seen = as_fitted(self, mine)
        rows = seen.rows
        if segments is not None:
            parts, numbers = parts_of(segments, seen, self.segments)
            return segment_score(rows, parts, numbers, self.coefficients, self.sigmas, holes=self.missing == "em")
        if system is not self.system:
            raise ValueError(
                "these are not the rows that were fitted, so their segments are not known. Pass segments=, one label "
                f"for each of {system.n_obs} rows, or what they are called in this system."
            )
        runs, numbers = RowRuns(self.sigmas.edges), np.arange(self.n_segments)
        return segment_score(rows, runs, numbers, self.coefficients, self.sigmas, holes=self.missing == "em")

    # ------------------------------------------------------------------------------------------ text, files

    def summary(self, *, alpha: float = 0.05, max_rows: int = MOST_ROWS, all: bool = False) -> str:
        """The fit in one page of text, see `Fit.summary`."""
        return segments_summary(self, self._of_sigma, alpha=alpha, max_rows=None if all else max_rows)

    def _repr_html_(self) -> str:
        """The fit as a notebook shows it."""
        return segments_html(self, self._of_sigma)

    @property
    def _of_sigma(self) -> list[tuple[str, str]]:
        said = [
            ("Factors (rank)", f"{self.rank}"),
            ("nll per row", f"{self.nll:.8f}"),
            ("Segments", f"{self.n_segments:,}, {self.segments[0]} to {self.segments[-1]}"),
            ("Bandwidth", f"{self.bandwidth:g}{' by held-out likelihood' if self.run.candidates else ''}"),
        ]
        if self.sigmas.has_holes:
            seen, cells = int(self.sigmas.cells.sum()), self.n_obs * self.n_equations
            said.append(("Missing", f"{cells - seen:,} of {cells:,} ({1 - seen / cells:.1%})"))
        return said

    def __repr__(self) -> str:
        return (
            f"<TimeVaryingFit: {self.n_equations} equations, {self.n_coefficients} coefficients, rank {self.rank}, "
            f"{self.n_segments} segments, bandwidth {self.bandwidth:g}, {self.n_obs:,} rows, loglik {self.loglik:.6g}, "
            f"{self.termination.value}>"
        )

    def to_zarr(self, path: Any, *, overwrite: bool = False, storage_options: Mapping[str, Any] | None = None) -> None:
        """Write everything but the rows to a zarr group, complete or not at all.

        8 P^2 bytes for the covariance of up to 5,000 coefficients, none for more, and 8 T K (k + 1).
        Raises FileExistsError where something is at `path`, unless overwrite is True; ValueError where `path` is, holds
        or lies in a store of the fitted rows.
        """
        behind = self.behind_errors
        if self.n_coefficients > SAVED_UP_TO:
            behind = replace(behind, values=None)
        elif behind.values is None:
            behind = replace(behind, values=self._behind.full)

        def write(group: zarr.Group) -> None:
            for part in (self.estimated, self.sigmas, self.settings, self.run, behind):
                part.write(group)
            write_skipped(group, self.skipped)
            write_fingerprint(group, self.fingerprint)
            write_array(group, "history", self.trace["local_nll"].to_numpy(), ("sweep",))
            for name in ("bandwidth", "held_out_nll"):
                tried = np.array([row[name] for row in self.run.candidates])
                write_array(group, f"tried_{name}", tried, ("candidate",))

        options: dict[str, Any] = {"overwrite": overwrite, "storage_options": storage_options}
        write_parts(path, "timevarying", write, apart_from=self._read_from, **options)

    @classmethod
    def from_zarr(cls, path: Any, *, storage_options: Mapping[str, Any] | None = None) -> TimeVaryingFit:
        """A fit as `to_zarr` wrote it. Raises FileNotFoundError or ValueError for what is none."""
        group = read_parts(path, "timevarying", "time-varying fit", storage_options)
        return read_whole(path, "time-varying fit", lambda: cls._read(group))

    @classmethod
    def _read(cls, group: zarr.Group) -> TimeVaryingFit:
        estimated, sigmas = Estimated.read(group), SegmentSigmas.read(group)
        parts = Settings.read(group), read_run(group, sigmas.rank), BehindErrors.read(group)
        return cls(estimated, sigmas, *parts, skipped=read_skipped(group), fingerprint=read_fingerprint(group))
