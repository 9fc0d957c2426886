"""Labels of rows whose effects are absorbed: what users give, and the rows that know them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from lrgls_dask.checks import closest, shown
from lrgls_dask.data.labelled import LabelledRows
from lrgls_dask.data.labels import check_unique, plain_labels
from lrgls_dask.data.sources import vectors_of
from lrgls_dask.design.design import Design
from lrgls_dask.rows.narrowed import only_columns
from lrgls_dask.rows.rows import GroupLabels, Part

__all__ = ["absorbing", "labels_by_name", "variables_of"]

INTERCEPT = "Intercept"  # as formulas call it


def labels_by_name(given: Any) -> dict[Hashable, Any]:
    """What is absorbed, by name: that of a mapping, a Series or DataArray, else "absorb", or "absorb0", ... of many."""
    if isinstance(given, Mapping) and not isinstance(given, xr.Dataset):
        found = dict(given)
    else:
        vectors = vectors_of(given)
        numbered = ["absorb"] if len(vectors) == 1 else [f"absorb{i}" for i in range(len(vectors))]
        names = [getattr(each, "name", None) for each in vectors]
        names = [plain if name is None else name for name, plain in zip(names, numbered, strict=True)]
        check_unique(tuple(names), "names of labels that are absorbed")
        found = dict(zip(names, vectors, strict=True))
    if not found:
        raise ValueError("absorb names no labels. Give a label for each row, or leave absorb out.")
    return found


def variables_of(ds: xr.Dataset | None, given: Any) -> dict[Hashable, Any]:
    """The variables that are named, or given as DataArrays."""
    many = given if isinstance(given, list | tuple) else [given]
    found: dict[Hashable, Any] = {}
    for each in many:
        if isinstance(each, xr.DataArray):
            found[each.name if each.name is not None else "absorb"] = each
        elif ds is not None and each in ds.variables:
            found[each] = ds[each]
        else:
            known = [] if ds is None else list(map(str, ds.variables))
            raise ValueError(f"absorb: there is no variable {each!r} in the Dataset{closest(str(each), known)}")
    return found


def absorbing(
    made: LabelledRows, given: Mapping[Any, Any], numbers: np.ndarray | pd.Index | None = None
) -> LabelledRows:
    """The rows with these labels (N,), by name, whose effects are taken out as they are read; labels are read now.

    numbers : (N,) of the rows, or their labels, for messages, where they are not their places.
    The intercept of formulas, which the effects hold, is left out. A label may be missing in rows of weight zero and in
    rows that are not complete, which no fit with effects looks at, and which have no fitted values then.
    Raises ValueError for labels that are missing elsewhere or of other rows, and for weights of cells, by which
    equations would have effects of their own.
    """
    if made.rows.absorb is not None:
        raise ValueError(
            f"the system absorbs {shown(made.rows.absorb.names)} already. Name all labels at once: absorb=[...]."
        )
    if made.rows.cells is not None:
        what, instead = "equations", "leave them out, Sigma holds what is the same in every row"
        if made.rows.varying_weights:
            what, instead = "cells", "use weights of rows, or give the groups as columns of 0 and 1, C(...) in formulas"
        raise ValueError(
            f"absorb takes means of rows out of all equations alike, which weights of {what} tell apart. Do without: "
            f"{instead}."
        )
    codes, labels, first = [], [], 0
    complete = replace(made, rows=replace(made.rows, complete_only=True))
    for name, each in given.items():
        values = complete.labels_given(f"absorb {name!r}", each)
        missing = complete.missing_labels(f"absorb {name!r}", values, numbers)
        found, distinct = pd.factorize(values, sort=True)
        codes.append(np.where(missing, -1, found.astype(np.int64) + first))
        labels.append(plain_labels(pd.Index(distinct), f"labels of {name!r}"))
        first += len(distinct)
    part = Part("absorb", np.stack(codes, axis=1).astype(np.int32 if first < 2**31 else np.int64), None)
    groups = GroupLabels(part, tuple(given), tuple(labels))
    rows = made.rows
    if made.formulas is not None and INTERCEPT in rows.design.regressors:
        rows = _without_intercept(made)
    return replace(made, rows=replace(rows, absorb=groups))


def _without_intercept(made: LabelledRows) -> Any:
    design = made.rows.design
    kept = np.array([i for i, name in enumerate(design.regressors) if name != INTERCEPT], dtype=np.intp)
    at = np.full(design.n_regressors, -1)
    at[kept] = np.arange(len(kept))
    columns = [at[each] for each in design.columns]
    bare = [name for name, each in zip(design.equations, columns, strict=True) if not (each >= 0).any()]
    if bare:
        raise ValueError(
            f"equation {shown(bare)} has no regressor beside its intercept, which absorb takes out. Add one, or fit "
            "without absorb."
        )
    left: Design = replace(
        design,
        regressors=tuple(design.regressors[i] for i in kept),
        columns=tuple(each[each >= 0] for each in columns),
        terms=tuple(
            tuple(term for term, column in zip(terms, each, strict=True) if column >= 0)
            for terms, each in zip(design.terms, columns, strict=True)
        ),
        precision=tuple(design.precision[i] for i in kept) if design.precision else (),
    )
    return replace(made.rows, x=only_columns(made.rows.x, kept), design=left)
