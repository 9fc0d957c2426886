"""Classical covariance of coefficients where not even X'X has room: by passes over the rows of X.

With Sigma^-1 = D^-1 - H H' the information matrix is A = B - W'W, B block diagonal and known from each equation's own
moments, and W'W c takes X'X times k columns for each right-hand side: sum_j H_j kron (X'X (sum_i H_i kron b_i))_j.
Conjugate gradients with B, and what the means of the rows add to it, as preconditioner: one pass an iteration for all
right-hand sides of several equations. Where P x P numbers have room once, A itself is summed in a few passes instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from lrgls_dask.design.batches import Batch
from lrgls_dask.design.restrictions import without_variance
from lrgls_dask.inference.by_solving import SolvedCov, conjugate_gradients_of_many, few_of, unit_columns
from lrgls_dask.inference.inverse import Inverse
from lrgls_dask.inference.operator import half_of
from lrgls_dask.inference.structured import CovOfCombinations, StructuredCov, blocks_alone
from lrgls_dask.rows.memory import MAX_COEFFICIENTS, Room
from lrgls_dask.rows.purposes import ERRORS
from lrgls_dask.rows.regressor_products import RegressorProducts, XProducts, regressor_products_kernel
from lrgls_dask.rows.run_pass import run_pass
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.solve.prices import columns_at_once, has_room_for_matrix, solved_at_once
from lrgls_dask.solve.streamed import Streamed
from lrgls_dask.solve.whiten import WhitenedBatch

__all__ = ["CovByPasses", "LeastSquaresByPasses"]

ARRAYS = 8  # of P x P numbers, that forming the covariance of all coefficients holds


@dataclass(frozen=True, eq=False)
class CovByPasses:
    """(X' Sigma^-1 X)^-1 at a known Sigma, its ridge and restricted forms, as `CoefficientCovariance` has them.

    problem : the rows that were fitted, each equation's own moments known.  sigma : in the user's units.
    room : for matrices and sums of passes.
    An equation takes a few passes, all of them as many for every batch of right-hand sides that has room, or about
    q / s + 1 passes where P x P numbers have room, s the columns of X'X that are summed at a time.
    """

    problem: Streamed
    sigma: Sigma
    room: Room

    def at(self, sigma: Sigma) -> CovByPasses:
        """The same at another Sigma."""
        return replace(self, sigma=sigma)

    def block(self, equation: int) -> np.ndarray:
        """(p_j, p_j) covariance of one equation's coefficients."""
        mine = self.problem.design.spans[equation]
        return without_variance(self._solved.block(equation), self.problem.restrictions, mine)

    def block_of_all(self, equation: int) -> np.ndarray:
        """The same where every equation's is asked for in turn."""
        return self._blocks.block(equation)

    @property
    def variances(self) -> np.ndarray:
        """(P,)."""
        return self._blocks.variances

    def variances_of(self, places: np.ndarray) -> np.ndarray:
        """(m,) of some coefficients; those alone if they are few, a few passes."""
        design, held = self.problem.design, self.problem.restrictions
        if "_blocks" in vars(self) or not few_of(len(places), design):
            return self.variances[places]
        found = self._solved.variances_of(places)
        return found if held is None else np.where(held.held[places], 0.0, found)

    @property
    def whole(self) -> np.ndarray | StructuredCov:
        """`full` where it has room, else the blocks of all equations."""
        P = self.problem.design.n_coefficients
        return self.full if P <= MAX_COEFFICIENTS and self.room.here >= 8 * ARRAYS * P**2 else self._blocks

    @cached_property
    def _blocks(self) -> StructuredCov:
        found = blocks_alone(self.problem.design, self._of_all().blocks)
        return found.without_variance(self.problem.restrictions)

    def _of_all(self) -> SolvedCov:
        """For all coefficients: by the inverse where there is room for it."""
        return replace(self._solved, information=self._inverse()) if self._has_room else self._solved

    @cached_property
    def full(self) -> np.ndarray:
        """(P, P).  Raises ValueError above 20,000 coefficients, MemoryError where it has no room, or what
        `of_combinations` raises."""
        P = self.problem.design.n_coefficients
        if P > MAX_COEFFICIENTS:
            raise ValueError(
                f"the covariance of all {P:,} coefficients would take {8e-9 * P**2:.1f} GB and is limited to "
                f"{MAX_COEFFICIENTS:,}. Ask for one equation at a time: cov(equation=...)."
            )
        if self.room.here < 8 * ARRAYS * P**2:
            raise MemoryError(
                f"the covariance of all {P:,} coefficients takes {8e-9 * ARRAYS * P**2:.2g} GB of memory in this "
                f"process, and there is room for {1e-9 * max(self.room.here, 0.0):.2g} GB. Ask for one equation at a "
                "time: cov(equation=...)."
            )
        return without_variance(self._of_all().of_combinations(sp.eye_array(P)).dense(), self.problem.restrictions)

    def of_combinations(self, matrix: Any) -> CovOfCombinations:
        """R V R' of combinations R (m, P), sparse or not; a few passes with m right-hand sides."""
        return self._solved.of_combinations(matrix)

    @cached_property
    def _solved(self) -> SolvedCov:
        problem, P = self.problem, self.problem.design.n_coefficients
        scaled = self.sigma.rescaled(1.0 / problem.whitened.y_scale)
        to_user = [turn * unit for turn, unit in zip(_turns(problem), problem.whitened.y_scale, strict=True)]
        ridge = np.empty(P)
        for each in problem.whitened.groups:
            ridge[each.group.coefficients] = each.ridge[:, None]
        held = problem.restrictions
        rows = None if held is None else held.in_coordinates(problem.design.spans, to_user)
        information = InformationPasses(problem, scaled, ridge)
        together = solved_at_once(problem.design, information.n_factors, self.room)
        return SolvedCov(problem.design, information, tuple(to_user), ridge, rows, together)

    @property
    def _has_room(self) -> bool:
        """Whether the information matrix has room, and sums of a few of its columns beside it."""
        return has_room_for_matrix(self.problem.design, self.room)

    def _inverse(self) -> Inverse:
        information = self._solved.information
        assert isinstance(information, InformationPasses)
        return Inverse.of(information.summed(columns_at_once(self.problem.design, self.room)))


@dataclass(frozen=True, eq=False)
class LeastSquaresByPasses:
    """sigma_jj (X_j'X_j)^-1 of ordinary least squares, equation by equation: each one's own moments say it.

    problem : the rows that were fitted.  sigma : in the user's units.
    """

    problem: Streamed
    sigma: Sigma

    def at(self, sigma: Sigma) -> LeastSquaresByPasses:
        """The same at another Sigma."""
        return replace(self, sigma=sigma)

    def block(self, equation: int) -> np.ndarray:
        """(p_j, p_j) covariance of one equation's coefficients."""
        return self.whole.block(equation)

    def block_of_all(self, equation: int) -> np.ndarray:
        """The same."""
        return self.whole.block(equation)

    @property
    def variances(self) -> np.ndarray:
        """(P,)."""
        return self.whole.variances

    def variances_of(self, places: np.ndarray) -> np.ndarray:
        """(m,) of some coefficients."""
        return self.whole.variances_of(places)

    @property
    def full(self) -> np.ndarray:
        """Raises ValueError, saying what is not known."""
        return self.whole.full

    @cached_property
    def whole(self) -> StructuredCov:
        """The blocks of all equations.  Raises ValueError under restrictions, which tie them together."""
        design = self.problem.design
        if self.problem.restrictions is not None:
            raise ValueError(
                "standard errors of restricted least squares need X'X, which this streamed fit had no memory for. Fit "
                "again with a larger memory_limit."
            )
        turns = zip(self.sigma.variances, _turns(self.problem), strict=True)
        return blocks_alone(design, [variance * turn @ turn.T for variance, turn in turns])

    def of_combinations(self, matrix: Any) -> CovOfCombinations:
        """R V R' of combinations R (m, P) about one equation."""
        return self.whole.of_combinations(matrix)


def _turns(problem: Streamed) -> list[np.ndarray]:
    """Per equation (p_j, p_j), from whitened coordinates to coefficients of the stored columns, for Y in its units."""
    turns: list[np.ndarray] = [np.empty(0)] * problem.design.n_equations
    for each in problem.whitened.groups:
        turn = each.coefficients(np.eye(len(each.ridge)))
        for j in each.group.equations:
            turns[j] = turn
    return turns


@dataclass(frozen=True, eq=False)
class _Bucket:
    """Groups of equal shape: turns (G, p, p) from coordinates to stored columns, columns (G, p), places (G, p, m) of
    coefficients, equations (G, m), means (G, p) of the rows in these coordinates, times the root of their weight."""

    turns: np.ndarray
    columns: np.ndarray
    places: np.ndarray
    equations: np.ndarray
    means: np.ndarray

    @classmethod
    def of(cls, batch: Batch, white: WhitenedBatch, q: np.ndarray) -> _Bucket:
        """q : (G, r, p), the first row of each for the mean."""
        unit = np.broadcast_to(np.eye(q.shape[2]), (len(q), q.shape[2], q.shape[2]))
        return cls(white.coefficients(unit), batch.columns, batch.places, batch.equations, q[:, 0])


@dataclass(frozen=True, eq=False)
class InformationPasses:
    """A in whitened coordinates, equation by equation; every product is a pass.  sigma : in standard units.

    ridge : (P,).
    """

    problem: Streamed
    sigma: Sigma
    ridge: np.ndarray

    @property
    def n_factors(self) -> int:
        """Of Sigma, as far as it is made of factors."""
        return int(self.sigma.widened().rank) if self.sigma.is_wide else 0

    def solve(self, rhs: np.ndarray, tol: float) -> tuple[np.ndarray, np.ndarray]:
        """See `Information.solve`; by conjugate gradients.  Raises ValueError where Sigma is no factors and variances,
        LinAlgError where they do not arrive."""
        return conjugate_gradients_of_many(self.product, self._precondition, rhs, tol)

    def columns(self, places: np.ndarray, tol: float) -> tuple[np.ndarray, np.ndarray]:
        """See `Information.columns`."""
        return self.solve(unit_columns(len(self.ridge), places), tol)

    def product(self, c: np.ndarray) -> np.ndarray:
        """A c, (P, m) to (P, m); one pass, 4 N q k m flops."""
        m, (q, k) = c.shape[1], (self.problem.design.n_regressors, self._half.shape[1])
        by, of_mean = np.zeros((q, k, m)), np.zeros((k, m))
        for bucket in self._buckets:
            half = self._half[bucket.equations]  # (G, m, k)
            along = np.einsum("gpjm,gjk->gpkm", c[bucket.places], half, optimize=True)
            of_mean += np.einsum("gp,gpkm->km", bucket.means, along)
            raw = bucket.turns @ along.reshape(*along.shape[:2], -1)
            np.add.at(by, bucket.columns, raw.reshape(along.shape))
        image = self._x_products(by.reshape(q, -1)).reshape(by.shape)
        out = self._own[:, None] * c
        for bucket in self._buckets:
            taken = image[bucket.columns]
            back = bucket.turns.transpose(0, 2, 1) @ taken.reshape(*taken.shape[:2], -1)
            back = back.reshape(taken.shape) + np.multiply.outer(bucket.means, of_mean)
            out[bucket.places] -= np.einsum("gpkm,gjk->gpjm", back, self._half[bucket.equations], optimize=True)
        return out

    def summed(self, width: int) -> np.ndarray:
        """A, (P, P), from columns of X'X, `width` a pass or those of one equation; any Sigma."""
        design = self.problem.design
        out = np.zeros((design.n_coefficients, design.n_coefficients))
        begin = 0
        while begin < design.n_equations:
            chosen: dict[int, int] = {}
            stop = begin
            while stop < design.n_equations:
                more = dict.fromkeys(design.columns[stop].tolist())
                if stop > begin and len(chosen | more) > width:
                    break
                for column in more:
                    chosen.setdefault(column, len(chosen))
                stop += 1
            products = self._x_products(np.array(list(chosen)))
            self._fill(out, range(begin, stop), products, chosen)
            begin = stop
        out[np.diag_indices_from(out)] += self.ridge
        return out

    def _fill(self, out: np.ndarray, equations: range, products: np.ndarray, chosen: dict[int, int]) -> None:
        """The rows of `out` of some equations, from the columns (q, s) of X'X that these use."""
        design = self.problem.design
        of_group = {int(j): (b, g) for b in self._buckets for g, mine in enumerate(b.equations) for j in mine}
        for j in equations:
            own, g = of_group[j]
            unit = np.zeros((1, design.n_equations))
            unit[0, j] = 1.0
            precision = self.sigma.solve_rows(unit)[0]
            along = products[:, [chosen[column] for column in design.columns[j].tolist()]] @ own.turns[g]
            for bucket in self._buckets:
                blocks = bucket.turns.transpose(0, 2, 1) @ along[bucket.columns]
                blocks += np.einsum("gp,c->gpc", bucket.means, own.means[g])
                spread = np.einsum("gpc,gj->cgpj", blocks, precision[bucket.equations])
                out[design.offsets[j] + np.arange(len(spread))[:, None], bucket.places.ravel()] = spread.reshape(
                    len(spread), -1
                )

    def _x_products(self, by: np.ndarray) -> np.ndarray:
        problem = self.problem
        q = problem.design.n_regressors
        params = RegressorProducts(problem.head.anchor[:q], problem.head.offset[:q], by)
        size, read = 8 * q * by.shape[-1], problem.rows.of_regressors
        found: XProducts = run_pass(
            read, regressor_products_kernel, params, partial_bytes=size, meter=problem.meter, label=ERRORS
        )
        return found.values

    @cached_property
    def _buckets(self) -> tuple[_Bucket, ...]:
        problem = self.problem
        parts = zip(problem.design.batches.each, problem.whitened.batches, problem.whitened.stacks, strict=True)
        return tuple(_Bucket.of(*each) for each in parts)

    @cached_property
    def _wide(self) -> Any:
        if not self.sigma.is_wide:
            raise ValueError(
                f"covariance {self.sigma.kind!r} is not made of factors and variances: its standard errors need "
                "X'X, which this streamed fit had no memory for. Fit again with a larger memory_limit, or "
                "covariance='lowrank'."
            )
        return self.sigma.widened()

    @cached_property
    def _half(self) -> np.ndarray:
        """(K, k) H with Sigma^-1 = D^-1 - H H'."""
        return half_of(self._wide)

    @cached_property
    def _own(self) -> np.ndarray:
        """(P,) the diagonal of B."""
        d = self._wide.d[self.problem.design.equation_of]
        return np.asarray((1.0 - self.ridge) / d + self.ridge)

    @cached_property
    def _of_mean(self) -> tuple[np.ndarray, np.ndarray]:
        """B^-1 V (P, k) and (I - V'B^-1 V)^-1, V V' what the mean of the rows takes from B."""
        V = np.empty((len(self.ridge), self._half.shape[1]))
        for bucket in self._buckets:
            V[bucket.places] = np.einsum("gp,gjk->gpjk", bucket.means, self._half[bucket.equations])
        over = V / self._own[:, None]
        return over, np.linalg.inv(np.eye(V.shape[1]) - V.T @ over)

    def _precondition(self, residual: np.ndarray) -> np.ndarray:
        over, inner = self._of_mean
        return np.asarray(residual / self._own[:, None] + over @ (inner @ (over.T @ residual)))
