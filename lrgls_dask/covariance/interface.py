"""What a structure of Sigma is: a value, and how the value is found from the residual covariance S.

See the package docstring for how to write a new one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["LOOSE", "TIGHT", "Array", "Sigma", "SigmaStep", "Stored", "Structure"]

Array = NDArray[np.float64]
Stored = dict[str, tuple[NDArray[Any], tuple[str, ...]]]  # arrays by name, each with the names of its dims

# Gradients per row at which an iterative search for Sigma stops: at rounding, or off by about LOOSE^2 in nll, enough to
# tell optima apart.
LOOSE, TIGHT = 1e-4, 1e-12


class Sigma(Protocol):
    """A positive definite covariance of K equations: frozen, factored once at first use, free of labels and of Dask."""

    @property
    def kind(self) -> str:
        """The name it is saved under."""
        ...

    @property
    def n_equations(self) -> int:
        """K."""
        ...

    @property
    def rank(self) -> int:
        """Number of factors, 0 where there are none."""
        ...

    @property
    def n_parameters(self) -> int:
        """Free parameters."""
        ...

    @property
    def variances(self) -> Array:
        """diag(Sigma), (K,)."""
        ...

    @property
    def logdet(self) -> float:
        """log|Sigma|."""
        ...

    @property
    def precision_diagonal(self) -> Array:
        """diag(Sigma^-1), (K,)."""
        ...

    def matmul(self, B: Array) -> Array:
        """Sigma B, (K, m)."""
        ...

    def solve(self, rhs: Array) -> Array:
        """Sigma^-1 rhs, (K, m)."""
        ...

    def solve_rows(self, E: Array) -> Array:
        """E Sigma^-1, (n, K); what kernels call on every block."""
        ...

    def trace_solve(self, S: Array) -> float:
        """tr(Sigma^-1 S)."""
        ...

    def nll(self, S: Array) -> float:
        """1/2 [K log 2 pi + log|Sigma| + tr(Sigma^-1 S)]."""
        ...

    def dense(self) -> Array:
        """Sigma, (K, K)."""
        ...

    def precision(self) -> Array:
        """Sigma^-1, (K, K)."""
        ...

    def rescaled(self, scale: Array) -> Sigma:
        """diag(scale) Sigma diag(scale)."""
        ...

    def normalised(self) -> Sigma:
        """The same matrix with its parameters in their stated normalisation."""
        ...

    def on_floor(self, floor: Array) -> NDArray[np.bool_]:
        """(K,) where a variance of the structure's own sits on its floor (K,)."""
        ...

    def stored(self) -> Stored:
        """What must be saved, by name: array and the names of its dims."""
        ...


S_co = TypeVar("S_co", bound=Sigma, covariant=True)


@dataclass(frozen=True)
class SigmaStep(Generic[S_co]):
    """A Sigma update and how it came about.

    accept_t : step length taken, in (0, 1]; 0.0 says that nothing lowered the objective and `sigma` is the start.
    n_starts, n_agreed : starting points tried, and how many of them ended at this optimum.
    """

    sigma: S_co
    accept_t: float
    n_starts: int = 1
    n_agreed: int = 1


class Structure(Protocol):
    """How Sigma is found from S (K, K) in standard units, diag S near 1; floor (K,) is the least own variance."""

    @property
    def closed_form(self) -> bool:
        """`update` is the one optimum given S, whatever the start: sweeps are then a smooth map worth accelerating."""
        ...

    @property
    def bounded(self) -> bool:
        """The floor keeps the likelihood bounded, so that an optimum exists for any data."""
        ...

    @property
    def line_search(self) -> bool:
        """`update` is one step of a search, so that accept_t = 0 says it stalled, not that it is at the optimum."""
        ...

    @property
    def needs_matrix(self) -> bool:
        """Needs S as a matrix; otherwise S B and diag S are enough where S is too large to hold."""
        ...

    @property
    def rank(self) -> int:
        """Number of factors."""
        ...

    def start(self, S: Array, floor: Array) -> Any:
        """Some Sigma to write the first objective down with."""
        ...

    def candidates(self, S: Array, floor: Array, *, tol: float = TIGHT) -> list[SigmaStep[Any]]:
        """Distinct local optima for a first S, best first, each to a gradient of `tol`."""
        ...

    def update(self, S: Array, floor: Array, start: Any, *, tol: float = TIGHT) -> SigmaStep[Any]:
        """A Sigma whose penalised objective at S is not above the start's; the start may have fewer factors.

        tol : the gradient per row at which an iterative search stops; others pay no heed to it.
        """
        ...

    def penalty(self, sigma: Any) -> float:
        """What is added to nll per row."""
        ...

    def n_parameters(self, n_equations: int) -> int:
        """Free parameters of a Sigma of K equations."""
        ...
