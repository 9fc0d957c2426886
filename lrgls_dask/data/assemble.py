"""From blocks of columns, and what each equation takes of them, to `Rows` with a `Design`."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lrgls_dask.data.labels import distinct_labels
from lrgls_dask.data.weights import Weights
from lrgls_dask.design.design import Design
from lrgls_dask.design.own_columns import with_own_columns
from lrgls_dask.rows.rows import Part, Rows

__all__ = ["Use", "build_design", "build_rows"]


@dataclass(frozen=True, eq=False)
class Use:
    """What one equation takes from one block of columns.

    block : which block.  places : (m,) columns within it.  terms : (m,) what the equation calls them.
    """

    block: int
    places: np.ndarray
    terms: tuple[Hashable, ...]


def build_design(
    equations: tuple[Hashable, ...],
    widths: Sequence[int],
    uses: Sequence[Sequence[Use]],
    regressors: tuple[Hashable, ...] | None = None,
) -> Design:
    """The incidence of blocks of `widths` columns side by side.

    uses : for each equation its uses, in order; equations that share one list object share its arrays.
    regressors : labels of the distinct columns; by default the term of each, with the first equation that uses it
    where the term recurs.
    """
    offsets = np.concatenate([[0], np.cumsum(widths)]).astype(np.intp)
    made: dict[int, tuple[np.ndarray, tuple[Hashable, ...]]] = {}
    first: dict[int, tuple[Hashable, Hashable]] = {}
    for equation, own in zip(equations, uses, strict=True):
        if id(own) in made:
            continue
        columns = np.concatenate([np.empty(0, dtype=np.intp), *(offsets[use.block] + use.places for use in own)])
        terms = tuple(term for use in own for term in use.terms)
        made[id(own)] = columns.astype(np.intp), terms
        for column, term in zip(made[id(own)][0].tolist(), terms, strict=True):
            first.setdefault(column, (term, equation))
    if regressors is None:
        pairs = [first[column] for column in range(int(offsets[-1]))]
        regressors = distinct_labels([term for term, _ in pairs], [equation for _, equation in pairs])
    columns_of = tuple(made[id(own)][0] for own in uses)
    return Design(equations, regressors, columns_of, tuple(made[id(own)][1] for own in uses))


def build_rows(x: Sequence[Part], y: Sequence[Part], weights: Weights, design: Design) -> Rows:
    """Rows of these parts; parts with equal row chunks come to share one tuple, so that comparing them is cheap."""
    known: dict[tuple[int, ...] | None, tuple[int, ...] | None] = {}

    def shared(part: Part) -> Part:
        return replace(part, row_chunks=known.setdefault(part.row_chunks, part.row_chunks))

    n_obs = int(y[0].array.shape[0])
    precision = tuple(eps for part in x for eps in [rounding_of(part.array.dtype)] * part.n_columns)
    design = replace(design, precision=precision if any(precision) else ())
    kept, cells = None if weights.rows is None else shared(weights.rows), weights.cells
    if cells is not None:
        design = with_own_columns(design, cells.weighting)
        cells = replace(cells, parts=tuple(map(shared, cells.parts)))
    return Rows(tuple(map(shared, x)), tuple(map(shared, y)), kept, design, n_obs, cells=cells)


def rounding_of(dtype: Any) -> float:
    """Relative rounding of values stored so; 0 for float64, to which all are promoted, and for exact integers."""
    kind = np.dtype(dtype)
    return float(np.finfo(kind).eps) if kind.kind == "f" and kind.itemsize < 8 else 0.0
