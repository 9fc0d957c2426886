"""One hypothesis in each equation: the numbers of dense formulas, of every kind of fit, and what is refused."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import scipy
import xarray as xr
from statsmodels.stats.multitest import multipletests

from lrgls_dask import Fit, FitWarning, LowRankGLS, MultipleTests, System, TimeVarying
from support.incomplete import with_holes
from support.systems import Data, simulate
from support.unusable import BAD, NAMES, Spoiled

NULL = "*:x1 = 0"


@cache
def made(kind: str, K: int = 12, **options: Any) -> tuple[Data, Fit]:
    data = simulate(kind, n=150, K=K)
    return data, LowRankGLS(2, **options).fit(data.system()).result_


def first_slope(fit: Fit, name: str = "x1") -> np.ndarray:
    """Positions of the coefficients of that name, one an equation."""
    return np.flatnonzero(fit.params["regressor"].values == name)


def check_table(found: MultipleTests, fit: Fit, at: np.ndarray, null: float = 0.0) -> None:
    """Estimates, errors, t and p are those of the fit itself."""
    table = found.table
    assert list(table.index) == list(fit.params["equation"].values[at])
    np.testing.assert_allclose(table["estimate"], fit.params.values[at], rtol=1e-12)
    np.testing.assert_allclose(table["std_error"], fit.std_errors.values[at], rtol=1e-8)
    np.testing.assert_allclose(
        table["statistic"], (fit.params.values[at] - null) / fit.std_errors.values[at], rtol=1e-8
    )
    if null == 0.0:
        np.testing.assert_allclose(table["p_value"], fit.pvalues.values[at], rtol=1e-6)


# ---------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("kind", ["shared", "mixed", "own"])
@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_the_table_is_that_of_the_coefficients_with_adjusted_pvalues(kind: str, engine: str) -> None:
    _, fit = made(kind, engine=engine)
    name = "x0_1" if kind == "own" else "x1"
    hypotheses = [f"{e}:{t} = 0" for e, t in zip(fit.equations, [terms[1] for terms in fit.design.terms], strict=True)]
    given: Any = NULL if kind != "own" else hypotheses
    at = fit.design.offsets[:-1] + 1
    found = fit.across(given, "bh")
    check_table(found, fit, at)
    assert name
    p = fit.pvalues.values[at]
    np.testing.assert_allclose(found.table["p_adjusted"], multipletests(p, method="fdr_bh")[1], rtol=1e-6)
    assert found.n_rejected == int(np.sum(found.table["p_adjusted"] <= 0.05)) == len(found.rejected)
    assert found.share_true_nulls == min(1.0, 2 * np.mean(p > 0.5))
    with pytest.raises(ValueError, match="read-only"):
        found.columns["p_value"][0] = 0.0


@pytest.mark.parametrize("cov", ["classical", "robust", "hac", "cluster"])
def test_bands_are_those_of_draws_from_the_dense_joint_covariance(cov: str) -> None:
    data, fit = made("mixed")
    options = {"groups": np.arange(150) // 5} if cov == "cluster" else {}
    with pytest.warns(FitWarning, match="groups are fewer") if cov == "cluster" else pytest.MonkeyPatch.context():
        fit = fit.with_cov(cov, **options)
    at = first_slope(fit)
    V = fit.cov().values[np.ix_(at, at)]
    scale = np.sqrt(np.diagonal(V))
    values, vectors = np.linalg.eigh(V / np.outer(scale, scale))
    root = vectors * np.sqrt(np.maximum(values, 0))
    largest = np.abs(np.random.default_rng(1).normal(size=(40_000, len(at))) @ root.T).max(axis=1)
    critical = np.quantile(largest, 0.95)
    found = fit.across(NULL, "sup-t")
    each = 2 * scipy.stats.norm.sf(critical)
    assert 1 - found.pointwise_level == pytest.approx(each, rel=0.09)
    half = scipy.stats.t.isf((1 - found.pointwise_level) / 2, fit.reference.freedom) * found.table["std_error"]
    np.testing.assert_allclose(found.table["conf_high"] - found.table["estimate"], half, rtol=1e-10)
    np.testing.assert_allclose(found.table["estimate"] - found.table["conf_low"], half, rtol=1e-10)
    least = 2 * scipy.stats.norm.sf(largest)
    direct = [np.mean(least <= p) for p in found.table["p_value"]]
    np.testing.assert_allclose(found.table["p_adjusted"], direct, atol=0.02)
    assert found.global_pvalue == pytest.approx(found.table["p_adjusted"].min(), abs=1e-12)
    outside = (found.table["conf_low"] > 0) | (found.table["conf_high"] < 0)
    np.testing.assert_array_equal(outside, found.table["rejected"])
    assert found.cov_kind == cov and data.kind == "mixed"


def test_bands_that_take_no_joint_covariance() -> None:
    _, fit = made("shared")
    sup, bonferroni, pointwise = (fit.across(NULL, bands=b).table for b in ("sup-t", "bonferroni", "pointwise"))
    width = [np.asarray(t["conf_high"] - t["conf_low"]) for t in (sup, bonferroni, pointwise)]
    assert np.all(width[2] < width[0]) and np.all(width[0] < width[1])
    at = first_slope(fit)
    np.testing.assert_allclose(pointwise["conf_low"], fit.conf_int().values[at, 0], rtol=1e-10)
    expected = scipy.stats.t.isf(0.05 / 24, 146) / scipy.stats.t.isf(0.025, 146)
    np.testing.assert_allclose(width[1] / width[2], expected, rtol=1e-10)
    assert "conf_low" not in fit.across(NULL, bands=None).table
    assert fit.across(NULL, bands=None).global_pvalue == pytest.approx(min(1, 12 * pointwise["p_value"].min()))


@pytest.mark.parametrize("use", [None, "t", "normal", "system-t"])
def test_several_restrictions_an_equation_are_wald_tests(use: Any) -> None:
    _, fit = made("shared")
    fit = fit.with_cov(use=use)
    for bands in ("sup-t", None):
        found = fit.across(["*:x1 = 0", "*:x2 - x3 = 0.5"], "by", bands=bands)
        tests = [fit.wald_test([f"{e}:x1 = 0", f"{e}:x2 - {e}:x3 = 0.5"]) for e in fit.equations]
        np.testing.assert_allclose(found.table["statistic"], [test.statistic for test in tests], rtol=1e-8)
        np.testing.assert_allclose(found.table["p_value"], [test.pvalue for test in tests], rtol=1e-7)
        assert "estimate" not in found.table
    uneven = fit.across(["*:x1 = 0", "y1:x2 = 0"], bands="sup-t")
    assert list(uneven.table["df"][:3]) == [1, 2, 1]
    alone = fit.wald_test("y0:x1 = 0"), fit.wald_test(["y1:x1 = 0", "y1:x2 = 0"])
    np.testing.assert_allclose(uneven.table["p_value"][:2], [test.pvalue for test in alone], rtol=1e-7)


def test_a_combination_within_each_equation_and_a_number_to_compare_with() -> None:
    _, fit = made("shared")
    found = fit.across("*:x1 - x2 = 1")
    same = fit.across("*:x1 - *:x2 = 1")
    np.testing.assert_array_equal(found.table, same.table)
    one = fit.wald_test("y3:x1 - y3:x2 = 1", use_f=True)
    assert found.table.loc["y3", "statistic"] ** 2 == pytest.approx(one.statistic)
    b = fit.params.values.reshape(12, 4)
    np.testing.assert_allclose(found.table["estimate"], b[:, 1] - b[:, 2], rtol=1e-12)


def test_factors_are_taken_out_of_the_statistics() -> None:
    rng = np.random.default_rng(3)
    N, K = 120, 80
    X = np.column_stack([np.ones(N), rng.normal(size=(N, 2))])
    F = rng.normal(size=(K, 2))
    Z, e = rng.normal(size=(N, 2)), rng.normal(size=(N, K))
    effect = np.where(np.arange(K) < 8, 0.5, 0.0)
    Y = np.outer(X[:, 1], effect) + Z @ F.T + e
    fit = LowRankGLS(2).fit(System.from_arrays(Y, X)).result_
    found = fit.across(NULL, "factor-adjusted")
    realised = F @ (np.linalg.pinv(X)[1] @ Z)
    np.testing.assert_allclose(found.table["common_part"], realised, atol=0.12)
    assert np.corrcoef(found.table["common_part"], realised)[0, 1] > 0.97
    own = (np.linalg.pinv(X)[1] @ e + effect) / np.sqrt(np.linalg.inv(X.T @ X)[1, 1])
    assert np.corrcoef(found.table["own_statistic"], own)[0, 1] > 0.95
    assert found.table["rejected"][:8].sum() > fit.across(NULL, "bh").table["rejected"][:8].sum()
    assert fit.across(NULL, "factor-adjusted", moderated=True).n_rejected >= 6
    robust = fit.with_cov("robust").across(NULL, "factor-adjusted")
    assert np.corrcoef(robust.table["own_statistic"], found.table["own_statistic"])[0, 1] > 0.9


def test_moderated_statistics_are_limmas() -> None:
    data, plain = made("shared")
    b = np.linalg.lstsq(data.X, data.Y, rcond=None)[0]
    s2 = np.sum((data.Y - data.X @ b) ** 2, axis=0) / 146
    v = np.linalg.inv(data.X.T @ data.X)[1, 1]
    e = np.log(s2) - scipy.special.digamma(73) + np.log(73)
    target = np.var(e, ddof=1) - scipy.special.polygamma(1, 73)
    d0 = 2 * scipy.optimize.brentq(lambda y: scipy.special.polygamma(1, y) - target, 1e-6, 1e8)
    s02 = np.exp(e.mean() + scipy.special.digamma(d0 / 2) - np.log(d0 / 2))
    posterior = (d0 * s02 + 146 * s2) / (d0 + 146)
    t = b[1] / np.sqrt(posterior * v)
    for fit in (plain, plain.with_cov("classical", debiased=True), made("shared", debiased=True)[1]):
        found = fit.across(NULL, moderated=True)
        np.testing.assert_allclose(found.table["statistic"], t, rtol=1e-6)
        np.testing.assert_allclose(found.table["p_value"], 2 * scipy.stats.t.sf(np.abs(t), 146 + d0), rtol=1e-5)
        assert (found.prior_df, found.prior_variance) == (pytest.approx(d0, rel=1e-6), pytest.approx(s02, rel=1e-6))
        joint = fit.across(["*:x1 = 0", "*:x2 = 0"], moderated=True, bands=None).table.loc["y2"]
        V = np.linalg.inv(data.X.T @ data.X)[1:3, 1:3] * posterior[2]
        assert joint["statistic"] == pytest.approx(b[1:3, 2] @ np.linalg.solve(V, b[1:3, 2]) / 2, rel=1e-6)
        assert joint["p_value"] == pytest.approx(scipy.stats.f.sf(joint["statistic"], 2, 146 + d0), rel=1e-5)


# ---------------------------------------------------------------------------------- every kind of fit


def check_answers(fit: Any, at: np.ndarray, null: str = NULL) -> MultipleTests:
    found = fit.across(null, "sup-t")
    check_table(found, fit, at)
    assert 0 < found.global_pvalue <= 1
    assert "<table>" in found._repr_html_() and str(found).count("\n") > 10
    return found


def test_fits_with_holes_ridge_weights_and_without_factors() -> None:
    data = with_holes(simulate("mixed", n=150), n_patterns=5)
    holes = LowRankGLS(1, missing="em").fit(data.system()).result_
    check_answers(holes, first_slope(holes))
    assert np.isfinite(holes.across(NULL, "holm", moderated=True).table["p_adjusted"]).all()
    for options in ({"lam_B": 3.0}, {"algorithm": "ols"}, {"covariance": "diagonal"}, {"covariance": "full"}):
        model = LowRankGLS(**({} if "covariance" in options else {"rank": 2}) | options)  # type: ignore[arg-type]
        fit = model.fit(simulate("mixed", n=150, weighted=True).system()).result_
        check_answers(fit, first_slope(fit))


def test_labels_are_told_apart_and_its_page_is_of_the_one_look() -> None:
    names = [f"one long label of every equation, number {j}" for j in range(6)]
    found = LowRankGLS(1).fit(simulate("shared", n=120).system(equations=names)).result_.across("*:x1 = 0")
    lines = [line for line in str(found).splitlines() if line.startswith("one long")]
    assert len({line[:19] for line in lines}) == 6
    assert found._repr_html_().startswith('<div class="lrgls"><style>') and f'<th scope="row">{names[0]}' in (
        found._repr_html_()
    )
    grid = xr.Dataset(
        {"t": (("n", "lat", "lon"), simulate("shared", n=120).Y.reshape(120, 2, 3)), "x": ("n", np.arange(120.0))},
        coords={"lat": [4.5, 5.5], "lon": [1, 2, 3]},
    )
    of_grid = LowRankGLS(0).fit(System.from_xarray(grid, "t", ["x"], obs="n", equation=("lat", "lon"))).result_
    text = str(of_grid.across("*:x = 0"))
    assert "\nlat, lon " in text and "\n5.5, 3 " in text and "(" not in text.split("lat, lon")[1]


def test_skipped_equations_have_nan_and_do_not_count() -> None:
    spoiled = Spoiled()
    fit = LowRankGLS(1, unusable="skip").fit(spoiled.system()).result_
    found = fit.across("*:x = 0", "bh", moderated=True)
    assert list(found.table.index) == NAMES
    assert list(found.table.index[found.table["p_value"].isna()]) == list(BAD)
    assert found.n_tests == 5 and not found.table.loc[list(BAD), "rejected"].any()
    good = found.table.drop(index=list(BAD))
    np.testing.assert_allclose(good["p_adjusted"], multipletests(good["p_value"], method="fdr_bh")[1], rtol=1e-12)
    assert "5, 3 skipped" in str(found)


def test_a_fit_of_segments_and_one_from_a_file(tmp_path: Any) -> None:
    data = simulate("shared", n=240)
    segments = np.repeat(np.arange(4), 60)
    varying: Any = (
        LowRankGLS(covariance=TimeVarying(rank=1, segments=segments, bandwidth=1.0)).fit(data.system()).result_
    )
    check_answers(varying, first_slope(varying))
    with pytest.raises(ValueError, match=r"one for each segment\. Use moderated=False"):
        varying.across(NULL, moderated=True)
    _, fit = made("shared")
    fit.to_zarr(tmp_path / "fit.zarr")
    again = Fit.from_zarr(tmp_path / "fit.zarr")
    for options in ({"method": "factor-adjusted"}, {"moderated": True}):
        np.testing.assert_array_equal(again.across(NULL, **options).table, fit.across(NULL, **options).table)


def test_equations_on_a_grid_come_back_on_it() -> None:
    rng = np.random.default_rng(0)
    trend, y = np.arange(60.0), rng.normal(size=(60, 3, 4))
    ds = xr.Dataset(
        {"t2m": (("year", "lat", "lon"), y), "const": ("year", np.ones(60)), "trend": ("year", trend)},
        {"lat": [10.0, 20.0, 30.0], "lon": [0.0, 1.0, 2.0, 3.0]},
    )
    system = System.from_xarray(ds, y="t2m", x=["const", "trend"], obs="year", equation=("lat", "lon"))
    found = LowRankGLS(1).fit(system).result_.across("*:trend = 0", "bh")
    maps = found.to_dataset()
    assert maps["p_adjusted"].dims == ("lat", "lon") and maps.attrs["method"] == "bh"
    np.testing.assert_array_equal(maps["estimate"].values.ravel(), found.table["estimate"])


def test_the_same_seed_gives_the_same_bands() -> None:
    _, fit = made("shared")
    one, two, other = (fit.across(NULL, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.table, two.table)
    assert one.pointwise_level != other.pointwise_level
    assert one.pointwise_level == pytest.approx(other.pointwise_level, abs=1e-3)


# ---------------------------------------------------------------------------------- what is refused


LEVELS: tuple[tuple[float, Any], ...] = ((0.95, "sup-t"), (0.9999, "sup-t"), (0.999999, "bonferroni"))
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "method": ({"method": "bonferroni"}, "method must be 'holm' or"),
    "bands": ({"bands": "wide"}, "bands must be 'sup-t' or"),
    "level": ({"level": 95}, "level is a coverage between 0 and 1"),
    "seed": ({"seed": -1}, "seed must be a whole number"),
    "tied": ({"hypothesis": "y0:x1 = y1:x1"}, "about several equations.*Use wald_test"),
    "joint": ({"hypothesis": ["*:x1 = 0", "*:x2 = 0"], "method": "factor-adjusted"}, "one restriction per equation"),
    "few": ({"hypothesis": ["y0:x1 = 0", "y1:x1 = 0"], "method": "factor-adjusted"}, "there are 2. Use method='holm'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_asked(case: str) -> None:
    given, said = REFUSED[case]
    _, fit = made("shared")
    with pytest.raises((ValueError, TypeError), match=said):
        fit.across(**({"hypothesis": NULL} | given))
    wide = {"factor-adjusted": "has none. Use method='bh'"}
    plain = LowRankGLS(0).fit(simulate("shared", n=150).system()).result_
    for method, why in wide.items():
        with pytest.raises(ValueError, match=why):
            plain.across(NULL, method)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["shared", "mixed"])
def test_of_two_groups_one_restriction_an_equation_can_be_tested(kind: str) -> None:
    _, fit = made(kind)
    with pytest.warns(FitWarning, match="groups are fewer"):
        fit = fit.with_cov("cluster", groups=np.arange(150) // 75)
    for hypothesis, size in (("y0:*=0", 4 if kind == "shared" else 3), (["*:x1=0", "*:x2=0"], 2)):
        for options in ({"bands": None}, {}, {"method": "sup-t"}):
            said = f"the {size} restricted combinations of equation 'y0' has rank 1. Test at most 1 of them"
            with pytest.raises(np.linalg.LinAlgError, match=said):
                fit.across(hypothesis, **options)  # type: ignore[arg-type]
    found = fit.across(["y0:x1=0", "y1:x2=0"], bands=None)
    assert found.table["statistic"].notna().all()


def test_a_level_beyond_the_draws_is_refused_where_it_would_be_read_off_them() -> None:
    _, fit = made("shared")
    with pytest.raises(ValueError, match=r"level=0.99999 is more than 10,000 draws.*Use bands='bonferroni'\."):
        fit.across(NULL, level=0.99999)
    with pytest.raises(ValueError, match=r"Use method='holm' with bands='bonferroni'\."):
        fit.across(NULL, "sup-t", level=0.99999)
    ninety, last, wide = (fit.across(NULL, level=level, bands=bands).table for level, bands in LEVELS)
    for narrow, wider in ((ninety, last), (last, wide)):
        assert np.all(wider["conf_low"] < narrow["conf_low"]) and np.all(wider["conf_high"] > narrow["conf_high"])
    assert fit.across(["*:x1 = 0", "*:x2 = 0"], level=0.99999).level == 0.99999  # which has no bands


def test_other_errors_are_not_moderated_and_restrictions_that_decide_are_named() -> None:
    _, fit = made("shared")
    with pytest.raises(ValueError, match=r"Use with_cov\('classical'\)"):
        fit.with_cov("robust").across(NULL, moderated=True)
    held = (
        LowRankGLS(2, restrictions="y1:x1 = 0.2, y2:x1 = y3:x1").fit(simulate("shared", n=150, K=12).system()).result_
    )
    with pytest.raises(ValueError, match="'y1:x1 = 0' cannot hold"):
        held.across(NULL)
    others = [f"y{j}:x1 = 0" for j in range(12) if j != 1]
    assert "p_value" in held.across("*:x3 = 0").table
    found = held.across(others, "sup-t")
    check_table(found, held, first_slope(held)[np.arange(12) != 1])
    assert found.table.loc["y2", "estimate"] == pytest.approx(found.table.loc["y3", "estimate"])
