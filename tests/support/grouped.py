"""A bifactor system, one factor of all equations and one of each group of three, and structures of Sigma to fit it."""

from __future__ import annotations

import numpy as np

from lrgls_dask import GroupedLowRank, SparseLowRank
from support.systems import Data, simulate

EQUATIONS = [f"y{j}" for j in range(9)]
GROUPS = dict(zip(EQUATIONS, "aaabbbccc", strict=True))
GROUPED = GroupedLowRank(1, GROUPS)
SPARSE = SparseLowRank(2, l1=0.05)


def bifactor(kind: str = "mixed", n: int = 300, K: int = 9, weighted: bool = False) -> Data:
    """One factor of all equations, one of each group of three."""
    data = simulate(kind, n=n, K=K, weighted=weighted, seed=4)
    rng = np.random.default_rng([9, K])
    general, own = rng.uniform(0.5, 1.0, (2, K))
    E = rng.normal(size=(n, 1)) * general + np.repeat(rng.normal(size=(n, K // 3)), 3, axis=1) * own
    E += 0.7 * rng.normal(size=(n, K))
    weights = np.ones(n) if data.weights is None else data.weights
    fitted = np.column_stack([X @ rng.normal(size=X.shape[1]) for X in data.Xs])
    return Data(kind, fitted + E / np.sqrt(weights)[:, None], data.X, data.columns, data.weights)
