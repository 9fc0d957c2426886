"""Standard units and, within each equation, orthonormal regressors: the coordinates in which the loop works.

Y is divided by its equation's OLS residual standard deviation, each column of X by its root mean square, and each
equation's columns are replaced by the Q of [X_j ; sqrt(lam_B) I] = Q R. Products with X then lose no digits to
collinearity, the diagonal blocks of the normal equations are multiples of the identity, and the ridge penalty is the
lower part of Q.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from lrgls_dask.design import Design, DesignGroup

__all__ = ["GroupRows", "Whitened", "WhitenedGroup", "whiten"]


@dataclass(frozen=True, eq=False)
class GroupRows:
    """All that one design's equations know of the data, in the user's units.

    x : (r, p), first row sqrt(W) * mean, the rest a root of the centred X'X.  y : (r, m) in the same basis.
    beyond : (m,) sum of squares of Y outside those rows.
    """

    group: DesignGroup
    x: np.ndarray
    y: np.ndarray
    beyond: np.ndarray


@dataclass(frozen=True, eq=False)
class WhitenedGroup:
    """One design in whitened coordinates c, with b = (1 / x_scale) * P R^-1 U c in units of scaled Y.

    order : (p,) permutation P, constants first.  root : (p, p) R.  turn : (p, p) rotation U, None without ridge.
    ridge : (p,) the ridge penalty is sum ridge * c^2.  q : (r, p) the rows of X in these coordinates.
    """

    group: DesignGroup
    x_scale: np.ndarray
    order: np.ndarray
    root: np.ndarray
    turn: np.ndarray | None
    ridge: np.ndarray
    q: np.ndarray

    def coefficients(self, c: np.ndarray) -> np.ndarray:
        """(p, m) coefficients of the columns as stored, for Y in standard units."""
        solved = solve_triangular(self.root, c if self.turn is None else self.turn @ c)
        b = np.empty_like(solved)
        b[self.order] = solved
        return b / self.x_scale[:, None]

    def coordinates(self, b: np.ndarray) -> np.ndarray:
        """(p, m) c of coefficients b for Y in standard units: the inverse of `coefficients`."""
        c = self.root @ (b * self.x_scale[:, None])[self.order]
        return c if self.turn is None else self.turn.T @ c

    def adjoint(self, score: np.ndarray) -> np.ndarray:
        """(p, m) derivative with respect to c of a function whose derivative with respect to b is `score`."""
        solved = solve_triangular(self.root, (score / self.x_scale[:, None])[self.order], trans="T")
        return solved if self.turn is None else self.turn.T @ solved


@dataclass(frozen=True, eq=False)
class Whitened:
    """All equations in standard units. y_scale : (K,).  start : per group (p, m), each equation fitted by itself.

    exact : (K,) true where an equation's residuals vanish, so that its response sets its unit.
    """

    groups: tuple[WhitenedGroup, ...]
    y_scale: np.ndarray
    start: tuple[np.ndarray, ...]
    exact: np.ndarray

    def coefficients(self, by_group: tuple[np.ndarray, ...]) -> np.ndarray:
        """(P,) coefficients in the user's units, equation by equation, from c (p, m) per group."""
        b = np.empty(sum(c.size for c in by_group))
        for group, c in zip(self.groups, by_group, strict=True):
            b[group.group.coefficients] = group.coefficients(c) * self.y_scale[group.group.equations]
        return b

    def coordinates(self, coefficients: np.ndarray) -> tuple[np.ndarray, ...]:
        """The inverse of `coefficients`."""
        return tuple(
            g.coordinates(coefficients[g.group.coefficients] / self.y_scale[g.group.equations]) for g in self.groups
        )


def whiten(design: Design, rows: tuple[GroupRows, ...], *, n_obs: int, lam_B: float, resolution: float) -> Whitened:
    """Standard units and orthonormal coordinates from each design's rows.

    resolution : the least singular value, of unit columns, that is told from zero.
    Raises ValueError for too few rows, LinAlgError naming the collinear columns of an equation when lam_B is 0.
    """
    y_scale, exact = np.empty(design.n_equations), np.zeros(design.n_equations, dtype=bool)
    groups, starts = [], []
    for part in rows:
        _check_enough_rows(design, part, n_obs)
        x_scale = _root_mean_square(part.x, n_obs)
        x = part.x / x_scale
        projector = _range(x, resolution)
        if lam_B == 0 and projector.shape[1] < x.shape[1]:
            raise _collinear(design, part, x, resolution)
        left = part.y - projector @ (projector.T @ part.y)
        squares = np.sum(left**2, axis=0) + part.beyond
        total = np.sum(part.y**2, axis=0) + part.beyond
        # no more than rounding leaves of an exact fit
        vanishing = squares <= resolution**2 * (total - part.y[0] ** 2) + 1e-28 * total
        scale = np.sqrt(np.where(vanishing, np.where(total > 0, total, n_obs), squares) / n_obs)
        y_scale[part.group.equations], exact[part.group.equations] = scale, vanishing
        group = _whiten_group(part.group, x, x_scale, lam_B)
        groups.append(group)
        starts.append(group.q.T @ (part.y / scale))
    return Whitened(tuple(groups), y_scale, tuple(starts), exact)


