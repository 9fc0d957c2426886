"""Replicates and folds keep to every option of the fit: against explicit fits of the same rows by the estimator."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from lrgls_dask import Fit, FitWarning, LowRankGLS
from lrgls_dask.resampling.draws import Fitted
from lrgls_dask.rows.partition import HashedRows
from lrgls_dask.sigma.full import Full, FullSigma
from lrgls_dask.sigma.registry import structure_of
from lrgls_dask.sigma.structures import LowRankStructure, diagonal
from lrgls_dask.solve.record import Options
from lrgls_dask.solve.starting_values import starting_residuals
from support.fits import fit
from support.systems import Data, restrictions_of, simulate

DATA = simulate("mixed", n=240)
WEIGHTED = simulate("own", n=300, K=6, weighted=True)
SHARED = simulate("shared", n=240)
GROUPS = np.arange(240) // 8
KEPT = restrictions_of(DATA)
OPTIONS: list[dict[str, Any]] = [
    {"rank": "auto", "covariance": "full"},
    {"rank": "auto", "covariance": "diagonal"},
    {"rank": 2, "algorithm": "fgls"},
    {"rank": "auto", "covariance": "full", "algorithm": "fgls", "restrictions": KEPT},
    {"rank": 2, "debiased": True},
    {"rank": "auto", "covariance": "full", "debiased": True},
    {"rank": 2, "restrictions": KEPT},
    {"rank": "auto", "covariance": "full", "restrictions": KEPT, "lam_B": 3.0},
]


def fitted(data: Data, options: dict[str, Any], **system: Any) -> Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)  # Heywood cases of resampled rows
        return LowRankGLS(**options).fit(data.system(**system)).result_


@pytest.mark.parametrize("options", OPTIONS, ids=range(len(OPTIONS)))
def test_resampled_groups_are_fitted_as_their_rows_would_be(options: dict[str, Any]) -> None:
    full = fitted(DATA, options, groups=GROUPS)
    boot = full.bootstrap(4, "cluster", seed=5)
    for i, seed in enumerate(np.random.SeedSequence(5).spawn(4)):
        drawn = np.random.default_rng(seed).integers(30, size=30)
        rows = np.concatenate([np.flatnonzero(g == GROUPS) for g in drawn])
        alone = fitted(DATA.take(rows), options)
        se = full.std_errors.values
        assert np.abs((boot.params[i].values - alone.params.values) / se).max() < 0.02
        np.testing.assert_allclose(boot.replicate_std_errors[i], alone.std_errors, rtol=0.01)
        np.testing.assert_allclose(boot.sigma["variance"][i], alone.sigma_diagonal, rtol=0.01)
    assert ("communality" in boot.sigma) == (options.get("covariance") != "full")


@pytest.mark.parametrize("algorithm", ["als", "fgls"])
@pytest.mark.parametrize("data", [DATA, SHARED], ids=["mixed", "shared"])
def test_every_replicate_keeps_to_the_restrictions(data: Data, algorithm: str) -> None:
    R, r = restrictions_of(data)
    R[2] = 0.0
    R[2, -1] = 1.0
    full = fitted(data, {"rank": 2, "algorithm": algorithm, "restrictions": (R, r)}, groups=GROUPS)
    for boot in (full.bootstrap(5, seed=0), full.bootstrap(5, "cluster", seed=0)):
        np.testing.assert_allclose(boot.params.values @ R.T, np.tile(r, (5, 1)), atol=1e-9)
        assert boot.replicate_std_errors[:, -1].values.max() < 1e-6 * full.std_errors.values.max()
        ratio = (boot.replicate_std_errors.mean("replicate") / full.std_errors).values[:-1]
        assert np.abs(np.log(ratio)).max() < 0.25


def test_simulated_responses_have_starting_residuals_of_their_own() -> None:
    """One-step refits weigh by them: coefficients whose residuals are orthogonal to every column."""
    full = fitted(DATA, {"rank": 2, "algorithm": "fgls"})
    problem = Fitted(full.coefficients, full.covariance, LowRankStructure(2), Options()).problem(
        full.evidence.rows_for(full.estimated, "a refit")
    )
    rng = np.random.default_rng(3)
    y = rng.normal(size=problem.fitted(np.zeros(full.n_coefficients)).shape)
    beyond = np.eye(6)
    other = problem.with_responses(y, beyond)
    c, S = starting_residuals(other)
    left = y - other.fitted(c)
    assert np.abs(other.coordinates.adjoint(other.whitened.stacks, left)).max() < 1e-12
    np.testing.assert_allclose(S, (beyond + left.T @ left) / 240, rtol=1e-12)
    assert not np.allclose(c, starting_residuals(problem)[0])


def test_intervals_are_studentised_by_classical_errors_whatever_the_fit_reports() -> None:
    full = fitted(DATA, {"rank": 2})
    robust = full.with_cov("robust")
    plain, other = full.bootstrap(9, seed=0), robust.bootstrap(9, seed=0)
    np.testing.assert_array_equal(other.conf_int(0.2), plain.conf_int(0.2))
    np.testing.assert_array_equal(other.classical, full.std_errors)


def test_a_stored_sigma_names_its_structure() -> None:
    assert structure_of(FullSigma(np.eye(2)), "ml", 0.0) == Full()
    full = fit(DATA.system(), lam_F=0.1)
    assert structure_of(full.covariance, "pca", 0.1) == LowRankStructure(2, "pca", 0.1)
    assert structure_of(fitted(DATA, OPTIONS[1]).covariance, "ml", 0.0) == diagonal()


@pytest.mark.parametrize("name", ["algorithm", "debiased", "restrictions"])
def test_folds_are_fitted_with_the_options_of_the_fit(name: str) -> None:
    R = restrictions_of(WEIGHTED)[0]
    values: dict[str, Any] = {"algorithm": "fgls", "debiased": True}
    values["restrictions"] = (R, R @ fitted(WEIGHTED, {"rank": 2}).params.values + 0.05)
    options = {name: values[name]}
    found = fitted(WEIGHTED, {"rank": "cv", "n_folds": 3, **options})
    assert found.selection is not None
    codes = HashedRows(3).codes(0, 300)
    for rank in (1, 2):
        for fold in range(3):
            train = fitted(WEIGHTED.take(codes != fold), {"rank": rank, **options})
            expected = WEIGHTED.take(codes == fold).dense().nll(train.params.values, train.sigma().values)
            assert found.selection.loc[rank, f"fold_{fold + 1}"] == pytest.approx(expected, abs=5e-4)
    alone = fitted(WEIGHTED, {"rank": found.rank, **options})
    np.testing.assert_allclose(found.params, alone.params, rtol=1e-6, atol=1e-8)
