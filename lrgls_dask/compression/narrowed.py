"""Compressed rows of some equations, as compressing the rows of these alone would have left them; and back again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lrgls_dask.compression.available import shown_by
from lrgls_dask.compression.by_pattern import AnyCompressed, CompressedPatterns
from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.design.narrowed import Narrowed
from lrgls_dask.design.skipped import Skipped
from lrgls_dask.rows.moments import RootMoments, triangle

__all__ = ["narrowed_compressed", "widened_compressed"]


def narrowed_compressed(rows: AnyCompressed, kept: Narrowed) -> AnyCompressed:
    """The rows of the equations that were kept; no read, O((q + K)^3) for each pattern.

    Patterns that differ only in the others are one, and complete rows are those of no pattern.

    Raises ValueError where cells have weights, of which only the mean over the equations of a row is known.
    """
    if rows.design.own is not None:
        raise ValueError(
            "unusable='skip' leaves equations out, and a compressed system whose cells have weights knows these of all "
            "equations together. Fit the System itself."
        )
    q = rows.design.n_regressors
    if isinstance(rows, Compressed):
        found = _cut(RootMoments(rows.head, rows.root), np.concatenate([kept.columns, q + kept.equations]))
        return Compressed(kept.design, found.head, found.root, rows.route)
    incidence = kept.design.incidence()
    patterns: dict[bytes, RootMoments] = {}
    for key, moments in rows.patterns.items():
        seen = rows.shown(key)
        shown = seen[kept.equations]
        columns = np.concatenate([kept.columns, q - 1 + np.cumsum(seen)[kept.equations[shown]]])
        found = _cleared(_cut(moments, columns), np.flatnonzero(incidence @ shown.astype(np.int64) == 0))
        mine = np.packbits(shown).tobytes()
        patterns[mine] = patterns[mine] + found if mine in patterns else found
    if len(patterns) == 1 and all(shown_by(key, kept.design.n_equations).all() for key in patterns):
        (whole,) = patterns.values()
        return Compressed(kept.design, whole.head, whole.root, rows.route)
    return CompressedPatterns(kept.design, patterns, rows.route)


def widened_compressed(rows: AnyCompressed, skipped: Skipped) -> CompressedPatterns:
    """The rows of the equations that were left, among the others, which none of them shows; no read."""
    whole, kept, few = skipped.whole, skipped.kept, CompressedPatterns.of(rows)
    q, patterns = whole.n_regressors, {}
    for key, moments in few.patterns.items():
        shown = np.zeros(whole.n_equations, dtype=bool)
        shown[kept.equations[few.shown(key)]] = True
        n_y = int(shown.sum())
        at, width = np.concatenate([kept.columns, q + np.arange(n_y)]), q + n_y
        patterns[np.packbits(shown).tobytes()] = _spread(moments, at, width)
    return CompressedPatterns(whole, patterns, few.route)


def _spread(moments: RootMoments, columns: np.ndarray, width: int) -> RootMoments:
    """The columns among so many, of which the others are zero."""
    anchor, offset = np.zeros((2, width))
    root = np.zeros((len(moments.root), width))
    anchor[columns], offset[columns], root[:, columns] = moments.head.anchor, moments.head.offset, moments.root
    return RootMoments(replace(moments.head, anchor=anchor, offset=offset), root)


def _cut(moments: RootMoments, columns: np.ndarray) -> RootMoments:
    head = replace(moments.head, anchor=moments.head.anchor[columns], offset=moments.head.offset[columns])
    return RootMoments(head, triangle(moments.root[:, columns]))


def _cleared(moments: RootMoments, columns: np.ndarray) -> RootMoments:
    """With zero in columns that nothing shown uses, as where they have not been read."""
    anchor, offset, root = (np.array(each) for each in (moments.head.anchor, moments.head.offset, moments.root))
    anchor[columns] = offset[columns] = root[:, columns] = 0.0
    return RootMoments(replace(moments.head, anchor=anchor, offset=offset), root)
