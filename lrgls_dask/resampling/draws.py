"""Refits of replicated data: simulated from a fit on the rows that stand for X, or resampled from groups of rows.

Parametric: the fit sees its data only through X'Y and Y'Y at the given X. With Q (N, r) an orthonormal basis of the
columns of W^1/2 X, the N independent rows N(0, Sigma) of the errors E enter through Q'E, r independent rows of that
kind, and, independent of it, E'E - E'Q Q'E, a Wishart matrix with N - r degrees of freedom (Anderson 2003, theorem
4.3.2), drawn by Bartlett's (1933) factor. So a replicate needs r + K random rows, whatever N is.

By groups: the cross-products of each group of rows are kept apart, and a replicate adds those it has drawn.

Replicate i depends on the seed and on i alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.compression.parts import Parts
from lrgls_dask.compression.roots import root_of
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.resampling.std_errors import StandardErrors
from lrgls_dask.rows.fingerprint import Fingerprint
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.moments import GramMoments, Head, Levels, RootMoments
from lrgls_dask.rows.tasks import run_tasks
from lrgls_dask.sigma.interface import Sigma, Structure
from lrgls_dask.solve.fingerprint import check_compressed
from lrgls_dask.solve.in_memory import InMemory
from lrgls_dask.solve.record import Options, Point
from lrgls_dask.solve.refit import refit
from lrgls_dask.solve.whiten import GRAM_RESOLUTION, QR_RESOLUTION

__all__ = [
    "Draws",
    "Fitted",
    "Replicate",
    "collect",
    "column_space",
    "draw_moments",
    "draw_rows",
    "parametric",
    "resampled",
    "resampled_by",
    "space_of",
    "without_still",
]

ROUNDING = 1e-12  # in units of a column's standard deviation


@dataclass(frozen=True, eq=False)
class Fitted:
    """What is replicated: coefficients (P,), Sigma and its structure in the user's units, and how they were found.

    fingerprint : of the rows they were found from, None where that was not kept.
    """

    coefficients: np.ndarray
    sigma: Sigma
    structure: Structure
    options: Options
    restrictions: Restrictions | None = None
    fingerprint: Fingerprint | None = None

    def problem(self, rows: Compressed) -> InMemory:
        """Other rows under the same penalty and restrictions."""
        return InMemory(rows, lam_B=self.options.lam_B, meter=Meter(), restrictions=self.restrictions)


@dataclass(frozen=True, eq=False)
class Draws:
    """Replicates that could be fitted, in the user's units.

    numbers : (n,) which of those asked for.  params, std_errors : (n, P), the errors classical, at each replicate's own
    Sigma.  variances : (n, K) of that Sigma.  idio_var : (n, K), or (n, 0) where it has no factors.
    n_failed : replicates left out because no fit exists.
    """

    numbers: np.ndarray
    params: np.ndarray
    std_errors: np.ndarray
    variances: np.ndarray
    idio_var: np.ndarray
    n_failed: int


Replicate = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def parametric(rows: Compressed, fitted: Fitted, n: int, seed: int) -> Draws:
    """n refits of data drawn from the fitted model at the X of `rows`; no read, cost and memory free of N.

    Raises ValueError for rows that are not those of the fit.
    """
    check_compressed(fitted.fingerprint, [rows])
    problem = fitted.problem(rows)
    scale = problem.whitened.y_scale
    sigma = fitted.sigma.rescaled(1.0 / scale)
    c = problem.coordinates.flat(problem.whitened.coordinates(fitted.coefficients))
    basis = column_space(rows)
    simulator = _Simulator(
        problem=problem.with_responses(np.zeros_like(problem.fitted(c)), np.zeros((len(scale), len(scale)))),
        c=c,
        sigma=sigma,
        fitted=fitted,
        mean=problem.fitted(c),
        basis=basis,
        root=np.linalg.cholesky(sigma.dense()),
        errors=_errors_of(problem, fitted),
    )
    return collect(run_tasks(_simulate, simulator, np.random.SeedSequence(seed).spawn(n)))


def resampled(parts: Parts, fitted: Fitted, n: int, seed: int) -> Draws:
    """n refits of as many parts drawn with replacement; no read, (q + K)^2 flops a part and replicate.

    Raises ValueError for rows that are not those of the fit.
    """
    return resampled_by(_Resampler.of(parts, fitted), n, seed)


class Resampler(Protocol):
    """Parts of rows that are drawn: each as often as counts say, together."""

    @property
    def fitted(self) -> Fitted: ...

    @property
    def n_parts(self) -> int: ...

    def rows(self, counts: np.ndarray) -> Compressed: ...


def resampled_by(resampler: Resampler, n: int, seed: int) -> Draws:
    """See `resampled`."""
    check_compressed(resampler.fitted.fingerprint, [resampler.rows(np.ones(resampler.n_parts, dtype=np.int64))])
    return collect(run_tasks(_resample, resampler, np.random.SeedSequence(seed).spawn(n)))


def collect(replicates: list[Replicate | None]) -> Draws:
    """Those that could be fitted. Raises LinAlgError where none could."""
    found = [(i, r) for i, r in enumerate(replicates) if r is not None]
    if not found:
        raise np.linalg.LinAlgError(
            f"none of {len(replicates)} replicates could be fitted: every one was singular. Resample in fewer, larger "
            "blocks, or use method='parametric'."
        )
    params, std_errors, variances, idio_var = (np.stack([r[i] for _, r in found]) for i in range(4))
    numbers = np.array([i for i, _ in found])
    return Draws(numbers, params, std_errors, variances, idio_var, len(replicates) - len(found))


def _errors_of(problem: InMemory, fitted: Fitted) -> StandardErrors:
    return StandardErrors.of(problem, least_squares=fitted.options.algorithm == "ols")


def _refitted(problem: InMemory, c: np.ndarray, sigma: Sigma, fitted: Fitted, errors: StandardErrors) -> Replicate:
    start = Point(c, problem.residual_covariance(c), sigma)
    scale = problem.whitened.y_scale
    point = refit(problem, fitted.structure.in_units(scale), fitted.options, start)
    return (
        errors.coefficients(point.c),
        errors.at(point.sigma),
        point.sigma.variances * scale**2,
        point.sigma.rescaled(scale).own_variances(),
    )


# ---------------------------------------------------------------------------------------------- parametric


@dataclass(frozen=True, eq=False)
class _Simulator:
    """All that replicates share, in standard units: X does not change, so neither do its whitened coordinates.

    mean : (q + 1, K) fitted values at c.  basis : (q + 1, r).  root : (K, K) lower, root root' = Sigma.
    """

    problem: InMemory
    c: np.ndarray
    sigma: Sigma
    fitted: Fitted
    mean: np.ndarray
    basis: np.ndarray
    root: np.ndarray
    errors: StandardErrors


def _simulate(simulator: _Simulator, seed: np.random.SeedSequence) -> Replicate | None:
    rng = np.random.default_rng(seed)
    free = simulator.problem.n_obs - simulator.problem.design.n_absorbed  # dimensions that errors are left in
    inside, beyond = draw_moments(rng, simulator.root, simulator.basis.shape[1], free)
    problem = simulator.problem.with_responses(simulator.mean + simulator.basis @ inside, beyond)
    try:
        return _refitted(problem, simulator.c, simulator.sigma, simulator.fitted, simulator.errors)
    except (np.linalg.LinAlgError, ValueError):
        return None


def draw_moments(rng: np.random.Generator, root: np.ndarray, inside: int, n_obs: int) -> tuple[np.ndarray, np.ndarray]:
    """Q'E (inside, K) and E'E - E'Q Q'E (K, K) of n_obs rows of errors with covariance root root'."""
    drawn, rows = draw_rows(rng, root, inside, n_obs)
    return drawn, rows.T @ rows


