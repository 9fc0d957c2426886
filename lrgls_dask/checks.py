"""Arguments that are one of a few names, a number in a range, a probability, a number of factors."""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

__all__ = ["check_alpha", "check_rank", "closest", "number", "one_of", "shown"]


def check_alpha(alpha: Any) -> None:
    """Raise ValueError for what is no probability of missing an interval's target."""
    if isinstance(alpha, bool) or not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, both excluded; got {alpha!r}.")


def check_rank(rank: Any) -> None:
    """Raise TypeError or ValueError for what is no number of factors and no way to choose one."""
    if isinstance(rank, str):
        one_of("rank", rank, ("auto", "bic", "cv"))
    elif isinstance(rank, bool) or not isinstance(rank, numbers.Integral):
        raise TypeError(f"rank must be an integer, 'auto', 'bic' or 'cv'; got {rank!r}.")
    elif rank < 0:
        raise ValueError(f"rank must be 0 or more; got {rank}.")


def one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raise ValueError for a value that is not allowed."""
    if value not in allowed:
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
