"""Covariances of coefficients of which nothing of size P x P is formed: blocks of equations and a part of low rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dpocon
from scipy.sparse.csgraph import connected_components

from lrgls_dask.design.design import Design
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.sigma.interface import Sigma

__all__ = [
    "Combinations",
    "CovOfCombinations",
    "FormedCombinations",
    "FormedCov",
    "StructuredCov",
    "block_diagonal",
    "blocks_alone",
    "blocks_of",
    "both_sides",
    "check_rank",
    "kron_of_combinations",
    "row_slices",
]


AT_ONCE = 64 * 2**20  # bytes of what is multiplied together
SINGULAR = 1e-14  # times m: an eigenvalue of a correlation matrix that is rounding
ESTIMATED = 10.0  # by which LAPACK's estimate of a condition number may be too low
LARGEST_BLOCK = 256  # combinations that a block of own covariance may hold
OFTEN = 32  # combinations that share an equation, beyond which its part in them is of low rank rather than sparse


def row_slices(n_rows: int, width: int) -> Iterator[slice]:
    """Rows of so many numbers each, as many together as are no memory to speak of."""
    step = max(1, AT_ONCE // (8 * width + 1))
    for begin in range(0, n_rows, step):
        yield slice(begin, min(begin + step, n_rows))


def blocks_of(design: Design, blocks: Sequence[np.ndarray]) -> sp.csr_array:
    """(P, P) block diagonal, one (p_j, p_j) block an equation."""
    return block_diagonal(design.offsets, blocks)


def block_diagonal(edges: np.ndarray, blocks: Sequence[np.ndarray]) -> sp.csr_array:
    """(m, m) of square blocks, the rows of block i from edges[i] to edges[i + 1]."""
    sizes = np.diff(edges)
    starts = np.repeat(edges[:-1], sizes)  # (m,) where the block of each row begins
    width = np.repeat(sizes, sizes)
    pointers = np.concatenate([[0], np.cumsum(width)])
    columns = np.arange(pointers[-1]) - np.repeat(pointers[:-1] - starts, width)
    values = np.concatenate([block.ravel() for block in blocks])
    return sp.csr_array((values, columns, pointers), shape=(len(starts), len(starts)))


class CovOfCombinations(Protocol):
    """(m, m) R V R' of combinations of coefficients, formed or not."""

    @property
    def variances(self) -> np.ndarray:
        """(m,)."""
        ...

    def dense(self) -> np.ndarray:
        """(m, m)."""
        ...

    def quadratic(self, gap: np.ndarray) -> float:
        """gap' (R V R')^-1 gap.  Raises LinAlgError where the matrix is singular, saying its rank."""
        ...


@dataclass(frozen=True, eq=False)
class FormedCombinations:
    """R V R' that is at hand."""

    values: np.ndarray

    @property
    def variances(self) -> np.ndarray:
        return self.values.diagonal()

    def dense(self) -> np.ndarray:
        return self.values

    def quadratic(self, gap: np.ndarray) -> float:
        scale = np.sqrt(self.variances)
        return _quadratic(self.values / scale[:, None] / scale, gap / scale)


@dataclass(frozen=True, eq=False)
class Combinations:
    """(m, m) R V R' = own + factors middle factors', own sparse, factors (m, s), middle (s, s) symmetric."""

    own: sp.csr_array
    factors: np.ndarray
    middle: np.ndarray

    @cached_property
    def variances(self) -> np.ndarray:
        """(m,)."""
        return np.asarray(self.own.diagonal() + np.einsum("is,is->i", self.factors @ self.middle, self.factors))

    def dense(self) -> np.ndarray:
        """(m, m)."""
        return np.asarray(self.factors @ self.middle @ self.factors.T + self.own.toarray())

    def quadratic(self, gap: np.ndarray) -> float:
        """By Woodbury (1950) where factors are few and what is own is small blocks: O(m s^2), no m x m array."""
        scale = np.sqrt(self.variances)
        if 2 * self.factors.shape[1] < len(gap):
            own = _BlockCholesky.of(self.own, scale)
            if own is not None:
                return self._by_woodbury(own, gap / scale, scale)
        return FormedCombinations(self.dense()).quadratic(gap)

    def _by_woodbury(self, own: _BlockCholesky, gap: np.ndarray, scale: np.ndarray) -> float:
        """In units of `scale`, refined once: what Woodbury subtracts may leave few digits."""
        factors = self.factors / scale[:, None]
        half = own.solve(factors)
        inner = np.eye(len(self.middle)) + self.middle @ (factors.T @ half)

        def solve(right: np.ndarray) -> np.ndarray:
            first = own.solve(right)
            return np.asarray(first - half @ np.linalg.solve(inner, self.middle @ (factors.T @ first)))

        found = solve(gap)
        image = own.product(found) + factors @ (self.middle @ (factors.T @ found))
        found = found + solve(gap - image)
        return float(gap @ found)


