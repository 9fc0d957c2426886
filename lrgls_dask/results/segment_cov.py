"""Covariances of the coefficients of a fit whose factors vary in time: the kinds there are, and their bread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.compression.parts import compress_parts
from lrgls_dask.inference.score_kernels import SigmaRuns
from lrgls_dask.inference.segmented import SegmentedBread
from lrgls_dask.results.cov_kinds import (
    CovRequest,
    CovValues,
    check_debiased,
    cut,
    degrees,
    fitted_system,
    sandwich_covariance,
)
from lrgls_dask.rows.memory import MAX_COEFFICIENTS, require_here
from lrgls_dask.rows.partition import RowRuns
from lrgls_dask.rows.run_pass import Meter
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.system import System

if TYPE_CHECKING:
    from lrgls_dask.results.time_varying import TimeVaryingFit

__all__ = ["segment_covariance"]


def segment_covariance(fit: TimeVaryingFit, request: CovRequest) -> CovValues:
    """The covariance that was asked for. Raises ValueError for a kind that such a fit does not have."""
    if request.kind not in KINDS:
        raise ValueError(
            f"kind={request.kind!r} needs the information of the parameters of one Sigma, and covariance="
            f"TimeVarying(...) has one for each segment. Use {', '.join(map(repr, KINDS))}."
        )
    return KINDS[request.kind](fit, request)


def _classical(fit: TimeVaryingFit, request: CovRequest) -> CovValues:
    """(sum_t X_t' Sigma_t^-1 X_t)^-1 at known Sigma_t; no read unless the fit was opened from disk."""
    if request.debiased:
        check_debiased(fit)
    elif fit.cov_kind == "classical" and fit.cov_values is not None:
        return cut(fit, request, fit.cov_values)
    bread = _bread(fit, None if fit.solution is not None else fitted_system(fit, request), debiased=request.debiased)
    found = cut(fit, request, bread.classical())
    return CovValues(found.values, "debiased" if request.debiased else "")


def _sandwich(fit: TimeVaryingFit, request: CovRequest) -> CovValues:
    return sandwich_covariance(fit, request, lambda system: _bread(fit, system, debiased=False))


KINDS: dict[str, Callable[[TimeVaryingFit, CovRequest], CovValues]] = {
    "classical": _classical,
    "robust": _sandwich,
    "cluster": _sandwich,
    "hac": _sandwich,
}


def _bread(fit: TimeVaryingFit, system: System | None, *, debiased: bool) -> SegmentedBread:
    """debiased : Sigma_ij times N / sqrt((N - p_i) (N - p_j)) in every segment."""
    _check_size(fit)
    runs = RowRuns(fit.edges)
    if system is not None and system.n_obs != runs.edges[-1]:
        raise ValueError(
            f"the system has {system.n_obs:,} rows, and the segments of this fit cover {runs.edges[-1]:,}. "
            "Pass the system that was fitted."
        )
    segments = _read_again(system, runs) if fit.solution is None else fit.solution.segments
    sigma = SigmaRuns(runs, tuple(map(LowRank, fit.factor_loadings, fit.idiosyncratic)))
    if debiased:
        sigma = sigma.rescaled(degrees(fit))
    return SegmentedBread.of(segments, sigma, fit.coefficients, fit.lam_B, fit.restrictions)


def _read_again(system: System | None, runs: RowRuns) -> tuple[Compressed, ...]:
    """The segments of a fit that was opened from disk; one pass."""
    assert system is not None  # who calls has asked for it
    parts = compress_parts(system.rows, runs, meter=Meter())
    if len(parts.moments) != runs.n_parts:
        raise ValueError(
            f"only {len(parts.moments):,} of the fit's {runs.n_parts:,} segments have rows of positive weight in this "
            "system. Pass the system that was fitted."
        )
    return tuple(parts.part(number) for number in range(runs.n_parts))


def _check_size(fit: TimeVaryingFit) -> None:
    P = fit.n_coefficients
    if P > MAX_COEFFICIENTS:
        raise ValueError(
            f"the covariance of all {P:,} coefficients would take {8e-9 * P**2:.1f} GB and is limited to "
            f"{MAX_COEFFICIENTS:,}. Fit fewer equations."
        )
    require_here(5 * 8 * P**2, f"the covariance of {P:,} coefficients", "Fit fewer equations")
