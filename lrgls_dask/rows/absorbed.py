"""Rows less the effects of their groups: sums of groups, found as rows are read, and what they say.

Regressing columns Z on dummies D of the groups leaves Z - D A with (D'W D) A = D'W Z. Of one label A are the means of
groups, and Z'M Z, M the projection off D, is a sum over groups that merges as means and cross-products do (Chan, Golub
and LeVeque 1983): one pass. Of several labels D'W D is a table of pairs of groups, from the same sums, so that one pass
more reads rows less their effects, and no iteration reads any.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from lrgls_dask.errors import BadValues
from lrgls_dask.rows.block import Block, bad_values, missing_in, side_by_side, width_of
from lrgls_dask.rows.kernels import checked_weights, gram_kernel
from lrgls_dask.rows.moments import GramMoments, RootMoments, Sized, triangle

__all__ = ["GroupKernel", "GroupSums", "GroupedMoments", "LessEffects", "WithinMoments", "grouped_kernel"]


@dataclass(frozen=True, eq=False)
class GroupSums(Sized):
    """Of the groups that have rows of positive weight: numbers, weights, and weighted sums of [X Y] less an anchor.

    n_rows, weight, log_weight : of all rows, log_weight the sum of log w.  anchor : (M,).  codes : (g,) ascending.
    rows, weights : (g,).  sums : (g, M).  pairs : (c,) keys of pairs of groups of different labels, first * G + second,
    ascending, and together : (c,) their weights; none where there is one label.
    """

    n_rows: int
    weight: float
    log_weight: float
    anchor: np.ndarray
    codes: np.ndarray
    rows: np.ndarray
    weights: np.ndarray
    sums: np.ndarray
    pairs: np.ndarray
    together: np.ndarray

    @cached_property
    def means(self) -> np.ndarray:
        """(g, M) less the anchor."""
        return np.asarray(self.sums / self.weights[:, None])

    def __add__(self, other: GroupSums) -> GroupSums:
        codes, (mine, theirs) = _union(self.codes, other.codes)
        rows, weights = np.zeros(len(codes), dtype=np.int64), np.zeros(len(codes))
        sums = np.zeros((len(codes), len(self.anchor)))
        rows[mine], weights[mine], sums[mine] = self.rows, self.weights, self.sums
        rows[theirs] += other.rows
        weights[theirs] += other.weights
        sums[theirs] += other.sums + other.weights[:, None] * (other.anchor - self.anchor)
        pairs, (mine, theirs) = _union(self.pairs, other.pairs)
        together = np.zeros(len(pairs))
        together[mine] = self.together
        together[theirs] += other.together
        n_rows, weight = self.n_rows + other.n_rows, self.weight + other.weight
        log_weight = self.log_weight + other.log_weight
        return GroupSums(n_rows, weight, log_weight, self.anchor, codes, rows, weights, sums, pairs, together)


def _union(mine: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Ascending numbers of both, and where those of each stand among them."""
    if np.array_equal(mine, theirs):
        every = np.arange(len(mine))
        return mine, (every, every)
    both = np.sort(np.concatenate([mine, theirs]), kind="stable")  # two runs, which it merges
    both = both[np.concatenate([[True], both[1:] != both[:-1]])]
    return both, (np.searchsorted(both, mine), np.searchsorted(both, theirs))


@dataclass(frozen=True, eq=False)
class WithinMoments(Sized):
    """Sums of the groups of one label, and the cross-product of rows less the means of their groups, or its root.

    cross : (M, M) products, or (r, M) with cross'cross those where `rooted`.
    """

    groups: GroupSums
    cross: np.ndarray
    rooted: bool

    def __add__(self, other: WithinMoments) -> WithinMoments:
        mine, theirs = self.groups, other.groups
        places = np.minimum(np.searchsorted(theirs.codes, mine.codes), len(theirs.codes) - 1)
        i = np.flatnonzero(theirs.codes[places] == mine.codes)
        j = places[i]
        gap = (theirs.anchor - mine.anchor) + (theirs.means[j] - mine.means[i])
        gap *= np.sqrt(mine.weights[i] * theirs.weights[j] / (mine.weights[i] + theirs.weights[j]))[:, None]
        if self.rooted:
            cross = triangle(np.vstack([self.cross, other.cross, gap]))
        else:
            cross = self.cross + other.cross + gap.T @ gap
        return WithinMoments(mine + theirs, cross, self.rooted)


@dataclass(frozen=True, eq=False)
class GroupedMoments(Sized):
    """Sums of groups and cross-products of the same rows, of which effects of groups are not taken out yet."""

    groups: GroupSums
    moments: GramMoments

    def __add__(self, other: GroupedMoments) -> GroupedMoments:
        return GroupedMoments(self.groups + other.groups, self.moments + other.moments)


def grouped_kernel(block: Block, n_groups: int) -> GroupedMoments | None:
    """GroupedMoments of a block; None where no row has weight."""
    groups, moments = GroupKernel(n_groups)(block), gram_kernel(block)
    if not isinstance(groups, GroupSums) or moments is None:
        return None
    return GroupedMoments(groups, moments)


