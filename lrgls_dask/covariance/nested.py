"""Sigma = sum over levels of blockdiag(A_g A_g') + diag(d): factors of all equations, of groups, of groups in groups.

Level 0 is one group of all K equations; the groups of each further level lie inside those of the one before. With
B_0 = D and B_l = B_(l-1) + blockdiag(A_g A_g') from the finest level outwards, Woodbury (1950) at each level reads

    B_l^-1 = B_(l-1)^-1 - blockdiag(H_g H_g'),    H_g = B_(l-1)^-1 A_g R_g^-1,    R_g'R_g = I + A_g' B_(l-1)^-1 A_g,

so Sigma^-1 = D^-1 - sum of block-diagonal low-rank terms and log|Sigma| = sum log d + 2 sum log diag R_g: O(K s) a right
hand side, s the number of factors that touch one equation, not of all factors. The R_g come from an elimination by QR
of the rows D^-1/2 A, finest level first, which squares no condition number.

Loadings are kept compact, (K, s): row i holds the loadings of equation i on its own factors, level by level.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from lrgls_dask.covariance.lowrank import DIGITS, LOG_2PI, REFINE_ABOVE, WANTED_DIGITS, Array, LowRank, max_rank

__all__ = ["Blocks", "GroupedFactors", "blocks_of"]

Rows = NDArray[np.intp] | slice


@dataclass(frozen=True, eq=False)
class Blocks:
    """Which loadings may differ from zero. Levels go from coarse to fine, the first is one group of all equations.

    codes : per level (K,) the group of each equation, numbered from 0.  ranks : factors that each group of a level has.
    """

    codes: tuple[NDArray[np.intp], ...]
    ranks: tuple[int, ...]

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
    def own(self) -> tuple[slice, ...]:
        """Per level the columns of a compact matrix (K, s)."""
        ends = np.cumsum([0, *self.ranks])
        return tuple(slice(int(a), int(b)) for a, b in zip(ends[:-1], ends[1:], strict=True))

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Per level its first column in a wide matrix (K, m)."""
        sizes = [len(groups) * rank for groups, rank in zip(self.members, self.ranks, strict=True)]
        return tuple(int(a) for a in np.cumsum([0, *sizes[:-1]]))

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

    def n_rotations(self) -> int:
        """r (r - 1) / 2 for each group, r counting the factors of all groups with the very same equations."""
        totals: dict[bytes, int] = {}
        for rows, own, _ in self.blocks():
            key = np.arange(self.n_equations)[rows].tobytes()
            totals[key] = totals.get(key, 0) + own.stop - own.start
        return sum(r * (r - 1) // 2 for r in totals.values())


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
    codes, outer = [np.zeros(len(equations), dtype=np.intp)], ["all equations"] * len(equations)
    for grouping, group_rank in zip(groupings, group_ranks, strict=True):
        groups = _groups_of_equations(equations, grouping)
        names = list(dict.fromkeys(groups))
        numbers = {name: i for i, name in enumerate(names)}
        codes.append(np.array([numbers[g] for g in groups], dtype=np.intp))
        _check_nested(names, codes[-1], outer)
        _check_sizes(names, codes[-1], group_rank)
        outer = [repr(g) for g in groups]
    return Blocks(tuple(codes), (rank, *group_ranks))


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


# ---------------------------------------------------------------------------------------------- the value


@dataclass(frozen=True, eq=False)
class GroupedFactors:
    """Covariance of K equations with general factors and factors of groups, factored at first use.

    blocks : which equations each factor touches.  A : (K, s) compact loadings.  d : (K,) idiosyncratic variances, > 0.
    Memory O(K s).  Raises ValueError for shapes that do not fit and for d that is not positive and finite.
    """

    blocks: Blocks
    A: Array
    d: Array

    def __post_init__(self) -> None:
        K, s = self.blocks.n_equations, self.blocks.n_own
        if self.A.shape != (K, s) or self.d.shape != (K,):
            raise ValueError(
                f"GroupedFactors needs A {(K, s)} and d {(K,)}; got A {self.A.shape} and d {self.d.shape}."
            )
        fine = (self.d > 0.0) & np.isfinite(self.d) & np.isfinite(self.A).all(axis=1)
        if not fine.all():
            bad = int(np.argmin(fine))
            raise ValueError(
                f"GroupedFactors needs finite A and finite d > 0; row {bad} has d = {self.d[bad]}, A = {self.A[bad]}."
            )

    @property
    def n_equations(self) -> int:
        """K."""
        return self.blocks.n_equations

    @property
    def rank(self) -> int:
        """m, the number of all factors, those of groups included."""
        return self.blocks.n_factors

    @property
    def n_parameters(self) -> int:
        """Loadings and variances, less the rotations among factors with the same equations, which leave Sigma alone."""
        return self.A.size + self.d.size - self.blocks.n_rotations()

    @property
    def F(self) -> Array:
        """(K, m) loadings with their zeros: Sigma = F F' + diag(d)."""
        return self.blocks.wide(self.A)

    def level(self, number: int) -> Array:
        """(K, r) loadings on the factors of one level: 0 the general ones, 1 those of the first grouping, ..."""
        return self.A[:, self.blocks.own[number]]

    @property
    def variances(self) -> Array:
        """diag(Sigma), (K,)."""
        return self.d + np.einsum("ik,ik->i", self.A, self.A)

    @cached_property
    def _roots(self) -> tuple[tuple[Array, ...], ...]:
        """R_g per level and group, upper triangular, positive diagonal.  O(K s^2).

        What a group leaves behind are rows with the same cross-product of the coarser loadings, its factors taken out.
        """
        finest = self.A / np.sqrt(self.d)[:, None]
        found: list[tuple[Array, ...]] = []
        left: list[Array] = []
        for number in reversed(range(len(self.blocks.ranks))):
            own, codes = self.blocks.own[number], self.blocks.codes[number]
            pairs = []
            for g, rows in enumerate(self.blocks.members[number]):
                inside = (
                    np.vstack([left[i] for i in np.unique(self.blocks.codes[number + 1][codes == g])])
                    if found
                    else finest[rows]
                )
                pairs.append(_eliminated(inside[:, own], inside[:, : own.start]))
            found.append(tuple(root for root, _ in pairs))
            left = [rest for _, rest in pairs]
        return tuple(reversed(found))

    @cached_property
    def _halves(self) -> tuple[Array, ...]:
        """H of each level, compact (K, r), with Sigma^-1 = D^-1 - sum of blockdiag(H_g H_g'), coarse first.  O(K s^2)."""
        halves: list[Array] = []
        for number in reversed(range(len(self.blocks.ranks))):
            A = self.level(number)
            H = A / self.d[:, None]
            for finer, half in enumerate(reversed(halves), number + 1):
                for rows in self.blocks.members[finer]:
                    H[rows] -= half[rows] @ (half[rows].T @ A[rows])
            for root, rows in zip(self._roots[number], self.blocks.members[number], strict=True):
                H[rows] = solve_triangular(root, H[rows].T, trans="T").T
            halves.append(H)
        return tuple(reversed(halves))

    @cached_property
    def _signal_to_noise(self) -> Array:
        """(K,) how many times the factors' part of a variance exceeds d: the digits that Woodbury loses there."""
        return np.einsum("ik,ik->i", self.A, self.A) / self.d

    @cached_property
    def _refinements(self) -> int:
        worst = float(np.max(self._signal_to_noise, initial=0.0))
        if worst <= REFINE_ABOVE:
            return 0
        return math.ceil(WANTED_DIGITS / max(DIGITS - math.log10(worst), 1.0)) - 1

    def _rows_matmul(self, E: Array) -> Array:
        """E Sigma, (n, K).  O(n K s)."""
        out = np.asarray(E * self.d)
        for rows, own, _ in self.blocks.blocks():
            loadings = self.A[rows, own]
            out[:, rows] += (E[:, rows] @ loadings) @ loadings.T
        return out

    def _solve_rows_once(self, E: Array) -> Array:
        out = np.asarray(E / self.d)
        for half, groups in zip(self._halves, self.blocks.members, strict=True):
            for rows in groups:
                out[:, rows] -= (E[:, rows] @ half[rows]) @ half[rows].T
        return out

    def matmul(self, B: Array) -> Array:
        """Sigma B, (K, m) to (K, m).  O(K s m)."""
        return self._rows_matmul(B.T).T

    def solve(self, rhs: Array) -> Array:
        """Sigma^-1 rhs, (K, m) to (K, m).  O(K s m), no K x K array."""
        return self.solve_rows(rhs.T).T

    def solve_rows(self, E: Array) -> Array:
        """E Sigma^-1, (n, K) to (n, K), rows in any number.  O(n K s); refined where some d is small, as in LowRank."""
        out = self._solve_rows_once(E)
        for _ in range(self._refinements):
            out += self._solve_rows_once(E - self._rows_matmul(out))
        return out

    @cached_property
    def logdet(self) -> float:
        """log|Sigma| = sum log d + 2 sum log diag R_g."""
        roots = sum(float(np.log(np.diagonal(R)).sum()) for level in self._roots for R in level)
        return float(np.log(self.d).sum()) + 2.0 * roots

    @cached_property
    def precision_loadings(self) -> Array:
        """Sigma^-1 F, (K, m)."""
        return self.solve(self.F)

    @cached_property
    def precision_diagonal(self) -> Array:
        """diag(Sigma^-1), (K,).  O(K s), and O(K s) more for each row that needs refinement."""
        out = 1.0 / self.d
        for half in self._halves:
            out -= np.einsum("ik,ik->i", half, half)
        delicate = np.flatnonzero(self._signal_to_noise > REFINE_ABOVE)
        if delicate.size:
            units = np.zeros((delicate.size, self.n_equations))
            units[np.arange(delicate.size), delicate] = 1.0
            out[delicate] = self.solve_rows(units)[np.arange(delicate.size), delicate]
        return out

    def trace_solve(self, S: Array) -> float:
        """tr(Sigma^-1 S) for a dense symmetric S (K, K).  O(K^2 s)."""
        return float(np.trace(self.solve_rows(S)))

    def nll(self, S: Array) -> float:
        """Negative log-likelihood of one row, 1/2 [K log 2 pi + log|Sigma| + tr(Sigma^-1 S)], S (K, K) = R'R / N."""
        return 0.5 * (self.n_equations * LOG_2PI + self.logdet + self.trace_solve(S))

    def dense(self) -> Array:
        """Sigma, (K, K)."""
        out = np.diag(self.d)
        for rows, own, _ in self.blocks.blocks():
            index = np.arange(self.n_equations)[rows]
            out[np.ix_(index, index)] += self.A[rows, own] @ self.A[rows, own].T
        return out

    def precision(self) -> Array:
        """Sigma^-1, (K, K), symmetric to the last bit.  O(K^2 s)."""
        out = self.solve_rows(np.eye(self.n_equations))
        return np.asarray(0.5 * (out + out.T))

    def rescaled(self, scale: Array) -> GroupedFactors:
        """diag(scale) Sigma diag(scale): the same covariance after a change of units; scale (K,), no zeros."""
        return GroupedFactors(self.blocks, self.A * scale[:, None], self.d * scale**2)

    def normalised(self) -> GroupedFactors:
        """The same Sigma, the loadings A_g of every group rotated as `LowRank.normalised` does.  O(K s^2)."""
        A = self.A.copy()
        for rows, own, _ in self.blocks.blocks():
            if own.stop > own.start:
                A[rows, own] = LowRank(A[rows, own], self.d[rows]).normalised().F
        return GroupedFactors(self.blocks, A, self.d)


def _eliminated(fine: Array, coarse: Array) -> tuple[Array, Array]:
    """R with R'R = I + fine'fine, and rows T with T'T = coarse'(I + fine fine')^-1 coarse.  By one QR."""
    rank = fine.shape[1]
    top = np.eye(rank, rank + coarse.shape[1])
    R = np.linalg.qr(np.vstack([top, np.hstack([fine, coarse])]), mode="r")
    R = R * np.where(np.diagonal(R) < 0.0, -1.0, 1.0)[:, None]
    return R[:rank, :rank], R[rank:, rank:]
