"""What tables of fits refuse, and what to do instead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

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


TABLES = [
    Case("compare takes several fits", lambda: compare(fit()), (lambda: compare([fit(), fit("y + z ~ 1")]),)),
    Case("compare takes at least one fit", lambda: compare([]), (lambda: compare([fit(), fit("y + z ~ 1")]),)),
    Case(
        "compare takes fits, and equations of fits",
        lambda: compare([LowRankGLS(0)]),
        (lambda: compare([LowRankGLS(0).fit(System.from_frame(FRAME, "y + z ~ x")).result_]),),
    ),
    Case(
        "which is not kept. Give them",
        lambda: fit("y + z ~ I(x**2)")["y"].model.data.frame,
        (lambda: fit("y + z ~ I(x**2)")["y"].with_frame(FRAME).model.data.frame,),
    ),
    Case(
        "have effects that were absorbed, and a frame does not say whose",
        lambda: absorbed()["y0"].predict(pd.DataFrame(DATA.X, columns=["x0", "x1", "x2"])),
        (lambda: absorbed().predict(DATA.system("firm")),),
    ),
]
