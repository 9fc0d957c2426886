"""The likelihood of what rows left out show, of every candidate rank, from the folds of one pass: no read where
the rows are then at hand, and else passes that all folds and ranks share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import numpy as np

from lrgls_dask.compression.compressed import LOST_DIGITS, smallest_pivot
from lrgls_dask.compression.parts import Parts
from lrgls_dask.compression.patterns import FirstMoments
from lrgls_dask.compression.shown_parts import SeenRows, ShownParts, compress_shown_parts
from lrgls_dask.design.penalties import Ridge
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.missing.in_step import ask
from lrgls_dask.missing.kernels import MaskedParams, residuals_of
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.missing.pseudo_rows import PatternRows
from lrgls_dask.missing.refit import goes_by_rounds, refit_shown
from lrgls_dask.missing.same_passes import AskedRows, Question, SamePasses
from lrgls_dask.missing.slabs import MaskedSlab
from lrgls_dask.plan.side_by_side import at_once, in_batches, sums_of_a_look
from lrgls_dask.rows.block import Block
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.moments import RootMoments, Summed
from lrgls_dask.rows.partition import Partition
from lrgls_dask.rows.purposes import LEFT_OUT
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.tasks import run_tasks
from lrgls_dask.rows.tiles import Tiles, subtract_fitted
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
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class ShownFolds:
    """The rows fold by fold, and what every fit to them keeps to.

    streamed : the rows and which fold each is in, where they are neither taken together by patterns nor held.
    """

    parts: ShownParts
    by: Way = "rows"
    restrictions: Restrictions | None = None
    streamed: tuple[Rows, Partition] | None = None


@dataclass(frozen=True, eq=False)
class _Task:
    folds: ShownFolds
    candidates: tuple[Candidate, ...]
    options: Options


def compress_any_folds(
    rows: Rows,
    n_folds: int,
    by: Way,
    restrictions: Restrictions | None,
    most: int | None,
    keep: bool | None,
    *,
    meter: Meter,
) -> ShownFolds | Folds:
    """n_folds folds from one pass, as `compress_folds`; those where no response is missing if there is none.

    most, keep : as of `compress_shown_parts`.  Raises ValueError for a fold of which no row shows anything.
    """
    partition = partition_of(rows, n_folds, by)
    found = compress_shown_parts(rows, partition, meter=meter, most=most, keep=keep)
    parts = found.that_show()
    check_folds(n_folds, parts.parts, by)
    if not found.at_hand:
        return ShownFolds(parts, by, restrictions, (rows, partition))
    if not found.together().moments.is_complete:
        return ShownFolds(parts, by, restrictions)
    moments = {number: moment for number, part in parts.parts.items() for moment in (part.patterns or {}).values()}
    is_qr = all(isinstance(each, RootMoments) for each in moments.values())
    whole = Parts(rows.design, moments, "qr" if is_qr else "gram")  # type: ignore[arg-type]
    if is_qr or smallest_pivot(whole.together()) > LOST_DIGITS:
        return Folds(whole, by, restrictions)
    return compress_folds(rows, n_folds, by, restrictions, meter=meter)


def shown_held_out_nll(
    folds: ShownFolds, candidates: tuple[Candidate, ...], options: Options, *, meter: Meter
) -> tuple[np.ndarray, np.ndarray]:
    """Negative log-likelihood per row left out, (candidates, folds), and its mean and standard error (candidates, 2).

    As `held_out_nll` of what each row shows; rows that show nothing do not count. No pass where the rows are at hand,
    else as many as the longest of the fits takes: all of them are looked at in the same.
    """
    task = _Task(folds, candidates, options)
    if folds.streamed is None:
        nll = np.array(run_tasks(_one_fold, task, list(folds.parts.parts), here=True)).T
    else:
        nll = _all_folds(task, *folds.streamed, meter)
    sizes = np.array([_n_shown(part) for part in folds.parts.parts.values()], dtype=float)
    return nll, mean_and_error(nll, sizes)


def _n_shown(part: FirstMoments) -> int:
    return part.n_rows - part.empty


def _one_fold(task: _Task, number: int) -> list[float]:
    """The nll per row of this fold's rows, by candidate, of fits to all other rows."""
    folds = task.folds
    problem = _without(
        task, number, lambda rows, lam_B: Incomplete(rows, lam_B=lam_B, meter=Meter(), restrictions=folds.restrictions)
    )
    held_out = folds.parts.part(number)
    return [shown_nll(held_out, *_refitted(problem, each, task.options)) for each in task.candidates]


