"""Standard errors of streamed fits that have no room for X'X: the same by passes over the rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lrgls_dask import Fit, GroupedLowRank, LowRankGLS, SparseLowRank, System
from lrgls_dask.inference import by_passes
from lrgls_dask.rows.memory import Room
from lrgls_dask.solve.prices import columns_at_once, has_room_for_matrix, solved_at_once
from support.fits import fit, remade
from support.systems import dask_rows, simulate, zarr_rows

pytestmark = pytest.mark.filterwarnings("ignore:LowRankGLS")
GROUPS = dict(zip([f"y{j}" for j in range(6)], "aaabbb", strict=True))
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weights": {},
    "ridge": {"lam_B": 5.0},
    "restrictions": {},
    "drop": {"missing": "drop"},
    "grouped": {"covariance": GroupedLowRank(1, GROUPS)},
    "sparse": {"covariance": SparseLowRank(1, 0.01)},
    "diagonal": {"covariance": "diagonal"},
    "ols": {"algorithm": "ols"},
}


def without_products(made: Fit, room: bool, monkeypatch: pytest.MonkeyPatch) -> Fit:
    """The same fit, as where X'X had no room; now there is some, or still none."""
    monkeypatch.setattr(by_passes.CovByPasses, "_has_room", room)
    return remade(made, evidence=replace(made.evidence, x=None))


def streamed(kind: str, way: str, wrap: Any = None) -> Fit:
    data = simulate(kind, weighted=way == "weights", n=160, k=1)
    given = {"engine": "stream", "rel_tol": 1e-9} | OPTIONS[way]
    if way == "drop":
        Y = data.Y.copy()
        Y[::9, 1] = np.nan
        data = replace(data, Y=Y)
    system = data.system(dask_rows(37) if wrap is None else wrap)
    if way == "restrictions":
        first = [terms[0] for terms in system.design.terms]
        given["restrictions"] = [f"y0:{first[0]} = y1:{first[1]}", f"y2:{system.design.terms[2][-1]} = 0.5"]
    return fit(system, rank="auto" if "covariance" in given else {"ols": 0}.get(way, 1), **given)


