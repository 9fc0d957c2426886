"""Fitted values, residuals and standard errors of prediction: what one block of rows gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lrgls_dask.checks import shown
from lrgls_dask.design.design import Design

__all__ = [
    "Coefficients",
    "GroupSpread",
    "Spread",
    "check_same_design",
    "fitted_rows",
    "group_std_error_rows",
    "residual_rows",
    "std_error_rows",
]

NAMES_SHOWN = 20  # of labels that are missing or extra


@dataclass(frozen=True, eq=False)
class Coefficients:
    """Coefficients of a design.  by_group : for each group of equations with the same columns, (p, m)."""

    design: Design
    by_group: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, design: Design, coefficients: np.ndarray) -> Coefficients:
        """coefficients : (P,), equation by equation."""
        return cls(design, tuple(coefficients[group.coefficients] for group in design.groups))

    def fitted(self, x: np.ndarray) -> np.ndarray:
        """(n, K) X_j b_j of rows x (n, q)."""
        fitted = np.empty((len(x), self.design.n_equations))
        for group, b in zip(self.design.groups, self.by_group, strict=True):
            fitted[:, group.take_equations] = x[:, group.take_columns] @ b
        return fitted


def fitted_rows(x: np.ndarray, y: np.ndarray | None, weights: np.ndarray | None, params: Coefficients) -> np.ndarray:
    """(n, K) X_j b_j."""
    return params.fitted(x)


def residual_rows(x: np.ndarray, y: np.ndarray | None, weights: np.ndarray | None, params: Coefficients) -> np.ndarray:
    """(n, K) Y - X_j b_j."""
    if y is None:
        raise ValueError("residuals need Y, which these rows lack.")
    return y - params.fitted(x)


@dataclass(frozen=True, eq=False)
class Spread:
    """What the standard errors of predictions are made of.

    roots : K arrays T_j (p_j, p_j) with T_j T_j' = V_jj, the covariance of the coefficients of equation j.
    noise : (K,) error variances of a row of weight 1, zeros for the mean.
    """

    design: Design
    roots: tuple[np.ndarray, ...]
    noise: np.ndarray

    @classmethod
    def of(cls, design: Design, blocks: Sequence[np.ndarray], noise: np.ndarray) -> Spread:
        """blocks : the K matrices V_jj."""
        return cls(design, tuple(map(_root, blocks)), noise)


def std_error_rows(x: np.ndarray, y: np.ndarray | None, weights: np.ndarray | None, params: Spread) -> np.ndarray:
    """(n, K) sqrt(x_ij' V_jj x_ij + noise_j / w_ij); infinite for a weight of zero where there is noise."""
    variance = np.empty((len(x), params.design.n_equations))
    for group in params.design.groups:
        mine = np.ascontiguousarray(x[:, group.take_columns])
        for j in group.equations:
            half = mine @ params.roots[j]
            np.einsum("ij,ij->i", half, half, out=variance[:, j])
    return np.sqrt(add_noise(variance, params.noise, weights))


@dataclass(frozen=True, eq=False)
class GroupSpread:
    """The same in groups whose effects were absorbed: with a_j = mean y_j - (mean x_j)'b_j of the group, the fitted
    value is mean y_j + (x_j - mean x_j)'b_j, two parts that are independent.

    within : of the coefficients.  means : (G, q) of the regressors in each group.  inverse : (G,) of the weight of its
    rows.  variances : (K,) of the errors of a row of weight 1.
    """

    within: Spread
    means: np.ndarray
    inverse: np.ndarray
    variances: np.ndarray


def group_std_error_rows(
    x: np.ndarray, y: np.ndarray | None, weights: np.ndarray | None, params: GroupSpread
) -> np.ndarray:
    """(n, K) sqrt((x_ij - m_gj)' V_jj (x_ij - m_gj) + Sigma_jj / w_g + noise_j / w_ij); x has the group g besides."""
    groups = x[:, -1].astype(np.intp)
    within = std_error_rows(x[:, :-1] - params.means[groups], y, weights, params.within)
    return np.sqrt(within**2 + params.inverse[groups, None] * params.variances)


def add_noise(variance: np.ndarray, noise: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """variance (n, K), plus noise (K,) or (n, K) over the weights (n, 1) or (n, K) where there is any noise."""
    if weights is None:
        return variance + noise
    with np.errstate(divide="ignore", invalid="ignore"):
        return variance + np.where(noise > 0, noise / weights, 0.0)


def _root(V: np.ndarray) -> np.ndarray:
    """T with T T' = V, positive semidefinite; through the correlations, so that units of the columns do not matter."""
    scale = np.sqrt(np.diagonal(V))
    scale = np.where(scale > 0, scale, 1.0)
    values, vectors = np.linalg.eigh(V / np.outer(scale, scale))
    return np.asarray(scale[:, None] * vectors * np.sqrt(np.maximum(values, 0.0)))


def check_same_design(found: Design, expected: Design) -> None:
    """Raise ValueError naming what is missing or extra."""
    if found.same_as(expected):
        return
    if found.given.same_as(expected.given):
        raise ValueError(
            f"the data do not match the fit: {_weighting(found)}, the fitted ones {_weighting(expected)}. "
            "Build the system with such weights."
        )
    found, expected = found.given, expected.given
    for what, have, want in (
        ("equations", found.equations, expected.equations),
        ("regressors", found.regressors, expected.regressors),
    ):
        known, wanted = set(have), set(want)
        missing = [name for name in want if name not in known]
        extra = [name for name in have if name not in wanted]
        if missing or extra:
            sides = [f"missing {shown(missing, NAMES_SHOWN)}"] if missing else []
            sides += [f"extra {shown(extra, NAMES_SHOWN)}"] if extra else []
            raise ValueError(
                f"the data do not match the fit: {what} {', '.join(sides)}. "
                "Build the system with the same variables as the fitted one."
            )
    raise ValueError(
        "the data do not match the fit: the same names in another order or in other equations. "
        "Build the system with the same variables, in the same order, as the fitted one."
    )


def _weighting(design: Design) -> str:
    if design.own is None:
        return "their cells have no weights"
    count = int(design.own.weighting.max()) + 1
    return f"their cells have {count} columns of weights" if count > 1 else "their cells have one column of weights"
