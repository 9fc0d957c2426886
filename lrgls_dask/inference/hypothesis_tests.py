"""Tests of hypotheses: Wald, likelihood ratio, Lagrange multiplier. None reads the data again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy  # scipy.stats loads when first asked: it takes as long as all of this package

from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.inference.fullml import diagonal_loglik, full_loglik
from lrgls_dask.inference.structured import CovOfCombinations, FormedCombinations
from lrgls_dask.page import paragraphs, shown_page
from lrgls_dask.rows.meter import Meter
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.solve.in_memory import InMemory
from lrgls_dask.solve.starting_values import starting_residuals

__all__ = [
    "DIAGONAL",
    "HypothesisTest",
    "breusch_pagan",
    "chi2_test",
    "likelihood_ratio",
    "lr_diagonal",
    "lr_of_diagonal",
    "rank_test",
    "rank_test_of",
    "wald",
]

SHOWN = 6  # restrictions named in the null hypothesis; more are counted
ROUNDING = 1e-9  # of a log-likelihood, which two converged fits of one optimum may differ by
DIAGONAL = "Sigma is diagonal: errors of different equations are uncorrelated"


@dataclass(frozen=True)
class HypothesisTest:
    """A test statistic and its place in its asymptotic distribution.

    name : which test.  null : the hypothesis tested.  df : degrees of freedom, of the numerator where distribution is
    "F".  df_denominator : of the denominator, None where it is "chi2".
    """

    name: str
    null: str
    statistic: float
    df: int
    pvalue: float
    distribution: Literal["chi2", "F"] = "chi2"
    df_denominator: int | None = None

    def __str__(self) -> str:
        freedom = f"{self.df}" if self.df_denominator is None else f"{self.df}, {self.df_denominator}"
        return (
            f"{self.name}\n  H0: {self.null}\n"
            f"  {self.distribution}({freedom}) = {self.statistic:.6g}, p-value = {self.pvalue:.4g}"
        )

    def _repr_html_(self) -> str:
        title, null, result = str(self).splitlines()
        return shown_page(title, paragraphs([null.strip(), result.strip()]))


def chi2_test(name: str, null: str, statistic: float, df: int) -> HypothesisTest:
    """A statistic and its p-value by chi2 with df degrees of freedom."""
    return HypothesisTest(name, null, statistic, df, float(scipy.stats.chi2.sf(statistic, df)))


# ---------------------------------------------------------------------------------------------- Wald


def wald(
    restrictions: Restrictions,
    coefficients: np.ndarray,
    covariance: np.ndarray | CovOfCombinations,
    freedom: int | None = None,
) -> HypothesisTest:
    """(R b - r)' (R V R')^-1 (R b - r), chi2 with m degrees of freedom, or over m as F(m, freedom).

    covariance : (m, m) R V R', formed or not.  freedom : N K - P for the F form, which systemfit's linearHypothesis
    calls "F".
    Raises LinAlgError where R V R' is singular: V has a rank below m, or a restriction holds by construction.
    """
    m = restrictions.n_restrictions
    among = FormedCombinations(covariance) if isinstance(covariance, np.ndarray) else covariance
    gap = restrictions.rows @ coefficients - restrictions.values
    variances = among.variances
    if not np.all(variances > 0):
        which = restrictions.texts[int(np.argmin(variances > 0))]
        raise np.linalg.LinAlgError(f"the estimate of {which!r} has no variance, so it cannot be tested. Drop it.")
    statistic = among.quadratic(gap)
    shown = ", ".join(restrictions.texts[:SHOWN])
    null = shown if m <= SHOWN else f"{shown}, ... ({m} restrictions)"
    if freedom is None:
        return chi2_test("Wald test", null, statistic, m)
    pvalue = float(scipy.stats.f.sf(statistic / m, m, freedom))
    return HypothesisTest("Wald test", null, statistic / m, m, pvalue, "F", freedom)


# ---------------------------------------------------------------------------------------------- likelihood


def likelihood_ratio(small: float, large: float, df: int, *, name: str, null: str) -> HypothesisTest:
    """2 (large - small) of two maximised log-likelihoods, chi2 with df degrees of freedom.

    Raises ValueError where the larger model has the lower log-likelihood by more than rounding.
    """
    statistic = 2.0 * (large - small)
    if statistic < -2.0 * (ROUNDING * abs(large) + 1e-6):
        raise ValueError(
            f"{name}: the larger model has the lower log-likelihood, {large:.10g} against {small:.10g}. Either the "
            "smaller model is not a special case of it, or a fit has not reached its maximum: lower rel_tol."
        )
    return chi2_test(name, null, max(statistic, 0.0), df)


def breusch_pagan(system: Compressed, restrictions: Restrictions | None = None) -> HypothesisTest:
    """N sum_{i<j} r_ij^2, r the correlations of OLS residuals about zero; chi2 with K (K - 1) / 2 degrees of freedom.

    restrictions : to which OLS keeps, all squared residuals counted alike.

    Needs no normal distribution of the errors' fourth moments across equations, but N large beside K.
    Raises ValueError for one equation, or one that its regressors fit exactly.  Source: Breusch & Pagan (1980), 4.1.
    """
    correlation, _ = _by_itself(system, "breusch_pagan", restrictions)
    K = len(correlation)
    statistic = system.n_obs * float(np.sum(np.tril(correlation, -1) ** 2))
    return chi2_test("Breusch-Pagan LM test", DIAGONAL, statistic, K * (K - 1) // 2)


def lr_diagonal(
    system: Compressed, loglik: float, sigma: Sigma, restrictions: Restrictions | None = None
) -> HypothesisTest:
    """Likelihood ratio of a fitted Sigma to a diagonal one, whose maximum is every equation's own least squares.

    restrictions : those of the fit, to which the diagonal one then keeps too.

    Raises ValueError where the fitted Sigma is diagonal, and as `breusch_pagan` does.
    """
    correlation, offset = _by_itself(system, "lr_diagonal")
    K = len(correlation)
    diagonal = -system.n_obs * (0.5 * K * (np.log(2 * np.pi) + 1.0) + offset)
    if restrictions is not None:
        diagonal = diagonal_loglik(system, restrictions)
    return lr_of_diagonal(diagonal, loglik, sigma)


def lr_of_diagonal(diagonal: float, loglik: float, sigma: Sigma) -> HypothesisTest:
    """`lr_diagonal` of maximised log-likelihoods, that with a diagonal Sigma first."""
    df = sigma.n_parameters - sigma.n_equations
    if df == 0:
        raise ValueError("lr_diagonal compares a fitted Sigma with a diagonal one, and this one is. Fit rank >= 1.")
    if df < 0:
        raise ValueError("lr_diagonal compares a fitted Sigma with a diagonal one, and this one was given, not fitted.")
    return likelihood_ratio(diagonal, loglik, df, name="LR test of a diagonal Sigma", null=DIAGONAL)


def _by_itself(system: Compressed, name: str, restrictions: Restrictions | None = None) -> tuple[np.ndarray, float]:
    """(K, K) correlations of the residuals of every equation's own least squares, and the nll offset of their units."""
    equations = system.design.equations
    if len(equations) < 2:
        raise ValueError(f"{name} tests correlations between equations; this system has one equation.")
    problem = InMemory(system, lam_B=0.0, meter=Meter(), restrictions=restrictions)
    if problem.whitened.exact.any():
        j = int(np.argmax(problem.whitened.exact))
        raise ValueError(
            f"{name} needs residuals that vary; equation {equations[j]!r} is fitted exactly by its regressors. "
            "Fit the system without it."
        )
    _, S = starting_residuals(problem, pooled=True)
    size = np.sqrt(S.diagonal())
    return S / np.outer(size, size), problem.nll_offset


