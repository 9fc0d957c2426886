"""Linear hypotheses about coefficients, written with the user's labels, as a matrix, or as a mapping."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp

from lrgls_dask.checks import closest
from lrgls_dask.design.design import Design
from lrgls_dask.design.hypothesis_syntax import Parser, Side, Term, Token, fail_at
from lrgls_dask.design.restrictions import DEPENDENT, MAX_ENTRIES, Restrictions, in_even_units

__all__ = ["check_open", "read_hypotheses"]

SHOWN_TERMS = 6  # a row of a matrix with more is named by its number

_PLAIN, _NUMERAL = re.compile(r"[\w.]+"), re.compile(r"[\d.]+")


def read_hypotheses(design: Design, given: Any) -> Restrictions:
    """R b = r for the coefficients of `design`, (m, P) and (m,), rows independent.

    given : a text or several, in the language of `hypothesis_syntax`; a matrix R (m, P) or one row (P,), then r = 0; a
    tuple (R, r); a mapping from texts without "=", or from (equation, regressor), to values; or Restrictions.
    Costs O(P m^2) where restrictions share coefficients.
    Raises ValueError with the place in the text for what cannot be read, and naming the restrictions that contradict
    or follow from each other; TypeError for what is none of the above.
    """
    if isinstance(given, Restrictions):
        rows = _rows_of_matrix(design, given.rows, given.values, given.texts)
    elif isinstance(given, str):
        rows = _read_texts(design, [given])
    elif isinstance(given, Mapping):
        rows = _from_mapping(design, given)
    elif isinstance(given, Sequence) and len(given) and all(isinstance(text, str) for text in given):
        rows = _read_texts(design, given)
    elif isinstance(given, tuple) and len(given) == 2:
        rows = _from_matrix(design, given[0], given[1])
    else:
        rows = _from_matrix(design, given, None)
    if not rows:
        raise ValueError("nothing is left of the hypotheses: they hold whatever the coefficients are.")
    made = Restrictions(
        _sparse(rows, design.n_coefficients),
        np.array([row.value for row in rows]),
        tuple(row.text for row in rows),
    )
    _check_size(design, made)
    _check_independent(made)
    return made


def _check_size(design: Design, made: Restrictions) -> None:
    """Raise ValueError where the restrictions about one equation take more than a covariance of coefficients may."""
    m, P = made.rows.shape
    entries = made.rows.tocoo()
    about = np.unique(entries.row * np.int64(design.n_equations) + design.equation_of[entries.col])
    size = np.bincount(about % design.n_equations, minlength=design.n_equations) * design.sizes
    if size.max() > MAX_ENTRIES:
        raise ValueError(
            f"{m} restrictions on {P} coefficients would take {8e-9 * size.max():.1f} GB and are limited to "
            f"{8e-9 * MAX_ENTRIES:.1f} GB. Test fewer at a time."
        )


@dataclass(frozen=True)
class _Row:
    """sum of weights[place] * b[place] = value."""

    weights: dict[int, float]
    value: float
    text: str


def _sparse(rows: list[_Row], n_coefficients: int) -> sp.csr_array:
    """(m, P)."""
    pointers = np.concatenate([[0], np.cumsum([len(row.weights) for row in rows])])
    places = [place for row in rows for place in row.weights]
    weights = [weight for row in rows for weight in row.weights.values()]
    return sp.csr_array((weights, places, pointers), shape=(len(rows), n_coefficients))


# ---------------------------------------------------------------------------------------------- labels


@dataclass(frozen=True, eq=False)
class _Names:
    """Places of coefficients by label."""

    design: Design

    @cached_property
    def equations(self) -> dict[str, list[int]]:
        return _by_text(self.design.equations)

    @cached_property
    def _terms(self) -> dict[tuple[Hashable, ...], dict[str, list[int]]]:
        return {terms: _by_text(terms) for terms in set(self.design.terms)}

    def equation(self, text: str, term: Term) -> int:
        if term.equation is None:
            if self.design.n_equations == 1:
                return 0
            label = term.regressor.label
            example = f"{_quoted(self.design.equations[0])}:{label}"
            message = f"{label!r} stands without an equation: write {example!r}, or '*:{label}' for every equation"
            fail_at(text, term.regressor.start, term.regressor.stop, message)
        token = term.equation
        found = _pick(text, token, self.equations, self.design.equations)
        if found is None:
            other = self.equations.get(term.regressor.label, [])
            swapped = any(token.label in map(str, self.design.terms[j]) for j in other)
            hint = "; the equation comes first." if swapped else closest(token.label, self.design.equations)
            fail_at(text, token.start, token.stop, f"no equation {token.label!r}{hint}")
        return found

    def position(self, text: str, token: Token, equation: int) -> int | None:
        """Of a regressor among those of an equation."""
        terms = self.design.terms[equation]
        return _pick(text, token, self._terms[terms], terms)

    def place(self, text: str, token: Token, equation: int) -> int:
        position = self.position(text, token, equation)
        if position is None:
            name, terms = self.design.equations[equation], self.design.terms[equation]
            hint = closest(token.label, terms)
            fail_at(text, token.start, token.stop, f"no regressor {token.label!r} in equation {name!r}{hint}")
        return int(self.design.offsets[equation]) + position


def _by_text(labels: Sequence[Hashable]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for position, label in enumerate(labels):
        found.setdefault(str(label), []).append(position)
    return found


def _pick(text: str, token: Token, by_text: dict[str, list[int]], labels: Sequence[Hashable]) -> int | None:
    """The position a token names: between 1 and "1" a bare number means the number, anything else the string."""
    found = by_text.get(token.label, [])
    if len(found) > 1:
        wanted = [i for i in found if isinstance(labels[i], str) != (token.kind == "number")]
        if len(wanted) != 1:
            among = " and ".join(repr(labels[i]) for i in found)
            fail_at(text, token.start, token.stop, f"{token.label!r} may mean {among}; use a matrix R, or a mapping")
        found = wanted
    return found[0] if found else None


def _read_texts(design: Design, texts: Sequence[str]) -> list[_Row]:
    names = _Names(design)
    rows = []
    for text in texts:
        parser = Parser(text)
        for statement, sides in parser.statements():
            rows += _rows_of(names, parser.text, statement, sides)
    return rows


def _rows_of(names: _Names, text: str, statement: str, sides: list[Side]) -> list[_Row]:
    """One row for each sign of equality and each coefficient that wildcards stand for."""
    terms = [term for side in sides for term in side.terms]
    if not terms:
        start = text.index(statement)
        fail_at(text, start, start + len(statement), "this names no coefficient")
    bindings, wild = _bindings(names, text, terms)
    chain = sides if len(sides) > 1 else [sides[0], Side((), 0.0)]
    rows = []
    for equation, position in bindings:
        for left, right in pairwise(chain):
            weights: dict[int, float] = {}
            for sign, side in ((1.0, left), (-1.0, right)):
                for term in side.terms:
                    place = _place(names, text, term, equation, position)
                    weights[place] = weights.get(place, 0.0) + sign * term.weight
            weights = {place: weight for place, weight in weights.items() if weight != 0}
            value = right.constant - left.constant
            if not weights and wild and value == 0:
                continue  # *:x = a:x says nothing of equation a
            if not weights:
                fail_at(text, terms[0].start, terms[0].start + 1, f"no coefficient is left in {statement!r}")
            plain = not wild and len(sides) <= 2
            shown = statement if len(sides) > 1 else f"{statement} = 0"
            rows.append(_Row(weights, value, shown if plain else _written(names.design, weights, value)))
    return rows


def _bindings(names: _Names, text: str, terms: list[Term]) -> tuple[list[tuple[int | None, int | None]], bool]:
    """What the wildcards stand for: (equation, position of the regressor in it), None where nothing is open."""
    design = names.design
    wild = [term for term in terms if any(_wildcards(term))]
    if not wild:
        return [(None, None)], False
    first, kind = wild[0], _wildcards(wild[0])
    for other in wild:
        if _wildcards(other) != kind:
            fail_at(text, other.start, other.regressor.stop, "one statement takes one kind of wildcard")
    every_equation, every_regressor = kind
    if every_equation and every_regressor:
        return [(j, i) for j in range(design.n_equations) for i in range(int(design.sizes[j]))], True
    if every_regressor:
        j = names.equation(text, first)
        return [(j, i) for i in range(int(design.sizes[j]))], True
    token = first.regressor
    found = [j for j in range(design.n_equations) if names.position(text, token, j) is not None]
    if not found:
        known = dict.fromkeys(term for terms in design.terms for term in terms)
        fail_at(
            text, token.start, token.stop, f"no equation has a regressor {token.label!r}{closest(token.label, known)}"
        )
    return [(j, None) for j in found], True


def _wildcards(term: Term) -> tuple[bool, bool]:
    """Whether a term's equation and its regressor are open."""
    return term.equation is not None and term.equation.is_wild, term.regressor.is_wild


