"""Sums over rows as values: `a + b` is what the rows of both give, whatever the order or the cut.

Means are kept as `anchor + offset`, the anchor being a row of the data: the difference of two rows is exact where
their common level is huge, so x = 1e14 + noise keeps the digits of its noise (Chan, Golub and LeVeque 1983).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from scipy.linalg import lapack

from lrgls_dask.design.batches import Batches

__all__ = [
    "DesignMoments",
    "DirectionMoments",
    "GramMoments",
    "Head",
    "Levels",
    "ProductMoments",
    "ResidualMoments",
    "RootMoments",
    "Scaling",
    "Sized",
    "StackedRows",
    "Summed",
    "UsedMoments",
    "reduced",
    "triangle",
]


class Sized:
    """Tells a scheduler how much it would move: the arrays inside."""

    def __sizeof__(self) -> int:
        return object.__sizeof__(self) + sum(_size_of(value) for value in vars(self).values())


def _size_of(value: Any) -> int:
    """Bytes of arrays, and of what holds them."""
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if isinstance(value, dict):
        return sum(_size_of(each) for each in value.values())
    if isinstance(value, tuple | list):
        return sum(map(_size_of, value))
    return sys.getsizeof(value)


@dataclass(frozen=True, eq=False)
class Levels(Sized):
    """What scaled columns know of a constant: with u_c the roots of column c of the weights of cells, which is what a
    column of ones has become, u_c'u_c (C,) and x'u (q,) of every column of X with the roots that it is scaled by."""

    weight: np.ndarray
    dot: np.ndarray

    def __add__(self, other: Levels) -> Levels:
        return Levels(self.weight + other.weight, self.dot + other.dot)

    def times(self, count: float) -> Levels:
        """Of rows taken so often."""
        return Levels(count * self.weight, count * self.dot)


@dataclass(frozen=True, eq=False)
class Head(Sized):
    """Count, weight and mean of some rows of [X Y].

    n_rows : rows of positive weight.  weight : their sum of weights.  log_weight : sum of log w; of the weights of
    cells, which the rows were scaled by, a row's is the mean over its equations.
    anchor, offset : (q + K,), the weighted mean is anchor + offset.  levels : None where cells have no weights.
    """

    n_rows: int
    weight: float
    log_weight: float
    anchor: np.ndarray
    offset: np.ndarray
    levels: Levels | None = None

    @property
    def mean(self) -> np.ndarray:
        return self.anchor + self.offset

    def merge(self, other: Head) -> tuple[Head, np.ndarray]:
        """The head of both, and g with g g' what the distance of the two means adds to the centred cross-product."""
        weight = self.weight + other.weight
        gap = (other.anchor - self.anchor) + (other.offset - self.offset)
        offset = self.offset + (other.weight / weight) * gap
        levels = None if self.levels is None or other.levels is None else self.levels + other.levels
        log_weight = self.log_weight + other.log_weight
        merged = Head(self.n_rows + other.n_rows, weight, log_weight, self.anchor, offset, levels)
        return merged, np.sqrt(self.weight * other.weight / weight) * gap


@dataclass(frozen=True, eq=False)
class Scaling:
    """By what some rows have been scaled: roots (n, C) of the weights of cells, weight (q,) which of them each column
    of X was. log_weights : (n,) mean log weight over the equations that a row shows."""

    roots: np.ndarray
    weight: np.ndarray
    log_weights: np.ndarray

    def take(self, rows: slice | np.ndarray) -> Scaling:
        """Of some of the rows."""
        return Scaling(self.roots[rows], self.weight, self.log_weights[rows])

    def told(self, head: Head, x: np.ndarray) -> Head:
        """The head of scaled rows x (n, q), with what only their scaling tells of them."""
        levels = Levels(np.sum(self.roots**2, axis=0), np.einsum("ij,ij->j", x, self.roots[:, self.weight]))
        return replace(head, log_weight=head.log_weight + float(self.log_weights.sum()), levels=levels)


