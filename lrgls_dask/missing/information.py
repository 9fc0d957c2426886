"""The information of coefficients where rows miss responses: sum_i X_o' Sigma_oo^-1 X_o in whitened columns.

Sigma_oo^-1 of row i is a matrix that all rows share, cut to the equations o, less a few vectors h h' of the row's own.
Where the equations have columns of their own each vector is a product of P columns with themselves. Where all have the
same columns z the blocks of equations j and l are sums over the rows that show both of (h_j'h_l) z z', where h_j are
what the vectors of a row have of equation j: products of pairs of equations with pairs of columns. Of factors these are
h_j'h_l = a_j' G_i a_l, which is defined where a row misses j or l too (and large there, where factors are nearly all
of an equation: then nothing is taken out of anything), so that

    sum o_j o_l a_j' G a_l z z' = sum (1 - m_j - m_l + m_j m_l) a_j' G a_l z z',        m = 1 - o,

whose first part knows no equation and whose others ask only for the cells, and the pairs of them, that a row misses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from lrgls_dask.missing.kernels import MaskedParams, Summed, whitened_columns
from lrgls_dask.missing.slabs import MaskedSlab
from lrgls_dask.rows.kernels import scratch
from lrgls_dask.sigma.shown import (
    FactorRows,
    cells_and_pairs,
    half_inverse,
    posterior_root,
    products_of_pairs,
    times_of_rows,
)

__all__ = [
    "Information",
    "InformationSums",
    "SharedInformation",
    "information_moments",
    "shared_columns",
    "shared_information",
]

PIECE_BYTES, PIECE_ROWS = 4 * 2**20, (16, 256)  # what is held at once of the pairs of equations of some rows
FEW = 0.1  # share of the pairs of equations, up to which those of a row are taken one by one
# Sums over all rows less those of the cells that are missed lose the digits by which these are larger than what is
# left: the square of the factors' part of a variance by its own, and squares of columns of all rows by an equation's.
MOST_SIGNAL, MOST_ROWS = 1e3, 1e4
SAME_SPACE = 1e-9  # by how much whitened columns of two equations may leave the space of each other


@dataclass(frozen=True, eq=False)
class Information(Summed):
    """total : (P, P)."""

    total: np.ndarray


@dataclass(frozen=True, eq=False)
class SharedInformation(Summed):
    """Sums of products of the r columns that all equations share, a lower triangle of h = r (r + 1) / 2 numbers each.

    seen : over the rows that show both of two equations, (K (K + 1) / 2, h) pair by pair, or (K, h) of each equation
    alone where Sigma_oo^-1 is diagonal but for the vectors.  taken : (K (K + 1) / 2, h) the same times what the vectors
    have of both; nothing where there are none.
    """

    seen: np.ndarray
    taken: np.ndarray


def information_moments(slabs: Iterable[MaskedSlab], params: MaskedParams) -> Information | None:
    """Information of some slabs: P^2 multiplications for each row and vector, and as many for the shared matrix."""
    total: np.ndarray | None = None
    of = np.empty(0 if params.ends is None else len(params.ends), dtype=np.intp)
    for group, places in zip(params.groups, params.places, strict=True):
        of[places] = group.equations[:, None]
    for slab in slabs:
        columns, own = whitened_columns(slab, params)
        rows = params.sigma.rows(slab.observed)
        if params.between is None and isinstance(rows, FactorRows):
            part = np.zeros((len(of), len(of)))
            for group, places, squares in zip(params.groups, params.places, own, strict=True):
                for j, at, mine in zip(group.equations, places, squares, strict=True):
                    part[np.ix_(at, at)] = mine / params.sigma.d[j]
        else:
            part = columns.T @ columns
            part *= (rows.base if params.between is None else params.between)[np.ix_(of, of)]
        for some, taken in rows.taken() if params.between is None else ():
            moved = columns[some] * taken[:, of]
            part -= moved.T @ moved
        total = part if total is None else total + part
    return None if total is None else Information(total)


@dataclass(frozen=True, eq=False)
class InformationSums:
    """How the information of coefficients in this order is summed: by moments of params, in the shorter way where all
    equations share columns."""

    params: MaskedParams
    order: np.ndarray

    @cached_property
    def moments(self) -> Callable[..., Information | None] | shared_information:
        basis = shared_columns(self.params)
        return information_moments if basis is None else shared_information(basis)

    def whole(self, found: Any) -> np.ndarray:
        """(P, P) from what was summed."""
        moments = self.moments
        total = moments.whole(found, self.params) if isinstance(moments, shared_information) else found.total
        return np.asarray(total[np.ix_(self.order, self.order)])


# ---------------------------------------------------------------------------------------------- shared columns


@dataclass(frozen=True, eq=False)
class Basis:
    """The columns that products are of, those of one equation whitened, and a constant where others need one.

    base : (p + 1, r) from columns less origin, and what rows hold of the constant.  maps : (K, r, p) from there to the
    whitened columns of each equation.
    """

    base: np.ndarray
    maps: np.ndarray

    @cached_property
    def is_even(self) -> bool:
        """Whether no equation has whitened columns that are much smaller in the rows that show it than in all; of each
        basis once, whatever the blocks."""
        (K, _, p), back = self.maps.shape, np.linalg.pinv(self.maps)
        gram = np.einsum("lpr,lps->rs", back, back)
        return bool(np.einsum("jrp,rs,jsp->j", self.maps, gram, self.maps).max() <= MOST_ROWS * K * p)


def shared_columns(params: MaskedParams) -> Basis | None:
    """The columns of all equations, where they share them; else None."""
    return _basis(params) if len(params.groups) == 1 else None


@dataclass(frozen=True, eq=False)
class shared_information:
    """SharedInformation of some slabs. For each row r^2 / 2 multiplications for each pair of factors, each cell that it
    misses and each pair of these, or K^2 r^2 / 4 where they are many; that many for each vector of other Sigmas."""

    basis: Basis

    def __call__(self, slabs: Iterable[MaskedSlab], params: MaskedParams) -> SharedInformation | None:
        mine, n_equations = params.groups[0].take_equations, len(params.groups[0].equations)
        sums: _Pairs | None = None
        factors: FactorRows | None = None
        for slab in slabs:
            products, observed = self._products(slab, params), slab.observed[:, mine]
            rows = params.sigma.rows(slab.observed)
            factors = rows if params.between is None and isinstance(rows, FactorRows) else None
            if sums is None:
                loadings = np.ones((n_equations, 1)) if factors is None else factors.scaled_loadings[mine]
                sums = _Pairs(loadings, products.shape[1], differences=_keep_digits(self.basis, factors))
                taken = np.zeros_like(sums.pairs)
            if factors is not None:
                sums.add(observed, half_inverse(posterior_root(slab.observed, factors)), products)
                continue
            sums.add(observed, np.ones((1, 1, len(observed))), products)
            for some, each in rows.taken() if params.between is None else ():
                _add_pairs(taken, [each[:, mine]], products[some])
        if sums is None:
            return None
        return SharedInformation(sums.sum(), taken) if factors is None else SharedInformation(sums.shown, sums.sum())

    def _products(self, slab: MaskedSlab, params: MaskedParams) -> np.ndarray:
        """(n, h) of the shared columns, zero in rows that show nothing."""
        base = self.basis.base
        z = slab.x[:, params.groups[0].take_columns] @ base[:-1]
        z += base[-1] if slab.unit is None else slab.unit[:, None] * base[-1]
        shown = slab.observed[:, params.groups[0].take_equations].any(axis=1)
        if not shown.all():
            z[~shown] = 0.0
        r, turned = z.shape[1], z.T.copy()
        by_column = scratch("columns times columns", (r * (r + 1) // 2, len(z)))
        for a in range(r):
            np.multiply(turned[: a + 1], turned[a], out=by_column[a * (a + 1) // 2 : (a + 1) * (a + 2) // 2])
        products = scratch("products of columns", by_column.shape[::-1])
        np.copyto(products, by_column.T)
        return products

    def whole(self, found: SharedInformation, params: MaskedParams) -> np.ndarray:
        """(P, P) what `information_moments` would have found."""
        maps, (places,), group = self.basis.maps, params.places, params.groups[0]
        K, r, p = maps.shape
        lower, weights = np.tril_indices(r), None
        if len(found.seen) != K:
            between = params.sigma.precision() if params.between is None else params.between
            weights = between[np.ix_(group.equations, group.equations)]
        total, inside = np.empty((K * p, K * p)), np.empty((K, r, r))
        for j in range(K):
            mine = slice(j * (j + 1) // 2, (j + 1) * (j + 2) // 2)  # pairs (j, l) for l <= j
            packed = -found.taken[mine]
            if weights is None:
                packed[j] += found.seen[j] / params.sigma.d[group.equations[j]]
            else:
                packed += found.seen[mine] * weights[j, : j + 1, None]
            some = inside[: j + 1]
            some[:, lower[0], lower[1]] = packed
            some[:, lower[1], lower[0]] = packed
            blocks = maps[j].T @ some @ maps[: j + 1]
            blocks[j] = 0.5 * (blocks[j] + blocks[j].T)
            for at, block in zip(places[: j + 1], blocks, strict=True):
                total[np.ix_(places[j], at)] = block
                total[np.ix_(at, places[j])] = block.T
        return total


def _keep_digits(basis: Basis, factors: FactorRows | None) -> bool:
    """Whether sums over all rows, less those over the rows that miss an equation, are good to ten digits or so."""
    if factors is not None and np.max(np.sum(factors.F**2, axis=1) / factors.d, initial=0.0) > MOST_SIGNAL:
        return False
    return basis.is_even


class _Pairs:
    """Sums of products of columns over the rows that show an equation, and times h_j'h_l over those that show both.

    h_j = half a_j, with a matrix for each row.  loadings : (K, k) a.  shown : (K, h) over the rows that show j.
    total : (k k, h) times half'half, over all rows.  cells : (K k, h) times half'h_j, over the rows that miss j.
    pairs : (K (K + 1) / 2, h) times h_j'h_l over those that miss both, and what else was summed for the pair itself.
    differences : whether sums over all rows less those of missed cells may be taken.
    """

    def __init__(self, loadings: np.ndarray, h: int, *, differences: bool) -> None:
        K, k = loadings.shape
        self.differences = differences
        self.loadings, self.shown = loadings, np.zeros((K, h))
        self.total, self.cells = np.zeros((k * k, h)), np.zeros((K * k, h))
        self.pairs = np.zeros((K * (K + 1) // 2, h))

    def add(self, observed: np.ndarray, half: np.ndarray, products: np.ndarray) -> None:
        """Of rows whose half is (k, k, n) and whose products of columns are (n, h), zero where they show nothing."""
        n, K = observed.shape
        hidden = observed == 0
        missed = np.count_nonzero(hidden, axis=1)
        few = FEW * n * K * (K + 1) / 2
        by_missed = self.differences and bool((missed * (missed + 1) / 2).sum() <= few)
        if not by_missed:
            self.shown += observed.T @ products
            if ((K - missed) * (K - missed + 1) / 2).sum() > few:
                vectors = [(part[: a + 1].T @ self.loadings.T[: a + 1]) * observed for a, part in enumerate(half)]
                _add_pairs(self.pairs, vectors, products)
                return
        rows, columns, first, second = cells_and_pairs(hidden if by_missed else ~hidden)
        along = times_of_rows(half, np.take(self.loadings.T, columns, axis=1), rows)
        weights = products_of_pairs(along, first, second)
        places = columns[first] * (columns[first] + 1) // 2 + columns[second]
        _add_to(self.pairs, places, rows[first], weights, products)
        if by_missed:
            inverse, k = np.einsum("abn,acn->bcn", half, half), len(half)
            self.total += inverse.reshape(k * k, n) @ products
            self.shown += np.ones(n) @ products
            # the cells times one, and times half'h
            found = np.zeros((K * (k + 1), products.shape[1]))
            back = np.concatenate([np.ones((1, len(rows))), times_of_rows(half.transpose(1, 0, 2), along, rows)])
            places = columns * (k + 1) + np.arange(k + 1)[:, None]
            _add_to(found, places.ravel(), np.tile(rows, k + 1), back.ravel(), products)
            self.shown -= found[:: k + 1]
            self.cells += np.delete(found, slice(None, None, k + 1), axis=0)

    def sum(self) -> np.ndarray:
        """(K (K + 1) / 2, h) over the rows that show both."""
        K, k = self.loadings.shape
        found, by_cell = self.pairs, self.cells.reshape(K, k, self.pairs.shape[1])
        for j, mine in enumerate(self.loadings):
            at, others = slice(j * (j + 1) // 2, (j + 1) * (j + 2) // 2), self.loadings[: j + 1]
            found[at] += (others[:, :, None] * mine).reshape(j + 1, k * k) @ self.total
            found[at] -= others @ by_cell[j] + np.einsum("b,lbh->lh", mine, by_cell[: j + 1])
        return found


def _add_to(total: np.ndarray, places: np.ndarray, rows: np.ndarray, weights: np.ndarray, products: np.ndarray) -> None:
    """Add to each of `places` (e,) of total (m, h) its weight times the products (n, h) of its row."""
    total += sp.coo_array((weights, (places, rows)), shape=(len(total), len(products))).tocsr() @ products


def _add_pairs(total: np.ndarray, vectors: list[np.ndarray], products: np.ndarray) -> None:
    """Add the products (n, h) times what vectors (n, K) have of each pair j >= l, to rows pair by pair."""
    if not vectors or len(products) == 0:
        return
    n, K = vectors[0].shape
    height = min(n, int(np.clip(PIECE_BYTES // (8 * len(total)), *PIECE_ROWS)))
    room, product = scratch("pairs", (len(total), height)), scratch("product of a pair", (K, height))
    for first in range(0, n, height):
        piece = slice(first, first + height)
        turned = [np.ascontiguousarray(each[piece].T) for each in vectors]
        both = room[:, : turned[0].shape[1]]
        for j in range(K):
            mine = both[j * (j + 1) // 2 : (j + 1) * (j + 2) // 2]
            np.multiply(turned[0][: j + 1], turned[0][j], out=mine)
            for each in turned[1:]:
                more = product[: j + 1, : both.shape[1]]
                np.multiply(each[: j + 1], each[j], out=more)
                mine += more
        total += both @ products[piece]


def _basis(params: MaskedParams) -> Basis | None:
    """None where the columns of some equation lie elsewhere."""
    maps, places = params.maps[0], params.places[0]
    assert params.ends is not None
    K, p, _ = maps.shape
    whole = np.concatenate([maps, params.ends[places][:, None, :]], axis=1)  # (K, p + 1, p)
    wide = whole.transpose(1, 0, 2).reshape(p + 1, K * p)
    scale = np.abs(wide).max(axis=1)
    constant = np.zeros((p + 1, 1))
    constant[-1] = 1.0
    for base in (whole[0], np.hstack([whole[0], constant])):
        found = np.linalg.lstsq(base, wide, rcond=None)[0]
        if np.all(np.abs(base @ found - wide).max(axis=1) <= SAME_SPACE * scale):
            return Basis(base, np.asarray(found.reshape(-1, K, p).transpose(1, 0, 2)))
    return None
