"""How far in time the factors of a segment may be learnt from, judged by segments left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.design.penalties import Ridge
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.sigma.ml import ml_candidates, ml_step
from lrgls_dask.varying.als import smoothed
from lrgls_dask.varying.carried import Carried
from lrgls_dask.varying.segments import SegmentedProblem, check_segments, kernel_weights, segment_times

__all__ = ["BandwidthScore", "held_out_scores"]


@dataclass(frozen=True)
class BandwidthScore:
    """nll per row of segments under a Sigma made from the others only, in standard units: lower is better."""

    bandwidth: float
    held_out_nll: float


def held_out_scores(
    segments: Sequence[Compressed],
    rank: int,
    bandwidths: Sequence[float],
    *,
    positions: np.ndarray | None = None,
    lam_B: Ridge = 0.0,
    restrictions: Restrictions | None = None,
    d_floor: float = 1e-8,
) -> tuple[BandwidthScore, ...]:
    """Each bandwidth that can be fitted judged by leaving every segment in turn out of its own Sigma; best first.

    The coefficients are those of the static fit throughout: common to all segments, they barely notice one of them.
    Costs T Sigma steps a bandwidth.
    Raises ValueError for a bandwidth that reaches no neighbour of some segment.
    """
    check_segments(segments)
    times = segment_times(positions, len(segments))
    problem = SegmentedProblem(segments, lam_B=lam_B, restrictions=restrictions)
    floor = np.full(problem.design.n_equations, d_floor)
    static = [ml_candidates(problem.merged.residual_covariance(problem.start()), rank, floor)[0].sigma]
    c = problem.gls(problem.start(), static * len(segments), last=True)[0].x
    S = problem.residual_covariances(c)
    carried = Carried.of(problem, range(len(segments)))
    scores = []
    for bandwidth in bandwidths:
        weights = kernel_weights(times, bandwidth)
        if carried.refusal(weights, rank):
            continue  # no fit with this bandwidth exists
        np.fill_diagonal(weights, 0.0)
        if not weights.any(axis=1).all():
            lonely = int(np.argmin(weights.any(axis=1)))
            raise ValueError(
                f"bandwidth {bandwidth} reaches no neighbour of segment {lonely}; held-out likelihood needs one. "
                "Use a bandwidth above the distance between neighbours."
            )
        total, sigma = 0.0, static[0]
        for t, row in enumerate(weights):
            sigma = ml_step(smoothed(S, row * problem.shares), rank, floor, start=sigma).sigma
            total += float(problem.shares[t]) * sigma.nll(S[t])
        scores.append(BandwidthScore(float(bandwidth), total))
    return tuple(sorted(scores, key=lambda score: score.held_out_nll))
