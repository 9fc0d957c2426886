"""From blocks of columns, and what each equation takes of them, to `Rows` with a `Design`."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np

from lrgls_dask.data.labels import distinct_labels
from lrgls_dask.data.weights import Weights
from lrgls_dask.design.design import Design
from lrgls_dask.design.own_columns import with_own_columns
from lrgls_dask.rows.block import as_columns
from lrgls_dask.rows.memory import has_room_here
from lrgls_dask.rows.rows import Part, Rows

__all__ = ["Use", "build_design", "build_rows"]

MANY = 64  # arrays in memory, beyond which every pass would spend its time on their number
ROOM = 4  # times the memory of one array for all of them, that has to be free where it is made


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
    """Rows of these parts; parts with equal row chunks come to share one tuple, so that comparing them is cheap.

    Very many arrays in memory, one or more for each equation, become one, in memory of its own if there is enough.
    """
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
    x, y = _joined(x), _joined(y)
    return Rows(tuple(map(shared, x)), tuple(map(shared, y)), kept, design, n_obs, cells=cells)


def _joined(parts: Sequence[Part]) -> Sequence[Part]:
    """The same columns: arrays in memory that follow each other side by side in one, where they are very many."""
    in_memory = [part for part in parts if isinstance(part.array, np.ndarray)]
    if len(in_memory) <= MANY or len({len(part.array) for part in in_memory}) > 1:  # which is refused later
        return parts
    n_rows, dtype = len(in_memory[0].array), np.result_type(*{part.array.dtype for part in in_memory})
    if not has_room_here(ROOM * n_rows * dtype.itemsize * sum(part.n_columns for part in in_memory), None):
        return parts
    found: list[Part] = []
    for is_here, run in groupby(parts, lambda part: isinstance(part.array, np.ndarray)):
        together = list(run)
        if not is_here or len(together) == 1:
            found += together
            continue
        out, begin = np.empty((n_rows, sum(part.n_columns for part in together)), dtype=dtype), 0
        for part in together:
            out[:, begin : begin + part.n_columns] = as_columns(part.array)
            begin += part.n_columns
        found.append(Part(f"{together[0].name} to {together[-1].name}", out, None))
    return found


def rounding_of(dtype: Any) -> float:
    """Relative rounding of values stored so; 0 for float64, to which all are promoted, and for exact integers."""
    kind = np.dtype(dtype)
    return float(np.finfo(kind).eps) if kind.kind == "f" and kind.itemsize < 8 else 0.0
