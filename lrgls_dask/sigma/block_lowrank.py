"""Sigma = F F' + Psi, Psi block-diagonal: factors of all equations, anything else within groups of them.

With Psi = C C' given and C^-1 S C^-T = W diag(theta) W', theta descending, q = #{m <= k: theta_m > 1}, the best
loadings are F = C W_q diag(sqrt(theta_q - 1)) (Lawley 1940), as for a diagonal Psi, and what is left is

    f(Psi) = 1/2 [K log 2 pi + log|Psi| + sum_{m<=q} (log theta_m + 1) + sum_{m>q} theta_m],
    df     = tr(G dPsi),    G = 1/2 C^-T [sum_{m>q} (1 - theta_m) w_m w_m'] C^-1,

minimised over L_g with Psi_g = diag(floor) + L_g L_g', so that no eigenvalue of a block, in units of the floor, is
below one. An approximate factor structure (Chamberlain & Rothschild 1983); for groups of one equation each this is
factor analysis, for one group of all equations without factors any Sigma.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize

from lrgls_dask.checks import check_factors, groups_of, one_group_each
from lrgls_dask.sigma.blocks import Blocks, Rows, blocks_of, groups_of_some
from lrgls_dask.sigma.identified import check_identified
from lrgls_dask.sigma.interface import (
    LOG_2PI,
    LOOSE,
    TIGHT,
    Array,
    Description,
    Equations,
    Kind,
    SigmaOption,
    SigmaStep,
    Stored,
    Structure,
)
from lrgls_dask.sigma.ml import MAX_CANDIDATES, merged, ml_step
from lrgls_dask.sigma.own import FLOOR_ROUNDING, Own
from lrgls_dask.sigma.polish import polished
from lrgls_dask.sigma.starts import across
from lrgls_dask.sigma.steps import ROUNDING, checked_inputs
from lrgls_dask.sigma.woodbury import Woodbury

__all__ = ["BLOCKWISE", "BlockDiagonal", "BlockFactors", "BlockLowRank", "BlockStructure"]

# Up to this many loadings their identification is checked, in a second; a share of the largest eigenvalue is zero.
LARGEST_CHECKED, ZERO = 1500, 1e-9
# Up to this K singular values of C^-1 S^1/2 are found, which keep the digits of small variances; above, eigenvalues.
EXACT_UP_TO, EM_STEPS, MOST_STEPS = 200, 10, 1000
# What a start leaves to the equations, as a share of S; where a search begins that must be able to leave the floor.
LEAST, OFF_FLOOR = 0.05, 1e-6
# Random starts up to this K; their loadings are so large.
RANDOM_UP_TO, N_RANDOM, SEED, RANDOM_SIZE = 60, 3, 20260101, 0.5
# A share of the squared weights in a combination that is on the floor, from which an equation is part of it.
PART = 0.01


@dataclass(frozen=True)
class BlockLowRank(SigmaOption):
    """Sigma = F F' + Psi with `rank` factors of all equations and, within each group of them, any covariance besides.

    groups : the name of a coordinate along the equations, such as "sector" of `ds["sector"]`; or equation -> group, a
        mapping, a pandas Series or a DataArray along the equations.

    By maximum likelihood. Factors are told from the blocks by what equations of different groups share, which takes
    three groups or more. `fit.idio_var` is the diagonal of Psi and `fit.own_cov()` all of it.
    Raises TypeError or ValueError for what is none of these; whether the groups suit the equations is checked by `fit`.
    """

    rank: int
    groups: Any
    of_some = groups_of_some

    def __post_init__(self) -> None:
        check_factors("rank", self.rank, least=0)
        one_group_each(self.groups)

    def structure(self, design: Equations) -> BlockStructure:
        """For the equations of `design`. Raises ValueError where the groups do not cover them or do not identify F."""
        check_identified(self.rank, design.n_equations)
        groups = groups_of(one_group_each(self.groups), design.equations, design.equation_coords)
        blocks = blocks_of(design.equations, [groups], 0, [0])
        check_told_apart(blocks, int(self.rank))
        return BlockStructure(int(self.rank), blocks)


def check_told_apart(blocks: Blocks, rank: int) -> None:
    """Raise ValueError for more factors than covariances between equations of different groups identify."""
    if _are_told_apart(blocks.codes[1], rank):
        return
    best = next(k for k in range(rank - 1, -1, -1) if _are_told_apart(blocks.codes[1], k))
    sizes, n = sorted({int(n) for n in np.bincount(blocks.codes[1])}), len(blocks.group_names[1])
    raise ValueError(
        f"BlockLowRank: covariances between equations of different groups identify {best} factor"
        f"{'' if best == 1 else 's'}, but rank is {rank}; there {'is 1 group' if n == 1 else f'are {n} groups'}, of "
        f"{' or '.join(map(str, sizes[:4]))}{' or more' if len(sizes) > 4 else ''} equations. Use rank <= {best}, or "
        "more and smaller groups; two groups identify none."
    )


def _are_told_apart(codes: NDArray[np.intp], rank: int) -> bool:
    """Whether loadings move the covariances between groups in every direction but rotations, at random loadings.

    By the rank of J'J, J the derivatives of those covariances (Wegge 1996).  O((K k)^3); unseen above LARGEST_CHECKED.
    """
    K = codes.size
    if rank == 0 or K * rank > LARGEST_CHECKED:
        return True
    F = np.random.default_rng(0).uniform(0.5, 1.0, (K, rank))
    apart = (codes[:, None] != codes[None, :]).astype(float)
    moments = np.einsum("ij,ju,iv->iujv", apart, F, F)
    moments[np.arange(K), :, np.arange(K)] = np.einsum("ij,ju,jv->iuv", apart, F, F)
    values = np.linalg.eigvalsh(moments.reshape(K * rank, K * rank))
    return int(np.count_nonzero(values > ZERO * values[-1])) == K * rank - rank * (rank - 1) // 2


# ---------------------------------------------------------------------------------------------- the value


@dataclass(frozen=True, eq=False)
class BlockDiagonal(Own):
    """Psi with one block for each group of equations: members the equations of each, blocks (n_g, n_g) the matrices."""

    n_equations: int
    members: tuple[Rows, ...]
    blocks: tuple[Array, ...]

    @classmethod
    def lifted(cls, matrix: Array, members: tuple[Rows, ...], least: float) -> BlockDiagonal:
        """The blocks of a matrix (K, K), their eigenvalues brought up to `least`."""
        return cls(len(matrix), members, tuple(_lifted(matrix[rows][:, rows], least) for rows in members))

    @cached_property
    def _roots(self) -> tuple[Array, ...]:
        """Lower triangular C_g with C_g C_g' the block.  O(sum n_g^3)."""
        return tuple(np.asarray(np.linalg.cholesky(block), dtype=np.float64) for block in self.blocks)

    def _along(self, parts: list[Array]) -> Array:
        out = np.empty(self.n_equations)
        for rows, part in zip(self.members, parts, strict=True):
            out[rows] = part
        return out

    @cached_property
    def variances(self) -> Array:
        return self._along([block.diagonal() for block in self.blocks])

    @property
    def inverse_diagonal(self) -> Array:
        inverses = [solve_triangular(root, np.eye(len(root)), lower=True) for root in self._roots]
        return self._along([np.einsum("ij,ij->j", inverse, inverse) for inverse in inverses])

    @cached_property
    def noise(self) -> Array:
        return np.asarray(1.0 / self.inverse_diagonal)

    @cached_property
    def logdet(self) -> float:
        return float(2.0 * sum(np.log(root.diagonal()).sum() for root in self._roots))

    def rows_matmul(self, E: Array) -> Array:
        out = np.empty_like(E)
        for rows, block in zip(self.members, self.blocks, strict=True):
            out[:, rows] = E[:, rows] @ block
        return out

    def solve_rows(self, E: Array) -> Array:
        return self.solve(E.T).T

    def solve(self, B: Array) -> Array:
        out = np.empty_like(B)
        for rows, root in zip(self.members, self._roots, strict=True):
            out[rows] = cho_solve((root, True), B[rows], check_finite=False)
        return out

    def whitened(self, B: Array) -> Array:
        return self._by_roots(B, "N")

    def whitened_back(self, B: Array) -> Array:
        return self._by_roots(B, "T")

    def _by_roots(self, B: Array, trans: str) -> Array:
        out = np.empty_like(B)
        for rows, root in zip(self.members, self._roots, strict=True):
            out[rows] = solve_triangular(root, B[rows], lower=True, trans=trans, check_finite=False)
        return out

    def coloured(self, B: Array) -> Array:
        """C B, (K, m): back from `whitened`."""
        out = np.empty_like(B)
        for rows, root in zip(self.members, self._roots, strict=True):
            out[rows] = root @ B[rows]
        return out

    def add_to(self, matrix: Array) -> None:
        index = np.arange(self.n_equations)
        for rows, block in zip(self.members, self.blocks, strict=True):
            matrix[np.ix_(index[rows], index[rows])] += block

    def rescaled(self, scale: Array) -> BlockDiagonal:
        pairs = zip(self.members, self.blocks, strict=True)
        scaled = tuple(block * np.outer(scale[rows], scale[rows]) for rows, block in pairs)  # symmetric to the last bit
        return BlockDiagonal(self.n_equations, self.members, scaled)

    def on_floor(self, floor: Array | float) -> NDArray[np.bool_]:
        """(K,) equations that are part of a combination within a group whose variance is the floor's."""
        unit = np.sqrt(np.broadcast_to(np.asarray(floor, dtype=np.float64), (self.n_equations,)))
        shares = []
        for block in self.rescaled(1.0 / unit).blocks:
            values, vectors = np.linalg.eigh(block)
            # eigenvalues are right to rounding of the largest
            low = values <= 1.0 + FLOOR_ROUNDING + 10.0 * np.finfo(float).eps * values[-1]
            shares.append(np.sum(vectors[:, low] ** 2, axis=1))
        return np.asarray(self._along(shares) > PART)

    def entries(self, held: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Those within groups, but for equations on the floor, whose entries are taken as known."""
        same = np.zeros((self.n_equations,) * 2, dtype=bool)
        index = np.arange(self.n_equations)
        for rows in self.members:
            same[np.ix_(index[rows], index[rows])] = True
        i, j = np.nonzero(np.tril(same & ~held[:, None] & ~held))
        return i, j


@dataclass(frozen=True, eq=False)
class BlockFactors(Woodbury):
    """F F' + Psi: loadings F (K, k), groups of the equations, and Psi, one block for each."""

    F: Array
    groups: Blocks
    psi: BlockDiagonal
    kinds: ClassVar[tuple[str, ...]] = ("block",)
    saved: ClassVar[tuple[str, ...]] = ("loadings", "own_entries", "own_groups", "own_group_names")

    @classmethod
    def from_arrays(cls, F: Array, entries: Array, codes: NDArray[np.int64], names: NDArray[Any]) -> BlockFactors:
        """entries : of the lower triangles of the blocks, row by row.  codes : (K,) the group of each equation."""
        rows = (np.zeros(codes.size, dtype=np.intp), np.asarray(codes, dtype=np.intp))
        groups = Blocks(rows, (0, 0), (("general",), tuple(str(name) for name in names)))
        return cls(F, groups, BlockDiagonal(codes.size, groups.members[1], tuple(_unpacked(entries, groups))))

    def stored(self) -> Stored:
        entries = np.concatenate([block[np.tril_indices(len(block))] for block in self.psi.blocks])
        return {
            "loadings": (self.F, ("equation", "factor")),
            "own_entries": (entries, ("own_entry",)),
            "own_groups": (self.groups.codes[1].astype(np.int64), ("equation",)),
            "own_group_names": (np.array(self.groups.group_names[1]), ("own_group",)),
        }

    @property
    def kind(self) -> str:
        return "block"

    def describe(self) -> Description:
        n = len(self.psi.blocks)
        null = f"Sigma has {self.rank} factor{'' if self.rank == 1 else 's'} and {n} blocks"
        return Description("Sigma = F F' + blocks of groups", f"{self.rank}, beside {n} blocks", null)

    @property
    def own(self) -> BlockDiagonal:
        """Psi."""
        return self.psi

    @property
    def n_parameters(self) -> int:
        """Loadings less rotations, and the entries of the blocks."""
        return _n_parameters(self.groups, self.rank)

    def rescaled(self, scale: Array) -> BlockFactors:
        """diag(scale) Sigma diag(scale): the same covariance after a change of units; scale (K,), no zeros."""
        return BlockFactors(self.F * scale[:, None], self.groups, self.psi.rescaled(scale))

    def normalised(self) -> BlockFactors:
        """The same Sigma, loadings rotated to the stated normalisation: F' Psi^-1 F diagonal, see `_rotated`."""
        return BlockFactors(self._rotated(), self.groups, self.psi)


def _unpacked(entries: Array, groups: Blocks) -> Iterator[Array]:
    """Symmetric blocks from their lower triangles, row by row, one group after the other."""
    start = 0
    for n in np.bincount(groups.codes[1]).tolist():
        block = np.zeros((n, n))
        block[np.tril_indices(n)] = entries[start : start + n * (n + 1) // 2]
        start += n * (n + 1) // 2
        yield block + np.tril(block, -1).T


def _n_parameters(groups: Blocks, rank: int) -> int:
    of_blocks = sum(n * (n + 1) // 2 for n in np.bincount(groups.codes[1]).tolist())
    return groups.n_equations * rank - rank * (rank - 1) // 2 + of_blocks


# ---------------------------------------------------------------------------------------------- the search


@dataclass(frozen=True, eq=False)
class _Search:
    """f over z, the lower triangles of all L_g one after the other, at one S (K, K); floor (K,)."""

    S: Array
    groups: Blocks
    rank: int
    floor: Array

    @cached_property
    def _root(self) -> Array:
        values, vectors = np.linalg.eigh(self.S)
        return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))

    def _triangles(self, z: Array) -> list[Array]:
        return [np.tril(block) for block in _unpacked(z, self.groups)]

    def psi(self, z: Array) -> BlockDiagonal:
        """The blocks diag(floor) + L L'."""
        members = self.groups.members[1]
        pairs = zip(self._triangles(z), members, strict=True)
        return BlockDiagonal(len(self.S), members, tuple(L @ L.T + np.diag(self.floor[rows]) for L, rows in pairs))

    def z_of(self, psi: BlockDiagonal) -> Array:
        """Where a search from `psi` begins: a little off the floor, on which f has no slope along z."""
        parts = []
        for block, rows in zip(psi.blocks, self.groups.members[1], strict=True):
            above = _lifted(block - np.diag(self.floor[rows]), OFF_FLOOR)
            parts.append(np.linalg.cholesky(above)[np.tril_indices(len(block))])
        return np.concatenate(parts)

    def _pairs(self, psi: BlockDiagonal) -> tuple[Array, Array, int]:
        """theta and W, descending, and q."""
        white = psi.whitened(self._root)
        if len(self.S) <= EXACT_UP_TO:
            W, roots, _ = np.linalg.svd(white)
            theta = roots**2
        else:
            theta, W = np.linalg.eigh(white @ white.T)
            theta, W = np.maximum(theta[::-1], 0.0), W[:, ::-1]
        return theta, W, int(np.count_nonzero(theta[: self.rank] > 1.0))

    def value_and_slope(self, z: Array) -> tuple[float, Array]:
        """f and its gradient.  O(K^3)."""
        psi = self.psi(z)
        theta, W, q = self._pairs(psi)
        value = len(self.S) * LOG_2PI + psi.logdet + np.log(theta[:q]).sum() + q + theta[q:].sum()
        V, slopes = psi.whitened_back(W[:, q:]), []
        for L, rows in zip(self._triangles(z), self.groups.members[1], strict=True):
            slope = (V[rows] * (1.0 - theta[q:])) @ (V[rows].T @ L)
            slopes.append(slope[np.tril_indices(len(L))])
        return 0.5 * float(value), np.concatenate(slopes)

    def sigma(self, z: Array) -> BlockFactors:
        """The best Sigma with these blocks."""
        psi = self.psi(z)
        theta, W, q = self._pairs(psi)
        F = np.zeros((len(self.S), self.rank))
        F[:, :q] = psi.coloured(W[:, :q] * np.sqrt(theta[:q] - 1.0))
        return BlockFactors(F, self.groups, psi)

    def ended(self, z: Array, tol: float) -> Array:
        """Where the search from z ends: slopes below `tol`, at rounding if that is tight."""
        tight = tol < LOOSE
        options = {"maxiter": MOST_STEPS, "maxfun": MOST_STEPS, "maxcor": 30, "gtol": tol}
        options["ftol"] = ROUNDING if tight else 1e-10
        z = minimize(self.value_and_slope, z, jac=True, method="L-BFGS-B", options=options).x
        return polished(lambda at: self.value_and_slope(at)[1], z, np.full(z.size, -np.inf)) if tight else z

    def starts(self) -> Iterator[BlockFactors]:
        """Loadings from covariances between groups, from factor analysis, and at random; Psi from what they leave."""
        yield self._leaving(across(self.S, self.rank, self.groups.codes[1]))
        yield self._leaving(ml_step(self.S, self.rank, self.floor, tol=LOOSE).sigma.F)
        yield self._leaving(np.zeros((len(self.S), self.rank)), 0.5)
        rng = np.random.default_rng(SEED)
        for _ in range(N_RANDOM if len(self.S) <= RANDOM_UP_TO else 0):
            yield self._leaving(RANDOM_SIZE * rng.standard_normal((len(self.S), self.rank)))

    def _leaving(self, F: Array, share: float = 1.0) -> BlockFactors:
        least = max(LEAST, float(self.floor.max()))
        psi = BlockDiagonal.lifted(share * (self.S - F @ F.T), self.groups.members[1], least)
        return BlockFactors(F, self.groups, psi)

    def after_em(self, sigma: BlockFactors) -> BlockFactors:
        """EM_STEPS rounds of EM (Rubin & Thayer 1982), blocks in the place of variances."""
        for _ in range(EM_STEPS):
            B = sigma.precision_loadings
            SB, R_inverse = self.S @ B, np.linalg.inv(sigma.capacitance_cholesky)
            F = np.asarray(np.linalg.solve(R_inverse @ R_inverse.T + B.T @ SB, SB.T).T, dtype=np.float64)
            least = float(self.floor.max()) + OFF_FLOOR
            psi = BlockDiagonal.lifted(self.S - F @ SB.T, self.groups.members[1], least)
            sigma = BlockFactors(F, self.groups, psi)
        return sigma


def _lifted(block: Array, least: float) -> Array:
    """The symmetric part of a block, its eigenvalues brought up to `least`; itself where none is below."""
    block = 0.5 * (block + block.T)
    values, vectors = np.linalg.eigh(block)
    return block if values[0] >= least else np.asarray((vectors * np.maximum(values, least)) @ vectors.T)


@dataclass(frozen=True)
class BlockStructure(Structure):
    """Sigma = F F' + Psi with `rank` factors and a block of Psi for each group of the second level of `groups`."""

    rank: int
    groups: Blocks

    def start(self, S: Array, floor: Array) -> BlockFactors:
        """The blocks of S, without factors."""
        psi = BlockDiagonal.lifted(S, self.groups.members[1], float(floor.max()))
        return BlockFactors(np.zeros((len(S), 0)), self.groups, psi)

    def candidates(self, S: Array, floor: Array, *, tol: float = TIGHT) -> list[SigmaStep[BlockFactors]]:
        """Distinct local optima from several starts, best first.  O(K^3) an evaluation, some hundred a start."""
        checked_inputs(S, self.rank, floor)
        if self.rank == 0:
            return [SigmaStep(self.start(S, floor), 1.0)]
        search = _Search(S, self.groups, self.rank, floor)
        ends = [search.ended(search.z_of(search.after_em(each).psi), LOOSE) for each in search.starts()]
        distinct = merged([(search.value_and_slope(z)[0], 1, z) for z in ends])[:MAX_CANDIDATES]
        if tol < LOOSE:
            tight = [(agreed, search.ended(z, tol)) for _, agreed, z in distinct]
            distinct = merged([(search.value_and_slope(z)[0], agreed, z) for agreed, z in tight])
        return [SigmaStep(search.sigma(z), 1.0, len(ends), agreed) for _, agreed, z in distinct]

    def update(self, S: Array, floor: Array, start: BlockFactors, *, tol: float = TIGHT) -> SigmaStep[BlockFactors]:
        """The local optimum that the blocks of `start` lead to, or `start` where that is no better."""
        checked_inputs(S, self.rank, floor)
        if self.rank == 0:
            return SigmaStep(self.start(S, floor), 1.0)
        search = _Search(S, self.groups, self.rank, floor)
        found, before = search.sigma(search.ended(search.z_of(start.psi), tol)), start.nll(S)
        if found.nll(S) <= before + ROUNDING * max(1.0, abs(before)):
            return SigmaStep(found, 1.0)
        return SigmaStep(replace(start, F=np.pad(start.F, ((0, 0), (0, self.rank - start.rank)))), 0.0)

    def n_parameters(self, n_equations: int) -> int:
        """Loadings less rotations, and the entries of the blocks."""
        return _n_parameters(self.groups, self.rank)

    def pairs_asked_for(self, n_equations: int) -> NDArray[np.bool_]:
        """Those within a group."""
        return np.equal.outer(self.groups.codes[1], self.groups.codes[1])


BLOCKWISE = Kind((BlockFactors,), lambda sigma, how: BlockStructure(sigma.rank, sigma.groups))
