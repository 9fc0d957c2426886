"""The flat vector c of all whitened coefficients, group by group, and restrictions on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lrgls_dask.design.batches import Batches
from lrgls_dask.design.design import Design
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.solve.constraint import Constraint
from lrgls_dask.solve.whiten import Whitened

__all__ = ["Coordinates", "constraint_on"]


# ---------------------------------------------------------------------------------------------- coordinates


@dataclass(frozen=True, eq=False)
class Coordinates:
    """The flat vector c, cut into batches of designs of equal shape, so that one batched product serves a batch.

    batches : of the designs, which are those of Whitened.groups.  ridge : (P,).
    """

    batches: Batches
    ridge: np.ndarray

    @classmethod
    def of(cls, whitened: Whitened, design: Design) -> Coordinates:
        ridge = []
        for batch in design.batches.each:
            of_columns = np.concatenate([whitened.groups[i].ridge for i in batch.members])
            ridge.append(np.repeat(of_columns, batch.places.shape[2]))
        return cls(design.batches, np.concatenate(ridge))

    @cached_property
    def buckets(self) -> tuple[tuple[tuple[int, ...], np.ndarray, tuple[int, ...]], ...]:
        """Of each batch (positions in Whitened.groups, equations (G * m,), shape (G, p, m))."""
        return tuple((each.members, each.equations.ravel(), each.places.shape) for each in self.batches.each)

    def split(self, c: np.ndarray) -> list[np.ndarray]:
        """(G, p, m) views of c, batch by batch."""
        return self.batches.split(c)

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
        fitted = np.empty((stacks[0].shape[1], self.batches.n_equations))
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

    def gradient(self, stacks: Sequence[np.ndarray], residual: np.ndarray, c: np.ndarray, sigma: Sigma) -> np.ndarray:
        """(P,) X_j' (Sigma^-1 r)_j less the ridge, of residuals (r, K) at c."""
        return self.adjoint(stacks, sigma.solve_rows(residual)) - self.ridge * c

    def image(self, stacks: Sequence[np.ndarray], p: np.ndarray, sigma: Sigma) -> np.ndarray:
        """(P,) (X' Sigma^-1 X + ridge) p."""
        return self.adjoint(stacks, sigma.solve_rows(self.forward(stacks, p))) + self.ridge * p


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
