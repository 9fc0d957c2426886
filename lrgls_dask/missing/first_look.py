"""Fitting rows with missing responses: which options allow it, what the first pass decides, the `Fit` it ends in."""

from __future__ import annotations

from dataclasses import replace
from math import log2
from typing import Literal

from lrgls_dask.compression.compressed import Compressed, compress_rows
from lrgls_dask.compression.patterns import LARGEST_PAIRS, first_pass
from lrgls_dask.design.design import Design
from lrgls_dask.design.penalties import Ridge
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.plan.holes import HOLES_PASSES, ROUNDS_PASSES
from lrgls_dask.plan.keeping_x import without_x
from lrgls_dask.plan.pins import with_pinned
from lrgls_dask.plan.plan import Plan
from lrgls_dask.rows.memory import SLACK
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.purposes import LEFT_OUT, LIKELIHOOD, PATTERNS
from lrgls_dask.rows.rows import Rows
from lrgls_dask.solve.streamed import stream_passes

__all__ = ["look", "plan_of_complete_rows", "plan_of_holes"]

# Two to start, and looks, the last with what standard errors take; half as many pairs of equations seen together take
# four or five more, as an acceleration of EM goes on more slowly where more is missing. Measured.
FEWEST_PASSES, MORE_PASSES = 5.0, 4.5
STREAMS, COMPRESSES = "streams the rows", "compresses the rows"


def look(
    rows: Rows, plan: Plan, lam_B: Ridge, engine: str, meter: Meter, restrictions: Restrictions | None
) -> Incomplete | Compressed | None:
    """What the first pass makes of the rows: the problem with missing responses, or that there are none.

    Complete rows come compressed, or as None where they are to be streamed.
    Raises ValueError where engine="compress" is asked for and the patterns of missing responses are too many, in rows
    that are too many to be held.
    """
    most = plan.most_patterns or 0
    first = first_pass(rows, meter=meter, most=most, keep=plan.keeps_rows)
    if first.is_complete:
        if most == 0:
            return None
        return first.compressed(rows.design) or compress_rows(replace(rows, complete_only=True), meter=meter)
    if engine == "compress" and first.patterns is None and not first.rows:
        raise ValueError(
            f"engine='compress' keeps the rows of each pattern of missing responses apart, at most {most} patterns, "
            "and these rows have more and are too many to be held in memory. Use engine='auto', which streams them."
        )
    return Incomplete(rows, lam_B=lam_B, meter=meter, first=first, restrictions=restrictions)


def plan_of_holes(plan: Plan, seen: Incomplete, *, by_rounds: bool) -> Plan:
    """The plan of rows of which the first pass found that they miss responses.  by_rounds : whether EM is asked for."""
    found, plan = f"{seen.n_patterns:,} patterns of missing responses", without_x(plan)
    if seen.restarts_are_free:
        held = seen.n_patterns > (plan.most_patterns or 0)
        return _found(plan, found, "holds the rows in memory" if held else COMPRESSES)
    purposes = ROUNDS_PASSES
    if not by_rounds and plan.n_equations <= LARGEST_PAIRS:
        shares = seen.cells / seen.n_obs
        together = float(shares.min() * shares.mean())  # of the pair that is seen together the least, about
        # what the others need is known: the more is missing, the more rounds there are
        rounds = round(FEWEST_PASSES - MORE_PASSES * log2(together)) - sum(HOLES_PASSES.values())
        purposes = HOLES_PASSES | {LIKELIHOOD: max(1, HOLES_PASSES[LIKELIHOOD] + rounds)}
    if LEFT_OUT in plan.purposes:
        purposes = purposes | {LEFT_OUT: plan.purposes[LEFT_OUT]}
    assert isinstance(seen.rows, Rows)  # compressed ones are not streamed
    streams = with_pinned(replace(_found(plan, found, STREAMS, purposes), errors=plan.errors), seen.rows)
    seen.meter.pin(streams.pinned_rows)
    return streams


def plan_of_complete_rows(plan: Plan, streamed: Design | None) -> Plan:
    """The same where no response is missing.  streamed : the design of rows that are not compressed."""
    worker_peak, client_peak = (int(SLACK * plan.pinned_bytes) + each for each in plan.complete_peaks)
    work = None if plan.work is None else replace(plan.work, after=None)
    plan = replace(
        plan, worker_peak=worker_peak, client_peak=client_peak, work=work, bytes_per_pattern=0, holds_cov=False
    )
    if streamed is None:
        return _found(plan, "no missing response", COMPRESSES)
    return _found(plan, "no missing response", STREAMS, {PATTERNS: 1} | stream_passes(streamed, plan.holds_sigma))


def _found(plan: Plan, found: str, does: str, purposes: dict[str, int] | None = None) -> Plan:
    reason = f"the first pass found {found}, and {does}"
    engine: Literal["compress", "stream"] = "stream" if does == STREAMS else "compress"
    taking = plan.taking(purposes or {PATTERNS: 1})
    return replace(taking, engine=engine, reason=reason, instead=(), errors="", complete_peaks=(0, 0))
