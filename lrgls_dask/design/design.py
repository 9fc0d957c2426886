"""Which equation uses which column of X, with the user's labels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp

from lrgls_dask.checks import shown
from lrgls_dask.design.absorbed import Absorbed, check_beside, rounding_beside
from lrgls_dask.design.batches import Batches

__all__ = ["ColumnUsers", "Design", "DesignGroup", "Designed", "OwnColumns", "as_slice", "difference"]


@dataclass(frozen=True, eq=False)
class DesignGroup:
    """Equations that use the same columns in the same order, so one factorisation serves them all.

    columns : (p,) indices into the q distinct columns.  equations : (m,) indices into the K equations.
    coefficients : (p, m) positions of these coefficients in the vector of all P, ordered by equation.
    """

    columns: np.ndarray
    equations: np.ndarray
    coefficients: np.ndarray

    @cached_property
    def take_columns(self) -> slice | np.ndarray:
        """Index of the columns, a slice where they are consecutive so that taking them copies nothing."""
        return as_slice(self.columns)

    @cached_property
    def take_equations(self) -> slice | np.ndarray:
        """Index of the equations, likewise."""
        return as_slice(self.equations)


@dataclass(frozen=True, eq=False)
class ColumnUsers:
    """Columns that the same equations use.

    columns : (c,) indices into the q distinct columns.  equations : (m,) indices into the K equations, or none.
    """

    columns: np.ndarray
    equations: np.ndarray


def as_slice(index: np.ndarray) -> slice | np.ndarray:
    """The index, a slice where it is one of consecutive positions, so that taking them copies nothing."""
    first, last = int(index[0]), int(index[-1])
    if last - first + 1 == len(index) and bool((np.diff(index) == 1).all()):
        return slice(first, last + 1)
    return index


@dataclass(frozen=True, eq=False)
class Design:
    """The incidence of q distinct regressor columns in K equations.

    equations : K labels.  regressors : q labels of the distinct columns.
    columns : K index arrays (p_j,), the columns of equation j in its own order.
    terms : K tuples of p_j labels, what equation j calls its columns.
    equation_coords : further labels of the equations by name, K each, such as the sector of every firm.
    precision : of each regressor the relative rounding of its values as they are stored; none if all are exact.
    own : how these columns were made of the user's, where the cells of a row have weights; None where they are the
    user's own.
    equation_dims : where equations lie on several dims, latitudes and longitudes say, the labels along each; an
    equation is then called by a tuple of them, and there is one for every combination. Nothing of equations in a list.
    attributes : what the user said of the dims by name, and of the responses by None: units, long names.
    constant : the regressor that is 1 in every row, where it was made so and is no column of the user's data.
    absorbed : the effects of groups that were taken out of the rows; None where there are none, or not yet known.
    """

    equations: tuple[Hashable, ...]
    regressors: tuple[Hashable, ...]
    columns: tuple[np.ndarray, ...]
    terms: tuple[tuple[Hashable, ...], ...]
    equation_coords: Mapping[Hashable, tuple[Hashable, ...]] = field(default_factory=dict)
    precision: tuple[float, ...] = ()
    own: OwnColumns | None = None
    equation_dims: Mapping[Hashable, tuple[Hashable, ...]] = field(default_factory=dict)
    attributes: Mapping[Hashable, Mapping[str, Any]] = field(default_factory=dict)
    absorbed: Absorbed | None = None
    constant: str | None = None

    @property
    def given(self) -> Design:
        """The design in the user's columns, which predictions are made of; this one but for weights of cells."""
        return self if self.own is None else self.own.given

    def stored_as(self, *others: Design) -> Design:
        """This design with each regressor as coarse as the coarsest of the others has it."""
        coarsest = np.max([other.given.rounding for other in others], axis=0)
        if np.array_equal(coarsest, self.given.rounding):
            return self
        given = replace(self.given, precision=tuple(coarsest.tolist()))
        if self.own is None:
            return given
        return replace(self, precision=tuple(coarsest[self.own.column].tolist()), own=replace(self.own, given=given))

    @property
    def n_equations(self) -> int:
        return len(self.equations)

    @property
    def n_regressors(self) -> int:
        return len(self.regressors)

    def beside_effects(self, squares: np.ndarray, weight: float) -> Design:
        """This design of rows less absorbed effects, which leave squares (q,) of the regressors, infinite if not known.

        Raises CollinearColumns for regressors that the effects determine, ValueError for too few rows.
        """
        assert self.absorbed is not None
        check_beside(self.absorbed, self.regressors, squares, weight, self.columns)
        precision = rounding_beside(self.absorbed, squares, weight, self.rounding)
        return replace(self, precision=tuple(precision.tolist()) if precision.any() else ())

    @property
    def n_absorbed(self) -> int:
        """Parameters that absorbed effects are in every equation, the intercept among them."""
        return 0 if self.absorbed is None else self.absorbed.n_parameters

    @cached_property
    def rounding(self) -> np.ndarray:
        """(q,) relative rounding of the stored values of each regressor, 0 where they are exact or float64."""
        return np.array(self.precision) if self.precision else np.zeros(self.n_regressors)

    @cached_property
    def sizes(self) -> np.ndarray:
        """(K,) number of coefficients p_j of each equation."""
        return np.array([len(c) for c in self.columns], dtype=np.intp)

    @cached_property
    def offsets(self) -> np.ndarray:
        """(K + 1,) where each equation starts in the vector of all P coefficients."""
        return np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.intp)

    @cached_property
    def spans(self) -> tuple[slice, ...]:
        """Per equation its stretch of the vector of all P coefficients."""
        return tuple(slice(a, b) for a, b in pairwise(self.offsets.tolist()))

    @cached_property
    def equation_of(self) -> np.ndarray:
        """(P,) the equation of each coefficient."""
        return np.repeat(np.arange(self.n_equations), self.sizes)

    @property
    def n_coefficients(self) -> int:
        return int(self.offsets[-1])

    @cached_property
    def groups(self) -> tuple[DesignGroup, ...]:
        """Equations with identical columns, in order of first appearance."""
        members: dict[bytes, list[int]] = {}
        for j, columns in enumerate(self.columns):
            members.setdefault(np.ascontiguousarray(columns, dtype=np.intp).tobytes(), []).append(j)
        groups = []
        for equations in members.values():
            columns = np.asarray(self.columns[equations[0]], dtype=np.intp)
            places = self.offsets[equations][None, :] + np.arange(len(columns))[:, None]
            groups.append(DesignGroup(columns, np.array(equations, dtype=np.intp), places))
        return tuple(groups)

    @cached_property
    def buckets(self) -> tuple[tuple[int, ...], ...]:
        """Positions of the groups of equal shape (p, m), so that one batched product serves them all."""
        shapes: dict[tuple[int, ...], list[int]] = {}
        for i, group in enumerate(self.groups):
            shapes.setdefault(group.coefficients.shape, []).append(i)
        return tuple(tuple(members) for members in shapes.values())

    @cached_property
    def batches(self) -> Batches:
        """The groups by bucket, as arrays."""
        return Batches.of(self.groups, self.buckets, self.n_equations)

    @cached_property
    def users(self) -> tuple[ColumnUsers, ...]:
        """Every column, with those that the same equations use."""
        using: list[list[int]] = [[] for _ in range(self.n_regressors)]
        for position, group in enumerate(self.groups):
            for column in group.columns.tolist():
                using[column].append(position)
        alike: dict[tuple[int, ...], list[int]] = {}
        for column, of in enumerate(using):
            alike.setdefault(tuple(dict.fromkeys(of)), []).append(column)
        equations = [group.equations for group in self.groups]
        none = np.zeros(0, dtype=np.intp)
        return tuple(
            ColumnUsers(np.array(columns, dtype=np.intp), np.concatenate([none, *(equations[g] for g in of)]))
            for of, columns in alike.items()
        )

    @cached_property
    def is_used(self) -> np.ndarray:
        """(q,) whether any equation uses the column."""
        used = np.zeros(self.n_regressors, dtype=bool)
        for columns in self.columns:
            used[columns] = True
        return used

    def incidence(self) -> sp.csc_array:
        """(q, K) boolean incidence, compressed by equation; row order within an equation is not kept."""
        indices = np.concatenate(self.columns) if self.columns else np.empty(0, dtype=np.intp)
        shape = (self.n_regressors, self.n_equations)
        return sp.csc_array((np.ones(len(indices), dtype=bool), indices, self.offsets), shape=shape)

    def same_as(self, other: Design) -> bool:
        """True when labels and columns agree, so that rows of the two may be stacked."""
        return (
            self.equations == other.equations
            and self.regressors == other.regressors
            and self.terms == other.terms
            and (self.own is None) == (other.own is None)
            and all(np.array_equal(a, b) for a, b in zip(self.columns, other.columns, strict=True))
        )


