"""What whitened residuals of all rows add up to: how many lie below each of many numbers, and their moments by stretch.

One pass, whose sums do not grow with the rows. The counts are exact, so that what a QQ plot draws is what sorting all
residuals would give, to half a bin.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import scipy  # scipy.stats loads when first asked: it takes as long as all of this package
import xarray as xr

from lrgls_dask.compression.patterns import bad_but_for_missing
from lrgls_dask.data.labels import coords_of_rows
from lrgls_dask.data.storedlabels import StoredLabels
from lrgls_dask.missing.slabs import block_slabs
from lrgls_dask.prediction.effects import with_effects_of_fit
from lrgls_dask.prediction.fitted import Coefficients, check_same_design
from lrgls_dask.prediction.skipped import as_estimated
from lrgls_dask.results.reported import Reported, as_fitted
from lrgls_dask.results.sigma_reported import SigmaReported
from lrgls_dask.rows.block import Block, bad_values
from lrgls_dask.rows.memory import require_memory
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.moments import Summed
from lrgls_dask.rows.partition import RowRuns
from lrgls_dask.rows.purposes import RESIDUALS
from lrgls_dask.rows.run_pass import run_pass
from lrgls_dask.sigma.whitening import Whitening, whitening_of
from lrgls_dask.system import System
from lrgls_dask.varying.sigmas import SegmentSigmas

__all__ = ["residual_numbers"]

STRETCHES = 100  # of consecutive rows, at most
POINTS = 201  # of a QQ plot
INNER, PER_UNIT = 8.0, 128  # bins of 1/128 up to 8, and beyond that a 16th of an octave up to a million
TAIL = INNER * 2.0 ** np.arange(1 / 16, 17, 1 / 16)
EDGES = np.concatenate([-TAIL[::-1], np.linspace(-INNER, INNER, int(2 * INNER * PER_UNIT) + 1), TAIL])

MIDDLES = np.concatenate([EDGES[:1], (EDGES[1:] + EDGES[:-1]) / 2, EDGES[-1:]])  # nothing is half of what has no end


@dataclass(frozen=True, eq=False)
class _Sums(Summed):
    """below : (B + 1,) residuals in each bin, those below the first edge before it.  of_stretches : (3, T) number, sum
    and sum of squares."""

    below: np.ndarray
    of_stretches: np.ndarray


@dataclass(frozen=True, eq=False)
class _Params:
    """whitenings : one for all rows, or one for each run of `segments`.  holes : whether responses may be missing."""

    coefficients: Coefficients
    whitenings: tuple[Whitening, ...]
    segments: RowRuns
    stretches: RowRuns
    holes: bool


def _kernel(block: Block, params: _Params) -> _Sums | None:
    """_Sums of a block."""
    stop, width = block.start + block.n_rows, len(EDGES) + 1
    cuts = [runs.within(block.start, stop)[1] for runs in (params.segments, params.stretches)]
    edges = np.unique(np.concatenate(cuts))
    found = _Sums(np.zeros(width), np.zeros((3, params.stretches.n_parts)))
    origin, seen = np.zeros(params.coefficients.design.n_regressors + params.coefficients.design.n_equations), False
    for first, last in pairwise(edges.tolist()):
        whitening = params.whitenings[int(params.segments.codes(first, first + 1)[0])]
        stretch = int(params.stretches.codes(first, first + 1)[0])
        for slab in block_slabs(block.take(slice(first - block.start, last - block.start)), origin):
            seen = True
            residual = (slab.y - params.coefficients.fitted(slab.x)) * slab.observed
            z = whitening.rows(residual, slab.observed)[slab.observed > 0]
            if len(slab.hidden) and not params.holes:
                raise bad_values(block)
            if not np.isfinite(z).all():
                raise bad_but_for_missing(block)
            found.of_stretches[:, stretch] += len(z), z.sum(), z @ z
            found.below[:] += np.bincount(_bins(z), minlength=width)
    return found if seen else None


def _bins(z: np.ndarray) -> np.ndarray:
    """(n,) how many of EDGES each number is not below."""
    bins = np.floor((np.clip(z, -INNER, INNER) + INNER) * PER_UNIT).astype(np.intp) + len(TAIL) + 1
    out = np.flatnonzero(np.abs(z) >= INNER)
    bins[out] = np.searchsorted(EDGES, z[out], side="right")
    return bins


def residual_numbers(fit: Reported, system: System) -> xr.Dataset:
    """`expected` and `residual` (point,) of a QQ plot, `mean`, `sd` and `count` (stretch,) of the whitened residuals.

    One pass.  Raises ValueError for another design, and for rows of a time-varying fit that are not its own.
    """
    mine = as_estimated(system, fit.skipped)
    check_same_design(mine.design.given, fit.design.given)
    if fit.design.absorbed is not None:
        mine = replace(mine, rows=with_effects_of_fit(fit.design, mine.rows))
    rows = as_fitted(fit, mine).rows
    segments, whitenings = _by_row(fit, rows.n_obs)
    n_stretches = min(STRETCHES, rows.n_obs)
    edges = np.arange(n_stretches + 1) * rows.n_obs // n_stretches
    params = _Params(
        Coefficients.of(rows.design, fit.coefficients), whitenings, segments, RowRuns(edges), fit.missing == "em"
    )
    size = 8 * (len(EDGES) + 1 + 3 * n_stretches)
    require_memory(rows, size, size, "sums of residuals", "Store the rows in shorter chunks")
    found: _Sums = run_pass(
        rows, _kernel, params, partial_bytes=size, meter=Meter(), label=RESIDUALS, holes=fit.missing == "em"
    )
    dim = fit.obs_dim if fit.obs_dim not in TAKEN else "stretch"
    return _quantiles(found.below).merge(_of_stretches(found.of_stretches, edges, system, dim))


TAKEN = (
    "point",
    "expected",
    "residual",
    "mean",
    "sd",
    "count",
    "first_row",
)  # which the rows must not be called besides


def _by_row(fit: Reported, n_obs: int) -> tuple[RowRuns, tuple[Whitening, ...]]:
    """Which rows have which Sigma."""
    if isinstance(fit, SigmaReported):
        return RowRuns(np.array([0, n_obs])), (whitening_of(fit.covariance),)
    sigmas: SegmentSigmas = fit.sigmas  # type: ignore[attr-defined]
    if n_obs != sigmas.edges[-1]:
        raise ValueError(
            f"the system has {n_obs:,} rows, and the segments of this fit cover {sigmas.edges[-1]:,}. "
            "Pass the system that was fitted."
        )
    return RowRuns(sigmas.edges), tuple(map(whitening_of, sigmas.values))


def _quantiles(bins: np.ndarray) -> xr.Dataset:
    """The middle of each bin that has residuals, against the normal quantile of the share below it, where half of its
    own are: what sorting all gives, (i - 1/2) / n, to half a bin, on both sides alike.

    The first and the last of these bins are always among the points; of more than 201 those that are as far from each
    other along the normal quantiles as may be.
    """
    n, inside = bins.sum(), np.flatnonzero(bins)
    below = np.cumsum(bins) - bins / 2
    expected = scipy.stats.norm.ppf(below[inside] / n)
    if len(inside) > POINTS:
        wanted = np.linspace(expected[0], expected[-1], POINTS)
        places = np.unique(np.searchsorted((expected[1:] + expected[:-1]) / 2, wanted))  # the nearest
        inside, expected = inside[places], expected[places]
    found = {"expected": ("point", expected), "residual": ("point", MIDDLES[inside])}
    return xr.Dataset(found, attrs={"n_residuals": int(n)})


def _of_stretches(sums: np.ndarray, edges: np.ndarray, system: System, dim: str) -> xr.Dataset:
    """Moments of stretches of rows, by the label of the first of each."""
    count, total, squares = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / count
        sd = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    values = {"mean": mean, "sd": sd, "count": count}
    first_row = {"first_row": (dim, edges[:-1])}
    labels = system.obs_labels
    if labels is None:
        return xr.Dataset({name: (dim, value) for name, value in values.items()}, first_row)
    index = (labels.read() if isinstance(labels, StoredLabels) else labels)[edges[:-1]]
    coords = coords_of_rows(index, dim, ("first_row",))
    return xr.Dataset({name: (dim, value) for name, value in values.items()}, coords).assign_coords(first_row)
