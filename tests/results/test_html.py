"""The notebook page of a fit: well-formed, complete, escaped, with nothing from elsewhere."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser

import numpy as np
import pytest

from lrgls_dask import Fit, LowRankGLS
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
    page = Page(found._repr_html_())
    coefficients = [row for row in page.rows if len(row) == 8]
    assert [tuple(row[:2]) for row in coefficients[1:]] == [(e, r) for e in NAMES for r in REGRESSORS]
    assert [row[0] for row in page.rows if len(row) == 5][-6:] == NAMES
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
    assert page.tags == {"div", "table", "caption", "thead", "tbody", "tr", "th", "td"} | ({"p"} & page.tags)
    assert page.attributes <= {"style", "colspan"}
    assert "http" not in html and "url(" not in html and "src" not in html


def test_long_tables_are_cut_in_the_middle(found: Fit) -> None:
    page = Page(summary_html(found, max_rows=4))
    gaps = [row[0] for row in page.rows if len(row) == 1]
    assert gaps == ["... 20 more rows ...", "... 2 more rows ..."]


def test_without_standard_errors_it_says_why(found: Fit) -> None:
    poor = dataclasses.replace(found, evidence=StreamedSums(None, None), system=None)
    page = Page(poor._repr_html_())
    assert "standard errors need X'X" in page.text
    assert [row[:2] for row in page.rows if len(row) == 3][1:] == [[e, r] for e in NAMES for r in REGRESSORS]


def test_very_many_coefficients_are_shown_without_standard_errors(found: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrgls_dask.results.html.MOST_AT_ONCE", 23)
    assert "they are in coef_table()" in Page(found._repr_html_()).text


def test_a_variance_on_its_floor_is_noted(found: Fit) -> None:
    assert "(Heywood case): <b>&" in Page(remade(found, on_floor=("<b>&",))._repr_html_()).text
