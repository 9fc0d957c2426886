"""Some equations of a row given others: the normal distribution, conditioned row by row on whatever is known.

With e ~ N(0, Sigma / w) and known entries o, E[e_m | e_o] = Sigma_mo Sigma_oo^-1 e_o and the variance is
(Sigma_mm - Sigma_mo Sigma_oo^-1 Sigma_om) / w. Rows that know the same equations share a factorisation. For
Sigma = F F' + diag(d) that is R'R = C = I + F_o' D_o^-1 F_o (k, k): the mean is F_m C^-1 F_o' D_o^-1 e_o and the
variance d_m + F_m C^-1 F_m'. Source: Anderson (2003), 2.5; Woodbury (1950).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from lrgls_dask.design.design import Design
from lrgls_dask.prediction.fitted import Coefficients, add_noise
from lrgls_dask.sigma.structures import Factored

__all__ = [
    "Conditional",
    "DenseConditional",
    "Given",
    "GivenKind",
    "LowRankConditional",
    "given_rows",
    "given_std_rows",
]

GivenKind = Literal["observation", "mean", "error"]

BATCH = 2**21  # numbers of scratch memory in a batch of rows, 16 MB


class Covariance(Protocol):
    """Any structure of Sigma."""

    def dense(self) -> np.ndarray:
        """(K, K)."""
        ...


class Conditional(Protocol):
    """Conditioning on subsets; `masks` (u, K) are the known equations of u patterns, `which` (n,) those of n rows."""

    @property
    def scratch(self) -> int:
        """Numbers of scratch memory for a row of its own pattern."""
        ...

    def factor(self, masks: np.ndarray) -> np.ndarray:
        """(u, m, m) one inverse root for each pattern."""
        ...

    def means(self, roots: np.ndarray, masks: np.ndarray, which: np.ndarray, errors: np.ndarray) -> np.ndarray:
        """(n, K) E[e | e_o], right for the unknown; errors (n, K) with zeros for the unknown."""
        ...

    def variances(self, roots: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """(u, K) variance given e_o of each unknown equation, at weight 1."""
        ...

    def weights(self, roots: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """(u, K, K) B with E[e | e_o] = B e_o, right in the rows of the unknown; columns of the unknown are zero."""
        ...


@dataclass(frozen=True, eq=False)
class LowRankConditional:
    """Sigma = F F' + diag(d): O(K k^2) for each pattern, O(K k) for each row, no K x K array."""

    F: np.ndarray
    d: np.ndarray

    @property
    def scratch(self) -> int:
        K, k = self.F.shape
        return 4 * K + (K + 2 * k) * max(k, 1)

    def factor(self, masks: np.ndarray) -> np.ndarray:
        """R^-1, from a QR factorisation of [I; D_o^-1/2 F_o]: C itself would square its condition number."""
        u, (K, k) = len(masks), self.F.shape
        stacked = np.empty((u, k + K, k))
        stacked[:, :k] = np.eye(k)
        np.multiply((self.F / np.sqrt(self.d)[:, None])[None], masks[:, :, None], out=stacked[:, k:])
        return np.asarray(np.linalg.inv(np.linalg.qr(stacked, mode="r")))

    def means(self, roots: np.ndarray, masks: np.ndarray, which: np.ndarray, errors: np.ndarray) -> np.ndarray:
        scaled = self.F / self.d[:, None]
        factors = _by_row(roots, which, errors @ scaled)
        # One step of the corrected seminormal equations (Bjorck 1987) gives back the digits of a QR solution.
        left = np.where(masks[which], errors - factors @ self.F.T, 0.0)
        factors += _by_row(roots, which, left @ scaled - factors)
        return np.asarray(factors @ self.F.T)

    def variances(self, roots: np.ndarray, masks: np.ndarray) -> np.ndarray:
        half = self.F @ roots
        return np.asarray(self.d + np.einsum("umk,umk->um", half, half))

    def weights(self, roots: np.ndarray, masks: np.ndarray) -> np.ndarray:
        half = self.F @ roots
        return np.asarray(half @ np.swapaxes(half / self.d[:, None] * masks[:, :, None], 1, 2))


@dataclass(frozen=True, eq=False)
class DenseConditional:
    """Any Sigma (K, K): O(K^3) for each pattern, O(K^2) for each row."""

    sigma: np.ndarray

    @property
    def scratch(self) -> int:
        return 3 * len(self.sigma) ** 2

    def factor(self, masks: np.ndarray) -> np.ndarray:
        """L^-T of Sigma_oo = L L', bordered by the variances of the unknown and then cleared of them."""
        both = masks[:, :, None] & masks[:, None, :]
        bordered = np.where(both | np.eye(len(self.sigma), dtype=bool), self.sigma, 0.0)
        inverse = np.linalg.inv(np.linalg.cholesky(bordered))
        return np.asarray(np.swapaxes(np.where(both, inverse, 0.0), 1, 2))

    def means(self, roots: np.ndarray, masks: np.ndarray, which: np.ndarray, errors: np.ndarray) -> np.ndarray:
        return np.asarray(_by_row(roots, which, errors) @ self.sigma)

    def variances(self, roots: np.ndarray, masks: np.ndarray) -> np.ndarray:
        half = self.sigma @ roots
        explained = np.einsum("umk,umk->um", half, half)
        return np.asarray(np.maximum(np.diagonal(self.sigma) - explained, 0.0))

    def weights(self, roots: np.ndarray, masks: np.ndarray) -> np.ndarray:
        return np.asarray(self.sigma @ roots @ np.swapaxes(roots, 1, 2))


