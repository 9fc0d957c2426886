"""Hierarchical factors at a given S: general ones on all equations, others on the equations of a group only.

    Sigma = F F' + sum over levels and groups of L_g L_g' + diag(d),    d >= floor     (nested.py has the value)

Maximum likelihood over all loadings and log d by EM and Newton steps with exact curvature. Starts come from what each
level alone explains: general factors from covariances across groups (Tucker's 1958 inter-battery idea), the factors of
a group from what is then left inside it; or general factors first, as an unstructured fit has them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from lrgls_dask.checks import check_factors, groups_of, one_group_each
from lrgls_dask.sigma.blocks import Blocks, blocks_of, groups_of_some
from lrgls_dask.sigma.grouped_factors import GroupedFactors
from lrgls_dask.sigma.groupwise import approached, cycled, leaf_candidates
from lrgls_dask.sigma.identified import check_identified
from lrgls_dask.sigma.interface import Array, Equations, FactorStructure, Kind, SigmaOption, SigmaStep
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.ml import MAX_CANDIDATES, merged, ml_step
from lrgls_dask.sigma.newtoncg import LOOSE, TIGHT, Goal, finished, minimise_composite
from lrgls_dask.sigma.starts import across
from lrgls_dask.sigma.steps import ROUNDING, checked_inputs

__all__ = ["GROUPED", "GroupedLowRank", "GroupedStructure", "grouped_candidates", "grouped_step"]

# No start leaves less than this share of a variance to the equation itself.
LEAST = 0.05
# Random starts up to this K; their loadings are so large.
RANDOM_UP_TO, N_RANDOM, SEED = 60, 4, 20260101
RANDOM_SIZE = 0.5


@dataclass(frozen=True)
class GroupedLowRank(SigmaOption):
    """Sigma = F F' + diag(d) with `rank` factors of all equations and `group_rank` more of each group of them.

    groups : the name of a coordinate along the equations, such as "sector" of `ds["sector"]`; or equation -> group, a
        mapping, a pandas Series or a DataArray along the equations; or a list of these for several levels, coarse
        first, the groups of each inside those of the level before.
    group_rank : factors of each group, one number for all levels or one for each.

    Raises TypeError or ValueError for what is none of these; whether the groups suit the equations is checked by `fit`.
    """

    rank: int
    groups: Any
    group_rank: int | Sequence[int] = 1
    by_rows: ClassVar[bool] = True
    of_some = groups_of_some

    def __post_init__(self) -> None:
        check_factors("rank", self.rank, least=0)
        for number in self._group_ranks():
            check_factors("group_rank", number, least=0)
        self._groupings()

    def structure(self, design: Equations) -> GroupedStructure:
        """For the equations of `design`. Raises ValueError where the groups do not cover, nest or identify."""
        check_identified(self.rank, design.n_equations)
        ranks = [int(number) for number in self._group_ranks()]
        groupings = [groups_of(each, design.equations, design.equation_coords) for each in self._groupings()]
        return GroupedStructure(blocks_of(design.equations, groupings, int(self.rank), ranks))

    def _levels(self) -> list[Any]:
        several = isinstance(self.groups, Sequence) and not isinstance(self.groups, str)
        return list(self.groups) if several else [self.groups]

    def _group_ranks(self) -> list[Any]:
        if isinstance(self.group_rank, Sequence):
            return list(self.group_rank)
        return [self.group_rank] * len(self._levels())

    def _groupings(self) -> list[str | Mapping[Hashable, Hashable]]:
        levels = self._levels()
        if not levels:
            raise ValueError("groups is empty. Give the group of every equation, or use covariance='lowrank'.")
        return [one_group_each(each) for each in levels]


@dataclass(frozen=True, eq=False)
class _Sorted:
    """The problem with equations of a group next to each other, so that a block of S is a view and not a copy.

    order : (K,) positions of the sorted equations in the user's order.
    """

    order: np.ndarray
    goal: Goal

    @classmethod
    def of(cls, S: Array, blocks: Blocks, floor: Array) -> _Sorted:
        order = np.lexsort(tuple(reversed(blocks.codes)))
        inner = Blocks(tuple(codes[order] for codes in blocks.codes), blocks.ranks)
        return cls(order, Goal(inner, np.ascontiguousarray(S[np.ix_(order, order)]), floor[order]))

    def inside(self, sigma: GroupedFactors) -> GroupedFactors:
        return GroupedFactors(self.goal.blocks, sigma.A[self.order], sigma.d[self.order])

    def outside(self, sigma: GroupedFactors, blocks: Blocks) -> GroupedFactors:
        A, d = np.empty_like(sigma.A), np.empty_like(sigma.d)
        A[self.order], d[self.order] = sigma.A, sigma.d
        return GroupedFactors(blocks, A, d)


def grouped_step(
    S: Array, blocks: Blocks, floor: Array, *, start: GroupedFactors | None = None, tol: float = TIGHT
) -> SigmaStep[GroupedFactors]:
    """The Sigma with the factors of `blocks` that minimises nll(Sigma; S) subject to d >= floor.

    S : (K, K) residual second moments in standard units.  floor : (K,), > 0.
    start : where to begin, without one the better of two; the result is never worse: accept_t is 0.0 when it is the
    start.  A local optimum, slopes below `tol`, at least 1e-9, or at rounding.  O(K^2 s) a Hessian product, s factors
    an equation.
    Raises ValueError for inputs that do not fit together.
    """
    _check(S, blocks, floor, start)
    if start is None:
        return grouped_candidates(S, blocks, floor, few=True, tol=tol)[0]
    problem = _Sorted.of(S, blocks, floor)
    near = cycled(problem.goal.S, problem.inside(start), problem.goal.floor)
    end = minimise_composite(problem.goal, near, tol=max(tol, TIGHT))
    before = start.nll(S)
    if end.value <= before + ROUNDING * max(1.0, abs(before)):
        return SigmaStep(problem.outside(end.sigma, blocks), 1.0)
    return SigmaStep(start, 0.0)


def grouped_candidates(
    S: Array, blocks: Blocks, floor: Array, *, few: bool = False, tol: float = TIGHT
) -> list[SigmaStep[GroupedFactors]]:
    """Distinct local optima, best first, at most MAX_CANDIDATES; few : no random starts.  Errors as `grouped_step`."""
    _check(S, blocks, floor, None)
    problem = _Sorted.of(S, blocks, floor)
    S, floor = problem.goal.S, problem.goal.floor
    loose = [
        minimise_composite(problem.goal, approached(S, start, floor), tol=LOOSE) for start in _starts(problem.goal, few)
    ]
    distinct = merged([(end.value, 1, end.sigma) for end in loose])[: 1 if few else MAX_CANDIDATES]
    near = [(approached(S, end, floor, leaf_candidates if few else _restarted), agreed) for _, agreed, end in distinct]
    steps = finished(problem.goal, near, len(loose), tol=tol)
    return [replace(step, sigma=problem.outside(step.sigma, blocks)) for step in steps]


def _restarted(S: Array, sigma: GroupedFactors, floor: Array) -> GroupedFactors:
    """The best of what several starts find for a group, groups inside it included, and `sigma`: a `GroupFit`."""
    if len(sigma.blocks.ranks) == 1:
        return leaf_candidates(S, sigma, floor)
    best = grouped_candidates(S, sigma.blocks, floor, tol=LOOSE)[0].sigma
    return best if best.nll(S) < sigma.nll(S) else sigma


def _check(S: Array, blocks: Blocks, floor: Array, start: GroupedFactors | None) -> None:
    checked_inputs(S, blocks.ranks[0], floor)
    if blocks.n_equations != floor.size:
        raise ValueError(f"the groups are of {blocks.n_equations} equations but S is of {floor.size}. Use the same.")
    if start is not None and start.blocks.ranks != blocks.ranks:
        raise ValueError(
            f"the start has {start.blocks.ranks} factors from coarse to fine but {blocks.ranks} were asked for. "
            "Start from a fit with the same structure."
        )


@dataclass(frozen=True)
class GroupedStructure(FactorStructure):
    """Sigma with the factors of `blocks` (see `blocks_of`), for the loop that alternates it with the coefficients."""

    blocks: Blocks

    @cached_property
    def rank(self) -> int:  # type: ignore[override]  # nothing writes to a frozen structure
        """Number of all factors."""
        return self.blocks.n_factors

    def start(self, S: Array, floor: Array) -> GroupedFactors:
        """diag(S)."""
        d = np.maximum(np.diagonal(S), floor)
        return GroupedFactors(self.blocks, np.zeros((d.size, self.blocks.n_own)), d)

    def candidates(self, S: Array, floor: Array, *, tol: float = TIGHT) -> list[SigmaStep[GroupedFactors]]:
        """`grouped_candidates`."""
        return grouped_candidates(S, self.blocks, floor, tol=tol)

    def update(self, S: Array, floor: Array, start: GroupedFactors, *, tol: float = TIGHT) -> SigmaStep[GroupedFactors]:
        """`grouped_step` from `start`."""
        return grouped_step(S, self.blocks, floor, start=start, tol=tol)

    def matrices(self, n_equations: int) -> int:
        """Sorted by groups, scaled, and the products of a step; 9 seen."""
        return 10

    def n_parameters(self, n_equations: int) -> int:
        """Loadings and variances less rotations."""
        return n_equations * (self.blocks.n_own + 1) - self.blocks.n_rotations()

    def loadings(self, n_equations: int) -> Blocks:
        """Which loadings may differ from zero."""
        return self.blocks

    def value(self, wide: LowRank) -> GroupedFactors:
        """A Sigma whose loadings stand side by side, zeros outside the groups, as one of this structure."""
        return GroupedFactors(self.blocks, self.blocks.compact(wide.F), wide.d)


GROUPED = Kind((GroupedFactors,), lambda sigma, how: GroupedStructure(sigma.blocks))


# ---------------------------------------------------------------------------------------------- starts


def _starts(goal: Goal, few: bool) -> Iterator[GroupedFactors]:
    S, blocks = goal.S, goal.blocks
    yield _start(goal, across(S, blocks.ranks[0], _inner(blocks, 0)))
    yield _start(goal, ml_step(S, blocks.ranks[0], goal.floor).sigma.F)
    if few or blocks.n_equations > RANDOM_UP_TO:
        return
    rng, size = np.random.default_rng(SEED), np.sqrt(np.diagonal(S))[:, None]
    for _ in range(N_RANDOM):
        A = RANDOM_SIZE * rng.standard_normal((blocks.n_equations, blocks.n_own)) * size
        yield GroupedFactors(blocks, A, np.maximum(RANDOM_SIZE * np.diagonal(S), goal.floor))


def _start(goal: Goal, general: Array) -> GroupedFactors:
    """General loadings (K, k) as given, those of each group from what the coarser ones leave inside it."""
    blocks = goal.blocks
    A = np.zeros((blocks.n_equations, blocks.n_own))
    A[:, blocks.own[0]] = general
    rest = goal.S - general @ general.T
    for number in range(1, len(blocks.ranks)):
        inner = _inner(blocks, number)
        for rows in blocks.members[number]:
            L = across(rest[rows][:, rows], blocks.ranks[number], inner[rows])
            A[rows, blocks.own[number]] = L
            index = np.arange(blocks.n_equations)[rows]
            rest[np.ix_(index, index)] -= L @ L.T
    d = np.maximum(np.diagonal(goal.S) - np.einsum("ij,ij->i", A, A), LEAST * np.diagonal(goal.S))
    return GroupedFactors(blocks, A, np.maximum(d, goal.floor))


def _inner(blocks: Blocks, number: int) -> np.ndarray:
    """(K,) which block of the next finer level an equation is in; itself at the finest."""
    last = number + 1 == len(blocks.codes)
    return np.arange(blocks.n_equations) if last else blocks.codes[number + 1]
