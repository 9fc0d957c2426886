"""What one block of rows contributes to sums of products of gradients. Pure NumPy, in the manner of `kernels`.

The gradient of row i is s_i = w_i x_ic (Sigma^-1 r_i)_j over the coefficients c of all equations j, or projected on
a few directions. Rows of weight zero have gradient zero and keep their place, which lags in time and groups need.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from lrgls_dask.design.design import DesignGroup
from lrgls_dask.inference.gradient_moments import (
    ClusterMoments,
    GradientSums,
    GroupSums,
    HacMoments,
    LagMoments,
    MeatMoments,
    WaysMoments,
)
from lrgls_dask.inference.leverage import Leverage
from lrgls_dask.rows.block import Block, bad_values, width_of
from lrgls_dask.rows.kernels import checked_weights, even_rows, fill, forward, scratch, slab_rows
from lrgls_dask.rows.partition import RowRuns
from lrgls_dask.rows.sums import sums
from lrgls_dask.sigma.interface import Sigma

__all__ = [
    "Clusters",
    "GradientParams",
    "SigmaRuns",
    "check_sums",
    "cluster_kernel",
    "each_row",
    "filtered",
    "gradient_slabs",
    "gradient_sums_kernel",
    "group_sums_kernel",
    "hac_kernel",
    "lag_kernel",
    "meat_kernel",
    "n_used",
]

SLAB_BYTES = 64 * 2**20  # that gradients of all coefficients of a slab's rows take at most
PROJECTED_AT_ONCE = 1024  # coefficients whose gradients are formed together where they are projected
FILTERED_ROWS = 128  # the band of lags among so many rows is worked through as a full matrix


@dataclass(frozen=True, eq=False)
class Clusters:
    """Which group each row belongs to, as runs of equal codes.

    starts : (R + 1,) first rows of the runs, the last is N.  codes : (R,) their groups, 0..G-1.
    first, last : (G,) first and last row of each group.
    """

    starts: np.ndarray
    codes: np.ndarray
    first: np.ndarray
    last: np.ndarray

    def rows(self, start: int, stop: int) -> np.ndarray:
        """(stop - start,) codes of these rows."""
        a, b = np.searchsorted(self.starts, [start, stop - 1], side="right")
        edges = np.clip(self.starts[a - 1 : b + 1], start, stop)
        return np.repeat(self.codes[a - 1 : b], np.diff(edges))


def each_row(n_rows: int) -> Clusters:
    """Every row a group of its own."""
    codes = np.arange(n_rows + 1)
    return Clusters(codes, codes[:-1], codes[:-1], codes[:-1])


class SigmaOfRows(Protocol):
    """A Sigma that depends on the row."""

    def solve_rows(self, E: np.ndarray, start: int) -> np.ndarray:
        """(n, K) E Sigma_i^-1, row by row, for the rows from number `start` on."""
        ...


@dataclass(frozen=True, eq=False)
class SigmaRuns:
    """One Sigma for each run of consecutive rows: that of part t for its rows."""

    runs: RowRuns
    sigmas: tuple[Sigma, ...]

    def rescaled(self, scale: np.ndarray) -> SigmaRuns:
        """diag(scale) Sigma_t diag(scale) for every run."""
        return SigmaRuns(self.runs, tuple(sigma.rescaled(scale) for sigma in self.sigmas))

    def solve_rows(self, E: np.ndarray, start: int) -> np.ndarray:
        """(n, K) E Sigma_t^-1, t of each row, for the rows from number `start` on."""
        parts, cuts = self.runs.within(start, start + len(E))
        edges = cuts - start
        pieces = [self.sigmas[t].solve_rows(E[a:b]) for t, a, b in zip(parts, edges[:-1], edges[1:], strict=True)]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


@dataclass(frozen=True, eq=False)
class GradientParams:
    """What the gradient kernels are told.

    groups : the equations by design.  anchor : (q + K,) what columns are taken less.  shift : (P,) what a coefficient's
    column gets back, None for nothing.  columns, equations : (P,) the column and equation of every coefficient.
    slopes : per group (p, m) from columns less anchor to Y.  intercept : (K,) residual of a row at the anchor.
    sigma : of all rows, of runs of them, or of what each row shows.  scale : (K,) units of Y in which it is given.
    project : (P, m) directions, or None for the gradients themselves.
    weights : (L + 1,) of lags, for "hac"; for autocovariances only their number counts.  clusters : ways of
    grouping rows.  leverage : by which residuals are enlarged, None for as they are.
    """

    groups: tuple[DesignGroup, ...]
    anchor: np.ndarray
    shift: np.ndarray | None
    columns: np.ndarray | slice
    equations: np.ndarray
    slopes: tuple[np.ndarray, ...]
    intercept: np.ndarray
    scale: np.ndarray
    sigma: Sigma | SigmaOfRows
    project: np.ndarray | None = None
    weights: np.ndarray | None = None
    clusters: tuple[Clusters, ...] = ()
    leverage: Leverage | None = None

    @cached_property
    def even_slopes(self) -> np.ndarray | None:
        """(K, p, 1) where equation j alone uses columns j p to (j + 1) p, after the first; else None."""
        sizes = {group.coefficients.shape for group in self.groups}
        consecutive = isinstance(self.columns, slice)
        even = consecutive and len(self.groups) == len(self.scale) and len(sizes) == 1
        return np.stack(self.slopes) if even else None

    def solve_rows(self, residual: np.ndarray, start: int) -> np.ndarray:
        """(n, K) residual Sigma^-1 of rows from number `start` on."""
        if isinstance(self.sigma, Sigma):
            return self.sigma.solve_rows(residual)
        return self.sigma.solve_rows(residual, start)

    @property
    def width(self) -> int:
        """Gradients of a row: P, or m where they are projected."""
        return len(self.equations) if self.project is None else self.project.shape[1]


# ---------------------------------------------------------------------------------------------- kernels


def meat_kernel(block: Block, params: GradientParams) -> MeatMoments:
    """MeatMoments of a block, n P^2 flops (SYRK); two P x P arrays."""
    meat = np.zeros((params.width, params.width))
    product = scratch("meat", meat.shape)
    n_rows = 0
    for gradients, weights in gradient_slabs(block, params):
        n_rows += n_used(gradients, weights)
        meat += sums(gradients.T, gradients, out=product)
    check_sums(block, meat.diagonal())
    return MeatMoments(n_rows, meat)


def gradient_sums_kernel(block: Block, params: GradientParams) -> GradientSums:
    """GradientSums of a block, n P flops."""
    total = GradientSums(0, np.zeros(params.width), np.zeros(params.width))
    for gradients, weights in gradient_slabs(block, params):
        n_rows = n_used(gradients, weights)
        total += GradientSums(n_rows, gradients.sum(axis=0), np.einsum("ij,ij->j", gradients, gradients))
    check_sums(block, total.squares)
    return total


def cluster_kernel(block: Block, params: GradientParams) -> WaysMoments:
    """WaysMoments of a block: for each way of grouping at most n P^2 flops, and P numbers for every group that no one
    slab holds whole."""
    tallies = [_Tally.of(block, params, clusters) for clusters in params.clusters]
    start = 0
    for gradients, weights in gradient_slabs(block, params):
        # a group without a row that is used is none
        used = slice(None) if weights is None else weights > 0
        for tally in tallies:
            tally.add(start, len(gradients), gradients, used)
        start += len(gradients)
    for tally in tallies:
        check_sums(block, tally.meat.diagonal(), tally.sums)
    return WaysMoments(tuple(tally.moments() for tally in tallies))


class _Tally:
    """Sums of gradients by group while the slabs of a block go by; groups inside one slab go straight to the meat."""

    def __init__(self, block: Block, clusters: Clusters, kept: np.ndarray, width: int) -> None:
        self.first, self.last, self.kept = clusters.first, clusters.last, kept
        self.codes = clusters.rows(block.start, block.start + block.n_rows)
        self.begin, self.stop = block.start, block.start + block.n_rows
        self.meat = np.zeros((width, width))
        self.sums, self.seen = np.zeros((len(kept), width)), np.zeros(len(kept), dtype=bool)
        self.n_rows = self.n_groups = 0

    @classmethod
    def of(cls, block: Block, params: GradientParams, clusters: Clusters) -> _Tally:
        return cls(block, clusters, _straddling(block, params, clusters), params.width)

    def add(self, start: int, n_rows: int, gradients: np.ndarray, used: slice | np.ndarray) -> None:
        """A slab of n_rows rows, the first of them number `start` of the block."""
        begin, end = self.begin + start, self.begin + start + n_rows
        of_rows, gradients = self.codes[start : start + n_rows][used], gradients[used]
        self.n_rows += len(gradients)
        if not len(gradients):
            return
        here, of_groups = _sum_by_group(gradients, of_rows)
        whole = (self.first[here] >= begin) & (self.last[here] < end)
        done = of_groups[whole]
        self.meat += sums(done.T, done, out=scratch("meat", self.meat.shape))
        self.n_groups += len(done)
        places = np.searchsorted(self.kept, here[~whole])
        self.sums[places] += of_groups[~whole]
        self.seen[places] = True

    def moments(self) -> ClusterMoments:
        kept, sums = self.kept[self.seen], self.sums[self.seen]
        spans = np.stack([self.first[kept], self.last[kept]], axis=1)
        return ClusterMoments(self.begin, self.stop, self.n_rows, self.n_groups, self.meat, kept, spans, sums).folded()


def group_sums_kernel(block: Block, params: GradientParams) -> GroupSums:
    """GroupSums of a block, n P flops and P numbers for every group in it."""
    (clusters,) = params.clusters
    of_rows = clusters.rows(block.start, block.start + block.n_rows)
    codes = np.unique(of_rows)
    sums, used = np.zeros((len(codes), params.width)), np.zeros(len(codes))
    n_rows, start = 0, 0
    for gradients, weights in gradient_slabs(block, params):
        n_rows += n_used(gradients, weights)
        mine = of_rows[start : start + len(gradients)]
        here, of_groups = _sum_by_group(gradients, mine)
        sums[np.searchsorted(codes, here)] += of_groups
        counted = mine if weights is None else mine[weights > 0]
        used += np.bincount(np.searchsorted(codes, counted), minlength=len(codes))
        start += len(gradients)
    check_sums(block, sums)
    return GroupSums(n_rows, codes, sums, used)


def hac_kernel(block: Block, params: GradientParams) -> HacMoments:
    """HacMoments of a block, n (2 P^2 + 2 P (L + 128)) flops: filtered along time, then multiplied once."""
    assert params.weights is not None
    n_lags = len(params.weights) - 1
    half = np.zeros((params.width, params.width))
    product = scratch("meat", half.shape)
    first = earlier = np.zeros((0, params.width))
    bands: dict[tuple[int, int], np.ndarray] = {}
    n_rows = 0
    for gradients, weights in gradient_slabs(block, params):
        n_rows += n_used(gradients, weights)
        rows = np.concatenate([earlier, gradients])
        along = _filtered(rows, len(earlier), params.weights, bands)
        half += sums(along.T, gradients, out=product)
        first, earlier = _first_rows(first, gradients, n_lags), rows[max(0, len(rows) - n_lags) :]
    check_sums(block, half.diagonal(), earlier)
    return HacMoments(n_rows, half, params.weights, first, earlier)


def lag_kernel(block: Block, params: GradientParams) -> LagMoments:
    """LagMoments of a block, 2 (L + 1) n P^2 flops and L + 1 arrays P x P."""
    assert params.weights is not None
    n_lags = len(params.weights) - 1
    lags = np.zeros((n_lags + 1, params.width, params.width))
    total = np.zeros(params.width)
    first = earlier = np.zeros((0, params.width))
    n_rows = 0
    for gradients, weights in gradient_slabs(block, params):
        n_rows += n_used(gradients, weights)
        rows = np.concatenate([earlier, gradients])
        for lag in range(n_lags + 1):
            begin = max(0, lag - len(earlier))  # the first row that has one so much earlier
            if begin < len(gradients):
                shift = len(earlier) - lag
                lags[lag] += rows[shift + begin : shift + len(gradients)].T @ gradients[begin:]
        total += gradients.sum(axis=0)
        first, earlier = _first_rows(first, gradients, n_lags), rows[max(0, len(rows) - n_lags) :]
    check_sums(block, lags[0].diagonal(), earlier)
    return LagMoments(n_rows, lags, total, first, earlier)


# ---------------------------------------------------------------------------------------------- gradients


def gradient_slabs(block: Block, params: GradientParams) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Gradients of a slab's rows, (n, P) or (n, m), valid until the next is asked for, and their weights, if any."""
    arrays = (*block.x, *block.y)
    width, n_y = width_of(arrays), width_of(block.y)
    height = _slab_height(block, params)
    buffer = scratch("slab", (height, width))
    for first in range(0, block.n_rows, height):
        last = min(first + height, block.n_rows)
        values = buffer[: last - first]
        fill(values, arrays, first, last, params.anchor)
        weights = checked_weights(block, first, last)
        if weights is not None:
            values[weights == 0] = 0.0  # whatever they hold
        x = values[:, : width - n_y]
        residual = values[:, width - n_y :] - _fitted(x, params, n_y)
        residual += params.intercept
        residual /= params.scale
        if params.leverage is not None:
            params.leverage.enlarge(residual, x, weights, block.start + first)
        solved = params.solve_rows(residual, block.start + first)
        if weights is not None:
            solved *= weights[:, None]
        yield _gradients(x, solved, params), weights


