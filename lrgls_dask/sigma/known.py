"""Sigma as it is given: generalised least squares at known errors, with nothing of Sigma to find.

The coefficients are one GLS step, b = (X' Sigma^-1 X)^-1 X' Sigma^-1 y, and (X' Sigma^-1 X)^-1 is their covariance, not
an estimate of it (Aitken 1935).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf

from lrgls_dask.checks import along_equations
from lrgls_dask.sigma.full import SINGULAR, FullSigma
from lrgls_dask.sigma.interface import (
    TIGHT,
    Array,
    Description,
    Equations,
    Kind,
    Sigma,
    SigmaOption,
    SigmaStep,
    Structure,
)
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.tangents import Tangents

__all__ = ["KNOWN", "Known", "KnownFactors", "KnownSigma", "KnownStructure"]

# Two entries that should be one may differ by rounding, relative to the standard deviations.
SYMMETRIC = 1e-8
ONE_STEP = "A known Sigma makes the fit one GLS step: leave {} out"


@dataclass(frozen=True, eq=False, repr=False)
class Known(SigmaOption):
    """Generalised least squares at a given Sigma, in the units of the data: no part of it is estimated.

    sigma : (K, K), symmetric and positive definite; or
    loadings, idio_var : (K, k) and (K,) of Sigma = loadings loadings' + diag(idio_var), for any K.
        pandas and xarray objects, such as `fit.sigma()` or `fit.loadings` of another fit, are matched to the equations
        by their labels, plain arrays by position.

    The coefficients are one GLS step to full precision; standard errors are exact, (X' Sigma^-1 X)^-1, and Sigma counts
    no parameters. Raises TypeError or ValueError for what is no array of these shapes; `fit` for what is no covariance
    of its equations.
    """

    sigma: Any = None
    loadings: Any = None
    idio_var: Any = None
    takes: ClassVar[Mapping[str, tuple[tuple[Any, ...], str]]] = {
        "algorithm": (("als",), ONE_STEP.format("algorithm")),
        "debiased": ((False,), ONE_STEP.format("debiased")),
    }

    def __post_init__(self) -> None:
        whole, factors = self.sigma is not None, self.loadings is not None and self.idio_var is not None
        if whole == factors or (whole and (self.loadings is not None or self.idio_var is not None)):
            raise TypeError(
                "Known takes either sigma, or loadings and idio_var. Give Known(sigma) or both of the others."
            )
        if whole:
            _numbers("sigma", self.sigma, 2)
        else:
            _numbers("loadings", self.loadings, 2)
            _numbers("idio_var", self.idio_var, 1)

    def __repr__(self) -> str:
        given = "sigma" if self.sigma is not None else "loadings, idio_var"
        return f"Known({given})"

    def of_some(self, design: Equations, positions: Sequence[int]) -> Known:
        """The covariance of the equations at these positions."""
        names, at = design.equations, np.asarray(positions)
        if self.sigma is not None:
            return Known(along_equations("sigma", self.sigma, names, axes=2)[np.ix_(at, at)])
        F, d = (along_equations(each, getattr(self, each), names, axes=1)[at] for each in ("loadings", "idio_var"))
        return Known(loadings=F, idio_var=d)

    def structure(self, design: Equations) -> KnownStructure:
        """For the equations of `design`, in the units of the data."""
        names = design.equations
        if self.sigma is not None:
            if np.ndim(self.sigma) == 2 and len(set(np.shape(self.sigma))) > 1:
                raise ValueError(f"sigma must be square, (K, K); got shape {np.shape(self.sigma)}.")
            return KnownStructure(KnownSigma(_covariance(along_equations("sigma", self.sigma, names, axes=2), names)))
        F = along_equations("loadings", self.loadings, names, axes=1)
        d = along_equations("idio_var", self.idio_var, names, axes=1)
        if F.shape[1] > F.shape[0]:
            raise ValueError(f"loadings must be (K, k) with k <= K; got shape {F.shape}. Give sigma instead.")
        _refuse_where("loadings", ~np.isfinite(F).all(axis=1), names, "is not finite", "Drop the equation")
        fine = np.isfinite(d) & (d > 0)
        _refuse_where("idio_var", ~fine, names, "is not positive and finite", "Give every equation a variance")
        return KnownStructure(KnownFactors(F, d))


def _numbers(name: str, values: Any, ndim: int) -> None:
    """Raise TypeError or ValueError for what is no array of numbers with so many axes."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must hold numbers; got {type(values).__name__}.") from None
    if array.ndim != ndim:
        shape = "(K, K)" if name == "sigma" else "(K, k)" if ndim == 2 else "(K,)"
        raise ValueError(f"{name} must be {shape}; got shape {array.shape}.")


