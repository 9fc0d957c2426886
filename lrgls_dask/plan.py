"""What a fit will cost, priced before any read: engine, passes, bytes, peak memory of every process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import psutil
from dask.utils import format_bytes

from lrgls_dask.compression.by_pattern import PAYS, AnyCompressed, CompressedPatterns
from lrgls_dask.compression.compressed import partial_bytes
from lrgls_dask.compression.parts import parts_at_once
from lrgls_dask.compression.patterns import (
    LARGEST_PAIRS,
    MOST_COLUMNS,
    PATTERNS_IN_A_SUM,
    are_few,
    held_bytes,
    most_patterns,
)
from lrgls_dask.design.design import Design
from lrgls_dask.options import Engine
from lrgls_dask.rows.kernels import slab_rows
from lrgls_dask.rows.layout import cut_rows
from lrgls_dask.rows.memory import MAX_COEFFICIENTS, SLACK, Cluster, task_bytes, this_cluster, this_process
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.run_pass import FAN_IN
from lrgls_dask.solve.in_memory import FEWER_ROWS
from lrgls_dask.solve.streamed import STREAM_PASSES, stream_partial_bytes, stream_passes

__all__ = [
    "EM_PASSES",
    "STREAM_PASSES",
    "Plan",
    "look_bytes",
    "make_plan",
    "plan_compressed",
    "price_parts",
]


EM_PASSES = 30
HOLES_PASSES = 12  # of rows that miss responses, before the first pass tells how many
PRICED_RANK = 12  # the most factors that rank="bic" tries


@dataclass(frozen=True)
class Plan:
    """The priced plan of a fit; ``print(plan)`` shows it.

    holds_sigma : whether the (K, K) residual covariance is held; without it a streamed fit is EM on its products.
    most_patterns : patterns of missing responses whose rows are compressed, 0 if all are streamed, None where none may
    be missing.  bytes_per_pattern : what each of them takes of the peak.
    keeps_rows : whether rows of more patterns are held in memory, which saves reading them again.
    holds_cov : whether the (P, P) covariance of the coefficients of a fit with missing responses is part of the peaks.
    passes : expected passes over the data, an upper guess for "stream".  bytes_per_pass : decoded bytes read by each.
    n_patterns, pattern_rows, pattern_bytes : of a compressed system whose rows miss responses, their patterns, the rows
    that stand for all of them and what these take; 0 where it misses none.
    look_bytes : read before all that by unusable="skip", which looks for equations that cannot be estimated.
    worker_peak, client_peak : predicted peak bytes of one worker process and of this one; with threads they are the
    same process and both hold the whole.  memory_limit, client_limit : what they may use.
    """

    engine: Literal["compress", "stream"]
    holds_sigma: bool
    reason: str
    n_obs: int
    n_equations: int
    n_regressors: int
    n_coefficients: int
    passes: int
    bytes_per_pass: int
    n_blocks: int
    largest_block: int
    n_workers: int
    n_threads: int
    in_process: bool
    worker_peak: int
    client_peak: int
    memory_limit: int
    client_limit: int
    most_patterns: int | None = None
    holds_cov: bool = False
    bytes_per_pattern: int = 0
    n_patterns: int = 0
    pattern_rows: int = 0
    pattern_bytes: int = 0
    keeps_rows: bool = False
    look_bytes: int = 0

    def peak_of(self, n_patterns: int) -> int:
        """The same as `peak` where so many patterns of missing responses are found, of those that are compressed."""
        return self.peak - max(0, (self.most_patterns or 0) - n_patterns) * self.bytes_per_pattern

    @property
    def peak(self) -> int:
        """The largest predicted peak of any one process."""
        return max(self.worker_peak, self.client_peak)

    @property
    def fits(self) -> bool:
        """Whether every process stays below its limit."""
        return self.worker_peak <= self.memory_limit and self.client_peak <= self.client_limit

    def __str__(self) -> str:
        place = (
            f"{self.n_threads} threads of this process"
            if self.in_process
            else (f"{self.n_workers} workers of {self.n_threads} threads each")
        )
        peak = (
            f"{format_bytes(self.client_peak)} in this process"
            if self.in_process
            else f"{format_bytes(self.worker_peak)} on each worker, {format_bytes(self.client_peak)} on the client"
        )
        if self.most_patterns:
            peak += f", {format_bytes(self.bytes_per_pattern)} less for each pattern fewer than {self.most_patterns}"
        return "\n".join(
            [
                f"Plan: engine {self.engine!r}, because {self.reason}",
                f"  data    {self.n_obs:,} rows; {self.n_equations:,} equations, {self.n_regressors:,} distinct "
                f"regressors, {self.n_coefficients:,} coefficients",
                *self._holes(),
                f"  reads   {self._reads()}",
                f"  runs    on {place}",
                f"  memory  peak {peak}; limit {format_bytes(self.memory_limit)}",
            ]
        )

    def _holes(self) -> list[str]:
        """What patterns of missing responses cost that are compressed already."""
        if not self.n_patterns:
            return []
        lines = [
            f"  holes   {self.n_patterns:,} patterns of missing responses: {self.pattern_rows:,} rows, "
            f"{format_bytes(self.pattern_bytes)}, stand for {self.n_obs:,}"
        ]
        if self.pattern_rows > PAYS * self.n_obs:
            lines.append("          so many that compressing does not pay: fit the System itself, with missing='em'")
        return lines

    def _reads(self) -> str:
        look = f"; {format_bytes(self.look_bytes)} of responses before, for unusable='skip'" if self.look_bytes else ""
        if self.passes == 0:
            return "nothing"
        times = "once" if self.passes == 1 else f"about {self.passes} times"
        if self.most_patterns and self.engine == "compress" and self.passes > 1:  # before the first pass counts them
            times = f"once, or {times} where more than {self.most_patterns} patterns are found"
        blocks = f"in {self.n_blocks:,} blocks of at most {format_bytes(self.largest_block)}"
        return f"{format_bytes(self.bytes_per_pass)} {times}, {blocks}{look}"


def make_plan(
    rows: Rows,
    *,
    engine: Engine,
    memory_limit: int | str | None,
    needs_matrix: bool = False,
    parts: int = 1,
    consecutive: bool = False,
    loop_bytes: int = 0,
    missing: bool = False,
    by_rounds: bool = False,
    candidates: int = 1,
    takes_rows: bool = False,
) -> Plan:
    """The cheapest plan in passes that fits; reads nothing.

    needs_matrix : the (K, K) residual covariance must be held, so that a fit on its products alone is no choice.
    parts : how many sums of rows a compressing pass keeps apart, folds for instance.  consecutive : whether each is of
    rows that lie together.  loop_bytes : what the parts take on the client after the pass.
    missing : responses may be missing, so every pattern of them is such a sum; only the first pass counts patterns.
    by_rounds : a streamed fit is EM, a pass a round.
    candidates : structures of Sigma that rows which miss responses are asked of at a time.
    takes_rows : Sigma is found from fewer rows than equations without the (K, K) residual covariance.
    Raises MemoryError with the number, the limit and the remedy when no engine allowed fits.
    """
    cluster = this_cluster(memory_limit)
    if missing:
        kept = most_patterns(rows.design)
        held = (True, False) if are_few(rows) else (False,)
        fewer = tuple(most for most in (kept, kept // 4, kept // 16, 1) if most)
        priced = {
            "compress": [
                _price_missing(rows, cluster, most, holds, candidates, parts) for holds in held for most in fewer
            ],
            "stream": [_price_missing(rows, cluster, 0, False, candidates)],
        }
    else:
        priced = {
            "compress": [_price(rows, cluster, "compress", True, parts, consecutive, loop_bytes, takes_rows)],
            "stream": [
                _price(rows, cluster, "stream", holds, 1) for holds in ((True,) if needs_matrix else (True, False))
            ],
        }
    allowed = priced["compress"] + priced["stream"] if engine == "auto" else priced[engine]
    for plan in allowed:
        if plan.fits:
            return replace(plan, passes=EM_PASSES) if by_rounds and plan.passes > 1 else plan
    others = [plan for plans in priced.values() for plan in plans if plan.fits]
    raise MemoryError(_refusal(min(allowed, key=lambda plan: plan.peak), others, needs_matrix))


def look_bytes(rows: Rows) -> int:
    """What a look at the responses reads; regressors come along where cells have weights."""
    parts = rows.parts if rows.cells is not None else (*rows.y, *rows.weight_parts)
    return rows.n_obs * sum(part.row_bytes for part in parts)


def plan_compressed(rows: AnyCompressed, memory_limit: int | str | None) -> Plan:
    """What fitting rows that are compressed already takes: no read, and the memory of this process."""
    here, design, n_obs = this_process(memory_limit), rows.design, rows.n_obs
    client, of_patterns, holds_cov = _compress_client(design), (0, 0, 0), False
    if isinstance(rows, CompressedPatterns):
        K, of_patterns = design.n_equations, (rows.n_patterns, rows.n_rows, rows.n_bytes)
        pseudo = 8 * rows.n_rows * (design.n_regressors + 2 * K + 2)  # and as much for the residuals of these
        client = _stream_client(design, K <= 2000) + 2 * pseudo + rows.n_bytes + partial_bytes(design)
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
        passes=0,
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


def _passes_with_holes(n_equations: int) -> int:
    """Of a streamed fit by maximum likelihood; more equations than a pass sums products of take EM rounds."""
    return HOLES_PASSES if n_equations <= LARGEST_PAIRS else EM_PASSES


def price_parts(rows: Rows, parts: int) -> Plan:
    """What compressing rows in so many parts costs, whether it fits or not; reads nothing."""
    return _price(rows, this_cluster(None), "compress", True, parts)


def _price_missing(rows: Rows, cluster: Cluster, most: int, holds: bool, candidates: int, parts: int = 1) -> Plan:
    """Rows of which so many patterns are compressed, as sums that may each hold all of them; 0 streams.

    parts : in which the rows of every pattern are kept apart.
    holds : whether rows that have more patterns are held: as they were read, and as what the loop sees of them.
    candidates : as in `make_plan`.
    """
    design = rows.design
    width, K = design.n_regressors + design.n_equations, design.n_equations
    whole, k = parts * partial_bytes(design), min(K, PRICED_RANK)
    available = 8 * int(((design.sizes + 1) ** 2).sum())
    of_pairs = 16 * K**2 if K <= LARGEST_PAIRS else 0
    of_point = 8 * (design.n_coefficients + K * (4 + 2 * k + k * k)) + of_pairs
    of_columns = 8 * (design.n_regressors + 1) ** 2 if of_pairs and design.n_regressors <= MOST_COLUMNS else 0
    streamed = available + max(of_point + of_columns, candidates * of_point)
    # nine points and images of coefficients and products that each candidate goes on from, and one of these weighed
    ahead = 8 * 20 * candidates * (design.n_coefficients + K**2 // 2) if of_pairs else 0
    ahead += 2 * of_columns + (8 * 10 * K * (design.n_regressors + 1) if of_columns else 0)
    pseudo = 8 * (width + 1) * (width + K + 2)
    priced = _price(rows, cluster, "compress" if most else "stream", K <= LARGEST_PAIRS, 1)
    in_a_sum = streamed + min(most, PATTERNS_IN_A_SUM) * whole
    held = held_bytes(rows) if holds else 0
    looked_at = 2 * (held + 8 * rows.n_obs * (K + 2)) if holds else 0
    layout = cut_rows(rows, in_a_sum)

    def loop(patterns: int) -> tuple[int, int]:
        partial = streamed + patterns * whole
        work = cluster.n_threads * task_bytes(rows, layout, in_a_sum) + 2 * FAN_IN * partial + held
        client = max(patterns * (2 * pseudo + whole), looked_at) + held
        return work, _stream_client(design, K <= LARGEST_PAIRS) + ahead + client + partial

    (work, client), (cov_work, cov_client) = loop(most), _information_bytes(rows, cluster)
    holds_cov = design.n_coefficients <= MAX_COEFFICIENTS and _fits(
        cluster, max(work, cov_work), max(client, cov_client)
    )
    if not holds_cov:
        cov_work = cov_client = 0
    worker_peak, client_peak = _peaks(cluster, max(work, cov_work), max(client, cov_client))
    work, client = loop(1)
    fewest = max(_peaks(cluster, max(work, cov_work), max(client, cov_client)))
    counted = "patterns of missing responses are counted in the first pass: "
    if most:
        others = f"all rows are held, {format_bytes(held)}" if holds else "streamed"
        reason = f"{counted}the rows of at most {most} are compressed, {format_bytes(whole)} each, else {others}"
    else:
        reason = f"sums of {format_bytes(streamed)} replace {format_bytes(whole)} for each pattern of missing responses"
    return replace(
        priced,
        reason=reason,
        passes=1 if holds else _passes_with_holes(K),
        keeps_rows=holds,
        n_blocks=layout.n_blocks,
        largest_block=layout.largest_block() * rows.row_bytes,
        worker_peak=worker_peak,
        client_peak=client_peak,
        most_patterns=most,
        holds_cov=holds_cov,
        # a chord of a convex function, which lies nowhere below it
        bytes_per_pattern=max(0, max(worker_peak, client_peak) - fewest) // (most - 1) if most > 1 else 0,
    )


def _information_bytes(rows: Rows, cluster: Cluster) -> tuple[int, int]:
    """What the pass that sums (P, P) numbers takes of a worker, and their inverse afterwards of the client."""
    design = rows.design
    partial = 8 * design.n_coefficients**2
    layout = cut_rows(rows, partial)
    width = design.n_regressors + design.n_equations
    columns = 3 * 8 * design.n_coefficients * min(slab_rows(width), layout.largest_block())
    threads = min(cluster.n_threads, layout.n_groups)
    work = threads * (task_bytes(rows, layout, partial) + columns) + min(2 * FAN_IN, layout.n_groups) * partial
    return work, 10 * partial


def _peaks(cluster: Cluster, work: int, client: int) -> tuple[int, int]:
    """Peak bytes of a worker and of this process; with threads, where the two follow one another, those of both."""
    if cluster.in_process:
        both = cluster.base + int(SLACK * max(work, client))
        return both, both
    return cluster.base + int(SLACK * work), psutil.Process().memory_info().rss + int(SLACK * client)


def _fits(cluster: Cluster, work: int, client: int) -> bool:
    worker_peak, client_peak = _peaks(cluster, work, client)
    return worker_peak <= cluster.limit and client_peak <= cluster.client_limit


def _price(
    rows: Rows,
    cluster: Cluster,
    engine: Literal["compress", "stream"],
    holds_sigma: bool,
    parts: int,
    consecutive: bool = False,
    loop_bytes: int = 0,
    takes_rows: bool = False,
) -> Plan:
    design = rows.design
    few = rows.n_obs if parts == 1 else None  # where they are fewer than columns they stay what they are
    partial = parts * partial_bytes(design, few) if engine == "compress" else stream_partial_bytes(design, holds_sigma)
    partial += rows.group_bytes
    # means of groups are found by a pass of their own, but those of one label by a compressing pass itself
    before = int(rows.absorb is not None and (engine == "stream" or len(rows.absorb.names) > 1))
    at_once = partial // parts * parts_at_once(parts, consecutive=consecutive)
    layout = cut_rows(rows, at_once)
    copies = int(parts > 1 and not consecutive)
    work = cluster.n_threads * task_bytes(rows, layout, at_once, copies=copies) + 2 * FAN_IN * at_once
    if consecutive:
        work += partial  # every part is in some sum
    client = (
        loop_bytes + _compress_client(design, few, takes_rows)
        if engine == "compress"
        else _stream_client(design, holds_sigma)
    )
    worker_peak, client_peak = _peaks(cluster, work, client + partial)
    return Plan(
        engine=engine,
        holds_sigma=holds_sigma,
        reason=_reason(design, engine, partial, holds_sigma),
        n_obs=rows.n_obs,
        n_equations=design.n_equations,
        n_regressors=design.n_regressors,
        n_coefficients=design.n_coefficients,
        passes=before + (1 if engine == "compress" else stream_passes(design, holds_sigma)),
        bytes_per_pass=rows.n_obs * rows.row_bytes,
        n_blocks=layout.n_blocks,
        largest_block=layout.largest_block() * rows.row_bytes,
        n_workers=cluster.n_workers,
        n_threads=cluster.n_threads,
        in_process=cluster.in_process,
        worker_peak=worker_peak,
        client_peak=client_peak,
        memory_limit=cluster.limit,
        client_limit=cluster.client_limit,
    )


def _reason(design: Design, engine: str, partial: int, holds_sigma: bool) -> str:
    width, n_equations = design.n_regressors + design.n_equations, design.n_equations
    if engine == "compress":
        return f"the ({width:,} x {width:,}) cross-product takes {format_bytes(partial)} and fits"
    whole = f"a ({width:,} x {width:,}) cross-product of {format_bytes(partial_bytes(design))}"
    if holds_sigma:
        return f"sums of {format_bytes(partial)} replace {whole}"
    return f"sums of {format_bytes(partial)}, without the ({n_equations:,} x {n_equations:,}) one, replace {whole}"


def _compress_client(design: Design, n_rows: int | None = None, takes_rows: bool = False) -> int:
    """n_rows : of the data, where they may stay rows.  takes_rows : as in `make_plan`."""
    q, K, n_coefficients = design.n_regressors, design.n_equations, design.n_coefficients
    root = 4 * partial_bytes(design, n_rows)
    whitened = 8 * (q + 1) * sum(len(g.columns) for g in design.groups) * 3
    moments = 8 * K**2
    if takes_rows and n_rows is not None and FEWER_ROWS * (n_rows + 2) < K:
        moments = K * (8 * n_rows + 4 * PRICED_RANK**2)
    return root + whitened + 8 * (n_coefficients * 20 + moments + 4 * (q + 1) * K)


def _stream_client(design: Design, holds_sigma: bool) -> int:
    per_group = sum(len(g.columns) ** 2 for g in design.groups)
    n_equations, n_coefficients = design.n_equations, design.n_coefficients
    if holds_sigma:
        return 8 * (6 * per_group + 40 * n_coefficients + 24 * n_equations**2)
    # the accelerated iteration keeps nine points and images of coefficients, loadings and variances
    return 8 * (6 * per_group + 60 * n_coefficients + 60 * 50 * n_equations)


def _refusal(plan: Plan, others: list[Plan], needs_matrix: bool) -> str:
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
    remedies.append(f"raise memory_limit to {format_bytes(int(needed * 1.05))}")
    return (
        f"engine {plan.engine!r} needs {format_bytes(peak)} in {where}; "
        f"the limit is {format_bytes(limit)}. Either {' or '.join(remedies)}."
    )
