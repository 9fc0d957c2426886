"""Systems with missing responses: what their maximum likelihood asks of the data, in standard units.

Each equation is whitened over the rows that show it (whiten.py), so every equation is a design of its own here. The
answers come from pseudo-rows in memory where the patterns of missing values are few, from the rows themselves where
these are, else each is one pass.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from lrgls_dask.compression.available import AvailableMoments
from lrgls_dask.compression.by_pattern import CompressedPatterns, by_pattern
from lrgls_dask.compression.patterns import MOST_COLUMNS, FirstMoments, first_pass
from lrgls_dask.compression.shown_parts import SeenRows
from lrgls_dask.design.design import Design
from lrgls_dask.design.penalties import Ridge, penalises
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.design.skipped import OK, unusable_equations
from lrgls_dask.missing.columns import Apart, ShownColumns, group_rows_of
from lrgls_dask.missing.expected import (
    Expected,
    ExpectedMoments,
    SeveralExpected,
    expected_moments,
    general_image,
)
from lrgls_dask.missing.information import InformationSums
from lrgls_dask.missing.kernels import (
    GradientMoments,
    LatentMoments,
    MaskedParams,
    PairMoments,
    SeveralMoments,
    SeveralParams,
    StartMoments,
    block_kernel,
    image_moments,
    latent_moments,
    pair_moments,
    residual_moments,
    several_moments,
    start_moments,
    unpacked,
)
from lrgls_dask.missing.last_look import LastLook, LastLookParams, last_look
from lrgls_dask.missing.pseudo_rows import PatternRows
from lrgls_dask.missing.slabs import MaskedSlab
from lrgls_dask.missing.unusable import statuses_shown
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.purposes import COEFFICIENTS, ERRORS, LAST_LOOK, LIKELIHOOD, RESIDUALS
from lrgls_dask.rows.resources import one_blas_thread
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.run_pass import run_pass
from lrgls_dask.sigma.interface import LOG_2PI, Sigma
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.structures import widened
from lrgls_dask.solve.constraint import Constraint
from lrgls_dask.solve.coordinates import Coordinates, constraint_on
from lrgls_dask.solve.level import NO_RIDGE, check_digits
from lrgls_dask.solve.starting_values import starting_values
from lrgls_dask.solve.whiten import GRAM_RESOLUTION, whiten

__all__ = ["Incomplete", "Latent"]

KEPT_BYTES = 2**26  # of the roots of all patterns: more are found again by a pass, if anybody asks


@dataclass(frozen=True, eq=False)
class Latent:
    """The likelihood at one point (c, Sigma), and what leads on from there; standard units.

    nll : per row, 2 pi terms in.  gradient : (P,) of the coefficients c, ridge not included, summed over rows.
    squares : (K,) expected sum of (r - F z)^2.  along : (K, k) expected sum of (r - F z) z', both at the old F.
    second : (K, k, k) expected sum of z z' over the rows that show the equation, spread : what of it is the variance of
    z given the row.  total : (k, k) over all rows that show something.
    cells : (K,) observed rows of each equation.
    """

    nll: float
    gradient: np.ndarray
    squares: np.ndarray
    along: np.ndarray
    second: np.ndarray
    spread: np.ndarray
    total: np.ndarray
    cells: np.ndarray
    n_obs: float

    def gradient_by_sigma(self, sigma: LowRank) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of nll per row with respect to F (K, k) and log d (K,), by Fisher's identity."""
        by_F = -self.along / sigma.d[:, None] / self.n_obs
        by_log_d = 0.5 * (self.cells - self.squares / sigma.d) / self.n_obs
        return by_F, by_log_d


