"""Models side by side: coefficients with their errors below, statistics at the foot, and what does not compare.

Whether likelihoods may be tested against each other is said in `comparable`, whose view of responses this shares.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from lrgls_dask.checks import check_factors, check_level, closest, one_of, shown
from lrgls_dask.data.indices import as_levels
from lrgls_dask.results.chosen import labels_chosen
from lrgls_dask.results.comparable import differing_response
from lrgls_dask.results.like_statsmodels import EquationView
from lrgls_dask.results.measures import Measures
from lrgls_dask.results.model_grid import Block, ModelGrid
from lrgls_dask.results.reported import Reported
from lrgls_dask.results.tidy import NUMBERS, glance, glance_by_equation, tidy
from lrgls_dask.solve.record import Termination

__all__ = ["Comparison", "compare"]

Below = Literal["std_error", "statistic", "p_value", "conf_int", "none"]
BELOW = {
    "std_error": "Standard errors in parentheses.",
    "statistic": "Coefficient over standard error in brackets.",
    "p_value": "P-values in parentheses.",
    "conf_int": "Intervals of coverage {level:g} in brackets.",
    "none": "",
}
STARS = ((0.01, "***"), (0.05, "**"), (0.1, "*"))
STARRED = "* p < 0.1, ** p < 0.05, *** p < 0.01, of each coefficient by itself."
FOOT = {
    "n_obs": "Observations",
    "n_equations": "Equations",
    "n_coefficients": "Coefficients",
    "rank": "Factors",
    "loglik": "Log-likelihood",
    "aic": "AIC",
    "bic": "BIC",
    "mcelroy_r2": "McElroy R2",
    "r2": "R2",
    "adj_r2": "Adj. R2",
    "error_var": "Error variance",
    "cov_kind": "Std errors",
}
MOST_ROWS = 200  # coefficients that text and HTML show; the others are in to_frame()


def compare(
    fits: Mapping[str, Any] | Sequence[Any],
    *,
    equation: Any = None,
    term: Any = None,
    below: Below = "std_error",
    stars: bool = False,
    digits: int = 4,
    level: float = 0.95,
) -> Comparison:
    """Models side by side, a column each: a coefficient a row with its error below, statistics of fit at the foot.

    fits : `Fit` and `TimeVaryingFit`, or equations of them, fit["Telcm"]; named by a mapping, else (1), (2), ...
        Of equations alone terms are compared, whatever equation they are of.
    equation, term : which coefficients, as `Fit.tidy` takes them; what a model does not have stays empty, and standard
        errors of others are not computed.
    below : what stands under an estimate: "std_error", "statistic", "p_value", "conf_int" or "none".
    stars : * for p < 0.1, ** for p < 0.05, *** for p < 0.01, of each coefficient by itself.
    digits : significant ones.  level : coverage of the intervals.
    It prints as text, and has to_frame, to_text, to_markdown, to_latex, and HTML in a notebook. Notes below say where
    models have other rows, responses or equations, so that likelihoods do not compare, and which did not converge.
    Raises TypeError for what is no model, ValueError for labels that no model has, and for a choice of equations among
    models that are each one.
    """
    one_of("below", below, tuple(BELOW))
    check_level(level)
    check_factors("digits", digits, least=1)
    models = _models(fits)
    alone = all(model.equation is not None for model in models.values())
    if alone and equation is not None:
        raise ValueError(
            f"these models are one equation each, and equation={equation!r} has nothing to choose among them. Leave it "
            "out, or compare the fits themselves."
        )
    chosen = _chosen(list(models.values()), equation, term)
    tables = {name: model.coefficients(*chosen, level, alone) for name, model in models.items()}
    keys = list(dict.fromkeys(key for table in tables.values() for key in table))
    first = {equation: i for i, equation in reversed(list(enumerate(dict.fromkeys(key[0] for key in keys))))}
    keys.sort(key=lambda key: first[key[0]])  # terms that only a later model has stand with their equation
    numbers = {
        (name, number): [table.get(key, EMPTY)[i] for key in keys]
        for name, table in tables.items()
        for i, number in enumerate(NUMBERS)
    }
    index = as_levels({"equation": [key[0] for key in keys], "term": [key[1] for key in keys]})
    coefficients = pd.DataFrame(numbers, index)
    rows = {name: model.foot() for name, model in models.items()}
    foot = pd.DataFrame({name: {key: row.get(key) for key in FOOT} for name, row in rows.items()}, dtype=object)
    notes = [BELOW[below].format(level=level)] if below != "none" else []
    notes += [STARRED] if stars else []
    said = (*notes, *_differences(models))
    heads = {name: str(model.equation) for name, model in models.items()} if alone else {}
    return Comparison(coefficients, foot.dropna(how="all"), said, heads, below, stars, digits)


EMPTY = (float("nan"),) * len(NUMBERS)


@dataclass(frozen=True, eq=False)
class _Model:
    """A fit, or one equation of it."""

    fit: Reported
    equation: Hashable = None

    @property
    def equations(self) -> tuple[Hashable, ...]:
        return self.fit.equations if self.equation is None else (self.equation,)

    @property
    def terms(self) -> list[Hashable]:
        whole = self.fit._whole
        own = whole.terms if self.equation is None else [whole.terms[whole.equations.index(self.equation)]]
        return list(dict.fromkeys(term for each in dict.fromkeys(own) for term in each))

    def coefficients(
        self, equations: set[Hashable] | None, terms: set[Hashable] | None, level: float, alone: bool
    ) -> dict[tuple[Hashable, Hashable], tuple[float, ...]]:
        """(equation, term) to the numbers of `tidy`; the equation is no part of the name where each model is one."""
        wanted = [name for name in self.equations if equations is None or alone or name in equations]
        of = [term for term in self.terms if terms is None or term in terms]
        if not wanted or not of:
            return {}
        every = equations is None and self.equation is None
        found = tidy(self.fit, None if every else wanted, None if terms is None else of, level)
        whole = self.fit._whole
        places = range(whole.n_equations) if every else [whole.equations.index(name) for name in wanted]
        keys = [
            ("" if alone else whole.equations[j], term)
            for j in sorted(places)
            for term in whole.terms[j]
            if terms is None or term in terms
        ]
        return dict(zip(keys, found[list(NUMBERS)].itertuples(index=False, name=None), strict=True))

    def foot(self) -> dict[str, Any]:
        """Statistics of fit by name."""
        if self.equation is None:
            return dict(glance(self.fit).iloc[0])
        place = self.fit._whole.equations.index(self.equation)
        row = glance_by_equation(self.fit, np.array([place])).iloc[0]
        return {name: row[name] for name in ("n_obs", "r2", "adj_r2", "error_var")} | {"cov_kind": self.fit.cov_kind}


def _models(fits: Any) -> dict[str, _Model]:
    """By name. Raises TypeError for what is no model."""
    if isinstance(fits, Reported | EquationView):
        raise TypeError("compare takes several fits. Put them into a list: compare([one, other]).")
    if not isinstance(fits, Iterable):
        raise TypeError(f"compare takes a list of fits, or a mapping from names to them; got {type(fits).__name__}.")
    named = dict(fits) if isinstance(fits, Mapping) else {f"({i})": fit for i, fit in enumerate(fits, 1)}
    if not named:
        raise ValueError("compare takes at least one fit. Put fits into a list: compare([one, other]).")
    models: dict[str, _Model] = {}
    for name, fit in named.items():
        if str(name) in models:
            raise ValueError(f"two models are called {str(name)!r} as text. Give them names that differ as text.")
        if isinstance(fit, EquationView):
            models[str(name)] = _Model(fit.fit, fit.name)
        elif isinstance(fit, Reported):
            models[str(name)] = _Model(fit)
        else:
            raise TypeError(
                f"compare takes fits, and equations of fits; {name} is a {type(fit).__name__}. Pass "
                "LowRankGLS(...).fit(system).result_."
            )
    return models


def _chosen(models: list[_Model], equation: Any, term: Any) -> tuple[set[Hashable] | None, set[Hashable] | None]:
    """Labels of equations and terms that are asked for, of those that some model has; None for all."""
    terms = list(dict.fromkeys(each for model in models for each in model.terms))
    wanted = None if term is None else set(labels_chosen("term", terms, term))
    if equation is None:
        return None, wanted
    if isinstance(equation, Mapping):
        return _on_dims(models, equation), wanted
    equations = list(dict.fromkeys(each for model in models for each in model.equations))
    return set(labels_chosen("equation", equations, equation)), wanted


def _on_dims(models: list[_Model], wanted: Mapping[Hashable, Any]) -> set[Hashable]:
    """Labels of the equations that have these labels on these dims, of any model that lies on them."""
    every = [
        (whole, fit.equation_dim, whole.equation_dims or {fit.equation_dim: whole.equations})
        for fit, whole in ((model.fit, model.fit._whole) for model in models)
    ]
    chosen: dict[Hashable, list[Hashable]] = {}
    for name, labels in wanted.items():
        known = list(dict.fromkeys(label for *_, dims in every for label in dims.get(name, ())))
        if not known:
            there = list(dict.fromkeys(dim for *_, dims in every for dim in dims))
            raise ValueError(f"equations lie on {shown(there)}, not on {name!r}{closest(name, there)}")
        chosen[name] = labels_chosen(str(name), known, labels)
    found: set[Hashable] = set()
    for whole, dim, dims in every:
        own = {name: [label for label in labels if label in dims.get(name, ())] for name, labels in chosen.items()}
        if all(own.values()):
            found.update(labels_chosen("equation", whole.equations, own, whole, dim))
    return found


def _differences(models: dict[str, _Model]) -> list[str]:
    """What does not compare, and what is no estimate yet."""
    (first, one), *others = models.items()
    alone = all(model.equation is not None for model in models.values())
    counts = {name: model.fit.n_obs for name, model in models.items()}
    cells = {name: model.fit.n_cells for name, model in models.items()}
    notes = []
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        notes.append(f"Fitted to different rows ({said}): log-likelihood, AIC and BIC do not compare.")
    elif not alone and len(set(cells.values())) > 1:
        said = ", ".join(f"{name} {count:,}" for name, count in cells.items())
        notes.append(f"Fitted to different responses ({said} observed): log-likelihood, AIC and BIC do not compare.")
    for name, other in others if not alone else ():
        lacking = [each for each in one.equations if each not in set(other.equations)]
        more = [each for each in other.equations if each not in set(one.equations)]
        if lacking or more:
            sides = [f"lacks {shown(lacking)}"] if lacking else []
            sides += [f"has {shown(more)} besides"] if more else []
            notes.append(f"{name} {' and '.join(sides)}, beside {first}: log-likelihood, AIC and BIC do not compare.")
        elif counts[name] == counts[first] and cells[name] == cells[first]:
            notes += _other_cells(first, one.fit, name, other.fit)
        if isinstance(one.fit, Measures) and isinstance(other.fit, Measures) and counts[name] == counts[first]:
            found = differing_response(one.fit, other.fit)
            if found is not None:
                label, mine, theirs = found
                notes.append(
                    f"Responses differ: the mean of {label!r} is {mine:.6g} in {first} and {theirs:.6g} in {name}; "
                    "log-likelihood, AIC and BIC do not compare."
                )
    for name, model in models.items():
        if model.fit.termination is not Termination.CONVERGED:
            notes.append(f"{name} did not converge: {model.fit.termination.value} after {model.fit.n_sweeps} sweeps.")
    return notes


def _other_cells(first: str, one: Reported, name: str, other: Reported) -> list[str]:
    """That two fits of as many responses do not show the same ones, by their counts."""
    mine, theirs = (dict(zip(fit.design.equations, fit._shown.tolist(), strict=True)) for fit in (one, other))
    label = next((each for each, count in mine.items() if theirs.get(each, count) != count), None)
    if label is None:
        return []
    return [
        f"Responses miss different cells: {label!r} has {mine[label]:,} in {first} and {theirs[label]:,} in {name}; "
        "log-likelihood, AIC and BIC do not compare."
    ]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Models side by side, as `compare` made them.

    coefficients : by (equation, term), columns (model, number), NaN where a model has none.  foot : statistic by model.
    notes : what does not compare.  responses : of each model where it is one equation.
    """

    coefficients: pd.DataFrame
    foot: pd.DataFrame
    notes: tuple[str, ...]
    responses: dict[str, str]
    below: str
    stars: bool
    digits: int

    def to_frame(self) -> pd.DataFrame:
        """The numbers: a row a coefficient by equation and term, columns by model and number as `Fit.tidy` has them.

        Statistics of fit are in `foot`."""
        return self.coefficients

    def to_text(self) -> str:
        """Plain text; of more than 200 coefficients the first, and how many there are."""
        return self._grid(MOST_ROWS).text()

    def to_markdown(self) -> str:
        """A pipe table, all coefficients."""
        return self._grid().markdown()

    def to_latex(self) -> str:
        """A tabular of LaTeX with the rules of booktabs, all coefficients."""
        return self._grid().latex()

    def __str__(self) -> str:
        return self.to_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self._grid(MOST_ROWS).html()

    def _grid(self, most: int | None = None) -> ModelGrid:
        """Every number as text.  most : coefficients that are shown."""
        names = list(dict.fromkeys(self.coefficients.columns.get_level_values(0)))
        part = self.coefficients.iloc[:most]
        blocks: list[Block] = []
        values = {name: part[name].to_numpy() for name in names}
        for i, (equation, term) in enumerate(part.index):
            if not blocks or blocks[-1].label != equation:
                blocks.append(Block(equation, []))
            pairs = [self._cell(values[name][i]) for name in names]
            blocks[-1].rows.append((str(term), [top for top, _ in pairs], [low for _, low in pairs]))
        foot = [
            (FOOT[key], [self._number(value) if key == "error_var" else _said(value) for value in row])
            for key, row in zip(self.foot.index, self.foot.to_numpy(), strict=True)
        ]
        left_out = len(self.coefficients) - len(part)
        more = [f"{left_out:,} more coefficients: to_frame(), or equation= and term=."] if left_out else []
        heads = [self.responses[name] for name in names] if self.responses else []
        return ModelGrid(names, heads, blocks, foot, [*more, *self.notes], self.below != "none", not self.responses)

    def _cell(self, numbers: np.ndarray) -> tuple[str, str]:
        """An estimate, and what stands below it."""
        row = dict(zip(NUMBERS, numbers.tolist(), strict=True))
        if np.isnan(row["estimate"]):
            return "", ""
        mark = next((mark for least, mark in STARS if row["p_value"] < least), "") if self.stars else ""
        top = f"{self._number(row['estimate'])}{mark}"
        if self.below == "none":
            return top, ""
        if self.below == "conf_int":
            return top, f"[{self._number(row['conf_low'])}, {self._number(row['conf_high'])}]"
        value = self._number(row[self.below])
        return top, f"[{value}]" if self.below == "statistic" else f"({value})"

    def _number(self, value: float | None) -> str:
        """Significant digits, zeros among them; a dash where there is none."""
        return "-" if value is None or np.isnan(value) else f"{value:#.{self.digits}g}".rstrip(".")


def _said(value: Any) -> str:
    """A statistic, a dash where there is none."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    return f"{value:.4f}" if abs(value) < 1 else f"{value:,.2f}" if abs(value) < 1e9 else f"{value:.6g}"
