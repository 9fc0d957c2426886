"""How far in time the factors of a segment may be learnt from, judged by segments left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.design.penalties import Ridge
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.varying.carried import Carried
from lrgls_dask.varying.segments import kernel_weights, posed, segment_times
from lrgls_dask.varying.windows import Segments

__all__ = ["BandwidthScore", "held_out_scores"]


@dataclass(frozen=True)
class BandwidthScore:
    """nll per row of segments under a Sigma made from the others only, in standard units: lower is better."""

    bandwidth: float
    held_out_nll: float


def held_out_scores(
    segments: Sequence[Compressed] | Segments,
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
    problem = posed(segments, lam_B, restrictions)
    T = len(problem.shares)
    times = segment_times(positions, T)
    floor = np.full(problem.design.n_equations, d_floor)
    static = problem.residuals(problem.start()).window(np.ones(T)).likeliest(rank, floor)
    residuals = problem.residuals(problem.gls(problem.start(), (static,) * T, last=True)[0].x)
    alone = np.eye(T)
    carried = Carried.of(problem, range(T))
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
        total, sigma = 0.0, static
        for t, row in enumerate(weights):
            sigma = residuals.window(row).from_start(rank, floor, sigma)
            total += float(problem.shares[t]) * residuals.window(alone[t]).nll(sigma)
        scores.append(BandwidthScore(float(bandwidth), total))
    return tuple(sorted(scores, key=lambda score: score.held_out_nll))
