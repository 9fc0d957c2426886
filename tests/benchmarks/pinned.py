"""Streamed fits whose memory limit has room for none, a half and all of the rows, which stay in memory between passes.

One store with default codecs, whose chunks every pass decodes; 60 equations, each with six of twelve regressors, so
that a fit takes several passes, and no digit depends on how many rows are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask
import numpy as np
import zarr
from harness import Case, Report, Session, main, median, ratio, timed
from missing_stored import write

from lrgls_dask import LowRankGLS, System

FULL = {"n_obs": 200_000, "n_equations": 60, "n_regressors": 12, "row_chunk": 20_000}  # 0.1 GB
SMALL = {"n_obs": 40_000, "n_equations": 10, "n_regressors": 4, "row_chunk": 2_000}
THREADS, RANK = 2, 3
SHARES = {"none": None, "half": 0.5, "all": 1.0}
ROOM = 1.2  # for bytes that are kept, beside which an allocator wastes some
BESIDE = 1_000_000  # that this process may hold more of when it fits than when it planned


def fit(path: str, share: float | None) -> dict[str, Any]:
    """A task: from the path to the fit. share : of the rows that its limit has room for, None for no limit."""
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        group = zarr.open_group(path, mode="r")
        q, K = group["X"].shape[1], group["Y"].shape[1]
        used = np.random.default_rng(0).permuted(np.tile(np.arange(q) < q // 2, (K, 1)), axis=1).T
        system = System.from_arrays(group["Y"], group["X"], incidence=used)
        model = LowRankGLS(RANK, engine="stream", max_sweeps=1, rel_tol=1e-2)  # some 16 passes
        if share is not None:
            plan = model.plan(system)
            model.set_params(memory_limit=plan.peak + int(ROOM * share * plan.bytes_per_pass) + BESIDE)
        found, seconds = timed(lambda: model.fit(system).result_)
    return {
        "seconds": seconds,
        "passes": found.n_passes,
        "bytes_read": found.bytes_read,
        "pinned_rows": model.plan_.pinned_rows,
        "planned_peak": model.plan_.client_peak,
        "nll": found.nll,
        "params": float(found.params.sum()),
    }


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    path = write(session.folder / f"complete-{size['n_obs']}.zarr", **size, missing=0.0)
    runs = session.alternate([Case(name, "fit", {"path": str(path), "share": share}) for name, share in SHARES.items()])
    summary: dict[str, Any] = {
        "half_over_none": ratio(runs, "half", "none"),
        "all_over_none": ratio(runs, "all", "none"),
        "passes": int(median(runs, "none", "passes")),
        **{f"read_{name}": int(median(runs, name, "bytes_read")) for name in SHARES},
        **{f"peak_{name}": int(max(each["peak_sum"] for each in runs if each["case"] == name)) for name in SHARES},
        **{f"planned_peak_{name}": int(median(runs, name, "planned_peak")) for name in SHARES},
        "same_digits": len({(each["nll"], each["params"]) for each in runs}) == 1,
    }
    return Report({**size, "threads": THREADS, "rank": RANK}, runs, summary)


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, {"fit": fit}, run, argv)


if __name__ == "__main__":
    cli()
