"""From what a loop ended with to a fit in the user's units and labels, and the warning that goes with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np

from lrgls_dask.design.restrictions import without_variance
from lrgls_dask.errors import FitWarning, warn_user
from lrgls_dask.inference import SumsOfSquares, sums_of_squares
from lrgls_dask.missing.any_structure import chosen_structure
from lrgls_dask.missing.covariance import gls_covariance, least_squares_covariance
from lrgls_dask.missing.crossvalidate import ShownFolds
from lrgls_dask.missing.fit import choose_incomplete, estimate_of
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.missing.starts import pairs_never_seen
from lrgls_dask.results.evidence import CellsOfRows, CompressedRows, Evidence, StreamedSums
from lrgls_dask.results.fit import Fit
from lrgls_dask.results.parts import BehindErrors, Candidates, Estimated, OneSigma, Run, Settings
from lrgls_dask.results.time_varying import TimeVaryingFit
from lrgls_dask.rows.memory import MAX_COEFFICIENTS
from lrgls_dask.rows.meter import Meter
from lrgls_dask.sigma.identified import max_rank
from lrgls_dask.sigma.interface import Structure
from lrgls_dask.solve.checkpoint import Checkpoint
from lrgls_dask.solve.fingerprint import fingerprint_of
from lrgls_dask.solve.interface import Problem
from lrgls_dask.solve.record import Options, Point, Solution, Termination, TraceRow
from lrgls_dask.solve.whiten import GRAM_RESOLUTION
from lrgls_dask.system import CompressedSystem, System
from lrgls_dask.varying.fit import SegmentsFitted

__all__ = ["as_fit", "as_time_varying_fit", "fit_incomplete_rows", "warn_of"]


def as_fit(
    problem: Problem,
    solution: Solution[Point],
    settings: Settings,
    table: Candidates,
    system: System | CompressedSystem,
) -> Fit:
    """The solution of complete rows in the user's units; streamed, X'X may take one more pass.

    table : one row for each candidate that it was chosen from.
    """
    scale, sigma = problem.whitened.y_scale, solution.point.sigma
    coefficients = problem.whitened.coefficients(problem.coordinates.by_group(solution.point.c))
    evidence = _evidence(problem, coefficients, settings)
    loglik = -problem.n_obs * (solution.nll + problem.nll_offset)
    objective = solution.obj + problem.nll_offset
    engine: Literal["compress", "stream"] = "compress" if problem.restarts_are_free else "stream"
    return Fit(
        _estimated(system, coefficients, problem.n_obs, loglik, objective),
        _one_sigma(system, sigma.rescaled(scale).normalised(), scale, sigma.on_floor(settings.d_floor)),
        settings,
        _run(solution, problem.meter, engine, table, _dropped(settings, system, problem.n_obs)),
        evidence,
        system=system if isinstance(system, System) else None,
        read_from=system.read_from if isinstance(system, CompressedSystem) else frozenset(),
    )


def _evidence(problem: Problem, coefficients: np.ndarray, settings: Settings) -> Evidence:
    """The rows that were compressed, or what a streamed fit has summed."""
    x_rows = problem.x_rows()
    if problem.compressed is not None:
        return CompressedRows(problem.compressed)
    sums = sums_of_squares(problem.group_rows, coefficients, problem.resolution, settings.restrictions)
    return StreamedSums(x_rows, sums, fingerprint_of(problem.design, [problem.group_rows], [problem.head]))


def _estimated(
    system: System | CompressedSystem, coefficients: np.ndarray, n_obs: int, loglik: float, objective: float
) -> Estimated:
    said = str(system.obs_dim), str(system.equation_dim), system.rows.weighted, system.formulas
    return Estimated(system.design, coefficients, n_obs, loglik, objective, *said)


def _one_sigma(system: System | CompressedSystem, sigma: Any, y_scale: np.ndarray, floored: np.ndarray) -> OneSigma:
    return OneSigma(sigma, y_scale, tuple(system.design.equations[j] for j in np.flatnonzero(floored)))


def _run(
    found: Solution[Point], meter: Meter, engine: Literal["compress", "stream"], table: Candidates, n_dropped: int
) -> Run:
    return Run(
        found.termination,
        _with_last_read(found.trace, meter),
        engine,
        meter.passes,
        meter.bytes_read,
        found.n_starts,
        found.n_agreed,
        n_dropped,
        table,
    )


def _dropped(settings: Settings, system: System | CompressedSystem, n_obs: int) -> int:
    """Rows that were left out for a missing response."""
    return system.n_obs - n_obs if settings.missing == "drop" else 0


def _with_last_read(history: tuple[TraceRow, ...], meter: Meter) -> tuple[TraceRow, ...]:
    """The trace with the pass that standard errors took after the loop, if they took one."""
    last = history[-1]
    passes, bytes_read = meter.totals
    if passes == last.passes:
        return history
    read_for = meter.read_for(last.passes)
    moved = replace(last, step="covariance", accept_t=1.0, cg_iterations=0, read_for=read_for)
    return (*history, replace(moved, passes=passes, bytes_read=bytes_read, seconds=meter.seconds))


# ---------------------------------------------------------------------------------------------- missing responses


def fit_incomplete_rows(
    problem: Incomplete,
    system: System | CompressedSystem,
    structures: tuple[Structure, ...],
    options: Options,
    settings: Settings,
    checkpoint: Checkpoint | None,
    *,
    with_cov: bool,
    by_bic: bool = False,
    folds: ShownFolds | None = None,
) -> tuple[Fit, list[str]]:
    """Maximum likelihood from the responses that are observed, and what to warn of.

    The covariance of the coefficients at its Sigma comes with the fit: one pass, if streamed.
    checkpoint : where streamed rounds keep their last point. The first pass, which is all that few patterns take, is
    made again.
    by_bic : whether the data choose among the family of the only structure.  folds : of rows, where these choose.
    with_cov : whether that covariance fits in memory; without it the fit has no standard errors.
    """
    path: Candidates = ()
    structures = tuple(each.in_units(problem.whitened.y_scale) for each in structures)
    if by_bic:
        chosen, path = chosen_structure(problem, structures[0], options)
        structures, settings = (chosen,), replace(settings, l1=chosen.l1)
    with_cov = with_cov and problem.design.n_coefficients <= MAX_COEFFICIENTS
    informed = with_cov and options.algorithm != "ols"  # whose errors take other sums
    found, table = choose_incomplete(problem, structures, options, checkpoint, folds, informed=informed)
    rank = 0 if structures[0].fixed else found.point.sigma.rank
    pairs = pairs_never_seen(problem, rank)  # a pass, where the start of the rounds was kept
    estimate = estimate_of(problem, found, options)
    cov = _gls(problem, found, options) if with_cov else None
    engine: Literal["compress", "stream"] = "compress" if problem.restarts_are_free else "stream"
    floored = np.isin(np.arange(system.n_equations), estimate.on_floor)
    fit = Fit(
        _estimated(system, estimate.coefficients, problem.n_obs, estimate.loglik, estimate.objective),
        _one_sigma(system, estimate.covariance, problem.whitened.y_scale, floored),
        settings,
        _run(found, problem.meter, engine, path or table, 0),
        CellsOfRows(
            problem.cells.astype(np.int64),
            problem.n_patterns,
            problem.restarts_are_free,
            problem.fingerprint(),
            _squares(problem, estimate.coefficients, settings),
            problem.compressed,
        ),
        BehindErrors(values=cov if cov is None else without_variance(cov, settings.restrictions)),
        system,
    )
    return fit, [pairs] if pairs else []


def _squares(problem: Incomplete, coefficients: np.ndarray, settings: Settings) -> SumsOfSquares | None:
    """Of each equation over its own rows."""
    if not problem.knows_constants:
        return None
    return sums_of_squares(problem.group_rows, coefficients, GRAM_RESOLUTION, settings.restrictions)


def _gls(problem: Incomplete, found: Solution[Point], options: Options) -> np.ndarray:
    sigma, totals = found.point.sigma, problem.meter.totals
    again = found.informed and not problem.knows_information(sigma)
    cov = (least_squares_covariance if options.algorithm == "ols" else gls_covariance)(problem, sigma)
    if again:  # an earlier client summed it in its last look: made again, which counts as that look
        problem.meter.go_on_from(totals)
    return cov


# ---------------------------------------------------------------------------------------------- segments


def as_time_varying_fit(fitted: SegmentsFitted, settings: Settings, system: System, meter: Meter) -> TimeVaryingFit:
    """What the loop over segments ended with, labelled; warns where it did not converge or a segment has no errors."""
    found, sigmas = fitted.found, fitted.sigmas
    notes = list(found.notes)
    if not found.converged:
        plural = "" if found.n_sweeps == 1 else "s"
        notes.append(
            f"not converged after {found.n_sweeps} sweep{plural}: raise max_sweeps, or rel_tol if this "
            "precision is enough"
        )
    if notes:
        warn_user("LowRankGLS: " + "; ".join(notes) + ".", FitWarning)
    run = Run(
        found.termination,
        found.rows,
        "compress",
        meter.passes,
        meter.bytes_read,
        n_dropped=_dropped(settings, system, found.n_obs),
        candidates=tuple(
            {"bandwidth": score.bandwidth, "held_out_nll": score.held_out_nll}
            for score in sorted(fitted.scores, key=lambda score: score.bandwidth)
        ),
    )
    return TimeVaryingFit(
        _estimated(system, found.coefficients, found.n_obs, found.loglik, -found.loglik / found.n_obs),
        sigmas,
        settings,
        run,
        BehindErrors(values=fitted.cov),
        compressed_segments=fitted.segments,
        system=system,
        fingerprint=fitted.fingerprint,
    )


# ---------------------------------------------------------------------------------------------- warnings


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
            "its idiosyncratic variance sits on d_floor; drop the equation or the regressor that reproduces it, or "
            "use unusable='skip', which leaves out constant responses"
        )
    if heywood:
        notes.append(
            f"idiosyncratic variance on d_floor (Heywood case) in {_listed(heywood)}: "
            "a smaller rank may describe these data as well"
        )
    notes += fit.covariance.warnings() + _at_the_edge(fit)
    if notes:
        warn_user("LowRankGLS: " + "; ".join(notes) + ".", FitWarning)


def _at_the_edge(fit: Fit) -> list[str]:
    """That the best number of factors is the most that was tried, where nobody said how many to try and more are
    identified."""
    tried = [int(row["rank"]) for row in fit.run.candidates if "rank" in row and "l1" not in row]
    most = max_rank(fit.design.n_equations)
    if len(tried) < 2 or not fit.rank == tried[-1] < most or fit.settings.options.get("ranks") is not None:
        return []
    beyond = f"range({tried[-1]}, {min(2 * tried[-1], most) + 1})"
    return [f"rank {fit.rank} is the most that was tried, and more may do better: use ranks={beyond} to see"]


def _listed(names: list[Any]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return f"equation{'s' if len(names) > 1 else ''} {shown}" + (
        f" and {len(names) - 5} more" if len(names) > 5 else ""
    )
