"""What a fit whose factors vary in time answers to the kinds of covariances of its coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.compression.parts import compress_parts
from lrgls_dask.design.design import Design
from lrgls_dask.inference.bread_of_rows import BreadOfRows
from lrgls_dask.inference.gradient_kernels import SigmaRuns
from lrgls_dask.inference.segmented import SegmentedBread
from lrgls_dask.results.cov.kind import CovKind, cut
from lrgls_dask.results.cov.registry import KINDS
from lrgls_dask.results.cov_source import FitSource, Made, check_debiased, degrees
from lrgls_dask.results.parts import BehindErrors
from lrgls_dask.rows.fingerprint import Fingerprint
from lrgls_dask.rows.memory import MAX_COEFFICIENTS, require_here
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.partition import RowRuns
from lrgls_dask.solve.fingerprint import check_compressed
from lrgls_dask.system import System
from lrgls_dask.varying.bread import SegmentedShownBread
from lrgls_dask.varying.segments import check_all
from lrgls_dask.varying.shown import ShownSegments, first_of_segments
from lrgls_dask.varying.sigmas import SegmentSigmas

__all__ = ["SegmentSource"]


class SegmentsFit(Made, Protocol):
    """What is asked of a fit with a Sigma for each segment."""

    @property
    def sigmas(self) -> SegmentSigmas: ...

    @property
    def behind_errors(self) -> BehindErrors: ...

    @property
    def compressed_segments(self) -> tuple[Compressed, ...]: ...

    @property
    def fingerprint(self) -> Fingerprint | None: ...

    def _fitted_rows(self, kind: str, system: System | None) -> System: ...


@dataclass(frozen=True, eq=False)
class SegmentSource(FitSource[SegmentsFit]):
    """Each row counts with the Sigma_t of its segment."""

    def rows(self, kind: CovKind, system: System | None) -> System:
        return self.fit._fitted_rows(kind.name, system)

    def classical(self, kind: CovKind, equation: int | None, system: System | None, *, debiased: bool) -> np.ndarray:
        """(sum_t X_t' Sigma_t^-1 X_t)^-1 at known Sigma_t; no read unless the fit was opened from disk."""
        behind = self.fit.behind_errors
        if debiased:
            check_debiased(self.fit.settings)
        elif behind.kind == kind.name and behind.values is not None:
            return cut(self, equation, behind.values)
        held = bool(self.fit.compressed_segments)
        bread: SegmentedBread | SegmentedShownBread = self._bread(
            None if held else self.rows(kind, system), debiased=debiased
        )
        return cut(self, equation, bread.classical())

    @property
    def shown(self) -> np.ndarray:
        return np.asarray(self.fit.sigmas.cells.sum(axis=0))

    def bread(self, system: System) -> BreadOfRows:
        return self._bread(system, debiased=False)

    def observed(self, kind: CovKind, system: System | None) -> np.ndarray:
        raise self._refused(kind)

    def huber_white(self, kind: CovKind, system: System | None) -> np.ndarray:
        raise self._refused(kind)

    def kackar_harville(self, kind: CovKind, system: System | None) -> np.ndarray:
        raise self._refused(kind)

    def _refused(self, kind: CovKind) -> ValueError:
        others = [repr(name) for name, each in KINDS.items() if not each.needs_information]
        return ValueError(
            f"kind={kind.name!r} needs the information of the parameters of one Sigma, and covariance="
            f"TimeVarying(...) has one for each segment. Use {', '.join(others)}."
        )

    def _bread(self, system: System | None, *, debiased: bool) -> SegmentedBread | SegmentedShownBread:
        """debiased : Sigma_ij times N / sqrt((N - p_i) (N - p_j)) in every segment, N those of each equation."""
        fit = self.fit
        _check_size(self.design)
        runs = RowRuns(fit.sigmas.edges)
        if system is not None and system.n_obs != runs.edges[-1]:
            raise ValueError(
                f"the system has {system.n_obs:,} rows, and the segments of this fit cover {runs.edges[-1]:,}. "
                "Pass the system that was fitted."
            )
        sigma = SigmaRuns(runs, fit.sigmas.values)
        if debiased:
            sigma = sigma.rescaled(degrees(self.shown, self.free))
        how = fit.settings
        at = fit.estimated.coefficients
        if fit.sigmas.has_holes:
            return SegmentedShownBread.of_segments(_shown_again(system, fit), at, runs, sigma.sigmas)
        segments = fit.compressed_segments or _read_again(system, runs, fit.fingerprint)
        return SegmentedBread.of(segments, sigma, at, how.lam_B, how.restrictions, fit.fingerprint)


def _read_again(system: System | None, runs: RowRuns, fitted: Fingerprint | None) -> tuple[Compressed, ...]:
    """The segments of a fit that was opened from disk; one pass."""
    assert system is not None  # who calls has asked for it
    parts = compress_parts(system.rows, runs, meter=Meter())
    if len(parts.moments) != runs.n_parts:
        raise ValueError(
            f"only {len(parts.moments):,} of the fit's {runs.n_parts:,} segments have rows of positive weight in this "
            "system. Pass the system that was fitted."
        )
    segments = tuple(parts.part(number) for number in range(runs.n_parts))
    check_compressed(fitted, segments)
    return segments


def _shown_again(system: System | None, fit: SegmentsFit) -> ShownSegments:
    """The segments of a fit whose rows have holes; one pass."""
    assert system is not None  # who calls has asked for it
    sigmas, how, rows = fit.sigmas, fit.settings, system.rows
    firsts = first_of_segments(rows, RowRuns(sigmas.edges), meter=Meter())
    check_all(firsts, sigmas.labels)
    each = [firsts[number] for number in range(len(sigmas))]
    segments = ShownSegments(rows, each, sigmas.labels, lam_B=how.lam_B, restrictions=how.restrictions)
    differs = (segments.cells != sigmas.cells).any(axis=1) | (segments.rows != sigmas.rows)
    if differs.any():
        t = int(np.argmax(differs))
        raise ValueError(
            f"these are not the rows that were fitted: segment {sigmas.labels[t]!s} has {segments.cells[t].sum():,} "
            f"responses observed in {segments.rows[t]:,} rows, where the fit had {sigmas.cells[t].sum():,} in "
            f"{sigmas.rows[t]:,}. Pass the System that was fitted."
        )
    if fit.fingerprint is not None:
        fit.fingerprint.check(segments.whole.fingerprint(fit.fingerprint), segments.design)
    return segments


def _check_size(design: Design) -> None:
    P = design.n_coefficients
    if P > MAX_COEFFICIENTS:
        raise ValueError(
            f"the covariance of all {P:,} coefficients would take {8e-9 * P**2:.1f} GB and is limited to "
            f"{MAX_COEFFICIENTS:,}. Fit fewer equations."
        )
    require_here(5 * 8 * P**2, f"the covariance of {P:,} coefficients", "Fit fewer equations")
