"""The error covariances of a fit whose factors vary in time: one for each segment of rows, by its label."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import zarr

from lrgls_dask.data.storedlabels import decode_labels, encode_labels
from lrgls_dask.data.zarrio import read_array, write_array
from lrgls_dask.sigma.lowrank import LowRank

__all__ = ["SegmentSigmas"]


@dataclass(frozen=True, eq=False)
class SegmentSigmas:
    """Sigma_t = F_t F_t' + diag(d_t) of T segments, in the user's units.

    labels : of the segments.  edges : (T + 1,) the first row of each, the last is the number of rows, those of weight
    zero included.  rows : (T,) rows of positive weight that show something.  cells : (T, K) those of them that show
    each equation.  loadings : (T, K, k).  idio_var : (T, K).
    bandwidth : how far neighbours count.  n_parameters : between those of one Sigma (infinite bandwidth) and of T
    (bandwidth 0).
    """

    labels: pd.Index
    edges: np.ndarray
    rows: np.ndarray
    cells: np.ndarray
    loadings: np.ndarray
    idio_var: np.ndarray
    bandwidth: float
    n_parameters: float

    def __post_init__(self) -> None:
        for array in (self.edges, self.rows, self.cells, self.loadings, self.idio_var):
            array.flags.writeable = False

    def __len__(self) -> int:
        """T."""
        return len(self.labels)

    @property
    def rank(self) -> int:
        """k."""
        return int(self.loadings.shape[2])

    @property
    def has_holes(self) -> bool:
        """Whether some row shows only some equations."""
        return bool((self.cells != self.rows[:, None]).any())

    @cached_property
    def values(self) -> tuple[LowRank, ...]:
        """Each segment's, in order."""
        return tuple(map(LowRank, self.loadings, self.idio_var))

    def at(self, segment: Any) -> LowRank:
        """That of the segment with this label.  Raises KeyError for one that there is not."""
        try:
            return self.values[self.labels.get_loc(segment)]
        except KeyError:
            shown = ", ".join(map(str, self.labels[:5]))
            raise KeyError(f"no segment {segment!r}; the first are {shown}") from None

    def write(self, group: zarr.Group) -> None:
        labels, kind = encode_labels(self.labels, "segment labels")
        write_array(group, "segment", labels, ("segment",), **kind)
        write_array(group, "edges", self.edges, ("edge",))
        write_array(group, "rows", self.rows, ("segment",))
        write_array(group, "cells", self.cells, ("segment", "equation"))
        write_array(group, "loadings", self.loadings, ("segment", "equation", "factor"))
        write_array(group, "idio_var", self.idio_var, ("segment", "equation"))
        # an infinite bandwidth is no number in JSON
        group.attrs.update(bandwidth=repr(self.bandwidth), n_sigma_parameters=self.n_parameters)

    @classmethod
    def read(cls, group: zarr.Group) -> SegmentSigmas:
        known: dict[str, Any] = dict(group.attrs)
        rows, idio_var = read_array(group, "rows"), read_array(group, "idio_var")
        return cls(
            pd.Index(decode_labels(read_array(group, "segment"), dict(group["segment"].attrs)), name="segment"),
            # the oldest files have none, and there rows of weight zero are not counted
            read_array(group, "edges") if "edges" in group else np.concatenate([[0], np.cumsum(rows)]),
            rows,
            # files of earlier versions have complete rows
            read_array(group, "cells") if "cells" in group else np.repeat(rows[:, None], idio_var.shape[1], axis=1),
            read_array(group, "loadings"),
            idio_var,
            float(known["bandwidth"]),
            known["n_sigma_parameters"],
        )
