"""Systems whose loadings drift, cut into segments."""

from __future__ import annotations

from typing import Any

import numpy as np

from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.compression.parts import compress_by
from lrgls_dask.inference.gradient_kernels import SigmaRuns
from lrgls_dask.inference.segmented import SegmentedBread
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.partition import RowRuns
from lrgls_dask.varying.estimate import TimeVaryingSolution
from support.systems import Data

TIGHT: dict[str, Any] = {"rel_tol": 1e-14, "max_sweeps": 200}


def drifting(n_segments: int = 12, n: int = 100, K: int = 6, seed: int = 0) -> tuple[Data, np.ndarray]:
    """Loadings that swing smoothly, (T, K, 1), and rows made from them."""
    rng = np.random.default_rng(seed)
    phase = np.linspace(0.0, np.pi, n_segments)[:, None]
    loadings = (0.9 + 0.8 * np.sin(phase + np.linspace(0.0, 2.0, K)))[:, :, None]
    X = np.column_stack([np.ones(n * n_segments), rng.normal(size=(n * n_segments, 2))])
    E = np.concatenate([rng.normal(size=(n, 1)) @ F.T for F in loadings]) + 0.7 * rng.normal(size=(n * n_segments, K))
    Y = X @ rng.normal(size=(3, K)) + E
    return Data("shared", Y, X, (np.arange(3),) * K), loadings


def cut(data: Data, n_segments: int) -> list[Compressed]:
    """Consecutive rows, as even as can be, from one pass."""
    labels = np.arange(len(data.Y)) * n_segments // len(data.Y)
    meter = Meter()
    parts = compress_by(data.system().rows, labels, meter=meter)
    assert meter.passes == 1
    return list(parts.values())


def covariance(found: TimeVaryingSolution, lam_B: float = 0.0) -> np.ndarray:
    """(P, P) of the coefficients at the Sigma_t that were found."""
    edges = np.concatenate([[0], np.cumsum([each.n_obs for each in found.segments])])
    sigma = SigmaRuns(RowRuns(edges), found.sigmas)
    return SegmentedBread.of(found.segments, sigma, found.coefficients, lam_B, None).classical()
