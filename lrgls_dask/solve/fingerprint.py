"""The fingerprint of rows whose moments are at hand: of a fit, and of rows that a statistic has compressed again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.design.design import Design
from lrgls_dask.rows.fingerprint import ALL_ROWS, Fingerprint, mixture
from lrgls_dask.rows.moments import Head
from lrgls_dask.solve.whiten import GroupRows, group_rows

__all__ = ["check_compressed", "fingerprint_of", "fingerprint_of_compressed", "fingerprint_of_shown"]


def fingerprint_of(
    design: Design,
    runs: Sequence[tuple[GroupRows, ...]],
    heads: Sequence[Head],
    edges: np.ndarray = ALL_ROWS,
    like: Fingerprint | None = None,
) -> Fingerprint:
    """Of rows that show every equation, from each design's rows of every run of them.

    like : in whose units columns are mixed, those of these very rows if None.
    """
    weights = [head.weight for head in heads]
    q, shape = design.n_regressors, (len(runs), design.n_regressors + design.n_equations)
    mean, square = np.zeros(shape), np.zeros(shape)
    for t, (groups, weight) in enumerate(zip(runs, weights, strict=True)):
        for part in groups:
            columns, responses = part.group.columns, q + part.group.equations
            mean[t, columns], mean[t, responses] = part.x[0] / np.sqrt(weight), part.y[0] / np.sqrt(weight)
            square[t, columns] = np.sum(part.x[1:] ** 2, axis=0) / weight
            square[t, responses] = (np.sum(part.y[1:] ** 2, axis=0) + part.beyond) / weight
    count, each = np.array([[head.n_rows, head.weight] for head in heads], dtype=np.float64).T[:, :, None]
    made = Fingerprint(edges, count, each, mean, np.sqrt(square), np.zeros((len(runs), design.n_equations)))
    units = (made if like is None else like).in_mixture
    for t, groups in enumerate(runs):
        for part in groups:
            columns, equations = part.group.columns, part.group.equations
            made.mixed[t, equations] = _mixed(part, units[t, columns], units[t, q + equations]) / weights[t]
    return made


def fingerprint_of_compressed(
    rows: Sequence[Compressed], edges: np.ndarray = ALL_ROWS, like: Fingerprint | None = None
) -> Fingerprint:
    """Of what compressed systems stand for, one a run."""
    heads = [each.head for each in rows]
    return fingerprint_of(rows[0].design, [group_rows(each) for each in rows], heads, edges, like)


def fingerprint_of_shown(
    design: Design,
    groups: tuple[GroupRows, ...],
    count: np.ndarray,
    weight: np.ndarray,
    like: Fingerprint | None = None,
) -> Fingerprint:
    """Of rows that show only some equations, each equation in a group of its own over the rows that show it.

    count, weight : (K,) those rows, and sums of their weights.
    """
    K, each = len(weight), np.repeat(weight, design.sizes)
    x = (
        np.concatenate([part.x[0] for part in groups]),
        np.concatenate([np.sum(part.x[1:] ** 2, axis=0) for part in groups]),
    )
    y = np.array([part.y[0, 0] for part in groups]), np.array([np.sum(p.y[1:] ** 2) + p.beyond[0] for p in groups])
    mean = np.concatenate([x[0] / np.sqrt(each), y[0] / np.sqrt(weight)])
    spread = np.sqrt(np.concatenate([x[1] / each, y[1] / weight]))
    made = Fingerprint(ALL_ROWS, count[None], weight[None], mean[None], spread[None], np.zeros((1, K)))
    units = (made if like is None else like).in_mixture[0]
    for j, (part, mine) in enumerate(zip(groups, design.spans, strict=True)):
        made.mixed[0, j] = _mixed(part, units[mine], units[len(each) + j])[0] / weight[j]
    return made


def _mixed(part: GroupRows, of_x: np.ndarray, of_y: Any) -> np.ndarray:
    """(m,) centred sum of squares of the mixture of a design's columns and each of its responses."""
    together = (part.x[1:] @ (mixture(len(of_x)) * of_x))[:, None] + part.y[1:] * of_y
    return np.asarray(np.sum(together**2, axis=0) + part.beyond * of_y**2)


def check_compressed(fitted: Fingerprint | None, rows: Sequence[Compressed]) -> None:
    """Raise ValueError where rows that were compressed are not those of the fit; no answer where it does not say."""
    if fitted is not None:
        fitted.check(fingerprint_of_compressed(rows, fitted.edges, fitted), rows[0].design)
