"""The first pass over rows with missing responses: moments of each equation, and few rows where patterns are few.

Rows that show the same equations see the likelihood only through their own [X Y_o]'[X Y_o] and their number, so each
pattern compresses as a complete system does (compressed.py). Beyond a number of patterns that is no gain: the pass then
returns the rows themselves where they are few enough to be held, each a pattern of its own, and else what a streamed
fit needs to start, and how many patterns it had met.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from lrgls_dask.compression.anchor import observed_mean
from lrgls_dask.compression.available import AvailableMoments, AvailableSums, available_of, shown_by
from lrgls_dask.compression.compressed import LOST_DIGITS, Compressed, partial_bytes, qr_is_cheap, smallest_pivot
from lrgls_dask.compression.roots import root_of
from lrgls_dask.design.batches import Batch, Batches
from lrgls_dask.design.design import ColumnUsers, Design
from lrgls_dask.errors import BadValues
from lrgls_dask.rows.block import Block, bad_values, side_by_side, width_of
from lrgls_dask.rows.cells import only_used, takes_used_alone
from lrgls_dask.rows.kernels import LARGEST, checked_weights, gram_kernel, root_kernel, scratch, slabs
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.moments import GramMoments, Head, Levels, RootMoments, Scaling, Sized, UsedMoments
from lrgls_dask.rows.purposes import PATTERNS
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.run_pass import run_pass
from lrgls_dask.rows.sums import sums
from lrgls_dask.rows.tiles import Tiles

__all__ = [
    "LARGEST_PAIRS",
    "MOST_COLUMNS",
    "PATTERNS_IN_A_SUM",
    "PATTERN_BYTES",
    "FirstMoments",
    "FirstParams",
    "Patterns",
    "are_few",
    "bad_but_for_missing",
    "first_kernel",
    "first_pass",
    "held_bytes",
    "most_patterns",
]

MOST_PATTERNS = 256  # a few hundred roots are worth their memory, and a pass that tells them apart its time
PATTERN_BYTES = 2**29  # of all roots together
# That a sum of rows is taken to hold when rows are cut: with fewer, adding sums costs as much as the rows.
PATTERNS_IN_A_SUM = 8
HELD_BYTES = 2**27  # of rows as float64: with more of them a look at all is no less work than a pass
LARGEST_PAIRS = 2_000  # equations whose pairwise products (K, K) a later pass may sum
MOST_COLUMNS = 2_000  # of which the pass that starts a fit sums cross-products
SPARE_BYTES = 2**26  # that a thread keeps


Patterns = dict[bytes, RootMoments | GramMoments]


def _whole(patterns: Patterns) -> Patterns:
    return {key: each.whole() if isinstance(each, UsedMoments) else each for key, each in patterns.items()}


def most_patterns(design: Design) -> int:
    """How many patterns are compressed: their roots have to fit."""
    return int(min(MOST_PATTERNS, max(1, PATTERN_BYTES // partial_bytes(design))))


def are_few(rows: Rows) -> bool:
    """Whether rows that have too many patterns are held in memory."""
    return held_bytes(rows) <= HELD_BYTES


def held_bytes(rows: Rows) -> int:
    """What they take as float64."""
    return 8 * rows.n_obs * (rows.design.n_regressors + rows.design.n_equations)


class _SpareSquares(threading.local):
    """Cross-products of this thread that were added to others: the next block's, where fresh pages for each pattern
    would cost as much as the multiplications of a few hundred rows."""

    def __init__(self) -> None:
        self._free: dict[int, list[np.ndarray]] = {}
        self._bytes = 0

    def square(self, width: int) -> np.ndarray:
        """(width, width), uninitialised."""
        if free := self._free.get(width):
            self._bytes -= free[-1].nbytes
            return free.pop()
        return np.empty((width, width))

    def keep(self, square: np.ndarray) -> None:
        """Nobody else may use it from here on."""
        if self._bytes + square.nbytes <= SPARE_BYTES:
            self._bytes += square.nbytes
            self._free.setdefault(len(square), []).append(square)


_spare = _SpareSquares()

# ---------------------------------------------------------------------------------------------- moments


@dataclass(frozen=True, eq=False)
class FirstMoments(Sized):
    """n_rows : rows of positive weight.  empty : rows with nothing observed.  n_patterns : distinct patterns met, a
    lower bound where they were too many.  patterns : of [X Y_o], by pattern (packed bits of the observed equations),
    None then.  summed : AvailableMoments per batch, None where the moments of the patterns hold them.
    rows : the blocks that were read, in order, where they are held; after the pass, where there are no patterns.
    """

    batches: Batches
    n_equations: int
    most: int
    n_rows: int
    empty: int
    n_patterns: int
    patterns: Patterns | None
    summed: tuple[AvailableMoments, ...] | None
    rows: tuple[Block, ...] = ()

    @property
    def available(self) -> tuple[AvailableMoments, ...]:
        """AvailableMoments per batch."""
        return self._available(self.patterns) if self.summed is None else self.summed

    @property
    def groups(self) -> list[AvailableMoments]:
        """The same per design: views."""
        found: dict[int, AvailableMoments] = {}
        for batch, moments in zip(self.batches.each, self.available, strict=True):
            m = batch.equations.shape[1]
            found.update({i: moments.take(slice(g * m, (g + 1) * m)) for g, i in enumerate(batch.members)})
        return [found[i] for i in range(len(found))]

    @property
    def is_complete(self) -> bool:
        """Whether no row shows only some equations; others may show nothing, but not all."""
        if self.n_rows == self.empty:
            return False
        if self.patterns is not None:
            return all(shown_by(key, self.n_equations).all() for key in self.patterns if any(key))
        return all(bool((each.rows == self.n_rows - self.empty).all()) for each in self.available)

    @property
    def complete(self) -> RootMoments | GramMoments | None:
        """Moments of the rows where none misses a response; None where some do, and where patterns are not kept."""
        if not self.is_complete or not self.patterns:
            return None
        (moments,) = (moments for key, moments in self.patterns.items() if any(key))
        return moments

    def compressed(self, design: Design) -> Compressed | None:
        """What `compress_rows` makes of complete rows; None where it has to read them again for the digits."""
        moments = self.complete
        if moments is None:
            return None
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
        """The same in the memory of `self`; both are spent."""
        merged = None if other.patterns is None else self.patterns
        if merged is not None and other.patterns is not None:
            for pattern, moments in other.patterns.items():
                if pattern in merged:
                    merged[pattern] += moments  # type: ignore[operator]
                    if isinstance(moments, GramMoments):
                        _spare.keep(moments.cross)
                else:
                    merged[pattern] = moments
        return self._merged(other, merged)

    def _merged(self, other: FirstMoments, merged: Patterns | None) -> FirstMoments:
        n_patterns, summed = max(self.n_patterns, other.n_patterns), None
        if merged is None or (self.summed is not None and other.summed is not None):
            summed = tuple(a + b for a, b in zip(self.available, other.available, strict=True))
        if merged is not None:
            n_patterns = len(merged)
            if n_patterns > self.most:
                summed, merged = self._available(merged) if summed is None else summed, None
        n_rows, empty = self.n_rows + other.n_rows, self.empty + other.empty
        counts = n_rows, empty, n_patterns
        return FirstMoments(
            self.batches, self.n_equations, self.most, *counts, merged, summed, (*self.rows, *other.rows)
        )

    def _available(self, patterns: Patterns | None) -> tuple[AvailableMoments, ...]:
        return available_of(_whole(patterns or {}), self.batches, self.n_equations)

    def whole(self) -> FirstMoments:
        """Patterns with all columns of X, once the rows are summed."""
        return self if self.patterns is None else replace(self, patterns=_whole(self.patterns))


@dataclass(frozen=True, eq=False)
class FirstParams:
    """tiles, incidence : of the design, (q, K).  most : patterns beyond which none is kept.  by_qr : how a pattern's
    rows are reduced.  keep : whether the rows are held too.  users : of the columns, where blocks come as they were
    read; none where what nobody uses of them is zero already."""

    tiles: Tiles
    incidence: sp.csr_array
    most: int
    by_qr: bool
    keep: bool = False
    users: tuple[ColumnUsers, ...] = ()

    @classmethod
    def of(cls, design: Design, most: int, *, by_qr: bool, keep: bool = False) -> FirstParams:
        return cls(Tiles.of(design.batches), design.incidence().astype(np.float64).tocsr(), most, by_qr, keep)


# ---------------------------------------------------------------------------------------------- the kernel


@takes_used_alone
def first_kernel(block: Block, params: FirstParams) -> FirstMoments | None:
    """FirstMoments of a block, n sum p_j^2 multiplications, n (q + K)^2 where patterns are few; None without rows."""
    kept = _rows_of_weight(block)
    if len(kept) == 0:
        return None
    n_y, observed = width_of(block.y), ~np.isnan(side_by_side(block.y))
    packed = np.packbits(observed, axis=1)[kept]
    codes, first = _codes(packed)
    patterns, summed = None, None
    many = len(first) > params.most
    by_columns = not (many or params.by_qr or params.keep or block.scaling is not None)  # those that a pattern uses
    if params.users and not by_columns:
        block = only_used(block, params.users)
    if many:
        summed = _available(block, observed_mean(block, observed, params.incidence), params.tiles)
    elif len(first) == 1 and shown_by(packed[0].tobytes(), n_y).all():  # no row is copied to stand with its like
        alone: Patterns = {packed[0].tobytes(): _complete(block, by_qr=params.by_qr)}
        patterns = alone
    else:
        shown = {packed[row].tobytes(): kept[rows] for row, rows in zip(first, _by_code(codes), strict=True)}
        anchor = observed_mean(block, observed, params.incidence)
        used = params.incidence @ observed[kept[first]].T.astype(np.float64) > 0
        patterns = _roots(block, shown, n_y) if params.by_qr else _grams(block, shown, anchor, used.T)
        whole = [key for key in shown if shown_by(key, n_y).all()]
        if whole and not any(any(key) for key in shown if key not in whole):
            # beside rows that show nothing, complete ones have the bits that they have alone
            patterns[whole[0]] = _complete(block.take(shown[whole[0]]), by_qr=params.by_qr)
    empty = int((~packed.any(axis=1)).sum())
    rows = (block.copy(),) if params.keep else ()
    return FirstMoments(params.tiles.batches, n_y, params.most, len(kept), empty, len(first), patterns, summed, rows)


def _complete(block: Block, *, by_qr: bool) -> RootMoments | GramMoments:
    """Moments of a block whose rows of weight, of which there are some, show every equation."""
    moments = root_kernel(block) if by_qr else gram_kernel(block)
    assert moments is not None
    return moments


def _rows_of_weight(block: Block) -> np.ndarray:
    """Positions of the rows of positive weight."""
    weights = checked_weights(block)
    return np.arange(block.n_rows) if weights is None else np.flatnonzero(weights)


def _available(block: Block, anchor: np.ndarray, tiles: Tiles) -> tuple[AvailableMoments, ...]:
    """AvailableMoments per batch, slab by slab."""
    n_y, batches = width_of(block.y), tiles.batches.each
    sums = [AvailableSums.zero(batch) for batch in batches]
    for values, _, weights in slabs(block, anchor):
        x, y = values[:, :-n_y], values[:, -n_y:]
        missing = np.isnan(y)
        observed = np.subtract(1.0, missing)
        if not np.isfinite(x.sum()):
            raise bad_but_for_missing(block)
        np.copyto(y, 0.0, where=missing)
        for tile in tiles.each:
            of = tile.equations
            sums[tile.batch].add(tile, x[:, tile.columns], y[:, of], observed[:, of], weights)
    if block.scaling is not None:
        logs = _logs_of_cells(block, block.scaling.log_weights)
        for batch, total in zip(batches, sums, strict=True):
            total.log_weight += logs[batch.equations]
    available = tuple(
        total.centred(anchor[batch.columns], anchor[-n_y:][batch.equations])
        for batch, total in zip(batches, sums, strict=True)
    )
    for moments in available:
        if not (np.isfinite(moments.cross).all() and (np.abs(moments.mean) < LARGEST).all()):
            raise bad_but_for_missing(block)
    if block.scaling is None:
        return available
    return tuple(
        replace(each, levels=_levels_of_cells(block, block.scaling, batch))
        for each, batch in zip(available, batches, strict=True)
    )


def _logs_of_cells(block: Block, log_weights: np.ndarray) -> np.ndarray:
    """(K,) sum of a row's mean log weight over the used rows that show an equation."""
    kept = _rows_of_weight(block)
    return np.asarray(log_weights[kept] @ ~np.isnan(side_by_side(block.y)[kept]))


