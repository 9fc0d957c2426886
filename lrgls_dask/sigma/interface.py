"""What a kind of Sigma is: a value, a structure that finds the value from S, and the option by which users ask for it.

See the package docstring for how to write a new one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, Literal, NoReturn, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from lrgls_dask.sigma.conditional import Conditional, DenseConditional
from lrgls_dask.sigma.of_rows import Moments, OfRows
from lrgls_dask.sigma.shown import DenseRows, Rows
from lrgls_dask.sigma.tangents import Tangents

__all__ = [
    "ANY_MATRICES",
    "LOG_2PI",
    "LOOSE",
    "TIGHT",
    "Array",
    "Description",
    "Equations",
    "FactorStructure",
    "Kind",
    "Pattern",
    "Settings",
    "Sigma",
    "SigmaOption",
    "SigmaStep",
    "Stored",
    "Structure",
]

Array = NDArray[np.float64]
Stored = dict[str, tuple[NDArray[Any], tuple[str, ...]]]  # arrays by name, each with the names of its dims

LOG_2PI = math.log(2.0 * math.pi)
# Gradients per row at which an iterative search for Sigma stops: at rounding, or off by about LOOSE^2 in nll, enough to
# tell optima apart.
LOOSE, TIGHT = 1e-4, 1e-12
ANY_MATRICES = 20  # of a structure that does not say what it takes, see `Structure.matrices`


class Pattern(Protocol):
    """Which wide loadings (K, m) may differ from zero.

    everywhere : all.  free : (K, m).  columns : (K, s) the s factors that touch each equation.  together : columns of
    the factors with the very same equations, which a rotation among them leaves alone.
    """

    @property
    def everywhere(self) -> bool: ...
    @property
    def free(self) -> NDArray[np.bool_]: ...
    @property
    def columns(self) -> NDArray[np.intp]: ...
    @property
    def together(self) -> tuple[NDArray[np.intp], ...]: ...


@dataclass(frozen=True)
class Description:
    """What summaries and tests say of a Sigma. formula : of what it is made.  factors : how many, and of what.

    null : what is claimed of it against any other Sigma.
    penalty : of its loadings, to be formatted with the penalties of the fit by their names.
    """

    formula: str
    factors: str
    null: str
    penalty: str = "lam_F = {lam_F:g}"


class Sigma(ABC):
    """A positive definite covariance of K equations: frozen, factored once at first use, free of labels and of Dask.

    A kind of Sigma gives what is abstract here and inherits what follows from it. What it does not answer raises
    ValueError with its name and a remedy.
    """

    is_wide: ClassVar[bool] = False  # whether `widened` and `pattern` answer
    kinds: ClassVar[tuple[str, ...]]  # the names it may be saved under
    saved: ClassVar[tuple[str, ...]]  # the names in `stored()`, in the order in which `from_arrays` takes the arrays

    @classmethod
    def from_arrays(cls, *arrays: Any) -> Self:
        """From the arrays that `stored` names."""
        return cls(*arrays)

    @property
    @abstractmethod
    def kind(self) -> str:
        """The name it is saved under, one of `kinds`."""

    @abstractmethod
    def describe(self) -> Description:
        """What a summary says of it."""

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

    # ---------------------------------------------------------------------------------------- what some have

    def loadings(self) -> Array:
        """F (K, rank), the zeros of loadings included, with Sigma = F F' + own part.  Raises without factors."""
        self._lacks("loadings", "Use sigma() for the error covariance")

    def own_part(self) -> Array:
        """Sigma - F F', (K, K), what is the equations' own.  Raises where nothing is."""
        self._lacks("part of the equations' own", "Use sigma() for the error covariance")

    def own_variances(self) -> Array:
        """(K,) the diagonal of the own part; (0,) where nothing is an equation's own."""
        return np.zeros(0)

    def widened(self) -> Any:
        """The same matrix as a `LowRank`, all factors side by side.  Raises unless it is factors and variances."""
        self._lacks("form F F' + diag(d), which rounds of EM work in", "Use covariance='lowrank'")

    def pattern(self) -> Pattern:
        """Which of the loadings of `widened` may differ from zero; raises as it does."""
        self._lacks("form F F' + diag(d), which rounds of EM work in", "Use covariance='lowrank'")

    def factor_score_weights(self, method: str) -> Array:
        """(K, rank) A such that the scores of a residual row r are r A; see `woodbury.Factors`.  Raises at rank 0."""
        raise ValueError("the fit has no factors, so there are no scores. Fit with rank >= 1.")

    def tangents(self, held: NDArray[np.bool_]) -> Tangents:
        """The free parameters, as directions in which Sigma can move: what information of the likelihood is made of.

        held : (K,) equations whose own part is on its floor, and stays.  Raises where a kind does not say them.
        """
        self._lacks("stated parameters to take derivatives in", "Use classical or robust standard errors, or bootstrap")

    def normalisation(self, tangents: Tangents) -> Array:
        """(g, m) derivatives of what the stated normalisation of the loadings sets to zero, for errors of loadings."""
        self._lacks("loadings with standard errors", "Use those of sigma(), or bootstrap")

    def warnings(self) -> list[str]:
        """What users should be told of it once it is fitted."""
        return []

    def _lacks(self, what: str, remedy: str) -> NoReturn:
        raise ValueError(f"covariance={self.kind!r} has no {what}. {remedy}.")

    # ---------------------------------------------------------------------------------------- what follows

    def conditional(self, shown: NDArray[np.bool_]) -> Conditional:
        """The errors of the other equations given those of `shown` (u, K), for each of u patterns."""
        return DenseConditional(self.dense(), shown)

    def rows(self, observed: Array) -> Rows:
        """What rows that show only some equations say; observed (n, K), one or zero."""
        return DenseRows(self._held_precision, self.logdet, observed)

    @cached_property
    def _held_precision(self) -> Array:
        return self.precision()

    @property
    def conditional_numbers(self) -> int:
        """How many numbers `conditional` holds for one pattern, about."""
        return 3 * self.n_equations**2

    @property
    def factor_labels(self) -> list[int] | list[str]:
        """(rank,) a label for each factor: its number unless it has a name."""
        return list(range(1, self.rank + 1))

    def solve(self, rhs: Array) -> Array:
        """Sigma^-1 rhs, (K, m) to (K, m).  Costs what `solve_rows` does with m rows."""
        return self.solve_rows(rhs.T).T

    def trace_solve(self, S: Moments) -> float:
        """tr(Sigma^-1 S), S (K, K).  Costs what `solve_rows` does with K rows, or with those that S is made of."""
        if isinstance(S, OfRows):
            return S.trace(self.solve_rows(S.rows))
        return float(np.trace(self.solve_rows(S)))

    def nll(self, S: Moments) -> float:
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


