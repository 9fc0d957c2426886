"""A killed client goes on where it was, to the same digits; other data are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lrgls_dask import LowRankGLS, System, checkpoint, passes


class Killed(Exception):
    """Stands for the end of the client."""


@pytest.fixture
def system(tmp_path: Path) -> System:
    rng = np.random.default_rng(5)
    X = [rng.standard_normal((6000, 3)) + 1.0 for _ in range(8)]
    F = rng.standard_normal((8, 2))
    Y = np.column_stack([x @ rng.standard_normal(3) for x in X])
    Y += rng.standard_normal((6000, 2)) @ F.T + rng.standard_normal((6000, 8))
    System.from_arrays(Y, X).to_zarr(tmp_path / "data.zarr", row_chunk=40)
    return System.from_zarr(tmp_path / "data.zarr")


def dies_after(monkeypatch: pytest.MonkeyPatch, name: str, count: int) -> Callable[[], None]:
    """Let Checkpoint.<name> succeed `count` times and then raise; returns how to undo it."""
    original = getattr(checkpoint.Checkpoint, name)
    calls = []

    def save(self: checkpoint.Checkpoint, *args: object) -> None:
        original(self, *args)
        calls.append(args)
        if len(calls) == count:
            raise Killed

    monkeypatch.setattr(checkpoint.Checkpoint, name, save)
    return lambda: monkeypatch.setattr(checkpoint.Checkpoint, name, original)


@pytest.mark.parametrize(("engine", "saves", "count"), [("compress", "save_sum", 2), ("stream", "save_point", 1)])
def test_killed_fit_goes_on(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, saves: str, count: int
) -> None:
    monkeypatch.setattr(passes, "SAVED_GROUPS", 1)
    monkeypatch.setattr("lrgls_dask.layout.SMALL_BLOCK_BYTES", 10_000)
    monkeypatch.setattr("lrgls_dask.compress.SMALL_FLOPS", 0)
    model = LowRankGLS(rank=2, engine=engine, rel_tol=1e-12)
    whole = LowRankGLS(**model.get_params()).fit(system).result_
    model.set_params(checkpoint=str(tmp_path / "progress"))
    revive = dies_after(monkeypatch, saves, count)
    with pytest.raises(Killed):
        model.fit(system)
    assert (tmp_path / "progress").exists()
    revive()
    resumed = model.fit(system).result_
    assert np.array_equal(resumed.params, whole.params)
    assert np.array_equal(resumed.covariance.d, whole.covariance.d)
    assert not (tmp_path / "progress").exists()
    if engine == "stream":
        assert resumed.n_passes < whole.n_passes


def test_saving_changes_no_digit(system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "SAVED_GROUPS", 1)
    monkeypatch.setattr("lrgls_dask.layout.SMALL_BLOCK_BYTES", 10_000)
    plain = LowRankGLS(rank=1).fit(system).result_
    saved = LowRankGLS(rank=1, checkpoint=tmp_path / "progress").fit(system).result_
    assert np.array_equal(plain.params, saved.params)


def test_checkpoint_of_other_data_is_refused(system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    revive = dies_after(monkeypatch, "save_sum", 1)
    with pytest.raises(Killed):
        LowRankGLS(rank=1, checkpoint=tmp_path / "progress").fit(system)
    revive()
    shutil.copytree(tmp_path / "data.zarr", tmp_path / "other.zarr")
    other = System.from_zarr(tmp_path / "other.zarr")
    with pytest.raises(ValueError, match="belongs to other data"):
        LowRankGLS(rank=1, checkpoint=tmp_path / "progress").fit(other)
