"""Systems of which some equations cannot be estimated, and the same without these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from lrgls_dask import System

__all__ = ["BAD", "GOOD", "NAMES", "SAID", "Spoiled", "check_same", "without_nan"]

NAMES = [f"e{j}" for j in range(8)]
BAD = {"e1": "no rows", "e4": "too few rows (2 of 4)", "e6": "constant"}
GOOD = [j for j, name in enumerate(NAMES) if name not in BAD]
SAID = [BAD.get(name, "ok") for name in NAMES]
TERMS = ["const", "x", "z", "own"]


class Spoiled:
    """Eight equations on shared columns and one of their own; those of BAD without an estimate.

    own columns of these hold NaN too.  holes : whether the others miss responses.
    """

    def __init__(self, *, n: int = 240, holes: bool = False, seed: int = 0) -> None:
        rng = np.random.default_rng([seed, n, holes])
        K = len(NAMES)
        self.shared = np.column_stack([np.ones(n), rng.normal(size=(n, 2))])
        self.own = rng.normal(size=(n, K))
        errors = rng.normal(size=(n, 1)) * rng.uniform(0.5, 1.0, size=K) + rng.normal(size=(n, K))
        self.Y = self.shared @ rng.normal(size=(3, K)) + 0.5 * self.own + errors
        if holes:
            self.Y[rng.random((n, K)) < 0.06] = np.nan
        self.Y[:, 1] = np.nan
        self.Y[[*range(5), *range(7, n)], 4] = np.nan
        self.Y[:, 6] = np.where(np.isnan(self.Y[:, 6]), np.nan, 0.1)
        self.own[:, 1] = np.nan
        self.own[:5, 4] = np.nan

    def system(self, wrap: Callable[[np.ndarray], Any] = np.asarray, *, rows: slice = slice(None), **how: Any) -> Any:
        """All equations."""
        return self._of(range(len(NAMES)), wrap, rows, how)

    def good(self, wrap: Callable[[np.ndarray], Any] = np.asarray, *, rows: slice = slice(None), **how: Any) -> Any:
        """Those that can be estimated."""
        return self._of(GOOD, wrap, rows, how)

    def dataset(self) -> xr.Dataset:
        """All of it, equations along a dim."""
        dims = ("day", "firm")
        return xr.Dataset(
            {"y": (dims, self.Y), "own": (dims, self.own)}
            | {name: ("day", self.shared[:, i]) for i, name in enumerate(TERMS[:3])},
            {"day": pd.date_range("2001", periods=len(self.Y)), "firm": NAMES},
        )

    def _of(self, equations: Any, wrap: Callable[[np.ndarray], Any], rows: slice, how: dict[str, Any]) -> System:
        at = list(equations)
        columns = np.column_stack([self.shared, self.own[:, at]])[rows]
        incidence = np.vstack([np.ones((3, len(at)), bool), np.eye(len(at), dtype=bool)])
        return System.from_arrays(
            wrap(self.Y[rows][:, at]),
            wrap(columns),
            incidence=incidence,
            equations=[NAMES[j] for j in at],
            regressors=[*TERMS[:3], *(f"own[{NAMES[j]}]" for j in at)],
            **how,
        )


def without_nan(values: Any) -> np.ndarray:
    """What is there, in order."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    return flat[~np.isnan(flat)]


def check_same(found: Any, expected: Any, *, atol: float = 1e-12) -> None:
    """The one is the other with NaN in between, in all variables if they are several."""
    if isinstance(found, xr.Dataset):
        assert set(found.data_vars) == set(expected.data_vars)
        for name in found.data_vars:
            check_same(found[name], expected[name], atol=atol)
        return
    assert np.size(found) > np.size(expected)
    np.testing.assert_allclose(without_nan(found), without_nan(expected), rtol=0, atol=atol)
