"""Formulas as users write them: one for all equations, by pattern, or a mapping; each equation's response and terms."""

from __future__ import annotations

import ast
import fnmatch
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from formulaic import Formula, SimpleFormula
from formulaic.formula import StructuredFormula
from formulaic.parser.types import Factor, Term

from lrgls_dask.checks import closest, shown
from lrgls_dask.data.expressions import FactorRead, read_factor

__all__ = ["ALL_OTHERS", "Formulas", "Sided", "long_formulas", "wide_formulas"]

ALL_OTHERS = (None, "*")
"""Keys of a mapping that stand for all equations without a formula of their own."""

NAME = re.compile(r"([A-Za-z_]\w*)|`([^`]+)`")
PLAIN_LEFT = re.compile(rf"\s*(?:{NAME.pattern})\s*(?:\+\s*(?:{NAME.pattern})\s*)*")
PATTERN = re.compile(r"\{\s*([^{}`'\"()]*[*?][^{}`'\"()]*)\s*\}")
QUOTED = re.compile(r"`([^`]+)`")
MEANT = re.compile(r"\.|\d+(?:\.\d*)?")  # names in which formulas see no column, even in backticks
MEANT_AS = ("number", "'.', all columns,")
EXAMPLE = "'ret_a + ret_b ~ mkt + smb'"


@dataclass(frozen=True)
class Sided:
    """One formula, parsed.

    text : as the user wrote it, patterns written out.  left : its responses.  right : the terms of its regressors.
    """

    text: str
    left: tuple[Factor, ...]
    right: SimpleFormula

    @cached_property
    def regressors(self) -> tuple[FactorRead, ...]:
        """The factors of its terms, each once."""
        factors = {factor.expr: factor for term in self.right for factor in term.factors}
        return tuple(read_factor(factor, self.text) for factor in factors.values())

    @cached_property
    def responses(self) -> tuple[FactorRead, ...]:
        return tuple(read_factor(factor, self.text) for factor in self.left)

    @cached_property
    def key(self) -> tuple[Hashable, ...]:
        """What tells one formula from another."""
        return self.right_key, tuple(factor.expr for factor in self.left)

    @cached_property
    def right_key(self) -> tuple[tuple[str, ...], ...]:
        """What tells its right side from another."""
        return tuple(tuple(factor.expr for factor in term.factors) for term in self.right)


