"""How the estimates of many equations deviate together, and what the largest of their deviations is by chance.

m combinations of coefficients, some for each of E hypotheses, have the covariance V. In each hypothesis' own units,
W_e V_ee W_e' = I, their deviations are

    z = A w + B u,     w ~ N(0, I_s),  u ~ N(0, I_m),

A (m, s) what is common to hypotheses and B block diagonal, own to each. With regressors that equations share A has as
many columns as there are factors, so that a draw costs O(m s) and no m x m matrix is made. Where hypotheses are true
z_e'z_e is chi2 with as many degrees of freedom as combinations; draws of the least of the E p-values say how small it
is by chance. Each p-value has the distribution its own test refers to and only their dependence is that of normal
deviations: of independent equations that is Sidak's (1967) correction exactly, whatever their degrees of freedom.

Source: Montiel Olea and Plagborg-Moller (2019), algorithm 1, for bands by the largest |z|; Westfall and Young (1993),
section 2.3, for adjusted p-values by the least p-value.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # scipy.stats loads when first asked: it takes as long as all of this package
import scipy.sparse as sp
from scipy.linalg.lapack import dpstrf

from lrgls_dask.inference.structured import SINGULAR, Combinations, CovOfCombinations, check_rank

__all__ = ["JointDeviations", "common_and_own", "quadratic_forms"]

MOST_DRAWS, LEAST_DRAWS = 10_000, 4_000
NUMBERS = 60_000_000  # that are drawn in a second or less: where more equations would take more, draws are fewer
AT_ONCE = 2**18  # numbers that are drawn together: as many as stay in a cache
ROUNDING = 1e-10  # of the largest eigenvalue of what is common, or of a variance: below, nothing is left


@dataclass(frozen=True, eq=False)
class _OfSize:
    """Hypotheses of n combinations each.  hypotheses : (G,).  common : (s, G n).  own : (G, n, n), or None for zero."""

    hypotheses: np.ndarray
    size: int
    common: np.ndarray
    own: np.ndarray | None

    def largest(self, w: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(b,) the largest z_e'z_e of each draw w (b, s)."""
        z = w @ self.common
        if self.own is not None:
            u = rng.standard_normal(z.shape, dtype=np.float32)
            if self.size == 1:
                u *= self.own[:, 0, 0]
                z += u
            else:
                along = u.reshape(len(u), -1, self.size, 1)
                z += (self.own @ along).reshape(z.shape)
        if self.size == 1:
            return np.asarray(np.maximum(z.max(axis=1), -z.min(axis=1)) ** 2)
        return np.asarray(np.sum(z.reshape(len(z), -1, self.size) ** 2, axis=2).max(axis=1))


