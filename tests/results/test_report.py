"""The page of a fit: its text as a file, and what real Chromium makes of it, in light and dark, wide and narrow."""

from __future__ import annotations

import importlib
import json
import os
import re
import stat
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from lrgls_dask import Fit, LowRankGLS, System, TimeVarying, TimeVaryingFit
from lrgls_dask.compression.labelled import size_text
from lrgls_dask.results.report import contents
from lrgls_dask.results.report.cited import sources
from lrgls_dask.results.report.written import MARK
from lrgls_dask.results.tidy import NUMBERS
from support.browser import Browser, axe_source, browser_or_skip, serious_faults
from support.counted import counted_rows
from support.segments import drifting
from support.systems import simulate

RNG = np.random.default_rng(14)
BREAKS_OUT = "</script><script>window.ran = 1</script>"
NAMES = [
    BREAKS_OUT,
    "<img src=x onerror='window.ran=1'>",
    "\"quoted\" & 'more'",
    "שלום עולם",
    "Naïve",
    "a$b$c",
    "none",
    "b\u2028c",
]
REGRESSORS = ["const", "<b>price</b>", "oil & gas", "{{ 7 * 7 }}"]
TABLES = ("coefficients", "equations", "steps", "candidates")


def planted() -> Fit:
    """Names that would break out of a page; holes, and an equation that was skipped."""
    X = np.column_stack([np.ones(90), RNG.normal(size=(90, 3))])
    Y = X @ RNG.normal(size=(4, 8)) + RNG.normal(size=(90, 8)) + RNG.normal(size=(90, 1))
    Y[:40, 1], Y[:, 6] = np.nan, np.nan
    system = System.from_arrays(Y, X, equations=NAMES, regressors=REGRESSORS)
    return LowRankGLS(1, missing="em", unusable="skip").fit(system).result_


@pytest.fixture(scope="module")
def found() -> Fit:
    return planted()


