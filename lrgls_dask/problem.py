"""What the alternating loop asks of the data, answered from q + K + 1 rows in memory or by passes over all rows.

Both answer in whitened coordinates (whiten.py): c is the vector of all P coefficients, group by group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from scipy.linalg import solve_triangular

from lrgls_dask.compress import Compressed, root_of
from lrgls_dask.covariance import LowRank
from lrgls_dask.design import Design
from lrgls_dask.kernels import (
    DesignMoments,
    DirectionMoments,
    Head,
    ResidualMoments,
    StreamParams,
    design_kernel,
    direction_kernel,
    gram_kernel,
    residual_kernel,
)
from lrgls_dask.passes import Meter, run_pass
from lrgls_dask.rows import Rows
from lrgls_dask.whiten import GroupRows, Whitened, whiten

__all__ = ["GlsStep", "InMemory", "Problem", "Streamed", "group_rows"]

QR_RESOLUTION = 1e-12  # singular values of unit columns that the qr route tells from zero
PARTIALS_IN_FLIGHT = 24  # partial sums a pass may hold at once on one worker
GRAM_RESOLUTION = 3e-7  # and those that a Cholesky factor of the cross-product does


@dataclass(frozen=True, eq=False)
class GlsStep:
    """The normal equations A c = rhs of the coefficients at one Sigma, and where the current c stands.

    score : (P,) rhs - A c.  product(p, c) : A p.  finish(c, steps) : (K, K) residual covariance at the solution.
    """

    score: np.ndarray
    product: Callable[[np.ndarray, np.ndarray], np.ndarray]
    finish: Callable[[np.ndarray, tuple[float, ...]], np.ndarray]


class Problem(Protocol):
    """Residual covariances and GLS steps of one system in whitened coordinates."""

    design: Design
    whitened: Whitened
    coordinates: Coordinates
    n_obs: int
    nll_offset: float
    meter: Meter
    restarts_are_free: bool

    def residual_covariance(self, c: np.ndarray) -> np.ndarray:
        """S = R'R / N, (K, K), in standard units."""
        ...

    def gls_step(self, c: np.ndarray, sigma: LowRank) -> GlsStep: ...

    def x_rows(self) -> np.ndarray | None:
        """(r, q) with x_rows'x_rows = X'X, None where that needs more memory than there is."""
        ...

    def inner_energy(self, rel_tol: float) -> float:
        """r'M^-1 r at which the last conjugate gradients stop, given the outer tolerance."""
        ...


def nll_offset(whitened: Whitened, head: Head) -> float:
    """What turns the nll per row in standard units into that of the data: the units of Y and the row weights."""
    weights = 0.5 * len(whitened.y_scale) * head.log_weight / head.n_rows
    return float(np.log(whitened.y_scale).sum()) - weights


# ---------------------------------------------------------------------------------------------- coordinates


