"""Covariance of GLS coefficients where rows times factors are fewer than coefficients: nothing of size P x P.

Given factor scores f, N(0, I) for every row, the equations are independent: y_nj = x_nj'b_j + F_j'f_n + e_nj with
variances d_j. The information of coefficients and scores together is block diagonal but for what joins the two, so
that the inverse for the coefficients follows from one matrix (r k, r k) of the scores of the r rows that stand for X:

    A^-1 = B^-1 + U T^-1 U',   B = diag(X_j'X_j / d_j),   U_j = B_j^-1 X_j' kron F_j' / d_j,
    T = I + sum_j (F_j F_j' / d_j) kron (I - X_j (X_j'X_j)^-1 X_j').

With regressors that all equations share r is q, with subsets of a few shared ones too, and with N rows it is N at most.
Source: Woodbury (1950); Searle, Casella and McCulloch (1992), chapter 7, for the equations of the mixed model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.linalg import block_diag, cho_factor, cho_solve

from lrgls_dask.design.design import Design
from lrgls_dask.inference.structured import AT_ONCE, StructuredCov, blocks_of, row_slices
from lrgls_dask.rows.memory import MAX_COEFFICIENTS
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.solve.prices import PAYS

__all__ = ["LOST", "Dual", "dual_pays"]

LOST = 1e-4  # of a variance: where restrictions leave less, what they take away has lost four digits, or all of them


def dual_pays(design: Design, n_rows: int, sigma: Sigma, n_restrictions: int) -> bool:
    """Whether the matrix of scores is small beside P x P, and what restrictions take away no more than half of it."""
    if not sigma.is_wide:
        return False
    n_root, P = n_rows * sigma.widened().rank, design.n_coefficients
    return PAYS * n_root <= P and n_root + 2 * n_restrictions <= P


@dataclass(frozen=True, eq=False)
class Dual:
    """G = diag(own) + factors middle factors', own (P,), factors (P, s), middle (s, s): the inverse of A on what
    restrictions leave free, in coordinates in which every equation's regressors are orthonormal."""

    own: np.ndarray
    factors: np.ndarray
    middle: np.ndarray

    @classmethod
    def of(
        cls,
        design: Design,
        pieces: tuple[np.ndarray, ...],
        sigma: Sigma,
        ridge: np.ndarray,
    ) -> Dual:
        """pieces : Q (r, p) of every group.  ridge : (P,) the penalty.

        O(r^2 k^2 P) time, (r k)^2 + P r k numbers.
        """
        wide, n_rows = sigma.widened(), len(pieces[0])
        F, d = wide.F, wide.d
        factors, own = np.empty((design.n_coefficients, n_rows * wide.rank)), np.empty(design.n_coefficients)
        width = factors.shape[1]
        scale = np.empty(design.n_coefficients)  # between U and B^-1/2 of the same
        scores = np.eye(width) + np.kron(np.eye(n_rows), (F / d[:, None]).T @ F)
        for group, q in zip(design.groups, pieces, strict=True):
            step = max(1, AT_ONCE // (8 * width * q.shape[1] + 1))
            for begin in range(0, len(group.equations), step):
                mine, places = group.equations[begin : begin + step], group.coefficients[:, begin : begin + step]
                total = (1.0 - ridge[places]) + d[mine] * ridge[places]  # (p, m) of B_j d_j
                kron = np.einsum("nc,jk->cjnk", q, F[mine]).reshape(*places.shape, width)
                factors[places] = kron / total[:, :, None]
                own[places] = d[mine] / total
                scale[places] = np.sqrt(total / d[mine])
        # of many equations at once: each by itself would bring up all scores for a few coefficients
        for rows in row_slices(len(factors), width):
            along = factors[rows] * scale[rows, None]
            scores -= along.T @ along
        middle = cho_solve(cho_factor(scores, lower=True), np.eye(len(scores)))
        return cls(own, factors, middle)

    def apply(self, values: np.ndarray) -> np.ndarray:
        """G values, (P, m)."""
        return np.asarray(self.own[:, None] * values + self.factors @ (self.middle @ (self.factors.T @ values)))

    def shrunk(self, ridge: np.ndarray) -> Dual:
        """G (A - penalty) G = G - G penalty G, of the penalty diag(ridge)."""
        if not ridge.any():
            return self
        own, factors, middle = self.own, self.factors, self.middle
        inner = middle - middle @ (factors.T @ (ridge[:, None] * factors)) @ middle
        joined = np.block([[inner, -middle], [-middle, np.zeros_like(middle)]])
        return Dual(own - own * ridge * own, np.hstack([factors, (own * ridge)[:, None] * factors]), joined)

    def restricted(
        self, rows: np.ndarray, held: np.ndarray, design: Design, to_user: Sequence[np.ndarray]
    ) -> Dual | None:
        """A^-1 - A^-1 R' (R A^-1 R')^-1 R A^-1, R = rows (m, P), of A^-1; O(P m^2), P m numbers twice.

        None where that takes nearly all variance from a coefficient, in the user's units, other than those it holds,
        held (P,), and the inverse on what is left free has room: a difference of nearly equal numbers has no digits.
        """
        sparse = sp.csr_array(rows)
        image = self.own[:, None] * rows.T + self.factors @ (self.middle @ (sparse @ self.factors).T)
        among = sparse @ image
        taken = cho_solve(cho_factor(0.5 * (among + among.T), lower=True), np.eye(len(rows)))
        found = Dual(self.own, np.hstack([self.factors, image]), block_diag(self.middle, -taken))
        if design.n_coefficients <= MAX_COEFFICIENTS:
            before, after = (each.in_units(design, to_user).variances for each in (self, found))
            if np.any(after[~held] < LOST * before[~held]):
                return None
        return found

    def in_units(self, design: Design, to_user: Sequence[np.ndarray]) -> StructuredCov:
        """The same of coefficients b_j = to_user_j c_j."""
        blocks, factors = [], np.empty_like(self.factors)
        for span, turn in zip(design.spans, to_user, strict=True):
            blocks.append((turn * self.own[span]) @ turn.T)
            factors[span] = turn @ self.factors[span]
        return StructuredCov(design, blocks_of(design, blocks), factors, self.middle)
