"""Classical covariances of a streamed fit that kept no X'X: the rows it was fitted to are read again when asked."""

from __future__ import annotations

from typing import Protocol

from lrgls_dask.inference.by_passes import CovByPasses, LeastSquaresByPasses
from lrgls_dask.inference.gradient_pass import check_rows
from lrgls_dask.results.parts import Estimated, OneSigma, Settings
from lrgls_dask.rows.fingerprint import Fingerprint
from lrgls_dask.rows.memory import room_for_passes
from lrgls_dask.rows.meter import Meter
from lrgls_dask.solve.fingerprint import fingerprint_of
from lrgls_dask.solve.streamed import Streamed
from lrgls_dask.system import System

__all__ = ["by_passes"]


class StreamedFit(Protocol):
    """What is asked of a fit."""

    @property
    def estimated(self) -> Estimated: ...

    @property
    def settings(self) -> Settings: ...

    @property
    def one_sigma(self) -> OneSigma: ...


def by_passes(fit: StreamedFit, system: System, fitted: Fingerprint | None) -> CovByPasses | LeastSquaresByPasses:
    """Of the rows of the fit, which one pass tells from others.  fitted : by which, None where that was not kept.

    Raises ValueError for other rows.
    """
    how = fit.settings
    problem = Streamed(
        system.rows, lam_B=how.lam_B, meter=Meter(), dense=False, keeps_x=False, restrictions=how.restrictions
    )
    check_rows(problem.n_obs, fit.estimated.n_obs)
    if fitted is not None:
        found = fingerprint_of(problem.design, [problem.group_rows], [problem.head], fitted.edges, fitted)
        fitted.check(found, problem.design)
    if how.algorithm == "ols":
        return LeastSquaresByPasses(problem, fit.one_sigma.value)
    return CovByPasses(problem, fit.one_sigma.value, room_for_passes(problem.rows, how.options.get("memory_limit")))
