"""What an argument may be: a word of a few, a number in a range, a probability, a number of factors, a path."""

from __future__ import annotations

import difflib
import numbers
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np

__all__ = [
    "Allowed",
    "FactorsOrWay",
    "Flag",
    "FlagOrCall",
    "Number",
    "OneOf",
    "Place",
    "WholeNumber",
    "as_number",
    "check_alpha",
    "check_factors",
    "closest",
    "number",
    "one_of",
    "shown",
]

T = TypeVar("T")


def check_alpha(alpha: Any) -> None:
    """Raise ValueError for what is no probability of missing an interval's target."""
    if isinstance(alpha, bool) or not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, both excluded; got {alpha!r}.")


def one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raise ValueError for a value that is not allowed."""
    if not isinstance(value, str) or value not in allowed:
        listed = " or ".join(repr(a) for a in allowed)
        raise ValueError(f"{name} must be {listed}; got {value!r}.")


def number(name: str, value: Any, *, least: float, strict: bool) -> None:
    """Raise TypeError or ValueError for what is no finite number of at least `least`, or above it."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number; got {value!r}.")
    if not np.isfinite(float(value)) or value < least or (strict and value <= least):
        raise ValueError(f"{name} must be {'above' if strict else 'at least'} {least:g} and finite; got {value!r}.")


def shown(labels: Sequence[Any], limit: int = 5) -> str:
    """The first few labels, quoted, for a message."""
    text = ", ".join(repr(label) for label in labels[:limit])
    return text if len(labels) <= limit else f"{text}, ... ({len(labels)} in all)"


def closest(name: Any, known: Iterable[Any]) -> str:
    """A hint `; did you mean 'smb'?` when some known name resembles this one, else nothing."""
    by_text = {str(k): k for k in known}
    match = difflib.get_close_matches(str(name), by_text, n=1)
    return f"; did you mean {by_text[match[0]]!r}?" if match else "."


def check_factors(name: str, value: Any, *, least: int) -> None:
    """Raise TypeError or ValueError unless `value` is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer; got {value!r}.")
    if value < least:
        raise ValueError(f"{name} must be at least {least}; got {value}.")


def as_number(name: str, value: Any, wanted: str) -> float:
    """`value` as a float. Raises TypeError unless it is a real number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be {wanted}; got {value!r}.")
    return float(value)


# ------------------------------------------------------------------------------------- what an option may be


class Allowed(ABC):
    """What an option may be, as `options` declares it, and how a command line writes it.

    form : as a flag without a value, with one, or as often as there are values.  words : the only ones that may be
    written, () where there are more.  written : what stands for the value in a usage line.
    """

    form: ClassVar[Literal["flag", "value", "values"]] = "value"
    words: tuple[str, ...] = ()
    written: ClassVar[str] = "TEXT"

    @abstractmethod
    def check(self, name: str, value: Any) -> None:
        """Raise TypeError or ValueError naming the option, what it may be and the value."""

    def read(self, text: str) -> Any:
        """The value that a word of a command line means. Raises ValueError saying what the word is not."""
        return text


@dataclass(frozen=True)
class OneOf(Allowed):
    """One of a few words."""

    words: tuple[str, ...]

    def check(self, name: str, value: Any) -> None:
        one_of(name, value, self.words)


@dataclass(frozen=True)
class Flag(Allowed):
    """True or False."""

    form = "flag"

    def check(self, name: str, value: Any) -> None:
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False; got {value!r}.")


@dataclass(frozen=True)
class FlagOrCall(Allowed):
    """True, False, or something to call; a command line has the first two."""

    form = "flag"

    def check(self, name: str, value: Any) -> None:
        if not (isinstance(value, bool) or callable(value)):
            raise TypeError(f"{name} must be True, False or a callable; got {value!r}.")


@dataclass(frozen=True)
class Number(Allowed):
    """A finite number of at least `least`, or above it.  share_of : what it is a fraction of, and so below 1."""

    least: float = 0.0
    strict: bool = False
    share_of: str | None = None

    written = "NUMBER"

    def check(self, name: str, value: Any) -> None:
        number(name, value, least=self.least, strict=self.strict)
        if self.share_of is not None and value >= 1:
            raise ValueError(f"{name} is a fraction of {self.share_of} and must be below 1; got {value}.")

    def read(self, text: str) -> float:
        return _read(float, text, "a number")


@dataclass(frozen=True)
class WholeNumber(Allowed):
    """An integer of at least `least`."""

    least: int

    written = "NUMBER"

    def check(self, name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < self.least:
            wanted = "a positive integer" if self.least == 1 else f"an integer of at least {self.least}"
            raise ValueError(f"{name} must be {wanted}; got {value!r}.")

    def read(self, text: str) -> int:
        return _read(int, text, "a whole number")


@dataclass(frozen=True)
class FactorsOrWay(Allowed):
    """A number of factors, or a word for the way to choose it."""

    ways: tuple[str, ...]

    written = "RANK"

    def check(self, name: str, value: Any) -> None:
        if isinstance(value, str):
            one_of(name, value, self.ways)
        elif isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise TypeError(f"{name} must be an integer, {_either(map(repr, self.ways))}; got {value!r}.")
        elif value < 0:
            raise ValueError(f"{name} must be 0 or more; got {value}.")

    def read(self, text: str) -> int | str:
        return text if text in self.ways else _read(int, text, f"a whole number, {_either(self.ways)}")


@dataclass(frozen=True)
class Place(Allowed):
    """A path or URL."""

    written = "PATH"

    def check(self, name: str, value: Any) -> None:
        if not isinstance(value, str | os.PathLike):
            raise TypeError(f"{name} must be a path or URL; got {value!r}.")


def _read(kind: Callable[[str], T], text: str, wanted: str) -> T:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{text!r} is not {wanted}") from None


def _either(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}"
