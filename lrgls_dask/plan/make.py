"""Plans: every engine priced, the fastest of those that fit taken, a refusal with a remedy where none does."""

from __future__ import annotations

from dataclasses import replace

from dask.utils import format_bytes

from lrgls_dask.compression.by_pattern import AnyCompressed, CompressedPatterns
from lrgls_dask.compression.compressed import partial_bytes
from lrgls_dask.compression.patterns import are_few, most_patterns
from lrgls_dask.options import Engine
from lrgls_dask.plan.holes import price_missing
from lrgls_dask.plan.pins import with_pinned
from lrgls_dask.plan.plan import Plan
from lrgls_dask.plan.price import EM_PASSES, compress_client, price, stream_client
from lrgls_dask.plan.work import compress_work
from lrgls_dask.rows.memory import MAX_COEFFICIENTS, SLACK, Cluster, this_cluster, this_process
from lrgls_dask.rows.rows import Rows
from lrgls_dask.sigma.interface import ANY_MATRICES
from lrgls_dask.solve.prices import price_of_errors

__all__ = ["look_bytes", "make_plan", "plan_compressed", "price_parts"]

# The share of the seconds of a plan of fewer passes for which one of more passes is taken, and the seconds that nobody
# minds: of one engine, whose fit answers more after fewer passes, and where another engine takes less.
FASTER, SOON, SOON_OF_ENGINES = 0.8, 3.0, 0.3


