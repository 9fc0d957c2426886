"""Covariances of coefficients from solutions with their information matrix, a few right-hand sides at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
from scipy.linalg import cho_factor, cho_solve

from lrgls_dask.design.design import Design
from lrgls_dask.inference.structured import CovOfCombinations, FormedCombinations
from lrgls_dask.solve.prices import AT_ONCE, SOLUTIONS, VARIANCES

__all__ = ["Information", "SolvedCov", "conjugate_gradients_of_many", "few_of", "unit_columns"]

DIFFERENCES = 1e-15  # squared, of variances that restrictions take a part from
MAX_ITERATIONS = 2000
FEW = 4  # are a quarter of all: for about that price the inverse, where it has room, serves all


class Information(Protocol):
    """A = X' Sigma^-1 X + penalty of P coefficients in coordinates in which each equation's block is near diagonal."""

    def solve(self, rhs: np.ndarray, tol: float) -> tuple[np.ndarray, np.ndarray]:
        """x (P, m) with A x = rhs (P, m) but for a residual (P, m), which comes along.

        tol : what e'A e, e the error of a column, may be of that column's x'A x.
        """
        ...

    def columns(self, places: np.ndarray, tol: float) -> tuple[np.ndarray, np.ndarray]:
        """The same of unit vectors at `places` (m,)."""
        ...


def few_of(count: int, design: Design) -> bool:
    """Whether so many coefficients are few enough to be solved for by themselves."""
    return count * FEW <= design.n_coefficients


def unit_columns(size: int, places: np.ndarray) -> np.ndarray:
    """(size, m) unit vectors."""
    out = np.zeros((size, len(places)))
    out[places, np.arange(len(places))] = 1.0
    return out


@dataclass(frozen=True, eq=False)
class SolvedCov:
    """G (A - penalty) G of P coefficients, G the inverse of A on what restrictions leave free; never P x P at once.

    to_user : per equation (p_j, p_j), from the coordinates of A to the user's coefficients.  ridge : (P,) the penalty.
    rows : (m, P) restrictions in the coordinates of A, or None.  at_once : right-hand sides that have room together,
    None where that is for AT_ONCE to say.
    Costs p_j right-hand sides for an equation and P for all.
    """

    design: Design
    information: Information
    to_user: tuple[np.ndarray, ...]
    ridge: np.ndarray
    rows: np.ndarray | None = None
    at_once: int | None = None

    def block(self, equation: int) -> np.ndarray:
        """(p_j, p_j)."""
        return self._blocks([equation])[0]

    @cached_property
    def blocks(self) -> tuple[np.ndarray, ...]:
        """Those of all equations, solved for together as far as memory goes."""
        width = self._width
        found: list[np.ndarray] = []
        begin = 0
        while begin < self.design.n_equations:
            stop = int(np.searchsorted(self.design.offsets, self.design.offsets[begin] + width, side="right")) - 1
            stop = min(max(stop, begin + 1), self.design.n_equations)
            found += self._blocks(range(begin, stop))
            begin = stop
        return tuple(found)

    @cached_property
    def variances(self) -> np.ndarray:
        """(P,)."""
        return np.maximum(np.concatenate([block.diagonal() for block in self.blocks]), 0.0)

    def variances_of(self, places: np.ndarray) -> np.ndarray:
        """(m,) of some coefficients; m right-hand sides."""
        P, found = self.design.n_coefficients, np.empty(len(places))
        for begin in range(0, len(places), self._width):
            mine = places[begin : begin + self._width]
            units = sp.csr_array((np.ones(len(mine)), (np.arange(len(mine)), mine)), shape=(len(mine), P))
            found[begin : begin + self._width] = self.of_combinations(units).variances
        return np.maximum(found, 0.0)

    def of_combinations(self, matrix: Any) -> CovOfCombinations:
        """R V R' of combinations R (m, P), sparse or not; m right-hand sides."""
        R = sp.csr_array(matrix)
        rhs = R.T.toarray()
        for mine, turn in zip(self.design.spans, self.to_user, strict=True):
            rhs[mine] = turn.T @ rhs[mine]
        x, left = self._solve(rhs)
        return FormedCombinations(self._among(x, left, rhs.T @ x, self._taken(x, lambda image: image.T @ rhs)))

    def _blocks(self, equations: Sequence[int]) -> list[np.ndarray]:
        spans = [self.design.spans[j] for j in equations]
        places = np.concatenate([np.arange(mine.start, mine.stop) for mine in spans])
        edges = np.cumsum([0, *(mine.stop - mine.start for mine in spans)])
        x, left = self.information.columns(places, self._tol)
        taken = self._taken(x, lambda image: image[places].T)
        blocks = []
        for j, mine, of in zip(equations, spans, map(slice, edges[:-1], edges[1:]), strict=True):
            block = self._among(x[:, of], left[:, of], x[mine, of], None if taken is None else taken[:, of])
            blocks.append(self.to_user[j] @ block @ self.to_user[j].T)
        return blocks

    @property
    def _width(self) -> int:
        most = AT_ONCE // (8 * self.design.n_coefficients)
        return max(1, most if self.at_once is None else min(most, self.at_once))

    def _solve(self, rhs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Information.solve`; as many columns together as have room."""
        x, left = np.empty_like(rhs), np.empty_like(rhs)
        for begin in range(0, rhs.shape[1], self._width):
            of = slice(begin, begin + self._width)
            x[:, of], left[:, of] = self.information.solve(rhs[:, of], self._tol)
        return x, left

    @property
    def _tol(self) -> float:
        if self.ridge.any():
            return SOLUTIONS
        return VARIANCES if self.rows is None else DIFFERENCES

    def _taken(self, x: np.ndarray, along: Callable[[np.ndarray], np.ndarray]) -> np.ndarray | None:
        """R A^-1 rhs (m, s) of x = A^-1 rhs, R the restrictions, if any.  along : image (P, m) to image' rhs."""
        if self._held is None:
            return None
        image, left, _ = self._held
        return np.asarray(along(image) + left.T @ x)

    def _among(self, x: np.ndarray, left: np.ndarray, along: np.ndarray, taken: np.ndarray | None) -> np.ndarray:
        """rhs' G (A - penalty) G rhs of x = A^-1 rhs with residual `left`, along = rhs'x, taken = R x.

        Without penalty errors count squared: b'A^-1 c = x'c + r'y + (error of x)'A (error of y), r the residual of b
        and y the solution for c.
        """
        block = along + left.T @ x
        if taken is not None and self._held is not None:
            image, _, factor = self._held
            weights = cho_solve(factor, taken)
            block = block - taken.T @ weights
            x = x - image @ weights
        if self.ridge.any():
            block = block - x.T @ (self.ridge[:, None] * x)
        return np.asarray(0.5 * (block + block.T))

    @cached_property
    def _held(self) -> tuple[np.ndarray, np.ndarray, Any] | None:
        """A^-1 R' (P, m), its residual, and the Cholesky factor of R A^-1 R'."""
        if self.rows is None:
            return None
        image, left = self._solve(self.rows.T)
        among = self.rows @ image + left.T @ image
        return image, left, cho_factor(0.5 * (among + among.T), lower=True)


def conjugate_gradients_of_many(
    product: Callable[[np.ndarray], np.ndarray],
    precondition: Callable[[np.ndarray], np.ndarray],
    rhs: np.ndarray,
    tol: float,
) -> tuple[np.ndarray, np.ndarray]:
    """x (P, m) and the residual, of preconditioned conjugate gradients on every column of rhs (P, m) side by side.

    One product of as many columns as have not arrived an iteration.  Raises LinAlgError where 2,000 are not enough.
    Source: Hestenes and Stiefel (1952).
    """
    x, residual = np.zeros_like(rhs), rhs.copy()
    image = precondition(residual)
    energy = np.einsum("ij,ij->j", residual, image)
    direction, gained = image, np.zeros_like(energy)
    left = np.flatnonzero(energy > 0)
    direction = direction[:, left]
    for _ in range(MAX_ITERATIONS):
        if not len(left):
            return x, residual
        image = product(direction)
        curvature = np.einsum("ij,ij->j", direction, image)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = np.where(curvature > 0, energy[left] / curvature, 0.0)  # only rounding can make it so
        x[:, left] += step * direction
        residual[:, left] -= step * image
        gained[left] += step * energy[left]
        image = precondition(residual[:, left])
        previous, energy[left] = energy[left], np.einsum("ij,ij->j", residual[:, left], image)
        going = (energy[left] > tol * gained[left]) & (step > 0)
        direction = image[:, going] + (energy[left] / previous)[going] * direction[:, going]
        left = left[going]
    raise np.linalg.LinAlgError(
        f"the covariance of these coefficients did not converge in {MAX_ITERATIONS:,} iterations. Errors this strongly "
        "correlated, or regressors this collinear across equations, need fewer equations in one fit."
    )
