"""What rows with missing responses contribute, at given coefficients and Sigma = F F' + diag(d).

Row i shows the equations in its set o. With D, F cut to o, C_i = I + F_o' D_o^-1 F_o and m_i = C_i^-1 F_o' D_o^-1 r_i,

    -2 log L_i = |o| log 2 pi + sum_o log d_j + log|C_i| + e_i' D_o^-1 e_i + m_i'm_i,      e_i = r_i - F_o m_i,

and given r_i the factors are N(m_i, C_i^-1) (Rubin and Thayer 1982, a row's own equations in place of all). One slab
holds either rows or *pseudo-rows*: a triangular root that stands for the rows of one pattern of missing values, whose
squares are summed as they are while everything that depends on the pattern alone is counted on one of them, `count`
times. No Python loop runs over rows: all small matrices of a slab are factored together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from lrgls_dask.design.design import DesignGroup
from lrgls_dask.missing.slabs import POSTERIOR, MaskedSlab, block_slabs, spare_rows
from lrgls_dask.rows.block import Block
from lrgls_dask.rows.kernels import scratch
from lrgls_dask.rows.moments import Summed
from lrgls_dask.rows.sums import sums
from lrgls_dask.rows.tiles import Tiles, add_adjoint, subtract_fitted
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.shown import Posterior, lower_triangle

__all__ = [
    "GradientMoments",
    "LatentMoments",
    "MaskedParams",
    "PairMoments",
    "SeveralMoments",
    "SeveralParams",
    "StartMoments",
    "along_of",
    "block_kernel",
    "errors_given",
    "gradient_of",
    "image_moments",
    "latent_moments",
    "pair_moments",
    "residual_moments",
    "residuals_of",
    "room_of",
    "several_moments",
    "start_moments",
    "unpacked",
    "whitened_columns",
]


@dataclass(frozen=True, eq=False)
class MaskedParams:
    """What the kernels are told.

    tiles : the coefficients and what they multiply.  origin : (q + K,) subtracted from every row.  scale : (K,) units
    of Y.  coefficients : flat (P,), from columns of X to Y / scale.  level : (K,) residual of a row that stands at
    `origin`.  sigma : in units of `scale`.
    maps : per group (m, p, p), from columns less origin to whitened ones; places : per group (m, p) where those stand;
    ends : (P,) the whitened columns at `origin`; all three for the information alone, and so is between : (K, K), which
    takes the place of Sigma_oo^-1.  constants : (q, K) with X times it the constants, where that is not `unit`.
    """

    groups: tuple[DesignGroup, ...]
    tiles: Tiles
    origin: np.ndarray
    scale: np.ndarray
    coefficients: np.ndarray
    level: np.ndarray
    sigma: Any
    maps: tuple[np.ndarray, ...] = ()
    places: tuple[np.ndarray, ...] = ()
    ends: np.ndarray | None = None
    between: np.ndarray | None = None
    constants: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class SeveralParams:
    """Several points that one pass answers for, all with this origin."""

    origin: np.ndarray
    points: tuple[MaskedParams, ...]


# ---------------------------------------------------------------------------------------------- moments


@dataclass(frozen=True, eq=False)
class LatentMoments(Summed):
    """All that the likelihood, its gradient and an EM step need of the rows.

    n_rows : rows, those with nothing observed among them.  cells : (K,) observed rows of each equation.
    errors : (K,) sum e_j^2.  along : (K, k) sum e_j m'.  outer : (K, h) sum m m', spread : (K, h) sum C^-1, both over
    the rows that show the equation, lower triangles of h = k (k + 1) / 2 numbers.  total : (h,) sum m m' + C^-1 over
    all rows.  log_det : sum log|C|.  lengths : sum m'm.  gradient : flat (P,) X'e.  unit_gradient : sum e_j.
    """

    n_rows: float
    cells: np.ndarray
    errors: np.ndarray
    along: np.ndarray
    outer: np.ndarray
    spread: np.ndarray
    total: np.ndarray
    log_det: float
    lengths: float
    gradient: np.ndarray
    unit_gradient: np.ndarray


@dataclass(frozen=True, eq=False)
class SeveralMoments(Summed):
    """LatentMoments at several points."""

    points: tuple[LatentMoments, ...]


@dataclass(frozen=True, eq=False)
class GradientMoments(Summed):
    """gradient : flat (P,) X'e.  unit_gradient : (K,) sum e_j."""

    gradient: np.ndarray
    unit_gradient: np.ndarray


@dataclass(frozen=True, eq=False)
class PairMoments(Summed):
    """cross : (K, K) sum of r_j r_l, pairs : (K, K) number of rows, both over the rows that show j and l."""

    cross: np.ndarray
    pairs: np.ndarray


@dataclass(frozen=True, eq=False)
class StartMoments(PairMoments):
    """columns : (q + 1, q + 1) cross-products of the columns and of what the row holds of a constant, both zero where
    the row shows none of the equations that use them."""

    columns: np.ndarray


# ---------------------------------------------------------------------------------------------- kernels