@dataclass(frozen=True, eq=False)
class GramMoments(Sized):
    """Centred cross-product of rows of [X Y]. cross : (M, M)."""

    head: Head
    cross: np.ndarray

    def __add__(self, other: Self) -> Self:
        head, gap = self.head.merge(other.head)
        cross = self.cross + other.cross
        cross += np.multiply.outer(gap, gap)
        return replace(self, head=head, cross=cross)

    def __iadd__(self, other: Self) -> Self:
        """The same in the memory of `self`; both are spent."""
        head, gap = self.head.merge(other.head)
        cross = self.cross
        cross += other.cross
        # where `other` was: a product of its own would be as many fresh pages for every sum of every pattern
        cross += np.multiply.outer(gap, gap, out=other.cross)
        return replace(self, head=head, cross=cross)


@dataclass(frozen=True, eq=False)
class UsedMoments(GramMoments):
    """Of the columns of X that a pattern uses, and of what it shows: every sum of its rows leaves out the same ones.
    used : (q,) bool."""

    used: np.ndarray

    def whole(self) -> GramMoments:
        """Of all columns, those that the pattern does not use as zeros."""
        q, n_used = len(self.used), int(self.used.sum())
        width = q + len(self.cross) - n_used
        at = np.concatenate([np.flatnonzero(self.used), np.arange(q, width)])
        anchor, offset, cross = np.zeros(width), np.zeros(width), np.zeros((width, width))
        anchor[at], offset[at], cross[np.ix_(at, at)] = self.head.anchor, self.head.offset, self.cross
        return GramMoments(replace(self.head, anchor=anchor, offset=offset), cross)


@dataclass(frozen=True, eq=False)
class RootMoments(Sized):
    """Root of the centred cross-product: root'root, root (r, M) with r <= M rows, X zero below the first q of them
    (TSQR, Demmel 2012). n_x : how many columns are of X, or all of them where all are wanted triangular."""

    head: Head
    root: np.ndarray
    n_x: int | None = None

    def __add__(self, other: RootMoments) -> RootMoments:
        head, gap = self.head.merge(other.head)
        rows = np.vstack([self.root, other.root, gap])
        return RootMoments(head, rows if stays(rows, self.n_x) else reduced(rows, self.n_x), self.n_x)


@dataclass(frozen=True, eq=False)
class StackedRows(Sized):
    """Rows that are too few to be summed: pieces (n, M), centred each, and what their means differ by; adding copies
    nothing."""

    head: Head
    pieces: tuple[np.ndarray, ...]

    def __add__(self, other: StackedRows) -> StackedRows:
        head, gap = self.head.merge(other.head)
        return StackedRows(head, (*self.pieces, *other.pieces, gap[None, :]))


def triangle(rows: np.ndarray) -> np.ndarray:
    """R of the QR factorisation, (min(n, M), M); its columns keep a zero where `rows` has a zero column."""
    return np.asarray(np.linalg.qr(rows, mode="r"))


def stays(rows: np.ndarray, n_x: int | None) -> bool:
    """Whether there are so few rows (n, M) that they are what `reduced` makes of them."""
    return n_x is not None and len(rows) <= rows.shape[1] and (n_x == 0 or len(rows) <= n_x)


def reduced(rows: np.ndarray, n_x: int | None) -> np.ndarray:
    """(min(n, M), M) rows with the same cross-product, the first n_x columns zero below as many rows.

    All columns are a triangle, by some 2 n M^2 flops, where there are more rows than columns; else 4 n n_x M flops do.
    """
    if n_x is None or len(rows) > rows.shape[1]:
        return triangle(rows)
    if stays(rows, n_x):
        return rows.copy()
    x = np.asfortranarray(rows[:, :n_x])
    work, _ = lapack.dgeqrf_lwork(*x.shape)
    reflectors, tau, _, _ = lapack.dgeqrf(x, lwork=int(work), overwrite_a=1)
    triangular, reflectors = np.triu(reflectors), reflectors[:, : len(tau)]
    rest = np.asfortranarray(rows[:, n_x:])
    _, work, _ = lapack.dormqr("L", "T", reflectors, tau, rest, -1)
    turned, _, _ = lapack.dormqr("L", "T", reflectors, tau, rest, int(work[0]), overwrite_c=1)
    return np.hstack([triangular, turned])


