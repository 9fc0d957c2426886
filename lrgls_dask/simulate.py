"""Systems drawn from known parameters, at any size: to try the library, to size a job, to test an estimate.

Row i depends on the seed and on i alone: rows are drawn in cells of 100, each from a random stream of its own, so the
same seed gives the same numbers bit for bit whatever the chunks, the threads and the number of rows after them.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import scipy.sparse as sp
import xarray as xr

from lrgls_dask.system import System

__all__ = ["Simulation", "rows_for_bytes", "simulate_system", "simulate_to_zarr"]

CELL = 100  # rows drawn from one random stream: wide systems fill a cache-sized block, small chunks waste little
CHUNK_BYTES = 16 * 10**6  # of X and Y in one row chunk: 8 to 30 MB reads fastest
MAX_ROW_CHUNK = 100_000  # rows, so that a narrow system still has several chunks to work on side by side


@dataclass(frozen=True, eq=False)
class Recipe:
    """The parameters the rows are drawn from.  K equations, k factors, p own and s shared columns, the first ones.

    shared : (s, K) coefficients.  own : (K, p) coefficients.  loadings : (K, k).  idio_var : (K,).
    """

    seed: int
    shared: np.ndarray
    own: np.ndarray
    loadings: np.ndarray
    idio_var: np.ndarray

    @property
    def n_equations(self) -> int:
        return int(self.own.shape[0])

    @property
    def n_columns(self) -> int:
        return int(self.shared.shape[0] + self.own.size)

    @property
    def equations(self) -> list[str]:
        width = len(str(self.n_equations - 1))
        return [f"eq{j:0{width}d}" for j in range(self.n_equations)]

    @property
    def columns(self) -> list[str]:
        """The intercept and other shared columns, then the columns of each equation in turn."""
        shared = ["const", *(f"shared{c}" for c in range(1, len(self.shared)))][: len(self.shared)]
        return shared + [f"{name}_x{c}" for name in self.equations for c in range(self.own.shape[1])]

    def used(self) -> np.ndarray:
        """(K, s + p) the columns that each equation uses: the shared ones and its own."""
        n_shared = len(self.shared)
        shared = np.broadcast_to(np.arange(n_shared), (self.n_equations, n_shared))
        return np.hstack([shared, n_shared + np.arange(self.own.size).reshape(self.own.shape)])

    def incidence(self) -> sp.csc_array:
        """(q, K) bool, P numbers: shared columns in every equation, own columns in one."""
        used = self.used()
        edges = np.arange(self.n_equations + 1) * used.shape[1]
        shape = (self.n_columns, self.n_equations)
        return sp.csc_array((np.ones(used.size, dtype=bool), used.ravel(), edges), shape=shape)

    def params(self) -> np.ndarray:
        """(P,) coefficients ordered by equation, the shared columns first within each."""
        return np.hstack([self.shared.T, self.own]).ravel()

    def _cell(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """X (CELL, q) and Y (CELL, K) of the rows index * CELL onwards."""
        rng = _stream(self.seed, 1 + index)
        n_equations, n_own = self.own.shape
        n_shared = len(self.shared)
        x = rng.standard_normal((CELL, self.n_columns))
        x[:, : min(n_shared, 1)] = 1.0
        own = x[:, n_shared:].reshape(CELL, n_equations, n_own)
        y = np.einsum("ijc,jc->ij", own, self.own) + x[:, :n_shared] @ self.shared
        y += rng.standard_normal((CELL, self.loadings.shape[1])) @ self.loadings.T
        y += rng.standard_normal((CELL, n_equations)) * np.sqrt(self.idio_var)
        return x, y

    def draw(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """X (n, q) and Y (n, K) of rows start .. stop - 1.  Memory: the result and one cell."""
        x = np.empty((stop - start, self.n_columns))
        y = np.empty((stop - start, self.n_equations))
        for index in range(start // CELL, -(-stop // CELL)):
            low, high = max(start, index * CELL), min(stop, (index + 1) * CELL)
            cell_x, cell_y = self._cell(index)
            inside = slice(low - index * CELL, high - index * CELL)
            x[low - start : high - start], y[low - start : high - start] = cell_x[inside], cell_y[inside]
        return x, y


@dataclass(frozen=True, eq=False)
class Simulation:
    """A system that has not been drawn yet and the parameters it will be drawn from.

    system : lazy; its rows are drawn chunk by chunk when a fit asks for them.
    params : (coefficient,) labelled like Fit.params.  loadings : (equation, factor).  idio_var : (equation,).
    """

    system: System
    params: xr.DataArray
    loadings: xr.DataArray
    idio_var: xr.DataArray

    def sigma(self) -> xr.DataArray:
        """F F' + diag(d), the error covariance between equations, dims (equation, equation_)."""
        f = self.loadings.to_numpy()
        names = self.loadings["equation"].to_numpy()
        return xr.DataArray(
            f @ f.T + np.diag(self.idio_var.to_numpy()),
            dims=("equation", "equation_"),
            coords={"equation": names, "equation_": names},
            name="sigma",
        )


