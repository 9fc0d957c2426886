"""Which cells of X a row uses: those in columns of an equation that the row shows. All others count as zero.

A cell (row, equation) that is not observed asks nothing of its regressors. What these hold, NaN or a number, is set to
zero before any sum, anchor or mean is made of a block, so that no digit of a result depends on it. A kernel that itself
takes such cells times zero says so by `masks_unused`, and is spared the copy where its sums tell that they are numbers;
one that does not read them says so by `reads_unused`.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, TypeVar

import numpy as np

from lrgls_dask.design.design import ColumnUsers, as_slice
from lrgls_dask.errors import BadValues
from lrgls_dask.rows.block import Block, as_columns, missing_in, weights_of_shown, width_of
from lrgls_dask.rows.moments import Summed

K = TypeVar("K", bound=Callable[..., Any])

__all__ = ["UsedCells", "WeightsOfShown", "only_used", "takes_used_alone"]


def takes_used_alone(kernel: K) -> K:
    """The same kernel, which sees to it itself that cells nobody uses count as zero, and reads none of them."""
    kernel.reads_unused = False  # type: ignore[attr-defined]
    return kernel


def only_used(block: Block, users: tuple[ColumnUsers, ...]) -> Block:
    """The block with zero in every cell of X that no equation shown in its row uses; infinities stay, to be named.

    The block itself where there is no such cell; a copy of the parts of X that change. Columns that one equation has to
    itself are cleared together.
    """
    if not block.x:  # of a pass over responses alone
        return block
    missing = _missing(block, users)
    some = np.asarray(missing.any(axis=0))
    own = [each for each in users if len(each.equations) == 1 and some[each.equations[0]]]
    cleared: list[tuple[np.ndarray, np.ndarray]] = []
    if own:
        columns = np.concatenate([each.columns for each in own])
        equations = np.repeat([each.equations[0] for each in own], [len(each.columns) for each in own])
        cleared.append((columns, missing[:, equations]))
    for each in users:
        if len(each.equations) != 1 and some[each.equations].all():
            rows = np.all(missing[:, each.equations], axis=1, keepdims=True)
            if rows.any():
                cleared.append((each.columns, np.broadcast_to(rows, (block.n_rows, len(each.columns)))))
    if not cleared:
        return block
    x, starts = list(block.x), list(accumulate((width_of((a,)) for a in block.x), initial=0))
    copied: set[int] = set()
    for columns, cells in cleared:
        parts = np.searchsorted(starts, columns, side="right") - 1
        for part in np.unique(parts).tolist():
            if part not in copied:
                x[part] = np.array(x[part])
                copied.add(part)
            view, mine = as_columns(x[part]), parts == part
            _clear(view, cells[:, mine], as_slice(columns[mine] - starts[part]))
    return replace(block, x=tuple(x))


def _missing(block: Block, users: tuple[ColumnUsers, ...]) -> np.ndarray:
    """(n, K) whether a row misses a response; none where responses are not read."""
    if not block.y:
        n_equations = 1 + max((int(each.equations.max()) for each in users if len(each.equations)), default=0)
        return np.zeros((block.n_rows, n_equations), dtype=bool)
    return missing_in(block.y)


def _all_finite(found: Any) -> bool:
    """Whether a kernel's sums are numbers: NaN, infinities and the largest numbers, times zero or squared, make none of
    them. False for what cannot be looked into.
    """
    if isinstance(found, np.ndarray):
        return found.dtype.kind in "biu" or bool(np.isfinite(found.sum()))
    if isinstance(found, tuple):
        return all(map(_all_finite, found))
    if isinstance(found, Summed):
        return all(map(_all_finite, vars(found).values()))
    return found is None or (isinstance(found, numbers.Real) and math.isfinite(found))


def _clear(values: np.ndarray, cells: np.ndarray, columns: slice | np.ndarray) -> None:
    """Set some cells (n, c) of some columns to zero, but for infinities."""
    taken = values[:, columns]
    values[:, columns] = np.where(cells & ~np.isinf(taken), taken.dtype.type(0), taken)


def _columns(arrays: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """Every column of the arrays, as views."""
    return [column for array in arrays for column in as_columns(array).T]


@dataclass(frozen=True, eq=False)
class UsedCells:
    """A kernel that sees of X only what cells that are observed use.

    holes : whether rows may miss responses. Where they may not, a block is looked at again only when the kernel found
    a value in it that it cannot use, which is what tells such values from those that nobody asks for.
    """

    kernel: Callable[[Block, Any], Any]
    users: tuple[ColumnUsers, ...]
    holes: bool

    def __call__(self, block: Block, params: Any) -> Any:
        reads = getattr(self.kernel, "reads_unused", True)
        as_read = self.holes and (getattr(self.kernel, "masks_unused", False) or not reads)
        if self.holes and not as_read:
            block = only_used(block, self.users)
        failure: BadValues | None = None
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                found = self.kernel(block, params)
            if not as_read or not reads or _all_finite(found):
                return found
        except BadValues as error:
            failure = error
        used = block if self.holes and not as_read else only_used(block, self.users)
        if used is block:
            if failure is None:
                return found
            raise self._of_cells(failure, block) from None
        try:
            return self.kernel(used, params)
        except BadValues as of_used:
            raise self._of_cells(of_used, used) from None

    def _of_cells(self, error: BadValues, block: Block) -> BadValues:
        """The same error with the equations whose cells in that row use the regressor."""
        if error.array != "X":
            return error
        row, columns = error.row - block.start, _columns(block.y)
        users = (u.equations for u in self.users if error.column in u.columns)
        return error.used_by([j for of in users for j in of.tolist() if columns and not np.isnan(columns[j][row])])


@dataclass(frozen=True, eq=False)
class WeightsOfShown:
    """A kernel that is not told of weights of rows which show nothing: NaN is as good there as a number."""

    kernel: Callable[[Block, Any], Any]

    def __call__(self, block: Block, params: Any) -> Any:
        if block.weights is not None and block.y and np.isnan(block.weights).any():
            missing = missing_in(block.y)
            weights = weights_of_shown(block.weights[:, None], missing, np.zeros(missing.shape[1], dtype=np.intp))
            block = replace(block, weights=weights[:, 0])
        return self.kernel(block, params)
