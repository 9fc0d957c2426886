"""The covariance that is robust to correlation within groups of rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from lrgls_dask.inference.bread import Bread
from lrgls_dask.inference.gradient_kernels import Clusters
from lrgls_dask.inference.sandwich import clustered
from lrgls_dask.results.cov.kind import CovValues
from lrgls_dask.results.cov.sandwich import Sandwich
from lrgls_dask.rows.run_pass import Meter
from lrgls_dask.system import System

__all__ = ["Cluster", "clusters_of"]


@dataclass(frozen=True, eq=False)
class Cluster(Sandwich):
    """Against correlation within groups; correction "HC1" also multiplies by G / (G - 1) (N - 1) / N.

    G counts the groups with rows that were fitted: of positive weight, and complete ones with missing="drop".
    groups : (N,) labels, paired with the rows by theirs; None for those of the system.  Source: Liang and Zeger (1986).
    """

    groups: Any = field(default=None, metadata={"command_line": "one label a row: those of the store are used"})
    name: ClassVar[str] = "cluster"

    def sandwich(self, system: System, bread: Bread, equation: int | None) -> CovValues:
        labels = system.groups_of_rows(self.groups)
        if labels is None:
            raise ValueError("kind='cluster' needs groups: pass groups=, one label a row, or a system that has them.")
        values, n_groups = clustered(system.rows, bread, equation, clusters_of(labels), Meter())
        if self.correction == "HC1":
            values = values * (n_groups / (n_groups - 1) * (bread.n_obs - 1) / bread.n_obs)
        return CovValues(values, f"{self.correction}, {n_groups:,} groups", n_groups)


def clusters_of(labels: np.ndarray) -> Clusters:
    """The groups of rows by label (N,), of any dtype.

    Memory a few times the labels. Raises ValueError for missing ones, and fewer than two groups.
    """
    n_rows = len(labels)
    codes, distinct = pd.factorize(labels)
    if (codes < 0).any():
        row = int(np.argmax(codes < 0))
        raise ValueError(
            f"groups: the label at row {row} is missing, {int((codes < 0).sum())} such labels in all. "
            "Give every row a group, or drop the row."
        )
    if len(distinct) < 2:
        raise ValueError(f"a clustered covariance needs at least two groups; all rows are in {distinct[0]!r}.")
    codes = codes.astype(np.int32 if len(distinct) < 2**31 else np.int64)
    edges = np.concatenate([[0], np.flatnonzero(codes[1:] != codes[:-1]) + 1, [n_rows]])
    of_runs = codes[edges[:-1]]
    first, last = np.full(len(distinct), n_rows), np.zeros(len(distinct), dtype=np.int64)
    np.minimum.at(first, of_runs, edges[:-1])
    np.maximum.at(last, of_runs, edges[1:] - 1)
    return Clusters(edges, of_runs, first, last)
