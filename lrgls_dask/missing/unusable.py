"""Which equations cannot be estimated, from a look at the responses, before anything is fitted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lrgls_dask.compression.available import AvailableMoments
from lrgls_dask.compression.by_pattern import CompressedPatterns
from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.compression.patterns import FirstMoments, first_pass
from lrgls_dask.design.design import Design
from lrgls_dask.design.narrowed import narrowed
from lrgls_dask.design.skipped import CONSTANT, OK, Skipped, status_of, unusable_equations
from lrgls_dask.missing.columns import Apart, group_rows_of
from lrgls_dask.rows.block import Block, side_by_side
from lrgls_dask.rows.kernels import checked_weights
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.moments import Sized
from lrgls_dask.rows.narrowed import narrowed_rows
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.run_pass import run_pass
from lrgls_dask.solve.whiten import GroupRows, group_rows
from lrgls_dask.system import CompressedSystem, System

__all__ = ["skipped_in", "statuses_shown"]

SPREAD = 1e-14  # of a constant, relative: what scaling by weights of cells and back leaves
LEFT = 1e-6  # of a constant response that its regressors reproduce, relative: rounding


def skipped_in(system: System | CompressedSystem, meter: Meter) -> Skipped | None:
    """The equations that cannot be estimated; None where all can.

    They are those without a row ("no rows"), without more rows than regressors ("too few rows (3 of 5)"), and those
    whose response is a constant that their regressors reproduce ("constant"). A cell of weight zero is no row. Where
    effects of groups are absorbed these count as regressors, of several labels those of the most groups, and a response
    that is constant in every group is a constant.
    One pass over Y, X only where cells have weights, and another over equations whose response is constant where there
    are any; none over a compressed system.
    Raises ValueError where no equation can be estimated.
    """
    design = system.design
    status = _in_compressed(system.rows) if isinstance(system, CompressedSystem) else _in_rows(system.rows, meter)
    if all(said == OK for said in status):
        return None
    if OK not in status:
        raise ValueError(
            f"no equation can be estimated: {unusable_equations(design.equations, status)}. Every equation must vary, "
            "and be observed in more rows than it has regressors. Add rows, or drop regressors."
        )
    return Skipped(design, tuple(status))


def statuses_shown(first: FirstMoments, design: Design) -> list[str]:
    """(K,) what becomes of each equation over the rows that show it."""
    rows, flat = np.zeros(design.n_equations), np.zeros(design.n_equations, dtype=bool)
    for group, moments in zip(design.groups, first.groups, strict=True):
        rows[group.equations], flat[group.equations] = moments.rows, moments.cross[:, -1, -1] == 0
    status = [status_of(int(n), int(size)) for n, size in zip(rows, design.sizes, strict=True)]
    for j, part in enumerate(_apart(first, design)) if flat.any() else ():
        if flat[j] and status[j] == OK and _is_reproduced(part).all():
            status[j] = CONSTANT
    return status


# ---------------------------------------------------------------------------------------------- the look


@dataclass(frozen=True, eq=False)
class ShownMoments(Sized):
    """Of every equation (K,) rows of positive weight that show it, and its least and largest response, NaN of none, in
    each group (g, K).

    codes : (g,) the groups, ascending; one of all rows where none are absorbed.
    """

    rows: np.ndarray
    codes: np.ndarray
    least: np.ndarray
    largest: np.ndarray

    def __add__(self, other: ShownMoments) -> ShownMoments:
        codes = np.union1d(self.codes, other.codes)
        both = []
        for mine, theirs, better in (
            (self.least, other.least, np.fmin),
            (self.largest, other.largest, np.fmax),
        ):
            found = np.full((len(codes), mine.shape[1]), np.nan)
            found[np.searchsorted(codes, self.codes)] = mine
            at = np.searchsorted(codes, other.codes)
            found[at] = better(found[at], theirs)
            both.append(found)
        return ShownMoments(self.rows + other.rows, codes, *both)


@dataclass(frozen=True, eq=False)
class Shown:
    """A kernel of ShownMoments of a block.

    weighting : (K,) by which column of weights of cells an equation was scaled.  label : of which groups are taken.
    """

    weighting: np.ndarray | None
    label: int | None

    def __call__(self, block: Block, params: None = None) -> ShownMoments | None:
        weights = checked_weights(block)
        y = np.asarray(side_by_side(block.y), dtype=np.float64)
        if block.scaling is not None and self.weighting is not None:
            roots = block.scaling.roots[:, self.weighting]
            y = y / np.where(roots > 0, roots, np.nan)
        codes = np.zeros(len(y), dtype=np.intp)
        if block.codes is not None and self.label is not None:
            codes = block.codes[:, self.label]
        kept = codes >= 0
        if weights is not None:
            kept &= weights > 0
        if not kept.all():
            y, codes = y[kept], codes[kept]
        if len(y) == 0:
            return None
        order = np.argsort(codes, kind="stable") if np.any(np.diff(codes) < 0) else slice(None)
        distinct, starts = np.unique(codes[order], return_index=True)
        y = y[order]
        rows = (~np.isnan(y)).sum(axis=0)
        return ShownMoments(rows, distinct, np.fmin.reduceat(y, starts, axis=0), np.fmax.reduceat(y, starts, axis=0))


def _in_rows(rows: Rows, meter: Meter) -> list[str]:
    """(K,) what becomes of each equation: one pass, and one of the rest where some response is constant."""
    design = rows.design
    scaled, groups = design.own is not None, rows.absorb
    most = None if groups is None else int(np.argmax([len(each) for each in groups.labels]))
    looked = replace(rows if scaled else replace(rows, x=()), complete_only=False)
    found: ShownMoments = run_pass(
        looked,
        Shown(design.own.weighting if design.own is not None else None, most),
        None,
        partial_bytes=8 * design.n_equations * (1 + 2 * (1 if groups is None else len(groups.labels[most or 0]))),
        meter=meter,
        label="equations that can be estimated",
        less_effects=False,
    )
    with np.errstate(invalid="ignore", over="ignore"):  # infinities are for the pass that uses them to name
        still = found.largest - found.least <= (SPREAD if scaled else 0.0) * np.abs(found.largest)
    shown = ~np.isnan(found.least)
    flat, effects = (still | ~shown).all(axis=0), np.zeros(len(found.rows)) if groups is None else shown.sum(axis=0)
    sizes = design.sizes + effects
    status = [status_of(int(n), int(size)) for n, size in zip(found.rows, sizes, strict=True)]
    if groups is not None:  # which reproduce what is constant in each
        return [CONSTANT if said == OK and still else said for said, still in zip(status, flat, strict=True)]
    doubtful = np.flatnonzero(flat & np.array([said == OK for said in status]))
    if len(doubtful):
        kept = narrowed(design, doubtful)
        some = replace(narrowed_rows(rows, kept), complete_only=False)
        first = first_pass(some, meter=meter, most=0, keep=False)
        for j, part in zip(doubtful.tolist(), _apart(first, kept.design), strict=True):
            status[j] = CONSTANT if _is_reproduced(part).all() else OK
    return status


def _in_compressed(rows: Compressed | CompressedPatterns) -> list[str]:
    """The same of compressed rows; no read."""
    design = rows.design
    if isinstance(rows, CompressedPatterns):
        return statuses_shown(rows.first(), design)
    status = [status_of(rows.n_obs, int(size) + design.n_absorbed) for size in design.sizes]
    q, effects = design.n_regressors, design.absorbed
    spread = np.sum(rows.root[:, q:] ** 2, axis=0)
    if effects is not None:
        squares = effects.explained[q:] + rows.head.weight * effects.center[q:] ** 2
        still = spread <= SPREAD * squares
        return [CONSTANT if said == OK and flat else said for said, flat in zip(status, still, strict=True)]
    flat = spread <= rows.head.weight * (SPREAD * rows.head.mean[q:]) ** 2
    for part in group_rows(rows) if flat.any() else ():
        for j in part.group.equations[_is_reproduced(part) & flat[part.group.equations]].tolist():
            status[j] = CONSTANT if status[j] == OK else status[j]
    return status


# ---------------------------------------------------------------------------------------------- constants


def _apart(first: FirstMoments, design: Design) -> list[GroupRows]:
    """Of every equation what its own rows know."""
    found: dict[int, tuple[AvailableMoments, int]] = {}
    for group, moments in zip(design.groups, first.groups, strict=True):
        found.update({int(j): (moments, i) for i, j in enumerate(group.equations)})
    groups = Apart.of(design).groups
    return [group_rows_of(design, group, found[j], scaled=False) for j, group in enumerate(groups)]


def _is_reproduced(part: GroupRows) -> np.ndarray:
    """(m,) whether least squares leaves nothing of a response."""
    size = np.linalg.norm(part.x, axis=0)
    unit = part.x / np.where(size > 0, size, 1.0)
    left = part.y - unit @ np.linalg.lstsq(unit, part.y, rcond=None)[0]
    total = np.sum(part.y**2, axis=0) + part.beyond
    return np.asarray(np.sum(left**2, axis=0) + part.beyond <= LEFT**2 * total)
