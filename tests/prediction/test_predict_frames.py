"""Fits by formulas predict from frames, by the levels and states of the fitted one, after reload too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import formulaic
import numpy as np
import pandas as pd
import pytest

from lrgls_dask import CompressedSystem, Fit, LowRankGLS, System
from support.frames import containers, grunfeld, mixed

pytest.importorskip("polars")
RIGHT = "center(x) * s + poly(z, 2) + bs(`my col`, df=4, extrapolation='clip') + C(i > 4) + C(day) + k"
TRAIN, NEW = mixed(200), mixed(40, seed=9).drop(columns=["y", "y2"])
LONG = grunfeld()
LONG = LONG[LONG["firm"].isin(sorted(LONG["firm"].unique())[:4])].reset_index(drop=True)
KEYS: dict[str, Any] = {"equation": "firm", "obs": "year"}


def fitted(formulas: Any = f"y + y2 ~ {RIGHT}", frame: Any = TRAIN, **options: Any) -> Fit:
    return LowRankGLS(0).fit(System.from_frame(frame, formulas, **options)).result_


def expected(fit: Fit, new: pd.DataFrame = NEW) -> np.ndarray:
    """By formulaic's own matrix of the whole frame."""
    spec = formulaic.model_matrix(RIGHT, TRAIN).model_spec
    return spec.get_model_matrix(new).to_numpy(float) @ fit.coefficients.reshape(2, -1).T


def test_a_frame_is_predicted_by_the_levels_and_states_of_the_fitted_one() -> None:
    fit = fitted()
    found = fit.predict(NEW)
    assert found.dims == ("obs", "equation")
    np.testing.assert_allclose(found.values, expected(fit), rtol=1e-12)
    one = fit.predict(NEW.iloc[[7]])  # of one row no level or state could be known
    np.testing.assert_array_equal(one.values[0], found.values[7])
    band = fit.predict(NEW, interval=0.95)
    np.testing.assert_array_equal(band["predicted"].values, found.values)


@pytest.mark.parametrize("kind", containers(NEW))
def test_frames_of_every_kind_are_predicted_alike(kind: str) -> None:
    fit = fitted()
    np.testing.assert_array_equal(fit.predict(containers(NEW)[kind]).values, fit.predict(NEW).values)


@pytest.mark.parametrize("through", ["fit", "compressed", "system", "dask"])
def test_formulas_survive_files(through: str, tmp_path: Path) -> None:
    system = System.from_frame(
        dd.from_pandas(TRAIN, npartitions=3) if through == "dask" else TRAIN, f"y + y2 ~ {RIGHT}"
    )
    if through == "compressed":
        system.compress().to_zarr(tmp_path / "store")
        fit = LowRankGLS(0).fit(CompressedSystem.from_zarr(tmp_path / "store")).result_
    elif through == "system":
        system.to_zarr(tmp_path / "store")
        fit = LowRankGLS(0).fit(System.from_zarr(tmp_path / "store")).result_
    else:
        LowRankGLS(0).fit(system).result_.to_zarr(tmp_path / "store")
        fit = Fit.from_zarr(tmp_path / "store")
    np.testing.assert_allclose(fit.predict(NEW).values, expected(fit), rtol=1e-12)


def test_another_process_predicts_from_the_file_alone(tmp_path: Path) -> None:
    fit = fitted()
    fit.to_zarr(tmp_path / "fit")
    NEW.to_parquet(tmp_path / "new.parquet")
    code = (
        "import sys, pandas as pd; from lrgls_dask import Fit\n"
        "fit = Fit.from_zarr(sys.argv[1]); new = pd.read_parquet(sys.argv[2])\n"
        "print(fit.predict(new).values.sum().hex())"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "fit"), str(tmp_path / "new.parquet")]
    said = subprocess.run(words, capture_output=True, text=True, check=True)
    assert float.fromhex(said.stdout.strip()) == fit.predict(NEW).values.sum()


def test_rows_that_lack_a_regressor_have_no_prediction_in_equations_that_use_it() -> None:
    fit = fitted({"y": "~ x", "y2": "~ s"})
    new = NEW.copy()
    new.loc[3, "x"] = np.nan
    new.loc[5, "s"] = None
    lost = np.argwhere(np.isnan(fit.predict(new).values))
    assert lost.tolist() == [[3, 0], [5, 1]]


def test_what_is_predicted_given_responses_takes_them_of_the_frame() -> None:
    both = TRAIN["my col"] + np.arange(200) % 3
    train = TRAIN.assign(y=TRAIN["y"] + both, y2=TRAIN["y2"] - both, y3=TRAIN["z"] + both)
    fit = LowRankGLS(1).fit(System.from_frame(train, "{y*} ~ x")).result_
    new = mixed(30, seed=4).assign(y3=1.0)
    frame = fit.predict_given(new, observed=["y"])
    given = fit.predict_given(new, new[["y", "y2", "y3"]], observed=["y"])
    np.testing.assert_array_equal(frame.values, given.values)
    np.testing.assert_array_equal(fit.factor_scores(new).values, fit.factor_scores(new, new[["y", "y2", "y3"]]).values)
    with pytest.raises(ValueError, match="needs responses"):
        fit.predict_given(new.drop(columns="y3"))


