"""Moments of each equation over the rows that show it, from the rows or from what each pattern of them left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lrgls_dask.design.batches import Batch, Batches
from lrgls_dask.rows.moments import GramMoments, Levels, RootMoments, Sized
from lrgls_dask.rows.tiles import Tile

__all__ = ["AvailableMoments", "AvailableSums", "available_of", "shown_by"]

PRODUCTS_AT_ONCE = 64  # of two columns: a few megabytes of them for the rows of a slab
CONSTANT = 1e-13  # of a sum of squares about the anchor, fifty times what rounding leaves of none


@dataclass(frozen=True, eq=False)
class AvailableMoments(Sized):
    """Of e equations with p regressors each, each over the rows that show it, its columns and its response together.

    rows, weight, log_weight : (e,) counts, sums of w and of log w.  anchor, offset : (e, p + 1), together the mean.
    cross : (e, p + 1, p + 1) centred cross-products.  levels : weight (e, C) and dot (e, p) of the rows that show each,
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

    def take(self, some: slice) -> AvailableMoments:
        """Of consecutive ones of the equations: views."""
        levels = None if self.levels is None else Levels(self.levels.weight[some], self.levels.dot[some])
        return AvailableMoments(
            self.rows[some],
            self.weight[some],
            self.log_weight[some],
            self.anchor[some],
            self.offset[some],
            self.cross[some],
            levels,
        )

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
    """Sums about the anchor of the equations of one batch, (G, m) of each kind, brought up tile by tile."""

    rows: np.ndarray
    weight: np.ndarray
    log_weight: np.ndarray
    total: np.ndarray
    cross: np.ndarray

    @classmethod
    def zero(cls, batch: Batch) -> AvailableSums:
        g, p, m = batch.places.shape
        rows, weight, log_weight = np.zeros((3, g, m))
        return cls(rows, weight, log_weight, np.zeros((g, m, p + 1)), np.zeros((g, m, p + 1, p + 1)))

    def add(self, tile: Tile, x: np.ndarray, y: np.ndarray, shown: np.ndarray, weights: np.ndarray | None) -> None:
        """The rows of a tile: x (n, c) less their anchor, y (n, g m) zero where it is missing, shown (n, g m)."""
        g, _, m = tile.shape
        mine = tile.designs, tile.responses
        count = shown.sum(axis=0).reshape(g, m)
        self.rows[mine] += count
        if weights is None:
            self.weight[mine] += count
            counted = shown
        else:
            self.weight[mine] += (weights @ shown).reshape(g, m)
            self.log_weight[mine] += (np.log(weights) @ shown).reshape(g, m)
            counted = shown * weights[:, None]
        if m == 1:
            self._add_masked(tile, x, y, counted)
            return
        columns = tile.by_design(x)
        for at, of in enumerate(columns):
            here = slice(at * m, (at + 1) * m)
            self._add_shared((tile.designs.start + at, tile.responses), of, y[:, here], counted[:, here])

    def _add_masked(self, tile: Tile, x: np.ndarray, y: np.ndarray, counted: np.ndarray) -> None:
        """Of designs of one equation each: the rows that show it, all designs in one product."""
        g, p, _ = tile.shape
        both = np.empty((g, len(x), p + 2))
        both[:, :, :p] = tile.by_design(x)
        both[:, :, p], both[:, :, -1] = y.T, 1.0
        sums = (both * counted.T[:, :, None]).transpose(0, 2, 1) @ both
        mine = tile.designs, tile.responses.start
        self.total[mine] += sums[:, -1, :-1]
        self.cross[mine] += sums[:, :-1, :-1]

    def _add_shared(self, mine: tuple[int, slice], x: np.ndarray, y: np.ndarray, counted: np.ndarray) -> None:
        """Of equations with the same columns x (n, p): products of these once, summed over the rows that show each."""
        p = x.shape[1]
        rows, columns = np.tril_indices(p)
        total, cross = self.total[mine], self.cross[mine]
        total[:, :p] += counted.T @ x
        taken = y * counted
        total[:, p] += taken.sum(axis=0)
        of_y = taken.T @ x
        cross[:, p, :p] += of_y
        cross[:, :p, p] += of_y
        cross[:, p, p] += np.einsum("ij,ij->j", taken, y)
        turned = np.ascontiguousarray(x.T)  # whose rows are taken in a fifth of the time
        for first in range(0, len(rows), PRODUCTS_AT_ONCE):
            some = slice(first, first + PRODUCTS_AT_ONCE)
            i, j = rows[some], columns[some]
            products = ((turned[i] * turned[j]) @ counted).T
            cross[:, i, j] += products
            cross[:, j[i != j], i[i != j]] += products[:, i != j]

    def centred(self, x_anchor: np.ndarray, y_anchor: np.ndarray) -> AvailableMoments:
        """x_anchor (G, p), y_anchor (G, m) : what rows are less."""
        g, m = y_anchor.shape
        wide = np.broadcast_to(x_anchor[:, None, :], (g, m, x_anchor.shape[1]))
        anchor = np.concatenate([wide, y_anchor[:, :, None]], axis=2).reshape(g * m, -1)
        rows, weight, log_weight = self.rows.ravel(), self.weight.ravel(), self.log_weight.ravel()
        offset = self.total.reshape(g * m, -1) / np.where(weight > 0, weight, 1.0)[:, None]
        cross = self.cross.reshape(g * m, *self.cross.shape[2:])
        cross = cross - weight[:, None, None] * offset[:, :, None] * offset[:, None, :]
        return AvailableMoments(rows, weight, log_weight, anchor, offset, _without_constant(cross, weight, offset))


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
    patterns: Mapping[bytes, GramMoments | RootMoments], batches: Batches, n_equations: int
) -> tuple[AvailableMoments, ...]:
    """The same moments from those of [X Y_o] of every pattern, per batch; sum_j (p_j + 1)^2 additions a pattern."""
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
    equations = [batch.equations.ravel() for batch in batches.each]
    regressors = [np.repeat(batch.columns, batch.equations.shape[1], axis=0) for batch in batches.each]
    columns = [np.column_stack([x, q + j]) for x, j in zip(regressors, equations, strict=True)]
    column = np.concatenate([each.ravel() for each in columns])
    equation = np.concatenate([np.repeat(j, each.shape[1]) for j, each in zip(equations, columns, strict=True)])
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
    for of_x, j, each in zip(regressors, equations, columns, strict=True):
        m, p = each.shape
        mine = offset[one : one + m * p].reshape(m, p)
        squares = cross[two : two + m * p * p].reshape(m, p, p)
        one, two = one + m * p, two + m * p * p
        squares = _without_constant(squares, weight[j], mine)
        levels = _levels(parts, of_x, shown[:, j]) if scaled else None
        found.append(AvailableMoments(rows[j], weight[j], log_weights[j], anchor[each], mine, squares, levels))
    return tuple(found)


