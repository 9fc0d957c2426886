"""Rows with the user's labels: what every constructor makes, and the checks they all pass before a row is read."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from lrgls_dask.checks import shown
from lrgls_dask.data.daskframes import counted
from lrgls_dask.data.framefit import FittedFormulas
from lrgls_dask.data.labels import RowLabels, check_one_zone, check_present, check_unique, pair_rows, row_labels
from lrgls_dask.data.places import Location, read_from
from lrgls_dask.data.sources import group_source, vectors_of
from lrgls_dask.data.storedlabels import StoredLabels, decode_labels, is_coded
from lrgls_dask.design.design import Design, Designed
from lrgls_dask.page import described
from lrgls_dask.rows.block import as_columns, missing_in, weights_of_shown
from lrgls_dask.rows.counting import rows_that_count
from lrgls_dask.rows.rows import CellWeights, Part, Rows

__all__ = ["LabelledRows"]

PASS_LABELS = "Pass the labels of the rows, such as ds['time'].dt.year."


@dataclass(frozen=True, eq=False)
class LabelledRows(Designed):
    """N unread rows, their labels, and group labels for clustered inference.

    rows : the data.  obs_labels : N row labels, in memory or still on disk, or None.
    obs_dim, equation_dim : the user's names of the two dims of Y.  groups : (N,) or None.
    formulas : by which the columns were made of a frame, None where they were given.
    made_bytes : of columns of a frame that were read to make these rows, for levels, states, labels and what is
    missing; none of one in memory.

    Raises ValueError where the parts do not fit together: row counts, labels, weights in memory.
    """

    rows: Rows
    obs_labels: pd.Index | StoredLabels | None = None
    obs_dim: Hashable = "obs"
    equation_dim: Hashable = "equation"
    groups: np.ndarray | Part | None = None
    formulas: FittedFormulas | None = None
    made_bytes: int = 0

    def __post_init__(self) -> None:
        _check_row_counts(self.rows, self.obs_labels, self.groups)
        check_present((*self.dims, *self.design.equation_dims), "names of dims")
        _check_design(self.rows)
        _check_obs_labels(self.obs_labels, self.obs_dim)
        if self.rows.weights is not None and isinstance(self.rows.weights.array, np.ndarray):
            _check_weights(self.rows.weights.name, self.rows.weights.array, self.rows)
        if self.rows.cells is not None:
            _check_cells(self.rows.cells, self.design.equations, self.rows)
        label_of = None if self.obs_labels is None else self._label_of
        object.__setattr__(self, "rows", replace(self.rows, label_of=label_of))

    @property
    def design(self) -> Design:
        """Which equation uses which column."""
        return self.rows.design

    @property
    def n_obs(self) -> int:
        """N."""
        return self.rows.n_obs

    @property
    def dims(self) -> tuple[Hashable, Hashable]:
        """Names of the dims of Y: rows, equations."""
        return self.obs_dim, self.equation_dim

    @property
    def sources(self) -> list[tuple[str, Any]]:
        """Whatever the rows and their labels are read from, with its name."""
        sources = [(part.name, part.array) for part in self.rows.parts]
        sources += [("groups", self.groups.array)] if isinstance(self.groups, Part) else []
        labels = self.obs_labels
        return sources + ([(str(self.obs_dim), labels.array)] if isinstance(labels, StoredLabels) else [])

    @cached_property
    def read_from(self) -> frozenset[Location]:
        """Where the stores lie that the rows and their labels are read from; none for what is in memory."""
        return read_from(array for _, array in self.sources)

    @cached_property
    def obs(self) -> pd.Index | None:
        """Row labels, or None; labels still on disk are read now, once."""
        return self.obs_labels.read() if isinstance(self.obs_labels, StoredLabels) else self.obs_labels

    def _repr_html_(self) -> str:
        """The rows as a notebook shows them."""
        return described(repr(self))

    def _label_of(self, row: int) -> Hashable:
        """What the user calls a row."""
        assert self.obs is not None
        label: Hashable = self.obs[row]
        return label

    def values_of_rows(self, name: str, given: Any, *, check: bool = True) -> np.ndarray:
        """(N,) what is given for each row, such as its group; read now if it is not in memory.

        Paired by label where both have any: see `labels`. One that is missing is no matter in a row that no fit looks
        at, see `rows_that_count`, which then takes a pass over Y unless nothing is to be checked: the row joins the one
        before it.
        Raises ValueError for other labels, another shape, and labels that are missing in rows that count.
        """
        return self._filled(name, self.labels_given(name, given), check)

    def labels_given(self, name: str, given: Any) -> np.ndarray:
        """The same where some may be missing."""
        (given,) = counted(given)
        source, theirs = group_source(name, given), row_labels(name, given)
        if theirs is not None and self.obs is not None:
            pair_rows((RowLabels("the system", self.obs, "system.obs"), theirs), self.obs_dim)
        values = _in_memory(source)
        if values.shape != (self.n_obs,):
            raise ValueError(f"{name} must hold one label for each of {self.n_obs} rows; found shape {values.shape}.")
        return values

    def missing_labels(self, name: str, values: Any, numbers: np.ndarray | pd.Index | None = None) -> np.ndarray:
        """(N,) whether labels are missing. Raises ValueError where they are in rows that count, or all are.

        numbers : (N,) of the rows, or their labels, for the message, where they are not their places.
        """
        missing = np.asarray(pd.isna(values))
        if missing.any():
            rows = np.flatnonzero(missing)
            wrong = rows if missing.all() else rows_that_count(self.rows, rows)
            if len(wrong):
                row = wrong[0] if numbers is None else numbers[wrong[0]]
                raise ValueError(
                    f"{name}: the label of row {row} is missing, {len(wrong)} such labels in all. Give every row "
                    "one, or drop the row."
                )
        return missing

    def _filled(self, name: str, values: np.ndarray, check: bool) -> np.ndarray:
        missing = self.missing_labels(name, values) if check else np.asarray(pd.isna(values))
        if missing.all() or not missing.any():
            return values
        there = np.flatnonzero(~missing)
        before = np.searchsorted(there, np.arange(len(values)), side="right") - 1
        return np.asarray(values[there[np.maximum(before, 0)]])

    @property
    def own_groups(self) -> np.ndarray | None:
        """(N,) the system's groups, None where it has none; read now."""
        return None if self.groups is None else _in_memory(self.groups)

    def groups_of_rows(self, given: Any = None, *, check: bool = True) -> np.ndarray | None:
        """(N,) the groups that are given, or else the system's own, None where it has none; read now, with a label in
        every row, see `values_of_rows`."""
        if given is not None:
            return self.values_of_rows("groups", given, check=check)
        own = self.own_groups
        return None if own is None else self._filled("groups", own, check)

    def labels_named(self, what: str, name: str, remedy: str = PASS_LABELS, *, check: bool = True) -> np.ndarray:
        """(N,) the system's groups, row labels, or a part of their dates, by name; read now.

        what : they are for.  remedy : what to do where the name is none of these, which raises ValueError.
        """
        dim, _, part = name.partition(".")
        groups = self.groups_of_rows(check=check) if name == "groups" else None
        if groups is not None:
            return groups
        if dim in (str(self.obs_dim), "obs") and self.obs is not None:
            found = getattr(self.obs, part, None) if part else self.obs
            if isinstance(found, pd.Index):
                return np.asarray(found)
        dates = f", {str(self.obs_dim)!r} or a part of its dates" if self.obs is not None else ""
        own = ", 'groups'" if self.groups is not None else ""
        raise ValueError(f"{what}={name!r} is not known to this system, which knows (N,) labels{dates}{own}. {remedy}")

    def groupings_of_rows(self, given: Any = None) -> tuple[np.ndarray, ...]:
        """(N,) each: the groups that are given, of one kind or of several, or else the system's own; read now."""
        if given is None:
            own = self.groups_of_rows()
            return () if own is None else (own,)
        return tuple(self.values_of_rows("groups", each) for each in vectors_of(given))

    def column_name(self, array: str, column: int) -> str:
        """What the user calls a column of "X", "Y" or "weights", for messages."""
        if array == "X":
            return f"regressor {self.regressors[column]!r}"
        if array == "Y":
            return f"equation {self.equations[column]!r}"
        if array == "weights":
            return "weights" if self.rows.weights is None else self.rows.weights.name
        if array == "cell weights":
            return f"weights of equation {self.equations[column]!r}"
        raise ValueError(f"array must be 'X', 'Y' or 'weights'; found {array!r}.")


