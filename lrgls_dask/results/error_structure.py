"""The numbers behind pictures of the errors across equations: loadings, correlations, their course over segments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy  # scipy.cluster loads when first asked
import xarray as xr

from lrgls_dask.checks import closest, one_of, shown
from lrgls_dask.compression.by_pattern import CompressedPatterns
from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.data.indices import as_index
from lrgls_dask.data.labels import check_unique, plain_labels
from lrgls_dask.prediction.fitted import Coefficients
from lrgls_dask.results.chosen import is_label
from lrgls_dask.results.evidence import CellsOfRows
from lrgls_dask.results.excerpt import evenly_spaced
from lrgls_dask.results.reported import Reported
from lrgls_dask.results.sigma_reported import SigmaReported
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.varying.segments import kernel_weights, segment_times
from lrgls_dask.varying.sigmas import SegmentSigmas

__all__ = ["IN_A_MAP", "When", "error_correlations", "over_segments", "sigma_of", "standard_loadings"]

When = Literal["before", "after", "both"]
WHEN = ("before", "after", "both")
CLUSTERED = 4_000  # equations, of which the distances of all pairs take 64 MB
IN_A_MAP = 300  # equations on either side: as many as a picture has dots for
BARE = 1e-6  # of the variance of its errors, that is an equation's own: what is left below that has no correlations
BEFORE = "errors('before')"


def sigma_of(fit: Reported, segment: Any = None) -> tuple[Sigma, str]:
    """The Sigma of all rows, or of a segment, the last where None; and what to say of which it is."""
    if isinstance(fit, SigmaReported):
        if segment is not None:
            raise ValueError(
                f"segment={segment!r} asks for one of several Sigmas, and this fit has one for all rows. Leave segment "
                "out, or fit with covariance=TimeVarying(...)."
            )
        return fit.covariance, ""
    sigmas = _sigmas(fit)
    label = sigmas.labels[-1] if segment is None else segment
    return sigmas.at(label), f"segment {label}"


def _sigmas(fit: Reported) -> SegmentSigmas:
    found: SegmentSigmas = fit.sigmas  # type: ignore[attr-defined]
    return found


# ---------------------------------------------------------------------------------------------- loadings


def standard_loadings(fit: Reported, order: Any, segment: Any) -> xr.DataArray:
    """(equation, factor) correlations of errors with factors, in the order in which they are drawn."""
    sigma, _ = sigma_of(fit, segment)
    if sigma.rank == 0:
        sigma.loadings()  # which says so where there are none by the kind of Sigma
        raise ValueError("the fit has no factors, so there are no loadings. Fit with rank >= 1, or draw errors().")
    standard = _standard(sigma)
    places = _by_likeness(standard) if order is None else _in_order(fit, order, np.arange(len(standard)))
    coords = {"equation": _index(fit, places), "factor": sigma.factor_labels}
    return xr.DataArray(standard[places], coords, ("equation", "factor"), name="loading")


def _standard(sigma: Sigma) -> np.ndarray:
    return sigma.loadings() / np.sqrt(sigma.variances)[:, None]


def _index(fit: Reported, places: np.ndarray) -> pd.Index:
    """The labels of equations by position among those that were estimated, along the dim that they have in a fit."""
    labels = as_index(fit.design.equations, name="equation")
    return labels[places]


def _in_order(fit: Reported, order: Any, places: np.ndarray) -> np.ndarray:
    """Positions among the equations that were estimated: `places` for "given", else those of the labels asked for."""
    if isinstance(order, str):
        one_of("order", order, ("given",))
        return places
    return _asked_for(fit, order)


def _asked_for(fit: Reported, labels: Any) -> np.ndarray:
    if isinstance(labels, bytes | Mapping) or not isinstance(labels, Iterable):
        raise TypeError(
            f"order is 'given', a list of labels of equations, or None for by likeness; got {labels!r}. Give labels of "
            "fit.equations, in a list."
        )
    known = {label: j for j, label in enumerate(fit.design.equations)}
    wanted = list(plain_labels(labels, "order"))
    if not wanted:
        raise ValueError("order has no equations. Give labels of fit.equations, or None for all of them.")
    check_unique(wanted, "labels in order")
    unknown = [label for label in wanted if not is_label(label, known)]
    if unknown:
        raise ValueError(
            f"order has {shown(unknown)}, which the fit did not estimate. Give labels of fit.equations, those that "
            f"fit.status calls 'ok' or 'on floor'{closest(unknown[0], known)}"
        )
    return np.array([known[label] for label in wanted], dtype=np.intp)


def _by_likeness(numbers: np.ndarray) -> np.ndarray:
    """Rows in the order of the leaves of Ward's (1963) tree, at each branch the side with more of the first column on
    top; more than 4,000 by the column in which they are largest, and by how large they are there."""
    if len(numbers) < 2:
        return np.arange(len(numbers))
    if len(numbers) > CLUSTERED:
        column = np.argmax(np.abs(numbers), axis=1)
        return np.lexsort((-numbers[np.arange(len(numbers)), column], column))
    tree = scipy.cluster.hierarchy.linkage(numbers, "ward")
    leaves = [[j] for j in range(len(numbers))]
    level = list(numbers[:, 0])
    for left, right in tree[:, :2].astype(int).tolist():
        first, last = (left, right) if level[left] >= level[right] else (right, left)
        n, m = len(leaves[left]), len(leaves[right])
        level.append((n * level[left] + m * level[right]) / (n + m))
        leaves.append(leaves[first] + leaves[last])
    return np.array(leaves[-1])


# ---------------------------------------------------------------------------------------------- correlations


def error_correlations(fit: Reported, when: When | None, order: Any, segment: Any) -> xr.Dataset:
    """`before` and `after` (equation, equation_other), in the order in which they are drawn; see `Pictures.errors`."""
    if when is not None:
        one_of("when", when, WHEN)
    sigma, _ = sigma_of(fit, segment)
    factors = len(sigma.own_variances()) > 0
    asked = when or ("both" if factors else "before")
    K = fit.design.n_equations
    places = evenly_spaced(K, min(K, IN_A_MAP))
    if order is not None:
        places = _in_order(fit, order, places)
    if len(places) > IN_A_MAP:
        raise ValueError(
            f"a picture has room for the correlations of {IN_A_MAP} equations, and order has {len(places):,}. Give "
            "fewer, or none: then they are evenly spaced."
        )
    before = _correlations(sigma, places)
    if order is None:
        turn = _by_likeness(_standard(sigma)[places] if sigma.rank else before)
        places, before = places[turn], before[np.ix_(turn, turn)]
    found = {"before": before} if asked != "after" else {}
    if asked != "before":
        if not factors:
            raise ValueError(
                f"covariance={sigma.kind!r} has nothing that is the equations' own, so factors leave nothing. Draw "
                f"{BEFORE}."
            )
        found["after"] = _left(sigma, _of_data(fit, segment, places), places)
    dims, index = ("equation", "equation_other"), _index(fit, places)
    coords = {dims[0]: index, dims[1]: index.rename(dims[1])}
    return xr.Dataset({name: (dims, values) for name, values in found.items()}, coords)


def _correlations(sigma: Sigma, places: np.ndarray) -> np.ndarray:
    """(m, m) of the errors of some equations, O(K k m)."""
    some = np.zeros((sigma.n_equations, len(places)))
    some[places, np.arange(len(places))] = 1.0
    size = np.sqrt(sigma.variances[places])
    return np.asarray(sigma.matmul(some)[places] / np.outer(size, size))


def _left(sigma: Sigma, data: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(m, m) (S - F F') / sqrt(d d'), S with the correlations of the data and the variances of Sigma, so that its own
    diagonal is one; NaN where next to nothing is an equation's own."""
    own, variances = sigma.own_variances()[places], sigma.variances[places]
    F, size = (sigma.loadings() if sigma.rank else np.zeros((sigma.n_equations, 0)))[places], np.sqrt(variances)
    own = np.where(own > BARE * variances, own, np.nan)
    return np.asarray((data * np.outer(size, size) - F @ F.T) / np.sqrt(np.outer(own, own)))


