"""Errors and power of tests in many equations at once, with strong factors; their time where restrictions tie all."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from harness import Case, Report, Session, main, timed

from lrgls_dask import FitWarning, LowRankGLS, System

FULL = {"n_equations": 500, "n_obs": 200, "rank": 3, "effects": 50, "simulations": 1_000}
SMALL = {"n_equations": 40, "n_obs": 80, "rank": 2, "effects": 6, "simulations": 4}
RESTRICTED = {"n_equations": 1_600, "n_obs": 400, "rank": 3}
RESTRICTED_SMALL = {"n_equations": 40, "n_obs": 80, "rank": 2}
METHODS = ("holm", "sup-t", "bh", "by", "factor-adjusted")
LEVEL = 0.95


def simulate(seed: int, n_equations: int, n_obs: int, rank: int, effects: int) -> tuple[System, np.ndarray]:
    """Errors of which strong factors are half or more; the first equations have a slope, of 0.3, four standard errors
    of what is their own."""
    rng = np.random.default_rng([seed, n_equations, n_obs])
    x = np.column_stack([np.ones(n_obs), rng.standard_normal((n_obs, 2))])
    loadings = rng.standard_normal((n_equations, rank))
    slope = np.where(np.arange(n_equations) < effects, 0.3, 0.0)
    own = rng.uniform(0.7, 1.3, n_equations)
    errors = rng.standard_normal((n_obs, rank)) @ loadings.T + own * rng.standard_normal((n_obs, n_equations))
    return System.from_arrays(np.outer(x[:, 1], slope) + errors, x), slope != 0.0


def errors(n_equations: int, n_obs: int, rank: int, effects: int, simulations: int) -> dict[str, Any]:
    """By method: how often any true hypothesis is rejected, the share of rejections that are false, of effects found;
    how often simultaneous bands leave an estimand out."""
    wrong = {name: np.zeros((simulations, 3)) for name in METHODS}
    missed = np.zeros(simulations, dtype=bool)

    def simulated() -> None:
        for i in range(simulations):
            system, is_effect = simulate(i, n_equations, n_obs, rank, effects)
            fit = LowRankGLS(rank, algorithm="fgls").fit(system).result_.with_cov("classical", debiased=True)
            for name in METHODS:
                bands = "sup-t" if name == "sup-t" else None  # which takes the same draws
                found = fit.across("*:x1 = 0", name, level=LEVEL, bands=bands, seed=i)  # type: ignore[arg-type]
                rejected = found.table["rejected"].to_numpy()
                false = int(np.count_nonzero(rejected & ~is_effect))
                share = false / max(1, int(rejected.sum()))
                wrong[name][i] = false > 0, share, rejected[is_effect].mean()
                if bands is not None:
                    slope = np.where(is_effect, 0.3, 0.0)
                    missed[i] = bool(((found.table["conf_low"] > slope) | (found.table["conf_high"] < slope)).any())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        _, seconds = timed(simulated)
    out: dict[str, Any] = {"seconds": seconds, "bands_miss": float(missed.mean())}
    for name, each in wrong.items():
        error = each.std(axis=0, ddof=1) / np.sqrt(simulations)
        out[name] = dict(zip(("fwer", "fdr", "power"), each.mean(axis=0).tolist(), strict=True))
        out[name] |= {"fwer_error": float(error[0]), "fdr_error": float(error[1])}
    return out


def restricted(n_equations: int, n_obs: int, rank: int) -> dict[str, Any]:
    """Seconds of one hypothesis in each equation, with simultaneous bands, of slopes that add up to zero."""
    system, _ = simulate(0, n_equations, n_obs, rank, 0)
    held = [" + ".join(f"{equation}:{x}" for equation in system.equations) + " = 0" for x in ("x1", "x2")]
    fit = LowRankGLS(rank, algorithm="fgls", restrictions=held).fit(system).result_
    _, seconds = timed(lambda: fit.across("*:x1 = 0", "sup-t"))
    return {"seconds": seconds}


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    held = RESTRICTED_SMALL if session.small else RESTRICTED
    runs = session.alternate(
        [Case("errors", "errors", size, at_most=1), Case("restricted", "restricted", held, at_most=3)]
    )
    found = runs[0]
    table = [{"method": name, **found[name]} for name in METHODS]
    summary = {f"{name}_{what}": found[name][what] for name in METHODS for what in ("fwer", "fdr", "power")}
    summary["restricted_seconds"] = min(run["seconds"] for run in runs if run["case"] == "restricted")
    return Report({**size, "level": LEVEL}, runs, {"bands_miss": found["bands_miss"], **summary}, table)


TASKS = {"errors": errors, "restricted": restricted}


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, TASKS, run, argv)


if __name__ == "__main__":
    cli()
