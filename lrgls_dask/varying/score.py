"""The likelihood of rows under the Sigma of their segments."""

from __future__ import annotations

import numpy as np

from lrgls_dask.compression.compressed import mean_nll, partial_bytes
from lrgls_dask.compression.parts import Parts, complete_parts, compress_parts, parts_at_once
from lrgls_dask.rows.memory import require_memory
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.partition import Partition
from lrgls_dask.rows.rows import Rows
from lrgls_dask.varying.shown import ShownSegments, first_of_segments
from lrgls_dask.varying.sigmas import SegmentSigmas

__all__ = ["segment_score"]


def segment_score(
    rows: Rows,
    partition: Partition,
    numbers: np.ndarray,
    coefficients: np.ndarray,
    sigmas: SegmentSigmas,
    *,
    holes: bool = False,
) -> float:
    """Mean log-likelihood per row of positive weight that shows something; one pass.

    partition : the rows by segment.  numbers : (parts,) which of the segments of `sigmas` each part is.
    coefficients : (P,) in the user's units.  holes : whether responses may be missing.
    Raises MemoryError, before any read, where the sums do not fit.
    """
    one = partial_bytes(rows.design)
    partial = one * parts_at_once(partition.n_parts, consecutive=partition.consecutive)
    what = f"the cross-products of {partition.n_parts} segments"
    require_memory(rows, partial, 2 * one * partition.n_parts, what, "Score fewer segments at a time")
    meter = Meter()
    if not holes:
        return _of_complete(compress_parts(rows, partition, meter=meter), numbers, coefficients, sigmas)
    firsts = {
        number: first
        for number, first in first_of_segments(rows, partition, meter=meter).items()
        if first.n_rows > first.empty
    }
    complete = complete_parts(rows, partition, firsts, meter=meter)
    if complete is not None:
        return _of_complete(complete, numbers, coefficients, sigmas)
    which = numbers[list(firsts)]
    segments = ShownSegments(rows, list(firsts.values()), sigmas.labels[which])
    return -segments.nll(coefficients, [sigmas.values[t] for t in which])


def _of_complete(parts: Parts, numbers: np.ndarray, coefficients: np.ndarray, sigmas: SegmentSigmas) -> float:
    total, n_rows = 0.0, 0
    for number in parts.moments:
        part = parts.part(number)
        total -= part.n_obs * mean_nll(part, coefficients, sigmas.values[numbers[number]])
        n_rows += part.n_obs
    return total / n_rows
