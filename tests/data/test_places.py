"""Nothing is written over the data it is made of: equal and nested paths are refused, and nothing is touched."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import fsspec
import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.storage import LocalStore, MemoryStore

from lrgls_dask import CompressedSystem, Fit, LowRankGLS, System, TimeVarying
from lrgls_dask.cli.main import main
from lrgls_dask.data.places import location_of, read_from
from support.systems import simulate

DATA = simulate("shared", n=60, K=4)
N, K = DATA.Y.shape
MODEL = LowRankGLS(rank=1)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a store, inside a folder that is a store too, and a link to it."""
    monkeypatch.chdir(tmp_path)
    outer = tmp_path / "outer.zarr"
    zarr.open_group(outer, mode="w")
    DATA.system().to_zarr(outer / "data.zarr", row_chunk=20)
    (tmp_path / "link").symlink_to(outer)
    return tmp_path


def state(folder: Path) -> dict[str, bytes]:
    return {str(each): each.read_bytes() for each in sorted(folder.rglob("*")) if each.is_file()}


EQUAL_OR_NESTED = {
    "itself": "outer.zarr/data.zarr",
    "slash": "outer.zarr/data.zarr/",
    "dots": "outer.zarr/../outer.zarr/./data.zarr",
    "link": "link/data.zarr",
    "url": "file://{home}/outer.zarr/data.zarr/",
    "local url": "local://{home}/link/data.zarr",
    "inside": "outer.zarr/data.zarr/fit",
    "deep inside": "link/data.zarr/fits/1",
    "around": "outer.zarr",
    "link around": "link",
}
OPENED: dict[str, Callable[[str], System]] = {
    "from_zarr": System.from_zarr,
    "store": lambda path: System.from_zarr(LocalStore(path, read_only=True)),
    "group": lambda path: System.from_zarr(zarr.open_group(path, mode="r")),
    "from_arrays": lambda path: System.from_arrays(zarr.open_group(path)["Y"], zarr.open_group(path)["X"]),
    "dask": lambda path: System.from_arrays(da.from_zarr(f"{path}/Y") * 1.0, da.from_zarr(f"{path}/X")[:, ::-1]),
    "xarray": lambda path: of_dataset(xr.open_zarr(path)),
    "xarray unchunked": lambda path: of_dataset(xr.open_zarr(path, chunks=None)),
    "xarray rows": lambda path: of_dataset(xr.open_zarr(path).isel(obs=slice(3, 50))),
    "only X": lambda path: System.from_arrays(DATA.Y, da.from_zarr(f"{path}/X")),
    "only groups": lambda path: System.from_arrays(DATA.Y, DATA.X, groups=da.from_zarr(f"{path}/X")[:, 1]),
}


each_path = pytest.mark.parametrize("place", EQUAL_OR_NESTED.values(), ids=EQUAL_OR_NESTED)
SLOW = (pytest.mark.slow,)
# every way to open with two of the paths, and one with all of them; the other pairs are many of the same kind
each_pair = pytest.mark.parametrize(
    ("how", "place"),
    [
        pytest.param(how, place, id=f"{how}-{name}", marks=() if how == "from_zarr" or (i + j) % 5 == 0 else SLOW)
        for i, how in enumerate(OPENED)
        for j, (name, place) in enumerate(EQUAL_OR_NESTED.items())
    ],
)


def of_dataset(ds: xr.Dataset) -> System:
    return System.from_xarray(ds, "Y", ["X"], obs="obs", equation="equation")


def check_refused(call: Callable[[], Any], home: Path, words: str = "Choose another path") -> None:
    before = state(home)
    with pytest.raises(ValueError, match="which is read for what would be written there") as error:
        call()
    assert words in str(error.value) and "outer.zarr/data.zarr" in str(error.value)
    assert state(home) == before


