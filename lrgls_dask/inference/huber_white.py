"""The sandwich of all parameters together, robust to errors that are not normal or not homoskedastic."""

from __future__ import annotations

import numpy as np

from lrgls_dask.inference.gradient_moments import MeatMoments
from lrgls_dask.inference.gradient_pass import gradient_pass
from lrgls_dask.inference.information import JointInformation, joint_information
from lrgls_dask.inference.joint_gradients import GradientGroup, GradientParams, joint_gradient_kernel
from lrgls_dask.inference.standardised import Estimate
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.rows import Rows
from lrgls_dask.solve.fingerprint import fingerprint_of_compressed

__all__ = ["huber_white_cov"]


def huber_white_cov(estimate: Estimate, rows: Rows, meter: Meter) -> np.ndarray:
    """(P, P) the coefficients' block of A^-1 B A^-1, in the user's units: one pass over the rows of the fit.

    A is the observed information of coefficients and Sigma's parameters together (plus the ridge where lam_B > 0),
    B = sum_i s_i s_i' with s_i the gradient of row i in all of them; of a row of weight w the log-likelihood is that of
    errors with covariance Sigma / w. Nothing is scaled for degrees of freedom (HC0).
    Costs N P (P + 2 m) flops for m parameters of Sigma and 8 P^2 bytes for each task; errors of `joint_information`
    and `gradient_pass`.
    Source: Huber (1967); White (1982); as lavaan's se="robust.huber.white".
    """
    joint = joint_information(estimate, "observed")
    size = 8 * len(joint.coefficient) ** 2
    moments: MeatMoments = gradient_pass(
        rows,
        joint_gradient_kernel,
        _params(estimate, joint),
        n_obs=estimate.compressed.n_obs,
        fitted=fingerprint_of_compressed([estimate.compressed]),
        partial_bytes=size,
        client_bytes=3 * size,
        meter=meter,
        label="Huber-White covariance",
        remedy="Use kind='robust', one equation at a time",
    )
    return joint.rows.cov(joint.bread @ moments.meat @ joint.bread)


def _params(estimate: Estimate, joint: JointInformation) -> GradientParams:
    """The parameters of a fit in the coordinates of its joint information."""
    standard, head = joint.rows, estimate.compressed.head
    root_weight = np.sqrt(head.weight)
    groups = []
    for part in standard.groups:
        turn = part.coefficients(np.eye(len(part.order)))
        own = part.group
        coefficients = part.coordinates(estimate.coefficients[own.coefficients] / standard.unit[own.equations])
        groups.append(GradientGroup(own, turn, part.q[0] / root_weight, coefficients))
    return GradientParams(
        groups=tuple(groups),
        anchor=head.anchor,
        offset=head.offset,
        unit=standard.unit,
        residual_mean=standard.residual[0] / root_weight,
        precision=joint.precision,
        sigma=joint.tangents,
        regression=joint.regression,
    )
