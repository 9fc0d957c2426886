"""Information of Sigma with factors of groups and sparse ones: lavaan's bifactor, differences, special cases, refusals.

Every kind of covariance and every test of hypotheses, for every structure, weighted or not, restricted or not.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.linalg import block_diag, null_space

from lrgls_dask import Fit, FitWarning, GroupedLowRank, LowRankGLS, SparseLowRank
from lrgls_dask.inference.information import observed_cov
from lrgls_dask.inference.kackar_harville import kackar_harville_cov
from lrgls_dask.inference.sigma_errors import SigmaErrors
from lrgls_dask.sigma.blocks import blocks_of
from lrgls_dask.sigma.full import FullSigma
from lrgls_dask.sigma.grouped_factors import GroupedFactors
from lrgls_dask.sigma.lowrank import LowRank
from support.fits import fit
from support.grouped import GROUPED, bifactor
from support.kackar_harville import textbook
from support.likelihood import (
    estimate_of,
    factor_theta,
    full_theta,
    gradient_rows,
    hessian,
    identified_inverse,
    loglik_rows,
    std_errors,
)
from support.reference import EXACT, load, system_of, table
from support.sandwiches import GROUPS as CLUSTERS
from support.sandwiches import meat, off_by, scores
from support.systems import Data, simulate

ALL = {f"y{j}": "all" for j in range(6)}
HALVES = {f"y{j}": "ab"[j // 5] for j in range(10)}
SMALL = simulate("own", n=240)


def in_halves() -> Data:
    """Two factors of each half of ten equations."""
    rng, data = np.random.default_rng(3), simulate("own", n=150, K=10)
    E = np.concatenate([rng.normal(size=(150, 2)) @ rng.normal(size=(2, 5)) for _ in range(2)], axis=1)
    return replace(data, Y=E + 0.7 * rng.normal(size=(150, 10)))


def made(data: Data, covariance: Any, **options: Any) -> Fit:
    return fit(data.system(), "auto", covariance=covariance, **options)


def joint_inverse(found: Fit, A: np.ndarray, n_flat: int) -> np.ndarray:
    """Of second derivatives in all parameters, on what the restrictions of the fit leave free."""
    P = found.n_coefficients
    free = np.eye(P) if found.restrictions is None else null_space(found.restrictions.matrix)
    Z = block_diag(free, np.eye(len(A) - P))
    return Z @ identified_inverse(Z.T @ A @ Z, n_flat) @ Z.T


def assert_joint_covariances(data: Data, found: Fit, n_flat: int) -> None:
    """cov("observed") and cov("huber-white") against differences of the density in all parameters."""
    dense, P = data.dense(), found.n_coefficients
    if found.covariance_kind == "full":
        theta, sigma = full_theta(found.coefficients, found.sigma().values)
    else:
        theta, sigma = factor_theta(found)
    rows = loglik_rows(data, sigma)
    J, by_row = -hessian(rows, theta), gradient_rows(rows, theta)
    A = J.copy()
    A[:P, :P] += np.diag(found.lam_B * dense.unit**2)
    inverse = joint_inverse(found, A, n_flat)
    assert off_by(found.cov("observed"), (inverse @ J @ inverse)[:P, :P]) < 5e-6
    assert off_by(found.cov("huber-white"), (inverse @ by_row.T @ by_row @ inverse)[:P, :P]) < 5e-6


# ---------------------------------------------------------------------------------- other programs


def test_bifactor_as_in_lavaan() -> None:
    reference, data = load("case08a_sim_bifactor_K9")
    expected, names = reference["fits"]["bifactor"], list(reference["equations"])
    groups = {name: "abc"[j // 3] for j, name in enumerate(names)}
    model = LowRankGLS(covariance=GroupedLowRank(1, groups), **EXACT)
    found = model.fit(system_of(reference["equations"], data)).result_
    for kind, name in (("observed", "observed"), ("huber-white", "robust_huber_white")):
        np.testing.assert_allclose(found.with_cov(kind).std_errors, table(expected["se"][name], found), rtol=1e-6)
    pairs = zip(found.params["equation"].values, found.params["regressor"].values, strict=True)
    places = [expected["coef_order"].index(f"{equation}:{regressor}") for equation, regressor in pairs]
    assert off_by(found.cov("observed"), np.array(expected["vcov_coef"]["observed"])[np.ix_(places, places)]) < 1e-6
    for kind in ("expected", "observed"):
        errors = SigmaErrors.of(estimate_of(found), kind)
        np.testing.assert_allclose(errors.own_variances, expected["se_error_variances"][kind], rtol=1e-5)


# ---------------------------------------------------------------------------------- by differences


@pytest.mark.parametrize(
    ("data", "covariance", "lam_B", "n_flat"),
    [
        (bifactor("mixed", n=120), GROUPED, 0.0, 0),
        (bifactor("shared", n=300, weighted=True), GROUPED, 20.0, 0),
        (in_halves(), GroupedLowRank(0, [HALVES, HALVES]), 0.0, 2),
    ],
    ids=["groups", "weighted, ridge", "levels of the same groups"],
)
def test_information_of_groups_is_the_curvature_of_the_density(
    data: Data, covariance: Any, lam_B: float, n_flat: int
) -> None:
    found = made(data, covariance, lam_B=lam_B)
    assert_joint_covariances(data, found, n_flat)
    mine = slice(*found.design.offsets[2:4])
    for kind in ("observed", "huber-white"):
        one = found.cov(kind, equation="y2").values
        np.testing.assert_allclose(one, found.cov(kind).values[mine, mine], rtol=1e-12)


def test_a_variance_of_a_group_on_its_floor_is_held() -> None:
    data = bifactor("mixed", n=120)
    found = made(data, GROUPED)
    theta, sigma = factor_theta(found)
    A, P = -hessian(loglik_rows(data, sigma), theta), found.n_coefficients
    kept = np.arange(len(theta)) != len(theta) - 9 + 4
    estimate = replace(estimate_of(found), on_floor=np.arange(9) == 4)
    assert off_by(observed_cov(estimate), np.linalg.inv(A[np.ix_(kept, kept)])[:P, :P]) < 5e-6
    assert off_by(observed_cov(estimate), np.linalg.inv(A)[:P, :P]) > 1e-4


def test_kackar_harville_of_groups_is_the_textbook_double_sum() -> None:
    data = bifactor("own", n=120)
    estimate = estimate_of(made(data, GROUPED))
    phi, correction = textbook(data, estimate)
    se = std_errors(phi)
    assert np.abs((kackar_harville_cov(estimate) - phi - correction) / np.outer(se, se)).max() < 1e-8
    assert (correction.diagonal() / phi.diagonal()).max() > 0.01


# ---------------------------------------------------------------------------------- special cases


@pytest.mark.parametrize(
    "covariance",
    [GroupedLowRank(1, ALL), GroupedLowRank(2, ALL, group_rank=0), GroupedLowRank(0, [ALL, ALL]), SparseLowRank(2, 0)],
    ids=["one and one", "general only", "two levels", "sparse"],
)
def test_groups_of_all_equations_and_no_penalty_are_low_rank(covariance: Any) -> None:
    found, plain = made(SMALL, covariance), fit(SMALL.system(), 2)
    assert abs(found.loglik - plain.loglik) < 1e-8
    for kind in ("observed", "huber-white", "kackar-harville"):
        assert off_by(found.cov(kind), plain.cov(kind).values) < 1e-5
    for kind in ("expected", "observed"):
        one, other = SigmaErrors.of(estimate_of(found), kind), SigmaErrors.of(estimate_of(plain), kind)
        np.testing.assert_allclose(one.entries, other.entries, rtol=1e-5)
        np.testing.assert_allclose(one.communality, other.communality, rtol=1e-5)


def test_flat_directions_are_all_that_leave_sigma_alone() -> None:
    """As many as the parameters in excess, from the rank of the map from parameters to Sigma."""
    rng = np.random.default_rng(0)
    sixes, fours = {j: j // 6 for j in range(12)}, {j: j // 4 for j in range(12)}
    for groupings, ranks in (
        ([], [3]),
        ([sixes], [1, 2]),
        ([sixes, sixes], [2, 1, 1]),
        ([{j: 0 for j in range(12)}, sixes], [1, 1, 1]),
        ([fours], [2, 1]),
    ):
        blocks = blocks_of(range(12), groupings, ranks[0], ranks[1:])
        sigma = GroupedFactors(blocks, rng.normal(size=(12, sum(ranks))), rng.uniform(0.3, 1.0, 12))
        tangents = sigma.tangents(np.arange(12) == 2)
        jacobian = tangents.moves(np.eye(tangents.n_parameters)).reshape(tangents.n_parameters, -1)
        values = np.linalg.svd(jacobian, compute_uv=False)
        n_flat = int((values < 1e-10 * values[0]).sum())
        assert tangents.n_parameters + 1 - n_flat == sigma.n_parameters
        assert tangents.flat.shape == (tangents.n_parameters, n_flat)
        np.testing.assert_allclose(tangents.flat.T @ tangents.flat, np.eye(n_flat), atol=1e-12)
        assert np.abs(tangents.flat.T @ jacobian).max(initial=0.0) < 1e-12


# ---------------------------------------------------------------------------------- every kind, every structure


STRUCTURES: dict[str, tuple[Any, int]] = {
    "diagonal": ("diagonal", 0),
    "lowrank": ("lowrank", 1),
    "full": ("full", 0),
    "sparse": (SparseLowRank(2, 0), 1),
    "penalised": (SparseLowRank(2, 0.05), 0),
    "grouped": (GroupedLowRank(1, ALL), 1),
}
OF_ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "robust": ({}, {}),
    "cluster": ({"groups": CLUSTERS}, {"groups": CLUSTERS}),
    "hac": ({"bandwidth": 7}, {"weights": 1 - np.arange(8) / 8}),
}


@pytest.mark.parametrize(
    ("weighted", "restricted", "lam_B"),
    [
        pytest.param(False, False, 0.0, id=""),
        pytest.param(True, True, 0.0, id="weighted, restricted", marks=pytest.mark.slow),
        pytest.param(True, False, 10.0, id="weighted, ridge"),
        pytest.param(False, True, 10.0, id="restricted, ridge", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", STRUCTURES)
def test_every_kind_of_covariance(name: str, weighted: bool, restricted: bool, lam_B: float) -> None:
    data = simulate("mixed", n=240, weighted=weighted)
    dense = data.dense(lam_B=lam_B)
    P = len(dense.ols)
    R = np.random.default_rng(1).normal(size=(2, P))
    covariance, n_flat = STRUCTURES[name]
    options: dict[str, Any] = {"restrictions": (R, R @ dense.ols + 0.05)} if restricted else {}
    rank = 2 if name == "lowrank" else "auto"
    found = fit(data.system(), rank, covariance=covariance, lam_B=lam_B, **options)
    information = dense.normal_matrix(found.sigma().values)
    Z = null_space(R) if restricted else np.eye(P)
    bread = Z @ np.linalg.inv(Z.T @ (information + np.diag(lam_B * dense.unit**2)) @ Z) @ Z.T
    assert off_by(found.cov(), bread @ information @ bread) < 1e-9
    for kind, (how, by_hand) in OF_ROWS.items():
        assert off_by(found.cov(kind, **how), bread @ meat(scores(found, data), **by_hand) @ bread) < 1e-9
    if name == "penalised":
        return
    assert_joint_covariances(data, found, n_flat)
    if lam_B == 0:
        estimate = estimate_of(found)
        if name == "full":
            estimate = replace(estimate, sigma=FullSigma(found.sigma().values))
        phi, correction = textbook(data, estimate, Z)
        assert off_by(found.cov("kackar-harville"), phi + correction) < 1e-8


@pytest.mark.parametrize("covariance", [GROUPED, SparseLowRank(2, 0.05)], ids=["grouped", "sparse"])
def test_streamed_and_opened_fits_have_the_same(covariance: Any, tmp_path: Any) -> None:
    data = bifactor("mixed", n=240)
    found, streamed = made(data, covariance), made(data, covariance, engine="stream")
    for kind, (how, _) in OF_ROWS.items():
        assert off_by(streamed.cov(kind, **how), found.cov(kind, **how).values) < 1e-6
    found.to_zarr(tmp_path / "fit.zarr")
    opened = Fit.from_zarr(tmp_path / "fit.zarr")
    if covariance is GROUPED:
        np.testing.assert_array_equal(opened.cov("observed").values, found.cov("observed").values)
        with pytest.raises(ValueError, match="kind='observed' needs the compressed rows"):
            streamed.cov("observed")
    else:
        with pytest.raises(ValueError, match=r"but l1 is 0\.05"):
            opened.cov("observed")


@pytest.mark.parametrize("covariance", [GROUPED, SparseLowRank(2, 0)], ids=["grouped", "sparse"])
def test_tests_of_hypotheses(covariance: Any) -> None:
    data = bifactor(n=200)
    free = made(data, covariance)
    hypothesis = ["y0:x1 = 0.3", "y1:x1 = y2:x1"]
    restricted = made(data, covariance, restrictions=hypothesis)
    names = zip(free.params["equation"].values, free.params["regressor"].values, strict=True)
    at = {pair: i for i, pair in enumerate(names)}
    R = np.zeros((2, free.n_coefficients))
    R[0, at["y0", "x1"]], R[1, at["y1", "x1"]], R[1, at["y2", "x1"]] = 1.0, 1.0, -1.0
    gap, V = R @ free.coefficients - [0.3, 0.0], R @ free.cov("observed").values @ R.T
    wald = free.with_cov("observed").wald_test(hypothesis)
    assert wald.statistic == pytest.approx(float(gap @ np.linalg.solve(V, gap)), rel=1e-9)
    ratio = free.lr_test(restricted)
    assert ratio.statistic == pytest.approx(2 * (free.loglik - restricted.loglik), rel=1e-9)
    assert ratio.df == 2 and ratio.statistic > 0


# ---------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("kind", ["observed", "huber-white", "kackar-harville"])
def test_penalised_loadings_are_refused(kind: Any) -> None:
    found = made(SMALL, SparseLowRank(2, 0.02))
    with pytest.raises(ValueError, match=re.escape("but l1 is 0.02. Fit with l1 = 0, or use classical")):
        found.cov(kind)


def test_two_small_groups_do_not_identify_the_general_factor() -> None:
    """Its loadings may grow on one group and shrink on the other, for the groups' own factors to make up for it."""
    halves = blocks_of(range(6), [{j: j // 3 for j in range(6)}], 1, [1])
    rng = np.random.default_rng(5)
    truth = GroupedFactors(halves, rng.uniform(0.5, 1.0, (6, 2)), rng.uniform(0.5, 1.0, 6))
    Y = rng.normal(size=(400, 6)) @ np.linalg.cholesky(truth.dense()).T
    data = Data("shared", Y, np.ones((400, 1)), (np.arange(1),) * 6)
    with pytest.warns(FitWarning, match="the groups leave 1 direction of the loadings unidentified"):
        found = made(data, GroupedLowRank(1, {f"y{j}": j // 3 for j in range(6)}))
    with pytest.raises(np.linalg.LinAlgError, match="the factors are more than the data identify"):
        found.cov("observed")


def test_a_low_rank_sigma_has_its_loadings_row_by_row() -> None:
    sigma = LowRank(np.arange(6.0).reshape(3, 2), np.ones(3))
    moves = sigma.tangents(np.zeros(3, dtype=bool)).moves(np.eye(9)[:, [3]])[0]
    expected = np.zeros((3, 3))
    expected[1] += sigma.F[:, 1]
    np.testing.assert_array_equal(moves, expected + expected.T)
