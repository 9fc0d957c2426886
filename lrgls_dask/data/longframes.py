"""Long frames, a row for each observed cell (obs, equation), laid out as rows with an entry for each equation."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lrgls_dask.checks import closest, shown
from lrgls_dask.data.labels import plain_labels
from lrgls_dask.data.lags import Lags
from lrgls_dask.data.tables import as_labels

__all__ = ["Cells", "LaidOut", "cells_of", "formula_of", "group_of_rows", "laid_out", "same_in_row"]


@dataclass(frozen=True, eq=False)
class Cells:
    """Which cell each row of a long frame is.

    obs : (N,) labels, ascending.  equations : (K,) labels.  row, column : (L,) positions of each cell among them.
    """

    obs: pd.Index
    equations: tuple[Hashable, ...]
    row: np.ndarray
    column: np.ndarray

    @property
    def lags(self) -> Lags:
        return Lags(self.obs, self.row, self.column)

    def only(self, observed: np.ndarray) -> tuple[np.ndarray, Cells]:
        """Which of the cells are observed, and these alone, without the rows that show none."""
        kept = np.flatnonzero(observed)
        rows = np.unique(self.row[kept])
        place = np.full(len(self.obs), -1)
        place[rows] = np.arange(len(rows))
        return kept, Cells(self.obs[rows], self.equations, place[self.row[kept]], self.column[kept])

    def spread(self, values: np.ndarray, empty: float) -> np.ndarray:
        """(N, K) one value for each cell, `empty` where there is none."""
        made = np.full((len(self.obs), len(self.equations)), empty)
        made[self.row, self.column] = values
        return made


def cells_of(raw: pd.DataFrame, obs: str, equation: str, known: Sequence[Hashable] | None = None) -> Cells:
    """The cells of a long frame.

    known : equations in their order, no others may come; by default those of the frame: ascending where they can be
    compared, categories in their order, otherwise as they first appear.
    Raises ValueError for missing labels, a cell that is there twice, labels of rows without order, unknown equations.
    """
    for name in (obs, equation):
        _check_labels(raw[name], name)
    whose = as_labels(raw[equation])
    dates, row = _ordered(as_labels(raw[obs]))
    if dates is None:
        kinds = sorted({type(value).__name__ for value in raw[obs]})
        raise TypeError(f"column {obs!r} mixes {', '.join(kinds)}, which have no order. Convert it to one kind.")
    if known is None:
        found, column = _ordered(whose)
        if found is None:
            column, found = pd.factorize(whose)
        equations = plain_labels(pd.Index(found), f"column {equation!r}")
    else:
        equations, column = tuple(known), _places(whose, equation, known)
    cells = row.astype(np.int64) * len(equations) + column
    first = pd.Series(cells).duplicated().to_numpy()
    if first.any():
        again = int(first.argmax())
        where = np.flatnonzero(cells == cells[again])[:2].tolist()
        raise ValueError(
            f"the frame has {equation} {equations[column[again]]!r} at {obs} {dates[row[again]]} more than once, first "
            f"in its rows {where[0]} and {where[1]}. Keep one row for each, e.g. with "
            f"frame.drop_duplicates([{equation!r}, {obs!r}])."
        )
    return Cells(dates.rename(obs), equations, row, column)


def _check_labels(labels: pd.Series, name: str) -> None:
    missing = labels.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"column {name!r} has no value in row {int(missing.argmax())}, {int(missing.sum())} such rows in all, but "
            f"labels must not be missing. Drop these rows, e.g. with frame.dropna(subset=[{name!r}])."
        )


def _ordered(labels: pd.Series) -> tuple[pd.Index | None, np.ndarray]:
    """The distinct labels, ascending, and which of them each row has; None where they cannot be compared."""
    if isinstance(labels.dtype, pd.CategoricalDtype):
        used = labels.cat.remove_unused_categories()
        return pd.Index(used.cat.categories), used.cat.codes.to_numpy().astype(np.int64)
    codes, distinct = pd.factorize(labels)
    index = pd.Index(distinct)
    try:
        order = index.argsort()
    except TypeError:
        return None, codes
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return index[order], place[codes]


def _places(labels: pd.Series, equation: str, known: Sequence[Hashable]) -> np.ndarray:
    distinct, codes = pd.factorize(labels)[::-1]
    names = plain_labels(pd.Index(distinct), f"column {equation!r}")
    at = {name: i for i, name in enumerate(known)}
    odd = [name for name in names if name not in at]
    if odd:
        raise ValueError(
            f"the data have {equation} {shown(odd)}, which the fit does not have{closest(odd[0], known)} Select those "
            "that it has."
        )
    return np.array([at[name] for name in names], dtype=np.int64)[codes]


# ---------------------------------------------------------------------------------------------- columns


@dataclass(frozen=True, eq=False)
class LaidOut:
    """Regressors as columns of rows.

    x : (N, q), NaN where no observed cell has a value.  used : K arrays, the columns of each equation in the order of
    its formula.  terms : what it calls them.
    """

    x: np.ndarray
    used: tuple[np.ndarray, ...]
    terms: tuple[tuple[str, ...], ...]


def laid_out(
    cells: Cells,
    values: np.ndarray,
    uses: Sequence[np.ndarray],
    names: Sequence[str],
    *,
    share: bool,
) -> LaidOut:
    """Columns (L, q) by cell as columns of rows; one that says the same of all equations in every row is kept once.

    uses : for each equation which columns it uses.
    share : whether to look for columns that all have; otherwise each equation gets its own.
    """
    users: list[list[int]] = [[] for _ in names]
    for j, used in enumerate(uses):
        for c in used.tolist():
            users[c].append(j)
    columns: list[np.ndarray] = []
    place: dict[tuple[int, int], int] = {}
    rows_of = _by_equation(cells)
    n_rows = len(cells.obs)
    for c, whose in enumerate(users):
        shared = _shared(cells, values[:, c], whose) if share else None
        for j in whose:
            if shared is None:
                column = np.full(n_rows, np.nan)
                column[cells.row[rows_of[j]]] = values[rows_of[j], c]
                columns.append(column)
            elif j == whose[0]:
                columns.append(shared)
            place[c, j] = len(columns) - 1
    x = np.stack(columns, axis=1) if columns else np.empty((n_rows, 0))
    where = tuple(np.array([place[c, j] for c in own.tolist()], dtype=np.intp) for j, own in enumerate(uses))
    return LaidOut(x, where, tuple(tuple(names[c] for c in own.tolist()) for own in uses))


def _by_equation(cells: Cells) -> list[np.ndarray]:
    """For each equation which cells are its."""
    counts = np.bincount(cells.column, minlength=len(cells.equations))
    return np.split(np.argsort(cells.column, kind="stable"), np.cumsum(counts)[:-1])


def _shared(cells: Cells, values: np.ndarray, whose: Sequence[int]) -> np.ndarray | None:
    """(N,) the value that these equations have in each row, or None where any two differ."""
    if len(whose) == len(cells.equations):
        return same_in_row(cells, values)
    among = np.zeros(len(cells.equations), dtype=bool)
    among[list(whose)] = True
    mine = among[cells.column]
    some = Cells(cells.obs, cells.equations, cells.row[mine], cells.column[mine])
    return same_in_row(some, values[mine])


def same_in_row(cells: Cells, values: np.ndarray) -> np.ndarray | None:
    """(N,) the value that all cells of a row have, NaN of a row without any, or None where any two differ."""
    column = np.full(len(cells.obs), np.nan)
    column[cells.row] = values
    return column if np.array_equal(column[cells.row], values, equal_nan=True) else None


def group_of_rows(cells: Cells, labels: pd.Series, name: str, what: str = "groups") -> np.ndarray:
    """(N,) the label that all cells of a row have. Raises ValueError where two differ, naming them."""
    _check_labels(labels, name)
    codes, distinct = pd.factorize(as_labels(labels))
    of_row = np.full(len(cells.obs), -1)
    of_row[cells.row] = codes
    odd = of_row[cells.row] != codes
    if odd.any():
        cell = int(odd.argmax())
        row = cells.row[cell]
        raise ValueError(
            f"{what} {name!r} must be the same for all equations of a row, since whole rows are grouped; "
            f"{cells.obs.name} {cells.obs[row]} has {distinct[codes[cell]]!r} and {distinct[of_row[row]]!r}. Group by "
            "a column that depends on the row alone."
        )
    return np.asarray(distinct)[of_row]


def formula_of(equations: Sequence[Hashable], keys: Sequence[Hashable]) -> tuple[int, ...]:
    """For each equation which of the keys of a mapping of formulas it has; None is that of all others.

    Raises ValueError for keys that are no equation, and for equations without a formula.
    """
    at: Mapping[Any, int] = {key: i for i, key in enumerate(keys)}
    odd = [key for key in keys if key is not None and key not in set(equations)]
    if odd:
        raise ValueError(
            f"formulas names equations {shown(odd)}, which the frame does not have{closest(odd[0], equations)} Its "
            f"equations are {shown(list(equations), 10)}."
        )
    bare = [name for name in equations if name not in at and None not in at]
    if bare:
        raise ValueError(
            f"formulas has none for equations {shown(bare)}. Add '*' with the formula of all others, or select the "
            "rows of the equations that have one."
        )
    return tuple(at.get(name, at.get(None, -1)) for name in equations)
