"""Columns whose numbers are so large or small that their squares, or those of coefficients, are none of float64's."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol

import numpy as np

from lrgls_dask.design.design import Design, DesignGroup

__all__ = ["check_ratios", "check_sizes"]

# Variations are as small as 1e-16 of a level, and residuals of a variation, and are squared; float64 ends at 1e-308 and
# at 1e308.
SMALLEST, LARGEST = 1e-130, 1e150
# log10 of coefficients: a standard error is as large as the inverse of the least singular value, 1e12, times the upper
# one, and is squared.
LEAST_ORDER, LARGEST_ORDER = -150.0, 140.0


class OfGroup(Protocol):
    """What belongs to one design."""

    @property
    def group(self) -> DesignGroup: ...


def check_sizes(design: Design, parts: Sequence[OfGroup], x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> None:
    """Raise ValueError naming the first column, x (G, r, p) or y (G, s, m), whose squares over- or underflow.

    counts : (G, 1) rows that the rows of each design stand for.  A column of zeros is not too small.
    """
    for name, rows in (("X, regressor", x), ("Y, equation", y)):
        size = np.max(np.abs(rows), axis=1) / np.sqrt(counts)
        bad = ~(size < LARGEST) | ((size > 0) & (size < SMALLEST))
        if bad.any():
            g, i = (int(at) for at in np.argwhere(bad)[0])
            group = parts[g].group
            label = _regressor(design, group, i) if rows is x else design.equations[int(group.equations[i])]
            raise _refusal(f"{name} {label!r}", float(size[g, i]))


def _refusal(where: str, size: float) -> ValueError:
    what, do = ("small", "Multiply") if size < SMALLEST else ("large", "Divide")
    bound = f"above {SMALLEST:.0e}" if size < SMALLEST else f"below {LARGEST:.0e}"
    return ValueError(
        f"{where}: values of the order {size:.0e}, roots of weights included, are too {what}: their squares are no "
        f"numbers of float64. {do} the column by a constant that brings it {bound}."
    )


def check_ratios(design: Design, parts: Sequence[OfGroup], x: np.ndarray, scale: np.ndarray) -> None:
    """Raise ValueError naming the first coefficient whose variance would over- or underflow.

    x : (G, r, p) such that the norm of a column is its rms.  scale : (G, m) of the residuals of Y.
    """
    variation = np.linalg.norm(x[:, 1:], axis=1)
    size = np.where(variation > 0, variation, np.abs(x[:, 0]))
    with np.errstate(divide="ignore"):  # a column of zeros has no coefficient to speak of
        order = np.log10(scale)[:, None, :] - np.log10(size)[:, :, None]
    bad = np.isfinite(order) & ((order < LEAST_ORDER) | (order > LARGEST_ORDER))
    if bad.any():
        g, i, j = (int(at) for at in np.argwhere(bad)[0])
        group = parts[g].group
        raise ValueError(
            f"equation {design.equations[int(group.equations[j])]!r}, regressor {_regressor(design, group, i)!r}: the "
            f"coefficient is of the order 1e{order[g, i, j]:+.0f}, and its variance is no number of float64. Multiply "
            "or divide the response or the regressor by a constant that brings them nearer to each other."
        )


def _regressor(design: Design, group: DesignGroup, i: int) -> Hashable:
    return design.regressors[int(group.columns[i])]
