"""Rows of data that have not been read: the stored arrays behind X, Y and the row weights."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Protocol

import numpy as np

from lrgls_dask.design.design import Design

__all__ = ["CellWeights", "GroupLabels", "Part", "Rows"]


@dataclass(frozen=True, eq=False)
class Part:
    """One stored array that holds one or more columns of X or Y.

    name : what the user calls it, for messages: "Y", "x['smb']", "Xs[3]".
    array : anything with shape (N,) or (N, c), a real dtype and row slices; NumPy, zarr and Dask arrays do. Where it
        has a method read_into(out, first_row), passes read it into memory they use again.
    row_chunks : lengths of its stored row chunks, in order, summing to N; None where any cut is free (NumPy).
    runs : lengths of stretches of several chunks that are decoded from their beginning on, so that one task takes a
    whole one; None where each chunk can be had by itself.  run_bytes : what a task holds to decode one.
    """

    name: str
    array: Any
    row_chunks: tuple[int, ...] | None
    runs: tuple[int, ...] | None = None
    run_bytes: int = 0

    @property
    def n_columns(self) -> int:
        return 1 if self.array.ndim == 1 else int(self.array.shape[1])

    @property
    def row_bytes(self) -> int:
        """Bytes of one row as stored in memory after decoding."""
        return self.n_columns * int(np.dtype(self.array.dtype).itemsize)


@dataclass(frozen=True, eq=False)
class CellWeights:
    """Weights w_ij of the cells of Y: Cov(e_i) = W_i^-1/2 Sigma W_i^-1/2. A cell of weight zero is not observed.

    parts : stored columns of weights, C in all; none where weights are the same in every row.
    constant : (C,) those weights then.  weighting : (K,) which column of weights each equation has.
    """

    parts: tuple[Part, ...]
    constant: np.ndarray | None
    weighting: np.ndarray

    @property
    def names(self) -> tuple[str, ...]:
        """What the user calls the parts."""
        return tuple(part.name for part in self.parts)

    def of_cells(self, stored: np.ndarray | None) -> np.ndarray:
        """(n, K) weights of some rows, or (1, K), from what their parts hold (n, C)."""
        columns = self.constant[None, :] if stored is None and self.constant is not None else stored
        assert columns is not None
        return np.asarray(columns[:, self.weighting])


@dataclass(frozen=True, eq=False)
class GroupLabels:
    """Labels of rows whose effects are absorbed.

    part : codes (N, L) of the group of each row by each label, numbered through all labels, -1 where a row that is not
    fitted has no label.  names : of the labels.
    labels : of each its groups, ascending.  of_fit : whether their effects are those that a fit found in other rows, so
    that these rows are not left orthogonal to the groups.
    """

    part: Part
    names: tuple[Hashable, ...]
    labels: tuple[tuple[Hashable, ...], ...]
    of_fit: bool = False

    @property
    def n_groups(self) -> int:
        """Of all labels."""
        return sum(len(each) for each in self.labels)

    def n_pairs(self, n_obs: int) -> int:
        """The most pairs of groups of different labels that rows are in."""
        sizes = [len(each) for each in self.labels]
        return sum(min(n_obs, a * b) for a, b in combinations(sizes, 2))


class Unchanged(Protocol):
    """What knows whether stores are those that were first read."""

    def begin(self) -> None:
        """Remembers them, the first time."""
        ...

    def look(self) -> None:
        """Raises ChangedStore where they are not."""
        ...


@dataclass(frozen=True, eq=False)
class Rows:
    """N rows of [X Y] and optional weights, in parts; column order is the order of the parts.

    The weight w_i of row i says Var(e_i) = Sigma / w_i; rows of weight zero are left out.
    cells : weights of cells in place of weights of rows. The design is then that of scaled rows, each equation with
    columns of its own, which passes make of the stored ones: see `rows.scaled`.
    complete_only : leave out rows with a NaN in Y, or in a regressor, too.
    label_of : what the user calls a row, by its number; None where rows have no labels.
    absorb : the groups whose effects are taken out of the rows as they are read, see `rows.absorbed`. What they are is
    known once `design.absorbed` is there.
    marks : of the stores that they are read from, None where nothing is known of these.
    """

    x: tuple[Part, ...]
    y: tuple[Part, ...]
    weights: Part | None
    design: Design
    n_obs: int
    complete_only: bool = False
    cells: CellWeights | None = None
    label_of: Callable[[int], Hashable] | None = None
    absorb: GroupLabels | None = None
    marks: Unchanged | None = None

    @property
    def parts(self) -> tuple[Part, ...]:
        """Every part, X first, then Y, then the weights, then the groups that are absorbed."""
        groups = () if self.absorb is None else (self.absorb.part,)
        return (*self.x, *self.y, *self.weight_parts, *groups)

    @property
    def weight_parts(self) -> tuple[Part, ...]:
        """The parts that hold weights, of rows or of cells."""
        if self.cells is not None:
            return self.cells.parts
        return () if self.weights is None else (self.weights,)

    @property
    def of_regressors(self) -> Rows:
        """The same rows for passes over X alone: responses are read only where their holes say which rows are used."""
        return self if self.complete_only else replace(self, y=())

    @property
    def weighted(self) -> str:
        """What has weights: "rows", "cells" or "equations"; nothing where none has."""
        if self.cells is not None:
            return "equations" if self.cells.constant is not None else "cells"
        return "" if self.weights is None else "rows"

    @property
    def varying_weights(self) -> bool:
        """Whether cells have weights that are not the same in every row of an equation."""
        return self.cells is not None and self.cells.constant is None

    @property
    def row_bytes(self) -> int:
        return sum(part.row_bytes for part in self.parts)

    @property
    def group_bytes(self) -> int:
        """Of sums of the groups whose effects are absorbed."""
        width = self.design.n_regressors + self.design.n_equations
        return 0 if self.absorb is None else 8 * self.absorb.n_groups * (width + 3)
