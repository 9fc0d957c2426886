"""A client that dies in the middle of any write or deletion leaves a checkpoint that the next one can use."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zarr.storage import LocalStore

from lrgls_dask import Fit, LowRankGLS, System
from lrgls_dask.rows import run_pass as passes
from support.systems import simulate


class Killed(BaseException):
    """Stands for the end of the client: nothing that runs after it may touch the disk."""


class Dying:
    """Counts operations on files; at the n-th, which is done in part or not at all, and at all later ones it dies."""

    def __init__(self, n: int, *, half: bool) -> None:
        self.n, self.half, self.done = n, half, 0

    def __call__(self, half: Callable[[], Any], whole: Callable[[], Any]) -> Any:
        self.done += 1
        if self.done < self.n:
            return whole()
        if self.done == self.n and self.half:
            half()
        raise Killed


@contextmanager
def dying(monkeypatch: pytest.MonkeyPatch, at: Dying) -> Iterator[None]:
    """Every write of a key, rename and deletion of a folder goes through `at`."""
    put, rename, rmtree = LocalStore.set, os.rename, shutil.rmtree

    async def write(self: LocalStore, key: str, value: Any) -> None:
        at.done += 1
        if at.done < at.n:
            return await put(self, key, value)
        if at.done == at.n and at.half:
            path = Path(self.root) / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(value.to_bytes()[: len(value.to_bytes()) // 2])
        raise Killed

    def some(path: Any) -> None:
        """The first of its files only, which is the metadata."""
        files = sorted(file for file in Path(path).rglob("*") if file.is_file())
        for file in reversed(files[-1:]):
            file.unlink()

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "set", write)
        patch.setattr(os, "rename", lambda a, b: at(lambda: None, lambda: rename(a, b)))
        patch.setattr(shutil, "rmtree", lambda p, *a, **k: at(lambda: some(p), lambda: rmtree(p, *a, **k)))
        yield


ALS: dict[str, Any] = {"engine": "stream", "max_sweeps": 2, "rel_tol": 1e-14}
EM: dict[str, Any] = {"engine": "stream", "algorithm": "em", "max_sweeps": 3}


@cache
def rows() -> System:
    data = simulate("own", n=120, K=4, seed=1)
    return System.from_arrays(data.Y, data.Xs)


def fit(**options: Any) -> Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LowRankGLS(rank=1, **options).fit(rows()).result_


@pytest.mark.parametrize("half", [False, True], ids=["before", "in the middle"])
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"engine": "stream", "max_sweeps": 3, "rel_tol": 1e-14}, id="als"),
        pytest.param({"engine": "stream", "algorithm": "em", "max_sweeps": 3}, id="em"),
        pytest.param({}, id="sums", marks=pytest.mark.slow),  # hundreds of files
    ],
)
def test_whatever_file_it_dies_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: dict[str, Any], half: bool
) -> None:
    if not options:
        monkeypatch.setattr(passes, "SAVED_GROUPS", 1)
        monkeypatch.setattr("lrgls_dask.rows.layout.SMALL_BLOCK_BYTES", 2_000)
        monkeypatch.setattr("lrgls_dask.rows.layout.PARTIAL_SHARE", 0)
    whole = fit(**options)
    for n in range(1, 500):
        path = tmp_path / str(n) / "kept"
        path.parent.mkdir()
        at = Dying(n, half=half)
        with dying(monkeypatch, at), suppress(Killed):
            fit(checkpoint=path, **options)
        if at.done < n:
            break
        found = fit(checkpoint=path, **options)
        np.testing.assert_array_equal(found.params.values, whole.params.values, err_msg=f"operation {n}")
        assert found.loglik == whole.loglik
        assert found.trace.drop(columns="seconds").equals(whole.trace.drop(columns="seconds"))
        assert not path.exists()
    assert n > 5


def test_a_second_death_on_the_way_is_no_worse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole, deaths = fit(**EM), 0
    for _ in range(200):
        try:
            with dying(monkeypatch, Dying(6, half=deaths % 2 == 0)):
                found = fit(checkpoint=tmp_path / "kept", **EM)
            break
        except Killed:
            deaths += 1
    assert deaths > 1
    np.testing.assert_array_equal(found.params.values, whole.params.values)
    assert found.trace.drop(columns="seconds").equals(whole.trace.drop(columns="seconds"))
