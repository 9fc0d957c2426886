"""Standard units and, within each equation, orthonormal regressors: the coordinates in which the loop works.

Y is divided by its equation's OLS residual standard deviation, each column of X by its unit (orthonormal.py), and each
equation's columns are replaced by the Q of [X_j ; sqrt(lam_B) I] = Q R. Products with X then lose no digits to
collinearity, the diagonal blocks of the normal equations are multiples of the identity, and the ridge penalty is the
lower part of Q.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import solve_triangular

from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.design.design import Design, DesignGroup
from lrgls_dask.design.penalties import Ridge, column_penalties, penalises
from lrgls_dask.design.skipped import listed
from lrgls_dask.errors import CollinearColumns
from lrgls_dask.solve.level import check_constants, level_row
from lrgls_dask.solve.magnitudes import check_ratios, check_sizes
from lrgls_dask.solve.orthonormal import Columns

__all__ = [
    "GroupRows",
    "Whitened",
    "WhitenedBatch",
    "WhitenedGroup",
    "fitted_exactly",
    "group_rows",
    "resolution_of",
    "whiten",
]


QR_RESOLUTION = 1e-12  # singular values of unit columns that the qr route tells from zero
GRAM_RESOLUTION = 3e-7  # and those that a Cholesky factor of the cross-product does


# ---------------------------------------------------------------------------------------------- in memory


def group_rows(system: Compressed) -> tuple[GroupRows, ...]:
    """What each design's equations know of the data, from compressed rows."""
    q = system.design.n_regressors
    top = system.stacked(q)
    beyond = np.sum(system.root[q:, q:] ** 2, axis=0)
    design, levels = system.design, system.head.levels
    return tuple(
        GroupRows(
            g,
            top[:, g.columns],
            top[:, q + g.equations],
            beyond[g.equations],
            level_row(design, g, top[:, g.columns], levels),
        )
        for g in design.groups
    )


def resolution_of(system: Compressed) -> float:
    """The least singular value, of unit columns, that these rows tell from zero."""
    return QR_RESOLUTION if system.route == "qr" else GRAM_RESOLUTION


@dataclass(frozen=True, eq=False)
class GroupRows:
    """All that one design's equations know of the data, in the user's units.

    x : (r, p), first row sqrt(W) * mean, the rest a root of the centred X'X.  y : (r, m) in the same basis.
    beyond : (m,) sum of squares of Y outside those rows.
    level : (r,) what a column of ones is there where cells have weights, see `level_row`; None where the first row is.
    """

    group: DesignGroup
    x: np.ndarray
    y: np.ndarray
    beyond: np.ndarray
    level: np.ndarray | None = None


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

    def adjoint(self, gradient: np.ndarray) -> np.ndarray:
        """(p, m) derivative with respect to c of a function whose derivative with respect to b is `gradient`."""
        solved = solve_triangular(self.root, (gradient / self.x_scale[:, None])[self.order], trans="T")
        return solved if self.turn is None else self.turn.T @ solved


@dataclass(frozen=True, eq=False)
class WhitenedBatch:
    """Designs of one shape at once: what a `WhitenedGroup` has, with an axis of designs before it."""

    x_scale: np.ndarray
    order: np.ndarray
    root: np.ndarray
    turn: np.ndarray | None

    def coefficients(self, c: np.ndarray) -> np.ndarray:
        """(G, p, m) coefficients of the columns as stored, for Y in standard units."""
        # LU of a triangular matrix that is upper is that matrix: back substitution, all designs in one call
        solved = np.linalg.solve(self.root, c if self.turn is None else self.turn @ c)
        b = np.empty_like(solved)
        np.put_along_axis(b, self.order[:, :, None], solved, axis=1)
        return b / self.x_scale[:, :, None]

    def adjoint(self, gradient: np.ndarray) -> np.ndarray:
        """(G, p, m) derivative with respect to c of a function whose derivative with respect to b is `gradient`."""
        taken = np.take_along_axis(gradient / self.x_scale[:, :, None], self.order[:, :, None], axis=1)
        upper = self.root.transpose(0, 2, 1)[:, ::-1, ::-1]  # the last unknown first, so that it is no lower one
        solved = np.linalg.solve(upper, taken[:, ::-1])[:, ::-1]
        return np.asarray(solved if self.turn is None else self.turn.transpose(0, 2, 1) @ solved)


