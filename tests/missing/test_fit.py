"""Missing responses through the estimator: lavaan's numbers, dense formulas, other engines, other storage, files."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from distributed import Client

from lrgls_dask import Fit, FitWarning, LowRankGLS, System
from lrgls_dask.cli import main
from lrgls_dask.errors import BadValues
from support.counted import counted_array, counted_rows
from support.fits import TIGHT, assert_params_close, assert_same_bits, fit
from support.incomplete import dense_information, dense_loglik, with_holes
from support.reference import MISSING_CASES, apart, load, system_of, table
from support.systems import Data, dask_rows, simulate, zarr_rows

RANKS = {"diagonal": 0, "factor_k1": 1}
ENGINES = pytest.mark.parametrize("engine", ["compress", "stream"])
ALGORITHMS = pytest.mark.parametrize("algorithm", ["als", "em"])


@pytest.fixture(scope="module")
def holes() -> Data:
    return with_holes(simulate("mixed", n=200), n_patterns=7)


@pytest.fixture(scope="module")
def found(holes: Data) -> Fit:
    return fit(holes.system(), missing="em")


def complete(data: Data) -> np.ndarray:
    """Rows that show every equation."""
    return np.flatnonzero(~np.isnan(data.Y).any(axis=1))


# ---------------------------------------------------------------------------------- the numbers


@ENGINES
@ALGORITHMS
@pytest.mark.parametrize("structure", RANKS)
@pytest.mark.parametrize("case", MISSING_CASES)
def test_full_information_maximum_likelihood_as_in_lavaan(
    case: str, structure: str, algorithm: str, engine: str
) -> None:
    reference, data = load(case)
    expected = reference["fits"][structure]
    system = system_of(reference["equations"], data)
    got = fit(system, RANKS[structure], missing="em", algorithm=algorithm, engine=engine)
    assert got.engine == engine
    assert got.loglik == pytest.approx(expected["loglik_y_given_x"], abs=1e-5)
    coefficients, sigma = apart(got, expected)
    assert coefficients < 1e-4 and sigma < 1e-4
    observed = table(expected["se"]["observed"], got)
    np.testing.assert_allclose(got.std_errors.values, table(expected["gls_se_at_mle"], got), rtol=1e-6)
    np.testing.assert_allclose(got.with_cov("observed").std_errors.values, observed, rtol=1e-3)
    Y = data[list(reference["equations"])].to_numpy(float)
    assert got.n_obs == len(data) - reference["missing"]["rows_all_missing"]
    assert got.n_cells == int((~np.isnan(Y)).sum())
    assert got.df_resid == got.n_cells - got.n_coefficients
    np.testing.assert_array_equal(got.cells, (~np.isnan(Y)).sum(axis=0))


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_likelihood_and_gls_covariance_row_by_row(weighted: bool) -> None:
    data = with_holes(simulate("mixed", n=150, weighted=weighted, unit=40.0))
    got = fit(data.system(), missing="em")
    sigma = got.sigma().values
    assert got.loglik == pytest.approx(dense_loglik(data, got.params.values, sigma), rel=1e-11)
    cov = np.linalg.inv(dense_information(data, sigma))
    sd = np.sqrt(cov.diagonal())
    assert np.abs((got.cov().values - cov) / np.outer(sd, sd)).max() < 1e-6
    assert got.cov().attrs["kind"] == "classical"
    assert got.nll == pytest.approx(-got.loglik / got.n_obs)
    assert got.trace["nll"].iloc[-1] == pytest.approx(got.nll, rel=1e-12)


@pytest.mark.parametrize("lam", [0.0, 3.0], ids=["plain", "penalised"])
def test_patterns_are_the_same_as_rows_and_em_as_als(lam: float) -> None:
    data = with_holes(simulate("own", n=250))
    fits = [
        fit(data.system(), missing="em", algorithm=algorithm, engine=engine, lam_B=lam, lam_F=lam / 30)
        for algorithm in ("als", "em")
        for engine in ("compress", "stream")
    ]
    for other in fits[1:]:
        assert other.objective == pytest.approx(fits[0].objective, abs=1e-11)
        assert other.nll == pytest.approx(fits[0].nll, abs=1e-8)
        assert_params_close(other, fits[0], 1e-6)
        np.testing.assert_allclose(other.std_errors.values, fits[0].std_errors.values, rtol=1e-6)
        np.testing.assert_allclose(other.sigma().values, fits[0].sigma().values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["shared", "mixed"])
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_em_of_complete_rows_is_their_als(kind: str, rank: int) -> None:
    data = simulate(kind, n=300)
    expected = fit(data.system(), rank)
    for engine in ("compress", "stream"):
        got = fit(data.system(), rank, algorithm="em", engine=engine)
        assert got.algorithm == "em"
        assert got.nll == pytest.approx(expected.nll, abs=1e-8)
        assert_params_close(got, expected, 1e-5)
        np.testing.assert_allclose(got.std_errors.values, expected.std_errors.values, rtol=1e-5)
        assert set(got.trace["step"]) <= {"em", "beta", "covariance"}
        if engine == "compress":
            assert got.n_passes == 1
        else:
            rounds = got.trace[got.trace["step"] == "em"]
            assert (np.diff(rounds["passes"]) == 1).all()


def test_em_keeps_to_restrictions() -> None:
    data = simulate("shared", n=300)
    text = "y0:x1 = y1:x1"
    expected = fit(data.system(), restrictions=text)
    got = fit(data.system(), restrictions=text, algorithm="em")
    assert got.nll == pytest.approx(expected.nll, abs=1e-8)
    assert_params_close(got, expected, 1e-5)


@pytest.mark.parametrize("missing", ["raise", "em"])
def test_plain_em_never_rises_and_takes_more_rounds(missing: Any, holes: Data) -> None:
    data = simulate("mixed", n=200) if missing == "raise" else holes
    made = {
        a: LowRankGLS(2, algorithm="em", accelerate=a, missing=missing).fit(data.system()).result_
        for a in (True, False)
    }
    assert made[False].n_sweeps > 2 * made[True].n_sweeps
    assert made[False].nll == pytest.approx(made[True].nll, abs=1e-8)
    rounds = made[False].trace
    assert np.diff(rounds["obj"][rounds["step"] == "em"]).max() < 1e-13


@pytest.mark.slow
def test_rank_by_bic(holes: Data) -> None:
    data = with_holes(simulate("shared", n=500, K=9), n_patterns=30)
    for engine in ("compress", "stream"):
        got = LowRankGLS("bic", missing="em", engine=engine).fit(data.system()).result_
        assert got.rank == 2
        assert got.selection is not None
        assert list(got.selection.index) == [1, 2, 3, 4]
        assert got.selection.loc[2, "bic"] == pytest.approx(got.bic)
        assert got.selection["tied"].tolist() == [False, True, False, False]
    assert LowRankGLS("auto", missing="em").fit(holes.system()).result_.rank == 1


@ENGINES
@ALGORITHMS
def test_a_start_with_nothing_of_its_own_left_leads_to_no_worse_optimum(algorithm: str, engine: str) -> None:
    """The pairwise covariance of these data is a Heywood case, which the likelihood is not: 8.6 lower from there."""
    data = with_holes(simulate("shared", n=200, k=1), n_patterns=5)
    got = LowRankGLS(1, missing="em", algorithm=algorithm, engine=engine).fit(data.system()).result_
    assert got.loglik == pytest.approx(-1304.28475, abs=1e-4)
    assert got.on_floor == ()


# ---------------------------------------------------------------------------------- nothing is missing


@ENGINES
def test_complete_rows_give_the_complete_fit(engine: str) -> None:
    data = simulate("mixed", n=200)
    expected, got = (fit(data.system(), engine=engine, missing=missing) for missing in ("raise", "em"))
    assert_same_bits(got, expected)
    assert got.n_passes == expected.n_passes + (engine == "stream")
    assert got.cells is None
    if engine == "compress":
        assert got.mcelroy_r2() == expected.mcelroy_r2()


def test_complete_rows_by_cross_products_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrgls_dask.compression.compressed.SMALL_FLOPS", 0.0)
    data = simulate("mixed", n=300, k=1)
    got = fit(data.system(), 1, missing="em")
    assert got.n_passes == 1
    assert got.evidence.rows_for(got.estimated, "the test").route == "gram"
    assert_params_close(got, fit(data.system(), 1), 1e-9)
    data.X[:, 3] = data.X[:, 2] + 1e-4 * data.X[:, 3]  # digits that cross-products lose
    got = fit(data.system(), 1, missing="em")
    assert got.evidence.rows_for(got.estimated, "the test").route == "qr"


# ---------------------------------------------------------------------------------- storage, schedulers, reads


@ENGINES
def test_storage_does_not_show(holes: Data, found: Fit, engine: str, every_chunk: None) -> None:
    for wrap in (zarr_rows(40), dask_rows(60), dask_rows((1, 90, 109))):
        got = fit(holes.system(wrap), missing="em", engine=engine)
        assert got.loglik == pytest.approx(found.loglik, rel=1e-11)
        assert_params_close(got, found, 1e-6)
        np.testing.assert_allclose(got.std_errors.values, found.std_errors.values, rtol=1e-6)


@ENGINES
def test_a_cluster_of_two_processes_gives_the_same_bits(client: Client, holes: Data, engine: str, every_chunk) -> None:
    got = fit(holes.system(dask_rows(50)), missing="em", engine=engine, rel_tol=1e-6)
    dropped = fit(holes.system(dask_rows(50)), missing="drop", engine=engine, rel_tol=1e-6)
    with dask.config.set(scheduler="threads"):
        expected = fit(holes.system(dask_rows(50)), missing="em", engine=engine, rel_tol=1e-6)
        assert_same_bits(dropped, fit(holes.system(dask_rows(50)), missing="drop", engine=engine, rel_tol=1e-6))
    assert_same_bits(got, expected)


def test_few_patterns_are_read_once_and_streamed_rounds_are_passes(every_chunk: None) -> None:
    data = with_holes(simulate("shared", n=200, k=1), n_patterns=5)
    system, reads = counted_rows(data, 20)
    got = fit(system, 1, missing="em")
    assert set(reads.values()) == {1} and got.n_passes == 1
    got.cov("observed")
    got.mcelroy_r2()
    assert set(reads.values()) == {1}
    reads.clear()
    streamed = fit(system, 1, missing="em", engine="stream", rel_tol=1e-6)
    assert set(reads.values()) == {streamed.n_passes}
    assert streamed.trace["passes"].iloc[-1] == streamed.n_passes
    assert list(streamed.trace["step"])[-2:] == ["em", "beta"]
    assert streamed.trace["read_for"].iloc[-2] == "likelihood and standard errors"
    assert streamed.bytes_read == streamed.n_passes * 200 * 10 * 8
    before = streamed.n_passes
    streamed.cov("observed")
    assert set(reads.values()) == {before + 3}
    streamed.cov("classical")
    assert set(reads.values()) == {before + 3}


@pytest.mark.parametrize("weights", [None, "rows", "cells"])
def test_rows_of_many_patterns_are_read_once_and_held_whatever_the_rank(
    weights: str | None, every_chunk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lead to the optimum of the rows streamed to the last digits."""
    data = with_holes(simulate("own", n=300, K=6, k=1, weighted=weights == "rows"), 0.4)
    given = data.weights
    if weights == "cells":
        given = np.random.default_rng(5).uniform(0.5, 2.0, size=data.Y.shape)
    (X, of_X), (Y, of_Y) = counted_array(data.X, 50), counted_array(data.Y, 50)
    own = np.array([[c in columns for columns in data.columns] for c in range(data.X.shape[1])])
    system = System.from_arrays(Y, X, incidence=own, weights=given)
    monkeypatch.setattr("lrgls_dask.compression.patterns.MOST_PATTERNS", 10)
    model = LowRankGLS("bic", missing="em", ranks=[1, 2]).fit(system)
    got = model.result_
    assert set(of_X.values()) == set(of_Y.values()) == {1}
    assert (got.n_passes, got.engine, model.plan_.passes) == (1, "compress", 1)
    assert got.n_patterns == len(np.unique(np.isnan(data.Y), axis=0))
    assert data.weights is None or (data.weights > 0).all()
    streamed = fit(system, got.rank, missing="em", engine="stream", rel_tol=1e-10, max_sweeps=2000)
    assert got.loglik > streamed.loglik - 1e-4
    np.testing.assert_allclose(got.params, streamed.params, atol=0.02 * float(got.std_errors.min()))


