"""A system with its missing responses filled in, block by block: lazily, or written to a store."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import dask.array as da
import numpy as np

from lrgls_dask.data.places import Location
from lrgls_dask.data.storewriter import write_system
from lrgls_dask.prediction.conditional import Given, given_rows, given_std_rows
from lrgls_dask.prediction.fitted import Coefficients, check_same_design
from lrgls_dask.prediction.lazyrows import LazyRows
from lrgls_dask.rows.rows import Part
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.system import System

__all__ = ["Imputed", "imputed", "write_imputed"]


@dataclass(frozen=True, eq=False)
class Imputed:
    """A system with its missing responses filled in, unread.

    system : Y complete.  read_from : where its rows come from.  mean, variance : (N, K) lazy.
    """

    system: System
    read_from: frozenset[Location]
    mean: da.Array
    variance: da.Array


def imputed(coefficients: Coefficients, sigma: Sigma, system: System) -> Imputed:
    """The rows filled in, and the variance left of what was filled; reads nothing.

    Raises TypeError for what is no System, ValueError for another design.
    """
    if not isinstance(system, System):
        raise TypeError(f"impute fills in the responses of a System; got a {type(system).__name__}.")
    design = coefficients.design
    check_same_design(system.design.given, design)
    given = Given(coefficients, sigma, np.ones(design.n_equations, dtype=bool))
    lazy, K = LazyRows.of(system.rows), design.n_equations
    mean = lazy.map(given_rows, given, K, response=True, weighted=True)
    variance = lazy.map(_variance_rows, given, K, response=True, weighted=True)
    # the same lazy arrays everywhere, so that what is predicted from a block and what is copied share its read
    held, cells = system.rows.weights, system.rows.cells
    weights = tuple(da.map_blocks(np.nan_to_num, each, nan=1.0, dtype=each.dtype) for each in lazy.weights)
    rows = replace(
        system.rows,
        x=tuple(_part(part.name, array) for part, array in zip(system.rows.x, lazy.x, strict=True)),
        y=(_part("Y", mean),),
        weights=None if held is None else _part(held.name, weights[0][:, 0]),
        cells=None if cells is None else replace(cells, parts=tuple(map(_part, cells.names, weights))),
        complete_only=False,
    )
    return Imputed(replace(system, rows=rows), system.read_from, mean, variance)


def write_imputed(found: Imputed, path: Any, *, overwrite: bool, storage_options: dict[str, Any] | None) -> None:
    """Write format 1 with Y complete, and the variances `Y_variance` beside it.

    Costs one read of the rows where their stored chunks are alike, and a few blocks of memory.
    """
    write_system(
        found.system,
        path,
        overwrite=overwrite,
        storage_options=storage_options,
        beside=(_part("Y_variance", found.variance),),
        apart_from=found.read_from,
    )


def _variance_rows(x: np.ndarray, y: np.ndarray | None, weights: np.ndarray | None, params: Given) -> np.ndarray:
    return np.asarray(given_std_rows(x, y, weights, params) ** 2)


def _part(name: str, array: da.Array) -> Part:
    return Part(name, array, tuple(int(height) for height in array.chunks[0]))
