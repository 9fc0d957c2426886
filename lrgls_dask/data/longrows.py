"""Long frames, a row for each cell: read at once, or of large Parquet files piece by piece.

The cells of a row lie anywhere in a frame. Files whose cells lie in the order of rows are streamed, others sorted on
disk before; small ones are read, and so are those whose formulas have lags, which reach into other pieces.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from dask.utils import format_bytes

from lrgls_dask.data.absorbed import absorbing
from lrgls_dask.data.assemble import build_rows
from lrgls_dask.data.formulas import Formulas, long_formulas
from lrgls_dask.data.framefit import FittedFormulas, design_of_long
from lrgls_dask.data.framelook import labels_of_rows, look, pieces_of, whole_columns
from lrgls_dask.data.labelled import LabelledRows
from lrgls_dask.data.labels import dim_of_rows
from lrgls_dask.data.longcolumns import LongColumns, spread_weights, weights_of
from lrgls_dask.data.longfiles import CELL_BYTES, LongFiles, long_files, require_pieces
from lrgls_dask.data.longframes import Placing, cells_of, formula_of, group_of_rows, shared_columns
from lrgls_dask.data.longkeys import PIECE_BYTES, scan_keys
from lrgls_dask.data.modelmatrix import Encoding
from lrgls_dask.data.parquet import ParquetFrame
from lrgls_dask.data.sortedcells import Sorting, sorted_cells
from lrgls_dask.data.tables import regressor_names
from lrgls_dask.data.weights import Weights, read_weights
from lrgls_dask.rows.memory import this_process
from lrgls_dask.rows.rows import Part

__all__ = ["Long", "rows_of_long"]

# Files whose cells take no more than this are read at once: a constant, so that the memory that happens to be free does
# not decide how rows are cut, on which the last digits depend.
AT_ONCE_BYTES = 512 * 2**20


@dataclass(frozen=True, eq=False)
class Long:
    """A long frame, what is to be made of it, and what that may take."""

    frame: Any
    given: Any
    obs: str
    equation: str
    weight: str | None
    groups: str | None
    absorb: tuple[str, ...]
    levels: Mapping[str, Sequence[Any]]
    missing: str
    sorting: Sorting

    @property
    def fixed(self) -> Encoding | None:
        """What formulas that were fitted have fixed."""
        return self.given.encoding if isinstance(self.given, FittedFormulas) else None

    @cached_property
    def formulas(self) -> Formulas:
        if self.fixed is not None:
            return self.fixed.formulas
        others = [name for name in (self.obs, self.equation, self.weight, *self.labels) if name is not None]
        return long_formulas(self.given, regressor_names(self.frame, others))

    @property
    def labels(self) -> Mapping[str, str]:
        """Columns with a label for each row -> what they are."""
        return {name: "absorb" for name in self.absorb} | ({} if self.groups is None else {self.groups: "groups"})

    @property
    def read(self) -> list[str]:
        """The columns that are needed."""
        weights = [] if self.weight is None else [self.weight]
        return list(dict.fromkeys([self.obs, self.equation, *self.formulas.columns, *weights, *self.labels]))

    def fitted(self, encoding: Encoding, equations: tuple[Hashable, ...]) -> FittedFormulas:
        """The formulas, with what the frame fixes of them."""
        return FittedFormulas(encoding, formula_of(equations, self.formulas.labels), self.obs, self.equation)


def rows_of_long(long: Long) -> LabelledRows:
    """The rows of a long frame."""
    found, fitted, equations = _of_files(long) if _is_streamed(long) else _of_whole(long)
    read = Weights()
    if found.weights is not None:
        read = read_weights(found.weights, equations, len(found.obs), str(found.obs.name), numbered=False)
        read = replace(read, named=())
    labelled = labels_of_rows("the frame", (), pd.Series(found.obs), long.obs, True)
    made = LabelledRows(
        rows=build_rows([found.x], [found.y], read, design_of_long(found.placing, equations)),
        obs_labels=found.obs,
        obs_dim=dim_of_rows([labelled], "obs", [long.equation]),
        equation_dim=long.equation,
        groups=None if long.groups is None else found.labels[long.groups],
        formulas=fitted,
        made_bytes=found.made_bytes,
    )
    if made.groups is not None:
        made.missing_labels(f"groups {long.groups!r}", made.groups, found.obs)
    taken = {name: found.labels[name] for name in long.absorb}
    return absorbing(made, taken, found.obs) if taken else made


def _is_streamed(long: Long) -> bool:
    """Whether cells of files are too many to be read at once. Raises MemoryError where lags ask for that."""
    if not isinstance(long.frame, ParquetFrame):
        return False
    here = this_process(long.sorting.memory_limit)
    cells = CELL_BYTES * len(long.read) * long.frame.n_rows
    lagged = next((each.text for each in long.formulas.factors if each.lags), None)
    fits = here.base + cells <= here.limit
    if lagged is None:
        return not fits or cells > AT_ONCE_BYTES
    if not fits:
        raise MemoryError(
            f"{lagged!r} reads other rows, for which {long.frame.n_rows:,} cells of {len(long.read)} columns are read "
            f"at once and need {format_bytes(here.base + cells)}; the limit is {format_bytes(here.limit)}. Write it as "
            "a column of the files, which are then read row group by row group; or raise memory_limit."
        )
    return False


def _require_states(long: Long) -> None:
    """Raise MemoryError where whole columns, from which transforms take their states, do not fit."""
    whole = [each for each in long.formulas.factors if each.whole]
    if long.fixed is not None or not whole:
        return
    here = this_process(long.sorting.memory_limit)
    names = {name for each in whole for name in each.columns}
    need = here.base + CELL_BYTES * len(names) * long.frame.n_rows
    if need > here.limit:
        raise MemoryError(
            f"{whole[0].text!r} is fixed by a whole column, of {long.frame.n_rows:,} cells, which needs "
            f"{format_bytes(need)}; the limit is {format_bytes(here.limit)}. Write it as a column of the files; or "
            "raise memory_limit."
        )


def _of_whole(long: Long) -> tuple[LongFiles, FittedFormulas, tuple[Hashable, ...]]:
    """The rows of a frame whose columns are read at once."""
    raw = whole_columns(long.frame, long.read)
    encoding = look(pieces_of(raw, list(raw.columns)), long.formulas, long.levels, (), long.fixed).encoding
    cells = cells_of(raw, long.obs, long.equation)
    fitted = long.fitted(encoding, cells.equations)
    columns = LongColumns(fitted, long.missing, more=long.fixed is not None)
    seen = columns.observed(raw, cells, cells.lags)
    columns.check_observed(np.bincount(seen.cells.column, minlength=len(cells.equations)), cells.equations)
    shared = shared_columns(seen.cells, seen.x, columns.uses)
    placing = Placing.of(columns.uses, encoding.names, shared)
    own, weights = raw.iloc[seen.kept], None
    if long.weight is not None:
        given, of_rows = weights_of(own[long.weight], long.weight, seen.cells)
        weights = spread_weights(given, seen.cells, of_rows)
    labels = {name: group_of_rows(seen.cells, own[name], name, what) for name, what in long.labels.items()}
    x, y = placing(seen.cells, seen.x), seen.cells.spread(seen.y, np.nan)
    made = LongFiles(Part("X", x, None), Part("Y", y, None), weights, seen.cells.obs, labels, placing)
    return made, fitted, cells.equations


def _of_files(long: Long) -> tuple[LongFiles, FittedFormulas, tuple[Hashable, ...]]:
    """The rows of files, unread; where cells are in another order they are sorted on disk before."""
    n_cells = min(long.frame.n_rows, PIECE_BYTES // (8 * len(long.read)))
    require_pieces(n_cells, len(long.read), long.sorting.memory_limit)
    _require_states(long)
    pieces = pieces_of(long.frame, long.read)
    looked = look(pieces, long.formulas, long.levels, (), long.fixed)
    encoding = looked.encoding
    keys, groups = scan_keys(pieces, long.obs, long.equation), pieces.rows
    if not keys.ascending:
        keys, groups = sorted_cells(groups, keys, (long.obs, long.equation), long.read, long.sorting)
    fitted = long.fitted(encoding, keys.equations)
    columns = LongColumns(fitted, long.missing, more=long.fixed is not None)
    made = long_files(groups, keys, columns, long.weight, long.labels, long.sorting.memory_limit)
    n_read = looked.n_read + 2 + len(long.read)  # those of obs and equation, and all to see which cells are observed
    made = replace(made, made_bytes=8 * long.frame.n_rows * n_read)
    return made, fitted, keys.equations
