"""Observed and expected information of the whole likelihood: coefficients b and the parameters of Sigma together.

For N rows, Q = Sigma^-1 and residuals R, minus the second derivatives of the log-likelihood are

    b, b:  X' (Q kron I) X        b, Sigma_a:  X_j' R Q dS_a Q e_j        Sigma_a, Sigma_b:  see sigma/tangents,

and their means (the expected information) have zeros off the diagonal blocks, so that the b block of its inverse is
the classical covariance. Everything is computed from a compressed system: no read of the data.
Source: Magnus & Neudecker (1988), chapter 15; Savalei (2010) for which information suits which data.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular

from lrgls_dask.inference.standardised import MAX_PARAMETERS, Estimate, Standardised
from lrgls_dask.sigma.tangents import Tangents
from lrgls_dask.solve.constraint import inverse_within

__all__ = ["Information", "JointInformation", "check_unpenalised", "joint_information", "observed_cov"]

Information = Literal["expected", "observed"]

# A distance from the maximum of 1e-4 N log-likelihood units bends second derivatives by about a hundredth.
FAR_FROM_MAXIMUM = 1e-4
# A squared pivot, between 0 and 1, so small says that a parameter cannot be told from the others.
NOT_IDENTIFIED = 1e-11


@dataclass(frozen=True, eq=False)
class JointInformation:
    """Minus the second derivatives of the log-likelihood in standard coordinates, or their means.

    rows : the data in those coordinates.  tangents : Sigma's m parameters.  precision : (K, K) Sigma^-1, unit diagonal.
    coefficient : (P, P), without the ridge.  mixed : (P, m).
    sigma : (m, m); along rotations of the loadings, which leave Sigma alone, it is N instead of 0, so that it has an
    inverse, whose values for anything that rotations leave alone do not depend on that choice.
    """

    rows: Standardised
    tangents: Tangents
    precision: np.ndarray
    coefficient: np.ndarray
    mixed: np.ndarray
    sigma: np.ndarray

    @cached_property
    def regression(self) -> np.ndarray:
        """(m, P) of Sigma's gradients on those of the coefficients: sigma^-1 mixed'."""
        return _solve(self.sigma, self.mixed.T)

    @cached_property
    def profile(self) -> np.ndarray:
        """(P, P) the information of the coefficients that is left once Sigma's parameters are estimated too."""
        return np.asarray(self.coefficient - self.mixed @ self.regression)

    @cached_property
    def bread(self) -> np.ndarray:
        """(P, P) the coefficients' block of the inverse, ridge and restrictions included."""
        try:
            return inverse_within(self.profile + np.diag(self.rows.ridge), self.rows.free)
        except LinAlgError:
            raise _not_a_maximum() from None

    @cached_property
    def sigma_roots(self) -> np.ndarray:
        """(m, m) L with L L' Sigma's block of the inverse, Heywood variances and rotations held."""
        marginal = self.sigma
        if self.mixed.any():
            alone = inverse_within(self.coefficient + np.diag(self.rows.ridge), self.rows.free)
            marginal = self.sigma - self.mixed.T @ alone @ self.mixed
        return np.asarray(solve_triangular(_cholesky(marginal), np.eye(len(marginal)), lower=False))


def joint_information(estimate: Estimate, kind: Information) -> JointInformation:
    """The joint information at given parameters, in the user's units.

    A d_j on its floor is held there, and what follows is conditional on it.
    With m free loadings and variances of Sigma, K (K + 1)/2 entries of an unrestricted one: O(m^3 + P m K) time,
    24 m^2 + 8 P m bytes.
    Raises ValueError above MAX_PARAMETERS parameters, for lam_F > 0 or l1 > 0, and for observed information of a Sigma
    that does not maximise the likelihood.
    """
    check_unpenalised(estimate.lam_F, estimate.l1)
    n_parameters = _check_size(estimate)
    rows = Standardised.of(estimate)
    scaled = estimate.sigma.rescaled(1.0 / rows.unit)
    tangents, Q, N = scaled.tangents(estimate.held), scaled.precision(), rows.n_obs
    none = np.zeros_like(Q)
    flat = tangents.flat
    held = N * (flat @ flat.T) if flat.shape[1] else 0.0
    sigma, mixed = N * tangents.curvature(Q, none) + held, np.zeros((len(rows.ridge), n_parameters))
    if kind == "observed":
        G = Q @ rows.residual_cross @ Q - Q
        _check_maximum(N * tangents.gradient(0.5 * (G + G.T)), sigma, N)
        sigma = N * tangents.curvature(Q, 0.5 * (G + G.T)) + held
        mixed = tangents.cross(rows.x.T @ (rows.residual @ Q), Q, rows.source.design.equation_of)
    return JointInformation(rows, tangents, Q, rows.information(Q), mixed, sigma)


