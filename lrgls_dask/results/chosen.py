"""Which coefficients a table is about: equations and terms by label, by several of them, or by a pattern."""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from lrgls_dask.checks import closest, shown
from lrgls_dask.design.design import Design

__all__ = ["Chosen", "choose", "chosen_equations", "is_label", "labels_chosen"]

NONE = np.zeros(0, dtype=np.intp)


@dataclass(frozen=True, eq=False)
class Chosen:
    """Coefficients of a design, in its order.

    places : (m,) among all of it.  equations : (m,) positions of theirs.  terms : m labels, what these call them.
    """

    places: np.ndarray
    equations: np.ndarray
    terms: list[Hashable]


def choose(design: Design, dim: str, equation: Any = None, term: Any = None) -> Chosen:
    """The coefficients of these equations with these labels; of everything where None.

    equation, term : a label, several of them, or a text with * for any letters and ? for any one; a DataArray, or an
    array, of labels too. Equations that lie on several dims go by their tuples, or by a mapping from dims to the same.
    dim : what the user calls equations.
    Raises ValueError for one that there is not, with the nearest that there is.
    """
    equations = chosen_equations(design, dim, equation)
    if term is None:
        wanted = None
    else:
        known = list(dict.fromkeys(each for own in dict.fromkeys(design.terms) for each in own))
        wanted = {known[i] for i in _matching("term", known, term).tolist()}
    places, owners, terms = [], [], []
    for j in equations.tolist():
        own = design.terms[j]
        mine = range(len(own)) if wanted is None else [i for i, each in enumerate(own) if each in wanted]
        places += [int(design.offsets[j]) + i for i in mine]
        owners += [j] * len(mine)
        terms += [own[i] for i in mine]
    return Chosen(np.array(places, dtype=np.intp), np.array(owners, dtype=np.intp), terms)


def chosen_equations(design: Design, dim: str, wanted: Any) -> np.ndarray:
    """Positions of equations, ascending; see `choose`."""
    if wanted is None:
        return np.arange(design.n_equations)
    if not isinstance(wanted, Mapping):
        return _matching("equation", design.equations, wanted)
    dims = design.equation_dims or {dim: design.equations}
    for name in wanted:
        if name not in dims:
            raise ValueError(f"equations lie on {shown(list(dims))}, not on {name!r}{closest(name, dims)}")
    along = [
        _matching(str(name), labels, wanted[name]) if name in wanted else np.arange(len(labels))
        for name, labels in dims.items()
    ]
    return np.ravel_multi_index(np.ix_(*along), tuple(map(len, dims.values()))).ravel()


def labels_chosen(
    what: str, labels: Sequence[Hashable], wanted: Any, design: Design | None = None, dim: str = ""
) -> list[Hashable]:
    """The labels that are asked for; see `choose`.  design, dim : of equations that go by a mapping from dims."""
    found = _matching(what, labels, wanted) if design is None else chosen_equations(design, dim, wanted)
    return [labels[i] for i in found.tolist()]


def _matching(what: str, labels: Sequence[Hashable], wanted: Any) -> np.ndarray:
    """Positions of labels that are asked for, ascending."""
    place = {label: i for i, label in enumerate(labels)}
    if isinstance(wanted, xr.DataArray | np.ndarray):  # whose elements are 0-d, or no labels
        wanted = pd.Index(np.ravel(np.asarray(wanted)), tupleize_cols=False)
    if is_label(wanted, place) or isinstance(wanted, str) or not isinstance(wanted, Iterable):
        wanted = [wanted]
    found = [_places_of(what, each, labels, place) for each in wanted]
    return np.unique(np.concatenate([NONE, *found]))


def is_label(wanted: Any, known: Collection[Hashable]) -> bool:
    """Whether this is one of the keys of a mapping or a set; what has no hash is none."""
    try:
        return wanted in known
    except TypeError:
        return False


def _places_of(what: str, wanted: Any, labels: Sequence[Hashable], place: Mapping[Hashable, int]) -> np.ndarray:
    """Of one label, or of one pattern, which is looked for in what labels are as text."""
    if is_label(wanted, place):
        return np.array([place[wanted]])
    if isinstance(wanted, str):
        letters = {"*": ".*", "?": "."}
        pattern = re.compile("".join(letters.get(letter) or re.escape(letter) for letter in wanted), re.DOTALL)
        found = [i for i, label in enumerate(labels) if pattern.fullmatch(str(label))]
        if found:
            return np.array(found)
    raise ValueError(f"no {what} is called {wanted!r}; there are {shown(list(labels))}{closest(wanted, labels)}")
