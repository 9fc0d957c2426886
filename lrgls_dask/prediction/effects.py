"""Effects of groups that a fit absorbed: what they are, and those of the rows of a system."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from lrgls_dask.checks import shown
from lrgls_dask.design.design import Design
from lrgls_dask.rows.rows import Rows

__all__ = ["check_same_labels", "effect_tables", "effects_dataset"]


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


def effect_tables(design: Design, coefficients: np.ndarray, rows: Rows) -> np.ndarray | None:
    """(G, K) effects of the groups of the rows, as these number them; NaN of groups that the fit did not have.

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
    return np.vstack(tables)


def effects_dataset(design: Design, coefficients: np.ndarray, equation_dim: str) -> xr.Dataset:
    """A variable for each label, (label, equation).  Raises ValueError where nothing was absorbed."""
    if design.absorbed is None:
        raise ValueError("effects are those of absorbed groups, and no groups were absorbed. Use params.")
    equations = pd.Index(design.equations, name=equation_dim, tupleize_cols=False)
    found = {}
    for name, labels, values in zip(
        design.absorbed.names, design.absorbed.labels, _by_label(design, coefficients), strict=True
    ):
        dim = f"{name}_group" if name == equation_dim else str(name)
        groups = pd.Index(list(labels), name=dim, tupleize_cols=False)
        found[f"effect_{name}"] = xr.DataArray(values, {dim: groups, equation_dim: equations}, (dim, equation_dim))
    return xr.Dataset(found)


def _by_label(design: Design, coefficients: np.ndarray) -> list[np.ndarray]:
    assert design.absorbed is not None
    matrix = np.zeros((design.n_regressors, design.n_equations))
    for group in design.groups:
        matrix[np.ix_(group.columns, group.equations)] = coefficients[group.coefficients]
    return design.absorbed.by_label(matrix)