@dataclass(frozen=True, eq=False)
class Coordinates:
    """The flat vector c, cut into buckets of designs of equal shape, so that one batched product serves a bucket.

    Each bucket: (positions in Whitened.groups, equations (G * m,), shape (G, p, m)).
    """

    buckets: tuple[tuple[tuple[int, ...], np.ndarray, tuple[int, int, int]], ...]
    n_equations: int
    ridge: np.ndarray

    @classmethod
    def of(cls, whitened: Whitened, n_equations: int) -> Coordinates:
        shapes: dict[tuple[int, int], list[int]] = {}
        for i, g in enumerate(whitened.groups):
            shapes.setdefault(g.group.coefficients.shape, []).append(i)
        buckets, ridge = [], []
        for (p, m), members in shapes.items():
            equations = np.concatenate([whitened.groups[i].group.equations for i in members])
            buckets.append((tuple(members), equations, (len(members), p, m)))
            ridge.append(np.repeat(np.concatenate([whitened.groups[i].ridge for i in members]), m))
        return cls(tuple(buckets), n_equations, np.concatenate(ridge))

    def split(self, c: np.ndarray) -> list[np.ndarray]:
        """(G, p, m) views of c, bucket by bucket."""
        views, start = [], 0
        for _, _, shape in self.buckets:
            size = int(np.prod(shape))
            views.append(c[start : start + size].reshape(shape))
            start += size
        return views

    def by_group(self, c: np.ndarray) -> tuple[np.ndarray, ...]:
        """(p, m) views of c in the order of Whitened.groups."""
        found: dict[int, np.ndarray] = {}
        for (members, _, _), view in zip(self.buckets, self.split(c), strict=True):
            found.update(zip(members, view, strict=True))
        return tuple(found[i] for i in range(len(found)))

    def flat(self, by_group: tuple[np.ndarray, ...]) -> np.ndarray:
        """The inverse of `by_group`."""
        return np.concatenate([by_group[i].ravel() for members, _, _ in self.buckets for i in members])

    def expand(self, per_equation: np.ndarray) -> np.ndarray:
        """(P,) from one number an equation."""
        parts = []
        for _, equations, (g, p, m) in self.buckets:
            parts.append(np.broadcast_to(per_equation[equations].reshape(g, 1, m), (g, p, m)).ravel())
        return np.concatenate(parts)

    def stack(self, whitened: Whitened) -> list[np.ndarray]:
        """(G, r, p) rows of X in whitened coordinates, bucket by bucket."""
        return [np.stack([whitened.groups[i].q for i in members]) for members, _, _ in self.buckets]

    def forward(self, stacks: list[np.ndarray], c: np.ndarray) -> np.ndarray:
        """[X_1 c_1 ... X_K c_K], (r, K)."""
        fitted = np.empty((stacks[0].shape[1], self.n_equations))
        for q, view, (_, equations, _) in zip(stacks, self.split(c), self.buckets, strict=True):
            fitted[:, equations] = (q @ view).transpose(1, 0, 2).reshape(len(fitted), -1)
        return fitted

    def adjoint(self, stacks: list[np.ndarray], values: np.ndarray) -> np.ndarray:
        """(P,) X_j' values_j for every equation."""
        parts = []
        for q, (_, equations, (g, _, m)) in zip(stacks, self.buckets, strict=True):
            taken = values[:, equations].reshape(len(values), g, m).transpose(1, 0, 2)
            parts.append((q.transpose(0, 2, 1) @ taken).ravel())
        return np.concatenate(parts)


# ---------------------------------------------------------------------------------------------- in memory


class InMemory:
    """A compressed system: every answer is a product of small matrices, no pass.

    Memory 8 (q + 1)(P + 2 K) + 8 K^2 bytes beside the root itself.
    """

    restarts_are_free = True

    def __init__(self, system: Compressed, *, lam_B: float, meter: Meter) -> None:
        design = self.design = system.design
        self.n_obs, self.meter = system.n_obs, meter
        q = design.n_regressors
        top = np.vstack([np.sqrt(system.head.weight) * system.head.mean, system.root[:q]])
        rest = system.root[q:, q:]
        beyond = np.sum(rest**2, axis=0)
        parts = tuple(
            GroupRows(g, top[:, g.columns], top[:, q + g.equations], beyond[g.equations]) for g in design.groups
        )
        resolution = QR_RESOLUTION if system.route == "qr" else GRAM_RESOLUTION
        self.whitened = whiten(design, parts, n_obs=self.n_obs, lam_B=lam_B, resolution=resolution)
        self.nll_offset = nll_offset(self.whitened, system.head)
        self.coordinates = Coordinates.of(self.whitened, design.n_equations)
        self._stacks = self.coordinates.stack(self.whitened)
        self._x_rows = top[:, :q]
        self._y = top[:, q:] / self.whitened.y_scale
        scaled = rest / self.whitened.y_scale
        self._beyond = scaled.T @ scaled

    def residual_covariance(self, c: np.ndarray) -> np.ndarray:
        residual = self._y - self.coordinates.forward(self._stacks, c)
        return (self._beyond + residual.T @ residual) / self.n_obs

    def gls_step(self, c: np.ndarray, sigma: LowRank) -> GlsStep:
        at, stacks = self.coordinates, self._stacks
        residual = self._y - at.forward(stacks, c)
        score = at.adjoint(stacks, sigma.solve_rows(residual)) - at.ridge * c

        def product(p: np.ndarray, _: np.ndarray) -> np.ndarray:
            image: np.ndarray = at.adjoint(stacks, sigma.solve_rows(at.forward(stacks, p)))
            return image + at.ridge * p

        return GlsStep(score, product, lambda solution, _: self.residual_covariance(solution))

    def x_rows(self) -> np.ndarray | None:
        return self._x_rows

    def inner_energy(self, rel_tol: float) -> float:
        return 1e-20 * self.n_obs  # iterations cost nothing here: stop where only rounding is left


