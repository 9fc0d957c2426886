"""A streamed fit of stored rows that miss responses, pass by pass beside reading them: 60 equations, 12 regressors.

`sum` reads and decodes every chunk of the store, two threads, as any pass must. The fit is of rank 3, scattered holes;
its passes and its peak memory stand beside those that the plan names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dask
import numpy as np
import zarr
from harness import Case, Report, Session, Task, main, median, store_files, timed
from read_limit import THREADS, sum_store

from lrgls_dask import LowRankGLS, System

FULL = {"n_obs": 9_000_000, "n_equations": 60, "n_regressors": 12, "row_chunk": 20_000}  # 5.2 GB
SMALL = {"n_obs": 20_000, "n_equations": 10, "n_regressors": 4, "row_chunk": 2_000}
RANK, MISSING = 3, 0.05


def write(
    path: Path, n_obs: int, n_equations: int, n_regressors: int, row_chunk: int, missing: float = MISSING
) -> Path:
    """X and Y in a zarr store with default codecs, chunk by chunk; unless a run before left it here."""
    if path.exists():
        return path
    rng = np.random.default_rng(0)
    slopes, loadings = rng.normal(size=(n_regressors, n_equations)), rng.normal(size=(RANK, n_equations))
    aside = path.with_suffix(".part")
    group = zarr.open_group(str(aside), mode="w")
    x, y = (
        group.create_array(name, shape=(n_obs, n), chunks=(row_chunk, n), dtype="f8")
        for name, n in (("X", n_regressors), ("Y", n_equations))
    )
    for first in range(0, n_obs, row_chunk):
        rows = slice(first, min(first + row_chunk, n_obs))
        n = rows.stop - rows.start
        values = rng.normal(size=(n, n_regressors))
        responses = values @ slopes + rng.normal(size=(n, RANK)) @ loadings + rng.normal(size=(n, n_equations))
        responses[rng.random(responses.shape) < missing] = np.nan
        x[rows], y[rows] = values, responses
    return aside.rename(path)


def fit(path: str) -> dict[str, Any]:
    """A task: from the path to the fit."""
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        group = zarr.open_group(path, mode="r")
        system = System.from_arrays(group["Y"], group["X"])
        model = LowRankGLS(RANK, missing="em", engine="stream")
        plan = model.plan(system)
        found, seconds = timed(lambda: model.fit(system).result_)
    return {
        "seconds": seconds,
        "passes": found.n_passes,
        "seconds_a_pass": seconds / found.n_passes,
        "planned_passes": plan.passes,
        "planned_peak": plan.client_peak,
        "termination": found.termination.value,
    }


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    path = write(session.folder / f"nulls-{size['n_obs']}.zarr", **size)
    cases = [
        Case("sum", "sum", {"path": str(path), "threads": THREADS}),
        Case("fit", "fit", {"path": str(path)}, at_most=2),
    ]
    runs = session.alternate(cases)
    summary = {
        "passes": int(median(runs, "fit", "passes")),
        "planned_passes": int(median(runs, "fit", "planned_passes")),
        "pass_over_sum": median(runs, "fit", "seconds_a_pass") / median(runs, "sum"),
        "peak": int(max(each["peak_sum"] for each in runs if each["case"] == "fit")),
        "planned_peak": int(median(runs, "fit", "planned_peak")),
    }
    n_bytes = sum(file.stat().st_size for file in store_files(path))
    return Report({**size, "threads": THREADS, "missing": MISSING, "bytes": n_bytes}, runs, summary)


TASKS: dict[str, Task] = {"fit": fit, "sum": sum_store}


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, TASKS, run, argv)


if __name__ == "__main__":
    cli()
