"""One look at all rows of a frame, for what they decide together: levels, states of transforms, labels and lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dask
import pandas as pd

from lrgls_dask.checks import closest, shown
from lrgls_dask.data.formulas import Formulas
from lrgls_dask.data.labels import RowLabels
from lrgls_dask.data.modelmatrix import Encoding
from lrgls_dask.data.tables import Kind, as_kind, as_labels, check_columns, is_dask_frame, kind_of, read_columns

__all__ = ["Looked", "Pieces", "labels_of_rows", "look", "pieces_of", "whole_columns"]

SAMPLE_ROWS = 2


@dataclass(frozen=True, eq=False)
class Pieces:
    """The columns that are needed of a frame, in pieces of rows.

    rows : frames of pandas, or promises of them.  meta : what they are like, with all rows where these are in memory.
    labelled : whether rows have labels of their own, an index.
    """

    rows: tuple[Any, ...]
    meta: pd.DataFrame
    in_memory: bool
    labelled: bool

    def labels(self, names: Sequence[str]) -> tuple[tuple[pd.Index, ...], pd.DataFrame]:
        """The index of each piece, and these columns whole; read now."""
        wanted = _Wanted({}, (), {}, {}, (), tuple(names))
        seen = self.seen(wanted)
        return tuple(each.index for each in seen), _joined([each.labels for each in seen])

    def seen(self, wanted: _Wanted) -> list[_Seen]:
        """What is wanted of each piece, in one computation."""
        if self.in_memory:
            return [wanted(self.rows[0])]
        return list(dask.compute(*(dask.delayed(wanted)(piece) for piece in self.rows)))


def whole_columns(frame: Any, names: Sequence[str]) -> pd.DataFrame:
    """These columns of a frame, in memory."""
    pieces = pieces_of(frame, names)
    return pieces.rows[0] if pieces.in_memory else _joined(list(dask.compute(*pieces.rows)))


def pieces_of(frame: Any, names: Sequence[str]) -> Pieces:
    """These columns of a frame; those of a Dask frame unread. Raises ValueError for columns that it lacks."""
    names = list(dict.fromkeys(names))
    if not is_dask_frame(frame):
        raw = read_columns(frame, names)
        return Pieces((raw,), raw, True, isinstance(frame, pd.DataFrame))
    check_columns(frame, names)
    own = [name for name in names if name in set(frame.columns)]
    parts = frame[own].to_delayed()
    meta = read_columns(frame[own]._meta, names)
    return Pieces(tuple(dask.delayed(read_columns)(part, names) for part in parts), meta, False, True)


@dataclass(frozen=True, eq=False)
class Looked:
    """What a look at all rows gave.

    encoding : of the formulas.  labels : columns that are not of formulas, whole.  index : of each piece.
    """

    encoding: Encoding
    labels: pd.DataFrame
    index: tuple[pd.Index, ...]


def look(
    pieces: Pieces,
    formulas: Formulas,
    levels: Mapping[str, Sequence[Any]],
    labels: Sequence[str],
    fixed: Encoding | None = None,
) -> Looked:
    """Read what all rows decide together: in one computation, the columns behind it alone.

    levels : of columns, as the user gives them.  labels : columns to have whole.
    fixed : what another frame has decided already, of which nothing is asked then.
    Of a category the distinct values are kept, of a transform with a state the whole columns that it reads.
    """
    if fixed is not None:
        index, whole_labels = pieces.labels(labels)
        return Looked(fixed, whole_labels, index)
    kinds: dict[str, Kind] = {name: kind_of(name, pieces.meta[name]) for name in formulas.columns}
    _check_kinds(formulas, kinds)
    known = _known_levels(pieces.meta, formulas, kinds, levels)
    open_columns = tuple(name for name, kind in kinds.items() if kind == "category" and name not in known)
    coded = {
        each.text: each.given_levels or tuple(levels[str(each.coded_column)])
        for each in formulas.factors
        if each.coded and (each.given_levels is not None or each.coded_column in levels)
    }
    distinct = {each.text: each.columns for each in formulas.factors if each.coded and not each.whole}
    whole = {each.text: each.columns for each in formulas.factors if each.whole}
    seen = pieces.seen(_Wanted(kinds, open_columns, distinct, whole, formulas.columns, tuple(labels)))
    if not sum(len(each.index) for each in seen):
        raise ValueError("the frame has no rows. Check the selection that made it.")
    found = {**known, **{name: _levels_of(name, [each.values[name] for each in seen]) for name in open_columns}}
    encoding = Encoding(formulas, kinds, found, coded, {})
    of_factor = {text: _joined([each.of_factor[text] for each in seen]) for text in (*distinct, *whole)}
    encoding = encoding.with_states(of_factor, _joined([each.sample for each in seen])[:SAMPLE_ROWS])
    return Looked(encoding, _joined([each.labels for each in seen]), tuple(each.index for each in seen))


def _joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Frames of the same columns as one; empty ones, whose dtypes say nothing, are left out."""
    full = [each for each in frames if len(each)] or frames[:1]
    return full[0] if len(full) == 1 else pd.concat(full, ignore_index=True)


