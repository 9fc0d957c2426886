"""N rows made q + K + 1 without loss: the likelihood sees the data only through [X Y]'[X Y] and N.

Any Z with Z'Z = [X Y]'[X Y] gives the same residual covariance, gradients and optimum. Here Z is the row
sqrt(W) * mean on top of a triangular root of the centred cross-product, which keeps digits when means are large.
Compressed systems form a monoid: stacking two and re-triangulating is the merge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from lrgls_dask.compression.roots import root_of
from lrgls_dask.design.design import Design, difference
from lrgls_dask.rows.absorbed import GroupKernel, WithinMoments
from lrgls_dask.rows.effects import absorbed_of
from lrgls_dask.rows.kernels import gram_kernel, root_kernel
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.moments import GramMoments, Head, Levels, RootMoments
from lrgls_dask.rows.purposes import COMPRESS
from lrgls_dask.rows.resources import blas_for
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.run_pass import SavedSums, run_pass, with_effects
from lrgls_dask.sigma.interface import Sigma

__all__ = [
    "Compressed",
    "Route",
    "coarser",
    "common_design",
    "compress_rows",
    "in_columns_of",
    "partial_bytes",
    "qr_is_cheap",
    "residual_rows",
]

Route = Literal["auto", "gram", "qr"]

SMALL_FLOPS = 2e8  # below this QR costs nothing that anyone would notice, so no digit need be risked
LOST_DIGITS = 1e-6  # a squared pivot this small leaves the gram route ten digits of sixteen


@dataclass(frozen=True, eq=False)
class Compressed:
    """q + K + 1 rows that stand for N.

    head : count, weight and mean of [X Y].  root : (r, q + K), root'root the centred cross-product, r <= q + K;
    X is zero below its first q rows.  route : "gram" or "qr", which pass made it.
    """

    design: Design
    head: Head
    root: np.ndarray
    route: str

    @property
    def n_obs(self) -> int:
        return self.head.n_rows

    @property
    def weighted(self) -> str:
        """What had weights: "rows" or "cells"; nothing where none had."""
        if self.design.own is not None:
            return "cells"
        return "rows" if (self.head.weight, self.head.log_weight) != (self.head.n_rows, 0.0) else ""

    def stacked(self, height: int | None = None) -> np.ndarray:
        """(r + 1, q + K) with stacked'stacked = [X Y]'[X Y], the mean first; only `height` rows of the root if given.

        The first q of the root are all that meet X.
        """
        return np.vstack([np.sqrt(self.head.weight) * self.head.mean, self.root[:height]])

    def rows_of_x(self) -> np.ndarray:
        """(q + 1, q) with rows'rows = X'X."""
        q = self.design.n_regressors
        return self.stacked(q)[:, :q].copy()

    def merge(self, other: Compressed) -> Compressed:
        """The compressed system of both sets of rows; O((q + K)^3), no read.

        Rows whose cells have no weights go with rows whose cells have some, as rows of weight one.
        """
        if self.design.absorbed is not None or other.design.absorbed is not None:
            raise ValueError(
                "append: the effects of groups were absorbed from the rows of one system alone, which those of the "
                "other change. Make one System of all rows, and absorb and compress that."
            )
        design = common_design(self.design, other.design)
        both = in_columns_of(design, self.design, self._moments) + in_columns_of(design, other.design, other._moments)
        return Compressed(design, both.head, both.root, coarser(self.route, other.route))

    @property
    def _moments(self) -> RootMoments:
        return RootMoments(self.head, self.root)


def coarser(*routes: str) -> str:
    """The route that lost more digits."""
    return "gram" if "gram" in routes else "qr"


def common_design(mine: Design, theirs: Design) -> Design:
    """The design of rows of both, whose cells have weights where those of either have.

    Raises ValueError, naming what differs, for other equations, regressors or designs.
    """
    if not mine.given.same_as(theirs.given):
        raise ValueError(
            "append: the two systems differ in equations, regressors or designs: the appended one "
            f"{difference(mine.given, theirs.given)}. Use the same ones, in the same order; in a long frame read by "
            "the formulas of the first an equation that shows nothing has a row without a response."
        )
    design = theirs if mine.own is None else mine
    if theirs.own is not None and not design.same_as(theirs):
        raise ValueError(
            "append: the weights of the two systems are not shared by the same equations. Give both weights of "
            "shape (N, K)."
        )
    return design.stored_as(mine, theirs)


def in_columns_of(design: Design, mine: Design, moments: RootMoments) -> RootMoments:
    """Moments of rows [X Y_o] in the columns that equations have of their own where cells are weighted.

    mine : the design that the rows come with.
    """
    own, head = design.own, moments.head
    if own is None or mine.own is not None:
        return moments
    q = mine.n_regressors
    columns = np.concatenate([own.column, np.arange(q, len(head.anchor))])
    levels = Levels(np.full(int(own.weighting.max()) + 1, head.weight), head.weight * head.mean[own.column])
    moved = replace(head, anchor=head.anchor[columns], offset=head.offset[columns], levels=levels)
    return RootMoments(moved, moments.root[:, columns])


def partial_bytes(design: Design, n_obs: int | None = None) -> int:
    """Bytes of one partial sum, 8 (q + K)^2; of so few rows less, which stay rows."""
    width = design.n_regressors + design.n_equations
    return 8 * width * (width if n_obs is None else min(width, n_obs))


def qr_is_cheap(rows: Rows) -> bool:
    """Whether rows are so few that QR, which loses no digit, takes no longer that anyone would notice; where they are
    fewer than columns it also is the shorter way, and a sum has no more numbers than the rows."""
    width = rows.design.n_regressors + rows.design.n_equations
    return rows.n_obs * width**2 <= SMALL_FLOPS or rows.n_obs <= width


def compress_rows(
    rows: Rows, *, route: Route = "auto", meter: Meter, saved: Callable[[str], SavedSums] | None = None
) -> Compressed:
    """The compressed system: one pass, or a second one by QR where the first shows that digits would be lost.

    saved : by the name of a pass, where its partial sums are kept for a client that may be killed.
    Costs N (q + K)^2 flops by the gram route, three to four times that by QR; (q + K)^2 numbers for each task.
    """
    width = rows.design.n_regressors + rows.design.n_equations
    by_qr = route == "qr" or (route == "auto" and qr_is_cheap(rows))
    if rows.absorb is not None and not rows.absorb.of_fit:
        return _without_effects(rows, by_qr, meter)
    if by_qr:
        return _by_qr(rows, meter, saved)
    moments: GramMoments = _sum_over(rows, gram_kernel, "gram", COMPRESS, meter, saved)
    with blas_for(width):
        by_gram = Compressed(rows.design, moments.head, root_of(moments.cross), "gram")
        if route == "gram" or smallest_pivot(by_gram) > LOST_DIGITS:
            return by_gram
    return _by_qr(rows, meter, saved)


def _sum_over(
    rows: Rows, kernel: Any, name: str, label: str, meter: Meter, saved: Callable[[str], SavedSums] | None
) -> Any:
    """The kernel's sum over all rows, its partial sums kept under `name` where there is somewhere to keep them."""
    sums = saved(name) if saved else None
    size = partial_bytes(rows.design, rows.n_obs if kernel is root_kernel else None)
    return run_pass(rows, kernel, None, partial_bytes=size, meter=meter, label=label, saved=sums)


