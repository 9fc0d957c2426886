"""Wald, likelihood ratio and Lagrange multiplier tests against dense formulas and other programs' numbers."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from linearmodels.system import SUR

from lrgls_dask import Fit, HypothesisTest, System
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.inference.fullml import full_loglik
from lrgls_dask.inference.hypothesis_tests import likelihood_ratio, wald
from support.fits import at, fit, remade
from support.reference import load, system_of
from support.systems import Data, dask_rows, simulate

pytestmark = pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic variance on d_floor")

KINDS = ["own", "shared", "mixed"]
DATA = simulate("mixed", n=120)


@pytest.fixture(scope="module")
def found() -> Fit:
    return fit(DATA.system())


# ---------------------------------------------------------------------------------------------- Wald


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_wald_is_what_the_restriction_costs(kind: str, weighted: bool) -> None:
    """At a known Sigma: the rise of the weighted sum of squares when GLS obeys the restriction (textbook identity)."""
    data = simulate(kind, n=40, K=4, k=1, weighted=weighted, unit=3.0)
    made, dense = fit(data.system(), rank=1), data.dense()
    R = np.random.default_rng(5).normal(size=(3, made.n_coefficients))
    r = np.array([1.0, 0.0, -2.0])
    test = made.wald_test((R, r))

    sigma = made.sigma().values
    inverse = np.linalg.inv(np.kron(sigma, np.diag(1 / dense.w)))
    particular, free = np.linalg.lstsq(R, r, rcond=None)[0], scipy.linalg.null_space(R)
    X = dense.X_all @ free
    z = np.linalg.solve(X.T @ inverse @ X, X.T @ inverse @ (dense.y_all - dense.X_all @ particular))
    left = [dense.y_all - dense.X_all @ b for b in (particular + free @ z, dense.gls(sigma))]
    rise = left[0] @ inverse @ left[0] - left[1] @ inverse @ left[1]
    np.testing.assert_allclose(test.statistic, rise, rtol=1e-8)
    assert (test.df, test.distribution, test.df_denominator) == (3, "chi2", None)
    np.testing.assert_allclose(test.pvalue, 1 - scipy.stats.chi2(3).cdf(rise), atol=1e-12)

    f = made.wald_test((R, r), use_f=True)
    freedom = 40 * 4 - made.n_coefficients
    assert (f.df, f.distribution, f.df_denominator) == (3, "F", freedom)
    np.testing.assert_allclose(f.statistic, rise / 3, rtol=1e-8)
    np.testing.assert_allclose(f.pvalue, 1 - scipy.stats.f(3, freedom).cdf(rise / 3), atol=1e-12)


def test_one_restriction_is_the_square_of_t(found: Fit) -> None:
    for equation, regressor, t in zip(
        found.params["equation"].values, found.params["regressor"].values, found.tvalues.values, strict=True
    ):
        test = found.wald_test(f"{equation}:{regressor} = 0")
        np.testing.assert_allclose(test.statistic, t**2, rtol=1e-10)
        assert test.null == f"{equation}:{regressor} = 0"


def test_wald_does_not_depend_on_how_a_hypothesis_is_written(found: Fit) -> None:
    expected = found.wald_test("y0:x0 = y1:x0, y1:x0 = y2:x0")
    for written in (
        "y0:x0 = y1:x0 = y2:x0",
        ["1e6*y2:x0 = 1e6*y0:x0", "y1:x0 - y0:x0"],
        {"y0:x0 - y2:x0": 0, "y1:x0 - y2:x0": 0},
    ):
        np.testing.assert_allclose(found.wald_test(written).statistic, expected.statistic, rtol=1e-9)
    assert found.wald_test("*:x0 = y0:x0").df == 5


def test_wald_with_the_covariance_of_systemfit() -> None:
    """Kmenta, iterated: statistic from systemfit's own coefficients and vcov; restrictions of systemfit's tests."""
    reference, data = load("case02b_kmenta_system2")
    expected = reference["fits"]["sur_iterated_noDfCor"]
    b = np.array([v for each in expected["coefficients"].values() for v in each.values()])
    system = system_of(reference["equations"], data, reference["outcomes"])
    made = at(fit(system, rank=0), b, np.array(expected["resid_cov_used_for_weighting"]))
    V = np.array(expected["vcov"])
    texts = {
        "restr1": "demand:income = supply:trend",
        "restr2": "demand:income = supply:trend, supply:income - demand:price = 0.5",
    }
    for name, text in texts.items():
        R, q = np.array(reference["restrictions"][name]["R"]), np.array(reference["restrictions"][name]["q"])
        gap = R @ b - q
        np.testing.assert_allclose(made.wald_test(text).statistic, gap @ np.linalg.inv(R @ V @ R.T) @ gap, rtol=1e-8)


def test_a_saved_fit_tests_without_its_data(found: Fit, tmp_path: Path) -> None:
    found.to_zarr(tmp_path / "fit.zarr")
    back = Fit.from_zarr(tmp_path / "fit.zarr")
    assert back.system is None
    for call in (
        lambda f: f.wald_test("*:x1"), Fit.breusch_pagan, Fit.lr_diagonal, Fit.rank_test, Fit.mcelroy_r2,
    ):  # fmt: skip
        assert call(back) == call(found)


def test_a_streamed_fit_has_the_wald_test() -> None:
    streamed, whole = fit(DATA.system(dask_rows(50)), engine="stream"), fit(DATA.system())
    passes = streamed.n_passes
    np.testing.assert_allclose(streamed.wald_test("*:x1").statistic, whole.wald_test("*:x1").statistic, rtol=1e-5)
    assert streamed.n_passes == passes


def test_tests_that_a_covariance_cannot_bear() -> None:
    made = Restrictions(np.eye(3), np.zeros(3), ("a = 0", "b = 0", "c = 0"))
    flat = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    with pytest.raises(np.linalg.LinAlgError, match=r"the 3 restricted combinations has rank 2\. Test at most 2"):
        wald(made, np.ones(3), flat)
    with pytest.raises(np.linalg.LinAlgError, match="the estimate of 'b = 0' has no variance"):
        wald(made, np.ones(3), np.diag([1.0, 0.0, 1.0]))


def test_how_a_test_reads() -> None:
    test = HypothesisTest("Wald test", "a:x < b", 12.3456789, 2, 0.00209, "F", 100)
    assert str(test) == "Wald test\n  H0: a:x < b\n  F(2, 100) = 12.3457, p-value = 0.00209"
    assert "a:x &lt; b" in test._repr_html_()
    many = fit(DATA.system(), rank=1).wald_test([f"y{j}:x{i}" for j in range(4) for i in (0, 1)])
    assert many.null.endswith("y2:x1 = 0, ... (8 restrictions)")
    assert f"chi2(8) = {many.statistic:.6g}" in str(many)


# ---------------------------------------------------------------------------------------------- likelihood


@pytest.mark.parametrize("case", ["case05a_sim_k1_K6_N300", "case05c_sim_k2_K7_N250_scales"])
def test_likelihood_ratios_as_from_lavaan(case: str) -> None:
    reference, data = load(case)
    fits = reference["fits"]
    data["const"] = 1.0
    columns = [[names] if isinstance(names, str) else names for names in reference["equations"].values()]
    designs = [data[names].to_numpy(float) for names in columns]
    system = System.from_arrays(data[list(reference["equations"])].to_numpy(float), designs)
    made = fit(system, rank=1)

    def expect(test: HypothesisTest, small: str, large: str) -> None:
        ratio = 2 * (fits[large]["loglik_y_given_x"] - fits[small]["loglik_y_given_x"])
        df = fits[large]["n_free_parameters"] - fits[small]["n_free_parameters"]
        np.testing.assert_allclose(test.statistic, ratio, rtol=1e-8)
        assert test.df == df
        np.testing.assert_allclose(test.pvalue, scipy.stats.chi2(df).sf(ratio), rtol=1e-6)

    expect(made.lr_diagonal(), "diagonal", "factor_k1")
    expect(made.rank_test(), "factor_k1", "full")
    expect(made.lr_test(fit(system, rank=0)), "diagonal", "factor_k1")
    expect(fit(system, rank=0).lr_test(made), "diagonal", "factor_k1")


@pytest.mark.parametrize(("case", "k"), [("case04a_bfi25", 2), ("case04a_bfi25", 4), ("case04c_harman74", 4)])
def test_the_rank_test_of_factor_analysis_is_factanals(case: str, k: int) -> None:
    """factanal's STATISTIC is (N - 1 - (2 K + 5) / 6 - 2 k / 3) times its discrepancy."""
    reference, data = load(case)
    n, K = reference["N"], reference["K"]
    rows = data.to_numpy(float)
    if case == "case04c_harman74":  # a correlation matrix: any rows that have it
        noise = np.random.default_rng(1).normal(size=(n, K))
        white = np.linalg.qr(noise - noise.mean(axis=0))[0] * np.sqrt(n)
        rows = white @ np.linalg.cholesky(rows).T
    made = fit(System.from_arrays(rows, np.ones((n, 1))), rank=k)
    discrepancy = reference["fits"][f"k{k}"]["discrepancy"]
    plain, corrected = made.rank_test(), made.rank_test(bartlett=True)
    assert plain.df == corrected.df == ((K - k) ** 2 - K - k) // 2
    np.testing.assert_allclose(plain.statistic, n * discrepancy, rtol=1e-7)
    np.testing.assert_allclose(corrected.statistic, (n - 1 - (2 * K + 5) / 6 - 2 * k / 3) * discrepancy, rtol=1e-7)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_unrestricted_likelihood_is_the_top_of_a_dense_search(kind: str, weighted: bool) -> None:
    data = simulate(kind, n=60, K=3, k=1, weighted=weighted, unit=50.0)
    dense, compressed = data.dense(), data.system().compress().rows

    def profile(b: np.ndarray) -> float:
        return dense.nll(b, dense.S(b)) * dense.N

    b = dense.ols
    for _ in range(300):  # GLS, Sigma, GLS, ...: Oberhofer & Kmenta (1974)
        b = dense.gls(dense.S(b))
    found = full_loglik(compressed)
    np.testing.assert_allclose(found, -profile(b), rtol=1e-11)
    for step in np.random.default_rng(0).normal(size=(5, len(b))):
        assert profile(b + 1e-3 * step * np.abs(b)) > -found


