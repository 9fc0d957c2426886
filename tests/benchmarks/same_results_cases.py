"""The fits that `same_results.py` makes: small, deterministic, and between them through every road of the package.

A case is rows, the arguments of `LowRankGLS`, and what more than usual is asked of the fit. Rows come from
`numpy.random.default_rng` with fixed seeds, or from the packaged data set, so that two recordings fit the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from lrgls_dask import CompressedSystem, GroupedLowRank, LowRankGLS, SparseLowRank, System, TimeVarying
from lrgls_dask.datasets import load_french

__all__ = ["CASES", "Case"]

Maker = Callable[[Path], System]


@dataclass(frozen=True)
class Case:
    """One fit.

    rows : makes the system; may write stores into the folder it is given.  model : arguments of `LowRankGLS`.
    through : what is fitted instead of the rows themselves, such as the rows compressed.
    bootstraps : arguments of `Fit.bootstrap`, one mapping for each that is run.
    other : changes to `model` that make the nested or larger model of a likelihood ratio test.
    checkpoint : whether the fit is given a path for its progress.
    tight : whether the memory is so small that the residual covariance is not held.
    """

    name: str
    rows: Maker
    model: Mapping[str, Any]
    through: Callable[[System], System | CompressedSystem] | None = None
    bootstraps: tuple[Mapping[str, Any], ...] = ()
    other: Mapping[str, Any] | None = None
    checkpoint: bool = False
    tight: bool = False

    def make(self, folder: Path) -> tuple[System, System | CompressedSystem, LowRankGLS]:
        """The rows, what is fitted, and the estimator."""
        system = self.rows(folder)
        model = LowRankGLS(**self.model)
        if self.checkpoint:
            model.set_params(checkpoint=str(folder / "progress.zarr"))
        if self.tight:
            model.set_params(memory_limit=limit_without_covariance(model, system))
        return system, system if self.through is None else self.through(system), model


def limit_without_covariance(model: LowRankGLS, system: System) -> int:
    """Bytes of memory midway between the most that rule the (K, K) residual covariance out and the least that will do.

    Raises RuntimeError where there is no such limit.
    """
    top = LowRankGLS(**{**model.get_params(), "memory_limit": 10**12}).plan(system).peak
    suited = []
    for limit in range(top, max(top - 2**27, 1), -(2**20)):
        try:
            plan = LowRankGLS(**{**model.get_params(), "memory_limit": limit}).plan(system)
        except MemoryError:
            break
        if not plan.holds_sigma:
            suited.append(limit)
    if not suited:
        raise RuntimeError("no limit of memory rules the residual covariance out and leaves enough for the rest")
    return (suited[0] + suited[-1]) // 2


# ---------------------------------------------------------------------------------------------- rows


@dataclass(frozen=True)
class Simulated:
    """Rows with k strong common factors; calling it makes the system.

    kind : "own" regressors of each equation, "shared" ones, or "mixed", some of either, by incidence.
    holes : share of the responses that is missing, in `patterns` patterns or, if 0, scattered.  empty : rows that show
    nothing.  chunk : rows of a chunk of the zarr store the rows are put into; 0 keeps them in memory.
    twin : the second response is the first but for so much noise, a Heywood case.  offset : added to Y and X.
    """

    kind: str = "own"
    n: int = 300
    K: int = 6
    k: int = 2
    seed: int = 0
    weighted: bool = False
    grouped: bool = False
    holes: float = 0.0
    patterns: int = 0
    empty: int = 0
    chunk: int = 0
    twin: float = 0.0
    offset: float = 0.0
    dtype: str = "float64"
    drift: bool = False
    sectors: tuple[int, ...] = field(default=())

    def __call__(self, folder: Path) -> System:
        rng = np.random.default_rng([self.seed, self.n, self.K, self.k])
        X, columns = self._regressors(rng)
        weights = rng.uniform(0.3, 3.0, self.n) if self.weighted else None
        Y = np.column_stack([X[:, c] @ rng.normal(size=len(c)) for c in columns]) + self._errors(rng, weights)
        if self.twin:
            Y[:, 1] = Y[:, 0] + self.twin * rng.normal(size=self.n)
        if self.offset:
            Y, X = Y + self.offset, np.where(X == 1.0, 1.0, X + self.offset)
        Y = self._with_holes(Y, rng).astype(self.dtype)
        system = self._system(Y, X.astype(self.dtype), columns, weights)
        if not self.chunk:
            return system
        system.to_zarr(folder / "rows.zarr", row_chunk=self.chunk)
        return System.from_zarr(folder / "rows.zarr")

    def _regressors(self, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
        """(n, q) distinct columns, and which of them each equation has."""
        if self.kind == "own":
            starts = np.cumsum([0, *(2 + np.arange(self.K) % 3)])
            X = rng.normal(size=(self.n, starts[-1]))
            X[:, starts[:-1]] = 1.0
            return X, [np.arange(a, b) for a, b in pairwise(starts)]
        width = 3 if self.kind == "shared" else 1 + self.K
        X = np.column_stack([np.ones(self.n), rng.normal(size=(self.n, width))])
        if self.kind == "shared":
            return X, [np.arange(4)] * self.K
        return X, [np.unique([0, 1, 2 + j, 2 + j // 2]) for j in range(self.K)]

    def _errors(self, rng: np.random.Generator, weights: np.ndarray | None) -> np.ndarray:
        F = rng.normal(size=(self.K, self.k))
        size = 1.0 + (np.arange(self.n) // 60 % 3 if self.drift else np.zeros(self.n))
        E = size[:, None] * (rng.normal(size=(self.n, self.k)) @ F.T)
        E += rng.normal(size=(self.n, self.K)) * rng.uniform(0.5, 1.0, self.K)
        if self.sectors:
            own = rng.normal(size=(self.n, max(self.sectors) + 1))
            E += own[:, list(self.sectors)] * rng.uniform(0.5, 1.0, self.K)
        return E if weights is None else E / np.sqrt(weights)[:, None]

    def _with_holes(self, Y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        Y = Y.copy()
        if self.holes:
            holes = rng.random((self.patterns or self.n, self.K)) < self.holes
            Y[holes[np.arange(self.n) % len(holes)]] = np.nan
        Y[: self.empty] = np.nan
        return Y

    def _system(self, Y: np.ndarray, X: np.ndarray, columns: list[np.ndarray], weights: np.ndarray | None) -> System:
        groups = np.arange(self.n) // 60 if self.grouped else None
        if self.kind == "own":
            return System.from_arrays(Y, [X[:, c] for c in columns], weights=weights, groups=groups)
        incidence = None
        if self.kind == "mixed":
            incidence = np.zeros((X.shape[1], self.K), dtype=bool)
            for j, c in enumerate(columns):
                incidence[c, j] = True
        return System.from_arrays(Y, X, incidence=incidence, weights=weights, groups=groups)


def french(folder: Path) -> System:
    """The portfolio returns, all 30 equations, with a regressor of their own each; chunked, so read lazily."""
    ds = load_french().isel(time=slice(1, None)).chunk(time=120)
    x = ["const", "mktrf", "smb", "lag_return"]
    return System.from_xarray(ds, y="excess_return", x=x, obs="time", equation="portfolio")


def industries(folder: Path) -> System:
    """Ten of them on regressors that differ by equation, in memory, with groups of rows."""
    ds = load_french().isel(time=slice(1, None), portfolio=slice(8, 18))
    ds["decade"] = ds["time"].dt.year // 10
    x = {name: ["const", "mktrf", "smb"] if j % 2 else ["const", "mktrf", "hml", "mom"]
         for j, name in enumerate(ds["portfolio"].values.tolist())}  # fmt: skip
    return System.from_xarray(ds, y="excess_return", x=x, obs="time", equation="portfolio", groups="decade")


def constant_response(folder: Path) -> System:
    """One response is reproduced by its regressors, and one regressor is there twice."""
    rng = np.random.default_rng(11)
    X = np.column_stack([np.ones(200), rng.normal(size=(200, 2))])
    Y = X @ rng.normal(size=(3, 4)) + rng.normal(size=(200, 4))
    Y[:, 2] = X @ np.array([1.0, 2.0, 3.0])
    return System.from_arrays(Y, X)


def gone_over_twice(system: System) -> CompressedSystem:
    """The rows compressed, and the same rows appended."""
    return system.compress().append(system)


def every_third(system: System) -> CompressedSystem:
    """One of the parts that rows are compressed into by a label."""
    parts: dict[int, CompressedSystem] = system.compress(by=np.arange(system.n_obs) % 3)
    return parts[1]


def compressed(system: System) -> CompressedSystem:
    """The rows compressed."""
    found: CompressedSystem = system.compress()
    return found


# ---------------------------------------------------------------------------------------------- cases

OWN, SHARED, MIXED = Simulated("own"), Simulated("shared"), Simulated("mixed", weighted=True, grouped=True)
WIDE = Simulated("mixed", n=500, K=12, k=3, seed=1)
MANY = Simulated("shared", n=400, K=300, k=1, seed=9)
SMALL_MEMORY = {"engine": "stream", "tight": True}
LONG = Simulated("mixed", n=40_000, K=6, k=2, seed=2, chunk=2_000, weighted=True)
LARGE = Simulated("own", n=40_000, K=18, k=2, seed=13, chunk=4_000)  # long enough for cross-products in place of QR
SECTORS = Simulated("own", n=500, K=9, k=1, seed=3, sectors=(0, 0, 0, 1, 1, 1, 2, 2, 2))
DRIFT = Simulated("own", n=480, K=5, k=1, seed=4, drift=True, grouped=True)
FEW = Simulated("mixed", n=500, K=6, k=2, seed=5, holes=0.2, patterns=7)
SCATTERED = Simulated("own", n=1_500, K=10, k=2, seed=6, holes=0.25)
LONG_HOLES = replace(LONG, weighted=False, holes=0.1, patterns=30)
HOLED_SECTORS = Simulated("own", n=600, K=9, k=1, seed=7, sectors=SECTORS.sectors, holes=0.15, patterns=9)
HEYWOOD = Simulated("shared", n=240, K=6, k=1, seed=8, twin=1e-4)
YEARS = np.arange(480) // 60 + 2001
SECTOR_OF = {f"y{j}": f"s{group}" for j, group in enumerate(SECTORS.sectors)}
HALF_OF = {f"y{j}": "a" if j < 6 else "b" for j in range(9)}
TIED = ["y0:x0 = y1:x0", "y2:x1 + y5:x1 = 1"]
STREAM, EM = {"engine": "stream"}, {"missing": "em"}
DRAWS = {"n": 5, "seed": 1}


def case(name: str, rows: Maker, rank: Any = None, **options: Any) -> Case:
    """A case; options that are fields of it, and else arguments of the estimator."""
    own = {key: options.pop(key) for key in tuple(options) if key in Case.__dataclass_fields__}
    return Case(name, rows, options if rank is None else {"rank": rank, **options}, **own)


COMPLETE = (
    case("own", OWN, 2, bootstraps=(DRAWS,), other={"rank": 1}),
    case("shared", SHARED, 2, other={"rank": 0}),
    case("mixed-weights-groups", MIXED, 2, bootstraps=(DRAWS, {**DRAWS, "method": "cluster"})),
    case("rank0", MIXED, 0, other={"rank": 1}),
    case("rank-auto", WIDE, "auto"),
    case("rank-bic", WIDE, "bic"),
    case("rank-cv-rows", OWN, "cv", n_folds=4),
    case("rank-cv-blocks", MIXED, "cv", folds="blocks"),
    case("one-equation", Simulated("own", K=1, k=1)),
    case("two-equations", Simulated("own", K=2, k=1)),
    case("three-equations", Simulated("shared", K=3, k=1), 1),
    case("float32", Simulated("shared", n=400, K=5, k=1, dtype="float32"), 1),
    case("large-offset", Simulated("shared", n=400, K=5, k=1, offset=1e9), 1),
    case("exact-response", constant_response, 1),
    case("full", OWN, covariance="full", bootstraps=(DRAWS,), other={"covariance": "diagonal"}),
    case("full-weights", MIXED, covariance="full"),
    case("full-stream", MIXED, covariance="full", **STREAM),
    case("full-fgls", OWN, covariance="full", algorithm="fgls"),
    case("full-debiased", OWN, covariance="full", debiased=True),
    case("diagonal", OWN, covariance="diagonal"),
    case("diagonal-stream", SHARED, covariance="diagonal", **STREAM),
    case("stream-own", OWN, 2, other={"rank": 1}, **STREAM),
    case("stream-shared", SHARED, 2, **STREAM),
    case("stream-mixed", MIXED, 2, **STREAM),
    case("stream-bic", MIXED, "bic", **STREAM),
    case("stream-without-covariance", MANY, 1, **SMALL_MEMORY),
    case("stream-without-covariance-em", MANY, 1, algorithm="em", lam_B=1.0, **SMALL_MEMORY),
    case("stream-without-covariance-restricted", MANY, 1, restrictions=TIED, **SMALL_MEMORY),
    case("stream-without-covariance-refused", MANY, "bic", **SMALL_MEMORY),
    case("many-equations", Simulated("shared", n=500, K=210, k=2, seed=12), 2),
    case("cross-products", LARGE, 2),
    case("cross-products-lose-digits", replace(LARGE, offset=1e9), 1),
    case("cross-products-cv", LARGE, "cv", n_folds=2, restrictions=TIED),
    case("long", LONG, 2, bootstraps=({**DRAWS, "method": "blocks", "n_blocks": 8},)),
    case("long-bic", LONG, "bic"),
    case("long-stream", LONG, 2, **STREAM),
    case("long-stream-em", LONG, 2, algorithm="em", **STREAM),
    case("fgls", OWN, 2, algorithm="fgls", bootstraps=(DRAWS,)),
    case("fgls-stream", MIXED, 2, algorithm="fgls", **STREAM),
    case("em", MIXED, 2, algorithm="em", bootstraps=(DRAWS,)),
    case("em-bic", OWN, "bic", algorithm="em"),
    case("em-textbook", OWN, 1, algorithm="em", accelerate=False, max_sweeps=200),
    case("em-stream", OWN, 2, algorithm="em", **STREAM),
    case("em-stream-textbook", SHARED, 2, algorithm="em", accelerate=False, **STREAM),
    case("em-diagonal", SHARED, covariance="diagonal", algorithm="em"),
    case("pca", OWN, 2, sigma_step="pca", lam_F=0.1, max_sweeps=20),
    case("pca-stream", MIXED, 2, sigma_step="pca", max_sweeps=10, **STREAM),
    case("penalties", MIXED, 2, lam_F=0.02, lam_B=3.0, bootstraps=(DRAWS,)),
    case("penalties-stream", OWN, 2, lam_F=0.02, lam_B=3.0, **STREAM),
    case("penalty-of-coefficients", SHARED, 2, lam_B=1.0),
    case("penalty-of-loadings-em", OWN, 2, lam_F=0.05, algorithm="em"),
    case("debiased", OWN, 2, debiased=True),
    case("debiased-fgls", MIXED, 2, debiased=True, algorithm="fgls"),
    case("debiased-stream", OWN, 2, debiased=True, **STREAM),
    case("restrictions", OWN, 2, restrictions=TIED, bootstraps=(DRAWS,), other={"restrictions": TIED[:1]}),
    case("restrictions-stream", OWN, 2, restrictions=TIED, **STREAM),
    case("restrictions-fgls", OWN, 2, restrictions=TIED, algorithm="fgls"),
    case("restrictions-full", OWN, covariance="full", restrictions="*:x1 = 0.5"),
    case("restrictions-em", OWN, 2, restrictions=TIED, algorithm="em"),
    case("restrictions-penalty", OWN, 2, restrictions=TIED, lam_B=2.0, debiased=False),
    case("one-sweep", OWN, 2, max_sweeps=1),
    case("one-sweep-stream", MIXED, 2, max_sweeps=1, **STREAM),
    case("one-sweep-em", OWN, 2, max_sweeps=1, algorithm="em"),
    case("heywood", HEYWOOD, 1, d_floor=1e-6, bootstraps=(DRAWS,)),
    case("heywood-stream", HEYWOOD, 1, d_floor=1e-6, **STREAM),
    case("heywood-em", HEYWOOD, 1, d_floor=1e-6, algorithm="em"),
    case("compressed", MIXED, 2, through=compressed, bootstraps=(DRAWS,)),
    case("compressed-appended", OWN, "bic", through=gone_over_twice),
    case("compressed-by-label", SHARED, covariance="full", through=every_third),
    case("checkpoint", LONG, 2, checkpoint=True),
    case("checkpoint-stream", LONG, 1, checkpoint=True, **STREAM),
    case("french-bic", french, "bic", other={"rank": 1}),
    case("french-industries", industries, 2),
)

STRUCTURED = (
    case("sparse", WIDE, covariance=SparseLowRank(3, l1=0.05)),
    case("sparse-unpenalised", WIDE, covariance=SparseLowRank(2, l1=0)),
    case("sparse-bic", OWN, covariance=SparseLowRank(2), bootstraps=(DRAWS,)),
    case("sparse-stream", MIXED, covariance=SparseLowRank(2, l1=0.02), **STREAM),
    case("sparse-bic-stream", MIXED, covariance=SparseLowRank(1), restrictions="y0:x0 = y1:x0", **STREAM),
    case("grouped", SECTORS, covariance=GroupedLowRank(1, SECTOR_OF), bootstraps=(DRAWS,)),
    case("grouped-stream", SECTORS, covariance=GroupedLowRank(1, SECTOR_OF), **STREAM),
    case("grouped-two-levels", SECTORS, covariance=GroupedLowRank(1, [HALF_OF, SECTOR_OF], (1, 1))),
    case("grouped-no-general", SECTORS, covariance=GroupedLowRank(0, SECTOR_OF), restrictions="y0:x0 = y1:x0"),
    case("grouped-em", SECTORS, covariance=GroupedLowRank(1, SECTOR_OF), algorithm="em"),
    case("grouped-em-stream", SECTORS, covariance=GroupedLowRank(1, SECTOR_OF), algorithm="em", **STREAM),
    case("grouped-fgls", SECTORS, covariance=GroupedLowRank(1, SECTOR_OF), algorithm="fgls"),
    case("french-grouped", french, covariance=GroupedLowRank(1, "sort")),
    case("varying-apart", DRIFT, covariance=TimeVarying(1, YEARS, bandwidth=0)),
    case("varying-near", DRIFT, covariance=TimeVarying(1, YEARS, bandwidth=2.5)),
    case("varying-static", DRIFT, covariance=TimeVarying(1, YEARS, bandwidth=np.inf)),
    case("varying-cv", DRIFT, covariance=TimeVarying(1, "groups")),
    case("varying-restricted", DRIFT, covariance=TimeVarying(1, YEARS, 3), restrictions=TIED[:1], lam_B=0.5),
    case("varying-diagonal", DRIFT, covariance=TimeVarying(0, YEARS, 2), max_sweeps=1),
    case("french-varying", industries, covariance=TimeVarying(1, "groups", bandwidth="cv")),
)

MISSING = (
    case("missing-few", FEW, 2, other={"rank": 1}, **EM),
    case("missing-few-em", FEW, 2, algorithm="em", **EM),
    case("missing-few-stream", FEW, 2, **EM, **STREAM),
    case("missing-few-textbook", FEW, 1, algorithm="em", accelerate=False, **EM),
    case("missing-scattered", SCATTERED, 2, **EM),
    case("missing-scattered-em", SCATTERED, 2, algorithm="em", **EM),
    case("missing-scattered-bic", SCATTERED, "bic", rel_tol=1e-4, **EM),
    case("missing-weights", Simulated("mixed", K=6, seed=10, holes=0.2, patterns=5, empty=4, weighted=True), 1, **EM),
    case("missing-bic", FEW, "bic", **EM),
    case("missing-bic-em", FEW, "bic", algorithm="em", **EM),
    case("missing-diagonal", FEW, covariance="diagonal", **EM),
    case("missing-penalties", FEW, 2, lam_F=0.02, lam_B=1.0, **EM),
    case("missing-restrictions", Simulated("own", n=400, holes=0.2, patterns=6), 2, restrictions=TIED, **EM),
    case("missing-restrictions-stream", SCATTERED, 1, restrictions=TIED, algorithm="em", **EM),
    case("missing-grouped", HOLED_SECTORS, covariance=GroupedLowRank(1, SECTOR_OF), **EM),
    case("missing-grouped-em", HOLED_SECTORS, covariance=GroupedLowRank(1, SECTOR_OF), algorithm="em", **EM),
    case("missing-grouped-stream", HOLED_SECTORS, covariance=GroupedLowRank(1, SECTOR_OF), **EM, **STREAM),
    case("missing-heywood", Simulated("shared", K=6, k=1, seed=8, twin=1e-4, holes=0.1, patterns=6), 1, **EM),
    case("missing-one-sweep", FEW, 2, max_sweeps=1, **EM),
    case("missing-one-sweep-stream", SCATTERED, 2, max_sweeps=1, **EM),
    case("missing-checkpoint", SCATTERED, 1, checkpoint=True, **EM),
    case("missing-long", LONG_HOLES, 1, **EM),
    case("missing-long-stream", LONG_HOLES, 1, algorithm="em", **EM, **STREAM),
    case("missing-long-drop", LONG_HOLES, 1, missing="drop"),
    case("missing-none", OWN, 2, **EM),
    case("missing-none-stream", OWN, 2, **EM, **STREAM),
    case("missing-drop", FEW, 1, missing="drop", bootstraps=(DRAWS,)),
    case("missing-drop-stream", FEW, 1, missing="drop", **STREAM),
    case("missing-drop-varying", Simulated("own", n=480, K=5, k=1, holes=0.03, patterns=40),
         covariance=TimeVarying(1, YEARS, 2), missing="drop"),
)  # fmt: skip

REFUSED = (
    case("refused-missing", FEW, 2),
    case("refused-rank", OWN, 5),
    case("refused-patterns", SCATTERED, 1, engine="compress", **EM),
    case("refused-cv-stream", OWN, "cv", **STREAM),
    case("refused-groups", SECTORS, covariance=GroupedLowRank(1, {"y0": "a"})),
    case("refused-segments", OWN, covariance=TimeVarying(1, YEARS)),
    case("refused-restriction", OWN, 2, restrictions="y0:x0 = nothing:x1"),
    case("refused-compressed-stream", OWN, 2, through=compressed, **STREAM),
)

CASES: tuple[Case, ...] = (*COMPLETE, *STRUCTURED, *MISSING, *REFUSED)