def simulate_system(
    *,
    n_obs: int,
    n_equations: int,
    n_regressors: int,
    rank: int,
    n_shared: int = 0,
    seed: int = 0,
    row_chunk: int | None = None,
) -> Simulation:
    """A lazy system y_j = X_j b_j + e_j with e ~ N(0, F F' + diag(d)), and its true parameters.

    n_obs : N rows.  n_equations : K.  n_regressors : p columns of its own for each equation.
    n_shared : columns used by all equations, stored once; the first of them is an intercept named "const".
    rank : k factors; 0 draws independent equations.  row_chunk : rows per chunk; by default about 16 MB of X and Y.

    Regressors, coefficients and factors are standard normal, loadings N(0, 1/k), d uniform on 0.2 .. 1. Nothing is
    drawn here except the parameters; drawing a chunk needs its own memory, about 8 (q + K) bytes a row.
    Raises ValueError for sizes that are not whole numbers or out of range.
    """
    recipe = _recipe(n_equations, n_regressors, n_shared, rank, seed)
    n_obs = _whole("n_obs", n_obs, 1)
    rows = (
        default_row_chunk(recipe.n_columns + recipe.n_equations)
        if row_chunk is None
        else _whole("row_chunk", row_chunk, 1)
    )
    x, y = _lazy_arrays(recipe, n_obs, rows)
    system = System.from_arrays(
        y, x, incidence=recipe.incidence(), equations=recipe.equations, regressors=recipe.columns
    )
    return _labelled(recipe, system)


def simulate_to_zarr(
    path: str | Path,
    *,
    n_obs: int,
    n_equations: int,
    n_regressors: int,
    rank: int,
    n_shared: int = 0,
    seed: int = 0,
    row_chunk: int | None = None,
    overwrite: bool = False,
) -> Simulation:
    """`simulate_system`, written to a store of format 1 and opened again from there.

    One pass of writing, no more than a few chunks in memory; 8 (q + K) bytes of disk a row. The store holds the data
    only; the true parameters are in the value returned, and come back from `simulate_system` with the same arguments.
    Raises FileExistsError when the path exists and overwrite is False, OSError when the disk has too little room.
    """
    recipe = _recipe(n_equations, n_regressors, n_shared, rank, seed)
    _check_room(Path(path), 8 * _whole("n_obs", n_obs, 1) * (recipe.n_columns + recipe.n_equations))
    stored_rows = None if row_chunk is None else _whole("row_chunk", row_chunk, 1)
    drawn = simulate_system(  # in chunks of the default size: small stored chunks are cut from them, not drawn singly
        n_obs=n_obs,
        n_equations=n_equations,
        n_regressors=n_regressors,
        rank=rank,
        n_shared=n_shared,
        seed=seed,
    )
    drawn.system.to_zarr(path, overwrite=overwrite, row_chunk=stored_rows or _default_chunk(recipe))
    return replace(drawn, system=System.from_zarr(path))


