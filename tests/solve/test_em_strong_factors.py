"""EM where the factors explain nearly everything: the optimum of ALS, in both engines, dense sums held or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lrgls_dask import Fit, LowRankGLS, System
from lrgls_dask.sigma.em import LARGEST_VARIANCE, flattened, unflattened
from lrgls_dask.sigma.lowrank import LowRank

pytestmark = [pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic variance on d_floor")]
# Of the log-likelihood of 200 rows. At d = 1e-8 a sum of squares near 1 leaves eight digits of a residual variance.
NEAR = 2e-3


def strong(seed: int, own: float, k: int, *, bare: int = 0, N: int = 200) -> System:
    """own : standard deviations of the equations' own, relative to the factors'; 1e-7 of it for the first `bare`."""
    g = np.random.default_rng(seed)
    K = 4 + 2 * k
    X, F = np.c_[np.ones(N), g.standard_normal((N, 2))], g.standard_normal((K, k))
    sd = own * np.sqrt(np.sum(F**2, axis=1))
    sd[:bare] *= 1e-7
    E = g.standard_normal((N, k)) @ F.T + sd * g.standard_normal((N, K))
    return System.from_arrays(X @ g.standard_normal((3, K)) + E, X)


def fitted(system: System, k: int, **options: Any) -> Fit:
    found = LowRankGLS(k, **options).fit(system).result_
    assert found.termination.name == "CONVERGED"
    return found


@pytest.mark.parametrize("engine", ["compress", "stream"])
@pytest.mark.parametrize("own", [1e-1, 3e-3, 1e-4, 1e-6, 1e-7])
def test_em_ends_at_the_optimum_of_als(own: float, engine: str) -> None:
    for k in (1, 2, 3):
        for seed in range(2):
            system = strong(seed, own, k)
            expected, found = fitted(system, k), fitted(system, k, algorithm="em", engine=engine)
            assert found.loglik == pytest.approx(expected.loglik, abs=NEAR), (k, seed)
            apart = np.abs(found.params.values - expected.params.values) / expected.std_errors.values
            assert apart.max() < 0.05, (k, seed)


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_equations_with_next_to_no_variance_of_their_own(engine: str) -> None:
    for seed in range(3):
        system = strong(seed, 0.5, 2, bare=1)
        expected, found = fitted(system, 2), fitted(system, 2, algorithm="em", engine=engine, rel_tol=1e-10)
        assert found.loglik == pytest.approx(expected.loglik, abs=NEAR), seed


def test_an_extrapolation_never_leaves_the_numbers() -> None:
    """Log variances far out are brought back, in both directions."""
    far = np.concatenate([np.ones(6), [800.0, -800.0, 0.0]])
    sigma = unflattened(far, 2, np.full(3, 1e-8))
    np.testing.assert_allclose(sigma.d, [LARGEST_VARIANCE, 1e-8, 1.0])
    at = LowRank(np.ones((3, 1)), np.array([0.1, 0.2, 0.3]))
    np.testing.assert_allclose(unflattened(flattened(at), 1, np.full(3, 1e-8)).d, at.d, rtol=1e-15)
