"""Laws of rows with holes, for every structure of Sigma, algorithm, engine and container: what says nothing changes
nothing, and one hole more or fewer gives the dense likelihood of what is left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from distributed import Client, LocalCluster

from lrgls_dask import BlockLowRank, GroupedLowRank, Known, LowRankGLS, SparseLowRank, System, TimeVarying
from support.incomplete import dense_loglik, with_an_empty_row, with_holes
from support.systems import Data, dask_rows, simulate, zarr_rows

N, K = 120, 6
DATA = simulate("own", n=N, k=1, seed=1)
SIGMA = np.eye(K) + 0.5
GROUPS = {f"y{j}": "aabbcc"[j] for j in range(K)}
MODELS: dict[str, dict[str, Any]] = {
    "lowrank": {"rank": 1},
    "em": {"rank": 1, "algorithm": "em"},
    "bic": {"rank": "bic", "ranks": [0, 1, 2]},
    "diagonal": {"covariance": "diagonal"},
    "full": {"covariance": "full"},
    "sparse": {"covariance": SparseLowRank(1, l1=0.02)},
    "grouped": {"covariance": GroupedLowRank(1, GROUPS, group_rank=0)},
    "blocks": {"covariance": BlockLowRank(0, GROUPS)},
    "known": {"covariance": Known(SIGMA)},
    "ols": {"rank": 1, "algorithm": "ols"},
    "fgls": {"covariance": "full", "algorithm": "fgls"},
}
EVERY_MODEL = pytest.mark.parametrize("name", MODELS)
EVERY_ROAD = pytest.mark.parametrize(
    ("name", "engine"),
    [*((name, "auto") for name in MODELS), *((name, "stream") for name in ("lowrank", "full", "fgls"))],
)
ENGINES = pytest.mark.parametrize("engine", ["auto", "stream"])
pytestmark = pytest.mark.filterwarnings("ignore:LowRankGLS.")  # of variances on their floor; fits converge elsewhere


def fitted(system: System, name: str, **options: Any) -> Any:
    return LowRankGLS(missing="em", **(MODELS[name] | options)).fit(system).result_


def assert_same(found: Any, wanted: Any, *, bits: bool, kinds: tuple[str, ...] = ("robust",)) -> None:
    """Estimates, standard errors and what a pass over the rows gives."""
    assert found.n_obs == wanted.n_obs
    said = {
        "params": lambda fit: fit.params,
        "std_errors": lambda fit: fit.std_errors,
        "sigma": lambda fit: fit.sigma(),
        "loglik": lambda fit: fit.loglik,
    } | {kind: lambda fit, kind=kind: fit.cov(kind) for kind in kinds}
    for what, of in said.items():
        mine, theirs = np.asarray(of(found)), np.asarray(of(wanted))
        if bits:
            np.testing.assert_array_equal(mine, theirs, err_msg=what)
        else:
            np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-7 * np.abs(theirs).max(), err_msg=what)


# ---------------------------------------------------------------------------------- a row without any observation


@EVERY_ROAD
def test_a_row_that_shows_nothing_changes_nothing_of_rows_with_holes(name: str, engine: str) -> None:
    """No bit where the rows are in memory, streamed no more than rounding."""
    data = with_holes(DATA, 0.1)
    more = with_an_empty_row(data)
    wanted, found = (fitted(each.system(), name, engine=engine) for each in (data, more))
    assert_same(found, wanted, bits=engine == "auto")
    np.testing.assert_array_equal(found.cells, wanted.cells)
    assert found.score(more.system()) == pytest.approx(wanted.score(data.system()), rel=1e-12)


@EVERY_MODEL
def test_a_row_that_shows_nothing_changes_no_bit_of_complete_rows(name: str) -> None:
    """Complete rows are fitted as such, whatever empty rows there are beside them."""
    more = with_an_empty_row(DATA)
    found = fitted(more.system(), name)
    assert_same(found, fitted(DATA.system(), name), bits=True, kinds=())
    plain = LowRankGLS(**MODELS[name]).fit(DATA.system()).result_
    assert_same(found, plain, bits=True, kinds=())
    assert found.cells is None and found.n_patterns == 0
    if name not in ("sparse", "grouped"):
        np.testing.assert_allclose(found.cov("robust"), plain.cov("robust"), rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(
            found.cov("robust", system=more.system()), plain.cov("robust"), rtol=1e-10, atol=1e-14
        )


@pytest.mark.parametrize("name", ["lowrank", "full", "em", "bic"])
def test_empty_rows_beside_complete_ones_that_are_streamed(name: str) -> None:
    more = with_an_empty_row(DATA)
    found = fitted(more.system(dask_rows(50)), name, engine="stream")
    assert_same(found, fitted(DATA.system(dask_rows(50)), name, engine="stream"), bits=False)
    assert found.run.engine == "stream" and found.n_patterns == 0


# ---------------------------------------------------------------------------------- an equation without any observation


def with_a_silent_equation(data: Data) -> Data:
    """One more, between the others' regressors and its own, that no row shows."""
    nothing = np.full((len(data.Y), 1), np.nan)
    own = data.X.shape[1] + np.arange(2)
    more = np.column_stack([data.X, np.random.default_rng(5).normal(size=(len(data.Y), 1)), nothing])
    return replace(data, Y=np.column_stack([data.Y, nothing]), X=more, columns=(*data.columns, own))


