"""A fit whose client was killed after any of its sweeps ends as if it had not been, to the last bit of the trace."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lrgls_dask import BlockLowRank, Fit, GroupedLowRank, Known, LowRankGLS, SparseLowRank, System
from lrgls_dask.solve.checkpoint import Checkpoint
from support.systems import simulate

N, K = 150, 6
GROUPS = {f"y{j}": "a" if j < 3 else "b" for j in range(K)}


class Killed(BaseException):
    """Stands for the end of the client."""


@cache
def rows(holes: bool = False) -> System:
    data = simulate("own", n=N, K=K, seed=4)
    Y = data.Y.copy()
    if holes:
        Y[np.random.default_rng(2).random(Y.shape) < 0.15] = np.nan
    return System.from_arrays(Y, data.Xs)


def fit(system: System, **options: Any) -> Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LowRankGLS(**options).fit(system).result_


def killed_after(n: int, monkeypatch: pytest.MonkeyPatch, system: System, **options: Any) -> bool:
    """Whether the client died, after its n-th saving; it lives where it saves less often."""
    saved, save = [], Checkpoint.save_point

    def dies(self: Checkpoint, *args: Any) -> None:
        save(self, *args)
        saved.append(args)
        if len(saved) == n:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save_point", dies)
        try:
            fit(system, **options)
        except Killed:
            return True
    return False


def check_every_sweep(monkeypatch: pytest.MonkeyPatch, path: Path, system: System, **options: Any) -> int:
    """Kill after every saving in turn and go on; how often that was."""
    whole = fit(system, **options)
    for n in range(1, 1000):
        if not killed_after(n, monkeypatch, system, checkpoint=path, **options):
            return n - 1
        assert_same(fit(system, checkpoint=path, **options), whole, n)
    raise AssertionError("never passed")


def assert_same(found: Fit, whole: Fit, n: int) -> None:
    np.testing.assert_array_equal(found.params.values, whole.params.values, err_msg=f"killed after saving {n}")
    np.testing.assert_array_equal(found.sigma().values, whole.sigma().values)
    assert found.loglik == whole.loglik and found.objective == whole.objective
    assert found.termination is whole.termination
    assert (found.n_starts, found.n_agreed, found.rank) == (whole.n_starts, whole.n_agreed, whole.rank)
    np.testing.assert_array_equal(found.std_errors.values, whole.std_errors.values)
    assert found.trace.drop(columns="seconds").equals(whole.trace.drop(columns="seconds"))
    assert (found.selection is None) == (whole.selection is None)
    if whole.selection is not None:
        assert found.selection.equals(whole.selection)


SIGMA = 0.5 * np.eye(K) + 0.5
COMPLETE: dict[str, dict[str, Any]] = {
    "lowrank": {"rank": 2},
    "tight": {"rank": 2, "rel_tol": 1e-12},
    "pca": {"rank": 2, "sigma_step": "pca", "rel_tol": 1e-10},
    "full": {"covariance": "full", "rel_tol": 1e-9},
    "full debiased": {"covariance": "full", "debiased": True, "rel_tol": 1e-9},
    "diagonal": {"covariance": "diagonal", "rel_tol": 1e-9},
    "sparse": {"covariance": SparseLowRank(2, 0.02), "rel_tol": 1e-9},
    "grouped": {"covariance": GroupedLowRank(1, GROUPS, 1), "rel_tol": 1e-9},
    "block": {"covariance": BlockLowRank(1, {f"y{j}": f"g{j // 2}" for j in range(K)}), "rel_tol": 1e-9},
    "known": {"covariance": Known(SIGMA)},
    "penalised": {"rank": 2, "lam_F": 0.1, "lam_B": 1.0, "rel_tol": 1e-9},
    "bic": {"rank": "bic", "rel_tol": 1e-9},
    "em": {"rank": 2, "algorithm": "em", "rel_tol": 1e-4},
    "plain em": {"rank": 2, "algorithm": "em", "accelerate": False, "max_sweeps": 4},
    "em bic": {"rank": "bic", "algorithm": "em", "rel_tol": 1e-3},
    "em short": {"rank": 2, "algorithm": "em", "max_sweeps": 5},
    "fgls": {"rank": 2, "algorithm": "fgls"},
    "short": {"rank": 2, "max_sweeps": 2, "rel_tol": 1e-14},
}


@pytest.mark.parametrize("case", COMPLETE)
def test_streamed_fits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, case: str) -> None:
    options = COMPLETE[case]
    times = check_every_sweep(monkeypatch, tmp_path / "kept", rows(), engine="stream", **options)
    assert times > 0 or case in ("fgls", "known")


@pytest.mark.parametrize(
    "options",
    [{"rank": 2, "rel_tol": 1e-4}, {"rank": 0}, {"rank": "bic", "max_sweeps": 3}, {"rank": 2, "max_sweeps": 6}],
    ids=["rank 2", "diagonal", "bic", "short"],
)
def test_rows_with_holes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: dict[str, Any]) -> None:
    streamed = {"missing": "em", "engine": "stream"} | options
    assert check_every_sweep(monkeypatch, tmp_path / "kept", rows(holes=True), **streamed) > 0
