"""Standard errors, a Wald test of one coefficient in every equation and kinds of covariance, of short and wide systems
and of very many coefficients, beside the fit they follow.

Wide systems share five regressors; subsets are of some of 24 shared ones; own regressors are streamed with X'X thrown
away, so that errors come from passes over the rows: all of them with the information matrix in memory, and those of one
equation by conjugate gradients. No case forms an array of all pairs of coefficients but that one.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np
from harness import Case, Report, Session, Task, main, timed

from lrgls_dask import FitWarning, LowRankGLS, System

SEED, LAG = 0, 4
FULL: dict[str, Any] = {
    "wide": [(480, 1_782, 8), (292, 6_000, 8), (292, 14_000, 15)],
    "subsets": (400, 10_000, 4),
    "own": (20_000, 400, 10),
}
SMALL: dict[str, Any] = {"wide": [(60, 80, 2)], "subsets": (80, 60, 2), "own": (600, 12, 4)}


def _system(n_obs: int, n_equations: int, rank: int, X: np.ndarray, **options: Any) -> System:
    rng = np.random.default_rng(SEED)
    factors = rng.normal(size=(n_obs, rank)) @ rng.normal(size=(rank, n_equations))
    return System.from_arrays(factors + rng.normal(size=(n_obs, n_equations)), X, **options)


def wide(n_obs: int, n_equations: int, rank: int) -> dict[str, Any]:
    """One-step estimates, whose covariances cost what those of others do."""
    rng = np.random.default_rng(SEED + 1)
    X = np.column_stack([np.ones(n_obs), rng.normal(size=(n_obs, 4))])
    fit = LowRankGLS(rank, algorithm="fgls").fit(_system(n_obs, n_equations, rank, X)).result_
    name, first = fit.regressors[1], fit.equations[0]
    fit.wald_test(f"{first}:{name} = 0")  # loads what tests need
    found, seconds = timed(lambda: fit.wald_test(f"*:{name} = 0"))
    _, equal = timed(lambda: fit.wald_test(f"*:{name} = {first}:{name}"))
    _, summary = timed(fit.summary)
    kinds = {}
    groups = np.arange(n_obs) // LAG
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)  # of fewer groups than coefficients
        for kind, options in (("robust", {}), ("hac", {}), ("cluster", {"groups": groups})):
            kinds[f"{kind}_seconds"] = timed(lambda: fit.with_cov(kind, **options).std_errors)[1]  # noqa: B023
    statistic = {"statistic_over_df": found.statistic / found.df, "df": found.df}
    return {"seconds": seconds, "equal_seconds": equal, "summary_seconds": summary, **kinds, **statistic}


def subsets(n_obs: int, n_equations: int, rank: int) -> dict[str, Any]:
    """20 of 24 shared regressors in every equation."""
    rng = np.random.default_rng(SEED + 1)
    X = np.column_stack([np.ones(n_obs), rng.normal(size=(n_obs, 23))])
    incidence = np.ones((24, n_equations), dtype=bool)
    for j in range(n_equations):
        incidence[1 + np.random.default_rng(j).permutation(23)[:4], j] = False
    fit = LowRankGLS(rank, algorithm="fgls").fit(_system(n_obs, n_equations, rank, X, incidence=incidence)).result_
    errors, seconds = timed(lambda: fit.std_errors.values)
    _, test = timed(lambda: fit.wald_test(f"*:{fit.regressors[0]} = 0"))
    return {
        "seconds": seconds,
        "test_seconds": test,
        "coefficients": fit.n_coefficients,
        "usable": bool((errors > 0).all()),
    }


def own(n_obs: int, n_equations: int, p: int) -> dict[str, Any]:
    """Regressors of each equation's own, streamed; against those of X'X at hand where that is small."""
    rng = np.random.default_rng(SEED + 1)
    X = rng.normal(size=(n_obs, n_equations * p))
    rows = max(1, n_obs // 8)
    lazy = da.from_array(X, chunks=(rows, n_equations * p))
    each = [lazy[:, j * p : (j + 1) * p] for j in range(n_equations)]
    F = rng.normal(size=(2, n_equations))
    Y = rng.normal(size=(n_obs, 2)) @ F + rng.normal(size=(n_obs, n_equations))
    system = System.from_arrays(da.from_array(Y, chunks=(rows, n_equations)), each)
    fit = LowRankGLS(2, engine="stream", algorithm="fgls", max_sweeps=2).fit(system).result_
    kept = fit.std_errors.values
    fit = replace(fit, evidence=replace(fit.evidence, x=None))
    block, one = timed(lambda: fit.cov(equation=fit.equations[1]).values)
    first = fit._classical.problem.meter.passes
    errors, seconds = timed(lambda: fit.std_errors.values)
    passes = fit._classical.problem.meter.passes - first
    mine = fit.design.spans[1]
    return {
        "seconds": seconds,
        "passes": passes,
        "one_seconds": one,
        "one_passes": first,
        "off_by": float(np.abs(errors / kept - 1).max()),
        "one_off_by": float(np.abs(np.sqrt(block.diagonal()) / kept[mine] - 1).max()),
    }


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    cases = [Case(f"wide_{n}x{K}", "wide", {"n_obs": n, "n_equations": K, "rank": k}) for n, K, k in size["wide"]]
    n, K, k = size["subsets"]
    cases.append(Case("subsets", "subsets", {"n_obs": n, "n_equations": K, "rank": k}))
    n, K, p = size["own"]
    cases.append(Case("own", "own", {"n_obs": n, "n_equations": K, "p": p}))
    runs = session.alternate(cases)
    summary = {
        "slowest_test": max(run["seconds"] for run in runs if run["case"].startswith("wide")),
        "most_off": max(max(run["off_by"], run["one_off_by"]) for run in runs if run["case"] == "own"),
    }
    return Report(dict(size), runs, summary)


TASKS: dict[str, Task] = {"wide": wide, "subsets": subsets, "own": own}


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, TASKS, run, argv)


if __name__ == "__main__":
    cli()
