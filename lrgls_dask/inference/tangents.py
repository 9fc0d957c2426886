"""The free parameters of an error covariance, as directions in which Sigma can move.

For a direction dS_a of Sigma, with Q = Sigma^-1, S = R'R / N and G = Q S Q - Q, the log-likelihood of N rows has

    derivative                 N/2 tr(G dS_a),
    minus second derivative    N/2 [tr(dS_a Q dS_b (Q + 2 G)) - tr(G d2S_ab)],      expected  N/2 tr(dS_a Q dS_b Q),

by d Sigma^-1 = -Q dS Q (Magnus & Neudecker 1988, chapter 8; Lawley & Maxwell 1971, appendix). Each structure
contracts these sums in closed form: nothing of size m K^2 is formed for its m parameters.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

from lrgls_dask.inference.standardised import Covariance
from lrgls_dask.sigma.grouped_factors import GroupedFactors
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.structures import loadings_in

__all__ = ["FactorTangents", "FullTangents", "Tangents", "tangents_of"]

BATCH_NUMBERS = 2**23  # 64 MB of directions at a time
CACHED_NUMBERS = 2**17  # 1 MB of second derivatives at a time


class Tangents(Protocol):
    """m parameters of Sigma (K, K) at given values; all in the same units as their arguments."""

    @property
    def n_parameters(self) -> int: ...

    def curvature(self, Q: np.ndarray, G: np.ndarray) -> np.ndarray:
        """(m, m) minus the second derivatives of -1/2 [log|Sigma| + tr(Sigma^-1 S)]; G = 0 gives their mean."""
        ...

    def gradient(self, G: np.ndarray) -> np.ndarray:
        """(m,) derivatives of the same."""
        ...

    def cross(self, U: np.ndarray, Q: np.ndarray, equation_of: np.ndarray) -> np.ndarray:
        """(P, m) numbers U_p dS_a Q e_j, U (P, K), j the equation of p."""
        ...

    def scores(self, v: np.ndarray, Q: np.ndarray) -> np.ndarray:
        """(n, m) numbers 1/2 tr((v v' - Q) dS_a), one row for each row v of (n, K)."""
        ...

    def moves(self, weights: np.ndarray) -> np.ndarray:
        """(r, K, K) directions sum_a weights[a, .] dS_a, weights (m, r)."""
        ...

    @property
    def flat(self) -> np.ndarray:
        """(m, g) orthonormal parameter directions along which Sigma does not move."""
        ...


@dataclass(frozen=True, eq=False)
class FactorTangents:
    """Parameters (free loadings, then d) of F F' + diag(d), without those d_j that are held on their floor.

    F : (K, m), wide and with its zeros.  d : (K,).  rows, columns : (n,) equation and factor of every free loading.
    together : factors with free loadings in the very same equations; rotations among them are flat.
    free_d : (K,) false where d_j is held.
    """

    F: np.ndarray
    d: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    together: tuple[np.ndarray, ...]
    free_d: np.ndarray

    @property
    def n_parameters(self) -> int:
        return int(len(self.rows) + self.free_d.sum())

    def curvature(self, Q: np.ndarray, G: np.ndarray) -> np.ndarray:
        """O(n^2) for each of five terms, n free loadings, beside K^2 m products; one n x n array and K x n ones."""
        n, rows, columns, kept = len(self.rows), self.rows, self.columns, self.free_d
        F, M = self.F, Q + 2.0 * G
        QF, MF = Q @ F, M @ F
        out = np.empty((self.n_parameters,) * 2)
        # loadings a = (i, u) and b = (j, v): (F'QF)_uv M_ij + (F'MF)_uv Q_ij + (QF)_ju (MF)_iv + (MF)_ju (QF)_iv
        by_factor = [(F.T @ QF)[:, columns], (F.T @ MF)[:, columns], QF.T[:, rows], MF.T[:, rows]]
        by_equation = [M[:, rows], Q[:, rows], MF[:, columns], QF[:, columns]]
        for some in _stretches(n, CACHED_NUMBERS // max(n, 1)):
            i, u = rows[some], columns[some]
            total = by_factor[0][u] * by_equation[0][i]
            for left, right in zip(by_factor[1:], by_equation[1:], strict=True):
                total += left[u] * right[i]
            out[some, :n] = total
        for factor in range(F.shape[1]):  # less tr(G d2S), of loadings on the same factor only
            here = np.flatnonzero(columns == factor)
            out[np.ix_(here, here)] -= 2.0 * G[np.ix_(rows[here], rows[here])]
        out[:n, n:] = (M[rows] * QF.T[columns] + Q[rows] * MF.T[columns])[:, kept]
        out[n:, :n] = out[:n, n:].T
        out[n:, n:] = (Q * M)[np.ix_(kept, kept)]
        out *= 0.5
        return out

    def gradient(self, G: np.ndarray) -> np.ndarray:
        return np.concatenate([(G @ self.F)[self.rows, self.columns], 0.5 * G.diagonal()[self.free_d]])

    def cross(self, U: np.ndarray, Q: np.ndarray, equation_of: np.ndarray) -> np.ndarray:
        n = len(self.rows)
        out = np.empty((len(U), self.n_parameters))
        out[:, :n] = U.take(self.rows, axis=1)
        out[:, :n] *= (Q @ self.F).take(self.columns, axis=1)[equation_of]
        second = Q.take(self.rows, axis=1)[equation_of]
        second *= (U @ self.F).take(self.columns, axis=1)
        out[:, :n] += second
        out[:, n:] = (U * Q[equation_of])[:, self.free_d]
        return out

    def scores(self, v: np.ndarray, Q: np.ndarray) -> np.ndarray:
        n = len(self.rows)
        out = np.empty((len(v), self.n_parameters))
        out[:, :n] = v.take(self.rows, axis=1)
        out[:, :n] *= (v @ self.F).take(self.columns, axis=1)
        out[:, :n] -= (Q @ self.F)[self.rows, self.columns]
        out[:, n:] = 0.5 * (v[:, self.free_d] ** 2 - Q.diagonal()[self.free_d])
        return out

    def moves(self, weights: np.ndarray) -> np.ndarray:
        n = len(self.rows)
        changes = np.zeros((weights.shape[1], *self.F.shape))
        changes[:, self.rows, self.columns] = weights[:n].T
        half = changes @ self.F.T
        out = half + half.transpose(0, 2, 1)
        places = np.flatnonzero(self.free_d)
        out[:, places, places] += weights[n:].T
        return np.asarray(out)

    @cached_property
    def flat(self) -> np.ndarray:
        """Bases of the rotations F A, A antisymmetric, one set of equations after the other."""
        places = [np.flatnonzero(self.columns == u) for u in range(self.F.shape[1])]  # rows ascend within a factor
        bases = [np.zeros((self.n_parameters, 0))]
        for factors in self.together:
            pairs = list(itertools.combinations(factors.tolist(), 2))
            turns = np.zeros((self.n_parameters, len(pairs)))
            for turn, (one, other) in zip(turns.T, pairs, strict=True):
                for to, of, sign in ((one, other, -1.0), (other, one, 1.0)):
                    turn[places[to]] = sign * self.F[self.rows[places[of]], self.columns[places[of]]]
            bases.append(np.linalg.qr(turns)[0])
        return np.hstack(bases)

    def variances(self, weights: np.ndarray) -> np.ndarray:
        """(K, r) moves of d, zero where it is held, for weights (m, r)."""
        out = np.zeros((len(self.F), weights.shape[1]))
        out[self.free_d] = weights[len(self.rows) :]
        return out


@dataclass(frozen=True, eq=False)
class FullTangents:
    """Parameters sigma_ij, i >= j, of an unrestricted Sigma of K equations, row by row of the lower triangle."""

    n_equations: int
    rows: np.ndarray = field(init=False)
    columns: np.ndarray = field(init=False)
    halved: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        rows, columns = np.tril_indices(self.n_equations)
        # dS = c (e_i e_j' + e_j e_i') moves sigma_ij by one: c is a half on the diagonal
        for name, value in (("rows", rows), ("columns", columns), ("halved", np.where(rows == columns, 0.5, 1.0))):
            object.__setattr__(self, name, value)

    @property
    def n_parameters(self) -> int:
        return len(self.rows)

    def curvature(self, Q: np.ndarray, G: np.ndarray) -> np.ndarray:
        """O(K^4)."""
        i, j, M = self.rows, self.columns, Q + 2.0 * G
        out = Q[np.ix_(j, i)] * M[np.ix_(i, j)]
        out += Q[np.ix_(j, j)] * M[np.ix_(i, i)]
        out += Q[np.ix_(i, i)] * M[np.ix_(j, j)]
        out += Q[np.ix_(i, j)] * M[np.ix_(j, i)]
        return np.asarray(0.5 * out * self.halved * self.halved[:, None])

    def gradient(self, G: np.ndarray) -> np.ndarray:
        return np.asarray(G[self.rows, self.columns] * self.halved)

    def cross(self, U: np.ndarray, Q: np.ndarray, equation_of: np.ndarray) -> np.ndarray:
        of_p = Q[equation_of]
        both = U[:, self.rows] * of_p[:, self.columns] + U[:, self.columns] * of_p[:, self.rows]
        return np.asarray(both * self.halved)

    def scores(self, v: np.ndarray, Q: np.ndarray) -> np.ndarray:
        products = v[:, self.rows] * v[:, self.columns] - Q[self.rows, self.columns]
        return np.asarray(products * self.halved)

    def moves(self, weights: np.ndarray) -> np.ndarray:
        out = np.zeros((weights.shape[1], self.n_equations, self.n_equations))
        out[:, self.rows, self.columns] = weights.T
        out[:, self.columns, self.rows] = weights.T
        return out

    @property
    def flat(self) -> np.ndarray:
        return np.zeros((self.n_parameters, 0))


def tangents_of(sigma: Covariance, on_floor: np.ndarray | None) -> FactorTangents | FullTangents:
    """The free parameters of `sigma`: those of its factors where it has them, else its entries.

    on_floor : (K,) true where d_j sits on its floor, None for nowhere.
    """
    if not isinstance(sigma, LowRank | GroupedFactors):
        return FullTangents(len(sigma.precision_diagonal))
    F, d = sigma.F, sigma.d
    held = np.zeros(len(d), dtype=bool) if on_floor is None else np.asarray(on_floor, dtype=bool)
    blocks = loadings_in(sigma)
    rows = np.repeat(np.arange(len(d)), blocks.n_own)
    return FactorTangents(F, d, rows, blocks.columns.ravel(), blocks.together, ~held)


def batches(n_directions: int, n_equations: int) -> Iterator[slice]:
    """Stretches of directions whose (K, K) arrays fit in BATCH_NUMBERS."""
    return _stretches(n_directions, BATCH_NUMBERS // n_equations**2)


def _stretches(n: int, height: int) -> Iterator[slice]:
    """0..n in slices of `height`, of one at least."""
    for first in range(0, n, max(1, height)):
        yield slice(first, min(first + max(1, height), n))
