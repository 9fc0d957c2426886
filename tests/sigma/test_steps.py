"""The maximum-likelihood and principal-component updates: derivatives, optimality, reference programs, monotonicity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.ml import joint_objective, ml_candidates, ml_step
from lrgls_dask.sigma.newton import SMALL_SHARE, Local, minimise
from lrgls_dask.sigma.pca import STEP_LENGTHS, pca_step
from lrgls_dask.sigma.polish import polished
from lrgls_dask.sigma.profile import Profile, leading
from lrgls_dask.sigma.starts import joreskog_start, many_starts
from lrgls_dask.sigma.steps import nll_gradient, penalised
from support.covariances import correlation, floor_of, moments
from support.reference import load


def central_differences(f, x: np.ndarray, h: float) -> np.ndarray:
    return np.stack([(f(x + h * e) - f(x - h * e)) / (2 * h) for e in np.eye(x.size)])


@pytest.mark.parametrize(("K", "k", "n"), [(2, 1, 300), (6, 1, 300), (8, 3, 300), (9, 4, 5), (7, 6, 300)])
def test_profile_value_gradient_and_hessian(K: int, k: int, n: int) -> None:
    S = moments(K, n)
    profile = Profile(S, k, floor_of(S))
    x = np.log(np.random.default_rng(K).uniform(0.05, 0.6, K))
    point = profile.at(x)
    assert point.value == pytest.approx(point.sigma.nll(S), rel=1e-12)
    gradient = central_differences(lambda z: profile.at(z).value, x, 1e-5)
    np.testing.assert_allclose(point.gradient, gradient, atol=2e-8 * max(1.0, np.abs(gradient).max()))
    hessian = central_differences(lambda z: profile.at(z).gradient, x, 1e-5)
    np.testing.assert_allclose(point.hessian.H, hessian, atol=2e-8 * max(1.0, np.abs(hessian).max()))


def test_no_loadings_beat_the_closed_form_at_the_same_d() -> None:
    S, rng = moments(7), np.random.default_rng(0)
    point = Profile(S, 2, floor_of(S)).at(np.log(rng.uniform(0.2, 0.9, 7)))
    for size in (1e-3, 1e-1, 1.0):
        other = LowRank(point.sigma.F + size * rng.standard_normal((7, 2)), point.sigma.d)
        assert other.nll(S) > point.value


def test_leading_pairs_give_the_same_profile_as_all_pairs() -> None:
    S = moments(40, factors=3)
    S[3, :] *= 1e-3  # far from any model: every term matters
    S[:, 3] = S[3, :]
    for d_low in (0.3, 1e-7):
        x = np.log(np.r_[d_low, np.full(39, 0.5)])
        everything, few = (Profile(S, 3, floor_of(S), exact=exact).at(x) for exact in (True, False))
        assert few.value == pytest.approx(everything.value, rel=1e-12)
        np.testing.assert_allclose(few.gradient, everything.gradient, atol=1e-11)
        np.testing.assert_allclose(few.scoring.image(x), everything.scoring.image(x), atol=1e-10)
        assert few.hessian is None


def test_lanczos_and_dense_eigenpairs_agree() -> None:
    S = moments(230, 300, factors=4)
    values, vectors = leading(S, 4)  # above LANCZOS_ABOVE
    np.testing.assert_allclose(values, np.linalg.eigvalsh(S)[:-5:-1], rtol=1e-12)
    np.testing.assert_allclose(S @ vectors, vectors * values, atol=1e-10)
    np.testing.assert_array_equal(leading(S, 4)[1], vectors)


def test_clustered_eigenvalues_fall_back_to_the_dense_solver() -> None:
    values, vectors = leading(np.eye(230), 3)
    np.testing.assert_allclose(values, np.ones(3))
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("lam_F", [0.0, 0.3])
def test_joint_gradient(lam_F: float) -> None:
    S, rng = moments(5), np.random.default_rng(4)
    z = np.concatenate([rng.standard_normal(10), np.log(rng.uniform(0.2, 0.9, 5))])
    numeric = central_differences(lambda y: joint_objective(y, S, 2, lam_F)[0], z, 1e-5)
    np.testing.assert_allclose(joint_objective(z, S, 2, lam_F)[1], numeric, atol=1e-8)


def reference_moments(case: str) -> tuple[dict, np.ndarray, np.ndarray]:
    """The reference fits, the correlation matrix, and the standard deviations (ML divisor) that were taken out."""
    reference, data = load(case)
    S = data.to_numpy(float) if reference["data"].startswith("correlation") else data.cov(ddof=0).to_numpy()
    sd = np.sqrt(np.diag(S))
    return reference, S / np.outer(sd, sd), sd


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("case", ["case04a_bfi25", "case04c_harman74"])
def test_factanal_and_lavaan_find_the_same_optimum(case: str, k: int) -> None:
    reference, S, sd = reference_moments(case)
    fit = reference["fits"][f"k{k}"]
    sigma = ml_step(S, k, floor_of(S), restarts=True).sigma.rescaled(sd)
    units = np.outer(sd, sd)
    np.testing.assert_allclose(sigma.dense() / units, fit["sigma"] / units, atol=1e-10)
    np.testing.assert_allclose(sigma.d, fit["uniquenesses"], rtol=1e-9)
    loglik = -reference["N"] * sigma.nll(S * units)
    assert loglik == pytest.approx(fit["loglik"], abs=1e-7)


def test_local_optima_are_listed_best_first_with_their_counts() -> None:
    reference, S, _ = reference_moments("case04a_bfi25")
    best, second = ml_candidates(S, 4, floor_of(S))
    # lavaan's default start ends 49 lower than the best (case04a NOTE): the list has that optimum too.
    assert reference["N"] * (second.sigma.nll(S) - best.sigma.nll(S)) == pytest.approx(48.7, abs=0.1)
    assert best.n_agreed + second.n_agreed == best.n_starts == second.n_starts
    assert best.n_agreed > second.n_agreed >= 1
    again = ml_step(S, 4, floor_of(S), start=second.sigma)
    assert again.sigma.nll(S) == pytest.approx(second.sigma.nll(S), rel=1e-13)


@pytest.mark.parametrize("k", [1, 2])
def test_a_heywood_case_ends_on_the_floor_where_lavaan_and_openmx_end(k: int) -> None:
    reference, data = load("case05g_sim_heywood_K6_N120")
    fit, table = reference["fits"][f"factor_k{k}"], data.to_numpy(float)
    R = np.column_stack(
        [
            table[:, 2 * j] - b["const"] - b[f"x{j}"] * table[:, 2 * j - 1]
            for j, b in enumerate(fit["coefficients"].values(), start=1)
        ]
    )
    S = R.T @ R / len(R)
    step = ml_step(S, k, 1e-8 * np.diag(S), restarts=True)
    sd = np.sqrt(np.diag(S))
    np.testing.assert_allclose(step.sigma.dense() / np.outer(sd, sd), fit["sigma"] / np.outer(sd, sd), atol=1e-6)
    assert step.sigma.nll(S) == pytest.approx(fit["nll_per_row"], abs=1e-7)
    assert step.sigma.d[2] == pytest.approx(1e-8 * S[2, 2])


def kkt(S: np.ndarray, sigma: LowRank, floor: np.ndarray) -> float:
    """Largest derivative over the coordinates free to move down it; 0 at an optimum."""
    return Local.at(Profile(S, sigma.rank, floor), np.log(sigma.d)).size


@pytest.mark.parametrize(("K", "k", "factors"), [(2, 1, 1), (6, 1, 1), (20, 3, 3), (12, 2, 6), (50, 3, 3)])
def test_the_result_is_stationary_to_rounding(K: int, k: int, factors: int) -> None:
    S = moments(K, factors=factors)
    for restarts in (False, True):
        step = ml_step(S, k, floor_of(S), restarts=restarts)
        assert kkt(S, step.sigma, floor_of(S)) < 1e-10
        assert step.accept_t == 1.0


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), K=st.integers(2, 9), most=st.integers(1, 4), n=st.sampled_from([2, 5, 12, 200]))
def test_any_moments_singular_ones_too(seed: int, K: int, most: int, n: int) -> None:
    """Above the floor, below other points of the profile, never above the start."""
    k, S = min(most, K - 1), correlation(np.random.default_rng(seed).standard_normal((n, K)))
    floor = floor_of(S)
    step = ml_step(S, k, floor, restarts=True)
    assert np.all(step.sigma.d >= floor * (1 - 1e-12))
    assert 1 <= step.n_agreed <= step.n_starts
    profile = Profile(S, k, floor)
    rng = np.random.default_rng(seed)
    for _ in range(3):
        d = rng.uniform(0.05, 1.0, K)
        assert step.sigma.nll(S) <= profile.at(np.log(d)).value + 1e-9
        start = LowRank(rng.standard_normal((K, k)), d)
        assert ml_step(S, k, floor, start=start).sigma.nll(S) <= start.nll(S)


def near_duplicates() -> np.ndarray:
    """Six equations, the third all but equal to the first: a narrow valley d_1 + d_3 = constant to the floor."""
    rng = np.random.default_rng(5)
    E = rng.standard_normal((120, 1)) + rng.standard_normal((120, 6))
    E[:, 2] = E[:, 0] + 0.01 * E[:, 2]
    return correlation(E)


def test_two_equations_that_nearly_coincide_cost_no_accuracy() -> None:
    S = near_duplicates()
    step = ml_step(S, 1, floor_of(S), restarts=True)
    assert step.n_agreed == step.n_starts
    assert kkt(S, step.sigma, floor_of(S)) < 1e-6


@pytest.mark.parametrize("k", [1, 2])
def test_a_narrow_valley_takes_tens_of_evaluations_not_thousands(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    S, calls, at = near_duplicates(), [], Profile.at
    monkeypatch.setattr(Profile, "at", lambda self, x: calls.append(1) or at(self, x))
    step = ml_step(S, k, floor_of(S), restarts=True)
    assert len(calls) < 30 * step.n_starts  # 9 and 14; without the active-set passes 10 and 58


def test_the_undamped_step_is_newton_in_coordinates_that_turn_linear_below_the_corner() -> None:
    rng = np.random.default_rng(8)
    E = rng.standard_normal((400, 1)) @ np.array([[1.0, 1.0, 0.8, 0.7, 0.6]])
    E += rng.standard_normal((400, 5)) * np.array([0.15, 0.15, 1.0, 1.0, 1.0])
    S = correlation(E)
    profile = Profile(S, 1, floor_of(S))
    corner = np.log(SMALL_SHARE * np.diag(S))
    here = Local.at(profile, np.log(1.2 * ml_step(S, 1, floor_of(S), restarts=True).sigma.d))
    assert np.count_nonzero(here.slope < 1.0) == 2

    def gradient(u: np.ndarray) -> np.ndarray:
        x = corner + np.where(u < 0.0, np.log1p(np.minimum(u, 0.0)), u)
        return Local.at(profile, x).gradient

    hessian = central_differences(gradient, here.u, 1e-6)
    moved = Local.at(profile, here.after(damping=0.0))
    np.testing.assert_allclose(moved.u - here.u, np.linalg.solve(hessian, -here.gradient), atol=1e-6)


def test_a_start_on_the_floor_leaves_it_when_the_optimum_is_inside() -> None:
    S = moments(8)
    best = ml_step(S, 2, floor_of(S)).sigma
    d = best.d.copy()
    d[:2] = 1e-8
    step = ml_step(S, 2, floor_of(S), start=LowRank(best.F, d))
    assert kkt(S, step.sigma, floor_of(S)) < 1e-9
    assert step.sigma.d.min() > 1e-7


@pytest.mark.parametrize("S", [np.eye(4), np.ones((4, 4)), np.diag([1.0, 0.0, 1.0, 1.0])], ids=["eye", "ones", "zero"])
def test_degenerate_moments(S: np.ndarray) -> None:
    floor = floor_of(S, 1e-6)
    sigma = ml_step(S, 1, floor, restarts=True).sigma
    # Of these only `ones` has anything in common; its d ends on the floor, where diag(Sigma) = diag S no longer holds.
    np.testing.assert_allclose(sigma.dense(), np.maximum(S, np.diag(floor)), atol=2e-6)


def test_rank_zero_is_closed_form_and_one_equation_is_its_variance() -> None:
    S = np.diag([0.5, 1e-12, 2.0]) + 0.1
    floor = np.array([1e-3, 0.2, 1e-3])
    for step in (ml_step(S, 0, floor), ml_step(S, 0, floor, restarts=True), pca_step(S, 0, floor)):
        np.testing.assert_allclose(step.sigma.d, [0.6, 0.2, 2.1])
        assert step.sigma.rank == 0
    one = ml_step(np.array([[0.7]]), 0, np.array([1e-8]))
    assert one.sigma.nll(np.array([[0.7]])) == pytest.approx(0.5 * (np.log(2 * np.pi * 0.7) + 1.0))


def test_units_and_order_of_equations_act_as_the_algebra_says() -> None:
    S, order = moments(8), np.random.default_rng(0).permutation(8)
    scale = 10.0 ** np.linspace(-3, 3, 8)
    sigma = ml_step(S, 2, floor_of(S), restarts=True).sigma.dense()
    scaled = ml_step(S * np.outer(scale, scale), 2, 1e-8 * scale**2, restarts=True).sigma.dense()
    np.testing.assert_allclose(scaled / np.outer(scale, scale), sigma, atol=1e-11)
    shuffled = ml_step(S[np.ix_(order, order)], 2, floor_of(S), restarts=True).sigma.dense()
    np.testing.assert_allclose(shuffled, sigma[np.ix_(order, order)], atol=1e-11)


def test_a_warm_start_is_kept_when_it_cannot_be_improved() -> None:
    S = moments(10)
    for lam_F in (0.0, 0.05):
        best = ml_step(S, 2, floor_of(S), lam_F=lam_F, restarts=True).sigma
        again = ml_step(S, 2, floor_of(S), lam_F=lam_F, start=best)
        assert penalised(again.sigma, S, lam_F) <= penalised(best, S, lam_F) + 1e-14
        np.testing.assert_allclose(again.sigma.dense(), best.dense(), atol=1e-7)
        assert again.accept_t == (0.0 if again.sigma is best else 1.0)


def test_a_start_better_than_every_candidate_is_returned_with_step_zero() -> None:
    S = moments(10)
    below_floor = ml_step(S, 2, floor_of(S)).sigma
    step = ml_step(S, 2, np.full(10, 0.9), start=below_floor)
    assert step.sigma is below_floor
    assert step.accept_t == 0.0


def test_a_start_with_fewer_factors_is_padded_and_one_with_more_refused() -> None:
    S = moments(8)
    one = ml_step(S, 1, floor_of(S)).sigma
    for step in (ml_step, pca_step):
        assert step(S, 2, floor_of(S), start=one).sigma.nll(S) <= one.nll(S)
        with pytest.raises(ValueError, match="start has 1 factors but rank 0"):
            step(S, 0, floor_of(S), start=one)


@pytest.mark.parametrize(
    ("S", "rank", "floor", "message"),
    [
        (np.eye(3), 3, np.ones(3), "rank 3"),
        (np.eye(3), -1, np.ones(3), "rank -1"),
        (np.ones((3, 2)), 1, np.ones(3), r"S \(3, 2\)"),
        (np.eye(3), 1, np.ones(2), r"floor \(2,\)"),
        (np.eye(3), 1, np.array([1.0, 0.0, 1.0]), "entry 1 is 0.0"),
        (np.diag([1.0, np.nan, 1.0]), 1, np.ones(3), "row 1 is not"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(S: np.ndarray, rank: int, floor: np.ndarray, message: str) -> None:
    for step in (ml_step, pca_step):
        with pytest.raises(ValueError, match=message):
            step(S, rank, floor)


@pytest.mark.parametrize("lam_F", [1e-3, 0.1, 10.0])
def test_the_penalised_optimum_is_stationary_and_shrinks_the_loadings(lam_F: float) -> None:
    S, floor = moments(8), floor_of(moments(8))
    free = ml_step(S, 2, floor, restarts=True).sigma
    sigma = ml_step(S, 2, floor, lam_F=lam_F, restarts=True).sigma
    _, along_F, along_x = nll_gradient(sigma, S)
    assert np.abs(along_F + lam_F * sigma.F).max() < 1e-6
    assert np.abs(along_x).max() < 1e-6
    assert penalised(sigma, S, lam_F) < penalised(free, S, lam_F)
    assert np.linalg.norm(sigma.F) < np.linalg.norm(free.F)


def test_penalised_candidates_from_a_start_are_distinct_and_the_first_no_worse() -> None:
    _, S, _ = reference_moments("case04a_bfi25")
    start = pca_step(S, 4, floor_of(S)).sigma
    values = [penalised(step.sigma, S, 1e-3) for step in ml_candidates(S, 4, floor_of(S), lam_F=1e-3, start=start)]
    assert values[0] <= penalised(start, S, 1e-3)
    assert np.all(np.diff(values) > 1e-5)


def test_above_the_exact_limit_the_result_agrees_with_the_exact_one() -> None:
    S = moments(60, factors=3)
    floor = floor_of(S)
    exact = ml_step(S, 3, floor).sigma
    point = minimise(Profile(S, 3, floor, exact=False), np.log(joreskog_start(Profile(S, 3, floor))), 1e-12, 200)
    np.testing.assert_allclose(point.sigma.dense(), exact.dense(), atol=1e-6)


def test_starts_are_many_distinct_repeatable_and_positive() -> None:
    profile = Profile(moments(6), 2, np.full(6, 1e-8))
    first, second = (np.array(list(many_starts(profile))) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert len(np.unique(first, axis=0)) == len(first) == 12
    assert first.min() > 0.0
    assert joreskog_start(Profile(moments(6, 4), 2, np.full(6, 1e-8))) is None


def test_pca_without_a_start_is_the_principal_components() -> None:
    S = moments(6)
    sigma = pca_step(S, 2, floor_of(S)).sigma
    values, vectors = np.linalg.eigh(S)
    np.testing.assert_allclose(sigma.F @ sigma.F.T, (vectors[:, -2:] * values[-2:]) @ vectors[:, -2:].T, atol=1e-12)
    np.testing.assert_allclose(sigma.variances, np.diag(S), atol=1e-12)


@pytest.mark.parametrize("lam_F", [0.0, 0.2])
def test_pca_lowers_the_objective_until_it_says_zero(lam_F: float) -> None:
    S, rng = moments(9), np.random.default_rng(2)
    sigma = LowRank(rng.standard_normal((9, 2)), np.full(9, 0.5))
    lengths = []
    for _ in range(40):
        step = pca_step(S, 2, floor_of(S), lam_F=lam_F, start=sigma)
        lengths.append(step.accept_t)
        if step.accept_t == 0.0:
            assert step.sigma is sigma
            break
        assert penalised(step.sigma, S, lam_F) < penalised(sigma, S, lam_F)
        sigma = step.sigma
    assert lengths[0] == 1.0
    assert lengths[-1] == 0.0
    assert set(lengths) <= {0.0, *STEP_LENGTHS}


def test_pca_does_not_care_how_its_start_is_rotated() -> None:
    S = moments(9)
    start = LowRank(ml_step(S, 2, floor_of(S)).sigma.F * 0.8, np.full(9, 0.8))
    turned = LowRank(start.F @ np.array([[0.6, -0.8], [0.8, 0.6]]), start.d)
    one, other = (pca_step(S, 2, floor_of(S), start=sigma) for sigma in (start, turned))
    assert one.accept_t == other.accept_t > 0.0
    np.testing.assert_allclose(one.sigma.dense(), other.sigma.dense(), atol=1e-12)


# ---------------------------------------------------------------------------------- polishing


def test_a_penalised_optimum_has_no_gradient_left() -> None:
    S = moments(7)
    sigma = ml_step(S, 2, floor_of(S), lam_F=0.1).sigma
    _, gradient = joint_objective(np.concatenate([sigma.F.ravel(), np.log(sigma.d)]), S, 2, 0.1)
    assert np.abs(gradient).max() < 1e-13


def test_polishing_stays_within_bounds_and_leaves_a_flat_direction_alone() -> None:
    """Minimum of (z0 - 2)^2 + (z1 + z2)^2 + exp(z3) over z3 >= -1: z1 - z2 is free, z3 ends on its bound."""

    def gradient(z: np.ndarray) -> np.ndarray:
        both = 2.0 * (z[1] + z[2])
        return np.array([2.0 * (z[0] - 2.0), both, both, np.exp(z[3])])

    lower = np.array([-np.inf, -np.inf, -np.inf, -1.0])
    z = polished(gradient, np.array([2.3, 0.6, -0.5, -1.0]), lower)
    np.testing.assert_allclose(z, [2.0, 0.55, -0.55, -1.0], atol=1e-12)
    at_rest = np.array([2.0, 0.0, 0.0, -1.0])
    np.testing.assert_array_equal(polished(gradient, at_rest, lower), at_rest)