def draw_rows(rng: np.random.Generator, root: np.ndarray, inside: int, n_obs: int) -> tuple[np.ndarray, np.ndarray]:
    """Q'E (inside, K), and at most K rows whose cross-product is E'E - E'Q Q'E."""
    size, freedom = len(root), n_obs - inside
    drawn = rng.standard_normal((inside, size)) @ root.T
    if freedom >= size:
        factor = np.tril(rng.standard_normal((size, size)), -1)
        factor[np.diag_indices(size)] = np.sqrt(rng.chisquare(freedom - np.arange(size)))
    else:  # a singular Wishart matrix: the rows themselves are fewer
        factor = rng.standard_normal((size, max(freedom, 0)))
    return drawn, (root @ factor).T


def column_space(rows: Compressed) -> np.ndarray:
    """(q + 1, r) orthonormal basis of the columns of the rows that stand for X, r their numerical rank."""
    return space_of(rows.rows_of_x(), QR_RESOLUTION if rows.route == "qr" else GRAM_RESOLUTION)


def space_of(x: np.ndarray, resolution: float) -> np.ndarray:
    """The same of rows x (h, q), the mean of those they stand for, times the root of their number, first.

    Where they span a constant the mean is a direction of its own, which a large mean would else hide among the digits.
    """
    size = np.linalg.norm(x, axis=0)
    mean = x[0] / np.where(size > 0, size, 1.0)
    spread = np.linalg.norm(x[1:], axis=0)
    varying = spread > resolution * size
    unit = np.where(varying, spread, 1.0)
    u, s, vt = np.linalg.svd(np.where(varying, x[1:] / unit, 0.0), full_matrices=True)
    # rows that stand for X are known up to their signs, which depend on how the data were cut: fix those of the basis
    signs = np.where(vt[np.arange(len(s)), np.argmax(np.abs(vt[: len(s)]), axis=1)] < 0, -1.0, 1.0)
    u, vt[: len(s)] = u[:, : len(s)] * signs, vt[: len(s)] * signs[:, None]
    rank = int(np.sum(s > resolution * np.sqrt(len(s))))
    left_over = np.abs(vt[rank:] @ np.where(varying, x[0] / unit, 0.0))  # of the mean, where nothing varies
    scale = np.linalg.norm(x[0, varying] / unit[varying])
    constant = bool(np.any(np.abs(mean[~varying]) > 0.5)) or bool(np.any(left_over > np.sqrt(resolution) * scale))
    if constant:
        basis = np.zeros((len(x), rank + 1))
        basis[0, 0] = 1.0
        basis[1:, 1:] = u[:, :rank]
        return basis
    inside = np.where(varying, x[0] / unit, 0.0) @ vt[:rank].T / s[:rank]
    basis, triangle = np.linalg.qr(np.vstack([inside, u[:, :rank]]))
    return np.asarray(basis * np.where(triangle.diagonal() < 0, -1.0, 1.0))


