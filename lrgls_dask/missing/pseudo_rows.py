"""Few rows in place of all that show the same equations: what the likelihood sees of every pattern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lrgls_dask.compression.available import shown_by
from lrgls_dask.compression.by_pattern import rooted
from lrgls_dask.design.design import Design
from lrgls_dask.missing.kernels import MaskedParams, residuals_of
from lrgls_dask.missing.slabs import MaskedSlab, block_slabs
from lrgls_dask.rows.block import Block
from lrgls_dask.rows.moments import GramMoments, Head, RootMoments, triangle

__all__ = ["PatternRows"]

SLAB_ROWS = 2048  # pseudo-rows worked on at once


@dataclass(frozen=True, eq=False)
class PatternRows:
    """Pseudo-rows of all patterns, less an origin: x (r, q), y (r, K) zero where missing, observed (r, K), unit (r,),
    count (r,), as in MaskedSlab."""

    x: np.ndarray
    y: np.ndarray
    observed: np.ndarray
    unit: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, patterns: Mapping[bytes, RootMoments | GramMoments], design: Design, origin: np.ndarray) -> PatternRows:
        """At most q + |o| + 1 pseudo-rows a pattern, patterns in the order of their bits."""
        parts = [_pseudo_rows(key, patterns[key], design, origin) for key in sorted(patterns)]
        values, observed, unit, count = (np.concatenate(column) for column in zip(*parts, strict=True))
        q = design.n_regressors
        # by columns: an equation uses a few of X
        return cls(np.asfortranarray(values[:, :q]), values[:, q:], observed, unit, count)

    @classmethod
    def of_rows(cls, blocks: tuple[Block, ...], origin: np.ndarray) -> PatternRows:
        """The rows of positive weight themselves, each a pattern of its own."""
        parts = [
            (
                slab.x.copy(),
                slab.y.copy(),
                slab.observed.copy(),
                np.ones(len(slab.x)) if slab.unit is None else slab.unit,
            )
            for block in blocks
            for slab in block_slabs(block, origin)  # all in the same memory
        ]
        x, y, observed, unit = (np.concatenate(column) for column in zip(*parts, strict=True))
        return cls(np.asfortranarray(x), y, observed, unit, np.ones(len(unit)))

    @staticmethod
    def weighted(parts: Sequence[PatternRows], weights: np.ndarray) -> PatternRows:
        """All of them, each with a weight in every sum over rows."""
        roots = np.sqrt(weights)
        return PatternRows(
            np.concatenate([root * each.x for root, each in zip(roots, parts, strict=True)]),
            np.concatenate([root * each.y for root, each in zip(roots, parts, strict=True)]),
            np.concatenate([each.observed for each in parts]),
            np.concatenate([root * each.unit for root, each in zip(roots, parts, strict=True)]),
            np.concatenate([weight * each.count for weight, each in zip(weights, parts, strict=True)]),
        )

    def that_show(self) -> PatternRows:
        """Those of rows that show something."""
        some = self.observed.any(axis=1)
        if some.all():
            return self
        return PatternRows(self.x[some], self.y[some], self.observed[some], self.unit[some], self.count[some])

    def residuals(self, params: MaskedParams) -> PatternRows:
        """At fixed coefficients: rows without X whose y is the residuals in units of `scale`, at most |o| a pattern.

        A QR factorisation a pattern, 2 (q + |o|) |o|^2 flops: the likelihood sees R_o'R_o alone.
        """
        first = np.flatnonzero(self.count)
        residual = np.concatenate([residuals_of(slab, params) for slab in self.slabs()])
        if len(first) == len(residual):
            return PatternRows(np.zeros((len(residual), 0)), residual, self.observed, 0.0 * self.unit, self.count)
        parts = [
            _reduced(rows, np.flatnonzero(seen))
            for rows, seen in zip(np.split(residual, first[1:]), self.observed[first], strict=True)
        ]
        heights = [len(part) for part in parts]
        observed, none = np.repeat(self.observed[first], heights, axis=0), np.zeros(sum(heights))
        count = none.copy()
        count[np.cumsum([0, *heights[:-1]])] = self.count[first]
        return PatternRows(np.zeros((len(none), 0)), np.concatenate(parts), observed, none, count)

    def slab(self, rows: slice) -> MaskedSlab:
        """Some of the rows as the kernels want them."""
        return MaskedSlab.of(self.x[rows], self.y[rows], self.observed[rows], self.unit[rows], self.count[rows])

    def slabs(self) -> list[MaskedSlab]:
        """The rows as the kernels want them."""
        return [self.slab(slice(i, i + SLAB_ROWS)) for i in range(0, len(self.x), SLAB_ROWS)]


def _reduced(rows: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """At most as many rows as columns are seen, at least one, of the same cross-product; zero elsewhere."""
    height = max(1, len(seen))
    if len(rows) <= height:
        return rows
    reduced = np.zeros((height, rows.shape[1]))
    if len(seen):
        reduced[:, seen] = triangle(rows[:, seen])
    return reduced


def _pseudo_rows(
    key: bytes, moments: RootMoments | GramMoments, design: Design, origin: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(r, q + K) values, (r, K) observed, (r,) unit and (r,) count of one pattern."""
    n_y, q = design.n_equations, design.n_regressors
    shown = np.flatnonzero(shown_by(key, n_y))
    at = np.concatenate([np.arange(q), q + shown])
    head: Head = moments.head
    mean = (head.anchor - origin[at]) + head.offset
    root = rooted(moments).root
    values = np.zeros((len(root) + 1, q + n_y))
    values[0, at] = np.sqrt(head.weight) * mean
    values[1:, at] = root
    observed = np.zeros((len(values), n_y))
    observed[:, shown] = 1.0
    unit, count = np.zeros(len(values)), np.zeros(len(values))
    unit[0], count[0] = np.sqrt(head.weight), head.n_rows
    return values, observed, unit, count
