"""Moments of each equation over the rows that show it, from the rows or from what each pattern of them left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lrgls_dask.design.design import DesignGroup
from lrgls_dask.rows.moments import GramMoments, Levels, RootMoments, Sized

__all__ = ["AvailableMoments", "AvailableSums", "available_of", "shown_by"]

CONSTANT = 1e-13  # of a sum of squares about the anchor, fifty times what rounding leaves of none


@dataclass(frozen=True, eq=False)
class AvailableMoments(Sized):
    """Of the equations of one group, each over the rows that show it, its columns and its response together.

    rows, weight, log_weight : (m,) counts, sums of w and of log w.  anchor, offset : (m, p + 1), together the mean.
    cross : (m, p + 1, p + 1) centred cross-products.  levels : weight (m, C) and dot (m, p) of the rows that show each,
    where cells have weights.
    """

    rows: np.ndarray
    weight: np.ndarray
    log_weight: np.ndarray
    anchor: np.ndarray
    offset: np.ndarray
    cross: np.ndarray
    levels: Levels | None = None

    @property
    def mean(self) -> np.ndarray:
        return self.anchor + self.offset

    def times(self, n: int) -> AvailableMoments:
        """Of rows taken so often."""
        return AvailableMoments(
            n * self.rows,
            n * self.weight,
            n * self.log_weight,
            self.anchor,
            self.offset,
            n * self.cross,
            None if self.levels is None else self.levels.times(n),
        )

    def __add__(self, other: AvailableMoments) -> AvailableMoments:
        weight = self.weight + other.weight
        mine = (self.weight > 0)[:, None]
        anchor = np.where(mine, self.anchor, other.anchor)
        start = np.where(mine, self.offset, other.offset)
        gap = np.where((other.weight > 0)[:, None], (other.anchor - anchor) + (other.offset - start), 0.0)
        share = other.weight / np.where(weight > 0, weight, 1.0)
        between = (self.weight * share)[:, None, None] * gap[:, :, None] * gap[:, None, :]
        return AvailableMoments(
            self.rows + other.rows,
            weight,
            self.log_weight + other.log_weight,
            anchor,
            start + share[:, None] * gap,
            self.cross + other.cross + between,
            None if self.levels is None or other.levels is None else self.levels + other.levels,
        )


@dataclass
class AvailableSums:
    """Sums about the anchor of one group's equations, brought up slab by slab."""

    rows: np.ndarray
    weight: np.ndarray
    log_weight: np.ndarray
    total: np.ndarray
    cross: np.ndarray

    @classmethod
    def zero(cls, group: DesignGroup) -> AvailableSums:
        p, m = group.coefficients.shape
        return cls(np.zeros(m), np.zeros(m), np.zeros(m), np.zeros((m, p + 1)), np.zeros((m, p + 1, p + 1)))

    def add(
        self, x: np.ndarray, y: np.ndarray, observed: np.ndarray, weights: np.ndarray | None, group: DesignGroup
    ) -> None:
        shown = observed[:, group.take_equations]
        count = shown.sum(axis=0)
        self.rows += count
        self.weight += count if weights is None else weights @ shown
        if weights is not None:
            self.log_weight += np.log(weights) @ shown
        both = np.empty((len(x), x.shape[1] + 2))
        for i, j in enumerate(group.equations):
            both[:, :-2] = x
            both[:, -2] = y[:, j]
            both[:, -1] = 1.0
            both *= shown[:, i, None]
            sums = both.T @ (both if weights is None else both * weights[:, None])
            self.total[i] += sums[-1, :-1]
            self.cross[i] += sums[:-1, :-1]

    def centred(self, x_anchor: np.ndarray, y_anchor: np.ndarray) -> AvailableMoments:
        m = len(self.rows)
        anchor = np.column_stack([np.broadcast_to(x_anchor, (m, len(x_anchor))), y_anchor])
        offset = self.total / np.where(self.weight > 0, self.weight, 1.0)[:, None]
        cross = self.cross - self.weight[:, None, None] * offset[:, :, None] * offset[:, None, :]
        return AvailableMoments(
            self.rows, self.weight, self.log_weight, anchor, offset, _without_constant(cross, self.weight, offset)
        )


