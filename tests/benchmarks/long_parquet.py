"""A fit from a long Parquet file, a row for each cell, in the order of its rows or shuffled, beside pyarrow reading it.

Both have two threads. What is shuffled is sorted on disk by DuckDB within the memory limit; the peak of the process
stands beside that limit and the peak that the plan names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from from_parquet import THREADS, read, timed_fit
from harness import Case, Report, Session, main, median

from lrgls_dask import System
from lrgls_dask.data import longrows

FULL = {"n_obs": 500_000, "n_equations": 40}  # 20 million cells, 0.7 GB decoded
SMALL = {"n_obs": 400, "n_equations": 5}
LIMIT = 2**30
ORDERS = ("ascending", "shuffled")


def write(folder: Path, n_obs: int, n_equations: int) -> dict[str, Path]:
    """A regressor of each cell, one of each row, and a factor in common, in row groups of a twentieth of the file."""
    paths = {order: folder / f"{n_obs}-{n_equations}-{order}.parquet" for order in ORDERS}
    if all(path.exists() for path in paths.values()):
        return paths
    rng = np.random.default_rng(0)
    n = n_obs * n_equations
    x = rng.normal(size=n)
    of_row = np.repeat(rng.normal(size=(n_obs, 2)), n_equations, axis=0)
    cells = pa.table(
        {
            "t": np.repeat(np.arange(n_obs), n_equations),
            "k": np.tile(np.arange(n_equations, dtype=np.int32), n_obs),
            "x": x,
            "z": of_row[:, 0],
            "y": x + of_row.sum(axis=1) + rng.normal(size=n),
        }
    )
    for order, path in paths.items():
        table = cells if order == "ascending" else cells.take(pa.array(rng.permutation(n)))
        pq.write_table(table, path, row_group_size=n // 20 - 7, compression="zstd")
    return paths


def fit(path: str) -> dict[str, Any]:
    """A task: from the path to the fit of rank 1."""
    with patch.object(longrows, "AT_ONCE_BYTES", 0):  # small files are streamed too
        return timed_fit(1, lambda: System.from_parquet(path, "y ~ x + z", equation="k", obs="t", memory_limit=LIMIT))


def run(session: Session) -> Report:
    size = dict(SMALL if session.small else FULL)
    if session.rows is not None:
        size["n_obs"] = session.rows
    cases = []
    for order, path in write(session.folder, **size).items():
        cases += [Case(f"{task}, {order}", task, {"path": str(path)}, cold=(path,)) for task in ("fit", "read")]
    runs = session.alternate(cases)
    summary: dict[str, Any] = {}
    for order in ORDERS:
        reading = median(runs, f"read, {order}")
        for what in ("make", "fit"):
            summary[f"{what}_over_read, {order}"] = median(runs, f"fit, {order}", f"seconds_to_{what}") / reading
        summary[f"peak, {order}"] = int(max(each["peak_sum"] for each in runs if each["case"] == f"fit, {order}"))
    return Report({**size, "threads": THREADS, "memory_limit": LIMIT}, runs, summary)


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, {"fit": fit, "read": read}, run, argv, sized=True)


if __name__ == "__main__":
    cli()