@dataclass(frozen=True, eq=False)
class JointDeviations:
    """A and B of the hypotheses, by how many combinations they have; see the module."""

    parts: tuple[_OfSize, ...]
    n_common: int

    @classmethod
    def of(cls, among: CovOfCombinations, edges: np.ndarray) -> JointDeviations:
        """Of V (m, m); the combinations of hypothesis e are edges[e] to edges[e + 1].

        O(m s^2), of what is formed O(m^3).  Raises LinAlgError where the combinations of a hypothesis are singular.
        """
        scale = np.sqrt(among.variances)
        common, own = common_and_own(among, scale, edges)
        sizes, parts = np.diff(edges), []
        for size in np.unique(sizes).tolist():
            mine = np.flatnonzero(sizes == size)
            places = edges[mine][:, None] + np.arange(size)
            shared = common[places]
            blocks = None if own is None else _blocks(own, places)
            whole = shared @ shared.transpose(0, 2, 1)
            if blocks is not None:
                whole = whole + blocks
            turn = np.linalg.inv(np.linalg.cholesky(whole))
            root = None if blocks is None else turn @ _roots(blocks)
            flat = (turn @ shared).reshape(places.size, common.shape[1])
            drawn = np.ascontiguousarray(flat.T, dtype=np.float32), None if root is None else root.astype(np.float32)
            parts.append(_OfSize(mine, size, *drawn))
        return cls(tuple(parts), common.shape[1])

    @property
    def n_draws(self) -> int:
        """How many draws are worth their time: 10,000, and 4,000 at least of very many combinations."""
        m = sum(part.common.shape[1] for part in self.parts)
        return max(LEAST_DRAWS, min(MOST_DRAWS, NUMBERS // m))

    def least_pvalues(self, n_draws: int, seed: int) -> np.ndarray:
        """(n_draws,) the least p-value of all hypotheses, where these are true; ascending.  O(n_draws m s)."""
        rng = np.random.Generator(np.random.SFC64(seed))  # twice as quick as the default
        width = max(self.n_common, sum(part.common.shape[1] for part in self.parts))
        at_once, found = max(1, min(n_draws, AT_ONCE // width)), np.empty(n_draws)
        for begin in range(0, n_draws, at_once):
            stop = min(begin + at_once, n_draws)
            w = rng.standard_normal((stop - begin, self.n_common), dtype=np.float32)
            tails = [scipy.stats.chi2.sf(part.largest(w, rng).astype(np.float64), part.size) for part in self.parts]
            found[begin:stop] = np.min(tails, axis=0)
        return np.sort(found)


def quadratic_forms(
    among: CovOfCombinations, edges: np.ndarray, gap: np.ndarray, labels: Sequence[Hashable]
) -> np.ndarray:
    """(E,) g_e' V_ee^-1 g_e of gaps (m,).

    Raises LinAlgError where the combinations of a hypothesis are singular, with their rank and the equation's label.
    """
    out, sizes, scale = np.empty(len(edges) - 1), np.diff(edges), np.sqrt(among.variances)
    for size in np.unique(sizes).tolist():
        mine = np.flatnonzero(sizes == size)
        places = edges[mine][:, None] + np.arange(size)
        units = scale[places]
        if isinstance(among, Combinations):
            shared = among.factors[places]
            within = shared @ among.middle @ shared.transpose(0, 2, 1) + _blocks(among.own, places)
        else:
            within = among.dense()[places[:, :, None], places[:, None, :]]
        values, vectors = np.linalg.eigh(within / units[:, :, None] / units[:, None, :])
        for e in np.flatnonzero(values[:, 0] <= size * SINGULAR * values[:, -1]).tolist():
            check_rank(values[e], f" of equation {labels[mine[e]]!r}")
        along = vectors.transpose(0, 2, 1) @ (gap[places] / units)[:, :, None]
        out[mine] = np.sum(along[:, :, 0] ** 2 / values, axis=1)
    return out


def common_and_own(
    among: CovOfCombinations, scale: np.ndarray, edges: np.ndarray
) -> tuple[np.ndarray, sp.csr_array | None]:
    """A (m, s) and what is own to hypotheses, sparse, of the correlations V / scale scale' = A A' + own; None for zero.

    Of a V that is formed, or has no such parts, all is common and s is up to m: Cholesky's root, of a singular V with
    pivots (Higham 2002, section 10.3).
    """
    if isinstance(among, Combinations):
        m, s = among.factors.shape
        own = among.own.tocoo()
        hypothesis = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
        if np.array_equal(hypothesis[own.row], hypothesis[own.col]):
            scaled = among.factors / scale[:, None]
            q, r = np.linalg.qr(scaled) if s < m else (np.eye(m), scaled)
            values, vectors = np.linalg.eigh(r @ among.middle @ r.T)
            least = ROUNDING * float(np.abs(values).max(initial=0.0))
            if np.all(values >= -least):
                some = values > least
                over = sp.diags_array(1.0 / scale)
                apart = sp.csr_array(over @ among.own @ over)
                return q @ (vectors[:, some] * np.sqrt(values[some])), apart if apart.nnz else None
    correlation = among.dense() / scale[:, None] / scale
    try:
        return np.linalg.cholesky(correlation), None
    except np.linalg.LinAlgError:  # of fewer independent sums than combinations
        root, order, rank, _ = dpstrf(correlation, tol=ROUNDING, lower=1)
        out = np.zeros((len(correlation), rank))
        out[order - 1] = np.tril(root)[:, :rank]
        return out, None


def _blocks(matrix: sp.csr_array, places: np.ndarray) -> np.ndarray:
    """(G, n, n) of a block diagonal matrix, places (G, n)."""
    G, n = places.shape
    at = np.full(matrix.shape[0], -1)
    at[places.ravel()] = np.arange(G * n)
    entries = matrix.tocoo()
    here = at[entries.row] >= 0
    row, column = at[entries.row[here]], at[entries.col[here]]
    out = np.zeros((G, n, n))
    np.add.at(out, (row // n, row % n, column % n), entries.data[here])
    return out


def _roots(blocks: np.ndarray) -> np.ndarray:
    """(G, n, n) R with R R' = block, positive semidefinite but for rounding."""
    values, vectors = np.linalg.eigh(blocks)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :])
