"""Whether the likelihoods of fits may be compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lrgls_dask.results.assessed import Assessed

__all__ = ["check_likelihood", "check_nested"]

SAME = 1e-9  # of a response's root mean square: rounding of one mean taken in two ways


def check_likelihood(fit: Assessed, what: str) -> None:
    """Raise ValueError unless the fit maximises the likelihood itself."""
    if fit.l1 > 0:
        raise ValueError(
            f"{what} compares maximised likelihoods; this fit's loadings are penalised (l1 = {fit.l1:g}). Compare aic "
            "or bic, or fit with l1=0."
        )
    if fit.lam_B > 0 or fit.lam_F > 0:
        raise ValueError(
            f"{what} compares maximised likelihoods; this fit is penalised (lam_B = {fit.lam_B:g}, lam_F = "
            f"{fit.lam_F:g}). Fit again with both 0."
        )


def check_nested(small: Assessed, large: Assessed) -> None:
    """Raise ValueError where two fits cannot be nested models of the same data."""
    for fit in (small, large):
        check_likelihood(fit, "lr_test")
    if small.n_obs != large.n_obs:
        raise ValueError(
            f"lr_test compares fits of the same rows; these have {small.n_obs:,} and {large.n_obs:,} rows. "
            "Fit both models to the same system."
        )
    if small.n_cells != large.n_cells:
        raise ValueError(
            f"lr_test compares fits of the same responses; these have {small.n_cells:,} and {large.n_cells:,}. "
            "Fit both models to the same system with the same missing=."
        )
    if set(small.equations) != set(large.equations):
        only = sorted(map(str, set(small.equations) ^ set(large.equations)))
        raise ValueError(f"lr_test compares fits of the same equations; only one of the two has {', '.join(only[:5])}.")
    if small.n_parameters == large.n_parameters:
        raise ValueError(
            f"lr_test compares nested models; both have {small.n_parameters} parameters. Compare their aic or bic."
        )
    _check_same_responses(small, large)


def _check_same_responses(small: Assessed, large: Assessed) -> None:
    """By their means, where both fits keep their rows."""
    if small.compressed is None or large.compressed is None:
        return
    one, other = (fit.compressed.head.mean[fit.n_regressors :] for fit in (small, large) if fit.compressed is not None)
    size = np.sqrt(np.mean(small.compressed.root[:, small.n_regressors :] ** 2, axis=0)) + np.abs(one)
    places = [large.equations.index(name) for name in small.equations]
    differs = np.abs(other[places] - one) > SAME * size
    if differs.any():
        j = int(np.argmax(differs))
        raise ValueError(
            f"lr_test compares fits of the same data; the mean of equation {small.equations[j]!r} is {one[j]:.10g} in "
            f"one and {other[places[j]]:.10g} in the other. Fit both models to the same system."
        )
