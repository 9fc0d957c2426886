"""Adjusted p-values, simultaneous bands and moderated variances against other programs, and against their papers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import scipy
import scipy.optimize
import scipy.sparse as sp
from statsmodels.stats.multitest import multipletests

from lrgls_dask.inference.factor_adjusted import FactorsOfStatistics, realised
from lrgls_dask.inference.joint_deviations import JointDeviations, quadratic_forms
from lrgls_dask.inference.moderated import VariancePrior, trigamma_inverse
from lrgls_dask.inference.multiple_testing import adjusted, share_of_true
from lrgls_dask.inference.structured import Combinations, FormedCombinations

NAMES = {"holm": "holm", "bh": "fdr_bh", "by": "fdr_by"}


def pvalues(kind: str) -> np.ndarray:
    rng = np.random.default_rng(4)
    p = rng.random(200) ** 3
    if kind == "ties":
        p = np.round(p, 2)
    if kind == "missing":
        p[rng.random(200) < 0.2] = np.nan
    return p[:1] if kind == "one" else p


@pytest.mark.parametrize("kind", ["plain", "ties", "missing", "one"])
@pytest.mark.parametrize("method", NAMES)
def test_adjusted_pvalues_are_those_of_statsmodels(method: str, kind: str) -> None:
    p = pvalues(kind)
    known = ~np.isnan(p)
    expected = np.full(len(p), np.nan)
    expected[known] = multipletests(p[known], method=NAMES[method])[1]
    np.testing.assert_allclose(adjusted(p, method), expected, rtol=1e-12)


def test_share_of_true_is_storeys() -> None:
    p = pvalues("missing")
    known = p[~np.isnan(p)]
    assert share_of_true(p) == min(1.0, sum(known > 0.5) / (0.5 * len(known)))
    assert share_of_true(np.array([0.9, 0.8, 0.7])) == 1.0
    assert share_of_true(np.array([0.01, 0.9, 0.02, 0.7, 0.01])) == pytest.approx(0.8)
    assert np.isnan(share_of_true(np.array([np.nan])))


# ---------------------------------------------------------------------------------- the largest by chance


def draws_of_dense(V: np.ndarray, edges: np.ndarray, n: int) -> np.ndarray:
    """The least p-value of each of n draws of N(0, V), hypothesis by hypothesis."""
    z = np.random.default_rng(9).multivariate_normal(np.zeros(len(V)), V, size=n, method="cholesky")
    out = []
    for a, b in pairwise(edges.tolist()):
        q = np.einsum("ni,ij,nj->n", z[:, a:b], np.linalg.inv(V[a:b, a:b]), z[:, a:b])
        out.append(scipy.stats.chi2.sf(q, b - a))
    return np.min(out, axis=0)


def parts_of(edges: np.ndarray, own: bool) -> Combinations:
    """Strong factors, with blocks of each hypothesis' own or without."""
    rng = np.random.default_rng(2)
    m = int(edges[-1])
    factors = rng.normal(size=(m, 2 if own else 2 * m)) * rng.uniform(0.5, 20.0, size=(m, 1))
    root = rng.normal(size=(factors.shape[1], factors.shape[1]))
    blocks = []
    for size in np.diff(edges).tolist():
        half = rng.normal(size=(size, size)) + 2 * np.eye(size)
        blocks.append(half @ half.T * (1.0 if own else 0.0))
    return Combinations(sp.csr_array(sp.block_diag(blocks)), factors, root @ root.T)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("formed", [True, False])
