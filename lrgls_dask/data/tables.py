"""Frames of any kind through one door: the columns that are asked for, as numbers, categories or dates of pandas.

pandas as it is; polars, Arrow tables and what else narwhals knows are turned over column by column, lazy ones are
collected for the columns that are asked for. A Dask frame is read partition by partition by those who ask, and files of
Parquet row group by row group.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any, Literal

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd

from lrgls_dask.checks import closest, shown
from lrgls_dask.data.numbers import check_real
from lrgls_dask.data.parquet import ParquetFrame
from lrgls_dask.data.parquetrows import FileRows

__all__ = [
    "Kind",
    "as_kind",
    "as_labels",
    "check_kind",
    "column_names",
    "is_dask_frame",
    "is_table",
    "kind_of",
    "read_columns",
    "stored_index",
    "unknown_level",
]

Kind = Literal["number", "category", "date"]
NOT_TAKEN = (
    "Use {frame}.astype('float64') for numbers written otherwise, .astype('string') or 'category' for labels, "
    "pd.to_datetime(...) for dates"
)


def is_dask_frame(data: Any) -> bool:
    """Whether its rows are in partitions."""
    return all(hasattr(data, name) for name in ("to_dask_array", "npartitions", "index", "columns"))


def is_table(data: Any) -> bool:
    """Whether this is a frame of any kind."""
    if isinstance(data, pd.DataFrame | ParquetFrame):
        return True
    return is_dask_frame(data) or _narwhals(data) is not None


def as_table(data: Any) -> Any:
    """Batches of Arrow, or a reader of them, which can be read once, as a table; all else as it is."""
    streamed = hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__")
    if streamed and hasattr(data, "schema") and not is_table(data):
        return nw.to_native(nw.from_arrow(data, backend="pyarrow"))
    return data


def _narwhals(data: Any) -> Any:
    found = nw.from_native(data, pass_through=True)
    return found if isinstance(found, nw.DataFrame | nw.LazyFrame) else None


def column_names(frame: Any) -> tuple[str, ...]:
    """Names of its columns that are text; of a pandas or Dask frame, those of its index after them."""
    if isinstance(frame, pd.DataFrame):
        names = [*frame.columns, *(name for name in frame.index.names if name not in set(frame.columns))]
    elif isinstance(frame, ParquetFrame):
        names = list(frame.names)
    elif is_dask_frame(frame):
        names = [*frame.columns, *([] if frame.index.name in set(frame.columns) else [frame.index.name])]
    else:
        names = _narwhals(frame).collect_schema().names()
    return tuple(name for name in names if isinstance(name, str))


def stored_index(frame: Any) -> str | None:
    """The column of Parquet files that is the index of the frame of pandas that was written."""
    return frame.index if isinstance(frame, ParquetFrame) else None


def regressor_names(frame: Any, besides: Sequence[str | None]) -> tuple[str, ...]:
    """The columns that formulas may mean by a dot or a pattern: its own, but for labels, weights and groups."""
    has_index = isinstance(frame, pd.DataFrame | ParquetFrame) or is_dask_frame(frame)
    own = set(frame.columns) if has_index else set(column_names(frame))
    return tuple(name for name in column_names(frame) if name in own and name not in besides)


def read_columns(frame: Any, names: Sequence[str]) -> pd.DataFrame:
    """These columns, each once, with the index of a pandas frame; nothing else of it is looked at.

    Raises ValueError naming the first that the frame lacks, or has twice.
    """
    if isinstance(frame, FileRows):  # whose columns were checked when the files were opened
        return frame.read_columns(names)
    check_columns(frame, names)
    if isinstance(frame, pd.DataFrame):
        own = set(frame.columns)
        found = {name: frame[name] if name in own else frame.index.get_level_values(name) for name in names}
        return pd.DataFrame({name: pd.Series(each.array, frame.index) for name, each in found.items()}, frame.index)
    table = _narwhals(frame)
    known = list(table.collect_schema().names())
    table = table.select(nw.nth(*map(known.index, names)))  # by place: polars takes "*" and "^y$" for patterns
    if isinstance(table, nw.LazyFrame):
        table = table.collect()
    return pd.DataFrame({name: _of_narwhals(name, table[name]) for name in names}, pd.RangeIndex(len(table)))


def check_columns(frame: Any, names: Sequence[str]) -> None:
    """Raise ValueError naming the first of these columns that a frame lacks, or has twice."""
    known = column_names(frame)
    for name in names:
        if name not in known:
            raise ValueError(
                f"the frame has no column {name!r}{closest(name, known)} It has "
                f"{shown(known, 20) or 'none named by text'}. Mend the name, or add the column."
            )
        if known.count(name) > 1:
            raise ValueError(f"the frame has {known.count(name)} columns called {name!r}. Rename or drop one.")


def _of_narwhals(name: str, series: Any) -> pd.Series:
    dtype = series.dtype
    if dtype.is_numeric() or dtype == nw.Boolean:
        plain = not isinstance(dtype, nw.Decimal) and series.null_count() == 0
        return pd.Series(series.to_numpy() if plain else series.cast(nw.Float64).to_numpy())
    if isinstance(dtype, nw.Categorical | nw.Enum):
        values = series.to_list()
        present = set(values)
        levels = [each for each in series.cat.get_categories().to_list() if each is not None]
        kept = levels if isinstance(dtype, nw.Enum) else [each for each in levels if each in present]
        return pd.Series(pd.Categorical(values, categories=kept))
    if isinstance(dtype, nw.Datetime) and dtype.time_zone is None:
        return pd.Series(series.to_numpy())
    if isinstance(dtype, nw.Date | nw.Datetime):
        return pd.Series(pd.to_datetime(pd.Series(series.to_list())))
    if isinstance(dtype, nw.String):
        return pd.Series(series.to_list(), dtype="str")
    raise TypeError(
        f"column {name!r} has dtype {dtype}, which is neither numbers nor labels nor dates. Cast it to one of these."
    )


# ---------------------------------------------------------------------------------------------- kinds


def kind_of(name: str, series: pd.Series) -> Kind:
    """What a column is to a formula. Raises TypeError for what formulas cannot take, naming a value that tells why."""
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype | pd.StringDtype):
        return "category"
    if isinstance(dtype, pd.PeriodDtype | pd.DatetimeTZDtype) or getattr(dtype, "kind", "") == "M":
        return "date"
    if isinstance(dtype, pd.ArrowDtype) and dtype.type in (str, datetime.date):
        return "category" if dtype.type is str else "date"
    if getattr(dtype, "kind", "") == "O" and isinstance(dtype, np.dtype):
        return _kind_of_objects(name, series)
    check_real(f"column {name!r}", dtype, "Float64")
    return "number"


def _kind_of_objects(name: str, series: pd.Series) -> Kind:
    values = series[series.notna()]
    odd = next((i for i, value in enumerate(values) if not isinstance(value, str)), None)
    if odd is None:
        return "category"
    rows = np.flatnonzero(series.notna())
    text = next((i for i, value in enumerate(values) if isinstance(value, str)), None)
    held = [
        f"{type(values.iloc[i]).__name__} such as {values.iloc[i]!r}, at row {rows[i]}"
        for i in (odd, text)
        if i is not None
    ]
    raise TypeError(
        f"column {name!r} has dtype object and holds {', and '.join(held)}, where formulas take text only. "
        f"{NOT_TAKEN.format(frame=f'frame[{name!r}]')}."
    )


def as_kind(name: str, series: pd.Series, kind: Kind, levels: Sequence[Any] | None = None) -> Any:
    """The column as an array: of numbers, a Categorical with these levels, by default its own, or dates.

    Raises TypeError where it holds something else, ValueError for a value that is none of the levels.
    """
    if kind == "category":
        return _as_category(name, series, levels)
    check_kind(name, series, kind)
    if kind_of(name, series) != kind:  # all of it is missing
        return np.full(len(series), np.datetime64("NaT", "ns") if kind == "date" else np.nan)
    if kind == "date":
        return as_labels(series).array
    if isinstance(series.dtype, np.dtype):
        return np.ascontiguousarray(series.to_numpy())
    whole = getattr(series.dtype, "numpy_dtype", series.dtype).kind in "iu" and not series.isna().any()
    if whole and series.dtype != "UInt64":  # so that levels made of them are whole numbers too
        return series.to_numpy(dtype=np.int64)
    return series.to_numpy(dtype=np.float64, na_value=np.nan)


def as_labels(series: pd.Series) -> pd.Series:
    """Labels as pandas has them: nullable and Arrow numbers and dates as those of NumPy, where none is missing."""
    dtype = series.dtype
    if isinstance(dtype, pd.ArrowDtype) and (dtype.kind == "M" or dtype.type is datetime.date):
        return pd.Series(pd.to_datetime(series.to_numpy(dtype=object, na_value=None)), series.index)
    kind = getattr(dtype, "numpy_dtype", np.dtype("O"))
    if isinstance(dtype, np.dtype) or kind.kind not in "iufb" or series.isna().any():
        return series
    return series.astype(kind)


def check_kind(name: str, series: pd.Series, kind: Kind) -> None:
    """Raise TypeError, naming the first value, where a column is of another kind than elsewhere, but all missing."""
    found = kind_of(name, series)
    if found != kind and series.notna().any():
        row = int(np.argmax(series.notna()))
        kinds = {"category": "categories"}.get(kind, f"{kind}s")
        raise TypeError(
            f"column {name!r} has dtype {series.dtype} and holds {series.iloc[row]!s}, at row {row}, where it must "
            f"hold {kinds}. Convert it, {NOT_TAKEN.format(frame=f'frame[{name!r}]')[4:]}."
        )


def _as_category(name: str, series: pd.Series, levels: Sequence[Any] | None) -> pd.Categorical:
    check_kind(name, series, "category")
    if levels is None:
        if isinstance(series.dtype, pd.CategoricalDtype):
            return series.array
        return pd.Categorical(series)
    if isinstance(series.dtype, pd.CategoricalDtype):
        found, distinct = series.array.codes, series.array.categories
        own = distinct.tolist()
        if own == list(levels) and list(map(type, own)) == list(map(type, levels)) and not series.array.ordered:
            return series.array
    else:
        found, distinct = pd.factorize(series)
    place = pd.Index(levels, dtype=object).get_indexer(pd.Index(distinct, dtype=object))
    codes = np.append(place, -1)[found]  # what is missing has the code -1
    lost = (codes == -1) & (found != -1)
    if lost.any():
        row = int(lost.argmax())
        raise unknown_level(f"column {name!r}", series.iloc[row], row, levels, name)
    return pd.Categorical.from_codes(codes, categories=list(levels))


def unknown_level(what: str, value: Any, row: int, levels: Sequence[Any], column: str) -> ValueError:
    """The error for a level that was not there, or not named, when the levels were fixed."""
    return ValueError(
        f"{what} holds {value!r}, first at row {row}, which is none of its levels {shown(list(levels), 10)}. Leave "
        f"such rows out, or name it among them before the fit, by levels={{{column!r}: [...]}} of System.from_frame or "
        "by levels=[...] of C(...)."
    )
