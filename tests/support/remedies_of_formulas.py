"""What formulas and labels are refused for before anything is calculated, and the ways out, followed to the letter."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lrgls_dask import System
from support.remedies import Case

RNG = np.random.default_rng(4)
FRAME = pd.DataFrame(RNG.gamma(2, size=(30, 4)), columns=["y", "x", "z", "1"])


def of(right: str, frame: pd.DataFrame = FRAME) -> System:
    return System.from_frame(frame, f"y ~ {right}")


FORMULAS = [
    Case("gives np.log more than the 1", lambda: of("np.log(x, z)"), (lambda: of("np.log(x)"),)),
    Case(
        "asks for 10 \\*\\* 9 columns",
        lambda: of("bs(x, df=10**9)"),
        (lambda: of("bs(x, df=4)"),),
    ),
    Case("asks for 5000 columns", lambda: of("poly(x, 5000)"), (lambda: of("poly(x, 3)"),)),
    Case(
        "calculates with a text", lambda: of("I(x == 'a' * 10**12)"), (lambda: of("I(x == 1)"), lambda: of("I(x + 1)"))
    ),
    Case("a power of numbers alone", lambda: of("I(x * 9**9**9**9)"), (lambda: of("I(x * 729)"),)),
    Case(
        "called '1' is read as the number",
        lambda: of("x + `1`"),
        (lambda: of("x + one", FRAME.rename(columns={"1": "one"})),),
    ),
    Case(
        "holds half of a character",
        lambda: System.from_arrays(FRAME[["y"]].to_numpy(), FRAME[["x"]].to_numpy(), equations=["\ud800"]),
        (lambda: System.from_arrays(FRAME[["y"]].to_numpy(), FRAME[["x"]].to_numpy(), equations=["a"]),),
    ),
    Case(
        "has a name that ends with a backslash",
        lambda: of("`z\\` + x", FRAME.rename(columns={"z": "z\\"})),
        (lambda: of("z + x"),),
    ),
]