def test_more_patterns_than_are_compressed_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    data = with_holes(simulate("own", n=400, K=10, k=1), 0.4)
    monkeypatch.setattr("lrgls_dask.compression.patterns.HELD_BYTES", 0)
    model = LowRankGLS(1, missing="em", rel_tol=1e-9).fit(data.system())
    got = model.result_
    assert model.plan(data.system()).engine == "compress" and got.engine == "stream"
    assert model.plan_.engine == "stream"  # what was run
    assert 256 < got.n_patterns <= len(np.unique(np.isnan(data.Y), axis=0))
    assert f"in at least {got.n_patterns} patterns" in got.summary()
    with pytest.raises(ValueError, match=r"at most 256 patterns, and these rows have more and are too many to be held"):
        LowRankGLS(1, missing="em", engine="compress").fit(data.system())


# ---------------------------------------------------------------------------------- files


def test_saved_and_opened(holes: Data, found: Fit, tmp_path: Path) -> None:
    found.to_zarr(tmp_path / "fit.zarr")
    opened = Fit.from_zarr(tmp_path / "fit.zarr")
    assert_same_bits(opened, found)
    assert opened.summary() == found.summary()
    assert (opened.missing, opened.n_patterns, opened.n_cells) == ("em", found.n_patterns, found.n_cells)
    np.testing.assert_array_equal(opened.cov().values, found.cov().values)
    assert opened.wald_test("y0:x1 = 0").statistic == found.wald_test("y0:x1 = 0").statistic
    np.testing.assert_array_equal(opened.cov("observed").values, found.cov("observed").values)
    without = replace(opened, evidence=replace(opened.evidence, rows=None))
    with pytest.raises(ValueError, match=r"kind='observed' needs the rows.*cov\('observed', system=\.\.\.\)"):
        without.cov("observed")
    again = opened.with_cov("observed", system=holes.system())
    np.testing.assert_allclose(again.cov().values, found.cov("observed").values, rtol=1e-9, atol=1e-15)
    again.to_zarr(tmp_path / "observed.zarr")
    kept = Fit.from_zarr(tmp_path / "observed.zarr")
    np.testing.assert_array_equal(kept.std_errors.values, again.std_errors.values)
    np.testing.assert_allclose(
        kept.cov("classical", system=holes.system()).values, found.cov().values, rtol=1e-9, atol=1e-12
    )
    one = kept.cov("classical", equation="y1", system=holes.system()).values
    np.testing.assert_allclose(one, found.cov(equation="y1").values, rtol=1e-9, atol=1e-12)
    other = replace(holes, Y=np.where(np.arange(200)[:, None] == 7, 1.0, holes.Y))
    with pytest.raises(ValueError, match=rf"are not the rows that were fitted: .* where the fit had {found.n_cells:,}"):
        opened.cov("observed", system=other.system())


