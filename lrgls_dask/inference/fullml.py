"""Log-likelihoods at their maxima that fitted ones are compared with, from compressed rows."""

from __future__ import annotations

from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.rows.meter import Meter
from lrgls_dask.sigma.full import Full
from lrgls_dask.sigma.interface import Structure
from lrgls_dask.sigma.structures import diagonal
from lrgls_dask.solve.in_memory import InMemory
from lrgls_dask.solve.record import Options, Termination
from lrgls_dask.solve.selection import choose

__all__ = ["diagonal_loglik", "full_loglik"]

REL_TOL = 1e-12  # a likelihood ratio is a difference of two large numbers
MAX_SWEEPS = 2000


def full_loglik(system: Compressed, restrictions: Restrictions | None = None) -> float:
    """max over b, within restrictions, and an unrestricted Sigma of the log-likelihood; as covariance="full" runs.

    Raises ValueError where no maximum exists, or the sweeps do not get to it.
    """
    return _most(system, Full(), restrictions, "an unrestricted Sigma")


def diagonal_loglik(system: Compressed, restrictions: Restrictions) -> float:
    """The same of a diagonal Sigma; without restrictions it is every equation's own least squares."""
    return _most(system, diagonal(), restrictions, "a diagonal Sigma")


def _most(system: Compressed, structure: Structure, restrictions: Restrictions | None, what: str) -> float:
    problem = InMemory(system, lam_B=0.0, meter=Meter(), restrictions=restrictions)
    solution, _ = choose(problem, (structure,), Options(rel_tol=REL_TOL, max_sweeps=MAX_SWEEPS))
    if solution.termination is not Termination.CONVERGED:
        raise ValueError(
            f"the maximum likelihood of {what} was not reached in {MAX_SWEEPS} sweeps; it may have none "
            "on these data. Use fewer equations or more rows."
        )
    return -system.n_obs * (solution.nll + problem.nll_offset)
