"""Leverages of rows, by which residuals are enlarged where small samples matter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Leverage"]

WHOLE = 1.0 - 1e-10  # a leverage above this is 1 but for rounding: the row alone decides its fitted value


@dataclass(frozen=True, eq=False)
class Leverage:
    """h_ij = w_i x_ij' (X_j' W X_j)^-1 x_ij, of row i in equation j.

    parts : for equations (m,) that share it, their columns (p,), what those get back (p,), and a root (p, r) with
    root root' the inverse.  power : residuals are divided by (1 - h)^power, 1/2 for HC2 and 1 for HC3.
    Source: MacKinnon and White (1985).
    """

    parts: tuple[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], ...]
    power: float

    def enlarge(self, residual: np.ndarray, x: np.ndarray, weights: np.ndarray | None, start: int) -> None:
        """Change residual (n, K) of rows from number `start` on, x (n, q) their columns as the kernels take them.

        n p^2 flops for each part.  Raises ValueError for a leverage of 1, where a residual says nothing.
        """
        for equations, columns, shift, root in self.parts:
            h = np.sum(((x[:, columns] + shift) @ root) ** 2, axis=1)
            if weights is not None:
                h *= weights
            whole = (h > WHOLE) & ~np.isnan(residual[:, equations]).all(axis=1)
            if whole.any():
                row = start + int(np.argmax(whole))
                name = "HC2" if self.power < 1 else "HC3"
                raise ValueError(
                    f"correction={name!r} divides by 1 - h, and row {row} has leverage h = 1: a regressor, such as a "
                    "dummy of that row alone, fits it whatever it is. Use correction='HC1', or drop that regressor."
                )
            residual[:, equations] /= ((1.0 - h) ** self.power)[:, None]
