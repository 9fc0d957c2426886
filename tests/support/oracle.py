"""A dense textbook oracle: explicit Kronecker products and inverses, nothing taken from lrgls_dask.

Notation as in DESIGN sections 1 and 5.  Row i has errors of covariance Sigma / w_i, and N counts rows of positive
weight, so every mean below is a sum with weights divided by N.  Penalties act on F~ = F / s, where
s_j is the standard deviation of the residuals of equation j fitted by itself, and on b~: b sd(x) / s in an equation
with a constant, 0 for that constant, and b rms(x) / s in an equation without.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg
import scipy.optimize


@dataclass(frozen=True)
class Dense:
    """K equations in memory: Y (N, K), one (N, p_j) design each, weights (N,) all positive."""

    Y: np.ndarray
    Xs: list[np.ndarray]
    weights: np.ndarray | None = None
    lam_F: float = 0.0
    lam_B: float | np.ndarray = 0.0  # of all, or of each of the P coefficients

    @property
    def N(self) -> int:
        return len(self.Y)

    @property
    def K(self) -> int:
        return self.Y.shape[1]

    @cached_property
    def w(self) -> np.ndarray:
        return np.ones(self.N) if self.weights is None else np.asarray(self.weights, dtype=float)

    @cached_property
    def edges(self) -> np.ndarray:
        return np.cumsum([0, *(X.shape[1] for X in self.Xs)])

    @cached_property
    def X_all(self) -> np.ndarray:
        """(N K, P) block diagonal, equation by equation."""
        return scipy.linalg.block_diag(*self.Xs)

    @cached_property
    def y_all(self) -> np.ndarray:
        return self.Y.T.ravel()

    def split(self, b: np.ndarray) -> list[np.ndarray]:
        return np.split(b, self.edges[1:-1])

    def residuals(self, b: np.ndarray) -> np.ndarray:
        return self.Y - np.column_stack([X @ c for X, c in zip(self.Xs, self.split(b), strict=True)])

    def S(self, b: np.ndarray) -> np.ndarray:
        R = self.residuals(b)
        return R.T @ np.diag(self.w) @ R / self.N

    @cached_property
    def ols(self) -> np.ndarray:
        """Each equation by itself, weighted."""
        root = np.sqrt(self.w)
        return np.concatenate(
            [
                np.linalg.lstsq(root[:, None] * X, root * y, rcond=None)[0]
                for X, y in zip(self.Xs, self.Y.T, strict=True)
            ]
        )

    @cached_property
    def s(self) -> np.ndarray:
        """(K,) units of the responses."""
        return np.sqrt(np.diag(self.S(self.ols)))

    @cached_property
    def unit(self) -> np.ndarray:
        """(P,) b~ = unit * b, 0 for the first constant of an equation."""
        units = []
        for X, s in zip(self.Xs, self.s, strict=True):
            flat = np.ptp(X, axis=0) == 0
            constants = np.flatnonzero(flat & (X[0] != 0))
            mean = np.average(X, axis=0, weights=self.w) if len(constants) else np.zeros(X.shape[1])
            size = np.sqrt(self.w @ (X - np.where(flat, 0.0, mean)) ** 2 / self.N)
            size[constants[:1]] = 0.0
            units.append(size / s)
        return np.concatenate(units)

    def nll(self, b: np.ndarray, sigma: np.ndarray) -> float:
        """Per row, row by row."""
        R, inverse = self.residuals(b), np.linalg.inv(sigma)
        logdet = np.linalg.slogdet(sigma)[1]
        rows = [
            self.K * np.log(2 * np.pi) - self.K * np.log(w) + logdet + w * r @ inverse @ r
            for r, w in zip(R, self.w, strict=True)
        ]
        return 0.5 * float(np.sum(rows)) / self.N

    def objective(self, b: np.ndarray, F: np.ndarray, d: np.ndarray) -> float:
        penalty = self.lam_F / 2 * np.sum((F / self.s[:, None]) ** 2)
        penalty += np.sum(self.lam_B * (self.unit * b) ** 2) / (2 * self.N)
        return self.nll(b, F @ F.T + np.diag(d)) + float(penalty)

    # ------------------------------------------------------------------------------------ estimates

    def normal_matrix(self, sigma: np.ndarray) -> np.ndarray:
        """X' (Sigma kron W^-1)^-1 X, (P, P), from the explicit inverse of the (N K, N K) covariance."""
        return self.X_all.T @ np.linalg.inv(np.kron(sigma, np.diag(1 / self.w))) @ self.X_all

    def gls(self, sigma: np.ndarray) -> np.ndarray:
        """b at a given Sigma, ridge included."""
        inverse = np.linalg.inv(np.kron(sigma, np.diag(1 / self.w)))
        A = self.X_all.T @ inverse @ self.X_all + np.diag(self.lam_B * self.unit**2)
        return np.linalg.inv(A) @ self.X_all.T @ inverse @ self.y_all

    def cov(self, sigma: np.ndarray) -> np.ndarray:
        """(P, P) covariance of `gls` at a known Sigma."""
        M = self.normal_matrix(sigma)
        bread = np.linalg.inv(M + np.diag(self.lam_B * self.unit**2))
        return bread @ M @ bread

    def joint(self, k: int, *, starts: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """b, F, d and the objective of the best joint minimum that BFGS finds from `starts` random points."""
        P, K = len(self.ols), self.K
        size = np.sqrt(self.w @ np.hstack(self.Xs) ** 2 / self.N) / np.repeat(self.s, np.diff(self.edges))
        ratio, best = self.unit / size, None
        rng = np.random.default_rng(seed)

        def unpack(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            F = theta[P : P + K * k].reshape(K, k) * self.s[:, None]
            return theta[:P] / size, F, np.exp(theta[P + K * k :]) * self.s**2

        def value_and_gradient(theta: np.ndarray) -> tuple[float, np.ndarray]:
            b, F, d = unpack(theta)
            sigma = F @ F.T + np.diag(d)
            inverse = np.linalg.inv(sigma)
            R = self.residuals(b)
            value = 0.5 * (K * np.log(2 * np.pi) + np.linalg.slogdet(sigma)[1] + np.trace(inverse @ self.S(b)))
            weighted = (R @ inverse) * self.w[:, None]
            db = -np.concatenate([X.T @ weighted[:, j] for j, X in enumerate(self.Xs)]) / self.N
            G = 0.5 * (inverse - inverse @ self.S(b) @ inverse)
            F_unit = F / self.s[:, None]
            value += self.lam_F / 2 * np.sum(F_unit**2) + np.sum(self.lam_B * (ratio * theta[:P]) ** 2) / (2 * self.N)
            d_theta = [
                db / size + self.lam_B / self.N * ratio**2 * theta[:P],
                (2 * G @ F * self.s[:, None] + self.lam_F * F_unit).ravel(),
                np.diag(G) * d,
            ]
            return value, np.concatenate(d_theta)

        for _ in range(starts):
            begin = np.concatenate([self.ols * size, 0.5 * rng.normal(size=K * k), np.log(np.full(K, 0.5))])
            found = scipy.optimize.minimize(
                value_and_gradient, begin, jac=True, method="BFGS", options={"gtol": 1e-11, "maxiter": 5000}
            )
            if best is None or found.fun < best.fun:
                best = found
        b, F, d = unpack(best.x)
        return b, F, d, self.objective(b, F, d)
