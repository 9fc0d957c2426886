"""Equations that lie on several dims, latitudes and longitudes say: one for every combination of their labels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from lrgls_dask.data.indices import as_index
from lrgls_dask.design.design import Design

__all__ = ["Grid", "off_dims", "on_dims", "on_one_dim", "plain_attributes", "with_attributes", "with_said"]

Labelled = TypeVar("Labelled", xr.DataArray, xr.Dataset)


@dataclass(frozen=True, eq=False)
class Grid:
    """Dims with the labels along each; equations are counted with the last dim fastest."""

    labels: Mapping[Hashable, tuple[Hashable, ...]]

    @property
    def equations(self) -> tuple[Hashable, ...]:
        """K tuples of labels."""
        return tuple(product(*self.labels.values()))

    def each(self, values: np.ndarray, along: tuple[Hashable, ...]) -> np.ndarray:
        """(K, ...) what each equation has of values along some of the dims, in their order; other axes stay."""
        lengths = tuple(len(labels) if dim in along else 1 for dim, labels in self.labels.items())
        shape = tuple(map(len, self.labels.values()))
        rest = values.shape[len(along) :]
        whole = np.broadcast_to(values.reshape(lengths + rest), shape + rest)
        return np.asarray(whole.reshape((-1, *rest)))


def on_dims(found: xr.DataArray, dim: Hashable, design: Design) -> xr.DataArray:
    """The array with the dim of equations replaced by the dims they lie on, if there are several; lazy if it is."""
    grid = design.equation_dims
    if not grid or dim not in found.dims:
        return found
    axis = found.get_axis_num(dim)
    assert isinstance(axis, int)
    shape = tuple(map(len, grid.values()))
    data = found.data.reshape(found.shape[:axis] + shape + found.shape[axis + 1 :])
    kept = {name: coord for name, coord in found.coords.items() if dim not in coord.dims}
    dims = (*found.dims[:axis], *grid, *found.dims[axis + 1 :])
    return xr.DataArray(
        data, kept | {name: list(labels) for name, labels in grid.items()}, dims, found.name, found.attrs
    )


def off_dims(given: xr.DataArray, dim: Hashable, design: Design) -> xr.DataArray:
    """The array with the dims that equations lie on, if it has all of them, replaced by that of equations; labels that
    it lacks are NaN, those that equations do not have are left out."""
    grid = design.equation_dims
    if not grid or not set(grid) <= set(given.dims):
        return given
    given = given.reindex({name: list(labels) for name, labels in grid.items() if name in given.indexes})
    labels = as_index(design.equations, name=dim)
    return on_one_dim(given, tuple(grid), dim).assign_coords({dim: labels})


def on_one_dim(given: xr.DataArray, dims: Sequence[Hashable], dim: Hashable) -> xr.DataArray:
    """The array with several of its dims laid out along one, the last of them fastest, which has no labels."""
    given = given.transpose(..., *dims)
    rest = given.dims[: -len(dims)]
    kept = {name: coord for name, coord in given.coords.items() if set(coord.dims) <= set(rest)}
    return xr.DataArray(given.data.reshape((*given.shape[: len(rest)], -1)), kept, (*rest, dim), given.name)


def plain_attributes(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Those that a store can hold: texts, numbers, lists of them."""
    plain = {str(name): _plain(value) for name, value in attributes.items()}
    return {name: value for name, value in plain.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        plain = [_plain(each) for each in value]
        return None if any(each is None for each in plain) else plain
    return value if isinstance(value, str | bool | int | float) else None


def with_attributes(found: xr.DataArray, design: Design) -> xr.DataArray:
    """The array with what the user said of its dims and, of what has the unit of the responses, that unit."""
    units = design.attributes.get(None, {}).get("units")
    if units is not None:
        found.attrs["units"] = units
    return with_said(found, design)


def with_said(found: Labelled, design: Design) -> Labelled:
    """The array or Dataset with what the user said of its dims."""
    for name in found.coords:
        found[name].attrs.update(design.attributes.get(name, {}))
    return found
