"""The generalised-least-squares step: coefficients at a given Sigma by conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.solve.cg import conjugate_gradients
from lrgls_dask.solve.constraint import Preconditioner
from lrgls_dask.solve.interface import Posed, Problem
from lrgls_dask.solve.record import Options

__all__ = ["BetaStep", "final_energy", "gls", "inner_energy"]


@dataclass(frozen=True, eq=False)
class BetaStep:
    """A GLS step. c : (P,).  S : (K, K) their residual covariance.

    energy : r'M^-1 r it began with: the squared distance, in standard errors, of the old coefficients from those of
    Sigma.  final : whether it went to the final tolerance, or as far as cg_maxit lets it.
    """

    c: np.ndarray
    S: Any
    iterations: int
    energy: float
    final: bool


def inner_energy(problem: Posed, rel_tol: float) -> float:
    """r'M^-1 r at which the last conjugate gradients stop, given the outer tolerance.

    It is the squared distance from the solution in standard errors, and about 2 N times what is left to gain in nll per
    row. Where iterations cost nothing only rounding is left. Streamed it is a hundredth of rel_tol of the objective,
    which in standard units is about K; but for large N, where that is no digit of a coefficient, at most a hundredth of
    a standard error, and for small N, where it is no digit that statistics has, not much less; of both less in step
    with a rel_tol that asks for more.
    """
    if problem.restarts_are_free:
        return 1e-20 * problem.n_obs
    least, most = 1e-4 * min(1.0, rel_tol / 1e-6) ** 1.5, 1e-4 * min(1.0, rel_tol / 1e-8) ** 2
    return float(np.clip(1e-2 * problem.n_obs * problem.design.n_equations * rel_tol, least, most))


def final_energy(problem: Posed, options: Options, c: np.ndarray, diagonal: np.ndarray) -> float:
    """r'M^-1 r at which the last conjugate gradients from c (P,) stop, M = diagonal (P,).

    c'M c is the sum of the squared t of all coefficients. Where one is beyond N, of an equation that fits next to
    perfectly, it counts as N, so that it does not make all others stop before they have begun.
    """
    if options.cg_tol is None:
        return inner_energy(problem, options.rel_tol)
    return options.cg_tol**2 * float(np.minimum(c**2 * diagonal, problem.n_obs).sum())


def gls(
    problem: Problem,
    options: Options,
    c: np.ndarray,
    sigma: Sigma,
    S: Any = None,
    *,
    gradient: np.ndarray | None = None,
    fall: float = 0.0,
    is_last: Callable[[float], bool] | None = None,
) -> BetaStep:
    """Coefficients at `sigma` by CG warm-started at c (P,), within the restrictions.

    S : their residual covariance, None where that at the end is not wanted.
    gradient : (P,) at c and `sigma`, if known.

    The inner iteration is stopped by its energy r'M^-1 r: where it has fallen to `fall` of its start, or at the final
    tolerance where `is_last` says of the energy of the start that no other step will follow.
    """
    system = problem.gls_step(c, sigma, S, gradient)
    ridge = problem.coordinates.ridge
    diagonal = problem.coordinates.expand(sigma.precision_diagonal) * (1.0 - ridge) + ridge
    final = final_energy(problem, options, c, diagonal)
    gradient, z = Preconditioner(diagonal, problem.constraint)(system.gradient)
    energy = float(gradient @ z)
    tol = final if is_last is not None and is_last(energy) else max(final, fall * energy)
    found = conjugate_gradients(
        system.product,
        c,
        gradient,
        diagonal,
        tol=tol,
        max_iterations=options.cg_maxit,
        constraint=problem.constraint,
    )
    S = system.finish(found.x, found.steps)
    return BetaStep(found.x, S, len(found.steps), energy, min(tol, found.energy) <= final)
