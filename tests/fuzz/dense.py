"""Likelihood, least squares and GLS of rows of which only some cells are shown, by explicit matrices, row by row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cells:
    """Y (N, K), X_j (N, p_j), and the weight (N, K) of every cell, zero where it is not observed."""

    Y: np.ndarray
    Xs: list[np.ndarray]
    weights: np.ndarray

    @classmethod
    def of(cls, Y: np.ndarray, Xs: list[np.ndarray], weights: np.ndarray | None = None) -> Cells:
        """weights : of rows (N,), of cells (N, K), or of equations (K,) where K is not N."""
        Y = np.asarray(Y, dtype=float)
        w = np.ones(Y.shape)
        if weights is not None:
            w = w * (weights[:, None] if weights.shape == Y.shape[:1] else weights)
        w = np.where(np.isnan(Y), 0.0, w)
        used = w > 0
        clean = [np.where(used[:, [j]], np.asarray(X, dtype=float), 0.0) for j, X in enumerate(Xs)]
        return cls(np.where(used, Y, 0.0), clean, w)

    def take(self, rows: np.ndarray) -> Cells:
        """Some of the rows."""
        return Cells(self.Y[rows], [X[rows] for X in self.Xs], self.weights[rows])

    @property
    def owner(self) -> np.ndarray:
        """(P,) the equation of each coefficient."""
        return np.repeat(np.arange(len(self.Xs)), [X.shape[1] for X in self.Xs])

    def fitted(self, b: np.ndarray) -> np.ndarray:
        """(N, K) X_j b_j."""
        parts = np.split(b, np.cumsum([X.shape[1] for X in self.Xs])[:-1])
        return np.column_stack([X @ part for X, part in zip(self.Xs, parts, strict=True)])

    def precisions(self, sigma: np.ndarray) -> np.ndarray:
        """(N, K, K) W^1/2 Sigma_oo^-1 W^1/2 of each row, zero where a cell is not observed."""
        found = np.zeros((*self.Y.shape, self.Y.shape[1]))
        for i, w in enumerate(self.weights):
            o = np.flatnonzero(w > 0)
            root = np.sqrt(w[o])
            found[np.ix_([i], o, o)] = inverse_of(sigma[np.ix_(o, o)])[None] * np.outer(root, root)
        return found

    def loglik(self, b: np.ndarray, sigma: np.ndarray) -> float:
        """Of all that is observed."""
        R, total = self.Y - self.fitted(b), 0.0
        for r, w in zip(R, self.weights, strict=True):
            o = np.flatnonzero(w > 0)
            if len(o):
                unit, even = in_units(sigma[np.ix_(o, o)])
                z = np.sqrt(w[o]) * r[o] / unit
                total += np.log(w[o]).sum() - len(o) * np.log(2 * np.pi) - np.linalg.slogdet(even)[1]
                total -= z @ np.linalg.solve(even, z) + 2 * np.log(unit).sum()
        return 0.5 * float(total)

    def normal(self, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(P, P) sum of X' precision X, and (P,) of X' precision y."""
        every, owner = np.hstack(self.Xs), self.owner
        inverse = self.precisions(sigma)
        A = np.einsum("ia,iab,ib->ab", every, inverse[:, owner][:, :, owner], every)
        return A, np.einsum("ia,iaj,ij->a", every, inverse[:, owner], self.Y)

    def by_sigma(self, b: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """(K, K) derivative of -2 loglik by Sigma, divided by N."""
        R, G = self.Y - self.fitted(b), np.zeros_like(sigma)
        for r, w in zip(R, self.weights, strict=True):
            o = np.flatnonzero(w > 0)
            inverse = inverse_of(sigma[np.ix_(o, o)])
            e = inverse @ (np.sqrt(w[o]) * r[o])
            G[np.ix_(o, o)] += inverse - np.outer(e, e)
        return G / len(R)

    def ols(self) -> np.ndarray:
        """(P,) each equation by itself, weighted, over the rows that it is observed in."""
        root = np.sqrt(self.weights)
        return np.concatenate(
            [np.linalg.lstsq(root[:, [j]] * X, root[:, j] * self.Y[:, j], rcond=None)[0] for j, X in enumerate(self.Xs)]
        )


def in_units(sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviations and the correlations: an elimination of numbers 26 decades apart has lost all digits."""
    unit = np.sqrt(np.diag(sigma))
    return unit, sigma / np.outer(unit, unit)


def inverse_of(sigma: np.ndarray) -> np.ndarray:
    unit, even = in_units(sigma)
    return np.linalg.inv(even) / np.outer(unit, unit)


def solved(A: np.ndarray, a: np.ndarray, held: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    """The minimum of b' A b / 2 - a' b where R b = r."""
    if held is None:
        return np.linalg.solve(A, a)
    R, r = held
    both = np.block([[A, R.T], [R, np.zeros((len(R), len(R)))]])
    return np.linalg.lstsq(both, np.concatenate([a, r]), rcond=None)[0][: len(A)]
