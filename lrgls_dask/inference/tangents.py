"""The free parameters of an error covariance, as directions in which Sigma can move.

For a direction dS_a of Sigma, with Q = Sigma^-1, S = R'R / N and G = Q S Q - Q, the log-likelihood of N rows has

    derivative                 N/2 tr(G dS_a),
    minus second derivative    N/2 [tr(dS_a Q dS_b (Q + 2 G)) - tr(G d2S_ab)],      expected  N/2 tr(dS_a Q dS_b Q),

by d Sigma^-1 = -Q dS Q (Magnus & Neudecker 1988, chapter 8; Lawley & Maxwell 1971, appendix). Each structure
contracts these sums in closed form: nothing of size m K^2 is formed for its m parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

from lrgls_dask.covariance import LowRank
from lrgls_dask.inference.standardised import Covariance

__all__ = ["FullTangents", "LowRankTangents", "Tangents", "tangents_of"]

BATCH_NUMBERS = 2**23  # 64 MB of directions at a time


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
class LowRankTangents:
    """Parameters (F row by row, then d) of F F' + diag(d), without those d_j that are held on their floor.

    F : (K, k).  d : (K,).  free_d : (K,) false where d_j is held.
    k (k - 1) / 2 directions F A, A antisymmetric, are flat.
    """

    F: np.ndarray
    d: np.ndarray
    free_d: np.ndarray

    @property
    def n_parameters(self) -> int:
        return int(self.F.size + self.free_d.sum())

    def curvature(self, Q: np.ndarray, G: np.ndarray) -> np.ndarray:
        """O((K k)^2) for each of six terms."""
        (K, k), F, M = self.F.shape, self.F, Q + 2.0 * G
        QF, MF = Q @ F, M @ F
        crossed = np.einsum("ju,iv->iujv", QF, MF)
        crossed += crossed.transpose(2, 3, 0, 1)
        crossed += np.einsum("uv,ij->iujv", F.T @ QF, M)
        crossed += np.einsum("uv,ij->iujv", F.T @ MF, Q)
        for u in range(k):
            crossed[:, u, :, u] -= 2.0 * G
        mixed = np.einsum("ij,ju->iuj", M, QF) + np.einsum("ij,ju->iuj", Q, MF)
        FF, Fd, kept = crossed.reshape(K * k, K * k), mixed.reshape(K * k, K), self.free_d
        return np.asarray(0.5 * np.block([[FF, Fd[:, kept]], [Fd[:, kept].T, (Q * M)[np.ix_(kept, kept)]]]))

    def gradient(self, G: np.ndarray) -> np.ndarray:
        return np.concatenate([(G @ self.F).ravel(), 0.5 * G.diagonal()[self.free_d]])

    def cross(self, U: np.ndarray, Q: np.ndarray, equation_of: np.ndarray) -> np.ndarray:
        of_p = Q[equation_of]
        loadings = np.einsum("pi,pu->piu", U, (Q @ self.F)[equation_of])
        loadings += np.einsum("pi,pu->piu", of_p, U @ self.F)
        return np.hstack([loadings.reshape(len(U), -1), (U * of_p)[:, self.free_d]])

    def scores(self, v: np.ndarray, Q: np.ndarray) -> np.ndarray:
        n, at = len(v), self.F.size
        out = np.empty((n, self.n_parameters))
        loadings = out[:, :at].reshape(n, *self.F.shape)
        np.einsum("ni,nu->niu", v, v @ self.F, out=loadings)
        loadings -= Q @ self.F
        out[:, at:] = 0.5 * (v[:, self.free_d] ** 2 - Q.diagonal()[self.free_d])
        return out

    def moves(self, weights: np.ndarray) -> np.ndarray:
        (K, k), r = self.F.shape, weights.shape[1]
        half = weights[: K * k].T.reshape(r, K, k) @ self.F.T
        out = half + half.transpose(0, 2, 1)
        places = np.flatnonzero(self.free_d)
        out[:, places, places] += weights[K * k :].T
        return np.asarray(out)

    @cached_property
    def flat(self) -> np.ndarray:
        K, k = self.F.shape
        pairs = np.transpose(np.triu_indices(k, 1))
        turns = np.zeros((len(pairs), K, k))
        for turn, (u, v) in zip(turns, pairs, strict=True):
            turn[:, u], turn[:, v] = -self.F[:, v], self.F[:, u]
        basis = np.zeros((self.n_parameters, len(pairs)))
        basis[: K * k] = np.linalg.qr(turns.reshape(len(pairs), K * k).T)[0]
        return basis

    def variances(self, weights: np.ndarray) -> np.ndarray:
        """(K, r) moves of d, zero where it is held, for weights (m, r)."""
        out = np.zeros((len(self.F), weights.shape[1]))
        out[self.free_d] = weights[self.F.size :]
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


def tangents_of(sigma: Covariance, on_floor: np.ndarray | None) -> LowRankTangents | FullTangents:
    """The free parameters of `sigma`: those of its factors where it has them, else its entries.

    on_floor : (K,) true where d_j sits on its floor, None for nowhere.
    """
    if isinstance(sigma, LowRank):
        held = np.zeros(sigma.n_equations, dtype=bool) if on_floor is None else np.asarray(on_floor, dtype=bool)
        return LowRankTangents(sigma.F, sigma.d, ~held)
    return FullTangents(len(sigma.precision_diagonal))


def batches(n_directions: int, n_equations: int) -> Iterator[slice]:
    """Stretches of directions whose (K, K) arrays fit in BATCH_NUMBERS."""
    height = max(1, BATCH_NUMBERS // n_equations**2)
    for first in range(0, n_directions, height):
        yield slice(first, min(first + height, n_directions))
