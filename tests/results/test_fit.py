"""The Fit: labels, inference against dense matrices, prediction, saving, the scikit-learn habits of the estimator."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import sklearn.base
import xarray as xr

from lrgls_dask import Fit, FitWarning, LowRankGLS, System, Termination
from lrgls_dask.design.design import Design
from support.fits import assert_same_bits, fit
from support.systems import dask_rows, simulate, zarr_rows

# random data have Heywood cases now and then; the warning itself is tested elsewhere
pytestmark = pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic variance on d_floor")

KINDS = ["own", "shared", "mixed"]
DATA = simulate("mixed", n=120)
NAMES = ["NoDur", "Durbl", "Manuf", "Enrgy", "HiTec", "Telcm"]


@pytest.fixture(scope="module")
def found() -> Fit:
    return fit(DATA.system(equations=NAMES))


# ---------------------------------------------------------------------------------- labels


def test_every_array_has_the_users_labels(found: Fit) -> None:
    assert found.params.dims == ("coefficient",)
    assert found.params["equation"].values.tolist() == np.repeat(NAMES, [len(c) for c in DATA.columns]).tolist()
    assert found.params["regressor"].values.tolist() == [f"x{i}" for c in DATA.columns for i in c]
    assert found.loadings.dims == ("equation", "factor")
    assert found.loadings["factor"].values.tolist() == [1, 2]
    assert found.idio_var.dims == ("equation",)
    assert found.sigma().dims == ("equation", "equation_other")
    for array in (found.loadings, found.idio_var, found.sigma()):
        assert array["equation"].values.tolist() == NAMES
    assert found.cov().dims == ("coefficient", "coefficient_other")
    assert found.conf_int().dims == ("coefficient", "bound")
    assert found.conf_int()["bound"].values.tolist() == ["low", "high"]
    chosen = found.params.set_index(coefficient=["equation", "regressor"]).sel(equation="HiTec", regressor="x0")
    assert chosen.item() == found.coefficients[found.design.offsets[4]]


def test_labels_of_an_xarray_dataset_come_back() -> None:
    time = pd.date_range("2001-01-31", periods=120, freq="ME")
    ds = xr.Dataset(
        {
            "ret": (("time", "industry"), DATA.Y),
            "one": ("time", np.ones(120)),
            "lag": (("time", "industry"), DATA.X[:, 2:]),
        },
        coords={"time": time, "industry": NAMES},
    )
    system = System.from_xarray(ds.chunk(time=50), "ret", ["one", "lag"], obs="time", equation="industry")
    found = fit(system)
    fitted = found.predict(system)
    assert fitted.dims == ("time", "industry")
    assert fitted.indexes["time"].equals(time)
    assert fitted["industry"].values.tolist() == NAMES
    b = found.params.set_index(coefficient=["equation", "regressor"])
    by_hand = b.sel(regressor="one").values + ds["lag"].values * b.sel(regressor="lag").values
    np.testing.assert_allclose(fitted.values, by_hand, rtol=1e-12)
    np.testing.assert_allclose(found.residuals(system).values, DATA.Y - by_hand, atol=1e-12)


def test_a_fit_is_frozen(found: Fit) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.loglik = 0.0
    for array in (found.params, found.loadings, found.idio_var):
        with pytest.raises(ValueError, match="read-only"):
            array.values[0] = 1.0


# ---------------------------------------------------------------------------------- inference


@pytest.mark.parametrize("lam_B", [0.0, 5.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_covariances_are_those_of_dense_inverses(kind: str, weighted: bool, lam_B: float) -> None:
    data = simulate(kind, n=50, K=5, k=1, weighted=weighted, unit=3.0)
    made, dense = fit(data.system(), rank=1, lam_B=lam_B), data.dense(lam_B=lam_B)
    expected = dense.cov(made.sigma().values)
    size = np.sqrt(np.outer(expected.diagonal(), expected.diagonal()))
    assert np.abs((made.cov().values - expected) / size).max() < 1e-9
    np.testing.assert_allclose(made.std_errors.values, np.sqrt(expected.diagonal()), rtol=1e-9)
    for j in (0, 3):
        mine = slice(dense.edges[j], dense.edges[j + 1])
        own = made.cov(equation=f"y{j}")
        assert np.abs((own.values - expected[mine, mine]) / size[mine, mine]).max() < 1e-9
        assert set(own["equation"].values) == {f"y{j}"}


def test_streamed_fits_know_the_same_covariances() -> None:
    for kind in KINDS:
        data = simulate(kind)
        streamed = fit(data.system(dask_rows(50)), engine="stream")
        np.testing.assert_allclose(streamed.cov().values, fit(data.system()).cov().values, rtol=1e-6, atol=1e-10)


def test_tests_and_intervals(found: Fit) -> None:
    freedom = 120 - np.repeat([len(c) for c in DATA.columns], [len(c) for c in DATA.columns])
    t = found.params.values / found.std_errors.values
    np.testing.assert_allclose(found.tvalues.values, t, rtol=1e-14)
    np.testing.assert_allclose(found.pvalues.values, 2 * scipy.stats.t.cdf(-np.abs(t), freedom), rtol=1e-10)
    for alpha in (0.05, 0.32):
        half = scipy.stats.t.ppf(1 - alpha / 2, freedom) * found.std_errors.values
        interval = found.conf_int(alpha)
        np.testing.assert_allclose(interval.sel(bound="low").values, found.params.values - half, rtol=1e-12)
        np.testing.assert_allclose(interval.sel(bound="high").values, found.params.values + half, rtol=1e-12)
    table = found.coef_table()
    assert list(table.columns) == ["coef", "std_err", "t", "p", "low", "high"]
    assert table.index.names == ["equation", "regressor"]
    assert table.loc[("Manuf", "x0"), "std_err"] == found.std_errors.values[found.design.offsets[2]]


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, True, np.nan])
def test_levels_that_are_none(found: Fit, alpha: float) -> None:
    with pytest.raises(ValueError, match=f"alpha must lie between 0 and 1, both excluded; got {alpha}"):
        found.conf_int(alpha)


def test_an_equation_that_is_not_there(found: Fit) -> None:
    with pytest.raises(KeyError, match=r"no equation 'Utils'; the first are .'NoDur', 'Durbl'"):
        found.cov(equation="Utils")


def test_likelihood_and_criteria(found: Fit) -> None:
    dense, k = DATA.dense(), 2
    sigma = found.loadings.values @ found.loadings.values.T + np.diag(found.idio_var.values)
    np.testing.assert_allclose(found.sigma().values, sigma, rtol=1e-14)
    np.testing.assert_allclose(found.nll, dense.nll(found.params.values, sigma), rtol=1e-12)
    np.testing.assert_allclose(found.loglik, -120 * found.nll, rtol=1e-14)
    count = found.n_coefficients + 6 * k + 6 - k * (k - 1) // 2
    assert found.n_parameters == count
    np.testing.assert_allclose(found.aic, -2 * found.loglik + 2 * count, rtol=1e-14)
    np.testing.assert_allclose(found.bic, -2 * found.loglik + np.log(120) * count, rtol=1e-14)
    np.testing.assert_allclose(found.trace["nll"].iloc[-1], found.nll, rtol=1e-13)


def test_loadings_follow_the_stated_normalisation(found: Fit) -> None:
    F, d = found.loadings.values, found.idio_var.values
    product = F.T @ (F / d[:, None])
    np.testing.assert_allclose(product, np.diag(product.diagonal()), atol=1e-10 * product.max())
    assert (np.diff(product.diagonal()) < 0).all()
    assert (F[np.abs(F).argmax(axis=0), [0, 1]] > 0).all()


# ---------------------------------------------------------------------------------- text


def test_the_summary_says_what_was_fitted(found: Fit) -> None:
    text = found.summary()
    for words in (
        "Observations:    120", "Equations:       6", "Factors (rank):  2", f"Log-likelihood:  {found.loglik:.6g}",
        "compress, 1 pass over the data", "converged after", "95% low", *NAMES,
    ):  # fmt: skip
        assert words in text
    first = found.coef_table().iloc[0]
    line = next(line for line in text.splitlines() if line.startswith("  x0 "))
    assert line.split() == [
        "x0", f"{first['coef']:.5g}", f"{first['std_err']:.5g}", f"{first['t']:.2f}", f"{first['p']:.3f}",
        f"{first['low']:.5g}", f"{first['high']:.5g}",
    ]  # fmt: skip
    assert "90% low" in found.summary(alpha=0.1)
    short = found.summary(max_rows=10)
    assert re.search(r"Shown: \d of 6 equations, evenly spaced\. The other \d+ coefficients", short)
    assert len(short.splitlines()) < len(text.splitlines())
    assert repr(found).startswith(f"<Fit: 6 equations, {found.n_coefficients} coefficients, rank 2, 120 rows")


# ---------------------------------------------------------------------------------- prediction


@pytest.mark.parametrize("wrap", [np.asarray, dask_rows(17), zarr_rows(17)], ids=["numpy", "dask", "zarr"])
def test_prediction_is_lazy_and_right_for_any_storage(found: Fit, wrap: Any) -> None:
    new = simulate("mixed", n=90, seed=9)
    system = new.system(wrap, equations=NAMES)
    fitted, left = found.predict(system), found.residuals(system)
    assert isinstance(fitted.data, da.Array)
    assert isinstance(left.data, da.Array)
    expected = new.Y - new.dense().residuals(found.params.values)
    np.testing.assert_allclose(fitted.values, expected, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(left.values, new.Y - expected, rtol=1e-11, atol=1e-11)
    assert (fitted.dtype, fitted.dims) == (np.float64, ("obs", "equation"))


def test_prediction_wants_the_same_designs(found: Fit) -> None:
    with pytest.raises(ValueError, match=r"do not match the fit: equations missing 'NoDur', 'Durbl', .*, extra 'y0', "):
        found.predict(DATA.system())
    with pytest.raises(ValueError, match="do not match the fit"):
        found.predict(simulate("shared").system(equations=NAMES))


@pytest.mark.parametrize("compressed", [False, True])
def test_score_is_the_mean_loglikelihood_of_other_rows(compressed: bool) -> None:
    new = simulate("mixed", n=90, seed=9, weighted=True)
    model = LowRankGLS(2).fit(DATA.system())
    system = new.system().compress() if compressed else new.system(dask_rows(20))
    expected = -new.dense().nll(model.result_.params.values, model.result_.sigma().values)
    np.testing.assert_allclose(model.score(system), expected, rtol=1e-11)
    np.testing.assert_allclose(model.score(DATA.system()), model.result_.loglik / 120, rtol=1e-12)


# ---------------------------------------------------------------------------------- files


def assert_same_part(one: Any, other: Any, name: str) -> None:
    """Every field of a part and of what it holds, to the last bit."""
    assert type(one) is type(other), name
    if isinstance(one, Design):
        assert one.same_as(other), name
    elif dataclasses.is_dataclass(one):
        for each in dataclasses.fields(one):
            assert_same_part(getattr(one, each.name), getattr(other, each.name), f"{name}.{each.name}")
    elif isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other, err_msg=name)
    else:
        assert one == other, name


def test_a_saved_fit_comes_back_to_the_last_bit(tmp_path: Path, found: Fit) -> None:
    for name, made in (
        ("plain", found),
        ("zero", fit(DATA.system(), rank=0)),
        ("stream", fit(DATA.system(), engine="stream")),
    ):
        made.to_zarr(tmp_path / name)
        back = Fit.from_zarr(tmp_path / name)
        assert_same_bits(back, made)
        for part in ("estimated", "one_sigma", "settings", "run", "evidence", "behind_errors"):
            assert_same_part(getattr(back, part), getattr(made, part), part)
        np.testing.assert_array_equal(back.r2.values, made.r2.values)
        np.testing.assert_array_equal(back.adj_r2.values, made.adj_r2.values)
        pd.testing.assert_frame_equal(back.trace, made.trace)
        assert back.summary() == made.summary()
        np.testing.assert_array_equal(back.cov().values, made.cov().values)


def test_plain_xarray_opens_a_saved_fit_and_nothing_is_pickled(tmp_path: Path, found: Fit) -> None:
    found.to_zarr(tmp_path / "fit.zarr")
    ds = xr.open_zarr(tmp_path / "fit.zarr", consolidated=False)
    np.testing.assert_array_equal(ds["params"].values, found.params.values)
    np.testing.assert_array_equal(ds["loadings"].values, found.loadings.values)
    assert ds["loadings"].dims == ("equation", "factor")
    assert ds["equation"].values.tolist() == NAMES
    assert ds.attrs["termination"] == "converged"
    files = [path for path in (tmp_path / "fit.zarr").rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        assert b"pickle" not in path.read_bytes().lower()
        assert not path.read_bytes().startswith(b"\x80\x05")


def test_a_saved_fit_is_not_overwritten_by_accident(tmp_path: Path, found: Fit) -> None:
    found.to_zarr(tmp_path / "fit.zarr")
    other = fit(DATA.system(), rank=1)
    with pytest.raises(
        FileExistsError, match=re.escape("fit.zarr exists. Choose another path, or pass overwrite=True.")
    ):
        other.to_zarr(tmp_path / "fit.zarr")
    assert Fit.from_zarr(tmp_path / "fit.zarr").rank == 2
    other.to_zarr(tmp_path / "fit.zarr", overwrite=True)
    assert Fit.from_zarr(tmp_path / "fit.zarr").rank == 1
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"notes\.txt exists and is no zarr store, so it is not replaced"):
        other.to_zarr(tmp_path / "notes.txt", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fit.zarr", "notes.txt"]


def test_what_is_no_saved_fit(tmp_path: Path, found: Fit) -> None:
    DATA.system().to_zarr(tmp_path / "rows.zarr")
    with pytest.raises(ValueError, match=r"rows\.zarr is a zarr group but no stored fit"):
        Fit.from_zarr(tmp_path / "rows.zarr")
    with pytest.raises(FileNotFoundError, match=r"no zarr store at .*none"):
        Fit.from_zarr(tmp_path / "none.zarr")
    found.to_zarr(tmp_path / "fit.zarr")
    marked = tmp_path / "fit.zarr" / "zarr.json"
    marked.write_text(re.sub(r'"lrgls_fit_format": \d+', '"lrgls_fit_format": 99', marked.read_text()))
    with pytest.raises(ValueError, match=r"has lrgls_fit_format 99 but this lrgls_dask reads \d+\. Upgrade lrgls_dask"):
        Fit.from_zarr(tmp_path / "fit.zarr")


# ---------------------------------------------------------------------------------- ending, choosing


def test_the_trace_tells_every_half_step(found: Fit) -> None:
    trace = found.trace
    columns = {"rank", "sweep", "step", "nll", "obj", "accept_t", "cg_iterations", "passes", "bytes_read", "seconds"}
    assert columns <= set(trace.columns)
    assert trace["step"].tolist()[:3] == ["start", "sigma", "beta"]
    assert trace["sweep"].iloc[-1] == found.n_sweeps
    assert set(trace["passes"]) == {1}
    assert (trace.loc[trace["step"] == "beta", "cg_iterations"] >= 0).all()
    assert trace["cg_iterations"].sum() > 0
    assert trace["seconds"].is_monotonic_increasing


def test_endings() -> None:
    system = DATA.system()
    assert LowRankGLS(2).fit(system).result_.termination is Termination.CONVERGED
    with pytest.warns(FitWarning, match="not converged after 1 sweep: raise max_sweeps") as caught:
        short = LowRankGLS(2, max_sweeps=1).fit(system).result_
    assert len(caught) == 1
    assert short.termination is Termination.MAX_SWEEPS
    assert short.n_sweeps == 1
    with pytest.warns(FitWarning, match="stalled: no step of the factor update lowered the objective") as caught:
        stalled = LowRankGLS(2, sigma_step="pca", rel_tol=1e-16, max_sweeps=500).fit(system).result_
    assert len(caught) == 1
    assert stalled.termination is Termination.STALLED
    # also when the loop is cut short, coefficients are those of the reported Sigma
    for made in (short, stalled):
        dense = DATA.dense()
        se = made.std_errors.values
        assert np.abs((made.params.values - dense.gls(made.sigma().values)) / se).max() < 1e-7


def test_the_rank_with_the_least_bic_is_chosen() -> None:
    data = simulate("shared", n=400, K=9, k=2)
    model = LowRankGLS("bic").fit(data.system())
    table = model.result_.selection
    assert table.index.tolist() == [1, 2, 3, 4]
    assert table["bic"].idxmin() == model.rank_ == model.result_.rank == 2
    for rank, row in table.iterrows():
        alone = LowRankGLS(int(rank)).fit(data.system()).result_
        np.testing.assert_allclose(
            row[["loglik", "aic", "bic"]].astype(float), [alone.loglik, alone.aic, alone.bic], rtol=1e-7
        )
        assert row["n_parameters"] == alone.n_parameters
    assert fit(data.system()).selection is None


@pytest.mark.parametrize(("K", "auto", "bic"), [(1, 0, [0]), (2, 0, [0]), (3, 1, [1]), (11, 2, [1, 2, 3, 4, 5])])
def test_ranks_follow_the_number_of_equations(K: int, auto: int, bic: list[int]) -> None:
    data = simulate("shared", K=K, k=1, n=100)
    assert LowRankGLS()._candidates(K) == (auto,)
    assert LowRankGLS("bic")._candidates(K) == tuple(bic)
    assert LowRankGLS(max_sweeps=1000).fit(data.system()).rank_ == auto


def test_several_starts_are_tried_and_counted(found: Fit) -> None:
    assert found.n_starts >= 3
    assert 1 <= found.n_agreed <= found.n_starts
    assert f"{found.n_agreed} of {found.n_starts} reached this optimum" in found.summary()


# ---------------------------------------------------------------------------------- scikit-learn habits


def test_parameters_can_be_read_set_and_cloned() -> None:
    model = LowRankGLS(3, lam_B=0.5, engine="stream")
    assert model.get_params()["lam_B"] == 0.5
    copy = sklearn.base.clone(model)
    assert copy is not model
    assert copy.get_params() == model.get_params()
    assert model.set_params(rank="bic", lam_F=0.1) is model
    assert (model.rank, model.lam_F, copy.rank) == ("bic", 0.1, 3)
    assert repr(copy) == "LowRankGLS(rank=3, engine='stream', lam_B=0.5)"
    assert eval(repr(copy), {"LowRankGLS": LowRankGLS}).get_params() == copy.get_params()


def test_what_was_learned_ends_in_an_underscore() -> None:
    model = LowRankGLS(1, max_sweeps=200)
    assert model.fit(simulate("mixed", k=1).system()) is model
    assert model.params_ is model.result_.params
    assert model.rank_ == 1
    assert model.plan_.engine == model.result_.engine == "compress"