class Incomplete(ShownColumns):
    """A system with missing responses in whitened coordinates c; making it costs the first pass.

    rows : unread, or compressed by patterns or seen already, which takes no pass.
    most_patterns : patterns beyond which the rows are streamed; 0 streams. If None, as many as fit a bound on memory,
    and rows that fit another are held instead of streamed.
    first : what `first_pass` found, if it was made already.  restrictions : that the coefficients keep to.
    n_obs : rows of positive weight that show something; the others say nothing.  n_empty : those that show nothing.
    cells : (K,) rows that show each equation.
    holds_rows : whether the rows themselves are in memory.
    compressed : few rows of every pattern in their place, None where these were streamed, held or are many.
    restarts_are_free : whether the answers come from memory, without a pass: from rows that stand for those of each
    pattern, or from all rows, each a pattern of its own.

    Raises ValueError naming an equation that is never observed, or in no more rows than it has regressors; LinAlgError
    naming collinear columns; BadValues for NaN in X where an observed response uses it, and for infinities.
    """

    def __init__(
        self,
        rows: Rows | CompressedPatterns | SeenRows,
        *,
        lam_B: Ridge,
        meter: Meter,
        most_patterns: int | None = None,
        first: FirstMoments | None = None,
        restrictions: Restrictions | None = None,
    ) -> None:
        if penalises(lam_B) and rows.varying_weights:
            raise ValueError(NO_RIDGE)
        self.rows, self.meter, self.restrictions = rows, meter, restrictions
        self.design: Design = Apart.of(rows.design)
        if not isinstance(rows, Rows):
            first = rows.first()
        elif first is None:
            first = first_pass(rows, meter=meter, most=most_patterns)
        self.n_obs, self.n_empty, self.n_patterns = first.n_rows - first.empty, first.empty, first.n_patterns
        self.cells, log_weight = self._per_equation(first)
        self.n_cells = int(self.cells.sum())
        _check_observed(rows.design, self.cells, first)
        available = self.by_equation(first)
        self.group_rows = tuple(
            group_rows_of(rows.design, group, of, scaled=rows.varying_weights)
            for group, of in zip(self.design.groups, available, strict=True)
        )
        self._weight = np.array([moments.weight[i] for moments, i in available])
        self.whitened = whiten(
            self.design,
            self.group_rows,
            n_obs=self.cells.astype(int),
            lam_B=lam_B,
            resolution=GRAM_RESOLUTION,
        )
        if isinstance(rows, SeenRows) and rows.units is not None:
            self.whitened = self.whitened.in_units(rows.units)
        self.coordinates = Coordinates.of(self.whitened, self.design)
        self.constraint: Constraint | None = constraint_on(self.whitened, self.coordinates, restrictions)
        totals = np.array([found.cross[i, -1, -1] + found.weight[i] * found.mean[i, -1] ** 2 for found, i in available])
        check_digits(rows.design, np.arange(len(totals)), totals, self.whitened.y_scale, self.cells)
        log_scale = np.log(self.whitened.y_scale)
        self.nll_offset = float(log_scale @ self.cells - 0.5 * log_weight.sum()) / self.n_obs
        self.holds_rows = bool(first.rows)
        self.restarts_are_free = first.patterns is not None or self.holds_rows
        self.origin = self._common_origin(available)
        self._prepare(available)
        self.compressed = _kept(rows, first)
        self._informed: tuple[Sigma, np.ndarray] | None = None
        self._pseudo: PatternRows | None = None
        if first.patterns is not None:
            patterns = first.patterns if self.compressed is None else self.compressed.patterns
            self._pseudo = PatternRows.of(patterns, rows.design, self.origin).that_show()
        elif first.rows:
            self._pseudo = PatternRows.of_rows(first.rows, self.origin).that_show()

    @property
    def n_pseudo_cells(self) -> int:
        """Pseudo-rows times equations: what a look at a point costs; 0 where rows are streamed."""
        return 0 if self._pseudo is None else self._pseudo.y.size

    def part(self, rows: PatternRows) -> Incomplete:
        """The likelihood of some of the rows, in the same coordinates: no pass, no ridge.

        rows : pseudo-rows less `origin`, of rows that show something.
        """
        other = copy.copy(self)
        other._pseudo, other.restarts_are_free, other.n_empty, other._informed = rows, True, 0, None
        other.n_obs, other.cells = int(rows.count.sum()), rows.count @ rows.observed
        other.n_cells = int(other.cells.sum())
        other.coordinates = replace(self.coordinates, ridge=np.zeros_like(self.coordinates.ridge))
        return other

    # ------------------------------------------------------------------------------------------ the answers

    def start(self) -> np.ndarray:
        """(P,) every equation fitted by itself to the rows that show it, moved to keep to the restrictions."""
        return starting_values(self)[0]

    def latent(self, c: np.ndarray, sigma: LowRank) -> Latent:
        """The likelihood at (c, sigma): one pass, or none from pseudo-rows."""
        found: LatentMoments = self._sum(latent_moments, self._params(c, sigma), LIKELIHOOD)
        return self._latent(found, sigma, self._adjoint(found, sigma.d))

    def fixed(self, c: np.ndarray) -> Callable[[LowRank], Latent]:
        """`latent` at one c, its gradient left out: what Sigma alone costs, once residuals are found; pseudo-rows only.

        Making it costs a QR factorisation of the residuals of each pattern.
        """
        return self.of_residuals(self.residual_rows(c))

    def residual_rows(self, c: np.ndarray) -> PatternRows:
        """Rows without X that stand for the residuals at c; pseudo-rows only."""
        assert self._pseudo is not None
        none = LowRank(np.zeros((self.design.n_equations, 0)), np.ones(self.design.n_equations))
        with one_blas_thread:
            return self._pseudo.residuals(self._params(c, none))

    def of_residuals(self, rows: PatternRows) -> Callable[[LowRank], Latent]:
        """`latent` of residuals by Sigma alone, its gradient left out."""

        def latent(sigma: LowRank) -> Latent:
            with one_blas_thread:
                found = residual_moments(rows.slabs(), sigma)
            assert found is not None
            return self._latent(found, sigma, np.zeros(0))

        return latent

    def latents(self, c: np.ndarray, sigmas: Sequence[LowRank]) -> list[Latent]:
        """The likelihood at one c and several Sigmas: one pass and as many times the work, or none from pseudo-rows."""
        points = tuple(self._params(c, sigma) for sigma in sigmas)
        found: SeveralMoments = self._sum(several_moments, SeveralParams(self.origin, points), LIKELIHOOD)
        return [
            self._latent(part, sigma, self._adjoint(part, sigma.d))
            for part, sigma in zip(found.points, sigmas, strict=True)
        ]

    @cached_property
    def root_of_columns(self) -> np.ndarray:
        """(q + 1, q + 1) R with R R' = columns."""
        assert self.columns is not None
        value, basis = np.linalg.eigh(self.columns)
        return np.asarray(basis * np.sqrt(np.maximum(value, 0.0)))

    def expected(self, c: np.ndarray, *sigmas: Sigma) -> list[Expected]:
        """The likelihood at c and each Sigma of K x K numbers, of any kind, and the residual products expected there.

        One pass, and as many times the work; none from pseudo-rows.
        """
        return self.expected_at([(c, sigma) for sigma in sigmas])

    def expected_at(self, points: Sequence[tuple[np.ndarray, Sigma]], informed: int | None = None) -> list[Expected]:
        """`expected` at several points (c, Sigma): one pass, or none from pseudo-rows.

        informed : the point at whose Sigma the same pass sums the `information` too, kept until somebody asks for any
        or it is summed at another.
        """
        params = SeveralParams(self.origin, tuple(self._params(c, sigma) for c, sigma in points))
        if informed is None:
            found: SeveralExpected = self._sum(expected_moments, params, LIKELIHOOD)
        else:
            sigma = points[informed][1]
            sums = self._information_sums(sigma, None)
            look = LastLookParams(params, sums.params)
            both: LastLook = self._sum(last_look(sums.moments), look, LAST_LOOK, besides=self._matrix_bytes)
            found, self._informed = both.expected, (sigma, sums.whole(both.information))
        return [self._expected(part, sigma) for part, (_, sigma) in zip(found.points, points, strict=True)]

    def knows_information(self, sigma: Sigma) -> bool:
        """Whether a look has summed the information at this Sigma."""
        return self._informed is not None and self._informed[0] is sigma

    def forget_information(self) -> None:
        """That of the last look that summed it."""
        self._informed = None

    def general_image(self, p: np.ndarray, sigma: Sigma) -> np.ndarray:
        """`image` at any Sigma."""
        params = self._params(-p, sigma, np.zeros(self.design.n_equations))
        found: GradientMoments = self._sum(general_image, params, COEFFICIENTS)
        return self._adjoint(found, self._ones) + self.coordinates.ridge * p

    def image(self, p: np.ndarray, sigma: LowRank) -> np.ndarray:
        """(sum_i X_o' Sigma_oo^-1 X_o + ridge) p, (P,): one pass, or none from pseudo-rows."""
        # the residual of responses that are zero, at coefficients -p, is X p
        params = self._params(-p, sigma, np.zeros(self.design.n_equations))
        found: GradientMoments = self._sum(image_moments, params, COEFFICIENTS)
        return self._adjoint(found, sigma.d) + self.coordinates.ridge * p

    @cached_property
    def pairs_at_start(self) -> PairMoments:
        """`pairs` at `start`, and what rows hold of regressors, found once for all ranks that start there: one pass."""
        return self._pairs_at_start()

    def _pairs_at_start(self) -> PairMoments:
        if self.design.n_regressors > MOST_COLUMNS:
            return self.pairs(self.start())
        none = LowRank(np.zeros((self.design.n_equations, 0)), np.ones(self.design.n_equations))
        found: StartMoments = self._sum(start_moments, self._params(self.start(), none), RESIDUALS)
        return found

    @property
    def columns(self) -> np.ndarray | None:
        """(q + 1, q + 1) cross-products of columns, of StartMoments; None where there are too many of them."""
        found = self.pairs_at_start
        return found.columns if isinstance(found, StartMoments) else None

    def pairs(self, c: np.ndarray) -> PairMoments:
        """Residual cross-products over the rows that show both equations, and how many: one pass, or none."""
        none = LowRank(np.zeros((self.design.n_equations, 0)), np.ones(self.design.n_equations))
        found: PairMoments = self._sum(pair_moments, self._params(c, none), RESIDUALS)
        return found

    def information(self, sigma: Sigma, between: np.ndarray | None = None) -> np.ndarray:
        """sum_i X_o' Sigma_oo^-1 X_o in the coordinates c, (P, P), ridge not included: one pass, or none.

        between : (K, K) in the place of every Sigma_oo^-1, if given.
        """
        known, self._informed = self._informed, None
        if known is not None and known[0] is sigma and between is None:
            return known[1]
        sums = self._information_sums(sigma, between)
        return sums.whole(self._sum(sums.moments, sums.params, ERRORS, besides=self._matrix_bytes))

    def summed(self, moments: Callable[..., Any], params: MaskedParams, label: str) -> Any:
        """What `moments` sums over the rows: one pass, or none from pseudo-rows."""
        return self._sum(moments, params, label)

    def by_pattern(self) -> Iterator[MaskedSlab]:
        """The pseudo-rows of each pattern in turn; none where rows are streamed."""
        if self._pseudo is not None:
            first = [*np.flatnonzero(self._pseudo.unit), len(self._pseudo.unit)]
            for begin, end in pairwise(first):
                yield self._pseudo.slab(slice(int(begin), int(end)))

    # ------------------------------------------------------------------------------------------ inside

    @property
    def _matrix_bytes(self) -> int:
        return 8 * self.design.n_coefficients**2

    def _information_sums(self, sigma: Sigma, between: np.ndarray | None) -> InformationSums:
        wide = widened(sigma) if sigma.is_wide else sigma
        return InformationSums(replace(self._whitened_params(wide), between=between), self._order)

    @property
    def _n_nothing(self) -> int:
        """Rows that show nothing, in sums over rows; pseudo-rows are of the others."""
        return self.n_empty if self._pseudo is None else 0

    def _latent(self, found: LatentMoments, sigma: LowRank, gradient: np.ndarray) -> Latent:
        k = sigma.rank
        outer, spread = unpacked(found.outer, k), unpacked(found.spread, k)
        quadratic = float((found.errors / sigma.d).sum()) + found.lengths
        log_dets = float(found.cells @ np.log(sigma.d)) + found.log_det
        n_obs = found.n_rows - self._n_nothing
        nll = 0.5 * (LOG_2PI * float(found.cells.sum()) + log_dets + quadratic) / n_obs
        spread_F = np.einsum("jkl,jl->jk", spread, sigma.F)
        return Latent(
            nll=nll,
            gradient=gradient,
            squares=found.errors + np.einsum("jk,jk->j", sigma.F, spread_F),
            along=found.along - spread_F,
            second=outer + spread,
            spread=spread,
            total=unpacked(found.total, k) - self._n_nothing * np.eye(k),
            cells=found.cells,
            n_obs=n_obs,
        )

    def _expected(self, found: ExpectedMoments, sigma: Sigma) -> Expected:
        """Of sums over rows; those that show nothing take no part."""
        cross = found.cross + found.spread - self._n_nothing * sigma.dense()
        nll = 0.5 * (LOG_2PI * self.n_cells + found.log_det + found.quadratic) / self.n_obs
        return Expected(nll, self._adjoint(found, self._ones), cross / self.n_obs, found.log_det)

    def _per_equation(self, first: FirstMoments) -> tuple[np.ndarray, np.ndarray]:
        cells, log_weight = np.empty(self.design.n_equations), np.empty(self.design.n_equations)
        for group, found in zip(self.rows.design.groups, first.groups, strict=True):
            cells[group.equations], log_weight[group.equations] = found.rows, found.log_weight
        return cells, log_weight

    def by_equation(self, first: FirstMoments) -> list[tuple[AvailableMoments, int]]:
        found: dict[int, tuple[AvailableMoments, int]] = {}
        for group, moments in zip(self.rows.design.groups, first.groups, strict=True):
            found.update({int(j): (moments, i) for i, j in enumerate(group.equations)})
        return [found[j] for j in range(self.design.n_equations)]

    def _sum(
        self,
        moments: Callable[..., Any],
        params: MaskedParams | SeveralParams | LastLookParams,
        label: str,
        besides: int = 0,
    ) -> Any:
        """besides : bytes of a partial sum that are not P + K k^2 numbers a point."""
        if self._pseudo is not None:
            with one_blas_thread:  # slabs are narrow: more threads only wait for each other
                return moments(self._pseudo.slabs(), params)
        assert isinstance(self.rows, Rows)  # compressed ones have pseudo-rows
        # a last look is cut as a pass for the information alone: the same bits of it, whichever of them finds it
        only = params.information if isinstance(params, LastLookParams) else params
        points = only.points if isinstance(only, SeveralParams) else (only,)
        design, k = self.design, points[0].sigma.rank
        size = besides + 8 * len(points) * (design.n_coefficients + design.n_equations * (4 + 2 * k + k * k))
        if moments in (pair_moments, start_moments, expected_moments):
            size += 16 * len(points) * design.n_equations**2
        if moments is start_moments:
            size += 8 * (design.n_regressors + 1) ** 2
        kernel = block_kernel(moments)
        return run_pass(self.rows, kernel, params, partial_bytes=size, meter=self.meter, label=label, holes=True)


