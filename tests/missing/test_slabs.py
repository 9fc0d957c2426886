"""The factors' distribution in the rows of a slab, whichever slabs it was found with."""

from __future__ import annotations

import numpy as np
import pytest

from lrgls_dask.missing import slabs
from lrgls_dask.missing.slabs import block_slabs
from lrgls_dask.rows.block import Block
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.shown import Posterior, capacitances, posterior

N, K = 100, 5


def some_block(weights: np.ndarray | None) -> Block:
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(N, 3)), rng.normal(size=(N, K))
    Y[rng.random(Y.shape) < 0.3] = np.nan
    Y = Y.astype(np.float32)
    counted = rng.integers(0, 9, size=N)  # an array of numbers that cannot be missing
    return Block(x=(X,), y=(Y[:, :2], counted, Y[:, 2], Y[:, 3:]), weights=weights, start=0)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("numbers", [1, 500, 10**6], ids=["slab by slab", "some slabs", "all at once"])
@pytest.mark.parametrize("together", [1, 4, 10**3])
def test_every_slab_has_its_own_rows(
    numbers: int, together: int, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, n_y = np.random.default_rng(1), K + 1
    weights = rng.uniform(0.5, 2.0, size=N) if weighted else None
    if weights is not None:
        weights[rng.random(N) < 0.3] = 0.0
        weights[21:35] = 0.0  # slabs without a row
    block = some_block(weights)
    monkeypatch.setattr(slabs, "slab_rows", lambda width: 7)
    monkeypatch.setattr(slabs, "STRETCH_BYTES", together * 7 * n_y)
    sigmas = [LowRank(rng.normal(size=(n_y, k)), rng.uniform(0.5, 2.0, size=n_y)) for k in (0, 1, 3)]
    n_rows = 0
    for slab in block_slabs(block, np.zeros(3 + n_y)):
        n_rows += len(slab.observed)
        for sigma in sigmas:
            found, alone = slab.posterior(sigma, numbers), posterior(capacitances(slab.observed, sigma))
            for part in ("half", "log_det", "packed"):
                np.testing.assert_allclose(getattr(found, part), getattr(alone, part), rtol=1e-13, atol=1e-300)
    assert n_rows == (N if weights is None else np.count_nonzero(weights))


def test_slabs_are_factored_together(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    def counted(capacitance: np.ndarray) -> Posterior:
        taken.append(capacitance.shape[1])
        return posterior(capacitance)

    monkeypatch.setattr(slabs, "posterior", counted)
    monkeypatch.setattr(slabs, "slab_rows", lambda width: 10)
    sigma = LowRank(np.ones((K + 1, 1)), np.ones(K + 1))
    for slab in block_slabs(some_block(None), np.zeros(K + 4)):
        slab.posterior(sigma, 30 * Posterior.numbers(sigma))
    assert taken == [30, 30, 30, 10]
