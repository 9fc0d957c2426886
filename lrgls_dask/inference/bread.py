"""The bread of a sandwich covariance, and the coordinates in which rows are differentiated.

A coefficient vector solves X' Sigma^-1 (Y - X b) = penalty; A is minus the derivative of that gradient. Its sandwich is
A^-1 (sum of s_i s_i') A^-1 (Huber 1967, White 1980). Everything here happens in coordinates that keep digits: columns
of an equation with an intercept are taken less an anchor row, so that x = 1e14 + noise costs nothing, and within each
equation the regressors are orthonormal. A change of coordinates alters no covariance in the user's units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from lrgls_dask.design.design import Design
from lrgls_dask.design.penalties import Ridge, column_penalties, penalises
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.inference.dual import Dual, dual_pays
from lrgls_dask.inference.gradient_kernels import Clusters, GradientParams, SigmaRuns
from lrgls_dask.inference.leverage import Leverage
from lrgls_dask.inference.operator import InformationOperator
from lrgls_dask.inference.structured import both_sides, row_slices
from lrgls_dask.rows.fingerprint import Fingerprint
from lrgls_dask.rows.memory import MAX_COEFFICIENTS
from lrgls_dask.rows.moments import Head
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.solve.constraint import free_directions, inverse_within
from lrgls_dask.solve.orthonormal import orthonormal_by_group
from lrgls_dask.solve.prices import SOLUTIONS

__all__ = ["Bread"]

EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Bread:
    """A^-1 of all P coefficients, A = X' Sigma^-1 X + penalty, and what turns gradients into the user's units.

    x_rows : (r, q) with x_rows'x_rows = X'X, the first row sqrt(W) * mean.  head : of [X Y], None where it is not
    known.  coefficients : (P,).  sigma : of all rows; of runs of them in a `SegmentedBread`.
    y_scale : (K,) the units in which lam_B penalises.  restrictions : (m, P) R of estimates under R b = r, or None.
    fitted : by which the rows are told from others, None where that was not kept.
    """

    design: Design
    x_rows: np.ndarray
    head: Head | None
    coefficients: np.ndarray
    sigma: Sigma | SigmaRuns
    n_obs: int
    y_scale: np.ndarray
    lam_B: Ridge
    restrictions: np.ndarray | None = None
    fitted: Fingerprint | None = None

    # ------------------------------------------------------------------------------------------ the sandwich

    def sandwich(self, meat: np.ndarray) -> np.ndarray:
        """A^-1 meat A^-1, (P, P), in the user's units; `meat` (P, P) sums products of gradients of `gradient_params()`.

        O(P^3), four P x P arrays; K P^2 where all equations share their columns.
        """
        turned = both_sides(meat, [turn.T for turn in self._to_orthonormal], self.design)
        return self._in_units(self._apply(self._apply(turned).T))

    def errors(self, sums: np.ndarray) -> np.ndarray:
        """(P, T) A^-1 s' in the user's units, of T sums (T, P) of gradients of `gradient_params()`: by how much each
        moves the estimates.  P T numbers twice."""
        turned = np.empty(sums.shape[::-1])
        for places, to_orthonormal, _ in self._turns:
            turned[places] = np.swapaxes(to_orthonormal, 1, 2) @ sums.T[places]
        found = self._apply(turned)
        for places, _, to_user in self._turns:
            found[places] = to_user @ found[places]
        return found

    def errors_flops(self, n_sums: int) -> float:
        """What the `errors` of so many sums cost.  Raises ValueError where they are not to be had."""
        P = self.design.n_coefficients
        if self._shared:
            sigma = self._scaled_sigma
            return 4.0 * n_sums * P * (sigma.widened().rank if sigma.is_wide else sigma.n_equations)
        if self._dual is not None:
            return 4.0 * n_sums * P * len(self._dual.middle)
        if P <= MAX_COEFFICIENTS:
            return 2.0 * n_sums * P**2
        return self._operator.flops(n_sums)

    def as_stored(self, sums: np.ndarray) -> np.ndarray:
        """(T, P) sums of gradients of the columns as stored, of sums (T, P) of those of `gradient_params()`."""
        design, out = self.design, sums.copy()
        for j, columns in enumerate(design.columns):
            if self._is_centred[j]:
                pivot = int(np.flatnonzero(self._constant[columns])[0])
                out[:, design.spans[j]] += np.multiply.outer(
                    sums[:, design.offsets[j] + pivot], self._anchor[columns] / self._level[columns[pivot]]
                )
        return out

    def _in_units(self, values: np.ndarray) -> np.ndarray:
        """(P, P) in the user's units, of the covariance `values` in orthonormal coordinates."""
        covariance = both_sides(values, self._to_user, self.design)
        symmetric: np.ndarray = 0.5 * (covariance + covariance.T)
        return symmetric

    def projection(self, equation: int) -> np.ndarray:
        """(P, p_j) W: the projected gradients W's_i sum to the estimation error of this equation's coefficients.

        The equation's block of the sandwich is the sum of W's_i s_i'W. Exact for any P: above 20,000 coefficients by
        conjugate gradients, p_j right-hand sides. Raises ValueError there for restricted estimates.
        """
        columns = self._columns(equation) @ self._to_user[equation].T
        for mine, turn in zip(self.design.spans, self._to_orthonormal, strict=True):
            columns[mine] = turn @ columns[mine]
        return columns

    # ------------------------------------------------------------------------------------------ gradients

    holes: ClassVar[bool] = False  # whether rows may miss responses

    def of_rows(self, kernel: Callable[..., Any]) -> Callable[..., Any]:
        """The kernel over the rows that were fitted: of all that it is given."""
        return kernel

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
        design, anchor = self.design, self._anchor
        constant = self._constant
        columns = np.concatenate(design.columns)
        centred = np.zeros(design.n_equations, dtype=bool) if as_stored else self._is_centred
        shift = np.where(centred[design.equation_of], 0.0, anchor[columns])
        slopes = []
        for group in design.groups:
            b = self.coefficients[group.coefficients].copy()
            if self.head is not None:
                b[constant[group.columns]] = 0.0  # the intercept below has them
            slopes.append(b)
        consecutive = bool((np.diff(columns) == 1).all())
        return GradientParams(
            groups=design.groups,
            anchor=anchor,
            shift=shift if shift.any() else None,
            columns=slice(int(columns[0]), int(columns[-1]) + 1) if consecutive else columns,
            equations=design.equation_of,
            slopes=tuple(slopes),
            intercept=self._at_anchor(tuple(slopes)),
            scale=self.y_scale,
            sigma=self.sigma.rescaled(1.0 / self.y_scale),
            project=project,
            weights=weights,
            clusters=clusters,
            leverage=leverage,
        )

    def leverage(self, power: float) -> Leverage:
        """Leverages of the rows, where residuals are those of weighted least squares of every equation.

        Sigma diagonal, whatever the restrictions: the diagonal of the hat matrix of the stacked equations. Or columns
        shared by all equations and no restrictions, where GLS is least squares of each. K = 1 is both.
        Raises ValueError for GLS else, where a row's fitted value has weights on other equations' residuals too, and
        for ridge estimates.
        """
        if not self._is_least_squares:
            correction = "HC2" if power < 1 else "HC3"
            raise ValueError(
                f"correction={correction!r} needs leverages, which are those of least squares: of one equation, "
                "covariance='diagonal', algorithm='ols', or all equations with the same regressors, without lam_B. "
                "These are GLS estimates. Use correction='HC1', or fit with algorithm='ols'."
            )
        shift = np.where(self._is_centred[:, None], 0.0, self._anchor[: self.design.n_regressors])
        parts = []
        for group, (_, half, _) in zip(self.design.groups, self._pieces, strict=True):
            moved = shift[group.equations[0], group.columns]
            if self.restrictions is None:
                parts.append((group.equations, group.columns, moved, half))
                continue
            for j in group.equations:
                mine = self.design.spans[j]
                values, vectors = np.linalg.eigh(self._inverse[mine, mine] / self._scaled_sigma.variances[j])
                root = half @ (vectors * np.sqrt(np.maximum(values, 0.0)))
                parts.append((np.array([j]), group.columns, moved, root))
        return Leverage(tuple(parts), power)

    @property
    def _is_least_squares(self) -> bool:
        """Whether residuals are those of weighted least squares of every equation, restricted together or not."""
        if penalises(self.lam_B) or isinstance(self.sigma, SigmaRuns):
            return False
        if self._shared:
            return True
        precision = self._scaled_sigma.precision()
        return np.count_nonzero(precision) == np.count_nonzero(precision.diagonal())

    def stored_gradients(self) -> np.ndarray:
        """(P, P) J with J s the gradients of the columns as stored, s those of `gradient_params()`."""
        return self.as_stored(np.eye(self.design.n_coefficients)).T

    def _at_anchor(self, slopes: tuple[np.ndarray, ...]) -> np.ndarray:
        """(K,) y - X b at the anchor: the mean residual carried from the mean to the anchor.

        Where means are huge, the mean residual y - X b is all rounding of b; it is taken for the zero it then stands
        for.
        """
        design = self.design
        if self.head is None:
            return np.zeros(design.n_equations)
        q = design.n_regressors
        mean, offset = self.head.mean, self._offset
        out = np.empty(design.n_equations)
        for group, slope in zip(design.groups, slopes, strict=True):
            b, y = self.coefficients[group.coefficients], q + group.equations
            at_mean = mean[y] - mean[group.columns] @ b
            rounding = 8 * EPS * (np.abs(mean[y]) + np.abs(mean[group.columns]) @ np.abs(b))
            at_mean[np.abs(at_mean) <= rounding] = 0.0
            out[group.equations] = at_mean - (offset[y] - offset[group.columns] @ slope)
        return out

    # ------------------------------------------------------------------------------------------ coordinates

    @cached_property
    def _constant(self) -> np.ndarray:
        """(q,) columns that are one number, not zero, in every row."""
        flat: np.ndarray = np.linalg.norm(self.x_rows[1:], axis=0) == 0
        return flat & (self.x_rows[0] != 0)

    @cached_property
    def _is_centred(self) -> np.ndarray:
        """(K,) equations with an intercept, whose other columns may be shifted: no penalty sees that."""
        if self.head is None:
            return np.zeros(self.design.n_equations, dtype=bool)
        return np.array([bool(self._constant[columns].any()) for columns in self.design.columns])

    @cached_property
    def _anchor(self) -> np.ndarray:
        """(q + K,) a row of the data, zero in constant columns, or zero where no mean is known."""
        if self.head is None:
            return np.zeros(self.design.n_regressors + self.design.n_equations)
        anchor = self.head.anchor.copy()
        anchor[: self.design.n_regressors][self._constant] = 0.0
        return anchor

    @cached_property
    def _offset(self) -> np.ndarray:
        """(q + K,) the mean less the anchor."""
        assert self.head is not None
        return self.head.offset + (self.head.anchor - self._anchor)

    @cached_property
    def _level(self) -> np.ndarray:
        """(q,) the value of constant columns."""
        assert self.head is not None
        return self.head.mean[: self.design.n_regressors]

    @cached_property
    def _scaled_sigma(self) -> Sigma:
        assert not isinstance(self.sigma, SigmaRuns)
        return self.sigma.rescaled(1.0 / self.y_scale)

    @cached_property
    def _pieces(self) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]:
        """Per group: Q (r, p), (p, p) from orthonormal to shifted coordinates, and the ridge (p,)."""
        design, penalties = self.design, column_penalties(self.design, self.lam_B)
        shifted = None
        if self.head is not None:
            shifted = np.sqrt(self.head.weight) * self._offset[: design.n_regressors], self._is_centred
        found = orthonormal_by_group(self.x_rows, design.batches, self.n_obs, penalties, shifted)
        made = {i: (q, half, ridge) for i, q, half, ridge in found}
        return tuple(made[i] for i in range(len(made)))

    @cached_property
    def _to_orthonormal(self) -> tuple[np.ndarray, ...]:
        """Per equation (p, p) T: gradients in orthonormal coordinates are T's."""
        found: list[np.ndarray] = [np.empty(0)] * self.design.n_equations
        for group, (_, half, _) in zip(self.design.groups, self._pieces, strict=True):
            for j in group.equations:
                found[j] = half
        return tuple(found)

    @cached_property
    def _to_user(self) -> tuple[np.ndarray, ...]:
        """Per equation (p, p): orthonormal coordinates in standard units of Y to the user's coefficients."""
        found: list[np.ndarray] = [np.empty(0)] * self.design.n_equations
        for group, (_, half, _) in zip(self.design.groups, self._pieces, strict=True):
            back = half
            if self._is_centred[group.equations[0]]:
                pivot = int(np.flatnonzero(self._constant[group.columns])[0])
                back = half.copy()
                back[pivot] -= self._anchor[group.columns] @ half / self._level[group.columns[pivot]]
            for j in group.equations:
                found[j] = self.y_scale[j] * back
        return tuple(found)

    @cached_property
    def _turns(self) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]:
        """Of equations of equal shape (K', p) where their coefficients are, and what `_to_orthonormal` and `_to_user`
        have of each, (K', p, p)."""
        design, found = self.design, []
        for p in np.unique(design.sizes).tolist():
            mine = np.flatnonzero(design.sizes == p)
            turns = [np.stack([of[j] for j in mine.tolist()]) for of in (self._to_orthonormal, self._to_user)]
            found.append((design.offsets[mine][:, None] + np.arange(p), turns[0], turns[1]))
        return tuple(found)

    @cached_property
    def _ridge(self) -> np.ndarray:
        """(P,) the penalty in orthonormal coordinates."""
        ridge = np.zeros(self.design.n_coefficients)
        for group, (_, _, own) in zip(self.design.groups, self._pieces, strict=True):
            ridge[group.coefficients] = own[:, None]
        return ridge

    # ------------------------------------------------------------------------------------------ A^-1

    @property
    def _shared(self) -> bool:
        return len(self.design.groups) == 1 and not penalises(self.lam_B) and self.restrictions is None

    def _apply(self, values: np.ndarray) -> np.ndarray:
        """A^-1 values, (P, m), in orthonormal coordinates."""
        if self._shared:  # A is Sigma^-1 kron I
            n_equations = self.design.n_equations
            return self._scaled_sigma.matmul(values.reshape(n_equations, -1)).reshape(values.shape)
        if self._dual is not None:
            return self._dual.apply(values)
        if self.design.n_coefficients > MAX_COEFFICIENTS:
            return self._solved(values)
        out: np.ndarray = self._inverse @ values
        return out

    def _solved(self, values: np.ndarray) -> np.ndarray:
        """A^-1 values, (P, m), of more coefficients than P x P numbers have room; by conjugate gradients."""
        few = row_slices(values.shape[1], len(values))
        return np.hstack([self._operator.solve(values[:, of], SOLUTIONS)[0] for of in few])

    @cached_property
    def _operator(self) -> InformationOperator:
        """A of more coefficients than P x P numbers have room.  Raises ValueError for restricted estimates."""
        if self.restrictions is not None:
            raise ValueError(
                f"covariances of estimates under restrictions are limited to {MAX_COEFFICIENTS:,} coefficients; "
                f"these are {self.design.n_coefficients:,}. Fit fewer equations."
            )
        return InformationOperator.of(
            self.design, tuple(q for q, _, _ in self._pieces), self._scaled_sigma, self._ridge
        )

    @cached_property
    def _dual(self) -> Dual | None:
        """A^-1 without a P x P array, where that pays."""
        held = 0 if self.restrictions is None else len(self.restrictions)
        if isinstance(self.sigma, SigmaRuns) or not dual_pays(self.design, len(self.x_rows), self.sigma, held):
            return None
        pieces = tuple(q for q, _, _ in self._pieces)
        found = Dual.of(self.design, pieces, self._scaled_sigma, self._ridge)
        if self.restrictions is None or self._rows is None:
            return found
        is_held = Restrictions(self.restrictions, np.zeros(len(self.restrictions)), ()).held
        return found.restricted(self._rows, is_held, self.design, self._to_user)

    @property
    def _rows(self) -> np.ndarray | None:
        """(m, P) restrictions in orthonormal coordinates."""
        if self.restrictions is None:
            return None
        turned = zip(self.design.spans, self._to_user, strict=True)
        return np.hstack([self.restrictions[:, mine] @ back for mine, back in turned])

    @cached_property
    def _inverse(self) -> np.ndarray:
        """(P, P) A^-1 in orthonormal coordinates, on the directions that restrictions leave free."""
        information = self._information()
        information[np.diag_indices_from(information)] += self._ridge
        inverse = inverse_within(information, None if self._rows is None else free_directions(self._rows))
        return np.asarray(0.5 * (inverse + inverse.T))

    def _information(self) -> np.ndarray:
        """(P, P) X' Sigma^-1 X in orthonormal coordinates, in memory of its own."""
        design = self.design
        precision = self._scaled_sigma.precision()
        rows = np.empty((len(self.x_rows), design.n_coefficients))
        for group, (q, _, _) in zip(design.groups, self._pieces, strict=True):
            for places in group.coefficients.T:
                rows[:, places] = q
        information = rows.T @ rows
        for j, strip in enumerate(design.spans):  # one by one: a second P x P array of precisions is not needed
            information[strip] *= precision[j, design.equation_of]
        return information

    def _columns(self, equation: int) -> np.ndarray:
        """(P, p_j) columns of A^-1 in orthonormal coordinates, in memory of their own."""
        design = self.design
        mine = design.spans[equation]
        unit = np.zeros((design.n_coefficients, int(design.sizes[equation])))
        unit[mine] = np.eye(unit.shape[1])
        if self._shared or self._dual is not None:
            return self._apply(unit)
        if design.n_coefficients <= MAX_COEFFICIENTS:
            return self._inverse[:, mine].copy()
        return self._solved(unit)
