"""Refits of replicated rows with holes: drawn from a fit, each row with the holes it has, or resampled from groups.

Parametric: the rows of one pattern of missing responses see the likelihood as a complete system of the equations they
show does, so each pattern is drawn as complete rows are (resampling/draws.py), with Sigma_oo; rows that are held, each
a pattern of its own, have errors drawn one by one. By groups: all rows of a group, with their holes, as often as drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lrgls_dask.compression.available import shown_by
from lrgls_dask.compression.patterns import FirstMoments, FirstParams, first_kernel
from lrgls_dask.compression.roots import root_of
from lrgls_dask.compression.shown_parts import SeenRows, ShownParts
from lrgls_dask.design.design import Design
from lrgls_dask.missing.covariance import FittedCells, fitted_problem, gls_covariance, least_squares_covariance
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.missing.refit import refit_shown
from lrgls_dask.resampling.draws import Draws, Fitted, Replicate, collect, draw_rows, space_of
from lrgls_dask.rows.block import Block, side_by_side
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.moments import GramMoments, Head, RootMoments
from lrgls_dask.rows.tasks import run_tasks
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.solve.whiten import GRAM_RESOLUTION

__all__ = ["shown_parametric", "shown_resampled"]


def shown_parametric(seen: SeenRows, cells: FittedCells, fitted: Fitted, n: int, seed: int) -> tuple[Draws, np.ndarray]:
    """n refits of data drawn from the fitted model at the X and the holes of the rows that were seen, and (P,) the
    classical standard errors of the fit itself; no read.

    cells : the fit, by which rows are told from others.  Raises ValueError for others.
    """
    problem = fitted_problem(cells, seen)
    errors = _errors(problem, fitted.sigma.rescaled(1.0 / problem.whitened.y_scale), fitted)
    simulator = _Simulator.of(replace(seen, units=problem.whitened.y_scale), fitted)
    return collect(run_tasks(_simulate, simulator, np.random.SeedSequence(seed).spawn(n))), errors


def shown_resampled(
    parts: ShownParts, cells: FittedCells, fitted: Fitted, n: int, seed: int
) -> tuple[Draws, np.ndarray]:
    """n refits of as many parts drawn with replacement, and standard errors as `shown_parametric`; no read."""
    problem = fitted_problem(cells, parts.together())
    errors = _errors(problem, fitted.sigma.rescaled(1.0 / problem.whitened.y_scale), fitted)
    return collect(run_tasks(_resample, _Resampler(parts, fitted), np.random.SeedSequence(seed).spawn(n))), errors


def _errors(problem: Incomplete, sigma: Sigma, fitted: Fitted) -> np.ndarray:
    covariance = least_squares_covariance if fitted.options.algorithm == "ols" else gls_covariance
    return np.asarray(np.sqrt(covariance(problem, sigma).diagonal()))


def _refitted(rows: SeenRows, fitted: Fitted) -> Replicate | None:
    """None where no fit exists."""
    try:
        problem = Incomplete(rows, lam_B=fitted.options.lam_B, meter=Meter(), restrictions=fitted.restrictions)
        scale = problem.whitened.y_scale
        c, sigma = problem.whitened_coefficients(fitted.coefficients), fitted.sigma.rescaled(1.0 / scale)
        point = refit_shown(problem, fitted.structure.in_units(scale), fitted.options, c, sigma)
        return (
            problem.coefficients(point.c),
            _errors(problem, point.sigma, fitted),
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

    def drawn(self, rng: np.random.Generator) -> SeenRows:
        """The rows with other responses; those that show nothing are left out."""
        design, old = self.seen.design, self.seen.moments
        if self.patterns:
            made = {key: pattern.drawn(rng) for key, pattern in self.patterns.items()}
            shown = old.n_rows - old.empty
            found = FirstMoments(design.batches, design.n_equations, len(made), shown, 0, len(made), dict(made), None)
            return replace(self.seen, moments=found)
        params = FirstParams.of(design, 0, by_qr=False, keep=True)
        parts = [first_kernel(self._drawn(block, rng), params) for block in self.blocks]
        kept = [part for part in parts if part is not None]
        return replace(self.seen, moments=sum(kept[1:], kept[0]))

    def _drawn(self, block: Block, rng: np.random.Generator) -> Block:
        y = side_by_side(block.y)
        errors = rng.standard_normal(y.shape) @ self.root.T
        if block.weights is not None:
            weights = np.asarray(block.weights, dtype=np.float64)
            errors /= np.sqrt(np.where(weights > 0, weights, 1.0))[:, None]
        drawn = side_by_side(block.x).astype(np.float64) @ self.b + errors
        return replace(block, y=(np.where(np.isnan(y), np.nan, drawn),))


def _by_column(design: Design, coefficients: np.ndarray) -> np.ndarray:
    """(q, K) with X times it the fitted values."""
    b = np.zeros((design.n_regressors, design.n_equations))
    for group in design.groups:
        b[np.ix_(group.columns, group.equations)] = coefficients[group.coefficients]
    return b


def _simulate(simulator: _Simulator, seed: np.random.SeedSequence) -> Replicate | None:
    return _refitted(simulator.drawn(np.random.default_rng(seed)), simulator.fitted)


# ---------------------------------------------------------------------------------------------- by groups


@dataclass(frozen=True, eq=False)
class _Resampler:
    parts: ShownParts
    fitted: Fitted


def _resample(resampler: _Resampler, seed: np.random.SeedSequence) -> Replicate | None:
    rng, n_parts = np.random.default_rng(seed), len(resampler.parts.parts)
    counts = np.bincount(rng.integers(n_parts, size=n_parts), minlength=n_parts)
    return _refitted(resampler.parts.taken(counts), resampler.fitted)
