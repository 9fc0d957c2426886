"""What the coefficients would be told without holes, of cross-products of columns: from the rows, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.missing.complete import CompleteInformation
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.rows.meter import Meter
from lrgls_dask.sigma.full import FullSigma
from support.incomplete import with_holes
from support.systems import simulate

K = 6
MOST = pytest.mark.parametrize("most", [None, 0], ids=["patterns", "streamed"])


def some_sigma() -> FullSigma:
    root = np.random.default_rng(7).normal(size=(K, 2 * K))
    return FullSigma(root @ root.T / (2 * K))


def problem_of(kind: str, most: int | None, share: float = 0.2, **options: object) -> Incomplete:
    data = simulate(kind, n=120, K=K, weighted=True)
    data = with_holes(data, share, n_patterns=9) if share else data
    return Incomplete(data.system().rows, lam_B=0.0, meter=Meter(), most_patterns=most, **options)


def matrix_of(information: CompleteInformation) -> np.ndarray:
    return np.column_stack([information.image(p) for p in np.eye(information.problem.design.n_coefficients)])


@MOST
@pytest.mark.parametrize("kind", ["own", "shared", "mixed"])
def test_without_holes_it_is_the_information(kind: str, most: int | None) -> None:
    problem, sigma = problem_of(kind, most, share=0.0), some_sigma()
    information = problem.information(sigma)
    scale = np.abs(information).max()
    np.testing.assert_allclose(matrix_of(CompleteInformation(problem, sigma)), information, atol=1e-9 * scale)


@MOST
@pytest.mark.parametrize("kind", ["own", "shared", "mixed"])
def test_with_holes_it_is_never_less(kind: str, most: int | None) -> None:
    problem, sigma = problem_of(kind, most), some_sigma()
    more = matrix_of(CompleteInformation(problem, sigma)) - problem.information(sigma)
    np.testing.assert_allclose(more, more.T, atol=1e-9 * np.abs(more).max())
    least, *_, most_of_all = np.linalg.eigvalsh(more)
    assert most_of_all > 1.0
    assert least > -1e-9 * most_of_all


@MOST
@pytest.mark.parametrize("kind", ["own", "shared", "mixed"])
def test_a_step_and_a_length_are_those_of_the_matrix(kind: str, most: int | None) -> None:
    information = CompleteInformation(problem_of(kind, most), some_sigma())
    matrix = matrix_of(information)
    gradient, u, v = np.random.default_rng(3).normal(size=(3, len(matrix)))
    projected, step = information.step(gradient)
    np.testing.assert_array_equal(projected, gradient)
    expected = np.linalg.solve(matrix, gradient)
    np.testing.assert_allclose(step, expected, rtol=1e-6, atol=1e-7 * np.abs(expected).max())
    of_u, of_v = information.root(np.stack([u, v]))
    np.testing.assert_allclose(of_u @ of_v, u @ matrix @ v, rtol=1e-9)


def test_a_step_keeps_to_restrictions() -> None:
    rows = np.zeros((2, problem_of("shared", None).design.n_coefficients))
    rows[0, [0, 5]], rows[1, 2] = [1.0, -1.0], 1.0
    problem = problem_of("shared", None, restrictions=Restrictions(rows, np.zeros(2), ("", "")))
    assert problem.constraint is not None
    information = CompleteInformation(problem, some_sigma())
    gradient = np.random.default_rng(3).normal(size=rows.shape[1])
    _, step = information.step(gradient)
    free, matrix = problem.constraint.free, matrix_of(information)
    expected = free @ np.linalg.solve(free.T @ matrix @ free, free.T @ gradient)
    np.testing.assert_allclose(step, expected, rtol=1e-6, atol=1e-7 * np.abs(expected).max())