@pytest.mark.parametrize("sizes", [[1] * 12, [2] * 6, [1, 3, 1, 2, 2]])
def test_the_least_pvalue_is_distributed_as_brute_force_draws_have_it(
    sizes: list[int], formed: bool, own: bool
) -> None:
    edges = np.concatenate([[0], np.cumsum(sizes)])
    parts = parts_of(edges, own)
    V = parts.dense()
    among = FormedCombinations(V) if formed else parts
    mine = JointDeviations.of(among, edges).least_pvalues(10_000, 1)
    direct = draws_of_dense(V, edges, 10_000)
    assert np.all(np.diff(mine) >= 0)
    assert scipy.stats.ks_2samp(mine, direct).pvalue > 1e-3
    gap = np.arange(1.0, len(V) + 1)
    expected = [gap[a:b] @ np.linalg.solve(V[a:b, a:b], gap[a:b]) for a, b in pairwise(edges.tolist())]
    np.testing.assert_allclose(quadratic_forms(among, edges, gap, range(len(sizes))), expected, rtol=1e-9)


def test_independent_estimates_need_sidaks_correction_and_equal_ones_none() -> None:
    m = 30
    alone = Combinations(sp.csr_array(np.diag(np.arange(1.0, m + 1))), np.zeros((m, 0)), np.zeros((0, 0)))
    least = JointDeviations.of(alone, np.arange(m + 1)).least_pvalues(10_000, 0)
    assert np.quantile(least, 0.05) == pytest.approx(1 - 0.95 ** (1 / m), abs=4 * 0.0022 / m)
    same = FormedCombinations(np.ones((m, m)) + 1e-9 * np.eye(m))
    least = JointDeviations.of(same, np.arange(m + 1)).least_pvalues(10_000, 0)
    assert np.quantile(least, 0.05) == pytest.approx(0.05, abs=0.005)


def test_a_singular_covariance_of_fewer_sums_than_estimates() -> None:
    half = np.random.default_rng(0).normal(size=(20, 5))
    V, edges = half @ half.T, np.arange(21)
    parts = Combinations(sp.csr_array((20, 20)), half, np.eye(5))
    direct = np.sort(
        2
        * scipy.stats.norm.sf(
            np.max(
                np.abs(
                    np.random.default_rng(3).normal(size=(10_000, 5)) @ (half / np.linalg.norm(half, axis=1)[:, None]).T
                ),
                axis=1,
            )
        )
    )
    for among in (parts, FormedCombinations(V)):
        mine = JointDeviations.of(among, edges).least_pvalues(10_000, 1)
        assert scipy.stats.ks_2samp(mine, direct).pvalue > 1e-3


# ---------------------------------------------------------------------------------- factors


def test_what_factors_put_into_statistics_is_found_and_taken_out() -> None:
    rng = np.random.default_rng(5)
    m, w = 400, np.array([1.5, -2.0])
    F, d = rng.normal(size=(m, 2)), rng.uniform(0.5, 2.0, size=m)
    V = F @ F.T + np.diag(d)
    scale = np.sqrt(np.diagonal(V))
    effect = np.where(np.arange(m) < 40, 5.0, 0.0)
    noise = np.sqrt(d) * rng.normal(size=m)
    statistics = (F @ w + noise) / scale + effect
    parts = FactorsOfStatistics.of(Combinations(sp.csr_array(np.diag(d)), F, np.eye(2)), 2)
    np.testing.assert_allclose(parts.loadings @ parts.loadings.T, F @ F.T / np.outer(scale, scale), atol=1e-12)
    np.testing.assert_allclose(parts.own, d / scale**2, rtol=1e-12)
    common, left = realised(statistics, parts, np.sqrt(parts.own))
    assert np.max(np.abs(common - F @ w / scale)) < 0.3
    expected = (noise / scale + effect) / np.sqrt(parts.own)
    np.testing.assert_allclose(left[40:], expected[40:], atol=0.7)
    assert np.mean(left[:40] > 4) > 0.9
    assert np.std(left[40:]) == pytest.approx(1.0, abs=0.1)
    principal = FactorsOfStatistics.of(FormedCombinations(V), 2)  # what is left when V has no parts
    values = np.linalg.eigvalsh(V / np.outer(scale, scale))
    np.testing.assert_allclose(np.sort(np.sum(principal.loadings**2, axis=0)), values[-2:], rtol=1e-9)
    assert np.corrcoef(realised(statistics, principal, np.sqrt(principal.own))[1], left)[0, 1] > 0.99


