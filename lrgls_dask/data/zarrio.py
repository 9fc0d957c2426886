"""Plain arrays, labels and designs in a zarr group: the common part of every saved result."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import numpy as np
import zarr

from lrgls_dask.data.claims import whole, whole_numbers
from lrgls_dask.data.labels import plain_labels
from lrgls_dask.data.seal import PACKED, read_whole
from lrgls_dask.data.store import check_incidence, label_index, read_grid, write_grid
from lrgls_dask.data.storedlabels import decode_labels, encode_labels, labels_from_json, labels_to_json
from lrgls_dask.design.absorbed import Absorbed
from lrgls_dask.design.design import Design
from lrgls_dask.design.own_columns import with_own_columns
from lrgls_dask.errors import without_secrets
from lrgls_dask.rows.moments import Head, Levels

__all__ = [
    "check_version",
    "read_array",
    "read_design",
    "read_head",
    "write_array",
    "write_design",
    "write_head",
]


ABSORBED = {  # arrays of what was absorbed, with their dims
    "rows": ("group",),
    "weights": ("group",),
    "center": ("column",),
    "effects": ("group", "column"),
    "explained": ("column",),
    "between": ("between", "equation"),
}


def check_version(group: zarr.Group, attribute: str, version: int | tuple[int, ...], path: Any, what: str) -> None:
    """Raise ValueError unless the group says it is `what`, in a format this library reads."""
    known = version if isinstance(version, tuple) else (version,)
    found = group.attrs.get(attribute)
    if found is None:
        raise ValueError(
            f"{without_secrets(path)} is a zarr group but no stored {what}. Write one with its to_zarr(...)."
        )
    if found not in known:
        read = " and ".join(map(str, known))
        raise ValueError(
            f"{without_secrets(path)} has {attribute} {found!r} but this lrgls_dask reads {read}. Upgrade lrgls_dask."
        )


def write_design(group: zarr.Group, design: Design) -> None:
    """Labels and incidence, compressed by equation, in the user's columns."""
    if design.own is not None:
        write_array(group, "weighting", design.own.weighting.astype(np.int64), ("equation",))
    design = design.given
    _write_labels(group, "equation", "equation", design.equations)
    _write_labels(group, "regressor", "regressor", design.regressors)
    _write_labels(group, "term", "coefficient", tuple(t for terms in design.terms for t in terms))
    write_array(group, "incidence_columns", np.concatenate(design.columns).astype(np.int64), ("coefficient",))
    write_array(group, "incidence_start", design.offsets.astype(np.int64), ("incidence_bound",))
    if design.precision:
        group.attrs["precision"] = list(design.precision)
    if design.equation_coords:
        coords = design.equation_coords.items()
        group.attrs["equation_coords"] = [labels_to_json((name, *labels), repr(name)) for name, labels in coords]
    write_grid(group, design)
    if design.absorbed is not None:
        _write_absorbed(group.create_group("absorbed"), design.absorbed)


def _write_absorbed(group: zarr.Group, absorbed: Absorbed) -> None:
    for name, dims in ABSORBED.items():
        write_array(group, name, getattr(absorbed, name), dims)
    for i, labels in enumerate(absorbed.labels):
        _write_labels(group, f"label_{i}", f"group_{i}", labels)
    group.attrs["names"] = labels_to_json(absorbed.names, "names of labels that are absorbed")
    group.attrs.update(n_parameters=absorbed.n_parameters, is_exact=absorbed.is_exact)


def _read_absorbed(group: zarr.Group) -> Absorbed:
    known: dict[str, Any] = dict(group.attrs)
    names = tuple(labels_from_json(known["names"]))
    labels = tuple(_read_labels(group, f"label_{i}") for i in range(len(names)))
    arrays = {name: read_array(group, name) for name in ABSORBED}
    return Absorbed(names, labels, n_parameters=known["n_parameters"], is_exact=known["is_exact"], **arrays)


def write_array(group: zarr.Group, name: str, values: np.ndarray, dims: tuple[str, ...], **attributes: Any) -> None:
    kind: Any = str if values.dtype.kind in "OU" else values.dtype
    shape = tuple(values.shape)
    array = group.create_array(
        name,
        shape=shape,
        chunks=tuple(max(1, n) for n in shape),
        dtype=kind,
        dimension_names=dims,
        attributes=attributes,
        compressors=PACKED,
        fill_value="" if kind is str else (math.nan if values.dtype.kind == "f" else 0),
    )
    if values.size:
        array[...] = values


def read_array(group: zarr.Group, name: str) -> np.ndarray:
    """Raises DamagedStore where it is not there, or its checksum is not that of what is read, and ValueError where
    metadata claim more than there is memory."""
    return whole(_stored_array(group, name))


def _stored_array(group: zarr.Group, name: str) -> Any:
    return read_whole(group.store_path / name, "array", lambda: group[name])


def write_head(group: zarr.Group, head: Head) -> None:
    """Count, weight and mean of rows, with what is known of constants where cells have weights."""
    write_array(group, "anchor", head.anchor, ("column",))
    write_array(group, "offset", head.offset, ("column",))
    if head.levels is not None:
        write_array(group, "level_weight", head.levels.weight, ("weighting",))
        write_array(group, "level_dot", head.levels.dot, ("scaled_regressor",))
    group.attrs.update(weight=head.weight, log_weight=head.log_weight)


def read_head(group: zarr.Group, n_rows: int) -> Head:
    """The head that `write_head` wrote."""
    known: dict[str, Any] = dict(group.attrs)
    levels = None
    if "level_dot" in group:
        levels = Levels(read_array(group, "level_weight"), read_array(group, "level_dot"))
    anchor, offset = read_array(group, "anchor"), read_array(group, "offset")
    return Head(int(n_rows), float(known["weight"]), float(known["log_weight"]), anchor, offset, levels)


def _write_labels(group: zarr.Group, name: str, dim: str, labels: tuple[Hashable, ...]) -> None:
    values, attributes = encode_labels(label_index(labels), f"{name} labels")
    write_array(group, name, values, (dim,), **attributes)


def _read_labels(group: zarr.Group, name: str) -> tuple[Hashable, ...]:
    return plain_labels(decode_labels(read_array(group, name), dict(group[name].attrs)), f"labels in {name}")


def read_design(group: zarr.Group) -> Design:
    starts, columns = (whole_numbers(_stored_array(group, f"incidence_{name}")) for name in ("start", "columns"))
    equations, regressors = _read_labels(group, "equation"), _read_labels(group, "regressor")
    terms = _read_labels(group, "term")
    check_incidence(starts, columns, len(regressors), len(equations))
    if len(terms) != len(columns):
        raise ValueError(f"it names {len(terms)} terms for {len(columns)} coefficients")
    spans = list(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True))
    coords: Any = group.attrs.get("equation_coords", [])
    precision: Any = group.attrs.get("precision", [])
    design = Design(
        equations,
        regressors,
        tuple(columns[a:b] for a, b in spans),
        tuple(terms[a:b] for a, b in spans),
        {name: tuple(labels) for name, *labels in map(labels_from_json, coords)},
        tuple(precision),
        **read_grid(group),
        absorbed=_read_absorbed(group["absorbed"]) if "absorbed" in group else None,  # type: ignore[arg-type]
    )
    return with_own_columns(design, read_array(group, "weighting")) if "weighting" in group else design
