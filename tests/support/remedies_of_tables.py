"""What tables of fits refuse, and what to do instead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from lrgls_dask import LowRankGLS, System, compare
from support.absorbed import grouped
from support.remedies import Case

__all__ = ["TABLES"]

RNG = np.random.default_rng(8)
FRAME = pd.DataFrame(RNG.normal(size=(40, 3)), columns=["y", "z", "x"])
DATA = grouped()


def fit(formula: str = "y + z ~ x") -> Any:
    return LowRankGLS(0).fit(System.from_frame(FRAME, formula)).result_


def absorbed() -> Any:
    return LowRankGLS(1).fit(DATA.system("firm")).result_


AXES = Figure().add_subplot()


def wide() -> Any:
    return LowRankGLS(0).fit(System.from_arrays(RNG.normal(size=(40, 40)), RNG.normal(size=(40, 2)))).result_


def gridded() -> Any:
    grid = xr.Dataset({"t": (("time", "lat", "lon"), RNG.normal(size=(40, 2, 2))), "x": ("time", FRAME["x"])})
    grid = grid.assign_coords(lat=[1.0, 2.0], lon=[3.0, 4.0])
    return LowRankGLS(0).fit(System.from_xarray(grid, "t", ["x"], obs="time", equation=("lat", "lon"))).result_


TABLES = [
    Case("compare takes several fits", lambda: compare(fit()), (lambda: compare([fit(), fit("y + z ~ 1")]),)),
    Case("compare takes at least one fit", lambda: compare([]), (lambda: compare([fit(), fit("y + z ~ 1")]),)),
    Case(
        "compare takes fits, and equations of fits",
        lambda: compare([LowRankGLS(0)]),
        (lambda: compare([LowRankGLS(0).fit(System.from_frame(FRAME, "y + z ~ x")).result_]),),
    ),
    Case(
        "compare takes a list of fits, or a mapping from names to them; got int",
        lambda: compare(5),  # type: ignore[arg-type]
        (lambda: compare([fit()]), lambda: compare({"one": fit()})),
    ),
    Case(
        "two models are called '1' as text",
        lambda: compare({1: fit(), "1": fit()}),
        (lambda: compare({1: fit(), "2": fit()}),),
    ),
    Case(
        "these models are one equation each",
        lambda: compare([fit()["y"], fit()["z"]], equation="y"),
        (lambda: compare([fit()["y"], fit()["z"]]), lambda: compare([fit(), fit()], equation="y")),
    ),
    Case(
        "predict takes a frame, an array of numbers or a System; got dict",
        lambda: fit()["y"].predict({"x": [1.0]}),
        (lambda: fit()["y"].predict(pd.DataFrame({"x": [1.0]})),),
    ),
    Case(
        "equation 'y' has 2 regressors",
        lambda: fit()["y"].predict(np.ones((3, 1))),
        (lambda: fit()["y"].predict(np.ones((3, 2))), lambda: fit()["y"].predict(FRAME[["x"]])),
    ),
    Case(
        "a picture has room for 60 coefficients",
        lambda: wide().plot.coefficients(),
        (
            lambda: wide().plot.coefficients(equation="y0*", term="x0", ax=AXES),
            lambda: gridded().plot.map("x", ax=AXES),
        ),
    ),
    Case(
        "a map needs equations on two dims",
        lambda: wide().plot.map("x0"),
        (lambda: wide().plot.coefficients(term="x0", equation=["y1", "y2"], ax=AXES),),
    ),
    Case(
        "this fit chose nothing among candidates",
        lambda: wide().plot.selection(),
        (
            lambda: LowRankGLS("bic").fit(System.from_arrays(DATA.Y, DATA.X)).result_.plot.selection(ax=AXES),
            lambda: LowRankGLS("cv").fit(System.from_arrays(DATA.Y, DATA.X)).result_.plot.selection(ax=AXES),
        ),
    ),
    Case(
        "which is not kept. Give them",
        lambda: fit("y + z ~ I(x**2)")["y"].model.data.frame,
        (lambda: fit("y + z ~ I(x**2)")["y"].with_frame(FRAME).model.data.frame,),
    ),
    Case(
        "have effects that were absorbed, and frames and arrays do not say whose",
        lambda: absorbed()["y0"].predict(pd.DataFrame(DATA.X, columns=["x0", "x1", "x2"])),
        (lambda: absorbed().predict(DATA.system("firm")),),
    ),
]
