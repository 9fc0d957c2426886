"""Every kind of Sigma, and the options by which users ask for those that have no name of their own.

To add one: a file here that makes a `Kind` of it, and its line below. See the docstring of `lrgls_dask.sigma`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from lrgls_dask.sigma.block_lowrank import BLOCKWISE, BlockLowRank
from lrgls_dask.sigma.full import FULL
from lrgls_dask.sigma.grouped_structure import GROUPED, GroupedLowRank
from lrgls_dask.sigma.interface import Settings, Sigma, Structure
from lrgls_dask.sigma.known import KNOWN, Known
from lrgls_dask.sigma.sparse import SPARSE, SparseLowRank
from lrgls_dask.sigma.structures import LOW_RANK

__all__ = ["BlockLowRank", "GroupedLowRank", "Known", "SparseLowRank"]

KINDS = [LOW_RANK, FULL, SPARSE, GROUPED, KNOWN, BLOCKWISE]


def structure_of(sigma: Sigma, sigma_step: Literal["ml", "pca"], lam_F: float, l1: float = 0.0) -> Structure:
    """The structure that finds Sigmas like this one, in its units: of its kind and rank, by the same step."""
    found = next(each for each in KINDS if type(sigma) in each.values)
    return found.structure(sigma, Settings(sigma_step, lam_F, l1))


def sigma_of(kind: str, read: Callable[[str], Any]) -> Sigma:
    """The Sigma saved as `kind`.  read : name of an array to the array.  Raises ValueError for an unknown kind."""
    known = {name: value for each in KINDS for value in each.values for name in value.kinds}
    if kind not in known:
        raise ValueError(f"covariance kind {kind!r} is unknown; known are {', '.join(known)}. Upgrade lrgls_dask.")
    return known[kind].from_arrays(*[read(name) for name in known[kind].saved])
