"""Parametric bootstrap: milliseconds a replicate against alsgls, and at ten thousand against ten million rows.

Ten million rows are never stored: their cross-products are drawn as those of normal rows (a Wishart factor).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from alsgls import als_gls, simulate_sur
from alsgls.bootstrap import bootstrap_system
from harness import Case, Report, Session, main, median, ratio, timed

from lrgls_dask import CompressedSystem, LowRankGLS, System
from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.rows.moments import Head

RANK, SEED = 3, 0
FULL: dict[str, Any] = {"n_equations": 50, "n_regressors": 5, "n_obs": [10_000, 10_000_000], "n": 999, "theirs": 3}
SMALL: dict[str, Any] = {"n_equations": 6, "n_regressors": 2, "n_obs": [500, 500_000], "n": 20, "theirs": 2}


def boot_alsgls(n_obs: int, n_equations: int, n_regressors: int, n: int) -> dict[str, Any]:
    xs, y, _, _ = simulate_sur(n_obs, 10, n_equations, n_regressors, RANK, SEED)
    options: dict[str, Any] = {"lam_B": 0.0}
    b, f, d, _, _ = als_gls(xs, y, k=RANK, **options)
    call = {"B_list": b, "F": f, "D": d, "k": RANK, "als_kwargs": options, "B": n, "seed": SEED}
    (estimates, _), seconds = timed(lambda: bootstrap_system(xs, y, **call))
    return {"seconds": seconds, "per_replicate": seconds / n, "mean_std_error": float(estimates.std(axis=0).mean())}


def boot_lrgls(n_obs: int, n_equations: int, n_regressors: int, n: int) -> dict[str, Any]:
    fit = LowRankGLS(rank=RANK).fit(simulated_moments(n_obs, n_equations, n_regressors)).result_
    boot, seconds = timed(lambda: fit.bootstrap(n, seed=SEED))
    over_classical = float((boot.std_errors / fit.std_errors).mean())
    return {"seconds": seconds, "per_replicate": seconds / n, "over_classical": over_classical, "failed": boot.n_failed}


def simulated_moments(n_obs: int, n_equations: int, n_regressors: int) -> CompressedSystem:
    """What `compress` makes of n_obs rows of standard normal regressors and errors of three factors."""
    rng = np.random.default_rng(SEED)
    small = [rng.standard_normal((n_equations * n_regressors + 2, n_regressors)) for _ in range(n_equations)]
    design = System.from_arrays(rng.standard_normal((len(small[0]), n_equations)), small).design
    q = design.n_regressors
    root = np.triu(rng.standard_normal((q + n_equations, q + n_equations)), 1)
    root[np.diag_indices(len(root))] = np.sqrt(rng.chisquare(n_obs - 1 - np.arange(len(root))))
    loadings = rng.standard_normal((n_equations, RANK))
    chol = np.linalg.cholesky(loadings @ loadings.T + np.diag(rng.uniform(0.5, 1.5, n_equations)))
    effects = np.zeros((q, n_equations))
    for j, columns in enumerate(design.columns):
        effects[columns, j] = rng.standard_normal(len(columns))
    mixing = np.block([[np.eye(q), effects], [np.zeros((n_equations, q)), chol.T]])
    head = Head(n_obs, float(n_obs), 0.0, np.zeros(len(root)), rng.standard_normal(len(root)) / np.sqrt(n_obs) @ mixing)
    return CompressedSystem(Compressed(design, head, np.linalg.qr(root @ mixing, mode="r"), "qr"))


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    shape = {name: size[name] for name in ("n_equations", "n_regressors")}
    few, many = size["n_obs"]
    names = [f"lrgls_dask N={n_obs}" for n_obs in (few, many)]
    cases = [Case("alsgls", "alsgls", {"n_obs": few, **shape, "n": size["theirs"]})]
    cases += [
        Case(name, "lrgls_dask", {"n_obs": n_obs, **shape, "n": size["n"]})
        for name, n_obs in zip(names, (few, many), strict=True)
    ]
    runs = session.alternate(cases)
    summary = {
        "times_faster_per_replicate": ratio(runs, "alsgls", names[0], "per_replicate"),
        "ms_per_replicate": 1e3 * median(runs, names[0], "per_replicate"),
        "time_many_over_few": ratio(runs, names[1], names[0]),
        "over_classical_many": median(runs, names[1], "over_classical"),
    }
    return Report({**size, "rank": RANK}, runs, summary)


TASKS = {"alsgls": boot_alsgls, "lrgls_dask": boot_lrgls}


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, TASKS, run, argv)


if __name__ == "__main__":
    cli()
