"""Where the loops over missing responses start: every equation by itself, and Sigmas fitted to it pair by pair."""

from __future__ import annotations

from typing import Any

import numpy as np

from lrgls_dask.compression.patterns import LARGEST_PAIRS
from lrgls_dask.missing.kernels import PairMoments
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.sigma.interface import FactorStructure, SigmaStep, Structure
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.structures import widened
from lrgls_dask.solve.record import NO_COVARIANCE, Options, Point
from lrgls_dask.solve.starting_values import starting_values

__all__ = [
    "STARTS",
    "check_enough_pairs",
    "pairs_never_seen",
    "pairwise_covariance",
    "random_starts",
    "softened",
    "starting_points",
]

LEAST_EIGENVALUE = 1e-3  # of a pairwise correlation matrix, which need not be positive definite
BARE, LEAST_OWN = 1e-3, 0.1  # of an equation's variance: what a start takes for nothing, and makes it
N_RANDOM, RANDOM_SIZE, SEED = 6, 0.5, 20260101
STARTS = 4  # distinct optima followed where that costs no pass


def starting_points(problem: Incomplete, structure: FactorStructure, options: Options) -> list[Point]:
    """Every equation fitted by itself with several Sigmas, the most promising first; streamed one of them, by a pass.

    Where restrictions tie equations and it is free, other coefficients that keep to them with one Sigma each.
    Sigma is fitted to the residual covariance pair by pair. For more equations than a pass can sum pairs of, it is a
    random basis, which the first rounds turn towards the leading factors.
    Raises ValueError where the pairs observed are fewer than the loadings.
    """
    c, n_equations = problem.start(), problem.design.n_equations
    others = starting_values(problem)[1:] if problem.restarts_are_free else []
    if structure.rank == 0:
        apart = LowRank(np.zeros((n_equations, 0)), np.ones(n_equations))
        return [Point(each, NO_COVARIANCE, apart) for each in (c, *others)]
    if n_equations > LARGEST_PAIRS:
        basis, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((n_equations, structure.rank)))
        free = structure.loadings(n_equations).free
        return [Point(c, NO_COVARIANCE, LowRank(0.5 * basis * free, np.full(n_equations, 0.75)))]
    points = [Point(c, NO_COVARIANCE, sigma) for sigma in _sigmas(problem, structure, options, problem.pairs_at_start)]
    for other in others:
        sigma, *_ = _sigmas(problem, structure, options, problem.pairs(other))
        points.append(Point(other, NO_COVARIANCE, sigma))
    return points


def _sigmas(problem: Incomplete, structure: FactorStructure, options: Options, pairs: PairMoments) -> list[LowRank]:
    """Sigmas fitted to residual cross-products, pair by pair; one where rows are streamed."""
    floor = np.full(problem.design.n_equations, options.d_floor)
    check_enough_pairs(structure, pairs.pairs)
    S = pairwise_covariance(pairs, floor)
    found: list[SigmaStep[Any]] = [*structure.candidates(S, floor)]
    sigmas = [widened(step.sigma) for step in found]
    softer = [softened(sigma) for sigma in sigmas]
    if not problem.restarts_are_free:
        return softer[:1]
    return [*softer[:STARTS], *(a for a, b in zip(sigmas[:STARTS], softer, strict=False) if a is not b)]


def pairwise_covariance(pairs: PairMoments, floor: np.ndarray) -> np.ndarray:
    """(K, K) positive definite, near the residual products of each pair over the rows that show both."""
    S = pairs.cross / np.maximum(pairs.pairs, 1.0)
    own = np.maximum(S.diagonal(), floor)
    value, vector = np.linalg.eigh(S / np.sqrt(np.outer(own, own)))
    S = (vector * np.maximum(value, LEAST_EIGENVALUE)) @ vector.T
    S *= np.sqrt(np.outer(own, own) / np.outer(S.diagonal(), S.diagonal()))
    return np.asarray(S)


def random_starts(problem: Incomplete, structure: FactorStructure) -> list[LowRank]:
    """Sigmas with random loadings, for likelihoods that have several optima; standard units."""
    n_equations = problem.design.n_equations
    free, rng = structure.loadings(n_equations).free, np.random.default_rng(SEED)
    return [
        LowRank(RANDOM_SIZE * rng.standard_normal(free.shape) * free, np.full(n_equations, RANDOM_SIZE))
        for _ in range(N_RANDOM)
    ]


def softened(sigma: LowRank) -> LowRank:
    """The same variances, equations that S leaves nothing of their own given a share of them.

    Few pairs of an equation make Heywood cases of S that the likelihood need not have, and it hardly leaves the floor.
    """
    variances = sigma.variances
    bare = sigma.d < BARE * variances
    if not bare.any():
        return sigma
    d = np.where(bare, LEAST_OWN * variances, sigma.d)
    common = np.maximum(variances - sigma.d, np.finfo(float).tiny)
    return LowRank(sigma.F * np.sqrt((variances - d) / common)[:, None], d)


def check_enough_pairs(structure: Structure, pairs: np.ndarray) -> None:
    upper = np.triu_indices(len(pairs), 1)
    seen = pairs[upper] > 0
    n_seen, needed = int(seen.sum()), structure.n_parameters(len(pairs)) - len(pairs)
    if n_seen < needed:
        raise ValueError(
            f"rank {structure.rank} has {needed} loadings to find, and only {n_seen} pairs of equations are ever "
            f"observed in the same row. Use a lower rank, or equations that are observed together."
        )


def pairs_never_seen(problem: Incomplete, rank: int) -> str:
    """What to tell of equations that no row shows together, or nothing; the pass that starts a fit has counted them."""
    if rank == 0 or problem.design.n_equations > LARGEST_PAIRS:
        return ""
    upper = np.triu_indices(problem.design.n_equations, 1)
    seen = problem.pairs_at_start.pairs[upper] > 0
    if seen.all():
        return ""
    at, unseen = int(np.argmin(seen)), int((~seen).sum())
    first, second = (problem.design.equations[int(index[at])] for index in upper)
    among = "" if unseen == 1 else f", one of {unseen} such pairs"
    return (
        f"equations {first!r} and {second!r} are never observed in the same row{among}: the data say nothing of their "
        "covariance but through the factors"
    )
