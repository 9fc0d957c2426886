"""Maximum likelihood with missing responses: EM, and alternating least squares, on the likelihood of what is observed.

    obj = nll(b, Sigma) + lam_F / 2 ||F||^2 + lam_B / (2 N) ||b||^2        (standard units, per row)

Only the factors are augmented data; missing responses are integrated out, so they slow no iteration. An EM round takes
every equation's coefficients given the expected factors, b_j + d_j (X_j'X_j)^-1 X_j'(Sigma_oo^-1 r)_j, then f_j and d_j
given the new moments of the factors (ECM, Meng and Rubin 1993). Both orders reach the same optimum.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import scipy.optimize

from lrgls_dask.als import Options, Point, Solution, Termination, TraceRow
from lrgls_dask.cg import conjugate_gradients
from lrgls_dask.covariance import Anderson, LowRank, LowRankStructure, flattened, unflattened
from lrgls_dask.missing.problem import Incomplete, Latent
from lrgls_dask.selection import best_of
from lrgls_dask.sweep import final_energy

__all__ = [
    "Algorithm",
    "Estimate",
    "choose_incomplete",
    "em_round",
    "estimate_of",
    "fit_incomplete",
    "pairs_never_seen",
    "starting_points",
]

Algorithm = Literal["als", "em"]

ROUND_SHARE = 0.01  # of rel_tol, which is meant for a sweep
ROUNDING = 4e-15  # of the objective, which sums as many terms as there are slabs
ROUNDS_PER_SWEEP = 10
PLAIN_ROUNDS_PER_SWEEP = 200  # without acceleration
LARGEST_PAIRS = 2_000  # equations whose pairwise moments (K, K) a pass may sum
LEAST_EIGENVALUE = 1e-3  # of a pairwise correlation matrix, which need not be positive definite
BARE, LEAST_OWN = 1e-3, 0.1  # of an equation's variance: what a start takes for nothing, and makes it
LARGEST_VARIANCE = 1e6  # in standard units: far beyond any optimum, where a long trial step would overflow
STARTS = 4  # distinct optima followed where that costs no pass


@dataclass
class _Loop:
    """One run: the problem, the options and the trace it leaves."""

    problem: Incomplete
    structure: LowRankStructure
    options: Options
    trace: list[TraceRow] = field(default_factory=list)

    @property
    def floor(self) -> np.ndarray:
        return np.full(self.problem.design.n_equations, self.options.d_floor)

    def objective(self, c: np.ndarray, sigma: LowRank, seen: Latent) -> float:
        ridge = float(self.problem.coordinates.ridge @ c**2) / (2 * self.problem.n_obs)
        return seen.nll + self.structure.penalty(sigma) + ridge

    def record(self, sweep: int, step: str, nll: float, obj: float, accept_t: float = 1.0, cg: int = 0) -> None:
        m, offset = self.problem.meter, self.problem.nll_offset
        self.trace.append(
            TraceRow(
                self.structure.rank,
                sweep,
                step,
                nll + offset,
                obj + offset,
                accept_t,
                cg,
                m.passes,
                m.bytes_read,
                m.seconds,
            )
        )

    def solution(self, c: np.ndarray, sigma: LowRank, nll: float, obj: float, ended: Termination) -> Solution:
        return Solution(Point(c, np.zeros((0, 0)), sigma), nll, obj, ended, tuple(self.trace), 1, 1)

    def refined(self, c: np.ndarray, sigma: LowRank, seen: Latent) -> tuple[np.ndarray, int]:
        """The coefficients of a Sigma by conjugate gradients, and how many it took; `seen` is the likelihood at c."""
        problem, options = self.problem, self.options
        ridge = problem.coordinates.ridge
        diagonal = problem.coordinates.expand(_mean_precision(sigma, seen)) * (1.0 - ridge) + ridge
        found = conjugate_gradients(
            lambda p, _: problem.image(p, sigma),
            c,
            seen.score - ridge * c,
            diagonal,
            tol=final_energy(problem, options, c, diagonal),
            max_iterations=options.cg_maxit,
        )
        return found.x, len(found.steps)


def _mean_precision(sigma: LowRank, seen: Latent) -> np.ndarray:
    """(K,) the mean of (Sigma_oo^-1)_jj = 1/d - f'C_i^-1 f/d^2 over the rows that show j."""
    taken = np.einsum("jk,jkl,jl->j", sigma.F, seen.spread, sigma.F) / np.maximum(seen.cells, 1.0)
    return np.asarray(1.0 / sigma.d - np.minimum(taken / sigma.d**2, (1 - 1e-3) / sigma.d))


