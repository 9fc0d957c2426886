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
from typing import Protocol

import numpy as np

__all__ = ["DenseRows", "FactorRows", "Given", "Rows", "half_inverse", "posterior", "posterior_root"]

Array = np.ndarray
NUMBERS = 2**21  # held at a time of the matrices of patterns
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

    def given(self, residual: Array, count: Array | None = None) -> Given:
        """Of residuals (n, K), zero where missing.  count : (n,) of each row in `spread`, none of it if None."""
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

    def given(self, residual: Array, count: Array | None = None) -> Given:
        K = self.observed.shape[1]
        along, filled = residual @ self.precision, residual.copy()
        log_dets, spread = np.full(len(residual), self.logdet), np.zeros(K * K)
        for rows, codes, missing, half in self._stretches():
            inverse = np.swapaxes(half, 1, 2) @ half
            filled[rows[:, None], missing[codes]] = -_by_pattern(inverse, codes, along[rows[:, None], missing[codes]])
            log_dets[rows] -= 2.0 * np.log(np.diagonal(half, axis1=1, axis2=2)).sum(axis=1)[codes]
            if count is not None:
                weight = np.bincount(codes, count[rows], len(missing))
                places = missing[:, :, None] * K + missing[:, None, :]
                spread += np.bincount(places.ravel(), (inverse * weight[:, None, None]).ravel(), K * K)
        scaled = filled @ self.precision
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

    def given(self, residual: Array, count: Array | None = None) -> Given:
        half = half_inverse(posterior_root(self.observed, self))
        log_dets = self.observed @ np.log(self.d)
        for a in range(len(half)):
            log_dets -= 2.0 * np.log(half[a, a])
        white = np.einsum("abn,bn->an", half, self.scaled_loadings.T @ residual.T)
        common = np.einsum("abn,an->bn", half, white).T @ self.F.T
        hidden, spread = 1.0 - self.observed, np.zeros((len(self.d),) * 2)
        if count is not None:
            np.fill_diagonal(spread, self.d * (count @ hidden))
            weighted = hidden * np.sqrt(count)[:, None]
            for a in range(len(half)):
                part = (half[a, : a + 1].T @ self.F.T[: a + 1]) * weighted
                spread += part.T @ part
        scaled = (residual - common * self.observed) / self.d
        return Given(scaled, residual + common * hidden, log_dets, spread)

    def taken(self) -> Iterator[tuple[Array, Array]]:
        half = half_inverse(posterior_root(self.observed, self))
        rows = np.arange(len(self.observed))
        for a in range(len(half)):
            yield rows, (half[a, : a + 1].T @ self.scaled_loadings.T[: a + 1]) * self.observed


def posterior_root(observed: Array, sigma: Factors) -> Array:
    """(k, k, n) lower triangular Cholesky factors of C_i, all rows together, loops over k alone."""
    k = sigma.F.shape[1]
    products = np.einsum("ja,jb->abj", sigma.F, sigma.scaled_loadings).reshape(k * k, len(sigma.F))
    capacitance = (products @ observed.T).reshape(k, k, len(observed))
    root = np.zeros_like(capacitance)
    for b in range(k):
        column = capacitance[b:, b]
        column[0] += 1.0
        for c in range(b):
            column -= root[b:, c] * root[b, c]
        np.sqrt(column[0], out=root[b, b])
        np.divide(column[1:], root[b, b], out=root[b + 1 :, b])
    return root


def half_inverse(root: Array) -> Array:
    """(k, k, n) inverses of lower triangular factors."""
    k = len(root)
    inverse = np.zeros_like(root)
    for a in range(k):
        np.divide(1.0, root[a, a], out=inverse[a, a])
        for b in range(a):
            row = -root[a, b] * inverse[b, b]
            for c in range(b + 1, a):
                row -= root[a, c] * inverse[c, b]
            np.multiply(row, inverse[a, a], out=inverse[a, b])
    return inverse


def posterior(observed: Array, sigma: Factors) -> tuple[Array, Array]:
    """C_i^-1 (k, k, n) and log|C_i| (n,)."""
    root = posterior_root(observed, sigma)
    half, k = half_inverse(root), len(root)
    inverse = np.empty_like(half)
    for a in range(k):
        for b in range(a + 1):
            entry = inverse[a, b]
            np.multiply(half[a, a], half[a, b], out=entry)
            for c in range(a + 1, k):
                entry += half[c, a] * half[c, b]
            if b < a:
                inverse[b, a] = entry
    log_det = np.zeros(observed.shape[0])
    for a in range(k):
        log_det += np.log(root[a, a])
    return inverse, 2.0 * log_det
