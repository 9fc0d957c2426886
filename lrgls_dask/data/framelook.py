"""One look at all rows of a frame, for what they decide together: levels, states of transforms, labels and lengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dask
import pandas as pd
from dask.delayed import Delayed
from dask.tokenize import tokenize

from lrgls_dask.checks import closest, shown
from lrgls_dask.data.formulas import Formulas
from lrgls_dask.data.labels import RowLabels
from lrgls_dask.data.modelmatrix import Encoding
from lrgls_dask.data.parquet import ParquetFrame
from lrgls_dask.data.parquetrows import FileRows, JoinedRows
from lrgls_dask.data.tables import (
    Kind,
    as_kind,
    as_labels,
    check_columns,
    check_kind,
    is_dask_frame,
    kind_of,
    read_columns,
)

__all__ = ["Looked", "Pieces", "labels_of_rows", "look", "pieces_of", "promise", "whole_columns"]

SAMPLE_ROWS = 2


@dataclass(frozen=True, eq=False)
class Pieces:
    """The columns that are needed of a frame, in pieces of rows.

    rows : frames of pandas, promises of them, or rows of Parquet files, unread.
    meta : what they are like, with all rows where these are in memory.
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
        of_files = bool(self.rows) and isinstance(self.rows[0], FileRows)
        if self.in_memory or (of_files and not wanted.read):
            return [wanted(piece) for piece in self.rows]
        if of_files:
            return list(dask.compute(*(promise(_seen, wanted, piece) for piece in self.rows)))
        try:
            return list(dask.compute(*(promise(_seen_of, (wanted, i), piece) for i, piece in enumerate(self.rows))))
        except KeyError as error:  # of Dask itself, which does not say where
            raise ValueError(
                f"a partition of the Dask frame has other columns than frame.columns: {error}. Make all partitions "
                "with the same columns."
            ) from error

    def n_read(self, wanted: Sequence[str]) -> int:
        """How many columns a look reads that wants these: of Dask all that are named, which partitions come with."""
        if self.in_memory:
            return 0
        return len(wanted) if isinstance(self.rows[0], FileRows) else len(self.meta.columns)

    def sample(self, seen: Sequence[_Seen], names: Sequence[str]) -> pd.DataFrame:
        """A few rows, of those that were seen or else of the first file."""
        if seen and seen[0].sample is None:
            return self.rows[0].head(SAMPLE_ROWS, names)
        full = next((each.sample for each in seen if each.sample is not None and len(each.sample) == SAMPLE_ROWS), None)
        found = [each.sample for each in seen if each.sample is not None] if full is None else [full]
        return _joined(found)[:SAMPLE_ROWS]


def promise(function: Callable[[Any, Any], Any], sent: Any, piece: Any) -> Delayed:
    """function(sent, piece), to be computed; rows of a file are read by whoever computes it.

    sent : a value, or a promise of one that several are given.
    """
    if not isinstance(piece, FileRows | JoinedRows):
        return dask.delayed(function)(sent, piece)
    given = sent if isinstance(sent, Delayed) else dask.delayed(sent, pure=True, traverse=False)
    key = f"parquet-{tokenize(function.__name__, given.key, piece.token)}"  # the same for the same rows, in any process
    return dask.delayed(_OfFile(function, piece), pure=True, traverse=False)(given, dask_key_name=key)


class _OfFile:
    """A function of rows of a file; the rows are no argument, in which Dask would look for tasks."""

    def __init__(self, function: Callable[[Any, Any], Any], piece: FileRows | JoinedRows) -> None:
        self.function, self.piece = function, piece

    def __call__(self, sent: Any) -> Any:
        return self.function(sent, self.piece)


def whole_columns(frame: Any, names: Sequence[str]) -> pd.DataFrame:
    """These columns of a frame, in memory."""
    pieces = pieces_of(frame, names)
    if pieces.in_memory:
        return pieces.rows[0]
    return _joined(list(dask.compute(*(promise(_columns, list(names), piece) for piece in pieces.rows))))


def _columns(names: list[str], piece: Any) -> pd.DataFrame:
    return read_columns(piece, names)


