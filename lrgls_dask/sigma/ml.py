"""Maximum likelihood for (F, d) at a given S: the profile over log d, from one start or from many."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
from scipy.optimize import minimize

from lrgls_dask.sigma.interface import LOOSE, TIGHT, Array, SigmaStep
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.newton import minimise
from lrgls_dask.sigma.of_rows import Moments, OfRows
from lrgls_dask.sigma.penalised import Penalised, minimise_penalised
from lrgls_dask.sigma.polish import polished
from lrgls_dask.sigma.profile import Point, Profile
from lrgls_dask.sigma.starts import default_start, many_starts
from lrgls_dask.sigma.steps import checked_inputs, kept_if_better, nll_gradient, padded, penalised

__all__ = ["MAX_CANDIDATES", "joint_objective", "merged", "ml_candidates", "ml_step"]

T = TypeVar("T")

MAX_CANDIDATES = 4
# Two ends whose nll a row differ by less than this, relative to max(1, |nll|), are one optimum.
SAME_NLL = 1e-6


# Up to this K the exact Hessian polishes the result to rounding (45 ms an iteration at 400); above, only linear
# convergence is affordable.
EXACT_UP_TO = 400
# Up to this K the exact Hessian also costs less than the additional iterations of its approximation.
EXACT_STARTS_UP_TO = 100
MAX_ITERATIONS = 200
# Up to so many loadings and variances together penalised ones are found by Newton's method with their Hessian.
NEWTON_UP_TO = 1200
ROUNDING = 1e-14  # the gradient to stop at where TIGHT is asked for: the next step is free of error
# The gradient that leaves of nll no more than rounding, which is about its square.
NLL_ROUNDING = 5e-9
# A factor without a loading of this share of its equation's standard deviation is none yet.
LACKING = 1e-2


def ml_step(
    S: Moments,
    rank: int,
    floor: Array,
    *,
    lam_F: float = 0.0,
    start: LowRank | None = None,
    restarts: bool = False,
    tol: float = TIGHT,
) -> SigmaStep[LowRank]:
    """The Sigma = F F' + diag(d) that minimises nll(Sigma; S) + lam_F/2 ||F||^2 subject to d >= floor.

    S : (K, K) residual second moments, singular ones too; with lam_F = 0 also as the rows that they are made of.
    floor : (K,), > 0; a Heywood case ends on it.
    start : where to begin; without one, Joreskog's start.  restarts : try every start of `many_starts`, keep the best.
    tol : the gradient per row to stop at; the objective is then within about tol^2 of its minimum.

    The result is never worse than `start`: accept_t is 1.0 when it is new, 0.0 when the start could not be improved.
    A local optimum; accurate to rounding up to EXACT_UP_TO equations, to rounding in nll above.  About 5 to 15
    evaluations of the profile a start, O(K^3) each, or O(K^2) a Lanczos step above EXACT_UP_TO.  Memory: some ten
    K x K arrays.
    Raises ValueError for inputs that do not fit together.
    Source: Lawley (1940), Joreskog (1967); lam_F > 0 has no closed form for F and is solved jointly, by Newton's
    method (`penalised`), above NEWTON_UP_TO loadings and variances by L-BFGS-B, then polished on the gradient.
    """
    if restarts:
        return ml_candidates(S, rank, floor, lam_F=lam_F, start=start)[0]
    profile, start = _prepared(S, rank, floor, start)
    if rank == 0:
        return _closed_form(profile, start)
    if lam_F > 0.0 and start is not None:
        return _penalised_from(profile, start, lam_F, tol)
    x, quick = np.log(default_start(profile) if start is None else start.d), _quick(profile)
    if quick is not profile and (start is None or quick.exact != profile.exact):
        x = minimise(quick, x, LOOSE, MAX_ITERATIONS).x
    point = minimise(profile, x, _least(profile, tol), MAX_ITERATIONS)
    return _finished(profile, [SigmaStep(point.sigma, accept_t=1.0)], start, lam_F, tol)[0]


def ml_candidates(
    S: Moments, rank: int, floor: Array, *, lam_F: float = 0.0, start: LowRank | None = None, tol: float = TIGHT
) -> list[SigmaStep[LowRank]]:
    """Distinct local optima, best first, at most MAX_CANDIDATES; arguments and errors as for `ml_step`.

    Every start is run to LOOSE, ends with the same nll are counted as one, and the best few are polished to `tol`.
    n_starts is the number of starts, n_agreed how many of them ended at that optimum.
    """
    profile, start = _prepared(S, rank, floor, start)
    if rank == 0:
        return [_closed_form(profile, start)]
    first = [] if start is None else [start.d]
    quick = _quick(profile)
    ends: list[Point] = []
    for d in (*first, *many_starts(quick)):
        ends.append(minimise(quick, np.log(d), LOOSE, MAX_ITERATIONS, known=ends))
    loose = merged([(end.value, 1, end) for end in ends])[:MAX_CANDIDATES]
    least = _least(profile, tol)
    polished = [
        (minimise(profile, end.x, least, MAX_ITERATIONS, begin=end if quick is profile else None), agreed)
        for _, agreed, end in loose
    ]
    steps = [SigmaStep(end.sigma, 1.0, len(ends), agreed) for end, agreed in polished]
    return _finished(profile, steps, start, lam_F, tol)


def _prepared(S: Moments, rank: int, floor: Array, start: LowRank | None) -> tuple[Profile, LowRank | None]:
    checked_inputs(S, rank, floor)
    profile = Profile(S, rank, floor, exact=floor.size <= EXACT_UP_TO and not isinstance(S, OfRows))
    return profile, None if start is None else padded(start, rank)


def _quick(profile: Profile) -> Profile:
    """The same profile, evaluated the way that is cheaper while far from the optimum."""
    return replace(profile, exact=profile.floor.size <= EXACT_STARTS_UP_TO, loose=True) if profile.exact else profile


def _least(profile: Profile, tol: float) -> float:
    """The gradient to stop at: where each evaluation gains a digit or two, at which nll has none left to gain."""
    return tol if profile.exact else max(tol, NLL_ROUNDING)


def _closed_form(profile: Profile, start: LowRank | None) -> SigmaStep[LowRank]:
    """Rank 0: d = max(diag S, floor)."""
    sigma = LowRank(np.zeros((profile.floor.size, 0)), profile.ceiling)
    return kept_if_better(SigmaStep(sigma, accept_t=1.0), start, profile.S, 0.0)


def merged(ends: list[tuple[float, int, T]]) -> list[tuple[float, int, T]]:
    """(value, number of starts, end), best first, those with the same value made one and their numbers added."""
    out: list[tuple[float, int, T]] = []
    for value, agreed, end in sorted(ends, key=lambda item: item[0]):
        if out and value - out[-1][0] <= SAME_NLL * max(1.0, abs(value)):
            out[-1] = (out[-1][0], out[-1][1] + agreed, out[-1][2])
        else:
            out.append((value, agreed, end))
    return out


def _finished(
    profile: Profile, steps: list[SigmaStep[LowRank]], start: LowRank | None, lam_F: float, tol: float
) -> list[SigmaStep[LowRank]]:
    """Distinct steps, best first, the penalty taken into account, the first of them never worse than the start."""
    if lam_F > 0.0:
        if start is not None:
            steps = [*steps, replace(steps[0], sigma=start, n_agreed=1)]
        steps = [replace(step, sigma=_joint(profile, step.sigma, lam_F, tol)) for step in steps]
    ends = merged([(penalised(step.sigma, profile.S, lam_F), step.n_agreed, step) for step in steps])
    first, *others = [replace(step, n_agreed=agreed) for _, agreed, step in ends]
    return [kept_if_better(first, start, profile.S, lam_F), *others]


def _penalised_from(profile: Profile, start: LowRank, lam_F: float, tol: float) -> SigmaStep[LowRank]:
    """The penalised optimum below the start, or below what is likeliest near it where the start lacks a factor.

    Loadings that are all zero stay so, for their slope is zero too.
    """
    ends = [_joint(profile, start, lam_F, tol)]
    if np.abs(start.F / np.sqrt(profile.ceiling)[:, None]).max(axis=0).min() < LACKING:
        likely = minimise(_quick(profile), np.log(start.d), LOOSE, MAX_ITERATIONS)
        ends.append(_joint(profile, likely.sigma, lam_F, tol))
    best = min(ends, key=lambda sigma: penalised(sigma, profile.S, lam_F))
    return kept_if_better(SigmaStep(best, accept_t=1.0), start, profile.S, lam_F)


def joint_objective(z: Array, S: Array, rank: int, lam_F: float) -> tuple[float, Array]:
    """nll + lam_F/2 ||F||^2 and its gradient at z = (F, log d) flattened, (K (rank + 1),).  O(K^2 rank)."""
    size = S.shape[0] * rank
    sigma = LowRank(z[:size].reshape(-1, rank), np.exp(z[size:]))
    value, along_F, along_x = nll_gradient(sigma, S)
    penalty = 0.5 * lam_F * float(np.vdot(sigma.F, sigma.F))
    return value + penalty, np.concatenate([(along_F + lam_F * sigma.F).ravel(), along_x])


def _joint(profile: Profile, begin: LowRank, lam_F: float, tol: float) -> LowRank:
    """The penalised optimum below `begin`, over (F, log d)."""
    size = begin.F.size
    assert not isinstance(profile.S, OfRows)
    if size + profile.floor.size <= NEWTON_UP_TO:
        return minimise_penalised(
            Penalised(profile.S, lam_F, profile.floor), begin, tol=tol if tol > TIGHT else ROUNDING
        )
    z = np.concatenate([begin.F.ravel(), np.log(np.maximum(begin.d, profile.floor))])
    bounds = [(None, None)] * size + [(low, None) for low in profile.lower]
    options = {"maxiter": 500, "maxcor": 20, "ftol": 1e-15, "gtol": 1e-9}
    arguments = (profile.S, begin.rank, lam_F)
    z = minimize(joint_objective, z, arguments, "L-BFGS-B", jac=True, bounds=bounds, options=options).x
    if profile.floor.size <= EXACT_UP_TO:
        lower = np.concatenate([np.full(size, -np.inf), profile.lower])
        z = polished(lambda at: joint_objective(at, *arguments)[1], z, lower)
    return LowRank(z[:size].reshape(begin.F.shape), np.maximum(np.exp(z[size:]), profile.floor))
