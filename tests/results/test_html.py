"""The notebook page of a fit: well-formed, complete, escaped, with nothing from elsewhere."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser

import numpy as np
import pytest

from lrgls_dask import Fit, LowRankGLS, compare
from lrgls_dask.page import STYLE
from lrgls_dask.results.evidence import StreamedSums
from lrgls_dask.results.html import summary_html
from support.fits import remade
from support.systems import simulate

pytestmark = pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic variance on d_floor")

NAMES = ["<b>&", '"quoted"', "a<script>alert(1)</script>", "Telcm", "x' onload='y", "naïve"]
REGRESSORS = ["one", "<i>price</i>", "oil & gas", "x3"]


class Page(HTMLParser):
    """Tags in order, checked for balance, attributes, and the text of every cell by row."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def found() -> Fit:
    data = simulate("shared", n=120)
    return LowRankGLS(2).fit(data.system(equations=NAMES, regressors=REGRESSORS)).result_


def test_every_label_and_number_of_the_summary_is_there(found: Fit) -> None:
    page = Page(summary_html(found, max_rows=24))
    coefficients = [row for row in page.rows if len(row) == 8]
    assert [tuple(row[:2]) for row in coefficients[1:]] == [(e, r) for e in NAMES for r in REGRESSORS]
    assert [row[0] for row in page.rows[-6:]] == NAMES
    printed = found.summary().split()
    for row in coefficients[1:]:
        assert all(cell in printed for cell in row[2:])
    table = found.coef_table()
    shown = np.array([[float(cell) for cell in row[2:]] for row in coefficients[1:]])
    np.testing.assert_allclose(shown[:, [0, 1, 4, 5]], table[["coef", "std_err", "low", "high"]], rtol=1e-4)
    assert f"{found.bic:,.2f}" in page.text and "converged" in page.text


def test_nothing_is_run_or_fetched(found: Fit) -> None:
    html = found._repr_html_()
    page = Page(html)
    tables = {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert page.tags == {"div", "style", "dl", "dt", "dd"} | tables | ({"p"} & page.tags)
    assert page.attributes <= {"class", "colspan", "scope", "tabindex", "role", "aria-label"}
    assert "http" not in html and "url(" not in html and "src" not in html


def test_of_long_tables_some_equations_are_shown_and_the_rule_is_said(found: Fit) -> None:
    page = Page(summary_html(found, max_rows=8))
    shown = [row for row in page.rows if len(row) == 8][1:]
    assert list(dict.fromkeys(row[0] for row in shown)) == [NAMES[0], NAMES[-1]]
    assert "Shown: 2 of 6 equations, evenly spaced. The other 16 coefficients: summary(all=True), tidy()." in page.text


def test_without_standard_errors_it_says_why(found: Fit) -> None:
    poor = dataclasses.replace(found, evidence=StreamedSums(None, None), system=None)
    page = Page(poor._repr_html_())
    assert "standard errors need X'X" in page.text
    assert [row[:2] for row in page.rows if len(row) == 3][1:] == [[e, r] for e in NAMES for r in REGRESSORS]


def test_a_variance_on_its_floor_is_noted(found: Fit) -> None:
    assert "(Heywood case): <b>&" in Page(remade(found, on_floor=("<b>&",))._repr_html_()).text


@pytest.mark.parametrize("what", ["system", "compressed", "plan", "view", "test", "bootstrap", "comparison"])
def test_every_page_is_escaped_and_of_one_look(found: Fit, what: str) -> None:
    system = simulate("shared", n=120).system(equations=NAMES, regressors=REGRESSORS)
    shown = {
        "system": lambda: system,
        "compressed": system.compress,
        "plan": lambda: LowRankGLS(2).plan(system),
        "view": lambda: found[NAMES[2]],
        "test": lambda: found.wald_test({(NAMES[0], "one"): 0.0}),
        "bootstrap": lambda: found.bootstrap(3, seed=0),
        "comparison": lambda: compare({"<b>one</b>": found, "two": found}),
    }[what]()
    html = shown._repr_html_()
    page = Page(html)
    assert html.startswith(f'<div class="lrgls"><style>{STYLE}</style>')
    assert "script" not in page.tags and "i" not in page.tags and "b" not in page.tags
    assert page.attributes <= {"class", "colspan", "scope", "tabindex", "role", "aria-label"}
    assert "prefers-color-scheme:dark" in html and "http" not in html and "url(" not in html
    if what != "plan":
        assert any(name in page.text for name in ("<b>&", "a<script>alert(1)</script>"))