@dataclass(frozen=True, eq=False)
class Given:
    """What a block needs besides its rows.

    usable : (K,) equations whose values may be used.  kind : what the standard error covers: "error" the error of the
    row given the known ones, "mean" the estimated coefficients, "observation" both.
    covariance : (P, P) of the coefficients, for the last two.
    """

    coefficients: Coefficients
    sigma: Conditional
    usable: np.ndarray
    kind: GivenKind = "error"
    covariance: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        coefficients: Coefficients,
        sigma: Covariance,
        usable: np.ndarray,
        kind: GivenKind = "error",
        covariance: np.ndarray | None = None,
    ) -> Given:
        """With the conditioning that suits the structure of Sigma."""
        if isinstance(sigma, Factored):
            return cls(coefficients, LowRankConditional(sigma.F, sigma.d), usable, kind, covariance)
        return cls(coefficients, DenseConditional(sigma.dense()), usable, kind, covariance)


def given_rows(x: np.ndarray, y: np.ndarray | None, weights: np.ndarray | None, params: Given) -> np.ndarray:
    """(n, K) known values as they are, the others predicted from them; NaN where regressors are."""
    y, known, fitted = _known(x, y, params)
    out = np.where(known, y, fitted)
    for rows in _batches(len(x), params.sigma.scratch):
        used = known[rows] & ~np.isnan(fitted[rows])
        masks, which = _patterns(used)
        errors = np.where(used, y[rows] - fitted[rows], 0.0)
        means = params.sigma.means(params.sigma.factor(masks), masks, which, errors)
        out[rows] += np.where(known[rows], 0.0, means)
    return out


def given_std_rows(x: np.ndarray, y: np.ndarray | None, weights: np.ndarray | None, params: Given) -> np.ndarray:
    """(n, K) standard errors of `given_rows`; zero for the known, NaN where regressors are.

    With covariance costs O(P^2 + K^3) a row, else as the means.
    """
    _, known, fitted = _known(x, y, params)
    out = np.zeros(fitted.shape)
    V, design = params.covariance, params.coefficients.design
    extra = 0 if V is None else 3 * design.n_equations**2 + 3 * design.n_coefficients
    for rows in _batches(len(x), params.sigma.scratch + extra):
        masks, which = _patterns(known[rows] & ~np.isnan(fitted[rows]))
        roots = params.sigma.factor(masks)
        if V is not None:
            out[rows] = _coefficient_variance(x[rows], design, V, params.sigma.weights(roots, masks), which)
        if params.kind != "mean":
            noise = params.sigma.variances(roots, masks)[which]
            out[rows] = add_noise(out[rows], noise, None if weights is None else weights[rows])
    out[np.isnan(fitted)] = np.nan
    out[known] = 0.0
    return np.sqrt(out)


def _known(x: np.ndarray, y: np.ndarray | None, params: Given) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Y, which of its entries are known and may be used, and the fitted values."""
    if y is None:
        raise ValueError("conditional prediction needs Y, which these rows lack.")
    if np.isinf(y[:, params.usable]).any():
        row, j = np.argwhere(np.isinf(y) & params.usable)[0]
        raise ValueError(
            f"equation {params.coefficients.design.equations[j]!r} holds {y[row, j]} among the values to predict from. "
            "Set what is not known to NaN."
        )
    return y, ~np.isnan(y) & params.usable, params.coefficients.fitted(x)


def _coefficient_variance(
    x: np.ndarray, design: Design, V: np.ndarray, weights: np.ndarray, which: np.ndarray
) -> np.ndarray:
    """(n, K) variance of x_m'b_m - B_m (x_j'b_j)_j: diag(T H T'), T = I - B, H (K, K) the covariance of all x_j'b_j."""
    wide = x[:, np.concatenate(design.columns)]
    wide[np.isnan(wide)] = 0.0  # of equations that nobody is predicted from, or whose own prediction is NaN
    H = np.empty((len(x), design.n_equations, design.n_equations))
    for j, mine in enumerate(design.spans):
        H[:, j] = np.add.reduceat((wide[:, mine] @ V[mine]) * wide, design.offsets[:-1], axis=1)
    T = np.eye(design.n_equations) - weights
    T = T if len(T) == 1 else T[which]
    return np.maximum(np.einsum("nml,nml->nm", T @ H, np.broadcast_to(T, H.shape)), 0.0)


def _by_row(roots: np.ndarray, which: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """row_i R R' with R the root of the pattern of row i."""
    if len(roots) == 1:
        return np.asarray((rows @ roots[0]) @ roots[0].T)
    mine = roots[which]
    half = rows[:, None, :] @ mine
    return np.asarray((half @ np.swapaxes(mine, 1, 2))[:, 0])


def _patterns(used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows of `used` (n, K), and for each row which of them it is."""
    if (used == used[0]).all():
        return used[:1], np.zeros(len(used), dtype=np.intp)
    packed = np.packbits(used, axis=1)
    _, first, which = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    return used[first], which.reshape(-1)


def _batches(n: int, scratch: int) -> list[slice]:
    height = max(1, BATCH // scratch)
    return [slice(start, start + height) for start in range(0, n, height)]