@dataclass(frozen=True, eq=False)
class Whitened:
    """All equations in standard units. y_scale : (K,).  start : per group (p, m), each equation fitted by itself.

    stacks : per bucket of the design (G, r, p), the rows of X of its groups.  batches : the groups of each bucket.
    exact : (K,) true where an equation's residuals vanish, so that its response sets its unit.
    """

    groups: tuple[WhitenedGroup, ...]
    y_scale: np.ndarray
    start: tuple[np.ndarray, ...]
    exact: np.ndarray
    stacks: tuple[np.ndarray, ...]
    batches: tuple[WhitenedBatch, ...]

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

    def in_units(self, y_scale: np.ndarray) -> Whitened:
        """The same with responses in these units (K,)."""
        ratio = self.y_scale / y_scale
        start = tuple(c * ratio[g.group.equations] for c, g in zip(self.start, self.groups, strict=True))
        return replace(self, y_scale=y_scale, start=start)


def whiten(
    design: Design, rows: tuple[GroupRows, ...], *, n_obs: int | np.ndarray, lam_B: Ridge, resolution: float
) -> Whitened:
    """Standard units and orthonormal coordinates from each design's rows, designs of equal shape in one go.

    n_obs : how many rows the design's rows stand for, one number or one for each of the design's groups.
    resolution : the least singular value, of unit columns, that is told from zero.
    Raises ValueError for too few rows, CollinearColumns for equations of which lam_B leaves such columns free.
    """
    y_scale, exact = np.empty(design.n_equations), np.zeros(design.n_equations, dtype=bool)
    collinear: list[CollinearColumns] = []
    groups: dict[int, WhitenedGroup] = {}
    starts: dict[int, np.ndarray] = {}
    stacks, batches = [], []
    penalties, ridged = column_penalties(design, lam_B), penalises(lam_B)
    if ridged:
        check_constants(part.level for part in rows)
    n_rows = np.broadcast_to(np.asarray(n_obs), (len(rows),))
    for members in design.buckets:
        parts = [rows[i] for i in members]
        counts = n_rows[list(members)][:, None]
        _check_enough_rows(design, parts[0], int(counts[0, 0]))
        x, y = np.stack([part.x for part in parts]), np.stack([part.y for part in parts])
        beyond = np.stack([part.beyond for part in parts])
        check_sizes(design, parts, x, np.concatenate([y, np.sqrt(beyond)[:, None, :]], axis=1), counts)
        columns = Columns.of(x, counts, np.stack([penalties[part.group.columns] for part in parts]))
        x, order = columns.x, columns.order
        q, root = np.linalg.qr(columns.in_order)
        rounding = np.stack([design.rounding[part.group.columns] for part in parts])
        told = Told(resolution, rounding, of_shown=np.ndim(n_obs) > 0)
        singular = told.singular(x, _singular_values(x, root, order).min(axis=1))
        left = y - q @ (q.transpose(0, 2, 1) @ y)
        for g in np.flatnonzero(singular).tolist():
            found = _undetermined(design, parts[g], x[g], columns.penalties[g] == 0, told, g)
            collinear += [] if found is None else [found]
            basis = told.range(x[g], g)
            left[g] = y[g] - basis @ (basis.T @ y[g])
        if collinear:  # only to find all that are
            continue
        squares, total = np.sum(left**2, axis=1) + beyond, np.sum(y**2, axis=1) + beyond
        about_mean = total - y[:, 0] ** 2
        vanishing = _vanishing(squares, about_mean, total, resolution)
        varied = columns.has_constant[:, None] & (about_mean > 1e-28 * total)
        size = np.where(varied, about_mean, np.where(total > 0, total, counts))
        scale = np.sqrt(np.where(vanishing, size, squares) / counts)
        check_ratios(design, parts, x * columns.scale[:, None, :] / np.sqrt(counts)[:, :, None], scale)
        ridge, turn = np.zeros(order.shape), None
        if ridged:
            made = columns.ridged()
            q, root, ridge, turn = made.q, made.root, made.ridge, made.turn
        own = q.transpose(0, 2, 1) @ (y / scale[:, None, :])
        stacks.append(q)
        batches.append(WhitenedBatch(columns.scale, order, root, turn))
        for g, i in enumerate(members):
            equations = parts[g].group.equations
            y_scale[equations], exact[equations], starts[i] = scale[g], vanishing[g], own[g]
            rotation = None if turn is None else turn[g]
            groups[i] = WhitenedGroup(parts[g].group, columns.scale[g], order[g], root[g], rotation, ridge[g], q[g])
    if collinear:
        raise CollinearColumns(collinear[0].text, {j: said for each in collinear for j, said in each.which.items()})
    in_order = range(len(rows))
    by_group, start = tuple(groups[i] for i in in_order), tuple(starts[i] for i in in_order)
    return Whitened(by_group, y_scale, start, exact, tuple(stacks), tuple(batches))


