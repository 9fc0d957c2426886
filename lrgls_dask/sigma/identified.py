"""How many factors equations identify."""

from __future__ import annotations

import math

__all__ = ["check_identified", "max_rank"]


def max_rank(K: int) -> int:
    """The largest k with (K - k)^2 >= K + k (Ledermann 1937): more factors than that are not identified.

    The roots of (K - k)^2 = K + k are K + (1 -+ sqrt(8 K + 1)) / 2; all arithmetic is in integers.
    """
    root = math.isqrt(8 * K + 1)
    ceiling = root + (root * root < 8 * K + 1)
    return (2 * K + 1 - ceiling) // 2


def check_identified(rank: int, n_equations: int) -> None:
    """Raise ValueError for more factors than so many equations identify."""
    most = max_rank(n_equations)
    if rank > most:
        raise ValueError(
            f"rank {rank} is more than {n_equations} equations identify: the largest k with "
            f"(K - k)^2 >= K + k is {most}. Use rank <= {most}."
        )
