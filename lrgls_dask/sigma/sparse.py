"""Sparse loadings: nll(F F' + diag(d); S) + l1 sum |F_ij|, d >= floor, in standard units (diag S near 1).

The penalty names axes that the likelihood does not, so the search starts from maximum-likelihood loadings in several
rotations. An optimum satisfies, with g the gradient of the nll, |g_ij| <= l1 where F_ij = 0 and g_ij = -l1 sign(F_ij)
elsewhere, and the slope along log d_i is zero, or not negative on the floor.
Source: Hirose & Yamamoto (2015) for the penalised likelihood and its path; Kaiser (1958) for the rotations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from lrgls_dask.checks import as_number, check_factors
from lrgls_dask.sigma.algebra import column_signs
from lrgls_dask.sigma.blocks import Blocks
from lrgls_dask.sigma.grouped_factors import GroupedFactors
from lrgls_dask.sigma.identified import check_identified
from lrgls_dask.sigma.interface import TIGHT as ML_TIGHT
from lrgls_dask.sigma.interface import Array, Description, Equations, Kind, SigmaOption, SigmaStep, Structure
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.ml import ml_candidates, ml_step
from lrgls_dask.sigma.newtoncg import EM_STEPS, TIGHT, Ended, Goal, distinct_optima, minimise_composite
from lrgls_dask.sigma.steps import ROUNDING, checked_inputs, padded
from lrgls_dask.sigma.tangents import Tangents

__all__ = [
    "SPARSE",
    "PathPoint",
    "SparseFactors",
    "SparseLowRank",
    "SparseStructure",
    "checked_l1",
    "kkt_violation",
    "orthomax",
    "refitted",
    "sparse_candidates",
    "sparse_path",
    "sparse_penalty",
    "sparse_step",
]

# Above this K one start must do.
MANY_UP_TO = 200
SEED, N_RANDOM = 20260101, 2
# The path goes from this share of the l1 that empties the loadings upwards.
LEAST_SHARE = 1e-3
TIED = 1e-10  # relative, by which BICs differ for rounding
ORTHOMAX_TOL, ORTHOMAX_SWEEPS = 1e-12, 500


@dataclass(frozen=True)
class SparseLowRank(SigmaOption):
    """Sigma = F F' + diag(d) with loadings that are mostly zero: l1 sum |F_ij| is added to nll per row.

    rank : number of factors, at least 1.
    l1 : 0 or more, on loadings in standard units (each response by its OLS residual standard deviation), so free of
        the units of the data; 0 is maximum likelihood, turned to varimax. "bic" takes the value whose zeros have the
        least BIC out of 0 and 20 more up to where no loading is left: `fit.selection` has them all. Every set of zeros
        is judged by its maximum likelihood, without the penalty, at the residuals of the fit with l1 = 0.

    Raises TypeError or ValueError for other ranks and penalties.
    """

    rank: int
    l1: float | Literal["bic"] = "bic"

    def __post_init__(self) -> None:
        check_factors("rank", self.rank, least=1)
        if isinstance(self.l1, str):
            if self.l1 != "bic":
                raise ValueError(f"l1 must be a number or 'bic'; got {self.l1!r}.")
        else:
            checked_l1(as_number("l1", self.l1, "a number or 'bic'"))

    @property
    def by_bic(self) -> bool:
        """Whether the data choose l1."""
        return isinstance(self.l1, str)

    def structure(self, design: Equations) -> SparseStructure:
        """For the equations of `design`; unpenalised where l1 is yet to be chosen."""
        check_identified(self.rank, design.n_equations)
        return SparseStructure(int(self.rank), 0.0 if isinstance(self.l1, str) else float(self.l1))


class SparseFactors(LowRank):
    """F F' + diag(d) with zeros in F that mean something: no rotation is free, and no method applies one."""

    kinds: ClassVar[tuple[str, ...]] = ("sparse",)

    @property
    def kind(self) -> str:
        return "sparse"

    def describe(self) -> Description:
        factors = f"{self.rank}, {np.count_nonzero(self.F):,} of {self.F.size:,} loadings"
        return Description("Sigma = F F' + diag(d), F sparse", factors, super().describe().null, "l1 = {l1:.4g}")

    def widened(self) -> LowRank:
        """With zeros that are numbers like others."""
        return LowRank(self.F, self.d)

    @property
    def n_parameters(self) -> int:
        """Loadings that are not zero, and K variances; never more than without zeros.

        Source: Zou, Hastie & Tibshirani (2007) for the count.
        """
        return min(int(np.count_nonzero(self.F)) + self.n_equations, super().n_parameters)

    def normalisation(self, tangents: Tangents) -> Array:
        """Raises ValueError: axes are chosen by their zeros, not by equations that could be differentiated."""
        self._lacks("standard errors of its loadings, whose axes are chosen by their zeros", "Use bootstrap")

    def normalised(self) -> SparseFactors:
        """The same Sigma, columns in descending order of F' D^-1 F's diagonal, the largest entry of each positive."""
        strength = np.einsum("ik,ik->k", self.F, self.scaled_loadings)
        F = self.F[:, np.argsort(-strength, kind="stable")]
        return SparseFactors(F=F * column_signs(F) + 0.0, d=self.d)  # + 0.0 so that no zero is a negative one


