"""A fit on disk: a zarr group of plain arrays and attributes, opened by `xr.open_zarr` too, never a pickle."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

import numpy as np
import zarr

from lrgls_dask.data.storage import new_store, open_group
from lrgls_dask.data.zarrio import check_version, read_array, read_design, write_array, write_design
from lrgls_dask.design.design import Design
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.inference import SumsOfSquares
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.sigma.registry import sigma_of
from lrgls_dask.solve.record import Termination, TraceRow
from lrgls_dask.system import read_compressed, write_compressed

__all__ = ["read_fit", "write_fit"]

FIT_FORMAT = 1
SCALARS = (
    "n_obs",
    "loglik",
    "objective",
    "engine",
    "n_passes",
    "bytes_read",
    "n_starts",
    "n_agreed",
    "lam_B",
    "lam_F",
    "obs_dim",
    "equation_dim",
)
# What fits of earlier versions do not say of themselves.
UNSAID = {
    "sigma_step": "ml",
    "d_floor": 1e-8,
    "l1": 0.0,
    "algorithm": "als",
    "debiased": False,
    "cov_kind": "classical",
    "cov_note": "",
    "missing": "raise",
    "n_dropped": 0,
    "n_patterns": 0,
}


def write_fit(values: dict[str, Any], path: Any, *, overwrite: bool, storage_options: dict[str, Any] | None) -> None:
    """Write the fields of a Fit, complete or not at all."""
    design: Design = values["design"]
    covariance: Sigma = values["covariance"]
    with new_store(path, overwrite=overwrite, storage_options=storage_options) as store:
        group = zarr.open_group(store, mode="w", zarr_format=3)
        write_design(group, design)
        write_array(group, "params", values["coefficients"], ("coefficient",))
        for name, (array, dims) in covariance.stored().items():
            write_array(group, name, array, dims)
        write_array(group, "y_scale", values["y_scale"], ("equation",))
        floored = np.isin(np.arange(design.n_equations), [design.equations.index(n) for n in values["on_floor"]])
        write_array(group, "on_floor", floored, ("equation",))
        if values["x_rows"] is not None:
            write_array(group, "x_rows", values["x_rows"], ("x_row", "regressor"))
        if values["sums"] is not None:
            for field in fields(SumsOfSquares):
                write_array(group, f"sums_{field.name}", getattr(values["sums"], field.name), ("equation",))
        if values["cov_values"] is not None:
            write_array(group, "cov", values["cov_values"], ("coefficient", "coefficient_other"))
        if values["cells"] is not None:
            write_array(group, "cells", values["cells"], ("equation",))
        if values["compressed"] is not None:
            write_compressed(group, values["compressed"])
        if values["restrictions"] is not None:
            write_restrictions(group, values["restrictions"])
        _write_trace(group, values["history"])
        group.attrs.update({name: values[name] for name in SCALARS})
        group.attrs.update({name: values[name] for name in UNSAID})
        group.attrs["covariance"] = covariance.kind
        group.attrs["termination"] = values["termination"].value
        group.attrs["candidates"] = list(values["candidates"])
        group.attrs["lrgls_fit_format"] = FIT_FORMAT


def read_fit(path: Any, storage_options: dict[str, Any] | None) -> dict[str, Any]:
    """The fields of a Fit. Raises FileNotFoundError or ValueError for what is no stored fit."""
    group = open_group(path, storage_options)
    check_version(group, "lrgls_fit_format", FIT_FORMAT, path, "fit")
    attributes = dict(group.attrs)
    values: dict[str, Any] = {name: attributes[name] for name in SCALARS}
    values |= {name: attributes.get(name, default) for name, default in UNSAID.items()}
    values["termination"] = Termination(attributes["termination"])
    candidates: Any = attributes["candidates"]
    values["candidates"] = tuple(candidates)
    values["design"] = design = read_design(group)
    values["coefficients"] = read_array(group, "params")
    kind = str(attributes.get("covariance", "lowrank"))
    values["covariance"] = sigma_of(kind, lambda name: read_array(group, name))
    values["y_scale"] = read_array(group, "y_scale")
    floored = np.flatnonzero(read_array(group, "on_floor"))
    values["on_floor"] = tuple(design.equations[j] for j in floored)
    values["x_rows"] = read_array(group, "x_rows") if "x_rows" in group else None
    values["sums"] = _read_sums(group)
    values["cov_values"] = read_array(group, "cov") if "cov" in group else None
    values["cells"] = read_array(group, "cells") if "cells" in group else None
    values["compressed"] = read_compressed(group, design) if "root" in group else None
    values["restrictions"] = read_restrictions(group)
    values["history"] = _read_trace(group)
    return values


def write_restrictions(group: zarr.Group, restrictions: Restrictions) -> None:
    """R, r and how each was written."""
    write_array(group, "restriction_matrix", restrictions.matrix, ("restriction", "coefficient"))
    write_array(group, "restriction_values", restrictions.values, ("restriction",))
    group.attrs["restriction_texts"] = list(restrictions.texts)


def read_restrictions(group: zarr.Group) -> Restrictions | None:
    """Those that `write_restrictions` wrote, or None."""
    if "restriction_values" not in group:
        return None
    texts: Any = group.attrs["restriction_texts"]
    matrix, values = read_array(group, "restriction_matrix"), read_array(group, "restriction_values")
    return Restrictions(matrix, values, tuple(texts))


def _read_sums(group: zarr.Group) -> SumsOfSquares | None:
    if "sums_residual" not in group:
        return None
    return SumsOfSquares(**{field.name: read_array(group, f"sums_{field.name}") for field in fields(SumsOfSquares)})


def _write_trace(group: zarr.Group, history: tuple[TraceRow, ...]) -> None:
    rows = [asdict(row) for row in history]
    for field in fields(TraceRow):
        column = np.array([row[field.name] for row in rows])
        write_array(group, f"trace_{field.name}", column, ("half_step",))


def _read_trace(group: zarr.Group) -> tuple[TraceRow, ...]:
    columns = {field.name: read_array(group, f"trace_{field.name}").tolist() for field in fields(TraceRow)}
    return tuple(TraceRow(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True))
