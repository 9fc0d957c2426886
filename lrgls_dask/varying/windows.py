"""What the loop over segments asks of the data: residuals at coefficients, and Sigma of a window of segments.

A window is segments weighted for one of them. Complete rows answer by S of the window, rows with holes by what each of
its segments shows (shown.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lrgls_dask.design.design import Design
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.ml import ml_candidates, ml_step
from lrgls_dask.solve.cg import Solution

__all__ = ["ResidualCovariances", "Residuals", "Segments", "Window", "smoothed"]


class Window(Protocol):
    """The residuals of weighted segments; nll per row, in standard units."""

    def nll(self, sigma: LowRank) -> float: ...

    def likeliest(self, rank: int, floor: np.ndarray) -> LowRank:
        """The best Sigma of many starts.  floor : (K,) of d."""
        ...

    def from_start(self, rank: int, floor: np.ndarray, start: LowRank | None) -> LowRank:
        """The Sigma that a start leads to, not worse than it; from a start of its own if None."""
        ...


class Residuals(Protocol):
    """What the residuals of all segments say at one point c."""

    def window(self, weight: np.ndarray) -> Window:
        """weight : (T,) of each segment's rows."""
        ...


class Segments(Protocol):
    """T segments of rows in the whitened coordinates of all of them.

    rows : (T,) those that show something.  cells : (T, K) those that show each equation.  shares : (T,) rows / N.
    free : (K,) coefficients of each equation that restrictions leave free.  exact : (K,) equations without errors.
    resolution : relative size of the smallest singular value that is told from zero.  y_scale : (K,) standard units.
    """

    design: Design
    n_obs: int
    rows: np.ndarray
    cells: np.ndarray
    shares: np.ndarray
    free: np.ndarray
    exact: np.ndarray
    resolution: float
    y_scale: np.ndarray
    nll_offset: float

    def start(self) -> np.ndarray:
        """(P,) every equation fitted by itself on all rows, moved as little as the restrictions allow."""
        ...

    def residuals(self, c: np.ndarray) -> Residuals: ...

    def gls(self, c: np.ndarray, sigmas: Sequence[LowRank], *, last: bool) -> tuple[Solution, float]:
        """The coefficients at the given Sigma_t, within the restrictions, and the energy of the start."""
        ...

    def coefficients(self, c: np.ndarray) -> np.ndarray:
        """(P,) in the user's units, ordered equation by equation."""
        ...

    def own_squares(self, t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(K,) each: squared residuals of every equation fitted to segment t alone, squares of its response about the
        mean there, and the rank of its regressors there; in standard units."""
        ...

    def mean_squares(self) -> np.ndarray:
        """(K,) of the responses over all rows, in standard units."""
        ...


@dataclass(frozen=True, eq=False)
class ResidualCovariances:
    """Complete rows. S : (T, K, K) of the segments.  shares : (T,)."""

    S: np.ndarray
    shares: np.ndarray

    def window(self, weight: np.ndarray) -> CompleteWindow:
        return CompleteWindow(smoothed(self.S, weight * self.shares))


@dataclass(frozen=True, eq=False)
class CompleteWindow:
    """S : (K, K) of its rows."""

    S: np.ndarray

    def nll(self, sigma: LowRank) -> float:
        return sigma.nll(self.S)

    def likeliest(self, rank: int, floor: np.ndarray) -> LowRank:
        return ml_candidates(self.S, rank, floor)[0].sigma

    def from_start(self, rank: int, floor: np.ndarray, start: LowRank | None) -> LowRank:
        return ml_step(self.S, rank, floor, start=start).sigma


def smoothed(S: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """sum_s weight_s S_s / sum_s weight_s, (K, K), over segments of positive weight; S (T, K, K), weight (T,)."""
    near = np.flatnonzero(weight > 0.0)
    window = slice(near[0], near[-1] + 1)  # a view: weights are zero only outside, but for one that is left out
    out: np.ndarray = np.tensordot(weight[window] / weight[window].sum(), S[window], axes=1)
    return out
