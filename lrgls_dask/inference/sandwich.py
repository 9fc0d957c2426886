"""Sandwich covariances of the coefficients from one pass over the rows: robust, clustered, and for rows in time order.

The kernels sum products of gradients, `inference.bread` turns the sum into a covariance. For one equation they are
projected on that equation's coefficients first, so that nothing of size P x P exists.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from lrgls_dask.errors import FitWarning, warn_user
from lrgls_dask.inference.bread_of_rows import BreadOfRows
from lrgls_dask.inference.error_blocks import (
    ErrorBlocks,
    ErrorParams,
    blocks_bytes,
    blocks_of_entries,
    blocks_of_sums,
    error_blocks_kernel,
)
from lrgls_dask.inference.gradient_kernels import (
    Clusters,
    GradientParams,
    cluster_kernel,
    each_row,
    filtered,
    gradient_sums_kernel,
    group_sums_kernel,
    hac_kernel,
    lag_kernel,
    meat_kernel,
)
from lrgls_dask.inference.gradient_moments import (
    GradientSums,
    GroupSums,
    HacMoments,
    LagMoments,
    MeatMoments,
    WaysMoments,
)
from lrgls_dask.inference.gradient_pass import gradient_pass
from lrgls_dask.inference.hac import HacKernel, bandwidth_of, lag_weights, pilot_lags
from lrgls_dask.inference.leverage import Leverage
from lrgls_dask.inference.structured import StructuredCov
from lrgls_dask.rows.layout import cut_rows
from lrgls_dask.rows.memory import MAX_COEFFICIENTS
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.run_pass import Kernel

__all__ = ["clustered", "driscoll_kraay", "hac", "robust"]

PAYS = 4  # coefficients for each sum of gradients, from which on P x P arrays are the dearer ones
FLOPS_AN_HOUR = 3600 * 2e10  # of one processor
MOST_FLOPS = 6 * FLOPS_AN_HOUR  # that standard errors of all coefficients may take
LONG_FLOPS = FLOPS_AN_HOUR / 6  # from which on that is said before
ROBUST = "robust covariance"
LEAST_LAGS = 12  # autocovariances kept while the bandwidth is not yet known, where the rule looks at fewer
LAGS_BYTES = 256 * 2**20  # and the memory they may take; beyond, the bandwidth has two small passes of its own


def robust(
    rows: Rows, bread: BreadOfRows, equation: int | None, meter: Meter, leverage: Leverage | None = None
) -> np.ndarray | StructuredCov:
    """Heteroskedasticity-robust covariance (HC0), (P, P) or (p_j, p_j). One pass; partial sums of the same size.

    Of fewer rows than coefficients the gradients of every row are kept instead, N P numbers: no P x P. Of more, and
    above 20,000 coefficients, only blocks of equations are summed, N solutions of P numbers each.
    leverage : by which residuals are enlarged (HC2, HC3); n p^2 flops for each design more.
    Source: White (1980), of the system's gradients; MacKinnon and White (1985).
    """
    if equation is None and _sums_pay(bread, rows.n_obs):
        sums = _sums(rows, bread, each_row(rows.n_obs), meter, ROBUST, leverage).sums
        return _of_sums(bread, sums)
    if equation is None and bread.design.n_coefficients > MAX_COEFFICIENTS:
        _check_price(bread, rows.n_obs, "rows")
        gradients = bread.gradient_params(leverage=leverage)
        found: ErrorBlocks = _run(
            rows, error_blocks_kernel, ErrorParams(gradients, bread), bread, blocks_bytes(bread.design), meter, ROBUST
        )
        return blocks_of_entries(bread.design, found.entries)
    params = _params(bread, equation, leverage=leverage)
    moments: MeatMoments = _run(rows, meat_kernel, params, bread, 8 * params.width**2, meter, ROBUST)
    return _filled(bread, moments.meat, equation)


def clustered(
    rows: Rows, bread: BreadOfRows, equation: int | None, ways: tuple[Clusters, ...], meter: Meter
) -> list[tuple[np.ndarray | StructuredCov, int]]:
    """For each way of grouping the rows the covariance that is robust to correlation within its groups, and how many
    groups were used. One pass for all; a P x P sum for each. Of one way, with fewer groups than coefficients or above
    20,000 of these, the gradients of every group are kept instead, P numbers each.

    Which rows are used (of positive weight, complete with missing="drop") is seen in that pass; groups with none of
    them do not count.

    Partial sums hold P numbers more for every group that has rows both inside and outside of what they cover: next to
    none where groups lie together, one for each group where their rows are scattered.
    Source: Liang and Zeger (1986).
    Raises ValueError for fewer than two groups that were used.
    """
    n_coefficients = bread.design.n_coefficients
    pays = _sums_pay(bread, len(ways[0].first))
    if equation is None and len(ways) == 1 and (pays or n_coefficients > MAX_COEFFICIENTS):
        if not pays:
            _check_price(bread, len(ways[0].first), "groups")
        moments: GroupSums = _sums(rows, bread, ways[0], meter, "clustered covariance")
        n_groups = int(np.count_nonzero(moments.used))
        _check_groups(n_groups, len(ways[0].first), n_coefficients)
        return [((_of_sums if pays else blocks_of_sums)(bread, moments.sums), n_groups)]
    params = _params(bread, equation, clusters=ways)
    size = 8 * params.width * sum(params.width + _most_open(rows, clusters) for clusters in ways)
    of_ways: WaysMoments = _run(rows, cluster_kernel, params, bread, size, meter, "clustered covariance")
    for clusters, way in zip(ways, of_ways.ways, strict=True):
        _check_groups(way.n_groups, len(clusters.first), 0)
    _check_groups(min(way.n_groups for way in of_ways.ways), 0, params.width)
    return [(_filled(bread, way.meat, equation), way.n_groups) for way in of_ways.ways]


def _check_groups(n_groups: int, n_labels: int, n_coefficients: int) -> None:
    """Raise ValueError for fewer than two groups that were used; warn of fewer than coefficients."""
    if n_groups < 2:
        raise ValueError(
            "a clustered covariance needs at least two groups with rows that were fitted; of "
            f"{n_labels:,} groups, {n_groups} has rows of positive weight (and complete ones, with missing='drop'). "
            "Use other groups, or kind='robust'."
        )
    if n_groups < n_coefficients:
        warn_user(
            f"clustered covariance: {n_groups} groups are fewer than {n_coefficients} coefficients, so the matrix is "
            "singular: single standard errors are usable, joint tests of many coefficients are not.",
            FitWarning,
        )


def driscoll_kraay(
    rows: Rows,
    bread: BreadOfRows,
    equation: int | None,
    times: Clusters,
    kernel: HacKernel,
    bandwidth: float | None,
    meter: Meter,
) -> tuple[np.ndarray | StructuredCov, float, int]:
    """Covariance that is robust to correlation among all rows of a time and, along times, to autocorrelation; its
    bandwidth, in times, and how many times have rows that were fitted.

    times : which time each row belongs to, codes 0..T-1 in order; a time none of whose rows was fitted keeps its place
    with a sum of zero and is not counted, times without a row have no place. One pass, whatever the bandwidth; T P
    numbers.
    Source: Driscoll and Kraay (1998).
    Raises ValueError for a bandwidth that reaches back beyond the first time, and fewer than two times that count.
    """
    n_times = len(times.first)
    pays = equation is None and _sums_pay(bread, n_times)
    if equation is None and not pays:
        _check_size(bread)
    moments = _sums(rows, bread, times, meter, "Driscoll-Kraay covariance")
    sums, n_used = moments.sums, int(np.count_nonzero(moments.used))
    if n_used < 2:
        raise ValueError(
            f"a Driscoll-Kraay covariance needs at least two times with rows that were fitted; of {n_times:,} times, "
            f"{n_used} has. Use kind='robust'."
        )
    if bandwidth is None:
        bandwidth = _bandwidth_of_sums(sums, bread, kernel, pilot_lags(kernel, n_used), n_used)
    weights = _weights(kernel, bandwidth, n_times, "times")
    if pays:
        return _of_sums(bread, sums, weights), float(bandwidth), n_used
    if equation is not None:
        sums = sums @ bread.projection(equation)
    half = filtered(sums, weights).T @ sums
    return _filled(bread, half + half.T, equation), float(bandwidth), n_used


def hac(
    rows: Rows, bread: BreadOfRows, equation: int | None, kernel: HacKernel, bandwidth: float | None, meter: Meter
) -> tuple[np.ndarray | StructuredCov, float]:
    """Covariance that is robust to autocorrelation of rows in time order, and its bandwidth.

    One pass at a given bandwidth. The automatic one is that of Newey and West (1994) and needs autocovariances before
    the weights are known: while (L + 1) P x P arrays of them take less than 256 MB, L the larger of 12 and the lags the
    rule looks at, one pass keeps them all and a second follows only for a bandwidth beyond L; otherwise two passes
    with small sums find it. Rows of weight zero keep their place in time with a gradient of zero; the rule counts the
    others. Of fewer rows than coefficients the gradients of every row are kept in one pass, N P numbers, whatever the
    bandwidth.
    """
    if equation is None and _sums_pay(bread, rows.n_obs):
        sums = _sums(rows, bread, each_row(rows.n_obs), meter, "HAC covariance").sums
        if bandwidth is None:
            bandwidth = _bandwidth_of_sums(sums, bread, kernel, pilot_lags(kernel, bread.n_obs), bread.n_obs)
        return _of_sums(bread, sums, _weights(kernel, bandwidth, rows.n_obs)), float(bandwidth)
    if bandwidth is not None:
        weights = _weights(kernel, bandwidth, rows.n_obs)
        return _weighted(rows, bread, equation, weights, meter), float(bandwidth)
    pilot = pilot_lags(kernel, bread.n_obs)
    n_lags = min(max(pilot, LEAST_LAGS), rows.n_obs - 1)
    n_coefficients = bread.design.n_coefficients
    if equation is not None or 8 * (n_lags + 1) * n_coefficients**2 > LAGS_BYTES:
        chosen = _bandwidth_by_passes(rows, bread, kernel, pilot, meter)
    else:
        params = _params(bread, None, weights=np.ones(n_lags + 1))
        size = 8 * n_coefficients * ((n_lags + 1) * n_coefficients + 2 * n_lags)
        moments: LagMoments = _run(rows, lag_kernel, params, bread, size, meter, "autocovariances")
        chosen = _bandwidth(moments, bread.stored_gradients(), kernel, pilot, bread.n_obs)
        weights = lag_weights(kernel, chosen, rows.n_obs)
        if len(weights) <= n_lags + 1:
            half = 0.5 * moments.lags[0] + np.tensordot(weights[1:], moments.lags[1 : len(weights)], 1)
            return _filled(bread, half + half.T, None), chosen
    return _weighted(rows, bread, equation, lag_weights(kernel, chosen, rows.n_obs), meter), chosen


# ---------------------------------------------------------------------------------------------- passes


def _params(
    bread: BreadOfRows,
    equation: int | None,
    *,
    weights: np.ndarray | None = None,
    clusters: tuple[Clusters, ...] = (),
    leverage: Leverage | None = None,
) -> GradientParams:
    """Gradients by all coefficients, or projected on one equation's. Raises ValueError where P x P is too large."""
    if equation is None:
        _check_size(bread)
    project = None if equation is None else bread.projection(equation)
    return bread.gradient_params(project=project, weights=weights, clusters=clusters, leverage=leverage)


