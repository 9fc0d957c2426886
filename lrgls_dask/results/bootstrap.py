"""What a bootstrap found, with the user's labels."""

from __future__ import annotations

import numbers
from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from dask.utils import format_bytes

from lrgls_dask.checks import check_alpha, check_level, one_of
from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.compression.either import complete_rows
from lrgls_dask.compression.parts import compress_parts
from lrgls_dask.compression.shown_parts import compress_shown_parts
from lrgls_dask.data.indices import as_index
from lrgls_dask.data.labels import check_ascending
from lrgls_dask.design.design import Design
from lrgls_dask.design.skipped import Skipped
from lrgls_dask.errors import FitWarning, warn_user
from lrgls_dask.missing.draws import (
    shown_parametric,
    shown_resampled,
    streamed_parametric,
    streamed_resampled,
)
from lrgls_dask.page import facts, shown_page, table
from lrgls_dask.plan.make import price_parts
from lrgls_dask.prediction.fitted import check_same_design
from lrgls_dask.prediction.skipped import as_estimated
from lrgls_dask.resampling.draws import Draws, Fitted, parametric, resampled, resampled_by
from lrgls_dask.resampling.grouped import GroupedResampler, sum_grouped_parts
from lrgls_dask.results.chosen import choose
from lrgls_dask.results.cov_source import CellsSource
from lrgls_dask.results.excerpt import evenly_spaced
from lrgls_dask.results.measures import Measures
from lrgls_dask.results.reported import as_fitted, with_effects_of_rows
from lrgls_dask.results.shown_rows import are_streamed, seen_rows
from lrgls_dask.results.text import MOST_ROWS
from lrgls_dask.results.tidy import NUMBERS, term_columns
from lrgls_dask.rows.memory import MAX_COEFFICIENTS
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.partition import GivenParts, Partition, RowBlocks
from lrgls_dask.rows.rows import Rows
from lrgls_dask.sigma.registry import structure_of
from lrgls_dask.solve.record import Options
from lrgls_dask.system import MAKE_ONE, CompressedSystem, System, is_system

__all__ = ["Bootstrap", "bootstrap"]

