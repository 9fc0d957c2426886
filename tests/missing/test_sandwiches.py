"""Covariances of the coefficients where rows show only some equations, against sums over all pairs of rows."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from distributed import Client

from lrgls_dask import Fit
from support.counted import counted_rows
from support.fits import fit
from support.incomplete import dense_information, road_of_holes, with_holes
from support.reference import MISSING_CASES, load, system_of, table
from support.sandwiches import meat, off_by
from support.systems import Data, dask_rows, simulate, zarr_rows

# two ways of grouping few rows make sums that are not positive semidefinite, which is warned of and tested elsewhere
pytestmark = pytest.mark.filterwarnings("ignore::lrgls_dask.errors.FitWarning")
ENGINES = pytest.mark.parametrize("engine", ["compress", "stream"])
N = 120
GROUPS = np.random.default_rng(3).permutation(np.arange(N + 1) % 40)
OTHERS = np.random.default_rng(4).integers(0, 35, N + 1)
TIMES = np.arange(N + 1) // 4
KINDS: dict[str, dict[str, Any]] = {
    "robust": {},
    "robust HC1": {"correction": "HC1"},
    "cluster": {"groups": GROUPS},
    "cluster CR1": {"groups": GROUPS, "correction": "CR1"},
    "cluster two ways": {"groups": [GROUPS, OTHERS]},
    "hac": {"bandwidth": 4},
    "hac automatic": {},
    "driscoll-kraay": {"times": TIMES, "bandwidth": 3},
    "driscoll-kraay automatic": {"times": TIMES},
    "classical debiased": {"debiased": True},
    "huber-white": {},
    "observed": {},
    "kackar-harville": {},
}


def scores(made: Fit, data: Data) -> np.ndarray:
    """(N, P) w_i x_ic (Sigma_oo^-1 r_o)_j, row by row with the explicit inverse of what it shows."""
    b = np.split(made.params.values, made.design.offsets[1:-1])
    residual = data.Y - np.column_stack([X @ own for X, own in zip(data.Xs, b, strict=True)])
    sigma, solved = made.sigma().values, np.zeros_like(residual)
    for i, r in enumerate(residual):
        o = np.flatnonzero(~np.isnan(r))
        solved[i, o] = np.linalg.inv(sigma[np.ix_(o, o)]) @ r[o]
    if data.weights is not None:
        solved *= data.weights[:, None]
    return np.concatenate([X * solved[:, [j]] for j, X in enumerate(data.Xs)], axis=1)


def asked(made: Fit, kind: str, **more: Any) -> np.ndarray:
    given = {name: values[: made.system.n_obs] if isinstance(values, np.ndarray) else values
             for name, values in KINDS[kind].items()}  # fmt: skip
    if kind == "cluster two ways":
        given["groups"] = [each[: made.system.n_obs] for each in KINDS[kind]["groups"]]
    return made.cov(kind.split(" ")[0], **given, **more).values


# ---------------------------------------------------------------------------------- dense sums


@pytest.mark.parametrize(
    ("design", "weighted", "engine"),
    [("shared", False, "compress"), ("own", True, "stream"), ("mixed", False, "stream"), ("mixed", True, "compress")],
)
def test_sandwiches_are_explicit_sums_over_what_rows_show(design: str, weighted: bool, engine: Any) -> None:
    data = with_holes(simulate(design, n=N, weighted=weighted, unit=30.0))
    made = fit(data.system(dask_rows(50)), missing="em", engine=engine, rel_tol=1e-10)
    s, A, groups = scores(made, data), made.cov().values, GROUPS[:N]
    empty = np.isnan(data.Y).all(axis=1)
    used = len(np.unique(groups[~empty]))
    for kind, weights in (("robust", {}), ("hac", {"weights": 1 - np.arange(5) / 5})):
        assert off_by(asked(made, kind), A @ meat(s, **weights) @ A) < 1e-6
    clustered = A @ meat(s, groups) @ A
    assert off_by(asked(made, "cluster"), clustered) < 1e-6
    p, seen = made.design.sizes, (~np.isnan(data.Y)).sum(axis=0)
    each = np.repeat(np.sqrt(seen / (seen - p)), p)
    n_obs = int((~empty).sum())
    of_groups = used / (used - 1) * (n_obs - 1) / n_obs
    assert off_by(asked(made, "cluster CR1"), of_groups * clustered * np.outer(each, each)) < 1e-6
    crossing = GROUPS[:N] * 100 + OTHERS[:N]
    ways = meat(s, groups) + meat(s, OTHERS[:N]) - meat(s, crossing)
    assert off_by(asked(made, "cluster two ways"), A @ ways @ A) < 1e-6
    sums = np.stack([s[TIMES[:N] == t].sum(axis=0) for t in np.unique(TIMES[:N])])
    expected = A @ meat(sums, weights=1 - np.arange(4) / 4) @ A
    assert off_by(asked(made, "driscoll-kraay"), expected) < 1e-6
    for kind in ("robust", "hac", "cluster"):
        whole, one = asked(made, kind), asked(made, kind, equation="y2")
        mine = made.design.spans[2]
        assert off_by(one, whole[mine, mine]) < 1e-8


def test_a_response_far_from_zero_costs_no_digits() -> None:
    data = with_holes(simulate("mixed", n=N))
    far = replace(data, Y=data.Y + 1e7)
    here, there = (fit(each.system(), missing="em") for each in (data, far))
    for kind in ("robust", "hac automatic", "huber-white"):
        assert off_by(asked(there, kind), asked(here, kind)) < 1e-5


# ---------------------------------------------------------------------------------- nothing is missing


@cache
def both_roads(engine: str) -> tuple[Fit, Fit]:
    """One fit of complete rows as such, and one that went the road of rows with holes."""
    data = simulate("mixed", n=N)
    options: dict[str, Any] = {"missing": "em", "engine": engine, "rel_tol": 1e-12}
    with road_of_holes():
        holes = fit(data.system(), **options)
    return fit(data.system()), holes


@ENGINES
@pytest.mark.parametrize("kind", KINDS)
def test_without_holes_it_is_the_complete_value(kind: str, engine: str) -> None:
    """By the road of rows with holes."""
    complete, holes = both_roads(engine)
    assert holes.cells is not None and holes.n_obs == N
    if kind == "kackar-harville" and engine == "stream":
        with pytest.raises(ValueError, match=r"more than were kept\. Use kind='classical'"):
            asked(holes, kind)
        return
    assert off_by(asked(holes, kind), asked(complete, kind)) < (2e-4 if kind in ("observed", "huber-white") else 1e-5)


@pytest.mark.parametrize("correction", ["HC2", "HC3"])
def test_leverages_are_of_the_rows_that_show_the_equation(correction: Any) -> None:
    data = with_holes(simulate("mixed", n=N, k=0))
    made = fit(data.system(), 0, missing="em")
    power = {"HC2": 0.5, "HC3": 1.0}[correction]
    for j, (X, mine) in enumerate(zip(data.Xs, made.design.spans, strict=True)):
        shown = ~np.isnan(data.Y[:, j])
        x, r = X[shown], data.Y[shown, j] - X[shown] @ made.params.values[mine]
        inverse = np.linalg.inv(x.T @ x)
        left = r / (1 - np.einsum("ij,jk,ik->i", x, inverse, x)) ** power
        expected = inverse @ (x * left[:, None] ** 2).T @ x @ inverse
        assert off_by(made.cov("robust", correction=correction).values[mine, mine], expected) < 1e-6
    with pytest.raises(ValueError, match="with missing responses are those of least squares"):
        fit(data.system(), 1, missing="em").cov("robust", correction=correction)


# ---------------------------------------------------------------------------------- other programs, other oracles


@ENGINES
@pytest.mark.parametrize("structure", ["diagonal", "factor_k1"])
@pytest.mark.parametrize("case", MISSING_CASES)
def test_huber_white_errors_are_those_of_lavaans_mlr(case: str, structure: str, engine: str) -> None:
    reference, data = load(case)
    expected = reference["fits"][structure]["se"]["robust_huber_white"]
    rank = {"diagonal": 0, "factor_k1": 1}[structure]
    made = fit(system_of(reference["equations"], data), rank, missing="em", engine=engine)
    found = made.with_cov("huber-white").std_errors.values
    np.testing.assert_allclose(found, table(expected, made), rtol=1e-4)


def test_kackar_harville_is_the_dense_sum_over_parameters() -> None:
    data = with_holes(simulate("own", n=60, K=4, k=1), n_patterns=5)
    made = fit(data.system(), 1, missing="em")
    np.testing.assert_allclose(made.cov("kackar-harville").values, dense_kackar_harville(made, data), rtol=1e-6, atol=0)


def dense_kackar_harville(made: Fit, data: Data) -> np.ndarray:
    """Row by row, loadings and own variances one by one."""
    F, d = made.loadings.values[:, 0], made.idio_var.values
    K, owner, sigma = len(d), made.design.equation_of, made.sigma().values
    moves = [np.outer(e, F) + np.outer(F, e) for e in np.eye(K)] + [np.outer(e, e) for e in np.eye(K)]
    m, P = len(moves), len(owner)
    information, A = np.zeros((m, m)), np.zeros((P, P))
    first, second = np.zeros((m, P, P)), np.zeros((m, m, P, P))
    for y, *xs in zip(data.Y, *data.Xs, strict=True):
        o, x = np.flatnonzero(~np.isnan(y)), np.concatenate(xs)
        Q = np.zeros_like(sigma)
        Q[np.ix_(o, o)] = np.linalg.inv(sigma[np.ix_(o, o)])
        XX = np.outer(x, x)
        A += XX * Q[np.ix_(owner, owner)]
        for a in range(m):
            first[a] += XX * (Q @ moves[a] @ Q)[np.ix_(owner, owner)]
            for b in range(m):
                information[a, b] += 0.5 * np.trace(Q @ moves[a] @ Q @ moves[b])
                second[a, b] += XX * (Q @ moves[a] @ Q @ moves[b] @ Q)[np.ix_(owner, owner)]
    W, phi = np.linalg.inv(information), np.linalg.inv(A)
    middle = sum(W[a, b] * (second[a, b] - first[a] @ phi @ first[b]) for a in range(m) for b in range(m))
    total: np.ndarray = phi + phi @ middle @ phi
    return total


# ---------------------------------------------------------------------------------- reads, files, clusters


def test_patterns_are_read_twice_and_streamed_rows_three_times(every_chunk: None) -> None:
    system, reads = counted_rows(with_holes(simulate("shared", n=N, k=1), n_patterns=5), 20)
    for engine, passes in (("compress", 2), ("stream", 3)):
        made = fit(system, 1, missing="em", engine=engine, rel_tol=1e-6)
        for kind in ("robust", "cluster", "hac"):
            reads.clear()
            asked(made, kind)
            assert set(reads.values()) == {passes}


@pytest.mark.parametrize("kind", ["robust", "cluster", "hac", "huber-white"])
def test_storage_does_not_show(kind: str, every_chunk: None) -> None:
    data = with_holes(simulate("mixed", n=N))
    made = fit(data.system(), missing="em")
    expected = asked(made, kind)
    for wrap in (zarr_rows(30), dask_rows((1, 50, 69))):
        again = replace(made, system=data.system(wrap))
        assert off_by(asked(again, kind), expected) < 1e-9


@pytest.mark.slow
def test_a_cluster_gives_the_same_numbers(client: Client, every_chunk: None) -> None:
    data = with_holes(simulate("mixed", n=N))
    made = fit(data.system(), missing="em")
    for kind in ("robust", "cluster", "hac", "huber-white"):
        assert off_by(asked(replace(made, system=data.system(dask_rows(40))), kind), asked(made, kind)) < 1e-9


def test_other_rows_are_told() -> None:
    data = with_holes(simulate("mixed", n=N))
    made = fit(data.system(), missing="em")
    with pytest.raises(ValueError, match="not the rows that were fitted"):
        made.cov("robust", system=replace(data, Y=data.Y * 1.01).system())


def test_restricted_coefficients_keep_to_their_restrictions() -> None:
    data = with_holes(simulate("mixed", n=N))
    made = fit(data.system(), missing="em", restrictions=["y0:x1 = y1:x1", "y2:x1 = 1"])
    R = made.restrictions.matrix
    for kind in ("robust", "cluster", "huber-white"):
        V = asked(made, kind)
        np.testing.assert_allclose(R @ V @ R.T, 0.0, atol=1e-12)
    s = scores(made, data)
    G = np.linalg.svd(R)[2][len(R) :].T
    A = G @ np.linalg.inv(G.T @ np.linalg.inv(unrestricted(made, data)) @ G) @ G.T
    assert np.abs(asked(made, "robust") - A @ meat(s) @ A).max() < 1e-8 * np.abs(A).max()


def unrestricted(made: Fit, data: Data) -> np.ndarray:
    """(P, P) (sum_i X_o' Sigma_oo^-1 X_o)^-1 at the fit's Sigma."""
    return np.linalg.inv(dense_information(data, made.sigma().values))
