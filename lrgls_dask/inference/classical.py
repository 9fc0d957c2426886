"""Covariance of the coefficients, from the rows that stand for X'X: no read of the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.linalg import solve_triangular

from lrgls_dask.design.design import Design
from lrgls_dask.design.penalties import Ridge, column_penalties, penalises
from lrgls_dask.design.restrictions import Restrictions, without_variance
from lrgls_dask.inference.by_solving import Information, SolvedCov, few_of
from lrgls_dask.inference.dual import LOST, Dual, dual_pays
from lrgls_dask.inference.inverse import Inverse
from lrgls_dask.inference.operator import InformationOperator
from lrgls_dask.inference.structured import (
    CovOfCombinations,
    FormedCombinations,
    FormedCov,
    StructuredCov,
    blocks_alone,
    kron_of_combinations,
)
from lrgls_dask.rows.memory import MAX_COEFFICIENTS, has_room_here
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.solve.constraint import estimator_covariance, free_directions
from lrgls_dask.solve.orthonormal import orthonormal, orthonormal_by_group

__all__ = ["CoefficientCovariance"]

AT_HAND = 2000  # coefficients whose inverse takes no longer than a few solutions
ALONE = 5_000  # from which on three P x P arrays are not formed for the blocks of equations, where one does
TOGETHER = 64  # equations whose rows of the information matrix are made at once


@dataclass(frozen=True, eq=False)
class CoefficientCovariance:
    """Classical covariance (X' Sigma^-1 X)^-1 of all P coefficients at a known Sigma, in the user's units.

    x_rows : (r, q) with x_rows'x_rows = X'X.  y_scale : (K,) the units in which lam_B penalises.
    With lam_B > 0 the sandwich A^-1 (X' Sigma^-1 X) A^-1 of the ridge estimator, A = X' Sigma^-1 X + penalty.
    Under restrictions R b = r, G (X' Sigma^-1 X) G with G = A^-1 - A^-1 R' (R A^-1 R')^-1 R A^-1.
    memory_limit : what this process may hold where there are two ways, None for what is free.
    """

    design: Design
    x_rows: np.ndarray
    sigma: Sigma
    n_obs: int
    y_scale: np.ndarray
    lam_B: Ridge
    restrictions: Restrictions | None = None
    memory_limit: int | str | None = None

    @cached_property
    def full(self) -> np.ndarray:
        """(P, P), equation by equation. O(P^3) time, three P x P arrays; Sigma kron (X'X)^-1 where all X_j agree.

        Raises ValueError above MAX_COEFFICIENTS coefficients.
        """
        n_coefficients = self.design.n_coefficients
        if n_coefficients > MAX_COEFFICIENTS:
            raise ValueError(
                f"the covariance of all {n_coefficients} coefficients would take "
                f"{8e-9 * n_coefficients**2:.1f} GB and is limited to {MAX_COEFFICIENTS}. "
                "Ask for one equation at a time, cov(equation=...); std_errors and tests need none of it."
            )
        if self.has_shared_columns:
            return np.kron(self.sigma.dense(), self._shared_inverse)
        if self._structured is not None:
            return without_variance(self._structured.full, self.restrictions)
        return self._inverse()

    @property
    def whole(self) -> np.ndarray | StructuredCov:
        """`full`, or of very many coefficients the parts that say as much.  Raises ValueError where those do not."""
        if self._structured is None or self.design.n_coefficients <= MAX_COEFFICIENTS:
            return self.full
        return self._structured.without_variance(self.restrictions)

    @cached_property
    def variances(self) -> np.ndarray:
        """(P,) diagonal of `full`, formed without it where all equations share their columns or `dual_pays`."""
        if self.has_shared_columns:
            return np.outer(self.sigma.variances, self._shared_inverse.diagonal()).ravel()
        if self._structured is not None:
            return np.where(self._is_held, 0.0, self._structured.variances)
        if self._is_large or self._by_block:
            return self._blocks.variances
        return np.maximum(self.full.diagonal(), 0.0)  # rounding, of a coefficient that is nearly held

    def variances_of(self, places: np.ndarray) -> np.ndarray:
        """(m,) of some coefficients; where the inverse of the information of all takes long, these are solved for alone
        if they are few."""
        if self.has_shared_columns or self.design.n_coefficients <= AT_HAND or self._knows_all:
            return self.variances[places]
        if self._structured is not None:
            return np.where(self._is_held[places], 0.0, self._structured.variances_of(places))
        if not few_of(len(places), self.design):
            return self.variances[places]
        try:
            return np.where(self._is_held[places], 0.0, self._solved.variances_of(places))
        except np.linalg.LinAlgError:  # iterations may not arrive at nearly collinear regressors; the inverse does
            return self.variances[places]

    @property
    def _knows_all(self) -> bool:
        """Whether those of all coefficients are at hand."""
        return not {"full", "variances", "_blocks"}.isdisjoint(vars(self))

    def at(self, sigma: Sigma) -> CoefficientCovariance:
        """The same at another Sigma."""
        return replace(self, sigma=sigma)

    def block(self, equation: int) -> np.ndarray:
        """(p_j, p_j) covariance of one equation's coefficients."""
        if self.has_shared_columns:
            return np.asarray(self.sigma.variances[equation] * self._shared_inverse)
        mine = self.design.spans[equation]
        if self._structured is not None:
            return without_variance(self._structured.block(equation), self.restrictions, mine)
        if self._is_large:
            return without_variance(self._solved.block(equation), self.restrictions, mine)
        if self._by_block and "_blocks" not in vars(self):
            try:
                return self._solved.block(equation)
            except np.linalg.LinAlgError:  # see `variances_of`
                pass
        return self._blocks.block(equation) if self._by_block else self.full[mine, mine]

    def block_of_all(self, equation: int) -> np.ndarray:
        """The same where every equation's is asked for in turn."""
        many = self._is_large or self._by_block
        alone = self.has_shared_columns or self._structured is not None or not many
        return self.block(equation) if alone else self._blocks.block(equation)

    def of_combinations(self, matrix: Any) -> CovOfCombinations:
        """R V R' of combinations R (m, P), sparse or not; `full` is not formed where `variances` does not."""
        if self.has_shared_columns:
            return kron_of_combinations(self.design, self.sigma, self._shared_inverse, matrix)
        if self._structured is not None:
            return self._structured.of_combinations(matrix)
        if self._is_large:
            return self._solved.of_combinations(matrix)
        if self._by_block and matrix.shape[0] <= TOGETHER:
            try:
                return self._solved.of_combinations(matrix)
            except np.linalg.LinAlgError:  # see `variances_of`
                pass
        if not self._knows_all and self.design.n_coefficients > AT_HAND:
            found = self._by_difference(matrix)
            if found is not None:
                return found
        return FormedCov(self.design, self.full).of_combinations(matrix)

    def _by_difference(self, matrix: Any) -> CovOfCombinations | None:
        """R V R' of what restrictions leave of V = Sigma kron (X'X)^-1, both sparse beside P x P.

        None for other V, for restrictions and combinations that are many, and where nearly nothing is left.
        """
        shared, restrictions = replace(self, restrictions=None), self.restrictions
        n, P = matrix.shape[0], self.design.n_coefficients
        if restrictions is None or not shared.has_shared_columns or 2 * (n + restrictions.n_restrictions) > P:
            return None
        of_all = shared.of_combinations(sp.vstack([sp.csr_array(matrix), restrictions.rows])).dense()
        scale = np.sqrt(of_all.diagonal())
        of_all = of_all / scale[:, None] / scale
        root = np.linalg.cholesky(of_all[n:, n:])
        taken = solve_triangular(root, of_all[n:, :n], lower=True)
        left = of_all[:n, :n] - taken.T @ taken
        if np.any(left.diagonal() < LOST):
            return None
        return FormedCombinations(left * scale[:n, None] * scale[:n])

    @property
    def has_shared_columns(self) -> bool:
        """Whether the covariance is Sigma kron (X'X)^-1, which needs no P x P array."""
        return len(self.design.groups) == 1 and not penalises(self.lam_B) and self.restrictions is None

    @property
    def _is_held(self) -> np.ndarray:
        """(P,) coefficients that restrictions hold, which have no variance but rounding."""
        none = np.zeros(self.design.n_coefficients, dtype=bool)
        return none if self.restrictions is None else self.restrictions.held

    @cached_property
    def _structured(self) -> StructuredCov | None:
        """The covariance as blocks and a part of low rank, where that is small beside P x P."""
        held = 0 if self.restrictions is None else self.restrictions.n_restrictions
        if not dual_pays(self.design, len(self.x_rows), self.sigma, held):
            return None
        pieces, halves, ridge = self._orthonormal()
        sigma = self.sigma.rescaled(1.0 / self.y_scale)
        of_all, rows = Dual.of(self.design, pieces, sigma, ridge), self._rows(halves)
        found = of_all if rows is None else of_all.restricted(rows, self._is_held, self.design, halves)
        return None if found is None else found.shrunk(ridge).in_units(self.design, halves)

    @property
    def _is_large(self) -> bool:
        """Whether coefficients are too many for several P x P arrays, so that what is asked for is solved for."""
        return self.design.n_coefficients > MAX_COEFFICIENTS

    @property
    def _by_block(self) -> bool:
        """Whether blocks of equations are found without `full`, which loses digits to penalties and restrictions."""
        plain = self.restrictions is None and not penalises(self.lam_B)
        return plain and self.design.n_coefficients > ALONE and "full" not in vars(self)

    @cached_property
    def _solved(self) -> SolvedCov:
        """By conjugate gradients."""
        return self._solved_by(InformationOperator.of)

    @cached_property
    def _blocks(self) -> StructuredCov:
        """Those of all equations: by the inverse where there is room for it, else by conjugate gradients."""
        P = self.design.n_coefficients
        solved = (
            self._of_inverse() if has_room_here(8 * P * (P + len(self.x_rows)), self.memory_limit) else self._solved
        )
        return blocks_alone(self.design, solved.blocks).without_variance(self.restrictions)

    def _of_inverse(self) -> SolvedCov:
        """By the inverse, which takes the memory of one P x P array and the rows."""

        def inverted(*of: Any) -> Information:
            return Inverse.of(_information(*of))

        return self._solved_by(inverted)

    def _solved_by(self, made: Callable[..., Information]) -> SolvedCov:
        pieces, halves, ridge = self._orthonormal()
        information = made(self.design, pieces, self.sigma.rescaled(1.0 / self.y_scale), ridge)
        return SolvedCov(self.design, information, tuple(halves), ridge, self._rows(halves))

    @cached_property
    def _shared_inverse(self) -> np.ndarray:
        columns = self.design.groups[0].columns
        _, half, _ = orthonormal(self.x_rows[:, columns], self.n_obs, np.zeros(len(columns)))
        inverse: np.ndarray = half @ half.T
        return inverse

    def _orthonormal(self) -> tuple[tuple[np.ndarray, ...], list[np.ndarray], np.ndarray]:
        """Per group Q (r, p), per equation (p_j, p_j) from its coordinates to the user's coefficients, and the penalty
        (P,) there."""
        penalties, penalty = column_penalties(self.design, self.lam_B), np.zeros(self.design.n_coefficients)
        halves: list[np.ndarray] = [np.empty(0)] * self.design.n_equations
        pieces: list[np.ndarray] = [np.empty(0)] * len(self.design.groups)
        for i, q, half, ridge in orthonormal_by_group(self.x_rows, self.design.batches, self.n_obs, penalties):
            group = self.design.groups[i]
            pieces[i], penalty[group.coefficients] = q, ridge[:, None]
            for j in group.equations:
                halves[j] = half * self.y_scale[j]
        return tuple(pieces), halves, penalty

    def _inverse(self) -> np.ndarray:
        design = self.design
        pieces, halves, penalty = self._orthonormal()
        rows = _all_rows(design, pieces)
        held = self._rows(halves)
        free = None if held is None else free_directions(held)
        covariance = self._orthonormal_covariance(rows.T @ rows, penalty, free)
        for mine, half in zip(design.spans, halves, strict=True):
            covariance[mine] = half @ covariance[mine]
        for mine, half in zip(design.spans, halves, strict=True):
            covariance[:, mine] = covariance[:, mine] @ half.T
        return without_variance(0.5 * (covariance + covariance.T), self.restrictions)

    def _orthonormal_covariance(self, gram: np.ndarray, penalty: np.ndarray, free: np.ndarray | None) -> np.ndarray:
        """(P, P) of coefficients of orthonormal columns in standard units; spends `gram`, their products."""
        precision = self.sigma.rescaled(1.0 / self.y_scale).precision()
        gram *= precision[np.ix_(self.design.equation_of, self.design.equation_of)]
        return estimator_covariance(gram, penalty, free)

    def _rows(self, halves: list[np.ndarray]) -> np.ndarray | None:
        """(m, P) restrictions in orthonormal coordinates, b_j = halves_j c_j."""
        return None if self.restrictions is None else self.restrictions.in_coordinates(self.design.spans, halves)


def _all_rows(design: Design, pieces: tuple[np.ndarray, ...]) -> np.ndarray:
    """(r, P) the regressors of all equations side by side, of Q (r, p) of every group."""
    rows = np.empty((len(pieces[0]), design.n_coefficients))
    for group, q in zip(design.groups, pieces, strict=True):
        for places in group.coefficients.T:
            rows[:, places] = q
    return rows


def _information(design: Design, pieces: tuple[np.ndarray, ...], sigma: Sigma, ridge: np.ndarray) -> np.ndarray:
    """(P, P) X' Sigma^-1 X + penalty in orthonormal coordinates, its upper triangle; beside it r P numbers.

    Equations a stretch at a time, whose rows of Sigma^-1 (K, K) are all that is held of it.
    """
    rows = _all_rows(design, pieces)
    out = np.zeros((design.n_coefficients, design.n_coefficients))
    for begin in range(0, design.n_equations, TOGETHER):
        mine = np.arange(begin, min(begin + TOGETHER, design.n_equations))
        first, stop = design.offsets[begin], design.offsets[mine[-1] + 1]
        units = np.zeros((len(mine), design.n_equations))
        units[np.arange(len(mine)), mine] = 1.0
        precision = sigma.solve_rows(units)
        np.matmul(rows[:, first:stop].T, rows[:, first:], out=out[first:stop, first:])
        out[first:stop, first:] *= precision[design.equation_of[first:stop] - begin][:, design.equation_of[first:]]
    out[np.diag_indices_from(out)] += ridge
    return out
