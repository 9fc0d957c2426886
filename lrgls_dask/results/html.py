"""A fit as a notebook shows it: the tables of the text summary as one page."""

from __future__ import annotations

from lrgls_dask.page import facts, paragraphs, shown_page, table
from lrgls_dask.results.excerpt import equation_name
from lrgls_dask.results.measures import Measures
from lrgls_dask.results.reported import Reported
from lrgls_dask.results.text import (
    MOST_ROWS,
    SEGMENTS_TITLE,
    coefficient_table,
    dims_of,
    equation_table,
    header,
    notes,
    segments_header,
    segments_notes,
    title,
)

__all__ = ["segments_html", "summary_html"]


def summary_html(fit: Measures, *, alpha: float = 0.05, max_rows: int = MOST_ROWS) -> str:
    """The fit as HTML; what it says is what `summary` says, labels are escaped."""
    found = equation_table(fit, everything=False)
    rows = zip(([label] for label in found.labels), found.cells, strict=True)
    equations = table("Equations", [dims_of(fit)], found.names, rows, found.rule)
    return shown_page(
        title(fit), facts(header(fit)), paragraphs(notes(fit)), _coefficients(fit, alpha, max_rows), equations
    )


def segments_html(
    fit: Reported, of_sigma: list[tuple[str, str]], *, alpha: float = 0.05, max_rows: int = MOST_ROWS
) -> str:
    """A fit with a Sigma for each segment as HTML.  of_sigma : what there is to say of those."""
    said = paragraphs(segments_notes(fit))
    return shown_page(SEGMENTS_TITLE, facts(segments_header(fit, of_sigma)), said, _coefficients(fit, alpha, max_rows))


def _coefficients(fit: Reported, alpha: float, max_rows: int) -> str:
    found = coefficient_table(fit, alpha, max_rows)
    labels = ((equation_name(fit, position), term) for position, term in found.labels)
    rows = zip(labels, found.cells, strict=True)
    return table("Coefficients", [dims_of(fit), "regressor"], found.names, rows, " ".join(found.said))
