"""A chunk that a zarr store was never given is warned of, or refused, wherever its rows come from."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from zarr.storage import FsspecStore, LocalStore, MemoryStore, WrapperStore

from lrgls_dask import LowRankGLS, System, UnwrittenChunks
from lrgls_dask.data import unwritten

N, K, CHUNK = 60, 3, 10
RNG = np.random.default_rng(5)
X = np.column_stack([np.ones(N), RNG.normal(size=N)])
Y = 1.0 + X[:, 1:] + RNG.normal(size=(N, K))
GROUPS = np.arange(N) // 5 + 1


class ListedStore(WrapperStore):
    """A store that counts listings, and reads of chunks."""

    def __init__(self, store: Any, *, lists: bool = True) -> None:
        super().__init__(store)
        self.asked: Counter[str] = Counter()
        self.lists = lists

    @property
    def supports_listing(self) -> bool:
        return self.lists

    def with_read_only(self, read_only: bool = False) -> ListedStore:
        return self

    async def list_prefix(self, prefix: str) -> Any:
        self.asked[f"list {prefix}"] += 1
        async for key in self._store.list_prefix(prefix):
            yield key

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        if "/c/" in key:
            self.asked["get"] += 1
        return await self._store.get(key, prototype, byte_range)


def written(store: Any, *, lost: tuple[int, ...] = (), fill: Any = 0.0, name: str = "Y", **options: Any) -> Any:
    """A group with Y, X, weights and groups in chunks of 10 rows, those with these numbers of one array not written."""
    group = zarr.open_group(store, mode="w", zarr_format=options.get("zarr_format", 3))
    for title, values in {"Y": Y, "X": X, "weights": np.ones(N), "groups": GROUPS}.items():
        dims = {"Y": ("obs", "equation"), "X": ("obs", "regressor")}.get(title, ("obs",))
        array = group.create_array(
            title,
            shape=values.shape,
            chunks=(CHUNK // 2 if "shards" in options else CHUNK, *values.shape[1:]),
            shards=(CHUNK, *values.shape[1:]) if "shards" in options else None,
            dtype=values.dtype,
            fill_value=fill if values.dtype.kind == "f" else 0,
            **({"dimension_names": dims} if group.metadata.zarr_format == 3 else {}),
        )
        if group.metadata.zarr_format == 2:
            array.attrs["_ARRAY_DIMENSIONS"] = list(dims)
        for i in range(N // CHUNK):
            if title != name or i not in lost:
                array[i * CHUNK : i * CHUNK + CHUNK] = values[i * CHUNK : i * CHUNK + CHUNK]
    return store


def quiet(call: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return call()


def check_told(call: Callable[..., Any], text: str) -> None:
    """Warned of, or refused where that is asked for."""
    with pytest.warns(UnwrittenChunks, match=text) as told:
        call()
    assert sum(issubclass(each.category, UnwrittenChunks) for each in told) == 1
    with pytest.raises(ValueError, match=text):
        call(strict=True)


def stores(tmp_path: Any) -> dict[str, Any]:
    return {
        "path": str(tmp_path / "s.zarr"),
        "local": LocalStore(tmp_path / "l.zarr"),
        "memory": MemoryStore(),
        "fsspec": FsspecStore.from_url(f"memory://bucket{tmp_path}/s.zarr"),
        "url": f"memory://bucket{tmp_path}/u.zarr",
    }


@pytest.mark.parametrize("where", ["path", "local", "memory", "fsspec", "url"])
@pytest.mark.parametrize("options", [{}, {"zarr_format": 2}, {"shards": True}], ids=["v3", "v2", "shards"])
@pytest.mark.parametrize("name", ["Y", "X", "weights", "groups"])
def test_stores_that_lack_chunks(where: str, options: dict[str, Any], name: str, tmp_path: Any) -> None:
    store = written(stores(tmp_path)[where], lost=(1, 4), name=name, **options)
    kind = "shards" if options.get("shards") else "chunks"
    numbers = r"\(1, 0\), \(4, 0\)" if name in ("Y", "X") else "1, 4"
    value = "0" if name == "groups" else r"0\.0"
    text = f"{name}: 2 of the 6 {kind} of .*{name} were never written, numbers {numbers}; .* the fill value, {value}"
    check_told(lambda **strict: System.from_zarr(store, **strict), text)
    whole = written(stores(tmp_path / "whole")[where], **options)
    assert quiet(lambda: System.from_zarr(whole, strict=True)).n_obs == N


OPENED: dict[str, Callable[..., System]] = {
    "zarr": lambda path, **strict: System.from_arrays(zarr.open_group(path)["Y"], zarr.open_group(path)["X"], **strict),
    "list": lambda path, **strict: System.from_arrays(Y, [zarr.open_group(path)["Y"]] * K, **strict),
    "dask": lambda path, **strict: System.from_arrays(da.from_zarr(f"{path}/Y") * 2.0 + 1.0, X, **strict),
    "weights": lambda path, **strict: System.from_arrays(Y, X, weights=da.from_zarr(f"{path}/Y")[:, 1], **strict),
    "xarray": lambda path, **strict: System.from_xarray(opened(path), "Y", ["X"], **strict),
    "unchunked": lambda path, **strict: System.from_xarray(opened(path, chunks=None), "Y", ["X"], **strict),
    "rows": lambda path, **strict: System.from_xarray(opened(path).isel(obs=slice(5, 50)), "Y", ["X"], **strict),
}


def opened(path: str, **options: Any) -> xr.Dataset:
    return xr.open_zarr(path, consolidated=False, **options)


@pytest.mark.parametrize("call", OPENED.values(), ids=OPENED)
def test_arrays_that_lack_chunks(call: Callable[..., System], tmp_path: Any) -> None:
    path = written(str(tmp_path / "s.zarr"), lost=(0, 5))
    check_told(lambda **strict: call(path, **strict), r"2 of the 6 chunks of .*/s\.zarr/Y were never written")
    whole = written(str(tmp_path / "whole.zarr"))
    assert quiet(lambda: call(whole, strict=True)).n_equations == K


def test_new_data_of_predictions(tmp_path: Any) -> None:
    fit = LowRankGLS(rank=0).fit(System.from_arrays(Y, X)).result_
    path = written(str(tmp_path / "s.zarr"), lost=(2,), name="X")
    with pytest.warns(UnwrittenChunks, match=r"data: 1 of the 6 chunks of .*X were never written, numbers \(2, 0\)"):
        fit.predict(zarr.open_group(path)["X"])
    with pytest.warns(UnwrittenChunks, match="y: 1 of the 6 chunks"):
        fit.predict_given(X, da.from_zarr(written(str(tmp_path / "t.zarr"), lost=(2,)), "Y"))


def test_labels_of_rows(tmp_path: Any) -> None:
    path = written(str(tmp_path / "s.zarr"))
    labels = zarr.open_group(path).create_array("obs", shape=(N,), chunks=(CHUNK,), dtype="int64")
    labels[CHUNK:] = np.arange(CHUNK, N)
    check_told(lambda **strict: System.from_zarr(path, **strict), "obs: 1 of the 6 chunks .* numbers 0;")


def test_the_message_counts_and_shows_the_first(tmp_path: Any) -> None:
    group = zarr.open_group(tmp_path / "s.zarr", mode="w")
    for name, values in (("Y", Y), ("X", X)):
        group.create_array(name, shape=values.shape, chunks=(1, values.shape[1]), dtype="f8", fill_value=7.5)
    group["X"][...] = X
    text = (
        "Y: 60 of the 60 chunks .* numbers " + ", ".join(rf"\({i}, 0\)" for i in range(5)) + r", \.\.\.; .* value, 7\.5"
    )
    check_told(lambda **strict: System.from_zarr(tmp_path / "s.zarr", **strict), text)


def test_nan_and_our_own_stores_are_not_warned_of(tmp_path: Any) -> None:
    lost = written(str(tmp_path / "nan.zarr"), lost=(1,), fill=np.nan)
    system = quiet(lambda: System.from_zarr(lost, strict=True))
    with pytest.raises(ValueError, match="NaN value at row 10"):
        LowRankGLS(rank=0).fit(system)
    zeros, flags = np.zeros((N, 1)), np.repeat([False, True], N // 2)[:, None]
    for i, more in enumerate((zeros, zeros.astype(int), flags, flags.astype(np.int8))):
        made = System.from_arrays(
            np.where(np.arange(N) < 20, 0.0, Y.T).T, np.column_stack([X, more]), groups=flags[:, 0]
        )
        only = System.from_arrays(np.where(np.arange(N) < 20, 0, 1), [np.concatenate([more, 1 - more], axis=1)])
        for j, each in enumerate((made, only)):
            each.to_zarr(tmp_path / f"{i}{j}.zarr", row_chunk=5)
            assert quiet(lambda i=i, j=j: System.from_zarr(tmp_path / f"{i}{j}.zarr", strict=True)).n_obs == N


def test_what_zarr_leaves_out_by_itself_is_said_to_be_possible(tmp_path: Any) -> None:
    dummy = xr.Dataset({"y": ("obs", Y[:, 0]), "x": ("obs", np.ones(N)), "d": ("obs", (np.arange(N) >= 20) * 1)})
    dummy.chunk(obs=CHUNK).to_zarr(tmp_path / "s.zarr", zarr_format=3, consolidated=False)
    if not (tmp_path / "s.zarr" / "d" / "c" / "0").exists():
        with pytest.warns(UnwrittenChunks, match=r"x\['d'\]: 2 of the 6 .*leaves out chunks that hold nothing else"):
            system = System.from_xarray(opened(tmp_path / "s.zarr"), "y", ["x", "d"])
    else:
        system = quiet(lambda: System.from_xarray(opened(tmp_path / "s.zarr"), "y", ["x", "d"]))
    wanted = np.linalg.lstsq(np.column_stack([np.ones(N), np.arange(N) >= 20]), Y[:, 0])[0]
    np.testing.assert_allclose(LowRankGLS(rank=0).fit(system).result_.coefficients, wanted, rtol=1e-8)


def test_costs_one_listing_of_each_array(monkeypatch: pytest.MonkeyPatch) -> None:
    store = ListedStore(written(MemoryStore()))
    System.from_zarr(store)
    assert store.asked == {"list Y/": 1, "list X/": 1, "list weights/": 1, "list groups/": 1}
    same = zarr.open_group(store, mode="r")["X"]
    store.asked.clear()
    System.from_arrays(Y, [same, da.from_zarr(same), same[...]])
    assert store.asked.pop("get") == 6  # for the array in memory
    assert store.asked == {"list X/": 1}
    store.asked.clear()
    System.from_zarr(ListedStore(written(MemoryStore(), fill=np.nan)))
    monkeypatch.setattr(unwritten, "LISTED", 5)
    system = System.from_zarr(store)  # of more chunks than are listed unasked
    LowRankGLS(rank=0).fit(system)
    assert not [each for each in store.asked if each.startswith("list")]
    System.from_zarr(store, strict=True)
    assert store.asked["list Y/"] == 1


def test_stores_that_list_nothing() -> None:
    store = ListedStore(written(MemoryStore(), lost=(1,)), lists=False)
    y = zarr.open_group(store, mode="r")["Y"]
    assert quiet(lambda: System.from_arrays(y, X)).n_obs == N
    with pytest.raises(ValueError, match=r"Y: .* lists no keys, so strict=True cannot tell"):
        System.from_arrays(y, X, strict=True)


def test_the_remedy_of_strict_is_taken_at_its_word(tmp_path: Any) -> None:
    path = written(str(tmp_path / "s.zarr"), lost=(1,))
    with pytest.raises(ValueError, match=re.escape("Write the missing chunks, or leave out strict=True.")):
        System.from_zarr(path, strict=True)
    zarr.open_group(path)["Y"][CHUNK : 2 * CHUNK] = Y[CHUNK : 2 * CHUNK]
    fit = LowRankGLS(rank=0).fit(System.from_zarr(path, strict=True)).result_
    np.testing.assert_allclose(fit.coefficients[:2], np.linalg.lstsq(X, Y[:, 0])[0], rtol=1e-8)
    assert isinstance(fit.params.to_pandas(), pd.Series)
