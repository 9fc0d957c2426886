"""Cells of long Parquet files put in the order of their rows: by DuckDB, on disk, within a limit of memory.

Rows and equations go as the numbers of their labels, other columns as they are read. What is sorted is written to a
folder that goes when the last system does that reads it, or with the process.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from dask.base import tokenize
from dask.utils import format_bytes

from lrgls_dask.data.longframes import places_of
from lrgls_dask.data.longkeys import PIECE_BYTES, Keys
from lrgls_dask.data.parquet import open_parquet
from lrgls_dask.data.parquetrows import FileRows, pa, pq
from lrgls_dask.data.tables import as_labels
from lrgls_dask.rows.memory import this_process
from lrgls_dask.rows.progress import Progress, report

try:
    import duckdb
except ImportError:  # an extra, asked for by who sorts
    duckdb = None  # type: ignore[assignment]

__all__ = ["Sorting", "sorted_cells"]

SHARE = 0.5  # of the memory that is left, for DuckDB; the rest is for what is read and written
LEAST_BYTES = 128 * 2**20  # with which it sorts anything, a thread
PREFIX = ".lrgls-sorted-"


@dataclass(frozen=True)
class Sorting:
    """What it may take to put long files in order.

    memory_limit : of this process.  folder : where a temporary folder is made, by default beside the files.
    progress : as of `rows.progress.Progress`.
    """

    memory_limit: int | str | None = None
    folder: str | os.PathLike[str] | None = None
    progress: bool | Callable[[str, int, int], object] = False


class _Folder:
    """A folder that is deleted when nothing in this process refers to it any more; elsewhere it is a name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._finalizer = weakref.finalize(self, shutil.rmtree, path, ignore_errors=True)

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (str(self.path),)


def sorted_cells(
    groups: Sequence[FileRows], keys: Keys, names: tuple[str, str], columns: Sequence[str], sorting: Sorting
) -> tuple[Keys, tuple[FileRows, ...]]:
    """The same cells, each column of them, in order of rows and equations; reads each row group once, writes as much.

    names : of the columns of rows and equations.  Raises ImportError without DuckDB, MemoryError where the limit leaves
    it too little.
    """
    obs, _ = names
    if duckdb is None:
        raise ImportError(
            f"the cells of the files are not in the order of {obs!r}, and are too many to be read at once. They are "
            "sorted by DuckDB, which is not installed: use pip install 'lrgls_dask[duckdb]'; or, where they fit into "
            "memory, System.from_frame(pandas.read_parquet(path), ...)."
        )
    folder = _Folder(_new_folder(groups[0], sorting))
    rest = [name for name in columns if name not in names]
    schema = pa.schema([(name, pa.int64()) for name in names] + [(name, _kind(groups, name)) for name in rest])
    n_rows = sum(map(len, groups))
    with Progress(sorting.progress).watch("sort", 2 * 8 * len(columns) * n_rows) as topic:
        batches = _Batches(groups, keys, names, schema, topic)
        with duckdb.connect(config=_settings(folder.path, sorting)) as connection:
            connection.execute("SET enable_progress_bar = false")  # it is printed to where results are
            connection.register("cells", pa.RecordBatchReader.from_batches(batches.schema, batches.read()))
            try:
                found = pa.RecordBatchReader.from_stream(connection.sql("SELECT * FROM cells ORDER BY c0, c1"))
                _write(folder.path / "sorted.parquet", schema, found, keys.counts, topic)
            except (duckdb.Error, OSError) as error:
                raise (batches.error or _unsorted(error, folder.path)) from error
    shutil.rmtree(folder.path / "spilled", ignore_errors=True)
    token = tokenize([group.token for group in groups], list(columns))
    known_as = f"the cells in the order of {obs!r}", f"sorted-{token}"
    made = open_parquet(folder.path / "sorted.parquet").checked(columns)
    kept = replace(made, files=tuple(replace(file, known_as=known_as, kept_by=folder) for file in made.files))
    return replace(keys, stored=tuple(range(len(keys.equations))), ascending=True), kept.row_groups()


def _new_folder(first: FileRows, sorting: Sorting) -> Path:
    if sorting.folder is not None:
        return Path(tempfile.mkdtemp(prefix=PREFIX, dir=sorting.folder))
    beside = Path(first.file.path).parent
    if first.file.is_local and os.access(beside, os.W_OK):
        return Path(tempfile.mkdtemp(prefix=PREFIX, dir=beside))
    return Path(tempfile.mkdtemp(prefix=PREFIX))


