"""Regressors and responses of rows with holes in whitened coordinates, each equation's over the rows that show it."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from lrgls_dask.compression.available import AvailableMoments
from lrgls_dask.compression.by_pattern import CompressedPatterns
from lrgls_dask.compression.roots import root_of
from lrgls_dask.compression.shown_parts import SeenRows
from lrgls_dask.design.design import Design, DesignGroup
from lrgls_dask.inference.gradient_kernels import SigmaRuns
from lrgls_dask.missing.expected import ExpectedMoments
from lrgls_dask.missing.kernels import GradientMoments, LatentMoments, MaskedParams
from lrgls_dask.rows.fingerprint import Fingerprint
from lrgls_dask.rows.moments import Levels
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.tiles import Tiles
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.solve.constraint import Constraint
from lrgls_dask.solve.coordinates import Coordinates
from lrgls_dask.solve.fingerprint import fingerprint_of_shown
from lrgls_dask.solve.level import level_row
from lrgls_dask.solve.whiten import GroupRows, Whitened

__all__ = ["Apart", "ShownColumns", "group_rows_of"]

ROUNDING = 1e-15  # relative spread that the means of blocks show of a column that is constant


class Apart(Design):
    """The same design with every equation in a group of its own."""

    @cached_property
    def groups(self) -> tuple[DesignGroup, ...]:
        return tuple(
            DesignGroup(
                np.asarray(columns, dtype=np.intp),
                np.array([j], dtype=np.intp),
                np.arange(self.offsets[j], self.offsets[j + 1])[:, None],
            )
            for j, columns in enumerate(self.columns)
        )

    @classmethod
    def of(cls, design: Design) -> Apart:
        return cls(
            design.equations, design.regressors, design.columns, design.terms, design.equation_coords, design.precision
        )


class ShownColumns:
    """The maps between the user's units, stored columns less an origin, and the whitened coordinates c.

    cells : (K,) rows that show each equation.  origin : (q + K,) near the mean of every column.
    """

    rows: Rows | CompressedPatterns | SeenRows
    design: Design
    cells: np.ndarray
    group_rows: tuple[GroupRows, ...]
    whitened: Whitened
    coordinates: Coordinates
    constraint: Constraint | None
    origin: np.ndarray
    _weight: np.ndarray

    # ------------------------------------------------------------------------------------------ user's units

    def fingerprint(self, like: Fingerprint | None = None) -> Fingerprint:
        """By which these rows are told from others.  like : in whose units."""
        return fingerprint_of_shown(self.design, self.group_rows, self.cells, self._weight, like)

    def coefficients(self, c: np.ndarray) -> np.ndarray:
        """(P,) in the user's units, ordered by equation."""
        return self.whitened.coefficients(self.coordinates.by_group(c))

    def whitened_coefficients(self, coefficients: np.ndarray) -> np.ndarray:
        """(P,) c, the inverse of `coefficients`."""
        return self.coordinates.flat(self.whitened.coordinates(coefficients))

    def covariance(self, of_c: np.ndarray) -> np.ndarray:
        """(P, P) in the user's units and order from a covariance of c."""
        half = np.zeros((self.design.n_coefficients,) * 2)
        at = self.design.offsets
        for j, own in enumerate(self._maps):
            half[at[j] : at[j + 1], at[j] : at[j + 1]] = own * self.whitened.y_scale[j]
        mine = np.empty_like(of_c)
        mine[np.ix_(self._order, self._order)] = of_c
        return np.asarray(half @ mine @ half.T)

    # ------------------------------------------------------------------------------------------ coordinates

    @property
    def maps(self) -> list[np.ndarray]:
        """Per equation (p, p), from columns less `origin` to whitened ones, which are `ends` (p,) at the origin."""
        return self._maps

    @property
    def ends(self) -> list[np.ndarray]:
        return self._ends

    @property
    def order(self) -> np.ndarray:
        """(P,) for each position in c its place in the order of equations."""
        return self._order

    @property
    def has_constants(self) -> bool:
        """Whether a constant column is constant: scaled by roots of weights of cells none is."""
        return not self.rows.varying_weights

    @property
    def constants(self) -> np.ndarray | None:
        """(q, K) with X times it the constant of every equation, zero where it has none; None where a column of ones
        is one, or where it is not known what one has become."""
        if self.has_constants or not self.knows_constants:
            return None
        found = np.zeros((self.design.n_regressors, self.design.n_equations))
        for part in self.group_rows:
            assert part.level is not None
            at = np.ix_(part.group.columns, part.group.equations)
            found[at] = np.linalg.lstsq(part.x, part.level, rcond=None)[0][:, None]
        return found

    @property
    def knows_constants(self) -> bool:
        """Whether it is known what a constant is."""
        return self.has_constants or all(part.level is not None for part in self.group_rows)

    @property
    def weight(self) -> np.ndarray:
        """(K,) sums of the weights of the rows that show each equation."""
        return self._weight

    def on_columns(self, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(P,) coefficients of the columns less `origin`, by equation, and (K,) of the constant, that are c."""
        return self._raw(c), self._at_origin(c)

    def from_columns(self, b: np.ndarray, level: np.ndarray) -> np.ndarray:
        """(P,) the transpose of `on_columns`."""
        return self._in_coordinates(b, level)

    @property
    def free(self) -> np.ndarray | None:
        """(P, P - m) directions of c that restrictions leave free, None where there are none."""
        return None if self.constraint is None else self.constraint.free

    def params_at(self, c: np.ndarray, sigma: Sigma | SigmaRuns) -> MaskedParams:
        """What kernels are told of the point (c, Sigma), and of the whitened columns."""
        columns, params = self._whitened_params(sigma), self._params(c, sigma)
        return replace(params, maps=columns.maps, places=columns.places, ends=columns.ends)

    # ------------------------------------------------------------------------------------------ inside

    def _common_origin(self, available: list[tuple[AvailableMoments, int]]) -> np.ndarray:
        """(q + K,) near the mean of every column."""
        q = self.design.n_regressors
        origin = np.zeros(q + self.design.n_equations)
        for j, (moments, i) in enumerate(available):
            origin[self.design.columns[j]] = moments.mean[i, :-1]
            origin[q + j] = moments.mean[i, -1]
        return origin

    def _prepare(self, available: list[tuple[AvailableMoments, int]]) -> None:
        """Per equation the map from c to b, and the whitened columns at the origin; where c of equation j stands."""
        q = self.design.n_regressors
        self._ones = np.ones(self.design.n_equations)
        self._origin_y = self.origin[q:]
        self._maps: list[np.ndarray] = []
        self._ends: list[np.ndarray] = []
        for j, (moments, i) in enumerate(available):
            group = self.whitened.groups[j]
            own = group.coefficients(np.eye(len(group.order)))
            away = (self.origin[self.design.columns[j]] - moments.anchor[i, :-1]) - moments.offset[i, :-1]
            self._maps.append(own)
            self._ends.append(group.q[0] / np.sqrt(moments.weight[i]) + own.T @ away)
        identity = np.arange(self.design.n_coefficients)
        at = self.design.offsets
        # position in c -> position in the order of equations
        self._order = self.coordinates.flat(
            tuple(identity[at[j] : at[j + 1], None] for j in range(self.design.n_equations))
        ).astype(np.intp)
        self._stacked = [np.stack([self._maps[j] for j in members]) for members, _, _ in self.coordinates.buckets]
        self._stacked_ends = [np.stack([self._ends[j] for j in m]) for m, _, _ in self.coordinates.buckets]

    def _raw(self, c: np.ndarray) -> np.ndarray:
        """(P,) coefficients of the stored columns, for Y in standard units."""
        b = np.empty(len(c))
        b[self._order] = np.concatenate(
            [(own @ part).ravel() for own, part in zip(self._stacked, self.coordinates.split(c), strict=True)]
        )
        return b

    def _whitened_params(self, sigma: Sigma | SigmaRuns) -> MaskedParams:
        """What sums over whitened columns are told."""
        groups, at = self.rows.design.groups, self.design.offsets
        return replace(
            self._params(np.zeros(self.design.n_coefficients), sigma),
            maps=tuple(np.stack([self._maps[j] for j in g.equations]) for g in groups),
            places=tuple(np.stack([np.arange(at[j], at[j + 1]) for j in g.equations]) for g in groups),
            ends=np.concatenate(self._ends),
        )

    def _params(self, c: np.ndarray, sigma: Any, origin_y: np.ndarray | None = None) -> MaskedParams:
        level = (self._origin_y if origin_y is None else origin_y) / self.whitened.y_scale - self._at_origin(c)
        tiles, groups = self._tiles, self.rows.design.groups
        b = self._raw(c)[tiles.batches.places]
        return MaskedParams(groups, tiles, self.origin, self.whitened.y_scale, b, level, sigma)

    def _at_origin(self, c: np.ndarray) -> np.ndarray:
        """(K,) what c makes of a row that stands at `origin`."""
        level = np.empty(self.design.n_equations)
        parts = zip(self._stacked_ends, self.coordinates.split(c), self.coordinates.buckets, strict=True)
        for ends, part, (_, equations, _) in parts:
            level[equations] = np.einsum("gp,gpm->g", ends, part)
        return level

    def _adjoint(self, found: LatentMoments | GradientMoments | ExpectedMoments, own: np.ndarray) -> np.ndarray:
        """(P,) derivative with respect to c from sums of X'e and e that are `own` (K,) times as large."""
        batches = self._tiles.batches
        b = batches.by_equation(found.gradient / own[batches.equation_of])
        return self._in_coordinates(b, found.unit_gradient / own)

    @cached_property
    def _tiles(self) -> Tiles:
        return Tiles.of(self.rows.design.batches)

    def _in_coordinates(self, b: np.ndarray, unit: np.ndarray) -> np.ndarray:
        """(P,) derivative with respect to c from those with respect to raw coefficients and to levels (K,)."""
        parts, taken = [], b[self._order]
        for maps, ends, view, (_, equations, shape) in zip(
            self._stacked, self._stacked_ends, self.coordinates.split(taken), self.coordinates.buckets, strict=True
        ):
            whole = maps.transpose(0, 2, 1) @ view + ends[:, :, None] * unit[equations].reshape(shape[0], 1, shape[2])
            parts.append(whole.ravel())
        return np.concatenate(parts)


def group_rows_of(design: Design, group: DesignGroup, of: tuple[AvailableMoments, int], *, scaled: bool) -> GroupRows:
    """Rows that stand for one equation's columns and response.

    scaled : whether by roots of weights of cells that vary, so that a constant is sought among the columns.
    """
    moments, i = of
    p, cross = len(group.columns), moments.cross[i].copy()
    constant = cross.diagonal() <= moments.weight[i] * (ROUNDING * moments.mean[i]) ** 2
    cross[constant] = cross[:, constant] = 0.0
    root = root_of(np.tril(cross))
    rows = np.zeros((p + 2, p + 1))
    rows[0] = np.sqrt(moments.weight[i]) * moments.mean[i]
    rows[1 : len(root) + 1] = root
    level = None
    if scaled and moments.levels is not None:
        dot = np.zeros(design.n_regressors)
        dot[group.columns] = moments.levels.dot[i]
        level = level_row(design, group, rows[:, :-1], Levels(moments.levels.weight[i], dot))
    return GroupRows(group, rows[:, :-1], rows[:, -1:], np.zeros(1), level)
