"""Model matrices are formulaic's to the last bit, however rows are cut; formulas of every shape; what they refuse."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import dask.dataframe as dd
import formulaic
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrgls_dask import System
from support.frames import mixed, x_of, y_of

FRAME = mixed()
RIGHT = [
    "x * s",
    "s:x + np.log(z)",
    "center(x) * s + scale(z)",
    "poly(x, 3)",
    "bs(z, df=5) + cr(x, df=4) + cc(x, df=4)",
    "C(i) * x",
    "C(i, contr.helmert)",
    "C(s, contr.sum):x + standardize(z)",
    "x:z + i * x + {i**2}",
    "b * x + k:z",
    "f + f:x + log(f**2)",
    "C(day) + {x > 0} * s",
    "0 + s:i + C(i // 3)",
    "np.sin(x) + np.exp(-z) + np.log1p(z) + np.tanh(x) + {z**0.7} + log(`my col`**2) + `my col`",
    "C(s, Treatment('v')) + C(s, levels=['w', 'v', 'u']):x",
    "scale(center(x) * z)",
]


@pytest.mark.parametrize("right", RIGHT)
@pytest.mark.parametrize("pieces", [0, 1, 7])
def test_columns_are_those_of_formulaic_on_the_whole_frame_to_the_last_bit(right: str, pieces: int) -> None:
    expected = formulaic.model_matrix(right, FRAME)
    system = System.from_frame(dd.from_pandas(FRAME, npartitions=pieces) if pieces else FRAME, f"y ~ {right}")
    assert system.regressors == tuple(expected.columns)
    np.testing.assert_array_equal(x_of(system), expected.to_numpy(float))
    np.testing.assert_array_equal(y_of(system)[:, 0], FRAME["y"])


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 100), max_size=6, unique=True))
def test_no_cut_of_the_rows_is_seen(cuts: list[int]) -> None:
    """Partitions of one row, and without some of the levels, included."""
    edges = sorted({0, *cuts, 101})
    parts = [FRAME.iloc[a:b] for a, b in pairwise(edges)]
    system = System.from_frame(
        dd.concat([dd.from_pandas(each, npartitions=1) for each in parts]), "y ~ s*center(x)+C(i)"
    )
    np.testing.assert_array_equal(x_of(system), formulaic.model_matrix("s*center(x)+C(i)", FRAME).to_numpy(float))


def test_columns_of_equal_name_are_stored_once() -> None:
    system = System.from_frame(FRAME, {"y": "~ x + s", "other": "y2 ~ s + np.log(z)"})
    assert system.equations == ("y", "other")
    assert system.regressors == ("Intercept", "x", "s[T.v]", "s[T.w]", "np.log(z)")
    assert system.design.terms[1] == ("Intercept", "s[T.v]", "s[T.w]", "np.log(z)")
    assert x_of(system).shape == (101, 5)


def test_the_coding_of_a_category_depends_on_its_own_formula() -> None:
    """Without a constant it has all levels; with one it lacks the first: other columns, by other names."""
    system = System.from_frame(FRAME, ["y ~ s", "y2 ~ 0 + s"])
    assert system.regressors == ("Intercept", "s[T.v]", "s[T.w]", "s[u]", "s[v]", "s[w]")


SHAPES: list[tuple[Any, list[str], list[str]]] = [
    ("y + y2 ~ x", ["y", "y2"], ["Intercept", "x"]),
    ("{y*} ~ x", ["y", "y2"], ["Intercept", "x"]),
    ("{*2} ~ {[xz]*} - z", ["y2"], ["Intercept", "x"]),
    ("y ~ {x * z}", ["y"], ["Intercept", "x * z"]),
    (["y ~ x", "y2 ~ 0 + z"], ["y", "y2"], ["Intercept", "x", "z"]),
    ({"y2": "x", "y": "~ z", "k": "log(z) ~ x"}, ["y2", "y", "k"], ["Intercept", "x", "z"]),
    ("`my col` + log(z) ~ x", ["my col", "log(z)"], ["Intercept", "x"]),
    ("y ~ .", ["y"], ["Intercept", "y2", "x"]),
]


@pytest.mark.parametrize(("formulas", "equations", "regressors"), SHAPES)
def test_formulas_come_in_these_shapes(formulas: Any, equations: list[str], regressors: list[str]) -> None:
    frame = FRAME[["y", "y2", "x"]] if formulas == "y ~ ." else FRAME
    system = System.from_frame(frame, formulas)
    assert list(system.equations) == equations
    assert list(system.regressors) == regressors


def test_a_dot_is_every_column_that_is_neither_label_nor_weight_nor_group() -> None:
    frame = FRAME[["y", "x", "z", "i", "s"]].rename_axis("row").assign(w=1.0, t=range(101))
    system = System.from_frame(frame, "y ~ .", obs="t", weights="w", groups="s")
    assert system.regressors == ("Intercept", "x", "z", "i")


def test_levels_are_those_given_or_those_of_the_dtype() -> None:
    given_levels = System.from_frame(FRAME, "y ~ s", levels={"s": ["w", "u", "v", "more"]})
    assert given_levels.regressors == ("Intercept", "s[T.u]", "s[T.v]", "s[T.more]")
    numbers = System.from_frame(FRAME, "y ~ C(i)", levels={"i": range(12)})
    assert numbers.n_regressors == 12
    of_dtype = System.from_frame(FRAME.assign(k=FRAME["k"].cat.add_categories(["c"])), "y ~ k")
    assert of_dtype.regressors == ("Intercept", "k[T.a]", "k[T.c]")


MISSING = mixed().assign(whole=FRAME["i"].astype("Int64"))
MISSING.loc[3, "s"] = None
MISSING.loc[5, "x"] = np.nan
MISSING.loc[9, "whole"] = pd.NA
MISSING.loc[11, "y"] = np.nan


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("right", "lost"),
    [
        ("s * z", {3}),
        ("C(s)", {3}),
        ("C(whole)", {9}),
        ("C(whole // 2) + x", {5, 9}),
        ("{x > 0}", {5}),
        ("C(x > 0)", {5}),
        ("{s == 'u'}", {3}),
        ("np.where(np.isnan(x), 0, x)", set()),
        ("center(x) + poly(x, 2)", {5}),
        ("whole:z", {9}),
    ],
)
def test_what_a_regressor_lacks_is_no_other_value(right: str, lost: set[int], chunked: bool) -> None:
    """Of a category a missing value is not the base, of a comparison not a no; states are of what is there."""
    frame = dd.from_pandas(MISSING, npartitions=4) if chunked else MISSING
    system = System.from_frame(frame, f"y ~ {right}")
    assert system.obs is not None
    assert set(range(101)) - set(system.obs) == lost | {11}
    assert np.isfinite(x_of(system)).all()


def test_states_come_from_the_rows_that_have_a_value() -> None:
    system = System.from_frame(MISSING, "y2 ~ scale(x)")
    np.testing.assert_allclose(x_of(system)[:, 1], (MISSING["x"].dropna() - MISSING["x"].mean()) / MISSING["x"].std())


BAD: list[tuple[Any, type[Exception], str]] = [
    ("y ~ q", ValueError, "no column 'q'"),
    ("y ~ my_col", ValueError, "did you mean 'my col'"),
    ("y ~ x + y", ValueError, "'y' is a regressor too, in 'y'"),
    ("y + y2 ~ x + y2", ValueError, "'y2' is a regressor too"),
    ("y ~ log(y)", ValueError, "too, in 'log\\(y\\)'"),
    ("y ~ 0", ValueError, "'y ~ 0' gives no column"),
    ("~ x", ValueError, "has no response"),
    ("x", ValueError, "has no response"),
    ("", ValueError, "has no response"),
    (5, TypeError, "a formula is a int"),
    ({}, ValueError, "names no equation"),
    ({"k2": "~ x"}, ValueError, "'k2', and the frame has none; did you mean 'k'"),
    ({"y": "y + y2 ~ x"}, ValueError, "has 2 responses"),
    ({"y": 5}, TypeError, r"formulas\['y'\] is a int"),
    ("y ~ x | z", ValueError, "set apart by"),
    ("y ~ (x", ValueError, "cannot be read"),
    ("y ~ 'u'", ValueError, "cannot be read"),
    ("{w*} ~ x", ValueError, r"matches \{w\*\}"),
    ("y ~ day", TypeError, "'day' holds dates"),
    ("s ~ x", TypeError, "response 's' must be a number"),
    ("C(i) ~ x", ValueError, "'C\\(i\\)' is a category"),
    ("y:y2 ~ x", ValueError, "'y:y2' must be a column"),
    ("poly(y, 2) ~ x", ValueError, r"one column of numbers, but 'poly\(y, 2\)'"),
    ("y ~ log(s)", TypeError, "calculates with column 's'"),
    ("y ~ offset(x)", ValueError, "is an offset"),
    ("y ~ x.mean()", ValueError, "the method 'mean'"),
    ("y ~ np.cumsum(x)", ValueError, "calls np.cumsum"),
    ("y ~ foo(x)", ValueError, "calls 'foo'"),
    ("y ~ x[0]", ValueError, "Subscript"),
    ("y ~ I(x.__class__)", ValueError, "asks a column for '__class__'"),
    ("y ~ I((lambda: x)())", ValueError, "no function|cannot be read"),
    ("y ~ I(1)", ValueError, "reads no column"),
    ("y ~ Q('my col')", ValueError, "backticks"),
    ("y ~ log(C(i))", ValueError, "calculates with a category"),
    ("y ~ C(s, levels=z)", ValueError, "levels in .* must be a list"),
    ("y ~ C(s, levels=['u', 'v'])", ValueError, "holds 'w', first at row"),
    ("y ~ bs(x, df=1)", ValueError, "cannot be evaluated"),
    ("y ~ lag(x, 0)", ValueError, "a whole number but 0"),
    ("y ~ lag(x, z)", ValueError, "a whole number but 0"),
    ("y ~ center(lag(x, 1))", ValueError, r"Write lag\(center"),
]


@pytest.mark.parametrize(("formulas", "kind", "says"), BAD, ids=lambda value: str(value)[:30])
def test_bad_formulas_are_refused_by_name(formulas: Any, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        System.from_frame(FRAME, formulas)


def test_texts_and_large_numbers_are_no_fault_where_they_belong() -> None:
    frame = FRAME.assign(x=np.arange(len(FRAME)) + 2000.0)
    made = System.from_frame(frame, "y ~ I((s == 'u') * x) + bs(x, df=4, lower_bound=1990, upper_bound=3000)")
    np.testing.assert_array_equal(x_of(made)[:, 1], np.where(frame["s"] == "u", frame["x"], 0.0))


def test_a_formula_cannot_run_code() -> None:
    for text in ["y ~ I(__import__('os').getpid() + x)", "y ~ np.load('f') + x", "y ~ np.ctypeslib.load(x)"]:
        with pytest.raises(ValueError, match=r"calls|asks|cannot be read"):
            System.from_frame(FRAME, text)


@pytest.mark.parametrize(
    ("levels", "kind", "says"),
    [
        ({"s": ["u", "v"]}, ValueError, "column 's' holds 'w', first at row"),
        ({"x": [1, 2]}, ValueError, "'x', which is no category"),
        ({"s": "uvw"}, TypeError, "levels must map"),
        (["u"], TypeError, "levels must map"),
    ],
)
def test_bad_levels_are_refused_by_name(levels: Any, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        System.from_frame(FRAME, "y ~ s + x", levels=levels)
