"""Rounds of a map that lowers the objective, a look at the rows each, accelerated: the loop of every EM algorithm here.

A look at a point (c, Sigma) gives its likelihood and the moments that lead on to the next one. Anderson acceleration of
that map saves most of the rounds; at the end the coefficients are refined by conjugate gradients.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import numpy as np

from lrgls_dask.sigma.em import Anderson, flattened, unflattened
from lrgls_dask.sigma.interface import FactorStructure, Sigma
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.solve.record import Keep, Point, Solution, Termination
from lrgls_dask.solve.sweep import Run

__all__ = ["ROUNDING", "Rounds", "as_vector", "fit_by_rounds", "units_of", "units_of_sigma"]

ROUND_SHARE = 0.01  # of rel_tol, which is meant for a sweep
ROUNDING = 4e-15  # of the objective, which sums as many terms as there are slabs: less is no gain
ROUNDS_PER_SWEEP = 10
PLAIN_ROUNDS_PER_SWEEP = 200  # without acceleration

Seen = TypeVar("Seen")


class Rounds(Protocol[Seen]):
    """What a problem answers; Seen is what a look at a point finds there besides its likelihood.

    Inside the loop all factors stand side by side, the zeros of the structure among their loadings.
    cells : (K,) rows that show each equation.
    """

    @property
    def structure(self) -> FactorStructure: ...

    @property
    def cells(self) -> np.ndarray: ...

    def look(self, c: np.ndarray, sigma: LowRank) -> tuple[float, Seen]:
        """nll per row at a point, and what leads on from there; one pass where rows are streamed."""
        ...

    def image(self, c: np.ndarray, sigma: LowRank, seen: Seen) -> tuple[np.ndarray, LowRank]:
        """The next point, whose objective is not above that of this one."""
        ...

    def refined(self, c: np.ndarray, sigma: LowRank, seen: Seen) -> tuple[np.ndarray, int]:
        """The coefficients of a Sigma by conjugate gradients from c, and how many iterations that took."""
        ...


def fit_by_rounds(
    run: Run, rounds: Rounds[Seen], c: np.ndarray, sigma: LowRank, *, done: int = 0, keep: Keep | None = None
) -> Solution:
    """The solution from coefficients c (P,) and a Sigma.

    Ends when two rounds in turn lower the objective by less than a hundredth of rel_tol of it (EM has plateaus that a
    whole sweep has not), MAX_SWEEPS after ten rounds for each sweep, two hundred where not accelerated.
    With accelerate=False it is the plain iteration, whose objective falls every round.
    done : rounds that led to the start, of all that may be made.
    keep : called with every point a killed client could go on from.
    """
    options, floor, units = run.options, run.floor(), units_of(run, rounds.cells, sigma)
    state, best_obj, small, ended = Anderson(), np.inf, 0, Termination.MAX_SWEEPS
    most = (ROUNDS_PER_SWEEP if options.accelerate else PLAIN_ROUNDS_PER_SWEEP) * options.max_sweeps
    for round_ in range(done, max(most, done + 1)):
        nll, seen = rounds.look(c, sigma)
        obj = run.penalised(c, sigma, nll)
        gain = best_obj - obj
        run.note(round_, "em", nll, obj, 1.0 if gain > 0 else 0.0)
        if gain > 0 or round_ == done:
            best, best_obj = (c, sigma, nll, seen), obj
            if keep is not None:
                keep(round_, _point(c, sigma))
        flat = max(ROUND_SHARE * options.rel_tol, ROUNDING) * max(1.0, abs(obj))
        small = small + 1 if abs(gain) <= flat else 0
        if small == 2:
            ended = Termination.CONVERGED
            break
        image = rounds.image(c, sigma, seen)
        if not options.accelerate:
            c, sigma = image
            continue
        ahead, state = state.advanced(as_vector(c, sigma) * units, as_vector(*image) * units, obj)
        ahead = ahead / units
        c, sigma = ahead[: len(c)], unflattened(ahead[len(c) :], sigma.rank, floor)
    c, sigma, nll, seen = best
    c, iterations = rounds.refined(c, sigma, seen)
    if iterations:
        nll, _ = rounds.look(c, sigma)
    obj = run.penalised(c, sigma, nll)
    run.note(round_ + 1, "beta", nll, obj, cg=iterations)
    return run.ended(_point(c, rounds.structure.value(sigma)), nll, obj, ended)


def _point(c: np.ndarray, sigma: Sigma) -> Point:
    return Point(c, np.zeros((0, 0)), sigma)


def as_vector(c: np.ndarray, sigma: LowRank) -> np.ndarray:
    """(c, F, log d) as one vector, (P + K k + K,)."""
    return np.concatenate([c, flattened(sigma)])


def units_of(run: Run, cells: np.ndarray, sigma: LowRank) -> np.ndarray:
    """What makes a change of each coordinate count by about its share of the log-likelihood per row."""
    problem = run.problem
    coefficients = 1.0 / np.sqrt(problem.n_obs * problem.coordinates.expand(sigma.d))
    return np.concatenate([coefficients, units_of_sigma(problem.n_obs, cells, sigma)])


def units_of_sigma(n_obs: int, cells: np.ndarray, sigma: LowRank) -> np.ndarray:
    """(K k + K,) the same of (F, log d)."""
    share = np.sqrt(cells / n_obs)
    return np.concatenate([np.repeat(share / np.sqrt(sigma.d), sigma.rank), share * np.sqrt(0.5)])
