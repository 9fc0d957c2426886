"""What the coefficients would be told by rows without holes: the metric and the step of an ECM iteration.

Were every response seen, the information of c at Sigma would be that of all pairs of equations,

    I = (Sigma^-1)_jl Z_j'Z_l,        Z_j the whitened columns of equation j,

of which the cross-products of columns, summed once, are all that the rows have to tell. What rows with holes say is
never more, whatever stands in Z where a response is missing: Sigma_oo^-1 is Sigma^-1 less something positive. So the
step I^-1 g from a point of gradient g, the least squares of the responses that are expected where none is seen, does
not raise the objective (ECM, Meng and Rubin 1993), and it takes no look at the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.solve.cg import conjugate_gradients
from lrgls_dask.solve.constraint import Preconditioner

__all__ = ["CompleteInformation"]

# Squared length of the gradient, of the one it begins with, at which the step is found; iterations take microseconds.
FALL, MOST = 1e-20, 1_000


@dataclass(frozen=True, eq=False)
class CompleteInformation:
    """Of the coefficients c of a system at one Sigma; where the columns are too many to sum their cross-products, of
    each equation by itself."""

    problem: Incomplete
    sigma: Sigma

    @cached_property
    def precision(self) -> np.ndarray:
        """(K, K) Sigma^-1."""
        inverse = self.sigma.solve_rows(np.eye(self.sigma.n_equations))
        return np.asarray(0.5 * (inverse + inverse.T))

    @property
    def whole(self) -> bool:
        """Whether it is of all equations together, so that its step is one of ECM."""
        return self.problem.columns is not None

    @cached_property
    def diagonal(self) -> np.ndarray:
        """(P,) about its diagonal; of each equation by itself what its own rows say, roughly."""
        problem, ridge = self.problem, self.problem.coordinates.ridge
        share = problem.cells / problem.n_obs  # of rows that show the others too, roughly
        mean = share * self.sigma.precision_diagonal + (1.0 - share) / self.sigma.variances
        return problem.coordinates.expand(mean) * (1.0 - ridge) + ridge

    def image(self, p: np.ndarray) -> np.ndarray:
        """(I + ridge) p, (P,): O(q P + K^2 q)."""
        problem, columns = self.problem, self.problem.columns
        assert columns is not None
        b, level = problem.on_columns(p)
        equations, places = self._places
        at = sp.csr_array((b, (equations, places)), shape=(len(level), len(columns) - 1))
        fitted = at @ columns[:-1] + level[:, None] * columns[-1]
        along = self.precision @ fitted
        return problem.from_columns(along[equations, places], along[:, -1]) + problem.coordinates.ridge * p

    def step(self, gradient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The gradient (P,) within the restrictions, and (I + ridge)^-1 of it."""
        projected, first = self._apart(gradient)
        if not self.whole:
            return projected, first
        found = conjugate_gradients(
            lambda p, _: self.image(p),
            np.zeros(len(gradient)),
            projected,
            self.diagonal,
            tol=FALL * float(projected @ first),
            max_iterations=MOST,
            constraint=self.problem.constraint,
        )
        return projected, found.x

    def root(self, vectors: np.ndarray) -> np.ndarray:
        """(m, n) whose products with each other are those of vectors (m, P) in the metric I; ridge not included."""
        if not self.whole:
            return np.asarray(vectors * np.sqrt(self.diagonal))
        left, right = self.problem.root_of_columns, np.linalg.cholesky(self.precision)
        equations, places = self._places
        found = []
        for vector in vectors:
            b, level = self.problem.on_columns(vector)
            whole = np.zeros((len(level), len(left)))
            whole[equations, places] = b
            whole[:, -1] = level
            found.append((right.T @ whole @ left).ravel())
        return np.stack(found)

    @cached_property
    def _apart(self) -> Preconditioner:
        """By the diagonal."""
        return Preconditioner(self.diagonal, self.problem.constraint)

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """(P,) equation and column of each coefficient."""
        design = self.problem.design
        return np.repeat(np.arange(design.n_equations), design.sizes), np.concatenate(design.columns)
