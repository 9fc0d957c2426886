"""What a fit reads, touches and multiplies, by engine, and the seconds that takes at given rates.

Which of two engines is the faster is told from nominal rates, so that the same data are fitted by the same engine, with
the same digits, on every machine. The seconds that a plan shows are those of the machine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lrgls_dask.design.design import Design
from lrgls_dask.plan.rates import Rates
from lrgls_dask.rows.memory import MAX_COEFFICIENTS

__all__ = ["Work", "compress_work", "stream_work"]

SHARED_MEMORY = 1.6  # what threads that share memory and bring blocks to it take of what one takes alone in a cache
ROUNDS = 60  # products with X and its transpose of a fit whose equations have columns of their own
LOOKS = 360  # products with S of a search for Sigma


@dataclass(frozen=True)
class Work:
    """What a fit takes beside reading, whatever the machine.

    numbers, flops : of all passes together, see `Rates`.  tasks : the most that may run at a time.  client_flops,
    client_bytes : afterwards, on one thread of the client.
    """

    numbers: float
    flops: float
    tasks: int
    client_flops: float
    client_bytes: float

    def seconds(self, rates: Rates, n_threads: int, reading: float) -> float:
        """On so many threads in all.  reading : seconds of reading, which goes on beside the arithmetic."""
        threads = max(1, min(n_threads, self.tasks))
        at_work = SHARED_MEMORY * (self.numbers / rates.numbers + self.flops / rates.flops) / threads
        return max(at_work, reading) + self.client_flops / rates.flops + self.client_bytes / rates.memory

    def times(self, share: float) -> Work:
        """So many times the passes."""
        return replace(self, numbers=share * self.numbers, flops=share * self.flops)


def compress_work(design: Design, n_obs: int, tasks: int, *, by_rows: bool = False) -> Work:
    """One pass of cross-products, then everything from q + K rows.

    by_rows : whether these are fewer than equations and residual products are never formed.
    """
    width, K = design.n_regressors + design.n_equations, design.n_equations
    height = min(width, n_obs)
    formed = 8 * K * (2 * n_obs if by_rows else K)
    own = 0.0 if len(design.groups) == 1 else 8.0 * ROUNDS * min(design.n_regressors, height) * design.n_coefficients
    return Work(
        numbers=float(n_obs) * width,
        flops=float(n_obs) * width * height,
        tasks=tasks,
        client_flops=float(width) * height**2 / 3 + _errors(design),
        client_bytes=LOOKS * float(formed) + own,
    )


def stream_work(design: Design, n_obs: int, tasks: int, *, passes: int, dense: bool) -> Work:
    """A first pass of each equation's own cross-products, then residuals and what they say of coefficients and Sigma.

    dense : whether residual products (K, K) are summed.
    """
    width, K = design.n_regressors + design.n_equations, design.n_equations
    own = sum(len(g.columns) * (len(g.columns) + len(g.equations)) for g in design.groups)
    later = 4.0 * design.n_coefficients + (1.5 * K**2 if dense else 60.0 * K)
    return Work(
        numbers=float(n_obs) * width * passes,
        flops=float(n_obs) * (2.0 * own + (passes - 1) * later),
        tasks=tasks,
        client_flops=2.0 * sum(float(len(g.columns)) ** 3 for g in design.groups) + 2.0 * _errors(design),
        client_bytes=LOOKS * 8.0 * (K**2 if dense else 60.0 * K),
    )


def _errors(design: Design) -> float:
    """Of the inverse of (P, P) numbers behind standard errors, where equations have columns of their own."""
    P = design.n_coefficients
    return float(P) ** 3 if len(design.groups) > 1 and P <= MAX_COEFFICIENTS else 0.0
