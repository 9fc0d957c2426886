"""Products of X'X, of any size, with few columns: what one block of rows contributes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lrgls_dask.rows.block import Block, bad_values
from lrgls_dask.rows.kernels import slabs
from lrgls_dask.rows.moments import Sized
from lrgls_dask.rows.sums import sums

__all__ = ["RegressorProducts", "XProducts", "regressor_products_kernel"]


@dataclass(frozen=True, eq=False)
class RegressorProducts:
    """What the kernel is told.

    anchor, offset : (q,) the mean of X.  by : (q, s) the columns that X'X is multiplied with, or (s,) which columns of
    X'X are wanted.
    """

    anchor: np.ndarray
    offset: np.ndarray
    by: np.ndarray


@dataclass(frozen=True, eq=False)
class XProducts(Sized):
    """values : (q, s) X'X by, X less its mean."""

    values: np.ndarray

    def __add__(self, other: XProducts) -> XProducts:
        return XProducts(self.values + other.values)


def regressor_products_kernel(block: Block, params: RegressorProducts) -> XProducts | None:
    """XProducts of a block, 4 n q s flops, half of that for columns of X'X."""
    total: np.ndarray | None = None
    for values, _, weights in slabs(replace(block, y=()), params.anchor):
        values -= params.offset
        image = values @ params.by if params.by.ndim == 2 else values[:, params.by]
        if weights is not None:
            image *= weights[:, None]
        part = sums(values.T, image)
        total = part if total is None else np.add(total, part, out=total)
    if total is None:
        return None
    if not np.isfinite(total).all():
        raise bad_values(block)
    return XProducts(total)
