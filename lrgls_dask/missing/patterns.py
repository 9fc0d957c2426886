"""The first pass over rows with missing responses: moments of each equation, and few rows where patterns are few.

Rows that show the same equations see the likelihood only through their own [X Y_o]'[X Y_o] and their number, so each
pattern compresses as a complete system does (compress.py). Beyond a number of patterns that is no gain: the pass then
returns what a streamed fit needs to start, and how many patterns it had met.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrgls_dask.compress import LOST_DIGITS, SMALL_FLOPS, Compressed, partial_bytes, root_of, smallest_pivot
from lrgls_dask.design import Design, DesignGroup
from lrgls_dask.errors import BadValues
from lrgls_dask.kernels import LARGEST, Block, bad_values, root_kernel, slabs, width_of
from lrgls_dask.missing.kernels import MaskedSlab
from lrgls_dask.moments import GramMoments, Head, RootMoments, Sized
from lrgls_dask.passes import Meter, run_pass
from lrgls_dask.rows import Rows

__all__ = [
    "AvailableMoments",
    "FirstMoments",
    "FirstParams",
    "PatternRows",
    "first_kernel",
    "first_pass",
    "most_patterns",
]

MOST_PATTERNS = 256  # a few hundred roots are worth their memory, and a pass that tells them apart its time
PATTERN_BYTES = 2**29  # of all roots together
CONSTANT = 1e-13  # of a sum of squares about the anchor, fifty times what rounding leaves of none
SLAB_ROWS = 2048  # pseudo-rows worked on at once


# ---------------------------------------------------------------------------------------------- moments


@dataclass(frozen=True, eq=False)
class AvailableMoments(Sized):
    """Of the equations of one group, each over the rows that show it, its columns and its response together.

    rows, weight, log_weight : (m,) counts, sums of w and of log w.  anchor, offset : (m, p + 1), together the mean.
    cross : (m, p + 1, p + 1) centred cross-products.
    """

    rows: np.ndarray
    weight: np.ndarray
    log_weight: np.ndarray
    anchor: np.ndarray
    offset: np.ndarray
    cross: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        return self.anchor + self.offset

    def __add__(self, other: AvailableMoments) -> AvailableMoments:
        weight = self.weight + other.weight
        mine = (self.weight > 0)[:, None]
        anchor = np.where(mine, self.anchor, other.anchor)
        start = np.where(mine, self.offset, other.offset)
        gap = np.where((other.weight > 0)[:, None], (other.anchor - anchor) + (other.offset - start), 0.0)
        share = other.weight / np.where(weight > 0, weight, 1.0)
        between = (self.weight * share)[:, None, None] * gap[:, :, None] * gap[:, None, :]
        return AvailableMoments(
            self.rows + other.rows,
            weight,
            self.log_weight + other.log_weight,
            anchor,
            start + share[:, None] * gap,
            self.cross + other.cross + between,
        )


@dataclass(frozen=True, eq=False)
class FirstMoments(Sized):
    """n_rows : rows of positive weight.  groups : AvailableMoments per group.  n_patterns : distinct patterns met, a
    lower bound where they were too many.  patterns : by pattern (packed bits of the observed equations), None then.
    empty : rows with nothing observed.
    """

    most: int
    n_rows: int
    empty: int
    groups: tuple[AvailableMoments, ...]
    n_patterns: int
    patterns: dict[bytes, RootMoments | GramMoments] | None

    @property
    def is_complete(self) -> bool:
        """Whether no row misses a response."""
        return all(bool((group.rows == self.n_rows).all()) for group in self.groups)

    def compressed(self, design: Design) -> Compressed | None:
        """What `compress_rows` makes of complete rows; None where it has to read them again for the digits."""
        if not self.is_complete or not self.patterns:
            return None
        (moments,) = self.patterns.values()
        if isinstance(moments, RootMoments):
            return Compressed(design, moments.head, moments.root, "qr")
        found = Compressed(design, moments.head, root_of(moments.cross), "gram")
        return found if smallest_pivot(found) > LOST_DIGITS else None

    def __add__(self, other: FirstMoments) -> FirstMoments:
        if self.patterns is None or other.patterns is None:
            return self._merged(other, None)
        merged = dict(self.patterns)
        for pattern, moments in other.patterns.items():
            merged[pattern] = merged[pattern] + moments if pattern in merged else moments  # type: ignore[operator]
        return self._merged(other, merged)

    def __iadd__(self, other: FirstMoments) -> FirstMoments:
        """The same in the memory of `self`, which is spent."""
        merged = None if other.patterns is None else self.patterns
        if merged is not None and other.patterns is not None:
            for pattern, moments in other.patterns.items():
                if pattern in merged:
                    merged[pattern] += moments  # type: ignore[operator]
                else:
                    merged[pattern] = moments
        return self._merged(other, merged)

    def _merged(self, other: FirstMoments, merged: dict[bytes, RootMoments | GramMoments] | None) -> FirstMoments:
        n_patterns = max(self.n_patterns, other.n_patterns)
        if merged is not None:
            n_patterns = len(merged)
            if n_patterns > self.most:
                merged = None
        groups = tuple(a + b for a, b in zip(self.groups, other.groups, strict=True))
        return FirstMoments(self.most, self.n_rows + other.n_rows, self.empty + other.empty, groups, n_patterns, merged)


@dataclass(frozen=True, eq=False)
class FirstParams:
    """groups : of the design.  most : patterns beyond which none is kept.  by_qr : how a pattern's rows are reduced."""

    groups: tuple[DesignGroup, ...]
    most: int
    by_qr: bool


