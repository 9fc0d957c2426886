"""Maximum likelihood with missing responses: EM, and alternating least squares, on the likelihood of what is observed.

    obj = nll(b, Sigma) + lam_F / 2 ||F||^2 + lam_B / (2 N) ||b||^2        (standard units, per row)

Only the factors are augmented data; missing responses are integrated out, so they slow no iteration. An EM round takes
every equation's coefficients given the expected factors, b_j + d_j (X_j'X_j)^-1 X_j'(Sigma_oo^-1 r)_j, then f_j and d_j
given the new moments of the factors (ECM, Meng and Rubin 1993). Both orders reach the same optimum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lrgls_dask.missing.polish import minimised, nearly_bare, polished, slope_of_sigma
from lrgls_dask.missing.problem import Incomplete, Latent
from lrgls_dask.missing.starts import random_starts, starting_points
from lrgls_dask.sigma.em import flattened, on_factors, unflattened
from lrgls_dask.sigma.interface import FactorStructure, Pattern, Sigma
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.structures import widened
from lrgls_dask.solve.als import best_start
from lrgls_dask.solve.cg import conjugate_gradients
from lrgls_dask.solve.checkpoint import Checkpoint, CheckpointLoop
from lrgls_dask.solve.constraint import Preconditioner
from lrgls_dask.solve.record import Options, Point, Solution, Termination
from lrgls_dask.solve.rounds import ROUNDING, fit_by_rounds, units_of_sigma
from lrgls_dask.solve.selection import Table, best_of, criteria
from lrgls_dask.solve.sweep import Run, final_energy

__all__ = ["Estimate", "choose_incomplete", "em_round", "estimate_of", "fit_incomplete"]

CELLS_OF_MORE_STARTS = 200_000  # of pseudo-rows: up to so many a dozen more searches are a matter of seconds


@dataclass(frozen=True, eq=False)
class _Rounds:
    """EM with responses missing."""

    problem: Incomplete
    structure: FactorStructure
    options: Options

    @property
    def cells(self) -> np.ndarray:
        return self.problem.cells

    def look(self, c: np.ndarray, sigma: LowRank) -> tuple[float, Latent]:
        seen = self.problem.latent(c, sigma)
        return seen.nll, seen

    def image(self, c: np.ndarray, sigma: LowRank, seen: Latent) -> tuple[np.ndarray, LowRank]:
        expand = self.options.accelerate
        return em_round(self.problem, self.structure, self.options, c, sigma, seen, expand=expand)

    def refined(self, c: np.ndarray, sigma: LowRank, seen: Latent) -> tuple[np.ndarray, int]:
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
            constraint=problem.constraint,
        )
        return found.x, len(found.steps)


def _mean_precision(sigma: LowRank, seen: Latent) -> np.ndarray:
    """(K,) the mean of (Sigma_oo^-1)_jj = 1/d - f'C_i^-1 f/d^2 over the rows that show j."""
    taken = np.einsum("jk,jkl,jl->j", sigma.F, seen.spread, sigma.F) / np.maximum(seen.cells, 1.0)
    return np.asarray(1.0 / sigma.d - np.minimum(taken / sigma.d**2, (1 - 1e-3) / sigma.d))


# ---------------------------------------------------------------------------------------------- EM


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
    _, step = Preconditioner((1.0 - ridge) / own + ridge, problem.constraint)(seen.score - ridge * c)
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


# ---------------------------------------------------------------------------------------------- ALS


def _fit_als(rounds: _Rounds, c: np.ndarray, sigma: LowRank) -> Solution:
    """Sweeps of a factor step at fixed coefficients and a GLS step at fixed Sigma, for pseudo-rows: both are free."""
    options = rounds.options
    run = Run(rounds.problem, rounds.structure, options)

    def noted(sweep: int, step: str, cg: int = 0) -> float:
        obj = run.penalised(c, sigma, seen.nll)
        run.note(sweep, step, seen.nll, obj, cg=cg)
        return obj

    _, seen = rounds.look(c, sigma)
    obj = noted(0, "start")
    ended = Termination.MAX_SWEEPS
    for sweep in range(1, options.max_sweeps + 1):
        sigma, seen = _factor_step(run, rounds, c, sigma, seen)
        noted(sweep, "sigma")
        c, iterations = rounds.refined(c, sigma, seen)
        _, seen = rounds.look(c, sigma)
        before, obj = obj, noted(sweep, "beta", iterations)
        if before - obj <= max(options.rel_tol, ROUNDING) * max(1.0, abs(obj)):
            ended = Termination.CONVERGED
            break
    return run.ended(Point(c, np.zeros((0, 0)), rounds.structure.value(sigma)), seen.nll, obj, ended)


def _factor_step(run: Run, rounds: _Rounds, c: np.ndarray, sigma: LowRank, seen: Latent) -> tuple[LowRank, Latent]:
    """The best Sigma at fixed coefficients, by L-BFGS-B over (F, log d) with the exact gradient; never a worse one."""
    problem, rank, floor, lam_F = rounds.problem, sigma.rank, run.floor(), rounds.structure.lam_F
    free = rounds.structure.loadings(len(floor)).free
    units = units_of_sigma(problem.n_obs, problem.cells, sigma)
    fixed = problem.fixed(c)

    def value(z: np.ndarray) -> tuple[float, np.ndarray]:
        at = unflattened(z / units, rank, floor)
        found = fixed(at)
        return run.penalised(c, at, found.nll), slope_of_sigma(found, at, free, lam_F) / units

    ftol = max(1e-3 * run.options.rel_tol, 1e-16)
    of_d = units[-len(floor) :]
    end = minimised(value, flattened(sigma) * units, of_d, floor, maxiter=500, maxfun=1000, maxcor=20, ftol=ftol)
    better = unflattened(end / units, rank, floor)
    found = problem.latent(c, better)
    if run.penalised(c, better, found.nll) < run.penalised(c, sigma, seen.nll):
        return better, found
    return sigma, seen


