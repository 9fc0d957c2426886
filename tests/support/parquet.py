"""Parquet files that tests write, and the reads of their row groups, counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import pyarrow.parquet as pq


def written(folder: Path, frame: pd.DataFrame, files: int = 3, rows: int = 7) -> str:
    """The folder, with the rows of a frame in several files, in row groups of so many rows."""
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-len(frame) // files)
    for i in range(files):
        part = frame.iloc[i * size : (i + 1) * size].reset_index(drop=True)
        part.to_parquet(folder / f"part-{i * 9 + 1}.parquet", row_group_size=rows)
    return str(folder)


@contextmanager
def counted_groups() -> Iterator[list[tuple[str, int, tuple[str, ...]]]]:
    """File, row group and columns of each read that begins in this process."""
    reads: list[tuple[str, int, tuple[str, ...]]] = []
    whole, batches = pq.ParquetFile.read_row_group, pq.ParquetFile.iter_batches
    opened = pq.ParquetFile.__init__

    def init(self: Any, source: Any, *args: Any, **named: Any) -> None:
        self.source_name = str(source)
        opened(self, source, *args, **named)

    def read_row_group(self: Any, i: int, columns: Any = None, **named: Any) -> Any:
        reads.append((self.source_name, i, tuple(columns)))
        return whole(self, i, columns=columns, **named)

    def iter_batches(self: Any, size: int, groups: Any, columns: Any, **named: Any) -> Any:
        reads.extend((self.source_name, i, tuple(columns)) for i in groups)
        return batches(self, size, groups, columns, **named)

    with patch.multiple(pq.ParquetFile, __init__=init, read_row_group=read_row_group, iter_batches=iter_batches):
        yield reads
