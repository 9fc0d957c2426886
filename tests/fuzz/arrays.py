"""Arrays of any kind, chunking and dtype, with holes, weights, restrictions and options, against dense answers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
import zarr

from fuzz.dense import Cells, solved
from fuzz.judge import require
from fuzz.labels import labels
from lrgls_dask import Fit, LowRankGLS, System
from support.oracle import Dense

DTYPES = ("f8",) * 6 + ("f4", "f2", ">f8", "i4", "u2", "i8", "?", "O", "c16", "U3", "M8[ns]", "m8[s]")
WRAPS = ("numpy",) * 4 + ("fortran", "strided", "dask", "dask", "zarr", "pandas", "xarray", "list", "masked", "matrix")


@dataclass(frozen=True)
class Drawn:
    """What a case fits: arrays as the dense oracle takes them, and the call as a user makes it.

    held : R, r of restrictions.
    """

    Y: np.ndarray
    Xs: list[np.ndarray]
    weights: np.ndarray | None
    call: dict[str, Any]
    options: dict[str, Any]
    held: tuple[np.ndarray, np.ndarray] | None = None
    columns: list[np.ndarray] = field(default_factory=list)


def run(rng: np.random.Generator) -> None:
    """One case: drawn, fitted, compared."""
    drawn = draw(rng)
    fit = LowRankGLS(**drawn.options).fit(System.from_arrays(**drawn.call)).result_
    check_labels(fit, drawn)
    check(fit, drawn)
    if rng.random() < 0.3:
        check_kept(fit)
    if rng.random() < 0.3:
        check_rows(fit, drawn)


def pick(rng: np.random.Generator, *choices: Any) -> Any:
    """One of them, as it is."""
    return choices[rng.integers(len(choices))]


def draw(rng: np.random.Generator) -> Drawn:
    """Arrays, then how they are given, then options."""
    K, N = int(rng.integers(1, 6)), int(rng.integers(12, 45))
    if rng.random() < 0.03:
        N = int(rng.integers(0, 5))
    Y, X, columns = numbers(rng, N, K)
    kind = pick(rng, "shared", "own", "mixed") if columns is None else "mixed"
    if columns is None:
        columns = designs(rng, kind, X.shape[1], K)
    Y = with_holes(rng, Y)
    dtype = np.dtype(pick(rng, *DTYPES)) if rng.random() < 0.3 else np.dtype("f8")
    X, given_X = stored(rng, X, pick(rng, dtype, np.dtype("f8")))
    Y, given_Y = stored(rng, Y, pick(rng, dtype, np.dtype("f8")))
    call: dict[str, Any] = {"Y": wrapped(rng, given_Y)}
    if kind == "own":
        call["Xs"] = [wrapped(rng, given_X[:, c]) for c in columns]
    else:
        call["Xs"] = wrapped(rng, given_X)
    if kind == "mixed":
        incidence = np.zeros((X.shape[1], K), dtype=pick(rng, bool, int, float))
        for j, c in enumerate(columns):
            incidence[c, j] = 1
        call["incidence"] = incidence
    weights = weighted(rng, N, K)
    if weights is not None:
        call["weights"] = wrapped(rng, weights) if weights.ndim < 2 or rng.random() < 0.7 else weights
    if rng.random() < 0.4:
        call["equations"] = labels(rng, K)
    if rng.random() < 0.4 and kind != "own":
        call["regressors"] = labels(rng, X.shape[1])
    if rng.random() < 0.1:
        call["groups"] = rng.integers(0, 4, N)
    chosen = options(rng, K)
    if rng.random() < 0.85:
        chosen = sensible(rng, chosen, K, bool(np.isnan(Y).any() or (weights is not None and (weights == 0).any())))
    drawn = Drawn(Y, [X[:, c] for c in columns], weights, call, chosen, None, columns)
    return restricted(rng, drawn) if rng.random() < 0.15 else drawn


def numbers(rng: np.random.Generator, N: int, K: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray] | None]:
    """Y (N, K) and X (N, q): ordinary, of any level and scale, collinear, constant, of few values."""
    q = int(rng.integers(1, 6))
    X = rng.normal(size=(N, q))
    if rng.random() < 0.7:
        X[:, 0] = 1.0
    if rng.random() < 0.1:
        X[:, -1] = rng.integers(0, 2, N)
    if rng.random() < 0.05:
        X[:, -1] = X[:, 0] * 2.0
    if rng.random() < 0.03:
        X[:, -1] = 0.0
    F = rng.normal(size=(K, int(rng.integers(0, 3))))
    E = rng.normal(size=(N, F.shape[1])) @ F.T + rng.normal(size=(N, K)) * rng.uniform(0.3, 1.5, K)
    Y = X @ rng.normal(size=(q, K)) + E
    if rng.random() < 0.15:
        Y = (Y + rng.choice([0.0, 1e3, -1e5])) * 10.0 ** rng.integers(-9, 10, K)  # levels that doubles hold
    if rng.random() < 0.15:
        X = X * 10.0 ** rng.integers(-9, 10, q)
    if rng.random() < 0.1:
        X = X + np.where(np.ptp(X, axis=0) > 0, rng.choice([0.0, 1e3], q) * np.ptp(X, axis=0), 0.0) if N else X
    if rng.random() < 0.05 and K > 1:
        Y[:, 1] = Y[:, 0]
    if rng.random() < 0.05:
        Y[:, 0] = rng.choice([0.0, 1.0, 0.1])
    if rng.random() < 0.02 and N:
        Y[rng.integers(N), 0] = rng.choice([np.inf, -np.inf, 1e308, 5e-324])
    if rng.random() < 0.03 and N:
        X[rng.integers(N), -1] = rng.choice([np.inf, np.nan, 1e308, 1e200])
    return Y, X, None


def designs(rng: np.random.Generator, kind: str, q: int, K: int) -> list[np.ndarray]:
    if kind == "shared":
        return [np.arange(q)] * K
    found = [np.flatnonzero(rng.random(q) < 0.7) for _ in range(K)]
    if rng.random() < 0.97:
        found = [c if len(c) else np.array([0]) for c in found]
    return found


def with_holes(rng: np.random.Generator, Y: np.ndarray) -> np.ndarray:
    """None, scattered, late starts, or whole equations and rows."""
    how, Y = rng.random(), Y.copy()
    if how < 0.15:
        Y[rng.random(Y.shape) < rng.choice([0.02, 0.2, 0.6])] = np.nan
    elif how < 0.25 and len(Y):
        for j in range(Y.shape[1]):
            Y[: rng.integers(0, max(len(Y) // 2, 1)), j] = np.nan
    elif how < 0.28:
        Y[:, rng.integers(Y.shape[1])] = np.nan
    return Y


def stored(rng: np.random.Generator, a: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, Any]:
    """The numbers that a dtype keeps, as floats, and in it; numbers that it has none for become what it has."""
    if dtype.kind in "iu?":
        finite = np.where(np.isfinite(a), a, 0.0)
        info = (0, 1) if dtype.kind == "?" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        kept = np.clip(np.round(3 * np.clip(finite, -1e14, 1e14)), max(info[0], -(2**50)), min(info[1], 2**50)).astype(
            dtype
        )
        return kept.astype(float), kept
    with np.errstate(all="ignore"):
        if dtype.kind == "f":
            kept = a.astype(dtype)
            return kept.astype(float), kept
        if dtype.kind in "mM":
            return a, np.nan_to_num(a, posinf=0, neginf=0).astype("i8").astype(dtype)
        return a, a.astype(dtype)


def wrapped(rng: np.random.Generator, a: np.ndarray) -> Any:
    """The same numbers in another container."""
    how = pick(rng, *WRAPS)
    if a.dtype.kind in "OUmMc" or len(a) == 0:
        return a
    if how == "fortran":
        return np.asfortranarray(a)
    if how == "strided":
        wide = np.zeros((2 * len(a), *a.shape[1:]), dtype=a.dtype)
        wide[::2] = a
        return wide[::2]
    if how == "dask":
        rows = chunks(rng, len(a))
        return da.from_array(a, chunks=(rows, *(((n,) if rng.random() < 0.8 else 1) for n in a.shape[1:])))
    if how == "zarr" and a.dtype != np.dtype("?"):
        into = zarr.create_array(
            zarr.storage.MemoryStore(),
            shape=a.shape,
            chunks=(int(rng.integers(1, len(a) + 1)), *a.shape[1:]),
            dtype=a.dtype,
            config={"write_empty_chunks": True},
        )
        into[...] = a
        return into
    if how == "pandas" and a.dtype.isnative:
        return pd.DataFrame(a) if a.ndim == 2 and rng.random() < 0.9 else pd.Series(a) if a.ndim == 1 else a
    if how == "xarray":
        return xr.DataArray(a, dims=("obs", "equation")[: a.ndim]) if rng.random() < 0.7 else a
    if how == "list":
        return a.tolist() if rng.random() < 0.2 else a
    if how == "masked":
        return np.ma.masked_array(a) if rng.random() < 0.3 else a
    if how == "matrix":
        return a
    return a


def chunks(rng: np.random.Generator, n: int) -> tuple[int, ...]:
    cuts = np.unique(rng.integers(0, n + 1, size=int(rng.integers(0, 5))))
    lengths = np.diff([0, *cuts[(cuts > 0) & (cuts < n)], n])
    return tuple(int(length) for length in lengths)


def weighted(rng: np.random.Generator, N: int, K: int) -> np.ndarray | None:
    how = rng.random()
    shapes = {0: (N,), 1: (N, K), 2: (K,)}
    if how > 0.35:
        return None
    w = rng.uniform(0.2, 4.0, size=shapes[int(how * 20) % 3])
    if rng.random() < 0.3:
        w = np.where(rng.random(w.shape) < 0.1, 0.0, w)
    if rng.random() < 0.05 and w.size:
        w.flat[0] = rng.choice([-1.0, np.nan, np.inf, 1e-300, 1e300])
    return w


def options(rng: np.random.Generator, K: int) -> dict[str, Any]:
    """Of the estimator, each with its own chance, in any combination."""
    chosen: dict[str, Any] = {"rank": pick(rng, 0, 1, 1, 1, 2, "auto", "auto", "bic", "parallel", "eigenvalue-ratio")}
    if rng.random() < 0.3:
        chosen = {"covariance": pick(rng, "full", "diagonal")}
    maybe = {
        "algorithm": (0.3, ("als", "fgls", "em", "ols")),
        "engine": (0.3, ("compress", "stream")),
        "missing": (0.45, ("em", "em", "drop")),
        "debiased": (0.1, (True, "Theil", "max")),
        "lam_F": (0.08, (0.1, 2.0)),
        "lam_B": (0.1, (0.5, 20.0, 1e-6)),
        "use": (0.2, ("t", "normal", "system-t")),
        "sigma_step": (0.05, ("pca",)),
        "d_floor": (0.05, (1e-12, 1e-2)),
        "unusable": (0.25, ("skip",)),
        "accelerate": (0.03, (False,)),
        "improper": (0.05, ("avoid",)),
        "max_sweeps": (0.03, (1, 3)),
        "ranks": (0.03, ([0, 1], [1, 2], [2])),
        "cg_tol": (0.03, (1e-4, 1e-14)),
    }
    for name, (chance, values) in maybe.items():
        if rng.random() < chance:
            chosen[name] = pick(rng, *values)
    if rng.random() < 0.03 and "covariance" not in chosen:
        chosen |= {"rank": "cv", "n_folds": int(rng.integers(2, 5)), "folds": pick(rng, "rows", "blocks")}
    return chosen


def sensible(rng: np.random.Generator, chosen: dict[str, Any], K: int, holes: bool) -> dict[str, Any]:
    """The same without most of what is refused at once."""
    chosen = dict(chosen)
    most = max(k for k in range(K) if k == 0 or (K - k) ** 2 >= K + k)
    if holes and "missing" not in chosen:
        chosen["missing"] = pick(rng, "em", "em", "drop")
    if isinstance(chosen.get("rank"), int):
        chosen["rank"] = min(chosen["rank"], most)
    by_data = ("parallel", "eigenvalue-ratio")
    if most == 0 or "covariance" in chosen or (chosen.get("rank") in by_data and "missing" in chosen):
        chosen.pop("rank", None)
    gone = {"ranks", "improper"} if most < 2 or chosen.get("rank") != "bic" else set()
    gone |= {"lam_F", "sigma_step", "ranks", "improper"} if "covariance" in chosen else set()
    gone |= {"debiased", "sigma_step"} if chosen.get("missing") == "em" or chosen.get("algorithm") == "em" else set()
    gone |= {"accelerate"} if chosen.get("algorithm") != "em" else set()
    gone |= {"lam_B", "lam_F"} if chosen.get("algorithm") in ("ols", "fgls") else set()
    gone |= {"algorithm"} if chosen.get("algorithm") == "em" and chosen.get("covariance") == "full" else set()
    return {name: value for name, value in chosen.items() if name not in gone}


def restricted(rng: np.random.Generator, drawn: Drawn) -> Drawn:
    """One or two restrictions, as a pair (R, r)."""
    P = sum(X.shape[1] for X in drawn.Xs)
    R = np.zeros((int(rng.integers(1, 3)), P))
    for row in R:
        row[rng.integers(P)] = 1.0
        if rng.random() < 0.6:
            row[rng.integers(P)] -= rng.choice([1.0, 0.5])
    r = rng.choice([0.0, 1.0], len(R))
    return replace(drawn, options=drawn.options | {"restrictions": (R, r)}, held=(R, r))


# ------------------------------------------------------------------------------------------------- what must hold


def check_labels(fit: Fit, drawn: Drawn) -> None:
    """Results carry the labels that were given, in their order."""
    given = drawn.call.get("equations")
    if given is not None:
        plain = [each.item() if isinstance(each, np.generic) else each for each in given]
        require(list(fit.equations) == plain, f"equations {fit.equations} for {plain}")


def cells_of(drawn: Drawn) -> Cells:
    """What the fit is told to use: rows without all their cells are dropped with missing="drop"."""
    weights = drawn.weights
    cells = Cells.of(drawn.Y, drawn.Xs, weights)
    if drawn.options.get("missing") == "drop":
        bad = (cells.weights == 0).any(axis=1)
        for X in drawn.Xs:
            bad |= np.isnan(X).any(axis=1)
        cells = cells.take(~bad)
    return cells.take((cells.weights > 0).any(axis=1))


def check(fit: Fit, drawn: Drawn) -> None:
    """Log-likelihood, coefficients, Sigma and standard errors of what was estimated."""
    b, sigma = fit.params.values, fit.sigma().values
    kept = [j for j, said in enumerate(fit.status.values.tolist()) if not np.isnan(sigma[j, j])]
    if len(kept) < len(sigma):
        if not kept or drawn.held is not None:
            return
        owner = np.repeat(np.arange(len(sigma)), [X.shape[1] for X in drawn.Xs])
        require(np.isnan(b[~np.isin(owner, kept)]).all(), "coefficients of equations without a Sigma")
        weights = drawn.weights if drawn.weights is None or drawn.weights.shape == drawn.Y.shape[:1] else (
            drawn.weights[..., kept])  # fmt: skip
        drawn = replace(drawn, Y=drawn.Y[:, kept], Xs=[drawn.Xs[j] for j in kept], weights=weights)
        b, sigma = b[np.isin(owner, kept)], sigma[np.ix_(kept, kept)]
    require(np.isfinite(b).all() and np.isfinite(sigma).all(), "not finite")
    cells = cells_of(drawn)
    scale = max(cells.Y.size, 1)
    hard = np.linalg.cond(sigma / np.sqrt(np.outer(np.diag(sigma), np.diag(sigma))))
    found = cells.loglik(b, sigma)
    require(
        abs(found - fit.loglik) < scale * (1e-7 + 1e-15 * hard) + 1e-9 * abs(found), f"loglik {fit.loglik}, is {found}"
    )
    check_coefficients(fit, drawn, cells, b, sigma, hard)
    check_sigma(fit, drawn, cells, b, sigma)


def check_coefficients(fit: Fit, drawn: Drawn, cells: Cells, b: np.ndarray, sigma: np.ndarray, hard: float) -> None:
    """GLS at the Sigma of the fit, or least squares, in units of standard errors."""
    algorithm = drawn.options.get("algorithm", "als")
    if drawn.held is not None:
        R, r = drawn.held
        require(np.allclose(R @ b, r, rtol=1e-6, atol=1e-6 * max(1.0, np.abs(R * b).max())), f"R b = {R @ b}, r = {r}")
    A, a = cells.normal(sigma)
    unit = np.sqrt(np.diag(A))
    if not (unit > 0).all() or np.linalg.cond(A / np.outer(unit, unit)) > 1e8 or hard > 1e9:
        return
    inverse = np.linalg.inv(A / np.outer(unit, unit)) / np.outer(unit, unit)
    errors = np.sqrt(np.diag(inverse))
    plain = drawn.options.get("lam_B", 0) == 0
    converged = fit.termination.name == "CONVERGED" or algorithm == "fgls"
    if plain and drawn.held is None and algorithm != "ols" and not drawn.options.get("use"):
        require(np.allclose(fit.std_errors.values[~np.isnan(fit.params.values)], errors, rtol=1e-4),
                f"std_errors {fit.std_errors.values}, are {errors}")  # fmt: skip
    if not converged:
        return
    if algorithm == "ols":
        best = cells.ols() if drawn.held is None else None
    elif plain:
        scaled = None if drawn.held is None else (drawn.held[0] / unit, drawn.held[1])
        best = solved(A / np.outer(unit, unit), a / unit, scaled) / unit
    elif (cells.weights == cells.weights[:, :1]).all() and drawn.held is None:
        best = Dense(cells.Y, cells.Xs, cells.weights[:, 0], lam_B=drawn.options["lam_B"]).gls(sigma)
    else:
        best = None
    if best is not None:
        loose = 2e-2 if fit.engine == "stream" or drawn.options.get("cg_tol") else 1e-4
        off = np.abs(b - best) / (errors + 1e-8 * np.abs(best))
        require(off.max() < loose * (1 + 1e-7 * hard), f"coefficients off by {off.max():.2g} standard errors")


def check_sigma(fit: Fit, drawn: Drawn, cells: Cells, b: np.ndarray, sigma: np.ndarray) -> None:
    """Where Sigma maximises the likelihood there is no way up, and where it is all that errors say it is that."""
    options = drawn.options
    plain = not (options.keys() & {"debiased", "lam_F", "sigma_step", "max_sweeps"})
    if not plain or options.get("algorithm", "als") not in ("als", "em") or fit.termination.name != "CONVERGED":
        return
    unit = np.sqrt(np.diag(sigma))
    G = cells.by_sigma(b, sigma) * np.outer(unit, unit)
    floor = fit.on_floor
    loose = 5e-2 if fit.engine == "stream" or (cells.weights == 0).any() else 2e-3
    if floor:
        return
    if options.get("covariance") == "full":
        off = np.abs(G).max()
    else:
        F = fit.loadings.values if "covariance" not in options else np.zeros((len(fit.equations), 0))
        F = F[~np.isnan(fit.sigma().values.diagonal())]
        d = (sigma - F @ F.T).diagonal() / unit**2
        off = max(np.abs(np.diag(G) * d).max(), np.abs(G @ (F / unit[:, None])).max(initial=0.0))
    require(off < loose, f"Sigma is off its optimum: gradient {off:.2g}")


def check_kept(fit: Fit) -> None:
    """Saved and opened, it is the same fit."""
    store = zarr.storage.MemoryStore()
    fit.to_zarr(store)
    again = Fit.from_zarr(store)
    for name in ("params", "std_errors", "idio_var"):
        one, other = getattr(fit, name), getattr(again, name)
        require(one.identical(other), f"{name} is another when it is opened")
    require(fit.loglik == again.loglik, "loglik is another when it is opened")
    require(fit.summary() == again.summary(), "summary is another when it is opened")


def check_rows(fit: Fit, drawn: Drawn) -> None:
    """Fitted values and residuals."""
    b = fit.params.values
    if np.isnan(b).any():
        return
    parts = np.split(b, np.cumsum([X.shape[1] for X in drawn.Xs])[:-1])
    expected = np.column_stack([X @ part for X, part in zip(drawn.Xs, parts, strict=True)])
    system = System.from_arrays(**drawn.call)
    found = np.asarray(fit.predict(system))
    require(
        np.allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max(initial=1.0), equal_nan=True),
        "predict",
    )
