"""Rows that miss responses, summed by parts that stay apart and taken together again, each as often as one likes.

A part is what `first_pass` finds in its rows: moments of every pattern of missing responses, or the rows themselves
where those are held. Rows taken m times are the same moments with m times the weight, and as often in the likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial, reduce
from operator import add

import numpy as np

from lrgls_dask.compression.compressed import partial_bytes, qr_is_cheap
from lrgls_dask.compression.parts import parts_at_once
from lrgls_dask.compression.patterns import (
    PATTERNS_IN_A_SUM,
    FirstMoments,
    FirstParams,
    are_few,
    first_kernel,
    most_patterns,
)
from lrgls_dask.compression.roots import root_of
from lrgls_dask.design.design import Design
from lrgls_dask.rows.block import Block, side_by_side
from lrgls_dask.rows.kernels import checked_weights
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.moments import GramMoments, Head, Levels, RootMoments
from lrgls_dask.rows.partition import LabelledMoments, Partition, labelled_kernel
from lrgls_dask.rows.purposes import PATTERNS
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.run_pass import run_pass

__all__ = ["SeenRows", "ShownParts", "compress_shown_parts", "parts_that_show"]

SHORT = 4  # times q + K rows a part, up to which their root costs no more than it saves


@dataclass(frozen=True, eq=False)
class SeenRows:
    """Rows of which all that is asked for has been found: what a first pass over them would find.

    units : (K,) standard units of the responses, where they are those of other rows; None for these rows' own.
    """

    design: Design
    varying_weights: bool
    moments: FirstMoments
    units: np.ndarray | None = None

    def first(self) -> FirstMoments:
        """What a first pass finds."""
        return self.moments


@dataclass(frozen=True, eq=False)
class ShownParts:
    """Parts of rows by their numbers. Only those with rows of positive weight are there.

    varying_weights : whether cells have weights that are not the same in every row of an equation.
    """

    design: Design
    varying_weights: bool
    parts: dict[int, FirstMoments]

    @cached_property
    def by_pattern(self) -> bool:
        """Whether patterns are so few that rows are taken together by them; else the rows themselves are."""
        if any(part.patterns is None for part in self.parts.values()):
            return False
        keys = {key for part in self.parts.values() for key in part.patterns or ()}
        return len(keys) <= max(part.most for part in self.parts.values())

    @property
    def at_hand(self) -> bool:
        """Whether all that fits ask of the rows is in memory."""
        return self.by_pattern or all(part.rows for part in self.parts.values())

    def that_show(self) -> ShownParts:
        """Without the parts of which no row shows anything."""
        return replace(self, parts={number: each for number, each in self.parts.items() if each.n_rows > each.empty})

    def together(self, *, without: int | None = None) -> SeenRows:
        """All parts, or all but one, to the digits of their own sums."""
        chosen = [part for number, part in self.parts.items() if number != without]
        return self._seen(reduce(add, chosen))

    def part(self, number: int) -> SeenRows:
        """One part by itself."""
        return self._seen(self.parts[number])

    def taken(self, counts: np.ndarray) -> SeenRows:
        """All rows of every part, those of part i of `parts` as often as counts[i] says, (parts,) integers."""
        chosen = [(part, int(n)) for part, n in zip(self.parts.values(), counts, strict=True) if n]
        first = chosen[0][0]
        n_rows, empty = sum(n * part.n_rows for part, n in chosen), sum(n * part.empty for part, n in chosen)
        if self.by_pattern:
            of_parts = {key: pool.taken(counts) for key, pool in self._pools.items()}
            patterns = {key: moments for key, moments in of_parts.items() if moments is not None}
            found = FirstMoments(
                first.batches, first.n_equations, len(patterns), n_rows, empty, len(patterns), dict(patterns), None
            )
        else:
            summed = [tuple(each.times(n) for each in part.available) for part, n in chosen]
            total = summed[0]
            for more in summed[1:]:
                total = tuple(a + b for a, b in zip(total, more, strict=True))
            rows = tuple(block for part, n in chosen for _ in range(n) for block in part.rows)
            n_patterns = max(part.n_patterns for part, _ in chosen)
            found = FirstMoments(
                first.batches, first.n_equations, first.most, n_rows, empty, n_patterns, None, total, rows
            )
        return self._seen(found)

    def _seen(self, found: FirstMoments) -> SeenRows:
        return SeenRows(self.design, self.varying_weights, found)

    @cached_property
    def _pools(self) -> dict[bytes, _Pool]:
        """The moments of every pattern, of the parts that have it."""
        found: dict[bytes, list[tuple[int, RootMoments | GramMoments]]] = {}
        for place, part in enumerate(self.parts.values()):
            for key, moments in (part.patterns or {}).items():
                found.setdefault(key, []).append((place, moments))
        return {key: _Pool.of(*zip(*found[key], strict=True)) for key in sorted(found)}


@dataclass(frozen=True, eq=False)
class _Pool:
    """Rows of one pattern in g parts, about one common row.

    places : (g,) of the parts.  n_rows, weight, log_weight : (g,).  anchor : (M,).  offset : (g, M) means less the
    anchor.  root : (H, M) the roots of all on top of one another, part : (H,) whose each row is, by its position.
    """

    places: np.ndarray
    n_rows: np.ndarray
    weight: np.ndarray
    log_weight: np.ndarray
    levels: tuple[Levels | None, ...]
    anchor: np.ndarray
    offset: np.ndarray
    root: np.ndarray
    part: np.ndarray

    @classmethod
    def of(cls, places: tuple[int, ...], moments: tuple[RootMoments | GramMoments, ...]) -> _Pool:
        heads = [each.head for each in moments]
        roots = [each.root if isinstance(each, RootMoments) else root_of(np.tril(each.cross)) for each in moments]
        roots = [root[root.any(axis=1)] for root in roots]
        anchor = heads[0].anchor
        return cls(
            np.array(places),
            np.array([head.n_rows for head in heads]),
            np.array([head.weight for head in heads]),
            np.array([head.log_weight for head in heads]),
            tuple(head.levels for head in heads),
            anchor,
            np.stack([(head.anchor - anchor) + head.offset for head in heads]),
            np.concatenate(roots),
            np.repeat(np.arange(len(roots)), [len(root) for root in roots]),
        )

    def taken(self, counts: np.ndarray) -> RootMoments | None:
        """The rows of every part as often as counts (parts,) says; None where none is."""
        mine = counts[self.places]
        taken = np.flatnonzero(mine)
        if len(taken) == 0:
            return None
        weight, n = mine[taken] * self.weight[taken], mine[taken]
        mean = weight @ self.offset[taken] / weight.sum()
        between = np.sqrt(weight)[:, None] * (self.offset[taken] - mean)
        rows = mine[self.part] > 0
        root = self.root[rows] * np.sqrt(mine[self.part[rows]])[:, None]
        if len(taken) > 1:
            root = np.concatenate([root, between])
        if len(root) > root.shape[1]:
            root = root_of(root.T @ root)
        levels = [each.times(int(m)) for each, m in zip(self.levels, mine, strict=True) if each is not None and m]
        head = Head(
            int(n @ self.n_rows[taken]),
            float(weight.sum()),
            float(n @ self.log_weight[taken]),
            self.anchor,
            mean,
            sum(levels[1:], levels[0]) if levels else None,
        )
        return RootMoments(head, root)


def compress_shown_parts(
    rows: Rows, partition: Partition, *, meter: Meter, most: int | None = None, keep: bool | None = None
) -> ShownParts:
    """Every part's moments of each pattern, or the rows themselves where patterns are many and rows few; one pass.

    most : patterns beyond which none is kept, `most_patterns` if None; 0 keeps none.  keep : whether rows may be held,
    if None where they are few.
    Where there are more patterns than are kept, of rows that are too many to be held, the moments of each equation are
    what is left of the parts, which then are not `at_hand`.
    """
    design, n_parts = rows.design, partition.n_parts
    width, keep = design.n_regressors + design.n_equations, are_few(rows) if keep is None else keep
    most = most_patterns(design) if most is None else most
    # short pieces are best kept as they are
    by_qr = qr_is_cheap(rows) or rows.n_obs <= SHORT * width * n_parts
    params = FirstParams.of(design, most, by_qr=by_qr, keep=keep)
    at_once = parts_at_once(n_parts, consecutive=partition.consecutive)
    found: LabelledMoments = run_pass(
        rows,
        labelled_kernel,
        (partition, partial(first_kernel, params=params)),
        partial_bytes=min(at_once * PATTERNS_IN_A_SUM * partial_bytes(design), 8 * rows.n_obs * width),
        meter=meter,
        label="compress parts",
        holes=True,
    )
    parts = {number: each.whole() for number, each in sorted(found.parts.items())}
    made = ShownParts(design, rows.varying_weights, parts)
    if made.by_pattern:
        return replace(made, parts={number: replace(part, rows=()) for number, part in made.parts.items()})
    return made


def parts_that_show(rows: Rows, partition: Partition, *, meter: Meter) -> np.ndarray:
    """Numbers, ascending, of the parts that have rows of positive weight which show something; one pass."""
    found: np.ndarray = run_pass(
        rows, _shown_rows, partition, partial_bytes=8 * partition.n_parts, meter=meter, label=PATTERNS, holes=True
    )
    return np.flatnonzero(found)


def _shown_rows(block: Block, partition: Partition) -> np.ndarray:
    """(n_parts,) how many such rows each part has in a block."""
    shown = ~np.isnan(side_by_side(block.y)).all(axis=1)
    weights = checked_weights(block)
    if weights is not None:
        shown &= weights > 0
    codes = partition.codes(block.start, block.start + block.n_rows)
    return np.bincount(codes[shown], minlength=partition.n_parts)