@pytest.mark.parametrize("room", [True, False])
@pytest.mark.parametrize("kind", ["own", "mixed"])
@pytest.mark.parametrize("way", list(OPTIONS))
def test_errors_are_those_of_products_at_hand(way: str, kind: str, room: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = streamed(kind, way)
    found = without_products(wanted, room, monkeypatch)
    np.testing.assert_allclose(found.std_errors, wanted.std_errors, rtol=1e-9, atol=1e-300)
    name = found.equations[3]
    block = wanted.cov(equation=name).values
    np.testing.assert_allclose(found.cov(equation=name), block, rtol=1e-8, atol=1e-9 * np.abs(block).max())
    R = np.zeros((2, found.n_coefficients))
    R[0, found.design.spans[3]], R[1, found.design.offsets[3] + 1] = 1.0, -1.0
    assert found.wald_test(R).statistic == pytest.approx(wanted.wald_test(R).statistic, rel=1e-8)
    assert "Std errors" in str(found.summary()) and str(found.summary()) == str(wanted.summary())
    if way == "ols":
        with pytest.raises(ValueError, match="needs covariances between equations"):
            found.wald_test(f"*:{found.design.terms[0][0]} = 0" if kind == "mixed" else np.ones(found.n_coefficients))
        return
    R[1, -1] = 2.0
    assert found.wald_test(R).statistic == pytest.approx(wanted.wald_test(R).statistic, rel=1e-8)
    if room:
        whole = wanted.cov().values
        np.testing.assert_allclose(found.cov(), whole, rtol=1e-8, atol=1e-9 * np.abs(whole).max())
    debiased = found.cov(equation=name, debiased=True) if way != "ridge" else None
    if debiased is not None:
        np.testing.assert_allclose(debiased, wanted.cov(equation=name, debiased=True), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    ("wrap", "on_cluster"), [(np.asarray, False), (zarr_rows(23), False), (dask_rows(80), False), (dask_rows(80), True)]
)
def test_containers_and_a_cluster(
    wrap: Any, on_cluster: bool, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = streamed("own", "plain").std_errors.values
    if on_cluster:
        request.getfixturevalue("client")
    made = streamed("own", "plain", wrap)
    for room in (True, False):
        found = without_products(made, room, monkeypatch)
        np.testing.assert_allclose(found.std_errors, wanted, rtol=1e-7)


def test_one_equation_takes_a_few_passes_and_no_more_where_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 equations of 3 regressors in 2,000 rows: coupled through the factor alone."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2_000, 120))
    X[:, ::3] = 1.0
    Y = rng.normal(size=(2_000, 1)) + rng.normal(size=(2_000, 40))
    system = System.from_arrays(Y, [X[:, 3 * j : 3 * j + 3] for j in range(40)])
    made = LowRankGLS(1, engine="stream", algorithm="fgls").fit(system).result_
    found = without_products(made, False, monkeypatch)
    meter = found._classical.problem.meter
    assert meter.passes == 1  # which tells the rows from others
    block = found.cov(equation=found.equations[7]).values
    assert meter.passes <= 8
    np.testing.assert_allclose(block, made.cov(equation=made.equations[7]), rtol=1e-9, atol=1e-12)
    before = meter.passes
    _ = found.std_errors
    found.predict(system, interval=0.9)  # of the same blocks
    assert meter.passes - before <= 8  # all right-hand sides side by side
    monkeypatch.setattr("lrgls_dask.inference.by_solving.AT_ONCE", 8 * 120 * 30)
    again = without_products(made, False, monkeypatch)
    np.testing.assert_allclose(again.std_errors, made.std_errors, rtol=1e-9)
    assert again._classical.problem.meter.passes >= 10  # a few equations at a time where memory is short
    whole = without_products(made, True, monkeypatch)
    monkeypatch.setattr("lrgls_dask.solve.prices.PARTIALS_IN_FLIGHT", 10**9)
    np.testing.assert_allclose(whole.std_errors, made.std_errors, rtol=1e-9)
    assert whole._classical.problem.meter.passes > 2  # a panel of columns each


def test_a_fit_from_a_file_takes_the_rows_that_were_fitted(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = streamed("own", "plain")
    without_products(made, False, monkeypatch).to_zarr(tmp_path / "fit")
    back = Fit.from_zarr(tmp_path / "fit")
    with pytest.raises(ValueError, match=r"Use with_cov\('classical', system=...\) with the fitted data"):
        _ = back.std_errors
    assert "with_cov" in str(back.summary())
    monkeypatch.setattr("lrgls_dask.results.by_passes.room_for_passes", lambda *_: Room(1e9, 0.0, False))
    found = back.with_cov("classical", system=made.system)
    np.testing.assert_allclose(found.std_errors, made.std_errors, rtol=1e-9)
    found.to_zarr(tmp_path / "again")
    again = Fit.from_zarr(tmp_path / "again")
    np.testing.assert_array_equal(again.std_errors, found.std_errors)
    with pytest.raises(ValueError, match="only those within equations are kept"):
        again.wald_test(np.ones(again.n_coefficients))
    assert again.wald_test("y1:* = 0").df == made.design.sizes[1]
    other = simulate("own", n=160, k=1, seed=3).system()
    with pytest.raises(ValueError, match="not the rows that were fitted"):
        back.with_cov("classical", system=other)


def test_matrices_and_sums_of_passes_keep_to_the_memory_limit() -> None:
    """The fit's own limit, whatever is free: where right-hand sides have less room they take more passes."""
    system = simulate("own", n=160, k=1).system(dask_rows(37))
    made = LowRankGLS(1, engine="stream", algorithm="fgls").fit(system).result_
    passes = {}
    for limit in (None, "64GB", "1MB"):
        options = {**made.settings.options, "memory_limit": limit}
        found = remade(made, options=options, evidence=replace(made.evidence, x=None))
        np.testing.assert_allclose(found.std_errors, made.std_errors, rtol=1e-9)
        passes[limit] = found._classical.problem.meter.passes
    assert passes[None] == passes["64GB"] == 2 < passes["1MB"]
    with pytest.raises(ValueError, match=r"Take one equation at a time, cov\(equation=...\)"):
        found.cov()
    with pytest.raises(MemoryError, match=r"room for 0 GB. Ask for one equation at a time: cov\(equation=...\)"):
        _ = found._classical.full
    name = found.equations[2]
    np.testing.assert_allclose(found.cov(equation=name), made.cov(equation=name), rtol=1e-8, atol=1e-12)


def test_room_is_shared_by_sums_and_matrices_of_one_process_and_not_of_two() -> None:
    design = simulate("own", n=160, k=1).system().design
    P, most = design.n_coefficients, int(design.sizes.max())
    sums, matrix = 24 * 8 * design.n_regressors, 8 * P**2
    assert columns_at_once(design, Room(matrix + 5 * sums, matrix + 5 * sums, True)) == 5
    assert columns_at_once(design, Room(5 * sums, matrix, False)) == 5
    assert not has_room_for_matrix(design, Room(matrix + sums * (most - 1), matrix + sums * (most - 1), True))
    assert not has_room_for_matrix(design, Room(1e9, matrix - 1, False))
    each = 8 * 5 * P + 3 * sums
    assert solved_at_once(design, 3, Room(each * (most + 4), each * (most + 4), True)) == most + 4
    assert solved_at_once(design, 3, Room(3 * sums * (most + 2), 1e9, False)) == most + 2
    assert solved_at_once(design, 3, Room(0.0, 0.0, True)) == most


def test_what_needs_products_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    data = simulate("own", n=160, k=1)
    full = LowRankGLS(covariance="full", engine="stream").fit(data.system(dask_rows(37))).result_
    np.testing.assert_allclose(without_products(full, True, monkeypatch).std_errors, full.std_errors, rtol=1e-9)
    with pytest.raises(ValueError, match="'full' is not made of factors and variances"):
        _ = without_products(full, False, monkeypatch).std_errors
    restricted = streamed("own", "restrictions")
    least = remade(restricted, algorithm="ols")
    with pytest.raises(ValueError, match="restricted least squares need X'X"):
        _ = without_products(least, True, monkeypatch).std_errors
