"""Factors of groups: the value against dense matrices, its derivatives against differences, labels against errors."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.linalg import block_diag

from lrgls_dask.sigma.blocks import Blocks, blocks_of
from lrgls_dask.sigma.curvature import Curved, lasso_rows
from lrgls_dask.sigma.grouped_factors import GroupedFactors
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.newtoncg import Goal

K = 12
HALVES = np.repeat([0, 1], 6)
QUARTERS = np.repeat([0, 1, 2, 3], 3)


def hierarchy(kind: str) -> Blocks:
    """Two levels of groups side by side, the same with equations shuffled, one level of uneven groups, no groups."""
    everyone = np.zeros(K, dtype=np.intp)
    shuffled = np.random.default_rng(8).permutation(K)
    return {
        "nested": Blocks((everyone, HALVES, QUARTERS), (2, 1, 1)),
        "shuffled": Blocks((everyone, HALVES[shuffled], QUARTERS[shuffled]), (2, 1, 1)),
        "uneven": Blocks((everyone, np.repeat([0, 1, 2], [2, 3, 7])), (1, 2)),
        "no general": Blocks((everyone, QUARTERS), (0, 2)),
        "single": Blocks.single(K, 3),
    }[kind]


KINDS = ["nested", "shuffled", "uneven", "no general", "single"]


def value(kind: str, *, seed: int = 0, d: np.ndarray | None = None) -> GroupedFactors:
    rng = np.random.default_rng(seed)
    blocks = hierarchy(kind)
    d = rng.uniform(0.2, 1.0, K) if d is None else d
    return GroupedFactors(blocks, rng.normal(size=(K, blocks.n_own)), d)


def dense(sigma: GroupedFactors) -> np.ndarray:
    """Level by level, from the group codes alone."""
    out = np.diag(sigma.d)
    for number, codes in enumerate(sigma.blocks.codes):
        A = sigma.level(number)
        out += np.where(codes[:, None] == codes[None, :], A @ A.T, 0.0)
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_products_solves_and_determinant_are_those_of_the_dense_matrix(kind: str) -> None:
    sigma = value(kind)
    full, B = dense(sigma), np.random.default_rng(1).normal(size=(K, 3))
    inverse, E = np.linalg.inv(full), np.random.default_rng(2).normal(size=(40, K))
    S = E.T @ E / 40
    np.testing.assert_allclose(sigma.dense(), full, atol=1e-14)
    np.testing.assert_allclose(sigma.F @ sigma.F.T + np.diag(sigma.d), full, atol=1e-14)
    np.testing.assert_allclose(sigma.variances, np.diag(full))
    np.testing.assert_allclose(sigma.matmul(B), full @ B, atol=1e-13)
    np.testing.assert_allclose(sigma.solve(full @ B), B, atol=1e-12)
    np.testing.assert_allclose(sigma.solve_rows(E), E @ inverse, atol=1e-12)
    np.testing.assert_allclose(sigma.precision(), inverse, atol=1e-12)
    np.testing.assert_allclose(sigma.precision_diagonal, np.diag(inverse), atol=1e-12)
    np.testing.assert_allclose(sigma.precision_loadings, inverse @ sigma.F, atol=1e-12)
    assert sigma.logdet == pytest.approx(np.linalg.slogdet(full)[1], abs=1e-12)
    assert sigma.trace_solve(S) == pytest.approx(np.trace(inverse @ S), rel=1e-12)
    expected = 0.5 * (K * np.log(2 * np.pi) + np.linalg.slogdet(full)[1] + np.trace(inverse @ S))
    assert sigma.nll(S) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("kind", ["nested", "shuffled"])
@pytest.mark.parametrize("smallest", [1e-4, 1e-8])
def test_solves_keep_their_digits_where_a_variance_is_nearly_zero(kind: str, smallest: float) -> None:
    d = np.random.default_rng(3).uniform(0.2, 1.0, K)
    d[[0, 4, 7]] = smallest
    sigma = value(kind, d=d)
    B = np.random.default_rng(1).normal(size=(K, 3))
    np.testing.assert_allclose(sigma.solve(sigma.matmul(B)), B, atol=1e-16 / smallest + 1e-12)
    np.testing.assert_allclose(sigma.precision_diagonal, np.diag(sigma.precision()), rtol=1e-7)
    # log|Sigma| of a matrix whose small eigenvalues a dense factorisation would lose: by Schur complements instead
    shrunk = block_diag(np.eye(sigma.rank)) + sigma.F.T @ (sigma.F / d[:, None])
    assert sigma.logdet == pytest.approx(np.log(d).sum() + np.linalg.slogdet(shrunk)[1], abs=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_units_and_rotations_leave_sigma_alone(kind: str) -> None:
    sigma, scale = value(kind), np.random.default_rng(4).uniform(0.1, 9.0, K)
    np.testing.assert_allclose(sigma.rescaled(scale).dense(), sigma.dense() * np.outer(scale, scale))
    normal = sigma.normalised()
    np.testing.assert_allclose(normal.dense(), sigma.dense(), atol=1e-13)
    for rows, own, _ in normal.blocks.blocks():
        A, d = normal.A[rows, own], normal.d[rows]
        strength = A.T @ (A / d[:, None])
        np.testing.assert_allclose(strength, np.diag(np.diag(strength)), atol=1e-12)
        assert np.all(A[np.abs(A).argmax(axis=0), np.arange(A.shape[1])] >= 0)
    saved = {name: array for name, (array, _) in sigma.stored().items()}
    again = GroupedFactors.from_arrays(*saved.values())
    np.testing.assert_array_equal(again.dense(), sigma.dense())


def test_one_level_is_lowrank() -> None:
    sigma = value("single")
    low = LowRank(sigma.A, sigma.d)
    assert sigma.n_parameters == low.n_parameters
    assert sigma.logdet == pytest.approx(low.logdet, rel=1e-14)
    np.testing.assert_allclose(sigma.precision(), low.precision(), atol=1e-14)


@pytest.mark.parametrize(
    ("codes", "ranks", "expected"),
    [
        ([np.repeat([0, 1], 8), np.repeat(range(4), 4)], (2, 1, 1), 4 * 16 + 16 - 1),  # two general factors rotate
        ([np.repeat([0, 1], 8)], (1, 2), 3 * 16 + 16 - 2),  # so do the two factors of either group
        ([], (3,), 3 * 16 + 16 - 3),
    ],
)
def test_parameters_are_the_directions_in_which_sigma_moves(codes: list, ranks: tuple, expected: int) -> None:
    """The rank of the Jacobian of Sigma with respect to (A, d), where groups are large enough."""
    blocks = Blocks((np.zeros(16, dtype=np.intp), *codes), ranks)
    A, d = np.random.default_rng(0).normal(size=(16, sum(ranks))), np.ones(16)
    assert GroupedFactors(blocks, A, d).n_parameters == expected
    moves = []
    for e in np.eye(A.size).reshape(-1, *A.shape):
        apart = GroupedFactors(blocks, A + e, d).dense() - GroupedFactors(blocks, A - e, d).dense()
        moves.append(apart.ravel() / 2)  # exact: Sigma is quadratic in A
    moves += [np.diag(e).ravel() for e in np.eye(16)]
    assert np.linalg.matrix_rank(np.array(moves), tol=1e-9) == expected


def test_all_equations_in_one_group_share_their_rotations() -> None:
    blocks = Blocks((np.zeros(K, dtype=np.intp), np.zeros(K, dtype=np.intp)), (2, 1))
    sigma = GroupedFactors(blocks, np.random.default_rng(0).normal(size=(K, 3)), np.ones(K))
    assert sigma.n_parameters == LowRank(sigma.A, sigma.d).n_parameters
    np.testing.assert_allclose(sigma.dense(), LowRank(sigma.A, sigma.d).dense(), atol=1e-13)


def test_shapes_and_variances_are_checked() -> None:
    blocks = Blocks.single(4, 1)
    with pytest.raises(ValueError, match=re.escape("needs A (4, 1) and d (4,); got A (4, 2) and d (4,)")):
        GroupedFactors(blocks, np.zeros((4, 2)), np.ones(4))
    with pytest.raises(ValueError, match=re.escape("row 2 has d = 0.0")):
        GroupedFactors(blocks, np.zeros((4, 1)), np.array([1.0, 1.0, 0.0, 1.0]))


# ---------------------------------------------------------------------------------------------- derivatives


def flat(pair: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return np.concatenate([pair[0].ravel(), pair[1]])


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_and_hessian_product_are_differences(kind: str) -> None:
    sigma, E = value(kind), np.random.default_rng(5).normal(size=(30, K))
    S, size = E.T @ E / 30, sigma.A.size

    def at(z: np.ndarray) -> Curved:
        return Curved.at(sigma.blocks, S, z[:size].reshape(sigma.A.shape), z[size:])

    z, h = flat((sigma.A, np.log(sigma.d))), 1e-5
    here = at(z)
    assert here.value == pytest.approx(sigma.nll(S), rel=1e-14)
    slope = np.array([(at(z + h * e).value - at(z - h * e).value) / (2 * h) for e in np.eye(z.size)])
    np.testing.assert_allclose(flat(here.gradient), slope, atol=1e-8)
    for seed in range(2):
        v = np.random.default_rng(seed).normal(size=z.size)
        expected = (flat(at(z + h * v).gradient) - flat(at(z - h * v).gradient)) / (2 * h)
        found = flat(here.hessian_product(v[:size].reshape(sigma.A.shape), v[size:]))
        np.testing.assert_allclose(found, expected, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_in_small_variances_have_the_curvature_of_their_own_coordinates(kind: str) -> None:
    """Some variances are below the corner, where a step is linear in d, others above."""
    sigma, E = value(kind, d=np.geomspace(1e-3, 1.0, K)), np.random.default_rng(5).normal(size=(30, K))
    here = Goal(sigma.blocks, E.T @ E / 30, np.full(K, 1e-6)).start(sigma)
    p, h = np.random.default_rng(6).normal(size=here.gradient.shape), 1e-6
    expected = (here.moved(p, h).gradient - here.moved(p, -h).gradient) / (2 * h)
    found = here.curvature_along(p)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
def test_the_information_of_an_equation_is_its_hessian_where_sigma_is_the_truth(kind: str) -> None:
    sigma = value(kind)
    s, here = sigma.blocks.n_own, Curved(sigma, dense(sigma))
    blocks = here.own_information()
    for i in range(K):
        for j, e in enumerate(np.eye(s + 1)):
            V, u = np.zeros((K, s)), np.zeros(K)
            V[i], u[i] = e[:s], e[s]
            along_A, along_x = here.hessian_product(V, u)
            np.testing.assert_allclose(blocks[i, :, j], [*along_A[i], along_x[i]], atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("l1", [0.0, 0.05])
def test_an_em_step_never_rises_and_solves_its_own_problem(kind: str, l1: float) -> None:
    sigma, E = value(kind), np.random.default_rng(6).normal(size=(30, K))
    S, floor = E.T @ E / 30, np.full(K, 1e-6)
    A, x = sigma.A, np.log(sigma.d)
    before = sigma.nll(S) + l1 * np.abs(A).sum()
    for _ in range(6):
        A, x = Curved.at(sigma.blocks, S, A, x).em_image(floor, l1)
        after = Curved.at(sigma.blocks, S, A, x).value + l1 * np.abs(A).sum()
        assert after < before
        before = after


def test_rows_of_a_lasso_satisfy_its_conditions() -> None:
    rng = np.random.default_rng(7)
    root = rng.normal(size=(5, 4, 3))
    M, cross = root.transpose(0, 2, 1) @ root, rng.normal(size=(5, 3))
    weight = np.full((5, 3), 0.6)
    weight[2, 1] = np.inf
    A = lasso_rows(M, cross, weight, np.zeros((5, 3)))
    slope = np.einsum("ijk,ik->ij", M, A) - cross
    zero = A == 0.0
    assert zero[2, 1] and 0 < zero.sum() < A.size
    np.testing.assert_allclose(slope[~zero], -0.6 * np.sign(A[~zero]), atol=1e-9)
    assert np.all(np.abs(slope[zero]) <= weight[zero])


# ---------------------------------------------------------------------------------------------- labels

NAMES = [f"y{i}" for i in range(6)]
BY_HALF = {name: "low" if i < 3 else "high" for i, name in enumerate(NAMES)}


def test_blocks_from_labels() -> None:
    finer = dict.fromkeys(NAMES[:3], "one") | dict.fromkeys(NAMES[3:], "two")
    blocks = blocks_of(NAMES, [dict.fromkeys(NAMES, "all"), finer], 1, [2, 1])
    assert blocks.ranks == (1, 2, 1)
    np.testing.assert_array_equal(np.stack(blocks.codes), [[0] * 6, [0] * 6, [0, 0, 0, 1, 1, 1]])


@pytest.mark.parametrize(
    ("groupings", "rank", "group_ranks", "message"),
    [
        ([{k: v for k, v in BY_HALF.items() if k != "y4"}], 1, [1], "equation 'y4' has no group"),
        ([{"y0": "a", "y1": "a", "y2": "a"}], 1, [1], "equation 'y3' (and 2 more) has no group"),
        ([BY_HALF | {"zz": "low"}], 1, [1], "'zz' is not an equation"),
        ([BY_HALF | {"zz": "low", "qq": "low"}], 1, [1], "'zz' is not an equation (and 1 more)"),
        ([BY_HALF | {"y5": "tiny"}], 1, [1], "'high' has 2 equations, which identify 0 factors"),
        ([BY_HALF], 1, [2], "'low' has 3 equations, which identify 1 factors of their own, but group_rank is 2"),
        ([BY_HALF], 1, [-1], "group_rank must be at least 0, got -1"),
        ([BY_HALF], 6, [1], "rank must be from 0 to 5 for 6 equations, got 6"),
        ([BY_HALF], 1, [1, 1], "1 groupings but 2 group ranks"),
        ([BY_HALF, BY_HALF | {"y0": "high", "y1": "high"}], 1, [0, 0], "'high' has equations of both 'low' and 'high'"),
    ],
)
def test_groups_that_do_not_fit_are_refused(
    groupings: list[dict[str, str]], rank: int, group_ranks: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        blocks_of(NAMES, groupings, rank, group_ranks)
