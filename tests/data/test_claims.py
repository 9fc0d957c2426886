"""Stores made to harm: sizes that no disk holds, pickled objects, names and links that lead elsewhere."""

from __future__ import annotations

import json
import os
import pickle
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from lrgls_dask import CompressedSystem, Fit, LowRankGLS, System
from lrgls_dask.errors import DamagedStore

RNG = np.random.default_rng(0)
X = np.column_stack([np.ones(20), RNG.normal(size=20)])
Y = X @ RNG.normal(size=(2, 3)) + RNG.normal(size=(20, 3))
SYSTEM = System.from_arrays(Y, X, equations=["a", "b", "c"])


def edit(array: Path, **said: Any) -> None:
    """Other metadata of an array."""
    path = array / "zarr.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | said), encoding="utf-8")


def unsealed(store: Path) -> None:
    path = store / "zarr.json"
    said = json.loads(path.read_text(encoding="utf-8"))
    said["attributes"].pop("lrgls_seal", None)
    said.pop("consolidated_metadata", None)
    path.write_text(json.dumps(said), encoding="utf-8")
    (store / "Y/sealed").unlink(missing_ok=True)


def regular(*chunk: int) -> dict[str, Any]:
    return {"name": "regular", "configuration": {"chunk_shape": chunk}}


@pytest.mark.parametrize(
    ("name", "shape", "chunk", "says"),
    [
        ("Y", (10**15, 3), (20, 3), "metadata of Y claim 50,000,000,000,000 chunks of rows"),
        ("Y", (20, 3), (2**40, 2**20), "metadata of Y claim chunks of"),
        ("X", (20, 10**13), (20, 10), "metadata of X claim 10,000,000,000,000 columns"),
        ("equation", (10**12,), (10**12,), "metadata of equation claim chunks of"),
        ("incidence_columns", (10**12,), (10**6,), "metadata of incidence_columns claim 8,000,000,000,000 bytes"),
    ],
)
def test_sizes_are_refused_before_they_are_allocated(
    name: str, shape: tuple[int, ...], chunk: tuple[int, ...], says: str, tmp_path: Path
) -> None:
    SYSTEM.to_zarr(tmp_path / "s.zarr")
    unsealed(tmp_path / "s.zarr")
    edit(tmp_path / "s.zarr" / name, shape=shape, chunk_grid=regular(*chunk))
    with pytest.raises(ValueError, match=says):
        System.from_zarr(tmp_path / "s.zarr")


def test_a_seal_counts_no_chunks_that_nobody_wrote(tmp_path: Path) -> None:
    SYSTEM.to_zarr(tmp_path / "s.zarr")
    edit(tmp_path / "s.zarr" / "incidence_columns", shape=(10**12,))
    edit(tmp_path / "s.zarr", consolidated_metadata=None)
    with pytest.raises(DamagedStore, match="'incidence_columns' is not what was written"):
        System.from_zarr(tmp_path / "s.zarr")


@pytest.mark.parametrize("opened", [Fit, CompressedSystem])
def test_saved_things_too(opened: Any, tmp_path: Path) -> None:
    made = LowRankGLS(0).fit(SYSTEM).result_ if opened is Fit else SYSTEM.compress()
    made.to_zarr(tmp_path / "s.zarr")
    unsealed(tmp_path / "s.zarr")
    edit(tmp_path / "s.zarr" / "term", shape=(10**12,), chunk_grid=regular(10**12))
    with pytest.raises(DamagedStore, match="metadata of term claim chunks of"):
        opened.from_zarr(tmp_path / "s.zarr")


@pytest.mark.parametrize("attribute", ["equation_dim", "weight", "n_obs", "route"])
def test_what_has_no_seal_is_damaged_all_the_same(attribute: str, tmp_path: Path) -> None:
    SYSTEM.compress().to_zarr(tmp_path / "s.zarr")
    unsealed(tmp_path / "s.zarr")
    group = zarr.open_group(tmp_path / "s.zarr", mode="r+")
    del group.attrs[attribute]
    with pytest.raises(DamagedStore, match=attribute):
        CompressedSystem.from_zarr(tmp_path / "s.zarr")


def test_arrays_of_other_shapes_are_named(tmp_path: Path) -> None:
    SYSTEM.compress().to_zarr(tmp_path / "s.zarr")
    unsealed(tmp_path / "s.zarr")
    group = zarr.open_group(tmp_path / "s.zarr", mode="r+")
    del group["root"]
    group.create_array("root", data=np.eye(3))
    with pytest.raises(DamagedStore, match=r"shapes \[\(3, 3\)"):
        CompressedSystem.from_zarr(tmp_path / "s.zarr")


