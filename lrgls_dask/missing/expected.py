"""What rows with missing responses contribute at given coefficients and any Sigma of K x K numbers.

With r~ the residuals of a row and, where it shows none, what they are expected to be (sigma/shown.py), the products
that are expected of complete residuals are

    S* = sum_i r~_i r~_i' + Var(r_i | r_io),      and      N (Q - Q S* Q / N) / 2,  Q = Sigma^-1,

is the derivative of -log L by Sigma (Fisher's identity): the likelihood, its gradient and the S of an EM step from one
sum of K x K numbers, whatever the structure of Sigma is (Dempster, Laird and Rubin 1977, example 1 of section 4).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lrgls_dask.missing.kernels import (
    GradientMoments,
    MaskedParams,
    SeveralParams,
    along_of,
    gradient_of,
    residuals_of,
    room_of,
)
from lrgls_dask.missing.slabs import MaskedSlab
from lrgls_dask.rows.kernels import scratch
from lrgls_dask.rows.moments import Summed

__all__ = [
    "Expected",
    "ExpectedMoments",
    "SeveralExpected",
    "expected_moments",
    "general_image",
]


@dataclass(frozen=True, eq=False)
class Expected:
    """The likelihood at one point (c, Sigma), and what leads on from there; standard units.

    nll : per row, 2 pi terms in.  gradient : (P,) of the coefficients c, ridge not included, summed over rows.
    S : (K, K) S* / N.  log_det : sum of log|Sigma_oo| over rows.
    """

    nll: float
    gradient: np.ndarray
    S: np.ndarray
    log_det: float


@dataclass(frozen=True, eq=False)
class ExpectedMoments(Summed):
    """quadratic : sum r_o' Sigma_oo^-1 r_o.  log_det : sum log|Sigma_oo|.  cross : (K, K) sum r~ r~'.  spread : (K, K)
    sum Var(r | r_o).  gradient : flat (P,) X_o' Sigma_oo^-1 r_o.  unit_gradient : (K,) sum Sigma_oo^-1 r_o."""

    quadratic: float
    log_det: float
    cross: np.ndarray
    spread: np.ndarray
    gradient: np.ndarray
    unit_gradient: np.ndarray


@dataclass(frozen=True, eq=False)
class SeveralExpected(Summed):
    """ExpectedMoments at several points."""

    points: tuple[ExpectedMoments, ...]


def expected_moments(slabs: Iterable[MaskedSlab], params: SeveralParams) -> SeveralExpected | None:
    """ExpectedMoments at each of several points, about 4 n K^2 multiplications for one, and what the patterns take."""
    total: SeveralExpected | None = None
    for slab in slabs:
        part = SeveralExpected(tuple(_expected(slab, point) for point in params.points))
        total = part if total is None else total + part
    return total


def _expected(slab: MaskedSlab, params: MaskedParams) -> ExpectedMoments:
    residual = residuals_of(slab, params, room_of(slab))
    count = np.ones(len(residual)) if slab.count is None else slab.count
    given = params.sigma.rows(slab.observed).given(residual, count, _room(residual))
    quadratic, log_det = float(np.vdot(residual, given.scaled)), float(given.log_dets @ count)
    cross = given.filled.T @ given.filled
    return ExpectedMoments(quadratic, log_det, cross, given.spread, *gradient_of(slab, given.scaled, params))


def general_image(slabs: Iterable[MaskedSlab], params: MaskedParams) -> GradientMoments | None:
    """X_o' Sigma_oo^-1 X_o p, for p the negative of `coefficients`; Y does not enter."""
    total: GradientMoments | None = None
    for slab in slabs:
        along = along_of(slab, params)
        scaled = params.sigma.rows(slab.observed).given(along, None, _room(along)).scaled
        part = GradientMoments(*gradient_of(slab, scaled, params))
        total = part if total is None else total + part
    return total


def _room(residual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Memory for what rows say, until the next slab asks for it."""
    return scratch("scaled", residual.shape), scratch("filled", residual.shape)