@each_pair
def test_fits_are_not_written_over_their_rows(how: str, place: str, home: Path) -> None:
    system = OPENED[how]("outer.zarr/data.zarr")
    path = place.format(home=home)
    fit = MODEL.fit(system).result_
    for overwrite in (True, False):
        check_refused(lambda overwrite=overwrite: fit.to_zarr(path, overwrite=overwrite), home)
    check_refused(lambda: MODEL.fit(system.compress()).result_.to_zarr(path, overwrite=True), home)
    check_refused(lambda: system.compress().to_zarr(path, overwrite=True), home)
    check_refused(lambda: DATA.system().append(system).to_zarr(path, overwrite=True), home)
    check_refused(lambda: fit.with_cov("robust").to_zarr(path, overwrite=True), home)
    check_refused(lambda: fit.impute(system, path, overwrite=True), home)
    if "://" not in path or path.startswith("file"):
        check_refused(lambda: LowRankGLS(rank=1, checkpoint=path).fit(system), home)
    fit.to_zarr("fit.zarr")
    assert Fit.from_zarr("fit.zarr").loglik == fit.loglik
    check_refused(lambda: Fit.from_zarr("fit.zarr").impute(system, path, overwrite=True), home)


@each_pair
def test_systems_are_not_written_over_what_they_read(how: str, place: str, home: Path) -> None:
    path = place.format(home=home)
    if how in ("from_zarr", "store", "group", "from_arrays", "xarray") and location_of(path) == location_of(
        "outer.zarr/data.zarr"
    ):
        return  # of its own store, below
    system = OPENED[how]("outer.zarr/data.zarr")
    check_refused(lambda: system.to_zarr(path, overwrite=True), home)


