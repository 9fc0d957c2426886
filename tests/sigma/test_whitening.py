"""Whitened errors have covariance I, whatever a row shows."""

from __future__ import annotations

import numpy as np
import pytest

from lrgls_dask.sigma import whitening
from lrgls_dask.sigma.whitening import whitening_of
from support.sigma_examples import EXAMPLES, K, value


@pytest.mark.parametrize("kind", EXAMPLES)
def test_whitened_errors_have_covariance_one(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whitening, "NUMBERS", 40)  # some rows at a time
    sigma = value(kind)
    apart = whitening_of(sigma).rows(np.eye(K), np.ones((K, K)))
    np.testing.assert_allclose(apart.T @ sigma.dense() @ apart, np.eye(K), atol=1e-9)
    rng = np.random.default_rng(1)
    shown = rng.random((12, K)) < 0.6
    shown[0], shown[1] = False, True
    residual = np.where(shown, rng.normal(size=(12, K)), 0.0)
    z = whitening_of(sigma).rows(residual, shown.astype(float))
    assert not z[~shown].any()
    for row, some, found in zip(residual, shown, z, strict=True):
        inverse = np.linalg.inv(sigma.dense()[np.ix_(some, some)])
        np.testing.assert_allclose(found @ found, row[some] @ inverse @ row[some], rtol=1e-8, atol=1e-12)
