"""The covariance that is robust to correlation within groups of rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from lrgls_dask.data.sources import group_source
from lrgls_dask.inference.bread import Bread
from lrgls_dask.inference.sandwich import clustered, clusters_of
from lrgls_dask.results.cov.sandwich import Sandwich
from lrgls_dask.rows.run_pass import Meter
from lrgls_dask.system import System

__all__ = ["Cluster"]


@dataclass(frozen=True, eq=False)
class Cluster(Sandwich):
    """Against correlation within groups; correction "HC1" also multiplies by G / (G - 1) (N - 1) / N, G groups.

    groups : (N,) labels, None for those of the system.  Source: Liang and Zeger (1986).
    """

    groups: Any = field(default=None, metadata={"command_line": "one label a row: those of the store are used"})
    name: ClassVar[str] = "cluster"

    def sandwich(self, system: System, bread: Bread, equation: int | None) -> tuple[np.ndarray, str]:
        labels = system.groups if self.groups is None else group_source("groups", self.groups)
        if labels is None:
            raise ValueError("kind='cluster' needs groups: pass groups=, one label a row, or a system that has them.")
        clusters = clusters_of(labels, system.n_obs)
        n_groups = len(clusters.first)
        values = clustered(system.rows, bread, equation, clusters, Meter())
        if self.correction == "HC1":
            values = values * (n_groups / (n_groups - 1) * (bread.n_obs - 1) / bread.n_obs)
        return values, f"{self.correction}, {n_groups:,} groups"