# ---------------------------------------------------------------------------------------------- the kernel


def first_kernel(block: Block, params: FirstParams) -> FirstMoments | None:
    """FirstMoments of a block, n sum p_j^2 multiplications, n (q + K)^2 where patterns are few; None without rows."""
    anchor = _observed_mean(block)
    n_y, groups = width_of(block.y), params.groups
    sums = [_Sums.zero(group) for group in groups]
    n_rows, empty, seen = 0, 0, []
    for values, _, weights in slabs(block, anchor):
        y = values[:, -n_y:]
        missing = np.isnan(y)
        observed = np.subtract(1.0, missing)
        if not np.isfinite(values[:, :-n_y].sum()):
            raise _bad_but_for_missing(block)
        np.copyto(y, 0.0, where=missing)
        for group, total in zip(groups, sums, strict=True):
            total.add(values[:, :-n_y][:, group.take_columns], y, observed, weights, group)
        n_rows += len(values)
        empty += int((~observed.any(axis=1)).sum())
        seen.append(np.packbits(~missing, axis=1))
    if n_rows == 0:
        return None
    available = tuple(
        total.centred(anchor[group.columns], anchor[-n_y:][group.equations])
        for group, total in zip(groups, sums, strict=True)
    )
    for moments in available:
        if not (np.isfinite(moments.cross).all() and (np.abs(moments.mean) < LARGEST).all()):
            raise _bad_but_for_missing(block)
    codes, first = _codes(packed := np.concatenate(seen))
    patterns = None
    if len(first) <= params.most:
        if params.by_qr:
            patterns = _roots(block, packed, codes, first, n_y)
        else:
            patterns = _grams(block, packed, codes, first, anchor)
    return FirstMoments(params.most, n_rows, empty, available, len(first), patterns)


@dataclass
class _Sums:
    """Sums about the anchor of one group's equations, brought up slab by slab."""

    rows: np.ndarray
    weight: np.ndarray
    log_weight: np.ndarray
    total: np.ndarray
    cross: np.ndarray

    @classmethod
    def zero(cls, group: DesignGroup) -> _Sums:
        p, m = group.coefficients.shape
        return cls(np.zeros(m), np.zeros(m), np.zeros(m), np.zeros((m, p + 1)), np.zeros((m, p + 1, p + 1)))

    def add(
        self, x: np.ndarray, y: np.ndarray, observed: np.ndarray, weights: np.ndarray | None, group: DesignGroup
    ) -> None:
        shown = observed[:, group.take_equations]
        count = shown.sum(axis=0)
        self.rows += count
        self.weight += count if weights is None else weights @ shown
        if weights is not None:
            self.log_weight += np.log(weights) @ shown
        both = np.empty((len(x), x.shape[1] + 2))
        for i, j in enumerate(group.equations):
            both[:, :-2] = x
            both[:, -2] = y[:, j]
            both[:, -1] = 1.0
            both *= shown[:, i, None]
            sums = both.T @ (both if weights is None else both * weights[:, None])
            self.total[i] += sums[-1, :-1]
            self.cross[i] += sums[:-1, :-1]

    def centred(self, x_anchor: np.ndarray, y_anchor: np.ndarray) -> AvailableMoments:
        m = len(self.rows)
        anchor = np.column_stack([np.broadcast_to(x_anchor, (m, len(x_anchor))), y_anchor])
        offset = self.total / np.where(self.weight > 0, self.weight, 1.0)[:, None]
        cross = self.cross - self.weight[:, None, None] * offset[:, :, None] * offset[:, None, :]
        # a column that is constant where the equation is observed, elsewhere not, leaves rounding here
        diagonal = np.arange(cross.shape[1])
        constant = cross[:, diagonal, diagonal] <= CONSTANT * self.cross[:, diagonal, diagonal]
        cross[constant[:, :, None] | constant[:, None, :]] = 0.0
        return AvailableMoments(self.rows, self.weight, self.log_weight, anchor, offset, cross)