# ---------------------------------------------------------------------------------- filling in


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_impute_as_the_dense_conditional_formulas_say(weighted: bool, tmp_path: Path) -> None:
    data = with_holes(simulate("mixed", n=120, weighted=weighted))
    got = fit(data.system(), missing="em")
    got.impute(data.system(zarr_rows(50)), tmp_path / "full.zarr")
    store = zarr.open_group(tmp_path / "full.zarr", mode="r")
    Y, variance = (np.asarray(store[name][:]) for name in ("Y", "Y_variance"))
    lazy = got.impute(data.system(zarr_rows(50)))
    assert all(isinstance(lazy[name].data, da.Array) and lazy[name].dims == ("obs", "equation") for name in lazy)
    np.testing.assert_array_equal(lazy["Y"], Y)
    np.testing.assert_array_equal(lazy["Y_variance"], variance)
    sigma, b = got.sigma().values, np.split(got.params.values, got.design.offsets[1:-1])
    fitted = np.column_stack([x @ own for x, own in zip(data.Xs, b, strict=True)])
    for i, y in enumerate(data.Y):
        o, m = np.flatnonzero(~np.isnan(y)), np.flatnonzero(np.isnan(y))
        gain = sigma[np.ix_(m, o)] @ np.linalg.inv(sigma[np.ix_(o, o)])
        left = sigma[np.ix_(m, m)] - gain @ sigma[np.ix_(o, m)]
        np.testing.assert_array_equal(Y[i, o], y[o])
        np.testing.assert_array_equal(variance[i, o], 0.0)
        np.testing.assert_allclose(Y[i, m], fitted[i, m] + gain @ (y[o] - fitted[i, o]), rtol=1e-8, atol=1e-10)
        weight = 1.0 if data.weights is None else data.weights[i]
        np.testing.assert_allclose(variance[i, m], left.diagonal() / weight, rtol=1e-8)