class Structure(ABC):
    """How Sigma is found from S (K, K) in standard units, diag S near 1; floor (K,) is the least own variance.

    rank : number of factors.
    closed_form : `update` is the one optimum given S, whatever the start: sweeps are then a smooth map worth
        accelerating.
    bounded : the floor keeps the likelihood bounded, so that an optimum exists for any data.
    line_search : `update` is one step of a search, so that accept_t = 0 says it stalled, not that it is at the optimum.
    needs_matrix : needs S as a matrix; otherwise S B and diag S are enough where S is too large to hold.
    takes_rows : finds Sigma also from `OfRows`, whose products are enough.
    fixed : Sigma is given: there is nothing to find, and one GLS step ends the fit.
    by_equation : it is a `FactorStructure`.
    lam_F, l1 : lam_F / 2 ||F||^2 and l1 sum |F_ij| are what `penalty` adds.
    """

    rank: int
    closed_form: bool = False
    bounded: bool = True
    line_search: bool = False
    needs_matrix: bool = True
    takes_rows: bool = False
    fixed: bool = False
    by_equation: bool = False
    lam_F: float = 0.0
    l1: float = 0.0

    @abstractmethod
    def start(self, S: Array, floor: Array) -> Any:
        """Some Sigma to write the first objective down with."""

    @abstractmethod
    def candidates(self, S: Array, floor: Array, *, tol: float = TIGHT) -> list[SigmaStep[Any]]:
        """Distinct local optima for a first S, best first, each to a gradient of `tol`."""

    @abstractmethod
    def update(self, S: Array, floor: Array, start: Any, *, tol: float = TIGHT) -> SigmaStep[Any]:
        """A Sigma whose penalised objective at S is not above the start's; the start may have fewer factors.

        tol : the gradient per row at which an iterative search stops; others pay no heed to it.
        """

    @abstractmethod
    def n_parameters(self, n_equations: int) -> int:
        """Free parameters of a Sigma of K equations."""

    def matrices(self, n_equations: int) -> int:
        """How many numbers of the size of S the search for a Sigma of K equations, and what it finds, take beside S, in
        K^2: for plans."""
        return ANY_MATRICES

    def penalty(self, sigma: Any) -> float:
        """What is added to nll per row."""
        return 0.0

    def in_units(self, unit: Array) -> Structure:
        """The same structure for responses divided by unit (K,): itself, unless it holds numbers in their units.

        As the option makes it, it is in the user's units; the loop works in those of the data's residuals.
        """
        return self

    def pairs_asked_for(self, n_equations: int) -> NDArray[np.bool_]:
        """(K, K) pairs whose covariance only rows that show both tell: none, where factors tell it too."""
        return np.zeros((n_equations, n_equations), dtype=bool)

    def by_likelihood(self) -> Structure:
        """The same found by maximum likelihood: itself, unless its step is another."""
        return self

    def by_rows(self) -> FactorStructure:
        """Itself, if the loadings can be found equation by equation given the factors; else raises ValueError."""
        raise ValueError(
            f"algorithm='em' finds loadings equation by equation given the factors, which {type(self).__name__} does "
            "not. Use covariance='lowrank' or GroupedLowRank(...), or algorithm='als'."
        )

    def chosen(
        self, S: Array, floor: Array, *, n_obs: int, n_coefficients: int
    ) -> tuple[Structure, list[dict[str, Any]]]:
        """The one of its family that S favours, and what to say of all that were tried, each by name.

        For options with `by_bic`. n_coefficients : free ones, to count in BIC.
        """
        raise ValueError(f"{type(self).__name__} has nothing for the data to choose.")


