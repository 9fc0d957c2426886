"""A store that is overwritten while it is read is noticed; one that is appended to goes on being read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

from lrgls_dask import DamagedStore, LowRankGLS, System
from lrgls_dask.errors import ChangedStore, UnreadableRows
from lrgls_dask.rows import block_plan
from lrgls_dask.solve.checkpoint import rows_token
from support.systems import simulate

RNG = np.random.default_rng(0)
X = np.column_stack([np.ones(200), RNG.normal(size=(200, 2))])
Y = X @ RNG.normal(size=(3, 4)) + RNG.normal(size=(200, 4))


def ours(path: Path, scale: float = 1.0, n: int = 200) -> None:
    System.from_arrays(scale * Y[:n], X[:n]).to_zarr(path, row_chunk=10, overwrite=True)


def foreign(path: Path, scale: float = 1.0) -> None:
    shutil.rmtree(path, ignore_errors=True)
    group = zarr.open_group(path, mode="w")
    for name, values in (("Y", scale * Y), ("X", X)):
        array = group.create_array(name, shape=values.shape, chunks=(10, values.shape[1]), dtype="f8", fill_value=0.0)
        array[...] = values


def by_xarray(path: Path) -> System:
    ds = xr.open_zarr(path)
    return System.from_xarray(ds, "Y", ["X"])


def by_dask(path: Path) -> System:
    return System.from_arrays(da.from_zarr(str(path / "Y")), da.from_zarr(str(path / "X")))


def fit(system: System) -> Any:
    return LowRankGLS(0).fit(system).result_


def then(monkeypatch: pytest.MonkeyPatch, n: int, act: Callable[[], object]) -> None:
    """Do something before the n-th part of a block is read."""
    read, done = block_plan._read_part, []

    def counted(*given: Any) -> Any:
        done.append(given)
        if len(done) == n:
            act()
        return read(*given)

    monkeypatch.setattr(block_plan, "_read_part", counted)


@pytest.mark.parametrize("opened", [System.from_zarr, by_dask], ids=["zarr", "dask"])
@pytest.mark.parametrize("write", [ours, foreign])
@pytest.mark.usefixtures("every_chunk_a_block")
def test_a_store_that_is_overwritten_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, write: Callable[..., None], opened: Callable[[Path], System]
) -> None:
    write(tmp_path / "s.zarr")
    system = opened(tmp_path / "s.zarr")
    before = fit(system)
    with monkeypatch.context() as patch:
        then(patch, 7, lambda: write(tmp_path / "s.zarr", scale=2.0))
        with pytest.raises(ChangedStore, match=r"s.zarr/. was written anew or deleted .* Open it again"):
            fit(system)
    after = fit(opened(tmp_path / "s.zarr"))
    assert np.allclose(after.params, 2 * before.params)


def test_it_is_noticed_before_the_first_pass_too(tmp_path: Path) -> None:
    ours(tmp_path / "s.zarr")
    system = by_xarray(tmp_path / "s.zarr")
    ours(tmp_path / "s.zarr", scale=2.0)
    with pytest.raises(ChangedStore, match="written anew"):
        fit(system)


@pytest.mark.usefixtures("every_chunk_a_block")
def test_a_store_that_is_deleted_or_appended_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    ours(path, n=115)
    system = System.from_zarr(path)
    before = fit(system)
    with monkeypatch.context() as patch:
        then(patch, 5, lambda: System.from_arrays(Y[115:], X[115:]).append_to_zarr(path))
        assert np.array_equal(fit(system).params, before.params)
    foreign(tmp_path / "f.zarr")
    system = System.from_zarr(tmp_path / "f.zarr")
    with monkeypatch.context() as patch:
        then(patch, 5, lambda: shutil.rmtree(tmp_path / "f.zarr"))
        with pytest.raises(ChangedStore, match="deleted"):
            fit(system)


@pytest.mark.usefixtures("every_chunk_a_block")
@pytest.mark.parametrize("codec", [None, zarr.codecs.ZstdCodec()], ids=["plain", "packed"])
def test_a_missing_chunk_of_ours_is_refused(tmp_path: Path, codec: Any) -> None:
    path = tmp_path / "s.zarr"
    System.from_arrays(Y, X).to_zarr(path, row_chunk=10, compressors=codec)
    (path / "Y/c/3/0").unlink()
    with pytest.raises(
        (DamagedStore, UnreadableRows), match=r"Y.*(never written, numbers .3|rows 30 to 39 .*FileNotFound)"
    ):
        LowRankGLS(0, missing="em").fit(System.from_zarr(path))
    System.from_arrays(Y, X).to_zarr(path, row_chunk=10, compressors=codec, overwrite=True)
    assert np.isfinite(fit(System.from_zarr(path)).loglik)


def test_a_copy_by_another_program_may_leave_out_what_holds_nothing(tmp_path: Path) -> None:
    """It takes the attributes along, not the promise that every chunk was written."""
    data = simulate("shared", n=400, K=3, k=1)
    data.Y[100:200] = np.nan
    data.system().to_zarr(tmp_path / "ours", row_chunk=100)
    with xr.open_zarr(tmp_path / "ours") as ds:
        ds.to_zarr(tmp_path / "copy", consolidated=False)
    assert not (tmp_path / "copy" / "Y" / "c" / "1").exists()
    opened = [System.from_zarr(tmp_path / name) for name in ("ours", "copy")]
    fits = [LowRankGLS(0, missing="em").fit(system).result_ for system in opened]
    assert fits[0].nll == fits[1].nll
    assert rows_token(opened[0].rows) != rows_token(opened[1].rows)


def _permissions(document: Path) -> None:
    document.chmod(0o600)


def _attribute(document: Path) -> None:
    attributes = zarr.open_array(document.parent).attrs
    for value in ("m", "m"):  # the same again too
        attributes["units"] = value


def _link(document: Path) -> None:
    document.with_name("another name").hardlink_to(document)


def _same_times(document: Path) -> None:
    shutil.copy2(document, document.with_name("moved"))
    document.with_name("moved").replace(document)


@pytest.mark.parametrize("change", [_permissions, _attribute, _link, _same_times])
def test_data_that_did_not_change_may_be_read(tmp_path: Path, change: Callable[[Path], None]) -> None:
    y = zarr.create_array(tmp_path / "y", shape=(60, 3), chunks=(20, 3), dtype=float)
    y[:] = np.random.default_rng(0).normal(size=(60, 3))
    for array in (da.from_zarr(str(tmp_path / "y")), zarr.open_array(tmp_path / "y", mode="r")):
        system = System.from_arrays(array, np.ones((60, 1)))
        first = LowRankGLS(0).fit(system).result_
        change(tmp_path / "y" / "zarr.json")
        assert LowRankGLS(0).fit(system).result_.nll == first.nll
        for name in ("another name", "moved"):
            (tmp_path / "y" / name).unlink(missing_ok=True)


def test_an_overwritten_array_with_other_attributes_is_noticed(tmp_path: Path) -> None:
    foreign(tmp_path / "s.zarr")
    system = System.from_zarr(tmp_path / "s.zarr")
    fit(system)
    foreign(tmp_path / "s.zarr", scale=2.0)
    for name in ("X", "Y"):
        zarr.open_array(tmp_path / "s.zarr" / name).attrs["history"] = "again"
    with pytest.raises(ChangedStore, match="written anew"):
        fit(system)
