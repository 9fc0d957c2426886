"""Fitting rows with missing responses: which options allow it, what the first pass decides, the `Fit` it ends in."""

from __future__ import annotations

from dataclasses import replace

from lrgls_dask.compression.compressed import Compressed, compress_rows
from lrgls_dask.compression.patterns import first_pass
from lrgls_dask.design.penalties import Ridge
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.plan import Plan
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.run_pass import Meter

__all__ = ["look"]


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
