"""From the loop's solution to a `Fit`, and the warning that goes with it."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.errors import FitWarning
from lrgls_dask.inference import SumsOfSquares, sums_of_squares
from lrgls_dask.missing.covariance import gls_covariance
from lrgls_dask.missing.loop import choose_incomplete, estimate_of
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.missing.starts import pairs_never_seen
from lrgls_dask.results.fit import Fit
from lrgls_dask.rows.memory import MAX_COEFFICIENTS
from lrgls_dask.rows.run_pass import Meter
from lrgls_dask.sigma.interface import Structure
from lrgls_dask.sigma.structures import widened
from lrgls_dask.solve.checkpoint import Checkpoint
from lrgls_dask.solve.interface import Problem
from lrgls_dask.solve.record import Options, Solution, Termination, TraceRow
from lrgls_dask.system import CompressedSystem, System

__all__ = ["as_fit", "fit_incomplete_rows", "last_read", "warn_of", "with_missing"]


def fit_incomplete_rows(
    problem: Incomplete,
    system: System | CompressedSystem,
    structures: tuple[Structure, ...],
    options: Options,
    with_cov: bool,
    lam_F: float,
    checkpoint: Checkpoint | None,
) -> tuple[Fit, list[str]]:
    """Maximum likelihood from the responses that are observed, and what to warn of.

    checkpoint : where streamed rounds keep their last point. The first pass, which is all that few patterns take, is
    made again.
    with_cov : whether the covariance of the coefficients fits in memory; without it the fit has no standard errors.
    """
    assert isinstance(system, System)  # a compressed one has no rows to miss anything
    chosen = tuple(each.by_rows() for each in structures)
    found, table = choose_incomplete(problem, chosen, options, checkpoint)
    pairs = pairs_never_seen(problem, found.point.sigma.rank)  # a pass, where the start of the rounds was kept
    fit = _as_fit(problem, system, found, options, table, with_cov, lam_F)
    return fit, [pairs] if pairs else []


def _as_fit(
    problem: Incomplete,
    system: System,
    found: Solution,
    options: Options,
    table: tuple[dict[str, float], ...],
    with_cov: bool,
    lam_F: float,
) -> Fit:
    """The solution in the user's units, and the covariance of the coefficients at its Sigma: one pass, if streamed."""
    estimate = estimate_of(problem, found, options)
    cov = _gls(problem, found) if with_cov else None
    design = system.design
    return Fit(
        design=design,
        coefficients=estimate.coefficients,
        covariance=estimate.covariance,
        n_obs=problem.n_obs,
        loglik=estimate.loglik,
        objective=estimate.objective,
        termination=found.termination,
        history=last_read(found.trace, problem.meter),
        engine="compress" if problem.restarts_are_free else "stream",
        n_passes=problem.meter.passes,
        bytes_read=problem.meter.bytes_read,
        n_starts=found.n_starts,
        n_agreed=found.n_agreed,
        lam_B=options.lam_B,
        lam_F=lam_F,
        on_floor=tuple(design.equations[j] for j in estimate.on_floor),
        restrictions=problem.restrictions,
        y_scale=problem.whitened.y_scale,
        x_rows=None,
        compressed=None,
        d_floor=options.d_floor,
        candidates=table,
        algorithm=options.algorithm,
        obs_dim=str(system.obs_dim),
        equation_dim=str(system.equation_dim),
        system=system,
        cov_values=cov,
        cells=problem.cells.astype(np.int64),
        n_patterns=problem.n_patterns,
    )


def _gls(problem: Incomplete, found: Solution) -> np.ndarray | None:
    if problem.design.n_coefficients > MAX_COEFFICIENTS:
        return None
    return gls_covariance(problem, widened(found.point.sigma))


def with_missing(fit: Fit, missing: str, n_rows: int) -> Fit:
    """The fit of so many rows, which says what became of those that miss responses."""
    return replace(fit, missing=missing, n_dropped=n_rows - fit.n_obs if missing == "drop" else 0)