def test_an_imputed_store_is_a_system_read_once(tmp_path: Path, every_chunk: None) -> None:
    data = with_holes(simulate("shared", n=100, k=1))
    system, reads = counted_rows(data, 25)
    got = fit(data.system(), 1, missing="em")
    got.impute(system, tmp_path / "full.zarr")
    assert set(reads.values()) == {1}
    opened = System.from_zarr(tmp_path / "full.zarr")
    assert opened.design.same_as(system.design)
    assert fit(opened, 1).n_obs == 100
    with xr.open_zarr(tmp_path / "full.zarr") as ds:
        assert ds["Y_variance"].dims == ds["Y"].dims
        assert int((ds["Y_variance"] > 0).sum()) == int(np.isnan(data.Y).sum()) > 0
    with pytest.raises(FileExistsError, match="full"):
        got.impute(system, tmp_path / "full.zarr")
    got.impute(system, tmp_path / "full.zarr", overwrite=True)
    with pytest.raises(TypeError, match="impute fills in the responses of a System; got a CompressedSystem"):
        got.impute(System.from_zarr(tmp_path / "full.zarr").compress(), tmp_path / "no.zarr")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="missing 'y5'"):
        got.impute(simulate("shared", n=50, K=5).system(), tmp_path / "no.zarr")