def _of_data(fit: Reported, segment: Any, places: np.ndarray) -> np.ndarray:
    """(m, m) correlations about zero of residuals, over the rows that show both; from what the fit keeps."""
    cross, squares = np.zeros((2, len(places), len(places)))
    for weight, kept in _kept(fit, segment):
        rows = CompressedPatterns.of(kept)
        for key in rows.patterns:
            residual, mine = _residuals(rows, key, fit.coefficients)[:, places], rows.shown(key)[places]
            cross += weight * residual.T @ residual
            squares += np.outer(weight * np.sum(residual**2, axis=0), mine)
    sizes = np.sqrt(squares * squares.T)
    return np.asarray(cross / np.where(sizes > 0, sizes, np.nan))


def _residuals(rows: CompressedPatterns, key: bytes, coefficients: np.ndarray) -> np.ndarray:
    """(r, K) residuals of the rows that stand for those of a pattern, zero where they show nothing."""
    moments, mine, q = rows.patterns[key], rows.shown(key), rows.design.n_regressors
    few = np.vstack([np.sqrt(moments.head.weight) * moments.head.mean, moments.root])
    out = np.zeros((len(few), len(mine)))
    out[:, mine] = few[:, q:] - Coefficients.of(rows.design, coefficients).fitted(few[:, :q])[:, mine]
    return out


