"""`System.from_frame`: frames with a column for each response, and long ones, by formulas.

A frame in memory is one piece of rows; of a Dask frame each partition is one, and its model matrix is made in the task
that reads it, once a pass. The cells of a row lie anywhere in a long frame, so that its columns are read at once.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from dask.utils import format_bytes

from lrgls_dask.checks import one_of, shown
from lrgls_dask.data.absorbed import absorbing
from lrgls_dask.data.assemble import Use, build_design, build_rows
from lrgls_dask.data.formulas import long_formulas, wide_formulas
from lrgls_dask.data.framefit import FittedFormulas, design_of
from lrgls_dask.data.framelook import labels_of_rows, look, pieces_of, whole_columns
from lrgls_dask.data.labelled import LabelledRows
from lrgls_dask.data.labels import dim_of_rows
from lrgls_dask.data.longframes import Cells, cells_of, formula_of, group_of_rows, laid_out, same_in_row
from lrgls_dask.data.modelmatrix import Encoding
from lrgls_dask.data.parquet import ParquetFrame
from lrgls_dask.data.tables import as_kind, as_table, is_table, regressor_names, stored_index
from lrgls_dask.data.weights import Weights, read_weights
from lrgls_dask.data.wideframes import WideColumns, missing_value, wide_rows
from lrgls_dask.rows.memory import this_process
from lrgls_dask.rows.rows import Part

__all__ = ["rows_from_frame"]

CELL_BYTES = 48  # of one column of one cell: as it is read, in the model matrix, and laid out by equation


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
    memory_limit: int | str | None = None,
) -> LabelledRows:
    """The rows behind `System.from_frame` and `System.from_parquet`.

    memory_limit : for a long frame in files, which is read at once; by default the memory that is free.
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
    return _long(frame, formulas, (obs, equation), weights, groups, taken, fixed, missing, memory_limit)


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
        raise ValueError(_nothing_observed(formulas.labels))
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
        groups=None if groups is None else _groups(looked.labels[groups], groups)[found.kept],
        formulas=fitted,
    )
    taken = {name: _groups(looked.labels[name], name, "absorb")[found.kept] for name in absorb}
    return absorbing(made, taken) if taken else made


def _groups(labels: pd.Series, name: str, what: str = "groups") -> np.ndarray:
    missing = labels.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"{what} {name!r}: the label of row {int(missing.argmax())} is missing, {int(missing.sum())} such labels "
            "in all. Give every row one, or drop the row."
        )
    return np.asarray(labels.to_numpy())


def _nothing_observed(equations: Sequence[Hashable]) -> str:
    return (
        f"no row shows a response of {shown(list(equations))} and all regressors of its equation: every one misses "
        "something. Look for a column that is empty, and drop or fill it."
    )


# ---------------------------------------------------------------------------------------------- long


