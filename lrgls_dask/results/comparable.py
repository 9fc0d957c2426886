"""Whether the likelihoods of fits may be compared."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

import numpy as np

from lrgls_dask.design.penalties import penalises, said_of
from lrgls_dask.results.evidence import Evidence
from lrgls_dask.results.parts import Estimated, Run, Settings
from lrgls_dask.solve.record import Termination

__all__ = ["check_likelihood", "check_maximised", "check_nested", "differing_response"]

SAME = 1e-9  # of a response's root mean square: rounding of one mean taken in two ways


class Likelihood(Protocol):
    """What is looked at of a fit."""

    @property
    def estimated(self) -> Estimated: ...

    @property
    def settings(self) -> Settings: ...

    @property
    def run(self) -> Run: ...

    @property
    def rank(self) -> int: ...

    @property
    def evidence(self) -> Evidence: ...

    @property
    def n_obs(self) -> int: ...

    @property
    def n_cells(self) -> int: ...

    @property
    def n_parameters(self) -> float: ...


def check_maximised(how: Settings, rank: int, what: str) -> None:
    """Raise ValueError where estimates by these settings maximise no likelihood, penalised or not.

    Least squares, one step of GLS, a Sigma corrected for degrees of freedom and principal components are estimates of
    another kind: their likelihood lies below its maximum by an amount that differs from model to model. At a Sigma that
    is known the one step is the maximum, and that is not made with these options.
    """
    found = remedy = ""
    if how.algorithm == "fgls":
        found, remedy = "algorithm='fgls' takes one step towards it", "algorithm='als'"
    elif how.algorithm == "ols":
        found, remedy = "algorithm='ols' is least squares, which does not look for it", "algorithm='als'"
    elif how.debiased:
        found, remedy = f"debiased={how.debiased!r} moves Sigma away from it", "debiased=False"
    elif how.sigma_step == "pca" and rank > 0:
        found, remedy = "sigma_step='pca' does not look for it", "sigma_step='ml'"
    if found:
        raise ValueError(
            f"{what} compares likelihoods at their maxima, and this fit is at none: {found}. Fit every model that is "
            f"compared with {remedy}, or test coefficients with wald_test."
        )


def check_likelihood(fit: Likelihood, what: str) -> None:
    """Raise ValueError unless a fit has arrived at the maximum of the likelihood itself, without penalties."""
    check_unpenalised(fit.settings, what)
    check_maximised(fit.settings, fit.rank, what)
    if fit.run.termination is not Termination.CONVERGED:
        raise ValueError(
            f"{what} compares likelihoods at their maxima, and this fit did not arrive at its own: it ended with "
            f"{fit.run.termination.value!r} after {fit.run.n_sweeps} sweeps. Fit again with a larger max_sweeps."
        )


def check_unpenalised(fit: Settings, what: str) -> None:
    """Raise ValueError for penalties."""
    if fit.l1 > 0:
        raise ValueError(
            f"{what} compares maximised likelihoods; this fit's loadings are penalised (l1 = {fit.l1:g}). Compare aic "
            "or bic, or fit with l1=0."
        )
    if penalises(fit.lam_B) or fit.lam_F > 0:
        raise ValueError(
            f"{what} compares maximised likelihoods; this fit is penalised (lam_B = {said_of(fit.lam_B)}, lam_F = "
            f"{fit.lam_F:g}). Fit again with both 0."
        )


def check_nested(small: Likelihood, large: Likelihood) -> None:
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
    one, other = (fit.estimated.design.equations for fit in (small, large))
    if set(one) != set(other):
        only = sorted(map(str, set(one) ^ set(other)))
        raise ValueError(f"lr_test compares fits of the same equations; only one of the two has {', '.join(only[:5])}.")
    if small.n_parameters == large.n_parameters:
        raise ValueError(
            f"lr_test compares nested models; both have {small.n_parameters} parameters. Compare their aic or bic."
        )
    _check_same_responses(small, large)


def _check_same_responses(small: Likelihood, large: Likelihood) -> None:
    """By their means, where both fits keep their rows."""
    found = differing_response(small, large)
    if found is not None:
        name, one, other = found
        raise ValueError(
            f"lr_test compares fits of the same data; the mean of equation {name!r} is {one:.10g} in "
            f"one and {other:.10g} in the other. Fit both models to the same system."
        )


def differing_response(one: Likelihood, other: Likelihood) -> tuple[Hashable, float, float] | None:
    """An equation that both fits have, whose responses have another mean, and the two; None where there is none, or
    where it is not known."""
    known, others = (fit.evidence.responses(fit.estimated.design) for fit in (one, other))
    if known is None or others is None:
        return None
    place = {name: j for j, name in enumerate(other.estimated.design.equations)}
    both = [(j, place[name]) for j, name in enumerate(one.estimated.design.equations) if name in place]
    if not both:
        return None
    mine, theirs = np.array(both).T
    means, size = known[0][mine], known[1][mine]
    differs = np.abs(others[0][theirs] - means) > SAME * size
    if not differs.any():
        return None
    i = int(np.argmax(differs))
    return one.estimated.design.equations[mine[i]], float(means[i]), float(others[0][theirs[i]])
