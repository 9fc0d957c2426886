"""Tables made Parquet files of row groups, aside, from which a system is made: text, and files of one equation each.

Files that are there already are whole, since each is moved to its name when it is; so one who is killed goes on.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import numpy as np
import pandas as pd

from lrgls_dask.checks import closest, shown
from lrgls_dask.data.parquetrows import pa, pq
from lrgls_dask.data.places import local_path
from lrgls_dask.data.sources import BLOCK_BYTES
from lrgls_dask.data.tablefiles import BLOCK_BYTES as TEXT_BYTES
from lrgls_dask.data.tablefiles import TableFiles
from lrgls_dask.rows.progress import Progress

__all__ = ["Aside", "NotSorted", "as_parquet", "fetched", "merged_by_obs"]

MERGED_AT_ONCE = 64  # files, which are open together and of each of which a block is held
LEAST_BLOCK = 2**16


@dataclass(frozen=True)
class Aside:
    """Where tables lie that a store at `path` is made of: beside it, or where files of the moment are, if it is a URL.

    made_of : tells what is made from all else.
    """

    path: str
    made_of: str

    def folder(self) -> Path:
        """The folder, which is there; what was made there of something else is gone."""
        folder, mark = self._folder, self._folder / "made_of"
        if folder.exists() and not (mark.exists() and mark.read_text() == self.made_of):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        mark.write_text(self.made_of)
        return folder

    def remove(self) -> None:
        """All that is there."""
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _folder(self) -> Path:
        local = local_path(self.path)
        if local is None:
            return Path(tempfile.gettempdir()) / f"lrgls-{self.made_of}.tables"
        target = Path(os.path.abspath(local))
        return target.with_name(f".{target.name}.tables")


def fetched(files: Sequence[str], aside: Aside) -> list[str]:
    """The same files, those at a URL as copies aside; what is there already is whole."""
    found = []
    for i, name in enumerate(files):
        if local_path(name) is not None:
            found.append(name)
            continue
        target = aside.folder() / f"{i:06d}" / PurePosixPath(name).name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            filesystem, root = fsspec.core.url_to_fs(name)
            partial = target.with_name(f"{target.name}.partial")
            filesystem.get_file(root, str(partial))
            os.replace(partial, target)
        found.append(str(target))
    return found


class NotSorted(Exception):
    """Labels of rows that do not ascend; its text says in which file."""


def as_parquet(
    files: TableFiles, folder: Path, *, equation: tuple[str, Sequence[str]] | None = None, progress: Any = False
) -> str:
    """The folder, with a Parquet file for each of the files; folders such as year=2020 are kept.

    equation : name of a column to add, and what it says in each file.
    """
    with Progress(progress).watch("read", sum(map(files.size, files.paths))) as topic:
        for i, path in enumerate(files.paths):
            above = [step for step in PurePosixPath(path).parts[:-1] if "=" in step]
            target = folder.joinpath(f"{i:06d}", *above, f"{PurePosixPath(path).name}.parquet")
            pieces = files.pieces(path, topic)
            if equation is not None:
                pieces = _named(pieces, equation[0], equation[1][i])
            _write(pieces, target)
    return str(folder)


def merged_by_obs(
    files: TableFiles, folder: Path, obs: str, equation: tuple[str, Sequence[str]], *, progress: Any = False
) -> str:
    """A Parquet file with the rows of all files in the order of `obs`, by which each of them is sorted.

    equation : name of a column to add, and what it says in each file.  Holds a block of each of 64 files at a time;
    more are merged in turns, each of which writes all rows once more.
    Raises NotSorted where one does not ascend, or where a label is missing.
    """
    block = max(LEAST_BLOCK, TEXT_BYTES // min(len(files.paths), MERGED_AT_ONCE) * 4)
    with Progress(progress).watch("read", sum(map(files.size, files.paths))) as topic:
        sources = [
            _Source(path, _named(files.pieces(path, topic, block), equation[0], label), obs)
            for path, label in zip(files.paths, equation[1], strict=True)
        ]
        level = 0
        while True:
            groups = [sources[i : i + MERGED_AT_ONCE] for i in range(0, len(sources), MERGED_AT_ONCE)]
            whole = len(groups) == 1
            made = [
                folder / (f"{level}-{i:06d}.parquet" if not whole else "merged.parquet") for i in range(len(groups))
            ]
            for target, group in zip(made, groups, strict=True):
                _write(_merged(group), target)
            for source in sources if level else ():
                os.remove(source.called)
            if whole:
                return str(made[0])
            sources, level = [_Source(str(each), _pieces(each, block), obs) for each in made], level + 1


# ---------------------------------------------------------------------------------------------- writing


def _write(pieces: Iterator[Any], target: Path) -> None:
    """All pieces as one file in row groups of some megabytes, which appears when it is whole."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    with ExitStack() as stack:
        writer, held, n_bytes = None, [], 0
        for piece in pieces:
            if writer is None:
                words = [field.name for field in piece.schema if not pa.types.is_floating(field.type)]
                writer = stack.enter_context(pq.ParquetWriter(partial, piece.schema, use_dictionary=words))
            held.append(piece)
            n_bytes += piece.nbytes
            if n_bytes >= BLOCK_BYTES:
                _write_group(writer, held)
                held, n_bytes = [], 0
        if writer is not None and held:
            _write_group(writer, held)
    if writer is not None:
        os.replace(partial, target)


