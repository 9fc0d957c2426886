"""The rank by five-fold cross-validation over 1 .. 12 against one fit of known rank on the same store.

Both read every row once; what cross-validation takes beside that does not grow with the rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from harness import Case, Report, Session, main, median, ratio, timed

from lrgls_dask import FitWarning, LowRankGLS, System

FULL = {"n_obs": 1_000_000, "n_equations": 50, "n_regressors": 5, "row_chunk": 10_000}
SMALL = {"n_obs": 5_000, "n_equations": 8, "n_regressors": 2, "row_chunk": 1_000}
TRUE_RANK = 3


def fit(path: str, rank: Any) -> dict[str, Any]:
    """Seconds from the path to the result, passes over the rows, and the rank."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)  # ranks above the true one run into Heywood cases
        found, seconds = timed(lambda: LowRankGLS(rank=rank).fit(System.from_zarr(path)).result_)
    return {"seconds": seconds, "passes": found.n_passes, "rank": found.rank}


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    path = str(session.store(**size))
    cases = [Case("plain", "fit", {"path": path, "rank": TRUE_RANK}), Case("cv", "fit", {"path": path, "rank": "cv"})]
    runs = session.alternate(cases)
    summary = {
        "cv_over_plain": ratio(runs, "cv", "plain"),
        "seconds_beyond_1.5_plain": median(runs, "cv") - 1.5 * median(runs, "plain"),
        "passes_cv": int(median(runs, "cv", "passes")),
        "rank_cv": int(median(runs, "cv", "rank")),
    }
    return Report({**size, "true_rank": TRUE_RANK}, runs, summary)


TASKS = {"fit": fit}


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, TASKS, run, argv)


if __name__ == "__main__":
    cli()