# ---------------------------------------------------------------------------------------------- by groups


@dataclass(frozen=True, eq=False)
class _Resampler:
    """Moments of G groups around one common row, so that sums of any multiples of them keep their digits.

    n_rows, weights, log_weights, levels : (G,).  anchor : (M,).  offsets : (G, M) means less the anchor.
    cross : (G, M, M).
    spread : (M,) standard deviation of each column over all groups.
    """

    parts: Parts
    n_rows: np.ndarray
    weights: np.ndarray
    log_weights: np.ndarray
    levels: tuple[Levels | None, ...]
    anchor: np.ndarray
    offsets: np.ndarray
    cross: np.ndarray
    spread: np.ndarray
    fitted: Fitted

    @property
    def n_parts(self) -> int:
        return len(self.weights)

    @classmethod
    def of(cls, parts: Parts, fitted: Fitted) -> _Resampler:
        heads = [moments.head for moments in parts.moments.values()]
        weights = np.array([head.weight for head in heads])
        anchor = heads[0].mean
        offsets = np.stack([(head.anchor - anchor) + head.offset for head in heads])
        centre = weights @ offsets / weights.sum()
        offsets -= centre
        cross = np.stack([_cross(moments) for moments in parts.moments.values()])
        squares = np.einsum("gii->i", cross) + weights @ offsets**2
        return cls(
            Parts(parts.design, {}, parts.route),
            np.array([head.n_rows for head in heads]),
            weights,
            np.array([head.log_weight for head in heads]),
            tuple(head.levels for head in heads),
            anchor + centre,
            offsets,
            cross,
            np.sqrt(squares / weights.sum()),
            fitted,
        )

    def rows(self, counts: np.ndarray) -> Compressed:
        """The compressed system of every group taken as often as counts (G,) says."""
        taken = np.flatnonzero(counts)
        weights, offsets = counts[taken] * self.weights[taken], self.offsets[taken]
        total = float(weights.sum())
        mean = weights @ offsets / total
        cross = np.tensordot(counts[taken].astype(float), self.cross[taken], 1)
        cross += (weights * (offsets - mean).T) @ (offsets - mean)
        still = without_still(cross, total, self.spread)
        absent = still & (np.abs(self.anchor + mean) <= ROUNDING * self.spread)
        mean[absent] = -self.anchor[absent]
        head = Head(
            int(counts @ self.n_rows),
            total,
            float(counts @ self.log_weights),
            self.anchor,
            mean,
            _times(self.levels, counts),
        )
        return Compressed(self.parts.design, head, root_of(cross), "gram")


def without_still(cross: np.ndarray, weight: float, spread: np.ndarray) -> np.ndarray:
    """(M,) columns that do not vary in the groups drawn: what they leave in the cross-product is rounding, which must
    not look like variation, and is set to zero."""
    still = cross.diagonal() <= weight * (ROUNDING * spread) ** 2
    cross[still], cross[:, still] = 0.0, 0.0
    return np.asarray(still)


def _times(levels: tuple[Levels | None, ...], counts: np.ndarray) -> Levels | None:
    """The sum of what heads know of constants, each so often."""
    known = [each.times(int(n)) for each, n in zip(levels, counts, strict=True) if each is not None and n]
    return sum(known[1:], known[0]) if known else None


def _cross(moments: GramMoments | RootMoments) -> np.ndarray:
    return moments.root.T @ moments.root if isinstance(moments, RootMoments) else moments.cross


def _resample(resampler: Resampler, seed: np.random.SeedSequence) -> Replicate | None:
    rng = np.random.default_rng(seed)
    n_groups = resampler.n_parts
    counts = np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups)
    fitted = resampler.fitted
    try:
        problem = fitted.problem(resampler.rows(counts))
        c = problem.coordinates.flat(problem.whitened.coordinates(fitted.coefficients))
        sigma = fitted.sigma.rescaled(1.0 / problem.whitened.y_scale)
        return _refitted(problem, c, sigma, fitted, _errors_of(problem, fitted))
    except (np.linalg.LinAlgError, ValueError):
        return None