Method = Literal["parametric", "cluster", "blocks"]
METHODS = ("parametric", "cluster", "blocks")
BLOCKS = 50  # of rows, unless told: each long enough to hold most of the dependence between rows
MANY_FAILED = 0.1
JOINING_SEED = 20260102  # of which groups are joined, the same for every seed of the replicates
Kind = Literal["studentised", "percentile", "basic"]
KINDS = ("studentised", "percentile", "basic")


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Refits of replicated data: n_replicates of them, by `method`, reproducible by `seed`.

    n_failed : replicates left out because their data were singular.  estimate, classical : (P,) coefficients and
    classical standard errors of the fit that was replicated, zero for those that restrictions hold, which do not vary.
    design, equation_dim : of all equations, and what the user calls them.
    """

    draws: Draws
    estimate: np.ndarray
    classical: np.ndarray
    labels: dict[str, np.ndarray]
    method: str
    seed: int
    design: Design
    equation_dim: str

    @property
    def equations(self) -> tuple[Hashable, ...]:
        """K labels."""
        return self.design.equations

    @property
    def n_replicates(self) -> int:
        """Replicates that could be fitted."""
        return len(self.draws.numbers)

    @property
    def n_failed(self) -> int:
        return self.draws.n_failed

    @cached_property
    def params(self) -> xr.DataArray:
        """(replicate, coefficient) coefficients of every replicate."""
        return self._per_replicate(self.draws.params, "params")

    @cached_property
    def replicate_std_errors(self) -> xr.DataArray:
        """(replicate, coefficient) classical standard errors, each at its replicate's own Sigma."""
        return self._per_replicate(self.draws.std_errors, "replicate_std_errors")

    @cached_property
    def std_errors(self) -> xr.DataArray:
        """(P,) bootstrap standard errors: the standard deviation of the coefficients over replicates."""
        return self._per_coefficient(np.where(self._held, 0.0, self.draws.params.std(axis=0, ddof=1)), "std_errors")

    @cached_property
    def bias(self) -> xr.DataArray:
        """(P,) mean over replicates less the estimate."""
        bias = self.draws.params.mean(axis=0) - self.estimate
        return self._per_coefficient(np.where(self._held, 0.0, bias), "bias")

    @cached_property
    def sigma(self) -> xr.Dataset:
        """variance and communality (replicate, equation): error variances, and their share the factors explain.

        No communality where Sigma has no factors, with covariance="full".
        """
        coords = {"replicate": self.draws.numbers, "equation": self._equation_index}
        dims, variances, own = ("replicate", "equation"), self.draws.variances, self.draws.idio_var
        found = {"variance": (dims, variances)}
        if own.shape == variances.shape:
            found["communality"] = (dims, 1.0 - own / variances)
        return xr.Dataset(found, coords)

    def conf_int(self, alpha: float = 0.05, kind: Kind = "studentised") -> xr.DataArray:
        """(coefficient, bound) intervals of coverage 1 - alpha; bound is "low" and "high".

        kind : "studentised", quantiles of (b* - b) / se* turned around b in units of the classical standard error,
        accurate to second order where that is consistent; "percentile", quantiles of b*; "basic", those of b* - b
        turned around b.  Source: Davison and Hinkley (1997), section 5.2.
        Raises ValueError for another kind or an alpha not between 0 and 1.
        """
        check_alpha(alpha)
        one_of("kind", kind, KINDS)
        tails = [1 - alpha / 2, alpha / 2]
        if kind == "percentile":
            low_high = _quantile(self.draws.params, tails[::-1])
        elif kind == "basic":
            low_high = 2 * self.estimate - _quantile(self.draws.params, tails)
        else:
            studentised = (self.draws.params - self.estimate) / np.where(self._held, 1.0, self.draws.std_errors)
            low_high = self.estimate - _quantile(studentised, tails) * self.classical
        low_high = np.where(self._held, self.estimate, low_high)
        coords: dict[str, Any] = {name: ("coefficient", values) for name, values in self.labels.items()}
        return xr.DataArray(low_high.T, coords | {"bound": ["low", "high"]}, ("coefficient", "bound"), name="conf_int")

    def tidy(
        self, equation: Any = None, term: Any = None, level: float = 0.95, kind: Kind = "studentised"
    ) -> pd.DataFrame:
        """A row a coefficient with the columns of `Fit.tidy`, and chosen as there.

        std_error is that over replicates, statistic the estimate over it. conf_low and conf_high are those of
        `conf_int`, and p_value is twice the share of replicates beyond zero on its rarer side, in the same quantity: it
        is below 1 - level where the interval leaves zero out.  Source: Davison and Hinkley (1997), section 4.4.
        """
        check_level(level)
        interval = self.conf_int(1.0 - level, kind).values.T
        chosen = choose(self.design, self.equation_dim, equation, term)
        error = self.std_errors.values
        statistic = self.estimate / np.where(self._held, np.nan, error)
        numbers = np.stack([self.estimate, error, statistic, self._p_values(kind), *interval])[:, chosen.places]
        return pd.DataFrame(term_columns(self.design, chosen) | dict(zip(NUMBERS, numbers, strict=True)))

    def _p_values(self, kind: Kind) -> np.ndarray:
        """(P,) for zero, of the tails that intervals of this kind cut off."""
        draws, at = self.draws.params - self.estimate, self.estimate
        if kind == "percentile":
            draws, at = -self.draws.params, np.zeros_like(at)
        elif kind == "studentised":
            with np.errstate(divide="ignore", invalid="ignore"):
                draws, at = draws / self.draws.std_errors, at / self.classical
        rarer = np.minimum((draws >= at).sum(axis=0), (draws <= at).sum(axis=0))
        known = np.isfinite(at) & ~self._held
        return np.where(known, np.minimum(2.0 * (1 + rarer) / (1 + len(draws)), 1.0), np.nan)

    def __repr__(self) -> str:
        failed = f", {self.n_failed} more failed" if self.n_failed else ""
        return (
            f"<Bootstrap ({self.method}): {self.n_replicates} replicates of {len(self.estimate)} coefficients{failed}, "
            f"seed {self.seed}>"
        )

    def _repr_html_(self) -> str:
        """The bootstrap as a notebook shows it: coefficients evenly spaced, the first and the last among them."""
        P = len(self.estimate)
        places = evenly_spaced(P, min(P, MOST_ROWS))
        interval = self.conf_int().values
        columns = self.estimate, self.std_errors.values, self.bias.values, interval[:, 0], interval[:, 1]
        cells = [[f"{value:.5g}" for value in row] for row in np.stack(columns, axis=1)[places]]
        labels = zip(*(values[places] for values in self.labels.values()), strict=True)
        rule = f"Shown: {len(places)} of {P:,} coefficients, evenly spaced." if len(places) < P else ""
        names = ["coef", "std err", "bias", "95% low", "high"]
        body = table("Coefficients", list(self.labels), names, zip(labels, cells, strict=True), rule)
        said = [("Replicates", f"{self.n_replicates:,}"), ("Failed", f"{self.n_failed:,}"), ("Seed", f"{self.seed}")]
        return shown_page(f"Bootstrap, {self.method}", facts(said), body)

    @property
    def _held(self) -> np.ndarray:
        """(P,) coefficients that restrictions hold."""
        return np.asarray(self.classical == 0)

    @property
    def _equation_index(self) -> pd.Index:
        return as_index(self.equations, name="equation")

    def _per_coefficient(self, values: np.ndarray, name: str) -> xr.DataArray:
        coords = {label: ("coefficient", names) for label, names in self.labels.items()}
        return xr.DataArray(values, coords, ("coefficient",), name=name)

    def _per_replicate(self, values: np.ndarray, name: str) -> xr.DataArray:
        coords: dict[str, Any] = {label: ("coefficient", names) for label, names in self.labels.items()}
        return xr.DataArray(values, coords | {"replicate": self.draws.numbers}, ("replicate", "coefficient"), name=name)


