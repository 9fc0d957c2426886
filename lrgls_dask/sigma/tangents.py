"""The free parameters of an error covariance, as directions in which Sigma can move.

For a direction dS_a of Sigma, with Q = Sigma^-1, S = R'R / N and G = Q S Q - Q, the log-likelihood of N rows has

    derivative                 N/2 tr(G dS_a),
    minus second derivative    N/2 [tr(dS_a Q dS_b (Q + 2 G)) - tr(G d2S_ab)],      expected  N/2 tr(dS_a Q dS_b Q),

by d Sigma^-1 = -Q dS Q (Magnus & Neudecker 1988, chapter 8; Lawley & Maxwell 1971, appendix). With Sigma = F F' + own
part the directions are f_u e_i' + e_i f_u' for a loading of equation i on factor u, and e_i e_j' + e_j e_i' (half of it
for i = j) for an entry (i, j) of the own part. The sums are contracted in closed form: nothing of size m K^2 is formed
for m parameters.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

__all__ = ["Tangents", "batches"]

BATCH_NUMBERS = 2**23  # 64 MB of directions at a time
CACHED_NUMBERS = 2**17  # 1 MB of second derivatives at a time


class Shown(Protocol):
    """What some rows show at a Sigma (sigma/shown.py)."""

    @property
    def observed(self) -> np.ndarray: ...

    @property
    def base(self) -> np.ndarray: ...

    def taken(self) -> Iterator[tuple[np.ndarray, np.ndarray]]: ...


@dataclass(frozen=True, eq=False)
class Tangents:
    """Parameters (free loadings, then free entries of the own part) of Sigma = F F' + own part, at given values.

    All in the same units as the arguments of the methods.
    F : (K, k), wide and with its zeros; (K, 0) without factors.  rows, columns : (n,) equation and factor of every free
    loading, equation by equation.  together : factors with free loadings in the very same equations; rotations among
    them are flat.
    own_rows, own_columns : (p,) the equations i >= j of every free entry of the own part.
    unrestricted : whether the entries are all of Sigma, so that its estimate is a Wishart matrix.
    """

    F: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    together: tuple[np.ndarray, ...]
    own_rows: np.ndarray
    own_columns: np.ndarray
    unrestricted: bool = False

    @classmethod
    def of_entries(cls, n_equations: int, own_rows: np.ndarray, own_columns: np.ndarray, **facts: bool) -> Tangents:
        """Without factors."""
        none = np.zeros(0, dtype=np.intp)
        return cls(np.zeros((n_equations, 0)), none, none, (), own_rows, own_columns, **facts)

    @property
    def n_parameters(self) -> int:
        """m = n + p."""
        return len(self.rows) + len(self.own_rows)

    @cached_property
    def _halved(self) -> np.ndarray:
        """(p,) what makes an entry of the own part move by one: a half on the diagonal."""
        return np.where(self.own_rows == self.own_columns, 0.5, 1.0)

    def curvature(self, Q: np.ndarray, G: np.ndarray) -> np.ndarray:
        """(m, m) minus the second derivatives of -1/2 [log|Sigma| + tr(Sigma^-1 S)]; G = 0 gives their mean.

        O(m^2) for each of five terms, beside K^2 m products; one m x m array and K x m ones.
        """
        n, rows, columns = len(self.rows), self.rows, self.columns
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
        out[:n, n:] = self._of_both(Q, M, QF, MF)
        out[n:, :n] = out[:n, n:].T
        out[n:, n:] = self._of_own_part(Q, M)
        out *= 0.5
        return out

    def _of_both(self, Q: np.ndarray, M: np.ndarray, QF: np.ndarray, MF: np.ndarray) -> np.ndarray:
        """(n, p) tr(dS_a Q dS_b M) of a loading (i, u) and an entry (k, l) of the own part."""

        def one_way(k: np.ndarray, m: np.ndarray) -> np.ndarray:
            out: np.ndarray = M[self.rows[:, None], m] * QF.T[self.columns[:, None], k]
            out += Q[self.rows[:, None], m] * MF.T[self.columns[:, None], k]
            return out

        both = one_way(self.own_rows, self.own_columns)
        both += one_way(self.own_columns, self.own_rows)
        return both * self._halved

    def _of_own_part(self, Q: np.ndarray, M: np.ndarray) -> np.ndarray:
        """(p, p) tr(dS_a Q dS_b M) of two entries of the own part."""
        i, j = self.own_rows, self.own_columns
        out: np.ndarray = Q[np.ix_(j, i)] * M[np.ix_(i, j)]
        out += Q[np.ix_(j, j)] * M[np.ix_(i, i)]
        out += Q[np.ix_(i, i)] * M[np.ix_(j, j)]
        out += Q[np.ix_(i, j)] * M[np.ix_(j, i)]
        return out * self._halved * self._halved[:, None]

    def gradient(self, G: np.ndarray) -> np.ndarray:
        """(m,) derivatives of -1/2 [log|Sigma| + tr(Sigma^-1 S)]."""
        of_loadings = (G @ self.F)[self.rows, self.columns]
        return np.concatenate([of_loadings, G[self.own_rows, self.own_columns] * self._halved])

    def cross(self, U: np.ndarray, Q: np.ndarray, equation_of: np.ndarray) -> np.ndarray:
        """(P, m) numbers U_p dS_a Q e_j, U (P, K), j the equation of p."""
        n, of_p = len(self.rows), Q[equation_of]
        out = np.empty((len(U), self.n_parameters))
        out[:, :n] = U.take(self.rows, axis=1)
        out[:, :n] *= (Q @ self.F).take(self.columns, axis=1)[equation_of]
        second = Q.take(self.rows, axis=1)[equation_of]
        second *= (U @ self.F).take(self.columns, axis=1)
        out[:, :n] += second
        out[:, n:] = U[:, self.own_rows] * of_p[:, self.own_columns]
        out[:, n:] += U[:, self.own_columns] * of_p[:, self.own_rows]
        out[:, n:] *= self._halved
        return out

    def gradients(self, v: np.ndarray, Q: np.ndarray) -> np.ndarray:
        """(n, m) numbers 1/2 tr((v v' - Q) dS_a), one row for each row v of (n, K)."""
        n = len(self.rows)
        out = np.empty((len(v), self.n_parameters))
        out[:, :n] = v.take(self.rows, axis=1)
        out[:, :n] *= (v @ self.F).take(self.columns, axis=1)
        out[:, :n] -= (Q @ self.F)[self.rows, self.columns]
        out[:, n:] = v.take(self.own_rows, axis=1)
        out[:, n:] *= v.take(self.own_columns, axis=1)
        out[:, n:] -= Q[self.own_rows, self.own_columns]
        out[:, n:] *= self._halved
        return out

    def gradients_of(self, v: np.ndarray, shown: Shown) -> np.ndarray:
        """(n, m) numbers 1/2 tr((v v' - P) dS_a) of rows that show only some equations, P = Sigma_oo^-1, zero where not
        shown, v = P r; n k K^2 multiplications."""
        n, observed, base = len(self.rows), shown.observed, shown.base
        out = np.empty((len(v), self.n_parameters))
        PF = np.stack([(observed * f) @ base * observed for f in self.F.T], axis=2) if n else None
        own = base[self.own_rows, self.own_columns] * observed[:, self.own_rows]
        own *= observed[:, self.own_columns]
        for rows, h in shown.taken():
            own[rows] -= h[:, self.own_rows] * h[:, self.own_columns]
            if PF is not None:
                PF[rows] -= h[:, :, None] * (h @ self.F)[:, None, :]
        if PF is not None:
            out[:, :n] = v[:, self.rows] * (v @ self.F)[:, self.columns] - PF[:, self.rows, self.columns]
        out[:, n:] = v[:, self.own_rows] * v[:, self.own_columns] - own
        out[:, n:] *= self._halved
        return out

    def moves(self, weights: np.ndarray) -> np.ndarray:
        """(r, K, K) directions sum_a weights[a, .] dS_a, weights (m, r)."""
        n = len(self.rows)
        changes = np.zeros((weights.shape[1], *self.F.shape))
        changes[:, self.rows, self.columns] = weights[:n].T
        half = changes @ self.F.T
        out = half + half.transpose(0, 2, 1)
        out[:, self.own_rows, self.own_columns] += weights[n:].T
        apart = np.flatnonzero(self.own_rows != self.own_columns)
        out[:, self.own_columns[apart], self.own_rows[apart]] += weights[n:][apart].T
        return np.asarray(out)

    def own_moves(self, weights: np.ndarray) -> np.ndarray:
        """(K, r) moves of the own part's diagonal, zero where it is held, for weights (m, r)."""
        out = np.zeros((len(self.F), weights.shape[1]))
        own = np.flatnonzero(self.own_rows == self.own_columns)
        out[self.own_rows[own]] = weights[len(self.rows) :][own]
        return out

    @cached_property
    def flat(self) -> np.ndarray:
        """(m, g) orthonormal parameter directions along which Sigma does not move.

        Bases of the rotations F A, A antisymmetric, one set of equations after the other.
        """
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

    def normalisation(self, own_loadings: np.ndarray) -> np.ndarray:
        """(g, m) derivatives of f_u' Psi^-1 f_v for the pairs of factors u, v that a rotation may mix.

        own_loadings : (K, k) Psi^-1 F.  The stated normalisation of loadings sets these products to zero.
        """
        i, j, n = self.own_rows, self.own_columns, len(self.rows)
        pairs = [pair for factors in self.together for pair in itertools.combinations(factors.tolist(), 2)]
        out = np.zeros((len(pairs), self.n_parameters))
        for row, (u, v) in zip(out, pairs, strict=True):
            for mine, other in ((u, v), (v, u)):
                here = np.flatnonzero(self.columns == mine)
                row[here] = own_loadings[self.rows[here], other]
            both = own_loadings[i, u] * own_loadings[j, v] + own_loadings[j, u] * own_loadings[i, v]
            row[n:] = -both * self._halved
        return out


def batches(n_directions: int, n_equations: int) -> Iterator[slice]:
    """Stretches of directions whose (K, K) arrays fit in BATCH_NUMBERS."""
    return _stretches(n_directions, BATCH_NUMBERS // n_equations**2)


def _stretches(n: int, height: int) -> Iterator[slice]:
    """0..n in slices of `height`, of one at least."""
    for first in range(0, n, max(1, height)):
        yield slice(first, min(first + max(1, height), n))
