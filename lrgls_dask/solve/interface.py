"""What the alternating loop asks of the data, answered from q + K + 1 rows in memory or by passes over all rows.

Both answer in whitened coordinates (whiten.py): c is the vector of all P coefficients, group by group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.design.design import Design
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.moments import Head
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.solve.constraint import Constraint
from lrgls_dask.solve.coordinates import Coordinates
from lrgls_dask.solve.whiten import GroupRows, Whitened

__all__ = ["GlsStep", "Posed", "Problem", "Products", "nll_offset"]


@dataclass(frozen=True, eq=False)
class GlsStep:
    """The normal equations A c = rhs of the coefficients at one Sigma, and where the current c stands.

    gradient : (P,) rhs - A c.  product(p, c) : A p.  finish(c, steps) : (K, K) residual covariance at the solution.
    """

    gradient: np.ndarray
    product: Callable[[np.ndarray, np.ndarray], np.ndarray]
    finish: Callable[[np.ndarray, tuple[float, ...]], Any]


@dataclass(frozen=True, eq=False)
class Products:
    """Residual moments without S. along : (K, m) S B.  diagonal : (K,) diag S.  gradient : (P,) of the coefficients."""

    along: np.ndarray
    diagonal: np.ndarray
    gradient: np.ndarray


class Posed(Protocol):
    """What every loop knows of its problem, whether responses are missing or not.

    cells : (K,) rows that show each equation.
    """

    design: Design
    whitened: Whitened
    coordinates: Coordinates
    constraint: Constraint | None
    n_obs: int
    cells: np.ndarray
    nll_offset: float
    meter: Meter
    restarts_are_free: bool


class Problem(Posed, Protocol):
    """Residual covariances and GLS steps of one system in whitened coordinates.

    free : (K,) coefficients of each equation that restrictions leave free.  head : number, weight and mean of the rows.
    overlaps : (K, K) see `divisors.overlaps`.
    """

    head: Head
    dense: bool
    free: np.ndarray
    compressed: Compressed | None
    group_rows: tuple[GroupRows, ...]
    resolution: float

    @property
    def overlaps(self) -> np.ndarray: ...

    def residual_covariance(self, c: np.ndarray) -> Any:
        """S = R'R / N, (K, K), in standard units, or the few rows it is made of; not where `dense` is False."""
        ...

    def products(self, c: np.ndarray, B: np.ndarray, sigma: Sigma | None) -> Products:
        """S B for B (K, m), diag S, and at a Sigma the gradient, without forming S."""
        ...

    def gls_step(self, c: np.ndarray, sigma: Sigma, S: Any = None, gradient: np.ndarray | None = None) -> GlsStep:
        """S : residual covariance at c, None where that of the solution is not wanted.  gradient : (P,), if known."""
        ...

    def x_rows(self) -> np.ndarray | None:
        """(r, q) with x_rows'x_rows = X'X, None where `compressed` has it or it needs more memory than there is."""
        ...


def nll_offset(whitened: Whitened, head: Head) -> float:
    """What turns the nll per row in standard units into that of the data: the units of Y and the row weights."""
    weights = 0.5 * len(whitened.y_scale) * head.log_weight / head.n_rows
    return float(np.log(whitened.y_scale).sum()) - weights