# ---------------------------------------------------------------------------------------------- streamed


class Streamed:
    """Every answer is one pass of chunk-wise sums over the rows; the client holds P + K^2 numbers.

    Making it costs the first pass, which gives each equation's own moments.
    """

    restarts_are_free = False

    def __init__(self, rows: Rows, *, lam_B: float, meter: Meter, spare_bytes: float = np.inf) -> None:
        self.design, self.rows, self.meter, self.spare_bytes = rows.design, rows, meter, spare_bytes
        groups = rows.design.groups
        size = 8 * sum(len(g.columns) * (len(g.columns) + len(g.equations)) for g in groups)
        moments: DesignMoments = run_pass(rows, design_kernel, groups, partial_bytes=size, meter=meter, label="OLS")
        self.n_obs, self.head = moments.head.n_rows, moments.head
        self._group_rows = group_rows(moments)
        self.whitened = whiten(
            rows.design, self._group_rows, n_obs=self.n_obs, lam_B=lam_B, resolution=GRAM_RESOLUTION
        )
        self.nll_offset = nll_offset(self.whitened, self.head)
        self.coordinates = Coordinates.of(self.whitened, rows.design.n_equations)
        self._mean_rows = [stack[:, :1] for stack in self.coordinates.stack(self.whitened)]
        q = rows.design.n_regressors
        self._mean_y = (np.sqrt(self.head.weight) * self.head.mean[q:] / self.whitened.y_scale)[None, :]

    def residual_covariance(self, c: np.ndarray) -> np.ndarray:
        moments = self._pass(residual_kernel, c, None, None, "residuals")
        mean = self._mean_residual(c)
        return (moments.cross + mean.T @ mean) / self.n_obs

    def gls_step(self, c: np.ndarray, sigma: LowRank) -> GlsStep:
        at = self.coordinates
        moments: ResidualMoments = self._pass(residual_kernel, c, None, sigma, "score")
        mean = self._mean_residual(c)
        start = (moments.cross + mean.T @ mean) / self.n_obs
        score = self._adjoint(moments.score, mean, sigma) - at.ridge * c
        changes: list[tuple[np.ndarray, np.ndarray]] = []

        def product(p: np.ndarray, current: np.ndarray) -> np.ndarray:
            along: DirectionMoments = self._pass(direction_kernel, current, p, sigma, "conjugate gradients")
            mean_along = at.forward(self._mean_rows, p)
            vr = along.vr + mean_along.T @ self._mean_residual(current)
            changes.append((vr + vr.T, along.vv + mean_along.T @ mean_along))
            return self._adjoint(along.image, mean_along, sigma) + at.ridge * p

        def finish(_: np.ndarray, steps: tuple[float, ...]) -> np.ndarray:
            # R'R along the path is known exactly from what the products have summed: no further pass
            covariance = start.copy()
            for step, (linear, quadratic) in zip(steps, changes, strict=False):
                covariance += (step * step * quadratic - step * linear) / self.n_obs
            return covariance

        return GlsStep(score, product, finish)

    def x_rows(self) -> np.ndarray | None:
        design = self.design
        if len(design.groups) == 1:
            rows = np.zeros((len(self._group_rows[0].x), design.n_regressors))
            rows[:, design.groups[0].columns] = self._group_rows[0].x
            return rows
        size = 8 * design.n_regressors**2
        if PARTIALS_IN_FLIGHT * size > self.spare_bytes:
            return None
        x_only = replace(self.rows, y=())
        moments = run_pass(x_only, gram_kernel, None, partial_bytes=size, meter=self.meter, label="X'X")
        return np.vstack([np.sqrt(moments.head.weight) * moments.head.mean, root_of(moments.cross)])

    def inner_energy(self, rel_tol: float) -> float:
        # The energy is the squared distance from the solution in standard errors: a hundredth of one at the default
        # rel_tol of 1e-6, and less in step with a tighter one.
        return 1e-4 * min(1.0, rel_tol / 1e-6) ** 1.5

    def _mean_residual(self, c: np.ndarray) -> np.ndarray:
        return self._mean_y - self.coordinates.forward(self._mean_rows, c)

    def _adjoint(self, by_group: tuple[np.ndarray, ...], mean: np.ndarray, sigma: LowRank) -> np.ndarray:
        groups = self.whitened.groups
        centred = tuple(g.adjoint(s) for g, s in zip(groups, by_group, strict=True))
        return self.coordinates.flat(centred) + self.coordinates.adjoint(self._mean_rows, sigma.solve_rows(mean))

    def _pass(
        self,
        kernel: Callable[..., ResidualMoments | DirectionMoments | None],
        c: np.ndarray,
        direction: np.ndarray | None,
        sigma: LowRank | None,
        label: str,
    ) -> ResidualMoments | DirectionMoments:
        params = StreamParams(
            self.design.groups,
            self.head.anchor,
            self.head.offset,
            self.whitened.y_scale,
            self._raw(c),
            None if direction is None else self._raw(direction),
            sigma,
        )
        n_equations = self.design.n_equations
        size = 8 * (2 * n_equations**2 + self.design.n_coefficients)
        moments: ResidualMoments | DirectionMoments = run_pass(
            self.rows, kernel, params, partial_bytes=size, meter=self.meter, label=label
        )
        return moments

    def _raw(self, c: np.ndarray) -> tuple[np.ndarray, ...]:
        """Per group (p, m): coefficients of the stored columns, for Y in standard units."""
        by_group = self.coordinates.by_group(c)
        return tuple(g.coefficients(part) for g, part in zip(self.whitened.groups, by_group, strict=True))


def group_rows(moments: DesignMoments) -> tuple[GroupRows, ...]:
    """Rows that stand for each design's own columns and responses, from their centred moments."""
    n_y = len(moments.yy)
    mean = np.sqrt(moments.head.weight) * moments.head.mean
    rows = []
    for i, group in enumerate(moments.groups):
        p = len(group.columns)
        root = np.zeros((p, p))
        found = root_of(np.tril(moments.xx[i]))
        root[: len(found)] = found
        live = np.flatnonzero(root.any(axis=1))
        y = np.zeros((p, len(group.equations)))
        if len(live):
            pivots = [int(np.flatnonzero(root[i])[0]) for i in live]
            y[live] = solve_triangular(root[np.ix_(live, pivots)], moments.xy[i][pivots], trans="T")
        mean_x, mean_y = mean[:-n_y][group.columns], mean[-n_y:][group.equations]
        beyond = np.maximum(moments.yy[group.equations] - np.sum(y**2, axis=0), 0.0)
        rows.append(GroupRows(group, np.vstack([mean_x, root]), np.vstack([mean_y, y]), beyond))
    return tuple(rows)
