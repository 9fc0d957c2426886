"""Factors beside blocks of groups: direct maximisation, special cases, all inference, laws, files, refusals."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.linalg import block_diag, null_space
from scipy.optimize import approx_fprime, minimize, root

from lrgls_dask import BlockLowRank, Fit, FitWarning, LowRankGLS, System, Termination
from lrgls_dask.sigma.block_lowrank import BlockFactors, _Search
from lrgls_dask.sigma.blocks import blocks_of
from lrgls_dask.solve.checkpoint import Checkpoint
from support import kackar_harville
from support.fits import assert_params_close, fit
from support.likelihood import estimate_of, gradient_rows, hessian, identified_inverse, loglik_rows
from support.sandwiches import off_by
from support.systems import Data, dask_rows, simulate

K = 6
NAMES = [f"y{j}" for j in range(K)]
PAIRS = dict(zip(NAMES, "aabbcc", strict=True))
BLOCKS = BlockLowRank(1, PAIRS)
LOWER = [(i, j) for i in range(K) for j in range(i + 1) if i // 2 == j // 2]


def data(kind: str = "mixed", n: int = 150, seed: int = 1, **options: Any) -> Data:
    """One factor of all equations, and errors that pairs of equations share."""
    made = simulate(kind, n=n, K=K, k=1, seed=seed, **options)
    rng = np.random.default_rng(seed)
    shared = np.repeat(rng.normal(size=(n, K // 2)), 2, axis=1) * rng.uniform(0.4, 1.2, K) * np.resize([1, -1, 1], K)
    return replace(made, Y=made.Y + shared)


def made(of: Data, covariance: Any = BLOCKS, **options: Any) -> Fit:
    return fit(of.system(dask_rows(50)), "auto", covariance=covariance, **options)


def matrix_of(F: np.ndarray, own: np.ndarray) -> np.ndarray:
    """F F' and the blocks with these entries, LOWER by LOWER."""
    out = F @ F.T
    for (i, j), entry in zip(LOWER, own, strict=True):
        out[i, j] += entry
        if i != j:
            out[j, i] += entry
    return out


def theta_of(found: Fit) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """(b, F, entries of the blocks) of a fit, and Sigma as a function of it."""
    P, k, own = found.n_coefficients, found.rank, found.own_cov().values

    def sigma(theta: np.ndarray) -> np.ndarray:
        return matrix_of(theta[P : P + K * k].reshape(K, k), theta[P + K * k :])

    entries = [own[i, j] for i, j in LOWER]
    return np.concatenate([found.coefficients, found.loadings.values.ravel(), entries]), sigma


# ---------------------------------------------------------------------------------- the optimum


def directly(of: Data, starts: int = 5) -> tuple[float, np.ndarray]:
    """The log-likelihood and Sigma of its maximum over all coefficients, loadings and entries of the blocks."""
    dense, rng = of.dense(), np.random.default_rng(0)
    P = len(dense.ols)
    rows = loglik_rows(of, lambda theta: matrix_of(theta[P : P + K, None], theta[P + K :]))

    def slope(theta: np.ndarray) -> np.ndarray:
        return -np.asarray(gradient_rows(rows, theta).mean(axis=0))

    ends = []
    for _ in range(starts):
        blocks = np.diag(dense.s**2) * rng.uniform(0.3, 0.8)
        theta = np.concatenate([dense.ols, rng.normal(size=K) * 0.5, [blocks[i, j] for i, j in LOWER]])
        end = minimize(lambda at: -np.nan_to_num(rows(at), nan=-1e3).mean(), theta, jac=slope, method="BFGS").x
        end = root(slope, end, tol=1e-13).x
        ends.append((rows(end).sum(), matrix_of(end[P : P + K, None], end[P + K :])))
    return max(((loglik, S) for loglik, S in ends if np.isfinite(loglik)), key=lambda pair: pair[0])


