"""Sandwich covariances against dense sums over rows, whatever the chunks; their reads, their errors, their files."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr
from distributed import Client, LocalCluster
from hypothesis import given, settings
from hypothesis import strategies as st

from lrgls_dask import Fit, System
from lrgls_dask.inference import bread, hac, sandwich
from lrgls_dask.results.cov.cluster import clusters_of
from lrgls_dask.results.evidence import StreamedSums
from lrgls_dask.rows.meter import Meter
from support.counted import counted, counted_array
from support.fits import fit
from support.sandwiches import GROUPS, OPTIONS, SUMMED, meat, off_by, scores
from support.systems import Data, dask_rows, simulate, zarr_rows

KINDS = ["own", "shared", "mixed"]


def expected(kind: str, made: Fit, data: Data) -> np.ndarray:
    dense = data.dense(lam_B=made.lam_B)
    inverse = np.linalg.inv(dense.normal_matrix(made.sigma().values) + np.diag(made.lam_B * dense.unit**2))
    return inverse @ meat(scores(made, data), **SUMMED[kind]) @ inverse


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weights"])
@pytest.mark.parametrize("lam_B", [0.0, 20.0], ids=["", "ridge"])
@pytest.mark.parametrize("design", KINDS)
def test_sandwich_as_by_hand(design: str, lam_B: float, weighted: bool) -> None:
    data = simulate(design, weighted=weighted)
    made = fit(data.system(zarr_rows(50)), lam_B=lam_B)
    for kind, options in OPTIONS.items():
        wanted = expected(kind, made, data)
        found = made.cov(kind, **options)
        assert off_by(found, wanted) < 1e-11, kind
        own = slice(made.design.offsets[4], made.design.offsets[5])
        one = made.cov(kind, equation="y4", **options)
        assert off_by(one, wanted[own, own]) < 1e-11, kind
        assert one["regressor"].values.tolist() == found["regressor"].values[own].tolist()


def test_equations_with_as_many_columns_each() -> None:
    rng = np.random.default_rng(8)
    X = rng.normal(size=(240, 12)) + np.arange(12)
    columns = tuple(np.arange(3 * j, 3 * j + 3) for j in range(4))
    data = Data("own", rng.normal(size=(240, 4)) + X[:, ::3] + rng.normal(size=(240, 1)), X, columns)
    made = fit(data.system(), rank=1)
    assert made._source.bread(made.system).gradient_params().even_slopes is not None
    for kind, options in OPTIONS.items():
        assert off_by(made.cov(kind, **options), expected(kind, made, data)) < 1e-11


@pytest.mark.parametrize("design", KINDS)
def test_streamed_fits_too(design: str) -> None:
    data = simulate(design)
    made = fit(data.system(), engine="stream")
    assert isinstance(made.evidence, StreamedSums)
    for kind in OPTIONS:
        assert off_by(made.cov(kind, **OPTIONS[kind]), expected(kind, made, data)) < 1e-9


def test_groups_of_one_row_are_robust_and_one_lag_is_white() -> None:
    data = simulate("mixed")
    made = fit(data.system())
    white = made.cov("robust").values
    each = made.cov("cluster", groups=[f"row {i}" for i in range(240)])
    assert off_by(each, white) < 1e-13
    for kernel in ("bartlett", "parzen", "qs"):
        assert off_by(made.cov("hac", kernel=kernel, bandwidth=0), white) < 1e-13


def test_robust_is_classical_where_the_model_holds() -> None:
    data = simulate("mixed", n=20_000)
    made = fit(data.system())
    np.testing.assert_allclose(np.sqrt(np.diag(made.cov("robust"))), made.std_errors, rtol=0.05)


@pytest.mark.parametrize("kernel", ["parzen", "qs"])
def test_kernels_by_their_formulas(kernel: Any) -> None:
    data = simulate("own")
    made = fit(data.system(zarr_rows(31)))
    lag = np.arange(240)
    z = lag / 13
    weights = np.where(z <= 0.5, 1 - 6 * z**2 + 6 * z**3, np.where(z <= 1, 2 * (1 - z) ** 3, 0.0))
    if kernel == "qs":
        z = 6 * np.pi * np.maximum(lag, 1) / (5 * 12.5)
        weights = np.where(
            lag == 0, 1.0, 25 / (12 * np.pi**2 * (np.maximum(lag, 1) / 12.5) ** 2) * (np.sin(z) / z - np.cos(z))
        )
    inverse = np.linalg.inv(data.dense().normal_matrix(made.sigma().values))
    wanted = inverse @ meat(scores(made, data), weights=weights) @ inverse
    assert off_by(made.cov("hac", kernel=kernel, bandwidth=12.5), wanted) < 1e-11


def test_long_series_are_cut_where_later_weights_are_below_the_stated_bound() -> None:
    whole = hac.lag_weights("qs", 4.0, 5_000)
    cut = hac.lag_weights("qs", 4.0, 5_001)
    assert len(whole) == 5_000 and len(cut) == 186
    np.testing.assert_array_equal(cut, whole[: len(cut)])
    assert np.abs(whole[len(cut) :]).max() < 1e-4 < np.abs(whole[80:])[: len(cut)].max() * 10


# ------------------------------------------------------------------------------------ chunks and places

CHUNKED = simulate("mixed", n=60, K=4, k=1, weighted=True)
CHUNKED_GROUPS = np.random.default_rng(5).permutation(np.arange(60) % 20)
MADE = fit(CHUNKED.system(), rank=1)


@pytest.mark.usefixtures("every_chunk_a_block")
class TestChunking:
    @settings(max_examples=12, deadline=None)
    @given(cuts=st.sets(st.integers(1, 59), max_size=30), bandwidth=st.integers(0, 59), ordered=st.booleans())
    def test_chunks_are_never_visible(self, cuts: set[int], bandwidth: int, ordered: bool) -> None:
        chunks = tuple(np.diff([0, *sorted(cuts), 60]).tolist())
        system = CHUNKED.system(dask_rows(chunks))
        groups = np.sort(CHUNKED_GROUPS) if ordered else CHUNKED_GROUPS
        for kind, options in (("robust", {}), ("cluster", {"groups": groups}), ("hac", {"bandwidth": bandwidth})):
            for equation in (None, "y1"):
                found = MADE.cov(kind, system=system, equation=equation, **options)
                wanted = MADE.cov(kind, equation=equation, **options)
                assert off_by(found, wanted.values) < 1e-11, (kind, equation)

    def test_automatic_bandwidth_and_bits(self) -> None:
        a, b = (MADE.cov("hac", system=CHUNKED.system(wrap(7))) for wrap in (dask_rows, zarr_rows))
        np.testing.assert_array_equal(a, b)
        assert a.attrs["note"] == b.attrs["note"] == MADE.cov("hac").attrs["note"]


def test_rows_without_weight_keep_their_place_in_time() -> None:
    data = simulate("own", n=80, weighted=True)
    data.weights[[0, 10, 11, 12, 50, 79]] = 0.0
    bad = replace(data, Y=np.where(data.weights[:, None] == 0, np.nan, data.Y))
    made = fit(bad.system(dask_rows((20, 1, 29, 30))))
    clean = replace(data, weights=np.maximum(data.weights, 1e-300))  # the oracle needs them positive
    own = scores(made, clean)
    groups = np.arange(80) // 4
    dense = clean.dense()
    inverse = np.linalg.inv(
        dense.X_all.T @ np.kron(np.linalg.inv(made.sigma().values), np.diag(data.weights)) @ dense.X_all
    )
    weights = 1 - np.arange(4) / 4
    assert off_by(made.cov("robust"), inverse @ meat(own) @ inverse) < 1e-11
    assert off_by(made.cov("hac", bandwidth=3), inverse @ meat(own, weights=weights) @ inverse) < 1e-11
    assert off_by(made.cov("cluster", groups=groups), inverse @ meat(own, groups=groups) @ inverse) < 1e-11


def test_sorted_groups_stay_open_only_across_cuts(every_chunk_a_block: None) -> None:
    system = simulate("own").system(zarr_rows(16))
    together = clusters_of(np.arange(240) // 6)
    scattered = clusters_of(np.arange(240) % 40)
    assert sandwich._most_open(system.rows, together) == 2
    assert sandwich._most_open(system.rows, scattered) == 40


@pytest.mark.usefixtures("small_blocks")
def test_a_cluster_gives_the_same_bits(cluster: LocalCluster) -> None:
    data = simulate("mixed")
    system = data.system(zarr_rows(40))
    made = fit(data.system())
    here = {kind: made.cov(kind, system=system, **options) for kind, options in OPTIONS.items()}
    with Client(cluster) as client:
        client.wait_for_workers(2)
        for kind, options in OPTIONS.items():
            np.testing.assert_array_equal(here[kind], made.cov(kind, system=system, **options))


# ------------------------------------------------------------------------------------ reads


@pytest.mark.usefixtures("every_chunk_a_block")
class TestReads:
    @pytest.mark.parametrize("equation", [None, "y2"])
    @pytest.mark.parametrize("kind", OPTIONS)
    def test_one_pass(self, kind: str, equation: Any) -> None:
        data = simulate("mixed", n=240)
        store = counted(data)
        made = fit(data.system())
        made.cov(kind, system=System.from_zarr(store), equation=equation, **OPTIONS[kind])
        assert store.of("X") == store.of("Y") == {1: 24}

    @pytest.mark.parametrize(
        ("kernel", "bytes_allowed", "passes"), [("bartlett", 2**28, 1), ("qs", 2**28, 2), ("bartlett", 0, 3)]
    )
    def test_automatic_bandwidth(
        self, kernel: Any, bytes_allowed: int, passes: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = simulate("shared", n=200)
        store = counted(data)
        made = fit(data.system())
        wanted = made.cov("hac", kernel=kernel)
        monkeypatch.setattr(sandwich, "LAGS_BYTES", bytes_allowed)
        found = made.cov("hac", kernel=kernel, system=System.from_zarr(store))
        assert store.of("X") == store.of("Y") == {passes: 20}
        assert found.attrs == wanted.attrs
        assert off_by(found, wanted.values) < 1e-10

    def test_groups_on_disk_are_read_once(self) -> None:
        data = simulate("own", n=240)
        labels, gets = counted_array(GROUPS, 50)
        system = data.system(groups=labels)
        made = fit(system)
        assert sum(gets.values()) == 0
        found = made.cov("cluster")
        assert Counter(gets.values()) == {1: 5}
        np.testing.assert_array_equal(found, made.cov("cluster", groups=GROUPS))
        np.testing.assert_array_equal(found, made.cov("cluster", groups=zarr.array(GROUPS)))
        np.testing.assert_array_equal(found, made.cov("cluster", groups=pd.Series(GROUPS).map("g{}".format)))

    def test_classical_reads_nothing(self) -> None:
        store = counted(simulate("mixed", n=240))
        made = fit(System.from_zarr(store))
        store.gets.clear()
        made.cov("classical", debiased=True)
        assert store.gets == {}


# ------------------------------------------------------------------------------------ scale


def test_units_and_levels_cost_no_digits() -> None:
    """x = 1e14 + noise, y = 1e9 + noise: slopes have the covariance that they have at level zero."""
    data = simulate("mixed", weighted=True)
    noise = np.round(data.X * 2**6) / 2**6  # which a float64 near 1e14 holds exactly
    base = replace(data, X=np.column_stack([np.ones(240), noise[:, 1:]]))
    base.Y[...] = np.round(base.Y * 2**10) / 2**10
    level = np.full(8, 1e14)
    level[0] = 0
    moved = replace(base, X=base.X + level, Y=base.Y + 1e9)
    near, far = fit(base.system()), fit(moved.system())
    slopes = np.flatnonzero(near.params["regressor"].values != "x0")
    for kind in OPTIONS:
        a = near.cov(kind, **OPTIONS[kind]).values[np.ix_(slopes, slopes)]
        b = far.cov(kind, **OPTIONS[kind]).values[np.ix_(slopes, slopes)]
        assert off_by(b, a) < 1e-6, kind
        one = far.cov(kind, equation="y3", **OPTIONS[kind]).values[1:, 1:]
        own = near.cov(kind, equation="y3", **OPTIONS[kind]).values[1:, 1:]
        assert off_by(one, own) < 1e-6, kind
    units = 10.0 ** np.array([0, 6, -6, 3, -3, 5, -5, 1])
    scaled = fit(replace(base, X=base.X * units, Y=base.Y * 1e-6).system())
    to_user = 1e-6 / np.concatenate([units[c] for c in base.columns])
    wanted = near.cov("robust").values * np.outer(to_user, to_user)
    assert off_by(scaled.cov("robust"), wanted) < 1e-9


@pytest.mark.parametrize("design", ["own", "mixed"])
@pytest.mark.parametrize("lam_B", [0.0, 20.0])
def test_one_equation_of_very_many(design: str, lam_B: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit of the full matrix an equation's block comes from conjugate gradients, the same to 1e-10."""
    data = simulate(design)
    made = fit(data.system(), lam_B=lam_B)
    wanted = {kind: made.cov(kind, equation="y3", **options) for kind, options in OPTIONS.items()}
    wanted["classical"] = made.cov(equation="y3")
    for module in (bread, sandwich):
        monkeypatch.setattr(module, "MAX_COEFFICIENTS", 5)
    for name in ("inference.classical", "results.cov.kind"):
        monkeypatch.setattr(f"lrgls_dask.{name}.MAX_COEFFICIENTS", 5)
    fresh = replace(made)
    for kind, found in wanted.items():
        assert off_by(fresh.cov(kind, equation="y3", **OPTIONS.get(kind, {})), found.values) < 1e-10
    with pytest.raises(ValueError, match=r"all \d+ coefficients would take .* limited to 5. Ask for one equation"):
        fresh.cov("robust")
    with pytest.raises(ValueError, match=r"limited to 5. Ask for one equation at a time"):
        fresh.cov()
    restricted = replace(fresh._source.bread(fresh.system), restrictions=np.ones((1, made.n_coefficients)))
    with pytest.raises(ValueError, match=rf"under restrictions are limited to 5 .* these are {made.n_coefficients}"):
        restricted.projection(0)


