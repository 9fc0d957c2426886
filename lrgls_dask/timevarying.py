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
from functools import cached_property, reduce

import numpy as np
from scipy.linalg import solve_triangular

from lrgls_dask.cg import Solution, conjugate_gradients
from lrgls_dask.compress import Compressed
from lrgls_dask.covariance import LowRank, ml_candidates, ml_step
from lrgls_dask.covariance.pca import aligned
from lrgls_dask.passes import Meter
from lrgls_dask.problem import Coordinates, InMemory
from lrgls_dask.whiten import WhitenedGroup

__all__ = [
    "BandwidthScore",
    "SegmentedProblem",
    "TimeVaryingFit",
    "fit_time_varying",
    "held_out_scores",
    "kernel_weights",
    "ordered_segments",
]

# The energy r'M^-1 r, a squared distance in standard errors, below which a sweep no longer moves the coefficients.
SETTLED_ENERGY = 1e-14
# Conjugate gradients go to this energy per row, where only rounding is left, or fall by this share before the end.
INNER_ENERGY, SWEEP_FALL = 1e-22, 1e-4
CG_MAXIT = 500


# ---------------------------------------------------------------------------------------------- labels, weights


def ordered_segments(labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """(T,) the distinct labels of rows that are in order, from labels (N,) and row weights (N,).

    Raises ValueError for no rows, for labels that go back, and for a segment without a row of positive weight.
    """
    labels = np.asarray(labels)
    if labels.size == 0:
        raise ValueError("segments: there are no rows. Give every row the label of its segment.")
    back = np.flatnonzero(labels[1:] < labels[:-1])
    if back.size:
        row = int(back[0]) + 1
        raise ValueError(
            f"segments must be sorted: row {row} has {labels[row]!s} after {labels[row - 1]!s}. "
            "Sort the rows by segment, or use labels that sort in time, such as dates."
        )
    distinct, codes = np.unique(labels, return_inverse=True)
    if weights is not None:
        counts = np.bincount(codes, weights=np.asarray(weights) > 0, minlength=distinct.size)
        if not counts.all():
            empty = distinct[int(np.argmin(counts))]
            raise ValueError(
                f"segments: {empty!s} is empty, all its rows have weight 0. Drop it or join it to the next."
            )
    return distinct


def kernel_weights(positions: np.ndarray, bandwidth: float) -> np.ndarray:
    """(T, T) Epanechnikov weights 1 - (|t - s| / h)^2 where |t - s| < h, 1 for t = s whatever h; infinity: all 1.

    positions : (T,) strictly increasing times of the segments.  Raises ValueError for a negative bandwidth or times
    that do not increase.
    """
    if not bandwidth >= 0.0:
        raise ValueError(f"bandwidth must be 0 or more, in units of the segments' times; got {bandwidth}.")
    steps = np.diff(positions)
    if not (steps > 0).all():
        at = int(np.argmin(steps > 0)) + 1
        raise ValueError(
            f"segments must be sorted: the time of segment {at} is {positions[at]}, not after {positions[at - 1]}."
        )
    if bandwidth == 0.0:
        return np.eye(positions.size)
    ratio = np.abs(positions[:, None] - positions[None, :]) / bandwidth
    return np.maximum(1.0 - ratio**2, 0.0)


# ---------------------------------------------------------------------------------------------- the problem


@dataclass(frozen=True, eq=False)
class _Segment:
    """One segment in the coordinates of all. stacks : per bucket (G, r, p).  y : (r, K).  beyond : (K, K)."""

    n_obs: int
    stacks: tuple[np.ndarray, ...]
    y: np.ndarray
    beyond: np.ndarray


class SegmentedProblem:
    """T compressed systems in the whitened coordinates of their union: residual covariances and GLS across segments.

    Memory: the rows of X once more, T (q + 1) P numbers at most, and T K^2 for the residual covariances.
    Raises ValueError for no segments, an empty one, and segments whose equations or regressors differ.
    """

    def __init__(self, segments: Sequence[Compressed], *, lam_B: float = 0.0) -> None:
        _check_segments(segments)
        self.merged = InMemory(reduce(Compressed.merge, segments), lam_B=lam_B, meter=Meter())
        self.design, self.n_obs = self.merged.design, self.merged.n_obs
        self.coordinates: Coordinates = self.merged.coordinates
        self.segments = tuple(self._segment(each) for each in segments)
        self.shares = np.array([each.n_obs for each in segments]) / self.n_obs

    def _segment(self, system: Compressed) -> _Segment:
        whitened, q = self.merged.whitened, system.design.n_regressors
        top = np.vstack([np.sqrt(system.head.weight) * system.head.mean, system.root[:q]])
        stacks = tuple(
            np.stack([_in_coordinates(whitened.groups[i], top) for i in members])
            for members, _, _ in self.coordinates.buckets
        )
        rest = system.root[q:, q:] / whitened.y_scale
        return _Segment(system.n_obs, stacks, top[:, q:] / whitened.y_scale, rest.T @ rest)

    def start(self) -> np.ndarray:
        """(P,) every equation fitted by itself on all rows."""
        return self.coordinates.flat(self.merged.whitened.start)

    def residual_covariances(self, c: np.ndarray) -> np.ndarray:
        """(T, K, K) S_t at coefficients c."""
        out = np.empty((len(self.segments), self.design.n_equations, self.design.n_equations))
        for t, each in enumerate(self.segments):
            residual = each.y - self.coordinates.forward(each.stacks, c)
            out[t] = (each.beyond + residual.T @ residual) / each.n_obs
        return out

    def gls(self, c: np.ndarray, sigmas: Sequence[LowRank], *, last: bool) -> tuple[Solution, float]:
        """The coefficients at the given Sigma_t by warm-started conjugate gradients, and the energy of the start.

        O(sum_t (q P + q K k)) an iteration.
        """
        at, ridge = self.coordinates, self.coordinates.ridge

        def summed(values: Sequence[np.ndarray]) -> np.ndarray:
            parts = zip(self.segments, sigmas, values, strict=True)
            return np.sum([at.adjoint(s.stacks, sigma.solve_rows(v)) for s, sigma, v in parts], axis=0)

        def product(p: np.ndarray, _: np.ndarray) -> np.ndarray:
            image: np.ndarray = summed([at.forward(s.stacks, p) for s in self.segments]) + ridge * p
            return image

        score = summed([s.y - at.forward(s.stacks, c) for s in self.segments]) - ridge * c
        precision = np.tensordot(self.shares, [sigma.precision_diagonal for sigma in sigmas], axes=1)
        diagonal = at.expand(precision) * (1.0 - ridge) + ridge
        energy = float(score**2 @ (1.0 / diagonal))
        tol = INNER_ENERGY * self.n_obs if last else max(INNER_ENERGY * self.n_obs, SWEEP_FALL * energy)
        found = conjugate_gradients(product, c, score, diagonal, tol=tol, max_iterations=CG_MAXIT)
        return found, energy

    def coefficients(self, c: np.ndarray) -> np.ndarray:
        """(P,) in the user's units, ordered equation by equation."""
        whitened = self.merged.whitened
        b = np.empty(self.design.n_coefficients)
        for group, values in zip(whitened.groups, self.coordinates.by_group(c), strict=True):
            b[group.group.coefficients] = group.coefficients(values) * whitened.y_scale[group.group.equations]
        return b


def _check_segments(segments: Sequence[Compressed]) -> None:
    if not segments:
        raise ValueError("segments: there are none. Give at least one.")
    for t, each in enumerate(segments):
        if each.n_obs == 0:
            raise ValueError(f"segments: number {t} is empty. Drop it or join it to the next.")
        if not each.design.same_as(segments[0].design):
            raise ValueError(f"segments: number {t} differs from the first in equations or regressors. Use the same.")


def _in_coordinates(group: WhitenedGroup, top: np.ndarray) -> np.ndarray:
    """(r, p) rows of X in whitened coordinates."""
    x = (top[:, group.group.columns] / group.x_scale)[:, group.order]
    q: np.ndarray = solve_triangular(group.root, x.T, trans="T").T
    return q if group.turn is None else q @ group.turn


# ---------------------------------------------------------------------------------------------- the fit


@dataclass(frozen=True, eq=False)
class TimeVaryingFit:
    """Common coefficients and one Sigma a segment.

    coefficients : (P,) in the user's units, equation by equation.  sigmas : T values in the user's units, their
    loadings rotated to be nearest to those of the segment before.  shares : (T,) n_t / N.
    nll : sum_t (n_t / N) nll(Sigma_t; S_t(b)), row weights and units included; loglik = -N nll.
    trace : per sweep the local likelihood sum_t (n_t / N) nll(Sigma_t; S_t(h; b)), in standard units.
    energy : squared distance, in standard errors, that the last GLS step had left to go.
    """

    coefficients: np.ndarray
    sigmas: tuple[LowRank, ...]
    bandwidth: float
    shares: np.ndarray
    n_obs: int
    nll: float
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
    d_floor: float = 1e-8,
    rel_tol: float = 1e-10,
    max_sweeps: int = 50,
) -> TimeVaryingFit:
    """Coefficients common to all segments and a Sigma_t = F_t F_t' + diag(d_t) for each, from rows in memory: no pass.

    segments : T systems of the same equations in the order of time, as `compress_by` makes them in one pass.
    bandwidth : in units of `positions`, (T,) increasing, by default 0 .. T - 1; 0 and infinity are allowed.
    Costs a Sigma step for every segment and one GLS solution a sweep; T K^2 numbers.
    Raises ValueError for a negative bandwidth, segments out of order, empty or of different equations.
    """
    _check_segments(segments)
    weights = kernel_weights(_positions(positions, len(segments)), bandwidth)
    problem = SegmentedProblem(segments, lam_B=lam_B)
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
    ridge_free = float(problem.shares @ [sigma.nll(each) for sigma, each in zip(sigmas, S, strict=True)])
    y_scale = problem.merged.whitened.y_scale
    return TimeVaryingFit(
        problem.coefficients(c),
        tuple(sigma.rescaled(y_scale) for sigma in _followed(sigmas)),
        bandwidth,
        problem.shares,
        problem.n_obs,
        ridge_free + problem.merged.nll_offset,
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
    out: np.ndarray = np.tensordot(weight[near] / weight[near].sum(), S[near], axes=1)
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
    d_floor: float = 1e-8,
) -> tuple[BandwidthScore, ...]:
    """Each bandwidth judged by leaving every segment in turn out of its own Sigma; best first.

    The coefficients are those of the static fit throughout: common to all segments, they barely notice one of them.
    Costs T Sigma steps a bandwidth.
    Raises ValueError for a bandwidth that reaches no neighbour of some segment.
    """
    _check_segments(segments)
    times = _positions(positions, len(segments))
    problem = SegmentedProblem(segments, lam_B=lam_B)
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
