"""One pass over the rows of a fit for sums of products of their gradients, refused before it where memory is short."""

from __future__ import annotations

from typing import Any

from lrgls_dask.rows.fingerprint import Fingerprint, Watched, WatchedMoments
from lrgls_dask.rows.memory import require_memory
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.run_pass import Kernel, run_pass

__all__ = ["check_rows", "gradient_pass"]


def gradient_pass(
    rows: Rows,
    kernel: Kernel,
    params: Any,
    *,
    n_obs: int,
    fitted: Fingerprint | None,
    partial_bytes: int,
    client_bytes: int,
    meter: Meter,
    label: str,
    remedy: str,
    holes: bool = False,
) -> Any:
    """The kernel's sum over all rows, which must be those that were fitted.

    n_obs : rows of positive weight that were fitted.  fitted : what else is known of them; None in old files, and then
    other rows of the same number pass.  partial_bytes : of one sum.  client_bytes : what is done with it.
    remedy : what to do where memory is short.  holes : whether rows may miss responses.
    Raises MemoryError before any read, ValueError for rows that are not those of the fit.
    """
    require_memory(rows, partial_bytes, client_bytes, label, remedy)
    if fitted is not None:
        kernel = Watched(kernel, fitted, rows.design.groups)
    moments = run_pass(rows, kernel, params, partial_bytes=partial_bytes, meter=meter, label=label, holes=holes)
    found = moments.found if isinstance(moments, WatchedMoments) else moments
    check_rows(found.n_rows, n_obs)
    if fitted is not None:
        fitted.check(moments.fingerprint(fitted), rows.design)
    return found


def check_rows(found: int, n_obs: int) -> None:
    """Raise ValueError where a pass met another number of rows than the fit was made of."""
    if found != n_obs:
        raise ValueError(
            f"the system has {found:,} rows of positive weight but the fit was made of {n_obs:,}. "
            "Pass the system that was fitted."
        )
