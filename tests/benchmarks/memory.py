"""Peak memory of a one-pass fit at N and at 2 N rows, beside the figure its plan names before any read."""

from __future__ import annotations

from collections.abc import Sequence

from harness import Case, Report, Session, fit_store, main, median, ratio

THREADS = 2
FULL = {"n_obs": 4_000_000, "n_equations": 50, "n_regressors": 5, "row_chunk": 10_000}
SMALL = {"n_obs": 20_000, "n_equations": 10, "n_regressors": 5, "row_chunk": 1_000}


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    stores = {"N": session.store(**size), "2N": session.store(**{**size, "n_obs": 2 * size["n_obs"]})}
    runs = session.alternate(
        [Case(name, "fit", {"path": str(path), "threads": THREADS}) for name, path in stores.items()]
    )
    summary = {
        "peak_2N_over_N": ratio(runs, "2N", "N", "peak_sum"),
        **{f"peak_{name}": int(median(runs, name, "peak_sum")) for name in stores},
        **{f"planned_peak_{name}": int(median(runs, name, "planned_peak")) for name in stores},
        "most_peak_over_plan": max(run["peak_sum"] / run["planned_peak"] for run in runs),
    }
    return Report({**size, "threads": THREADS}, runs, summary)


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, {"fit": fit_store}, run, argv)


if __name__ == "__main__":
    cli()
