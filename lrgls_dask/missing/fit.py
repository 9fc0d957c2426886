"""Fitting rows with missing responses: which options allow it, what the first pass decides, the `Fit` it ends in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lrgls_dask.compression.compressed import Compressed, compress_rows
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.inference.incomplete import gls_covariance
from lrgls_dask.missing.loop import choose_incomplete, estimate_of
from lrgls_dask.missing.patterns import first_pass
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.missing.starts import pairs_never_seen
from lrgls_dask.plan import Plan
from lrgls_dask.results import Fit
from lrgls_dask.rows.memory import MAX_COEFFICIENTS
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.run_pass import Meter
from lrgls_dask.sigma.interface import Structure
from lrgls_dask.sigma.structures import Factored, FactorStructure, widened
from lrgls_dask.solve.checkpoint import Checkpoint
from lrgls_dask.solve.record import Options, Solution
from lrgls_dask.solved import last_read
from lrgls_dask.system import CompressedSystem, System

__all__ = ["fit_incomplete_rows", "look", "with_missing"]


def look(
    rows: Rows, plan: Plan, lam_B: float, engine: str, meter: Meter, restrictions: Restrictions | None
) -> Incomplete | Compressed | None:
    """What the first pass makes of the rows: the problem with missing responses, or that there are none.

    Complete rows come compressed, or as None where they are to be streamed.
    Raises ValueError where engine="compress" is asked for and the patterns of missing responses are too many.
    """
    most = plan.most_patterns or 0
    first = first_pass(rows, meter=meter, most=most)
    if first.is_complete:
        if most == 0:
            return None
        return first.compressed(rows.design) or compress_rows(rows, meter=meter)
    if engine == "compress" and first.patterns is None:
        raise ValueError(
            f"engine='compress' keeps the rows of each pattern of missing responses apart, at most {most} patterns, "
            f"and these rows have more. Use engine='auto', which streams them."
        )
    return Incomplete(rows, lam_B=lam_B, meter=meter, first=first, restrictions=restrictions)


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
    chosen = tuple(each for each in structures if isinstance(each, FactorStructure))
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
    sigma = found.point.sigma
    assert isinstance(sigma, Factored)
    return gls_covariance(problem, widened(sigma))


def with_missing(fit: Fit, missing: str, n_rows: int) -> Fit:
    """The fit of so many rows, which says what became of those that miss responses."""
    return replace(fit, missing=missing, n_dropped=n_rows - fit.n_obs if missing == "drop" else 0)