def _levels_of_cells(block: Block, scaling: Scaling, batch: Batch) -> Levels:
    """What the roots of weights are of each equation of a batch, over the used rows that show it."""
    kept = _rows_of_weight(block)
    shown = (~np.isnan(side_by_side(block.y)[kept][:, batch.equations])).astype(float)  # (n, G, m)
    roots = scaling.roots[kept]
    columns = side_by_side(block.x)[kept][:, batch.columns] * roots[:, scaling.weight[batch.columns]]  # (n, G, p)
    dot = shown.transpose(1, 2, 0) @ columns.transpose(1, 0, 2)
    return Levels(shown.reshape(len(kept), -1).T @ roots**2, dot.reshape(-1, dot.shape[2]))


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


def _by_code(codes: np.ndarray) -> list[np.ndarray]:
    """Where each code stands, codes being 0, 1, ..."""
    return np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])


def _roots(block: Block, shown: dict[bytes, np.ndarray], n_y: int) -> Patterns:
    """Each pattern's rows of [X Y_o] as RootMoments."""
    parts: Patterns = {}
    y = side_by_side(block.y)
    for pattern, rows in shown.items():
        of_y = y[rows][:, shown_by(pattern, n_y)]
        try:
            moments = root_kernel(replace(block.take(rows), y=(of_y,)))
        except BadValues:
            raise bad_but_for_missing(block) from None  # which counts rows and columns of the block
        if moments is not None:
            parts[pattern] = moments
    return parts


