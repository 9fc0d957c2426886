"""Factors that drift: one Sigma_t for every segment of rows from its neighbours in time, coefficients common to all.

With S_s(b) the residual covariance of segment s, n_s its rows, and weights that fall with distance in time,

    S_t(h; b) = sum_s w_h(|t - s|) n_s S_s(b) / sum_s w_h(|t - s|) n_s,      Sigma_t = argmin nll(. ; S_t(h; b)),
    b = argmin sum_t n_t nll(Sigma_t; S_t(b)) :    sum_t X_t' (Sigma_t^-1 o) X_t b = sum_t X_t' (Sigma_t^-1 o) y_t,

and the two alternate until neither moves. Bandwidth 0 fits segments apart, infinity gives the static fit; for both the
second objective is what both steps lower. In between a Sigma step lowers the local likelihood
sum_t (n_t / N) nll(Sigma_t; S_t(h; b)), which is what is monitored, and the coefficients are those of generalised least
squares, efficient if the Sigma_t are right; the loop ends at a point where both conditions hold.
Source: Tibshirani & Hastie (1987) for local likelihood; Su & Wang (2017) for locally estimated factor loadings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.ml import ml_candidates, ml_step
from lrgls_dask.sigma.pca import aligned
from lrgls_dask.varying.segments import SegmentedProblem, check_segments, kernel_weights

__all__ = ["BandwidthScore", "TimeVaryingSolution", "fit_time_varying", "held_out_scores", "smoothed"]

# The energy r'M^-1 r, a squared distance in standard errors, below which a sweep no longer moves the coefficients.
SETTLED_ENERGY = 1e-14


# ---------------------------------------------------------------------------------------------- the fit


@dataclass(frozen=True, eq=False)
class TimeVaryingSolution:
    """Common coefficients and one Sigma a segment.

    coefficients : (P,) in the user's units, equation by equation.  sigmas : T values in the user's units, their
    loadings rotated to be nearest to those of the segment before.  shares : (T,) n_t / N.
    nll : sum_t (n_t / N) nll(Sigma_t; S_t(b)), row weights and units included; loglik = -N nll.
    n_sigma_parameters : sum_t of a Sigma's parameters times the weight of segment t in its own S_t(h), between those of
    one Sigma (static) and of T (segments apart), for information criteria (Loader 1999, section 4.4).
    segments : the compressed rows of each.
    trace : per sweep the local likelihood sum_t (n_t / N) nll(Sigma_t; S_t(h; b)), in standard units.
    energy : squared distance, in standard errors, that the last GLS step had left to go.
    """

    coefficients: np.ndarray
    sigmas: tuple[LowRank, ...]
    bandwidth: float
    shares: np.ndarray
    n_obs: int
    nll: float
    n_sigma_parameters: float
    segments: tuple[Compressed, ...] = field(repr=False)
    trace: tuple[float, ...] = field(repr=False)
    energy: float
    converged: bool

    @property
    def loglik(self) -> float:
        """Log-likelihood of all rows, each under the Sigma of its segment."""
        return -self.n_obs * self.nll

    @property
    def n_sweeps(self) -> int:
        return len(self.trace)

    @cached_property
    def loadings(self) -> np.ndarray:
        """(T, K, k)."""
        return np.stack([sigma.F for sigma in self.sigmas])

    @cached_property
    def idio_var(self) -> np.ndarray:
        """(T, K)."""
        return np.stack([sigma.d for sigma in self.sigmas])


def fit_time_varying(
    segments: Sequence[Compressed],
    rank: int,
    bandwidth: float,
    *,
    positions: np.ndarray | None = None,
    lam_B: float = 0.0,
    restrictions: Restrictions | None = None,
    d_floor: float = 1e-8,
    rel_tol: float = 1e-10,
    max_sweeps: int = 50,
) -> TimeVaryingSolution:
    """Coefficients common to all segments and a Sigma_t = F_t F_t' + diag(d_t) for each, from rows in memory: no pass.

    segments : T systems of the same equations in the order of time, as `compress_by` makes them in one pass.
    bandwidth : in units of `positions`, (T,) increasing, by default 0 .. T - 1; 0 and infinity are allowed.
    Costs a Sigma step for every segment and one GLS solution a sweep; T K^2 numbers.
    Raises ValueError for a negative bandwidth, segments out of order, empty or of different equations.
    """
    check_segments(segments)
    weights = kernel_weights(_positions(positions, len(segments)), bandwidth)
    problem = SegmentedProblem(segments, lam_B=lam_B, restrictions=restrictions)
    floor = np.full(problem.design.n_equations, d_floor)
    c = problem.start()
    S = problem.residual_covariances(c)
    sigmas: list[LowRank] = []
    trace: list[float] = []
    energy, converged = np.inf, False
    for sweep in range(1, max_sweeps + 1):
        sigmas, local = _local_fits(S, problem.shares, weights, rank, floor, sigmas)
        flat = bool(trace) and trace[-1] - local <= rel_tol * max(1.0, abs(local))
        trace.append(local)
        converged = flat and energy <= SETTLED_ENERGY
        solution, energy = problem.gls(c, sigmas, last=converged or flat or sweep == max_sweeps)
        c = solution.x
        S = problem.residual_covariances(c)
        if converged:
            break
    followed = tuple(_followed(sigmas))
    own_weight = problem.shares / (weights @ problem.shares)
    nll = float(problem.shares @ [sigma.nll(each) for sigma, each in zip(sigmas, S, strict=True)])
    y_scale = problem.merged.whitened.y_scale
    return TimeVaryingSolution(
        problem.coefficients(c),
        tuple(sigma.rescaled(y_scale) for sigma in followed),
        bandwidth,
        problem.shares,
        problem.n_obs,
        nll + problem.merged.nll_offset,
        float(own_weight @ [sigma.n_parameters for sigma in followed]),
        tuple(segments),
        tuple(trace),
        energy,
        converged,
    )


def _positions(positions: np.ndarray | None, n: int) -> np.ndarray:
    out = np.arange(n, dtype=float) if positions is None else np.asarray(positions, dtype=float)
    if out.shape != (n,):
        raise ValueError(f"segments: {n} segments but times of shape {out.shape}. Give one time for each segment.")
    return out


def _local_fits(
    S: np.ndarray,
    shares: np.ndarray,
    weights: np.ndarray,
    rank: int,
    floor: np.ndarray,
    before: Sequence[LowRank],
) -> tuple[list[LowRank], float]:
    """Sigma_t of every segment, none worse than its Sigma `before`, and their local likelihood.

    The first time each is the better of two: from the segment before it, and from its own start; the very first is the
    best of many. Segments with the same weights share one Sigma.
    """
    found: dict[bytes, LowRank] = {}
    sigmas: list[LowRank] = []
    local = 0.0
    for t, row in enumerate(weights):
        S_t, key = smoothed(S, row * shares), row.tobytes()
        if key not in found:
            if before:
                found[key] = ml_step(S_t, rank, floor, start=before[t]).sigma
            elif not sigmas:
                found[key] = ml_candidates(S_t, rank, floor)[0].sigma
            else:
                ends = [ml_step(S_t, rank, floor, start=sigmas[-1]).sigma, ml_step(S_t, rank, floor).sigma]
                found[key] = min(ends, key=lambda sigma: sigma.nll(S_t))
        sigmas.append(found[key])
        local += float(shares[t]) * found[key].nll(S_t)
    return sigmas, local


def smoothed(S: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """sum_s weight_s S_s / sum_s weight_s, (K, K), over segments of positive weight; S (T, K, K), weight (T,)."""
    near = np.flatnonzero(weight > 0.0)
    window = slice(near[0], near[-1] + 1)  # a view: weights are zero only outside, but for one that is left out
    out: np.ndarray = np.tensordot(weight[window] / weight[window].sum(), S[window], axes=1)
    return out


def _followed(sigmas: Sequence[LowRank]) -> list[LowRank]:
    """The same Sigma_t, loadings of the first in their normalisation, of each other nearest to the one before.

    Source: orthogonal Procrustes, Schonemann (1966).
    """
    out = [sigmas[0].normalised()]
    for sigma in sigmas[1:]:
        out.append(sigma if sigma.rank == 0 else LowRank(aligned(sigma.F, out[-1].F), sigma.d))
    return out


# ---------------------------------------------------------------------------------------------- bandwidth


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
    lam_B: float = 0.0,
    restrictions: Restrictions | None = None,
    d_floor: float = 1e-8,
) -> tuple[BandwidthScore, ...]:
    """Each bandwidth judged by leaving every segment in turn out of its own Sigma; best first.

    The coefficients are those of the static fit throughout: common to all segments, they barely notice one of them.
    Costs T Sigma steps a bandwidth.
    Raises ValueError for a bandwidth that reaches no neighbour of some segment.
    """
    check_segments(segments)
    times = _positions(positions, len(segments))
    problem = SegmentedProblem(segments, lam_B=lam_B, restrictions=restrictions)
    floor = np.full(problem.design.n_equations, d_floor)
    static = [ml_candidates(problem.merged.residual_covariance(problem.start()), rank, floor)[0].sigma]
    c = problem.gls(problem.start(), static * len(segments), last=True)[0].x
    S = problem.residual_covariances(c)
    scores = []
    for bandwidth in bandwidths:
        weights = kernel_weights(times, bandwidth)
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