def _kept(fit: Reported, segment: Any) -> list[tuple[float, Compressed | CompressedPatterns]]:
    """The rows that stand for those of all, or of a segment and of the neighbours that its Sigma was learnt from, each
    with its weight there.  Raises ValueError where the fit keeps none."""
    if isinstance(fit, SigmaReported):
        evidence = fit.evidence
        if isinstance(evidence, CellsOfRows):
            if evidence.rows is None:
                raise ValueError(
                    "what the factors leave is told by the few rows of every pattern of missing responses, which this "
                    f"fit does not keep: it met {fit.n_patterns:,} patterns or more. Draw {BEFORE}."
                )
            return [(1.0, evidence.rows)]
        remedy = f"which a streamed fit does not keep. Draw {BEFORE}, or fit with engine='compress'"
        return [(1.0, evidence.rows_for(fit.estimated, "what the factors leave", streamed=remedy))]
    segments: tuple[Compressed, ...] = fit.compressed_segments  # type: ignore[attr-defined]
    if not segments:
        raise ValueError(
            "what the factors leave is told by the compressed rows of segments, which a fit that was opened from a "
            f"file, or whose rows miss responses, does not keep. Draw {BEFORE}."
        )
    sigmas = _sigmas(fit)
    place = -1 if segment is None else sigmas.labels.get_loc(segment)
    weights = kernel_weights(segment_times(None, len(segments)), sigmas.bandwidth)[place]
    return [(float(weights[t]), segments[t]) for t in np.flatnonzero(weights)]


# ---------------------------------------------------------------------------------------------- over segments


def over_segments(fit: Reported) -> xr.Dataset:
    """`common_share` and `idio_var` (segment, equation), `correlation` (segment,) the mean over pairs of equations."""
    if isinstance(fit, SigmaReported):
        raise ValueError(
            "this fit has one Sigma for all rows, so it has no course. Fit with covariance=TimeVarying(...), or draw "
            "errors()."
        )
    sigmas = _sigmas(fit)
    common = (sigmas.loadings**2).sum(axis=2)
    variances = common + sigmas.idio_var
    size, K = np.sqrt(variances), variances.shape[1]
    summed = (sigmas.loadings / size[:, :, None]).sum(axis=1)
    pairs = (summed**2).sum(axis=1) + (sigmas.idio_var / variances).sum(axis=1) - K
    correlation = pairs / (K * (K - 1)) if K > 1 else np.full(len(sigmas), np.nan)
    dims = ("segment", "equation")
    found = {"common_share": (dims, common / variances), "idio_var": (dims, sigmas.idio_var)}
    coords = {"segment": sigmas.labels, "equation": _index(fit, np.arange(K))}
    return xr.Dataset(found, coords).assign(correlation=("segment", correlation))
