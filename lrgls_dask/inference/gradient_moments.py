"""Sums of products of gradients as values that add with `+`; the operands hold consecutive rows, earlier ones first.

The gradient of a row is the (P,) derivative of its log-likelihood by the coefficients, or a projection of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrgls_dask.rows.moments import Sized

__all__ = [
    "ClusterMoments",
    "GradientSums",
    "GroupSums",
    "HacMoments",
    "LagMoments",
    "MeatMoments",
    "WaysMoments",
    "lag_matrix",
]


@dataclass(frozen=True, eq=False)
class MeatMoments(Sized):
    """Sum of s_i s_i'. n_rows : rows of positive weight.  meat : (P, P)."""

    n_rows: int
    meat: np.ndarray

    def __add__(self, other: MeatMoments) -> MeatMoments:
        return MeatMoments(self.n_rows + other.n_rows, self.meat + other.meat)

    def __iadd__(self, other: MeatMoments) -> MeatMoments:
        """The same in the memory of `self`, which is spent."""
        meat = self.meat
        meat += other.meat
        return MeatMoments(self.n_rows + other.n_rows, meat)


@dataclass(frozen=True, eq=False)
class GradientSums(Sized):
    """Sum and sum of squares of every gradient, (P,) each."""

    n_rows: int
    total: np.ndarray
    squares: np.ndarray

    def __add__(self, other: GradientSums) -> GradientSums:
        return GradientSums(self.n_rows + other.n_rows, self.total + other.total, self.squares + other.squares)


@dataclass(frozen=True, eq=False)
class ClusterMoments(Sized):
    """Sum over groups of (sum of s_i)(sum of s_i)'. Groups that have rows elsewhere stay open.

    Groups are those with a row of positive weight, so that the whole knows how many were used.
    start, stop : the rows covered, dropped ones included.  n_groups : wholly inside.  meat : (P, P) of these.
    codes : (g,) ascending, the open groups.  spans : (g, 2) their first and last row in all the data.
    sums : (g, P) their gradients so far.
    """

    start: int
    stop: int
    n_rows: int
    n_groups: int
    meat: np.ndarray
    codes: np.ndarray
    spans: np.ndarray
    sums: np.ndarray

    def __add__(self, other: ClusterMoments) -> ClusterMoments:
        codes, place = np.unique(np.concatenate([self.codes, other.codes]), return_inverse=True)
        mine, theirs = place[: len(self.codes)], place[len(self.codes) :]
        sums = np.zeros((len(codes), self.meat.shape[0]))
        sums[mine] = self.sums
        sums[theirs] += other.sums
        spans = np.empty((len(codes), 2), dtype=np.int64)
        spans[mine], spans[theirs] = self.spans, other.spans
        n_rows, n_groups = self.n_rows + other.n_rows, self.n_groups + other.n_groups
        meat = self.meat + other.meat
        return ClusterMoments(self.start, other.stop, n_rows, n_groups, meat, codes, spans, sums).folded()

    def folded(self) -> ClusterMoments:
        """The same with those open groups added to the meat that have no row elsewhere; spends `self`."""
        closed = (self.spans[:, 0] >= self.start) & (self.spans[:, 1] < self.stop)
        if not closed.any():
            return self
        done, meat, still = self.sums[closed], self.meat, ~closed
        meat += done.T @ done
        n_groups = self.n_groups + len(done)
        codes, spans, sums = self.codes[still], self.spans[still], self.sums[still]
        return ClusterMoments(self.start, self.stop, self.n_rows, n_groups, meat, codes, spans, sums)


@dataclass(frozen=True, eq=False)
class WaysMoments(Sized):
    """ClusterMoments of the same rows in several groupings."""

    ways: tuple[ClusterMoments, ...]

    @property
    def n_rows(self) -> int:
        return self.ways[0].n_rows

    def __add__(self, other: WaysMoments) -> WaysMoments:
        return WaysMoments(tuple(a + b for a, b in zip(self.ways, other.ways, strict=True)))


