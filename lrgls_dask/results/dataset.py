"""A fit as one Dataset on the user's dims: what maps, tables and files are made of."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import xarray as xr

from lrgls_dask.data.griddims import on_dims, with_said
from lrgls_dask.data.indices import as_index
from lrgls_dask.design.design import Design
from lrgls_dask.results.reported import Reported
from lrgls_dask.results.tidy import NOT_TO_BE_HAD
from lrgls_dask.rows.memory import require_here

__all__ = ["as_dataset"]

BY_COEFFICIENT = ("params", "std_errors", "tvalues", "pvalues")
BY_EQUATION = ("status", "r2", "adj_r2", "idio_var", "loadings")


def as_dataset(fit: Reported) -> xr.Dataset:
    """The variables behind `to_dataset`, as many as there are."""
    found: dict[str, xr.DataArray] = {}
    missing: list[str] = []
    shape = len(_of_all(fit).equations), len(_terms(_of_all(fit)))
    require_here(
        8 * len(BY_COEFFICIENT) * shape[0] * shape[1],
        f"a table of {shape[0]:,} equations by {shape[1]:,} regressors, most of which an equation does not have",
        "Take fit.tidy(), which has a row for each coefficient",
    )
    for name in (*BY_COEFFICIENT, *BY_EQUATION):
        try:
            array: xr.DataArray = getattr(fit, name)
        except NOT_TO_BE_HAD as error:
            missing.append(f"{name}: {error}")
            continue
        except AttributeError:  # of fits of another kind
            continue
        found[name] = _wide(fit, array) if name in BY_COEFFICIENT else array
    dim, whole = fit.equation_dim, _of_all(fit)
    made = {name: on_dims(_named(array, dim), dim, whole) for name, array in found.items()}
    said = {name: getattr(fit, name) for name in ("n_obs", "loglik", "rank", "cov_kind")}
    attributes: dict[str, Any] = {**said, "termination": fit.termination.value}
    told = xr.Dataset(made, attrs=attributes | ({"missing": missing} if missing else {}))
    return with_said(told, whole)


def _of_all(fit: Reported) -> Design:
    """The design of all equations, those that were skipped too."""
    return fit.design if fit.skipped is None else fit.skipped.whole


def _named(array: xr.DataArray, dim: str) -> xr.DataArray:
    return array if dim == "equation" else array.rename(equation=dim)


def _terms(design: Design) -> list[Hashable]:
    """What equations call their regressors, each once."""
    return list(dict.fromkeys(term for own in design.terms for term in own))


def _wide(fit: Reported, array: xr.DataArray) -> xr.DataArray:
    """(equation, regressor) of (coefficient,), NaN where an equation does not have the regressor."""
    whole = _of_all(fit)
    terms = _terms(whole)
    place = {term: i for i, term in enumerate(terms)}
    columns = [place[term] for own in whole.terms for term in own]
    values = np.full((whole.n_equations, len(terms)), np.nan)
    values[whole.equation_of, columns] = array.values
    coords = {
        "equation": as_index(whole.equations, name="equation"),
        "regressor": as_index(terms, name="regressor"),
    }
    return xr.DataArray(values, coords, ("equation", "regressor"), name=array.name)
