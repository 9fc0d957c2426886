"""What tells the rows of a fit from others: moments of each column, found again by the pass a statistic takes anyway.

Of every column the mean and the standard deviation, and of every equation the variance of one combination of its
columns in standard units, which sees how they go together. Sums do not depend on the order of rows and only to rounding
on how they are cut; they tell apart what could matter to a statistic, and nothing smaller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from lrgls_dask.design.design import Design, DesignGroup
from lrgls_dask.rows.block import Block
from lrgls_dask.rows.kernels import forward, slabs
from lrgls_dask.rows.moments import Sized
from lrgls_dask.rows.partition import RowRuns

__all__ = ["ALL_ROWS", "OTHER_ROWS", "Fingerprint", "Watched", "WatchedMoments", "mixture"]

# What may differ, in standard deviations, and of the size of each value: a statistic does not see it, and the same rows
# stored in float32 are the same rows.
SAME, STORED = 1e-6, 4 * 2.0**-24
ROUNDING = 1e-13  # of a mean
FLAT = 1e-9  # a column that varies by less than this share of its mean is taken for a constant
ALL_ROWS = np.array([0, 2**62])  # the edges of a single run, however many rows there are
OTHER_ROWS = "Pass the System that was fitted, in chunks of any length; where its data were changed since, fit again"
GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0


def mixture(n_columns: int) -> np.ndarray:
    """(p,) what columns in standard units are multiplied with, all different and between -1 and 1."""
    parts: np.ndarray = 2.0 * (np.arange(1, n_columns + 1) * GOLDEN % 1.0) - 1.0
    return parts


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Moments of T runs of rows, one for a fit with one Sigma.

    edges : (T + 1,) the first row of each run.  count, weight : (T, 1) rows of positive weight, and sums of weights.
    mean, spread : (T, q + K) of [X Y].
    mixed : (T, K) variance of y_j and the equation's regressors, each over its spread, combined by `mixture`.
    Where rows show only some equations each stands by itself, over the rows that show it: count and weight (1, K), and
    the P columns of the coefficients before Y.
    """

    edges: np.ndarray
    count: np.ndarray
    weight: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    mixed: np.ndarray

    @cached_property
    def varies(self) -> np.ndarray:
        """(T, q + K) whether a column is no constant."""
        return np.asarray(self.spread > FLAT * np.abs(self.mean))

    @cached_property
    def scale(self) -> np.ndarray:
        """(T, q + K) the unit in which a column's mean and spread are compared: its spread, of a constant its size."""
        level = np.abs(self.mean)
        return np.where(self.varies, self.spread, np.where(level > 0, level, 1.0))

    @cached_property
    def in_mixture(self) -> np.ndarray:
        """(T, q + K) what a column is multiplied with before it is mixed: constants take no part."""
        return np.where(self.varies, 1.0 / self.scale, 0.0)

    def check(self, found: Fingerprint, design: Design) -> None:
        """Raise ValueError, naming what differs first, where moments that were found are not these.

        found : `mixed` in the units of this one.
        """
        names = self._names(design)
        for t, (first, last) in enumerate(zip(self.edges[:-1], self.edges[1:], strict=True)):
            where = "" if len(self.weight) == 1 else f" in rows {first:,} to {last - 1:,}"
            slack = self._slack(t)
            for what, mine, theirs, least in (
                ("the sum of weights of", self.weight[t], found.weight[t], SAME * self.weight[t]),
                ("the mean of", self.mean[t], found.mean[t], slack),
                ("the standard deviation of", self.spread[t], found.spread[t], slack),
                ("how columns go together in", self.mixed[t], found.mixed[t], self._slack_of_mixed(t, slack, design)),
            ):
                differs = ~(np.abs(mine - theirs) <= least)
                if differs.any():
                    j = int(np.argmax(differs))
                    column = "all rows" if len(mine) == 1 < len(self.mixed[t]) else names[len(names) - len(mine) + j]
                    raise ValueError(
                        f"these are not the rows that were fitted: {what} {column}{where} is {theirs[j]:.10g}, and was "
                        f"{mine[j]:.10g}. {OTHER_ROWS}."
                    )

    @property
    def _is_whole(self) -> bool:
        """Whether all equations are of the same rows."""
        return self.weight.shape[1] == 1

    def _slack(self, t: int) -> np.ndarray:
        """(q + K,) by how much means and spreads of a run may differ; what rounding adds is averaged over the rows."""
        rows = np.maximum(self.count[t], 1.0)
        return SAME * self.scale[t] + (ROUNDING + STORED / np.sqrt(rows.min())) * np.abs(self.mean[t])

    def _slack_of_mixed(self, t: int, slack: np.ndarray, design: Design) -> np.ndarray:
        """(K,) the same of mixtures, which are of the size of as many columns."""
        share, K = slack / self.scale[t], design.n_equations
        own = zip(design.columns, design.spans, range(len(share) - K, len(share)), strict=True)
        worst = [max(share[columns if self._is_whole else mine].max(), share[y]) for columns, mine, y in own]
        size = [1.0 + float(np.sum(mixture(p) ** 2)) for p in design.sizes]
        return 4.0 * np.array(worst) * np.array(size)

    def _names(self, design: Design) -> list[str]:
        if self._is_whole:
            names = [f"regressor {name!r}" for name in design.regressors]
        else:
            each = zip(design.equations, design.terms, strict=True)
            names = [f"regressor {term!r} of equation {name!r}" for name, terms in each for term in terms]
        return names + [f"equation {name!r}" for name in design.equations]


