"""Regressors in standard units, orthonormal within each design, with the ridge penalty as part of the coordinates.

A design's constant is never penalised. Beside it a column stands for its variation alone: its unit is its standard
deviation and b~ = b sd(x) / s, so that neither the level of a regressor nor that of a response changes anything but the
intercept. Without a constant the unit is the root mean square. A second constant, and a column of zeros, are columns
like any other: the penalty decides what the data leave open.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lrgls_dask.design.batches import Batches

__all__ = ["Columns", "Ridged", "orthonormal", "orthonormal_by_group"]

AT_ONCE = 16 * 2**20  # bytes of the columns of designs that are taken together


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
    q, half, ridge = _side_by_side(x[None], n_obs, penalties[None])
    return q[0], half[0], ridge[0]


def orthonormal_by_group(
    x: np.ndarray,
    batches: Batches,
    n_obs: int,
    penalties: np.ndarray,
    shifted: tuple[np.ndarray, np.ndarray] | None = None,
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """The number of every design group and what `orthonormal` makes of its columns; designs of equal shape together.

    x : (r, q) all columns.  penalties : (q,).  shifted : another first row (q,), and the equations (K,) that have it.
    """
    for batch in batches.each:
        step = max(1, AT_ONCE // (8 * len(x) * batch.columns.shape[1]))
        for begin in range(0, len(batch.columns), step):
            columns = batch.columns[begin : begin + step]
            of_designs = x[:, columns].transpose(1, 0, 2)
            if shifted is not None:
                moved = shifted[1][batch.equations[begin : begin + step, 0]]
                of_designs[moved, 0] = shifted[0][columns[moved]]
            made = _side_by_side(of_designs, n_obs, penalties[columns])
            yield from zip(batch.members[begin : begin + step], *made, strict=True)


def _side_by_side(x: np.ndarray, n_obs: int, penalties: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`orthonormal` of designs x (G, r, p) with penalties (G, p)."""
    columns = Columns.of(x, np.full((len(x), 1), n_obs), penalties)
    if penalties.any():
        made = columns.ridged()
        q, root, turn, ridge = made.q, made.root, made.turn, made.ridge
    else:
        q, root = np.linalg.qr(columns.in_order)
        turn, ridge = np.broadcast_to(np.eye(x.shape[2]), root.shape), np.zeros(penalties.shape)
    half = np.empty(root.shape)
    # LU of a triangular matrix that is upper is that matrix: back substitution, all designs in one call
    np.put_along_axis(half, columns.order[:, :, None], np.linalg.solve(root, turn), axis=1)
    return q, half / columns.scale[:, :, None], ridge