def test_every_structure_imputes(tmp_path: Path) -> None:
    data = with_holes(simulate("shared", n=150))
    full = fit(data.take(complete(data)).system(), "auto", covariance="full")
    full.impute(data.system(), tmp_path / "full.zarr")
    expected = full.predict_given(data.system()).values
    np.testing.assert_array_equal(System.from_zarr(tmp_path / "full.zarr").rows.y[0].array[:], expected)


# ---------------------------------------------------------------------------------- complete rows only


@ENGINES
@pytest.mark.parametrize(
    "options",
    [{}, {"algorithm": "em"}, {"restrictions": "y0:x1 = 1"}, {"covariance": "full", "rank": "auto"},
     {"algorithm": "fgls", "debiased": True}],
    ids=["als", "em", "restricted", "full", "fgls"],
)  # fmt: skip
@pytest.mark.parametrize("kind", [*(pytest.param(kind, marks=pytest.mark.slow) for kind in ("shared", "own")), "mixed"])
def test_dropping_rows_is_fitting_the_others(
    kind: str, options: dict[str, Any], engine: str, every_chunk: None
) -> None:
    data = with_holes(simulate(kind, n=300, weighted=True), 0.08)
    kept = complete(data)
    chosen: dict[str, Any] = {"rank": 2, "engine": engine} | TIGHT | options
    got = LowRankGLS(missing="drop", **chosen).fit(data.system(dask_rows(70))).result_
    expected = LowRankGLS(**chosen).fit(data.take(kept).system()).result_
    assert (got.n_obs, got.n_dropped) == (len(kept), 300 - len(kept))
    assert f"Rows left out for a missing response: {300 - len(kept)}" in got.summary()
    assert got.loglik == pytest.approx(expected.loglik, rel=1e-10)
    assert_params_close(got, expected, 1e-6)
    np.testing.assert_allclose(got.std_errors.values, expected.std_errors.values, rtol=1e-6, atol=1e-8)