def _grams(block: Block, shown: dict[bytes, np.ndarray], anchor: np.ndarray, used: np.ndarray) -> Patterns:
    """Each pattern's rows of [X Y_o] as GramMoments, n (q + |o|)^2 flops, about the block's one anchor.

    used : (patterns, q) whether a column is, by what the pattern shows; NaN and numbers in others count for nothing.
    """
    parts: Patterns = {}
    x, y = side_by_side(block.x), side_by_side(block.y)
    q, n_y = x.shape[1], y.shape[1]
    for (pattern, rows), of_x in zip(shown.items(), used, strict=True):
        of_y = shown_by(pattern, n_y)
        # complete rows may be summed without their like being told apart, all columns of them
        parted = block.scaling is None and not of_y.all()
        columns, seen = np.flatnonzero(of_x) if parted else np.arange(q), np.flatnonzero(of_y)
        mine = np.concatenate([np.where(of_x, anchor[:q], 0.0)[columns], anchor[q + seen]])
        values = _of_pattern(x[rows], y[rows], of_x, columns, seen)
        if values is None:
            raise bad_but_for_missing(block)
        values -= mine
        weight, log_weight = float(len(rows)), 0.0
        if block.weights is None:
            offset = sums(np.ones(len(rows)), values) / weight
            values -= offset
        else:
            weights = np.asarray(block.weights, dtype=np.float64)[rows]
            weight, log_weight = float(weights.sum()), float(np.log(weights).sum())
            offset = sums(weights, values) / weight
            values -= offset
            values *= np.sqrt(weights)[:, None]
        cross = sums(values.T, values, out=_spare.square(len(mine)))
        if not (np.isfinite(cross.diagonal()).all() and (np.abs(mine + offset) < LARGEST).all()):
            raise bad_but_for_missing(block)
        head = Head(len(rows), weight, log_weight, mine, offset)
        if parted:
            parts[pattern] = UsedMoments(head, cross, of_x)
        else:
            parts[pattern] = GramMoments(head if block.scaling is None else block.take(rows).told(head), cross)
    return parts


