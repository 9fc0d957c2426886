"""What a saved fit keeps of the equations that it skipped."""

from __future__ import annotations

import numpy as np
import zarr

from lrgls_dask.data.zarrio import read_array, read_design, write_array, write_design
from lrgls_dask.design.skipped import Skipped

__all__ = ["read_skipped", "write_skipped"]

GROUP = "all_equations"  # what else is in a saved fit is of those that were estimated


def write_skipped(group: zarr.Group, skipped: Skipped | None) -> None:
    """All equations and what became of each, where some were skipped."""
    if skipped is None:
        return
    mine = group.create_group(GROUP)
    write_design(mine, skipped.whole)
    write_array(mine, "status", np.array(skipped.status), ("equation",))


def read_skipped(group: zarr.Group) -> Skipped | None:
    """The same; None where no equation was skipped."""
    if GROUP not in group:
        return None
    mine = zarr.open_group(group.store, path=f"{group.path}/{GROUP}".lstrip("/"), mode="r")
    return Skipped(read_design(mine), tuple(str(said) for said in read_array(mine, "status")))