# ---------------------------------------------------------------------------------------------- starts


def starting_points(
    problem: Incomplete, structure: LowRankStructure, options: Options
) -> tuple[np.ndarray, list[LowRank]]:
    """Every equation fitted by itself, c (P,), and Sigmas to start from, the most promising first.

    Sigma is fitted to the residual covariance pair by pair; one pass. For more equations than a pass can sum pairs of,
    a random basis, which the first rounds turn towards the leading factors.
    Raises ValueError where the pairs observed are fewer than the loadings.
    """
    c, rank = problem.start(), structure.rank
    n_equations = problem.design.n_equations
    floor = np.full(n_equations, options.d_floor)
    if rank == 0:
        return c, [LowRank(np.zeros((n_equations, 0)), np.ones(n_equations))]
    if n_equations > LARGEST_PAIRS:
        basis, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((n_equations, rank)))
        return c, [LowRank(0.5 * basis, np.full(n_equations, 0.75))]
    pairs = problem.pairs_at_start
    _check_pairs(rank, pairs.pairs)
    S = pairs.cross / np.maximum(pairs.pairs, 1.0)
    own = np.maximum(S.diagonal(), floor)
    value, vector = np.linalg.eigh(S / np.sqrt(np.outer(own, own)))
    S = (vector * np.maximum(value, LEAST_EIGENVALUE)) @ vector.T
    S *= np.sqrt(np.outer(own, own) / np.outer(S.diagonal(), S.diagonal()))
    found = structure.candidates(S, floor)
    sigmas = [step.sigma for step in found]
    softer = [_softened(sigma) for sigma in sigmas]
    if not problem.restarts_are_free:
        return c, softer[:1]
    return c, [*softer[:STARTS], *(a for a, b in zip(sigmas[:STARTS], softer, strict=False) if a is not b)]


def _softened(sigma: LowRank) -> LowRank:
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