def checked_l1(l1: float) -> float:
    """`l1` itself.  Raises ValueError unless it is a finite number, 0 or more."""
    if not (np.isfinite(l1) and l1 >= 0.0):
        raise ValueError(f"l1 must be a finite number, 0 or more; got {l1}. 0 is maximum likelihood.")
    return float(l1)


def sparse_penalty(sigma: LowRank, l1: float) -> float:
    """l1 sum |F_ij|, F in standard units."""
    return l1 * float(np.abs(sigma.F).sum())


def _objective(sigma: LowRank, S: Array, l1: float) -> float:
    return sigma.nll(S) + sparse_penalty(sigma, l1)


def kkt_violation(sigma: LowRank, S: Array, floor: Array, l1: float) -> float:
    """How far `sigma` is from the optimality conditions, per row: 0 at an optimum.  O(K^2 k)."""
    return _goal(S, sigma.rank, floor, l1).start(_wrapped(sigma)).violation


def sparse_step(
    S: Array, rank: int, floor: Array, *, l1: float, start: LowRank | None = None, tol: float = TIGHT
) -> SigmaStep[SparseFactors]:
    """The Sigma = F F' + diag(d) that minimises nll(Sigma; S) + l1 sum |F_ij| subject to d >= floor.

    S : (K, K) residual second moments in standard units.  floor : (K,), > 0.  l1 : 0 or more; 0 is `ml_step`, rotated.
    start : where to begin, without one varimax of the maximum-likelihood loadings; the result is never worse.
    A local optimum, optimality conditions to `tol`, at least 1e-9.  O(K^2 k) a Hessian product, some hundred of them.
    Raises ValueError for inputs that do not fit together and for a negative l1.
    """
    checked_inputs(S, rank, floor)
    goal = _goal(S, rank, floor, checked_l1(l1))
    if l1 == 0.0 or rank == 0:
        ml = ml_step(S, rank, floor, start=start, tol=tol if tol > TIGHT else ML_TIGHT)
        return SigmaStep(_varimax(ml.sigma), ml.accept_t, ml.n_starts, ml.n_agreed)
    if start is None:
        ml = ml_step(S, rank, floor)
        return _step(_solved(goal, _varimax(ml.sigma), EM_STEPS, tol))
    begin = padded(start, rank)
    ended = _solved(goal, begin, 0, tol)
    before = _objective(begin, S, l1)
    if ended.value <= before + ROUNDING * max(1.0, abs(before)):
        return _step(ended)
    return SigmaStep(SparseFactors(begin.F, begin.d), accept_t=0.0)


def sparse_candidates(
    S: Array, rank: int, floor: Array, *, l1: float, tol: float = TIGHT
) -> list[SigmaStep[SparseFactors]]:
    """Distinct local optima, best first, at most MAX_CANDIDATES, from several rotations of each ML optimum.

    Arguments and errors as for `sparse_step`.
    """
    checked_inputs(S, rank, floor)
    goal = _goal(S, rank, floor, checked_l1(l1))
    if l1 == 0.0 or rank == 0:
        found = ml_candidates(S, rank, floor, tol=tol if tol > TIGHT else ML_TIGHT)
        return [SigmaStep(_varimax(each.sigma), each.accept_t, each.n_starts, each.n_agreed) for each in found]
    starts = (*_starts(S, rank, floor), _empty(S, rank, floor))
    ends = distinct_optima(goal, map(_wrapped, starts), tol=tol)
    return [SigmaStep(SparseFactors(e.sigma.A, e.sigma.d), 1.0, e.n_starts, e.n_agreed) for e in ends]


