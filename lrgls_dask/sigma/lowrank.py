"""Sigma = F F' + diag(d), the plain value: what every loop over (F, d) works with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from lrgls_dask.sigma.algebra import check_rows
from lrgls_dask.sigma.conditional import FactorConditional
from lrgls_dask.sigma.interface import Array, Description, Stored
from lrgls_dask.sigma.of_rows import Moments, OfRows
from lrgls_dask.sigma.own import Diagonal
from lrgls_dask.sigma.shown import FactorRows
from lrgls_dask.sigma.woodbury import Woodbury

__all__ = ["LowRank"]


@dataclass(frozen=True, eq=False)
class LowRank(Woodbury):
    """Covariance F F' + diag(d) of K equations with k factors, factored at first use.

    F : (K, k) loadings, 0 <= k <= K; k = 0 is the diagonal model.  d : (K,) idiosyncratic variances, > 0.
    Memory O(K k).  Raises ValueError for shapes that do not fit and for d that is not positive and finite.
    """

    F: Array
    d: Array
    is_wide: ClassVar[bool] = True
    kinds: ClassVar[tuple[str, ...]] = ("lowrank", "diagonal")
    saved: ClassVar[tuple[str, ...]] = ("loadings", "idio_var")

    def __post_init__(self) -> None:
        if self.F.ndim != 2 or self.d.shape != self.F.shape[:1] or self.F.shape[1] > self.F.shape[0]:
            raise ValueError(f"LowRank needs F (K, k), k <= K, and d (K,); got F {self.F.shape} and d {self.d.shape}.")
        check_rows(type(self).__name__, "F", self.F, self.d)

    @property
    def kind(self) -> str:
        return "lowrank" if self.rank else "diagonal"

    def describe(self) -> Description:
        null = f"Sigma has {self.rank} factor{'' if self.rank == 1 else 's'}"
        return Description("Sigma = F F' + diag(d)" if self.rank else "Sigma = diag(d)", f"{self.rank}", null)

    @cached_property
    def own(self) -> Diagonal:
        """diag(d)."""
        return Diagonal(self.d)

    @property
    def n_parameters(self) -> int:
        """K k + K - k (k - 1) / 2: loadings and variances, less the rotations that leave Sigma alone."""
        K, k = self.F.shape
        return K * k + K - k * (k - 1) // 2

    def rescaled(self, scale: Array) -> Self:
        """diag(scale) Sigma diag(scale): the same covariance after a change of units; scale (K,), no zeros."""
        return replace(self, F=self.F * scale[:, None], d=self.d * scale**2)

    def normalised(self) -> LowRank:
        """The same Sigma, loadings rotated to the stated normalisation: F' D^-1 F diagonal, see `_rotated`."""
        return LowRank(F=self._rotated(), d=self.d)

    def widened(self) -> Any:
        """Itself."""
        return self

    def trace_solve(self, S: Moments) -> float:
        """tr(Sigma^-1 S). O(K^2 k), of m rows O(m K k), without an array like S where the difference loses no digit."""
        if self._refinements:
            return super().trace_solve(S)
        explained = np.sum((S.rows @ self._half) ** 2) if isinstance(S, OfRows) else np.vdot(self._half, S @ self._half)
        return float((S.diagonal() / self.d).sum() - explained)

    def conditional(self, shown: NDArray[np.bool_]) -> FactorConditional:
        return FactorConditional(self.F, self.d, shown)

    def rows(self, observed: Array) -> FactorRows:
        return FactorRows(self.F, self.scaled_loadings, self.d, observed)

    @property
    def conditional_numbers(self) -> int:
        K, k = self.F.shape
        return 4 * K + (K + 2 * k) * max(k, 1)

    def stored(self) -> Stored:
        return {"loadings": (self.F, ("equation", "factor")), "idio_var": (self.d, ("equation",))}
