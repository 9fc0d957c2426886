"""Preconditioned conjugate gradients for the generalised-least-squares step (Hestenes and Stiefel 1952)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lrgls_dask.solve.constraint import Constraint, Preconditioner

__all__ = ["Solution", "conjugate_gradients"]


@dataclass(frozen=True, eq=False)
class Solution:
    """x : (P,).  steps : the step length of every iteration.  energy : r'M^-1 r at the end, M the preconditioner.
    gain : by how much x'A x / 2 - x'b fell."""

    x: np.ndarray
    steps: tuple[float, ...]
    energy: float
    gain: float


def conjugate_gradients(
    product: Callable[[np.ndarray, np.ndarray], np.ndarray],
    x: np.ndarray,
    residual: np.ndarray,
    diagonal: np.ndarray,
    *,
    tol: float,
    max_iterations: int,
    constraint: Constraint | None = None,
    precondition: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None,
) -> Solution:
    """x with A x = b, from a start x with the given residual b - A x.

    product(p, x) -> A p; x is handed along for callers whose product also looks at the current point.
    diagonal : (P,) the preconditioner M.  Stops when r'M^-1 r <= tol.  Costs one product an iteration.
    constraint : kept to by every iterate if x keeps to it; then x minimises x'A x / 2 - x'b among those that do.
    precondition : another M, as `Preconditioner` answers, which keeps to the constraint by itself.
    """
    precondition = Preconditioner(diagonal, constraint) if precondition is None else precondition
    x, (residual, z) = x.copy(), precondition(residual.copy())
    energy = float(residual @ z)
    direction = z.copy()
    steps: list[float] = []
    gain = 0.0
    while energy > tol and len(steps) < max_iterations:
        image = product(direction, x)
        curvature = float(direction @ image)
        if curvature <= 0:  # only rounding can make it so
            break
        step = energy / curvature
        x += step * direction
        residual -= step * image
        steps.append(step)
        gain += 0.5 * step * energy
        residual, z = precondition(residual)
        previous, energy = energy, float(residual @ z)
        direction = z + (energy / previous) * direction
    return Solution(x, tuple(steps), energy, gain)
