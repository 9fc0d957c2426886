"""Arguments that are one of a few names, a number in a range, a probability, a number of factors."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

__all__ = ["check_alpha", "check_rank", "number", "one_of"]


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
