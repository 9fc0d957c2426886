"""Labels whose effects are absorbed, from every container, with every way of naming them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import xarray as xr

from lrgls_dask import Fit, System
from support.absorbed import check_same_fit, fitted, grouped
from support.parquet import written

DATA = grouped()
WANTED = fitted(DATA.system("firm", "year"), rank=0)
FRAME = pd.DataFrame(np.hstack([DATA.Y, DATA.X]), columns=[*(f"y{j}" for j in range(6)), "x0", "x1", "x2"]).assign(
    firm=DATA.firm, year=DATA.year, w=DATA.weights
)
LABELS = FRAME[["firm", "year"]]
FORMULA = " + ".join(f"y{j}" for j in range(6)) + " ~ x0 + x1 + x2"


def dataset(chunks: int | None = None) -> xr.Dataset:
    ds = xr.Dataset(
        {
            "y": (("obs", "equation"), DATA.Y),
            **{f"x{i}": ("obs", DATA.X[:, i]) for i in range(3)},
            "firm": ("obs", DATA.firm),
            "year": ("obs", DATA.year),
        },
        {"equation": [f"y{j}" for j in range(6)]},
    )
    return ds if chunks is None else ds.chunk(obs=chunks)


def from_frame(frame: Any, **options: Any) -> System:
    return System.from_frame(frame, FORMULA, absorb=["firm", "year"], **options)


SYSTEMS = {
    "NumPy": lambda: System.from_arrays(DATA.Y, DATA.X, absorb=[DATA.firm, DATA.year]),
    "Dask": lambda: System.from_arrays(
        da.from_array(DATA.Y, chunks=(50, -1)), da.from_array(DATA.X, chunks=(31, -1)), absorb=LABELS
    ),
    "Dask labels": lambda: System.from_arrays(
        DATA.Y, DATA.X, absorb=[da.from_array(np.unique(DATA.firm, return_inverse=True)[1], chunks=70), DATA.year]
    ),
    "pandas": lambda: System.from_arrays(FRAME.iloc[:, :6], FRAME.iloc[:, 6:9], absorb=LABELS),
    "method": lambda: System.from_arrays(DATA.Y, DATA.X).absorb({"firm": DATA.firm, "year": DATA.year}),
    "categories": lambda: System.from_arrays(DATA.Y, DATA.X).absorb([LABELS["firm"].astype("category"), DATA.year]),
    "xarray": lambda: System.from_xarray(dataset(), "y", ["x0", "x1", "x2"], absorb=["firm", "year"]),
    "xarray in chunks": lambda: System.from_xarray(dataset(40), "y", ["x0", "x1", "x2"], absorb=["firm", "year"]),
    "DataArrays": lambda: System.from_xarray(
        dataset(), "y", ["x0", "x1", "x2"], absorb=[dataset()["firm"], dataset()["year"]]
    ),
    "frame": lambda: from_frame(FRAME),
    "polars": lambda: from_frame(pl.from_pandas(FRAME)),
    "Arrow": lambda: from_frame(pa.Table.from_pandas(FRAME)),
    "Dask frame": lambda: from_frame(dd.from_pandas(FRAME, npartitions=5)),
}


@pytest.mark.parametrize("kind", SYSTEMS)
def test_labels_from_every_container(kind: str) -> None:
    check_same_fit(fitted(SYSTEMS[kind](), rank=0), WANTED)


def test_labels_in_parquet_files(tmp_path: Path) -> None:
    system = System.from_parquet(written(tmp_path / "rows", FRAME, rows=60), FORMULA, absorb=["firm", "year"])
    check_same_fit(fitted(system, rank=0), WANTED)
    with pytest.raises(ValueError, match="sector"):
        System.from_parquet(str(tmp_path / "rows"), FORMULA, absorb="sector")


def test_labels_of_a_store(tmp_path: Any) -> None:
    System.from_arrays(DATA.Y, DATA.X).to_zarr(tmp_path / "s.zarr", row_chunk=33)
    system = System.from_zarr(tmp_path / "s.zarr").absorb(LABELS)
    assert "effects absorbed: 'firm', 'year'" in repr(system)
    check_same_fit(fitted(system, rank=0), WANTED)


def test_labels_go_by_the_labels_of_rows() -> None:
    named = FRAME.set_axis([f"r{i}" for i in range(240)])
    system = System.from_arrays(named.iloc[:, :6], named.iloc[:, 6:9])
    check_same_fit(fitted(system.absorb(named[["firm", "year"]]), rank=0), WANTED)
    with pytest.raises(ValueError, match="r239"):
        system.absorb(named["firm"][::-1])


def test_a_long_frame_absorbs_what_all_cells_of_a_row_have() -> None:
    long = FRAME.reset_index().melt(["index", "x0", "x1", "x2", "firm", "year"], [f"y{j}" for j in range(6)])
    how: dict[str, Any] = {"equation": "variable", "obs": "index"}
    shuffled = long.sample(frac=1, random_state=1)
    fit = fitted(System.from_frame(shuffled, "value ~ x0 + x1 + x2", absorb=["firm", "year"], **how), rank=0)
    check_same_fit(fit, WANTED)
    shuffled.iloc[7, shuffled.columns.get_loc("firm")] = "another"
    with pytest.raises(ValueError, match="absorb 'firm' must be the same for all equations of a row"):
        System.from_frame(shuffled, "value ~ x0 + x1 + x2", absorb="firm", **how)


def test_a_frame_with_weights_categories_and_rows_that_miss_something() -> None:
    frame = FRAME.assign(kind=DATA.kind.astype(str))
    frame.loc[[3, 50], "x1"] = np.nan
    formula = "y0 + y1 ~ x0 + x1 + C(kind)"
    fit = fitted(System.from_frame(frame, formula, absorb="firm", weights="w"), rank=0)
    dummies = fitted(System.from_frame(frame, f"{formula} + C(firm)", weights="w"), rank=0)
    own = [i for i, name in enumerate(dummies.params["regressor"].values) if name in set(fit.regressors)]
    np.testing.assert_allclose(fit.params, dummies.params[own], rtol=1e-9)
    np.testing.assert_allclose(fit.std_errors, dummies.std_errors[own], rtol=1e-9)
    assert fit.n_obs == 238
    assert "Intercept" not in fit.regressors


def test_predictions_residuals_and_effects_are_those_of_dummies() -> None:
    fit, system = fitted(from_frame(FRAME)), from_frame(FRAME)
    dummies = fitted(System.from_frame(FRAME, f"{FORMULA} + C(firm) + C(year)"))
    wanted = dummies.predict(FRAME)
    np.testing.assert_allclose(fit.predict(system), wanted, rtol=1e-9)
    np.testing.assert_allclose(fit.residuals(system), DATA.Y - wanted, atol=1e-9)
    np.testing.assert_allclose(fit.factor_scores(system), dummies.factor_scores(FRAME), atol=1e-7)
    some = FRAME.iloc[[5, 9, 11]].assign(y3=np.nan)
    given = System.from_frame(some, FORMULA, absorb=["firm", "year"], missing="drop")
    found = fit.predict_given(given, observed=["y0", "y1"])
    np.testing.assert_allclose(found, dummies.predict_given(some, observed=["y0", "y1"]), rtol=1e-7)
    effects = fit.effects()
    rows = effects["effect_firm"].sel(firm=DATA.firm).values + effects["effect_year"].sel(year=DATA.year).values
    by_hand = rows + DATA.X @ fit.params.values.reshape(6, 3).T
    np.testing.assert_allclose(by_hand, wanted, rtol=1e-9)


def test_rows_of_groups_that_were_not_fitted_have_no_prediction() -> None:
    fit = fitted(DATA.system("firm"), rank=0)
    labels = np.array(["f001", "unknown"])
    found = fit.predict(System.from_arrays(DATA.Y[:2], DATA.X[:2], absorb={"firm": labels}))
    effect = fit.effects()["effect_firm"].sel(firm="f001").values
    np.testing.assert_allclose(found[0], effect + fit.params.values.reshape(6, 3) @ DATA.X[0], rtol=1e-12)
    assert np.isnan(found[1]).all()


@pytest.mark.parametrize("engine", ["compress", "stream"])
@pytest.mark.parametrize("names", [("firm",), ("firm", "year")])
def test_a_fit_from_disk_knows_what_it_absorbed(engine: Any, names: tuple[str, ...], tmp_path: Any) -> None:
    system = DATA.system(*names)
    fit = fitted(system, engine=engine)
    fit.to_zarr(tmp_path / "fit.zarr")
    opened = Fit.from_zarr(tmp_path / "fit.zarr")
    assert opened.summary() == fit.summary()
    assert (opened.df_resid, opened.bic) == (fit.df_resid, fit.bic)
    xr.testing.assert_identical(opened.effects(), fit.effects())
    np.testing.assert_array_equal(opened.r2_within, fit.r2_within)
    np.testing.assert_array_equal(opened.predict(system), fit.predict(system))
    found = opened.with_cov("robust", system=system).std_errors
    np.testing.assert_array_equal(found, fit.with_cov("robust").std_errors)
    other = DATA.labels(*names)
    other["firm"] = np.roll(other["firm"], 1)
    with pytest.raises(ValueError, match="not the rows that were fitted"):
        opened.with_cov("robust", system=System.from_arrays(DATA.Y, DATA.X, absorb=other))
    other["firm"] = np.where(DATA.firm == "f003", "new", DATA.firm)
    with pytest.raises(ValueError, match="they have other groups"):
        opened.with_cov("robust", system=System.from_arrays(DATA.Y, DATA.X, absorb=other))


def test_a_checkpoint_is_of_these_groups(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint"
    for names in (("firm",), ("firm", "year")):
        for engine in ("compress", "stream"):
            fit = fitted(DATA.system(*names), engine=engine, checkpoint=path)
            check_same_fit(fit, fitted(DATA.system(*names), engine=engine))
            assert not path.exists()
