"""What rows that show only some equations say of factors: cells one by one where they are few, else all pairs."""

from __future__ import annotations

import numpy as np
import pytest

from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.shown import cells_and_pairs


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.9])
@pytest.mark.parametrize("k", [0, 2])
def test_spread_of_what_is_missing(k: int, share: float) -> None:
    rng, n, K = np.random.default_rng(1), 60, 14
    sigma = LowRank(rng.normal(size=(K, k)), rng.uniform(0.5, 2.0, K))
    observed, count = (rng.random((n, K)) >= share).astype(float), rng.integers(0, 4, n).astype(float)
    residual = rng.normal(size=(n, K)) * observed
    room = np.full((n, K), np.nan), np.full((n, K), np.nan)
    found = sigma.rows(observed).given(residual, count, room)
    assert found.scaled is room[0]
    spread, dense = np.zeros((K, K)), sigma.dense()
    for i, shown in enumerate(observed > 0):
        to_shown = dense[:, shown] @ np.linalg.inv(dense[np.ix_(shown, shown)])
        np.testing.assert_allclose(found.filled[i], to_shown @ residual[i, shown], rtol=1e-10, atol=1e-12)
        spread += count[i] * np.where(np.outer(~shown, ~shown), dense - to_shown @ dense[shown], 0.0)
    np.testing.assert_allclose(found.spread, spread, rtol=1e-10, atol=1e-10)


def test_every_pair_of_cells_of_a_row_once() -> None:
    some = np.random.default_rng(2).random((30, 7)) < 0.3
    rows, columns, first, second = cells_and_pairs(some)
    np.testing.assert_array_equal(np.stack([rows, columns]), np.nonzero(some))
    np.testing.assert_array_equal(rows[first], rows[second])
    found = sorted(zip(rows[first], columns[first], columns[second], strict=True))
    assert found == [
        (i, j, k) for i, row in enumerate(some) for j in np.flatnonzero(row) for k in np.flatnonzero(row) if k <= j
    ]