def _check_pairs(rank: int, pairs: np.ndarray) -> None:
    upper = np.triu_indices(len(pairs), 1)
    seen = pairs[upper] > 0
    n_seen, needed = int(seen.sum()), len(pairs) * rank - rank * (rank - 1) // 2
    if n_seen < needed:
        raise ValueError(
            f"rank {rank} has {needed} loadings to find, and only {n_seen} pairs of equations are ever observed in the "
            f"same row. Use a lower rank, or equations that are observed together."
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


# ---------------------------------------------------------------------------------------------- EM


def em_round(
    problem: Incomplete,
    structure: LowRankStructure,
    options: Options,
    c: np.ndarray,
    sigma: LowRank,
    seen: Latent,
    *,
    expand: bool,
) -> tuple[np.ndarray, LowRank]:
    """The next point of the EM algorithm from the likelihood at (c, sigma); the objective never rises.

    expand : also fit the covariance of the factors and take it into the loadings, which leaves the optimum where it is
    and saves rounds (PX-EM, Liu, Rubin and Wu 1998).
    """
    ridge = problem.coordinates.ridge
    own = problem.coordinates.expand(sigma.d)
    moved = c + (seen.score - ridge * c) / ((1.0 - ridge) / own + ridge)
    return moved, _sigma_round(problem, structure.lam_F, options.d_floor, sigma, seen, expand=expand)


def _sigma_round(
    problem: Incomplete, lam_F: float, d_floor: float, sigma: LowRank, seen: Latent, *, expand: bool
) -> LowRank:
    """f_j and d_j given the moments of the factors at the old Sigma; O(K k^3)."""
    penalty = lam_F * problem.n_obs * sigma.d[:, None, None] * np.eye(sigma.rank)
    step = np.linalg.solve(seen.second + penalty, (seen.along - np.einsum("jab,jb->ja", penalty, sigma.F))[:, :, None])
    change = step[:, :, 0]
    F = sigma.F + change
    curve = np.einsum("ja,jab,jb->j", change, seen.second, change)
    squares = seen.squares - 2.0 * np.einsum("ja,ja->j", change, seen.along) + curve
    d = np.maximum(squares / seen.cells, d_floor)
    if expand and lam_F == 0.0 and sigma.rank:
        value, vector = np.linalg.eigh(seen.total / problem.n_obs)
        F = F @ ((vector * np.sqrt(value)) @ vector.T)
    return LowRank(F, d)


def _fit_em(
    problem: Incomplete,
    structure: LowRankStructure,
    options: Options,
    c: np.ndarray,
    sigma: LowRank,
    *,
    accelerate: bool,
) -> Solution:
    """EM from one point, a pass a round where the rows are streamed; then the coefficients by conjugate gradients."""
    loop = _Loop(problem, structure, options)
    units = _units(problem, sigma)
    state, best, best_obj, small = Anderson(), (c, sigma), np.inf, 0
    ended, round_ = Termination.MAX_SWEEPS, 0
    seen = best_seen = problem.latent(c, sigma)
    for round_ in range((ROUNDS_PER_SWEEP if accelerate else PLAIN_ROUNDS_PER_SWEEP) * options.max_sweeps):
        if round_:
            seen = problem.latent(c, sigma)
        obj = loop.objective(c, sigma, seen)
        gain = best_obj - obj
        loop.record(round_, "em", seen.nll, obj, 1.0 if gain > 0 else 0.0)
        if gain > 0:
            best, best_obj, best_seen = (c, sigma), obj, seen
        flat = max(ROUND_SHARE * options.rel_tol, ROUNDING) * max(1.0, abs(obj))
        small = small + 1 if abs(gain) <= flat else 0
        if small == 2:
            ended = Termination.CONVERGED
            break
        image = em_round(problem, structure, options, c, sigma, seen, expand=accelerate)
        if not accelerate:
            c, sigma = image
            continue
        point, state = state.advanced(_flat(c, sigma) * units, _flat(*image) * units, obj)
        point = point / units
        c, sigma = point[: len(c)], unflattened(point[len(c) :], structure.rank, loop.floor)
    return _finished(loop, *best, best_seen, round_ + 1, ended)


def _finished(loop: _Loop, c: np.ndarray, sigma: LowRank, seen: Latent, sweep: int, ended: Termination) -> Solution:
    """The solution once the coefficients are those of its Sigma."""
    c, iterations = loop.refined(c, sigma, seen)
    if iterations:
        seen = loop.problem.latent(c, sigma)
    obj = loop.objective(c, sigma, seen)
    loop.record(sweep, "beta", seen.nll, obj, cg=iterations)
    return loop.solution(c, sigma, seen.nll, obj, ended)


def _flat(c: np.ndarray, sigma: LowRank) -> np.ndarray:
    return np.concatenate([c, flattened(sigma)])


def _units(problem: Incomplete, sigma: LowRank) -> np.ndarray:
    """What makes a change of each coordinate count by about its share of the log-likelihood per row."""
    share = np.sqrt(problem.cells / problem.n_obs)
    coefficients = 1.0 / np.sqrt(problem.n_obs * problem.coordinates.expand(sigma.d))
    loadings = np.repeat(share / np.sqrt(sigma.d), sigma.rank)
    return np.concatenate([coefficients, loadings, share * np.sqrt(0.5)])


# ---------------------------------------------------------------------------------------------- ALS


def _fit_als(
    problem: Incomplete, structure: LowRankStructure, options: Options, c: np.ndarray, sigma: LowRank
) -> Solution:
    """Sweeps of a factor step at fixed coefficients and a GLS step at fixed Sigma, for pseudo-rows: both are free."""
    loop = _Loop(problem, structure, options)
    seen = problem.latent(c, sigma)
    obj = loop.objective(c, sigma, seen)
    loop.record(0, "start", seen.nll, obj)
    ended = Termination.MAX_SWEEPS
    for sweep in range(1, options.max_sweeps + 1):
        sigma, seen = _factor_step(loop, c, sigma, seen)
        loop.record(sweep, "sigma", seen.nll, loop.objective(c, sigma, seen))
        c, iterations = loop.refined(c, sigma, seen)
        seen = problem.latent(c, sigma)
        before, obj = obj, loop.objective(c, sigma, seen)
        loop.record(sweep, "beta", seen.nll, obj, cg=iterations)
        if before - obj <= max(options.rel_tol, ROUNDING) * max(1.0, abs(obj)):
            ended = Termination.CONVERGED
            break
    return loop.solution(c, sigma, seen.nll, obj, ended)


def _factor_step(loop: _Loop, c: np.ndarray, sigma: LowRank, seen: Latent) -> tuple[LowRank, Latent]:
    """The best Sigma at fixed coefficients, by L-BFGS-B over (F, log d) with the exact gradient; never a worse one."""
    problem, options, rank = loop.problem, loop.options, sigma.rank
    units = _units(problem, sigma)[len(c) :]
    size, fixed = sigma.F.size, problem.fixed(c)

    def value(z: np.ndarray) -> tuple[float, np.ndarray]:
        at = unflattened(z / units, rank, loop.floor)
        found = fixed(at)
        by_F, by_log_d = found.gradient(at)
        gradient = np.concatenate([(by_F + loop.structure.lam_F * at.F).ravel(), by_log_d]) / units
        return loop.objective(c, at, found), gradient

    least = np.concatenate([np.full(size, -np.inf), np.log(loop.floor) * units[size:]])
    most = np.concatenate([np.full(size, np.inf), np.log(LARGEST_VARIANCE) * units[size:]])
    start = flattened(sigma) * units
    solved = scipy.optimize.minimize(
        value,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=scipy.optimize.Bounds(least, most),
        options={
            "maxiter": 500,
            "maxfun": 1000,
            "maxcor": 20,
            "ftol": max(1e-3 * options.rel_tol, 1e-16),
            "gtol": 1e-12,
        },
    )
    better = unflattened(solved.x / units, rank, loop.floor)
    found = problem.latent(c, better)
    if loop.objective(c, better, found) < loop.objective(c, sigma, seen):
        return better, found
    return sigma, seen


# ---------------------------------------------------------------------------------------------- the fit


def fit_incomplete(
    problem: Incomplete,
    structure: LowRankStructure,
    options: Options,
    *,
    algorithm: Algorithm = "als",
    accelerate: bool = True,
) -> Solution:
    """The best solution of one structure; several starts where they are free.

    algorithm : "em", or "als": alternating steps where the patterns are compressed and, where every look at the rows
    is a pass, both half-steps from the same pass, which are the accelerated EM rounds.
    accelerate : False is the plain EM iteration.
    """
    c, starts = starting_points(problem, structure, options)
    solutions = []
    for sigma in starts:
        if algorithm == "als" and problem.restarts_are_free:
            solutions.append(_fit_als(problem, structure, options, c, sigma))
        else:
            solutions.append(_fit_em(problem, structure, options, c, sigma, accelerate=accelerate))
    best = min(solutions, key=lambda s: s.obj)
    agreed = sum(s.obj - best.obj <= 1e-7 * max(1.0, abs(best.obj)) for s in solutions)
    return replace(best, n_starts=len(solutions), n_agreed=agreed)


Table = tuple[dict[str, float], ...]


def choose_incomplete(
    problem: Incomplete,
    structures: tuple[LowRankStructure, ...],
    options: Options,
    *,
    algorithm: Algorithm = "als",
    accelerate: bool = True,
) -> tuple[Solution, Table]:
    """The solution of least BIC among the structures, and one row for each where there are several; each is fitted."""
    solutions = [
        fit_incomplete(problem, each, options, algorithm=algorithm, accelerate=accelerate) for each in structures
    ]
    if len(structures) == 1:
        return solutions[0], ()
    best, table = best_of([_criteria(problem, found) for found in solutions], "bic")
    return solutions[best], table


def _criteria(problem: Incomplete, found: Solution) -> dict[str, float]:
    sigma = found.point.sigma
    n_parameters = problem.design.n_coefficients + sigma.n_parameters
    loglik = -problem.n_obs * (found.nll + problem.nll_offset)
    return {
        "rank": sigma.rank,
        "loglik": loglik,
        "n_parameters": n_parameters,
        "aic": -2 * loglik + 2 * n_parameters,
        "bic": -2 * loglik + float(np.log(problem.n_obs)) * n_parameters,
    }


@dataclass(frozen=True, eq=False)
class Estimate:
    """A solution in the user's units. coefficients : (P,) by equation.  covariance : loadings normalised.  on_floor :
    positions of equations whose variance is on its floor."""

    coefficients: np.ndarray
    covariance: LowRank
    loglik: float
    objective: float
    on_floor: np.ndarray


def estimate_of(problem: Incomplete, found: Solution, options: Options) -> Estimate:
    """The solution in the user's units."""
    sigma = found.point.sigma
    assert isinstance(sigma, LowRank)
    return Estimate(
        coefficients=problem.coefficients(found.point.c),
        covariance=sigma.rescaled(problem.whitened.y_scale).normalised(),
        loglik=-problem.n_obs * (found.nll + problem.nll_offset),
        objective=found.obj + problem.nll_offset,
        on_floor=np.flatnonzero(sigma.d <= options.d_floor * (1 + 1e-6)),
    )
