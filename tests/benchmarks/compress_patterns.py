"""What `compress()` of rows in 50 patterns of missing responses costs beside that of the same rows complete.

Both in this process, in turn, by the time its processors worked, which other work on the machine disturbs least.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from harness import Case, Report, Session, main
from missing import FULL, SMALL, TURNS, rows_of

from lrgls_dask import System


def compressing(**size: int) -> dict[str, Any]:
    """A task: processor seconds of both, and how many patterns and rows are kept."""
    complete, holes = (rows_of(**size, missing=missing)[0] for missing in ("none", "patterns"))
    times = [(_seconds(complete), _seconds(holes)) for _ in range(TURNS)]
    whole, parted = (float(np.median(column)) for column in zip(*times, strict=True))
    kept = holes.compress()
    return {
        "seconds": parted,
        "complete_seconds": whole,
        "over_complete": float(np.median([b / a for a, b in times])),
        "patterns": kept.n_patterns,
        "rows_kept": kept.rows.n_rows,
    }


def _seconds(system: System) -> float:
    began = time.process_time()
    system.compress()
    return time.process_time() - began


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    runs = session.alternate([Case("compressing", "compressing", size, at_most=1)])
    return Report(dict(size), runs, {"patterns_over_complete": runs[0]["over_complete"]})


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, {"compressing": compressing}, run, argv)


if __name__ == "__main__":
    cli()
