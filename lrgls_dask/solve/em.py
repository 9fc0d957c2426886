"""Expectation-maximisation over (b, F, d), accelerated: the loop where S (K x K) is too large to hold.

One pass at (b, Sigma) yields S B and diag S for B = Sigma^-1 F and the score of b. They give the exact objective there
and the next point: every equation's coefficients given the expected factors, b_j + d_j (X_j'X_j)^-1 X_j'(R Sigma^-1)_j,
and the factor update of Rubin and Thayer (1982). Anderson acceleration of that map saves most of the passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrgls_dask.sigma.em import em_products, em_update, nll_from_products
from lrgls_dask.sigma.interface import LOOSE, FactorStructure
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.structures import widened
from lrgls_dask.solve.constraint import Preconditioner
from lrgls_dask.solve.interface import Problem, Products
from lrgls_dask.solve.record import Keep, Options, Solution
from lrgls_dask.solve.rounds import fit_by_rounds
from lrgls_dask.solve.sweep import Run, gls

__all__ = ["fit_em", "starting_sigma"]

OVERSAMPLING = 8  # further columns of the random basis that finds the leading factors


def starting_sigma(problem: Problem, rank: int, c: np.ndarray, floor: np.ndarray) -> LowRank:
    """Leading principal factors of S, from one pass: S ~ (S W)(W'S W)^-1 (S W)' for a random W (Nystrom)."""
    n_equations = len(floor)
    columns = min(n_equations, rank + OVERSAMPLING)
    basis, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((n_equations, columns)))
    seen = problem.products(c, basis, None)
    root = np.linalg.cholesky(_bounded_below(basis.T @ seen.along))
    left, size, _ = np.linalg.svd(np.linalg.solve(root, seen.along.T).T, full_matrices=False)
    F = left[:, :rank] * size[:rank]
    own = seen.diagonal - np.sum(F**2, axis=1)
    # principal components take up own variance too: leave each equation at least a tenth of its own
    shrink = np.sqrt(np.minimum(1.0, 0.9 * seen.diagonal / np.maximum(np.sum(F**2, axis=1), 1e-300)))
    return LowRank(F * shrink[:, None], np.maximum(np.maximum(own, 0.1 * seen.diagonal), floor))


def _bounded_below(matrix: np.ndarray) -> np.ndarray:
    symmetric: np.ndarray = 0.5 * (matrix + matrix.T)
    return symmetric + 1e-12 * np.trace(symmetric) * np.eye(len(matrix))


def fit_em(
    problem: Problem,
    structure: FactorStructure,
    options: Options,
    c: np.ndarray,
    *,
    sigma: LowRank | None = None,
    done: int = 0,
    keep: Keep | None = None,
) -> Solution:
    """The solution from coefficients c (P,), and a Sigma if there is one to start from; see rounds.py.

    Each round is one pass; the coefficients are then refined by CG.
    """
    floor = np.full(problem.design.n_equations, options.d_floor)
    sigma = _first_sigma(problem, structure, c, floor) if sigma is None else sigma
    rounds = _CompleteRounds(problem, structure, options, floor)
    return fit_by_rounds(Run(problem, structure, options), rounds, c, sigma, done=done, keep=keep)


def _first_sigma(problem: Problem, structure: FactorStructure, c: np.ndarray, floor: np.ndarray) -> LowRank:
    if structure.loadings(len(floor)).everywhere:
        return starting_sigma(problem, structure.rank, c, floor)
    # principal factors know no zeros; where all of a group's loadings are zero they would stay so
    return widened(structure.candidates(problem.residual_covariance(c), floor, tol=LOOSE)[0].sigma)


@dataclass(frozen=True, eq=False)
class _CompleteRounds:
    """EM with all responses observed."""

    problem: Problem
    structure: FactorStructure
    options: Options
    floor: np.ndarray

    @property
    def cells(self) -> np.ndarray:
        return np.full(len(self.floor), float(self.problem.n_obs))

    def look(self, c: np.ndarray, sigma: LowRank) -> tuple[float, Products]:
        seen = self.problem.products(c, em_products(sigma), sigma)
        return nll_from_products(sigma, seen.along, seen.diagonal), seen

    def image(self, c: np.ndarray, sigma: LowRank, seen: Products) -> tuple[np.ndarray, LowRank]:
        ridge = self.problem.coordinates.ridge
        own = self.problem.coordinates.expand(sigma.d)
        _, step = Preconditioner((1.0 - ridge) / own + ridge, self.problem.constraint)(seen.score)
        loadings = self.structure.loadings(len(self.floor))
        free = None if loadings.everywhere else loadings.free
        lam_F = self.structure.lam_F
        return c + step, em_update(sigma, seen.along, seen.diagonal, self.floor, lam_F=lam_F, free=free)

    def refined(self, c: np.ndarray, sigma: LowRank, seen: Products) -> tuple[np.ndarray, int]:
        c, _, step = gls(self.problem, self.options, c, sigma, fall=0.0)
        return c, step.iterations