def _place(names: _Names, text: str, term: Term, equation: int | None, position: int | None) -> int:
    follows = _wildcards(term)[0] or term.equation is None  # beside a wildcard a bare name is of the same equation
    j = equation if follows and equation is not None else names.equation(text, term)
    if not term.regressor.is_wild or equation is None or position is None:
        return names.place(text, term.regressor, j)
    if j == equation:
        return int(names.design.offsets[j]) + position
    label = names.design.terms[equation][position]  # a:* = b:* pairs the regressors by label
    if label not in names.design.terms[j]:
        message = f"equation {names.design.equations[j]!r} has no regressor {label!r} to stand beside"
        fail_at(text, term.start, term.regressor.stop, f"{message} that of {names.design.equations[equation]!r}")
    return int(names.design.offsets[j]) + names.design.terms[j].index(label)


def _written(design: Design, weights: Mapping[int, float], value: float) -> str:
    """A row in the language of hypotheses."""
    text = ""
    for place, weight in sorted(weights.items()):
        j = int(design.equation_of[place])
        name = f"{_quoted(design.equations[j])}:{_quoted(design.terms[j][place - int(design.offsets[j])])}"
        factor = "" if abs(weight) == 1 else f"{abs(weight):.12g}*"
        sign = ("-" if weight < 0 else "") if not text else (" - " if weight < 0 else " + ")
        text += f"{sign}{factor}{name}"
    return f"{text} = {value:.12g}"