def _long(
    frame: Any,
    given: Any,
    keys: tuple[str, str],
    weights: Any,
    groups: str | None,
    absorb: tuple[str, ...],
    levels: Mapping[str, Sequence[Any]],
    missing: str,
    memory_limit: int | str | None,
) -> LabelledRows:
    obs, equation = keys
    if isinstance(weights, Mapping):
        raise TypeError(
            f"weights of a long frame is one column, with the weight of each cell; got a mapping. Put the weight of "
            f"each {equation} into a column."
        )
    weighted = _weight_columns(weights)
    fixed = given.encoding if isinstance(given, FittedFormulas) else None
    others = [*weighted, *(name for name in (groups, *absorb) if name is not None)]
    formulas = fixed.formulas if fixed else long_formulas(given, regressor_names(frame, (*keys, *others)))
    wanted = [*keys, *formulas.columns, *others]
    _require_cells(frame, len(set(wanted)), equation, memory_limit)
    raw = whole_columns(frame, wanted)
    looked = look(pieces_of(raw, list(raw.columns)), formulas, levels, (), fixed)
    cells = cells_of(raw, obs, equation)
    fitted = FittedFormulas(looked.encoding, formula_of(cells.equations, formulas.labels), obs, equation)
    block = looked.encoding.block(raw, cells.lags)
    y = fitted.response(block.y, cells.column)
    lost = _lost(looked.encoding, fitted.of, cells, block.x)
    if missing == "raise":
        _refuse_missing(looked.encoding, fitted, cells, block.x, y)
    kept, shown_cells = cells.only(~(lost | np.isnan(y)))
    if not len(kept):
        raise ValueError(_nothing_observed(cells.equations))
    bare = np.flatnonzero(np.bincount(shown_cells.column, minlength=len(cells.equations)) == 0)
    if len(bare):
        raise ValueError(_nothing_observed([cells.equations[j] for j in bare]))
    uses = [looked.encoding.places[formulas.right[i]] for i in fitted.of]
    out = laid_out(shown_cells, block.x[kept], uses, looked.encoding.names, share=True)
    own: list[list[Use]] = [[Use(0, used, terms)] for used, terms in zip(out.used, out.terms, strict=True)]
    design = build_design(cells.equations, [out.x.shape[1]], own)
    read = Weights() if not weighted else _cell_weights(raw[weighted[0]].iloc[kept], weighted[0], shown_cells)
    values = shown_cells.spread(y[kept], np.nan)
    made = LabelledRows(
        rows=build_rows([Part("X", out.x, None)], [Part("Y", values, None)], read, design),
        obs_labels=shown_cells.obs,
        obs_dim=dim_of_rows(
            [labels_of_rows("the frame", (), pd.Series(shown_cells.obs), obs, True)], "obs", [equation]
        ),
        equation_dim=equation,
        groups=None if groups is None else group_of_rows(shown_cells, raw[groups].iloc[kept], groups),
        formulas=fitted,
    )
    taken = {name: group_of_rows(shown_cells, raw[name].iloc[kept], name, "absorb") for name in absorb}
    return absorbing(made, taken) if taken else made


def _require_cells(frame: Any, n_columns: int, equation: str, memory_limit: int | str | None) -> None:
    """Raise MemoryError, before any is read, where the cells of long files do not fit."""
    if not isinstance(frame, ParquetFrame):
        return
    here = this_process(memory_limit)
    need = here.base + CELL_BYTES * n_columns * frame.n_rows
    if need > here.limit:
        raise MemoryError(
            f"{frame.n_rows:,} cells of {n_columns} columns, which a long frame has in memory at once, need "
            f"{format_bytes(need)}; the limit is {format_bytes(here.limit)}. Write the files with a column for each "
            f"{equation}, e.g. with PIVOT of DuckDB, and leave `equation` out, by which they are read row group by row "
            "group; or raise memory_limit."
        )


def _lost(encoding: Encoding, of: Sequence[int], cells: Cells, x: np.ndarray) -> np.ndarray:
    """(L,) whether a cell lacks a regressor of its equation."""
    missing = np.isnan(x)
    if not missing.any():
        return np.zeros(len(x), dtype=bool)
    formula = np.array([encoding.formulas.right[i] for i in of])[cells.column]
    lost = np.zeros(len(x), dtype=bool)
    for i, places in enumerate(encoding.places):
        lost |= (formula == i) & missing[:, places].any(axis=1)
    return lost


def _refuse_missing(encoding: Encoding, fitted: FittedFormulas, cells: Cells, x: np.ndarray, y: np.ndarray) -> None:
    """Raise ValueError naming column and cell of the first value that an equation needs and lacks."""
    first, count = None, 0
    for j, label in enumerate(fitted.of):
        mine = np.flatnonzero(cells.column == j)
        places = encoding.places[encoding.formulas.right[label]]
        wrong = np.isnan(np.column_stack([x[mine][:, places], y[mine]]))
        count += int(wrong.sum())
        if first is None and wrong.any():
            at, column = (int(i) for i in np.argwhere(wrong)[0])
            names = [*(encoding.names[c] for c in places), encoding.formulas.responses[label].text]
            first = names[column], f"row {mine[at]}, {cells.equations[j]!r} at {cells.obs[cells.row[mine[at]]]}"
    if first is not None:
        raise missing_value(*first, count)


def _cell_weights(column: pd.Series, name: str, cells: Cells) -> Weights:
    """Of rows where all cells of each have the same, else of cells; a cell that is not there has weight 1."""
    values = np.asarray(as_kind(name, column, "number"), dtype=np.float64)
    of_rows = same_in_row(cells, values)
    given = cells.spread(values, 1.0) if of_rows is None else of_rows[:, None]
    made = read_weights(given, cells.equations, len(cells.obs), str(cells.obs.name), numbered=False)
    return replace(made, named=())
