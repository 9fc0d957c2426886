"""Blocks of equations of a sandwich covariance of more coefficients than pairs of them have room.

The sandwich is the sum of e_g e_g' over rows or groups of rows, e_g = A^-1 s_g by how much the gradients s_g of the
group move the estimates. Of many rows no e_g is kept: each adds to the blocks of the equations, sum p_j^2 numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrgls_dask.design.design import Design
from lrgls_dask.inference.bread_of_rows import BreadOfRows
from lrgls_dask.inference.gradient_kernels import GradientParams, check_sums, gradient_slabs, n_used
from lrgls_dask.inference.structured import AT_ONCE, StructuredCov, row_slices
from lrgls_dask.rows.block import Block
from lrgls_dask.rows.moments import Sized

__all__ = ["ErrorBlocks", "ErrorParams", "blocks_bytes", "blocks_of_entries", "blocks_of_sums", "error_blocks_kernel"]

COPIES = 6  # of errors that are made together: gradients, both as they are turned, what solves for them


@dataclass(frozen=True, eq=False)
class ErrorBlocks(Sized):
    """Sum of e_i e_i' over rows, within equations alone.  entries : (sum p_j^2,) row by row, equation by equation."""

    n_rows: int
    entries: np.ndarray

    def __add__(self, other: ErrorBlocks) -> ErrorBlocks:
        return ErrorBlocks(self.n_rows + other.n_rows, self.entries + other.entries)


@dataclass(frozen=True, eq=False)
class ErrorParams:
    """gradients : how they are formed.  bread : what makes errors of the estimates of them."""

    gradients: GradientParams
    bread: BreadOfRows


def error_blocks_kernel(block: Block, params: ErrorParams) -> ErrorBlocks:
    """ErrorBlocks of a block; n P (s + p) flops, s the numbers by which the bread ties a coefficient to the others."""
    entries, n_rows = np.zeros(int(np.sum(params.bread.design.sizes**2))), 0
    for gradients, weights in gradient_slabs(block, params.gradients):
        n_rows += n_used(gradients, weights)
        check_sums(block, gradients)
        _add_blocks(entries, gradients, params.bread)
    return ErrorBlocks(n_rows, entries)


def blocks_of_sums(bread: BreadOfRows, sums: np.ndarray) -> StructuredCov:
    """Of the gradients (T, P) of T groups of rows."""
    entries = np.zeros(int(np.sum(bread.design.sizes**2)))
    _add_blocks(entries, sums, bread)
    return blocks_of_entries(bread.design, entries)


def blocks_of_entries(design: Design, entries: np.ndarray) -> StructuredCov:
    """The covariance of which they are what is known."""
    none = np.zeros((design.n_coefficients, 0))
    return StructuredCov.of_arrays(design, entries, none, np.zeros((0, 0)), knows_between=False)


def blocks_bytes(design: Design) -> int:
    """What a task holds: errors of some rows as they are made, and a sum."""
    return COPIES * AT_ONCE + 8 * int(np.sum(design.sizes**2))


def _add_blocks(entries: np.ndarray, gradients: np.ndarray, bread: BreadOfRows) -> None:
    """Those of e e', e the errors by gradients (T, P), a few rows of these at a time."""
    design = bread.design
    begins = np.concatenate([[0], np.cumsum(design.sizes**2)])
    for rows in row_slices(len(gradients), design.n_coefficients):
        errors = bread.errors(gradients[rows])
        for p in np.unique(design.sizes).tolist():
            mine = np.flatnonzero(design.sizes == p)
            of_equations = errors[design.offsets[mine][:, None] + np.arange(p)]
            blocks = of_equations @ np.swapaxes(of_equations, 1, 2)
            entries[begins[mine][:, None] + np.arange(p * p)] += blocks.reshape(len(mine), p * p)
