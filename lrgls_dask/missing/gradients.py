"""Gradients of rows that show only some equations: what the sums of `inference` are told of them, and joint ones.

The gradient of a row by coefficient c of equation j is x_c v_j with v = Sigma_oo^-1 r_o, zero where j is not shown, and
by Sigma's parameter a it is 1/2 tr((v v' - Sigma_oo^-1) dS_a), over the equations that are shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lrgls_dask.compression.patterns import bad_but_for_missing
from lrgls_dask.errors import BadValues
from lrgls_dask.inference.gradient_kernels import SigmaRuns
from lrgls_dask.inference.gradient_moments import MeatMoments
from lrgls_dask.missing.kernels import MaskedParams, residuals_of, whitened_columns
from lrgls_dask.missing.slabs import MaskedSlab, block_slabs
from lrgls_dask.rows.block import Block, side_by_side
from lrgls_dask.rows.kernels import scratch, slab_rows
from lrgls_dask.rows.sums import sums
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.sigma.tangents import Tangents

__all__ = ["JointParams", "ShownRows", "ShownSigma", "joint_kernel"]


@dataclass(frozen=True, eq=False)
class ShownSigma:
    """Sigma of rows, or of runs of them, whose residuals are NaN where a response is missing."""

    sigma: Sigma | SigmaRuns

    def solve_rows(self, E: np.ndarray, start: int) -> np.ndarray:
        """(n, K) Sigma_oo^-1 e_o, zero where missing, of E (n, K); start : the number of the first row."""
        if not isinstance(self.sigma, SigmaRuns):
            return _solved(self.sigma, E)
        parts, cuts = self.sigma.runs.within(start, start + len(E))
        pieces = np.split(E, cuts[1:-1] - start)
        return np.concatenate([_solved(self.sigma.sigmas[t], piece) for t, piece in zip(parts, pieces, strict=True)])


def _solved(sigma: Sigma, E: np.ndarray) -> np.ndarray:
    missing = np.isnan(E)
    return sigma.rows(np.subtract(1.0, missing)).given(np.where(missing, 0.0, E)).scaled


@dataclass(frozen=True)
class ShownRows:
    """A kernel over the rows of a block that show some response; the others get weight zero and keep their place."""

    kernel: Callable[[Block, Any], Any]

    def __call__(self, block: Block, params: Any) -> Any:
        empty = np.isnan(side_by_side(block.y)).all(axis=1)
        used = block
        if empty.any():
            weights = np.ones(block.n_rows) if block.weights is None else np.asarray(block.weights, dtype=np.float64)
            # a weight that is no weight is left for the kernel to name
            used = replace(block, weights=np.where(empty & (weights > 0), 0.0, weights))
        try:
            return self.kernel(used, params)
        except BadValues:
            raise bad_but_for_missing(block) from None


# ---------------------------------------------------------------------------------------------- all parameters


@dataclass(frozen=True, eq=False)
class JointParams:
    """What the joint kernel is told.

    at : the parameters, with the maps to whitened columns.  tangents : the m parameters of Sigma.  regression : (m, P)
    of the gradients by these, which is taken out of those by the coefficients, in the order of equations.
    origin : of `at`.
    """

    at: MaskedParams
    equation_of: np.ndarray
    tangents: Tangents
    regression: np.ndarray

    @property
    def origin(self) -> np.ndarray:
        return self.at.origin


def joint_kernel(block: Block, params: JointParams) -> MeatMoments:
    """MeatMoments of t_i = s_b - regression' s_Sigma of a block's rows, n (P (P + 2 m) + k K^2) flops.

    t is a row's gradient by the whitened coefficients less what that by Sigma explains of it.
    """
    P = len(params.equation_of)
    meat, n_rows = np.zeros((P, P)), 0
    product = scratch("meat", meat.shape)
    for slab in block_slabs(block, params.origin):
        height = slab_rows(P + len(params.regression))
        for first in range(0, len(slab.x), height):
            part = _cut(slab, slice(first, first + height))
            n_rows += int(part.observed.any(axis=1).sum())
            gradients = _joint_gradients(part, params)
            meat += sums(gradients.T, gradients, out=product)
    if not np.isfinite(meat.diagonal()).all():
        raise bad_but_for_missing(block)
    return MeatMoments(n_rows, meat)


def _cut(slab: MaskedSlab, rows: slice) -> MaskedSlab:
    unit = None if slab.unit is None else slab.unit[rows]
    return MaskedSlab.of(slab.x[rows], slab.y[rows], slab.observed[rows], unit, None)


def _joint_gradients(slab: MaskedSlab, params: JointParams) -> np.ndarray:
    """(n, P) t of some rows."""
    columns, _ = whitened_columns(slab, params.at)
    shown = params.at.sigma.rows(slab.observed)
    v = shown.given(residuals_of(slab, params.at)).scaled
    columns *= v[:, params.equation_of]
    return np.asarray(columns - params.tangents.gradients_of(v, shown) @ params.regression)
