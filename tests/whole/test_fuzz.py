"""A few hundred random cases against dense answers; many more by `python -m tests.fuzz`, and what was found, kept."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fuzz.campaign import KINDS, outcome
from fuzz.judge import Finding, judged
from lrgls_dask import LowRankGLS, System

CASES = {"arrays": 10, "frames": 20, "formulas": 100, "stores": 40, "checkpoints": 12, "restrictions": 60}


@pytest.mark.parametrize("kind", KINDS)
def test_random_cases_are_right_or_refused_in_words(kind: str) -> None:
    ends = [outcome(kind, seed) for seed in range(CASES[kind])]
    assert [end for end in ends if end not in ("right", "refused")] == []
    assert ends.count("right") > len(ends) / 20


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_random_cases(kind: str) -> None:
    found = {seed: end for seed in range(1000, 6000) if (end := outcome(kind, seed)) not in ("right", "refused")}
    assert found == {}


def test_a_wrong_answer_and_an_error_from_inside_are_found() -> None:
    def wrong() -> None:
        raise Finding("wrong: of course")

    for case, says in ((wrong, "of course"), (lambda: {}["key"], "KeyError"), (lambda: np.sqrt(-np.ones(1)), "warned")):
        with pytest.raises(Finding, match=says):
            judged(case)
    assert judged(lambda: LowRankGLS("many")) == "refused"  # type: ignore[arg-type]


FRAME = pd.DataFrame(np.random.default_rng(0).gamma(2, size=(9, 4)), columns=["y", "x", "1", "."])


@pytest.mark.parametrize(
    ("right", "says"),
    [
        ("x + `1`", "called '1' is read as the number"),
        ("`.` + x", "called '.' is read as the '.'"),
        ("np.log(x, y)", "gives np.log more than the 1"),
        ("np.log(x, out=y)", "gives np.log more than the 1"),
        ("np.divide(x, y, where=x > 1)", "gives np.divide more than the 2"),
        ("I(x * 9**9**9**9)", "may have no end"),
        ("I(x == 'a' * 10**12)", "calculates with a text"),
        ("bs(x, df=10**9)", "asks for 10 \\*\\* 9 columns"),
        ("I(__import__('os').system('true'))", "calls"),
        ("np.exp(`x\\`) + np.abs(`x\\`)", "ends with a backslash"),
        ("x + {1 ~ ]", "cannot be read|has parts"),
    ],
)
def test_formulas_calculate_with_columns_and_do_nothing_else(right: str, says: str) -> None:
    before = FRAME.copy(deep=True)
    with pytest.raises(ValueError, match=says) as error:
        System.from_frame(FRAME, f"y ~ {right}")
    assert re.search("formula", str(error.value))
    assert FRAME.equals(before)


def test_halves_of_characters_are_no_labels() -> None:
    labels: Any = ["a", "\ud800"]
    with pytest.raises(ValueError, match="equations must be text that can be written"):
        System.from_arrays(np.zeros((5, 2)), np.ones((5, 1)), equations=labels)


def test_what_random_cases_found() -> None:
    """A restriction across units that are so far apart that a weight is no number."""
    assert outcome("arrays", 20243) in ("right", "refused")


def test_restrictions_far_from_the_data_are_named() -> None:
    rng = np.random.default_rng(2)
    Y = rng.normal(size=(26, 3)) * [1e9, 3e4, 1e-9]
    X = [np.column_stack([np.ones(26), rng.normal(size=26)]), np.ones((26, 1)), np.ones((26, 1))]
    held = np.eye(4)[[3, 2]], np.ones(2)
    assert judged(lambda: LowRankGLS(1, sigma_step="pca", restrictions=held).fit(System.from_arrays(Y, X))) in (
        "right",
        "refused",
    )


FOUND = [("checkpoints", seed) for seed in (112, 257, 7300276, 7300815)] + [("arrays", 20190)]


@pytest.mark.parametrize(("kind", "seed"), FOUND)
def test_what_was_found_is_right_or_refused(kind: str, seed: int) -> None:
    """Marks of a loop that are lists, metadata of another format; and scales too far apart for the dense answer."""
    assert outcome(kind, seed) in ("right", "refused")
