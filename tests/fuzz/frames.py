"""Frames long and wide, of every kind, by formulas whose columns are known, and Parquet files of the same rows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fuzz.arrays import chunks, pick
from fuzz.judge import Finding, require
from fuzz.labels import STRANGE
from lrgls_dask import System
from support.frames import x_of, y_of

Column = Callable[[pd.DataFrame], np.ndarray]
NAMES = (
    *(name for name in STRANGE if "`" not in name and name.strip() and name not in ("\ud800", "y0")),
    "x",
    "z",
    "class",
    "np",
    "C",
    "lag",
    "log",
    "Intercept",
)


def run(rng: np.random.Generator) -> None:
    """One frame and a formula of it, in a container."""
    (wide if rng.random() < 0.6 else long)(rng)


@contextmanager
def told(of: str) -> Iterator[None]:
    """What is found says of what."""
    try:
        yield
    except Finding as found:
        raise Finding(f"{of} {_LAST}: {found}") from None


def floats(rng: np.random.Generator, n: int) -> np.ndarray:
    values = rng.normal(size=n)
    return np.where(rng.random(n) < 0.1, np.nan, values) if rng.random() < 0.3 else values


def drawn_frame(rng: np.random.Generator, n: int, responses: int) -> tuple[pd.DataFrame, list[str]]:
    """Two numbers, a whole number, a category and responses, under any names; these names."""
    fixed = ["a", "b", "i", "c"]
    if rng.random() < 0.3:
        fixed = [NAMES[j] for j in rng.choice(len(NAMES), 4, replace=False)]
    data: dict[str, Any] = {fixed[0]: floats(rng, n), fixed[1]: floats(rng, n)}
    data[fixed[2]] = rng.integers(-3, 4, n).astype(pick(rng, "i8", "i4", "f4", "?", "u1"))
    words = rng.choice(["u", "v", "w w", "1"], n)
    data[fixed[3]] = pick(rng, words, words.astype(object), pd.Categorical(words))
    for j in range(responses):
        data[f"y{j}"] = floats(rng, n)
    return pd.DataFrame(data), fixed


def quoted(name: str) -> str:
    return (
        name if name.isidentifier() and name not in ("class", "np", "C", "lag", "log", "nan", "None") else f"`{name}`"
    )


def regressors(rng: np.random.Generator, names: list[str], frame: pd.DataFrame) -> tuple[str, list[Column]]:
    """The right side of a formula and what its columns are, without the intercept."""
    a, b, i, c = map(quoted, names)
    number = {name: (lambda f, name=name: f[name].to_numpy(dtype=float)) for name in names[:3]}
    A, B, whole = (number[name] for name in names[:3])
    levels = sorted(set(frame[names[3]].astype(str)))
    dummies: list[Column] = [
        (lambda f, level=level: (f[names[3]].astype(str) == level).to_numpy(dtype=float)) for level in levels[1:]
    ]
    terms: list[tuple[str, list[Column]]] = [
        (a, [A]),
        (b, [B]),
        (f"np.exp({b})", [lambda f: np.exp(B(f))]),
        (f"I({a} ** 2)", [lambda f: A(f) ** 2]),
        (f"{a}:{b}", [lambda f: A(f) * B(f)]),
        (c, dummies),
        (f"np.clip({b}, -1, 1)", [lambda f: np.clip(B(f), -1, 1)]),
        (f"I({a} - 2 * {b})", [lambda f: A(f) - 2 * B(f)]),
    ]
    if frame[names[2]].dtype != bool:
        terms.append((i, [whole]))
    chosen = rng.choice(len(terms), int(rng.integers(1, 5)), replace=False)
    text = " + ".join(terms[j][0] for j in sorted(chosen))
    return text, [column for j in sorted(chosen) for column in terms[j][1]]


def container(rng: np.random.Generator, frame: pd.DataFrame) -> Any:
    """The frame as pandas, polars, Arrow or Dask have it, or None where it cannot be one of these."""
    import dask.dataframe as dd
    import polars as pl
    import pyarrow as pa

    how = pick(rng, "pandas", "pandas", "nullable", "arrow dtypes", "polars", "lazy", "arrow", "dask")
    _LAST[:] = [how]
    if how == "pandas":
        return frame
    if how in ("nullable", "arrow dtypes"):
        return frame.convert_dtypes(dtype_backend="numpy_nullable" if how == "nullable" else "pyarrow")
    if how == "dask":
        return dd.from_pandas(frame, npartitions=int(rng.integers(1, 5)), sort=False)
    if how == "arrow":
        return pa.Table.from_pandas(frame, preserve_index=False)
    category = {name: str for name in frame if isinstance(frame[name].dtype, pd.CategoricalDtype)}
    made = pl.from_pandas(frame.astype(category))  # whose categories come in the order in which they occur
    return made.lazy() if how == "lazy" else made


_LAST: list[str] = []


def parquet(rng: np.random.Generator, frame: pd.DataFrame, folder: str) -> str:
    """Written into several files in order, in row groups."""
    edges = np.cumsum([0, *chunks(rng, len(frame))])
    for number, (start, stop) in enumerate(pairwise(edges)):
        path = Path(folder) / f"part-{number}.parquet"
        frame.iloc[start:stop].reset_index(drop=True).to_parquet(path, row_group_size=int(rng.integers(1, 20)))
    return folder


def wide(rng: np.random.Generator) -> None:
    n, K = int(rng.integers(1, 40)), int(rng.integers(1, 4))
    frame, names = drawn_frame(rng, n, K)
    right, columns = regressors(rng, names, frame)
    intercept = rng.random() < 0.8
    right = right if intercept else f"{right} - 1" if names[3] not in right.replace("`", "") else right
    intercept = intercept or "- 1" not in right
    left = " + ".join(f"y{j}" for j in range(K))
    formulas: Any = f"{left} ~ {right}" if rng.random() < 0.6 else {f"y{j}": f"~ {right}" for j in range(K)}
    with told(f"{formulas} of {frame.dtypes.to_dict()}"), tempfile.TemporaryDirectory() as folder:
        if rng.random() < 0.25:
            system = System.from_parquet(parquet(rng, frame, folder), formulas)
        else:
            system = System.from_frame(container(rng, frame), formulas)
        compare(system, frame, columns, intercept, [frame[f"y{j}"].to_numpy(dtype=float) for j in range(K)])


def compare(
    system: System, frame: pd.DataFrame, columns: list[Column], intercept: bool, responses: list[np.ndarray]
) -> None:
    X = np.column_stack([*([np.ones(len(frame))] if intercept else []), *(column(frame) for column in columns)])
    Y = np.where(np.isnan(X).any(axis=1)[:, None], np.nan, np.column_stack(responses))
    compare_cells(system, Y, np.repeat(X[:, None], Y.shape[1], axis=1))


def compare_cells(system: System, Y: np.ndarray, X: np.ndarray) -> None:
    """Against Y (N, K) and regressors X (N, K, p) of every equation, cell by cell, in rows that show something."""
    kept = ~np.isnan(Y).all(axis=1)
    found_y, found_x = y_of(system), x_of(system)
    require(np.array_equal(found_y, Y[kept], equal_nan=True), f"Y is {found_y.tolist()}, not {Y[kept].tolist()}")
    for j, used in enumerate(system.rows.design.columns):
        seen = ~np.isnan(Y[kept][:, j])
        mine, theirs = found_x[:, used][seen], X[kept][:, j][seen]
        require(mine.shape == theirs.shape, f"X of equation {j} has shape {mine.shape}, not {theirs.shape}")
        left = [column for column in theirs.T]
        for column in mine.T:
            at = next((i for i, each in enumerate(left) if np.allclose(each, column, rtol=1e-12, atol=0)), None)
            require(at is not None, f"a column of equation {j} is {column.tolist()}")
            left.pop(at)  # type: ignore[arg-type]


def long(rng: np.random.Generator) -> None:
    """A row for each cell, in any order, some absent; regressors of each equation its own."""
    n, K = int(rng.integers(2, 20)), int(rng.integers(1, 5))
    firms = pick(rng, [f"f{j}" for j in range(K)], list(range(K)), [0.5 + j for j in range(K)])
    dates = pick(
        rng, list(range(1990, 1990 + n)), list(pd.date_range("2000", periods=n)), [f"t{i:03}" for i in range(n)]
    )
    index = pd.MultiIndex.from_product([dates, firms], names=["day", "firm"])
    frame, names = drawn_frame(rng, len(index), 1)
    frame.insert(0, "day", index.get_level_values(0))
    frame.insert(1, "firm", index.get_level_values(1))
    right, columns = regressors(rng, names, frame)
    whole = frame.copy()
    gone = rng.random(len(frame)) < (0.2 if rng.random() < 0.4 else 0.0)
    frame = frame[~gone]
    if rng.random() < 0.5:
        frame = frame.iloc[rng.permutation(len(frame))].reset_index(drop=True)
    if rng.random() < 0.05 and len(frame):
        frame = pd.concat([frame, frame.iloc[:1]])
    # levels are those that occur in cells of the frame
    if set(frame[names[3]].astype(str)) != set(whole[names[3]].astype(str)) or not len(frame):
        return
    keys: dict[str, Any] = {"equation": "firm", "obs": "day"}
    formula = f"y0 ~ {right}"
    with told(f"{formula} of {frame.dtypes.to_dict()}"), tempfile.TemporaryDirectory() as folder:
        if rng.random() < 0.25:
            system = System.from_parquet(parquet(rng, frame, folder), formula, **keys)
        else:
            system = System.from_frame(container(rng, frame), formula, **keys)
        compare_long(system, whole, gone, columns, n, K)


def compare_long(system: System, whole: pd.DataFrame, gone: np.ndarray, columns: list[Column], n: int, K: int) -> None:
    X = np.column_stack([np.ones(len(whole)), *(column(whole) for column in columns)])
    y = np.where(np.isnan(X).any(axis=1) | gone, np.nan, whole["y0"].to_numpy(dtype=float))
    Y, X = y.reshape(n, K), X.reshape(n, K, -1)
    present = ~gone.reshape(n, K).all(axis=0)
    require(system.n_equations == present.sum(), f"{system.n_equations} equations, not {present.sum()}")
    compare_cells(system, Y[:, present], X[:, present])


# ------------------------------------------------------------------------------------------------------ formulas

PIECES = (
    "a",
    "b",
    "y0",
    "c",
    "np.log(a)",
    "C(c)",
    "lag(a)",
    "lag(a, -2)",
    "poly(a, 2)",
    "bs(a, df=4)",
    "center(b)",
    "1",
    "0",
    "-1",
    "+",
    "-",
    "*",
    ":",
    "~",
    "(",
    ")",
    "`",
    "**",
    "^",
    "|",
    "[",
    "]",
    "{",
    "}",
    "{y*}",
    "'",
    '"',
    ",",
    "/",
    "%in%",
    "I(",
    "np.",
    "np.log(a, b)",
    "np.where(a > 0, a, b)",
    "a == b",
    "a if b else c",
    "lambda: 1",
    "C(c, levels=[1])",
    "C(c, contr.sum)",
    "__import__('os').system('true')",
    "a.__class__",
    "().__class__",
    "open('/x')",
    "exec('1')",
    "9**9**9**9",
    "'a' * 10**12",
    "\\",
    "\n",
    "\x00",
    "é",
    "y0 + y1",
    "scale(a)",
    "Q('a')",
    "offset(a)",
    "1e999",
    "nan",
    "a b",
    "#",
    "a # b",
    "np.add(a, 1, out=b)",
    "cr(a, df=3)",
    "poly(a, 10**9)",
    "bs(a, df=10**9)",
)


def formulas(rng: np.random.Generator) -> None:
    """Pieces of formulas put together at random: worded errors, or a system that can be read."""
    pieces = [PIECES[j] for j in rng.integers(len(PIECES), size=int(rng.integers(1, 6)))]
    text = pick(rng, " ", "", " + ").join(pieces)
    text = pick(rng, f"y0 ~ {text}", f"y0 + y1 ~ a + {text}", text, f"~ {text}")
    frame = pd.DataFrame(rng.normal(size=(9, 4)), columns=["a", "b", "y0", "y1"]).assign(c=list("uvwuvwuvw"))
    before = frame.copy(deep=True)
    try:
        x_of(System.from_frame(frame, {"y0": text} if text.startswith("~") else text))
    finally:
        require(frame.equals(before), f"{text!r} changed the frame")
