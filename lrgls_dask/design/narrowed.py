"""Some equations of a design by themselves, with the columns that they use."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lrgls_dask.design.design import Design

__all__ = ["Narrowed", "narrowed"]


@dataclass(frozen=True, eq=False)
class Narrowed:
    """What is left of a design.

    design : with the equations that were kept.  equations, columns, coefficients : where those of it stand in the
    whole one; columns of the scaled rows where cells have weights, given : of the user's.
    """

    design: Design
    equations: np.ndarray
    columns: np.ndarray
    given: np.ndarray
    coefficients: np.ndarray


def narrowed(whole: Design, equations: np.ndarray) -> Narrowed:
    """The equations at these positions, as if the others had never been there."""
    own, columns = whole.own, _columns(whole, equations)
    if own is None:
        design, given = _cut(whole, equations, columns), columns
    else:
        of_given = narrowed(own.given, equations)
        given, at = of_given.columns, np.full(own.given.n_regressors, -1)
        at[given] = np.arange(len(given))
        kept = replace(
            own,
            given=of_given.design,
            weighting=own.weighting[equations],
            column=at[own.column[columns]],
            weight=own.weight[columns],
        )
        design = replace(_cut(whole, equations, columns), own=kept)
    coefficients = np.flatnonzero(np.isin(whole.equation_of, equations))
    return Narrowed(design, equations, columns, given, coefficients)


def _columns(whole: Design, equations: np.ndarray) -> np.ndarray:
    """Columns that these equations use, or that none does."""
    kept = ~whole.is_used
    for j in equations:
        kept[whole.columns[j]] = True
    return np.flatnonzero(kept)


def _cut(whole: Design, equations: np.ndarray, columns: np.ndarray) -> Design:
    at = np.full(whole.n_regressors, -1)
    at[columns] = np.arange(len(columns))
    return Design(
        tuple(whole.equations[j] for j in equations),
        tuple(whole.regressors[c] for c in columns),
        tuple(at[whole.columns[j]] for j in equations),
        tuple(whole.terms[j] for j in equations),
        {name: tuple(labels[j] for j in equations) for name, labels in whole.equation_coords.items()},
        tuple(whole.precision[c] for c in columns) if whole.precision else (),
        attributes=whole.attributes,
        constant=whole.constant,
        absorbed=None if whole.absorbed is None else whole.absorbed.only(columns, equations),
    )
