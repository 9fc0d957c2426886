"""Other packages on the part of the job that they do, in turns: seconds, peak memory beside our plan, and agreement.

Short and wide: scikit-learn's FactorAnalysis of the least squares residuals, which has no regression step. Tall and
narrow, a panel that is hard on us: pyfixest and dask-ml, which fit each equation alone and no Sigma. Small: SUR of
linearmodels. Packages that are not installed are left out; alsgls, duckreg and SUR of long data have their own scripts.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import dask
import dask.array as da
import numpy as np
from harness import Case, Report, Session, Task, main, median, ratio, timed

from lrgls_dask import LowRankGLS, System

THREADS = 2
# rows, equations, shared regressors (a constant is one of them), rank
FULL = {"wide": (300, 6_000, 5, 8), "narrow": (1_000_000, 3, 4, 1), "small": (200, 4, 3, 1)}
SMALL = {"wide": (40, 100, 3, 2), "narrow": (2_000, 3, 3, 1), "small": (100, 3, 2, 1)}
PEERS = {"wide": ["sklearn"], "narrow": ["pyfixest", "dask_ml"], "small": ["linearmodels"]}


def draw(n_obs: int, n_equations: int, n_regressors: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([n_obs, n_equations])
    X = np.column_stack([np.ones(n_obs), rng.normal(size=(n_obs, n_regressors - 1))])
    errors = rng.normal(size=(n_obs, rank)) @ rng.normal(size=(rank, n_equations)) + rng.normal(
        size=(n_obs, n_equations)
    )
    return X @ rng.normal(size=(n_regressors, n_equations)) + errors, X


def lrgls(shape: Sequence[int]) -> dict[str, Any]:
    Y, X = draw(*shape)
    model = LowRankGLS(shape[-1])
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        fit, seconds = timed(lambda: model.fit(System.from_arrays(Y, X)).result_)
    coefficients = fit.params.to_numpy().reshape(len(X.T), -1, order="F")
    found = {"nll": fit.nll, "engine": model.plan_.engine, "planned_peak": model.plan_.client_peak}
    return {"seconds": seconds, "coefficients": coefficients.tolist() if len(Y.T) < 10 else [], **found}


def sklearn(shape: Sequence[int]) -> dict[str, Any]:
    analysis = import_module("sklearn.decomposition").FactorAnalysis
    Y, X = draw(*shape)

    def fitted() -> Any:
        residuals = Y - X @ np.linalg.lstsq(X, Y)[0]
        return analysis(shape[-1], tol=1e-6, max_iter=10_000).fit(residuals), residuals

    (found, residuals), seconds = timed(fitted)
    return {"seconds": seconds, "nll": -float(found.score(residuals)), "coefficients": []}


def pyfixest(shape: Sequence[int]) -> dict[str, Any]:
    feols = import_module("pyfixest").feols
    Y, X = draw(*shape)
    names = [[f"y{j}" for j in range(len(Y.T))], [f"x{j}" for j in range(1, len(X.T))]]
    frame = import_module("pandas").DataFrame(np.column_stack([Y, X[:, 1:]]), columns=[*names[0], *names[1]])
    formula = f"{' + '.join(names[0])} ~ {' + '.join(names[1])}"
    found, seconds = timed(lambda: feols(formula, frame))
    return {
        "seconds": seconds,
        "coefficients": np.array([each.coef().to_numpy() for each in found.to_list()]).T.tolist(),
    }


def dask_ml(shape: Sequence[int]) -> dict[str, Any]:
    regression = import_module("dask_ml.linear_model").LinearRegression
    Y, X = draw(*shape)
    height = -(-len(Y) // 8)
    x, y = (da.from_array(each, chunks=(height, -1)) for each in (X, Y))

    def fitted() -> list[Any]:
        return [regression(solver="newton", fit_intercept=False).fit(x, y[:, j]).coef_ for j in range(len(Y.T))]

    with dask.config.set(scheduler="threads", num_workers=THREADS):
        found, seconds = timed(fitted)
    return {"seconds": seconds, "coefficients": np.array(found).T.tolist()}


def linearmodels(shape: Sequence[int]) -> dict[str, Any]:
    sur = import_module("linearmodels.system").SUR
    Y, X = draw(*shape)
    equations = {f"y{j}": {"dependent": y, "exog": X} for j, y in enumerate(Y.T)}
    found, seconds = timed(lambda: sur(equations).fit(method="gls"))
    return {"seconds": seconds, "coefficients": found.params.to_numpy().reshape(len(Y.T), -1).T.tolist()}


def run(session: Session) -> Report:
    shapes = SMALL if session.small else FULL
    runs: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    missing = sorted(name for names in PEERS.values() for name in names if find_spec(name) is None)
    for what, shape in shapes.items():
        peers = [name for name in PEERS[what] if name not in missing]
        cases = {name: Case(f"{what}, {name}", name, {"shape": shape}) for name in ("lrgls", *peers)}
        runs += session.alternate(list(cases.values()))
        ours = next(run for run in runs if run["case"] == cases["lrgls"].name)
        summary[f"{what}_peak_over_plan"] = ours["peak_max"] / ours["planned_peak"]
        for name in peers:
            theirs = next(run for run in runs if run["case"] == cases[name].name)
            summary[f"{what}_{name}_seconds_over_ours"] = ratio(runs, cases[name].name, cases["lrgls"].name)
            if theirs["coefficients"]:
                apart = np.abs(np.array(theirs["coefficients"]) - ours["coefficients"])
                summary[f"{what}_{name}_coefficients_apart"] = float(apart.max())
            else:
                excess = median(runs, cases["lrgls"].name, "nll") - median(runs, cases[name].name, "nll")
                summary[f"{what}_{name}_nll_excess"] = excess
    return Report({"threads": THREADS, "not_installed": missing, **shapes}, runs, summary)


TASKS: dict[str, Task] = {
    "lrgls": lrgls,
    "sklearn": sklearn,
    "pyfixest": pyfixest,
    "dask_ml": dask_ml,
    "linearmodels": linearmodels,
}


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, TASKS, run, argv)


if __name__ == "__main__":
    cli()
