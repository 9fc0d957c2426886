"""What a fit of rows with missing responses asks of its rows later: covariances of the coefficients, likelihoods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from lrgls_dask.inference.incomplete import gls_covariance, observed_covariance
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.prediction.fitted import check_same_design
from lrgls_dask.rows.memory import MAX_COEFFICIENTS, require_memory
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.run_pass import Meter
from lrgls_dask.sigma.structures import Factored, widened
from lrgls_dask.system import System, complete_only

if TYPE_CHECKING:
    from lrgls_dask.assessed import Assessed
    from lrgls_dask.results import Fit
    from lrgls_dask.varying.result import TimeVaryingFit

__all__ = ["as_fitted", "incomplete_covariance", "observed_nll", "refuse_missing"]


def as_fitted(fit: Fit | TimeVaryingFit, system: System) -> System:
    """The system the way the fit saw its rows: with missing="drop" only the complete ones."""
    return complete_only(system) if fit.missing == "drop" else system


def refuse_missing(fit: Assessed, what: str, remedy: str) -> None:
    """Raise ValueError where the fit's rows miss responses: they cannot be stood for by q + K + 1 complete ones."""
    if fit.cells is not None:
        raise ValueError(
            f"{what} needs complete rows, and this fit has missing responses ({fit.n_cells:,} of "
            f"{fit.n_obs * fit.n_equations:,} observed). {remedy}."
        )


def incomplete_covariance(fit: Fit, rows: Rows, kind: Literal["classical", "observed"]) -> np.ndarray:
    """(P, P) covariance of the coefficients of a fit whose rows miss responses.

    The rows are read once where their patterns were compressed; streamed "classical" takes one pass more and "observed"
    two, the second with 2 K (k + 1) times the work of one.
    Raises ValueError for rows that are not those of the fit, MemoryError where P x P numbers do not fit.
    """
    check_same_design(rows.design, fit.design)
    _check_size(fit, rows)
    problem = Incomplete(
        rows,
        lam_B=fit.lam_B,
        meter=Meter(),
        most_patterns=0 if fit.engine == "stream" else None,
        restrictions=fit.restrictions,
    )
    if problem.n_obs != fit.n_obs or fit.cells is None or not np.array_equal(problem.cells, fit.cells):
        raise ValueError(
            f"these are not the rows that were fitted: {problem.n_cells:,} responses observed in {problem.n_obs:,} "
            f"rows, where the fit had {fit.n_cells:,} in {fit.n_obs:,}. Pass the System that was fitted."
        )
    sigma = _in_units_of(fit, problem)
    if kind == "classical":
        return gls_covariance(problem, widened(sigma))
    c = problem.whitened_coefficients(fit.coefficients)
    return observed_covariance(problem, c, sigma, lam_F=fit.lam_F, d_floor=fit.d_floor)


def observed_nll(fit: Fit, rows: Rows) -> float:
    """Negative log-likelihood of the fitted parameters, per row that shows something; one or two passes."""
    check_same_design(rows.design, fit.design)
    problem = Incomplete(rows, lam_B=0.0, meter=Meter())
    c = problem.whitened_coefficients(fit.coefficients)
    return problem.latent(c, widened(_in_units_of(fit, problem))).nll + problem.nll_offset


def _in_units_of(fit: Fit, problem: Incomplete) -> Factored:
    sigma = fit.covariance
    assert isinstance(sigma, Factored)  # no other is fitted to missing responses
    return sigma.rescaled(1.0 / problem.whitened.y_scale)


def _check_size(fit: Fit, rows: Rows) -> None:
    P = fit.n_coefficients
    if P > MAX_COEFFICIENTS:
        raise ValueError(
            f"the covariance of all {P} coefficients would take {8e-9 * P**2:.1f} GB and is limited to "
            f"{MAX_COEFFICIENTS}. Fit fewer equations at a time."
        )
    remedy = "Fit fewer equations at a time"
    held = 32 if fit.restrictions is None else 64
    require_memory(rows, 8 * P**2, held * P**2, f"the covariance of {P} coefficients", remedy)