def n_used(gradients: np.ndarray, weights: np.ndarray | None) -> int:
    """How many rows have a positive weight."""
    return len(gradients) if weights is None else int(np.count_nonzero(weights))


def _fitted(x: np.ndarray, params: GradientParams, n_y: int) -> np.ndarray:
    """(n, K) X b; one batched product where every equation has as many columns of its own, side by side."""
    if params.even_slopes is not None:
        by_equation = x[:, params.columns].reshape(len(x), n_y, -1).transpose(1, 0, 2)
        return np.matmul(by_equation, params.even_slopes)[:, :, 0].T
    return forward(x, params.slopes, params.groups, n_y)


def _slab_height(block: Block, params: GradientParams) -> int:
    """Rows of a slab of this block, all but the last."""
    width = width_of((*block.x, *block.y)) + min(len(params.equations), PROJECTED_AT_ONCE)
    most = slab_rows(width)
    if params.project is None:
        most = max(1, min(most, SLAB_BYTES // (8 * len(params.equations))))
    return even_rows(block.n_rows, most)


def _gradients(x: np.ndarray, solved: np.ndarray, params: GradientParams) -> np.ndarray:
    """x_c (Sigma^-1 r)_j for every coefficient, or their projection a few coefficients at a time."""
    n_coefficients = len(params.equations)
    if params.project is None:
        gradients = scratch("gradients", (len(x), n_coefficients))
        _form(gradients, x, solved, params, slice(0, n_coefficients))
        return gradients
    projected = np.zeros((len(x), params.width))
    for begin in range(0, n_coefficients, PROJECTED_AT_ONCE):
        chosen = slice(begin, min(begin + PROJECTED_AT_ONCE, n_coefficients))
        gradients = scratch("gradients", (len(x), chosen.stop - begin))
        _form(gradients, x, solved, params, chosen)
        projected += gradients @ params.project[chosen]
    return projected


def _form(gradients: np.ndarray, x: np.ndarray, solved: np.ndarray, params: GradientParams, chosen: slice) -> None:
    """Fill `gradients` (n, c) with those of the chosen coefficients."""
    # mode="clip" because the default would fill a copy first; every index is in range
    np.take(solved, params.equations[chosen], axis=1, out=gradients, mode="clip")
    if isinstance(params.columns, slice):
        regressors = x[:, params.columns][:, chosen]
    else:
        regressors = x.take(params.columns[chosen], axis=1)
    if params.shift is not None:
        regressors = regressors + params.shift[chosen]
    gradients *= regressors


def check_sums(block: Block, *sums: np.ndarray) -> None:
    """Raise BadValues if a sum shows that a value was NaN, infinite, or too large to be squared."""
    if not all(np.isfinite(values).all() for values in sums):
        raise bad_values(block)


# ---------------------------------------------------------------------------------------------- groups and lags


def _straddling(block: Block, params: GradientParams, clusters: Clusters) -> np.ndarray:
    """Codes, ascending, of the groups in this block that no single slab holds whole."""
    height = _slab_height(block, params)
    here = np.unique(clusters.rows(block.start, block.start + block.n_rows))
    first, last = clusters.first[here] - block.start, clusters.last[here] - block.start
    whole = (first >= 0) & (last < block.n_rows) & (first // height == last // height)
    return here[~whole]


def _sum_by_group(gradients: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct codes, ascending, and the sum of each one's rows."""
    if (codes[1:] < codes[:-1]).any():
        order = np.argsort(codes, kind="stable")
        codes, gradients = codes[order], gradients[order]
    starts = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]]))
    if len(starts) == len(codes):
        return codes, gradients
    return codes[starts], np.add.reduceat(gradients, starts, axis=0)


