"""Equations that cannot be estimated are skipped beside effects that are absorbed as they are without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from zarr.storage import MemoryStore

from lrgls_dask import CompressedSystem, Fit, LowRankGLS, System
from support.absorbed import TIGHT, fitted, grouped
from support.counted import CountingStore

DATA = grouped()
FIRM = np.unique(DATA.firm, return_inverse=True)[1].astype(float)
BAD = {
    "nothing": np.full(240, np.nan),
    "zero": np.zeros(240),
    "of the firm": FIRM,
    "short": np.where(np.arange(240) < 10, DATA.Y[:, 0], np.nan),
}
STATUS = ["ok", "ok", "no rows", "ok", "constant", "ok", "constant", "ok", "too few rows (10 of 11)", "ok"]
GOOD = iter(DATA.Y.T)
BETWEEN = iter(BAD.values())
ALL = np.column_stack([next(GOOD) if said == "ok" else next(BETWEEN) for said in STATUS])
OK = np.array(STATUS) == "ok"
ENGINES = ("compress", "stream")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("names", [("firm",), ("firm", "year")])
@pytest.mark.parametrize("missing", ["raise", "drop"])
def test_the_others_are_fitted_as_if_alone(engine: Any, names: tuple[str, ...], missing: Any, tmp_path: Path) -> None:
    system, alone = System.from_arrays(ALL, DATA.X, absorb=DATA.labels(*names)), DATA.system(*names)
    fit = fitted(system, unusable="skip", engine=engine, missing=missing)
    wanted = fitted(alone, engine=engine)
    assert fit.status.values.tolist() == STATUS
    for name in ("params", "std_errors", "r2"):
        values, of_all = np.asarray(getattr(wanted, name)), np.asarray(getattr(fit, name))
        np.testing.assert_allclose(of_all[~np.isnan(of_all)], values, rtol=1e-9, err_msg=name)
    assert fit.df_resid == wanted.df_resid
    for label in names:
        effects = fit.effects()[f"effect_{label}"].values
        np.testing.assert_allclose(effects[:, OK], wanted.effects()[f"effect_{label}"], rtol=1e-7, atol=1e-9)
        assert np.isnan(effects[:, ~OK]).all()
    np.testing.assert_allclose(np.asarray(fit.predict(system))[:, OK], fit_rows(wanted, alone), rtol=1e-9)
    robust = fit.with_cov("robust").std_errors.values
    np.testing.assert_allclose(robust[~np.isnan(robust)], wanted.with_cov("robust").std_errors, rtol=1e-9)
    how: dict[str, Any] = {"method": "cluster", "groups": np.arange(240) // 8, "seed": 1}
    draws = fit.bootstrap(3, **how).draws.params
    np.testing.assert_allclose(draws[:, ~np.isnan(draws[0])], wanted.bootstrap(3, **how).draws.params, rtol=1e-5)
    fit.to_zarr(tmp_path / "fit.zarr")
    opened = Fit.from_zarr(tmp_path / "fit.zarr")
    np.testing.assert_array_equal(np.asarray(opened.predict(system)), np.asarray(fit.predict(system)))
    np.testing.assert_allclose(fit.score(system), wanted.loglik / 240, rtol=1e-10)


def fit_rows(fit: Fit, system: System) -> np.ndarray:
    return np.asarray(fit.predict(system))


def test_cuts_never_show(every_chunk: None) -> None:
    fit = fitted(System.from_arrays(ALL, DATA.X, absorb=DATA.firm), unusable="skip")
    assert fit.status.values.tolist() == STATUS


def test_weights_of_zero_are_no_rows() -> None:
    weights = np.where(FIRM == 2, 0.0, 1.0)
    Y = np.column_stack([DATA.Y[:, :2], np.where(FIRM == 2, DATA.Y[:, 2], 3.0 * FIRM)])
    fit = fitted(System.from_arrays(Y, DATA.X, absorb=DATA.firm, weights=weights), rank=0, unusable="skip")
    assert fit.status.values.tolist() == ["ok", "ok", "constant"]


def test_a_compressed_system_knows_what_the_effects_left() -> None:
    kept = [0, 1, 3, 4, 5, 6, 7, 9]
    system = System.from_arrays(ALL[:, kept], DATA.X, absorb=DATA.firm).compress()
    assert isinstance(system, CompressedSystem)
    fit = fitted(system, unusable="skip")
    assert fit.status.values.tolist() == [STATUS[i] for i in kept]
    wanted = fitted(DATA.system("firm"))
    found = fit.params.values
    np.testing.assert_allclose(found[~np.isnan(found)], wanted.params, rtol=1e-9)
    np.testing.assert_allclose(fit.r2.values[~np.isnan(fit.r2.values)], wanted.r2, rtol=1e-9)


def test_months_over_land() -> None:
    """A climatology of each cell of a grid, over land, beside a trend that differs between cells."""
    rng = np.random.default_rng(0)
    month = np.tile(np.arange(12), 10)
    field = rng.normal(size=(120, 3, 4)) + np.cos(month / 2)[:, None, None] * 5
    land = rng.random((3, 4)) < 0.5
    ds = xr.Dataset(
        {"t": (("time", "lat", "lon"), np.where(land, field, np.nan)), "x": ("time", rng.normal(size=120))},
        {"time": np.arange(120), "lat": [1.0, 2.0, 3.0], "lon": [10, 20, 30, 40], "month": ("time", month)},
    )
    system = System.from_xarray(ds, "t", ["x"], obs="time", equation=("lat", "lon"), absorb="month")
    fit = LowRankGLS(0, unusable="skip").fit(system).result_
    effects = fit.effects()["effect_month"]
    assert effects.dims == ("month", "lat", "lon")
    D = np.column_stack([ds["x"], np.eye(12)[month]])
    wanted = np.linalg.lstsq(D, field.reshape(120, 12), rcond=None)[0]
    np.testing.assert_allclose(effects.values[:, land], wanted[1:].reshape(12, 3, 4)[:, land], rtol=1e-9, atol=1e-12)
    assert np.isnan(effects.values[:, ~land]).all()
    np.testing.assert_allclose(
        fit.to_dataset()["params"].values.squeeze()[land], wanted[0].reshape(3, 4)[land], rtol=1e-9
    )


def test_the_look_is_counted() -> None:
    store = CountingStore(MemoryStore())
    System.from_arrays(ALL, DATA.X).to_zarr(store, row_chunk=17)
    store.gets.clear()
    system = System.from_zarr(store).absorb(DATA.firm)
    model = LowRankGLS(1, unusable="skip", **TIGHT)
    plan = model.plan(system)
    fit = model.fit(system).result_
    assert set(store.of("Y")) == {2}
    assert set(store.of("X")) == {1}
    assert fit.bytes_read == plan.look_bytes + plan.bytes_per_pass - 8 * 240 * 4  # columns of four that were skipped
