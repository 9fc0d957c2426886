"""The user's labels: plain Python values, checked for duplicates, compared, and written to zarr and back.

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

What is not in memory, labels of a store and the index of a Dask frame, is read when something with labels is to be
compared with it, one read of one column, and stays where it is otherwise. A system remembers the labels of what it was
made of, so that what comes later is held to them; a compressed system has no rows left to pair.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

__all__ = [
    "FrameLabels",
    "RowLabels",
    "StoredLabels",
    "check_ascending",
    "check_unique",
    "decode_labels",
    "distinct_labels",
    "encode_labels",
    "labels_from_json",
    "labels_to_json",
    "pair_rows",
    "plain_labels",
    "row_labels",
]

_JSON = {"lrgls_labels": "json"}
_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


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
    plain = tuple(label.item() if isinstance(label, np.generic) else label for label in labels)
    for position, label in enumerate(plain):
        if not isinstance(label, Hashable):
            raise TypeError(
                f"{what} must be hashable values such as strings; the one at position {position} is a "
                f"{type(label).__name__}, {label!r}. Use strings, numbers or tuples of them."
            )
    return plain


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


def distinct_labels(terms: Sequence[Hashable], equations: Sequence[Hashable]) -> tuple[Hashable, ...]:
    """One label for each distinct column: its term, with the equation that first uses it where the term recurs.

    terms, equations : (q,) the term of each column and the first equation that uses it.
    """
    count = Counter(terms)
    pairs = zip(terms, equations, strict=True)
    return tuple(term if count[term] == 1 else f"{term}[{equation}]" for term, equation in pairs)


def encode_labels(labels: pd.Index, what: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Labels as an array that zarr can hold, with the attributes that `decode_labels` and xarray need.

    Numbers stay numbers, times become CF integers, strings stay strings, anything else JSON text.
    """
    if isinstance(labels, pd.DatetimeIndex):
        attributes = {"units": f"{_UNITS[labels.unit]} since 1970-01-01", "calendar": "proleptic_gregorian"}
        if labels.tz is not None:
            attributes["lrgls_timezone"] = str(labels.tz)
            labels = labels.tz_convert("UTC")
        return labels.asi8, attributes
    if isinstance(labels.dtype, np.dtype) and labels.dtype.kind in "biuf":
        return labels.to_numpy(), {}
    values = labels.tolist()
    if all(isinstance(value, str) for value in values):
        return np.array(values, dtype=object), {}
    if all(type(value) is int and -(2**63) <= value < 2**63 for value in values):
        return np.array(values, dtype=np.int64), {}
    return np.array([_to_json(value, what) for value in values], dtype=object), dict(_JSON)


def decode_labels(values: np.ndarray, attributes: dict[str, Any]) -> pd.Index:
    """The labels that `encode_labels`, or xarray by the CF conventions, wrote."""
    if attributes.get("lrgls_labels") == "json":
        return pd.Index([_from_json(json.loads(value)) for value in values.tolist()], tupleize_cols=True)
    if "since" in str(attributes.get("units", "")):
        cf = {key: attributes[key] for key in ("units", "calendar") if key in attributes}
        index = xr.decode_cf(xr.Dataset({"label": ("label", values, cf)})).indexes["label"].rename(None)
        zone = attributes.get("lrgls_timezone")
        return index if zone is None else pd.DatetimeIndex(index).tz_localize("UTC").tz_convert(zone)
    if values.dtype.kind in "OTU":
        return pd.Index(values.tolist())
    return pd.Index(values)


@dataclass(frozen=True, eq=False)
class StoredLabels:
    """Row labels that stay on disk until somebody asks: at 10^8 rows they are larger than a row block."""

    array: Any
    attributes: dict[str, Any]

    def __len__(self) -> int:
        return int(self.array.shape[0])

    def read(self) -> pd.Index:
        """All N labels; one read of one 1-D array."""
        return decode_labels(np.asarray(self.array[:]), self.attributes)


# ---------------------------------------------------------------------------------------------- labels of rows


@dataclass(frozen=True, eq=False)
class FrameLabels:
    """The index of a Dask frame, which nobody knows before it is read."""

    index: Any

    def read(self) -> pd.Index:
        """All N labels; reads the frame as far as its index needs."""
        return pd.Index(self.index.compute())


@dataclass(frozen=True, eq=False)
class RowLabels:
    """What the rows of something are called.

    name : of the thing, in messages.  values : its labels, read or not.
    as_code : Python that gives them.  reindexed : Python that puts the thing in the order of other labels, `{}`.
    """

    name: str
    values: pd.Index | StoredLabels | FrameLabels
    as_code: str
    reindexed: str = ""

    def read(self) -> pd.Index:
        """The labels in memory."""
        return self.values if isinstance(self.values, pd.Index) else self.values.read()


def row_labels(name: str, data: Any, dim: Hashable = None) -> RowLabels | None:
    """What the rows of a pandas, Dask or xarray object are called; None for what has no labels of rows.

    dim : along which an xarray object has its rows, by default the first.
    """
    if isinstance(data, pd.DataFrame | pd.Series):
        return RowLabels(name, data.index, f"{name}.index", f"{name}.reindex({{}})")
    if isinstance(data, xr.DataArray) and data.ndim:
        dim = data.dims[0] if dim is None else dim
        index = data.indexes.get(dim)
        code = f"{name}.indexes[{dim!r}]", f"{name}.reindex({{{{{dim!r}: {{}}}}}})"
        return None if index is None else RowLabels(name, index, *code)
    if hasattr(data, "to_dask_array") and hasattr(data, "index"):
        return RowLabels(name, FrameLabels(data.index), f"{name}.index.compute()")
    return None


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


def labels_to_json(labels: Sequence[Any], what: str) -> list[Any]:
    """The labels as a JSON document can hold them. what : names them in the TypeError for those it cannot."""
    return [_json_value(label, what) for label in labels]


def labels_from_json(values: Sequence[Any]) -> tuple[Hashable, ...]:
    """The labels that `labels_to_json` made a document of."""
    return tuple(_from_json(value) for value in values)


def _to_json(label: Any, what: str) -> str:
    return json.dumps(_json_value(label, what))


def _json_value(label: Any, what: str) -> Any:
    if isinstance(label, np.generic) and not isinstance(label, np.datetime64):
        label = label.item()
    if label is None or isinstance(label, str | int | float | bool):
        return label
    if isinstance(label, tuple):
        return [_json_value(item, what) for item in label]
    if isinstance(label, pd.Timestamp):
        return {"time": label.isoformat()}
    raise TypeError(
        f"{what} must be strings, numbers, times or tuples of them to be stored; found {label!r} of type "
        f"{type(label).__name__}. Convert them, e.g. with .astype(str)."
    )


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_from_json(item) for item in value)
    return pd.Timestamp(value["time"]) if isinstance(value, dict) else value
