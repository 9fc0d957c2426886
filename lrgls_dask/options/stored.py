"""Options as a saved fit keeps them: values of JSON, never a pickle."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.options.covariances import DESCRIBED, Described
from lrgls_dask.options.table import OPTIONS

__all__ = ["as_stored", "from_stored"]

LONGEST = 1_000  # what holds more values than this, labels of rows for instance, is described and not kept
KIND = "kind"  # marks what JSON has no value for: {"kind": what it is, ...}


def as_stored(params: Mapping[str, Any]) -> dict[str, Any]:
    """The options by name as values of JSON, for `from_stored`.

    Numbers, texts, paths, and up to 1,000 of them in a list, tuple, mapping, array or Series are kept, and so are
    objects such as `GroupedLowRank` made of these. Of anything else, a callable or labels of many rows, a text says
    what it was.
    """
    return {name: _encoded(value) for name, value in params.items()}


def from_stored(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The options that `as_stored` kept, by name; for a value that was not kept the text that says what it was.

    Options that an earlier version did not know have their defaults, which is how it fitted.
    """
    defaults = {name: each.default for name, each in OPTIONS.items()}
    return defaults | {name: _decoded(value) for name, value in stored.items()}


# ---------------------------------------------------------------------------------------------- there


def _encoded(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {KIND: "float", "value": repr(value)}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Restrictions):
        return _encoded((value.matrix, value.values))
    for kind, described in DESCRIBED.items():
        if type(value) is described:
            return {KIND: kind, "fields": {each.name: _encoded(getattr(value, each.name)) for each in fields(value)}}
    if isinstance(value, Described):  # of a user's own kind
        return {KIND: "text", "text": repr(value)}
    if getattr(value, "size", None) is None and not isinstance(value, Mapping | Sequence):
        return {KIND: "text", "text": f"<{getattr(value, '__name__', type(value).__name__)}>"}
    return _encoded_values(value)


def _encoded_values(value: Any) -> Any:
    """Of several values: a mapping, a list, an array."""
    size = len(value) if isinstance(value, Mapping | Sequence) else value.size
    if size <= LONGEST:
        if isinstance(value, xr.DataArray) and value.dims in [(name,) for name in value.indexes] and not value.chunks:
            value = value.to_series()
        if isinstance(value, Mapping | pd.Series):
            kind = "mapping" if isinstance(value, Mapping) else "series"
            return {KIND: kind, "items": [[_encoded(key), _encoded(each)] for key, each in value.items()]}
        if isinstance(value, np.ndarray | pd.Index):
            return {KIND: "array", "values": _encoded(np.asarray(value).tolist())}
        if isinstance(value, tuple):
            return {KIND: "tuple", "values": [_encoded(each) for each in value]}
        if isinstance(value, Sequence):
            return [_encoded(each) for each in value]
    shape = (size,) if isinstance(value, Mapping | Sequence) else tuple(value.shape)
    return {KIND: "text", "text": f"<{type(value).__name__} of shape {shape}>"}


# ---------------------------------------------------------------------------------------------- and back


def _decoded(stored: Any) -> Any:
    if isinstance(stored, list):
        return [_decoded(each) for each in stored]
    if not isinstance(stored, Mapping):
        return stored
    if stored[KIND] in MADE:
        return MADE[stored[KIND]](stored)
    said = {name: _decoded(each) for name, each in stored["fields"].items()}
    described = DESCRIBED.get(stored[KIND])
    if described is not None and not _is_said(stored["fields"]):
        return described(**said)
    name = stored[KIND] if described is None else described.__name__  # of a later version, None
    return f"{name}({', '.join(f'{field}={each!r}' for field, each in said.items())})"


MADE = {
    "float": lambda stored: float(stored["value"]),
    "text": lambda stored: stored["text"],
    "tuple": lambda stored: tuple(_decoded(stored["values"])),
    "array": lambda stored: np.array(_decoded(stored["values"])),
    "mapping": lambda stored: {_decoded(key): _decoded(each) for key, each in stored["items"]},
    "series": lambda stored: pd.Series({_decoded(key): _decoded(each) for key, each in stored["items"]}),
}


def _is_said(stored: Any) -> bool:
    """Whether something in it is a text about what was not kept, so that the whole cannot be made again."""
    if isinstance(stored, Mapping):
        return stored.get(KIND) == "text" or any(map(_is_said, stored.values()))
    return isinstance(stored, list) and any(map(_is_said, stored))
