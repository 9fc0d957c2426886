"""Long frames, a row for each observed cell (obs, equation), laid out as rows with an entry for each equation."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lrgls_dask.checks import closest, shown
from lrgls_dask.data.labels import plain_labels
from lrgls_dask.data.lags import Lags
from lrgls_dask.data.tables import as_labels

__all__ = [
    "Cells",
    "Placing",
    "cells_of",
    "check_labels",
    "equations_of",
    "formula_of",
    "group_of_rows",
    "obs_of",
    "places_of",
    "same_in_row",
    "shared_columns",
]


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

    def check_distinct(self, equation: str, place: Callable[[int], str] | None = None) -> None:
        """Raise ValueError for a cell that is there twice.  place : where a row lies, by default in the frame."""
        cells = self.row.astype(np.int64) * len(self.equations) + self.column
        first = pd.Series(cells).duplicated().to_numpy()
        if first.any():
            again = int(first.argmax())
            where = np.flatnonzero(cells == cells[again])[:2].tolist()
            found = f"its rows {where[0]} and {where[1]}" if place is None else " and ".join(map(place, where))
            obs = self.obs.name
            raise ValueError(
                f"the frame has {equation} {self.equations[self.column[again]]!r} at {obs} "
                f"{self.obs[self.row[again]]} more than once, first in {found}. Keep one row for each, e.g. with "
                f"frame.drop_duplicates([{equation!r}, {obs!r}])."
            )


def cells_of(raw: pd.DataFrame, obs: str, equation: str, known: Sequence[Hashable] | None = None) -> Cells:
    """The cells of a long frame.

    known : equations in their order, no others may come; by default those of the frame, see `equations_of`.
    Raises ValueError for missing labels, a cell that is there twice, labels of rows without order, unknown equations.
    """
    for name in (obs, equation):
        check_labels(raw[name], name)
    whose = as_labels(raw[equation])
    dates, row = obs_of(as_labels(raw[obs]), obs)
    equations = equations_of(whose, equation) if known is None else tuple(known)
    cells = Cells(dates, equations, row, places_of(whose, equation, equations))
    cells.check_distinct(equation)
    return cells


def check_labels(labels: pd.Series, name: str, place: Callable[[int], str] | None = None) -> None:
    """Raise ValueError for a label that is missing.  place : where a row lies, by default in the frame."""
    missing = labels.isna().to_numpy()
    if missing.any():
        row = int(missing.argmax())
        where = f"row {row}, {int(missing.sum())} such rows in all" if place is None else place(row)
        raise ValueError(
            f"column {name!r} has no value in {where}, but labels must not be missing. Drop these rows, e.g. with "
            f"frame.dropna(subset=[{name!r}])."
        )


def obs_of(labels: pd.Series, name: str) -> tuple[pd.Index, np.ndarray]:
    """The distinct labels of rows, ascending, and which of them each has. Raises TypeError where they have no order."""
    found, row = _ordered(labels)
    if found is None:
        kinds = sorted({type(value).__name__ for value in labels})
        raise TypeError(f"column {name!r} mixes {', '.join(kinds)}, which have no order. Convert it to one kind.")
    return found.rename(name), row


def equations_of(labels: pd.Series, name: str) -> tuple[Hashable, ...]:
    """The distinct equations: ascending where they can be compared, categories in their order, otherwise as they first
    appear."""
    found, _ = _ordered(labels)
    return plain_labels(pd.Index(pd.unique(labels)) if found is None else found, f"column {name!r}")


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


def places_of(labels: pd.Series, equation: str, known: Sequence[Hashable]) -> np.ndarray:
    """(L,) where the equation of each cell is among those that are known. Raises ValueError for another one."""
    codes, distinct = pd.factorize(labels)
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
class Placing:
    """Which columns of rows hold what columns of cells.

    at : (q, K) where the values lie that an equation has in a column of its cells, -1 where it does not use it.
    width : columns of rows in all.  used : K arrays, the columns of each equation in the order of its formula.
    terms : what it calls them.
    """

    at: np.ndarray
    width: int
    used: tuple[np.ndarray, ...]
    terms: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, uses: Sequence[np.ndarray], names: Sequence[str], shared: np.ndarray) -> Placing:
        """Columns that are shared are kept once, of others each equation that uses them gets its own.

        uses : for each equation which of the q columns it uses.  names, shared : (q,).
        """
        at = np.full((len(names), len(uses)), -1)
        for j, used in enumerate(uses):
            at[used, j] = 0
        width = 0
        for c in range(len(names)):
            whose = np.flatnonzero(at[c] == 0)
            at[c, whose] = width + (0 if shared[c] else np.arange(len(whose)))
            width += min(1, len(whose)) if shared[c] else len(whose)
        where = tuple(at[own, j] for j, own in enumerate(uses))
        return cls(at, width, where, tuple(tuple(names[c] for c in own.tolist()) for own in uses))

    def __call__(self, cells: Cells, values: np.ndarray) -> np.ndarray:
        """(N, width) values (L, q) of cells as columns of rows, NaN where no cell has one."""
        x = np.full((len(cells.obs), self.width), np.nan)
        for c, of_equation in enumerate(self.at):
            at, row, column = of_equation[cells.column], cells.row, values[:, c]
            if (of_equation < 0).any():
                mine = at >= 0
                at, row, column = at[mine], row[mine], column[mine]
            x[row, at] = column
        return x


def shared_columns(cells: Cells, values: np.ndarray, uses: Sequence[np.ndarray]) -> np.ndarray:
    """(q,) which columns (L, q) say the same of all equations that use them, in every row."""
    users = np.zeros((values.shape[1], len(uses)), dtype=bool)
    for j, used in enumerate(uses):
        users[used, j] = True
    made = np.empty(len(users), dtype=bool)
    for c, whose in enumerate(users):
        if whose.all():
            made[c] = same_in_row(cells, values[:, c]) is not None
        else:
            mine = whose[cells.column]
            some = Cells(cells.obs, cells.equations, cells.row[mine], cells.column[mine])
            made[c] = same_in_row(some, values[mine, c]) is not None
    return made


def same_in_row(cells: Cells, values: np.ndarray) -> np.ndarray | None:
    """(N,) the value that all cells of a row have, NaN of a row without any, or None where any two differ."""
    column = np.full(len(cells.obs), np.nan)
    column[cells.row] = values
    return column if np.array_equal(column[cells.row], values, equal_nan=True) else None


def group_of_rows(cells: Cells, labels: pd.Series, name: str, what: str = "groups") -> np.ndarray:
    """(N,) the label that all cells of a row have, of those that have any; missing where none has. Raises ValueError
    where two differ, naming them."""
    codes, distinct = pd.factorize(as_labels(labels))
    of_row, said = np.full(len(cells.obs), -1), codes >= 0
    of_row[cells.row[said]] = codes[said]
    odd = said & (of_row[cells.row] != codes)
    if odd.any():
        cell = int(odd.argmax())
        row = cells.row[cell]
        raise ValueError(
            f"{what} {name!r} must be the same for all equations of a row, since whole rows are grouped; "
            f"{cells.obs.name} {cells.obs[row]} has {distinct[codes[cell]]!r} and {distinct[of_row[row]]!r}. Group by "
            "a column that depends on the row alone."
        )
    return np.asarray(distinct)[of_row] if (of_row >= 0).all() else np.asarray(pd.Series(distinct).reindex(of_row))


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