def _check_price(bread: BreadOfRows, n_sums: int, what: str) -> None:
    """Raise ValueError where errors of so many sums of gradients take hours; warn where they take long."""
    flops = bread.errors_flops(n_sums)
    if flops > MOST_FLOPS:
        raise ValueError(
            f"standard errors of all {bread.design.n_coefficients:,} coefficients by {n_sums:,} {what} would take "
            f"{flops:.1e} operations, about {flops / FLOPS_AN_HOUR:,.0f} hours of a processor. Ask for one equation at "
            "a time: cov(..., equation=...)."
        )
    if flops > LONG_FLOPS:
        warn_user(
            f"standard errors of all {bread.design.n_coefficients:,} coefficients by {n_sums:,} {what} take about "
            f"{60 * flops / FLOPS_AN_HOUR:,.0f} minutes of a processor. Those of one equation, cov(..., equation=...), "
            "or of a fit of fewer equations take less.",
            FitWarning,
        )


def _check_size(bread: BreadOfRows) -> None:
    n_coefficients = bread.design.n_coefficients
    if n_coefficients > MAX_COEFFICIENTS:
        raise ValueError(
            f"the covariance of all {n_coefficients:,} coefficients would take {8e-9 * n_coefficients**2:.1f} GB and "
            f"is limited to {MAX_COEFFICIENTS:,}. Ask for one equation at a time: cov(..., equation=...)."
        )


