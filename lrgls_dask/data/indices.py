"""Labels as an index of pandas that gives back what it was made of."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

import pandas as pd

__all__ = ["as_index", "as_levels"]


def as_index(labels: Iterable[Hashable], name: Hashable = None) -> pd.Index:
    """An index of labels as they are: tuples are labels, and whole numbers stay whole beside numbers that are not.

    pandas would make floats of 1 and 2.5, and one float of 2**53 and 2**53 + 1.
    """
    given = list(labels)
    index = pd.Index(given, name=name, tupleize_cols=False)
    if index.dtype.kind in "fc" and len({type(label) for label in given}) > 1:
        return pd.Index(given, dtype=object, name=name, tupleize_cols=False)
    return index


def as_levels(columns: Mapping[str, Iterable[Hashable]]) -> pd.MultiIndex:
    """Columns of labels as the levels of one index, by name; labels as they are, in the order in which they come."""
    levels, codes = [], []
    for labels in columns.values():
        place: dict[tuple[type, Hashable], int] = {}
        codes.append([place.setdefault((type(label), label), len(place)) for label in labels])
        levels.append(as_index(label for _, label in place))
    return pd.MultiIndex(levels, codes, names=list(columns))
