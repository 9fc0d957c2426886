"""Cross-validated rank: against refits of the rows themselves, one read, folds that depend on row numbers alone."""

from __future__ import annotations

from typing import Any

import dask
import numpy as np
import pytest

from lrgls_dask import LowRankGLS, System
from lrgls_dask.compression.compressed import compress_rows
from lrgls_dask.compression.parts import compress_parts
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.partition import GivenParts, HashedRows, Partition, RowBlocks, RowRuns
from lrgls_dask.rows.tasks import run_tasks
from lrgls_dask.sigma.structures import LowRankStructure
from lrgls_dask.solve.in_memory import InMemory
from lrgls_dask.solve.record import Options
from lrgls_dask.solve.selection import best_of, choose
from support.counted import counted
from support.fits import fit
from support.systems import Data, dask_rows, simulate

DATA = simulate("mixed", n=230, K=5)
WEIGHTED = simulate("own", n=300, K=6, weighted=True)


def cross_validated(data: Data, **options: Any) -> Any:
    return LowRankGLS("cv", **options).fit(data.system()).result_


# ---------------------------------------------------------------------------------------------- folds


@pytest.mark.parametrize("n_parts", [2, 5, 7])
def test_hashed_folds_are_even_everywhere_and_need_the_row_number_only(n_parts: int) -> None:
    partition = HashedRows(n_parts)
    codes = partition.codes(0, 10_000)
    for start in range(0, 10_000 - n_parts, n_parts):
        assert sorted(codes[start : start + n_parts]) == list(range(n_parts))
    np.testing.assert_array_equal(partition.codes(1_234, 5_678), codes[1_234:5_678])
    # no position within a stretch of n_parts rows is bound to a fold: chi-square of about (n_parts - 1)^2
    stretches = codes[: 10_000 // n_parts * n_parts].reshape(-1, n_parts)
    counts = np.stack([np.bincount(column, minlength=n_parts) for column in stretches.T])
    expected = len(stretches) / n_parts
    assert np.sum((counts - expected) ** 2) / expected < 2 * (n_parts - 1) ** 2 + 12


def test_blocks_of_rows_are_consecutive_and_even() -> None:
    codes = RowBlocks(4, 103).codes(0, 103)
    assert (np.diff(codes) >= 0).all() and sorted(np.bincount(codes)) == [25, 26, 26, 26]
    np.testing.assert_array_equal(RowBlocks(4, 103).codes(20, 60), codes[20:60])


def test_runs_of_rows_are_as_their_edges_say() -> None:
    runs, codes = RowRuns(np.array([0, 1, 7, 20, 21])), np.repeat(np.arange(4), [1, 6, 13, 1])
    for start in range(21):
        for stop in range(start + 1, 22):
            np.testing.assert_array_equal(runs.codes(start, stop), codes[start:stop])


RUNS = RowRuns(np.array([0, 90, 91, 300]))


@pytest.mark.parametrize("route", ["gram", "qr"])
@pytest.mark.parametrize("data", [DATA, WEIGHTED], ids=["plain", "weighted"])
@pytest.mark.parametrize("partition", [HashedRows(5), RowBlocks(3, 300), GivenParts(np.arange(300) % 4, 4), RUNS])
def test_parts_are_the_compressed_rows_of_each_part(route: Any, data: Data, partition: Partition) -> None:
    codes = partition.codes(0, len(data.Y)) % partition.n_parts
    listed = GivenParts(codes, partition.n_parts)
    parts = compress_parts(data.system(dask_rows(11)).rows, listed, route=route, meter=Meter())
    assert sorted(parts.moments) == list(range(partition.n_parts))
    for number in parts.moments:
        for found, rows in ((parts.part(number), codes == number), (parts.together(without=number), codes != number)):
            alone = data.take(rows)
            weights = np.ones(rows.sum()) if alone.weights is None else alone.weights
            both = np.sqrt(weights)[:, None] * np.column_stack([alone.X, alone.Y])
            mean = weights @ np.column_stack([alone.X, alone.Y])
            cross = found.root.T @ found.root + found.head.weight * np.outer(found.head.mean, found.head.mean)
            # columns of X may be stored in another order: compare by what does not depend on it
            np.testing.assert_allclose(
                np.linalg.eigvalsh(cross), np.linalg.eigvalsh(both.T @ both), rtol=1e-9, atol=1e-8
            )
            np.testing.assert_allclose(found.head.weight * np.sort(found.head.mean), np.sort(mean), rtol=1e-9)
            assert found.n_obs == rows.sum()


def test_a_bad_value_is_named_by_its_row_of_the_data() -> None:
    Y = DATA.Y.copy()
    Y[137, 2] = np.nan
    system = System.from_arrays(Y, DATA.X)
    with pytest.raises(ValueError, match=r"'y2': NaN value at row 137"):
        LowRankGLS("cv").fit(system)


def test_folds_that_would_lose_digits_are_read_again_by_qr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrgls_dask.compression.compressed.SMALL_FLOPS", 0)
    X = DATA.X.copy()
    meter = Meter()
    assert compress_parts(DATA.system().rows, HashedRows(3), meter=meter).route == "gram"
    assert meter.passes == 1
    X[:, 2] = X[:, 1] + 1e-7 * X[:, 2]
    assert compress_parts(System.from_arrays(DATA.Y, X).rows, HashedRows(3), meter=meter).route == "qr"
    assert meter.passes == 3


# ---------------------------------------------------------------------------------------------- cross-validation


@pytest.mark.parametrize("folds", ["rows", "blocks"])
@pytest.mark.parametrize("penalty", [0.0, 3.0])
def test_held_out_likelihoods_are_those_of_refits(folds: Any, penalty: float) -> None:
    """Every fold fitted again from its rows, scored by the oracle row by row."""
    data = WEIGHTED
    found = cross_validated(data, n_folds=3, folds=folds, lam_B=penalty)
    codes = (HashedRows(3) if folds == "rows" else RowBlocks(3, 300)).codes(0, 300)
    table = found.selection
    for rank in (1, 2):
        for fold in range(3):
            train = fit(data.take(codes != fold).system(), int(rank), lam_B=penalty)
            held_out = data.take(codes == fold).dense()
            expected = held_out.nll(train.params.values, train.sigma().values)
            assert table.loc[rank, f"fold_{fold + 1}"] == pytest.approx(expected, abs=5e-4)
    sizes = np.bincount(codes)
    per_fold = table[["fold_1", "fold_2", "fold_3"]].to_numpy()
    np.testing.assert_allclose(table["cv_nll"], per_fold @ sizes / 300, rtol=1e-12)
    np.testing.assert_allclose(table["cv_std_error"], per_fold.std(axis=1, ddof=1) / np.sqrt(3), rtol=1e-12)


def test_the_chosen_fit_is_that_of_its_rank_and_the_table_holds_all() -> None:
    found = cross_validated(DATA)
    assert found.rank == 2
    alone = fit(DATA.system(), found.rank)
    np.testing.assert_allclose(found.params, alone.params, rtol=1e-6, atol=1e-8)
    table = found.selection
    assert table.attrs["criterion"] == "cv_nll"
    assert table["cv_nll"].idxmin() == found.rank and table.loc[found.rank, ["tied", "local_minimum"]].all()
    by_bic = LowRankGLS("bic").fit(DATA.system()).result_.selection
    assert by_bic.attrs["criterion"] == "bic"
    np.testing.assert_allclose(table[["loglik", "aic", "bic"]], by_bic[["loglik", "aic", "bic"]], rtol=1e-9)


def test_every_chunk_is_read_once() -> None:
    store = counted(DATA)
    found = LowRankGLS("cv").fit(System.from_zarr(store)).result_
    assert found.n_passes == 1
    assert store.of("X") == store.of("Y") == {1: 23}


def test_chunks_and_clusters_never_show(small_blocks: None, client: Any) -> None:
    with dask.config.set(scheduler="sync"):
        expected = cross_validated(DATA).selection
    found = LowRankGLS("cv").fit(DATA.system(dask_rows(46))).result_.selection
    np.testing.assert_allclose(found.to_numpy(float), expected.to_numpy(float), rtol=1e-7)


def test_ties_prefer_the_smaller_rank_and_several_minima_are_marked() -> None:
    def judged(values: list[float]) -> tuple[int, list[bool], list[bool]]:
        best, table = best_of([{"rank": k + 1, "bic": v} for k, v in enumerate(values)], "bic")
        return best, [bool(row["tied"]) for row in table], [bool(row["local_minimum"]) for row in table]

    assert judged([5.0, 3.0, 4.0]) == (1, [False, True, False], [False, True, False])
    assert judged([3.0, 3.0 - 1e-13, 4.0]) == (0, [True, True, False], [True, False, False])
    assert judged([3.0, 4.0, 2.0, 5.0]) == (2, [False, False, True, False], [True, False, True, False])


def test_a_rank_never_ends_above_the_rank_below() -> None:
    """Warm starts across ranks: with starts that all fail, the optimum one rank below still leads on."""
    problem = InMemory(compress_rows(DATA.system().rows, meter=Meter()), lam_B=0.0, meter=Meter())
    _, table = choose(problem, tuple(LowRankStructure(k) for k in (0, 1, 2)), Options())
    logliks = [row["loglik"] for row in table]
    assert logliks == sorted(logliks)


def test_one_candidate_needs_no_folds() -> None:
    data = simulate("shared", K=2, n=60, k=1)
    found = LowRankGLS("cv").fit(data.system()).result_
    assert found.rank == 0 and found.selection is None


def test_selection_survives_storage(tmp_path: Any) -> None:
    found = cross_validated(DATA)
    found.to_zarr(tmp_path / "fit.zarr")
    stored = type(found).from_zarr(tmp_path / "fit.zarr")
    assert stored.selection.equals(found.selection)


# ---------------------------------------------------------------------------------------------- tasks


def power(base: int, exponent: int) -> int:
    return base**exponent


@pytest.mark.parametrize("n", [0, 1, 200])
def test_tasks_come_back_in_order(n: int) -> None:
    assert run_tasks(power, 3, list(range(n))) == [3**i for i in range(n)]


def test_tasks_run_on_the_workers(client: Any) -> None:
    assert run_tasks(power, 2, list(range(70))) == [2**i for i in range(70)]


# ---------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_folds": 1}, "n_folds must be an integer of at least 2; got 1"),
        ({"n_folds": 2.5}, "n_folds must be an integer of at least 2; got 2.5"),
        ({"folds": "columns"}, "folds must be 'rows' or 'blocks'; got 'columns'"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LowRankGLS("cv", **options)


def test_more_folds_than_rows() -> None:
    with pytest.raises(ValueError, match="n_folds=231 is more than the 230 rows"):
        LowRankGLS("cv", n_folds=231).fit(DATA.system())


def test_a_fold_without_weight() -> None:
    weights = np.where(RowBlocks(5, 230).codes(0, 230) == 3, 0.0, 1.0)
    with pytest.raises(ValueError, match="fold 4 of 5 has no row of positive weight"):
        LowRankGLS("cv", folds="blocks").fit(System.from_arrays(DATA.Y, DATA.X, weights=weights))


def test_a_fold_that_cannot_be_left_out() -> None:
    X = DATA.X.copy()
    X[:, 3] = RowBlocks(5, 230).codes(0, 230) == 1
    system = System.from_arrays(DATA.Y, X)
    with pytest.raises(np.linalg.LinAlgError, match=r"without the rows of fold 2 of 5: .*'x0' and 'x3' are collinear"):
        LowRankGLS("cv", folds="blocks").fit(system)
    assert LowRankGLS("cv").fit(system).rank_ >= 1


def test_streams_and_compressed_systems_have_no_folds() -> None:
    with pytest.raises(ValueError, match=r"rank='cv' keeps the cross-products of 5 folds.*was not allowed"):
        LowRankGLS("cv", engine="stream").fit(DATA.system())
    with pytest.raises(ValueError, match="a compressed system has none left"):
        LowRankGLS("cv").fit(DATA.system().compress())


def test_the_plan_prices_the_folds() -> None:
    system = simulate("shared", K=40, n=300).system()
    plain, folded = LowRankGLS("bic").plan(system), LowRankGLS("cv", n_folds=50).plan(system)
    assert folded.client_peak > plain.client_peak


# ---------------------------------------------------------------------------------------------- candidates, criterion


@pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic variance on d_floor")
@pytest.mark.parametrize("engine", ["compress", "stream"])
@pytest.mark.parametrize("rank", ["bic", "auto"])
def test_ranks_are_the_candidates(rank: Any, engine: Any) -> None:
    data = simulate("mixed", n=230, K=7)
    found = LowRankGLS(rank, ranks=[3, 0, 2], engine=engine).fit(data.system()).result_
    table = found.selection
    assert list(table.index) == [0, 2, 3] and found.rank == table["bic"].idxmin()
    if engine == "compress":
        alone = [fit(data.system(), rank=k).loglik for k in (0, 2, 3)]
        np.testing.assert_allclose(table["loglik"], alone, rtol=1e-8)


def test_ranks_are_the_candidates_of_folds_and_of_rows_with_holes() -> None:
    data = simulate("mixed", n=230, K=7)
    found = LowRankGLS("cv", ranks=(2, 1), n_folds=3).fit(data.system()).result_
    assert list(found.selection.index) == [1, 2]
    Y = data.Y.copy()
    Y[::9, 2] = np.nan
    holes = System.from_arrays(Y, data.Xs)
    for rank in ("bic", "auto"):
        seen = LowRankGLS(rank, ranks=[0, 2], missing="em").fit(holes).result_
        assert list(seen.selection.index) == [0, 2] and seen.rank == seen.selection["bic"].idxmin()


def test_ranks_that_the_equations_do_not_identify_and_that_nothing_chooses_from() -> None:
    with pytest.raises(ValueError, match=r"rank"):
        LowRankGLS("bic", ranks=[1, 9]).fit(DATA.system())
    with pytest.raises(ValueError, match=r"rank=2 is the number of factors.*Leave one of them out"):
        LowRankGLS(2, ranks=[1, 2])
    assert LowRankGLS("cv", ranks=[2]).fit(DATA.system()).result_.rank == 2


@pytest.mark.parametrize("engine", ["compress", "stream"])
@pytest.mark.filterwarnings("ignore:LowRankGLS. stalled")
@pytest.mark.parametrize("options", [{"algorithm": "fgls"}, {"debiased": True}, {"sigma_step": "pca"}])
def test_rank_of_fits_without_a_likelihood_is_chosen_by_that_of_the_residuals(
    options: dict[str, Any], engine: Any
) -> None:
    """The bic of factor analysis of the OLS residuals by scikit-learn, whatever the winner is then fitted by."""
    decomposition = pytest.importorskip("sklearn.decomposition")
    data = simulate("own", n=150, K=8, k=2, seed=5)
    R = data.Y - np.column_stack(
        [X @ np.linalg.lstsq(X, y, rcond=None)[0] for X, y in zip(data.Xs, data.Y.T, strict=True)]
    )
    R -= R.mean(axis=0)  # zero but for rounding: every design has a constant
    expected = []
    for k in (1, 2):
        analysis = decomposition.FactorAnalysis(k, tol=1e-7, max_iter=50_000, svd_method="lapack").fit(R)
        n_parameters = sum(X.shape[1] for X in data.Xs) + 8 * (k + 1) - k * (k - 1) // 2
        expected.append(-2 * 150 * analysis.score(R) + np.log(150) * n_parameters)
    found = LowRankGLS("bic", ranks=[1, 2], engine=engine, **options).fit(data.system()).result_
    np.testing.assert_allclose(found.selection["bic"], expected, rtol=1e-6)
    assert found.rank == 1 + int(np.argmin(expected))
    alone = LowRankGLS(found.rank, engine=engine, **options).fit(data.system()).result_
    np.testing.assert_allclose(found.params, alone.params, rtol=1e-9)
