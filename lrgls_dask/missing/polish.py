"""Searches by L-BFGS-B over (F, log d), and over all parameters together where alternating steps stop short.

Near a variance of zero each of those gains little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.optimize

from lrgls_dask.missing.problem import Incomplete, Latent
from lrgls_dask.sigma.em import LARGEST_VARIANCE, unflattened
from lrgls_dask.sigma.interface import FactorStructure
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.solve.em import as_vector, units_of
from lrgls_dask.solve.record import Options, penalised

__all__ = ["minimised", "nearly_bare", "polished", "slope_of_sigma"]

BARE = 1e-2  # of an equation's variance
# Gain in log-likelihood that the slope of an ordinary problem promises, below which there is nothing to do.
WORTH = 1e-9
SEARCHES = 3  # each in coordinates scaled where the one before it ended
GAIN = 1e-8  # in log-likelihood, of a search that another follows


def nearly_bare(sigma: LowRank) -> np.ndarray:
    """(K,) equations of which the factors leave next to nothing: there likelihoods have several optima."""
    return sigma.d < BARE * sigma.variances


def minimised(
    value: Callable[[np.ndarray], tuple[float, np.ndarray]],
    start: np.ndarray,
    units: np.ndarray,
    floor: np.ndarray,
    **limits: float,
) -> np.ndarray:
    """Where L-BFGS-B ends from `start`, of which the last K coordinates are log d by units (K,), between its bounds.

    value : the objective and its slope.  floor : (K,) of d.  limits : options of SciPy's L-BFGS-B.
    """
    anywhere = np.full(len(start) - len(floor), np.inf)
    least = np.concatenate([-anywhere, np.log(floor) * units])
    most = np.concatenate([anywhere, np.log(LARGEST_VARIANCE) * units])
    bounds = scipy.optimize.Bounds(least, most)
    options = {"gtol": 1e-12, **limits}
    solved = scipy.optimize.minimize(value, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return np.asarray(solved.x)


def slope_of_sigma(seen: Latent, sigma: LowRank, free: np.ndarray, lam_F: float) -> np.ndarray:
    """(K k + K,) derivatives of the objective per row by (F, log d).  free : (K, k) loadings that may move."""
    by_F, by_log_d = seen.gradient_by_sigma(sigma)
    return np.concatenate([((by_F + lam_F * sigma.F) * free).ravel(), by_log_d])


def polished(
    problem: Incomplete, structure: FactorStructure, options: Options, c: np.ndarray, sigma: LowRank
) -> tuple[np.ndarray, LowRank, Latent]:
    """Coefficients and Sigma by L-BFGS-B over (c, F, log d), not worse than those given, and the likelihood there.

    For pseudo-rows, where a look at a point is no pass; one look where the slope says that there is nothing to gain.
    """
    seen = problem.latent(c, sigma)
    value = penalised(problem, structure, c, sigma, seen.nll)
    stiff = bool(nearly_bare(sigma).any())  # then a slope says little
    for _ in range(SEARCHES):
        search = _Search(problem, structure, options, c, sigma)
        if not stiff and 0.5 * problem.n_obs * float(np.sum(search.slope(c, sigma, seen) ** 2)) < WORTH:
            break
        moved = search.end()
        there = problem.latent(*moved)
        after = penalised(problem, structure, *moved, there.nll)
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

    problem: Incomplete
    structure: FactorStructure
    options: Options
    c: np.ndarray
    sigma: LowRank

    @cached_property
    def units(self) -> np.ndarray:
        """(P + K k + K,)."""
        return units_of(self.problem, self.sigma)

    @cached_property
    def floor(self) -> np.ndarray:
        """(K,) of d."""
        return np.full(self.problem.design.n_equations, self.options.d_floor)

    @cached_property
    def along(self) -> np.ndarray | None:
        """(P, P - m) changes of c that the restrictions allow, None for any."""
        constraint = self.problem.constraint
        return None if constraint is None else constraint.free / float(np.mean(self.units[: len(self.c)]))

    @cached_property
    def free(self) -> np.ndarray:
        """(K, k) loadings that may move."""
        return self.structure.loadings(len(self.sigma.d)).free

    @cached_property
    def n_c(self) -> int:
        return len(self.c) if self.along is None else self.along.shape[1]

    def at(self, z: np.ndarray) -> tuple[np.ndarray, LowRank]:
        P = len(self.c)
        change = z[: self.n_c] / self.units[:P] if self.along is None else self.along @ z[: self.n_c]
        return self.c + change, unflattened(z[self.n_c :] / self.units[P:], self.sigma.rank, self.floor)

    def slope(self, c: np.ndarray, sigma: LowRank, seen: Latent) -> np.ndarray:
        """Derivatives of the objective per row."""
        P = len(self.c)
        by_c = (self.problem.coordinates.ridge * c - seen.gradient) / self.problem.n_obs
        by_c = by_c / self.units[:P] if self.along is None else self.along.T @ by_c
        by_sigma = slope_of_sigma(seen, sigma, self.free, self.structure.lam_F)
        return np.concatenate([by_c, by_sigma / self.units[P:]])

    def value(self, z: np.ndarray) -> tuple[float, np.ndarray]:
        c, sigma = self.at(z)
        seen = self.problem.latent(c, sigma)
        return penalised(self.problem, self.structure, c, sigma, seen.nll), self.slope(c, sigma, seen)

    def end(self) -> tuple[np.ndarray, LowRank]:
        """Where it ends."""
        start = np.concatenate([np.zeros(self.n_c), (as_vector(self.c, self.sigma) * self.units)[len(self.c) :]])
        of_d = self.units[-len(self.floor) :]
        return self.at(minimised(self.value, start, of_d, self.floor, maxiter=2000, maxfun=3000, maxcor=30, ftol=1e-16))
