"""`lrgls table`: coefficients of saved fits, of one or side by side, by the code of `tidy` and `compare`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import xarray as xr

from lrgls_dask import Fit, LowRankGLS, System, compare
from lrgls_dask.cli import main
from support.systems import simulate

DATA = simulate("shared", n=100, K=4, k=1)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Fit]:
    """Two fits, saved as a.zarr and b.zarr."""
    monkeypatch.chdir(tmp_path)
    names = ["const", "ret_1", "ret_2", "oil"]
    system = System.from_arrays(DATA.Y, DATA.X, equations=[1, 2, 3, 40], regressors=names)
    found = [LowRankGLS(rank).fit(system).result_ for rank in (0, 1)]
    for name, fit in zip("ab", found, strict=True):
        fit.to_zarr(f"{name}.zarr")
    return found


def out(capsys: Any, words: str, code: int = 0) -> str:
    assert main(["table", *words.split()]) == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


def test_one_fit_is_its_tidy_frame(here: list[Fit], capsys: Any) -> None:
    printed = out(capsys, "a.zarr --equation 40 --term ret_* --level 0.9 --format csv")
    expected = here[0].tidy(40, "ret_*", 0.9)
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(printed)), expected)
    text = out(capsys, "a.zarr --equation ? --equation 40 --term oil")
    assert len(text.splitlines()) == 5 and f"{here[0].tidy(40, 'oil')['estimate'].item():.5g}" in text


def test_several_fits_are_side_by_side(here: list[Fit], capsys: Any) -> None:
    both = compare({"a.zarr": here[0], "b.zarr": here[1]}, term="oil", stars=True)
    assert out(capsys, "a.zarr b.zarr --term oil --stars") == f"{both}\n"
    assert out(capsys, "a.zarr b.zarr --term oil --stars --format latex") == f"{both.to_latex()}\n"
    assert out(capsys, "a.zarr --format markdown") == f"{compare({'a.zarr': here[0]}).to_markdown()}\n"
    frame = pd.read_csv(io.StringIO(out(capsys, "a.zarr b.zarr --format csv")))
    assert frame["fit"].value_counts().to_dict() == {"a.zarr": 16, "b.zarr": 16}


def test_rows_of_fits_and_of_equations(here: list[Fit], capsys: Any) -> None:
    printed = pd.read_csv(io.StringIO(out(capsys, "a.zarr b.zarr --glance fit --format csv")))
    assert printed["loglik"].tolist() == pytest.approx([fit.loglik for fit in here])
    printed = pd.read_csv(io.StringIO(out(capsys, "b.zarr --glance equation --format csv")))
    assert printed["idio_var"].tolist() == pytest.approx(here[1].idio_var.values.tolist())
    assert "--glance goes with --format text or csv; got html" in out(capsys, "a.zarr --glance fit --format html", 1)
    assert "no term is called 'hml'" in out(capsys, "a.zarr --term hml", 1)


def test_equations_by_dims(tmp_path: Path, capsys: Any) -> None:
    ds = xr.Dataset(
        {"t": (("time", "lat", "lon"), DATA.Y.reshape(100, 2, 2)), "x": ("time", DATA.X[:, 1])},
        coords={"lat": [1.5, 2.5], "lon": [10, 20]},
    )
    found = LowRankGLS(0).fit(System.from_xarray(ds, "t", ["x"], obs="time", equation=("lat", "lon"))).result_
    found.to_zarr(tmp_path / "f.zarr")
    at = f"{tmp_path}/f.zarr"
    printed = pd.read_csv(io.StringIO(out(capsys, f"{at} --equation lat=2.5 --format csv")))
    pd.testing.assert_frame_equal(printed, found.tidy({"lat": 2.5}))
    printed = pd.read_csv(io.StringIO(out(capsys, f"{at} --glance equation --equation lon=20 --format csv")))
    pd.testing.assert_frame_equal(printed, found.glance("equation").iloc[[1, 3]].reset_index(drop=True))
    assert "'lonn=20' is not; did you mean 'lon'" in out(capsys, f"{at} --equation lat=2.5 --equation lonn=20", 1)
    assert "'a', 'b' are not" in out(capsys, f"{at} --equation a --equation lat=2.5 --equation b", 1)


def test_fits_on_a_dim_called_fit_and_one_fit_twice(here: list[Fit], tmp_path: Path, capsys: Any) -> None:
    ds = xr.Dataset({"t": (("time", "fit", "e"), DATA.Y.reshape(100, 2, 2)), "x": ("time", DATA.X[:, 1])})
    ds = ds.assign_coords(fit=["p", "q"], e=[1, 2])
    found = LowRankGLS(0).fit(System.from_xarray(ds, "t", ["x"], obs="time", equation=("fit", "e"))).result_
    found.to_zarr("f.zarr")
    frame = pd.read_csv(io.StringIO(out(capsys, "f.zarr a.zarr --format csv")))
    assert frame["file"].tolist() == ["f.zarr"] * 4 + ["a.zarr"] * 16
    assert frame["fit"][:4].tolist() == ["p", "p", "q", "q"]
    twice = compare({"a.zarr": here[0], "a.zarr (2)": here[0]}, equation="40")
    assert out(capsys, "a.zarr a.zarr --equation 40") == f"{twice}\n"
    assert "--glance has no rows of terms" in out(capsys, "a.zarr --glance fit --term oil", 1)
    assert "no rows of equations" in out(capsys, "a.zarr --glance fit --equation 40", 1)


def test_no_name_is_a_formula_to_a_spreadsheet(here: list[Fit], capsys: Any) -> None:
    names = ["=cmd|' /C calc'!A0", "@SUM(A1)", "-2+3", "plain"]
    regressors = ["+1", *DATA.system().regressors[1:]]
    system = System.from_arrays(DATA.Y, DATA.X, equations=names, regressors=regressors)
    LowRankGLS(0).fit(system).result_.to_zarr("odd.zarr")
    frame = pd.read_csv(io.StringIO(out(capsys, "odd.zarr --format csv")))
    assert list(dict.fromkeys(frame["equation"])) == ["'=cmd|' /C calc'!A0", "'@SUM(A1)", "'-2+3", "plain"]
    assert frame["term"][0] == "'+1"
    assert (frame["estimate"] < 0).any()  # numbers stay numbers