def latent_moments(slabs: Iterable[MaskedSlab], params: MaskedParams) -> LatentMoments | None:
    """LatentMoments of some slabs; about n (2 P + K (2 k^2 + 4 k)) multiplications."""
    several = several_moments(slabs, SeveralParams(params.origin, (params,)))
    return None if several is None else several.points[0]


def _latent(slab: MaskedSlab, params: MaskedParams, numbers: int) -> LatentMoments:
    given = slab.posterior(params.sigma, numbers)
    found, error = _latent_of(residuals_of(slab, params, room_of(slab)), slab, given, params.sigma)
    gradient, unit_gradient = gradient_of(slab, error, params)
    return replace(found, gradient=gradient, unit_gradient=unit_gradient)


def residual_moments(slabs: Iterable[MaskedSlab], sigma: LowRank) -> LatentMoments | None:
    """LatentMoments, but for the gradients, of slabs whose y is the residuals; n K (2 k^2 + 4 k) multiplications."""
    total: LatentMoments | None = None
    for slab in slabs:
        part, _ = _latent_of(slab.y.copy(), slab, slab.posterior(sigma), sigma)
        if total is None:
            total = part
        else:
            total += part
    return total


def _latent_of(
    residual: np.ndarray, slab: MaskedSlab, given: Posterior, sigma: LowRank
) -> tuple[LatentMoments, np.ndarray]:
    """LatentMoments without gradients, and the errors e (n, K) in the memory of `residual`."""
    observed, n_pairs = slab.observed, len(given.packed)
    mean = _factor_means(given.half, residual, sigma)
    error = _errors(residual, mean, observed, sigma)
    counted = np.ones(len(observed)) if slab.count is None else slab.count
    # products of the means, variances, rows: each summed over the rows that show the equation, and over all
    each = np.empty((2 * n_pairs + 2, len(observed)))
    _products(mean, out=each[:n_pairs])
    each[n_pairs:-2] = given.packed
    each[-2] = given.log_det
    each[-1] = counted
    if slab.count is not None:
        each[n_pairs:-1] *= counted
    by_equation, total = sums(each, observed).T, each @ np.ones(len(observed))
    outer, spread = total[:n_pairs], total[n_pairs:-2]
    found = LatentMoments(
        n_rows=float(total[-1]),
        cells=by_equation[:, -1],
        errors=np.einsum("ij,ij->j", error, error),
        along=sums(mean, error).T,
        outer=by_equation[:, :n_pairs],
        spread=by_equation[:, n_pairs:-2],
        total=outer + spread,
        log_det=float(total[-2]),
        lengths=float(np.vdot(mean, mean)),
        gradient=np.zeros(0),
        unit_gradient=np.zeros(len(sigma.d)),
    )
    return found, error


def several_moments(slabs: Iterable[MaskedSlab], params: SeveralParams) -> SeveralMoments | None:
    """LatentMoments at each of several points: one read, as many times the work."""
    total: SeveralMoments | None = None
    numbers = POSTERIOR // len(params.points)
    for slab in slabs:
        part = SeveralMoments(tuple(_latent(slab, point, numbers) for point in params.points))
        if total is None:
            total = part
        else:
            total += part
    return total


def image_moments(slabs: Iterable[MaskedSlab], params: MaskedParams) -> GradientMoments | None:
    """X_o' Sigma_oo^-1 X_o p times d, for p the negative of `coefficients`; Y does not enter."""
    total: GradientMoments | None = None
    for slab in slabs:
        error = errors_given(along_of(slab, params), slab, params.sigma)
        part = GradientMoments(*gradient_of(slab, error, params))
        if total is None:
            total = part
        else:
            total += part
    return total


def pair_moments(slabs: Iterable[MaskedSlab], params: MaskedParams) -> PairMoments | None:
    """PairMoments of some slabs, 2 n K^2 multiplications."""
    total: PairMoments | None = None
    for slab in slabs:
        residual = residuals_of(slab, params, room_of(slab))
        counted = slab.observed if slab.count is None else slab.observed * slab.count[:, None]
        part = PairMoments(sums(residual.T, residual), sums(counted.T, slab.observed))
        total = part if total is None else total + part
    return total


def start_moments(slabs: Iterable[MaskedSlab], params: MaskedParams) -> StartMoments | None:
    """StartMoments of some slabs, 2 n K^2 + n (q + 1)^2 multiplications."""
    total: StartMoments | None = None
    for slab in slabs:
        columns = _shown_columns(slab, params.groups)
        pairs = pair_moments([slab], params)
        assert pairs is not None
        part = StartMoments(pairs.cross, pairs.pairs, sums(columns.T, columns))
        total = part if total is None else total + part
    return total


