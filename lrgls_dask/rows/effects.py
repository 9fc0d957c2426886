"""The effects of groups, from their sums: least squares of every column on dummies of all groups. Reads nothing.

The label of most groups is eliminated exactly, D'W D being diagonal within a label; what is left is as large as the
other labels have groups, solved densely where they are few and by conjugate gradients where they are many, which is
what alternating projections converge to.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from lrgls_dask.design.absorbed import Absorbed
from lrgls_dask.rows.absorbed import GroupSums
from lrgls_dask.rows.rows import GroupLabels

__all__ = ["absorbed_of", "effects_of"]

DENSE_GROUPS = 2000  # of all labels but the largest, whose normal equations are solved by eigenvalues
ZERO = 1e-11  # eigenvalues of matrices of unit diagonal that are none
CG_TOL, CG_MAXIT = 1e-13, 20_000
LARGEST_BETWEEN = 2000  # equations of which products between groups are kept


@dataclass(frozen=True, eq=False)
class GroupEffects:
    """Least squares of columns less their mean on dummies of all groups.

    rows, weights : (G,) of each group.  offset : (M,) the mean less the anchor.  right : (G, M) what sums of groups
    hold besides.  effects : (G, M).  n_parameters, is_exact : see `Absorbed`.
    """

    rows: np.ndarray
    weights: np.ndarray
    offset: np.ndarray
    right: np.ndarray
    effects: np.ndarray
    n_parameters: int
    is_exact: bool


def effects_of(sums: GroupSums, groups: GroupLabels) -> GroupEffects:
    """The effects of groups, of their sums over all rows.

    O(G M) for one label; for more O(R^3) of R groups beside those of the largest label, or the products of conjugate
    gradients with the table of pairs of groups.  Raises ValueError where these do not converge.
    """
    G, M = groups.n_groups, len(sums.anchor)
    weights, rows, at = np.zeros(G), np.zeros(G, dtype=np.int64), sums.codes
    weights[at], rows[at] = sums.weights, sums.rows
    starts = np.concatenate([[0], np.cumsum([len(each) for each in groups.labels])])
    label_of = np.repeat(np.arange(len(groups.names)), np.diff(starts))
    of_first = sums.codes < starts[1]
    offset = sums.sums[of_first].sum(axis=0) / sums.weight
    right = np.zeros((G, M))
    right[at] = sums.sums - sums.weights[:, None] * offset
    if len(groups.names) == 1:
        effects = np.zeros((G, M))
        effects[at] = right[at] / sums.weights[:, None]
        n_parameters, is_exact = len(at), True
    else:
        table = _table(sums, G)
        normal = _Normal.of(weights, label_of, table)
        n_parameters, is_exact = _rank(normal, label_of, table)
        effects = normal.solve(right, n_parameters if is_exact else None)
        n_parameters, is_exact = (n_parameters, True) if is_exact else normal.rank(n_parameters)
    return GroupEffects(rows, weights, offset, right, effects, n_parameters, is_exact)


def absorbed_of(sums: GroupSums, groups: GroupLabels, n_equations: int) -> Absorbed:
    """What groups take out of rows, of their sums over all rows that are fitted; costs as `effects_of`."""
    found, M = effects_of(sums, groups), len(sums.anchor)
    effects, right, y = found.effects, found.right, slice(M - n_equations, M)
    return Absorbed(
        groups.names,
        groups.labels,
        found.rows,
        found.weights,
        found.n_parameters,
        found.is_exact,
        sums.anchor + found.offset,
        effects,
        np.einsum("gm,gm->m", effects, right),
        _root(effects[:, y].T @ right[:, y]) if n_equations <= LARGEST_BETWEEN else np.zeros((0, n_equations)),
    )


def _root(products: np.ndarray) -> np.ndarray:
    """(K, K) rows with these products, which rounding may have made less than nothing."""
    scale = np.sqrt(np.maximum(products.diagonal(), np.finfo(float).tiny))
    values, vectors = np.linalg.eigh(0.5 * (products + products.T) / np.outer(scale, scale))
    root: np.ndarray = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T * scale
    return root


def _table(sums: GroupSums, n_groups: int) -> sp.csr_array:
    """(G, G) weights of rows that are in both groups, of different labels."""
    first, second = np.divmod(sums.pairs, n_groups)
    upper = sp.csr_array((sums.together, (first, second)), shape=(n_groups, n_groups))
    return sp.csr_array(upper + upper.T)


def _rank(normal: _Normal, label_of: np.ndarray, table: sp.csr_array) -> tuple[int, bool]:
    """Dimensions of all effects; of three labels and more at most so many, since only pairs of labels are looked at.

    The effects of two labels lose one for each set of groups that rows tie together (Abowd, Creecy and Kramarz 2002).
    """
    used = normal.weights > 0
    labels = [normal.largest, *(each for each in np.unique(label_of).tolist() if each != normal.largest)]
    total = int(np.count_nonzero(used & (label_of == labels[0])))
    for i, label in enumerate(labels[1:], 1):
        mine = used & (label_of == label)
        lost = 0
        for other in labels[:i]:
            both = np.flatnonzero(mine | (used & (label_of == other)))
            lost = max(lost, int(connected_components(table[both][:, both], directed=False)[0]))
        total += int(np.count_nonzero(mine)) - lost
    return total, len(labels) == 2


@dataclass(frozen=True, eq=False)
class _Normal:
    """The normal equations of the effects, those of the largest label eliminated.

    weights : (G,).  out, left : groups with rows, of the largest label and of the others.  cross : (left, out) and
    within : (left, left) tables of their weights.
    """

    weights: np.ndarray
    largest: int
    out: np.ndarray
    left: np.ndarray
    cross: sp.csr_array
    within: sp.csr_array

    @classmethod
    def of(cls, weights: np.ndarray, label_of: np.ndarray, table: sp.csr_array) -> _Normal:
        used = weights > 0
        largest = int(np.argmax(np.bincount(label_of[used])))
        out, left = np.flatnonzero(used & (label_of == largest)), np.flatnonzero(used & (label_of != largest))
        rows = table[left]
        return cls(weights, largest, out, left, sp.csr_array(rows[:, out]), sp.csr_array(rows[:, left]))

    def solve(self, right: np.ndarray, rank: int | None) -> np.ndarray:
        """(G, M) effects of right-hand sides D'W Z; the shortest, in units of equal weights, of those that differ by
        what the labels share.  rank : of all effects, None where it is to be seen."""
        effects = np.zeros_like(right)
        inverse = 1.0 / self.weights[self.out][:, None]
        scale = 1.0 / np.sqrt(self.weights[self.left])[:, None]
        reduced = (right[self.left] - self.cross @ (right[self.out] * inverse)) * scale
        if len(self.left) <= DENSE_GROUPS:
            values, vectors = self._eigen
            # the least values are zero as often as groups are redundant
            zero = values <= ZERO if rank is None else np.arange(len(values)) < len(values) + len(self.out) - rank
            found = vectors @ ((vectors.T @ reduced) / np.where(zero, np.inf, values)[:, None])
        else:
            found = _conjugate_gradients(self._image, reduced)
        effects[self.left] = found * scale
        effects[self.out] = (right[self.out] - self.cross.T @ effects[self.left]) * inverse
        return effects

    def rank(self, most: int) -> tuple[int, bool]:
        """Dimensions of the effects, and whether they were counted; else `most`."""
        if len(self.left) > DENSE_GROUPS:
            return most, False
        return len(self.out) + int(np.count_nonzero(self._eigen[0] > ZERO)), True

    @cached_property
    def _eigen(self) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = np.linalg.eigh(self._image(np.eye(len(self.left))))
        return values, vectors

    def _image(self, v: np.ndarray) -> np.ndarray:
        """(left, m) the reduced equations, of unit diagonal but for what was eliminated, times v."""
        scale = 1.0 / np.sqrt(self.weights[self.left])[:, None]
        scaled: Any = v * scale
        through = self.cross @ ((self.cross.T @ scaled) / self.weights[self.out][:, None])
        return np.asarray(v + scale * (self.within @ scaled - through))


def _conjugate_gradients(image: Any, right: np.ndarray) -> np.ndarray:
    """x with image(x) = right, column by column at once; the equations are singular and have solutions."""
    x, r = np.zeros_like(right), right.copy()
    p, rr = r.copy(), np.einsum("ij,ij->j", r, r)
    wanted = CG_TOL**2 * rr
    for _ in range(CG_MAXIT):
        if np.all(rr <= wanted):
            return x
        along = image(p)
        curvature = np.einsum("ij,ij->j", p, along)
        step = np.where(rr > wanted, rr / np.where(curvature > 0, curvature, np.inf), 0.0)
        x += step * p
        r -= step * along
        new = np.einsum("ij,ij->j", r, r)
        p = r + np.where(rr > 0, new / np.where(rr > 0, rr, 1.0), 0.0) * p
        rr = new
    raise ValueError(
        f"absorb: the effects of the labels were not found in {CG_MAXIT:,} iterations of conjugate gradients: too few "
        "rows tie their groups together. Absorb the label of most groups alone, and give the others as columns of 0 "
        "and 1."
    )
