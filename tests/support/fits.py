"""Fits to the last digit, fits that hold given numbers, and what it means that two fits are the same."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from lrgls_dask import CompressedSystem, Fit, LowRankGLS, System
from lrgls_dask.compression.compressed import compress_rows
from lrgls_dask.rows.meter import Meter
from lrgls_dask.sigma.lowrank import LowRank

TIGHT: dict[str, Any] = {"rel_tol": 1e-15, "max_sweeps": 500}


def fit(system: System | CompressedSystem, rank: Any = 2, **options: Any) -> Fit:
    """To the last digit that the loop has."""
    return LowRankGLS(rank, **(TIGHT | options)).fit(system).result_


def by_gram(system: System) -> CompressedSystem:
    """Compressed by cross-products, which the automatic choice leaves to data too long for a test."""
    return CompressedSystem(compress_rows(system.rows, route="gram", meter=Meter()))


def assert_params_close(found: Fit, expected: Fit, rtol: float) -> None:
    """Coefficients to rtol of their size, or of a standard error where that is larger."""
    scale = np.maximum(np.abs(expected.params.values), expected.std_errors.values)
    np.testing.assert_array_less(np.abs(found.params.values - expected.params.values), rtol * scale)


def assert_same_bits(found: Fit, expected: Fit) -> None:
    """Every number of the answer, to the last bit."""
    for name in ("params", "loadings", "idio_var", "std_errors"):
        np.testing.assert_array_equal(getattr(found, name).values, getattr(expected, name).values, err_msg=name)
    assert found.loglik == expected.loglik


def exactly(sigma: np.ndarray) -> LowRank:
    """Any covariance, as factors and variances."""
    least = 0.5 * np.linalg.eigvalsh(sigma)[0]
    return LowRank(np.linalg.cholesky(sigma - least * np.eye(len(sigma))), np.full(len(sigma), least))


def remade(made: Any, **changes: Any) -> Any:
    """The same fit with other numbers in its parts, by the names of their fields; `covariance` is that of one Sigma."""
    if "covariance" in changes:
        changes["one_sigma"] = replace(made.one_sigma, value=changes.pop("covariance"))
    parts = {each.name for each in fields(made)}
    for name in [name for name in changes if name not in parts]:
        part = next(
            p for p in ("estimated", "one_sigma", "settings", "run", "evidence") if hasattr(getattr(made, p), name)
        )
        made = replace(made, **{part: replace(getattr(made, part), **{name: changes.pop(name)})})
    return replace(made, **changes)


def at(made: Fit, coefficients: np.ndarray, sigma: np.ndarray) -> Fit:
    """The same rows at other estimates."""
    return remade(made, coefficients=coefficients, covariance=exactly(sigma))
