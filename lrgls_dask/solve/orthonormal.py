"""Regressors in standard units, orthonormal within each design, with the ridge penalty as part of the coordinates.

A design's constant is never penalised. Beside it a column stands for its variation alone: its unit is its standard
deviation and b~ = b sd(x) / s, so that neither the level of a regressor nor that of a response changes anything but the
intercept. Without a constant the unit is the root mean square. A second constant, and a column of zeros, are columns
like any other: the penalty decides what the data leave open.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

__all__ = ["Columns", "Ridged", "orthonormal"]


@dataclass(frozen=True, eq=False)
class Ridged:
    """Q of [X ; sqrt(penalty) I] = Q R with the penalty made diagonal.

    q : (G, r, p) the rows of X.  root : (G, p, p) R.  turn : (G, p, p) the rotation.  ridge : (G, p) the penalty is
    sum ridge c^2.
    """

    q: np.ndarray
    root: np.ndarray
    turn: np.ndarray
    ridge: np.ndarray


@dataclass(frozen=True, eq=False)
class Columns:
    """The regressors of G designs of one shape in standard units.

    x : (G, r, p) of which the first row is sqrt(W) * mean, the others a root of the centred cross-product.
    scale : (G, p) the units.  order : (G, p) constants first, the design's constant before all.
    has_constant : (G,).  penalties : (G, p) of c~ in these units, 0 for the constant.
    """

    x: np.ndarray
    scale: np.ndarray
    order: np.ndarray
    has_constant: np.ndarray
    penalties: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, n_obs: np.ndarray, penalties: np.ndarray) -> Columns:
        """From x (G, r, p) in the user's units, n_obs (G, 1) and the penalties (G, p) as asked for.

        Of several constants the least penalised is the design's, the first of equals.
        """
        varies = x[:, 1:].any(axis=1)
        constant = ~varies & (x[:, 0] != 0)
        has_constant = constant.any(axis=1)
        first = np.argmin(np.where(constant, penalties, np.inf), axis=1)
        is_first = has_constant[:, None] & (np.arange(x.shape[2]) == first[:, None])
        squares = np.sum(x[:, 1:] ** 2, axis=1)
        squares += np.where(has_constant[:, None] & varies, 0.0, x[:, 0] ** 2)
        scale = np.sqrt(squares / n_obs)
        scale = np.where(scale > 0, scale, 1.0)
        order = np.argsort(np.where(is_first, 0, np.where(varies, 2, 1)), axis=1, kind="stable")
        return cls(x / scale[:, None, :], scale, order, has_constant, np.where(is_first, 0.0, penalties))

    @property
    def in_order(self) -> np.ndarray:
        """(G, r, p) x, constants first: then R keeps the digits of small variation."""
        return np.take_along_axis(self.x, self.order[:, None, :], axis=2)

    def ridged(self) -> Ridged:
        """With the penalties; O(G (r + p) p^2)."""
        _, rows, p = self.x.shape
        weights = np.take_along_axis(self.penalties, self.order, axis=1)
        below = np.sqrt(weights)[:, :, None] * np.eye(p)
        q, root = np.linalg.qr(np.concatenate([self.in_order, below], axis=1))
        inner = q[:, rows:].transpose(0, 2, 1) @ q[:, rows:]
        alone = np.flatnonzero(self.has_constant)
        inner[alone, 0] = inner[alone, :, 0] = 0.0
        inner[alone, 0, 0] = -1.0  # below all others: eigenvectors keep the constant, whose level may be huge, apart
        ridge, turn = np.linalg.eigh(inner)
        return Ridged(q[:, :rows] @ turn, root, turn, np.clip(ridge, 0.0, 1.0))


def orthonormal(x: np.ndarray, n_obs: int, penalties: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Q (r, p), T (p, p) and the ridge (p,) of one design: x = Q T^-1 and Q'Q = I - diag(ridge).

    x : (r, p) in the user's units, the first row sqrt(W) * mean.  penalties : (p,) of b in standard units.
    """
    columns = Columns.of(x[None], np.full((1, 1), n_obs), penalties[None])
    p = x.shape[1]
    half, ridge = np.empty((p, p)), np.zeros(p)
    if penalties.any():
        made = columns.ridged()
        q, ridge = made.q[0], made.ridge[0]
        half[columns.order[0]] = solve_triangular(made.root[0], made.turn[0])
    else:
        q, root = np.linalg.qr(columns.in_order[0])
        half[columns.order[0]] = solve_triangular(root, np.eye(p))
    return q, half / columns.scale[0][:, None], ridge
