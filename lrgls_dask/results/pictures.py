"""Pictures of a fit, with matplotlib: each draws numbers that `data=True` returns, and none reads data."""

from __future__ import annotations

import importlib
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from lrgls_dask.checks import one_of
from lrgls_dask.data.griddims import on_dims
from lrgls_dask.results.reported import Reported
from lrgls_dask.results.tidy import NUMBERS, tidy

__all__ = ["Pictures"]

MOST = 60  # coefficients that a picture has room for
OF_MAP = ("estimate", "std_error", "statistic", "p_value")


@dataclass(frozen=True, eq=False)
class Pictures:
    """The pictures of a fit, `fit.plot.NAME(...)`; matplotlib draws them, pip install 'lrgls_dask[plot]'.

    Each takes `ax`, the axes to draw on, new ones where None, and returns them; with data=True the numbers instead,
    and nothing is drawn.
    """

    fit: Reported

    def coefficients(
        self, equation: Any = None, term: Any = None, *, level: float = 0.95, ax: Any = None, data: bool = False
    ) -> Any:
        """Coefficients with their intervals, one below the other; which, as `Fit.tidy` takes them.

        data : the frame of `Fit.tidy`.  Raises ValueError for more than 60 of them.
        """
        frame = tidy(self.fit, equation, term, level)
        if data:
            return frame
        if len(frame) > MOST:
            raise ValueError(
                f"a picture has room for {MOST} coefficients, and these are {len(frame):,}. Choose some of them with "
                "equation= and term=, or draw those of one regressor with map where equations lie on two dims."
            )
        axes, places = _axes(ax, height=1.0 + 0.3 * len(frame)), np.arange(len(frame))
        owners = frame.columns.difference([*NUMBERS, "term"], sort=False)
        names = frame[[*owners, "term"]].astype(str).agg(", ".join, axis=1)
        axes.axvline(0.0, color="0.6", linewidth=0.8)
        axes.hlines(places, frame["conf_low"], frame["conf_high"], color="C0")
        axes.plot(frame["estimate"], places, "o", color="C0", markersize=4)
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.set_xlabel(f"coefficient, {100 * level:g}% interval")
        return axes

    def map(
        self,
        term: Hashable,
        value: Literal["estimate", "std_error", "statistic", "p_value"] = "estimate",
        *,
        ax: Any = None,
        data: bool = False,
    ) -> Any:
        """A number of one regressor's coefficients over the two dims that equations lie on, such as a map of trends.

        data : the DataArray (dim, dim); NaN where an equation does not have the regressor, or was skipped.
        Raises ValueError where equations do not lie on two dims.
        """
        one_of("value", value, OF_MAP)
        whole = self.fit._whole
        if len(whole.equation_dims) != 2:
            lie = list(map(str, whole.equation_dims)) or [self.fit.equation_dim]
            raise ValueError(
                f"a map needs equations on two dims, and these lie on {', '.join(lie)}. Use coefficients(term=...)."
            )
        frame = tidy(self.fit, None, [term])
        flat = np.full(whole.n_equations, np.nan)
        having = [j for j, own in enumerate(whole.terms) if term in own]
        flat[having] = frame[value].to_numpy()
        dim = self.fit.equation_dim
        found = on_dims(xr.DataArray(flat, dims=(dim,), name=f"{value} of {term}"), dim, whole)
        if data:
            return found
        axes = _axes(ax)
        down, along = found.dims
        signed = value in ("estimate", "statistic")
        most = float(np.nanmax(np.abs(found.values)))
        colours = {"cmap": "RdBu_r", "vmin": -most, "vmax": most} if signed else {"cmap": "viridis"}
        mesh = axes.pcolormesh(_edges(found[along]), _edges(found[down]), found.values, **colours)
        axes.figure.colorbar(mesh, ax=axes, label=found.name)
        for name, of, ticks in ((along, "x", axes.set_xticks), (down, "y", axes.set_yticks)):
            getattr(axes, f"set_{of}label")(str(name))
            if found[name].dtype.kind not in "fiu":
                ticks(np.arange(found.sizes[name]), [str(label) for label in found[name].values])
        return axes

    def selection(self, *, ax: Any = None, data: bool = False) -> Any:
        """The criterion by which the rank, penalty or bandwidth was chosen, over its candidates, and the choice; with
        rank="parallel" the eigenvalues and the thresholds that those of factors are above.

        data : the frame of `Fit.selection`.  Raises ValueError where nothing was chosen.
        """
        table: pd.DataFrame | None = self.fit.selection  # type: ignore[attr-defined]
        if table is None:
            raise ValueError(
                "this fit chose nothing among candidates. Fit with rank='bic' or rank='cv', or several of l1 or "
                "bandwidth."
            )
        if data:
            return table
        axes, criterion = _axes(ax), str(table.attrs["criterion"])
        drawn = ("eigenvalue", "threshold") if criterion == "parallel" else (criterion,)
        for name, colour in zip(drawn, ("C0", "0.6"), strict=False):
            axes.plot(table.index, table[name], "o-", color=colour, markersize=4, label=name)
        chosen = float(getattr(self.fit, str(table.index.name)))
        axes.axvline(chosen, color="C3", linestyle="--", label=f"chosen: {chosen:g}")
        axes.set_xlabel(str(table.index.name))
        axes.set_ylabel(drawn[0])
        axes.legend()
        return axes

    def trace(self, *, ax: Any = None, data: bool = False) -> Any:
        """How far what was minimised lay above its last value, half-step by half-step; a logarithmic scale.

        data : the frame of `Fit.trace`.
        """
        table: pd.DataFrame = self.fit.trace  # type: ignore[attr-defined]
        if data:
            return table
        axes = _axes(ax)
        name = next(each for each in ("obj", "local_nll") if each in table)
        above = table[name].to_numpy() - table[name].to_numpy()[-1]
        axes.plot(np.arange(1, len(above) + 1), np.where(above > 0, above, np.nan), "o-", color="C0", markersize=4)
        axes.set_yscale("log")
        axes.set_xlabel("half-step" if name == "obj" else "sweep")
        axes.set_ylabel(f"{name} above its last value, per row")
        return axes


def _edges(labels: xr.DataArray) -> np.ndarray:
    """(n + 1,) where cells about n labels end: half way between numbers, else one cell each."""
    values = labels.values
    if values.dtype.kind not in "fiu" or len(values) < 2:
        return np.arange(len(values) + 1) - 0.5
    middle = (values[1:] + values[:-1]) / 2
    return np.concatenate([[2 * values[0] - middle[0]], middle, [2 * values[-1] - middle[-1]]])


def _axes(ax: Any, height: float = 4.0) -> Any:
    """These, or new ones."""
    if ax is not None:
        return ax
    try:
        pyplot = importlib.import_module("matplotlib.pyplot")
    except ImportError:
        raise ImportError("pictures are drawn by matplotlib. Install it: pip install 'lrgls_dask[plot]'.") from None
    return pyplot.subplots(figsize=(6.4, height), layout="constrained")[1]
