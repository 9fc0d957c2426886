"""The user's labels: plain Python values, checked for duplicates and gaps, and compared.

Rows are paired by label, or not at all
---------------------------------------
One rule for everything that has a value for each row: Y, X (one array, a list, variables of a Dataset), weights,
groups, `by`, segments, and the y that predictions are made from. As soon as one of them has row labels, all that have
any must have the same labels in the same order; `pair_rows` refuses the first that does not, with the position, both
labels and what puts it right. Nothing is reordered: which order was meant is the user's to say.

Labels are: the index of every pandas object, 0 .. N - 1 as pandas numbers rows by itself included, since a frame
numbered so and one whose rows were sorted or selected differ in nothing else; an index of an xarray object along its
rows; labels that a store keeps; the index of a Dask frame.
No labels: NumPy, Dask and zarr arrays, lists, a pandas Index or Categorical of values, a DataArray without an index.
These go by position beside whatever has labels, as `.to_numpy()` does where the rows correspond as they stand.

Labels of a store are read when something with labels is to be compared with them, one read of one column, and stay
where they are otherwise. The index of a Dask frame is read at once, with the lengths of its partitions; one that Dask
numbered anew in each partition is numbered through. A system remembers the labels of what it was
made of, so that what comes later is held to them; a compressed system has no rows left to pair. `append` and `score`
take rows of their own, which are new ones whatever they are called.

What the dims are called
------------------------
Rows have the name that the user's labels have: the dim of xarray objects, the name of a pandas or Dask index, the dim
in a store, of the first of Y, X, weights, groups that has one. They are "obs" where no labels have a name, where they
have levels, which keep theirs, and where results use the name for something else (`TAKEN`). What is predicted goes by
the data it is predicted from, and by the fit where these say nothing, so that `fit.predict(data).to_pandas()` has the
index of `data`. Equations are the dim of xarray objects and stores that they lie along, and "equation" elsewhere.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from lrgls_dask.data.daskframes import CountedFrame
from lrgls_dask.data.storedlabels import StoredLabels

__all__ = [
    "STORED_NAMES",
    "TAKEN",
    "RowLabels",
    "check_ascending",
    "check_one_zone",
    "check_present",
    "check_unique",
    "coords_of_rows",
    "dim_of_rows",
    "distinct_labels",
    "pair_rows",
    "plain_labels",
    "row_labels",
]

HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair


def plain_labels(labels: Iterable[Any], what: str) -> tuple[Hashable, ...]:
    """The labels as plain, hashable Python values: np.str_ becomes str, np.int64 int, datetime64 a Timestamp.

    what : names the labels in the TypeError that an unhashable one raises.
    """
    if isinstance(labels, str):
        labels = [labels]
    if isinstance(labels, xr.DataArray):
        labels = labels.to_index()
    if isinstance(labels, pd.Index) or (isinstance(labels, np.ndarray) and labels.dtype.kind in "mM"):
        labels = pd.Index(labels).tolist()
    plain = tuple(_plain(label) for label in labels)
    for position, label in enumerate(plain):
        if not isinstance(label, Hashable):
            raise TypeError(
                f"{what} must be hashable values such as strings; the one at position {position} is a "
                f"{type(label).__name__}, {label!r}. Use strings, numbers or tuples of them."
            )
        _check_whole(label, position, what)
    return plain


def _plain(label: Any) -> Any:
    if isinstance(label, np.datetime64):
        return pd.Timestamp(label)
    if isinstance(label, np.timedelta64):
        return pd.Timedelta(label)
    return label.item() if isinstance(label, np.generic) else label


def check_present(labels: Sequence[Hashable], what: str, where: str = "") -> None:
    """Raise ValueError naming the first label that is None, NaN, NaT or NA: nothing can be found by it; or that has
    half of a surrogate pair, which no table, store or page can hold."""
    for position, label in enumerate(labels):
        _check_whole(label, position, what, where)
        if any(map(_is_missing, label)) if isinstance(label, tuple) else _is_missing(label):
            raise ValueError(
                f"{what} must not be missing{where}; found {label!r} at position {position}. Give it a name."
            )


def _check_whole(label: Hashable, position: int, what: str, where: str = "") -> None:
    for text in label if isinstance(label, tuple) else (label,):
        if isinstance(text, str) and not text.isascii() and HALF.search(text):
            raise ValueError(
                f"{what} must be text that can be written{where}; {label!r} at position {position} holds half of a "
                "character (a surrogate). Rename it."
            )


def _is_missing(label: Any) -> bool:
    return label is None or label is pd.NA or label is pd.NaT or (isinstance(label, float) and label != label)


def check_unique(labels: Sequence[Hashable], what: str, where: str = "") -> None:
    """Raise ValueError naming the first label that occurs twice."""
    if len(set(labels)) == len(labels):
        return
    label = next(label for label, count in Counter(labels).items() if count > 1)
    first = labels.index(label)
    second = labels.index(label, first + 1)
    raise ValueError(
        f"{what} must be unique{where}; {label!r} is there {Counter(labels)[label]} times, first at positions {first} "
        f"and {second}. Rename or drop one of them."
    )


def check_ascending(labels: pd.Index | None, dim: Hashable, what: str) -> None:
    """Raise ValueError unless the order of rows is what their labels say: each later than the one before it.

    The one rule for all that takes neighbouring rows for neighbours in time. Rows without labels are taken as they
    come; so is whatever lies between two labels.  what : needs the order, for the message.
    """
    if labels is None or (labels.is_monotonic_increasing and labels.is_unique):
        return
    row = _first_not_after(labels)
    before, here = (labels[[i]].tolist()[0] for i in (row - 1, row))
    if before == here:
        raise ValueError(
            f"{what} takes rows in the order of their labels along {str(dim)!r}, one row for each; {here!s} is there "
            f"at rows {row - 1} and {row}. Join or drop the rows that share a label."
        )
    raise ValueError(
        f"{what} takes rows in the order of their labels along {str(dim)!r}, and row {row} is labelled {here!s} after "
        f"{before!s}. Sort all data by them, with .sort_index() or .sortby({str(dim)!r}); where the labels say nothing "
        f"of the order, leave them out, with .reset_index(drop=True) or .drop_vars({str(dim)!r})."
    )


def _first_not_after(labels: pd.Index) -> int:
    """The first row whose label is not greater than the one before it, or cannot be compared with it."""
    try:
        return int(np.argmin(np.asarray(labels[1:] > labels[:-1], dtype=bool))) + 1
    except TypeError:  # labels of several kinds: look at every pair
        return next(i for i in range(1, len(labels)) if not labels[i - 1 : i + 1].is_monotonic_increasing)


def check_one_zone(labels: pd.Index, dim: Hashable) -> None:
    """Raise ValueError where labels are times in several zones, which have no step from one to the next."""
    if labels.dtype != object or not len(labels) or not isinstance(labels[0], datetime.datetime):
        return
    zones = [str(getattr(label, "tzinfo", None)) for label in labels]
    row = next((i for i, zone in enumerate(zones) if zone != zones[0]), None)
    if row is not None:
        raise ValueError(
            f"row labels along {dim!r} are times in several zones, {zones[0]} at row 0 and {zones[row]} at row {row}. "
            "Convert all to one, e.g. with pd.to_datetime(labels, utc=True)."
        )


def distinct_labels(terms: Sequence[Hashable], equations: Sequence[Hashable]) -> tuple[Hashable, ...]:
    """One label for each distinct column: its term, with the equation that first uses it where the term recurs.

    terms, equations : (q,) the term of each column and the first equation that uses it.
    """
    count = Counter(terms)
    pairs = zip(terms, equations, strict=True)
    return tuple(term if count[term] == 1 else f"{term}[{equation}]" for term, equation in pairs)


# ---------------------------------------------------------------------------------------------- labels of rows


@dataclass(frozen=True, eq=False)
class RowLabels:
    """What the rows of something are called.

    name : of the thing, in messages.  values : its labels, read or not.
    as_code : Python that gives them.  reindexed : Python that puts the thing in the order of other labels, `{}`.
    dim : what the user calls the rows, None for nothing.
    """

    name: str
    values: pd.Index | StoredLabels
    as_code: str
    reindexed: str = ""
    dim: Hashable = None

    def read(self) -> pd.Index:
        """The labels in memory."""
        return self.values if isinstance(self.values, pd.Index) else self.values.read()


def row_labels(name: str, data: Any, dim: Hashable = None) -> RowLabels | None:
    """What the rows of a pandas, Dask or xarray object are called; None for what has no labels of rows.

    dim : along which an xarray object has its rows, by default the first.
    """
    if isinstance(data, pd.DataFrame | pd.Series):
        called = None if isinstance(data.index, pd.MultiIndex) else data.index.name
        return RowLabels(name, data.index, f"{name}.index", f"{name}.reindex({{}})", called)
    if isinstance(data, xr.DataArray) and data.ndim:
        dim = data.dims[0] if dim is None else dim
        index = data.indexes.get(dim)
        code = f"{name}.indexes[{dim!r}]", f"{name}.reindex({{{{{dim!r}: {{}}}}}})"
        return None if index is None else RowLabels(name, index, *code, dim)
    if isinstance(data, CountedFrame):
        return RowLabels(name, data.index, f"{name}.index.compute()", "", data.index.name)
    return None


STORED_NAMES = frozenset(
    ("Y", "X", "weights", "groups", "term", "incidence_columns", "incidence_start", "coefficient", "regressor")
)
"""What a store has its own arrays and dims for."""

TAKEN = STORED_NAMES | frozenset(
    ("equation", "factor", "predicted", "std_error", "lower", "upper", "Y_variance", "yhat", "factor_scores")
)
"""What results and stores call other things than rows."""


def dim_of_rows(labelled: Iterable[RowLabels | None], default: Hashable, taken: Iterable[Hashable] = ()) -> Hashable:
    """What rows are called, see above: the first name that their labels have and nothing else has, or the default."""
    others = TAKEN | set(taken)
    names = (each.dim for each in labelled if each is not None)
    good = (name for name in names if isinstance(name, str) and name and "/" not in name and name not in others)
    return next(good, default)


def coords_of_rows(
    labels: pd.Index | StoredLabels | None, dim: Hashable, taken: Iterable[Hashable]
) -> Mapping[Any, Any]:
    """Coordinates of rows along `dim`; the levels of a MultiIndex keep those of their names that nothing else has."""
    if labels is None:
        return {}
    index = labels.read() if isinstance(labels, StoredLabels) else labels
    if not isinstance(index, pd.MultiIndex):
        return {dim: index.rename(dim)}
    others = TAKEN | {dim, *taken}
    names = [None if name in others or index.names.count(name) > 1 else name for name in index.names]
    return xr.Coordinates.from_pandas_multiindex(index.set_names(names), dim)


def pair_rows(given: Iterable[RowLabels | None], dim: Hashable) -> RowLabels | None:
    """The first labels of rows among those given, once all that have any are seen to have the same in the same order.

    Labels that are alone are not read. Raises ValueError naming the first that differs.
    """
    known = [each for each in given if each is not None]
    if len(known) > 1:
        reference = known[0].read()
        for other in known[1:]:
            _check_same(other, other.read(), known[0], reference, dim)
    return known[0] if known else None


def _check_same(other: RowLabels, labels: pd.Index, first: RowLabels, reference: pd.Index, dim: Hashable) -> None:
    if labels is reference or labels.equals(reference):
        return
    position = _first_difference(labels, reference)
    if len(labels) != len(reference):
        found = f"{other.name} has {len(labels)} labels along {dim!r} but {first.name} has {len(reference)}"
    elif position == len(labels):  # the same values of another dtype, such as text and categories of text
        return
    else:
        found = (
            f"{other.name} and {first.name} have different labels along {dim!r} "
            f"({labels[[position]].tolist()[0]!r} against {reference[[position]].tolist()[0]!r})"
        )
    same = len(labels) == len(reference) and labels.is_unique and bool(labels.isin(reference).all())
    ordered = other.reindexed.format(first.as_code)
    remedy = (
        f"Use {ordered}: the same labels are there in another order"
        if same and ordered
        else "Use xr.align(...) or .reindex(...) to keep the rows that both have"
    )
    raise ValueError(
        f"{found}; first difference at position {position}. {remedy}. Where the rows correspond as they stand, pass "
        "values without labels, e.g. with .to_numpy()."
    )


def _first_difference(labels: pd.Index, reference: pd.Index) -> int:
    """The first position where two indexes differ, or the length of the shorter; piece by piece, then one by one."""
    shared, piece = min(len(labels), len(reference)), 1 << 16
    for start in range(0, shared, piece):
        one, other = labels[start : min(start + piece, shared)], reference[start : min(start + piece, shared)]
        if one.equals(other):
            continue
        for i, (a, b) in enumerate(zip(one.tolist(), other.tolist(), strict=True)):
            if not _equal(a, b):
                return start + i
    return shared


def _equal(a: Any, b: Any) -> bool:
    try:
        return a is b or bool(a == b) or bool(a != a and b != b)
    except (TypeError, ValueError):  # of values that cannot be compared, such as pandas.NA
        return False
