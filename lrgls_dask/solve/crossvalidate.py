"""The likelihood of rows left out, of every candidate rank, from the cross-products of the folds: no read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lrgls_dask.compression.compressed import mean_nll
from lrgls_dask.compression.parts import Parts, compress_parts
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.partition import HashedRows, Partition, RowBlocks
from lrgls_dask.rows.rows import Rows
from lrgls_dask.sigma.interface import Sigma, Structure
from lrgls_dask.solve.in_memory import InMemory
from lrgls_dask.solve.record import Options, Point
from lrgls_dask.solve.refit import refit

__all__ = [
    "Candidate",
    "Folds",
    "check_folds",
    "compress_folds",
    "held_out_nll",
    "mean_and_error",
    "other_ways",
    "partition_of",
]

Run = Callable[[Callable[[Any, Any], Any], Any, Sequence[Any]], list[Any]]


@dataclass(frozen=True, eq=False)
class Candidate:
    """The fit of one structure to all rows, both in the user's units: where the fits without a fold start."""

    structure: Structure
    coefficients: np.ndarray
    sigma: Sigma


@dataclass(frozen=True, eq=False)
class Folds:
    """The rows fold by fold, and what every fit to them keeps to."""

    parts: Parts
    by: Literal["rows", "blocks"] = "rows"
    restrictions: Restrictions | None = None


@dataclass(frozen=True, eq=False)
class _Task:
    folds: Folds
    candidates: tuple[Candidate, ...]
    options: Options


def compress_folds(
    rows: Rows, n_folds: int, by: Literal["rows", "blocks"], restrictions: Restrictions | None, *, meter: Meter
) -> Folds:
    """n_folds folds from one pass: of "rows" by a hash of their numbers, or of "blocks" of consecutive rows.

    Raises ValueError for a fold without rows of positive weight.
    """
    parts = compress_parts(rows, partition_of(rows, n_folds, by), meter=meter)
    check_folds(n_folds, parts.moments, by)
    return Folds(parts, by, restrictions)


def partition_of(rows: Rows, n_folds: int, by: Literal["rows", "blocks"]) -> Partition:
    """Which fold each row is in."""
    return RowBlocks(n_folds, rows.n_obs) if by == "blocks" else HashedRows(n_folds)


def check_folds(n_folds: int, there: Collection[int], by: Literal["rows", "blocks"]) -> None:
    """Raise ValueError where a fold is not there."""
    empty = sorted(set(range(n_folds)) - set(there))
    if empty:
        raise ValueError(
            f"fold {empty[0] + 1} of {n_folds} has no row of positive weight. Use fewer folds, or {other_ways(by)}."
        )


def other_ways(by: Literal["rows", "blocks"]) -> str:
    """What does without folds of this kind."""
    others = "" if by == "rows" else "folds='rows', or "
    return f"{others}rank='bic', which leaves no rows out"


def held_out_nll(
    folds: Folds, candidates: tuple[Candidate, ...], options: Options, run: Run
) -> tuple[np.ndarray, np.ndarray]:
    """Negative log-likelihood per row left out, (candidates, folds), and its mean and standard error (candidates, 2).

    Each fold's parameters are fitted to the other folds' rows, from the candidate's optimum on all rows; the mean
    weighs folds by their rows, the error is the folds' standard deviation over the root of their number.
    run : calls a function of (state, item) for all items.  Raises LinAlgError naming the fold that cannot be left out.
    """
    numbers = list(folds.parts.moments)
    nll = np.array(run(_one_fold, _Task(folds, candidates, options), numbers)).T
    sizes = np.array([moments.head.n_rows for moments in folds.parts.moments.values()], dtype=float)
    return nll, mean_and_error(nll, sizes)


def mean_and_error(nll: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(candidates, 2) of nll (candidates, folds): the mean, folds weighed by their rows (folds,), and its error."""
    mean = nll @ sizes / sizes.sum()
    return np.column_stack([mean, nll.std(axis=1, ddof=1) / np.sqrt(len(sizes))])


def _one_fold(task: _Task, number: int) -> list[float]:
    """The nll per row of this fold's rows, by candidate, of fits to all other rows."""
    options, folds = task.options, task.folds
    try:
        rows = folds.parts.together(without=number)
        problem = InMemory(rows, lam_B=options.lam_B, meter=Meter(), restrictions=folds.restrictions)
    except (np.linalg.LinAlgError, ValueError) as error:
        raise np.linalg.LinAlgError(
            f"without the rows of fold {number + 1} of {len(folds.parts.moments)}: {error} Or use "
            f"{other_ways(folds.by)}."
        ) from error
    held_out, scale = folds.parts.part(number), problem.whitened.y_scale
    out = []
    for candidate in task.candidates:
        c = problem.coordinates.flat(problem.whitened.coordinates(candidate.coefficients))
        sigma = candidate.sigma.rescaled(1.0 / scale)
        point = refit(
            problem, candidate.structure.in_units(scale), options, Point(c, problem.residual_covariance(c), sigma)
        )
        coefficients = problem.whitened.coefficients(problem.coordinates.by_group(point.c))
        out.append(mean_nll(held_out, coefficients, point.sigma.rescaled(scale)))
    return out