def pieces_of(frame: Any, names: Sequence[str]) -> Pieces:
    """These columns of a frame; those of a Dask frame unread. Raises ValueError for columns that it lacks."""
    names = list(dict.fromkeys(names))
    if isinstance(frame, ParquetFrame):
        check_columns(frame, names)
        checked = frame.checked(names)
        groups = checked.row_groups()
        if not groups:
            raise ValueError(f"{frame.files[0].called} and all other files have no rows. Check what wrote them.")
        return Pieces(groups, checked.meta(names), False, True)
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
    n_read : columns that were read for it, none of a frame in memory.
    """

    encoding: Encoding
    labels: pd.DataFrame
    index: tuple[pd.Index, ...]
    n_read: int = 0


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
        return Looked(fixed, whole_labels, index, pieces.n_read(labels))
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
    wanted = _Wanted(kinds, open_columns, distinct, whole, formulas.regressor_columns, tuple(labels))
    seen = pieces.seen(wanted)
    if not sum(len(each.index) for each in seen):
        raise ValueError("the frame has no rows. Check the selection that made it.")
    in_order = {name for name in open_columns if _is_dictionary(pieces.meta[name])}
    found = {
        **known,
        **{name: _levels_of(name, [each.values[name] for each in seen], name in in_order) for name in open_columns},
    }
    encoding = Encoding(formulas, kinds, found, coded, {})
    of_factor = {text: _joined([each.of_factor[text] for each in seen]) for text in (*distinct, *whole)}
    encoding = encoding.with_states(of_factor, pieces.sample(seen, formulas.regressor_columns))
    index = tuple(each.index for each in seen)
    return Looked(encoding, _joined([each.labels for each in seen]), index, pieces.n_read(wanted.read))


def _joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Frames of the same columns as one; empty ones, whose dtypes say nothing, are left out."""
    full = [each for each in frames if len(each)] or frames[:1]
    return full[0] if len(full) == 1 else pd.concat(full, ignore_index=True)


def _levels_of(name: str, values: list[pd.Series], in_order: bool) -> tuple[Any, ...]:
    """Ascending, as formulaic has them, or in the order of dictionaries, as pandas has them."""
    if in_order:
        return tuple(dict.fromkeys(level for each in values for level in each.astype("category").cat.categories))
    found = pd.concat(values, ignore_index=True).dropna() if len(values) > 1 else values[0].dropna()
    made = tuple(found.astype("category").cat.categories.tolist())
    if not made:
        raise ValueError(f"column {name!r} has no values: every row lacks one. Drop it from the formulas.")
    return made


def _is_dictionary(meta: pd.Series) -> bool:
    """Whether it has a categorical dtype with levels that are in the files."""
    return isinstance(meta.dtype, pd.CategoricalDtype) and not len(meta.cat.categories)


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
            if found not in ((), ("__UNKNOWN_CATEGORIES__",)):  # which Dask puts where it has not looked
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
    numbered = pd.RangeIndex(sum(map(len, index)), name=index[0].name) if index else pd.RangeIndex(0)
    values = numbered if anew else index[0].append(list(index[1:]))
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

    @property
    def read(self) -> tuple[str, ...]:
        """The columns of a file that are read."""
        of_factors = [name for each in (self.distinct, self.whole) for names in each.values() for name in names]
        return tuple(dict.fromkeys([*self.open_columns, *of_factors, *self.labels]))

    def __call__(self, piece: Any) -> _Seen:
        raw = piece.read_columns(self.read) if isinstance(piece, FileRows) else piece
        for name, kind in self.kinds.items():
            if name in raw and raw[name].dtype == object:  # which may hold anything, in any piece
                as_kind(name, raw[name], kind)
            elif name in raw:
                check_kind(name, raw[name], kind)
        values = {name: pd.Series(raw[name].dropna().unique()) for name in self.open_columns}
        of_factor = {text: raw[list(names)].drop_duplicates(ignore_index=True) for text, names in self.distinct.items()}
        of_factor |= {text: raw[list(names)].reset_index(drop=True) for text, names in self.whole.items()}
        sample = None if isinstance(piece, FileRows) else raw[list(self.sampled)][:SAMPLE_ROWS]
        labels = pd.DataFrame({name: as_labels(raw[name]) for name in self.labels}, raw.index)
        return _Seen(raw.index, values, of_factor, sample, labels.reset_index(drop=True))


@dataclass(frozen=True, eq=False)
class _Seen:
    """What was kept of a piece of rows.  sample : None of a file, of which it is read by itself."""

    index: pd.Index
    values: Mapping[str, pd.Series]
    of_factor: Mapping[str, pd.DataFrame]
    sample: pd.DataFrame | None
    labels: pd.DataFrame


def _seen(wanted: _Wanted, piece: Any) -> _Seen:
    return wanted(piece)


def _seen_of(asked: tuple[_Wanted, int], piece: Any) -> _Seen:
    """The same of a partition by its number, which is said where it holds something else than the others."""
    wanted, number = asked
    try:
        return wanted(piece)
    except TypeError as error:
        raise TypeError(f"partition {number} of the Dask frame: {error}") from error