@dataclass(frozen=True, eq=False)
class DesignMoments(Sized):
    """Centred moments equation by equation: what ordinary least squares needs, nothing of size (q + K)^2.

    batches : the designs by shape.  xx : per batch (G, p, p) X_g'X_g.  xy : (P,) X_g'Y_g, flat as coefficients are.
    yy : (K,) diagonal of Y'Y.
    """

    head: Head
    batches: Batches
    xx: tuple[np.ndarray, ...]
    xy: np.ndarray
    yy: np.ndarray

    def __add__(self, other: DesignMoments) -> DesignMoments:
        xx = tuple(each.copy() for each in self.xx)
        return DesignMoments(self.head, self.batches, xx, self.xy.copy(), self.yy.copy())._with(other)

    def __iadd__(self, other: DesignMoments) -> DesignMoments:
        """The same in the memory of `self`, which is spent."""
        return self._with(other)

    def _with(self, other: DesignMoments) -> DesignMoments:
        head, gap = self.head.merge(other.head)
        gap_x, gap_y = gap[: len(gap) - len(self.yy)], gap[len(gap) - len(self.yy) :]
        xx, xy, yy = self.xx, self.xy, self.yy
        xy += other.xy
        yy += other.yy
        yy += gap_y**2
        for batch, mine, theirs, of_xy in zip(self.batches.each, xx, other.xx, self.batches.split(xy), strict=True):
            gx = gap_x[batch.columns]
            mine += theirs
            mine += gx[:, :, None] * gx[:, None, :]
            of_xy += gx[:, :, None] * gap_y[batch.equations][:, None, :]
        return DesignMoments(head, self.batches, xx, xy, yy)


class Summed(Sized):
    """Moments that add field by field: numbers, arrays, and tuples entry by entry."""

    def __add__(self, other: Self) -> Self:
        return type(self)(*(_sum(a, b) for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def __iadd__(self, other: Self) -> Self:
        """The same in the memory of `self`, which is spent."""
        return type(self)(*(_grown(a, b) for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


def _sum(mine: Any, theirs: Any) -> Any:
    return tuple(map(_sum, mine, theirs)) if isinstance(mine, tuple) else mine + theirs


def _grown(mine: Any, theirs: Any) -> Any:
    if isinstance(mine, tuple):
        return tuple(map(_grown, mine, theirs))
    mine += theirs
    return mine


@dataclass(frozen=True, eq=False)
class ResidualMoments(Summed):
    """At given coefficients and Sigma. cross : (K, K) R'R, or (0, 0).  gradient : (P,) X_j'(R Sigma^-1)_j, flat as
    coefficients are, or (0,)."""

    cross: np.ndarray
    gradient: np.ndarray


@dataclass(frozen=True, eq=False)
class ProductMoments(Summed):
    """What replaces R'R where K x K is too large. along : (k, K) B'R'R.  squares : (K,) diagonal of R'R, or (0,).
    gradient : (P,) as above, or (0,)."""

    along: np.ndarray
    squares: np.ndarray
    gradient: np.ndarray


@dataclass(frozen=True, eq=False)
class DirectionMoments(Summed):
    """Along V = X times a direction. image : (P,) X_j'(V Sigma^-1)_j, flat as coefficients are.  vr, vv : (K, K) V'R
    and V'V, or (0, 0)."""

    image: np.ndarray
    vr: np.ndarray
    vv: np.ndarray
