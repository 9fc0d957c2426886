"""The log-likelihood of an unrestricted Sigma at its maximum, from compressed rows."""

from __future__ import annotations

from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.rows.run_pass import Meter
from lrgls_dask.sigma.full import Full
from lrgls_dask.solve.in_memory import InMemory
from lrgls_dask.solve.record import Options, Termination
from lrgls_dask.solve.selection import choose

__all__ = ["full_loglik"]

REL_TOL = 1e-12  # a likelihood ratio is a difference of two large numbers
MAX_SWEEPS = 2000


def full_loglik(system: Compressed) -> float:
    """max over b and an unrestricted Sigma of the log-likelihood; sweeps of the loop that covariance="full" runs.

    Raises ValueError where no maximum exists, or the sweeps do not get to it.
    """
    problem = InMemory(system, lam_B=0.0, meter=Meter())
    solution, _ = choose(problem, (Full(),), Options(rel_tol=REL_TOL, max_sweeps=MAX_SWEEPS))
    if solution.termination is not Termination.CONVERGED:
        raise ValueError(
            f"the maximum likelihood of an unrestricted Sigma was not reached in {MAX_SWEEPS} sweeps; it may have none "
            "on these data. Use fewer equations or more rows."
        )
    return -system.n_obs * (solution.nll + problem.nll_offset)
