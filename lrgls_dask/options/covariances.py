"""Structures of Sigma that a user may ask for, as options of the estimator."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd
import xarray as xr

from lrgls_dask.checks import as_number, check_factors, closest, shown
from lrgls_dask.design.design import Design
from lrgls_dask.sigma.blocks import blocks_of
from lrgls_dask.sigma.grouped_structure import GroupedStructure
from lrgls_dask.sigma.lowrank import max_rank
from lrgls_dask.sigma.sparse import SparseStructure, checked_l1

__all__ = ["DESCRIBED", "Described", "GroupedLowRank", "SparseLowRank", "TimeVarying", "check_identified"]


@dataclass(frozen=True)
class SparseLowRank:
    """Sigma = F F' + diag(d) with loadings that are mostly zero: l1 sum |F_ij| is added to nll per row.

    rank : number of factors, at least 1.
    l1 : 0 or more, on loadings in standard units (each response by its OLS residual standard deviation), so free of
        the units of the data; 0 is maximum likelihood, turned to varimax. "bic" takes the value whose zeros have the
        least BIC out of 0 and 20 more up to where no loading is left: `fit.selection` has them all. Every set of zeros
        is judged by its maximum likelihood, without the penalty, at the residuals of the fit with l1 = 0.

    Raises TypeError or ValueError for other ranks and penalties.
    """

    rank: int
    l1: float | Literal["bic"] = "bic"

    def __post_init__(self) -> None:
        check_factors("rank", self.rank, least=1)
        if isinstance(self.l1, str):
            if self.l1 != "bic":
                raise ValueError(f"l1 must be a number or 'bic'; got {self.l1!r}.")
        else:
            checked_l1(as_number("l1", self.l1, "a number or 'bic'"))

    @property
    def by_bic(self) -> bool:
        """Whether the data choose l1."""
        return isinstance(self.l1, str)

    def structure(self, design: Design) -> SparseStructure:
        """For the equations of `design`; unpenalised where l1 is yet to be chosen."""
        check_identified(self.rank, design.n_equations)
        return SparseStructure(int(self.rank), 0.0 if isinstance(self.l1, str) else float(self.l1))


@dataclass(frozen=True)
class GroupedLowRank:
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

    def __post_init__(self) -> None:
        check_factors("rank", self.rank, least=0)
        for number in self._group_ranks():
            check_factors("group_rank", number, least=0)
        self._groupings()

    def structure(self, design: Design) -> GroupedStructure:
        """For the equations of `design`. Raises ValueError where the groups do not cover, nest or identify."""
        check_identified(self.rank, design.n_equations)
        ranks = [int(number) for number in self._group_ranks()]
        groupings = [
            _by_coordinate(each, design) if isinstance(each, str) else _without_missing(each)
            for each in self._groupings()
        ]
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
        return [_as_mapping(each) for each in levels]


@dataclass(frozen=True)
class TimeVarying:
    """Sigma_t = F_t F_t' + diag(d_t), one for each segment of rows from its neighbours; common coefficients.

    rank : number of factors.
    segments : (N,) labels of the rows, in order, each the segment of its row: an array, a Series or a DataArray along
        the rows such as ds["time"].dt.year; or the name of the dim of rows, "time", or of a part of its dates,
        "time.year"; or "groups" for those of the System.
    bandwidth : how many segments away a neighbour still counts, with weight 1 - (distance / bandwidth)^2. 0 keeps
        segments apart (and so does 1), infinity is the static fit, "cv" chooses by the likelihood of segments left out
        of their own Sigma_t: `fit.selection` has all that were tried.

    Raises TypeError or ValueError for other ranks and bandwidths; the labels are checked by `fit`.
    """

    rank: int
    segments: Any = field(repr=False)
    bandwidth: float | Literal["cv"] = "cv"

    def __post_init__(self) -> None:
        check_factors("rank", self.rank, least=0)
        if isinstance(self.bandwidth, str):
            if self.bandwidth != "cv":
                raise ValueError(f"bandwidth must be a number of segments or 'cv'; got {self.bandwidth!r}.")
        elif not as_number("bandwidth", self.bandwidth, "a number of segments or 'cv'") >= 0:
            raise ValueError(f"bandwidth must be 0 or more, in segments; got {self.bandwidth!r}.")


def check_identified(rank: int, n_equations: int) -> None:
    """Raise ValueError for more factors than so many equations identify."""
    most = max_rank(n_equations)
    if rank > most:
        raise ValueError(
            f"rank {rank} is more than {n_equations} equations identify: the largest k with "
            f"(K - k)^2 >= K + k is {most}. Use rank <= {most}."
        )


def _by_coordinate(name: str, design: Design) -> Mapping[Hashable, Hashable]:
    """The groups that a coordinate of the equations names."""
    known = design.equation_coords
    if name not in known:
        has = f"has {shown([str(each) for each in known])}{closest(name, known)}" if known else "has none."
        raise ValueError(
            f"groups names a coordinate {name!r} along the equations, but the system {has} Pass equation -> group, "
            "a dict or a Series."
        )
    return _without_missing(dict(zip(design.equations, known[name], strict=True)))


def _without_missing(groups: Mapping[Hashable, Hashable]) -> Mapping[Hashable, Hashable]:
    """Without the equations whose group is None or NaN: they have none."""
    return {name: group for name, group in groups.items() if not (group is None or group is pd.NA or group != group)}


def _as_mapping(groups: Any) -> str | Mapping[Hashable, Hashable]:
    if isinstance(groups, str):
        return groups
    if isinstance(groups, xr.DataArray):
        if groups.ndim != 1 or groups.dims[0] not in groups.indexes:
            raise ValueError(f"groups must have one dim with labels, that of the equations; got dims {groups.dims}.")
        groups = pd.Series(groups.values, groups.indexes[groups.dims[0]])
    if isinstance(groups, pd.Series):
        repeated = groups.index[groups.index.duplicated()]
        if len(repeated):
            raise ValueError(f"groups: equation {repeated[0]!r} is there more than once. Give it one group.")
        return dict(zip(groups.index.tolist(), groups.tolist(), strict=True))
    if isinstance(groups, Mapping):
        return groups
    raise TypeError(
        "groups must map equations to groups: the name of a coordinate, a dict, a pandas Series or a DataArray along "
        f"the equations; got {groups!r}. Pass one of these, or a list of them."
    )


Described = SparseLowRank | GroupedLowRank | TimeVarying

# What `covariance` may be besides a word, by what a command line and a saved fit call it.
DESCRIBED: dict[str, Any] = {"sparse": SparseLowRank, "grouped": GroupedLowRank, "time-varying": TimeVarying}
