"""What is said of frames and formulas that cannot be taken, and the ways out, followed to the letter."""

from __future__ import annotations

from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd

from lrgls_dask import Fit, LowRankGLS, System
from support.frames import mixed
from support.remedies import Case

FRAME = mixed(60)
DASKED = dd.from_pandas(FRAME, npartitions=2)
LONG = pd.DataFrame(
    {
        "firm": np.repeat(["a", "b", "c"], 20),
        "date": np.tile(np.arange(20), 3),
        "y": FRAME["y"],
        "x": FRAME["x"],
        "z": FRAME["z"],
        "w": FRAME["z"] + 1,
    }
)
TEXT = FRAME["x"].astype(str)
ODD = [1, "q"] * 30
ZONES = [pd.Timestamp("2000", tz=("UTC", "Asia/Tokyo")[i % 2]) + pd.Timedelta(i, "D") for i in range(60)]
KEYS: dict[str, Any] = {"equation": "firm", "obs": "date"}


def wide(formulas: Any = "y ~ x", frame: Any = FRAME, **options: Any) -> System:
    return System.from_frame(frame, formulas, **options)


def parts(*pieces: pd.DataFrame) -> Any:
    return dd.from_map(lambda i: pieces[i], range(len(pieces)), meta=pieces[0][:0])


def long(formulas: Any = "y ~ x", frame: Any = LONG, **options: Any) -> System:
    return System.from_frame(frame, formulas, **{**KEYS, **options})


def fitted(formulas: Any = "y + y2 ~ x + s", **options: Any) -> Fit:
    return LowRankGLS(0, **options).fit(wide(formulas)).result_


