"""Inference with a Sigma for each segment: sandwiches by explicit sums, tests, restrictions, files, messages."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster

from lrgls_dask import FitWarning, LowRankGLS, System, TimeVarying, TimeVaryingFit
from lrgls_dask.data.seal import SEAL
from lrgls_dask.rows import memory
from lrgls_dask.sigma.lowrank import LowRank
from support.counted import counted
from support.fits import fit, remade
from support.sandwiches import GROUPS, OPTIONS, SUMMED, meat, off_by
from support.segments import TIGHT, drifting
from support.systems import Data, restrictions_of, simulate, zarr_rows

SEGMENTS = np.repeat(np.arange(4), [50, 70, 1, 119])  # of 240 rows
pytestmark = pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic variance on d_floor")


def made(data: Data, bandwidth: float = 2.5, wrap: Any = np.asarray, **options: Any) -> TimeVaryingFit:
    segments = SEGMENTS if len(data.Y) == 240 else np.arange(len(data.Y)) * 3 // len(data.Y)
    model = LowRankGLS(covariance=TimeVarying(1, segments, bandwidth), **(TIGHT | options))
    return model.fit(data.system(wrap)).result_


def precisions(found: TimeVaryingFit) -> np.ndarray:
    """(N, K, K) Sigma^-1 of each row's segment."""
    each = [np.linalg.inv(found.sigma(label).values) for label in found.segments]
    return np.repeat(np.array(each), np.diff(found.edges), axis=0)


def information(found: TimeVaryingFit, data: Data) -> np.ndarray:
    dense, K = data.dense(), data.Y.shape[1]
    blocks = [
        [(X.T * dense.w * precisions(found)[:, i, j]) @ Z for j, Z in enumerate(data.Xs)] for i, X in enumerate(data.Xs)
    ]
    return np.block([[blocks[i][j] for j in range(K)] for i in range(K)])


def scores(found: TimeVaryingFit, data: Data) -> np.ndarray:
    """(N, P) w_i x_ic (Sigma_t^-1 r_i)_j."""
    dense = data.dense()
    weighted = dense.w[:, None] * np.einsum("ijk,ik->ij", precisions(found), dense.residuals(found.params.values))
    return np.concatenate([X * weighted[:, [j]] for j, X in enumerate(data.Xs)], axis=1)


def bread(found: TimeVaryingFit, data: Data) -> np.ndarray:
    return np.linalg.inv(information(found, data) + np.diag(found.lam_B * data.dense().unit ** 2))


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weights"])
@pytest.mark.parametrize("lam_B", [0.0, 20.0], ids=["", "ridge"])
@pytest.mark.parametrize("design", ["own", "shared", "mixed"])
def test_every_kind_by_hand(design: str, lam_B: float, weighted: bool) -> None:
    data = simulate(design, weighted=weighted)
    found = made(data, wrap=zarr_rows(50), lam_B=lam_B)
    A, s = bread(found, data), scores(found, data)
    assert off_by(found.cov(), A @ information(found, data) @ A) < 1e-10
    own = slice(found.design.offsets[4], found.design.offsets[5])
    for kind, options in OPTIONS.items():
        wanted = A @ meat(s, **SUMMED[kind]) @ A
        assert off_by(found.cov(kind, **options), wanted) < 1e-10, kind
        one = found.cov(kind, equation="y4", **options)
        assert off_by(one, wanted[own, own]) < 1e-10, kind
        assert set(one["equation"].values) == {"y4"} and one.attrs["kind"] == kind


@pytest.mark.usefixtures("every_chunk_a_block")
def test_blocks_may_end_anywhere() -> None:
    data = simulate("mixed", weighted=True)
    found = made(data)
    for kind, options in OPTIONS.items():
        wanted = found.cov(kind, **options).values
        for rows in (7, 50, 101):
            system = data.system(zarr_rows(rows))
            assert off_by(found.cov(kind, system=system, **options), wanted) < 1e-11, (kind, rows)