@dataclass(frozen=True, eq=False)
class GroupSums(Sized):
    """codes : (g,) ascending, groups with rows here.  sums : (g, P) of their gradients.  used : (g,) how many of their
    rows have a positive weight."""

    n_rows: int
    codes: np.ndarray
    sums: np.ndarray
    used: np.ndarray

    def __add__(self, other: GroupSums) -> GroupSums:
        codes, place = np.unique(np.concatenate([self.codes, other.codes]), return_inverse=True)
        sums = np.zeros((len(codes), self.sums.shape[1]))
        sums[place[: len(self.codes)]] = self.sums
        sums[place[len(self.codes) :]] += other.sums
        used = np.bincount(place, np.concatenate([self.used, other.used]), len(codes))
        return GroupSums(self.n_rows + other.n_rows, codes, sums, used)


@dataclass(frozen=True, eq=False)
class HacMoments(Sized):
    """Half of the weighted sum over pairs of rows in time: the whole is half + half'.

    half : (P, P) 1/2 sum s_t s_t' + sum over l = 1..L of w_l s_(t-l) s_t'.  weights : (L + 1,) w.
    first, last : the first and the last L gradient rows, all of them where there are fewer.
    """

    n_rows: int
    half: np.ndarray
    weights: np.ndarray
    first: np.ndarray
    last: np.ndarray

    def __add__(self, other: HacMoments) -> HacMoments:
        between = lag_matrix(self.weights, len(other.first), len(self.last)) @ self.last
        half = self.half + other.half
        half += between.T @ other.first
        n_lags = len(self.weights) - 1
        first, last = _ends(self.first, other.first, n_lags), _tail(self.last, other.last, n_lags)
        return HacMoments(self.n_rows + other.n_rows, half, self.weights, first, last)


@dataclass(frozen=True, eq=False)
class LagMoments(Sized):
    """Autocovariances before their weights are known. lags : (L + 1, P, P) sum of s_(t-l) s_t'.  total : (P,)."""

    n_rows: int
    lags: np.ndarray
    total: np.ndarray
    first: np.ndarray
    last: np.ndarray

    def __add__(self, other: LagMoments) -> LagMoments:
        lags = self.lags + other.lags
        for lag in range(1, len(lags)):
            # row j of `other` lies `lag` after row len(last) - lag + j of `self`
            low, high = max(0, lag - len(self.last)), min(lag, len(other.first))
            if high > low:
                shift = len(self.last) - lag
                lags[lag] += self.last[shift + low : shift + high].T @ other.first[low:high]
        n_lags = len(lags) - 1
        first, last = _ends(self.first, other.first, n_lags), _tail(self.last, other.last, n_lags)
        return LagMoments(self.n_rows + other.n_rows, lags, self.total + other.total, first, last)


def lag_matrix(weights: np.ndarray, n_later: int, n_earlier: int) -> np.ndarray:
    """(n_later, n_earlier) weight of the lag between row j of what follows and row i of what came before; 0 beyond."""
    lag = np.arange(n_later)[:, None] + n_earlier - np.arange(n_earlier)[None, :]
    return np.where(lag < len(weights), weights[np.minimum(lag, len(weights) - 1)], 0.0)


def _ends(mine: np.ndarray, theirs: np.ndarray, n_lags: int) -> np.ndarray:
    """The first n_lags rows of two stretches, given those of each; a full stretch needs none of the next."""
    return mine if len(mine) >= n_lags else np.concatenate([mine, theirs[: n_lags - len(mine)]])


def _tail(mine: np.ndarray, theirs: np.ndarray, n_lags: int) -> np.ndarray:
    """The last n_lags rows, likewise."""
    missing = n_lags - len(theirs)
    return theirs if missing <= 0 else np.concatenate([mine[max(0, len(mine) - missing) :], theirs])
