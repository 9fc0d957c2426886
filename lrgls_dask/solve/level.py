"""What a column of ones is in rows scaled by the roots of the weights of cells: the constant of an equation.

Scaled, a constant varies. Its products with the scaled columns are summed beside them (`rows.moments.Levels`), and say
whether a combination of an equation's columns is a constant, and which.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from lrgls_dask.design.design import Design, DesignGroup
from lrgls_dask.rows.moments import Levels

__all__ = ["NO_RIDGE", "check_constants", "check_digits", "level_row"]

LOST = 1e-11  # of a response's squares: a residual that small keeps four digits where squares are summed

NO_RIDGE = (
    "lam_B penalises regressors about their means and leaves constants alone, which is not defined with weights of "
    "cells that differ from row to row. Use weights of rows or of equations, or lam_B = 0."
)

SAME = 1e-7  # of the squares of a constant, what may lie outside the columns that make it up


def level_row(design: Design, group: DesignGroup, x: np.ndarray, levels: Levels | None) -> np.ndarray | None:
    """(r,) the roots of a design's weights in the basis of its rows x (r, p), zero where no combination of its columns
    is a constant; None where cells have no weights: constant is then what only the first row of x holds."""
    if design.own is None or levels is None:
        return None
    norms = np.linalg.norm(x, axis=0)
    norms = np.where(norms > 0, norms, 1.0)
    basis, singular, _ = np.linalg.svd(x / norms, full_matrices=False)
    basis = basis[:, singular > SAME * singular[0]]
    # x'level is known, and level is sought among x a
    level = basis @ np.linalg.lstsq((x / norms).T @ basis, levels.dot[group.columns] / norms, rcond=None)[0]
    total = levels.weight[design.own.weight[group.columns[0]]]
    return level if level @ level >= (1.0 - SAME) * total else np.zeros(len(x))


def check_digits(
    design: Design, equations: np.ndarray, totals: np.ndarray, y_scale: np.ndarray, n_obs: int | np.ndarray
) -> None:
    """Raise ValueError where sums of squares of scaled responses (m,) have lost the digits of their residuals.

    Scaled by weights of cells a constant varies, so it cannot be taken out of the rows before they are squared.
    y_scale : (m,) residual standard deviations of `equations`.  n_obs : rows, (m,) or one number.
    """
    if design.own is None:
        return
    squares = y_scale**2 * n_obs  # those of the response itself where its residuals are rounding
    lost = ((squares <= LOST * totals) | (squares >= (1.0 - 1e-12) * totals)) & (totals > 0)
    if lost.any():
        j = int(equations[int(np.argmax(lost))])
        size = float(np.sqrt(totals / n_obs)[int(np.argmax(lost))])
        raise ValueError(
            f"equation {design.equations[j]!r}: with weights of cells, sums of squares of its responses (of size "
            f"{size:.3g}) keep too few digits of its residuals. Subtract a number near its mean from the response, "
            "which its constant takes up; a response that is fitted exactly, leave out."
        )


def check_constants(levels: Iterable[np.ndarray | None]) -> None:
    """Raise ValueError where weights leave no constant a constant, beside which the ridge is defined."""
    if any(level is not None and np.linalg.norm(level[1:]) > 1e-6 * np.linalg.norm(level) for level in levels):
        raise ValueError(NO_RIDGE)
