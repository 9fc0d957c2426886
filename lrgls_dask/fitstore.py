"""A fit on disk: a zarr group of plain arrays and attributes, opened by `xr.open_zarr` too, never a pickle."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

import numpy as np
import zarr

from lrgls_dask.als import Termination, TraceRow
from lrgls_dask.compressed import read_compressed, write_compressed
from lrgls_dask.covariance import LowRank
from lrgls_dask.design import Design
from lrgls_dask.storage import new_store, open_group
from lrgls_dask.zarrio import check_version, read_array, read_design, write_array, write_design

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
    "sigma_step",
    "d_floor",
    "obs_dim",
    "equation_dim",
)


def write_fit(values: dict[str, Any], path: Any, *, overwrite: bool, storage_options: dict[str, Any] | None) -> None:
    """Write the fields of a Fit, complete or not at all."""
    design: Design = values["design"]
    covariance: LowRank = values["covariance"]
    with new_store(path, overwrite=overwrite, storage_options=storage_options) as store:
        group = zarr.open_group(store, mode="w", zarr_format=3)
        write_design(group, design)
        write_array(group, "params", values["coefficients"], ("coefficient",))
        write_array(group, "loadings", covariance.F, ("equation", "factor"))
        write_array(group, "idio_var", covariance.d, ("equation",))
        write_array(group, "y_scale", values["y_scale"], ("equation",))
        floored = np.isin(np.arange(design.n_equations), [design.equations.index(n) for n in values["on_floor"]])
        write_array(group, "on_floor", floored, ("equation",))
        if values["x_rows"] is not None:
            write_array(group, "x_rows", values["x_rows"], ("x_row", "regressor"))
        if values["compressed"] is not None:
            write_compressed(group, values["compressed"])
        _write_trace(group, values["history"])
        group.attrs.update({name: values[name] for name in SCALARS})
        group.attrs["termination"] = values["termination"].value
        group.attrs["candidates"] = list(values["candidates"])
        group.attrs["lrgls_fit_format"] = FIT_FORMAT


def read_fit(path: Any, storage_options: dict[str, Any] | None) -> dict[str, Any]:
    """The fields of a Fit. Raises FileNotFoundError or ValueError for what is no stored fit."""
    group = open_group(path, storage_options)
    check_version(group, "lrgls_fit_format", FIT_FORMAT, path, "fit")
    attributes = dict(group.attrs)
    values: dict[str, Any] = {name: attributes[name] for name in SCALARS}
    values["termination"] = Termination(attributes["termination"])
    candidates: Any = attributes["candidates"]
    values["candidates"] = tuple(candidates)
    values["design"] = design = read_design(group)
    values["coefficients"] = read_array(group, "params")
    values["covariance"] = LowRank(read_array(group, "loadings"), read_array(group, "idio_var"))
    values["y_scale"] = read_array(group, "y_scale")
    floored = np.flatnonzero(read_array(group, "on_floor"))
    values["on_floor"] = tuple(design.equations[j] for j in floored)
    values["x_rows"] = read_array(group, "x_rows") if "x_rows" in group else None
    values["compressed"] = read_compressed(group, design) if "root" in group else None
    values["history"] = _read_trace(group)
    return values


def _write_trace(group: zarr.Group, history: tuple[TraceRow, ...]) -> None:
    rows = [asdict(row) for row in history]
    for field in fields(TraceRow):
        column = np.array([row[field.name] for row in rows])
        write_array(group, f"trace_{field.name}", column, ("half_step",))


def _read_trace(group: zarr.Group) -> tuple[TraceRow, ...]:
    columns = {field.name: read_array(group, f"trace_{field.name}").tolist() for field in fields(TraceRow)}
    return tuple(TraceRow(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True))
