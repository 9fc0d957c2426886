"""Starting values of the coefficients: every equation fitted by itself, moved to where the restrictions are kept.

Where restrictions tie equations together that can be done with many weights for the equations, and the likelihood may
have an optimum near each: with independent errors it is -sum_j N / 2 log RSS_j(b), high where one equation is fitted
closely at the cost of the others. That likelihood is known without the rows, RSS_j(c) = RSS_j + |c_j - c_j^|^2 about
each equation's own fit c_j^ in orthonormal coordinates, and its best optimum is where other structures start too.
"""

from __future__ import annotations

import numpy as np

from lrgls_dask.solve.interface import Posed, Problem

__all__ = ["in_user_units", "least_squares", "starting_residuals", "starting_values", "ties_equations"]

# How much more an equation counts than the others where it comes first.
FIRST = 1e4
# Up to this K every equation comes first once; above, as many as agree best with the others.
EACH_UP_TO, FEW = 12, 4
# Multiplications that a step with other weights costs, above which no optima are looked for: a tenth of a second.
COSTLY = 1e8
# Points nearer than this, relative to max(1, |c|), in standard errors, are one.
SAME_POINT = 1e-4
# Steps of a search, and how short the last is, relative as above: enough to tell optima apart, a start needs no digits.
ROUNDS, SETTLED = 100, 1e-6


def starting_residuals(problem: Problem, *, pooled: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """c (P,) and S (K, K): every equation fitted by itself, moved as little as the restrictions allow.

    pooled : count squared residuals of all equations alike in the user's units, which is restricted ordinary least
    squares as one-step programs understand it, rather than in standard units.
    """
    c = least_squares(problem) if pooled else _weighted(problem, np.ones(problem.design.n_equations))
    return c, problem.residual_covariance(c)


def least_squares(problem: Posed) -> np.ndarray:
    """(P,) c of ordinary least squares, all equations counted alike in the user's units where restrictions tie them."""
    return _weighted(problem, in_user_units(problem))


def ties_equations(problem: Posed) -> bool:
    """Whether a restriction is about coefficients of several equations."""
    if problem.constraint is None:
        return False
    equation = problem.coordinates.expand(np.arange(problem.design.n_equations, dtype=float))
    touched = problem.constraint.rows != 0.0
    first = np.where(touched, equation, np.inf).min(axis=1)
    return bool(np.any(np.where(touched, equation, -np.inf).max(axis=1) > first))


def starting_values(problem: Posed) -> list[np.ndarray]:
    """Distinct c (P,) to start from, the most promising first, which is the one to take where each costs passes.

    Every equation fitted by itself, the only one unless restrictions tie equations. Then that moved as little as
    possible, the least squares of all equations alike in the user's units, and before these the optimum with errors
    independent across equations, the best that is found from these two and from every equation in turn kept to its own
    fit.  No pass; some tens of times O(m^2 P) for m restrictions.
    """
    first = _weighted(problem, np.ones(problem.design.n_equations))
    if not ties_equations(problem):
        return [first]
    pooled = _weighted(problem, in_user_units(problem))
    return _distinct([*_optimum(problem, first, pooled), first, pooled])


# ---------------------------------------------------------------------------------------------- inside


def _optimum(problem: Posed, first: np.ndarray, pooled: np.ndarray) -> list[np.ndarray]:
    """The best c (P,) to which independent errors lead; none where that would cost much.

    Their other optima are no starts: from there a full Sigma goes on to errors that nearly cancel.
    """
    assert problem.constraint is not None
    if len(problem.constraint.values) * problem.constraint.rows.size > COSTLY:
        return []
    n = problem.design.n_equations
    leading = np.arange(n) if n <= EACH_UP_TO else np.argsort(_variances(problem, first), kind="stable")[:FEW]
    kept = [_weighted(problem, np.where(np.arange(n) == j, FIRST, 1.0)) for j in leading]
    ends = [_with_independent_errors(problem, c) for c in (first, pooled, *kept)]
    return [min(ends, key=lambda end: end[0])[1]]


def _distinct(points: list[np.ndarray]) -> list[np.ndarray]:
    """Those that differ from all before them by more than rounding, or than what a search leaves."""
    found: list[np.ndarray] = []
    for c in points:
        near = SAME_POINT * max(1.0, float(np.linalg.norm(c)))
        if all(np.linalg.norm(c - other) > near for other in found):
            found.append(c)
    return found


def in_user_units(problem: Posed) -> np.ndarray:
    """(K,) by what squared residuals in standard units count so that they count alike in the user's."""
    scale = problem.whitened.y_scale
    return np.asarray((scale / scale.max()) ** 2)


def _weighted(problem: Posed, weight: np.ndarray) -> np.ndarray:
    """(P,) restricted weighted least squares, the ridge included; weight (K,)."""
    c, ridge = problem.coordinates.flat(problem.whitened.start), problem.coordinates.ridge
    if problem.constraint is None:
        return c
    by_coefficient = problem.coordinates.expand(weight)
    metric = by_coefficient * (1.0 - ridge) + ridge
    return problem.constraint.nearest(c * (by_coefficient / metric), metric)


def _variances(problem: Posed, c: np.ndarray) -> np.ndarray:
    """(K,) the residual variances at c (P,) in standard units, in which they are 1 at each equation's own fit."""
    n, kept = problem.design.n_equations, 1.0 - problem.coordinates.ridge
    own = problem.coordinates.flat(problem.whitened.start) / np.where(kept > 0.0, kept, 1.0)
    equation = problem.coordinates.expand(np.arange(n, dtype=float)).astype(np.intp)
    return np.asarray(1.0 + np.bincount(equation, kept * (c - own) ** 2, n) / problem.cells)


def _with_independent_errors(problem: Posed, c: np.ndarray) -> tuple[float, np.ndarray]:
    """The objective with a diagonal Sigma, up to a constant, and the c (P,) that reweighted least squares lead to."""

    def objective(c: np.ndarray, variances: np.ndarray) -> float:
        ridge = float(problem.coordinates.ridge @ c**2)
        return 0.5 * (float(problem.cells @ np.log(variances)) + ridge)

    variances = _variances(problem, c)
    for _ in range(ROUNDS):
        before, c = c, _weighted(problem, 1.0 / variances)
        variances = _variances(problem, c)
        if np.linalg.norm(c - before) <= SETTLED * max(1.0, float(np.linalg.norm(c))):
            break
    return objective(c, variances), c
