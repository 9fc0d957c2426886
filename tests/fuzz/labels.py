"""Labels of all kinds that Python, NumPy and pandas have, good ones and bad ones."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas as pd

STRANGE = ("", " ", "a b", "a:b", "a~b", "a=b", "*", "é", "日本", "a/b", "../x", ".", "<b>", "a|b", "a&b", "\\", "=cmd",
           "const", "x0", "y0", "equation", "obs", "nan", "None", "a\nb", "a\tb", "\x00", "'", '"', "[a]", "{a}", "1",
           "-1", "1e5", "a" * 300, "😀", "\ud800")  # fmt: skip


def labels(rng: np.random.Generator, n: int) -> list[Any]:
    """n of them, most often different ones."""
    kind = int(rng.integers(12))
    if kind < 5 and rng.random() < 0.8:
        return [f"e{i}" for i in rng.permutation(n)]
    if kind <= 4:
        return [STRANGE[i] for i in rng.choice(len(STRANGE), n, replace=n > len(STRANGE))]
    if kind == 5:
        return rng.permutation(100)[:n].tolist()
    if kind == 6:
        return list(rng.permutation(100)[:n].astype(rng.choice(["i2", "u1", "f4", "f8"])))
    if kind == 7:
        return list(pd.date_range("2000-01-01", periods=n))
    if kind == 8:
        return [("a", int(i)) for i in range(n)]
    if kind == 9:
        return [datetime.date(2000, 1, 1 + i % 28) for i in range(n)]
    if kind == 10:
        return [[1, "1", 1.5, True, None, ("t",)][i % 6] for i in range(n)]
    return ["same"] * n if rng.random() < 0.2 else [f"e{i}" for i in range(n)]
