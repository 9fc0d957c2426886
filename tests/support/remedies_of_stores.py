"""What is said of rows that cannot be appended to a store, and the ways out, followed to the letter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import psutil
import xarray as xr
from zarr.storage import MemoryStore

from lrgls_dask import LowRankGLS, System, TimeVarying
from lrgls_dask.data.storage import held_alone
from support.remedies import Case, command

N = 12
RNG = np.random.default_rng(3)
Y, X = RNG.normal(size=(N, 2)), RNG.normal(size=(N, 2))
DAYS = pd.date_range("2000", periods=2 * N, unit="s")
SECTORS = ["s", "t"]
HALVES = np.arange(N) // (N // 2)


def rows(equations: tuple[str, ...] = ("a", "b"), x: Any = X, **options: Any) -> System:
    return System.from_arrays(Y, x, equations=equations, **options)


def dated(index: Any = DAYS[N:], x: Any = X) -> System:
    y = pd.DataFrame(Y, columns=["a", "b"], index=index)
    return System.from_arrays(y, pd.DataFrame(x, columns=["x0", "x1"], index=y.index))


def sectored(sectors: list[str] | None) -> System:
    more = {} if sectors is None else {"sector": ("equation", sectors)}
    y = xr.DataArray(Y, dims=("obs", "equation"), coords={"equation": ["a", "b"], **more}, name="y")
    return System.from_xarray(None, y, [xr.DataArray(X[:, 0], dims="obs", name="x")])


def appended(first: System, more: Callable[[], System]) -> Callable[[], None]:
    """The call that appends to a new store of the first."""

    def call() -> None:
        store = MemoryStore()
        first.to_zarr(store)
        more().append_to_zarr(store)

    return call


def read_only() -> None:
    store = MemoryStore()
    rows().to_zarr(store)
    rows().append_to_zarr(store.with_read_only(True))


def at_once(path: str) -> None:
    rows().to_zarr(path, overwrite=True)
    with held_alone(path):
        rows().append_to_zarr(path)


def after(path: str) -> None:
    rows().to_zarr(path, overwrite=True)
    with held_alone(path):
        pass
    rows().append_to_zarr(path)


def written_anew(x: Any) -> None:
    rows(x=np.vstack([X, x])[:N]).to_zarr(MemoryStore())


def whole(rows_of_chunk: int) -> System:
    return System.from_arrays(da.ones((10**5, 2), chunks=(rows_of_chunk, 2)), np.ones((10**5, 1)))


def endless() -> System:
    return System.from_arrays(da.ones((10**11, 2), chunks=(10**7, 2)), da.ones((10**11, 1), chunks=(10**7, 1)))


FIRST, DATED, FLOATS = rows(), dated(DAYS[:N]), rows(x=X.astype("f4"))
CONSTANT = rows(weights=np.array([1.0, 2.0]))
MILLIS = DAYS[N:].as_unit("ms") + pd.Timedelta("1ms")


def table(place: str) -> str:
    pd.DataFrame({"y": Y[:, 0], "x": X[:, 0]}).to_csv(place + ".csv", index=False)
    return place + ".csv"


def arrays(place: str) -> str:
    ds = xr.Dataset({"y": ("obs", Y[:, 0]), "x": ("obs", X[:, 0])})
    ds.to_zarr(place + "-ds.zarr", zarr_format=2, mode="w")
    return place + "-ds.zarr"


def netcdf(place: str) -> str:
    xr.Dataset({"y": ("obs", Y[:, 0]), "x": ("obs", X[:, 0])}).to_netcdf(place + ".nc")
    return place + ".nc"


def imported(place: str, source: str, *words: str) -> None:
    command("import", source, place + "-imported", "--overwrite", *words)


def imports(place: str) -> list[Case]:
    """What `lrgls import` says.  place : a path for files and stores."""
    formula, variables = ("--formula", "y ~ x"), ("--y", "y", "--x", "x")
    good = lambda: imported(place, table(place), *formula)  # noqa: E731
    return [
        Case("nothing is at", lambda: imported(place, place + "-none.csv", *formula), (good,)),
        Case("--formula must say", lambda: imported(place, table(place)), (good,)),
        Case(
            "give --y and --x",
            lambda: imported(place, netcdf(place)),
            (lambda: imported(place, netcdf(place), *variables),),
        ),
        Case(
            "needs --y and --x",
            lambda: imported(place, arrays(place), "--missing-value", "9"),
            (lambda: imported(place, arrays(place), "--missing-value", "9", *variables),),
        ),
    ]


def stores(place: str) -> list[Case]:
    """place : a path for a store."""
    return [
        *imports(place),
        Case("cannot be written into", read_only, (appended(FIRST, rows), lambda: rows().to_zarr(place + "-copy"))),
        Case("appended to by another", lambda: at_once(place), (lambda: after(place),)),
        Case("differ in equations", appended(FIRST, lambda: rows(("b", "a"))), (appended(FIRST, rows),)),
        Case("weights of nothing, but", appended(FIRST, lambda: rows(weights=np.ones(N))), (appended(FIRST, rows),)),
        Case(
            "but the rows to append have weights of nothing",
            appended(rows(weights=np.ones(N)), rows),
            (appended(rows(weights=np.ones(N)), lambda: rows(weights=np.ones(N))),),
        ),
        Case(
            "has the weight 2.0",
            appended(CONSTANT, lambda: rows(weights=np.array([1.0, 3.0]))),
            (appended(CONSTANT, lambda: CONSTANT),),
        ),
        Case(
            "has 'sector' 't'",
            appended(sectored(SECTORS), lambda: sectored(["s", "s"])),
            (
                appended(sectored(SECTORS), lambda: sectored(SECTORS)),
                appended(sectored(SECTORS), lambda: sectored(None)),
            ),
        ),
        Case("to append have none", appended(DATED, rows), (appended(DATED, dated),)),
        Case("has no groups", appended(FIRST, lambda: rows(groups=np.arange(N))), (appended(FIRST, rows),)),
        Case("has no row labels", appended(FIRST, dated), (appended(FIRST, rows),)),
        Case("is there already", appended(DATED, lambda: dated(DAYS[N - 1 : -1])), (appended(DATED, dated),)),
        Case(
            "but those in the store are times",
            appended(DATED, lambda: dated(DAYS[N:].astype(str))),
            (appended(DATED, lambda: dated(pd.to_datetime(DAYS[N:].astype(str)))),),
        ),
        Case(
            "cannot be kept beside",
            appended(DATED, lambda: dated(MILLIS)),
            (appended(DATED, lambda: dated(MILLIS.round("s"))), lambda: dated(MILLIS).to_zarr(MemoryStore())),
        ),
        Case(
            "is no float32",
            appended(FLOATS, rows),
            (appended(FLOATS, lambda: rows(x=X.astype("float32"))), lambda: written_anew(X)),
        ),
        Case(
            "needs .* in this process",
            lambda: whole(10**5).to_zarr(place + "-limit", memory_limit=psutil.Process().memory_info().rss + 2_000_000),
            (
                lambda: whole(100).to_zarr(place + "-a", row_chunk=200, memory_limit="60GB", overwrite=True),
                lambda: whole(10**5).to_zarr(place + "-b", memory_limit="60GB", overwrite=True),
            ),
        ),
        Case(
            "of disk and",
            lambda: endless().to_zarr(place + "-disk"),
            (lambda: rows().to_zarr(MemoryStore()), lambda: rows().to_zarr(place, compressors="auto", overwrite=True)),
        ),
        Case(
            "keeps no rows of its segments",
            lambda: LowRankGLS(covariance=TimeVarying(0, HALVES)).fit(rows()).result_.compressed(),
            (lambda: LowRankGLS(0).fit(rows().append(rows())),),
        ),
        Case(
            "cannot be written: File name too long",
            lambda: rows().to_zarr(place + "n" * 250),
            (lambda: rows().to_zarr(place + "-n"), lambda: rows().to_zarr(MemoryStore())),
        ),
    ]