@ENGINES
@pytest.mark.parametrize("kind", ["shared", "own", "mixed"])
def test_every_standard_error_is_of_the_complete_rows(kind: str, engine: str) -> None:
    data = with_holes(simulate(kind, n=300, weighted=True), 0.08)
    kept, groups = complete(data), np.arange(300) // 6
    got = fit(data.system(dask_rows(70), groups=groups), missing="drop", engine=engine)
    expected = fit(data.take(kept).system(groups=groups[kept]), engine=engine)
    for cov in ("classical", "robust", "cluster"):
        np.testing.assert_allclose(got.cov(cov).values, expected.cov(cov).values, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(got.r2, expected.r2, rtol=1e-8)
    assert got.wald_test("*:x1 = 0").statistic == pytest.approx(expected.wald_test("*:x1 = 0").statistic, rel=1e-6)


def test_what_follows_a_fit_of_complete_rows_sees_those_rows(tmp_path: Path) -> None:
    data = with_holes(simulate("mixed", n=300), 0.08)
    kept = complete(data)
    groups = np.arange(300) // 6
    system, subset = data.system(groups=groups), data.take(kept).system(groups=groups[kept])
    got, expected = fit(system, missing="drop"), fit(subset)
    got.to_zarr(tmp_path / "fit.zarr")
    opened = Fit.from_zarr(tmp_path / "fit.zarr")
    assert (opened.missing, opened.n_dropped) == ("drop", 300 - len(kept))
    for kind in ("robust", "cluster", "huber-white"):
        theirs = expected.cov(kind).values
        np.testing.assert_allclose(got.cov(kind).values, theirs, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(opened.cov(kind, system=system).values, theirs, rtol=1e-6, atol=1e-9)
    assert opened.score(system) == pytest.approx(expected.score(subset), rel=1e-9)
    for method in ("parametric", "cluster"):
        theirs = expected.bootstrap(20, method, seed=1).std_errors.values
        np.testing.assert_allclose(got.bootstrap(20, method, seed=1).std_errors.values, theirs, rtol=1e-4)
    assert opened.bootstrap(20, "cluster", seed=1, system=system).n_replicates == 20
    assert opened.bootstrap(20, seed=1, system=system).n_replicates == 20
    assert got.predict(system).shape == got.residuals(system).shape == (300, 6)
    assert LowRankGLS("cv", missing="drop").fit(system).result_.n_dropped == 300 - len(kept)


def test_a_checkpoint_knows_which_rows_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = with_holes(simulate("mixed", n=300), 0.08)
    path = tmp_path / "going.zarr"

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lrgls_dask.model.choose", killed)
    with pytest.raises(KeyboardInterrupt):
        LowRankGLS(2, missing="drop", checkpoint=path).fit(data.system())
    with pytest.raises(ValueError, match="belongs to other data"):
        LowRankGLS(2, checkpoint=path).fit(data.system())


# ---------------------------------------------------------------------------------- what a fit says of itself


CALLS: dict[str, tuple[Any, ...]] = {
    "conf_int": (),
    "coef_table": (),
    "tidy": (),
    "glance": (),
    "cov": (),
    "with_cov": ("observed",),
    "own_cov": (),
    "sigma": (),
    "sigma_std_errors": (),
    "summary": (),
    "mcelroy_r2": (),
    "system_r2": (),
    "breusch_pagan": (),
    "lr_diagonal": (),
    "rank_test": (),
    "bootstrap": (5,),
    "wald_test": ("y0:x1 = 0",),
    "across": ("*:x1 = 0",),
    "to_dataset": (),
    "compressed": (),
}
WITH_ROWS = {"predict", "predict_given", "factor_scores", "residuals", "score"}
ELSEWHERE = {"lr_test", "impute", "to_zarr", "from_zarr", "report", "effects", "r2_within"}  # tests of their own


def test_every_public_member_answers(holes: Data, found: Fit) -> None:
    names = [name for name in dir(Fit) if not name.startswith("_") and name not in Fit.__dataclass_fields__]
    answered = set()
    for name in set(names) - ELSEWHERE:
        asked = getattr(found, name)
        if name in WITH_ROWS:
            np.asarray(asked(holes.system()))
        elif not isinstance(getattr(Fit, name), property | cached_property):
            assert asked(*CALLS[name]) is not None
        answered.add(name)
    assert answered | ELSEWHERE >= set(CALLS) | WITH_ROWS


def test_tests_and_intervals_use_the_rows_of_each_equation(holes: Data, found: Fit) -> None:
    seen = (~np.isnan(holes.Y)).sum(axis=0)
    np.testing.assert_array_equal(found.reference.freedom, seen - found.design.sizes)
    V = found.cov().values
    R = np.zeros(len(V))
    R[[1, 5]] = 1.0, -1.0
    statistic = (R @ found.params.values) ** 2 / (R @ V @ R)
    assert found.wald_test(R).statistic == pytest.approx(statistic, rel=1e-10)
    smaller = fit(holes.system(), 1, missing="em")
    assert found.lr_test(smaller).statistic == pytest.approx(2 * (found.loglik - smaller.loglik))
    other = fit(simulate("mixed", n=found.n_obs).system(), 0)
    with pytest.raises(ValueError, match=f"fits of the same responses; these have .*{found.n_cells:,}"):
        found.lr_test(other)
    interval = found.predict(holes.system(), interval=0.9)
    assert np.isfinite(interval["lower"].values).all()
    assert f"{holes.Y[~np.isnan(holes.Y).all(axis=1)].size - found.n_cells:,} of" in found.summary()
    assert "see mcelroy_r2()" in found._repr_html_()


def test_score_is_the_likelihood_of_what_other_rows_show(found: Fit) -> None:
    other = with_holes(simulate("mixed", n=90, seed=0), 0.3, seed=5)
    shown = int((~np.isnan(other.Y).all(axis=1)).sum())
    expected = dense_loglik(other, found.params.values, found.sigma().values) / shown
    assert found.score(other.system()) == pytest.approx(expected, rel=1e-10)
    full = simulate("mixed", n=90)
    expected = dense_loglik(full, found.params.values, found.sigma().values) / 90
    assert found.score(full.system()) == pytest.approx(expected, rel=1e-10)
    assert found.score(full.system().compress()) == pytest.approx(expected, rel=1e-10)


def test_a_covariance_too_large_to_keep_is_said(holes: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrgls_dask.results.assemble.MAX_COEFFICIENTS", 10)
    got = fit(holes.system(), missing="em")
    with pytest.raises(ValueError, match=r"did not fit: fit again with a larger memory_limit, or fewer equations"):
        _ = got.std_errors
    with pytest.raises(ValueError, match="did not fit"):
        got.predict(holes.system(), interval=0.9)
    assert np.isfinite(got.cov("classical").values).all()
    monkeypatch.setattr("lrgls_dask.missing.covariance.MAX_COEFFICIENTS", 10)
    with pytest.raises(ValueError, match=f"of all {got.n_coefficients} coefficients .* limited to 10"):
        got.cov("observed")


# ---------------------------------------------------------------------------------- plans


def test_a_plan_reads_nothing_and_says_what_decides(holes: Data) -> None:
    system, reads = counted_rows(with_holes(simulate("shared", n=200)), 20)
    plan = LowRankGLS(2, missing="em", memory_limit="100GB").plan(system)
    assert not reads
    assert (plan.engine, plan.most_patterns, plan.keeps_rows, plan.passes) == ("compress", 256, True, 1)
    assert "the rows of at most 256 are compressed, 800 B each, else all rows are held, 15.62 kiB" in str(plan)
    many = System.from_arrays(da.zeros((2_000_000, 6), chunks=(50_000, 6)), da.zeros((2_000_000, 4), chunks=50_000))
    several = LowRankGLS(2, missing="em", memory_limit="100GB").plan(many)
    assert (several.engine, several.keeps_rows, several.passes) == ("compress", False, 11)
    assert "are compressed, 800 B each, else streamed" in str(several)
    assert "once, or about 11 times where more than 256 patterns are found" in str(several)
    streamed = LowRankGLS(2, missing="em", engine="stream", memory_limit="100GB").plan(system)
    assert (streamed.engine, streamed.most_patterns) == ("stream", 0)
    assert "replace 800 B for each pattern" in str(streamed)
    assert streamed.peak < plan.peak
    assert LowRankGLS(2, algorithm="em", engine="stream", memory_limit="100GB").plan(system).passes == 30
    assert LowRankGLS(2, memory_limit="100GB").plan(system).most_patterns is None


def test_less_memory_compresses_fewer_patterns_then_streams_then_refuses() -> None:
    incidence = np.zeros((300, 200), dtype=bool)
    incidence[0] = True
    incidence[np.arange(200) + 1, np.arange(200)] = True
    system = System.from_arrays(np.zeros((5_000, 200)), np.zeros((5_000, 300)), incidence=incidence)
    plans = {}
    whole = LowRankGLS(2, missing="em", memory_limit="500GB").plan(system)
    least = LowRankGLS(2, missing="em", engine="stream").plan(system).peak
    for limit in np.geomspace(whole.peak, least, 30) + 8e6:  # what this process holds changes a little meanwhile
        plan = LowRankGLS(2, missing="em", memory_limit=int(limit)).plan(system)
        plans[plan.most_patterns] = plan.engine
        assert plan.peak <= limit
    assert next(iter(plans)) == whole.most_patterns == 256 and list(plans)[-1] == 0
    assert len(plans) > 2 and plans[0] == "stream"
    with pytest.raises(MemoryError, match=r"engine 'stream' needs .*raise memory_limit to"):
        LowRankGLS(2, missing="em", memory_limit="1MB").plan(system)


# ---------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"missing": "em", "debiased": True}, r"missing='em' does not go with debiased=True\. Use debiased=False"),
        ({"missing": "em", "sigma_step": "pca"}, r"missing='em' does not go with sigma_step='pca'"),
        ({"missing": "mean"}, "missing must be 'raise' or 'em' or 'drop'; got 'mean'"),
        ({"algorithm": "em", "covariance": "full"}, r"algorithm='em' does not go with covariance='full'\. Use alg"),
        ({"algorithm": "em", "debiased": True}, r"algorithm='em' does not go with debiased=True"),
        ({"algorithm": "em", "sigma_step": "pca"}, r"algorithm='em' does not go with sigma_step='pca'"),
        ({"accelerate": False}, r"accelerate=False is for algorithm='em'; got algorithm='als'"),
        ({"algorithm": "ecm"}, "algorithm must be 'als' or 'fgls' or 'em' or 'ols'; got 'ecm'"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LowRankGLS(**options)


def test_accelerate_is_true_or_false() -> None:
    with pytest.raises(TypeError, match="accelerate must be True or False; got 1"):
        LowRankGLS(algorithm="em", accelerate=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("missing", ["em", "drop"])
def test_a_complete_compressed_system_misses_nothing(missing: str) -> None:
    compressed = simulate("own", n=300, k=1).system().compress()
    found = fit(compressed, 1, missing=missing)
    assert_same_bits(found, fit(compressed, 1))
    assert (found.n_dropped, found.missing) == (0, missing)


def spoiled(case: str) -> System:
    data = simulate("own", n=60)
    names = ["food", "rent", "fuel", "cars", "beer", "wine"]
    if case == "never":
        data.Y[:, 2] = np.nan
    elif case == "few":
        data.Y[4:, 5] = np.nan
    elif case == "collinear":
        data.X[20:, data.columns[1][1]] = 2.0
        data.Y[:20, 1] = np.nan
    elif case == "X":
        data.X[7, data.columns[3][1]] = np.nan
        data.Y[0, 0] = np.nan
    elif case == "infinite":
        data.Y[7, 4] = np.inf
    elif case == "pairs":
        for j in range(6):
            data.Y[np.arange(60) % 3 != j // 2, j] = np.nan
    return System.from_arrays(data.Y, data.Xs, equations=names)


@ENGINES
@pytest.mark.parametrize(
    ("case", "error", "message"),
    [
        ("never", ValueError, r"equation 'fuel' is observed in no row\. Leave it out"),
        ("few", ValueError, r"equation 'wine' is observed in 4 rows and has 4 regressors"),
        ("collinear", np.linalg.LinAlgError, r"equation 'rent'.*are collinear"),
        ("X", BadValues, r"X, regressor 'x1\[cars\]': NaN value at row 7"),
        ("infinite", BadValues, r"Y, equation 'beer': infinite value at row 7"),
        ("pairs", ValueError, r"rank 1 has 6 loadings to find, and only 3 pairs of equations"),
    ],
)
def test_data_that_cannot_be_fitted_are_named(case: str, error: type[Exception], message: str, engine: Any) -> None:
    with pytest.raises(error, match=message):
        LowRankGLS(1, missing="em", engine=engine).fit(spoiled(case))


def test_pairs_never_observed_together_are_a_warning() -> None:
    data = simulate("own", n=200, k=1)
    data.Y[:100, 1] = np.nan
    data.Y[100:, 4] = np.nan
    with pytest.warns(FitWarning, match="equations 'y1' and 'y4' are never observed in the same row: ") as seen:
        LowRankGLS(1, missing="em").fit(data.system())
    assert len(seen) == 1 and seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LowRankGLS(0, missing="em").fit(data.system())


def test_refused_missing_values_say_what_would_take_them() -> None:
    with pytest.raises(BadValues, match=r"Y, equation 'y0': NaN value at row 1 .*missing='em'.*missing='drop'"):
        LowRankGLS(1).fit(with_holes(simulate("own", n=60)).system())


# ---------------------------------------------------------------------------------- command line


@pytest.mark.parametrize(("missing", "said"), [("em", "Missing responses: "), ("drop", "Rows left out for a missing")])
def test_the_command_line_fits_what_is_missing(tmp_path: Path, capsys, missing: str, said: str) -> None:
    data = with_holes(simulate("shared", n=200), 0.05)
    data.system().to_zarr(tmp_path / "rows.zarr")
    options = ["--rank", "1", "--missing", missing, "--algorithm", "em"]
    assert main(["plan", str(tmp_path / "rows.zarr"), *options]) == 0
    assert ("patterns of missing responses" in capsys.readouterr().out) == (missing == "em")
    assert main(["fit", str(tmp_path / "rows.zarr"), "--out", str(tmp_path / "fit.zarr"), *options]) == 0
    assert said in capsys.readouterr().out
    assert main(["fit", str(tmp_path / "rows.zarr"), "--out", str(tmp_path / "no.zarr"), "--rank", "1"]) == 1
    assert "missing='em'" in capsys.readouterr().err