@pytest.mark.parametrize("engine", ["compress", "stream"])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_the_maximum_over_all_parameters(weighted: bool, engine: str) -> None:
    of = data(weighted=weighted)
    loglik, sigma = directly(of)
    found = made(of, engine=engine)
    assert abs(found.loglik - loglik) < 1e-8 * abs(loglik)
    assert off_by(found.sigma().values, sigma) < (1e-7 if engine == "compress" else 1e-6)
    assert found.termination is Termination.CONVERGED


def test_the_slope_of_the_profile_is_that_of_differences() -> None:
    rng = np.random.default_rng(2)
    E = rng.normal(size=(40, K)) @ rng.normal(size=(K, K))
    S, blocks = E.T @ E / 40, blocks_of(NAMES, [PAIRS], 0, [0])
    search = _Search(S, blocks, 2, np.full(K, 1e-3))
    for z in rng.normal(size=(3, len(LOWER))):
        slope = approx_fprime(z, lambda at: search.value_and_slope(at)[0], 1e-6)
        np.testing.assert_allclose(search.value_and_slope(z)[1], slope, atol=1e-4 * np.abs(slope).max())
        assert search.sigma(z).nll(S) == pytest.approx(search.value_and_slope(z)[0], rel=1e-11)


# ---------------------------------------------------------------------------------- special cases


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_groups_of_one_are_factor_analysis(rank: int) -> None:
    of = simulate("mixed", n=240, K=K)
    alone, plain = made(of, BlockLowRank(rank, {name: name for name in NAMES})), fit(of.system(), rank)
    assert_params_close(alone, plain, 1e-8)
    assert abs(alone.loglik - plain.loglik) < 1e-8
    assert (alone.n_parameters, alone.rank) == (plain.n_parameters, rank)
    np.testing.assert_allclose(alone.idio_var, plain.idio_var, rtol=1e-7)
    np.testing.assert_allclose(alone.loadings, plain.loadings, rtol=1e-6, atol=1e-7)
    for kind in ("classical", "observed", "kackar-harville"):
        assert off_by(alone.cov(kind).values, plain.cov(kind).values) < 1e-6
    np.testing.assert_allclose(alone.loadings_std_errors, plain.loadings_std_errors, rtol=1e-6)
    np.testing.assert_allclose(alone.idio_var_std_errors, plain.idio_var_std_errors, rtol=1e-6)


def test_one_group_without_factors_is_any_sigma() -> None:
    of = data(weighted=True)
    whole, full = made(of, BlockLowRank(0, dict.fromkeys(NAMES, "all"))), fit(of.system(), "auto", covariance="full")
    assert_params_close(whole, full, 1e-7)
    assert abs(whole.loglik - full.loglik) < 1e-8
    assert whole.n_parameters == full.n_parameters
    for kind in ("observed", "huber-white", "kackar-harville"):
        assert off_by(whole.cov(kind).values, full.cov(kind).values) < 1e-6


def test_without_factors_groups_are_systems_of_their_own() -> None:
    of = data("own")
    whole = made(of, BlockLowRank(0, PAIRS))
    apart = [
        fit(System.from_arrays(of.Y[:, [j, j + 1]], [of.Xs[j], of.Xs[j + 1]]), "auto", covariance="full")
        for j in (0, 2, 4)
    ]
    assert whole.loglik == pytest.approx(sum(each.loglik for each in apart), rel=1e-11)
    np.testing.assert_allclose(whole.params, np.concatenate([each.params for each in apart]), rtol=1e-6, atol=1e-8)


def test_it_holds_plain_factors_and_is_held_by_any_sigma() -> None:
    of = data()
    plain, blocks, full = fit(of.system(), 1), made(of), fit(of.system(), "auto", covariance="full")
    assert plain.loglik <= blocks.loglik <= full.loglik
    assert blocks.lr_test(plain).df == 3 and blocks.lr_test(full).df == 6
    assert blocks.n_parameters == blocks.n_coefficients + K + len(LOWER)
    assert blocks.rank_test().df == 6 and "1 factor and 3 blocks" in str(blocks.rank_test())
    assert blocks.lr_diagonal().pvalue < 1e-6