def test_conjugate_gradients_say_when_they_do_not_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    made = fit(simulate("mixed").system())
    monkeypatch.setattr("lrgls_dask.inference.classical.MAX_COEFFICIENTS", 5)
    monkeypatch.setattr("lrgls_dask.inference.by_solving.MAX_ITERATIONS", 2)
    with pytest.raises(np.linalg.LinAlgError, match="did not converge in 2 iterations"):
        made.cov(equation="y1")


def test_restrictions_drop_into_the_bread() -> None:
    """A^-1 - A^-1 R'(R A^-1 R')^-1 R A^-1 equals T (T'A T)^-1 T' with T a basis of what R leaves free."""
    data = simulate("own")
    made = fit(data.system())
    R = np.zeros((2, made.n_coefficients))
    R[0, [1, 4]], R[1, [2, 6, 9]] = (1, -1), (1, 1, 1)
    _, _, vt = np.linalg.svd(R)
    T = vt[2:].T
    A = data.dense().normal_matrix(made.sigma().values)
    inverse = T @ np.linalg.inv(T.T @ A @ T) @ T.T
    restricted = replace(made._source.bread(made.system), restrictions=R)
    found = sandwich.robust(data.system().rows, restricted, None, Meter())
    wanted = inverse @ meat(scores(made, data)) @ inverse
    assert off_by(found, wanted) < 1e-10
    np.testing.assert_allclose(R @ found @ R.T, 0, atol=1e-12)
    block = sandwich.robust(data.system().rows, restricted, 2, Meter())
    own = slice(made.design.offsets[2], made.design.offsets[3])
    assert off_by(block, wanted[own, own]) < 1e-10


