"""What the bread of a sandwich covariance answers, whatever the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import numpy as np

from lrgls_dask.design.design import Design
from lrgls_dask.inference.gradient_kernels import Clusters, GradientParams
from lrgls_dask.inference.leverage import Leverage
from lrgls_dask.rows.fingerprint import Fingerprint

__all__ = ["BreadOfRows"]


class BreadOfRows(Protocol):
    """What sandwiches ask: of complete rows `bread.Bread`, of rows that show only some equations `missing.bread`."""

    @property
    def design(self) -> Design: ...

    @property
    def n_obs(self) -> int: ...

    @property
    def fitted(self) -> Fingerprint | None: ...

    holes: ClassVar[bool]

    def of_rows(self, kernel: Callable[..., Any]) -> Callable[..., Any]: ...

    def sandwich(self, meat: np.ndarray) -> np.ndarray: ...

    def errors(self, sums: np.ndarray) -> np.ndarray: ...

    def errors_flops(self, n_sums: int) -> float: ...

    def as_stored(self, sums: np.ndarray) -> np.ndarray: ...

    def projection(self, equation: int) -> np.ndarray: ...

    def stored_gradients(self) -> np.ndarray: ...

    def leverage(self, power: float) -> Leverage: ...

    def gradient_params(
        self,
        *,
        as_stored: bool = False,
        project: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        clusters: tuple[Clusters, ...] = (),
        leverage: Leverage | None = None,
    ) -> GradientParams: ...
