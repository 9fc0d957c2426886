"""The bootstrap of rows with holes against that of complete rows, explicit refits and the analytic standard errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest

from lrgls_dask import Fit, LowRankGLS, System
from support.fits import fit
from support.incomplete import road_of_holes, with_an_empty_row, with_holes
from support.systems import Data, dask_rows, simulate

N = 200
GROUPS = np.arange(N) // 5
DATA = simulate("mixed", n=N, K=4, k=1, seed=3)
FEW, MANY = {"n_patterns": 5}, {"share": 0.25}
HOLES = {name: with_holes(DATA, **how) for name, how in (("few", FEW), ("many", MANY))}


def fitted(data: Data, rank: Any = 1, groups: np.ndarray | None = GROUPS, **options: Any) -> Fit:
    return LowRankGLS(rank, missing="em", **options).fit(data.system(groups=groups)).result_


@pytest.fixture(scope="module")
def found() -> Fit:
    return fitted(HOLES["few"])


@pytest.fixture
def held_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patterns are too many to be kept from the second on: rows are held."""
    monkeypatch.setattr("lrgls_dask.compression.patterns.MOST_PATTERNS", 1)


def assert_same_draws(got: Any, expected: Any, errors: np.ndarray, away: float = 0.02) -> None:
    """Replicate by replicate, to a share of a standard error."""
    assert np.abs((got.params.values - expected.params.values) / errors).max() < away
    np.testing.assert_allclose(got.replicate_std_errors.values, expected.replicate_std_errors.values, rtol=5e-3)
    np.testing.assert_allclose(got.sigma["variance"], expected.sigma["variance"], rtol=0.02)


# ---------------------------------------------------------------------------------- the complete-data value


OPTIONS: dict[str, dict[str, Any]] = {
    "lowrank": {},
    "ridge": {"lam_B": 3.0, "lam_F": 0.05},
    "full": {"rank": "auto", "covariance": "full"},
    "fgls": {"algorithm": "fgls"},
    "ols": {"algorithm": "ols"},
    "restricted": {"restrictions": ["y0:x0 = -0.5", "y3:x0 = y3:x1"]},
}