def _covariance(matrix: Array, names: Sequence[Hashable]) -> Array:
    """`matrix` (K, K), symmetric to the last bit. Raises ValueError, by equation, for what is no covariance."""
    _refuse_where("sigma", np.logical_not(np.isfinite(matrix).all(axis=1)), names, "is not finite", "Drop the equation")
    _refuse_where(
        "sigma", np.less_equal(matrix.diagonal(), 0.0), names, "has no positive variance", "Give a covariance"
    )
    sd = np.sqrt(matrix.diagonal())
    correlation = matrix / sd[:, None] / sd
    uneven = np.abs(correlation - correlation.T)
    if uneven.max() > SYMMETRIC:
        i, j = divmod(int(uneven.argmax()), len(uneven))
        raise ValueError(
            f"sigma must be symmetric, but ({names[i]!r}, {names[j]!r}) is {matrix[i, j]:.6g} and ({names[j]!r}, "
            f"{names[i]!r}) is {matrix[j, i]:.6g}. Give (sigma + sigma') / 2 if both mean the same."
        )
    factor, failed = dpotrf(0.5 * (correlation + correlation.T), lower=1)
    pivots = factor.diagonal()[: failed - 1 if failed else None] ** 2
    singular = np.flatnonzero(pivots < SINGULAR)
    if failed or singular.size:
        j = int(singular[0]) if singular.size else failed - 1
        raise ValueError(
            f"sigma must be positive definite, but the error of equation {names[j]!r} has no variance given those of "
            "the equations before it. Drop it, or give loadings and idio_var."
        )
    return np.asarray(0.5 * (matrix + matrix.T))


def _refuse_where(name: str, bad: NDArray[np.bool_], names: Sequence[Hashable], what: str, remedy: str) -> None:
    if bad.any():
        raise ValueError(f"{name} of equation {names[int(bad.argmax())]!r} {what}. {remedy}.")


class _Given(Sigma):
    """What follows of a Sigma from its being given: nothing of it is a parameter, has a floor or a normalisation."""

    @property
    def n_parameters(self) -> int:
        """0."""
        return 0

    def on_floor(self, floor: Array | float) -> NDArray[np.bool_]:
        """(K,) false."""
        return np.zeros(self.n_equations, dtype=bool)

    def tangents(self, held: NDArray[np.bool_]) -> Tangents:
        """None."""
        none = np.zeros(0, dtype=np.intp)
        return Tangents.of_entries(self.n_equations, none, none)

    def normalisation(self, tangents: Tangents) -> Array:
        """Raises ValueError: what is given has no standard errors."""
        self._lacks("standard errors of its loadings, which are as given", "Use cov() for those of the coefficients")


class KnownSigma(_Given, FullSigma):
    """A given matrix (K, K)."""

    kinds: ClassVar[tuple[str, ...]] = ("known",)

    @property
    def kind(self) -> str:
        return "known"

    def describe(self) -> Description:
        return Description("Sigma known", "0", "Sigma is as given")


class KnownFactors(_Given, LowRank):
    """Given loadings F (K, k) and variances d (K,); the loadings stay as they were given."""

    kinds: ClassVar[tuple[str, ...]] = ("known-factors",)

    @property
    def kind(self) -> str:
        return "known-factors"

    def describe(self) -> Description:
        return Description("Sigma = F F' + diag(d) known", f"{self.rank}", "Sigma is as given")

    def normalised(self) -> KnownFactors:
        """Itself."""
        return self


@dataclass(frozen=True, eq=False)
class KnownStructure(Structure):
    """Sigma is `sigma`, in the units that `in_units` says: at first the user's."""

    sigma: Sigma

    closed_form = True
    fixed = True

    @cached_property
    def rank(self) -> int:  # type: ignore[override]  # nothing writes to a frozen structure
        return self.sigma.rank

    def start(self, S: Array, floor: Array) -> Sigma:
        """The given Sigma."""
        return self.sigma

    def candidates(self, S: Array, floor: Array, *, tol: float = TIGHT) -> list[SigmaStep[Sigma]]:
        """The given Sigma."""
        return [SigmaStep(self.sigma, accept_t=1.0)]

    def update(self, S: Array, floor: Array, start: Sigma, *, tol: float = TIGHT) -> SigmaStep[Sigma]:
        """The given Sigma."""
        return SigmaStep(self.sigma, accept_t=1.0)

    def matrices(self, n_equations: int) -> int:
        """A matrix, in the user's units and in others, its factor and its inverse, and products with S."""
        return 0 if self.sigma.is_wide else 6

    def n_parameters(self, n_equations: int) -> int:
        """0."""
        return 0

    def in_units(self, unit: Array) -> KnownStructure:
        """The same for responses divided by unit (K,)."""
        return KnownStructure(self.sigma.rescaled(1.0 / unit))


KNOWN = Kind((KnownSigma, KnownFactors), lambda sigma, how: KnownStructure(sigma))
