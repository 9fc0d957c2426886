"""What the page of a fit says, section by section; nothing is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from lrgls_dask.checks import check_level
from lrgls_dask.design.skipped import OK
from lrgls_dask.results.excerpt import coefficients_shown, dims_called
from lrgls_dask.results.measures import Measures
from lrgls_dask.results.report.cited import software, sources, versions
from lrgls_dask.results.report.drawn import Drawing, pictures
from lrgls_dask.results.report.long_tables import LongTable, labels, numbers, p_values, texts
from lrgls_dask.results.report.tested import Tested, tests_of
from lrgls_dask.results.report.words import call, in_words
from lrgls_dask.results.reported import Reported
from lrgls_dask.results.text import SEGMENTS_TITLE, header, notes, segments_header, segments_notes, title
from lrgls_dask.results.tidy import NOT_TO_BE_HAD, equation_columns, estimates_of, glance_by_equation, numbers_of

__all__ = ["Contents", "contents_of"]

MOST_ROWS = 50_000  # of coefficients, and of equations, that a page carries; some 5 MB
OF_EQUATIONS = {  # columns of `glance` by equation: what the page calls them, and their digits
    "n_obs": ("Rows", ",.0f"),
    "n_coefficients": ("Coefficients", ",.0f"),
    "r2": ("R2", ".4f"),
    "adj_r2": ("Adjusted R2", ".4f"),
    "error_sd": ("Error sd", ".5g"),
    "own_sd": ("Own sd", ".5g"),
    "common_share": ("Common share", ".3f"),
}
OF_STEPS = {  # columns of the trace, and what the page calls them
    "sweep": ("Sweep", "d"),
    "nll": ("nll per row", ".10g"),
    "obj": ("Objective", ".10g"),
    "accept_t": ("Step length", ".3g"),
    "cg_iterations": ("CG iterations", "d"),
    "passes": ("Passes", "d"),
    "bytes_read": ("Bytes read", ",d"),
    "seconds": ("Seconds", ".3g"),
}


@dataclass(frozen=True, eq=False)
class Contents:
    """Everything that a template puts on the page, as texts that it has to escape."""

    title: str
    subtitle: str
    words: list[str]
    attention: list[str]
    call: str
    facts: list[tuple[str, str]]
    costs: list[tuple[str, str]]
    reads: list[tuple[list[str], list[str]]]
    steps: LongTable
    candidates: LongTable | None
    coefficients: LongTable
    equations: LongTable
    tests: list[Tested]
    not_tested: list[str]
    pictures: list[Drawing]
    not_drawn: list[str]
    software: str
    sources: list[str]
    versions: list[tuple[str, str]]

    @property
    def tables(self) -> list[LongTable]:
        """Those that the script of the page shows."""
        made = [self.coefficients, self.equations, self.steps, self.candidates]
        return [each for each in made if each is not None]


def contents_of(fit: Reported, level: float) -> Contents:
    """The page of a fit.  level : coverage of intervals."""
    check_level(level)
    fit = _without_rows(fit)
    coefficients = _coefficients(fit, level)
    tests, not_tested = tests_of(fit)
    drawn, not_drawn = pictures(fit)
    one = isinstance(fit, Measures)
    of_sigma = [] if one else fit._of_sigma  # type: ignore[attr-defined]
    count = f"{fit.n_equations:,} equation{'' if fit.n_equations == 1 else 's'}"
    along = "" if fit.equation_dim == "equation" else f" along {dims_called(fit._whole, fit.equation_dim)}"
    return Contents(
        f"{count}{along}, {fit.n_obs:,} rows",
        title(fit) if isinstance(fit, Measures) else SEGMENTS_TITLE,
        in_words(fit),
        notes(fit) if isinstance(fit, Measures) else segments_notes(fit),
        call(fit),
        header(fit) if isinstance(fit, Measures) else segments_header(fit, of_sigma),
        _costs(fit),
        _reads(fit),
        _steps(fit),
        _candidates(fit),
        coefficients,
        _equations(fit),
        tests,
        not_tested,
        drawn,
        not_drawn,
        software(),
        sources(fit),
        versions(),
    )


def _without_rows(fit: Reported) -> Reported:
    """The same fit that has no rows to read, with the standard errors that are known already."""
    bare: Reported = replace(fit, system=None)  # type: ignore[type-var]
    if "_errors" in vars(fit):
        vars(bare)["_errors"] = fit._errors
    return bare


def _coefficients(fit: Reported, level: float) -> LongTable:
    found = coefficients_shown(fit, MOST_ROWS)
    chosen, said = found.chosen, [found.rule] if found.rule else []
    owners = equation_columns(fit._whole, chosen.equations)
    columns = [labels(_called(fit, name), values) for name, values in owners.items()]
    columns.append(labels("Regressor", chosen.terms))
    try:
        values = numbers_of(fit, chosen, level)
    except NOT_TO_BE_HAD as error:
        said.append(f"No standard errors, t, p and intervals: {error}")
        columns.append(numbers("Coefficient", estimates_of(fit, chosen), ".5g"))
        return LongTable("coefficients", "Coefficients", columns, said)
    letter, percent = fit.reference.letter, f"{100 * level:g}%"
    names = ("Coefficient", "Std. error", letter, "p", f"{percent} low", f"{percent} high")
    forms = (".5g", ".4g", ".2f", "", ".5g", ".5g")
    columns += [
        numbers(name, of_all, form) if form else p_values(name, of_all)
        for name, of_all, form in zip(names, values, forms, strict=True)
    ]
    return LongTable("coefficients", "Coefficients", columns, said)


def _called(fit: Reported, column: str) -> str:
    """What heads the labels of equations: the dim, which is ours where the user gave none."""
    if fit._whole.equation_dims:
        return column
    return dims_called(fit._whole, fit.equation_dim)


def _equations(fit: Reported) -> LongTable:
    """All of them, those that need attention first; no column without a number."""
    order = np.argsort(fit.status.values == OK, kind="stable")
    said = []
    if len(order) > MOST_ROWS:
        said.append(f"Shown: the first {MOST_ROWS:,}. The other {len(order) - MOST_ROWS:,}: glance('equation').")
        order = order[:MOST_ROWS]
    frame = glance_by_equation(fit, order)
    frame["error_sd"], frame["own_sd"] = frame["error_var"] ** 0.5, frame["idio_var"] ** 0.5
    frame["common_share"] = 1.0 - frame["idio_var"] / frame["error_var"]
    owners = equation_columns(fit._whole, order)
    columns = [labels(_called(fit, name), values) for name, values in owners.items()]
    columns.append(texts("Status", fit.status.values[order]))
    for name, (called, form) in OF_EQUATIONS.items():
        values = frame[name].to_numpy(dtype=float)
        if not np.isnan(values).all():
            columns.append(numbers(called, values, form))
    if not isinstance(fit, Measures):
        said.append("Sd and shares are those of variances averaged over the rows of all segments.")
    return LongTable("equations", "Equations", columns, said)


def _costs(fit: Reported) -> list[tuple[str, str]]:
    last = fit.run.history[-1]
    return [
        ("Engine", fit.run.engine),
        ("Passes over the data", f"{fit.n_passes:,}"),
        ("Bytes read", _bytes(fit.bytes_read)),
        ("Seconds", f"{last.seconds:.3g}"),
    ]


def _bytes(count: float) -> str:
    """In the largest unit of which there is one, once rounded."""
    power = min(int(np.log10(max(count / 0.9995, 1)) // 3), 5)
    return f"{count:,.0f} B" if power == 0 else f"{count / 1e3**power:.3g} {'kMGTP'[power - 1]}B"


def _reads(fit: Reported) -> list[tuple[list[str], list[str]]]:
    """What rows were read for: passes, bytes and seconds, each sort once."""
    sums: dict[str, np.ndarray] = {}
    before = np.zeros(3)
    for row in fit.run.history:
        now = np.array([row.passes, row.bytes_read, row.seconds])
        if row.read_for:
            sums[row.read_for] = sums.get(row.read_for, 0.0) + now - before
        before = now
    return [([name], [f"{n:,.0f}", _bytes(read), f"{took:.3g}"]) for name, (n, read, took) in sums.items()]


def _steps(fit: Reported) -> LongTable:
    """What the loop noted."""
    frame = pd.DataFrame(fit.run.trace)
    said = [] if isinstance(fit, Measures) else ["nll, here, is the local likelihood, in standard units."]
    columns = [texts("Step", frame["step"])]
    columns += [numbers(called, frame[name].to_numpy(), form) for name, (called, form) in OF_STEPS.items()]
    return LongTable("steps", "Iterations", columns, said)


def _candidates(fit: Reported) -> LongTable | None:
    """Among what the rank, penalty or bandwidth was chosen."""
    table = fit.selection  # type: ignore[attr-defined]
    if table is None:
        return None
    columns = [_candidate(str(name), values) for name, values in table.reset_index().items()]
    return LongTable("candidates", f"Candidates for {table.index.name}, by {table.attrs['criterion']}", columns)


def _candidate(name: str, values: Any) -> Any:
    called = name.replace("_", " ")
    if values.dtype == bool:
        return texts(called, np.where(values, "yes", "no"))
    return numbers(called, values.to_numpy(dtype=float), ".8g")
