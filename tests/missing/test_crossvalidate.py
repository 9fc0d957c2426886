"""The rank by the likelihood of rows left out, where rows have holes: against refits of the rows, row by row."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lrgls_dask import FitWarning, LowRankGLS, System
from lrgls_dask.compression.shown_parts import compress_shown_parts
from lrgls_dask.missing.crossvalidate import ShownFolds, compress_any_folds, shown_held_out_nll, shown_nll
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.partition import GivenParts, HashedRows, RowBlocks
from lrgls_dask.sigma.structures import LowRankStructure
from lrgls_dask.solve.crossvalidate import Candidate
from lrgls_dask.solve.record import Options
from support.counted import counted
from support.fits import exactly
from support.incomplete import dense_loglik, road_of_holes, with_an_empty_row, with_holes
from support.systems import Data, dask_rows, simulate

N = 150
DATA = simulate("mixed", n=N, K=4, k=1, seed=3)
FEW, MANY = with_holes(DATA, n_patterns=5), with_holes(DATA)
WEIGHTED = with_holes(simulate("own", n=N, K=4, k=1, seed=3, weighted=True))


def cross_validated(data: Data, wrap: Any = np.asarray, **options: Any) -> Any:
    chosen = {"missing": "em", "n_folds": 3, "ranks": [0, 1]} | options
    return LowRankGLS("cv", **chosen).fit(data.system(wrap)).result_


@pytest.fixture
def held_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patterns are too many to be kept from the second on: rows are held."""
    monkeypatch.setattr("lrgls_dask.compression.patterns.MOST_PATTERNS", 1)


# ---------------------------------------------------------------------------------- the complete-data value


@pytest.mark.parametrize("options", [{}, {"folds": "blocks"}, {"lam_F": 0.1, "lam_B": 1.0}], ids=str)
def test_without_holes_the_table_is_that_of_complete_rows(options: dict[str, Any]) -> None:
    expected, got = cross_validated(DATA, missing="raise", **options), cross_validated(DATA, **options)
    np.testing.assert_array_equal(got.selection.values, expected.selection.values)
    np.testing.assert_array_equal(got.params, expected.params)
    assert got.run.n_passes == 1


