"""A fit as a notebook shows it: the tables of the text summary as plain HTML, no scripts, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from html import escape

from lrgls_dask.results.measures import Measures
from lrgls_dask.results.text import coefficient_table, equation_table, header, notes, title

__all__ = ["summary_html"]

Rows = list[tuple[Sequence[Hashable], list[str]]]

MAX_ROWS = 60  # a table longer than this is cut in the middle
MOST_AT_ONCE = 2000  # coefficients whose standard errors take a second at most
CELL = ' style="text-align:right"'


def summary_html(fit: Measures, *, alpha: float = 0.05, max_rows: int = MAX_ROWS) -> str:
    """The fit as HTML; the numbers are those of `summary`, labels are escaped."""
    pairs = header(fit)
    top = "".join(
        f"<tr>{_label(a)}{_value(b)}{_label(c)}{_value(d)}</tr>"
        for (a, b), (c, d) in zip(pairs[::2], pairs[1::2], strict=True)
    )
    names, rows, missing = _coefficients(fit, alpha)
    said = [*notes(fit), *([missing] if missing else [])]
    parts = [f"<table><caption>{escape(title(fit))}</caption><tbody>{top}</tbody></table>"]
    parts += [f"<p>{escape(note)}</p>" for note in said]
    parts += [_table("Coefficients", ["equation", "regressor", *names], rows, max_rows)]
    names, rows = equation_table(fit)
    parts += [_table("Equations", ["equation", *names], rows, max_rows)]
    return f"<div>{''.join(parts)}</div>"


def _coefficients(fit: Measures, alpha: float) -> tuple[list[str], Rows, str]:
    """Names, labelled cells, and a note on why there are no standard errors, if there are none."""
    missing = "Standard errors of so many coefficients take a while; they are in coef_table()."
    if fit.n_coefficients <= MOST_AT_ONCE:
        try:
            return *coefficient_table(fit, alpha), ""
        except ValueError as error:
            missing = str(error)
    labels = zip(fit.params["equation"].values, fit.params["regressor"].values, strict=True)
    return ["coef"], [(label, [f"{b:.5g}"]) for label, b in zip(labels, fit.coefficients, strict=True)], missing


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