def as_fit(
    problem: Problem,
    solution: Solution,
    options: Options,
    engine: Literal["compress", "stream"],
    table: tuple[dict[str, float], ...],
    system: System | CompressedSystem,
    restrictions: Restrictions | None,
    sigma_step: Literal["ml", "pca"],
    lam_F: float,
    l1: float = 0.0,
) -> Fit:
    """The solution in the user's units."""
    design, scale = problem.design, problem.whitened.y_scale
    coefficients = problem.whitened.coefficients(problem.coordinates.by_group(solution.point.c))
    x_rows = problem.x_rows()
    history = last_read(solution.trace, problem.meter)
    floored = np.flatnonzero(solution.point.sigma.on_floor(options.d_floor))
    return Fit(
        design=design,
        coefficients=coefficients,
        covariance=solution.point.sigma.rescaled(scale).normalised(),
        n_obs=problem.n_obs,
        loglik=-problem.n_obs * (solution.nll + problem.nll_offset),
        objective=solution.obj + problem.nll_offset,
        termination=solution.termination,
        history=history,
        engine=engine,
        n_starts=solution.n_starts,
        n_agreed=solution.n_agreed,
        lam_B=options.lam_B,
        lam_F=lam_F,
        sigma_step=sigma_step,
        d_floor=options.d_floor,
        l1=l1,
        on_floor=tuple(design.equations[j] for j in floored),
        y_scale=scale,
        x_rows=x_rows,
        compressed=problem.compressed,
        sums=_sums_of_squares(problem, coefficients),
        n_passes=problem.meter.passes,
        bytes_read=problem.meter.bytes_read,
        candidates=table,
        algorithm=options.algorithm,
        debiased=options.debiased,
        restrictions=restrictions,
        obs_dim=str(system.obs_dim),
        equation_dim=str(system.equation_dim),
        system=system if isinstance(system, System) else None,
    )


def _sums_of_squares(problem: Problem, coefficients: np.ndarray) -> SumsOfSquares | None:
    """What R2 needs of a fit that keeps no rows; others have it from their rows when it is asked for."""
    if problem.compressed is not None:
        return None
    return sums_of_squares(problem.group_rows, coefficients, problem.resolution)


def last_read(history: tuple[TraceRow, ...], meter: Meter) -> tuple[TraceRow, ...]:
    """The trace with the pass that standard errors took after the loop, if they took one."""
    last = history[-1]
    if meter.passes == last.passes:
        return history
    moved = replace(last, step="covariance", accept_t=1.0, cg_iterations=0)
    return (*history, replace(moved, passes=meter.passes, bytes_read=meter.bytes_read, seconds=meter.seconds))


def warn_of(fit: Fit, is_exact: np.ndarray, notes: list[str]) -> None:
    """One warning that says all there is to say.

    is_exact : (K,) whether an equation was fitted exactly.  notes : what else there is to say.
    """
    notes = list(notes)
    if fit.termination is Termination.MAX_SWEEPS:
        sweeps = "1 sweep" if fit.n_sweeps == 1 else f"{fit.n_sweeps} sweeps"
        notes.append(f"not converged after {sweeps}: raise max_sweeps, or rel_tol if this precision is enough")
    if fit.termination is Termination.STALLED:
        notes.append("stalled: no step of the factor update lowered the objective; try sigma_step='ml'")
    exact = [fit.design.equations[j] for j in np.flatnonzero(is_exact)]
    heywood = [name for name in fit.on_floor if name not in exact]
    if exact:
        notes.append(
            f"a constant response or a perfect fit in {_listed(exact)}: the residual variance is zero to rounding and "
            "its idiosyncratic variance sits on d_floor; drop the equation or the regressor that reproduces it"
        )
    if heywood:
        notes.append(
            f"idiosyncratic variance on d_floor (Heywood case) in {_listed(heywood)}: "
            "a smaller rank may describe these data as well"
        )
    notes += fit.covariance.warnings()
    if notes:
        warnings.warn("LowRankGLS: " + "; ".join(notes) + ".", FitWarning, stacklevel=3)


def _listed(names: list[Any]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return f"equation{'s' if len(names) > 1 else ''} {shown}" + (
        f" and {len(names) - 5} more" if len(names) > 5 else ""
    )