def rank_test(
    system: Compressed, loglik: float, sigma: Sigma, restrictions: Restrictions | None, *, free: float, bartlett: bool
) -> HypothesisTest:
    """Likelihood ratio of Sigma = F F' + diag(d) with k factors to an unrestricted Sigma, b as restricted in both.

    df = ((K - k)^2 - K - k) / 2.  bartlett : times 1 - (p + (2 K + 4 k + 5) / 6) / N, p = free, the mean number of
    free coefficients of an equation, which is factanal's statistic where p = 1 (Bartlett 1951; Lawley & Maxwell 1971,
    eq. 4.32).
    Raises ValueError where k factors restrict nothing, or the unrestricted Sigma has no maximum likelihood estimate.
    """
    _check_restricts(sigma)
    return rank_test_of(full_loglik(system, restrictions), loglik, sigma, free, system.n_obs if bartlett else None)


def rank_test_of(full: float, loglik: float, sigma: Sigma, free: float, corrected: int | None) -> HypothesisTest:
    """`rank_test` of maximised log-likelihoods, that with an unrestricted Sigma first.

    corrected : N for Bartlett's correction, None for none.
    """
    K, k, df = sigma.n_equations, sigma.rank, _check_restricts(sigma)
    plain = likelihood_ratio(loglik, full, df, name="LR test of the factor rank", null=sigma.describe().null)
    if corrected is None:
        return plain
    taken = free + (2 * K + 4 * k + 5) / 6  # below N, which is at least q + K here
    statistic = plain.statistic * (1.0 - taken / corrected)
    return chi2_test("LR test of the factor rank, Bartlett's correction", plain.null, statistic, df)


def _check_restricts(sigma: Sigma) -> int:
    """By how many parameters k factors restrict Sigma; raises ValueError for none."""
    K = sigma.n_equations
    df = K * (K + 1) // 2 - sigma.n_parameters
    if df <= 0:
        raise ValueError(
            f"rank_test: {sigma.rank} factors leave a {K} x {K} Sigma unrestricted, so there is nothing to test."
        )
    return df
