"""The bread of sandwich covariances where rows show only some equations, and the coordinates of their gradients.

A = sum_i X_o' Sigma_oo^-1 X_o + penalty in the whitened coordinates of `Incomplete`. The kernels of `inference` form
products of columns less an origin; an equation's map T turns those into its whitened columns, Z_j = (X_j - origin) T_j.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from lrgls_dask.design.design import Design
from lrgls_dask.inference.gradient_kernels import Clusters, GradientParams, SigmaRuns
from lrgls_dask.inference.leverage import Leverage
from lrgls_dask.missing.gradients import ShownRows, ShownSigma
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.rows.fingerprint import Fingerprint
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.solve.constraint import inverse_within

__all__ = ["ShownBread"]

SAME = 1e-13  # of its size, by which a constant's level over the rows of two equations may differ


@dataclass(frozen=True, eq=False)
class ShownBread:
    """A^-1 of all P coefficients and what turns gradients of rows with holes into the user's units, as `Bread`.

    problem : the rows that were fitted, as its making has checked.  coefficients : (P,).  sigma : both in the user's
    units, of all rows or of runs of them.
    """

    problem: Incomplete
    coefficients: np.ndarray
    sigma: Sigma | SigmaRuns
    fitted: Fingerprint | None = None  # the problem was told from others when it was made

    @property
    def design(self) -> Design:
        return self.problem.rows.design

    @property
    def n_obs(self) -> int:
        return self.problem.n_obs

    holes: ClassVar[bool] = True

    def of_rows(self, kernel: Callable[..., Any]) -> Callable[..., Any]:
        """The kernel over the rows that show something."""
        return ShownRows(kernel)

    # ------------------------------------------------------------------------------------------ the sandwich

    def sandwich(self, meat: np.ndarray) -> np.ndarray:
        """A^-1 meat A^-1, (P, P), in the user's units; `meat` (P, P) sums products of gradients of `gradient_params()`.

        O(P^3), four P x P arrays.
        """
        turned = np.empty_like(meat)
        for mine, turn in zip(self.design.spans, self._turns, strict=True):
            turned[mine] = turn.T @ meat[mine]
        for mine, turn in zip(self.design.spans, self._turns, strict=True):
            turned[:, mine] = turned[:, mine] @ turn
        return self.joint_sandwich(turned, self._inverse)

    def joint_sandwich(self, meat: np.ndarray, bread: np.ndarray) -> np.ndarray:
        """bread meat bread (P, P) in the user's units, meat of whitened columns in the order of equations."""
        order = self.problem.order
        covariance = self.problem.covariance(bread @ meat[np.ix_(order, order)] @ bread)
        symmetric: np.ndarray = 0.5 * (covariance + covariance.T)
        return symmetric

    def errors(self, sums: np.ndarray) -> np.ndarray:
        """(P, T) A^-1 s' in the user's units, of T sums (T, P) of gradients of `gradient_params()`."""
        order = self.problem.order
        turned = np.empty(sums.shape[::-1])
        for mine, turn in zip(self.design.spans, self._turns, strict=True):
            turned[mine] = turn.T @ sums[:, mine].T
        turned[order] = self._inverse @ turned[order]
        for j, mine in enumerate(self.design.spans):
            turned[mine] = (self.problem.maps[j] * self.problem.whitened.y_scale[j]) @ turned[mine]
        return turned

    def errors_flops(self, n_sums: int) -> float:
        """What the `errors` of so many sums cost."""
        return 2.0 * n_sums * self.design.n_coefficients**2

    def as_stored(self, sums: np.ndarray) -> np.ndarray:
        """(T, P) sums of gradients of the columns as stored, of sums (T, P) of those of `gradient_params()`."""
        return sums @ self.stored_gradients().T

    def projection(self, equation: int) -> np.ndarray:
        """(P, p_j) W: the projected gradients W's_i sum to the estimation error of this equation's coefficients."""
        order, mine = self.problem.order, self.design.spans[equation]
        half = self.problem.maps[equation] * self.problem.whitened.y_scale[equation]
        whole = np.empty((len(order), half.shape[0]))
        columns = np.flatnonzero((order >= mine.start) & (order < mine.stop))
        whole[order] = self._inverse[:, columns[np.argsort(order[columns])]] @ half.T
        for rows, turn in zip(self.design.spans, self._turns, strict=True):
            whole[rows] = turn @ whole[rows]
        return whole

    # ------------------------------------------------------------------------------------------ gradients

    def gradient_params(
        self,
        *,
        as_stored: bool = False,
        project: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        clusters: tuple[Clusters, ...] = (),
        leverage: Leverage | None = None,
    ) -> GradientParams:
        """What the kernels need for gradients in these coordinates, or of the columns as stored; the rest as given."""
        design, problem = self.design, self.problem
        scale = problem.whitened.y_scale
        at = problem.params_at(problem.whitened_coefficients(self.coefficients), self._scaled)
        columns = np.concatenate(design.columns)
        shift = self._anchor[columns] if as_stored else self._shift
        level = np.isin(np.arange(design.n_regressors), self._level)
        slopes, of_all = [], at.tiles.batches.by_equation(at.coefficients)
        for group in design.groups:
            b = of_all[group.coefficients]
            slopes.append(np.where(level[group.columns][:, None], 0.0, b * scale[group.equations]))
        consecutive = bool((np.diff(columns) == 1).all())
        return GradientParams(
            groups=design.groups,
            anchor=self._anchor,
            shift=shift if shift.any() else None,
            columns=slice(int(columns[0]), int(columns[-1]) + 1) if consecutive else columns,
            equations=design.equation_of,
            slopes=tuple(slopes),
            intercept=at.level * scale,
            scale=scale,
            sigma=ShownSigma(self._scaled),
            project=project,
            weights=weights,
            clusters=clusters,
            leverage=leverage,
        )

    def leverage(self, power: float) -> Leverage:
        """Leverages of the rows in every equation, where nothing but least squares of each is asked of its rows.

        Raises ValueError for other estimates.
        """
        problem = self.problem
        alone = isinstance(self.sigma, LowRank) and not self.sigma.F.any()
        if not alone or problem.coordinates.ridge.any() or problem.constraint is not None:
            correction = "HC2" if power < 1 else "HC3"
            raise ValueError(
                f"correction={correction!r} needs leverages, which with missing responses are those of least squares "
                "of each equation: covariance='diagonal', without lam_B and restrictions. These are others. Use "
                "correction='HC1', or fit with covariance='diagonal'."
            )
        parts = []
        for j, (mine, turn) in enumerate(zip(self.design.spans, self._turns, strict=True)):
            parts.append((np.array([j]), self.design.columns[j], self._shift[mine], turn))
        return Leverage(tuple(parts), power)

    def stored_gradients(self) -> np.ndarray:
        """(P, P) J with J s the gradients of the columns as stored, s those of `gradient_params()`."""
        design = self.design
        out = np.eye(design.n_coefficients)
        for j, (columns, mine) in enumerate(zip(design.columns, design.spans, strict=True)):
            pivot = self._pivot[j]
            if pivot is not None:
                taken = self._anchor[columns] - self._shift[mine]
                out[mine, mine.start + pivot[0]] += taken / pivot[1]
        return out

    # ------------------------------------------------------------------------------------------ coordinates

    @cached_property
    def _scaled(self) -> Sigma | SigmaRuns:
        return self.sigma.rescaled(1.0 / self.problem.whitened.y_scale)

    def _information(self) -> np.ndarray:
        """(P, P) of the whitened coefficients c, ridge not included."""
        assert not isinstance(self._scaled, SigmaRuns)
        return self.problem.information(self._scaled)

    @cached_property
    def _inverse(self) -> np.ndarray:
        """(P, P) A^-1 of the whitened coefficients c, on the directions that restrictions leave free."""
        information = self._information()
        information[np.diag_indices_from(information)] += self.problem.coordinates.ridge
        inverse = inverse_within(information, self.problem.free)
        return np.asarray(0.5 * (inverse + inverse.T))

    @cached_property
    def _pivot(self) -> list[tuple[int, float] | None]:
        """Per equation, which of its columns is a constant over the rows that show it, and its level; None for none."""
        found: list[tuple[int, float] | None] = []
        for part, weight in zip(self.problem.group_rows, self.problem.weight, strict=True):
            flat = np.flatnonzero(~part.x[1:].any(axis=0) & (part.x[0] != 0) & self.problem.has_constants)
            found.append((int(flat[0]), float(part.x[0, flat[0]] / np.sqrt(weight))) if len(flat) else None)
        return found

    @cached_property
    def _level(self) -> np.ndarray:
        """Columns that are one constant in all equations that use them; they are taken as they are, less nothing."""
        q = self.design.n_regressors
        level, origin = np.ones(q, dtype=bool), self.problem.origin[:q]
        for columns, part, weight in zip(
            self.design.columns, self.problem.group_rows, self.problem.weight, strict=True
        ):
            mean = part.x[0] / np.sqrt(weight)
            same = np.abs(mean - origin[columns]) <= SAME * np.abs(mean)
            level[columns] &= ~part.x[1:].any(axis=0) & (part.x[0] != 0) & same
        return np.flatnonzero(level if self.problem.has_constants else level & False)

    @cached_property
    def _anchor(self) -> np.ndarray:
        """(q + K,) what the rows are taken less."""
        anchor = self.problem.origin.copy()
        anchor[self._level] = 0.0
        return anchor

    @cached_property
    def _shift(self) -> np.ndarray:
        """(P,) what a coefficient's column gets back: of an equation with a constant that one alone gets anything."""
        shift = self._anchor[np.concatenate(self.design.columns)]
        for mine, pivot in zip(self.design.spans, self._pivot, strict=True):
            if pivot is not None:
                kept = shift[mine][pivot[0]]
                shift[mine] = 0.0
                shift[mine.start + pivot[0]] = kept
        return shift

    @cached_property
    def _turns(self) -> list[np.ndarray]:
        """Per equation (p, p) T, from the columns that the kernels form to whitened ones."""
        turns, origin = [], self.problem.origin
        for j, (columns, pivot) in enumerate(zip(self.design.columns, self._pivot, strict=True)):
            turn = self.problem.maps[j].copy()
            if pivot is not None:
                place, level = pivot
                rest = (level - origin[columns[place]]) * turn[place]
                turn[np.isin(columns, self._level)] = 0.0
                turn[place] = (self.problem.ends[j] + rest) / level
            turns.append(turn)
        return turns
