"""Rows that are known by their cross-products alone, from SQL say."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from lrgls_dask.checks import shown
from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.compression.roots import root_of
from lrgls_dask.data.arrays import default_equations, default_regressors, incidence_columns
from lrgls_dask.data.assemble import Use, build_design
from lrgls_dask.data.labels import plain_labels
from lrgls_dask.design.design import Design
from lrgls_dask.rows.moments import Head

__all__ = ["compressed_of_moments"]

CONSTANTS = ("const", "Intercept", "intercept", "constant")  # what a column of ones is called
SAME = 1e-8  # relative, of sums that may have been rounded on their way
NO_ROOT = 1e-6  # relative, by which sums may differ from those of their root
LOST = 1e-10  # of sums of squares: what is left of them then has six digits
ROUNDING = 1e-13  # of sums of squares, which what is left of them after centring is no more than


def compressed_of_moments(
    xx: Any,
    xy: Any,
    yy: Any,
    n_obs: int,
    means: Any,
    *,
    incidence: Any,
    equations: Iterable[Hashable] | None,
    regressors: Iterable[Hashable] | None,
    constant: Hashable | None,
) -> Compressed:
    """The rows behind `CompressedSystem.from_moments`, which says what is given."""
    names = _labels("regressors", regressors, [("xx", xx, 0), ("xx", xx, 1), ("xy", xy, 0)])
    labels = _labels("equations", equations, [("yy", yy, 0), ("yy", yy, 1), ("xy", xy, 1)])
    XX, XY, YY = _numbers("xx", xx), _numbers("xy", xy), _numbers("yy", yy)
    XX, YY = (np.atleast_2d(each) for each in (XX, YY))
    XY = XY.reshape(-1, 1) if XY.ndim < 2 else XY
    q, K = XX.shape[0], YY.shape[0]
    for name, array, shape in (("xx", XX, (q, q)), ("xy", XY, (q, K)), ("yy", YY, (K, K))):
        if array.shape != shape:
            raise ValueError(
                f"{name} has shape {array.shape} but must be {shape}: xx is (q, q), xy (q, K) and yy (K, K) for q "
                "regressors and K equations. Give all sums of products."
            )
    names = default_regressors(q) if names is None else names
    labels = default_equations(K) if labels is None else labels
    for what, given, count in (("regressors", names, q), ("equations", labels, K)):
        if len(given) != count:
            raise ValueError(f"{what} has {len(given)} labels for {count}. Give one for each.")
    _check_count(n_obs)
    cross = np.block([[XX, XY], [XY.T, YY]])
    every = (*names, *labels)
    _check_products(cross, every)
    cross, mean = _centred(cross, int(n_obs), _means(means, every), _constant(constant, names, XX, int(n_obs)), every)
    head = Head(int(n_obs), float(n_obs), 0.0, mean, np.zeros(len(mean)))
    root = root_of(cross)
    _check_root(root, cross, every)
    return Compressed(_design(labels, names, incidence, q, K), head, root, "gram")


def _design(equations: tuple[Hashable, ...], names: tuple[Hashable, ...], incidence: Any, q: int, K: int) -> Design:
    if incidence is None:
        return build_design(equations, [q], [[Use(0, np.arange(q), names)]] * K, names)
    used = incidence_columns(incidence, q, K)
    return build_design(equations, [q], [[Use(0, c, tuple(names[i] for i in c.tolist()))] for c in used], names)


def _labels(
    what: str, given: Iterable[Hashable] | None, sides: list[tuple[str, Any, int]]
) -> tuple[Hashable, ...] | None:
    """Those given, else those of the frames, all of which must say the same; None where nothing says."""
    found = None if given is None else plain_labels(given, what)
    source = what
    for name, data, axis in sides:
        index: Any = None
        if isinstance(data, pd.DataFrame):
            index = data.axes[axis]
        elif isinstance(data, xr.DataArray) and axis < data.ndim:
            index = data.indexes.get(data.dims[axis])
        if index is None:
            continue
        side = ("the rows of " if axis == 0 else "the columns of ") + name
        theirs = plain_labels(index, side)
        if found is None:
            found, source = theirs, side
        elif theirs != found and len(theirs) == len(found):
            i = next(i for i, (a, b) in enumerate(zip(found, theirs, strict=True)) if a != b)
            raise ValueError(
                f"{side} have {theirs[i]!r} at position {i} where {source} have {found[i]!r}. Bring all into one order."
            )
    return found


def _numbers(name: str, data: Any) -> np.ndarray:
    try:
        array = np.asarray(data, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must hold sums of products, real numbers; {error}. Convert it to float64.") from error
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinite sums. Sum products of rows that miss nothing.")
    return array


def _check_count(n_obs: Any) -> None:
    whole = isinstance(n_obs, int | np.integer) or (isinstance(n_obs, float) and n_obs.is_integer())
    if not whole or isinstance(n_obs, bool) or n_obs < 1:
        raise ValueError(f"n_obs must be the number of rows that were summed, at least 1; got {n_obs!r}.")


def _check_products(cross: np.ndarray, names: tuple[Hashable, ...]) -> None:
    """Raise ValueError where no rows have these cross-products."""
    squares = cross.diagonal()
    if np.any(squares < 0):
        i = int(np.argmin(squares))
        raise ValueError(f"the sum of squares of {names[i]!r} is {squares[i]:.6g}, but must not be negative.")
    scale = np.sqrt(np.outer(squares, squares))
    apart = np.abs(cross - cross.T) > SAME * np.maximum(scale, np.finfo(float).tiny)
    if apart.any():
        i, j = (int(each[0]) for each in np.nonzero(apart))
        raise ValueError(
            f"the sum of products of {names[i]!r} and {names[j]!r} is {cross[i, j]:.6g} one way and {cross[j, i]:.6g} "
            "the other. Give both halves of xx and yy."
        )
    beyond = np.abs(cross) > (1.0 + SAME) * scale
    if beyond.any():
        i, j = (int(each[0]) for each in np.nonzero(beyond))
        raise ValueError(
            f"the sum of products of {names[i]!r} and {names[j]!r}, {cross[i, j]:.6g}, is larger than their sums of "
            f"squares, {squares[i]:.6g} and {squares[j]:.6g}, allow: they are not of the same rows. Sum over the rows "
            "that miss none of all columns."
        )


def _check_root(root: np.ndarray, cross: np.ndarray, names: tuple[Hashable, ...]) -> None:
    """Raise ValueError where a cross-product is that of no rows, so that its root is none."""
    scale = np.sqrt(np.maximum(cross.diagonal(), np.finfo(float).tiny))
    off = np.abs((root / scale).T @ (root / scale) - cross / np.outer(scale, scale))
    if off.max() > NO_ROOT:
        i, j = divmod(int(np.argmax(off)), len(names))
        raise ValueError(
            f"the sums of products are of no rows: they are not positive semidefinite, by those of {names[i]!r} and "
            f"{names[j]!r} among others. Sum over the rows that miss none of all columns, the same for every sum."
        )


def _means(means: Any, names: tuple[Hashable, ...]) -> np.ndarray | None:
    """(q + K,) of all columns."""
    if means is None:
        return None
    if isinstance(means, pd.Series | dict):
        known = dict(means)
        missing = [name for name in names if name not in known]
        if missing:
            raise ValueError(f"means lacks {shown(missing)}. Give the mean of every regressor and response.")
        means = [known[name] for name in names]
    array = _numbers("means", means)
    if array.shape != (len(names),):
        raise ValueError(
            f"means has shape {array.shape} but must be ({len(names)},): those of the regressors, then those of the "
            "responses."
        )
    return array


def _constant(given: Hashable | None, names: tuple[Hashable, ...], xx: np.ndarray, n_obs: int) -> int | None:
    """Which regressor is one in every row."""
    if given is not None:
        if given not in names:
            raise ValueError(f"constant {given!r} is no regressor; they are {shown(names)}.")
        i = names.index(given)
        if abs(xx[i, i] - n_obs) > SAME * n_obs:
            raise ValueError(
                f"constant {given!r} has the sum of squares {xx[i, i]:.6g} but there are {n_obs} rows: it is not one "
                "in every row. Give sums about zero, or the means of all columns."
            )
        return i
    found = [i for i, name in enumerate(names) if name in CONSTANTS and abs(xx[i, i] - n_obs) <= SAME * n_obs]
    return found[0] if found else None


def _centred(
    cross: np.ndarray, n_obs: int, means: np.ndarray | None, constant: int | None, names: tuple[Hashable, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The cross-product about the means, and the means."""
    if means is not None:
        return cross, means
    if constant is None:
        return cross, np.zeros(len(cross))
    mean = cross[constant] / n_obs
    squares = cross.diagonal()
    cross = cross - n_obs * np.outer(mean, mean)
    left = cross.diagonal()
    still = left <= ROUNDING * squares
    lost = (left <= LOST * squares) & ~still
    if lost.any():
        i = int(np.argmax(lost))
        raise ValueError(
            f"the sum of squares of {names[i]!r}, {squares[i]:.6g}, keeps too few digits of its variation, "
            f"{left[i]:.3g}. Give sums about the means, sum (x - mean)(x - mean)', and means=."
        )
    cross[still] = 0.0
    cross[:, still] = 0.0
    return cross, mean
