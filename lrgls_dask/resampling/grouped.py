"""Rows resampled by parts whose groups have effects that are absorbed: found anew in every replicate, without a read.

Sums of groups are kept for each part besides its cross-products. Of parts drawn with replacement both are sums, and
Z'M Z, M the projection off the dummies of the groups, is what is left of Z'Z once the effects of these sums are out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import scipy.sparse as sp

from lrgls_dask.compression.compressed import Compressed, partial_bytes
from lrgls_dask.compression.parts import parts_at_once
from lrgls_dask.compression.roots import root_of
from lrgls_dask.design.design import Design
from lrgls_dask.resampling.draws import Fitted, without_still
from lrgls_dask.rows.absorbed import GroupedMoments, GroupSums, grouped_kernel
from lrgls_dask.rows.effects import effects_of
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.moments import Head
from lrgls_dask.rows.partition import LabelledMoments, Partition, labelled_kernel
from lrgls_dask.rows.rows import GroupLabels, Rows
from lrgls_dask.rows.run_pass import run_pass

__all__ = ["GroupedParts", "GroupedResampler", "sum_grouped_parts"]


@dataclass(frozen=True, eq=False)
class GroupedParts:
    """moments : of each part that has rows of positive weight, by its number, less the effects that the fit found."""

    design: Design
    absorb: GroupLabels
    moments: dict[int, GroupedMoments]


def sum_grouped_parts(rows: Rows, partition: Partition, *, meter: Meter) -> GroupedParts:
    """Every part's sums, from one pass; 8 (q + K)^2 bytes a part, and 8 (q + K) for each of its groups.

    rows : which know the effects of their groups, so that what is left of these in a replicate is small.
    """
    assert rows.absorb is not None
    at_once = parts_at_once(partition.n_parts, consecutive=partition.consecutive)
    found: LabelledMoments = run_pass(
        rows,
        labelled_kernel,
        (partition, partial(grouped_kernel, n_groups=rows.absorb.n_groups)),
        partial_bytes=partial_bytes(rows.design) * at_once + rows.group_bytes,
        meter=meter,
        label="compress parts",
    )
    return GroupedParts(rows.design, rows.absorb, dict(sorted(found.parts.items())))


@dataclass(frozen=True, eq=False)
class GroupedResampler:
    """Sums of G parts about zero.

    n_rows, weights, log_weights : (G,).  cross : (G, M, M).  spread : (M,) standard deviation of each column.
    part, codes, rows, sums : (E,) and (E, M), every group of every part one after the other; group_weights : (E,).
    pair_part, pairs, together : (F,) every pair of groups likewise.
    """

    parts: GroupedParts
    n_rows: np.ndarray
    weights: np.ndarray
    log_weights: np.ndarray
    cross: np.ndarray
    spread: np.ndarray
    part: np.ndarray
    codes: np.ndarray
    rows_of_groups: np.ndarray
    group_weights: np.ndarray
    sums: np.ndarray
    pair_part: np.ndarray
    pairs: np.ndarray
    together: np.ndarray
    fitted: Fitted

    @property
    def n_parts(self) -> int:
        return len(self.weights)

    @classmethod
    def of(cls, parts: GroupedParts, fitted: Fitted) -> GroupedResampler:
        heads = [each.moments.head for each in parts.moments.values()]
        groups = [each.groups for each in parts.moments.values()]
        weights = np.array([head.weight for head in heads])
        cross = np.stack([each.moments.cross for each in parts.moments.values()])
        means = np.stack([head.mean for head in heads])
        cross += weights[:, None, None] * means[:, :, None] * means[:, None, :]
        numbers = np.arange(len(groups))
        return cls(
            replace(parts, moments={}),
            np.array([head.n_rows for head in heads]),
            weights,
            np.array([head.log_weight for head in heads]),
            cross,
            np.sqrt(np.einsum("gii->i", cross) / weights.sum()),
            np.repeat(numbers, [len(each.codes) for each in groups]),
            np.concatenate([each.codes for each in groups]),
            np.concatenate([each.rows for each in groups]),
            np.concatenate([each.weights for each in groups]),
            np.concatenate([each.sums + each.weights[:, None] * each.anchor for each in groups]),
            np.repeat(numbers, [len(each.pairs) for each in groups]),
            np.concatenate([each.pairs for each in groups]),
            np.concatenate([each.together for each in groups]),
            fitted,
        )

    def rows(self, counts: np.ndarray) -> Compressed:
        """The compressed system of every part taken as often as counts (G,) says, less the effects of its groups.

        Raises ValueError where these leave too few rows.
        """
        design, absorb = self.parts.design, self.parts.absorb
        sums = self._sums(counts)
        found = effects_of(sums, absorb)
        if sums.n_rows <= found.n_parameters + int(design.sizes.max()):
            raise ValueError("the effects of the groups that were drawn leave nothing of their rows.")
        cross = np.tensordot(counts.astype(float), self.cross, 1)
        taken = found.effects.T @ found.right
        cross -= sums.weight * np.outer(found.offset, found.offset) + 0.5 * (taken + taken.T)
        without_still(cross, sums.weight, self.spread)
        none = np.zeros(len(cross))
        head = Head(sums.n_rows, sums.weight, sums.log_weight, none, none)
        assert design.absorbed is not None
        absorbed = replace(design.absorbed, n_parameters=found.n_parameters, is_exact=found.is_exact)
        return Compressed(replace(design, absorbed=absorbed), head, root_of(cross), "gram")

    def _sums(self, counts: np.ndarray) -> GroupSums:
        codes, adding = _adding(self.codes, counts[self.part])
        pairs, of_pairs = _adding(self.pairs, counts[self.pair_part])
        return GroupSums(
            int(counts @ self.n_rows),
            float(counts @ self.weights),
            float(counts @ self.log_weights),
            np.zeros(self.sums.shape[1]),
            codes,
            np.rint(adding @ self.rows_of_groups).astype(np.int64),
            adding @ self.group_weights,
            adding @ self.sums,
            pairs,
            of_pairs @ self.together,
        )


def _adding(keys: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, sp.csr_array]:
    """The distinct keys (E,) with a count above zero, ascending, and (keys, E) what adds the entries of each."""
    taken = np.flatnonzero(counts)
    distinct, at = np.unique(keys[taken], return_inverse=True)
    shape = (len(distinct), len(keys))
    return distinct, sp.csr_array((counts[taken].astype(float), (at.reshape(-1), taken)), shape=shape)
