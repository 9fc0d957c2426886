"""The covariance that is robust to correlation within groups of rows, of one kind or of several."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from lrgls_dask.errors import FitWarning, warn_user
from lrgls_dask.inference.bread_of_rows import BreadOfRows
from lrgls_dask.inference.gradient_kernels import Clusters
from lrgls_dask.inference.multiway import MOST_WAYS, crossed, crossed_sum
from lrgls_dask.inference.sandwich import clustered
from lrgls_dask.inference.structured import StructuredCov
from lrgls_dask.results.cov.kind import CovValues, formed
from lrgls_dask.results.cov.sandwich import BY_DEGREES, Correction, Sandwich
from lrgls_dask.rows.meter import Meter
from lrgls_dask.system import System

__all__ = ["Cluster", "clusters_of"]


@dataclass(frozen=True, eq=False)
class Cluster(Sandwich):
    """Against correlation within groups, of one kind or of several at once.

    groups : (N,) labels, paired with the rows by theirs; several of them as a list, an (N, m) array or a frame, up to
    four, for errors that are correlated within groups of any kind: sums of the covariances of each kind less those of
    the crossings. None for those of the system.
    correction : "HC1" or "CR1" also multiplies by G / (G - 1) (N - 1) / N; with one equation that is Stata's and
    statsmodels' (N - 1) / (N - p) G / (G - 1).
    group_debias : whether to multiply by G / (G - 1) (N - 1) / N, whatever the correction. As linearmodels' options:
    debiased=True, group_debias=True or False.

    Of effects that were absorbed p counts one for a label whose groups lie within one cluster each, as fixest does.
    G counts the groups with rows that were fitted: of positive weight, and complete ones with missing="drop"; of
    several kinds each covariance has its own, and tests the least. A sum of several kinds may have negative
    eigenvalues, which is warned of; where a variance is negative they are taken for zero.
    Source: Liang and Zeger (1986); Cameron, Gelbach and Miller (2011).
    """

    groups: Any = field(default=None, metadata={"command_line": "one label a row: those of the store are used"})
    group_debias: bool | None = None
    name: ClassVar[str] = "cluster"
    corrections: ClassVar[tuple[str, ...]] = ("none", "HC0", "HC1", "CR1")

    def sandwich(self, system: System, bread: BreadOfRows, equation: int | None, correction: Correction) -> CovValues:
        kinds = system.groupings_of_rows(self.groups)
        if not kinds:
            raise ValueError("kind='cluster' needs groups: pass groups=, one label a row, or a system that has them.")
        if len(kinds) > MOST_WAYS:
            raise ValueError(
                f"groups has {len(kinds)} kinds of groups, and a covariance is clustered by at most {MOST_WAYS}. Pass "
                "one label a row, or a list of a few such."
            )
        codes = [_codes_of(labels) for labels in kinds]
        sets = crossed(len(kinds))
        ways = tuple(_runs_of(_crossing([codes[i] for i in each])) for each, _ in sets)
        found = clustered(system.rows, bread, equation, ways, Meter())
        by_group = self.correction in BY_DEGREES if self.group_debias is None else self.group_debias
        factors = [_of_groups(n, bread.n_obs) if by_group else 1.0 for _, n in found]
        counts = [n for _, n in found[: len(kinds)]]
        counted = " and ".join(f"{n:,}" for n in counts)
        note = f"{_said(correction, by_group)}, {counted} groups"
        uncounted = _uncounted(system, codes)
        if len(kinds) == 1:
            return CovValues(_times(factors[0], found[0][0]), note, counts[0], uncounted)
        parts = [formed(_times(f, one)) * sign for f, (_, sign), (one, _) in zip(factors, sets, found, strict=True)]
        values, doubt = crossed_sum(parts, len(kinds))
        if doubt:
            note += f", {doubt}"
            warn_user(
                f"clustered covariance: {doubt}, since there are few groups of some kind beside {len(values)} "
                "coefficients. Single standard errors are rough, joint tests of many coefficients are not to be had.",
                FitWarning,
            )
        return CovValues(values, note, min(counts), uncounted)


def _times(factor: float, values: np.ndarray | StructuredCov) -> np.ndarray | StructuredCov:
    if isinstance(values, StructuredCov):
        return values.scaled(np.full(values.design.n_coefficients, np.sqrt(factor)))
    return np.asarray(factor * values)


def _uncounted(system: System, clusters: list[np.ndarray]) -> int:
    """Parameters of absorbed effects that corrections do not count: of labels whose groups lie within one cluster each,
    all but one, since scores of a cluster leave their effects no freedom (Cameron and Miller 2015, section III.B)."""
    absorb, absorbed = system.rows.absorb, system.design.absorbed
    if absorb is None or absorbed is None:
        return 0
    codes: Any = absorb.part.array
    nested = [
        n_groups - 1
        for label, n_groups in zip(codes.T, absorbed.n_groups, strict=True)
        if any(_lies_within(label, cluster) for cluster in clusters)
    ]
    return min(sum(nested), absorbed.n_parameters - 1)


def _lies_within(groups: np.ndarray, clusters: np.ndarray) -> bool:
    """Whether all rows of a group are in one cluster, codes (N,) both."""
    of_group = np.zeros(int(groups.max()) + 1, dtype=clusters.dtype)
    groups, clusters = groups[groups >= 0], clusters[groups >= 0]
    of_group[groups] = clusters
    return bool(np.array_equal(of_group[groups], clusters))


def _of_groups(n_groups: int, n_rows: int) -> float:
    return n_groups / (n_groups - 1) * (n_rows - 1) / n_rows


def _said(correction: str, by_group: bool) -> str:
    """The factors, for tables."""
    if correction in BY_DEGREES:
        return correction if by_group else f"{correction} without G / (G - 1)"
    return "HC0 with G / (G - 1)" if by_group else "HC0"


def clusters_of(labels: np.ndarray, what: str = "groups", *, sort: bool = False) -> Clusters:
    """The groups of rows by label (N,), of any dtype, numbered by first occurrence or in ascending order.

    Memory a few times the labels. Raises ValueError for fewer than two, and what has no order.
    """
    return _runs_of(_codes_of(labels, what, sort=sort))


def _codes_of(labels: np.ndarray, what: str = "groups", *, sort: bool = False) -> np.ndarray:
    """(N,) codes 0..G-1 of labels; see `clusters_of`."""
    try:
        codes, distinct = pd.factorize(labels, sort=sort)
    except TypeError as error:
        raise ValueError(f"{what} must have an order; got labels of several kinds ({error}).") from None
    if len(distinct) < 2:
        raise ValueError(f"a clustered covariance needs at least two {what}; all rows are in {distinct[0]!r}.")
    return np.asarray(codes)


def _crossing(codes: list[np.ndarray]) -> np.ndarray:
    """(N,) codes of the groups of rows that agree in all of `codes`."""
    joint = codes[0].astype(np.int64)
    for other in codes[1:]:
        joint = pd.factorize(joint * (int(other.max()) + 1) + other)[0].astype(np.int64)
    return joint


def _runs_of(codes: np.ndarray) -> Clusters:
    """The groups of rows by codes 0..G-1 (N,), each of which occurs."""
    n_rows, n_groups = len(codes), int(codes.max()) + 1
    codes = codes.astype(np.int32 if n_groups < 2**31 else np.int64)
    edges = np.concatenate([[0], np.flatnonzero(codes[1:] != codes[:-1]) + 1, [n_rows]])
    of_runs = codes[edges[:-1]]
    first, last = np.full(n_groups, n_rows), np.zeros(n_groups, dtype=np.int64)
    np.minimum.at(first, of_runs, edges[:-1])
    np.maximum.at(last, of_runs, edges[1:] - 1)
    return Clusters(edges, of_runs, first, last)