@dataclass(frozen=True)
class Formulas:
    """The formulas of all equations.

    labels : of the equations; of a long frame the keys that were given, None for all others.
    sided : the distinct formulas.  of : for each label which of them.  response : and which of its responses.
    available : names of columns, that a `.` stands for.
    """

    labels: tuple[Hashable, ...]
    sided: tuple[Sided, ...]
    of: tuple[int, ...]
    response: tuple[int, ...]
    available: tuple[str, ...]

    @cached_property
    def responses(self) -> tuple[FactorRead, ...]:
        """The response of each label."""
        return tuple(self.sided[i].responses[r] for i, r in zip(self.of, self.response, strict=True))

    @cached_property
    def rights(self) -> tuple[SimpleFormula, ...]:
        """The distinct right sides."""
        return tuple({one.right_key: one.right for one in self.sided}.values())

    @cached_property
    def right(self) -> tuple[int, ...]:
        """For each label which right side it has."""
        keys = list(dict.fromkeys(one.right_key for one in self.sided))
        of_sided = [keys.index(one.right_key) for one in self.sided]
        return tuple(of_sided[i] for i in self.of)

    @cached_property
    def factors(self) -> tuple[FactorRead, ...]:
        """All factors, of responses and regressors, each once."""
        every = [each for one in self.sided for each in (*one.responses, *one.regressors)]
        return tuple({each.text: each for each in every}.values())

    @cached_property
    def regressor_columns(self) -> tuple[str, ...]:
        """Columns of the frame that regressors read."""
        return tuple(dict.fromkeys(name for one in self.sided for each in one.regressors for name in each.columns))

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Columns of the frame that are read."""
        return tuple(dict.fromkeys(name for each in self.factors for name in each.columns))

    def to_json(self) -> dict[str, Any]:
        """Labels aside, plain values from which `from_json` makes the same."""
        texts = [one.text for one in self.sided]
        available = self.available if any("." in text for text in texts) else ()
        return {"texts": texts, "of": self.of, "response": self.response, "available": available}

    @classmethod
    def from_json(cls, labels: Sequence[Hashable], known: Mapping[str, Any]) -> Formulas:
        available = tuple(known["available"])
        sided = tuple(_parse(text, available) for text in known["texts"])
        return cls(tuple(labels), sided, tuple(known["of"]), tuple(known["response"]), available)


def wide_formulas(given: Any, columns: Sequence[str]) -> Formulas:
    """One equation for each response: of one formula, of several, or of a mapping equation -> formula.

    columns : names in the frame. In a mapping a formula without responses has the column of its key.
    Raises ValueError or TypeError for what cannot be parsed, has no response or no regressors.
    """
    found: list[tuple[Hashable, Sided, int]] = []
    if isinstance(given, Mapping):
        for key, text in given.items():
            found.append((key, _of_equation(key, text, columns), 0))
    else:
        for text in _listed(given):
            sided = _two_sided(text, columns)
            found += [(factor.expr, sided, i) for i, factor in enumerate(sided.left)]
    if not found:
        raise ValueError(f"formulas names no equation. Give one formula such as {EXAMPLE}, or equation -> formula.")
    return _made(found, columns)


def long_formulas(given: Any, columns: Sequence[str]) -> Formulas:
    """The formula of all equations of a long frame, under the label None, and those of some.

    Raises as `wide_formulas` does, and for formulas of several responses.
    """
    items = given.items() if isinstance(given, Mapping) else [(None, _only(given))]
    found: list[tuple[Hashable, Sided, int]] = []
    for key, text in items:
        sided = _two_sided(text, columns)
        if len(sided.left) > 1:
            raise ValueError(
                f"formula {text!r} has {len(sided.left)} responses, but of a long frame each equation has one: the "
                "rows that name it. Give one, or leave `equation` out for a frame with a column for each equation."
            )
        found.append((None if key in ALL_OTHERS else key, sided, 0))
    labels = [label for label, _, _ in found]
    if labels.count(None) > 1:
        raise ValueError("formulas has both None and '*', which stand for the same equations. Drop one.")
    if not found:
        raise ValueError("formulas is empty. Give a formula such as 'invest ~ value + capital'.")
    return _made(found, columns)


def _made(found: list[tuple[Hashable, Sided, int]], columns: Sequence[str]) -> Formulas:
    numbers: dict[tuple[Hashable, ...], int] = {}
    kept: list[Sided] = []
    place: dict[int, int] = {}  # of an object, which may stand for many equations
    for _, sided, response in found:
        _check(sided, response)
        if id(sided) not in place:
            place[id(sided)] = numbers.setdefault(sided.key, len(kept))
            if place[id(sided)] == len(kept):
                kept.append(sided)
    labels, of, responses = zip(*((label, place[id(sided)], i) for label, sided, i in found), strict=True)
    return Formulas(labels, tuple(kept), of, responses, tuple(columns))


def _listed(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple) else [given]


def _only(given: Any) -> Any:
    listed = _listed(given)
    if len(listed) != 1:
        raise ValueError(
            f"formulas has {len(listed)} formulas for a long frame. Give one for all equations, or a mapping equation "
            "-> formula, with '*' for all others."
        )
    return listed[0]


def _of_equation(key: Hashable, text: Any, columns: Sequence[str]) -> Sided:
    if not isinstance(text, str):
        raise TypeError(f"formulas[{key!r}] is a {type(text).__name__} but must be text such as 'ret ~ mkt + smb'.")
    if "~" not in text or text.lstrip().startswith("~"):
        if key not in columns:
            raise ValueError(
                f"formulas[{key!r}] names no response, which is then the column {key!r}, and the frame has none"
                f"{closest(key, columns)} Write it as 'response ~ regressors'."
            )
        text = f"{_quoted(str(key))} ~ {text.lstrip().removeprefix('~')}"
    sided = _two_sided(text, columns)
    if len(sided.left) > 1:
        raise ValueError(f"formulas[{key!r}] has {len(sided.left)} responses but an equation has one. Give each a key.")
    return sided


def _two_sided(text: Any, columns: Sequence[str]) -> Sided:
    if not isinstance(text, str):
        raise TypeError(
            f"a formula is a {type(text).__name__} but must be text such as {EXAMPLE}. Give one, a list of them, or a "
            "mapping equation -> formula."
        )
    if "~" not in text:
        raise ValueError(f"formula {text!r} has no response. Write it as 'response ~ regressors'.")
    written = _written_out(text, columns)
    if "\\`" in written:  # which the parser takes for a backtick in a name, that goes on to the next one
        raise ValueError(f"formula {text!r} has a name that ends with a backslash. Rename that column.")
    disguised = [name for name in QUOTED.findall(written.partition("~")[2]) if MEANT.fullmatch(name)]
    if disguised:
        raise ValueError(
            f"formula {text!r}: a regressor called {disguised[0]!r} is read as the {MEANT_AS[disguised[0] == '.']} of "
            "formulas. Rename that column."
        )
    sided = _parse(written, tuple(columns))
    if not sided.left:
        raise ValueError(f"formula {text!r} has no response. Write it as 'response ~ regressors'.")
    return sided


def _written_out(text: str, columns: Sequence[str]) -> str:
    """The formula with each pattern, {ret_*}, replaced by the columns that match it, in the order of the frame."""

    def matching(found: re.Match[str]) -> str:
        pattern = found.group(1).strip()
        if _calculates(pattern, columns):
            return found.group(0)
        names = [name for name in columns if fnmatch.fnmatchcase(name, pattern)]
        if not names:
            raise ValueError(
                f"formula {text!r}: no column of the frame matches {{{pattern}}}; it has {shown(list(columns), 10)}. "
                "Mend the pattern."
            )
        return f"{' + '.join(map(_quoted, names))}"

    return PATTERN.sub(matching, text)


def _calculates(pattern: str, columns: Sequence[str]) -> bool:
    """Whether braces hold an expression of columns, such as {x * z}."""
    try:
        tree = ast.parse(pattern, mode="eval")
    except SyntaxError:
        return False
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return all(name in columns for name in names)


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_]\w*", name) else f"`{name}`"


def _parse(text: str, available: tuple[str, ...]) -> Sided:
    left, _, right = text.partition("~")
    if PLAIN_LEFT.fullmatch(left) and "." not in right:  # a thousand responses are read at once, not one by one
        names = dict.fromkeys(quoted or name for name, quoted in NAME.findall(left))
        factors = tuple(Factor(name, eval_method="lookup") for name in names)
        return Sided(text, factors, _parsed(f"~{right}", text, available)[1])
    first, second = _parsed(text, text, available)
    return Sided(text, tuple(_response(term, text) for term in first), second)


def _parsed(part: str, text: str, available: tuple[str, ...]) -> tuple[SimpleFormula, SimpleFormula]:
    """The sides of a formula, the left one empty where it has none. text : the whole, for messages."""
    try:
        parsed = Formula.from_spec(part, context={"__formulaic_variables_available__": list(available)})
    except Exception as error:  # the parser has ways to fail that are no errors of its own
        reason = (str(error).splitlines() or ["it cannot be parsed"])[0].rstrip(".")
        raise ValueError(f"formula {text!r} cannot be read: {reason}. Mend it; {EXAMPLE} is one.") from None
    left, right = SimpleFormula(()), parsed
    if isinstance(parsed, StructuredFormula):
        left, right = getattr(parsed, "lhs", left), getattr(parsed, "rhs", None)
    if not isinstance(left, SimpleFormula) or not isinstance(right, SimpleFormula):
        raise ValueError(f"formula {text!r} has parts set apart by '|' or '[...]'. Give each equation one right side.")
    return left, right


def _response(term: Term, text: str) -> Factor:
    if len(term.factors) != 1 or term.factors[0].eval_method.value == "literal":
        raise ValueError(f"formula {text!r}: the response {str(term)!r} must be a column, or calculated from columns.")
    return term.factors[0]


def _check(sided: Sided, place: int) -> None:
    """Raise ValueError where an equation has no regressors, or its response among them."""
    if not len(sided.right):
        raise ValueError(f"formula {sided.text!r} gives no column of regressors. Write 1 for a constant.")
    response = sided.responses[place]
    if response.coded:
        raise ValueError(f"formula {sided.text!r}: the response {response.text!r} is a category, no number.")
    alone = response.columns[0] if len(response.columns) == 1 else None
    again = [each.text for each in sided.regressors if each.text == response.text or alone in each.unlagged]
    if again:
        raise ValueError(
            f"formula {sided.text!r}: the response {response.text!r} is a regressor too, in {again[0]!r}. Drop it "
            "there, or lag it: lag(x, 1)."
        )
