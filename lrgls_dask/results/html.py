"""A fit as a notebook shows it: the tables of the text summary as plain HTML, no scripts, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from html import escape
from itertools import zip_longest

from lrgls_dask.results.measures import Measures
from lrgls_dask.results.reported import Reported
from lrgls_dask.results.text import (
    SEGMENTS_TITLE,
    coefficient_table,
    equation_table,
    header,
    notes,
    segments_header,
    segments_notes,
    title,
)

__all__ = ["segments_html", "summary_html"]

Rows = list[tuple[Sequence[Hashable], list[str]]]
Pairs = list[tuple[str, str]]

MAX_ROWS = 60  # a table longer than this is cut in the middle
MOST_AT_ONCE = 2000  # coefficients whose standard errors take a second at most
LATER = "Standard errors of so many coefficients take a while; they are in coef_table()."
CELL = ' style="text-align:right"'


def summary_html(fit: Measures, *, alpha: float = 0.05, max_rows: int = MAX_ROWS) -> str:
    """The fit as HTML; the numbers are those of `summary`, labels are escaped."""
    names, rows = equation_table(fit)
    equations = _table("Equations", ["equation", *names], rows, max_rows)
    return _page(fit, title(fit), header(fit), notes(fit), alpha, max_rows, equations)


def segments_html(
    fit: Reported, of_sigma: list[tuple[str, str]], *, alpha: float = 0.05, max_rows: int = MAX_ROWS
) -> str:
    """A fit with a Sigma for each segment as HTML.  of_sigma : what there is to say of those."""
    return _page(fit, SEGMENTS_TITLE, segments_header(fit, of_sigma), segments_notes(fit), alpha, max_rows)


def _page(
    fit: Reported, caption: str, pairs: Pairs, said: list[str], alpha: float, max_rows: int, more: str = ""
) -> str:
    top = "".join(
        f"<tr>{_label(a)}{_value(b)}{_label(c)}{_value(d)}</tr>"
        for (a, b), (c, d) in zip_longest(pairs[::2], pairs[1::2], fillvalue=("", ""))
    )
    names, rows, missing = coefficient_table(fit, alpha, LATER if fit.n_coefficients > MOST_AT_ONCE else "")
    parts = [f"<table><caption>{escape(caption)}</caption><tbody>{top}</tbody></table>"]
    parts += [f"<p>{escape(note)}</p>" for note in [*said, *([missing] if missing else [])]]
    parts += [_table("Coefficients", ["equation", "regressor", *names], rows, max_rows), more]
    return f"<div>{''.join(parts)}</div>"


def _table(caption: str, names: Sequence[str], rows: Rows, max_rows: int) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = [f"<tr>{''.join(map(_label, labels))}{''.join(map(_value, cells))}</tr>" for labels, cells in rows]
    if len(lines) > max_rows:
        half = max_rows // 2
        gap = f'<tr><td colspan="{len(names)}">... {len(lines) - 2 * half:,} more rows ...</td></tr>'
        lines = [*lines[:half], gap, *lines[-half:]]
    body = "".join(lines)
    return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _label(text: Hashable) -> str:
    return f"<th>{escape(str(text))}</th>"


def _value(text: str) -> str:
    return f"<td{CELL}>{escape(text)}</td>"
