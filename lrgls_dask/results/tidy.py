"""Fits as frames: a row a coefficient, a row a fit, a row an equation."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import pandas as pd

from lrgls_dask.checks import check_level
from lrgls_dask.data.indices import as_index
from lrgls_dask.design.design import Design
from lrgls_dask.design.skipped import ON_FLOOR
from lrgls_dask.results.chosen import Chosen, choose
from lrgls_dask.results.measures import Measures
from lrgls_dask.results.reported import Reported
from lrgls_dask.solve.record import Termination
from lrgls_dask.varying.sigmas import SegmentSigmas

__all__ = [
    "NOT_TO_BE_HAD",
    "NUMBERS",
    "equation_columns",
    "estimates_of",
    "glance",
    "glance_by_equation",
    "numbers_of",
    "term_columns",
    "tidy",
]

# What says why a number cannot be had (LinAlgError is a ValueError); pages show the others all the same.
NOT_TO_BE_HAD = (ValueError, ArithmeticError, MemoryError)
NUMBERS = ("estimate", "std_error", "statistic", "p_value", "conf_low", "conf_high")
BY_EQUATION = ("n_obs", "n_coefficients", "df_resid", "r2", "adj_r2", "error_var", "idio_var", "status")
TAKEN = frozenset(("term", *NUMBERS, *BY_EQUATION, "cov_kind"))  # what no dim may be called in a frame


def tidy(fit: Reported, equation: Any = None, term: Any = None, level: float = 0.95) -> pd.DataFrame:
    """A row for each coefficient that is asked for, see `Fit.tidy`; standard errors of others are not computed."""
    check_level(level)
    whole = fit._whole
    chosen = choose(whole, fit.equation_dim, equation, term)
    columns = zip(NUMBERS, numbers_of(fit, chosen, level), strict=True)
    return pd.DataFrame(term_columns(whole, chosen) | dict(columns))


def numbers_of(fit: Reported, chosen: Chosen, level: float) -> np.ndarray:
    """(6, m) NUMBERS of coefficients of all equations; NaN for those of skipped ones."""
    own, mine = _estimated(fit, chosen)
    estimate, error = fit.coefficients[mine], _errors_of(fit, mine)
    with np.errstate(divide="ignore", invalid="ignore"):  # a variance may have been made zero, which is said
        statistic = estimate / np.where(_held(fit, mine), np.nan, error)
    at = fit.design.equation_of[mine]
    half = fit.reference.half_width(1.0 - level)[at] * error
    p_value = fit.reference.two_sided(statistic, fit.reference.freedom[at])
    columns = estimate, error, statistic, p_value, estimate - half, estimate + half
    numbers = np.full((len(columns), len(chosen.places)), np.nan)
    numbers[:, own] = columns
    return numbers


def estimates_of(fit: Reported, chosen: Chosen) -> np.ndarray:
    """(m,) the first of these numbers."""
    own, mine = _estimated(fit, chosen)
    found = np.full(len(chosen.places), np.nan)
    found[own] = fit.coefficients[mine]
    return found


def _estimated(fit: Reported, chosen: Chosen) -> tuple[np.ndarray, np.ndarray]:
    """Which of the chosen coefficients were estimated, and their places among those that were."""
    if fit.skipped is None:
        return np.arange(len(chosen.places)), chosen.places
    there = fit.skipped.kept.coefficients
    place = np.full(fit.skipped.whole.n_coefficients, -1)
    place[there] = np.arange(len(there))
    found = place[chosen.places]
    own = np.flatnonzero(found >= 0)
    return own, found[own]


def _errors_of(fit: Reported, mine: np.ndarray) -> np.ndarray:
    """(m,) standard errors of some coefficients, by place among those that were estimated."""
    if "_errors" in vars(fit) or len(mine) == fit.n_coefficients:
        return fit._errors[mine]
    return np.sqrt(fit._behind.variances_of(mine))


def _held(fit: Reported, mine: np.ndarray) -> np.ndarray:
    """(m,) whether restrictions hold a coefficient."""
    return np.zeros(len(mine), dtype=bool) if fit.restrictions is None else fit.restrictions.held[mine]


def term_columns(design: Design, chosen: Chosen) -> dict[str, Any]:
    """The labels of coefficients as columns."""
    return equation_columns(design, chosen.equations) | {"term": as_index(chosen.terms)}


def equation_columns(design: Design, equations: np.ndarray) -> dict[str, Any]:
    """The labels of equations, by position: one column, or one for each of the dims that they lie on."""
    if not design.equation_dims:
        return {"equation": as_index(design.equations)[equations]}
    lengths = tuple(map(len, design.equation_dims.values()))
    along = zip(design.equation_dims.items(), np.unravel_index(equations, lengths), strict=True)
    return {_column(dim): as_index(labels)[at] for (dim, labels), at in along}


def _column(dim: Hashable) -> str:
    return f"equation_{dim}" if dim in TAKEN else str(dim)


# ---------------------------------------------------------------------------------------------- a row a fit


def glance(fit: Reported) -> pd.DataFrame:
    """One row; what a kind of fit does not have, or what cannot be had without a read, is NaN."""
    status = fit.status.values
    row: dict[str, Any] = {
        "n_obs": fit.n_obs,
        "n_cells": fit.n_cells,
        "n_equations": fit.n_equations,
        "n_coefficients": fit.n_coefficients,
        "n_parameters": fit.n_parameters,
        "df_resid": fit.df_resid,
        "rank": fit.rank,
        "loglik": fit.loglik,
        "aic": _or_nan(lambda: fit.aic),
        "bic": _or_nan(lambda: fit.bic),
        "mcelroy_r2": _mcelroy(fit),
        "converged": fit.termination is Termination.CONVERGED,
        "termination": fit.termination.value,
        "n_sweeps": fit.n_sweeps,
        "n_passes": fit.n_passes,
        "algorithm": fit.algorithm,
        "engine": fit.run.engine,
        "missing": fit.missing,
        "cov_kind": fit.cov_kind,
        "n_on_floor": int((status == ON_FLOOR).sum()),
        "n_skipped": 0 if fit.skipped is None else fit.n_equations - len(fit.skipped.equations),
    }
    row |= {name: getattr(fit, name) for name in ("n_segments", "bandwidth") if hasattr(fit, name)}
    return pd.DataFrame([row])


def _mcelroy(fit: Reported) -> float:
    if not isinstance(fit, Measures) or fit.evidence.system_measures:
        return float("nan")
    return _or_nan(fit.mcelroy_r2)


def _or_nan(value: Callable[[], float]) -> float:
    try:
        return float(value())
    except NOT_TO_BE_HAD:
        return float("nan")


def glance_by_equation(fit: Reported, only: np.ndarray | None = None) -> pd.DataFrame:
    """A row for each equation, those that were skipped too, of which there are no rows and no estimates.

    only : positions of those that are wanted, all where None.
    """
    whole = fit._whole
    wanted = np.arange(whole.n_equations) if only is None else only
    counts = np.zeros((3, whole.n_equations), dtype=np.intp)
    counts[:, fit._estimated_equations] = fit._shown, fit.design.sizes, fit._shown - fit._free
    error, own = _variances(fit)
    columns = (
        *counts,
        _or_nans(lambda: fit.r2, whole),  # type: ignore[attr-defined]
        _or_nans(lambda: fit.adj_r2, whole),  # type: ignore[attr-defined]
        _among_all(error, fit),
        _among_all(own, fit),
        fit.status.values,
    )
    of_wanted = {name: values[wanted] for name, values in zip(BY_EQUATION, columns, strict=True)}
    return pd.DataFrame(equation_columns(whole, wanted) | of_wanted)


def _variances(fit: Reported) -> tuple[np.ndarray, np.ndarray]:
    """(K,) of the errors, and of what is their own beside the factors; means over rows where Sigma varies."""
    if isinstance(fit, Measures):
        return fit.covariance.variances, fit.covariance.own_variances()
    sigmas: SegmentSigmas = fit.sigmas  # type: ignore[attr-defined]
    share = sigmas.cells / sigmas.cells.sum(axis=0)
    common = (sigmas.loadings**2).sum(axis=2)
    return (share * (common + sigmas.idio_var)).sum(axis=0), (share * sigmas.idio_var).sum(axis=0)


def _among_all(values: np.ndarray, fit: Reported) -> np.ndarray:
    """(K,) NaN for equations that were skipped, and for all where there are no values."""
    if not len(values):
        return np.full(fit.n_equations, np.nan)
    return values if fit.skipped is None else fit.skipped.placed(values, "equation", 0)


def _or_nans(value: Callable[[], Any], whole: Design) -> np.ndarray:
    try:
        return np.asarray(value().values)
    except NOT_TO_BE_HAD:
        return np.full(whole.n_equations, np.nan)