class FactorStructure(Structure):
    """One whose loadings are found equation by equation given the factors: EM works with it."""

    by_equation = True

    def by_rows(self) -> FactorStructure:
        """Itself."""
        return self

    @abstractmethod
    def loadings(self, n_equations: int) -> Pattern:
        """Which loadings may differ from zero."""

    @abstractmethod
    def value(self, wide: Any) -> Any:
        """A `LowRank` whose loadings stand side by side, zeros where they must be, as a Sigma of this structure."""


# ---------------------------------------------------------------------------------------------- registration


class Equations(Protocol):
    """What an option may know of the equations: labels, and coordinates along them by name."""

    @property
    def equations(self) -> tuple[Hashable, ...]: ...
    @property
    def equation_coords(self) -> Mapping[Any, Any]: ...
    @property
    def n_equations(self) -> int: ...


class SigmaOption(ABC):
    """What users may give as `covariance`: a frozen object, checked on construction.

    by_rows : whether its structure is a `FactorStructure`.  by_bic : whether the data choose among its structures.
    takes : options of LowRankGLS that it goes with only at some values: those, and what to do otherwise.
    """

    by_rows: ClassVar[bool] = False
    takes: ClassVar[Mapping[str, tuple[tuple[Any, ...], str]]] = {}

    @property
    def by_bic(self) -> bool:
        """Whether the data choose what an option leaves open."""
        return False

    @abstractmethod
    def structure(self, design: Equations) -> Structure:
        """For these equations.  Raises ValueError where it does not suit them."""

    def of_some(self, design: Equations, positions: Sequence[int]) -> SigmaOption:
        """What is given equation by equation, of those at these positions; itself where nothing is."""
        return self


@dataclass(frozen=True)
class Settings:
    """How the Sigma of a fit was found, as far as it does not show: options of `LowRankGLS` by their names."""

    sigma_step: Literal["ml", "pca"] = "ml"
    lam_F: float = 0.0
    l1: float = 0.0


@dataclass(frozen=True)
class Kind:
    """A kind of Sigma. values : its classes.  structure : what finds the like of a value, in the units of the value."""

    values: tuple[type[Sigma], ...]
    structure: Callable[[Any, Settings], Structure]
