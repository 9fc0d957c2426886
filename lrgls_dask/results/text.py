"""A fit as text, and the labelled cells of its tables, which every rendering shares."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from lrgls_dask.checks import check_alpha
from lrgls_dask.design.penalties import said_of
from lrgls_dask.design.skipped import LISTED, OK, unusable_equations
from lrgls_dask.results.comparable import check_maximised
from lrgls_dask.results.excerpt import coefficients_shown, dims_called, equation_name, equations_shown
from lrgls_dask.results.measures import Measures
from lrgls_dask.results.reported import Reported
from lrgls_dask.results.tidy import NOT_TO_BE_HAD, estimates_of, numbers_of
from lrgls_dask.solve.record import Termination

__all__ = [
    "MOST_ROWS",
    "SEGMENTS_TITLE",
    "coefficient_table",
    "cut_in_the_middle",
    "dims_of",
    "equation_table",
    "header",
    "notes",
    "segments_header",
    "segments_notes",
    "segments_summary",
    "summary",
    "title",
]

MOST_ROWS = 24  # coefficients that a page shows, unless all are asked for
WIDTH = 96
LABEL, LONGEST = 28, 44  # columns of labels, and what they may grow to; a longer one is cut in the middle, with a sign
SEGMENTS_TITLE = "Seemingly unrelated regressions, Sigma_t = F_t F_t' + diag(d_t) for each segment; local ML"


@dataclass(frozen=True, eq=False)
class CoefficientTable:
    """names : of columns.  labels : position of the equation, and term, of each row.  said : what to say below."""

    names: list[str]
    labels: list[tuple[int, str]]
    cells: list[list[str]]
    said: list[str]


@dataclass(frozen=True, eq=False)
class EquationTable:
    """names : of columns.  labels : of equations.  rule : by which they were chosen, none where they are all."""

    names: list[str]
    labels: list[str]
    cells: list[list[str]]
    rule: str


def summary(fit: Measures, *, alpha: float = 0.05, max_rows: int | None = MOST_ROWS) -> str:
    """The fit in one page: what was fitted, how it ended, what needs attention, some coefficients and equations.

    max_rows : coefficients at most, None for all of them and of the equations.
    """
    lines = [title(fit), "=" * WIDTH, *pairs(header(fit)), *_wrapped(notes(fit))]
    tables = [*coefficient_lines(fit, alpha, max_rows), "-" * WIDTH, *_equations(fit, max_rows is None)]
    lines += ["-" * WIDTH, *tables, "=" * WIDTH]
    return "\n".join(lines)


def segments_summary(
    fit: Reported, of_sigma: list[tuple[str, str]], *, alpha: float = 0.05, max_rows: int | None = MOST_ROWS
) -> str:
    """A fit with a Sigma for each segment in one page.  of_sigma : what there is to say of those."""
    lines = [SEGMENTS_TITLE, "=" * WIDTH, *pairs(segments_header(fit, of_sigma))]
    lines += _wrapped(segments_notes(fit))
    lines += ["-" * WIDTH, *coefficient_lines(fit, alpha, max_rows), "=" * WIDTH]
    return "\n".join(lines)


def segments_header(fit: Reported, of_sigma: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What was fitted and how it ended, as names and values."""
    return [
        *_likelihood(fit),
        *of_sigma,
        ("Reads", f"{_passes(fit)} over the data"),
        ("Restrictions", f"{fit.n_restrictions}"),
        ("Std errors", _behind(fit)),
        ("Ended", _ended(fit)),
        ("P-values", str(fit.reference)),
    ]


def segments_notes(fit: Reported) -> list[str]:
    """What needs attention, restrictions, weights, and rows that were left out."""
    return [*_attention(fit), *_restrictions(fit), *_weights(fit), *_dropped(fit)]


def title(fit: Measures) -> str:
    """What kind of model, and how it was fitted."""
    steps = {"fgls": "one-step feasible GLS", "ols": "OLS"}
    method = steps.get(fit.settings.algorithm, "iterated GLS" if fit.settings.debiased else "ML")
    how = fit.settings.debiased
    debiased = "" if how is False else ", debiased" if how is True else f", debiased ({how})"
    return f"Seemingly unrelated regressions, {fit.covariance.describe().formula}; {method}{debiased}"


def header(fit: Measures) -> list[tuple[str, str]]:
    """What was fitted and how it ended, as names and values."""
    sigma = fit.covariance.describe()
    return [
        *_likelihood(fit),
        ("Factors (rank)", sigma.factors),
        ("nll per row", f"{fit.nll:.8f}"),
        ("Engine", f"{fit.run.engine}, {_passes(fit)} over the data"),
        ("Ended", _ended(fit)),
        ("Starts", f"{fit.run.n_agreed} of {fit.run.n_starts} reached this optimum"),
        ("Penalties", f"lam_B = {said_of(fit.lam_B)}, {sigma.penalty.format(l1=fit.l1, lam_F=fit.lam_F)}"),
        ("Residual df", f"{fit.df_resid:,}"),
        ("Std errors", _behind(fit)),
        ("Restrictions", f"{fit.n_restrictions}"),
        ("McElroy R2", _mcelroy(fit)),
        ("P-values", str(fit.reference)),
    ]


