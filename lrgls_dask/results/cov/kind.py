"""What a kind of covariance of the coefficients is, and what it may ask of a fit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from lrgls_dask.design.design import Design
from lrgls_dask.inference.bread_of_rows import BreadOfRows
from lrgls_dask.inference.structured import StructuredCov
from lrgls_dask.rows.memory import MAX_COEFFICIENTS
from lrgls_dask.system import System

__all__ = ["CovKind", "CovSource", "CovValues", "check_formed", "cut", "formed"]


@dataclass(frozen=True, eq=False)
class CovValues:
    """values : (P, P), formed or not, or (p_j, p_j) of one equation.  note : how they were made, beyond the kind.

    n_groups : independent groups of rows they were made of, the fewest where there are several kinds; None for rows.
    uncounted : parameters of absorbed effects that corrections for degrees of freedom do not count.
    """

    values: np.ndarray | StructuredCov
    note: str = ""
    n_groups: int | None = None
    uncounted: int = 0


class CovSource(Protocol):
    """What a fit answers to a kind of covariance; what it does not have it refuses, naming the kind and the remedy."""

    @property
    def design(self) -> Design: ...

    @property
    def n_obs(self) -> int: ...

    @property
    def shown(self) -> np.ndarray:
        """(K,) rows that show each equation: all of complete ones."""
        ...

    @property
    def free(self) -> np.ndarray:
        """(K,) coefficients of each equation that restrictions leave free."""
        ...

    @property
    def debiased(self) -> bool:
        """Whether Sigma was found from mean products corrected for degrees of freedom."""
        ...

    def rows(self, kind: CovKind, system: System | None) -> System:
        """The rows of the fit, as it saw them: those it holds, or a system that was passed."""
        ...

    def classical(
        self, kind: CovKind, equation: int | None, system: System | None, *, debiased: bool
    ) -> np.ndarray | StructuredCov:
        """(X' Sigma^-1 X)^-1 at a known Sigma, of all coefficients or of one equation's."""
        ...

    def bread(self, system: System) -> BreadOfRows:
        """What turns sums of products of scores into a covariance."""
        ...

    def observed(self, kind: CovKind, system: System | None) -> np.ndarray:
        """(P, P) the coefficients' block of the inverse observed information."""
        ...

    def huber_white(self, kind: CovKind, system: System | None) -> np.ndarray:
        """(P, P) the coefficients' block of the sandwich of all parameters."""
        ...

    def kackar_harville(self, kind: CovKind, system: System | None) -> np.ndarray:
        """(P, P) the classical one with what estimating Sigma adds."""
        ...


class CovKind(ABC):
    """A kind of covariance of the coefficients; its fields are its options, checked when it is made.

    name : what `cov` calls it.  needs_information : whether it takes the information of the parameters of one Sigma.
    """

    name: ClassVar[str]
    needs_information: ClassVar[bool] = False

    @abstractmethod
    def compute(self, source: CovSource, equation: int | None, system: System | None) -> CovValues:
        """Of all coefficients, or of the equation at a position.  system : the rows, if the fit does not hold them."""


def formed(values: np.ndarray | StructuredCov) -> np.ndarray:
    """(P, P), or (p_j, p_j) of one equation.  Raises ValueError for more than 20,000 coefficients not formed yet."""
    if isinstance(values, np.ndarray):
        return values
    check_formed(values.design)
    return values.full


def check_formed(design: Design) -> None:
    """Raise ValueError for more than 20,000 coefficients."""
    P = design.n_coefficients
    if P > MAX_COEFFICIENTS:
        raise ValueError(
            f"the covariance of all {P:,} coefficients would take {8e-9 * P**2:.1f} GB and is limited to "
            f"{MAX_COEFFICIENTS:,}. Ask for one equation at a time, cov(..., equation=...); with_cov takes any number."
        )


def cut(source: CovSource, equation: int | None, values: np.ndarray | StructuredCov) -> np.ndarray:
    """The block of one equation of a covariance of all coefficients, or all of it."""
    if isinstance(values, StructuredCov):
        return formed(values) if equation is None else values.block(equation)
    if equation is None:
        return values
    mine = source.design.spans[equation]
    return values[mine, mine]
