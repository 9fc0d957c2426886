"""What X'X takes that a streamed fit finds at its end and keeps for standard errors, where there is room for it."""

from __future__ import annotations

from dataclasses import replace

from lrgls_dask.design.design import Design
from lrgls_dask.plan.peaks import fits, peaks
from lrgls_dask.plan.plan import Plan
from lrgls_dask.rows.layout import cut_rows
from lrgls_dask.rows.memory import Cluster, pass_bytes
from lrgls_dask.rows.rows import Rows
from lrgls_dask.solve.streamed import x_partial_bytes, x_stays_rows

__all__ = ["with_x", "without_x", "x_tasks"]

# Arrays of X'X while its root is found: of columns that are nearly dependent it, its pivoted factor, and that as it is
# made triangular, 4.3 in all as measured; of others it, scaled, and its factor.
FACTORED = 5
# Arrays of rows that stay: here one, as every piece makes room for what it becomes; on a worker also what it sends, on
# its client what has come, in pieces and together.
SENT, RECEIVED = 2, 3


def with_x(plan: Plan, rows: Rows, cluster: Cluster) -> Plan:
    """The plan of a streamed fit that finds X'X too where all its processes have room for it."""
    if plan.engine != "stream" or len(rows.design.groups) == 1:  # whose first pass tells X'X
        return plan
    work, client = _bytes(rows, cluster, plan.holds_sigma)
    if not fits(cluster, work, client):
        return plan
    worker_peak, client_peak = map(max, peaks(cluster, work, client), (plan.worker_peak, plan.client_peak))
    more = worker_peak - plan.worker_peak, client_peak - plan.client_peak
    return replace(plan, keeps_x=True, x_bytes=more, worker_peak=worker_peak, client_peak=client_peak)


def without_x(plan: Plan) -> Plan:
    """The same where it is not found."""
    of_worker, of_client = plan.x_bytes
    worker_peak, client_peak = plan.worker_peak - of_worker, plan.client_peak - of_client
    return replace(plan, keeps_x=False, x_bytes=(0, 0), worker_peak=worker_peak, client_peak=client_peak)


def x_tasks(rows: Rows) -> int:
    """Tasks of the pass that finds it."""
    return cut_rows(rows.of_regressors, x_partial_bytes(rows.design, rows.n_obs)).n_groups


def _bytes(rows: Rows, cluster: Cluster, holds_sigma: bool) -> tuple[int, int]:
    """Of a worker, and of this process."""
    design, read, loop = rows.design, rows.of_regressors, _loop_bytes(rows.design, holds_sigma)
    partial = x_partial_bytes(design, rows.n_obs)
    layout = cut_rows(read, partial)
    work = pass_bytes(read, cluster, layout, partial)
    client = FACTORED * partial
    if x_stays_rows(design, rows.n_obs):
        stacked = 8 * (rows.n_obs + layout.n_blocks) * design.n_regressors  # and what means of blocks differ by
        work += stacked if cluster.in_process else SENT * stacked
        client = stacked if cluster.in_process else RECEIVED * stacked
    return work + (loop if cluster.in_process else 0), client + loop


def _loop_bytes(design: Design, holds_sigma: bool) -> int:
    """What is held of the fit beside: moments of every equation, points, and a few (K, K) arrays."""
    per_group = sum(len(g.columns) ** 2 for g in design.groups)
    return 8 * (6 * per_group + 40 * design.n_coefficients + (4 * design.n_equations**2 if holds_sigma else 0))
