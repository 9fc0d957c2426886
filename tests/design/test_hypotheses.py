"""Hypotheses as users write them, the rows they mean, and the place an error points at."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrgls_dask.design.design import Design
from lrgls_dask.design.hypotheses import read_hypotheses
from lrgls_dask.design.restrictions import Restrictions

TERMS = (
    ("const", "smb", "price"),
    ("const", "price", "income"),
    ("const", "x (lag 1)", "smb"),
    (1, "1", ("a", 2)),
)
COLUMNS = tuple(np.arange(3 * j, 3 * j + 3) for j in range(4))
DESIGN = Design(("Telcm", "food", "my eq", 3), tuple(range(12)), COLUMNS, TERMS)
PLACES = {(e, t): 3 * j + i for j, e in enumerate(DESIGN.equations) for i, t in enumerate(TERMS[j])}
ALONE = Design(("y",), ("const", "smb"), (np.arange(2),), (("const", "smb"),))

Cells = dict[tuple[Any, Any], float]


def rows(*cells: Cells) -> np.ndarray:
    made = np.zeros((len(cells), 12))
    for row, weights in zip(made, cells, strict=True):
        for name, weight in weights.items():
            row[PLACES[name]] = weight
    return made


T_SMB, F_PRICE, T_CONST, F_CONST = ("Telcm", "smb"), ("food", "price"), ("Telcm", "const"), ("food", "const")
M_SMB, M_CONST, M_LAG = ("my eq", "smb"), ("my eq", "const"), ("my eq", "x (lag 1)")


@pytest.mark.parametrize(
    ("text", "cells", "values"),
    [
        ("Telcm:smb = 0", [{T_SMB: 1}], [0]),
        ("Telcm:smb", [{T_SMB: 1}], [0]),
        ("Telcm:smb, food:price", [{T_SMB: 1}, {F_PRICE: 1}], [0, 0]),
        ("Telcm : smb=1 ;food:price == -2.5e-1\n my\t", None, None),
        ("food:price + food:income = 1", [{F_PRICE: 1, ("food", "income"): 1}], [1]),
        ("2*Telcm:smb - 0.5*food:price = food:const", [{T_SMB: 2, F_PRICE: -0.5, F_CONST: -1}], [0]),
        ("Telcm:smb*3/2 + 1 - 2 = 4*.5 - -food:price", [{T_SMB: 1.5, F_PRICE: -1}], [3]),
        ("1 = 2 Telcm:smb", [{T_SMB: -2}], [-1]),
        ("Telcm:smb + Telcm:smb = food:price", [{T_SMB: 2, F_PRICE: -1}], [0]),
        ("Telcm:smb = food:price = 3", [{T_SMB: 1, F_PRICE: -1}, {F_PRICE: 1}], [0, 3]),
        ("*:smb = 0", [{T_SMB: 1}, {M_SMB: 1}], [0, 0]),
        ("2 *:smb = 1", [{T_SMB: 2}, {M_SMB: 2}], [1, 1]),
        ("-2**:smb + 1", [{T_SMB: -2}, {M_SMB: -2}], [-1, -1]),
        ("*:smb = Telcm:smb", [{M_SMB: 1, T_SMB: -1}], [0]),
        ("*:smb - *:const = 0", [{T_SMB: 1, T_CONST: -1}, {M_SMB: 1, M_CONST: -1}], [0, 0]),
        ("food:* = 2", [{F_CONST: 1}, {F_PRICE: 1}, {("food", "income"): 1}], [2, 2, 2]),
        ("`my eq`:\"x (lag 1)\" = 'my eq':smb", [{M_LAG: 1, M_SMB: -1}], [0]),
        ("3:1 = 0, 3:'1' = 1, '3':\"('a', 2)\" = 2", [{(3, 1): 1}, {(3, "1"): 1}, {(3, ("a", 2)): 1}], [0, 1, 2]),
    ],
)  # fmt: skip
def test_what_texts_mean(text: str, cells: list[Cells] | None, values: list[float] | None) -> None:
    if cells is None or values is None:  # all separators and spellings of equality at once
        text, cells, values = text.removesuffix(" my\t"), [{T_SMB: 1}, {F_PRICE: 1}], [1, -0.25]
    made = read_hypotheses(DESIGN, text)
    np.testing.assert_array_equal(made.matrix, rows(*cells))
    np.testing.assert_array_equal(made.values, values)
    assert made.n_restrictions == len(values) == len(made.texts)


def test_every_form_gives_the_same_rows() -> None:
    expected = read_hypotheses(DESIGN, "Telcm:smb = 1, food:price = 2")
    R, r = expected.matrix, expected.values
    for form in (
        ["Telcm:smb = 1", "food:price = 2"],
        ("Telcm:smb = 1", "food:price = 2"),
        {"Telcm:smb": 1, "food:price": 2.0},
        {T_SMB: 1, F_PRICE: 2},
        (R, r),
        (R.tolist(), r.tolist()),
        expected,
    ):
        made = read_hypotheses(DESIGN, form)
        np.testing.assert_array_equal(made.matrix, R)
        np.testing.assert_array_equal(made.values, r)
        assert made.texts == expected.texts
    for form in (R, R.tolist()):
        made = read_hypotheses(DESIGN, form)
        np.testing.assert_array_equal(made.matrix, R)
        np.testing.assert_array_equal(made.values, [0, 0])
    one = read_hypotheses(DESIGN, R[0])
    assert one.texts == ("Telcm:smb = 0",)
    assert read_hypotheses(DESIGN, {"Telcm:smb - 1": 2}).values.tolist() == [3]
    assert read_hypotheses(DESIGN, np.arange(1, 13)).texts == ("row 0 of R",)
    assert read_hypotheses(ALONE, "smb = 2").matrix.tolist() == [[0, 1]]


def test_texts_name_each_row() -> None:
    assert read_hypotheses(DESIGN, "Telcm:smb=food:price").texts == ("Telcm:smb=food:price",)
    assert read_hypotheses(DESIGN, "*:smb = Telcm:smb").texts == ('-Telcm:smb + "my eq":smb = 0',)
    assert read_hypotheses(DESIGN, "food:price").texts == ("food:price = 0",)
    chain = read_hypotheses(DESIGN, "2*Telcm:smb = food:price = 1.5").texts
    assert chain == ("2*Telcm:smb - food:price = 0", "food:price = 1.5")
    assert read_hypotheses(DESIGN, "3:* = 0").texts == ("3:1 = 0", '3:"1" = 0', "3:\"('a', 2)\" = 0")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(PLACES, key=str)), st.floats(-1e3, 1e3).filter(lambda w: abs(w) > 1e-3)),
        min_size=1, max_size=6, unique_by=lambda pair: str(pair[0]),
    ),
    st.floats(-1e3, 1e3),
)  # fmt: skip
def test_a_row_written_out_is_read_back(cells: list[tuple[tuple[Any, Any], float]], value: float) -> None:
    weights = {name: float(f"{weight:.10g}") for name, weight in cells}
    R, r = rows(weights), np.array([float(f"{value:.10g}")])
    first = read_hypotheses(DESIGN, (R, r))
    again = read_hypotheses(DESIGN, first.texts)
    np.testing.assert_array_equal(again.matrix, R)
    np.testing.assert_array_equal(again.values, r)


# ---------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("text", "message", "marked"),
    [
        ("food:price=0, Telcm:smbb = 0", "no regressor 'smbb' in equation 'Telcm'; did you mean 'smb'?", "smbb"),
        ("Telcom:smb = 0", "no equation 'Telcom'; did you mean 'Telcm'?", "Telcom"),
        ("smb:Telcm = 0", "no equation 'smb'; the equation comes first.", "smb"),
        ("food:const = smb", "'smb' stands without an equation: write 'Telcm:smb', or '*:smb'", "smb"),
        ("*:smbb", "no equation has a regressor 'smbb'; did you mean 'smb'?", "smbb"),
        ("*:smb = *:price", "no regressor 'price' in equation 'my eq'", "price"),
        ("food:* = Telcm:*", "equation 'Telcm' has no regressor 'income' to stand beside that of 'food'", "Telcm:*"),
        ("*:smb = food:*", "one statement takes one kind of wildcard", "food:*"),
        ("Telcm:smb * food:price = 1", "hypotheses must be linear: no products or ratios", "food"),
        ("1 / Telcm:smb = 1", "hypotheses must be linear: no products or ratios", "Telcm"),
        ("Telcm:smb ** 2", "a number, belongs here; found '*'", "*"),
        ("Telcm:smb^2", "hypotheses must be linear in the coefficients", "^"),
        ("2*(Telcm:smb)", "parentheses are not understood", "("),
        ("Telcm:smb >= 0", "only equality can be tested: use '='", ">"),
        ("my eq:smb = 0", "'eq' does not continue a sum; put labels with spaces or signs in quotes", "eq"),
        ("Telcm:smb 2", "'2' does not continue a sum", "2"),
        ("`my eq:smb = 0", "this quote is not closed", "`"),
        ("Telcm:smb = 0 & food:price", "'&' belongs to no label; put labels in quotes", "&"),
        ("Telcm:smb = 1e999", "1e999 is too large a number", "1e999"),
        ("Telcm:smb / 0", "division by zero", "0"),
        ("Telcm: = 0", "a regressor belongs after 'Telcm:'", "="),
        ("Telcm:smb = 0,, food:price", "belongs here; found ','", ","),
        ("Telcm:smb =", "belongs here; the text ends", None),
        ("", "belongs here; the text ends", None),
        ("1 = 2", "this names no coefficient", "1 = 2"),
        ("food:price, Telcm:smb = Telcm:smb", "no coefficient is left in 'Telcm:smb = Telcm:smb'", "T"),
        ("food:const = 0\nfood:prise = 0", "no regressor 'prise' in equation 'food'; did you mean 'price'?", "prise"),
    ],
)  # fmt: skip
def test_errors_point_at_the_place(text: str, message: str, marked: str | None) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_hypotheses(DESIGN, text)
    _, line, carets = str(caught.value).rsplit("\n", 2)
    assert line[2:] in text.split("\n")
    found = line[carets.index("^") : carets.rindex("^") + 1]
    assert found == (marked or "")


def test_labels_that_look_alike_are_not_guessed() -> None:
    design = Design((1, 1.5), ("a", "b"), (np.arange(2),) * 2, ((1, "1"), (("a",), "('a',)")))
    assert read_hypotheses(design, "1:1").matrix.tolist() == [[1, 0, 0, 0]]
    assert read_hypotheses(design, '"1.5":"(\'a\',)"').matrix.tolist() == [[0, 0, 0, 1]]
    twice = Design(("y",), ("a", "b"), (np.arange(2),), (((1, 2), _Likewise()),))
    with pytest.raises(ValueError, match=re.escape("'(1, 2)' may mean (1, 2) and <like>; use a matrix R")):
        read_hypotheses(twice, "y:'(1, 2)'")


class _Likewise:
    def __str__(self) -> str:
        return "(1, 2)"

    def __repr__(self) -> str:
        return "<like>"


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (3, TypeError, "the matrix R given is 3"),
        (None, TypeError, "the matrix R given is None"),
        ([[1, 2], [3]], TypeError, "the matrix R given is [[1, 2], [3]]"),
        (["Telcm:smb", 3], TypeError, "a mapping; the matrix R given is ['Telcm:smb', 3]"),
        (np.eye(7), ValueError, "each of the P = 12 coefficients, equation by equation; found shape (7, 7)"),
        (np.ones(7), ValueError, "each of the P = 12 coefficients, equation by equation; found shape (7,)"),
        ([], ValueError, "found shape (0,)"),
        (np.full((1, 12), np.nan), ValueError, "matrix R must be finite"),
        ((np.eye(12)[:2], [np.inf, 0]), ValueError, "right side r must be finite"),
        ((np.eye(12)[:2], [1, 2, 3]), ValueError, "each of the 2 rows of R; found shape (3,)"),
        ((np.eye(12)[:2], "one"), TypeError, "the right side r given is 'one'"),
        (np.zeros((2, 12)), ValueError, "row 0 of R is zero"),
        (np.eye(12)[:2].astype(str), TypeError, "the matrix R given is"),
        ({"Telcm:smb = 1": 1}, ValueError, "'Telcm:smb = 1' is a key of a mapping and holds '='"),
        ({"Telcm:smb": "one"}, TypeError, "the value of 'Telcm:smb' must be a number; got 'one'"),
        ({"Telcm:smb": np.nan}, ValueError, "the value of 'Telcm:smb' must be finite; got nan"),
        ({3: 1.0}, TypeError, "or pairs (equation, regressor); got 3"),
        ({("Telcom", "smb"): 0}, ValueError, "no equation 'Telcom'; did you mean 'Telcm'?"),
        ({("Telcm", "smbb"): 0}, ValueError, "no regressor 'smbb' in equation 'Telcm'; did you mean 'smb'?"),
        ({}, ValueError, "nothing is left of the hypotheses"),
        ("*:income = food:income", ValueError, "nothing is left of the hypotheses"),
    ],
)  # fmt: skip
def test_what_is_no_hypothesis(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        read_hypotheses(DESIGN, given)


def test_more_restrictions_than_memory_are_refused() -> None:
    wide = Design(("y",), tuple(range(20_001)), (np.arange(20_001),), (tuple(range(20_001)),))
    with pytest.raises(ValueError, match=r"20001 restrictions on 20001 coefficients would take 3\.2 GB"):
        read_hypotheses(wide, "y:*")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("Telcm:smb = 0, Telcm:smb = 0", "'Telcm:smb = 0' is redundant: it follows from 'Telcm:smb = 0'. Drop it."),
        ("Telcm:smb = 0, 2*Telcm:smb = 1", "'2*Telcm:smb = 1' contradicts 'Telcm:smb = 0'."),
        (
            "Telcm:const = food:const, food:price = 9, food:const = 3:1, 3:1 = Telcm:const",
            "'3:1 = Telcm:const' is redundant: it follows from 'Telcm:const = food:const' and 'food:const = 3:1'.",
        ),
        (
            "Telcm:const = food:const + 1, food:const = 3:1, 3:1 = Telcm:const",
            "'3:1 = Telcm:const' contradicts 'Telcm:const = food:const + 1' and 'food:const = 3:1'.",
        ),
        ("food:* = 0, food:price + food:income = 1", "'food:price + food:income = 1' contradicts 'food:price = 0' and"),
        (np.vstack([np.eye(12), np.ones(12)]), "'row 12 of R' is redundant"),
        ((np.vstack([np.eye(12), np.ones(12)]), np.ones(13)), "'row 12 of R' contradicts"),
    ],
)  # fmt: skip
def test_restrictions_that_are_not_independent_are_named(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read_hypotheses(DESIGN, given)


def test_nearly_dependent_rows_in_uneven_units_are_independent() -> None:
    made = read_hypotheses(DESIGN, "1e7*Telcm:smb - food:price = 0, Telcm:smb = 0")
    assert isinstance(made, Restrictions)
    assert np.linalg.matrix_rank(made.matrix / [[1e7], [1]], tol=1e-9) == 2
    assert math.isclose(made.matrix[0, PLACES[T_SMB]], 1e7)
