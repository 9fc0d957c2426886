"""Rows appended to a store: as if all had been written at once, or as if nothing had happened."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from numpy.testing import assert_allclose, assert_array_equal
from zarr.errors import ZarrUserWarning
from zarr.storage import LocalStore, MemoryStore, WrapperStore

from lrgls_dask import LowRankGLS, System
from lrgls_dask.data.storage import held_alone
from lrgls_dask.data.storedlabels import StoredLabels
from support.frames import mixed
from support.meaning import stack

N, K = 40, 3
RNG = np.random.default_rng(8)
Y, X, W = RNG.normal(size=(N, K)), RNG.normal(size=(N, 4)), RNG.uniform(0.5, 2, size=(N, K))
Y[RNG.random((N, K)) < 0.1] = np.nan
NAMES: dict[str, Any] = {"equations": ["a", "b/c", "d"], "regressors": ["const", "u", "v", "w"]}
DATES = pd.date_range("2001-01-01", periods=N, name="day")
CUTS = [(0, N // 2), (N // 2, N)]


def of_rows(start: int, stop: int, **options: Any) -> System:
    return System.from_arrays(Y[start:stop], X[start:stop], **NAMES, **options)


def frames(start: int, stop: int, index: Any = DATES, **options: Any) -> System:
    y = pd.DataFrame(Y[start:stop], columns=NAMES["equations"], index=index[start:stop])
    return System.from_arrays(y, pd.DataFrame(X[start:stop], columns=NAMES["regressors"], index=y.index), **options)


def assert_same_rows(found: System, expected: System) -> None:
    assert found.design.given.same_as(expected.design.given)
    for of in ("y", "x", "weight_parts"):
        mine, theirs = getattr(found.rows, of), getattr(expected.rows, of)
        assert bool(mine) == bool(theirs)
        if mine:
            assert_array_equal(stack(mine), stack(theirs))
    assert (found.obs is None) == (expected.obs is None)
    if found.obs is not None:
        assert found.obs.tolist() == expected.obs.tolist()
    mine, theirs = found.groups_of_rows(), expected.groups_of_rows()
    assert (mine is None) == (theirs is None) and (mine is None or mine.tolist() == theirs.tolist())


def assert_opens_everywhere(store: Any, n_obs: int) -> None:
    """In plain xarray too, and chunk by chunk when nothing but the arrays themselves is looked at."""
    assert {xr.open_zarr(store).sizes[dim] for dim in xr.open_zarr(store)["Y"].dims} == {n_obs, K}
    assert zarr.open_array(store, path="Y", mode="r").shape == (n_obs, K)


@pytest.mark.parametrize("row_chunk", [1, 7, 20, 100])
@pytest.mark.parametrize("bounds", [(20, 40), (1, 2, 40), (7, 8, 30, 40)])
def test_pieces_make_the_whole_whatever_the_chunks(row_chunk, bounds):
    store, whole = MemoryStore(), MemoryStore()
    of_rows(0, bounds[0]).to_zarr(store, row_chunk=row_chunk)
    for start, stop in pairwise(bounds):
        of_rows(start, stop).append_to_zarr(store)
        assert_opens_everywhere(store, stop)
    of_rows(0, N).to_zarr(whole)
    assert_same_rows(System.from_zarr(store, strict=True), System.from_zarr(whole))


@pytest.mark.parametrize("place", ["path", "str", "file", "memory", "store", "local store", "group"])
def test_every_kind_of_path(place, tmp_path):
    local = tmp_path / "s.zarr"
    target: Any = {
        "path": local,
        "str": str(local),
        "file": f"file://{local}",
        "memory": f"memory://{tmp_path.name}/appended.zarr",
        "store": MemoryStore(),
        "local store": LocalStore(local),
        "group": MemoryStore(),
    }[place]
    frames(*CUTS[0]).to_zarr(target, row_chunk=8)
    if place == "group":
        frames(*CUTS[1]).append_to_zarr(zarr.open_group(target, mode="r+"))
    else:
        frames(*CUTS[1]).append_to_zarr(target)
    assert_same_rows(System.from_zarr(target), frames(0, N))
    assert os.listdir(tmp_path) in ([], ["s.zarr"])


def chunked(start: int, stop: int) -> System:
    y, x = (da.from_array(each[start:stop], chunks=(6, 2)) for each in (Y, X))
    return System.from_arrays(y, x, **NAMES)


def labelled(start: int, stop: int) -> System:
    y = xr.DataArray(Y[start:stop], dims=("day", "firm"), coords={"day": DATES[start:stop], "firm": ["a", "b/c", "d"]})
    x = {name: ("day", X[start:stop, i]) for i, name in enumerate(NAMES["regressors"])}
    ds = xr.Dataset({"y": y, **x}).chunk(day=7)
    return System.from_xarray(ds, "y", NAMES["regressors"], obs="day", equation="firm")


def formulas(start: int, stop: int, known: Any = "y + y2 ~ center(x) + s", pieces: int = 0) -> System:
    frame = mixed(N).iloc[start:stop]
    return System.from_frame(dd.from_pandas(frame, npartitions=pieces) if pieces else frame, known)


@pytest.mark.parametrize("source", [of_rows, frames, chunked, labelled])
def test_whatever_the_rows_are_in(source, tmp_path):
    source(*CUTS[0]).to_zarr(tmp_path / "s.zarr", row_chunk=8)
    source(*CUTS[1]).append_to_zarr(tmp_path / "s.zarr")
    assert_same_rows(System.from_zarr(tmp_path / "s.zarr"), source(0, N))


@pytest.mark.parametrize("pieces", [0, 3])
def test_rows_of_frames_are_made_by_the_formulas_of_the_store(pieces, tmp_path):
    path = tmp_path / "s.zarr"
    formulas(*CUTS[0]).to_zarr(path, row_chunk=8)
    with pytest.raises(ValueError, match=r"(?s)center\(x\).*formulas of the first"):
        formulas(*CUTS[1]).append_to_zarr(path)
    known = System.from_zarr(path).formulas
    formulas(*CUTS[1], known=known, pieces=pieces).append_to_zarr(path)
    found = System.from_zarr(path)
    assert found.formulas.to_json() == known.to_json()
    both = formulas(0, N, known=known)
    assert_array_equal(stack(found.rows.x), stack(both.rows.x))
    fits = [LowRankGLS(0, missing="em").fit(each).result_.params.values for each in (found, both)]
    assert_allclose(fits[0], fits[1], rtol=1e-12)


WEIGHTS = {
    "rows": lambda at: W[at, 0],
    "cells": lambda at: W[at],
    "lazy cells": lambda at: da.from_array(W[at], chunks=(7, 1)),
    "equations": lambda at: np.array([1.0, 2.0, 3.0]),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_go_along(kind):
    store, whole = MemoryStore(), MemoryStore()
    for (start, stop), write in zip(CUTS, ("to_zarr", "append_to_zarr"), strict=True):
        getattr(of_rows(start, stop, weights=WEIGHTS[kind](slice(start, stop))), write)(store)
    of_rows(0, N, weights=WEIGHTS[kind](slice(None))).to_zarr(whole)
    if kind == "equations":
        assert_array_equal(System.from_zarr(store).rows.cells.constant, [1.0, 2.0, 3.0])
    assert_same_rows(System.from_zarr(store), System.from_zarr(whole))


GROUPS = {
    "integers": np.arange(N) // 4,
    "text": np.array(["u", "vv"] * (N // 2)),
    "times": np.array(pd.date_range("2020", periods=N)),
    "mixed": np.array([1, "u"] * (N // 2), dtype=object),
}


@pytest.mark.parametrize(("kind", "lazy"), [*((kind, False) for kind in GROUPS), ("integers", True), ("text", True)])
def test_groups_go_along(kind, lazy):
    store, groups = MemoryStore(), GROUPS[kind]
    for (start, stop), write in zip(CUTS, ("to_zarr", "append_to_zarr"), strict=True):
        own = groups[start:stop]
        getattr(of_rows(start, stop, groups=da.from_array(own, chunks=7) if lazy else own), write)(store)
    assert_same_rows(System.from_zarr(store), of_rows(0, N, groups=groups))


LABELS = {
    "dates": DATES,
    "zoned": pd.date_range("2001-01-01", periods=N, freq="h", tz="Europe/Berlin"),
    "seconds": pd.date_range("2001-01-01", periods=N, freq="s", unit="s"),
    "periods": pd.period_range("2001-01", periods=N, freq="M"),
    "lengths": pd.timedelta_range("1h", periods=N, freq="h"),
    "integers": pd.Index(range(5, N + 5)),
    "floats": pd.Index(np.linspace(0, 1, N)),
    "text": pd.Index([f"näme {i}" for i in range(N)]),
    "levels": pd.MultiIndex.from_product([range(N // 2), ["x", "y"]], names=["week", "half"]),
    "mixed": pd.Index([(1, "a"), "b", 3.5, "d", *range(10, N + 6)], dtype=object),
    "calendar": xr.date_range("2001-01-01", periods=N, calendar="noleap", use_cftime=True),
    "descending": pd.Index(range(N, 0, -1)),
}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("first", [1, N // 2])
def test_labels_of_rows_go_on(kind, first):
    store = MemoryStore()
    frames(0, first, LABELS[kind]).to_zarr(store)
    frames(first, N, LABELS[kind]).append_to_zarr(store)
    found = System.from_zarr(store).obs
    assert found.equals(LABELS[kind]) and found.tolist() == LABELS[kind].tolist()
    with pytest.raises(ValueError, match="there already"):
        frames(first, first + 1, LABELS[kind]).append_to_zarr(store)


def test_labels_in_another_unit_are_the_same_times():
    store = MemoryStore()
    frames(*CUTS[0], DATES.as_unit("s")).to_zarr(store)
    frames(*CUTS[1], DATES.as_unit("ns")).append_to_zarr(store)
    assert System.from_zarr(store).obs.equals(DATES.as_unit("s").rename("day"))


@pytest.mark.parametrize("kind", ["integers", "descending"])
def test_labels_that_ascend_are_not_read_again(kind, monkeypatch):
    store, index = MemoryStore(), LABELS[kind]
    frames(0, 10, index).to_zarr(store)
    reads: list[int] = []
    read = StoredLabels.read
    monkeypatch.setattr(StoredLabels, "read", lambda labels: reads.append(len(labels)) or read(labels))
    for start in (10, 20, 30):
        frames(start, start + 10, index).append_to_zarr(store)
    assert reads == ([] if kind == "integers" else [10, 20, 30])
    assert_same_rows(System.from_zarr(store), frames(0, N, index))


def plain(version: int, consolidated: bool) -> MemoryStore:
    """A store as xarray would have it, without any mark of ours."""
    store = MemoryStore()
    dims = ("day", "equation"), ("day", "regressor")
    ds = xr.Dataset(
        {"Y": (dims[0], Y[:20]), "X": (dims[1], X[:20])},
        {"day": DATES[:20], "equation": NAMES["equations"], "regressor": NAMES["regressors"]},
    )
    ds = ds.chunk(day=6).assign_coords(equation=ds.equation.astype(object), regressor=ds.regressor.astype(object))
    ds.to_zarr(store, zarr_format=version, consolidated=consolidated)
    return store


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning", "ignore:Consolidated metadata")
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("consolidated", [False, True])
def test_stores_that_xarray_wrote_in_both_versions(version, consolidated):
    store = plain(version, consolidated)
    frames(*CUTS[1]).append_to_zarr(store)
    assert_same_rows(System.from_zarr(store), frames(0, N))
    assert xr.open_zarr(store).indexes["day"].equals(DATES)


class Killed(BaseException):
    """A client that is gone: nothing is done any more, nothing cleaned up."""


class Dies(WrapperStore):
    """Nothing reaches the store after so many writes and deletions."""

    def __init__(self, store: Any, after: int = 0) -> None:
        super().__init__(store)
        self.budget = [after]

    def _with_store(self, store: Any) -> Any:
        made = type(self)(store)
        made.budget = self.budget
        return made

    @property
    def left(self) -> int:
        return self.budget[0]

    def spend(self) -> None:
        self.budget[0] -= 1
        if self.left < 0:
            raise Killed

    async def set(self, *args: Any, **options: Any) -> None:
        self.spend()
        await super().set(*args, **options)

    async def delete(self, *args: Any, **options: Any) -> None:
        self.spend()
        await super().delete(*args, **options)


class Fails(Dies):
    """The n-th write fails, the others do not."""

    def spend(self) -> None:
        self.budget[0] -= 1
        if self.left == -1:
            raise OSError("the disk is full")


def groups_of(start: int, stop: int) -> System:
    return frames(start, stop, groups=np.arange(start, stop) // 3)


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
@pytest.mark.parametrize("kind", [Dies, Fails])
@pytest.mark.parametrize("version", [0, 2, 3])
def test_an_append_that_ends_at_any_write_leaves_the_store_as_it_was(kind, version):
    make, stop = (frames if version else groups_of), 27
    for n in range(100):
        inner = plain(version, consolidated=n % 2 == 0) if version else MemoryStore()
        if not version:
            make(*CUTS[0]).to_zarr(inner, row_chunk=6)
        dies = kind(inner, n)
        try:
            make(20, stop).append_to_zarr(dies)
        except (Killed, OSError):
            there = System.from_zarr(inner)
            if kind is Fails and there.n_obs == stop:  # all was written, and the last answer lost
                continue
            assert_same_rows(there, make(*CUTS[0]))
            if n % 3 == 0:  # fewer rows than were under way
                make(20, 23).append_to_zarr(inner)
            make(System.from_zarr(inner).n_obs, stop).append_to_zarr(inner)
        assert_same_rows(System.from_zarr(inner, strict=True), make(0, stop))
        if dies.left >= 0:
            break
    assert 8 < n < 99


def files(path: Path) -> set[Path]:
    return {found for found in path.rglob("*") if found.is_file()}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_rows_that_cannot_be_read_leave_no_trace(error, tmp_path):
    path = tmp_path / "s.zarr"
    of_rows(*CUTS[0]).to_zarr(path, row_chunk=6)
    before = files(path)

    def block(values: np.ndarray, block_id: Any) -> np.ndarray:
        if block_id[0] == 2:
            raise error("no such rows")
        return values

    lazy = da.from_array(Y[20:], chunks=(6, K)).map_blocks(block, dtype=float, meta=np.empty((0, 0)))
    with pytest.raises(error):
        System.from_arrays(lazy, X[20:], **NAMES).append_to_zarr(path)
    assert files(path) == before
    assert_same_rows(System.from_zarr(path), of_rows(*CUTS[0]))


def test_files_that_a_killed_append_was_writing_are_cleared(tmp_path):
    """As zarr names them: it writes beside a file and moves that into its place."""
    path, end = tmp_path / "s.zarr", f".{'0a' * 16}.partial"
    of_rows(*CUTS[0]).to_zarr(path, row_chunk=6)
    wanted = tmp_path / "wanted.zarr"
    of_rows(*CUTS[0]).to_zarr(wanted, row_chunk=6)
    of_rows(*CUTS[1]).append_to_zarr(wanted)
    (path / "Y/c/5").mkdir()
    left = [path / f"{name}{end}" for name in ("zarr", "X/zarr", "Y/c/3/0", "Y/c/5/0")]
    mine = path / "Y/c/3/notes.partial"
    for file in (*left, mine):
        file.write_bytes(b"half")
    of_rows(*CUTS[1]).append_to_zarr(path)
    assert {str(file.relative_to(path)) for file in files(path) - {mine}} == {
        str(file.relative_to(wanted)) for file in files(wanted)
    }
    assert mine.exists()
    assert_same_rows(System.from_zarr(path), of_rows(0, N))


def test_two_at_once_are_refused(tmp_path):
    path = tmp_path / "s.zarr"
    of_rows(*CUTS[0]).to_zarr(path)
    with held_alone(path), pytest.raises(OSError, match="appended to by another"):
        of_rows(*CUTS[1]).append_to_zarr(str(path))
    of_rows(*CUTS[1]).append_to_zarr(path)
    assert System.from_zarr(path).n_obs == N


def test_a_system_opened_before_goes_on_reading_what_was_there(tmp_path):
    path = tmp_path / "s.zarr"
    of_rows(*CUTS[0]).to_zarr(path, row_chunk=6)
    opened = System.from_zarr(path)
    of_rows(*CUTS[1]).append_to_zarr(path)
    assert_same_rows(opened, of_rows(*CUTS[0]))


def test_a_store_may_be_appended_to_itself(tmp_path):
    path = tmp_path / "s.zarr"
    of_rows(*CUTS[0]).to_zarr(path, row_chunk=6)
    System.from_zarr(path).append_to_zarr(path)
    assert_array_equal(stack(System.from_zarr(path).rows.y), np.vstack([Y[:20], Y[:20]]))


def test_a_fit_of_the_store_is_that_of_all_rows(tmp_path):
    path = tmp_path / "s.zarr"
    of_rows(*CUTS[0]).to_zarr(path, row_chunk=6)
    of_rows(*CUTS[1]).append_to_zarr(path)
    fits = [LowRankGLS(0, missing="em").fit(each).result_ for each in (System.from_zarr(path), of_rows(0, N))]
    assert_allclose(fits[0].params.values, fits[1].params.values, rtol=1e-9)


@pytest.mark.parametrize("stored", ["f4", "i8", "i2", "u1"])
def test_values_that_the_store_does_not_hold_are_refused(stored):
    whole = np.arange(N * 4).reshape(N, 4) % 100
    for bad in (0.1, np.nan, 1e12):
        store, more = MemoryStore(), whole[20:].astype(float)
        System.from_arrays(Y[:20], whole[:20].astype(stored)).to_zarr(store)
        System.from_arrays(Y[20:], more).append_to_zarr(store)  # as numbers they are the same
        assert_array_equal(stack(System.from_zarr(store).rows.x), whole)
        more[7, 2] = bad
        if stored == "f4" and bad != 0.1:
            System.from_arrays(Y[20:], np.float32(more)).append_to_zarr(store)
            continue
        if stored == "i8" and bad == 1e12:
            continue
        with pytest.raises(
            ValueError, match=rf"(?s)regressor 'x2': {bad} in row 7 to append is no .*{np.dtype(stored)}"
        ):
            System.from_arrays(Y[20:], more).append_to_zarr(store)
        assert System.from_zarr(store).n_obs == N


def with_sector(start: int, stop: int, sectors: list[str]) -> System:
    y = xr.DataArray(
        Y[start:stop], dims=("day", "firm"), coords={"firm": list("abc"), "sector": ("firm", sectors)}, name="y"
    )
    x = xr.DataArray(X[start:stop, 0], dims="day", name="u")
    return System.from_xarray(None, y, [x], obs="day", equation="firm")


FIRST = of_rows(*CUTS[0])
REFUSED: dict[str, tuple[Any, Any, str]] = {
    "order of equations": (FIRST, lambda: System.from_arrays(Y, X, **NAMES | {"equations": ["b/c", "a", "d"]}),
                           r"has equation 'b/c' at position 0, where 'a' was.*in the same order"),
    "another equation": (FIRST, lambda: System.from_arrays(Y, X, **NAMES | {"equations": ["a", "b/c", "e"]}),
                         "lacks equation 'd' and has equation 'e' besides"),
    "order of regressors": (FIRST, lambda: System.from_arrays(Y, X, **NAMES | {"regressors": ["const", "v", "u", "w"]}),
                            "has regressor 'v' at position 1, where 'u' was"),
    "designs": (FIRST, lambda: System.from_arrays(Y, X, incidence=np.arange(12).reshape(4, 3) != 5, **NAMES),
                r"has regressors 'const', 'v', 'w' in equation 'd', where 'const', 'u', 'v', 'w' were"),
    "labels of rows": (FIRST, lambda: frames(*CUTS[1]), "has no row labels along 'obs', but the rows to append have"),
    "no labels of rows": (frames(*CUTS[0]), lambda: of_rows(*CUTS[1]), "has row labels along 'day', but .* have none"),
    "kinds of labels": (frames(*CUTS[0]), lambda: frames(0, N, LABELS["text"]),
                        "are text, such as 'näme 0', but those in the store are times without a zone"),
    "zones": (frames(*CUTS[0], LABELS["zoned"]), lambda: frames(*CUTS[1]), "the store are times in Europe"),
    "a unit that is too coarse": (
        frames(*CUTS[0], LABELS["seconds"]),
        lambda: frames(*CUTS[1], LABELS["seconds"].as_unit("ms") + pd.Timedelta("1ms")),
        "cannot be kept beside those in the store, which are int64 seconds since"),
    "labels that are there": (frames(*CUTS[0], LABELS["integers"]), lambda: frames(19, N, LABELS["integers"]),
                              r"24 of row 0 to append is there already, 1 such rows in all.*from 20"),
    "weights": (FIRST, lambda: of_rows(*CUTS[1], weights=W[20:]), "weights of nothing, .* weights of cells. Leave"),
    "no weights": (of_rows(*CUTS[0], weights=W[:20, 0]), lambda: of_rows(*CUTS[1]), "of rows, .* weights of nothing"),
    "other constants": (of_rows(*CUTS[0], weights=np.array([1.0, 2, 3])),
                        lambda: of_rows(*CUTS[1], weights=np.array([1.0, 5, 3])),
                        r"the weight 2.0 for equation 'b/c' in all rows, but .* have 5.0"),
    "groups": (FIRST, lambda: of_rows(*CUTS[1], groups=np.arange(20)), "has no groups, but the rows"),
    "no groups": (of_rows(*CUTS[0], groups=np.arange(20)), lambda: of_rows(*CUTS[1]), "has groups, but .* have none"),
    "kinds of groups": (of_rows(*CUTS[0], groups=np.arange(20)),
                        lambda: of_rows(*CUTS[1], groups=np.array(["u"] * 20)), "groups are text, such as 'u'"),
    "labels of equations": (with_sector(0, 20, ["s", "t", "t"]), lambda: with_sector(20, N, ["s", "s", "t"]),
                            "has 'sector' 't' for equation 'b', where the rows have 's'"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_differs_is_named_and_nothing_is_written(what):
    first, more, message = REFUSED[what]
    store = MemoryStore()
    first.to_zarr(store)
    before = dict(store._store_dict)
    with pytest.raises((ValueError, TypeError), match=f"(?s){message}"):
        more().append_to_zarr(store)
    assert store._store_dict == before


def test_stores_in_another_form_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no zarr store at .*to_zarr"):
        FIRST.append_to_zarr(tmp_path / "none.zarr")
    beside, apart = MemoryStore(), MemoryStore()
    FIRST.to_zarr(beside)
    group = zarr.open_group(beside, mode="r+", use_consolidated=False)
    group.create_array("yhat", shape=(20, 3), dtype="f8", dimension_names=("obs", "equation"))
    with pytest.warns(ZarrUserWarning):
        zarr.consolidate_metadata(beside)
    with pytest.raises(ValueError, match="has arrays 'yhat' along 'obs'"):
        of_rows(*CUTS[1]).append_to_zarr(beside)
    group = zarr.open_group(apart, mode="w")
    group.create_array("Y", data=Y[:20])
    for j in range(K):
        group.create_array(f"X/y{j}", data=X[:20])
    with pytest.raises(ValueError, match="one X and one Y"):
        System.from_zarr(apart).append_to_zarr(apart)
    again = MemoryStore()
    System.from_zarr(apart).to_zarr(again)
    System.from_zarr(apart).append_to_zarr(again)
    assert System.from_zarr(again).n_obs == N
