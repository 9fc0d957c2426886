"""Standard errors of Sigma's parts, and the sandwich of all parameters, of rows with holes: lavaan's and dense ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lrgls_dask import BlockLowRank, Fit, GroupedLowRank
from lrgls_dask.inference.sigma_errors import SigmaErrors
from lrgls_dask.sigma.lowrank import LowRank
from support.fits import fit
from support.incomplete import road_of_holes, with_holes
from support.likelihood import estimate_of, gradient_rows, hessian, identified_inverse
from support.reference import MISSING_CASES, load, system_of, table
from support.systems import Data, simulate

GROUPS = {f"y{j}": "ab"[j // 4] for j in range(8)}
STRUCTURES: dict[str, dict[str, Any]] = {
    "lowrank": {"rank": 2},
    "diagonal": {"rank": 0},
    "ridge": {"rank": 1, "lam_B": 1.0},
    "restricted": {"rank": 1, "restrictions": ["y0:x0 = y0:x1"]},
    "full": {"rank": "auto", "covariance": "full"},
    "grouped": {"rank": "auto", "covariance": GroupedLowRank(1, GROUPS)},
    "blocks": {"rank": "auto", "covariance": BlockLowRank(1, {f"y{j}": "abcdefg"[max(j - 1, 0)] for j in range(8)})},
}
DENSE = {name: STRUCTURES[name] for name in ("lowrank", "full", "blocks")}
EIGHT = simulate("mixed", n=200, K=8, k=2, seed=3)
# a constant alone in every equation leaves few parameters to difference
CONSTANTS = with_holes(Data("shared", EIGHT.Y, EIGHT.X[:, :1], (np.zeros(1, dtype=int),) * 8), n_patterns=6)


@cache
def fitted(structure: str) -> Fit:
    return fit(CONSTANTS.system(), missing="em", **STRUCTURES[structure])


# ---------------------------------------------------------------------------------- other programs


@pytest.mark.parametrize("structure", ["diagonal", "factor_k1", "full"])
@pytest.mark.parametrize("case", MISSING_CASES)
def test_one_factor_variances_and_the_sandwich_as_in_lavaan(case: str, structure: str) -> None:
    reference, data = load(case)
    expected = reference["fits"][structure]
    options = {"diagonal": {"rank": 0}, "factor_k1": {"rank": 1}, "full": STRUCTURES["full"]}[structure]
    made = fit(system_of(reference["equations"], data), missing="em", **options)
    own = expected["se_error_variances"]["observed"]
    if structure == "full":
        np.testing.assert_allclose(np.diag(made.sigma_std_errors()["sigma"]), own, rtol=1e-6)
    else:
        np.testing.assert_allclose(made.idio_var_std_errors.values, own, rtol=1e-6)
    if structure == "factor_k1":
        np.testing.assert_allclose(made.loadings_std_errors, expected["se_loadings"]["observed"], rtol=1e-6)
    found = made.with_cov("huber-white").std_errors.values
    np.testing.assert_allclose(found, table(expected["se"]["robust_huber_white"], made), rtol=1e-6)


# ---------------------------------------------------------------------------------- the complete-data value


@pytest.mark.parametrize("structure", list(STRUCTURES))
def test_complete_rows_taken_for_rows_with_holes_have_the_errors_of_complete_rows(structure: str) -> None:
    options = STRUCTURES[structure]
    expected = fit(EIGHT.system(), **options)
    with road_of_holes():
        got = fit(EIGHT.system(), missing="em", **options)
    assert not got.evidence.complete
    theirs, ours = expected.sigma_std_errors("observed"), got.sigma_std_errors()
    assert set(ours) == set(theirs)
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6, atol=1e-12)
        np.testing.assert_array_equal(got.sigma_std_errors("observed")[name], ours[name])
    if structure not in ("full", "diagonal"):
        errors = SigmaErrors.of(estimate_of(expected), "observed") if structure != "restricted" else None
        if errors is not None:
            np.testing.assert_allclose(got.loadings_std_errors, errors.loadings, rtol=1e-5, atol=1e-12)
            np.testing.assert_allclose(got.idio_var_std_errors, errors.own_variances, rtol=1e-6)
    by_rows = expected.cov("huber-white").values
    np.testing.assert_allclose(got.cov("huber-white").values, by_rows, rtol=1e-5, atol=1e-6 * np.abs(by_rows).max())


# ---------------------------------------------------------------------------------- dense differences


def theta_of(made: Fit) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """(b, Sigma's parameters) as one vector, and Sigma as a function of it."""
    tangents = made.covariance.tangents(np.zeros(made.n_equations, dtype=bool))
    P, n, i, j = made.n_coefficients, len(tangents.rows), tangents.own_rows, tangents.own_columns

    def sigma(theta: np.ndarray) -> np.ndarray:
        F = np.zeros(tangents.F.shape, dtype=theta.dtype)
        F[tangents.rows, tangents.columns] = theta[P : P + n]
        own = np.zeros((len(F), len(F)), dtype=theta.dtype)
        own[i, j] = own[j, i] = theta[P + n :]
        return np.asarray(F @ F.T + own)

    own = made.sigma().values - tangents.F @ tangents.F.T
    theta = np.concatenate([made.coefficients, tangents.F[tangents.rows, tangents.columns], own[i, j]])
    np.testing.assert_allclose(sigma(theta), made.sigma().values, atol=1e-12)
    return theta, sigma


def shown_loglik_rows(sigma: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """theta -> (N,) log-likelihood of what each row shows, pattern by pattern from the explicit Sigma_oo."""
    seen = ~np.isnan(CONSTANTS.Y)
    patterns, codes = np.unique(seen, axis=0, return_inverse=True)

    def rows(theta: np.ndarray) -> np.ndarray:
        residual, matrix = CONSTANTS.Y - CONSTANTS.X * theta[:8], sigma(theta)
        out = np.zeros(len(residual), dtype=theta.dtype)
        for number, o in enumerate(patterns):
            mine, block = np.flatnonzero(codes.reshape(-1) == number), matrix[np.ix_(o, o)]
            if o.any():
                r = residual[mine][:, o].T
                squares = np.sum(r * np.linalg.solve(block, r), axis=0)
                out[mine] = -0.5 * (o.sum() * np.log(2 * np.pi) + np.log(np.linalg.det(block)) + squares)
        return out

    return rows


@cache
def inverse_of(structure: str) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of the observed information of all parameters, and the products of the rows' gradients by them."""
    theta, sigma = theta_of(fitted(structure))
    rows = shown_loglik_rows(sigma)
    gradients = gradient_rows(rows, theta)
    flat = 1 if structure == "lowrank" else 0
    return identified_inverse(-hessian(rows, theta), flat), gradients.T @ gradients


@pytest.mark.parametrize(
    "structure", [name if name != "blocks" else pytest.param(name, marks=pytest.mark.slow) for name in DENSE]
)
def test_entries_of_sigma_by_differences_of_the_dense_likelihood(structure: str) -> None:
    made = fitted(structure)
    theta, sigma = theta_of(made)
    slopes = np.stack([sigma(theta + 1e-30j * e).imag / 1e-30 for e in np.eye(len(theta))], axis=2)
    inverse, _ = inverse_of(structure)
    expected = np.sqrt(np.einsum("ija,ab,ijb->ij", slopes, inverse, slopes))
    np.testing.assert_allclose(made.sigma_std_errors()["sigma"], expected, rtol=1e-5)


@pytest.mark.parametrize("structure", list(DENSE))
def test_the_sandwich_by_differences_of_the_dense_likelihood(structure: str) -> None:
    inverse, meat = inverse_of(structure)
    expected = (inverse @ meat @ inverse)[:8, :8]
    scale = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(fitted(structure).cov("huber-white").values, expected, rtol=1e-5, atol=scale)


def test_two_factors_by_differences_of_their_normalisation() -> None:
    made = fitted("lowrank")
    theta, _ = theta_of(made)
    inverse, _ = inverse_of("lowrank")

    def turned(at: np.ndarray) -> np.ndarray:
        return np.asarray(LowRank(at[8:24].reshape(8, 2), at[24:]).normalised().F.ravel())

    slopes = np.stack([(turned(theta + h) - turned(theta - h)) / 2e-5 for h in 1e-5 * np.eye(len(theta))], axis=1)
    expected = np.sqrt(np.diag(slopes @ inverse @ slopes.T)).reshape(8, 2)
    np.testing.assert_allclose(made.loadings_std_errors, expected, rtol=1e-4)
    np.testing.assert_allclose(made.idio_var_std_errors, np.sqrt(np.diag(inverse)[24:]), rtol=1e-5)


# ---------------------------------------------------------------------------------- roads, refusals


def test_streamed_and_compressed_fits_say_the_same() -> None:
    expected, tight = fitted("lowrank"), {"rank": 2, "missing": "em"}
    compressed = fit(CONSTANTS.system().compress(), **tight)
    streamed = fit(CONSTANTS.system(), engine="stream", rel_tol=1e-12, **tight)
    for other, rtol in ((compressed, 1e-6), (streamed, 1e-3)):
        np.testing.assert_allclose(other.loadings_std_errors, expected.loadings_std_errors, rtol=rtol, atol=1e-3 * rtol)
        np.testing.assert_allclose(other.sigma_std_errors()["sigma"], expected.sigma_std_errors()["sigma"], rtol=rtol)


def test_what_has_no_errors_is_said(tmp_path: Path) -> None:
    made = fitted("lowrank")
    with pytest.raises(ValueError, match=r"information='expected'.*Use information='observed'"):
        made.sigma_std_errors("expected")
    for options, message in (
        ({"rank": 1, "algorithm": "fgls"}, "algorithm='fgls' stops short of one"),
        ({"rank": 1, "lam_F": 0.1}, "that of an unpenalised Sigma, but lam_F is 0.1"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(CONSTANTS.system(), missing="em", **options).sigma_std_errors()
    fit(CONSTANTS.system(), missing="em", rank=1, engine="stream", rel_tol=1e-6).to_zarr(tmp_path / "fit.zarr")
    with pytest.raises(ValueError, match=r"standard errors of Sigma .* reads the rows, which a fit opened from a file"):
        _ = Fit.from_zarr(tmp_path / "fit.zarr").loadings_std_errors
