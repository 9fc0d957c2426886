"""Peak memory and seconds of a one-pass fit of 100 segments with a Sigma each, beside the peak its plan names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
from harness import Case, Report, Session, main, median, timed

from lrgls_dask import LowRankGLS, System, TimeVarying

THREADS, RANK, BLOCK_BYTES = 2, 3, 8e6
FULL: dict[str, Any] = {"n_obs": 500_000, "n_segments": 100, "shapes": [(50, 10), (200, 50)]}
SMALL: dict[str, Any] = {"n_obs": 20_000, "n_segments": 10, "shapes": [(10, 5), (20, 10)]}


def store_of(folder: Path, n_obs: int, n_equations: int, n_regressors: int) -> Path:
    """A store of equations that share their regressors, one factor; made unless a run before left it here."""
    path = folder / f"shared-N{n_obs}-K{n_equations}-q{n_regressors}.zarr"
    if not path.exists():
        rows = max(100, int(BLOCK_BYTES / (8 * (n_equations + n_regressors))))
        draw = da.random.default_rng(20260101).normal
        X = draw(size=(n_obs, n_regressors), chunks=(rows, n_regressors))
        Y = draw(size=(n_obs, n_equations), chunks=(rows, n_equations)) + draw(size=(n_obs, 1), chunks=(rows, 1))
        System.from_arrays(Y, X).to_zarr(path)
    return path


def fit_segments(path: str, n_segments: int, bandwidth: float | str) -> dict[str, Any]:
    """A task: the fit, from its path to the result, and what its plan said before."""
    system = System.from_zarr(path)
    segments = np.arange(system.n_obs) * n_segments // system.n_obs
    model = LowRankGLS(covariance=TimeVarying(RANK, segments, bandwidth))  # type: ignore[arg-type]
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        fit, seconds = timed(lambda: model.fit(system).result_)
    return {"seconds": seconds, "planned_peak": model.plan_.peak, "passes": fit.n_passes, "bytes_read": fit.bytes_read}


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    cases = []
    for K, q in size["shapes"]:
        path = store_of(session.folder, size["n_obs"], K, q)
        for bandwidth in (3.0, "cv") if size["shapes"][0][0] == K else (3.0,):
            arguments = {"path": str(path), "n_segments": size["n_segments"], "bandwidth": bandwidth}
            cases.append(Case(f"K{K}-q{q}-{bandwidth}", "fit", arguments))
    runs = session.alternate(cases)
    summary: dict[str, Any] = {}
    for case in cases:
        peak, planned = median(runs, case.name, "peak_sum"), median(runs, case.name, "planned_peak")
        summary |= {f"peak_{case.name}": int(peak), f"planned_over_peak_{case.name}": planned / peak}
    return Report({**size, "rank": RANK, "threads": THREADS}, runs, summary)


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, {"fit": fit_segments}, run, argv)


if __name__ == "__main__":
    cli()