FIRST = wide("y ~ center(x)")
FRAMES: list[Case] = [
    Case("calls np.mean", lambda: wide("y ~ np.mean(x)"), (lambda: wide("y ~ m", FRAME.assign(m=FRAME["x"] ** 2)),)),
    Case("the method 'mean'", lambda: wide("y ~ I(x - x.mean())"), (lambda: wide("y ~ center(x)"),)),
    Case("Subscript", lambda: wide("y ~ x[0]"), (lambda: wide("y ~ x0", FRAME.assign(x0=FRAME["x"][::-1].values)),)),
    Case("calls 'foo'", lambda: wide("y ~ foo(x)"), (lambda: wide("y ~ np.exp(x)"), lambda: wide("y ~ log(z)"))),
    Case("reads no column", lambda: wide("y ~ I(1)"), (lambda: wide("y ~ 1"),)),
    Case(
        "is an offset",
        lambda: wide("y ~ x + offset(z)"),
        (lambda: wide("I(y - z) ~ x"), lambda: fitted("y ~ x + z", restrictions=["y:z = 1"])),
    ),
    Case("in backticks", lambda: wide("y ~ Q('my col')"), (lambda: wide("y ~ `my col`"),)),
    Case(r"Write lag\(center", lambda: wide("y ~ center(lag(x, 1))"), (lambda: wide("y ~ lag(center(x), 1)"),)),
    Case("names no equation", lambda: wide({}), (lambda: wide("y + y2 ~ x"), lambda: wide({"y": "~ x"}))),
    Case(
        "both None and",
        lambda: long({None: "y ~ x", "*": "y ~ 1"}),
        (lambda: long({None: "y ~ x"}), lambda: long({"*": "y ~ 1"})),
    ),
    Case("formulas is empty", lambda: long({}), (lambda: long("y ~ x"),)),
    Case(
        "2 formulas for a long frame",
        lambda: long(["y ~ x", "y ~ z"]),
        (lambda: long("y ~ x"), lambda: long({"*": "y ~ x", "b": "y ~ z"})),
    ),
    Case(
        "responses but an equation has one",
        lambda: wide({"k": "y + y2 ~ x"}),
        (lambda: wide({"k": "y ~ x", "l": "y2 ~ x"}),),
    ),
    Case("is a int but must be text", lambda: wide(5), (lambda: wide("y ~ x"), lambda: wide(["y ~ x", "y2 ~ z"]))),
    Case("'x' has no response", lambda: wide("x"), (lambda: wide("y ~ x"),)),
    Case("'~ x' has no response", lambda: wide("~ x"), (lambda: wide("y ~ x"),)),
    Case("set apart by", lambda: wide("y ~ x | z"), (lambda: wide("y ~ x + z"),)),
    Case("gives no column of regressors. Write", lambda: wide("y ~ 0"), (lambda: wide("y ~ 1"),)),
    Case("is a regressor too", lambda: wide("y ~ x + y"), (lambda: wide("y ~ x"), lambda: wide("y ~ x + lag(y, 1)"))),
    Case(
        "has 2 responses, but of a long frame",
        lambda: long("y + z ~ x"),
        (lambda: long("y ~ x"), lambda: wide("y + z ~ x", LONG)),
    ),
    Case("the frame has no rows", lambda: wide("y ~ x", FRAME[:0]), (lambda: wide("y ~ x", FRAME[:9]),)),
    Case("every row lacks one", lambda: wide("y ~ s", FRAME.assign(s=pd.Series([None] * 60, dtype="str"))), (wide,)),
    Case(
        "response 't' must be a number",
        lambda: wide("t ~ x", FRAME.assign(t=TEXT)),
        (lambda: wide("t ~ x", FRAME.assign(t=FRAME.assign(t=TEXT)["t"].astype("float64"))),),
    ),
    Case(
        "calculates with column 't'",
        lambda: wide("y ~ exp(t)", FRAME.assign(t=TEXT)),
        (lambda: wide("y ~ exp(t)", FRAME.assign(t=FRAME.assign(t=TEXT)["t"].astype("float64"))),),
    ),
    Case(
        "'day' holds dates",
        lambda: wide("y ~ day"),
        (
            lambda: wide("y ~ t", FRAME.assign(t=(FRAME["day"] - FRAME["day"].min()) / pd.Timedelta("1D"))),
            lambda: wide("y ~ C(day)"),
        ),
    ),
    Case(
        "is no category of the formulas",
        lambda: wide("y ~ i", levels={"i": range(9)}),
        (wide, lambda: wide("y ~ C(i)", levels={"i": range(9)})),
    ),
    Case(
        "got a ndarray", lambda: wide("y ~ x", np.ones((3, 2))), (lambda: System.from_arrays(FRAME["y"], FRAME["x"]),)
    ),
    Case(
        "got a Dataset",
        lambda: wide("y ~ x", FRAME.to_xarray()),
        (lambda: System.from_xarray(FRAME.to_xarray(), "y", ["x"], obs="index"),),
    ),
    Case("obs must then name", lambda: long(obs=None), (lambda: long(obs="date"),)),
    Case(
        "weights has a ndarray",
        lambda: wide(weights=np.ones(60)),
        (lambda: wide("y ~ x", FRAME.assign(w=np.ones(60)), weights="w"),),
    ),
    Case("weights of a long frame is one column", lambda: long(weights={"a": "w"}), (lambda: long(weights="w"),)),
    Case(
        "groups 'g': the label of row 0",
        lambda: wide("y ~ x", FRAME.assign(g=[None, *FRAME["s"][1:]]), groups="g"),
        (
            lambda: wide("y ~ x", FRAME.assign(g=["u", *FRAME["s"][1:]]), groups="g"),
            lambda: wide("y ~ x", FRAME.assign(g=[None, *FRAME["s"][1:]])[1:], groups="g"),
        ),
    ),
    Case("groups 'firm' must be the same", lambda: long(groups="firm"), (lambda: long(groups="date"),)),
    Case("obs is a int", lambda: wide(obs=3), (lambda: wide("y ~ x", FRAME.reset_index(), obs="index"),)),
    Case(
        "mixes",
        lambda: long("y ~ x", LONG.assign(date=[*LONG["date"][:-1], "end"])),
        (lambda: long("y ~ x", LONG.assign(date=LONG["date"].astype(str))),),
    ),
    Case(
        "'firm' has no value in row 0",
        lambda: long("y ~ x", LONG.assign(firm=[None, *LONG["firm"][1:]])),
        (lambda: long("y ~ x", LONG.assign(firm=[None, *LONG["firm"][1:]]).dropna(subset=["firm"])),),
    ),
    Case(
        "more than once, first in its rows",
        lambda: long("y ~ x", pd.concat([LONG, LONG[:1]])),
        (lambda: long("y ~ x", pd.concat([LONG, LONG[:1]]).drop_duplicates(["firm", "date"])),),
    ),
    Case(
        "formulas has none for equations",
        lambda: long({"a": "y ~ x"}),
        (lambda: long({"a": "y ~ x", "*": "y ~ 1"}), lambda: long({"a": "y ~ x"}, LONG[LONG["firm"] == "a"])),
    ),
    Case("are missing in every row", lambda: wide("y ~ center(x)", FRAME.assign(x=np.nan)), (lambda: wide("y ~ 1"),)),
    Case(
        "takes a frame and the formulas",
        lambda: System.from_frame(FRAME),  # type: ignore[call-arg]
        (lambda: wide("y + y2 ~ x + z"), lambda: System.from_frame(LONG, "y ~ x + z", equation="firm", obs="date")),
    ),
    Case(
        "holds int such as 1",
        lambda: wide("y ~ o", FRAME.assign(o=ODD)),
        (
            lambda: wide("y ~ o", FRAME.assign(o=FRAME.assign(o=ODD)["o"].astype("string"))),
            lambda: wide("y ~ o", FRAME.assign(o=FRAME.assign(o=ODD)["o"].astype("category"))),
        ),
    ),
    Case(
        "none of its levels 'u', 'v'",
        lambda: wide("y ~ s", levels={"s": ["u", "v"]}),
        (
            lambda: wide("y ~ s", levels={"s": ["u", "v", "w"]}),
            lambda: wide("y ~ C(s, levels=['u', 'v', 'w'])"),
            lambda: wide("y ~ s", FRAME[FRAME["s"] != "w"], levels={"s": ["u", "v"]}),
        ),
    ),
    Case(
        "where it must hold numbers",
        lambda: fitted().predict(FRAME.assign(x=TEXT)),
        (lambda: fitted().predict(FRAME.assign(x=FRAME.assign(x=TEXT)["x"].astype("float64"))),),
    ),
    Case(
        "lack columns 'x' that the formulas of the fit read",
        lambda: fitted().predict(FRAME.drop(columns="x").assign(xx=1.0)),
        (lambda: fitted().predict(FRAME.assign(x=1.0)), lambda: fitted().predict(FRAME.rename(columns={"x": "x"}))),
    ),
    Case(
        "a partition of the Dask frame has other columns",
        lambda: wide("y ~ x", parts(FRAME[:30], FRAME[30:].drop(columns="x"))),
        (lambda: wide("y ~ x", parts(FRAME[:30], FRAME[30:])),),
    ),
    Case(
        "times in several zones",
        lambda: wide("y ~ x", FRAME.assign(t=ZONES), obs="t"),
        (lambda: wide("y ~ x", FRAME.assign(t=pd.to_datetime(ZONES, utc=True)), obs="t"),),
    ),
    Case("no column 'xx'", lambda: wide("y ~ xx"), (wide, lambda: wide("y ~ xx", FRAME.assign(xx=FRAME["x"])))),
    Case(
        "2 columns called 'x'",
        lambda: wide("y ~ x", pd.concat([FRAME, FRAME[["x"]]], axis=1)),
        (wide, lambda: wide("y ~ x", pd.concat([FRAME, FRAME[["x"]].rename(columns={"x": "more"})], axis=1))),
    ),
    Case(
        "'x' has no value in row 3",
        lambda: wide("y ~ x", FRAME.assign(x=FRAME["x"].where(FRAME.index != 3)), missing="raise"),
        (
            lambda: wide("y ~ x", FRAME.drop(index=3), missing="raise"),
            lambda: wide("y ~ x", FRAME.assign(x=FRAME["x"].where(FRAME.index != 3, 0)), missing="raise"),
            lambda: wide("y ~ x", FRAME.assign(x=FRAME["x"].where(FRAME.index != 3)), missing="drop"),
        ),
    ),
    Case(
        "have their levels",
        lambda: wide(FIRST.formulas, levels={"s": ["u"]}),
        (lambda: wide(FIRST.formulas),),
    ),
    Case(
        "differ in what",
        lambda: FIRST.append(wide("y ~ center(x)", FRAME[:40])),
        (lambda: FIRST.append(System.from_frame(FRAME[:40], FIRST.formulas)),),
    ),
]
