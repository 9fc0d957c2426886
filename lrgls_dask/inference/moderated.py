"""Residual variances of many equations, each moved towards what is common to all: limma's empirical Bayes.

Given sigma_j^2 the residual variance s_j^2 of equation j, from f_j degrees of freedom, is sigma_j^2 chi2(f_j) / f_j,
and over the equations 1 / sigma_j^2 is distributed as chi2(d0) / (d0 s0^2). Then the mean of sigma_j^-2 given s_j^2 is
1 / s~_j^2,

    s~_j^2 = (d0 s0^2 + f_j s_j^2) / (d0 + f_j),

and an estimate over its standard error, with s~_j in the place of s_j, has Student's t with d0 + f_j degrees of
freedom. d0 and s0 follow from mean and variance of e_j = log s_j^2 - psi(f_j / 2) + log(f_j / 2):

    psi'(d0 / 2) = var(e) - mean psi'(f_j / 2),      log s0^2 = mean(e) + psi(d0 / 2) - log(d0 / 2);

where the variances differ by no more than chance, d0 is infinite and log s0^2 = mean(e).
Source: Smyth (2004), sections 3, 4 and 6; the root of psi' as in its appendix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

__all__ = ["VariancePrior", "trigamma_inverse"]

LEAST = 1e-5  # of the median, what a variance counts as that is zero to rounding, as limma has it
ROUNDS, SETTLED = 50, 1e-13


@dataclass(frozen=True)
class VariancePrior:
    """What is common to the residual variances of all equations.  df : d0, may be infinite.  variance : s0^2."""

    df: float
    variance: float

    @classmethod
    def of(cls, variances: np.ndarray, freedom: np.ndarray) -> VariancePrior:
        """Of s_j^2 (K,), positive or zero, with f_j (K,) degrees of freedom.

        Raises ValueError for fewer than two equations, and where half of the variances or more are zero.
        """
        above = int(np.count_nonzero(variances > 0))
        if len(variances) < 2 or 2 * above <= len(variances):
            raise ValueError(
                "moderated=True finds what the residual variances of many equations have in common, which takes two or "
                f"more, most of them above zero; there are {above} of {len(variances)}. "
                "Use moderated=False."
            )
        half = 0.5 * freedom
        e = np.log(np.maximum(variances, LEAST * float(np.median(variances)))) - scipy.special.psi(half) + np.log(half)
        beyond = float(np.var(e, ddof=1) - np.mean(scipy.special.polygamma(1, half)))
        if not beyond > 0.0:
            return cls(np.inf, float(np.exp(e.mean())))
        df = 2.0 * trigamma_inverse(beyond)
        return cls(df, float(np.exp(e.mean() + scipy.special.psi(0.5 * df) - np.log(0.5 * df))))

    def moderates(self, variances: np.ndarray, freedom: np.ndarray) -> np.ndarray:
        """(K,) s~_j^2."""
        if np.isinf(self.df):
            return np.full(len(variances), self.variance)
        return np.asarray((self.df * self.variance + freedom * variances) / (self.df + freedom))


def trigamma_inverse(value: float) -> float:
    """y > 0 with psi'(y) = value > 0.

    Newton's method on 1 / psi', which is convex and nearly linear, rises to the root from 1/2 + 1 / value.
    """
    y = 0.5 + 1.0 / value
    for _ in range(ROUNDS):
        slope = float(scipy.special.polygamma(1, y))
        step = slope * (1.0 - slope / value) / float(scipy.special.polygamma(2, y))
        y += step
        if abs(step) <= SETTLED * y:
            break
    return y
