"""Restrictions R b = r kept to by every estimate: against explicit Karush-Kuhn-Tucker systems, in both engines."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import scipy.linalg

from lrgls_dask import Fit, LowRankGLS
from lrgls_dask.plan.plan import Plan
from lrgls_dask.solve.cg import conjugate_gradients
from lrgls_dask.solve.checkpoint import Checkpoint
from lrgls_dask.solve.constraint import Constraint, estimator_covariance, free_directions, inverse_within
from support.fits import assert_params_close, fit
from support.systems import Data, dask_rows, restrictions_of, simulate

ENGINES = ["compress", "stream"]
COVARIANCES: list[dict[str, Any]] = [
    {"rank": 2},
    {"rank": 2, "sigma_step": "pca"},
    {"rank": "auto", "covariance": "full"},
    {"rank": "auto", "covariance": "diagonal"},
]

pytestmark = [
    pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic variance on d_floor"),
    pytest.mark.filterwarnings("ignore:LowRankGLS. stalled"),
]


def restricted_gls(data: Data, sigma: np.ndarray, R: np.ndarray, r: np.ndarray, lam_B: float = 0.0) -> Any:
    """b and its covariance from the explicit Karush-Kuhn-Tucker system."""
    dense = data.dense(lam_B=lam_B)
    M = dense.normal_matrix(sigma)
    A = M + np.diag(lam_B * dense.unit**2)
    rhs = A @ dense.gls(sigma)
    m = len(R)
    inverse = np.linalg.inv(np.block([[A, R.T], [R, np.zeros((m, m))]]))
    G = inverse[: len(A), : len(A)]
    return (inverse @ np.concatenate([rhs, r]))[: len(A)], G @ M @ G


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("options", COVARIANCES)
@pytest.mark.parametrize(("kind", "lam_B"), [("own", 0.0), ("shared", 0.0), ("mixed", 5.0)])
def test_the_fit_is_the_restricted_optimum_at_its_sigma(
    kind: str, options: dict[str, Any], engine: str, lam_B: float
) -> None:
    data = simulate(kind, n=60, K=5, weighted=kind == "mixed", unit=3.0)
    R, r = restrictions_of(data)
    found = fit(data.system(dask_rows(25)), restrictions=(R, r), engine=engine, lam_B=lam_B, **options)
    np.testing.assert_allclose(R @ found.params.values, r, atol=1e-9)
    b, cov = restricted_gls(data, found.sigma().values, R, r, lam_B)
    se = np.sqrt(np.diag(cov))
    assert np.abs((found.params.values - b) / se).max() < 1e-6
    np.testing.assert_allclose(found.std_errors.values, se, rtol=1e-6)
    assert np.abs((found.cov().values - cov) / np.outer(se, se)).max() < 1e-6
    own = found.cov(equation="y3").values
    mine = slice(*data.dense().edges[3:5])
    assert np.abs((own - cov[mine, mine]) / np.outer(se, se)[mine, mine]).max() < 1e-6


@pytest.mark.parametrize("options", COVARIANCES)
def test_compressed_is_streamed(options: dict[str, Any]) -> None:
    data = simulate("mixed", n=80)
    R, r = restrictions_of(data)
    by = [fit(data.system(dask_rows(30)), restrictions=(R, r), engine=engine, **options) for engine in ENGINES]
    assert abs(by[0].loglik - by[1].loglik) < 1e-8
    assert_params_close(by[1], by[0], 1e-6 if options.get("sigma_step") else 1e-8)


def test_iterated_full_is_the_fixed_point_of_the_textbook_steps() -> None:
    data = simulate("own", n=30, K=4)
    R, r = restrictions_of(data)
    b = restricted_gls(data, np.diag(data.dense().s ** 2), R, r)[0]
    for _ in range(150):
        b, cov = restricted_gls(data, data.dense().S(b), R, r)
    found = fit(data.system(), rank="auto", covariance="full", restrictions=(R, r))
    assert np.abs((found.params.values - b) / np.sqrt(np.diag(cov))).max() < 1e-7
    assert found.n_parameters == found.n_coefficients - 3 + 10


def test_zero_restrictions_are_a_design_without_those_columns() -> None:
    data = simulate("own", n=60, K=4)
    dropped = np.array([1, 6])  # one regressor each of the first and the third equation
    P = sum(len(c) for c in data.columns)
    kept = Data(
        "own", data.Y, data.X, (data.columns[0][[0]], data.columns[1], data.columns[2][[0, 2, 3]], data.columns[3])
    )
    free = fit(kept.system(), rank="auto", covariance="full")
    found = fit(data.system(), rank="auto", covariance="full", restrictions=(np.eye(P)[dropped], np.zeros(2)))
    assert found.loglik == pytest.approx(free.loglik, abs=1e-9)
    assert (found.n_parameters, found.bic) == (free.n_parameters, pytest.approx(free.bic))
    left = np.delete(np.arange(P), dropped)
    np.testing.assert_allclose(found.params.values[left], free.params.values, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.std_errors.values[left], free.std_errors.values, rtol=1e-7)
    assert np.abs(found.std_errors.values[dropped]).max() < 1e-7


def test_restrictions_that_hold_anyway_change_nothing() -> None:
    data = simulate("mixed", n=80)
    free = fit(data.system())
    R, _ = restrictions_of(data)
    bound = fit(data.system(), restrictions=(R, R @ free.params.values))
    assert_params_close(bound, free, 1e-7)
    assert abs(bound.loglik - free.loglik) < 1e-8


def test_the_candidates_of_a_rank_count_the_restrictions() -> None:
    data = simulate("own", n=80)
    R, r = restrictions_of(data)
    found = fit(data.system(), rank="bic", restrictions=(R, r))
    assert found.selection is not None
    assert found.selection.loc[found.rank, "bic"] == pytest.approx(found.bic, rel=1e-12)


def test_without_the_residual_covariance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expectation-maximisation keeps to the restrictions too."""
    data = simulate("own", n=80)
    R, r = restrictions_of(data)
    expected = fit(data.system(), restrictions=(R, r))
    options = {"engine": "stream", "restrictions": (R, r), "rel_tol": 1e-10}
    model = LowRankGLS(2, **options)
    monkeypatch.setattr(model, "plan", lambda system: _without_matrix(LowRankGLS(2, engine="stream").plan(system)))
    found = model.fit(data.system()).result_
    assert set(found.trace["step"]) == {"em", "beta", "covariance"}
    np.testing.assert_allclose(R @ found.params.values, r, atol=1e-9)
    assert abs(found.loglik - expected.loglik) < 1e-4


