"""Conjugate gradients: as many iterations as distinct eigenvalues, and what they promise on the way."""

from __future__ import annotations

import numpy as np
import pytest

from lrgls_dask.solve.cg import conjugate_gradients


def problem(values: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.normal(size=(len(values), len(values))))[0]
    return Q @ np.diag(values) @ Q.T, rng.normal(size=len(values))


@pytest.mark.parametrize("distinct", [1, 2, 5])
def test_iterations_are_distinct_eigenvalues(distinct: int) -> None:
    A, b = problem(np.resize(np.arange(1.0, distinct + 1.0), 20))
    found = conjugate_gradients(lambda p, _: A @ p, np.zeros(20), b, np.ones(20), tol=1e-20, max_iterations=100)
    assert len(found.steps) == distinct
    np.testing.assert_allclose(found.x, np.linalg.solve(A, b), rtol=1e-10)


def test_a_warm_start_and_a_preconditioner_lead_to_the_same_solution() -> None:
    A, b = problem(np.geomspace(1, 1e4, 12))
    start, diagonal = np.linspace(-1, 1, 12), A.diagonal()
    seen: list[np.ndarray] = []

    def product(p: np.ndarray, x: np.ndarray) -> np.ndarray:
        seen.append(x.copy())
        return A @ p

    before = start.copy()
    found = conjugate_gradients(product, start, b - A @ start, diagonal, tol=1e-18, max_iterations=100)
    np.testing.assert_allclose(found.x, np.linalg.solve(A, b), rtol=1e-7)
    np.testing.assert_array_equal(start, before)  # no argument is changed
    np.testing.assert_array_equal(seen[0], start)
    assert len(seen) == len(found.steps)
    residual = b - A @ found.x
    assert residual @ (residual / diagonal) < 1e-15


def test_it_stops_where_it_is_told() -> None:
    A, b = problem(np.geomspace(1, 1e6, 30))
    few = conjugate_gradients(lambda p, _: A @ p, np.zeros(30), b, np.ones(30), tol=1e-30, max_iterations=4)
    assert len(few.steps) == 4
    none = conjugate_gradients(lambda p, _: A @ p, np.ones(30), np.zeros(30), np.ones(30), tol=0.0, max_iterations=4)
    assert none.steps == ()
    np.testing.assert_array_equal(none.x, np.ones(30))