def _without(task: _Task, number: int, made: Callable[[SeenRows, Ridge], T]) -> T:
    """The problem that is made of the rows without those of a fold."""
    folds = task.folds
    try:
        return made(folds.parts.together(without=number), task.options.lam_B)
    except (np.linalg.LinAlgError, ValueError) as error:
        raise np.linalg.LinAlgError(
            f"without the rows of fold {number + 1} of {len(folds.parts.parts)}: {error} Or use {other_ways(folds.by)}."
        ) from error


def _refitted(problem: Incomplete, candidate: Candidate, options: Options) -> tuple[np.ndarray, Sigma]:
    """The candidate's coefficients and Sigma of a problem, in the user's units."""
    point = refit_shown(problem, candidate.structure, options, candidate.coefficients, candidate.sigma)
    return problem.coefficients(point.c), point.sigma.rescaled(problem.whitened.y_scale)


# ---------------------------------------------------------------------------------------------- streamed


@dataclass(frozen=True, eq=False)
class _LeftOut:
    """Problem f sees all rows but those of fold f, problem n_parts + f these alone."""

    partition: Partition

    def seen(self, number: int, block: Block) -> tuple[Block, None]:
        codes = self.partition.codes(block.start, block.start + block.n_rows)
        alone, fold = divmod(number, self.partition.n_parts)
        return block.take(np.flatnonzero((codes == fold) == bool(alone))), None


def _all_folds(task: _Task, rows: Rows, partition: Partition, meter: Meter) -> np.ndarray:
    """(candidates, folds), the fits to all other rows side by side."""
    parts, options = task.folds.parts, task.options
    K = rows.design.n_equations
    pairs = not all(goes_by_rounds(each.structure, options, K) for each in task.candidates)
    sums = sums_of_a_look(rows.design, informed=False, pairs=pairs)
    passes = SamePasses(rows, _LeftOut(partition), meter, LEFT_OUT, sums)
    folds = list(parts.parts)
    restrictions = task.folds.restrictions

    def made(fold: int) -> AskedRows:
        return _without(task, fold, lambda seen, lam_B: AskedRows(seen, fold, lam_B=lam_B, restrictions=restrictions))

    problems = {fold: made(fold) for fold in folds}
    if pairs:
        passes.run([problem.begun for problem in problems.values()])  # once for all candidates
    asked = [(candidate, fold) for candidate in task.candidates for fold in folds]
    found: list[float] = []
    for batch in in_batches(len(asked), at_once(rows, informed=False, pairs=pairs)):
        some = asked[batch]
        fits = passes.run([partial(_refitted, problems[fold], each, options) for each, fold in some])
        alone = [(parts.part(fold), partition.n_parts + fold) for _, fold in some]
        found += passes.run(
            [
                partial(shown_nll, held_out, *fit, number=number)
                for (held_out, number), fit in zip(alone, fits, strict=True)
            ]
        )
    return np.array(found).reshape(len(task.candidates), len(folds))


# ---------------------------------------------------------------------------------------------- rows left out


def shown_nll(seen: SeenRows, coefficients: np.ndarray, sigma: Sigma, *, number: int | None = None) -> float:
    """Negative log-likelihood of given parameters, in the user's units, per row that shows something.

    Nothing is asked of the rows: an equation may be in none of them.
    number : of the problem that sees these rows in passes it shares, where they are not at hand.
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
    level = origin[q:].copy()
    subtract_fitted(level[None], lambda columns: origin[None, :q][:, columns], b, tiles)
    params = MaskedParams(design.groups, tiles, origin, np.ones(design.n_equations), b, level, sigma)
    if first.patterns is not None or first.rows:
        held = PatternRows.of_rows(first.rows, origin) if first.patterns is None else None
        slabs = (held or PatternRows.of(first.patterns or {}, design, origin)).slabs()
        total = shown_squares(slabs, params)
    else:
        assert number is not None
        total = ask(Question(number, shown_squares, params))
    assert total is not None
    return 0.5 * (total.value - log_weight) / _n_shown(first)


@dataclass(frozen=True)
class _Squares(Summed):
    value: float


def shown_squares(slabs: Iterable[MaskedSlab], params: MaskedParams) -> _Squares | None:
    """Of some rows r_o' Sigma_oo^-1 r_o + log|Sigma_oo| + |o| log 2 pi."""
    total: _Squares | None = None
    for slab in slabs:
        count = np.ones(len(slab.x)) if slab.count is None else slab.count
        residual = residuals_of(slab, params)
        given = params.sigma.rows(slab.observed).given(residual)
        squares = float(np.vdot(residual, given.scaled)) + float(given.log_dets @ count)
        part = _Squares(squares + LOG_2PI * float((count @ slab.observed).sum()))
        total = part if total is None else total + part
    return total
