"""Parquet files, a folder of them or several, as one frame: its columns and lengths of row groups, told by footers.

Files go in natural order, part-2 before part-10. Names of folders such as year=2020 are columns, categories as pandas
has them. No row is read here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any
from urllib.parse import unquote

import fsspec
import pandas as pd
from fsspec.implementations.arrow import ArrowFSWrapper
from fsspec.implementations.local import LocalFileSystem

from lrgls_dask.checks import closest, shown
from lrgls_dask.data.parquetrows import FileRows, ParquetFile, pa, pandas_column, pq

__all__ = ["ParquetFrame", "open_parquet"]

ENDINGS = (".parquet", ".parq", ".pq")
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
FOOTERS_AT_ONCE = 16  # a footer on an object store takes two round trips


@dataclass(frozen=True, eq=False)
class ParquetFrame:
    """The rows of some files, one after the other.

    files, footers, schemas : one each.  folders : columns that names of folders hold, and their levels.
    """

    files: tuple[ParquetFile, ...]
    footers: tuple[Any, ...]
    schemas: tuple[Any, ...]
    folders: Mapping[str, tuple[Any, ...]]

    @cached_property
    def index(self) -> str | None:
        """The stored column that is the index of the frame of pandas that was written, where it is one."""
        known = (self.schemas[0].pandas_metadata or {}).get("index_columns", [])
        found = [name for name in known if isinstance(name, str)]
        return found[0] if len(found) == len(known) == 1 and found[0] in self.schemas[0].names else None

    @property
    def columns(self) -> tuple[str, ...]:
        """Of the first file, and those of folders; the index is none."""
        metadata = self.schemas[0].pandas_metadata or {}
        hidden = {name for name in metadata.get("index_columns", []) if isinstance(name, str)}
        return (*(name for name in self.schemas[0].names if name not in hidden), *self.folders)

    @property
    def names(self) -> tuple[str, ...]:
        """All that can be read."""
        return (*self.schemas[0].names, *self.folders)

    @property
    def n_rows(self) -> int:
        return sum(footer.num_rows for footer in self.footers)

    def checked(self, names: Sequence[str]) -> ParquetFrame:
        """For reading these columns, which the first file has. Raises ValueError or TypeError, naming file and column,
        where another lacks one or has something else in it, and where one holds what is no column of a frame."""
        stored = [name for name in names if name not in self.folders]
        for name in stored:
            kinds = [_kind(name, file, schema) for file, schema in zip(self.files, self.schemas, strict=True)]
            known = [(kind, i) for i, kind in enumerate(kinds) if kind is not None]
            odd = next((i for kind, i in known if kind != known[0][0]), None)
            if odd is not None:
                first = known[0][1]
                raise TypeError(
                    f"column {name!r} is {self.schemas[odd].field(name).type} in {self.files[odd].called} but "
                    f"{self.schemas[first].field(name).type} in {self.files[first].called}. Write it in one type, or "
                    "leave out the files that differ."
                )
        floats = frozenset(name for name in stored if self._has_gaps(name))
        return replace(self, files=tuple(replace(file, floats=floats) for file in self.files))

    def _has_gaps(self, name: str) -> bool:
        """Whether whole numbers or booleans may miss values anywhere, so that they are floats everywhere."""
        if not any(_is_whole(schema.field(name).type) for schema in self.schemas):
            return False
        if not all(_is_whole(schema.field(name).type) for schema in self.schemas):
            return True
        for footer in self.footers:
            leaf = _leaf(footer, name)
            for group in range(footer.num_row_groups):
                statistics = footer.row_group(group).column(leaf).statistics
                if statistics is None or not statistics.has_null_count or statistics.null_count:
                    return True
        return False

    def meta(self, names: Sequence[str]) -> pd.DataFrame:
        """What these columns are like: no rows. Levels of dictionaries are not known, those of folders are."""
        made: dict[str, Any] = {}
        for name in names:
            if name in self.folders:
                made[name] = pd.Categorical([], categories=list(self.folders[name]))
                continue
            types = [schema.field(name).type for schema in self.schemas]
            kind = next((each for each in types if not pa.types.is_null(each)), types[0])
            made[name] = pandas_column(pa.chunked_array([], kind), name in self.files[0].floats)
        return pd.DataFrame(made, pd.RangeIndex(0))

    def row_groups(self) -> tuple[FileRows, ...]:
        """Those that have rows, in order."""
        made = []
        for file, footer in zip(self.files, self.footers, strict=True):
            lengths = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
            offsets = [0, *accumulate(lengths)]
            made += [
                FileRows(file, group, offsets[group], length, 0, length, length)
                for group, length in enumerate(lengths)
                if length
            ]
        return tuple(made)


def _leaf(footer: Any, name: str) -> int:
    schema = footer.schema
    return next(i for i in range(len(schema)) if schema.column(i).path == name)


def _is_whole(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _kind(name: str, file: ParquetFile, schema: Any) -> str | None:
    """What a column is to a formula; None where all of it is missing."""
    found = schema.get_all_field_indices(name)
    if len(found) != 1:
        raise ValueError(
            f"{file.called} has no column {name!r}{closest(name, schema.names)} The first file has it. Add it, or "
            "leave the file out."
            if not found
            else f"{file.called} has {len(found)} columns called {name!r}. Rename or drop one."
        )
    kind = schema.field(name).type
    if pa.types.is_null(kind):
        return None
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_string_view(inner):
        return "text"
    if pa.types.is_dictionary(kind):
        return f"categories of {inner}"
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_date(kind):
        return "date"
    if pa.types.is_timestamp(kind):
        return f"date {kind.tz or ''}"
    raise TypeError(
        f"column {name!r} has type {kind} in {file.called}, which is neither numbers nor labels nor dates. Write it as "
        "one of these, or leave it out of the formulas."
    )


# ---------------------------------------------------------------------------------------------- opening


def open_parquet(path: Any, storage_options: Mapping[str, Any] | None = None, filesystem: Any = None) -> ParquetFrame:
    """The frame of a file, a folder, a pattern or a list of these; reads footers, at most 16 files at once.

    Raises ImportError without pyarrow, FileNotFoundError where there is no file, ValueError for one that is no Parquet.
    """
    if pq is None:
        raise ImportError("Parquet is read by pyarrow, which is not installed. Use pip install 'lrgls_dask[parquet]'.")
    found = list(dict.fromkeys(each for one in _listed(path) for each in _files(one, storage_options, filesystem)))
    files = _with_folders([ParquetFile(system, name, size) for system, name, size in found])
    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        read = list(pool.map(_footer, files[0]))
    footers, schemas = zip(*read, strict=True)
    stored = set(schemas[0].names)
    folders = {name: levels for name, levels in files[1].items() if name not in stored}
    kept = tuple(
        replace(file, folders=tuple(each for each in file.folders if each[0] in folders), first=first, step=step)
        for file, (first, step) in zip(files[0], _numbers(footers, schemas), strict=True)
    )
    return ParquetFrame(kept, footers, schemas, folders)


def _listed(path: Any) -> list[str]:
    listed = list(path) if isinstance(path, list | tuple) else [path]
    odd = next((each for each in listed if not isinstance(each, str | os.PathLike)), None)
    if odd is not None or not listed:
        what = f"a {type(odd).__name__}" if listed else "an empty list"
        raise TypeError(
            f"path is {what} but must be a path, a URL, a pattern such as 'data/*.parquet', or a list of these. Use "
            "System.from_frame(...) for frames and tables."
        )
    return [os.fspath(each) for each in listed]


def _files(path: str, options: Mapping[str, Any] | None, filesystem: Any) -> list[tuple[Any, str, int]]:
    """File system, path and size of each file that a path stands for, in natural order."""
    if filesystem is None:
        system, root = fsspec.core.url_to_fs(path, **dict(options or {}))
    else:
        system = filesystem if isinstance(filesystem, fsspec.AbstractFileSystem) else ArrowFSWrapper(filesystem)
        root = system._strip_protocol(path)
    if options and (filesystem is not None or isinstance(system, LocalFileSystem)):
        raise ValueError(
            "storage_options are for URLs such as s3://..., without a filesystem of your own. Leave them out."
        )
    system.invalidate_cache()  # of listings, which may be older than the files
    if any(mark in root for mark in "*?[") and not system.exists(root):
        matched = [name for name in system.glob(root) if not _hidden(name.rsplit("/", 1)[-1])]
    else:
        matched = [root] if system.exists(root) else []
    found = {name: info for each in matched for name, info in _below(system, each).items()}
    if len(found) > 1:
        ending = {name: info for name, info in found.items() if name.lower().endswith(ENDINGS)}
        found = ending or found
    if not found:
        raise FileNotFoundError(
            f"no Parquet file at {path}. Check the path; a folder is read with all that lies below it, and names may "
            "hold * and ?."
        )
    return [(system, name, int(found[name]["size"])) for name in sorted(found, key=_natural)]


def _below(system: Any, root: str) -> dict[str, Any]:
    """The file itself, or all below a folder that may be data."""
    if system.isfile(root):
        return {root: system.info(root)}
    below = system.find(root, detail=True)
    return {name: info for name, info in below.items() if not _hidden(name[len(root) :].lstrip("/"))}


def _hidden(path: str) -> bool:
    """Names that Spark, Dask and others give to what is no data."""
    return any(step.startswith(("_", ".")) and "=" not in step for step in path.split("/"))


def _natural(path: str) -> list[Any]:
    """Numbers in names by size."""
    parts = re.split(r"(\d+)", path)
    return [(int(part), part) if i % 2 else part for i, part in enumerate(parts)]


def _footer(file: ParquetFile) -> tuple[Any, Any]:
    try:
        with file.opened() as opened:
            return opened.metadata, opened.schema_arrow
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"{file.called} is no Parquet file: {reason}. Leave it out, or convert it, e.g. with pandas.read_csv(...)"
            ".to_parquet(...)."
        ) from error


def _numbers(footers: Sequence[Any], schemas: Sequence[Any]) -> list[tuple[int, int]]:
    """Number of the first row of each file, and from each row to the next: as pandas wrote them, or through all files
    where each counts from zero."""
    known = [(schema.pandas_metadata or {}).get("index_columns", []) for schema in schemas]
    ranges = [each[0] if len(each) == 1 and isinstance(each[0], dict) else {} for each in known]
    written = [(int(each.get("start", 0)), int(each.get("step", 1))) for each in ranges]
    if any(each != (0, 1) for each in written):
        return written
    return [(first, 1) for first in accumulate([0, *(footer.num_rows for footer in footers[:-1])])]


def _with_folders(files: Sequence[ParquetFile]) -> tuple[tuple[ParquetFile, ...], dict[str, tuple[Any, ...]]]:
    """Files with the values that names of their folders hold, and the levels of these columns."""
    named = [_named_folders(file.path) for file in files]
    for file, values in zip(files, named, strict=True):
        if values.keys() != named[0].keys():
            raise ValueError(
                f"{file.called} lies in folders that name {shown(list(values)) or 'no column'}, but {files[0].called} "
                f"in such that name {shown(list(named[0])) or 'none'}. Give all the same levels of folders, or leave "
                "files out."
            )
    values_of = {name: _values([values[name] for values in named]) for name in named[0]}
    levels = {name: tuple(sorted(set(values.values()))) for name, values in values_of.items()}

    def place(name: str, text: str | None) -> int:
        return -1 if text is None else levels[name].index(values_of[name][text])

    made = tuple(
        replace(file, folders=tuple((name, place(name, text), levels[name]) for name, text in texts.items()))
        for file, texts in zip(files, named, strict=True)
    )
    return made, levels


def _named_folders(path: str) -> dict[str, str | None]:
    """Columns and values, as text, that folders name; None for one that is missing."""
    pairs = [step.split("=", 1) for step in path.split("/")[:-1] if re.match(r"[^=]+=", step)]
    return {name: None if text == NO_VALUE else unquote(text) for name, text in pairs}


def _values(texts: Iterable[str | None]) -> dict[str, Any]:
    """Each text with its value: whole numbers where all are."""
    distinct = {text for text in texts if text is not None}
    whole = all(re.fullmatch(r"-?\d+", text) for text in distinct)
    return {text: int(text) if whole else text for text in distinct}
