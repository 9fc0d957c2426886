"""The likelihood of rows under the Sigma of their segments."""

from __future__ import annotations

import numpy as np

from lrgls_dask.compression.compressed import mean_nll, partial_bytes
from lrgls_dask.compression.parts import compress_parts, parts_at_once
from lrgls_dask.rows.memory import require_memory
from lrgls_dask.rows.partition import Partition
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.run_pass import Meter
from lrgls_dask.varying.sigmas import SegmentSigmas

__all__ = ["segment_score"]


def segment_score(
    rows: Rows, partition: Partition, numbers: np.ndarray, coefficients: np.ndarray, sigmas: SegmentSigmas
) -> float:
    """Mean log-likelihood per row of positive weight; one pass.

    partition : the rows by segment.  numbers : (parts,) which of the segments of `sigmas` each part is.
    coefficients : (P,) in the user's units.  Raises MemoryError, before any read, where the sums do not fit.
    """
    one = partial_bytes(rows.design)
    partial = one * parts_at_once(partition.n_parts, consecutive=partition.consecutive)
    what = f"the cross-products of {partition.n_parts} segments"
    require_memory(rows, partial, 2 * one * partition.n_parts, what, "Score fewer segments at a time")
    parts = compress_parts(rows, partition, meter=Meter())
    total, n_rows = 0.0, 0
    for number in parts.moments:
        part = parts.part(number)
        total -= part.n_obs * mean_nll(part, coefficients, sigmas.values[numbers[number]])
        n_rows += part.n_obs
    return total / n_rows
