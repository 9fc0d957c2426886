"""Rows that show only some equations: holes made, and the density of what is left, row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from lrgls_dask.compression.patterns import FirstMoments
from lrgls_dask.missing.fit import estimate_of
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.solve.record import Options, Solution
from support.systems import Data

TIGHT = Options(rel_tol=1e-15, max_sweeps=500)


def with_holes(data: Data, share: float = 0.2, *, seed: int = 1, n_patterns: int | None = None) -> Data:
    """Some values missing, scattered or in a few patterns; the first rows show one, and no equation."""
    rng = np.random.default_rng(seed)
    holes = rng.random(data.Y.shape) < share
    if n_patterns is not None:
        holes = holes[rng.integers(0, n_patterns, size=len(holes))]
    holes[0, 1:] = holes[1] = True
    holes[0, 0] = False
    return replace(data, Y=np.where(holes, np.nan, data.Y))


def estimates(problem: Incomplete, found: Solution) -> tuple[np.ndarray, np.ndarray, float]:
    """b, Sigma and log-likelihood in the user's units."""
    of = estimate_of(problem, found, TIGHT)
    return of.coefficients, of.covariance.dense(), of.loglik


def dense_loglik(data: Data, b: np.ndarray, sigma: np.ndarray) -> float:
    """Row by row from the explicit Sigma_oo."""
    total = 0.0
    parts = np.split(b, np.cumsum([len(c) for c in data.columns])[:-1])
    R = data.Y - np.column_stack([X @ part for X, part in zip(data.Xs, parts, strict=True)])
    weights = np.ones(len(R)) if data.weights is None else data.weights
    for r, w in zip(R, weights, strict=True):
        o = ~np.isnan(r)
        if w > 0 and o.any():
            block = sigma[np.ix_(o, o)] / w
            quadratic = r[o] @ np.linalg.inv(block) @ r[o]
            total -= 0.5 * (o.sum() * np.log(2 * np.pi) + np.linalg.slogdet(block)[1] + quadratic)
    return total


def dense_information(data: Data, sigma: np.ndarray) -> np.ndarray:
    """sum_i X_o' Sigma_oo^-1 X_o, (P, P), row by row."""
    total = np.zeros((sum(len(c) for c in data.columns),) * 2)
    owner = np.repeat(np.arange(len(data.columns)), [len(c) for c in data.columns])
    weights = np.ones(len(data.Y)) if data.weights is None else data.weights
    for y, x, w in zip(data.Y, data.X, weights, strict=True):
        o = ~np.isnan(y)
        inverse = np.zeros_like(sigma)
        inverse[np.ix_(o, o)] = w * np.linalg.inv(sigma[np.ix_(o, o)])
        row = x[np.concatenate(data.columns)]
        total += np.outer(row, row) * inverse[np.ix_(owner, owner)]
    return total


@contextmanager
def road_of_holes() -> Iterator[None]:
    """Complete rows are taken for rows with holes, whose numbers must be those of complete ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FirstMoments, "is_complete", False)
        yield


def with_an_empty_row(data: Data) -> Data:
    """The same rows and one that shows nothing."""
    last = {name: None if values is None else np.concatenate([values, values[-1:]])
            for name, values in (("X", data.X), ("weights", data.weights))}  # fmt: skip
    return replace(data, Y=np.vstack([data.Y, np.full(data.Y.shape[1], np.nan)]), **last)


def killed_in_look(number: int, purpose: str = "likelihood") -> Callable[[str, int, int], None]:
    """A `progress` that ends the client when it hears of so many looks at the likelihood, or passes for a purpose."""
    seen: list[str] = []

    def told(label: str, done: int, total: int) -> None:
        seen.append(label)
        if seen.count(purpose) >= number:
            raise KeyboardInterrupt

    return told