# ---------------------------------------------------------------------------------------------- the fit


def fit_incomplete(
    problem: Incomplete, structure: FactorStructure, options: Options, kept: CheckpointLoop | None = None
) -> Solution:
    """The best solution of one structure; several starts where they are free.

    algorithm="als" alternates where the patterns are compressed; where every look at the rows is a pass it takes both
    half-steps from the same pass, which are the accelerated EM rounds.
    kept : where a streamed loop keeps its last point, and goes on from one that is there.
    """
    rounds = _Rounds(problem, structure, options)
    if kept is not None and not problem.restarts_are_free:
        return _fit_kept(rounds, kept)
    c, starts = starting_points(problem, structure, options)
    if options.algorithm != "als" or not problem.restarts_are_free:
        return best_start([fit_by_rounds(Run(problem, structure, options), rounds, c, sigma) for sigma in starts])
    solutions = [_fit_als(rounds, c, sigma) for sigma in starts]
    best = best_start(solutions)
    if problem.n_pseudo_cells > CELLS_OF_MORE_STARTS or not nearly_bare(_wide(best)).any():
        return _together(rounds, best)
    solutions.append(fit_by_rounds(Run(problem, structure, options), rounds, c, starts[0]))
    solutions += [_fit_als(rounds, c, sigma) for sigma in random_starts(problem, structure)]
    return best_start([_together(rounds, found) for found in solutions])


def _wide(found: Solution) -> LowRank:
    return widened(found.point.sigma)


def _together(rounds: _Rounds, found: Solution) -> Solution:
    """The solution once coefficients and Sigma have been moved together."""
    problem, options = rounds.problem, rounds.options
    run = Run(problem, rounds.structure, options, list(found.trace))
    c, sigma, seen = polished(run, problem, rounds.structure, found.point.c, _wide(found))
    sweep, obj = found.trace[-1].sweep + 1, run.penalised(c, sigma, seen.nll)
    if obj == found.obj:
        return found
    run.note(sweep, "joint", seen.nll, obj)
    c, iterations = rounds.refined(c, sigma, seen)
    _, seen = rounds.look(c, sigma)
    obj = run.penalised(c, sigma, seen.nll)
    run.note(sweep, "beta", seen.nll, obj, cg=iterations)
    point = Point(c, found.point.S, rounds.structure.value(sigma))
    return replace(found, point=point, nll=seen.nll, obj=obj, trace=tuple(run.trace))


def _fit_kept(rounds: _Rounds, kept: CheckpointLoop) -> Solution:
    """The rounds from the point that is kept, else from the start; one pass where they had already ended there."""
    run, saved = Run(rounds.problem, rounds.structure, rounds.options), kept.saved()
    if saved is None:
        c, (sigma, *_) = starting_points(rounds.problem, rounds.structure, rounds.options)
        done = 0
    else:
        c, sigma, done = saved.c, widened(saved.sigma), saved.sweep + 1
        if saved.ended is not None:
            nll, _ = rounds.look(c, sigma)
            obj = run.penalised(c, sigma, nll)
            run.note(saved.sweep, "start", nll, obj)
            return run.ended(Point(c, saved.S, rounds.structure.value(sigma)), nll, obj, saved.ended)
    found = fit_by_rounds(run, rounds, c, sigma, done=done, keep=kept.keep)
    kept.finish(found)
    return found


def choose_incomplete(
    problem: Incomplete,
    structures: tuple[FactorStructure, ...],
    options: Options,
    checkpoint: Checkpoint | None = None,
) -> tuple[Solution, Table]:
    """The solution of least BIC among the structures, and one row for each where there are several; each is fitted.

    checkpoint : where streamed loops keep their last points, and go on from those that are there.
    """
    solutions = []
    for each in structures:
        kept = None if checkpoint is None else checkpoint.loop("missing", each, options, problem.constraint)
        solutions.append(fit_incomplete(problem, each, options, kept))
    if len(structures) == 1:
        return solutions[0], ()
    rows = [criteria(problem, each, found.nll) for each, found in zip(structures, solutions, strict=True)]
    best, table = best_of(rows, "bic")
    return solutions[best], table


@dataclass(frozen=True, eq=False)
class Estimate:
    """A solution in the user's units. coefficients : (P,) by equation.  covariance : loadings normalised.  on_floor :
    positions of equations whose variance is on its floor."""

    coefficients: np.ndarray
    covariance: Sigma
    loglik: float
    objective: float
    on_floor: np.ndarray


def estimate_of(problem: Incomplete, found: Solution, options: Options) -> Estimate:
    """The solution in the user's units."""
    sigma = found.point.sigma
    return Estimate(
        coefficients=problem.coefficients(found.point.c),
        covariance=sigma.rescaled(problem.whitened.y_scale).normalised(),
        loglik=-problem.n_obs * (found.nll + problem.nll_offset),
        objective=found.obj + problem.nll_offset,
        on_floor=np.flatnonzero(sigma.on_floor(options.d_floor)),
    )
