"""Statistics that read the rows again refuse other rows than those of the fit, and data that were changed since."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from distributed import Client

from lrgls_dask import LowRankGLS, System, TimeVarying
from lrgls_dask.data.seal import SEAL
from support.counted import counted_rows
from support.systems import Data, dask_rows, simulate, zarr_rows

NOT_THESE = "these are not the rows that were fitted"
N, UNIT = 240, 20.0
GROUPS = np.arange(N) // 6


def holes(data: Data) -> Data:
    Y = data.Y.copy()
    Y[np.random.default_rng(5).random(Y.shape) < 0.05] = np.nan
    return Data(data.kind, Y, data.X, data.columns, data.weights)


def level(data: Data) -> Data:
    """Prices around 280."""
    return Data(data.kind, data.Y + 280.0, data.X, data.columns, data.weights)


COMPLETE: dict[str, tuple[Data, dict[str, Any]]] = {
    "compressed": (level(simulate("mixed", n=N, unit=UNIT)), {}),
    "streamed": (level(simulate("own", n=N, unit=UNIT)), {"engine": "stream"}),
    "weighted": (simulate("shared", n=N, weighted=True), {"engine": "stream"}),
    "dropped": (holes(simulate("shared", n=N)), {"missing": "drop"}),
    "full": (simulate("shared", n=N), {"covariance": "full"}),
    "segments": (simulate("shared", n=N), {"covariance": TimeVarying(1, GROUPS // 10)}),
}
WITH_HOLES: dict[str, tuple[Data, dict[str, Any]]] = {
    "em": (holes(level(simulate("shared", n=N))), {"missing": "em"}),
    "em streamed": (holes(simulate("own", n=N)), {"missing": "em", "engine": "stream"}),
}
FITTED = COMPLETE | WITH_HOLES


@cache
def fitted(case: str) -> Any:
    return model_of(case).fit(FITTED[case][0].system()).result_


def model_of(case: str) -> LowRankGLS:
    options = FITTED[case][1]
    return LowRankGLS(**options) if "covariance" in options else LowRankGLS(2, **options)


def a_cell(data: Data) -> Data:
    Y = data.Y.copy()
    row = int(np.flatnonzero(~np.isnan(Y[:, 1]))[7])
    Y[row, 1] += 0.5 * np.nanstd(Y[:, 1])
    return Data(data.kind, Y, data.X, data.columns, data.weights)


def a_regressor(data: Data) -> Data:
    X = data.X.copy()
    X[:, 1] *= 1.01
    return Data(data.kind, data.Y, X, data.columns, data.weights)


def other_pairs(data: Data) -> Data:
    """Every column as it was, Y paired with other rows of X: in order within each segment."""
    back = np.concatenate([np.arange(a, a + 60)[::-1] for a in range(0, N, 60)])
    return Data(data.kind, data.Y[back], data.X, data.columns, data.weights)


OTHERS = {"cell": a_cell, "regressor": a_regressor, "pairs": other_pairs}


def kind_of(case: str) -> str:
    return "observed" if case in WITH_HOLES else "robust"


@pytest.mark.filterwarnings("ignore::lrgls_dask.FitWarning")
@pytest.mark.parametrize("case", FITTED)
def test_other_rows_are_refused_by_name_in_memory_and_from_disk(case: str, tmp_path: Path) -> None:
    found, data = fitted(case), FITTED[case][0]
    found.to_zarr(tmp_path / "fit")
    opened = type(found).from_zarr(tmp_path / "fit")
    for fit in (found, opened):
        for other in OTHERS.values():
            with pytest.raises(ValueError, match=NOT_THESE):
                fit.cov(kind_of(case), system=other(data).system(dask_rows(50)))
        with pytest.raises(ValueError, match="equation 'y1'"):
            fit.cov(kind_of(case), system=a_cell(data).system())
        with pytest.raises(ValueError, match="regressor"):
            fit.with_cov(kind_of(case), system=a_regressor(data).system())


@pytest.mark.filterwarnings("ignore::lrgls_dask.FitWarning")
@pytest.mark.parametrize("case", FITTED)
@pytest.mark.parametrize("wrap", [dask_rows(37), dask_rows((1, 100, 139)), zarr_rows(64)])
def test_the_same_rows_in_other_chunks_give_the_same_errors(case: str, wrap: Any) -> None:
    found, data = fitted(case), FITTED[case][0]
    expected = found.cov(kind_of(case)).values
    again = found.cov(kind_of(case), system=data.system(wrap)).values
    np.testing.assert_allclose(again, expected, rtol=1e-7, atol=1e-10 * np.abs(expected).max())


@pytest.mark.filterwarnings("ignore::lrgls_dask.FitWarning")
@pytest.mark.parametrize("case", FITTED)
def test_the_same_rows_stored_in_half_the_bytes_are_the_same_rows(case: str) -> None:
    found, data = fitted(case), FITTED[case][0]
    expected = found.cov(kind_of(case)).values
    again = found.cov(kind_of(case), system=data.system(lambda a: a.astype(np.float32))).values
    np.testing.assert_allclose(again, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("case", ["compressed", "streamed", "weighted", "dropped"])
def test_the_order_of_rows_is_that_of_the_system_that_is_passed(case: str) -> None:
    found, data = fitted(case), FITTED[case][0]
    expected = found.cov("cluster", groups=GROUPS).values
    order = np.random.default_rng(1).permutation(N)
    again = found.cov("cluster", system=data.take(order).system(), groups=GROUPS[order]).values
    np.testing.assert_allclose(again, expected, rtol=1e-7, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["robust", "cluster", "hac", "huber-white"])
def test_every_kind_that_reads_rows_looks_at_them(kind: str) -> None:
    found, data = fitted("full"), FITTED["full"][0]
    options: dict[str, Any] = {"groups": GROUPS} if kind == "cluster" else {}
    assert found.cov(kind, system=data.system(), **options).notnull().all()
    for equation in (None,) if kind == "huber-white" else (None, "y1"):
        with pytest.raises(ValueError, match=NOT_THESE):
            found.cov(kind, system=a_cell(data).system(), equation=equation, **options)


@pytest.mark.parametrize("case", ["compressed", "streamed", "weighted", "dropped", "full"])
def test_a_bootstrap_of_other_rows_is_refused(case: str) -> None:
    found, data = fitted(case), FITTED[case][0]
    for method, options in (("parametric", {}), ("cluster", {"groups": GROUPS}), ("blocks", {"n_blocks": 8})):
        again = found.bootstrap(3, method, seed=0, system=data.system(dask_rows(50)), **options)
        assert again.n_replicates == 3
        for other in OTHERS.values():
            with pytest.raises(ValueError, match=NOT_THESE):
                found.bootstrap(3, method, seed=0, system=other(data).system(), **options)
    if case != "dropped":
        with pytest.raises(ValueError, match="equation 'y1'"):
            found.bootstrap(3, system=a_cell(data).system().compress())


def test_segments_tell_rows_that_moved_from_one_to_another() -> None:
    found, data = fitted("segments"), FITTED["segments"][0]
    order = np.arange(N)
    order[[0, N - 1]] = order[[N - 1, 0]]
    with pytest.raises(ValueError, match=f"{NOT_THESE}.* in rows 0 to 59"):
        found.cov("robust", system=data.take(order).system())


@pytest.mark.filterwarnings("ignore::lrgls_dask.FitWarning")
@pytest.mark.parametrize("case", FITTED)
def test_data_changed_in_place_after_the_fit_are_seen(case: str) -> None:
    data, changed = FITTED[case][0], a_cell(FITTED[case][0]).Y
    Y = data.Y.copy()
    copied = Data(data.kind, Y, data.X, data.columns, data.weights)
    found = model_of(case).fit(copied.system()).result_
    Y[...] = changed
    with pytest.raises(ValueError, match="where its data were changed since, fit again"):
        found.cov("robust")  # of which every fit reads the rows


def test_a_store_rewritten_after_the_fit_is_seen(tmp_path: Path) -> None:
    data = COMPLETE["compressed"][0]
    data.system().to_zarr(tmp_path / "rows", row_chunk=50)
    system = System.from_zarr(tmp_path / "rows")
    found = LowRankGLS(2).fit(system).result_
    assert found.cov("robust").notnull().all()
    zarr.open_array(str(tmp_path / "rows" / "Y"), mode="r+")[...] = a_cell(data).Y
    with pytest.raises(ValueError, match="equation 'y1'"):
        found.cov("robust")
    with pytest.raises(ValueError, match="equation 'y1'"):
        found.bootstrap(3, "blocks", n_blocks=8)


def test_appended_and_compressed_systems_know_their_rows() -> None:
    data = COMPLETE["compressed"][0]
    both = data.take(slice(0, 90)).system().compress().append(data.take(slice(90, None)).system())
    found = LowRankGLS(2).fit(both).result_
    expected = fitted("compressed").cov("robust").values
    np.testing.assert_allclose(found.cov("robust", system=data.system()).values, expected, rtol=1e-6)
    swapped = data.take(np.r_[0:90, 0:150])
    with pytest.raises(ValueError, match=NOT_THESE):
        found.cov("robust", system=swapped.system())


def test_means_a_million_times_the_spread_are_no_difference() -> None:
    data = simulate("shared", n=N, seed=3)
    far = Data(data.kind, data.Y + 1e9, np.column_stack([data.X[:, 0], data.X[:, 1:] + 1e7]), data.columns)
    for engine in ("compress", "stream"):
        found = LowRankGLS(2, engine=engine).fit(far.system()).result_
        assert found.cov("robust", system=far.system(dask_rows(33))).notnull().all()
        with pytest.raises(ValueError, match=NOT_THESE):
            found.cov("robust", system=Data(far.kind, far.Y[::-1] * 1.001, far.X, far.columns).system())


def test_files_without_fingerprint_take_what_they_are_given(tmp_path: Path) -> None:
    data = COMPLETE["streamed"][0]
    fitted("streamed").to_zarr(tmp_path / "fit")
    group = zarr.open_group(str(tmp_path / "fit"), mode="r+")
    for name in [name for name in group.array_keys() if name.startswith("fitted_")]:
        del group[name]
    del group.attrs[SEAL]  # which is younger
    opened = type(fitted("streamed")).from_zarr(tmp_path / "fit")
    assert opened.cov("robust", system=data.system()).notnull().all()
    assert opened.cov("robust", system=a_cell(data).system()).notnull().all()


@pytest.mark.parametrize("kind", ["robust", "cluster"])
def test_the_look_takes_no_pass_of_its_own(kind: str) -> None:
    system, reads = counted_rows(COMPLETE["full"][0], 40)
    options: dict[str, Any] = {"groups": GROUPS} if kind == "cluster" else {}
    assert fitted("full").cov(kind, system=system, **options).notnull().all()
    assert len(reads) == 2 * N // 40
    assert set(reads.values()) == {1}


def test_on_a_cluster_the_same(client: Client) -> None:
    found, data = fitted("compressed"), COMPLETE["compressed"][0]
    expected = found.cov("robust").values
    again = found.cov("robust", system=data.system(dask_rows(40))).values
    np.testing.assert_allclose(again, expected, rtol=1e-7, atol=1e-10 * np.abs(expected).max())
    with pytest.raises(ValueError, match="equation 'y1'"):
        found.cov("robust", system=a_cell(data).system(dask_rows(40)))
