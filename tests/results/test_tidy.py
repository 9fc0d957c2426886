"""Fits as frames: the same numbers as everywhere else, of what is asked for and of nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import xarray as xr

from lrgls_dask import CompressedSystem, Fit, LowRankGLS, System, TimeVarying, TimeVaryingFit
from lrgls_dask.inference import by_passes, by_solving, classical
from lrgls_dask.results.evidence import StreamedSums
from support.fits import fit, remade
from support.incomplete import with_holes
from support.systems import dask_rows, simulate, zarr_rows
from support.unusable import NAMES, Spoiled

COLUMNS = ["equation", "term", "estimate", "std_error", "statistic", "p_value", "conf_low", "conf_high"]
EQUATIONS = [f"e{j}" for j in range(6)]
REGRESSORS = ["const", "ret_1", "ret_2", "oil"]
DATA = simulate("shared", n=120)

pytestmark = pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic variance")


def named(**options: Any) -> System:
    return DATA.system(equations=EQUATIONS, regressors=REGRESSORS, **options)


def segmented(system: System) -> TimeVaryingFit:
    found = LowRankGLS(covariance=TimeVarying(1, np.arange(system.n_obs) // 40)).fit(system).result_
    assert isinstance(found, TimeVaryingFit)
    return found


def assert_as_elsewhere(found: Any, level: float = 0.9) -> None:
    """The frame of all coefficients against the labelled arrays."""
    frame, bounds = found.tidy(level=level), found.conf_int(1 - level).values
    assert list(frame.columns[-7:]) == COLUMNS[1:]
    columns = found.params, found.std_errors, found.tvalues, found.pvalues
    for name, expected in zip(COLUMNS[2:6], columns, strict=True):
        np.testing.assert_array_equal(frame[name], expected.values, err_msg=name)
    np.testing.assert_allclose(frame[["conf_low", "conf_high"]], bounds, rtol=1e-12)
    np.testing.assert_array_equal(frame["term"].to_numpy(), found.params["regressor"].values)


# ---------------------------------------------------------------------------------- the numbers


def test_by_hand() -> None:
    """Least squares of one equation, from its normal equations."""
    found = LowRankGLS(algorithm="ols", use="t", debiased=True).fit(named()).result_
    X, y = DATA.X, DATA.Y[:, 2]
    b = np.linalg.solve(X.T @ X, X.T @ y)
    error = np.sqrt(np.sum((y - X @ b) ** 2) / (len(y) - 4) * np.linalg.inv(X.T @ X).diagonal())
    frame = found.tidy("e2")
    assert list(frame.columns) == COLUMNS and isinstance(frame.index, pd.RangeIndex)
    assert frame["equation"].tolist() == ["e2"] * 4 and frame["term"].tolist() == REGRESSORS
    np.testing.assert_allclose(frame["estimate"], b, rtol=1e-9)
    np.testing.assert_allclose(frame["std_error"], error, rtol=1e-9)
    np.testing.assert_allclose(frame["p_value"], 2 * scipy.stats.t.sf(np.abs(b / error), len(y) - 4), rtol=1e-7)
    half = scipy.stats.t.ppf(0.95, len(y) - 4) * error
    np.testing.assert_allclose(found.tidy("e2", level=0.9)["conf_high"], b + half, rtol=1e-9)


@pytest.mark.parametrize(
    ("kind", "engine", "wrap"),
    [
        ("own", "compress", np.asarray),
        ("shared", "compress", dask_rows([50, 70])),
        ("mixed", "compress", zarr_rows(40)),
        ("own", "stream", dask_rows([50, 70])),
        ("shared", "stream", zarr_rows(40)),
    ],
)
def test_of_any_container_and_engine(kind: str, engine: Any, wrap: Any, tmp_path: Path) -> None:
    found = LowRankGLS(1, engine=engine).fit(simulate(kind, n=120).system(wrap)).result_
    assert_as_elsewhere(found)
    found.to_zarr(tmp_path / "fit")
    pd.testing.assert_frame_equal(Fit.from_zarr(tmp_path / "fit").tidy(), found.tidy())


@pytest.mark.parametrize("cov", ["robust", "cluster", "hac", "driscoll-kraay", "observed", "kackar-harville"])
def test_of_any_covariance(cov: str) -> None:
    found = fit(named(), 1)
    more = {"driscoll-kraay": {"times": np.arange(120) // 3}, "cluster": {"groups": np.arange(120) // 4}}
    other = found.with_cov(cov, **more.get(cov, {}))
    assert_as_elsewhere(other)
    part = other.tidy("e3", "ret_*")
    whole = other.tidy()
    pd.testing.assert_frame_equal(part, whole[13:15].reset_index(drop=True), rtol=1e-10)
    if cov not in ("observed", "kackar-harville"):  # which are the classical one where regressors are shared
        assert not np.allclose(part["std_error"], found.tidy("e3", "ret_*")["std_error"], rtol=1e-6)


@pytest.mark.parametrize("options", [{"covariance": "full"}, {"lam_B": 3.0}, {"restrictions": "e0:oil = 0.1"}], ids=str)
def test_of_any_model(options: dict[str, Any]) -> None:
    found = LowRankGLS(**options).fit(named()).result_
    assert_as_elsewhere(found)
    if "restrictions" in options:
        row = found.tidy("e0", "oil").iloc[0]
        assert row["std_error"] == 0 and np.isnan(row["p_value"]) and row["conf_low"] == row["estimate"]


def test_of_moments_holes_segments_and_absorbed_effects() -> None:
    both = np.column_stack([DATA.X, DATA.Y])
    M = both.T @ both
    made = CompressedSystem.from_moments(
        M[:4, :4], M[:4, 4:], M[4:, 4:], 120, equations=EQUATIONS, regressors=REGRESSORS
    )
    assert_as_elsewhere(fit(made, 1))
    np.testing.assert_allclose(fit(made, 1).tidy()["std_error"], fit(named(), 1).tidy()["std_error"], rtol=1e-6)
    assert_as_elsewhere(fit(with_holes(simulate("mixed", n=150)).system(), 1, missing="em"))
    assert_as_elsewhere(segmented(named()))
    ds = xr.Dataset(
        {"y": (("t", "e"), DATA.Y), "x": ("t", DATA.X[:, 1]), "firm": ("t", np.arange(120) % 7)},
        coords={"e": EQUATIONS},
    )
    absorbed = System.from_xarray(ds, "y", ["x"], obs="t", equation="e").absorb(ds["firm"])
    assert_as_elsewhere(fit(absorbed, 1))


def test_skipped_equations_are_rows_of_nan(tmp_path: Path) -> None:
    found = fit(Spoiled().system(), 1, missing="em", unusable="skip")
    assert_as_elsewhere(found)
    frame = found.tidy(["e1", "e2"], "x")
    assert frame["equation"].tolist() == ["e1", "e2"]
    assert frame.iloc[0, 2:].isna().all() and frame.iloc[1, 2:].notna().all()
    by = found.glance("equation")
    assert by["equation"].tolist() == NAMES and by["status"].tolist() == found.status.values.tolist()
    np.testing.assert_array_equal(by["n_obs"][[0, 2, 3, 5, 7]], 240)
    assert by.loc[by["status"] != "ok", ["n_obs", "df_resid"]].to_numpy().sum() == 0
    assert found.glance()["n_skipped"].item() == 3


# ---------------------------------------------------------------------------------- what is asked for


@pytest.fixture(scope="module")
def found() -> Fit:
    return fit(named(), 1)


@pytest.mark.parametrize(
    ("equation", "term", "rows"),
    [
        ("e1", None, [4, 5, 6, 7]),
        (None, "oil", [3, 7, 11, 15, 19, 23]),
        (["e5", "e0"], ["oil", "const"], [0, 3, 20, 23]),
        ("e?", "ret_*", [1, 2, 5, 6, 9, 10, 13, 14, 17, 18, 21, 22]),
        ("*", "*_2", [2, 6, 10, 14, 18, 22]),
        ({"equation": "e4"}, "const", [16]),
        (pd.Index(["e4"]), np.array(["const"]), [16]),
        pytest.param(xr.DataArray(["e4", "e1"]), xr.DataArray("const"), [4, 16], id="DataArrays"),
        pytest.param(np.array("e4"), np.array("const"), [16], id="0-d"),
        ([], None, []),
    ],
    ids=str,
)
def test_rows_by_label_and_pattern(found: Fit, equation: Any, term: Any, rows: list[int]) -> None:
    expected = found.tidy().iloc[rows].reset_index(drop=True)
    pd.testing.assert_frame_equal(found.tidy(equation, term), expected, rtol=1e-12, check_dtype=bool(rows))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"equation": "e"}, r"no equation is called 'e'; there are 'e0', .*\(6 in all\); did you mean 'e"),
        ({"term": "ret_3"}, r"no term is called 'ret_3'; there are 'const', .*; did you mean 'ret_"),
        ({"term": "lag_*"}, r"no term is called 'lag_\*'"),
        ({"equation": {"firm": "e1"}}, r"equations lie on 'equation', not on 'firm'"),
        ({"level": 95}, "level is a coverage between 0 and 1.* got 95"),
        ({"level": True}, "level is a coverage"),
    ],
)
def test_what_there_is_not_is_said(found: Fit, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        found.tidy(**asked)


def test_signs_in_labels_are_themselves() -> None:
    names = ["a*", "ab", "a", 7, ("b", 1), "C(x)[T.b]"]
    found = fit(DATA.system(equations=names, regressors=REGRESSORS), 1)
    assert found.tidy("a*", "oil")["equation"].tolist() == ["a*"]
    assert found.tidy("a?", "oil")["equation"].tolist() == ["a*", "ab"]
    assert found.tidy("C(x)[T.*", "oil")["equation"].tolist() == ["C(x)[T.b]"]
    assert found.tidy(7, "oil")["equation"].tolist() == found.tidy("7", "oil")["equation"].tolist() == [7]
    assert found.tidy(("b", 1), "oil")["equation"].tolist() == [("b", 1)]


def test_equations_on_several_dims_have_a_column_for_each() -> None:
    ds = xr.Dataset(
        {"t2m": (("time", "lat", "term"), DATA.Y.reshape(120, 2, 3)), "trend": ("time", DATA.X[:, 1])},
        coords={"lat": [40.5, 41.5], "term": ["a", "b", "c"]},
    )
    found = fit(System.from_xarray(ds, "t2m", ["trend"], obs="time", equation=("lat", "term")), 1)
    frame = found.tidy({"lat": 40.5, "term": ["a", "c"]})
    assert list(frame.columns) == ["lat", "equation_term", *COLUMNS[1:]]
    assert frame["lat"].tolist() == [40.5, 40.5] and frame["equation_term"].tolist() == ["a", "c"]
    np.testing.assert_array_equal(frame["estimate"], found.params.values[[0, 2]])
    pd.testing.assert_frame_equal(found.tidy((40.5, "c")), frame[1:].reset_index(drop=True))
    assert list(found.glance("equation").columns[:2]) == ["lat", "equation_term"]
    with pytest.raises(ValueError, match=r"no lat is called 50; there are 40.5, 41.5"):
        found.tidy({"lat": 50})


def test_dims_called_as_columns_keep_both() -> None:
    ds = xr.Dataset(
        {"t": (("time", "status", "r2"), DATA.Y.reshape(120, 2, 3)), "trend": ("time", DATA.X[:, 1])},
        coords={"status": ["a", "b"], "r2": [1, 2, 3]},
    )
    found = fit(System.from_xarray(ds, "t", ["trend"], obs="time", equation=("status", "r2")), 1)
    frame = found.glance("equation")
    assert frame["equation_status"].tolist() == ["a"] * 3 + ["b"] * 3
    assert frame["equation_r2"].tolist() == [1, 2, 3] * 2
    assert frame["status"].tolist() == found.status.values.tolist()
    np.testing.assert_array_equal(frame["r2"], found.r2.values)
    assert list(found.tidy().columns[:2]) == ["equation_status", "equation_r2"]


def test_a_label_without_hash_is_none(found: Fit) -> None:
    for label in (np.array(["e1", "e2"]), ["e1"], ("e1", ["e2"]), xr.DataArray("e1")):
        with pytest.raises(KeyError, match=r"no equation .* there are 'e0'"):
            found[label]  # type: ignore[index]


# ---------------------------------------------------------------------------------- and of nothing else


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("standard errors of other coefficients were computed")


@pytest.mark.parametrize("restrictions", [None, ["e0:x0 = e1:x0", "e2:x1 = 1"]])
def test_few_of_many_are_solved_for_alone(restrictions: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    system = simulate("own", n=200).system(equations=EQUATIONS)
    model = LowRankGLS(1, restrictions=restrictions)
    whole = model.fit(system).result_.tidy()
    monkeypatch.setattr(classical, "AT_HAND", 0)
    monkeypatch.setattr(classical, "dual_pays", lambda *_: False)
    monkeypatch.setattr(classical.CoefficientCovariance, "_inverse", refuse)
    found = model.fit(system).result_
    part = found.tidy(["e0", "e2"], ["x0", "x1"])
    expected = whole[whole["equation"].isin(["e0", "e2"]) & whole["term"].isin(["x0", "x1"])]
    pd.testing.assert_frame_equal(part, expected.reset_index(drop=True), rtol=1e-9)
    with pytest.raises(AssertionError):
        found.tidy()


def test_of_many_the_inverse_serves_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where iterations do not arrive, and where a good part is asked for."""
    system = simulate("own", n=200).system(equations=EQUATIONS)
    whole = fit(system, 1).tidy()
    monkeypatch.setattr(classical, "AT_HAND", 0)
    monkeypatch.setattr(classical, "dual_pays", lambda *_: False)
    monkeypatch.setattr(by_solving, "MAX_ITERATIONS", 0)
    found = fit(system, 1)
    pd.testing.assert_frame_equal(found.tidy("e0"), whole[whole["equation"] == "e0"], rtol=1e-9)


