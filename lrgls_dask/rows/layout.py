"""How rows are cut: blocks that fit a cache-friendly read, groups of blocks that one task sums before it reports.

The cut depends on the stored chunks and on sizes only, never on the scheduler or the number of workers: that is what
makes the tree of sums, and with it every digit of the answer, the same everywhere.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from lrgls_dask.rows.rows import Part, Rows

__all__ = ["FAN_IN", "Layout", "cut_rows"]

FAN_IN = 8  # partial sums added by one node of the tree

# Between 8 and 30 MB a block is read into recycled memory; above the allocator's 32 MB threshold every block pays
# fresh pages, below 4 MB the cost per task shows.
BLOCK_BYTES = 16 * 2**20
SMALL_BLOCK_BYTES = 2 * 2**20
LARGEST_BLOCK_BYTES = 64 * 2**20
BLOCKS_WANTED = 32  # small data still give every worker something to do
GROUPS_WANTED = 64
BLOCKS_PER_GROUP = 8  # enough for the next read to hide behind the arithmetic
EVENLY = 4
PARTIAL_SHARE = 12  # a task reads at least this many times what it sends on


@dataclass(frozen=True, eq=False)
class Layout:
    """Row cuts of the blocks, and which consecutive blocks form a group.

    blocks : (B + 1,) first rows, the last is N.  groups : (G + 1,) first blocks, the last is B.
    """

    blocks: np.ndarray
    groups: np.ndarray

    @property
    def n_groups(self) -> int:
        return len(self.groups) - 1

    @property
    def n_blocks(self) -> int:
        return len(self.blocks) - 1

    def largest_block(self) -> int:
        """Rows of the largest block."""
        return int(np.diff(self.blocks).max())


def cut_rows(rows: Rows, partial_bytes: int) -> Layout:
    """The layout of a pass whose partial sums take `partial_bytes` each."""
    total, runs = rows.n_obs * rows.row_bytes, _runs(rows)
    target = int(np.clip(total // BLOCKS_WANTED, SMALL_BLOCK_BYTES, BLOCK_BYTES))
    if all(part.row_chunks is None for part in rows.parts):
        blocks = _even_cuts(rows, int(np.clip(PARTIAL_SHARE * partial_bytes, target, BLOCK_BYTES)))
    else:
        blocks = _merge(_candidates(rows), rows.row_bytes, target, runs)
    n_blocks = len(blocks) - 1
    per_group = min(BLOCKS_PER_GROUP, max(1, n_blocks // GROUPS_WANTED))
    mean_block = max(1, total // n_blocks)
    per_group = max(per_group, -(-PARTIAL_SHARE * partial_bytes // mean_block))
    starts = np.arange(0, n_blocks, per_group)
    if len(runs):  # the last block at or before each start that begins a run
        free = np.flatnonzero(np.isin(blocks[:-1], runs))
        starts = np.unique(free[np.searchsorted(free, starts, side="right") - 1])
    return Layout(blocks, np.append(starts, n_blocks))


def _even_cuts(rows: Rows, target: int) -> np.ndarray:
    """Blocks of equal size where any cut is free; a multiple of EVENLY of them, so that no core is left waiting."""
    n_blocks = max(1, -(-rows.n_obs * rows.row_bytes // target))
    if n_blocks > 1:
        n_blocks = min(-(-n_blocks // EVENLY) * EVENLY, rows.n_obs)
    cuts: np.ndarray = np.arange(n_blocks + 1) * rows.n_obs // n_blocks
    return cuts


def _candidates(rows: Rows) -> np.ndarray:
    """Rows where a cut splits no stored chunk, or, where chunks never line up, none of the widest array."""
    chunked = [part for part in rows.parts if part.row_chunks is not None]
    common = _bounds(chunked[0])
    for part in chunked[1:]:
        if part.row_chunks is not chunked[0].row_chunks:
            common = np.intersect1d(common, _bounds(part), assume_unique=True)
    if np.diff(common).max() * rows.row_bytes <= LARGEST_BLOCK_BYTES:
        return common
    widest = max(chunked, key=lambda part: part.row_bytes)
    return common if len(common) == len(_bounds(widest)) else _bounds(widest)


def _bounds(part: Part) -> np.ndarray:
    lengths = np.array(part.row_chunks or (), dtype=np.int64)
    return np.concatenate([[0], np.cumsum(lengths[lengths > 0])])


def _runs(rows: Rows) -> np.ndarray:
    """Rows where the runs of some part begin and end; nothing where no part has any."""
    runs = next((part.runs for part in rows.parts if part.runs is not None), None)
    return np.empty(0, dtype=np.int64) if runs is None else np.cumsum([0, *runs])


def _merge(candidates: np.ndarray, row_bytes: int, target: int, runs: np.ndarray) -> np.ndarray:
    """Join neighbours until a block reaches the target, but chunks of a run of several, each of which is a block: the
    parts of one block are read in any order."""
    edges = np.empty(0, dtype=np.int64)
    if len(runs):
        of_chunk = np.searchsorted(runs, candidates[:-1], side="right") - 1
        alone = np.bincount(of_chunk)[of_chunk] > 1
        edges = np.union1d(candidates[:-1][alone], candidates[1:][alone])
    height, last = max(1, target // max(1, row_bytes)), int(candidates[-1])
    if len(candidates) > 2 and (candidates[2:] - candidates[:-2]).min() > height:
        return candidates  # no two neighbours are small enough, as of millions of chunks of a usual size
    ends = candidates.tolist()
    kept, position = [0], 0
    while kept[-1] < last:
        # the last candidate within `height` rows of the cut before it, or the next one if none is
        most = kept[-1] + height
        if len(edges):
            most = min([most, *edges[np.searchsorted(edges, kept[-1], side="right") :][:1].tolist()])
        position = max(position + 1, bisect_right(ends, most) - 1)
        kept.append(ends[position])
    return np.array(kept, dtype=np.int64)
