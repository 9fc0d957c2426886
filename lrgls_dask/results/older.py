"""What files of earlier versions say in another way."""

from __future__ import annotations

import zarr

from lrgls_dask.data.zarrio import read_array
from lrgls_dask.results.parts import Run, attributes_of
from lrgls_dask.solve.record import Termination, TraceRow

__all__ = ["read_run"]


def read_run(group: zarr.Group, rank: int) -> Run:
    """The run of a time-varying fit: the first version kept the local likelihood of each sweep only."""
    if "trace_nll" in group:
        return Run.read(group)
    known = attributes_of(group)
    passes, n_bytes = known["n_passes"], known["bytes_read"]
    history = tuple(
        TraceRow(rank, sweep, "sigma", nll, nll, 1.0, 0, passes, n_bytes, 0.0)
        for sweep, nll in enumerate(read_array(group, "history").tolist(), 1)
    )
    tried = (read_array(group, f"tried_{name}").tolist() for name in ("bandwidth", "held_out_nll"))
    candidates = tuple({"bandwidth": h, "held_out_nll": nll} for h, nll in zip(*tried, strict=True))
    n_dropped = known.get("n_dropped", 0)
    return Run(Termination(known["termination"]), history, "compress", passes, n_bytes, 1, 1, n_dropped, candidates)