def _first_rows(first: np.ndarray, gradients: np.ndarray, n_lags: int) -> np.ndarray:
    """The first n_lags rows so far, in memory of their own."""
    missing = n_lags - len(first)
    return np.concatenate([first, gradients[:missing]]) if missing > 0 else first


def filtered(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n, P) for each row half of it and the weighted rows before it, weights (L + 1,) of lags."""
    return _filtered(rows, 0, weights, {})


def _filtered(
    rows: np.ndarray, n_earlier: int, weights: np.ndarray, bands: dict[tuple[int, int], np.ndarray]
) -> np.ndarray:
    """(n, P) for each row after the first n_earlier: half of it and the weighted rows before it.

    A few rows at a time, so that the band is most of the matrix it lies in; `bands` keeps these matrices.
    """
    out = np.empty((len(rows) - n_earlier, rows.shape[1]))
    for first in range(0, len(out), FILTERED_ROWS):
        last = min(first + FILTERED_ROWS, len(out))
        begin = max(0, n_earlier + first - (len(weights) - 1))
        shape = (n_earlier + first - begin, last - first)
        if shape not in bands:
            bands[shape] = _band(weights, *shape)
        np.matmul(bands[shape], rows[begin : n_earlier + last], out=out[first:last])
    return out


def _band(weights: np.ndarray, n_earlier: int, n_rows: int) -> np.ndarray:
    """(n_rows, n_earlier + n_rows): 1/2 for the row itself, w_l for the row l before it, 0 for later ones."""
    lag = np.arange(n_rows)[:, None] + n_earlier - np.arange(n_earlier + n_rows)[None, :]
    band = np.where((lag >= 0) & (lag < len(weights)), weights[np.clip(lag, 0, len(weights) - 1)], 0.0)
    band[lag == 0] = 0.5
    return band
