"""Streamed rows with holes: the optimum of compressed patterns, in few passes, whatever the ranks that are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest

from lrgls_dask import Fit, GroupedLowRank, LowRankGLS, System, Termination
from lrgls_dask.missing.fit import fit_incomplete
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.purposes import ERRORS, LAST_LOOK
from lrgls_dask.sigma.structures import LowRankStructure
from lrgls_dask.solve.record import Options
from support.counted import counted_array
from support.incomplete import killed_in_look


def drawn(n: int, K: int, k: int, own: float, holes: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Y (n, K), of which each equation has `own` times the standard deviation that factors give, and X (n, 3)."""
    rng = np.random.default_rng([seed, n, K, k])
    X = np.column_stack([np.ones(n), rng.normal(size=(n, 2))])
    F = rng.normal(size=(K, k)) / np.sqrt(k)
    Y = X @ rng.normal(size=(3, K)) + rng.normal(size=(n, k)) @ F.T + own * rng.normal(size=(n, K))
    if holes == "patterns":
        missing = (rng.random((25, K)) < 0.2)[rng.integers(0, 25, n)]
    else:
        missing = rng.random((n, K)) < (0.05 if holes == "late" else 0.15)
        if holes == "late":
            missing |= np.arange(n)[:, None] < rng.integers(0, n // 2, K) * (rng.random(K) < 0.5)
    Y[missing] = np.nan
    return Y, X


def fitted(Y: Any, X: Any, rank: Any, **options: Any) -> Fit:
    return LowRankGLS(rank, missing="em", **options).fit(System.from_arrays(Y, X)).result_


def check_as_good(found: Fit, best: Fit) -> None:
    assert found.termination is Termination.CONVERGED
    assert found.loglik == pytest.approx(best.loglik, abs=1e-4)
    assert np.abs((found.params - best.params) / best.std_errors).max() < 0.01
    np.testing.assert_allclose(found.std_errors, best.std_errors, rtol=1e-3)


# ---------------------------------------------------------------------------------- the same optimum


@pytest.mark.parametrize(
    ("K", "k", "own"), [*((6, 1, own) for own in (1.0, 0.1, 0.03, 0.01, 0.001)), (10, 2, 0.1), (10, 2, 0.01)]
)
def test_streamed_rows_end_where_their_patterns_do(K: int, k: int, own: float) -> None:
    Y, X = drawn(500, K, k, own, "patterns")
    best = fitted(Y, X, k, engine="compress")
    found = fitted(Y, X, k, engine="stream")
    check_as_good(found, best)
    assert found.n_passes <= 20


@pytest.mark.parametrize(("holes", "own"), [("scattered", 0.01), ("late", 0.1)])
def test_scattered_holes_and_late_starters(holes: str, own: float) -> None:
    """Against the search over all parameters together that compressed patterns end with, each row nearly one."""
    Y, X = drawn(300, 8, 2, own, holes)
    rows = System.from_arrays(Y, X).rows
    patterns = Incomplete(rows, lam_B=0.0, meter=Meter(), most_patterns=300)
    assert patterns.n_patterns > 25
    best = fit_incomplete(patterns, LowRankStructure(2), Options())
    streamed = Incomplete(rows, lam_B=0.0, meter=Meter(), most_patterns=0)
    found = fit_incomplete(streamed, LowRankStructure(2), Options(rel_tol=1e-6))
    assert abs(found.nll - best.nll) * 300 < 1e-4
    assert streamed.meter.passes <= 24


def test_regressors_that_are_seen_where_all_equations_are() -> None:
    """Rows that show much tell most of a regressor; a step must not take it for the average row."""
    rng = np.random.default_rng(1)
    Y, X = drawn(500, 6, 1, 0.3, "patterns")
    whole = rng.random(500) < 0.1
    X[:, 2] *= np.where(whole, 1.0, 0.02)
    shown = np.arange(6) == rng.integers(0, 6, 500)[:, None]
    Y = np.nan_to_num(Y)
    Y[~(shown | whole[:, None])] = np.nan
    check_as_good(fitted(Y, X, 1, engine="stream"), fitted(Y, X, 1, engine="compress"))


def test_columns_of_their_own_that_are_missing_with_the_response() -> None:
    rng = np.random.default_rng(2)
    Y, X = drawn(500, 6, 1, 0.3, "patterns")
    moved = [X + [0.0, 50.0, 50.0] * (1.0 + 0.01 * rng.normal(size=X.shape)) for _ in Y.T]
    designs = [np.where(np.isnan(y)[:, None], np.nan, x) for x, y in zip(moved, Y.T, strict=True)]
    check_as_good(fitted(Y, designs, 1, engine="stream"), fitted(Y, designs, 1, engine="compress"))


@pytest.mark.slow
def test_a_ridge_restrictions_weights_and_groups() -> None:
    Y, X = drawn(500, 6, 1, 0.1, "patterns")
    weights = np.random.default_rng(3).uniform(0.5, 2.0, 500)
    names = list("abcdef")
    groups = GroupedLowRank(1, dict(zip(names, "uuuvvv", strict=True)), group_rank=0)
    made = System.from_arrays(Y, X, weights=weights, equations=names)
    restricted = {"rank": 1, "restrictions": ["a: x1 = c: x1", "b: x2 = 0.5"]}
    for options in ({"rank": 1, "lam_B": 5.0}, restricted, {"covariance": groups}):
        streamed, patterns = (
            LowRankGLS(missing="em", engine=engine, **options).fit(made).result_ for engine in ("stream", "compress")
        )
        check_as_good(streamed, patterns)


# ---------------------------------------------------------------------------------- several ranks


def test_ranks_are_compared_in_the_passes_of_one(every_chunk: None) -> None:
    Y, X = drawn(300, 7, 2, 0.3, "scattered")
    (x, of_x), (y, of_y) = counted_array(X, 100), counted_array(Y, 100)
    alone = fitted(Y, X, 2, engine="stream")
    found = fitted(y, x, "bic", engine="stream", ranks=[1, 2, 3])
    assert found.rank == 2
    assert set(of_x.values()) == set(of_y.values()) == {found.n_passes}
    assert found.n_passes <= alone.n_passes + 2
    check_as_good(found, alone)
    table = found.selection
    assert list(table.index) == [1, 2, 3]
    assert np.diff(table["loglik"]).min() > 0
    assert table["bic"].idxmin() == 2


def test_ranks_that_cannot_win_take_no_pass_after_the_last_of_the_best() -> None:
    rng, n, K = np.random.default_rng(2), 800, 30
    X = np.column_stack([np.ones(n), rng.standard_normal((n, 4)) * 0.01])
    B, F = rng.standard_normal((5, K)), rng.standard_normal((K, 3)) * 0.008
    own = 0.01 + 0.02 * rng.random(K)
    Y = X @ B + rng.standard_normal((n, 3)) @ F.T + rng.standard_normal((n, K)) * own
    for j in np.flatnonzero(rng.random(K) < 0.3):
        Y[: rng.integers(1, n // 2), j] = np.nan
    Y[rng.random((n, K)) < 0.03] = np.nan
    found = fitted(Y, X, "bic", engine="stream", ranks=[1, 2, 3, 4, 5, 6])
    assert found.rank == 3
    assert found.n_passes == fitted(Y, X, 3, engine="stream").n_passes


@pytest.mark.parametrize("late", [False, True], ids=["early", "before the last look"])
def test_a_killed_search_goes_on_to_the_same_bits(tmp_path: Path, late: bool) -> None:
    """Whether the next look is the last, which finds the standard errors too, is expected as it was."""
    Y, X = drawn(300, 7, 2, 0.3, "scattered")
    made = System.from_arrays(Y, X)
    options: dict[str, Any] = {"rank": "bic", "ranks": [1, 2, 3], "missing": "em", "engine": "stream"}
    whole = LowRankGLS(**options).fit(made).result_
    kept = {"checkpoint": tmp_path / "kept"}
    killed = killed_in_look(1, LAST_LOOK) if late else killed_in_look(5)
    with pytest.raises(KeyboardInterrupt):
        LowRankGLS(**options, **kept, progress=killed).fit(made)
    found = LowRankGLS(**options, **kept).fit(made).result_
    np.testing.assert_array_equal(found.params.values, whole.params.values)
    np.testing.assert_array_equal(found.std_errors.values, whole.std_errors.values)
    assert found.rank == whole.rank
    assert found.n_passes < whole.n_passes
    assert found.trace["passes"].iloc[-1] == whole.n_passes
    assert found.trace["read_for"].iloc[-1] == LAST_LOOK


@pytest.mark.parametrize(
    ("structure", "nearly"),
    [({"rank": 2}, 0.0), ({"covariance": "full"}, 1e300), ({"rank": "bic", "ranks": [1, 2, 3]}, 0.0)],
    ids=["one rank, never", "full, always", "several ranks, never"],
)
def test_whichever_look_is_expected_to_be_the_last(
    structure: dict[str, Any], nearly: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same answer to rounding, and the same standard errors as a pass of their own finds: with one pass less where
    the last look was expected to be, with one of its own where it was not."""
    Y, X = drawn(300, 7, 2, 0.3, "scattered")
    made = System.from_arrays(Y, X)
    usual = LowRankGLS(missing="em", engine="stream", **structure).fit(made).result_
    monkeypatch.setattr("lrgls_dask.missing.ecm.NEARLY", nearly)
    found = LowRankGLS(missing="em", engine="stream", **structure).fit(made).result_
    assert found.n_passes == usual.n_passes + (nearly == 0.0)
    assert [LAST_LOOK in set(fit.trace["read_for"]) for fit in (found, usual)] == [nearly > 0.0, True]
    assert [ERRORS in set(fit.trace["read_for"]) for fit in (found, usual)] == [nearly == 0.0, False]
    np.testing.assert_allclose(found.params.values, usual.params.values, rtol=1e-9)
    own = found.with_cov("classical").std_errors.values
    np.testing.assert_allclose(found.std_errors.values, own, rtol=1e-12)


# ---------------------------------------------------------------------------------- what is paid


@pytest.mark.parametrize("ranks", [[3], [2, 3, 4]])
def test_the_plan_is_paid(ranks: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrgls_dask.compression.patterns.HELD_BYTES", 0)
    Y, X = drawn(1_500, 12, 3, 0.3, "scattered")
    made = System.from_arrays(da.from_array(Y, chunks=(500, 12)), da.from_array(X, chunks=(500, 3)))
    model = LowRankGLS("bic", ranks=ranks, missing="em").fit(made)
    paid = model.result_.n_passes
    assert paid <= 11
    assert model.result_.engine == "stream"
    assert model.plan_.passes / 1.3 <= paid <= 1.3 * model.plan_.passes
    assert model.result_.termination is Termination.CONVERGED


@pytest.mark.parametrize(("late", "deepest"), [(5, 0.4), (12, 0.7), (14, 0.9)])
def test_the_plan_is_paid_where_equations_start_late(late: int, deepest: float) -> None:
    """Fewer pairs seen together take more looks: the first pass tells how few there are, and the plan says so."""
    rng, n, K = np.random.default_rng([late, 8]), 1_200, 20
    X = np.column_stack([np.ones(n), rng.normal(size=(n, 2))])
    Y = X @ rng.normal(size=(3, K)) + rng.normal(size=(n, 2)) @ rng.normal(size=(2, K)) + rng.normal(size=(n, K))
    for j, first in enumerate(rng.integers(1, int(n * deepest), late)):
        Y[:first, j] = np.nan
    before, made = LowRankGLS(2, missing="em", engine="stream"), System.from_arrays(Y, X)
    assert before.plan(made).passes == 11  # of what nobody has looked at
    model = before.fit(made)
    assert model.plan_.passes / 1.3 <= model.result_.n_passes <= 1.3 * model.plan_.passes
    assert model.result_.termination is Termination.CONVERGED