def _without_matrix(plan: Plan) -> Plan:
    object.__setattr__(plan, "holds_sigma", False)
    return plan


def test_units_of_the_data_do_not_matter() -> None:
    data = simulate("own", n=240)
    R, r = restrictions_of(data)
    by_y, by_x = 10.0 ** np.array([6, -6, 0, 3, -3, 0]), np.logspace(-6, 6, data.X.shape[1])
    unit = np.concatenate([by_y[j] / by_x[c] for j, c in enumerate(data.columns)])
    scaled = Data("own", data.Y * by_y, data.X * by_x, data.columns)
    straight = fit(data.system(), restrictions=(R, r))
    turned = fit(scaled.system(), restrictions=(R / unit, r))
    np.testing.assert_allclose(turned.params.values / unit, straight.params.values, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(turned.std_errors.values / unit, straight.std_errors.values, rtol=1e-7)


def test_saved_and_opened(tmp_path: Any) -> None:
    data = simulate("own", n=60)
    made = fit(data.system(), restrictions=restrictions_of(data))
    made.to_zarr(tmp_path / "fit.zarr")
    again = Fit.from_zarr(tmp_path / "fit.zarr")
    assert again.restrictions is not None
    assert again.restrictions.texts == made.restrictions.texts
    np.testing.assert_array_equal(again.restrictions.matrix, made.restrictions.matrix)
    np.testing.assert_array_equal(again.std_errors.values, made.std_errors.values)
    assert again.n_parameters == made.n_parameters
    assert made.restrictions.texts[0] == "y0:x0 - y1:x0 = 0"
    assert "Restriction: y0:x0 - y1:x0 = 0" in again.summary()


def test_a_checkpoint_of_other_restrictions_is_not_gone_on_from(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = simulate("own", n=60)
    R, r = restrictions_of(data)
    options: dict[str, Any] = {"engine": "stream", "checkpoint": tmp_path / "kept.zarr"}
    monkeypatch.setattr(Checkpoint, "clear", lambda self: None)
    fit(data.system(), **options)
    bound = fit(data.system(), restrictions=(R, r), **options)
    assert bound.trace["sweep"].iloc[0] == 0
    np.testing.assert_allclose(R @ bound.params.values, r, atol=1e-9)


# ---------------------------------------------------------------------------------- conjugate gradients


def test_projected_conjugate_gradients_solve_the_constrained_problem() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(30, 20)) * np.logspace(0, 3, 20)
    A, b, R, r = root.T @ root, rng.normal(size=20), rng.normal(size=(4, 20)), rng.normal(size=4)
    constraint, diagonal = Constraint(R, r), np.diag(A).copy()
    start = constraint.nearest(np.zeros(20), diagonal)
    np.testing.assert_allclose(R @ start, r, atol=1e-13)
    found = conjugate_gradients(
        lambda p, _: A @ p, start, b - A @ start, diagonal, tol=1e-26, max_iterations=100, constraint=constraint
    )
    expected = np.linalg.solve(np.block([[A, R.T], [R, np.zeros((4, 4))]]), np.concatenate([b, r]))[:20]
    np.testing.assert_allclose(found.x, expected, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(R @ found.x, r, atol=1e-12)


# ---------------------------------------------------------------------------------- messages


def test_restrictions_by_label_are_those_of_a_matrix() -> None:
    system = simulate("mixed", n=60).system()
    R = np.zeros((2, system.n_coefficients))
    R[0, 0], R[1, 1], R[1, 2] = 1.0, 2.0, -1.0
    by_matrix = LowRankGLS(1, restrictions=(R, [0.5, 0.0])).fit(system).result_
    by_label = LowRankGLS(1, restrictions=["y0:x0 = 0.5", "2*y0:x1 = y0:x2"]).fit(system).result_
    np.testing.assert_array_equal(by_label.params, by_matrix.params)
    assert by_label.restrictions is not None and by_label.restrictions.texts[1].startswith("2*y0:x1")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (([[1, 0], [0, 1]], [0, 0]), "R must have one column for each of the P = 23 coefficients"),
        ((np.eye(23)[[0, 1, 0]], [1, 5, 2]), "contradict"),
        (["y0:x0 = 1", "2*y0:x0 = 2"], "y0:x0 = 1"),
        ("y0:nothing = 1", "no regressor 'nothing' in equation 'y0'"),
    ],
)
def test_restrictions_that_cannot_be_used(given: Any, text: str) -> None:
    system = simulate("mixed", n=40).system()
    with pytest.raises(ValueError, match=re.escape(text)):
        LowRankGLS(1, restrictions=given).fit(system)