# ---------------------------------------------------------------------------------- inference


@pytest.mark.parametrize(
    ("weighted", "restricted", "lam_B"), [(False, False, 0.0), (True, True, 0.0), (True, False, 20.0)]
)
def test_every_kind_of_covariance(weighted: bool, restricted: bool, lam_B: float, monkeypatch: Any) -> None:
    of = data(weighted=weighted)
    dense = of.dense(lam_B=lam_B)
    P = len(dense.ols)
    R = np.random.default_rng(1).normal(size=(2, P))
    found = made(of, lam_B=lam_B, **({"restrictions": (R, R @ dense.ols + 0.05)} if restricted else {}))
    Z = null_space(R) if restricted else np.eye(P)
    theta, sigma = theta_of(found)
    rows = loglik_rows(of, sigma)
    J, by_row = -hessian(rows, theta), gradient_rows(rows, theta)
    A, all_free = J.copy(), block_diag(Z, np.eye(len(theta) - P))
    A[:P, :P] += np.diag(found.lam_B * dense.unit**2)
    inverse = all_free @ identified_inverse(all_free.T @ A @ all_free, 0) @ all_free.T
    assert off_by(found.cov("observed"), (inverse @ J @ inverse)[:P, :P]) < 5e-6
    assert off_by(found.cov("huber-white"), (inverse @ by_row.T @ by_row @ inverse)[:P, :P]) < 5e-6
    bread = (
        Z @ np.linalg.inv(Z.T @ (dense.normal_matrix(found.sigma().values) + np.diag(lam_B * dense.unit**2)) @ Z) @ Z.T
    )
    assert off_by(found.cov(), bread @ dense.normal_matrix(found.sigma().values) @ bread) < 1e-8
    assert np.all(found.with_cov("robust").std_errors > 0)
    if lam_B == 0:
        monkeypatch.setattr(kackar_harville, "directions", lambda estimate: moves_of(found))
        phi, correction = kackar_harville.textbook(of, estimate_of(found), Z)
        assert off_by(found.cov("kackar-harville").values, phi + correction) < 1e-7


def moves_of(found: Fit) -> list[np.ndarray]:
    """dSigma along every loading and every entry of the blocks."""
    unit, F = np.eye(K), found.loadings.values
    moves = [np.outer(e, f) + np.outer(f, e) for e in unit for f in F.T]
    return moves + [np.outer(unit[i], unit[j]) + np.outer(unit[j], unit[i]) * (i != j) for i, j in LOWER]


def test_standard_errors_of_sigma_are_those_of_the_textbook_information() -> None:
    found = made(data())
    Q, moves = np.linalg.inv(found.sigma().values), np.array(moves_of(found))
    inverse = np.linalg.inv([[found.n_obs / 2 * np.trace(Q @ a @ Q @ b) for b in moves] for a in moves])
    se = np.sqrt(np.diag(inverse))
    np.testing.assert_allclose(found.loadings_std_errors.values.ravel(), se[:K], rtol=1e-8)
    own = [se[K + place] for place, (i, j) in enumerate(LOWER) if i == j]
    np.testing.assert_allclose(found.idio_var_std_errors, own, rtol=1e-8)
    entries = np.sqrt(np.einsum("aij,ab,bij->ij", moves, inverse, moves))
    np.testing.assert_allclose(found.sigma_std_errors()["sigma"], entries, rtol=1e-8)


