"""Imports and appends that are killed at any moment: a store is as it was, or whole, and what was begun is ended."""

from __future__ import annotations

import ctypes
import os
import re
import warnings
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from distributed import Client
from numpy.testing import assert_array_equal

from lrgls_dask import System
from lrgls_dask.data.seal import WRITTEN
from lrgls_dask.data.storage import new_store, remove_store
from support.killed import append_rows, import_in_small_pieces, killed_after, killed_while_writing, rows_of
from support.meaning import stack

pytestmark = [pytest.mark.usefixtures("in_tmp_path")]
OLD, NEW = 1_000, 12_000  # rows of a store that is appended to
WORDS = ["t.csv", "s.zarr", "--formula", "a + b ~ x + z", "--row-chunk", "20"]


@pytest.fixture
def table() -> pd.DataFrame:
    """600 rows in t.csv."""
    made = pd.DataFrame(np.random.default_rng(1).normal(size=(600, 4)), columns=["a", "b", "x", "z"])
    made.to_csv("t.csv", index=False)
    return made


def files_of(path: str) -> dict[str, bytes]:
    """What every file of a store holds, but for the mark that each writing of arrays has to itself."""
    files = (file for file in sorted(Path(path).rglob("*")) if file.is_file())
    mark = re.compile(rf'("{WRITTEN}": )"[0-9a-f]+"'.encode())
    return {str(file.relative_to(path)): mark.sub(rb"\1", file.read_bytes()) for file in files}


def assert_rows(path: str, n_rows: int) -> None:
    """That a store opens with so many rows of `rows_of`, in plain xarray too."""
    found, wanted = System.from_zarr(path, strict=True), rows_of(0, n_rows)
    assert found.n_obs == n_rows
    assert_array_equal(stack(found.rows.y), stack(wanted.rows.y))
    assert_array_equal(stack(found.rows.x), stack(wanted.rows.x))
    with xr.open_zarr(path) as ds:
        assert_array_equal(ds["Y"], stack(wanted.rows.y))


KILLS = [(0, 2), *(pytest.param(seed, 12, marks=pytest.mark.slow) for seed in range(1, 4))]
kills = pytest.mark.parametrize(("seed", "n_kills"), KILLS)


@kills
def test_an_import_that_is_killed_again_and_again(seed, n_kills, table):
    took = killed_after(None, import_in_small_pieces, *[word.replace("s.z", "whole.z") for word in WORDS])
    rng = np.random.default_rng(seed)
    for _ in range(n_kills):
        killed_after(float(rng.uniform(0.1, 0.9)) * took, import_in_small_pieces, *WORDS)
        if Path("s.zarr").exists():
            break
    else:
        killed_after(None, import_in_small_pieces, *WORDS)
    assert_array_equal(stack(System.from_zarr("s.zarr", strict=True).rows.y), table[["a", "b"]])
    assert files_of("s.zarr") == files_of("whole.zarr")


@kills
def test_an_old_store_stays_until_the_new_one_is_whole(seed, n_kills, table):
    rows_of(0, 50).to_zarr("s.zarr")
    old, rng = files_of("s.zarr"), np.random.default_rng(seed)
    took = killed_after(None, import_in_small_pieces, *[word.replace("s.z", "whole.z") for word in WORDS])
    new = files_of("whole.zarr")
    for _ in range(n_kills):
        killed_after(float(rng.uniform(0.5, 1.1)) * took, import_in_small_pieces, *WORDS, "--overwrite")
        assert files_of("s.zarr") in (old, new)
    killed_after(None, import_in_small_pieces, *WORDS, "--overwrite")
    assert files_of("s.zarr") == new


