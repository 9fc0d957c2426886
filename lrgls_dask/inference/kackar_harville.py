"""What estimating Sigma adds to the variance of the coefficients, to first order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lrgls_dask.design.penalties import Ridge, penalises, said_of
from lrgls_dask.inference.information import JointInformation, joint_information
from lrgls_dask.inference.standardised import Estimate
from lrgls_dask.sigma.tangents import batches

__all__ = ["MAX_FLOPS", "check_unpenalised", "kackar_harville_cov"]

MAX_FLOPS = 1e14  # hours on one processor
MAX_BYTES = 4e9

# j -> (K, K, K) numbers V[s, t, l], the covariance of the (j, s) and (t, l) entries of Q dSigma Q
Spread = Callable[[int], np.ndarray]


def kackar_harville_cov(estimate: Estimate) -> np.ndarray:
    """(P, P) covariance of the coefficients, in the user's units, that counts the error of the estimated Sigma.

    Phi + Lambda: Phi = (X' Sigma^-1 X)^-1 at the estimated Sigma, Lambda the first-order variance of its error in b,

        Lambda = Phi [sum_ab W_ab (Q_ab - P_a Phi P_b)] Phi,
        P_a = -X' Q dS_a Q X,    Q_ab = X' Q dS_a Q dS_b Q X,    Q = Sigma^-1,

    W the inverse expected information of Sigma's parameters, variances on their floor held. Lambda is zero where all
    equations have the same regressors. Phi itself is too small by about Lambda in small samples: Kenward and Roger
    (1997) therefore add Lambda twice.
    For m parameters of Sigma 2 P^3 + K^2 P^2 + m K^4 flops (2 P^3 + K^2 P^2 + K^4 for an unrestricted Sigma) and
    8 m K^2 bytes, beside what `joint_information` takes; no read.
    Raises ValueError for lam_B > 0, above MAX_FLOPS or MAX_BYTES, and as `joint_information`.
    Source: Kackar & Harville (1984); Kenward & Roger (1997), equations 3 to 5.
    """
    check_unpenalised(estimate.lam_B)
    joint = joint_information(estimate, "expected")
    _check_cost(joint)
    spread = _unrestricted_spread(joint) if joint.tangents.unrestricted else _spread(joint)
    phi = joint.bread
    return joint.rows.cov(phi + phi @ _middle(joint, phi, spread) @ phi)


def check_unpenalised(lam_B: Ridge) -> None:
    """Raise ValueError for a ridge on the coefficients."""
    if penalises(lam_B):
        raise ValueError(
            "the Kackar-Harville covariance is that of an unpenalised estimate, but lam_B is "
            f"{said_of(lam_B)}. "
            "Fit with lam_B = 0, or use classical or robust standard errors, or the bootstrap."
        )


def _check_cost(joint: JointInformation) -> None:
    n_coefficients, K, m = len(joint.coefficient), len(joint.precision), joint.tangents.n_parameters
    directions = 1 if joint.tangents.unrestricted else m
    flops = 2.0 * (2.0 * n_coefficients**3 + K**2 * n_coefficients**2 + directions * K**4)
    n_bytes = 8.0 * directions * K**2 + 8.0 * K * n_coefficients * max(int(joint.rows.source.design.sizes.max()), 1)
    if flops > MAX_FLOPS or n_bytes > MAX_BYTES:
        raise ValueError(
            f"the Kackar-Harville covariance of {n_coefficients} coefficients in {K} equations takes {flops:.1e} "
            f"operations and {n_bytes * 1e-9:.1f} GB; the limits are {MAX_FLOPS:.0e} and {MAX_BYTES * 1e-9:.0f} GB. "
            "Its correction falls as 1 / N: use classical standard errors, or the bootstrap, or a smaller rank."
        )


def _spread(joint: JointInformation) -> Spread:
    """V = sum_r B_r (x) B_r with B_r = Q dS_r Q for directions r that are uncorrelated and of variance one."""
    Q, roots = joint.precision, joint.sigma_roots
    moved = np.empty((roots.shape[1], *Q.shape))
    for some in batches(roots.shape[1], len(Q)):
        moved[some] = Q @ joint.tangents.moves(roots[:, some]) @ Q

    def of(j: int) -> np.ndarray:
        both = moved[:, j, :].T @ moved.reshape(len(moved), Q.size)
        return np.asarray(both.reshape(len(Q), *Q.shape))

    return of


def _unrestricted_spread(joint: JointInformation) -> Spread:
    """V[js, tl] = (Q_jt Q_sl + Q_jl Q_st) / N, the Wishart moments of N Sigma^ carried through Q."""
    Q, N = joint.precision, joint.rows.n_obs

    def of(j: int) -> np.ndarray:
        return np.asarray((np.einsum("t,sl->stl", Q[j], Q) + np.einsum("l,st->stl", Q[j], Q)) / N)

    return of


def _middle(joint: JointInformation, phi: np.ndarray, spread: Spread) -> np.ndarray:
    """sum_ab W_ab (Q_ab - P_a Phi P_b), (P, P), one equation's rows at a time.

    Block (j, l) of the second sum is sum_st V[s, t, l] X_j'X_s Phi_st X_t'X_l: contracting s with V before the last
    product leaves P^3 flops in all, where a sum over the parameters would take P^3 for each of them.
    """
    standard = joint.rows
    design, gram, Sigma = standard.source.design, standard.gram, np.linalg.inv(joint.precision)
    slices, classes = design.spans, _size_classes(design.sizes)
    out = np.empty_like(phi)
    for j, mine in enumerate(slices):
        V = spread(j)
        out[mine] = gram[mine] * np.einsum("stl,st->l", V, Sigma)[design.equation_of]
        along = np.stack([gram[mine, other] @ phi[other] for other in slices])
        for t, of_t in enumerate(slices):
            p, width = along.shape[1], of_t.stop - of_t.start
            mixed = (V[:, t, :].T @ along[:, :, of_t].reshape(len(slices), -1)).reshape(len(slices), p, width)
            for equations, columns in classes:
                last = gram[of_t][:, columns].reshape(width, len(equations), -1).transpose(1, 0, 2)
                out[mine, columns] -= (mixed[equations] @ last).transpose(1, 0, 2).reshape(p, -1)
    return 0.5 * (out + out.T)


def _size_classes(sizes: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Equations of equally many coefficients, and their coefficients, equation by equation."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    classes = []
    for size in np.unique(sizes[sizes > 0]):
        equations = np.flatnonzero(sizes == size)
        classes.append((equations, (starts[equations][:, None] + np.arange(size)).ravel()))
    return classes
