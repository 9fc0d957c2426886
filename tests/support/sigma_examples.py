"""An example of every registered kind of Sigma, for the laws that all of them keep."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lrgls_dask.sigma.block_lowrank import BlockLowRank
from lrgls_dask.sigma.full import Full
from lrgls_dask.sigma.grouped_structure import GroupedLowRank
from lrgls_dask.sigma.interface import Sigma, Structure
from lrgls_dask.sigma.known import Known
from lrgls_dask.sigma.sparse import SparseLowRank
from lrgls_dask.sigma.structures import LowRankStructure, diagonal

K = 9


@dataclass(frozen=True)
class Labels:
    """What an option sees of a design."""

    equations: tuple[str, ...] = tuple(f"y{j}" for j in range(K))
    equation_coords: dict[str, Any] = field(default_factory=lambda: {"sector": tuple("aaabbbccc")})

    @property
    def n_equations(self) -> int:
        return len(self.equations)


LABELS = Labels()
FLOOR = np.full(K, 1e-8)


def moments(seed: int = 0, n: int = 60) -> np.ndarray:
    """(K, K) residual moments of unit variances: a common factor, one of each sector, and noise."""
    rng = np.random.default_rng(seed)
    E = rng.normal(size=(n, 1)) @ rng.uniform(0.5, 1.0, (1, K)) + 0.8 * rng.normal(size=(n, K))
    E += 0.7 * np.repeat(rng.normal(size=(n, 3)), 3, axis=1)
    S = E.T @ E / n
    unit = np.sqrt(np.diag(S))
    return S / np.outer(unit, unit)


# By the name it is saved under: a structure of K equations in standard units.
EXAMPLES: dict[str, Structure] = {
    "lowrank": LowRankStructure(2),
    "diagonal": diagonal(),
    "full": Full(),
    "sparse": SparseLowRank(2, 0.05).structure(LABELS),
    "grouped": GroupedLowRank(1, "sector").structure(LABELS),
    "block": BlockLowRank(1, "sector").structure(LABELS),
    "known": Known(moments(3)).structure(LABELS),
    "known-factors": Known(loadings=np.eye(K)[:, :2] + 0.3, idio_var=np.linspace(0.2, 1.0, K)).structure(LABELS),
}


def value(kind: str) -> Sigma:
    """One found from `moments`."""
    found: Sigma = EXAMPLES[kind].candidates(moments(), FLOOR)[0].sigma
    return found