@dataclass(frozen=True, eq=False)
class _BlockCholesky:
    """A sparse positive definite matrix that is block diagonal but for the order: blocks of one size side by side.

    matrix : (m, m).  places : per size (G, n) rows of its blocks.  inverses : per size (G, n, n).
    """

    matrix: sp.csr_array
    places: tuple[np.ndarray, ...]
    inverses: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, matrix: sp.csr_array, scale: np.ndarray) -> _BlockCholesky | None:
        """Of the matrix in units of `scale`; None where its blocks are large or not positive definite."""
        over = sp.diags_array(1.0 / scale)
        scaled = sp.csr_array(over @ matrix @ over)
        _, part = connected_components(scaled, directed=False)
        counts = np.bincount(part)
        if int(counts.max()) > LARGEST_BLOCK:
            return None
        order = np.argsort(part, kind="stable")
        within = np.empty(len(part), dtype=np.intp)
        within[order] = np.arange(len(part)) - np.repeat(np.cumsum(counts) - counts, counts)
        entries, places, inverses = scaled.tocoo(), [], []
        for size in np.unique(counts).tolist():
            of_size = counts == size
            mine = np.flatnonzero(of_size[part][order])
            blocks = np.zeros((int(of_size.sum()), size, size))
            here = of_size[part[entries.row]]
            number = np.cumsum(of_size) - 1
            row, column = entries.row[here], entries.col[here]
            blocks[number[part[row]], within[row], within[column]] = entries.data[here]
            try:
                roots = np.linalg.cholesky(blocks)
            except np.linalg.LinAlgError:
                return None
            if np.any(np.diagonal(roots, axis1=1, axis2=2) ** 2 < size * SINGULAR):
                return None
            inverse = np.linalg.inv(roots)
            places.append(order[mine].reshape(-1, size))
            inverses.append(inverse.transpose(0, 2, 1) @ inverse)
        return cls(scaled, tuple(places), tuple(inverses))

    def solve(self, right: np.ndarray) -> np.ndarray:
        """(m,) or (m, s)."""
        by_columns = right.reshape(len(right), -1)
        out = np.empty_like(by_columns)
        for mine, inverse in zip(self.places, self.inverses, strict=True):
            out[mine] = inverse @ by_columns[mine]
        return out.reshape(right.shape)

    def product(self, right: np.ndarray) -> np.ndarray:
        """(m,)."""
        return np.asarray(self.matrix @ right)


def check_rank(values: np.ndarray, whose: str = "") -> None:
    """Raise LinAlgError where some eigenvalues (m,), ascending, of a correlation matrix are zero but for rounding."""
    m = len(values)
    rank = int(np.sum(values > m * SINGULAR * values[-1]))
    if rank < m:
        raise np.linalg.LinAlgError(
            f"the covariance of the {m} restricted combinations{whose} has rank {rank}. Test at most {rank} of them "
            "together."
        )


