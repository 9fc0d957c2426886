"""A system whose rows have been compressed: labels and q + K + 1 rows in memory."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

from lrgls_dask.compress import Compressed
from lrgls_dask.design import Design

__all__ = ["CompressedSystem"]


@dataclass(frozen=True, eq=False)
class CompressedSystem:
    """K equations on N rows that have been read once; fits, rank selection and appended rows cost no further read.

    Made by `System.compress`. Holds 8 (q + K)^2 bytes, however many rows it stands for.
    """

    rows: Compressed
    obs_dim: Hashable = "obs"
    equation_dim: Hashable = "equation"

    @property
    def design(self) -> Design:
        return self.rows.design

    @property
    def equations(self) -> tuple[Hashable, ...]:
        return self.design.equations

    @property
    def regressors(self) -> tuple[Hashable, ...]:
        return self.design.regressors

    @property
    def n_obs(self) -> int:
        """N, the rows (of positive weight) it stands for."""
        return self.rows.n_obs

    @property
    def n_equations(self) -> int:
        return self.design.n_equations

    @property
    def n_regressors(self) -> int:
        return self.design.n_regressors

    @property
    def n_coefficients(self) -> int:
        return self.design.n_coefficients

    def compress(self) -> CompressedSystem:
        """Itself."""
        return self

    def append(self, other: Any) -> CompressedSystem:
        """The compressed system of these rows and those of `other`, a System (read once) or a compressed one.

        Raises ValueError when equations, regressors or designs differ.
        """
        return replace(self, rows=self.rows.merge(other.compress().rows))

    def __repr__(self) -> str:
        return (
            f"<CompressedSystem of {self.n_equations:,} equations standing for {self.n_obs:,} rows: "
            f"{self.n_regressors:,} distinct regressors, {self.n_coefficients:,} coefficients>"
        )
