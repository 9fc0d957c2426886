"""Rows compressed by parts that stay apart: folds, segments, groups; all from the same pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from lrgls_dask.compression.by_pattern import AnyCompressed, by_pattern, patterns_kept
from lrgls_dask.compression.compressed import LOST_DIGITS, Compressed, Route, partial_bytes, qr_is_cheap, smallest_pivot
from lrgls_dask.compression.patterns import FirstMoments, FirstParams, first_kernel
from lrgls_dask.compression.roots import root_of
from lrgls_dask.design.design import Design
from lrgls_dask.rows.kernels import gram_kernel, root_kernel
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.moments import GramMoments, RootMoments
from lrgls_dask.rows.partition import GivenParts, LabelledMoments, Partition, labelled_kernel
from lrgls_dask.rows.resources import blas_for
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.run_pass import run_pass

__all__ = ["Parts", "complete_parts", "compress_by", "compress_parts", "parts_at_once"]


# ---------------------------------------------------------------------------------------------- in parts


@dataclass(frozen=True, eq=False)
class Parts:
    """Rows compressed apart and together by one pass.

    moments : of each part that has rows of positive weight, by its number.  route : how they were summed.
    """

    design: Design
    moments: dict[int, GramMoments] | dict[int, RootMoments]
    route: str

    def together(self, *, without: int | None = None) -> Compressed:
        """All parts as one compressed system, or all but one; O((q + K)^3), no read."""
        chosen = [moments for number, moments in self.moments.items() if number != without]
        total = chosen[0]
        for moments in chosen[1:]:
            total = total + moments  # type: ignore[operator]  # all of one kind
        return self._rooted(total)

    def part(self, number: int) -> Compressed:
        """One part by itself."""
        return self._rooted(self.moments[number])

    def _rooted(self, moments: GramMoments | RootMoments) -> Compressed:
        root = moments.root if isinstance(moments, RootMoments) else root_of(moments.cross)
        return Compressed(self.design, moments.head, root, self.route)


def compress_parts(rows: Rows, partition: Partition, *, route: Route = "auto", meter: Meter) -> Parts:
    """Every part's moments from one pass, or a second one by QR where the first shows that digits would be lost.

    The flops of `compress_rows`, and (q + K)^2 numbers for each task and each part that has rows there.
    """
    width = rows.design.n_regressors + rows.design.n_equations
    if route == "qr" or (route == "auto" and qr_is_cheap(rows)):
        return Parts(rows.design, _sum_parts(rows, partition, root_kernel, "compress parts (QR)", meter), "qr")
    by_gram = Parts(rows.design, _sum_parts(rows, partition, gram_kernel, "compress parts", meter), "gram")
    with blas_for(width):
        if route == "gram" or smallest_pivot(by_gram.together()) > LOST_DIGITS:
            return by_gram
    return Parts(rows.design, _sum_parts(rows, partition, root_kernel, "compress parts (QR)", meter), "qr")


def complete_parts(
    rows: Rows, partition: Partition, firsts: Mapping[int, FirstMoments], *, meter: Meter
) -> Parts | None:
    """What `compress_parts` makes of the rows where none shows only some equations, None where some do.

    firsts : what the first pass has found in every part. No pass, or one by QR where that shows that digits are lost.
    """
    moments = {number: first.complete for number, first in firsts.items()}
    if any(each is None for each in moments.values()):
        return None
    is_root = isinstance(next(iter(moments.values())), RootMoments)
    parts = Parts(rows.design, moments, "qr" if is_root else "gram")  # type: ignore[arg-type]  # all of one kind
    if is_root or smallest_pivot(parts.together()) > LOST_DIGITS:
        return parts
    return compress_parts(replace(rows, complete_only=True), partition, route="qr", meter=meter)


def parts_at_once(n_parts: int, *, consecutive: bool) -> int:
    """How many parts the sum over neighbouring rows holds: all, or the two on both sides of a border."""
    return min(n_parts, 2) if consecutive else n_parts


def _sum_parts(rows: Rows, partition: Partition, kernel: Any, label: str, meter: Meter) -> dict[int, Any]:
    size = partial_bytes(rows.design) * parts_at_once(partition.n_parts, consecutive=partition.consecutive)
    moments = run_pass(rows, labelled_kernel, (partition, kernel), partial_bytes=size, meter=meter, label=label)
    return dict(sorted(moments.parts.items()))


def compress_by(rows: Rows, labels: np.ndarray, *, meter: Meter) -> dict[Any, AnyCompressed]:
    """One compressed system per distinct label, in sorted order, from one pass; by patterns where rows have holes."""
    distinct, codes = np.unique(labels, return_inverse=True)
    params = FirstParams.of(rows.design, patterns_kept(rows), by_qr=True)
    found: LabelledMoments = run_pass(
        rows,
        labelled_kernel,
        (GivenParts(codes, len(distinct)), partial(first_kernel, params=params)),
        partial_bytes=len(distinct) * partial_bytes(rows.design),
        meter=meter,
        label="compress parts (QR)",
        holes=True,
    )
    made: dict[Any, AnyCompressed] = {}
    for number, first in sorted(found.parts.items()):
        label = distinct[number].item() if hasattr(distinct[number], "item") else distinct[number]
        whole = None if first.empty else first.compressed(rows.design)
        made[label] = by_pattern(first, rows.design, f" of {label!r}") if whole is None else whole
    return made
