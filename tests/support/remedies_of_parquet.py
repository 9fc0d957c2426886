"""What is said of Parquet files that cannot be taken, and the ways out, followed to the letter."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dask
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from lrgls_dask import LowRankGLS, System
from lrgls_dask.data import longrows, parquet, sortedcells
from support.frames import mixed
from support.remedies import Case

FRAME = mixed(60)
SCRATCH = Path(tempfile.mkdtemp(prefix="lrgls-parquet-"))
atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)


def files(**frames: pd.DataFrame | pa.Table | str) -> str:
    """A new folder with these files; `of_a__x` is x.parquet in the folder of=a."""
    folder = Path(tempfile.mkdtemp(dir=SCRATCH))
    for name, frame in frames.items():
        path = folder / name.replace("of_", "of=").replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        if isinstance(frame, str):
            path.with_suffix(".parquet").write_text(frame)
        elif isinstance(frame, pd.DataFrame):
            frame.to_parquet(path.with_suffix(".parquet"))
        else:
            pq.write_table(frame, path.with_suffix(".parquet"))
    return str(folder)


def made(path: Any, formulas: Any = "y ~ x", **options: Any) -> System:
    return System.from_parquet(path, formulas, **options)


def without_pyarrow() -> System:
    with patch.object(parquet, "pq", None):
        return made(files(a=FRAME))


def streamed(formulas: Any = "v ~ x", frame: pd.DataFrame | None = None, **options: Any) -> System:
    """A long table that is not read at once, whose cells are in another order than its rows."""
    path = files(a=LONG if frame is None else frame)
    return streamed_from(path, formulas, **options)


def streamed_from(path: str, formulas: Any = "v ~ x", **options: Any) -> System:
    with patch.object(longrows, "AT_ONCE_BYTES", 0):
        return made(path, formulas, equation="of", obs="index", **options)


def streamed_by_one_thread() -> System:
    with dask.config.set(num_workers=1):
        return streamed(memory_limit=held() + 2**29)


def held() -> int:
    """Bytes of this process."""
    return int(psutil.Process().memory_info().rss)


def on_a_full_disk() -> System:
    path = files(a=LONG)
    with patch.object(pq.ParquetWriter, "write_table", side_effect=OSError("No space left on device")):
        return streamed_from(path)


def centred(left: int, formula: str = "v ~ center(x)") -> System:
    """Of cells for which pieces fit, and a whole column does not."""
    long = pd.DataFrame({"index": np.repeat(np.arange(75_000), 2), "of": np.tile(["a", "b"], 75_000)})
    long["x"] = long["v"] = np.sin(np.arange(150_000.0) ** 2)
    path = files(a=long.assign(x_c=long["x"] - long["x"].mean()))
    with (
        patch.object(longrows, "AT_ONCE_BYTES", 0),
        patch.object(longrows, "PIECE_BYTES", 2**10),
    ):
        return made(path, formula, equation="of", obs="index", memory_limit=held() + left)


def without_duckdb() -> System:
    with patch.object(sortedcells, "duckdb", None):
        return streamed()


def changed_since(again: bool) -> object:
    path = files(a=FRAME)
    system = made(path)
    FRAME[:40].to_parquet(f"{path}/a.parquet")
    return LowRankGLS(0).fit(made(path) if again else system)


TWICE = pa.Table.from_pandas(FRAME[["y", "x"]]).append_column("x", pa.array(FRAME["z"]))
NESTED = pa.Table.from_pandas(FRAME[["y", "z"]]).append_column("x", pa.array([[1.0]] * 60))
LONG = FRAME.reset_index().melt(["index", "x"], ["y", "y2"], "of", "v")
TEXT = FRAME.assign(x=FRAME["x"].astype(str))
PARQUET: list[Case] = [
    Case(
        "takes the path of Parquet files",
        lambda: System.from_parquet(files(a=FRAME)),  # type: ignore[call-arg]
        (lambda: made(f"{files(a=FRAME)}/*.parquet", "y + y2 ~ x + z"),),
    ),
    Case("read by pyarrow, which is not installed", without_pyarrow, (lambda: made(files(a=FRAME)),)),
    Case(
        "path is a DataFrame",
        lambda: made(FRAME),
        (lambda: made(f"{files(a=FRAME)}/*.parquet"), lambda: System.from_frame(FRAME, "y ~ x")),
    ),
    Case(
        "storage_options are for URLs",
        lambda: made(files(a=FRAME), storage_options={"anon": True}),
        (lambda: made(files(a=FRAME)),),
    ),
    Case(
        "no Parquet file at",
        lambda: made(f"{files(a=FRAME)}/b.parquet"),
        (lambda: made(files(a=FRAME)), lambda: made(f"{files(a=FRAME)}/?.parquet")),
    ),
    Case(
        "is no Parquet file",
        lambda: made(files(a=FRAME, b="y,x\n1,2\n")),
        (lambda: made(f"{files(a=FRAME, b='y,x')}/a.parquet"), lambda: made(files(a=FRAME, b=FRAME[["y", "x"]]))),
    ),
    Case(
        "The first file has it",
        lambda: made(files(a=FRAME, b=FRAME.drop(columns="x"))),
        (
            lambda: made(files(a=FRAME, b=FRAME.drop(columns="x").assign(x=1.0))),
            lambda: made(f"{files(a=FRAME, b=FRAME.drop(columns='x'))}/a.parquet"),
        ),
    ),
    Case(
        "b.parquet has 2 columns called 'x'",
        lambda: made(files(a=FRAME, b=TWICE)),
        (
            lambda: made(files(a=FRAME, b=TWICE.rename_columns(["y", "x", "more"]))),
            lambda: made(files(a=FRAME, b=TWICE.select([0, 1]))),
        ),
    ),
    Case(
        "Write it in one type",
        lambda: made(files(a=FRAME, b=TEXT)),
        (
            lambda: made(files(a=FRAME, b=TEXT.astype({"x": float}))),
            lambda: made(f"{files(a=FRAME, b=TEXT)}/a.parquet"),
        ),
    ),
    Case(
        "neither numbers nor labels nor dates. Write it",
        lambda: made(files(a=NESTED)),
        (lambda: made(files(a=FRAME)), lambda: made(files(a=NESTED), "y ~ z")),
    ),
    Case(
        "lies in folders that name",
        lambda: made(files(of_u__a=FRAME, b=FRAME)),
        (
            lambda: made(files(of_u__a=FRAME, of_v__b=FRAME)),
            lambda: made(f"{files(of_u__a=FRAME, b=FRAME)}/of=u"),
        ),
    ),
    Case("have no rows. Check", lambda: made(files(a=FRAME[:0])), (lambda: made(files(a=FRAME[:0], b=FRAME)),)),
    Case("cannot be read: it was written anew", lambda: changed_since(False), (lambda: changed_since(True),)),
    Case(
        "long files are read in pieces",
        lambda: streamed(memory_limit="1MB"),
        (lambda: streamed(memory_limit="64GB"), lambda: streamed_by_one_thread()),
    ),
    Case(
        "reads other rows, for which",
        lambda: streamed("v ~ lag(x, 1)", memory_limit="1MB"),
        (
            lambda: streamed("v ~ x_1", LONG.assign(x_1=LONG.groupby("of")["x"].shift(1))),
            lambda: streamed("v ~ lag(x, 1)", memory_limit="64GB"),
        ),
    ),
    Case(
        "is fixed by a whole column",
        lambda: centred(4 * 2**20),
        (lambda: centred(2**30), lambda: centred(2**30, "v ~ x_c")),
    ),
    Case(
        "sorted by DuckDB, which is not installed",
        without_duckdb,
        (
            lambda: streamed(),
            lambda: System.from_frame(pd.read_parquet(files(a=LONG)), "v ~ x", equation="of", obs="index"),
        ),
    ),
    Case(
        "are sorted on disk, for which",
        lambda: streamed(memory_limit=held() + 100 * 2**20),
        (lambda: streamed(memory_limit=held() + 2**30),),
    ),
    Case(
        "could not be sorted in",
        on_a_full_disk,
        (lambda: streamed(temporary_directory=SCRATCH), lambda: streamed(memory_limit="64GB")),
    ),
]
