"""Bread and coordinates of gradients where every segment of rows has a Sigma of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np

from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.design.penalties import Ridge
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.inference.bread import Bread
from lrgls_dask.inference.gradient_kernels import SigmaRuns
from lrgls_dask.rows.fingerprint import Fingerprint
from lrgls_dask.rows.memory import MAX_COEFFICIENTS
from lrgls_dask.rows.meter import Meter
from lrgls_dask.solve.in_memory import InMemory

__all__ = ["SegmentedBread"]


@dataclass(frozen=True, eq=False)
class SegmentedBread(Bread):
    """A^-1 of all P coefficients, A = sum_t X_t' Sigma_t^-1 X_t + penalty, limited to 20,000 of them.

    segments : T compressed systems, in the order of the runs of `sigma`, whose union the other fields are of.
    """

    segments: tuple[Compressed, ...] = ()

    @classmethod
    def of(
        cls,
        segments: tuple[Compressed, ...],
        sigma: SigmaRuns,
        coefficients: np.ndarray,
        lam_B: Ridge,
        restrictions: Restrictions | None,
        fitted: Fingerprint | None = None,
    ) -> SegmentedBread:
        """From the segments alone, Sigma_t and coefficients in the user's units."""
        together = reduce(Compressed.merge, segments)
        return cls(
            together.design,
            together.rows_of_x(),
            together.head,
            coefficients,
            sigma,
            together.n_obs,
            InMemory(together, lam_B=lam_B, meter=Meter()).whitened.y_scale,
            lam_B,
            None if restrictions is None else restrictions.matrix,
            fitted,
            segments,
        )

    def classical(self) -> np.ndarray:
        """(P, P) covariance at known Sigma_t, A^-1 (A - penalty) A^-1, in the user's units.

        O(T (q D^2 + P^2) + P^3), D distinct columns counted once for each design that uses them; four P x P arrays.
        """
        inverse = self._inverse
        if self._ridge.any():
            inverse = inverse - inverse @ (self._ridge[:, None] * inverse)
        return self._in_units(inverse)

    @property
    def _shared(self) -> bool:
        return False

    def _information(self) -> np.ndarray:
        assert isinstance(self.sigma, SigmaRuns)
        design = self.design
        stacked = np.empty(design.n_coefficients, dtype=np.int64)  # where each coefficient's column stands in `rows`
        begin = 0
        for group in design.groups:
            stacked[group.coefficients] = begin + np.arange(len(group.columns))[:, None]
            begin += len(group.columns)
        out = np.zeros((design.n_coefficients, design.n_coefficients))
        for segment, sigma in zip(self.segments, self.sigma.rescaled(1.0 / self.y_scale).sigmas, strict=True):
            rows, precision = self._rows_of(segment), sigma.precision()
            gram = (rows.T @ rows)[:, stacked]
            for j, strip in enumerate(design.spans):
                out[strip] += gram[stacked[strip]] * precision[j, design.equation_of]
        return out

    def _rows_of(self, segment: Compressed) -> np.ndarray:
        """(q + 1, D) a segment's rows of X in orthonormal coordinates, designs side by side."""
        q, head = self.design.n_regressors, segment.head
        mean, offset = head.mean[:q], (head.offset + (head.anchor - self._anchor))[:q]
        rows = []
        for group, (_, half, _) in zip(self.design.groups, self._pieces, strict=True):
            first = offset if self._is_centred[group.equations[0]] else mean
            x = np.vstack([np.sqrt(head.weight) * first[group.columns], segment.root[:q, group.columns]])
            rows.append(x @ half)
        return np.hstack(rows)

    def errors_flops(self, n_sums: int) -> float:
        self._check_size()
        return super().errors_flops(n_sums)

    def _solved(self, values: np.ndarray) -> np.ndarray:
        self._check_size()
        return super()._solved(values)

    def _check_size(self) -> None:
        if self.design.n_coefficients > MAX_COEFFICIENTS:
            raise ValueError(
                f"covariances with a Sigma for each segment are limited to {MAX_COEFFICIENTS:,} coefficients; these "
                f"are {self.design.n_coefficients:,}. Fit fewer equations."
            )
