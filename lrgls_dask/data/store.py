"""Format 1 on disk: a zarr group with `Y` (obs, equation) and `X` (obs, regressor), read lazily, written in blocks.

Y, X                 chunked along obs only, equal row chunks; missing chunks of floats read as NaN, never as 0
<equation dim>       K labels                        regressor   q labels of the distinct columns
<obs dim>            N labels, if there are any      term        P labels, what the equations call their columns
incidence_columns    (P,) column of each coefficient, ordered by equation
incidence_start      (K + 1,) where each equation starts in it
groups               (N,), if there are any          attributes  lrgls_format = 1
weights              (N,) of rows, (N, K) of cells or (K,) of equations, if there are any
any other name       (K,) further labels of the equations, such as the sector of every firm
"""

from __future__ import annotations

import base64
import math
from collections.abc import Hashable
from dataclasses import replace
from typing import Any, TypeGuard

import numpy as np
import pandas as pd
import zarr

from lrgls_dask.checks import closest, shown
from lrgls_dask.data.arrays import default_equations, default_regressors
from lrgls_dask.data.assemble import Use, build_design, build_rows
from lrgls_dask.data.claims import arrays_in, member, names_in, whole, whole_numbers
from lrgls_dask.data.framefit import read_formulas
from lrgls_dask.data.labelled import LabelledRows
from lrgls_dask.data.labels import plain_labels
from lrgls_dask.data.seal import check_seal_beside
from lrgls_dask.data.sources import column_parts, row_chunks
from lrgls_dask.data.storage import open_group
from lrgls_dask.data.storedlabels import StoredLabels, decode_labels, labels_from_json, labels_to_json
from lrgls_dask.data.weights import Weights, read_weights
from lrgls_dask.design.design import Design
from lrgls_dask.errors import without_secrets
from lrgls_dask.rows.rows import Part

__all__ = ["FORMAT", "check_incidence", "dims_of", "label_index", "read_grid", "read_system", "write_grid"]

FORMAT = 1


def read_system(path: Any, *, storage_options: dict[str, Any] | None = None) -> LabelledRows:
    """The rows behind `System.from_zarr`: labels and incidence are read now, X and Y when somebody asks.

    Accepts format 1, a plain group with `Y` and `X`, and one with an array `X/<equation>` for each equation.
    """
    group = open_group(path, storage_options)
    _check_format(group, path)
    y = _array(group, "Y", path)
    check_seal_beside(group, y, path)
    obs_dim, equation_dim = dims_of(y, "obs", "equation")
    n_equations = 1 if y.ndim == 1 else int(y.shape[1])
    equations = _labels(group, equation_dim, n_equations)
    x = member(group, "X")
    if isinstance(x, zarr.Group):
        x_parts, design = _separate(x, equations, n_equations)
    else:
        x_parts, design = _together(group, _array(group, "X", path), y, equations or default_equations(n_equations))
    coords = _equation_coords(group, equation_dim, n_equations)
    design = replace(design, equation_coords=coords, **read_grid(group))
    weights = _weights(group, y, design.equations)
    stored = member(group, str(obs_dim))
    named = None if obs_dim == "obs" else obs_dim
    obs = StoredLabels(stored, dict(stored.attrs), named) if _holds_labels(stored, y) else None
    return LabelledRows(
        rows=build_rows(x_parts, column_parts("Y", y), weights, design),
        obs_labels=obs,
        obs_dim=obs_dim,
        equation_dim=equation_dim,
        groups=_vector(group, "groups"),
        formulas=read_formulas(group),
    )


def write_grid(group: zarr.Group, design: Design) -> None:
    """The dims that equations lie on, where there are several, what is said of all dims, and which regressor is a
    constant that was made."""
    if design.constant is not None:
        group.attrs["constant"] = design.constant
    if design.attributes:
        said = design.attributes.items()
        group.attrs["said_of_dims"] = [[labels_to_json((name,), repr(name))[0], dict(each)] for name, each in said]
    if design.equation_dims:
        dims = design.equation_dims.items()
        group.attrs["equation_dims"] = [labels_to_json((name, *labels), repr(name)) for name, labels in dims]


def read_grid(group: zarr.Group) -> dict[str, Any]:
    """The fields of a design that `write_grid` wrote."""
    known: dict[str, Any] = dict(group.attrs)
    dims = {name: tuple(labels) for name, *labels in map(labels_from_json, known.get("equation_dims", []))}
    said = {labels_from_json([name])[0]: each for name, each in known.get("said_of_dims", [])}
    return {"equation_dims": dims, "attributes": said, "constant": known.get("constant")}