# ---------------------------------------------------------------------------------------------- found by a pass


@dataclass(frozen=True, eq=False)
class ColumnSums(Sized):
    """Of some rows of one run, each column less its fitted mean and over its scale, and of the mixtures.

    weight : of all.  first, second : (q + K,) sums and sums of squares.  mixed, mixed_square : (K,) likewise.
    """

    weight: float
    first: np.ndarray
    second: np.ndarray
    mixed: np.ndarray
    mixed_square: np.ndarray

    def __add__(self, other: ColumnSums) -> ColumnSums:
        return ColumnSums(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


@dataclass(frozen=True, eq=False)
class WatchedMoments(Sized):
    """What a kernel found, and the sums of the rows it found it in, by run."""

    found: Any
    sums: dict[int, ColumnSums]

    def __add__(self, other: WatchedMoments) -> WatchedMoments:
        return WatchedMoments(self.found + other.found, self._sums_with(other))

    def __iadd__(self, other: WatchedMoments) -> WatchedMoments:
        """The same in the memory of `self`, which is spent."""
        found = self.found
        found += other.found
        return WatchedMoments(found, self._sums_with(other))

    def _sums_with(self, other: WatchedMoments) -> dict[int, ColumnSums]:
        merged = dict(self.sums)
        for run, sums in other.sums.items():
            merged[run] = merged[run] + sums if run in merged else sums
        return merged

    def fingerprint(self, fitted: Fingerprint) -> Fingerprint:
        """Of the rows of the pass, in the units of the fit."""
        made = [_moments(self.sums.get(t), fitted, t) for t in range(len(fitted.weight))]
        return Fingerprint(fitted.edges, fitted.count, *(np.stack(parts) for parts in zip(*made, strict=True)))


def _moments(sums: ColumnSums | None, fitted: Fingerprint, t: int) -> tuple[np.ndarray, ...]:
    """Weight, mean, spread and mixed of one run; a run without a row of positive weight has none."""
    if sums is None:
        nothing = np.full_like(fitted.mean[t], np.nan)
        return np.zeros(1), nothing, nothing, np.full_like(fitted.mixed[t], np.nan)
    weight = sums.weight
    away = sums.first / weight
    spread = np.sqrt(np.maximum(sums.second / weight - away**2, 0.0))
    mixed = sums.mixed_square / weight - (sums.mixed / weight) ** 2
    return np.array([weight]), fitted.mean[t] + fitted.scale[t] * away, fitted.scale[t] * spread, mixed


@dataclass(frozen=True, eq=False)
class Watched:
    """A kernel that also sums what the fingerprint of its rows is made of: a few passes over a slab in the cache."""

    kernel: Callable[[Block, Any], Any]
    fitted: Fingerprint
    groups: tuple[DesignGroup, ...]

    def __call__(self, block: Block, params: Any) -> WatchedMoments:
        found = self.kernel(block, params)  # which names values that no sum can use
        runs, cuts = RowRuns(self.fitted.edges).within(block.start, block.start + block.n_rows)
        sums = {}
        for t, first, last in zip(runs.tolist(), cuts[:-1] - block.start, cuts[1:] - block.start, strict=True):
            of_run = self._sums(_cut(block, int(first), int(last)), t)
            if of_run is not None:
                sums[t] = of_run
        return WatchedMoments(found, sums)

    def _sums(self, block: Block, t: int) -> ColumnSums | None:
        scale, n_y = self.fitted.scale[t], self.fitted.mixed.shape[1]
        in_mixture = self.fitted.in_mixture[t] * scale  # one or zero
        parts = [mixture(len(g.columns)) * in_mixture[g.columns] for g in self.groups]
        coefficients = tuple(part[:, None] for part in parts)  # the same for every response
        total = None
        for values, _, weights in slabs(block, self.fitted.mean[t]):
            values /= scale
            each = np.ones(len(values)) if weights is None else weights
            mixed = forward(values[:, :-n_y], coefficients, self.groups, n_y) + values[:, -n_y:] * in_mixture[-n_y:]
            squares = each @ (values * values), each @ (mixed * mixed)
            part = ColumnSums(float(each.sum()), each @ values, squares[0], each @ mixed, squares[1])
            total = part if total is None else total + part
        return total


def _cut(block: Block, first: int, last: int) -> Block:
    """Consecutive rows of a block."""
    if first == 0 and last == block.n_rows:
        return block
    rows = slice(first, last)
    weights = None if block.weights is None else block.weights[rows]
    return replace(
        block,
        start=block.start + first,
        x=tuple(a[rows] for a in block.x),
        y=tuple(a[rows] for a in block.y),
        weights=weights,
    )