def fitted_exactly(system: Compressed) -> np.ndarray:
    """(K,) `Whitened.exact`, of columns that may be collinear; no units, no ridge.  Costs O(r p^2) a design."""
    design, resolution = system.design, resolution_of(system)
    exact = np.zeros(design.n_equations, dtype=bool)
    for part in group_rows(system):
        basis = Told(resolution, design.rounding[part.group.columns][None]).range(part.x, 0)
        left = part.y - basis @ (basis.T @ part.y)
        squares, total = np.sum(left**2, axis=0) + part.beyond, np.sum(part.y**2, axis=0) + part.beyond
        exact[part.group.equations] = _vanishing(squares, total - part.y[0] ** 2, total, resolution)
    return exact


def _vanishing(squares: np.ndarray, about_mean: np.ndarray, total: np.ndarray, resolution: float) -> np.ndarray:
    """Whether squared residuals are no more than rounding leaves of an exact fit."""
    found: np.ndarray = squares <= resolution**2 * about_mean + 1e-28 * total
    return found


def _check_enough_rows(design: Design, part: GroupRows, n_obs: int) -> None:
    if n_obs <= part.x.shape[1]:
        raise ValueError(
            f"equation {design.equations[int(part.group.equations[0])]!r} has {part.x.shape[1]} regressors but only "
            f"{n_obs} rows have a positive weight. Use more rows than regressors."
        )


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


