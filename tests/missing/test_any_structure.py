"""Every structure of Sigma and every algorithm with responses missing: against direct searches and complete rows."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from distributed import Client

from lrgls_dask import BlockLowRank, Fit, GroupedLowRank, Known, LowRankGLS, SparseLowRank, System, Termination
from lrgls_dask.missing import ecm
from support.direct import direct_full
from support.incomplete import killed_in_look

K, N = 5, 240
NAMES = [f"y{j}" for j in range(K)]
COLUMNS = [[0, 1], [0, 2, 3], [0, 1, 3], [0, 3], [0, 2]]
GROUPS = dict(zip(NAMES, "aabbc", strict=True))
SIGMA = np.eye(K) + 0.5 * np.outer(np.arange(1, 6) / 3, np.arange(1, 6) / 3)
STRUCTURES: dict[str, dict[str, Any]] = {
    "lowrank": {"rank": 1},
    "full": {"covariance": "full"},
    "diagonal": {"covariance": "diagonal"},
    "sparse": {"covariance": SparseLowRank(1, 0.02)},
    "sparse by bic": {"covariance": SparseLowRank(1)},
    "block": {"covariance": BlockLowRank(1, dict(zip(NAMES, "abcde", strict=True)))},
    "blocks alone": {"covariance": BlockLowRank(0, GROUPS)},
    "grouped": {"covariance": GroupedLowRank(1, dict(zip(NAMES, "aaabb", strict=True)), group_rank=0)},
    "known": {"covariance": Known(SIGMA)},
    "known factors": {"covariance": Known(loadings=np.ones((K, 1)), idio_var=np.arange(1.0, 6.0))},
}
HOLES = ["late", "scattered", "patterns"]
ENGINES = pytest.mark.parametrize("engine", ["compress", "stream"])


def drawn(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.ones(N), rng.normal(size=(N, 3))])
    errors = rng.normal(size=(N, 1)) * [1.0, 0.8, 0.6, -0.9, 0.7] + rng.normal(size=(N, K))
    return np.column_stack([X[:, c] @ rng.normal(size=len(c)) for c in COLUMNS]) + errors, X


def holed(Y: np.ndarray, holes: str, seed: int = 1) -> np.ndarray:
    rng, Y = np.random.default_rng(seed), Y.copy()
    if holes == "late":
        for j in range(K):
            Y[: 25 * j, j] = np.nan
    elif holes == "scattered":
        Y[rng.random(Y.shape) < 0.2] = np.nan
    else:
        Y[(rng.random((8, K)) < 0.25)[rng.integers(0, 8, len(Y))]] = np.nan
    return Y


def designs(X: np.ndarray) -> list[np.ndarray]:
    return [X[:, c] for c in COLUMNS]


def fitted(Y: Any, X: Any, *, weights: Any = None, **options: Any) -> Fit:
    made = System.from_arrays(Y, designs(X), equations=NAMES, weights=weights)
    return LowRankGLS(missing="em", **options).fit(made).result_


def check_same(found: Fit, expected: Fit, *, loglik: float, params: float, errors: float) -> None:
    """loglik : absolute.  params : in standard errors.  errors : of those, relative."""
    assert abs(found.loglik - expected.loglik) < loglik
    assert np.abs((found.params.values - expected.params.values) / expected.std_errors.values).max() < params
    np.testing.assert_allclose(found.std_errors.values, expected.std_errors.values, rtol=errors)
    assert (found.n_parameters, found.n_obs) == (expected.n_parameters, expected.n_obs)


# ---------------------------------------------------------------------------------- unrestricted Sigma


@ENGINES
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("holes", HOLES)
def test_full_is_the_maximum_of_the_likelihood(holes: str, weighted: bool, engine: str) -> None:
    Y, X = drawn()
    Y, weights = holed(Y, holes), np.random.default_rng(2).uniform(0.3, 3.0, N) if weighted else None
    found = fitted(Y, X, weights=weights, covariance="full", engine=engine)
    assert (found.termination, found.engine) == (Termination.CONVERGED, engine)
    loglik, b, sigma = direct_full(Y, designs(X), found.params.values, found.sigma().values, weights)
    assert found.loglik == pytest.approx(loglik, abs=1e-6)
    assert np.abs((found.params.values - b) / found.std_errors.values).max() < 1e-4
    np.testing.assert_allclose(found.sigma().values, sigma, rtol=1e-3, atol=1e-3)
    assert found.n_parameters == found.n_coefficients + K * (K + 1) // 2
    w, information = np.ones(N) if weights is None else weights, np.zeros((found.n_coefficients,) * 2)
    owner = np.repeat(np.arange(K), [len(c) for c in COLUMNS])
    for y, x, weight in zip(Y, X, w, strict=True):
        o, inverse = np.flatnonzero(~np.isnan(y)), np.zeros((K, K))
        inverse[np.ix_(o, o)] = weight * np.linalg.inv(sigma[np.ix_(o, o)])
        row = x[np.concatenate(COLUMNS)]
        information += np.outer(row, row) * inverse[np.ix_(owner, owner)]
    np.testing.assert_allclose(found.std_errors.values, np.sqrt(np.diag(np.linalg.inv(information))), rtol=1e-4)


def test_a_monotone_pattern_has_a_closed_form() -> None:
    Y, _ = drawn(3)
    Y = Y[:, :2].copy()
    Y[:90, 1] = np.nan
    found = LowRankGLS(covariance="full", missing="em").fit(System.from_arrays(Y, np.ones((N, 1)))).result_
    both, first = Y[90:], Y[:, 0]
    S = np.cov(both.T, ddof=0)
    slope = S[0, 1] / S[0, 0]
    variance = float(first.var())
    mean = [first.mean(), both[:, 1].mean() + slope * (first.mean() - both[:, 0].mean())]
    np.testing.assert_allclose(found.params.values, mean, rtol=1e-8)
    own = S[1, 1] - slope * S[0, 1] + slope**2 * variance
    expected = [[variance, slope * variance], [slope * variance, own]]
    np.testing.assert_allclose(found.sigma().values, expected, rtol=1e-6)  # Anderson (1957)


@ENGINES
def test_full_within_restrictions_that_tie_equations(engine: str) -> None:
    Y, X = drawn()
    Y = holed(Y, "patterns")
    found = fitted(Y, X, covariance="full", engine=engine, restrictions=["y0: x1 = y2: x1", "y3: x1 = 0.25"])
    named = list(found.params.coords["coefficient"].values)
    assert len(named) == found.n_coefficients
    b = found.params.values
    rows = np.zeros((2, len(b)))
    rows[0, [1, 6]], rows[1, 9] = [1.0, -1.0], 1.0
    np.testing.assert_allclose(rows @ b, [0.0, 0.25], atol=1e-12)
    free = np.linalg.qr(rows.T, mode="complete")[0][:, 2:]
    loglik, _, _ = direct_full(Y, designs(X), b, found.sigma().values, free=free)
    assert found.loglik == pytest.approx(loglik, abs=1e-6)


# ---------------------------------------------------------------------------------- every structure


@pytest.mark.parametrize("algorithm", ["als", "fgls", "ols"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_a_row_that_shows_nothing_changes_nothing(name: str, algorithm: str) -> None:
    options: dict[str, Any] = {"algorithm": algorithm} | STRUCTURES[name]
    if name.startswith("known") and algorithm != "als":
        with pytest.raises(ValueError, match="does not go with algorithm"):
            LowRankGLS(**options)
        return
    Y, X = drawn()
    made = System.from_arrays(Y, designs(X), equations=NAMES)
    complete = LowRankGLS(**options).fit(made).result_
    found = fitted(np.vstack([Y, np.full((1, K), np.nan)]), np.vstack([X, X[:1]]), **options)
    loglik = 1e-4 if name == "sparse by bic" else 1e-6
    check_same(found, complete, loglik=loglik, params=1e-4, errors=1e-5)
    np.testing.assert_allclose(found.sigma().values, complete.sigma().values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("algorithm", ["als", "fgls", "ols"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_streamed_rows_lead_to_the_same_fit(name: str, algorithm: str) -> None:
    Y, X = drawn()
    Y = holed(Y, "late")
    options: dict[str, Any] = {"algorithm": "als" if name.startswith("known") else algorithm} | STRUCTURES[name]
    patterns, streamed = (fitted(Y, X, engine=engine, **options) for engine in ("compress", "stream"))
    assert patterns.n_passes == 1 < streamed.n_passes
    check_same(streamed, patterns, loglik=1e-3, params=5e-3, errors=1e-3)
    assert streamed.termination is Termination.CONVERGED


@pytest.mark.parametrize("accelerate", [True, False])
@pytest.mark.parametrize("name", ["full", "sparse", "blocks alone"])
def test_the_objective_never_rises(name: str, accelerate: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    Y, X = drawn()
    monkeypatch.setattr(ecm, "Anderson", ecm.Anderson if accelerate else partial(ecm.Anderson, depth=0))
    found = fitted(holed(Y, "scattered"), X, engine="stream", **STRUCTURES[name])
    obj = found.trace["obj"].to_numpy()
    assert len(obj) > 3
    if not accelerate:
        assert np.all(np.diff(obj) <= 1e-12 * np.abs(obj[1:]))
    assert obj[-1] <= obj.min() + 1e-12 * abs(obj[-1])


# ---------------------------------------------------------------------------------- least squares


@ENGINES
def test_least_squares_of_the_rows_that_each_equation_has(engine: str) -> None:
    Y, X = drawn()
    Y = holed(Y, "scattered")
    found = fitted(Y, X, covariance="full", algorithm="ols", engine=engine)
    inverses, parts, b = [], [], []
    for j, x in enumerate(designs(X)):
        seen = ~np.isnan(Y[:, j])
        inverses.append(np.linalg.inv(x[seen].T @ x[seen]))
        b.append(inverses[-1] @ x[seen].T @ Y[seen, j])
        parts.append(x * seen[:, None])
    np.testing.assert_allclose(found.params.values, np.concatenate(b), rtol=1e-9)
    sigma = found.sigma().values
    blocks = [[sigma[i, j] * inverses[i] @ parts[i].T @ parts[j] @ inverses[j] for j in range(K)] for i in range(K)]
    np.testing.assert_allclose(found.cov().values, np.block(blocks), rtol=1e-6, atol=1e-12)
    residual = Y - np.column_stack([x @ part for x, part in zip(designs(X), b, strict=True)])
    none = [np.zeros((N, 1))] * K  # the likelihood of these residuals by Sigma alone
    loglik, _, best = direct_full(residual, none, np.zeros(K), sigma)
    assert found.loglik == pytest.approx(loglik, abs=1e-5)
    np.testing.assert_allclose(sigma, best, rtol=1e-2, atol=1e-3)
    with pytest.raises(ValueError, match="maximum of the likelihood, and algorithm='ols' is least squares"):
        found.cov("observed")


@ENGINES
def test_one_step_weights_every_row_by_the_covariance_of_what_it_shows(engine: str) -> None:
    Y, X = drawn()
    Y = holed(Y, "late")
    one, start = (fitted(Y, X, covariance="full", algorithm=a, engine=engine) for a in ("fgls", "ols"))
    sigma, owner = start.sigma().values, np.repeat(np.arange(K), [len(c) for c in COLUMNS])
    np.testing.assert_allclose(one.sigma().values, sigma, rtol=1e-12)
    A, rhs = np.zeros((len(owner),) * 2), np.zeros(len(owner))
    for y, x in zip(Y, X, strict=True):
        o, inverse = np.flatnonzero(~np.isnan(y)), np.zeros((K, K))
        inverse[np.ix_(o, o)] = np.linalg.inv(sigma[np.ix_(o, o)])
        row = x[np.concatenate(COLUMNS)]
        A += np.outer(row, row) * inverse[np.ix_(owner, owner)]
        rhs += row * (inverse @ np.nan_to_num(y))[owner]
    apart = (one.params.values - np.linalg.solve(A, rhs)) / one.std_errors.values
    assert np.abs(apart).max() < 1e-4
    np.testing.assert_allclose(one.std_errors.values, np.sqrt(np.diag(np.linalg.inv(A))), rtol=1e-8)


# ---------------------------------------------------------------------------------- observed information


@pytest.mark.parametrize("name", ["full", "block", "blocks alone", "known", "known factors"])
def test_the_observed_information_is_that_of_complete_rows_where_nothing_is_missing(name: str) -> None:
    Y, X = drawn()
    complete = LowRankGLS(**STRUCTURES[name]).fit(System.from_arrays(Y, designs(X), equations=NAMES)).result_
    more, x = np.vstack([Y, np.full((1, K), np.nan)]), np.vstack([X, X[:1]])
    found, expected = fitted(more, x, **STRUCTURES[name]).with_cov("observed"), complete.with_cov("observed")
    np.testing.assert_allclose(found.std_errors.values, expected.std_errors.values, rtol=1e-5)


def test_the_observed_information_of_full_is_the_curvature_of_the_profile() -> None:
    Y, X = drawn()
    Y = holed(Y, "late")
    found = fitted(Y, X, covariance="full")
    b, cov, sigma = found.params.values, found.cov("observed").values, found.sigma().values
    at, h = 3, 0.3 * np.sqrt(cov[3, 3])
    free = np.delete(np.eye(len(b)), at, axis=1)
    best, fixed = found.loglik, np.eye(len(b))[at]
    fall = [best - direct_full(Y, designs(X), b + s * h * fixed, sigma, free=free)[0] for s in (1.0, -1.0)]
    np.testing.assert_allclose(h**2 / sum(fall), cov[at, at], rtol=1e-2)


# ---------------------------------------------------------------------------------- what the fit then does


def test_everything_a_fit_does_follows(tmp_path: Path) -> None:
    Y, X = drawn()
    Y = holed(Y, "scattered")
    made = System.from_arrays(Y, designs(X), equations=NAMES)
    found = LowRankGLS(covariance="full", missing="em").fit(made).result_
    found.to_zarr(tmp_path / "fit")
    again = Fit.from_zarr(tmp_path / "fit")
    np.testing.assert_array_equal(again.params.values, found.params.values)
    np.testing.assert_array_equal(again.sigma().values, found.sigma().values)
    np.testing.assert_array_equal(again.std_errors.values, found.std_errors.values)
    assert (again.aic, again.bic, again.loglik) == (found.aic, found.bic, found.loglik)
    assert found.score(made) * found.n_obs == pytest.approx(found.loglik, rel=1e-9)
    filled, fit = found.impute(made)["Y"].values, found.predict(made).values
    sigma = found.sigma().values
    i = int(np.flatnonzero(np.isnan(Y).any(axis=1) & ~np.isnan(Y).all(axis=1))[0])
    o, m = np.flatnonzero(~np.isnan(Y[i])), np.flatnonzero(np.isnan(Y[i]))
    mean = fit[i, m] + sigma[np.ix_(m, o)] @ np.linalg.solve(sigma[np.ix_(o, o)], Y[i, o] - fit[i, o])
    np.testing.assert_allclose(filled[i, m], mean, rtol=1e-9)
    np.testing.assert_array_equal(filled[i, o], Y[i, o])
    assert "Missing responses" in found.summary()


def test_a_killed_client_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    Y, X = drawn()
    Y = holed(Y, "scattered")
    made = System.from_arrays(Y, designs(X), equations=NAMES)
    options: dict[str, Any] = {"covariance": "full", "missing": "em", "engine": "stream"}
    whole = LowRankGLS(**options).fit(made).result_
    kept = {"checkpoint": tmp_path / "kept"}
    with pytest.raises(KeyboardInterrupt):
        LowRankGLS(**options, **kept, progress=killed_in_look(5)).fit(made)
    found = LowRankGLS(**options, **kept).fit(made).result_
    np.testing.assert_array_equal(found.params.values, whole.params.values)
    np.testing.assert_array_equal(found.sigma().values, whole.sigma().values)
    assert found.n_passes < whole.n_passes  # it did not start again


def test_threads_and_workers_give_the_same_bits(client: Client) -> None:
    Y, X = drawn()
    Y = holed(Y, "scattered")
    chunked = da.from_array(Y, chunks=(50, K)), da.from_array(X, chunks=(50, 4))

    def made() -> Fit:
        return fitted(*chunked, covariance="full", engine="stream")

    with client.as_current():
        there = made()
    np.testing.assert_array_equal(there.params.values, made().params.values)


# ---------------------------------------------------------------------------------- bad input


def test_pairs_never_seen_together_are_named() -> None:
    Y, X = drawn()
    Y[::2, 0] = Y[1::2, 1] = np.nan
    for covariance in ("full", BlockLowRank(0, GROUPS)):
        with pytest.raises(
            ValueError, match=r"equations 'y0' and 'y1' are never observed in the same row, .*'lowrank'"
        ):
            fitted(Y, X, covariance=covariance)
    apart = BlockLowRank(0, dict(zip(NAMES, "abbcc", strict=True)))
    assert np.isfinite(fitted(Y, X, covariance=apart).loglik)


def test_a_loop_that_goes_on_for_ever_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many rows as it takes to make a combination of two responses vanish, which no number of sweeps ever does."""
    monkeypatch.setattr("lrgls_dask.missing.any_structure.VANISHING", 1e-3)
    rng = np.random.default_rng(4)
    X = np.column_stack([np.ones(30), rng.normal(size=(30, 2))])
    Y = rng.normal(size=(30, 2)) + rng.normal(size=(30, 1))
    Y[4:, 1] = np.nan
    with pytest.raises(ValueError, match=r"no fit with this Sigma exists.* has no bound.*'y1', in 4 rows"):
        LowRankGLS(covariance="full", missing="em", max_sweeps=80).fit(System.from_arrays(Y, X))