def _kept(rows: Rows | CompressedPatterns | SeenRows, first: FirstMoments) -> CompressedPatterns | None:
    if not isinstance(rows, Rows):
        return rows if isinstance(rows, CompressedPatterns) else None
    if first.patterns is None:
        return None
    widths = [len(moments.head.anchor) for moments in first.patterns.values()]
    return by_pattern(first, rows.design) if 8 * sum(width**2 for width in widths) <= KEPT_BYTES else None


def _check_observed(design: Design, cells: np.ndarray, first: FirstMoments) -> None:
    """Raise ValueError where an equation is not observed in more rows than it has regressors, naming all that cannot be
    estimated."""
    sizes = design.sizes
    few = np.flatnonzero(cells <= sizes)
    if len(few) == 0:
        return
    status = statuses_shown(first, design)
    leaves = ", or use unusable='skip', which fits the others" if OK in status else ""
    if sum(said != OK for said in status) > 1:
        raise ValueError(
            f"not to be estimated: {unusable_equations(design.equations, status)}. Every equation must be observed in "
            f"more rows than it has regressors: leave those or some regressors out{leaves}."
        )
    j = int(few[0])
    if cells[j] == 0:
        raise ValueError(f"equation {design.equations[j]!r} is observed in no row. Leave it out of the system{leaves}.")
    raise ValueError(
        f"equation {design.equations[j]!r} is observed in {int(cells[j])} rows and has {sizes[j]} regressors. "
        f"Every equation must be observed in more rows than it has regressors: leave it or some regressors out{leaves}."
    )
