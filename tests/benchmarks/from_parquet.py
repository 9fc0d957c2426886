"""A fit from Parquet, 60 responses on 12 features with missing values, beside pyarrow reading the same columns.

Both have two threads. The system is made first, which looks for the rows that show any response, then fitted in one
pass; both are timed, and the peak of the process stands beside the one that the plan names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from harness import Case, Report, Session, main, median, ratio, timed

from lrgls_dask import LowRankGLS, System

THREADS = 2
FULL = {"n_obs": 1_800_000, "n_responses": 60, "n_features": 12}  # 1.0 GB decoded
SMALL = {"n_obs": 6_000, "n_responses": 8, "n_features": 3}
GROUP_ROWS = {"small row groups": 100_000, "large row groups": 1_000_000}
MISSING = 1e-3  # of the responses


def write(path: Path, group_rows: int, n_obs: int, n_responses: int, n_features: int) -> Path:
    """Responses with three factors in common, in zstd, row group by row group; unless a run before left it here."""
    if path.exists():
        return path
    rng = np.random.default_rng(0)
    slopes, loadings = (rng.normal(size=(n, n_responses)) for n in (n_features, 3))
    names = [*(f"y{j}" for j in range(n_responses)), *(f"x{j}" for j in range(n_features))]
    aside = path.with_suffix(".part")
    with pq.ParquetWriter(aside, pa.schema([(name, pa.float64()) for name in names]), compression="zstd") as writer:
        for first in range(0, n_obs, group_rows):
            n = min(group_rows, n_obs - first)
            x = rng.normal(size=(n, n_features))
            y = x @ slopes + rng.normal(size=(n, 3)) @ loadings + rng.normal(size=(n, n_responses))
            holes = rng.random(y.shape) < MISSING
            columns = [pa.array(y[:, j], mask=holes[:, j]) for j in range(n_responses)]
            columns += [pa.array(x[:, j]) for j in range(n_features)]
            writer.write_table(pa.table(columns, names=names), row_group_size=group_rows)
    return aside.rename(path)


def fit(path: str, n_responses: int, n_features: int) -> dict[str, Any]:
    """A task: from the path to the fit of rank 3 of the rows that show every response."""
    left = " + ".join(f"y{j}" for j in range(n_responses))
    right = " + ".join(f"x{j}" for j in range(n_features))
    return timed_fit(3, lambda: System.from_parquet(path, f"{left} ~ {right}"))


def timed_fit(rank: int, make: Callable[[], System]) -> dict[str, Any]:
    """What making a system and fitting it took, two threads."""
    model = LowRankGLS(rank=rank, missing="drop")
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        system, made = timed(make)
        fitted, seconds = timed(lambda: model.fit(system).result_)
    return {
        "seconds": made + seconds,
        "seconds_to_make": made,
        "seconds_to_fit": seconds,
        "planned_peak": model.plan_.client_peak,
        "passes": fitted.n_passes,
        "bytes_read": fitted.bytes_read,
        "n_obs": system.n_obs,
    }


def read(path: str) -> dict[str, Any]:
    """A task: pyarrow decodes all columns, row group by row group, which is as little memory as it takes."""
    pa.set_cpu_count(THREADS)

    def all_groups() -> int:
        with pq.ParquetFile(path) as file:
            return sum(file.read_row_group(i).num_rows for i in range(file.num_row_groups))

    n_rows, seconds = timed(all_groups)
    return {"seconds": seconds, "n_obs": n_rows}


def run(session: Session) -> Report:
    size = dict(SMALL if session.small else FULL)
    if session.rows is not None:
        size["n_obs"] = session.rows
    columns = {name: n for name, n in size.items() if name != "n_obs"}
    cases, bytes_of = [], {}
    for name, group_rows in GROUP_ROWS.items():
        rows = group_rows // 100 if session.small else group_rows
        path = write(session.folder / f"{size['n_obs']}-{rows}.parquet", rows, **size)
        bytes_of[name] = path.stat().st_size
        cases += [
            Case(f"fit, {name}", "fit", {"path": str(path), **columns}, cold=(path,)),
            Case(f"read, {name}", "read", {"path": str(path)}, cold=(path,)),
        ]
    runs = session.alternate(cases)
    summary: dict[str, Any] = {}
    for name in GROUP_ROWS:
        made, fitted = (median(runs, f"fit, {name}", f"seconds_to_{what}") for what in ("make", "fit"))
        reading = median(runs, f"read, {name}")
        summary |= {
            f"fit_over_read, {name}": fitted / reading,
            f"make_and_fit_over_read, {name}": ratio(runs, f"fit, {name}", f"read, {name}"),
            f"make_over_read, {name}": made / reading,
            f"peak, {name}": int(max(each["peak_sum"] for each in runs if each["case"] == f"fit, {name}")),
            f"planned_peak, {name}": int(median(runs, f"fit, {name}", "planned_peak")),
        }
    return Report({**size, "threads": THREADS, **{f"bytes, {k}": v for k, v in bytes_of.items()}}, runs, summary)


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, {"fit": fit, "read": read}, run, argv, sized=True)


if __name__ == "__main__":
    cli()
