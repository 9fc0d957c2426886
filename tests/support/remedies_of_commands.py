"""What the command line says of data that it does not read, and the ways out, followed to the letter."""

from __future__ import annotations

import atexit
import shlex
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import xarray as xr

from lrgls_dask import LowRankGLS, System
from lrgls_dask.data import tablefiles
from support.frames import mixed
from support.remedies import Case, command, said_to

FRAME = mixed(60)
FORMULA = ("--formula", "y + y2 ~ x")


def folder() -> Path:
    """A new one with the frame in files of each kind, stores of it and fits of these."""
    made = Path(tempfile.mkdtemp(prefix="lrgls-commands-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    numbers = FRAME[["y", "y2", "x"]].dropna()
    numbers.to_parquet(made / "t.parquet")
    numbers.to_csv(made / "t.csv", index=False)
    numbers.to_parquet(made / "t.bin")
    plain = System.from_arrays(numbers[["y", "y2"]], numbers[["x"]])
    plain.to_zarr(made / "s.zarr")
    LowRankGLS(0).fit(plain).result_.to_zarr(made / "f.zarr")
    LowRankGLS(0).fit(System.from_frame(numbers, "y + y2 ~ x")).result_.to_zarr(made / "g.zarr")
    grid = xr.Dataset(
        {"t": (("n", "lat", "lon"), numbers[["y", "y2"]].to_numpy()[:, None]), "x": ("n", numbers["x"].to_numpy())},
        coords={"lat": [4.5], "lon": [1, 2]},
    )
    gridded = System.from_xarray(grid, "t", ["x"], obs="n", equation=("lat", "lon"))
    LowRankGLS(0).fit(gridded).result_.to_zarr(made / "h.zarr")
    return made


PLACE = folder()


def fit(*data: str) -> Callable[[], None]:
    def call() -> None:
        at = [str(PLACE / each) if "." in each else each for each in data]
        command("fit", *at, "--rank", 0, "--out", PLACE / "out.zarr", "--overwrite")

    return call


def predict(of: str, data: str) -> Callable[[], None]:
    return lambda: command("predict", PLACE / of, PLACE / data, "--out", PLACE / "yhat.zarr", "--overwrite")


def table(of: str, *words: str) -> Callable[[], None]:
    return lambda: command("table", PLACE / of, *words)


def as_said() -> None:
    """The import that a message names, and the fit after it."""
    said = said_to(fit("t.csv", *FORMULA))
    words = shlex.split(said[said.index("lrgls import") : said.index(", and fit")])
    words[3] = str(PLACE / words[3])
    command(*words[1:], "--overwrite")
    command("fit", words[3], "--rank", 0, "--out", PLACE / "out.zarr", "--overwrite")


def imported_with_groups() -> None:
    FRAME.assign(g=range(len(FRAME)))[["y", "y2", "x", "g"]].dropna().assign(g=lambda f: f["g"] // 9).to_parquet(
        PLACE / "grouped.parquet"
    )
    out = PLACE / "grouped.zarr"
    command("import", PLACE / "grouped.parquet", out, *FORMULA, "--groups", "g", "--overwrite")
    fit("grouped.zarr", "--absorb", "groups")()


DAYS = FRAME[["y", "y2", "x"]].dropna().reset_index(drop=True)
DAYS.insert(0, "day", [f"2001-01-{1 + i // 24:02d} {i % 24:02d}:00" for i in range(len(DAYS))])
MANY = pd.concat([DAYS] * 30, ignore_index=True).assign(day=lambda f: range(len(f)))  # more than the rows looked at


def imported(files: dict[str, pd.DataFrame | str], *more: str, source: str = "") -> Callable[[], None]:
    """The call that imports text files, by their names."""

    def call() -> None:
        at = Path(tempfile.mkdtemp(dir=PLACE))
        (at / "in").mkdir()
        for name, frame in files.items():
            if isinstance(frame, str):
                (at / name).write_text(frame)
            else:
                frame.to_csv(at / name, index=False)
        command("import", at / (source or next(iter(files))), at / "out.zarr", "--obs", "day", *more)

    return call


def without_pyarrow() -> None:
    with patch.object(tablefiles, "pq", None):
        imported({"t.csv": DAYS}, *FORMULA)()


def marked(value: object, column: str = "x") -> pd.DataFrame:
    """Rows of which one holds something else than the first thousand do."""
    made = MANY.astype({column: object})
    made.loc[1_300, column] = value
    return made


def dated(last: str) -> pd.DataFrame:
    made = MANY.assign(day=[f"{1000 + i}-01-01" for i in range(len(MANY))])
    made.loc[1_300, "day"] = last
    return made


def appended(name: str, *more: str) -> None:
    """Import rows into one of two stores, which were made by formulas (g) or not (s), or a new one."""
    at = Path(tempfile.mkdtemp(dir=PLACE))
    System.from_frame(DAYS[:9].astype({"day": "datetime64[us]"}), "y + y2 ~ x", obs="day").to_zarr(at / "g.zarr")
    System.from_arrays(DAYS[["y", "y2"]][:9], DAYS[["x"]][:9]).to_zarr(at / "s.zarr")
    DAYS[9:].to_csv(at / "t.csv", index=False)
    command("import", at / "t.csv", at / name, *([] if "--append" in more else ["--obs", "day"]), *more)


def appended_in_python() -> None:
    at = Path(tempfile.mkdtemp(dir=PLACE)) / "s.zarr"
    System.from_arrays(DAYS[["y", "y2"]][:9], DAYS[["x"]][:9]).to_zarr(at)
    System.from_arrays(DAYS[["y", "y2"]][9:], DAYS[["x"]][9:]).append_to_zarr(at)


LINE = DAYS.to_csv(index=False)
A_FILE = ("--formula", "y ~ x", "--one-file-an-equation")
RENAMED = DAYS.rename(columns={"day": "when"})
COMMANDS: list[Case] = [
    Case("which fits do not read. Make a store of it", fit("t.csv", *FORMULA), (as_said,)),
    Case("--formula must say which columns are what. Give one", fit("t.parquet"), (fit("t.parquet", *FORMULA),)),
    Case("are of several kinds", fit("t.parquet", "s.zarr", *FORMULA), (fit("t.parquet", *FORMULA), fit("s.zarr"))),
    Case("2 stores were given", fit("s.zarr", "s.zarr"), (fit("s.zarr"),)),
    Case(
        "--glance has no rows of terms", table("f.zarr", "--glance=fit", "--term=x"), (table("f.zarr", "--glance=fit"),)
    ),
    Case(
        "--glance fit has no rows of equations",
        table("g.zarr", "--glance=fit", "--equation=y"),
        (table("g.zarr", "--glance=equation", "--equation=y"), table("g.zarr", "--glance=fit")),
    ),
    Case(
        "some equations are given by the dims",
        table("h.zarr", "--equation=lat=4.5", "--equation=lno=1"),
        (
            table("h.zarr", "--equation=lat=4.5", "--equation=lon=1"),
            table("h.zarr", "--equation=(4.5, 1)", "--equation=(4.5, 2)"),
        ),
    ),
    Case("--formula is for Parquet files", fit("s.zarr", *FORMULA), (fit("s.zarr"),)),
    Case(
        "neither a store nor Parquet by its name",
        fit("t.bin"),
        (fit("t.parquet", *FORMULA), fit("t.bin", *FORMULA)),
    ),
    Case("absorb='q' is not known", fit("s.zarr", "--absorb", "q"), (imported_with_groups,)),
    Case("t.csv is CSV, which is not read here", predict("g.zarr", "t.csv"), (predict("g.zarr", "t.parquet"),)),
    Case(
        "f.zarr was not made by formulas",
        predict("f.zarr", "t.parquet"),
        (predict("f.zarr", "s.zarr"), predict("g.zarr", "t.parquet")),
    ),
    Case("tables are read by pyarrow, which is not installed", without_pyarrow, (imported({"t.csv": DAYS}, *FORMULA),)),
    Case(
        "with as many values in each line",
        imported({"t.csv": f"{LINE}1,2,3,4,5,6\n"}, *FORMULA),
        (imported({"t.csv": LINE}, *FORMULA),),
    ),
    Case(
        "holds 'n/k' where its first rows hold numbers",
        imported({"t.csv": marked("n/k")}, *FORMULA),
        (
            imported({"t.csv": marked("n/k")}, *FORMULA, "--missing-value", "n/k"),
            imported({"t.csv": MANY}, *FORMULA),
        ),
    ),
    Case(
        "--append goes on with the store",
        lambda: appended("g.zarr", "--append", *FORMULA),
        (lambda: appended("g.zarr", "--append"), lambda: appended("new.zarr", *FORMULA)),
    ),
    Case(
        "was not made by formulas, by which tables",
        lambda: appended("s.zarr", "--append"),
        (appended_in_python, lambda: appended("new.zarr", *FORMULA)),
    ),
    Case(
        "holds dates in the first rows",
        imported({"t.csv": dated("31.12.01")}, *FORMULA),
        (imported({"t.csv": dated("3001-12-31")}, *FORMULA), imported({"t.csv": dated("3001-12-31 10:30")}, *FORMULA)),
    ),
    Case(
        "has no column 'day'. It has",
        imported({"in/a.csv": DAYS, "in/b.csv": RENAMED}, *A_FILE, source="in"),
        (imported({"in/a.csv": DAYS, "in/b.csv": DAYS}, *A_FILE, source="in"), imported({"in/a.csv": DAYS}, *A_FILE)),
    ),
]
