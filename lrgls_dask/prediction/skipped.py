"""Rows as a fit sees them that skipped some of their equations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np

from lrgls_dask.compression.either import some_equations
from lrgls_dask.design.narrowed import narrowed
from lrgls_dask.design.skipped import Skipped
from lrgls_dask.prediction.fitted import check_same_design
from lrgls_dask.prediction.newdata import NewRows
from lrgls_dask.rows.narrowed import narrowed_rows

__all__ = ["as_estimated", "new_rows_as_estimated", "of_all_equations"]


def as_estimated(system: Any, skipped: Skipped | None) -> Any:
    """The system without the equations that were skipped; nothing is read.

    Itself where none was, or where it never had them. Raises ValueError for other designs.
    """
    if skipped is None or system.design.given.same_as(skipped.kept.design.given):
        return system
    check_same_design(system.design.given, skipped.whole.given)
    return some_equations(system, skipped.equations)


def new_rows_as_estimated(new: NewRows, skipped: Skipped | None) -> NewRows:
    """The same of rows to predict, which have all equations."""
    if skipped is None:
        return new
    return replace(new, rows=narrowed_rows(new.rows, narrowed(new.rows.design, skipped.equations)))


def of_all_equations(values: da.Array, skipped: Skipped | None) -> da.Array:
    """(N, K) lazy values of the equations that were estimated, with columns of NaN for the others."""
    if skipped is None:
        return values
    place: Any = skipped.placed
    chunks = (values.chunks[0], (skipped.whole.n_equations,))
    meta = np.empty((0, 0))
    return values.map_blocks(place, "equation", 1, dtype=np.float64, chunks=chunks, meta=meta)
