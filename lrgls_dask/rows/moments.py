"""Sums over rows as values: `a + b` is what the rows of both give, whatever the order or the cut.

Means are kept as `anchor + offset`, the anchor being a row of the data: the difference of two rows is exact where
their common level is huge, so x = 1e14 + noise keeps the digits of its noise (Chan, Golub and LeVeque 1983).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.linalg.blas import dger

from lrgls_dask.design.design import DesignGroup

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

    def __add__(self, other: GramMoments) -> GramMoments:
        head, gap = self.head.merge(other.head)
        cross = self.cross + other.cross
        cross += np.multiply.outer(gap, gap)
        return GramMoments(head, cross)

    def __iadd__(self, other: GramMoments) -> GramMoments:
        """The same in the memory of `self`, which is spent."""
        head, gap = self.head.merge(other.head)
        cross = self.cross
        cross += other.cross
        # in place: a product of its own would be as many fresh pages for every sum of every pattern
        return GramMoments(head, dger(1.0, gap, gap, a=cross.T, overwrite_a=1).T)


@dataclass(frozen=True, eq=False)
class RootMoments(Sized):
    """Triangular root of the centred cross-product: root'root, root (r, M) with r <= M rows (TSQR, Demmel 2012)."""

    head: Head
    root: np.ndarray

    def __add__(self, other: RootMoments) -> RootMoments:
        head, gap = self.head.merge(other.head)
        return RootMoments(head, triangle(np.vstack([self.root, other.root, gap])))


def triangle(rows: np.ndarray) -> np.ndarray:
    """R of the QR factorisation, (min(n, M), M); its columns keep a zero where `rows` has a zero column."""
    return np.asarray(np.linalg.qr(rows, mode="r"))


@dataclass(frozen=True, eq=False)
class DesignMoments(Sized):
    """Centred moments equation by equation: what ordinary least squares needs, nothing of size (q + K)^2.

    xx : per group (p, p) X_g'X_g.  xy : per group (p, m) X_g'Y_g.  yy : (K,) diagonal of Y'Y.
    """

    head: Head
    groups: tuple[DesignGroup, ...]
    xx: tuple[np.ndarray, ...]
    xy: tuple[np.ndarray, ...]
    yy: np.ndarray

    def __add__(self, other: DesignMoments) -> DesignMoments:
        head, gap = self.head.merge(other.head)
        gap_x, gap_y = gap[: len(gap) - len(self.yy)], gap[len(gap) - len(self.yy) :]
        xx, xy = [], []
        for i, group in enumerate(self.groups):
            gx = gap_x[group.columns]
            xx.append(self.xx[i] + other.xx[i] + np.outer(gx, gx))
            xy.append(self.xy[i] + other.xy[i] + np.outer(gx, gap_y[group.equations]))
        return DesignMoments(head, self.groups, tuple(xx), tuple(xy), self.yy + other.yy + gap_y**2)


@dataclass(frozen=True, eq=False)
class ResidualMoments(Sized):
    """At given coefficients and Sigma. cross : (K, K) R'R.  gradient : per group (p, m) X_g'(R Sigma^-1)_g."""

    cross: np.ndarray
    gradient: tuple[np.ndarray, ...]

    def __add__(self, other: ResidualMoments) -> ResidualMoments:
        gradient = tuple(a + b for a, b in zip(self.gradient, other.gradient, strict=True))
        return ResidualMoments(self.cross + other.cross, gradient)


@dataclass(frozen=True, eq=False)
class ProductMoments(Sized):
    """What replaces R'R where K x K is too large. along : (K, k) R'R B.  squares : (K,) diagonal of R'R.
    gradient : per group (p, m) X_g'(R Sigma^-1)_g."""

    along: np.ndarray
    squares: np.ndarray
    gradient: tuple[np.ndarray, ...]

    def __add__(self, other: ProductMoments) -> ProductMoments:
        gradient = tuple(a + b for a, b in zip(self.gradient, other.gradient, strict=True))
        return ProductMoments(self.along + other.along, self.squares + other.squares, gradient)


@dataclass(frozen=True, eq=False)
class DirectionMoments(Sized):
    """Along V = X times a direction. image : per group X_g'(V Sigma^-1)_g.  vr, vv : (K, K) V'R and V'V, or (0, 0)."""

    image: tuple[np.ndarray, ...]
    vr: np.ndarray
    vv: np.ndarray

    def __add__(self, other: DirectionMoments) -> DirectionMoments:
        image = tuple(a + b for a, b in zip(self.image, other.image, strict=True))
        return DirectionMoments(image, self.vr + other.vr, self.vv + other.vv)
