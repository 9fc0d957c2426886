"""What mean products of residuals are corrected by for the coefficients that were estimated."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from lrgls_dask.design.design import Design
from lrgls_dask.design.restrictions import Restrictions

__all__ = ["Counted", "corrected", "overlaps"]

NEGATIVE = -1e-10  # eigenvalues, of entries near one, that rounding does not make


class Counted(Protocol):
    """What divisors are counted from. free : (K,) coefficients of each equation that restrictions leave free.

    overlaps : (K, K) tr(P_i P_j), see `overlaps`.
    """

    n_obs: int
    free: np.ndarray

    @property
    def overlaps(self) -> np.ndarray: ...


def corrected(problem: Counted, debiased: bool | str, S: np.ndarray) -> np.ndarray:
    """(K, K) S_ij N / c_ij from S_ij = r_i'r_j / N, p_j the free coefficients; S itself for False.

    True : c_ij = sqrt((N - p_i) (N - p_j)).  "max" : N - max(p_i, p_j).  "Theil" : N - p_i - p_j + tr(P_i P_j), P_j the
    projection on the columns of an equation, which is without bias for residuals of OLS.
    The three agree on the diagonal. Raises ValueError where one of the last two leaves no covariance.
    Source: Theil (1971), p. 321; Judge et al. (1985), p. 469; Henningsen and Hamann (2007), section 2.3.
    """
    if debiased is False:
        return S
    n_obs, p = problem.n_obs, problem.free
    if debiased is True:
        root = np.sqrt(n_obs / (n_obs - p))
        return S * root[:, None] * root
    counts = np.maximum.outer(p, p) if debiased == "max" else np.add.outer(p, p) - problem.overlaps
    found: np.ndarray = S * (n_obs / (n_obs - counts))
    if np.linalg.eigvalsh(found)[0] < NEGATIVE * found.diagonal().max():
        raise ValueError(
            f"debiased={debiased!r} divides each pair of equations by a number of its own, and what that leaves of the "
            "residual covariance is not positive definite. Use debiased=True, which keeps it so."
        )
    return found


def overlaps(design: Design, x: np.ndarray, restrictions: Restrictions | None) -> np.ndarray:
    """(K, K) tr(P_i P_j) of the projections on what the free coefficients of each equation can fit; P_j of rank p_j.

    x : (r, q) with x'x = X'X.  O(r P^2) for designs that all differ; O(p P) memory.
    """
    bases: list[np.ndarray] = [np.empty(0)] * design.n_equations
    for group in design.groups:
        columns = x[:, group.columns]
        size = np.linalg.norm(columns, axis=0)
        columns = columns / np.where(size > 0, size, 1.0)
        whole = np.linalg.qr(columns)[0]
        for j in group.equations:
            mine = design.spans[j]
            if restrictions is None or not np.any(restrictions.matrix[:, mine]):
                bases[j] = whole
            else:
                bases[j] = np.linalg.qr(x[:, group.columns] @ restrictions.open_to(mine))[0]
    together = np.hstack(bases)
    counts = [basis.shape[1] for basis in bases]
    starts = np.concatenate([[0], np.cumsum(counts)])
    out = np.zeros((len(bases), len(bases)))
    has = np.flatnonzero(counts)
    for i in has:
        squares = np.sum((bases[i].T @ together) ** 2, axis=0)
        out[i, has] = np.add.reduceat(squares, starts[has])
    return out + design.n_absorbed  # effects that are absorbed are a part of every projection
