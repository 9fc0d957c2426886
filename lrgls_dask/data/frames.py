"""`System.from_frame`: frames with a column for each response, and long ones, by formulas.

A frame in memory is one piece of rows; of a Dask frame each partition is one, and its model matrix is made in the task
that reads it, once a pass. Long ones are in `longrows`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lrgls_dask.checks import one_of
from lrgls_dask.data.absorbed import absorbing
from lrgls_dask.data.assemble import build_rows
from lrgls_dask.data.formulas import wide_formulas
from lrgls_dask.data.framefit import FittedFormulas, design_of
from lrgls_dask.data.framelook import labels_of_rows, look, pieces_of
from lrgls_dask.data.labelled import LabelledRows
from lrgls_dask.data.labels import dim_of_rows
from lrgls_dask.data.longcolumns import nothing_observed
from lrgls_dask.data.longrows import Long, rows_of_long
from lrgls_dask.data.sortedcells import Sorting
from lrgls_dask.data.tables import as_table, is_table, regressor_names, stored_index
from lrgls_dask.data.weights import Weights, read_weights
from lrgls_dask.data.wideframes import WideColumns, wide_rows

__all__ = ["rows_from_frame"]


def rows_from_frame(
    frame: Any,
    formulas: Any,
    *,
    obs: str | None,
    equation: str | None,
    weights: str | Mapping[Hashable, str] | None,
    groups: str | None,
    absorb: str | Sequence[str] | None,
    levels: Mapping[str, Sequence[Any]] | None,
    missing: str,
    sorting: Sorting | None = None,
) -> LabelledRows:
    """The rows behind `System.from_frame` and `System.from_parquet`.

    sorting : what a long frame in files may take to be put in order.
    """
    one_of("missing", missing, ("drop", "raise"))
    frame = as_table(frame)
    if not is_table(frame):
        raise TypeError(
            "from_frame takes a pandas, polars or Dask frame, an Arrow table or a DuckDB relation; got a "
            f"{type(frame).__name__}. Use System.from_arrays(Y, X) for arrays, System.from_xarray(ds, y, x) for a "
            "Dataset."
        )
    for name, given in (("obs", obs), ("equation", equation), ("groups", groups)):
        if given is not None and not isinstance(given, str):
            raise TypeError(f"{name} is a {type(given).__name__} but must name a column of the frame. Give its name.")
    if isinstance(formulas, FittedFormulas):
        obs, equation = obs or formulas.obs, equation or formulas.equation
        if levels is not None or equation != formulas.equation:
            raise ValueError(
                "formulas that were fitted have their levels, and are of a frame as the fitted one, long or wide. "
                "Leave levels and equation out."
            )
    fixed, taken = _levels(levels), _absorbed_columns(absorb)
    if equation is None:
        return _wide(frame, formulas, obs, weights, groups, taken, fixed, missing)
    if obs is None:
        raise ValueError(
            f"equation={equation!r} says that the frame is long, a row for each cell; obs must then name the column "
            "that says which cells are of one observation. Give it, e.g. obs='date'."
        )
    if obs == equation:
        raise ValueError(
            f"obs and equation both name {obs!r}, but which row a cell has and which equation are two columns."
        )
    if isinstance(weights, Mapping):
        raise TypeError(
            f"weights of a long frame is one column, with the weight of each cell; got a mapping. Put the weight of "
            f"each {equation} into a column."
        )
    (weight,) = _weight_columns(weights) or (None,)
    return rows_of_long(
        Long(frame, formulas, obs, equation, weight, groups, taken, fixed, missing, sorting or Sorting())
    )


def _absorbed_columns(absorb: Any) -> tuple[str, ...]:
    """The columns whose effects are absorbed."""
    names = [] if absorb is None else [absorb] if isinstance(absorb, str) else list(absorb)
    odd = [name for name in names if not isinstance(name, str)]
    if odd:
        raise TypeError(f"absorb has a {type(odd[0]).__name__} but must name columns of the frame. Give their names.")
    return tuple(dict.fromkeys(names))


def _levels(given: Mapping[str, Sequence[Any]] | None) -> Mapping[str, Sequence[Any]]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or any(isinstance(each, str) for each in given.values()):
        raise TypeError("levels must map columns to lists of their levels, such as {'sector': ['it', 'oil']}.")
    return {name: tuple(each) for name, each in given.items()}


def _weight_columns(weights: Any) -> tuple[str, ...]:
    """The columns that weights names."""
    names = list(weights.values()) if isinstance(weights, Mapping) else [] if weights is None else [weights]
    if not all(isinstance(name, str) for name in names):
        odd = next(name for name in names if not isinstance(name, str))
        raise TypeError(
            f"weights has a {type(odd).__name__} but must name a column of the frame, or map equations to such names. "
            "Make the weights a column."
        )
    return tuple(dict.fromkeys(names))


# ---------------------------------------------------------------------------------------------- wide


def _wide(
    frame: Any,
    given: Any,
    obs: str | None,
    weights: Any,
    groups: str | None,
    absorb: tuple[str, ...],
    levels: Mapping[str, Sequence[Any]],
    missing: str,
) -> LabelledRows:
    weighted = _weight_columns(weights)
    fixed = given.encoding if isinstance(given, FittedFormulas) else None
    key = stored_index(frame) if obs is None else obs
    labelling = tuple(dict.fromkeys(name for name in (key, groups, *absorb) if name is not None))
    formulas = fixed.formulas if fixed else wide_formulas(given, regressor_names(frame, (*labelling, *weighted)))
    pieces = pieces_of(frame, [*formulas.columns, *weighted, *labelling])
    looked = look(pieces, formulas, levels, labelling, fixed)
    fitted = FittedFormulas(looked.encoding, tuple(range(len(formulas.labels))), obs)
    columns = WideColumns(looked.encoding, fitted.of, weighted, missing)
    of_rows = looked.labels[key] if key is not None else None
    called = None if key is not None and key.startswith("__index_level_") else key
    named = labels_of_rows("the frame", looked.index, of_rows, called, pieces.labelled)
    found = wide_rows(pieces, tuple(map(len, looked.index)), columns, None if named is None else named.read())
    if not found.kept.any():
        raise nothing_observed(formulas.labels)
    n_obs = int(found.kept.sum())
    dim, named = dim_of_rows([named], "obs"), None if named is None else named.read()
    x, y = found.part("X", found.x), found.part("Y", found.y)
    read = Weights()
    if weighted:
        of = {name: found.others[:, i] for i, name in enumerate(weighted)}
        given = (
            {equation: of[name] for equation, name in weights.items()}
            if isinstance(weights, Mapping)
            else of[weights][:, None]
        )
        read = replace(read_weights(given, formulas.labels, n_obs, "equation", numbered=False), named=())
    design = design_of(looked.encoding, fitted.of, formulas.labels)
    made = LabelledRows(
        rows=build_rows([x], [y], read, design),
        obs_labels=named if named is None or found.kept.all() else named[found.kept],
        obs_dim=dim,
        groups=None if groups is None else np.asarray(looked.labels[groups].to_numpy())[found.kept],
        formulas=fitted,
        made_bytes=8 * len(found.kept) * (looked.n_read + found.n_read),
    )
    if made.groups is not None:
        made.missing_labels(f"groups {groups!r}", made.groups, np.flatnonzero(found.kept))
    taken = {name: np.asarray(looked.labels[name].to_numpy())[found.kept] for name in absorb}
    return absorbing(made, taken, np.flatnonzero(found.kept)) if taken else made