def _likelihood(fit: Reported) -> list[tuple[str, str]]:
    return [
        ("Observations", f"{fit.n_obs:,}"),
        ("Log-likelihood", f"{fit.loglik:.6g}" if abs(fit.loglik) < 1e5 else f"{fit.loglik:,.2f}"),
        ("Equations", f"{fit.n_equations:,}"),
        ("AIC", _if_any(lambda: f"{fit.aic:,.2f}")),
        ("Coefficients", f"{fit.n_coefficients:,}"),
        ("BIC", _if_any(lambda: f"{fit.bic:,.2f}")),
    ]


def _if_any(value: Callable[[], str]) -> str:
    """The value, or a dash where there is none."""
    try:
        return value()
    except NOT_TO_BE_HAD:
        return "-"


def _passes(fit: Reported) -> str:
    return f"{fit.n_passes} pass{'' if fit.n_passes == 1 else 'es'}"


def _ended(fit: Reported) -> str:
    return f"{fit.termination.value} after {fit.n_sweeps} sweep{'' if fit.n_sweeps == 1 else 's'}"


def _behind(fit: Reported) -> str:
    return f"{fit.cov_kind}{f' ({fit.cov_note})' if fit.cov_note else ''}"


def _restrictions(fit: Reported) -> list[str]:
    return [f"Restriction: {text}" for text in (() if fit.restrictions is None else fit.restrictions.texts)]


def _mcelroy(fit: Measures) -> str:
    return fit.evidence.system_measures or _if_any(lambda: f"{fit.mcelroy_r2():.6f}")


def notes(fit: Measures) -> list[str]:
    """What needs attention, restrictions, weights, missing responses, why there is no AIC and BIC."""
    lines = [*_attention(fit), *_floored(fit), *_restrictions(fit), *_weights(fit), *_absorbed(fit)]
    lines += fit.evidence.notes(fit.estimated)
    lines += _dropped(fit)
    try:
        check_maximised(fit.settings, fit.rank, "AIC or BIC")
    except ValueError as error:
        lines.append(str(error))
    return lines


def _attention(fit: Reported) -> list[str]:
    """That it did not converge, and which equations were skipped."""
    lines = []
    if fit.termination is not Termination.CONVERGED:
        lines.append(f"Not converged: {fit.termination.value}; see trace")
    if fit.skipped is not None:
        lines.append(unusable_equations(fit.equations, fit.skipped.status, " skipped"))
    return lines


def _floored(fit: Measures) -> list[str]:
    """Which variances ended on their floor."""
    names = [str(name) for name in fit.on_floor]
    if not names:
        return []
    more = f" and {len(names) - LISTED:,} more of {fit.n_equations:,}, see status" if len(names) > LISTED else ""
    return [f"Variance on its floor (Heywood case): {', '.join(names[:LISTED])}{more}"]


def _weights(fit: Reported) -> list[str]:
    weighted = fit.estimated.weighted
    return [f"Weights: of {weighted}; Sigma is that of weight one"] if weighted else []


def _absorbed(fit: Measures) -> list[str]:
    absorbed = fit.design.absorbed
    if absorbed is None:
        return []
    lines = []
    for name, groups, single in zip(absorbed.names, absorbed.n_groups, absorbed.n_single, strict=True):
        alone = f", {single:,} of one row, which say nothing of coefficients" if single else ""
        lines.append(f"Effects absorbed: {name}, {groups:,} groups{alone}")
    redundant = absorbed.n_redundant
    atleast = "" if absorbed.is_exact else "at least "
    others = f", {atleast}{redundant:,} less than groups, which others determine" if redundant else ""
    lines.append(f"Parameters absorbed: {absorbed.n_parameters:,} of every equation{others}")
    within = fit.r2_within.values
    lines.append(f"R2 within: {', '.join(f'{value:.4f}' for value in within[:6])}{', ...' if len(within) > 6 else ''}")
    return lines


def _dropped(fit: Reported) -> list[str]:
    return [f"Rows left out for a missing response: {fit.n_dropped:,}"] if fit.missing == "drop" else []


