"""The user's labels in zarr and back: numbers stay numbers, times are CF times, text is text, all else JSON text.

pandas and NumPy kinds come back as they were, with names and time zone; categories and extension dtypes come back as
the values they hold. Plain `xr.open_zarr` sees dates for dates and periods, which are stored by their first instant.
"""

from __future__ import annotations

import datetime
import decimal
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from lrgls_dask.data.indices import as_index

__all__ = [
    "StoredLabels",
    "decode_labels",
    "encode_labels",
    "encode_like",
    "is_coded",
    "labels_from_json",
    "labels_to_json",
]

_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_CF = ("units", "calendar", "dtype")


@dataclass(frozen=True, eq=False)
class StoredLabels:
    """Row labels that stay on disk until somebody asks: at 10^8 rows they are larger than a row block.

    name : of the index that they are read into.
    """

    array: Any
    attributes: dict[str, Any]
    name: Hashable = None

    def __len__(self) -> int:
        return int(self.array.shape[0])

    def read(self) -> pd.Index:
        """All N labels; one read of one 1-D array."""
        labels = decode_labels(np.asarray(self.array[:]), self.attributes)
        return labels if isinstance(labels, pd.MultiIndex) else labels.rename(self.name)


def encode_labels(labels: pd.Index, what: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Labels as an array that zarr can hold, with the attributes that `decode_labels` and xarray need.

    Raises TypeError for a kind of label that has no place in a store.  what : names the labels in it.
    """
    labels = _plain_kind(labels)
    period = {}
    if isinstance(labels, pd.PeriodIndex):
        period, labels = {"lrgls_period": labels.freqstr}, labels.to_timestamp()
    if isinstance(labels, pd.DatetimeIndex):
        attributes = {"units": f"{_UNITS[labels.unit]} since 1970-01-01", "calendar": "proleptic_gregorian", **period}
        if labels.tz is not None:
            attributes["lrgls_timezone"] = str(labels.tz)
            labels = labels.tz_convert("UTC")
        return labels.asi8, attributes
    if isinstance(labels, pd.TimedeltaIndex):
        return labels.asi8, {"units": _UNITS[labels.unit], "dtype": f"timedelta64[{labels.unit}]"}
    if isinstance(labels, xr.CFTimeIndex):
        coded = xr.conventions.encode_cf_variable(xr.Variable("label", labels))
        return coded.values, {**coded.attrs, "lrgls_cftime": True}
    if isinstance(labels.dtype, np.dtype) and labels.dtype.kind in "biuf":
        return labels.to_numpy(), {}
    values = labels.tolist()
    if all(isinstance(value, str) for value in values):
        return np.array(values, dtype=object), {}
    if all(type(value) is int and -(2**63) <= value < 2**63 for value in values):
        return np.array(values, dtype=np.int64), {}
    if all(type(value) is float for value in values):
        return np.array(values, dtype=np.float64), {}
    levels = labels_to_json(labels.names, f"names of {what}") if isinstance(labels, pd.MultiIndex) else []
    texts = np.array([json.dumps(_to_json(value, what)) for value in values], dtype=object)
    return texts, {"lrgls_labels": "json", "lrgls_levels": levels}


def encode_like(labels: pd.Index, stored: Any, what: str) -> np.ndarray:
    """More labels, as the array `stored` of a store holds those that are there; reads the first of these.

    what : names them. Raises ValueError where they are of another kind, or the array cannot hold one of them.
    """
    attributes, labels = dict(stored.attrs), _plain_kind(labels)
    known = decode_labels(np.asarray(stored[:1]), attributes)
    mine, theirs = _kind_of(labels), _kind_of(known)
    if attributes.get("lrgls_labels") == "json" and not isinstance(known, pd.MultiIndex):
        theirs = mine if not isinstance(labels, pd.MultiIndex) else theirs  # which says the kind of each
    if mine != theirs:
        raise ValueError(
            f"{what} are {mine}, such as {labels[[0]].tolist()[0]!r}, but those in the store are {theirs}, such as "
            f"{known.tolist()[0]!r}. Convert them first."
        )
    with np.errstate(invalid="ignore"):  # what does not fit is seen below
        values = _encoded_like(labels, attributes, stored.dtype, what)
    differs = np.asarray(decode_labels(values, attributes) != labels)
    if differs.any():
        kept_as = f"{stored.dtype} {attributes.get('units', '')}".rstrip()
        raise ValueError(
            f"{what}: {labels[[int(differs.argmax())]].tolist()[0]!r} cannot be kept beside those in the store, which "
            f"are {kept_as}. Round them first, or write one system of all rows with to_zarr."
        )
    return values


def _encoded_like(labels: pd.Index, attributes: dict[str, Any], dtype: Any, what: str) -> np.ndarray:
    if attributes.get("lrgls_labels") == "json":
        return np.array([json.dumps(_to_json(value, what)) for value in labels.tolist()], dtype=object)
    if "since" in str(attributes.get("units", "")) and attributes["units"].split(" since")[0] not in _UNITS.values():
        how = {key: attributes[key] for key in ("units", "calendar") if key in attributes}
        coded = xr.conventions.encode_cf_variable(xr.Variable("label", labels, encoding=how | {"dtype": dtype}))
        return np.asarray(coded.values)
    for unit, word in _UNITS.items():
        if attributes.get("units", "").split(" since")[0] == word:
            labels = labels.to_timestamp() if isinstance(labels, pd.PeriodIndex) else labels
            labels = labels.as_unit(unit) if isinstance(labels, pd.DatetimeIndex | pd.TimedeltaIndex) else labels
    values, _ = encode_labels(labels, what)
    return values if values.dtype == object else values.astype(dtype)


def _kind_of(labels: pd.Index) -> str:
    """What labels are, for whoever compares them."""
    if isinstance(labels, pd.MultiIndex):
        return f"combinations of {list(labels.names)}"
    if isinstance(labels, pd.PeriodIndex):
        return f"periods of {labels.freqstr}"
    if isinstance(labels, pd.DatetimeIndex):
        return "times without a zone" if labels.tz is None else f"times in {labels.tz}"
    if isinstance(labels, pd.TimedeltaIndex):
        return "lengths of time"
    if isinstance(labels, xr.CFTimeIndex):
        return f"times of the calendar {labels.calendar}"
    if isinstance(labels.dtype, np.dtype) and labels.dtype.kind in "biuf":
        return "truth values" if labels.dtype.kind == "b" else "numbers"
    types = {type(value) for value in labels.tolist()}
    return "text" if types == {str} else "numbers" if types in ({int}, {float}) else "labels of several kinds"


def _plain_kind(labels: pd.Index) -> pd.Index:
    """Categories, nullable and Arrow values as an index of what they hold; cftime objects as a CFTimeIndex."""
    if isinstance(labels.dtype, pd.CategoricalDtype) or hasattr(labels.dtype, "numpy_dtype"):
        return pd.Index(labels.tolist(), tupleize_cols=False)
    if labels.dtype == object and len(labels) and type(labels[0]).__module__.startswith("cftime"):
        return xr.CFTimeIndex(labels)
    return labels


def decode_labels(values: np.ndarray, attributes: dict[str, Any]) -> pd.Index:
    """The labels that `encode_labels`, or xarray by the CF conventions, wrote."""
    if attributes.get("lrgls_labels") == "json":
        found = [_from_json(json.loads(value)) for value in values.tolist()]
        levels = attributes.get("lrgls_levels")
        if levels:
            return pd.MultiIndex.from_tuples(found, names=labels_from_json(levels))
        return pd.Index(found) if levels is None else as_index(found)  # earlier versions made levels of all tuples
    if is_coded(attributes):
        index = _decode_times(values, attributes)
        zone = attributes.get("lrgls_timezone")
        if "lrgls_period" in attributes:
            return pd.DatetimeIndex(index).to_period(attributes["lrgls_period"])
        return index if zone is None else pd.DatetimeIndex(index).tz_localize("UTC").tz_convert(zone)
    if values.dtype.kind in "OTU":
        return pd.Index(values.tolist())
    return pd.Index(values)


def is_coded(attributes: Mapping[str, Any]) -> bool:
    """Whether an array with these attributes holds other labels than its own values: times, or JSON text."""
    lengths = str(attributes.get("dtype", "")).startswith("timedelta64")
    return lengths or "lrgls_labels" in attributes or "since" in str(attributes.get("units", ""))


def _decode_times(values: np.ndarray, attributes: dict[str, Any]) -> pd.Index:
    if values.dtype == np.int64 and attributes.get("calendar") == "proleptic_gregorian":
        for unit, word in _UNITS.items():  # of any year, and in the unit it was written from
            if attributes["units"] == f"{word} since 1970-01-01":
                return pd.DatetimeIndex(values.astype(f"datetime64[{unit}]"))
    cf = {key: attributes[key] for key in _CF if key in attributes}
    times: Any = xr.coders.CFDatetimeCoder(use_cftime=True) if attributes.get("lrgls_cftime") else True
    coded = xr.Dataset({"label": ("label", values, cf)})
    return xr.decode_cf(coded, decode_times=times).indexes["label"].rename(None)


def labels_to_json(labels: Sequence[Any], what: str) -> list[Any]:
    """The labels as a JSON document can hold them. what : names them in the TypeError for those it cannot."""
    return [_to_json(label, what) for label in labels]


def labels_from_json(values: Sequence[Any]) -> tuple[Hashable, ...]:
    """The labels that `labels_to_json` made a document of."""
    return tuple(_from_json(value) for value in values)


_KINDS: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "time": (pd.Timestamp, lambda label: label.isoformat(), pd.Timestamp),
    "zoned": (
        pd.Timestamp,
        lambda label: [label.tz_convert("UTC").isoformat(), str(label.tz)],
        lambda value: pd.Timestamp(value[0]).tz_convert(value[1]),
    ),
    "period": (
        pd.Period,
        lambda label: [label.ordinal, label.freqstr],
        lambda value: pd.Period(ordinal=value[0], freq=value[1]),
    ),
    "timedelta": (pd.Timedelta, lambda label: label.isoformat(), pd.Timedelta),
    "date": (datetime.date, lambda label: label.isoformat(), datetime.date.fromisoformat),
    "decimal": (decimal.Decimal, str, decimal.Decimal),
}
"""What JSON has no word for: its name there, its type, how it is written and read."""


def _to_json(label: Any, what: str) -> Any:
    if isinstance(label, np.datetime64):
        label = pd.Timestamp(label)
    if isinstance(label, np.timedelta64):
        label = pd.Timedelta(label)
    if isinstance(label, np.generic):
        label = label.item()
    if isinstance(label, datetime.datetime):
        label = pd.Timestamp(label)
    if label is None or isinstance(label, str | int | float | bool):
        return label
    if isinstance(label, tuple):
        return [_to_json(item, what) for item in label]
    if isinstance(label, pd.Timestamp) and label.tz is not None:
        return {"zoned": _KINDS["zoned"][1](label)}
    for name, (kind, write, _) in _KINDS.items():
        if isinstance(label, kind):
            return {name: write(label)}
    raise TypeError(
        f"{what} must be strings, numbers, times or tuples of them to be stored; found {label!r} of type "
        f"{type(label).__name__}. Convert them, e.g. with .astype(str)."
    )


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_from_json(item) for item in value)
    if isinstance(value, dict):
        name, written = next(iter(value.items()))
        return _KINDS[name][2](written)
    return value
