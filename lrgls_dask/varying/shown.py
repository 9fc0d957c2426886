"""Segments of rows with holes as one problem: the likelihood of a window is that of what the rows in it show.

    nll_t(Sigma) = sum_s w_ts L_s(Sigma; b) / sum_s w_ts n_s,      L_s = -log L of the cells that rows of s show,

of which complete rows have nll(Sigma; S_t). Sigma_t minimises it by L-BFGS-B over (F, log d) with the exact gradient,
the sum of those of the segments (missing/problem.py); the coefficients solve
sum_t sum_i X_o' (Sigma_t)_oo^-1 (y - X b)_o = 0, rows i of segment t.

The rows of each pattern of a segment are compressed where these are few; else the rows themselves are held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from lrgls_dask.compression.compressed import partial_bytes, qr_is_cheap
from lrgls_dask.compression.parts import parts_at_once
from lrgls_dask.compression.patterns import (
    PATTERN_BYTES,
    PATTERNS_IN_A_SUM,
    FirstMoments,
    FirstParams,
    are_few,
    first_kernel,
    most_patterns,
)
from lrgls_dask.design.design import Design
from lrgls_dask.design.penalties import Ridge
from lrgls_dask.design.restrictions import Restrictions, free_coefficients
from lrgls_dask.missing.columns import group_rows_of
from lrgls_dask.missing.kernels import PairMoments
from lrgls_dask.missing.polish import minimised, slope_of_sigma
from lrgls_dask.missing.problem import Incomplete, Latent
from lrgls_dask.missing.pseudo_rows import PatternRows
from lrgls_dask.missing.starts import STARTS, pairwise_covariance, softened
from lrgls_dask.options import CG_MAXIT
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.partition import LabelledMoments, Partition, labelled_kernel
from lrgls_dask.rows.purposes import PATTERNS
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.run_pass import run_pass
from lrgls_dask.sigma.em import flattened, unflattened
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.ml import ml_candidates
from lrgls_dask.sigma.polish import polished
from lrgls_dask.solve.cg import Solution, conjugate_gradients
from lrgls_dask.solve.constraint import Preconditioner
from lrgls_dask.solve.em import units_of_sigma
from lrgls_dask.solve.whiten import GRAM_RESOLUTION
from lrgls_dask.varying.segments import INNER_ENERGY, SWEEP_FALL

SEARCHES = 3  # each in coordinates scaled where the one before it ended
NEAR = 1e-6  # in log-likelihood: a gain after which another search gains nothing
EXACT_UP_TO = 100  # equations whose last digits take fewer looks than the searches
LEAST = 1e-3  # share of a window's rows, that an equation with fewer is scaled as if it had

__all__ = ["ShownSegments", "first_of_segments", "holes_bytes", "patterns_in_segments"]


# ---------------------------------------------------------------------------------------------- the pass


def patterns_in_segments(design: Design, n_segments: int) -> int:
    """Patterns of missing responses that are compressed in each segment: their roots have to fit together."""
    return max(1, min(most_patterns(design), PATTERN_BYTES // (n_segments * partial_bytes(design))))


def holes_bytes(rows: Rows, n_segments: int, most: int) -> int:
    """Bytes of what stands for rows with holes, `most` patterns a segment, and of their residuals.

    Rows that are held where there are more patterns are no more than these bytes.
    """
    q, K = rows.design.n_regressors, rows.design.n_equations
    patterns = n_segments * most * (partial_bytes(rows.design) + 16 * (q + K + 1) * (q + 2 * K + 2))
    height = rows.n_obs * 8 * (3 * (q + K) + 4 * (K + 2))
    return max(patterns, height) if are_few(rows) else patterns


def first_of_segments(
    rows: Rows, partition: Partition, *, meter: Meter, most: int | None = None
) -> dict[int, FirstMoments]:
    """What the rows of every segment show, by its number; one pass, segments whose rows all have weight zero left out.

    most : patterns that are kept in each segment, `patterns_in_segments` if None. Rows that are few are held where a
    segment has more.
    """
    design = rows.design
    kept = patterns_in_segments(design, partition.n_parts) if most is None else most
    params = FirstParams.of(design, kept, by_qr=qr_is_cheap(rows), keep=are_few(rows))
    size = 8 * int(((design.sizes + 1) ** 2).sum()) + min(kept, PATTERNS_IN_A_SUM) * partial_bytes(design)
    found: LabelledMoments = run_pass(
        rows,
        labelled_kernel,
        (partition, partial(first_kernel, params=params)),
        partial_bytes=size * parts_at_once(partition.n_parts, consecutive=partition.consecutive),
        meter=meter,
        label=PATTERNS,
        holes=True,
    )
    return {number: each.whole() for number, each in sorted(found.parts.items())}


# ---------------------------------------------------------------------------------------------- the problem


class ShownSegments:
    """T segments of rows with holes in the whitened coordinates of all their rows, as `SegmentedProblem`.

    whole : all rows, which holds the coordinates and the restrictions.  parts : those of each segment.
    Raises ValueError for a segment whose rows show nothing, and where rows are too many to be held and have too many
    patterns; and as `Incomplete` does.
    """

    def __init__(
        self,
        rows: Rows,
        firsts: Sequence[FirstMoments],
        labels: Sequence[object],
        *,
        lam_B: Ridge = 0.0,
        restrictions: Restrictions | None = None,
        meter: Meter | None = None,
    ) -> None:
        _check(firsts, labels)
        self.whole = Incomplete(
            rows,
            lam_B=lam_B,
            meter=Meter() if meter is None else meter,
            first=_together(firsts),
            restrictions=restrictions,
        )
        shown = [_pseudo_rows(each, self.whole).that_show() for each in firsts]
        self.parts = tuple(map(self.whole.part, shown))
        seen = np.concatenate([each.observed for each in shown])
        self.n_patterns = len(np.unique(np.packbits(seen > 0, axis=1), axis=0))
        self.design, self.n_obs = self.whole.design, self.whole.n_obs
        self.rows = np.array([part.n_obs for part in self.parts])
        self.cells = np.array([part.cells for part in self.parts]).astype(np.int64)
        self.shares = self.rows / self.n_obs
        self.free = free_coefficients(rows.design, restrictions)
        self.y_scale, self.nll_offset = self.whole.whitened.y_scale, self.whole.nll_offset
        self.exact, self.resolution = self.whole.whitened.exact, GRAM_RESOLUTION
        self._by_equation = [self.whole.by_equation(each) for each in firsts]

    def start(self) -> np.ndarray:
        return self.whole.start()

    def residuals(self, c: np.ndarray) -> ShownResiduals:
        return ShownResiduals(tuple(part.residual_rows(c) for part in self.parts), self.parts[0])

    def coefficients(self, c: np.ndarray) -> np.ndarray:
        return self.whole.coefficients(c)

    def gls(self, c: np.ndarray, sigmas: Sequence[Sigma], *, last: bool) -> tuple[Solution, float]:
        """The coefficients at the given Sigma_t, within the restrictions, and the energy of the start.

        Warm-started conjugate gradients, a look at all pseudo-rows an iteration.
        """
        coordinates, constraint = self.whole.coordinates, self.whole.constraint
        ridge, pairs = coordinates.ridge, list(zip(self.parts, sigmas, strict=True))

        def product(p: np.ndarray, _: np.ndarray) -> np.ndarray:
            image: np.ndarray = np.sum([part.general_image(p, sigma) for part, sigma in pairs], axis=0) + ridge * p
            return image

        gradient = np.sum([part.expected(c, sigma)[0].gradient for part, sigma in pairs], axis=0) - ridge * c
        weight = np.zeros(self.design.n_equations)
        for part, sigma in pairs:
            full = part.cells / part.n_obs  # rows that show the others too, roughly
            weight += part.cells / self.whole.cells * (full * sigma.precision_diagonal + (1.0 - full) / sigma.variances)
        diagonal = coordinates.expand(weight) * (1.0 - ridge) + ridge
        gradient, z = Preconditioner(diagonal, constraint)(gradient)
        energy = float(gradient @ z)
        tol = INNER_ENERGY * self.n_obs if last else max(INNER_ENERGY * self.n_obs, SWEEP_FALL * energy)
        found = conjugate_gradients(
            product, c, gradient, diagonal, tol=tol, max_iterations=CG_MAXIT, constraint=constraint
        )
        return found, energy

    def information(self, sigmas: Sequence[Sigma]) -> np.ndarray:
        """(P, P) sum_t X_o' (Sigma_t)_oo^-1 X_o in the coordinates c; Sigma_t in standard units."""
        total: np.ndarray = np.sum(
            [part.information(sigma) for part, sigma in zip(self.parts, sigmas, strict=True)], axis=0
        )
        return total

    def nll(self, coefficients: np.ndarray, sigmas: Sequence[Sigma]) -> float:
        """Per row that shows something, at coefficients (P,) and Sigma_t in the user's units."""
        c = self.whole.whitened_coefficients(coefficients)
        scaled = [sigma.rescaled(1.0 / self.y_scale) for sigma in sigmas]
        each = [part.expected(c, sigma)[0].nll for part, sigma in zip(self.parts, scaled, strict=True)]
        return float(self.shares @ each) + self.nll_offset

    def own_squares(self, t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        K = self.design.n_equations
        squares, about, ranks = np.zeros(K), np.zeros(K), np.zeros(K, dtype=int)
        for j in np.flatnonzero(self.cells[t]):
            group = self.design.groups[j]
            rows = group_rows_of(self.design, group, self._by_equation[t][j], scaled=False)
            x, y = self.whole.whitened.groups[j].adjoint(rows.x.T).T, rows.y[:, 0] / self.y_scale[j]
            u, s, _ = np.linalg.svd(x, full_matrices=False)
            basis = u[:, s > self.resolution * np.max(s, initial=0.0)]
            ranks[j], about[j] = basis.shape[1], np.sum(y[1:] ** 2)
            squares[j] = np.sum((y - basis @ (basis.T @ y)) ** 2)
        return squares, about, ranks

    def mean_squares(self) -> np.ndarray:
        squares = np.zeros(self.design.n_equations)
        for found in self._by_equation:
            squares += [m.cross[i, -1, -1] + m.weight[i] * m.mean[i, -1] ** 2 for m, i in found]
        mean: np.ndarray = squares / self.y_scale**2 / self.whole.cells
        return mean


@dataclass(frozen=True, eq=False)
class ShownResiduals:
    """rows : that stand for the residuals of each segment.  problem : which tells their likelihood."""

    rows: tuple[PatternRows, ...]
    problem: Incomplete

    def window(self, weight: np.ndarray) -> ShownWindow:
        near = np.flatnonzero(weight > 0.0)
        rows = PatternRows.weighted([self.rows[s] for s in near], weight[near])
        return ShownWindow(rows, self.problem.of_residuals(rows))


@dataclass(frozen=True, eq=False)
class ShownWindow:
    """rows : that stand for the weighted residuals.  likelihood : of these, by Sigma."""

    rows: PatternRows
    likelihood: Callable[[LowRank], Latent]

    def nll(self, sigma: LowRank) -> float:
        return self.likelihood(sigma).nll

    def likeliest(self, rank: int, floor: np.ndarray) -> LowRank:
        ends = [self.from_start(rank, floor, start) for start in self._starts(rank, floor)[:STARTS]]
        return min(ends, key=self.nll)

    def from_start(self, rank: int, floor: np.ndarray, start: LowRank | None) -> LowRank:
        """To the last digits of the gradient where the start was near already."""
        sigma = self._starts(rank, floor)[0] if start is None else start
        n_obs, value = float(self.rows.count.sum()), self.nll(sigma)
        for _ in range(SEARCHES):
            found = self._searched(sigma, floor)
            gain = n_obs * (value - self.nll(found))
            if gain > 0:
                sigma, value = found, self.nll(found)
            if gain < NEAR:
                break
        if start is None or n_obs * (self.nll(start) - value) > NEAR or len(floor) > EXACT_UP_TO:
            return sigma
        return self._polished(sigma, floor)

    def _searched(self, start: LowRank, floor: np.ndarray) -> LowRank:
        units = self._units(start)
        of_d, z = units[-len(floor) :], flattened(start) * units

        def value(z: np.ndarray) -> tuple[float, np.ndarray]:
            seen, slope = self._at(z / units, start.rank, floor)
            return seen.nll, slope / units

        end = minimised(value, z, of_d, floor, maxiter=500, maxfun=1000, maxcor=20, ftol=1e-16)
        return unflattened(end / units, start.rank, floor)

    def _polished(self, sigma: LowRank, floor: np.ndarray) -> LowRank:
        units = self._units(sigma)
        lower = np.concatenate([np.full(sigma.F.size, -np.inf), np.log(floor) * units[-len(floor) :]])

        def gradient(z: np.ndarray) -> np.ndarray:
            return self._at(z / units, sigma.rank, floor)[1] / units

        return unflattened(polished(gradient, flattened(sigma) * units, lower) / units, sigma.rank, floor)

    def _at(self, z: np.ndarray, rank: int, floor: np.ndarray) -> tuple[Latent, np.ndarray]:
        """The likelihood, and its slope (K k + K,) by (F, log d)."""
        sigma = unflattened(z, rank, floor)
        seen = self.likelihood(sigma)
        return seen, slope_of_sigma(seen, sigma, np.ones_like(sigma.F, dtype=bool), 0.0)

    def _units(self, sigma: LowRank) -> np.ndarray:
        """(K k + K,) in which each of (F, log d) counts by about its share of the likelihood.

        A loading is known up to the variance of its equation given all others: d where these tell the factors, and
        where d vanishes what they leave of those.
        """
        cells = self.rows.count @ self.rows.observed
        given = LowRank(sigma.F, 1.0 / sigma.precision_diagonal)
        return units_of_sigma(float(cells.max()), np.maximum(cells, LEAST * cells.max()), given)

    def _starts(self, rank: int, floor: np.ndarray) -> list[LowRank]:
        """Fitted to the residual products of each pair of equations over the rows that show both."""
        y, observed = self.rows.y, self.rows.observed
        pairs = PairMoments(y.T @ y, (observed * self.rows.count[:, None]).T @ observed)
        return [softened(step.sigma) for step in ml_candidates(pairwise_covariance(pairs, floor), rank, floor)]


# ---------------------------------------------------------------------------------------------- inside


def _check(firsts: Sequence[FirstMoments], labels: Sequence[object]) -> None:
    for first, label in zip(firsts, labels, strict=True):
        if first.n_rows == first.empty:
            raise ValueError(
                f"segments: {label!s} is empty, its rows show no response. Drop it or join it to the next."
            )
        if first.patterns is None and not first.rows:
            raise ValueError(
                f"segments: {label!s} has more than {first.most:,} patterns of missing responses, which are as many as "
                f"are compressed in each of {len(firsts):,} segments, and the rows are too many to be held in memory. "
                "Use fewer, longer segments, or missing='drop', which takes the rows that show every equation."
            )


def _together(firsts: Sequence[FirstMoments]) -> FirstMoments:
    """The moments of each equation over the rows of all segments."""
    one, summed = firsts[0], firsts[0].available
    for first in firsts[1:]:
        summed = tuple(a + b for a, b in zip(summed, first.available, strict=True))
    n_rows, empty = sum(first.n_rows for first in firsts), sum(first.empty for first in firsts)
    return FirstMoments(one.batches, one.n_equations, 0, n_rows, empty, 0, None, summed)


def _pseudo_rows(first: FirstMoments, whole: Incomplete) -> PatternRows:
    if first.patterns is not None:
        return PatternRows.of(first.patterns, whole.rows.design, whole.origin)
    return PatternRows.of_rows(first.rows, whole.origin)
