"""The inverse of an information matrix that has room once: in place, P x P numbers and no second such array."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotri

__all__ = ["Inverse"]

MIRRORED = 128  # rows copied across the diagonal at a time


@dataclass(frozen=True, eq=False)
class Inverse:
    """A^-1 (P, P), which answers as `by_solving.Information`."""

    values: np.ndarray

    @classmethod
    def of(cls, matrix: np.ndarray) -> Inverse:
        """Of a positive definite matrix (P, P), whose memory it takes; only its upper triangle is looked at.  O(P^3).

        Raises LinAlgError where it is not positive definite.
        """
        turned = matrix.T  # in Fortran's order, where it is the lower triangle
        root, failed = dpotrf(turned, lower=1, clean=0, overwrite_a=1)
        if failed:
            raise np.linalg.LinAlgError("the information matrix of the coefficients is not positive definite")
        found, _ = dpotri(root, lower=1, overwrite_c=1)
        values = np.asarray(found).T
        for begin in range(0, len(values), MIRRORED):
            stop = min(begin + MIRRORED, len(values))
            values[stop:, begin:stop] = values[begin:stop, stop:].T
            corner = values[begin:stop, begin:stop]
            corner[:] = np.triu(corner) + np.triu(corner, 1).T
        return cls(values)

    def solve(self, rhs: np.ndarray, tol: float) -> tuple[np.ndarray, np.ndarray]:
        """See `Information.solve`; to rounding."""
        return self.values @ rhs, np.zeros_like(rhs)

    def columns(self, places: np.ndarray, tol: float) -> tuple[np.ndarray, np.ndarray]:
        """See `Information.columns`; taken as they are."""
        found = self.values[:, places]
        return found, np.zeros_like(found)
