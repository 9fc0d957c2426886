"""EM with responses missing, as a step of the loop.

    obj = nll(b, Sigma) + lam_F / 2 ||F||^2 + lam_B / (2 N) ||b||^2        (standard units, per row)

Only the factors are augmented data; missing responses are integrated out, so they slow no iteration. A round takes
every equation's coefficients given the expected factors, b_j + d_j (X_j'X_j)^-1 X_j'(Sigma_oo^-1 r)_j, then f_j and d_j
given the new moments of the factors (ECM, Meng and Rubin 1993). Both orders reach the same optimum.
"""

from __future__ import annotations

import numpy as np

from lrgls_dask.missing.problem import Incomplete, Latent
from lrgls_dask.sigma.em import on_factors
from lrgls_dask.sigma.interface import FactorStructure, Pattern
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.solve.cg import conjugate_gradients
from lrgls_dask.solve.constraint import Preconditioner
from lrgls_dask.solve.em import Rounds
from lrgls_dask.solve.gls import final_energy
from lrgls_dask.solve.record import Options

__all__ = ["IncompleteRounds", "em_round", "refined"]


class IncompleteRounds(Rounds):
    """EM with responses missing."""

    problem: Incomplete

    def read(self, c: np.ndarray, sigma: LowRank) -> tuple[float, Latent]:
        seen = self.problem.latent(c, sigma)
        return seen.nll, seen

    def image(self, c: np.ndarray, sigma: LowRank, seen: Latent) -> tuple[np.ndarray, LowRank]:
        expand = self.options.accelerate
        return em_round(self.problem, self.structure, self.options, c, sigma, seen, expand=expand)

    def refined(self, c: np.ndarray, sigma: LowRank, seen: Latent) -> tuple[np.ndarray, int]:
        return refined(self.problem, self.options, c, sigma, seen)


def em_round(
    problem: Incomplete,
    structure: FactorStructure,
    options: Options,
    c: np.ndarray,
    sigma: LowRank,
    seen: Latent,
    *,
    expand: bool,
) -> tuple[np.ndarray, LowRank]:
    """The next point of the EM algorithm from the likelihood at (c, sigma); the objective never rises.

    expand : also fit the covariance of the factors of the same equations and take it into their loadings, which leaves
    the optimum where it is and saves rounds (PX-EM, Liu, Rubin and Wu 1998).
    """
    ridge = problem.coordinates.ridge
    own = problem.coordinates.expand(sigma.d)
    _, step = Preconditioner((1.0 - ridge) / own + ridge, problem.constraint)(seen.gradient - ridge * c)
    loadings = structure.loadings(problem.design.n_equations)
    return c + step, _sigma_round(problem, loadings, structure.lam_F, options.d_floor, sigma, seen, expand=expand)


def _sigma_round(
    problem: Incomplete,
    loadings: Pattern,
    lam_F: float,
    d_floor: float,
    sigma: LowRank,
    seen: Latent,
    *,
    expand: bool,
) -> LowRank:
    """f_j and d_j given the moments of the factors at the old Sigma; O(K k^3)."""
    penalty = lam_F * problem.n_obs * sigma.d[:, None, None] * np.eye(sigma.rank)
    slope = seen.along - np.einsum("jab,jb->ja", penalty, sigma.F)
    change = on_factors(seen.second + penalty, slope, loadings.free)
    F = sigma.F + change
    curve = np.einsum("ja,jab,jb->j", change, seen.second, change)
    squares = seen.squares - 2.0 * np.einsum("ja,ja->j", change, seen.along) + curve
    d = np.maximum(squares / seen.cells, d_floor)
    if expand and lam_F == 0.0:
        for factors in loadings.together:
            value, vector = np.linalg.eigh(seen.total[np.ix_(factors, factors)] / problem.n_obs)
            F[:, factors] = F[:, factors] @ ((vector * np.sqrt(value)) @ vector.T)
    return LowRank(F, d)


def refined(
    problem: Incomplete, options: Options, c: np.ndarray, sigma: LowRank, seen: Latent
) -> tuple[np.ndarray, int]:
    """The coefficients of a Sigma by conjugate gradients from c, looked at as `seen`, and how many iterations."""
    ridge = problem.coordinates.ridge
    diagonal = problem.coordinates.expand(_mean_precision(sigma, seen)) * (1.0 - ridge) + ridge
    found = conjugate_gradients(
        lambda p, _: problem.image(p, sigma),
        c,
        seen.gradient - ridge * c,
        diagonal,
        tol=final_energy(problem, options, c, diagonal),
        max_iterations=options.cg_maxit,
        constraint=problem.constraint,
    )
    return found.x, len(found.steps)


def _mean_precision(sigma: LowRank, seen: Latent) -> np.ndarray:
    """(K,) the mean of (Sigma_oo^-1)_jj = 1/d - f'C_i^-1 f/d^2 over the rows that show j."""
    taken = np.einsum("jk,jkl,jl->j", sigma.F, seen.spread, sigma.F) / np.maximum(seen.cells, 1.0)
    return np.asarray(1.0 / sigma.d - np.minimum(taken / sigma.d**2, (1 - 1e-3) / sigma.d))