@EVERY_ROAD
@pytest.mark.parametrize("holes", [False, True], ids=["complete", "holes"])
def test_an_equation_without_observations_changes_nothing(holes: bool, name: str, engine: str) -> None:
    data = with_holes(DATA, 0.1) if holes else DATA
    options = dict(MODELS[name])
    if name in ("grouped", "blocks"):
        groups = GROUPS | {"y6": "c"}
        options["covariance"] = BlockLowRank(0, groups) if name == "blocks" else GroupedLowRank(1, groups, 0)
    if name == "known":
        options["covariance"] = Known(np.eye(K + 1) + 0.5)
    wanted = fitted(data.system(), name, engine=engine)
    found = fitted(with_a_silent_equation(data).system(), name, engine=engine, unusable="skip", **options)
    assert found.status.values.tolist() == ["ok"] * K + ["no rows"]
    assert found.n_obs == wanted.n_obs and found.loglik == pytest.approx(wanted.loglik, rel=1e-10)
    for what in ("params", "std_errors"):
        mine, theirs = np.asarray(getattr(found, what)), np.asarray(getattr(wanted, what))
        assert np.isnan(mine[len(theirs) :]).all()
        np.testing.assert_allclose(mine[: len(theirs)], theirs, rtol=1e-9, atol=1e-10, err_msg=what)
    np.testing.assert_allclose(found.sigma()[:K, :K], wanted.sigma(), rtol=1e-9, atol=1e-10)
    assert np.isnan(found.sigma()[K]).all()