def _check_format(group: zarr.Group, path: Any) -> None:
    version = group.attrs.get("lrgls_format", FORMAT)
    if version != FORMAT:
        raise ValueError(
            f"{without_secrets(path)} has lrgls_format {version!r} but this lrgls_dask reads format "
            f"{FORMAT}. Upgrade lrgls_dask."
        )
    if group.attrs.get("lrgls_incomplete"):
        raise ValueError(
            f"{without_secrets(path)} was not written to its end. Write it again with "
            f"System.to_zarr(..., overwrite=True)."
        )


def _array(group: zarr.Group, name: str, path: Any) -> zarr.Array:
    found = member(group, name)
    if not isinstance(found, zarr.Array):
        keys = names_in(group)
        raise ValueError(
            f"{without_secrets(path)} must have an array {name!r} but has "
            f"{shown(keys, 10) or 'nothing'}{closest(name, keys)}"
        )
    return _undisguised(found, name)


def _undisguised(array: zarr.Array, name: str, *, labels: bool = False) -> zarr.Array:
    """The array, unless its numbers mean something else by the CF conventions that only xarray applies.

    labels : whether it holds labels, whose times are decoded where they are read.
    """
    attributes = dict(array.attrs)
    coded: list[str] = [key for key in ("scale_factor", "add_offset") if key in attributes]
    coded += [key for key in ("_FillValue", "missing_value") if key in attributes and not _is_nan(attributes[key])]
    if coded or (not labels and "since" in str(attributes.get("units", ""))):
        raise ValueError(
            f"{name} is stored in coded form (attributes {shown(coded or ['units'])}), which zarr does not decode. "
            "Use System.from_xarray(xr.open_zarr(...), ...)."
        )
    return array


def _is_nan(value: Any) -> bool:
    if isinstance(value, str) and value != "NaN":  # xarray writes floats in version 3 as base64
        raw = base64.b64decode(value)
        return len(raw) == 8 and math.isnan(np.frombuffer(raw, dtype="<f8")[0])
    return value == "NaN" or (isinstance(value, float) and math.isnan(value))


def dims_of(array: zarr.Array, *defaults: str) -> tuple[Hashable, ...]:
    """Names of the dims, from version 3 metadata or the attribute xarray writes in version 2."""
    named = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS") or ()
    given = dict(enumerate(named if isinstance(named, list | tuple) else ()))
    return tuple(given.get(axis) or default for axis, default in enumerate(defaults))


def _labels(group: zarr.Group, name: Hashable, count: int) -> tuple[Hashable, ...] | None:
    stored = member(group, str(name))
    if not isinstance(stored, zarr.Array) or stored.ndim != 1:
        return None
    if stored.shape[0] != count:
        raise ValueError(f"{name!s} has {stored.shape[0]} labels for {count} columns. Give one label for each.")
    return plain_labels(decode_labels(whole(stored), dict(stored.attrs)), f"labels in {name!s}")


def _equation_coords(group: zarr.Group, dim: Hashable, n_equations: int) -> dict[Hashable, tuple[Hashable, ...]]:
    """The 1-D arrays along the equations, but for their own labels and weights."""
    found: dict[Hashable, tuple[Hashable, ...]] = {}
    for name, array in arrays_in(group).items():
        if array.ndim == 1 and name not in (dim, "weights") and dims_of(array, "")[0] == dim:
            found[name] = _labels(group, name, n_equations) or ()
    return found


def _holds_labels(stored: Any, y: zarr.Array) -> TypeGuard[zarr.Array]:
    """Whether this is one label for each row of Y."""
    return isinstance(stored, zarr.Array) and stored.shape == y.shape[:1]


def _weights(group: zarr.Group, y: zarr.Array, equations: tuple[Hashable, ...]) -> Weights:
    """Weights of rows, of cells, or, read now, of equations; by the names of their dims, or else by shape."""
    stored = member(group, "weights")
    if not isinstance(stored, zarr.Array):
        return Weights()
    array = _undisguised(stored, "weights")
    obs_dim, equation_dim = dims_of(y, "obs", "equation")
    n_obs, n_equations = int(y.shape[0]), len(equations)
    given: Any = array
    if array.ndim == 1 and n_obs == n_equations:
        given = whole(array)
        given = given[None, :] if dims_of(array, str(obs_dim)) == (equation_dim,) else given[:, None]
    return read_weights(given, equations, n_obs, equation_dim, numbered=True)


def _vector(group: zarr.Group, name: str) -> Part | None:
    stored = member(group, name)
    if not isinstance(stored, zarr.Array):
        return None
    if stored.ndim != 1:
        raise ValueError(f"{name} must be 1-D with one entry per row; found shape {stored.shape}. Store one column.")
    return Part(name, _undisguised(stored, name, labels=name == "groups"), row_chunks(stored))


