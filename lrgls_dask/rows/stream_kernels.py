"""What one block contributes to a streamed fit: moments of single equations, and products with residuals.

Pure NumPy. A few rows of all responses are held at a time, and of X one tile, which is filled again where it is needed
again: that costs less than keeping rows of a hundred kilobytes in memory beside the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lrgls_dask.rows.block import Block, bad_values
from lrgls_dask.rows.kernels import even_rows, row_of, scratch, stretches, usable
from lrgls_dask.rows.moments import DesignMoments, DirectionMoments, Head, ProductMoments, ResidualMoments
from lrgls_dask.rows.sums import sums
from lrgls_dask.rows.tiles import Index, Side, Tiles, add_adjoint, subtract_fitted
from lrgls_dask.sigma.interface import Sigma

__all__ = ["StreamParams", "design_kernel", "direction_kernel", "products_kernel", "residual_kernel", "tile_rows"]

SLAB_BYTES = 2 * 2**20  # of responses, or of a tile: what stays in the processor's cache
LEAST_ROWS = 128  # but never so few rows that the sums brought up after every slab cost more than the products


@dataclass(frozen=True, eq=False)
class StreamParams:
    """What the streaming kernels are told. Rows are centred, so an intercept is the client's business.

    tiles : the coefficients and what they multiply.  anchor : (q + K,) subtracted from every row, and offset : (q + K,)
    after it, None where the anchor is the mean to the last digit that counts; no anchor where rows are taken as they
    are.  scale : (K,) units of Y, or None.
    coefficients, direction : flat (P,), from columns of X to Y / scale; None for zeros.
    sigma : the current Sigma in units of `scale`, None where no gradient is wanted.  products : (K, k) B for R'R B.
    dense : whether K x K sums are wanted.  squares : whether diag R'R is.
    """

    tiles: Tiles
    anchor: np.ndarray | None
    offset: np.ndarray | None
    scale: np.ndarray | None
    coefficients: np.ndarray | None = None
    direction: np.ndarray | None = None
    sigma: Sigma | None = None
    products: np.ndarray | None = None
    dense: bool = False
    squares: bool = False


def tile_rows(tiles: Tiles, *, of_all: bool = True) -> int:
    """Rows that a kernel works on at a time; of_all : of all responses, not of those of a tile."""
    width = max(tiles.width, tiles.batches.n_equations if of_all else tiles.most_equations)
    return max(LEAST_ROWS, SLAB_BYTES // (8 * width))


# ---------------------------------------------------------------------------------------------- kernels


def design_kernel(block: Block, tiles: Tiles) -> DesignMoments | None:
    """DesignMoments of a block, about 2 n sum_g p_g (p_g + m_g) flops; None if no row has weight."""
    total: DesignMoments | None = None
    for slab in _slabs(block, tiles, apart=True):
        part = _design_moments(slab, tiles)
        if total is None:
            total = part
        else:
            total += part
    if total is not None and not usable(total.head.anchor, total.head.offset, total.yy):
        raise bad_values(block)
    if total is None:
        return None
    return DesignMoments(block.told(total.head), total.batches, total.xx, total.xy, total.yy)


def residual_kernel(block: Block, params: StreamParams) -> ResidualMoments | None:
    """R'R and the gradient of a block, n (2 P + K^2 + K k) multiplications."""
    total = None if params.sigma is None else np.zeros(len(params.tiles.batches.places))
    cross: np.ndarray | None = None
    seen = False
    for slab in _slabs(block, params.tiles, params.anchor, params.offset):
        seen, residual = True, slab.residual(params)
        if params.dense:
            cross = _with_product(cross, residual.T, residual)
        if params.sigma is not None and total is not None:
            slab.add_adjoint(total, params.sigma.solve_rows(residual))
    return ResidualMoments(_or_none(cross, 2), _or_none(total, 1)) if seen else None


def products_kernel(block: Block, params: StreamParams) -> ProductMoments | None:
    """R'R B, diag R'R and the gradient of a block, n (2 P + 2 K k) multiplications and nothing of size K^2."""
    total = None if params.sigma is None else np.zeros(len(params.tiles.batches.places))
    along: np.ndarray | None = None
    squares = np.zeros(params.tiles.batches.n_equations if params.squares else 0)
    seen = False
    for slab in _slabs(block, params.tiles, params.anchor, params.offset):
        seen, residual = True, slab.residual(params)
        if params.products is not None:
            along = _with_product(along, (residual @ params.products).T, residual)
        if params.squares:
            squares += np.einsum("ij,ij->j", residual, residual)
        if params.sigma is not None and total is not None:
            slab.add_adjoint(total, params.sigma.solve_rows(residual))
    return ProductMoments(_or_none(along, 2), squares, _or_none(total, 1)) if seen else None


def direction_kernel(block: Block, params: StreamParams) -> DirectionMoments | None:
    """One conjugate-gradient product of a block, with what the step does to R'R where that is wanted."""
    assert params.sigma is not None and params.direction is not None
    image = np.zeros(len(params.direction))
    vr: np.ndarray | None = None
    vv: np.ndarray | None = None
    seen = False
    for slab in _slabs(block, params.tiles, params.anchor, params.offset):
        seen, along = True, slab.fitted(params.direction)
        if params.dense:
            vr = _with_product(vr, along.T, slab.residual(params))
            vv = _with_product(vv, along.T, along)
        slab.add_adjoint(image, params.sigma.solve_rows(along))
    return DirectionMoments(image, _or_none(vr, 2), _or_none(vv, 2)) if seen else None