def test_a_varying_fit_is_not_written_over_its_rows(home: Path) -> None:
    system = System.from_zarr("outer.zarr/data.zarr")
    fit = LowRankGLS(covariance=TimeVarying(1, np.arange(N) // 30, bandwidth=0.0)).fit(system).result_
    check_refused(lambda: fit.to_zarr("link/data.zarr", overwrite=True), home)


def test_a_system_takes_the_place_of_its_own_store_only_where_nothing_is_lost(home: Path) -> None:
    path = "outer.zarr/data.zarr"
    for there in (path, "link/data.zarr", f"file://{home}/{path}"):
        System.from_zarr(path).to_zarr(there, row_chunk=7, overwrite=True)
        np.testing.assert_array_equal(np.asarray(System.from_zarr(path).rows.y[0].array[:]), DATA.Y)
    zarr.open_group(path)["mine"] = np.arange(3)
    check_refused(lambda: System.from_zarr(path).to_zarr(path, overwrite=True), home)
    del zarr.open_group(path)["mine"]
    group = zarr.open_group(path, mode="r")
    fewer = System.from_arrays(group["Y"], group["X"], equations=list("abcd"))  # which loses the labels
    check_refused(lambda: fewer.to_zarr(path, overwrite=True), home)


def test_stores_in_memory_and_at_urls() -> None:
    held = MemoryStore()
    DATA.system().to_zarr(held)
    before = {key: value.to_bytes() for key, value in held._store_dict.items()}
    system = System.from_zarr(held)
    fit = MODEL.fit(system).result_
    for call in (system, fit, system.compress(), MODEL.fit(system.compress()).result_):
        with pytest.raises(ValueError, match="which is read"):
            call.to_zarr(held, overwrite=True)
        with pytest.raises(ValueError, match="which is read"):
            call.to_zarr(MemoryStore(held._store_dict), overwrite=True)
    assert {key: value.to_bytes() for key, value in held._store_dict.items()} == before
    fit.to_zarr(MemoryStore())

    DATA.system().to_zarr("memory://bucket/a/data.zarr")
    files = fsspec.filesystem("memory")
    before_files = {name: files.cat(name) for name in files.find("/bucket")}
    for system in (
        System.from_zarr("memory://bucket/a/data.zarr/"),
        of_dataset(xr.open_zarr("memory://bucket/a/data.zarr")),
    ):
        fit = MODEL.fit(system).result_
        for url in ("memory://bucket/a/data.zarr/", "memory://bucket/a", "memory:///bucket/a/data.zarr/fit"):
            with pytest.raises(ValueError, match=r"memory://.* which is read .* Choose another path"):
                fit.to_zarr(url, overwrite=True)
        fit.to_zarr("memory://bucket/a/data.zarr-fit", overwrite=True)
        files.rm("/bucket/a/data.zarr-fit", recursive=True)
    assert {name: files.cat(name) for name in files.find("/bucket")} == before_files


def test_what_is_beside_or_in_memory_is_apart(home: Path) -> None:
    for name in ("outer.zarr/data.zar", "outer.zarr/data.zarr2", "outer.zarr/fit", "fit.zarr"):
        MODEL.fit(System.from_zarr("outer.zarr/data.zarr")).result_.to_zarr(name)
    assert DATA.system().read_from == frozenset()
    assert read_from([da.from_array(DATA.Y, chunks=10) + 1]) == frozenset()
    compressed = System.from_zarr("outer.zarr/data.zarr").compress()
    compressed.to_zarr("kept.zarr")
    opened = CompressedSystem.from_zarr("kept.zarr")  # held in memory: days later it replaces itself
    opened.append(System.from_zarr("outer.zarr/data.zarr")).to_zarr("kept.zarr", overwrite=True)
    assert CompressedSystem.from_zarr("kept.zarr").n_obs == 2 * N
    fit = Fit.from_zarr("fit.zarr")
    fit.with_cov("classical").to_zarr("fit.zarr", overwrite=True)


@each_path
def test_commands_refuse_their_inputs(place: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = place.format(home=home)
    MODEL.fit(DATA.system()).result_.to_zarr("fit.zarr")
    os.symlink("fit.zarr", "other.zarr")
    before = state(home)
    said = []
    for line in (
        f"fit outer.zarr/data.zarr --rank 1 --overwrite --out {path}",
        f"predict fit.zarr outer.zarr/data.zarr --overwrite --out {path}",
        "predict fit.zarr outer.zarr/data.zarr --overwrite --out other.zarr",
        "fit outer.zarr/data.zarr --rank 1 --checkpoint p.zarr --overwrite --out p.zarr",
        "fit outer.zarr/data.zarr --rank 1 --checkpoint link/data.zarr/p --out q.zarr",
    ):
        assert main(line.split()) == 1
        said.append(capsys.readouterr().err)
        assert "Choose another path" in said[-1], line
        assert state(home) == before
    assert "fit.zarr" in said[2]


def test_commands_write_to_urls(home: Path) -> None:
    MODEL.fit(DATA.system()).result_.to_zarr("fit.zarr")
    assert main(["predict", "fit.zarr", "outer.zarr/data.zarr", "--out", f"file://{home}/yhat.zarr"]) == 0
    assert main(["simulate", f"file://{home}/drawn.zarr", "--n-obs", "50", "--n-equations", "3"]) == 0
    assert sorted(each.name for each in home.iterdir()) == ["drawn.zarr", "fit.zarr", "link", "outer.zarr", "yhat.zarr"]


@pytest.mark.parametrize("place", ["fit.zarr", "file://{home}/fit.zarr"])
def test_commands_refuse_an_output_that_exists_before_the_work(
    place: str, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    MODEL.fit(DATA.system()).result_.to_zarr("fit.zarr")
    monkeypatch.setattr(LowRankGLS, "fit", lambda *_: pytest.fail("the work was done first"))
    out = place.format(home=home)
    assert main(["fit", "outer.zarr/data.zarr", "--rank", "1", "--out", out]) == 1
    assert f"{out} exists. Choose another name, or pass --overwrite" in capsys.readouterr().err


def test_other_services_are_other_places() -> None:
    here = location_of("memory://a/b")
    assert here is not None and here == location_of("memory:///a/b/") and here.holds(location_of("memory://a/b/c"))
    assert not here.holds(location_of("memory://a/bc")) and not here.holds(location_of("/a/b/c"))
    assert location_of("nonsense://a") is None and location_of(3) is None