def test_levels_of_every_kind_survive_files(tmp_path: Path) -> None:
    """Intervals, dates, whole numbers, truths and texts."""
    cut = pd.cut(TRAIN["x"], [-9, 0, 1, 9])
    train = TRAIN.assign(cut=cut, date=TRAIN["day"])
    fit = fitted("y + y2 ~ cut + C(date) + C(i) + C(b) + s", train)
    fit.to_zarr(tmp_path / "fit")
    found = Fit.from_zarr(tmp_path / "fit").predict(train[50:60])
    np.testing.assert_array_equal(found.values, fit.predict(train).values[50:60])


BAD: list[tuple[pd.DataFrame, str]] = [
    (NEW.assign(s=[*["u"] * 39, "new"]), "column 's' holds 'new', first at row 39, which is none of its levels"),
    (NEW.assign(k="c"), "column 'k' holds 'c', first at row 0"),
    (NEW.assign(day=pd.Timestamp("2030")), r"'C\(day\)|C\(...\)' holds .*2030"),
    (NEW.drop(columns="x"), "lack columns 'x' that the formulas of the fit read"),
    (NEW.rename(columns={"day": "date"}), "lack columns 'day'"),
    (NEW.iloc[:0], "no rows"),
]


@pytest.mark.parametrize(("new", "says"), BAD)
def test_frames_that_do_not_fit_are_refused_by_name(new: pd.DataFrame, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        fitted().predict(new).values  # noqa: B018  (what is lazy is refused when it is computed)


def test_a_number_that_became_text_is_refused() -> None:
    with pytest.raises(TypeError, match="'x' has dtype"):
        fitted().predict(NEW.assign(x="1.5"))


def test_frames_of_the_regressors_themselves_are_taken_too() -> None:
    fit = fitted("y + y2 ~ np.log(z)")
    regressors = pd.DataFrame({"np.log(z)": [0.0, 1.0], "Intercept": 1.0})
    coefficients = fit.coefficients.reshape(2, 2).T
    np.testing.assert_allclose(fit.predict(regressors).values, [[1, 0], [1, 1]] @ coefficients)


# ---------------------------------------------------------------------------------------------- long


def test_a_long_frame_is_predicted_by_cell(tmp_path: Path) -> None:
    formula = "invest ~ center(value) + lag(capital, 1)"
    fit = fitted(formula, LONG.sample(frac=1, random_state=0), **KEYS)
    new = LONG.drop(columns="invest").drop(index=[5, 30])
    found = fit.predict(new)
    assert found.dims == ("year", "firm")
    assert found["year"].values.tolist() == list(range(1935, 1955))
    cells = new.assign(before=new["capital"].shift(1), c=new["value"] - LONG["value"].mean())
    same = (new["firm"] == new["firm"].shift(1)) & (new["year"] == new["year"].shift(1) + 1)
    cells.loc[~same, "before"] = np.nan
    by_cell = found.to_series()
    coefficients = dict(zip(fit.design.equations, fit.coefficients.reshape(4, 3), strict=True))
    seen = 0
    for row in cells.itertuples():
        value = np.dot(coefficients[row.firm], [1.0, row.c, row.before])
        np.testing.assert_allclose(by_cell[row.year, row.firm], value, rtol=1e-10)
        seen += 1
    assert seen == len(new)
    gone = LONG.loc[[5, 30]]
    assert by_cell[list(zip(gone["year"], gone["firm"], strict=True))].isna().all()  # no cell, no prediction
    fit.to_zarr(tmp_path / "fit")
    np.testing.assert_array_equal(Fit.from_zarr(tmp_path / "fit").predict(new).values, found.values)


def test_some_equations_and_dates_may_be_predicted_alone() -> None:
    fit = fitted("invest ~ value + capital", LONG, **KEYS)
    firm = fit.equations[2]
    new = LONG[(LONG["firm"] == firm) & (LONG["year"] > 1950)].assign(year=lambda frame: frame["year"] + 50)
    found = fit.predict(new)
    assert found["year"].values.tolist() == [2001, 2002, 2003, 2004]
    assert np.isfinite(found.sel(firm=firm).values).all()
    assert np.isnan(found.drop_sel(firm=firm).values).all()
    whole = fit.predict(LONG).sel(firm=firm).values[-4:]
    np.testing.assert_array_equal(found.sel(firm=firm).values, whole)


def test_long_responses_are_taken_of_the_frame() -> None:
    system = System.from_frame(LONG, "np.log(invest) ~ np.log(value)", **KEYS)
    fit = LowRankGLS(covariance="full").fit(system).result_
    holes = LONG.copy()
    holes.loc[4, "invest"] = np.nan
    found = fit.predict_given(holes).to_series()
    known = holes.drop(index=4)
    at = list(zip(known["year"], known["firm"], strict=True))
    np.testing.assert_allclose(found[at], np.log(known["invest"]), rtol=1e-12)
    assert np.isfinite(found[holes.loc[4, "year"], holes.loc[4, "firm"]])


def test_an_unknown_equation_is_named() -> None:
    fit = fitted("invest ~ value + capital", LONG, **KEYS)
    with pytest.raises(ValueError, match="have firm 'Sonstwer', which the fit does not have"):
        fit.predict(LONG.replace({"firm": {fit.equations[0]: "Sonstwer"}}))
    with pytest.raises(ValueError, match="lack columns 'firm'"):
        fit.predict(LONG.drop(columns="firm"))