def observed_cov(estimate: Estimate) -> np.ndarray:
    """(P, P) the coefficients' block of the inverse observed information of all parameters, in the user's units.

    With lam_B > 0 the sandwich A^-1 J A^-1 of the penalised estimate: J is the observed information of the likelihood,
    A = J + penalty, both of all parameters. Costs and errors of `joint_information`, and O(P^3); no read.
    Source: Efron & Hinkley (1978); as lavaan's information="observed", observed.information="hessian".
    """
    joint = joint_information(estimate, "observed")
    covariance = joint.bread @ joint.profile @ joint.bread if joint.rows.ridge.any() else joint.bread
    return joint.rows.cov(covariance)


# ---------------------------------------------------------------------------------------------- pieces


def check_unpenalised(lam_F: float, l1: float) -> None:
    """Raise ValueError for loadings that are shrunk."""
    for name, value in (("lam_F", lam_F), ("l1", l1)):
        if value > 0:
            raise ValueError(
                f"the information of Sigma's parameters is that of an unpenalised Sigma, but {name} is {value:g}. "
                f"Fit with {name} = 0, or use classical or robust standard errors, or the bootstrap."
            )


def _check_size(estimate: Estimate) -> int:
    """The number of Sigma's parameters; raises ValueError where all parameters are too many."""
    n_parameters = estimate.sigma.tangents(estimate.held).n_parameters
    n_coefficients = estimate.compressed.design.n_coefficients
    if n_parameters + n_coefficients > MAX_PARAMETERS:
        raise ValueError(
            f"the joint information of {n_coefficients} coefficients and {n_parameters} parameters of Sigma would take "
            f"{8e-9 * (n_coefficients + n_parameters) ** 2:.1f} GB and is limited to {MAX_PARAMETERS} in all. "
            "Use classical or robust standard errors, or fit fewer equations or factors."
        )
    return n_parameters


def _check_maximum(gradient: np.ndarray, sigma: np.ndarray, n_obs: int) -> None:
    """Raise ValueError where a Newton step in Sigma would raise the log-likelihood by more than a trifle."""
    if not len(gradient):
        return
    gain = 0.5 * float(gradient @ _solve(sigma, gradient))
    if gain > FAR_FROM_MAXIMUM * n_obs:
        raise ValueError(
            f"observed information is defined at a maximum of the likelihood, but a Newton step in Sigma would raise "
            f"the log-likelihood by {gain:.3g}. Fit with algorithm='als' and sigma_step='ml' until it converges, "
            "without debiasing, or use classical standard errors."
        )


def _cholesky(information: np.ndarray) -> np.ndarray:
    """Upper triangular; raises LinAlgError where Sigma's parameters are not identified."""
    try:
        root = np.asarray(cholesky(information, lower=False))
    except LinAlgError:
        raise _not_a_maximum() from None
    if np.any(root.diagonal() ** 2 <= NOT_IDENTIFIED * information.diagonal()):
        raise _not_a_maximum()
    return root


def _solve(information: np.ndarray, rhs: np.ndarray) -> np.ndarray:
    return np.asarray(cho_solve((_cholesky(information), False), rhs))


def _not_a_maximum() -> LinAlgError:
    return LinAlgError(
        "the information of all parameters is not positive definite: these parameters are no strict maximum of the "
        "likelihood, or the factors are more than the data identify. Fit to convergence, use a smaller rank, or use "
        "classical standard errors."
    )