def _quadratic(correlation: np.ndarray, gap: np.ndarray) -> float:
    """gap' C^-1 gap of a correlation matrix (m, m): by Cholesky where its condition says that the rank is m."""
    m = len(gap)
    try:
        factor = cho_factor(correlation, lower=True)
        reciprocal, _ = dpocon(factor[0], float(np.abs(correlation).sum(axis=0).max()), uplo="L")
        if reciprocal > ESTIMATED * m * SINGULAR:
            return float(gap @ cho_solve(factor, gap))
    except np.linalg.LinAlgError:
        pass
    values, vectors = np.linalg.eigh(correlation)
    check_rank(values)
    return float(np.sum((vectors.T @ gap) ** 2 / values))


@dataclass(frozen=True, eq=False)
class StructuredCov:
    """(P, P) V = own + factors middle factors'.

    own : blocks of equations, sparse.  factors : (P, s) of all.  middle : (s, s), symmetric.
    knows_between : whether that is all of V; False where only the blocks of equations are known.
    Memory P s numbers and those of the blocks.
    """

    design: Design
    own: sp.csr_array
    factors: np.ndarray
    middle: np.ndarray
    knows_between: bool = True

    @classmethod
    def of_arrays(
        cls, design: Design, entries: np.ndarray, factors: np.ndarray, middle: np.ndarray, *, knows_between: bool
    ) -> StructuredCov:
        """entries : of the blocks, row by row, equation by equation; none where they are zero."""
        P = design.n_coefficients
        blocks = np.split(entries, np.cumsum(design.sizes**2)[:-1])
        own = blocks_of(design, blocks) if len(entries) else sp.csr_array((P, P))
        return cls(design, own, factors, middle, knows_between)

    @cached_property
    def full(self) -> np.ndarray:
        """(P, P).  Raises ValueError where covariances between equations are not known."""
        if not self.knows_between:
            raise self._unknown("the covariance of all coefficients")
        found = np.asarray(self.factors @ self.middle @ self.factors.T + self.own.toarray())
        symmetric: np.ndarray = 0.5 * (found + found.T)
        return symmetric

    @cached_property
    def variances(self) -> np.ndarray:
        """(P,), zero where rounding has made one negative: of a coefficient that is nearly held."""
        return self.variances_of(np.arange(self.design.n_coefficients))

    def variances_of(self, places: np.ndarray) -> np.ndarray:
        """(m,) of some coefficients."""
        along = np.empty(len(places))
        for rows in row_slices(len(places), self.factors.shape[1]):
            factors = self.factors[places[rows]]
            along[rows] = np.einsum("is,is->i", factors @ self.middle, factors)
        return np.asarray(np.maximum(self.own.diagonal()[places] + along, 0.0))

    def block(self, equation: int) -> np.ndarray:
        """(p_j, p_j)."""
        mine = self.design.spans[equation]
        half = self.factors[mine]
        found = self.own[mine, mine].toarray() + half @ self.middle @ half.T
        return np.asarray(0.5 * (found + found.T))

    def of_combinations(self, matrix: Any) -> Combinations:
        """R V R' of combinations R (m, P), sparse or not."""
        R = sp.csr_array(matrix)
        if not self.knows_between and len(np.unique(self.design.equation_of[R.indices])) > 1:
            raise self._unknown("a test of coefficients of several equations together")
        return _combined(self.design, R, self.own, np.asarray(R @ self.factors), self.middle)

    def without_variance(self, restrictions: Restrictions | None) -> StructuredCov:
        """With zeros, not rounding, for coefficients that restrictions hold."""
        return self if restrictions is None else self.scaled(np.where(restrictions.held, 0.0, 1.0))

    def scaled(self, each: np.ndarray) -> StructuredCov:
        """diag(each) V diag(each), each (P,)."""
        turn = sp.diags_array(each)
        return StructuredCov(
            self.design,
            sp.csr_array(turn @ self.own @ turn),
            self.factors * each[:, None],
            self.middle,
            self.knows_between,
        )

    def _unknown(self, what: str) -> ValueError:
        return ValueError(
            f"{what} needs covariances between equations, and only those within equations are kept with these standard "
            "errors. Take one equation at a time, cov(equation=...) or a test of its own coefficients, or fit again "
            "with a larger memory_limit."
        )


