"""Penalties by name, of the columns of a design."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import numpy as np
import pytest

from lrgls_dask.design.design import Design
from lrgls_dask.design.penalties import column_penalties, penalises, said_of


def design(*terms: tuple[Hashable, ...], columns: list[list[int]], regressors: tuple[Hashable, ...]) -> Design:
    names = tuple(f"y{j}" for j in range(len(terms)))
    return Design(names, regressors, tuple(np.array(own) for own in columns), terms)


APART = design(("one", "x"), ("one", "x"), columns=[[0, 1], [0, 2]], regressors=("one", "x[y0]", "x[y1]"))
SAME = design(("one", "x"), ("one", "z"), columns=[[0, 1], [0, 1]], regressors=("one", "x"))
OTHER = design((1, ("a", 2)), columns=[[0, 1]], regressors=(1, ("a", 2)))


@pytest.mark.parametrize(
    ("of", "given", "expected"),
    [
        (APART, 2, [2.0, 2.0, 2.0]),
        (APART, {}, [0.0, 0.0, 0.0]),
        (APART, {"x": 3}, [0.0, 3.0, 3.0]),
        (APART, {"x[y1]": 3.0, "one": 1.0}, [1.0, 0.0, 3.0]),
        (APART, {"x": 3.0, "x[y1]": 0.0}, [0.0, 3.0, 0.0]),
        (SAME, {"x": 3.0, "z": 3.0}, [0.0, 3.0]),
        (OTHER, {("a", 2): 3.0}, [0.0, 3.0]),
        (OTHER, {"1": 2.0, "('a', 2)": 3.0}, [2.0, 3.0]),
    ],
)
def test_names_are_those_of_coefficients_or_of_columns(of: Design, given: Any, expected: list[float]) -> None:
    np.testing.assert_array_equal(column_penalties(of, given), expected)


@pytest.mark.parametrize(
    ("of", "given", "message"),
    [
        (APART, {"on": 1.0}, "lam_B: no equation has a regressor 'on'; did you mean 'one'? Name regressors as the"),
        (OTHER, {2: 1.0}, "lam_B: no equation has a regressor 2"),
        (design(("x",), ("z",), columns=[[0], [0]], regressors=("w",)), {"x": 3.0}, "'x' and 'z' are one column in"),
    ],
)
def test_what_names_nothing_or_one_column_twice_is_refused(of: Design, given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        column_penalties(of, given)


def test_what_is_said_of_a_penalty() -> None:
    given = (0.0, 2.0, {}, {"x": 0.0}, {"x": 0.0, "z": 1.0})
    assert [penalises(each) for each in given] == [False, True, False, False, True]
    assert [said_of(each) for each in (0.0, 2.5, {}, {"x": 1.0})] == ["0", "2.5", "{}", "{'x': 1}"]
    assert said_of(dict.fromkeys("abcde", 1.0)) == "{'a': 1, 'b': 1, 'c': 1, ... (5 in all)}"
