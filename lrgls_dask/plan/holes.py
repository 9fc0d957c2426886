"""What a fit of rows that miss responses takes: patterns of them compressed, all rows held, or streamed."""

from __future__ import annotations

from dataclasses import replace

from dask.utils import format_bytes

from lrgls_dask.compression.compressed import partial_bytes
from lrgls_dask.compression.patterns import LARGEST_PAIRS, MOST_COLUMNS, PATTERNS_IN_A_SUM, held_bytes
from lrgls_dask.plan.keeping_x import with_x, without_x
from lrgls_dask.plan.peaks import fits, peaks
from lrgls_dask.plan.plan import Plan
from lrgls_dask.plan.price import PRICED_RANK, price, stream_client
from lrgls_dask.plan.side_by_side import left_out_looks, left_out_passes, replicates_in_words
from lrgls_dask.plan.work import Work, errors_work, rounds_work, stream_work
from lrgls_dask.rows.kernels import slab_rows
from lrgls_dask.rows.layout import FAN_IN, cut_rows
from lrgls_dask.rows.memory import MAX_COEFFICIENTS, Cluster, pass_bytes, task_bytes
from lrgls_dask.rows.purposes import COEFFICIENTS, ERRORS, LAST_LOOK, LEFT_OUT, LIKELIHOOD, PATTERNS, RESIDUALS
from lrgls_dask.rows.rows import Rows

__all__ = ["HOLES_PASSES", "ROUNDS_PASSES", "price_missing"]

OVER_COMPLETE = 1.7  # of passes over complete rows, those over rows with holes
# Of rows that miss responses, before the first pass tells how many; the last are those of the standard errors.
HOLES_PASSES = {PATTERNS: 1, RESIDUALS: 1, LIKELIHOOD: 5, COEFFICIENTS: 3, LAST_LOOK: 1}
ROUNDS_PASSES = {PATTERNS: 1, LIKELIHOOD: 25, COEFFICIENTS: 3, ERRORS: 1}  # of EM


def passes_with_holes(n_equations: int) -> dict[str, int]:
    """Of a streamed fit by maximum likelihood; more equations than a pass sums products of take EM rounds."""
    return HOLES_PASSES if n_equations <= LARGEST_PAIRS else ROUNDS_PASSES


def price_missing(rows: Rows, cluster: Cluster, most: int, holds: bool, candidates: int, parts: int = 1) -> Plan:
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
    of_complete = price(rows, cluster, "compress" if most else "stream", K <= LARGEST_PAIRS, parts if most else 1)
    priced = without_x(of_complete)
    in_a_sum = streamed + min(most, PATTERNS_IN_A_SUM) * whole
    held = held_bytes(rows) if holds else 0
    looked_at = 2 * (held + 8 * rows.n_obs * (K + 2)) if holds else 0
    layout = cut_rows(rows, in_a_sum)

    def loop(patterns: int) -> tuple[int, int]:
        partial = streamed + patterns * whole
        work = cluster.n_threads * task_bytes(rows, layout, in_a_sum) + 2 * FAN_IN * partial + held
        client = max(patterns * (2 * pseudo + whole), looked_at) + held
        return work, stream_client(design, K <= LARGEST_PAIRS) + ahead + client + partial

    # the last look finds the information too, beside what candidates go on from
    besides, matrix = candidates * of_point if of_pairs else 0, 8 * design.n_coefficients**2
    (work, client), cov_work = loop(most), _information_bytes(rows, cluster, besides)
    cov_client = max(10 * matrix, 4 * matrix + besides + (stream_client(design, True) + ahead if of_pairs else 0))
    holds_cov = design.n_coefficients <= MAX_COEFFICIENTS and fits(
        cluster, max(work, cov_work), max(client, cov_client)
    )
    cov_work, cov_client = (cov_work, cov_client) if holds_cov else (0, 0)
    worker_peak, client_peak = peaks(cluster, max(work, cov_work), max(client, cov_client))
    fewest = max(peaks(cluster, *map(max, loop(1), (cov_work, cov_client))))
    once, many = {PATTERNS: 1}, passes_with_holes(K)
    passes = 2 if most or holds else sum(many.values())
    if parts > 1 and not holds:
        many = many | {LEFT_OUT: left_out_passes(rows, parts, candidates, cluster)}
        passes += 0 if most else left_out_looks(parts, candidates)
    plan = replace(
        priced,
        reason=_reason(most, held, whole, streamed),
        purposes=once if holds else many,
        work=_work(rows, layout.n_groups, passes, candidates, holds_cov=holds_cov),
        keeps_rows=holds,
        n_blocks=layout.n_blocks,
        largest_block=layout.largest_block() * rows.row_bytes,
        worker_peak=worker_peak,
        client_peak=client_peak,
        most_patterns=most,
        holds_cov=holds_cov,
        errors="" if holds else replicates_in_words(rows, cluster),
        complete_peaks=_complete_peaks(rows, cluster, of_complete, in_a_sum, (held, looked_at)),
        # a chord of a convex function, which lies nowhere below it
        bytes_per_pattern=max(0, max(worker_peak, client_peak) - fewest) // (most - 1) if most > 1 else 0,
    )
    return with_x(plan, rows, cluster)  # which complete rows need


def _work(rows: Rows, tasks: int, passes: int, candidates: int, *, holds_cov: bool) -> Work:
    """Of so many passes, and of the standard errors.  candidates : fitted one by one where they go by rounds."""
    design, n_obs = rows.design, rows.n_obs
    if design.n_equations <= LARGEST_PAIRS:
        work = stream_work(design, n_obs, tasks, passes=passes, dense=True).times(OVER_COMPLETE)
    else:
        work = rounds_work(design, n_obs, tasks, passes=passes + (candidates - 1) * sum(ROUNDS_PASSES.values()))
    return replace(work, after=errors_work(design, n_obs, tasks)) if holds_cov else work


def _reason(most: int, held: int, whole: int, streamed: int) -> str:
    """The same arguments as there, in bytes."""
    if not most:
        return f"sums of {format_bytes(streamed)} replace {format_bytes(whole)} for each pattern of missing responses"
    others = f"all rows are held, {format_bytes(held)}" if held else "streamed"
    return (
        "patterns of missing responses are counted in the first pass: the rows of at most "
        f"{most} are compressed, {format_bytes(whole)} each, else {others}"
    )


def _complete_peaks(
    rows: Rows, cluster: Cluster, of_complete: Plan, in_a_sum: int, held: tuple[int, int]
) -> tuple[int, int]:
    """Where no response is missing: of the first pass, which has met one pattern, and of a fit of complete rows.

    in_a_sum : bytes by which blocks are cut.  held : of the rows, as they were read and as they are looked at.
    """
    seen = 8 * int(((rows.design.sizes + 1) ** 2).sum())
    if of_complete.engine == "compress":
        seen += partial_bytes(rows.design)
    work = pass_bytes(rows, cluster, cut_rows(rows, in_a_sum), seen) + held[0]
    looks = peaks(cluster, work, sum(held) + seen)
    return max(looks[0], of_complete.worker_peak), max(looks[1], of_complete.client_peak)


def _information_bytes(rows: Rows, cluster: Cluster, besides: int) -> int:
    """What the pass that sums (P, P) numbers, and so many bytes besides, takes of a worker."""
    design = rows.design
    matrix = 8 * design.n_coefficients**2
    layout, partial = cut_rows(rows, matrix), matrix + besides
    width = design.n_regressors + design.n_equations
    columns = 3 * 8 * design.n_coefficients * min(slab_rows(width), layout.largest_block())
    return pass_bytes(rows, cluster, layout, partial, besides=columns)
