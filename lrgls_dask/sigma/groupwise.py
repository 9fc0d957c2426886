"""Factors of groups found one group at a time: the cycle of an alternating expectation-maximisation algorithm.

Were the general factors z of a row known, its groups would be problems of their own. So one cycle takes z alone as
missing: with C = E[y z'] and M = E[z z'], averaged over rows at the current Sigma,

    F <- C M^-1,    and each group g fits its own factors and variances to  S_g = [S - F C']_gg,

whatever the covariance of the groups is, since all equations regress on the same z. The fit of a group is a small
problem of maximum likelihood that knows how to reach a variance of zero and to compare local optima; where it has
groups of its own, it is another cycle. The likelihood of all equations cannot fall.
Source: Meng & van Dyk (1997), section 3, with groups in place of their two blocks of parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lrgls_dask.sigma.grouped_factors import GroupedFactors
from lrgls_dask.sigma.interface import LOOSE, Array
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.ml import ml_candidates, ml_step

__all__ = ["GroupFit", "approached", "cycled", "leaf_candidates"]

# Cycles end when the objective falls by less than this, which Newton steps do quicker, or after so many.
ENOUGH, MAX_CYCLES = 1e-5, 5

# What fits one group: its S (n, n), factors and variances to start from, its floor (n,); never worse than the start.
GroupFit = Callable[[Array, GroupedFactors, Array], GroupedFactors]


def cycled(S: Array, sigma: GroupedFactors, floor: Array, fit: GroupFit | None = None) -> GroupedFactors:
    """`sigma` after one cycle on S (K, K): its nll is not above what it was.  floor : (K,).

    fit : of each group; without one another cycle, and of the smallest groups `ml_step` to LOOSE.  O(K^2 s) and that.
    """
    blocks, A, d = sigma.blocks, sigma.A.copy(), sigma.d.copy()
    if len(blocks.ranks) == 1:
        found = ml_step(S, blocks.ranks[0], floor, start=LowRank(A, d), tol=LOOSE).sigma
        return GroupedFactors(blocks, found.F, found.d)
    own = blocks.own[0]
    F = A[:, own]
    PF = sigma.solve(F)
    C = S @ PF
    M = np.eye(F.shape[1]) - F.T @ PF + PF.T @ C
    F = np.asarray(np.linalg.solve(M, C.T).T, dtype=np.float64)
    A[:, own] = F
    for rows, inner in blocks.parts:
        inside = S[rows][:, rows] - F[rows] @ C[rows].T
        part = GroupedFactors(inner, A[rows, own.stop :], d[rows])
        part = (fit or cycled)(0.5 * (inside + inside.T), part, floor[rows])
        A[rows, own.stop :], d[rows] = part.A, part.d
    return GroupedFactors(blocks, A, d)


def approached(S: Array, sigma: GroupedFactors, floor: Array, fit: GroupFit | None = None) -> GroupedFactors:
    """`sigma` near a local optimum, not above what it was.  fit : of each group in the first cycle, as in `cycled`."""
    value = sigma.nll(S)
    for number in range(MAX_CYCLES):
        sigma = cycled(S, sigma, floor, fit if number == 0 else None)
        before, value = value, sigma.nll(S)
        if before - value <= ENOUGH:
            break
    return sigma


def leaf_candidates(S: Array, sigma: GroupedFactors, floor: Array) -> GroupedFactors:
    """A cycle in which the smallest groups are fitted from every start of `ml_candidates`: a `GroupFit`."""
    if len(sigma.blocks.ranks) > 1:
        return cycled(S, sigma, floor, leaf_candidates)
    start = LowRank(sigma.A, sigma.d)
    found = ml_candidates(S, start.rank, floor, start=start, tol=LOOSE)[0].sigma
    return GroupedFactors(sigma.blocks, found.F, found.d)
