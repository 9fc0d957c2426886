"""Equations that cannot be estimated: what became of each, and what is left of the design without them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from lrgls_dask.design.design import Design
from lrgls_dask.design.hypotheses import read_hypotheses
from lrgls_dask.design.narrowed import Narrowed, narrowed
from lrgls_dask.design.restrictions import Restrictions

__all__ = [
    "CONSTANT",
    "LISTED",
    "NO_ROWS",
    "OK",
    "ON_FLOOR",
    "Skipped",
    "hypotheses_about",
    "listed",
    "status_of",
    "unusable_equations",
]

OK, CONSTANT, ON_FLOOR, NO_ROWS = "ok", "constant", "on floor", "no rows"
LISTED = 5  # of equations that cannot be estimated, by a message that has to end


def status_of(rows: int, size: int) -> str:
    """Why so many rows are too few for so many regressors: of those that determine them, or leave a residual besides;
    "ok" where they are not."""
    if rows == 0:
        return NO_ROWS
    if rows <= size:
        return f"too few rows ({rows} of {size if rows < size else size + 1})"
    return OK


def unusable_equations(equations: Sequence[Hashable], status: Sequence[str], become: str = "") -> str:
    """How many there are of all, and why, a few of them by name.  become : what of them."""
    found = [f"{name!r} ({said})" for name, said in zip(equations, status, strict=True) if said != OK]
    return f"{len(found):,} of {len(status):,} equations{become}: {listed(found)}"


def listed(names: Sequence[str]) -> str:
    """The first of them, and how many there are besides."""
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return f"{', '.join(names[:LISTED])}{more}"


@dataclass(frozen=True, eq=False)
class Skipped:
    """Equations of which some were left out of a fit.  whole : with all.  status : (K,) why, or "ok" for the others."""

    whole: Design
    status: tuple[str, ...]

    @cached_property
    def equations(self) -> np.ndarray:
        """Positions of those that are left."""
        return np.flatnonzero([said == OK for said in self.status])

    @cached_property
    def kept(self) -> Narrowed:
        """What is left of the design."""
        return narrowed(self.whole, self.equations)

    @classmethod
    def of(cls, whole: Design, before: Skipped | None, which: Mapping[int, str]) -> Skipped | None:
        """With others besides those that were left out `before`; None where nothing would be left.

        which : why, by position among those that were left.
        """
        status = [OK] * whole.n_equations if before is None else list(before.status)
        at = np.flatnonzero([said == OK for said in status])
        for j, said in which.items():
            status[at[j]] = said
        return cls(whole, tuple(status)) if OK in status else None

    @property
    def can_be_shown(self) -> bool:
        """Whether rows of those that are left may be joined by rows of all: no row shows the others, and neither
        weights of cells nor absorbed effects are of rows of all."""
        unseen = {*self.status} <= {OK, NO_ROWS}
        return unseen and self.whole.own is None and self.whole.absorbed is None

    def why(self, equation: Hashable) -> str:
        """What became of the equation of this name; nothing of one that is left, or of none."""
        return self._reasons.get(equation, "")

    @cached_property
    def _reasons(self) -> dict[Hashable, str]:
        both = zip(self.whole.equations, self.status, strict=True)
        return {name: said for name, said in both if said != OK}

    def restrictions(self, hypotheses: Any) -> Restrictions:
        """Hypotheses about the equations that are left, "*" being all of these.

        hypotheses : as `read_hypotheses` takes them; a matrix has a column for each coefficient of all equations.
        Raises ValueError for one about an equation that was skipped, saying why it was.
        """
        kept = self.kept
        try:
            return read_hypotheses(kept.design, hypotheses)
        except (ValueError, KeyError, TypeError):
            found = read_hypotheses(self.whole, hypotheses)  # which says what else is wrong with it
        for j in self.whole.equation_of[found.about].tolist():
            if self.status[j] != OK:
                of_rows = found.rows[:, self.whole.spans[j]]
                text = found.texts[int(np.flatnonzero(np.diff(of_rows.indptr))[0])]
                raise ValueError(
                    f"{text!r} is about equation {self.whole.equations[j]!r}, which is skipped ({self.status[j]}): its "
                    "coefficients are not estimated. Leave it out."
                ) from None
        return replace(found, rows=found.rows[:, kept.coefficients])

    def placed(self, values: np.ndarray, of: str, axis: int) -> np.ndarray:
        """Values of each equation, or coefficient, that is left along an axis, among NaN for the others.

        of : "equation" or "coefficient".
        """
        at, size = self.equations, self.whole.n_equations
        if of == "coefficient":
            at, size = self.kept.coefficients, self.whole.n_coefficients
        shape = list(values.shape)
        shape[axis] = size
        found = np.full(shape, np.nan)
        np.moveaxis(found, axis, 0)[at] = np.moveaxis(values, axis, 0)
        return found


def hypotheses_about(design: Design, skipped: Skipped | None, hypotheses: Any) -> Restrictions:
    """R b = r for the coefficients that were estimated, those of `design`; see `Skipped.restrictions`."""
    return read_hypotheses(design, hypotheses) if skipped is None else skipped.restrictions(hypotheses)
