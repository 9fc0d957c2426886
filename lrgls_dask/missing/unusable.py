"""Which equations cannot be estimated, from a look at the responses, before anything is fitted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lrgls_dask.compression.by_pattern import CompressedPatterns
from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.compression.patterns import FirstMoments, first_pass
from lrgls_dask.design.design import Design
from lrgls_dask.design.narrowed import narrowed
from lrgls_dask.design.skipped import CONSTANT, OK, Skipped, status_of, unusable_equations
from lrgls_dask.missing.columns import Apart, group_rows_of
from lrgls_dask.rows.block import Block, side_by_side
from lrgls_dask.rows.kernels import checked_weights
from lrgls_dask.rows.moments import Sized
from lrgls_dask.rows.narrowed import narrowed_rows
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.run_pass import Meter, run_pass
from lrgls_dask.solve.whiten import GroupRows, group_rows
from lrgls_dask.system import CompressedSystem, System

__all__ = ["skipped_in"]

SPREAD = 1e-14  # of a constant, relative: what scaling by weights of cells and back leaves
LEFT = 1e-6  # of a constant response that its regressors reproduce, relative: rounding


def skipped_in(system: System | CompressedSystem, meter: Meter) -> Skipped | None:
    """The equations that cannot be estimated; None where all can.

    They are those without a row ("no rows"), without more rows than regressors ("too few rows (3 of 5)"), and those
    whose response is a constant that their regressors reproduce ("constant"). A cell of weight zero is no row.
    One pass over Y, X only where cells have weights, and another over equations whose response is constant where there
    are any; none over a compressed system.
    Raises ValueError where no equation can be estimated.
    """
    design = system.design
    rows, flat = _in_compressed(system.rows) if isinstance(system, CompressedSystem) else _in_rows(system.rows, meter)
    status = [status_of(int(n), int(size)) for n, size in zip(rows, design.sizes, strict=True)]
    doubtful = np.flatnonzero(flat & np.array([said == OK for said in status]))
    if len(doubtful):
        left = _constants(system, doubtful, meter)
        status = [CONSTANT if j in left else said for j, said in enumerate(status)]
    if all(said == OK for said in status):
        return None
    if OK not in status:
        raise ValueError(
            f"no equation can be estimated: {unusable_equations(design.equations, status)}. Every equation must vary, "
            "and be observed in more rows than it has regressors. Add rows, or drop regressors."
        )
    return Skipped(design, tuple(status))


# ---------------------------------------------------------------------------------------------- the look


@dataclass(frozen=True, eq=False)
class ShownMoments(Sized):
    """Of every equation (K,) rows of positive weight that show it, and its least and largest response, NaN of none."""

    rows: np.ndarray
    least: np.ndarray
    largest: np.ndarray

    def __add__(self, other: ShownMoments) -> ShownMoments:
        return ShownMoments(
            self.rows + other.rows, np.fmin(self.least, other.least), np.fmax(self.largest, other.largest)
        )


def shown_kernel(block: Block, weighting: np.ndarray | None) -> ShownMoments | None:
    """ShownMoments of a block.  weighting : (K,) by which column of weights of cells an equation was scaled."""
    weights = checked_weights(block)
    y = np.asarray(side_by_side(block.y), dtype=np.float64)
    if block.scaling is not None and weighting is not None:
        roots = block.scaling.roots[:, weighting]
        y = y / np.where(roots > 0, roots, np.nan)
    if weights is not None:
        y = y[weights > 0]
    if len(y) == 0:
        return None
    return ShownMoments((~np.isnan(y)).sum(axis=0), np.fmin.reduce(y, axis=0), np.fmax.reduce(y, axis=0))


def _in_rows(rows: Rows, meter: Meter) -> tuple[np.ndarray, np.ndarray]:
    """(K,) rows that show each equation, and whether its response is the same in all of them; one pass."""
    design = rows.design
    scaled = design.own is not None
    read = replace(rows if scaled else replace(rows, x=()), complete_only=False)
    found: ShownMoments = run_pass(
        read,
        shown_kernel,
        design.own.weighting if design.own is not None else None,
        partial_bytes=24 * design.n_equations,
        meter=meter,
        label="equations that can be estimated",
    )
    slack = (SPREAD if scaled else 0.0) * np.abs(found.largest)
    return found.rows, found.largest - found.least <= slack


def _in_compressed(rows: Compressed | CompressedPatterns) -> tuple[np.ndarray, np.ndarray]:
    """The same of compressed rows; no read."""
    K, q = rows.design.n_equations, rows.design.n_regressors
    if isinstance(rows, Compressed):
        spread = np.sum(rows.root[:, q:] ** 2, axis=0)
        return np.full(K, rows.n_obs), spread <= rows.head.weight * (SPREAD * rows.head.mean[q:]) ** 2
    flat = np.zeros(K, dtype=bool)
    for group, moments in zip(rows.design.groups, rows.first().groups, strict=True):
        flat[group.equations] = moments.cross[:, -1, -1] == 0
    return rows.cells, flat


# ---------------------------------------------------------------------------------------------- constants


def _constants(system: System | CompressedSystem, doubtful: np.ndarray, meter: Meter) -> set[int]:
    """Those of the equations at these positions, whose response is constant, that their regressors reproduce."""
    if isinstance(system.rows, Compressed):
        of_groups = group_rows(system.rows)
        exact = {int(j) for part in of_groups for j in part.group.equations[_is_reproduced(part)]}
        return exact & set(doubtful.tolist())
    if isinstance(system.rows, CompressedPatterns):
        parts = _shown_parts(system.rows.first(), system.design)
        return {int(j) for j in doubtful if _is_reproduced(parts[j]).all()}
    kept = narrowed(system.design, doubtful)
    rows = replace(narrowed_rows(system.rows, kept), complete_only=False)
    parts = _shown_parts(first_pass(rows, meter=meter, most=0, keep=False), kept.design)
    return {int(j) for j, part in zip(doubtful, parts, strict=True) if _is_reproduced(part).all()}


def _shown_parts(first: FirstMoments, design: Design) -> list[GroupRows]:
    """Of every equation what its own rows know."""
    found = {}
    for group, moments in zip(design.groups, first.groups, strict=True):
        found.update({int(j): (moments, i) for i, j in enumerate(group.equations)})
    return [group_rows_of(group, found[j]) for j, group in enumerate(Apart.of(design).groups)]


def _is_reproduced(part: GroupRows) -> np.ndarray:
    """(m,) whether least squares leaves nothing of a response."""
    size = np.linalg.norm(part.x, axis=0)
    unit = part.x / np.where(size > 0, size, 1.0)
    left = part.y - unit @ np.linalg.lstsq(unit, part.y, rcond=None)[0]
    total = np.sum(part.y**2, axis=0) + part.beyond
    return np.asarray(np.sum(left**2, axis=0) + part.beyond <= LEFT**2 * total)
