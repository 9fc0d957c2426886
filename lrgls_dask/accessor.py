"""`ds.lrgls` of every xarray Dataset where lrgls_dask is imported: `System.from_xarray` and `LowRankGLS` in a call."""

from __future__ import annotations

import inspect
from typing import Any

import xarray as xr

from lrgls_dask.model import LowRankGLS
from lrgls_dask.results.fit import Fit
from lrgls_dask.results.time_varying import TimeVaryingFit
from lrgls_dask.system import System

__all__ = ["LrglsAccessor"]

OF_SYSTEM = {name: each for name, each in inspect.signature(System.from_xarray).parameters.items() if name != "ds"}
OF_MODEL = inspect.signature(LowRankGLS).parameters


def _signature(*parameters: inspect.Parameter) -> inspect.Signature:
    """Of a method with these parameters."""
    return inspect.Signature([inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD), *parameters])


@xr.register_dataset_accessor("lrgls")
class LrglsAccessor:
    """Systems and fits of the variables of a Dataset."""

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    def system(self, *args: Any, **kwargs: Any) -> System:
        """`System.from_xarray` of this Dataset, with the same arguments."""
        made: System = System.from_xarray(self._ds, *args, **kwargs)
        return made

    def fit(self, *args: Any, **kwargs: Any) -> Fit | TimeVaryingFit:
        """The fit of `System.from_xarray` of this Dataset, with the same arguments and options of `LowRankGLS` by name.

        ds.lrgls.fit("returns", ["const", "market"], obs="time", equation="firm", rank=2) is
        LowRankGLS(rank=2).fit(System.from_xarray(ds, "returns", ["const", "market"], obs="time", ...)).result_.
        """
        given = inspect.signature(type(self).fit).bind(self, *args, **kwargs).arguments
        system = self.system(**{name: value for name, value in given.items() if name in OF_SYSTEM})
        model = LowRankGLS(**{name: value for name, value in given.items() if name in OF_MODEL})
        return model.fit(system).result_


_named = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in OF_MODEL.values()]
LrglsAccessor.system.__signature__ = _signature(*OF_SYSTEM.values())  # type: ignore[attr-defined]
LrglsAccessor.fit.__signature__ = _signature(*OF_SYSTEM.values(), *_named)  # type: ignore[attr-defined]