def rows_for_bytes(n_bytes: float, *, n_equations: int, n_regressors: int, n_shared: int = 0) -> int:
    """The number of rows whose X and Y together fill n_bytes; at least 1."""
    return max(1, int(n_bytes) // (8 * (n_equations * (n_regressors + 1) + n_shared)))


def default_row_chunk(n_columns: int) -> int:
    """Rows per chunk for about 16 MB of X and Y together, in whole cells.

    n_columns : of both.
    """
    rows = CHUNK_BYTES // (8 * n_columns)
    return min(MAX_ROW_CHUNK, max(CELL, rows - rows % CELL))


def _default_chunk(recipe: Recipe) -> int:
    return default_row_chunk(recipe.n_columns + recipe.n_equations)


def _recipe(n_equations: int, n_regressors: int, n_shared: int, rank: int, seed: int) -> Recipe:
    n_equations = _whole("n_equations", n_equations, 1)
    n_regressors = _whole("n_regressors", n_regressors, 0)
    n_shared = _whole("n_shared", n_shared, 0)
    rank = _whole("rank", rank, 0)
    if n_regressors + n_shared == 0:
        raise ValueError("n_regressors and n_shared are both 0: an equation needs at least one regressor.")
    if rank > n_equations:
        raise ValueError(f"rank is {rank} but there are {n_equations} equations: use at most as many factors.")
    rng = _stream(_whole("seed", seed, 0), 0)
    return Recipe(
        seed=int(seed),
        shared=rng.standard_normal((n_shared, n_equations)),
        own=rng.standard_normal((n_equations, n_regressors)),
        loadings=rng.standard_normal((n_equations, rank)) / np.sqrt(max(rank, 1)),
        idio_var=rng.uniform(0.2, 1.0, n_equations),
    )


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}.")
    return int(value)


def _stream(seed: int, key: int) -> np.random.Generator:
    """The random stream number key of this seed, independent of every other one."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=(key,))))


def _lazy_arrays(recipe: Recipe, n_obs: int, row_chunk: int) -> tuple[da.Array, da.Array]:
    """X (N, q) and Y (N, K) in chunks of rows; a chunk of both comes from one draw."""
    starts = np.arange(0, n_obs, row_chunk)
    lengths = tuple(np.diff(starts, append=n_obs).tolist())
    places = da.from_array(starts, chunks=1)
    drawn = da.map_blocks(_draw_block, places, row_chunk, recipe, n_obs, meta=np.empty(0, object))

    def pick(which: int, width: int) -> da.Array:
        return drawn.map_blocks(
            _pick, which=which, new_axis=1, chunks=(lengths, (width,)), dtype=np.float64, meta=np.empty((0, 0))
        )

    return pick(0, recipe.n_columns), pick(1, recipe.n_equations)


def _draw_block(start: np.ndarray, row_chunk: int, recipe: Recipe, n_obs: int) -> np.ndarray:
    """An array of one element, the pair (X, Y) of the chunk that starts here."""
    pair = np.empty(1, dtype=object)
    pair[0] = recipe.draw(int(start[0]), min(int(start[0]) + row_chunk, n_obs))
    return pair


def _pick(pair: np.ndarray, which: int) -> np.ndarray:
    """X (which = 0) or Y (which = 1) of one chunk."""
    return pair[0][which]


def _labelled(recipe: Recipe, system: System) -> Simulation:
    """The true parameters under the labels a fit would give them."""
    equations = np.array(recipe.equations, dtype=object)
    used = recipe.used()
    columns = np.array(recipe.columns, dtype=object)
    coefficient = {
        "equation": ("coefficient", np.repeat(equations, used.shape[1])),
        "regressor": ("coefficient", columns[used.ravel()]),
    }
    return Simulation(
        system=system,
        params=xr.DataArray(recipe.params(), dims="coefficient", coords=coefficient, name="params"),
        loadings=xr.DataArray(
            recipe.loadings, dims=("equation", "factor"), coords={"equation": equations}, name="loadings"
        ),
        idio_var=xr.DataArray(recipe.idio_var, dims="equation", coords={"equation": equations}, name="idio_var"),
    )


def _check_room(path: Path, n_bytes: int) -> None:
    """Refuse to start what the disk cannot hold."""
    parent = next(folder for folder in path.resolve().parents if folder.is_dir())
    free = shutil.disk_usage(parent).free
    if n_bytes > free:
        raise OSError(f"{path} needs {n_bytes / 1e9:.1f} GB but {parent} has {free / 1e9:.1f} GB free. Use fewer rows.")
