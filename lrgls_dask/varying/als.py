"""Factors that drift: one Sigma_t for every segment of rows from its neighbours in time, coefficients common to all.

With S_s(b) the residual covariance of segment s, n_s its rows, and weights that fall with distance in time,

    S_t(h; b) = sum_s w_h(|t - s|) n_s S_s(b) / sum_s w_h(|t - s|) n_s,      Sigma_t = argmin nll(. ; S_t(h; b)),
    b = argmin sum_t n_t nll(Sigma_t; S_t(b)) :    sum_t X_t' (Sigma_t^-1 o) X_t b = sum_t X_t' (Sigma_t^-1 o) y_t,

and the two alternate until neither moves, as a step of the loop. Bandwidth 0 fits segments apart, infinity gives the
static fit; for both the second objective is what both half-steps lower. In between a Sigma step lowers the local
likelihood sum_t (n_t / N) nll(Sigma_t; S_t(h; b)), which is what is monitored, and the coefficients are those of
generalised least squares, efficient if the Sigma_t are right; the loop ends at a point where both conditions hold.
Of rows with holes each likelihood is that of what they show (shown.py).
Source: Tibshirani & Hastie (1987) for local likelihood; Su & Wang (2017) for locally estimated factor loadings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lrgls_dask.rows.meter import Meter
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.solve.iterate import MOST_SWEEPS, Goal, Half, Space, State, Trace
from lrgls_dask.varying.windows import ResidualCovariances, Residuals, Segments, Window

__all__ = ["LocalPoint", "LocalSweeps"]

# The energy r'M^-1 r, a squared distance in standard errors, below which a sweep no longer moves the coefficients.
SETTLED_ENERGY = 1e-14
# Rounding moves them by no more than this.
NEARLY_SETTLED = 1e-10
NOTHING = ResidualCovariances(np.empty((0, 0, 0)), np.empty(0))  # which takes no memory


@dataclass(frozen=True, eq=False)
class LocalPoint:
    """Coefficients c (P,), the residuals they leave in the segments, and a Sigma of each, none at the start."""

    c: np.ndarray
    residuals: Residuals
    sigmas: tuple[LowRank, ...] = ()


@dataclass(frozen=True, eq=False)
class LocalSweeps:
    """A sweep is a Sigma step for every segment and one GLS step across them.

    weights : (T, T) of the segments for one another.  floor : (K,) of every d_t.
    """

    problem: Segments
    weights: np.ndarray
    rank: int
    floor: np.ndarray
    rel_tol: float
    max_sweeps: int | None
    meter: Meter

    first: ClassVar[int] = 1

    @property
    def space(self) -> Space[LocalPoint] | None:
        """Not extrapolated: Sigma_t, which may have several optima, are no smooth function of the coefficients."""
        return None

    def goal(self) -> Goal:
        most = MOST_SWEEPS if self.max_sweeps is None else self.max_sweeps
        return Goal(most, self.rel_tol, SETTLED_ENERGY, nearly=NEARLY_SETTLED)

    def trace(self) -> Trace:
        """Of the local likelihood, in standard units."""
        return Trace(self.rank, 0.0, self.meter)

    def point(self, c: np.ndarray, sigmas: tuple[LowRank, ...] = ()) -> LocalPoint:
        """Coefficients with the residuals they leave."""
        return LocalPoint(c, self.problem.residuals(c), sigmas)

    # ------------------------------------------------------------------------------------------ the half-steps

    def start(self, point: LocalPoint) -> Half[LocalPoint]:
        """There is no Sigma yet to write an objective down with."""
        return Half(LocalPoint(point.c, NOTHING))

    def look(self, state: State[LocalPoint]) -> Half[LocalPoint]:
        """Sigma_t of every segment, none worse than the one it had.

        The first time each is the better of two: from the segment before it, and from its own start; the very first is
        the best of many. Segments with the same weights share one Sigma.
        """
        point, found = state.point, dict[bytes, LowRank]()
        sigmas: list[LowRank] = []
        local = 0.0
        for t, row in enumerate(self.weights):
            window, key = point.residuals.window(row), row.tobytes()
            if key not in found:
                found[key] = self._sigma(window, point.sigmas[t : t + 1], sigmas[-1:])
            sigmas.append(found[key])
            local += float(self.problem.shares[t]) * window.nll(found[key])
        moved = LocalPoint(point.c, point.residuals, tuple(sigmas))
        return Half(moved, "sigma", local, local, left=state.obj - local, moving=state.energy)

    def _sigma(self, window: Window, before: Sequence[LowRank], neighbour: Sequence[LowRank]) -> LowRank:
        rank, floor = self.rank, self.floor
        if before:
            return window.from_start(rank, floor, before[0])
        if not neighbour:
            return window.likeliest(rank, floor)
        return min((window.from_start(rank, floor, start) for start in (neighbour[0], None)), key=window.nll)

    def move(self, looked: Half[LocalPoint], state: State[LocalPoint]) -> Half[LocalPoint]:
        """Coefficients of the Sigma_t, to the last digit once the likelihood has no more to say."""
        return self._gls(looked, last=self.goal().flat(looked))

    def finish(self, looked: Half[LocalPoint], state: State[LocalPoint]) -> Half[LocalPoint]:
        return self._gls(looked, last=True)

    def _gls(self, looked: Half[LocalPoint], *, last: bool) -> Half[LocalPoint]:
        sigmas = looked.point.sigmas
        found, energy = self.problem.gls(looked.point.c, sigmas, last=last)
        point = self.point(found.x, sigmas)
        local = self._local(point)
        return Half(point, "beta", local, local, energy=energy, cg=len(found.steps))

    def _local(self, point: LocalPoint) -> float:
        """sum_t (n_t / N) nll(Sigma_t; S_t(h; b))."""
        windows = map(point.residuals.window, self.weights)
        of_segments = [window.nll(sigma) for window, sigma in zip(windows, point.sigmas, strict=True)]
        return float(self.problem.shares @ of_segments)