def test_few_of_a_streamed_fit_take_fewer_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room for X'X right-hand sides are passes over X: those of the coefficients that are asked for."""
    system = simulate("own", n=200, K=12).system()
    found = LowRankGLS(1, engine="stream").fit(system).result_
    whole = found.tidy()
    poor = remade(found, evidence=StreamedSums(None, found.evidence.squares))
    monkeypatch.setattr(by_passes.CovByPasses, "_of_all", refuse)
    pd.testing.assert_frame_equal(poor.tidy("y1"), whole[whole["equation"] == "y1"].reset_index(drop=True), rtol=1e-9)
    with pytest.raises(AssertionError, match="were computed"):
        poor.tidy()


# ---------------------------------------------------------------------------------- a row a fit


def test_one_row_of_the_fit(found: Fit) -> None:
    row = found.glance()
    assert len(row) == 1
    for name in ("n_obs", "n_equations", "n_coefficients", "rank", "loglik", "aic", "bic", "df_resid", "cov_kind"):
        assert row[name].item() == getattr(found, name)
    assert row["mcelroy_r2"].item() == pytest.approx(found.mcelroy_r2())
    assert bool(row["converged"].item())
    poor = LowRankGLS(1, max_sweeps=1, algorithm="fgls").fit(named()).result_.glance()
    assert np.isnan(poor["aic"].item()) and np.isfinite(poor["loglik"].item())
    streamed = LowRankGLS(1, engine="stream").fit(named()).result_.glance()
    assert np.isnan(streamed["mcelroy_r2"].item())


