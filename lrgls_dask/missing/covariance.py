"""Covariance of the coefficients with missing responses, at known coefficients and Sigma.

Two kinds. The GLS one, (sum_i X_o' Sigma_oo^-1 X_o)^-1, takes Sigma as known. The observed one inverts the Hessian of
the log-likelihood over coefficients, loadings and variances together: with missing responses the coefficients and
Sigma are not independent even in large samples unless values are missing completely at random (Kenward and Molenberghs
1998), so it is the one to report. Both are within the restrictions on the coefficients, if there are any.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from lrgls_dask.compression.by_pattern import CompressedPatterns
from lrgls_dask.design.design import Design
from lrgls_dask.design.penalties import Ridge
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.missing.problem import Incomplete, Latent
from lrgls_dask.prediction.fitted import check_same_design
from lrgls_dask.rows.fingerprint import Fingerprint
from lrgls_dask.rows.memory import MAX_COEFFICIENTS, require_here, require_memory
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.run_pass import Meter
from lrgls_dask.sigma.interface import Pattern, Sigma
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.structures import widened
from lrgls_dask.solve.constraint import estimator_covariance, free_directions

__all__ = [
    "FittedCells",
    "gls_covariance",
    "incomplete_covariance",
    "observed_covariance",
    "observed_information",
    "observed_nll",
]

# In units in which every coordinate counts alike: the square of the step is the relative error of a central difference.
STEP = 1e-4


def gls_covariance(problem: Incomplete, sigma: LowRank) -> np.ndarray:
    """(P, P) covariance of the coefficients given Sigma, in the user's units and order; one pass, or none.

    sigma : in standard units. With a ridge the sandwich A^-1 I A^-1, A = I + penalty.
    """
    return _of_estimator(problem.information(sigma), problem)


def observed_covariance(
    problem: Incomplete, c: np.ndarray, sigma: Sigma, *, lam_F: float = 0.0, d_floor: float = 0.0
) -> np.ndarray:
    """(P, P) covariance of the coefficients from the observed information, in the user's units and order.

    c, sigma : the maximum likelihood estimates in standard units. Variances on d_floor are taken as known. Two passes
    over streamed rows, the second with 2 K (k + 1) times the work of one; none from pseudo-rows.
    Raises LinAlgError where the estimates are no strict maximum.
    """
    by_c, cross, by_sigma = observed_information(problem, c, sigma, lam_F=lam_F, d_floor=d_floor)
    try:
        effective = by_c - cross @ cho_solve(cho_factor(by_sigma), cross.T)
        return _of_estimator(0.5 * (effective + effective.T), problem)
    except LinAlgError:
        shares = sigma.own_variances() / sigma.variances
        smallest = int(np.argmin(shares))
        raise LinAlgError(
            "the observed information of all parameters is not positive definite: these estimates are no strict "
            "maximum of the likelihood, or the factors are more than the data identify. The smallest share of a "
            f"variance outside the factors is {shares[smallest]:.1e}, of equation "
            f"{problem.design.equations[smallest]!r}. Use a smaller rank, or kind='classical'."
        ) from None


def observed_information(
    problem: Incomplete, c: np.ndarray, sigma: Sigma, *, lam_F: float = 0.0, d_floor: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The Hessian of the negative log-likelihood: by c (P, P), c by Sigma (P, s), by Sigma (s, s).

    The s coordinates of Sigma are (F / sqrt(d), log d) less the loadings that are zero by its structure, the rotations
    of F, which change nothing, and log d on d_floor. The block of c is exact, the others are central differences of the
    exact gradient.
    """
    wide = widened(sigma)
    basis = _directions(wide, sigma.pattern(), d_floor)
    by_sigma, cross = np.empty((basis.shape[1],) * 2), np.empty((len(c), basis.shape[1]))
    moved = [_moved(wide, sign * STEP * direction) for direction in basis.T for sign in (1.0, -1.0)]
    found = problem.latents(c, moved)
    for i in range(basis.shape[1]):
        up, down = (_gradients(found[2 * i + s], moved[2 * i + s], wide, lam_F) for s in (0, 1))
        cross[:, i] = (up[0] - down[0]) / (2 * STEP)
        by_sigma[:, i] = basis.T @ (up[1] - down[1]) / (2 * STEP)
    return problem.information(wide), cross, 0.5 * (by_sigma + by_sigma.T)


def _of_estimator(information: np.ndarray, problem: Incomplete) -> np.ndarray:
    """(P, P) covariance, in the user's units, of coefficients with this information that keep to the restrictions."""
    constraint = problem.constraint
    free = None if constraint is None else constraint.free
    covariance = problem.covariance(estimator_covariance(information, problem.coordinates.ridge, free))
    # rounding, where a restriction fixes a coefficient
    np.fill_diagonal(covariance, np.maximum(covariance.diagonal(), 0.0))
    return covariance


