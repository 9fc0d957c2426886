"""Rows in segments: their order, their weights for one another, and T compressed systems as one problem.

Every segment is brought to the whitened coordinates of all rows together (whiten.py), so that one vector c of all
coefficients serves them all while each has a Sigma_t of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from lrgls_dask.compression.compressed import Compressed, partial_bytes
from lrgls_dask.design.design import Design
from lrgls_dask.design.penalties import Ridge
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.options import CG_MAXIT
from lrgls_dask.rows.meter import Meter
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.solve.cg import Solution, conjugate_gradients
from lrgls_dask.solve.constraint import Preconditioner
from lrgls_dask.solve.coordinates import Coordinates
from lrgls_dask.solve.in_memory import InMemory
from lrgls_dask.solve.starting_values import starting_residuals
from lrgls_dask.solve.whiten import WhitenedGroup
from lrgls_dask.varying.windows import ResidualCovariances, Segments

__all__ = [
    "SegmentedProblem",
    "check_all",
    "client_bytes",
    "kernel_weights",
    "ordered_segments",
    "posed",
    "segment_edges",
    "segment_times",
]

# Conjugate gradients go to this energy r'M^-1 r per row, where only rounding is left, or fall by this share before the
# last sweep.
INNER_ENERGY, SWEEP_FALL = 1e-22, 1e-4


# ---------------------------------------------------------------------------------------------- labels, weights


def ordered_segments(labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """(T,) the distinct labels of rows that are in order, from labels (N,) and row weights (N,).

    Raises ValueError for no rows, for labels that go back, and for a segment without a row of positive weight.
    """
    labels = np.asarray(labels)
    if labels.size == 0:
        raise ValueError("segments: there are no rows. Give every row the label of its segment.")
    back = labels[1:] < labels[:-1]
    if back.any():
        row = int(np.argmax(back)) + 1
        raise ValueError(
            f"segments must be sorted: row {row} has {labels[row]!s} after {labels[row - 1]!s}. "
            "Sort the rows by segment, or use labels that sort in time, such as dates."
        )
    starts = segment_edges(labels)[:-1]
    distinct = labels[starts]
    if weights is not None:
        seen = np.logical_or.reduceat(np.asarray(weights) > 0, starts)
        if not seen.all():
            empty = distinct[int(np.argmin(seen))]
            raise ValueError(
                f"segments: {empty!s} is empty, all its rows have weight 0. Drop it or join it to the next."
            )
    return distinct


def segment_edges(labels: np.ndarray) -> np.ndarray:
    """(T + 1,) the first row of each segment of ordered labels (N,), the last is N."""
    return np.concatenate([[0], np.flatnonzero(labels[1:] != labels[:-1]) + 1, [len(labels)]])


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


def segment_times(positions: np.ndarray | None, n: int) -> np.ndarray:
    """(n,) times of n segments: as given, else 0 .. n - 1. Raises ValueError for another number of them."""
    out = np.arange(n, dtype=float) if positions is None else np.asarray(positions, dtype=float)
    if out.shape != (n,):
        raise ValueError(f"segments: {n} segments but times of shape {out.shape}. Give one time for each segment.")
    return out


# ---------------------------------------------------------------------------------------------- the problem


def client_bytes(design: Design, n_segments: int, rank: int) -> int:
    """Bytes of T compressed segments and of all that the loop makes of them, beside the system of all rows.

    A segment's own: its root and the sum of rows it is made of, together or in turn its rows of X in coordinates and
    Y; residual covariances of two sweeps; factors; a product of conjugate gradients with every segment's rows. Weights
    of segments for one another are T x T. The choice of a bandwidth comes before the fit and takes no more.
    """
    q, K = design.n_regressors, design.n_equations
    root = partial_bytes(design)
    rows = 8 * (q + 1) * (sum(len(group.columns) for group in design.groups) + K)
    loop = rows + 8 * (3 * K**2 + 4 * (rank + 1) * K + 2 * (q + 1) * K + 2 * design.n_coefficients)
    return n_segments * (root + max(root, loop)) + 24 * n_segments**2


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

    def __init__(
        self, segments: Sequence[Compressed], *, lam_B: Ridge = 0.0, restrictions: Restrictions | None = None
    ) -> None:
        check_segments(segments)
        together = reduce(Compressed.merge, segments)
        self.merged = InMemory(together, lam_B=lam_B, meter=Meter(), restrictions=restrictions)
        self.design, self.n_obs = self.merged.design, self.merged.n_obs
        self.coordinates: Coordinates = self.merged.coordinates
        self.segments = tuple(self._segment(each) for each in segments)
        self.rows = np.array([each.n_obs for each in segments])
        self.shares = self.rows / self.n_obs
        self.cells = np.repeat(self.rows[:, None], self.design.n_equations, axis=1)
        whitened = self.merged.whitened
        self.free, self.exact, self.resolution = self.merged.free, whitened.exact, self.merged.resolution
        self.y_scale, self.nll_offset = whitened.y_scale, self.merged.nll_offset

    def _segment(self, system: Compressed) -> _Segment:
        whitened, q = self.merged.whitened, system.design.n_regressors
        top = system.stacked(q)
        stacks = tuple(
            np.stack([_in_coordinates(whitened.groups[i], top) for i in members])
            for members, _, _ in self.coordinates.buckets
        )
        rest = system.root[q:, q:] / whitened.y_scale
        return _Segment(system.n_obs, stacks, top[:, q:] / whitened.y_scale, rest.T @ rest)

    def start(self) -> np.ndarray:
        """(P,) every equation fitted by itself on all rows, moved as little as the restrictions allow."""
        return starting_residuals(self.merged)[0]

    def residual_covariances(self, c: np.ndarray) -> np.ndarray:
        """(T, K, K) S_t at coefficients c."""
        out = np.empty((len(self.segments), self.design.n_equations, self.design.n_equations))
        for t, each in enumerate(self.segments):
            residual = each.y - self.coordinates.forward(each.stacks, c)
            out[t] = (each.beyond + residual.T @ residual) / each.n_obs
        return out

    def residuals(self, c: np.ndarray) -> ResidualCovariances:
        """What they leave at coefficients c."""
        return ResidualCovariances(self.residual_covariances(c), self.shares)

    def mean_squares(self) -> np.ndarray:
        """(K,) of the responses over all rows, in standard units."""
        squares = np.sum([np.sum(s.y**2, axis=0) + s.beyond.diagonal() for s in self.segments], axis=0)
        mean: np.ndarray = squares / self.n_obs
        return mean

    def own_squares(self, t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(K,) each: squared residuals of every equation fitted to segment t alone, squares of its response about the
        mean there, and the rank of its regressors there; in standard units."""
        each, K = self.segments[t], self.design.n_equations
        fitted, ranks = np.zeros_like(each.y), np.zeros(K, dtype=int)
        for stack, (members, _, _) in zip(each.stacks, self.coordinates.buckets, strict=True):
            u, s, _ = np.linalg.svd(stack, full_matrices=False)
            u *= (s > self.merged.resolution * np.max(s, axis=1, keepdims=True, initial=0.0))[:, None, :]
            for basis, i in zip(u, members, strict=True):
                mine = self.merged.whitened.groups[i].group.equations
                fitted[:, mine] = basis @ (basis.T @ each.y[:, mine])
                ranks[mine] = np.count_nonzero(basis.any(axis=0))
        beyond = each.beyond.diagonal()
        squares = np.sum((each.y - fitted) ** 2, axis=0) + beyond
        return squares, np.sum(each.y[1:] ** 2, axis=0) + beyond, ranks

    def gls(self, c: np.ndarray, sigmas: Sequence[LowRank], *, last: bool) -> tuple[Solution, float]:
        """The coefficients at the given Sigma_t, within the restrictions, and the energy of the start.

        Warm-started conjugate gradients, O(sum_t (q P + q K k)) an iteration.
        """
        at, ridge = self.coordinates, self.coordinates.ridge

        def summed(values: Sequence[np.ndarray]) -> np.ndarray:
            parts = zip(self.segments, sigmas, values, strict=True)
            return np.sum([at.adjoint(s.stacks, sigma.solve_rows(v)) for s, sigma, v in parts], axis=0)

        def product(p: np.ndarray, _: np.ndarray) -> np.ndarray:
            image: np.ndarray = summed([at.forward(s.stacks, p) for s in self.segments]) + ridge * p
            return image

        gradient = summed([s.y - at.forward(s.stacks, c) for s in self.segments]) - ridge * c
        precision = np.tensordot(self.shares, [sigma.precision_diagonal for sigma in sigmas], axes=1)
        diagonal = at.expand(precision) * (1.0 - ridge) + ridge
        constraint = self.merged.constraint
        gradient, z = Preconditioner(diagonal, constraint)(gradient)
        energy = float(gradient @ z)
        tol = INNER_ENERGY * self.n_obs if last else max(INNER_ENERGY * self.n_obs, SWEEP_FALL * energy)
        found = conjugate_gradients(
            product, c, gradient, diagonal, tol=tol, max_iterations=CG_MAXIT, constraint=constraint
        )
        return found, energy

    def coefficients(self, c: np.ndarray) -> np.ndarray:
        """(P,) in the user's units, ordered equation by equation."""
        return self.merged.whitened.coefficients(self.coordinates.by_group(c))