@dataclass(frozen=True, eq=False)
class GroupKernel:
    """GroupSums of a block; WithinMoments of it, of one label, where `within` is a kernel of cross-products.

    n_groups : G of all labels.  About n M flops for each label, and those of `within`.
    """

    n_groups: int
    within: Callable[[Block, None], GramMoments | RootMoments | None] | None = None

    def __call__(self, block: Block, params: None = None) -> GroupSums | WithinMoments | None:
        assert block.codes is not None
        whole, weights = block, checked_weights(block)
        used = np.arange(block.n_rows) if weights is None else np.flatnonzero(weights)
        if len(used) == 0:
            return None
        if len(used) < block.n_rows:
            assert weights is not None
            block, weights = block.take(used), weights[used]
        codes: Any = block.codes
        values = np.column_stack([side_by_side(block.x), side_by_side(block.y)]).astype(np.float64)
        anchor = values[0].copy()
        values -= anchor
        distinct, at = np.unique(codes, return_inverse=True)
        at = at.reshape(codes.shape)
        sums = self._sums(values, anchor, codes, distinct, at, weights)
        if not np.isfinite(sums.sums).all():
            raise bad_values(whole)
        check_labelled(whole)
        if self.within is None:
            return sums
        values -= sums.means[at[:, 0]]
        q = width_of(block.x)
        less = Block(block.start, (values[:, :q],), (values[:, q:],), weights)
        try:
            found = self.within(less, None)
        except BadValues:
            raise bad_values(whole) from None
        assert found is not None
        rooted = isinstance(found, RootMoments)
        return WithinMoments(sums, found.root if isinstance(found, RootMoments) else found.cross, rooted)

    def _sums(
        self,
        values: np.ndarray,
        anchor: np.ndarray,
        codes: np.ndarray,
        distinct: np.ndarray,
        at: np.ndarray,
        weights: np.ndarray | None,
    ) -> GroupSums:
        """Of rows less an anchor, of the groups `distinct` (g,), among which those of each row are `at` (n, L)."""
        n, n_labels = codes.shape
        w = np.ones(n) if weights is None else weights
        shape = (len(distinct), n)
        dummies = sp.csr_array((np.tile(w, n_labels), (at.T.ravel(), np.tile(np.arange(n), n_labels))), shape=shape)
        rows = np.bincount(at.ravel(), minlength=len(distinct))
        keys: list[np.ndarray] = [np.zeros(0, dtype=np.int64)]
        together: list[np.ndarray] = [np.zeros(0)]
        for a in range(n_labels):
            for b in range(a + 1, n_labels):
                pairs = codes[:, a].astype(np.int64) * self.n_groups + codes[:, b]
                found, which = np.unique(pairs, return_inverse=True)
                keys.append(found)
                together.append(np.bincount(which, w))
        order = np.argsort(np.concatenate(keys))
        log_weight = 0.0 if weights is None else float(np.log(w).sum())
        return GroupSums(
            n,
            float(w.sum()),
            log_weight,
            anchor,
            distinct.astype(np.int64),
            rows.astype(np.int64),
            np.asarray(dummies.sum(axis=1)).ravel(),
            np.asarray(dummies @ values),
            np.concatenate(keys)[order],
            np.concatenate(together)[order],
        )


@dataclass(frozen=True, eq=False)
class LessEffects:
    """A kernel over rows less the effects of their groups.  center, effects : see `Absorbed`."""

    kernel: Callable[[Block, Any], Any]
    center: np.ndarray
    effects: np.ndarray

    def __call__(self, block: Block, params: Any) -> Any:
        less = self._less(block)
        try:
            return self.kernel(less, params)
        except BadValues:
            raise bad_values(block) from None

    def _less(self, block: Block) -> Block:
        assert block.codes is not None
        check_labelled(block)
        less: list[tuple[np.ndarray, ...]] = []
        first = 0
        for arrays in (block.x, block.y):
            stop = first + width_of(arrays)
            if arrays:
                values = side_by_side(arrays).astype(np.float64)
                values -= self.center[first:stop]
                for codes in block.codes.T:
                    values -= self.effects[codes, first:stop]
                less.append((values,))
            else:
                less.append(())
            first = stop
        return replace(block, x=less[0], y=less[1])


def check_labelled(block: Block) -> None:
    """Raise ValueError for a row without a label that has weight and shows all responses: it has no group."""
    assert block.codes is not None
    without = np.flatnonzero((block.codes < 0).any(axis=1))
    if len(without) and block.weights is not None:
        without = without[np.asarray(block.weights)[without] > 0]
    if len(without) and block.y:
        without = without[~missing_in(tuple(array[without] for array in block.y)).any(axis=1)]
    if len(without):
        raise ValueError(
            f"absorb: row {block.start + int(without[0])} has no label, and shows all responses that are fitted. Give "
            "it one, or drop the row."
        )