def test_a_row_an_equation(found: Fit) -> None:
    frame = found.glance("equation")
    assert frame["equation"].tolist() == EQUATIONS and (frame["n_obs"] == 120).all()
    R = DATA.Y - DATA.X @ found.params.values.reshape(6, 4).T
    total = ((DATA.Y - DATA.Y.mean(axis=0)) ** 2).sum(axis=0)
    np.testing.assert_allclose(frame["r2"], 1 - (R**2).sum(axis=0) / total, rtol=1e-8)
    np.testing.assert_allclose(frame["adj_r2"], found.adj_r2.values)
    np.testing.assert_allclose(frame["error_var"], found.sigma().values.diagonal())
    np.testing.assert_allclose(frame["idio_var"], found.idio_var.values)
    with pytest.raises(ValueError, match=r"by must be 'equation'; got 'row'"):
        found.glance("row")  # type: ignore[arg-type]


def test_of_segments_variances_are_means_over_rows() -> None:
    found = segmented(named())
    frame, row = found.glance("equation"), found.glance()
    np.testing.assert_allclose(frame["idio_var"], found.idio_var.values.mean(axis=0))
    dense = np.mean([found.sigma(t).values.diagonal() for t in found.segments], axis=0)
    np.testing.assert_allclose(frame["error_var"], dense)
    assert row["n_segments"].item() == 3 and np.isnan(row["mcelroy_r2"].item())
    assert frame["r2"].isna().all()
