"""Which segment each row is in: labels as given or by name, in order for a fit, known to the fit for new rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lrgls_dask.rows.partition import GivenParts, Partition, RowRuns
from lrgls_dask.system import CompressedSystem, System
from lrgls_dask.varying.segments import ordered_segments, segment_edges

__all__ = ["parts_of", "rows_in_segments", "segments_of"]


def rows_in_segments(system: System | CompressedSystem) -> System:
    """The system itself. Raises ValueError for one whose rows can no longer be told apart."""
    if isinstance(system, CompressedSystem):
        raise ValueError(
            "covariance=TimeVarying(...) keeps segments of rows apart, and a compressed system has none left to tell "
            "apart. Use the System itself, which is read once."
        )
    return system


def segments_of(segments: Any, system: System, *, check: bool = True) -> tuple[pd.Index, RowRuns]:
    """(T,) labels of the segments in order, and the rows of each; see `values_of_rows`."""
    labels = _labels(segments, system, check)
    weights = None if system.rows.weights is None else system.rows.weights.array
    distinct = ordered_segments(labels, weights if isinstance(weights, np.ndarray) else None)
    return pd.Index(distinct, name="segment"), RowRuns(segment_edges(labels))


def parts_of(segments: Any, system: System, fitted: pd.Index) -> tuple[Partition, np.ndarray]:
    """The rows of a system by the segments of a fit, and the number in the fit of every part.

    Rows may come in any order. Raises ValueError for a label that was not fitted, and for labels that do not fit.
    """
    labels = _labels(segments, system)
    edges = segment_edges(labels)
    codes = fitted.get_indexer(pd.Index(labels[edges[:-1]]))
    if (codes < 0).any():
        unknown = labels[edges[int(np.argmax(codes < 0))]]
        raise ValueError(
            f"segments: {unknown!s} was not fitted, so it has no Sigma; the fit has {len(fitted)} segments, "
            f"{fitted[0]!s} to {fitted[-1]!s}. Leave its rows out, or fit again with them."
        )
    if len(np.unique(codes)) == len(codes):
        return RowRuns(edges), codes
    return GivenParts(np.repeat(codes, np.diff(edges)), len(fitted)), np.arange(len(fitted))


def _labels(segments: Any, system: System, check: bool = True) -> np.ndarray:
    """(N,) the label of every row's segment."""
    if isinstance(segments, str):
        return system.labels_named("segments", segments, check=check)
    return system.values_of_rows("segments", segments, check=check)
