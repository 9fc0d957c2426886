"""What a fit of complete rows takes by one engine: passes, bytes and peak memory of every process."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from dask.utils import format_bytes

from lrgls_dask.compression.compressed import partial_bytes
from lrgls_dask.compression.parts import parts_at_once
from lrgls_dask.design.design import Design
from lrgls_dask.plan.keeping_x import with_x, x_tasks
from lrgls_dask.plan.peaks import peaks
from lrgls_dask.plan.plan import Plan
from lrgls_dask.plan.work import compress_work, stream_work
from lrgls_dask.rows.layout import cut_rows
from lrgls_dask.rows.memory import Cluster, pass_bytes
from lrgls_dask.rows.purposes import COMPRESS, MEANS, OLS, PRODUCTS
from lrgls_dask.rows.rows import Rows
from lrgls_dask.sigma.interface import ANY_MATRICES
from lrgls_dask.solve.in_memory import FEWER_ROWS
from lrgls_dask.solve.streamed import (
    first_partial_bytes,
    follows,
    stream_partial_bytes,
    stream_passes,
)

__all__ = ["EM_PASSES", "PRICED_RANK", "compress_client", "price", "stream_client"]


EM_PASSES = {OLS: 1, PRODUCTS: 29}
PRICED_RANK = 12  # the most factors that rank="bic" tries
# Arrays (K, K) beside what finds Sigma: S, what it is made of and what debiases it; where each equation has its own
# columns S of every point of the loop. And the products of a step along which S is followed, two arrays each.
OF_S, OF_S_OWN, FOLLOWED_PRODUCTS = 4, 7, 6


def price(
    rows: Rows,
    cluster: Cluster,
    engine: Literal["compress", "stream"],
    holds_sigma: bool,
    parts: int,
    consecutive: bool = False,
    loop_bytes: int = 0,
    takes_rows: bool = False,
    matrices: int = ANY_MATRICES,
) -> Plan:
    """Arguments as of `make_plan`."""
    design = rows.design
    few = rows.n_obs if parts == 1 else None  # where they are fewer than columns they stay what they are
    partial = parts * partial_bytes(design, few) if engine == "compress" else stream_partial_bytes(design, holds_sigma)
    partial += rows.group_bytes
    # means of groups are found by a pass of their own, but those of one label by a compressing pass itself
    before = rows.absorb is not None and (engine == "stream" or len(rows.absorb.names) > 1)
    at_once = partial // parts * parts_at_once(parts, consecutive=consecutive)
    layout = cut_rows(rows, at_once)
    copies = int(parts > 1 and not consecutive)
    work, largest = pass_bytes(rows, cluster, layout, at_once, copies=copies), partial
    if consecutive:
        work += partial  # every part is in some sum
    if engine == "stream":
        first = first_partial_bytes(design)
        work, largest = max(work, pass_bytes(rows, cluster, cut_rows(rows, first), first)), max(partial, first)
    client = (
        loop_bytes + compress_client(design, few, takes_rows)
        if engine == "compress"
        else stream_client(design, holds_sigma, matrices)
    )
    worker_peak, client_peak = peaks(cluster, work, client + largest)
    purposes = {COMPRESS: 1} if engine == "compress" else stream_passes(design, holds_sigma)
    plan = Plan(
        engine=engine,
        holds_sigma=holds_sigma,
        reason=_reason(design, engine, partial, holds_sigma),
        n_obs=rows.n_obs,
        n_equations=design.n_equations,
        n_regressors=design.n_regressors,
        n_coefficients=design.n_coefficients,
        purposes=({MEANS: 1} if before else {}) | purposes,
        stored=any(not isinstance(part.array, np.ndarray) for part in rows.parts),
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
    if engine == "compress":
        by_rows = _stays_rows(design, few, takes_rows)
        return replace(plan, work=compress_work(design, rows.n_obs, layout.n_groups, by_rows=by_rows))
    plan, passes = with_x(plan, rows, cluster), sum(purposes.values())
    of_x = x_tasks(rows) if plan.keeps_x else 0
    to_do = stream_work(design, rows.n_obs, layout.n_groups, passes=passes, dense=holds_sigma, x_tasks=of_x)
    return replace(plan, work=to_do)


def _reason(design: Design, engine: str, partial: int, holds_sigma: bool) -> str:
    width, n_equations = design.n_regressors + design.n_equations, design.n_equations
    if engine == "compress":
        return f"the ({width:,} x {width:,}) cross-product takes {format_bytes(partial)} and fits"
    whole = f"a ({width:,} x {width:,}) cross-product of {format_bytes(partial_bytes(design))}"
    if holds_sigma:
        return f"sums of {format_bytes(partial)} replace {whole}"
    return f"sums of {format_bytes(partial)}, without the ({n_equations:,} x {n_equations:,}) one, replace {whole}"


def compress_client(design: Design, n_rows: int | None = None, takes_rows: bool = False) -> int:
    """n_rows : of the data, where they may stay rows.  takes_rows : as in `make_plan`."""
    q, K, n_coefficients = design.n_regressors, design.n_equations, design.n_coefficients
    root = 4 * partial_bytes(design, n_rows)
    stand = 1 + (q if n_rows is None else min(q, n_rows))  # rows that stand for all
    whitened = 8 * stand * sum(len(g.columns) for g in design.groups) * 3
    moments = 8 * K**2
    if _stays_rows(design, n_rows, takes_rows):
        moments = K * (8 * (n_rows or 0) + 4 * PRICED_RANK**2)
    return root + whitened + 8 * (n_coefficients * 20 + moments + 4 * stand * K)


def _stays_rows(design: Design, n_rows: int | None, takes_rows: bool) -> bool:
    """Whether so few rows stand for residual products that these are never formed."""
    return takes_rows and n_rows is not None and FEWER_ROWS * (n_rows + 2) < design.n_equations


def stream_client(design: Design, holds_sigma: bool, matrices: int = ANY_MATRICES) -> int:
    """matrices : as in `make_plan`."""
    per_group = sum(len(g.columns) ** 2 for g in design.groups)
    n_equations, n_coefficients = design.n_equations, design.n_coefficients
    if holds_sigma:
        of_s = OF_S_OWN if len(design.groups) > 1 else OF_S
        of_s += 2 * FOLLOWED_PRODUCTS if follows(design) else 0
        return 8 * (6 * per_group + 40 * n_coefficients + (of_s + matrices) * n_equations**2)
    # the accelerated iteration keeps nine points and images of coefficients, loadings and variances
    return 8 * (6 * per_group + 60 * n_coefficients + 60 * 50 * n_equations)
