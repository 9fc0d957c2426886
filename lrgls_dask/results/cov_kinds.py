"""Kinds of covariance of the coefficients: which options each takes, and what computes it. One entry a kind."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from lrgls_dask.checks import one_of
from lrgls_dask.data.sources import group_source
from lrgls_dask.inference.bread import Bread
from lrgls_dask.inference.hac import HacKernel
from lrgls_dask.inference.huber_white import huber_white_cov
from lrgls_dask.inference.information import observed_cov
from lrgls_dask.inference.kackar_harville import kackar_harville_cov
from lrgls_dask.inference.sandwich import clustered, clusters_of, hac, robust
from lrgls_dask.inference.standardised import Estimate
from lrgls_dask.missing.covariance import incomplete_covariance
from lrgls_dask.prediction.fitted import check_same_design
from lrgls_dask.results.assessed import refuse_missing
from lrgls_dask.results.estimates import as_fitted
from lrgls_dask.rows.memory import MAX_COEFFICIENTS
from lrgls_dask.rows.run_pass import Meter
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.system import System

if TYPE_CHECKING:
    from lrgls_dask.results.fit import Fit
    from lrgls_dask.results.time_varying import TimeVaryingFit

__all__ = [
    "Correction",
    "CovKind",
    "CovRequest",
    "CovValues",
    "check_debiased",
    "coefficient_covariance",
    "cut",
    "degrees",
    "fitted_system",
    "sandwich_covariance",
]

if TYPE_CHECKING:
    AnyFit: TypeAlias = Fit | TimeVaryingFit

CovKind = Literal["classical", "robust", "cluster", "hac", "observed", "huber-white", "kackar-harville"]
Correction = Literal["HC0", "HC1"]


@dataclass(frozen=True, eq=False)
class CovRequest:
    """What `Fit.cov` was asked for. equation : its position, or None for all coefficients.

    Raises ValueError or TypeError for an unknown kind or value, and for an option that the kind does not take.
    """

    kind: CovKind
    equation: int | None = None
    debiased: bool = False
    system: System | None = None
    groups: Any = None
    correction: Correction = "HC0"
    kernel: HacKernel = "bartlett"
    bandwidth: float | None = None

    def __post_init__(self) -> None:
        one_of("kind", self.kind, tuple(KINDS))
        one_of("correction", self.correction, ("HC0", "HC1"))
        one_of("kernel", self.kernel, ("bartlett", "parzen", "qs"))
        given = {
            "debiased": self.debiased is not False,
            "groups": self.groups is not None,
            "correction": self.correction != "HC0",
            "kernel": self.kernel != "bartlett",
            "bandwidth": self.bandwidth is not None,
        }
        useless = [name for name, is_given in given.items() if is_given and name not in KINDS[self.kind].options]
        if useless:
            takes = [kind for kind, entry in KINDS.items() if useless[0] in entry.options]
            raise ValueError(
                f"kind={self.kind!r} takes no {useless[0]}=; {' and '.join(map(repr, takes))} "
                f"{'do' if len(takes) > 1 else 'does'}. Leave it out, or choose another kind."
            )
        if self.bandwidth is not None:
            _check_bandwidth(self.bandwidth)


@dataclass(frozen=True, eq=False)
class CovValues:
    """values : (P, P), or (p_j, p_j) of one equation.  note : how they were made, beyond the kind."""

    values: np.ndarray
    note: str


def coefficient_covariance(fit: Fit, request: CovRequest) -> CovValues:
    """The covariance that was asked for."""
    if fit.cells is not None:
        return _of_missing(fit, request)
    return KINDS[request.kind].compute(fit, request)


def _of_missing(fit: Fit, request: CovRequest) -> CovValues:
    """Of a fit to missing responses: the one it came with, or one that its rows are read for."""
    kind = request.kind
    if kind not in ("classical", "observed") or request.debiased:
        what = "debiased=True" if request.debiased else f"kind={kind!r}"
        refuse_missing(fit, what, "Use kind='classical' or 'observed', or fit complete rows with missing='drop'")
    if fit.cov_kind == kind and fit.cov_values is not None:
        return cut(fit, request, fit.cov_values)
    return cut(fit, request, incomplete_covariance(fit, fitted_system(fit, request).rows, kind))  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------- the kinds


def _classical(fit: Fit, request: CovRequest) -> CovValues:
    """(X' Sigma^-1 X)^-1 at a known Sigma; no read. debiased : Sigma_ij times N / sqrt((N - p_i) (N - p_j))."""
    sigma, note = fit.covariance, ""
    covariance = fit._covariance
    if request.debiased:
        check_debiased(fit)
        note = "debiased"
        sigma = sigma if fit.debiased else sigma.rescaled(degrees(fit))
        covariance = replace(covariance, sigma=sigma)
    if request.equation is None:
        return CovValues(covariance.full, note)
    if fit.n_coefficients > MAX_COEFFICIENTS and not covariance.has_shared_columns:
        return CovValues(_bread(fit, sigma).classical_block(request.equation), note)
    return CovValues(covariance.block(request.equation), note)


def _sandwich(fit: Fit, request: CovRequest) -> CovValues:
    return sandwich_covariance(fit, request, lambda system: _bread(fit, fit.covariance))


def sandwich_covariance(fit: AnyFit, request: CovRequest, bread: Callable[[System], Bread]) -> CovValues:
    """ "robust", "cluster" or "hac": one pass over the fitted rows, scored by the bread of their system."""
    system = fitted_system(fit, request)
    values, note = SANDWICHES[request.kind](request, system, bread(system))
    return CovValues(_corrected(fit, request, values), note)


def _robust(request: CovRequest, system: System, bread: Bread) -> tuple[np.ndarray, str]:
    return robust(system.rows, bread, request.equation, Meter()), request.correction


def _cluster(request: CovRequest, system: System, bread: Bread) -> tuple[np.ndarray, str]:
    """With correction "HC1" also times G / (G - 1) (N - 1) / N, G groups."""
    labels = system.groups if request.groups is None else group_source("groups", request.groups)
    if labels is None:
        raise ValueError("kind='cluster' needs groups: pass groups=, one label a row, or a system that has them.")
    clusters = clusters_of(labels, system.n_obs)
    n_groups = len(clusters.first)
    values = clustered(system.rows, bread, request.equation, clusters, Meter())
    if request.correction == "HC1":
        values = values * (n_groups / (n_groups - 1) * (bread.n_obs - 1) / bread.n_obs)
    return values, f"{request.correction}, {n_groups:,} groups"


def _hac(request: CovRequest, system: System, bread: Bread) -> tuple[np.ndarray, str]:
    values, bandwidth = hac(system.rows, bread, request.equation, request.kernel, request.bandwidth, Meter())
    return values, f"{request.correction}, {request.kernel} kernel, bandwidth {bandwidth:g}"


SANDWICHES = {"robust": _robust, "cluster": _cluster, "hac": _hac}


def _observed(fit: Fit, request: CovRequest) -> CovValues:
    return cut(fit, request, observed_cov(_estimate(fit, request)))


def _huber_white(fit: Fit, request: CovRequest) -> CovValues:
    estimate = _estimate(fit, request)
    return cut(fit, request, huber_white_cov(estimate, fitted_system(fit, request).rows, Meter()))


def _kackar_harville(fit: Fit, request: CovRequest) -> CovValues:
    return cut(fit, request, kackar_harville_cov(_estimate(fit, request)))


@dataclass(frozen=True)
class _Kind:
    compute: Callable[[Fit, CovRequest], CovValues]
    options: frozenset[str]


KINDS: dict[str, _Kind] = {
    "classical": _Kind(_classical, frozenset({"debiased"})),
    "robust": _Kind(_sandwich, frozenset({"correction"})),
    "cluster": _Kind(_sandwich, frozenset({"correction", "groups"})),
    "hac": _Kind(_sandwich, frozenset({"correction", "kernel", "bandwidth"})),
    "observed": _Kind(_observed, frozenset()),
    "huber-white": _Kind(_huber_white, frozenset()),
    "kackar-harville": _Kind(_kackar_harville, frozenset()),
}


# ---------------------------------------------------------------------------------------------- what they share


def fitted_system(fit: AnyFit, request: CovRequest) -> System:
    """The rows of the fit, as it saw them. Raises ValueError or TypeError where there are none."""
    system = request.system if request.system is not None else fit.system
    if system is None:
        raise ValueError(
            f"kind={request.kind!r} needs the rows, which this fit does not hold. Pass the fitted data: "
            f"cov({request.kind!r}, system=...)."
        )
    if not isinstance(system, System):
        raise TypeError(
            f"kind={request.kind!r} needs the rows themselves, a System; got a {type(system).__name__}. "
            "Pass the System that was compressed."
        )
    check_same_design(system.design, fit.design)
    return as_fitted(fit, system)


def _estimate(fit: Fit, request: CovRequest) -> Estimate:
    """What the information of all parameters is computed from."""
    if fit.compressed is None:
        raise ValueError(
            f"kind={request.kind!r} needs the compressed rows, which a streamed fit does not have. Use kind='robust', "
            "or fit with engine='compress'."
        )
    held = np.isin(np.arange(fit.n_equations), [fit.design.equations.index(name) for name in fit.on_floor])
    return Estimate(
        fit.compressed,
        fit.coefficients,
        fit.covariance,
        lam_B=fit.lam_B,
        lam_F=fit.lam_F,
        l1=fit.l1,
        on_floor=held,
        restrictions=fit.restrictions,
    )


def check_debiased(fit: AnyFit) -> None:
    """Raise ValueError where there is no count of coefficients to correct for."""
    if fit.lam_B > 0:
        raise ValueError(
            f"debiased=True counts coefficients, which lam_B = {fit.lam_B:g} has shrunk. Use kind='classical' "
            "as it is, or fit with lam_B = 0."
        )


def cut(fit: AnyFit, request: CovRequest, values: np.ndarray) -> CovValues:
    """The block of the equation that was asked for."""
    if request.equation is None:
        return CovValues(values, "")
    mine = fit.design.spans[request.equation]
    return CovValues(values[mine, mine], "")


def _bread(fit: Fit, sigma: Sigma) -> Bread:
    head = None if fit.compressed is None else fit.compressed.head
    x_rows = fit._covariance.x_rows
    restrictions = None if fit.restrictions is None else fit.restrictions.matrix
    return Bread(fit.design, x_rows, head, fit.coefficients, sigma, fit.n_obs, fit.y_scale, fit.lam_B, restrictions)


def degrees(fit: AnyFit) -> np.ndarray:
    """(K,) sqrt(N / (N - p_j))."""
    return np.asarray(np.sqrt(fit.n_obs / (fit.n_obs - fit.design.sizes)))


def _corrected(fit: AnyFit, request: CovRequest, values: np.ndarray) -> np.ndarray:
    """Times N / sqrt((N - p_i) (N - p_j)) for "HC1"."""
    if request.correction == "HC0":
        return values
    factors = degrees(fit)
    if request.equation is not None:
        return np.asarray(values * factors[request.equation] ** 2)
    each = np.repeat(factors, fit.design.sizes)
    return values * np.multiply.outer(each, each)


def _check_bandwidth(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"bandwidth must be a number of rows or None; got {value!r}.")
    if not 0 <= float(value) < np.inf:
        raise ValueError(f"bandwidth must be zero or more and finite; got {value!r}.")
