"""One-pass fit of the same cold stores by every road to them: `System.from_zarr`, `da.from_zarr`, `xr.open_zarr`.

Uncompressed chunks and zarr's own default codec, two threads. `sum` reads and decodes every chunk, as any pass must.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
import zarr
from harness import Case, Report, Session, Task, main, median, ratio, store_files, timed
from read_limit import THREADS, sum_store

from lrgls_dask import LowRankGLS, System

FULL = {"n_obs": 1_500_000, "n_equations": 240, "n_regressors": 10, "row_chunk": 8_000}  # 3 GB
SMALL = {"n_obs": 4_000, "n_equations": 8, "n_regressors": 3, "row_chunk": 500}


def write(path: Path, codec: str, n_obs: int, n_equations: int, n_regressors: int, row_chunk: int) -> Path:
    """Format 1 with responses of four digits; unless a run before left it here."""
    if path.exists():
        return path
    rng = np.random.default_rng(0)
    slopes = rng.normal(size=(n_regressors, n_equations))
    aside = path.with_suffix(".part")
    group = zarr.open_group(str(aside), mode="w")
    how: dict[str, Any] = {"compressors": None} if codec == "raw" else {}
    x, y = (
        group.create_array(
            name, shape=(n_obs, n), chunks=(row_chunk, n), dtype="f8", dimension_names=("obs", dim), **how
        )
        for name, n, dim in (("X", n_regressors, "regressor"), ("Y", n_equations, "equation"))
    )
    for first in range(0, n_obs, row_chunk):
        n = min(row_chunk, n_obs - first)
        values = rng.normal(size=(n, n_regressors))
        errors = rng.normal(size=(n, 1)) + rng.normal(size=(n, n_equations))
        x[first : first + n], y[first : first + n] = values, np.round(values @ slopes + errors, 3)
    return aside.rename(path)


def arrays(path: str) -> System:
    group = zarr.open_group(path, mode="r")
    return System.from_arrays(group["Y"], group["X"])


def from_dask(path: str) -> System:
    return System.from_arrays(da.from_zarr(path, component="Y"), da.from_zarr(path, component="X"))


def from_xarray(path: str) -> System:
    found = xr.open_zarr(path, consolidated=False)
    return System.from_arrays(found["Y"], found["X"])


ROUTES: dict[str, Callable[[str], System]] = {"zarr": arrays, "da.from_zarr": from_dask, "xr.open_zarr": from_xarray}


def fit(path: str, route: str) -> dict[str, Any]:
    """A task: from the path to the result."""
    model = LowRankGLS(rank=1)
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        found, seconds = timed(lambda: model.fit(ROUTES[route](path)).result_)
    return {"seconds": seconds, "planned_peak": model.plan_.client_peak, "nll": found.nll}


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    cases, n_bytes = [], {}
    for codec in ("raw", "zstd"):
        path = write(session.folder / f"{codec}-{size['n_obs']}.zarr", codec, **size)
        files = store_files(path)
        n_bytes[codec] = sum(file.stat().st_size for file in files)
        cases += [Case(f"{codec}, {each}", "fit", {"path": str(path), "route": each}, files) for each in ROUTES]
        cases.append(Case(f"{codec}, sum", "sum", {"path": str(path), "threads": THREADS}, files))
    runs = session.alternate(cases)
    summary = {
        f"{codec}, {route} over sum": ratio(runs, f"{codec}, {route}", f"{codec}, sum")
        for codec in n_bytes
        for route in ROUTES
    }
    gbs = {f"{codec}_sum_gb_per_s": each / 1e9 / median(runs, f"{codec}, sum") for codec, each in n_bytes.items()}
    return Report({**size, "threads": THREADS}, runs, summary | gbs)


TASKS: dict[str, Task] = {"fit": fit, "sum": sum_store}


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, TASKS, run, argv)


if __name__ == "__main__":
    cli()
