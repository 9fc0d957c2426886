"""A fit as text, and the labelled cells of its tables, which every rendering shares."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lrgls_dask.results.estimates import Estimates

if TYPE_CHECKING:
    from lrgls_dask.results.fit import Fit

__all__ = [
    "WIDTH",
    "coefficient_lines",
    "coefficient_table",
    "equation_table",
    "header",
    "notes",
    "pairs",
    "summary",
    "title",
]


MAX_ROWS = 200  # a table longer than this is cut in the middle
WIDTH = 96


def summary(fit: Fit, *, alpha: float = 0.05, max_rows: int = MAX_ROWS) -> str:
    """The fit in one page: what was fitted, how it ended, the coefficients equation by equation."""
    lines = [title(fit), "=" * WIDTH, *pairs(header(fit)), *notes(fit)]
    tables = [*coefficient_lines(fit, alpha, max_rows), "-" * WIDTH, *_equations(fit, max_rows)]
    lines += ["-" * WIDTH, *tables, "=" * WIDTH]
    return "\n".join(lines)


def title(fit: Fit) -> str:
    """What kind of model, and how it was fitted."""
    method = "one-step feasible GLS" if fit.algorithm == "fgls" else "iterated GLS" if fit.debiased else "ML"
    debiased = ", debiased" if fit.debiased else ""
    return f"Seemingly unrelated regressions, {fit.covariance.describe().formula}; {method}{debiased}"


def header(fit: Fit) -> list[tuple[str, str]]:
    """What was fitted and how it ended, as names and values."""
    sigma = fit.covariance.describe()
    return [
        ("Observations", f"{fit.n_obs:,}"),
        ("Log-likelihood", f"{fit.loglik:.6g}" if abs(fit.loglik) < 1e5 else f"{fit.loglik:,.2f}"),
        ("Equations", f"{fit.n_equations:,}"),
        ("AIC", f"{fit.aic:,.2f}"),
        ("Coefficients", f"{fit.n_coefficients:,}"),
        ("BIC", f"{fit.bic:,.2f}"),
        ("Factors (rank)", sigma.factors),
        ("nll per row", f"{fit.nll:.8f}"),
        ("Engine", f"{fit.engine}, {fit.n_passes} pass{'' if fit.n_passes == 1 else 'es'} over the data"),
        ("Ended", f"{fit.termination.value} after {fit.n_sweeps} sweep{'' if fit.n_sweeps == 1 else 's'}"),
        ("Starts", f"{fit.n_agreed} of {fit.n_starts} reached this optimum"),
        ("Penalties", f"lam_B = {fit.lam_B:g}, {sigma.penalty.format(l1=fit.l1, lam_F=fit.lam_F)}"),
        ("Residual df", f"{fit.df_resid:,}"),
        ("Std errors", f"{fit.cov_kind}{f' ({fit.cov_note})' if fit.cov_note else ''}"),
        ("Restrictions", f"{0 if fit.restrictions is None else fit.restrictions.n_restrictions}"),
        ("McElroy R2", _mcelroy(fit)),
    ]


def _mcelroy(fit: Fit) -> str:
    if fit.cells is not None:
        return "needs complete rows"
    return "not kept by a streamed fit" if fit.compressed is None else f"{fit.mcelroy_r2():.6f}"


def notes(fit: Fit) -> list[str]:
    """Restrictions, missing responses, and which variances ended on their floor."""
    lines = [f"Restriction: {text}" for text in (() if fit.restrictions is None else fit.restrictions.texts)]
    if fit.cells is not None:
        seen, all_cells = fit.n_cells, fit.n_obs * fit.n_equations
        atleast = "" if fit.engine == "compress" else "at least "
        lines.append(
            f"Missing responses: {all_cells - seen:,} of {all_cells:,} ({1 - seen / all_cells:.1%}), in "
            f"{atleast}{fit.n_patterns:,} patterns; rows that show none are not counted"
        )
    if fit.missing == "drop":
        lines.append(f"Rows left out for a missing response: {fit.n_dropped:,}")
    if len(fit.on_floor):
        lines.append(f"Variance on its floor (Heywood case): {', '.join(map(str, fit.on_floor))}")
    return lines


def coefficient_table(fit: Estimates, alpha: float) -> tuple[list[str], list[tuple[Sequence[Hashable], list[str]]]]:
    """Names of the columns, and for each coefficient its (equation, regressor) and cells."""
    formats = {"coef": ".5g", "std_err": ".5g", "t": ".2f", "p": ".3f", "low": ".5g", "high": ".5g"}
    table = fit.coef_table(alpha=alpha)
    columns = [table[name].map(lambda value, form=form: format(value, form)) for name, form in formats.items()]
    cells = [list(row) for row in zip(*columns, strict=True)]
    percent = f"{100 * (1 - alpha):g}%"
    return ["coef", "std err", "t", "P>|t|", f"{percent} low", "high"], list(zip(table.index, cells, strict=True))


def equation_table(fit: Fit) -> tuple[list[str], list[tuple[Sequence[Hashable], list[str]]]]:
    """Names of the columns, and for each equation its label and cells."""
    columns: dict[str, list[str]] = {}
    if fit.cells is not None:
        columns["rows"] = [f"{count:,}" for count in fit.cells.tolist()]
    columns |= {"error sd": [f"{variance**0.5:.5g}" for variance in fit.sigma_diagonal]}
    own = fit.covariance.own_variances()
    if len(own):
        columns["own sd"] = [f"{variance**0.5:.5g}" for variance in own]
        columns["common share"] = [f"{1 - a / b:.3f}" for a, b in zip(own, fit.sigma_diagonal, strict=True)]
    known = fit.compressed is not None or fit.sums is not None
    shares = fit.r2.values if known else np.full(fit.n_equations, np.nan)
    columns["R2"] = ["-" if np.isnan(share) else f"{share:.4f}" for share in shares]
    cells = zip(*columns.values(), strict=True)
    return list(columns), [((name,), list(row)) for name, row in zip(fit.equations, cells, strict=True)]


def pairs(items: list[tuple[str, str]]) -> list[str]:
    """Names and values in two columns."""
    cells = [f"{name + ':':<17}{value}" for name, value in items]
    left = max(len(cell) for cell in cells[::2]) + 3
    return [f"{a:<{left}}{b}" for a, b in zip(cells[::2], cells[1::2], strict=True)]


def coefficient_lines(fit: Estimates, alpha: float, max_rows: int) -> list[str]:
    """The table of coefficients, equation by equation."""
    widths = (12, 12, 9, 8, 12, 11)
    names, rows = coefficient_table(fit, alpha)
    lines, last = [f"{'':<28}{_right(names, widths)}"], None
    for (equation, regressor), cells in rows:
        if equation != last:
            lines.append(f"{equation}")
            last = equation
        lines.append(f"  {str(regressor)[:25]:<26}{_right(cells, widths)}")
    return _cut(lines, max_rows)


def _equations(fit: Fit, max_rows: int) -> list[str]:
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
