"""Refits of replicated rows with holes: drawn from a fit, each row with the holes it has, or resampled from groups.

Parametric: the rows of one pattern of missing responses see the likelihood as a complete system of the equations they
show does, so each pattern is drawn as complete rows are (resampling/draws.py), with Sigma_oo; rows that are held or
streamed, each a pattern of its own, have errors drawn one by one. By groups: all rows of a group, with their holes, as
often as drawn. Replicates of streamed rows share passes (same_passes.py) and are those that held rows have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lrgls_dask.compression.available import shown_by
from lrgls_dask.compression.patterns import FirstMoments, FirstParams, first_kernel
from lrgls_dask.compression.roots import root_of
from lrgls_dask.compression.shown_parts import SeenRows, ShownParts, parts_that_show
from lrgls_dask.design.design import Design
from lrgls_dask.missing.covariance import FittedCells, fitted_problem, gls_covariance, least_squares_covariance
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.missing.refit import goes_by_rounds, refit_shown
from lrgls_dask.missing.same_passes import AskedRows, SamePasses
from lrgls_dask.plan.side_by_side import at_once, in_batches, sums_of_a_look
from lrgls_dask.resampling.draws import Draws, Fitted, Replicate, collect, draw_rows, space_of
from lrgls_dask.rows.block import Block, side_by_side
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.moments import GramMoments, Head, RootMoments
from lrgls_dask.rows.partition import Partition
from lrgls_dask.rows.purposes import REPLICATES
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.tasks import run_tasks
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.solve.whiten import GRAM_RESOLUTION

__all__ = ["shown_parametric", "shown_resampled", "streamed_parametric", "streamed_resampled"]

# Drawn together: few enough to draw more than a block needs, many beside a generator's start.
STRIP_CELLS = 2**13


def shown_parametric(seen: SeenRows, cells: FittedCells, fitted: Fitted, n: int, seed: int) -> tuple[Draws, np.ndarray]:
    """n refits of data drawn from the fitted model at the X and the holes of the rows that were seen, and (P,) the
    classical standard errors of the fit itself; no read.

    cells : the fit, by which rows are told from others.  Raises ValueError for others.
    """
    problem = fitted_problem(cells, seen)
    simulator = _Simulator.of(replace(seen, units=problem.whitened.y_scale), fitted)
    seeds = np.random.SeedSequence(seed).spawn(n)
    return collect(run_tasks(_simulate, simulator, seeds)), _errors(problem, fitted)


def shown_resampled(
    parts: ShownParts, cells: FittedCells, fitted: Fitted, n: int, seed: int
) -> tuple[Draws, np.ndarray]:
    """n refits of as many parts drawn with replacement, and standard errors as `shown_parametric`; no read."""
    problem = fitted_problem(cells, parts.together())
    seeds = np.random.SeedSequence(seed).spawn(n)
    return collect(run_tasks(_resample, _Resampler(parts, fitted), seeds)), _errors(problem, fitted)


def streamed_parametric(rows: Rows, cells: FittedCells, fitted: Fitted, n: int, seed: int) -> tuple[Draws, np.ndarray]:
    """`shown_parametric` of rows that are neither taken together by patterns nor held; passes that many replicates
    share, as many as the longest of their fits takes."""
    problem = fitted_problem(replace(cells, streamed=True), rows)
    b, root = _by_column(rows.design, fitted.coefficients), np.linalg.cholesky(fitted.sigma.dense())
    seeds = np.random.SeedSequence(seed).spawn(n)
    of_model = Model(b, root)
    views = [_Drawn(of_model, tuple(seeds[some])) for some in _batches(rows, fitted, n)]
    return _streamed(problem.meter, rows, fitted, views, problem.whitened.y_scale), _errors(problem, fitted)


def streamed_resampled(
    rows: Rows, partition: Partition, cells: FittedCells, fitted: Fitted, n: int, seed: int
) -> tuple[Draws, np.ndarray]:
    """`shown_resampled` of such rows."""
    problem = fitted_problem(replace(cells, streamed=True), rows)
    there = parts_that_show(rows, partition, meter=problem.meter)
    counts = np.zeros((n, partition.n_parts), dtype=np.int64)
    for of_parts, one in zip(counts, np.random.SeedSequence(seed).spawn(n), strict=True):
        of_parts[there] = _times_drawn(one, len(there))
    views = [_Taken(partition, counts[some]) for some in _batches(rows, fitted, n)]
    return _streamed(problem.meter, rows, fitted, views, None), _errors(problem, fitted)


def _batches(rows: Rows, fitted: Fitted, n: int) -> list[slice]:
    """Replicates that share passes."""
    return in_batches(n, at_once(rows, informed=True, pairs=_by_pairs(rows, fitted)))


def _by_pairs(rows: Rows, fitted: Fitted) -> bool:
    """Whether refits ask for products of all pairs of equations."""
    return not goes_by_rounds(fitted.structure, fitted.options, rows.design.n_equations)


def _streamed(
    meter: Meter, rows: Rows, fitted: Fitted, views: Sequence[_Drawn | _Taken], units: np.ndarray | None
) -> Draws:
    """The refits of replicates, those of each view side by side.  units : (K,) of all of them, or None."""
    found: list[Replicate | None] = []
    pairs, penalty = _by_pairs(rows, fitted), fitted.options.lam_B
    sums = sums_of_a_look(rows.design, informed=True, pairs=pairs)

    def made(number: int, first: FirstMoments) -> Callable[[], Replicate | None]:
        seen = SeenRows(rows.design, rows.varying_weights, first, units)

        def its_problem() -> AskedRows:
            own = AskedRows(seen, number, lam_B=penalty, restrictions=fitted.restrictions)
            return own.begun() if pairs else own

        return lambda: _refitted(its_problem, fitted)

    for view in views:
        passes = SamePasses(rows, view, meter, REPLICATES, sums)
        firsts = passes.first(range(view.n))
        found += passes.run([made(number, first) for number, first in enumerate(firsts)])
    return collect(found)


def _errors(problem: Incomplete, fitted: Fitted) -> np.ndarray:
    return _classical(problem, fitted.sigma.rescaled(1.0 / problem.whitened.y_scale), fitted)


def _classical(problem: Incomplete, sigma: Sigma, fitted: Fitted) -> np.ndarray:
    """(P,) standard errors at a Sigma in standard units."""
    covariance = least_squares_covariance if fitted.options.algorithm == "ols" else gls_covariance
    return np.asarray(np.sqrt(covariance(problem, sigma).diagonal()))


def _of_seen(rows: SeenRows, fitted: Fitted) -> Replicate | None:
    def made() -> Incomplete:
        return Incomplete(rows, lam_B=fitted.options.lam_B, meter=Meter(), restrictions=fitted.restrictions)

    return _refitted(made, fitted)


def _refitted(made: Callable[[], Incomplete], fitted: Fitted) -> Replicate | None:
    """None where no fit exists."""
    try:
        problem = made()
        scale = problem.whitened.y_scale
        point = refit_shown(problem, fitted.structure, fitted.options, fitted.coefficients, fitted.sigma)
        return (
            problem.coefficients(point.c),
            _classical(problem, point.sigma, fitted),
            point.sigma.variances * scale**2,
            point.sigma.rescaled(scale).own_variances(),
        )
    except (np.linalg.LinAlgError, ValueError):
        return None


# ---------------------------------------------------------------------------------------------- parametric


@dataclass(frozen=True, eq=False)
class _Pattern:
    """Rows that show the same equations, of which Y is drawn.

    head : of [X Y_o].  x : (h, q) rows with x'x = X'X, the mean first.  mean : (h, m) their fitted values.
    basis : (h, r) of the columns of X.  root : (m, m) lower, root root' = Sigma_oo.
    """

    head: Head
    x: np.ndarray
    mean: np.ndarray
    basis: np.ndarray
    root: np.ndarray

    @classmethod
    def of(cls, moments: RootMoments | GramMoments, shown: np.ndarray, b: np.ndarray, sigma: np.ndarray) -> _Pattern:
        """shown : (K,).  b : (q, K) coefficients by column.  sigma : (K, K)."""
        q, head = len(b), moments.head
        root = moments.root if isinstance(moments, RootMoments) else root_of(np.tril(moments.cross))
        x = np.vstack([np.sqrt(head.weight) * head.mean, root[root[:, :q].any(axis=1)]])[:, :q]
        own = np.linalg.cholesky(sigma[np.ix_(shown, shown)])
        return cls(head, x, x @ b[:, shown], space_of(x, GRAM_RESOLUTION), own)

    def drawn(self, rng: np.random.Generator) -> RootMoments:
        """Moments of the rows with other responses."""
        q = self.x.shape[1]
        inside, beyond = draw_rows(rng, self.root, self.basis.shape[1], self.head.n_rows)
        y = self.mean + self.basis @ inside
        root = np.vstack([np.hstack([self.x, y])[1:], np.hstack([np.zeros((len(beyond), q)), beyond])])
        anchor, offset = self.head.anchor.copy(), self.head.offset.copy()
        anchor[q:], offset[q:] = 0.0, y[0] / np.sqrt(self.head.weight)
        return RootMoments(replace(self.head, anchor=anchor, offset=offset), root)


@dataclass(frozen=True, eq=False)
class _Simulator:
    """All that replicates share.

    patterns : of rows taken together by what they show, or blocks : rows each by itself.  b : (q, K) coefficients by
    column.  root : (K, K) lower, root root' = Sigma.
    """

    seen: SeenRows
    patterns: dict[bytes, _Pattern]
    blocks: tuple[Block, ...]
    b: np.ndarray
    root: np.ndarray
    fitted: Fitted

    @classmethod
    def of(cls, seen: SeenRows, fitted: Fitted) -> _Simulator:
        design, sigma = seen.design, fitted.sigma.dense()
        b, found = _by_column(design, fitted.coefficients), seen.moments.patterns or {}
        patterns = {
            key: _Pattern.of(found[key], shown, b, sigma)
            for key in sorted(found)
            if (shown := shown_by(key, design.n_equations)).any()
        }
        blocks = tuple(sorted(seen.moments.rows, key=lambda block: block.start))
        left = replace(seen, moments=replace(seen.moments, patterns=None, rows=(), summed=()))
        return cls(left, patterns, blocks, b, np.linalg.cholesky(sigma), fitted)

    def drawn(self, seed: np.random.SeedSequence) -> SeenRows:
        """The rows with other responses; those that show nothing are left out."""
        design, old = self.seen.design, self.seen.moments
        if self.patterns:
            rng = np.random.default_rng(seed)
            made = {key: pattern.drawn(rng) for key, pattern in self.patterns.items()}
            shown = old.n_rows - old.empty
            found = FirstMoments(design.batches, design.n_equations, len(made), shown, 0, len(made), dict(made), None)
            return replace(self.seen, moments=found)
        params = FirstParams.of(design, 0, by_qr=False, keep=True)
        model = Model(self.b, self.root)
        parts = [first_kernel(model.drawn(block, seed), params) for block in self.blocks]
        kept = [part for part in parts if part is not None]
        return replace(self.seen, moments=sum(kept[1:], kept[0]))


@dataclass(frozen=True, eq=False)
class Model:
    """What rows are drawn from, each by itself.  b : (q, K) coefficients by column.  root : (K, K) of Sigma."""

    b: np.ndarray
    root: np.ndarray

    def drawn(self, block: Block, seed: np.random.SeedSequence) -> Block:
        """The block with other responses where it shows any; a row's depend on the seed and its number alone."""
        y = side_by_side(block.y)
        errors = _normal_rows(seed, block.start, *y.shape) @ self.root.T
        if block.weights is not None:
            weights = np.asarray(block.weights, dtype=np.float64)
            errors /= np.sqrt(np.where(weights > 0, weights, 1.0))[:, None]
        errors += side_by_side(block.x).astype(np.float64) @ self.b
        errors[np.isnan(y)] = np.nan
        return replace(block, y=(errors,))


