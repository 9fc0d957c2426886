"""From rows and labels to a fit whose factors vary in time: one pass, segments apart, then the loop in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from dask.utils import format_bytes

from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.compression.parts import Parts, complete_parts, compress_parts
from lrgls_dask.design.restrictions import Restrictions, without_variance
from lrgls_dask.options import TimeVarying
from lrgls_dask.plan.make import make_plan
from lrgls_dask.plan.plan import Plan
from lrgls_dask.rows.fingerprint import Fingerprint
from lrgls_dask.rows.memory import MAX_COEFFICIENTS, Cluster
from lrgls_dask.rows.meter import Meter
from lrgls_dask.sigma.identified import check_identified
from lrgls_dask.solve.fingerprint import fingerprint_of_compressed
from lrgls_dask.solve.record import Options
from lrgls_dask.system import System
from lrgls_dask.varying.bandwidth import BandwidthScore, held_out_scores
from lrgls_dask.varying.bread import SegmentedShownBread
from lrgls_dask.varying.estimate import TimeVaryingSolution, fit_time_varying
from lrgls_dask.varying.labels import segments_of
from lrgls_dask.varying.segments import check_all, client_bytes
from lrgls_dask.varying.shown import ShownSegments, first_of_segments, holes_bytes, patterns_in_segments
from lrgls_dask.varying.sigmas import SegmentSigmas

__all__ = ["SegmentsFitted", "fit_segments", "plan_segments"]

# Bandwidths that "cv" tries, in segments: the first reaches the neighbours, each next half as far again.
LEAST_BANDWIDTH, GROWTH = 1.5, 1.5


def plan_segments(
    varying: TimeVarying,
    system: System,
    memory_limit: int | str | None,
    *,
    holes: bool = False,
    cluster: Cluster | None = None,
) -> Plan:
    """The one pass that compresses every segment by itself; reads nothing but labels.

    holes : responses may be missing, so each pattern of them in a segment is compressed by itself: as many as fit.
    cluster : where it would run, if not here.
    Raises ValueError for labels that do not fit, MemoryError where the pass or the loop over segments does not.
    """
    in_memory = all(isinstance(part.array, np.ndarray) for part in system.rows.parts)
    n_segments = len(segments_of(varying.segments, system, check=in_memory)[0])
    loop_bytes = client_bytes(system.design, n_segments, int(varying.rank))
    most = patterns_in_segments(system.design, n_segments) if holes else 0
    while True:
        of_holes = holes_bytes(system.rows, n_segments, most) if holes else 0
        try:
            plan = make_plan(
                system.rows,
                engine="compress",
                memory_limit=memory_limit,
                parts=n_segments,
                consecutive=True,
                loop_bytes=loop_bytes + of_holes,
                cluster=cluster,
            )
        except MemoryError as error:
            if most > 1:
                most //= 4
                continue
            raise MemoryError(
                f"covariance=TimeVarying(...) keeps the cross-products of {n_segments} segments apart and iterates on "
                f"them, {format_bytes(loop_bytes + of_holes)}: {error} Use fewer, longer segments."
            ) from error
        return replace(plan, most_patterns=max(most, 1) * n_segments) if holes else plan


@dataclass(frozen=True, eq=False)
class SegmentsFitted:
    """What the loop over segments ended with, in the user's units.

    sigmas : by segment.  segments : the compressed rows of each, none where rows have holes.  scores : of the
    bandwidths that were tried.  cov : (P, P) of the coefficients where rows have holes and it is not too large.
    fingerprint : by which the rows are told from others.
    """

    found: TimeVaryingSolution
    sigmas: SegmentSigmas
    segments: tuple[Compressed, ...]
    scores: tuple[BandwidthScore, ...]
    cov: np.ndarray | None
    fingerprint: Fingerprint


def fit_segments(
    varying: TimeVarying,
    system: System,
    options: Options,
    restrictions: Restrictions | None,
    meter: Meter,
    most_patterns: int | None = None,
) -> SegmentsFitted:
    """The fit: one pass, or a second one by QR where the first shows that digits would be lost.

    most_patterns : of missing responses, that are compressed in all segments together; None where no response may be
    missing.
    """
    check_identified(int(varying.rank), system.n_equations)
    labels, runs = segments_of(varying.segments, system)
    rank, lam_B, floor = int(varying.rank), options.lam_B, options.d_floor
    segments: list[Compressed] | ShownSegments
    if most_patterns is None:
        segments = _compressed(compress_parts(system.rows, runs, meter=meter), labels)
    else:
        firsts = first_of_segments(system.rows, runs, meter=meter, most=max(1, most_patterns // len(labels)))
        complete = complete_parts(system.rows, runs, firsts, meter=meter)
        if complete is None:
            each = [firsts[number] for number in range(len(labels))]
            segments = ShownSegments(system.rows, each, labels, lam_B=lam_B, restrictions=restrictions, meter=meter)
        else:
            segments = _compressed(complete, labels)
    scores: tuple[BandwidthScore, ...] = ()
    bandwidth = np.inf
    if not isinstance(varying.bandwidth, str):
        bandwidth = float(varying.bandwidth)
    elif len(labels) > 1:
        tried = _bandwidths(len(labels))
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
    of_segments = (labels, runs.edges, found.segment_rows, found.cells, found.loadings, found.idio_var)
    sigmas = SegmentSigmas(*of_segments, bandwidth, found.n_sigma_parameters)
    if not isinstance(segments, ShownSegments):
        fingerprint = fingerprint_of_compressed(segments, runs.edges)
        return SegmentsFitted(found, sigmas, tuple(segments), scores, None, fingerprint)
    cov = None
    if system.design.n_coefficients <= MAX_COEFFICIENTS:
        bread = SegmentedShownBread.of_segments(segments, found.coefficients, runs, sigmas.values)
        cov = without_variance(bread.classical(), restrictions)
    return SegmentsFitted(found, sigmas, (), scores, cov, segments.whole.fingerprint())


def _compressed(parts: Parts, labels: pd.Index) -> list[Compressed]:
    """T compressed segments. Raises ValueError for one without a row of positive weight."""
    check_all(parts.moments, labels)
    return [parts.part(number) for number in range(len(labels))]


def _bandwidths(n_segments: int) -> list[float]:
    n = int(np.log(max(n_segments / LEAST_BANDWIDTH, 1.0)) / np.log(GROWTH)) + 1
    return [*(LEAST_BANDWIDTH * GROWTH ** np.arange(n)).tolist(), np.inf]
