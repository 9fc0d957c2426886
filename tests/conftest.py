"""Simulated systems, wrapped in every kind of array, and a real cluster of two processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster
from oracle import Dense

from lrgls_dask import CompressedSystem, Fit, LowRankGLS, System
from lrgls_dask.compression.compressed import compress_rows
from lrgls_dask.rows import layout
from lrgls_dask.rows.run_pass import Meter

TIGHT: dict[str, Any] = {"rel_tol": 1e-15, "max_sweeps": 500}

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

    def dense(self, **penalties: float) -> Dense:
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


def fit(system: System | CompressedSystem, rank: Any = 2, **options: Any) -> Fit:
    """To the last digit that the loop has."""
    return LowRankGLS(rank, **(TIGHT | options)).fit(system).result_


def by_gram(system: System) -> CompressedSystem:
    """Compressed by cross-products, which the automatic choice leaves to data too long for a test."""
    return CompressedSystem(compress_rows(system.rows, route="gram", meter=Meter()))


def dask_rows(chunks: Any) -> Wrap:
    """A wrapper that makes Dask arrays with these row chunks."""
    return lambda a: da.from_array(a, chunks=(chunks, *a.shape[1:]))


def zarr_rows(rows: int) -> Wrap:
    """A wrapper that makes zarr arrays in memory with row chunks of `rows`."""

    def wrap(a: np.ndarray) -> zarr.Array:
        made = zarr.create_array(
            zarr.storage.MemoryStore(), shape=a.shape, chunks=(min(rows, len(a)), *a.shape[1:]), dtype=a.dtype
        )
        made[...] = a
        return made

    return wrap


def counted_rows(data: Data, rows: int) -> tuple[System, Counter[tuple[str, int]]]:
    """A system of Dask arrays in chunks of so many rows, and how often each chunk of X and of Y was computed."""
    reads: Counter[tuple[str, int]] = Counter()

    def counted(name: str, values: np.ndarray) -> da.Array:
        def read(block: np.ndarray, block_info: Any = None) -> np.ndarray:
            reads[name, block_info[0]["chunk-location"][0]] += 1
            return block

        lazy = da.from_array(values, chunks=(rows, -1))
        return lazy.map_blocks(read, dtype=values.dtype, meta=values[:0], name=f"{name}-{id(reads)}")

    return System.from_arrays(counted("Y", data.Y), counted("X", data.X)), reads


def assert_params_close(found: Fit, expected: Fit, rtol: float) -> None:
    """Coefficients to rtol of their size, or of a standard error where that is larger."""
    scale = np.maximum(np.abs(expected.params.values), expected.std_errors.values)
    np.testing.assert_array_less(np.abs(found.params.values - expected.params.values), rtol * scale)


def assert_same_bits(found: Fit, expected: Fit) -> None:
    """Every number of the answer, to the last bit."""
    for name in ("params", "loadings", "idio_var", "std_errors"):
        np.testing.assert_array_equal(getattr(found, name).values, getattr(expected, name).values, err_msg=name)
    assert found.loglik == expected.loglik


@pytest.fixture(scope="module")
def small_blocks() -> Iterator[None]:
    """Cut the kilobytes of a test as gigabytes would be: some twenty blocks, every few of them a group of the tree."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "SMALL_BLOCK_BYTES", 1)
        patch.setattr(layout, "BLOCKS_WANTED", 20)
        patch.setattr(layout, "PARTIAL_SHARE", 0)
        yield


@pytest.fixture
def every_chunk_a_block(small_blocks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Join no chunks at all."""
    monkeypatch.setattr(layout, "BLOCKS_WANTED", 10**9)


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """Two worker processes of one thread each, on loopback."""
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        memory_limit="1GB",
    ) as running:
        yield running


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    """An active client of the cluster, for one test."""
    with Client(cluster) as connected:
        connected.wait_for_workers(2)
        yield connected
