"""A Sigma for each segment of rows with holes: the dense likelihood of observed cells, limits, inference, messages."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import xarray as xr
from distributed import Client, LocalCluster

from lrgls_dask import LowRankGLS, System, TimeVarying, TimeVaryingFit
from lrgls_dask.varying import shown
from support.fits import fit
from support.incomplete import dense_information, dense_loglik, with_holes
from support.sandwiches import GROUPS, OPTIONS, SUMMED, meat, off_by
from support.segments import drifting
from support.systems import Data, dask_rows, restrictions_of, simulate, zarr_rows

TIGHT: dict[str, Any] = {"missing": "em", "rel_tol": 1e-13, "max_sweeps": 200}
SEGMENTS = np.repeat(np.arange(4), [60, 70, 50, 60])  # of 240 rows
FEW, MANY = 4, None  # patterns


def made(data: Data, bandwidth: Any, rank: int = 1, segments: Any = SEGMENTS, **options: Any) -> TimeVaryingFit:
    wrap = options.pop("wrap", np.asarray)
    model = LowRankGLS(covariance=TimeVarying(rank, segments, bandwidth), **(TIGHT | options))
    return model.fit(data.system(wrap)).result_


def panel(kind: str = "own", n_patterns: int | None = MANY, *, weighted: bool = False) -> Data:
    return with_holes(simulate(kind, k=1, seed=1, weighted=weighted), 0.15, n_patterns=n_patterns)


def parts(data: Data, segments: np.ndarray = SEGMENTS) -> list[Data]:
    return [data.take(segments == label) for label in np.unique(segments)]


def weights_of(bandwidth: float, T: int) -> np.ndarray:
    away = np.abs(np.subtract.outer(np.arange(T), np.arange(T)))
    if bandwidth == 0.0:
        return np.eye(T)
    return np.maximum(1.0 - (away / bandwidth) ** 2, 0.0)


def window_loglik(data: Data, b: np.ndarray, weight: np.ndarray, F: np.ndarray, d: np.ndarray) -> float:
    sigma = F @ F.T + np.diag(d)
    return sum(w * dense_loglik(part, b, sigma) for w, part in zip(weight, parts(data), strict=True) if w > 0)


def score_of(found: TimeVaryingFit, data: Data) -> np.ndarray:
    """(N, P) of each row by the coefficients, with the Sigma_oo of its segment, row by row."""
    each = np.repeat([found.sigma(label).values for label in found.segments], np.diff(found.edges), axis=0)
    R = data.Y - np.column_stack(
        [X @ b for X, b in zip(data.Xs, np.split(found.params.values, found.design.offsets[1:-1]), strict=True)]
    )
    w, scaled = np.ones(len(R)) if data.weights is None else data.weights, np.zeros_like(R)
    for i, r in enumerate(R):
        o = ~np.isnan(r)
        scaled[i, o] = w[i] * np.linalg.solve(each[i][np.ix_(o, o)], r[o])
    return np.concatenate([X * scaled[:, [j]] for j, X in enumerate(data.Xs)], axis=1)


def information_of(found: TimeVaryingFit, data: Data) -> np.ndarray:
    pairs = zip(parts(data), found.segments, strict=True)
    return sum(dense_information(part, found.sigma(label).values) for part, label in pairs)


# ---------------------------------------------------------------------------------- the likelihood


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weights"])
@pytest.mark.parametrize("n_patterns", [FEW, MANY], ids=["few", "many"])
@pytest.mark.parametrize("bandwidth", [0.0, 2.5, np.inf])
def test_both_conditions_hold_where_the_loop_ends(bandwidth: float, n_patterns: int | None, weighted: bool) -> None:
    """Slopes of each window's dense likelihood by its Sigma_t, and of all rows' by the coefficients, vanish."""
    data = panel("own", n_patterns, weighted=weighted)
    found = made(data, bandwidth)
    b = found.params.values
    T = len(found.segments)
    each = [
        dense_loglik(part, b, found.sigma(label).values)
        for part, label in zip(parts(data), found.segments, strict=True)
    ]
    assert found.loglik == pytest.approx(sum(each), abs=1e-7)
    for weight, F, d in zip(weights_of(bandwidth, T), found.loadings.values, found.idio_var.values, strict=True):
        for j in range(6):
            unit, step = np.zeros(6), 1e-4
            unit[j] = step
            by_F = [window_loglik(data, b, weight, F + s * unit[:, None], d) for s in (1, -1)]
            by_d = [window_loglik(data, b, weight, F, d * np.exp(s * unit)) for s in (1, -1)]
            assert abs(by_F[0] - by_F[1]) / (2 * step) < 1e-3  # of some hundred rows, where one standard error is 10
            assert abs(by_d[0] - by_d[1]) / (2 * step) < 1e-3
    score = score_of(found, data).sum(axis=0)
    assert score @ np.linalg.solve(information_of(found, data), score) < 1e-10


@pytest.mark.parametrize("n_patterns", [FEW, MANY], ids=["few", "many"])
def test_segments_apart_maximise_the_dense_likelihood(n_patterns: int | None) -> None:
    """By SciPy over all coefficients, loadings and variances of two segments together, from another start."""
    data = with_holes(simulate("shared", n=120, K=3, k=1), 0.2, n_patterns=n_patterns)
    halves, P, K = parts(data, np.arange(120) // 60), 12, 3
    shown_of = [[(part.take((seen == np.isfinite(part.Y)).all(axis=1)), np.flatnonzero(seen)) for seen in
                 np.unique(np.isfinite(part.Y), axis=0) if seen.any()] for part in halves]  # fmt: skip

    def value(z: np.ndarray) -> float:
        b, total = z[:P].reshape(K, 4), 0.0
        for t, patterns in enumerate(shown_of):
            at = z[P + 2 * K * t : P + 2 * K * (t + 1)]
            sigma = np.outer(at[:K], at[:K]) + np.diag(np.exp(at[K:]))
            for part, o in patterns:
                R, block = part.Y[:, o] - part.X @ b[o].T, sigma[np.ix_(o, o)]
                total += 0.5 * len(R) * (len(o) * np.log(2 * np.pi) + np.linalg.slogdet(block)[1])
                total += 0.5 * np.sum(R * np.linalg.solve(block, R.T).T)
        return total

    found = made(data, 0.0, segments=np.arange(120) // 60)
    start = np.concatenate([np.zeros(P), *([np.full(K, 0.5), np.zeros(K)] * 2)])
    best = scipy.optimize.minimize(value, start, method="BFGS", options={"gtol": 1e-5, "maxiter": 2000})
    assert found.loglik == pytest.approx(-best.fun, abs=1e-6)
    np.testing.assert_allclose(found.params.values, best.x[:P], atol=1e-4)
    for t in range(2):
        at = best.x[P + 2 * K * t : P + 2 * K * (t + 1)]
        wanted = np.outer(at[:K], at[:K]) + np.diag(np.exp(at[K:]))
        np.testing.assert_allclose(found.sigma(t).values, wanted, atol=1e-3)


# ---------------------------------------------------------------------------------- limits


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weights"])
@pytest.mark.parametrize("n_patterns", [FEW, MANY], ids=["few", "many"])
def test_an_infinite_bandwidth_is_the_static_fit(n_patterns: int | None, weighted: bool) -> None:
    data = panel("own", n_patterns, weighted=weighted)
    found, static = made(data, np.inf), fit(data.system(), 1, missing="em", rel_tol=1e-13)
    assert found.loglik == pytest.approx(static.loglik, abs=1e-7)
    assert found.n_obs == static.n_obs and found.bic == pytest.approx(static.bic, abs=1e-6)
    np.testing.assert_allclose(found.params.values, static.params.values, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.std_errors.values, static.std_errors.values, rtol=1e-5)
    np.testing.assert_allclose(found.pvalues.values, static.pvalues.values, rtol=1e-4, atol=1e-12)
    np.testing.assert_allclose(found.sigma(2).values, static.sigma().values, rtol=1e-4, atol=1e-5)
    for kind, options in OPTIONS.items():
        assert off_by(found.cov(kind, **options), static.cov(kind, **options).values) < 1e-5, kind
    debiased = [each.cov("classical", debiased=True).values for each in (found, static)]
    assert off_by(*debiased) < 1e-5


def containers(data: Data, tmp_path: Any) -> dict[str, Callable[[], System]]:
    dates = pd.date_range("2001-01-01", periods=len(data.Y))
    names = {"time": dates, "equation": [f"y{j}" for j in range(6)], "name": list("cabd")}
    labelled = xr.Dataset({"Y": (("time", "equation"), data.Y), "X": (("time", "name"), data.X)}, names)

    def stored() -> System:
        data.system(zarr_rows(50)).to_zarr(tmp_path / "s.zarr", overwrite=True)
        return System.from_zarr(tmp_path / "s.zarr")

    return {
        "numpy": data.system,
        "dask": lambda: data.system(dask_rows(64)),
        "zarr": stored,
        "pandas": lambda: System.from_arrays(pd.DataFrame(data.Y, dates), pd.DataFrame(data.X, dates)),
        "xarray": lambda: System.from_xarray(labelled.chunk(time=70), "Y", ["X"], obs="time"),
    }


@pytest.mark.parametrize("holes", [False, True], ids=["complete", "holes"])
def test_containers(tmp_path: Any, holes: bool) -> None:
    """Complete rows are fitted to the same bits as if no hole were allowed."""
    data = simulate("shared")
    data = with_holes(data, 0.15) if holes else data
    first: TimeVaryingFit | None = None
    for name, make in containers(data, tmp_path).items():
        system = make()
        model = LowRankGLS(covariance=TimeVarying(1, SEGMENTS, 2.0), missing="em")
        found = model.fit(system).result_
        if not holes:
            plain = LowRankGLS(covariance=TimeVarying(1, SEGMENTS, 2.0)).fit(system).result_
            np.testing.assert_array_equal(found.params, plain.params)
            np.testing.assert_array_equal(found.std_errors, plain.std_errors)
            np.testing.assert_array_equal(found.loadings, plain.loadings)
            assert (found.loglik, found.n_passes) == (plain.loglik, plain.n_passes)
            assert found.score(system, SEGMENTS) == plain.score(system, SEGMENTS)
        first = found if first is None else first
        np.testing.assert_allclose(found.params.values, first.params.values, rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(found.std_errors.values, first.std_errors.values, rtol=1e-6, err_msg=name)
        assert found.loglik == pytest.approx(first.loglik, abs=1e-7) and found.n_passes == 1


@pytest.mark.usefixtures("small_blocks")
def test_a_cluster_gives_the_same_bits(cluster: LocalCluster) -> None:
    data = panel()
    here = made(data, 2.0, wrap=zarr_rows(40))
    robust = here.cov("robust")
    with Client(cluster) as client:
        client.wait_for_workers(2)
        there = made(data, 2.0, wrap=zarr_rows(40))
        np.testing.assert_array_equal(there.params, here.params)
        np.testing.assert_array_equal(there.cov("robust"), robust)
        assert there.score(data.system(zarr_rows(40)), SEGMENTS) == here.score(data.system(zarr_rows(40)), SEGMENTS)


def test_patterns_and_rows_that_are_held_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    data = panel(n_patterns=FEW)
    compressed = made(data, 2.0)
    monkeypatch.setattr("lrgls_dask.varying.fit.patterns_in_segments", lambda design, n: 1)
    held = made(data, 2.0)
    np.testing.assert_allclose(held.params.values, compressed.params.values, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(held.std_errors.values, compressed.std_errors.values, rtol=1e-6)
    assert held.loglik == pytest.approx(compressed.loglik, abs=1e-7)


# ---------------------------------------------------------------------------------- what a fit says


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weights"])
@pytest.mark.parametrize("n_patterns", [FEW, MANY], ids=["few", "many"])
def test_covariances_by_explicit_sums(n_patterns: int | None, weighted: bool) -> None:
    data = panel("own", n_patterns, weighted=weighted)
    found = made(data, 2.0, wrap=zarr_rows(50))
    A, s = np.linalg.inv(information_of(found, data)), score_of(found, data)
    assert off_by(found.cov(), A) < 1e-8
    own = slice(found.design.offsets[4], found.design.offsets[5])
    for kind, options in OPTIONS.items():
        wanted = A @ meat(s, **SUMMED[kind]) @ A
        assert off_by(found.cov(kind, **options), wanted) < 1e-8, kind
        assert off_by(found.cov(kind, equation="y4", **options), wanted[own, own]) < 1e-8, kind


@pytest.mark.parametrize("n_patterns", [FEW, MANY], ids=["few", "many"])
def test_own_variances_on_their_floor(n_patterns: int | None) -> None:
    """Last digits do not depend on the order of rows where an equation has no error of its own in some window."""
    data = with_holes(simulate("mixed"), 0.15, n_patterns=n_patterns)
    rng = np.random.default_rng(0)
    order = np.concatenate([rng.permutation(np.flatnonzero(t == SEGMENTS)) for t in range(4)])
    found, other = made(data, 2.0), made(data.take(order), 2.0)
    assert found.idio_var.values.min() < 1e-6
    assert found.loglik == pytest.approx(other.loglik, abs=1e-5)
    np.testing.assert_allclose(found.loadings.values, other.loadings.values, atol=1e-6)
    np.testing.assert_allclose(found.params.values, other.params.values, rtol=1e-6, atol=1e-7)


def test_a_ridge_and_restrictions() -> None:
    data = panel()
    ridged = made(data, np.inf, lam_B=5.0)
    static = fit(data.system(), 1, lam_B=5.0, missing="em", rel_tol=1e-13)
    np.testing.assert_allclose(ridged.params.values, static.params.values, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ridged.std_errors.values, static.std_errors.values, rtol=1e-5)
    held = restrictions_of(data)
    found = made(data, 2.0, restrictions=held)
    np.testing.assert_allclose(held[0] @ found.params.values, held[1], atol=1e-8)
    A = information_of(found, data)
    free = np.linalg.svd(held[0])[2][3:].T
    assert off_by(found.cov(), free @ np.linalg.inv(free.T @ A @ free) @ free.T) < 1e-8
    assert np.abs(free.T @ score_of(found, data).sum(axis=0)).max() < 1e-4


@pytest.mark.parametrize("bandwidth", [2.0, "cv"])
def test_saved_and_opened(tmp_path: Any, bandwidth: Any) -> None:
    data = panel()
    found = made(data, bandwidth)
    found.to_zarr(tmp_path / "fit.zarr")
    again = TimeVaryingFit.from_zarr(tmp_path / "fit.zarr")
    xr.testing.assert_identical(again.loadings, found.loadings)
    xr.testing.assert_identical(again.cov(), found.cov())
    assert (again.summary(), again.missing) == (found.summary(), "em")
    observed = int(np.isfinite(data.Y).sum())
    assert f"{239 * 6 - observed} of 1,434" in found.summary() and "239" in found.summary()
    np.testing.assert_array_equal(again.pvalues, found.pvalues)
    xr.testing.assert_identical(
        again.cov("cluster", groups=GROUPS, system=data.system()), found.cov("cluster", groups=GROUPS)
    )
    assert again.score(data.system(), SEGMENTS) == found.score(data.system(), SEGMENTS)
    other = data.Y.copy()
    other[5] = np.nan
    with pytest.raises(ValueError, match="not the rows that were fitted: segment 0 has"):
        again.with_cov("robust", system=replace(data, Y=other).system())
    moved = replace(data, Y=data.Y + 0.1 * np.arange(240)[:, None])
    with pytest.raises(ValueError, match="not the rows that were fitted"):
        again.with_cov("robust", system=moved.system())


def test_the_bandwidth_is_chosen_by_segments_left_out() -> None:
    """Held-out scores of complete rows are those of the same rows and one with a hole far less than they differ by."""
    data, _ = drifting(8, 60)
    years, Y = np.repeat(np.arange(8), 60), data.Y.copy()
    Y[3, 2] = np.nan
    full = LowRankGLS(covariance=TimeVarying(1, years, "cv")).fit(data.system()).result_
    found = LowRankGLS(covariance=TimeVarying(1, years, "cv"), missing="em").fit(replace(data, Y=Y).system()).result_
    assert found.bandwidth == full.bandwidth
    assert found.selection is not None and full.selection is not None
    apart = np.abs(np.diff(full.selection["held_out_nll"]))
    assert np.abs(found.selection["held_out_nll"] - full.selection["held_out_nll"]).max() < apart.min()


def test_prediction_and_scores_of_rows() -> None:
    data = panel()
    found, system = made(data, 2.0), data.system()
    fitted = found.predict(system)
    np.testing.assert_allclose(found.residuals(system).values, data.Y - fitted.values)
    assert found.score(system, SEGMENTS) * found.n_obs == pytest.approx(found.loglik, abs=1e-7)
    mine = found.score(data.take(SEGMENTS == 2).system(), np.full(50, 2))
    part = data.take(SEGMENTS == 2)
    rows = int(np.isfinite(part.Y).any(axis=1).sum())
    assert mine * rows == pytest.approx(dense_loglik(part, found.params.values, found.sigma(2).values), abs=1e-8)
    shuffled = np.random.default_rng(0).permutation(240)
    assert found.score(data.take(shuffled).system(), SEGMENTS[shuffled]) * found.n_obs == pytest.approx(
        found.loglik, abs=1e-7
    )


def test_rows_without_any_response_change_nothing() -> None:
    data = panel(n_patterns=FEW)
    at = np.sort(np.concatenate([np.arange(240), [17, 100, 239]]))
    more = data.take(at)
    empty = np.concatenate([[False], at[1:] == at[:-1]])
    more = replace(more, Y=np.where(empty[:, None], np.nan, more.Y))
    found, wanted = made(more, 2.0, segments=SEGMENTS[at]), made(data, 2.0)
    assert (found.n_obs, found.loglik) == (wanted.n_obs, pytest.approx(wanted.loglik, abs=1e-6))
    np.testing.assert_allclose(found.params.values, wanted.params.values, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.std_errors.values, wanted.std_errors.values, rtol=1e-6)


# ---------------------------------------------------------------------------------- messages


def test_what_no_segment_can_carry() -> None:
    data = panel(n_patterns=FEW)
    late = data.Y.copy()
    late[SEGMENTS == 0, 3] = np.nan
    text = (
        "segments: 0 has 0 rows that show equation 'y3', and equation 'y3' has 2 regressors: with 1 factor it takes "
        "more than 3 rows"
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        made(replace(data, Y=late), 0.0)
    assert made(replace(data, Y=late), 2.5).std_errors.notnull().all()
    nothing = np.where((SEGMENTS == 1)[:, None], np.nan, data.Y)
    with pytest.raises(ValueError, match="segments: 1 is empty"):
        made(replace(data, Y=nothing), 2.0)


def test_too_many_patterns_for_rows_that_are_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "are_few", lambda rows: False)
    monkeypatch.setattr(shown, "patterns_in_segments", lambda design, n: 8)
    text = "segments: 0 has more than 8 patterns of missing responses,.* and the rows are too many to be held in memory"
    monkeypatch.setattr("lrgls_dask.varying.fit.patterns_in_segments", lambda design, n: 8)
    with pytest.raises(ValueError, match=text):
        made(panel(), 2.0)
    assert made(panel(n_patterns=FEW), 2.0).termination.value == "converged"


def test_what_has_no_answer_says_so() -> None:
    found = made(panel(), 2.0)
    for kind in ("observed", "huber-white", "kackar-harville"):
        with pytest.raises(ValueError, match="needs the information of the parameters of one Sigma"):
            found.cov(kind)
    with pytest.raises(ValueError, match=r"Sigma for each segment weights its rows\. Use correction='HC1'"):
        found.cov("robust", correction="HC3")
    with pytest.raises(AttributeError, match="no bootstrap: it is defined for one Sigma of all rows"):
        _ = found.bootstrap