def _together(
    group: zarr.Group, x: zarr.Array, y: zarr.Array, equations: tuple[Hashable, ...]
) -> tuple[list[Part], Design]:
    """One array of distinct columns, with the stored incidence or else shared by all equations."""
    obs_dim, x_obs = dims_of(y, "obs")[0], dims_of(x, str(dims_of(y, "obs")[0]))[0]
    if x_obs != obs_dim:
        raise ValueError(
            f"X has dims {dims_of(x, 'obs', 'regressor')} but Y has {dims_of(y, 'obs', 'equation')}: the first must be "
            "the same rows. Transpose one, or use System.from_xarray(xr.open_zarr(...), ...)."
        )
    parts = column_parts("X", x)
    count = sum(part.n_columns for part in parts)
    regressors = _labels(group, dims_of(x, "obs", "regressor")[1], count) or default_regressors(count)
    starts, columns = member(group, "incidence_start"), member(group, "incidence_columns")
    if not isinstance(starts, zarr.Array) or not isinstance(columns, zarr.Array):
        everyone = [Use(0, np.arange(count), regressors)]
        return parts, build_design(equations, [count], [everyone] * len(equations), regressors)
    bounds, flat = whole_numbers(starts), whole_numbers(columns)
    check_incidence(bounds, flat, count, len(equations))
    terms = _labels(group, "term", len(flat)) or tuple(regressors[c] for c in flat.tolist())
    uses = _stored_uses(bounds, flat, terms)
    return parts, build_design(equations, [count], uses, regressors)


def check_incidence(bounds: np.ndarray, columns: np.ndarray, n_regressors: int, n_equations: int) -> None:
    """Raise ValueError unless bounds (K + 1,) part the columns (P,) of all coefficients among the equations."""
    rising = bounds.shape == (n_equations + 1,) and bounds[0] == 0 and bounds[-1] == len(columns)
    if not rising or (np.diff(bounds) < 0).any():
        raise ValueError(
            f"incidence_start must rise from 0 to {len(columns)} in {n_equations + 1} entries; found {bounds[:5]}... "
            f"of shape {bounds.shape}. Write the store again."
        )
    if len(columns) and (columns.min() < 0 or columns.max() >= n_regressors):
        raise ValueError(
            f"incidence_columns must lie in 0..{n_regressors - 1}; found {columns.min()}..{columns.max()}. "
            "Write the store again."
        )


def _stored_uses(bounds: np.ndarray, columns: np.ndarray, terms: tuple[Hashable, ...]) -> list[list[Use]]:
    """One use for each equation; equations with the same columns and terms share it."""
    known: dict[tuple[bytes, tuple[Hashable, ...]], list[Use]] = {}
    uses = []
    for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        own, names = columns[start:stop], terms[start:stop]
        uses.append(known.setdefault((own.tobytes(), names), [Use(0, own, names)]))
    return uses


def _separate(group: zarr.Group, equations: tuple[Hashable, ...] | None, n_equations: int) -> tuple[list[Part], Design]:
    """One array `X/<equation>` for each equation."""
    keys = set(arrays_in(group))
    if equations is None:
        equations = _unlabelled(keys, n_equations)
    widths, parts, uses = [], [], []
    for block, equation in enumerate(equations):
        name = f"X/{equation}"
        array = member(group, str(equation))
        if not isinstance(array, zarr.Array):
            raise ValueError(f"X has no array for equation {equation!r}; it has {shown(sorted(keys))}. Add {name!r}.")
        new = column_parts(name, _undisguised(array, name))
        width = sum(part.n_columns for part in new)
        listed: Any = array.attrs.get("regressors")
        names = default_regressors(width) if listed is None else plain_labels(listed, f"regressors of {name}")
        if len(names) != width:
            raise ValueError(f"{name} has {width} columns but {len(names)} regressors. Give one name for each.")
        widths.append(width)
        parts.extend(new)
        uses.append([Use(block, np.arange(width), names)])
    surplus = sorted(keys - {str(equation) for equation in equations})
    if surplus:
        raise ValueError(f"X has arrays {shown(surplus)} for equations that Y lacks. Remove them or add them to Y.")
    return parts, build_design(equations, widths, uses)


def _unlabelled(keys: set[str], count: int) -> tuple[Hashable, ...]:
    """Equation names from the arrays in X where Y has none: only if they say which column of Y is meant."""
    for names in (default_equations(count), tuple(str(j) for j in range(count))):
        if keys == set(names):
            return names
    raise ValueError(
        f"Y has no equation labels, so arrays {shown(sorted(keys))} in X cannot be told apart. Store the labels of Y "
        "as a coordinate array 'equation', or name the arrays '0', '1', ...."
    )


def label_index(labels: tuple[Hashable, ...]) -> pd.Index:
    """The labels as an index that keeps their Python types."""
    return pd.Index(list(labels), dtype=object, tupleize_cols=False)
