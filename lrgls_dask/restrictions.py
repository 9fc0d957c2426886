"""Linear restrictions on the coefficients, R b = r."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lrgls_dask.design import Design

__all__ = ["Restrictions", "as_restrictions"]

DEPENDENT = 1e-9  # the part of a unit row outside the span of others that is told from zero


@dataclass(frozen=True, eq=False)
class Restrictions:
    """m linear equations in the P coefficients, equation by equation, in the user's units.

    matrix : (m, P) R, of full row rank.  values : (m,) r.  texts : how each was written, for messages and tables.
    """

    matrix: np.ndarray
    values: np.ndarray
    texts: tuple[str, ...]

    @property
    def n_restrictions(self) -> int:
        """m."""
        return len(self.values)


def as_restrictions(design: Design, given: Any) -> Restrictions | None:
    """The restrictions that `given` states on the coefficients of `design`, checked; None where there are none.

    given : None, a Restrictions, or a pair (R, r) of (m, P) and (m,) numbers in the user's units.
    Raises ValueError for shapes that do not fit, for values that are not finite, and for a restriction that follows
    from the others or contradicts them, TypeError for anything else.
    """
    if given is None:
        return None
    if isinstance(given, Restrictions):
        restrictions = given
    elif isinstance(given, tuple) and len(given) == 2:
        restrictions = _from_arrays(design, *given)
    else:
        raise TypeError(f"restrictions must be None, a Restrictions or a pair (R, r); got {type(given).__name__}.")
    _check_shapes(design, restrictions)
    _check_independent(restrictions)
    return restrictions if restrictions.n_restrictions else None


def _from_arrays(design: Design, matrix: Any, values: Any) -> Restrictions:
    R = np.array(matrix, dtype=np.float64, ndmin=2)
    r = np.array(values, dtype=np.float64, ndmin=1)
    texts = tuple(_written(design, row, value) for row, value in zip(R, r, strict=False))
    return Restrictions(R, r, texts)


def _written(design: Design, row: np.ndarray, value: float) -> str:
    """The restriction by labels, e.g. "2 Telcm:smb - food:price = 1"."""
    if row.shape != (design.n_coefficients,):
        return f"row of {row.size} numbers"
    names = [f"{e}:{t}" for e, terms in zip(design.equations, design.terms, strict=True) for t in terms]
    text = ""
    for i in np.flatnonzero(row):
        sign = "-" if row[i] < 0 else "+" if text else ""
        size = "" if abs(row[i]) == 1 else f"{abs(row[i]):g} "
        text += f" {sign} {size}{names[i]}" if text else f"{sign}{size}{names[i]}"
    return f"{text or '0'} = {value:g}"


def _check_shapes(design: Design, restrictions: Restrictions) -> None:
    R, r = restrictions.matrix, restrictions.values
    if R.ndim != 2 or r.ndim != 1 or len(R) != len(r) or R.shape[1] != design.n_coefficients:
        raise ValueError(
            f"restrictions must be R (m, P) and r (m,) with P = {design.n_coefficients} coefficients, equation by "
            f"equation; got R {R.shape} and r {r.shape}."
        )
    finite = np.isfinite(R).all(axis=1) & np.isfinite(r)
    if not finite.all():
        raise ValueError(f"restrictions must be finite; number {int(np.argmin(finite)) + 1} is not.")


def _check_independent(restrictions: Restrictions) -> None:
    """Each row must bring something new.  O(m^2 P)."""
    sizes = np.abs(restrictions.matrix).max(axis=0, initial=0.0)
    scaled = restrictions.matrix / np.where(sizes > 0, sizes, 1.0)
    lengths = np.linalg.norm(scaled, axis=1)
    basis = np.zeros((0, scaled.shape[1]))
    for i, (row, text) in enumerate(zip(scaled, restrictions.texts, strict=True)):
        if lengths[i] == 0:
            what = "says nothing" if restrictions.values[i] == 0 else "cannot be met"
            raise ValueError(f"restriction {text!r} names no coefficient and {what}. Drop it.")
        unit = row / lengths[i]
        left = unit - basis.T @ (basis @ unit)
        left -= basis.T @ (basis @ left)
        if np.linalg.norm(left) < DEPENDENT:
            raise _dependent(restrictions, scaled, i)
        basis = np.vstack([basis, left / np.linalg.norm(left)])


def _dependent(restrictions: Restrictions, scaled: np.ndarray, i: int) -> ValueError:
    weights = np.linalg.lstsq(scaled[:i].T, scaled[i], rcond=None)[0]
    used = np.flatnonzero(np.abs(weights) > 1e-6 * np.abs(weights).max())
    implied = float(weights @ restrictions.values[:i])
    size = float(np.abs(weights) @ np.abs(restrictions.values[:i])) + abs(float(restrictions.values[i]))
    others = " and ".join(repr(restrictions.texts[j]) for j in used)
    text = repr(restrictions.texts[i])
    if abs(implied - restrictions.values[i]) > 1e-9 * size:
        return ValueError(f"restriction {text} contradicts {others}: no coefficients meet them all. Drop one of them.")
    return ValueError(f"restriction {text} is redundant: it follows from {others}. Drop it.")