def _levels(
    parts: list[tuple[np.ndarray, GramMoments | RootMoments]], columns: np.ndarray, shown: np.ndarray
) -> Levels | None:
    """Of equations with columns (e, p) each, over the patterns that show them, shown (patterns, e); None where not
    known."""
    known = [(moments.head.levels, seen) for (_, moments), seen in zip(parts, shown, strict=True) if seen.any()]
    levels = [each for each, _ in known if each is not None]
    if not known or len(levels) < len(known):
        return None
    seen = np.array([each for _, each in known], dtype=float).T
    dots = np.array([each.dot for each in levels])[:, columns]
    return Levels(seen @ [each.weight for each in levels], np.einsum("ej,jep->ep", seen, dots))


def _gaps(parts: list[tuple[np.ndarray, GramMoments | RootMoments]], q: int) -> tuple[np.ndarray, np.ndarray]:
    """(q + K,) one anchor for all patterns, and (patterns, q + K) their means less it, zero where missing."""
    width = q + len(parts[0][0])
    anchor, gaps = np.zeros(width), np.zeros((len(parts), width))
    places = [np.concatenate([np.arange(q), q + np.flatnonzero(seen)]) for seen, _ in parts]
    for (_, moments), at in zip(reversed(parts), reversed(places), strict=True):
        own = moments.head.anchor
        anchor[at] = np.where(own != 0, own, anchor[at])  # zero is also that of a column that the pattern does not use
    for (_, moments), at, gap in zip(parts, places, gaps, strict=True):  # all of them about the same anchor
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
