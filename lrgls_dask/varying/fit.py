"""From rows and labels to a fit whose factors vary in time: one pass, segments apart, then the loop in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from dask.utils import format_bytes

from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.compression.parts import compress_parts
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.options import TimeVarying
from lrgls_dask.plan import Plan, make_plan
from lrgls_dask.rows.partition import RowRuns
from lrgls_dask.rows.run_pass import Meter
from lrgls_dask.sigma.identified import check_identified
from lrgls_dask.solve.record import Options
from lrgls_dask.system import System
from lrgls_dask.varying.bandwidth import BandwidthScore, held_out_scores
from lrgls_dask.varying.estimate import TimeVaryingSolution, fit_time_varying
from lrgls_dask.varying.labels import segments_of
from lrgls_dask.varying.segments import client_bytes
from lrgls_dask.varying.sigmas import SegmentSigmas

__all__ = ["SegmentsFitted", "fit_segments", "plan_segments"]

# Bandwidths that "cv" tries, in segments: the first reaches the neighbours, each next half as far again.
LEAST_BANDWIDTH, GROWTH = 1.5, 1.5


def plan_segments(varying: TimeVarying, system: System, memory_limit: int | str | None) -> Plan:
    """The one pass that compresses every segment by itself; reads nothing but labels.

    Raises ValueError for labels that do not fit, MemoryError where the pass or the loop over segments does not.
    """
    n_segments = len(segments_of(varying.segments, system)[0])
    loop_bytes = client_bytes(system.design, n_segments, int(varying.rank))
    try:
        return make_plan(
            system.rows,
            engine="compress",
            memory_limit=memory_limit,
            parts=n_segments,
            consecutive=True,
            loop_bytes=loop_bytes,
        )
    except MemoryError as error:
        raise MemoryError(
            f"covariance=TimeVarying(...) keeps the cross-products of {n_segments} segments apart and iterates on "
            f"them, {format_bytes(loop_bytes)}: {error} Use fewer, longer segments."
        ) from error


@dataclass(frozen=True, eq=False)
class SegmentsFitted:
    """What the loop over segments ended with, in the user's units.

    sigmas : by segment.  segments : the compressed rows of each.  scores : of the bandwidths that were tried.
    """

    found: TimeVaryingSolution
    sigmas: SegmentSigmas
    segments: tuple[Compressed, ...]
    scores: tuple[BandwidthScore, ...]


def fit_segments(
    varying: TimeVarying, system: System, options: Options, restrictions: Restrictions | None, meter: Meter
) -> SegmentsFitted:
    """The fit: one pass, or a second one by QR where the first shows that digits would be lost."""
    check_identified(int(varying.rank), system.n_equations)
    labels, runs = segments_of(varying.segments, system)
    segments = _compressed(system, labels, runs, meter)
    rank, lam_B, floor = int(varying.rank), options.lam_B, options.d_floor
    scores: tuple[BandwidthScore, ...] = ()
    bandwidth = np.inf
    if not isinstance(varying.bandwidth, str):
        bandwidth = float(varying.bandwidth)
    elif len(segments) > 1:
        tried = _bandwidths(len(segments))
        scores = held_out_scores(segments, rank, tried, lam_B=lam_B, restrictions=restrictions, d_floor=floor)
        bandwidth = scores[0].bandwidth
    found = fit_time_varying(
        segments,
        rank,
        bandwidth,
        labels=labels,
        lam_B=lam_B,
        restrictions=restrictions,
        d_floor=floor,
        rel_tol=options.rel_tol,
        max_sweeps=options.max_sweeps,
        meter=meter,
    )
    rows = np.array([segment.n_obs for segment in segments])
    of_segments = (labels, runs.edges, rows, found.loadings, found.idio_var)
    sigmas = SegmentSigmas(*of_segments, bandwidth, found.n_sigma_parameters)
    return SegmentsFitted(found, sigmas, tuple(segments), scores)


def _compressed(system: System, labels: pd.Index, runs: RowRuns, meter: Meter) -> list[Compressed]:
    """T compressed segments. Raises ValueError for one without a row of positive weight."""
    parts = compress_parts(system.rows, runs, meter=meter)
    empty = [label for number, label in enumerate(labels) if number not in parts.moments]
    if empty:
        raise ValueError(
            f"segments: {empty[0]!s} is empty, all its rows have weight 0. Drop it or join it to the next."
        )
    return [parts.part(number) for number in range(len(labels))]


def _bandwidths(n_segments: int) -> list[float]:
    n = int(np.log(max(n_segments / LEAST_BANDWIDTH, 1.0)) / np.log(GROWTH)) + 1
    return [*(LEAST_BANDWIDTH * GROWTH ** np.arange(n)).tolist(), np.inf]
