"""What a command took: seconds, passes, bytes, peak memory."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import psutil
from dask.utils import format_bytes

from lrgls_dask.cli.arguments import AnyFit

SAMPLE_SECONDS = 0.02  # between two looks at the memory of the process


class _Cost:
    """Seconds, and the most bytes of memory this process and the children it has now held together at any look."""

    def __init__(self) -> None:
        this = psutil.Process()
        self.processes = [this, *this.children(recursive=True)]  # found once: finding them costs milliseconds
        self.peak, self.seconds = 0, 0.0

    def look(self) -> None:
        total = 0
        for process in self.processes:
            with contextlib.suppress(psutil.Error):  # a child may have ended
                total += process.memory_info().rss
        self.peak = max(self.peak, total)


@contextlib.contextmanager
def watched() -> Iterator[_Cost]:
    cost, done, began = _Cost(), threading.Event(), time.perf_counter()

    def watch() -> None:
        while not done.wait(SAMPLE_SECONDS):
            cost.look()

    watcher = threading.Thread(target=watch, daemon=True)
    cost.look()
    watcher.start()
    try:
        yield cost
    finally:
        done.set()
        watcher.join()
        cost.look()
        cost.seconds = time.perf_counter() - began


def print_cost(fit: AnyFit, cost: _Cost) -> None:
    """Passes, bytes, seconds and bytes per second of the whole fit, and the memory held at most."""
    print(
        f"\nPasses {fit.n_passes}, read {format_bytes(fit.bytes_read)} in {cost.seconds:.2f} s "
        f"({format_bytes(int(fit.bytes_read / cost.seconds))}/s), peak memory {format_bytes(cost.peak)}"
    )
