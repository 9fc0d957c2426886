"""Linear restrictions on the coefficients, R b = r."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Restrictions"]


@dataclass(frozen=True, eq=False)
class Restrictions:
    """m linear equations in the P coefficients, equation by equation, in the user's units.

    matrix : (m, P) R, of full row rank.  values : (m,) r.  texts : how each was written, for messages and tables.
    """

    matrix: np.ndarray
    values: np.ndarray
    texts: tuple[str, ...]

    @property
    def n_restrictions(self) -> int:
        """m."""
        return len(self.values)
