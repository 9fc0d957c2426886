"""A killed client goes on where it was, to the same digits; other data are refused."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from dask.base import tokenize
from dask.tokenize import _normalize_dataclass

from lrgls_dask import Fit, FitWarning, LowRankGLS, System
from lrgls_dask.rows import run_pass as passes
from lrgls_dask.rows.block import Block
from lrgls_dask.rows.kernels import root_kernel
from lrgls_dask.solve import checkpoint
from lrgls_dask.solve.record import Options, Termination


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
    monkeypatch.setattr("lrgls_dask.rows.layout.SMALL_BLOCK_BYTES", 10_000)
    monkeypatch.setattr("lrgls_dask.compression.compressed.SMALL_FLOPS", 0)
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


def holes_in(system: System, tmp_path: Path, n_patterns: int | None = None) -> System:
    """The rows with a fifth of the responses missing, scattered or in a few patterns."""
    Y = np.concatenate([np.asarray(part.array[:]) for part in system.rows.y], axis=1)
    X = [
        np.concatenate([np.asarray(part.array[:]) for part in system.rows.x], axis=1)[:, c]
        for c in system.design.columns
    ]
    holes = np.random.default_rng(1).random((n_patterns or len(Y), Y.shape[1])) < 0.2
    if n_patterns is not None:
        holes = holes[np.arange(len(Y)) % n_patterns]
    System.from_arrays(np.where(holes, np.nan, Y), X).to_zarr(tmp_path / "holes.zarr", row_chunk=500)
    return System.from_zarr(tmp_path / "holes.zarr")


@pytest.mark.parametrize(
    ("rank", "rel_tol", "saves", "spared"),
    [(0, 1e-9, 1, 0), (2, 1e-9, 6, 5), ("bic", 1e-7, 10, 2)],
    ids=["diagonal", "one rank", "several ranks"],
)
def test_killed_rounds_over_missing_responses_go_on(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: Any, rel_tol: float, saves: int, spared: int
) -> None:
    holes = holes_in(system, tmp_path)
    model = LowRankGLS(rank, missing="em", engine="stream", rel_tol=rel_tol)
    whole = LowRankGLS(**model.get_params()).fit(holes).result_
    model.set_params(checkpoint=str(tmp_path / "progress"))
    revive = dies_after(monkeypatch, "save_point", saves)
    with pytest.raises(Killed):
        model.fit(holes)
    revive()
    resumed = model.fit(holes).result_
    assert resumed.n_passes <= whole.n_passes - spared
    assert resumed.trace["passes"].iloc[-1] == whole.n_passes
    assert resumed.rank == whole.rank
    assert resumed.loglik == whole.loglik
    np.testing.assert_array_equal(resumed.params.values, whole.params.values)
    np.testing.assert_array_equal(resumed.sigma().values, whole.sigma().values)
    assert not (tmp_path / "progress").exists()
    if rank == "bic":
        np.testing.assert_array_equal(resumed.selection["bic"], whole.selection["bic"])


def test_a_rank_that_had_ended_takes_no_pass(system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while standard errors are found, after the loop: what it ended with is not looked at again."""
    holes = holes_in(system, tmp_path)
    model = LowRankGLS(2, missing="em", engine="stream", checkpoint=str(tmp_path / "progress"), max_sweeps=1)
    whole = fit_quietly(LowRankGLS(**{**model.get_params(), "checkpoint": None}), holes)
    assert whole.termination is Termination.MAX_SWEEPS

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lrgls_dask.results.assemble._gls", killed)
        with pytest.raises(KeyboardInterrupt):
            model.fit(holes)
    resumed = fit_quietly(model, holes)
    assert resumed.n_passes == 3  # patterns, pairs of equations never seen together, standard errors again
    assert resumed.termination is Termination.MAX_SWEEPS and resumed.n_sweeps == whole.n_sweeps
    assert np.array_equal(resumed.params, whole.params) and np.array_equal(resumed.covariance.d, whole.covariance.d)


def test_few_patterns_are_fitted_again(system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holes = holes_in(system, tmp_path, n_patterns=5)
    plain = LowRankGLS(2, missing="em").fit(holes).result_
    model = LowRankGLS(2, missing="em", checkpoint=tmp_path / "progress")
    with monkeypatch.context() as patch:
        patch.setattr("lrgls_dask.results.assemble.choose_incomplete", lambda *_, **__: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            model.fit(holes)
    again = model.fit(holes).result_
    assert again.n_passes == plain.n_passes == 1
    assert np.array_equal(plain.params, again.params)
    assert not (tmp_path / "progress").exists()


def fit_quietly(model: LowRankGLS, system: System) -> Fit:
    """The fit of a model that is told to stop early."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return model.fit(system).result_


def test_saving_changes_no_digit(system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "SAVED_GROUPS", 1)
    monkeypatch.setattr("lrgls_dask.rows.layout.SMALL_BLOCK_BYTES", 10_000)
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


def test_options_of_later_versions_do_not_hide_what_an_earlier_one_began() -> None:
    kind, params, named = _normalize_dataclass(Options())
    earlier = [(name, value) for name, value in named if name not in ("improper", "rank_by")]
    assert tokenize(Options()) == tokenize(Token((kind, params, earlier)))
    different = {tokenize(each) for each in (Options(), Options(improper="avoid"), Options(rank_by="parallel"))}
    assert len(different) == 3 and tokenize(Options(debiased=True)) not in different


class Token:
    """What Dask makes a name of, as it is."""

    def __init__(self, parts: object) -> None:
        self.parts = parts

    def __dask_tokenize__(self) -> object:
        return self.parts


def test_a_sum_of_few_rows_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """What is triangular of it is kept too, by which it is added up."""
    rng = np.random.default_rng(0)

    def rows_of(n: int) -> Any:
        return root_kernel(Block(0, (rng.normal(size=(n, 5)),), (rng.normal(size=(n, 55)),), None))

    first, second = rows_of(10), rows_of(10)
    kept = checkpoint.Checkpoint(str(tmp_path / "c.zarr"), zarr.open_group(str(tmp_path / "c.zarr"), mode="w"))
    kept.save_sum("root", 0, first)
    again = kept.load_sum("root", 0)
    assert first.n_x == again.n_x == 5
    assert np.array_equal((again + second).root, (first + second).root)
