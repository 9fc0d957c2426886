"""What `covariance` may be besides a word: the kinds of Sigma that are registered, and Sigma that varies."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from lrgls_dask.checks import as_number, check_factors
from lrgls_dask.sigma import registry
from lrgls_dask.sigma.interface import SigmaOption

__all__ = ["DESCRIBED", "Described", "TimeVarying"]


@dataclass(frozen=True)
class TimeVarying:
    """Sigma_t = F_t F_t' + diag(d_t), one for each segment of rows from its neighbours; common coefficients.

    rank : number of factors.
    segments : (N,) labels of the rows, in order, each the segment of its row: an array, a Series or a DataArray along
        the rows such as ds["time"].dt.year; or the name of the dim of rows, "time", or of a part of its dates,
        "time.year"; or "groups" for those of the System.
    bandwidth : how many segments away a neighbour still counts, with weight 1 - (distance / bandwidth)^2. 0 keeps
        segments apart (and so does 1), infinity is the static fit, "cv" chooses by the likelihood of segments left out
        of their own Sigma_t: `fit.selection` has all that were tried.

    A segment must be able to carry a Sigma_t: an equation that has no errors in it (a response that does not vary, or
    that its regressors fit exactly), or no more rows than regressors and factors, is refused by `fit` unless
    neighbours within the bandwidth give four fifths of the usual variance back, which is then said by a warning.

    With missing="em" a window's likelihood is that of what its rows show; an equation must be seen in more rows of each
    window than it has regressors, and factors there are.

    Raises TypeError or ValueError for other ranks and bandwidths; the labels are checked by `fit`.
    """

    rank: int
    segments: Any = field(repr=False)
    bandwidth: float | Literal["cv"] = "cv"

    def __post_init__(self) -> None:
        check_factors("rank", self.rank, least=0)
        if isinstance(self.bandwidth, str):
            if self.bandwidth != "cv":
                raise ValueError(f"bandwidth must be a number of segments or 'cv'; got {self.bandwidth!r}.")
        elif not as_number("bandwidth", self.bandwidth, "a number of segments or 'cv'") >= 0:
            raise ValueError(f"bandwidth must be 0 or more, in segments; got {self.bandwidth!r}.")


Described = SigmaOption | TimeVarying


def word_of(described: type) -> str:
    """What a command line and a saved fit call it: "sparse" for `SparseLowRank`, "time-varying" for `TimeVarying`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", described.__name__.removesuffix("LowRank")).lower()


# Each of them by its word.
DESCRIBED: dict[str, Any] = {
    word_of(each): each for each in (*(getattr(registry, name) for name in registry.__all__), TimeVarying)
}