def _levels_of(name: str, values: list[pd.Series]) -> tuple[Any, ...]:
    """Ascending, as formulaic has them."""
    found = pd.concat(values, ignore_index=True).dropna() if len(values) > 1 else values[0].dropna()
    made = tuple(found.astype("category").cat.categories.tolist())
    if not made:
        raise ValueError(f"column {name!r} has no values: every row lacks one. Drop it from the formulas.")
    return made


def _check_kinds(formulas: Formulas, kinds: Mapping[str, Kind]) -> None:
    for each in formulas.factors:
        dates = [name for name in each.columns if kinds[name] == "date"]
        if dates and not each.coded:
            raise TypeError(
                f"column {dates[0]!r} holds dates, which are no numbers. Count from an origin in a column of the "
                f"frame, (frame[{dates[0]!r}] - origin) / pd.Timedelta('1D'); or write C({dates[0]}) for a category."
            )
    for each in formulas.responses:
        words = [name for name in each.columns if kinds[name] == "category"]
        if words and not each.asks:
            raise TypeError(
                f"the response {each.text!r} must be a number, but column {words[0]!r} holds categories. Convert it "
                f"with frame[{words[0]!r}].astype('float64') where these are numbers written as text."
            )
    for one in formulas.factors:
        words = [name for name in one.columns if kinds[name] == "category"]
        if words and not (one.plain or one.coded or one.asks or (one.lags and one.text.startswith("lag("))):
            raise TypeError(
                f"{one.text!r} calculates with column {words[0]!r}, which holds categories. Convert it with "
                f"frame[{words[0]!r}].astype('float64') where these are numbers written as text."
            )


def _known_levels(
    meta: pd.DataFrame, formulas: Formulas, kinds: Mapping[str, Kind], levels: Mapping[str, Sequence[Any]]
) -> dict[str, tuple[Any, ...]]:
    """Levels that need no look: those given, and those of a categorical dtype."""
    coded = {each.coded_column for each in formulas.factors if each.coded}
    for name in levels:
        if name not in kinds or (kinds[name] != "category" and name not in coded):
            categories = [each for each, kind in kinds.items() if kind == "category" or each in coded]
            raise ValueError(
                f"levels names {name!r}, which is no category of the formulas{closest(name, categories)} They have "
                f"{shown(categories) if categories else 'none'}. Drop it, or write C({name})."
            )
    known = {name: tuple(each) for name, each in levels.items() if kinds[name] == "category"}
    for name, kind in kinds.items():
        dtype = meta[name].dtype
        if kind == "category" and name not in known and isinstance(dtype, pd.CategoricalDtype):
            found = tuple(dtype.categories.tolist())
            if found != ("__UNKNOWN_CATEGORIES__",):  # which Dask puts where it has not looked
                known[name] = found
    return known


def labels_of_rows(
    name: str, index: Sequence[pd.Index], given: pd.Series | None, obs: str | None, labelled: bool
) -> RowLabels | None:
    """What rows are called: a column of the frame, or its index; None where it has neither.

    index : of each piece; rows that Dask has numbered anew in each partition are numbered through.
    """
    if given is not None:
        return RowLabels(name, pd.Index(given, name=obs), f"{name}[{obs!r}]", "", obs)
    if not labelled:
        return None
    anew = len(index) > 1 and all(piece.equals(pd.RangeIndex(len(piece))) for piece in index)
    whole = index[0].append(list(index[1:]))
    values = pd.RangeIndex(len(whole), name=index[0].name) if anew else whole
    dim = None if isinstance(values, pd.MultiIndex) else values.name
    return RowLabels(name, values, f"{name}.index", "", dim)


@dataclass(frozen=True)
class _Wanted:
    """What to keep of a piece of rows."""

    kinds: Mapping[str, Kind]
    open_columns: tuple[str, ...]
    distinct: Mapping[str, tuple[str, ...]]
    whole: Mapping[str, tuple[str, ...]]
    sampled: tuple[str, ...]
    labels: tuple[str, ...]

    def __call__(self, raw: pd.DataFrame) -> _Seen:
        for name, kind in self.kinds.items():
            if raw[name].dtype == object:  # which may hold anything, in any piece
                as_kind(name, raw[name], kind)
        values = {name: pd.Series(raw[name].dropna().unique()) for name in self.open_columns}
        of_factor = {text: raw[list(names)].drop_duplicates(ignore_index=True) for text, names in self.distinct.items()}
        of_factor |= {text: raw[list(names)].reset_index(drop=True) for text, names in self.whole.items()}
        sample = raw[list(self.sampled)][:SAMPLE_ROWS]
        labels = pd.DataFrame({name: as_labels(raw[name]) for name in self.labels}, raw.index)
        return _Seen(raw.index, values, of_factor, sample, labels.reset_index(drop=True))


@dataclass(frozen=True, eq=False)
class _Seen:
    """What was kept of a piece of rows."""

    index: pd.Index
    values: Mapping[str, pd.Series]
    of_factor: Mapping[str, pd.DataFrame]
    sample: pd.DataFrame
    labels: pd.DataFrame
