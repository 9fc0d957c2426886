"""The bootstrap against simulation of the rows themselves, explicit refits, other seeds and other schedulers."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from lrgls_dask import Fit, FitWarning, LowRankGLS, System
from lrgls_dask.compression.compressed import compress_rows
from lrgls_dask.compression.parts import compress_parts
from lrgls_dask.resampling.draws import Fitted, _Resampler, column_space, draw_moments
from lrgls_dask.resampling.std_errors import StandardErrors
from lrgls_dask.results import bootstrap as bootstrapped
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.partition import GivenParts
from lrgls_dask.sigma.structures import LowRankStructure
from lrgls_dask.solve.in_memory import InMemory
from lrgls_dask.solve.record import Options, Point
from lrgls_dask.solve.refit import refit
from support.counted import counted
from support.fits import by_gram, fit
from support.systems import Data, dask_rows, simulate

KINDS = ["own", "shared", "mixed"]
DATA = simulate("mixed", n=240)
GROUPS = np.arange(240) // 8


@pytest.fixture(scope="module")
def found() -> Fit:
    return fit(DATA.system(groups=GROUPS))


# ---------------------------------------------------------------------------------------------- the draws


def test_moments_are_distributed_as_those_of_rows() -> None:
    """Means and covariances of [Q'E, E'E - E'QQ'E] against N simulated rows, 20,000 times each."""
    rng = np.random.default_rng(0)
    N, K, r, n = 9, 3, 2, 20_000
    root = np.linalg.cholesky(np.array([[2.0, 0.5, 0.3], [0.5, 1.0, -0.4], [0.3, -0.4, 1.5]]))
    basis = np.linalg.qr(rng.normal(size=(N, r)))[0]
    lower = np.tril_indices(K)

    def flat(inside: np.ndarray, beyond: np.ndarray) -> np.ndarray:
        return np.concatenate([inside.ravel(), beyond[lower]])

    E = rng.normal(size=(n, N, K)) @ root.T
    Q = np.broadcast_to(basis, (n, N, r))
    inside = Q.transpose(0, 2, 1) @ E
    expected = np.array([flat(q, e.T @ e - q.T @ q) for q, e in zip(inside, E, strict=True)])
    drawn = np.array([flat(*draw_moments(rng, root, r, N)) for _ in range(n)])
    spread = expected.std(axis=0)
    assert np.abs((drawn.mean(axis=0) - expected.mean(axis=0)) / spread).max() < 5 * np.sqrt(2 / n)
    np.testing.assert_allclose(drawn.std(axis=0) / spread, 1.0, atol=0.03)
    np.testing.assert_allclose(np.corrcoef(drawn.T), np.corrcoef(expected.T), atol=5 * np.sqrt(2 / n))


def test_fewer_rows_than_equations_give_a_singular_wishart() -> None:
    root = np.linalg.cholesky(np.eye(5) + 0.3)
    _, beyond = draw_moments(np.random.default_rng(0), root, 3, 5)
    assert np.linalg.matrix_rank(beyond) == 2
    _, none = draw_moments(np.random.default_rng(0), root, 5, 5)
    assert (none == 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("route", ["gram", "qr"])
@pytest.mark.parametrize("intercept", [True, False])
def test_the_column_space_of_x_is_found(kind: str, route: Any, intercept: bool) -> None:
    """It projects as the rows do, with and without a constant, with columns given twice and with a large mean."""
    data = simulate(kind, n=60, weighted=kind == "own")
    X = data.X if intercept else data.X + np.random.default_rng(1).normal(size=data.X.shape)
    X = np.column_stack([X, 1e3 + X[:, 1], X[:, 1]])
    rows = compress_rows(System.from_arrays(data.Y, X, weights=data.weights).rows, route=route, meter=Meter())
    basis, found = column_space(rows), rows.rows_of_x()
    weighted = X if data.weights is None else np.sqrt(data.weights)[:, None] * X
    assert basis.shape[1] == np.linalg.matrix_rank(weighted / np.linalg.norm(weighted, axis=0), tol=1e-9)
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-10)
    left = (found - basis @ (basis.T @ found)) / np.linalg.norm(found, axis=0)
    assert np.abs(left).max() < 1e-8


@pytest.mark.slow
def test_replicates_spread_as_refits_of_simulated_rows_do(found: Fit) -> None:
    """The whole bootstrap against fits of rows drawn from the fitted model, coefficient by coefficient."""
    n = 300
    boot = found.bootstrap(n, seed=3)
    rng = np.random.default_rng(4)
    fitted = np.column_stack(
        [X @ b for X, b in zip(DATA.Xs, np.split(found.params.values, found.design.offsets[1:-1]), strict=True)]
    )
    root = np.linalg.cholesky(found.sigma().values)
    refits = []
    for _ in range(n):
        data = replace(DATA, Y=fitted + rng.normal(size=fitted.shape) @ root.T)
        refits.append(_quietly(data))
    params = np.array([f.coefficients for f in refits])
    ratio = boot.std_errors.values / params.std(axis=0, ddof=1)
    assert np.abs(np.log(ratio)).max() < 5 / np.sqrt(n)  # the log of a ratio of two deviations has sd 1 / sqrt(n)
    assert np.abs((boot.params.values - params).mean(axis=0) / params.std(axis=0)).max() < 5 * np.sqrt(2 / n)
    variances = np.array([f.sigma_diagonal for f in refits])
    assert np.abs(np.log(boot.sigma["variance"].values.std(axis=0) / variances.std(axis=0))).max() < 5 / np.sqrt(n)
    shares = np.array([1 - f.idio_var.values / f.sigma_diagonal for f in refits])
    np.testing.assert_allclose(boot.sigma["communality"].mean("replicate"), shares.mean(axis=0), atol=0.02)


# ---------------------------------------------------------------------------------------------- the refits


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("penalty", [0.0, 2.0])
def test_a_refit_is_the_fit_to_a_hundredth_of_a_standard_error(kind: str, penalty: float) -> None:
    rows = simulate(kind, n=240).system().compress().rows
    full = fit(simulate(kind, n=240).system(), lam_B=penalty)
    problem = InMemory(rows, lam_B=penalty, meter=Meter())
    errors = StandardErrors.of(problem)
    scale = problem.whitened.y_scale
    # from a point as far away as a replicate is
    away = full.coefficients + full.std_errors.values * np.random.default_rng(0).normal(size=full.n_coefficients)
    c = problem.coordinates.flat(problem.whitened.coordinates(away))
    sigma = full.covariance.rescaled(np.random.default_rng(1).uniform(0.9, 1.1, 6) / scale)
    point = refit(problem, LowRankStructure(2), Options(lam_B=penalty), Point(c, problem.residual_covariance(c), sigma))
    assert np.abs((errors.coefficients(point.c) - full.coefficients) / full.std_errors.values).max() < 0.02
    np.testing.assert_allclose(errors.at(full.covariance.rescaled(1 / scale)), full.std_errors, rtol=1e-8)
    np.testing.assert_allclose(errors.at(point.sigma), full.std_errors, rtol=1e-3)
    np.testing.assert_allclose(
        problem.whitened.coefficients(problem.coordinates.by_group(point.c)), errors.coefficients(point.c), rtol=1e-9
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_resampled_groups_are_the_rows_taken_so_often(weighted: bool) -> None:
    data = simulate("mixed", n=120, weighted=weighted, unit=100.0)
    shifted = replace(data, Y=data.Y + 1e6)
    codes = np.random.default_rng(2).integers(5, size=120)
    parts = compress_parts(shifted.system().rows, GivenParts(codes, 5), route="gram", meter=Meter())
    counts = np.array([2, 0, 1, 1, 3])
    rows = _Resampler.of(parts, Fitted(np.zeros(0), None, LowRankStructure(1), Options())).rows(counts)  # type: ignore[arg-type]
    taken = np.concatenate([np.tile(np.flatnonzero(codes == g), m) for g, m in enumerate(counts)])
    expected = compress_rows(shifted.take(taken).system().rows, route="gram", meter=Meter())
    assert rows.n_obs == len(taken)
    assert (rows.head.weight, rows.head.log_weight) == pytest.approx((expected.head.weight, expected.head.log_weight))
    np.testing.assert_allclose(rows.head.mean, expected.head.mean, rtol=1e-12)
    np.testing.assert_allclose(rows.root.T @ rows.root, expected.root.T @ expected.root, rtol=1e-9, atol=1e-6)


def test_clusters_widen_the_errors_that_rows_hide() -> None:
    """Regressors and errors constant within groups of 8: classical errors are sqrt(8) too small."""
    base = simulate("shared", n=60, K=5, k=1)
    long = Data("shared", np.repeat(base.Y, 8, axis=0), np.repeat(base.X, 8, axis=0), base.columns)
    long = replace(long, Y=long.Y + 1e-3 * np.random.default_rng(0).normal(size=long.Y.shape))
    groups = np.repeat([f"g{i}" for i in range(60)], 8)
    full = fit(long.system(), 1)
    ratio = (full.bootstrap(200, "cluster", groups=groups, seed=0).std_errors / full.std_errors).values
    assert abs(np.median(ratio) - np.sqrt(8)) < 0.45
    by_blocks = full.bootstrap(200, "blocks", n_blocks=60, seed=0)  # here the blocks are the groups
    assert abs(np.median((by_blocks.std_errors / full.std_errors).values) - np.sqrt(8)) < 0.45


def test_groups_may_be_joined(found: Fit) -> None:
    joined = found.bootstrap(20, "cluster", n_blocks=10, seed=0)
    assert joined.n_replicates == 20
    apart = found.bootstrap(20, "cluster", seed=0)
    assert not np.array_equal(joined.params, apart.params)
    np.testing.assert_array_equal(found.bootstrap(20, "cluster", n_blocks=30, seed=0).params, apart.params)


def test_groups_are_read_once(small_blocks: None) -> None:
    store = counted(DATA)
    full = fit(System.from_zarr(store))
    store.gets.clear()
    full.bootstrap(5, seed=0)
    assert not store.gets
    full.bootstrap(5, "cluster", groups=GROUPS, seed=0)
    assert store.of("X") == store.of("Y") == {1: 24}


# ---------------------------------------------------------------------------------------------- seeds and schedulers


@pytest.mark.parametrize("method", ["parametric", "cluster"])
def test_a_replicate_depends_on_the_seed_and_its_number_alone(found: Fit, method: Any) -> None:
    boot = found.bootstrap(12, method, seed=7)
    with dask.config.set(scheduler="sync"):
        fewer = found.bootstrap(5, method, seed=7)
    np.testing.assert_array_equal(boot.params[:5], fewer.params)
    np.testing.assert_array_equal(boot.replicate_std_errors[:5], fewer.replicate_std_errors)
    assert not np.array_equal(found.bootstrap(5, method, seed=8).params, fewer.params)
    drawn = found.bootstrap(5, method)
    np.testing.assert_array_equal(found.bootstrap(5, method, seed=drawn.seed).params, drawn.params)


def test_workers_find_the_same(found: Fit, client: Any) -> None:
    with dask.config.set(scheduler="sync"):
        expected = found.bootstrap(6, seed=7).params
    np.testing.assert_array_equal(found.bootstrap(6, seed=7).params, expected)


def test_stored_and_streamed_fits(found: Fit, tmp_path: Any) -> None:
    found.to_zarr(tmp_path / "fit.zarr")
    stored = Fit.from_zarr(tmp_path / "fit.zarr")
    np.testing.assert_array_equal(stored.bootstrap(5, seed=0).params, found.bootstrap(5, seed=0).params)
    with pytest.raises(ValueError, match=r"method='cluster' resamples rows.*opened from a file.*Pass system="):
        stored.bootstrap(5, "cluster", groups=GROUPS)
    again = stored.bootstrap(5, "cluster", system=DATA.system(groups=GROUPS), seed=0)
    np.testing.assert_array_equal(again.params, found.bootstrap(5, "cluster", seed=0).params)
    streamed = fit(DATA.system(), engine="stream", rel_tol=1e-12)
    with pytest.raises(ValueError, match=r"a streamed fit keeps no compressed rows.*Pass system="):
        streamed.bootstrap(5)
    np.testing.assert_allclose(
        streamed.bootstrap(5, seed=0, system=DATA.system()).params, found.bootstrap(5, seed=0).params, atol=1e-2
    )


@pytest.mark.parametrize("options", [{"sigma_step": "pca"}, {"lam_F": 0.1}, {"lam_B": 5.0}, {"d_floor": 0.3}])
def test_refits_follow_the_options_of_the_fit(found: Fit, options: dict[str, Any], tmp_path: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)  # principal components stall, high floors are reached
        other = LowRankGLS(1, **options).fit(DATA.system()).result_
    other.to_zarr(tmp_path / "fit.zarr")
    boot = Fit.from_zarr(tmp_path / "fit.zarr").bootstrap(40, seed=0)
    centre = boot.sigma["variance"].mean("replicate").values
    assert np.abs(np.log(centre / other.sigma_diagonal)).max() < 0.2
    np.testing.assert_array_equal(boot.params, other.bootstrap(40, seed=0).params)
    if "d_floor" in options:
        least = (boot.draws.idio_var / other.one_sigma.y_scale**2).min()
        assert least == pytest.approx(0.3)


def test_gram_and_qr_rows_give_the_same(found: Fit) -> None:
    gram = fit(by_gram(DATA.system())).bootstrap(200, seed=0)  # other draws: signs of the rows differ
    np.testing.assert_allclose(gram.std_errors / found.bootstrap(200, seed=0).std_errors, 1.0, atol=0.3)
    assert gram.n_failed == 0


# ---------------------------------------------------------------------------------------------- the result


def test_intervals_are_the_quantiles_they_say(found: Fit) -> None:
    boot = found.bootstrap(99, seed=0)
    b, se = found.params.values, found.std_errors.values
    draws, errors = boot.params.values, boot.replicate_std_errors.values
    t = np.sort((draws - b) / errors, axis=0)
    low, high = t[9], t[89]  # 0.1 and 0.9 of 99 values: the 10th and the 90th
    interval = boot.conf_int(0.2)
    np.testing.assert_allclose(interval.sel(bound="low"), b - high * se, rtol=1e-10)
    np.testing.assert_allclose(interval.sel(bound="high"), b - low * se, rtol=1e-10)
    percentile, basic = boot.conf_int(0.2, "percentile"), boot.conf_int(0.2, "basic")
    np.testing.assert_allclose(percentile.sel(bound="low"), np.quantile(draws, 0.1, axis=0, method="weibull"))
    np.testing.assert_allclose(basic.sel(bound="low"), 2 * b - np.quantile(draws, 0.9, axis=0, method="weibull"))
    np.testing.assert_allclose(percentile.sum("bound") + basic.sum("bound"), 4 * b, rtol=1e-8, atol=1e-8)
    for interval in (percentile, basic):
        assert (interval.sel(bound="low") < interval.sel(bound="high")).all()
    np.testing.assert_allclose(boot.bias, draws.mean(axis=0) - b)
    np.testing.assert_allclose(boot.std_errors, draws.std(axis=0, ddof=1))


@pytest.mark.parametrize("kind", ["studentised", "percentile", "basic"])
def test_tidy_frames_are_those_of_fits(found: Fit, kind: Any) -> None:
    boot = found.bootstrap(99, seed=4)
    frame, of_fit = boot.tidy(level=0.9, kind=kind), found.tidy(level=0.9)
    assert list(frame) == list(of_fit)
    labels = ["equation", "term", "estimate"]
    pd.testing.assert_frame_equal(frame[labels], of_fit[labels])
    np.testing.assert_allclose(frame[["conf_low", "conf_high"]], boot.conf_int(0.1, kind))
    np.testing.assert_array_equal(frame["std_error"], boot.std_errors)
    np.testing.assert_allclose(frame["statistic"], found.params / boot.std_errors)
    for alpha in (0.02, 0.3, 0.6, 0.9):  # with 99 draws the ends of intervals are draws, and none lies at zero
        low, high = boot.conf_int(alpha, kind).values.T
        np.testing.assert_array_equal(frame["p_value"] <= alpha + 1e-9, (low > 0) | (high < 0))
    some = boot.tidy(equation="y1", term="x*", kind=kind)
    pd.testing.assert_frame_equal(some, boot.tidy(kind=kind).query("equation == 'y1'").reset_index(drop=True))


def test_results_carry_labels(found: Fit) -> None:
    boot = found.bootstrap(4, seed=11)
    for array in (boot.std_errors, boot.bias, boot.conf_int()):
        assert isinstance(array, xr.DataArray)
        xr.testing.assert_equal(array["equation"], found.params["equation"])
        xr.testing.assert_equal(array["regressor"], found.params["regressor"])
    assert boot.params.dims == boot.replicate_std_errors.dims == ("replicate", "coefficient")
    assert boot.sigma["variance"].dims == ("replicate", "equation")
    assert repr(boot) == f"<Bootstrap (parametric): 4 replicates of {found.n_coefficients} coefficients, seed 11>"


def test_singular_replicates_are_left_out_and_counted() -> None:
    """A column that is zero in all blocks but one: a third of the replicates (1 - 1/4)^4 miss it."""
    data = simulate("shared", K=5, k=1)
    data.X[60:, 3] = 0.0
    full = fit(data.system(), 1)
    with pytest.warns(FitWarning, match=r"bootstrap: \d+ of 40 replicates were singular") as caught:
        boot = full.bootstrap(40, "blocks", n_blocks=4, seed=0)
    assert len(caught) == 1
    assert 4 < boot.n_failed < 25 and boot.n_replicates == 40 - boot.n_failed
    missed = [
        not (np.random.default_rng(s).integers(4, size=4) == 0).any() for s in np.random.SeedSequence(0).spawn(40)
    ]
    assert boot.n_failed == sum(missed)
    np.testing.assert_array_equal(boot.params["replicate"], np.flatnonzero(~np.array(missed)))
    assert f"{boot.n_failed} more failed" in repr(boot)


def test_no_replicate_at_all() -> None:
    data = simulate("shared", K=5, k=1)
    data.X[:, 1:] = np.arange(240)[:, None] == np.arange(3)  # resampled together with probability 0.63^3
    full = fit(data.system(), 1)
    seed = next(s for s in range(99) if all(_miss_one_of_three(c) for c in np.random.SeedSequence(s).spawn(2)))
    with pytest.raises(np.linalg.LinAlgError, match="none of 2 replicates could be fitted"):
        full.bootstrap(2, "blocks", n_blocks=240, seed=seed)


def _miss_one_of_three(seed: np.random.SeedSequence) -> bool:
    return len({0, 1, 2} & set(np.random.default_rng(seed).integers(240, size=240))) < 3


# ---------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 1}, "n, the number of replicates, must be an integer of at least 2; got 1"),
        ({"n": 99.0}, "must be an integer of at least 2; got 99.0"),
        ({"n": True}, "must be an integer of at least 2; got True"),
        ({"n": 9, "method": "wild"}, "method must be 'parametric' or 'cluster' or 'blocks'; got 'wild'"),
        ({"n": 9, "seed": -1}, "seed must be an integer of at least 0, or None; got -1"),
        ({"n": 9, "seed": 0.5}, "seed must be an integer of at least 0, or None; got 0.5"),
        ({"n": 9, "groups": GROUPS}, "groups are for method='cluster'; got method='parametric'"),
        ({"n": 9, "n_blocks": 5}, "n_blocks is for method='blocks' and 'cluster'"),
        ({"n": 9, "method": "blocks", "n_blocks": 1}, "n_blocks must be an integer of at least 2; got 1"),
        ({"n": 9, "method": "blocks", "n_blocks": 241}, "n_blocks=241 is more than the 240 rows"),
        ({"n": 9, "method": "cluster", "groups": GROUPS[:-1]}, r"for each of 240 rows; found shape \(239,\)"),
        ({"n": 9, "method": "cluster", "groups": 0 * GROUPS}, "groups has 1 distinct label"),
        (
            {"n": 9, "method": "cluster", "groups": np.where(GROUPS == 3, np.nan, GROUPS)},
            "groups: the label of row 24 is missing",
        ),
    ],
)
def test_bad_arguments(found: Fit, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        found.bootstrap(**arguments)


def test_clusters_need_groups_and_compressed_systems_have_no_rows(found: Fit) -> None:
    with pytest.raises(ValueError, match="needs the group of every row"):
        fit(DATA.system()).bootstrap(9, "cluster")
    with pytest.raises(ValueError, match="method='blocks' resamples rows"):
        found.bootstrap(9, "blocks", system=DATA.system().compress())
    with pytest.raises(ValueError, match="equations"):
        found.bootstrap(9, system=simulate("mixed", K=4).system())


@pytest.mark.parametrize("alpha", [0, 1, -0.1, True])
def test_alpha_out_of_bounds(found: Fit, alpha: Any) -> None:
    with pytest.raises(ValueError, match=f"alpha must lie between 0 and 1, both excluded; got {alpha}"):
        found.bootstrap(3, seed=0).conf_int(alpha)


def test_unknown_kind_of_interval(found: Fit) -> None:
    with pytest.raises(ValueError, match="kind must be 'studentised' or 'percentile' or 'basic'; got 'normal'"):
        found.bootstrap(3, seed=0).conf_int(kind="normal")  # type: ignore[arg-type]


def test_more_groups_than_memory_holds(found: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    real = bootstrapped.price_parts
    monkeypatch.setattr(bootstrapped, "price_parts", lambda *a: replace(real(*a), memory_limit=1000))
    with pytest.raises(
        MemoryError, match=r"cross-products of 30 groups apart needs .*; the limit is 0.98 kiB. n_blocks=2"
    ):
        found.bootstrap(9, "cluster")
    with pytest.raises(MemoryError, match="cross-products of 50 blocks apart"):
        found.bootstrap(9, "blocks")


def test_dask_rows_and_groups(small_blocks: None, found: Fit) -> None:
    lazy = fit(DATA.system(dask_rows(17)))
    np.testing.assert_allclose(
        lazy.bootstrap(5, "cluster", groups=GROUPS, seed=0).params,
        found.bootstrap(5, "cluster", seed=0).params,
        atol=1e-3,
    )


def test_wide_own_designs_are_refused_by_the_size_of_their_covariance(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = InMemory(DATA.system().compress().rows, lam_B=0.0, meter=Meter())
    monkeypatch.setattr("lrgls_dask.resampling.std_errors.MAX_COEFFICIENTS", 10)
    with pytest.raises(ValueError, match=r"need a \(23 x 23\) matrix, which is limited to 10"):
        StandardErrors.of(problem)


def _quietly(data: Data) -> Fit:
    """A fit of rank 2, Heywood cases and all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return LowRankGLS(2, rel_tol=1e-8).fit(data.system().compress()).result_