def difference(mine: Design, theirs: Design) -> str:
    """What the other design has otherwise, the first of it: "lacks equation 'a'"."""
    for what, had, found in (
        ("equation", mine.equations, theirs.equations),
        ("regressor", mine.regressors, theirs.regressors),
    ):
        lacking = [label for label in had if label not in set(found)]
        surplus = [label for label in found if label not in set(had)]
        if lacking or surplus:
            sides = [f"lacks {what} {lacking[0]!r}"] if lacking else []
            sides += [f"has {what} {surplus[0]!r} besides"] if surplus else []
            return " and ".join(sides)
        if had != found:
            i = next(i for i, (a, b) in enumerate(zip(had, found, strict=True)) if a != b)
            return f"has {what} {found[i]!r} at position {i}, where {had[i]!r} was"
    uses = [[[design.regressors[c] for c in columns] for columns in design.columns] for design in (mine, theirs)]
    for name, *both in zip(mine.equations, *uses, mine.terms, theirs.terms, strict=True):
        for had, found in (both[:2], both[2:]):
            if list(had) != list(found):
                return f"has regressors {shown(found)} in equation {name!r}, where {shown(had)} were"
    return "has them otherwise"


@dataclass(frozen=True, eq=False)
class OwnColumns:
    """How q' columns scaled by the roots of the weights of cells come from the user's columns.

    given : the design before.  weighting : (K,) which column of weights each equation has.  column : (q',) the column
    of `given` that is scaled, weight : (q',) by the roots of which column of weights.
    """

    given: Design
    weighting: np.ndarray
    column: np.ndarray
    weight: np.ndarray


class HasDesign(Protocol):
    """Anything with a `design`."""

    @property
    def design(self) -> Design: ...


class Designed:
    """Sizes and labels of whatever has a `design`."""

    @property
    def n_equations(self: HasDesign) -> int:
        """K."""
        return self.design.n_equations

    @property
    def n_regressors(self: HasDesign) -> int:
        """q, the number of distinct regressor columns."""
        return self.design.given.n_regressors

    @property
    def n_coefficients(self: HasDesign) -> int:
        """P = sum p_j."""
        return self.design.n_coefficients

    @property
    def equations(self: HasDesign) -> tuple[Hashable, ...]:
        """K labels."""
        return self.design.equations

    @property
    def regressors(self: HasDesign) -> tuple[Hashable, ...]:
        """q labels of the distinct columns."""
        return self.design.given.regressors