@pytest.fixture(scope="module")
def page(found: Fit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "fit.html"
    found.report(path)
    return path


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No matplotlib."""
    real = importlib.import_module

    def without(name: str, *given: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *given)

    monkeypatch.setattr(importlib, "import_module", without)


class Outline(HTMLParser):
    """Tags that were opened and closed in balance, headings in order, and what is fetched."""

    EMPTY = ("meta", "link", "input", "img", "source")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[int] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.EMPTY:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        for name, value in attrs:
            assert not name.startswith("on"), name
            if name in ("src", "srcset", "href", "action", "data"):
                self.addresses.append(str(value))
            if name == "id":
                self.ids.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def data_of(text: str) -> list[dict[str, Any]]:
    """What the script of a page is given."""
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, flags=re.DOTALL)
    assert len(found) == 1
    return list(json.loads(found[0]))


def column(table: dict[str, Any], name: str) -> list[str]:
    """The texts of a column."""
    [wanted] = [each for each in table["columns"] if each["name"] == name]
    cells = wanted["cells"].split(" ")
    return [wanted["distinct"][int(cell)] for cell in cells] if "distinct" in wanted else cells


# ---------------------------------------------------------------------------------------------- the file


def test_a_page_is_well_formed_and_nothing_in_it_is_from_elsewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    outline = Outline(text)
    assert all(each.startswith(("#", "data:")) for each in outline.addresses)
    assert {each[1:] for each in outline.addresses if each.startswith("#")} <= set(outline.ids)
    assert len(outline.ids) == len(set(outline.ids))
    assert outline.headings[0] == 1 and outline.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(outline.headings, outline.headings[1:], strict=False))
    assert text.count("<script") == 2 and text.count("</script") == 2
    assert "{{ 7 * 7 }}" in text  # and not what a template would make of it


def test_tables_are_those_of_the_fit(found: Fit, page: Path) -> None:
    tables = {each["key"]: each for each in data_of(page.read_text(encoding="utf-8"))}
    frame = found.tidy().dropna(ignore_index=True)  # the others are among the equations, with why
    of_all = tables["coefficients"]
    assert column(of_all, "Equation") == frame["equation"].tolist()
    assert column(of_all, "Regressor") == frame["term"].tolist()
    shown = ("Coefficient", "Std. error", "t", "p", "95% low", "95% high")
    for name, number in zip(shown, NUMBERS, strict=True):
        cells = [float("nan") if each == "–" else float(each) for each in column(of_all, name)]
        np.testing.assert_allclose(cells, frame[number], rtol=5e-3, atol=6e-3 if name == "t" else 0)
    equations = tables["equations"]
    assert column(equations, "Equation") == ["none", *(name for name in NAMES if name != "none")]
    assert column(equations, "Status")[:2] == ["no rows", "ok"]
    by_equation = found.glance("equation").set_index("equation").loc[column(equations, "Equation")]
    np.testing.assert_allclose([float(each) for each in column(equations, "R2")[1:]], by_equation["r2"][1:], atol=6e-5)
    assert column(equations, "Rows") == [f"{count}" for count in by_equation["n_obs"]]
    assert len(column(tables["steps"], "Step")) == len(found.trace)


def test_the_same_fit_makes_the_same_bytes_without_its_rows_too(found: Fit, page: Path, tmp_path: Path) -> None:
    found.to_zarr(tmp_path / "f.zarr")
    Fit.from_zarr(tmp_path / "f.zarr").report(tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


@pytest.mark.usefixtures("undrawn")
def test_nothing_is_read_and_what_rows_would_tell_is_said(tmp_path: Path) -> None:
    system, reads = counted_rows(simulate("shared", n=120), 30)
    fit = LowRankGLS(1, engine="stream").fit(system).result_
    before = len(reads)
    fit.report(tmp_path / "f.html")
    assert len(reads) == before
    text = (tmp_path / "f.html").read_text()
    assert "Pictures are drawn by matplotlib, which is not installed here" in text and "<figure" not in text
    assert "Breusch-Pagan: breusch_pagan" in text  # why there is none
    assert fit.std_errors is not None


@pytest.mark.usefixtures("undrawn")
def test_intervals_have_the_coverage_that_is_asked_for(found: Fit, tmp_path: Path) -> None:
    found.report(tmp_path / "f.html", level=0.5)
    [low] = [
        column(each, "50% low") for each in data_of((tmp_path / "f.html").read_text()) if each["key"] == "coefficients"
    ]
    np.testing.assert_allclose(float(low[0]), found.tidy(level=0.5)["conf_low"][0], rtol=1e-3)
    with pytest.raises(ValueError, match="level"):
        found.report(tmp_path / "g.html", level=2.0)
    assert not (tmp_path / "g.html").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_time_varying_fit_has_a_page_after_it_was_saved_too(tmp_path: Path) -> None:
    data, _ = drifting(4, 40)
    fit = (
        LowRankGLS(covariance=TimeVarying(1, segments=np.repeat(range(4), 40), bandwidth=2.0))
        .fit(data.system())
        .result_
    )
    fit.to_zarr(tmp_path / "f.zarr")
    fit.report(tmp_path / "f.html")
    TimeVaryingFit.from_zarr(tmp_path / "f.zarr").report(tmp_path / "g.html")
    text = (tmp_path / "f.html").read_text()
    Outline(text)
    assert "for each of 4 segments of rows; factors: 1." in text and "all coefficients of " in text
    assert {each["key"] for each in data_of(text)} == set(TABLES) - {"candidates"}
    numbers = [column(each, "Std. error") for each in data_of((tmp_path / "g.html").read_text())[:1]]
    assert numbers == [column(each, "Std. error") for each in data_of(text)[:1]]


def test_equations_on_two_dims_are_columns_of_their_own_and_maps(tmp_path: Path) -> None:
    data = simulate("shared", n=80, K=6)
    ds = xr.Dataset({"t": (("time", "lat", "lon"), data.Y.reshape(80, 2, 3)), "trend": ("time", data.X[:, 1])})
    ds = ds.assign_coords(lat=[-40.5, 9.0], lon=[0, 20, 100])
    fit = (
        LowRankGLS(rank="bic", ranks=[0, 1])
        .fit(System.from_xarray(ds, "t", ["trend"], obs="time", equation=("lat", "lon")))
        .result_
    )
    fit.report(tmp_path / "f.html")
    text = (tmp_path / "f.html").read_text()
    tables = {each["key"]: each for each in data_of(text)}
    assert set(tables) == set(TABLES)
    assert column(tables["coefficients"], "lat") == ["-40.5"] * 3 + ["9.0"] * 3
    assert column(tables["coefficients"], "lon") == ["0", "20", "100"] * 2
    assert "6 equations on lat (2) x lon (3), fitted to 80 rows along time." in text
    assert 'alt="Map of the estimates of trend over lat and lon.' in text
    assert 'alt="Correlations of errors between equations, those that are alike together, below the diagonal,' in text
    assert "Schwarz" in text and "Horn" not in text
    assert column(tables["candidates"], "rank") == [f"{rank}" for rank in fit.selection.index]


@pytest.mark.usefixtures("undrawn")
def test_a_page_is_written_whole_and_in_the_place_of_a_page_only(
    found: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lrgls_dask.results.tables.report_page", lambda fit, level: f"{MARK} {level}")
    path = tmp_path / "f.html"
    found.report(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask()
    with pytest.raises(FileExistsError, match=r"f\.html exists\. Choose another path, or pass overwrite=True"):
        found.report(path)
    before = path.read_bytes()
    with monkeypatch.context() as broken, pytest.raises(OSError, match="disk full"):
        broken.setattr(os, "replace", _fails)
        found.report(path, level=0.5, overwrite=True)
    assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == ["f.html"]
    found.report(str(path), level=0.5, overwrite=True)
    assert path.read_bytes() != before
    (tmp_path / "notes.html").write_text("<!DOCTYPE html><p>mine")
    for other in ("notes.html", "."):
        with pytest.raises(FileExistsError, match="exists and is no report, so it is not replaced"):
            found.report(tmp_path / other, overwrite=True)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        found.report(tmp_path / "nowhere" / "f.html")
    with pytest.raises(ValueError, match=r"written to a path of this machine; got s3://b/f\.html"):
        found.report("s3://b/f.html")


@pytest.mark.usefixtures("undrawn")
def test_a_page_does_not_go_into_the_store_of_the_rows(tmp_path: Path) -> None:
    simulate("shared", n=60).system().to_zarr(tmp_path / "rows.zarr")
    fit = LowRankGLS(1).fit(System.from_zarr(tmp_path / "rows.zarr")).result_
    with pytest.raises(ValueError, match=r"lies in .*rows\.zarr, which is read"):
        fit.report(tmp_path / "rows.zarr" / "f.html")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _fails(*_: Any) -> None:
    raise OSError("disk full")


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_five_thousand_coefficients_are_below_five_megabytes_and_fifty_thousand_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = np.column_stack([np.ones(1_500), RNG.normal(size=(1_500, 9))])
    Y = X @ RNG.normal(size=(10, 500)) + RNG.normal(size=(1_500, 500)) + RNG.normal(size=(1_500, 1))
    fit = LowRankGLS(1).fit(System.from_arrays(Y, X)).result_
    fit.report(tmp_path / "f.html")
    assert (tmp_path / "f.html").stat().st_size < 1_000_000  # with pictures, which take the same for any fit, 1.5 MB
    monkeypatch.setattr("lrgls_dask.results.report.contents.MOST_ROWS", 1_000)
    fit.report(tmp_path / "g.html")
    [table] = [each for each in data_of((tmp_path / "g.html").read_text()) if each["key"] == "coefficients"]
    assert table["rows"] == 910  # of whole equations, with room for their heads
    assert (
        "Shown: 91 of 500 equations, evenly spaced. The other 4,090 coefficients" in (tmp_path / "g.html").read_text()
    )


# ---------------------------------------------------------------------------------------------- the browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browser_or_skip() as started:
        yield started


@pytest.fixture
def shown(browser: Browser, page: Path) -> Browser:
    browser.look()
    browser.open(page)
    return browser


def cells(browser: Browser, key: str, place: int) -> list[str]:
    """What a column of a table shows."""
    rows = f"""[...document.querySelectorAll('[data-key="{key}"] tbody tr')]"""
    return list(browser.value(f"{rows}.map((row) => row.cells[{place}].textContent)"))


def one(name: str, key: str = "coefficients") -> str:
    """An element of a table, as an expression."""
    return f"""document.querySelector('[data-key="{key}"] {name}')"""


def test_a_browser_fetches_nothing_runs_no_name_and_has_nothing_to_complain_of(shown: Browser, page: Path) -> None:
    assert shown.complaints == []
    assert [each for each in shown.requests if not each.startswith("data:")] == [page.as_uri()]
    assert shown.value("window.ran === undefined && document.querySelectorAll('main img').length > 3")
    assert shown.value("[...document.images].every((image) => image.complete && image.naturalWidth > 100)")
    assert cells(shown, "coefficients", 0)[0] == BREAKS_OUT
    assert NAMES[1] in cells(shown, "coefficients", 0)
    # nor could it: the page itself forbids a script that got in, and everything from elsewhere
    shown.value(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.ran = 2';"
        "document.body.append(s); const i = new Image(); i.src = 'http://127.0.0.1:9/x.png'; })()"
    )
    assert shown.value("fetch('http://127.0.0.1:9/').then(() => 'fetched', () => 'refused')") == "refused"
    assert shown.value("window.ran === undefined")
    assert sum("Content Security Policy" in each for each in shown.complaints) >= 3


def test_tables_are_searched_sorted_and_turned(shown: Browser, found: Fit) -> None:
    frame = found.tidy().dropna(ignore_index=True)
    assert shown.value(one(".status") + ".textContent") == "Rows 1 to 25 of 28"
    assert cells(shown, "coefficients", 0) == frame["equation"][:25].tolist()
    shown.value(one(".on") + ".click()")
    assert cells(shown, "coefficients", 0) == frame["equation"][25:].tolist()
    assert shown.value(one(".where") + ".textContent") == "Page 2 of 2"
    assert shown.value(one(".on") + ".getAttribute('aria-disabled')") == "true"
    search = one(".search")
    shown.value(f"{search}.value = 'NAIVE  oil'; {search}.dispatchEvent(new Event('input'))")
    assert [cells(shown, "coefficients", i) for i in (0, 1)] == [["Naïve"], ["oil & gas"]]
    assert shown.value(one(".status") + ".textContent") == "Rows 1 to 1 of 1 found among 28"
    shown.value(f"{search}.value = 'nobody'; {search}.dispatchEvent(new Event('input'))")
    assert shown.value(one(".status") + ".textContent") == "No row of 28 has these words"
    shown.value(f"{search}.value = ''; {search}.dispatchEvent(new Event('input'))")
    head = one("thead th:nth-child(3)")
    ordered = frame["estimate"].sort_values()
    for state, expected in (
        ("ascending", ordered),
        ("descending", ordered[::-1]),
        ("none", frame["estimate"]),
    ):
        shown.value(f"{head}.querySelector('button').click()")
        assert shown.value(f"{head}.getAttribute('aria-sort')") == state
        assert cells(shown, "coefficients", 2)[:8] == [f"{value:.5g}" for value in expected[:8]]
    shown.value(f"(() => {{ const s = {one('.size')}; s.value = '100'; s.dispatchEvent(new Event('change')); }})()")
    assert cells(shown, "coefficients", 2) == [f"{value:.5g}" for value in frame["estimate"]]
    r2 = one("thead th:nth-child(5) button", "equations")
    for _ in range(2):
        shown.value(f"{r2}.click()")
        assert cells(shown, "equations", 4)[-1] == "–"  # what there is no number for comes last


def test_a_keyboard_is_enough_and_motion_is_only_for_those_who_like_it(shown: Browser, page: Path) -> None:
    shown.press("Tab", 9)
    assert shown.value("document.activeElement.className") == "skip"
    assert shown.value("document.activeElement.getBoundingClientRect().left >= 0")
    assert shown.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    shown.press("Enter", 13, "\r")
    assert shown.value("document.activeElement.id") == "main"
    shown.value(one("thead button") + ".focus()")
    shown.press("Enter", 13, "\r")
    assert shown.value(one("thead th") + ".getAttribute('aria-sort')") == "ascending"
    assert shown.value("document.activeElement === " + one("thead button"))
    assert shown.value("getComputedStyle(document.documentElement).scrollBehavior") == "smooth"
    shown.look(still=True)
    shown.open(page)
    assert shown.value("getComputedStyle(document.documentElement).scrollBehavior") == "auto"


def test_without_scripts_the_first_rows_are_there_and_it_is_said(browser: Browser, page: Path) -> None:
    browser.look()
    browser.open(page, scripts=False)
    browser.ask("Emulation.setScriptExecutionDisabled", value=False)  # what is there now was made without
    assert len(cells(browser, "coefficients", 0)) == 25
    assert cells(browser, "coefficients", 0)[0] == BREAKS_OUT
    assert "first 25 of 28 rows" in browser.value(one("noscript") + ".textContent")
    assert browser.value(one(".search") + ".checkVisibility()") is False


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_screen(
    browser: Browser, page: Path, width: int, dark: bool
) -> None:
    axe = axe_source()
    browser.look(width, dark=dark)
    browser.open(page)
    assert browser.value("document.documentElement.scrollWidth") <= width
    light = browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light is not dark
    assert browser.value("document.images[0].currentSrc === document.images[0].src") is light
    assert serious_faults(browser, axe) == []


def test_axe_would_find_one(shown: Browser) -> None:
    axe = axe_source()
    shown.value("document.images[0].removeAttribute('alt'); document.querySelector('.subtitle').style.color = '#ddd'")
    assert [each.split()[0] for each in serious_faults(shown, axe)] == ["color-contrast", "image-alt"]


@pytest.mark.parametrize(
    ("rank", "names"),
    [("parallel", ["Horn, J. L. (1965)", "Owen, A. B. (2019)"]), ("eigenvalue-ratio", ["Ahn, S. C."])],
)
def test_what_chose_the_rank_is_cited(rank: Any, names: list[str]) -> None:
    cited = sources(LowRankGLS(rank=rank).fit(simulate("shared", n=80, K=8).system()).result_)
    assert [name for name in names if not any(name in each for each in cited)] == []
    assert not any("Schwarz" in each for each in cited)


def test_bytes_are_written_in_a_unit_of_which_there_is_one() -> None:
    said = {count: (contents._bytes(count), size_text(count)) for count in (999, 999_499, 999_999, 999_700_000_000)}
    assert said == {
        999: ("999 B", "999 bytes"),
        999_499: ("999 kB", "999 kB"),
        999_999: ("1 MB", "1 MB"),
        999_700_000_000: ("1 TB", "1 TB"),
    }