SYSTEMFIT = ["case01c_grunfeld_correct5", "case02b_kmenta_system2", "case03c_fringe_same_regressors"]


@pytest.mark.parametrize("case", SYSTEMFIT)
def test_the_unrestricted_likelihood_is_that_of_iterated_systemfit(case: str) -> None:
    """Grunfeld takes systemfit 2557 iterations."""
    reference, data = load(case)
    data["const"] = 1.0
    designs = [data[names].to_numpy(float) for names in reference["equations"].values()]
    outcomes = reference.get("outcomes") or {name: name for name in reference["equations"]}
    system = System.from_arrays(data[list(outcomes.values())].to_numpy(float), designs)
    expected = reference["fits"]["sur_iterated_noDfCor"]["loglik"]
    assert abs(full_loglik(system.compress().rows) - expected) < 1e-8


def test_breusch_pagan_as_in_linearmodels(found: Fit) -> None:
    for kind in ("shared", "mixed", "own"):  # each has an intercept in every equation
        data = simulate(kind, n=70)
        equations = {f"y{j}": {"dependent": data.Y[:, [j]], "exog": X} for j, X in enumerate(data.Xs)}
        expected = SUR(equations).fit(method="ols").breusch_pagan()
        test = fit(data.system(), rank=1).breusch_pagan()
        np.testing.assert_allclose(test.statistic, expected.stat, rtol=1e-9)
        np.testing.assert_allclose(test.pvalue, expected.pval, rtol=1e-6, atol=1e-300)
        assert test.df == expected.df == 15


