"""Rows in the coordinates in which likelihood derivatives are taken, and the way back to the user's units.

Equation j is divided by u_j = (Sigma^-1)_jj^(-1/2), its standard deviation given all other equations, and its
regressors are replaced by orthonormal ones, b_j = u_j T_j c_j. The information of c then has a unit diagonal whatever
the units of the data, and no digit is lost to collinearity.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.design.penalties import Ridge
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.rows.meter import Meter
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.solve.constraint import free_directions
from lrgls_dask.solve.in_memory import InMemory
from lrgls_dask.solve.whiten import WhitenedGroup

__all__ = ["MAX_PARAMETERS", "Estimate", "Standardised"]

MAX_PARAMETERS = 20_000  # one square array of that size takes 3.2 GB


@dataclass(frozen=True, eq=False)
class Estimate:
    """What was estimated, in the user's units, and from which rows: all that information of the likelihood needs.

    coefficients : (P,).  sigma : Sigma.  lam_B, lam_F, l1 : the penalties lam_F/2 ||F~||^2 and l1 sum |F~| per
    row and lam_B/2 ||b~||^2 in all.  on_floor : (K,) true where d_j sits on its floor, None for nowhere.
    restrictions : those the coefficients satisfy.
    """

    compressed: Compressed
    coefficients: np.ndarray
    sigma: Sigma
    lam_B: Ridge = 0.0
    lam_F: float = 0.0
    l1: float = 0.0
    on_floor: np.ndarray | None = None
    restrictions: Restrictions | None = None

    @property
    def held(self) -> np.ndarray:
        """(K,) equations whose own part of Sigma is taken as known."""
        none = np.zeros(self.compressed.design.n_equations, dtype=bool)
        return none if self.on_floor is None else np.asarray(self.on_floor, dtype=bool)


@dataclass(frozen=True, eq=False)
class Standardised:
    """The rows of a compressed system at given parameters, in standard coordinates c.

    groups : the whitened designs.  unit : (K,) u.  x : (r, P) the regressors, coefficient by coefficient, x'x = X'X.
    residual : (r, K) rows that stand for all residuals; only their first r meet x.
    ridge : (P,) the penalty is sum ridge c^2 / 2.  free : (P, P - m) orthonormal basis of what m restrictions leave
    free, None without any.
    """

    source: Compressed
    groups: tuple[WhitenedGroup, ...]
    unit: np.ndarray
    x: np.ndarray
    beyond: np.ndarray
    residual: np.ndarray
    ridge: np.ndarray
    free: np.ndarray | None = None

    @classmethod
    def of(cls, estimate: Estimate) -> Standardised:
        """The compressed rows of an estimate; O(q^2 P) time, 8 (q + 1)(P + K) bytes.

        Raises ValueError above MAX_PARAMETERS coefficients.
        """
        source, coefficients, sigma = estimate.compressed, estimate.coefficients, estimate.sigma
        design, q = source.design, source.design.n_regressors
        if design.n_coefficients > MAX_PARAMETERS:
            raise ValueError(
                f"a covariance of all {design.n_coefficients} coefficients would take "
                f"{8e-9 * design.n_coefficients**2:.1f} GB and is limited to {MAX_PARAMETERS} coefficients. "
                "Use the classical standard errors of chosen equations, or fit fewer equations."
            )
        whitened = InMemory(source, lam_B=estimate.lam_B, meter=Meter()).whitened
        unit = 1.0 / np.sqrt(sigma.precision_diagonal)
        top = source.stacked(q)
        residual = top[:, q:] / unit
        x, ridge = np.empty((len(top), design.n_coefficients)), np.empty(design.n_coefficients)
        for part in whitened.groups:
            group = part.group
            residual[:, group.equations] -= part.q @ part.coordinates(
                coefficients[group.coefficients] / unit[group.equations]
            )
            for j, places in zip(group.equations, group.coefficients.T, strict=True):
                x[:, places] = part.q
                ridge[places] = part.ridge * (unit[j] / whitened.y_scale[j]) ** 2
        beyond = source.root[q:, q:] / unit
        made = cls(source, whitened.groups, unit, x, beyond, residual, ridge)
        if estimate.restrictions is None:
            return made
        return replace(made, free=made._free_directions(estimate.restrictions))

    @property
    def n_obs(self) -> int:
        return self.source.n_obs

    @cached_property
    def gram(self) -> np.ndarray:
        """x'x, (P, P)."""
        return np.asarray(self.x.T @ self.x)

    @cached_property
    def residual_cross(self) -> np.ndarray:
        """S = R'R / N, (K, K)."""
        return np.asarray((self.residual.T @ self.residual + self.beyond.T @ self.beyond) / self.n_obs)

    def information(self, precision: np.ndarray) -> np.ndarray:
        """x' (precision kron I) x, (P, P), for a precision (K, K) in standard units."""
        equation_of = self.source.design.equation_of
        return np.asarray(self.gram * precision[np.ix_(equation_of, equation_of)])

    def outward(self, values: np.ndarray) -> np.ndarray:
        """(P, m) changes of b, in the user's units, from (P, m) changes of c."""
        out = np.empty_like(values)
        for part in self.groups:
            for j, places in zip(part.group.equations, part.group.coefficients.T, strict=True):
                out[places] = part.coefficients(values[places]) * self.unit[j]
        return out

    def cov(self, values: np.ndarray) -> np.ndarray:
        """(P, P) covariance of b, in the user's units, from that of c; symmetric to the last bit."""
        both = self.outward(self.outward(values).T)
        return np.asarray(0.5 * (both + both.T))

    def _free_directions(self, restrictions: Restrictions) -> np.ndarray:
        # R b moves with c as R T c: the rows of R go through the transpose of the way out
        turned = np.empty((restrictions.n_restrictions, self.x.shape[1]))
        for part in self.groups:
            for j, places in zip(part.group.equations, part.group.coefficients.T, strict=True):
                turned[:, places] = part.adjoint(restrictions.matrix[:, places].T).T * self.unit[j]
        return free_directions(turned)