def test_rows_given_others_and_factor_scores() -> None:
    of, new = data(), data(seed=3, n=40)
    found = made(of)
    S, F, fitted = found.sigma().values, found.loadings.values, new.Y - new.dense().residuals(found.params.values)
    o = np.arange(K) != 2
    hidden = replace(new, Y=np.where(o, new.Y, np.nan)).system()
    expected = fitted[:, 2] + (new.Y - fitted)[:, o] @ np.linalg.solve(S[np.ix_(o, o)], S[o, 2])
    np.testing.assert_allclose(found.predict_given(hidden).values[:, 2], expected, rtol=1e-8)
    weights = np.linalg.solve(found.own_cov().values, F)
    for method, A in (("regression", np.linalg.solve(S, F)), ("bartlett", weights @ np.linalg.inv(F.T @ weights))):
        scores = found.factor_scores(new.system(), method=method)
        np.testing.assert_allclose(scores.values, (new.Y - fitted) @ A, rtol=1e-7, atol=1e-9)


def test_the_bootstrap_refits_the_blocks() -> None:
    found = made(data(n=400))
    n = 60
    draws = found.bootstrap(n=n, seed=1)
    error = np.log(draws.std_errors / found.std_errors) * np.sqrt(2 * n)  # in standard errors of the draws themselves
    assert np.abs(error).max() < 4
    away = (draws.draws.idio_var.mean(axis=0) - found.idio_var) / (found.idio_var_std_errors / np.sqrt(n))
    assert np.abs(away).max() < 5  # estimates of 400 rows are biased by about the standard error of 60 draws


# ---------------------------------------------------------------------------------- laws


def test_units_and_order_act_as_the_algebra_says() -> None:
    of = data()
    straight, by_y = made(of), 10.0 ** np.array([3, -3, 0, 1, -2, 0])
    turned = made(replace(of, Y=of.Y * by_y))
    assert turned.loglik == pytest.approx(straight.loglik - len(of.Y) * np.log(by_y).sum(), rel=1e-10)
    np.testing.assert_allclose(turned.own_cov(), straight.own_cov() * np.outer(by_y, by_y), rtol=1e-6, atol=1e-12)
    order = [3, 0, 5, 1, 4, 2]
    moved = Data(of.kind, of.Y[:, order], of.X, tuple(of.columns[j] for j in order))
    found = made(moved, BlockLowRank(1, {f"y{i}": PAIRS[NAMES[j]] for i, j in enumerate(order)}))
    assert found.loglik == pytest.approx(straight.loglik, rel=1e-11)
    np.testing.assert_allclose(found.own_cov(), straight.own_cov().values[np.ix_(order, order)], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("options", [{"algorithm": "fgls"}, {"debiased": True}, {"lam_B": 5.0}])
def test_both_engines_agree(options: dict[str, Any]) -> None:
    compressed, streamed = (made(data(), engine=engine, **options) for engine in ("compress", "stream"))
    assert_params_close(compressed, streamed, 1e-6)
    np.testing.assert_allclose(compressed.sigma(), streamed.sigma(), rtol=1e-6, atol=1e-8)


def test_the_objective_falls() -> None:
    obj = made(data()).trace["obj"].to_numpy()
    assert np.all(np.diff(obj) < 1e-12)


def test_a_killed_fit_goes_on_from_its_last_point(tmp_path: Any, monkeypatch: Any) -> None:
    path, of = tmp_path / "kept.zarr", data()
    whole = made(of, engine="stream")

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "clear", die)
    with pytest.raises(KeyboardInterrupt):
        made(of, engine="stream", checkpoint=path)
    monkeypatch.undo()
    again = made(of, engine="stream", checkpoint=path)
    assert again.n_passes < whole.n_passes
    assert_params_close(again, whole, 1e-6)


# ---------------------------------------------------------------------------------- what users see


