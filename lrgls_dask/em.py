"""Expectation-maximisation over (b, F, d), accelerated: the loop where S (K x K) is too large to hold.

One pass at (b, Sigma) yields S B and diag S for B = Sigma^-1 F and the score of b. They give the exact objective there
and the next point: every equation's coefficients given the expected factors, b_j + d_j (X_j'X_j)^-1 X_j'(R Sigma^-1)_j,
and the factor update of Rubin and Thayer (1982). Anderson acceleration of that map saves most of the passes.
"""

from __future__ import annotations

import numpy as np

from lrgls_dask.constraint import Preconditioner
from lrgls_dask.covariance import (
    Anderson,
    LowRank,
    LowRankStructure,
    em_products,
    em_update,
    flattened,
    nll_from_products,
    unflattened,
)
from lrgls_dask.problem import Problem, Products
from lrgls_dask.sweep import Keep, Options, Point, Solution, Termination, TraceRow, gls

__all__ = ["fit_em", "starting_sigma"]

OVERSAMPLING = 8  # further columns of the random basis that finds the leading factors
ROUND_SHARE = 0.01  # of rel_tol, which is meant for a sweep
ROUNDING = 4e-15  # of the objective: less is no gain
ROUNDS_PER_SWEEP = 10
PLAIN_ROUNDS_PER_SWEEP = 200  # without acceleration


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
    structure: LowRankStructure,
    options: Options,
    c: np.ndarray,
    *,
    sigma: LowRank | None = None,
    keep: Keep | None = None,
) -> Solution:
    """The solution from coefficients c (P,), and a Sigma if there is one to start from.

    Each round is one pass; the coefficients are then refined by CG.

    Ends when two rounds in turn lower the objective by less than a hundredth of rel_tol of it (EM has plateaus that a
    whole sweep has not), MAX_SWEEPS after ten rounds for each sweep, two hundred where not accelerated.
    With accelerate=False it is the plain iteration, whose objective falls every round.
    """
    rank, floor = structure.rank, np.full(problem.design.n_equations, options.d_floor)
    sigma = starting_sigma(problem, rank, c, floor) if sigma is None else sigma
    units = _units(problem, sigma)
    trace: list[TraceRow] = []
    state, best, best_obj, small = Anderson(), (c, sigma), np.inf, 0
    termination = Termination.MAX_SWEEPS
    for round_ in range((ROUNDS_PER_SWEEP if options.accelerate else PLAIN_ROUNDS_PER_SWEEP) * options.max_sweeps):
        seen = problem.products(c, em_products(sigma), sigma)
        nll, obj = _objective(problem, structure, c, sigma, seen)
        trace.append(_row(problem, rank, round_, "em", nll, obj, accepted=obj < best_obj))
        gain = best_obj - obj
        if gain > 0:
            best, best_obj = (c, sigma), obj
            if keep is not None:
                keep(round_, Point(c, np.zeros((0, 0)), sigma))
        flat = max(ROUND_SHARE * options.rel_tol, ROUNDING) * max(1.0, abs(obj))
        small = small + 1 if abs(gain) <= flat else 0
        if small == 2:
            termination = Termination.CONVERGED
            break
        image = _image(problem, structure, c, sigma, seen, floor)
        if not options.accelerate:
            c, sigma = image
            continue
        point, state = state.advanced(_flat(c, sigma) * units, _flat(*image) * units, obj)
        point = point / units
        c, sigma = point[: len(c)], unflattened(point[len(c) :], rank, floor)
    c, _, step = gls(problem, options, *best, fall=0.0)
    seen = problem.products(c, em_products(best[1]), best[1])
    nll, obj = _objective(problem, structure, c, best[1], seen)
    trace.append(_row(problem, rank, round_ + 1, "beta", nll, obj, accepted=True, cg=step.iterations))
    return Solution(Point(c, np.zeros((0, 0)), best[1]), nll, obj, termination, tuple(trace), 1, 1)


def _flat(c: np.ndarray, sigma: LowRank) -> np.ndarray:
    return np.concatenate([c, flattened(sigma)])


def _units(problem: Problem, sigma: LowRank) -> np.ndarray:
    """What makes a change of each coordinate count by about its share of the log-likelihood per row."""
    coefficients = 1.0 / np.sqrt(problem.n_obs * problem.coordinates.expand(sigma.d))
    loadings = np.repeat(1.0 / np.sqrt(sigma.d), sigma.rank)
    return np.concatenate([coefficients, loadings, np.full(len(sigma.d), np.sqrt(0.5))])


def _objective(
    problem: Problem, structure: LowRankStructure, c: np.ndarray, sigma: LowRank, seen: Products
) -> tuple[float, float]:
    nll = nll_from_products(sigma, seen.along, seen.diagonal)
    ridge = float(problem.coordinates.ridge @ c**2) / (2 * problem.n_obs)
    return nll, nll + structure.penalty(sigma) + ridge


def _image(
    problem: Problem, structure: LowRankStructure, c: np.ndarray, sigma: LowRank, seen: Products, floor: np.ndarray
) -> tuple[np.ndarray, LowRank]:
    """One EM step."""
    ridge = problem.coordinates.ridge
    own = problem.coordinates.expand(sigma.d)
    _, step = Preconditioner((1.0 - ridge) / own + ridge, problem.constraint)(seen.score)
    return c + step, em_update(sigma, seen.along, seen.diagonal, floor, lam_F=structure.lam_F)


def _row(
    problem: Problem,
    rank: int,
    round_: int,
    step: str,
    nll: float,
    obj: float,
    *,
    accepted: bool,
    cg: int = 0,
) -> TraceRow:
    offset, meter = problem.nll_offset, problem.meter
    accept_t = 1.0 if accepted else 0.0
    return TraceRow(
        rank, round_, step, nll + offset, obj + offset, accept_t, cg, meter.passes, meter.bytes_read, meter.seconds
    )
