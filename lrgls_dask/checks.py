"""What an argument may be: a word of a few, a number in a range, a probability, a path, groups and values by label."""

from __future__ import annotations

import difflib
import functools
import inspect
import numbers
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, ParamSpec, TypeVar

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
    "along_equations",
    "as_number",
    "check_alpha",
    "check_factors",
    "check_level",
    "closest",
    "groups_of",
    "made_of",
    "number",
    "one_group_each",
    "one_of",
    "shown",
    "takes",
]

T = TypeVar("T")
P = ParamSpec("P")


def check_alpha(alpha: Any) -> None:
    """Raise ValueError for what is no probability of missing an interval's target."""
    if isinstance(alpha, bool) or not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, both excluded; got {alpha!r}.")


def check_level(level: Any) -> None:
    """Raise ValueError for what is no coverage of an interval."""
    if isinstance(level, bool) or not isinstance(level, numbers.Real) or not 0 < float(level) < 1:
        raise ValueError(f"level is a coverage between 0 and 1, both excluded, such as 0.95; got {level!r}.")


def one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raise ValueError for a value that is not allowed."""
    if not isinstance(value, str) or value not in allowed:
        listed = " or ".join(repr(a) for a in allowed)
        raise ValueError(f"{name} must be {listed}; got {value!r}.")


def number(name: str, value: Any, *, least: float, strict: bool, wanted: str = "a number") -> None:
    """Raise TypeError or ValueError for what is no finite number of at least `least`, or above it."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be {wanted}; got {value!r}.")
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


# ---------------------------------------------------------------------------------------------- what a call takes


