"""Rows of Parquet files as frames of pandas: read where they are asked for, by whoever asks, and only their columns.

A row group is decoded from its beginning on, so that a large one is cut into stretches that follow each other; who
takes them in order decodes it once, through a reader that is left open where it stands. Files are opened by the process
that reads them, no handle is sent.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np
import pandas as pd
from fsspec.implementations.local import LocalFileSystem

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow.lib import ArrowException
except ImportError:  # an extra, asked for by who opens a file
    pa = pq = None
    ArrowException = OSError

__all__ = ["FileRows", "JoinedRows", "ParquetFile", "pandas_column"]

WHOLE_BYTES = 32 * 2**20  # row groups up to here, decoded, are read in one piece
STRETCH_BYTES = 12 * 2**20  # stretches of larger ones, and the numbers made of them stay within a block
# Pages of one column are read through a buffer of this size; a row group that is read whole has its bytes at once.
BUFFER_BYTES = 256 * 2**10
REMOTE_BUFFER_BYTES = 2**20  # where each read is a request
FOOTERS_KEPT = 256
LEFT_OPEN = 8 * dask.system.CPU_COUNT


@dataclass(frozen=True)
class ParquetFile:
    """A file, how to open it, and what is known of it besides its columns.

    size : bytes, by which it is told from one that was written since.
    folders : column -> (place of its value among the levels, levels) of columns that names of folders hold; a place of
    -1 is a missing value.  floats : columns of whole numbers or booleans that miss some values in some file, which are
    floats in all.  first, step : number of the first row, and from each to the next.
    known_as : of a file of ours, what its rows are to the user, and what tells them from others.
    kept_by : whatever the file goes with.
    """

    filesystem: Any
    path: str
    size: int
    folders: tuple[tuple[str, int, tuple[Any, ...]], ...] = ()
    floats: frozenset[str] = frozenset()
    first: int = 0
    step: int = 1
    known_as: tuple[str, str] | None = None
    kept_by: Any = None

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, LocalFileSystem)

    @property
    def called(self) -> str:
        """What the user knows it by."""
        return self.path if self.is_local else str(self.filesystem.unstrip_protocol(self.path))

    @property
    def buffer_bytes(self) -> int:
        """Of each column, where row groups are read in stretches."""
        return BUFFER_BYTES if self.is_local else REMOTE_BUFFER_BYTES

    @contextmanager
    def opened(self, *, stretches: bool = False) -> Iterator[Any]:
        """The file, open for reading; footers are kept by the process."""
        opened = self.open(stretches=stretches)
        try:
            yield opened
        finally:
            opened.close(force=True)

    def open(self, *, stretches: bool) -> Any:
        """The same, to be closed by the caller.  stretches : whether row groups are read bit by bit."""
        source: Any = self.path if self.is_local else self.filesystem.open(self.path, "rb", cache_type="none")
        found = os.path.getsize(self.path) if self.is_local else source.size
        if found != self.size:
            raise OSError(f"it was written anew: it has {found:,} bytes, and had {self.size:,}")
        footer = _footers.of(self)
        buffer = self.buffer_bytes if stretches else 0
        made = pq.ParquetFile(source, metadata=footer, pre_buffer=not stretches, buffer_size=buffer)
        _footers.keep(self, made.metadata)
        return made


class _Footers:
    """Footers that this process has read, the latest ones."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, Any] = {}
        self._lock = threading.Lock()

    def of(self, file: ParquetFile) -> Any:
        with self._lock:
            return self._kept.get(self._key(file))

    def keep(self, file: ParquetFile, footer: Any) -> None:
        with self._lock:
            self._kept[self._key(file)] = footer
            while len(self._kept) > FOOTERS_KEPT:
                del self._kept[next(iter(self._kept))]

    @staticmethod
    def _key(file: ParquetFile) -> Hashable:
        return dask.base.tokenize(file.filesystem), file.path, file.size


_footers = _Footers()


# ---------------------------------------------------------------------------------------------- rows


