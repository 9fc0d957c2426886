"""Fixed effects that were taken out of the rows: of which labels, how many parameters they are, what they explain."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lrgls_dask.errors import CollinearColumns

__all__ = ["Absorbed", "check_beside", "rounding_beside"]

# of squares, what is left of a regressor that the effects determine: rounding of means of groups, and of effects that
# are solved for
NOTHING_ONE, NOTHING_MANY = 1e-24, 1e-18
DIGITS_KEPT = 1e-12  # relative rounding that no test of collinearity sees
ROUNDING = 1e-2  # of the level, whose own rounding these parts are then of


@dataclass(frozen=True, eq=False)
class Absorbed:
    """Effects of groups of rows, by one label or several, which columns of X and Y were made orthogonal to.

    names : of the L labels.  labels : for each its G_l groups.  rows : (G,) rows that were fitted of every group, those
    of the first label first, G = sum G_l.  weights : (G,) sums of their weights.
    n_parameters : dimensions that the effects span, which every equation gives up: groups that have rows, less those
    that others determine.  is_exact : whether these were all found.
    center : (M,) of [X Y], the weighted mean of all rows.  effects : (G, M), what is taken out of a row is center and
    the effects of its groups; of one label the means of groups.
    explained : (M,) squares about the mean that the effects take up.  between : (r, K) rows that stand for those of Y,
    between'between their products; none where K is too many.
    """

    names: tuple[Hashable, ...]
    labels: tuple[tuple[Hashable, ...], ...]
    rows: np.ndarray
    weights: np.ndarray
    n_parameters: int
    is_exact: bool
    center: np.ndarray
    effects: np.ndarray
    explained: np.ndarray
    between: np.ndarray

    @cached_property
    def starts(self) -> np.ndarray:
        """(L + 1,) where the groups of each label begin."""
        return np.concatenate([[0], np.cumsum([len(each) for each in self.labels])]).astype(np.intp)

    @property
    def n_groups(self) -> tuple[int, ...]:
        """(L,) groups of each label that have rows."""
        return tuple(int(np.count_nonzero(mine)) for mine in self._by_label(self.rows))

    @property
    def n_single(self) -> tuple[int, ...]:
        """(L,) groups of each label that have one row, which says nothing of coefficients."""
        return tuple(int(np.count_nonzero(mine == 1)) for mine in self._by_label(self.rows))

    @property
    def n_redundant(self) -> int:
        """Groups whose effect the others determine."""
        return sum(self.n_groups) - self.n_parameters

    def only(self, columns: np.ndarray, equations: np.ndarray) -> Absorbed:
        """What was taken out of some of the regressors and responses; (c,) and (m,) their positions."""
        kept = np.concatenate([columns, len(self.center) - self.between.shape[1] + equations])
        return replace(
            self,
            center=self.center[kept],
            effects=self.effects[:, kept],
            explained=self.explained[kept],
            between=self.between[:, equations],
        )

    def _by_label(self, values: np.ndarray) -> list[np.ndarray]:
        return [values[a:b] for a, b in zip(self.starts[:-1], self.starts[1:], strict=True)]

    def by_label(self, coefficients: np.ndarray) -> list[np.ndarray]:
        """Per label (G_l, K) effects on the responses, given (q, K) coefficients; NaN of groups without rows.

        Those of the first label hold the mean of all rows; of several labels any constant may move between them.
        """
        q = len(coefficients)
        found = self.effects[:, q:] - self.effects[:, :q] @ coefficients
        found[self.starts[0] : self.starts[1]] += self.center[q:] - self.center[:q] @ coefficients
        found[self.rows == 0] = np.nan
        return self._by_label(found)


def rounding_beside(absorbed: Absorbed, squares: np.ndarray, weight: float, rounding: np.ndarray) -> np.ndarray:
    """(q,) relative rounding of what the effects leave of regressors, which had `rounding`; 0 of what keeps its digits.

    squares : as of `check_beside`.
    """
    taken = absorbed.explained[: len(squares)] + weight * absorbed.center[: len(squares)] ** 2
    grown = np.maximum(rounding, np.finfo(float).eps) * np.sqrt(1.0 + taken / squares)
    return np.where((rounding > 0) | (grown > DIGITS_KEPT), grown, 0.0)


def check_beside(
    absorbed: Absorbed,
    regressors: tuple[Hashable, ...],
    squares: np.ndarray,
    weight: float,
    columns: tuple[np.ndarray, ...],
) -> None:
    """Raise CollinearColumns naming a regressor that the effects determine; ValueError where rows are too few.

    squares : (q,) of the regressors without the effects, weighted, infinite where not known.  weight : of all rows.
    columns : (K,) of each equation.
    """
    q, by = len(squares), " and ".join(repr(name) for name in absorbed.names)
    most = max(map(len, columns))
    n_obs = int(absorbed.rows[: absorbed.starts[1]].sum())
    if n_obs <= absorbed.n_parameters + most:
        raise ValueError(
            f"the {absorbed.n_parameters:,} effects of {by} and {most} coefficients of an equation leave "
            f"nothing of {n_obs:,} rows: these must outnumber them. Absorb a label of fewer groups, or add rows."
        )
    level = absorbed.explained[:q] + weight * ROUNDING**2 * absorbed.center[:q] ** 2
    still = squares <= (NOTHING_ONE if len(absorbed.names) == 1 else NOTHING_MANY) * level
    if still.any():
        names = [repr(regressors[i]) for i in np.flatnonzero(still)]
        one = len(names) == 1
        within = f"within every group of {by}" if len(absorbed.names) == 1 else f"once the effects of {by} are out"
        mine = {j: np.flatnonzero(still[each]) for j, each in enumerate(columns)}
        raise CollinearColumns(
            f"regressor{'' if one else 's'} {', '.join(names[:5])} {'is' if one else 'are'} constant {within}, so "
            f"{'it is' if one else 'they are'} collinear with the effects that absorb takes out, as the intercept is. "
            f"Leave {'it' if one else 'them'} out.",
            {
                j: f"collinear ({regressors[int(columns[j][at[0]])]!r} is constant {within})"
                for j, at in mine.items()
                if len(at)
            },
        )
