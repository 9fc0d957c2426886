"""How strongly each coefficient is penalised: one number for all, or one by the name of the regressor."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np

from lrgls_dask.checks import closest
from lrgls_dask.design.design import Design

__all__ = ["Ridge", "column_penalties", "penalises", "ridge_of_some", "said_of"]

Ridge = float | Mapping[Hashable, float]


def penalises(lam_B: Ridge) -> bool:
    """Whether any coefficient is."""
    return any(value > 0 for value in lam_B.values()) if isinstance(lam_B, Mapping) else lam_B > 0


def said_of(lam_B: Ridge) -> str:
    """The penalty as tables and messages show it, a mapping by its first few names."""
    if not isinstance(lam_B, Mapping):
        return f"{lam_B:g}"
    few = [f"{name!r}: {value:g}" for name, value in list(lam_B.items())[:3]]
    return "{" + ", ".join(few) + (f", ... ({len(lam_B)} in all)}}" if len(lam_B) > 3 else "}")


def column_penalties(design: Design, lam_B: Ridge) -> np.ndarray:
    """(q,) the penalty of each distinct column, 0 for those that a mapping does not name.

    A mapping's names are what equations call their columns (terms), or labels of distinct columns, which win: "x[b]"
    where the equations' own columns are all called "x". A text stands for a label that reads so.
    Raises ValueError for a name that is neither, and for a column that equations call by names of unequal penalties.
    """
    if not isinstance(lam_B, Mapping):
        return np.full(design.n_regressors, float(lam_B))
    by_name = _by_label(design, lam_B)
    own = {column: by_name[label] for column, label in enumerate(design.regressors) if label in by_name}
    found: dict[int, tuple[float, Hashable]] = {}
    seen: set[tuple[int, int]] = set()
    for columns, terms in zip(design.columns, design.terms, strict=True):
        if (id(columns), id(terms)) in seen:
            continue
        seen.add((id(columns), id(terms)))
        for column, term in zip(columns.tolist(), terms, strict=True):
            value = own.get(column, by_name.get(term, 0.0))
            first, name = found.setdefault(column, (value, term))
            if first != value:
                raise ValueError(
                    f"lam_B: {name!r} and {term!r} are one column in different equations, and their penalties are "
                    f"{first:g} and {value:g}. Give them the same."
                )
    return np.array([found[column][0] if column in found else 0.0 for column in range(design.n_regressors)])


def ridge_of_some(whole: Design, some: Design, lam_B: Ridge) -> Ridge:
    """The penalties of a design that is part of another: without names of columns that only the rest has."""
    if not isinstance(lam_B, Mapping):
        return lam_B
    known = set(some.regressors).union(*some.terms)
    return {label: value for label, value in _by_label(whole, lam_B).items() if label in known}


def _by_label(design: Design, lam_B: Mapping[Hashable, float]) -> dict[Hashable, float]:
    """The mapping with the design's own labels for names."""
    known = dict.fromkeys([*(term for terms in {id(t): t for t in design.terms}.values() for term in terms)])
    known |= dict.fromkeys(design.regressors)
    by_text = {str(label): label for label in known}
    found: dict[Hashable, float] = {}
    for name, value in lam_B.items():
        label = name if name in known else by_text.get(name) if isinstance(name, str) else None
        if label is None:
            raise ValueError(
                f"lam_B: no equation has a regressor {name!r}{closest(name, known)} Name regressors as the "
                "coefficients are labelled; those left out are not penalised."
            )
        found[label] = float(value)
    return found
