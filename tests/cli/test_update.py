"""`lrgls update`: the fit of old and new rows, without the old ones, is that of all."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from lrgls_dask import CompressedSystem, Fit, LowRankGLS, System, TimeVarying
from lrgls_dask.cli import main

pytestmark = [
    pytest.mark.usefixtures("in_tmp_path"),
    pytest.mark.filterwarnings("ignore::lrgls_dask.FitWarning"),
]

N, K, OLD = 300, 5, 230
RNG = np.random.default_rng(11)
X = np.column_stack([np.ones(N), RNG.normal(size=(N, 6))])
LOADINGS = np.array([1.0, 0.8, 0.6, -0.9, 0.7])
Y = X @ RNG.normal(size=(7, K)) + RNG.normal(size=(N, 1)) * LOADINGS + RNG.normal(size=(N, K))
HOLES = Y.copy()
HOLES[RNG.random((N, K)) < 0.05] = np.nan
W = RNG.uniform(0.5, 2, size=(N, K))
INCIDENCE = np.ones((7, K), dtype=bool)
INCIDENCE[[3, 4, 5], [0, 1, 2]] = False


def system(rows: slice, y: np.ndarray = Y, weights: Any = None) -> System:
    return System.from_arrays(y[rows], X[rows], incidence=INCIDENCE, weights=None if weights is None else weights[rows])


OLD_ROWS, NEW_ROWS, ALL = slice(0, OLD), slice(OLD, N), slice(0, N)
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "complete": ({"rank": 1}, {}),
    "by bic": ({"rank": "bic"}, {}),
    "ridge": ({"rank": 1, "lam_B": 0.5}, {}),
    "full": ({"covariance": "full"}, {}),
    "ols": ({"rank": 0, "algorithm": "ols"}, {}),
    "restricted": ({"rank": 1, "restrictions": "y0:x1 = y1:x1"}, {}),
    "holes": ({"rank": 1, "missing": "em"}, {"y": HOLES}),
    "holes dropped": ({"rank": 1, "missing": "drop"}, {"y": HOLES}),
    "weights of rows": ({"rank": 1}, {"weights": W[:, 0]}),
    "weights of cells": ({"rank": 1}, {"weights": W}),
    "em": ({"rank": 1, "missing": "em", "algorithm": "em", "rel_tol": 1e-13, "max_sweeps": 3000}, {"y": HOLES}),
}


def assert_same_fit(found: Fit, expected: Fit, tolerance: float = 1e-9) -> None:
    assert found.n_obs == expected.n_obs and found.rank == expected.rank
    assert_allclose(found.params.values, expected.params.values, rtol=0, atol=tolerance)
    assert_allclose(found.sigma().values, expected.sigma().values, rtol=0, atol=tolerance)
    assert_allclose(found.std_errors.values, expected.std_errors.values, rtol=0, atol=tolerance)
    assert_allclose(found.loglik, expected.loglik, rtol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_the_fit_is_that_of_all_rows_and_goes_on(kind, capsys):
    options, data = KINDS[kind]
    LowRankGLS(**options).fit(system(OLD_ROWS, **data)).result_.to_zarr("fit.zarr")
    for at, rows in enumerate((slice(OLD, OLD + 1), slice(OLD + 1, N))):  # a row, and the others
        system(rows, **data).to_zarr(f"new{at}.zarr")
        assert main(f"update fit.zarr new{at}.zarr --out fit.zarr --overwrite".split()) == 0
        shutil.rmtree(f"new{at}.zarr")
    expected = LowRankGLS(**options).fit(system(ALL, **data)).result_
    found = Fit.from_zarr("fit.zarr")
    assert_same_fit(found, expected, 1e-6 if kind == "em" else 1e-9)
    assert {name: found.options[name] for name in options}.keys() == options.keys()
    assert found.options["missing"] == options.get("missing", "raise")
    assert "Saved: fit.zarr" in capsys.readouterr().out


@pytest.mark.parametrize("holes", [False, True])
def test_a_saved_compressed_system_is_updated_with_options_given(holes, capsys):
    y, missing = (HOLES, "em") if holes else (Y, "raise")
    system(OLD_ROWS, y).compress().to_zarr("old.zarr")
    system(NEW_ROWS, y).compress().to_zarr("new.zarr")
    assert main(f"update old.zarr new.zarr --out fit.zarr --rank 1 --missing {missing} --rel-tol 1e-14".split()) == 0
    expected = LowRankGLS(1, missing=missing, rel_tol=1e-14).fit(system(ALL, y)).result_
    assert_same_fit(Fit.from_zarr("fit.zarr"), expected, 1e-7 if holes else 1e-9)  # where its steps end, of other sums
    assert f"Rows {OLD:,} of before, {N - OLD:,} new" in capsys.readouterr().out


def test_options_and_standard_errors_given_here_go_before_those_of_the_fit(capsys):
    LowRankGLS(1, lam_B=0.5).fit(system(OLD_ROWS)).result_.with_cov("robust", system=system(OLD_ROWS)).to_zarr("f.zarr")
    system(NEW_ROWS).to_zarr("new.zarr")
    assert main(["update", "f.zarr", "new.zarr", "--out", "g.zarr", "--rank", "2"]) == 0
    assert "standard errors are classical, those of f.zarr were robust" in capsys.readouterr().err
    assert_same_fit(Fit.from_zarr("g.zarr"), LowRankGLS(2, lam_B=0.5).fit(system(ALL)).result_)
    assert (
        main(["update", "f.zarr", "new.zarr", "--out", "h.zarr", "--covariance", "diagonal", "--cov", "observed"]) == 0
    )
    fit = Fit.from_zarr("h.zarr")
    assert (fit.rank, fit.options["covariance"], fit.cov_kind) == (0, "diagonal", "observed")
    assert not capsys.readouterr().err


def test_python_does_the_same_from_a_fit_in_memory():
    fit = LowRankGLS(1).fit(system(OLD_ROWS)).result_
    kept = fit.compressed()
    assert isinstance(kept, CompressedSystem) and kept.n_obs == OLD
    again = LowRankGLS(**fit.options).fit(kept.append(system(NEW_ROWS))).result_
    assert_same_fit(again, LowRankGLS(1).fit(system(ALL)).result_)


@pytest.mark.parametrize("missing", ["em", "raise"])
def test_equations_that_no_row_shows_are_there_and_may_be_shown(missing):
    late, never = Y.copy(), Y.copy()
    late[:OLD, 2], never[:, 2], never[::9, 3] = np.nan, np.nan, np.nan if missing == "em" else 0.5
    for y, said in ((never, "no rows"), (late, "ok")):
        if (missing, said) != ("raise", "ok"):
            expected = LowRankGLS(0, missing=missing, unusable="skip").fit(system(ALL, y)).result_
            before = LowRankGLS(0, missing=missing, unusable="skip").fit(system(OLD_ROWS, y)).result_
            kept = before
            if missing == "raise":
                before.to_zarr("old.zarr")
                kept = Fit.from_zarr("old.zarr")
            both = kept.compressed().append(system(NEW_ROWS, y))
            found = LowRankGLS(**before.options).fit(both).result_
            assert (before.status.values[2], found.status.values[2]) == ("no rows", said)
            np.testing.assert_allclose(found.params, expected.params, atol=1e-7)
            assert found.loglik == pytest.approx(expected.loglik, rel=1e-10)


def skipping(rows: slice) -> Fit:
    y = Y.copy()
    y[2:, 2] = np.nan
    return LowRankGLS(0, missing="em", unusable="skip").fit(system(rows, y)).result_


REFUSED = {
    "streamed": (lambda: LowRankGLS(1, engine="stream").fit(system(OLD_ROWS)).result_, "which a streamed fit does not"),
    "skipped": (lambda: skipping(OLD_ROWS), "this one left out 1 of 5 equations: 'y2' (too few rows (2 of"),
    "time-varying": (
        lambda: LowRankGLS(covariance=TimeVarying(1, np.arange(OLD) // 115)).fit(system(OLD_ROWS)).result_,
        "keeps no rows of its segments",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_fits_that_keep_no_rows_say_so(kind, capsys):
    make, message = REFUSED[kind]
    make().to_zarr("fit.zarr")
    system(NEW_ROWS).to_zarr("new.zarr")
    assert main(["update", "fit.zarr", "new.zarr", "--out", "new-fit.zarr"]) == 1
    assert message in capsys.readouterr().err


def test_other_rows_and_outputs_in_the_way_are_refused(capsys):
    LowRankGLS(1).fit(system(OLD_ROWS)).result_.to_zarr("fit.zarr")
    System.from_arrays(Y[:, :4], X).to_zarr("new.zarr")
    for words, said in (
        ("fit.zarr new.zarr --out g.zarr", "lacks equation 'y4'"),
        ("fit.zarr new.zarr --out fit.zarr", "fit.zarr exists"),
        ("fit.zarr new.zarr --out new.zarr --overwrite", "is read for what would be written there"),
        ("none.zarr new.zarr --out g.zarr", "no zarr store at none.zarr"),
    ):
        assert main(["update", *words.split()]) == 1
        assert said in capsys.readouterr().err


def test_holes_in_new_rows_ask_for_a_way_to_take_them(capsys):
    LowRankGLS(1).fit(system(OLD_ROWS)).result_.to_zarr("fit.zarr")
    system(NEW_ROWS, HOLES).to_zarr("new.zarr")
    assert main(["update", "fit.zarr", "new.zarr", "--out", "g.zarr"]) == 1
    assert "Use missing='em'" in capsys.readouterr().err
    assert main(["update", "fit.zarr", "new.zarr", "--out", "g.zarr", "--missing", "em"]) == 0
    both = np.vstack([Y[:OLD], HOLES[OLD:]])
    assert_same_fit(Fit.from_zarr("g.zarr"), LowRankGLS(1, missing="em").fit(system(ALL, both)).result_, 1e-8)