# ---------------------------------------------------------------------------------------------- few sums


def _sums_pay(bread: BreadOfRows, n_sums: int) -> bool:
    """Whether so many sums of gradients are small beside products of P coefficients."""
    return PAYS * n_sums <= bread.design.n_coefficients


def _sums(
    rows: Rows,
    bread: BreadOfRows,
    groups: Clusters,
    meter: Meter,
    label: str,
    leverage: Leverage | None = None,
) -> GroupSums:
    """Of the gradients of each group of rows, (G, P); one pass."""
    params = bread.gradient_params(clusters=(groups,), leverage=leverage)
    size = 8 * params.width * len(groups.first)
    found: GroupSums = _run(rows, group_sums_kernel, params, bread, size, meter, label)
    return found


def _of_sums(bread: BreadOfRows, sums: np.ndarray, weights: np.ndarray | None = None) -> StructuredCov:
    """A^-1 (sum over pairs of weights of s_t s_u') A^-1 of T sums (T, P), P T numbers.

    weights : (L + 1,) of lags between the sums; None where each stands alone.
    """
    n_sums, P = sums.shape
    middle = np.eye(n_sums)
    if weights is not None:
        half = filtered(middle, weights)
        middle = half + half.T
    return StructuredCov(bread.design, sp.csr_array((P, P)), bread.errors(sums), middle)