def bootstrap(
    fit: Measures,
    n: int,
    method: Method,
    seed: int | None,
    system: System | CompressedSystem | None,
    groups: Any,
    n_blocks: int | None,
) -> Bootstrap:
    """n refits of replicated data, labelled; see Fit.bootstrap."""
    _check(n, method, seed, groups, n_blocks)
    if system is not None and not is_system(system):
        raise TypeError(f"system must be a System, the one that was fitted; got a {type(system).__name__}. {MAKE_ONE}.")
    used = int(np.random.SeedSequence().generate_state(1, np.uint32)[0]) if seed is None else int(seed)
    how = fit.settings
    options = Options(how.algorithm, how.debiased, how.lam_B, how.d_floor)  # type: ignore[arg-type]
    structure = structure_of(fit.covariance, how.sigma_step, how.lam_F, how.l1)  # type: ignore[arg-type]
    known = fit.restrictions, fit.evidence.fingerprint
    fitted = Fitted(fit.coefficients, fit.covariance, structure, options, *known)
    asked = _Asked(fit, fitted, method, int(n), used, system, groups, n_blocks)
    draws, errors = _of_complete_rows(asked) if fit.evidence.complete else _of_shown_rows(asked)
    if draws.n_failed > MANY_FAILED * n:
        warn_user(
            f"bootstrap: {draws.n_failed} of {n} replicates were singular and are left out, so that the others no "
            "longer stand for the sampling distribution. Resample larger blocks, or use method='parametric'.",
            FitWarning,
        )
    labels = {name: fit.params[name].values for name in ("equation", "regressor")}
    if fit.restrictions is not None:
        held = fit.restrictions.held
        params, std_errors = np.where(held, fit.coefficients, draws.params), np.where(held, 0.0, draws.std_errors)
        draws = replace(draws, params=params, std_errors=std_errors)
    if fit.skipped is not None:
        draws, errors = _of_all(draws, fit.skipped), fit.skipped.placed(errors, "coefficient", 0)
    return Bootstrap(draws, fit.params.values, errors, labels, method, used, fit._whole, fit.equation_dim)


