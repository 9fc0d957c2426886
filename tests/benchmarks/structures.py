"""A Sigma step with sparse, or with grouped, factors against one unstructured maximum-likelihood step of equal rank.

All start from nothing but S (K, K), and go to their own last digit; the gap shown is what is left of the optimality
conditions. Absent is data with general factors alone, so that every factor of a group is one too many. Warm is the same
step started from its own result for a slightly different S, as in a sweep of a fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from harness import Case, Report, Session, main, ratio, timed

from lrgls_dask.sigma.blocks import Blocks
from lrgls_dask.sigma.grouped_structure import grouped_step
from lrgls_dask.sigma.ml import ml_step
from lrgls_dask.sigma.sparse import kkt_violation, sparse_step

FLOOR, SEED, CHANGE = 1e-8, 0, 1e-3
FULL: dict[str, Any] = {"n_obs": 5_000, "n_equations": 1_000, "rank": 5, "groups": 20}
SMALL: dict[str, Any] = {"n_obs": 1_000, "n_equations": 40, "rank": 2, "groups": 4}
L1 = 0.03


def moments(
    n_obs: int, n_equations: int, rank: int, groups: int, *, absent: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """A correlation matrix from loadings of which half are zero and, unless absent, a factor of each group; groups."""
    rng = np.random.default_rng(SEED)
    codes = np.arange(n_equations) * groups // n_equations
    F = 0.7 * rng.normal(size=(n_equations, rank)) * (rng.random((n_equations, rank)) < 0.5)
    own = rng.uniform(0.3, 0.8, n_equations) * rng.normal(size=(n_obs, groups))[:, codes]
    own = np.zeros_like(own) if absent else own
    noise = rng.normal(size=(n_obs, n_equations)) * rng.uniform(0.6, 0.95, n_equations)
    return np.corrcoef((rng.normal(size=(n_obs, rank)) @ F.T + own + noise).T), codes


def unstructured(**size: Any) -> dict[str, Any]:
    S, _ = moments(**size)
    step, seconds = timed(lambda: ml_step(S, size["rank"], np.full(len(S), FLOOR)))
    return {"seconds": seconds, "nll": step.sigma.nll(S)}


def sparse(l1: float, **size: int) -> dict[str, Any]:
    S, _ = moments(**size)
    floor = np.full(len(S), FLOOR)
    step, seconds = timed(lambda: sparse_step(S, size["rank"], floor, l1=l1))
    other = S + CHANGE * (np.eye(len(S)) - S)
    _, warm = timed(lambda: sparse_step(other, size["rank"], floor, l1=l1, start=step.sigma))
    gap = kkt_violation(step.sigma, S, floor, l1)
    return {"seconds": seconds, "warm_seconds": warm, "gap": gap, "loadings": int(np.count_nonzero(step.sigma.F))}


def grouped(**size: Any) -> dict[str, Any]:
    S, codes = moments(**size)
    floor, blocks = np.full(len(S), FLOOR), Blocks((np.zeros(len(S), dtype=np.intp), codes), (size["rank"], 1))
    step, seconds = timed(lambda: grouped_step(S, blocks, floor))
    other = S + CHANGE * (np.eye(len(S)) - S)
    _, warm = timed(lambda: grouped_step(other, blocks, floor, start=step.sigma))
    P = step.sigma.precision()
    slope = blocks.compact((P - P @ S @ P) @ step.sigma.F)
    return {"seconds": seconds, "warm_seconds": warm, "gap": float(np.abs(slope).max()), "nll": step.sigma.nll(S)}


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    absent = {**size, "absent": True}
    cases = [Case("unstructured", "unstructured", size), Case("grouped", "grouped", size)]
    cases += [Case("unstructured_absent", "unstructured", absent), Case("grouped_absent", "grouped", absent)]
    cases.append(Case("sparse", "sparse", {"l1": L1, **size}))
    runs = session.alternate(cases)
    summary: dict[str, Any] = {"most_gap": max(run["gap"] for run in runs if "gap" in run)}
    for case in (case for case in cases if case.task != "unstructured"):
        base = "unstructured_absent" if case.name == "grouped_absent" else "unstructured"
        summary[f"times_unstructured_{case.name}"] = ratio(runs, case.name, base)
        warm = [run["warm_seconds"] for run in runs if run["case"] == case.name]
        plain = [run["seconds"] for run in runs if run["case"] == base]
        summary[f"warm_times_unstructured_{case.name}"] = float(np.median(warm) / np.median(plain))
    return Report({**size, "l1": L1}, runs, summary)


TASKS = {"unstructured": unstructured, "sparse": sparse, "grouped": grouped}


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, TASKS, run, argv)


if __name__ == "__main__":
    cli()