def coefficient_table(fit: Reported, alpha: float, most: int | None) -> CoefficientTable:
    """The coefficients that a page shows, see `coefficients_shown`; no others' errors are computed where that costs.

    Where there are no standard errors the coefficients are shown without them, and why. Raises ValueError for an alpha
    that is none.
    """
    check_alpha(alpha)
    shown = coefficients_shown(fit, most)
    said = [shown.rule] if shown.rule else []
    labels = list(zip(shown.chosen.equations.tolist(), map(str, shown.chosen.terms), strict=True))
    try:
        numbers = numbers_of(fit, shown.chosen, 1.0 - alpha)
    except NOT_TO_BE_HAD as error:
        cells = [[f"{value:.5g}"] for value in estimates_of(fit, shown.chosen).tolist()]
        return CoefficientTable(["coef"], labels, cells, [*said, f"No standard errors, t, p and intervals: {error}"])
    forms = (".5g", ".5g", ".2f", ".3f", ".5g", ".5g")
    cells = [[format(value, form) for value, form in zip(row, forms, strict=True)] for row in numbers.T.tolist()]
    letter = fit.reference.letter
    names = ["coef", "std err", letter, f"P>|{letter}|", f"{100 * (1 - alpha):g}% low", "high"]
    return CoefficientTable(names, labels, cells, said)


def equation_table(fit: Measures, everything: bool) -> EquationTable:
    """What there is to say of the equations that a page shows, see `equations_shown`."""
    chosen, rule = equations_shown(fit, everything)
    columns: dict[str, list[str]] = {}
    if fit.cells is not None:
        columns["rows"] = [f"{count:,}" for count in fit.cells[chosen].tolist()]
    variances = fit.sigma_diagonal[chosen]
    columns["error sd"] = [f"{variance**0.5:.5g}" for variance in variances]
    if len(fit.covariance.own_variances()):
        own = fit.idio_var.values[chosen]
        columns["own sd"] = [f"{variance**0.5:.5g}" for variance in own]
        columns["common share"] = [f"{1 - a / b:.3f}" for a, b in zip(own, variances, strict=True)]
    status = fit.status.values[chosen]
    if (status != OK).any():
        columns["status"] = status.tolist()
    shares = fit.r2.values[chosen] if fit.evidence.has_sums() else np.full(len(chosen), np.nan)
    columns["R2"] = ["-" if np.isnan(share) else f"{share:.4f}" for share in shares]
    cells = [list(row) for row in zip(*columns.values(), strict=True)]
    return EquationTable(list(columns), [equation_name(fit, j) for j in chosen.tolist()], cells, rule)


def pairs(items: list[tuple[str, str]]) -> list[str]:
    """Names and values in two columns, the last one alone where they are odd."""
    cells = [f"{name + ':':<17}{value}" for name, value in items]
    left = max(len(cell) for cell in cells[:-1:2]) + 3
    return [f"{a:<{left}}{b}".rstrip() for a, b in zip_longest(cells[::2], cells[1::2], fillvalue="")]


def coefficient_lines(fit: Reported, alpha: float, max_rows: int | None) -> list[str]:
    """The table of coefficients, equation by equation."""
    found = coefficient_table(fit, alpha, max_rows)
    least = (12, 12, 9, 8, 12, 11)[: len(found.names)]
    longest = (max(map(len, column)) for column in zip(*found.cells, strict=True))
    widths = [max(width, 1 + length) for width, length in zip_longest(least, longest, fillvalue=0)]
    label = _label_width([f"  {term}" for _, term in found.labels])
    lines, last = [f"{dims_of(fit):<{label}}{_right(found.names, widths)}"], None
    for (position, term), cells in zip(found.labels, found.cells, strict=True):
        if position != last:
            lines.append(equation_name(fit, position))
            last = position
        lines.append(f"  {cut_in_the_middle(term, label - 3):<{label - 2}}{_right(cells, widths)}")
    return [*lines, *_wrapped(found.said)]


def _wrapped(sentences: Sequence[str]) -> list[str]:
    """In lines that fit the page."""
    return [line for each in sentences for line in textwrap.wrap(each, WIDTH)]


def dims_of(fit: Reported) -> str:
    """What the user calls equations: the dim, or dims, that they lie on."""
    return dims_called(fit._whole, fit.equation_dim)


def _equations(fit: Measures, everything: bool) -> list[str]:
    found = equation_table(fit, everything)
    widths = [14 if name == "common share" else 12 for name in found.names]
    label = _label_width(found.labels)
    lines = [f"{dims_of(fit):<{label}}{_right(found.names, widths)}"]
    for name, cells in zip(found.labels, found.cells, strict=True):
        lines.append(f"{cut_in_the_middle(name, label - 1):<{label}}{_right(cells, widths)}")
    return [*lines, *_wrapped([found.rule])]


def _label_width(labels: Sequence[str]) -> int:
    return min(LONGEST, max([LABEL, *(len(label) + 1 for label in labels)]))


def cut_in_the_middle(text: str, width: int) -> str:
    """A text of at most so many letters; where some are left out there is a sign."""
    if len(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}"


def _right(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
