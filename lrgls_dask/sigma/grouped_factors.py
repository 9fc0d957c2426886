"""Sigma = sum over levels of blockdiag(A_g A_g') + diag(d): factors of all equations, of groups, of groups in groups.

Level 0 is one group of all K equations; the groups of each further level lie inside those of the one before. With
B_0 = D and B_l = B_(l-1) + blockdiag(A_g A_g') from the finest level outwards, Woodbury (1950) at each level reads

    B_l^-1 = B_(l-1)^-1 - blockdiag(H_g H_g'),    H_g = B_(l-1)^-1 A_g R_g^-1,    R_g'R_g = I + A_g' B_(l-1)^-1 A_g,

so Sigma^-1 = D^-1 - sum of block-diagonal low-rank terms and log|Sigma| = sum log d + 2 sum log diag R_g. A right-hand
side costs O(K s), s the number of factors that touch one equation, not of all factors. The R_g come from an
elimination by QR of the rows D^-1/2 A, finest level first, which squares no condition number.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from lrgls_dask.sigma.algebra import FactorsAndOwn, check_rows
from lrgls_dask.sigma.blocks import Blocks
from lrgls_dask.sigma.conditional import FactorConditional
from lrgls_dask.sigma.interface import Array, Description, Stored
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.own import Diagonal
from lrgls_dask.sigma.shown import FactorRows

__all__ = ["GroupedFactors"]


@dataclass(frozen=True, eq=False)
class GroupedFactors(FactorsAndOwn):
    """Covariance of K equations with general factors and factors of groups, factored at first use.

    blocks : which equations each factor touches.  A : (K, s) compact loadings.  d : (K,) idiosyncratic variances, > 0.
    Memory O(K s).  Raises ValueError for shapes that do not fit and for d that is not positive and finite.
    """

    blocks: Blocks
    A: Array
    d: Array
    is_wide: ClassVar[bool] = True
    kinds: ClassVar[tuple[str, ...]] = ("grouped",)
    saved: ClassVar[tuple[str, ...]] = ("own_loadings", "idio_var", "factor_groups", "factor_ranks", "group_names")

    def __post_init__(self) -> None:
        K, s = self.blocks.n_equations, self.blocks.n_own
        if self.A.shape != (K, s) or self.d.shape != (K,):
            raise ValueError(
                f"GroupedFactors needs A {(K, s)} and d {(K,)}; got A {self.A.shape} and d {self.d.shape}."
            )
        check_rows(type(self).__name__, "A", self.A, self.d)

    @classmethod
    def from_arrays(
        cls, A: Array, d: Array, codes: NDArray[np.int64], ranks: NDArray[np.int64], names: NDArray[Any]
    ) -> GroupedFactors:
        """From plain arrays: codes (levels, K) the group of each equation, ranks (levels,), coarse first.

        names : of all groups, level by level.
        """
        rows = tuple(np.asarray(codes, dtype=np.intp))
        ends = np.cumsum([0, *(int(row.max()) + 1 for row in rows)])
        by_level = tuple(tuple(str(name) for name in names[a:b]) for a, b in pairwise(ends))
        return cls(Blocks(rows, tuple(int(r) for r in ranks), by_level), A, d)

    def stored(self) -> Stored:
        """The arguments of `from_arrays` by name, each with the names of its dims."""
        return {
            "own_loadings": (self.A, ("equation", "own_factor")),
            "idio_var": (self.d, ("equation",)),
            "factor_groups": (np.stack(self.blocks.codes).astype(np.int64), ("level", "equation")),
            "factor_ranks": (np.array(self.blocks.ranks, dtype=np.int64), ("level",)),
            "group_names": (np.array([n for names in self.blocks.group_names for n in names]), ("group",)),
        }

    @property
    def kind(self) -> str:
        return "grouped"

    def describe(self) -> Description:
        general = self.blocks.ranks[0]
        factors = f"{self.rank}: {general} general, {self.rank - general} of groups"
        null = f"Sigma has {self.rank} factor{'' if self.rank == 1 else 's'}"
        return Description("Sigma = F F' + diag(d), factors of groups", factors, null)

    def warnings(self) -> list[str]:
        lost = self.blocks.n_unidentified()
        if not lost:
            return []
        return [
            f"the groups leave {lost} direction{'s' if lost > 1 else ''} of the loadings unidentified, although Sigma "
            "itself is found: use three or more groups, larger ones, or fewer factors"
        ]

    @cached_property
    def own(self) -> Diagonal:
        """diag(d)."""
        return Diagonal(self.d)

    def pattern(self) -> Blocks:
        """Those inside the groups."""
        return self.blocks

    @property
    def n_equations(self) -> int:
        """K."""
        return self.blocks.n_equations

    @property
    def rank(self) -> int:
        """m, the number of all factors, those of groups included."""
        return self.blocks.n_factors

    @property
    def factor_labels(self) -> list[int] | list[str]:
        """(m,) for each factor the name of its group."""
        return self.blocks.factor_names

    @property
    def n_parameters(self) -> int:
        """Loadings and variances, less the rotations among factors with the same equations, which leave Sigma alone."""
        return self.A.size + self.d.size - self.blocks.n_rotations()

    @property
    def F(self) -> Array:
        """(K, m) loadings with their zeros: Sigma = F F' + diag(d)."""
        return self.blocks.wide(self.A)

    def loadings(self) -> Array:
        """F, (K, m)."""
        return self.F

    def widened(self) -> LowRank:
        """All factors side by side."""
        return LowRank(self.F, self.d)

    def conditional(self, shown: NDArray[np.bool_]) -> FactorConditional:
        return self.widened().conditional(shown)

    def rows(self, observed: Array) -> FactorRows:
        return self.widened().rows(observed)

    @property
    def conditional_numbers(self) -> int:
        K, m = self.n_equations, self.rank
        return 4 * K + (K + 2 * m) * max(m, 1)

    def level(self, number: int) -> Array:
        """(K, r) loadings on the factors of one level: 0 the general ones, 1 those of the first grouping, ..."""
        return self.A[:, self.blocks.own[number]]

    @cached_property
    def factor_variances(self) -> Array:
        """The factors' part of diag(Sigma), (K,)."""
        return np.einsum("ik,ik->i", self.A, self.A)

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
        """H of each level, compact (K, r), coarse first: Sigma^-1 = D^-1 - sum of blockdiag(H_g H_g').  O(K s^2)."""
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

    @cached_property
    def logdet(self) -> float:
        """log|Sigma| = sum log d + 2 sum log diag R_g."""
        roots = sum(float(np.log(np.diagonal(R)).sum()) for level in self._roots for R in level)
        return float(np.log(self.d).sum()) + 2.0 * roots

    @cached_property
    def precision_loadings(self) -> Array:
        """Sigma^-1 F, (K, m)."""
        return self.solve(self.F)

    def dense(self) -> Array:
        """Sigma, (K, K)."""
        out = np.diag(self.d)
        for rows, own, _ in self.blocks.blocks():
            index = np.arange(self.n_equations)[rows]
            out[np.ix_(index, index)] += self.A[rows, own] @ self.A[rows, own].T
        return out

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
    triangle = np.asarray(np.linalg.qr(np.vstack([top, np.hstack([fine, coarse])]), mode="r"))
    R = triangle * np.where(np.diagonal(triangle) < 0.0, -1.0, 1.0)[:, None]
    return R[:rank, :rank], R[rank:, rank:]