def _quoted(label: Hashable) -> str:
    text = str(label)
    numeral = isinstance(label, str) and _NUMERAL.fullmatch(text)
    return text if _PLAIN.fullmatch(text) and not numeral else '"' + text.replace('"', '""') + '"'


# ---------------------------------------------------------------------------------------------- other forms


def _from_mapping(design: Design, given: Mapping[Any, Any]) -> list[_Row]:
    rows: list[_Row] = []
    for key, value in given.items():
        number = _number(key, value)
        text = key
        if isinstance(key, tuple) and len(key) == 2:
            rows.append(_from_pair(design, key, number))
            continue
        if not isinstance(text, str):
            raise TypeError(
                f"the keys of a mapping must be texts such as 'equation:regressor' or pairs (equation, regressor); "
                f"got {key!r}."
            )
        if "=" in text:
            raise ValueError(
                f"{text!r} is a key of a mapping and holds '='; the value of the mapping is its right side."
            )
        for row in _read_texts(design, [text]):
            rows.append(_Row(row.weights, row.value + number, _written(design, row.weights, row.value + number)))
    return rows


def _from_pair(design: Design, key: tuple[Any, Any], value: float) -> _Row:
    equation, regressor = key
    if equation not in design.equations:
        raise ValueError(f"no equation {equation!r}{closest(equation, design.equations)}")
    j = design.equations.index(equation)
    if regressor not in design.terms[j]:
        raise ValueError(f"no regressor {regressor!r} in equation {equation!r}{closest(regressor, design.terms[j])}")
    weights = {int(design.offsets[j]) + design.terms[j].index(regressor): 1.0}
    return _Row(weights, value, _written(design, weights, value))


def _number(key: Any, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"the value of {key!r} must be a number; got {value!r}.") from None
    if not math.isfinite(number):
        raise ValueError(f"the value of {key!r} must be finite; got {value!r}.")
    return number


def _array(name: str, given: Any) -> np.ndarray:
    try:
        array = np.asarray(given)
    except ValueError:  # rows of different lengths
        array = np.array(None)
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise TypeError(
            "hypotheses must be a text such as 'equation:regressor = 0', a list of texts, a matrix R, a tuple (R, r) "
            f"or a mapping; the {name} given is {given!r:.60}."
        )
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite; it holds NaN or infinite values.")
    return array


def _from_matrix(design: Design, matrix: Any, values: Any) -> list[_Row]:
    R = np.atleast_2d(_array("matrix R", matrix))
    if R.ndim != 2 or R.shape[1] != design.n_coefficients or len(R) == 0:
        raise ValueError(
            f"R must have one column for each of the P = {design.n_coefficients} coefficients, equation by equation; "
            f"found shape {np.shape(matrix)}."
        )
    r = np.zeros(len(R)) if values is None else np.atleast_1d(_array("right side r", values))
    if r.shape != (len(R),):
        raise ValueError(f"r must hold one number for each of the {len(R)} rows of R; found shape {r.shape}.")
    return _rows_of_matrix(design, sp.csr_array(R), r, ())


