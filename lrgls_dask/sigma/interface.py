"""What a structure of Sigma is: a value, and how the value is found from the residual covariance S.

See the package docstring for how to write a new one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["LOG_2PI", "LOOSE", "TIGHT", "Array", "Sigma", "SigmaStep", "Stored", "Structure"]

Array = NDArray[np.float64]
Stored = dict[str, tuple[NDArray[Any], tuple[str, ...]]]  # arrays by name, each with the names of its dims

LOG_2PI = math.log(2.0 * math.pi)
# Gradients per row at which an iterative search for Sigma stops: at rounding, or off by about LOOSE^2 in nll, enough to
# tell optima apart.
LOOSE, TIGHT = 1e-4, 1e-12


class Sigma(ABC):
    """A positive definite covariance of K equations: frozen, factored once at first use, free of labels and of Dask.

    A kind of Sigma gives what is abstract here and inherits what follows from it.
    """

    saved: ClassVar[tuple[str, ...]]  # the names in `stored()`, in the order in which its maker takes the arrays

    @property
    @abstractmethod
    def kind(self) -> str:
        """The name it is saved under."""

    @property
    @abstractmethod
    def n_equations(self) -> int:
        """K."""

    @property
    @abstractmethod
    def rank(self) -> int:
        """Number of factors, 0 where there are none."""

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """Free parameters."""

    @property
    @abstractmethod
    def variances(self) -> Array:
        """diag(Sigma), (K,)."""

    @property
    @abstractmethod
    def logdet(self) -> float:
        """log|Sigma|."""

    @property
    @abstractmethod
    def precision_diagonal(self) -> Array:
        """diag(Sigma^-1), (K,)."""

    @abstractmethod
    def matmul(self, B: Array) -> Array:
        """Sigma B, (K, m) to (K, m)."""

    @abstractmethod
    def solve_rows(self, E: Array) -> Array:
        """E Sigma^-1, (n, K) to (n, K), rows in any number; what kernels call on every block."""

    @abstractmethod
    def dense(self) -> Array:
        """Sigma, (K, K)."""

    @abstractmethod
    def rescaled(self, scale: Array) -> Self:
        """diag(scale) Sigma diag(scale): the same covariance after a change of units; scale (K,), no zeros."""

    @abstractmethod
    def normalised(self) -> Sigma:
        """The same matrix with its parameters in their stated normalisation."""

    @abstractmethod
    def on_floor(self, floor: Array | float) -> NDArray[np.bool_]:
        """(K,) where a variance of an equation's own sits on its floor, (K,) or one for all."""

    @abstractmethod
    def stored(self) -> Stored:
        """What must be saved, by name: array and the names of its dims."""

    # ---------------------------------------------------------------------------------------- what follows

    @property
    def factor_labels(self) -> list[int] | list[str]:
        """(rank,) a label for each factor: its number unless it has a name."""
        return list(range(1, self.rank + 1))

    def solve(self, rhs: Array) -> Array:
        """Sigma^-1 rhs, (K, m) to (K, m).  Costs what `solve_rows` does with m rows."""
        return self.solve_rows(rhs.T).T

    def trace_solve(self, S: Array) -> float:
        """tr(Sigma^-1 S) for a dense symmetric S (K, K).  Costs what `solve_rows` does with K rows."""
        return float(np.trace(self.solve_rows(S)))

    def nll(self, S: Array) -> float:
        """Negative log-likelihood of one row, 1/2 [K log 2 pi + log|Sigma| + tr(Sigma^-1 S)], S (K, K) = R'R / N."""
        return 0.5 * (self.n_equations * LOG_2PI + self.logdet + self.trace_solve(S))

    def precision(self) -> Array:
        """Sigma^-1, (K, K), symmetric to the last bit.  Costs what `solve_rows` does with K rows."""
        out = self.solve_rows(np.eye(self.n_equations))
        return np.asarray(0.5 * (out + out.T))


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