# ---------------------------------------------------------------------------------- inverses


@pytest.mark.parametrize("ridge", [0.0, 2.0])
@pytest.mark.parametrize("restricted", [False, True])
def test_covariance_of_an_estimator_is_that_of_its_free_directions(restricted: bool, ridge: float) -> None:
    rng = np.random.default_rng(4)
    A, R = np.cov(rng.normal(size=(6, 20))), rng.normal(size=(2, 6))
    Z = scipy.linalg.null_space(R) if restricted else np.eye(6)
    free = free_directions(R) if restricted else None
    penalty = ridge * np.arange(6.0)
    normal = A + np.diag(penalty)
    inverse = inverse_within(normal, free)
    np.testing.assert_allclose(inverse, Z @ np.linalg.inv(Z.T @ normal @ Z) @ Z.T, atol=1e-12)
    if restricted:
        plain = np.linalg.inv(normal)
        taken = plain @ R.T @ np.linalg.inv(R @ plain @ R.T) @ R @ plain
        np.testing.assert_allclose(inverse, plain - taken, atol=1e-11)
    np.testing.assert_allclose(estimator_covariance(A, penalty, free), inverse @ A @ inverse, atol=1e-12)


def test_an_inverse_keeps_its_digits_beside_directions_that_are_fixed() -> None:
    """A is nearly singular along the fixed direction, where A^-1 less its part there would lose twelve digits."""
    fixed = np.full((1, 3), 1 / np.sqrt(3))
    Z = scipy.linalg.null_space(fixed)
    A = Z @ np.diag([2.0, 3.0]) @ Z.T + 1e-12 * fixed.T @ fixed
    found = inverse_within(A, free_directions(fixed))
    np.testing.assert_allclose(found, Z @ np.diag([1 / 2, 1 / 3]) @ Z.T, rtol=1e-13)
    with pytest.raises(np.linalg.LinAlgError):
        inverse_within(-A, free_directions(fixed))
