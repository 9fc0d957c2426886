"""A fit on disk: a zarr group of plain arrays and attributes, opened by `xr.open_zarr` too, never a pickle."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import zarr

from lrgls_dask.als import Termination, TraceRow
from lrgls_dask.covariance import LowRank
from lrgls_dask.design import Design
from lrgls_dask.labels import decode_labels, encode_labels, plain_labels
from lrgls_dask.storage import new_store, open_group
from lrgls_dask.store import label_index

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


def write_fit(values: dict[str, Any], path: Any, *, overwrite: bool, storage_options: dict[str, Any] | None) -> None:
    """Write the fields of a Fit, complete or not at all."""
    design: Design = values["design"]
    low_rank: LowRank = values["low_rank"]
    with new_store(path, overwrite=overwrite, storage_options=storage_options) as store:
        group = zarr.open_group(store, mode="w", zarr_format=3)
        _write_labels(group, "equation", "equation", design.equations)
        _write_labels(group, "regressor", "regressor", design.regressors)
        _write_labels(group, "term", "coefficient", tuple(t for terms in design.terms for t in terms))
        _write(group, "incidence_columns", np.concatenate(design.columns).astype(np.int64), ("coefficient",))
        _write(group, "incidence_start", design.offsets.astype(np.int64), ("incidence_bound",))
        _write(group, "params", values["coefficients"], ("coefficient",))
        _write(group, "loadings", low_rank.F, ("equation", "factor"))
        _write(group, "idio_var", low_rank.d, ("equation",))
        _write(group, "y_scale", values["y_scale"], ("equation",))
        floored = np.isin(np.arange(design.n_equations), [design.equations.index(n) for n in values["on_floor"]])
        _write(group, "on_floor", floored, ("equation",))
        if values["x_rows"] is not None:
            _write(group, "x_rows", values["x_rows"], ("x_row", "regressor"))
        _write_trace(group, values["history"])
        group.attrs.update({name: values[name] for name in SCALARS})
        group.attrs["termination"] = values["termination"].value
        group.attrs["candidates"] = list(values["candidates"])
        group.attrs["lrgls_fit_format"] = FIT_FORMAT


def read_fit(path: Any, storage_options: dict[str, Any] | None) -> dict[str, Any]:
    """The fields of a Fit. Raises FileNotFoundError or ValueError for what is no stored fit."""
    group = open_group(path, storage_options)
    version = group.attrs.get("lrgls_fit_format")
    if version is None:
        raise ValueError(f"{path!s} is a zarr group but no stored fit. Write one with Fit.to_zarr(...).")
    if version != FIT_FORMAT:
        raise ValueError(
            f"{path!s} has lrgls_fit_format {version!r} but this lrgls_dask reads {FIT_FORMAT}. Upgrade lrgls_dask."
        )
    attributes = dict(group.attrs)
    values: dict[str, Any] = {name: attributes[name] for name in SCALARS}
    values["termination"] = Termination(attributes["termination"])
    candidates: Any = attributes["candidates"]
    values["candidates"] = tuple(candidates)
    values["design"] = design = _read_design(group)
    values["coefficients"] = _read(group, "params")
    values["low_rank"] = LowRank(_read(group, "loadings"), _read(group, "idio_var"))
    values["y_scale"] = _read(group, "y_scale")
    floored = np.flatnonzero(_read(group, "on_floor"))
    values["on_floor"] = tuple(design.equations[j] for j in floored)
    values["x_rows"] = _read(group, "x_rows") if "x_rows" in group else None
    values["history"] = _read_trace(group)
    return values


def _write(group: zarr.Group, name: str, values: np.ndarray, dims: tuple[str, ...], **attributes: Any) -> None:
    kind: Any = str if values.dtype.kind in "OU" else values.dtype
    shape = tuple(values.shape)
    array = group.create_array(
        name,
        shape=shape,
        chunks=tuple(max(1, n) for n in shape),
        dtype=kind,
        dimension_names=dims,
        attributes=attributes,
        fill_value="" if kind is str else (math.nan if values.dtype.kind == "f" else 0),
    )
    if values.size:
        array[...] = values


def _read(group: zarr.Group, name: str) -> np.ndarray:
    return np.asarray(group[name][...])  # type: ignore[index]


def _write_labels(group: zarr.Group, name: str, dim: str, labels: tuple[Hashable, ...]) -> None:
    values, attributes = encode_labels(label_index(labels), f"{name} labels")
    _write(group, name, values, (dim,), **attributes)


def _read_labels(group: zarr.Group, name: str) -> tuple[Hashable, ...]:
    return plain_labels(decode_labels(_read(group, name), dict(group[name].attrs)), f"labels in {name}")


def _read_design(group: zarr.Group) -> Design:
    starts, columns = _read(group, "incidence_start"), _read(group, "incidence_columns").astype(np.intp)
    terms = _read_labels(group, "term")
    spans = list(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True))
    return Design(
        _read_labels(group, "equation"),
        _read_labels(group, "regressor"),
        tuple(columns[a:b] for a, b in spans),
        tuple(terms[a:b] for a, b in spans),
    )


def _write_trace(group: zarr.Group, history: tuple[TraceRow, ...]) -> None:
    rows = [asdict(row) for row in history]
    for field in fields(TraceRow):
        column = np.array([row[field.name] for row in rows])
        _write(group, f"trace_{field.name}", column, ("half_step",))


def _read_trace(group: zarr.Group) -> tuple[TraceRow, ...]:
    columns = {field.name: _read(group, f"trace_{field.name}").tolist() for field in fields(TraceRow)}
    return tuple(TraceRow(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True))