@dataclass(frozen=True)
class SparseStructure(Structure):
    """Sigma = F F' + diag(d), l1 sum |F_ij| added to nll per row, for the loop that alternates it with coefficients.

    Raises ValueError for a negative l1.
    """

    rank: int
    l1: float

    def __post_init__(self) -> None:
        checked_l1(self.l1)

    def matrices(self, n_equations: int) -> int:
        """Scaled, and the products of a penalised search; 9 seen."""
        return 10

    def start(self, S: Array, floor: Array) -> SparseFactors:
        """diag(S)."""
        return SparseFactors(np.zeros((len(S), 0)), np.maximum(np.diagonal(S), floor))

    def candidates(self, S: Array, floor: Array, *, tol: float = TIGHT) -> list[SigmaStep[SparseFactors]]:
        """`sparse_candidates`."""
        return sparse_candidates(S, self.rank, floor, l1=self.l1, tol=tol)

    def update(self, S: Array, floor: Array, start: LowRank, *, tol: float = TIGHT) -> SigmaStep[SparseFactors]:
        """`sparse_step` from `start`."""
        return sparse_step(S, self.rank, floor, l1=self.l1, start=start, tol=tol)

    def penalty(self, sigma: LowRank) -> float:
        """l1 sum |F_ij|."""
        return sparse_penalty(sigma, self.l1)

    def n_parameters(self, n_equations: int) -> int:
        """The most there can be; a fitted Sigma counts its own zeros."""
        return n_equations * (self.rank + 1) - self.rank * (self.rank - 1) // 2

    def chosen(
        self, S: Array, floor: Array, *, n_obs: int, n_coefficients: int
    ) -> tuple[SparseStructure, list[dict[str, Any]]]:
        """With the l1 whose zeros have the least BIC on a path over it at S; O(K^2 k) a Newton step."""
        path = sparse_path(S, self.rank, floor, n_obs=n_obs, n_coefficients=n_coefficients)
        best = min(path, key=lambda point: point.bic)  # of those with the same zeros the least shrunken
        rows = [
            {
                "rank": self.rank,
                "l1": at.l1,
                "n_loadings": at.n_loadings,
                "nll": at.nll,
                "bic": at.bic,
                "chosen": at is best,
            }
            for at in path
        ]
        return SparseStructure(self.rank, best.l1), rows


SPARSE = Kind((SparseFactors,), lambda sigma, how: SparseStructure(sigma.rank, how.l1))


def _starts(S: Array, rank: int, floor: Array) -> Iterator[LowRank]:
    """Maximum-likelihood loadings by varimax; for small K also by quartimax, unrotated and from random axes."""
    K = S.shape[0]
    optima = [ml_step(S, rank, floor)] if K > MANY_UP_TO else ml_candidates(S, rank, floor)
    rng = np.random.default_rng(SEED)
    for ml in optima:
        F, d = ml.sigma.F, ml.sigma.d
        yield LowRank(orthomax(F, 1.0), d)
        if K > MANY_UP_TO:
            return
        yield LowRank(orthomax(F, 0.0), d)
        yield ml.sigma.normalised()
        for _ in range(N_RANDOM):
            yield LowRank(orthomax(F @ np.linalg.qr(rng.standard_normal((rank, rank)))[0], 1.0), d)


def _empty(S: Array, rank: int, floor: Array) -> LowRank:
    """No loadings: optimal in itself for any l1 where d = diag S, and the best for a large one."""
    return LowRank(np.zeros((S.shape[0], rank)), np.maximum(np.diagonal(S), floor))


def _goal(S: Array, rank: int, floor: Array, l1: float, held: NDArray[np.bool_] | None = None) -> Goal:
    return Goal(Blocks.single(S.shape[0], rank), S, floor, l1, held)


def _wrapped(sigma: LowRank) -> GroupedFactors:
    return GroupedFactors(Blocks.single(sigma.n_equations, sigma.rank), sigma.F, sigma.d)


def _varimax(sigma: LowRank) -> SparseFactors:
    return SparseFactors(orthomax(sigma.F, 1.0), sigma.d)


def _solved(goal: Goal, start: LowRank, em_steps: int, tol: float = TIGHT) -> Ended:
    return minimise_composite(goal, _wrapped(start), tol=max(tol, TIGHT), em_steps=em_steps)


def _step(end: Ended) -> SigmaStep[SparseFactors]:
    return SigmaStep(SparseFactors(end.sigma.A, end.sigma.d), 1.0)


def orthomax(F: Array, gamma: float) -> Array:
    """F (K, k) rotated to maximise sum_m [sum_i F_im^4 - gamma/K (sum_i F_im^2)^2]: 1 varimax, 0 quartimax.

    O(K k^2) a sweep.  Source: Kaiser (1958); the iteration by singular values is Magnus & Neudecker's (1999).
    """
    K, k = F.shape
    rotation, before = np.eye(k), 0.0
    if k < 2:
        return F.copy()
    for _ in range(ORTHOMAX_SWEEPS):
        turned = F @ rotation
        target = turned**3 - gamma / K * turned * np.sum(turned**2, axis=0)
        U, values, Vt = np.linalg.svd(F.T @ target)
        rotation = U @ Vt
        if values.sum() <= before * (1.0 + ORTHOMAX_TOL):
            break
        before = float(values.sum())
    return np.asarray(F @ rotation)