def _write_group(writer: Any, pieces: list[Any]) -> None:
    table = pa.concat_tables(pieces)
    writer.write_table(table, row_group_size=max(1, len(table)))


def _named(pieces: Iterator[Any], name: str, value: str) -> Iterator[Any]:
    """The pieces with a column that says the same everywhere."""
    for piece in pieces:
        yield piece.append_column(name, pa.repeat(pa.scalar(value), len(piece)))


def _pieces(path: Path, block_bytes: int) -> Iterator[Any]:
    with pq.ParquetFile(path) as file:
        bytes_of_row = max(1, file.metadata.row_group(0).total_byte_size // max(1, file.metadata.row_group(0).num_rows))
        for batch in file.iter_batches(max(1, block_bytes // bytes_of_row), use_threads=False):
            yield pa.Table.from_batches([batch])


# ---------------------------------------------------------------------------------------------- merging


class _Source:
    """Rows of a file in pieces: the piece at hand, from its first row that was not taken on."""

    def __init__(self, called: str, pieces: Iterator[Any], obs: str) -> None:
        self.called, self._pieces, self._obs = called, pieces, obs
        self.table: Any = None
        self.labels = np.empty(0)
        self._last: Any = None

    def load(self) -> bool:
        """Have rows at hand; whether there are any."""
        while not len(self.labels):
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self.table, self.labels = piece, self._read(piece)
            if len(self.labels):
                self._check()
                self._last = self.labels[-1]
        return True

    def _read(self, piece: Any) -> np.ndarray:
        if self._obs not in piece.column_names:
            names = list(piece.column_names)
            raise ValueError(
                f"{self.called} has no column {self._obs!r}{closest(self._obs, names)} It has {shown(names, 10)}. "
                "Add it, or leave the file out."
            )
        labels = piece.column(self._obs).to_pandas()
        if labels.isna().any():
            raise NotSorted(f"{self.called} has rows without a label in {self._obs!r}")
        return labels.to_numpy(dtype=object if isinstance(labels.dtype, pd.StringDtype) else None)

    def _check(self) -> None:
        ascends = self.labels[1:] >= self.labels[:-1]
        if not ascends.all() or (self._last is not None and self._last > self.labels[0]):
            raise NotSorted(f"{self.called} is not sorted by {self._obs!r}")

    def upto(self, label: Any) -> tuple[Any, np.ndarray]:
        """The rows up to this label, which are taken, and their labels."""
        count = int(np.searchsorted(self.labels, label, side="right"))
        taken = self.table.slice(0, count), self.labels[:count]
        self.table, self.labels = self.table.slice(count), self.labels[count:]
        return taken

    def close(self) -> None:
        self._pieces.close()  # type: ignore[attr-defined]


def _merged(sources: Sequence[_Source]) -> Iterator[Any]:
    """The rows of all sources in the order of their labels."""
    with ExitStack() as stack:
        for source in sources:
            stack.callback(source.close)
        left = [source for source in sources if source.load()]
        if not left:
            return
        schema = pa.unify_schemas([source.table.schema for source in left], promote_options="permissive")
        while left:
            label = min(source.labels[-1] for source in left)
            taken = [source.upto(label) for source in left]
            table = pa.concat_tables([_as_schema(piece, schema) for piece, _ in taken])
            labels = np.concatenate([each for _, each in taken])
            yield table.take(pa.array(np.argsort(labels, kind="stable")))
            left = [source for source in left if source.load()]


def _as_schema(table: Any, schema: Any) -> Any:
    """The table with all columns of the schema, in its types; those that it lacks are missing."""
    known = set(table.column_names)
    columns = [
        table.column(field.name).cast(field.type) if field.name in known else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
