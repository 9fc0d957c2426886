"""What rows that show only some equations say, for any Sigma: Sigma_oo^-1 r_o, log|Sigma_oo|, the errors not shown.

Row i shows the equations o and misses m. With Q = Sigma^-1,

    E[r_m | r_o] = -Q_mm^-1 Q_mo r_o,      Var(r_m | r_o) = Q_mm^-1,      log|Sigma_oo| = log|Sigma| + log|Q_mm|,

so with the errors that are missing put in, r~ = (r_o, E[r_m | r_o]), Sigma_oo^-1 r_o is what r~ Q is on o, and on m it
is zero: a row costs a product with Q and a factorisation of the size of what it misses, once for each pattern. For
Sigma = F F' + diag(d) the same goes by the k x k capacitance C_i = I + F_o' D_o^-1 F_o of a row, all rows together.
Source: Little and Rubin (2020), chapter 11; Rubin and Thayer (1982); Woodbury (1950).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import isqrt
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DenseRows",
    "FactorRows",
    "Factors",
    "Given",
    "Posterior",
    "Rows",
    "capacitances",
    "cells_and_pairs",
    "half_inverse",
    "lower_triangle",
    "packed_inverse",
    "posterior",
    "posterior_root",
    "products_of_pairs",
    "times_of_rows",
]

Array = np.ndarray
Room = tuple[Array, Array]
NUMBERS = 2**21  # held at a time of the matrices of patterns
ONE_BY_ONE = 0.02  # share of the pairs of equations, up to which those that a row misses are taken one by one
ROWS_OF_A_PATTERN = 8  # on the average, from which each pattern has its own product with them


@dataclass(frozen=True, eq=False)
class Given:
    """What some rows say at one Sigma.

    scaled : (n, K) Sigma_oo^-1 r_o, zero where missing.  filled : (n, K) r_o, and E[r_m | r_o] where missing.
    log_dets : (n,) log|Sigma_oo|.  spread : (K, K) the sum of Var(r | r_o) over rows, zero for what is shown; zero too
    where it was not asked for.
    """

    scaled: Array
    filled: Array
    log_dets: Array
    spread: Array


class Rows(Protocol):
    """Rows at a Sigma, of which `observed` (n, K), one or zero, says what they show."""

    @property
    def observed(self) -> Array: ...

    @property
    def base(self) -> Array:
        """(K, K) what Sigma_oo^-1 is, on o, less what `taken` says."""
        ...

    def given(self, residual: Array, count: Array | None = None, room: Room | None = None) -> Given:
        """Of residuals (n, K), zero where missing.  count : (n,) of each row in `spread`, none of it if None.

        room : two (n, K) in C order where `scaled` and `filled` go, if given.
        """
        ...

    def taken(self) -> Iterator[tuple[Array, Array]]:
        """Some rows (s,), and vectors h (s, K) of them: Sigma_oo^-1 is `base` less the sum of all h h' of a row."""
        ...


class Factors(Protocol):
    """F and D^-1 F, (K, k) each."""

    @property
    def F(self) -> Array: ...
    @property
    def scaled_loadings(self) -> Array: ...


# ---------------------------------------------------------------------------------------------- any Sigma


