"""A fit whose factors vary in time, from compressed segments: no pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.design.penalties import Ridge
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.rows.meter import Meter
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.pca import aligned
from lrgls_dask.solve.iterate import run
from lrgls_dask.solve.record import Termination, TraceRow
from lrgls_dask.varying.als import LocalSweeps
from lrgls_dask.varying.carried import Carried
from lrgls_dask.varying.segments import kernel_weights, posed, segment_times
from lrgls_dask.varying.windows import Segments

__all__ = ["TimeVaryingSolution", "fit_time_varying"]


@dataclass(frozen=True, eq=False)
class TimeVaryingSolution:
    """Common coefficients and one Sigma a segment.

    coefficients : (P,) in the user's units, equation by equation.  sigmas : T values in the user's units, their
    loadings rotated to be nearest to those of the segment before.  shares : (T,) n_t / N.
    segment_rows : (T,) n_t, that show something.  cells : (T, K) those of them that show each equation.
    nll : sum_t (n_t / N) nll(Sigma_t; S_t(b)), row weights and units included; loglik = -N nll.
    notes : what there is to warn of, about segments without errors.
    n_sigma_parameters : sum_t of a Sigma's parameters times the weight of segment t in its own S_t(h), between those of
    one Sigma (static) and of T (segments apart), for information criteria (Loader 1999, section 4.4).
    segments : the compressed rows of each, none where rows have holes.
    rows : the trace of the loop, whose objective is the local likelihood sum_t (n_t / N) nll(Sigma_t; S_t(h; b)), in
    standard units.
    """

    coefficients: np.ndarray
    sigmas: tuple[LowRank, ...]
    bandwidth: float
    shares: np.ndarray
    segment_rows: np.ndarray
    cells: np.ndarray
    n_obs: int
    nll: float
    n_sigma_parameters: float
    segments: tuple[Compressed, ...] = field(repr=False)
    rows: tuple[TraceRow, ...] = field(repr=False)
    termination: Termination
    notes: list[str] = field(default_factory=list)

    @property
    def loglik(self) -> float:
        """Log-likelihood of all rows, each under the Sigma of its segment."""
        return -self.n_obs * self.nll

    @property
    def converged(self) -> bool:
        return self.termination is Termination.CONVERGED

    @property
    def trace(self) -> tuple[float, ...]:
        """Per sweep the local likelihood once its Sigma_t are found."""
        return tuple(row.nll for row in self.rows if row.step == "sigma")

    @property
    def n_sweeps(self) -> int:
        return self.rows[-1].sweep

    @cached_property
    def loadings(self) -> np.ndarray:
        """(T, K, k)."""
        return np.stack([sigma.F for sigma in self.sigmas])

    @cached_property
    def idio_var(self) -> np.ndarray:
        """(T, K)."""
        return np.stack([sigma.d for sigma in self.sigmas])


def fit_time_varying(
    segments: Sequence[Compressed] | Segments,
    rank: int,
    bandwidth: float,
    *,
    labels: Sequence[Any] | None = None,
    positions: np.ndarray | None = None,
    lam_B: Ridge = 0.0,
    restrictions: Restrictions | None = None,
    d_floor: float = 1e-8,
    rel_tol: float = 1e-10,
    max_sweeps: int | None = None,
    meter: Meter | None = None,
) -> TimeVaryingSolution:
    """Coefficients common to all segments and a Sigma_t = F_t F_t' + diag(d_t) for each, from rows in memory: no pass.

    segments : T systems of the same equations in the order of time, as `compress_by` makes them in one pass; or those
        of rows with holes, posed with their own ridge and restrictions.
    labels : what messages call them, by default their numbers.
    bandwidth : in units of `positions`, (T,) increasing, by default 0 .. T - 1; 0 and infinity are allowed.
    meter : of the pass that made the segments, for the trace.
    Costs a Sigma step for every segment and one GLS solution a sweep; T K^2 numbers.
    Raises ValueError for a negative bandwidth, segments out of order, empty or of different equations, and for one that
    cannot carry a Sigma_t: without errors in some equation, or with too few rows.
    """
    problem = posed(segments, lam_B, restrictions)
    T = len(problem.shares)
    weights = kernel_weights(segment_times(positions, T), bandwidth)
    carried = Carried.of(problem, range(T) if labels is None else labels)
    if refusal := carried.refusal(weights, rank):
        raise ValueError(refusal)
    floor = np.full(problem.design.n_equations, d_floor)
    meter = Meter() if meter is None else meter
    step = LocalSweeps(problem, weights, rank, floor, rel_tol, max_sweeps, meter)
    found = run(step, step.point(problem.start()), step.goal())
    at = found.point
    followed = tuple(_followed(at.sigmas))
    own_weight = problem.shares / (weights @ problem.shares)
    each = [at.residuals.window(alone).nll(sigma) for alone, sigma in zip(np.eye(T), at.sigmas, strict=True)]
    nll = float(problem.shares @ each)
    on_floor = np.stack([sigma.on_floor(floor) for sigma in at.sigmas])
    return TimeVaryingSolution(
        problem.coefficients(at.c),
        tuple(sigma.rescaled(problem.y_scale) for sigma in followed),
        bandwidth,
        problem.shares,
        problem.rows,
        problem.cells,
        problem.n_obs,
        nll + problem.nll_offset,
        float(own_weight @ [sigma.n_parameters for sigma in followed]),
        tuple(segments) if isinstance(segments, Sequence) else (),
        found.trace,
        found.termination,
        carried.notes(weights, on_floor & ~problem.exact, rank),
    )


def _followed(sigmas: Sequence[LowRank]) -> list[LowRank]:
    """The same Sigma_t, loadings of the first in their normalisation, of each other nearest to the one before.

    Source: orthogonal Procrustes, Schonemann (1966).
    """
    out = [sigmas[0].normalised()]
    for sigma in sigmas[1:]:
        out.append(sigma if sigma.rank == 0 else LowRank(aligned(sigma.F, out[-1].F), sigma.d))
    return out