@pytest.mark.slow
@pytest.mark.usefixtures("small_blocks")
def test_a_cluster_gives_the_same_bits(cluster: LocalCluster) -> None:
    data = simulate("mixed")
    system, found = data.system(zarr_rows(40)), made(data)
    here = {kind: found.cov(kind, system=system, **options) for kind, options in OPTIONS.items()}
    scored = found.score(system, SEGMENTS)
    with Client(cluster) as client:
        client.wait_for_workers(2)
        for kind, options in OPTIONS.items():
            np.testing.assert_array_equal(found.cov(kind, system=system, **options), here[kind])
        assert found.score(system, SEGMENTS) == scored
        again = made(data, wrap=zarr_rows(40))
    np.testing.assert_array_equal(again.params, made(data, wrap=zarr_rows(40)).params)


@pytest.mark.usefixtures("every_chunk_a_block")
def test_reads() -> None:
    """None for the classical covariance, one for the others; one more where the segments were not kept."""
    data = simulate("mixed")
    store = counted(data)
    found = made(data)
    found.cov("classical", system=System.from_zarr(store))
    assert not store.of("Y")
    found.cov("robust", system=System.from_zarr(store))
    assert store.of("X") == store.of("Y") == {1: 24}
    replace(found, compressed_segments=()).cov("robust", system=System.from_zarr(store))
    assert store.of("X") == store.of("Y") == {3: 24}


def test_one_sigma_throughout_gives_the_covariances_of_a_static_fit() -> None:
    data = simulate("mixed", weighted=True)
    found = made(data, np.inf)
    sigma = LowRank(found.loadings.values[0], found.idio_var.values[0])
    static = remade(fit(data.system(), 1), coefficients=found.coefficients, covariance=sigma)
    for kind, options in {"classical": {}, **OPTIONS}.items():
        assert off_by(found.cov(kind, **options), static.cov(kind, **options).values) < 1e-10, kind
    for options in ({"kind": "classical", "debiased": True}, {"kind": "robust", "correction": "HC1"},
                    {"kind": "cluster", "correction": "HC1", "groups": GROUPS}):  # fmt: skip
        ours, theirs = found.cov(**options), static.cov(**options)
        assert off_by(ours, theirs.values) < 1e-10, options
        assert ours.attrs == theirs.attrs


def test_columns_far_from_zero_keep_their_digits() -> None:
    data = simulate("own")
    X = data.X.copy()
    near = made(data)
    X[:, [c for c in range(X.shape[1]) if np.ptp(X[:, c]) > 0]] += 2.0**20
    far = made(replace(data, X=X))
    slopes = [i for i, c in enumerate(np.concatenate(data.columns)) if np.ptp(data.X[:, c]) > 0]
    assert off_by(far.cov("robust").values[np.ix_(slopes, slopes)],
                  near.cov("robust").values[np.ix_(slopes, slopes)]) < 1e-6  # fmt: skip


def test_groups_of_one_row_are_robust() -> None:
    data = simulate("own")
    found = made(data)
    assert off_by(found.cov("cluster", groups=np.arange(240)), found.cov("robust").values) < 1e-12
    with pytest.warns(FitWarning, match="clustered covariance: 4 groups are fewer than") as caught:
        found.cov("cluster", groups=np.arange(240) % 4)
    assert caught[0].filename == __file__


def test_rows_left_out_for_a_missing_response() -> None:
    data = simulate("own")
    Y = data.Y.copy()
    Y[[3, 60, 100, 230], [0, 2, 4, 1]] = np.nan
    kept = ~np.isnan(Y).any(axis=1)
    dropped = made(replace(data, Y=Y), missing="drop")
    subset = LowRankGLS(covariance=TimeVarying(1, SEGMENTS[kept], 2.5), **TIGHT)
    wanted = subset.fit(data.take(kept).system()).result_
    assert off_by(dropped.cov("robust"), wanted.cov("robust").values) < 1e-7
    assert dropped.n_dropped == 4 and "Rows left out for a missing response: 4" in dropped.summary()


def test_groups_of_several_kinds_and_sums_along_time() -> None:
    data = simulate("mixed")
    found, other, times = made(data), np.random.default_rng(8).permutation(GROUPS), np.arange(240) // 8
    s, half = scores(found, data), bread(found, data)
    same = (GROUPS[:, None] == GROUPS) | (other[:, None] == other)
    wanted = half @ s.T @ same @ s @ half
    assert np.all(np.diag(wanted) > 0)
    with pytest.warns(FitWarning, match="not positive semidefinite"):
        crossed = found.cov("cluster", groups=[GROUPS, other])
    assert off_by(crossed, wanted) < 1e-7
    sums = np.array([s[times == t].sum(axis=0) for t in range(30)])
    wanted = half @ meat(sums, weights=1 - np.arange(4) / 4) @ half
    assert off_by(found.cov("driscoll-kraay", times=times, bandwidth=3), wanted) < 1e-7


