"""The last digits of a bounded minimum, from gradients alone.

Near a minimum the value of an objective is flat to rounding over a distance of about 1e-8, where a line search on
values has to end; its gradient is not. Newton steps by conjugate gradients (Steihaug 1983) with products of the Hessian
from central differences of the gradient (Dembo, Eisenstat and Steihaug 1982) take the gradient itself to rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lrgls_dask.sigma.interface import Array

__all__ = ["polished"]

# Cube root of rounding: where truncation and cancellation of a central difference of gradients are about equal.
DIFFERENCE = 1e-5
STEPS, INNER = 4, 60
# How far the inner residual falls before a Newton step is taken, and the gradient that is rounding.
INNER_FALL, SMALL = 1e-4, 1e-14


def polished(gradient: Callable[[Array], Array], z: Array, lower: Array) -> Array:
    """z (n,) moved by Newton steps within z >= lower (n,) while they make the projected gradient smaller.

    z must be near a minimum already.  At most STEPS x INNER x 2 gradients.  A singular Hessian does no harm where the
    gradient has no part in its null space, as that of a function that rotations leave alone.
    """
    g = gradient(z)
    for _ in range(STEPS):
        free = (z > lower) | (g < 0.0)
        size = float(np.abs(g[free]).max(initial=0.0))
        if size <= SMALL:
            break
        step = _newton_step(gradient, z, np.where(free, -g, 0.0), free)
        trial = np.maximum(z + step / max(1.0, float(np.abs(step).max())), lower)
        g_trial = gradient(trial)
        free = (trial > lower) | (g_trial < 0.0)
        if not float(np.abs(g_trial[free]).max(initial=0.0)) < size:
            break
        z, g = trial, g_trial
    return z


def _newton_step(gradient: Callable[[Array], Array], z: Array, residual: Array, free: NDArray[np.bool_]) -> Array:
    """p with H p = residual on the free coordinates, up to INNER_FALL or a direction without curvature."""
    step, direction, energy = np.zeros_like(z), residual.copy(), float(residual @ residual)
    goal = INNER_FALL**2 * energy
    for _ in range(INNER):
        h = DIFFERENCE / max(float(np.abs(direction).max()), 1e-300)
        image = np.where(free, gradient(z + h * direction) - gradient(z - h * direction), 0.0) / (2.0 * h)
        curvature = float(direction @ image)
        if curvature <= 0.0 or energy <= goal:
            break
        length = energy / curvature
        step += length * direction
        residual = residual - length * image
        before, energy = energy, float(residual @ residual)
        direction = residual + (energy / before) * direction
    return step