def check_all(found: Collection[int], labels: Sequence[Any]) -> None:
    """Raise ValueError where a segment has no row of positive weight.  found : the numbers of those that have."""
    empty = [label for number, label in enumerate(labels) if number not in found]
    if empty:
        raise ValueError(
            f"segments: {empty[0]!s} is empty, all its rows have weight 0. Drop it or join it to the next."
        )


def posed(segments: Sequence[Compressed] | Segments, lam_B: Ridge, restrictions: Restrictions | None) -> Segments:
    """Compressed segments as a problem; one that is posed already, with its own ridge and restrictions, as it is."""
    if isinstance(segments, Sequence):
        return SegmentedProblem(segments, lam_B=lam_B, restrictions=restrictions)
    return segments


def check_segments(segments: Sequence[Compressed]) -> None:
    """Raises ValueError for no segments, an empty one, and one whose equations or regressors differ."""
    if not segments:
        raise ValueError("segments: there are none. Give at least one.")
    for t, each in enumerate(segments):
        if each.n_obs == 0:
            raise ValueError(f"segments: number {t} is empty. Drop it or join it to the next.")
        if not each.design.same_as(segments[0].design):
            raise ValueError(f"segments: number {t} differs from the first in equations or regressors. Use the same.")


def _in_coordinates(group: WhitenedGroup, top: np.ndarray) -> np.ndarray:
    """(r, p) rows of X in whitened coordinates."""
    return group.adjoint(top[:, group.group.columns].T).T