def _shown_columns(slab: MaskedSlab, groups: tuple[DesignGroup, ...]) -> np.ndarray:
    """(n, q + 1) columns and, last, what the row holds of a constant; zero where no equation that is shown has them."""
    n, q = slab.x.shape
    columns = np.empty((n, q + 1))
    columns[:, :-1] = slab.x
    columns[:, -1] = 1.0 if slab.unit is None else slab.unit
    shown = [slab.observed[:, group.take_equations] @ np.ones(len(group.equations)) > 0.0 for group in groups]
    idle = np.ones(q + 1, dtype=bool)
    for group in groups:
        idle[group.columns] = False
    idle[-1] = False
    if not idle.any() and all(each.all() for each in shown):
        return columns
    used = np.zeros((n, q + 1), dtype=bool)
    for group, rows in zip(groups, shown, strict=True):
        used[:, group.columns] |= rows[:, None]
        used[:, -1] |= rows
    columns *= used
    return columns


def whitened_columns(slab: MaskedSlab, params: MaskedParams) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """(n, P) whitened columns of every equation, zero where it is missing, and per group (m, p, p) their squares."""
    assert params.ends is not None
    columns = np.empty((len(slab.x), len(params.ends)))
    own = []
    for group, maps, places in zip(params.groups, params.maps, params.places, strict=True):
        x, squares = slab.x[:, group.take_columns], np.empty(maps.shape)
        for i, j in enumerate(group.equations):
            mine = x @ maps[i]
            mine += params.ends[places[i]] if slab.unit is None else slab.unit[:, None] * params.ends[places[i]]
            mine *= slab.observed[:, j, None]
            columns[:, places[i]] = mine
            squares[i] = sums(mine.T, mine)
        own.append(squares)
    return columns, tuple(own)


@dataclass(frozen=True)
class block_kernel:
    """The kernel of blocks that sums `moments` over their slabs; these take what is not observed times zero."""

    moments: Callable[..., Any]
    masks_unused: ClassVar[bool] = True

    def __call__(self, block: Block, params: MaskedParams | SeveralParams) -> Any:
        return self.moments(block_slabs(block, params.origin), params)


# ---------------------------------------------------------------------------------------------- one slab


def residuals_of(slab: MaskedSlab, params: MaskedParams, out: np.ndarray | None = None) -> np.ndarray:
    """(n, K) residuals in units of `scale`, zero where missing.  out : (n, K) where they go, if given."""
    residual = np.empty(slab.y.shape) if out is None else out
    np.divide(slab.y, params.scale, out=residual)
    return _less_fitted(residual, slab, params)


def along_of(slab: MaskedSlab, params: MaskedParams) -> np.ndarray:
    """(n, K) the residuals of responses that are zero, in memory that the next call takes."""
    residual = room_of(slab)
    residual.fill(0.0)
    return _less_fitted(residual, slab, params)


def _less_fitted(residual: np.ndarray, slab: MaskedSlab, params: MaskedParams) -> np.ndarray:
    subtract_fitted(residual, slab.columns, params.coefficients, params.tiles)
    residual += params.level if slab.unit is None else slab.unit[:, None] * params.level
    residual.reshape(-1)[slab.hidden] = 0.0
    return residual


def room_of(slab: MaskedSlab) -> np.ndarray:
    """(n, K) memory for residuals, until the next slab asks for it."""
    return scratch("residuals", slab.y.shape)


def _factor_means(half: np.ndarray, residual: np.ndarray, sigma: LowRank) -> np.ndarray:
    """m, (k, n)."""
    white = np.einsum("abn,bn->an", half, sigma.scaled_loadings.T @ residual.T)
    return np.asarray(np.einsum("abn,an->bn", half, white))


def _errors(residual: np.ndarray, mean: np.ndarray, observed: np.ndarray, sigma: LowRank) -> np.ndarray:
    """e = r - F m, zero where missing, in the memory of `residual`."""
    if len(mean):
        by_factors = np.matmul(mean.T, sigma.F.T, out=spare_rows(residual.shape))
        by_factors *= observed
        residual -= by_factors
    return residual


def errors_given(residual: np.ndarray, slab: MaskedSlab, sigma: LowRank) -> np.ndarray:
    """The errors e (n, K) of residuals of a slab, in their memory."""
    mean = _factor_means(slab.posterior(sigma).half, residual, sigma)
    return _errors(residual, mean, slab.observed, sigma)


def gradient_of(slab: MaskedSlab, error: np.ndarray, params: MaskedParams) -> tuple[np.ndarray, np.ndarray]:
    unit = sums(np.ones(len(error)) if slab.unit is None else slab.unit, error)
    gradient = np.zeros(len(params.tiles.batches.places))
    add_adjoint(gradient, slab.columns, error, params.tiles)
    return gradient, unit


def _products(mean: np.ndarray, out: np.ndarray) -> None:
    """Lower triangles of m m' into out (h, n)."""
    rows, columns = lower_triangle(len(mean))
    np.multiply(mean[rows], mean[columns], out=out)


def unpacked(triangles: np.ndarray, k: int) -> np.ndarray:
    """(..., k, k) symmetric from (..., h) lower triangles."""
    out = np.empty((*triangles.shape[:-1], k, k))
    rows, columns = lower_triangle(k)
    out[..., rows, columns] = triangles
    out[..., columns, rows] = triangles
    return out
