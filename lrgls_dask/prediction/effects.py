"""Effects of groups that a fit absorbed: what they are, and those of the rows of a system."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from lrgls_dask.checks import shown
from lrgls_dask.data.griddims import on_dims
from lrgls_dask.data.indices import as_index
from lrgls_dask.design.design import Design
from lrgls_dask.design.skipped import Skipped
from lrgls_dask.prediction.fitted import GroupSpread, Spread
from lrgls_dask.rows.rows import Rows

__all__ = ["check_same_labels", "effect_tables", "effects_dataset", "group_spread", "with_effects_of_fit"]


def check_same_labels(design: Design, rows: Rows) -> None:
    """Raise ValueError where rows have not the labels that a fit absorbed, or have some and the fit none."""
    fitted = () if design.absorbed is None else design.absorbed.names
    found = () if rows.absorb is None else rows.absorb.names
    if fitted == found:
        return
    if not fitted:
        raise ValueError(
            f"the data do not match the fit: their effects of {shown(found)} are absorbed, of the fitted ones none "
            "were. Build the system without absorb."
        )
    raise ValueError(
        f"the data do not match the fit: it absorbed effects of {shown(fitted)}, and the rows come "
        f"{f'with {shown(found)}' if found else 'without labels'}. Pass a System that absorbs labels of these names, "
        "such as the fitted one; its Y may be NaN where responses are not known."
    )


def with_effects_of_fit(design: Design, rows: Rows) -> Rows:
    """Rows that others were fitted without, less the effects that the fit absorbed; their groups are read.

    Raises ValueError for rows without the labels, and naming groups that have no effects there.
    """
    check_same_labels(design, rows)
    absorbed, mine = design.absorbed, rows.absorb
    if absorbed is None or mine is None:
        return rows
    codes: Any = mine.part.array
    found = np.empty_like(codes)
    first = 0
    for i, (name, theirs, labels) in enumerate(zip(absorbed.names, absorbed.labels, mine.labels, strict=True)):
        start = int(absorbed.starts[i])
        at = {label: start + j for j, label in enumerate(theirs) if absorbed.rows[start + j] > 0}
        unknown = [label for label in labels if label not in at]
        if unknown:
            raise ValueError(
                f"the fit has no effects of {shown(unknown)} of {name!r}, which the rows have. Leave these rows out."
            )
        numbers = np.array([at[label] for label in labels] + [-1], dtype=codes.dtype)
        found[:, i] = numbers[np.where(codes[:, i] < 0, -1, codes[:, i] - first)]
        first += len(labels)
    groups = replace(mine, part=replace(mine.part, array=found), labels=absorbed.labels, of_fit=True)
    return replace(rows, absorb=groups, design=replace(rows.design, absorbed=absorbed))


def group_spread(design: Design, rows: Rows, within: Spread, variances: np.ndarray) -> GroupSpread:
    """What standard errors of predictions are made of in groups of one label, G of them and one more that stands for
    none; NaN in groups that the fit did not have.

    within : of the coefficients.  variances : (K,) of the errors.
    """
    absorbed, mine = design.absorbed, rows.absorb
    assert absorbed is not None
    assert mine is not None
    q = design.n_regressors
    weights = np.append(np.where(absorbed.rows > 0, absorbed.weights, np.nan), np.nan)
    means = np.vstack([absorbed.center[:q] + absorbed.effects[:, :q], np.full(q, np.nan)])
    at = {label: i for i, label in enumerate(absorbed.labels[0])}
    places = [at.get(label, -1) for label in mine.labels[0]] + [-1]
    return GroupSpread(within, means[places], 1.0 / weights[places], variances)


def effect_tables(design: Design, coefficients: np.ndarray, rows: Rows) -> np.ndarray | None:
    """(G + 1, K) effects of the groups of the rows, as these number them; NaN of groups that the fit did not have, and
    of none, the last.

    None for a fit that absorbed none. Raises ValueError for rows without the labels.
    """
    check_same_labels(design, rows)
    if design.absorbed is None or rows.absorb is None:
        return None
    tables = []
    for found, theirs, mine in zip(
        _by_label(design, coefficients), design.absorbed.labels, rows.absorb.labels, strict=True
    ):
        at = {label: i for i, label in enumerate(theirs)}
        tables.append(np.vstack([found, np.full(design.n_equations, np.nan)])[[at.get(label, -1) for label in mine]])
    return np.vstack([*tables, np.full((1, design.n_equations), np.nan)])


def effects_dataset(
    design: Design, coefficients: np.ndarray, equation_dim: str, skipped: Skipped | None = None
) -> xr.Dataset:
    """A variable for each label, (label, equation), NaN for equations that were skipped.

    Raises ValueError where nothing was absorbed.
    """
    if design.absorbed is None:
        raise ValueError("effects are those of absorbed groups, and no groups were absorbed. Use params.")
    whole = design if skipped is None else skipped.whole
    equations = as_index(whole.equations, name=equation_dim)
    found = {}
    for name, labels, values in zip(
        design.absorbed.names, design.absorbed.labels, _by_label(design, coefficients), strict=True
    ):
        dim = f"{name}_group" if name == equation_dim else str(name)
        groups = as_index(list(labels), name=dim)
        if skipped is not None:
            values = skipped.placed(values, "equation", 1)
        of_groups = xr.DataArray(values, {dim: groups, equation_dim: equations}, (dim, equation_dim))
        found[f"effect_{name}"] = on_dims(of_groups, equation_dim, whole)
    return xr.Dataset(found)


def _by_label(design: Design, coefficients: np.ndarray) -> list[np.ndarray]:
    assert design.absorbed is not None
    matrix = np.zeros((design.n_regressors, design.n_equations))
    for group in design.groups:
        matrix[np.ix_(group.columns, group.equations)] = coefficients[group.coefficients]
    return design.absorbed.by_label(matrix)
