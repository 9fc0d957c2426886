"""The result of a fit whose factors vary in time: frozen, labelled by segment, saved and opened without pickles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
import zarr

from lrgls_dask.data.labels import decode_labels, encode_labels
from lrgls_dask.data.storage import new_store, open_group
from lrgls_dask.data.zarrio import check_version, read_array, read_design, write_array, write_design
from lrgls_dask.design.design import Design
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.prediction.methods import Predicting
from lrgls_dask.results.cov_kinds import CovRequest, CovValues
from lrgls_dask.results.segment_cov import segment_covariance
from lrgls_dask.results.store import read_restrictions, write_restrictions
from lrgls_dask.results.text import WIDTH, coefficient_lines, pairs
from lrgls_dask.results.with_cov import WithCovariances
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.solve.record import Termination
from lrgls_dask.system import CompressedSystem, System
from lrgls_dask.varying.labels import rows_in_segments
from lrgls_dask.varying.loop import TimeVaryingSolution
from lrgls_dask.varying.score import segment_score

__all__ = ["TimeVaryingFit"]

FORMAT = 1
SCALARS = ("n_obs", "bandwidth", "loglik", "n_sigma_parameters", "lam_B", "n_passes", "bytes_read", "obs_dim")
LATER = {"cov_kind": "classical", "cov_note": "", "missing": "raise", "n_dropped": 0}  # not in the oldest files
# A fit is saved with the covariance of its coefficients up to this many, 0.2 GB.
SAVED_UP_TO = 5_000


@dataclass(frozen=True, eq=False)
class TimeVaryingFit(WithCovariances, Predicting):
    """K equations whose P coefficients hold throughout, each of T segments of rows with a Sigma_t of k factors.

    factor_loadings : (T, K, k), idiosyncratic : (T, K), in the user's units.  rows : (T,) rows of each segment.
    n_sigma_parameters : between those of one Sigma (infinite bandwidth) and of T (bandwidth 0).
    loglik, nll : every row under the Sigma of its segment.
    history : per sweep the mean local likelihood nll, in standard units.
    candidates : of a bandwidth that was chosen, one row for each that was tried.
    edges : (T + 1,) the first row of each segment, the last is the number of rows, those of weight zero included.
    solution, system : the compressed segments behind the fit, and its rows; not saved.
    cov_kind, cov_note, cov_values : the covariance behind std_errors and all that follows, and (P, P) its values where
    `with_cov` chose it or they were saved.  missing, n_dropped : as of a `Fit`.
    Every array comes as an xarray object with the user's labels. Loadings of the first segment have F' D^-1 F diagonal,
    descending, with the largest entry of each column positive; each later one is rotated to be nearest to the one
    before it.
    """

    design: Design
    coefficients: np.ndarray
    factor_loadings: np.ndarray
    idiosyncratic: np.ndarray
    segments: pd.Index
    rows: np.ndarray
    n_obs: int
    bandwidth: float
    loglik: float
    n_sigma_parameters: float
    termination: Termination
    history: tuple[float, ...]
    lam_B: float
    n_passes: int
    bytes_read: int
    edges: np.ndarray
    candidates: tuple[dict[str, float], ...] = ()
    restrictions: Restrictions | None = None
    obs_dim: str = "obs"
    equation_dim: str = "equation"
    solution: TimeVaryingSolution | None = None
    system: System | None = None
    cov_kind: str = "classical"
    cov_note: str = ""
    cov_values: np.ndarray | None = None
    missing: str = "raise"
    n_dropped: int = 0

    def __post_init__(self) -> None:
        for array in (self.coefficients, self.factor_loadings, self.idiosyncratic, self.rows, self.edges):
            array.flags.writeable = False

    # ------------------------------------------------------------------------------------------ estimates

    @property
    def n_segments(self) -> int:
        """T."""
        return len(self.segments)

    @property
    def rank(self) -> int:
        """k."""
        return int(self.factor_loadings.shape[2])

    @cached_property
    def loadings(self) -> xr.DataArray:
        """(segment, equation, factor) F_t, in units of Y."""
        coords = {"segment": self.segments, "equation": self._index, "factor": np.arange(1, self.rank + 1)}
        return xr.DataArray(self.factor_loadings, coords, ("segment", "equation", "factor"), name="loadings")

    @cached_property
    def idio_var(self) -> xr.DataArray:
        """(segment, equation) d_t, in units of Y squared."""
        coords = {"segment": self.segments, "equation": self._index}
        return xr.DataArray(self.idiosyncratic, coords, ("segment", "equation"), name="idio_var")

    def sigma(self, segment: Any) -> xr.DataArray:
        """(equation, equation_other) error covariance of the rows of one segment, by its label; a dense K x K array."""
        coords = {"equation": self._index, "equation_other": self._index.rename("equation_other")}
        dense = self._sigma_at(segment).dense()
        return xr.DataArray(dense, coords, ("equation", "equation_other"), name="sigma", attrs={"segment": segment})

    def _sigma_at(self, segment: Any) -> LowRank:
        try:
            t = self.segments.get_loc(segment)
        except KeyError:
            shown = ", ".join(map(str, self.segments[:5]))
            raise KeyError(f"no segment {segment!r}; the first are {shown}") from None
        return LowRank(self.factor_loadings[t], self.idiosyncratic[t])

    @property
    def covariance(self) -> Sigma:  # type: ignore[override]
        """Raises ValueError: there is one for each segment."""
        raise ValueError(
            "a fit with covariance=TimeVarying(...) has one Sigma for each segment, and rows do not say which is "
            "theirs. Use sigma(segment), or predict(...) with kind='mean'."
        )

    # ------------------------------------------------------------------------------------------ measures

    @property
    def n_parameters(self) -> float:
        """P less the restrictions, and those of the Sigmas."""
        return self.n_coefficients - self.n_restrictions + self.n_sigma_parameters

    @property
    def n_sweeps(self) -> int:
        return len(self.history)

    @cached_property
    def trace(self) -> pd.DataFrame:
        """One row per sweep: the local likelihood sum_t (n_t / N) nll(Sigma_t; S_t(h)), in standard units."""
        sweeps = pd.RangeIndex(1, self.n_sweeps + 1, name="sweep")
        return pd.DataFrame({"local_nll": list(self.history)}, index=sweeps)

    @cached_property
    def selection(self) -> pd.DataFrame | None:
        """One row per bandwidth, where it was chosen: `held_out_nll` per row of segments left out of their Sigma_t."""
        if not self.candidates:
            return None
        table = pd.DataFrame(list(self.candidates)).set_index("bandwidth")
        table.attrs["criterion"] = "held_out_nll"
        return table

    # ------------------------------------------------------------------------------------------ inference

    @cached_property
    def _covariance_values(self) -> np.ndarray:
        if self.cov_values is None and self.solution is None:
            raise ValueError(
                f"this fit was saved without the covariance of its {self.n_coefficients:,} coefficients, more than "
                f"{SAVED_UP_TO:,}. Use with_cov(..., system=...), or fit again."
            )
        return segment_covariance(self, CovRequest("classical")).values if self.cov_values is None else self.cov_values

    def _coefficient_cov(self, along: np.ndarray | None = None) -> np.ndarray:
        values = self._covariance_values
        return values if along is None else along @ values @ along.T

    def _cov_block(self, equation: int) -> np.ndarray:
        mine = self.design.spans[equation]
        return self._covariance_values[mine, mine]

    def _requested(self, request: CovRequest) -> CovValues:
        return segment_covariance(self, request)

    @cached_property
    def std_errors(self) -> xr.DataArray:
        """(P,) standard errors: classical ones, at known Sigma_t, unless `with_cov` chose others."""
        variances = np.maximum(self._covariance_values.diagonal(), 0.0)  # rounding, where a restriction fixes one
        return self._per_coefficient(np.sqrt(variances), "std_errors")

    # ------------------------------------------------------------------------------------------ rows

    def score(self, system: System | CompressedSystem, segments: Any = None) -> float:
        """Mean log-likelihood per row of these parameters on the rows of a system with the same designs; one pass.

        segments : of these rows, as of `TimeVarying`: labels, or what they are called in the system; not needed for
        the very system that was fitted. All must have been fitted; rows may come in any order. T (q + K)^2 numbers.
        Raises ValueError for a segment that was not fitted, naming it, for other designs and for a compressed system.
        """
        return segment_score(self, rows_in_segments(system), segments)

    # ------------------------------------------------------------------------------------------ text, files

    def summary(self, *, alpha: float = 0.05, max_rows: int = 200) -> str:
        """The fit in one page of text."""
        title = "Seemingly unrelated regressions, Sigma_t = F_t F_t' + diag(d_t) for each segment; local ML"
        header = [
            ("Observations", f"{self.n_obs:,}"),
            ("Log-likelihood", f"{self.loglik:.6g}" if abs(self.loglik) < 1e5 else f"{self.loglik:,.2f}"),
            ("Equations", f"{self.n_equations:,}"),
            ("AIC", f"{self.aic:,.2f}"),
            ("Coefficients", f"{self.n_coefficients:,}"),
            ("BIC", f"{self.bic:,.2f}"),
            ("Factors (rank)", f"{self.rank}"),
            ("nll per row", f"{self.nll:.8f}"),
            ("Segments", f"{self.n_segments:,}, {self.segments[0]} to {self.segments[-1]}"),
            ("Bandwidth", f"{self.bandwidth:g}{' by held-out likelihood' if self.candidates else ''}"),
            ("Reads", f"{self.n_passes} pass{'' if self.n_passes == 1 else 'es'} over the data"),
            ("Restrictions", f"{self.n_restrictions}"),
            ("Std errors", f"{self.cov_kind}{f' ({self.cov_note})' if self.cov_note else ''}"),
            ("Ended", f"{self.termination.value} after {self.n_sweeps} sweep{'' if self.n_sweeps == 1 else 's'}"),
        ]
        table = coefficient_lines(self, alpha, max_rows)
        notes = [f"Restriction: {text}" for text in (() if self.restrictions is None else self.restrictions.texts)]
        if self.missing == "drop":
            notes.append(f"Rows left out for a missing response: {self.n_dropped:,}")
        return "\n".join([title, "=" * WIDTH, *pairs(header), "-" * WIDTH, *table, "=" * WIDTH, *notes])

    def __repr__(self) -> str:
        return (
            f"<TimeVaryingFit: {self.n_equations} equations, {self.n_coefficients} coefficients, rank {self.rank}, "
            f"{self.n_segments} segments, bandwidth {self.bandwidth:g}, {self.n_obs:,} rows, loglik {self.loglik:.6g}, "
            f"{self.termination.value}>"
        )

    def to_zarr(self, path: Any, *, overwrite: bool = False, storage_options: Mapping[str, Any] | None = None) -> None:
        """Write everything but the rows to a zarr group, complete or not at all.

        8 P^2 bytes for the covariance of up to 5,000 coefficients, none for more, and 8 T K (k + 1).
        Raises FileExistsError where something is at `path`, unless overwrite is True.
        """
        options = None if storage_options is None else dict(storage_options)
        labels, kind = encode_labels(self.segments, "segment labels")
        with new_store(path, overwrite=overwrite, storage_options=options) as store:
            group = zarr.open_group(store, mode="w", zarr_format=3)
            write_design(group, self.design)
            write_array(group, "params", self.coefficients, ("coefficient",))
            write_array(group, "loadings", self.factor_loadings, ("segment", "equation", "factor"))
            write_array(group, "idio_var", self.idiosyncratic, ("segment", "equation"))
            write_array(group, "segment", labels, ("segment",), **kind)
            write_array(group, "rows", self.rows, ("segment",))
            write_array(group, "edges", self.edges, ("edge",))
            write_array(group, "history", np.array(self.history), ("sweep",))
            for name in ("bandwidth", "held_out_nll"):
                tried = np.array([row[name] for row in self.candidates])
                write_array(group, f"tried_{name}", tried, ("candidate",))
            if self.restrictions is not None:
                write_restrictions(group, self.restrictions)
            if self.n_coefficients <= SAVED_UP_TO:
                write_array(group, "cov", self._covariance_values, ("coefficient", "coefficient_other"))
            # an infinite bandwidth is no number in JSON
            group.attrs.update({name: getattr(self, name) for name in SCALARS} | {"bandwidth": repr(self.bandwidth)})
            group.attrs.update({name: getattr(self, name) for name in LATER})
            group.attrs.update(equation_dim=self.equation_dim, termination=self.termination.value)
            group.attrs["lrgls_timevarying_format"] = FORMAT

    @classmethod
    def from_zarr(cls, path: Any, *, storage_options: Mapping[str, Any] | None = None) -> TimeVaryingFit:
        """A fit as `to_zarr` wrote it. Raises FileNotFoundError or ValueError for what is none."""
        group = open_group(path, None if storage_options is None else dict(storage_options))
        check_version(group, "lrgls_timevarying_format", FORMAT, path, "time-varying fit")
        attributes: dict[str, Any] = dict(group.attrs)
        rows = read_array(group, "rows")
        tried = (read_array(group, f"tried_{name}").tolist() for name in ("bandwidth", "held_out_nll"))
        return cls(
            design=read_design(group),
            coefficients=read_array(group, "params"),
            factor_loadings=read_array(group, "loadings"),
            idiosyncratic=read_array(group, "idio_var"),
            segments=pd.Index(
                decode_labels(read_array(group, "segment"), dict(group["segment"].attrs)), name="segment"
            ),
            rows=rows,
            # the oldest files have none, and there rows of weight zero are not counted
            edges=read_array(group, "edges") if "edges" in group else np.concatenate([[0], np.cumsum(rows)]),
            termination=Termination(attributes["termination"]),
            history=tuple(read_array(group, "history").tolist()),
            candidates=tuple({"bandwidth": h, "held_out_nll": v} for h, v in zip(*tried, strict=True)),
            restrictions=read_restrictions(group),
            equation_dim=attributes["equation_dim"],
            cov_values=read_array(group, "cov") if "cov" in group else None,
            **{name: attributes[name] for name in SCALARS} | {"bandwidth": float(attributes["bandwidth"])},
            **{name: attributes.get(name, default) for name, default in LATER.items()},
        )