def takes(
    what: str,
    remedy: str,
    *,
    check: Callable[[Any], bool] = lambda _: True,
    first: Callable[[Any], object] = lambda _: None,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A method that says in a sentence of ours what it takes where it is called with something else.

    what, remedy : the sentence, "`name` takes `what`; got (ndarray, ndarray). `remedy`", a TypeError.
    check : whether its first argument may be that.  first : called with the object before anything is looked at.
    Arguments that do not fit the signature get the sentence too: those who know another library type its calls first.
    """

    def decorate(method: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(method)
        wanted = list(signature.parameters)[1]
        name = method.__qualname__ if method.__name__ == "__init__" else method.__name__

        @functools.wraps(method)
        def checked(*args: P.args, **kwargs: P.kwargs) -> T:
            first(args[0])
            try:
                given = signature.bind(*args, **kwargs).arguments
            except TypeError as error:
                raise TypeError(f"{name} takes {what}; {_listed(args[1:], kwargs)}: {error}. {remedy}") from None
            if wanted in given and not check(given[wanted]):
                raise TypeError(f"{name} takes {what}; {_listed(args[1:], kwargs)}. {remedy}")
            return method(*args, **kwargs)

        return checked

    return decorate


def _listed(args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
    """What was given, by type: data would fill the screen."""
    given = [type(value).__name__ for value in args]
    given += [f"{name}={type(value).__name__}" for name, value in kwargs.items()]
    return f"got ({', '.join(given)})" if given else "got nothing"


def made_of(what: str, remedy: str, check: Callable[[Any], bool]) -> Callable[[type[T]], type[T]]:
    """A class whose constructor is called as `takes` says."""

    def decorate(cls: type[T]) -> type[T]:
        cls.__init__ = takes(what, remedy, check=check)(cls.__init__)  # type: ignore[method-assign]
        return cls

    return decorate


# ---------------------------------------------------------------------------------------------- by label


def one_group_each(groups: Any) -> str | Mapping[Hashable, Hashable]:
    """Equation -> group, or the name of a coordinate that says it.

    groups : a name, a mapping, a pandas Series or a DataArray with labels along its one dim.
    Raises TypeError or ValueError for what is none of these.
    """
    if isinstance(groups, str):
        return groups
    labels = labels_of(groups)
    if hasattr(groups, "dims") and (labels is None or len(labels) != 1 or labels[0] is None):
        raise ValueError(f"groups must have one dim with labels, that of the equations; got dims {groups.dims}.")
    if labels is not None and len(labels) == 1 and labels[0] is not None:
        series = groups.to_series() if hasattr(groups, "dims") else groups  # so that dates are dates in both
        again = repeated(labels[0])
        if again:
            raise ValueError(f"groups: equation {again[0]!r} is there more than once. Give it one group.")
        return dict(zip(labels[0], series.tolist(), strict=True))
    if isinstance(groups, Mapping):
        return groups
    raise TypeError(
        "groups must map equations to groups: the name of a coordinate, a dict, a pandas Series or a DataArray along "
        f"the equations; got {groups!r}. Pass one of these, or a list of them."
    )


def groups_of(
    groups: str | Mapping[Hashable, Hashable], equations: Sequence[Hashable], coords: Mapping[Any, Sequence[Hashable]]
) -> Mapping[Hashable, Hashable]:
    """Equation -> group, without those whose group is None or NaN, which have none.

    coords : further labels of the equations by name.  Raises ValueError for a name that is none of these.
    """
    if isinstance(groups, str):
        if groups not in coords:
            has = f"has {shown([str(each) for each in coords])}{closest(groups, coords)}" if coords else "has none."
            raise ValueError(
                f"groups names a coordinate {groups!r} along the equations, but the system {has} Pass equation -> "
                "group, a dict or a Series."
            )
        groups = dict(zip(equations, coords[groups], strict=True))
    return {name: group for name, group in groups.items() if not _is_missing(group)}


def along_equations(name: str, values: Any, equations: Sequence[Hashable], *, axes: int) -> np.ndarray:
    """Numbers with their first `axes` axes in the order of the equations, float64.

    values : matched by its labels where it has any, as pandas and xarray objects do, by position elsewhere.
    Raises ValueError for labels that are not the equations, each once, and for another number of them.
    """
    labels, array = labels_of(values), np.asarray(values, dtype=np.float64)
    for axis in range(axes):
        along = None if labels is None else labels[axis]
        if array.shape[axis] != len(equations):
            raise ValueError(
                f"{name} has {array.shape[axis]} entries along axis {axis}, but there are {len(equations)} equations. "
                "Give one for each equation."
            )
        if along is None:
            continue
        place = {label: i for i, label in enumerate(along)}
        unknown = [label for label in along if label not in set(equations)]
        if unknown:
            raise ValueError(
                f"{name}: {unknown[0]!r} is not an equation{closest(unknown[0], equations)} Label it as the equations "
                "are, or pass its values alone, which are taken in their order."
            )
        again = repeated(along)
        if again:
            raise ValueError(f"{name}: equation {again[0]!r} is there more than once. Give it once.")
        array = array.take([place[label] for label in equations], axis=axis)
    return array


def _is_missing(group: Any) -> bool:
    # pandas.NA, known by its name, has no truth value
    return group is None or type(group).__name__ == "NAType" or bool(group != group)


def repeated(labels: Sequence[Hashable]) -> list[Hashable]:
    """Those that are there a second time."""
    seen: set[Hashable] = set()
    return [label for label in labels if label in seen or seen.add(label)]  # type: ignore[func-returns-value]


def labels_of(values: Any) -> list[list[Hashable] | None] | None:
    """Per axis the labels of a pandas or xarray object, None for an axis without; None for what is neither."""
    if hasattr(values, "dims") and hasattr(values, "indexes"):
        return [values.indexes[dim].tolist() if dim in values.indexes else None for dim in values.dims]
    if hasattr(values, "index") and hasattr(values, "to_numpy"):
        return [axis.tolist() for axis in values.axes]
    return None


# ------------------------------------------------------------------------------------- what an option may be


class Allowed(ABC):
    """What an option may be, as `options` declares it, and how a command line writes it.

    form : as a flag without a value, with one, with one or none, or as often as there are values.  words : the only
    ones that may be written, () where there are more.  written : what stands for the value in a usage line.
    """

    form: ClassVar[Literal["flag", "value", "flag or value", "values"]] = "value"
    words: tuple[str, ...] = ()
    written: ClassVar[str] = "TEXT"

    @abstractmethod
    def check(self, name: str, value: Any) -> None:
        """Raise TypeError or ValueError naming the option, what it may be and the value."""

    def read(self, text: str) -> Any:
        """The value that a word of a command line means. Raises ValueError saying what the word is not."""
        return text

    def together(self, values: list[Any]) -> Any:
        """What the words of a flag that may be repeated mean together."""
        return values

    def plain(self, value: Any) -> Any:
        """An allowed value as records of a fit hold it, a number of NumPy's among others."""
        return value


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
class FlagOrWord(Allowed):
    """False, True, or one of a few words for how; a command line has the flag alone for True."""

    words: tuple[str, ...]
    form = "flag or value"

    def check(self, name: str, value: Any) -> None:
        if not isinstance(value, bool) and value not in self.words:
            error = ValueError if isinstance(value, str) else TypeError
            raise error(f"{name} must be True, False, {_either(map(repr, self.words))}; got {value!r}.")


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

    def plain(self, value: Any) -> float:
        return float(value)


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

    def plain(self, value: Any) -> int:
        return int(value)


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
class NumbersOfFactors(Allowed):
    """Several numbers of factors, each once; a command line has commas between them."""

    written = "RANKS"

    def check(self, name: str, value: Any) -> None:
        if isinstance(value, str) or not isinstance(value, Iterable) or not hasattr(value, "__len__"):
            raise TypeError(f"{name} must be a list of integers; got {value!r}.")
        each: list[Any] = list(value)
        if not each or any(isinstance(k, bool) or not isinstance(k, numbers.Integral) or k < 0 for k in each):
            raise ValueError(f"{name} must be a list of integers of 0 or more, at least one; got {value!r}.")
        if len(set(each)) < len(each):
            raise ValueError(f"{name} must have each number of factors once; got {value!r}.")

    def read(self, text: str) -> tuple[int, ...]:
        return tuple(_read(int, each, "whole numbers with commas between") for each in text.split(","))

    def plain(self, value: Any) -> tuple[int, ...]:
        return tuple(int(each) for each in value)


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
