"""Which segments can carry a Sigma_t of their own, equation by equation.

Where an equation has no errors in a segment, or a segment no more rows than its regressors and factors can fit
exactly, d_t falls without bound: those few rows would then fix the coefficients, and through Sigma_t those of the other
equations. So the errors that a segment has by itself, whatever its coefficients, are looked at before the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrgls_dask.varying.windows import Segments

__all__ = ["Carried"]

# An equation whose error variance in a segment is a smaller part of its own over all segments has no errors there: a
# thousandth of the standard deviation, far beyond what volatilities do and far above what rounding leaves.
NO_ERRORS = 1e-6
# Neighbours that give at least so much of the usual variance back to such a segment keep it harmless: other
# coefficients are then within half a standard error of a fit without that equation.
LENT_ENOUGH = 0.8
SHOWN = 5


@dataclass(frozen=True, eq=False)
class Carried:
    """What the segments' own errors say, T of them.

    cells : (T, K) rows that show each equation.  free : (K,) coefficients of each equation.
    variances : (T, K) of the residuals of each segment fitted by itself, as a part of the same over all segments.
    dead : (T, K) where there are no errors.
    constant : (T, K) where the response itself does not vary.
    """

    labels: Sequence[Any]
    equations: Sequence[Any]
    cells: np.ndarray
    free: np.ndarray
    variances: np.ndarray
    dead: np.ndarray
    constant: np.ndarray

    @classmethod
    def of(cls, problem: Segments, labels: Sequence[Any]) -> Carried:
        """From segments in standard units: a QR of each segment's rows, O(T q P p)."""
        cells = problem.cells
        found = [problem.own_squares(t) for t in range(len(cells))]
        squares, about, ranks = (np.stack(part) for part in zip(*found, strict=True))
        degrees = cells - ranks
        total = np.sum(squares, axis=0) / np.maximum(np.sum(np.maximum(degrees, 0), axis=0), 1)
        own = squares / np.maximum(degrees, 1)
        judged = (degrees > 0) & ~problem.exact
        # an equation that is fitted exactly by every segment has no variance to compare with, but for rounding
        rounding = problem.resolution**2 * problem.mean_squares() + 1e-28
        dead = judged & (own <= np.maximum(NO_ERRORS * total, rounding))
        variances = np.where(dead, 0.0, own / np.where(total > 0, total, 1.0))
        return cls(
            labels,
            problem.design.equations,
            cells,
            problem.free,
            np.where(degrees > 0, variances, np.nan),
            dead,
            dead & (about / np.maximum(cells, 1) <= np.maximum(NO_ERRORS * total, rounding)),
        )

    def refusal(self, weights: np.ndarray, rank: int) -> str | None:
        """Why these weights (T, T) of segments for one another leave some Sigma_t without a minimum; None if none."""
        if (weights == weights[0, 0]).all():
            return None  # one Sigma of all rows
        return self._too_few_rows(weights, rank) or self._without_errors(weights)

    def _too_few_rows(self, weights: np.ndarray, rank: int) -> str | None:
        needed = self.free + min(rank, len(self.equations) - 1)
        seen = (weights > 0) @ self.cells
        short = np.flatnonzero((seen <= needed).any(axis=1))
        if not len(short):
            return None
        t = int(short[0])
        j = int(np.argmin(seen[t] - needed))
        more = f", and {len(short) - 1} more segments like it" if len(short) > 1 else ""
        near = (
            "" if seen[t, j] == self.cells[t, j] else f", {seen[t, j]} with the neighbours that its bandwidth reaches"
        )
        shown = "" if (self.cells == self.cells[:, :1]).all() else f" that show equation {self.equations[j]!r}"
        return (
            f"segments: {self.labels[t]!s} has {_count(self.cells[t, j], 'row')}{shown}{near}{more}, and equation "
            f"{self.equations[j]!r} has {_count(self.free[j], 'regressor')}: with {_count(rank, 'factor')} it takes "
            f"more than {needed[j]} rows to tell the errors of a segment. Join it to its neighbour, or use a bandwidth "
            "that reaches more neighbours; float('inf') is one Sigma of all rows."
        )

    def _without_errors(self, weights: np.ndarray) -> str | None:
        lent = np.where(self.dead, self._lent(weights), 1.0)
        cells = np.argwhere(lent < LENT_ENOUGH)
        if not len(cells):
            return None
        return (
            f"segments: {self._named(cells)}. A Sigma of such a segment has no variance there, and its rows would fix "
            "the coefficients of all equations. Leave the equation out, join the segment to a neighbour in which it "
            "varies, or use a bandwidth that reaches more neighbours; float('inf') is one Sigma of all rows."
        )

    def _lent(self, weights: np.ndarray) -> np.ndarray:
        """(T, K) the usual variance that every window has, segments that have no errors counting as none."""
        known = np.isfinite(self.variances)
        counted = weights @ (self.cells * known)
        lent: np.ndarray = weights @ (self.cells * (known & ~self.dead))
        return lent / np.where(counted > 0, counted, 1.0)

    def notes(self, weights: np.ndarray, on_floor: np.ndarray, rank: int) -> list[str]:
        """What to warn of: neighbours that stand in for a segment without errors; Sigma_t that ended without a bound.

        on_floor : (T, K) own variances on their floor, those of equations without errors in any row left out.
        """
        if (weights == weights[0, 0]).all():
            return []
        notes = []
        if self.dead.any():
            named = self._named(np.argwhere(self.dead))
            notes.append(
                f"{named}: its variance there is that of the neighbours, and its coefficients count those rows in full"
            )
        unbounded = np.flatnonzero(np.count_nonzero(on_floor, axis=1) > rank)
        if len(unbounded):
            t = int(unbounded[0])
            names = ", ".join(repr(self.equations[j]) for j in np.flatnonzero(on_floor[t])[:SHOWN])
            rows = _count(self.cells[t].max(), "row")
            others = f", and so in {len(unbounded) - 1} more segments" if len(unbounded) > 1 else ""
            notes.append(
                f"equations {names} have no errors left in segment {self.labels[t]!s} ({rows})"
                f"{others}, so that its rows fix coefficients of all: use longer segments, a bandwidth that reaches "
                "more neighbours, fewer factors or a larger d_floor"
            )
        return notes

    def _named(self, cells: np.ndarray) -> str:
        said = []
        for t, j in cells[:SHOWN]:
            what = "does not vary" if self.constant[t, j] else "is fitted exactly by its regressors"
            said.append(f"equation {self.equations[j]!r} {what} in segment {self.labels[t]!s}")
        more = f" and {len(cells) - SHOWN} more" if len(cells) > SHOWN else ""
        return ", ".join(said) + more


def _count(n: int | np.integer[Any], noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