@kills
def test_an_append_that_is_killed(seed, n_kills):
    rows_of(0, OLD).to_zarr("whole.zarr", row_chunk=300)
    rows_of(0, OLD).to_zarr("s.zarr", row_chunk=300)
    took = killed_after(None, append_rows, "whole.zarr", OLD, NEW)
    assert_rows("whole.zarr", NEW)
    counts, rng = [OLD], np.random.default_rng(seed)
    for _ in range(n_kills):
        killed_after(float(rng.uniform(0, 1.1)) * took, append_rows, "s.zarr", OLD, NEW)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            counts.append(System.from_zarr("s.zarr").n_obs)
        assert counts[-1] in (OLD, NEW)
        assert_rows("s.zarr", counts[-1])
        if counts[-1] == NEW:
            break
    if counts[-1] == OLD:
        killed_after(None, append_rows, "s.zarr", OLD, NEW)
    assert files_of("s.zarr") == files_of("whole.zarr")


def test_at_no_moment_is_nothing_there(monkeypatch):
    rows_of(0, 50).to_zarr("s.zarr")
    there, rename = [], os.rename

    def renamed(one: str, another: str) -> None:
        rename(one, another)
        there.append(Path("s.zarr", "zarr.json").exists())

    monkeypatch.setattr(os, "rename", renamed)
    rows_of(0, 60).to_zarr("s.zarr", overwrite=True)
    assert there and all(there)
    assert_rows("s.zarr", 60)
    assert [path.name for path in Path().iterdir()] == ["s.zarr"]


@pytest.mark.parametrize("left_out", ["renameat2", "the system"])
def test_where_stores_cannot_be_exchanged_they_are_moved(left_out, monkeypatch):
    def none(*given: object) -> object:
        raise OSError

    rows_of(0, 50).to_zarr("s.zarr")
    monkeypatch.setattr(ctypes, "CDLL", none if left_out == "the system" else lambda *given, **named: object())
    rows_of(0, 60).to_zarr("s.zarr", overwrite=True)
    assert_rows("s.zarr", 60)
    assert [path.name for path in Path().iterdir()] == ["s.zarr"]


def test_rows_are_appended_from_a_cluster_as_without(client: Client, table):
    table.insert(0, "day", pd.date_range("2001", periods=len(table)))
    old = System.from_frame(table[:200], "a + b ~ x + z", obs="day")
    table[200:].to_parquet("p.parquet", row_group_size=100)
    for path in ("with.zarr", "without.zarr"):
        old.to_zarr(path, row_chunk=64)
    System.from_parquet("p.parquet", old.formulas).append_to_zarr("with.zarr")
    with dask.config.set(scheduler="threads"):
        System.from_parquet("p.parquet", old.formulas).append_to_zarr("without.zarr")
    assert files_of("with.zarr") == files_of("without.zarr")
    assert_array_equal(stack(System.from_zarr("with.zarr").rows.y), table[["a", "b"]])


def hidden() -> list[str]:
    return sorted(name for name in os.listdir() if name.startswith("."))


def test_what_a_killed_process_was_writing_is_cleared_by_the_next():
    with pytest.raises(AssertionError):
        killed_after(None, killed_while_writing, "s.zarr")
    assert len(hidden()) == 1 and not Path("s.zarr").exists()
    rows_of(0, 40).to_zarr("other.zarr")
    assert len(hidden()) == 1  # which is of another store
    rows_of(0, 40).to_zarr("s.zarr")
    assert hidden() == []
    assert_rows("s.zarr", 40)


def test_what_another_is_writing_and_what_is_none_of_ours_stays():
    for mine in (".s.zarr.partial", ".s.zarr.0123abcd.partial", ".s.zarr.0123abcd-0123abcd.partial"):
        Path(mine).mkdir()
    with new_store("s.zarr") as store:
        zarr.create_group(store).create_array("Y", data=np.ones(3))
        held = hidden()
        rows_of(0, 40).to_zarr("s.zarr")
        assert hidden() == held and len(held) == 4
        remove_store("s.zarr")
    assert_array_equal(zarr.open_group("s.zarr", mode="r")["Y"][...], np.ones(3))
    assert len(hidden()) == 3