def _normal_rows(seed: np.random.SeedSequence, start: int, n: int, width: int) -> np.ndarray:
    """(n, width) standard normal numbers of rows start, start + 1, ...: however rows are cut into blocks, the same."""
    height = max(1, STRIP_CELLS // width)
    out, strip, at = np.empty((n, width)), start // height, 0
    while at < n:
        rng = np.random.default_rng(np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, strip)))
        skipped = start + at - strip * height
        some = rng.standard_normal((height, width))[skipped : skipped + n - at]
        out[at : at + len(some)] = some
        at, strip = at + len(some), strip + 1
    return out


def _by_column(design: Design, coefficients: np.ndarray) -> np.ndarray:
    """(q, K) with X times it the fitted values."""
    b = np.zeros((design.n_regressors, design.n_equations))
    for group in design.groups:
        b[np.ix_(group.columns, group.equations)] = coefficients[group.coefficients]
    return b


def _simulate(simulator: _Simulator, seed: np.random.SeedSequence) -> Replicate | None:
    return _of_seen(simulator.drawn(seed), simulator.fitted)


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Replicates see all rows, each with responses of its own."""

    model: Model
    seeds: tuple[np.random.SeedSequence, ...]

    @property
    def n(self) -> int:
        return len(self.seeds)

    def seen(self, number: int, block: Block) -> tuple[Block, None]:
        return self.model.drawn(block, self.seeds[number]), None


# ---------------------------------------------------------------------------------------------- by groups


@dataclass(frozen=True, eq=False)
class _Resampler:
    parts: ShownParts
    fitted: Fitted


def _times_drawn(seed: np.random.SeedSequence, n_parts: int) -> np.ndarray:
    """(n_parts,) how often each of so many parts is drawn, of as many draws."""
    return np.bincount(np.random.default_rng(seed).integers(n_parts, size=n_parts), minlength=n_parts)


def _resample(resampler: _Resampler, seed: np.random.SeedSequence) -> Replicate | None:
    counts = _times_drawn(seed, len(resampler.parts.parts))
    return _of_seen(resampler.parts.taken(counts), resampler.fitted)


@dataclass(frozen=True, eq=False)
class _Taken:
    """Replicates see the rows of each part as often as counts (n, n_parts) say."""

    partition: Partition
    counts: np.ndarray

    @property
    def n(self) -> int:
        return len(self.counts)

    def seen(self, number: int, block: Block) -> tuple[Block, np.ndarray]:
        counts = self.counts[number][self.partition.codes(block.start, block.start + block.n_rows)]
        rows = np.flatnonzero(counts)
        return block.take(rows), counts[rows]
