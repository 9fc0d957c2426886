"""Least squares, as a step of the loop: Sigma at the coefficients that every equation has by itself, and no GLS."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lrgls_dask.solve.als import Alternating
from lrgls_dask.solve.iterate import Half, State
from lrgls_dask.solve.record import Point

__all__ = ["LeastSquares"]


@dataclass(frozen=True, eq=False)
class LeastSquares(Alternating):
    """One sweep whose second half-step is none: the start has the coefficients, least squares within restrictions.

    Streamed, the pass for the residual covariance is the only one after the first.
    """

    def finish(self, looked: Half[Point], state: State[Point]) -> Half[Point]:
        return replace(looked, name="")
