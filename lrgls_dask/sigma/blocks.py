"""Which loadings of a hierarchy of factors may differ from zero: one group of all equations, groups, groups in groups.

Loadings are kept compact, (K, s): row i holds the loadings of equation i on the s factors that touch it, level by
level. Wide, they are the (K, m) loadings on all m factors, zeros outside the groups.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lrgls_dask.checks import one_group_each
from lrgls_dask.sigma.identified import max_rank
from lrgls_dask.sigma.interface import Array, Equations

__all__ = ["Blocks", "Rows", "blocks_of", "groups_of_some"]

Option = TypeVar("Option", bound=Any)

Rows = NDArray[np.intp] | slice
GENERAL = "general"  # the name of the group of all equations
LARGEST_CHECKED = 100  # equations: half a second of work


@dataclass(frozen=True, eq=False)
class Blocks:
    """Which loadings may differ from zero. Levels go from coarse to fine, the first is one group of all equations.

    codes : per level (K,) the group of each equation, numbered from 0.  ranks : factors that each group of a level has.
    names : per level those of its groups, or none at all: numbers from 1 then.
    """

    codes: tuple[NDArray[np.intp], ...]
    ranks: tuple[int, ...]
    names: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def single(cls, K: int, rank: int) -> Blocks:
        """Factors of all equations only."""
        return cls((np.zeros(K, dtype=np.intp),), (rank,))

    @property
    def n_equations(self) -> int:
        """K."""
        return int(self.codes[0].size)

    @property
    def n_own(self) -> int:
        """s, the number of factors that touch one equation."""
        return sum(self.ranks)

    @cached_property
    def members(self) -> tuple[tuple[Rows, ...], ...]:
        """Per level and group the equations in it, a slice where they are consecutive."""
        return tuple(
            tuple(_as_slice(np.flatnonzero(codes == g)) for g in range(int(codes.max()) + 1)) for codes in self.codes
        )

    @cached_property
    def parts(self) -> tuple[tuple[Rows, Blocks], ...]:
        """For each group of the second level its equations, and the blocks inside it: it is their first level."""
        return tuple(
            (
                rows,
                Blocks(
                    tuple(np.unique(codes[rows], return_inverse=True)[1] for codes in self.codes[1:]), self.ranks[1:]
                ),
            )
            for rows in self.members[1]
        )

    @cached_property
    def own(self) -> tuple[slice, ...]:
        """Per level the columns of a compact matrix (K, s)."""
        ends = np.cumsum([0, *self.ranks])
        return tuple(slice(int(a), int(b)) for a, b in pairwise(ends))

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Per level its first column in a wide matrix (K, m)."""
        sizes = [len(groups) * rank for groups, rank in zip(self.members, self.ranks, strict=True)]
        return tuple(int(a) for a in np.cumsum([0, *sizes[:-1]]))

    @cached_property
    def group_names(self) -> tuple[tuple[str, ...], ...]:
        """Per level the name of each group."""
        numbers = tuple(tuple(str(g + 1) for g in range(int(codes.max()) + 1)) for codes in self.codes[1:])
        return self.names or ((GENERAL,), *numbers)

    @property
    def factor_names(self) -> list[str]:
        """(m,) the name of each factor: of its group and, where it has several, its number there."""
        names = [
            name if rank == 1 else f"{name} {i}"
            for of_level, rank in zip(self.group_names, self.ranks, strict=True)
            for name in of_level
            for i in range(1, rank + 1)
        ]
        seen: dict[str, int] = {}
        for i, name in enumerate(names):  # a group in a group may have its name
            seen[name] = seen.get(name, 0) + 1
            names[i] = name + "'" * (seen[name] - 1)
        return names

    @property
    def n_factors(self) -> int:
        """m, the number of all factors."""
        return sum(len(groups) * rank for groups, rank in zip(self.members, self.ranks, strict=True))

    @cached_property
    def columns(self) -> NDArray[np.intp]:
        """(K, s) the column of the wide matrix in which each compact loading stands."""
        parts = [
            start + rank * codes[:, None] + np.arange(rank)[None, :]
            for start, rank, codes in zip(self.starts, self.ranks, self.codes, strict=True)
        ]
        return np.concatenate(parts, axis=1)

    def blocks(self) -> list[tuple[Rows, slice, slice]]:
        """Every group's (equations, columns when compact, columns when wide)."""
        return [
            (rows, own, slice(start + g * rank, start + (g + 1) * rank))
            for groups, own, start, rank in zip(self.members, self.own, self.starts, self.ranks, strict=True)
            for g, rows in enumerate(groups)
        ]

    def wide(self, A: Array) -> Array:
        """(K, m) with zeros outside the groups, from (K, s)."""
        out = np.zeros((self.n_equations, self.n_factors))
        np.put_along_axis(out, self.columns, A, axis=1)
        return out

    def compact(self, X: Array) -> Array:
        """(K, s) entries of X (K, m) inside the groups."""
        return np.take_along_axis(X, self.columns, axis=1)

    def own_blocks(self, M: Array) -> Array:
        """(K, s, s) for each equation the entries of M (m, m) of the factors that touch it."""
        return np.asarray(M[self.columns[:, :, None], self.columns[:, None, :]])

    def right(self, M: Array, A: Array) -> Array:
        """M wide(A), (n, m), for M (n, K).  O(n K s)."""
        out = np.empty((M.shape[0], self.n_factors))
        for rows, own, wide in self.blocks():
            out[:, wide] = M[:, rows] @ A[rows, own]
        return out

    def left(self, M: Array, X: Array) -> Array:
        """compact(M X), (K, s), for M (K, K) and X (K, m).  O(K^2 s)."""
        out = np.empty((self.n_equations, self.n_own))
        for rows, own, wide in self.blocks():
            out[rows, own] = M[rows] @ X[:, wide]
        return out

    @property
    def everywhere(self) -> bool:
        """Whether all factors are of all equations."""
        return len(self.ranks) == 1

    @cached_property
    def free(self) -> NDArray[np.bool_]:
        """(K, m) whether a wide loading may differ from zero."""
        out = np.zeros((self.n_equations, self.n_factors), dtype=bool)
        np.put_along_axis(out, self.columns, True, axis=1)
        return out

    @cached_property
    def together(self) -> tuple[NDArray[np.intp], ...]:
        """Wide columns of the factors with the very same equations, which a rotation among them leaves alone."""
        found: dict[bytes, list[int]] = {}
        for rows, _, wide in self.blocks():
            key = np.arange(self.n_equations)[rows].tobytes()
            found.setdefault(key, []).extend(range(wide.start, wide.stop))
        return tuple(np.array(columns, dtype=np.intp) for columns in found.values() if columns)

    def n_rotations(self) -> int:
        """r (r - 1) / 2 for each group, r counting the factors of all groups with the very same equations."""
        return sum(len(columns) * (len(columns) - 1) // 2 for columns in self.together)

    def n_unidentified(self) -> int:
        """Directions besides rotations in which loadings, whatever they are, can move and leave Sigma alone.

        One for a general factor and two groups of three equations, say: what a group's own factor takes of it, the
        general one cannot tell. Found at random loadings (Wegge 1996); 0 above LARGEST_CHECKED equations, unseen.
        O(K^4 s^2).
        """
        K, off = self.n_equations, np.tril_indices(self.n_equations, -1)
        if K > LARGEST_CHECKED:
            return 0
        F = self.free * np.random.default_rng(0).uniform(0.5, 1.0, self.free.shape)
        rows, factors = np.nonzero(self.free)
        # sigma_ij = f_i'f_j, i > j: on the diagonal every equation has a variance of its own
        moved = np.where(off[0][:, None] == rows, F[off[1]][:, factors], 0.0)
        moved += np.where(off[1][:, None] == rows, F[off[0]][:, factors], 0.0)
        return len(rows) - int(np.linalg.matrix_rank(moved)) - self.n_rotations()


def _as_slice(index: NDArray[np.intp]) -> Rows:
    first, last = int(index[0]), int(index[-1])
    return slice(first, last + 1) if last - first + 1 == index.size else index


# ---------------------------------------------------------------------------------------------- from labels


def blocks_of(
    equations: Sequence[Hashable],
    groupings: Sequence[Mapping[Hashable, Hashable]],
    rank: int,
    group_ranks: Sequence[int],
) -> Blocks:
    """The blocks of `rank` general factors and, for each grouping, coarse to fine, so many factors of each group.

    Raises ValueError for an equation without a group, a label that is no equation, groups across coarser groups, and
    a group too small for its rank: r factors of K_g equations need (K_g - r)^2 >= K_g + r (Ledermann 1937).
    """
    if len(groupings) != len(group_ranks):
        raise ValueError(
            f"groups: {len(groupings)} groupings but {len(group_ranks)} group ranks. Give one rank for each grouping."
        )
    if not 0 <= rank < len(equations):
        raise ValueError(f"rank must be from 0 to {len(equations) - 1} for {len(equations)} equations, got {rank}.")
    labels: list[tuple[str, ...]] = [(GENERAL,)]
    codes, outer = [np.zeros(len(equations), dtype=np.intp)], ["all equations"] * len(equations)
    for grouping, group_rank in zip(groupings, group_ranks, strict=True):
        groups = _groups_of_equations(equations, grouping)
        names = list(dict.fromkeys(groups))
        numbers = {name: i for i, name in enumerate(names)}
        codes.append(np.array([numbers[g] for g in groups], dtype=np.intp))
        _check_nested(names, codes[-1], outer)
        _check_sizes(names, codes[-1], group_rank)
        outer = [repr(g) for g in groups]
        labels.append(tuple(str(name) for name in names))
    return Blocks(tuple(codes), (rank, *group_ranks), tuple(labels))


def groups_of_some(option: Option, design: Equations, positions: Sequence[int]) -> Option:
    """An option with `groups` of equations, with those of the equations at these positions; as `of_some`."""
    left = set(design.equations) - {design.equations[j] for j in positions}

    def of(groups: Any) -> Any:
        mine = one_group_each(groups)
        return mine if isinstance(mine, str) else {name: group for name, group in mine.items() if name not in left}

    several = isinstance(option.groups, Sequence) and not isinstance(option.groups, str)
    made: Option = replace(option, groups=[of(each) for each in option.groups] if several else of(option.groups))
    return made


def _groups_of_equations(equations: Sequence[Hashable], grouping: Mapping[Hashable, Hashable]) -> list[Hashable]:
    unknown = [label for label in grouping if label not in set(equations)]
    if unknown:
        raise ValueError(f"groups: {unknown[0]!r} is not an equation{_more(unknown)}. Use the labels of the equations.")
    missing = [label for label in equations if label not in grouping]
    if missing:
        raise ValueError(f"groups: equation {missing[0]!r}{_more(missing)} has no group. Give every equation one.")
    return [grouping[label] for label in equations]


def _more(labels: Sequence[Hashable]) -> str:
    return f" (and {len(labels) - 1} more)" if len(labels) > 1 else ""


def _check_nested(names: list[Hashable], codes: NDArray[np.intp], outer: list[str]) -> None:
    for i, name in enumerate(names):
        around = list(dict.fromkeys(outer[j] for j in np.flatnonzero(codes == i)))
        if len(around) > 1:
            raise ValueError(
                f"groups: {name!r} has equations of both {around[0]} and {around[1]}. "
                "Groups of a finer level must lie inside those of the level before; list coarser groupings first."
            )


def _check_sizes(names: list[Hashable], codes: NDArray[np.intp], rank: int) -> None:
    if rank < 0:
        raise ValueError(f"group_rank must be at least 0, got {rank}.")
    for i, name in enumerate(names):
        size = int(np.count_nonzero(codes == i))
        if rank > max_rank(size):
            raise ValueError(
                f"groups: {name!r} has {size} equations, which identify {max_rank(size)} factors of their own, but "
                f"group_rank is {rank}. Join it with another group or lower group_rank."
            )
