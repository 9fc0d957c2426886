"""The likelihood of what rows left out show, of every candidate rank, from the folds of one pass: no read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lrgls_dask.compression.compressed import LOST_DIGITS, smallest_pivot
from lrgls_dask.compression.parts import Parts
from lrgls_dask.compression.patterns import FirstMoments
from lrgls_dask.compression.shown_parts import SeenRows, ShownParts, compress_shown_parts
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.missing.kernels import MaskedParams, residuals_of
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.missing.pseudo_rows import PatternRows
from lrgls_dask.missing.refit import refit_shown
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.moments import RootMoments
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.tasks import run_tasks
from lrgls_dask.rows.tiles import Tiles, fitted
from lrgls_dask.sigma.interface import LOG_2PI, Sigma
from lrgls_dask.solve.crossvalidate import (
    Candidate,
    Folds,
    check_folds,
    compress_folds,
    mean_and_error,
    other_ways,
    partition_of,
)
from lrgls_dask.solve.record import Options

__all__ = ["ShownFolds", "compress_any_folds", "shown_held_out_nll", "shown_nll"]

Way = Literal["rows", "blocks"]


@dataclass(frozen=True, eq=False)
class ShownFolds:
    """The rows fold by fold, and what every fit to them keeps to."""

    parts: ShownParts
    by: Way = "rows"
    restrictions: Restrictions | None = None


@dataclass(frozen=True, eq=False)
class _Task:
    folds: ShownFolds
    candidates: tuple[Candidate, ...]
    options: Options


def compress_any_folds(
    rows: Rows, n_folds: int, by: Way, restrictions: Restrictions | None, *, meter: Meter
) -> ShownFolds | Folds:
    """n_folds folds from one pass, as `compress_folds`; those where no response is missing if there is none.

    Raises ValueError for a fold of which no row shows anything, and for patterns too many where rows are too.
    """
    found = compress_shown_parts(
        rows, partition_of(rows, n_folds, by), meter=meter, remedy="Use rank='bic', or missing='drop'"
    )
    parts = found.that_show()
    check_folds(n_folds, parts.parts, by)
    if not found.together().moments.is_complete:
        return ShownFolds(parts, by, restrictions)
    moments = {number: moment for number, part in parts.parts.items() for moment in (part.patterns or {}).values()}
    is_qr = all(isinstance(each, RootMoments) for each in moments.values())
    whole = Parts(rows.design, moments, "qr" if is_qr else "gram")  # type: ignore[arg-type]
    if is_qr or smallest_pivot(whole.together()) > LOST_DIGITS:
        return Folds(whole, by, restrictions)
    return compress_folds(rows, n_folds, by, restrictions, meter=meter)


def shown_held_out_nll(
    folds: ShownFolds, candidates: tuple[Candidate, ...], options: Options
) -> tuple[np.ndarray, np.ndarray]:
    """Negative log-likelihood per row left out, (candidates, folds), and its mean and standard error (candidates, 2).

    As `held_out_nll` of what each row shows; rows that show nothing do not count.
    """
    numbers = list(folds.parts.parts)
    nll = np.array(run_tasks(_one_fold, _Task(folds, candidates, options), numbers, here=True)).T
    sizes = np.array([_n_shown(part) for part in folds.parts.parts.values()], dtype=float)
    return nll, mean_and_error(nll, sizes)


def _n_shown(part: FirstMoments) -> int:
    return part.n_rows - part.empty


def _one_fold(task: _Task, number: int) -> list[float]:
    """The nll per row of this fold's rows, by candidate, of fits to all other rows."""
    options, folds = task.options, task.folds
    try:
        rows = folds.parts.together(without=number)
        problem = Incomplete(rows, lam_B=options.lam_B, meter=Meter(), restrictions=folds.restrictions)
    except (np.linalg.LinAlgError, ValueError) as error:
        raise np.linalg.LinAlgError(
            f"without the rows of fold {number + 1} of {len(folds.parts.parts)}: {error} Or use {other_ways(folds.by)}."
        ) from error
    held_out, scale, out = folds.parts.part(number), problem.whitened.y_scale, []
    for candidate in task.candidates:
        c, sigma = problem.whitened_coefficients(candidate.coefficients), candidate.sigma.rescaled(1.0 / scale)
        point = refit_shown(problem, candidate.structure.in_units(scale), options, c, sigma)
        out.append(shown_nll(held_out, problem.coefficients(point.c), point.sigma.rescaled(scale)))
    return out


def shown_nll(seen: SeenRows, coefficients: np.ndarray, sigma: Sigma) -> float:
    """Negative log-likelihood of given parameters, in the user's units, per row that shows something.

    Nothing is asked of the rows: an equation may be in none of them.
    """
    design, first = seen.design, seen.moments
    q, origin = design.n_regressors, np.zeros(design.n_regressors + design.n_equations)
    log_weight = 0.0
    for group, found in zip(design.groups, first.groups, strict=True):
        log_weight += float(found.log_weight.sum())
        for j, mean in zip(group.equations[found.rows > 0], found.mean[found.rows > 0], strict=True):
            origin[group.columns], origin[q + j] = mean[:-1], mean[-1]
    tiles = Tiles.of(design.batches)
    b = coefficients[tiles.batches.places]
    level = origin[q:] - fitted(origin[None, :q], b, tiles)[0]
    params = MaskedParams(design.groups, tiles, origin, np.ones(design.n_equations), b, level, sigma)
    held = PatternRows.of_rows(first.rows, origin) if first.patterns is None else None
    total = 0.0
    for slab in (held or PatternRows.of(first.patterns or {}, design, origin)).slabs():
        count = np.ones(len(slab.x)) if slab.count is None else slab.count
        residual = residuals_of(slab, params)
        given = sigma.rows(slab.observed).given(residual)
        total += float(np.vdot(residual, given.scaled)) + float(given.log_dets @ count)
        total += LOG_2PI * float((count @ slab.observed).sum())
    return 0.5 * (total - log_weight) / _n_shown(first)
