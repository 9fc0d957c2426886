"""Weights of lags and the automatic bandwidth of heteroskedasticity- and autocorrelation-consistent covariances."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

__all__ = ["ALL_LAGS", "HacKernel", "bandwidth_of", "lag_weights", "pilot_lags"]

HacKernel = Literal["bartlett", "parzen", "qs"]

# characteristic exponent q, constant c, exponent of T / 100 in the number of pilot lags (Newey and West 1994)
_RULES: dict[str, tuple[int, float, float]] = {
    "bartlett": (1, 1.1447, 2 / 9),
    "parzen": (2, 2.6614, 4 / 25),
    "qs": (2, 1.3221, 2 / 25),
}
ALL_LAGS = 5_000  # rows up to which the quadratic spectral kernel takes every lag
QS_ENVELOPE = 1e-4  # beyond, it is cut where no later weight is larger


def lag_weights(kernel: HacKernel, bandwidth: float, n_rows: int) -> np.ndarray:
    """(L + 1,) weights of lags 0..L; that of lag 0 is 1.

    With m the bandwidth, integer part of it for the first two: Bartlett 1 - l / (m + 1) and Parzen up to lag m;
    quadratic spectral 3 / z^2 (sin z / z - cos z), z = 6 pi l / (5 m), over all lags of up to 5,000 rows and of longer
    data to lag 46 m, where all later weights are below 1e-4.  bandwidth 0 leaves lag 0 alone.
    Source: Newey and West (1987), Gallant (1987), Andrews (1991).
    """
    if kernel == "qs":
        return _quadratic_spectral(bandwidth, n_rows)
    z = np.arange(int(bandwidth) + 1) / (int(bandwidth) + 1)
    if kernel == "bartlett":
        return np.asarray(1 - z)
    return np.where(z <= 0.5, 1 - 6 * z**2 + 6 * z**3, 2 * (1 - z) ** 3)


def _quadratic_spectral(bandwidth: float, n_rows: int) -> np.ndarray:
    if bandwidth == 0:
        return np.ones(1)
    n_lags = n_rows - 1
    if n_rows > ALL_LAGS:
        # |w| <= 3 / z^2 (1 + 1 / z), and 1 / z is below 1 % there
        n_lags = min(n_lags, math.ceil(5 * bandwidth / (6 * math.pi) * math.sqrt(3.03 / QS_ENVELOPE)))
    z = 6 * np.pi * np.arange(1, n_lags + 1) / (5 * bandwidth)
    return np.concatenate([[1.0], 3 / z**2 * (np.sin(z) / z - np.cos(z))])


def pilot_lags(kernel: HacKernel, n_rows: int) -> int:
    """Autocovariances that the automatic bandwidth looks at, ceil(4 (T / 100)^a).

    Raises ValueError for too few rows to have so many.
    """
    n_lags = math.ceil(4 * (n_rows / 100) ** _RULES[kernel][2])
    if n_lags >= n_rows - 1:
        raise ValueError(
            f"the automatic bandwidth of the {kernel!r} kernel looks at {n_lags} lags, which {n_rows} rows do not "
            "have. Give bandwidth=."
        )
    return n_lags


def bandwidth_of(kernel: HacKernel, autocovariances: np.ndarray, n_rows: int) -> int:
    """The bandwidth of Newey and West (1994) from autocovariances (pilot lags + 1,) of one series of n_rows.

    The series is the sum of all gradients, each divided by its standard deviation.
    Raises ValueError where the long-run variance is zero.
    """
    q, constant, _ = _RULES[kernel]
    lags = np.arange(1, len(autocovariances))
    long_run = autocovariances[0] + 2 * autocovariances[1:].sum()
    weighted = 2 * float(np.sum(autocovariances[1:] * lags**q))
    rate = 1 / (2 * q + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        wanted = constant * np.power(np.square(weighted / long_run), rate) * n_rows**rate
    if not np.isfinite(wanted):
        raise ValueError(
            f"the automatic bandwidth of the {kernel!r} kernel does not exist: the scores have a long-run variance of "
            f"{long_run:g}. Give bandwidth=."
        )
    return min(math.ceil(float(wanted)), n_rows - 1)
