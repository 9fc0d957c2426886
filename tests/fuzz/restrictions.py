"""Restrictions in words: random sums, chains and wildcards against matrices made by hand; words without meaning."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from fuzz.arrays import pick
from fuzz.judge import Finding, require
from lrgls_dask import LowRankGLS, System
from lrgls_dask.design.hypotheses import read_hypotheses

EQUATIONS = ("food", "e1", "a b", "a:b", "*", "=", "1", "it's", 'say "no"', "日本", "x.y", "-", "2*e", "a,b")
REGRESSORS = ("price", "const", "x1", "x (lag 1)", "1e5", "-x", "a+b", "`", "smb", "a=b", "α", " ")
NUMBERS = (("1", 1.0), ("2", 2.0), (".5", 0.5), ("3.", 3.0), ("1e-1", 0.1), ("25E1", 250.0))


@dataclass(frozen=True)
class Names:
    """Which equation has which regressor, and where its coefficient stands."""

    equations: list[str]
    regressors: list[str]
    incidence: np.ndarray

    @property
    def size(self) -> int:
        return int(self.incidence.sum())

    def place(self, j: int, c: int) -> int:
        """Coefficients are ordered by equation."""
        return int(self.incidence[:, :j].sum() + self.incidence[:c, j].sum())


Line = tuple[np.ndarray, float]  # of R and r


def run(rng: np.random.Generator) -> None:
    """Words that mean a matrix give it, and a fit under it; words that mean none are refused by what is wrong."""
    names = drawn(rng)
    X, Y = rng.normal(size=(40, len(names.regressors))), rng.normal(size=(40, len(names.equations)))
    system = System.from_arrays(Y, X, incidence=names.incidence, equations=names.equations, regressors=names.regressors)
    if rng.random() < 0.3:
        refused(rng, names, system)
        return
    made = [statement(rng, names) for _ in range(int(rng.integers(1, 4)))]
    lines = [line for _, part in made for line in part]
    told = [text for text, _ in made]
    given: Any = told if rng.random() < 0.5 else str(pick(rng, ", ", "; ", "\n", ",\n ")).join(told)
    R, r = np.array([row for row, _ in lines]).reshape(-1, names.size), np.array([value for _, value in lines])
    follows = not len(R) or np.linalg.matrix_rank(R) < len(R)
    try:
        found = read_hypotheses(system.design, given)
    except ValueError as error:
        if not follows:
            raise Finding(f"wrong: {given!r} of {names} is refused: {error}") from error
        raise
    require(not follows, f"{given!r} of {names} is taken, where one restriction follows from others")
    ours, theirs = np.column_stack([R, r]), np.column_stack([found.matrix, found.values])
    both = np.linalg.matrix_rank(np.vstack([ours, theirs]))
    require(both == len(ours) == len(theirs), f"{given!r} of {names} is {theirs.tolist()}")
    if rng.random() < 0.3:
        words, matrix = (LowRankGLS(0, restrictions=each).fit(system).result_ for each in (given, (R, r)))
        b = words.params.values
        require(np.allclose(R @ b, r, rtol=1e-9, atol=1e-9 * np.abs(R).max()), f"{given!r} does not hold")
        require(np.allclose(b, matrix.params.values, rtol=1e-6, atol=1e-8), f"{given!r} gives another fit")


def drawn(rng: np.random.Generator) -> Names:
    K, q = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    incidence = rng.random((q, K)) < 0.7
    incidence[rng.integers(q, size=K), np.arange(K)] = True
    incidence[np.arange(q), rng.integers(K, size=q)] = True
    return Names(
        [EQUATIONS[i] for i in rng.permutation(len(EQUATIONS))[:K]],
        [REGRESSORS[i] for i in rng.permutation(len(REGRESSORS))[:q]],
        incidence,
    )


def quoted(rng: np.random.Generator, label: str) -> str:
    """In quotes, of any kind, or as it is where it may be."""
    if label.replace(".", "_").isidentifier() and rng.random() < 0.7:
        return label
    quote = str(pick(rng, '"', "'", "`"))
    return quote + label.replace(quote, 2 * quote) + quote


def named(rng: np.random.Generator, names: Names, j: int, c: int) -> str:
    regressor = quoted(rng, names.regressors[c])
    if len(names.equations) == 1 and rng.random() < 0.3:
        return regressor
    return quoted(rng, names.equations[j]) + str(pick(rng, ":", ":", " : ")) + regressor


def weighed(rng: np.random.Generator, text: str) -> tuple[str, float]:
    """A coefficient times, or divided by, a number."""
    number, value = NUMBERS[rng.integers(len(NUMBERS))]
    kind = rng.integers(4)
    if kind == 0:
        return f"{number}*{text}", value
    if kind == 1:
        return f"{text} / {number}", 1.0 / value
    if kind == 2:
        return f"{text} * {number}", value
    return text, 1.0


def side(rng: np.random.Generator, names: Names) -> tuple[str, np.ndarray, float]:
    """A sum of coefficients and numbers: its words, its weights, its constant."""
    text, row, constant = "", np.zeros(names.size), 0.0
    for i in range(int(rng.integers(1, 4))):
        sign = -1.0 if rng.random() < 0.4 else 1.0
        if i and rng.random() < 0.2:
            word, value = NUMBERS[rng.integers(len(NUMBERS))]
            constant += sign * value
        else:
            c, j = (int(each) for each in pick(rng, *np.argwhere(names.incidence)))
            word, weight = weighed(rng, named(rng, names, j, c))
            row[names.place(j, c)] += sign * weight
        text += (" - " if sign < 0 else " + " if i else "") + word
    return text, row, constant


def statement(rng: np.random.Generator, names: Names) -> tuple[str, list[Line]]:
    """One statement and its lines of R and r."""
    if rng.random() < 0.3:
        return wild(rng, names)
    sides = [side(rng, names) for _ in range(1 if rng.random() < 0.2 else int(rng.integers(1, 4)))]
    text = str(pick(rng, " = ", "=", " == ")).join(words for words, _, _ in sides)
    if len(sides) == 1:
        (words, row, constant) = sides[0]
        if rng.random() < 0.5:
            return words, [(row, -constant)]
        number, value = NUMBERS[rng.integers(len(NUMBERS))]
        return f"{words} = {number}", [(row, value - constant)]
    pairs = pairwise(sides)
    return text, [(left[1] - right[1], right[2] - left[2]) for left, right in pairs]


def wild(rng: np.random.Generator, names: Names) -> tuple[str, list[Line]]:
    """In every equation that has a regressor, or every coefficient of an equation, the same as a number or another."""
    c, j = (int(each) for each in pick(rng, *np.argwhere(names.incidence)))
    if rng.random() < 0.5:
        text = f"*:{quoted(rng, names.regressors[c])}"
        places = [names.place(i, c) for i in np.flatnonzero(names.incidence[c])]
    else:
        text = f"{quoted(rng, names.equations[j])}:*"
        places = [names.place(j, i) for i in np.flatnonzero(names.incidence[:, j])]
    if rng.random() < 0.5:
        number, value = NUMBERS[rng.integers(len(NUMBERS))]
        return f"{text} = {number}", [(np.eye(names.size)[place], value) for place in places]
    other = names.place(j, c)
    rows = [np.eye(names.size)[place] - np.eye(names.size)[other] for place in places if place != other]
    words = f"{quoted(rng, names.equations[j])}:{quoted(rng, names.regressors[c])}"
    return f"{text} = {words}", [(row, 0.0) for row in rows]


def refused(rng: np.random.Generator, names: Names, system: System) -> None:
    """Words that mean nothing, and what of them the message has to show."""
    c, j = (int(each) for each in pick(rng, *np.argwhere(names.incidence)))
    good = f"{quoted(rng, names.equations[j])}:{quoted(rng, names.regressors[c])}"
    bad: list[tuple[str, str]] = [
        (f"nobody:{quoted(rng, names.regressors[c])} = 0", "nobody"),
        (f"{quoted(rng, names.equations[j])}:nothing = 0", "nothing"),
        ("*:nothing = 0", "nothing"),
        (f"({good}) = 0", "parentheses"),
        (f"{good} < 1", "equality"),
        (f"{good} ^ 2 = 1", "linear"),
        (f'{good} = "open', "not closed"),
        (f"{good} * {good} = 1", good),
        (f"1 / {good} = 1", good),
        (f"{good} / 0 = 1", good),
        (f"{good} = = 1", good),
        (f"{good} +", good),
        (f"{good} {good}", good),
        ("1 = 0", "names no coefficient"),
        (f"{good} - {good} = 0", good),
        (f"{good} = 1, {good} = 2", "contradicts"),
        (f"{good} = 1e999", "1e999"),
        ("", ""),
        ("=", "="),
        (f"{good} = 0 = 1", good),
    ]
    absent = np.argwhere(~names.incidence)
    if len(absent):
        c, j = (int(each) for each in pick(rng, *absent))
        bad.append((f"{quoted(rng, names.equations[j])}:{quoted(rng, names.regressors[c])} = 0", names.regressors[c]))
    text, shows = bad[rng.integers(len(bad))]
    try:
        found = read_hypotheses(system.design, text)
    except ValueError as error:
        require(shows.strip("\"'`") in str(error) or shows in str(error), f"{text!r} is refused by {error}")
        raise
    raise Finding(f"wrong: {text!r} of {names} is taken for {found.matrix.tolist()} = {found.values}")
