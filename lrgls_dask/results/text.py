"""A fit as text, and the labelled cells of its tables, which every rendering shares."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Hashable, Sequence
from itertools import compress, zip_longest

import numpy as np

from lrgls_dask.checks import check_alpha
from lrgls_dask.design.penalties import said_of
from lrgls_dask.design.skipped import unusable_equations
from lrgls_dask.results.comparable import check_maximised
from lrgls_dask.results.measures import Measures
from lrgls_dask.results.reported import Reported

__all__ = [
    "SEGMENTS_TITLE",
    "coefficient_table",
    "equation_table",
    "header",
    "notes",
    "segments_header",
    "segments_notes",
    "segments_summary",
    "summary",
    "title",
]


MAX_ROWS = 200  # a table longer than this is cut in the middle
WIDTH = 96
SEGMENTS_TITLE = "Seemingly unrelated regressions, Sigma_t = F_t F_t' + diag(d_t) for each segment; local ML"
# What says why a number cannot be had (LinAlgError is a ValueError); a summary shows the others all the same.
NOT_TO_BE_HAD = (ValueError, ArithmeticError, MemoryError)


def summary(fit: Measures, *, alpha: float = 0.05, max_rows: int = MAX_ROWS) -> str:
    """The fit in one page: what was fitted, how it ended, the coefficients equation by equation."""
    lines = [title(fit), "=" * WIDTH, *pairs(header(fit)), *notes(fit)]
    tables = [*coefficient_lines(fit, alpha, max_rows), "-" * WIDTH, *_equations(fit, max_rows)]
    lines += ["-" * WIDTH, *tables, "=" * WIDTH]
    return "\n".join(lines)


def segments_summary(
    fit: Reported, of_sigma: list[tuple[str, str]], *, alpha: float = 0.05, max_rows: int = MAX_ROWS
) -> str:
    """A fit with a Sigma for each segment in one page.  of_sigma : what there is to say of those."""
    lines = [SEGMENTS_TITLE, "=" * WIDTH, *pairs(segments_header(fit, of_sigma))]
    lines += ["-" * WIDTH, *coefficient_lines(fit, alpha, max_rows), "=" * WIDTH]
    return "\n".join([*lines, *segments_notes(fit)])


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
    """Restrictions, weights, and rows that were left out."""
    return [*_skipped(fit), *_restrictions(fit), *_weights(fit), *_dropped(fit)]


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
    """Restrictions, weights, missing responses, why there is no AIC and BIC, which variances ended on their floor."""
    lines = [*_skipped(fit), *_restrictions(fit), *_weights(fit), *_absorbed(fit)]
    lines += fit.evidence.notes(fit.estimated)
    lines += _dropped(fit)
    try:
        check_maximised(fit.settings, fit.rank, "AIC or BIC")
    except ValueError as error:
        lines.append(str(error))
    if len(fit.on_floor):
        lines.append(f"Variance on its floor (Heywood case): {', '.join(map(str, fit.on_floor))}")
    return lines


def _skipped(fit: Reported) -> list[str]:
    if fit.skipped is None:
        return []
    return textwrap.wrap(unusable_equations(fit.equations, fit.skipped.status, " skipped"), WIDTH)


def _is_shown(fit: Reported, equation: Hashable) -> bool:
    """Whether tables have lines of an equation."""
    return fit.skipped is None or not fit.skipped.why(equation)


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


def coefficient_table(
    fit: Reported, alpha: float, missing: str = ""
) -> tuple[list[str], list[tuple[Sequence[Hashable], list[str]]], str]:
    """Names of the columns, for each coefficient its (equation, regressor) and cells, and what to say of the table.

    That is why there are no standard errors where there are none: the coefficients are shown without them. Raises
    ValueError for an alpha that is none.  missing : why they are not asked for.
    """
    check_alpha(alpha)
    if not missing:
        try:
            return *_with_errors(fit, alpha), ""
        except NOT_TO_BE_HAD as error:
            missing = f"No standard errors, t, p and intervals: {error}"
    labels = zip(fit.params["equation"].values, fit.params["regressor"].values, strict=True)
    rows = [(label, [f"{b:.5g}"]) for label, b in zip(labels, fit.params.values, strict=True)]
    return ["coef"], [row for row in rows if _is_shown(fit, row[0][0])], missing


def _with_errors(fit: Reported, alpha: float) -> tuple[list[str], list[tuple[Sequence[Hashable], list[str]]]]:
    formats = {"coef": ".5g", "std_err": ".5g", "t": ".2f", "p": ".3f", "low": ".5g", "high": ".5g"}
    table = fit.coef_table(alpha=alpha)
    columns = [table[name].map(lambda value, form=form: format(value, form)) for name, form in formats.items()]
    cells = [list(row) for row in zip(*columns, strict=True)]
    percent = f"{100 * (1 - alpha):g}%"
    letter = fit.reference.letter
    names = ["coef", "std err", letter, f"P>|{letter}|", f"{percent} low", "high"]
    return names, [row for row in zip(table.index, cells, strict=True) if _is_shown(fit, row[0][0])]


def equation_table(fit: Measures) -> tuple[list[str], list[tuple[Sequence[Hashable], list[str]]]]:
    """Names of the columns, and for each equation its label and cells."""
    columns: dict[str, list[str]] = {}
    if fit.cells is not None:
        columns["rows"] = [f"{count:,}" for count in fit.cells.tolist()]
    columns |= {"error sd": [f"{variance**0.5:.5g}" for variance in fit.sigma_diagonal]}
    own = fit.covariance.own_variances()
    if len(own):
        own = fit.idio_var.values
        columns["own sd"] = [f"{variance**0.5:.5g}" for variance in own]
        columns["common share"] = [f"{1 - a / b:.3f}" for a, b in zip(own, fit.sigma_diagonal, strict=True)]
    shares = fit.r2.values if fit.evidence.has_sums() else np.full(fit.n_equations, np.nan)
    columns["R2"] = ["-" if np.isnan(share) else f"{share:.4f}" for share in shares]
    cells = zip(*columns.values(), strict=True)
    shown = [_is_shown(fit, name) for name in fit.equations]
    lines = [((name,), list(row)) for name, row in zip(fit.equations, cells, strict=True)]
    return list(columns), list(compress(lines, shown))


def pairs(items: list[tuple[str, str]]) -> list[str]:
    """Names and values in two columns, the last one alone where they are odd."""
    cells = [f"{name + ':':<17}{value}" for name, value in items]
    left = max(len(cell) for cell in cells[:-1:2]) + 3
    return [f"{a:<{left}}{b}".rstrip() for a, b in zip_longest(cells[::2], cells[1::2], fillvalue="")]


def coefficient_lines(fit: Reported, alpha: float, max_rows: int) -> list[str]:
    """The table of coefficients, equation by equation."""
    widths = (12, 12, 9, 8, 12, 11)
    names, rows, missing = coefficient_table(fit, alpha)
    lines, last = [f"{'':<28}{_right(names, widths[: len(names)])}"], None
    for (equation, regressor), cells in rows:
        if equation != last:
            lines.append(f"{equation}")
            last = equation
        lines.append(f"  {str(regressor)[:25]:<26}{_right(cells, widths[: len(cells)])}")
    return [*_cut(lines, max_rows), *textwrap.wrap(missing, WIDTH)]


def _equations(fit: Measures, max_rows: int) -> list[str]:
    names, rows = equation_table(fit)
    widths = [14 if name == "common share" else 12 for name in names]
    lines = [f"{'Equation':<28}{_right(names, widths)}"]
    lines += [f"{str(label)[:27]:<28}{_right(cells, widths)}" for (label,), cells in rows]
    return _cut(lines, max_rows)


def _right(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def _cut(lines: list[str], max_rows: int) -> list[str]:
    if len(lines) <= max_rows:
        return lines
    half = max_rows // 2
    return [*lines[:half], f"  ... {len(lines) - 2 * half:,} more lines, all in coef_table() ...", *lines[-half:]]
