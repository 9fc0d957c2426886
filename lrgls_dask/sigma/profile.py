"""The factor-analysis likelihood with the loadings profiled out: a function of x = log d alone.

With S* = D^-1/2 S D^-1/2 = W diag(theta) W', theta descending, and q = #{m <= k: theta_m > 1}, the best loadings at d
are F = D^1/2 W_q diag(sqrt(theta_q - 1)) (Lawley 1940; Joreskog 1967, section 3), and what is left is

    f(x)      = 1/2 [K log 2 pi + sum x + sum_{m<=q} (log theta_m + 1) + sum_{m>q} theta_m]
    df/dx_i   = 1/2 sum_{m>q} (1 - theta_m) w_im^2 = 1/2 [1 - S*_ii + sum_{m<=q} (theta_m - 1) w_im^2]
    d2f/dx2   = 1/2 [(A T A') o (A A') + sum_{n<=q} (w_n w_n') o sum_{m>q} c_mn a_m a_m'],
                c_mn = (theta_m - 1) (theta_m + theta_n) / (theta_m - theta_n),

A = (a_m) = W beyond column q, T its values, o the elementwise product.  Where the model fits, theta_m = 1 for m > q
and the Hessian is 1/2 (A A') o (A A'): Joreskog's approximation, positive semidefinite everywhere (Schur 1911).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lrgls_dask.sigma.interface import LOG_2PI, Array
from lrgls_dask.sigma.leading import leading_pairs
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.of_rows import Moments, OfRows
from lrgls_dask.sigma.quadratic import Applied, Curvature, Dense, Products
from lrgls_dask.sigma.steps import nll_gradient

__all__ = ["Point", "Profile", "leading"]

# With only the leading pairs known, f and its gradient are differences of terms as large as s_ii / d_i.  Above this the
# differences are taken inside Sigma^-1 S, which costs about as much again.
CANCELS_ABOVE = 1e4
# The Hessian multiplies all products w_n o a_m at once, in groups of so many numbers: one matrix product instead of one
# a factor halves its time at K = 50, and the group stays in the processor's cache.
FACE_SPLITTING_SIZE = 100_000
# Above this K an approximate Hessian is kept as a diagonal and few products: solving with K x K numbers takes longer.
DENSE_UP_TO = 100


def leading(S: Moments, k: int) -> tuple[Array, Array]:
    """The k largest eigenvalues, descending, and their vectors (K, k), of a symmetric S (K, K).  Deterministic."""
    if isinstance(S, OfRows):
        return S.leading(k)
    return leading_pairs(S, k)


@dataclass(frozen=True, eq=False)
class Point:
    """The profile at one x: value, gradient (K,), and the eigenpairs they came from, all K or the leading k."""

    x: Array
    value: float
    gradient: Array
    theta: Array
    W: Array
    n_active: int
    rank: int
    of_rows: OfRows | None = None

    @property
    def sigma(self) -> LowRank:
        """The best Sigma with this d: (K, rank) loadings, columns of zeros where theta_m <= 1."""
        q, d = self.n_active, np.exp(self.x)
        F = np.zeros((d.size, self.rank))
        F[:, :q] = np.sqrt(d)[:, None] * self.W[:, :q] * np.sqrt(self.theta[:q] - 1.0)
        return LowRank(F, d)

    @cached_property
    def hessian(self) -> Curvature | None:
        """The exact Hessian, O(q K^3), of m rows as what it does to a vector, O(K m q); None where only the leading
        eigenpairs are known."""
        q, K = self.n_active, self.x.size
        if self.of_rows is not None and isinstance(self.scoring, Products):
            return Applied(self._applied(self.of_rows), self.scoring, np.ones(K), np.zeros(K))
        if self.theta.size < K:
            return None
        A, tail = self.W[:, q:], self.theta[q:]
        out = (A * tail) @ A.T * (A @ A.T)
        together = max(1, FACE_SPLITTING_SIZE // max(1, A.size))
        for first in range(0, q, together):
            some = slice(first, min(first + together, q))
            W, head = self.W[:, some], self.theta[some, None]
            gap = np.minimum(tail - head, -np.finfo(float).eps * head)  # a tie: curvature without bound, never 0/0
            # sum over n, m of c_mn w_in w_jn a_im a_jm is one product of all columns w_n o a_m
            columns = (W[:, :, None] * A[:, None, :]).reshape(K, -1)
            out += (columns * ((tail - 1.0) * (tail + head) / gap).ravel()) @ columns.T
        return Dense(0.5 * out)

    def _applied(self, S: OfRows) -> Callable[[Array], Array]:
        """v to the Hessian times v, where S* = R'R and R R' = L diag(theta) L', theta beyond its m values zero.

        As a_m = R'l_m / sqrt(theta_m) and the terms of the head in the first product join the second, it is
            1/2 [diag(A T A') o v + sum_n w_n o (I - W_q W_q' + R'L C_n L'R) (w_n o v)],
        C_n = diag(2 (theta_n - 1) / (theta_m - theta_n)), L its columns beyond q, m > q.
        """
        q, W = self.n_active, self.W[:, : self.n_active]
        theta, L = S.pairs
        head, tail, L = theta[:q], theta[q:, None], L[:, q:]
        gap = np.minimum(tail - head, -np.finfo(float).eps * head)  # a tie: curvature without bound, never 0/0
        between, left = 2.0 * (head - 1.0) / gap, S.diagonal() - W**2 @ head

        def apply(v: Array) -> Array:
            Z = W * v[:, None]
            beyond = S.rows.T @ (L @ (between * (L.T @ (S.rows @ Z))))
            return np.asarray(0.5 * (left * v + np.einsum("iq,iq->i", W, Z - W @ (W.T @ Z) + beyond)))

        return apply

    @cached_property
    def scoring(self) -> Dense | Products:
        """Joreskog's approximation 1/2 (A A') o (A A') with A A' = I - W_q W_q'.

        (W W') o (W W') is Z Z' with the products of two columns of W as columns of Z: O(K q^2) numbers in the place of
        K^2 where these are many.
        """
        W, K = self.W[:, : self.n_active], self.x.size
        first, second = np.triu_indices(self.n_active)
        if DENSE_UP_TO < K and 2 * first.size < K:
            Z = W[:, first] * W[:, second] * np.where(first == second, np.sqrt(0.5), 1.0)
            return Products(0.5 - np.einsum("iq,iq->i", W, W), Z)
        out = -W @ W.T
        out[np.diag_indices_from(out)] += 1.0
        return Dense(0.5 * out**2)


@dataclass(frozen=True, eq=False)
class Profile:
    """f(x) for one S (K, K) and one rank, with the bound x >= log floor.

    exact : find every eigenpair, O(K^3) a point, for an exact Hessian and a value without cancellation; else only the
    leading `rank` pairs, O(K^2) a Lanczos step, O(K m^2) of the m rows that S is made of, and Joreskog's approximation,
    good where the fit is good or K large.
    loose : find them from S* itself, in half the time and to half the digits.
    """

    S: Moments
    rank: int
    floor: Array
    exact: bool = True
    loose: bool = False

    @cached_property
    def lower(self) -> Array:
        """log floor, (K,)."""
        return np.log(self.floor)

    @cached_property
    def ceiling(self) -> Array:
        """max(diag S, floor), (K,): no optimum has a d above it."""
        return np.maximum(self.S.diagonal(), self.floor)

    @cached_property
    def _root(self) -> Array:
        """L (K, K) with L L' = S, of a singular S as well; found at unit diagonal, so that units change nothing."""
        scale = np.sqrt(self.ceiling)
        assert not isinstance(self.S, OfRows)
        values, vectors = np.linalg.eigh(self.S / scale[:, None] / scale)
        return np.asarray(scale[:, None] * vectors * np.sqrt(np.maximum(values, 0.0)))

    def at(self, x: Array) -> Point:
        """Value, gradient and eigenpairs at x (K,)."""
        return self._all_pairs(x) if self.exact else self._leading_pairs(x)

    def _all_pairs(self, x: Array) -> Point:
        scale = np.exp(-0.5 * x)
        if self.loose:
            assert not isinstance(self.S, OfRows)
            theta, W = np.linalg.eigh(self.S * scale[:, None] * scale)
            theta, W = np.maximum(theta[::-1], 0.0), W[:, ::-1]
        else:
            # Singular values of D^-1/2 L, not eigenvalues of S*: at d = 1e-8 these are right to 1e-8, those to 1e-12.
            W, roots, _ = np.linalg.svd(self._root * scale[:, None])
            theta = roots**2
        q = int(np.count_nonzero(theta[: self.rank] > 1.0))
        value = 0.5 * (x.size * LOG_2PI + x.sum() + np.log(theta[:q]).sum() + q + theta[q:].sum())
        gradient = 0.5 * (W[:, q:] ** 2 @ (1.0 - theta[q:]))
        return Point(x, float(value), gradient, theta, W, q, self.rank)

    def _leading_pairs(self, x: Array) -> Point:
        scale = np.exp(-0.5 * x)
        S = self.S
        standard = S.scaled(scale) if isinstance(S, OfRows) else S * scale[:, None] * scale
        theta, W = leading(standard, self.rank)
        q = int(np.count_nonzero(theta > 1.0))
        diagonal, head = S.diagonal() * scale**2, theta[:q]
        value = 0.5 * (x.size * LOG_2PI + x.sum() + diagonal.sum() + (np.log(head) + 1.0 - head).sum())
        gradient = 0.5 * (1.0 - diagonal + W[:, :q] ** 2 @ (head - 1.0))
        of_rows = standard if isinstance(standard, OfRows) else None
        point = Point(x, float(value), gradient, theta, W, q, self.rank, of_rows)
        if diagonal.max() < CANCELS_ABOVE:
            return point
        value, _, gradient = nll_gradient(point.sigma, self.S)
        return replace(point, value=value, gradient=gradient)