def _without_constant(cross: np.ndarray, weight: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """cross, in place, without the rounding that a column leaves which is constant where the equation is observed."""
    squares = np.diagonal(cross, axis1=1, axis2=2)
    constant = squares <= CONSTANT * (squares + weight[:, None] * offset**2)
    cross[constant[:, :, None] | constant[:, None, :]] = 0.0
    return cross


def shown_by(pattern: bytes, n_equations: int) -> np.ndarray:
    """(K,) bool, the equations that a pattern's packed bits say are observed."""
    return np.unpackbits(np.frombuffer(pattern, dtype=np.uint8), count=n_equations).astype(bool)


def available_of(
    patterns: Mapping[bytes, GramMoments | RootMoments], groups: tuple[DesignGroup, ...], n_equations: int
) -> tuple[AvailableMoments, ...]:
    """The same moments from those of [X Y_o] of every pattern, per group; sum_j (p_j + 1)^2 additions a pattern."""
    parts = [(shown_by(key, n_equations), patterns[key]) for key in sorted(patterns)]
    q = len(parts[0][1].head.anchor) - int(parts[0][0].sum())
    anchor, gaps = _gaps(parts, q)
    shown = np.array([seen for seen, _ in parts])
    weights = np.array([moments.head.weight for _, moments in parts])
    rows, log_weights = (
        np.array([[moments.head.n_rows, moments.head.log_weight] for _, moments in parts], dtype=float).T @ shown
    )
    weight = weights @ shown
    # every equation's columns and response side by side, and their products
    columns = [np.column_stack([np.tile(g.columns, (len(g.equations), 1)), q + g.equations]) for g in groups]
    column = np.concatenate([each.ravel() for each in columns])
    equation = np.concatenate([np.repeat(g.equations, each.shape[1]) for g, each in zip(groups, columns, strict=True)])
    left, right = _pairs([each.shape for each in columns])
    share = np.where(weight > 0, weight, 1.0)[equation]
    offset = (weights @ (gaps[:, column] * shown[:, equation])) / share
    cross = np.zeros(len(left))
    for (seen, moments), gap, total in zip(parts, gaps, weights, strict=True):
        at = np.concatenate([np.arange(q), q - 1 + np.cumsum(seen)])[column]
        away = (gap[column] - offset) * np.sqrt(total)
        whole = moments.cross if isinstance(moments, GramMoments) else moments.root.T @ moments.root
        part = whole[at[left], at[right]]
        part += away[left] * away[right]
        part *= seen[equation[left]]
        cross += part
    scaled = any(moments.head.levels is not None for _, moments in parts)
    found, one, two = [], 0, 0
    for group, each in zip(groups, columns, strict=True):
        (m, p), j = each.shape, group.equations
        mine = offset[one : one + m * p].reshape(m, p)
        squares = cross[two : two + m * p * p].reshape(m, p, p)
        one, two = one + m * p, two + m * p * p
        squares = _without_constant(squares, weight[j], mine)
        levels = _levels(parts, group, shown[:, j]) if scaled else None
        found.append(AvailableMoments(rows[j], weight[j], log_weights[j], anchor[each], mine, squares, levels))
    return tuple(found)


def _levels(
    parts: list[tuple[np.ndarray, GramMoments | RootMoments]], group: DesignGroup, shown: np.ndarray
) -> Levels | None:
    """Of the equations of a group, over the patterns that show them, shown (patterns, m); None where not known."""
    known = [(moments.head.levels, seen) for (_, moments), seen in zip(parts, shown, strict=True) if seen.any()]
    levels = [each for each, _ in known if each is not None]
    if not known or len(levels) < len(known):
        return None
    seen = np.array([each for _, each in known], dtype=float).T
    return Levels(seen @ [each.weight for each in levels], seen @ [each.dot[group.columns] for each in levels])


def _gaps(parts: list[tuple[np.ndarray, GramMoments | RootMoments]], q: int) -> tuple[np.ndarray, np.ndarray]:
    """(q + K,) one anchor for all patterns, and (patterns, q + K) their means less it, zero where missing."""
    width = q + len(parts[0][0])
    anchor, gaps = np.zeros(width), np.zeros((len(parts), width))
    known = np.zeros(width, dtype=bool)
    for (seen, moments), gap in zip(parts, gaps, strict=True):
        at = np.concatenate([np.arange(q), q + np.flatnonzero(seen)])
        anchor[at] = np.where(known[at], anchor[at], moments.head.anchor)
        known[at] |= moments.head.anchor != 0  # which is that of a column that the pattern does not use
        gap[at] = (moments.head.anchor - anchor[at]) + moments.head.offset
    return anchor, gaps


def _pairs(shapes: list[tuple[int, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """Where the two factors of every product of an equation's columns stand, (m, p) columns a group."""
    left, right, first = [], [], 0
    for m, p in shapes:
        at = first + np.arange(m * p).reshape(m, p)
        left.append(np.repeat(at, p, axis=1).ravel())
        right.append(np.tile(at, (1, p)).ravel())
        first += m * p
    return np.concatenate(left), np.concatenate(right)
