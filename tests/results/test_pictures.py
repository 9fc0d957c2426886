"""Pictures draw the numbers that `data=True` returns, on the axes they are given."""

from __future__ import annotations

import io
import xml.dom.minidom
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib import pyplot

from lrgls_dask import Fit, LowRankGLS, System, TimeVarying
from lrgls_dask.results import drawing, pictures
from support.systems import simulate

matplotlib.use("Agg")
pytestmark = pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic variance")
DATA = simulate("shared", n=120)


@pytest.fixture(scope="module")
def found() -> Fit:
    ds = xr.Dataset(
        {"t2m": (("time", "lat", "lon"), DATA.Y.reshape(120, 2, 3)), "trend": ("time", DATA.X[:, 1])},
        coords={"lat": [40.0, 42.0], "lon": [1.0, 2.0, 4.0]},
    )
    ds["const"] = xr.ones_like(ds["trend"])
    system = System.from_xarray(ds, "t2m", ["const", "trend"], obs="time", equation=("lat", "lon"))
    return LowRankGLS("bic").fit(system).result_


@pytest.fixture
def ax() -> Any:
    figure, axes = pyplot.subplots()
    yield axes
    pyplot.close(figure)


def test_coefficients(found: Fit, ax: Any) -> None:
    frame = found.plot.coefficients(term="trend", level=0.9, data=True)
    pd.testing.assert_frame_equal(frame, found.tidy(term="trend", level=0.9))
    assert found.plot.coefficients(term="trend", level=0.9, ax=ax) is ax
    np.testing.assert_array_equal(ax.lines[1].get_xdata(), frame["estimate"])
    ends = np.array([segment[:, 0] for segment in ax.collections[0].get_segments()])
    np.testing.assert_allclose(ends, frame[["conf_low", "conf_high"]])
    assert [label.get_text() for label in ax.get_yticklabels()][:2] == ["40.0, 1.0, trend", "40.0, 2.0, trend"]


def test_a_map(found: Fit, ax: Any) -> None:
    array = found.plot.map("trend", data=True)
    assert array.dims == ("lat", "lon") and array["lon"].values.tolist() == [1.0, 2.0, 4.0]
    np.testing.assert_array_equal(array.values, found.to_dataset()["params"].sel(regressor="trend").values)
    errors = found.plot.map("trend", "std_error", data=True)
    np.testing.assert_allclose(errors.values, found.to_dataset()["std_errors"].sel(regressor="trend").values)
    assert found.plot.map("trend", ax=ax) is ax
    mesh = ax.collections[0]
    np.testing.assert_array_equal(np.asarray(mesh.get_array()).ravel(), array.values.ravel())
    np.testing.assert_allclose(mesh.get_coordinates()[0, :, 0], [0.5, 1.5, 3.0, 5.0])
    assert ax.get_xlabel() == "lon" and ax.get_ylabel() == "lat" and -mesh.norm.vmin == mesh.norm.vmax


def test_selection_and_trace(found: Fit, ax: Any) -> None:
    pd.testing.assert_frame_equal(found.plot.selection(data=True), found.selection)
    assert found.plot.selection(ax=ax) is ax
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), found.selection["bic"])
    assert ax.get_legend().get_texts()[-1].get_text() == f"chosen: {found.rank}"
    assert ax.lines[-1].get_xdata() == [found.rank, found.rank]
    ax.clear()
    pd.testing.assert_frame_equal(found.plot.trace(data=True), found.trace)
    assert found.plot.trace(ax=ax) is ax and ax.get_yscale() == "log"
    above = found.trace["obj"] - found.trace["obj"].iloc[-1]
    np.testing.assert_allclose(ax.lines[0].get_ydata()[above > 0], above[above > 0])


@pytest.mark.parametrize("way", ["parallel", "eigenvalue-ratio", "cv"])
def test_the_choice_is_marked_by_whatever_it_was_made(way: Any, ax: Any) -> None:
    fit = LowRankGLS(way).fit(DATA.system()).result_
    fit.plot.selection(ax=ax)
    assert ax.get_legend().get_texts()[-1].get_text() == f"chosen: {fit.rank}"
    drawn = {"parallel": ["eigenvalue", "threshold"], "eigenvalue-ratio": ["eigenvalue_ratio"], "cv": ["cv_nll"]}[way]
    assert [line.get_label() for line in ax.lines[:-1]] == drawn
    for line, name in zip(ax.lines, drawn, strict=False):
        np.testing.assert_array_equal(line.get_ydata(), fit.selection[name])


