"""All parameters together, where alternating steps stop short: near a variance of zero each of them gains little."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.optimize

from lrgls_dask.covariance import FactorStructure, LowRank, unflattened
from lrgls_dask.missing.problem import Incomplete, Latent
from lrgls_dask.rounds import as_vector, units_of
from lrgls_dask.sweep import Run

__all__ = ["LARGEST_VARIANCE", "nearly_bare", "polished"]

LARGEST_VARIANCE = 1e6  # in standard units: far beyond any optimum, where a long trial step would overflow
BARE = 1e-2  # of an equation's variance
# Gain in log-likelihood that the slope of an ordinary problem promises, below which there is nothing to do.
WORTH = 1e-9
SEARCHES = 3  # each in coordinates scaled where the one before it ended
GAIN = 1e-8  # in log-likelihood, of a search that another follows


def nearly_bare(sigma: LowRank) -> np.ndarray:
    """(K,) equations of which the factors leave next to nothing: there likelihoods have several optima."""
    return sigma.d < BARE * sigma.variances


def polished(
    run: Run, problem: Incomplete, structure: FactorStructure, c: np.ndarray, sigma: LowRank
) -> tuple[np.ndarray, LowRank, Latent]:
    """Coefficients and Sigma by L-BFGS-B over (c, F, log d), not worse than those given, and the likelihood there.

    For pseudo-rows, where a look at a point is no pass; one look where the slope says that there is nothing to gain.
    """
    seen = problem.latent(c, sigma)
    value = run.penalised(c, sigma, seen.nll)
    stiff = bool(nearly_bare(sigma).any())  # then a slope says little
    for _ in range(SEARCHES):
        search = _Search(run, problem, structure, c, sigma)
        if not stiff and 0.5 * problem.n_obs * float(np.sum(search.slope(c, sigma, seen) ** 2)) < WORTH:
            break
        moved = search.end()
        there = problem.latent(*moved)
        after = run.penalised(*moved, there.nll)
        if after >= value:
            break
        gain, value = problem.n_obs * (value - after), after
        (c, sigma), seen = moved, there
        if gain < GAIN:
            break
    return c, sigma, seen


@dataclass(frozen=True, eq=False)
class _Search:
    """One search from (c, Sigma), in coordinates in which each counts there by about its share of the likelihood.

    Restrictions leave some directions to c only: its coordinates are along those.
    """

    run: Run
    problem: Incomplete
    structure: FactorStructure
    c: np.ndarray
    sigma: LowRank

    @cached_property
    def units(self) -> np.ndarray:
        """(P + K k + K,)."""
        return units_of(self.run, self.problem.cells, self.sigma)

    @cached_property
    def along(self) -> np.ndarray | None:
        """(P, P - m) changes of c that the restrictions allow, None for any."""
        constraint = self.problem.constraint
        return None if constraint is None else constraint.free / float(np.mean(self.units[: len(self.c)]))

    @cached_property
    def n_c(self) -> int:
        return len(self.c) if self.along is None else self.along.shape[1]

    def at(self, z: np.ndarray) -> tuple[np.ndarray, LowRank]:
        P = len(self.c)
        change = z[: self.n_c] / self.units[:P] if self.along is None else self.along @ z[: self.n_c]
        return self.c + change, unflattened(z[self.n_c :] / self.units[P:], self.sigma.rank, self.run.floor())

    def slope(self, c: np.ndarray, sigma: LowRank, seen: Latent) -> np.ndarray:
        """Derivatives of the objective per row."""
        P = len(self.c)
        by_c = (self.problem.coordinates.ridge * c - seen.score) / self.problem.n_obs
        by_c = by_c / self.units[:P] if self.along is None else self.along.T @ by_c
        by_F, by_log_d = seen.gradient(sigma)
        by_F = (by_F + self.structure.lam_F * sigma.F) * self.structure.loadings(len(sigma.d)).free
        return np.concatenate([by_c, np.concatenate([by_F.ravel(), by_log_d]) / self.units[P:]])

    def value(self, z: np.ndarray) -> tuple[float, np.ndarray]:
        c, sigma = self.at(z)
        seen = self.problem.latent(c, sigma)
        return self.run.penalised(c, sigma, seen.nll), self.slope(c, sigma, seen)

    def end(self) -> tuple[np.ndarray, LowRank]:
        """Where it ends."""
        start = np.concatenate([np.zeros(self.n_c), (as_vector(self.c, self.sigma) * self.units)[len(self.c) :]])
        least, most = np.full(len(start), -np.inf), np.full(len(start), np.inf)
        of_d = slice(len(start) - len(self.sigma.d), None)
        least[of_d] = np.log(self.run.floor()) * self.units[of_d.start - len(start) :]
        most[of_d] = np.log(LARGEST_VARIANCE) * self.units[of_d.start - len(start) :]
        solved = scipy.optimize.minimize(
            self.value,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=scipy.optimize.Bounds(least, most),
            options={"maxiter": 2000, "maxfun": 3000, "maxcor": 30, "ftol": 1e-16, "gtol": 1e-12},
        )
        return self.at(solved.x)