def make_plan(
    rows: Rows,
    *,
    engine: Engine,
    memory_limit: int | str | None,
    needs_matrix: bool = False,
    matrices: int = ANY_MATRICES,
    parts: int = 1,
    consecutive: bool = False,
    loop_bytes: int = 0,
    missing: bool = False,
    by_rounds: bool = False,
    candidates: int = 1,
    next_best: int = 0,
    takes_rows: bool = False,
    cluster: Cluster | None = None,
) -> Plan:
    """The plan of the fewest passes that fits, or where another is faster by nominal rates, that; reads nothing.

    needs_matrix : the (K, K) residual covariance must be held, so that a fit on its products alone is no choice.
    matrices : (K, K) arrays that finding Sigma from one takes, see `Structure.matrices`.
    parts : how many sums of rows a compressing pass keeps apart, folds for instance.  consecutive : whether each is of
    rows that lie together.  loop_bytes : what the parts take on the client after the pass.
    missing : responses may be missing, so every pattern of them is such a sum; only the first pass counts patterns.
    by_rounds : a streamed fit is EM, a pass a round.
    candidates : structures of Sigma that rows which miss responses are asked of at a time.
    next_best : numbers of factors that may be fitted after the best, by a streamed fit of complete rows.
    takes_rows : Sigma is found from fewer rows than equations without the (K, K) residual covariance.
    cluster : where it would run, if not here.
    Raises MemoryError with the number, the limit and the remedy when no engine allowed fits.
    """
    cluster = cluster or this_cluster(memory_limit)
    if missing:
        kept = most_patterns(rows.design)
        held = (True, False) if are_few(rows) else (False,)
        fewer = tuple(most for most in (kept, kept // 4, kept // 16, 1) if most)
        priced = {
            "compress": [
                price_missing(rows, cluster, most, holds, candidates, parts) for holds in held for most in fewer
            ],
            "stream": [price_missing(rows, cluster, 0, False, candidates, parts)],
        }
    else:
        priced = {
            "compress": [price(rows, cluster, "compress", True, parts, consecutive, loop_bytes, takes_rows)],
            "stream": [
                price(rows, cluster, "stream", holds, 1, matrices=matrices)
                for holds in ((True,) if needs_matrix else (True, False))
            ],
        }
    allowed = priced["compress"] + priced["stream"] if engine == "auto" else priced[engine]
    fitting = [plan for plan in allowed if plan.fits]
    if fitting:
        # where parts or candidates are many a compressed system answers all of them from the same pass
        plan = fitting[0]
        if not (missing or parts > 1 or candidates > 1):
            of_engines = [[each for each in fitting if each.engine == name] for name in priced]
            plan = _fastest([_fastest(each, SOON) for each in of_engines if each], SOON_OF_ENGINES)
        if by_rounds and plan.passes > 1:
            plan = plan.taking(EM_PASSES)
        if plan.engine == "stream" and plan.holds_sigma and not missing:
            plan = replace(plan, next_best=next_best)
        instead = (next((p for p in priced[other] if p.fits), None) for other in priced if other != plan.engine)
        beside = tuple(each for each in instead if each is not None and parts == 1)
        errors = plan.errors if missing else price_of_errors(rows.design, plan)
        plan = replace(plan, instead=beside, errors=errors, limit_given=memory_limit is not None)
        return with_pinned(plan, rows)
    others = [plan for plans in priced.values() for plan in plans if plan.fits]
    raise MemoryError(_refusal(min(allowed, key=lambda plan: plan.peak), others, needs_matrix, cluster))


def _fastest(plans: list[Plan], soon: float) -> Plan:
    """The first, unless it takes longer than `soon` and another far less; by rates that are the same everywhere."""
    first, best = plans[0], min(plans, key=lambda plan: plan.nominal_seconds)
    if first.nominal_seconds < soon or best.nominal_seconds > FASTER * first.nominal_seconds:
        return first
    width = best.n_regressors + best.n_equations
    return replace(best, reason=f"it takes less time than a ({width:,} x {width:,}) cross-product of all rows")


def look_bytes(rows: Rows) -> int:
    """What a look at the responses reads; regressors come along where cells have weights."""
    parts = tuple(part for part in rows.parts if rows.cells is not None or not any(part is x for x in rows.x))
    return rows.n_obs * sum(part.row_bytes for part in parts)


def plan_compressed(rows: AnyCompressed, memory_limit: int | str | None) -> Plan:
    """What fitting rows that are compressed already takes: no read, and the memory of this process."""
    here, design, n_obs = this_process(memory_limit), rows.design, rows.n_obs
    client, of_patterns, holds_cov = compress_client(design), (0, 0, 0), False
    if isinstance(rows, CompressedPatterns):
        K, of_patterns = design.n_equations, (rows.n_patterns, rows.n_rows, rows.n_bytes)
        pseudo = 8 * rows.n_rows * (design.n_regressors + 2 * K + 2)  # and as much for the residuals of these
        client = stream_client(design, K <= 2000) + 2 * pseudo + rows.n_bytes + partial_bytes(design)
        cov = 10 * 8 * design.n_coefficients**2
        holds_cov = design.n_coefficients <= MAX_COEFFICIENTS and here.base + int(SLACK * cov) <= here.limit
        client = max(client, cov if holds_cov else 0)
    peak = here.base + int(SLACK * client)
    return Plan(
        engine="compress",
        holds_sigma=True,
        holds_cov=holds_cov,
        n_patterns=of_patterns[0],
        pattern_rows=of_patterns[1],
        pattern_bytes=of_patterns[2],
        reason="the rows are compressed already",
        n_obs=n_obs,
        n_equations=design.n_equations,
        n_regressors=design.n_regressors,
        n_coefficients=design.n_coefficients,
        purposes={},
        work=compress_work(design, 0, 1),
        bytes_per_pass=0,
        n_blocks=0,
        largest_block=0,
        n_workers=here.n_workers,
        n_threads=here.n_threads,
        in_process=here.in_process,
        worker_peak=peak,
        client_peak=peak,
        memory_limit=here.limit,
        client_limit=here.client_limit,
    )


def price_parts(rows: Rows, parts: int) -> Plan:
    """What compressing rows in so many parts costs, whether it fits or not; reads nothing."""
    return price(rows, this_cluster(None), "compress", True, parts)


def _refusal(plan: Plan, others: list[Plan], needs_matrix: bool, cluster: Cluster) -> str:
    here = plan.in_process or plan.worker_peak <= plan.memory_limit
    where, peak, limit = "each worker", plan.worker_peak, plan.memory_limit
    if here:
        where, peak, limit = "this process", plan.client_peak, plan.client_limit
    remedies = [f"use engine={other.engine!r}" for other in others[:1]]
    if needs_matrix:
        K = plan.n_equations
        remedies.append(f"use covariance='lowrank', algorithm='als', which can do without the ({K:,} x {K:,}) matrix")
    if plan.n_threads > 1:
        remedies.append("use fewer threads")
    if plan.largest_block > 32 * 2**20:
        remedies.append("store the data in row chunks of 8 to 30 MB")
    needed = max(peak, 0 if plan.in_process else plan.client_peak)  # one limit is for both
    tightest = None if here else cluster.tightest
    remedies.append(cluster.remedy(peak) if tightest else f"raise memory_limit to {format_bytes(int(needed * 1.05))}")
    whose = f", of {tightest}" if tightest else ""
    return (
        f"engine {plan.engine!r} needs {format_bytes(peak)} in {where}; "
        f"the limit is {format_bytes(limit)}{whose}. Either {' or '.join(remedies)}."
    )
