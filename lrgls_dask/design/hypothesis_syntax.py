"""The language of hypotheses: text to sums of named coefficients, with the place of every name.

The language, one or more statements separated by commas, semicolons or new lines:

    Telcm:smb = 0                         one coefficient, equation:regressor; alone ("Telcm:smb") it means = 0
    food:price + food:income = 1          sums; numbers multiply and divide: 2*a:x - b:x/2 = c:x + 0.5
    a:x = b:x = c:x                       a chain, one restriction for each sign of equality
    *:smb = 0                             in every equation that has the regressor; also *:smb = Telcm:smb, and
    *:smb - hml = 1                       where a name without an equation is of the same one as the wildcard
    food:* = 0                            every coefficient of an equation
    "my eq":"x (lag 1)" = 0               labels with other characters than letters, digits, _ and . in quotes (" ' `),
                                          a quote inside doubled; labels that are no strings as str() writes them

With one equation its name may be left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

__all__ = ["Parser", "Side", "Term", "Token", "fail_at"]

_TOKENS = re.compile(
    r"""(?P<space>[^\S\n]+)
      | (?P<quoted>"(?:[^"]|"")*"|`(?:[^`]|``)*`|'(?:[^']|'')*')
      | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
      | (?P<name>[\w.]+)
      | (?P<sign>==|[-+*/:=,;\n])""",
    re.VERBOSE,
)
_STRANGE = {
    '"': "this quote is not closed",
    "'": "this quote is not closed",
    "`": "this quote is not closed",
    "(": "parentheses are not understood: write the sum out, or put a label that contains them in quotes",
    ")": "parentheses are not understood: write the sum out, or put a label that contains them in quotes",
    "<": "only equality can be tested: use '='",
    ">": "only equality can be tested: use '='",
    "^": "hypotheses must be linear in the coefficients",
}


@dataclass(frozen=True)
class Token:
    """kind : "quoted", "number", "name", "sign" or "end".  start, stop : where in the text."""

    kind: str
    text: str
    start: int
    stop: int

    @property
    def label(self) -> str:
        if self.kind != "quoted":
            return self.text
        quote = self.text[0]
        return self.text[1:-1].replace(2 * quote, quote)

    @property
    def is_wild(self) -> bool:
        return self.kind == "sign" and self.text == "*"


@dataclass(frozen=True)
class Term:
    """weight * equation:regressor, either of which may be the sign "*"."""

    weight: float
    equation: Token | None
    regressor: Token

    @property
    def start(self) -> int:
        return (self.equation or self.regressor).start


@dataclass(frozen=True)
class Side:
    """A sum of terms and a number."""

    terms: tuple[Term, ...]
    constant: float


def fail_at(text: str, start: int, stop: int, message: str) -> NoReturn:
    """Raise ValueError with the line of the text and a caret under the place."""
    begin = text.rfind("\n", 0, start) + 1
    line = text[begin:].split("\n", 1)[0]
    raise ValueError(f"{message}\n  {line}\n  {' ' * (start - begin)}{'^' * max(1, stop - start)}")


def _tokens(text: str) -> list[Token]:
    found, at = [], 0
    while at < len(text):
        match = _TOKENS.match(text, at)
        if match is None:
            fail_at(text, at, at + 1, _STRANGE.get(text[at], f"{text[at]!r} belongs to no label; put labels in quotes"))
        if match.lastgroup != "space":
            found.append(Token(str(match.lastgroup), match.group(), at, match.end()))
        at = match.end()
    return [*found, Token("end", "", len(text), len(text))]


class Parser:
    """Statements of one text, by recursive descent: statement = side {"=" side}, side = term {("+" | "-") term}."""

    def __init__(self, text: str) -> None:
        self.text = text.rstrip()
        self.tokens = _tokens(self.text)
        self.at = 0

    def statements(self) -> Iterable[tuple[str, list[Side]]]:
        while True:
            while self._next_is("\n"):
                self.at += 1
            start = self._peek().start
            sides = [self._side()]
            while self._next_is("=", "=="):
                self.at += 1
                sides.append(self._side())
            end = self._peek()
            if not (end.kind == "end" or self._next_is(",", ";", "\n")):
                self._refuse(end, f"{end.text!r} does not continue a sum; put labels with spaces or signs in quotes")
            yield self.text[start : end.start].strip(), sides
            if end.kind == "end":
                return
            self.at += 1

    def _side(self) -> Side:
        terms, constant, first = [], 0.0, True
        while first or self._next_is("+", "-"):
            weight, first = 1.0, False
            while self._next_is("+", "-"):
                weight *= -1.0 if self._take().text == "-" else 1.0
            made = self._term(weight)
            if isinstance(made, float):
                constant += made
            else:
                terms.append(made)
        return Side(tuple(terms), constant)

    def _term(self, weight: float) -> Term | float:
        """Numbers and at most one coefficient, multiplied and divided."""
        coefficient: tuple[Token | None, Token] | None = None
        divide = False
        while True:
            token = self._peek()
            if self._at_label():
                if coefficient is not None or divide:
                    self._refuse(token, "hypotheses must be linear: no products or ratios of coefficients")
                coefficient = self._coefficient()
            elif token.kind == "number":
                weight = self._scaled(weight, self._take(), divide)
            else:
                found = f"found {token.text!r}" if token.text.strip() else "the text ends"
                self._refuse(token, f"a coefficient such as equation:regressor, or a number, belongs here; {found}")
            wild = self._peek().is_wild and self._peek(1).text == ":"
            if self._next_is("*", "/") and not wild:
                divide = self._take().text == "/"
            elif self._at_label() and (wild or coefficient is None):
                divide = False  # "2 a:x", without a sign between them
            else:
                return weight if coefficient is None else Term(weight, *coefficient)

    def _scaled(self, weight: float, token: Token, divide: bool) -> float:
        number = float(token.text)
        if divide and number == 0:
            self._refuse(token, "division by zero")
        scaled = weight / number if divide else weight * number
        if not math.isfinite(scaled):
            self._refuse(token, f"{token.text} is too large a number")
        return scaled

    def _coefficient(self) -> tuple[Token | None, Token]:
        first = self._take()
        if not self._next_is(":"):
            return None, first
        self.at += 1
        second = self._peek()
        if not (second.kind in ("name", "quoted", "number") or second.is_wild):
            self._refuse(second, f"a regressor belongs after {first.text + ':'!r}")
        return first, self._take()

    def _at_label(self) -> bool:
        token = self._peek()
        return token.kind in ("name", "quoted") or (
            (token.kind == "number" or token.is_wild) and self._peek(1).text == ":" and self._peek(1).kind == "sign"
        )

    def _peek(self, ahead: int = 0) -> Token:
        return self.tokens[min(self.at + ahead, len(self.tokens) - 1)]

    def _next_is(self, *signs: str) -> bool:
        return self._peek().kind == "sign" and self._peek().text in signs

    def _take(self) -> Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def _refuse(self, token: Token, message: str) -> NoReturn:
        fail_at(self.text, token.start, token.stop, message)