def test_a_chosen_covariance_is_behind_everything(tmp_path: Any) -> None:
    data = simulate("mixed")
    found = made(data)
    other = found.with_cov("cluster", groups=GROUPS, correction="HC1")
    V = found.cov("cluster", groups=GROUPS, correction="HC1").values
    np.testing.assert_allclose(other.std_errors.values, np.sqrt(np.diag(V)))
    assert off_by(other.cov(), V) < 1e-15 and other.cov().attrs == {"kind": "cluster", "note": "HC1, 60 groups"}
    assert off_by(other.cov("classical"), found.cov().values) < 1e-12
    assert "cluster (HC1, 60 groups)" in other.summary() and "classical" in found.summary()
    R = np.zeros((2, found.n_coefficients))
    R[0, 0], R[1, 1], R[1, 5] = 1.0, 1.0, -1.0
    gap = R @ found.coefficients - [0.5, 0.0]
    for each, cov in ((found, found.cov().values), (other, V)):
        test = each.wald_test((R, [0.5, 0.0]))
        assert test.statistic == pytest.approx(gap @ np.linalg.solve(R @ cov @ R.T, gap))
        assert each.wald_test((R, [0.5, 0.0]), use_f=True).statistic == pytest.approx(test.statistic / 2)
    first, second = found.params[:2]
    name = f"{first['equation'].item()}:{first['regressor'].item()} = {second['regressor'].item()}"
    with pytest.raises(ValueError, match="stands without an equation"):
        found.wald_test(name)
    other.to_zarr(tmp_path / "fit.zarr")
    again = TimeVaryingFit.from_zarr(tmp_path / "fit.zarr")
    assert again.summary() == other.summary() and again.cov().attrs == other.cov().attrs
    with pytest.raises(ValueError, match="kind='robust' needs the rows, which this fit does not hold"):
        again.cov("robust")
    for kind, options in {"classical": {}, **OPTIONS}.items():
        reread = again.cov(kind, system=data.system(), **options)
        assert off_by(reread, found.cov(kind, **options).values) < 1e-10
    assert off_by(again.with_cov("robust", system=data.system()).cov(), found.cov("robust").values) < 1e-10


def test_files_that_do_not_say_where_segments_begin(tmp_path: Any) -> None:
    data = simulate("own")
    found = made(data)
    found.to_zarr(tmp_path / "fit.zarr")
    group = zarr.open_group(tmp_path / "fit.zarr")
    del group["edges"]
    for name in ("cov_kind", "cov_note", "missing", "n_dropped", SEAL):
        del group.attrs[name]
    again = TimeVaryingFit.from_zarr(tmp_path / "fit.zarr")
    assert again.edges.tolist() == found.edges.tolist() == [0, 50, 120, 121, 240]
    assert off_by(again.cov("robust", system=data.system()), found.cov("robust").values) < 1e-10
    assert again.summary() == found.summary()


# ---------------------------------------------------------------------------------- restrictions


@pytest.mark.parametrize(("design", "lam_B"), [("own", 0.0), ("shared", 0.0), ("mixed", 5.0)])
def test_restricted_coefficients_and_their_covariances(design: str, lam_B: float) -> None:
    """Against the explicit Karush-Kuhn-Tucker system at the Sigma_t that were found."""
    data = simulate(design, weighted=design == "mixed")
    R, r = restrictions_of(data)
    found = made(data, restrictions=(R, r), lam_B=lam_B)
    assert found.termination.value == "converged"
    np.testing.assert_allclose(R @ found.params.values, r, atol=1e-9)
    M, unit, w = information(found, data), data.dense().unit, data.dense().w
    A = M + np.diag(lam_B * unit**2)
    weighted = w[:, None] * np.einsum("ijk,ik->ij", precisions(found), data.Y)
    rhs = np.concatenate([X.T @ weighted[:, j] for j, X in enumerate(data.Xs)])
    inverse = np.linalg.inv(np.block([[A, R.T], [R, np.zeros((3, 3))]]))
    G = inverse[: len(A), : len(A)]
    b = (inverse @ np.concatenate([rhs, r]))[: len(A)]
    se = np.sqrt(np.diag(G @ M @ G))
    assert np.abs((found.params.values - b) / se).max() < 1e-6
    assert off_by(found.cov(), G @ M @ G) < 1e-8
    assert off_by(found.cov("robust"), G @ meat(scores(found, data)) @ G) < 1e-8
    assert found.n_parameters == pytest.approx(len(A) - 3 + found.sigmas.n_parameters)


