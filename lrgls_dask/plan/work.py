"""What a fit reads, touches and multiplies, by engine, and the seconds that takes at given rates.

Which of two engines is the faster is told from nominal rates, so that the same data are fitted by the same engine, with
the same digits, on every machine. The seconds that a plan shows are those of the machine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lrgls_dask.design.design import Design
from lrgls_dask.plan.rates import Rates

__all__ = ["Work", "compress_work", "errors_work", "rounds_work", "stream_work"]

SHARED_MEMORY = 1.6  # what threads that share memory and bring blocks to it take of what one takes alone in a cache
# Of equations with columns of their own: how often a fit touches their columns of q rows, in products with X and its
# transpose, at twice the rate of numbers, and to factor them; and how often the few rows that stand for S.
ROUNDS, WHITENED, KEPT = 40, 20, 6
COPIES = 5  # of a matrix that is factored: scaled, its triangle taken, put in place
# Of a pass after the first, what it takes of a number of the first, which is centred, scaled and looked at: where all
# equations have the same columns, and where each has its own, which are gathered.
LATER_SAME, LATER_OWN = 0.4, 0.75
COPIED = 2  # as many numbers, of rows that stay rows, are moved: less their mean, and together
OF_EQUATION = 4_000  # numbers that could be touched while an equation is named, checked and given its place
# Of a search for Sigma: points looked at, products with S of each, and arrays like S that each reads or writes beside.
POINTS, PRODUCTS, ARRAYS = 11, 23, 8
EIGEN = 20.0  # multiplications, of the cube of K, of all eigenpairs; as often where there are so few equations
EXACT, EXACT_UP_TO = 6, 400
LOOKS = POINTS * (PRODUCTS + ARRAYS)
ROUND = 5.0  # as long as a number of the first pass takes, one in a round of EM that misses responses
VECTORS = 4  # of a row, whose products the information of all coefficients sums: one for each factor
INVERTED = 6.0  # multiplications, of the cube of P, of a covariance from an information; as measured


@dataclass(frozen=True)
class Work:
    """What a fit takes beside reading, whatever the machine.

    numbers, flops : of all passes together, see `Rates`.  tasks : the most that may run at a time.  client_flops,
    client_numbers, client_bytes : afterwards, on one thread of the client.  after : one pass more, over X alone.
    """

    numbers: float
    flops: float
    tasks: int
    client_flops: float
    client_numbers: float
    client_bytes: float
    after: Work | None = None

    def seconds(self, rates: Rates, n_threads: int, reading: float) -> float:
        """On so many threads in all.  reading : seconds of reading, which goes on beside the arithmetic."""
        threads = max(1, min(n_threads, self.tasks))
        at_work = SHARED_MEMORY * (self.numbers / rates.numbers + self.flops / rates.flops) / threads
        client = (
            self.client_numbers / rates.numbers + self.client_flops / rates.flops + self.client_bytes / rates.memory
        )
        after = 0.0 if self.after is None else self.after.seconds(rates, n_threads, 0.0)
        return max(at_work, reading) + client + after

    def times(self, share: float) -> Work:
        """So many times the passes."""
        return replace(self, numbers=share * self.numbers, flops=share * self.flops)


def compress_work(design: Design, n_obs: int, tasks: int, *, by_rows: bool = False) -> Work:
    """One pass of cross-products, then everything from q + K rows.

    by_rows : whether these are fewer than equations and residual products are never formed.
    """
    q, width, K = design.n_regressors, design.n_regressors + design.n_equations, design.n_equations
    height, below = min(width, n_obs), max(0, min(K, n_obs - q))
    factored = width if n_obs > width else 0  # fewer rows stay rows
    flops, n_bytes = _search(K, height if by_rows else None)
    flops += factored**3 / 3 + (0.0 if by_rows else float(below) * K**2)
    n_bytes += COPIES * 16.0 * factored**2
    own = 0.0 if len(design.groups) == 1 else (ROUNDS / 2 + WHITENED) * float(min(q, height)) * design.n_coefficients
    return Work(
        numbers=float(n_obs) * width,
        # only X is reduced of rows that stay rows, and X of no more rows than columns not either
        flops=float(n_obs) * (width * height if factored else 2.0 * width * (q if height > q else 0)),
        tasks=tasks,
        client_flops=flops,
        client_numbers=own + (KEPT * float(height) * K if by_rows else 0.0) + OF_EQUATION * K,
        client_bytes=n_bytes,
    )


def stream_work(design: Design, n_obs: int, tasks: int, *, passes: int, dense: bool, x_tasks: int = 0) -> Work:
    """A first pass of each equation's own cross-products, then residuals and what they say of coefficients and Sigma.

    dense : whether residual products (K, K) are summed.  x_tasks : tasks of a pass for X'X, 0 where there is none.
    """
    q, K = design.n_regressors, design.n_equations
    own = sum(len(g.columns) * (len(g.columns) + len(g.equations)) for g in design.groups)
    same = len(design.groups) == 1
    # residuals and their products; where equations differ also what these say of the coefficients
    later = 2.0 * design.n_coefficients + K**2 if same else 4.0 * design.n_coefficients + 1.5 * K**2
    if not dense:
        later = (2.0 if same else 4.0) * design.n_coefficients + 60.0 * K
    touched = 1.0 + (LATER_SAME if same else LATER_OWN) * (passes - 1)
    flops, n_bytes = _search(K, None) if dense else (0.0, LOOKS * 8.0 * 60.0 * K)
    return Work(
        numbers=float(n_obs) * (q + K) * touched,
        flops=float(n_obs) * (2.0 * own + (passes - 1) * later),
        tasks=tasks,
        client_flops=flops + 2.0 * sum(float(len(g.columns)) ** 3 for g in design.groups),
        client_numbers=float(OF_EQUATION * K),
        client_bytes=n_bytes,
        after=_of_regressors(q, n_obs, x_tasks) if x_tasks else None,
    )


def rounds_work(design: Design, n_obs: int, tasks: int, *, passes: int) -> Work:
    """Passes over rows that miss responses of more equations than pairs are summed of: a round of EM each."""
    width, K = design.n_regressors + design.n_equations, design.n_equations
    numbers, flops = float(n_obs) * width * ROUND * passes, 4.0 * n_obs * design.n_coefficients * passes
    return Work(numbers, flops, tasks, 2.0 * float((design.sizes**3).sum()), float(OF_EQUATION * K), 0.0)


def errors_work(design: Design, n_obs: int, tasks: int) -> Work:
    """The information (P, P) of all coefficients of rows that miss responses, and their covariance."""
    squares = float(design.n_coefficients) ** 2
    cubes = INVERTED * squares * design.n_coefficients
    return Work(0.0, VECTORS * n_obs * squares, tasks, cubes, 0.0, COPIES * 16.0 * squares)


def _of_regressors(q: int, n_obs: int, tasks: int) -> Work:
    """X'X of all rows and its root; fewer rows than columns stay rows."""
    summed = float(q) if n_obs > q else 0.0
    touched = float(n_obs) * q * (1 if summed else 1 + COPIED)
    return Work(touched, n_obs * summed**2, tasks, summed**3 / 3, 0.0, COPIES * 16.0 * summed**2)


def _search(K: int, n_rows: int | None) -> tuple[float, float]:
    """Flops and bytes of a search for Sigma.  n_rows : that stand for S, None where it is formed."""
    if n_rows is not None:
        return POINTS * float(n_rows) ** 2 * K, 2 * POINTS * ARRAYS * 8.0 * n_rows * K
    exact = EXACT * EIGEN * float(K) ** 3 if K <= EXACT_UP_TO else 0.0
    return exact + 2.0 * float(K) ** 3 / 3, LOOKS * 8.0 * float(K) ** 2
