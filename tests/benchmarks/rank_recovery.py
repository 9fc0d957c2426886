"""How often BIC and cross-validation find the true number of factors, where the factors are well separated."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from harness import Case, Report, Session, main, median, timed

from lrgls_dask import FitWarning, LowRankGLS, System

FULL = {"n_obs": 1_000, "n_equations": 12, "true_rank": 3, "simulations": 100}
SMALL = {"n_obs": 300, "n_equations": 8, "true_rank": 2, "simulations": 4}


def recovery(rank: str, n_obs: int, n_equations: int, true_rank: int, simulations: int) -> dict[str, Any]:
    """The ranks chosen in so many simulations, and the share of them that is right."""

    def choose() -> list[int]:
        return [
            chosen(rank, np.random.default_rng([i, n_obs]), n_obs, n_equations, true_rank) for i in range(simulations)
        ]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)  # ranks above the true one run into Heywood cases
        ranks, seconds = timed(choose)
    counts = {str(k): n for k, n in sorted(Counter(ranks).items())}
    return {"seconds": seconds, "share_right": ranks.count(true_rank) / simulations, "chosen": counts}


def chosen(rank: str, rng: np.random.Generator, n_obs: int, n_equations: int, true_rank: int) -> int:
    """Three shared regressors; factors of strengths 1, 1.2, ..., each of them well above the noise of one equation."""
    x = np.column_stack([np.ones(n_obs), rng.standard_normal((n_obs, 2))])
    basis = np.linalg.qr(rng.standard_normal((n_equations, true_rank)))[0]
    loadings = basis * np.sqrt(n_equations) * (1.0 + 0.2 * np.arange(true_rank)) / 2
    errors = rng.standard_normal((n_obs, true_rank)) @ loadings.T
    errors += rng.standard_normal((n_obs, n_equations)) * rng.uniform(0.7, 1.0, n_equations)
    y = x @ rng.standard_normal((3, n_equations)) + errors
    model = LowRankGLS(rank=rank).fit(System.from_arrays(y, x))  # type: ignore[arg-type]
    return model.rank_


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    runs = session.alternate([Case(rank, "recovery", {"rank": rank, **size}, at_most=1) for rank in ("bic", "cv")])
    return Report({**size}, runs, {f"share_right_{rank}": median(runs, rank, "share_right") for rank in ("bic", "cv")})


TASKS = {"recovery": recovery}


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, TASKS, run, argv)


if __name__ == "__main__":
    cli()