def test_an_infinite_bandwidth_is_the_restricted_static_fit(tmp_path: Any) -> None:
    data = simulate("mixed")
    R, r = restrictions_of(data)
    found, static = made(data, np.inf, restrictions=(R, r)), fit(data.system(), 1, restrictions=(R, r))
    assert found.loglik == pytest.approx(static.loglik, abs=1e-8)
    np.testing.assert_allclose(found.params.values, static.params.values, atol=1e-7)
    np.testing.assert_allclose(found.std_errors.values, static.std_errors.values, rtol=1e-6)
    assert (found.n_restrictions, found.df_resid) == (3, static.df_resid)
    assert found.bic == pytest.approx(static.bic, abs=1e-6)
    found.to_zarr(tmp_path / "fit.zarr")
    again = TimeVaryingFit.from_zarr(tmp_path / "fit.zarr")
    assert again.summary() == found.summary() and "Restriction: " in again.summary()
    np.testing.assert_array_equal(again.restrictions.matrix, R)


def test_restrictions_as_texts_and_with_a_chosen_bandwidth() -> None:
    data, _ = drifting(6, 40)
    segments = np.repeat(np.arange(6), 40)
    text = "y0:x1 = y1:x1"
    found = LowRankGLS(covariance=TimeVarying(1, segments), restrictions=text, **TIGHT).fit(data.system()).result_
    params = found.params.values
    assert params[1] == pytest.approx(params[4], abs=1e-9) and found.selection is not None
    assert found.restrictions.texts == (text,)


# ---------------------------------------------------------------------------------- messages


def test_what_such_a_fit_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    data = simulate("own")
    found = made(data)
    for kind in ("observed", "huber-white", "kackar-harville"):
        with pytest.raises(ValueError, match=f"kind='{kind}' needs the information .* Use 'classical', 'robust', 'clu"):
            found.cov(kind)
    with pytest.raises(ValueError, match="kind must be 'classical' or"):
        found.cov("sandwich")
    with pytest.raises(ValueError, match=re.escape("kind='robust' takes no groups=")):
        found.cov("robust", groups=GROUPS)
    with pytest.raises(ValueError, match="kind='cluster' needs groups"):
        found.cov("cluster")
    with pytest.raises(KeyError, match="no equation 'w'"):
        found.cov("robust", equation="w")
    with pytest.raises(ValueError, match="which lam_B = 3 has shrunk"):
        made(data, lam_B=3.0).cov("classical", debiased=True)
    with pytest.raises(ValueError, match="the system has 100 rows, and the segments of this fit cover 240"):
        found.cov("robust", system=data.take(np.arange(100)).system())
    weights = np.where(SEGMENTS == 2, 0.0, 1.0)
    opened = replace(found, compressed_segments=(), system=None)
    with pytest.raises(ValueError, match="only 3 of the fit's 4 segments have rows of positive weight"):
        opened.cov("robust", system=replace(data, weights=weights).system())
    with pytest.raises(TypeError, match="needs the rows themselves, a System; got a CompressedSystem"):
        found.cov("robust", system=data.system().compress())
    monkeypatch.setattr("lrgls_dask.results.segment_source.MAX_COEFFICIENTS", 5)
    with pytest.raises(ValueError, match=rf"all {found.n_coefficients} coefficients .* limited to 5\. Fit fewer"):
        found.cov("classical")


def test_a_covariance_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = made(simulate("own"))
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=2**10))
    with pytest.raises(
        MemoryError, match=r"covariance of 18 coef.*needs 14\.55 kiB in this.* 1\.00 kiB are free\. Fit few"
    ):
        found.cov("classical")
