"""What the command line says of data that it does not read, and the ways out, followed to the letter."""

from __future__ import annotations

import atexit
import shlex
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from lrgls_dask import LowRankGLS, System
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
    return made


PLACE = folder()


def fit(*data: str) -> Callable[[], None]:
    def call() -> None:
        at = [str(PLACE / each) if "." in each else each for each in data]
        command("fit", *at, "--rank", 0, "--out", PLACE / "out.zarr", "--overwrite")

    return call


def predict(of: str, data: str) -> Callable[[], None]:
    return lambda: command("predict", PLACE / of, PLACE / data, "--out", PLACE / "yhat.zarr", "--overwrite")


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


COMMANDS: list[Case] = [
    Case("which fits do not read. Make a store of it", fit("t.csv", *FORMULA), (as_said,)),
    Case("--formula must say which columns are what. Give one", fit("t.parquet"), (fit("t.parquet", *FORMULA),)),
    Case("are of several kinds", fit("t.parquet", "s.zarr", *FORMULA), (fit("t.parquet", *FORMULA), fit("s.zarr"))),
    Case("2 stores were given", fit("s.zarr", "s.zarr"), (fit("s.zarr"),)),
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
]
