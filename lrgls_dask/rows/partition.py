"""Rows summed apart: folds of cross-validation, blocks and groups that a bootstrap resamples, labels of any kind.

A partition says from a row's number alone which part it belongs to, so that how the rows are stored or cut never shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np

from lrgls_dask.errors import BadValues
from lrgls_dask.rows.block import Block
from lrgls_dask.rows.moments import Sized

__all__ = ["GivenParts", "HashedRows", "LabelledMoments", "Partition", "RowBlocks", "RowRuns", "labelled_kernel"]


class Partition(Protocol):
    """Rows in parts numbered 0 .. n_parts - 1.

    consecutive : whether the rows of each part lie together, so that a sum of neighbouring rows holds few parts.
    """

    consecutive: ClassVar[bool]

    @property
    def n_parts(self) -> int: ...

    def codes(self, start: int, stop: int) -> np.ndarray:
        """(stop - start,) the parts of these rows."""
        ...


@dataclass(frozen=True, eq=False)
class GivenParts:
    """Parts as listed. listed : (N,) integers from 0 to n_parts - 1."""

    consecutive: ClassVar[bool] = False
    listed: np.ndarray
    n_parts: int

    def codes(self, start: int, stop: int) -> np.ndarray:
        return self.listed[start:stop]


@dataclass(frozen=True)
class RowBlocks:
    """Consecutive rows, n_parts blocks of n_obs / n_parts rows each, give or take one."""

    consecutive: ClassVar[bool] = True
    n_parts: int
    n_obs: int

    def codes(self, start: int, stop: int) -> np.ndarray:
        numbers: np.ndarray = np.arange(start, stop) * self.n_parts // self.n_obs
        return numbers


@dataclass(frozen=True, eq=False)
class RowRuns:
    """Consecutive rows of any numbers: part t holds rows edges[t] .. edges[t + 1] - 1.

    edges : (n_parts + 1,) increasing, from 0 to N.
    """

    consecutive: ClassVar[bool] = True
    edges: np.ndarray

    @property
    def n_parts(self) -> int:
        return len(self.edges) - 1

    def codes(self, start: int, stop: int) -> np.ndarray:
        parts, cuts = self.within(start, stop)
        return np.repeat(parts, np.diff(cuts))

    def within(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """The parts that rows start .. stop - 1 are in, (m,), and the rows where each begins, (m + 1,), to `stop`."""
        first, last = np.searchsorted(self.edges, [start, stop - 1], side="right") - 1
        return np.arange(first, last + 1), np.clip(self.edges[first : last + 2], start, stop)


@dataclass(frozen=True)
class HashedRows:
    """As if drawn at random, but from the row's number alone: of every n_parts consecutive rows one goes to each part,
    in the order of a hash (splitmix64, Steele, Lea and Flood 2014). So no part is short of rows, and none periodic."""

    consecutive: ClassVar[bool] = False
    n_parts: int

    def codes(self, start: int, stop: int) -> np.ndarray:
        first, last = start // self.n_parts, -(-stop // self.n_parts)
        numbers = np.arange(first * self.n_parts, last * self.n_parts, dtype=np.uint64)
        keys = _splitmix64(numbers).reshape(-1, self.n_parts)
        parts = np.argsort(np.argsort(keys, axis=1), axis=1).ravel()
        return parts[start - first * self.n_parts : stop - first * self.n_parts]


def _splitmix64(numbers: np.ndarray) -> np.ndarray:
    z = numbers * np.uint64(0x9E3779B97F4A7C15)  # wraps, as it should
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = z ^ (z >> np.uint64(31))
    return mixed


@dataclass(frozen=True, eq=False)
class LabelledMoments(Sized):
    """Moments of each part by its number."""

    parts: dict[int, Any]

    def __add__(self, other: LabelledMoments) -> LabelledMoments:
        merged = dict(self.parts)
        for label, moments in other.parts.items():
            merged[label] = merged[label] + moments if label in merged else moments
        return LabelledMoments(merged)

    def __iadd__(self, other: LabelledMoments) -> LabelledMoments:
        """The same in the memory of `self`, which is spent."""
        for label, moments in other.parts.items():
            if label in self.parts:
                self.parts[label] += moments
            else:
                self.parts[label] = moments
        return self


def labelled_kernel(block: Block, params: tuple[Partition, Callable[[Block], Any]]) -> LabelledMoments | None:
    """kernel(rows of one part) for every part with rows in the block; the flops of the kernel, and a copy of the block
    where a part's rows are not consecutive."""
    partition, kernel = params
    codes = partition.codes(block.start, block.start + block.n_rows)
    order = np.argsort(codes, kind="stable")
    labels, firsts = np.unique(codes[order], return_index=True)
    parts: dict[int, Any] = {}
    whole = block
    if np.any(np.diff(codes) < 0):  # rows are picked from wide arrays several times as fast as from many narrow ones
        whole = replace(block, x=_side_by_side(block.x), y=_side_by_side(block.y))
    for label, first, last in zip(labels, firsts, [*firsts[1:], len(order)], strict=True):
        mine = order[first:last]
        rows = slice(mine[0], mine[-1] + 1) if mine[-1] - mine[0] + 1 == len(mine) else mine
        try:
            moments = kernel(whole.take(rows))
        except BadValues:
            kernel(block)  # which finds them too, and counts rows of the block, not of the part
            raise
        if moments is not None:
            parts[int(label)] = moments
    return LabelledMoments(parts) if parts else None


def _side_by_side(arrays: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    return arrays if len(arrays) < 2 else (np.column_stack(arrays),)
