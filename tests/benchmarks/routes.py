"""One-pass fit of the same cold stores by every road to them: `System.from_zarr`, `da.from_zarr`, `xr.open_zarr`.

Uncompressed chunks, in both precisions, and zarr's own default codec, two threads. `sum` reads and decodes every chunk,
as any pass must. No fit can be faster than the longer of `read`, every file of the uncompressed store into memory that
is used again, or `decode`, every chunk of the other, and `products`, X'X of as many rows that are in memory already;
`wide` asks the same of a thousand columns. `--rows` for other sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
import zarr
from harness import Case, Report, Session, Task, main, median, ratio, store_files, timed
from numcodecs.zstd import Zstd
from read_limit import THREADS, sum_store
from threadpoolctl import threadpool_limits
from wide import read

from lrgls_dask import LowRankGLS, System

FULL = {"n_obs": 1_200_000, "n_equations": 285, "n_regressors": 15, "row_chunk": 6_000}  # 2.9 GB
SMALL = {"n_obs": 4_000, "n_equations": 8, "n_regressors": 3, "row_chunk": 500}
WIDE = {"n_obs": 240_000, "n_equations": 980, "n_regressors": 20, "row_chunk": 2_000}  # 1.9 GB
CODECS = ("raw", "float32", "zstd")
PRODUCT_BYTES = 16_000_000  # of the rows that are multiplied at a time


def write(path: Path, codec: str, n_obs: int, n_equations: int, n_regressors: int, row_chunk: int) -> Path:
    """Format 1 with responses of four digits; unless a run before left it here."""
    if path.exists():
        return path
    rng = np.random.default_rng(0)
    slopes = rng.normal(size=(n_regressors, n_equations))
    aside = path.with_suffix(".part")
    group = zarr.open_group(str(aside), mode="w")
    how: dict[str, Any] = {} if codec == "zstd" else {"compressors": None}
    dtype = "f4" if codec == "float32" else "f8"
    x, y = (
        group.create_array(
            name, shape=(n_obs, n), chunks=(row_chunk, n), dtype=dtype, dimension_names=("obs", dim), **how
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


def decode(path: str) -> dict[str, Any]:
    """Seconds that two threads take to read and decode every chunk of a store of zarr's default codec."""
    chunks = [file for file in store_files(Path(path)) if file.name != "zarr.json"]

    def take(share: list[Path]) -> int:
        return sum(len(Zstd().decode(file.read_bytes())) for file in share)

    with ThreadPoolExecutor(THREADS) as pool:
        sizes, seconds = timed(lambda: list(pool.map(take, [chunks[i::THREADS] for i in range(THREADS)])))
    return {"seconds": seconds, "bytes": sum(sizes)}


def products(n_obs: int, n_columns: int) -> dict[str, Any]:
    """Seconds of X'X, block by block, of so many rows: two threads with one of BLAS each."""
    height = min(n_obs, PRODUCT_BYTES // (8 * n_columns))
    blocks = [np.random.default_rng(i).normal(size=(height, n_columns)) for i in range(THREADS)]
    turns = -(-n_obs // (height * THREADS))

    def multiply(block: np.ndarray) -> None:
        total, one = np.zeros((n_columns, n_columns)), np.empty((n_columns, n_columns))
        for _ in range(turns):
            total += np.matmul(block.T, block, out=one)

    with threadpool_limits(1), ThreadPoolExecutor(THREADS) as pool:
        _, seconds = timed(lambda: list(pool.map(multiply, blocks)))
    return {"seconds": seconds * n_obs / (turns * height * THREADS)}


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    size = size | ({} if session.rows is None else {"n_obs": session.rows})
    cases, n_bytes = [], {}
    for codec in CODECS:
        path = write(session.folder / f"{codec}-{size['n_obs']}.zarr", codec, **size)
        files = store_files(path)
        n_bytes[codec] = sum(file.stat().st_size for file in files)
        cases += [Case(f"{codec}, {each}", "fit", {"path": str(path), "route": each}, files) for each in ROUTES]
        cases.append(Case(f"{codec}, sum", "sum", {"path": str(path), "threads": THREADS}, files))
        if codec == "zstd":
            cases.append(Case("decode", "decode", {"path": str(path)}, files))
        if codec == "raw":
            cases.append(Case("read", "read", {"path": str(path), "threads": THREADS}, files))
    cases.append(Case("products", "products", {"n_obs": size["n_obs"], "n_columns": _columns(size)}))
    wide = SMALL if session.small else WIDE
    path = write(session.folder / f"wide-{wide['n_obs']}.zarr", "raw", **wide)
    cases.append(Case("wide, zarr", "fit", {"path": str(path), "route": "zarr"}))
    cases.append(Case("wide, products", "products", {"n_obs": wide["n_obs"], "n_columns": _columns(wide)}))
    runs = session.alternate(cases)
    summary = {
        f"{codec}, {route} over sum": ratio(runs, f"{codec}, {route}", f"{codec}, sum")
        for codec in n_bytes
        for route in ROUTES
    }
    multiplied = median(runs, "products")
    for codec, least in (("raw", "read"), ("zstd", "decode")):
        limit = max(multiplied, median(runs, least))
        summary |= {f"{codec}, {route} over limit": median(runs, f"{codec}, {route}") / limit for route in ROUTES}
    summary |= {
        "float32 over float64": ratio(runs, "float32, zarr", "raw, zarr"),
        "wide, rate of the products": ratio(runs, "wide, products", "wide, zarr"),
    }
    gbs = {f"{codec}_sum_gb_per_s": each / 1e9 / median(runs, f"{codec}, sum") for codec, each in n_bytes.items()}
    return Report({**size, "threads": THREADS}, runs, summary | gbs)


def _columns(size: dict[str, int]) -> int:
    return size["n_equations"] + size["n_regressors"]


TASKS: dict[str, Task] = {"fit": fit, "sum": sum_store, "read": read, "decode": decode, "products": products}


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, TASKS, run, argv, sized=True)


if __name__ == "__main__":
    cli()
