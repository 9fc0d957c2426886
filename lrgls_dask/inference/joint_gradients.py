"""Sums of squared gradients of single rows, in all parameters together. Pure NumPy: a kernel and its moments.

With r a row's residuals times the square root of its weight, v = Sigma^-1 r, the derivatives of its log-likelihood

    -1/2 [K log 2 pi - K log w + log|Sigma| + r' Sigma^-1 r]

are sqrt(w) x_ij v_j in the coefficients and 1/2 tr((v v' - Sigma^-1) dS_a) in Sigma's parameter a.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lrgls_dask.design.design import DesignGroup
from lrgls_dask.inference.gradient_moments import MeatMoments
from lrgls_dask.rows.block import Block, bad_values
from lrgls_dask.rows.kernels import scratch, slab_rows, slabs
from lrgls_dask.rows.sums import sums

__all__ = ["GradientGroup", "GradientParams", "SigmaGradients", "joint_gradient_kernel"]


class SigmaGradients(Protocol):
    """Sigma's m parameters, as far as a row's gradients need them."""

    @property
    def n_parameters(self) -> int: ...

    def gradients(self, v: np.ndarray, Q: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class GradientGroup:
    """One design in the coordinates of the gradients.

    turn : (p, p), x turn are its regressors there.  mean : (p,) the mean of those.  coefficients : (p, m) of the
    equations `group.equations`, in those coordinates.
    """

    group: DesignGroup
    turn: np.ndarray
    mean: np.ndarray
    coefficients: np.ndarray


@dataclass(frozen=True, eq=False)
class GradientParams:
    """What the kernel is told; rows are centred first, so that a large mean costs no digits.

    anchor, offset : (q + K,) the mean of [X Y].  unit : (K,) units of Y.  residual_mean : (K,) in those units.
    precision : (K, K) Sigma^-1 in those units.  regression : (m, P) of Sigma's, taken out of the coefficients'.
    """

    groups: tuple[GradientGroup, ...]
    anchor: np.ndarray
    offset: np.ndarray
    unit: np.ndarray
    residual_mean: np.ndarray
    precision: np.ndarray
    sigma: SigmaGradients
    regression: np.ndarray


def joint_gradient_kernel(block: Block, params: GradientParams) -> MeatMoments:
    """MeatMoments of t_i = s_b - regression' s_Sigma of a block's rows, n (P^2 + 2 m P) flops.

    t is a row's gradient by the coefficients less what that by Sigma explains of it: all that the coefficients' part of
    a joint sandwich needs, so that nothing of size m^2 is summed.
    """
    n_coefficients, m = params.regression.shape[1], params.sigma.n_parameters
    meat = np.zeros((n_coefficients, n_coefficients))
    product = scratch("meat", meat.shape)
    n_rows = 0
    for values, _, weights in slabs(block, params.anchor):
        n_rows += len(values)
        height = slab_rows(n_coefficients + m)
        for first in range(0, len(values), height):
            root_weight = None if weights is None else np.sqrt(weights[first : first + height])[:, None]
            gradients = _row_gradients(values[first : first + height], root_weight, params)
            meat += sums(gradients.T, gradients, out=product)
    if not np.isfinite(meat.diagonal()).all():
        raise bad_values(block)
    return MeatMoments(n_rows, meat)


def _row_gradients(values: np.ndarray, root_weight: np.ndarray | None, params: GradientParams) -> np.ndarray:
    """(n, P) t of some rows of [X Y] less their anchor."""
    n_y = len(params.unit)
    centred = values - params.offset
    residual = centred[:, -n_y:] / params.unit + params.residual_mean
    designs = []
    for part in params.groups:
        turned = centred[:, :-n_y][:, part.group.take_columns] @ part.turn
        residual[:, part.group.take_equations] -= turned @ part.coefficients
        turned += part.mean
        if root_weight is not None:
            turned *= root_weight
        designs.append(turned)
    if root_weight is not None:
        residual *= root_weight
    v = residual @ params.precision
    gradients = params.sigma.gradients(v, params.precision) @ -params.regression
    for part, turned in zip(params.groups, designs, strict=True):
        for j, places in zip(part.group.equations, part.group.coefficients.T, strict=True):
            gradients[:, places[0] : places[-1] + 1] += turned * v[:, j, None]
    return np.asarray(gradients)
