"""Every option is declared once: whatever shows, checks or keeps options shows, checks and keeps all of them."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.base

from lrgls_dask import GroupedLowRank, LowRankGLS, SparseLowRank, TimeVarying
from lrgls_dask.cli import main
from lrgls_dask.options import OPTIONS
from support.fits import fit
from support.systems import simulate

# Values that an option may have; where it goes with few others, with one of these.
VALID: dict[str, list[Any]] = {
    "rank": [0, 3, np.int64(2), "auto", "bic", "cv"],
    "covariance": [
        "lowrank",
        "full",
        "diagonal",
        SparseLowRank(2),
        GroupedLowRank(1, "sector"),
        TimeVarying(1, "time"),
    ],
    "algorithm": ["als", "fgls", "em", "ols"],
    "debiased": [True, False, "Theil", "max"],
    "use": [None, "t", "normal", "system-t"],
    "restrictions": [None, "a:x = b:x", ["a:x = 1"], {"a:x": 1.0}, (np.eye(2), [0.0, 1.0]), np.eye(2)],
    "engine": ["auto", "compress", "stream"],
    "sigma_step": ["ml", "pca"],
    "ranks": [None, [1, 2], (0, 3), np.array([2, 4]), range(1, 4)],
    "lam_F": [0, 0.5, np.float64(2.0)],
    "lam_B": [0, 0.5, {}, {"x": 1.0, 2: np.float64(0.5)}, pd.Series({"x": 1.0})],
    "d_floor": [1e-8, 0.5],
    "rel_tol": [None, 1e-6],
    "max_sweeps": [1, np.int32(7)],
    "cg_tol": [None, 1e-9],
    "cg_maxit": [1, 1000],
    "n_folds": [2, 10],
    "folds": ["rows", "blocks"],
    "accelerate": [True],
    "improper": ["warn"],
    "missing": ["raise", "em", "drop"],
    "unusable": ["raise", "skip"],
    "checkpoint": [None, "progress.zarr", Path("progress.zarr"), "s3://bucket/progress.zarr"],
    "progress": [True, False, print],
    "memory_limit": [None, 10**9, "1GB", 1e9],
}
# Values that it may not have, the error, and what the message says of what it may be.
INVALID: dict[str, list[tuple[Any, type[Exception], str]]] = {
    "rank": [
        (-1, ValueError, "0 or more"),
        ("aic", ValueError, "'bic' or 'cv'"),
        (1.5, TypeError, "an integer, 'auto'"),
    ],
    "covariance": [
        ("banded", ValueError, "'full' or 'diagonal'"),
        (2, ValueError, "'lowrank'"),
        (None, ValueError, ""),
    ],
    "ranks": [
        ([], ValueError, "at least one"),
        ("2", TypeError, "a list of integers"),
        ([1.5], ValueError, "integers"),
    ],
    "algorithm": [("gmm", ValueError, "'als' or 'fgls' or 'em'"), (None, ValueError, "'als'")],
    "use": [("z", ValueError, "'t' or 'normal' or 'system-t'"), (True, ValueError, "'normal'")],
    "debiased": [(1, TypeError, "'Theil' or 'max'"), (None, TypeError, "True, False"), ("geomean", ValueError, "True")],
    "restrictions": [(3, TypeError, "a pair (R, r) or a mapping"), (True, TypeError, "texts")],
    "engine": [("dask", ValueError, "'compress' or 'stream'"), (np.array(["auto"]), ValueError, "'auto'")],
    "sigma_step": [("ML", ValueError, "'ml' or 'pca'")],
    "lam_F": [(-0.1, ValueError, "at least 0 and finite"), ("0", TypeError, "a number"), (True, TypeError, "a number")],
    "lam_B": [
        (np.inf, ValueError, "at least 0 and finite"),
        (None, TypeError, "a number or a mapping"),
        ("x=1", TypeError, "a mapping from names"),
        ([1.0], TypeError, "a mapping from names"),
    ],
    "d_floor": [(0, ValueError, "above 0 and finite"), (1.0, ValueError, "a fraction of each residual variance")],
    "rel_tol": [(0.0, ValueError, "above 0 and finite"), ("1e-6", TypeError, "a number")],
    "max_sweeps": [(0, ValueError, "a positive integer"), (2.5, ValueError, "a positive integer")],
    "cg_tol": [(-1e-9, ValueError, "above 0 and finite"), (np.nan, ValueError, "above 0 and finite")],
    "cg_maxit": [(0, ValueError, "a positive integer"), (True, ValueError, "a positive integer")],
    "n_folds": [(1, ValueError, "an integer of at least 2"), ("5", ValueError, "an integer of at least 2")],
    "folds": [("columns", ValueError, "'rows' or 'blocks'")],
    "improper": [("ignore", ValueError, "'warn' or 'avoid'"), (True, ValueError, "'warn' or 'avoid'")],
    "accelerate": [(1, TypeError, "True or False"), ("no", TypeError, "True or False")],
    "missing": [("mean", ValueError, "'raise' or 'em' or 'drop'")],
    "unusable": [("drop", ValueError, "'raise' or 'skip'"), (True, ValueError, "'raise' or 'skip'")],
    "checkpoint": [(3, TypeError, "a path or URL"), (True, TypeError, "a path or URL")],
    "progress": [("yes", TypeError, "True, False or a callable"), (1, TypeError, "True, False or a callable")],
    "memory_limit": [
        (0, ValueError, "positive"),
        (float("inf"), ValueError, "bytes or a text"),
        ("lots", ValueError, "'1GB'"),
        ([1], TypeError, "bytes or a text"),
    ],
}


def test_the_cases_cover_the_table() -> None:
    assert set(VALID) == set(INVALID) == set(OPTIONS)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in VALID.items() for value in values])
def test_what_an_option_may_be(name: str, value: Any) -> None:
    model = LowRankGLS(**{name: value})
    assert getattr(model, name) is value and model.get_params()[name] is value
    assert LowRankGLS().set_params(**{name: value}).get_params()[name] is value
    assert repr(model) == "LowRankGLS()" or f"{name}={value!r}" in repr(model)


@pytest.mark.parametrize(
    ("name", "value", "error", "said"), [(name, *case) for name, cases in INVALID.items() for case in cases]
)
def test_what_it_may_not_be_is_refused_and_changes_nothing(
    name: str, value: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=rf"^{name} (must|is).*{re.escape(said)}.* got {re.escape(repr(value))}"):
        LowRankGLS(**{name: value})
    model = LowRankGLS(rank=1)
    before = model.get_params()
    with pytest.raises(error):
        model.set_params(**{"rank": 2, name: value})
    assert model.get_params() == before


def test_the_constructor_takes_the_options_of_the_table_by_name() -> None:
    parameters = inspect.signature(LowRankGLS).parameters
    assert list(parameters) == list(OPTIONS)
    assert {name: each.default for name, each in parameters.items()} == {n: o.default for n, o in OPTIONS.items()}
    kinds = {name: each.kind for name, each in parameters.items()}
    assert kinds.pop("rank") is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert set(kinds.values()) == {inspect.Parameter.KEYWORD_ONLY}
    assert all(each.annotation is not inspect.Parameter.empty for each in parameters.values())


def test_the_docstring_says_what_each_is_for() -> None:
    words = " ".join((LowRankGLS.__doc__ or "").split())
    for option in OPTIONS.values():
        assert option.help.endswith(".") and f" {option.name} : {' '.join(option.help.split())}" in words
    assert max(map(len, (LowRankGLS.__doc__ or "").splitlines())) <= 120
    assert "{options}" not in words and "result_ : the `Fit`" in words


@pytest.mark.parametrize("command", ["fit", "plan"])
def test_the_command_line_has_a_flag_for_each(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for option in OPTIONS.values():
        flag = f"--{(option.flag or option.name).lower().replace('_', '-')}"
        assert re.search(rf"{flag}( [A-Z]+| \[?{{[a-zA-Z,-]+}}\]?)? {re.escape(option.help[:25])}", shown), flag


def test_a_fit_remembers_each(tmp_path: Path) -> None:
    found = fit(simulate("shared", n=80).system(), 1, lam_B=0.5, max_sweeps=40)
    assert (
        found.options == LowRankGLS(1, **{name: found.options[name] for name in OPTIONS if name != "rank"}).get_params()
    )
    assert set(found.options) == set(OPTIONS) and found.options["lam_B"] == 0.5
    found.to_zarr(tmp_path / "fit.zarr")
    assert type(found).from_zarr(tmp_path / "fit.zarr").options == found.options


def test_it_reads_sets_and_clones_as_estimators_do() -> None:
    model = LowRankGLS(2, algorithm="em", accelerate=False, checkpoint="kept.zarr")
    assert repr(model) == "LowRankGLS(rank=2, algorithm='em', accelerate=False, checkpoint='kept.zarr')"
    assert sklearn.base.clone(model).get_params() == model.get_params()
    assert model.set_params(accelerate=True) is model and model.accelerate is True
    with pytest.raises(ValueError, match=r"unknown parameter 'factors'; the parameters are rank, covariance, ranks, "):
        model.set_params(factors=3)
    with pytest.raises(TypeError, match=r"LowRankGLS.__init__.*unexpected keyword argument 'factors'"):
        LowRankGLS(factors=3)  # type: ignore[call-arg]