def test_ranks_that_leave_a_variance_of_zero_are_hollow(ax: Any) -> None:
    rng = np.random.default_rng(2)
    common = rng.standard_normal((60, 1))
    y = common @ np.ones((1, 6)) + rng.standard_normal((60, 6)) * [0.0, 1, 1, 1, 1, 1]  # the first is the factor
    fit = LowRankGLS("bic", improper="avoid").fit(System.from_arrays(y, np.ones((60, 1)))).result_
    fit.plot.selection(ax=ax)
    hollow = next(line for line in ax.lines if line.get_label() == "with variances of zero")
    improper = fit.selection["on_floor"].to_numpy() > 0
    assert improper.any() and hollow.get_markerfacecolor() == "w"
    np.testing.assert_array_equal(hollow.get_ydata()[improper], fit.selection["bic"][improper])
    assert np.isnan(hollow.get_ydata()[~improper]).all()


def test_new_axes_where_none_are_given(found: Fit) -> None:
    axes = found.plot.coefficients(term="trend")
    assert axes.figure.number in pyplot.get_fignums()
    pyplot.close(axes.figure)


def test_what_cannot_be_drawn_is_said(found: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    other = LowRankGLS(1).fit(DATA.system()).result_
    with pytest.raises(ValueError, match=r"these lie on equation\. Use coefficients"):
        other.plot.map("x1")
    with pytest.raises(ValueError, match="chose nothing among candidates"):
        other.plot.selection()
    monkeypatch.setattr(pictures, "MOST", 5)
    with pytest.raises(ValueError, match=r"room for 5 coefficients, and these are 24\. Choose"):
        other.plot.coefficients()
    monkeypatch.setattr(drawing.importlib, "import_module", _missing)
    with pytest.raises(ImportError, match=r"drawn by matplotlib. Install it: pip install 'lrgls_dask\[plot\]'"):
        other.plot.trace()


def _missing(name: str) -> Any:
    raise ImportError(name)


BAD = r"$\q{ _^$"  # which is no mathematics that there is


def test_labels_are_drawn_letter_by_letter() -> None:
    """A dollar, _, ^ or a backslash of the user's is no mathematics, and what XML cannot hold has a sign."""
    rows, down, along = BAD, f"a{BAD}", f"o{BAD}"
    ds = xr.Dataset(
        {"t2m": ((rows, down, along), DATA.Y.reshape(120, 2, 3)), f"x{BAD}": (rows, DATA.X[:, 1])},
        coords={down: [BAD, "\x01$"], along: [BAD, "u", "v"]},
    )
    ds["const"] = xr.ones_like(ds[f"x{BAD}"])
    system = System.from_xarray(ds, "t2m", ["const", f"x{BAD}"], obs=rows, equation=(down, along))
    segments = TimeVarying(1, segments=np.repeat([f"s{BAD}", f"t{BAD}"], 60))
    found, varying = (model.fit(system).result_ for model in (LowRankGLS(1), LowRankGLS(covariance=segments)))
    drawn = {
        found.plot.map(f"x{BAD}"): {f"x{BAD}", down, along, f">{BAD}", "\N{REPLACEMENT CHARACTER}$"},
        found.plot.coefficients(term=f"x{BAD}"): {f", x{BAD}"},
        found.plot.errors(): {BAD, down},
        found.plot.loadings(): {BAD, down},
        found.plot.residuals(system)[0]: {f"number of the {BAD}"},
        found.plot.scores(system): {f"number of the {BAD}"},
        varying.plot.errors(): {f"segment t{BAD}"},
    }
    for axes, words in drawn.items():
        into = io.StringIO()
        with matplotlib.rc_context({"svg.fonttype": "none"}):
            axes.figure.savefig(into, format="svg")
        pyplot.close(axes.figure)
        xml.dom.minidom.parseString(into.getvalue())
        assert [word for word in words if word not in into.getvalue()] == []


@pytest.mark.parametrize(
    ("name", "others"), [("before", "rows"), ("segment", "rows"), ("factor", "rows"), ("y", "factor")]
)
def test_dims_may_be_called_like_ours(name: str, others: str) -> None:
    """Equations along `name`, rows along `others`: what a fit says has dims of its own names."""
    data = xr.DataArray(DATA.Y, dims=(others, name))
    system = System.from_xarray(
        xr.Dataset({"t": data, "x": (others, DATA.X[:, 1])}), "t", ["x"], obs=others, equation=name
    )
    fit = LowRankGLS(1).fit(system).result_
    assert set(fit.plot.errors(data=True)["before"].dims) == {"equation", "equation_other"}
    assert fit.plot.loadings(data=True).dims == fit.loadings.dims
    assert fit.plot.scores(system, data=True).dims == ("obs" if others == "factor" else others, "factor")
    varying = LowRankGLS(covariance=TimeVarying(1, segments=np.repeat([1, 2], 60))).fit(system).result_
    assert varying.plot.sigma_over_time(data=True)["idio_var"].dims == ("segment", "equation")
