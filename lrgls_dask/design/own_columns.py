"""Columns of its own for every equation, where the weights of a row differ between equations.

Of cells with weights w_ij, Cov(e_i) = W_i^-1/2 Sigma W_i^-1/2: y_ij and the columns x_i of equation j times sqrt(w_ij)
are rows of the plain model. A column that equations share is then as many columns as they have weights.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lrgls_dask.design.design import Design, OwnColumns

__all__ = ["with_own_columns"]


def with_own_columns(design: Design, weighting: np.ndarray) -> Design:
    """The design of rows scaled by the roots of the weights of their cells: at most P columns, side by side.

    weighting : (K,) which column of weights equation j has. Equations of one weighting go on sharing columns.
    Coefficients keep their order; `Design.given` is the design before.
    """
    weighting = np.asarray(weighting, dtype=np.intp)
    flat = np.concatenate(design.columns)
    keys = flat * (int(weighting.max()) + 1) + np.repeat(weighting, design.sizes)
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    place = np.empty(len(first), dtype=np.intp)
    place[np.argsort(first)] = np.arange(len(first))
    columns = place[which.reshape(-1)]
    first = np.sort(first)
    column, equation = flat[first], design.equation_of[first]
    copies = np.bincount(column, minlength=design.n_regressors)
    labels = tuple(
        design.regressors[c] if copies[c] == 1 else f"{design.regressors[c]}[{design.equations[j]}]"
        for c, j in zip(column.tolist(), equation.tolist(), strict=True)
    )
    own = OwnColumns(design, weighting, column, weighting[equation])
    return replace(
        design,
        regressors=labels,
        columns=tuple(columns[mine].astype(np.intp) for mine in design.spans),
        precision=tuple(design.rounding[column].tolist()) if design.precision else (),
        own=own,
    )
