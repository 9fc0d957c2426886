"""Some equations of a row given others: the normal distribution, conditioned row by row on whatever is known.

What Sigma says of it, `Sigma.conditional`, is for rows of weight one: errors go in times the roots of their weights,
means come back over those roots, variances over the weights. A cell of weight zero is not known. Rows that know the
same equations share a factorisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lrgls_dask.design.design import Design
from lrgls_dask.prediction.fitted import Coefficients, add_noise
from lrgls_dask.sigma.interface import Sigma

__all__ = ["Given", "GivenKind", "given_rows", "given_std_rows"]

GivenKind = Literal["observation", "mean", "error"]

BATCH = 2**21  # numbers of scratch memory in a batch of rows, 16 MB


@dataclass(frozen=True, eq=False)
class Given:
    """What a block needs besides its rows.

    usable : (K,) equations whose values may be used.  kind : what the standard error covers: "error" the error of the
    row given the known ones, "mean" the estimated coefficients, "observation" both.
    covariance : (P, P) of the coefficients, for the last two.
    """

    coefficients: Coefficients
    sigma: Sigma
    usable: np.ndarray
    kind: GivenKind = "error"
    covariance: np.ndarray | None = None


def given_rows(x: np.ndarray, y: np.ndarray | None, weights: np.ndarray | None, params: Given) -> np.ndarray:
    """(n, K) known values as they are, the others predicted from them; NaN where regressors are."""
    y, known, fitted = _known(x, y, weights, params)
    root = _roots(weights, fitted.shape)
    out = np.where(known, y, fitted)
    for rows in _batches(len(x), params.sigma.conditional_numbers):
        used = known[rows] & ~np.isnan(fitted[rows])
        masks, which = _patterns(used)
        errors = np.where(used, y[rows] - fitted[rows], 0.0)
        means = params.sigma.conditional(masks).means(which, errors * root[rows]) / root[rows]
        out[rows] += np.where(known[rows], 0.0, means)
    return out


def given_std_rows(x: np.ndarray, y: np.ndarray | None, weights: np.ndarray | None, params: Given) -> np.ndarray:
    """(n, K) standard errors of `given_rows`; zero for the known, NaN where regressors are.

    With covariance costs O(P^2 + K^3) a row, else as the means.
    """
    _, known, fitted = _known(x, y, weights, params)
    root = _roots(weights, fitted.shape)
    out = np.zeros(fitted.shape)
    V, design = params.covariance, params.coefficients.design
    extra = 0 if V is None else 3 * design.n_equations**2 + 3 * design.n_coefficients
    for rows in _batches(len(x), params.sigma.conditional_numbers + extra):
        masks, which = _patterns(known[rows] & ~np.isnan(fitted[rows]))
        errors = params.sigma.conditional(masks)
        if V is not None:
            out[rows] = _coefficient_variance(x[rows], design, V, errors.weights(), which, root[rows])
        if params.kind != "mean":
            noise = errors.variances()[which]
            out[rows] = add_noise(out[rows], noise, weights if weights is None or len(weights) == 1 else weights[rows])
    out[np.isnan(fitted)] = np.nan
    out[known] = 0.0
    return np.sqrt(out)


def _roots(weights: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """(n, K) roots of the weights of cells; ones where all of a row are the same, and where there is no weight."""
    if weights is None or weights.shape[1] == 1:
        return np.broadcast_to(1.0, shape)
    return np.broadcast_to(np.sqrt(np.where(weights > 0, weights, 1.0)), shape)


def _known(
    x: np.ndarray, y: np.ndarray | None, weights: np.ndarray | None, params: Given
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Y, which of its entries are known and may be used, and the fitted values."""
    if y is None:
        raise ValueError("conditional prediction needs Y, which these rows lack.")
    if np.isinf(y[:, params.usable]).any():
        row, j = np.argwhere(np.isinf(y) & params.usable)[0]
        raise ValueError(
            f"equation {params.coefficients.design.equations[j]!r} holds {y[row, j]} among the values to predict from. "
            "Set what is not known to NaN."
        )
    known = ~np.isnan(y) & params.usable
    if weights is not None and weights.shape[1] > 1:
        known &= weights > 0
    return y, known, params.coefficients.fitted(x)


def _coefficient_variance(
    x: np.ndarray, design: Design, V: np.ndarray, weights: np.ndarray, which: np.ndarray, root: np.ndarray
) -> np.ndarray:
    """(n, K) variance of x_m'b_m - B_m (x_j'b_j)_j: diag(T H T'), T = I - B, H (K, K) the covariance of all x_j'b_j.

    weights : B for rows of weight one; B_mj is theirs times root_j / root_m.
    """
    wide = x[:, np.concatenate(design.columns)]
    wide[np.isnan(wide)] = 0.0  # of equations that nobody is predicted from, or whose own prediction is NaN
    H = np.empty((len(x), design.n_equations, design.n_equations))
    for j, mine in enumerate(design.spans):
        H[:, j] = np.add.reduceat((wide[:, mine] @ V[mine]) * wide, design.offsets[:-1], axis=1)
    T = np.eye(design.n_equations) - weights
    T = T if len(T) == 1 else T[which]
    if root.strides != (0, 0):
        T = T * (root[:, None, :] / root[:, :, None])
    return np.maximum(np.einsum("nml,nml->nm", T @ H, np.broadcast_to(T, H.shape)), 0.0)


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