class FileRows:
    """Some rows of one row group of a file: what `tables.read_columns` reads, in whatever process.

    group : which row group.  offset : rows of the file before it.  length : its rows.  start, stop : which of them.
    step : where it is read in stretches, rows of each; 0 where no more than its beginning is read.
    """

    def __init__(
        self, file: ParquetFile, group: int, offset: int, length: int, start: int, stop: int, step: int
    ) -> None:
        self.file, self.group, self.offset, self.length = file, group, offset, length
        self.start, self.stop, self.step = start, stop, step

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def token(self) -> tuple[Any, ...]:
        """What tells these rows from others."""
        called = self.file.called if self.file.known_as is None else self.file.known_as[1]
        return called, self.file.size, self.group, self.start, self.stop

    def cut(self, row_bytes: int) -> tuple[FileRows, ...]:
        """Stretches of rows of so many bytes each, in which they are read one after the other."""
        n_pieces = -(-len(self) * row_bytes // STRETCH_BYTES) if len(self) * row_bytes > WHOLE_BYTES else 1
        step = -(-len(self) // n_pieces)
        cuts = range(0, len(self), step)
        return tuple(
            FileRows(self.file, self.group, self.offset, self.length, start, min(start + step, len(self)), step)
            for start in cuts
        )

    def part(self, start: int, stop: int, step: int) -> FileRows:
        """Some other rows of the row group."""
        return FileRows(self.file, self.group, self.offset, self.length, start, stop, step)

    def place(self, row: int) -> str:
        """Where a row lies that is the row-th of these."""
        if self.file.known_as is not None:
            return f"row {self.offset + self.start + row} of {self.file.known_as[0]}"
        return f"row {self.start + row} of row group {self.group} of {self.file.called}"

    def spent(self) -> None:
        """Close what was left open where stretches of the row group were read, not all to their end."""
        _readers.drop(self.token[:3])

    def head(self, n_rows: int, names: Sequence[str]) -> pd.DataFrame:
        """The first rows of them; of what is stored as little is read as can be."""
        table = self._beginning(min(n_rows, len(self)), self._stored(names))
        return self._frame(table, list(names), min(n_rows, len(self)))

    def read_columns(self, names: Sequence[str]) -> pd.DataFrame:
        """These columns of all the rows."""
        return self._frame(self._table(names), names, len(self))

    def read_arrays(self, names: Sequence[str]) -> dict[str, Any]:
        """The same, each an array of NumPy or pandas."""
        return self._arrays(self._table(names), names, len(self))

    def _table(self, names: Sequence[str]) -> Any:
        stored = self._stored(names)
        if not stored:
            return None
        if self.step == 0:
            return self._beginning(len(self), stored)
        with self._said():
            return self._whole(stored) if self.step >= self.length else self._stretch(stored)

    def _stored(self, names: Sequence[str]) -> tuple[str, ...]:
        of_folders = {name for name, _, _ in self.file.folders}
        return tuple(name for name in names if name not in of_folders)

    def _whole(self, names: tuple[str, ...]) -> Any:
        with self.file.opened() as file:
            table = file.read_row_group(self.group, columns=list(names), use_threads=False)
        return table if len(self) == self.length else table.slice(self.start, len(self))

    def _beginning(self, n_rows: int, names: tuple[str, ...]) -> Any:
        with self._said(), self.file.opened(stretches=True) as file:
            batches = file.iter_batches(n_rows, [self.group], list(names), use_threads=False)
            return pa.Table.from_batches([next(batches)]).slice(0, n_rows)

    def _stretch(self, names: tuple[str, ...]) -> Any:
        key = (*self.token[:3], self.step, names)
        reader = _readers.take(key, self.start)
        if reader is None:
            reader = _Reader(self.file, self.group, self.step, names)
        try:
            table = reader.rows(self.start, self.stop)
        except BaseException:
            reader.close()
            raise
        if self.stop == self.length:
            reader.close()
        else:
            _readers.leave(key, reader)
        return table

    def _arrays(self, table: Any, names: Sequence[str], n_rows: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, place, levels in self.file.folders:
            if name in names:
                made[name] = pd.Categorical.from_codes(np.full(n_rows, place), categories=list(levels))
        for name in self._stored(names):
            made[name] = pandas_column(table.column(name), name in self.file.floats)
        return made

    def _frame(self, table: Any, names: Sequence[str], n_rows: int) -> pd.DataFrame:
        made = self._arrays(table, names, n_rows)
        step = self.file.step
        first = self.file.first + (self.offset + self.start) * step
        index = pd.RangeIndex(first, first + n_rows * step, step)
        return pd.DataFrame({name: made[name] for name in names}, index, copy=False)

    @contextmanager
    def _said(self) -> Iterator[None]:
        """What goes wrong, with the file and the row group."""
        try:
            yield
        except (OSError, ArrowException) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise OSError(
                f"row group {self.group} of {self.file.called} cannot be read: {reason}. Restore the file, or "
                "make the system again of what it is now."
            ) from error


class JoinedRows:
    """Rows of several row groups that follow each other, as those of one."""

    def __init__(self, parts: Sequence[FileRows]) -> None:
        self.parts = tuple(parts)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def token(self) -> tuple[Any, ...]:
        """What tells these rows from others."""
        return tuple(part.token for part in self.parts)

    def place(self, row: int) -> str:
        """Where a row lies that is the row-th of these."""
        for part in self.parts[:-1]:
            if row < len(part):
                return part.place(row)
            row -= len(part)
        return self.parts[-1].place(row)

    def spent(self) -> None:
        """As of `FileRows`."""
        for part in self.parts:
            part.spent()

    def read_columns(self, names: Sequence[str]) -> pd.DataFrame:
        """These columns of all the rows."""
        frames = [part.read_columns(names) for part in self.parts]
        return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


def pandas_column(column: Any, as_float: bool = False) -> Any:
    """A column of Arrow as pandas has it: numbers of NumPy, NaN where they are missing, text, categories, dates.

    as_float : of whole numbers and booleans, whether they are floats even where none is missing.
    """
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    numbers = pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_decimal(kind)
    if numbers and (as_float or column.null_count or pa.types.is_decimal(kind)):
        whole = pa.types.is_boolean(kind)
        column = (column.cast(pa.int8()) if whole else column).cast(pa.float64(), safe=False)
    if pa.types.is_dictionary(kind):
        return column.unify_dictionaries().to_pandas().array
    if pa.types.is_date(kind):
        return column.to_pandas(date_as_object=False).array
    if pa.types.is_temporal(kind) or not pa.types.is_primitive(column.type):
        return column.to_pandas().array
    return column.to_numpy()


# ---------------------------------------------------------------------------------------------- readers left open


class _Reader:
    """Some columns of a row group, decoded up to `position`."""

    def __init__(self, file: ParquetFile, group: int, step: int, names: tuple[str, ...]) -> None:
        self._file = file.open(stretches=True)
        self._batches = self._file.iter_batches(step, [group], list(names), use_threads=False)
        self.position = 0
        self._rest: list[Any] = []

    def rows(self, start: int, stop: int) -> Any:
        """A table of these rows, which come after those that were read before."""
        while self.position + sum(map(len, self._rest)) < stop:
            self._rest.append(next(self._batches))
            while self._rest and self.position + len(self._rest[0]) <= start:
                self.position += len(self._rest.pop(0))
        whole = pa.Table.from_batches(self._rest)
        first, last = start - self.position, stop - self.position
        self._rest = whole.slice(last).to_batches() if last < len(whole) else []
        self.position = stop
        return whole.slice(first, last - first)

    def close(self) -> None:
        self._batches.close()
        self._file.close(force=True)


class _Readers:
    """Readers that were left open in this process, by what they read; the oldest are closed when there are many."""

    def __init__(self) -> None:
        self._open: list[tuple[tuple[Hashable, ...], _Reader]] = []
        self._lock = threading.Lock()

    def take(self, key: tuple[Hashable, ...], start: int) -> _Reader | None:
        """The one that has come furthest without having passed a row; no other gets it until it is left again."""
        with self._lock:
            fit = [item for item in self._open if item[0] == key and item[1].position <= start]
            if not fit:
                return None
            found = max(fit, key=lambda item: item[1].position)
            self._open.remove(found)
            return found[1]

    def leave(self, key: tuple[Hashable, ...], reader: _Reader) -> None:
        with self._lock:
            self._open.append((key, reader))
            dropped = self._open[:-LEFT_OPEN]
            del self._open[: len(dropped)]
        for _, old in dropped:
            old.close()

    def drop(self, key: tuple[Hashable, ...]) -> None:
        """Close those whose key begins so."""
        with self._lock:
            dropped = [item for item in self._open if item[0][: len(key)] == key]
            self._open = [item for item in self._open if item not in dropped]
        for _, old in dropped:
            old.close()


_readers = _Readers()
