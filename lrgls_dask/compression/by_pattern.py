"""Rows that miss responses, compressed pattern by pattern: made in one pass, merged.

Rows that show the same equations see the likelihood only through their own [X Y_o]'[X Y_o] and their number. So a
system with holes is as many small compressed ones as there are patterns; complete rows are those of a single pattern.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lrgls_dask.compression.available import available_of, shown_by
from lrgls_dask.compression.compressed import (
    SMALL_FLOPS,
    Compressed,
    coarser,
    common_design,
    compress_rows,
    in_columns_of,
)
from lrgls_dask.compression.patterns import FirstMoments, first_pass, most_patterns
from lrgls_dask.compression.roots import root_of
from lrgls_dask.design.design import Design
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.moments import GramMoments, RootMoments
from lrgls_dask.rows.rows import Rows

__all__ = [
    "PAYS",
    "AnyCompressed",
    "CompressedPatterns",
    "by_pattern",
    "compress_shown",
    "merged",
    "patterns_kept",
    "rooted",
]

PATTERNS_OF_FEW_ROWS = 10_000  # kept where all rows are few, whose roots are no higher than their rows
PAYS = 0.5  # of the rows, that the rows of all patterns should be at most for compressing to be worth its while


@dataclass(frozen=True, eq=False)
class CompressedPatterns:
    """Few rows in place of N of which some miss responses.

    patterns : by the packed bits of the equations that rows show, RootMoments of their [X Y_o], (r, q + |o|) with
    r <= q + |o|; rows that show nothing are a pattern too.  route : "gram" or "qr", which pass made them.
    """

    design: Design
    patterns: Mapping[bytes, RootMoments]
    route: str

    @classmethod
    def of(cls, rows: Compressed | CompressedPatterns) -> CompressedPatterns:
        """The same rows; complete ones as a single pattern."""
        if isinstance(rows, CompressedPatterns):
            return rows
        key = np.packbits(np.ones(rows.design.n_equations, dtype=bool)).tobytes()
        return cls(rows.design, {key: _short(RootMoments(rows.head, rows.root))}, rows.route)

    @property
    def n_obs(self) -> int:
        """Rows of positive weight, those that show nothing included."""
        return sum(moments.head.n_rows for moments in self.patterns.values())

    @property
    def n_patterns(self) -> int:
        return len(self.patterns)

    @property
    def n_rows(self) -> int:
        """The few: of each pattern a mean, and a root of the centred cross-product."""
        return sum(len(moments.root) + 1 for moments in self.patterns.values())

    @property
    def n_bytes(self) -> int:
        """Of all roots and means."""
        return sum(m.root.nbytes + m.head.anchor.nbytes + m.head.offset.nbytes for m in self.patterns.values())

    @cached_property
    def cells(self) -> np.ndarray:
        """(K,) rows that show each equation."""
        return np.asarray(sum(m.head.n_rows * self.shown(key) for key, m in self.patterns.items()), dtype=np.int64)

    @property
    def weighted(self) -> str:
        """What had weights: "rows" or "cells"; nothing where none had."""
        if self.design.own is not None:
            return "cells"
        heads = [moments.head for moments in self.patterns.values()]
        return "rows" if any((head.weight, head.log_weight) != (head.n_rows, 0.0) for head in heads) else ""

    @property
    def varying_weights(self) -> bool:
        """Whether cells have weights that are not the same in every row of an equation.

        The mean of logs is the log of the mean for none but constant weights.
        """
        own = self.design.own
        if own is None:
            return False
        heads = [(self.shown(key), moments.head) for key, moments in self.patterns.items() if any(key)]
        if any(head.levels is None for _, head in heads):
            return True
        mean = np.sum([head.levels.weight for _, head in heads if head.levels], axis=0)
        logs = np.log(mean / sum(head.n_rows for _, head in heads))[own.weighting]
        return any(abs(head.log_weight / head.n_rows - logs[seen].mean()) > 1e-9 for seen, head in heads)

    def merge(self, other: CompressedPatterns) -> CompressedPatterns:
        """Of both sets of rows; a root of at most q + |o| + 1 rows is found anew for each pattern of both, no read."""
        design = common_design(self.design, other.design)
        found = {key: in_columns_of(design, self.design, moments) for key, moments in self.patterns.items()}
        for key, moments in other.patterns.items():
            more = in_columns_of(design, other.design, moments)
            found[key] = _short(found[key] + more) if key in found else more
        return CompressedPatterns(design, found, coarser(self.route, other.route))

    def first(self) -> FirstMoments:
        """What `first_pass` finds in the rows."""
        empty = sum(moments.head.n_rows for key, moments in self.patterns.items() if not any(key))
        batches, K = self.design.batches, self.design.n_equations
        summed = available_of(self.patterns, batches, K)
        return FirstMoments(
            batches, K, len(self.patterns), self.n_obs, empty, len(self.patterns), dict(self.patterns), summed
        )

    def complete(self) -> Compressed:
        """The rows that show every equation. Raises ValueError where none does."""
        for key, moments in self.patterns.items():
            if self.shown(key).all():
                return Compressed(self.design, moments.head, moments.root, self.route)
        raise ValueError(
            "Y: no row of positive weight shows every equation. Use missing='em' with covariance='lowrank' and "
            "algorithm='als', or leave out the equations that miss most."
        )

    def shown(self, key: bytes) -> np.ndarray:
        """(K,) which equations the rows of a pattern show."""
        return shown_by(key, self.design.n_equations)


AnyCompressed = Compressed | CompressedPatterns


def merged(mine: AnyCompressed, theirs: AnyCompressed) -> AnyCompressed:
    """The compressed system of both sets of rows. Raises ValueError where their designs differ."""
    if isinstance(mine, Compressed) and isinstance(theirs, Compressed):
        return mine.merge(theirs)
    return CompressedPatterns.of(mine).merge(CompressedPatterns.of(theirs))


def compress_shown(rows: Rows, *, meter: Meter) -> AnyCompressed:
    """The rows compressed, by patterns where some miss responses; one pass.

    A second one by QR for complete rows of which the first shows that digits would be lost. Holds at most 256 patterns,
    8 (q + K)^2 bytes each, or 10,000 where rows are few.
    Raises ValueError where the patterns are more, BadValues for values that no sum can use.
    """
    first = first_pass(rows, meter=meter, most=patterns_kept(rows))
    if first.is_complete and not first.empty:
        return first.compressed(rows.design) or compress_rows(rows, meter=meter)
    return by_pattern(first, rows.design)


def patterns_kept(rows: Rows) -> int:
    """Patterns beyond which none is kept."""
    width = rows.design.n_regressors + rows.design.n_equations
    return PATTERNS_OF_FEW_ROWS if rows.n_obs * width**2 <= SMALL_FLOPS else most_patterns(rows.design)


def by_pattern(first: FirstMoments, design: Design, of: str = "") -> CompressedPatterns:
    """What the first pass made of the rows, which are called `of` where it could keep no patterns.

    Raises ValueError then.
    """
    if first.patterns is None:
        raise ValueError(
            f"the rows{of} have more than {first.most:,} patterns of missing responses, each of which is compressed by "
            "itself: that does not pay. Fit the System itself with missing='em', which holds its rows or streams "
            "them, or with missing='drop'."
        )
    route = "gram" if any(isinstance(moments, GramMoments) for moments in first.patterns.values()) else "qr"
    return CompressedPatterns(design, {key: rooted(first.patterns[key]) for key in sorted(first.patterns)}, route)


def rooted(moments: RootMoments | GramMoments) -> RootMoments:
    """Rows that stand for those of a pattern, few rows of which leave few."""
    return _short(moments if isinstance(moments, RootMoments) else RootMoments(moments.head, _root(moments.cross)))


def _root(cross: np.ndarray) -> np.ndarray:
    lower = np.tril(cross)
    np.fill_diagonal(lower, np.maximum(lower.diagonal(), 0.0))  # rounding leaves less than nothing of few rows
    return root_of(lower)


def _short(moments: RootMoments) -> RootMoments:
    """Without the rows of the root that say nothing, of which few rows have many."""
    says = moments.root.any(axis=1)
    return moments if says.all() else replace(moments, root=moments.root[says])
