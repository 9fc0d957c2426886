"""A summary shows what there is, and says why the rest is missing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from lrgls_dask import Fit, LowRankGLS, System, Termination, TimeVarying, TimeVaryingFit
from lrgls_dask.inference import classical
from lrgls_dask.results import segment_source, time_varying
from lrgls_dask.results.evidence import StreamedSums
from lrgls_dask.results.parts import BehindErrors
from support.fits import remade
from support.systems import simulate

DATA = simulate("own", n=120, K=4, k=1)
VARYING = TimeVarying(1, np.arange(120) // 40)

pytestmark = pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic variance")


def raising(error: Exception) -> Any:
    def raise_it(*_: Any, **__: Any) -> None:
        raise error

    return raise_it


def made(way: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> tuple[Any, str]:
    """A fit without standard errors, and what its summary must say."""
    if way == "no room for X'X":
        found = LowRankGLS(1, engine="stream").fit(DATA.system()).result_
        kept = StreamedSums(None, found.evidence.squares)
        return remade(found, evidence=kept, system=None), "need X'X, which this streamed"
    if way == "singular":
        monkeypatch.setattr(classical, "estimator_covariance", raising(np.linalg.LinAlgError("no inverse")))
        return LowRankGLS(1).fit(DATA.system()).result_, "no inverse"
    if way == "no memory":
        monkeypatch.setattr(classical, "estimator_covariance", raising(MemoryError("3 GB of 2 GB")))
        return LowRankGLS(1).fit(DATA.system()).result_, "3 GB of 2 GB"
    if way == "holes":
        Y = DATA.Y.copy()
        Y[::7, 1] = np.nan
        found = LowRankGLS(1, missing="em").fit(replace(DATA, Y=Y).system()).result_
        return replace(found, behind_errors=BehindErrors()), "needs complete rows"
    if way == "segments, too many":
        monkeypatch.setattr(segment_source, "MAX_COEFFICIENTS", 5)
        return LowRankGLS(covariance=VARYING).fit(DATA.system()).result_, "is limited to 5"
    if way == "segments, no memory":
        monkeypatch.setattr(segment_source, "require_here", raising(MemoryError("3 GB of 2 GB")))
        return LowRankGLS(covariance=VARYING).fit(DATA.system()).result_, "3 GB of 2 GB"
    monkeypatch.setattr(time_varying, "SAVED_UP_TO", 5)
    LowRankGLS(covariance=VARYING).fit(DATA.system()).result_.to_zarr(tmp_path / "fit")
    return TimeVaryingFit.from_zarr(tmp_path / "fit"), "was saved without the covariance"


WAYS = [
    "no room for X'X",
    "singular",
    "no memory",
    "holes",
    "segments, too many",
    "segments, no memory",
    "segments, saved",
]


@pytest.mark.parametrize("way", WAYS)
def test_the_rest_is_there(way: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    found, why = made(way, monkeypatch, tmp_path)
    with pytest.raises((ValueError, MemoryError), match=why) as caught:
        _ = found.std_errors
    text, page = found.summary(), found._repr_html_()
    for shown in (text, page):
        assert f"{found.loglik:.6g}" in shown and found.termination.value in shown
        assert all(f"{b:.5g}" in shown for b in found.coefficients)
        assert "P&gt;|t|" not in shown and "P>|t|" not in shown
    assert f"No standard errors, t, p and intervals: {caught.value}" in " ".join(text.split())
    assert "No standard errors, t, p and intervals:" in page
    assert max(map(len, text.splitlines())) <= 110
    with pytest.raises(ValueError, match="alpha"):
        found.summary(alpha=2.0)


def test_a_measure_that_cannot_be_had_is_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    found = LowRankGLS(1).fit(DATA.system()).result_
    monkeypatch.setattr(Fit, "mcelroy_r2", raising(np.linalg.LinAlgError("singular")))
    line = next(line for line in found.summary().splitlines() if "McElroy" in line)
    assert line.split()[-1] == "-" and "std err" in found.summary()


def test_segments_in_a_notebook() -> None:
    system = DATA.system(equations=["<b>", *"xyz"])
    found = LowRankGLS(covariance=VARYING, restrictions="x:x1 = y:x1").fit(system).result_
    page = found._repr_html_()
    assert "Sigma_t = F_t F_t&#x27; + diag(d_t)" in page and "<b>" not in page and "&lt;b&gt;" in page
    assert "Restriction: x:x1 = y:x1" in page
    printed = found.summary(all=True).split()
    for value in found.coef_table()["std_err"]:
        assert f"{value:.5g}" in printed and f">{value:.5g}<" in page


# ---------------------------------------------------------------------------------- of many few, by a rule


def wide(K: int = 300, n: int = 60, **options: Any) -> Fit:
    rng = np.random.default_rng(3)
    X = np.column_stack([np.ones(n), rng.normal(size=n)])
    names = [f"station {j:03d}" for j in range(K)]
    Y = X @ rng.normal(size=(2, K)) + rng.normal(size=(n, 1)) + rng.normal(size=(n, K))
    ds = xr.Dataset({"y": (("t", "station"), Y), "trend": ("t", X[:, 1])}, coords={"station": names})
    system = System.from_xarray(ds.assign(const=("t", X[:, 0])), "y", ["const", "trend"], obs="t", equation="station")
    return LowRankGLS(1, **options).fit(system).result_


def test_a_wide_fit_is_one_screen_and_says_what_it_left_out() -> None:
    found = wide()
    text = found.summary()
    lines = text.splitlines()
    assert len(lines) <= 52 and max(map(len, lines)) <= 100
    assert sum(line.startswith("  const") for line in lines) == 8
    assert (
        "Shown: 8 of 300 equations, evenly spaced. The other 584 coefficients: summary(all=True), tidy()."
        in " ".join(text.split())
    )
    assert "station 000\n" in text and "station 299\n" in text and "\nstation    " in text
    whole = found.summary(all=True)
    assert sum(line.startswith("  const") for line in whole.splitlines()) == 300 and "Shown" not in whole
    frame = found.tidy()
    for value in frame.loc[frame["equation"] == "station 299", "std_error"]:
        assert f"{value:.5g}" in text.split()


def test_what_needs_attention_comes_first() -> None:
    found = wide()
    poor = remade(found, on_floor=tuple(f"station {j:03d}" for j in range(100, 108)), termination=Termination.STALLED)
    text = poor.summary()
    assert text.index("Not converged: stalled") < text.index("Variance on its floor")
    assert "station 104 and 3 more of 300, see status" in text
    rows = text.split("error sd")[1].splitlines()[1:]
    assert [row.split()[1] for row in rows[:6]] == ["100", "101", "102", "103", "104", "000"]
    assert "on floor" in rows[4]
    assert "Shown: 5 of 8 that need attention, then 5 evenly spaced. The other 290 equations:" in " ".join(text.split())
    assert "Variance on its floor" in poor._repr_html_()


def test_only_what_is_printed_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classical, "AT_HAND", 0)
    monkeypatch.setattr(classical, "dual_pays", lambda *_: False)
    monkeypatch.setattr(classical.CoefficientCovariance, "_inverse", raising(AssertionError("all were computed")))
    found = LowRankGLS(1).fit(simulate("own", n=200, K=8, k=1).system()).result_
    assert "std err" in found.summary(max_rows=4)
    with pytest.raises(AssertionError):
        found.summary(all=True)


def test_names_are_never_cut_without_a_sign() -> None:
    long = "a response whose name is a good deal longer than any column of a table may be"
    names = [long, long.replace("response", "RESPONSE"), "x", "z"]
    text = LowRankGLS(1).fit(DATA.system(equations=names)).result_.summary()
    cut = [line for line in text.splitlines() if "…" in line]
    assert len(cut) == 2 and all(line.startswith("a ") and " may be" in line for line in cut)
    assert f"\n{long}\n" in text


def test_equations_on_several_dims_are_named_by_these() -> None:
    ds = xr.Dataset(
        {"t": (("time", "lat", "lon"), DATA.Y.reshape(120, 2, 2)), "x": ("time", np.arange(120.0))},
        coords={"lat": [40.5, 41.5], "lon": [1, 2]},
    )
    found = LowRankGLS(1).fit(System.from_xarray(ds, "t", ["x"], obs="time", equation=("lat", "lon"))).result_
    lines = found.summary().splitlines()
    assert any(line.startswith("lat, lon  ") for line in lines) and "40.5, 2" in lines
    assert ">40.5, 2</th>" in found._repr_html_() and ">lat, lon</th>" in found._repr_html_()


def test_one_equation_of_very_many_terms() -> None:
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(90, 40)), rng.normal(size=(90, 3))
    text = LowRankGLS(0).fit(System.from_arrays(Y, X)).result_.summary()
    assert "Shown: the first of 3 equations, the first 24. The other 96 coefficients:" in text
    assert sum(line.startswith("  x") for line in text.splitlines()) == 24


@pytest.mark.parametrize("scale", [1e-10, 1e10])
def test_cells_keep_a_space_whatever_their_size(scale: float) -> None:
    Y = scale * (-DATA.Y[:, :2] * 1e-5 - 5.4321)
    found = LowRankGLS(0).fit(System.from_arrays(Y, np.ones((120, 1)))).result_
    rows = [line for line in found.summary(all=True).splitlines() if line.startswith("  x0 ")]
    assert [len(row.split()) for row in rows] == [7, 7]


def test_an_equation_of_segments_has_a_dash_for_r2() -> None:
    page = LowRankGLS(covariance=VARYING).fit(DATA.system()).result_["y0"]._repr_html_()
    assert "<dt>R2</dt><dd>-</dd>" in page
