"""What safety costs: a checkpoint in each sweep of a fit by passes, and checksums of all chunks in a pass.

The same fit with and without a checkpoint, and the same pass over a store whose chunks end with their crc32c and over
one whose chunks do not, in turn. A checkpoint may cost 3 % of a fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dask
import zarr
from harness import Case, Report, Session, Task, main, ratio, timed

from lrgls_dask import LowRankGLS, System

FULL = {"n_obs": 400_000, "n_equations": 60, "n_regressors": 4, "row_chunk": 20_000}
SMALL = {"n_obs": 2_000, "n_equations": 12, "n_regressors": 2, "row_chunk": 500}
SWEEPS = {False: 20, True: 3}
ROWS_AT_ONCE = 20_000


def fit(path: str, sweeps: int, kept: bool) -> dict[str, Any]:
    """A task: seconds of a fit that reads the rows in each sweep."""
    with TemporaryDirectory(dir=Path(path).parent) as folder, dask.config.set(scheduler="threads", num_workers=2):
        checkpoint = str(Path(folder) / "kept") if kept else None
        options: dict[str, Any] = {"engine": "stream", "algorithm": "em", "max_sweeps": sweeps, "rel_tol": 1e-14}
        model = LowRankGLS(3, checkpoint=checkpoint, **options)
        found, seconds = timed(lambda: model.fit(System.from_zarr(path)).result_)
    return {"seconds": seconds, "passes": found.n_passes, "nll": found.nll}


def read(path: str) -> dict[str, Any]:
    """A task: seconds of one pass."""
    with dask.config.set(scheduler="threads", num_workers=2):
        found, seconds = timed(lambda: LowRankGLS(0).fit(System.from_zarr(path)).result_)
    return {"seconds": seconds, "passes": found.n_passes, "nll": found.nll}


def without_checksums(path: Path) -> Path:
    """A plain copy, as another program would have written it."""
    there = path.with_name(f"plain-{path.name}")
    if not there.exists():
        old, new = zarr.open_group(path, mode="r"), zarr.open_group(there, mode="w")
        for name in ("Y", "X"):
            array: Any = old[name]
            made = new.create_array(
                name,
                shape=array.shape,
                chunks=array.chunks,
                dtype=array.dtype,
                compressors=None,
                fill_value=float("nan"),
            )
            for start in range(0, array.shape[0], ROWS_AT_ONCE):
                made[start : start + ROWS_AT_ONCE] = array[start : start + ROWS_AT_ONCE]
    return there


TASKS: dict[str, Task] = {"fit": fit, "read": read}


def run(session: Session) -> Report:
    sizes = SMALL if session.small else FULL
    path = session.store(**sizes)
    plain, sweeps = without_checksums(path), SWEEPS[session.small]
    cases = [
        Case("fit", "fit", {"path": str(path), "sweeps": sweeps, "kept": False}),
        Case("fit with a checkpoint", "fit", {"path": str(path), "sweeps": sweeps, "kept": True}),
        Case("pass without checksums", "read", {"path": str(plain)}),
        Case("pass with checksums", "read", {"path": str(path)}),
    ]
    runs = session.alternate(cases)
    summary = {
        "fit_with_a_checkpoint_over_without": ratio(runs, "fit with a checkpoint", "fit"),
        "pass_with_checksums_over_without": ratio(runs, "pass with checksums", "pass without checksums"),
        "nll_apart": abs(runs[0]["nll"] - runs[1]["nll"]),
    }
    return Report({**sizes, "sweeps": sweeps}, runs, summary)


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__ or "", TASKS, run, argv)


if __name__ == "__main__":
    cli()