def _in_memory(values: np.ndarray | Part) -> np.ndarray:
    """Labels, decoded where a store keeps them in coded form."""
    if not isinstance(values, Part):
        return values
    found, attributes = np.asarray(values.array[:]), dict(getattr(values.array, "attrs", {}))
    return found if not is_coded(attributes) else np.asarray(decode_labels(found, attributes), dtype=object)


def _check_row_counts(rows: Rows, obs: pd.Index | StoredLabels | None, groups: np.ndarray | Part | None) -> None:
    reference = rows.y[0].name if rows.y else "Y"
    lengths = [(part.name, int(part.array.shape[0])) for part in rows.parts]
    if groups is not None:
        array = groups.array if isinstance(groups, Part) else groups
        lengths.append(("groups", int(array.shape[0])))
    if obs is not None:
        lengths.append(("obs_labels", len(obs)))
    for name, length in lengths:
        if length != rows.n_obs:
            raise ValueError(
                f"{name} has {length} rows but {reference} has {rows.n_obs}: every array needs one row for each "
                "observation. Align them first."
            )
    if rows.n_obs == 0:
        raise ValueError(f"{reference} has no rows. Check the selection that made it.")


def _check_design(rows: Rows) -> None:
    design = rows.design
    if design.n_equations == 0:
        raise ValueError("Y has no equations. Give it at least one column.")
    for letter, parts, expected in (("X", rows.x, design.given.n_regressors), ("Y", rows.y, design.n_equations)):
        found = sum(part.n_columns for part in parts)
        if found != expected:
            raise ValueError(f"{letter} has {found} columns but {expected} labels. Give one label for each column.")
    check_present(design.equations, "equation labels")
    check_unique(design.equations, "equation labels")
    checked: set[int] = set()
    for equation, terms in zip(design.equations, design.terms, strict=True):
        if id(terms) not in checked:
            check_present(terms, "regressor names", f" within equation {equation!r}")
            check_unique(terms, "regressor names", f" within equation {equation!r}")
            checked.add(id(terms))
    check_present(design.given.regressors, "labels of the distinct regressor columns")
    check_unique(design.given.regressors, "labels of the distinct regressor columns")
    bare = [equation for equation, size in zip(design.equations, design.sizes, strict=True) if size == 0]
    if bare:
        raise ValueError(f"equation {shown(bare)} has no regressors. Give it at least a constant column, or drop it.")


