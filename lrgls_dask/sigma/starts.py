"""Starts for maximum likelihood: deterministic, several, because local optima are real."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cholesky, lapack

from lrgls_dask.sigma.interface import Array
from lrgls_dask.sigma.of_rows import OfRows
from lrgls_dask.sigma.profile import Profile, leading

__all__ = ["across", "default_start", "joreskog_start", "many_starts"]

# diag(S^-1) is trusted while the pivots of the scaled Cholesky factor, squared, stay above this.
SMALLEST_PIVOT = 1e-8
# Shares of s_ii: of the flat start; the least that principal components may leave; of a Heywood start.
FLAT, LEAST, LOW = 0.5, 0.02, 0.01
# Every coordinate in turn is tried low up to this K; above, so many of the likeliest.
EACH_LOW_UP_TO, FEW_LOW = 12, 4
# Up to this K four likely coordinates are tried low and three random starts made, above it two and one.
MORE_UP_TO = 30
# Above this K three starts must do: local optima get rare as K grows, and each start costs tenths of a second.
MANY_UP_TO = 400
N_RANDOM, SEED = 3, 20260101
# Rounds in which the diagonal blocks of a covariance are replaced by what the factors say of them: enough for a start.
ACROSS_ROUNDS = 8


def joreskog_start(profile: Profile) -> Array | None:
    """d_i = (1 - k / (2 K)) / (S^-1)_ii, (K,), or None where S is too near singular.  Source: Joreskog (1967)."""
    if isinstance(profile.S, OfRows):
        return None
    scale = np.sqrt(profile.ceiling)
    try:
        R = cholesky(profile.S / scale[:, None] / scale, check_finite=False)
    except LinAlgError:
        return None
    if np.diagonal(R).min() ** 2 < SMALLEST_PIVOT:
        return None
    inverse, _ = lapack.dtrtri(R)
    shrink = 1.0 - 0.5 * profile.rank / scale.size
    return np.asarray(shrink * scale**2 / np.einsum("ij,ij->i", inverse, inverse))


def principal_start(profile: Profile) -> Array:
    """d = diag(S - V diag(lambda) V') of the k leading components, (K,), kept off zero."""
    values, vectors = leading(profile.S, profile.rank)
    return np.maximum(profile.S.diagonal() - vectors**2 @ values, LEAST * profile.ceiling)


def default_start(profile: Profile) -> Array:
    """Joreskog's d, or that of the principal components where S is singular."""
    start = joreskog_start(profile)
    return principal_start(profile) if start is None else start


def many_starts(profile: Profile) -> Iterator[Array]:
    """Every start worth trying, (K,) each: three above MANY_UP_TO equations, six to twenty below."""
    base = joreskog_start(profile)
    if base is not None:
        yield base
    principal = principal_start(profile)
    yield principal
    base = principal if base is None else base
    yield FLAT * profile.ceiling
    if base.size > MANY_UP_TO:
        return
    for i in _likely_low(profile, base):
        low = base.copy()
        low[i] = LOW * profile.ceiling[i]
        yield low
    rng = np.random.default_rng(SEED)
    for _ in range(N_RANDOM if base.size <= MORE_UP_TO else 1):
        yield rng.uniform(0.1, 0.9, base.size) * profile.ceiling


def _likely_low(profile: Profile, base: Array) -> NDArray[np.intp]:
    """Coordinates to start low, those with the smallest share of variance of their own first."""
    n = base.size if base.size <= EACH_LOW_UP_TO else FEW_LOW if base.size <= MORE_UP_TO else FEW_LOW // 2
    return np.argsort(base / profile.ceiling, kind="stable")[:n]


def across(S: Array, rank: int, inner: NDArray[np.intp]) -> Array:
    """(n, rank) loadings that explain S (n, n) outside the diagonal blocks `inner` (n,), by iterated principal factors.

    The blocks are replaced by what the loadings say of them, which changes nothing else; where there is one block only
    nothing is outside it, and principal components of S are taken.
    """
    if rank == 0:
        return np.zeros((S.shape[0], 0))
    if np.all(inner == inner[0]):
        return _principal(S, rank)
    i, j = np.nonzero(inner[:, None] == inner[None, :])
    filled = S.copy()
    L = _principal(filled, rank)
    for _ in range(ACROSS_ROUNDS):
        filled[i, j] = np.einsum("nk,nk->n", L[i], L[j])
        L = _principal(filled, rank)
    return L


def _principal(S: Array, rank: int) -> Array:
    rank_there = min(rank, S.shape[0])
    values, vectors = leading(S, rank_there)
    L = vectors * np.sqrt(np.maximum(values, 0.0))
    return np.pad(L, ((0, 0), (0, rank - rank_there)))
