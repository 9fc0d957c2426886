"""Pictures of a fit, with matplotlib: each draws numbers that `data=True` returns; only those of a system read data."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from lrgls_dask.checks import one_of, takes
from lrgls_dask.data.griddims import on_dims
from lrgls_dask.results.drawing import (
    PLAIN,
    axes_of,
    call,
    correlation_map,
    name_places,
    name_square,
    readable,
    several_axes,
    short,
    write_ticks,
)
from lrgls_dask.results.error_structure import When, error_correlations, over_segments, sigma_of, standard_loadings
from lrgls_dask.results.excerpt import dims_called, evenly_spaced, label_text
from lrgls_dask.results.reported import Reported
from lrgls_dask.results.residual_sums import residual_numbers
from lrgls_dask.results.tidy import NUMBERS, tidy
from lrgls_dask.system import MAKE_ONE, System

__all__ = ["Pictures"]

MOST = 60  # coefficients that a picture has room for
ROWS_DRAWN, FACTORS_DRAWN = 2_000, 8  # of scores
SCORES_APART = 6.0  # from one factor's line to the next: scores have a variance of one at most, or near it
OF_MAP = ("estimate", "std_error", "statistic", "p_value")


@dataclass(frozen=True, eq=False)
class Pictures:
    """The pictures of a fit, `fit.plot.NAME(...)`; matplotlib draws them, pip install 'lrgls_dask[plot]'.

    Each takes `ax`, the axes to draw on, new ones where None, and returns them; with data=True the numbers instead,
    and nothing is drawn. Equations that were skipped are in none. Of many names as many are written as there is room
    for, evenly spaced; a long one has a sign where its middle was.
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
        axes, places = axes_of(ax, height=1.0 + 0.3 * len(frame)), np.arange(len(frame))
        owners = frame.columns.difference([*NUMBERS, "term"], sort=False)
        names = frame[[*owners, "term"]].astype(str).agg(", ".join, axis=1).map(short)
        axes.axvline(0.0, color="0.6", linewidth=0.8)
        axes.hlines(places, frame["conf_low"], frame["conf_high"], color="C0")
        axes.plot(frame["estimate"], places, "o", color="C0", markersize=4)
        write_ticks(axes.yaxis, places, names)
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
        axes = axes_of(ax)
        down, along = found.dims
        signed = value in ("estimate", "statistic")
        most = float(np.nanmax(np.abs(found.values)))
        colours = {"cmap": "RdBu_r", "vmin": -most, "vmax": most} if signed else {"cmap": "viridis"}
        mesh = axes.pcolormesh(_edges(found[along]), _edges(found[down]), found.values, **colours)
        call(axes.figure.colorbar(mesh, ax=axes), str(found.name))
        for name, axis in ((along, axes.xaxis), (down, axes.yaxis)):
            call(axis, str(name))
            if found[name].dtype.kind not in "fiu":
                write_ticks(axis, np.arange(found.sizes[name]), [str(label) for label in found[name].values])
        return axes

    def selection(self, *, ax: Any = None, data: bool = False) -> Any:
        """The criterion by which the rank, penalty or bandwidth was chosen, over its candidates, and the choice; with
        rank="parallel" the eigenvalues and the thresholds that those of factors are above. Candidates at which some
        equation's variance is zero, which improper="avoid" passes over, are hollow.

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
        axes, criterion = axes_of(ax), str(table.attrs["criterion"])
        drawn = ("eigenvalue", "threshold") if criterion == "parallel" else (criterion,)
        for name, colour in zip(drawn, ("C0", "0.6"), strict=False):
            axes.plot(table.index, table[name], "o-", color=colour, markersize=4, label=name)
        if table.get("on_floor", pd.Series(dtype=int)).gt(0).any():
            improper = table[criterion].where(table["on_floor"] > 0)
            axes.plot(table.index, improper, "o", color="C0", mfc="w", markersize=4, label="with variances of zero")
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
        axes = axes_of(ax)
        name = next(each for each in ("obj", "local_nll") if each in table)
        above = table[name].to_numpy() - table[name].to_numpy()[-1]
        axes.plot(np.arange(1, len(above) + 1), np.where(above > 0, above, np.nan), "o-", color="C0", markersize=4)
        axes.set_yscale("log")
        axes.set_xlabel("half-step" if name == "obj" else "sweep")
        axes.set_ylabel(f"{name} above its last value, per row")
        return axes

    # ------------------------------------------------------------------------------------------ errors

    def loadings(self, *, order: Any = None, segment: Any = None, ax: Any = None, data: bool = False) -> Any:
        """The correlation of each equation's errors with each factor: loadings over the standard deviation of the
        errors, free of units.

        order : None puts equations that are alike together, by the leaves of Ward's tree of these numbers, of more than
            4,000 equations by the factor of their largest; "given" leaves them in their order; a list of labels draws
            these alone.
        segment : of a time-varying fit, the last where None.
        data : the DataArray (equation, factor), in the order in which it is drawn.
        Raises ValueError for a fit without factors.
        """
        found = standard_loadings(self.fit, order, segment)
        if data:
            return found
        K, k = found.shape
        axes = axes_of(ax, min(2.0 + 0.2 * K, 9.0), min(4.0 + 0.4 * k, 9.0))
        correlation_map(axes, found.values, "correlation with the errors")
        name_places(axes, self._names(found), called=self._called)
        name_places(axes, [str(label) for label in found["factor"].values], "x", called="factor")
        _entitled(axes, self.fit, segment)
        return axes

    def errors(
        self,
        when: When | None = None,
        *,
        order: Any = None,
        segment: Any = None,
        ax: Any = None,
        data: bool = False,
    ) -> Any:
        """Correlations of the errors between equations, below the diagonal, and above it those of what the factors
        leave in the data: enough factors leave none.

        when : "before", the correlations of Sigma; "after", (S - F F')_ij / sqrt(d_i d_j), S the residuals' own
            covariance, in the scale of Sigma, over the rows that show both equations, of a segment with those of the
            neighbours within the bandwidth, weighted as its Sigma was fitted; "both", the default, a half each;
            of a Sigma without parts that are the equations' own the default is "before".
        order : as of `loadings`. Of more than 300 equations 300 are drawn, evenly spaced in their order.
        segment : of a time-varying fit, the last where None.
        data : the Dataset of `before` and `after` (equation, equation_other), whole, in the order in which it is drawn.
            `after` is NaN where less than a millionth of a variance is the equation's own.
        "after" takes what the fit has kept of its rows, and raises ValueError where it kept nothing.
        """
        found = error_correlations(self.fit, when, order, segment)
        if data:
            return found
        side = min(3.2 + 0.2 * found.sizes[next(iter(found.dims))], 8.0)
        axes, both = axes_of(ax, side, 1.15 * side), len(found.data_vars) == 2
        drawn = np.array(next(iter(found.values())).values)
        if both:
            upper = np.triu_indices(len(drawn))
            drawn[upper] = found["after"].values[upper]
        np.fill_diagonal(drawn, np.nan)
        correlation_map(axes, drawn, "correlation")
        names = self._names(next(iter(found.values())))
        axes.set_aspect("equal")
        name_square(axes, names, self._called)
        said = {"before": "errors", "after": "after the factors"}
        title = "below: errors\nabove: after the factors" if both else said[str(next(iter(found)))]
        _entitled(axes, self.fit, segment, title)
        return axes

    def sigma_over_time(self, *, ax: Any = None, data: bool = False) -> Any:
        """The course of a time-varying Sigma over its segments, in three parts: the share of the factors in the error
        variances, the mean correlation of pairs of equations, and the equations' own variances over their mean; of what
        each equation has the median, and between which numbers the middle 80% of equations lie.

        ax : three axes.  data : the Dataset of `common_share` and `idio_var` (segment, equation), in units of the
        responses squared, and `correlation` (segment,).  Raises ValueError for a fit with one Sigma.
        """
        found = over_segments(self.fit)
        if data:
            return found
        parts = several_axes(ax, 3, 7.0, 6.4, sharex=True)
        own = found["idio_var"].values
        at, called = _along(found["segment"].to_index(), "segment", np.arange(len(own)))
        _course(parts[0], at, found["common_share"].values, "share of factors")
        parts[1].plot(at, found["correlation"].values, color="C0")
        parts[1].set_ylabel("correlation")
        _course(parts[2], at, own / own.mean(axis=0), "own variance")
        call(parts[2].xaxis, called)
        return parts

    # ------------------------------------------------------------------------------------------ rows

    @takes("a System, not compressed", f"{MAKE_ONE}.", check=lambda data: isinstance(data, System))
    def residuals(self, system: System, *, ax: Any = None, data: bool = False) -> Any:
        """Whitened residuals, which have mean 0, variance 1 and no correlation if Sigma is right: their quantiles
        against those of the normal distribution, and their mean and standard deviation by stretch of rows.

        One pass over the rows of `system`, those that were fitted or others, in memory that does not grow with them:
        exact counts in fixed bins, so that a residual is drawn to half a bin: 1/256 up to 8, and 2% of what is larger.
        Of a row with holes what it shows is whitened by what Sigma says of that.
        ax : three axes.
        data : the Dataset of `expected` and `residual` (point,), and `mean`, `sd` and `count` along the rows, for 100
            stretches of as many rows each, by the label and number of the first.
        Raises TypeError for what is no System; ValueError for another design, and for rows of a time-varying fit that
            are not its own.
        """
        found = residual_numbers(self.fit, system)
        if data:
            return found
        parts = several_axes(ax, 3, 8.0, 6.4)
        line = [float(found["expected"].min()), float(found["expected"].max())]
        parts[0].plot(line, line, color="0.6", linewidth=0.8)
        parts[0].plot(found["expected"].values, found["residual"].values, ".", color="C0", markersize=4)
        parts[0].set_xlabel("quantile of the normal distribution")
        parts[0].set_ylabel("whitened residual")
        dim = str(found["mean"].dims[0])
        at, called = _along(found.indexes.get(dim), dim, found["first_row"].values)
        half = 1.96 / np.sqrt(np.maximum(found["count"].values, 1.0))
        for axes, name, level, error in ((parts[1], "mean", 0.0, half), (parts[2], "sd", 1.0, half / np.sqrt(2.0))):
            axes.fill_between(at, level - error, level + error, color="C0", alpha=0.25, linewidth=0)
            axes.plot(at, found[name].values, ".-", color="C0", markersize=4, linewidth=0.8)
            axes.set_ylabel(f"{name} of a stretch")
        parts[1].tick_params(labelbottom=False)
        parts[1].set_title("bands: 95% if Sigma is right", fontsize="medium")
        call(parts[2].xaxis, called)
        return parts

    def scores(
        self,
        system: System,
        *,
        method: Literal["regression", "bartlett"] = "regression",
        ax: Any = None,
        data: bool = False,
    ) -> Any:
        """Factor scores over the rows, each factor about a line of its own; of many factors the first eight.

        Reads the rows of `system` once. Of more than 2,000 rows 2,000 are drawn, evenly spaced, the first and the last
        among them.
        data : the DataArray (obs, factor) of these.  Raises ValueError as `Fit.factor_scores`.
        """
        scores = self.fit.factor_scores(system, method=method)  # type: ignore[attr-defined]
        dim, n_obs = scores.dims[0], scores.sizes[scores.dims[0]]
        places = evenly_spaced(n_obs, min(n_obs, ROWS_DRAWN))
        found = scores.isel({dim: places, "factor": slice(FACTORS_DRAWN)}).compute()
        if data:
            return found
        k, gap = found.sizes["factor"], SCORES_APART
        axes = axes_of(ax, 1.5 + 0.9 * k)
        at, called = _along(found.indexes.get(dim), str(dim), places)
        for number, values in enumerate(found.values.T):
            axes.axhline(-gap * number, color="0.6", linewidth=0.5)
            axes.plot(at, values - gap * number, color="C0", linewidth=0.8)
        write_ticks(axes.yaxis, -gap * np.arange(k), [short(str(label)) for label in found["factor"].values])
        some = f" ({k} of {scores.sizes['factor']})" if k < scores.sizes["factor"] else ""
        axes.set_ylabel(f"factor{some}")
        call(axes.xaxis, f"{called} ({len(places):,} of {n_obs:,} rows)" if len(places) < n_obs else called)
        return axes

    def _names(self, found: xr.DataArray) -> list[str]:
        """The equations along the first dim as they are called."""
        return [label_text(self.fit._whole, label) for label in found.indexes[found.dims[0]]]

    @property
    def _called(self) -> str:
        return dims_called(self.fit._whole, self.fit.equation_dim)


def _entitled(axes: Any, fit: Reported, segment: Any, title: str = "") -> None:
    """Say what is drawn, and of which segment."""
    said = [each for each in (title, sigma_of(fit, segment)[1]) if each]
    if said:
        axes.set_title(readable("\n".join(said)), fontsize="medium", **PLAIN)


def _along(labels: pd.Index | None, dim: str, numbers: np.ndarray) -> tuple[Any, str]:
    """Where labels stand along an axis, and what it is called: numbers and dates as they are, others by number."""
    if labels is not None and not isinstance(labels, pd.MultiIndex):
        if isinstance(labels, pd.PeriodIndex):
            labels = labels.to_timestamp()
        if labels.dtype.kind in "fiuM":
            return labels.to_numpy(), dim
    return numbers, f"number of the {dim}"


def _course(axes: Any, at: Any, values: np.ndarray, label: str) -> None:
    """The median over equations of values (T, K), and a band from the first to the last decile."""
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9], axis=1)
    axes.fill_between(at, low, high, color="C0", alpha=0.25, linewidth=0)
    axes.plot(at, middle, color="C0")
    axes.set_ylabel(label)


def _edges(labels: xr.DataArray) -> np.ndarray:
    """(n + 1,) where cells about n labels end: half way between numbers, else one cell each."""
    values = labels.values
    if values.dtype.kind not in "fiu" or len(values) < 2:
        return np.arange(len(values) + 1) - 0.5
    middle = (values[1:] + values[:-1]) / 2
    return np.concatenate([[2 * values[0] - middle[0]], middle, [2 * values[-1] - middle[-1]]])