# ---------------------------------------------------------------------------------------------- the path


@dataclass(frozen=True, eq=False)
class PathPoint:
    """One l1 of a path. nll : per row, without the penalty.  n_loadings : those that are not zero.

    bic : 2 N nll + log N (n_loadings + K + coefficients), of `sigma` itself or of its refit.
    violation : of the optimality conditions.
    """

    l1: float
    sigma: SparseFactors
    nll: float
    n_loadings: int
    bic: float
    violation: float


def sparse_path(
    S: Array,
    rank: int,
    floor: Array,
    *,
    n_obs: int,
    l1s: Sequence[float] | None = None,
    n_penalties: int = 20,
    n_coefficients: int = 0,
    refit: bool = True,
) -> tuple[PathPoint, ...]:
    """Sparse fits for ascending l1, each started from the one before; ends where no loading is left.

    l1s : the values, or None for 0 and `n_penalties` more, evenly spaced in their logarithm.  refit : judge every
    support by its maximum-likelihood loadings (the relaxed lasso of Meinshausen 2007): loadings that the penalty has
    shrunk fit so much worse that BIC would rather keep false ones than true zeros.
    Ascending, because loadings that are all zero satisfy the optimality conditions for any l1 and lead nowhere; where
    having none is better than what came down the path the path ends as well.
    Costs one `sparse_candidates` and a few warm-started Newton steps for every further l1.
    """
    checked_inputs(S, rank, floor)
    start = sparse_candidates(S, rank, floor, l1=0.0)[0].sigma
    values = _default_l1s(start, S, n_penalties) if l1s is None else sorted(checked_l1(value) for value in l1s)
    sigma: LowRank = start
    empty = _empty(S, rank, floor)
    points: list[PathPoint] = []
    for number, l1 in enumerate(values):
        if number == 0 or points[-1].l1 == 0.0:
            step = sparse_candidates(S, rank, floor, l1=l1)[0]
        else:
            step = sparse_step(S, rank, floor, l1=l1, start=sigma)
        sigma = step.sigma if _objective(step.sigma, S, l1) < _objective(empty, S, l1) else empty
        points.append(_same_if_tied(_judged(sigma, S, floor, l1, n_obs, n_coefficients, refit), points[-1:]))
        if points[-1].n_loadings == 0:
            break
    return tuple(points)


def _same_if_tied(point: PathPoint, before: list[PathPoint]) -> PathPoint:
    """The same zeros are refitted to the same optimum: BICs that differ by rounding must not choose between them."""
    for other in before:
        alike = np.array_equal(point.sigma.F == 0.0, other.sigma.F == 0.0)
        if alike and abs(point.bic - other.bic) <= TIED * abs(other.bic):
            return replace(point, bic=other.bic)
    return point


def _default_l1s(ml: LowRank, S: Array, n: int) -> list[float]:
    """0, then `n` values up to one that empties the loadings if the factors stay what they are."""
    most = float(np.max(np.abs(S @ ml.precision_loadings) / ml.d[:, None], initial=0.0))
    return [0.0, *np.geomspace(LEAST_SHARE * most, most, n)] if most > 0.0 else [0.0]


def refitted(sigma: LowRank, S: Array, floor: Array) -> SparseFactors:
    """Maximum likelihood with the zeros of `sigma` and no penalty, started from it."""
    goal = _goal(S, sigma.rank, floor, 0.0, sigma.F == 0.0)
    end = _solved(goal, sigma, EM_STEPS)
    return SparseFactors(end.sigma.A, end.sigma.d)


def _judged(
    sigma: LowRank, S: Array, floor: Array, l1: float, n_obs: int, n_coefficients: int, refit: bool
) -> PathPoint:
    shown = SparseFactors(sigma.F, sigma.d)
    judged = refitted(sigma, S, floor) if refit and l1 > 0.0 else shown
    bic = 2.0 * n_obs * judged.nll(S) + np.log(n_obs) * (judged.n_parameters + n_coefficients)
    n_loadings = int(np.count_nonzero(sigma.F))
    return PathPoint(l1, shown, shown.nll(S), n_loadings, float(bic), kkt_violation(sigma, S, floor, l1))