def blocks_alone(design: Design, blocks: Sequence[np.ndarray]) -> StructuredCov:
    """Of which only the blocks of equations are known."""
    none = np.zeros((design.n_coefficients, 0))
    return StructuredCov(design, blocks_of(design, blocks), none, np.zeros((0, 0)), knows_between=False)


@dataclass(frozen=True, eq=False)
class FormedCov:
    """A covariance of all coefficients whose (P, P) values are at hand."""

    design: Design
    full: np.ndarray

    def block(self, equation: int) -> np.ndarray:
        """(p_j, p_j)."""
        mine = self.design.spans[equation]
        return self.full[mine, mine]

    @property
    def variances(self) -> np.ndarray:
        """(P,)."""
        return np.maximum(self.full.diagonal(), 0.0)  # rounding, of a coefficient that is nearly held

    def variances_of(self, places: np.ndarray) -> np.ndarray:
        """(m,) of some coefficients."""
        return self.variances[places]

    def of_combinations(self, matrix: Any) -> CovOfCombinations:
        """R V R' of combinations R (m, P), sparse or not."""
        R = sp.csr_array(matrix)
        return FormedCombinations(np.asarray(R @ (R @ self.full).T))


def kron_of_combinations(design: Design, sigma: Sigma, inverse: np.ndarray, matrix: Any) -> CovOfCombinations:
    """R (Sigma kron inverse) R' of combinations R (m, K p) of equations that share p columns, sparse or not.

    inverse : (p, p).  Of factors and variances O(m k p^2) and nothing of m x m; else O(m K p) and m x m.
    """
    R = sp.csr_array(matrix)
    p, shape = len(inverse), (R.shape[0], design.n_equations)
    by_column = [sp.csr_array(R[:, place::p]) for place in range(p)]
    used = [place for place in range(p) if by_column[place].nnz]
    if not sigma.is_wide:
        values = np.zeros((shape[0], shape[0]))
        for place in used:
            along = sp.csr_array(shape)
            for other in used:
                along = along + inverse[place, other] * by_column[other]
            values += by_column[place] @ sigma.matmul(along.T.toarray())
        return FormedCombinations(values)
    wide = sigma.widened()
    root = np.linalg.cholesky(inverse)
    factors = np.zeros((shape[0], wide.rank, p))
    for place in used:
        factors += np.asarray(by_column[place] @ wide.F)[:, :, None] * root[place]
    flat = factors.reshape(shape[0], -1)
    own = sp.csr_array(sp.kron(sp.diags_array(wide.d), inverse))
    return _combined(design, R, own, flat, np.eye(flat.shape[1]))


def _combined(
    design: Design, R: sp.csr_array, own: sp.csr_array, factors: np.ndarray, middle: np.ndarray
) -> Combinations:
    """R own R' + factors middle factors', factors (m, s).

    Equations that occur in many combinations make the product of their blocks dense, of low rank as it is: they count
    as factors there.
    """
    times = np.bincount(R.indices, minlength=R.shape[1])
    often = np.isin(design.equation_of, design.equation_of[times > OFTEN])
    if not 0 < 2 * int(often.sum()) < R.shape[0]:
        return Combinations(sp.csr_array(R @ own @ R.T), factors, middle)
    places, alone = np.flatnonzero(often), np.flatnonzero(~often)
    lone = sp.csr_array(R[:, alone])
    return Combinations(
        sp.csr_array(lone @ own[alone][:, alone] @ lone.T),
        np.hstack([factors, R[:, places].toarray()]),
        sp.block_diag([middle, own[places][:, places]], format="csr").toarray(),
    )


def both_sides(matrix: np.ndarray, blocks: Sequence[np.ndarray], design: Design) -> np.ndarray:
    """(P, P) B M B' of a block diagonal B, one (p_j, p_j) block an equation."""
    out = np.empty_like(matrix)
    for mine, block in zip(design.spans, blocks, strict=True):
        out[mine] = block @ matrix[mine]
    for mine, block in zip(design.spans, blocks, strict=True):
        out[:, mine] = out[:, mine] @ block.T
    return out