def _design_moments(slab: _Slab, tiles: Tiles) -> DesignMoments:
    """Of the rows of a slab, centred about their own mean."""
    batches, q = tiles.batches, slab.x.width
    xx = tuple(np.empty((len(batch.columns), *2 * batch.columns.shape[1:])) for batch in batches.each)
    xy, yy = np.empty(len(batches.places)), np.empty(batches.n_equations)
    offset, views = np.empty(q + batches.n_equations), batches.split(xy)
    unused = tiles.unused(q)
    if len(unused):
        offset[unused] = slab.mean_of(slab.columns(unused))
    for tile in tiles.each:
        x, y = slab.columns(tile.columns), slab.responses(tile.equations)
        offset[:q][tile.columns] = slab.centre(x)
        offset[q:][tile.equations] = slab.centre(y)
        if tile.is_first:
            xx[tile.batch][tile.designs] = tile.gram(x)
        tile.part(views)[...] = tile.adjoint(x, y)
        yy[tile.equations] = np.einsum("ij,ij->j", y, y)
    assert slab.anchor is not None
    if not np.isfinite(offset).all():
        raise bad_values(slab.block)
    return DesignMoments(Head(*slab.counts, slab.anchor, offset), batches, xx, xy, yy)


def _with_product(total: np.ndarray | None, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """total + left right, in the memory of `total` if there is one."""
    if total is None:
        return sums(left, right)
    total += sums(left, right, out=scratch("product", total.shape))
    return total


def _or_none(found: np.ndarray | None, n_dims: int) -> np.ndarray:
    return np.zeros((0,) * n_dims) if found is None else found


# ---------------------------------------------------------------------------------------------- slabs


@dataclass(frozen=True, eq=False)
class _Slab:
    """Some rows of a block, those of positive weight, less one number a column.

    rows : of the block, of which `keep` are taken.  weights : (n,) of these, or None.
    """

    block: Block
    tiles: Tiles
    x: Side
    y: Side
    rows: slice
    keep: Index
    weights: np.ndarray | None
    anchor: np.ndarray | None
    offset: np.ndarray | None

    @property
    def counts(self) -> tuple[int, float, float]:
        """Rows, their weight and the sum of log weights."""
        if self.weights is None:
            n = self.rows.stop - self.rows.start
            return n, float(n), 0.0
        return len(self.weights), float(self.weights.sum()), float(np.log(self.weights).sum())

    def columns(self, columns: Index) -> np.ndarray:
        """(n, c) of X, in memory that the next ones take."""
        return self._filled(self.x, "tile", columns, 0)

    def responses(self, equations: Index) -> np.ndarray:
        """(n, m) of Y, likewise."""
        return self._filled(self.y, "responses", equations, self.x.width)

    def mean_of(self, values: np.ndarray) -> np.ndarray:
        if self.weights is None:
            return np.asarray(values.mean(axis=0))
        return sums(self.weights, values) / float(self.weights.sum())

    def centre(self, values: np.ndarray) -> np.ndarray:
        """The mean of these columns, which they come to be less, times the roots of weights."""
        mean = self.mean_of(values)
        values -= mean
        if self.weights is not None:
            values *= np.sqrt(self.weights)[:, None]
        return mean

    def residual(self, params: StreamParams) -> np.ndarray:
        """(n, K) weighted residuals in units of `scale`; what it gives may be the block itself."""
        as_stored = self.anchor is None and params.scale is None and params.coefficients is None
        if as_stored and self.weights is None:
            whole = self.y.as_stored(self.rows)
            if whole is not None:
                return whole
        found = self.responses(slice(0, self.y.width))
        if params.scale is not None:
            found *= 1.0 / params.scale
        if params.coefficients is not None:
            subtract_fitted(found, self.columns, params.coefficients, self.tiles)
        if self.weights is not None:
            found *= np.sqrt(self.weights)[:, None]
        return found

    def fitted(self, coefficients: np.ndarray) -> np.ndarray:
        """(n, K) weighted [X_1 b_1 ... X_K b_K]."""
        views, found = self.tiles.batches.split(coefficients), None
        for tile in self.tiles.each:
            product = tile.product(self.columns(tile.columns), tile.part(views))
            if found is None:
                found = scratch("fitted", (len(product), self.y.width))
            found[:, tile.equations] = product
        assert found is not None
        if self.weights is not None:
            found *= np.sqrt(self.weights)[:, None]
        return found

    def add_adjoint(self, total: np.ndarray, values: np.ndarray) -> None:
        """Add X_j'values_j of every equation to a flat vector (P,); values (n, K) are spent."""
        if self.weights is not None:
            values *= np.sqrt(self.weights)[:, None]
        add_adjoint(total, self.columns, values, self.tiles)

    def _filled(self, side: Side, use: str, columns: Index, first: int) -> np.ndarray:
        index = slice(columns.start + first, columns.stop + first) if isinstance(columns, slice) else columns + first
        less = None if self.anchor is None else self.anchor[index]
        width = columns.stop - columns.start if isinstance(columns, slice) else len(columns)
        values = scratch(use, (self.rows.stop - self.rows.start, width))
        side.fill(values, self.rows, columns, less)
        values = values[self.keep]
        if self.offset is not None:
            values -= self.offset[index]
        return values


def _slabs(
    block: Block,
    tiles: Tiles,
    anchor: np.ndarray | None = None,
    offset: np.ndarray | None = None,
    *,
    apart: bool = False,
) -> Iterator[_Slab]:
    """The rows of positive weight of a block, less an anchor and an offset; apart : less the first of each slab."""
    x, y = Side(block.x), Side(block.y)
    height = even_rows(block.n_rows, tile_rows(tiles, of_all=not apart))
    for rows, base, keep, weights in stretches(block, height):
        less = row_of((*block.x, *block.y), base) if apart else anchor
        yield _Slab(block, tiles, x, y, rows, keep, weights, less, offset)
