"""Designs of equal shape side by side, so that one product serves them all, and all coefficients as one vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

__all__ = ["Batch", "Batches"]


class OneDesign(Protocol):
    """Equations that use the same columns, see `DesignGroup`."""

    @property
    def columns(self) -> np.ndarray: ...

    @property
    def equations(self) -> np.ndarray: ...

    @property
    def coefficients(self) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Batch:
    """G designs of p columns and m equations each.

    members : (G,) which of all designs these are.  columns : (G, p) the columns of X that each uses.
    equations : (G, m) that use it.  places : (G, p, m) positions of the coefficients in the vector of all P, ordered by
    equation.
    """

    members: tuple[int, ...]
    columns: np.ndarray
    equations: np.ndarray
    places: np.ndarray


@dataclass(frozen=True, eq=False)
class Batches:
    """All designs by shape. Coefficients are a flat vector (P,), batch after batch, design after design."""

    each: tuple[Batch, ...]
    n_equations: int

    @classmethod
    def of(cls, designs: Sequence[OneDesign], buckets: Sequence[Sequence[int]], n_equations: int) -> Batches:
        """buckets : positions of the designs of equal shape."""
        batches = []
        for members in buckets:
            of = [designs[i] for i in members]
            columns, equations = np.stack([g.columns for g in of]), np.stack([g.equations for g in of])
            batches.append(Batch(tuple(members), columns, equations, np.stack([g.coefficients for g in of])))
        return cls(tuple(batches), n_equations)

    @cached_property
    def places(self) -> np.ndarray:
        """(P,) of each coefficient its position in the vector ordered by equation."""
        return np.concatenate([batch.places.ravel() for batch in self.each])

    @cached_property
    def equation_of(self) -> np.ndarray:
        """(P,) the equation of each coefficient."""
        return np.concatenate(
            [np.broadcast_to(batch.equations[:, None, :], batch.places.shape).ravel() for batch in self.each]
        )

    def split(self, flat: np.ndarray) -> list[np.ndarray]:
        """(G, p, m) views of a flat vector, batch by batch."""
        views, start = [], 0
        for batch in self.each:
            views.append(flat[start : start + batch.places.size].reshape(batch.places.shape))
            start += batch.places.size
        return views

    def by_equation(self, flat: np.ndarray) -> np.ndarray:
        """(P,) ordered by equation, of a flat vector."""
        ordered = np.empty_like(flat)
        ordered[self.places] = flat
        return ordered