def _by_qr(rows: Rows, meter: Meter, saved: Callable[[str], SavedSums] | None) -> Compressed:
    moments: RootMoments = _sum_over(rows, root_kernel, "root", f"{COMPRESS} (QR)", meter, saved)
    return Compressed(rows.design, moments.head, moments.root, "qr")


def _without_effects(rows: Rows, by_qr: bool, meter: Meter) -> Compressed:
    """The rows less the effects of their groups: of one label in the pass that finds these, of several in one more."""
    groups, K = rows.absorb, rows.design.n_equations
    assert groups is not None
    kernel = root_kernel if by_qr else gram_kernel
    if len(groups.names) == 1 and rows.design.absorbed is None:
        size = partial_bytes(rows.design) + rows.group_bytes
        of_groups = GroupKernel(groups.n_groups, kernel)
        found: WithinMoments = run_pass(
            rows, of_groups, None, partial_bytes=size, meter=meter, label=COMPRESS, less_effects=False
        )
        sums, cross = found.groups, found.cross
        absorbed = absorbed_of(sums, groups, K)
        rows = replace(rows, design=replace(rows.design, absorbed=absorbed))
        n_rows, weight, log_weight = sums.n_rows, sums.weight, sums.log_weight
    else:
        rows = with_effects(rows, meter)
        moments = _sum_over(rows, kernel, "", COMPRESS, meter, None)
        n_rows, weight, log_weight = moments.head.n_rows, moments.head.weight, moments.head.log_weight
        cross = moments.root if by_qr else moments.cross
    squares, none = np.sum(cross**2, axis=0) if by_qr else cross.diagonal(), np.zeros(rows.design.n_regressors + K)
    design = rows.design.beside_effects(squares[:-K], weight)
    head = Head(n_rows, weight, log_weight, none, none)
    with blas_for(len(none)):
        made = Compressed(design, head, cross if by_qr else root_of(cross), "qr" if by_qr else "gram")
        if by_qr or smallest_pivot(made) > LOST_DIGITS:
            return made
    return _without_effects(rows, True, meter)


def smallest_pivot(system: Compressed) -> float:
    """The least squared pivot, between 0 and 1, of any equation's centred and scaled columns or response.

    It is 1 / (variance inflation) for a regressor and 1 - R^2 for a response: the gram route leaves about
    sixteen digits less -log10 of it.
    """
    q = system.design.n_regressors
    norms = np.linalg.norm(system.root, axis=0)
    least = 1.0
    for group in system.design.groups:
        columns = group.columns[norms[group.columns] > 0]
        if len(columns) == 0:
            continue
        scaled = system.root[:q, columns] / norms[columns]
        basis, upper = np.linalg.qr(scaled)
        least = min(least, float(np.linalg.svd(upper, compute_uv=False)[-1]) ** 2)
        responses = q + group.equations[norms[q + group.equations] > 0]
        explained = np.sum((basis.T @ system.root[:q, responses]) ** 2, axis=0) / norms[responses] ** 2
        least = min(least, float(1.0 - explained.max(initial=0.0)))
    return least


def residual_rows(system: Compressed, coefficients: np.ndarray) -> np.ndarray:
    """(r + 1, K) with rows'rows = R'R, the residuals R of given coefficients in the user's units; the mean is first."""
    q = system.design.n_regressors
    rows = system.stacked()
    residual = rows[:, q:].copy()
    for group in system.design.groups:
        residual[:, group.equations] -= rows[:, group.columns] @ coefficients[group.coefficients]
    return residual


def mean_nll(system: Compressed, coefficients: np.ndarray, sigma: Sigma) -> float:
    """Negative log-likelihood per row of given parameters, in the user's units, on the rows `system` stands for."""
    residual = residual_rows(system, coefficients)
    weights = 0.5 * system.design.n_equations * system.head.log_weight / system.n_obs
    return sigma.nll(residual.T @ residual / system.n_obs) - weights