def _directions(sigma: LowRank, loadings: Pattern, d_floor: float) -> np.ndarray:
    """(K k + K, s) orthonormal changes of (F / sqrt(d), log d) that change Sigma and keep its structure."""
    K, k = sigma.F.shape
    scaled = sigma.F / np.sqrt(sigma.d)[:, None]
    places = np.flatnonzero(np.concatenate([loadings.free.ravel(), ~sigma.on_floor(d_floor)]))
    pairs = [(a, b) for columns in loadings.together for a, b in combinations(columns.tolist(), 2)]
    turns = np.zeros((len(pairs), K, k))
    for turn, (a, b) in zip(turns, pairs, strict=True):
        turn[:, a], turn[:, b] = scaled[:, b], -scaled[:, a]
    nothing = np.hstack([turns.reshape(len(pairs), K * k), np.zeros((len(pairs), K))])
    basis = np.zeros((K * k + K, len(places) - len(pairs)))
    basis[places] = free_directions(nothing[:, places])
    return basis


def _moved(sigma: LowRank, change: np.ndarray) -> LowRank:
    size = sigma.F.size
    F = sigma.F + np.sqrt(sigma.d)[:, None] * change[:size].reshape(sigma.F.shape)
    return LowRank(F, sigma.d * np.exp(change[size:]))


def _gradients(at: Latent, moved: LowRank, sigma: LowRank, lam_F: float) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives of the negative log-likelihood by c, ridge left out, and by (F / sqrt(d), log d)."""
    by_F, by_log_d = at.gradient_by_sigma(moved)
    by_F = (by_F + lam_F * moved.F) * np.sqrt(sigma.d)[:, None]
    return -at.gradient, at.n_obs * np.concatenate([by_F.ravel(), by_log_d])


@dataclass(frozen=True, eq=False)
class FittedCells:
    """A fit to rows with holes, in the user's units: what covariances of its coefficients are made of.

    coefficients : (P,).  sigma : with factors and own variances.  n_obs : rows that show something.  cells : (K,) rows
    that show each equation.  fingerprint : what else is known of those, None in old files.
    streamed : whether the rows of each pattern were not compressed.
    """

    design: Design
    coefficients: np.ndarray
    sigma: Sigma
    n_obs: int
    cells: np.ndarray
    fingerprint: Fingerprint | None
    streamed: bool
    lam_B: Ridge
    lam_F: float
    d_floor: float
    restrictions: Restrictions | None


def incomplete_covariance(
    fit: FittedCells, rows: Rows | CompressedPatterns, kind: Literal["classical", "observed"]
) -> np.ndarray:
    """(P, P) covariance of the coefficients of a fit whose rows miss responses.

    The rows are read once where their patterns were compressed; streamed "classical" takes one pass more and "observed"
    two, the second with 2 K (k + 1) times the work of one. Rows that come compressed are not read.
    Raises ValueError for rows that are not those of the fit, MemoryError where P x P numbers do not fit.
    """
    check_same_design(rows.design, fit.design)
    _check_size(fit, rows)
    problem = Incomplete(
        rows,
        lam_B=fit.lam_B,
        meter=Meter(),
        most_patterns=0 if fit.streamed else None,
        restrictions=fit.restrictions,
    )
    if problem.n_obs != fit.n_obs or not np.array_equal(problem.cells, fit.cells):
        raise ValueError(
            f"these are not the rows that were fitted: {problem.n_cells:,} responses observed in {problem.n_obs:,} "
            f"rows, where the fit had {int(fit.cells.sum()):,} in {fit.n_obs:,}. Pass the System that was fitted."
        )
    if fit.fingerprint is not None:
        fit.fingerprint.check(problem.fingerprint(fit.fingerprint), problem.design)
    sigma = _in_units_of(fit.sigma, problem)
    if kind == "classical":
        return gls_covariance(problem, widened(sigma))
    c = problem.whitened_coefficients(fit.coefficients)
    return observed_covariance(problem, c, sigma, lam_F=fit.lam_F, d_floor=fit.d_floor)


def observed_nll(rows: Rows | CompressedPatterns, design: Design, coefficients: np.ndarray, sigma: Sigma) -> float:
    """Negative log-likelihood of coefficients (P,) and a Sigma, in the user's units; one or two passes.

    Per row that shows something.  Raises ValueError for rows of another design.
    """
    check_same_design(rows.design.given, design.given)
    problem = Incomplete(rows, lam_B=0.0, meter=Meter())
    c = problem.whitened_coefficients(coefficients)
    return problem.latent(c, widened(_in_units_of(sigma, problem))).nll + problem.nll_offset


def _in_units_of(sigma: Sigma, problem: Incomplete) -> Sigma:
    return sigma.rescaled(1.0 / problem.whitened.y_scale)


def _check_size(fit: FittedCells, rows: Rows | CompressedPatterns) -> None:
    P = fit.design.n_coefficients
    if P > MAX_COEFFICIENTS:
        raise ValueError(
            f"the covariance of all {P} coefficients would take {8e-9 * P**2:.1f} GB and is limited to "
            f"{MAX_COEFFICIENTS}. Fit fewer equations at a time."
        )
    remedy = "Fit fewer equations at a time"
    held = 32 if fit.restrictions is None else 64
    what = f"the covariance of {P} coefficients"
    if isinstance(rows, Rows):
        require_memory(rows, 8 * P**2, held * P**2, what, remedy)
    else:
        require_here((8 + held) * P**2, what, remedy)
