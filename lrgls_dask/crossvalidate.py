"""The likelihood of rows left out, of every candidate rank, from the cross-products of the folds: no read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrgls_dask.als import Options, Point, refit
from lrgls_dask.compress import Parts, mean_nll
from lrgls_dask.covariance import LowRank
from lrgls_dask.passes import Meter
from lrgls_dask.problem import InMemory

__all__ = ["Candidate", "held_out_nll"]

Run = Callable[[Callable[[Any, Any], Any], Any, Sequence[Any]], list[Any]]


@dataclass(frozen=True, eq=False)
class Candidate:
    """The fit of one rank to all rows, in the user's units: where the fits without a fold start."""

    coefficients: np.ndarray
    sigma: LowRank


@dataclass(frozen=True, eq=False)
class _Folds:
    parts: Parts
    candidates: tuple[Candidate, ...]
    options: Options


def held_out_nll(
    parts: Parts, candidates: tuple[Candidate, ...], options: Options, run: Run
) -> tuple[np.ndarray, np.ndarray]:
    """Negative log-likelihood per row left out, (candidates, folds), and its mean and standard error (candidates, 2).

    Each fold's parameters are fitted to the other folds' rows, from the candidate's optimum on all rows; the mean
    weighs folds by their rows, the error is the folds' standard deviation over the root of their number.
    run : calls a function of (state, item) for all items.  Raises LinAlgError naming the fold that cannot be left out.
    """
    numbers = list(parts.moments)
    nll = np.array(run(_one_fold, _Folds(parts, candidates, options), numbers)).T
    sizes = np.array([moments.head.n_rows for moments in parts.moments.values()], dtype=float)
    mean = nll @ sizes / sizes.sum()
    return nll, np.column_stack([mean, nll.std(axis=1, ddof=1) / np.sqrt(len(numbers))])


def _one_fold(folds: _Folds, number: int) -> list[float]:
    """The nll per row of this fold's rows, by rank, of fits to all other rows."""
    options = folds.options
    try:
        problem = InMemory(folds.parts.together(without=number), lam_B=options.lam_B, meter=Meter())
    except (np.linalg.LinAlgError, ValueError) as error:
        raise np.linalg.LinAlgError(
            f"without the rows of fold {number + 1} of {len(folds.parts.moments)}: {error} Or use folds='rows', or "
            "more folds, so that every fit sees the rows it needs."
        ) from error
    held_out, scale = folds.parts.part(number), problem.whitened.y_scale
    out = []
    for candidate in folds.candidates:
        c = problem.coordinates.flat(problem.whitened.coordinates(candidate.coefficients))
        sigma = candidate.sigma.rescaled(1.0 / scale)
        point = refit(problem, sigma.rank, options, Point(c, problem.residual_covariance(c), sigma))
        coefficients = problem.whitened.coefficients(problem.coordinates.by_group(point.c))
        out.append(mean_nll(held_out, coefficients, point.sigma.rescaled(scale)))
    return out
