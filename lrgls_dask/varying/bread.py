"""The bread of sandwich covariances where rows have holes and every segment of them a Sigma of its own."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lrgls_dask.inference.gradient_kernels import SigmaRuns
from lrgls_dask.inference.leverage import Leverage
from lrgls_dask.missing.bread import ShownBread
from lrgls_dask.rows.partition import RowRuns
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.solve.constraint import estimator_covariance
from lrgls_dask.varying.shown import ShownSegments

__all__ = ["SegmentedShownBread"]


@dataclass(frozen=True, eq=False)
class SegmentedShownBread(ShownBread):
    """A^-1 of all P coefficients, A = sum_t X_o' (Sigma_t)_oo^-1 X_o + penalty.

    segments : the rows of each run of `sigma`.
    """

    segments: ShownSegments = field(kw_only=True)

    @classmethod
    def of_segments(
        cls, segments: ShownSegments, coefficients: np.ndarray, runs: RowRuns, sigmas: tuple[Sigma, ...]
    ) -> SegmentedShownBread:
        """Coefficients and Sigma_t in the user's units."""
        return cls(segments.whole, coefficients, SigmaRuns(runs, sigmas), segments=segments)

    def classical(self) -> np.ndarray:
        """(P, P) covariance at known Sigma_t, A^-1 (A - penalty) A^-1, in the user's units."""
        problem = self.problem
        covariance = problem.covariance(
            estimator_covariance(self._information(), problem.coordinates.ridge, problem.free)
        )
        # rounding, where a restriction fixes a coefficient
        np.fill_diagonal(covariance, np.maximum(covariance.diagonal(), 0.0))
        return covariance

    def leverage(self, power: float) -> Leverage:
        correction = "HC2" if power < 1 else "HC3"
        raise ValueError(
            f"correction={correction!r} needs leverages, which are those of least squares of each equation, and a "
            "Sigma for each segment weights its rows. Use correction='HC1'."
        )

    def _information(self) -> np.ndarray:
        assert isinstance(self._scaled, SigmaRuns)
        return self.segments.information(self._scaled.sigmas)