def test_more_statistics_than_a_dense_solver_takes_have_the_same_principal_factors() -> None:
    rng = np.random.default_rng(6)
    half = rng.normal(size=(600, 12)) * np.linspace(3, 1, 12)
    d = rng.uniform(1, 2, size=600)
    parts = Combinations(sp.csr_array(np.diag(d)), half, np.eye(12))
    V = parts.dense()
    scale = np.sqrt(np.diagonal(V))
    values, vectors = np.linalg.eigh(V / np.outer(scale, scale))
    expected = vectors[:, -3:] * values[-3:] @ vectors[:, -3:].T
    found = FactorsOfStatistics.of(parts, 3)
    np.testing.assert_allclose(found.loadings @ found.loadings.T, expected, atol=1e-8)


# ---------------------------------------------------------------------------------- moderated variances


def smyth(s2: np.ndarray, df: np.ndarray) -> tuple[float, float, np.ndarray]:
    """d0, s0^2 and moderated variances as section 6.2 of Smyth (2004) has them, roots by bisection."""
    z = np.log(s2)
    e = z - scipy.special.digamma(df / 2) + np.log(df / 2)
    G = len(s2)
    target = np.mean((e - e.mean()) ** 2 * G / (G - 1) - scipy.special.polygamma(1, df / 2))
    if target <= 0:
        return np.inf, float(np.exp(e.mean())), np.full(G, np.exp(e.mean()))
    d0 = 2 * scipy.optimize.brentq(lambda y: scipy.special.polygamma(1, y) - target, 1e-8, 1e12, xtol=1e-14)
    s02 = float(np.exp(e.mean() + scipy.special.digamma(d0 / 2) - np.log(d0 / 2)))
    return d0, s02, (d0 * s02 + df * s2) / (d0 + df)


@pytest.mark.parametrize("prior", [4.0, 40.0, np.inf])
def test_moderated_variances_are_those_of_the_paper(prior: float) -> None:
    rng = np.random.default_rng(8)
    df = rng.integers(30, 60, size=2_000).astype(float)
    sigma2 = 0.3 * np.ones(2_000) if np.isinf(prior) else 0.3 * prior / rng.chisquare(prior, size=2_000)
    s2 = sigma2 * rng.chisquare(df) / df
    if np.isinf(prior):
        s2 = s2**0.9  # spread less than chance has it
    d0, s02, expected = smyth(s2, df)
    found = VariancePrior.of(s2, df)
    assert np.isinf(d0) == np.isinf(prior)
    assert found.df == pytest.approx(d0, rel=1e-9)
    assert found.variance == pytest.approx(s02, rel=1e-10)
    np.testing.assert_allclose(found.moderates(s2, df), expected, rtol=1e-9)
    if prior == 4.0:
        assert (found.df, found.variance) == (pytest.approx(4.0, rel=0.1), pytest.approx(0.3, rel=0.05))


def test_a_variance_of_zero_is_offset_as_limma_does() -> None:
    s2, df = np.array([0.0, 1.0, 2.0, 3.0, 0.5]), np.full(5, 4.0)
    d0, s02, _ = smyth(np.maximum(s2, 1e-5), df)
    found = VariancePrior.of(s2, df)
    assert (found.df, found.variance) == (pytest.approx(d0, rel=1e-9), pytest.approx(s02, rel=1e-9))
    for few in (np.array([1.0]), np.zeros(4), np.zeros(0), np.array([0.0, 0.0, 1.0, 3.0])):
        with pytest.raises(ValueError, match=f"there are {np.count_nonzero(few)} of {len(few)}"):
            VariancePrior.of(few, np.full(len(few), 4.0))


@pytest.mark.parametrize("y", [1e-4, 0.3, 1.0, 25.0, 1e5])
def test_the_inverse_of_trigamma(y: float) -> None:
    assert trigamma_inverse(float(scipy.special.polygamma(1, y))) == pytest.approx(y, rel=1e-10)
