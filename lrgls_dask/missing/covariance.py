"""Covariance of the coefficients with missing responses, at known coefficients and Sigma.

Two kinds. The GLS one, (sum_i X_o' Sigma_oo^-1 X_o)^-1, takes Sigma as known. The observed one inverts the Hessian of
the log-likelihood over coefficients, loadings and variances together: with missing responses the coefficients and
Sigma are not independent even in large samples unless values are missing completely at random (Kenward and Molenberghs
1998), so it is the one to report. Both are within the restrictions on the coefficients, if there are any.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Literal

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve, cholesky, solve_triangular

from lrgls_dask.compression.by_pattern import CompressedPatterns
from lrgls_dask.compression.shown_parts import SeenRows
from lrgls_dask.design.design import Design
from lrgls_dask.design.penalties import Ridge
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.inference.gradient_pass import check_rows
from lrgls_dask.inference.sigma_errors import SigmaErrors
from lrgls_dask.missing.bread import ShownBread
from lrgls_dask.missing.gradients import JointParams, joint_kernel
from lrgls_dask.missing.problem import Incomplete, Latent
from lrgls_dask.prediction.fitted import check_same_design
from lrgls_dask.rows.fingerprint import Fingerprint
from lrgls_dask.rows.memory import MAX_COEFFICIENTS, require_here, require_memory
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.run_pass import run_pass
from lrgls_dask.sigma.full import FullSigma
from lrgls_dask.sigma.interface import Pattern, Sigma
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.structures import widened
from lrgls_dask.sigma.tangents import Tangents
from lrgls_dask.solve.constraint import estimator_covariance, free_directions, inverse_within
from lrgls_dask.solve.starting_values import in_user_units

__all__ = [
    "FittedCells",
    "fitted_problem",
    "gls_covariance",
    "incomplete_covariance",
    "least_squares_covariance",
    "observed_covariance",
    "observed_information",
    "observed_nll",
    "shown_bread",
    "shown_huber_white",
    "shown_sigma_errors",
]

# In units in which every coordinate counts alike: the square of the step is the relative error of a central difference.
STEP = 1e-4
AT_ONCE = 2**20  # numbers of the matrices that one pass sums for as many directions of Sigma


def gls_covariance(problem: Incomplete, sigma: Sigma) -> np.ndarray:
    """(P, P) covariance of the coefficients given Sigma, in the user's units and order; one pass, or none.

    sigma : in standard units. With a ridge the sandwich A^-1 I A^-1, A = I + penalty.
    """
    return _of_estimator(problem.information(sigma), problem)


def least_squares_covariance(problem: Incomplete, sigma: Sigma) -> np.ndarray:
    """(P, P) covariance of the least squares of every equation over its own rows, in the user's units and order.

    (X'X)^-1 X' Sigma X (X'X)^-1, of equations i and j over the rows that show both; under restrictions as
    `LeastSquaresCovariance` has it. sigma : in standard units. One pass, or none.
    """
    products = problem.information(sigma, sigma.dense())
    constraint = problem.constraint
    if constraint is not None:
        weight = problem.coordinates.expand(in_user_units(problem))
        inverse = inverse_within(np.diag(weight), constraint.free)
        products = inverse @ (weight[:, None] * products * weight) @ inverse
    covariance = problem.covariance(products)
    np.fill_diagonal(covariance, np.maximum(covariance.diagonal(), 0.0))
    return covariance


def observed_covariance(
    problem: Incomplete, c: np.ndarray, sigma: Sigma, *, lam_F: float = 0.0, d_floor: float = 0.0
) -> np.ndarray:
    """(P, P) covariance of the coefficients from the observed information, in the user's units and order.

    c, sigma : the maximum likelihood estimates in standard units. Variances on d_floor are taken as known. Two passes
    over streamed rows, the second with 2 K (k + 1) times the work of one; none from pseudo-rows.
    Raises LinAlgError where the estimates are no strict maximum.
    """
    found = observed_information(problem, c, sigma, lam_F=lam_F, d_floor=d_floor)
    try:
        return _of_estimator(found.profile, problem)
    except LinAlgError:
        raise no_maximum(problem, sigma) from None


@dataclass(frozen=True, eq=False)
class ObservedInformation:
    """The Hessian of the negative log-likelihood: by c (P, P), c by Sigma (P, s), by Sigma (s, s).

    The s coordinates of Sigma are what is free of its m parameters: without directions that change nothing and what is
    held on d_floor.  tangents : those parameters, standard units.  moves : (m, s) how they move with the coordinates.
    """

    by_c: np.ndarray
    cross: np.ndarray
    by_sigma: np.ndarray
    tangents: Tangents
    moves: np.ndarray

    @cached_property
    def regression(self) -> np.ndarray:
        """(s, P) of Sigma's gradients on those of the coefficients."""
        return np.asarray(cho_solve(cho_factor(self.by_sigma), self.cross.T) if self.cross.size else self.cross.T)

    @cached_property
    def profile(self) -> np.ndarray:
        """(P, P) what information of the coefficients is left once Sigma is estimated too."""
        effective = self.by_c - self.cross @ self.regression
        return np.asarray(0.5 * (effective + effective.T))

    def roots(self, ridge: np.ndarray, free: np.ndarray | None) -> np.ndarray:
        """(m, s) L with L L' the covariance of Sigma's parameters, where directions that change nothing are held.

        ridge : (P,) and free (P, P - m) of the coefficients.  Raises LinAlgError where that is none.
        """
        alone = inverse_within(self.by_c + np.diag(ridge), free)
        marginal = self.by_sigma - self.cross.T @ alone @ self.cross
        root = cholesky(0.5 * (marginal + marginal.T), lower=False)
        return np.asarray(solve_triangular(root.T, self.moves.T, lower=True).T)


def no_maximum(problem: Incomplete, sigma: Sigma) -> LinAlgError:
    shares = (sigma.own_variances() if sigma.rank else 1.0 / sigma.precision_diagonal) / sigma.variances
    smallest = int(np.argmin(shares))
    return LinAlgError(
        "the observed information of all parameters is not positive definite: these estimates are no strict "
        "maximum of the likelihood, or the factors are more than the data identify. The smallest share of a "
        f"variance outside the factors is {shares[smallest]:.1e}, of equation "
        f"{problem.design.equations[smallest]!r}. Use a smaller rank, or kind='classical'."
    )


def observed_information(
    problem: Incomplete, c: np.ndarray, sigma: Sigma, *, lam_F: float = 0.0, d_floor: float = 0.0
) -> ObservedInformation:
    """Of a Sigma in standard units. The block of c is exact, the others are central differences of the exact gradient.

    Where Sigma is factors and variances alone the coordinates are (F / sqrt(d), log d) less the loadings that are zero
    by its structure, the rotations of F and log d on d_floor.
    """
    if not (sigma.is_wide and sigma.n_parameters):
        return _of_tangents(problem, c, sigma, d_floor)
    wide = widened(sigma)
    basis = _directions(wide, sigma.pattern(), d_floor)
    by_sigma, cross = np.empty((basis.shape[1],) * 2), np.empty((len(c), basis.shape[1]))
    moved = [_moved(wide, sign * STEP * direction) for direction in basis.T for sign in (1.0, -1.0)]
    found = problem.latents(c, moved)
    for i in range(basis.shape[1]):
        up, down = (_gradients(found[2 * i + s], moved[2 * i + s], wide, lam_F) for s in (0, 1))
        cross[:, i] = (up[0] - down[0]) / (2 * STEP)
        by_sigma[:, i] = basis.T @ (up[1] - down[1]) / (2 * STEP)
    tangents = sigma.tangents(sigma.on_floor(d_floor))
    places = np.concatenate([tangents.rows * wide.rank + tangents.columns, wide.F.size + tangents.own_rows])
    scale = np.concatenate([np.sqrt(wide.d)[tangents.rows], wide.d[tangents.own_rows]])
    moves = scale[:, None] * basis[places]
    return ObservedInformation(problem.information(wide), cross, 0.5 * (by_sigma + by_sigma.T), tangents, moves)


def _of_tangents(problem: Incomplete, c: np.ndarray, sigma: Sigma, d_floor: float) -> ObservedInformation:
    """`observed_information` by the parameters that a Sigma of K x K numbers states, less the flat ones."""
    tangents, unit = sigma.tangents(sigma.on_floor(d_floor)), 1.0 / np.sqrt(sigma.precision_diagonal)
    scale = np.concatenate([unit[tangents.rows], unit[tangents.own_rows] * unit[tangents.own_columns]])
    flat = tangents.flat / scale[:, None]
    moves = scale[:, None] * (free_directions(np.linalg.qr(flat)[0].T) if flat.shape[1] else np.eye(len(scale)))
    by_sigma, cross = np.empty((moves.shape[1],) * 2), np.empty((len(c), moves.shape[1]))
    height = max(1, AT_ONCE // problem.design.n_equations**2)
    for first in range(0, moves.shape[1], height):
        some = moves.T[first : first + height]
        ways = [_along(sigma, tangents, sign * STEP * move) for move in some for sign in (1.0, -1.0)]
        slopes = []
        for found, (moved, there) in zip(problem.expected(c, *(each for each, _ in ways)), ways, strict=True):
            Q = moved.precision()
            slopes.append((found.gradient, problem.n_obs * moves.T @ there.gradient(Q @ found.S @ Q - Q)))
        for i in range(len(some)):
            (up, by_up), (down, by_down) = slopes[2 * i : 2 * i + 2]
            cross[:, first + i] = (down - up) / (2 * STEP)
            by_sigma[:, first + i] = (by_down - by_up) / (2 * STEP)
    by_sigma = 0.5 * (by_sigma + by_sigma.T)
    return ObservedInformation(problem.information(sigma), cross, by_sigma, tangents, moves)


def _along(sigma: Sigma, tangents: Tangents, change: np.ndarray) -> tuple[FullSigma, Tangents]:
    """Sigma once its parameters have changed, and the directions from there."""
    n, F = len(tangents.rows), tangents.F.copy()
    F[tangents.rows, tangents.columns] += change[:n]
    matrix = sigma.dense() - tangents.F @ tangents.F.T + F @ F.T
    i, j, apart = tangents.own_rows, tangents.own_columns, tangents.own_rows != tangents.own_columns
    matrix[i, j] += change[n:]
    matrix[j[apart], i[apart]] += change[n:][apart]
    return FullSigma(matrix), replace(tangents, F=F)


def _of_estimator(information: np.ndarray, problem: Incomplete) -> np.ndarray:
    """(P, P) covariance, in the user's units, of coefficients with this information that keep to the restrictions."""
    covariance = problem.covariance(estimator_covariance(information, problem.coordinates.ridge, problem.free))
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
    streamed : whether the rows of each pattern were not compressed.  is_ols : whether these are least squares.
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
    is_ols: bool = False


def incomplete_covariance(
    fit: FittedCells, rows: Rows | CompressedPatterns, kind: Literal["classical", "observed"]
) -> np.ndarray:
    """(P, P) covariance of the coefficients of a fit whose rows miss responses.

    The rows are read once where their patterns were compressed; streamed "classical" takes one pass more and "observed"
    two, the second with 2 K (k + 1) times the work of one. Rows that come compressed are not read.
    Raises ValueError for rows that are not those of the fit, MemoryError where P x P numbers do not fit.
    """
    _check_size(fit, rows)
    problem = fitted_problem(fit, rows)
    sigma = _in_units_of(fit.sigma, problem)
    if kind == "classical":
        return (least_squares_covariance if fit.is_ols else gls_covariance)(problem, sigma)
    c = problem.whitened_coefficients(fit.coefficients)
    return observed_covariance(problem, c, sigma, lam_F=fit.lam_F, d_floor=fit.d_floor)


def shown_bread(fit: FittedCells, rows: Rows, sigma: Sigma) -> ShownBread:
    """What sandwiches of a fit whose rows miss responses are made with; as many passes as a "classical" covariance.

    sigma : at which rows are weighted, in the user's units.  Errors as `incomplete_covariance`.
    """
    _check_size(fit, rows)
    return ShownBread(fitted_problem(fit, rows), fit.coefficients, sigma)


def shown_huber_white(fit: FittedCells, rows: Rows) -> np.ndarray:
    """(P, P) the coefficients' block of A^-1 B A^-1, A the observed information of all parameters and B the sum of
    squares of each row's gradients by them: "observed" and one pass more, of N (P (P + 2 m) + k K^2) flops.

    Errors as `incomplete_covariance` and `observed_covariance`.  Source: Huber (1967); White (1982); as lavaan's
    se="robust.huber.white", its estimator MLR.
    """
    _check_size(fit, rows)
    problem = fitted_problem(fit, rows)
    sigma = _in_units_of(fit.sigma, problem)
    c, P = problem.whitened_coefficients(fit.coefficients), fit.design.n_coefficients
    found = observed_information(problem, c, sigma, lam_F=fit.lam_F, d_floor=fit.d_floor)
    try:
        bread = inverse_within(found.profile + np.diag(problem.coordinates.ridge), problem.free)
    except LinAlgError:
        raise no_maximum(problem, sigma) from None
    regression = np.empty((len(found.moves), P))
    regression[:, problem.order] = found.moves @ found.regression
    params = JointParams(problem.params_at(c, sigma), problem.design.equation_of, found.tangents, regression)
    moments = run_pass(
        rows, joint_kernel, params, partial_bytes=8 * P**2, meter=Meter(), label="Huber-White covariance", holes=True
    )
    check_rows(moments.n_rows, problem.n_obs)
    return ShownBread(problem, fit.coefficients, fit.sigma).joint_sandwich(moments.meat, bread)


def shown_sigma_errors(fit: FittedCells, rows: Rows | CompressedPatterns) -> SigmaErrors:
    """Standard errors of Sigma's parts from the observed information of all parameters; passes and errors as "observed"

    Rows whose holes depend on what they show have no expected information (Kenward and Molenberghs 1998).
    """
    _check_size(fit, rows)
    problem = fitted_problem(fit, rows)
    sigma = _in_units_of(fit.sigma, problem)
    found = observed_information(problem, problem.whitened_coefficients(fit.coefficients), sigma, d_floor=fit.d_floor)
    try:
        roots = found.roots(problem.coordinates.ridge, problem.free)
    except LinAlgError:
        raise no_maximum(problem, sigma) from None
    return SigmaErrors(sigma, problem.whitened.y_scale, found.tangents, roots)


def fitted_problem(fit: FittedCells, rows: Rows | CompressedPatterns | SeenRows) -> Incomplete:
    """The rows of a fit once more: one pass, or none of rows seen already.  Raises ValueError for others."""
    check_same_design(rows.design, fit.design)
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
    return problem


def observed_nll(rows: Rows | CompressedPatterns, design: Design, coefficients: np.ndarray, sigma: Sigma) -> float:
    """Negative log-likelihood of coefficients (P,) and a Sigma, in the user's units; one or two passes.

    Per row that shows something.  Raises ValueError for rows of another design.
    """
    check_same_design(rows.design.given, design.given)
    problem = Incomplete(rows, lam_B=0.0, meter=Meter())
    c = problem.whitened_coefficients(coefficients)
    mine = _in_units_of(sigma, problem)
    nll = problem.latent(c, widened(mine)).nll if mine.is_wide else problem.expected(c, mine)[0].nll
    return nll + problem.nll_offset


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
