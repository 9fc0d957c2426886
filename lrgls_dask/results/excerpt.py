"""Which rows of long tables a page shows: few, by a rule that the page states."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from lrgls_dask.design.design import Design
from lrgls_dask.design.skipped import OK
from lrgls_dask.results.chosen import Chosen
from lrgls_dask.results.measures import Measures
from lrgls_dask.results.reported import Reported

__all__ = [
    "Excerpt",
    "coefficients_shown",
    "dims_called",
    "equation_name",
    "equations_shown",
    "evenly_spaced",
    "label_text",
    "name_in",
]

MOST_EQUATIONS = 10
HEADS = 2  # lines that may be more, with names of equations; where they would be there are fewer coefficients


@dataclass(frozen=True, eq=False)
class Excerpt:
    """Coefficients that are shown, and by what rule; no rule where they are all."""

    chosen: Chosen
    rule: str


def coefficients_shown(fit: Reported, most: int | None) -> Excerpt:
    """About `most` coefficients: all if there are no more, else those of equations evenly spaced in their order, the
    first and the last among them; of one that has more than `most` the first. None for all of them."""
    usable = fit._estimated_equations
    if most is None or fit.n_coefficients <= most:
        return Excerpt(_of(fit, usable, None), "")
    longest = int(fit.design.sizes.max())
    count = min(len(usable), max(1, min(most // longest, (most + HEADS) // (longest + 1))))
    chosen = _of(fit, usable[evenly_spaced(len(usable), count)], most)
    rest = fit.n_coefficients - len(chosen.places)
    which = f"{count:,} of {len(usable):,} equations, evenly spaced"
    if count == 1:
        which = f"the first of {len(usable):,} equations{f', the first {most}' if longest > most else ''}"
    return Excerpt(chosen, f"Shown: {which}. The other {rest:,} coefficients: summary(all=True), tidy().")


def equations_shown(fit: Measures, everything: bool) -> tuple[np.ndarray, str]:
    """Positions of equations, and the rule: of many those that need attention first, the others evenly spaced."""
    usable, status = fit._estimated_equations, fit.status.values
    if len(usable) <= MOST_EQUATIONS + 1:  # one that is left out takes a line as well
        return usable, ""
    amiss, sound = usable[status[usable] != OK], usable[status[usable] == OK]
    if everything:
        return np.concatenate([amiss, sound]), ""
    first = amiss[: MOST_EQUATIONS // 2]
    rest = sound[evenly_spaced(len(sound), min(len(sound), MOST_EQUATIONS - len(first)))]
    chosen = np.concatenate([first, rest])
    attention = f"{len(first)} of {len(amiss)} that need attention, then " if len(amiss) else ""
    rule = f"Shown: {attention}{len(rest)} evenly spaced. The other {len(usable) - len(chosen):,} equations:"
    return chosen, f"{rule} summary(all=True), glance('equation')."


def equation_name(fit: Reported, position: int) -> str:
    """The label of an equation, or its labels along the dims that it lies on."""
    return name_in(fit._whole, position)


def name_in(design: Design, position: int) -> str:
    """The same of a design of all equations."""
    return label_text(design, design.equations[position])


def label_text(design: Design, label: Hashable) -> str:
    """The same of a label."""
    return ", ".join(map(str, label)) if design.equation_dims and isinstance(label, tuple) else str(label)


def dims_called(design: Design, dim: str) -> str:
    """What the user calls equations: the dim, or dims, that they lie on.  dim : of equations on one."""
    name = ", ".join(map(str, design.equation_dims or (dim,)))
    return "Equation" if name == "equation" else name  # which is ours, where the user gave none


def evenly_spaced(count: int, wanted: int) -> np.ndarray:
    """Evenly spaced positions of so many, the first and the last among them."""
    return (
        np.unique(np.linspace(0, count - 1, wanted).round().astype(np.intp)) if wanted else np.zeros(0, dtype=np.intp)
    )


def _of(fit: Reported, equations: np.ndarray, most: int | None) -> Chosen:
    """The coefficients of these equations, at most so many of each."""
    whole = fit._whole
    terms = [whole.terms[j][:most] for j in equations]
    owners = np.repeat(equations, [len(own) for own in terms])
    places = [np.arange(whole.offsets[j], whole.offsets[j] + len(own)) for j, own in zip(equations, terms, strict=True)]
    return Chosen(
        np.concatenate([np.zeros(0, dtype=np.intp), *places]), owners, [each for own in terms for each in own]
    )