@pytest.mark.parametrize("weighted", ["nothing", "rows", "cells"])
def test_complete_rows_taken_for_rows_with_holes_have_the_likelihoods_of_complete_rows(weighted: str) -> None:
    data = simulate("mixed", n=N, K=4, k=1, seed=3, weighted=weighted == "rows")
    options: dict[str, Any] = {"rank": "cv", "n_folds": 3, "ranks": [0, 1]}
    weights = np.random.default_rng(0).uniform(0.5, 2.0, size=(N, 4))
    system = data.system(**({} if weighted != "cells" else {"weights": weights}))
    expected = LowRankGLS(**options).fit(system).result_.selection
    with road_of_holes():
        got = LowRankGLS(**options, missing="em").fit(system).result_.selection
    assert list(got.columns) == list(expected.columns)
    np.testing.assert_allclose(got.to_numpy(float), expected.to_numpy(float), rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------------------------- oracles


@pytest.mark.parametrize("weighted", [False, True])
def test_the_likelihood_of_a_part_is_the_dense_one(weighted: bool) -> None:
    """Though no row of it shows one of the equations."""
    data = WEIGHTED if weighted else FEW
    codes = np.arange(N) // 50
    Y = data.Y + 1e3
    Y[codes == 1, 2] = np.nan
    data = replace(data, Y=Y)
    sigma = np.eye(4) + 0.4
    b = np.random.default_rng(0).normal(size=sum(len(c) for c in data.columns))
    parts = compress_shown_parts(data.system().rows, GivenParts(codes, 3), meter=Meter())
    for number in range(3):
        mine = data.take(codes == number)
        shown = int((~np.isnan(mine.Y)).any(axis=1).sum())
        expected = -dense_loglik(mine, b, sigma) / shown
        assert shown_nll(parts.part(number), b, exactly(sigma)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("by", ["rows", "blocks"])
@pytest.mark.parametrize("which", ["few", "many", "weighted"])
def test_held_out_likelihoods_are_those_of_refits_without_the_fold(which: str, by: Any) -> None:
    data = {"few": FEW, "many": MANY, "weighted": WEIGHTED}[which]
    assert_refits(data, by, cross_validated(data, folds=by).selection)


def test_held_rows_give_the_same(held_rows: None) -> None:
    found = cross_validated(FEW)
    assert_refits(FEW, "rows", found.selection)
    assert (found.rank, found.selection.attrs["criterion"]) == (1, "cv_nll")


def assert_refits(data: Data, by: str, table: Any) -> None:
    """Each fold's column, the mean and its error, from fits to the rows themselves and dense likelihoods."""
    codes = (HashedRows(3) if by == "rows" else RowBlocks(3, N)).codes(0, N)
    sizes = np.array([(~np.isnan(data.Y[codes == f])).any(axis=1).sum() for f in range(3)])
    for rank in (0, 1):
        nll = []
        for f, size in enumerate(sizes):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FitWarning)  # fewer rows may be a Heywood case
                without = LowRankGLS(rank, missing="em").fit(data.take(codes != f).system()).result_
            nll.append(-dense_loglik(data.take(codes == f), without.params.values, without.sigma().values) / size)
        columns = [f"fold_{f}" for f in range(1, 4)]
        np.testing.assert_allclose(table.loc[rank, columns].astype(float), nll, rtol=2e-4)
        mean = float(table.loc[rank, columns] @ sizes / sizes.sum())
        assert table.loc[rank, "cv_nll"] == pytest.approx(mean, rel=1e-12)


# ---------------------------------------------------------------------------------- reads, cuts


def test_rows_are_read_once_however_they_are_cut(small_blocks: None) -> None:
    store = counted(FEW)
    found = LowRankGLS("cv", missing="em", n_folds=3, ranks=[0, 1]).fit(System.from_zarr(store)).result_
    assert set(store.of("X")) == set(store.of("Y")) == {1}
    whole = cross_validated(FEW).selection.to_numpy(float)
    np.testing.assert_allclose(found.selection.to_numpy(float), whole, rtol=1e-5)
    cut = cross_validated(FEW, dask_rows((1, 60, 39, 50))).selection
    np.testing.assert_allclose(cut.to_numpy(float), whole, rtol=1e-5)


def test_rows_that_show_nothing_change_nothing() -> None:
    got, expected = (cross_validated(data).selection.to_numpy(float) for data in (with_an_empty_row(FEW), FEW))
    np.testing.assert_allclose(got, expected, rtol=1e-6)


# ---------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("held", [True, False])
def test_what_cannot_be_left_out_is_said(held_rows: None, monkeypatch: pytest.MonkeyPatch, held: bool) -> None:
    if not held:
        monkeypatch.setattr("lrgls_dask.compression.patterns.HELD_BYTES", 0)
    with pytest.raises(ValueError, match="a compressed system has none left"):
        LowRankGLS("cv", missing="em", ranks=[0, 1]).fit(FEW.system().compress())
    Y = FEW.Y.copy()
    Y[:60] = np.nan
    with pytest.raises(ValueError, match=r"fold 1 of 3 has no row .* Use fewer folds"):
        cross_validated(replace(FEW, Y=Y), folds="blocks")
    Y = FEW.Y.copy()
    Y[50:, 0] = np.nan
    with pytest.raises(np.linalg.LinAlgError, match=r"without the rows of fold 1 of 3: .*'y0' is observed in no row"):
        cross_validated(replace(FEW, Y=Y), folds="blocks", ranks=[0, 1])


# ---------------------------------------------------------------------------------- streamed


# one fold of the weighted rows has a flat likelihood, along which extrapolation carries rounding far
@pytest.mark.parametrize(("which", "by", "rtol"), [("many", "rows", 1e-10), ("weighted", "blocks", 5e-8)])
def test_streamed_folds_have_the_likelihoods_of_held_ones(which: str, by: Any, rtol: float) -> None:
    """From the same optima to rounding, in passes that all folds and ranks share."""
    data = {"many": MANY, "weighted": WEIGHTED}[which]
    rows, meter = data.system(dask_rows((1, 60, 39, 50))).rows, Meter()
    held, streamed = (compress_any_folds(rows, 3, by, None, 1, keep, meter=meter) for keep in (True, False))
    assert isinstance(held, ShownFolds) and isinstance(streamed, ShownFolds)
    assert held.streamed is None and streamed.streamed is not None
    optima = [LowRankGLS(rank, missing="em").fit(data.system()).result_ for rank in (0, 1)]
    candidates = tuple(
        Candidate(LowRankStructure(rank), each.coefficients, each.covariance) for rank, each in enumerate(optima)
    )
    options, shared = Options("als", False, 0.0, 1e-8), Meter()
    expected, of_means = shown_held_out_nll(held, candidates, options, meter=meter)
    got, means = shown_held_out_nll(streamed, candidates, options, meter=shared)
    np.testing.assert_allclose(got, expected, rtol=rtol)
    np.testing.assert_allclose(means, of_means, rtol=1e-6)
    assert set(shared.purposes) == {"rows left out"} and shared.passes <= 12
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("lrgls_dask.plan.side_by_side.MOST_AT_ONCE", 4)
        fewer, _ = shown_held_out_nll(streamed, candidates, options, meter=Meter())
    np.testing.assert_array_equal(fewer, got)


def test_more_equations_than_have_products_of_all_pairs_are_fitted_again_by_rounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Streamed folds of them ask for nothing that is as wide as all equations squared, and lead to the same optima."""
    found = []
    for most in (2000, 1):
        monkeypatch.setattr("lrgls_dask.missing.refit.LARGEST_PAIRS", most)
        monkeypatch.setattr("lrgls_dask.plan.side_by_side.LARGEST_PAIRS", most)
        if most == 1:
            monkeypatch.delattr("lrgls_dask.missing.same_passes.AskedRows.begun")
        model = LowRankGLS("cv", missing="em", n_folds=2, ranks=[0, 1], engine="stream", rel_tol=1e-10)
        found.append(model.fit(MANY.system()).result_.selection["cv_nll"])
        assert model.plan_.purposes["rows left out"] == (8 if most == 2000 else 38)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)


def test_a_streamed_rank_is_chosen_in_the_passes_of_the_plan() -> None:
    """Whether the rows are too many or streaming is asked for, holes or none."""
    expected = cross_validated(MANY, rel_tol=1e-10)
    model = LowRankGLS("cv", missing="em", n_folds=3, ranks=[0, 1], engine="stream", rel_tol=1e-8)
    found = model.fit(MANY.system()).result_
    assert found.run.engine == "stream" and found.rank == expected.rank
    np.testing.assert_allclose(found.selection.to_numpy(float), expected.selection.to_numpy(float), rtol=1e-4)
    planned = model.plan(MANY.system())
    assert planned.purposes["rows left out"] == 8
    assert abs(found.run.n_passes - model.plan_.passes) <= 4
    complete = model.fit(DATA.system()).result_.selection.to_numpy(float)
    np.testing.assert_allclose(complete, cross_validated(DATA).selection.to_numpy(float), rtol=1e-3)
