"""The likelihood at some points and the information at one Sigma, of the same rows: one pass in the place of two."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrgls_dask.missing.expected import SeveralExpected, expected_moments
from lrgls_dask.missing.kernels import MaskedParams, SeveralParams
from lrgls_dask.missing.slabs import MaskedSlab
from lrgls_dask.rows.moments import Summed

__all__ = ["LastLook", "LastLookParams", "last_look"]


@dataclass(frozen=True, eq=False)
class LastLookParams:
    """points : where the likelihood is looked at.  information : at whose Sigma that of the coefficients is summed."""

    points: SeveralParams
    information: MaskedParams

    @property
    def origin(self) -> np.ndarray:
        return self.points.origin


@dataclass(frozen=True, eq=False)
class LastLook(Summed):
    """Of all points, and what `last_look.moments` sums."""

    expected: SeveralExpected
    information: Any


@dataclass(frozen=True, eq=False)
class last_look:
    """LastLook of some slabs.  moments : sums the information of slabs, each of which it is done with at once."""

    moments: Callable[[Iterable[MaskedSlab], MaskedParams], Any]

    def __call__(self, slabs: Iterable[MaskedSlab], params: LastLookParams) -> LastLook | None:
        total: SeveralExpected | None = None

        def looked_at() -> Iterator[MaskedSlab]:
            nonlocal total
            for slab in slabs:
                part = expected_moments([slab], params.points)
                total = part if total is None or part is None else total + part
                yield slab

        information = self.moments(looked_at(), params.information)
        return None if total is None else LastLook(total, information)