def test_saved_opened_and_shown(tmp_path: Any) -> None:
    found = made(data())
    found.to_zarr(tmp_path / "fit.zarr")
    again = Fit.from_zarr(tmp_path / "fit.zarr")
    np.testing.assert_array_equal(again.sigma(), found.sigma())
    assert isinstance(again.covariance, BlockFactors)
    assert again.covariance.groups.group_names[1] == ("a", "b", "c")
    assert again.summary() == found.summary()
    assert "Sigma = F F' + blocks of groups" in found.summary() and "1, beside 3 blocks" in found.summary()
    own = found.own_cov()
    assert own.dims == ("equation", "equation_other") and list(own["equation"].values) == NAMES
    np.testing.assert_array_equal(own.values[~np.equal.outer(list("aabbcc"), list("aabbcc"))], 0.0)
    np.testing.assert_allclose(np.diag(own), found.idio_var, rtol=1e-13)
    np.testing.assert_allclose(found.loadings @ found.loadings.rename(equation="equation_other") + own, found.sigma())
    strength = found.loadings.values.T @ np.linalg.solve(own.values, found.loadings.values)
    np.testing.assert_allclose(strength, np.diag(np.diag(strength)), atol=1e-10)
    assert xr.open_zarr(tmp_path / "fit.zarr", consolidated=False)["own_entries"].size == len(LOWER)


def test_groups_come_in_any_form() -> None:
    of = data()
    expected = made(of).loglik
    series = pd.Series(PAIRS)
    for groups in (series, xr.DataArray(series.values, {"equation": NAMES}, ("equation",)), series.iloc[::-1]):
        assert made(of, BlockLowRank(1, groups)).loglik == pytest.approx(expected, rel=1e-12)


def test_a_combination_without_variance_of_its_own_is_reported() -> None:
    of = data("shared")
    Y = of.Y.copy()
    Y[:, 3] = Y[:, 2] * 2.0 + of.X @ np.ones(of.X.shape[1])
    with pytest.warns(FitWarning, match=r"on d_floor \(Heywood case\) in equations 'y2', 'y3'"):
        found = LowRankGLS(covariance=BLOCKS, d_floor=1e-4).fit(replace(of, Y=Y).system()).result_
    assert found.on_floor == ("y2", "y3")
    unit = np.sqrt(np.diag(np.cov(of.dense().residuals(of.dense().ols).T)))
    scale = np.array([unit[2], 2 * unit[2]])
    block = found.own_cov().values[2:4, 2:4] / np.outer(scale, scale)
    assert np.linalg.eigvalsh(block)[0] == pytest.approx(1e-4, rel=0.1)


# ---------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (
            BlockLowRank(1, dict(zip(NAMES, "aaabbb", strict=True))),
            "identify 0 factors, but rank is 1; there are 2 groups",
        ),
        (BlockLowRank(1, dict.fromkeys(NAMES, "all")), "identify 0 factors, but rank is 1; there is 1 group, of 6"),
        (BlockLowRank(3, PAIRS), "identify 2 factors, but rank is 3; there are 3 groups, of 2 equations. Use"),
        (BlockLowRank(4, PAIRS), "rank 4 is more than 6 equations identify"),
        (BlockLowRank(1, {"y0": "a"}), "groups: equation 'y1' (and 4 more) has no group"),
        (BlockLowRank(1, PAIRS | {"z": "a"}), "groups: 'z' is not an equation"),
        (BlockLowRank(1, "sector"), "groups names a coordinate 'sector' along the equations, but the system has none"),
    ],
)
def test_groups_that_do_not_do_are_refused(covariance: BlockLowRank, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        LowRankGLS(covariance=covariance).fit(data().system())


def test_what_goes_with_it_is_checked_at_once() -> None:
    with pytest.raises(TypeError, match="rank must be an integer"):
        BlockLowRank(1.5, PAIRS)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="groups must map equations to groups"):
        BlockLowRank(1, 3)
    with pytest.raises(ValueError, match="'em' does not go with covariance=BlockLowRank"):
        LowRankGLS(covariance=BLOCKS, algorithm="em")
    with pytest.raises(ValueError, match="rank must keep its default"):
        LowRankGLS(2, covariance=BLOCKS)