def _of_pattern(
    x: np.ndarray, y: np.ndarray, used: np.ndarray, columns: np.ndarray, seen: np.ndarray
) -> np.ndarray | None:
    """(n, columns + seen) float64, in memory that the next pattern takes, what is not `used` (q,) of it zero; None for
    infinities there."""
    idle = np.flatnonzero(~used)
    if np.isinf(x[:, idle]).any():
        return None
    n = len(columns)
    values = scratch("of a pattern", (len(x), n + len(seen)))
    values[:, :n] = x if n == x.shape[1] else x.take(columns, axis=1)  # which promotes them
    values[:, n:] = y.take(seen, axis=1)
    if n == x.shape[1]:
        values[:, idle] = 0.0
    return values


def bad_but_for_missing(block: Block) -> BadValues:
    """Name the first value no sum can use, NaN in Y being none."""
    y = tuple(np.where(np.isnan(a), 0.0, a) for a in (np.asarray(a, dtype=np.float64) for a in block.y))
    return bad_values(replace(block, y=y))


def first_pass(rows: Rows, *, meter: Meter, most: int | None = None, keep: bool | None = None) -> FirstMoments:
    """FirstMoments of all rows: one pass.

    most : patterns beyond which none is kept, `most_patterns` if None; 0 keeps none.
    keep : whether more are answered by rows that are held; if None, where `most` is None and the rows are few.
    Raises BadValues for NaN in X where a response that is observed uses it, and infinities anywhere.
    """
    design = rows.design
    kept = most_patterns(design) if most is None else most
    keep = most is None and are_few(rows) if keep is None else keep
    params = replace(FirstParams.of(design, kept, by_qr=qr_is_cheap(rows), keep=keep), users=design.users)
    size = 8 * int(((design.sizes + 1) ** 2).sum()) + min(kept, PATTERNS_IN_A_SUM) * partial_bytes(design)
    found: FirstMoments = run_pass(
        rows, first_kernel, params, partial_bytes=size, meter=meter, label=PATTERNS, holes=True
    )
    moments = found.whole()
    if moments.patterns is not None:
        return replace(moments, rows=())
    return replace(moments, n_patterns=_n_patterns(moments.rows)) if keep else moments


def _n_patterns(blocks: tuple[Block, ...]) -> int:
    """Distinct patterns of the rows that count."""
    packed = [np.packbits(~np.isnan(side_by_side(each.y)), axis=1)[_rows_of_weight(each)] for each in blocks]
    return len(_codes(np.concatenate(packed))[1])
