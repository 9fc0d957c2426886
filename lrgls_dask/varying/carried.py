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

from lrgls_dask.varying.segments import SegmentedProblem

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

    rows : (T,).  free : (K,) coefficients of each equation.  variances : (T, K) of the residuals of each segment
    fitted by itself, as a part of the same over all segments.  dead : (T, K) where there are no errors.
    constant : (T, K) where the response itself does not vary.
    """

    labels: Sequence[Any]
    equations: Sequence[Any]
    rows: np.ndarray
    free: np.ndarray
    variances: np.ndarray
    dead: np.ndarray
    constant: np.ndarray

    @classmethod
    def of(cls, problem: SegmentedProblem, labels: Sequence[Any]) -> Carried:
        """From segments in standard units: a QR of each segment's rows, O(T q P p)."""
        rows = np.array([each.n_obs for each in problem.segments])
        found = [problem.own_squares(t) for t in range(len(rows))]
        squares, about, ranks = (np.stack(part) for part in zip(*found, strict=True))
        degrees = rows[:, None] - ranks
        total = np.sum(squares, axis=0) / np.maximum(np.sum(np.maximum(degrees, 0), axis=0), 1)
        own = squares / np.maximum(degrees, 1)
        judged = (degrees > 0) & ~problem.merged.whitened.exact
        # an equation that is fitted exactly by every segment has no variance to compare with, but for rounding
        rounding = problem.merged.resolution**2 * total_squares(problem) + 1e-28
        dead = judged & (own <= np.maximum(NO_ERRORS * total, rounding))
        variances = np.where(dead, 0.0, own / np.where(total > 0, total, 1.0))
        return cls(
            labels,
            problem.design.equations,
            rows,
            problem.merged.free,
            np.where(degrees > 0, variances, np.nan),
            dead,
            dead & (about / rows[:, None] <= np.maximum(NO_ERRORS * total, rounding)),
        )

    def refusal(self, weights: np.ndarray, rank: int) -> str | None:
        """Why these weights (T, T) of segments for one another leave some Sigma_t without a minimum; None if none."""
        if (weights == weights[0, 0]).all():
            return None  # one Sigma of all rows
        return self._too_few_rows(weights, rank) or self._without_errors(weights)

    def _too_few_rows(self, weights: np.ndarray, rank: int) -> str | None:
        j = int(np.argmax(self.free))
        needed = int(self.free[j]) + min(rank, len(self.equations) - 1)
        seen = (weights > 0) @ self.rows
        short = np.flatnonzero(seen <= needed)
        if not len(short):
            return None
        t = int(short[0])
        more = f", and {len(short) - 1} more segments like it" if len(short) > 1 else ""
        near = "" if seen[t] == self.rows[t] else f", {seen[t]} with the neighbours that its bandwidth reaches"
        return (
            f"segments: {self.labels[t]!s} has {_count(self.rows[t], 'row')}{near}{more}, and equation "
            f"{self.equations[j]!r} has {_count(self.free[j], 'regressor')}: with {_count(rank, 'factor')} it takes "
            f"more than {needed} rows to tell the errors of a segment. Join it to its neighbour, or use a bandwidth "
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
        counted = (weights * self.rows) @ known
        lent: np.ndarray = (weights * self.rows) @ (known & ~self.dead)
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
            others = f", and so in {len(unbounded) - 1} more segments" if len(unbounded) > 1 else ""
            notes.append(
                f"equations {names} have no errors left in segment {self.labels[t]!s} ({_count(self.rows[t], 'row')})"
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


def total_squares(problem: SegmentedProblem) -> np.ndarray:
    """(K,) mean square of the responses over all rows, in standard units."""
    squares = np.sum([np.sum(s.y**2, axis=0) + s.beyond.diagonal() for s in problem.segments], axis=0)
    mean: np.ndarray = squares / problem.n_obs
    return mean


def _count(n: int | np.integer[Any], noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
