"""The likelihood of rows under the Sigma of their segments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lrgls_dask.compression.compressed import mean_nll, partial_bytes
from lrgls_dask.compression.parts import compress_parts, parts_at_once
from lrgls_dask.prediction.fitted import check_same_design
from lrgls_dask.results.estimates import as_fitted
from lrgls_dask.rows.memory import require_memory
from lrgls_dask.rows.partition import Partition, RowRuns
from lrgls_dask.rows.run_pass import Meter
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.system import System
from lrgls_dask.varying.labels import parts_of

if TYPE_CHECKING:
    from lrgls_dask.results.time_varying import TimeVaryingFit

__all__ = ["segment_score"]


def segment_score(fit: TimeVaryingFit, system: System, segments: Any) -> float:
    """Mean log-likelihood per row of positive weight; one pass. See `TimeVaryingFit.score`."""
    check_same_design(system.design, fit.design)
    rows = as_fitted(fit, system).rows
    partition, numbers = _parts(fit, system, segments)
    one = partial_bytes(fit.design)
    partial = one * parts_at_once(partition.n_parts, consecutive=partition.consecutive)
    what = f"the cross-products of {partition.n_parts} segments"
    require_memory(rows, partial, 2 * one * partition.n_parts, what, "Score fewer segments at a time")
    parts = compress_parts(rows, partition, meter=Meter())
    total, n_rows = 0.0, 0
    for number in parts.moments:
        part, t = parts.part(number), numbers[number]
        sigma = LowRank(fit.factor_loadings[t], fit.idiosyncratic[t])
        total -= part.n_obs * mean_nll(part, fit.coefficients, sigma)
        n_rows += part.n_obs
    return total / n_rows


def _parts(fit: TimeVaryingFit, system: System, segments: Any) -> tuple[Partition, np.ndarray]:
    if segments is not None:
        return parts_of(segments, system, fit.segments)
    if system is not fit.system:
        raise ValueError(
            "these are not the rows that were fitted, so their segments are not known. Pass segments=, one label for "
            f"each of {system.n_obs} rows, or what they are called in this system."
        )
    return RowRuns(fit.edges), np.arange(fit.n_segments)
