"""nll(A A' + diag(d); S) at one point: value, gradient, products with the exact Hessian, and the EM map.

z = (A, x = log d), A compact loadings (K, s) with the zeros of `Blocks` left out.  With P = Sigma^-1, W = P S P and
G = 1/2 (P - W) the derivative with respect to Sigma,

    d nll/dA = 2 G A,    d nll/dx = d o diag G,
    along (V, u):  dSigma = V A' + A V' + diag(d u),    dG = 1/2 (P dSigma W + W dSigma P - P dSigma P),

and the Hessian times (V, u) is (2 dG A + 2 G V,  d o diag dG + u o d o diag G), inside the blocks only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lrgls_dask.sigma.blocks import Blocks
from lrgls_dask.sigma.grouped_factors import GroupedFactors
from lrgls_dask.sigma.interface import LOG_2PI, Array

__all__ = ["Curved", "lasso_rows", "soft"]

# Coordinate descent on a lasso of s coefficients: this relative change ends it, and so many sweeps at the most.
LASSO_TOL, LASSO_SWEEPS = 1e-12, 200


def soft(x: Array, threshold: Array | float) -> Array:
    """x moved towards zero by `threshold`, zero where it would cross."""
    return np.asarray(np.sign(x) * np.maximum(np.abs(x) - threshold, 0.0))


@dataclass(frozen=True, eq=False)
class Curved:
    """The likelihood of a dense S (K, K) around one Sigma.  Memory: five K x K arrays once the Hessian is used.

    Cost: O(K^2 s) for the value and gradient, and O(K^2 s + K m s) for a Hessian product, K x K times K x s products.
    """

    sigma: GroupedFactors
    S: Array

    @classmethod
    def at(cls, blocks: Blocks, S: Array, A: Array, x: Array) -> Curved:
        """At loadings A (K, s) and x = log d (K,)."""
        return cls(GroupedFactors(blocks, A, np.exp(x)), S)

    @property
    def blocks(self) -> Blocks:
        return self.sigma.blocks

    @cached_property
    def _PS(self) -> Array:
        return self.sigma.solve(self.S)

    @cached_property
    def _P(self) -> Array:
        return self.sigma.precision()

    @cached_property
    def _W(self) -> Array:
        W = self.sigma.solve_rows(self._PS)
        return np.asarray(0.5 * (W + W.T))

    @cached_property
    def _PA(self) -> Array:
        return self.blocks.right(self._P, self.sigma.A)

    @cached_property
    def _WA(self) -> Array:
        return self.blocks.right(self._W, self.sigma.A)

    @cached_property
    def _squares(self) -> Array:
        """P o W - 1/2 P o P, the part of diag dG that diag(d u) makes."""
        return np.asarray(self._P * (self._W - 0.5 * self._P))

    @cached_property
    def value(self) -> float:
        """nll per row."""
        return 0.5 * (self.sigma.n_equations * LOG_2PI + self.sigma.logdet + float(np.trace(self._PS)))

    @cached_property
    def gradient(self) -> tuple[Array, Array]:
        """d nll/dA (K, s) and d nll/dx (K,)."""
        slope = 0.5 * self.sigma.d * (np.diagonal(self._P) - np.diagonal(self._W))
        return self.blocks.compact(self._PA - self._WA), slope

    def hessian_product(self, V: Array, u: Array) -> tuple[Array, Array]:
        """The Hessian times a direction V (K, s), u (K,)."""
        at, d = self.blocks, self.sigma.d
        PV, WV = at.right(self._P, V), at.right(self._W, V)
        along_A = at.left(self._W, self._changed(self._PA, V, u)) + at.compact(PV - WV)
        along_A += at.left(self._P, self._changed(self._WA - self._PA, V, u))
        diagonal = np.einsum("ij,ij->i", PV, self._WA - self._PA) + np.einsum("ij,ij->i", self._PA, WV)
        diagonal += self._squares @ (d * u)
        return along_A, d * diagonal + u * self.gradient[1]

    def _changed(self, X: Array, V: Array, u: Array) -> Array:
        """dSigma X for X (K, m)."""
        out = (self.sigma.d * u)[:, None] * X
        for rows, own, _ in self.blocks.blocks():
            A, along = self.sigma.A[rows, own], V[rows, own]
            out[rows] += along @ (A.T @ X[rows]) + A @ (along.T @ X[rows])
        return out

    def own_information(self) -> Array:
        """(K, s + 1, s + 1) for each equation its block of the information: the expected Hessian were Sigma the truth.

        With p = (P A)_i on the factors that touch equation i, and by (A_i, x_i),

            [ P_ii A' P A + p p'     P_ii d_i p           ]
            [ P_ii d_i p'            1/2 (P_ii d_i)^2     ].
        """
        at, s, shares = self.blocks, self.blocks.n_own, np.diagonal(self._P) * self.sigma.d
        own = at.compact(self._PA)
        gram = at.wide(self.sigma.A).T @ self._PA
        out = np.empty((len(shares), s + 1, s + 1))
        out[:, :s, :s] = at.own_blocks(gram) * np.diagonal(self._P)[:, None, None] + own[:, :, None] * own[:, None, :]
        out[:, :s, s] = out[:, s, :s] = shares[:, None] * own
        out[:, s, s] = 0.5 * shares**2
        return out

    # ---------------------------------------------------------------------------------------- EM

    @cached_property
    def own_moments(self) -> Array:
        """(K, s, s): for each equation E[z z'] of the factors z that touch it, z given the data of a row, averaged."""
        at = self.blocks
        wide = at.wide(self.sigma.A)
        M = np.eye(at.n_factors) + wide.T @ (self._WA - self._PA)
        return at.own_blocks(M)

    def em_image(self, floor: Array, l1: float, held: NDArray[np.bool_] | None = None) -> tuple[Array, Array]:
        """Loadings (K, s) and x = log d (K,) after one ECM step on nll + l1 sum|A|, which cannot rise.

        Given d each equation's loadings are a lasso on its own factors, then d is closed form, at least `floor` (K,).
        held : (K, s) true for loadings that stay at zero.
        Source: Rubin & Thayer (1982), section 2; Meng & Rubin (1993) for the two conditional steps.
        """
        cross, M = self.blocks.compact(self.blocks.right(self._PS.T, self.sigma.A)), self.own_moments
        if l1 == 0.0 and held is None:
            A = np.asarray(np.linalg.solve(M, cross[:, :, None])[:, :, 0], dtype=np.float64)
        else:
            weight = np.broadcast_to((l1 * self.sigma.d)[:, None], cross.shape)
            A = lasso_rows(M, cross, weight if held is None else np.where(held, np.inf, weight), self.sigma.A)
        d = np.diagonal(self.S) - 2.0 * np.einsum("ij,ij->i", A, cross) + np.einsum("ij,ijk,ik->i", A, M, A)
        return A, np.log(np.maximum(d, floor))


def lasso_rows(M: Array, cross: Array, weight: Array, A: Array) -> Array:
    """A (K, s) minimising, row by row, 1/2 a'M_i a - a'cross_i + sum_j weight_ij |a_j|; M (K, s, s), weight (K, s).

    A weight may be infinite.  Starts from the given A.
    Exact cyclic coordinate descent, all rows at once (Friedman, Hastie & Tibshirani 2010).
    """
    A = A.copy()
    for _ in range(LASSO_SWEEPS):
        moved = 0.0
        for j in range(A.shape[1]):
            pull = cross[:, j] - np.einsum("ik,ik->i", M[:, j], A) + M[:, j, j] * A[:, j]
            new = soft(pull, weight[:, j]) / M[:, j, j]
            moved = max(moved, float(np.max(np.abs(new - A[:, j]), initial=0.0)))
            A[:, j] = new
        if moved <= LASSO_TOL * max(1.0, float(np.max(np.abs(A), initial=0.0))):
            break
    return A
