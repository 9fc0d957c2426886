"""Compressed rows in a zarr group, complete ones and those of every pattern of missing responses."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr

from lrgls_dask.compression.by_pattern import AnyCompressed, CompressedPatterns
from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.data.zarrio import read_array, read_head, write_array, write_head
from lrgls_dask.design.design import Design
from lrgls_dask.rows.moments import Head, Levels, RootMoments

__all__ = ["read_any", "read_compressed", "write_any", "write_compressed"]


def write_compressed(group: zarr.Group, rows: Compressed) -> None:
    """Complete rows, without their design."""
    write_head(group, rows.head)
    write_array(group, "root", rows.root, ("row", "column"))
    group.attrs.update(n_obs=rows.head.n_rows, route=rows.route)


def read_compressed(group: zarr.Group, design: Design) -> Compressed:
    """The rows that `write_compressed` wrote."""
    known: dict[str, Any] = dict(group.attrs)
    head, root = read_head(group, known["n_obs"]), read_array(group, "root")
    _check_columns(design, root, head.anchor, head.offset)
    return Compressed(design, head, root, known["route"])


def _check_columns(design: Design, *arrays: np.ndarray) -> None:
    """Raise ValueError where the last axis is not all regressors and responses, as of damaged rows without a seal."""
    wanted = design.n_regressors + design.n_equations
    if any(array.shape[-1:] != (wanted,) for array in arrays):
        raise ValueError(f"its arrays have shapes {[array.shape for array in arrays]} for {wanted} columns")


def write_any(group: zarr.Group, rows: AnyCompressed) -> None:
    """The rows, without their design; those of all patterns in arrays of their own, NaN where a response is missing."""
    if isinstance(rows, Compressed):
        write_compressed(group, rows)
        return
    q, K = rows.design.n_regressors, rows.design.n_equations
    parts = [rows.patterns[key] for key in sorted(rows.patterns)]
    shown = np.array([rows.shown(key) for key in sorted(rows.patterns)])
    heads = [part.head for part in parts]
    seen = np.column_stack([np.ones((len(parts), q), dtype=bool), shown])
    heights = [len(part.root) for part in parts]
    root = np.full((sum(heights), q + K), np.nan)
    root[np.repeat(seen, heights, axis=0)] = np.concatenate([part.root.ravel() for part in parts])
    write_array(group, "shown", shown.astype(np.int8), ("pattern", "equation"))
    write_array(group, "root", root, ("row", "column"))
    write_array(group, "pattern_of_row", np.repeat(np.arange(len(parts)), heights), ("row",))
    for name in ("anchor", "offset"):
        values = np.full(seen.shape, np.nan)
        values[seen] = np.concatenate([getattr(head, name) for head in heads])
        write_array(group, name, values, ("pattern", "column"))
    write_array(group, "rows", np.array([head.n_rows for head in heads], dtype=np.int64), ("pattern",))
    for name in ("weight", "log_weight"):
        write_array(group, name, np.array([getattr(head, name) for head in heads], dtype=np.float64), ("pattern",))
    levels = [head.levels for head in heads if head.levels is not None]
    if len(levels) == len(heads):
        write_array(group, "level_weight", np.stack([level.weight for level in levels]), ("pattern", "weighting"))
        write_array(group, "level_dot", np.stack([level.dot for level in levels]), ("pattern", "scaled_regressor"))
    group.attrs.update(n_obs=rows.n_obs, route=rows.route)


def read_any(group: zarr.Group, design: Design) -> AnyCompressed:
    """The rows that `write_any` wrote."""
    if "shown" not in group:
        return read_compressed(group, design)
    shown, root = read_array(group, "shown").astype(bool), read_array(group, "root")
    pattern_of_row, n_rows = read_array(group, "pattern_of_row"), read_array(group, "rows")
    anchor, offset = read_array(group, "anchor"), read_array(group, "offset")
    _check_columns(design, root, anchor, offset)
    weight, log_weight = read_array(group, "weight"), read_array(group, "log_weight")
    level_weight, level_dot = (
        (read_array(group, name) for name in ("level_weight", "level_dot")) if "level_dot" in group else (None, None)
    )
    cuts = np.searchsorted(pattern_of_row, np.arange(len(shown) + 1))
    patterns = {}
    for i, seen in enumerate(shown):
        at = np.concatenate([np.arange(design.n_regressors), design.n_regressors + np.flatnonzero(seen)])
        levels = None if level_dot is None or level_weight is None else Levels(level_weight[i], level_dot[i])
        head = Head(int(n_rows[i]), float(weight[i]), float(log_weight[i]), anchor[i, at], offset[i, at], levels)
        patterns[np.packbits(seen).tobytes()] = RootMoments(head, root[cuts[i] : cuts[i + 1]][:, at])
    route: Any = group.attrs["route"]
    return CompressedPatterns(design, patterns, route)