class Harm:
    """What a pickle of it would do."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize(("name", "dtype"), [("equation", "|O"), ("equation", "<f8"), ("Y", "<f8")])
def test_no_pickle_is_opened(name: str, dtype: str, tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "s.zarr", mode="w", zarr_format=2)
    for key, values in (("Y", Y), ("X", X), ("equation", np.arange(3.0))):
        array = group.create_array(key, data=values, chunks=values.shape, compressors=None)
        array.attrs["_ARRAY_DIMENSIONS"] = {"Y": ["obs", "equation"], "X": ["obs", "regressor"]}.get(key, [key])
    folder = tmp_path / "s.zarr" / name
    said = json.loads((folder / ".zarray").read_text(encoding="utf-8"))
    said |= {"dtype": dtype, "filters": [{"id": "pickle", "protocol": 5}], "fill_value": None}
    (folder / ".zarray").write_text(json.dumps(said), encoding="utf-8")
    (folder / "0.0" if name == "Y" else folder / "0").write_bytes(pickle.dumps(Harm(tmp_path / "harmed")))
    with pytest.raises(DamagedStore, match="pickle"):
        LowRankGLS(0).fit(System.from_zarr(tmp_path / "s.zarr"))
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("name", ["../other/Y", "/etc", "a/../../other/Y"])
def test_names_lead_to_nothing_outside(name: str, tmp_path: Path) -> None:
    SYSTEM.to_zarr(tmp_path / "s.zarr")
    unsealed(tmp_path / "s.zarr")
    zarr.open_group(tmp_path / "other", mode="w").create_array("Y", data=np.arange(3.0))
    edit(tmp_path / "s.zarr" / "Y", dimension_names=["obs", name])
    assert System.from_zarr(tmp_path / "s.zarr").equations == ("y0", "y1", "y2")


def test_links_are_not_followed_where_something_is_deleted(tmp_path: Path) -> None:
    """Neither a store that is a link, nor one in a store that is replaced."""
    SYSTEM.compress().to_zarr(tmp_path / "kept.zarr")
    (tmp_path / "link.zarr").symlink_to(tmp_path / "kept.zarr")
    LowRankGLS(0).fit(SYSTEM).result_.to_zarr(tmp_path / "link.zarr", overwrite=True)
    assert not (tmp_path / "link.zarr").is_symlink()
    SYSTEM.compress().to_zarr(tmp_path / "outer.zarr")
    (tmp_path / "outer.zarr" / "inside").symlink_to(tmp_path / "kept.zarr")
    SYSTEM.compress().to_zarr(tmp_path / "outer.zarr", overwrite=True)
    assert not (tmp_path / "outer.zarr" / "inside").exists()
    assert CompressedSystem.from_zarr(tmp_path / "kept.zarr").n_obs == 20


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_files_have_the_permissions_that_the_user_wants(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        LowRankGLS(0).fit(SYSTEM).result_.to_zarr(tmp_path / "fit.zarr")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "fit.zarr").rglob("*") if path.is_file()}
    assert modes == {0o666 & ~mask}
    assert stat.S_IMODE((tmp_path / "fit.zarr").stat().st_mode) == 0o777 & ~mask


@pytest.mark.parametrize(
    ("name", "said", "says"),
    [
        ("equation", {"attributes": "NaN"}, "attributes of equation are 'NaN'"),
        ("X", {"attributes": [1]}, "attributes of X are"),
        ("incidence_start", {"data_type": "float64"}, "must hold whole numbers"),
        ("regressor", {"codecs": [{"name": "vlen-utf8"}]}, "texts are damaged|cannot be read"),
        ("Y", {"node_type": "neither"}, "cannot be read"),
        ("term", {"chunk_grid": 10**30}, "cannot be read"),
    ],
)
def test_metadata_of_another_kind_are_named(name: str, said: dict[str, Any], says: str, tmp_path: Path) -> None:
    SYSTEM.to_zarr(tmp_path / "s.zarr")
    unsealed(tmp_path / "s.zarr")
    edit(tmp_path / "s.zarr" / name, **said)
    with pytest.raises(ValueError, match=says):
        System.from_zarr(tmp_path / "s.zarr")


def test_keys_that_are_no_arrays_are_passed_over_and_others_named(tmp_path: Path) -> None:
    SYSTEM.to_zarr(tmp_path / "s.zarr")
    unsealed(tmp_path / "s.zarr")
    (tmp_path / "s.zarr" / "notes").mkdir()
    assert System.from_zarr(tmp_path / "s.zarr").n_obs == 20
    (tmp_path / "s.zarr" / "Y" / "zarr.json").unlink()
    with pytest.raises(ValueError, match="must have an array 'Y'"):
        System.from_zarr(tmp_path / "s.zarr")


def test_settings_of_another_kind_and_lost_incidence_are_named(tmp_path: Path) -> None:
    LowRankGLS(0).fit(SYSTEM).result_.to_zarr(tmp_path / "f.zarr")
    unsealed(tmp_path / "f.zarr")
    path = tmp_path / "f.zarr" / "zarr.json"
    right = path.read_text(encoding="utf-8")
    said = json.loads(right)
    said["attributes"]["lam_F"] = [-1]
    path.write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(DamagedStore, match=r"its lam_F is \[-1\]"):
        Fit.from_zarr(tmp_path / "f.zarr")
    path.write_text(right, encoding="utf-8")
    (tmp_path / "f.zarr" / "incidence_start" / "c" / "0").unlink()
    with pytest.raises(DamagedStore, match="incidence_start must rise"):
        Fit.from_zarr(tmp_path / "f.zarr")
