"""The information of coefficients where rows miss responses: sum_i X_o' Sigma_oo^-1 X_o in whitened columns.

Sigma_oo^-1 of row i is a matrix that all rows share, cut to the equations o, less a few vectors h h' of the row's own.
Where the equations have columns of their own each vector is a product of P columns with themselves. Where all have the
same columns z the blocks of equations j and l are sums of h_j h_l z z': products of pairs of equations with pairs of
columns, one matrix product for all the vectors of a row together and half of it for symmetry.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lrgls_dask.missing.kernels import MaskedParams, MaskedSlab, Summed, whitened_columns
from lrgls_dask.rows.kernels import scratch
from lrgls_dask.sigma.shown import FactorRows

__all__ = [
    "Information",
    "SharedInformation",
    "information_moments",
    "shared_columns",
    "shared_information",
]

PIECE_BYTES, PIECE_ROWS = 4 * 2**20, (16, 256)  # what is held at once of the pairs of equations of some rows
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


# ---------------------------------------------------------------------------------------------- shared columns


@dataclass(frozen=True, eq=False)
class Basis:
    """The columns that products are of, those of one equation whitened, and a constant where others need one.

    base : (p + 1, r) from columns less origin, and what rows hold of the constant.  maps : (K, r, p) from there to the
    whitened columns of each equation.
    """

    base: np.ndarray
    maps: np.ndarray


def shared_columns(params: MaskedParams) -> Basis | None:
    """The columns of all equations, where they share them; else None."""
    return _basis(params) if len(params.groups) == 1 else None


@dataclass(frozen=True, eq=False)
class shared_information:
    """SharedInformation of some slabs: K^2 r^2 / 4 multiplications for each row, and K^2 / 2 for each vector."""

    basis: Basis

    def __call__(self, slabs: Iterable[MaskedSlab], params: MaskedParams) -> SharedInformation | None:
        base, group = self.basis.base, params.groups[0]
        lower, pairs = np.tril_indices(base.shape[1]), len(group.equations) * (len(group.equations) + 1) // 2
        mine = group.take_equations
        total: SharedInformation | None = None
        for slab in slabs:
            z = slab.x[:, group.take_columns] @ base[:-1]
            z += base[-1] if slab.unit is None else slab.unit[:, None] * base[-1]
            products = z[:, lower[0]] * z[:, lower[1]]
            rows = params.sigma.rows(slab.observed)
            taken = np.zeros((pairs, products.shape[1]))
            if params.between is None and isinstance(rows, FactorRows):
                seen = slab.observed[:, mine].T @ products
                _add_pairs(taken, [h[:, mine] for _, h in rows.taken()], products)
            else:
                seen = np.zeros_like(taken)
                _add_pairs(seen, [slab.observed[:, mine]], products)
                for some, h in rows.taken() if params.between is None else ():
                    _add_pairs(taken, [h[:, mine]], products[some])
            part = SharedInformation(seen, taken)
            total = part if total is None else total + part
        return total

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
