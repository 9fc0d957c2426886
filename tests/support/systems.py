"""Simulated systems as data a test can read, and the arrays they are wrapped in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import dask.array as da
import numpy as np
import zarr

from lrgls_dask import System
from support.oracle import Dense

Wrap = Callable[[np.ndarray], Any]


@dataclass(frozen=True)
class Data:
    """Y (N, K), the q distinct columns of X, and which of them each equation uses."""

    kind: str
    Y: np.ndarray
    X: np.ndarray
    columns: tuple[np.ndarray, ...]
    weights: np.ndarray | None = None

    @property
    def Xs(self) -> list[np.ndarray]:
        return [self.X[:, c] for c in self.columns]

    def system(self, wrap: Wrap = np.asarray, **options: Any) -> System:
        """Own designs as a list of arrays, a shared one as itself, mixed ones by incidence."""
        if self.weights is not None:
            options["weights"] = wrap(self.weights)
        if self.kind == "own":
            return System.from_arrays(wrap(self.Y), [wrap(X) for X in self.Xs], **options)
        if self.kind == "mixed":
            incidence = np.zeros((self.X.shape[1], len(self.columns)), dtype=bool)
            for j, c in enumerate(self.columns):
                incidence[c, j] = True
            options["incidence"] = incidence
        return System.from_arrays(wrap(self.Y), wrap(self.X), **options)

    def dense(self, **penalties: Any) -> Dense:
        return Dense(self.Y, self.Xs, self.weights, **penalties)

    def take(self, rows: Any) -> Data:
        weights = None if self.weights is None else self.weights[rows]
        return replace(self, Y=self.Y[rows], X=self.X[rows], weights=weights)


def simulate(
    kind: str, *, n: int = 240, K: int = 6, k: int = 2, seed: int = 0, weighted: bool = False, unit: float = 1.0
) -> Data:
    """Rows of a system with strong common factors; `unit` multiplies Y."""
    rng = np.random.default_rng([seed, n, K, {"own": 1, "shared": 2, "mixed": 3}[kind]])
    if kind == "own":
        sizes = 2 + np.arange(K) % 3
        starts = np.cumsum([0, *sizes])
        X = rng.normal(size=(n, starts[-1]))
        X[:, starts[:-1]] = 1.0
        columns = tuple(np.arange(a, b) for a, b in pairwise(starts))
    elif kind == "shared":
        X = np.column_stack([np.ones(n), rng.normal(size=(n, 3))])
        columns = (np.arange(4),) * K
    else:  # an intercept and a factor for all, and own columns, some of them used twice
        X = np.column_stack([np.ones(n), rng.normal(size=(n, 1 + K))])
        columns = tuple(np.unique([0, 1, 2 + j, 2 + j // 2]) for j in range(K))
    weights = rng.uniform(0.3, 3.0, size=n) if weighted else None
    F = rng.normal(size=(K, k))
    E = rng.normal(size=(n, k)) @ F.T + rng.normal(size=(n, K)) * rng.uniform(0.5, 1.0, size=K)
    if weights is not None:
        E /= np.sqrt(weights)[:, None]
    Y = np.column_stack([X[:, c] @ rng.normal(size=len(c)) for c in columns]) + E
    return Data(kind, unit * Y, X, columns, weights)


def dask_rows(chunks: Any) -> Wrap:
    """A wrapper that makes Dask arrays with these row chunks."""
    return lambda a: da.from_array(a, chunks=(chunks, *a.shape[1:]))


def zarr_rows(rows: int) -> Wrap:
    """A wrapper that makes zarr arrays in memory with row chunks of `rows`."""

    def wrap(a: np.ndarray) -> zarr.Array:
        made = zarr.create_array(
            zarr.storage.MemoryStore(),
            shape=a.shape,
            chunks=(min(rows, len(a)), *a.shape[1:]),
            dtype=a.dtype,
            config={"write_empty_chunks": True},
        )
        made[...] = a
        return made

    return wrap


def restrictions_of(data: Data, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Equal intercepts of the first two equations, and two dense combinations of everything."""
    P = sum(len(c) for c in data.columns)
    rng = np.random.default_rng(seed)
    R = rng.normal(size=(3, P))
    R[0] = 0.0
    R[0, [0, len(data.columns[0])]] = 1.0, -1.0
    return R, np.array([0.0, 1.0, -2.0])
