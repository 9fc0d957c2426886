"""The log-likelihood of an unrestricted Sigma at its maximum, from compressed rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import scipy.optimize
from scipy.linalg import cho_solve, cholesky, solve_triangular

from lrgls_dask.compress import Compressed
from lrgls_dask.covariance import LowRank
from lrgls_dask.inference.classical import MAX_COEFFICIENTS
from lrgls_dask.passes import Meter
from lrgls_dask.problem import InMemory

__all__ = ["full_loglik"]

SINGULAR = 1e-10  # an eigenvalue of S, in units of OLS residual variances, that runs to zero
SETTLED = 1e-6  # squared distance from the optimum in standard errors at which the log-likelihood is exact to 1e-6


def full_loglik(system: Compressed) -> float:
    """max over b and an unrestricted Sigma of the log-likelihood.

    Where all equations share their regressors, OLS; else the profile log|S(b)| is minimised by L-BFGS in coordinates
    in which GLS at the OLS residual covariance is one step. O(P^3 + iterations K (q P + K^2)), one P x P array.
    Raises ValueError where no maximum exists (N < q + K, or log|S| unbounded), or for too many coefficients.
    """
    design, n_obs = system.design, system.n_obs
    width = design.n_regressors + design.n_equations
    if n_obs < width:
        raise ValueError(
            f"an unrestricted Sigma has no maximum likelihood estimate with N = {n_obs} rows, fewer than the "
            f"q + K = {design.n_regressors} + {design.n_equations} distinct columns. Use fewer equations or more rows."
        )
    if design.n_coefficients > MAX_COEFFICIENTS and len(design.groups) > 1:
        raise ValueError(
            f"an unrestricted Sigma is fitted with at most {MAX_COEFFICIENTS} coefficients; there are "
            f"{design.n_coefficients}. Use fewer equations."
        )
    problem = InMemory(system, lam_B=0.0, meter=Meter())
    c = problem.coordinates.flat(problem.whitened.start)
    if len(design.groups) > 1:
        c = _profile_optimum(problem, c)
    S = problem.residual_covariance(c)
    _refuse_singular(S)
    logdet = float(np.linalg.slogdet(S)[1])
    return -n_obs * (0.5 * (design.n_equations * (np.log(2 * np.pi) + 1.0) + logdet) + problem.nll_offset)


def _profile_optimum(problem: InMemory, start: np.ndarray) -> np.ndarray:
    """(P,) c that minimises N / 2 log|S(c)|, whose gradient is -X'(R S^-1)."""
    S = problem.residual_covariance(start)
    _refuse_singular(S)
    root = cholesky(_information(problem, np.linalg.inv(S)), lower=True)

    def at(z: np.ndarray) -> np.ndarray:
        moved: np.ndarray = start + solve_triangular(root, z, lower=True, trans="T")
        return moved

    def profile(z: np.ndarray) -> tuple[float, np.ndarray]:
        c = at(z)
        S = problem.residual_covariance(c)
        _refuse_singular(S)
        sigma = _Unrestricted(cholesky(S, lower=True))
        step = problem.gls_step(c, cast(LowRank, sigma))  # a GLS step asks of Sigma only what _Unrestricted has
        value = problem.n_obs * float(np.log(sigma.root.diagonal()).sum())
        return value, -solve_triangular(root, step.score, lower=True)

    options = {"maxiter": 5000, "maxfun": 20000, "maxcor": 30, "ftol": 0.0, "gtol": 1e-9}
    found = scipy.optimize.minimize(profile, np.zeros(len(start)), jac=True, method="L-BFGS-B", options=options)
    gradient = profile(found.x)[1]
    if float(gradient @ gradient) > SETTLED:
        raise ValueError(
            "the maximum likelihood of an unrestricted Sigma was not reached; it may have none on these data. "
            "Use fewer equations or more rows."
        )
    return at(found.x)


@dataclass(frozen=True, eq=False)
class _Unrestricted:
    """Sigma = root root', root (K, K) lower triangular."""

    root: np.ndarray

    def solve_rows(self, E: np.ndarray) -> np.ndarray:
        """E Sigma^-1, (n, K) to (n, K)."""
        solved: np.ndarray = cho_solve((self.root, True), E.T).T
        return solved


def _information(problem: InMemory, precision: np.ndarray) -> np.ndarray:
    """(P, P) X' (Sigma^-1 kron I) X in whitened coordinates."""
    at = problem.coordinates
    columns, equations = [], []
    for q, (_, mine, (g, p, m)) in zip(at.stack(problem.whitened), at.buckets, strict=True):
        columns.append(np.repeat(q.transpose(1, 0, 2)[..., None], m, axis=3).reshape(q.shape[1], -1))
        equations.append(np.broadcast_to(mine.reshape(g, 1, m), (g, p, m)).ravel())
    rows, equation_of = np.hstack(columns), np.concatenate(equations)
    information: np.ndarray = rows.T @ rows
    information *= precision[np.ix_(equation_of, equation_of)]
    return information


def _refuse_singular(S: np.ndarray) -> None:
    if float(np.linalg.eigvalsh(S)[0]) < SINGULAR:
        raise ValueError(
            "an unrestricted Sigma has no maximum likelihood estimate on these data: a combination of the responses is "
            "one of the regressors, so its variance runs to zero. Drop one of these equations."
        )
