"""How many problems of the same streamed rows share passes, and what cross-validation and the bootstrap then take."""

from __future__ import annotations

import numpy as np

from lrgls_dask.compression.patterns import LARGEST_PAIRS
from lrgls_dask.design.design import Design
from lrgls_dask.plan.price import PRICED_RANK
from lrgls_dask.rows.layout import FAN_IN
from lrgls_dask.rows.memory import SLACK, Cluster, Room, room_for_passes, this_cluster
from lrgls_dask.rows.rows import Rows

__all__ = ["at_once", "in_batches", "left_out_looks", "left_out_passes", "replicates_in_words", "sums_of_a_look"]

MOST_AT_ONCE = 256  # problems, each of which has a thread that waits
SHARE = 0.5  # of the memory that is left, for sums and for what loops go on from
KEPT = 20  # points and images of coefficients and products that a loop goes on from, and what is made of them
# Measured: regressors and the equations seen together once, looks, and what the fits say of the rows left out.
OF_ALL, OF_SOME = 1, 7
OF_REPLICATES = 10  # a first pass of each, the same, looks and standard errors
ROUNDS_MORE = 30  # that EM rounds take, by which more equations than have products of all pairs are fitted again


def sums_of_a_look(design: Design, *, informed: bool, pairs: bool) -> int:
    """Bytes of what one problem asks a pass for.  informed : whether also for the information.  pairs : whether for
    products of all pairs of equations; EM rounds do without."""
    P, K, q = design.n_coefficients, design.n_equations, design.n_regressors
    of_pairs = 2 * K**2 if pairs else K * PRICED_RANK**2
    return 8 * (P + 4 * K + of_pairs + max((q + 1) ** 2, P**2 if informed else 0))


def at_once(rows: Rows, *, informed: bool, pairs: bool, cluster: Cluster | None = None) -> int:
    """How many problems are answered at a time, by the memory that is left.  informed, pairs : as of `sums_of_a_look`.

    cluster : where it would run, if not here.
    """
    design, sums = rows.design, sums_of_a_look(rows.design, informed=informed, pairs=pairs)
    of_sigma = design.n_equations**2 // 2 if pairs else design.n_equations * PRICED_RANK
    here = 8 * KEPT * (design.n_coefficients + of_sigma) + sums
    if cluster is None:
        cluster, room = this_cluster(None), room_for_passes(rows, None)
    else:
        room = Room((cluster.limit - cluster.base) / SLACK, cluster.client_limit / SLACK, cluster.in_process)
    there = (2 * FAN_IN + 3 * cluster.n_threads) * sums
    fits = room.here / (here + there) if room.in_process else min(room.here / here, room.worker / there)
    return int(np.clip(SHARE * fits, 1, MOST_AT_ONCE))


def in_batches(n: int, few: int) -> list[slice]:
    """Of n problems, those that share passes, so many at a time."""
    return [slice(first, min(first + few, n)) for first in range(0, n, few)]


def left_out_passes(rows: Rows, parts: int, candidates: int, cluster: Cluster | None) -> int:
    """Passes that fits of every candidate to streamed rows without each of some parts share."""
    more = _more_passes(rows.design)
    few = at_once(rows, informed=False, pairs=more == 0, cluster=cluster)
    return OF_ALL + (OF_SOME + more) * len(in_batches(parts * candidates, few))


def left_out_looks(parts: int, candidates: int) -> int:
    """What these passes do, in looks of one fit at all rows: however many fits share one, each looks for itself."""
    return OF_ALL + OF_SOME * (parts - 1) * candidates


def replicates_in_words(rows: Rows, cluster: Cluster | None) -> str:
    """What a bootstrap of streamed rows that miss responses takes."""
    more = _more_passes(rows.design)
    few = at_once(rows, informed=True, pairs=more == 0, cluster=cluster)
    return (
        "come with the fit; a bootstrap of rows that are streamed takes about "
        f"{OF_REPLICATES + more} passes for every {few:,} replicates"
    )


def _more_passes(design: Design) -> int:
    """That fits take by EM rounds; none of few equations, which ask for products of all pairs."""
    return 0 if design.n_equations <= LARGEST_PAIRS else ROUNDS_MORE