# ------------------------------------------------------------------------------------ corrections, results, files


def test_small_sample_factors() -> None:
    data = simulate("own", weighted=True)
    made = fit(data.system())
    p = np.repeat(made.design.sizes, made.design.sizes)
    factor = 240 / np.sqrt(np.outer(240 - p, 240 - p))
    np.testing.assert_allclose(made.cov("robust", correction="HC1"), made.cov("robust") * factor, rtol=1e-13)
    of_groups = factor * 60 / 59 * 239 / 240
    plain, corrected = (made.cov("cluster", groups=GROUPS, correction=c, equation="y1") for c in ("HC0", "HC1"))
    own = slice(made.design.offsets[1], made.design.offsets[2])
    np.testing.assert_allclose(corrected, plain * of_groups[own, own], rtol=1e-13)
    degrees = np.sqrt(240 / (240 - made.design.sizes))
    wanted = data.dense().cov(made.sigma().values * np.outer(degrees, degrees))
    assert off_by(made.cov("classical", debiased=True), wanted) < 1e-11
    assert off_by(made.cov("classical", debiased=True, equation="y1"), wanted[own, own]) < 1e-11


def test_a_fit_with_another_covariance_uses_it_everywhere(tmp_path: Any) -> None:
    data = simulate("mixed")
    made = fit(data.system(groups=GROUPS))
    robust = made.with_cov("cluster", correction="HC1")
    cov = made.cov("cluster", correction="HC1")
    np.testing.assert_array_equal(robust.std_errors, np.sqrt(np.diag(cov)))
    np.testing.assert_array_equal(robust.tvalues, robust.params / robust.std_errors)
    np.testing.assert_array_equal(robust.coef_table()["std_err"], robust.std_errors)
    assert (robust.conf_int().diff("bound").values > 0).all()
    assert not np.allclose(robust.pvalues, made.pvalues)
    assert "cluster (HC1, 60 groups)" in robust.summary() and "classical" in made.summary()
    assert (made.cov_kind, robust.cov_kind, robust.cov_note) == ("classical", "cluster", "HC1, 60 groups")
    assert robust.cov().attrs == cov.attrs == {"kind": "cluster", "note": "HC1, 60 groups"}
    own = slice(robust.design.offsets[2], robust.design.offsets[3])
    np.testing.assert_array_equal(robust.cov(equation="y2"), cov.values[own, own])
    np.testing.assert_array_equal(robust.cov("classical"), made.cov())
    robust.to_zarr(tmp_path / "fit.zarr")
    back = Fit.from_zarr(tmp_path / "fit.zarr")
    np.testing.assert_array_equal(back.std_errors, robust.std_errors)
    assert back.summary() == robust.summary()
    with pytest.raises(ValueError, match=r"kind='robust' needs the rows.*system="):
        back.cov("robust")
    np.testing.assert_array_equal(back.cov("robust", system=data.system()), made.cov("robust"))


def test_a_plain_fit_keeps_its_kind_on_disk(tmp_path: Any) -> None:
    made = fit(simulate("own").system())
    made.to_zarr(tmp_path / "fit.zarr")
    back = Fit.from_zarr(tmp_path / "fit.zarr")
    assert (back.cov_kind, back.behind_errors.values) == ("classical", None)
