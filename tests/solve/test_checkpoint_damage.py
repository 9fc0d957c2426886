"""A checkpoint that is not what was written is refused by name, or leads to the same bits."""

from __future__ import annotations

import json
import shutil
import warnings
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import zarr

from lrgls_dask import Fit, LowRankGLS, System
from lrgls_dask.errors import DamagedStore, FitWarning
from lrgls_dask.rows import run_pass as passes
from lrgls_dask.solve import checkpoint
from support.damage import damages, files_of, flipped
from support.faulty import ServerError
from support.systems import simulate

LOOP: dict[str, Any] = {"engine": "stream", "algorithm": "em", "max_sweeps": 3}
SUMS: dict[str, Any] = {"engine": "compress"}


class Killed(Exception):
    """Stands for the end of the client."""


@cache
def rows() -> System:
    data = simulate("own", n=400, K=3, seed=1)
    return System.from_arrays(data.Y, data.Xs)


def fit(**options: Any) -> Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LowRankGLS(rank=1, **options).fit(rows()).result_


def killed(monkeypatch: pytest.MonkeyPatch, path: Path, saves: str, count: int, options: dict[str, Any]) -> None:
    """A checkpoint at `path` as a client left it that was killed after so many saves."""
    original, done = getattr(checkpoint.Checkpoint, saves), []

    def save(self: checkpoint.Checkpoint, *args: object) -> None:
        original(self, *args)
        done.append(args)
        if len(done) == count:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoint, saves, save)
        with pytest.raises(Killed):
            fit(checkpoint=path, **options)


