"""More equations than rows: rows stay rows, no K x K array is made, and the answer is that of one."""

from __future__ import annotations

import tracemalloc
from typing import Any

import dask.array as da
import numpy as np
import pytest

from lrgls_dask import Fit, LowRankGLS
from lrgls_dask.rows.meter import Meter
from lrgls_dask.solve.in_memory import InMemory
from support.systems import Data

N, K = 50, 450  # K above what the exact Hessian is found of
pytestmark = pytest.mark.filterwarnings("ignore:LowRankGLS.")  # of best ranks at the edge of those that are tried


def drawn(n: int = N, size: int = K, kind: str = "shared", weighted: bool = False) -> Data:
    rng = np.random.default_rng([n, size])
    X = np.column_stack([np.ones(n), rng.normal(size=(n, 2))])
    columns: tuple[np.ndarray, ...] = (np.arange(3),) * size
    if kind == "own":
        X = np.column_stack([X, rng.normal(size=(n, size))])
        columns = tuple(np.array([0, 1, 3 + j]) for j in range(size))
    Y = np.column_stack([X[:, c] @ rng.normal(size=3) for c in columns])
    Y += rng.normal(size=(n, 3)) @ rng.normal(size=(3, size)) + rng.normal(size=(n, size))
    return Data(kind, Y, X, columns, rng.uniform(0.5, 2.0, n) if weighted else None)


def fitted(data: Data, rank: Any = 3, wrap: Any = np.asarray, **options: Any) -> Fit:
    return LowRankGLS(rank, **options).fit(data.system(wrap)).result_


@pytest.mark.parametrize(
    ("kind", "weighted", "options"),
    [
        ("shared", False, {}),
        ("shared", True, {}),
        ("own", False, {}),
        ("shared", False, {"rank": 0}),
        ("shared", False, {"rank": "bic", "ranks": [1, 3, 4]}),
        ("shared", False, {"missing": "em"}),
        ("shared", False, {"algorithm": "fgls"}),
        ("shared", False, {"algorithm": "em"}),
        ("own", False, {"restrictions": "y0:x1 = y1:x1"}),
        ("own", False, {"lam_B": 2.0}),
    ],
    ids=lambda value: str(value),
)
def test_rows_say_what_their_products_say(
    kind: str, weighted: bool, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = drawn(kind=kind, weighted=weighted)
    found = fitted(data, **options)
    assert found.engine == "compress" and found.n_passes == 1
    monkeypatch.setattr("lrgls_dask.solve.in_memory.FEWER_ROWS", np.inf)
    expected = fitted(data, **options)
    assert found.rank == expected.rank
    assert found.loglik == pytest.approx(expected.loglik, abs=1e-4)
    apart = np.abs(found.params.values - expected.params.values) / expected.std_errors.values
    assert apart.max() < 1e-3
    np.testing.assert_allclose(found.std_errors, expected.std_errors, rtol=1e-3)


@pytest.mark.parametrize("options", [{"lam_F": 0.1}, {"sigma_step": "pca"}, {"debiased": True}], ids=str)
def test_what_needs_products_of_all_pairs_still_has_them(options: dict[str, Any]) -> None:
    found = fitted(drawn(), 2, **options)
    assert np.isfinite(found.loglik) and found.engine == "compress"


def test_no_array_of_all_pairs_is_made() -> None:
    size = 3_000
    data = drawn(60, size)
    system = data.system()
    tracemalloc.start()
    found = LowRankGLS(3).fit(system).result_
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.n_passes == 1
    assert peak < 8 * size**2 / 2


def test_neither_is_it_priced() -> None:
    system = drawn(60, 20_000).system()
    plan = LowRankGLS(3).plan(system)
    assert plan.engine == "compress"
    held = LowRankGLS(1).plan(drawn(60, 5).system()).client_peak  # what this process holds already
    assert plan.client_peak - held < 8 * 20_000**2 / 2
    pairs = LowRankGLS(3, lam_F=0.1, memory_limit=held + 2 * 10**9).plan(system)  # which needs all pairs
    assert pairs.engine == "stream"


def test_chunks_of_few_rows_are_stacked_to_the_same() -> None:
    data = drawn()
    whole = fitted(data)
    pieces = fitted(data, wrap=lambda a: da.from_array(a, chunks=(7, -1)))
    assert pieces.loglik == pytest.approx(whole.loglik, rel=1e-10)
    np.testing.assert_allclose(pieces.params, whole.params, rtol=1e-7, atol=1e-9)
    compressed = data.system().compress()
    assert compressed.rows.route == "qr" and len(compressed.rows.root) <= N
    np.testing.assert_allclose(LowRankGLS(3).fit(compressed).result_.params, whole.params, rtol=1e-7, atol=1e-9)


def test_appended_rows_become_more_than_equations() -> None:
    data = drawn(120, 90)
    first, second = (Data(data.kind, data.Y[s], data.X[s], data.columns) for s in (slice(40), slice(40, None)))
    both = first.system().compress().append(second.system())
    expected = fitted(data)
    found = LowRankGLS(3).fit(both).result_
    assert found.loglik == pytest.approx(expected.loglik, rel=1e-10)
    np.testing.assert_allclose(found.params, expected.params, rtol=1e-6, atol=1e-8)


def test_the_bootstrap_refits_such_systems() -> None:
    data = drawn(40, 410)
    found = fitted(data, 1)
    made = found.bootstrap(3, seed=1)
    assert np.isfinite(np.asarray(made.std_errors)).all()


def test_a_problem_says_when_it_keeps_rows() -> None:
    rows = drawn().system().compress().rows
    keeps = InMemory(rows, lam_B=0.0, meter=Meter(), by_rows=True)
    assert keeps.by_rows and keeps.width == len(rows.root) + 1
    assert not InMemory(rows, lam_B=0.0, meter=Meter()).by_rows