def _rows_of_matrix(design: Design, R: sp.csr_array, r: np.ndarray, texts: Sequence[str]) -> list[_Row]:
    rows = []
    for i, value in enumerate(r.tolist()):
        chosen = slice(R.indptr[i], R.indptr[i + 1])
        weights = dict(zip(R.indices[chosen].tolist(), R.data[chosen].tolist(), strict=True))
        if not weights:
            raise ValueError(f"row {i} of R is zero: it restricts nothing. Drop it.")
        name = _written(design, weights, value) if len(weights) <= SHOWN_TERMS else f"row {i} of R"
        rows.append(_Row(weights, value, texts[i] if texts else name))
    return rows


# ---------------------------------------------------------------------------------------------- independence


def check_open(restrictions: Restrictions | None, hypotheses: Restrictions) -> None:
    """Raise ValueError for the first hypothesis on which restrictions, with the hypotheses before it, have decided."""
    if restrictions is None:
        return
    matrix = sp.vstack([restrictions.rows, hypotheses.rows], format="csr")
    values = np.concatenate([restrictions.values, hypotheses.values])
    found = _first_dependent(Restrictions(matrix, values, (*restrictions.texts, *hypotheses.texts)))
    if found is None:
        return
    text, others, contradicts = found
    if contradicts:
        raise ValueError(
            f"{text!r} cannot hold: it contradicts {others}, to which this fit keeps. There is nothing to test; drop "
            "it, or fit without restrictions."
        )
    raise ValueError(
        f"{text!r} holds by construction: it follows from {others}, to which this fit keeps. There is nothing to test; "
        "drop it, or test it of a fit without restrictions."
    )


def _check_independent(made: Restrictions) -> None:
    """Raise ValueError for the first restriction that contradicts or follows from those before it."""
    found = _first_dependent(made)
    if found is None:
        return
    text, others, contradicts = found
    if contradicts:
        raise ValueError(f"{text!r} contradicts {others}. Drop or change one of them.")
    raise ValueError(f"{text!r} is redundant: it follows from {others}. Drop it.")


def _first_dependent(made: Restrictions) -> tuple[str, str, bool] | None:
    """The first restriction that those before it decide on, these, and whether it contradicts them."""
    core = _entangled(made.rows)
    if not len(core):
        return None
    chosen = made.rows[core]
    used = chosen[:, np.unique(chosen.indices)]
    size = used.shape[0] * used.shape[1]
    if size > MAX_ENTRIES:
        raise ValueError(
            f"{used.shape[0]:,} restrictions share {used.shape[1]:,} coefficients: to see whether they contradict each "
            f"other takes {8e-9 * size:.1f} GB, and is limited to {8e-9 * MAX_ENTRIES:.1f} GB. Give fewer at a time."
        )
    used, values = used.toarray(), made.values[core]
    rows = in_even_units(used)
    left = np.abs(np.diagonal(np.linalg.qr(rows.T, mode="r")))
    dependent = np.flatnonzero(left < DEPENDENT)
    if len(dependent) == 0 and len(left) == len(rows):
        return None
    i = int(dependent[0]) if len(dependent) else len(left)
    weights = np.linalg.lstsq(rows[:i].T, rows[i], rcond=None)[0]
    sizes = np.linalg.norm(used / np.max(np.abs(used), axis=0), axis=1)
    parts, value = weights * values[:i] / sizes[:i], values[i] / sizes[i]
    names = [repr(made.texts[core[j]]) for j in np.flatnonzero(np.abs(weights) > 1e-8)]
    listed = ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else names[0]
    contradicts = abs(parts.sum() - value) > 1e-9 * (np.abs(parts).sum() + abs(value))
    return made.texts[core[i]], listed, bool(contradicts)


def _entangled(rows: sp.csr_array) -> np.ndarray:
    """Ascending positions of the rows that may depend on each other: a row with a coefficient that no other row has
    does not, and neither does one that has such a coefficient once those are taken away.  O(entries)."""
    by_column = rows.tocsc()
    count = np.diff(by_column.indptr)
    taken = np.zeros(rows.shape[0], dtype=bool)
    lone = np.flatnonzero(count == 1).tolist()
    while lone:
        column = lone.pop()
        of_column = by_column.indices[by_column.indptr[column] : by_column.indptr[column + 1]]
        left = of_column[~taken[of_column]]
        if not len(left):
            continue
        row = int(left[0])
        taken[row] = True
        for other in rows.indices[rows.indptr[row] : rows.indptr[row + 1]].tolist():
            count[other] -= 1
            if count[other] == 1:
                lone.append(other)
    return np.flatnonzero(~taken)