@pytest.mark.parametrize("method", ["parametric", "cluster"])
@pytest.mark.parametrize("how", list(OPTIONS))
def test_complete_rows_taken_for_rows_with_holes_have_the_replicates_of_complete_rows(how: str, method: Any) -> None:
    data = simulate("mixed", n=N, K=4, k=1, seed=3, weighted=how == "lowrank")
    options = {"rank": 1} | OPTIONS[how]
    expected = fit(data.system(groups=GROUPS), **options)
    with road_of_holes():
        got = fitted(data, groups=GROUPS, **options)
    assert not got.evidence.complete
    theirs, ours = expected.bootstrap(6, method, seed=3), got.bootstrap(6, method, seed=3)
    errors = np.where(expected.std_errors > 0, expected.std_errors, 1.0)
    assert_same_draws(ours, theirs, errors)
    np.testing.assert_allclose(ours.classical, theirs.classical, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(ours.conf_int(0.5), theirs.conf_int(0.5), atol=0.05 * float(errors.max()))


@pytest.mark.parametrize("method", ["parametric", "cluster"])
def test_weights_of_cells_are_those_of_complete_rows(method: Any) -> None:
    data = simulate("shared", n=N, K=4, k=1, seed=3)
    weights = np.random.default_rng(0).uniform(0.5, 2.0, size=(N, 4))
    expected = fit(data.system(weights=weights, groups=GROUPS), 1)
    with road_of_holes():
        got = fit(data.system(weights=weights, groups=GROUPS), 1, missing="em")
    theirs, ours = expected.bootstrap(4, method, seed=3), got.bootstrap(4, method, seed=3)
    assert_same_draws(ours, theirs, expected.std_errors.values)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("method", ["parametric", "cluster", "blocks"])
def test_a_row_that_shows_nothing_changes_no_replicate(method: Any, given: bool) -> None:
    data = simulate("mixed", n=N, K=4, k=1, seed=3)
    more = with_an_empty_row(data).system(groups=np.append(GROUPS, GROUPS[-1]))
    expected, got = fit(data.system(groups=GROUPS), 1), fit(more, 1, missing="em")
    assert got.evidence.complete
    theirs = expected.bootstrap(4, method, seed=3)
    ours = got.bootstrap(4, method, seed=3, system=more if given else None)
    if method == "blocks":  # whose borders move with the number of rows
        assert ours.n_failed == 0
    else:
        np.testing.assert_allclose(ours.params, theirs.params, rtol=1e-7)


# ---------------------------------------------------------------------------------- the analytic errors


@pytest.mark.parametrize(
    ("which", "method", "kind"),
    [
        ("few", "cluster", "cluster"),
        pytest.param("many", "parametric", "observed", marks=pytest.mark.slow),
        pytest.param("few", "parametric", "observed", marks=pytest.mark.slow),
        pytest.param("many", "cluster", "cluster", marks=pytest.mark.slow),
    ],
)
def test_errors_are_the_analytic_ones(which: str, method: Any, kind: str) -> None:
    made = fitted(HOLES[which])
    boot = made.bootstrap(120, method, seed=1)
    ratio = np.log(boot.std_errors.values / made.with_cov(kind).std_errors.values)
    assert np.abs(ratio).max() < 4.5 / np.sqrt(2 * 120)
    assert abs(ratio.mean()) < 0.08
    assert np.abs(boot.bias.values / made.std_errors.values).max() < 4.5 / np.sqrt(120)


@pytest.mark.slow
def test_clusters_widen_the_errors_that_rows_hide() -> None:
    """Regressors, errors and holes constant within groups of 8: classical errors are sqrt(8) too small."""
    base = with_holes(simulate("shared", n=60, K=4, k=1, seed=3), n_patterns=5)
    long = Data("shared", np.repeat(base.Y, 8, axis=0), np.repeat(base.X, 8, axis=0), base.columns)
    long = replace(long, Y=long.Y + 1e-3 * np.random.default_rng(0).normal(size=long.Y.shape))
    made = fitted(long, groups=np.repeat(np.arange(60), 8))
    ratio = (made.bootstrap(80, "cluster", seed=0).std_errors / made.std_errors).values
    assert abs(np.median(ratio) - np.sqrt(8)) < 0.5


# ---------------------------------------------------------------------------------- the replicates


@pytest.mark.parametrize("which", list(HOLES))
def test_a_replicate_of_groups_is_the_fit_of_their_rows(which: str) -> None:
    data = HOLES[which]
    made = fitted(data)
    boot = made.bootstrap(3, "cluster", seed=5)
    for i, seed in enumerate(np.random.SeedSequence(5).spawn(3)):
        drawn = np.random.default_rng(seed).integers(N // 5, size=N // 5)
        rows = np.concatenate([np.flatnonzero(g == GROUPS) for g in drawn])
        explicit = fitted(data.take(rows), groups=None)
        assert np.abs((boot.params[i] - explicit.params.values) / explicit.std_errors.values).max() < 0.02
        np.testing.assert_allclose(boot.replicate_std_errors[i], explicit.std_errors.values, rtol=5e-3)
        np.testing.assert_allclose(boot.sigma["variance"][i], explicit.sigma_diagonal, rtol=0.02)


def test_rows_that_are_held_give_the_replicates_of_patterns(held_rows: None) -> None:
    """Groups are drawn alike; errors are not, which are then drawn row by row."""
    made = fitted(HOLES["few"])
    assert made.evidence.n_patterns > 1
    held = made.bootstrap(6, "cluster", seed=5)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("lrgls_dask.compression.patterns.MOST_PATTERNS", 256)
        by_pattern = made.bootstrap(6, "cluster", seed=5)
    assert_same_draws(held, by_pattern, made.std_errors.values)


@pytest.mark.slow
def test_errors_drawn_row_by_row_have_the_analytic_spread(held_rows: None) -> None:
    made = fitted(HOLES["few"])
    ratio = made.bootstrap(100, seed=2).std_errors.values / made.with_cov("observed").std_errors.values
    assert abs(np.log(ratio).mean()) < 0.1


def test_blocks_are_groups_of_consecutive_rows(found: Fit) -> None:
    runs = np.arange(N) * 20 // N
    np.testing.assert_array_equal(
        found.bootstrap(4, "blocks", n_blocks=20, seed=1).params,
        found.bootstrap(4, "cluster", groups=runs, seed=1).params,
    )


@pytest.mark.parametrize("method", ["parametric", "cluster", "blocks"])
def test_a_replicate_depends_on_the_seed_and_its_number_alone(found: Fit, method: Any) -> None:
    boot = found.bootstrap(5, method, seed=7)
    with dask.config.set(scheduler="sync"):
        fewer = found.bootstrap(3, method, seed=7)
    np.testing.assert_array_equal(boot.params[:3], fewer.params)
    np.testing.assert_array_equal(boot.replicate_std_errors[:3], fewer.replicate_std_errors)
    assert not np.array_equal(found.bootstrap(3, method, seed=8).params, fewer.params)


@pytest.mark.parametrize("method", ["parametric", "cluster"])
@pytest.mark.parametrize("which", list(HOLES))
def test_how_rows_are_cut_does_not_show(which: str, method: Any) -> None:
    made = fitted(HOLES[which])
    expected = made.bootstrap(4, method, seed=2)
    cut = HOLES[which].system(dask_rows((1, 60, 39, 100)), groups=GROUPS)
    got = made.bootstrap(4, method, seed=2, system=cut)
    np.testing.assert_allclose(got.params, expected.params, atol=1e-3 * float(made.std_errors.min()))


def test_unused_values_and_rows_that_show_nothing_are_none_of_it() -> None:
    """What cells hold that nobody uses changes no bit."""
    data = HOLES["few"]
    own = replace(data, X=data.X.copy())
    empty = np.isnan(data.Y).all(axis=1)
    own.X[empty] = 1e3
    made = fitted(data)
    np.testing.assert_array_equal(fitted(own).bootstrap(3, seed=1).params, made.bootstrap(3, seed=1).params)
    fewer = fitted(data.take(~empty), groups=GROUPS[~empty])
    np.testing.assert_allclose(
        fewer.bootstrap(3, seed=1).params, made.bootstrap(3, seed=1).params, atol=1e-3 * float(made.std_errors.min())
    )


# ---------------------------------------------------------------------------------- roads to the rows


def test_compressed_streamed_and_opened_fits(found: Fit, tmp_path: Path) -> None:
    data, expected = HOLES["few"], found.bootstrap(4, seed=2)
    near = 1e-3 * float(found.std_errors.min())
    compressed = fit(data.system().compress(), 1, missing="em")
    np.testing.assert_allclose(compressed.bootstrap(4, seed=2).params, expected.params, atol=near)
    with pytest.raises(ValueError, match=r"method='cluster' resamples rows.*Pass system="):
        compressed.bootstrap(4, "cluster", groups=GROUPS)
    streamed = fitted(data, engine="stream", rel_tol=1e-12)
    np.testing.assert_allclose(streamed.bootstrap(4, seed=2).params, expected.params, atol=1e-2)
    found.to_zarr(tmp_path / "fit.zarr")
    opened = Fit.from_zarr(tmp_path / "fit.zarr")
    for method in ("parametric", "cluster"):
        np.testing.assert_array_equal(
            opened.bootstrap(3, method, seed=2, system=data.system(groups=GROUPS)).params,
            found.bootstrap(3, method, seed=2).params,
        )


def test_workers_find_the_same(found: Fit, client: Any) -> None:
    for method in ("parametric", "cluster"):
        with dask.config.set(scheduler="sync"):
            expected = found.bootstrap(3, method, seed=7).params
        np.testing.assert_array_equal(found.bootstrap(3, method, seed=7).params, expected)


def test_other_rows_are_refused(found: Fit) -> None:
    other = HOLES["few"].system(groups=GROUPS).compress()
    moved = replace(HOLES["few"], Y=HOLES["few"].Y + 1.0).system(groups=GROUPS)
    assert found.bootstrap(2, seed=0, system=other).n_replicates == 2
    for method in ("parametric", "cluster"):
        with pytest.raises(ValueError, match="these are not the rows that were fitted"):
            found.bootstrap(3, method, system=moved)
    with pytest.raises(ValueError, match="these are not the rows that were fitted"):
        found.bootstrap(3, system=DATA.system().compress())


@pytest.fixture(scope="module", params=["mixed", "weighted"])
def streamed_fit(request: Any) -> tuple[Fit, System]:
    """Of rows with more patterns than are kept, that are too many to be held, and those rows cut otherwise."""
    layout = "own" if request.param == "weighted" else "mixed"
    data = with_holes(simulate(layout, n=N, K=4, k=1, seed=3, weighted=request.param == "weighted"), **MANY)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("lrgls_dask.compression.patterns.MOST_PATTERNS", 1)
        patched.setattr("lrgls_dask.compression.patterns.HELD_BYTES", 0)
        made = fitted(data, rel_tol=1e-6)
    assert made.run.engine == "stream"
    return made, data.system(dask_rows((1, 60, 39, 100)), groups=GROUPS)


@pytest.mark.parametrize("method", ["parametric", "cluster", pytest.param("blocks", marks=pytest.mark.slow)])
def test_streamed_rows_have_the_replicates_of_held_ones(
    streamed_fit: tuple[Fit, System], held_rows: None, monkeypatch: pytest.MonkeyPatch, method: Any
) -> None:
    """To rounding, and so do fewer of them at a time."""
    made, rows = streamed_fit
    held = made.bootstrap(3, method, seed=5, system=rows)
    passes: list[str] = []
    monkeypatch.setattr("lrgls_dask.rows.meter.Meter.say_pass", lambda self, label, *rest: passes.append(label))
    monkeypatch.setattr("lrgls_dask.compression.patterns.HELD_BYTES", 0)
    got = made.bootstrap(3, method, seed=5, system=rows)
    assert 4 < passes.count("replicates") < 16
    np.testing.assert_allclose(got.params, held.params, rtol=1e-8, atol=1e-8 * float(made.std_errors.min()))
    np.testing.assert_allclose(got.replicate_std_errors, held.replicate_std_errors, rtol=1e-8)
    np.testing.assert_allclose(got.sigma["variance"], held.sigma["variance"], rtol=1e-8)
    np.testing.assert_allclose(got.classical, held.classical, rtol=1e-8)
    if method != "blocks":
        monkeypatch.setattr("lrgls_dask.plan.side_by_side.MOST_AT_ONCE", 2)
        np.testing.assert_array_equal(made.bootstrap(3, method, seed=5, system=rows).params, got.params)


def test_streamed_replicates_of_more_equations_than_have_products_of_all_pairs(
    streamed_fit: tuple[Fit, System], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, rows = streamed_fit
    monkeypatch.setattr("lrgls_dask.compression.patterns.HELD_BYTES", 0)
    held = made.bootstrap(2, seed=5, system=rows)
    monkeypatch.setattr("lrgls_dask.missing.refit.LARGEST_PAIRS", 1)
    monkeypatch.delattr("lrgls_dask.missing.same_passes.AskedRows.begun")
    got = made.bootstrap(2, seed=5, system=rows)
    np.testing.assert_allclose(got.params, held.params, atol=5e-3 * float(made.std_errors.min()))
    np.testing.assert_allclose(got.sigma["variance"], held.sigma["variance"], rtol=5e-3)


@pytest.mark.parametrize("method", ["parametric", "cluster"])
def test_workers_stream_the_same_replicates(
    streamed_fit: tuple[Fit, System], monkeypatch: pytest.MonkeyPatch, client: Any, method: Any
) -> None:
    made, rows = streamed_fit
    monkeypatch.setattr("lrgls_dask.compression.patterns.HELD_BYTES", 0)
    with dask.config.set(scheduler="sync"):
        expected = made.bootstrap(2, method, seed=5, system=rows).params
    np.testing.assert_array_equal(made.bootstrap(2, method, seed=5, system=rows).params, expected)


@pytest.mark.parametrize(
    "how", ["full", "fgls", *(pytest.param(each, marks=pytest.mark.slow) for each in ("ols", "restricted"))]
)
def test_streamed_replicates_of_other_fits(held_rows: None, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    made = fitted(HOLES["many"], **({"rank": 1} | OPTIONS[how]))
    held = made.bootstrap(2, seed=5)
    monkeypatch.setattr("lrgls_dask.compression.patterns.HELD_BYTES", 0)
    got = made.bootstrap(2, seed=5)
    np.testing.assert_allclose(got.params, held.params, rtol=1e-7, atol=1e-7 * float(made.std_errors.max()))
    np.testing.assert_allclose(got.replicate_std_errors, held.replicate_std_errors, rtol=1e-7)


def test_a_group_that_shows_nothing_is_not_drawn_of_streamed_rows(
    held_rows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = HOLES["many"]
    Y = data.Y.copy()
    Y[GROUPS == 3] = np.nan
    rows = replace(data, Y=Y).system(groups=GROUPS)
    monkeypatch.setattr("lrgls_dask.compression.patterns.HELD_BYTES", 0)
    made = fit(rows, 1, missing="em", rel_tol=1e-6)
    got = made.bootstrap(2, "cluster", seed=5)
    monkeypatch.setattr("lrgls_dask.compression.patterns.HELD_BYTES", 2**27)
    held = made.bootstrap(2, "cluster", seed=5).params
    np.testing.assert_allclose(got.params, held, atol=1e-7 * float(made.std_errors.min()))


def test_the_plan_of_streamed_rows_says_what_a_bootstrap_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrgls_dask.compression.patterns.HELD_BYTES", 0)
    plan = LowRankGLS(1, missing="em").plan(HOLES["many"].system())
    assert "a bootstrap of rows that are streamed takes about 10 passes for every 256 replicates" in str(plan)
    wide = System.from_arrays(np.zeros((200, 80)), np.ones((200, 5)))
    few = LowRankGLS(1, missing="em").plan(wide, workers=2, worker_memory="1GB").errors
    assert 1 <= int(few.split("every ")[1].split()[0]) < 100


def test_restricted_coefficients_do_not_vary() -> None:
    made = fitted(HOLES["few"], restrictions=["y0:x0 = -0.5"])
    boot = made.bootstrap(4, seed=1)
    held = np.isclose(made.params.values, -0.5, rtol=1e-12)
    assert held.sum() == 1
    assert (boot.std_errors.values[held] == 0).all() and (boot.params.values[:, held] == made.params.values[held]).all()
    assert (boot.std_errors.values[~held] > 0).all()


def test_singular_replicates_are_left_out_and_counted() -> None:
    """An equation that one block alone shows."""
    data = HOLES["few"]
    Y = data.Y.copy()
    Y[50:, 2] = np.nan
    made = fitted(replace(data, Y=Y), 0)
    with pytest.warns(match=r"bootstrap: \d+ of 20 replicates were singular"):
        boot = made.bootstrap(20, "blocks", n_blocks=4, seed=0)
    missed = [
        not (np.random.default_rng(s).integers(4, size=4) == 0).any() for s in np.random.SeedSequence(0).spawn(20)
    ]
    assert boot.n_failed == sum(missed) > 0


def test_groups_that_show_nothing_are_none() -> None:
    data = HOLES["few"]
    Y = data.Y.copy()
    Y[GROUPS > 0] = np.nan
    Y[GROUPS == 0] = data.Y[10:15]
    made = LowRankGLS(0, missing="em").fit(System.from_arrays(Y, np.ones((N, 1)), groups=GROUPS)).result_
    with pytest.raises(ValueError, match=r"of 40 groups, 1 has rows"):
        made.bootstrap(5, "cluster")