def _settings(folder: Path, sorting: Sorting) -> dict[str, Any]:
    here = this_process(sorting.memory_limit)
    left = int(SHARE * (here.limit - here.base))
    threads = min(here.n_threads, left // LEAST_BYTES)
    if threads < 1:
        raise MemoryError(
            f"the cells of the files are sorted on disk, for which this process needs "
            f"{format_bytes(here.base + int(LEAST_BYTES / SHARE))}; the limit is {format_bytes(here.limit)}. Raise "
            "memory_limit."
        )
    return {
        "memory_limit": f"{left // 2**20}MiB",
        "temp_directory": str(folder / "spilled"),
        "threads": threads,
        "preserve_insertion_order": False,
    }


def _kind(groups: Sequence[FileRows], name: str) -> Any:
    """The type of Arrow that holds a column of all files."""
    files = list({id(group.file): group.file for group in groups}.values())
    of_folders = [levels for file in files for column, _, levels in file.folders if column == name]
    if of_folders:
        return pa.array(list(of_folders[0])).type
    if name in files[0].floats:
        return pa.float64()
    found = []
    for file in files:
        with file.opened() as opened:
            kind = opened.schema_arrow.field(name).type
        found.append(kind.value_type if pa.types.is_dictionary(kind) else kind)
    wide = pa.unify_schemas([pa.schema([(name, kind)]) for kind in found], promote_options="permissive").field(0).type
    return pa.float64() if pa.types.is_decimal(wide) or pa.types.is_null(wide) else wide


def _plain(kind: Any) -> Any:
    """A type that DuckDB gives back bit for bit, in place of one that it would change."""
    if pa.types.is_timestamp(kind) or pa.types.is_date64(kind):
        return pa.int64()
    if pa.types.is_float16(kind):
        return pa.float32()
    return pa.string() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else kind


class _Batches:
    """The cells as batches of Arrow, read when they are asked for.  error : what went wrong meanwhile."""

    def __init__(
        self, groups: Sequence[FileRows], keys: Keys, names: tuple[str, str], wanted: Any, topic: str | None
    ) -> None:
        self.groups, self.keys, self.names, self.wanted, self.topic = groups, keys, names, wanted, topic
        self.error: Exception | None = None
        # numbered, since DuckDB does not tell x from X
        self.schema = pa.schema([(f"c{i}", _plain(field.type)) for i, field in enumerate(wanted)])

    def read(self) -> Iterator[Any]:
        """In the order of the files."""
        try:
            for group in self.groups:
                for piece in group.cut(8 * len(self.wanted)):
                    yield self._batch(piece.read_columns(self.wanted.names))
                    report(self.topic, 8 * len(self.wanted) * len(piece))
        except Exception as error:
            self.error = error
            raise

    def _batch(self, raw: pd.DataFrame) -> Any:
        obs, equation = self.names
        codes, distinct = pd.factorize(as_labels(raw[obs]))
        at = self.keys.obs.get_indexer(pd.Index(np.asarray(distinct)) if distinct.dtype == "category" else distinct)
        of = places_of(as_labels(raw[equation]), equation, self.keys.stored)
        columns = [pa.array(at[codes]), pa.array(of)]
        for field in list(self.wanted)[2:]:
            array = pa.array(raw[field.name], from_pandas=True)
            array = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
            columns.append(array.cast(field.type).cast(_plain(field.type)))
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def _write(path: Path, schema: Any, found: Any, counts: np.ndarray, topic: str | None) -> None:
    """Batches to row groups of whole rows."""
    starts = np.concatenate([[0], np.cumsum(counts)])
    size = max(1, PIECE_BYTES // (8 * len(schema)))
    held: list[Any] = []
    n_held = done = 0
    with pq.ParquetWriter(path, schema, compression="lz4") as writer:

        def stop() -> int:
            """The end of the row group that begins where the last has ended."""
            last = int(np.searchsorted(starts, done + size, side="right")) - 1
            return int(starts[last] if starts[last] > done else starts[last + 1])

        for batch in found:
            held.append(batch)
            n_held += len(batch)
            while done < starts[-1] and n_held >= stop() - done:
                table, n_rows = pa.Table.from_batches(held), stop() - done
                columns = [column.cast(field.type) for column, field in zip(table.columns, schema, strict=True)]
                whole = pa.Table.from_arrays(columns, schema=schema)
                writer.write_table(whole.slice(0, n_rows), row_group_size=n_rows)
                held = table.slice(n_rows).to_batches()
                n_held, done = n_held - n_rows, done + n_rows
            report(topic, 8 * len(schema) * len(batch))


def _unsorted(error: Exception, folder: Path) -> OSError:
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return OSError(
        f"the cells could not be sorted in {folder.parent}: {reason}. Make room there, or give temporary_directory "
        "another place; or raise memory_limit."
    )
