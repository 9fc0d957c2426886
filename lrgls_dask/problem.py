"""What the alternating loop asks of the data, answered from q + K + 1 rows in memory or by passes over all rows.

Both answer in whitened coordinates (whiten.py): c is the vector of all P coefficients, group by group.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.constraint import Constraint
from lrgls_dask.design.design import Design
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.rows.moments import Head
from lrgls_dask.rows.run_pass import Meter
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.whiten import GroupRows, Whitened, whiten

__all__ = [
    "Coordinates",
    "GlsStep",
    "InMemory",
    "Posed",
    "Problem",
    "Products",
    "constraint_on",
    "group_rows",
    "inner_energy",
    "nll_offset",
    "resolution_of",
]

QR_RESOLUTION = 1e-12  # singular values of unit columns that the qr route tells from zero
GRAM_RESOLUTION = 3e-7  # and those that a Cholesky factor of the cross-product does


@dataclass(frozen=True, eq=False)
class GlsStep:
    """The normal equations A c = rhs of the coefficients at one Sigma, and where the current c stands.

    score : (P,) rhs - A c.  product(p, c) : A p.  finish(c, steps) : (K, K) residual covariance at the solution.
    """

    score: np.ndarray
    product: Callable[[np.ndarray, np.ndarray], np.ndarray]
    finish: Callable[[np.ndarray, tuple[float, ...]], np.ndarray]


@dataclass(frozen=True, eq=False)
class Products:
    """Residual moments without S. along : (K, m) S B.  diagonal : (K,) diag S.  score : (P,) of the coefficients."""

    along: np.ndarray
    diagonal: np.ndarray
    score: np.ndarray


class Posed(Protocol):
    """What every loop knows of its problem, whether responses are missing or not."""

    design: Design
    whitened: Whitened
    coordinates: Coordinates
    constraint: Constraint | None
    n_obs: int
    nll_offset: float
    meter: Meter
    restarts_are_free: bool


class Problem(Posed, Protocol):
    """Residual covariances and GLS steps of one system in whitened coordinates."""

    dense: bool
    compressed: Compressed | None
    group_rows: tuple[GroupRows, ...]
    resolution: float

    def residual_covariance(self, c: np.ndarray) -> np.ndarray:
        """S = R'R / N, (K, K), in standard units; not where `dense` is False."""
        ...

    def products(self, c: np.ndarray, B: np.ndarray, sigma: Sigma | None) -> Products:
        """S B for B (K, m), diag S, and at a Sigma the score, without forming S."""
        ...

    def gls_step(self, c: np.ndarray, sigma: Sigma) -> GlsStep: ...

    def x_rows(self) -> np.ndarray | None:
        """(r, q) with x_rows'x_rows = X'X, None where `compressed` has it or it needs more memory than there is."""
        ...

    def settled_energy(self, rel_tol: float) -> float:
        """The squared distance in standard errors by which a last sweep may still move the coefficients."""
        ...


def nll_offset(whitened: Whitened, head: Head) -> float:
    """What turns the nll per row in standard units into that of the data: the units of Y and the row weights."""
    weights = 0.5 * len(whitened.y_scale) * head.log_weight / head.n_rows
    return float(np.log(whitened.y_scale).sum()) - weights


def inner_energy(problem: Posed, rel_tol: float) -> float:
    """r'M^-1 r at which the last conjugate gradients stop, given the outer tolerance.

    It is the squared distance from the solution in standard errors: where iterations cost nothing only rounding is
    left; streamed a hundredth of one at the default rel_tol of 1e-6, and less in step with a tighter one.
    """
    if problem.restarts_are_free:
        return 1e-20 * problem.n_obs
    return float(1e-4 * min(1.0, rel_tol / 1e-6) ** 1.5)


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
    def of(cls, whitened: Whitened, design: Design) -> Coordinates:
        buckets, ridge = [], []
        for members in design.buckets:
            p, m = design.groups[members[0]].coefficients.shape
            equations = np.concatenate([whitened.groups[i].group.equations for i in members])
            buckets.append((members, equations, (len(members), p, m)))
            ridge.append(np.repeat(np.concatenate([whitened.groups[i].ridge for i in members]), m))
        return cls(tuple(buckets), design.n_equations, np.concatenate(ridge))

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

    def forward(self, stacks: Sequence[np.ndarray], c: np.ndarray) -> np.ndarray:
        """[X_1 c_1 ... X_K c_K], (r, K)."""
        fitted = np.empty((stacks[0].shape[1], self.n_equations))
        for q, view, (_, equations, _) in zip(stacks, self.split(c), self.buckets, strict=True):
            fitted[:, equations] = (q @ view).transpose(1, 0, 2).reshape(len(fitted), -1)
        return fitted

    def adjoint(self, stacks: Sequence[np.ndarray], values: np.ndarray) -> np.ndarray:
        """(P,) X_j' values_j for every equation."""
        parts = []
        for q, (_, equations, (g, _, m)) in zip(stacks, self.buckets, strict=True):
            taken = values[:, equations].reshape(len(values), g, m).transpose(1, 0, 2)
            parts.append((q.transpose(0, 2, 1) @ taken).ravel())
        return np.concatenate(parts)