@dataclass(frozen=True, eq=False)
class DenseRows:
    """Rows at a Sigma whose inverse is `precision` (K, K) and log-determinant `logdet`; O(m^3) for each pattern.

    observed : (n, K), one or zero.
    """

    precision: Array
    logdet: float
    observed: Array

    @property
    def base(self) -> Array:
        return self.precision

    def given(self, residual: Array, count: Array | None = None, room: Room | None = None) -> Given:
        K = self.observed.shape[1]
        scaled, filled = _room_for(residual, room)
        np.copyto(filled, residual)
        along = np.matmul(residual, self.precision, out=scaled)
        log_dets, spread = np.full(len(residual), self.logdet), np.zeros(K * K)
        for rows, codes, missing, half in self._stretches():
            inverse = np.swapaxes(half, 1, 2) @ half
            filled[rows[:, None], missing[codes]] = -_by_pattern(inverse, codes, along[rows[:, None], missing[codes]])
            log_dets[rows] -= 2.0 * np.log(np.diagonal(half, axis1=1, axis2=2)).sum(axis=1)[codes]
            if count is not None:
                weight = np.bincount(codes, count[rows], len(missing))
                places = missing[:, :, None] * K + missing[:, None, :]
                spread += np.bincount(places.ravel(), (inverse * weight[:, None, None]).ravel(), K * K)
        np.matmul(filled, self.precision, out=scaled)
        scaled *= self.observed
        return Given(scaled, filled, log_dets, spread.reshape(K, K))

    def taken(self) -> Iterator[tuple[Array, Array]]:
        for rows, codes, missing, half in self._stretches():
            along = half @ self.precision[missing]
            for each in range(missing.shape[1]):
                yield rows, along[:, each][codes] * self.observed[rows]

    def _stretches(self) -> Iterator[tuple[Array, Array, Array, Array]]:
        """Rows that miss as many equations, some patterns at a time.

        rows (s,), codes (s,) the pattern of each, missing (u, m) equations of each pattern, half (u, m, m) L^-1 with
        L L' = Q_mm.
        """
        packed = np.packbits(self.observed > 0, axis=1)
        _, first, code = np.unique(packed, axis=0, return_index=True, return_inverse=True)
        hidden, code = self.observed[first] == 0, code.reshape(-1)
        order, n_missing = np.argsort(code, kind="stable"), hidden.sum(axis=1)
        ends = np.cumsum(np.bincount(code, minlength=len(first)))
        for m in np.unique(n_missing[n_missing > 0]):
            alike = np.flatnonzero(n_missing == m)
            height = max(1, NUMBERS // int(m) ** 2)
            for patterns in (alike[i : i + height] for i in range(0, len(alike), height)):
                missing = np.nonzero(hidden[patterns])[1].reshape(len(patterns), m)
                root = np.linalg.cholesky(self.precision[missing[:, :, None], missing[:, None, :]])
                rows = np.concatenate([order[(ends[p - 1] if p else 0) : ends[p]] for p in patterns])
                yield rows, np.searchsorted(patterns, code[rows]), missing, np.tril(np.linalg.inv(root))


def _room_for(residual: Array, room: Room | None) -> Room:
    return (np.empty(residual.shape), np.empty(residual.shape)) if room is None else room


def _by_pattern(matrices: Array, codes: Array, values: Array) -> Array:
    """(s, m) each row of values (s, m) times the symmetric matrix of its pattern; codes ascend."""
    if len(codes) >= ROWS_OF_A_PATTERN * len(matrices):
        ends = np.cumsum(np.bincount(codes, minlength=len(matrices)))
        parts = np.split(values, ends[:-1])
        return np.concatenate([part @ matrix for part, matrix in zip(parts, matrices, strict=True)])
    height, out = max(1, NUMBERS // matrices[0].size), np.empty_like(values)
    for i in range(0, len(codes), height):
        some = slice(i, i + height)
        out[some] = (values[some, None, :] @ matrices[codes[some]])[:, 0]
    return out


# ---------------------------------------------------------------------------------------------- factors and variances


@dataclass(frozen=True, eq=False)
class FactorRows:
    """Rows at Sigma = F F' + diag(d); O(K k^2) for each, no K x K array but the spread.

    F, scaled_loadings : (K, k) F and D^-1 F.  d : (K,).  observed : (n, K), one or zero.
    """

    F: Array
    scaled_loadings: Array
    d: Array
    observed: Array

    @property
    def base(self) -> Array:
        return np.diag(1.0 / self.d)

    def given(self, residual: Array, count: Array | None = None, room: Room | None = None) -> Given:
        half, (scaled, filled) = half_inverse(posterior_root(self.observed, self)), _room_for(residual, room)
        log_dets = self.observed @ np.log(self.d)
        for a in range(len(half)):
            log_dets -= 2.0 * np.log(half[a, a])
        hidden = self.observed == 0
        cells = np.flatnonzero(hidden)
        white = np.einsum("abn,bn->an", half, self.scaled_loadings.T @ residual.T)
        np.matmul(np.einsum("abn,an->bn", half, white).T, self.F.T, out=filled)
        np.subtract(residual, filled, out=scaled)
        scaled.reshape(-1)[cells] = 0.0
        scaled /= self.d
        common = filled.reshape(-1)[cells]
        np.copyto(filled, residual)
        filled.reshape(-1)[cells] = common
        spread = np.zeros((len(self.d),) * 2) if count is None else self._spread(hidden, half, count)
        return Given(scaled, filled, log_dets, spread)

    def _spread(self, hidden: NDArray[np.bool_], half: Array, count: Array) -> Array:
        """(K, K) sum of Var(r | r_o)."""
        K = len(self.d)
        if not hidden.any():
            return np.zeros((K, K))
        missed = np.count_nonzero(hidden, axis=1)
        if (missed * (missed + 1.0)).sum() > ONE_BY_ONE * len(hidden) * K * (K + 1):
            weighted, spread = hidden * np.sqrt(count)[:, None], np.diag(self.d * (count @ hidden))
            for a in range(len(half)):
                part = (half[a, : a + 1].T @ self.F.T[: a + 1]) * weighted
                spread += part.T @ part
            return spread
        rows, columns, first, second = cells_and_pairs(hidden)
        weights = count[rows[first]] * products_of_pairs(
            times_of_rows(half, np.take(self.F.T, columns, axis=1), rows), first, second
        )
        lower = np.bincount(columns[first] * K + columns[second], weights, K * K).reshape(K, K)
        spread = lower + np.tril(lower, -1).T
        spread[np.diag_indices(K)] += self.d * np.bincount(columns, count[rows], K)
        return spread

    def taken(self) -> Iterator[tuple[Array, Array]]:
        half = half_inverse(posterior_root(self.observed, self))
        rows = np.arange(len(self.observed))
        for a in range(len(half)):
            yield rows, (half[a, : a + 1].T @ self.scaled_loadings.T[: a + 1]) * self.observed


def cells_and_pairs(some: NDArray[np.bool_]) -> tuple[Array, Array, Array, Array]:
    """Rows (e,) and columns (e,) of the cells of `some` (n, K), and first (p,), second (p,) of every pair of them that
    stand in one row, a cell with itself too; the first has the later column."""
    cells = np.flatnonzero(some)
    rows = cells // some.shape[1]
    counted = np.bincount(rows, minlength=len(some))
    begin = (np.cumsum(counted) - counted)[rows]
    height = np.arange(1, len(rows) + 1) - begin  # how many of its row come up to a cell
    first = np.repeat(np.arange(len(rows)), height)
    second = np.arange(len(first)) - np.repeat(np.cumsum(height) - height - begin, height)
    return rows, cells - rows * some.shape[1], first, second


def times_of_rows(matrices: Array, vectors: Array, rows: Array) -> Array:
    """(k, e) the matrix of its row, of matrices (k, k, n), times each of vectors (k, e)."""
    found = np.zeros_like(vectors)
    for out, of_row in zip(found, matrices, strict=True):
        for matrix, vector in zip(of_row, vectors, strict=True):
            out += matrix[rows] * vector
    return found


def products_of_pairs(vectors: Array, first: Array, second: Array) -> Array:
    """(p,) products of pairs of vectors (k, e)."""
    found = np.zeros(len(first))
    for each in vectors:
        found += each[first] * each[second]
    return found


def posterior_root(observed: Array, sigma: Factors) -> Array:
    """(k, k, n) lower triangular Cholesky factors of C_i, all rows together, loops over k alone."""
    return _roots(capacitances(observed, sigma))


def capacitances(observed: Array, sigma: Factors) -> Array:
    """(h, n) lower triangles of C_i - I = F_o' D_o^-1 F_o."""
    rows, columns = lower_triangle(sigma.F.shape[1])
    return np.asarray((sigma.F[:, rows] * sigma.scaled_loadings[:, columns]).T @ observed.T)


def _roots(capacitance: Array) -> Array:
    h, n = capacitance.shape
    k = (isqrt(8 * h + 1) - 1) // 2
    _, columns = lower_triangle(k)
    root = np.zeros((k, k, n))
    for b in range(k):
        column = root[b:, b]
        np.copyto(column, capacitance[columns == b])
        column[0] += 1.0
        if b:
            column -= np.einsum("acn,cn->an", root[b:, :b], root[b, :b])
        np.sqrt(column[0], out=column[0])
        column[1:] /= column[0]
    return root


def half_inverse(root: Array) -> Array:
    """(k, k, n) inverses of lower triangular factors."""
    inverse = np.zeros_like(root)
    for a in range(len(root)):
        np.divide(1.0, root[a, a], out=inverse[a, a])
        if a:
            np.einsum("cn,cbn->bn", root[a, :a], inverse[:a, :a], out=inverse[a, :a])
            inverse[a, :a] *= -inverse[a, a]
    return inverse


@dataclass(frozen=True, eq=False)
class Posterior:
    """The factors of rows given what these show, normal with variance C_i^-1 = H'H.

    half : (k, k, n) H, lower triangular.  log_det : (n,) log|C_i|.  packed : (h, n) lower triangles of C_i^-1.
    """

    half: Array
    log_det: Array
    packed: Array

    def of(self, rows: slice | Array) -> Posterior:
        """Of some of the rows."""
        return Posterior(self.half[:, :, rows], self.log_det[rows], self.packed[:, rows])

    @staticmethod
    def numbers(sigma: Factors) -> int:
        """Of a row."""
        k = sigma.F.shape[1]
        return 1 + k * k + k * (k + 1) // 2


def posterior(capacitance: Array) -> Posterior:
    """Of rows whose `capacitances` these are."""
    half = half_inverse(_roots(capacitance))
    return Posterior(half, -2.0 * np.log(np.einsum("aan->an", half)).sum(axis=0), packed_inverse(half))


def packed_inverse(half: Array) -> Array:
    """(h, n) lower triangles of H'H, h = k (k + 1) / 2."""
    k, _, n = half.shape
    packed = np.empty((k * (k + 1) // 2, n))
    for a in range(k):
        first = a * (a + 1) // 2
        np.einsum("cn,cbn->bn", half[a:, a], half[a:, : a + 1], out=packed[first : first + a + 1])
    return packed


@cache
def lower_triangle(k: int) -> tuple[Array, Array]:
    """Where the numbers of a packed triangle stand; made once, as a look at few rows takes no longer."""
    rows, columns = np.tril_indices(k)
    return rows, columns
