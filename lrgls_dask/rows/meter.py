"""What work on rows has cost so far: passes, bytes, seconds, and what the passes were for."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lrgls_dask.design.design import Design
from lrgls_dask.rows.events import say
from lrgls_dask.rows.pinned import PinnedRows
from lrgls_dask.rows.progress import Progress
from lrgls_dask.rows.purposes import in_words

__all__ = ["Meter"]


@dataclass
class Meter:
    """Counts what a fit has cost so far: passes over the rows, decoded bytes they read; began on its own clock.

    earlier : passes and bytes of a client that was killed before, less those of it that this one had to make again.
    purposes : what each pass was for.  name : of the fit, for its tasks and log.
    pinned : the rows that stay in memory between passes, while a fit that may keep some goes on.
    """

    progress: Progress = field(default_factory=Progress)
    passes: int = 0
    bytes_read: int = 0
    began: float = field(default_factory=time.perf_counter)
    earlier: tuple[int, int] = (0, 0)
    purposes: list[str] = field(default_factory=list)
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:6])
    pinned: PinnedRows | None = None

    @contextmanager
    def pinning(self, stop: int) -> Iterator[None]:
        """While this lasts passes keep what they read of the rows before `stop`, see `PinnedRows`."""
        self.pinned = PinnedRows(stop)
        try:
            yield
        finally:
            self.pinned.release()
            self.pinned = None

    def pin(self, stop: int) -> None:
        """Keep rows before `stop` from the next pass on, where a fit goes on that may keep some."""
        if self.pinned is not None:
            self.pinned.stop = max(stop, self.pinned.stop)

    @property
    def name_of_pass(self) -> str:
        """Which pass of which fit comes next."""
        return f"{self.name}.{self.totals[0] + 1}"

    @property
    def seconds(self) -> float:
        """Since the fit began."""
        return time.perf_counter() - self.began

    @property
    def totals(self) -> tuple[int, int]:
        """Passes and bytes of the fit, as if it had not been interrupted."""
        return self.passes + self.earlier[0], self.bytes_read + self.earlier[1]

    def say_begun(self, n_obs: int, design: Design) -> None:
        """Log that a fit begins."""
        say("fit", fit=self.name, rows=n_obs, equations=design.n_equations, regressors=design.n_regressors)

    def say_fitted(self, fit: Any) -> None:
        """Log what the fit has come to."""
        ended = str(getattr(getattr(fit, "termination", None), "name", ""))
        nll, (passes, n_bytes), seconds = getattr(fit, "nll", None), self.totals, round(self.seconds, 3)
        known = {"ended": ended, "rank": fit.rank, "nll": None if nll is None else float(nll)}
        say("fitted", fit=self.name, **known, passes=passes, bytes=n_bytes, seconds=seconds)

    def say_pass(self, label: str, n_bytes: int, seconds: float) -> None:
        """Log that a pass is done."""
        rate = round(n_bytes / 1e9 / max(seconds, 1e-9), 3)
        number, shown = self.totals[0], round(seconds, 3)
        say("pass", fit=self.name, number=number, purpose=label, bytes=n_bytes, seconds=shown, gb_per_s=rate)

    def read_for(self, since: int) -> str:
        """What the passes were for after so many of `totals`, in words."""
        return in_words(Counter(self.purposes[max(0, since - self.earlier[0]) :]))

    def go_on_from(self, totals: tuple[int, int]) -> None:
        """What was read up to here is what these totals say, however often."""
        self.earlier = totals[0] - self.passes, totals[1] - self.bytes_read
