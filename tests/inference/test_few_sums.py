"""Sandwiches of fewer rows, groups or times than coefficients: the same covariances, kept as one row for each."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lrgls_dask import Fit, FitWarning, LowRankGLS, System
from lrgls_dask.inference import sandwich
from lrgls_dask.inference.structured import StructuredCov
from support.fits import fit
from support.systems import Data, dask_rows, simulate

SINGULAR = r"ignore:clustered covariance. \d+ groups are fewer"
pytestmark = [
    pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic variance on d_floor"),
    pytest.mark.filterwarnings(SINGULAR),
]
GROUPS = np.arange(36) // 3
KINDS: dict[str, dict[str, Any]] = {
    "robust": {},
    "cluster": {"groups": GROUPS},
    "hac": {},
    "driscoll-kraay": {"times": GROUPS},
}
OPTIONS = [
    ("robust", {}),
    ("robust", {"correction": "HC1"}),
    ("cluster", {}),
    ("cluster", {"correction": "CR1"}),
    ("hac", {}),
    ("hac", {"bandwidth": 3.0, "kernel": "parzen"}),
    ("driscoll-kraay", {}),
    ("driscoll-kraay", {"bandwidth": 2.0}),
]


def short(kind: str, *, weighted: bool = False) -> Data:
    data = simulate(kind, n=36, K=9, k=1, weighted=weighted)
    if weighted:
        weights = data.weights.copy()
        weights[[5, 20]] = 0.0
        return replace(data, weights=weights)
    return data


@pytest.mark.parametrize(("kind", "options"), OPTIONS)
@pytest.mark.parametrize("way", ["shared", "own", "mixed", "weights", "ridge", "restrictions", "holes", "stream"])
def test_few_sums_say_what_products_say(
    way: str, kind: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    data = short(way if way in ("shared", "own") else "mixed", weighted=way == "weights")
    if way == "ridge":
        given["lam_B"] = 5.0
    if way == "restrictions":
        given["restrictions"] = ["y0:x0 = y1:x0", "y3:x1 = 0.5"]
    if way == "stream":
        given["engine"] = "stream"
    if way == "holes":
        Y = data.Y.copy()
        Y[::7, 1] = np.nan
        data, given["missing"] = replace(data, Y=Y), "em"
    made = fit(data.system(dask_rows(11)), rank=1, rel_tol=1e-9, max_sweeps=60, **given)
    asked = KINDS[kind] | options
    wanted = made.with_cov(kind, **asked)
    assert isinstance(wanted.behind_errors.values, np.ndarray)
    monkeypatch.setattr(sandwich, "PAYS", 0)
    found = made.with_cov(kind, **asked)
    assert isinstance(found.behind_errors.values, StructuredCov)
    assert found.cov_note == wanted.cov_note
    assert found.behind_errors.n_groups == wanted.behind_errors.n_groups
    scale = np.abs(wanted.cov().values).max()
    np.testing.assert_allclose(found.cov().values, wanted.cov().values, rtol=1e-9, atol=1e-11 * scale)
    np.testing.assert_allclose(found.std_errors, wanted.std_errors, rtol=1e-8)
    block = found.cov(equation=made.equations[4]).values
    np.testing.assert_allclose(block, wanted.cov(equation=made.equations[4]).values, rtol=1e-8, atol=1e-10 * scale)
    hypothesis = f"{made.equations[4]}:* = 0"
    np.testing.assert_allclose(found.wald_test(hypothesis).statistic, wanted.wald_test(hypothesis).statistic, rtol=1e-7)


@pytest.mark.parametrize("correction", ["HC2", "HC3"])
def test_leverages_enlarge_residuals_of_single_rows(correction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = fit(short("own").system(), rank=1, algorithm="ols")
    wanted = made.cov("robust", correction=correction).values
    monkeypatch.setattr(sandwich, "PAYS", 0)
    np.testing.assert_allclose(made.cov("robust", correction=correction), wanted, rtol=1e-9, atol=1e-14)


def test_several_kinds_of_groups_are_still_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = fit(short("mixed").system(), rank=1)
    groups = [GROUPS, np.arange(36) % 6]
    with pytest.warns(FitWarning, match="clustered"):
        wanted = made.cov("cluster", groups=groups).values
    monkeypatch.setattr(sandwich, "PAYS", 0)
    with pytest.warns(FitWarning, match="clustered"):
        np.testing.assert_allclose(made.cov("cluster", groups=groups), wanted, rtol=1e-9)


def test_one_group_is_refused_and_few_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandwich, "PAYS", 0)
    made = fit(short("shared").system(), rank=1)
    with pytest.warns(FitWarning, match="12 groups are fewer than 36 coefficients"):
        made.with_cov("cluster", groups=GROUPS)
    halves = (np.arange(36) >= 30).astype(int)
    few = fit(replace(short("shared"), weights=1.0 - halves).system(), rank=1)
    with pytest.raises(ValueError, match="of 2 groups, 1 has"):
        few.with_cov("cluster", groups=halves)
    with pytest.raises(ValueError, match="of 2 times, 1 has"):
        few.with_cov("driscoll-kraay", times=halves)


@pytest.fixture(scope="module")
def wide() -> Fit:
    rng = np.random.default_rng(0)
    X = np.column_stack([np.ones(90), rng.normal(size=(90, 4))])
    Y = rng.normal(size=(90, 2)) @ rng.normal(size=(2, 600)) + rng.normal(size=(90, 600))
    return LowRankGLS(2, algorithm="fgls").fit(System.from_arrays(Y, X)).result_


@pytest.mark.parametrize("kind", ["robust", "cluster", "hac", "driscoll-kraay"])
def test_nothing_of_all_pairs_of_coefficients(kind: str, wide: Fit, tmp_path: Any) -> None:
    groups = np.arange(90) // 3
    options: dict[str, Any] = {"cluster": {"groups": groups}, "driscoll-kraay": {"times": groups}}.get(kind, {})
    P = wide.n_coefficients
    tracemalloc.start()
    made = wide.with_cov(kind, **options)
    errors, summary = made.std_errors.values, made.summary()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < P * P * 8 / 2.5  # of P = 3,000 rows and labels are a large part
    assert kind in str(summary)
    residuals = wide.residuals(wide.system).values
    x = wide.system.rows.x[0].array
    influence = x @ np.linalg.inv(x.T @ x)
    if kind == "robust":
        wanted = np.sqrt((influence**2).T @ residuals**2).T.ravel()
        np.testing.assert_allclose(errors, wanted, rtol=1e-8)
    made.to_zarr(tmp_path / "fit")
    again = Fit.from_zarr(tmp_path / "fit")
    np.testing.assert_array_equal(again.std_errors, made.std_errors)
    assert again.cov_kind == kind


def test_more_than_a_covariance_of_all_may_have(wide: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    made = wide.with_cov("robust")
    for module in ("results.cov.kind", "inference.sandwich", "inference.bread", "inference.classical"):
        monkeypatch.setattr(f"lrgls_dask.{module}.MAX_COEFFICIENTS", 1_000)
    found = wide.with_cov("robust")
    np.testing.assert_array_equal(found.std_errors, made.std_errors)
    with pytest.raises(ValueError, match=r"limited to 1,000\. Ask for one equation at a time"):
        found.cov()
    assert found.cov(equation=wide.equations[3]).shape == (5, 5)
    classical = wide.with_cov("classical")
    np.testing.assert_allclose(classical.std_errors, wide.std_errors, rtol=1e-9)


def without_pairs(monkeypatch: pytest.MonkeyPatch, *, dual: bool) -> None:
    """As if pairs of coefficients had no room, and rows were more than coefficients.  dual : those that factors tie."""
    for module in ("results.cov.kind", "inference.sandwich", "inference.bread", "inference.classical"):
        monkeypatch.setattr(f"lrgls_dask.{module}.MAX_COEFFICIENTS", 5)
    monkeypatch.setattr(sandwich, "PAYS", 10**6)
    if dual:
        monkeypatch.setattr("lrgls_dask.inference.bread.dual_pays", lambda *_: True)


@pytest.mark.parametrize(
    ("way", "dual", "kind"),
    [
        *((way, False, "robust") for way in ("shared", "own", "ridge", "restrictions", "stream")),
        *((way, True, "robust") for way in ("own", "ridge", "restrictions")),
        *((way, True, "cluster") for way in ("mixed", "weights")),
        ("weights", False, "cluster"),
    ],
)
def test_blocks_where_pairs_have_no_room(way: str, dual: bool, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {"engine": "stream"} if way == "stream" else {}
    data = short(way if way in ("shared", "own") else "mixed", weighted=way == "weights")
    if way == "ridge":
        given["lam_B"] = 5.0
    if way == "restrictions":
        given["restrictions"] = ["y0:x0 = y1:x0", "y3:x1 = 0.5"]
    made = fit(data.system(dask_rows(11)), rank=1, rel_tol=1e-9, max_sweeps=60, **given)
    asked = KINDS[kind] | {"correction": "HC1"}
    wanted = made.with_cov(kind, **asked)
    without_pairs(monkeypatch, dual=dual)
    if way == "restrictions" and not dual:
        with pytest.raises(ValueError, match="estimates under restrictions are limited to 5"):
            made.with_cov(kind, **asked)
        return
    found = made.with_cov(kind, **asked)
    np.testing.assert_allclose(found.std_errors, wanted.std_errors, rtol=1e-8)
    assert (found.cov_note, found.behind_errors.n_groups) == (wanted.cov_note, wanted.behind_errors.n_groups)
    mine, other = made.equations[4], made.equations[5]
    block = wanted.cov(equation=mine).values
    np.testing.assert_allclose(found.cov(equation=mine).values, block, rtol=1e-8, atol=1e-9 * np.abs(block).max())
    with pytest.raises(ValueError, match="needs covariances between equations"):
        found.wald_test(f"{mine}:x1 = {other}:x1")


@pytest.mark.parametrize("correction", ["HC2", "HC3"])
def test_leverages_where_pairs_have_no_room(correction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = fit(short("own").system(), rank=1, algorithm="ols")
    wanted = made.with_cov("robust", correction=correction).std_errors
    without_pairs(monkeypatch, dual=False)
    np.testing.assert_allclose(made.with_cov("robust", correction=correction).std_errors, wanted, rtol=1e-8)


def test_hours_of_work_are_said_before(monkeypatch: pytest.MonkeyPatch) -> None:
    made = fit(short("own").system(), rank=1)
    without_pairs(monkeypatch, dual=False)
    monkeypatch.setattr(sandwich, "MOST_FLOPS", 10.0)
    for kind, counted in (("robust", "36 rows"), ("cluster", "12 groups")):
        with pytest.raises(
            ValueError, match=rf"coefficients by {counted} would take .* Ask for one equation at a time"
        ):
            made.with_cov(kind, **KINDS[kind])
        assert made.cov(kind, equation="y3", **KINDS[kind]).shape[0] == made.design.sizes[3]


def test_minutes_of_work_are_said_before(monkeypatch: pytest.MonkeyPatch) -> None:
    made = fit(short("own").system(), rank=1)
    without_pairs(monkeypatch, dual=False)
    wanted = made.with_cov("robust").std_errors
    monkeypatch.setattr(sandwich, "LONG_FLOPS", 10.0)
    with pytest.warns(FitWarning, match=r"by 36 rows take about .* minutes of a processor\. Those of one equation"):
        found = made.with_cov("robust").std_errors
    np.testing.assert_array_equal(found, wanted)
