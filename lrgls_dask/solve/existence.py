"""Whether an unrestricted Sigma has a maximum of the likelihood, and what to say where it has none.

log|S| falls without bound where coefficients exist at which a combination of the residuals vanishes,
sum_j a_j (y_j - X_j b_j) = 0 with a not zero: a combination Y a within the columns of the equations that a involves.
"""

from __future__ import annotations

import numpy as np

from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.sigma.full import Full, SingularCovariance
from lrgls_dask.solve.interface import Problem
from lrgls_dask.solve.record import Options
from lrgls_dask.solve.starting_values import starting_residuals
from lrgls_dask.solve.whiten import resolution_of

__all__ = ["no_maximum", "vanishing_combination"]

INVOLVED = 1e-6  # a weight in a unit vector that is told from zero


def vanishing_combination(system: Compressed) -> np.ndarray:
    """Equations (m,) of which some combination of responses is an exact one of their regressors; none if m = 0.

    O(K^3), and O((q + K)^3) where the responses are singular given all regressors, which decides it only once those
    that do not belong to the equations involved are left out.
    """
    resolution = resolution_of(system)
    q = system.design.n_regressors
    rows = system.stacked()
    sizes = np.linalg.norm(rows[1:], axis=0)
    sizes = np.where(sizes > 0, sizes, np.where(rows[0] != 0, np.abs(rows[0]), 1.0))
    rows /= sizes
    beyond = np.linalg.svd(rows[q + 1 :, q:], compute_uv=False)
    if len(beyond) == system.design.n_equations and beyond[-1] > resolution:
        return np.zeros(0, dtype=np.intp)
    involved = np.arange(system.design.n_equations)
    while len(involved):
        columns = np.unique(np.concatenate([system.design.columns[j] for j in involved]))
        weights = _null_weights(rows[:, columns], rows[:, q + involved], resolution)
        left = involved[weights > INVOLVED]
        if len(left) == len(involved):
            return involved
        involved = left
    return involved


def _null_weights(x: np.ndarray, y: np.ndarray, resolution: float) -> np.ndarray:
    """(m,) the largest weight of each response among unit combinations of y (n, m) within the span of x (n, p)."""
    constant = ~x[1:].any(axis=0)
    centred = x.copy()
    if constant.any():  # beside a constant only variation counts
        centred[0, ~constant] = 0.0
        y = y.copy()
        y[0] = 0.0
    basis, s, _ = np.linalg.svd(centred, full_matrices=False)
    basis = basis[:, s > resolution * max(1.0, float(s.max(initial=0.0)))]
    left = y - basis @ (basis.T @ y)
    left -= basis @ (basis.T @ left)
    _, s, vt = np.linalg.svd(left, full_matrices=True)
    s = np.concatenate([s, np.zeros(y.shape[1] - len(s))])
    return np.abs(vt[s <= resolution]).max(axis=0, initial=0.0)


def no_maximum(problem: Problem, options: Options, involved: np.ndarray | None = None) -> ValueError:
    """The refusal, naming N, q, K, the equations if they are known, and the remedy."""
    design = problem.design
    size = f"{problem.n_obs:,} rows, {design.n_regressors:,} distinct regressors and {design.n_equations:,} equations"
    if options.one_step:
        wanted = "weight by its inverse" if options.algorithm == "fgls" else "have a likelihood"
        return ValueError(
            f"the residual covariance of {design.n_equations:,} equations fitted one by one is singular "
            f"({size}), so covariance='full' cannot {wanted}. "
            "Use covariance='lowrank', fewer equations or more rows."
        )
    which = "some of the equations"
    if involved is not None and len(involved):
        names = [repr(design.equations[j]) for j in involved[:5]]
        which = ", ".join(names) + (f" and {len(involved) - 5} more" if len(involved) > 5 else "")
    return ValueError(
        f"no maximum likelihood fit with covariance='full' exists: with {size}, a combination of the responses of "
        f"{which} is an exact combination of their regressors, so the likelihood has no bound. "
        f"Use {_one_step(problem)}covariance='lowrank', fewer equations or more rows."
    )


def _one_step(problem: Problem) -> str:
    """The advice to take one step of GLS, where the residuals it starts from have a covariance with an inverse."""
    _, S = starting_residuals(problem, pooled=True)
    try:
        Full().update(S, np.zeros(len(S)), None)
    except SingularCovariance:
        return ""
    return "algorithm='fgls', "