def constraint_on(whitened: Whitened, coordinates: Coordinates, restrictions: Restrictions | None) -> Constraint | None:
    """R b = r in whitened coordinates, each row of unit length.  O(m P p)."""
    if restrictions is None:
        return None
    rows = []
    for row in restrictions.matrix:
        by_group = []
        for g in whitened.groups:
            by_group.append(g.adjoint(row[g.group.coefficients] * whitened.y_scale[g.group.equations]))
        rows.append(coordinates.flat(tuple(by_group)))
    stacked = np.stack(rows)
    lengths = np.linalg.norm(stacked, axis=1)
    return Constraint(stacked / lengths[:, None], restrictions.values / lengths)


# ---------------------------------------------------------------------------------------------- in memory


def group_rows(system: Compressed) -> tuple[GroupRows, ...]:
    """What each design's equations know of the data, from compressed rows."""
    q = system.design.n_regressors
    top = system.stacked(q)
    beyond = np.sum(system.root[q:, q:] ** 2, axis=0)
    return tuple(
        GroupRows(g, top[:, g.columns], top[:, q + g.equations], beyond[g.equations]) for g in system.design.groups
    )


def resolution_of(system: Compressed) -> float:
    """The least singular value, of unit columns, that these rows tell from zero."""
    return QR_RESOLUTION if system.route == "qr" else GRAM_RESOLUTION


class InMemory:
    """A compressed system: every answer is a product of small matrices, no pass.

    Memory 8 (q + 1)(P + 2 K) + 8 K^2 bytes beside the root itself.
    """

    restarts_are_free = True
    dense = True

    def __init__(
        self, system: Compressed, *, lam_B: float, meter: Meter, restrictions: Restrictions | None = None
    ) -> None:
        self.compressed: Compressed | None = system
        design = self.design = system.design
        self.n_obs, self.meter = system.n_obs, meter
        q = design.n_regressors
        self.group_rows = group_rows(system)
        self.resolution = resolution_of(system)
        self.whitened = whiten(design, self.group_rows, n_obs=self.n_obs, lam_B=lam_B, resolution=self.resolution)
        self.nll_offset = nll_offset(self.whitened, system.head)
        self.coordinates = Coordinates.of(self.whitened, design)
        self.constraint = constraint_on(self.whitened, self.coordinates, restrictions)
        self._stacks = self.whitened.stacks
        self._y = system.stacked(q)[:, q:] / self.whitened.y_scale
        scaled = system.root[q:, q:] / self.whitened.y_scale
        self._beyond = scaled.T @ scaled

    def with_responses(self, y: np.ndarray, beyond: np.ndarray) -> InMemory:
        """The same X with other responses, in the same standard units; only views and the two arrays given.

        y : (q + 1, K) in the basis of the rows of X.  beyond : (K, K) cross-product of what lies outside it.
        """
        other = copy.copy(self)
        other.compressed, other._y, other._beyond = None, y, beyond
        start = self.coordinates.by_group(self.coordinates.adjoint(self._stacks, y))
        other.whitened = replace(self.whitened, start=start)
        return other

    def fitted(self, c: np.ndarray) -> np.ndarray:
        """(q + 1, K) [X_1 c_1 ... X_K c_K] in the basis of the rows of X, standard units."""
        return self.coordinates.forward(self._stacks, c)

    def residual_covariance(self, c: np.ndarray) -> np.ndarray:
        residual = self._y - self.coordinates.forward(self._stacks, c)
        return (self._beyond + residual.T @ residual) / self.n_obs

    def products(self, c: np.ndarray, B: np.ndarray, sigma: Sigma | None) -> Products:
        at, stacks = self.coordinates, self._stacks
        residual = self._y - at.forward(stacks, c)
        along = (self._beyond @ B + residual.T @ (residual @ B)) / self.n_obs
        diagonal = (self._beyond.diagonal() + np.sum(residual**2, axis=0)) / self.n_obs
        score = np.zeros(0) if sigma is None else at.adjoint(stacks, sigma.solve_rows(residual)) - at.ridge * c
        return Products(along, diagonal, score)

    def gls_step(self, c: np.ndarray, sigma: Sigma) -> GlsStep:
        at, stacks = self.coordinates, self._stacks
        residual = self._y - at.forward(stacks, c)
        score = at.adjoint(stacks, sigma.solve_rows(residual)) - at.ridge * c

        def product(p: np.ndarray, _: np.ndarray) -> np.ndarray:
            image: np.ndarray = at.adjoint(stacks, sigma.solve_rows(at.forward(stacks, p)))
            return image + at.ridge * p

        return GlsStep(score, product, lambda solution, _: self.residual_covariance(solution))

    def x_rows(self) -> np.ndarray | None:
        return None  # the compressed system has them

    def settled_energy(self, rel_tol: float) -> float:
        return float(1e-10 * min(1.0, rel_tol / 1e-10) ** 1.5)