def _check_enough_rows(design: Design, part: GroupRows, n_obs: int) -> None:
    if n_obs <= part.x.shape[1]:
        raise ValueError(
            f"equation {design.equations[int(part.group.equations[0])]!r} has {part.x.shape[1]} regressors but only "
            f"{n_obs} rows have a positive weight. Use more rows than regressors."
        )


def _root_mean_square(x: np.ndarray, n_obs: int) -> np.ndarray:
    scale = np.sqrt(np.sum(x**2, axis=0) / n_obs)
    return np.where(scale > 0, scale, 1.0)


def _centred_first(x: np.ndarray) -> np.ndarray:
    """Columns by how little of them is variation, constants first: then R keeps the digits of small variation."""
    variation = np.linalg.norm(x[1:], axis=0)
    return np.argsort(np.where(variation > 0, 1, 0), kind="stable")


def _whiten_group(group: DesignGroup, x: np.ndarray, x_scale: np.ndarray, lam_B: float) -> WhitenedGroup:
    order = _centred_first(x)
    p = x.shape[1]
    if lam_B == 0:
        q, root = np.linalg.qr(x[:, order])
        return WhitenedGroup(group, x_scale, order, root, None, np.zeros(p), q)
    q, root = np.linalg.qr(np.vstack([x[:, order], np.sqrt(lam_B) * np.eye(p)]))
    below = q[len(x) :]
    ridge, turn = np.linalg.eigh(below.T @ below)
    return WhitenedGroup(group, x_scale, order, root, turn, np.clip(ridge, 0.0, 1.0), q[: len(x)] @ turn)


# ---------------------------------------------------------------------------------------------- collinearity


def _unit_columns(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns to test for collinearity: beside a constant only their variation counts; all of length 1 or 0."""
    variation = np.linalg.norm(x[1:], axis=0)
    constant = np.flatnonzero((variation == 0) & (x[0] != 0))
    tested = x.copy()
    if len(constant):
        tested[0, variation > 0] = 0.0
    norms = np.linalg.norm(tested, axis=0)
    return tested / np.where(norms > 0, norms, 1.0), constant


def _range(x: np.ndarray, resolution: float) -> np.ndarray:
    """(r, rank) orthonormal basis of the columns."""
    tested, _ = _unit_columns(x)
    u, s, _ = np.linalg.svd(tested, full_matrices=False)
    rank = int(np.sum(s > resolution))
    if rank == x.shape[1]:
        q: np.ndarray = np.linalg.qr(x[:, _centred_first(x)])[0]
        return q
    basis: np.ndarray = u[:, :rank]
    return basis


def _collinear(design: Design, part: GroupRows, x: np.ndarray, resolution: float) -> np.linalg.LinAlgError:
    tested, constant = _unit_columns(x)
    _, s, vt = np.linalg.svd(tested, full_matrices=True)
    s = np.concatenate([s, np.zeros(x.shape[1] - len(s))])
    null = vt[s <= resolution]
    involved = np.abs(null).max(axis=0) > 1e-6
    if len(constant):  # varying columns that add up to a constant involve the constant too
        norms = np.linalg.norm(x[1:], axis=0)
        weights = np.where(norms > 0, null / np.where(norms > 0, norms, 1.0), 0.0)
        if np.any(np.abs(weights @ x[0]) > 1e-6 * np.abs(weights) @ np.abs(x[0])):
            involved[constant[0]] = True
    j = int(part.group.equations[0])
    names = [repr(term) for term, yes in zip(design.terms[j], involved, strict=True) if yes]
    listed = ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else names[0]
    what = f"columns {listed} are collinear" if len(names) > 1 else f"column {listed} is zero in every row"
    also = f" (and {len(part.group.equations) - 1} more with the same columns)" if len(part.group.equations) > 1 else ""
    return np.linalg.LinAlgError(
        f"equation {design.equations[j]!r}{also}: {what} (rank {x.shape[1] - len(null)} of {x.shape[1]}). "
        "Drop one, or set lam_B > 0."
    )