def _singular_values(x: np.ndarray, root: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(G, p) singular values of `_unit_columns` of each x, from the R of its columns in that order.

    A constant taken first leaves the mean of every other column in the first row of R.
    """
    varies = np.take_along_axis(x[:, 1:].any(axis=1), order, axis=1)
    beside_constant = (~varies & (np.abs(root).max(axis=1) > 0)).any(axis=1)
    tested = root.copy()
    tested[:, 0] = np.where(beside_constant[:, None] & varies, 0.0, tested[:, 0])
    norms = np.linalg.norm(tested, axis=1)
    values: np.ndarray = np.linalg.svd(tested / np.where(norms > 0, norms, 1.0)[:, None, :], compute_uv=False)
    return values


@dataclass(frozen=True, eq=False)
class Told:
    """What is told from collinear: singular values of unit columns above the resolution of the arithmetic and above
    what the columns' own storage leaves of a combination that is zero.

    rounding : (G, p) relative rounding of the stored values of each design's columns.  of_shown : whether each design
    has rows of its own, those that show its equation.
    """

    resolution: float
    rounding: np.ndarray
    of_shown: bool = False

    def singular(self, x: np.ndarray, least: np.ndarray) -> np.ndarray:
        """(G,) whether the columns of each x (G, r, p) are collinear; least : (G,) singular values of unit columns."""
        found: np.ndarray = least <= self.resolution
        variation = np.linalg.norm(x[:, 1:], axis=1)
        blurred = self._relative(np.linalg.norm(x, axis=1) / np.where(variation > 0, variation, np.inf), slice(None))
        for g in np.flatnonzero(~found & (least <= np.linalg.norm(blurred, axis=1))).tolist():
            found[g] = len(self.null(x[g], g)[0]) > 0
        return found

    def null(self, x: np.ndarray, g: int) -> tuple[np.ndarray, bool]:
        """(m, p) combinations of unit columns of design g that vanish, and whether only for their storage."""
        _, s, vt = np.linalg.svd(_unit_columns(x)[0], full_matrices=True)
        s = np.concatenate([s, np.zeros(x.shape[1] - len(s))])
        vanishes = s <= np.maximum(self.resolution, self._blur(x, vt, g))
        return vt[vanishes], bool(np.any(s[vanishes] > self.resolution))

    def range(self, x: np.ndarray, g: int) -> np.ndarray:
        """(r, rank) orthonormal basis of the columns of design g."""
        u, s, vt = np.linalg.svd(_unit_columns(x)[0], full_matrices=False)
        basis: np.ndarray = u[:, s > np.maximum(self.resolution, self._blur(x, vt, g))]
        return basis

    def _blur(self, x: np.ndarray, combinations: np.ndarray, g: int) -> np.ndarray:
        """(m,) what the rounding of stored values leaves of combinations (m, p) of unit columns that vanish."""
        constant = ~x[1:].any(axis=0) & (x[0] != 0)
        tested = x[1:] if constant.any() else x
        sizes = np.linalg.norm(tested, axis=0)
        grown = np.linalg.norm(x, axis=0) / np.where(sizes > 0, sizes, 1.0)
        blur = np.where(constant | (sizes == 0), 0.0, self._relative(grown, g))
        out: np.ndarray = np.linalg.norm(combinations * blur, axis=1)
        return out

    def _relative(self, grown: np.ndarray, g: int | slice) -> np.ndarray:
        """Rounding of columns as a part of their variation, in which rounding of values has `grown`.

        Nor is a column of few digits told apart better than sums of squares do, whoever sums them.
        """
        rounding = self.rounding[g]
        return np.where(rounding > 0, np.maximum(rounding * grown, GRAM_RESOLUTION), 0.0)


def _undetermined(
    design: Design, part: GroupRows, x: np.ndarray, free: np.ndarray, told: Told, g: int
) -> CollinearColumns | None:
    """That columns x (r, p) of design g, those that are `free` (p,) of a penalty, are collinear, where they are."""
    j = int(part.group.equations[0])
    terms = [term for term, yes in zip(design.terms[j], free, strict=True) if yes]
    x = x[:, free]
    if not len(terms):
        return None
    constant = _unit_columns(x)[1]
    null, stored = replace(told, rounding=told.rounding[:, free]).null(x, g)
    if not len(null):
        return None
    involved = np.abs(null).max(axis=0) > 1e-6
    if len(constant):  # varying columns that add up to a constant involve the constant too
        norms = np.linalg.norm(x[1:], axis=0)
        weights = np.where(norms > 0, null / np.where(norms > 0, norms, 1.0), 0.0)
        if np.any(np.abs(weights @ x[0]) > 1e-6 * np.abs(weights) @ np.abs(x[0])):
            involved[constant[0]] = True
    names = [repr(term) for term, yes in zip(terms, involved, strict=True) if yes]
    one, named = len(names) == 1, ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else names[0]
    what = f"column {named} is zero in every row" if one else f"columns {named} are collinear"
    said = what if one else f"columns {listed(names)}"
    if told.of_shown:
        what += " that shows it" if one else " in the rows that show it"
    if stored:  # a column that varies by rounding alone is a constant beside the constant
        still = f"column {named} varies no more than rounding of its values"
        what = still if one else f"{what} to the rounding of their values"
        what += " as they are stored, in fewer than 64 bits" if design.absorbed is None else " less absorbed effects"
        said = still if one else f"{said} to the rounding of their values"
    also = f" (and {len(part.group.equations) - 1} more with the same columns)" if len(part.group.equations) > 1 else ""
    unpenalised = " of those that lam_B does not name" if len(terms) < len(free) else ""
    return CollinearColumns(
        f"equation {design.equations[j]!r}{also}: {what} (rank {x.shape[1] - len(null)} of {x.shape[1]}{unpenalised}). "
        f"Drop one{'' if part.level is not None else ', or set lam_B > 0'}.",
        dict.fromkeys(part.group.equations.tolist(), f"collinear ({said})"),
    )