@pytest.mark.parametrize("holes", [False, True], ids=["complete", "holes"])
def test_digits_that_cross_products_lose_are_read_again(holes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows by cross-products whose columns nearly agree: the second pass leaves out what shows nothing too."""
    monkeypatch.setattr("lrgls_dask.compression.compressed.SMALL_FLOPS", 0)
    X = DATA.X.copy()
    X[:, 1] = 1e6 + X[:, 1]
    X[:, 3] = X[:, 1] + 1e-3 * X[:, 3]
    data = Data("shared", DATA.Y, X[:, [0, 1, 3]], (np.arange(3),) * K)
    data = with_holes(data, 0.1, n_patterns=3) if holes else data
    found = fitted(with_an_empty_row(data).system(), "lowrank")
    wanted = fitted(data.system(), "lowrank")
    np.testing.assert_allclose(found.predict(data.system()), wanted.predict(data.system()), rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------------------------- what nobody asks for


@EVERY_ROAD
def test_what_unused_regressors_hold_changes_no_bit(name: str, engine: str) -> None:
    data = with_an_empty_row(with_holes(DATA, 0.1))
    first: Any = None
    for fill in (np.nan, 0.0, -1e9, 1e300):
        X = data.X.copy()
        for j, columns in enumerate(data.columns):
            X[np.ix_(np.isnan(data.Y[:, j]), columns)] = fill
        found = fitted(replace(data, X=X).system(), name, engine=engine)
        first = found if first is None else first
        assert np.isfinite(found.params).all()
        assert_same(found, first, bits=True)


@pytest.mark.parametrize("bandwidth", [0.0, 2.0])
def test_so_it_does_where_factors_drift(bandwidth: float) -> None:
    data, segments = with_an_empty_row(with_holes(DATA, 0.1)), np.append(np.arange(N) // 60, 1)
    fits = []
    for fill in (np.nan, -1e9):
        X = data.X.copy()
        for j, columns in enumerate(data.columns):
            X[np.ix_(np.isnan(data.Y[:, j]), columns)] = fill
        system = replace(data, X=X).system()
        fits.append(LowRankGLS(covariance=TimeVarying(1, segments, bandwidth), missing="em").fit(system).result_)
    np.testing.assert_array_equal(fits[0].params, fits[1].params)
    np.testing.assert_array_equal(fits[0].loadings, fits[1].loadings)
    np.testing.assert_array_equal(fits[0].cov("robust"), fits[1].cov("robust"))


# ---------------------------------------------------------------------------------- one hole more


@ENGINES
@pytest.mark.parametrize("name", ["lowrank", "diagonal", "full", "blocks", "known"])
def test_every_hole_leaves_the_dense_likelihood_of_the_others(name: str, engine: str) -> None:
    """From complete rows to eight holes, one by one: the value, and that no step of any parameter raises it."""
    rng = np.random.default_rng(2)
    cells = [divmod(int(cell), K) for cell in rng.choice(N * K, 8, replace=False)]
    Y, before = DATA.Y.copy(), np.inf
    for number in (0, 1, 8):
        for row, equation in cells[:number]:
            Y[row, equation] = np.nan
        data = replace(DATA, Y=Y)
        found = fitted(data.system(), name, engine=engine, rel_tol=1e-12)
        b, sigma = found.params.values, found.sigma().values
        assert found.loglik == pytest.approx(dense_loglik(data, b, sigma), rel=1e-11)
        assert number == 0 or found.cells.sum() == N * K - number
        for step in 1e-3 * found.std_errors.values * np.eye(len(b)):
            ends = dense_loglik(data, b + step, sigma), dense_loglik(data, b - step, sigma)
            assert abs(ends[0] - ends[1]) < 1e-6  # a slope of 5e-4 a standard error
        if name != "known":
            ends = dense_loglik(data, b, sigma * 1.0001), dense_loglik(data, b, sigma / 1.0001)
            assert abs(ends[0] - ends[1]) < 1e-5
        assert found.loglik != before
        before = found.loglik


# ---------------------------------------------------------------------------------- containers, workers


def stored(data: Data, path: Path) -> System:
    data.system(zarr_rows(50)).to_zarr(path, row_chunk=50)
    return System.from_zarr(path)


def labelled(data: Data) -> xr.Dataset:
    names = {"time": pd.date_range("2001-01-01", periods=len(data.Y)), "equation": [f"y{j}" for j in range(K)]}
    return xr.Dataset({"Y": (("time", "equation"), data.Y), "X": (("time", "name"), data.X[:, :3])}, names)


@ENGINES
@pytest.mark.parametrize("name", ["lowrank", "full"])
@pytest.mark.parametrize("holes", [False, True], ids=["complete", "holes"])
def test_every_container_says_the_same(holes: bool, name: str, engine: str, tmp_path: Path) -> None:
    data = Data("shared", DATA.Y, DATA.X[:, [0, 1, 3]], (np.arange(3),) * K)
    data = with_an_empty_row(with_holes(data, 0.1) if holes else data)
    frames = pd.DataFrame(data.Y), pd.DataFrame(data.X)
    systems = {
        "numpy": data.system(),
        "dask": data.system(dask_rows(50)),
        "zarr": stored(data, tmp_path / "rows.zarr"),
        "pandas": System.from_arrays(*frames),
        "xarray": System.from_xarray(labelled(data), "Y", ["X"], obs="time"),
        "chunked xarray": System.from_xarray(labelled(data).chunk(time=40), "Y", ["X"], obs="time"),
    }
    first: Any = None
    for system in systems.values():
        found = fitted(system, name, engine=engine, rel_tol=1e-12)
        first = found if first is None else first
        assert_same(found, first, bits=False)


@pytest.mark.usefixtures("every_chunk")
@ENGINES
def test_two_processes_give_the_same_bits(cluster: LocalCluster, engine: str) -> None:
    data = with_an_empty_row(with_holes(DATA, 0.1))
    here = {name: fitted(data.system(zarr_rows(25)), name, engine=engine) for name in ("lowrank", "full")}
    robust = {name: each.cov("robust") for name, each in here.items()}
    with Client(cluster) as client:
        client.wait_for_workers(2)
        for name, wanted in here.items():
            found = fitted(data.system(zarr_rows(25)), name, engine=engine)
            assert_same(found, wanted, bits=True, kinds=())
            np.testing.assert_array_equal(found.cov("robust"), robust[name])