def test_breusch_pagan_with_weights() -> None:
    data = simulate("mixed", n=70, weighted=True)
    S = data.dense().S(data.dense().ols)
    r = S / np.sqrt(np.outer(np.diag(S), np.diag(S)))
    expected = 70 * sum(r[i, j] ** 2 for i in range(6) for j in range(i))
    for penalty in (0.0, 5.0):  # least squares, whatever the fit
        test = fit(data.system(), rank=1, lam_B=penalty).breusch_pagan()
        np.testing.assert_allclose(test.statistic, expected, rtol=1e-9)


# ---------------------------------------------------------------------------------------------- refusals


STREAMED = "needs the compressed rows, which a streamed fit does not keep. Fit with engine='compress'"


@pytest.mark.parametrize("name", ["breusch_pagan", "lr_diagonal", "rank_test", "mcelroy_r2", "system_r2"])
def test_what_a_streamed_fit_cannot_test(name: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{name} {STREAMED}")):
        getattr(fit(DATA.system(), engine="stream", rank=1), name)()


def test_likelihoods_that_cannot_be_compared(found: Fit) -> None:
    penalised = fit(DATA.system(), lam_B=2.0)
    for call in (lambda: found.lr_test(penalised), lambda: penalised.lr_test(found)):
        with pytest.raises(ValueError, match=r"lr_test compares maximised .* is penalised \(lam_B = 2, lam_F = 0\)"):
            call()
    for name in ("lr_diagonal", "rank_test"):
        with pytest.raises(ValueError, match=f"{name} compares maximised likelihoods.*lam_F = 0.5"):
            getattr(fit(DATA.system(), lam_F=0.5), name)()
    with pytest.raises(ValueError, match="same rows; these have 110 and 120 rows"):
        found.lr_test(fit(DATA.take(slice(110)).system(), rank=1))
    with pytest.raises(ValueError, match="same equations; only one of the two has a, y0"):
        found.lr_test(fit(DATA.system(equations=["a", "y1", "y2", "y3", "y4", "y5"]), rank=1))
    with pytest.raises(ValueError, match=f"both have {found.n_parameters} parameters"):
        found.lr_test(found)
    other = dataclasses.replace(DATA, Y=DATA.Y + np.array([0, 0, 1e-3, 0, 0, 0]))
    with pytest.raises(ValueError, match="same data; the mean of equation 'y2' is"):
        found.lr_test(fit(other.system(), rank=1))
    worse = remade(fit(DATA.system(), rank=1), loglik=found.loglik + 1.0)
    with pytest.raises(ValueError, match="Likelihood ratio test: the larger model has the lower log-likelihood"):
        found.lr_test(worse)
    assert likelihood_ratio(-1e6, -1e6 - 1e-4, 2, name="n", null="h").statistic == 0.0


def test_order_of_equations_is_no_difference_of_data(found: Fit) -> None:
    order = [3, 0, 5, 1, 4, 2]
    turned = Data("mixed", DATA.Y[:, order], DATA.X, tuple(DATA.columns[j] for j in order))
    small = fit(turned.system(equations=[f"y{j}" for j in order]), rank=1)
    expected = found.lr_test(fit(DATA.system(), rank=1)).statistic
    np.testing.assert_allclose(found.lr_test(small).statistic, expected, rtol=1e-6)


def test_systems_with_nothing_to_test() -> None:
    one = fit(simulate("shared", n=50, K=1, k=1).system(), rank=0)
    for name in ("breusch_pagan", "lr_diagonal"):
        with pytest.raises(ValueError, match=f"{name} tests correlations between equations; this system has one"):
            getattr(one, name)()
    with pytest.raises(ValueError, match="lr_diagonal compares a fitted Sigma with a diagonal one, and this one is"):
        fit(DATA.system(), rank=0).lr_diagonal()
    three = fit(simulate("shared", n=50, K=3, k=1).system(), rank=1)
    with pytest.raises(ValueError, match="1 factors leave a 3 x 3 Sigma unrestricted"):
        three.rank_test()


@pytest.mark.filterwarnings("ignore:LowRankGLS. a constant response or a perfect fit")
def test_an_equation_that_is_fitted_exactly_is_named() -> None:
    Y = DATA.Y.copy()
    Y[:, 3] = DATA.Xs[3] @ np.arange(1, DATA.Xs[3].shape[1] + 1)
    exact = fit(dataclasses.replace(DATA, Y=Y).system(), rank=1)
    with pytest.raises(ValueError, match="breusch_pagan needs residuals that vary; equation 'y3' is fitted exactly"):
        exact.breusch_pagan()


def test_a_sigma_that_has_no_maximum_likelihood() -> None:
    short = simulate("own", n=16, K=6, k=1)  # 13 columns beside each other are distinct, and 6 responses
    with pytest.raises(ValueError, match="no maximum likelihood fit with covariance='full' exists: with 16 rows"):
        fit(short.system(), rank=1).rank_test()
    data = simulate("own", n=80, K=4, k=1)
    twice = dataclasses.replace(data, Y=np.column_stack([data.Y[:, :3], data.Y[:, 0] + data.Y[:, 1]]))
    with pytest.raises(ValueError, match="responses of 'y0', 'y1', 'y3' is an exact combination of their regressors"):
        full_loglik(twice.system().compress().rows)
