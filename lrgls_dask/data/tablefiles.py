"""Files of tables, in text or Parquet, read in pieces of some rows, with nothing in place of what stands for it.

What the columns of text hold is told by the first rows of the first file: labels are whole numbers, dates or words, all
other numbers floats.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import fsspec
import numpy as np
import pandas as pd

from lrgls_dask.data.parquetrows import pa, pq
from lrgls_dask.rows.progress import report

try:
    import pyarrow.compute as pc
    import pyarrow.csv as csv
except ImportError:  # an extra, asked for by who reads a file
    pc = csv = None

__all__ = ["BLOCK_BYTES", "TableFiles"]

BLOCK_BYTES = 4 * 2**20  # of text, of which a few are held, parsed and not
LOOKED_AT = 1_000  # rows that say what columns hold


@dataclass(frozen=True)
class TableFiles:
    """Files with the same columns.

    paths : local ones, or URLs of fsspec.  kind : "csv" or "parquet".  keys : columns of labels.
    missing : texts and numbers, as text, that stand for a missing value.
    """

    paths: tuple[str, ...]
    kind: str
    keys: tuple[str, ...]
    missing: tuple[str, ...]

    def __post_init__(self) -> None:
        if pq is None:
            raise ImportError(
                "tables are read by pyarrow, which is not installed. Use pip install 'lrgls_dask[parquet]'."
            )

    def pieces(self, path: str, topic: str | None = None, block_bytes: int = BLOCK_BYTES) -> Iterator[Any]:
        """The rows of one of the files in order, as tables of Arrow of about so many bytes.

        topic : under which bytes that are read are reported.  Raises ValueError, naming file and column, for what the
        first rows did not announce.
        """
        read = self._text if self.kind == "csv" else self._parquet
        for piece in read(path, topic, block_bytes):
            yield self._without_missing(piece)

    def size(self, path: str) -> int:
        """Bytes of one of the files."""
        filesystem, root = fsspec.core.url_to_fs(path)
        return int(filesystem.size(root))

    # ------------------------------------------------------------------------------------------ Parquet

    def _parquet(self, path: str, topic: str | None, block_bytes: int) -> Iterator[Any]:
        filesystem, root = fsspec.core.url_to_fs(path)
        with filesystem.open(root, "rb") as source, pq.ParquetFile(_Told(source, topic)) as file:
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            row_bytes = sum(each.total_byte_size for each in groups) / max(1, file.metadata.num_rows)
            for batch in file.iter_batches(max(1, int(block_bytes / max(1.0, row_bytes))), use_threads=False):
                yield pa.Table.from_batches([batch])

    # ------------------------------------------------------------------------------------------ text

    @cached_property
    def _separator(self) -> str:
        return "\t" if ".tsv" in self.paths[0].lower() else ","

    @cached_property
    def _first_rows(self) -> pd.DataFrame:
        return self._head(self.paths[0])

    def _head(self, path: str) -> pd.DataFrame:
        with fsspec.open(path, "rb", compression="infer") as source:
            try:
                return pd.read_csv(source, nrows=LOOKED_AT, sep=self._separator, na_values=list(self.missing))
            except ValueError as error:
                raise ValueError(_said(error, path, ())) from error

    @cached_property
    def _types(self) -> dict[str, Any]:
        """What each column of text becomes; of dates, what it is read as."""
        types: dict[str, Any] = {}
        for name, column in self._first_rows.items():
            kind = column.dtype.kind if not isinstance(column.dtype, pd.StringDtype) else "O"
            if kind in "iu":
                types[str(name)] = pa.int64() if name in self.keys else pa.float64()
            else:
                types[str(name)] = {"f": pa.float64(), "b": pa.bool_()}.get(kind, pa.string())
        return types

    @cached_property
    def _dates(self) -> tuple[str, ...]:
        """Columns of labels that hold dates."""
        words = [name for name in self.keys if self._types.get(name) == pa.string()]
        some = [name for name in words if not self._first_rows[name].isna().all()]
        return tuple(name for name in some if _as_dates(self._first_rows[name]) is not None)

    def _text(self, path: str, topic: str | None, block_bytes: int) -> Iterator[Any]:
        names = [str(name) for name in self._head(path).columns]
        nulls = [*csv.ConvertOptions().null_values, *self.missing]
        options = {
            "read_options": csv.ReadOptions(block_size=block_bytes, column_names=names, skip_rows=1),
            "parse_options": csv.ParseOptions(delimiter=self._separator, newlines_in_values=True),
            "convert_options": csv.ConvertOptions(
                column_types=self._types, null_values=nulls, strings_can_be_null=True, timestamp_parsers=[]
            ),
        }
        filesystem, root = fsspec.core.url_to_fs(path)
        with filesystem.open(root, "rb") as raw:
            source = fsspec.utils.infer_compression(path)
            told = _Told(raw, topic)
            plain = fsspec.compression.compr[source](told, mode="rb") if source else told
            try:
                with csv.open_csv(plain, **options) as reader:
                    batch = None
                    for batch in reader:
                        yield self._dated(pa.Table.from_batches([batch]), path)
                    if batch is None:
                        yield self._dated(reader.schema.empty_table(), path)
            except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
                raise ValueError(_said(error, path, names)) from error

    def _dated(self, table: Any, path: str) -> Any:
        for name in self._dates:
            if name not in table.column_names:
                continue
            dates = _as_dates(table.column(name).to_pandas())
            if dates is None:
                raise ValueError(
                    f"column {name!r} holds dates in the first rows of {self.paths[0]}, but not everywhere in {path}. "
                    "Write them all as 2001-12-31, or with a time behind that."
                )
            found = pa.array(dates)  # in a unit that depends on the texts
            column = found.cast(pa.timestamp("us", found.type.tz))
            table = table.set_column(table.column_names.index(name), name, column)
        return table

    # ------------------------------------------------------------------------------------------ missing values

    @cached_property
    def _numbers(self) -> list[float]:
        found = []
        for text in self.missing:
            try:
                found.append(float(text))
            except ValueError:
                continue
        return found

    def _without_missing(self, table: Any) -> Any:
        if not self.missing:
            return table
        for i, field in enumerate(table.schema):
            table = table.set_column(i, field.name, self._blank(table.column(i)))
        return table

    def _blank(self, column: Any) -> Any:
        kind = column.type
        if pa.types.is_dictionary(kind):
            return pa.chunked_array([_blank_codes(chunk, self.missing) for chunk in column.chunks], kind)
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return _masked(column, pa.array(self.missing, kind))
        numbers = np.array(self._numbers)
        if pa.types.is_integer(kind):
            limits = np.iinfo(kind.to_pandas_dtype())
            numbers = numbers[(numbers == np.floor(numbers)) & (numbers >= limits.min) & (numbers <= limits.max)]
        elif not pa.types.is_floating(kind):
            return column
        return _masked(column, pa.array(numbers.astype(kind.to_pandas_dtype())))


class _Told:
    """A file of bytes that tells how many were read."""

    def __init__(self, source: Any, topic: str | None) -> None:
        self._source, self._topic = source, topic

    def read(self, n_bytes: int = -1) -> bytes:
        found: bytes = self._source.read(n_bytes)
        report(self._topic, len(found))
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


def _as_dates(labels: pd.Series) -> pd.Series | None:
    """The same as dates; None where some are none."""
    dates = pd.to_datetime(labels, format="ISO8601", errors="coerce")
    return None if (dates.isna() & labels.notna()).any() else dates


def _masked(column: Any, values: Any) -> Any:
    return pc.if_else(pc.is_in(column, value_set=values), pa.scalar(None, column.type), column)


def _blank_codes(chunk: Any, missing: Sequence[str]) -> Any:
    """An array of categories without those that stand for a missing value."""
    if not (pa.types.is_string(chunk.type.value_type) or pa.types.is_large_string(chunk.type.value_type)):
        return chunk
    gone = pc.is_in(chunk.dictionary, value_set=pa.array(missing, chunk.type.value_type))
    codes = _masked(chunk.indices, pc.indices_nonzero(gone).cast(chunk.type.index_type))
    return pa.DictionaryArray.from_arrays(codes, chunk.dictionary, ordered=chunk.type.ordered)


def _said(error: Exception, path: str, names: Sequence[str]) -> str:
    """What Arrow found wrong with text, in the user's names."""
    reason = (str(error).splitlines() or ["it cannot be parsed"])[0].rstrip(".")
    _, number, after = reason.partition("CSV column #")
    if not number:
        return f"{path} cannot be read: {reason}. Write it again with as many values in each line as there are names."
    place, _, what = after.partition(":")
    name = names[int(place)]
    value = what.rpartition("value ")[2].strip().strip("'\"")
    return (
        f"column {name!r} of {path} holds {value!r} where its first rows hold {'whole ' * ('int' in what)}numbers. "
        f"If that stands for a missing value use --missing-value {value}; else write the column in "
        "one kind."
    )