def _of_all(draws: Draws, skipped: Skipped) -> Draws:
    """With NaN for equations that were skipped."""
    own = draws.idio_var  # which not every Sigma has
    return replace(
        draws,
        params=skipped.placed(draws.params, "coefficient", 1),
        std_errors=skipped.placed(draws.std_errors, "coefficient", 1),
        variances=skipped.placed(draws.variances, "equation", 1),
        idio_var=skipped.placed(own, "equation", 1) if own.shape == draws.variances.shape else own,
    )


@dataclass(frozen=True, eq=False)
class _Asked:
    """What `bootstrap` is asked for, its seed drawn if none was given, and what every replicate is refitted by."""

    fit: Measures
    fitted: Fitted
    method: Method
    n: int
    seed: int
    system: System | CompressedSystem | None
    groups: Any
    n_blocks: int | None

    def all_parts(self) -> tuple[Rows, Partition]:
        """The rows and what is resampled of them."""
        return _partition(self.fit, self.method, self.system, self.groups, self.n_blocks)

    def parts(self) -> tuple[Rows, Partition]:
        """The same. Raises MemoryError where all parts do not fit side by side."""
        rows, partition = self.all_parts()
        _check_memory(rows, self.method, partition)
        return rows, partition


def _of_complete_rows(asked: _Asked) -> tuple[Draws, np.ndarray]:
    """The draws, and (P,) classical standard errors of the fit."""
    fit, fitted, method, n, seed = asked.fit, asked.fitted, asked.method, asked.n, asked.seed
    if method == "parametric":
        draws = parametric(_compressed(fit, asked.system), fitted, n, seed)
    else:
        rows, partition = asked.parts()
        if rows.absorb is not None:
            grouped = sum_grouped_parts(rows, partition, meter=Meter())
            _check_used(len(grouped.moments), method, partition)
            draws = resampled_by(GroupedResampler.of(grouped, fitted), n, seed)
        else:
            parts = compress_parts(rows, partition, meter=Meter())
            _check_used(len(parts.moments), method, partition)
            draws = resampled(parts, fitted, n, seed)
    return draws, np.sqrt(fit._classical.variances)


def _of_shown_rows(asked: _Asked) -> tuple[Draws, np.ndarray]:
    """The same of rows with holes."""
    fit, fitted, method, n, seed = asked.fit, asked.fitted, asked.method, asked.n, asked.seed
    P, source = fit.design.n_coefficients, fit._source
    assert isinstance(source, CellsSource)
    if P > MAX_COEFFICIENTS:
        raise ValueError(
            f"the standard errors of every replicate need a ({P} x {P}) matrix, which is limited to "
            f"{MAX_COEFFICIENTS}. Fit fewer equations."
        )
    if method == "parametric":
        seen = seen_rows(fit, asked.system)
        if isinstance(seen, Rows):
            draws, errors = streamed_parametric(seen, source.fitted, fitted, n, seed)
        else:
            draws, errors = shown_parametric(seen, source.fitted, fitted, n, seed)
    else:
        rows, partition = asked.all_parts()
        if are_streamed(fit, rows):
            draws, errors = streamed_resampled(rows, partition, source.fitted, fitted, n, seed)
        else:
            _check_memory(rows, method, partition)
            parts = compress_shown_parts(rows, partition, meter=Meter(), keep=True).that_show()
            _check_used(len(parts.parts), method, partition)
            draws, errors = shown_resampled(parts, source.fitted, fitted, n, seed)
    return draws, errors if fit.restrictions is None else np.where(fit.restrictions.held, 0.0, errors)


def _check(n: Any, method: Any, seed: Any, groups: Any, n_blocks: Any) -> None:
    if isinstance(n, bool) or not isinstance(n, numbers.Integral) or n < 2:
        raise ValueError(f"n, the number of replicates, must be an integer of at least 2; got {n!r}.")
    one_of("method", method, METHODS)
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or seed < 0):
        raise ValueError(f"seed must be an integer of at least 0, or None; got {seed!r}.")
    if groups is not None and method != "cluster":
        raise ValueError(f"groups are for method='cluster'; got method={method!r}. Leave one of the two out.")
    if n_blocks is not None:
        if method == "parametric":
            raise ValueError("n_blocks is for method='blocks' and 'cluster'; method='parametric' resamples no rows.")
        if isinstance(n_blocks, bool) or not isinstance(n_blocks, numbers.Integral) or n_blocks < 2:
            raise ValueError(f"n_blocks must be an integer of at least 2; got {n_blocks!r}.")