@pytest.fixture
def in_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows are saved as many are."""
    monkeypatch.setattr(passes, "SAVED_GROUPS", 1)
    monkeypatch.setattr("lrgls_dask.rows.layout.SMALL_BLOCK_BYTES", 2_000)
    monkeypatch.setattr("lrgls_dask.rows.layout.PARTIAL_SHARE", 0)


def every_damage(kept: Path, place: Path, whole: Fit, options: dict[str, Any], bits: int, every: int) -> Counter[str]:
    """How it ended where one file in `every` of a checkpoint was damaged, and that was gone on from."""
    ends: Counter[str] = Counter()
    rng = np.random.default_rng(3)
    for file in files_of(kept)[::every]:
        for how, content in damages(file.read_bytes(), bits, rng):
            shutil.copytree(kept, place)
            there = place / file.relative_to(kept)
            there.unlink() if content is None else there.write_bytes(content)
            try:
                found = fit(checkpoint=place, **options)
            except (ValueError, OSError) as error:
                assert str(place) in str(error), (file, how, error)
                ends["refused"] += 1
            else:
                np.testing.assert_array_equal(found.params.values, whole.params.values, err_msg=f"{file} {how}")
                assert found.loglik == whole.loglik, (file, how)
                ends["the same bits"] += 1
            shutil.rmtree(place, ignore_errors=True)
    return ends


@pytest.mark.parametrize(
    ("options", "saves", "bits", "every", "refused"),
    [
        pytest.param(LOOP, "save_point", 1, 3, False, id="loop"),  # where the other state is whole
        pytest.param(SUMS, "save_sum", 1, 11, True, id="sums"),
        pytest.param(LOOP, "save_point", 60, 1, True, id="loop, all", marks=pytest.mark.slow),
        pytest.param(SUMS, "save_sum", 20, 1, True, id="sums, all", marks=pytest.mark.slow),
    ],
)
def test_no_damage_is_silent(
    monkeypatch: pytest.MonkeyPatch,
    in_sums: None,
    tmp_path: Path,
    options: dict[str, Any],
    saves: str,
    bits: int,
    every: int,
    refused: bool,
) -> None:
    killed(monkeypatch, tmp_path / "kept", saves, 2, options)
    ends = every_damage(tmp_path / "kept", tmp_path / "place", fit(**options), options, bits, every)
    print(dict(ends))
    assert (ends["refused"] > 3) == refused and ends.total() > 9


def test_what_is_damaged_is_named_and_goes_on_without(
    monkeypatch: pytest.MonkeyPatch, in_sums: None, tmp_path: Path
) -> None:
    path = tmp_path / "kept"
    killed(monkeypatch, path, "save_sum", 2, SUMS)
    entry = next(path.glob("*-0"))
    zarr.open_group(entry, mode="r+").attrs["n_rows"] = 7
    with pytest.raises(DamagedStore, match=rf"the checkpoint at {entry} is damaged: its attributes are not .* delete"):
        fit(checkpoint=path)
    shutil.rmtree(entry)
    assert np.array_equal(fit(checkpoint=path).params, fit().params)


def states(path: Path) -> list[Path]:
    """Of the loop, the later first."""
    found = [file.parent for file in path.glob("loop-*/zarr.json")]
    return sorted(found, key=lambda place: -int(json.loads((place / "zarr.json").read_text())["attributes"]["serial"]))


@pytest.mark.parametrize("cut", ["numbers emptied", "numbers gone", "metadata emptied", "a bit", "serial edited"])
def test_a_damaged_later_state_is_left_for_the_whole_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cut: str
) -> None:
    """As after a power cut: named, and gone on from the one before; killed again at once, still whole."""
    path = tmp_path / "kept"
    killed(monkeypatch, path, "save_point", 2, LOOP)
    later, earlier = states(path)
    chunk = next((later / "c").rglob("0*"))
    chunk = chunk if chunk.is_file() else chunk / "0"
    if cut == "numbers emptied":
        chunk.write_bytes(b"")
    elif cut == "numbers gone":
        chunk.unlink()
    elif cut == "metadata emptied":
        (later / "zarr.json").write_bytes(b"")
    elif cut == "a bit":
        chunk.write_bytes(flipped(chunk.read_bytes(), 77))
    else:
        zarr.open_array(later, mode="r+").attrs["serial"] = "three"
    was = (earlier / "zarr.json").read_bytes()
    with pytest.raises(Killed), monkeypatch.context() as patch, pytest.warns(FitWarning, match=rf"{later} is damaged"):
        patch.setattr(checkpoint.Checkpoint, "save_point", Mock(side_effect=Killed))
        LowRankGLS(rank=1, checkpoint=path, **LOOP).fit(rows())
    killed(monkeypatch, path, "save_point", 1, LOOP)
    assert (earlier / "zarr.json").read_bytes() == was  # its successor stands where the damaged one stood
    found, whole = fit(checkpoint=path, **LOOP), fit(**LOOP)
    assert np.array_equal(found.params, whole.params) and found.loglik == whole.loglik


def test_with_both_states_damaged_it_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "kept"
    killed(monkeypatch, path, "save_point", 2, LOOP)
    both = states(path)
    for document in ("c/0", "zarr.json"):
        for place in both:
            (place / document).write_bytes(b"")
        with pytest.raises(DamagedStore, match=r"the checkpoint at .*kept/loop-.* is damaged: .* delete it"):
            fit(checkpoint=path, **LOOP)


def test_a_store_that_does_not_answer_is_not_begun_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "kept"
    killed(monkeypatch, path, "save_point", 2, LOOP)
    kept = checkpoint.Checkpoint.at(path, rows().rows)
    name = states(path)[0].name.rpartition("-")[0]
    with monkeypatch.context() as patch:
        patch.setattr(zarr.Group, "get", Mock(side_effect=ServerError(403)))
        with pytest.raises(ServerError):
            kept.load_point(name)
    assert kept.load_point(name) is not None


def test_one_that_an_earlier_version_began_is_gone_on_with(
    monkeypatch: pytest.MonkeyPatch, in_sums: None, tmp_path: Path
) -> None:
    """Without seals."""
    path = tmp_path / "kept"
    killed(monkeypatch, path, "save_sum", 2, SUMS)
    for folder in (path, *path.glob("*-?")):
        del zarr.open_group(folder, mode="r+").attrs["lrgls_seal"]
    assert np.array_equal(fit(checkpoint=path).params, fit().params)
