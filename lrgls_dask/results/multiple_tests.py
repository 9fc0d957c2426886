"""One hypothesis in each of many equations, tested together: the labelled result, as table, text and page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from lrgls_dask.data.griddims import on_dims, with_said
from lrgls_dask.data.indices import as_index
from lrgls_dask.design.design import Design
from lrgls_dask.page import facts, shown_page, table
from lrgls_dask.results.excerpt import dims_called, name_in
from lrgls_dask.results.text import cut_in_the_middle

__all__ = ["CONTROLS", "Adjustment", "Bands", "MultipleTests"]

Adjustment = Literal["holm", "bh", "by", "sup-t", "factor-adjusted"]
Bands = Literal["sup-t", "bonferroni", "pointwise"]

# What each adjustment keeps at 1 - level, as tables say it.
CONTROLS: dict[str, str] = {
    "holm": "Holm, family-wise error",
    "bh": "Benjamini-Hochberg, false discovery rate",
    "by": "Benjamini-Yekutieli, false discovery rate under any dependence",
    "sup-t": "largest statistic by simulation, family-wise error",
    "factor-adjusted": "factor-adjusted, Benjamini-Hochberg, false discovery rate",
    "none": "none, each test by itself",
}
SHOWN = 20  # equations that text and page show, those of least p-values
WIDTH, LABEL, CELL = 96, 18, 11
NAMES = {"own_statistic": "own stat"}


@dataclass(frozen=True, eq=False)
class MultipleTests:
    """Tests of one hypothesis per equation, see `Fit.across`.

    null : the hypothesis.  method, level, bands, moderated, seed : as asked for.  cov_kind : of the standard errors.
    columns : of `table` by name, (K,) for all equations of the fit, NaN where none was tested.  about : positions of
    the equations in the table, those that were skipped among them.
    global_pvalue : of all hypotheses together: how often the least p-value would be as small by chance, with
        bands="sup-t" from draws of the joint distribution, else the least p-value adjusted by `method`, or by Holm's
        where there is none.
    share_true_nulls : Storey's (2002) estimate of the share of hypotheses that are true, from the p-values adjusted for
        factors where there are any.
    pointwise_level : the coverage that each interval of simultaneous bands has by itself; NaN without bands.
    prior_df, prior_variance : limma's d0 and s0^2 of moderated variances, of equations' own ones where
        method="factor-adjusted"; NaN of others.
    """

    null: str
    method: Adjustment | None
    level: float
    bands: Bands | None
    moderated: bool
    seed: int
    cov_kind: str
    columns: Mapping[str, np.ndarray]
    about: np.ndarray
    global_pvalue: float
    share_true_nulls: float
    pointwise_level: float
    prior_df: float
    prior_variance: float
    design: Design
    equation_dim: str

    def __post_init__(self) -> None:
        for values in (*self.columns.values(), self.about):
            values.flags.writeable = False

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per equation that has the hypothesis, by its label; NaN where it was skipped.

        estimate, std_error : of what the hypothesis is about, the left side less the right but for the number; of one
            restriction an equation.  statistic : (estimate - number) / std_error, of several restrictions chi2, or F
            where `use` says so.  df : of t, infinite for the normal distribution, or those of numerator and denominator
            in df and df_denominator.  p_value : of this test alone.  p_adjusted : by `method`.  rejected : whether that
            is at most 1 - level.  conf_low, conf_high : bands for the estimates.
        With method="factor-adjusted" also common_part, what the factors happened to put into the estimate, and
        own_statistic and own_p_value without it, which p_adjusted is made of.
        """
        index = as_index(self.design.equations, name="equation")[self.about]
        made = pd.DataFrame({name: values[self.about] for name, values in self.columns.items()}, index=index)
        made.insert(made.columns.get_loc("p_adjusted") + 1, "rejected", made["p_adjusted"] <= 1.0 - self.level)
        return made

    @property
    def n_tests(self) -> int:
        """Equations that were tested."""
        return int(np.count_nonzero(~np.isnan(self.columns["p_value"])))

    @property
    def n_rejected(self) -> int:
        """Equations whose hypothesis is rejected at 1 - level, by adjusted p-values."""
        return int(self.table["rejected"].sum())

    @property
    def rejected(self) -> list[object]:
        """Labels of those equations, in the order of the system."""
        return list(self.table.index[self.table["rejected"]])

    def to_dataset(self) -> xr.Dataset:
        """The columns of the table along all equations of the fit, on the dims they lie on, latitude and longitude say;
        NaN where none was tested."""
        dim = self.equation_dim
        labels = as_index(self.design.equations, name=dim)
        made = {
            name: on_dims(xr.DataArray(values, {dim: labels}, (dim,), name=name), dim, self.design)
            for name, values in self.columns.items()
        }
        said = {
            name: getattr(self, name) for name in ("null", "level", "global_pvalue", "share_true_nulls", "cov_kind")
        }
        return with_said(xr.Dataset(made, attrs=said | {"method": self.method or "none"}), self.design)

    def __repr__(self) -> str:
        return f"<MultipleTests: {self.null}; {self.n_tests:,} equations, {self.n_rejected:,} rejected>"

    def __str__(self) -> str:
        names, rows = self._cells()
        lines = [self._title, "=" * WIDTH, *(f"{name + ':':<19}{value}" for name, value in self._said()), "-" * WIDTH]
        head = cut_in_the_middle(dims_called(self.design, self.equation_dim), LABEL)
        lines += [f"{head:<{LABEL + 1}}" + "".join(f"{NAMES.get(name, name):>{CELL}}" for name in names)]
        for at, cells in rows:
            label = cut_in_the_middle(name_in(self.design, at), LABEL)
            lines.append(f"{label:<{LABEL + 1}}" + "".join(f"{cell:>{CELL}}" for cell in cells))
        return "\n".join([*lines, *self._more(), "=" * WIDTH])

    def _repr_html_(self) -> str:
        names, rows = self._cells()
        labelled = (((name_in(self.design, at),), cells) for at, cells in rows)
        dims, more = dims_called(self.design, self.equation_dim), " ".join(self._more()).strip()
        shown = table("Least p-values first", [dims], [NAMES.get(name, name) for name in names], labelled, more)
        return shown_page(self._title, facts(self._said()), shown)

    # ------------------------------------------------------------------------------------------ what is shown

    @property
    def _title(self) -> str:
        return f"One hypothesis in each equation: {self.null}"

    def _said(self) -> list[tuple[str, str]]:
        """What was done and found, as names and values."""
        alpha, tests = 1.0 - self.level, self.n_tests
        skipped = len(self.about) - tests
        said = [
            ("Equations tested", f"{tests:,}{f', {skipped:,} skipped' if skipped else ''}"),
            ("Rejected", f"{self.n_rejected:,} at {alpha:.3g}"),
            ("Adjustment", CONTROLS[self.method or "none"]),
            ("Global p-value", f"{self.global_pvalue:.3g}"),
            ("True hypotheses", f"{self.share_true_nulls:.1%} (Storey)"),
        ]
        if "conf_low" in self.columns:
            each = "" if self.bands == "pointwise" else f" for all together, {self.pointwise_level:.4%} for each"
            said.append(("Intervals", f"{self.bands}, {self.level:.4g}{each}"))
        said.append(("Std errors", self.cov_kind))
        if self.moderated:
            said.append(("Moderated", f"prior of {self.prior_df:.4g} df, variance {self.prior_variance:.4g}"))
        return said

    def _cells(self) -> tuple[list[str], list[tuple[int, list[str]]]]:
        """Names of the columns, and position and cells of the equations that are shown."""
        wanted: tuple[str, ...] = (
            "estimate",
            "std_error",
            "statistic",
            "p_value",
            "p_adjusted",
            "conf_low",
            "conf_high",
        )
        if self.method == "factor-adjusted":
            wanted = ("estimate", "statistic", "p_value", "own_statistic", "p_adjusted")
        names = [name for name in wanted if name in self.table]
        found = self.table.set_axis(self.about)
        some = found.sort_values(["p_adjusted", "p_value"], kind="stable")[names].dropna(how="all").head(SHOWN)
        forms = {"statistic": ".2f", "own_statistic": ".2f"} | dict.fromkeys(("p_value", "p_adjusted"), ".3g")
        rows = [
            (at, [format(value, forms.get(name, ".4g")) for name, value in zip(names, values, strict=True)])
            for at, values in zip(some.index.tolist(), some.to_numpy(dtype=float).tolist(), strict=True)
        ]
        return names, rows

    def _more(self) -> list[str]:
        left = self.n_tests - SHOWN
        return [f"  ... {left:,} more equations, all in table ..."] if left > 0 else []