def _check_obs_labels(obs: pd.Index | StoredLabels | None, dim: Hashable) -> None:
    if not isinstance(obs, pd.Index):
        return
    levels = obs.codes if isinstance(obs, pd.MultiIndex) else ()
    missing = np.any([codes == -1 for codes in levels], axis=0) if levels else obs.isna()
    if missing.any():
        row = int(missing.argmax())
        raise ValueError(
            f"row labels along {dim!r} must not be missing; found {obs[[row]].tolist()[0]!r} at row {row}, "
            f"{int(missing.sum())} such rows in all. Drop these rows, or number all rows with .reset_index(drop=True)."
        )
    check_one_zone(obs, dim)
    # asking for order first spares sorted labels the hash table that uniqueness otherwise builds
    if obs.is_monotonic_increasing and obs.is_unique:
        return
    repeats = obs.duplicated()
    if repeats.any():
        label = obs[[int(repeats.argmax())]].tolist()[0]
        first, second = np.flatnonzero(obs.isin([label]))[:2]
        raise ValueError(
            f"row labels along {dim!r} must be unique; {label!r} is there more than once, first at positions {first} "
            f"and {second}. Drop the repeats, or number the rows."
        )


def _check_weights(name: str, weights: np.ndarray, rows: Rows) -> None:
    weights = _asked_for(weights[:, None], rows, np.zeros(rows.design.n_equations, dtype=np.intp))[:, 0]
    for wrong, what in ((~np.isfinite(weights), "finite"), (weights < 0, "zero or positive")):
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(
                f"{name} must be {what}; found {weights[row]} at row {row}, {int(wrong.sum())} such rows in all. "
                "Set the weight of a row to leave out to 0."
            )
    if not weights.any():
        raise ValueError(f"{name} are all zero, which leaves no rows. Give at least some rows a positive weight.")


def _asked_for(weights: np.ndarray, rows: Rows, weighting: np.ndarray) -> np.ndarray:
    """Weights (N, C) with 1 for NaN where no response asks for them; for every NaN where responses are yet to be read,
    which the first pass then looks at.  weighting : (K,) which column each response has."""
    if not np.isnan(weights).any():
        return weights
    if not all(isinstance(part.array, np.ndarray) for part in rows.y):
        return np.where(np.isnan(weights), 1.0, weights)
    return weights_of_shown(weights, missing_in(tuple(part.array for part in rows.y)), weighting)


def _check_cells(cells: CellWeights, equations: tuple[Hashable, ...], rows: Rows) -> None:
    """Raise ValueError for weights in memory that are none, naming equation and row."""
    if cells.constant is not None:
        _refuse_weight(~np.isfinite(cells.constant) | (cells.constant <= 0), cells.constant, cells, equations, None)
    first = 0
    for part in cells.parts:
        if isinstance(part.array, np.ndarray):
            values = as_columns(part.array)
            values = _asked_for(values, rows, cells.weighting - first)
            wrong = ~np.isfinite(values) | (values < 0)
            if wrong.any():
                column = int(np.argmax(wrong.any(axis=0)))
                row = int(np.argmax(wrong[:, column]))
                at = np.arange(int(cells.weighting.max()) + 1) == first + column
                _refuse_weight(at, np.where(at, float(values[row, column]), 1.0), cells, equations, row)
        first += part.n_columns
    in_memory = [part.array for part in cells.parts if isinstance(part.array, np.ndarray)]
    if cells.parts and len(in_memory) == len(cells.parts) and not any(array.any() for array in in_memory):
        raise ValueError("weights are all zero, which leaves no rows. Give at least some cells a positive weight.")


def _refuse_weight(
    wrong: np.ndarray, values: np.ndarray, cells: CellWeights, equations: tuple[Hashable, ...], row: int | None
) -> None:
    """Raise ValueError where a column of weights (C,) is wrong."""
    if not wrong.any():
        return
    column = int(np.argmax(wrong))
    equation = equations[int(np.argmax(cells.weighting == column))]
    if row is None:
        raise ValueError(
            f"weights of equations must be finite and positive; found {values[column]} for equation {equation!r}. "
            "Leave an equation that is not to count out of the system."
        )
    raise ValueError(
        f"weights must be finite, and zero or positive; found {values[column]} for equation {equation!r} at row {row}. "
        "Give a response that is to count as missing the weight 0."
    )
