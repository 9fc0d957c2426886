"""Fits of rows less the effects of their groups are those with a column of 0 and 1 for every group."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from distributed import Client
from zarr.storage import MemoryStore

from lrgls_dask import CompressedSystem, Fit, LowRankGLS, System
from lrgls_dask.design.absorbed import Absorbed
from lrgls_dask.rows import effects
from support.absorbed import check_same_fit, fitted, grouped, of_regressors
from support.counted import CountingStore

DATA = grouped()
ENGINES = ("compress", "stream")
LABELS = (("firm",), ("firm", "year"), ("year", "firm", "kind"))


def absorbed(fit: Fit) -> Absorbed:
    found = fit.design.absorbed
    assert found is not None
    return found


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("names", LABELS)
@pytest.mark.parametrize("weighted", [False, True])
def test_effects_absorbed_are_dummies(engine: Any, names: tuple[str, ...], weighted: bool) -> None:
    weights = DATA.weights if weighted else None
    fit = fitted(DATA.system(*names, weights=weights), engine=engine)
    dummies = fitted(DATA.with_dummies(*names, weights=weights))
    check_same_fit(fit, dummies)
    np.testing.assert_allclose(fit.bic, dummies.bic, rtol=1e-9)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "options",
    [
        {"rank": 0, "covariance": "diagonal"},
        {"rank": "auto", "covariance": "full"},
        {"rank": "bic"},
        {"algorithm": "fgls", "debiased": True},
        {"algorithm": "fgls", "debiased": "Theil"},
        {"algorithm": "fgls", "debiased": "max"},
        {"algorithm": "ols"},
    ],
    ids=str,
)
def test_whatever_the_options(engine: Any, options: dict[str, Any]) -> None:
    fit = fitted(DATA.system("firm", "year"), engine=engine, **options)
    check_same_fit(fit, fitted(DATA.with_dummies("firm", "year"), **options), rtol=1e-8)


@pytest.mark.parametrize("engine", ENGINES)
def test_restrictions_are_of_the_coefficients_that_are_left(engine: Any) -> None:
    how = {"restrictions": ["*:x0 = 0.5", "y0:x1 = y1:x1"], "covariance": "full", "rank": "auto"}
    fit = fitted(DATA.system("firm"), engine=engine, **how)
    check_same_fit(fit, fitted(DATA.with_dummies("firm"), **how), rtol=1e-7)


@pytest.mark.parametrize("names", LABELS)
@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("robust", {"correction": "HC1"}),
        ("cluster", {"groups": np.arange(240) // 5, "correction": "CR1"}),
        ("hac", {"bandwidth": 3.0}),
        ("driscoll-kraay", {"times": DATA.year, "bandwidth": 1.0}),
        ("observed", {}),
        ("huber-white", {}),
        ("kackar-harville", {}),
    ],
)
@pytest.mark.filterwarnings("ignore::lrgls_dask.FitWarning")
def test_every_kind_of_standard_errors(names: tuple[str, ...], kind: str, given: dict[str, Any]) -> None:
    fit, dummies = fitted(DATA.system(*names)), fitted(DATA.with_dummies(*names))
    found, wanted = (each.with_cov(kind, **given).std_errors.values for each in (fit, dummies))
    np.testing.assert_allclose(found, of_regressors(dummies, wanted), rtol=1e-8)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("names", LABELS)
def test_cuts_through_groups_never_show(engine: Any, names: tuple[str, ...], every_chunk: None) -> None:
    check_same_fit(fitted(DATA.system(*names), engine=engine), fitted(DATA.with_dummies(*names)))


@pytest.mark.parametrize("names", LABELS)
def test_measures_of_the_system(names: tuple[str, ...]) -> None:
    fit, dummies = fitted(DATA.system(*names)), fitted(DATA.with_dummies(*names))
    np.testing.assert_allclose(fit.system_r2(), dummies.system_r2(), rtol=1e-9)
    for found, wanted in ((fit.breusch_pagan(), dummies.breusch_pagan()), (fit.lr_diagonal(), dummies.lr_diagonal())):
        np.testing.assert_allclose((found.statistic, found.df), (wanted.statistic, wanted.df), rtol=1e-8)
    within = 1 - np.sum(np.asarray(fit.residuals(DATA.system(*names))) ** 2, axis=0) / np.sum(
        less_dummies(DATA.Y, DATA.dummies(*names)) ** 2, axis=0
    )
    np.testing.assert_allclose(fit.r2_within, within, rtol=1e-9)


def less_dummies(values: np.ndarray, dummies: np.ndarray) -> np.ndarray:
    return values - dummies @ np.linalg.lstsq(dummies, values, rcond=None)[0]


def test_one_label_is_read_once_and_several_twice() -> None:
    found = []
    for names in LABELS:
        store = CountingStore(MemoryStore())
        System.from_arrays(DATA.Y, DATA.X).to_zarr(store, row_chunk=17)
        store.gets.clear()
        fit = fitted(System.from_zarr(store).absorb(DATA.labels(*names)))
        plan = LowRankGLS(1).plan(System.from_zarr(store).absorb(DATA.labels(*names)))
        assert set(store.of("Y")) == set(store.of("X")) == {fit.n_passes}
        found.append((fit.n_passes, plan.passes))
    assert found == [(1, 1), (2, 2), (2, 2)]


def test_groups_parameters_and_groups_of_one_row_are_counted_and_said() -> None:
    one, two = fitted(DATA.system("firm")), fitted(DATA.system("firm", "year"))
    n_firms, n_years = len(np.unique(DATA.firm)), len(np.unique(DATA.year))
    assert (absorbed(one).n_groups, absorbed(one).n_single, absorbed(one).n_parameters) == ((n_firms,), (2,), n_firms)
    assert absorbed(two).n_groups == (n_firms, n_years)
    assert absorbed(two).n_parameters == n_firms + n_years - 1
    said = two.summary()
    assert f"firm, {n_firms} groups, 2 of one row" in said
    assert f"{n_firms + n_years - 1} of every equation, 1 less than groups" in said
    assert f"R2 within: {two.r2_within.values[0]:.4f}" in said


def test_labels_that_do_not_tie_rows_together_share_more_than_one_dimension() -> None:
    firm = np.repeat(np.arange(12), 20)
    place = firm // 4 * 2 + np.arange(240) % 2  # three islands of firms and places
    plain = {"rank": 0}
    fit = fitted(System.from_arrays(DATA.Y, DATA.X, absorb=[firm, place]), **plain)
    assert absorbed(fit).n_parameters == 12 + 6 - 3
    nested = fitted(System.from_arrays(DATA.Y, DATA.X, absorb=[firm, firm // 3, firm // 4]), **plain)
    assert absorbed(nested).n_parameters == 12
    check_same_fit(nested, fitted(System.from_arrays(DATA.Y, np.hstack([DATA.X, np.eye(12)[firm]])), **plain))


@pytest.mark.parametrize("names", LABELS[1:])
def test_conjugate_gradients_find_what_eigenvalues_do(names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    dense = fitted(DATA.system(*names))
    monkeypatch.setattr(effects, "DENSE_GROUPS", 0)
    fit = fitted(DATA.system(*names))
    check_same_fit(fit, dense)
    assert absorbed(fit).is_exact == (len(names) == 2)
    monkeypatch.setattr(effects, "CG_MAXIT", 1)
    with pytest.raises(ValueError, match="not found in 1 iterations"):
        fitted(DATA.system(*names))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("names", LABELS)
def test_rows_that_are_left_out_are_of_no_group(engine: Any, names: tuple[str, ...]) -> None:
    Y = DATA.Y.copy()
    Y[5, 1] = Y[17] = np.nan
    Y[DATA.firm == "f003", 0] = np.nan  # a firm of which nothing is left
    kept = ~np.isnan(Y).any(axis=1)
    labels = DATA.labels(*names)
    some = {name: values[kept] for name, values in labels.items()}
    wanted = fitted(System.from_arrays(Y[kept], DATA.X[kept], absorb=some), engine=engine)
    dropped = fitted(System.from_arrays(Y, DATA.X, absorb=labels), missing="drop", engine=engine)
    unweighted = fitted(System.from_arrays(Y, DATA.X, absorb=labels, weights=kept.astype(float)), engine=engine)
    check_same_fit(dropped, wanted)
    check_same_fit(unweighted, wanted)
    assert dropped.n_dropped == int((~kept).sum())
    for fit in (dropped, unweighted):
        np.testing.assert_allclose(fit.with_cov("robust").std_errors, wanted.with_cov("robust").std_errors, rtol=1e-9)


@pytest.mark.parametrize("engine", ENGINES)
def test_levels_of_groups_keep_the_digits_of_what_varies_within(engine: Any) -> None:
    levels = np.round(np.random.default_rng(3).normal(size=14) * 2**20)[np.unique(DATA.firm, return_inverse=True)[1]]
    grid = 2.0**-20  # so that sums with the levels are exact
    X, Y = (np.round(values / grid) * grid for values in (DATA.X, DATA.Y))
    plain = fitted(System.from_arrays(Y, X, absorb=DATA.firm), engine=engine)
    high = fitted(System.from_arrays(Y + levels[:, None], X - 3 * levels[:, None], absorb=DATA.firm), engine=engine)
    np.testing.assert_allclose(high.params, plain.params, rtol=2e-9)
    np.testing.assert_allclose(high.std_errors, plain.std_errors, rtol=2e-9)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("names", LABELS)
def test_a_regressor_that_the_effects_determine_is_named(engine: Any, names: tuple[str, ...]) -> None:
    size = 1e5 * np.unique(DATA.firm, return_inverse=True)[1] ** 0.5 if "firm" in names else DATA.year * 1.0
    for column in (size, np.ones(240), np.full(240, 0.1)):
        X = np.column_stack([DATA.X, column])
        system = System.from_arrays(DATA.Y, X, regressors=["a", "b", "c", "size"], absorb=DATA.labels(*names))
        with pytest.raises(np.linalg.LinAlgError, match=r"regressor 'size' is constant .* absorb takes out"):
            fitted(system, engine=engine)
    X = np.column_stack([DATA.X, DATA.X[:, 0] + size])
    system = System.from_arrays(DATA.Y, X, regressors=["a", "b", "c", "sum"], absorb=DATA.labels(*names))
    with pytest.raises(np.linalg.LinAlgError, match="'a' and 'sum' are collinear"):
        fitted(system, engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_more_groups_than_rows_bear_are_refused(engine: Any) -> None:
    for labels in (np.arange(240), np.minimum(np.arange(240), 237)):
        with pytest.raises(ValueError, match=r"effects of 'absorb' and 3 coefficients .* leave nothing of 240 rows"):
            fitted(System.from_arrays(DATA.Y, DATA.X, absorb=labels), engine=engine)


@pytest.mark.parametrize("names", LABELS)
def test_a_value_that_no_sum_can_use_is_named_where_it_is(names: tuple[str, ...], every_chunk: None) -> None:
    X = DATA.X.copy()
    X[133, 1] = np.inf
    weights = np.ones(240)
    weights[:40] = 0
    system = System.from_arrays(DATA.Y, X, absorb=DATA.labels(*names), weights=weights)
    for engine in ENGINES:
        with pytest.raises(ValueError, match=r"regressor 'x1'.*infinite value at row 133"):
            fitted(system, engine=engine)


@pytest.mark.parametrize("names", LABELS)
def test_compressed_systems_hold_what_was_absorbed(names: tuple[str, ...], tmp_path: Any) -> None:
    direct = fitted(DATA.system(*names))
    DATA.system(*names).compress().to_zarr(tmp_path / "c.zarr")
    fit = fitted(CompressedSystem.from_zarr(tmp_path / "c.zarr"))
    np.testing.assert_array_equal(fit.params, direct.params)
    np.testing.assert_array_equal(fit.r2, direct.r2)
    assert (fit.df_resid, fit.n_passes) == (direct.df_resid, 0)
    assert fit.summary().splitlines()[-25:] == direct.summary().splitlines()[-25:]


def test_likelihoods_with_and_without_effects_are_compared() -> None:
    plain = fitted(System.from_arrays(DATA.Y, np.column_stack([np.ones(240), DATA.X])), rank=0)
    test, wanted = (plain.lr_test(fitted(s, rank=0)) for s in (DATA.system("firm"), DATA.with_dummies("firm")))
    np.testing.assert_allclose((test.statistic, test.df), (wanted.statistic, wanted.df), rtol=1e-8)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_cluster_gives_the_same_bits(engine: Any, client: Client) -> None:
    cut = [da.from_array(values, chunks=(67, -1)) for values in (DATA.Y, DATA.X)]
    systems = [System.from_arrays(*cut, absorb=DATA.labels(*names)) for names in LABELS]

    def results() -> list[np.ndarray]:
        fits = [fitted(system, engine=engine) for system in systems]
        errors = [fit.with_cov("robust").std_errors.values for fit in fits]
        return [*(fit.params.values for fit in fits), *(fit.r2_within.values for fit in fits), *errors]

    there = results()
    assert len(client.scheduler_info()["workers"]) == 2
    with dask.config.set(scheduler="threads"):
        here = results()
    for found, wanted in zip(there, here, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_streamed_fit_of_columns_that_depend_once_centred() -> None:
    """All dummies of one label add up to the constant, beside which those of another follow."""
    rng = np.random.default_rng(0)
    firm, year = rng.integers(0, 25, 600), rng.integers(0, 7, 600)
    X = rng.normal(size=(600, 3)) + rng.normal(size=(25, 3))[firm]
    Y = X @ rng.normal(size=(3, 4)) + 2 * rng.normal(size=(25, 4))[firm] + rng.normal(size=(600, 4))
    system = System.from_arrays(Y, np.hstack([X, np.eye(25)[firm], np.eye(7)[year][:, 1:]]))
    streamed, compressed = (fitted(system, engine=engine, rank=0) for engine in ENGINES)
    np.testing.assert_allclose(streamed.r2, compressed.r2, rtol=1e-9)
    np.testing.assert_allclose(streamed.params, compressed.params, rtol=1e-8, atol=1e-10)
