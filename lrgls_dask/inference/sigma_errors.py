"""Standard errors of Sigma: of its loadings and own variances, of its entries and of the shares that factors explain.

Loadings are identified up to rotations, and the stated normalisation h(theta) = 0 singles one out. With U the
directions of rotations and H the derivatives of h, the estimate that keeps to it moves by P = I - U (H U)^-1 H times
what any other does, so its covariance is P V P' whatever V says along rotations.
Source: Jennrich (1974), in the form of Archer and Jennrich (1973).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lrgls_dask.inference.information import Information, joint_information
from lrgls_dask.inference.standardised import Estimate
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.sigma.tangents import Tangents, batches

__all__ = ["SigmaErrors"]

SINGULAR = 1e-10  # of a normalisation that leaves a rotation free


@dataclass(frozen=True, eq=False)
class SigmaErrors:
    """Standard errors of Sigma's parts by the delta method, in the user's units, from the joint information.

    scaled : Sigma in standard units, unit : (K,) those of the responses.  tangents : its m parameters.  roots : (m, r)
    L with L L' their covariance, whatever it says along rotations.
    """

    scaled: Sigma
    unit: np.ndarray
    tangents: Tangents
    roots: np.ndarray

    @classmethod
    def of(cls, estimate: Estimate, kind: Information = "expected") -> SigmaErrors:
        """From either information: costs and errors of `joint_information`, no read."""
        joint = joint_information(estimate, kind)
        unit = joint.rows.unit
        return cls(estimate.sigma.rescaled(1.0 / unit), unit, joint.tangents, joint.sigma_roots)

    @cached_property
    def loadings(self) -> np.ndarray:
        """(K, k) of the loadings in their stated normalisation, zero where they are zero.  O(m^2 g), g rotations.

        Raises ValueError where Sigma states none, or where it leaves a rotation free.
        """
        tangents, roots = self.tangents, self.roots
        stated, turns = self.scaled.normalisation(tangents), tangents.flat
        if turns.shape[1]:
            # in the metric of the parameters themselves, so that "free" does not depend on units
            mixed = stated @ turns
            size = np.linalg.norm(stated, axis=1)
            if np.linalg.svd(mixed / size[:, None], compute_uv=False)[-1] < SINGULAR:
                raise ValueError(
                    "standard errors of the loadings need factors that the normalisation tells apart; two of these "
                    "explain equally much. Use those of Sigma's entries, or bootstrap."
                )
            roots = roots - turns @ np.linalg.solve(mixed, stated @ roots)
        errors = np.sqrt(np.sum(roots[: len(tangents.rows)] ** 2, axis=1))
        out = np.zeros_like(tangents.F)
        out[tangents.rows, tangents.columns] = errors
        return out * self.unit[:, None]

    @cached_property
    def own_variances(self) -> np.ndarray:
        """(K,) of the variances of the equations' own, zero where one is held on its floor."""
        moves = self.tangents.own_moves(self.roots)
        return np.sqrt(np.sum(moves**2, axis=1)) * self.unit**2

    @cached_property
    def entries(self) -> np.ndarray:
        """(K, K) of Sigma's entries.  O(m K^2 k)."""
        roots = self.roots
        total = np.zeros((len(self.unit),) * 2)
        for some in batches(roots.shape[1], len(self.unit)):
            moves = self.tangents.moves(roots[:, some])
            total += np.einsum("rij,rij->ij", moves, moves)
        return np.sqrt(total) * np.outer(self.unit, self.unit)

    @cached_property
    def communality(self) -> np.ndarray:
        """(K,) of 1 - psi_jj / sigma_jj, the share of variance that the factors carry.  O(m K^2 k)."""
        tangents, roots = self.tangents, self.roots
        variances, own = self.scaled.variances[:, None], self.scaled.own_variances()[:, None]
        total = np.zeros(len(self.unit))
        for some in batches(roots.shape[1], len(self.unit)):
            moves = np.einsum("rii->ir", tangents.moves(roots[:, some]))
            of_own = tangents.own_moves(roots[:, some])
            total += np.sum((own / variances * moves - of_own) ** 2 / variances**2, axis=1)
        return np.sqrt(total)