def _observed_mean(block: Block) -> np.ndarray:
    """(q + K,) the mean of some first rows: X as it is, Y where it is observed, 0 for anything not finite."""
    head = np.concatenate(
        [np.asarray(a[:64], dtype=np.float64).reshape(-1, width_of((a,))) for a in (*block.x, *block.y)], axis=1
    )
    usable = np.isfinite(head) & (np.abs(head) < LARGEST)
    base = np.where(usable.any(axis=0), head[np.argmax(usable, axis=0), np.arange(head.shape[1])], 0.0)
    less = np.where(usable, head - np.where(usable, base, 0.0), 0.0)
    return np.asarray(base + less.sum(axis=0) / np.maximum(usable.sum(axis=0), 1))


def _codes(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pattern of each row (n,) as an integer, and the first row of each pattern; packed (n, bytes)."""
    wide = np.zeros((len(packed), -(-packed.shape[1] // 8) * 8), dtype=np.uint8)
    wide[:, : packed.shape[1]] = packed
    words = wide.view(np.uint64)
    # one odd number a word: rows are told apart by a hash, and then compared to be sure
    odd = np.random.default_rng(0).integers(1, 2**63, size=words.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(
        1
    )
    hashed = (words * odd).sum(axis=1, dtype=np.uint64) if words.shape[1] > 1 else words[:, 0]
    _, first, codes = np.unique(hashed, return_index=True, return_inverse=True)
    if words.shape[1] > 1 and not (words[first[codes]] == words).all():
        _, first, codes = np.unique(words, axis=0, return_index=True, return_inverse=True)
    return codes.reshape(-1), first


def _sorted_by_pattern(block: Block, codes: np.ndarray, n_patterns: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of positive weight in the order of their patterns, and where each pattern begins and ends."""
    kept = np.arange(block.n_rows) if block.weights is None else np.flatnonzero(np.asarray(block.weights) > 0)
    order = np.argsort(codes, kind="stable")
    return kept[order], np.searchsorted(codes[order], np.arange(n_patterns + 1))


def _roots(
    block: Block, packed: np.ndarray, codes: np.ndarray, first: np.ndarray, n_y: int
) -> dict[bytes, RootMoments | GramMoments]:
    """Each pattern's rows of [X Y_o] as RootMoments."""
    parts: dict[bytes, RootMoments | GramMoments] = {}
    y = block.y[0] if len(block.y) == 1 else np.column_stack(block.y)
    order, edges = _sorted_by_pattern(block, codes, len(first))
    for code, row in enumerate(first):
        rows = order[edges[code] : edges[code + 1]]
        shown = np.flatnonzero(np.unpackbits(packed[row], count=n_y))
        weights = None if block.weights is None else np.asarray(block.weights)[rows]
        of_y = y[rows].reshape(len(rows), -1)[:, shown]
        moments = root_kernel(Block(block.start, tuple(a[rows] for a in block.x), (of_y,), weights))
        if moments is not None:
            parts[packed[row].tobytes()] = moments
    return parts


def _grams(
    block: Block, packed: np.ndarray, codes: np.ndarray, first: np.ndarray, anchor: np.ndarray
) -> dict[bytes, RootMoments | GramMoments]:
    """Each pattern's rows of [X Y] as GramMoments, what is missing being nothing; about the block's one anchor."""
    parts: dict[bytes, RootMoments | GramMoments] = {}
    order, edges = _sorted_by_pattern(block, codes, len(first))
    for code, row in enumerate(first):
        rows = order[edges[code] : edges[code + 1]]
        values = np.concatenate([a[rows].reshape(len(rows), -1) for a in (*block.x, *block.y)], axis=1, dtype=float)
        values -= anchor
        np.copyto(values, 0.0, where=np.isnan(values))
        weight, log_weight = float(len(rows)), 0.0
        if block.weights is None:
            offset = values.sum(axis=0) / weight
            values -= offset
        else:
            weights = np.asarray(block.weights, dtype=np.float64)[rows]
            weight, log_weight = float(weights.sum()), float(np.log(weights).sum())
            offset = weights @ values / weight
            values -= offset
            values *= np.sqrt(weights)[:, None]
        head = Head(len(rows), weight, log_weight, anchor, offset)
        parts[packed[row].tobytes()] = GramMoments(head, values.T @ values)
    return parts


def _bad_but_for_missing(block: Block) -> BadValues:
    """Name the first value no sum can use, NaN in Y being none."""
    y = tuple(np.where(np.isnan(a), 0.0, a) for a in (np.asarray(a, dtype=np.float64) for a in block.y))
    return bad_values(Block(block.start, block.x, y, block.weights))


# ---------------------------------------------------------------------------------------------- the pass


def most_patterns(design: Design) -> int:
    """How many patterns are compressed: their roots have to fit."""
    return int(min(MOST_PATTERNS, max(1, PATTERN_BYTES // partial_bytes(design))))


def first_pass(rows: Rows, *, meter: Meter, most: int | None = None) -> FirstMoments:
    """FirstMoments of all rows: one pass.

    most : patterns beyond which none is kept, `most_patterns` if None; 0 keeps none.
    Raises BadValues for NaN in X and infinities anywhere.
    """
    design = rows.design
    width = design.n_regressors + design.n_equations
    kept = most_patterns(design) if most is None else most
    params = FirstParams(design.groups, kept, rows.n_obs * width**2 <= SMALL_FLOPS)
    size = 8 * int(((design.sizes + 1) ** 2).sum()) + (4 * partial_bytes(design) if kept else 0)
    moments: FirstMoments = run_pass(
        rows, first_kernel, params, partial_bytes=size, meter=meter, label="patterns of missing values"
    )
    return moments


# ---------------------------------------------------------------------------------------------- pseudo-rows


@dataclass(frozen=True, eq=False)
class PatternRows:
    """Pseudo-rows of all patterns, less an origin: x (r, q), y (r, K) zero where missing, observed (r, K), unit (r,),
    count (r,), as in MaskedSlab."""

    x: np.ndarray
    y: np.ndarray
    observed: np.ndarray
    unit: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, patterns: dict[bytes, RootMoments | GramMoments], design: Design, origin: np.ndarray) -> PatternRows:
        """At most q + |o| + 1 pseudo-rows a pattern, patterns in the order of their bits."""
        parts = [_pseudo_rows(key, patterns[key], design, origin) for key in sorted(patterns)]
        values, observed, unit, count = (np.concatenate(column) for column in zip(*parts, strict=True))
        q = design.n_regressors
        return cls(values[:, :q], values[:, q:], observed, unit, count)

    def slabs(self) -> list[MaskedSlab]:
        """The rows as the kernels want them."""
        cuts = range(0, len(self.x), SLAB_ROWS)
        return [
            MaskedSlab(*(a[i : i + SLAB_ROWS] for a in (self.x, self.y, self.observed, self.unit, self.count)))
            for i in cuts
        ]


def _pseudo_rows(
    key: bytes, moments: RootMoments | GramMoments, design: Design, origin: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(r, q + K) values, (r, K) observed, (r,) unit and (r,) count of one pattern."""
    n_y, q = design.n_equations, design.n_regressors
    shown = np.flatnonzero(np.unpackbits(np.frombuffer(key, dtype=np.uint8), count=n_y))
    at = np.concatenate([np.arange(q), q + shown])
    head: Head = moments.head
    if isinstance(moments, RootMoments):
        root, mean = moments.root, (head.anchor - origin[at]) + head.offset
    else:
        cross = np.tril(moments.cross[np.ix_(at, at)])
        np.fill_diagonal(cross, np.maximum(cross.diagonal(), 0.0))  # rounding leaves less than nothing of few rows
        root, mean = root_of(cross), ((head.anchor - origin) + head.offset)[at]
    root = root[root.any(axis=1)]
    values = np.zeros((len(root) + 1, q + n_y))
    values[0, at] = np.sqrt(head.weight) * mean
    values[1:, at] = root
    observed = np.zeros((len(values), n_y))
    observed[:, shown] = 1.0
    unit, count = np.zeros(len(values)), np.zeros(len(values))
    unit[0], count[0] = np.sqrt(head.weight), head.n_rows
    return values, observed, unit, count
