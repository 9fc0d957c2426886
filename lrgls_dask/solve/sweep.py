"""The two half-steps of a sweep, and what the loop that makes them is told and leaves behind."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from lrgls_dask.sigma.interface import TIGHT, Sigma, SigmaStep, Structure
from lrgls_dask.solve.cg import conjugate_gradients
from lrgls_dask.solve.constraint import Preconditioner
from lrgls_dask.solve.interface import Posed, Problem, inner_energy
from lrgls_dask.solve.record import BetaStep, Options, Point, Solution, Termination, TraceRow, debiased

__all__ = ["Run", "Sweeps", "final_energy", "gls", "starting_residuals"]


def final_energy(problem: Posed, options: Options, c: np.ndarray, diagonal: np.ndarray) -> float:
    """r'M^-1 r at which the last conjugate gradients from c (P,) stop, M = diagonal (P,)."""
    if options.cg_tol is None:
        return inner_energy(problem, options.rel_tol)
    return options.cg_tol**2 * float(c**2 @ diagonal)


def gls(
    problem: Problem, options: Options, c: np.ndarray, sigma: Sigma, *, fall: float
) -> tuple[np.ndarray, np.ndarray, BetaStep]:
    """Coefficients at `sigma` by CG warm-started at c (P,), within the restrictions; their S (K, K); what it took.

    The inner iteration is stopped by its energy r'M^-1 r, about 2 N times what is left to gain in nll per row: where
    it has fallen to `fall` of its start, 0 for the final tolerance.
    """
    system = problem.gls_step(c, sigma)
    ridge = problem.coordinates.ridge
    diagonal = problem.coordinates.expand(sigma.precision_diagonal) * (1.0 - ridge) + ridge
    final = final_energy(problem, options, c, diagonal)
    score, z = Preconditioner(diagonal, problem.constraint)(system.score)
    energy = float(score @ z)
    tol = max(final, fall * energy)
    found = conjugate_gradients(
        system.product,
        c,
        score,
        diagonal,
        tol=tol,
        max_iterations=options.cg_maxit,
        constraint=problem.constraint,
    )
    S = system.finish(found.x, found.steps)
    return found.x, S, BetaStep(len(found.steps), energy, tol == final)


def starting_residuals(problem: Problem, *, pooled: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """c (P,) and S (K, K): every equation fitted by itself, moved as little as the restrictions allow.

    pooled : count squared residuals of all equations alike in the user's units, which is restricted ordinary least
    squares as one-step programs understand it, rather than in standard units.
    """
    c = problem.coordinates.flat(problem.whitened.start)
    if problem.constraint is not None:
        scale, ridge = problem.whitened.y_scale, problem.coordinates.ridge
        weight = problem.coordinates.expand((scale / scale.max()) ** 2 if pooled else np.ones_like(scale))
        c = problem.constraint.nearest(c, weight * (1.0 - ridge) + ridge)
    return c, problem.residual_covariance(c)


@dataclass
class Run:
    """One run of a loop: its problem, and the trace it leaves."""

    problem: Posed
    structure: Structure
    options: Options
    trace: list[TraceRow] = field(default_factory=list)

    def floor(self) -> np.ndarray:
        """(K,) the least own variances."""
        return np.full(self.problem.design.n_equations, self.options.d_floor)

    def penalised(self, c: np.ndarray, sigma: Sigma, nll: float) -> float:
        """obj per row, given nll per row."""
        ridge = float(self.problem.coordinates.ridge @ c**2) / (2 * self.problem.n_obs)
        return nll + self.structure.penalty(sigma) + ridge

    def note(self, sweep: int, step: str, nll: float, obj: float, accept_t: float = 1.0, cg: int = 0) -> None:
        """One more row of the trace."""
        meter, offset = self.problem.meter, self.problem.nll_offset
        totals = (meter.passes, meter.bytes_read, meter.seconds)
        self.trace.append(TraceRow(self.structure.rank, sweep, step, nll + offset, obj + offset, accept_t, cg, *totals))

    def ended(self, point: Point, nll: float, obj: float, termination: Termination) -> Solution:
        """What the loop hands back, from one starting point."""
        return Solution(point, nll, obj, termination, tuple(self.trace), 1, 1)


@dataclass
class Sweeps(Run):
    """The half-steps of one run of the alternating loop."""

    problem: Problem

    def objective(self, point: Point) -> tuple[float, float]:
        """nll and obj per row."""
        nll = point.sigma.nll(point.S)
        return nll, self.penalised(point.c, point.sigma, nll)

    def record(
        self, sweep: int, step: Literal["start", "sigma", "beta"], point: Point, accept_t: float = 1.0, cg: int = 0
    ) -> float:
        """The objective, noted down."""
        nll, obj = self.objective(point)
        self.note(sweep, step, nll, obj, accept_t, cg)
        return obj

    def sigma_step(self, point: Point, *, tol: float = TIGHT) -> SigmaStep[Sigma]:
        """Sigma at the coefficients of `point`, searched from its Sigma to a gradient of `tol`."""
        S = debiased(self.problem, self.options, point.S)
        return self.structure.update(S, self.floor(), point.sigma, tol=tol)

    def beta_step(self, point: Point, *, fall: float) -> tuple[Point, BetaStep]:
        """Coefficients at the Sigma of `point`."""
        c, S, step = gls(self.problem, self.options, point.c, point.sigma, fall=fall)
        return Point(c, S, point.sigma), step

    def solution(self, point: Point, termination: Termination, first: SigmaStep[Sigma]) -> Solution:
        """What the loop hands back."""
        found = self.ended(point, *self.objective(point), termination)
        return replace(found, n_starts=first.n_starts, n_agreed=first.n_agreed)
