"""What was saved and is not what was written is refused by name, or reads as it was: never anything else."""

from __future__ import annotations

import json
import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from lrgls_dask import CompressedSystem, Fit, LowRankGLS, System, TimeVarying, TimeVaryingFit
from lrgls_dask.data.seal import CHECKED, seal_of
from lrgls_dask.errors import DamagedStore
from support.damage import damages, everything, files_of, holding

RNG = np.random.default_rng(0)
X = np.column_stack([np.ones(60), RNG.normal(size=(60, 2))])
Y = X @ RNG.normal(size=(3, 4)) + RNG.normal(size=(60, 4))


def rows(y: np.ndarray = Y) -> System:
    return System.from_arrays(y, X, equations=list("abcd"), regressors=["one", "x", "z"])


def fitted(*how: Any, y: np.ndarray = Y, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LowRankGLS(*how, **options).fit(rows(y)).result_


def with_holes() -> np.ndarray:
    return np.where(np.arange(240).reshape(60, 4) % 11 == 0, np.nan, Y)


@dataclass(frozen=True)
class Saved:
    """Something that is saved, and how it is opened."""

    made: Callable[[], Any]
    opened: Callable[[Path], Any]


SAVED = {
    "fit": Saved(lambda: fitted("bic"), Fit.from_zarr),
    "fit of holes": Saved(lambda: fitted(1, y=with_holes(), missing="em"), Fit.from_zarr),
    "time-varying fit": Saved(
        lambda: fitted(covariance=TimeVarying(1, np.arange(60) // 30, bandwidth=1.0)), TimeVaryingFit.from_zarr
    ),
    "compressed system": Saved(lambda: rows().compress(), CompressedSystem.from_zarr),
    "compressed patterns": Saved(lambda: rows(with_holes()).compress(), CompressedSystem.from_zarr),
}


@cache
def made(name: str) -> Any:
    return SAVED[name].made()


def damaged_in_turn(name: str, store: Path, bits: int, every: int) -> Counter[str]:
    """How often it was refused by name, and how often it read as it was, over all damages of every so many-th file."""
    made(name).to_zarr(store)
    whole = everything(made(name).to_zarr)
    assert everything(SAVED[name].opened(store).to_zarr) == whole
    ends: Counter[str] = Counter()
    rng = np.random.default_rng(7)
    for number, path in enumerate(files_of(store)):
        if number % every:
            continue
        for how, content in damages(path.read_bytes(), bits, rng):
            with holding(path, content):
                try:
                    found = SAVED[name].opened(store)
                except (ValueError, FileNotFoundError) as error:
                    assert str(store) in str(error), (path, how, error)
                    ends["refused"] += 1
                    continue
                assert everything(found.to_zarr) == whole, (path, how)
                ends["as it was"] += 1
    return ends


@pytest.mark.parametrize("name", ["fit"])
def test_no_damage_is_silent(name: str, tmp_path: Path) -> None:
    ends = damaged_in_turn(name, tmp_path / "saved.zarr", bits=1, every=11)
    assert ends["refused"] > 10


@pytest.mark.slow
@pytest.mark.parametrize("name", SAVED)
def test_no_damage_to_any_file_is_silent(name: str, tmp_path: Path) -> None:
    ends = damaged_in_turn(name, tmp_path / "saved.zarr", bits=12, every=1)
    print(f"{name}: {dict(ends)}")
    assert ends["refused"] > 100


@pytest.mark.slow
def test_no_bit_of_a_fit_turns_silently(tmp_path: Path) -> None:
    """Every byte of every file, one bit of each."""
    store = tmp_path / "saved.zarr"
    fit = fitted(0)
    fit.to_zarr(store)
    whole, ends = everything(fit.to_zarr), Counter[str]()
    for path in files_of(store):
        content = path.read_bytes()
        for byte in range(len(content)):
            turned = bytearray(content)
            turned[byte] ^= 1 << (byte * 5 % 8)
            with holding(path, bytes(turned)):
                try:
                    found = Fit.from_zarr(store)
                except (ValueError, FileNotFoundError) as error:
                    assert str(store) in str(error), (path, byte, error)
                    ends["refused"] += 1
                    continue
                assert everything(found.to_zarr) == whole, (path, byte)
                ends["as it was"] += 1
    print(dict(ends))


def test_what_is_damaged_is_named(tmp_path: Path) -> None:
    fit = fitted(1)

    def refused(part: str, change: Callable[[zarr.Group, Path], object]) -> None:
        store = tmp_path / "saved.zarr"
        fit.to_zarr(store, overwrite=True)
        change(zarr.open_group(store, mode="r+"), store)
        with pytest.raises(DamagedStore, match=f"the fit at .*saved.zarr is damaged: {part}.* Restore it from a copy"):
            Fit.from_zarr(store)

    refused("its attributes are not", lambda group, _: group.attrs.update(n_obs=61))
    refused("'params' is not", lambda group, _: group["params"].attrs.update(unit="m"))
    refused("'loadings' is not", lambda group, _: group["loadings"].__setitem__(..., 0.5))
    refused("'idio_var' is not", lambda _, store: shutil.copy(store / "y_scale/c/0", store / "idio_var/c/0"))
    refused("'loadings' is not", lambda _, store: (store / "loadings/c/0/0").unlink())
    refused("'loadings' is not", lambda group, _: group.__delitem__("loadings"))


def test_a_fit_without_a_seal_opens(tmp_path: Path) -> None:
    """As earlier versions wrote it."""
    fitted(1).to_zarr(tmp_path / "saved.zarr")
    del zarr.open_group(tmp_path / "saved.zarr", mode="r+").attrs["lrgls_seal"]
    assert np.array_equal(Fit.from_zarr(tmp_path / "saved.zarr").params, fitted(1).params)


def test_labels_and_attributes_of_data_are_sealed(tmp_path: Path) -> None:
    """What is appended, or put beside them by others, breaks no seal; a store of an earlier version has none."""
    store = tmp_path / "rows.zarr"

    def refused(part: str, change: Callable[[zarr.Group], object]) -> None:
        rows().to_zarr(store, row_chunk=20, overwrite=True)
        change(zarr.open_group(store, mode="r+", use_consolidated=False))
        zarr.consolidate_metadata(store)
        with pytest.raises(DamagedStore, match=f"the store at .*rows.zarr is damaged: {part}.*to_zarr"):
            System.from_zarr(store)

    def swapped(name: str) -> Callable[[zarr.Group], object]:
        return lambda group: group[name].__setitem__(slice(None), group[name][:][::-1])  # type: ignore[index]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        refused("'equation' is not", swapped("equation"))
        refused("'incidence_columns' is not", swapped("incidence_columns"))
        refused("'term' is not", lambda group: group["term"].attrs.update(unit="m"))
        refused("'regressor' is not", lambda _: shutil.rmtree(store / "regressor/c"))
        refused("its attributes are", lambda group: group.attrs.__delitem__("lrgls_format"))
        refused("its seal is", lambda _: (store / "Y/sealed").write_bytes(b"no seal"))
        rows().to_zarr(store, row_chunk=20, overwrite=True)
        rows().append_to_zarr(store)
        group = zarr.open_group(store, mode="r+", use_consolidated=False)
        group.attrs["note"] = "mine"
        group.create_array("sector", data=np.arange(4), dimension_names=["equation"])
        zarr.consolidate_metadata(store)
    assert System.from_zarr(store).n_obs == 120
    assert "sector" in System.from_zarr(store).design.equation_coords
    swapped("equation")(group)
    with pytest.raises(DamagedStore, match="on purpose, delete the key 'Y/sealed'"):
        System.from_zarr(store)
    (store / "Y/sealed").unlink()
    assert System.from_zarr(store).n_obs == 120


@pytest.mark.parametrize("compressors", [None, "auto"], ids=["plain", "packed"])
def test_chunks_that_another_program_left_out_are_named_as_that(compressors: Any, tmp_path: Path) -> None:
    """And both ways out that are named."""
    for way in ("written", "said"):
        store = tmp_path / f"{way}.zarr"
        rows().to_zarr(store, row_chunk=20, compressors=compressors)
        y = zarr.open_group(store, mode="r+")["Y"]
        assert isinstance(y, zarr.Array)
        y[20:40] = np.nan  # which zarr writes none of
        with pytest.raises((DamagedStore, OSError), match=r"another program wrote .*write_empty_chunks.*'Y/written'"):
            LowRankGLS(0, missing="drop").fit(System.from_zarr(store))
        if way == "written":
            y.with_config({"write_empty_chunks": True})[20:40] = np.nan
        else:
            (store / "Y/written").unlink()
        fit = LowRankGLS(0, missing="drop").fit(System.from_zarr(store)).result_
        assert fit.n_obs == 40


def test_compressors_are_those_of_zarr(tmp_path: Path) -> None:
    system = System.from_arrays(np.ones((9, 1)), np.ones((9, 1)))
    with pytest.raises(TypeError, match=r"gzip|str"):
        system.to_zarr(tmp_path / "text", compressors="gzip")
    system.to_zarr(tmp_path / "codec", compressors=[{"name": "crc32c"}])
    array = zarr.open_group(tmp_path / "codec")["Y"]
    assert isinstance(array, zarr.Array) and len(array.compressors) == 1


def test_equal_groups_have_equal_seals_to_the_byte(tmp_path: Path) -> None:
    group = zarr.open_group(str(tmp_path / "g"), mode="w")
    names = [f"a{i}" for i in range(4)]
    for size, name in zip((40_000, 3_000, 200, 1), names, strict=True):  # the last one is read first
        group.create_array(name, data=np.arange(size), chunks=(1,) if size == 200 else (size,), compressors=CHECKED)
    one, other = (json.dumps(seal_of(group, members=order)) for order in (names, names[::-1]))
    assert one == other