def _bandwidth_of_sums(sums: np.ndarray, bread: BreadOfRows, kernel: HacKernel, pilot: int, n_used: int) -> float:
    """Newey and West (1994) of the sum of all gradients as stored, each over its standard deviation; of sums (T, P)."""
    stored = bread.as_stored(sums)
    series = stored @ _inverse_deviations(np.sum(stored**2, axis=0), stored.sum(axis=0), n_used)
    lags = [float(series[lag:] @ series[: len(series) - lag]) for lag in range(pilot + 1)]
    return bandwidth_of(kernel, np.array(lags) / n_used, n_used)


def _run(
    rows: Rows,
    kernel: Kernel,
    params: GradientParams | ErrorParams,
    bread: BreadOfRows,
    size: int,
    meter: Meter,
    label: str,
) -> Any:
    n_coefficients = bread.design.n_coefficients
    if isinstance(params, ErrorParams) or kernel is group_sums_kernel:
        client = 4 * size
    else:
        n_sums = max(1, len(params.clusters))
        client = 8 * ((4 + n_sums) * n_coefficients**2 if params.project is None else 4 * n_coefficients * params.width)
    return gradient_pass(
        rows,
        bread.of_rows(kernel),
        params,
        n_obs=bread.n_obs,
        fitted=bread.fitted,
        partial_bytes=size,
        client_bytes=client,
        meter=meter,
        label=label,
        remedy="Ask for one equation at a time, cov(..., equation=...)",
        holes=bread.holes,
    )


def _filled(bread: BreadOfRows, meat: np.ndarray, equation: int | None) -> np.ndarray:
    return bread.sandwich(meat) if equation is None else 0.5 * (meat + meat.T)


def _weighted(rows: Rows, bread: BreadOfRows, equation: int | None, weights: np.ndarray, meter: Meter) -> np.ndarray:
    params = _params(bread, equation, weights=weights)
    size = 8 * params.width * (params.width + 2 * (len(weights) - 1))
    moments: HacMoments = _run(rows, hac_kernel, params, bread, size, meter, "HAC covariance")
    return _filled(bread, moments.half + moments.half.T, equation)


# ---------------------------------------------------------------------------------------------- bandwidth


def _weights(kernel: HacKernel, bandwidth: float, n_rows: int, what: str = "rows") -> np.ndarray:
    weights = lag_weights(kernel, bandwidth, n_rows)
    if len(weights) > n_rows:
        raise ValueError(
            f"bandwidth {bandwidth:g} reaches back {len(weights) - 1:,} {what} but there are only {n_rows:,}. "
            f"Use at most {n_rows - 1:,}."
        )
    return weights


def _bandwidth(moments: LagMoments, to_stored: np.ndarray, kernel: HacKernel, pilot: int, n_rows: int) -> int:
    """From autocovariances of all gradients: those of their sum as stored, each over its standard deviation."""
    second = np.einsum("ci,ij,cj->c", to_stored, moments.lags[0], to_stored, optimize=True)
    direction = to_stored.T @ _inverse_deviations(second, to_stored @ moments.total, n_rows)
    series = np.einsum("i,lij,j->l", direction, moments.lags[: pilot + 1], direction, optimize=True)
    return bandwidth_of(kernel, series / n_rows, n_rows)


def _bandwidth_by_passes(rows: Rows, bread: BreadOfRows, kernel: HacKernel, pilot: int, meter: Meter) -> int:
    """The same from two passes: deviations of all gradients, then the autocovariances of one series."""
    params = bread.gradient_params(as_stored=True)
    sums: GradientSums = _run(rows, gradient_sums_kernel, params, bread, 16 * params.width, meter, "gradients")
    direction = _inverse_deviations(sums.squares, sums.total, bread.n_obs)[:, None]
    params = bread.gradient_params(as_stored=True, project=direction, weights=np.ones(pilot + 1))
    moments: LagMoments = _run(rows, lag_kernel, params, bread, 24 * (pilot + 1), meter, "autocovariances")
    return bandwidth_of(kernel, moments.lags[:, 0, 0] / bread.n_obs, bread.n_obs)


def _inverse_deviations(squares: np.ndarray, total: np.ndarray, n_rows: int) -> np.ndarray:
    variances = squares / n_rows - (total / n_rows) ** 2
    with np.errstate(divide="ignore"):
        return np.asarray(1.0 / np.sqrt(variances))


# ---------------------------------------------------------------------------------------------- groups


def _most_open(rows: Rows, clusters: Clusters) -> int:
    """The most groups that a partial sum can hold open: those across its two ends, at the cuts between blocks."""
    cuts = cut_rows(rows, 0).blocks[1:-1]
    begun = np.searchsorted(np.sort(clusters.first), cuts)
    ended = np.searchsorted(np.sort(clusters.last), cuts)
    return min(2 * int((begun - ended).max(initial=0)), len(clusters.first))