def _compressed(fit: Measures, system: System | CompressedSystem | None) -> Compressed:
    """The rows that stand for the data, the fit's own where it has them."""
    if system is not None:
        system = as_estimated(system, fit.skipped)
        check_same_design(system.design, fit.design)
        return complete_rows(as_fitted(fit, system) if isinstance(system, System) else system, fit.missing)
    size = format_bytes(8 * (fit.design.n_regressors + fit.design.n_equations) ** 2)
    remedy = (
        "and a streamed fit keeps no compressed rows to replicate. Pass system=..., which is then read once into "
        f"{size}, or fit with engine='compress'"
    )
    return fit.evidence.rows_for(fit.estimated, "bootstrap", streamed=remedy)


def _partition(
    fit: Measures, method: Method, system: System | CompressedSystem | None, groups: Any, n_blocks: int | None
) -> tuple[Rows, Partition]:
    system = fit.system if system is None else system
    if not isinstance(system, System):
        raise ValueError(
            f"method={method!r} resamples rows, which a fit opened from a file, or one of a compressed system, does "
            "not hold. Pass system=..., the System that was fitted."
        )
    seen: System = as_estimated(system, fit.skipped)
    check_same_design(seen.design, fit.design)
    system = as_fitted(fit, with_effects_of_rows(seen, fit.design))
    n_obs = system.n_obs
    if method == "blocks":
        check_ascending(system.obs, system.obs_dim, "method='blocks'")
        n_parts = min(BLOCKS, n_obs) if n_blocks is None else int(n_blocks)
        if n_parts > n_obs:
            raise ValueError(f"n_blocks={n_parts} is more than the {n_obs} rows there are. Use fewer blocks.")
        return system.rows, RowBlocks(n_parts, n_obs)
    codes, n_groups = _codes(system.groups_of_rows(groups))
    if n_groups < 2:
        raise ValueError(f"groups has {n_groups} distinct label; resampling needs at least 2 groups.")
    if n_blocks is not None and n_blocks < n_groups:
        joined = np.random.default_rng(JOINING_SEED).permutation(n_groups) % int(n_blocks)
        return system.rows, GivenParts(joined[codes], int(n_blocks))
    return system.rows, GivenParts(codes, n_groups)


def _codes(labels: np.ndarray | None) -> tuple[np.ndarray, int]:
    """(N,) number of each row's group, and how many groups there are."""
    if labels is None:
        raise ValueError("method='cluster' needs the group of every row. Pass groups=..., or give the System groups.")
    codes, distinct = pd.factorize(labels, sort=False)
    return codes, len(distinct)


def _check_memory(rows: Rows, method: Method, partition: Partition) -> None:
    """Refuse parts that do not fit, before any read."""
    plan = price_parts(rows, partition.n_parts)
    if not plan.fits:
        what = "groups" if method == "cluster" else "blocks"
        also = ", which joins whole groups," if method == "cluster" else ""
        fewer = max(2, int(partition.n_parts * plan.memory_limit / plan.peak / 2))
        raise MemoryError(
            f"keeping the cross-products of {partition.n_parts} {what} apart needs {format_bytes(plan.peak)}; the "
            f"limit is {format_bytes(plan.memory_limit)}. n_blocks={fewer}{also} takes less."
        )


def _check_used(n_parts: int, method: Method, partition: Partition) -> None:
    """Refuse what is left of the parts once it is known which rows were fitted."""
    if n_parts < 2:
        what = "groups" if method == "cluster" else "blocks"
        raise ValueError(
            f"resampling needs at least two {what} with rows that were fitted; of {partition.n_parts:,} {what}, "
            f"{n_parts} has rows of positive weight (and complete ones, with missing='drop'). Use other "
            f"{what}, or method='parametric'."
        )


def _quantile(draws: np.ndarray, tails: list[float]) -> np.ndarray:
    """Of n draws the (n + 1) p-th in order, so that few draws cover as often as many (ibid., section 2.4)."""
    found: np.ndarray = np.quantile(draws, tails, axis=0, method="weibull")
    return found
