"""A fit of three responses on four regressors from a long and narrow Parquet file, beside DuckDB summing the products.

DuckDB is asked for the 28 sums of products of the seven columns and the seven sums, in one statement: what least
squares of three equations needs. Both have two threads. `read` is pyarrow decoding all columns.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from from_parquet import THREADS, read, timed_fit
from harness import Case, Report, Session, main, median, ratio, timed

from lrgls_dask import System

FULL = {"n_obs": 100_000_000, "group_rows": 1_000_000}
SMALL = {"n_obs": 6_000, "group_rows": 1_000}
LEVELS = (2, 5, 6, 50)  # values of a regressor
RESPONSES, REGRESSORS = ("y0", "y1", "y2"), ("x0", "x1", "x2", "x3")


def write(path: Path, n_obs: int, group_rows: int) -> Path:
    """Responses with a factor in common, in zstd, row group by row group; unless a run before left it here."""
    if path.exists():
        return path
    rng = np.random.default_rng(0)
    slopes, names = rng.normal(size=(4, 3)), [*RESPONSES, *REGRESSORS]
    aside = path.with_suffix(".part")
    with pq.ParquetWriter(aside, pa.schema([(name, pa.float64()) for name in names]), compression="zstd") as writer:
        for first in range(0, n_obs, group_rows):
            n = min(group_rows, n_obs - first)
            x = np.column_stack([rng.integers(0, levels, n) / levels for levels in LEVELS])
            y = x @ slopes + rng.normal(size=(n, 1)) + rng.normal(size=(n, 3))
            writer.write_table(pa.table([*y.T, *x.T], names=names), row_group_size=group_rows)
    return aside.rename(path)


def fit(path: str) -> dict[str, Any]:
    """A task: from the path to the fit of rank 1, constant included."""
    return timed_fit(1, lambda: System.from_parquet(path, f"{' + '.join(RESPONSES)} ~ {' + '.join(REGRESSORS)}"))


def sums(path: str) -> dict[str, Any]:
    """A task: DuckDB adds up every product of two columns, and every column."""
    names = (*RESPONSES, *REGRESSORS)
    asked = [f"sum({a} * {b})" for a, b in combinations_with_replacement(names, 2)] + [f"sum({a})" for a in names]
    with duckdb.connect() as connection:
        connection.execute(f"SET threads = {THREADS}")
        statement = f"SELECT count(*), {', '.join(asked)} FROM read_parquet($1)"
        found, seconds = timed(lambda: connection.execute(statement, [path]).fetchone())
    assert found is not None
    return {"seconds": seconds, "n_obs": found[0]}


def grouped(path: str) -> dict[str, Any]:
    """A task: duckreg groups the rows by the regressors and fits the first equation to the means of the groups."""
    import ibis
    from duckreg.estimators import DuckRegression

    def estimate() -> Any:
        model = DuckRegression(
            db_name=ibis.duckdb.connect(threads=THREADS),
            table_name=f"read_parquet('{path}')",
            formula=f"{RESPONSES[0]} ~ {' + '.join(REGRESSORS)}",
            cluster_col="",
            seed=0,
            n_bootstraps=0,
        )
        model.fit()
        return model.point_estimate

    estimates, seconds = timed(estimate)
    return {"seconds": seconds, "estimates": [float(value) for value in estimates]}


def run(session: Session) -> Report:
    size = dict(SMALL if session.small else FULL)
    if session.rows is not None:
        size["n_obs"] = session.rows
    path = write(session.folder / f"narrow-{size['n_obs']}.parquet", **size)
    tasks = ["fit", "sums", "read"]
    if importlib.util.find_spec("duckreg") is not None:
        tasks.append("duckreg")
    runs = session.alternate([Case(task, task, {"path": str(path)}, cold=(path,)) for task in tasks])
    summary = {
        "fit_over_sums": ratio(runs, "fit", "sums"),
        **({"fit_over_duckreg": ratio(runs, "fit", "duckreg")} if "duckreg" in tasks else {}),
        "fit_over_read": ratio(runs, "fit", "read"),
        "seconds_of_100_million_rows": median(runs, "fit") * 1e8 / size["n_obs"],
        "peak": int(max(each["peak_sum"] for each in runs if each["case"] == "fit")),
        "planned_peak": int(median(runs, "fit", "planned_peak")),
    }
    return Report({**size, "threads": THREADS, "bytes": path.stat().st_size}, runs, summary)


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, {"fit": fit, "sums": sums, "read": read, "duckreg": grouped}, run, argv, sized=True)


if __name__ == "__main__":
    cli()
